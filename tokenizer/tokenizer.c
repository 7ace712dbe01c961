/* The tokenizer as a whole: what a vocabulary says about itself, and the way from text to ids around
 * special tokens. */
#include "tokenizer/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_TEXT = 1 << 30 }; /* so that places in normalised text fit 32 bits */

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
    for (int32_t id = 0; spec->strip_after_special && id < p->n; id++)
        p->piece[id].strips_right = p->piece[id].type == TOKEN_CONTROL || p->piece[id].end_marker;
    for (size_t i = 0; i < sizeof never_strip / sizeof *never_strip; i++) {
        int32_t id = pieces_find(p, never_strip[i], strlen(never_strip[i]));
        if (id >= 0)
            p->piece[id].strips_right = false;
    }
}

static int fill(struct tokenizer *t, const struct vocab_spec *spec, char *err, size_t errlen)
{
    t->kind = spec->kind;
    t->bos = spec->bos;
    t->eos = spec->eos;
    t->eot = spec->eot;
    t->eom = spec->eom;
    t->unk = spec->unk;
    t->add_eos = spec->add_eos == 1;
    t->name = strdup(spec->name);
    if (!t->name)
        return err_set(err, errlen, "%s: out of memory", spec->name);
    if (check_id(spec, "BOS", t->bos, err, errlen) < 0 || check_id(spec, "EOS", t->eos, err, errlen) < 0 ||
        check_id(spec, "EOT", t->eot, err, errlen) < 0 || check_id(spec, "EOM", t->eom, err, errlen) < 0 ||
        check_id(spec, "unknown", t->unk, err, errlen) < 0 || pieces_init(&t->pieces, spec, err, errlen) < 0)
        return -1;
    mark_pieces(&t->pieces, spec);

    unsigned control = 1u << TOKEN_CONTROL | 1u << TOKEN_UNKNOWN, user = 1u << TOKEN_USER_DEFINED;
    if (spec->kind == VOCAB_SPM) {
        t->add_bos = spec->add_bos != 0;
        if (matcher_init(&t->plain, &t->pieces, 0, false, err, errlen) < 0 ||
            matcher_init(&t->special, &t->pieces, control, true, err, errlen) < 0)
            return -1;
        return spm_init(t, spec, err, errlen);
    }
    if (matcher_init(&t->plain, &t->pieces, user, false, err, errlen) < 0 ||
        matcher_init(&t->special, &t->pieces, control | user, true, err, errlen) < 0 ||
        pretokenizer_init(&t->pre, spec->pre, err, errlen) < 0)
        return -1;
    t->add_bos = spec->add_bos < 0 ? t->pre.rule->add_bos : spec->add_bos == 1;
    if (!t->pre.known && asprintf(&t->warning,
                                  "%s: unknown tokenizer.ggml.pre '%s', words are cut as GPT-2 does: "
                                  "the ids may be wrong",
                                  spec->name, spec->pre) < 0) {
        t->warning = NULL;
        return err_set(err, errlen, "%s: out of memory", spec->name);
    }
    return bpe_init(t, spec, err, errlen);
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
    pieces_free(&t->pieces);
    matcher_free(&t->special);
    matcher_free(&t->plain);
    matcher_free(&t->spm.user);
    pretokenizer_free(&t->pre);
    free(t->bpe.slot);
    free(t);
}

static int encode_stretch(struct encoder *e, const char *text, size_t len)
{
    if (len == 0)
        return 0;
    return e->t->kind == VOCAB_BPE ? bpe_encode(e, text, len) : spm_encode(e, text, len);
}

static int encode(struct encoder *e, const char *text, size_t len, unsigned flags)
{
    const struct tokenizer *t = e->t;
    const struct matcher *m = flags & ENCODE_SPECIAL ? &t->special : &t->plain;
    if (len > MAX_TEXT)
        return err_set(e->err, e->errlen, "%s: a text of %zu bytes is too long (at most 1 GiB)", t->name,
                       len);
    if ((flags & ENCODE_BOS) && t->add_bos && t->bos >= 0 && ids_push(&e->ids, t->bos) < 0)
        return encoder_oom(e);
    size_t from = 0;
    for (size_t i = 0; i < len;) {
        int32_t id;
        size_t n = matcher_at(m, text + i, len - i, &id);
        if (n == 0) {
            i++;
            continue;
        }
        if (encode_stretch(e, text + from, i - from) < 0)
            return -1;
        if (ids_push(&e->ids, id) < 0)
            return encoder_oom(e);
        i += n;
        while (t->pieces.piece[id].strips_right && i < len && strchr(" \t\n\v\f\r", text[i]) && text[i])
            i++;
        from = i;
    }
    if (encode_stretch(e, text + from, len - from) < 0)
        return -1;
    if ((flags & ENCODE_BOS) && t->add_eos && t->eos >= 0 && ids_push(&e->ids, t->eos) < 0)
        return encoder_oom(e);
    return 0;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                     size_t *n, char *err, size_t errlen)
{
    struct encoder e = {.t = t, .err = err, .errlen = errlen};
    int rc = encode(&e, text, len, flags);
    if (rc == 0 && !e.ids.v && !(e.ids.v = malloc(sizeof *e.ids.v)))
        rc = encoder_oom(&e);
    *ids = NULL;
    *n = 0;
    if (rc == 0) {
        *ids = e.ids.v;
        *n = e.ids.n;
        e.ids.v = NULL;
    }
    encoder_free(&e);
    return rc;
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
    return t->add_bos && t->bos >= 0;
}

const char *tokenizer_warning(const struct tokenizer *t)
{
    return t->warning;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->pieces.n)
        return false;
    if (id == t->eos || id == t->eot || id == t->eom)
        return true;
    const struct piece *p = &t->pieces.piece[id];
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
