/* The vocabulary: texts of the tokens, and a hash table from text to id. */
#include "tokenizer/internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_TOKENS = 1 << 26 };

/* GPT-2 (encoder.py, bytes_to_unicode): the printable bytes of Latin-1 stand for themselves, the other
 * 68, in order, for U+0100, U+0101, … */
uint32_t byte_alphabet(uint8_t byte)
{
    if (byte < 0x21)
        return 0x100u + byte;
    if (byte < 0x7f)
        return byte;
    if (byte < 0xa1)
        return 0x100u + 0x21 + (byte - 0x7fu);
    return byte == 0xad ? 0x143u : byte;
}

size_t byte_alphabet_spell(const char *bytes, size_t len, char *spelled)
{
    char *to = spelled;
    for (size_t i = 0; i < len; i++) {
        uint32_t c = byte_alphabet((uint8_t)bytes[i]);
        if (c < 0x80) {
            *to++ = (char)c;
        } else {
            *to++ = (char)(0xc0 | c >> 6);
            *to++ = (char)(0x80 | (c & 0x3f));
        }
    }
    return (size_t)(to - spelled);
}

/* The byte a two-byte character stands for; −1: it is not of the alphabet. */
static int byte_of_alphabet(const char *s)
{
    uint32_t c = (uint32_t)((uint8_t)s[0] & 0x1f) << 6 | ((uint8_t)s[1] & 0x3f);
    if (c == 0x143)
        return 0xad;
    if (c >= 0x121 && c < 0x143)
        return (int)(c - 0x121 + 0x7f);
    if (c >= 0x100 && c <= 0x120)
        return (int)(c - 0x100);
    return c >= 0xa1 && c <= 0xff && c != 0xad ? (int)c : -1;
}

/* Running text of a byte-level piece. */
static size_t unspell(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        int c = utf8_char(text + i, len - i);
        int byte = c == 2 ? byte_of_alphabet(text + i) : -1;
        if (byte >= 0) {
            out[n++] = (char)byte;
            i += 2;
        } else {
            size_t k = c > 0 ? (size_t)c : 1;
            memcpy(out + n, text + i, k);
            n += k;
            i += k;
        }
    }
    return n;
}

/* Running text of a SentencePiece piece: U+2581 is a space. */
static size_t unescape(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        if (len - i >= 3 && memcmp(text + i, SPACE_MARK, 3) == 0) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = text[i++];
        }
    }
    return n;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" → 10; −1: no such name. */
