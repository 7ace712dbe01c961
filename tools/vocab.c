/* Where a model's vocabulary is: in its GGUF, or in one of the files that lie in its folder. */
#include "tools/vocab.h"

#include "quant/err.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_VOCABULARY = 1 << 28 };

typedef int reader(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                   const struct vocab_hints *hints, char *err, size_t errlen);

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *vocab_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (is_folder(path))
        return strdup(path);
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

bool vocab_is_gguf(const char *path)
{
    char head[4];
    FILE *f = fopen(path, "rb");
    bool is = f && fread(head, 1, 4, f) == 4 && memcmp(head, "GGUF", 4) == 0;
    if (f)
        fclose(f);
    return is;
}

/* "base64 rank" */
static bool is_rank_line(const char *s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    size_t n = strspn(s, digits), m = n > 0 && s[n] == ' ' ? strspn(s + n + 1, "0123456789") : 0;
    return m > 0 && (s[n + 1 + m] == '\n' || s[n + 1 + m] == '\r');
}

/* What kind of vocabulary the bytes (NUL-terminated) are; NULL: none. */
static reader *reader_of(const char *path, const char *bytes, size_t len)
{
    size_t i = strspn(bytes, " \t\r\n");
    if (i < len && bytes[i] == '{')
        return tokenizer_from_json;
    if (is_rank_line(bytes))
        return tokenizer_from_tiktoken;
    /* protobuf: field 1, of some length, which begins with its own field 1 */
    if (len > 4 && bytes[0] == 0x0a && (bytes[2] == 0x0a || bytes[3] == 0x0a))
        return tokenizer_from_sentencepiece;
    return ends_with(path, "tokenizer.bin") ? tokenizer_from_llama2c : NULL;
}

static int open_bytes(struct tokenizer **out, const char *path, const char *folder, bool in_folder,
                      const char *bytes, size_t len, char *err, size_t errlen)
{
    struct vocab_files files = {0};
    reader *read = reader_of(path, bytes, len);
    if (!read)
        return err_set(err, errlen, "%s: no vocabulary that this program knows", path);
    int rc = vocab_files_open(&files, folder, err, errlen);
    if (rc == 0 && read == tokenizer_from_tiktoken)
        rc = vocab_files_special(&files, path, err, errlen);
    const char *type = json_string_value(json_object_get(files.config, "model_type"));
    bool first = ends_with(path, "ice_text.model");
    if (rc == 0 && read == tokenizer_from_sentencepiece && (first || (type && strcmp(type, "chatglm") == 0)))
        rc = vocab_chatglm(&files, folder, first, err, errlen);
    files.hints.specials_in_text = files.hints.specials_in_text || in_folder;
    if (rc == 0)
        rc = read(out, path, bytes, len, &files.hints, err, errlen);
    vocab_files_close(&files);
    return rc;
}

static int open_file(struct tokenizer **out, const char *path, const char *folder, bool in_folder, char *err,
                     size_t errlen)
{
    char *bytes = NULL;
    size_t len;
    int rc = vocab_read(path, MAX_VOCABULARY, false, &bytes, &len, err, errlen);
    if (rc == 0)
        rc = open_bytes(out, path, folder, in_folder, bytes, len, err, errlen);
    free(bytes);
    (void)malloc_trim(0); /* a large tokenizer.json takes ten times its size while it is read */
    return rc;
}

/* The files that may hold a vocabulary, in the order in which Hugging Face's library looks for them. */
static int open_folder(struct tokenizer **out, const char *folder, char *err, size_t errlen)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "ice_text.model",
                                        "tokenizer.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat st;
        char *path = vocab_path(folder, names[i]);
        if (!path)
            return err_set(err, errlen, "%s: out of memory", folder);
        int rc = 1;
        if (stat(path, &st) == 0)
            rc = open_file(out, path, folder, true, err, errlen);
        free(path);
        if (rc <= 0)
            return rc;
    }
    return err_set(err, errlen, "%s: no tokenizer in the folder (tokenizer.json, tokenizer.model)", folder);
}

int vocab_open(struct tokenizer **out, const struct weights *w, char *err, size_t errlen)
{
    *out = NULL;
    if (strncmp(weights_format(w), "GGUF", 4) == 0)
        return vocab_from_gguf(out, w, err, errlen);
    char *folder = weights_folder(w) ? strdup(weights_folder(w)) : vocab_folder(weights_path(w));
    if (!folder)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    int rc = open_folder(out, folder, err, errlen);
    free(folder);
    return rc;
}

/* The first bytes of a file decide: is it a vocabulary, or a model that has one? */
static bool is_vocabulary(const char *path)
{
    char head[4096] = "";
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head - 1, f) : 0;
    if (f)
        fclose(f);
    return n > 0 && !ends_with(path, "config.json") && reader_of(path, head, n) != NULL;
}

int vocab_open_path(struct tokenizer **out, const char *path, char *err, size_t errlen)
{
    *out = NULL;
    if (is_folder(path))
        return open_folder(out, path, err, errlen);
    if (is_vocabulary(path)) {
        char *folder = vocab_folder(path);
        int rc = folder ? open_file(out, path, folder, false, err, errlen)
                        : err_set(err, errlen, "%s: out of memory", path);
        free(folder);
        return rc;
    }
    struct weights *w;
    if (weights_open(&w, path, NULL, err, errlen) != 0)
        return -1;
    int rc = vocab_open(out, w, err, errlen);
    weights_close(w);
    return rc;
}
