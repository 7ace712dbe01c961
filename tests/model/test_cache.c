/* The KV cache: pages, sharing, capacity. */
#include "model/cache.h"
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <string.h>

static struct fixture f;

static bool open_with(int n_seqs, int64_t n_ctx)
{
    const char *path = test_golden("gguf/llama-f16/model.gguf");
    if (!path) {
        test_skip("gguf/llama-f16", "no such golden file");
        return false;
    }
    struct setting s = plain;
    s.n_seqs = n_seqs;
    s.n_ctx = n_ctx;
    f = fixture_open(path, &s);
    return true;
}

static int append(int seq, int64_t n)
{
    int64_t len = cache_len(f.cache, seq) + n;
    if (cache_reserve(f.cache, seq, len)) {
        cache_truncate(f.cache, seq, cache_len(f.cache, seq));
        return -1;
    }
    cache_commit(f.cache, seq, len);
    return 0;
}

START_TEST(capacity_is_exact_for_one_sequence)
{
    if (!open_with(1, 100))
        return;
    ck_assert_int_eq(cache_capacity(f.cache), 100);
    ck_assert_int_eq(append(0, 100), 0);
    ck_assert_int_eq(append(0, 1), -1);
    ck_assert_int_eq(cache_len(f.cache, 0), 100);
    cache_truncate(f.cache, 0, 99);
    ck_assert_int_eq(append(0, 1), 0);
    fixture_close(&f);
}
END_TEST

START_TEST(any_division_of_the_context_fits)
{
    if (!open_with(5, 200))
        return;
    static const int64_t divisions[][5] = {
        {200, 0, 0, 0, 0}, {1, 1, 1, 1, 196}, {65, 1, 65, 65, 4}, {40, 40, 40, 40, 40}, {129, 1, 1, 1, 68}};
    for (size_t i = 0; i < sizeof divisions / sizeof *divisions; i++) {
        for (int s = 0; s < 5; s++)
            ck_assert_int_eq(append(s, divisions[i][s]), 0);
        for (int s = 0; s < 5; s++)
            cache_drop(f.cache, s);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(a_failed_reservation_takes_nothing)
{
    if (!open_with(2, 192))
        return;
    ck_assert_int_eq(append(0, 150), 0); /* three pages of four */
    ck_assert_int_eq(append(1, 65), -1);
    ck_assert_int_eq(cache_len(f.cache, 1), 0);
    ck_assert_int_eq(append(1, 64), 0); /* the fourth */
    fixture_close(&f);
}
END_TEST

START_TEST(prefix_is_shared_until_written)
{
    if (!open_with(3, 400))
        return;
    ck_assert_int_eq(append(0, 150), 0);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 1, 0, 140), 0);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 2, 0, 128), 0);
    const int32_t *p0 = cache_pages(f.cache, 0, false), *p1 = cache_pages(f.cache, 1, false),
                  *p2 = cache_pages(f.cache, 2, false);
    ck_assert_int_eq(cache_len(f.cache, 1), 140);
    ck_assert_mem_eq(p0, p1, 3 * sizeof *p0);
    ck_assert_mem_eq(p0, p2, 2 * sizeof *p0);

    /* A write into the third page, which two hold: the writer gets its own, with the same bytes. */
    const struct kv_layout *l = cache_layout(f.cache);
    for (int layer = 0; layer < 2; layer++) {
        memset((char *)cache_k(f.cache, layer) + p0[2] * l->k_page_bytes, 17 + layer,
               (size_t)l->k_page_bytes);
        memset((char *)cache_v(f.cache, layer) + p0[2] * l->v_page_bytes, 27 + layer,
               (size_t)l->v_page_bytes);
    }
    ck_assert_int_eq(append(1, 1), 0);
    ck_assert_mem_eq(p0, p1, 2 * sizeof *p0);
    ck_assert_int_ne(p0[2], p1[2]);
    for (int layer = 0; layer < 2; layer++) {
        ck_assert_mem_eq((char *)cache_k(f.cache, layer) + p1[2] * l->k_page_bytes,
                         (char *)cache_k(f.cache, layer) + p0[2] * l->k_page_bytes, (size_t)l->k_page_bytes);
        ck_assert_mem_eq((char *)cache_v(f.cache, layer) + p1[2] * l->v_page_bytes,
                         (char *)cache_v(f.cache, layer) + p0[2] * l->v_page_bytes, (size_t)l->v_page_bytes);
    }
    /* Now it is alone on that page: no more copies. */
    int32_t own = p1[2], original = p0[2];
    ck_assert_int_eq(append(1, 1), 0);
    ck_assert_int_eq(p1[2], own);
    ck_assert_int_eq(append(0, 1), 0);
    ck_assert_int_eq(p0[2], original);

    /* Truncated into a page that others hold, then extended: those others keep theirs. */
    cache_truncate(f.cache, 0, 100);
    ck_assert_int_eq(append(0, 1), 0);
    ck_assert_int_eq(p1[1], p2[1]);
    ck_assert_int_ne(p0[1], p1[1]);
    ck_assert_int_eq(p0[0], p1[0]);
    fixture_close(&f);
}
END_TEST

