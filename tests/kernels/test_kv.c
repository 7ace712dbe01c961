/* The pages of the KV cache: sizes, what cannot be cached, and the layout that kv.h draws, byte by byte. */
#include "kernels/kv.h"
#include "tests/kernels/support.h"
#include "tests/test.h"

static const enum qtype types[] = {QTYPE_F32, QTYPE_F16, QTYPE_Q8_0, QTYPE_Q4_0};
enum { N_TYPES = sizeof types / sizeof types[0] };

START_TEST(layout_has_the_bytes_of_its_rows)
{
    struct kv_layout l;
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F16, QTYPE_Q8_0, 3, 96), 0);
    ck_assert_int_eq(l.k_head_bytes, 64 * 96 * 2);
    ck_assert_int_eq(l.v_head_bytes, 64 * 3 * 34);
    ck_assert_int_eq(l.k_page_bytes, 3 * l.k_head_bytes);
    ck_assert_int_eq(l.v_page_bytes, 3 * l.v_head_bytes);
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F32, QTYPE_F32, 1, 2), 0);
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F32, QTYPE_F32, 1, KV_HEAD_DIM_MAX), 0);
}
END_TEST

START_TEST(layout_rejects_what_cannot_be)
{
    struct kv_layout l;
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_Q8_0, QTYPE_F16, 1, 80), -1);
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F16, QTYPE_Q4_0, 1, 80), -1);
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F16, QTYPE_F16, 0, 64), -1);
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F16, QTYPE_F16, 1, 0), -1);
    ck_assert_int_eq(kv_layout_init(&l, QTYPE_F16, QTYPE_F16, 1, KV_HEAD_DIM_MAX + 2), -1);
    for (int t = 0; t < QTYPE_COUNT; t++) {
        bool can = t == QTYPE_F32 || t == QTYPE_F16 || t == QTYPE_Q8_0 || t == QTYPE_Q4_0;
        ck_assert(kv_type_supported((enum qtype)t) == can);
        ck_assert_int_eq(kv_layout_init(&l, (enum qtype)t, QTYPE_F16, 2, 64), can ? 0 : -1);
        ck_assert_int_eq(kv_layout_init(&l, QTYPE_F16, (enum qtype)t, 2, 64), can ? 0 : -1);
    }
}
END_TEST

/* Element c of row r of a tile, by the drawing. */
static float tile_element(enum qtype t, const uint8_t *tile, int head_dim, int r, int c)
{
    int b = c / 32, j = c % 32;
    if (t == QTYPE_F32)
        return ((const float *)(const void *)tile)[c * 16 + r];
    if (t == QTYPE_F16)
        return f16_to_f32(((const uint16_t *)(const void *)tile)[c * 16 + r]);
    const uint16_t *d = (const uint16_t *)(const void *)(tile + (t == QTYPE_Q8_0 ? 16 : 8) * head_dim);
    float scale = f16_to_f32(d[b * 16 + r]);
    if (t == QTYPE_Q8_0)
        return scale * (float)(int8_t)tile[b * 512 + j / 4 * 64 + r * 4 + j % 4];
    uint8_t pair = tile[b * 256 + j % 16 / 4 * 64 + r * 4 + j % 4];
    return scale * (float)((j < 16 ? pair & 15 : pair >> 4) - 8);
}

/* Channel c of position i. */
static float value_element(enum qtype t, const uint8_t *values, int head_dim, int i, int c)
{
    int row_bytes = t == QTYPE_Q4_0 ? head_dim / 2 : head_dim;
    const uint16_t *d = (const uint16_t *)(const void *)(values + 64 * row_bytes);
    if (t == QTYPE_F32)
        return ((const float *)(const void *)values)[i * head_dim + c];
    if (t == QTYPE_F16)
        return f16_to_f32(((const uint16_t *)(const void *)values)[i * head_dim + c]);
    float scale = f16_to_f32(d[c / 32 * 64 + i]);
    if (t == QTYPE_Q8_0)
        return scale * (float)(int8_t)values[i * row_bytes + c];
    uint8_t pair = values[i * row_bytes + c / 32 * 16 + c % 16];
    return scale * (float)((c % 32 < 16 ? pair & 15 : pair >> 4) - 8);
}

