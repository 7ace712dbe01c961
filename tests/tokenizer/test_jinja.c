/* The template language: what snippets render to (tests/golden/templates/language.jsonl, made by Jinja2
 * itself), messages, limits, and templates that mean harm. */
#include "tests/test.h"

#include "tokenizer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tm now = {
    .tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 9, .tm_min = 30, .tm_wday = 5, .tm_yday = 207};

/* Parses and renders; the text (free it) or NULL with err filled. */
static char *render(const char *source, size_t source_len, json_t *vars, size_t *len, char *err,
                    size_t errlen)
{
    struct chat_template *t;
    char *text = NULL;
    err[0] = '\0';
    if (chat_template_new(&t, "T", source, source_len, err, errlen) != 0) {
        ck_assert_ptr_null(t);
        ck_assert_msg(strncmp(err, "T:", 2) == 0, "%s", err);
        return NULL;
    }
    int rc = chat_template_render(t, vars, &now, &text, len, err, errlen);
    ck_assert_int_eq(rc, text ? 0 : -1);
    ck_assert(text || err[0]);
    chat_template_free(t);
    return text;
}

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

START_TEST(language_is_jinja2s)
{
    size_t len, n = 0, n_wrong = 0, got_len;
    char *lines = read_all(test_golden("templates/language.jsonl"), &len), *at = lines, err[512];
    json_t *vars = NULL;
    for (char *line; (line = strsep(&at, "\n")) && *line; n++) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        ck_assert_ptr_nonnull(row);
        if (!vars)
            vars = json_incref(json_object_get(row, "variables"));
        json_t *source = json_object_get(row, "template"), *want = json_object_get(row, "expected");
        if (source) {
            char *got = render(json_string_value(source), json_string_length(source), vars, &got_len, err,
                               sizeof err);
            bool ok = want ? got && got_len == json_string_length(want) &&
                                 memcmp(got, json_string_value(want), got_len) == 0
                           : !got;
            if (!ok)
                (void)fprintf(stderr, "%s\n  got:    %s\n  wanted: %s\n", json_string_value(source),
                              got ? got : err,
                              json_string_value(want ? want : json_object_get(row, "error")));
            n_wrong += !ok;
            free(got);
        }
        json_decref(row);
    }
    json_decref(vars);
    free(lines);
    ck_assert_uint_gt(n, 200);
    ck_assert_msg(n_wrong == 0, "%zu of %zu snippets differ", n_wrong, n);
}
END_TEST

/* ---- messages: where and what ---- */

static const struct {
    const char *source, *message;
} messages[] = {
    {"{{ raise_exception('No, ' ~ 1 ~ ' \u00e9') }}", "No, 1 é"},
    {"a\n\n{{ x.y }}", "T:3: 'x' is undefined"},
    {"{{ m.y + 'a' }}", "T:1: 'dict object' has no attribute 'y'"},
    {"{{ l[9].x }}", "T:1: list object has no element 9"},
    {"{{ none.x.y }}", "T:1: 'None' has no attribute 'x'"},
    {"{{ l.append(1) }}", "T:1: access to attribute 'append' of 'list' object is unsafe."},
    {"{{ 'a' + 1 }}", "T:1: unsupported operand type(s) for +: 'str' and 'int'"},
    {"{% if m %}\n{% for x in l %}\n{{ x < 'a' }}{% endfor %}{% endif %}",
     "T:3: '<' not supported between instances of 'int' and 'str'"},
    {"\n{{ 'x'|nofilter }}", "T:2: No filter named 'nofilter'."},
    {"{% if true %}\n{{ 'x'|nofilter }}{% endif %}", "T:2: No filter named 'nofilter' found."},
    {"{% if true %}\n", "T:1: Unexpected end of template: 'endif' is missing"},
    {"\n\n{{ (1 }}", "T:3: unexpected '}', expected ')'"},
    {"{% set x 1 %}", "T:1: expected token 'end of statement block', got 'integer'"},
    {"{% include 'x' %}", "T:1: a chat template is one file: 'include' is not supported"},
    {"\xff", "T:1: the template is not UTF-8 at byte 0"},
    {"{{ 9223372036854775807 + 1 }}", "T:1: integer overflow"},
    {"{{ -9223372036854775807 - 2 }}", "T:1: integer overflow"},
    {"{{ (-9223372036854775807 - 1) // -1 }}", "T:1: integer overflow"},
    {"{{ -(-9223372036854775807 - 1) }}", "T:1: integer overflow"},
    {"{{ 3037000500 * 3037000500 }}", "T:1: integer overflow"},
    {"{{ 2 ** 63 }}", "T:1: integer overflow"},
    {"{{ '9223372036854775808'|int }}", "T:1: integer overflow"},
    {"{{ 1e300|int }}", "T:1: integer overflow"},
    {"{{ 9223372036854775808 }}", "T:1: an integer of more than 64 bits"},
};

