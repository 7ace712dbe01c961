/* SentencePiece's .model: a protobuf message (sentencepiece.proto) with the pieces and the normaliser's map.
 * ChatGLM's tokenizers are such models with tokens of their own around them. */
#include "tokenizer/internal.h"
#include "tokenizer/sentencepiece.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2, MAX_GAP = 1 << 16, MAX_BLANK = 80 };

/* Messages unpacked take memory out of all proportion to a hostile file; real ones a few times their size. */
struct budget {
    size_t left;
};

static void *take(void *data, size_t size)
{
    struct budget *b = data;
    if (size + 32 > b->left)
        return NULL;
    b->left -= size + 32;
    return malloc(size);
}

static void give(void *data, void *p)
{
    (void)data;
    free(p);
}

struct sp_reader {
    const char *name;
    const Sentencepiece__Model *model;
    const Sentencepiece__TrainerSpec *trainer;
    const struct vocab_hints *hints;
    struct vocab_spec spec;
    struct vocab_token *tokens;
    size_t first; /* id of the first piece */
    char (*blank_text)[16];
    struct vocab_step *steps;
    int32_t *prefix, *suffix;
    char *err;
    size_t errlen;
};

#define FAULT(r, ...) err_set((r)->err, (r)->errlen, __VA_ARGS__)

static int32_t find_token(const struct sp_reader *r, const char *text, size_t len)
{
    for (size_t i = 0; len > 0 && i < r->spec.n_tokens; i++)
        if (r->tokens[i].len == len && memcmp(r->tokens[i].text, text, len) == 0)
            return (int32_t)i;
    return -1;
}

static int32_t find_bytes(const struct sp_reader *r, const ProtobufCBinaryData *b, const char *usual)
{
    return b->len > 0 ? find_token(r, (const char *)b->data, b->len) : find_token(r, usual, strlen(usual));
}

/* Where the pieces' ids begin: at the id that the configuration gives one of them. */
static int find_first(struct sp_reader *r)
{
    const struct vocab_hints *h = r->hints;
    r->first = h->id_offset;
    for (size_t i = 0; h->anchor && i < r->model->n_pieces; i++) {
        const ProtobufCBinaryData *b = &r->model->pieces[i]->piece;
        if (b->len != strlen(h->anchor) || memcmp(b->data, h->anchor, b->len) != 0)
            continue;
        if (h->anchor_id < 0 || (size_t)h->anchor_id < i || (size_t)h->anchor_id - i > MAX_GAP)
            return FAULT(r, "%s: piece %zu is %s, which the configuration gives the id %d", r->name, i,
                         h->anchor, h->anchor_id);
        r->first = (size_t)h->anchor_id - i;
    }
    return 0;
}

/* Tokens that are not in the file: those of the configuration, which also tells what some pieces are. */
static int add_tokens(struct sp_reader *r)
{
    for (size_t i = 0; i < r->hints->n_added; i++) {
        const struct vocab_added *a = &r->hints->added[i];
        size_t id = a->id < 0 ? r->spec.n_tokens : (size_t)a->id;
        if (a->id == VOCAB_ID_OF_TEXT) {
            int32_t found = find_token(r, a->token.text, a->token.len);
            if (found < 0)
                continue;
            id = (size_t)found;
        }
        if (id >= r->first + r->model->n_pieces + r->hints->n_added + MAX_GAP)
            return FAULT(r, "%s: the added token %.60s has the id %zu, far outside the vocabulary", r->name,
                         a->token.text, id);
        struct vocab_token *t = &r->tokens[id];
        if (id >= r->spec.n_tokens)
            r->spec.n_tokens = id + 1;
        bool is_piece = t->len == a->token.len && memcmp(t->text, a->token.text, t->len) == 0;
        if (is_piece && t->type != TOKEN_NORMAL && t->type != TOKEN_USER_DEFINED)
            t->flags |= a->token.flags & (TOKEN_LSTRIP | TOKEN_RSTRIP | TOKEN_SINGLE_WORD);
        else if (is_piece || t->len == 0) {
            double score = t->score;
            *t = a->token;
            t->score = score;
        }
    }
    return 0;
}