START_TEST(keys_and_values_lie_as_drawn)
{
    enum { HEADS = 2, HEAD_DIM = 96 };
    enum qtype t = types[_i];
    struct kv_layout l;
    ck_assert_int_eq(kv_layout_init(&l, t, t, HEADS, HEAD_DIM), 0);
    float *x = random_row(1, KV_PAGE * HEADS * HEAD_DIM), want[HEAD_DIM];
    uint8_t row[HEAD_DIM * sizeof(float)];
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa)) {
        uint8_t *k = malloc((size_t)l.k_page_bytes), *v = malloc((size_t)l.v_page_bytes);
        for (int i = KV_PAGE - 1; i >= 0; i--)
            for (int h = 0; h < HEADS; h++) {
                kv_store_key(&l, k, h, i, x + (i * HEADS + h) * HEAD_DIM, cpu_kernels(isa));
                kv_store_value(&l, v, h, i, x + (i * HEADS + h) * HEAD_DIM, cpu_kernels(isa));
            }
        for (int i = 0; i < KV_PAGE; i++)
            for (int h = 0; h < HEADS; h++) {
                qtypes[t].from_f32(row, x + (i * HEADS + h) * HEAD_DIM, HEAD_DIM);
                qtypes[t].to_f32(want, row, HEAD_DIM);
                const uint8_t *tile = k + h * l.k_head_bytes + i / 16 * qtype_bytes(t, HEAD_DIM) * 16;
                int n_right = 0;
                for (int c = 0; c < HEAD_DIM; c++) {
                    n_right += tile_element(t, tile, HEAD_DIM, i % 16, c) == want[c];
                    n_right += value_element(t, v + h * l.v_head_bytes, HEAD_DIM, i, c) == want[c];
                }
                ck_assert_int_eq(n_right, 2 * HEAD_DIM);
            }
        free(k);
        free(v);
    }
    free(x);
}
END_TEST

/* A position's bytes are its own: storing one leaves the others, which another thread may be writing. */
START_TEST(positions_share_no_byte)
{
    enum { HEAD_DIM = 64 };
    enum qtype t = types[_i];
    struct kv_layout l;
    ck_assert_int_eq(kv_layout_init(&l, t, t, 1, HEAD_DIM), 0);
    size_t n = (size_t)l.k_page_bytes;
    uint8_t *page = malloc(n), *before = malloc(n), *count = calloc(n, 1);
    float x[2][HEAD_DIM];
    for (int c = 0; c < HEAD_DIM; c++) { /* two rows without a byte in common in any type */
        x[0][c] = 1.0f / 3 * (float)(c % 32 < 16 ? 1 : -1);
        x[1][c] = -5.1f * x[0][c];
    }
    for (int i = 0; i < KV_PAGE; i++) {
        kv_store_key(&l, page, 0, i, x[0], cpu_kernels(ISA_SCALAR));
        memcpy(before, page, n);
        kv_store_key(&l, page, 0, i, x[1], cpu_kernels(ISA_SCALAR));
        for (size_t b = 0; b < n; b++)
            count[b] = (uint8_t)(count[b] + (page[b] != before[b]));
    }
    int worst = 0;
    for (size_t b = 0; b < n; b++)
        worst = count[b] > worst ? count[b] : worst;
    ck_assert_int_eq(worst, 1);
    free(page);
    free(before);
    free(count);
}
END_TEST

static Suite *kv_suite(void)
{
    Suite *s = suite_create("kernels/kv");
    TCase *t = tcase_create("kv");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, layout_has_the_bytes_of_its_rows);
    tcase_add_test(t, layout_rejects_what_cannot_be);
    tcase_add_loop_test(t, keys_and_values_lie_as_drawn, 0, N_TYPES);
    tcase_add_loop_test(t, positions_share_no_byte, 0, N_TYPES);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(kv_suite)
