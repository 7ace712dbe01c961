/* The forward pass (Vaswani et al. 2017; Touvron et al. 2023): straight-line code over operators. Every
 * thread of a team executes it, inside one parallel region per slice of a batch; operators share their
 * work out and end in barriers. */
#include "model/arch.h"
#include "model/context.h"
#include "model/observe.h"
#include "model/rope.h"

#include <math.h>

/* --check-finite: remembers the first operator whose result (n floats) holds a NaN or an infinity. */
static void check(struct worker *w, struct context *x, int layer, const char *op, const float *result,
                  int64_t n)
{
    if (!x->opt.check_finite)
        return;
    if (w->id == 0 && !x->fault.op) {
        float part[1024];
        bool finite = true;
        for (int64_t i = 0; i < n && finite; i += 1024) {
            int64_t len = n - i < 1024 ? n - i : 1024;
            x->model->ops->download(part, result + i, (size_t)len * sizeof(float));
            for (int64_t j = 0; j < len; j++)
                finite &= isfinite(part[j]) != 0;
        }
        if (!finite) {
            x->fault.op = op;
            x->fault.layer = layer;
        }
    }
    team_barrier(w);
}

/* dst = norm(src), n rows; dst may be src */
static struct norm_args norm_args(const struct context *x, float *dst, const float *src, const float *weight,
                                  const float *bias, int n)
{
    const struct config *c = &x->model->config;
    return (struct norm_args){dst, src, weight, bias, n, c->dim, c->norm_eps, c->arch->norm};
}

/* n rows, the input of products; they are still to be made when norm or gate is not NULL. */
struct rows {
    const float *x;
    int n;
    const struct norm_args *norm;
    const struct gate_args *gate;
};

/* A matrix, where its product goes, and whether it is added there. */
struct product {
    const struct matrix *matrix;
    float *out;
    bool add;
};

/* What adapters add to a product, in float. */
static void add_lora(struct worker *w, struct context *x, const float *in, int n, const struct product *p)
{
    const struct ops *ops = x->model->ops;
    struct linear_args a = {.x = in,
                            .n_tokens = n,
                            .n_parts = 1,
                            .part = {{&p->matrix->lora_a, NULL, x->lora, false}},
                            .compute = COMPUTE_F32,
                            .scratch = x->linear_scratch};
    ops->linear(w, &a);
    a.x = x->lora;
    a.part[0] = (struct linear_part){&p->matrix->lora_b, NULL, p->out, true};
    ops->linear(w, &a);
}

/* Shows the batch's observer what products multiply with: their input is made by now. */
static void observe(struct worker *w, const struct context *x, struct rows in, int n_products,
                    const struct product product[])
{
    struct observation o = {.x = in.x, .n = in.n, .cols = (int)product[0].matrix->packed.cols};
    for (; o.n_parts < n_products; o.n_parts++)
        o.part[o.n_parts] = product[o.n_parts].matrix;
    x->batch->observe(x->batch->observe_arg, w, &o);
    team_barrier(w);
}

/* One input (rows of the matrices' width), up to three products. Matrices whose input is ordered (act-order)
 * share it while their order is the same. */
static void linear(struct worker *w, struct context *x, struct rows in, int n_products,
                   const struct product product[])
{
    const struct ops *ops = x->model->ops;
    for (int at = 0; at < n_products;) {
        const struct matrix *first = product[at].matrix;
        struct linear_args a = {.x = in.x,
                                .norm = in.norm,
                                .gate = in.gate,
                                .n_tokens = in.n,
                                .compute = x->opt.compute,
                                .scratch = x->linear_scratch};
        if (first->order) {
            if (in.norm)
                ops->norm(w, in.norm);
            if (in.gate)
                ops->gate(w, in.gate);
            ops->permute(w, x->ordered, in.x, in.n, (int)first->packed.cols, first->order);
            a.x = x->ordered;
            a.norm = NULL;
            a.gate = NULL;
        }
        for (; at < n_products && product[at].matrix->order == first->order; at++) {
            const struct product *p = &product[at];
            a.part[a.n_parts++] = (struct linear_part){&p->matrix->packed, p->matrix->bias, p->out, p->add};
        }
        if (at == n_products)
            a.next = &product[at - 1].matrix->next;
        ops->linear(w, &a);
        in.norm = NULL; /* made by now */
        in.gate = NULL;
    }
    for (int i = 0; i < n_products; i++)
        if (product[i].matrix->lora_a.data)
            add_lora(w, x, in.x, in.n, &product[i]);
    if (x->batch->observe)
        observe(w, x, in, n_products, product);
}

