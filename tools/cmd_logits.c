/* `quoll logits`: evaluates one sequence and writes what the model says at each position. */
#include "quant/err.h"
#include "tools/session.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OWN_CONTEXT = 1 << 20 };

struct logits_command {
    struct run_options run;
    const char *ids_file, *prompt, *out;
    int64_t last;   /* 0: all positions */
    int64_t greedy; /* ids to continue with */
};

/* ---- The sequence -------------------------------------------------------------------------------- */

struct ids {
    int32_t *id;
    size_t n, cap;
};

static int ids_add(struct ids *a, int64_t id, const char *path, char *err, size_t errlen)
{
    if (id < 0 || id > INT32_MAX)
        return err_set(err, errlen, "%s: id %" PRId64 ", number %zu, is out of range", path, id, a->n);
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 1024;
        int32_t *grown = realloc(a->id, cap * sizeof *grown);
        if (!grown)
            return err_set(err, errlen, "out of memory");
        a->id = grown;
        a->cap = cap;
    }
    a->id[a->n++] = (int32_t)id;
    return 0;
}

static int ids_from_json(struct ids *a, const char *path, const char *text, size_t len, char *err,
                         size_t errlen)
{
    json_error_t why;
    json_t *array = json_loadb(text, len, 0, &why);
    if (!array)
        return err_set(err, errlen, "%s: %s, line %d", path, why.text, why.line);
    int failed = 0;
    size_t i;
    json_t *v;
    json_array_foreach(array, i, v)
    {
        if (failed)
            break;
        if (!json_is_integer(v))
            failed = err_set(err, errlen, "%s: element %zu is no integer", path, i);
        else
            failed = ids_add(a, json_integer_value(v), path, err, errlen);
    }
    json_decref(array);
    return failed;
}

static int ids_from_words(struct ids *a, const char *path, char *text, size_t len, char *err, size_t errlen)
{
    if (memchr(text, '\0', len))
        return err_set(err, errlen, "%s: neither text nor .safetensors", path);
    char *rest = NULL;
    for (char *word = strtok_r(text, " \t\r\n,", &rest); word; word = strtok_r(NULL, " \t\r\n,", &rest)) {
        int64_t id;
        if (!parse_int64(word, 0, INT32_MAX, &id))
            return err_set(err, errlen, "%s: '%.32s', number %zu, is no token id", path, word, a->n);
        if (ids_add(a, id, path, err, errlen) != 0)
            return -1;
    }
    return 0;
}

static int ids_from_safetensors(struct ids *a, const char *path, char *err, size_t errlen)
{
    struct weights *w;
    if (weights_open(&w, path, NULL, err, errlen) != 0)
        return -1;
    int failed = 0;
    const struct tensor *t = weights_find(w, "input_ids");
    if (!t)
        failed = err_set(err, errlen, "%s: no tensor 'input_ids'", path);
    else if (t->type != QTYPE_I32 && t->type != QTYPE_I64)
        failed = err_set(err, errlen, "%s: input_ids is %s, not i32 or i64", path, qtypes[t->type].name);
    else if (t->dims[1] * t->dims[2] * t->dims[3] != 1)
        failed = err_set(err, errlen, "%s: input_ids holds more than one sequence", path);
    for (int64_t i = 0; t && !failed && i < t->dims[0]; i++) {
        int32_t narrow;
        int64_t id;
        if (t->type == QTYPE_I32) {
            memcpy(&narrow, (const char *)t->data + 4 * i, sizeof narrow);
            id = narrow;
        } else {
            memcpy(&id, (const char *)t->data + 8 * i, sizeof id);
        }
        failed = ids_add(a, id, path, err, errlen);
    }
    weights_close(w);
    return failed;
}

static int ids_from_file(struct ids *a, const char *path, char *err, size_t errlen)
{
    static const char suffix[] = ".safetensors";
    size_t path_len = strlen(path), len;
    if (path_len >= sizeof suffix && strcmp(path + path_len - (sizeof suffix - 1), suffix) == 0)
        return ids_from_safetensors(a, path, err, errlen);
    char *text;
    if (read_file(path, &text, &len, err, errlen) != 0)
        return -1;
    const char *first = text + strspn(text, " \t\r\n");
    int failed = *first == '[' ? ids_from_json(a, path, text, len, err, errlen)
                               : ids_from_words(a, path, text, len, err, errlen);
    free(text);
    return failed;
}

