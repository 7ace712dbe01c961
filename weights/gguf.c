/* The GGUF container, versions 2 and 3 (ggml's docs/gguf.md), also split over several files:
 *
 *     "GGUF" u32 version u64 n_tensors u64 n_keys
 *     n_keys    × { string key, u32 type, value }       string: u64 length, bytes
 *     n_tensors × { string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset }
 *     padding to general.alignment, from where the offsets count; tensor data
 *
 * All numbers are little-endian. Nothing in the file is believed before it is compared with what is left
 * of the file: every read goes through take(). */
#include "quant/err.h"
#include "weights/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The least bytes of the file that one element takes: they bound every count before it is used. */
enum {
    MIN_STRING_BYTES = 8,
    MIN_KEY_BYTES = MIN_STRING_BYTES + 4 + 1,
    MIN_TENSOR_BYTES = MIN_STRING_BYTES + 4 + 8 + 4 + 8,
    DEFAULT_ALIGNMENT = 32,
    MAX_META_TYPE = META_F64
};

/* Where the reader is in one file. Its functions return -1 (or NULL) with err filled. */
struct cursor {
    struct weights *w;
    const char *path;
    const uint8_t *data;
    uint64_t size, pos;
    int file;
    size_t first_meta, first_tensor; /* of this file, in w */
    char *err;
    size_t errlen;
    char where[128]; /* what is being read, for messages: "key 'general.name'" */
};

/* Types of ggml that are in no file of today. */
static const char *unsupported_type_name(uint32_t id)
{
    static const char *const names[] = {
        [4] = "q4_2",      [5] = "q4_3",      [9] = "q8_1",        [15] = "q8_k",       [31] = "q4_0_4_4",
        [32] = "q4_0_4_8", [33] = "q4_0_8_8", [36] = "iq4_nl_4_4", [37] = "iq4_nl_4_8", [38] = "iq4_nl_8_8",
    };
    return id < sizeof names / sizeof *names && names[id] ? names[id] : "unknown";
}

/* ---- Cursor ---------------------------------------------------------------------------------- */

static uint64_t left(const struct cursor *c)
{
    return c->size - c->pos;
}

static int out_of_memory(struct cursor *c)
{
    return err_set(c->err, c->errlen, "%s: out of memory at %s", c->path, c->where);
}

/* The next n bytes of the file. */
static const void *take(struct cursor *c, uint64_t n)
{
    if (n > left(c)) {
        err_set(c->err, c->errlen,
                "%s: cut short: %s needs %" PRIu64 " bytes at byte %" PRIu64 ", the file ends at %" PRIu64,
                c->path, c->where, n, c->pos, c->size);
        return NULL;
    }
    const void *p = c->data + c->pos;
    c->pos += n;
    return p;
}

static int take_u32(struct cursor *c, uint32_t *v)
{
    const void *p = take(c, sizeof *v);
    if (!p)
        return -1;
    memcpy(v, p, sizeof *v);
    return 0;
}

static int take_u64(struct cursor *c, uint64_t *v)
{
    const void *p = take(c, sizeof *v);
    if (!p)
        return -1;
    memcpy(v, p, sizeof *v);
    return 0;
}

static int take_string(struct cursor *c, struct wstr *s)
{
    uint64_t len;
    if (take_u64(c, &len))
        return -1;
    s->s = take(c, len);
    s->len = (size_t)len;
    return s->s ? 0 : -1;
}

/* A key or a tensor's name, copied to end in NUL; c->where becomes "KIND 'NAME'". */
static const char *take_name(struct cursor *c, const char *kind)
{
    uint64_t at = c->pos;
    struct wstr s;
    if (take_string(c, &s))
        return NULL;
    const char *fault = weights_name_fault(s.s, s.len);
    if (fault) {
        err_set(c->err, c->errlen, "%s: the name of %s %s (byte %" PRIu64 ")", c->path, c->where, fault, at);
        return NULL;
    }
    const char *name = weights_copy_string(c->w, s.s, s.len);
    if (!name)
        out_of_memory(c);
    else
        (void)snprintf(c->where, sizeof c->where, "%s '%.80s'", kind, name);
    return name;
}

/* ---- Metadata -------------------------------------------------------------------------------- */

static int read_strings(struct cursor *c, struct meta *m)
{
    struct weights *w = c->w;
    if (m->n > WEIGHTS_MAX_STRINGS - w->n_strings)
        return err_set(c->err, c->errlen, "%s: %s: %" PRIu64 " strings are more than this program takes",
                       c->path, c->where, m->n);
    struct wstr *str = weights_alloc(w, (size_t)m->n * sizeof *str);
    if (!str)
        return out_of_memory(c);
    for (uint64_t i = 0; i < m->n; i++)
        if (take_string(c, &str[i]))
            return -1;
    w->n_strings += (size_t)m->n;
    m->str = str;
    return 0;
}

