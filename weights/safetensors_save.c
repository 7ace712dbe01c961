/* Writing a .safetensors file. */
#include "quant/err.h"
#include "weights/reader.h"
#include "weights/save.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *dtype_name(enum qtype type)
{
    for (const struct safetensors_dtype *d = safetensors_dtypes; d->name; d++)
        if (d->type == type)
            return d->name;
    return NULL;
}

/* Adds one tensor's entry to the header; *at moves from its first byte to the byte behind it. */
static int add_entry(json_t *header, const struct save_tensor *s, uint64_t *at, const char *path, char *err,
                     size_t errlen)
{
    const char *dtype = dtype_name(s->type);
    const char *fault = weights_name_fault(s->name, strlen(s->name));
    struct tensor t = {.type = s->type, .n_dims = s->n_dims, .dims = {1, 1, 1, 1}};
    char why[128];
    if (fault)
        return err_set(err, errlen, "%s: the name of a tensor %s", path, fault);
    if (!dtype)
        return err_set(err, errlen, "%s: tensor '%s': a safetensors file cannot hold type %s", path, s->name,
                       qtypes[s->type].name);
    json_t *shape = json_array();
    for (int d = 0; d < s->n_dims; d++) {
        t.dims[d] = s->dims[d];
        (void)json_array_append_new(shape, json_integer(s->dims[d]));
    }
    if (weights_tensor_size(&t, why, sizeof why)) {
        json_decref(shape);
        return err_set(err, errlen, "%s: tensor '%s': %s", path, s->name, why);
    }
    uint64_t end = *at + t.bytes;
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets",
                              (json_int_t)*at, (json_int_t)end);
    *at = end;
    if (json_object_get(header, s->name)) {
        json_decref(entry);
        return err_set(err, errlen, "%s: tensor '%s' occurs twice", path, s->name);
    }
    if (json_object_set_new(header, s->name, entry))
        return err_set(err, errlen, "%s: tensor '%s': out of memory, or its name is no UTF-8", path, s->name);
    return 0;
}

/* Header (padded with spaces, so that the data starts at a multiple of 8), then the tensors. */
static int write_file(struct save_file *f, const char *json, const struct save_tensor *t, size_t n,
                      save_tensor_write *write, void *arg)
{
    size_t len = strlen(json);
    uint64_t padded = (len + 7) & ~(uint64_t)7;
    if (save_write(f, &padded, sizeof padded) || save_write(f, json, len) ||
        save_write(f, "       ", padded - len))
        return -1;
    for (size_t i = 0; i < n; i++) {
        int64_t elements = 1;
        for (int d = 0; d < t[i].n_dims; d++)
            elements *= t[i].dims[d];
        const uint64_t begin = f->at, bytes = (uint64_t)qtype_bytes(t[i].type, elements);
        if (!save_skip(f, bytes) && bytes > 0 &&
            (t[i].data ? save_write(f, t[i].data, bytes) : write(arg, i, f)))
            return -1;
        if (f->at - begin != bytes)
            return err_set(f->err, f->errlen, "%s: tensor '%s' has %" PRIu64 " bytes, not %" PRIu64, f->path,
                           t[i].name, f->at - begin, bytes);
    }
    return 0;
}

int weights_save_safetensors_parts(const char *path, const struct save_tensor *t, size_t n,
                                   save_tensor_write *write, void *arg, const struct save_partial *partial,
                                   char *err, size_t errlen)
{
    json_t *header = json_object();
    uint64_t at = 0;
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = add_entry(header, &t[i], &at, path, err, errlen);
    char *json = rc == 0 ? json_dumps(header, JSON_COMPACT) : NULL;
    struct save_file f;
    if (rc == 0 && !json)
        rc = err_set(err, errlen, "%s: out of memory", path);
    if (rc == 0)
        rc = save_open(&f, path, partial, err, errlen);
    if (rc == 0)
        rc = save_close(&f, write_file(&f, json, t, n, write, arg));
    free(json);
    json_decref(header);
    return rc;
}

int weights_save_safetensors(const char *path, const struct save_tensor *t, size_t n, char *err,
                             size_t errlen)
{
    return weights_save_safetensors_parts(path, t, n, NULL, NULL, NULL, err, errlen);
}