START_TEST(message_says_where_and_what)
{
    char err[512];
    size_t len;
    json_t *vars = json_pack("{s:[i,i], s:{s:i}}", "l", 1, 2, "m", "a", 1);
    char *text = render(messages[_i].source, strlen(messages[_i].source), vars, &len, err, sizeof err);
    ck_assert_ptr_null(text);
    ck_assert_str_eq(err, messages[_i].message);
    json_decref(vars);
}
END_TEST

START_TEST(long_message_is_cut)
{
    char err[16];
    size_t len;
    static const char source[] = "{{ raise_exception('0123456789' * 10) }}";
    json_t *vars = json_object();
    ck_assert_ptr_null(render(source, strlen(source), vars, &len, err, sizeof err));
    ck_assert_str_eq(err, "012345678901234");
    json_decref(vars);
}
END_TEST

/* ---- limits ---- */

/* A namespace's x, made anew from itself so many times, and then used. */
#define GROW(start, times, step, use)                                                               \
    "{% set ns = namespace(x=" start ") %}{% for i in range(" times ") %}{% set ns.x = " step " %}" \
    "{% endfor %}" use

static const char *const greedy[] = {
    "{{ 'a' * 1000000000 }}",
    "{{ 'a' * 9223372036854775807 }}",
    "{{ [1, 2] * 9223372036854775807 }}",
    "{{ [[]] * 100000000 }}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{{ range(0, 9223372036854775807) }}",
    "{{ range(-9223372036854775807, 9223372036854775807, 2) }}",
    GROW("'aaaaaaaa'", "60", "ns.x ~ ns.x", ""),
    GROW("[1]", "60", "ns.x + ns.x", ""),
    GROW("'aa'", "60", "ns.x|replace('a', 'aaaa')", ""),
    GROW("'aa'", "60", "ns.x.replace('', 'aa')", ""),
    GROW("'aa'", "60", "ns.x.join([ns.x, ns.x])", ""),
    GROW("[]", "100000", "[ns.x]", "{{ ns.x }}"),
    GROW("[]", "9000", "[ns.x]", "{{ ns.x|tojson }}"),
    "{% set ns = namespace(x=(), y=()) %}{% for i in range(9000) %}{% set ns.x = (ns.x,) %}{% set ns.y = "
    "(ns.y,) %}{% endfor %}{{ ns.x == ns.y }}{{ ns.x < ns.y }}{{ {ns.x: 1} }}",
    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    GROW("[0]", "9000", "ns.x|map('abs')", "{{ ns.x|list }}"),
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}",
    "{% macro m() %}{{ m()|upper ~ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m() %}{% call m() %}x{% endcall %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
    "{% set big = 'a' * 10000000 %}{% for i in range(100000) %}{% if 'b' in big %}{% endif %}{% endfor %}",
    "{% set big = 'a' * 1000000 %}{% for i in range(100000) %}{{ big.rfind('b') }}{% endfor %}",
    "{% set big = 'a' * 1000000 %}{{ big.rfind('a' * 1000 ~ 'b' ~ 'a' * 1000) }}",
    "{% set big = 'é' * 1000000 %}{% for i in range(100000) %}{{ big[i] }}{% endfor %}",
    "{% set big = 'a' * 1000000 %}{% for c in big %}{{ big.strip('b' * 1000 ~ 'a') }}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%.1000000000f' % 1 }}",
    "{{ 'a'.center(1000000000) }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a\nb'|indent(1000000000) }}",
    "{{ [1]|batch(1000000000, 'x')|list }}",
    "{{ [1]|slice(1000000000)|list }}",
    "{{ {'a': {'b': 1}}|tojson(indent=1000000000) }}",
    "{{ strftime_now('%1000000000d') }}",
    GROW("'a'", "100000", "ns.x.title().upper() ~ 'aaaaaaaaa'", ""),
};

