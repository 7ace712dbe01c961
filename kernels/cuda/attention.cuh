/* Attention's arguments on the device, and its rows: row i of a KV head is token i / group, head i % group of the
 * head's group. */
#ifndef QUOLL_CUDA_ATTENTION_CUH
#define QUOLL_CUDA_ATTENTION_CUH

#include "kernels/cuda/kv.cuh"

struct attend_args {
    float *out;
    const float *q;
    int n_tokens, n_heads, n_kv_heads, group, head_dim, unused;
    float scale, softcap;
    const struct device_slot *slot;
    const uint8_t *k_pages, *v_pages;
    int64_t k_head_bytes, v_head_bytes;
    int type_k, type_v;
    /* split: of (KV head, row), page by page */
    float *part_o, *part_m, *part_l;
    int64_t n_pages;
};

DEVICE int64_t first_page(const struct device_slot &s)
{
    return s.begin / KV_PAGE;
}

/* One past the last; none are seen: the first. */
DEVICE int64_t end_page(const struct device_slot &s)
{
    return s.begin < s.end ? (s.end - 1) / KV_PAGE + 1 : first_page(s);
}

DEVICE int64_t row_at(const struct attend_args &a, int kv_head, int row)
{
    return ((int64_t)(row / a.group) * a.n_heads + kv_head * a.group + row % a.group) * a.head_dim;
}

/* Rows from row0 on, below end, that read the same sequence: how many, and the positions from the first to one past
 * the last that any of them sees; none: *begin is greater. */
DEVICE int run_at(const struct attend_args &a, int row0, int end_row, int64_t *begin, int64_t *end)
{
    const int32_t *pages = a.slot[row0 / a.group].pages;
    *begin = INT64_MAX;
    *end = 0;
    int row = row0;
    for (; row < end_row; row++) {
        const struct device_slot s = a.slot[row / a.group];
        if (s.pages != pages)
            break;
        if (s.begin < s.end) {
            *begin = s.begin < *begin ? s.begin : *begin;
            *end = s.end > *end ? s.end : *end;
        }
    }
    return row - row0;
}

/* Prompts, on the tensor cores in half floats; not exact. false: not for these. */
bool cuda_attention_half(const struct attend_args *a, const struct attention_args *args);

#endif
