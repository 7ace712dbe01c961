/* Reading, changing and writing small GGUF files (version 3), which tests trust. */
#include "tests/model/gguf_edit.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 32 };

struct input {
    const char *data;
    size_t size, at;
};

static const void *take(struct input *in, size_t n)
{
    ck_assert_uint_le(n, in->size - in->at);
    in->at += n;
    return in->data + in->at - n;
}

static uint32_t take_u32(struct input *in)
{
    uint32_t v;
    memcpy(&v, take(in, sizeof v), sizeof v);
    return v;
}

static uint64_t take_u64(struct input *in)
{
    uint64_t v;
    memcpy(&v, take(in, sizeof v), sizeof v);
    return v;
}

static void take_name(struct input *in, char name[128])
{
    uint64_t n = take_u64(in);
    ck_assert_uint_lt(n, 128);
    memcpy(name, take(in, n), n);
    name[n] = 0;
}

static void skip_value(struct input *in, uint32_t type)
{
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    ck_assert_uint_lt(type, sizeof bytes / sizeof *bytes);
    if (type == GGUF_STRING) {
        (void)take(in, take_u64(in));
    } else if (type == GGUF_ARRAY) {
        uint32_t elem = take_u32(in);
        for (uint64_t i = take_u64(in); i > 0; i--)
            skip_value(in, elem);
    } else {
        (void)take(in, bytes[type]);
    }
}

static void *copy(const void *p, size_t n)
{
    void *q = malloc(n ? n : 1);
    ck_assert_ptr_nonnull(q);
    if (n)
        memcpy(q, p, n);
    return q;
}

struct edit *edit_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(size);
    ck_assert_ptr_nonnull(data);
    ck_assert_uint_eq(fread(data, 1, size, f), size);
    (void)fclose(f);

    struct input in = {data, size, 0};
    ck_assert_mem_eq(take(&in, 4), "GGUF", 4);
    ck_assert_uint_eq(take_u32(&in), 3);
    struct edit *g = calloc(1, sizeof *g);
    ck_assert_ptr_nonnull(g);
    g->n_tensors = take_u64(&in);
    g->n_keys = take_u64(&in);
    g->key = calloc(g->n_keys, sizeof *g->key);
    g->tensor = calloc(g->n_tensors, sizeof *g->tensor);
    uint64_t *offset = calloc(g->n_tensors + 1, sizeof *offset);
    ck_assert(g->key && g->tensor && offset);
    for (size_t i = 0; i < g->n_keys; i++) {
        struct edit_key *k = &g->key[i];
        take_name(&in, k->name);
        k->type = take_u32(&in);
        size_t from = in.at;
        skip_value(&in, k->type);
        k->bytes = in.at - from;
        k->value = copy(data + from, k->bytes);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct edit_tensor *t = &g->tensor[i];
        take_name(&in, t->name);
        t->n_dims = take_u32(&in);
        for (uint32_t d = 0; d < t->n_dims; d++)
            t->dims[d] = take_u64(&in);
        t->type = take_u32(&in);
        offset[i] = take_u64(&in);
    }
    size_t base = (in.at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    offset[g->n_tensors] = size - base;
    for (size_t i = 0; i < g->n_tensors; i++) { /* up to the next one, padding included */
        g->tensor[i].bytes = offset[i + 1] - offset[i];
        g->tensor[i].data = copy(data + base + offset[i], g->tensor[i].bytes);
    }
    free(offset);
    free(data);
    return g;
}

void edit_free(struct edit *g)
{
    for (size_t i = 0; i < g->n_keys; i++)
        free(g->key[i].value);
    for (size_t i = 0; i < g->n_tensors; i++)
        free(g->tensor[i].data);
    free(g->key);
    free(g->tensor);
    free(g);
}

/* ---- Keys --------------------------------------------------------------------------------------- */

void edit_set(struct edit *g, const char *name, uint32_t type, const void *value, size_t bytes)
{
    edit_remove_key(g, name);
    g->key = realloc(g->key, (g->n_keys + 1) * sizeof *g->key);
    ck_assert_ptr_nonnull(g->key);
    struct edit_key *k = &g->key[g->n_keys++];
    (void)snprintf(k->name, sizeof k->name, "%s", name);
    k->type = type;
    k->value = copy(value, bytes);
    k->bytes = bytes;
}

void edit_set_u32(struct edit *g, const char *name, uint32_t v)
{
    edit_set(g, name, GGUF_U32, &v, sizeof v);
}

void edit_set_f32(struct edit *g, const char *name, float v)
{
    edit_set(g, name, GGUF_F32, &v, sizeof v);
}