static int read_numbers(struct cursor *c, struct meta *m)
{
    const uint8_t *p = take(c, m->n * meta_type_bytes(m->elem));
    if (!p)
        return -1;
    for (uint64_t i = 0; m->elem == META_BOOL && i < m->n; i++)
        if (p[i] > 1)
            return err_set(c->err, c->errlen, "%s: %s: a boolean is %d, not 0 or 1 (byte %" PRIu64 ")",
                           c->path, c->where, p[i], c->pos - m->n + i);
    m->data = p;
    return 0;
}

static int read_key(struct cursor *c)
{
    struct meta m = {.n = 1};
    uint32_t type;
    m.key = take_name(c, "key");
    if (!m.key)
        return -1;
    uint64_t type_at = c->pos;
    if (take_u32(c, &type))
        return -1;
    if (type > MAX_META_TYPE)
        return err_set(c->err, c->errlen, "%s: %s has the unknown type %" PRIu32 " (byte %" PRIu64 ")",
                       c->path, c->where, type, type_at);
    m.type = m.elem = (enum meta_type)type;
    if (m.type == META_ARRAY) {
        type_at = c->pos;
        if (take_u32(c, &type) || take_u64(c, &m.n))
            return -1;
        if (type == META_ARRAY)
            return err_set(c->err, c->errlen,
                           "%s: %s is an array of arrays, which is not supported (byte %" PRIu64 ")", c->path,
                           c->where, type_at);
        if (type > MAX_META_TYPE)
            return err_set(c->err, c->errlen,
                           "%s: %s is an array of the unknown type %" PRIu32 " (byte %" PRIu64 ")", c->path,
                           c->where, type, type_at);
        m.elem = (enum meta_type)type;
        uint64_t least = m.elem == META_STRING ? MIN_STRING_BYTES : meta_type_bytes(m.elem);
        if (m.n > left(c) / least)
            return err_set(c->err, c->errlen,
                           "%s: %s says it has %" PRIu64
                           " elements, more than the rest of the file holds (byte %" PRIu64 ")",
                           c->path, c->where, m.n, type_at + 4);
    }
    if (m.elem == META_STRING ? read_strings(c, &m) : read_numbers(c, &m))
        return -1;
    struct meta *slot = weights_add_meta(c->w);
    if (!slot)
        return out_of_memory(c);
    *slot = m;
    return 0;
}

/* The value of this file's integer key, or def where it has none; between min and max. */
static int file_int(struct cursor *c, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out)
{
    *out = def;
    for (size_t i = c->first_meta; i < c->w->n_meta; i++) {
        const struct meta *m = &c->w->meta[i];
        if (strcmp(m->key, key) != 0)
            continue;
        if (m->type == META_ARRAY || !meta_int(m, 0, out))
            return err_set(c->err, c->errlen, "%s: key '%s' is no integer (its type is %s)", c->path, key,
                           meta_type_name(m->type));
        if (*out < min || *out > max)
            return err_set(c->err, c->errlen,
                           "%s: key '%s' is %" PRId64 ", not between %" PRId64 " and %" PRId64, c->path, key,
                           *out, min, max);
    }
    return 0;
}

/* ---- Tensors --------------------------------------------------------------------------------- */

static int read_shape(struct cursor *c, struct tensor *t)
{
    uint64_t at = c->pos;
    uint32_t n_dims;
    if (take_u32(c, &n_dims))
        return -1;
    if (n_dims < 1 || n_dims > WEIGHTS_MAX_DIMS)
        return err_set(c->err, c->errlen, "%s: %s has %" PRIu32 " dimensions, not 1 to %d (byte %" PRIu64 ")",
                       c->path, c->where, n_dims, WEIGHTS_MAX_DIMS, at);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < WEIGHTS_MAX_DIMS; d++) {
        uint64_t len = 1;
        at = c->pos;
        if (d < t->n_dims && take_u64(c, &len))
            return -1;
        if (len < 1 || len > INT64_MAX)
            return err_set(c->err, c->errlen, "%s: %s: dimension %d is %" PRIu64 " (byte %" PRIu64 ")",
                           c->path, c->where, d, len, at);
        t->dims[d] = (int64_t)len;
    }
    return 0;
}

