/* The dot products: their order, term by term as the numerics contract has it, and their error. */
#include "quant/quant.h"
#include "tests/quant/random_blocks.h"
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { MAX_N = 3 * 256 };

struct dot_case {
    int64_t n;
    float w[MAX_N], x[MAX_N]; /* w: decoded */
    uint8_t row[MAX_N * 4];
    struct act_block a[MAX_N / ACT_LEN];
};

static float random_value(uint32_t *state)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 1664525 + 1013904223;
        sum += (float)(*state >> 8) * 0x1p-24f - 0.5f;
    }
    return sum;
}

static void make_case(struct dot_case *c, const struct qtype_info *t, int64_t n, uint32_t seed)
{
    c->n = n;
    for (int64_t i = 0; i < n; i++) {
        c->w[i] = random_value(&seed);
        c->x[i] = random_value(&seed) * 3;
    }
    if (t->from_f32)
        t->from_f32(c->row, c->w, n);
    else
        random_blocks(c->row, (enum qtype)(t - qtypes), n, &seed);
    t->to_f32(c->w, c->row, n);
    act_quantise(c->a, c->x, n);
}

static void check_bits(float got, float want)
{
    ck_assert_msg(memcmp(&got, &want, sizeof got) == 0, "%a instead of %a", (double)got, (double)want);
}

START_TEST(float_rows_follow_the_order)
{
    static struct dot_case c;
    for (int t = QTYPE_F32; t <= QTYPE_BF16; t++)
        for (int64_t n = 1; n <= MAX_N; n += 59) {
            make_case(&c, &qtypes[t], MAX_N, (uint32_t)n);
            float total = 0;
            for (int64_t begin = 0; begin < n; begin += 256) {
                float acc = 0;
                for (int64_t i = begin; i < n && i < begin + 256; i++)
                    acc = fmaf(c.w[i], c.x[i], acc);
                total += acc;
            }
            check_bits(qtypes[t].dot(c.row, c.x, n), total);
        }
    ck_assert(qtypes[QTYPE_F32].dot(c.row, c.x, 0) == 0);
}
END_TEST

static int isum(const int8_t *a, const int *q, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += q[i] * a[i];
    return sum;
}

START_TEST(q8_0_follows_the_order)
{
    static struct dot_case c;
    for (int64_t n = 32; n <= MAX_N; n += 32) {
        make_case(&c, &qtypes[QTYPE_Q8_0], n, (uint32_t)n);
        float total = 0, acc = 0;
        for (int64_t i = 0; i < n / 32; i++) {
            struct block_q8_0 b;
            memcpy(&b, c.row + i * 34, sizeof b);
            int q[32];
            for (int k = 0; k < 32; k++)
                q[k] = b.qs[k];
            float scale = f16_to_f32(b.d) * c.a[i].d;
            acc = fmaf((float)isum(c.a[i].q, q, 32), scale, acc);
            if (i % 8 == 7 || i == n / 32 - 1) {
                total += acc;
                acc = 0;
            }
        }
        check_bits(qtypes[QTYPE_Q8_0].dot(c.row, c.a, n), total);
    }
}
END_TEST

START_TEST(q4_1_follows_the_order)
{
    static struct dot_case c;
    for (int64_t n = 32; n <= MAX_N; n += 32) {
        make_case(&c, &qtypes[QTYPE_Q4_1], n, (uint32_t)n);
        float total = 0, acc = 0, mins = 0;
        for (int64_t i = 0; i < n / 32; i++) {
            struct block_q4_1 b;
            memcpy(&b, c.row + i * 20, sizeof b);
            int q[32];
            for (int k = 0; k < 32; k++)
                q[k] = k < 16 ? b.qs[k] & 15 : b.qs[k - 16] >> 4;
            float scale = f16_to_f32(b.d) * c.a[i].d;
            acc = fmaf((float)isum(c.a[i].q, q, 32), scale, acc);
            mins = fmaf(f16_to_f32(b.m), c.a[i].ds, mins);
            if (i % 8 == 7 || i == n / 32 - 1) {
                total += acc;
                total += mins;
                acc = mins = 0;
            }
        }
        check_bits(qtypes[QTYPE_Q4_1].dot(c.row, c.a, n), total);
    }
}
END_TEST