void edit_set_str(struct edit *g, const char *name, const char *v)
{
    char value[256];
    uint64_t n = strlen(v);
    ck_assert_uint_le(n, sizeof value - sizeof n);
    memcpy(value, &n, sizeof n);
    memcpy(value + sizeof n, v, n);
    edit_set(g, name, GGUF_STRING, value, sizeof n + n);
}

void edit_set_array(struct edit *g, const char *name, const uint32_t *v, size_t n)
{
    char value[256];
    uint32_t elem = GGUF_U32;
    uint64_t len = n;
    ck_assert_uint_le(n * sizeof *v, sizeof value - sizeof elem - sizeof len);
    memcpy(value, &elem, sizeof elem);
    memcpy(value + sizeof elem, &len, sizeof len);
    if (n > 0)
        memcpy(value + sizeof elem + sizeof len, v, n * sizeof *v);
    edit_set(g, name, GGUF_ARRAY, value, sizeof elem + sizeof len + n * sizeof *v);
}

void edit_remove_key(struct edit *g, const char *name)
{
    for (size_t i = 0; i < g->n_keys; i++)
        if (strcmp(g->key[i].name, name) == 0) {
            free(g->key[i].value);
            memmove(&g->key[i], &g->key[i + 1], (g->n_keys - i - 1) * sizeof *g->key);
            g->n_keys--;
            return;
        }
}

/* ---- Tensors ------------------------------------------------------------------------------------ */

struct edit_tensor *edit_find(struct edit *g, const char *name)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensor[i].name, name) == 0)
            return &g->tensor[i];
    ck_abort_msg("no tensor '%s' to change", name);
}

void edit_remove_tensor(struct edit *g, const char *name)
{
    struct edit_tensor *t = edit_find(g, name);
    size_t i = (size_t)(t - g->tensor);
    free(t->data);
    memmove(t, t + 1, (g->n_tensors - i - 1) * sizeof *t);
    g->n_tensors--;
}

struct edit_tensor *edit_add(struct edit *g, const char *name, const float *v, size_t n)
{
    g->tensor = realloc(g->tensor, (g->n_tensors + 1) * sizeof *g->tensor);
    ck_assert_ptr_nonnull(g->tensor);
    struct edit_tensor *t = &g->tensor[g->n_tensors++];
    memset(t, 0, sizeof *t);
    (void)snprintf(t->name, sizeof t->name, "%s", name);
    t->n_dims = 1;
    t->dims[0] = n;
    t->bytes = n * sizeof *v;
    t->data = copy(v, t->bytes);
    return t;
}

/* ---- Writing ------------------------------------------------------------------------------------ */

static void put(FILE *f, const void *p, size_t n)
{
    if (n)
        ck_assert_uint_eq(fwrite(p, 1, n, f), n);
}

static void put_u32(FILE *f, uint32_t v)
{
    put(f, &v, sizeof v);
}

static void put_u64(FILE *f, uint64_t v)
{
    put(f, &v, sizeof v);
}

static void put_name(FILE *f, const char *s)
{
    put_u64(f, strlen(s));
    put(f, s, strlen(s));
}

static size_t pad(size_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void put_padding(FILE *f, size_t written)
{
    static const char zeros[ALIGNMENT];
    put(f, zeros, pad(written) - written);
}

const char *edit_write(const struct edit *g)
{
    static char path[256];
    const char *dir = getenv("TMPDIR");
    (void)snprintf(path, sizeof path, "%s/quoll-test-XXXXXX", dir ? dir : "/tmp");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    FILE *f = fdopen(fd, "wb");
    ck_assert_ptr_nonnull(f);
    put(f, "GGUF", 4);
    put_u32(f, 3);
    put_u64(f, g->n_tensors);
    put_u64(f, g->n_keys);
    for (size_t i = 0; i < g->n_keys; i++) {
        put_name(f, g->key[i].name);
        put_u32(f, g->key[i].type);
        put(f, g->key[i].value, g->key[i].bytes);
    }
    size_t offset = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct edit_tensor *t = &g->tensor[i];
        put_name(f, t->name);
        put_u32(f, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++)
            put_u64(f, t->dims[d]);
        put_u32(f, t->type);
        put_u64(f, offset);
        offset += pad(t->bytes);
    }
    put_padding(f, (size_t)ftell(f));
    for (size_t i = 0; i < g->n_tensors; i++) {
        put(f, g->tensor[i].data, g->tensor[i].bytes);
        put_padding(f, g->tensor[i].bytes);
    }
    ck_assert_int_eq(fclose(f), 0);
    return path;
}
