/* Chats as JSON files: {"model": …, "settings": {…}, "messages": [{"role", "content"}, …]}. */
#include "tools/chat.h"

#include "quant/err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 64 << 20 };

/* ---- Saving ------------------------------------------------------------------------------------ */

/* All of text into the open file; closes it. */
static int write_and_close(int fd, const char *text, bool sync)
{
    size_t len = strlen(text);
    int saved = 0;
    while (len > 0 && !saved) {
        ssize_t n = write(fd, text, len);
        if (n >= 0) {
            text += n;
            len -= (size_t)n;
        } else if (errno != EINTR) {
            saved = errno;
        }
    }
    if (!saved && sync && fsync(fd) != 0)
        saved = errno;
    if (close(fd) != 0 && !saved)
        saved = errno;
    errno = saved;
    return saved ? -1 : 0;
}

/* Replaces the regular file at path, or makes it. */
static int replace_file(const char *path, const char *text)
{
    static const char suffix[] = ".XXXXXX";
    char temp[PATH_MAX];
    size_t len = strlen(path);
    if (len > sizeof temp - sizeof suffix) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(temp, path, len);
    memcpy(temp + len, suffix, sizeof suffix);
    int fd = mkstemp(temp); /* readable by its owner only: a chat is private */
    if (fd < 0)
        return -1;
    if (write_and_close(fd, text, true) == 0 && rename(temp, path) == 0)
        return 0;
    int saved = errno;
    unlink(temp);
    errno = saved;
    return -1;
}

static int save_text(const char *path, const char *text)
{
    char real[PATH_MAX];
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        /* A device or a pipe is written to; renaming would put a file in its place. */
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        return fd < 0 ? -1 : write_and_close(fd, text, false);
    }
    /* A link stays one: what it points to is replaced. */
    return replace_file(realpath(path, real) ? real : path, text);
}

int chat_save(const char *path, const struct talk *t, const struct settings *s, const char *model, char *err,
              size_t errlen)
{
    char *model_text = text_clean(model, strlen(model));
    json_t *settings = settings_to_json(s);
    json_t *root = model_text && settings ? json_pack("{s:s, s:O, s:O}", "model", model_text, "settings",
                                                      settings, "messages", t->messages)
                                          : NULL;
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) : NULL;
    int result = -1;
    if (!text)
        err_set(err, errlen, "out of memory");
    else if (save_text(path, text) != 0)
        err_set(err, errlen, "%s: %s; not saved", path, strerror(errno));
    else
        result = 0;
    free(text);
    json_decref(root);
    json_decref(settings);
    free(model_text);
    return result;
}

/* ---- Loading ----------------------------------------------------------------------------------- */

struct source {
    FILE *f;
    size_t left; /* bytes that may still be read */
    bool too_long;
};

static size_t read_some(void *buffer, size_t size, void *data)
{
    struct source *in = data;
    if (size > in->left) {
        size = in->left;
        in->too_long = size == 0;
    }
    size_t n = fread(buffer, 1, size, in->f);
    in->left -= n;
    return n == 0 && (in->too_long || ferror(in->f)) ? (size_t)-1 : n;
}

static json_t *read_json(const char *path, char *err, size_t errlen)
{
    FILE *f = fopen(path, "rbe");
    if (!f) {
        err_set(err, errlen, "%s: %s", path, strerror(errno));
        return NULL;
    }
    struct source in = {f, MAX_FILE_BYTES, false};
    json_error_t e;
    errno = 0;
    json_t *root = json_load_callback(read_some, &in, JSON_REJECT_DUPLICATES, &e);
    if (!root && ferror(f))
        err_set(err, errlen, "%s: %s", path, strerror(errno));
    else if (!root && in.too_long)
        err_set(err, errlen, "%s: larger than %d MiB", path, MAX_FILE_BYTES >> 20);
    else if (!root)
        err_set(err, errlen, "%s: line %d: %s", path, e.line, e.text);
    fclose(f);
    return root;
}

/* A conversation from a file's messages: roles and texts checked, other keys left behind. */
static int read_messages(struct talk *t, const char *path, json_t *messages, char *err, size_t errlen)
{
    if (!json_is_array(messages))
        return err_set(err, errlen, "%s: \"messages\" is no array", path);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        json_t *content = json_object_get(m, "content");
        if (!role || !json_is_string(content))
            return err_set(err, errlen, "%s: message %zu: not a \"role\" and a \"content\" text", path,
                           i + 1);
        bool system = strcmp(role, "system") == 0;
        if (!system && strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
            return err_set(err, errlen, "%s: message %zu: the role is not system, user or assistant", path,
                           i + 1);
        if (system && i > 0)
            return err_set(err, errlen, "%s: message %zu: a system prompt can only be the first", path,
                           i + 1);
        if (talk_add(t, role, json_string_value(content), json_string_length(content)) != 0)
            return err_set(err, errlen, "out of memory");
    }
    return 0;
}

int chat_load(const char *path, struct talk *t, struct settings *s, char *err, size_t errlen)
{
    struct talk loaded = {.messages = NULL};
    struct settings wanted = *s;
    json_t *root = read_json(path, err, errlen);
    json_t *settings = json_object_get(root, "settings");
    int result = -1;
    if (!root)
        return -1;
    if (!json_is_object(root))
        err_set(err, errlen, "%s: no JSON object", path);
    else if (settings && !json_is_object(settings))
        err_set(err, errlen, "%s: \"settings\" is no object", path);
    else if (talk_init(&loaded) != 0)
        err_set(err, errlen, "out of memory");
    else if (read_messages(&loaded, path, json_object_get(root, "messages"), err, errlen) == 0) {
        err_set(err, errlen, "%s: its settings are refused", path);
        result = settings ? settings_from_json(&wanted, settings) : 0;
    }
    json_decref(root);
    if (result != 0) {
        talk_free(&loaded);
        return -1;
    }
    *t = loaded;
    *s = wanted;
    return 0;
}
