/* A tokenizer as a GGUF's metadata can say it. Such a file has few words for how text becomes words: for
 * byte-level vocabularies the name of a rule (pre_rules.c), for SentencePiece's two flags. Which of them does
 * as the tokenizer does is found by trying: the one whose ids agree on a text that has something of
 * everything the rules differ in. */
#include "tokenizer/internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PAD_ROOM = 24, /* of "[PAD4294967295]" */
    MAX_PROBE = 1 << 16,
    MAX_RULES = 64,
};

static const char *const probe[] = {
    "Hello, world! How's it going? I'm fine; they're not, we've won, he'll say she'd do it.",
    "IT'S DON'T WE'RE I'LL THEY'VE I'M HE'D 'Sofa 'till 'real 'vest 'dog x\xe2\x80\x99s don\xe2\x80\x99t",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 $5.00 0x1F a1b2c3 2nd H2O v1.2.3",
    "\xd9\xa1\xd9\xa2\xd9\xa3\xd9\xa4 \xc2\xb2\xc2\xbd \xe2\x85\xa7 \xe0\xa5\xa7\xe0\xa5\xa8 "
    "\xef\xbc\x91\xef\xbc\x92",
    "a  b   c    d     e\t\tf \t g ",
    "  two in front\n\ntwo lines\n\n\nthree\r\n\r\nhere  \n  \n\tx\n\n  ",
    " ",
    "\n",
    "   \n   ",
    "word \n word\n word \r\n.\n!\n?\n\n)",
    "int main(void) {\n    for (int i = 0; i < 10; i++)\n\t\tprintf(\"%d\\n\", x[i]->y);\n}\n// a/b\n/* c */",
    "helloWorld HelloWorld HELLOWorld XMLHttpRequest iPhone \xc3\x80\xc3\x89\xc3\xa9\xc3\xa0 "
    "\xce\x91\xce\xb2\xce\xb3 \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82",
    "\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c\xe3\x80\x82\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa"
    "\x9e\xe3\x81\xae\xe3\x83\x86\xe3\x82\xad\xe3\x82\xb9\xe3\x83\x88 \xed\x95\x9c\xea\xb5\xad\xec\x96\xb4 "
    "abc\xe4\xb8\xad\xe6\x96\x87"
    "def 12\xe5\xb9\xb4",
    "caf\xc3\xa9 na\xc3\xafve Stra\xc3\x9f"
    "e \xc5\xbc\xc3\xb3\xc5\x82w \xe2\x80\x9cquoted\xe2\x80\x9d "
    "\xe2\x80\x94 \xe2\x80\xa6",
    "cafe\xcc\x81 e\xcc\x81te\xcc\x81 A\xcc\x8angstro\xcc\x88m",
    "\xef\xbc\xa1\xef\xbc\xa2 \xef\xac\x81 \xe2\x84\xa2 \xe3\x8e\x8f",
    "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87 "
    "\xe0\xb8\xaa\xe0\xb8\xa7\xe0\xb8"
    "\xb1\xe0\xb8\xaa\xe0\xb8\x94\xe0\xb8\xb5 \xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7",
    "\xf0\x9f\x98\x80\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd \xe2\x9d\xa4\xef\xb8\x8f "
    "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7!",
    "#$%^&*()_+-=[]{}|\\;:'\",.<>/?`~ ... !!! ??? ---- ==== ((())) a_b-c.d@e.f/g :-) \xc2\xab\xc2\xbb",
    "some.word,another;word(third)[4] Mr.\nSmith's\n3rd 100% ~5 +-1 <a href=\"x\">y</a>",
    "a\xc2\xa0"
    "b\xe3\x80\x80"
    "c\xe2\x80\x8b"
    "d\xe1\xa0\x8e"
    "e\xe2\x80\xa8"
    "f\x01g\x7fh",
    "\xe2\x96\x81under \xe2\x96\x81 line",
};
enum { N_PROBE = sizeof probe / sizeof *probe };

