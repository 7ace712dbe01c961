/* `quoll inspect --json`. */
#include "tools/inspect.h"

#include "model/arch.h"
#include "tools/chat.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARRAY_SHOWN = 16 }; /* elements of a metadata array; vocabularies are as long as the file */

/* Text of the file: bytes that are no UTF-8 become U+FFFD. NULL: out of memory. */
static json_t *text_json(const char *s, size_t len)
{
    char *clean = text_clean(s, len);
    json_t *v = clean ? json_string(clean) : NULL;
    free(clean);
    return v;
}

/* Byte counts stay exact up to 2⁶³, which no file reaches. */
static json_t *count_json(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* Element i: JSON knows no NaN and no infinity, and jansson no integer above 2⁶³: those become text. */
static json_t *element_json(const struct meta *m, uint64_t i)
{
    int64_t v;
    double f;
    struct wstr s;
    char text[32];
    if (meta_str(m, i, &s))
        return text_json(s.s, s.len);
    if (meta_int(m, i, &v))
        return m->elem == META_BOOL ? json_boolean(v) : json_integer(v);
    (void)meta_float(m, i, &f);
    if (m->elem != META_U64 && isfinite(f))
        return json_real(f);
    (void)snprintf(text, sizeof text, "%.0f", f);
    return json_string(text);
}

/* A value, or {"type", "length", "first": the first elements} of an array. */
static json_t *meta_json(const struct meta *m)
{
    if (m->type != META_ARRAY)
        return element_json(m, 0);
    json_t *first = json_array();
    for (uint64_t i = 0; i < m->n && i < ARRAY_SHOWN; i++)
        (void)json_array_append_new(first, element_json(m, i));
    return json_pack("{s:s, s:o, s:o}", "type", meta_type_name(m->elem), "length", count_json(m->n), "first",
                     first);
}

static json_t *config_json(const struct config *c)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b}", "n_layers", c->n_layers,
                     "dim", c->dim, "n_heads", c->n_heads, "n_kv_heads", c->n_kv_heads, "head_dim",
                     c->head_dim, "ffn_dim", c->ffn_dim, "vocab_size", c->vocab_size, "max_seq_len",
                     c->max_seq_len, "rotary_dim", c->rotary_dim, "rope_theta", c->rope.theta, "norm_eps",
                     (double)c->norm_eps, "tied_embeddings", (int)c->tied_embeddings);
}

static json_t *total_json(const char *name, const struct type_total *t)
{
    return json_pack("{s:s, s:o, s:o, s:o}", "type", name, "n_tensors", count_json(t->n_tensors), "n_params",
                     count_json(t->n_params), "bytes", count_json(t->bytes));
}

static json_t *tensor_json(const struct tensor *t)
{
    json_t *dims = json_array();
    for (int d = 0; d < t->n_dims; d++)
        (void)json_array_append_new(dims, json_integer(t->dims[d]));
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:i}", "name", text_json(t->name, strlen(t->name)), "type",
                     qtypes[t->type].name, "dims", dims, "bytes", count_json(t->bytes), "offset",
                     count_json(t->offset), "file", t->file);
}

/* Adds a value to an object; −1 when either could not be made. */
static int add(json_t *to, const char *key, json_t *value)
{
    return value ? json_object_set_new(to, key, value) : -1;
}

static json_t *plan_json(const struct plan *p)
{
    json_t *o = json_pack("{s:I, s:i, s:s, s:s, s:o, s:o, s:o, s:o}", "n_ctx", (json_int_t)p->n_ctx,
                          "n_batch", p->n_batch, "type_k", qtypes[p->type_k].name, "type_v",
                          qtypes[p->type_v].name, "weight_bytes", count_json(p->memory.weight_bytes),
                          "kv_bytes", count_json(p->memory.kv_bytes), "scratch_bytes",
                          count_json(p->memory.scratch_bytes), "total_bytes",
                          count_json(p->memory.weight_bytes + p->memory.kv_bytes + p->memory.scratch_bytes));
    if (o && p->on_gpu && !p->why_unknown[0] &&
        (add(o, "gpu_free_bytes", count_json(p->gpu_free)) ||
         add(o, "gpu_total_bytes", count_json(p->gpu_total)))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int add_model(json_t *o, const struct inspection *in)
{
    struct wstr arch;
    int rc = 0;
    if (in->has_config)
        rc |= add(o, "architecture", json_string(in->config.arch->name));
    else if (meta_str(weights_meta_find(in->w, "general.architecture"), 0, &arch))
        rc |= add(o, "architecture", text_json(arch.s, arch.len));
    rc |= add(o, "supported", json_boolean(in->has_config));
    if (in->has_config)
        return rc | add(o, "hyper_parameters", config_json(&in->config));
    return rc | add(o, "why_not", text_json(in->why_not, strlen(in->why_not)));
}

static int add_lists(json_t *o, const struct inspection *in)
{
    json_t *types = json_array(), *meta = json_object(), *tensors = json_array();
    int rc = 0;
    for (int t = 0; t < QTYPE_COUNT; t++)
        if (in->type[t].n_tensors > 0)
            rc |= json_array_append_new(types, total_json(qtypes[t].name, &in->type[t]));
    for (size_t i = 0; i < weights_n_meta(in->w); i++) {
        char *key = text_clean(weights_meta(in->w, i)->key, strlen(weights_meta(in->w, i)->key));
        rc |= key ? add(meta, key, meta_json(weights_meta(in->w, i))) : -1;
        free(key);
    }
    for (size_t i = 0; in->show_tensors && i < weights_n_tensors(in->w); i++)
        rc |= json_array_append_new(tensors, tensor_json(weights_tensor(in->w, i)));
    rc |= add(o, "types", types) | add(o, "metadata", meta);
    if (in->show_tensors)
        return rc | add(o, "tensors", tensors);
    json_decref(tensors);
    return rc;
}

int inspect_print_json(const struct inspection *in)
{
    json_t *o = json_object(), *files = json_array();
    int rc = 0;
    for (int i = 0; i < weights_n_files(in->w); i++) {
        const char *name = weights_file_name(in->w, i);
        rc |= json_array_append_new(files, text_json(name, strlen(name)));
    }
    rc |= add(o, "files", files) | add(o, "format", json_string(weights_format(in->w))) |
          add(o, "file_bytes", count_json(weights_file_bytes(in->w))) | add_model(o, in) |
          add(o, "n_tensors", count_json(in->all.n_tensors)) |
          add(o, "n_params", count_json(in->all.n_params)) |
          add(o, "tensor_bytes", count_json(in->all.bytes));
    if (in->all.n_params > 0)
        rc |= add(o, "bits_per_weight", json_real(8 * (double)in->all.bytes / (double)in->all.n_params));
    rc |= add_lists(o, in);
    if (in->show_plan)
        rc |= add(o, "plan", plan_json(&in->plan));
    /* In ASCII, so that no control character of Unicode reaches a terminal either. */
    char *text = rc == 0 ? json_dumps(o, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL;
    json_decref(o);
    if (!text)
        return -1;
    (void)printf("%s\n", text);
    free(text);
    return 0;
}
