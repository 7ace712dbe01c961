/* --pack-cache as users type it. */
#include "tests/tools/cli.h"

#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static bool says(const struct cli *c, const char *text)
{
    return strstr(c->err, text) != NULL;
}

/* $1: the model, $2: a command with its options. Twice with a cache: packed and kept, then mapped; between
 * them and without a cache the same output. */
static const char thrice[] =
    "d=$(mktemp -d) && m=$1 && shift &&\n"
    "\"$Q\" \"$@\" -m \"$m\" >$d/plain 2>/dev/null </dev/null &&\n"
    "for i in 1 2; do\n"
    "  \"$Q\" \"$@\" -m \"$m\" -v --pack-cache $d/cache >$d/out </dev/null || exit 9\n"
    "  cmp $d/plain $d/out || exit 8\n"
    "done && ls $d/cache | wc -l && rm -rf $d\n";

START_TEST(commands_that_load_a_model)
{
    static const char *const commands[][12] = {
        {"run", "-p", "a", "-n", "3", "--temp", "0", "--quantize", "q8_0"},
        {"run", "-p", "a", "-n", "3", "--temp", "0", "--no-mmap", "-t", "1"},
        {"logits", "-p", "a", "-o", "/dev/stdout"},
        {"bench", "-p", "0", "-n", "0", "-o", "csv"},
    };
    const char *m = cli_model(), *args[14] = {m};
    if (!m)
        return;
    for (int i = 0; commands[_i][i]; i++)
        args[i + 1] = commands[_i][i];
    struct cli c = cli_shell(thrice, args);
    ck_assert_msg(c.code == 0, "%d: %s%s", c.code, c.out, c.err);
    ck_assert_str_eq(c.out, "1\n");
    const char *kept = strstr(c.err, "kept in"), *from = strstr(c.err, " from ");
    ck_assert_msg(kept && from && kept < from, "%s", c.err);
    ck_assert_msg(!says(&c, "warning"), "%s", c.err);
    cli_free(&c);
}
END_TEST

START_TEST(a_folder_that_cannot_be_is_no_error)
{
    const char *m = cli_model();
    if (!m)
        return;
    struct cli c = CLI(NULL, "run", "-m", m, "-p", "a", "-n", "1", "--pack-cache", "/dev/null/x");
    ck_assert_msg(c.code == 0 && says(&c, "warning: /dev/null/x: "), "%d: %s", c.code, c.err);
    cli_free(&c);
    c = CLI(NULL, "run", "-m", m, "-p", "a", "-n", "1", "--pack-cache", "/dev/null/x", "-q");
    ck_assert_msg(c.code == 0 && !says(&c, "warning"), "%d: %s", c.code, c.err);
    cli_free(&c);
}
END_TEST

START_TEST(not_with_no_repack)
{
    cli_expect(CLI(NULL, "run", "-p", "a", "--no-repack", "--pack-cache", "/tmp"), 2, "--pack-cache");
}
END_TEST

static Suite *pack_cache_suite(void)
{
    Suite *s = suite_create("tools/pack_cache");
    TCase *t = tcase_create("pack_cache");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, commands_that_load_a_model, 0, 4);
    tcase_add_test(t, a_folder_that_cannot_be_is_no_error);
    tcase_add_test(t, not_with_no_repack);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(pack_cache_suite)