START_TEST(limits_hold)
{
    char err[512];
    size_t len;
    json_t *vars = json_object();
    char *text = render(greedy[_i], strlen(greedy[_i]), vars, &len, err, sizeof err);
    ck_assert_msg(!text, "no limit stops: %s", greedy[_i]);
    static const char *const limits[] = {"needs too much memory",
                                         "takes more than 10000000 steps",
                                         "too big",
                                         "writes more than 67108864 bytes",
                                         "nested too deeply",
                                         "too long"};
    bool known = false;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        known |= strstr(err, limits[i]) != NULL;
    ck_assert_msg(known, "%s: %s", greedy[_i], err);
    json_decref(vars);
}
END_TEST

/* open × n + middle + close × n */
static char *nest(const char *open, const char *middle, const char *close, size_t n)
{
    size_t a = strlen(open), b = strlen(middle), c = strlen(close);
    char *s = malloc(n * (a + c) + b + 1), *p = s;
    ck_assert_ptr_nonnull(s);
    for (size_t i = 0; i < n; i++, p += a)
        memcpy(p, open, a);
    memcpy(p, middle, b);
    p += b;
    for (size_t i = 0; i < n; i++, p += c)
        memcpy(p, close, c);
    *p = '\0';
    return s;
}

static const struct {
    const char *before, *open, *middle, *close, *after;
} deep[] = {
    {"{{ ", "(", "1", ")", " }}"},
    {"{{ ", "[", "1", "]", " }}"},
    {"{{ ", "{1:", "1", "}", " }}"},
    {"{{ ", "(", "1", ",)", " }}"},
    {"{{ ", "-", "1", "", " }}"},
    {"{{ ", "not ", "1", "", " }}"},
    {"{{ ", "1+", "1", "", " }}"},
    {"{{ ", "1**", "1", "", " }}"},
    {"{{ ", "1 and ", "1", "", " }}"},
    {"{{ ", "1 if 1 else ", "1", "", " }}"},
    {"{{ ", "", "x", ".x", " }}"},
    {"{{ ", "", "x", "[0]", " }}"},
    {"{{ ", "", "x", "()", " }}"},
    {"{{ ", "x(", "x", ")", " }}"},
    {"{{ ", "x[", "x", "]", " }}"},
    {"{{ ", "x[1:", "x", "]", " }}"},
    {"{{ ", "", "x", "|upper", " }}"},
    {"{{ ", "x|default(", "x", ")", " }}"},
    {"{{ ", "x is eq(", "x", ")", " }}"},
    {"{{ ", "x is eq [", "x", "]", " }}"},
    {"{{ '{", "{", "}", "}", "}'.format(1) }}"},
    {"{% set ", "(", "a, b", "), c", " = 1 %}"},
    {"{% for ", "(", "a, b", "), c", " in x %}{% endfor %}"},
    {"", "{% if 1 %}", "x", "{% endif %}", ""},
    {"", "{% for x in [1] %}", "x", "{% endfor %}", ""},
    {"", "{% set x %}", "x", "{% endset %}", ""},
    {"", "{% filter upper %}", "x", "{% endfilter %}", ""},
    {"", "{% macro x() %}", "x", "{% endmacro %}{{ x() }}", ""},
    {"", "{% call x() %}", "x", "{% endcall %}", ""},
    {"", "{% with %}", "x", "{% endwith %}", ""},
    {"", "{% generation %}", "x", "{% endgeneration %}", ""},
};

/* 30 levels work or fail for what they say, 100,000 fail for their depth or size. */
START_TEST(nesting_is_bounded)
{
    char err[512];
    size_t len;
    json_t *vars = json_object();
    for (size_t n = 10; n <= 100000; n *= 10) {
        char *inside = nest(deep[_i].open, deep[_i].middle, deep[_i].close, n);
        size_t size = strlen(inside) + strlen(deep[_i].before) + strlen(deep[_i].after);
        char *source = malloc(size + 1);
        (void)snprintf(source, size + 1, "%s%s%s", deep[_i].before, inside, deep[_i].after);
        char *text = render(source, size, vars, &len, err, sizeof err);
        ck_assert_msg(!text || n < 1000, "%zu levels: %s", n, deep[_i].open);
        free(text);
        free(source);
        free(inside);
    }
    json_decref(vars);
}
END_TEST