static int read_tensor(struct cursor *c, uint64_t alignment)
{
    struct tensor t = {.file = c->file};
    uint32_t id;
    char why[128];
    t.name = take_name(c, "tensor");
    if (!t.name || read_shape(c, &t))
        return -1;
    uint64_t at = c->pos;
    if (take_u32(c, &id))
        return -1;
    int type = qtype_by_gguf_id(id);
    if (type < 0)
        return err_set(c->err, c->errlen,
                       "%s: %s has type %" PRIu32 " (%s), which is not supported (byte %" PRIu64 ")", c->path,
                       c->where, id, unsupported_type_name(id), at);
    t.type = (enum qtype)type;
    if (weights_tensor_size(&t, why, sizeof why))
        return err_set(c->err, c->errlen, "%s: %s: %s", c->path, c->where, why);
    at = c->pos;
    if (take_u64(c, &t.offset))
        return -1;
    if (t.offset % alignment != 0)
        return err_set(c->err, c->errlen,
                       "%s: %s: offset %" PRIu64 " is not aligned to %" PRIu64 " (byte %" PRIu64 ")", c->path,
                       c->where, t.offset, alignment, at);
    struct tensor *slot = weights_add_tensor(c->w);
    if (!slot)
        return out_of_memory(c);
    *slot = t;
    return 0;
}

/* The directory is read: offsets, so far from the start of the data, become places in the file. */
static int place_tensors(struct cursor *c, uint64_t alignment)
{
    uint64_t pad = (alignment - c->pos % alignment) % alignment;
    for (size_t i = c->first_tensor; i < c->w->n_tensors; i++) {
        struct tensor *t = &c->w->tensor[i];
        uint64_t room = left(c) > pad ? left(c) - pad : 0;
        if (t->offset > room || t->bytes > room - t->offset)
            return err_set(c->err, c->errlen,
                           "%s: tensor '%.80s' (offset %" PRIu64 ", %" PRIu64
                           " bytes) runs past the end: the file has %" PRIu64 " bytes of data",
                           c->path, t->name, t->offset, t->bytes, room);
        t->offset += c->pos + pad;
        t->data = c->data + t->offset;
    }
    return 0;
}

/* ---- One file -------------------------------------------------------------------------------- */

static int read_version(struct cursor *c)
{
    uint32_t version;
    (void)snprintf(c->where, sizeof c->where, "the header");
    if (!take(c, 4) || take_u32(c, &version)) /* the magic was seen */
        return -1;
    if (version != 0 && (version & 0xffff) == 0)
        return err_set(c->err, c->errlen, "%s: is a big-endian GGUF file, which is not supported (byte 4)",
                       c->path);
    if (version == 1)
        return err_set(c->err, c->errlen,
                       "%s: is GGUF version 1, of 2023; versions 2 and 3 are supported (byte 4)", c->path);
    if (version != 2 && version != 3)
        return err_set(c->err, c->errlen,
                       "%s: is GGUF version %" PRIu32 "; versions 2 and 3 are supported (byte 4)", c->path,
                       version);
    if (c->file == 0)
        c->w->format = version == 2 ? "GGUF v2" : "GGUF v3";
    return 0;
}

static int check_count(struct cursor *c, uint64_t n, const char *what, uint64_t least, uint64_t max,
                       uint64_t at)
{
    if (n > left(c) / least || n > max)
        return err_set(c->err, c->errlen,
                       "%s: says it holds %" PRIu64 " %s, more than fit (byte %" PRIu64 ")", c->path, n, what,
                       at);
    return 0;
}

static int read_file(struct cursor *c)
{
    uint64_t n_tensors, n_keys;
    int64_t alignment;
    if (read_version(c) || take_u64(c, &n_tensors) || take_u64(c, &n_keys) ||
        check_count(c, n_tensors, "tensors", MIN_TENSOR_BYTES, WEIGHTS_MAX_TENSORS - c->w->n_tensors, 8) ||
        check_count(c, n_keys, "keys", MIN_KEY_BYTES, WEIGHTS_MAX_KEYS, 16))
        return -1;
    for (uint64_t i = 0; i < n_keys; i++) {
        (void)snprintf(c->where, sizeof c->where, "key %" PRIu64 " of %" PRIu64, i + 1, n_keys);
        if (read_key(c))
            return -1;
    }
    if (weights_check_keys(c->w, c->path, c->first_meta, c->err, c->errlen) ||
        file_int(c, "general.alignment", DEFAULT_ALIGNMENT, 8, 1 << 30, &alignment))
        return -1;
    if ((alignment & (alignment - 1)) != 0)
        return err_set(c->err, c->errlen, "%s: key 'general.alignment' is %" PRId64 ", no power of two",
                       c->path, alignment);
    for (uint64_t i = 0; i < n_tensors; i++) {
        (void)snprintf(c->where, sizeof c->where, "tensor %" PRIu64 " of %" PRIu64, i + 1, n_tensors);
        if (read_tensor(c, (uint64_t)alignment))
            return -1;
    }
    return place_tensors(c, (uint64_t)alignment);
}

/* ---- Split files ----------------------------------------------------------------------------- */

