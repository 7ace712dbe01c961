/* A file becomes a model: hyper-parameters, bound tensors, packed weights. */
#include "model/arch.h"
#include "model/bind.h"
#include "model/image.h"
#include "model/lora.h"
#include "model/rope.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VECTOR_ALIGN = 64 };

/* ---- Overrides of RoPE -------------------------------------------------------------------------- */

static int apply_rope_options(struct config *c, const struct model_options *o, char *err, size_t errlen)
{
    struct rope_config *r = &c->rope;
    if (o->rope_freq_base != 0) {
        if (!(o->rope_freq_base >= 1 && o->rope_freq_base <= 1e15))
            return err_set(err, errlen, "RoPE base %g is outside 1 … 1e15", o->rope_freq_base);
        r->theta = o->rope_freq_base;
    }
    if (o->rope_scale != 0 && !(o->rope_scale > 0 && o->rope_scale <= 1e6))
        return err_set(err, errlen, "RoPE scale %g is outside 0 … 1e6", o->rope_scale);
    enum rope_scaling scaling = r->scaling;
    if (o->rope_scaling >= 0)
        scaling = (enum rope_scaling)o->rope_scaling;
    else if (o->rope_scale != 0 && scaling == ROPE_SCALING_NONE)
        scaling = ROPE_SCALING_LINEAR;
    if (scaling == ROPE_SCALING_NONE) {
        r->factor = r->attention_factor = 1;
    } else if (scaling != r->scaling || o->rope_scale != 0) {
        if (o->rope_scale == 0 && r->scaling == ROPE_SCALING_NONE)
            return err_set(err, errlen, "%s RoPE scaling needs a scale: the model has none of its own",
                           rope_scaling_name(scaling));
        if (o->rope_scale != 0)
            r->factor = o->rope_scale;
        if (r->original_len == 0)
            r->original_len = c->max_seq_len;
        if (scaling != r->scaling || scaling == ROPE_SCALING_YARN) {
            r->attention_factor = 1;
            if (scaling == ROPE_SCALING_YARN) {
                r->attention_factor = rope_yarn_attention(r->factor, 1);
                if (r->scaling != ROPE_SCALING_YARN) {
                    r->beta_fast = 32;
                    r->beta_slow = 1;
                }
            }
        }
    }
    r->scaling = scaling;
    return 0;
}

/* ---- Vectors ------------------------------------------------------------------------------------ */

static size_t vector_bytes(const struct binding *b)
{
    size_t bytes = (size_t)b->source.cols * sizeof(float);
    return (bytes + VECTOR_ALIGN - 1) / VECTOR_ALIGN * VECTOR_ALIGN;
}

/* Norm weights and biases: widened to float, in one allocation of the backend. */
static int load_vectors(struct model *m, const struct binding *b, size_t n)
{
    size_t longest = 1;
    for (size_t i = 0; i < n; i++)
        if (!role_is_matrix(b[i].role)) {
            size_t bytes = vector_bytes(&b[i]);
            m->vectors_bytes += bytes;
            longest = bytes > longest ? bytes : longest;
        }
    float *wide = malloc(longest);
    m->vectors = m->ops->alloc(m->vectors_bytes);
    if (!wide || !m->vectors) {
        free(wide);
        return -1;
    }
    char *at = m->vectors;
    for (size_t i = 0; i < n; i++) {
        if (role_is_matrix(b[i].role))
            continue;
        source_vector(&b[i].source, wide);
        m->ops->upload(at, wide, (size_t)b[i].source.cols * sizeof(float));
        float *vector = (float *)(void *)at;
        memcpy(binding_place(m, &b[i]), &vector, sizeof vector);
        at += vector_bytes(&b[i]);
    }
    free(wide);
    return 0;
}