static int ids_from_text(struct ids *a, const struct session *s, const char *text, char *err, size_t errlen)
{
    return tokenizer_encode(s->tokenizer, text, strlen(text), ENCODE_BOS | ENCODE_SPECIAL, &a->id, &a->n, err,
                            errlen);
}

/* ---- Evaluation ---------------------------------------------------------------------------------- */

/* The first largest; NaN never wins. */
static int32_t best_id(const float *logits, int n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best] || (logits[best] != logits[best] && logits[i] == logits[i]))
            best = i;
    return best;
}

/* Rows first … n − 1 of the sequence's logits into rows, a batch at a time where the model lets it: the
 * context holds a batch's rows too. */
static int eval_rows(struct session *s, const struct ids *a, size_t first, float *rows, char *err,
                     size_t errlen)
{
    size_t vocab = (size_t)s->config->vocab_size;
    size_t piece = model_needs_whole_prompt(s->model) ? a->n : (size_t)s->n_batch;
    uint8_t *want = malloc(piece);
    if (!want)
        return err_set(err, errlen, "out of memory");
    int rc = 0;
    for (size_t done = 0; rc == 0 && done < a->n;) {
        size_t n = a->n - done < piece ? a->n - done : piece, n_rows = 0;
        for (size_t i = 0; i < n; i++)
            n_rows += want[i] = done + i >= first;
        const struct batch b = {.n = (int)n, .id = a->id + done, .want_logits = want};
        const float *logits;
        if (tool_interrupts() > 0)
            rc = SESSION_STOPPED;
        else if ((rc = context_eval(s->context, &b, &logits, err, errlen)) == 0 && n_rows > 0)
            memcpy(rows + (done + n - n_rows - first) * vocab, logits, n_rows * vocab * sizeof *rows);
        done += n;
    }
    free(want);
    return rc;
}

/* The continuation by the largest logit; stops at no token. Each id is that of the whole text before it,
 * evaluated from scratch: where that is not what the cache holds (RoPE whose base grows with the text), the
 * text is evaluated again. `ids` has room behind its n for the continuation. */
static int eval_greedy(struct session *s, const float *logits, int32_t *ids, size_t n, size_t n_greedy,
                       char *err, size_t errlen)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_greedy; i++, n++) {
        ids[n] = best_id(logits, s->config->vocab_size);
        if (i + 1 == n_greedy)
            break;
        size_t held = (size_t)cache_reuse(s->cache, 0, (int64_t)n, (int64_t)n + 1);
        rc = session_eval(s, ids + held, n + 1 - held, &logits, err, errlen);
    }
    return rc;
}

static int save(const struct logits_command *c, const struct session *s, const struct ids *a,
                const float *rows, size_t n_rows, const int32_t *greedy, char *err, size_t errlen)
{
    const struct save_tensor t[] = {
        {"input_ids", QTYPE_I32, 1, {(int64_t)a->n}, a->id},
        {"logits", QTYPE_F32, 2, {(int64_t)n_rows, s->config->vocab_size}, rows},
        {"greedy_ids", QTYPE_I32, 1, {c->greedy}, greedy},
    };
    return weights_save_safetensors(c->out, t, c->greedy > 0 ? 3 : 2, err, errlen);
}

/* Without -o: the greedy ids on one line, or the likeliest next tokens. */
static void print_result(const struct logits_command *c, struct session *s, float *last,
                         const int32_t *greedy)
{
    for (int64_t i = 0; i < c->greedy; i++)
        printf("%s%" PRId32, i ? " " : "", greedy[i]);
    if (c->greedy > 0) {
        printf("\n");
        return;
    }
    for (int i = 0; i < 10 && i < s->config->vocab_size; i++) {
        int32_t id = best_id(last, s->config->vocab_size);
        size_t len = 0;
        const char *piece = s->tokenizer ? tokenizer_piece(s->tokenizer, id, true, &len) : "";
        printf("%8" PRId32 " %12.6f  ", id, (double)last[id]);
        for (size_t k = 0; k < len; k++)
            printf(iscntrl((unsigned char)piece[k]) ? "\\x%02x" : "%c", (unsigned char)piece[k]);
        printf("\n");
        last[id] = -INFINITY;
    }
}

