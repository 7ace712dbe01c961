/* Questions from CSV and JSON lines, and lines that are none. */
#include "tests/test.h"
#include "tools/eval_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char err[512], path[80];

static int read_text(struct eval_rows *r, const char *ending, const char *text, size_t len)
{
    (void)snprintf(path, sizeof path, "/tmp/high_school-%ld_test%s", (long)getpid(), ending);
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(text, 1, len, f), len);
    fclose(f);
    int rc = eval_rows_read(r, path, err, sizeof err);
    unlink(path);
    return rc;
}

static struct eval_rows read_rows(const char *ending, const char *text)
{
    struct eval_rows r;
    ck_assert_msg(read_text(&r, ending, text, strlen(text)) == 0, "%s", err);
    return r;
}

START_TEST(csv_without_a_header)
{
    struct eval_rows r = read_rows(".csv", "\xef\xbb\xbfWhat is it?,a dog,a cat,B\r\n"
                                           "\"It said \"\"no\"\",\nand \"\"yes\"\"\",1,2, a\n\nlast,x,y,A");
    ck_assert_uint_eq(r.n, 3);
    ck_assert_str_eq(r.row[0].question, "What is it?");
    ck_assert_int_eq(r.row[0].n_choices, 2);
    ck_assert_str_eq(r.row[0].choice[1], "a cat");
    ck_assert_int_eq(r.row[0].right, 1);
    ck_assert_str_eq(r.row[1].question, "It said \"no\",\nand \"yes\"");
    ck_assert_int_eq(r.row[1].right, 0);
    ck_assert_int_eq(r.row[2].line, 5);
    ck_assert_ptr_null(r.row[0].answer);
    ck_assert_msg(strncmp(r.row[0].subject, "high_school-", 12) == 0 && !strstr(r.row[0].subject, "_test"),
                  "%s", r.row[0].subject);
    ck_assert(!r.is_chinese);
    eval_rows_free(&r);
}
END_TEST

START_TEST(csv_with_a_header)
{
    struct eval_rows r =
        read_rows(".csv", "id,question,A,B,C,D,answer,explanation\n0,问,甲,乙,丙,丁,C,\"so, so\"\n");
    ck_assert_uint_eq(r.n, 1);
    ck_assert(r.is_chinese);
    ck_assert_str_eq(r.row[0].question, "问");
    ck_assert_str_eq(r.row[0].choice[3], "丁");
    ck_assert_int_eq(r.row[0].right, 2);
    eval_rows_free(&r);
    r = read_rows(".csv", "question,A,B,subject,answer\nq,1,2,maths,b\n");
    ck_assert(!r.is_chinese);
    ck_assert_str_eq(r.row[0].subject, "maths");
    ck_assert_int_eq(r.row[0].right, 1);
    eval_rows_free(&r);
}
END_TEST

START_TEST(json_lines)
{
    struct eval_rows r = read_rows(
        ".jsonl", "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":1,\"subject\":\"s\"}\n\n"
                  "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":\"A\"}\n"
                  "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":\"y\"}\n"
                  "{\"ctx\":\"q\",\"endings\":[\"x\",\"y\",\"z\"],\"label\":\"2\"}\n"
                  "{\"question\":\"q\",\"choices\":{\"text\":[\"x\",\"y\"],\"label\":[\"1\",\"2\"]},"
                  "\"answer\":\"1\"}\r\n"
                  "{\"question\":\"q\",\"answer\":\"so\\n#### 7\"}\n"
                  "{\"question\":\"q\",\"answer\":12}\n");
    const int right[] = {1, 0, 1, 2, 0};
    ck_assert_uint_eq(r.n, 7);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_int_eq(r.row[i].right, right[i]);
        ck_assert_ptr_null(r.row[i].answer);
    }
    ck_assert_str_eq(r.row[0].subject, "s");
    ck_assert_int_eq(r.row[1].line, 3);
    ck_assert_str_eq(r.row[5].answer, "so\n#### 7");
    ck_assert_int_eq(r.row[5].n_choices, 0);
    ck_assert_str_eq(r.row[6].answer, "12");
    eval_rows_free(&r);
}
END_TEST