/* What the keys split.* of one part say. */
struct split {
    int64_t no, count, n_tensors; /* part number from 0; parts; tensors in all parts together, −1: not said */
};

static int read_part(struct weights *w, int file, struct split *s, char *err, size_t errlen)
{
    struct cursor c = {.w = w,
                       .path = w->file[file].name,
                       .data = w->file[file].data,
                       .size = w->file[file].size,
                       .file = file,
                       .first_meta = w->n_meta,
                       .first_tensor = w->n_tensors,
                       .err = err,
                       .errlen = errlen};
    if (c.size < 4 || memcmp(c.data, "GGUF", 4) != 0)
        return err_set(err, errlen, "%s: is no GGUF file (wrong first bytes, at byte 0)", c.path);
    if (read_file(&c) || file_int(&c, "split.count", 1, 0, 65535, &s->count) ||
        file_int(&c, "split.no", 0, 0, 65534, &s->no) ||
        file_int(&c, "split.tensors.count", -1, 0, WEIGHTS_MAX_TENSORS, &s->n_tensors))
        return -1;
    if (file > 0)
        w->n_meta = c.first_meta; /* the later parts' keys only describe the split */
    return 0;
}

/* path without "-00002-of-00005.gguf" for part number no (from 0): its length, or -1. */
static int prefix_len(const char *path, int64_t no, int64_t count)
{
    char end[64];
    int m = snprintf(end, sizeof end, "-%05" PRId64 "-of-%05" PRId64 ".gguf", no + 1, count);
    size_t n = strlen(path);
    return n >= (size_t)m && n < INT32_MAX && strcmp(path + n - m, end) == 0 ? (int)n - m : -1;
}

static char *part_name(const char *path, int prefix, int64_t no, int64_t count)
{
    size_t size = (size_t)prefix + 64;
    char *name = malloc(size);
    if (name)
        (void)snprintf(name, size, "%.*s-%05" PRId64 "-of-%05" PRId64 ".gguf", prefix, path, no + 1, count);
    return name;
}

static int refuse_later_part(const struct weights *w, const struct split *s, char *err, size_t errlen)
{
    int prefix = prefix_len(w->path, s->no, s->count);
    char *first = prefix >= 0 ? part_name(w->path, prefix, 0, s->count) : NULL;
    err_set(err, errlen,
            "%s: is part %" PRId64 " of %" PRId64
            " of a split model: open the first part%s%s (key 'split.no')",
            w->path, s->no + 1, s->count, first ? ", " : "", first ? first : "");
    free(first);
    return -1;
}

/* Maps and reads part number no of the model whose first part said `all`. */
static int add_part(struct weights *w, int prefix, int no, const struct split *all, char *err, size_t errlen)
{
    char *name = part_name(w->path, prefix, no, all->count);
    struct split s = {0};
    if (!name)
        return err_set(err, errlen, "%s: out of memory", w->path);
    int rc = weights_add_file(w, name, err, errlen);
    free(name);
    if (rc || read_part(w, no, &s, err, errlen))
        return -1;
    const char *path = w->file[no].name;
    if (s.no != no)
        return err_set(err, errlen, "%s: key 'split.no' is %" PRId64 ", not %d as in its name", path, s.no,
                       no);
    if (s.count != all->count)
        return err_set(err, errlen, "%s: key 'split.count' is %" PRId64 ", but %" PRId64 " in the first part",
                       path, s.count, all->count);
    if (s.n_tensors != all->n_tensors)
        return err_set(err, errlen,
                       "%s: key 'split.tensors.count' is %" PRId64 ", but %" PRId64 " in the first part",
                       path, s.n_tensors, all->n_tensors);
    return 0;
}

int gguf_read(struct weights *w, char *err, size_t errlen)
{
    struct split all = {0};
    if (read_part(w, 0, &all, err, errlen))
        return -1;
    if (all.no != 0)
        return refuse_later_part(w, &all, err, errlen);
    if (all.count > 1) {
        int prefix = prefix_len(w->path, 0, all.count);
        if (prefix < 0)
            return err_set(err, errlen,
                           "%s: is the first of %" PRId64
                           " files, but its name does not end in -00001-of-%05" PRId64
                           ".gguf, so the others cannot be found",
                           w->path, all.count, all.count);
        for (int no = 1; no < all.count; no++)
            if (add_part(w, prefix, no, &all, err, errlen))
                return -1;
    }
    if (all.n_tensors >= 0 && (uint64_t)all.n_tensors != w->n_tensors)
        return err_set(err, errlen,
                       "%s: key 'split.tensors.count' is %" PRId64 ", but the files hold %zu tensors",
                       w->path, all.n_tensors, w->n_tensors);
    return 0;
}