/* The last product of attention and feed-forward: added to the residual stream, with a norm of its own
 * (post_norm) before that where the architecture has one. `normed` is what the branch began with. */
static void add_branch(struct worker *w, struct context *x, struct rows in, const struct matrix *matrix,
                       const float *post_norm)
{
    const struct model *m = x->model;
    const int64_t len = (int64_t)x->n * m->config.dim;
    if (m->config.arch->normed_residual)
        m->ops->scale(w, x->x, x->normed, len, m->config.residual_scale);
    if (!post_norm) {
        linear(w, x, in, 1, (struct product[]){{matrix, x->x, true}});
        return;
    }
    linear(w, x, in, 1, (struct product[]){{matrix, x->normed, false}});
    const struct norm_args norm = norm_args(x, x->normed, x->normed, post_norm, NULL, x->n);
    m->ops->norm(w, &norm);
    m->ops->add(w, x->x, x->normed, len);
}

/* Norms of each head (Henry et al. 2020, arXiv:2010.04245), in place. */
static void norm_heads(struct worker *w, struct context *x, float *heads, const float *weight, int n_heads)
{
    const struct config *c = &x->model->config;
    if (weight)
        x->model->ops->norm(w, &(struct norm_args){heads, heads, weight, NULL, x->n * n_heads, c->head_dim,
                                                   c->norm_eps, NORM_RMS});
}

static void attention(struct worker *w, struct context *x, int l)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct layer *y = &m->layers[l];
    const bool windowed = c->windowed[l];
    const struct kv_slot *slot = windowed ? x->slot_windowed : x->slot;
    const int64_t q_len = (int64_t)x->n * c->n_heads * c->head_dim;
    const int64_t kv_len = (int64_t)x->n * c->n_kv_heads * c->head_dim;

    const struct norm_args norm = norm_args(x, x->normed, x->x, y->attn_norm, y->attn_norm_bias, x->n);
    linear(
        w, x, (struct rows){.x = x->normed, .n = x->n, .norm = &norm}, 3,
        (struct product[]){{&y->attn_q, x->q, false}, {&y->attn_k, x->k, false}, {&y->attn_v, x->v, false}});
    check(w, x, l, "attention norm", x->normed, (int64_t)x->n * c->dim);
    norm_heads(w, x, x->q, y->attn_q_norm, c->n_heads);
    norm_heads(w, x, x->k, y->attn_k_norm, c->n_kv_heads);
    check(w, x, l, "query", x->q, q_len);
    check(w, x, l, "key", x->k, kv_len);
    check(w, x, l, "value", x->v, kv_len);

    m->ops->rope_store(w, &(struct rope_store_args){.q = x->q,
                                                    .k = x->k,
                                                    .v = x->v,
                                                    .n_tokens = x->n,
                                                    .n_heads = c->n_heads,
                                                    .rotary_dim = c->rotary_dim,
                                                    .n_sections = arch_sections(c->arch),
                                                    .pairing = c->arch->rope_pairing,
                                                    .table = windowed ? x->rope_windowed : x->rope,
                                                    .slot = slot,
                                                    .kv = cache_layout(x->cache),
                                                    .k_pages = cache_k(x->cache, l),
                                                    .v_pages = cache_v(x->cache, l)});
    m->ops->attention(w, &(struct attention_args){.out = x->mixed,
                                                  .q = x->q,
                                                  .n_tokens = x->n,
                                                  .n_heads = c->n_heads,
                                                  .scale = c->attention_scale,
                                                  .softcap = c->attention_softcap,
                                                  .slot = slot,
                                                  .kv = cache_layout(x->cache),
                                                  .k_pages = cache_k(x->cache, l),
                                                  .v_pages = cache_v(x->cache, l),
                                                  .scratch = x->attention_scratch,
                                                  .scratch_bytes = x->attention_scratch_bytes});
    check(w, x, l, "attention", x->mixed, q_len);

    add_branch(w, x, (struct rows){.x = x->mixed, .n = x->n}, &y->attn_output, y->post_attn_norm);
    check(w, x, l, "attention output", x->x, (int64_t)x->n * c->dim);
}

/* The two or three matrices of a feed-forward layer: down · (act(gate · x) · (up · x)), or down · act(up · x)
 * where there is no gate. */
struct ffn {
    const struct matrix *gate, *up, *down;
};

