/* See gguf_build.h. Written from the format's specification, independently of weights/gguf.c. */
#include "tests/weights/gguf_build.h"

#include <stdlib.h>
#include <string.h>

struct gguf_entry {
    char *name;
    size_t name_len;
    uint32_t type;
    /* Keys: the value's bytes. Tensors: the data. */
    uint8_t *bytes;
    size_t len;
    int n_dims;
    int64_t dims[WEIGHTS_MAX_DIMS];
};

static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

static void *copy_of(const void *data, size_t len)
{
    void *p = need(calloc(1, len + 1));
    if (data && len > 0)
        memcpy(p, data, len);
    return p;
}

/* ---- Entries --------------------------------------------------------------------------------- */

static struct gguf_entry *add(struct gguf_entry **list, size_t *n, const char *name, size_t name_len)
{
    *list = need(realloc(*list, (*n + 1) * sizeof **list));
    struct gguf_entry *e = &(*list)[(*n)++];
    *e = (struct gguf_entry){.name = copy_of(name, name_len), .name_len = name_len};
    return e;
}

static bool remove_named(struct gguf_entry *list, size_t *n, const char *name)
{
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(list[i].name, name) != 0)
            continue;
        free(list[i].name);
        free(list[i].bytes);
        memmove(&list[i], &list[i + 1], (--*n - i) * sizeof *list);
        return true;
    }
    return false;
}

struct gguf_build *gguf_build_new(uint32_t version)
{
    struct gguf_build *b = need(calloc(1, sizeof *b));
    b->version = version;
    b->alignment = 32;
    return b;
}

static void free_list(struct gguf_entry *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].name);
        free(list[i].bytes);
    }
    free(list);
}

void gguf_build_free(struct gguf_build *b)
{
    if (!b)
        return;
    free_list(b->keys, b->n_keys);
    free_list(b->tensors, b->n_tensors);
    free(b->data);
    free(b->fields);
    free(b);
}

void gguf_build_raw(struct gguf_build *b, const char *key, size_t key_len, uint32_t type, const void *value,
                    size_t len)
{
    struct gguf_entry *e = add(&b->keys, &b->n_keys, key, key_len);
    e->type = type;
    e->bytes = copy_of(value, len);
    e->len = len;
}

static void set(struct gguf_build *b, const char *key, enum meta_type type, const void *value, size_t len)
{
    (void)remove_named(b->keys, &b->n_keys, key);
    gguf_build_raw(b, key, strlen(key), type, value, len);
}

bool gguf_build_remove_key(struct gguf_build *b, const char *key)
{
    return remove_named(b->keys, &b->n_keys, key);
}

static size_t number_bytes(enum meta_type t)
{
    switch (t) {
    case META_U8:
    case META_I8:
    case META_BOOL:
        return 1;
    case META_U16:
    case META_I16:
        return 2;
    case META_U64:
    case META_I64:
    case META_F64:
        return 8;
    default:
        return 4;
    }
}

void gguf_build_int(struct gguf_build *b, const char *key, enum meta_type type, int64_t v)
{
    set(b, key, type, &v, number_bytes(type)); /* little-endian: the low bytes come first */
}

void gguf_build_float(struct gguf_build *b, const char *key, enum meta_type type, double v)
{
    float f = (float)v;
    set(b, key, type, type == META_F32 ? (const void *)&f : &v, number_bytes(type));
}

/* A growing value of a key. */
struct value {
    uint8_t *bytes;
    size_t len, cap;
};

static void append(struct value *v, const void *data, size_t len)
{
    if (v->len + len >= v->cap) {
        v->cap = (v->len + len) * 2 + 16;
        v->bytes = need(realloc(v->bytes, v->cap));
    }
    if (len > 0)
        memcpy(v->bytes + v->len, data, len);
    v->len += len;
}

static void append_string(struct value *v, const char *s, size_t len)
{
    uint64_t len64 = len;
    append(v, &len64, sizeof len64);
    append(v, s, len);
}

static void append_array_head(struct value *v, enum meta_type elem, uint64_t n)
{
    uint32_t type = elem;
    append(v, &type, sizeof type);
    append(v, &n, sizeof n);
}

static void set_value(struct gguf_build *b, const char *key, enum meta_type type, struct value *v)
{
    set(b, key, type, v->bytes, v->len);
    free(v->bytes);
}

void gguf_build_str(struct gguf_build *b, const char *key, const char *s)
{
    struct value v = {0};
    append_string(&v, s, strlen(s));
    set_value(b, key, META_STRING, &v);
}

