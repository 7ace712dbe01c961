/* Chat templates: the border between the interpreter and the rest. */
#include "tokenizer/template.h"

#include "quant/err.h"
#include "tokenizer/jinja_tree.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

/* Errors leave by longjmp, to these two only. */
static int parse(struct jinja *j, const char *source, size_t len, struct chat_template *t)
{
    if (setjmp(j->exit))
        return -1;
    jinja_parse(j, source, len, t);
    return 0;
}

static void fill_context(struct jinja *j, json_t *vars);

static int render(struct jinja *j, json_t *vars)
{
    if (setjmp(j->exit))
        return -1;
    fill_context(j, vars);
    jinja_run(j);
    return 0;
}

/* Numbers are read and written with a point, and dates in English, whatever the user's language. */
struct c_locale {
    locale_t c, before;
};

static bool locale_enter(struct c_locale *l)
{
    l->c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (l->c)
        l->before = uselocale(l->c);
    return l->c != (locale_t)0;
}

static void locale_leave(const struct c_locale *l)
{
    (void)uselocale(l->before);
    freelocale(l->c);
}

static struct jinja *jinja_new(const char *name, char *err, size_t errlen)
{
    struct jinja *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->name = name;
    j->line = 1;
    j->err = err;
    j->errlen = errlen;
    j->arena.limit = JINJA_MAX_MEMORY;
    return j;
}

int chat_template_new(struct chat_template **out, const char *name, const char *source, size_t len, char *err,
                      size_t errlen)
{
    *out = NULL;
    if (len > JINJA_MAX_SOURCE)
        return err_set(err, errlen, "%s: a template of %zu bytes: at most %d are taken", name, len,
                       JINJA_MAX_SOURCE);
    struct chat_template *t = calloc(1, sizeof *t);
    if (t)
        t->name = strdup(name);
    struct jinja *j = t && t->name ? jinja_new(t->name, err, errlen) : NULL;
    struct c_locale locale;
    int rc = -1;
    if (j && locale_enter(&locale)) {
        rc = parse(j, source, len, t);
        t->arena = j->arena;
        locale_leave(&locale);
    } else {
        (void)err_set(err, errlen, "%s: out of memory", name);
    }
    free(j);
    if (rc == 0)
        *out = t;
    else
        chat_template_free(t);
    return rc;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    arena_free(&t->arena);
    free(t->name);
    free(t);
}

/* ---- variables ---- */

static const struct str *json_text(struct jinja *j, const char *p, size_t len)
{
    if (jinja_utf8_valid(p, len) != len)
        jinja_fail(j, "a variable holds text that is not UTF-8");
    return jinja_str(j, p, len);
}

static struct value from_json(struct jinja *j, json_t *json)
{
    struct value v = v_none();
    jinja_enter(j);
    switch (json_typeof(json)) {
    case JSON_NULL:
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = v_bool(json_is_true(json));
        break;
    case JSON_INTEGER:
        v = v_int(json_integer_value(json));
        break;
    case JSON_REAL:
        v = v_float(json_real_value(json));
        break;
    case JSON_STRING:
        v = v_str(json_text(j, json_string_value(json), json_string_length(json)));
        break;
    case JSON_ARRAY: {
        struct list *l = jinja_list_new(j, json_array_size(json));
        for (size_t i = 0; i < l->n; i++)
            l->v[i] = from_json(j, json_array_get(json, i));
        v = v_list(l);
        break;
    }
    case JSON_OBJECT: {
        const char *key;
        json_t *item;
        v = v_dict(jinja_dict_new(j));
        json_object_foreach(json, key, item)
        {
            struct value k = v_str(json_text(j, key, strlen(key)));
            jinja_dict_set(j, v.d, k, from_json(j, item));
        }
        break;
    }
    }
    jinja_leave(j);
    return v;
}

/* The variables and functions of the names that the template has. */
static void fill_context(struct jinja *j, json_t *vars)
{
    const struct chat_template *t = j->t;
    j->context = jinja_alloc(j, t->n_symbols, sizeof *j->context);
    for (size_t i = 0; i < t->n_symbols; i++) {
        const struct str *name = t->symbols[i];
        char *key = jinja_alloc(j, name->len + 1, 1);
        memcpy(key, name->p, name->len);
        json_t *given = json_object_get(vars, key);
        const struct builtin *row = jinja_global_find(name->p, name->len);
        if (given) {
            j->context[i] = from_json(j, given);
        } else if (row) {
            struct function *fn = jinja_alloc(j, 1, sizeof *fn);
            *fn = (struct function){.row = row};
            j->context[i] = (struct value){.kind = V_FUNCTION, .fn = fn};
        }
    }
}

int chat_template_render(const struct chat_template *t, json_t *vars, const struct tm *now, char **text,
                         size_t *len, char *err, size_t errlen)
{
    *text = NULL;
    *len = 0;
    struct jinja *j = jinja_new(t->name, err, errlen);
    struct text out = {.limit = JINJA_MAX_OUTPUT};
    struct c_locale locale;
    if (!j || !locale_enter(&locale)) {
        free(j);
        return err_set(err, errlen, "%s: out of memory", t->name);
    }
    j->t = t;
    j->now = now;
    j->out = &out;
    int rc = render(j, vars);
    if (rc == 0 && (*text = malloc(out.len + 1))) {
        if (out.len)
            memcpy(*text, out.p, out.len);
        (*text)[out.len] = '\0';
        *len = out.len;
    } else if (rc == 0) {
        rc = err_set(err, errlen, "%s: out of memory", t->name);
    }
    arena_free(&j->arena);
    locale_leave(&locale);
    free(j);
    return rc;
}
