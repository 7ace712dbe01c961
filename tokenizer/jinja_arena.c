/* The interpreter's memory, its limits and the way out on an error. */
#include "tokenizer/jinja.h"

#include "quant/err.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer every allocation is a chunk of its own, so that stepping over one is seen. */
#if defined(__SANITIZE_ADDRESS__)
enum { CHUNK_BYTES = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { CHUNK_BYTES = 0 };
#else
enum { CHUNK_BYTES = 32 << 10 };
#endif
#else
enum { CHUNK_BYTES = 32 << 10 };
#endif

struct arena_chunk {
    struct arena_chunk *older;
    alignas(16) char bytes[];
};

void arena_free(struct arena *a)
{
    while (a->chunks) {
        struct arena_chunk *older = a->chunks->older;
        free(a->chunks);
        a->chunks = older;
    }
    *a = (struct arena){.limit = a->limit};
}

void *jinja_alloc(struct jinja *j, size_t n, size_t size)
{
    struct arena *a = &j->arena;
    if (size && n > (a->limit - a->used) / size)
        jinja_fail(j, "the template needs too much memory");
    size_t bytes = (n * size + 15) & ~(size_t)15;
    if (bytes == 0)
        bytes = 16; /* never NULL */
    if (bytes <= (size_t)(a->end - a->next)) {
        void *p = a->next;
        a->next += bytes;
        return p;
    }
    /* A large piece gets its own chunk and leaves the current one open. */
    bool own = bytes > CHUNK_BYTES / 4;
    size_t chunk = own ? bytes : CHUNK_BYTES;
    size_t cost = sizeof(struct arena_chunk) + chunk;
    struct arena_chunk *c = cost <= a->limit - a->used ? calloc(1, cost) : NULL;
    if (!c)
        jinja_fail(j, "the template needs too much memory");
    a->used += cost;
    c->older = a->chunks;
    a->chunks = c;
    if (!own) {
        a->next = c->bytes + bytes;
        a->end = c->bytes + chunk;
    }
    return c->bytes;
}

void *jinja_grow(struct jinja *j, const void *old, size_t n_old, size_t n_new, size_t size)
{
    void *p = jinja_alloc(j, n_new, size);
    if (n_old)
        memcpy(p, old, n_old * size);
    return p;
}

void jinja_fail(struct jinja *j, const char *fmt, ...)
{
    char message[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    (void)err_set(j->err, j->errlen, "%s:%d: %s", j->name, j->line, message);
    longjmp(j->exit, 1);
}

void jinja_raise(struct jinja *j, const char *message, size_t len)
{
    if (j->errlen > 0) {
        size_t n = len < j->errlen - 1 ? len : j->errlen - 1;
        memcpy(j->err, message, n);
        j->err[n] = '\0';
    }
    longjmp(j->exit, 1);
}

void jinja_step(struct jinja *j, size_t n)
{
    if (n > JINJA_MAX_STEPS || (j->steps += n) > JINJA_MAX_STEPS)
        jinja_fail(j, "the template takes more than %d steps", JINJA_MAX_STEPS);
}

void jinja_enter(struct jinja *j)
{
    if (++j->depth > JINJA_MAX_EVAL_DEPTH)
        jinja_fail(j, "nested too deeply");
}

void jinja_leave(struct jinja *j)
{
    j->depth--;
}
