/* Rotary position embedding (Su et al. 2021) and the step that follows it, storing keys and values. */
#include "kernels/kv.h"

#include <math.h>

/* Items begin ≤ i < end of n are this thread's. */
static void share(const struct worker *w, int64_t n, int64_t *begin, int64_t *end)
{
    *begin = n * w->id / w->n_threads;
    *end = n * (w->id + 1) / w->n_threads;
}

void cpu_rope_table(struct worker *w, const struct rope_table_args *a)
{
    int64_t begin, end;
    share(w, (int64_t)a->n_tokens * a->n_freqs, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t t = i / a->n_freqs, freq = i % a->n_freqs;
        int64_t section = freq * a->n_sections / a->n_freqs, row = a->freq_row ? a->freq_row[t] : 0;
        double angle = (double)a->pos[section * a->n_tokens + t] * a->inv_freq[row * a->n_freqs + freq];
        a->dst[2 * i] = (float)(cos(angle) * a->scale);
        a->dst[2 * i + 1] = (float)(sin(angle) * a->scale);
    }
    team_barrier(w);
}

/* Section by section. */
static void rotate(const struct rope_store_args *a, const struct cpu_kernels *k, int token, float *x)
{
    if (a->pairing == ROPE_NONE)
        return;
    int n_pairs = a->rotary_dim / 2 / a->n_sections;
    const float *table = a->table + (int64_t)token * a->rotary_dim;
    for (int s = 0; s < a->n_sections; s++)
        k->rope_row[a->pairing](x + (int64_t)s * 2 * n_pairs, table + (int64_t)s * 2 * n_pairs, n_pairs);
}

/* One head's worth of work: rotate a query, or rotate and store a key, or store a value. */
static void rope_store_head(const struct rope_store_args *a, const struct cpu_kernels *k, int token, int head)
{
    const struct kv_layout *kv = a->kv;
    const struct kv_slot *slot = &a->slot[token];
    int64_t page = slot->pages[slot->pos / KV_PAGE];
    int in_page = (int)(slot->pos % KV_PAGE);
    if (head < a->n_heads) {
        rotate(a, k, token, a->q + ((int64_t)token * a->n_heads + head) * kv->head_dim);
        return;
    }
    head -= a->n_heads;
    bool is_key = head < kv->n_kv_heads;
    head = is_key ? head : head - kv->n_kv_heads;
    int64_t row = ((int64_t)token * kv->n_kv_heads + head) * kv->head_dim;
    if (is_key) {
        rotate(a, k, token, a->k + row);
        kv_store_key(kv, (uint8_t *)a->k_pages + page * kv->k_page_bytes, head, in_page, a->k + row, k);
    } else {
        kv_store_value(kv, (uint8_t *)a->v_pages + page * kv->v_page_bytes, head, in_page, a->v + row, k);
    }
}

void cpu_rope_store(struct worker *w, const struct rope_store_args *a, const struct cpu_kernels *k)
{
    int n_heads = a->n_heads + 2 * a->kv->n_kv_heads;
    int64_t begin, end;
    share(w, (int64_t)a->n_tokens * n_heads, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        rope_store_head(a, k, (int)(i / n_heads), (int)(i % n_heads));
    team_barrier(w);
}
