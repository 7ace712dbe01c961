/* Hyper-parameters out of metadata, each checked for type and range. Private to this folder. */
#ifndef QUOLL_KEYS_H
#define QUOLL_KEYS_H

#include "weights/weights.h"

#include <math.h>

/* Bounds far above any model; products of any two fit 64 bits with room to spare. */
enum {
    MAX_HEADS = 1 << 14,
    MAX_HEAD_DIM = 1 << 14,
    MAX_WIDTH = 1 << 22, /* dim, ffn_dim, n_heads · head_dim */
    MAX_VOCAB = 1 << 26,
    MAX_CONTEXT = 1 << 30,
    MAX_EXPERTS = 4096,
    MAX_VIRTUAL = 1 << 16,
};

/* Where the keys are and where messages go. */
struct keys {
    const struct weights *w;
    const char *prefix; /* "llama", "config": keys are "<prefix>.<name>" */
    char *err;
    size_t errlen;
};

enum { KEY_MAX = 128 };

/* The value, NULL: none. key gets its full name. */
const struct meta *keys_find(const struct keys *k, const char *name, char key[KEY_MAX]);
int keys_missing(const struct keys *k, const char *name);
/* "FILE: key 'llama.x': " and the rest; −1. */
int keys_fault(const struct keys *k, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A whole number in lo … hi. Where the key is an array (one value per layer), all must be equal: models
 * whose layers differ in shape are not supported. Absent: dflt, or an error when dflt is KEYS_REQUIRED. */
enum { KEYS_REQUIRED = INT32_MIN };
int keys_int(const struct keys *k, const char *name, int64_t lo, int64_t hi, int64_t dflt, int *out);
/* A number in lo … hi (NaN is not). Absent: dflt, or an error when dflt is NaN. */
int keys_float(const struct keys *k, const char *name, double lo, double hi, double dflt, double *out);
/* true or false, or a number that is 0 or 1. */
int keys_bool(const struct keys *k, const char *name, bool dflt, bool *out);
/* A string of the file; out->s NULL: absent. */
int keys_string(const struct keys *k, const char *name, struct wstr *out);
/* Is the value this string? Absent or another type: no. */
bool keys_is(const struct keys *k, const char *name, const char *value);

/* A string of the file made fit to print. */
enum { SHOWN_MAX = 64 };
const char *keys_shown(struct wstr s, char shown[SHOWN_MAX]);

#endif