START_TEST(many_of_everything_is_fine)
{
    static const struct {
        const char *before, *item, *after;
    } wide[] = {
        {"", "x", ""},
        {"", "{{ 1 }}", ""},
        {"", "{# c #}\n", ""},
        {"{% if 0 %}", "{% elif 0 %}", "{% endif %}"},
        {"{{ [", "1,", "] }}"},
        {"{{ 'a'", "~ 'a'", " }}"},
        {"{{ 'a'", " 'a'", " }}"},
        {"{{ 1", " < 2 > 1", " }}"},
        {"{% set x = '' %}", "{% set x = x + 'abc' %}", "{{ x }}"},
    };
    char err[512];
    size_t len;
    json_t *vars = json_object();
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        char *inside = nest(wide[i].item, wide[i].after, "", 10000);
        size_t size = strlen(inside) + strlen(wide[i].before);
        char *source = malloc(size + 1);
        (void)snprintf(source, size + 1, "%s%s", wide[i].before, inside);
        char *text = render(source, size, vars, &len, err, sizeof err);
        ck_assert_msg(text != NULL, "%s: %s", wide[i].item, err);
        free(text);
        free(source);
        free(inside);
    }
    json_decref(vars);
}
END_TEST

/* A prompt that is put together piece by piece costs linear memory. */
START_TEST(appending_is_linear)
{
    static const char source[] = "{% set ns = namespace(s='') %}{% for i in range(50000) %}"
                                 "{% set ns.s = ns.s + 'x' * 100 + '\\n' %}{% endfor %}{{ ns.s }}";
    char err[512];
    size_t len = 0;
    json_t *vars = json_object();
    char *text = render(source, strlen(source), vars, &len, err, sizeof err);
    ck_assert_msg(text != NULL, "%s", err);
    ck_assert_uint_eq(len, 50000 * 101);
    free(text);
    json_decref(vars);
}
END_TEST

/* Appending to a string must not show in another that shares its beginning. */
START_TEST(appending_shares_nothing_visible)
{
    static const char source[] =
        "{% set a = 'x' ~ 'y' %}{% set b = a ~ '1' %}{% set c = a ~ '2' %}{% set d = b ~ '3' %}"
        "{% set e = b[:2] ~ '4' %}{{ a }} {{ b }} {{ c }} {{ d }} {{ e }}";
    char err[512];
    size_t len = 0;
    json_t *vars = json_object();
    char *text = render(source, strlen(source), vars, &len, err, sizeof err);
    ck_assert_str_eq(text, "xy xy1 xy2 xy13 xy4");
    free(text);
    json_decref(vars);
}
END_TEST

/* ---- variables ---- */

START_TEST(hostile_variables)
{
    char err[512];
    size_t len = 0;
    json_t *vars = json_object(), *inner = json_array();
    for (int i = 0; i < 5000; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, inner);
        inner = outer;
    }
    json_object_set_new(vars, "deep", inner);
    json_object_set_new(vars, "bytes", json_string_nocheck("\xc3\x28"));
    json_object_set_new(vars, "nul", json_stringn("a\0b", 3));
    ck_assert_ptr_null(render("{{ deep }}", 10, vars, &len, err, sizeof err));
    ck_assert_str_eq(err, "T:1: nested too deeply");
    ck_assert_ptr_null(render("{{ bytes }}", 11, vars, &len, err, sizeof err));
    ck_assert_str_eq(err, "T:1: a variable holds text that is not UTF-8");
    char *text = render("{{ nul }}|{{ nul|tojson }}", 26, vars, &len, err, sizeof err);
    ck_assert_uint_eq(len, 14);
    ck_assert_mem_eq(text, "a\0b|\"a\\u0000b\"", 15);
    free(text);
    text =
        render("fine", 4, vars, &len, err, sizeof err); /* what a template does not name is not looked at */
    ck_assert_str_eq(text, "fine");
    free(text);
    json_decref(vars);
}
END_TEST

/* ---- mutations ---- */

