#include "tools/eval_rows.h"

#include "quant/err.h"
#include "tools/tools.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 64 };

void eval_rows_free(struct eval_rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct eval_row *row = &r->row[i];
        for (int k = 0; k < row->n_choices; k++)
            free(row->choice[k]);
        free(row->choice);
        free(row->question);
        free(row->answer);
        free(row->subject);
    }
    free(r->row);
    free(r->path);
    *r = (struct eval_rows){.n = 0};
}

static bool ends_in(const char *s, const char *end)
{
    size_t len = strlen(s), n = strlen(end);
    return len >= n && strcmp(s + len - n, end) == 0;
}

char *eval_subject(const char *path)
{
    static const char *const endings[] = {".csv", ".jsonl", ".json", "_test", "_val", "_dev"};
    const char *slash = strrchr(path, '/');
    char *s = strdup(slash ? slash + 1 : path);
    for (size_t i = 0; s && i < sizeof endings / sizeof endings[0]; i++)
        if (ends_in(s, endings[i]) && strlen(s) > strlen(endings[i]))
            s[strlen(s) - strlen(endings[i])] = '\0';
    return s;
}

/* ---- Rows ----------------------------------------------------------------------------------------- */

static struct eval_row *add_row(struct eval_rows *r, int line)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct eval_row *grown = realloc(r->row, cap * sizeof *grown);
        if (!grown)
            return NULL;
        r->row = grown;
        r->cap = cap;
    }
    struct eval_row *row = &r->row[r->n++];
    *row = (struct eval_row){.line = line, .choice = calloc(EVAL_MAX_CHOICES, sizeof *row->choice)};
    return row->choice ? row : NULL;
}

static int add_choice(struct eval_row *row, const char *text)
{
    if (row->n_choices == EVAL_MAX_CHOICES || !(row->choice[row->n_choices] = strdup(text)))
        return -1;
    row->n_choices++;
    return 0;
}

#define LINE_FAULT(line, ...) line_fault(r, line, err, errlen, __VA_ARGS__)
__attribute__((format(printf, 5, 6))) static int line_fault(const struct eval_rows *r, int line, char *err,
                                                            size_t errlen, const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return err_set(err, errlen, "%s: line %d: %s", r->path, line, why);
}

/* A choice by its letter; −1: none. */
static int by_letter(const struct eval_row *row, const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    int i = toupper((unsigned char)*s) - 'A';
    if (*s)
        s++;
    while (isspace((unsigned char)*s))
        s++;
    return *s == '\0' && i >= 0 && i < row->n_choices ? i : -1;
}

/* ---- CSV (RFC 4180) -------------------------------------------------------------------------------- */

struct csv {
    char *at; /* in the text, which the fields are cut out of */
    int line; /* of at */
    char *field[MAX_FIELDS];
    int n;
    int begin; /* line where the record begins */
};

/* One field, unquoted in place; *more: another one follows. −1: a quote is never closed. */
static int csv_field(struct csv *c, bool *more)
{
    char *from = c->at, *to = c->at;
    bool quoted = *from == '"';
    if (quoted)
        from++;
    for (;; from++) {
        if (quoted && *from == '"') {
            if (from[1] != '"') { /* closed: up to the separator nothing else counts */
                quoted = false;
                continue;
            }
            from++;
        } else if (*from == '\0' || (!quoted && (*from == ',' || *from == '\n'))) {
            break;
        } else if (!quoted && *from == '\r' && from[1] == '\n') {
            continue;
        }
        c->line += *from == '\n';
        *to++ = *from;
    }
    if (quoted)
        return -1;
    const char end = *from;
    *more = end == ',';
    c->line += end == '\n';
    c->at = end ? from + 1 : from;
    *to = '\0';
    return 0;
}