static bool encodes_alike(const struct tokenizer *a, const struct tokenizer *b, const char *text)
{
    int32_t *x = NULL, *y = NULL;
    size_t n_x = 0, n_y = 0;
    char err[200];
    bool alike = tokenizer_encode(a, text, strlen(text), 0, &x, &n_x, err, sizeof err) == 0 &&
                 tokenizer_encode(b, text, strlen(text), 0, &y, &n_y, err, sizeof err) == 0 && n_x == n_y &&
                 memcmp(x, y, n_x * sizeof *x) == 0;
    free(x);
    free(y);
    return alike;
}

/* How many lines of the probe become the same ids; −1: no such tokenizer can be made. */
static int likeness(const struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    struct tokenizer *made;
    int n = 0;
    if (tokenizer_new(&made, spec, err, errlen) < 0)
        return -1;
    for (size_t i = 0; i < N_PROBE; i++)
        n += encodes_alike(t, made, probe[i]);
    tokenizer_free(made);
    return n;
}

/* ---- Merging ------------------------------------------------------------------------------------ */

struct ranked {
    uint32_t rank;
    uint32_t place; /* of equal rank: which comes first */
    struct vocab_merge merge;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

struct ranking {
    struct ranked *v;
    size_t n, cap;
};

static int add_merge(struct ranking *r, uint32_t rank, const struct vocab_merge *m)
{
    /* a space separates the two; no text in the byte alphabet has one, so such a pair never meets */
    if (memchr(m->left, ' ', m->left_len) || memchr(m->right, ' ', m->right_len))
        return 0;
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 4096;
        struct ranked *v = realloc(r->v, cap * sizeof *v);
        if (!v)
            return -1;
        r->v = v;
        r->cap = cap;
    }
    r->v[r->n] = (struct ranked){.rank = rank, .place = (uint32_t)r->n, .merge = *m};
    r->n++;
    return 0;
}

static int listed_merges(struct ranking *r, const struct tokenizer *t, int32_t n)
{
    const struct pieces *p = &t->pieces;
    for (uint32_t i = 0; i <= t->pairs.mask; i++) {
        const struct pair_slot *s = &t->pairs.slot[i];
        int32_t left = (int32_t)(s->key >> 32), right = (int32_t)(s->key & UINT32_MAX);
        if (s->rank == NO_RANK || left >= n || right >= n || s->merged >= n)
            continue;
        struct vocab_merge m = {piece_text(p, left), piece_text(p, right), p->piece[left].text_len,
                                p->piece[right].text_len};
        if (add_merge(r, s->rank, &m) < 0)
            return -1;
    }
    return 0;
}

/* tiktoken joins whatever gives a token: every way to cut a token into two is a merge of the token's rank. */
static int implied_merges(struct ranking *r, const struct tokenizer *t, int32_t n)
{
    const struct pieces *p = &t->pieces;
    for (int32_t id = 0; id < n; id++) {
        const struct piece *q = &p->piece[id];
        const char *text = piece_text(p, id);
        for (uint32_t i = 1; q->in_model && i < q->text_len; i++) {
            int32_t left = pieces_find(p, text, i), right = pieces_find(p, text + i, q->text_len - i);
            struct vocab_merge m = {text, text + i, i, q->text_len - i};
            if (left >= 0 && right >= 0 && left < n && right < n && p->piece[left].in_model &&
                p->piece[right].in_model && add_merge(r, q->rank, &m) < 0)
                return -1;
        }
    }
    return 0;
}

static int export_merges(struct vocab_export *v, const struct tokenizer *t)
{
    struct ranking r = {0};
    int32_t n = (int32_t)v->spec.n_tokens < t->pieces.n ? (int32_t)v->spec.n_tokens : t->pieces.n;
    int rc = t->kind == VOCAB_BPE ? listed_merges(&r, t, n) : implied_merges(&r, t, n);
    if (rc == 0)
        v->merges = malloc((r.n + 1) * sizeof *v->merges);
    if (rc == 0 && v->merges) {
        if (r.n > 0)
            qsort(r.v, r.n, sizeof *r.v, by_rank);
        for (size_t i = 0; i < r.n; i++)
            v->merges[i] = r.v[i].merge;
        v->spec.merges = v->merges;
        v->spec.n_merges = r.n;
    }
    free(r.v);
    return v->merges ? 0 : -1;
}

