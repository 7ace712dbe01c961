/* What the tokenizer's tests share: vocabularies, golden lines, small vocabularies made up in the test. */
#ifndef QUOLL_TEST_VOCABS_H
#define QUOLL_TEST_VOCABS_H

#include "tests/test.h"
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdint.h>

/* The golden vocabularies: the twelve of real models, then the small ones that the repository holds. */
extern const char *const vocab_names[];
enum { N_VOCABS = 15, N_BIG_VOCABS = 12 };

/* NULL, and a note that something was skipped, where the file is not there. */
struct tokenizer *vocab_load(const char *name);

/* Calls fn for each line of a golden file; false: there is no such file. */
bool each_line(const char *golden_name, void (*fn)(json_t *line, void *arg), void *arg);
/* The bytes of line[key] or, from hexadecimal, of line[hex_key]; malloc'ed; NULL: neither is there. */
char *line_bytes(const json_t *line, const char *key, const char *hex_key, size_t *len);

int32_t *encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, size_t *n);
bool ids_equal(const int32_t *ids, size_t n, const json_t *expected);
/* Fails the test unless the ids are these, as "1 2 3". */
void check_ids(const struct tokenizer *t, const char *text, unsigned flags, const char *expected);
/* Does text become ids and the ids that text again? */
bool round_trip(const struct tokenizer *t, const char *text, size_t len);

/* A vocabulary written down in a test. */
struct made_vocab {
    struct vocab_spec spec;
    struct vocab_token tokens[2048];
    struct vocab_merge merges[2048];
    char texts[1 << 16];
    size_t n_text;
};
void made_init(struct made_vocab *m, enum vocab_kind kind); /* no tokens, no ids */
int32_t made_token(struct made_vocab *m, const char *text, size_t len, float score, enum token_type type);
void made_merge(struct made_vocab *m, const char *pair);
void made_bytes(struct made_vocab *m); /* tokens 0 … 255 of the next ids: every byte */
struct tokenizer *made_open(struct made_vocab *m);

/* A fixed sequence of random numbers; n > 0: below n. */
uint32_t random_below(uint64_t *state, uint32_t n);

#endif