static size_t prefix_bytes(const struct config *c)
{
    return (size_t)c->n_virtual * 2 * (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim *
           sizeof(float);
}

/* The file has the P-Tuning prefix as (n_virtual, n_layers, 2, width), struct model as
 * (n_layers, 2, n_virtual, width). */
static int order_prefix(struct model *m)
{
    const struct config *c = &m->config;
    if (!m->prefix)
        return 0;
    size_t width = (size_t)c->n_kv_heads * (size_t)c->head_dim, n_parts = 2 * (size_t)c->n_layers;
    size_t n = (size_t)c->n_virtual, bytes = prefix_bytes(c);
    float *from = malloc(bytes), *to = malloc(bytes);
    if (from && to) {
        m->ops->download(from, m->prefix, bytes);
        for (size_t i = 0; i < n; i++)
            for (size_t p = 0; p < n_parts; p++)
                memcpy(to + (p * n + i) * width, from + (i * n_parts + p) * width, width * sizeof *to);
        m->ops->upload(m->prefix, to, bytes);
    }
    int rc = from && to ? 0 : -1;
    free(from);
    free(to);
    return rc;
}

/* ---- RoPE --------------------------------------------------------------------------------------- */

/* n divisors that are a tensor in the backend's memory, or a list of numbers; NULL: neither. */
static float *divisors_of(const struct model *m, const float *tensor, const struct meta *list, size_t n,
                          int *failed)
{
    if (!tensor && !list)
        return NULL;
    float *out = calloc(n, sizeof *out);
    if (!out)
        *failed = 1;
    else if (tensor)
        m->ops->download(out, tensor, n * sizeof *out);
    for (size_t i = 0; out && !tensor && i < n; i++) {
        double v;
        if (list->n == n && meta_float(list, i, &v)) /* else 0, which is refused */
            out[i] = (float)v;
    }
    return out;
}

static int load_rope(struct model *m, const struct weights *w, char *err, size_t errlen)
{
    const struct config *c = &m->config;
    size_t n = (size_t)c->rotary_dim / 2;
    int sections = arch_sections(c->arch), failed = 0;
    char why[256] = "out of memory";
    float *divisors = divisors_of(m, m->rope_freqs, NULL, n, &failed);
    float *lengthy = divisors_of(m, m->rope_long, config_hf_factors(w, "long_factor"), n, &failed);
    float *brief = divisors_of(m, m->rope_short, config_hf_factors(w, "short_factor"), n, &failed);
    if (!failed)
        m->rope = rope_new(&c->rope, c->rotary_dim, sections, divisors, lengthy, brief, why, sizeof why);
    if (m->rope && c->rope_theta_windowed != 0) {
        struct rope_config own = {.theta = c->rope_theta_windowed, .factor = 1, .attention_factor = 1};
        m->rope_windowed = rope_new(&own, c->rotary_dim, sections, NULL, NULL, NULL, why, sizeof why);
        failed |= !m->rope_windowed;
    }
    free(divisors);
    free(lengthy);
    free(brief);
    return m->rope && !failed ? 0 : err_set(err, errlen, "%s: %s", weights_path(w), why);
}

/* ---- Orders of act-order checkpoints ------------------------------------------------------------ */

static struct matrix *matrix_of(struct model *m, const struct binding *b)
{
    return binding_place(m, b);
}

/* Matrices know what they are: the forward pass tells observers (observe.h). */
static void name_matrices(struct model *m, const struct binding *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!role_is_matrix(b[i].role))
            continue;
        struct matrix *to = matrix_of(m, &b[i]);
        to->role = b[i].role;
        to->layer = b[i].layer;
        to->expert = b[i].expert;
    }
}

