/* Outputs that are gone on with: what is kept, what is refused, and that the result is the same. */
#include "lab/facts.h"
#include "tests/lab/scratch.h"
#include "tests/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[128], err[512];

static void setup(void)
{
    scratch_make();
    (void)snprintf(path, sizeof path, "%s", scratch("out.gguf"));
}

static json_t *facts_of(const char *method)
{
    return json_pack("{s:s}", "method", method);
}

static struct journal *begin(bool resume, const char *method)
{
    struct journal *j;
    ck_assert_msg(journal_open(&j, path, "test 1", resume, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(journal_begin(j, facts_of(method), "model.gguf", err, sizeof err) == 0, "%s", err);
    return j;
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    ck_assert_ptr_nonnull(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static bool is_there(const char *ending)
{
    char name[256];
    (void)snprintf(name, sizeof name, "%s%s", path, ending);
    return access(name, F_OK) == 0;
}

/* Expects that opening and beginning fails, and says this. */
static void refused(bool resume, const char *program, const char *method, const char *text)
{
    struct journal *j;
    int rc = journal_open(&j, path, program, resume, err, sizeof err);
    if (rc == 0) {
        rc = journal_begin(j, facts_of(method), "model.gguf", err, sizeof err);
        journal_close(j);
    }
    ck_assert_int_eq(rc, -1);
    ck_assert_msg(strstr(err, text) != NULL, "no '%s' in: %s", text, err);
}

START_TEST(keeps_what_it_says)
{
    float rows[3] = {1, 2, 3}, got[3];
    struct stat st;
    struct journal *j = begin(false, "a");
    ck_assert_uint_eq(journal_bytes(j), 0);
    ck_assert_int_eq(journal_layer(j), -1);
    write_text(journal_file_path(j), "0123456789");
    ck_assert_msg(journal_keep(j, 8, 0, rows, 3, err, sizeof err) == 0, "%s", err);
    rows[1] = 5;
    ck_assert_int_eq(journal_keep(j, 8, 1, rows, 3, err, sizeof err), 0);
    ck_assert(!is_there(".part/rows.0") && is_there(".part/rows.1"));
    ck_assert_int_eq(journal_keep(j, 6, 1, NULL, 0, err, sizeof err), 0); /* the same rows */
    refused(true, "test 1", "a", "another process");
    journal_close(j);

    refused(false, "test 1", "a", "--resume");
    refused(true, "test 1", "b", "begun with method \"a\", not \"b\"");
    refused(true, "test 2", "a", "begun with program");
    j = begin(true, "a");
    ck_assert_uint_eq(journal_bytes(j), 6);
    ck_assert_int_eq(journal_layer(j), 1);
    ck_assert(stat(journal_file_path(j), &st) == 0 && st.st_size == 6);
    ck_assert_int_eq(journal_read_rows(j, got, 3, err, sizeof err), 0);
    ck_assert_mem_eq(got, rows, sizeof rows);
    ck_assert_int_eq(journal_read_rows(j, got, 2, err, sizeof err), -1);
    journal_finish(j);
    ck_assert_int_eq(unlink(journal_file_path(j)), 0);
    journal_close(j);
    ck_assert(!is_there(".part"));
}
END_TEST

START_TEST(nothing_kept_nothing_left)
{
    struct journal *j = begin(false, "a");
    write_text(journal_file_path(j), "0123456789");
    ck_assert(is_there(".part/journal.json"));
    journal_close(j);
    ck_assert(!is_there(".part"));
    ck_assert_int_eq(mkdir(strcat(strcpy(err, path), ".part"), 0777), 0); /* killed before the first line */
    journal_close(begin(true, "a"));
    ck_assert(!is_there(".part"));
}
END_TEST

/* The file has its name already, the journal is still there. */
START_TEST(killed_at_the_end)
{
    struct journal *j = begin(false, "a");
    write_text(journal_file_path(j), "0123456789");
    ck_assert_int_eq(journal_keep(j, 8, -1, NULL, 0, err, sizeof err), 0);
    ck_assert_int_eq(rename(journal_file_path(j), path), 0);
    journal_close(j);
    ck_assert(is_there(".part"));
    j = begin(false, "b");
    ck_assert_uint_eq(journal_bytes(j), 0);
    journal_close(j);
    ck_assert(!is_there(".part") && is_there(""));
}
END_TEST

START_TEST(foreign_folders)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{\"version\": 2, \"file\": \"x\", \"bytes\": 1, \"layer\": 1, \"facts\": {}}",
        "{\"version\": 1, \"file\": \"x\", \"bytes\": -1, \"layer\": 1, \"facts\": {}}",
        "{\"version\": 1, \"file\": \"x\", \"bytes\": 1, \"layer\": -2, \"facts\": {}}",
        "{\"version\": 1, \"file\": \"x\", \"bytes\": 1, \"layer\": 1, \"facts\": []}",
        "{\"version\": 1, \"file\": \"x\", \"bytes\": 99999999999999999999, \"layer\": 1, \"facts\": {}}",
        "{\"version\": 1, \"file\": \"x\", \"layer\": 1, \"facts\": {}}",
    };
    char name[256];
    (void)snprintf(name, sizeof name, "%s.part", path);
    write_text(name, "a file");
    refused(true, "test 1", "a", "cannot be used");
    ck_assert_int_eq(unlink(name), 0);
    ck_assert_int_eq(mkdir(name, 0777), 0);
    (void)snprintf(name, sizeof name, "%s.part/mine", path);
    write_text(name, "of somebody");
    refused(true, "test 1", "a", "is no folder that an interrupted run left");
    ck_assert(is_there(".part/mine"));
    (void)snprintf(name, sizeof name, "%s.part/journal.json", path);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text(name, texts[i]);
        refused(true, "test 1", "a", "is no folder that an interrupted run left");
    }
    ck_assert(is_there(".part/mine"));
    (void)snprintf(path, sizeof path, "/nowhere/out.gguf");
    refused(false, "test 1", "a", "/nowhere/out.gguf.part: cannot create it");
}
END_TEST

/* ---- Models -------------------------------------------------------------------------------------- */

enum { SEQ_LEN = 32, N_CALIB = 2 * SEQ_LEN };

static const struct method {
    bool text, awq;
    enum solver solver;
} methods[] = {{false, false, SOLVE_NEAREST},
               {true, false, SOLVE_HQQ},
               {true, true, SOLVE_NEAREST},
               {true, true, SOLVE_GPTQ}};
enum { N_METHODS = sizeof methods / sizeof methods[0] };

/* Ends the work when it has been asked so often. */
static int questions;

static bool stop(void)
{
    return --questions <= 0;
}

static bool progress(void *arg, const struct quantize_step *step, double fraction)
{
    (void)arg;
    ck_assert_ptr_nonnull(step->name);
    ck_assert_msg(fraction >= 0 && fraction <= 1.0001, "%s: %g", step->name, fraction);
    return !stop();
}

/* Quantises to `to`, a GGUF or a folder, and stops at the given question; 0, −1, or −2 for a refusal. */
static int quantise(const char *from, const char *to, const struct method *m, bool folder, bool resume,
                    int after)
{
    struct weights *w;
    struct quantize *q = NULL;
    struct journal *j;
    int32_t ids[N_CALIB];
    size_t n;
    ck_assert_msg(weights_open(&w, from, NULL, err, sizeof err) == 0, "%s", err);
    for (int i = 0; i < N_CALIB; i++)
        ids[i] = i * i % 61;
    const struct calibration c = {.solver = m->solver,
                                  .awq = m->awq,
                                  .ids = ids,
                                  .n_ids = N_CALIB,
                                  .seq_len = SEQ_LEN,
                                  .n_threads = 1,
                                  .ops = ops_cpu(isa_best()),
                                  .stop = stop};
    int rc = journal_open(&j, to, "test", resume, err, sizeof err);
    if (rc == 0)
        rc = journal_begin(j, quantize_facts(w, m->text ? &c : NULL, NULL, NULL, 0),
                           folder ? "model.safetensors" : "model.gguf", err, sizeof err);
    ck_assert_msg(rc == 0, "%s", err);
    questions = after;
    if (folder) {
        const struct gptq_folder_options o = {.type = gptq_folder_type_by_name("int4_g32"),
                                              .calibration = m->text ? &c : NULL,
                                              .journal = j,
                                              .n_threads = 1,
                                              .progress = progress};
        rc = gptq_folder_write(to, w, &o, err, sizeof err);
    } else {
        const struct quantize_options o = {.mix = mix_by_name("q4_0"),
                                           .output_type = -1,
                                           .embedding_type = -1,
                                           .calibration = m->text ? &c : NULL,
                                           .journal = j,
                                           .n_threads = 1};
        ck_assert_msg(quantize_open(&q, w, &o, err, sizeof err) == 0, "%s", err);
        const struct meta *meta = quantize_meta(q, &n);
        rc = quantize_write(q, to, meta, n, progress, NULL, err, sizeof err);
        quantize_close(q);
    }
    journal_close(j);
    weights_close(w);
    return rc;
}

/* Stopped again and again, each time a little later, it still becomes the same file. */
START_TEST(goes_on_where_it_was)
{
    const struct method *m = &methods[_i / 2];
    const bool folder = _i % 2;
    const char *from = test_golden("gguf/llama-f32/model.gguf");
    const char *whole = scratch("whole.gguf");
    char command[512];
    int stops = 0, kept = 0;
    if (!from) {
        test_skip("goes_on_where_it_was", "the golden model is not here");
        return;
    }
    ck_assert_msg(quantise(from, whole, m, folder, false, 1 << 30) == 0, "%s", err);
    for (int after = 1; quantise(from, path, m, folder, stops > 0, after) != 0; after += 3, stops++) {
        ck_assert_str_eq(err, "");
        ck_assert_int_lt(stops, 200);
        kept += is_there(".part");
    }
    ck_assert_int_gt(stops, 1);
    ck_assert_int_gt(kept, 0);
    ck_assert(!is_there(".part"));
    (void)snprintf(command, sizeof command, "diff -r %s %s", whole, path);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* The journal fits, the file does not: other types, other bytes, fewer. */
START_TEST(what_is_there_is_compared)
{
    const char *from = test_golden("gguf/llama-f32/model.gguf");
    char name[256];
    struct stat st;
    if (!from) {
        test_skip("what_is_there_is_compared", "the golden model is not here");
        return;
    }
    ck_assert_int_eq(quantise(from, path, &methods[0], false, false, 6), -1);
    ck_assert(is_there(".part"));
    (void)snprintf(name, sizeof name, "%s.part/model.gguf", path);
    FILE *f = fopen(name, "r+");
    ck_assert_ptr_nonnull(f);
    (void)fseek(f, 5, SEEK_SET);
    (void)fputc('x', f);
    (void)fclose(f);
    ck_assert_int_eq(quantise(from, path, &methods[0], false, true, 1 << 30), -1);
    ck_assert_msg(strstr(err, "holds something else") != NULL, "%s", err);
    ck_assert_int_eq(stat(name, &st), 0);
    ck_assert_int_eq(truncate(name, st.st_size - 1), 0);
    ck_assert_int_eq(quantise(from, path, &methods[0], false, true, 1 << 30), -1);
    ck_assert_msg(strstr(err, "is shorter") != NULL, "%s", err);
    ck_assert(!is_there(""));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/journal");
    TCase *tc = tcase_create("journal");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, scratch_remove);
    tcase_add_test(tc, keeps_what_it_says);
    tcase_add_test(tc, nothing_kept_nothing_left);
    tcase_add_test(tc, killed_at_the_end);
    tcase_add_test(tc, foreign_folders);
    tcase_add_loop_test(tc, goes_on_where_it_was, 0, 2 * N_METHODS);
    tcase_add_test(tc, what_is_there_is_compared);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)
