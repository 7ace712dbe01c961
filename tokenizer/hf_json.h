/* What the readers of tokenizer.json share. */
#ifndef QUOLL_TOKENIZER_HF_JSON_H
#define QUOLL_TOKENIZER_HF_JSON_H

#include "tokenizer/internal.h"

#include <jansson.h>

enum { HF_MAX_STEPS = 256 };

struct hf_steps {
    struct vocab_step v[HF_MAX_STEPS];
    size_t n;
    void *owned[HF_MAX_STEPS]; /* decoded character maps */
    size_t n_owned;
};

struct hf_reader {
    const char *name; /* of the file */
    struct vocab_spec spec;
    struct vocab_token *tokens;
    struct vocab_merge *merges;
    struct hf_steps normalizer, pretokenizer;
    json_t *model_vocab; /* BPE: text → id */
    int32_t *prefix, *suffix;
    char *err;
    size_t errlen;
};

#define HF_FAULT(r, ...) err_set((r)->err, (r)->errlen, __VA_ARGS__)

/* hf_steps.c: json's "normalizer", "pre_tokenizer" and "decoder" into r. Texts stay json's. */
int hf_read_steps(struct hf_reader *r, const json_t *json);
void hf_free_steps(struct hf_steps *s);

#endif
