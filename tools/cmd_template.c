/* quoll template: messages into the prompt that a model's chat template makes of them. */
#include "quant/err.h"
#include "tools/chat_prompt.h"
#include "tools/options.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct template_command {
    const char *model, *file, *messages, *bos, *eos, *now;
    bool no_generation_prompt;
    struct tm time;
    char err[1024];
};

/* "2024-07-26T09:30:00", a date that exists */
static bool parse_time(const char *s, struct tm *out)
{
    struct tm t = {0};
    const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &t);
    if (!end || *end)
        return false;
    *out = (struct tm){.tm_year = t.tm_year, .tm_mon = t.tm_mon, .tm_mday = t.tm_mday};
    out->tm_hour = t.tm_hour;
    out->tm_min = t.tm_min;
    out->tm_sec = t.tm_sec;
    /* timegm fills in the weekday, and moves what no calendar has: February 30 */
    return timegm(out) != (time_t)-1 && out->tm_mday == t.tm_mday && out->tm_mon == t.tm_mon &&
           out->tm_sec == t.tm_sec;
}

/* The file's JSON as an object with messages. */
static json_t *read_request(struct template_command *c)
{
    char *text = NULL;
    size_t len;
    json_error_t fault;
    if (read_file(c->messages, &text, &len, c->err, sizeof c->err) < 0)
        return NULL;
    json_t *json = json_loadb(text, len, JSON_ALLOW_NUL, &fault);
    free(text);
    if (!json) {
        (void)err_set(c->err, sizeof c->err, "%s:%d: %s", c->messages, fault.line, fault.text);
        return NULL;
    }
    if (json_is_array(json)) {
        json_t *request = json_object();
        if (!request || json_object_set(request, "messages", json) < 0) {
            (void)err_set(c->err, sizeof c->err, "%s: out of memory", c->messages);
            json_decref(request);
            request = NULL;
        }
        json_decref(json);
        return request;
    }
    if (!json_is_array(json_object_get(json, "messages"))) {
        (void)err_set(c->err, sizeof c->err, "%s: neither an array of messages nor an object with one",
                      c->messages);
        json_decref(json);
        return NULL;
    }
    return json;
}

static int open_file(struct template_command *c, struct chat_prompt **out)
{
    char *source = NULL;
    size_t len;
    if (read_file(c->file, &source, &len, c->err, sizeof c->err) < 0)
        return -1;
    int rc = chat_prompt_open_source(out, c->file, source, len, c->bos, c->eos, c->err, sizeof c->err);
    free(source);
    return rc;
}

static int open_model(struct template_command *c, struct chat_prompt **out)
{
    struct tokenizer *t = NULL;
    const char *path = model_path(c->model, c->err, sizeof c->err);
    int rc = path ? vocab_open_path(&t, path, c->err, sizeof c->err) : -1;
    if (rc == 0)
        rc = chat_prompt_open_path(out, path, t, c->err, sizeof c->err);
    tokenizer_free(t);
    return rc;
}

/* --bos and --eos take the place of the model's; --now that of the clock. */
static int render(struct template_command *c, const struct chat_prompt *p, json_t *request)
{
    char *text;
    size_t len;
    if ((c->bos && json_object_set_new(request, "bos_token", json_string(c->bos)) < 0) ||
        (c->eos && json_object_set_new(request, "eos_token", json_string(c->eos)) < 0))
        return err_set(c->err, sizeof c->err, "--bos or --eos is not UTF-8");
    if (chat_prompt_render_request(p, request, !c->no_generation_prompt, c->now ? &c->time : NULL, &text,
                                   &len, c->err, sizeof c->err) != 0)
        return -1;
    bool written = fwrite(text, 1, len, stdout) == len && fflush(stdout) == 0;
    free(text);
    return written ? 0 : err_set(c->err, sizeof c->err, "standard output: cannot write");
}

int cmd_template(int argc, char **argv)
{
    struct template_command c = {0};
    const struct option_row rows[] = {
        OPTION_STRING_ROW("model", 'm', &c.model, "PATH", "the model whose chat template it is"),
        OPTION_STRING_ROW("template", 0, &c.file, "FILE", "a template instead of a model's"),
        OPTION_STRING_ROW(
            "messages", 0, &c.messages, "FILE.json",
            "an array of messages, or an object with messages and other variables (- is stdin)"),
        OPTION_FLAG_ROW("no-generation-prompt", 0, &c.no_generation_prompt,
                        "do not open the assistant's turn at the end"),
        OPTION_STRING_ROW("bos", 0, &c.bos, "TEXT", "bos_token (default: the model's)"),
        OPTION_STRING_ROW("eos", 0, &c.eos, "TEXT", "eos_token (default: the model's)"),
        OPTION_STRING_ROW("now", 0, &c.now, "TIME", "the time templates see, as 2024-07-26T09:30:00"),
    };
    struct option_set set = {
        .usage = "quoll template [-m MODEL | --template FILE] --messages FILE.json [options]",
        .about = "Prints the prompt that a chat template makes of messages, exactly.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
    };
    int code = options_parse(&set, argc, argv);
    if (code != OPTIONS_GO)
        return code;
    if (!c.messages)
        return usage_error("template: --messages FILE.json is needed");
    if (c.model && c.file)
        return usage_error("template: -m and --template exclude each other");
    if (c.now && !parse_time(c.now, &c.time))
        return usage_error("template: --now wants a time such as 2024-07-26T09:30:00, not '%s'", c.now);
    struct chat_prompt *p = NULL;
    json_t *request = read_request(&c);
    int rc = request ? (c.file ? open_file(&c, &p) : open_model(&c, &p)) : -1;
    if (rc == 0)
        rc = render(&c, p, request);
    json_decref(request);
    chat_prompt_close(p);
    return rc == 0 ? EXIT_OK : tool_error("%s", c.err);
}
