/* `quoll chat`: the loop between the user and the model, and its commands. */
#include "tools/chat.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat {
    struct session session;
    struct settings settings;
    struct talk talk;
    struct answerer answerer;
    FILE
        *out; /* what commands print: stdout on a terminal, else stderr, so that stdout holds answers alone */
    bool terminal;
    bool failed;    /* something was refused: the exit code of a chat that reads a file */
    bool leave;     /* /quit, or nobody reads any more */
    int interrupts; /* Ctrl-C since the last line */
};

/* ---- Answers ------------------------------------------------------------------------------------ */

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_speed(const struct answerer *a, FILE *f)
{
    fprintf(f, "prompt %zu tokens (%zu of them reused), %.1f tokens/s; answer %zu tokens, %.1f tokens/s\n",
            a->n_prompt, a->n_reused, rate(a->n_prompt - a->n_reused, a->prompt_seconds), a->n_generated,
            rate(a->n_generated, a->generate_seconds));
}

/* Answers the last message. When that fails the conversation is as it was in `before`. */
static void answer_or_restore(struct chat *c, json_t *before, size_t forgotten)
{
    char err[1024];
    enum answer_end end = answer(&c->answerer, &c->talk, c->settings.n_predict, err, sizeof err);
    if (end == ANSWER_FAILED) {
        c->failed = true;
        tool_error("%s", err);
        json_decref(c->talk.messages);
        c->talk = (struct talk){json_incref(before), forgotten};
        return;
    }
    if (end == ANSWER_NO_READER || tool_write("\n", 1) != 0)
        c->leave = true;
    else if (end == ANSWER_STOPPED && c->terminal)
        tool_note(NOTE_USUAL, "(stopped; Ctrl-C again or Ctrl-D leaves)\n");
    else if (end == ANSWER_LIMIT)
        tool_note(NOTE_USUAL, "(stopped after %d tokens, as -n says)\n", c->settings.n_predict);
    else if (end == ANSWER_FULL)
        tool_note(NOTE_USUAL, "(the context of %" PRId64 " tokens is full: the answer ends here)\n",
                  c->session.n_ctx);
    if (c->terminal)
        tool_write("\n", 1);
    if (c->settings.run.log_level >= NOTE_VERBOSE)
        print_speed(&c->answerer, stderr);
}

static void say(struct chat *c, const char *text)
{
    json_t *before = json_copy(c->talk.messages);
    if (!before || talk_add(&c->talk, "user", text, strlen(text)) != 0) {
        c->failed = true;
        tool_error("out of memory");
    } else {
        answer_or_restore(c, before, c->talk.forgotten);
    }
    json_decref(before);
}

/* ---- Commands ----------------------------------------------------------------------------------- */

/* A command gets its argument without the spaces around it; not 0: it was refused, and said why. */
struct chat_command {
    const char *name, *also, *arg, *help;
    int (*run)(struct chat *c, char *arg);
};

static int help(struct chat *c, char *arg);

static int set_system(struct chat *c, char *arg)
{
    if (talk_set_system(&c->talk, arg) != 0)
        return tool_error("out of memory");
    tool_note(NOTE_USUAL, arg[0] ? "(the system prompt is set)\n" : "(no system prompt)\n");
    return 0;
}

static int clear(struct chat *c, char *arg)
{
    (void)arg;
    talk_clear(&c->talk);
    tool_note(NOTE_USUAL, "(a new conversation)\n");
    return 0;
}

static int undo(struct chat *c, char *arg)
{
    (void)arg;
    if (!talk_undo(&c->talk, false))
        return usage_error("/undo: there is no turn yet");
    tool_note(NOTE_USUAL, "(the last turn is undone; %zu left)\n", talk_turns(&c->talk));
    return 0;
}

static int retry(struct chat *c, char *arg)
{
    (void)arg;
    json_t *before = json_copy(c->talk.messages);
    size_t forgotten = c->talk.forgotten;
    if (!before)
        return tool_error("out of memory");
    bool any = talk_undo(&c->talk, true);
    if (any)
        answer_or_restore(c, before, forgotten);
    json_decref(before);
    return any ? 0 : usage_error("/retry: there is no turn yet");
}

static int save(struct chat *c, char *arg)
{
    char err[1024];
    if (!arg[0])
        return usage_error("/save FILE: the file is missing");
    if (chat_save(arg, &c->talk, &c->settings, c->session.path, err, sizeof err) != 0)
        return tool_error("%s", err);
    tool_note(NOTE_USUAL, "(%zu turns saved to %s)\n", talk_turns(&c->talk), arg);
    return 0;
}

/* Takes settings that were changed in a copy. */
static int use_settings(struct chat *c, const struct settings *wanted)
{
    char err[1024];
    if (session_set_sampler(&c->session, &wanted->run, err, sizeof err) != 0)
        return tool_error("%s", err);
    c->settings = *wanted;
    chat_prompt_set_thinking(c->session.chat, c->settings.thinking);
    return 0;
}