/* 1: a record, 0: the end, −1: a fault. Empty lines are passed over. */
static int csv_next(struct csv *c, const struct eval_rows *r, char *err, size_t errlen)
{
    while (*c->at == '\n' || (*c->at == '\r' && c->at[1] == '\n')) {
        c->line += *c->at == '\n';
        c->at++;
    }
    if (*c->at == '\0')
        return 0;
    c->begin = c->line;
    c->n = 0;
    for (bool more = true; more;) {
        if (c->n == MAX_FIELDS)
            return LINE_FAULT(c->begin, "more than %d fields", MAX_FIELDS);
        c->field[c->n++] = c->at;
        if (csv_field(c, &more))
            return LINE_FAULT(c->begin, "a quote is never closed");
    }
    return 1;
}

/* Which column is what. */
struct columns {
    int n; /* of all */
    int question, subject, answer;
    int choice[EVAL_MAX_CHOICES], n_choices;
};

/* Fills c by a header's names; false: it is none. */
static bool read_columns(struct columns *c, const struct csv *header)
{
    *c = (struct columns){.n = header->n, .question = -1, .subject = -1, .answer = -1};
    for (int i = 0; i < header->n; i++) {
        const char *name = header->field[i];
        if (strcmp(name, "question") == 0)
            c->question = i;
        else if (strcmp(name, "subject") == 0)
            c->subject = i;
        else if (strcmp(name, "answer") == 0)
            c->answer = i;
        else if (c->n_choices < EVAL_MAX_CHOICES && name[0] == 'A' + c->n_choices && !name[1])
            c->choice[c->n_choices++] = i;
    }
    return c->question >= 0 && c->n_choices > 0;
}

static int add_record(struct eval_rows *r, const struct columns *k, const struct csv *c, char *err,
                      size_t errlen)
{
    if (c->n != k->n)
        return LINE_FAULT(c->begin, "%d fields, not %d", c->n, k->n);
    struct eval_row *row = add_row(r, c->begin);
    bool failed = !row || !(row->question = strdup(c->field[k->question]));
    for (int i = 0; !failed && i < k->n_choices; i++)
        failed = add_choice(row, c->field[k->choice[i]]) != 0;
    if (!failed)
        row->subject = k->subject >= 0 ? strdup(c->field[k->subject]) : eval_subject(r->path);
    if (failed || !row->subject)
        return err_set(err, errlen, "out of memory");
    row->right = by_letter(row, c->field[k->answer]);
    return row->right < 0
               ? LINE_FAULT(c->begin, "the answer '%.32s' is no letter of a choice", c->field[k->answer])
               : 0;
}

static int read_csv(struct eval_rows *r, char *text, char *err, size_t errlen)
{
    struct csv c = {.at = text, .line = 1};
    struct columns k;
    int rc = csv_next(&c, r, err, errlen);
    if (rc <= 0)
        return rc;
    if (read_columns(&k, &c)) {
        if (k.answer < 0)
            return err_set(err, errlen, "%s: its header has no column 'answer'", r->path);
        r->is_chinese = strcmp(c.field[0], "id") == 0;
        rc = csv_next(&c, r, err, errlen);
    } else {
        if (c.n < 4 || c.n > 2 + EVAL_MAX_CHOICES)
            return LINE_FAULT(c.begin, "%d fields; a question, two choices or more and an answer are needed",
                              c.n);
        k = (struct columns){.n = c.n, .subject = -1, .answer = c.n - 1, .n_choices = c.n - 2};
        for (int i = 0; i < k.n_choices; i++)
            k.choice[i] = i + 1;
    }
    for (; rc > 0; rc = csv_next(&c, r, err, errlen))
        if (add_record(r, &k, &c, err, errlen))
            return -1;
    return rc;
}

/* ---- JSON lines ------------------------------------------------------------------------------------- */

static json_t *member(const json_t *o, const char *name, const char *other)
{
    json_t *v = json_object_get(o, name);
    return v ? v : json_object_get(o, other);
}