static int load_orders(struct model *m, const struct binding *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b[i].source.sorted)
            m->orders_bytes += (size_t)b[i].source.cols * sizeof(int32_t);
    if (m->orders_bytes == 0)
        return 0;
    m->orders = m->ops->alloc(m->orders_bytes);
    if (!m->orders)
        return -1;
    int32_t *at = m->orders;
    for (size_t i = 0; i < n; i++) {
        const struct source *s = &b[i].source;
        if (!s->sorted)
            continue;
        struct matrix *to = matrix_of(m, &b[i]);
        for (size_t j = 0; j < i && !to->order; j++) /* q, k, v of one layer have the same, as a rule */
            if (b[j].layer == b[i].layer && b[j].source.sorted && b[j].source.cols == s->cols &&
                memcmp(b[j].source.sorted, s->sorted, (size_t)s->cols * sizeof *at) == 0)
                to->order = matrix_of(m, &b[j])->order;
        if (to->order)
            continue;
        m->ops->upload(at, s->sorted, (size_t)s->cols * sizeof *at);
        to->order = at;
        at += s->cols;
    }
    return 0;
}

/* ---- Adapters ----------------------------------------------------------------------------------- */

static int pack_floats(struct model *m, struct packed *p, const float *src, int64_t rows, int64_t cols)
{
    if (m->ops->packed_alloc(p, QTYPE_F32, rows, cols))
        return -1;
    m->ops->pack(p, 0, rows, src);
    m->memory.weight_bytes += (uint64_t)(p->n_tiles * p->tile_bytes);
    m->memory.token_bytes += (uint64_t)(rows * cols) * sizeof(float);
    return 0;
}

static int load_lora(struct model *m, const struct binding *b, size_t n, const struct model_options *opt,
                     char *err, size_t errlen)
{
    struct lora l;
    if (lora_open(&l, &m->config, opt->lora, opt->n_lora, err, errlen))
        return -1;
    int rc = 0;
    if (l.prefix) {
        m->config.n_virtual = l.n_virtual;
        m->own_prefix_bytes = prefix_bytes(&m->config);
        m->prefix = m->own_prefix = m->ops->alloc(m->own_prefix_bytes);
        if (m->prefix)
            m->ops->upload(m->prefix, l.prefix, m->own_prefix_bytes);
        if (!m->prefix || order_prefix(m))
            rc = err_set(err, errlen, "%s: not enough memory for its prefix", opt->lora[0].path);
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct lora_pair *p = lora_find(&l, b[i].role, b[i].layer, b[i].expert);
        if (!p)
            continue;
        struct matrix *x = matrix_of(m, &b[i]);
        if (pack_floats(m, &x->lora_a, p->a, p->rank, p->cols) ||
            pack_floats(m, &x->lora_b, p->b, p->rows, p->rank))
            rc = err_set(err, errlen, "%s: not enough memory for its adapter", opt->lora[0].path);
        m->lora_rank = p->rank > m->lora_rank ? p->rank : m->lora_rank;
    }
    /* An adapter's output matrix needs one in the model. */
    if (rc == 0 && m->config.tied_embeddings && lora_find(&l, ROLE_OUTPUT, -1, -1))
        rc = err_set(err, errlen,
                     "%s: an adapter of the output matrix, which the model shares with its embedding",
                     opt->lora[0].path);
    lora_close(&l);
    return rc;
}

/* ---- The model ---------------------------------------------------------------------------------- */

/* Layers, and every layer's experts. */
static int alloc_layers(struct model *m)
{
    const struct config *c = &m->config;
    m->layers = calloc((size_t)c->n_layers, sizeof *m->layers);
    if (!m->layers || c->n_experts == 0)
        return m->layers ? 0 : -1;
    size_t n = (size_t)c->n_experts;
    m->experts = calloc((size_t)c->n_layers * 3 * n, sizeof *m->experts);
    if (!m->experts)
        return -1;
    for (int l = 0; l < c->n_layers; l++) {
        struct matrix *first = m->experts + (size_t)l * 3 * n;
        m->layers[l].gate_exps = first;
        m->layers[l].up_exps = first + n;
        m->layers[l].down_exps = first + 2 * n;
    }
    return 0;
}

/* What a generated token reads: every matrix once, of the embedding one row unless it is the output too, of
 * the experts those that are used. */
