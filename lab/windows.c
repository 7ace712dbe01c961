#include "lab/windows.h"

#include "quant/err.h"

#include <inttypes.h>
#include <string.h>

enum {
    MAX_CONTEXT = 1 << 24,
    CONTEXT_STEP = 256, /* llama.cpp's contexts are multiples of it */
};

static const char *const names[N_PROTOCOLS] = {"llama", "gptq", "strided"};

const char *protocol_name(enum protocol p)
{
    return names[p];
}

int protocol_by_name(const char *name)
{
    for (int i = 0; i < N_PROTOCOLS; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

int64_t windows_len(const struct windows *w)
{
    if (w->protocol != PROTOCOL_LLAMA || w->stride == 0)
        return w->n_ctx;
    return (w->n_ctx + w->stride / 2 + CONTEXT_STEP - 1) / CONTEXT_STEP * CONTEXT_STEP;
}

struct window windows_at(const struct windows *w, int64_t i)
{
    const int64_t len = windows_len(w);
    if (w->protocol == PROTOCOL_STRIDED) {
        const int64_t begin = i * w->stride, left = w->n_ids - begin;
        const int64_t seen = len - w->stride; /* of it, in the window before */
        return (struct window){begin, left < len ? left : len, i > 0 && seen > 0 ? seen : 1, false};
    }
    if (w->protocol == PROTOCOL_LLAMA && w->stride > 0)
        return (struct window){i * w->stride, len, len - w->stride, false};
    const bool bos = w->protocol == PROTOCOL_LLAMA && w->bos >= 0;
    return (struct window){i * len, len, w->protocol == PROTOCOL_LLAMA ? len / 2 + 1 : 1, bos};
}

int64_t windows_n_scored(const struct windows *w)
{
    int64_t n = 0;
    for (int64_t i = 0; i < w->n; i++) {
        struct window at = windows_at(w, i);
        n += at.len - at.first;
    }
    return n;
}

/* Windows of `len` tokens, `step` apart, as many as fit; with `rest` also one that is cut short. */
static int64_t count(int64_t n_ids, int64_t len, int64_t step, bool rest)
{
    if (n_ids < len)
        return rest;
    return 1 + (n_ids - len + (rest ? step - 1 : 0)) / step;
}

int windows_plan(struct windows *w, enum protocol p, int64_t n_ctx, int64_t stride, int64_t n_ids,
                 int32_t bos, int64_t max, char *err, size_t errlen)
{
    *w = (struct windows){.protocol = p, .n_ctx = n_ctx, .stride = stride, .n_ids = n_ids, .bos = bos};
    const int64_t smallest = p == PROTOCOL_LLAMA ? 3 : 2;
    if (n_ctx < smallest || n_ctx > MAX_CONTEXT)
        return err_set(err, errlen,
                       "a context of %" PRId64 " tokens, outside %" PRId64 " … %d for perplexity", n_ctx,
                       smallest, MAX_CONTEXT);
    if (p == PROTOCOL_STRIDED && stride == 0)
        w->stride = n_ctx / 2;
    if (p == PROTOCOL_GPTQ && stride != 0)
        return err_set(err, errlen, "protocol gptq has no stride");
    if (w->stride < 0 || w->stride > n_ctx)
        return err_set(err, errlen, "a stride of %" PRId64 ", more than the context of %" PRId64, w->stride,
                       n_ctx);
    const int64_t len = windows_len(w);
    int64_t needed = n_ctx; /* tokens of the text */
    switch (p) {
    case PROTOCOL_LLAMA:
        needed = w->stride ? len + 1 : 2 * n_ctx;
        w->n = w->stride ? count(n_ids - 1, len, w->stride, false) : n_ids / n_ctx;
        break;
    case PROTOCOL_GPTQ:
        w->n = n_ids / n_ctx;
        break;
    case PROTOCOL_STRIDED:
        needed = 2;
        w->n = count(n_ids, len, w->stride, true);
        break;
    case N_PROTOCOLS:
        return err_set(err, errlen, "no such protocol");
    }
    if (n_ids < needed)
        return err_set(err, errlen,
                       "the text is too short: %" PRId64 " tokens, protocol %s needs %" PRId64
                       " with a context of %" PRId64 " (-c)",
                       n_ids, names[p], needed, n_ctx);
    if (max > 0 && w->n > max)
        w->n = max;
    return 0;
}
