/* The tokenizer as a whole: made from what a vocabulary says about itself. */
#include "tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_SPECIAL = 1 << 20, /* bytes of a special token, normalised */
    MAX_MARK = 100,        /* … of what marks parts of a word */
};

static int check_id(const struct vocab_spec *spec, const char *what, int32_t id, char *err, size_t errlen)
{
    if (id < -1 || (id >= 0 && (size_t)id >= spec->n_tokens))
        return err_set(err, errlen, "%s: the %s token is %d, outside the vocabulary of %zu", spec->name, what,
                       id, spec->n_tokens);
    return 0;
}

/* Files name one EOS; models trained to chat end their turns with these. */
static const char *const end_markers[] = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<|EOT|>",
    "<|eot|>",
    "<｜end▁of▁sentence｜>",
    "<|user|>",
    "<|observation|>",
    "<|END_OF_TURN_TOKEN|>",
};
/* Phi-3's tokenizer_config.json: all but these strip on the right. */
static const char *const never_strip[] = {"<unk>", "<s>", "<|endoftext|>"};

static void mark_pieces(struct pieces *p, const struct vocab_spec *spec)
{
    for (size_t i = 0; i < sizeof end_markers / sizeof *end_markers; i++) {
        int32_t id = pieces_find(p, end_markers[i], strlen(end_markers[i]));
        if (id >= 0)
            p->piece[id].end_marker = true;
    }
    for (size_t i = 0; i < spec->n_ends; i++)
        if (spec->ends[i] >= 0 && spec->ends[i] < p->n)
            p->piece[spec->ends[i]].ends = true;
    for (int32_t id = 0; spec->strip_after_special && id < p->n; id++)
        if (p->piece[id].type == TOKEN_CONTROL || p->piece[id].end_marker)
            p->piece[id].flags |= TOKEN_RSTRIP;
    for (size_t i = 0; spec->strip_after_special && i < sizeof never_strip / sizeof *never_strip; i++) {
        int32_t id = pieces_find(p, never_strip[i], strlen(never_strip[i]));
        if (id >= 0)
            p->piece[id].flags &= (uint8_t)~TOKEN_RSTRIP;
    }
}

/* The text of a token as it is found in normalised text. */
static int add_normalized(struct tokenizer *t, int32_t id, char *err, size_t errlen)
{
    struct encoder e = {.t = t, .max_room = MAX_SPECIAL, .err = err, .errlen = errlen};
    const char *text = piece_text(&t->pieces, id);
    size_t len = t->pieces.piece[id].text_len;
    int rc = normalize(&e, &t->normalizer, &text, &len);
    char *kept = rc == 0 ? malloc(len + 1) : NULL;
    if (kept) {
        memcpy(kept, text, len);
        rc = matcher_own(&t->normalized, kept);
    } else {
        rc = -1;
    }
    if (rc == 0)
        rc = matcher_add(&t->normalized, kept, len, id);
    encoder_free(&e);
    return rc;
}

/* Which tokens are found where. Those of a tokenizer.json say so. Of other files the control tokens are found
 * in raw text; the user's there too, but SentencePiece looks for them in normalised text. */
static int fill_matchers(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    int rc = err_set(err, errlen, "%s: out of memory for special tokens", t->name);
    t->user_in_raw = spec->own_vocabulary || spec->kind == VOCAB_BPE || spec->spelling == SPELLING_BYTES;
    for (int32_t id = 0; id < t->pieces.n; id++) {
        const struct piece *p = &t->pieces.piece[id];
        const char *text = piece_text(&t->pieces, id);
        bool special = p->type == TOKEN_CONTROL || p->type == TOKEN_UNKNOWN || p->end_marker;
        bool user = p->type == TOKEN_USER_DEFINED, raw = false;
        if (p->flags & TOKEN_ADDED) {
            raw = !(p->flags & TOKEN_NORMALIZED);
            if (!raw && add_normalized(t, id, err, errlen) < 0)
                return rc;
        } else if (!spec->own_vocabulary) {
            raw = special || (user && t->user_in_raw);
        }
        if (user && !t->user_in_raw && matcher_add(&t->normalized, text, p->text_len, id) < 0)
            return rc;
        if (raw && !spec->no_specials_in_text && !(p->flags & TOKEN_NOT_IN_TEXT) &&
            matcher_add(&t->raw, text, p->text_len, id) < 0)
            return rc;
    }
    matcher_done(&t->raw);
    matcher_done(&t->normalized);
    return 0;
}

