/* What the files of tokenizer/ share; nothing outside the folder includes it.
 *
 *   text ── special.c ──▶ stretches between special tokens
 *        ── normalize.c, sp_normalize.c ──▶ normalised text ── special.c ──▶ stretches of it
 *        ── pretokenize.c ──▶ words
 *        ── model.c, merge.c, unigram.c ──▶ ids */
#ifndef QUOLL_TOKENIZER_INTERNAL_H
#define QUOLL_TOKENIZER_INTERNAL_H

#include "quant/err.h"
#include "tokenizer/tokenizer.h"

#include <string.h>

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

/* pieces.c: the vocabulary: every token's text, in the file's spelling and as it appears in running
 * text, and the way back from text to id. */

struct piece {
    uint32_t text, text_len; /* spelled as the merges and the matchers need it, in pieces.text */
    uint32_t out, out_len;   /* running text, in pieces.out */
    uint32_t rank;           /* SPM: order of merging, smaller first, equal for equal scores */
    enum token_type type;
    uint8_t flags;   /* TOKEN_ADDED … */
    bool in_model;   /* text between special tokens may become it */
    bool shown;      /* running text has it even if it is the unknown token */
    bool end_marker; /* its text is known to end turns */
    bool ends;       /* the file says that it ends a text */
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
    double *score;           /* unigram, else NULL */
    struct piece_slot *slot; /* open addressing, a power of two */
    uint32_t mask;
    uint32_t max_text_len, max_out_len;
};

int pieces_init(struct pieces *p, const struct vocab_spec *spec, char *err, size_t errlen);
void pieces_free(struct pieces *p);
int32_t pieces_find(const struct pieces *p, const char *text, size_t len);
enum vocab_spelling usual_spelling(const struct vocab_spec *spec);

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

/* Decodes base64 (padding optional) into out, at most 3 bytes for 4; −1: it is none. */
int base64_decode(const char *text, size_t len, char *out, size_t *n_out);

/* special.c: the longest text of a set at a place of the text. */

struct matcher_entry {
    const char *text;
    uint32_t len;
    int32_t id;
};

struct matcher {
    struct matcher_entry *sorted; /* by text */
    size_t n, cap;
    char **owned; /* texts that no one else keeps */
    size_t n_owned;
    uint32_t first[257]; /* first[b] … first[b + 1]: those whose text begins with byte b */
};

/* Adds a text, lent as long as the matcher lives. −1: out of memory. */
int matcher_add(struct matcher *m, const char *text, size_t len, int32_t id);
/* Gives it a malloc'ed text to free with it; −1: out of memory, the text is freed. */
int matcher_own(struct matcher *m, char *text);
void matcher_done(struct matcher *m); /* after the last one */
void matcher_free(struct matcher *m);
/* Length of the longest match at the start of text (0: none), its id in *id. */
size_t matcher_at(const struct matcher *m, const char *text, size_t len, int32_t *id);
/* Calls fn for every match at the start of text, the shortest first. */
void matcher_each(const struct matcher *m, const char *text, size_t len,
                  void (*fn)(void *arg, int32_t id, size_t len), void *arg);

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

struct word { /* a part of a text */
    uint32_t from, to;
};

struct words {
    struct word *v;
    size_t n, cap;
};

struct buf {
    char *s;
    size_t cap;
};

struct encoder { /* of one call of tokenizer_encode */
    const struct tokenizer *t;
    struct ids ids;
    struct symbol *symbol;
    uint64_t *heap;
    size_t symbol_cap;
    size_t unknown_end; /* ids.n after the last unknown token: more of the unknown adds no second one */
    struct word_cache *cache;
    struct best_path *path; /* unigram */
    size_t path_cap;
    struct words words, old_words, matches;
    struct buf norm[2]; /* a stretch, normalised: steps read one and write the other */
    struct buf pre[2];  /* its words, rewritten */
    struct buf spelled; /* a word that is not UTF-8 */
    struct buf known;   /* a word without the characters that have no token */
    bool stripped;      /* the normaliser took white space from the start of the text */
    size_t max_room;    /* a text may not grow beyond any measure */
    char *err;
    size_t errlen;
};

