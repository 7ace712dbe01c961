/* The forward pass (Vaswani et al. 2017; Touvron et al. 2023): straight-line code over operators. Every
 * thread of a team executes it, inside one parallel region per slice of a batch; operators share their
 * work out and end in barriers. */
#include "model/arch.h"
#include "model/context.h"

#include <math.h>
#include <string.h>

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

/* dst = RMSNorm(src), n rows */
static void norm(struct worker *w, struct context *x, float *dst, const float *src, const float *weight,
                 int n)
{
    const struct config *c = &x->model->config;
    x->model->ops->norm(
        w, &(struct norm_args){
               .dst = dst, .src = src, .weight = weight, .n_rows = n, .dim = c->dim, .eps = c->norm_eps});
}

/* One input, up to three matrices. */
static void linear(struct worker *w, struct context *x, const float *in, int n, int n_parts,
                   const struct linear_part part[])
{
    struct linear_args a = {
        .x = in, .n_tokens = n, .n_parts = n_parts, .compute = x->opt.compute, .scratch = x->linear_scratch};
    memcpy(a.part, part, (size_t)n_parts * sizeof *part);
    x->model->ops->linear(w, &a);
}

static void attention(struct worker *w, struct context *x, int l)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct layer *y = &m->layers[l];
    const int64_t q_len = (int64_t)x->n * c->n_heads * c->head_dim;
    const int64_t kv_len = (int64_t)x->n * c->n_kv_heads * c->head_dim;

    norm(w, x, x->normed, x->x, y->attn_norm, x->n);
    check(w, x, l, "attention norm", x->normed, (int64_t)x->n * c->dim);

    linear(w, x, x->normed, x->n, 3,
           (struct linear_part[]){{&y->attn_q, y->attn_q_bias, x->q, false},
                                  {&y->attn_k, y->attn_k_bias, x->k, false},
                                  {&y->attn_v, y->attn_v_bias, x->v, false}});
    check(w, x, l, "query", x->q, q_len);
    check(w, x, l, "key", x->k, kv_len);
    check(w, x, l, "value", x->v, kv_len);

    m->ops->rope_store(w, &(struct rope_store_args){.q = x->q,
                                                    .k = x->k,
                                                    .v = x->v,
                                                    .n_tokens = x->n,
                                                    .n_heads = c->n_heads,
                                                    .rotary_dim = c->rotary_dim,
                                                    .n_sections = 1,
                                                    .pairing = c->rope_pairing,
                                                    .table = x->rope,
                                                    .slot = x->slot,
                                                    .kv = cache_layout(x->cache),
                                                    .k_pages = cache_k(x->cache, l),
                                                    .v_pages = cache_v(x->cache, l)});
    m->ops->attention(w, &(struct attention_args){.out = x->mixed,
                                                  .q = x->q,
                                                  .n_tokens = x->n,
                                                  .n_heads = c->n_heads,
                                                  .scale = (float)(1 / sqrt(c->head_dim)),
                                                  .slot = x->slot,
                                                  .kv = cache_layout(x->cache),
                                                  .k_pages = cache_k(x->cache, l),
                                                  .v_pages = cache_v(x->cache, l),
                                                  .scratch = x->attention_scratch,
                                                  .scratch_bytes = x->attention_scratch_bytes});
    check(w, x, l, "attention", x->mixed, q_len);

    linear(w, x, x->mixed, x->n, 1,
           (struct linear_part[]){{&y->attn_output, y->attn_output_bias, x->x, true}});
    check(w, x, l, "attention output", x->x, (int64_t)x->n * c->dim);
}

static void feed_forward(struct worker *w, struct context *x, int l)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    const struct layer *y = &m->layers[l];
    const int64_t ffn_len = (int64_t)x->n * c->ffn_dim;

    norm(w, x, x->normed, x->x, y->ffn_norm, x->n);
    check(w, x, l, "FFN norm", x->normed, (int64_t)x->n * c->dim);

    linear(w, x, x->normed, x->n, 2,
           (struct linear_part[]){{&y->ffn_gate, y->ffn_gate_bias, x->gate, false},
                                  {&y->ffn_up, y->ffn_up_bias, x->up, false}});
    check(w, x, l, "FFN gate", x->gate, ffn_len);
    check(w, x, l, "FFN up", x->up, ffn_len);

    m->ops->gate(w, x->gate, x->gate, x->up, ffn_len, c->arch->act);
    check(w, x, l, "FFN activation", x->gate, ffn_len);

    linear(w, x, x->gate, x->n, 1, (struct linear_part[]){{&y->ffn_down, y->ffn_down_bias, x->x, true}});
    check(w, x, l, "FFN down", x->x, (int64_t)x->n * c->dim);
}

/* Logits of the wanted tokens, a few rows at a time: all rows of a long prompt would be gigabytes. */
static void output(struct worker *w, struct context *x)
{
    const struct model *m = x->model;
    const struct config *c = &m->config;
    for (int at = 0; at < x->n_want; at += LOGIT_ROWS) {
        int n = x->n_want - at < LOGIT_ROWS ? x->n_want - at : LOGIT_ROWS;
        m->ops->gather(w, x->last, x->x, x->want + at, n, c->dim);
        norm(w, x, x->normed, x->last, m->output_norm, n);
        check(w, x, -1, "output norm", x->normed, (int64_t)n * c->dim);
        linear(w, x, x->normed, n, 1, (struct linear_part[]){{m->output, NULL, x->chunk, false}});
        check(w, x, -1, "logits", x->chunk, (int64_t)n * c->vocab_size);
        if (w->id == 0)
            m->ops->download(x->rows + (int64_t)at * c->vocab_size, x->chunk,
                             (size_t)n * (size_t)c->vocab_size * sizeof(float));
        team_barrier(w);
    }
}

void forward(struct worker *w, void *arg)
{
    struct context *x = arg;
    const struct model *m = x->model;
    const struct config *c = &m->config;

    m->ops->embed(w, x->x, &m->token_embd, x->id, x->n);
    check(w, x, -1, "embedding", x->x, (int64_t)x->n * c->dim);
    m->ops->rope_table(w, &(struct rope_table_args){.dst = x->rope,
                                                    .pos = x->pos,
                                                    .n_sections = 1,
                                                    .inv_freq = m->inv_freq,
                                                    .n_tokens = x->n,
                                                    .n_freqs = c->rotary_dim / 2,
                                                    .scale = m->rope_attention_factor});
    for (int l = 0; l < c->n_layers; l++) {
        attention(w, x, l);
        feed_forward(w, x, l);
    }
    output(w, x);
}
