/* One answer: the conversation as a prompt, what of it the cache holds already, and token after token
 * until an end.
 *
 * The whole conversation is rendered and encoded each time and compared with the ids in the cache, so a
 * template that rewrites earlier turns stays correct and one that only appends costs the new ids alone.
 * When the context is full the oldest turns are forgotten until a quarter of it is free; the rest is
 * evaluated anew at its new positions. */
#include "tools/chat.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct ids {
    int32_t *id;
    size_t n;
};

struct text {
    char *s;
    size_t n, cap;
};

static int text_append(struct text *t, const char *s, size_t n)
{
    if (n >= t->cap - t->n) {
        size_t cap = 2 * (t->n + n) + 256;
        char *grown = realloc(t->s, cap);
        if (!grown)
            return -1;
        t->s = grown;
        t->cap = cap;
    }
    memcpy(t->s + t->n, s, n);
    t->n += n;
    return 0;
}

/* The visible conversation as the template writes it, as ids; then the answer so far. */
static int prompt_ids(struct answerer *a, const struct talk *t, const struct ids *answer, struct ids *out,
                      char *err, size_t errlen)
{
    int32_t *ids = NULL, *all = NULL;
    size_t n = 0;
    json_t *visible = talk_visible(t);
    if (!visible)
        return err_set(err, errlen, "out of memory");
    int result =
        chat_prompt_ids(a->session->chat, a->session->tokenizer, visible, true, &ids, &n, err, errlen);
    json_decref(visible);
    if (result != 0)
        return -1;
    if (n == 0)
        err_set(err, errlen, "the chat template makes an empty prompt of the conversation");
    else if (!(all = malloc((n + answer->n) * sizeof *all)))
        err_set(err, errlen, "out of memory");
    else {
        memcpy(all, ids, n * sizeof *all);
        if (answer->n > 0)
            memcpy(all + n, answer->id, answer->n * sizeof *all);
    }
    free(ids);
    *out = (struct ids){all, n + answer->n};
    return all ? 0 : -1;
}

enum fit { FITS, TOO_LONG, FIT_FAILED };

/* As prompt_ids; when the context cannot hold them the oldest turns go. */
static enum fit fitting_ids(struct answerer *a, struct talk *t, const struct ids *answer, struct ids *out,
                            char *err, size_t errlen)
{
    size_t n_ctx = (size_t)a->session->n_ctx, wanted = n_ctx - n_ctx / 4, turns = 0;
    for (;;) {
        if (prompt_ids(a, t, answer, out, err, errlen) != 0)
            return FIT_FAILED;
        if (turns == 0 && out->n <= n_ctx)
            return FITS;
        if (out->n <= wanted || !talk_forget(t))
            break;
        turns++;
        free(out->id);
    }
    if (out->n > n_ctx) {
        err_set(err, errlen, "the message takes %zu tokens, the context holds %zu (-c)", out->n, n_ctx);
        free(out->id);
        return TOO_LONG;
    }
    tool_note(NOTE_USUAL, "%s(the context of %zu tokens is full: the oldest %s forgotten)\n",
              answer->n > 0 ? "\n" : "", n_ctx, turns == 1 ? "turn is" : "turns are");
    return FITS;
}

/* Brings the cache from what it holds to exactly these ids; at least the last is evaluated. */
static int evaluate(struct answerer *a, const struct ids *ids, const float **logits, char *err, size_t errlen)
{
    size_t same = 0;
    while (same < a->n_held && same + 1 < ids->n && a->held[same] == ids->id[same])
        same++;
    if (!a->held && !(a->held = malloc((size_t)a->session->n_ctx * sizeof *a->held)))
        return err_set(err, errlen, "out of memory");
    same = (size_t)cache_reuse(a->session->cache, 0, (int64_t)same, (int64_t)ids->n);
    memcpy(a->held + same, ids->id + same, (ids->n - same) * sizeof *a->held);
    int result = session_eval(a->session, ids->id + same, ids->n - same, logits, err, errlen);
    a->n_held = (size_t)cache_len(a->session->cache, 0);
    a->n_reused = same;
    return result;
}

/* Shows a piece and keeps it. */
static int emit(struct answerer *a, struct text *text, const char *piece, size_t len)
{
    if (len == 0)
        return 0;
    if (text_append(text, piece, len) != 0)
        return -1;
    if (!a->terminal)
        return tool_write(piece, len);
    char *safe = text_for_terminal(piece, len);
    int result = safe ? tool_write(safe, strlen(safe)) : -1;
    free(safe);
    return result;
}