void encoder_free(struct encoder *e);
int encoder_oom(const struct encoder *e);
int encoder_room(const struct encoder *e, struct buf *b, size_t cap); /* drops the contents to grow */
/* Appends; *n is how much is in use. */
int buf_put(const struct encoder *e, struct buf *b, size_t *n, const char *text, size_t len);
/* empty ones are left out */
int words_push(const struct encoder *e, struct words *w, size_t from, size_t to);
int words_push_any(const struct encoder *e, struct words *w, size_t from, size_t to);
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

/* pattern.c: regular expressions, in PCRE2. */

struct pattern {
    void *code; /* pcre2_code; NULL: literal */
    char *literal;
    size_t literal_len;
    bool trusted; /* takes linear time: no limit of steps */
};

/* Compiles the pattern of a step; the dialect is Oniguruma's as Hugging Face's tokenizers use it, unless the
 * step says otherwise. */
int pattern_init(struct pattern *p, const struct vocab_step *s, const char *name, char *err, size_t errlen);
void pattern_free(struct pattern *p);
struct pattern_run { /* of one search after another */
    const struct pattern *p;
    void *data, *context; /* pcre2_match_data, pcre2_match_context */
    size_t from, last;    /* where the next match may begin, where the last one ended */
};
int pattern_start(struct pattern_run *r, const struct pattern *p, const struct encoder *e);
void pattern_end(struct pattern_run *r);
void pattern_rewind(struct pattern_run *r); /* before the first match in a text */
/* The next match in text (valid UTF-8): 1 and *found; 0: none; −1: an error. An empty match counts, but not
 * at the end of the match before it. */
int pattern_next(struct pattern_run *r, const struct encoder *e, const char *text, size_t len,
                 struct word *found);

/* charsmap.c: SentencePiece's precompiled character map: a double array over the texts to be replaced
 * (Yata et al. 2007; darts-clone's layout), then the replacements, each ended by a NUL. */

struct charsmap {
    char *blob; /* NULL: none */
    size_t n_units;
    const char *texts;
    size_t n_texts;
};

int charsmap_init(struct charsmap *c, const char *blob, size_t len, const char *name, char *err,
                  size_t errlen);
void charsmap_free(struct charsmap *c);
/* The longest (or shortest) prefix of text that the map replaces: its length, 0: none; what by in *to. */
size_t charsmap_find(const struct charsmap *c, const char *text, size_t len, bool shortest, const char **to);

/* steps.c, normalize.c, sp_normalize.c, pretokenize.c: from text to words. */

struct step {
    struct vocab_step how; /* its pointers point into own memory */
    char *content;
    struct pattern pattern;
    struct charsmap map;
};

struct steps {
    struct step *v;
    size_t n;
    bool need_utf8;
};

int steps_init(struct steps *s, const struct vocab_step *from, size_t n, const char *name, char *err,
               size_t errlen);
void steps_free(struct steps *s);

/* Applies the normalising steps; *text then is in e->norm or, where nothing changes, as it was. */
int normalize(struct encoder *e, const struct steps *steps, const char **text, size_t *len);
int normalize_form(struct encoder *e, const struct step *s, const char **text, size_t *len, struct buf *out);
int normalize_sentencepiece(struct encoder *e, const struct step *s, const char **text, size_t *len,
                            struct buf *out);
int normalize_precompiled(struct encoder *e, const struct step *s, const char **text, size_t *len,
                          struct buf *out);
/* Cuts text into words: e->words are parts of *text, which then may be in e->pre. first: the text begins
 * here. */
int pretokenize(struct encoder *e, const struct steps *steps, const char **text, size_t *len, bool first);