START_TEST(q4_k_follows_the_order)
{
    static struct dot_case c;
    for (uint32_t seed = 0; seed < 20; seed++) {
        make_case(&c, &qtypes[QTYPE_Q4_K], MAX_N, seed);
        const struct act_block *a = c.a;
        float total = 0;
        for (int block = 0; block < MAX_N / 256; block++) {
            struct block_q4_k b;
            memcpy(&b, c.row + block * 144, sizeof b);
            float acc = 0, mins = 0;
            for (int j = 0; j < 8; j++, a++) {
                int q[32];
                for (int k = 0; k < 32; k++)
                    q[k] = j % 2 == 0 ? b.qs[j / 2 * 32 + k] & 15 : b.qs[j / 2 * 32 + k] >> 4;
                uint8_t scale, min;
                q4_k_scale_min(b.scales, j, &scale, &min);
                acc = fmaf((float)(scale * isum(a->q, q, 32)), a->d, acc);
                mins = fmaf((float)(min * (a->sum[0] + a->sum[1])), a->d, mins);
            }
            total = fmaf(acc, f16_to_f32(b.d), total);
            total = fmaf(-f16_to_f32(b.dmin), mins, total);
        }
        check_bits(qtypes[QTYPE_Q4_K].dot(c.row, c.a, MAX_N), total);
    }
}
END_TEST

START_TEST(q6_k_follows_the_order)
{
    static struct dot_case c;
    for (uint32_t seed = 0; seed < 20; seed++) {
        make_case(&c, &qtypes[QTYPE_Q6_K], MAX_N, seed);
        const struct act_block *a = c.a;
        float total = 0;
        for (int block = 0; block < MAX_N / 256; block++) {
            struct block_q6_k b;
            memcpy(&b, c.row + block * 210, sizeof b);
            float acc = 0;
            for (int j = 0; j < 8; j++, a++) {
                int q[32], half = j / 4, k = j % 4;
                for (int l = 0; l < 32; l++)
                    q[l] = ((b.ql[64 * half + k % 2 * 32 + l] >> (k / 2 * 4) & 15) |
                            (b.qh[32 * half + l] >> (2 * k) & 3) << 4) -
                           32;
                int s =
                    b.scales[2 * j] * isum(a->q, q, 16) + b.scales[2 * j + 1] * isum(a->q + 16, q + 16, 16);
                acc = fmaf((float)s, a->d, acc);
            }
            total = fmaf(acc, f16_to_f32(b.d), total);
        }
        check_bits(qtypes[QTYPE_Q6_K].dot(c.row, c.a, MAX_N), total);
    }
}
END_TEST

/* Chunks start from zero: 256 ones survive beside 2²⁴ as a sum of their own. */
START_TEST(chunks_are_summed_apart)
{
    float w[512], x[512];
    for (int i = 0; i < 512; i++) {
        w[i] = i >= 256 ? 1 : 0;
        x[i] = 1;
    }
    w[0] = 0x1p24f;
    ck_assert(qtypes[QTYPE_F32].dot(w, x, 512) == 0x1p24f + 256);
}
END_TEST

/* Against the sum in double of decoded weights and decoded activations. Rounding: each term of a chunk
 * passes at most 9 additions (256 for float rows), then one per chunk, each of relative error 2⁻²⁴. */
START_TEST(error_against_double)
{
    const struct qtype_info *t = &qtypes[_i];
    static struct dot_case c;
    for (uint32_t seed = 0; seed < 50; seed++) {
        int64_t n = t->block_len == 256 ? 768 : 576;
        make_case(&c, t, n, seed);
        double want = 0, magnitude = 0;
        for (int64_t i = 0; i < n; i++) {
            const struct act_block *a = &c.a[i / 32];
            double x = t->x_is_f32 ? (double)c.x[i] : (double)a->d * a->q[i % 32];
            want += c.w[i] * x;
            magnitude += fabs(c.w[i] * x);
        }
        double got = (double)t->dot(c.row, t->x_is_f32 ? (const void *)c.x : c.a, n);
        /* Minima make the terms of a sum larger than the sum of the terms: 4 is ample for that. */
        ck_assert_msg(fabs(got - want) <= 4 * 13 * 0x1p-24 * magnitude, "%s: %a, not %a", t->name, got, want);
    }
}
END_TEST

