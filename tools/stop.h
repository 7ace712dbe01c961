/* Stop strings in a stream of text: what could be the beginning of one is held back until it is known
 * not to be. */
#ifndef QUOLL_STOP_H
#define QUOLL_STOP_H

#include <stdbool.h>
#include <stddef.h>

struct stop_filter {
    const char *const *stops; /* none is empty; lent */
    size_t n_stops;
    char *held; /* ours */
    size_t n_held, cap;
    size_t ready; /* of held: given to the caller by the last call */
    bool stopped;
};

/* Takes text, gives what may be shown now: *out (lent until the next call) of *n bytes. After a stop
 * string came (f->stopped) that is the text before it, and nothing from then on. −1: out of memory. */
int stop_push(struct stop_filter *f, const char *text, size_t len, const char **out, size_t *n);
/* The text has ended: what was held back. */
void stop_flush(struct stop_filter *f, const char **out, size_t *n);
void stop_free(struct stop_filter *f);

#endif
