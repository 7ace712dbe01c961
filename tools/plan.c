/* How much memory a model would take, without loading it. */
#include "tools/inspect.h"

#include "quant/err.h"

enum { DEFAULT_CTX = 4096, LOGIT_ROWS = 64 };

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A matrix in tiles of 16 rows; a vector as floats. */
static uint64_t packed_bytes(const struct tensor *t)
{
    int64_t rows = t->dims[1] * t->dims[2] * t->dims[3];
    if (t->n_dims == 1 || t->type >= QTYPE_N_MATRIX)
        return (uint64_t)(rows * t->dims[0]) * sizeof(float);
    return (uint64_t)((rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS * qtype_bytes(t->type, t->dims[0]));
}

/* The activations of forward.c: two rows of dim, the rotation, and the larger of what attention and
 * feed-forward keep, for each token; the logits' chunk; the operators' own. */
static uint64_t scratch_bytes(const struct plan *p, const struct config *c, const struct run_options *o)
{
    const struct ops *ops = ops_cpu(o->isa);
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    int64_t per_token = 2 * (int64_t)c->dim + c->rotary_dim + larger(2 * q + 2 * kv, 2 * (int64_t)c->ffn_dim);
    int64_t n_logits = p->n_batch < LOGIT_ROWS ? p->n_batch : LOGIT_ROWS;
    int64_t floats = per_token * p->n_batch + n_logits * ((int64_t)c->dim + c->vocab_size);
    int n_threads = o->n_threads > o->n_threads_batch ? o->n_threads : o->n_threads_batch;
    int64_t widest = larger(larger(c->dim, q), c->ffn_dim);
    return (uint64_t)floats * sizeof(float) + ops->scratch_bytes(p->n_batch, widest) +
           ops->attention_scratch_bytes(p->n_batch, c->n_heads, c->head_dim, p->n_ctx, n_threads);
}

int plan_memory(struct plan *p, const struct config *c, const struct weights *w, const struct run_options *o,
                char *err, size_t errlen)
{
    enum qtype usual = o->compute == COMPUTE_F32 ? QTYPE_F32 : QTYPE_F16;
    *p = (struct plan){.n_ctx = o->n_ctx > 0 ? o->n_ctx : c->max_seq_len,
                       .type_k = o->type_k >= 0 ? (enum qtype)o->type_k : usual,
                       .type_v = o->type_v >= 0 ? (enum qtype)o->type_v : usual};
    if (o->n_ctx < 0 && p->n_ctx > DEFAULT_CTX)
        p->n_ctx = DEFAULT_CTX;
    p->n_batch = o->n_batch < p->n_ctx ? o->n_batch : (int)p->n_ctx;

    struct kv_layout kv;
    if (kv_layout_init(&kv, p->type_k, p->type_v, c->n_kv_heads, c->head_dim))
        return err_set(err, errlen,
                       "%s: heads of %d do not divide into the blocks of a KV cache of %s and %s",
                       weights_path(w), c->head_dim, qtypes[p->type_k].name, qtypes[p->type_v].name);
    uint64_t n_pages = (uint64_t)(p->n_ctx + KV_PAGE - 1) / KV_PAGE;
    p->kv_bytes = n_pages * (uint64_t)c->n_layers * (uint64_t)(kv.k_page_bytes + kv.v_page_bytes);
    for (size_t i = 0; i < weights_n_tensors(w); i++)
        p->weight_bytes += packed_bytes(weights_tensor(w, i));
    p->scratch_bytes = scratch_bytes(p, c, o);
    return 0;
}
