/* A model's chat template with the variables it expects, as transformers' apply_chat_template sets them. */
#include "tools/chat_prompt.h"

#include "quant/err.h"
#include "tokenizer/template.h"
#include "tools/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct chat_prompt {
    struct chat_template *template;
    char *name, *bos, *eos; /* bos, eos NULL: the model has none */
    int thinking;           /* 1, 0, −1: the template's own */
};

/* A file may hold templates for other purposes too (tokenizer.chat_template.tool_use); a few name the
 * usual one as well. */
static const struct meta *find_template(const struct weights *w)
{
    const struct meta *m = weights_meta_find(w, "tokenizer.chat_template");
    return m ? m : weights_meta_find(w, "tokenizer.chat_template.default");
}

static char *token_text(const struct tokenizer *t, int32_t id)
{
    size_t len;
    const char *piece = id < 0 ? NULL : tokenizer_piece(t, id, true, &len);
    return piece ? strndup(piece, len) : NULL;
}

static int open_source(struct chat_prompt **out, const char *name, const char *source, size_t len,
                       const struct tokenizer *t, char *err, size_t errlen)
{
    char *bos = token_text(t, tokenizer_bos(t)), *eos = token_text(t, tokenizer_eos(t));
    int rc = chat_prompt_open_source(out, name, source, len, bos, eos, err, errlen);
    free(bos);
    free(eos);
    return rc;
}

static int open_builtin(struct chat_prompt **out, const char *path, const char *architecture,
                        const struct tokenizer *t, char *err, size_t errlen)
{
    const char *source, *name = chat_builtin(t, architecture, &source);
    if (!name)
        return err_set(err, errlen, "%s: the model has no chat template", path);
    tool_note(NOTE_USUAL, "note: the model has no chat template, %s is used\n", name);
    return open_source(out, name, source, strlen(source), t, err, errlen);
}

static int open_folder(struct chat_prompt **out, const char *folder, const struct tokenizer *t, char *err,
                       size_t errlen)
{
    struct chat_source s;
    int rc = chat_source_folder(&s, folder, err, errlen);
    if (rc == 0)
        rc = open_source(out, s.name, s.source, s.len, t, err, errlen);
    if (rc > 0) {
        struct vocab_files f = {0};
        rc = vocab_files_open(&f, folder, err, errlen);
        const char *type = json_string_value(json_object_get(f.config, "model_type"));
        if (rc == 0)
            rc = open_builtin(out, folder, type ? type : "", t, err, errlen);
        vocab_files_close(&f);
    }
    chat_source_free(&s);
    return rc;
}

static int open_gguf(struct chat_prompt **out, const struct weights *w, const struct tokenizer *t, char *err,
                     size_t errlen)
{
    struct wstr source = {NULL, 0}, architecture = {NULL, 0};
    const struct meta *m = find_template(w), *arch = weights_meta_find(w, "general.architecture");
    char *name = NULL;
    if (m && (m->type != META_STRING || !meta_str(m, 0, &source)))
        return err_set(err, errlen, "%s: key %s is no string", weights_path(w), m->key);
    if (arch)
        (void)meta_str(arch, 0, &architecture);
    int n = m ? asprintf(&name, "%s: %s", weights_path(w), m->key)
              : asprintf(&name, "%.*s", (int)(architecture.len < 40 ? architecture.len : 40),
                         architecture.s ? architecture.s : "");
    if (n < 0)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    int rc = m ? open_source(out, name, source.s, source.len, t, err, errlen)
               : open_builtin(out, weights_path(w), name, t, err, errlen);
    free(name);
    return rc;
}

int chat_prompt_open(struct chat_prompt **out, const struct weights *w, const struct tokenizer *t, char *err,
                     size_t errlen)
{
    *out = NULL;
    if (strncmp(weights_format(w), "GGUF", 4) == 0)
        return open_gguf(out, w, t, err, errlen);
    char *folder = weights_folder(w) ? strdup(weights_folder(w)) : vocab_folder(weights_path(w));
    int rc = folder ? open_folder(out, folder, t, err, errlen)
                    : err_set(err, errlen, "%s: out of memory", weights_path(w));
    free(folder);
    return rc;
}

