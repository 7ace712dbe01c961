/* `quoll run`: completes a prompt. */
#include "tools/session.h"
#include "tools/stop.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct run_command {
    struct run_options run;
    const char *prompt, *file, *system;
    int64_t n_predict; /* −1: until the end */
    bool chat, print_ids, escapes;
    struct string_list stops;
};

/* One generation. */
struct generation {
    struct session *s;
    const struct run_command *c;
    struct detok *detok;
    struct stop_filter filter;
    size_t n_prompt, n_evals; /* tokens of the prompt; tokens generated and evaluated */
    int64_t n_generated;
    double prompt_seconds, seconds;
};

static int add_stop(void *to, const char *option, const char *value)
{
    if (!value[0])
        return usage_error("%s: an empty stop string", option);
    return option_append(to, option, value);
}

/* \n \t \r \\ \" \' in place; other backslashes stay. */
static size_t unescape(char *text, size_t len)
{
    static const char from[] = "ntr\\\"'", to[] = "\n\t\r\\\"'";
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const char *c = text[i] == '\\' && i + 1 < len && text[i + 1] ? strchr(from, text[i + 1]) : NULL;
        text[n++] = c ? to[c - from] : text[i];
        i += c != NULL;
    }
    return n;
}

static int prompt_text(const struct run_command *c, char **text, size_t *len, char *err, size_t errlen)
{
    if (!c->file) {
        *text = strdup(c->prompt);
        *len = *text ? strlen(*text) : 0;
        if (!*text) {
            snprintf(err, errlen, "out of memory");
            return -1;
        }
    } else {
        if (read_file(c->file, text, len, err, errlen) != 0)
            return -1;
        if (*len > 0 && (*text)[*len - 1] == '\n') /* the editor's, not the prompt's */
            --*len;
    }
    if (c->escapes)
        *len = unescape(*text, *len);
    return 0;
}