/* The input of the last product, from row `row` of x->gate on: still to be made, by *act. */
static struct rows gated(struct worker *w, struct context *x, struct rows in, int64_t row,
                         const struct ffn *f, struct gate_args *act)
{
    const int64_t width = f->up->packed.rows;
    float *g = x->gate + row * width, *u = x->up + row * width;
    bool has_gate = f->gate->packed.rows > 0;
    if (has_gate)
        linear(w, x, in, 2, (struct product[]){{f->gate, g, false}, {f->up, u, false}});
    else
        linear(w, x, in, 1, (struct product[]){{f->up, g, false}});
    *act = (struct gate_args){g, g, has_gate ? u : NULL, in.n * width, x->model->config.act};
    return (struct rows){.x = g, .n = in.n, .gate = act};
}

static void check_gated(struct worker *w, struct context *x, int l, const struct gate_args *act)
{
    if (act->up)
        check(w, x, l, "FFN up", act->up, act->n);
    check(w, x, l, "FFN activation", act->dst, act->n);
}

/* A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; Jiang et al. 2024, arXiv:2401.04088): the
 * router's n_experts_used best for each token, each expert's tokens together. */
static void mixture(struct worker *w, struct context *x, int l)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct layer *y = &m->layers[l];

    const struct norm_args norm = norm_args(x, x->normed, x->x, y->ffn_norm, y->ffn_norm_bias, x->n);
    linear(w, x, (struct rows){.x = x->normed, .n = x->n, .norm = &norm}, 1,
           (struct product[]){{&y->router, x->route_logits, false}});
    check(w, x, l, "FFN norm", x->normed, (int64_t)x->n * c->dim);
    check(w, x, l, "router", x->route_logits, (int64_t)x->n * c->n_experts);
    m->ops->route(w, &(struct route_args){.logits = x->route_logits,
                                          .n_tokens = x->n,
                                          .n_experts = c->n_experts,
                                          .n_used = c->n_experts_used,
                                          .normalise = c->normalise_experts,
                                          .weight = x->route_weight,
                                          .first = x->route_first,
                                          .token = x->route_token,
                                          .row = x->route_row,
                                          .scratch = x->route_scratch});
    m->ops->gather(w, x->expert_in, x->normed, x->route_token, x->n * c->n_experts_used, c->dim);
    const int32_t *first = x->route_first;
    if (x->route_host) {
        m->ops->download(x->route_host, first, ((size_t)c->n_experts + 1) * sizeof *first);
        first = x->route_host;
    }
    for (int e = 0; e < c->n_experts; e++) {
        int64_t row = first[e];
        int n = (int)(first[e + 1] - row);
        if (n == 0)
            continue;
        const struct ffn expert = {&y->gate_exps[e], &y->up_exps[e], &y->down_exps[e]};
        struct gate_args act;
        struct rows in =
            gated(w, x, (struct rows){.x = x->expert_in + row * c->dim, .n = n}, row, &expert, &act);
        linear(w, x, in, 1, (struct product[]){{expert.down, x->expert_out + row * c->dim, false}});
        check_gated(w, x, l, &act);
    }
    m->ops->combine(w, &(struct combine_args){.dst = x->x,
                                              .src = x->expert_out,
                                              .weight = x->route_weight,
                                              .row = x->route_row,
                                              .n_tokens = x->n,
                                              .n_used = c->n_experts_used,
                                              .dim = c->dim,
                                              .add = true});
}

static void feed_forward(struct worker *w, struct context *x, int l)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct layer *y = &m->layers[l];

    if (c->n_experts) {
        mixture(w, x, l);
    } else {
        const struct ffn ffn = {&y->ffn_gate, &y->ffn_up, &y->ffn_down};
        const struct norm_args norm = norm_args(x, x->normed, x->x, y->ffn_norm, y->ffn_norm_bias, x->n);
        struct gate_args act;
        struct rows in = gated(w, x, (struct rows){.x = x->normed, .n = x->n, .norm = &norm}, 0, &ffn, &act);
        check(w, x, l, "FFN norm", x->normed, (int64_t)x->n * c->dim);
        add_branch(w, x, in, ffn.down, y->post_ffn_norm);
        check_gated(w, x, l, &act);
    }
    check(w, x, l, "FFN down", x->x, (int64_t)x->n * c->dim);
}

