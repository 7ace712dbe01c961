/* One .safetensors file (Hugging Face's format):
 *
 *     u64 length of the header, JSON {"name": {"dtype": …, "shape": […], "data_offsets": [begin, end]},
 *     "__metadata__": {string: string}}, tensor data from begin (counted from the header's end) to end
 *
 * The data has to be covered without gap or overlap, as the format's own reader demands. Shapes there
 * name the slowest dimension first; here dims[0] is the fastest. */
#include "quant/err.h"
#include "weights/reader.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

/* Real headers have about 100 bytes per tensor. */
enum { MAX_HEADER_BYTES = 64 << 20 };

/* For writing, the first row of a type counts. The unsigned types are lent as the signed ones of their width.
 */
const struct safetensors_dtype safetensors_dtypes[] = {
    {"F32", QTYPE_F32}, {"F16", QTYPE_F16}, {"BF16", QTYPE_BF16}, {"F64", QTYPE_F64}, {"I8", QTYPE_I8},
    {"I16", QTYPE_I16}, {"I32", QTYPE_I32}, {"I64", QTYPE_I64},   {"U8", QTYPE_I8},   {"BOOL", QTYPE_I8},
    {"U16", QTYPE_I16}, {"U32", QTYPE_I32}, {"U64", QTYPE_I64},   {NULL, QTYPE_COUNT}};

struct parser {
    struct weights *w;
    const struct mapped_file *f;
    int file;
    uint64_t data_at; /* where the data starts in the file */
    char *err;
    size_t errlen;
};

/* A member of a tensor's entry that is a list of non-negative integers. */
static int read_list(const struct parser *p, const char *name, const json_t *entry, const char *member,
                     size_t max, uint64_t *out, size_t *n)
{
    const json_t *list = json_object_get(entry, member);
    if (!json_is_array(list))
        return err_set(p->err, p->errlen, "%s: tensor '%.80s' has no list '%s'", p->f->name, name, member);
    *n = json_array_size(list);
    if (*n > max)
        return err_set(p->err, p->errlen, "%s: tensor '%.80s': '%s' has %zu numbers, more than %zu",
                       p->f->name, name, member, *n, max);
    for (size_t i = 0; i < *n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return err_set(p->err, p->errlen, "%s: tensor '%.80s': '%s'[%zu] is no size", p->f->name, name,
                           member, i);
        out[i] = (uint64_t)json_integer_value(v);
    }
    return 0;
}

static int read_dtype(const struct parser *p, const char *name, const json_t *entry, enum qtype *type)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype)
        return err_set(p->err, p->errlen, "%s: tensor '%.80s' has no dtype", p->f->name, name);
    for (const struct safetensors_dtype *d = safetensors_dtypes; d->name; d++) {
        if (strcmp(dtype, d->name) == 0) {
            *type = d->type;
            return 0;
        }
    }
    bool printable = weights_name_fault(dtype, strlen(dtype)) == NULL;
    return err_set(p->err, p->errlen, "%s: tensor '%.80s' has dtype '%.20s'%s, which is not supported",
                   p->f->name, name, printable ? dtype : "?",
                   strncmp(dtype, "F8_", 3) == 0 ? " (8-bit floats)" : "");
}

static int read_tensor(const struct parser *p, const char *name, const json_t *entry)
{
    struct tensor t = {.name = name, .file = p->file, .n_dims = 1, .dims = {1, 1, 1, 1}};
    uint64_t shape[WEIGHTS_MAX_DIMS] = {0}, range[2] = {0};
    size_t n_dims = 0, n_range = 0;
    char why[128];
    if (read_dtype(p, name, entry, &t.type) ||
        read_list(p, name, entry, "shape", WEIGHTS_MAX_DIMS, shape, &n_dims) ||
        read_list(p, name, entry, "data_offsets", 2, range, &n_range))
        return -1;
    if (n_dims > 0) /* [] is a scalar: one dimension of 1 here */
        t.n_dims = (int)n_dims;
    for (size_t d = 0; d < n_dims; d++)
        t.dims[n_dims - 1 - d] = (int64_t)shape[d];
    if (weights_tensor_size(&t, why, sizeof why))
        return err_set(p->err, p->errlen, "%s: tensor '%.80s': %s", p->f->name, name, why);
    uint64_t data_bytes = p->f->size - p->data_at;
    if (n_range != 2 || range[0] > range[1] || range[1] > data_bytes)
        return err_set(p->err, p->errlen,
                       "%s: tensor '%.80s': its data_offsets do not lie in the file's %" PRIu64
                       " bytes of data",
                       p->f->name, name, data_bytes);
    if (range[1] - range[0] != t.bytes)
        return err_set(p->err, p->errlen,
                       "%s: tensor '%.80s': its shape takes %" PRIu64
                       " bytes, its data_offsets span %" PRIu64,
                       p->f->name, name, t.bytes, range[1] - range[0]);
    t.offset = p->data_at + range[0];
    t.data = p->f->data + t.offset;
    t.name = weights_copy_string(p->w, name, strlen(name));
    struct tensor *slot = weights_add_tensor(p->w);
    if (!slot || !t.name)
        return err_set(p->err, p->errlen, "%s: out of memory", p->f->name);
    *slot = t;
    return 0;
}