static int read_pieces(struct sp_reader *r)
{
    size_t n = r->model->n_pieces;
    if (n == 0)
        return FAULT(r, "%s: a SentencePiece model without pieces", r->name);
    if (find_first(r) < 0)
        return -1;
    size_t most = r->first + n + 2 * r->hints->n_added + MAX_GAP;
    r->tokens = calloc(most, sizeof *r->tokens);
    if (!r->tokens)
        return FAULT(r, "%s: out of memory for %zu tokens", r->name, most);
    for (size_t i = 0; i < most; i++)
        r->tokens[i] = (struct vocab_token){.text = "", .type = TOKEN_UNUSED};
    r->spec.tokens = r->tokens;
    r->spec.n_tokens = r->first + n;
    for (size_t i = 0; i < n; i++) {
        const Sentencepiece__Piece *p = r->model->pieces[i];
        struct vocab_token *t = &r->tokens[r->first + i];
        if (p->type < TOKEN_NORMAL || p->type > TOKEN_BYTE)
            return FAULT(r, "%s: piece %zu has the unknown type %d", r->name, i, p->type);
        t->text = (const char *)p->piece.data;
        t->len = p->piece.len;
        if (t->len == 0)
            return FAULT(r, "%s: piece %zu is empty", r->name, i);
        t->score = (double)p->score;
        t->type = (enum token_type)p->type;
        if (t->type == TOKEN_UNKNOWN && r->spec.unk < 0) {
            bool says = r->trainer->unk_surface.len > 0;
            r->spec.unk = (int32_t)(r->first + i);
            t->out = says ? (const char *)r->trainer->unk_surface.data : " \xe2\x81\x87 ";
            t->out_len = says ? r->trainer->unk_surface.len : 5;
        }
    }
    return add_tokens(r);
}

/* ChatGLM-6B writes line ends, tabs and runs of spaces as tokens "<n>", "<|tab|>" and "<|blank_N|>". */
static int read_blanks(struct sp_reader *r)
{
    static char spaces[MAX_BLANK + 1];
    r->blank_text = calloc(MAX_BLANK + 1, sizeof *r->blank_text);
    if (!r->blank_text)
        return FAULT(r, "%s: out of memory", r->name);
    memset(spaces, ' ', MAX_BLANK);
    for (int k = 0; k <= MAX_BLANK; k++) {
        /* 0: a line's end, 1: a tab, then from many spaces to few */
        int n = k < 2 ? 1 : MAX_BLANK + 2 - k;
        const char *from = k == 0 ? "\n" : k == 1 ? "\t" : spaces;
        char *to = r->blank_text[k];
        if (k < 2)
            memcpy(to, k ? "<|tab|>" : "<n>", k ? 8 : 4);
        else
            (void)snprintf(to, sizeof *r->blank_text, "<|blank_%d|>", n);
        r->steps[k] = (struct vocab_step){.kind = STEP_REPLACE,
                                          .pattern = from,
                                          .pattern_len = (size_t)n,
                                          .literal = true,
                                          .content = to,
                                          .content_len = strlen(to)};
        int32_t id = find_token(r, to, strlen(to));
        if (id < 0)
            return FAULT(r, "%s: no token %s, which ChatGLM-6B's vocabulary has", r->name, to);
        r->tokens[id].out = from;
        r->tokens[id].out_len = (size_t)n;
    }
    r->spec.n_normalizer = MAX_BLANK + 1;
    return 0;
}

static int read_normalizer(struct sp_reader *r)
{
    static const Sentencepiece__NormalizerSpec usual = SENTENCEPIECE__NORMALIZER_SPEC__INIT;
    const Sentencepiece__NormalizerSpec *n = r->model->normalizer_spec ? r->model->normalizer_spec : &usual;
    r->steps = calloc(MAX_BLANK + 2, sizeof *r->steps);
    if (!r->steps)
        return FAULT(r, "%s: out of memory", r->name);
    if (r->hints->chatglm_blanks && read_blanks(r) < 0)
        return -1;
    r->steps[r->spec.n_normalizer++] =
        (struct vocab_step){.kind = STEP_SENTENCEPIECE,
                            .content = (const char *)n->precompiled_charsmap.data,
                            .content_len = n->precompiled_charsmap.len,
                            .sp_flags = (n->add_dummy_prefix ? SP_DUMMY_PREFIX : 0u) |
                                        (n->remove_extra_whitespaces ? SP_REMOVE_EXTRA : 0u) |
                                        (n->escape_whitespaces ? SP_ESCAPE : 0u) |
                                        (r->trainer->treat_whitespace_as_suffix ? SP_SUFFIX : 0u)};
    r->spec.own_steps = true;
    r->spec.normalizer = r->steps;
    r->spec.strip_first_space = n->add_dummy_prefix || n->remove_extra_whitespaces;
    r->spec.strip_first_pieces = n->remove_extra_whitespaces;
    return 0;
}

