/* What can be changed while the model is loaded: the sampling options that are one number each, under
 * their names on the command line, and the length of an answer. */
#include "tools/chat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    "predict",
    "thinking",
    "seed",
    "temp",
    "top-k",
    "top-p",
    "min-p",
    "typical",
    "tfs",
    "top-n-sigma",
    "xtc-probability",
    "xtc-threshold",
    "repeat-penalty",
    "repeat-last-n",
    "presence-penalty",
    "frequency-penalty",
    "dry-multiplier",
    "dry-base",
    "dry-allowed-length",
    "dry-penalty-last-n",
    "mirostat",
    "mirostat-tau",
    "mirostat-eta",
};
enum { N_NAMES = sizeof names / sizeof names[0] };

/* The row of the options with this name, filling s; rows is the caller's room for it. */
static const struct option_row *row_of(struct settings *s, const char *name, struct option_row *rows)
{
    size_t n = run_option_rows(&s->run, rows);
    rows[n++] = (struct option_row)OPTION_NUMBER_ROW("predict", 'n', &s->n_predict, -1, INT32_MAX, "N", NULL);
    rows[n++] = (struct option_row)OPTION_NUMBER_ROW("thinking", 0, &s->thinking, -1, 1, "N", NULL);
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

/* A name as people type it ("top_k", "n", "temperature") → the one in names; NULL: none. */
static const char *name_of(const char *typed)
{
    static const char *const also[][2] = {{"n", "predict"},
                                          {"enable-thinking", "thinking"},
                                          {"n-predict", "predict"},
                                          {"max-new-tokens", "predict"},
                                          {"temperature", "temp"}};
    char name[32];
    size_t len = strlen(typed);
    if (len >= sizeof name)
        return NULL;
    for (size_t i = 0; i <= len; i++)
        name[i] = (char)(typed[i] == '_' ? '-' : typed[i]);
    for (size_t i = 0; i < sizeof also / sizeof also[0]; i++)
        if (strcmp(name, also[i][0]) == 0)
            return also[i][1];
    for (size_t i = 0; i < N_NAMES; i++)
        if (strcmp(name, names[i]) == 0)
            return names[i];
    return NULL;
}

int settings_set(struct settings *s, const char *typed, const char *value)
{
    struct option_row rows[MAX_OPTION_ROWS + 2];
    const char *name = name_of(typed);
    if (!name)
        return usage_error("no setting '%s'; /set alone lists them", typed);
    return option_set(row_of(s, name, rows), name, value);
}

/* Whole numbers in *i (true), others in *d. */
static bool value_of(struct settings *s, const char *name, int64_t *i, double *d)
{
    struct option_row rows[MAX_OPTION_ROWS + 2];
    if (strcmp(name, "seed") == 0) { /* INT64_MAX is the largest that --seed takes */
        *i = (int64_t)(s->run.sampler.seed & INT64_MAX);
        return true;
    }
    const struct option_row *row = row_of(s, name, rows);
    if (row->kind != OPTION_FLOAT) { /* OPTION_INT, and mirostat's OPTION_CALL, fill an int */
        *i = *(const int *)row->to;
        return true;
    }
    /* the shortest number that is this float: 0.8, not 0.800000012 */
    float f = *(const float *)row->to;
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if (strtof(text, NULL) == f)
            break;
    }
    *d = strtod(text, NULL);
    return false;
}

void settings_print(const struct settings *s, FILE *f)
{
    struct settings copy = *s;
    for (size_t n = 0; n < N_NAMES; n++) {
        int64_t i = 0;
        double d = 0;
        if (value_of(&copy, names[n], &i, &d))
            fprintf(f, "  %-20s %" PRId64 "\n", names[n], i);
        else
            fprintf(f, "  %-20s %.9g\n", names[n], d);
    }
}

json_t *settings_to_json(const struct settings *s)
{
    struct settings copy = *s;
    json_t *object = json_object();
    for (size_t n = 0; object && n < N_NAMES; n++) {
        int64_t i = 0;
        double d = 0;
        bool whole = value_of(&copy, names[n], &i, &d);
        if (json_object_set_new(object, names[n], whole ? json_integer(i) : json_real(d)) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

int settings_from_json(struct settings *s, json_t *object)
{
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        char text[40];
        if (json_is_integer(value))
            snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        else if (json_is_real(value))
            snprintf(text, sizeof text, "%.17g", json_real_value(value));
        else {
            usage_error("setting '%.40s': not a number", name);
            return -1;
        }
        if (settings_set(s, name, text) != 0)
            return -1;
    }
    return 0;
}