/* The right one of the row's choices; labels: their names, NULL: letters. −1: none. */
static int find_right(const struct eval_row *row, const json_t *answer, const json_t *labels)
{
    if (json_is_integer(answer)) {
        json_int_t i = json_integer_value(answer);
        return i >= 0 && i < row->n_choices ? (int)i : -1;
    }
    const char *s = json_string_value(answer);
    if (!s)
        return -1;
    for (int i = 0; i < row->n_choices; i++) {
        const char *label = json_string_value(json_array_get(labels, (size_t)i));
        if (label ? strcmp(label, s) == 0 : strcmp(row->choice[i], s) == 0)
            return i;
    }
    int64_t index;
    int letter = by_letter(row, s);
    if (letter < 0 && isdigit((unsigned char)*s) && strlen(s) < 4) {
        index = strtol(s, NULL, 10);
        letter = index < row->n_choices ? (int)index : -1;
    }
    return letter;
}

static int add_object(struct eval_rows *r, const json_t *o, int line, char *err, size_t errlen)
{
    const char *question = json_string_value(member(o, "question", "ctx"));
    const json_t *choices = member(o, "choices", "endings"), *answer = member(o, "answer", "label");
    const json_t *labels = json_object_get(choices, "label");
    const char *subject = json_string_value(member(o, "subject", "category"));
    if (!question)
        return LINE_FAULT(line, "no text 'question'");
    if (!answer)
        return LINE_FAULT(line, "no 'answer'");
    if (json_is_object(choices))
        choices = json_object_get(choices, "text");
    struct eval_row *row = add_row(r, line);
    if (!row || !(row->question = strdup(question)) ||
        !(row->subject = subject ? strdup(subject) : eval_subject(r->path)))
        return err_set(err, errlen, "out of memory");
    if (!choices) {
        row->answer =
            json_is_string(answer) ? strdup(json_string_value(answer)) : json_dumps(answer, JSON_ENCODE_ANY);
        return row->answer ? 0 : LINE_FAULT(line, "'answer' is neither text nor a number");
    }
    size_t i;
    json_t *v;
    if (!json_is_array(choices) || json_array_size(choices) < 2 ||
        json_array_size(choices) > EVAL_MAX_CHOICES)
        return LINE_FAULT(line, "'choices' is no array of 2 … %d texts", EVAL_MAX_CHOICES);
    json_array_foreach(choices, i, v)
    {
        if (!json_is_string(v))
            return LINE_FAULT(line, "choice %zu is no text", i);
        if (add_choice(row, json_string_value(v)))
            return err_set(err, errlen, "out of memory");
    }
    row->right = find_right(row, answer, labels);
    return row->right < 0 ? LINE_FAULT(line, "'answer' is none of the choices") : 0;
}

static int read_json_lines(struct eval_rows *r, char *text, char *err, size_t errlen)
{
    int line = 0;
    for (char *at = text, *end; *at; at = end) {
        end = at + strcspn(at, "\n");
        if (*end)
            *end++ = '\0';
        line++;
        if (at[strspn(at, " \t\r")] == '\0')
            continue;
        json_error_t why;
        json_t *o = json_loads(at, 0, &why);
        if (!json_is_object(o)) {
            json_decref(o);
            return LINE_FAULT(line, "%s", o ? "no JSON object" : why.text);
        }
        int rc = add_object(r, o, line, err, errlen);
        json_decref(o);
        if (rc)
            return rc;
    }
    return 0;
}

int eval_rows_read(struct eval_rows *r, const char *path, char *err, size_t errlen)
{
    char *text;
    size_t len;
    *r = (struct eval_rows){.path = strdup(path)};
    if (!r->path)
        return err_set(err, errlen, "out of memory");
    int rc = read_file(path, &text, &len, err, errlen);
    if (rc == 0) {
        char *at = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text; /* byte order mark */
        if (strlen(text) != len)
            rc = err_set(err, errlen, "%s: a NUL byte at %zu: no text", path, strlen(text));
        else
            rc = ends_in(path, ".csv") ? read_csv(r, at, err, errlen) : read_json_lines(r, at, err, errlen);
        free(text);
    }
    if (rc == 0 && r->n == 0)
        rc = err_set(err, errlen, "%s: no questions", path);
    if (rc)
        eval_rows_free(r);
    return rc;
}
