/* A model's chat template with the variables it expects, as transformers' apply_chat_template sets them. */
#include "tools/chat_prompt.h"

#include "quant/err.h"
#include "tokenizer/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct chat_prompt {
    struct chat_template *template;
    char *name, *bos, *eos; /* bos, eos NULL: the model has none */
};

/* A file may hold templates for other purposes too (tokenizer.chat_template.tool_use); a few name the
 * usual one as well. */
static const struct meta *find_template(const struct weights *w)
{
    const struct meta *m = weights_meta_find(w, "tokenizer.chat_template");
    return m ? m : weights_meta_find(w, "tokenizer.chat_template.default");
}

bool chat_prompt_exists(const struct weights *w)
{
    return find_template(w) != NULL;
}

static char *token_text(const struct tokenizer *t, int32_t id)
{
    size_t len;
    const char *piece = id < 0 ? NULL : tokenizer_piece(t, id, true, &len);
    return piece ? strndup(piece, len) : NULL;
}

int chat_prompt_open(struct chat_prompt **out, const struct weights *w, const struct tokenizer *t, char *err,
                     size_t errlen)
{
    struct wstr source;
    const struct meta *m = find_template(w);
    *out = NULL;
    if (!m)
        return err_set(err, errlen, "%s: no chat template (key tokenizer.chat_template)", weights_path(w));
    if (m->type != META_STRING || !meta_str(m, 0, &source))
        return err_set(err, errlen, "%s: key %s is no string", weights_path(w), m->key);
    char *bos = token_text(t, tokenizer_bos(t)), *eos = token_text(t, tokenizer_eos(t)), *name = NULL;
    int rc = -1;
    if (asprintf(&name, "%s: %s", weights_path(w), m->key) < 0)
        name = NULL;
    if (name)
        rc = chat_prompt_open_source(out, name, source.s, source.len, bos, eos, err, errlen);
    else
        (void)err_set(err, errlen, "%s: out of memory", weights_path(w));
    free(name);
    free(bos);
    free(eos);
    return rc;
}

int chat_prompt_open_source(struct chat_prompt **out, const char *name, const char *source, size_t len,
                            const char *bos, const char *eos, char *err, size_t errlen)
{
    struct chat_prompt *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(err, errlen, "%s: out of memory", name);
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