int chat_prompt_open_path(struct chat_prompt **out, const char *path, const struct tokenizer *t, char *err,
                          size_t errlen)
{
    *out = NULL;
    if (vocab_is_gguf(path)) {
        struct weights *w;
        if (weights_open(&w, path, NULL, err, errlen) != 0)
            return -1;
        int rc = chat_prompt_open(out, w, t, err, errlen);
        weights_close(w);
        return rc;
    }
    char *folder = vocab_folder(path);
    int rc =
        folder ? open_folder(out, folder, t, err, errlen) : err_set(err, errlen, "%s: out of memory", path);
    free(folder);
    return rc;
}

int chat_prompt_open_source(struct chat_prompt **out, const char *name, const char *source, size_t len,
                            const char *bos, const char *eos, char *err, size_t errlen)
{
    struct chat_prompt *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(err, errlen, "%s: out of memory", name);
    p->thinking = -1;
    p->name = strdup(name);
    p->bos = bos ? strdup(bos) : NULL;
    p->eos = eos ? strdup(eos) : NULL;
    int rc = -1;
    if (!p->name || (bos && !p->bos) || (eos && !p->eos))
        (void)err_set(err, errlen, "%s: out of memory", name);
    else
        rc = chat_template_new(&p->template, name, source, len, err, errlen);
    if (rc == 0)
        *out = p;
    else
        chat_prompt_close(p);
    return rc;
}

void chat_prompt_close(struct chat_prompt *p)
{
    if (!p)
        return;
    chat_template_free(p->template);
    free(p->name);
    free(p->bos);
    free(p->eos);
    free(p);
}

void chat_prompt_set_thinking(struct chat_prompt *p, int thinking)
{
    p->thinking = thinking;
}

/* Takes value. */
static int set_default(json_t *vars, const char *key, json_t *value)
{
    if (!json_object_get(vars, key))
        return json_object_set_new(vars, key, value);
    json_decref(value);
    return 0;
}

static int fill_vars(const struct chat_prompt *p, json_t *vars, bool add_generation_prompt)
{
    int failed = set_default(vars, "tools", json_null()) | set_default(vars, "documents", json_null());
    if (p->bos)
        failed |= set_default(vars, "bos_token", json_string(p->bos));
    if (p->eos)
        failed |= set_default(vars, "eos_token", json_string(p->eos));
    if (p->thinking >= 0)
        failed |= set_default(vars, "enable_thinking", json_boolean(p->thinking)) |
                  set_default(vars, "thinking", json_boolean(p->thinking));
    if (!add_generation_prompt)
        failed |= json_object_set_new(vars, "add_generation_prompt", json_false());
    return failed | set_default(vars, "add_generation_prompt", json_true());
}

/* A raised message stands alone: says whose it is, as all other messages do. */
static void name_message(const struct chat_prompt *p, char *err, size_t errlen)
{
    size_t n = strlen(p->name), len = strlen(err);
    if (strncmp(err, p->name, n) == 0 && err[n] == ':')
        return;
    if (n + 2 >= errlen)
        return;
    if (len > errlen - n - 3)
        len = errlen - n - 3;
    memmove(err + n + 2, err, len);
    memcpy(err, p->name, n);
    memcpy(err + n, ": ", 2);
    err[n + 2 + len] = '\0';
}

