/* Writing a GGUF file, version 3, as its specification has it (github.com/ggml-org/ggml, docs/gguf.md). */
#include "quant/err.h"
#include "weights/reader.h"
#include "weights/save.h"

#include <inttypes.h>
#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3 };

static int put_u32(struct save_file *f, uint32_t v)
{
    return save_write(f, &v, sizeof v);
}

static int put_u64(struct save_file *f, uint64_t v)
{
    return save_write(f, &v, sizeof v);
}

static int put_string(struct save_file *f, const char *s, size_t len)
{
    return put_u64(f, len) || save_write(f, s, len) ? -1 : 0;
}

static int put_meta(struct save_file *f, const struct meta *m)
{
    if (put_string(f, m->key, strlen(m->key)) || put_u32(f, m->type))
        return -1;
    if (m->type == META_ARRAY && (put_u32(f, m->elem) || put_u64(f, m->n)))
        return -1;
    if (m->elem != META_STRING)
        return save_write(f, m->data, m->n * meta_type_bytes(m->elem));
    for (uint64_t i = 0; i < m->n; i++)
        if (put_string(f, m->str[i].s, m->str[i].len))
            return -1;
    return 0;
}

static uint64_t aligned(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint64_t tensor_bytes(const struct save_gguf_tensor *t)
{
    int64_t n = 1;
    for (int d = 0; d < t->n_dims; d++)
        n *= t->dims[d];
    return (uint64_t)qtype_bytes(t->type, n);
}

static int write_file(struct save_file *f, const struct save_gguf *g)
{
    uint64_t offset = 0;
    if (save_write(f, "GGUF", 4) || put_u32(f, VERSION) || put_u64(f, g->n_tensors) || put_u64(f, g->n_meta))
        return -1;
    for (size_t i = 0; i < g->n_meta; i++)
        if (put_meta(f, &g->meta[i]))
            return -1;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct save_gguf_tensor *t = &g->tensor[i];
        if (put_string(f, t->name, strlen(t->name)) || put_u32(f, (uint32_t)t->n_dims))
            return -1;
        for (int d = 0; d < t->n_dims; d++)
            if (put_u64(f, (uint64_t)t->dims[d]))
                return -1;
        if (put_u32(f, (uint32_t)qtypes[t->type].gguf_id) || put_u64(f, offset))
            return -1;
        offset += aligned(tensor_bytes(t));
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (save_pad(f, ALIGNMENT))
            return -1;
        uint64_t begin = f->at, n = tensor_bytes(&g->tensor[i]);
        if (!save_skip(f, n) && g->write(g->arg, i, f))
            return -1;
        if (f->at - begin != n)
            return err_set(f->err, f->errlen, "%s: tensor '%s' has %" PRIu64 " bytes, not %" PRIu64, f->path,
                           g->tensor[i].name, f->at - begin, n);
    }
    return save_pad(f, ALIGNMENT);
}

int weights_save_gguf(const char *path, const struct save_gguf *g, char *err, size_t errlen)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        const char *fault = weights_name_fault(g->tensor[i].name, strlen(g->tensor[i].name));
        if (fault)
            return err_set(err, errlen, "%s: the name of a tensor %s", path, fault);
        if (qtypes[g->tensor[i].type].gguf_id < 0)
            return err_set(err, errlen, "%s: tensor '%s': a GGUF cannot hold type %s", path,
                           g->tensor[i].name, qtypes[g->tensor[i].type].name);
    }
    struct save_file f;
    if (save_open(&f, path, g->partial, err, errlen))
        return -1;
    return save_close(&f, write_file(&f, g));
}

int weights_save_part(struct save_file *f, const void *data, uint64_t n)
{
    return save_write(f, data, n);
}
