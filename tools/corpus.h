/* A text file as a model reads it, for the commands that measure or calibrate on one. */
#ifndef QUOLL_CORPUS_H
#define QUOLL_CORPUS_H

#include "tools/tools.h"

enum { CORPUS_HASH_BYTES = 32 };

struct corpus {
    char *text;
    size_t len;
    bool special;
    int32_t *ids;
    size_t n;
    uint8_t hash[CORPUS_HASH_BYTES]; /* SHA-256 of the file's bytes */
};

/* Reads path ("-": stdin) and encodes it, with BOS where the model uses it; special: text that looks like a
 * control token is one. −1: no such file, empty, not UTF-8 (says at which byte). */
int corpus_read(struct corpus *c, const char *path, const struct tokenizer *t, bool special, char *err,
                size_t errlen);
/* The same with the tokenizer of a model's file; *bos (may be NULL): what a window of the text begins with,
 * −1: nothing. */
int corpus_read_for(struct corpus *c, const char *path, const struct weights *w, int32_t *bos, char *err,
                    size_t errlen);
/* 1: tokenizer t gives the same ids, 0: others, −1: an error. */
int corpus_is_same(const struct corpus *c, const struct tokenizer *t, char *err, size_t errlen);
void corpus_free(struct corpus *c); /* a zeroed one is fine */

void corpus_hash(uint8_t hash[CORPUS_HASH_BYTES], const char *bytes, size_t n);
/* A hash in hexadecimal digits. */
enum { HASH_TEXT_BYTES = 2 * CORPUS_HASH_BYTES + 1 };
const char *hash_text(char text[HASH_TEXT_BYTES], const uint8_t hash[CORPUS_HASH_BYTES]);

#endif