/* The n rows of logits from the slice's wanted row `at` on go to who takes them. */
static void take_rows(struct worker *w, struct context *x, int at, int n)
{
    const struct ops *ops = x->model->ops;
    const int64_t vocab_size = x->model->config.vocab_size;
    const float *rows = x->chunk;
    if (!ops->on_host) {
        rows = x->rows;
        if (w->id == 0)
            ops->download(x->rows, x->chunk, (size_t)(n * vocab_size) * sizeof(float));
        team_barrier(w);
    }
    int64_t begin, end;
    while (team_next(w, n, 1, &begin, &end))
        x->batch->take(x->batch->take_arg, w->id, x->row0 + at + begin, rows + begin * vocab_size);
    team_barrier(w);
}

/* Logits of the wanted tokens, a few rows at a time: all rows of a long prompt would be gigabytes. */
static void output(struct worker *w, struct context *x)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    for (int at = 0; at < x->n_want; at += LOGIT_ROWS) {
        int n = x->n_want - at < LOGIT_ROWS ? x->n_want - at : LOGIT_ROWS;
        const int64_t len = (int64_t)n * c->vocab_size;
        m->ops->gather(w, x->last, x->x, x->want + at, n, c->dim);
        const struct norm_args norm =
            norm_args(x, x->normed, x->last, m->output_norm, m->output_norm_bias, n);
        linear(w, x, (struct rows){.x = x->normed, .n = n, .norm = &norm}, 1,
               (struct product[]){{m->output, x->chunk, false}});
        check(w, x, -1, "output norm", x->normed, (int64_t)n * c->dim);
        if (c->logit_softcap > 0)
            m->ops->softcap(w, x->chunk, len, c->logit_softcap);
        check(w, x, -1, "logits", x->chunk, len);
        if (x->batch->take) {
            take_rows(w, x, at, n);
        } else {
            if (w->id == 0)
                (m->ops->deliver ? m->ops->deliver : m->ops->download)(x->rows + (int64_t)at * c->vocab_size,
                                                                       x->chunk, (size_t)len * sizeof(float));
            team_barrier(w);
        }
    }
}

static void rope_table(struct worker *w, struct context *x, const struct rope *r, float *dst)
{
    bool by_length = rope_depends_on_length(r);
    x->model->ops->rope_table(w, &(struct rope_table_args){.dst = dst,
                                                           .pos = x->pos,
                                                           .n_sections = arch_sections(x->model->config.arch),
                                                           .inv_freq = by_length ? x->inv_freq : r->inv_freq,
                                                           .freq_row = by_length ? x->freq_row : NULL,
                                                           .n_tokens = x->n,
                                                           .n_freqs = r->n_freqs,
                                                           .scale = r->attention_factor});
}

static void embed(struct worker *w, struct context *x)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    if (x->rows_in) {
        if (w->id == 0)
            m->ops->upload(x->x, x->rows_in, (size_t)x->n * (size_t)c->dim * sizeof(float));
        team_barrier(w);
        return;
    }
    m->ops->embed(w, x->x, &m->token_embd.packed, x->id, x->n);
    if (c->embedding_scale != 1)
        m->ops->scale(w, x->x, x->x, (int64_t)x->n * c->dim, c->embedding_scale);
}

void forward(struct worker *w, void *arg)
{
    struct context *x = arg;
    const struct model *m = x->model;
    const struct config *c = &m->config;

    embed(w, x);
    check(w, x, -1, "embedding", x->x, (int64_t)x->n * c->dim);
    rope_table(w, x, m->rope, x->rope);
    if (m->rope_windowed)
        rope_table(w, x, m->rope_windowed, x->rope_windowed);
    for (int l = 0; l < c->n_layers; l++) {
        attention(w, x, l);
        feed_forward(w, x, l);
    }
    if (x->rows_out && w->id == 0)
        m->ops->download(x->rows_out, x->x, (size_t)x->n * (size_t)c->dim * sizeof(float));
    output(w, x);
}

void forward_prefix(struct worker *w, void *arg)
{
    struct context *x = arg;
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const int64_t width = (int64_t)c->n_kv_heads * c->head_dim, part = width * c->n_virtual;
    for (int l = 0; l < c->n_layers; l++) {
        float *keys = m->prefix + 2 * l * part + x->prefix_at * width;
        m->ops->rope_store(w, &(struct rope_store_args){.q = x->q, /* stays as it is: nothing is rotated */
                                                        .k = keys,
                                                        .v = keys + part,
                                                        .n_tokens = x->n,
                                                        .n_heads = c->n_heads,
                                                        .n_sections = 1,
                                                        .pairing = ROPE_NONE,
                                                        .slot = x->slot,
                                                        .kv = cache_layout(x->cache),
                                                        .k_pages = cache_k(x->cache, l),
                                                        .v_pages = cache_v(x->cache, l)});
    }
}
