/* The asymmetric integers: their blocks bit by bit, and the order of their dot product. */
#include "quant/quant.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

enum { N = 32 * 11 };

/* A block's parts from the drawing in quant/intz.c, typed here a second time. */
static int code_of(enum qtype t, const uint8_t *block, int i)
{
    switch (t) {
    case QTYPE_INT2Z:
        return block[3 + i % 8] >> (i / 8 * 2) & 3;
    case QTYPE_INT3Z:
        return (block[3 + i % 8] >> (i / 8 * 2) & 3) + 4 * (block[11 + i / 8] >> (i % 8) & 1);
    case QTYPE_INT4Z:
        return i < 16 ? block[3 + i] & 15 : block[3 + i - 16] >> 4;
    default:
        return block[4 + i];
    }
}

static int zero_of(enum qtype t, const uint8_t *block)
{
    return t == QTYPE_INT8Z ? block[2] + 256 * block[3] : block[2];
}

static int bits_of(enum qtype t)
{
    return t == QTYPE_INT8Z ? 8 : (int)t - QTYPE_INT2Z + 2;
}

/* Random codes; zero points from 0 to 2^bits; small scales of both signs. */
static void random_row(uint8_t *row, enum qtype t, int n, uint32_t seed)
{
    int bytes = qtypes[t].block_bytes;
    for (int i = 0; i < n / 32 * bytes; i++) {
        seed = seed * 1664525 + 1013904223;
        row[i] = (uint8_t)(seed >> 24);
    }
    for (int b = 0; b < n / 32; b++) {
        uint8_t *block = row + b * bytes;
        block[1] = (uint8_t)((block[1] & 0x83) | 0x20);
        int zero = b == 0 ? 1 << bits_of(t) : b == 1 ? 0 : block[2] % ((1 << bits_of(t)) + 1);
        block[2] = (uint8_t)zero;
        if (t == QTYPE_INT8Z)
            block[3] = (uint8_t)(zero >> 8);
    }
}

START_TEST(decodes_drawn_blocks)
{
    enum qtype t = (enum qtype)_i;
    static uint8_t row[36 * N / 32 + 1];
    static float x[N];
    random_row(row, t, N, 1);
    for (int odd = 0; odd < 2; odd++) {
        memmove(row + odd, row, (size_t)qtype_bytes(t, N));
        qtypes[t].to_f32(x, row + odd, N);
        for (int i = 0; i < N; i++) {
            const uint8_t *block = row + odd + i / 32 * qtypes[t].block_bytes;
            float d = f16_to_f32((uint16_t)(block[0] + 256 * block[1]));
            ck_assert(x[i] == (float)(code_of(t, block, i % 32) - zero_of(t, block)) * d);
        }
    }
}
END_TEST

START_TEST(follows_the_order)
{
    enum qtype t = (enum qtype)_i;
    static uint8_t row[36 * N / 32];
    static struct act_block a[N / 32];
    static float x[N];
    for (uint32_t seed = 1; seed < 20; seed++) {
        random_row(row, t, N, seed);
        for (int i = 0; i < N; i++) /* some tokens of extremes: the largest sums */
            x[i] = seed % 4 ? (float)((i * 37 + (int)seed * 11) % 101 - 50) : seed % 8 ? 1.0f : -1.0f;
        act_quantise(a, x, N);
        float total = 0, acc = 0;
        for (int b = 0; b < N / 32; b++) {
            const uint8_t *block = row + b * qtypes[t].block_bytes;
            int sum = 0;
            for (int i = 0; i < 32; i++)
                sum += (code_of(t, block, i) - zero_of(t, block)) * a[b].q[i];
            float d = f16_to_f32((uint16_t)(block[0] + 256 * block[1]));
            acc = fmaf((float)sum, d * a[b].d, acc);
            if (b % 8 == 7 || b == N / 32 - 1) {
                total += acc;
                acc = 0;
            }
        }
        float got = qtypes[t].dot(row, a, N);
        ck_assert_msg(memcmp(&got, &total, sizeof got) == 0, "%s: %a instead of %a", qtypes[t].name,
                      (double)got, (double)total);
    }
}
END_TEST

static Suite *intz_suite(void)
{
    Suite *s = suite_create("quant/intz");
    TCase *tc = tcase_create("asymmetric integers");
    tcase_add_loop_test(tc, decodes_drawn_blocks, QTYPE_INT2Z, QTYPE_INT8Z + 1);
    tcase_add_loop_test(tc, follows_the_order, QTYPE_INT2Z, QTYPE_INT8Z + 1);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(intz_suite)