/* score_rank of pieces.c, the other way round. */
static double score_of_rank(uint32_t rank)
{
    uint32_t ascending = ~rank, bits = ascending & 0x80000000u ? ascending ^ 0x80000000u : ~ascending;
    float score;
    memcpy(&score, &bits, sizeof score);
    return (double)score;
}

/* SentencePiece has scores of tokens where tokenizer.json has ranks of pairs: the first pair that gives a
 * token decides. A token that no pair gives must not come about by its score either. */
static void scores_of_pairs(struct vocab_export *v, const struct tokenizer *t)
{
    size_t n = v->spec.n_tokens < (size_t)t->pieces.n ? v->spec.n_tokens : (size_t)t->pieces.n;
    for (size_t id = 0; id < n; id++)
        v->tokens[id].score = -(double)UINT32_MAX;
    for (uint32_t i = 0; i <= t->pairs.mask; i++) {
        const struct pair_slot *s = &t->pairs.slot[i];
        if (s->rank != NO_RANK && (size_t)s->merged < n && v->tokens[s->merged].score < -(double)s->rank)
            v->tokens[s->merged].score = -(double)s->rank;
    }
    for (size_t id = 0; id < n; id++) {
        struct vocab_token *k = &v->tokens[id];
        if (k->score != -(double)UINT32_MAX)
            continue;
        k->score = 0;
        if (k->type == TOKEN_NORMAL && !t->whole_words && char_len(k->text, k->len) < k->len)
            k->type = TOKEN_UNUSED;
    }
}

/* ---- Tokens ------------------------------------------------------------------------------------- */

static size_t put_text(char *to, const struct tokenizer *t, int32_t id)
{
    const struct piece *p = &t->pieces.piece[id];
    const char *text = piece_text(&t->pieces, id);
    bool escape = t->spelling == SPELLING_PLAIN && p->type == TOKEN_NORMAL;
    size_t n = 0;
    for (uint32_t i = 0; i < p->text_len; i++) {
        if (escape && text[i] == ' ') {
            memcpy(to + n, SPACE_MARK, 3);
            n += 3;
        } else {
            to[n++] = text[i];
        }
    }
    return n;
}

/* Every id has a text: those without a token get one that converters use. */
static int export_tokens(struct vocab_export *v, const struct tokenizer *t)
{
    const struct pieces *p = &t->pieces;
    size_t n = v->spec.n_tokens, room = 1, used = 0;
    for (size_t id = 0; id < n; id++)
        room += PAD_ROOM + (id < (size_t)p->n ? 3 * (size_t)p->piece[id].text_len : 0);
    v->tokens = calloc(n, sizeof *v->tokens);
    v->texts = malloc(room);
    if (!v->tokens || !v->texts)
        return -1;
    v->spec.tokens = v->tokens;
    for (size_t id = 0; id < n; id++) {
        struct vocab_token *k = &v->tokens[id];
        k->text = v->texts + used;
        k->type = TOKEN_UNUSED;
        if (id < (size_t)p->n && p->piece[id].text_len > 0) {
            k->len = put_text(v->texts + used, t, (int32_t)id);
            k->type = p->piece[id].type;
            if (t->spelling != SPELLING_BYTES && (int32_t)id == v->spec.unk && k->type == TOKEN_CONTROL)
                k->type = TOKEN_UNKNOWN; /* a tokenizer.json has one type for both */
            k->score = t->kind == VOCAB_SPM ? score_of_rank(p->piece[id].rank) : 0;
        } else {
            k->len = (size_t)snprintf(v->texts + used, PAD_ROOM, "[PAD%zu]", id);
        }
        used += k->len;
    }
    return 0;
}

