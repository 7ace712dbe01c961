/* Where a Hugging Face folder keeps its chat template: in a file of its own, or in tokenizer_config.json. */
#include "quant/err.h"
#include "tools/chat_prompt.h"
#include "tools/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEMPLATE = 1 << 24 };

/* One template, or a list of named ones: "default", else the first. */
static const json_t *pick(const json_t *j)
{
    const json_t *first = NULL;
    for (size_t i = 0; i < json_array_size(j); i++) {
        const json_t *row = json_array_get(j, i);
        const char *name = json_string_value(json_object_get(row, "name"));
        const json_t *source = json_object_get(row, "template");
        if (name && strcmp(name, "default") == 0)
            return source;
        if (!first)
            first = source;
    }
    return json_is_string(j) ? j : first;
}

static int keep(struct chat_source *s, const json_t *text, const char *file, const char *folder, char *err,
                size_t errlen)
{
    if (!json_is_string(text))
        return 1;
    s->len = json_string_length(text);
    s->source = malloc(s->len + 1);
    if (!s->source || asprintf(&s->name, "%s/%s: chat_template", folder, file) < 0) {
        s->name = NULL;
        return err_set(err, errlen, "%s: out of memory", folder);
    }
    memcpy(s->source, json_string_value(text), s->len + 1);
    return 0;
}

static int from_json(struct chat_source *s, const char *file, const char *folder, char *err, size_t errlen)
{
    char *bytes = NULL, *path = vocab_path(folder, file);
    size_t len = 0;
    json_error_t fault;
    int rc = path ? vocab_read(path, MAX_TEMPLATE, true, &bytes, &len, err, errlen)
                  : err_set(err, errlen, "%s: out of memory", folder);
    if (rc == 0) {
        json_t *json = vocab_json(bytes, len, &fault);
        rc = json ? keep(s, pick(json_object_get(json, "chat_template")), file, folder, err, errlen)
                  : err_set(err, errlen, "%s:%d: %s", path, fault.line, fault.text);
        json_decref(json);
    }
    free(bytes);
    free(path);
    return rc;
}

static int from_file(struct chat_source *s, const char *folder, char *err, size_t errlen)
{
    s->name = vocab_path(folder, "chat_template.jinja");
    if (!s->name)
        return err_set(err, errlen, "%s: out of memory", folder);
    int rc = vocab_read(s->name, MAX_TEMPLATE, true, &s->source, &s->len, err, errlen);
    if (rc != 0) {
        free(s->name);
        s->name = NULL;
    }
    return rc;
}

int chat_source_folder(struct chat_source *s, const char *folder, char *err, size_t errlen)
{
    *s = (struct chat_source){0};
    int rc = from_file(s, folder, err, errlen);
    if (rc > 0)
        rc = from_json(s, "chat_template.json", folder, err, errlen);
    if (rc > 0)
        rc = from_json(s, "tokenizer_config.json", folder, err, errlen);
    if (rc < 0)
        chat_source_free(s);
    return rc;
}

void chat_source_free(struct chat_source *s)
{
    free(s->source);
    free(s->name);
    *s = (struct chat_source){0};
}
