/* tokenizer/: text to ids and back. It knows vocabularies, not files: whoever opens a file fills a
 * struct vocab_spec (tools/vocab_gguf.c does it from a GGUF's metadata), or hands the bytes of a
 * tokenizer.json, a SentencePiece model, tiktoken ranks or llama2.c's tokenizer.bin to the readers below,
 * which fill the same struct. */
#ifndef QUOLL_TOKENIZER_H
#define QUOLL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vocab_kind {
    VOCAB_BPE,     /* listed pairs merge, by rank */
    VOCAB_SPM,     /* neighbours merge where their joint text is a token, by its score */
    VOCAB_UNIGRAM, /* the tokens of the highest sum of scores (Kudo 2018) */
};

enum vocab_spelling {
    SPELLING_USUAL,  /* BPE: BYTES; SPM and unigram: SPACES */
    SPELLING_BYTES,  /* a token's text is in GPT-2's byte alphabet */
    SPELLING_SPACES, /* U+2581 stands for a space, <0xNN> for a byte */
    SPELLING_PLAIN,  /* as it is, <0xNN> for a byte */
};

enum token_type { /* GGUF's numbers */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN = 2,
                  TOKEN_CONTROL = 3,
                  TOKEN_USER_DEFINED = 4,
                  TOKEN_UNUSED = 5,
                  TOKEN_BYTE = 6,
};

enum {                          /* how an added token is found in text, bits */
       TOKEN_ADDED = 1,         /* a tokenizer.json's: found in the raw text */
       TOKEN_LSTRIP = 2,        /* it takes the white space in front of it along */
       TOKEN_RSTRIP = 4,        /* … behind it */
       TOKEN_SINGLE_WORD = 8,   /* only where no letter or digit is beside it */
       TOKEN_NORMALIZED = 16,   /* found in normalised text instead */
       TOKEN_NOT_IN_MODEL = 32, /* the model proper does not know it */
       TOKEN_NOT_IN_TEXT = 64   /* its text is text, but for the tokens in front of a text all together */
};

struct vocab_token {
    const char *text; /* not NUL-terminated; lent during tokenizer_new only */
    size_t len;
    double score;
    enum token_type type;
    unsigned flags;
    const char *out; /* what it is in running text, where its text does not tell; else NULL */
    size_t out_len;
};

struct vocab_merge { /* left and right, rank = index; lent like a token's text */
    const char *left, *right;
    size_t left_len, right_len;
};

/* One step on the way from raw text to words. A tokenizer.json lists them; for the other kinds of files
 * their readers write them down. */
enum vocab_step_kind {
    /* rewriting the text */
    STEP_NFC,
    STEP_NFD,
    STEP_NFKC,
    STEP_NFKD,
    STEP_LOWERCASE,
    STEP_STRIP_ACCENTS, /* drops marks (Mn) */
    STEP_STRIP,         /* white space at the ends: left, right */
    STEP_PREPEND,       /* content, unless the text is empty */
    STEP_REPLACE,       /* pattern by content */
    STEP_PRECOMPILED,   /* content is a SentencePiece character map, applied as Hugging Face does */
    STEP_SENTENCEPIECE, /* SentencePiece's own normaliser: content is the map or NULL, see sp_… below */
    STEP_BYTES,         /* every byte as a character of GPT-2's alphabet */
    /* cutting it into words */
    STEP_SPLIT,        /* at matches of pattern */
    STEP_PREFIX_SPACE, /* a space in front of every word that has none (ByteLevel's add_prefix_space) */
    STEP_METASPACE,    /* spaces become content, which is also put in front */
};

enum split_behavior { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT, SPLIT_CONTIGUOUS };
enum prefix_scheme { PREFIX_ALWAYS, PREFIX_FIRST, PREFIX_NEVER };

enum { /* of STEP_SENTENCEPIECE, bits */
       SP_DUMMY_PREFIX = 1,
       SP_REMOVE_EXTRA = 2,  /* spaces at the ends, and all but one of several */
       SP_ESCAPE = 4,        /* spaces become U+2581 */
       SP_SUFFIX = 8,        /* the dummy prefix comes behind the text */
       SP_KEEP_INVALID = 16, /* bytes that are not UTF-8 stay; else U+FFFD takes their place */
};

struct vocab_step {
    enum vocab_step_kind kind;
    const char *pattern; /* STEP_REPLACE, STEP_SPLIT; lent */
    size_t pattern_len;
    bool literal; /* pattern is plain text; else an Oniguruma regular expression */
    bool pcre;    /* … in PCRE2's own dialect, known to take linear time */
    const char *content;
    size_t content_len;
    bool left, right; /* STEP_STRIP */
    bool invert;      /* STEP_SPLIT: what does not match is the separator */
    bool split;       /* STEP_METASPACE: cut in front of every content */
    enum split_behavior behavior;
    enum prefix_scheme scheme;
    unsigned sp_flags;
};

