/* What the files of tokenizer/ share; nothing outside the folder includes it.
 *
 *   text ── special.c ──▶ stretches between special tokens
 *        ── pretokenize.c (byte-level BPE) or spm.c (SentencePiece) ──▶ words
 *        ── merge.c ──▶ ids */
#ifndef QUOLL_TOKENIZER_INTERNAL_H
#define QUOLL_TOKENIZER_INTERNAL_H

#include "quant/err.h"
#include "tokenizer/tokenizer.h"

#include <string.h>

/* pieces.c: the vocabulary: every token's text, in the file's spelling and as it appears in running
 * text, and the way back from text to id. */

struct piece {
    uint32_t text, text_len; /* spelled as the merges and the matchers need it, in pieces.text */
    uint32_t out, out_len;   /* running text, in pieces.out */
    uint32_t rank;           /* SPM: order of merging, smaller first, equal for equal scores */
    enum token_type type;
    bool end_marker;   /* its text is known to end turns */
    bool strips_right; /* as a special token, it swallows the white space behind it */
};

struct piece_slot {
    uint32_t hash;
    int32_t id;              /* −1: empty */
    uint32_t text, text_len; /* the piece's, here to spare a cache miss */
};

struct pieces {
    int32_t n;
    struct piece *piece;
    char *text, *out;
    struct piece_slot *slot; /* open addressing, a power of two */
    uint32_t mask;
    uint32_t max_text_len, max_out_len;
};

int pieces_init(struct pieces *p, const struct vocab_spec *spec, char *err, size_t errlen);
void pieces_free(struct pieces *p);
int32_t pieces_find(const struct pieces *p, const char *text, size_t len);

static inline const char *piece_text(const struct pieces *p, int32_t id)
{
    return p->text + p->piece[id].text;
}

/* GPT-2's byte alphabet: the code point (below 0x180) that stands for a byte. */
uint32_t byte_alphabet(uint8_t byte);
/* Spells bytes in that alphabet, in UTF-8: at most 2 × len bytes. Returns how many. */
size_t byte_alphabet_spell(const char *bytes, size_t len, char *spelled);

static inline uint64_t hash_mix(uint64_t h)
{
    h *= 0x9e3779b97f4a7c15u;
    return h ^ (h >> 32);
}

static inline uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = n, chunk;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&chunk, s, 8);
        h = hash_mix(h ^ chunk);
    }
    chunk = 0;
    memcpy(&chunk, s, n);
    return hash_mix(hash_mix(h ^ chunk));
}

/* special.c: the longest token of a set at a place of the text. */

struct matcher {
    const struct pieces *pieces;
    int32_t *sorted;     /* ids, by text */
    uint32_t first[257]; /* first[b] … first[b + 1]: those whose text begins with byte b */
};

/* types: a set of bits 1 << TOKEN_…; end_markers: those too, of any type. */
int matcher_init(struct matcher *m, const struct pieces *p, unsigned types, bool end_markers, char *err,
                 size_t errlen);
void matcher_free(struct matcher *m);
/* Length of the longest match at the start of text (0: none), its id in *id. */
size_t matcher_at(const struct matcher *m, const char *text, size_t len, int32_t *id);

/* merge.c: the ids so far, a workspace for merging, a cache of short words. */

struct ids {
    int32_t *v;
    size_t n, cap;
};

int ids_push(struct ids *ids, int32_t id); /* −1: out of memory */

#define NO_RANK   UINT32_MAX /* of a pair that does not merge */
#define NO_SYMBOL UINT32_MAX

struct symbol {  /* a part of the word that is one token so far */
    uint32_t at; /* where it begins, in bytes */
    uint32_t prev, next;
    int32_t id;     /* −1: a character the vocabulary lacks */
    uint32_t rank;  /* of merging with the next one */
    int32_t merged; /* what that gives */
};

struct word_cache;

struct encoder { /* of one call of tokenizer_encode */
    const struct tokenizer *t;
    struct ids ids;
    struct symbol *symbol;
    uint64_t *heap;
    size_t symbol_cap;
    size_t unknown_end; /* ids.n after the last unknown token: more of the unknown adds no second one */
    struct word_cache *cache;
    struct cuts {
        uint32_t *v; /* ends of words, ascending */
        size_t n, cap;
    } cuts, old_cuts;
    char *buf; /* a stretch, normalised */
    size_t buf_cap;
    char *err;
    size_t errlen;
};