/* The steps that a GGUF file's few words imply. */
static int fill_steps(struct tokenizer *t, const struct vocab_spec *spec, int *add_bos, char *err,
                      size_t errlen)
{
    struct vocab_step step[PRE_MAX_STEPS + 1];
    if (spec->own_steps) {
        if (steps_init(&t->normalizer, spec->normalizer, spec->n_normalizer, t->name, err, errlen) < 0)
            return -1;
        return steps_init(&t->pretokenizer, spec->pretokenizer, spec->n_pretokenizer, t->name, err, errlen);
    }
    if (spec->kind != VOCAB_BPE) {
        step[0] = (struct vocab_step){.kind = STEP_SENTENCEPIECE,
                                      .sp_flags = SP_ESCAPE | SP_KEEP_INVALID |
                                                  (spec->add_space_prefix ? SP_DUMMY_PREFIX : 0u) |
                                                  (spec->remove_extra_spaces ? SP_REMOVE_EXTRA : 0u)};
        if (*add_bos < 0)
            *add_bos = 1;
        return steps_init(&t->normalizer, step, 1, t->name, err, errlen);
    }
    const struct pre_rule *usual = pre_rule_find("gpt-2"), *rule = usual;
    if (spec->pre && !(rule = pre_rule_find(spec->pre))) {
        rule = usual;
        if (asprintf(&t->warning,
                     "%s: unknown tokenizer.ggml.pre '%s', words are cut as GPT-2 does: "
                     "the ids may be wrong",
                     t->name, spec->pre) < 0) {
            t->warning = NULL;
            return err_set(err, errlen, "%s: out of memory", t->name);
        }
    }
    t->whole_words = rule->whole_words;
    if (*add_bos < 0)
        *add_bos = rule->add_bos;
    step[0] = (struct vocab_step){.kind = STEP_NFC};
    if (rule->nfc && steps_init(&t->normalizer, step, 1, t->name, err, errlen) < 0)
        return -1;
    return steps_init(&t->pretokenizer, step, pre_rule_steps(rule, step), t->name, err, errlen);
}

/* ChatGLM's templates write the first tokens as text: "[gMASK]sop", where "sop" alone is no token. */
static int fill_prefix_text(struct tokenizer *t, char *err, size_t errlen)
{
    size_t len = 0;
    bool hidden = false;
    for (size_t i = 0; i < t->n_prefix; i++) {
        const struct piece *p = &t->pieces.piece[t->prefix[i]];
        len += p->text_len;
        hidden = hidden || p->flags & TOKEN_NOT_IN_TEXT;
    }
    if (!hidden || len == 0)
        return 0;
    if (!(t->prefix_text = malloc(len + 1)))
        return err_set(err, errlen, "%s: out of memory", t->name);
    char *to = t->prefix_text;
    for (size_t i = 0; i < t->n_prefix; i++) {
        const struct piece *p = &t->pieces.piece[t->prefix[i]];
        memcpy(to, piece_text(&t->pieces, t->prefix[i]), p->text_len);
        to += p->text_len;
    }
    *to = '\0';
    return 0;
}

/* BOS and EOS, or what the file puts around a text in their place. */
static int fill_ends(struct tokenizer *t, const struct vocab_spec *spec, int add_bos, char *err,
                     size_t errlen)
{
    const int32_t *from[2] = {spec->prefix, spec->suffix};
    size_t n[2] = {spec->n_prefix, spec->n_suffix};
    if (!spec->prefix) {
        from[0] = &t->bos;
        n[0] = add_bos == 1 && t->bos >= 0;
    }
    if (!spec->suffix) {
        from[1] = &t->eos;
        n[1] = spec->add_eos == 1 && t->eos >= 0;
    }
    t->prefix = malloc((n[0] + 1) * sizeof *t->prefix);
    t->suffix = malloc((n[1] + 1) * sizeof *t->suffix);
    if (!t->prefix || !t->suffix)
        return err_set(err, errlen, "%s: out of memory", t->name);
    memcpy(t->prefix, from[0], n[0] * sizeof *t->prefix);
    memcpy(t->suffix, from[1], n[1] * sizeof *t->suffix);
    t->n_prefix = n[0];
    t->n_suffix = n[1];
    for (size_t i = 0; i < n[0]; i++)
        if (check_id(spec, "first", t->prefix[i], err, errlen) < 0)
            return -1;
    for (size_t i = 0; i < n[1]; i++)
        if (check_id(spec, "last", t->suffix[i], err, errlen) < 0)
            return -1;
    return fill_prefix_text(t, err, errlen);
}