START_TEST(pages_come_back)
{
    if (!open_with(2, 256))
        return;
    for (int round = 0; round < 20; round++) {
        ck_assert_int_eq(append(0, 200), 0);
        ck_assert_int_eq(cache_copy_prefix(f.cache, 1, 0, 190), 0);
        cache_drop(f.cache, 0);
        ck_assert_int_eq(append(1, 66), 0);
        ck_assert_int_eq(append(1, 1), -1);
        cache_drop(f.cache, 1);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(odd_requests_do_no_harm)
{
    if (!open_with(2, 256))
        return;
    ck_assert_int_eq(append(0, 100), 0);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 1, 0, 101), -1);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 1, 0, -1), -1);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 2, 0, 1), -1);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 0, -1, 0), -1);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 0, 0, 70), 0); /* onto itself: a truncation */
    ck_assert_int_eq(cache_len(f.cache, 0), 70);
    ck_assert_int_eq(cache_copy_prefix(f.cache, 1, 0, 0), 0);
    ck_assert_int_eq(cache_len(f.cache, 1), 0);
    cache_truncate(f.cache, 0, 1000);
    ck_assert_int_eq(cache_len(f.cache, 0), 70);
    cache_truncate(f.cache, 0, -1);
    ck_assert_int_eq(cache_len(f.cache, 0), 0);
    cache_truncate(f.cache, 7, 0);
    cache_drop(f.cache, -1);
    ck_assert_int_eq(cache_len(f.cache, 7), 0);
    fixture_close(&f);
}
END_TEST

START_TEST(bad_caches_are_refused)
{
    if (!open_with(1, 64))
        return;
    static const struct cache_options bad[] = {
        {0, 1, QTYPE_F16, QTYPE_F16, 0},          {-1, 1, QTYPE_F16, QTYPE_F16, 0},
        {INT64_MAX, 1, QTYPE_F16, QTYPE_F16, 0},  {INT64_MAX / 64, 1, QTYPE_F16, QTYPE_F16, 0},
        {64, 0, QTYPE_F16, QTYPE_F16, 0},         {64, -1, QTYPE_F16, QTYPE_F16, 0},
        {64, INT32_MAX, QTYPE_F16, QTYPE_F16, 0}, {64, 1, QTYPE_Q4_K, QTYPE_F16, 0},
        {64, 1, QTYPE_F16, QTYPE_I32, 0},         {64, 1, QTYPE_Q8_0, QTYPE_F16, 0}, /* heads of 16 */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char err[256] = "";
        struct cache *c;
        ck_assert_int_eq(cache_new(&c, f.model, &bad[i], err, sizeof err), -1);
        ck_assert_ptr_null(c);
        ck_assert_ptr_nonnull(strstr(err, "KV cache"));
    }
    fixture_close(&f);
}
END_TEST

static Suite *cache_suite(void)
{
    Suite *s = suite_create("model/cache");
    TCase *t = tcase_create("cache");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, capacity_is_exact_for_one_sequence);
    tcase_add_test(t, any_division_of_the_context_fits);
    tcase_add_test(t, a_failed_reservation_takes_nothing);
    tcase_add_test(t, prefix_is_shared_until_written);
    tcase_add_test(t, pages_come_back);
    tcase_add_test(t, odd_requests_do_no_harm);
    tcase_add_test(t, bad_caches_are_refused);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(cache_suite)