/* The tokens after the prompt; logits are those of its last token. */
static enum answer_end generate(struct answerer *a, struct talk *t, struct detok *detok, int n_predict,
                                const float *logits, struct ids *answer, struct text *text, char *err,
                                size_t errlen)
{
    struct session *s = a->session;
    size_t len;
    for (size_t cap = 0;;) {
        if (tool_interrupts() > 0)
            return ANSWER_STOPPED;
        if (n_predict >= 0 && answer->n >= (size_t)n_predict)
            return ANSWER_LIMIT;
        int32_t id = sampler_pick(s->sampler, logits);
        if (tokenizer_is_end(s->tokenizer, id))
            return ANSWER_ENDED;
        if (answer->n == cap) {
            cap = cap ? 2 * cap : 256;
            int32_t *grown = realloc(answer->id, cap * sizeof *grown);
            if (!grown)
                goto no_memory;
            answer->id = grown;
        }
        answer->id[answer->n++] = id;
        if (sampler_accept(s->sampler, id) != 0)
            goto no_memory;
        const char *piece = detok_push(detok, id, &len);
        if (emit(a, text, piece, len) != 0)
            return ANSWER_NO_READER;
        if (n_predict >= 0 && answer->n >= (size_t)n_predict)
            return ANSWER_LIMIT;

        struct ids ids = {&id, 1};
        int result;
        if (a->n_held < (size_t)s->n_ctx) {
            a->held[a->n_held] = id;
            result = session_eval(s, &id, 1, &logits, err, errlen);
            a->n_held = (size_t)cache_len(s->cache, 0);
        } else {
            enum fit fit = fitting_ids(a, t, answer, &ids, err, errlen);
            if (fit == TOO_LONG)
                return ANSWER_FULL;
            if (fit == FIT_FAILED)
                return ANSWER_FAILED;
            result = evaluate(a, &ids, &logits, err, errlen);
            free(ids.id);
        }
        if (result != 0)
            return result == SESSION_STOPPED ? ANSWER_STOPPED : ANSWER_FAILED;
    }
no_memory:
    err_set(err, errlen, "out of memory");
    return ANSWER_FAILED;
}

static enum answer_end answer_prompt(struct answerer *a, struct talk *t, const struct ids *prompt,
                                     int n_predict, struct text *text, char *err, size_t errlen)
{
    struct session *s = a->session;
    const float *logits = NULL;
    double start = machine_seconds();
    int result = evaluate(a, prompt, &logits, err, errlen);
    a->n_prompt = prompt->n;
    a->prompt_seconds = machine_seconds() - start;
    if (result != 0)
        return result == SESSION_STOPPED ? ANSWER_STOPPED : ANSWER_FAILED;
    sampler_reset(s->sampler);
    for (size_t i = 0; i < prompt->n; i++)
        if (sampler_accept(s->sampler, prompt->id[i]) != 0)
            return (enum answer_end)err_set(err, errlen, "out of memory");
    struct detok *detok = detok_new(s->tokenizer, false);
    if (!detok)
        return (enum answer_end)err_set(err, errlen, "out of memory");

    struct ids ids = {NULL, 0};
    size_t n_reused = a->n_reused;
    start = machine_seconds();
    enum answer_end end = generate(a, t, detok, n_predict, logits, &ids, text, err, errlen);
    a->generate_seconds = machine_seconds() - start;
    a->n_generated = ids.n;
    a->n_reused = n_reused;
    if (end != ANSWER_NO_READER) {
        size_t len;
        const char *rest = detok_flush(detok, &len);
        if (emit(a, text, rest, len) != 0)
            end = ANSWER_NO_READER;
    }
    detok_free(detok);
    free(ids.id);
    return end;
}

enum answer_end answer(struct answerer *a, struct talk *t, int n_predict, char *err, size_t errlen)
{
    struct text text = {NULL, 0, 0};
    struct ids prompt, none = {NULL, 0};
    if (fitting_ids(a, t, &none, &prompt, err, errlen) != FITS)
        return ANSWER_FAILED;
    enum answer_end end = answer_prompt(a, t, &prompt, n_predict, &text, err, errlen);
    free(prompt.id);
    if (end != ANSWER_FAILED && talk_add(t, "assistant", text.s ? text.s : "", text.n) != 0)
        end = (enum answer_end)err_set(err, errlen, "out of memory");
    free(text.s);
    return end;
}

void answerer_free(struct answerer *a)
{
    free(a->held);
    a->held = NULL;
}