static int byte_name(const char *text, size_t len)
{
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static size_t running_text(enum vocab_spelling spelling, const struct vocab_token *v, const char *text,
                           size_t len, char *out)
{
    if (v->out) {
        memcpy(out, v->out, v->out_len);
        return v->out_len;
    }
    int byte = v->type == TOKEN_BYTE ? byte_name(text, len) : -1;
    if (byte >= 0) {
        out[0] = (char)byte;
        return 1;
    }
    if (spelling == SPELLING_BYTES && v->type == TOKEN_NORMAL)
        return unspell(text, len, out);
    if (spelling == SPELLING_SPACES && (v->type == TOKEN_NORMAL || v->type == TOKEN_USER_DEFINED))
        return unescape(text, len, out);
    memcpy(out, text, len);
    return len;
}

enum vocab_spelling usual_spelling(const struct vocab_spec *spec)
{
    if (spec->spelling != SPELLING_USUAL)
        return spec->spelling;
    return spec->kind == VOCAB_BPE ? SPELLING_BYTES : SPELLING_SPACES;
}

/* Puts a token's text into the table. Spaces of a GGUF's user-defined SentencePiece tokens become U+2581, as
 * in the text they are matched with: some files have them so, some not. Returns the length, at most 3 × len.
 */
static size_t spell(const struct vocab_spec *spec, const struct vocab_token *v, char *text)
{
    static const char mark[3] = {'\xe2', '\x96', '\x81'};
    size_t n = 0;
    bool escape =
        !spec->own_steps && usual_spelling(spec) == SPELLING_SPACES && v->type == TOKEN_USER_DEFINED;
    for (size_t i = 0; i < v->len; i++) {
        if (escape && v->text[i] == ' ') {
            memcpy(text + n, mark, sizeof mark);
            n += 3;
        } else {
            text[n++] = v->text[i];
        }
    }
    return n;
}

/* Order of merging from a score: the higher the score, the smaller the rank; the bits of a float, with
 * the negative ones turned round, compare like the float. */
static uint32_t score_rank(float score)
{
    uint32_t bits;
    float f = score + 0.0f; /* −0 is 0 */
    memcpy(&bits, &f, sizeof bits);
    uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static struct piece_slot *find_slot(const struct pieces *p, uint32_t hash, const char *text, size_t len)
{
    for (uint32_t i = hash & p->mask;; i = (i + 1) & p->mask) {
        struct piece_slot *s = &p->slot[i];
        if (s->id < 0)
            return s;
        if (s->hash == hash && s->text_len == len && memcmp(p->text + s->text, text, len) == 0)
            return s;
    }
}

int32_t pieces_find(const struct pieces *p, const char *text, size_t len)
{
    if (len > p->max_text_len)
        return -1;
    return find_slot(p, (uint32_t)hash_bytes(text, len), text, len)->id;
}

/* Bytes that a token takes in either table; SIZE_MAX: too many. */
static size_t bytes_of(const struct vocab_token *v, size_t so_far)
{
    size_t most = (UINT32_MAX / 4 - so_far) / 3;
    if (v->len > most || (v->out && v->out_len > most))
        return SIZE_MAX;
    size_t n = v->len * (v->type == TOKEN_USER_DEFINED ? 3 : 1);
    return v->out && v->out_len > n ? v->out_len : n;
}

static bool is_in_model(const struct vocab_spec *spec, const struct vocab_token *v)
{
    if (v->flags & TOKEN_NOT_IN_MODEL)
        return false;
    if (v->flags & TOKEN_ADDED || spec->own_vocabulary)
        return v->len > 0;
    return v->type == TOKEN_NORMAL || (spec->kind == VOCAB_UNIGRAM && v->type == TOKEN_USER_DEFINED);
}

static void fill_piece(struct pieces *p, const struct vocab_spec *spec, int32_t id, uint32_t *text_end,
                       uint32_t *out_end)
{
    const struct vocab_token *v = &spec->tokens[id];
    struct piece *q = &p->piece[id];
    *q = (struct piece){.text = *text_end,
                        .out = *out_end,
                        .type = v->type,
                        .flags = (uint8_t)v->flags,
                        .shown = v->out != NULL,
                        .in_model = is_in_model(spec, v)};
    q->text_len = (uint32_t)spell(spec, v, p->text + *text_end);
    q->rank = score_rank((float)v->score);
    q->out_len =
        (uint32_t)running_text(usual_spelling(spec), v, p->text + *text_end, q->text_len, p->out + *out_end);
    if (p->score)
        p->score[id] = v->score;
    *text_end += q->text_len;
    *out_end += q->out_len;
    if (q->text_len > p->max_text_len)
        p->max_text_len = q->text_len;
    if (q->out_len > p->max_out_len)
        p->max_out_len = q->out_len;

    uint32_t hash = (uint32_t)hash_bytes(piece_text(p, id), q->text_len);
    struct piece_slot *s = find_slot(p, hash, piece_text(p, id), q->text_len);
    /* Of two tokens of one text the first is found, but one of the model before any other. */
    if (s->id < 0 || (q->in_model && !p->piece[s->id].in_model))
        *s = (struct piece_slot){hash, id, q->text, q->text_len};
}

int pieces_init(struct pieces *p, const struct vocab_spec *spec, char *err, size_t errlen)
{
    if (spec->n_tokens == 0 || spec->n_tokens > MAX_TOKENS)
        return err_set(err, errlen, "%s: vocabulary of %zu tokens (1 to %d are possible)", spec->name,
                       spec->n_tokens, MAX_TOKENS);
    size_t bytes = 0;
    for (size_t i = 0; i < spec->n_tokens; i++) {
        size_t n = bytes_of(&spec->tokens[i], bytes);
        if (n == SIZE_MAX)
            return err_set(err, errlen, "%s: the texts of the tokens are too long together, at token %zu",
                           spec->name, i);
        bytes += n;
        double score = spec->tokens[i].score;
        if (isnan(score) || (spec->kind == VOCAB_UNIGRAM && !(fabs(score) <= FLT_MAX)))
            return err_set(err, errlen, "%s: the score of token %zu is not a number", spec->name, i);
    }
    p->n = (int32_t)spec->n_tokens;
    p->mask = 15;
    while (p->mask / 2 < spec->n_tokens)
        p->mask = p->mask * 2 + 1;
    p->piece = malloc(spec->n_tokens * sizeof *p->piece);
    p->text = malloc(bytes + 1);
    p->out = malloc(bytes + 1);
    p->slot = malloc(((size_t)p->mask + 1) * sizeof *p->slot);
    p->score = spec->kind == VOCAB_UNIGRAM ? malloc(spec->n_tokens * sizeof *p->score) : NULL;
    if (!p->piece || !p->text || !p->out || !p->slot || (spec->kind == VOCAB_UNIGRAM && !p->score))
        return err_set(err, errlen, "%s: out of memory for %zu tokens", spec->name, spec->n_tokens);
    memset(p->slot, 0xff, ((size_t)p->mask + 1) * sizeof *p->slot);
    uint32_t text_end = 0, out_end = 0;
    for (int32_t id = 0; id < p->n; id++)
        fill_piece(p, spec, id, &text_end, &out_end);
    return 0;
}

void pieces_free(struct pieces *p)
{
    free(p->piece);
    free(p->text);
    free(p->out);
    free(p->slot);
    free(p->score);
}
