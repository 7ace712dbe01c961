/* The layout of the KV cache's pages, and how one key or value gets there. */
#include "kernels/kv.h"

#include <string.h>

bool kv_type_supported(enum qtype t)
{
    return t == QTYPE_F32 || t == QTYPE_F16 || t == QTYPE_Q8_0 || t == QTYPE_Q4_0;
}

int kv_layout_init(struct kv_layout *l, enum qtype type_k, enum qtype type_v, int n_kv_heads, int head_dim)
{
    if (!kv_type_supported(type_k) || !kv_type_supported(type_v) || n_kv_heads < 1 || head_dim < 1 ||
        head_dim > KV_HEAD_DIM_MAX || head_dim % qtypes[type_k].block_len != 0 ||
        head_dim % qtypes[type_v].block_len != 0)
        return -1;
    *l = (struct kv_layout){
        .type_k = type_k,
        .type_v = type_v,
        .n_kv_heads = n_kv_heads,
        .head_dim = head_dim,
        .k_head_bytes = KV_PAGE * qtype_bytes(type_k, head_dim),
        .v_head_bytes = KV_PAGE * qtype_bytes(type_v, head_dim),
    };
    l->k_page_bytes = n_kv_heads * l->k_head_bytes;
    l->v_page_bytes = n_kv_heads * l->v_head_bytes;
    return 0;
}

/* As the type's from_f32; halves by the CPU's instruction where it has one. */
static void encode(void *dst, enum qtype t, const float *x, int n, const struct cpu_kernels *k)
{
    if (t == QTYPE_F16)
        k->f16_row(dst, x, n);
    else
        qtypes[t].from_f32(dst, x, n);
}

/* Element by element into [head_dim][16]. */
static void scatter_f32(float *tile, int r, const uint8_t *row, int n)
{
    for (int c = 0; c < n; c++)
        memcpy(&tile[c * TILE_ROWS + r], row + 4 * c, sizeof *tile);
}

static void scatter_f16(uint16_t *tile, int r, const uint8_t *row, int n)
{
    for (int c = 0; c < n; c++)
        memcpy(&tile[c * TILE_ROWS + r], row + 2 * c, sizeof *tile);
}

/* Blocks of a half-float scale and n_groups words of quants, four elements or eight per word. Both block
 * formats already have their elements in the order of the groups. */
static void scatter_blocks(uint8_t *tile, int r, const uint8_t *row, int n_blocks, int n_groups)
{
    enum { SCALE = 2, WORD = 4, GROUP = WORD * TILE_ROWS };
    uint8_t *scales = tile + n_blocks * n_groups * GROUP;
    for (int b = 0; b < n_blocks; b++) {
        const uint8_t *block = row + b * (SCALE + WORD * n_groups);
        memcpy(scales + (b * TILE_ROWS + r) * SCALE, block, SCALE);
        for (int g = 0; g < n_groups; g++)
            memcpy(tile + (b * n_groups + g) * GROUP + r * WORD, block + SCALE + g * WORD, WORD);
    }
}

void kv_store_key(const struct kv_layout *l, void *page, int kv_head, int i, const float *x,
                  const struct cpu_kernels *k)
{
    enum qtype t = l->type_k;
    uint8_t row[KV_HEAD_DIM_MAX * sizeof(float)];
    uint8_t *tile = (uint8_t *)page + kv_head * l->k_head_bytes + i / TILE_ROWS * (l->k_head_bytes / 4);
    int r = i % TILE_ROWS;
    encode(row, t, x, l->head_dim, k);
    if (t == QTYPE_F32)
        scatter_f32((float *)(void *)tile, r, row, l->head_dim);
    else if (t == QTYPE_F16)
        scatter_f16((uint16_t *)(void *)tile, r, row, l->head_dim);
    else
        scatter_blocks(tile, r, row, l->head_dim / qtypes[t].block_len, qtypes[t].block_bytes / 4);
}

/* As blocks, of which the scale goes to its own place. */
static void store_blocks(uint8_t *values, enum qtype t, int i, const float *x, int n)
{
    enum { SCALE = 2, BLOCK = 32 };
    uint8_t row[KV_HEAD_DIM_MAX * sizeof(float)];
    const int64_t row_bytes = kv_value_bytes(t, n), quants = qtypes[t].block_bytes - SCALE;
    uint8_t *scales = values + KV_PAGE * row_bytes;
    qtypes[t].from_f32(row, x, n);
    for (int b = 0; b < n / BLOCK; b++) {
        const uint8_t *block = row + b * (SCALE + quants);
        memcpy(scales + (b * KV_PAGE + i) * SCALE, block, SCALE);
        memcpy(values + i * row_bytes + b * quants, block + SCALE, (size_t)quants);
    }
}

void kv_store_value(const struct kv_layout *l, void *page, int kv_head, int i, const float *x,
                    const struct cpu_kernels *k)
{
    uint8_t *values = (uint8_t *)page + kv_head * l->v_head_bytes;
    if (qtypes[l->type_v].block_len > 1)
        store_blocks(values, l->type_v, i, x, l->head_dim);
    else
        encode(values + i * kv_value_bytes(l->type_v, l->head_dim), l->type_v, x, l->head_dim, k);
}