static int load(struct chat *c, char *arg)
{
    char err[1024];
    struct talk loaded;
    struct settings wanted = c->settings;
    if (!arg[0])
        return usage_error("/load FILE: the file is missing");
    if (chat_load(arg, &loaded, &wanted, err, sizeof err) != 0)
        return tool_error("%s", err);
    if (use_settings(c, &wanted) != 0) {
        talk_free(&loaded);
        return EXIT_FAILED;
    }
    talk_free(&c->talk);
    c->talk = loaded;
    tool_note(NOTE_USUAL, "(%zu turns loaded from %s)\n", talk_turns(&c->talk), arg);
    return 0;
}

static int set(struct chat *c, char *arg)
{
    size_t len = strcspn(arg, " \t=");
    char *value = arg + len + strspn(arg + len, " \t=");
    struct settings wanted = c->settings;
    if (!arg[0]) {
        settings_print(&c->settings, c->out);
        return 0;
    }
    if (!value[0])
        return usage_error("/set NAME VALUE: the value is missing");
    arg[len] = '\0';
    int code = settings_set(&wanted, arg, value);
    return code ? code : use_settings(c, &wanted);
}

static int show(struct chat *c, char *arg)
{
    const struct session *s = &c->session;
    const char *system = talk_system(&c->talk);
    struct model_memory m;
    (void)arg;
    model_memory(s->model, &m);
    fprintf(c->out, "model     %s, %s, %.1f M parameters, loaded in %.2f s\n", s->path,
            qtypes[s->main_type].name, 1e-6 * (double)m.n_params, s->load_seconds);
    fprintf(c->out, "context   %" PRId64 " of %" PRId64 " tokens used, %zu turns\n", cache_len(s->cache, 0),
            s->n_ctx, talk_turns(&c->talk));
    fprintf(c->out, "memory    %.1f MiB at the peak; weights %.1f, KV cache %.1f (keys %s, values %s)\n",
            (double)machine_peak_memory() / (1 << 20), (double)m.weight_bytes / (1 << 20),
            (double)cache_bytes(s->cache) / (1 << 20), qtypes[s->type_k].name, qtypes[s->type_v].name);
    fprintf(c->out, "compute   %s, level %s, %d threads (%d for prompts)\n",
            c->settings.run.compute == COMPUTE_F32 ? "f32" : "fast", isa_name(c->settings.run.isa),
            c->settings.run.n_threads, c->settings.run.n_threads_batch);
    if (c->answerer.n_prompt > 0) {
        fprintf(c->out, "speed     ");
        print_speed(&c->answerer, c->out);
    }
    fprintf(c->out, "system    %s\n", system ? system : "the template's own");
    settings_print(&c->settings, c->out);
    return 0;
}

static int quit(struct chat *c, char *arg)
{
    (void)arg;
    c->leave = true;
    return 0;
}

static const struct chat_command commands[] = {
    {"/help", "/?", "", "this list", help},
    {"/system", "", "TEXT", "set the system prompt; without TEXT: none", set_system},
    {"/clear", "", "", "begin a new conversation", clear},
    {"/undo", "", "", "take back the last turn", undo},
    {"/retry", "/regen", "", "answer the last turn again", retry},
    {"/save", "", "FILE", "write the conversation and the settings to a JSON file", save},
    {"/load", "", "FILE", "go on with a saved conversation", load},
    {"/set", "", "NAME VALUE", "change a setting, as temp 0.7; alone: list them", set},
    {"/show", "", "", "settings, speed, memory, context used", show},
    {"/quit", "/exit", "", "leave (also Ctrl-D)", quit},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static int help(struct chat *c, char *arg)
{
    (void)arg;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char left[32];
        snprintf(left, sizeof left, "%s%s%s %s", commands[i].name, commands[i].also[0] ? ", " : "",
                 commands[i].also, commands[i].arg);
        fprintf(c->out, "  %-18s %s\n", left, commands[i].help);
    }
    fprintf(c->out, "  %-18s %s\n  %-18s %s\n", "\"\"\"", "begins and ends a block of several lines",
            "Ctrl-C", "stops the answer; twice: leaves");
    return 0;
}

static void command(struct chat *c, const char *line)
{
    size_t len = strcspn(line, " \t");
    char *arg = strdup(line + len + strspn(line + len, " \t"));
    if (!arg) {
        tool_error("out of memory");
        return;
    }
    size_t end = strlen(arg);
    while (end > 0 && (arg[end - 1] == ' ' || arg[end - 1] == '\t'))
        arg[--end] = '\0';
    int code = -1;
    for (size_t i = 0; i < N_COMMANDS && code < 0; i++) {
        const char *const names[] = {commands[i].name, commands[i].also};
        for (size_t k = 0; k < 2 && code < 0; k++) {
            if (strlen(names[k]) != len || strncmp(names[k], line, len) != 0)
                continue;
            code = arg[0] && !commands[i].arg[0] ? usage_error("%s takes no argument", names[k])
                                                 : commands[i].run(c, arg);
        }
    }
    if (code < 0)
        code = usage_error("no command %.*s; /help lists them (a message that begins with / goes between "
                           "\"\"\")",
                           len < 40 ? (int)len : 40, line);
    if (code > 0)
        c->failed = true;
    fflush(c->out);
    free(arg);
}

