/* The files beside a vocabulary in a Hugging Face folder: which tokens begin and end a text, which are
 * special. */
#include "quant/err.h"
#include "tools/vocab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CONFIG = 1 << 25, MAX_ENDS = 256 };

char *vocab_path(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

int vocab_read(const char *path, size_t max_len, bool optional, char **bytes, size_t *len, char *err,
               size_t errlen)
{
    struct stat st;
    *bytes = NULL;
    *len = 0;
    FILE *f = fopen(path, "rb");
    if (!f && optional && (errno == ENOENT || errno == ENOTDIR))
        return 1;
    if (!f)
        return err_set(err, errlen, "%s: %s", path, strerror(errno));
    int rc = -1;
    if (fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode))
        (void)err_set(err, errlen, "%s: not a file", path);
    else if ((uint64_t)st.st_size > max_len)
        (void)err_set(err, errlen, "%s: %lld bytes are too many for this kind of file (at most %zu)", path,
                      (long long)st.st_size, max_len);
    else if (!(*bytes = malloc((size_t)st.st_size + 1)))
        (void)err_set(err, errlen, "%s: out of memory", path);
    else if (fread(*bytes, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        (void)err_set(err, errlen, "%s: cannot be read", path);
    else
        rc = 0;
    fclose(f);
    if (rc == 0) {
        *len = (size_t)st.st_size;
        (*bytes)[*len] = '\0';
    } else {
        free(*bytes);
        *bytes = NULL;
    }
    return rc;
}

json_t *vocab_json(const char *bytes, size_t len, json_error_t *fault)
{
    json_t *json = json_loadb(bytes, len, JSON_ALLOW_NUL, fault);
    /* The transformers library writes a model_max_length of 10^30, digit by digit. */
    if (!json && json_error_code(fault) == json_error_numeric_overflow)
        json = json_loadb(bytes, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, fault);
    return json;
}

static int read_json(json_t **out, const char *folder, const char *name, char *err, size_t errlen)
{
    char *bytes = NULL, *path = vocab_path(folder, name);
    size_t len = 0;
    json_error_t fault;
    int rc = path ? vocab_read(path, MAX_CONFIG, true, &bytes, &len, err, errlen)
                  : err_set(err, errlen, "%s: out of memory", folder);
    if (rc == 0) {
        *out = vocab_json(bytes, len, &fault);
        if (!*out)
            rc = err_set(err, errlen, "%s:%d: %s", path, fault.line, fault.text);
        else if (!json_is_object(*out))
            rc = err_set(err, errlen, "%s: no JSON object", path);
    }
    free(bytes);
    free(path);
    return rc < 0 ? -1 : 0;
}

/* A token is its text or an object with it. */
static const char *token_text(const json_t *j)
{
    const json_t *text = json_is_object(j) ? json_object_get(j, "content") : j;
    return json_string_length(text) > 0 ? json_string_value(text) : NULL;
}

static const char *find_text(const struct vocab_files *f, const char *key)
{
    const char *text = token_text(json_object_get(f->tokenizer_config, key));
    return text ? text : token_text(json_object_get(f->special_tokens_map, key));
}

static int find_flag(const struct vocab_files *f, const char *key)
{
    const json_t *v = json_object_get(f->tokenizer_config, key);
    return json_is_boolean(v) ? json_is_true(v) : -1;
}

static void add_ends(struct vocab_files *f, const json_t *ids)
{
    size_t n = json_is_array(ids) ? json_array_size(ids) : ids != NULL;
    for (size_t i = 0; i < n && f->hints.n_ends < MAX_ENDS; i++) {
        const json_t *id = json_is_array(ids) ? json_array_get(ids, i) : ids;
        if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < INT32_MAX)
            f->ends[f->hints.n_ends++] = (int32_t)json_integer_value(id);
    }
}

/* added_tokens_decoder: id as text → the token. */
static int read_added(struct vocab_files *f, const char *folder, char *err, size_t errlen)
{
    json_t *all = json_object_get(f->tokenizer_config, "added_tokens_decoder"), *token;
    const char *key;
    f->added = calloc(json_object_size(all) + 1, sizeof *f->added);
    if (!f->added)
        return err_set(err, errlen, "%s: out of memory", folder);
    f->hints.added = f->added;
    json_object_foreach(all, key, token)
    {
        char *end;
        long id = strtol(key, &end, 10);
        const char *text = token_text(token);
        if (*end || end == key || id < 0 || id >= INT32_MAX || !text)
            return err_set(err, errlen,
                           "%s/tokenizer_config.json: added_tokens_decoder: '%.40s' is no id of a token",
                           folder, key);
        struct vocab_added *a = &f->added[f->hints.n_added++];
        a->id = (int32_t)id;
        a->token.text = text;
        a->token.len = strlen(text);
        a->token.type = json_is_false(json_object_get(token, "special")) ? TOKEN_USER_DEFINED : TOKEN_CONTROL;
        a->token.flags = TOKEN_ADDED | (json_is_true(json_object_get(token, "lstrip")) ? TOKEN_LSTRIP : 0u) |
                         (json_is_true(json_object_get(token, "rstrip")) ? TOKEN_RSTRIP : 0u) |
                         (json_is_true(json_object_get(token, "single_word")) ? TOKEN_SINGLE_WORD : 0u);
    }
    return 0;
}

int vocab_files_open(struct vocab_files *f, const char *folder, char *err, size_t errlen)
{
    *f = (struct vocab_files){.hints = {.add_bos = -1, .add_eos = -1}};
    f->ends = calloc(MAX_ENDS, sizeof *f->ends);
    if (!f->ends)
        return err_set(err, errlen, "%s: out of memory", folder);
    f->hints.ends = f->ends;
    if (read_json(&f->config, folder, "config.json", err, errlen) < 0 ||
        read_json(&f->generation_config, folder, "generation_config.json", err, errlen) < 0 ||
        read_json(&f->tokenizer_config, folder, "tokenizer_config.json", err, errlen) < 0 ||
        read_json(&f->special_tokens_map, folder, "special_tokens_map.json", err, errlen) < 0 ||
        read_added(f, folder, err, errlen) < 0)
        return -1;
    f->hints.bos = find_text(f, "bos_token");
    f->hints.eos = find_text(f, "eos_token");
    f->hints.unk = find_text(f, "unk_token");
    f->hints.add_bos = find_flag(f, "add_bos_token");
    f->hints.add_eos = find_flag(f, "add_eos_token");
    f->hints.specials_in_text = f->tokenizer_config != NULL;
    add_ends(f, json_object_get(f->generation_config, "eos_token_id"));
    add_ends(f, json_object_get(f->config, "eos_token_id"));
    return 0;
}

/* Beside ranks in NAME.model, NAME.special.json: their pattern, special tokens (text → id), prefix. */
int vocab_files_special(struct vocab_files *f, const char *path, char *err, size_t errlen)
{
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    char *name = NULL,
         *folder = slash ? strndup(path, (size_t)(slash - path) + (slash == path)) : strdup(".");
    const char *base = slash ? slash + 1 : path;
    size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    int rc = -1;
    if (!folder || asprintf(&name, "%.*s.special.json", (int)n, base) < 0) {
        name = NULL;
        (void)err_set(err, errlen, "%s: out of memory", path);
    } else {
        rc = read_json(&f->special, folder, name, err, errlen);
    }
    free(name);
    free(folder);
    if (rc < 0 || !f->special)
        return rc;
    json_t *tokens = json_object_get(f->special, "special_tokens"),
           *prefix = json_object_get(f->special, "prefix");
    json_t *value;
    const char *key;
    size_t i;
    f->hints.pattern = json_string_value(json_object_get(f->special, "pattern"));
    free(f->added);
    f->hints.n_added = 0;
    f->hints.added = f->added = calloc(json_object_size(tokens) + 1, sizeof *f->added);
    f->prefix = calloc(json_array_size(prefix) + 1, sizeof *f->prefix);
    f->hints.prefix = f->prefix;
    if (!f->added || !f->prefix)
        return err_set(err, errlen, "%s: out of memory", path);
    json_object_foreach(tokens, key, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= INT32_MAX)
            return err_set(err, errlen, "%s: the special token '%.40s' has no id", path, key);
        f->added[f->hints.n_added++] = (struct vocab_added){
            .id = (int32_t)id, .token = {.text = key, .len = strlen(key), .type = TOKEN_CONTROL}};
    }
    json_array_foreach(prefix, i, value)
    {
        if (!json_is_string(value))
            return err_set(err, errlen, "%s: the prefix is no list of texts", path);
        f->prefix[f->hints.n_prefix++] = json_string_value(value);
    }
    return 0;
}

void vocab_files_close(struct vocab_files *f)
{
    json_decref(f->config);
    json_decref(f->generation_config);
    json_decref(f->tokenizer_config);
    json_decref(f->special_tokens_map);
    json_decref(f->special);
    free(f->prefix);
    free(f->ends);
    free(f->added);
    *f = (struct vocab_files){0};
}