static int read_metadata(const struct parser *p, json_t *entries)
{
    const char *key;
    json_t *value;
    if (!json_is_object(entries))
        return err_set(p->err, p->errlen, "%s: '__metadata__' is no object", p->f->name);
    json_object_foreach(entries, key, value)
    {
        const char *fault = weights_name_fault(key, strlen(key));
        if (fault)
            return err_set(p->err, p->errlen, "%s: a key of '__metadata__' %s", p->f->name, fault);
        if (!json_is_string(value))
            return err_set(p->err, p->errlen, "%s: key '%.80s' of '__metadata__' is no string", p->f->name,
                           key);
        if (p->w->folder) /* it says "pt" in every shard; the folder's metadata are its JSON files */
            continue;
        size_t len = json_string_length(value);
        struct wstr *str = weights_alloc(p->w, sizeof *str);
        const char *copy = weights_copy_string(p->w, json_string_value(value), len);
        const char *name = weights_copy_string(p->w, key, strlen(key));
        struct meta *m = weights_add_meta(p->w);
        if (!str || !copy || !name || !m)
            return err_set(p->err, p->errlen, "%s: out of memory", p->f->name);
        *str = (struct wstr){copy, len};
        *m = (struct meta){.key = name, .type = META_STRING, .elem = META_STRING, .n = 1, .str = str};
    }
    return 0;
}

static int read_header(const struct parser *p, json_t *header)
{
    const char *name;
    json_t *entry;
    uint64_t covered = 0;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (read_metadata(p, entry))
                return -1;
            continue;
        }
        const char *fault = weights_name_fault(name, strlen(name));
        if (fault)
            return err_set(p->err, p->errlen, "%s: the name of a tensor %s", p->f->name, fault);
        if (p->w->n_tensors == WEIGHTS_MAX_TENSORS)
            return err_set(p->err, p->errlen, "%s: more than %d tensors", p->f->name, WEIGHTS_MAX_TENSORS);
        if (!json_is_object(entry))
            return err_set(p->err, p->errlen, "%s: tensor '%.80s' is described by no object", p->f->name,
                           name);
        if (read_tensor(p, name, entry))
            return -1;
        covered += p->w->tensor[p->w->n_tensors - 1].bytes;
    }
    /* More than all of it is an overlap, which weights_open finds and names. */
    if (covered < p->f->size - p->data_at)
        return err_set(p->err, p->errlen,
                       "%s: %" PRIu64 " of its %" PRIu64 " bytes of data belong to no tensor", p->f->name,
                       p->f->size - p->data_at - covered, p->f->size - p->data_at);
    return 0;
}

int safetensors_read(struct weights *w, int file, char *err, size_t errlen)
{
    const struct mapped_file *f = &w->file[file];
    uint64_t len;
    char why[128];
    if (!w->folder)
        w->format = "safetensors";
    if (f->size < sizeof len)
        return err_set(err, errlen, "%s: cut short: %" PRIu64 " bytes, a safetensors file begins with 8",
                       f->name, f->size);
    memcpy(&len, f->data, sizeof len);
    if (len > f->size - sizeof len)
        return err_set(err, errlen,
                       "%s: cut short: its header of %" PRIu64 " bytes does not fit in %" PRIu64 " (byte 0)",
                       f->name, len, f->size);
    if (len > MAX_HEADER_BYTES)
        return err_set(err, errlen, "%s: its header has %" PRIu64 " bytes, more than %d (byte 0)", f->name,
                       len, MAX_HEADER_BYTES);
    json_t *header = weights_parse_json(f->data + sizeof len, (size_t)len, sizeof len, true, why, sizeof why);
    if (!header)
        return err_set(err, errlen, "%s: its header %s", f->name, why);
    struct parser p = {w, f, file, sizeof len + len, err, errlen};
    int rc = json_is_object(header)
                 ? read_header(&p, header)
                 : err_set(err, errlen, "%s: its header is no JSON object (byte 8)", f->name);
    json_decref(header);
    return rc;
}