/* ---- The loop ----------------------------------------------------------------------------------- */

/* Ctrl-C since the last call, while an answer came or a line was read. True: time to leave. */
static bool interrupted(struct chat *c)
{
    c->interrupts += tool_interrupts();
    tool_clear_interrupts();
    return c->interrupts >= (c->terminal ? 2 : 1);
}

static int loop(struct chat *c, struct input *in)
{
    char err[1024];
    bool any = false;
    for (;;) {
        const char *text = "";
        enum input_kind kind = input_next(in, &text, err, sizeof err);
        if (kind == INPUT_FAILED)
            return tool_error("%s", err);
        if (kind == INPUT_END)
            break;
        if (kind == INPUT_CANCELLED) {
            tool_clear_interrupts();
            c->interrupts = 0;
            continue;
        }
        if (kind == INPUT_INTERRUPT) {
            if (interrupted(c))
                return EXIT_INTERRUPTED;
            tool_note(NOTE_USUAL, "(Ctrl-C again or Ctrl-D leaves)\n");
            continue;
        }
        any = true;
        c->interrupts = 0;
        if (kind == INPUT_LINE && text[0] == '/')
            command(c, text);
        else if (text[strspn(text, " \t\r\n")])
            say(c, text);
        if (interrupted(c))
            return EXIT_INTERRUPTED;
        if (c->leave)
            break;
    }
    if (!any && !c->terminal)
        tool_note(NOTE_USUAL, "note: standard input held no message\n");
    return c->failed && !c->terminal ? EXIT_FAILED : EXIT_OK;
}

static int run(struct chat *c, const char *system)
{
    char err[1024];
    const struct string_list *models = &c->settings.run.models;
    const char *path = model_path(models->n ? models->item[models->n - 1] : NULL, err, sizeof err);
    if (!path || session_open(&c->session, path, &c->settings.run,
                              SESSION_TEXT | SESSION_SAMPLER | SESSION_CHAT, err, sizeof err) != 0)
        return tool_error("%s", err);
    chat_prompt_set_thinking(c->session.chat, c->settings.thinking);
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    bool shown = isatty(STDOUT_FILENO) == 1;
    bool colour = !(no_colour && no_colour[0]) && term && strcmp(term, "dumb") != 0;
    c->terminal = shown && isatty(STDIN_FILENO) == 1;
    c->out = c->terminal ? stdout : stderr;
    c->answerer = (struct answerer){.session = &c->session, .terminal = shown};

    if (talk_init(&c->talk) != 0 || (system && talk_set_system(&c->talk, system) != 0))
        return tool_error("out of memory");
    struct input *in = input_new(c->terminal, colour);
    if (!in)
        return tool_error("the terminal cannot be used, or memory is out");
    if (c->terminal)
        tool_note(NOTE_USUAL, "%s, context of %" PRId64 " tokens. /help lists the commands.\n\n",
                  c->session.path, c->session.n_ctx);
    int code = interrupted(c) ? EXIT_INTERRUPTED : loop(c, in);
    input_free(in);
    return code;
}

int cmd_chat(int argc, char **argv)
{
    struct chat c = {.settings = {.n_predict = -1, .thinking = -1}};
    const char *system = NULL;
    const struct option_row own[] = {
        OPTION_STRING_ROW("system", 0, &system, "TEXT", "-sys: the system prompt"),
        OPTION_NUMBER_ROW("predict", 'n', &c.settings.n_predict, -1, INT32_MAX, "N",
                          "tokens per answer at most (default: -1, until the model ends it)"),
        OPTION_NUMBER_ROW("thinking", 0, &c.settings.thinking, -1, 1, "N",
                          "1: let the model think before it answers, 0: do not (default: -1, its own)"),
        OPTION_FLAG_ROW("ignore-eos", 0, &c.settings.run.ignore_eos,
                        "answers end with -n or the context only"),
    };
    struct option_set options = {
        .usage = "quoll chat [-m MODEL] [options]",
        .about = "Talks to the model: reads one message a line (\"\"\" begins and ends a block of several "
                 "lines),\nprints the answers on stdout. /help lists the commands of the chat.",
        .own = own,
        .n_own = sizeof own / sizeof own[0],
        .run = &c.settings.run,
    };
    int code = options_parse(&options, argc, argv);
    if (code == OPTIONS_GO) {
        tool_catch_interrupts();
        code = run(&c, system);
    }
    talk_free(&c.talk);
    answerer_free(&c.answerer);
    session_close(&c.session);
    run_options_free(&c.settings.run);
    return code;
}
