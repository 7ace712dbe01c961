#include "tools/lab.h"

#include "quant/err.h"

#include <stdlib.h>
#include <string.h>

static struct string_list *list_of(struct lab_grid *g, const char *key)
{
    if (strcmp(key, "types") == 0)
        return &g->types;
    if (strcmp(key, "methods") == 0)
        return &g->methods;
    return strcmp(key, "kv") == 0 ? &g->kvs : NULL;
}

static bool holds(const struct string_list *l, const char *item)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->item[i], item) == 0)
            return true;
    return false;
}

int lab_grid_parse(struct lab_grid *g, const char *text, char *err, size_t errlen)
{
    *g = (struct lab_grid){.text = strdup(text)};
    int rc = g->text ? 0 : err_set(err, errlen, "out of memory");
    char *rest = g->text;
    for (char *part; rc == 0 && (part = strsep(&rest, " \t\n;")) != NULL;) {
        if (!*part)
            continue;
        char *items = strchr(part, '=');
        if (items)
            *items++ = 0;
        struct string_list *list = items ? list_of(g, part) : NULL;
        if (!list)
            rc = err_set(err, errlen, "'%s' is none of types=…, methods=…, kv=…", part);
        for (char *item; rc == 0 && (item = strsep(&items, ",")) != NULL;)
            if (!*item)
                rc = err_set(err, errlen, "%s= has an empty item", part);
            else if (!holds(list, item))
                rc = option_append(list, "", item) ? err_set(err, errlen, "out of memory") : 0;
    }
    if (rc == 0 && g->methods.n == 0)
        rc = option_append(&g->methods, "", "rtn") ? err_set(err, errlen, "out of memory") : 0;
    if (rc == 0 && g->kvs.n == 0)
        rc = option_append(&g->kvs, "", "f16") ? err_set(err, errlen, "out of memory") : 0;
    if (rc == 0 && g->types.n == 0 && g->kvs.n == 1)
        rc = err_set(err, errlen, "no types");
    if (rc)
        lab_grid_free(g);
    return rc;
}

void lab_grid_free(struct lab_grid *g)
{
    free(g->types.item);
    free(g->methods.item);
    free(g->kvs.item);
    free(g->text);
    *g = (struct lab_grid){.text = NULL};
}