static int fill(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    int add_bos = spec->add_bos;
    t->kind = spec->kind;
    t->spelling = usual_spelling(spec);
    t->bos = spec->bos;
    t->eos = spec->eos;
    t->eot = spec->eot;
    t->eom = spec->eom;
    t->unk = spec->unk;
    t->whole_words = spec->whole_words;
    t->byte_fallback = spec->byte_fallback || !spec->own_vocabulary;
    t->fuse_unk = spec->fuse_unk || !spec->own_vocabulary;
    t->drop_unknown = !spec->own_vocabulary && t->spelling == SPELLING_BYTES;
    t->strip_first_space = spec->strip_first_space || (!spec->own_steps && spec->add_space_prefix);
    t->strip_first_pieces = spec->strip_first_pieces;
    t->join_invalid = spec->join_invalid;
    if ((spec->word_prefix && strlen(spec->word_prefix) > MAX_MARK) ||
        (spec->word_suffix && strlen(spec->word_suffix) > MAX_MARK))
        return err_set(err, errlen, "%s: the mark of a word's parts is longer than %d bytes", spec->name,
                       MAX_MARK);
    t->name = strdup(spec->name);
    t->word_prefix = spec->word_prefix ? strdup(spec->word_prefix) : NULL;
    t->word_suffix = spec->word_suffix ? strdup(spec->word_suffix) : NULL;
    if (!t->name || (spec->word_prefix && !t->word_prefix) || (spec->word_suffix && !t->word_suffix))
        return err_set(err, errlen, "%s: out of memory", spec->name);
    if (check_id(spec, "BOS", t->bos, err, errlen) < 0 || check_id(spec, "EOS", t->eos, err, errlen) < 0 ||
        check_id(spec, "EOT", t->eot, err, errlen) < 0 || check_id(spec, "EOM", t->eom, err, errlen) < 0 ||
        check_id(spec, "unknown", t->unk, err, errlen) < 0 || pieces_init(&t->pieces, spec, err, errlen) < 0)
        return -1;
    mark_pieces(&t->pieces, spec);
    if (fill_steps(t, spec, &add_bos, err, errlen) < 0 || fill_ends(t, spec, add_bos, err, errlen) < 0 ||
        fill_matchers(t, spec, err, errlen) < 0)
        return -1;
    return model_init(t, spec, err, errlen);
}

int tokenizer_new(struct tokenizer **out, const struct vocab_spec *spec, char *err, size_t errlen)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return err_set(err, errlen, "%s: out of memory", spec->name);
    if (fill(t, spec, err, errlen) < 0) {
        tokenizer_free(t);
        return -1;
    }
    *out = t;
    return 0;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    free(t->name);
    free(t->warning);
    free(t->word_prefix);
    free(t->word_suffix);
    free(t->prefix);
    free(t->prefix_text);
    free(t->suffix);
    pieces_free(&t->pieces);
    matcher_free(&t->raw);
    matcher_free(&t->normalized);
    matcher_free(&t->vocabulary);
    steps_free(&t->normalizer);
    steps_free(&t->pretokenizer);
    free(t->pairs.slot);
    free(t);
}
int32_t tokenizer_n_tokens(const struct tokenizer *t)
{
    return t->pieces.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->n_prefix > 0 && t->prefix[0] == t->bos;
}

const char *tokenizer_warning(const struct tokenizer *t)
{
    return t->warning;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->pieces.n)
        return false;
    const struct piece *p = &t->pieces.piece[id];
    if (id == t->eos || id == t->eot || id == t->eom || p->ends)
        return true;
    /* Some converters call <|…|> user-defined; "</s>" as a user's token is HTML. */
    return p->end_marker && (p->type == TOKEN_CONTROL ||
                             (p->type == TOKEN_USER_DEFINED && piece_text(&t->pieces, id)[1] == '|'));
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->pieces.n && t->pieces.piece[id].type == TOKEN_CONTROL;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t len)
{
    return pieces_find(&t->pieces, text, len);
}