static void count_memory(struct model *m, const struct binding *b, size_t n)
{
    struct model_memory *mem = &m->memory;
    uint64_t experts = 0, expert_macs = 0;
    mem->weight_bytes = m->vectors_bytes + m->orders_bytes;
    for (size_t i = 0; i < n; i++) {
        const struct source *s = &b[i].source;
        bool matrix = role_is_matrix(b[i].role);
        uint64_t bytes = (uint64_t)(s->rows * (matrix ? qtype_bytes(s->type, s->cols) : 4 * s->cols));
        mem->n_params += (uint64_t)(s->rows * s->cols);
        if (matrix) {
            const struct packed *p = &matrix_of(m, &b[i])->packed;
            mem->weight_bytes += p->is_view ? bytes : (uint64_t)(p->n_tiles * p->tile_bytes);
            if (p == &m->token_embd.packed && m->output != &m->token_embd)
                bytes = (uint64_t)qtype_bytes(s->type, s->cols);
        }
        const uint64_t macs = matrix && role_in_layer(b[i].role) ? (uint64_t)(s->rows * s->cols) : 0;
        if (b[i].expert >= 0) {
            experts += bytes;
            expert_macs += macs;
        } else {
            mem->token_bytes += bytes;
            mem->token_macs += macs;
        }
    }
    if (experts) {
        const uint64_t all = (uint64_t)m->config.n_experts, used = (uint64_t)m->config.n_experts_used;
        mem->token_bytes += experts / all * used;
        mem->token_macs += expert_macs / all * used;
    }
}

static uint64_t tensor_bytes(const struct weights *w)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < weights_n_tensors(w); i++)
        sum += weights_tensor(w, i)->bytes;
    return sum;
}

/* Keeps the bindings and the description of some layers: they become the layers 0 … of a model, without a
 * P-Tuning prefix. */
static int keep_layers(struct model *m, struct binding *b, size_t *n, const struct model_options *opt)
{
    struct config *c = &m->config;
    const int first = opt->first_layer;
    if (first < 0 || opt->n_layers < 1 || opt->n_layers > c->n_layers || first > c->n_layers - opt->n_layers)
        return -1;
    const int end = first + opt->n_layers;
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++) {
        const bool in_layer = b[i].layer >= first && b[i].layer < end;
        const bool is_vector = b[i].layer < 0 && !role_is_matrix(b[i].role) && b[i].role != ROLE_PREFIX;
        const bool is_embedding = b[i].role == ROLE_TOKEN_EMBD && first == 0;
        if (in_layer || is_vector || is_embedding) {
            b[kept] = b[i];
            b[kept++].layer -= in_layer ? first : 0;
        } else {
            source_close(&b[i].source);
        }
    }
    *n = kept;
    memmove(c->windowed, c->windowed + first, (size_t)opt->n_layers * sizeof *c->windowed);
    c->n_layers = opt->n_layers;
    c->n_virtual = 0;
    return 0;
}

/* Which product comes after which. */
static void link_products(struct model *m)
{
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer *y = &m->layers[l];
        y->attn_v.next = (struct packed_list){1, {&y->attn_output.packed}};
        if (m->config.n_experts)
            y->attn_output.next = (struct packed_list){1, {&y->router.packed}};
        else if (y->ffn_gate.packed.rows > 0)
            y->attn_output.next = (struct packed_list){2, {&y->ffn_gate.packed, &y->ffn_up.packed}};
        else
            y->attn_output.next = (struct packed_list){1, {&y->ffn_up.packed}};
        y->ffn_up.next = (struct packed_list){1, {&y->ffn_down.packed}};
        if (l + 1 < m->config.n_layers)
            y->ffn_down.next =
                (struct packed_list){3, {&y[1].attn_q.packed, &y[1].attn_k.packed, &y[1].attn_v.packed}};
        else
            y->ffn_down.next = (struct packed_list){1, {&m->output->packed}};
    }
}