/* A file names three tokens that end a text; those that are known by their text need no name. */
static void export_ends(struct vocab_spec *s, const struct tokenizer *t)
{
    for (int known = 0; known < 2; known++)
        for (int32_t id = 0; id < t->pieces.n && (size_t)id < s->n_tokens; id++) {
            const struct piece *p = &t->pieces.piece[id];
            bool by_text = p->end_marker && p->type == TOKEN_CONTROL;
            if (!p->ends || by_text != (known == 1) || id == s->eos || id == s->eot || id == s->eom)
                continue;
            int32_t *to = s->eos < 0 ? &s->eos : s->eot < 0 ? &s->eot : s->eom < 0 ? &s->eom : NULL;
            if (to)
                *to = id;
        }
}

static int32_t kept_id(int32_t id, const struct vocab_spec *s)
{
    return id >= 0 && (size_t)id < s->n_tokens ? id : -1;
}

/* What is put around a text; false: more than BOS and EOS. */
static bool export_around(struct vocab_spec *s, const struct tokenizer *t)
{
    s->bos = kept_id(t->bos, s);
    s->eos = kept_id(t->eos, s);
    s->eot = kept_id(t->eot, s);
    s->eom = kept_id(t->eom, s);
    s->unk = kept_id(t->unk, s);
    if (s->bos < 0 && t->n_prefix == 1)
        s->bos = kept_id(t->prefix[0], s);
    if (s->eos < 0 && t->n_suffix == 1)
        s->eos = kept_id(t->suffix[0], s);
    export_ends(s, t);
    s->add_bos = t->n_prefix == 1 && t->prefix[0] == s->bos;
    s->add_eos = t->n_suffix == 1 && t->suffix[0] == s->eos;
    return t->n_prefix == (size_t)s->add_bos && t->n_suffix == (size_t)s->add_eos;
}

/* ---- Words -------------------------------------------------------------------------------------- */

/* Text to words, in what e keeps. */
static int cut(struct encoder *e, const char **text)
{
    size_t len = strlen(*text);
    if (normalize(e, &e->t->normalizer, text, &len) < 0)
        return -1;
    return pretokenize(e, &e->t->pretokenizer, text, &len, true);
}

static bool cuts_alike(const struct tokenizer *a, const struct tokenizer *b, const char *text)
{
    char err[200];
    struct encoder x = {.t = a, .max_room = MAX_PROBE, .err = err, .errlen = sizeof err}, y = x;
    const char *of_x = text, *of_y = text;
    y.t = b;
    bool alike = cut(&x, &of_x) == 0 && cut(&y, &of_y) == 0 && x.words.n == y.words.n;
    for (size_t i = 0; alike && i < x.words.n; i++) {
        struct word v = x.words.v[i], w = y.words.v[i];
        alike = v.to - v.from == w.to - w.from && memcmp(of_x + v.from, of_y + w.from, v.to - v.from) == 0;
    }
    encoder_free(&x);
    encoder_free(&y);
    return alike;
}

/* How far a rule's words are t's words; −1: out of memory. Ids alone do not tell rules apart: merges that one
 * rule forbids are mostly not in a vocabulary that was made with it. */
static int rule_likeness(const struct tokenizer *t, const struct pre_rule *rule, char *err, size_t errlen)
{
    struct tokenizer cutter = {.name = t->name};
    struct vocab_step step[PRE_MAX_STEPS + 1] = {{.kind = STEP_NFC}};
    int n = -1;
    if (steps_init(&cutter.normalizer, step, rule->nfc, t->name, err, errlen) == 0 &&
        steps_init(&cutter.pretokenizer, step, pre_rule_steps(rule, step), t->name, err, errlen) == 0) {
        n = rule->whole_words == t->whole_words;
        for (size_t i = 0; i < N_PROBE; i++)
            n += 2 * cuts_alike(t, &cutter, probe[i]);
    }
    steps_free(&cutter.normalizer);
    steps_free(&cutter.pretokenizer);
    return n;
}

static void name_rule(char *name, size_t room, const struct pre_rule *rule)
{
    (void)snprintf(name, room, "%.*s", (int)strcspn(rule->names, " "), rule->names);
}

/* The rule of pre_rules.c that comes closest in ids; they are tried in the order of how close they come in
 * words. Returns how many lines of the probe have the same ids. */