void gguf_build_strs(struct gguf_build *b, const char *key, const char *const *s, size_t n)
{
    struct value v = {0};
    append_array_head(&v, META_STRING, n);
    for (size_t i = 0; i < n; i++)
        append_string(&v, s[i], strlen(s[i]));
    set_value(b, key, META_ARRAY, &v);
}

void gguf_build_array(struct gguf_build *b, const char *key, enum meta_type elem, const void *data,
                      uint64_t n)
{
    struct value v = {0};
    append_array_head(&v, elem, n);
    append(&v, data, (size_t)n * number_bytes(elem));
    set_value(b, key, META_ARRAY, &v);
}

void gguf_build_tensor(struct gguf_build *b, const char *name, enum qtype type, int n_dims,
                       const int64_t *dims, const void *data)
{
    struct gguf_entry *e = add(&b->tensors, &b->n_tensors, name, strlen(name));
    int64_t n = 1;
    e->type = (uint32_t)qtypes[type].gguf_id;
    e->n_dims = n_dims;
    for (int d = 0; d < n_dims; d++) {
        e->dims[d] = dims[d];
        n *= dims[d];
    }
    e->len = (size_t)qtype_bytes(type, n);
    e->bytes = copy_of(data, e->len);
}

bool gguf_build_remove_tensor(struct gguf_build *b, const char *name)
{
    return remove_named(b->tensors, &b->n_tensors, name);
}

/* ---- The image ------------------------------------------------------------------------------- */

static void put(struct gguf_build *b, const void *data, size_t len)
{
    if (b->len + len > b->cap) {
        b->cap = (b->len + len) * 2;
        b->data = need(realloc(b->data, b->cap));
    }
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void put_field(struct gguf_build *b, const char *what, uint64_t v, int bytes)
{
    if (b->n_fields == b->field_cap) {
        b->field_cap = b->field_cap * 2 + 64;
        b->fields = need(realloc(b->fields, b->field_cap * sizeof *b->fields));
    }
    b->fields[b->n_fields++] = (struct gguf_field){what, b->len, bytes};
    put(b, &v, (size_t)bytes);
}

static void put_name(struct gguf_build *b, const struct gguf_entry *e)
{
    put_field(b, "string length", e->name_len, 8);
    put(b, e->name, e->name_len);
}

/* Records the fields inside a value and writes it. */
static void put_value(struct gguf_build *b, const struct gguf_entry *e)
{
    size_t at = b->len;
    put(b, e->bytes, e->len);
    size_t end = b->len;
    bool strings = e->type == META_STRING;
    b->len = at; /* put_field writes the same bytes over those just copied */
    if (e->type == META_ARRAY && e->len >= 12) {
        uint32_t elem;
        uint64_t n;
        memcpy(&elem, e->bytes, sizeof elem);
        memcpy(&n, e->bytes + 4, sizeof n);
        put_field(b, "type", elem, 4);
        put_field(b, "count", n, 8);
        strings = elem == META_STRING;
    }
    while (strings && b->len + 8 <= end) {
        uint64_t len;
        memcpy(&len, b->data + b->len, sizeof len);
        put_field(b, "string length", len, 8);
        b->len += len;
    }
    b->len = end;
}

static void pad(struct gguf_build *b)
{
    static const uint8_t zero[1];
    while (b->len % b->alignment != 0)
        put(b, zero, 1);
}

void gguf_build_finish(struct gguf_build *b)
{
    b->len = 0;
    b->n_fields = 0;
    put(b, "GGUF", 4);
    put_field(b, "version", b->version, 4);
    put_field(b, "count", b->n_tensors, 8);
    put_field(b, "count", b->n_keys, 8);
    for (size_t i = 0; i < b->n_keys; i++) {
        put_name(b, &b->keys[i]);
        put_field(b, "type", b->keys[i].type, 4);
        put_value(b, &b->keys[i]);
    }
    uint64_t offset = 0;
    for (size_t i = 0; i < b->n_tensors; i++) {
        const struct gguf_entry *e = &b->tensors[i];
        put_name(b, e);
        put_field(b, "dims", (uint64_t)e->n_dims, 4);
        for (int d = 0; d < e->n_dims; d++)
            put_field(b, "dims", (uint64_t)e->dims[d], 8);
        put_field(b, "type", e->type, 4);
        put_field(b, "offset", offset, 8);
        offset = (offset + e->len + b->alignment - 1) / b->alignment * b->alignment;
    }
    b->data_at = (b->len + b->alignment - 1) / b->alignment * b->alignment;
    for (size_t i = 0; i < b->n_tensors; i++) {
        pad(b);
        put(b, b->tensors[i].bytes, b->tensors[i].len);
    }
}