/* pre_rules.c: the ways of cutting that GGUF files name in tokenizer.ggml.pre. */

enum { PRE_MAX_STEPS = 6 };

struct pre_rule {      /* one row per way of splitting */
    const char *names; /* of tokenizer.ggml.pre, separated by spaces */
    const char *step[PRE_MAX_STEPS];
    bool nfc;         /* the text is brought to normal form C first */
    bool whole_words; /* a word that is a token is that token, whatever the merges say */
    bool add_bos;     /* where the file does not say */
};

const struct pre_rule *pre_rule_find(const char *name); /* NULL: none */
const struct pre_rule *pre_rule_at(size_t i);           /* NULL: past the last one */
/* Fills s (room for PRE_MAX_STEPS + 1): its cuts, then the byte alphabet; returns how many. */
size_t pre_rule_steps(const struct pre_rule *rule, struct vocab_step *s);
/* \w of Rust's regular expressions but for the joiners, inside a class. */
#define WORD_OF_RUST                                                                                 \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
    "\\x{1f170}-\\x{1f189}"
/* What s or S, w or W mean inside a character class, in ranges. */
const char *class_ranges(char letter);

/* model.c, unigram.c: words to ids. */

struct pair_slot {
    uint64_t key;  /* left id, right id */
    uint32_t rank; /* NO_RANK: empty */
    int32_t merged;
};

struct pairs {
    struct pair_slot *slot;
    uint32_t mask;
};

int model_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen);
int model_word(struct encoder *e, const char *word, size_t len);
/* Bytes that are no token: byte tokens, the unknown token, or nothing. */
int model_unknown(struct encoder *e, const char *text, size_t len);
int unigram_word(struct encoder *e, const char *word, size_t len);
int unigram_init(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen);

static inline const struct pair_slot *find_pair(const struct pairs *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = (uint32_t)hash_mix(hash_mix(key)) & b->mask;
    while (b->slot[i].rank != NO_RANK && b->slot[i].key != key)
        i = (i + 1) & b->mask;
    return &b->slot[i];
}

struct tokenizer {
    enum vocab_kind kind;
    enum vocab_spelling spelling;
    char *name;
    char *warning;
    struct pieces pieces;
    struct matcher raw;        /* tokens matched in the raw text */
    struct matcher normalized; /* … in normalised text */
    bool user_in_raw;          /* without ENCODE_SPECIAL user-defined tokens are matched in raw text */
    struct steps normalizer, pretokenizer;
    struct pairs pairs;        /* BPE */
    struct matcher vocabulary; /* unigram */
    int32_t byte_id[256];      /* byte tokens; −1: none */
    int32_t ascii_id[128];     /* tokens of one character */
    uint8_t joined[256][32];   /* [last byte of a][bit: first byte of b]: some token has ab inside it */
    double unknown_score;      /* unigram */
    double user_score;         /* unigram: of a user-defined token; 0: its own */
    bool float_scores;
    int32_t bos, eos, eot, eom, unk;
    int32_t *prefix, *suffix; /* put around a text */
    size_t n_prefix, n_suffix;
    char *prefix_text; /* what the prefix looks like where it cannot be found token by token; else NULL */
    bool some_dropped; /* characters without a token vanish, and what was beside them may merge */
    bool whole_words, byte_fallback, fuse_unk, drop_unknown, strip_first_space, strip_first_pieces,
        join_invalid;
    char *word_prefix, *word_suffix;
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

/* Length of the character at s; a byte that belongs to none counts as one. */
static inline size_t char_len(const char *s, size_t n)
{
    int len = utf8_char(s, n);
    return len > 0 ? (size_t)len : 1;
}

/* White space as Unicode has it, at the start of text: its length, 0: none. */
size_t space_at(const char *text, size_t len);
/* … at its end. */
size_t space_before(const char *text, size_t len);

#endif