static int32_t *find_all(struct sp_reader *r, const char *const *texts, size_t n)
{
    int32_t *ids = calloc(n + 1, sizeof *ids);
    if (!ids)
        (void)FAULT(r, "%s: out of memory", r->name);
    for (size_t i = 0; ids && i < n; i++) {
        ids[i] = find_token(r, texts[i], strlen(texts[i]));
        if (ids[i] < 0) {
            (void)FAULT(r, "%s: no token %.60s", r->name, texts[i]);
            free(ids);
            return NULL;
        }
    }
    return ids;
}

static int read_ends(struct sp_reader *r)
{
    const struct vocab_hints *h = r->hints;
    struct vocab_spec *s = &r->spec;
    s->bos = h->bos ? find_token(r, h->bos, strlen(h->bos)) : -1;
    s->eos = h->eos ? find_token(r, h->eos, strlen(h->eos)) : -1;
    if (s->bos < 0)
        s->bos = find_bytes(r, &r->trainer->bos_piece, "<s>");
    if (s->eos < 0)
        s->eos = find_bytes(r, &r->trainer->eos_piece, "</s>");
    s->add_bos = h->add_bos != 0;
    s->add_eos = h->add_eos == 1;
    s->ends = h->ends;
    s->n_ends = h->n_ends;
    if (h->n_prefix > 0) {
        if (!(r->prefix = find_all(r, h->prefix, h->n_prefix)))
            return -1;
        s->prefix = r->prefix;
        s->n_prefix = h->n_prefix;
    }
    if (h->n_suffix > 0) {
        if (!(r->suffix = find_all(r, h->suffix, h->n_suffix)))
            return -1;
        s->suffix = r->suffix;
        s->n_suffix = h->n_suffix;
        s->add_bos = 0;
    }
    return 0;
}

static int read_model(struct sp_reader *r)
{
    int type = r->trainer->model_type;
    if (type != MODEL_UNIGRAM && type != MODEL_BPE)
        return FAULT(r, "%s: SentencePiece's model type %d is not supported (1: unigram, 2: BPE)", r->name,
                     type);
    r->spec.kind = type == MODEL_BPE ? VOCAB_SPM : VOCAB_UNIGRAM;
    r->spec.float_scores = true;
    r->spec.no_specials_in_text = !r->hints->specials_in_text;
    return read_pieces(r) < 0 || read_normalizer(r) < 0 ? -1 : read_ends(r);
}

int tokenizer_from_sentencepiece(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                                 const struct vocab_hints *hints, char *err, size_t errlen)
{
    static const Sentencepiece__TrainerSpec usual = SENTENCEPIECE__TRAINER_SPEC__INIT;
    struct budget budget = {len < SIZE_MAX / 64 ? 64 * len + 65536 : SIZE_MAX};
    ProtobufCAllocator allocator = {take, give, &budget};
    Sentencepiece__Model *model = sentencepiece__model__unpack(&allocator, len, (const uint8_t *)bytes);
    *out = NULL;
    if (!model)
        return err_set(err, errlen, "%s: no SentencePiece model, or a broken one", name);
    struct sp_reader r = {.name = name,
                          .model = model,
                          .trainer = model->trainer_spec ? model->trainer_spec : &usual,
                          .hints = hints,
                          .spec = {.name = name, .bos = -1, .eos = -1, .eot = -1, .eom = -1, .unk = -1},
                          .err = err,
                          .errlen = errlen};
    int rc = read_model(&r);
    if (rc == 0)
        rc = tokenizer_new(out, &r.spec, err, errlen);
    free(r.tokens);
    free(r.steps);
    free(r.blank_text);
    free(r.prefix);
    free(r.suffix);
    sentencepiece__model__free_unpacked(model, &allocator);
    return rc;
}
