/* JSON from files that nobody vouches for: parsed within limits, and config files as metadata. */
#include "quant/err.h"
#include "weights/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* jansson takes up to 150 bytes of memory per value and recurses: both are limited before it starts. A
 * safetensors header has about 8 values per tensor, an index one. */
enum {
    MAX_JSON_VALUES = 1 << 20,
    MAX_JSON_DEPTH = 64,
    MAX_CONFIG_BYTES = 4 << 20,
    MAX_CONFIG_KEYS = 1 << 17, /* after flattening, where nesting can multiply the length of keys */
    MAX_CONFIG_KEY_BYTES = 512
};

/* ---- Parsing --------------------------------------------------------------------------------- */

/* Follows strings and brackets as far as the text is valid, which is as far as jansson will get. */
static int check_limits(const char *s, size_t len, uint64_t base, char *why, size_t whylen)
{
    size_t depth = 0, n_values = 1;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '"') {
            for (i++; i < len && s[i] != '"'; i++)
                i += s[i] == '\\';
        } else if (s[i] == '[' || s[i] == '{') {
            if (++depth > MAX_JSON_DEPTH)
                return err_set(why, whylen, "is nested deeper than %d (byte %" PRIu64 ")", MAX_JSON_DEPTH,
                               base + i);
            n_values++;
        } else if (s[i] == ']' || s[i] == '}')
            depth -= depth > 0;
        else if (s[i] == ',' && ++n_values > MAX_JSON_VALUES)
            return err_set(why, whylen, "has more than %d values (byte %" PRIu64 ")", MAX_JSON_VALUES,
                           base + i);
    }
    return 0;
}

json_t *weights_parse_json(const void *data, size_t len, uint64_t base, bool unique_names, char *why,
                           size_t whylen)
{
    json_error_t fault;
    if (check_limits(data, len, base, why, whylen))
        return NULL;
    json_t *v = json_loadb(data, len, unique_names ? JSON_REJECT_DUPLICATES : 0, &fault);
    if (v)
        return v;
    enum json_error_code code = json_error_code(&fault); /* jansson's own text quotes the file */
    err_set(why, whylen, "%s (byte %" PRIu64 ")",
            code == json_error_duplicate_key      ? "names something twice"
            : code == json_error_numeric_overflow ? "holds a number that is too large"
            : code == json_error_out_of_memory    ? "needs more memory than there is"
                                                  : "is no valid JSON",
            base + (uint64_t)(fault.position > 0 ? fault.position : 0));
    return NULL;
}

static int read_text(int fd, const char *path, size_t max_bytes, char **text, size_t *len, char *err,
                     size_t errlen)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_set(err, errlen, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, errlen, "%s: is not a regular file", path);
    if ((uint64_t)st.st_size > max_bytes)
        return err_set(err, errlen, "%s: has %" PRIu64 " bytes, more than %zu", path, (uint64_t)st.st_size,
                       max_bytes);
    *text = malloc((size_t)st.st_size + 1);
    if (!*text)
        return err_set(err, errlen, "%s: out of memory", path);
    *len = 0;
    while (*len < (size_t)st.st_size) {
        ssize_t n = read(fd, *text + *len, (size_t)st.st_size - *len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, errlen, "%s: cannot read at byte %zu: %s", path, *len, strerror(errno));
        if (n == 0)
            break; /* shorter than a moment ago: the parser judges what is there */
        *len += (size_t)n;
    }
    return 0;
}

json_t *weights_read_json(const char *path, size_t max_bytes, bool unique_names, char *err, size_t errlen)
{
    char *text = NULL, why[128];
    size_t len = 0;
    json_t *v = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        err_set(err, errlen, "%s: %s", path, strerror(errno));
        return NULL;
    }
    if (read_text(fd, path, max_bytes, &text, &len, err, errlen) == 0) {
        v = weights_parse_json(text, len, 0, unique_names, why, sizeof why);
        if (!v)
            err_set(err, errlen, "%s: %s", path, why);
        else if (!json_is_object(v)) {
            err_set(err, errlen, "%s: is no JSON object (byte 0)", path);
            json_decref(v);
            v = NULL;
        }
    }
    free(text);
    (void)close(fd);
    return v;
}

/* ---- Metadata -------------------------------------------------------------------------------- */

struct flattener {
    struct weights *w;
    const char *path;
    size_t first_meta;
    size_t key_len;
    char key[MAX_CONFIG_KEY_BYTES + 1];
    char *err;
    size_t errlen;
};

/* The metadata type of a scalar; META_ARRAY stands for none. */
static enum meta_type scalar_type(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return META_STRING;
    case JSON_INTEGER:
        return META_I64;
    case JSON_REAL:
        return META_F64;
    case JSON_TRUE:
    case JSON_FALSE:
        return META_BOOL;
    default:
        return META_ARRAY;
    }
}

/* The type that all elements of an array share, whole numbers counting as F64 beside others; META_ARRAY:
 * there is none. */