static int choose_pre(struct vocab_export *v, const struct tokenizer *t, char *err, size_t errlen)
{
    int likely[MAX_RULES], best_lines = -1;
    size_t n = 0;
    for (const struct pre_rule *rule; n < MAX_RULES && (rule = pre_rule_at(n)); n++)
        if ((likely[n] = rule_likeness(t, rule, err, errlen)) < 0)
            return -1;
    char name[sizeof v->pre] = "";
    v->spec.pre = name;
    for (size_t k = 0; k < n && best_lines < N_PROBE; k++) {
        size_t first = 0;
        for (size_t i = 1; i < n; i++)
            if (likely[i] > likely[first])
                first = i;
        likely[first] = -1;
        name_rule(name, sizeof name, pre_rule_at(first));
        int lines = likeness(t, &v->spec, err, errlen);
        if (lines < 0)
            return -1;
        if (lines > best_lines) {
            best_lines = lines;
            memcpy(v->pre, name, sizeof name);
        }
    }
    v->spec.pre = v->pre;
    return best_lines;
}

static int choose_flags(struct vocab_export *v, const struct tokenizer *t, char *err, size_t errlen)
{
    int best = -1;
    unsigned chosen = 0;
    /* first what LLaMA's tokenizer does */
    for (unsigned i = 0; best < N_PROBE && i < 4; i++) {
        v->spec.add_space_prefix = !(i & 1);
        v->spec.remove_extra_spaces = i & 2;
        int lines = likeness(t, &v->spec, err, errlen);
        if (lines < 0)
            return -1;
        if (lines > best) {
            best = lines;
            chosen = i;
        }
    }
    v->spec.add_space_prefix = !(chosen & 1);
    v->spec.remove_extra_spaces = chosen & 2;
    return best;
}

int tokenizer_export(struct vocab_export *v, const struct tokenizer *t, size_t n_tokens, char *err,
                     size_t errlen)
{
    bool bytes = t->spelling == SPELLING_BYTES;
    *v = (struct vocab_export){.spec = {.name = t->name, .kind = bytes ? VOCAB_BPE : VOCAB_SPM}};
    if (t->kind == VOCAB_UNIGRAM || t->word_prefix || t->word_suffix) {
        (void)err_set(err, errlen, "%s: no GGUF is made of a vocabulary that %s", t->name,
                      t->kind == VOCAB_UNIGRAM ? "cuts words by its tokens' probabilities"
                                               : "marks the parts of words");
        return 1;
    }
    v->spec.n_tokens = n_tokens > 0 ? n_tokens : (size_t)t->pieces.n;
    bool whole = export_around(&v->spec, t);
    int rc = v->spec.n_tokens <= INT32_MAX ? export_tokens(v, t) : -1;
    if (rc == 0 && bytes)
        rc = export_merges(v, t);
    else if (rc == 0 && t->kind == VOCAB_BPE)
        scores_of_pairs(v, t);
    if (rc < 0) {
        vocab_export_free(v);
        return err_set(err, errlen, "%s: out of memory for %zu tokens", t->name, v->spec.n_tokens);
    }
    int lines = bytes ? choose_pre(v, t, err, errlen) : choose_flags(v, t, err, errlen);
    if (lines < 0) {
        vocab_export_free(v);
        return -1;
    }
    if (lines < N_PROBE)
        (void)snprintf(v->note, sizeof v->note,
                       "a GGUF has no word for the way this vocabulary cuts text: '%s' comes closest, and "
                       "%d of %d sample texts have other ids",
                       bytes ? v->pre : "llama", N_PROBE - lines, N_PROBE);
    else if (v->spec.n_tokens < (size_t)t->pieces.n)
        (void)snprintf(v->note, sizeof v->note, "the last %zu of %d tokens are left out: they have no row",
                       (size_t)t->pieces.n - v->spec.n_tokens, t->pieces.n);
    else if (!whole)
        (void)snprintf(v->note, sizeof v->note,
                       "a GGUF has no word for the tokens put around a text: they are left to the template");
    return 0;
}

void vocab_export_free(struct vocab_export *v)
{
    free(v->tokens);
    free(v->merges);
    free(v->texts);
    v->tokens = NULL;
    v->merges = NULL;
    v->texts = NULL;
}
