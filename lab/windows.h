/* How a text, as token ids, is cut into windows that a model sees one at a time, and which tokens of each
 * count: the definitions of perplexity that people compare by. */
#ifndef QUOLL_WINDOWS_H
#define QUOLL_WINDOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum protocol {
    /* llama.cpp's: windows of n_ctx side by side, what is left over at the end is dropped; the first token of
     * each gives way to BOS where the model uses one; of each window's n_ctx tokens those count that have at
     * least n_ctx / 2 + 1 in front of them. With a stride (--ppl-stride): windows of n_ctx + stride / 2
     * rounded up to a multiple of 256, each stride further on, whose last stride tokens count; no BOS but the
     * text's own.
     */
    PROTOCOL_LLAMA,
    /* That of the code of GPTQ, AWQ, SparseGPT and what compares with them: windows of n_ctx side by side,
     * all their tokens count but the first. */
    PROTOCOL_GPTQ,
    /* Hugging Face's "Perplexity of fixed-length models": windows of n_ctx, each stride further on (0:
     * n_ctx / 2); every token of the text but the first counts once, in the first window that holds it. */
    PROTOCOL_STRIDED,
    N_PROTOCOLS
};
const char *protocol_name(enum protocol p);
int protocol_by_name(const char *name); /* −1: none */

struct windows {
    enum protocol protocol;
    int64_t n_ctx, stride; /* stride 0: none */
    int64_t n_ids;         /* of the text */
    int64_t n;             /* windows */
    int32_t bos;           /* −1: none is put in */
};

struct window {
    int64_t begin; /* in the text */
    int64_t len;
    int64_t first; /* tokens first … len − 1 of the window count, first > 0 */
    bool bos;      /* BOS takes the place of token 0 */
};

/* The windows of a text of n_ids, up to max of them (0: all). −1: the text is too short, a context or
 * stride that leaves nothing to count. */
int windows_plan(struct windows *w, enum protocol p, int64_t n_ctx, int64_t stride, int64_t n_ids,
                 int32_t bos, int64_t max, char *err, size_t errlen);
struct window windows_at(const struct windows *w, int64_t i);
int64_t windows_len(const struct windows *w);      /* of the longest */
int64_t windows_n_scored(const struct windows *w); /* tokens that count, of all */

#endif