struct vocab_spec {
    const char *name; /* of the file, for error messages */
    enum vocab_kind kind;
    enum vocab_spelling spelling;
    const char *pre; /* GGUF, BPE: tokenizer.ggml.pre ("smollm", "qwen2", …); NULL: absent */
    /* The steps; none of either kind: those that pre, or the flags for SPM below, imply. */
    const struct vocab_step *normalizer, *pretokenizer;
    size_t n_normalizer, n_pretokenizer;
    bool own_steps;      /* the steps are these even where there are none */
    bool own_vocabulary; /* all tokens are the model's but those marked; else the normal ones are */
    const struct vocab_token *tokens;
    size_t n_tokens;
    const struct vocab_merge *merges;
    size_t n_merges;
    int32_t bos, eos, eot, eom, unk; /* −1: none */
    const int32_t *ends;             /* more tokens that end a text */
    size_t n_ends;
    int add_bos, add_eos;           /* 1, 0, −1: the file does not say, the kind of vocabulary decides */
    const int32_t *prefix, *suffix; /* put around a text, instead of BOS and EOS; NULL: those */
    size_t n_prefix, n_suffix;
    bool add_space_prefix, remove_extra_spaces; /* SPM */
    bool strip_after_special;                   /* Phi-3: white space behind its control tokens goes away */
    bool strip_first_space;                     /* decoding: one space at the start of the text is dropped */
    bool strip_first_pieces;                    /* … of every piece, until one leaves something */
    bool whole_words;         /* a word that is a token is that token, whatever the merges say */
    bool byte_fallback;       /* a character that is no token is spelled in byte tokens */
    bool fuse_unk;            /* several unknown characters are one unknown token */
    bool float_scores;        /* unigram: sums of scores are kept as floats, as SentencePiece does */
    bool no_specials_in_text; /* ENCODE_SPECIAL has no effect (a bare SentencePiece model) */
    bool join_invalid;        /* tiktoken: from the first byte that is not UTF-8 all is one word */
    const char *word_prefix, *word_suffix; /* BPE: of characters inside, at the end of a word; NULL: none */
};

enum {
    VOCAB_ID_NEXT = -1,    /* the first that no token has yet */
    VOCAB_ID_OF_TEXT = -2, /* that of the piece of this text */
};

/* What the files beside a vocabulary say about it (tokenizer_config.json, generation_config.json, …). A
 * zeroed one with add_bos and add_eos −1 says nothing. Texts are NUL-terminated and lent. */
struct vocab_hints {
    const char *bos, *eos, *unk; /* tokens' texts; NULL: not said */
    int add_bos, add_eos;        /* 1, 0, −1: not said */
    const int32_t *ends;         /* ids of tokens that end a text */
    size_t n_ends;
    const struct vocab_added {
        int32_t id;               /* −1: the next one */
        struct vocab_token token; /* type and flags too */
    } * added;                    /* tokens beside those of the vocabulary */
    size_t n_added;
    const char *const *prefix, *const *suffix; /* tiktoken, SentencePiece: texts of tokens around a text */
    size_t n_prefix, n_suffix;
    const char *pattern;   /* tiktoken: what cuts words; NULL: cl100k's as GLM-4 has it */
    bool specials_in_text; /* SentencePiece: control tokens are found in text */
    bool chatglm_blanks;   /* … "<n>", "<|tab|>" and "<|blank_N|>" stand for white space */
    size_t id_offset;      /* … ids below its own, or: */
    const char *anchor;    /* … the piece that has the id */
    int32_t anchor_id;
};

struct tokenizer;

/* From the bytes of a file of the name (for messages), as other programs have them: Hugging Face's
 * tokenizer.json (of the tokenizers library, 0.22), SentencePiece's .model (0.2), tiktoken's ranks (lines
 * "BASE64 RANK"), llama2.c's tokenizer.bin. The bytes are needed during the call only. */
int tokenizer_from_json(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                        const struct vocab_hints *hints, char *err, size_t errlen);
int tokenizer_from_sentencepiece(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                                 const struct vocab_hints *hints, char *err, size_t errlen);
int tokenizer_from_tiktoken(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                            const struct vocab_hints *hints, char *err, size_t errlen);
int tokenizer_from_llama2c(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                           const struct vocab_hints *hints, char *err, size_t errlen);

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

/* For text by a user that goes into a prompt with control tokens: a copy of text (malloc'ed, NUL past *n)
 * with mark put inside everything that ENCODE_SPECIAL would find as a control token, save those whose text
 * has `except` in it (NULL: none). tokenizer_encode_guarded encodes a prompt made of such texts with
 * ENCODE_SPECIAL, takes the marks out and finds no token where one was. mark is a character that the texts do
 * not have. */
int tokenizer_guard(const struct tokenizer *t, const char *text, size_t len, const char *mark,
                    const char *except, char **guarded, size_t *n);
int tokenizer_encode_guarded(const struct tokenizer *t, const char *text, size_t len, const char *mark,
                             int32_t **ids, size_t *n, char *err, size_t errlen);

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

/* A tokenizer as the metadata of a GGUF can say it: spec is what a reader of that GGUF fills, of kind
 * VOCAB_BPE ("gpt2") or VOCAB_SPM ("llama"). Its merges have no spaces in them. */
struct vocab_export {
    struct vocab_spec spec;
    char note[256]; /* what the user should know of what a GGUF cannot say; "": nothing */
    char pre[32];   /* spec.pre */
    struct vocab_token *tokens;
    struct vocab_merge *merges;
    char *texts;
};
/* t's vocabulary with n_tokens ids (0: as many as it has): those without a token are TOKEN_UNUSED, those
 * beyond are left out. t must outlive v, and v stay where it is. 1: its kind is not written, err says why. */
int tokenizer_export(struct vocab_export *v, const struct tokenizer *t, size_t n_tokens, char *err,
                     size_t errlen);
void vocab_export_free(struct vocab_export *v);

#endif