/* An odd address gives the same bits. */
START_TEST(alignment_does_not_matter)
{
    const struct qtype_info *t = &qtypes[_i];
    static struct dot_case c;
    static uint8_t odd[MAX_N * 4 + 1];
    static float back[MAX_N];
    make_case(&c, t, 256, 1);
    t->to_f32(c.w, c.row, 256);
    if (t->from_f32) {
        t->from_f32(odd + 1, c.w, 256);
        t->from_f32(c.row, c.w, 256);
        ck_assert_mem_eq(odd + 1, c.row, (size_t)qtype_bytes((enum qtype)_i, 256));
    } else {
        memcpy(odd + 1, c.row, (size_t)qtype_bytes((enum qtype)_i, 256));
    }
    t->to_f32(c.w, c.row, 256);
    t->to_f32(back, odd + 1, 256);
    ck_assert_mem_eq(back, c.w, sizeof(float) * 256);
    const void *x = t->x_is_f32 ? (const void *)c.x : c.a;
    check_bits(t->dot(odd + 1, x, 256), t->dot(c.row, x, 256));
}
END_TEST

/* The largest sums that blocks can hold: no int32 overflow, and S stays exact in float. */
START_TEST(extreme_blocks)
{
    const struct qtype_info *t = &qtypes[_i];
    if (t->x_is_f32)
        return;
    static uint8_t row[256 * 4];
    static float w[256], x[256];
    struct act_block a[8];
    for (int pattern = 0; pattern < 256; pattern += 51) {
        memset(row, pattern, sizeof row);
        if (t->block_len == 32) /* a half that is not NaN in front: 1 */
            for (int i = 0; i < 256 / 32; i++)
                memcpy(row + i * t->block_bytes, (const uint8_t[]){0, 0x3c, 0, 0x3c},
                       t->block_bytes == 20 || t->block_bytes == 24 ? 4 : 2);
        else { /* scales are in front or at the end; both are small numbers */
            memcpy(row, (const uint8_t[]){0, 0x3c, 0, 0x3c}, 4);
            memcpy(row + t->block_bytes - 4, (const uint8_t[]){0, 0x3c, 0, 0x3c}, 4);
        }
        for (int sign = -1; sign <= 1; sign += 2) {
            t->to_f32(w, row, 256);
            for (int i = 0; i < 256; i++)
                x[i] = (float)(w[i] < 0 ? -sign : sign) * 127;
            act_quantise(a, x, 256);
            double want = 0, magnitude = 0;
            for (int i = 0; i < 256; i++) {
                want += (double)w[i] * (double)x[i];
                magnitude += fabs((double)w[i] * (double)x[i]);
            }
            double got = (double)t->dot(row, a, 256);
            ck_assert_msg(fabs(got - want) <= 64 * 0x1p-24 * magnitude, "%s, bytes %02x: %a, not %a", t->name,
                          (unsigned)pattern, got, want);
        }
    }
}
END_TEST

START_TEST(nan_reaches_the_product)
{
    const struct qtype_info *t = &qtypes[_i];
    static struct dot_case c;
    make_case(&c, t, 512, 7);
    c.x[300] = NAN;
    act_quantise(c.a, c.x, 512);
    const void *x = t->x_is_f32 ? (const void *)c.x : c.a;
    ck_assert(isnan(t->dot(c.row, x, 512)));
    ck_assert(!isnan(t->dot(c.row, x, 256)));
}
END_TEST

static Suite *blocks_suite(void)
{
    Suite *s = suite_create("quant/blocks");
    TCase *tc = tcase_create("dot");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, float_rows_follow_the_order);
    tcase_add_test(tc, q8_0_follows_the_order);
    tcase_add_test(tc, q4_1_follows_the_order);
    tcase_add_test(tc, q4_k_follows_the_order);
    tcase_add_test(tc, q6_k_follows_the_order);
    tcase_add_test(tc, chunks_are_summed_apart);
    tcase_add_loop_test(tc, error_against_double, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, alignment_does_not_matter, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, extreme_blocks, 0, QTYPE_N_MATRIX);
    tcase_add_loop_test(tc, nan_reaches_the_product, 0, QTYPE_N_MATRIX);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(blocks_suite)