int model_load(struct model **out, struct weights *w, const struct model_options *opt, char *err,
               size_t errlen)
{
    *out = NULL;
    if (opt->no_repack && !opt->ops->packed_view)
        return err_set(err, errlen, "%s: %s cannot compute from the file's layout", weights_path(w),
                       opt->ops->name);
    struct model *m = calloc(1, sizeof *m);
    struct binding *b = NULL;
    size_t n = 0;
    char why[256];
    if (!m)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    m->ops = opt->ops;
    if (config_read(&m->config, w, err, errlen))
        goto failed;
    if (apply_rope_options(&m->config, opt, why, sizeof why)) {
        (void)err_set(err, errlen, "%s: %s", weights_path(w), why);
        goto failed;
    }
    if (bind_tensors(&b, &n, w, &m->config, (enum qtype)opt->quantize, err, errlen))
        goto failed;
    if (opt->n_layers && keep_layers(m, b, &n, opt)) {
        (void)err_set(err, errlen, "%s: %d layers from layer %d on are not all there", weights_path(w),
                      opt->n_layers, opt->first_layer);
        goto failed;
    }
    if (alloc_layers(m) || load_vectors(m, b, n) || order_prefix(m) || load_orders(m, b, n))
        goto no_memory;
    name_matrices(m, b, n);
    if (load_rope(m, w, err, errlen))
        goto failed;
    if (image_load(m, w, b, n, opt))
        goto no_memory;
    m->output = m->config.tied_embeddings ? &m->token_embd : &m->own_output;
    link_products(m);
    count_memory(m, b, n);
    if (opt->n_lora && load_lora(m, b, n, opt, err, errlen))
        goto failed;
    bindings_free(b, n);
    *out = m;
    return 0;

no_memory:
    (void)err_set(err, errlen, "%s: not enough memory for %" PRIu64 " bytes of weights", weights_path(w),
                  tensor_bytes(w));
failed:
    bindings_free(b, n);
    model_free(m);
    return -1;
}

int matrix_replace(const struct model *m, struct matrix *x, enum qtype t, const void *rows)
{
    struct packed to;
    if (m->ops->packed_alloc(&to, t, x->packed.rows, x->packed.cols))
        return -1;
    m->ops->pack(&to, 0, to.rows, rows);
    if (x->packed.data)
        m->ops->packed_release(&x->packed);
    x->packed = to;
    return 0;
}

static void release_matrix(const struct ops *ops, struct matrix *x)
{
    struct packed *all[] = {&x->packed, &x->lora_a, &x->lora_b};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->data)
            ops->packed_release(all[i]);
}

void model_free(struct model *m)
{
    if (!m)
        return;
    release_matrix(m->ops, &m->token_embd);
    release_matrix(m->ops, &m->own_output);
    for (int i = 0; m->layers && i < m->config.n_layers; i++) {
        struct layer *l = &m->layers[i];
        struct matrix *all[] = {&l->attn_q,   &l->attn_k, &l->attn_v,   &l->attn_output,
                                &l->ffn_gate, &l->ffn_up, &l->ffn_down, &l->router};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            release_matrix(m->ops, all[k]);
    }
    for (size_t i = 0; m->experts && i < (size_t)m->config.n_layers * 3 * (size_t)m->config.n_experts; i++)
        release_matrix(m->ops, &m->experts[i]);
    image_release(m);
    if (m->vectors)
        m->ops->release(m->vectors, m->vectors_bytes);
    if (m->own_prefix)
        m->ops->release(m->own_prefix, m->own_prefix_bytes);
    if (m->orders)
        m->ops->release(m->orders, m->orders_bytes);
    rope_free(m->rope);
    rope_free(m->rope_windowed);
    free(m->experts);
    free(m->layers);
    free(m);
}

const struct config *model_config(const struct model *m)
{
    return &m->config;
}

void model_memory(const struct model *m, struct model_memory *mem)
{
    *mem = m->memory;
}

bool model_needs_whole_prompt(const struct model *m)
{
    return m->config.arch->prefix_lm || rope_depends_on_length(m->rope);
}
