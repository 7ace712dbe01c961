/* Stop strings in a stream of text. */
#include "tools/stop.h"

#include <stdlib.h>
#include <string.h>

/* What the caller was given is gone. */
static void drop_ready(struct stop_filter *f)
{
    f->n_held -= f->ready;
    if (f->n_held > 0)
        memmove(f->held, f->held + f->ready, f->n_held);
    f->ready = 0;
}

/* The longest end of the held text that begins a stop string. */
static size_t open_end(const struct stop_filter *f)
{
    size_t longest = 0;
    for (size_t i = 0; i < f->n_stops; i++) {
        size_t len = strlen(f->stops[i]);
        for (size_t k = len - 1 < f->n_held ? len - 1 : f->n_held; k > longest; k--)
            if (memcmp(f->held + f->n_held - k, f->stops[i], k) == 0)
                longest = k;
    }
    return longest;
}

int stop_push(struct stop_filter *f, const char *text, size_t len, const char **out, size_t *n)
{
    drop_ready(f);
    *out = "";
    *n = 0;
    if (f->stopped || len == 0)
        return 0;
    if (len > f->cap - f->n_held) {
        size_t cap = 2 * (f->n_held + len);
        char *held = realloc(f->held, cap);
        if (!held)
            return -1;
        f->held = held;
        f->cap = cap;
    }
    memcpy(f->held + f->n_held, text, len);
    f->n_held += len;

    const char *first = NULL;
    for (size_t i = 0; i < f->n_stops; i++) {
        const char *at = memmem(f->held, f->n_held, f->stops[i], strlen(f->stops[i]));
        if (at && (!first || at < first))
            first = at;
    }
    f->stopped = first != NULL;
    if (first)
        f->n_held = (size_t)(first - f->held); /* the rest is not shown */
    f->ready = first ? f->n_held : f->n_held - open_end(f);
    *out = f->held;
    *n = f->ready;
    return 0;
}

void stop_flush(struct stop_filter *f, const char **out, size_t *n)
{
    drop_ready(f);
    *out = f->held ? f->held : "";
    *n = f->ready = f->n_held;
}

void stop_free(struct stop_filter *f)
{
    free(f->held);
    f->held = NULL;
    f->n_held = f->cap = f->ready = 0;
}