static enum meta_type element_type(const json_t *array)
{
    enum meta_type type = META_I64; /* of an empty one */
    for (size_t i = 0; i < json_array_size(array); i++) {
        enum meta_type t = scalar_type(json_array_get(array, i));
        if (i == 0)
            type = t;
        else if ((t == META_F64 && type == META_I64) || (t == META_I64 && type == META_F64))
            type = META_F64;
        else if (t != type)
            return META_ARRAY;
    }
    return type;
}

static int store(struct flattener *f, const json_t *v, enum meta_type elem, void *data, size_t i)
{
    int64_t whole = json_integer_value(v);
    double number = json_number_value(v);
    switch (elem) {
    case META_STRING: {
        size_t len = json_string_length(v);
        const char *copy = weights_copy_string(f->w, json_string_value(v), len);
        ((struct wstr *)data)[i] = (struct wstr){copy, len};
        return copy ? 0 : -1;
    }
    case META_BOOL:
        ((uint8_t *)data)[i] = json_is_true(v);
        return 0;
    case META_F64:
        memcpy((double *)data + i, &number, sizeof number);
        return 0;
    default:
        memcpy((int64_t *)data + i, &whole, sizeof whole);
        return 0;
    }
}

/* One entry of the metadata: a scalar, or an array whose elements are scalars of type elem. */
static int add_entry(struct flattener *f, const json_t *v, enum meta_type elem)
{
    bool array = json_is_array(v);
    size_t n = array ? json_array_size(v) : 1;
    const char *fault = weights_name_fault(f->key, f->key_len);
    if (fault)
        return err_set(f->err, f->errlen, "%s: a key in it %s", f->path, fault);
    if (f->w->n_meta - f->first_meta == MAX_CONFIG_KEYS)
        return err_set(f->err, f->errlen, "%s: more than %d keys", f->path, MAX_CONFIG_KEYS);
    void *data = weights_alloc(f->w, n * (elem == META_STRING ? sizeof(struct wstr) : meta_type_bytes(elem)));
    const char *key = weights_copy_string(f->w, f->key, f->key_len);
    struct meta *m = weights_add_meta(f->w);
    int rc = data && key && m ? 0 : -1;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = store(f, array ? json_array_get(v, i) : v, elem, data, i);
    if (rc)
        return err_set(f->err, f->errlen, "%s: out of memory", f->path);
    *m = (struct meta){.key = key,
                       .type = array ? META_ARRAY : elem,
                       .elem = elem,
                       .n = n,
                       .data = elem == META_STRING ? NULL : data,
                       .str = elem == META_STRING ? data : NULL};
    return 0;
}

static int flatten(struct flattener *f, json_t *v);

static int flatten_member(struct flattener *f, const char *name, json_t *v)
{
    size_t len = strlen(name), before = f->key_len;
    if (len + 1 > MAX_CONFIG_KEY_BYTES - before)
        return err_set(f->err, f->errlen,
                       "%s: a key in it, joined to those around it, is longer than %d bytes", f->path,
                       MAX_CONFIG_KEY_BYTES);
    f->key[before] = '.';
    memcpy(f->key + before + 1, name, len + 1);
    f->key_len += len + 1;
    int rc = flatten(f, v);
    f->key_len = before;
    f->key[before] = '\0';
    return rc;
}

/* Recursion: no deeper than MAX_JSON_DEPTH. */
static int flatten(struct flattener *f, json_t *v)
{
    int rc = 0;
    const char *name;
    json_t *member;
    if (json_is_null(v))
        return 0;
    if (json_is_object(v)) {
        json_object_foreach(v, name, member)
        {
            if (rc == 0)
                rc = flatten_member(f, name, member);
        }
        return rc;
    }
    enum meta_type elem = json_is_array(v) ? element_type(v) : scalar_type(v);
    if (elem != META_ARRAY)
        return add_entry(f, v, elem);
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++) {
        char index[24];
        (void)snprintf(index, sizeof index, "%zu", i);
        rc = flatten_member(f, index, json_array_get(v, i));
    }
    return rc;
}

/* Takes v, NULL included: err is filled then. */
static int add_value(struct weights *w, json_t *v, const char *path, const char *prefix, char *err,
                     size_t errlen)
{
    struct flattener f = {.w = w, .path = path, .first_meta = w->n_meta, .err = err, .errlen = errlen};
    if (!v)
        return -1;
    f.key_len = strlen(prefix);
    memcpy(f.key, prefix, f.key_len + 1); /* prefixes are short and our own */
    int rc = flatten(&f, v);
    json_decref(v);
    return rc ? -1 : weights_check_keys(w, path, f.first_meta, err, errlen);
}

int weights_add_json(struct weights *w, const char *path, const char *prefix, char *err, size_t errlen)
{
    json_t *v = weights_read_json(path, MAX_CONFIG_BYTES, false, err, errlen);
    return add_value(w, v, path, prefix, err, errlen);
}

int weights_add_json_text(struct weights *w, const char *text, const char *path, const char *prefix,
                          char *err, size_t errlen)
{
    char why[128];
    json_t *v = weights_parse_json(text, strlen(text), 0, false, why, sizeof why);
    if (!v)
        err_set(err, errlen, "%s: %s", path, why);
    return add_value(w, v, path, prefix, err, errlen);
}