static int evaluate(const struct logits_command *c, struct session *s, const struct ids *a, char *err,
                    size_t errlen)
{
    size_t n_rows = c->last > 0 && (uint64_t)c->last < a->n ? (size_t)c->last : a->n;
    if (!c->out)
        n_rows = 1; /* nobody sees the others */
    size_t vocab = (size_t)s->config->vocab_size, row_bytes = vocab * sizeof(float);
    /* A greedy id is evaluated unless it is the last one. */
    uint64_t positions = a->n + (c->greedy > 0 ? (uint64_t)c->greedy - 1 : 0);
    if (a->n == 0)
        return tool_error("an empty sequence has no logits");
    if (positions > (uint64_t)s->n_ctx)
        return tool_error("the sequence has %" PRIu64 " tokens, the context holds %" PRId64 " (-c)",
                          positions, s->n_ctx);
    float *rows = calloc(n_rows, row_bytes);
    int32_t *ids = malloc((a->n + (size_t)c->greedy) * sizeof *ids);
    int code;
    if (!rows || !ids) {
        code = tool_error("%zu rows of logits need %.0f MiB: out of memory", n_rows,
                          (double)n_rows * (double)row_bytes / (1 << 20));
    } else {
        const int32_t *greedy = ids + a->n;
        memcpy(ids, a->id, a->n * sizeof *ids);
        int rc = eval_rows(s, a, a->n - n_rows, rows, err, errlen);
        if (rc == 0)
            rc = eval_greedy(s, rows + (n_rows - 1) * vocab, ids, a->n, (size_t)c->greedy, err, errlen);
        if (rc == 0 && c->out)
            rc = save(c, s, a, rows, n_rows, greedy, err, errlen);
        code = rc == 0 ? EXIT_OK : rc == SESSION_STOPPED ? EXIT_INTERRUPTED : tool_error("%s", err);
        if (rc == 0 && !c->out)
            print_result(c, s, rows, greedy);
    }
    free(rows);
    free(ids);
    return code;
}

static int run(const struct logits_command *c)
{
    char err[1024];
    const char *path =
        model_path(c->run.models.n ? c->run.models.item[c->run.models.n - 1] : NULL, err, sizeof err);
    if (!path)
        return tool_error("%s", err);
    struct ids a = {NULL, 0, 0};
    struct session s = {.path = NULL};
    tool_catch_interrupts();
    int code, unread = c->ids_file ? ids_from_file(&a, c->ids_file, err, sizeof err) : 0;
    struct run_options o = c->run;
    const int64_t needed = (int64_t)a.n + c->greedy;
    if (o.n_ctx < 0 && a.n > 0 &&
        needed <= MAX_OWN_CONTEXT) /* the length is known: the context is made for it */
        o.n_ctx = needed;
    if (unread || session_open(&s, path, &o, c->prompt ? SESSION_TEXT : 0, err, sizeof err) != 0 ||
        (c->prompt && ids_from_text(&a, &s, c->prompt, err, sizeof err) != 0))
        code = tool_interrupts() > 0 ? EXIT_INTERRUPTED : tool_error("%s", err); /* while reading stdin */
    else
        code = evaluate(c, &s, &a, err, sizeof err);
    free(a.id);
    session_close(&s);
    return code;
}

int cmd_logits(int argc, char **argv)
{
    struct logits_command c = {.last = 0};
    const struct option_row rows[] = {
        OPTION_STRING_ROW(
            "ids", 0, &c.ids_file, "FILE",
            "the sequence: ids as text or a JSON array (-: stdin), or .safetensors with input_ids"),
        OPTION_STRING_ROW("prompt", 'p', &c.prompt, "TEXT", "the sequence as text"),
        OPTION_STRING_ROW("output", 'o', &c.out, "OUT.safetensors",
                          "input_ids, logits and greedy_ids (default: print the likeliest next tokens)"),
        OPTION_NUMBER_ROW("last", 0, &c.last, 1, INT32_MAX, "N", "logits of the last N positions only"),
        OPTION_NUMBER_ROW("greedy", 0, &c.greedy, 1, INT32_MAX, "N",
                          "also continue with N ids, the likeliest each time"),
    };
    struct option_set set = {
        .usage = "quoll logits --ids FILE | -p TEXT [-o OUT.safetensors] [--last N] [--greedy N] [options]",
        .about = "Evaluates one sequence and writes its logits.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &c.run,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO) {
        if (!c.prompt == !c.ids_file)
            code = usage_error("logits: %s; see `quoll logits --help`",
                               c.prompt ? "-p and --ids are two sequences"
                                        : "a sequence is missing (--ids or -p)");
        else
            code = run(&c);
    }
    run_options_free(&c.run);
    return code;
}