int chat_prompt_render_request(const struct chat_prompt *p, json_t *request, bool add_generation_prompt,
                               const struct tm *now, char **text, size_t *len, char *err, size_t errlen)
{
    json_t *vars = json_copy(request); /* shallow */
    struct tm local = {0};
    time_t seconds = time(NULL);
    int rc = -1;
    *text = NULL;
    *len = 0;
    if (!now && !localtime_r(&seconds, &local)) {
        (void)err_set(err, errlen, "%s: there is no local time", p->name);
    } else if (!vars || fill_vars(p, vars, add_generation_prompt) != 0) {
        (void)err_set(err, errlen, "%s: out of memory, or a token is not UTF-8", p->name);
    } else {
        rc = chat_template_render(p->template, vars, now ? now : &local, text, len, err, errlen);
        if (rc != 0)
            name_message(p, err, errlen);
    }
    json_decref(vars);
    return rc;
}

int chat_prompt_render(const struct chat_prompt *p, json_t *messages, bool add_generation_prompt, char **text,
                       size_t *len, char *err, size_t errlen)
{
    json_t *request = json_object();
    int rc = -1;
    *text = NULL;
    *len = 0;
    if (!request || json_object_set(request, "messages", messages) != 0)
        (void)err_set(err, errlen, "%s: out of memory", p->name);
    else
        rc = chat_prompt_render_request(p, request, add_generation_prompt, NULL, text, len, err, errlen);
    json_decref(request);
    return rc;
}

/* A mark that no text of the conversation has: one of Unicode's characters that are none (U+FDD0 … U+FDEF).
 */
static bool find_mark(json_t *messages, char mark[4])
{
    char *all = json_dumps(messages, 0);
    bool found = false;
    for (int i = 0; all && !found && i < 32; i++) {
        memcpy(mark, "\xef\xb7\x90", 4);
        mark[2] = (char)(0x90 + i);
        found = strstr(all, mark) == NULL;
    }
    free(all);
    return found;
}

/* A copy of a message's value: in its texts, marks keep control tokens from being found. An answer's thinking
 * is for the template to find. */
static json_t *guarded(const struct tokenizer *t, const json_t *value, const char *mark, bool answer)
{
    if (json_is_string(value)) {
        char *text;
        size_t n;
        if (tokenizer_guard(t, json_string_value(value), json_string_length(value), mark,
                            answer ? "think" : NULL, &text, &n) != 0)
            return NULL;
        json_t *made = json_stringn(text, n);
        free(text);
        return made;
    }
    json_t *copy = json_copy((json_t *)value), *part; /* shallow */
    size_t i;
    const char *key;
    bool failed = false;
    if (json_is_array(copy)) {
        json_array_foreach(copy, i, part)
        {
            failed = json_array_set_new(copy, i, guarded(t, part, mark, answer)) != 0 || failed;
        }
    } else if (json_is_object(copy)) {
        json_object_foreach(copy, key, part)
        {
            if (strcmp(key, "role") != 0 && strcmp(key, "type") != 0)
                failed = json_object_set_new(copy, key, guarded(t, part, mark, answer)) != 0 || failed;
        }
    }
    if (failed) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static json_t *guarded_messages(const struct tokenizer *t, json_t *messages, const char *mark)
{
    json_t *all = json_array(), *m;
    size_t i;
    json_array_foreach(messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        bool answer = role && strcmp(role, "assistant") == 0;
        if (!all || json_array_append_new(all, guarded(t, m, mark, answer)) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

int chat_prompt_ids(const struct chat_prompt *p, const struct tokenizer *t, json_t *messages,
                    bool add_generation_prompt, int32_t **ids, size_t *n, char *err, size_t errlen)
{
    char mark[4], *text = NULL;
    size_t len;
    *ids = NULL;
    *n = 0;
    json_t *marked = find_mark(messages, mark) ? guarded_messages(t, messages, mark) : NULL;
    if (!marked)
        return err_set(err, errlen, "%s: out of memory for the messages", p->name);
    int rc = chat_prompt_render(p, marked, add_generation_prompt, &text, &len, err, errlen);
    if (rc == 0)
        rc = tokenizer_encode_guarded(t, text, len, mark, ids, n, err, errlen);
    free(text);
    json_decref(marked);
    return rc;
}