void encoder_free(struct encoder *e);
int encoder_oom(struct encoder *e);
int encoder_buf(struct encoder *e, size_t cap); /* makes room, drops the contents */
/* Room for n symbols in e->symbol. */
int encoder_symbols(struct encoder *e, size_t n);
/* Merges e->symbol[0 … n), parts of text of len bytes, the cheapest pair first, the leftmost of equals.
 * What is left is the list that begins at symbol 0. O(n log n). */
void encoder_merge(struct encoder *e, const char *text, size_t len, uint32_t n);
/* The ids of a word met before in this call are appended: true. Texts too short to gain by it, and
 * words too long for an entry, are never found. */
bool encoder_recall(struct encoder *e, const char *word, size_t len);
/* Remembers that the ids from n_before on are this word's. */
void encoder_remember(struct encoder *e, const char *word, size_t len, size_t n_before);
int encoder_use_cache(struct encoder *e);

/* bpe.c, spm.c */

struct pair_slot {
    uint64_t key;  /* left id, right id */
    uint32_t rank; /* NO_RANK: empty */
    int32_t merged;
};

struct bpe {
    int32_t byte_id[256]; /* −1: none */
    struct pair_slot *slot;
    uint32_t mask;
};

struct spm {
    int32_t byte_id[256];
    bool add_space_prefix, remove_extra_spaces;
    struct matcher user;     /* user-defined tokens stay whole: matched in normalised text */
    uint8_t joined[256][32]; /* [last byte of a][bit: first byte of b]: some token has ab inside it */
};

int bpe_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen);
int bpe_encode(struct encoder *e, const char *text, size_t len);
int spm_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen);
int spm_encode(struct encoder *e, const char *text, size_t len);

static inline const struct pair_slot *bpe_pair(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = (uint32_t)hash_mix(hash_mix(key)) & b->mask;
    while (b->slot[i].rank != NO_RANK && b->slot[i].key != key)
        i = (i + 1) & b->mask;
    return &b->slot[i];
}

/* nfc.c: brings valid UTF-8 to normal form C; *text then is e->buf or, where nothing changes, as it was. */
int normal_form_c(struct encoder *e, const char **text, size_t *len);

/* pretokenize.c: words of byte-level BPE. */

enum { PRE_MAX_STEPS = 6 };

struct pre_rule {      /* one row per way of splitting */
    const char *names; /* of tokenizer.ggml.pre, separated by spaces */
    const char *step[PRE_MAX_STEPS];
    bool nfc;         /* the text is brought to normal form C first */
    bool whole_words; /* a word that is a token is that token, whatever the merges say */
    bool add_bos;     /* where the file does not say */
};

struct pretokenizer {
    const struct pre_rule *rule;
    bool known;                /* false: the name is in no row, GPT-2's split stands in */
    void *step[PRE_MAX_STEPS]; /* pcre2_code */
};

int pretokenizer_init(struct pretokenizer *p, const char *name, char *err, size_t errlen);
void pretokenizer_free(struct pretokenizer *p);
/* Cuts text (valid UTF-8) into words: e->cuts holds their ends. */
int pretokenizer_split(const struct pretokenizer *p, struct encoder *e, const char *text, size_t len);
const struct pre_rule *pre_rule_find(const char *name); /* NULL: none */

struct tokenizer {
    enum vocab_kind kind;
    char *name;
    char *warning;
    struct pieces pieces;
    struct matcher special, plain; /* tokens matched in the raw text, with ENCODE_SPECIAL and without */
    struct pretokenizer pre;
    struct bpe bpe;
    struct spm spm;
    int32_t bos, eos, eot, eom, unk;
    bool add_bos, add_eos;
};

/* detok.c's and encode's view of UTF-8 (Unicode 15, table 3-7: no surrogates, no overlong forms).
 * Looks at the character at s: > 0: its length; 0: not UTF-8; −1: the bytes end inside it. */
static inline int utf8_char(const char *s, size_t n)
{
    const uint8_t *b = (const uint8_t *)s;
    if (n == 0)
        return -1;
    if (b[0] < 0x80)
        return 1;
    if (b[0] < 0xc2 || b[0] > 0xf4)
        return 0;
    size_t len = b[0] < 0xe0 ? 2 : b[0] < 0xf0 ? 3 : 4;
    uint8_t low = b[0] == 0xe0 ? 0xa0 : b[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = b[0] == 0xed ? 0x9f : b[0] == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < len; i++) {
        if (i == n)
            return -1;
        if (b[i] < low || b[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return (int)len;
}

#endif