static const struct {
    const char *ending, *text, *why;
} bad[] = {
    {".csv", "", "no questions"},
    {".csv", "\n\r\n", "no questions"},
    {".csv", "q,a,b,A\nq,a,A\n", "line 2: 3 fields, not 4"},
    {".csv", "q,a,b,C\n", "line 1: the answer 'C' is no letter"},
    {".csv", "q,a,b,AB\n", "'AB'"},
    {".csv", "q,a,b,\n", "line 1: the answer ''"},
    {".csv", "q,A\n", "line 1: 2 fields"},
    {".csv", "q,a,b,A\nq,\"a,b,A\n", "line 2: a quote is never closed"},
    {".csv", "id,question,A,B\n1,q,a,b\n", "no column 'answer'"},
    {".csv", "q,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,A\n",
     "more than 64"},
    {".jsonl", "{\"question\":\"q\",\"answer\":1}\n{\"question\":\n", "line 2: "},
    {".jsonl", "[1]\n", "line 1: no JSON object"},
    {".jsonl", "{\"answer\":1}\n", "line 1: no text 'question'"},
    {".jsonl", "{\"question\":1,\"answer\":1}\n", "no text 'question'"},
    {".jsonl", "{\"question\":\"q\"}\n", "line 1: no 'answer'"},
    {".jsonl", "{\"question\":\"q\",\"choices\":[\"x\"],\"answer\":0}\n", "line 1: 'choices'"},
    {".jsonl", "{\"question\":\"q\",\"choices\":3,\"answer\":0}\n", "line 1: 'choices'"},
    {".jsonl", "{\"question\":\"q\",\"choices\":[\"x\",3],\"answer\":0}\n", "choice 1 is no text"},
    {".jsonl", "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":2}\n", "none of the choices"},
    {".jsonl", "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":-1}\n", "none of the choices"},
    {".jsonl", "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":\"z\"}\n", "none of the choices"},
    {".jsonl", "{\"question\":\"q\",\"choices\":[\"x\",\"y\"],\"answer\":null}\n", "none of the choices"},
};
enum { N_BAD = sizeof bad / sizeof bad[0] };

START_TEST(bad_lines_are_named)
{
    struct eval_rows r;
    ck_assert_int_eq(read_text(&r, bad[_i].ending, bad[_i].text, strlen(bad[_i].text)), -1);
    ck_assert_msg(strstr(err, path) == err && strstr(err, bad[_i].why), "'%s' does not say '%s'", err,
                  bad[_i].why);
    ck_assert_uint_eq(r.n, 0);
}
END_TEST

START_TEST(bytes_that_are_no_text_are_refused)
{
    struct eval_rows r;
    ck_assert_int_eq(read_text(&r, ".csv", "q,a\0b,c,A\n", 10), -1);
    ck_assert_msg(strstr(err, "NUL byte at 3") != NULL, "%s", err);
    ck_assert_int_eq(eval_rows_read(&r, "/nowhere/x.csv", err, sizeof err), -1);
    /* Every beginning of good files: read, or refused. */
    static const char csv[] = "id,question,A,B,answer\n1,\"a \"\"b\"\"\",\"x\ny\",z,B\n";
    static const char json[] = "{\"question\":\"q\",\"choices\":{\"text\":[\"x\",\"y\"],\"label\":[\"1\","
                               "\"2\"]},\"answer\":\"1\"}\n";
    for (size_t n = 0; n < sizeof csv; n++)
        if (read_text(&r, ".csv", csv, n) == 0)
            eval_rows_free(&r);
    for (size_t n = 0; n < sizeof json; n++)
        if (read_text(&r, ".jsonl", json, n) == 0)
            eval_rows_free(&r);
}
END_TEST

START_TEST(subjects_are_in_names)
{
    static const char *const cases[][2] = {{"/x/abstract_algebra_test.csv", "abstract_algebra"},
                                           {"law_val.csv", "law"},
                                           {"law_dev.jsonl", "law"},
                                           {"x.y/test.json", "test"},
                                           {"_dev.csv", "_dev"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *s = eval_subject(cases[i][0]);
        ck_assert_str_eq(s, cases[i][1]);
        free(s);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tools/eval_rows");
    TCase *tc = tcase_create("rows");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, csv_without_a_header);
    tcase_add_test(tc, csv_with_a_header);
    tcase_add_test(tc, json_lines);
    tcase_add_loop_test(tc, bad_lines_are_named, 0, N_BAD);
    tcase_add_test(tc, bytes_that_are_no_text_are_refused);
    tcase_add_test(tc, subjects_are_in_names);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)