static const char *const names[] = {"gguf-smollm2",
                                    "Qwen-Qwen3-0.6B",
                                    "meta-llama-Llama-3.1-8B-Instruct",
                                    "mistralai-Mistral-Nemo-Instruct-2407",
                                    "google-gemma-2-2b-it",
                                    "gguf-phi-3",
                                    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"};
enum { N_NAMES = sizeof names / sizeof names[0] };

static json_t *sample_vars(size_t i)
{
    json_t *convs = json_load_file(test_golden("templates/conversations.json"), 0, NULL);
    ck_assert_ptr_nonnull(convs);
    json_t *conv = json_array_get(convs, i % json_array_size(convs));
    json_t *vars = json_copy(json_object_get(conv, "kwargs"));
    json_object_set(vars, "messages", json_object_get(conv, "messages"));
    json_object_set_new(vars, "bos_token", json_string("<s>"));
    json_object_set_new(vars, "add_generation_prompt", json_true());
    json_decref(convs);
    return vars;
}

static char *template_source(const char *name, size_t *len)
{
    char file[256];
    (void)snprintf(file, sizeof file, "templates/jinja/%s.jinja", name);
    return read_all(test_golden(file), len);
}

START_TEST(cut_anywhere)
{
    char err[512];
    size_t n, len;
    char *source = template_source(names[_i], &n);
    json_t *vars = sample_vars((size_t)_i);
    for (size_t cut = 0; cut < n; cut += 1 + n / 3000) { /* every byte of all but the longest */
        char *copy = malloc(cut + 1);                    /* so that reading past the end is seen */
        memcpy(copy, source, cut);
        free(render(copy, cut, vars, &len, err, sizeof err));
        free(copy);
    }
    json_decref(vars);
    free(source);
}
END_TEST

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Replaces n_old bytes at `at` by text. */
static void splice(char **s, size_t *len, size_t at, size_t n_old, const char *text, size_t n_new)
{
    char *out = malloc(*len - n_old + n_new + 1);
    memcpy(out, *s, at);
    memcpy(out + at, text, n_new);
    memcpy(out + at + n_new, *s + at + n_old, *len - at - n_old);
    *len = *len - n_old + n_new;
    free(*s);
    *s = out;
}

START_TEST(mutated_at_random)
{
    static const char *const bits[] = {"{%",
                                       "%}",
                                       "{{",
                                       "}}",
                                       "{#",
                                       "#}",
                                       "-%}",
                                       "{%-",
                                       "(",
                                       ")",
                                       "[",
                                       "]",
                                       "'",
                                       "\"",
                                       "\\",
                                       "|",
                                       ".",
                                       ",",
                                       "~",
                                       "-1",
                                       "if ",
                                       "endif",
                                       "for x in messages",
                                       "endfor",
                                       "else",
                                       "macro m()",
                                       "set x = ",
                                       "loop",
                                       "[::-1]",
                                       "|tojson",
                                       "|map('upper')|list",
                                       "|sort",
                                       "is not ",
                                       "m()",
                                       "*",
                                       "9223372036854775807",
                                       "\xff",
                                       "\0",
                                       "é"};
    char err[512];
    size_t n, len;
    char *source = template_source(names[_i], &n);
    json_t *vars = sample_vars(3 * (size_t)_i);
    uint32_t seed = 12345u + (uint32_t)_i;
    for (int round = 0; round < 500; round++) {
        size_t m = n;
        char *copy = malloc(n + 1);
        memcpy(copy, source, n);
        for (uint32_t k = 1 + next_random(&seed) % 4; k > 0; k--) {
            size_t at = next_random(&seed) % (m + 1), old = next_random(&seed) % 8;
            const char *bit = bits[next_random(&seed) % (sizeof bits / sizeof bits[0])];
            size_t n_bit = *bit ? strlen(bit) : 1;
            if (next_random(&seed) % 3 == 0)
                n_bit = 0;
            splice(&copy, &m, at, old < m - at ? old : m - at, bit, n_bit);
        }
        free(render(copy, m, vars, &len, err, sizeof err));
        free(copy);
    }
    json_decref(vars);
    free(source);
}
END_TEST

#define LENGTH(array) ((int)(sizeof(array) / sizeof(array)[0]))

static Suite *jinja_suite(void)
{
    Suite *s = suite_create("jinja");
    TCase *tc = tcase_create("language");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, language_is_jinja2s);
    tcase_add_loop_test(tc, message_says_where_and_what, 0, LENGTH(messages));
    tcase_add_test(tc, long_message_is_cut);
    tcase_add_loop_test(tc, limits_hold, 0, LENGTH(greedy));
    tcase_add_loop_test(tc, nesting_is_bounded, 0, LENGTH(deep));
    tcase_add_test(tc, many_of_everything_is_fine);
    tcase_add_test(tc, appending_is_linear);
    tcase_add_test(tc, appending_shares_nothing_visible);
    tcase_add_test(tc, hostile_variables);
    tcase_add_loop_test(tc, cut_anywhere, 0, N_NAMES);
    tcase_add_loop_test(tc, mutated_at_random, 0, N_NAMES);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(jinja_suite)
