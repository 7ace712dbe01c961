/* Chat templates against what transformers renders from them (golden/templates). */
#include "tests/test.h"

#include "tokenizer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tm now = {
    .tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 9, .tm_min = 30, .tm_wday = 5, .tm_yday = 207};

static char *read_all(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    char *text = NULL;
    size_t cap = 0;
    *len = 0;
    do {
        cap = 2 * cap + 4096;
        text = realloc(text, cap);
        ck_assert_ptr_nonnull(text);
        *len += fread(text + *len, 1, cap - 1 - *len, f);
    } while (*len == cap - 1);
    text[*len] = '\0';
    (void)fclose(f);
    return text;
}

static struct chat_template *open_template(const char *name)
{
    char file[256], err[256];
    size_t len;
    (void)snprintf(file, sizeof file, "templates/jinja/%s.jinja", name);
    const char *path = test_golden(file);
    ck_assert_msg(path != NULL, "%s", file);
    char *source = read_all(path, &len);
    struct chat_template *t;
    ck_assert_msg(chat_template_new(&t, name, source, len, err, sizeof err) == 0, "%s", err);
    free(source);
    return t;
}

static json_t *conversation(json_t *all, const char *id)
{
    size_t i;
    json_t *c;
    json_array_foreach(all, i, c) if (strcmp(json_string_value(json_object_get(c, "id")), id) == 0) return c;
    ck_abort_msg("no conversation '%s'", id);
    return NULL;
}

/* The variables of a case, as apply_chat_template would hand them to the template. */
static json_t *case_vars(json_t *expected, json_t *conv)
{
    json_t *vars = json_object(), *extra = json_object_get(expected, "extra_kwargs");
    json_object_set_new(vars, "tools", json_null());
    json_object_set_new(vars, "documents", json_null());
    json_object_set(vars, "messages", json_object_get(conv, "messages"));
    json_object_update(vars, extra ? extra : json_object_get(conv, "kwargs"));
    static const char *const given[] = {"add_generation_prompt", "bos_token", "eos_token"};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++)
        if (json_object_get(expected, given[i]))
            json_object_set(vars, given[i], json_object_get(expected, given[i]));
    return vars;
}

/* Is what the template gave what transformers gave? Says what differs. */
static bool check_case(const struct chat_template *t, json_t *expected, json_t *convs)
{
    const char *id = json_string_value(json_object_get(expected, "conversation_id"));
    const char *name = json_string_value(json_object_get(expected, "template"));
    json_t *want = json_object_get(expected, "expected"), *error = json_object_get(expected, "error");
    json_t *kind = json_object_get(expected, "error_kind");
    json_t *vars = case_vars(expected, conversation(convs, id));
    char *text, err[1024] = "";
    size_t len;
    int rc = chat_template_render(t, vars, &now, &text, &len, err, sizeof err);
    bool ok;
    if (want)
        ok = rc == 0 && len == json_string_length(want) && memcmp(text, json_string_value(want), len) == 0;
    else if (strcmp(json_string_value(kind), "raise_exception") == 0)
        ok = rc == -1 && strcmp(err, json_string_value(error)) == 0;
    else
        ok = rc == -1 && strncmp(err, name, strlen(name)) == 0;
    if (!ok)
        (void)fprintf(stderr, "%s, %s:\n  got:    %s\n  wanted: %s\n", name, id, rc == 0 ? text : err,
                      json_string_value(want ? want : error));
    free(text);
    json_decref(vars);
    return ok;
}

START_TEST(renders_as_transformers_does)
{
    const char *path = test_golden("templates/expected.jsonl");
    if (!path) {
        test_skip("templates", "no golden/templates");
        return;
    }
    size_t len, n_cases = 0, n_wrong = 0;
    char *lines = read_all(path, &len), *at = lines, name[128] = "";
    json_t *convs = json_load_file(test_golden("templates/conversations.json"), 0, NULL);
    ck_assert_ptr_nonnull(convs);
    struct chat_template *t = NULL;
    for (char *line; (line = strsep(&at, "\n")) && *line;) {
        json_t *expected = json_loads(line, JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(expected);
        const char *wants = json_string_value(json_object_get(expected, "template"));
        if (strcmp(name, wants) != 0) {
            chat_template_free(t);
            t = open_template(wants);
            (void)snprintf(name, sizeof name, "%s", wants);
        }
        n_wrong += !check_case(t, expected, convs);
        n_cases++;
        json_decref(expected);
    }
    chat_template_free(t);
    json_decref(convs);
    free(lines);
    ck_assert_uint_gt(n_cases, 0);
    ck_assert_msg(n_wrong == 0, "%zu of %zu renderings differ", n_wrong, n_cases);
}
END_TEST

static Suite *template_suite(void)
{
    Suite *s = suite_create("template");
    TCase *tc = tcase_create("golden");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, renders_as_transformers_does);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(template_suite)
