/* Texts as the measuring commands read them. */
#include "tests/test.h"
#include "tests/tools/cli.h"
#include "tools/corpus.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char err[512], path[64];

static int read_text(struct corpus *c, const struct tokenizer *t, const char *text, size_t len)
{
    (void)snprintf(path, sizeof path, "/tmp/quoll-corpus-%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(text, 1, len, f), len);
    fclose(f);
    int rc = corpus_read(c, path, t, false, err, sizeof err);
    unlink(path);
    return rc;
}

START_TEST(texts_become_ids_and_a_hash)
{
    const char *model = cli_model();
    struct tokenizer *t;
    if (!model)
        return;
    ck_assert_msg(vocab_open_path(&t, model, err, sizeof err) == 0, "%s", err);
    struct corpus c;
    char hash[HASH_TEXT_BYTES];
    ck_assert_msg(read_text(&c, t, "abc", 3) == 0, "%s", err);
    ck_assert_uint_gt(c.n, 0);
    ck_assert_str_eq(hash_text(hash, c.hash), /* FIPS 180-2, appendix B.1 */
                     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    ck_assert_int_eq(corpus_is_same(&c, t, err, sizeof err), 1);
    c.ids[0]++;
    ck_assert_int_eq(corpus_is_same(&c, t, err, sizeof err), 0);
    corpus_free(&c);
    static const struct {
        const char *text;
        size_t len;
        const char *why;
    } bad[] = {{"", 0, "empty"},
               {"a\xc3", 2, "not UTF-8 at byte 1"},
               {"\xed\xa0\x80", 3, "not UTF-8 at byte 0"},
               {"ab\xf8", 3, "not UTF-8 at byte 2"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(read_text(&c, t, bad[i].text, bad[i].len), -1);
        ck_assert_msg(strstr(err, path) == err && strstr(err, bad[i].why), "%s", err);
        ck_assert_ptr_null(c.ids);
    }
    ck_assert_int_eq(corpus_read(&c, "/nowhere/x", t, false, err, sizeof err), -1);
    corpus_free(&c);
    tokenizer_free(t);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tools/corpus");
    TCase *tc = tcase_create("corpus");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, texts_become_ids_and_a_hash);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)