/* The text as one user turn of the model's chat template. */
static int turn_ids(struct session *s, const struct run_command *c, const char *text, size_t len,
                    int32_t **ids, size_t *n, char *err, size_t errlen)
{
    json_t *messages = json_array();
    if (c->system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", c->system));
    json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", "user", "content", text, len));
    int failed;
    if (json_array_size(messages) != 1 + (size_t)(c->system != NULL)) {
        snprintf(err, errlen, "the prompt is not UTF-8, which a chat template needs");
        failed = -1;
    } else {
        failed = chat_prompt_ids(s->chat, s->tokenizer, messages, true, ids, n, err, errlen);
    }
    json_decref(messages);
    return failed;
}

static int prompt_ids(struct session *s, const struct run_command *c, int32_t **ids, size_t *n, char *err,
                      size_t errlen)
{
    char *text = NULL;
    size_t len = 0;
    int failed = prompt_text(c, &text, &len, err, errlen);
    if (!failed && c->chat)
        failed = turn_ids(s, c, text, len, ids, n, err, errlen);
    else if (!failed)
        failed = tokenizer_encode(s->tokenizer, text, len, ENCODE_SPECIAL | ENCODE_BOS, ids, n, err, errlen);
    free(text);
    if (failed || *n > 0)
        return failed;

    /* An empty prompt: BOS is how a model begins a text. */
    free(*ids);
    int32_t bos = tokenizer_bos(s->tokenizer);
    if (bos < 0 || !(*ids = malloc(sizeof **ids))) {
        *ids = NULL;
        snprintf(err, errlen, "%s: the prompt is empty, and this model has no BOS token to begin with",
                 s->path);
        return -1;
    }
    (*ids)[0] = bos;
    *n = 1;
    return 0;
}

/* Shows one token: its id, or what its text completes. −1: out of memory, or nobody reads. */
static int show(struct generation *g, int32_t id)
{
    const char *text, *out;
    size_t len, n;
    char number[16];
    text = detok_push(g->detok, id, &len);
    if (stop_push(&g->filter, text, len, &out, &n) != 0)
        return -1;
    if (g->c->print_ids) {
        n = (size_t)snprintf(number, sizeof number, "%s%" PRId32, g->n_generated > 0 ? " " : "", id);
        out = number;
    }
    return n > 0 ? tool_write(out, n) : 0;
}

static void show_rest(struct generation *g)
{
    const char *text, *out;
    size_t len, n;
    if (g->c->print_ids) {
        tool_write("\n", g->n_generated > 0);
        return;
    }
    text = detok_flush(g->detok, &len);
    if (stop_push(&g->filter, text, len, &out, &n) == 0 && n > 0)
        tool_write(out, n);
    stop_flush(&g->filter, &out, &n);
    if (n > 0)
        tool_write(out, n);
    if (g->n_generated > 0 && isatty(STDOUT_FILENO)) /* or the shell's prompt would follow the text */
        tool_write("\n", 1);
}

/* Picks, shows, evaluates, until the end; the exit code. */
static int generate(struct generation *g, const float *logits, char *err, size_t errlen)
{
    struct session *s = g->s;
    int64_t limit = g->c->n_predict;
    while (limit < 0 || g->n_generated < limit) {
        if (tool_interrupts() > 0)
            return EXIT_INTERRUPTED;
        int32_t id = sampler_pick(s->sampler, logits);
        if (tokenizer_is_end(s->tokenizer, id) && !g->c->run.ignore_eos)
            return EXIT_OK;
        if (show(g, id) != 0)
            return EXIT_FAILED; /* tool_finish knows why */
        g->n_generated++;
        if (g->filter.stopped || g->n_generated == limit)
            return EXIT_OK;
        if (cache_len(s->cache, 0) >= s->n_ctx) {
            tool_note(NOTE_USUAL, "\nnote: the context of %" PRId64 " tokens is full\n", s->n_ctx);
            return EXIT_OK;
        }
        int rc = sampler_accept(s->sampler, id);
        if (rc == 0)
            rc = session_eval(s, &id, 1, &logits, err, errlen);
        else
            snprintf(err, errlen, "out of memory");
        if (rc == SESSION_STOPPED)
            return EXIT_INTERRUPTED;
        if (rc != 0)
            return tool_error("%s", err);
        g->n_evals++;
    }
    return EXIT_OK;
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void note_timings(const struct generation *g)
{
    const struct session *s = g->s;
    const char *newline = isatty(STDERR_FILENO) ? "\n" : "";
    tool_note(NOTE_USUAL, "%sload       %8.3f s\n", newline, s->load_seconds);
    tool_note(NOTE_USUAL, "prompt     %8.3f s  %6zu tokens  %10.2f tokens/s\n", g->prompt_seconds,
              g->n_prompt, rate(g->n_prompt, g->prompt_seconds));
    tool_note(NOTE_USUAL, "generated  %8.3f s  %6" PRId64 " tokens  %10.2f tokens/s\n", g->seconds,
              g->n_generated, rate(g->n_evals, g->seconds));
    tool_note(NOTE_USUAL, "memory     %8.1f MiB at the peak\n", (double)machine_peak_memory() / (1 << 20));
    tool_note(g->c->run.seed_given ? NOTE_VERBOSE : NOTE_USUAL, "seed       %" PRIu64 "\n",
              g->c->run.sampler.seed);
}

static int complete(struct generation *g, const int32_t *ids, size_t n, char *err, size_t errlen)
{
    struct session *s = g->s;
    if (n > (uint64_t)s->n_ctx)
        return tool_error("the prompt has %zu tokens, the context holds %" PRId64 " (-c)", n, s->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (sampler_accept(s->sampler, ids[i]) != 0)
            return tool_error("out of memory");
    const float *logits;
    double start = machine_seconds();
    int rc = session_eval(s, ids, n, &logits, err, errlen);
    g->n_prompt = n;
    g->prompt_seconds = machine_seconds() - start;
    if (rc != 0)
        return rc == SESSION_STOPPED ? EXIT_INTERRUPTED : tool_error("%s", err);

    if (!(g->detok = detok_new(s->tokenizer, false)))
        return tool_error("out of memory");
    /* The continuation of a text does not lose its first space; an answer starts a text. */
    size_t len;
    for (size_t i = 0; i < n && !g->c->chat; i++)
        detok_push(g->detok, ids[i], &len);
    start = machine_seconds();
    int code = generate(g, logits, err, errlen);
    g->seconds = machine_seconds() - start;
    show_rest(g);
    note_timings(g);
    return code;
}

static int run(const struct run_command *c)
{
    char err[1024];
    const char *path =
        model_path(c->run.models.n ? c->run.models.item[c->run.models.n - 1] : NULL, err, sizeof err);
    if (!path)
        return tool_error("%s", err);
    tool_catch_interrupts();
    struct session s;
    if (session_open(&s, path, &c->run, SESSION_TEXT | SESSION_SAMPLER | (c->chat ? SESSION_CHAT : 0), err,
                     sizeof err) != 0)
        return tool_error("%s", err);

    int32_t *ids = NULL;
    size_t n = 0;
    struct generation g = {.s = &s, .c = c, .filter = {.stops = c->stops.item, .n_stops = c->stops.n}};
    int code;
    if (prompt_ids(&s, c, &ids, &n, err, sizeof err) == 0)
        code = complete(&g, ids, n, err, sizeof err);
    else
        code = tool_interrupts() > 0 ? EXIT_INTERRUPTED : tool_error("%s", err); /* while reading stdin */
    free(ids);
    detok_free(g.detok);
    stop_free(&g.filter);
    session_close(&s);
    return code;
}

int cmd_run(int argc, char **argv)
{
    struct run_command c = {.n_predict = -1};
    const struct option_row rows[] = {
        OPTION_STRING_ROW("prompt", 'p', &c.prompt, "TEXT", "what to complete"),
        OPTION_STRING_ROW("file", 'f', &c.file, "FILE",
                          "the prompt's file, - for stdin (a newline at its end is left out)"),
        OPTION_NUMBER_ROW("predict", 'n', &c.n_predict, -2, INT32_MAX, "N",
                          "tokens to generate at most (default: -1, until the end or a full context)"),
        OPTION_FLAG_ROW("chat", 0, &c.chat, "the prompt is one user turn of the model's chat template"),
        OPTION_STRING_ROW("system", 0, &c.system, "TEXT", "-sys: with --chat, a system message before it"),
        OPTION_FLAG_ROW("ids", 0, &c.print_ids, "print token ids instead of text"),
        OPTION_CALL_ROW("stop", 0, &c.stops, add_stop, "TEXT", "end before this text; repeatable"),
        OPTION_FLAG_ROW("ignore-eos", 0, &c.run.ignore_eos, "ban the tokens that end a text"),
        OPTION_FLAG_ROW("escape", 'e', &c.escapes, "\\n, \\t, \\\\ … in the prompt mean what they mean in C"),
    };
    struct option_set set = {
        .usage = "quoll run -p TEXT | -f FILE [-n N] [options]",
        .about = "Completes a prompt: stdout gets the continuation alone, stderr the timings.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &c.run,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO) {
        if (!c.prompt == !c.file)
            code = usage_error("run: %s; see `quoll run --help`",
                               c.prompt ? "-p and -f are two prompts"
                                        : "a prompt is missing (-p TEXT or -f FILE)");
        else
            code = run(&c);
    }
    free(c.stops.item);
    run_options_free(&c.run);
    return code;
}
