/* tokenizer/: text to ids and back. It knows vocabularies, not files: whoever opens a file fills a
 * struct vocab_spec (tools/vocab.c does it from a GGUF's metadata). */
#ifndef QUOLL_TOKENIZER_H
#define QUOLL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vocab_kind {
    VOCAB_BPE, /* byte-level BPE: merges by rank, pieces in GPT-2's byte alphabet */
    VOCAB_SPM, /* SentencePiece BPE: merges by score, ▁ for space, byte fallback */
};

enum token_type { /* GGUF's numbers */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN = 2,
                  TOKEN_CONTROL = 3,
                  TOKEN_USER_DEFINED = 4,
                  TOKEN_UNUSED = 5,
                  TOKEN_BYTE = 6,
};

struct vocab_token {
    const char *text; /* not NUL-terminated; lent during tokenizer_new only */
    size_t len;
    float score;
    enum token_type type;
};

struct vocab_merge { /* "left right", rank = index */
    const char *text;
    size_t len;
};

struct vocab_spec {
    const char *name; /* of the file, for error messages */
    enum vocab_kind kind;
    const char *pre; /* BPE: tokenizer.ggml.pre ("smollm", "qwen2", "llama-bpe", …), NULL: absent */
    const struct vocab_token *tokens;
    size_t n_tokens;
    const struct vocab_merge *merges;
    size_t n_merges;
    int32_t bos, eos, eot, eom, unk; /* −1: none */
    int add_bos, add_eos;            /* 1, 0, −1: the file does not say, the kind of vocabulary decides */
    bool add_space_prefix, remove_extra_spaces; /* SPM */
    bool strip_after_special;                   /* Phi-3: white space behind its control tokens goes away */
};

struct tokenizer;

int tokenizer_new(struct tokenizer **out, const struct vocab_spec *spec, char *err, size_t errlen);
void tokenizer_free(struct tokenizer *t);
/* What its user should know (an unknown way of splitting words), one line; NULL: nothing. */
const char *tokenizer_warning(const struct tokenizer *t);

enum {
    ENCODE_SPECIAL = 1, /* text that looks like a control token becomes that token */
    ENCODE_BOS = 2,     /* add BOS (EOS) where the model uses it */
};

/* Encodes text of len bytes (any bytes, NUL too). *ids is malloc'ed (free it) and *n its length.
 * Invalid UTF-8 becomes byte tokens (SPM) or the bytes themselves (byte-level BPE; U+FFFD for a byte that
 * has no token). Text of the families whose published tokenizer does so (Qwen, …) is brought to normal form
 * C. Characters without a token: the unknown token, or nothing. Safe to call from several threads. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                     size_t *n, char *err, size_t errlen);

int32_t tokenizer_n_tokens(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* −1: none */
int32_t tokenizer_eos(const struct tokenizer *t);
bool tokenizer_adds_bos(const struct tokenizer *t);
/* Does this token end a turn: EOS, EOT, or a control token known to (<|im_end|>, <|eot_id|>, …)? */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);
/* Exact piece text → id, −1: none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t len);

/* The bytes of one token as they appear in running text (▁ is a space, byte tokens one byte,
 * control tokens their text when with_control, else nothing). Lent; *len may be 0. Ids out of range
 * give nothing. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, bool with_control, size_t *len);

/* ids → bytes; *text is malloc'ed, NUL-terminated past *len. A SentencePiece vocabulary that adds a
 * space prefix drops one leading space. Control tokens give their text when with_control. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool with_control, char **text,
                     size_t *len);

/* Streaming: holds back the bytes of an incomplete UTF-8 character. */
struct detok;
struct detok *detok_new(const struct tokenizer *t, bool with_control);
void detok_free(struct detok *d);
void detok_reset(struct detok *d); /* the next token starts a text */
/* Text that is complete after this token: lent until the next call, *len may be 0. */
const char *detok_push(struct detok *d, int32_t id, size_t *len);
/* What is still held back at the end of the text (incomplete bytes, as they are). */
const char *detok_flush(struct detok *d, size_t *len);

#endif
