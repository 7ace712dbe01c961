#include "model/export.h"
#include "model/arch.h"
#include "model/bind.h"
#include "model/lora.h"
#include "model/rope.h"

#include "quant/err.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor of the GGUF: some bindings' rows one after the other, or a vector made here. */
struct part {
    size_t first, n; /* of the sorted bindings */
    float *made;     /* malloc'ed; NULL: from the bindings */
};

struct export
{
    const struct weights *w;
    struct config config;
    struct binding *binding; /* sorted by layer, role, expert */
    size_t n_bindings;
    int type;
    struct lora lora; /* to be merged */
    struct save_gguf_tensor *tensor;
    struct part *part;
    size_t n_tensors, cap;
    struct meta *meta;
    size_t n_meta, meta_cap;
    void **kept; /* what names and values point into */
    size_t n_kept, kept_cap;
    bool failed; /* out of memory */
};

/* ---- Memory ------------------------------------------------------------------------------------- */

static void *keep(struct export *e, size_t bytes)
{
    if (e->n_kept == e->kept_cap) {
        size_t cap = e->kept_cap ? 2 * e->kept_cap : 64;
        void **grown = realloc(e->kept, cap * sizeof *grown);
        if (!grown) {
            e->failed = true;
            return NULL;
        }
        e->kept = grown;
        e->kept_cap = cap;
    }
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p)
        e->failed = true;
    else
        e->kept[e->n_kept++] = p;
    return p;
}

static const char *keep_string(struct export *e, const char *s)
{
    char *p = keep(e, strlen(s) + 1);
    return p ? strcpy(p, s) : NULL;
}

/* ---- Metadata ----------------------------------------------------------------------------------- */

static struct meta *add_meta(struct export *e, const char *name)
{
    if (e->n_meta == e->meta_cap) {
        size_t cap = e->meta_cap ? 2 * e->meta_cap : 64;
        struct meta *grown = realloc(e->meta, cap * sizeof *grown);
        if (!grown) {
            e->failed = true;
            return NULL;
        }
        e->meta = grown;
        e->meta_cap = cap;
    }
    char key[KEY_MAX];
    bool whole = strncmp(name, "general.", 8) == 0 || strncmp(name, "tokenizer.", 10) == 0;
    (void)snprintf(key, sizeof key, "%s%s%s", whole ? "" : e->config.arch->name, whole ? "" : ".", name);
    struct meta *m = &e->meta[e->n_meta];
    *m = (struct meta){.key = keep_string(e, key), .n = 1};
    e->n_meta += m->key != NULL;
    return m->key ? m : NULL;
}

static void add_value(struct export *e, const char *name, enum meta_type type, const void *value,
                      size_t bytes)
{
    struct meta *m = add_meta(e, name);
    void *data = m ? keep(e, bytes) : NULL;
    if (!data)
        return;
    memcpy(data, value, bytes);
    m->type = m->elem = type;
    m->data = data;
}

static void add_u32(struct export *e, const char *name, int64_t v)
{
    uint32_t u = (uint32_t)v;
    add_value(e, name, META_U32, &u, sizeof u);
}

static void add_f32(struct export *e, const char *name, double v)
{
    float f = (float)v;
    add_value(e, name, META_F32, &f, sizeof f);
}

static void add_bool(struct export *e, const char *name, bool v)
{
    uint8_t b = v;
    add_value(e, name, META_BOOL, &b, sizeof b);
}

static void add_string(struct export *e, const char *name, const char *v)
{
    struct meta *m = add_meta(e, name);
    struct wstr *s = m ? keep(e, sizeof *s) : NULL;
    if (!s)
        return;
    *s = (struct wstr){keep_string(e, v), strlen(v)};
    m->type = m->elem = META_STRING;
    m->str = s;
}

static void add_rope(struct export *e)
{
    const struct config *c = &e->config;
    const struct rope_config *r = &c->rope;
    add_u32(e, "rope.dimension_count", c->rotary_dim);
    add_f32(e, "rope.freq_base", r->theta);
    if (c->rope_theta_windowed != 0)
        add_f32(e, "rope.freq_base_swa", c->rope_theta_windowed);
    switch (r->scaling) {
    case ROPE_SCALING_LINEAR:
        add_string(e, "rope.scaling.type", "linear");
        add_f32(e, "rope.scaling.factor", r->factor);
        break;
    case ROPE_SCALING_YARN:
        add_string(e, "rope.scaling.type", "yarn");
        add_f32(e, "rope.scaling.factor", r->factor);
        add_u32(e, "rope.scaling.original_context_length", r->original_len);
        add_f32(e, "rope.scaling.yarn_beta_fast", r->beta_fast);
        add_f32(e, "rope.scaling.yarn_beta_slow", r->beta_slow);
        /* GGUF's factor multiplies YaRN's own */
        add_f32(e, "rope.scaling.attn_factor", r->attention_factor / rope_yarn_attention(r->factor, 1));
        break;
    case ROPE_SCALING_LONGROPE:
        add_u32(e, "rope.scaling.original_context_length", r->original_len);
        add_f32(e, "rope.scaling.attn_factor", r->attention_factor);
        break;
    case ROPE_SCALING_DYNAMIC: /* a key of ours: GGUF has no name for it */
        add_u32(e, "rope.scaling.original_context_length", r->original_len);
        add_f32(e, "rope.scaling.dynamic_factor", r->factor);
        break;
    default: /* Llama 3's is the rope_freqs tensor */
        break;
    }
}

static void add_windows(struct export *e)
{
    const struct config *c = &e->config;
    if (c->sliding_window == 0)
        return;
    add_u32(e, "attention.sliding_window", c->sliding_window);
    struct meta *m = add_meta(e, "attention.sliding_window_pattern");
    uint8_t *windowed = m ? keep(e, (size_t)c->n_layers) : NULL;
    if (!windowed)
        return;
    for (int l = 0; l < c->n_layers; l++)
        windowed[l] = c->windowed[l];
    m->type = META_ARRAY;
    m->elem = META_BOOL;
    m->n = (uint64_t)c->n_layers;
    m->data = windowed;
}

/* The hyper-parameters, as config_gguf reads them. */
static void add_config(struct export *e)
{
    const struct config *c = &e->config;
    add_string(e, "general.architecture", c->arch->name);
    add_u32(e, "general.quantization_version", 2);
    add_string(e, "tokenizer.ggml.model", "no_vocab");
    add_u32(e, "block_count", c->n_layers);
    add_u32(e, "context_length", c->max_seq_len);
    add_u32(e, "embedding_length", c->dim);
    add_u32(e, "feed_forward_length", c->ffn_dim);
    add_u32(e, "attention.head_count", c->n_heads);
    add_u32(e, "attention.head_count_kv", c->n_kv_heads);
    add_u32(e, "attention.key_length", c->head_dim);
    add_u32(e, "attention.value_length", c->head_dim);
    add_f32(e,
            c->arch->norm == NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
            (double)c->norm_eps);
    add_u32(e, "vocab_size", c->vocab_size);
    if (c->attention_scale != (float)(1 / sqrt(c->head_dim)))
        add_f32(e, "attention.scale", (double)c->attention_scale);
    if (c->attention_softcap > 0)
        add_f32(e, "attn_logit_softcapping", (double)c->attention_softcap);
    if (c->logit_softcap > 0)
        add_f32(e, "final_logit_softcapping", (double)c->logit_softcap);
    if (c->n_experts) {
        add_u32(e, "expert_count", c->n_experts);
        add_u32(e, "expert_used_count", c->n_experts_used);
        add_u32(e, "expert_feed_forward_length", c->expert_ffn_dim);
        add_bool(e, "expert_weights_norm", c->normalise_experts);
    }
    if (c->arch->prefix_lm) {
        add_u32(e, "bos_token_id", c->bos_id);
        add_u32(e, "gmask_token_id", c->gmask_id);
        add_u32(e, "mask_token_id", c->mask_id);
    }
    if (c->n_virtual)
        add_u32(e, "prefix_length", c->n_virtual);
    add_rope(e);
    add_windows(e);
}

/* ---- Tensors ------------------------------------------------------------------------------------ */

static int by_place(const void *a, const void *b)
{
    const struct binding *x = a, *y = b;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    if (x->role != y->role)
        return x->role < y->role ? -1 : 1;
    return (x->expert > y->expert) - (x->expert < y->expert);
}

/* The bindings of a role in a layer: how many, and the first. */
static size_t find(const struct export *e, enum role role, int layer, size_t *first)
{
    struct binding key = {.role = role, .layer = layer, .expert = -1};
    size_t lo = 0, hi = e->n_bindings;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (by_place(&e->binding[mid], &key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *first = lo;
    size_t n = 0;
    while (lo + n < e->n_bindings && e->binding[lo + n].role == role && e->binding[lo + n].layer == layer)
        n++;
    return n;
}

static enum qtype written_type(const struct export *e, const struct binding *b)
{
    const struct source *s = &b->source;
    if (!role_is_matrix(b->role) || b->role == ROLE_ROUTER)
        return QTYPE_F32;
    enum qtype type = e->type >= 0 ? (enum qtype)e->type : s->type;
    bool sorted = s->sorted && !qtypes[type].x_is_f32; /* act-order: back in order, groups are no blocks */
    bool merged = lora_find(&e->lora, b->role, b->layer, b->expert) != NULL;
    if (merged && !qtypes[type].from_f32) /* a type that is only read */
        return QTYPE_F32;
    bool fits = qtypes[type].gguf_id >= 0 && s->cols % qtypes[type].block_len == 0;
    return fits && !sorted ? type : QTYPE_F32;
}

static struct save_gguf_tensor *add_tensor(struct export *e, const char *name)
{
    if (e->n_tensors == e->cap) {
        size_t cap = e->cap ? 2 * e->cap : 256;
        struct save_gguf_tensor *tensor = realloc(e->tensor, cap * sizeof *tensor);
        struct part *part = realloc(e->part, cap * sizeof *part);
        e->tensor = tensor ? tensor : e->tensor;
        e->part = part ? part : e->part;
        if (!tensor || !part) {
            e->failed = true;
            return NULL;
        }
        e->cap = cap;
    }
    struct save_gguf_tensor *t = &e->tensor[e->n_tensors];
    *t = (struct save_gguf_tensor){.name = keep_string(e, name), .dims = {1, 1, 1, 1}};
    e->part[e->n_tensors] = (struct part){0};
    e->n_tensors += t->name != NULL;
    return t->name ? t : NULL;
}

/* One tensor of the naming in one layer, if the model has all of its roles; used: bindings that are taken. */
static void add_named(struct export *e, const struct name *name, int layer, bool *used)
{
    size_t first[NAME_ROLES], total = 0;
    int n_roles = 0;
    for (; n_roles < NAME_ROLES && name->role[n_roles]; n_roles++) {
        size_t n = find(e, name->role[n_roles], layer, &first[n_roles]);
        if (n == 0 || used[first[n_roles]])
            return;
        total += n;
    }
    if (n_roles == 0)
        return;
    /* Roles of one tensor lie one behind the other when bindings are sorted: their order is that of the
     * names. */
    for (size_t i = 0; i < total; i++)
        if (e->binding[first[0] + i].layer != layer || used[first[0] + i])
            return;
    const struct binding *b = &e->binding[first[0]];
    int64_t rows = 0;
    for (size_t i = 0; i < total; i++) {
        used[first[0] + i] = true;
        rows += role_is_matrix(b->role) ? b[i].source.rows : b[i].source.cols;
    }
    char text[NAME_MAX_BYTES];
    naming_expand(text, name->pattern, layer, -1);
    struct save_gguf_tensor *t = add_tensor(e, text);
    if (!t)
        return;
    e->part[e->n_tensors - 1] = (struct part){first[0], total, NULL};
    t->type = written_type(e, b);
    if (!role_is_matrix(b->role)) {
        t->n_dims = 1;
        t->dims[0] = rows;
    } else if (b->expert >= 0) {
        t->n_dims = 3;
        t->dims[0] = b->source.cols;
        t->dims[1] = b->source.rows;
        t->dims[2] = (int64_t)total;
    } else {
        t->n_dims = 2;
        t->dims[0] = b->source.cols;
        t->dims[1] = rows;
    }
}

static int add_tensors(struct export *e, char *err, size_t errlen)
{
    bool *used = calloc(e->n_bindings + 1, sizeof *used);
    if (!used)
        return err_set(err, errlen, "%s: out of memory", weights_path(e->w));
    for (int layer = -1; layer < e->config.n_layers; layer++)
        for (const struct naming *n = e->config.arch->gguf_names; n; n = n->base)
            for (const struct name *p = n->names; p->pattern; p++)
                if (!strchr(p->pattern, '@') && (strchr(p->pattern, '#') != NULL) == (layer >= 0))
                    add_named(e, p, layer, used);
    int rc = e->failed ? err_set(err, errlen, "%s: out of memory", weights_path(e->w)) : 0;
    for (size_t i = 0; rc == 0 && i < e->n_bindings; i++)
        if (!used[i])
            rc = err_set(err, errlen, "%s: tensor '%s' has no place in a GGUF of architecture '%s'",
                         weights_path(e->w), e->binding[i].source.tensor->name, e->config.arch->name);
    free(used);
    return rc;
}

/* Divisors of RoPE's frequencies: a vector of the GGUF that the folder has as numbers. */
static float *add_divisors(struct export *e, const char *name)
{
    int n = e->config.rotary_dim / 2;
    struct save_gguf_tensor *t = add_tensor(e, name);
    float *v = t ? malloc((size_t)n * sizeof *v) : NULL;
    if (!v) {
        e->failed = true;
        return NULL;
    }
    t->type = QTYPE_F32;
    t->n_dims = 1;
    t->dims[0] = n;
    e->part[e->n_tensors - 1].made = v;
    return v;
}

static void add_longrope(struct export *e, const char *name, const struct meta *m)
{
    float *v = m ? add_divisors(e, name) : NULL;
    for (int i = 0; v && i < e->config.rotary_dim / 2; i++) {
        double x;
        v[i] = meta_float(m, (uint64_t)i, &x) ? (float)x : 1;
    }
}

static int add_rope_tensors(struct export *e, char *err, size_t errlen)
{
    const struct config *c = &e->config;
    if (c->rope.scaling == ROPE_SCALING_LLAMA3) {
        struct rope_config plain = c->rope;
        plain.scaling = ROPE_SCALING_NONE;
        struct rope *scaled = rope_new(&c->rope, c->rotary_dim, 1, NULL, NULL, NULL, err, errlen);
        struct rope *base = rope_new(&plain, c->rotary_dim, 1, NULL, NULL, NULL, err, errlen);
        float *v = scaled && base ? add_divisors(e, "rope_freqs.weight") : NULL;
        for (int i = 0; v && i < c->rotary_dim / 2; i++)
            v[i] = (float)(base->inv_freq[i] / scaled->inv_freq[i]);
        rope_free(scaled);
        rope_free(base);
        if (!v)
            return -1;
    }
    if (c->rope.scaling == ROPE_SCALING_LONGROPE) {
        add_longrope(e, "rope_factors_long.weight", config_hf_factors(e->w, "long_factor"));
        add_longrope(e, "rope_factors_short.weight", config_hf_factors(e->w, "short_factor"));
    }
    return e->failed ? err_set(err, errlen, "%s: out of memory", weights_path(e->w)) : 0;
}

/* ---- Life --------------------------------------------------------------------------------------- */

int export_open(struct export **out, const struct weights *w, int type, const struct lora_option *lora,
                size_t n_lora, char *err, size_t errlen)
{
    *out = NULL;
    struct export *e = calloc(1, sizeof *e);
    if (!e)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    e->w = w;
    e->type = type;
    if (config_read(&e->config, w, err, errlen) ||
        bind_tensors(&e->binding, &e->n_bindings, w, &e->config, QTYPE_F32, err, errlen) ||
        lora_open(&e->lora, &e->config, lora, n_lora, err, errlen)) {
        export_close(e);
        return -1;
    }
    if (e->lora.prefix) {
        export_close(e);
        return err_set(err, errlen, "%s: a P-Tuning prefix is no change of the matrices, and is not merged",
                       weights_path(w));
    }
    qsort(e->binding, e->n_bindings, sizeof *e->binding, by_place);
    bool gguf = weights_meta_find(w, "general.architecture") != NULL;
    if (!gguf)
        add_config(e);
    if (add_tensors(e, err, errlen) || (!gguf && add_rope_tensors(e, err, errlen))) {
        export_close(e);
        return -1;
    }
    *out = e;
    return 0;
}

void export_close(struct export *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->n_tensors; i++)
        free(e->part[i].made);
    for (size_t i = 0; i < e->n_kept; i++)
        free(e->kept[i]);
    bindings_free(e->binding, e->n_bindings);
    lora_close(&e->lora);
    free(e->kept);
    free(e->meta);
    free(e->tensor);
    free(e->part);
    free(e);
}

const struct meta *export_meta(const struct export *e, size_t *n)
{
    *n = e->n_meta ? e->n_meta : weights_n_meta(e->w);
    return e->n_meta ? e->meta : *n ? weights_meta(e->w, 0) : NULL;
}

const struct save_gguf_tensor *export_tensors(const struct export *e, size_t *n)
{
    *n = e->n_tensors;
    return e->tensor;
}

/* ---- Rows --------------------------------------------------------------------------------------- */

/* Row r of a matrix as floats, with what an adapter adds; room: see row_room. */
static void row_floats(const struct source *s, int64_t r, const struct lora_pair *lora, float *dst,
                       float *room)
{
    source_floats(s, r, dst, room);
    for (int k = 0; lora && k < lora->rank; k++)
        for (int64_t j = 0; j < s->cols; j++)
            dst[j] += lora->b[r * lora->rank + k] * lora->a[k * s->cols + j];
}

/* A matrix's rows in the type they are written in. */
static int write_rows(const struct source *s, enum qtype type, const struct lora_pair *lora,
                      struct save_file *f, float *room)
{
    const uint64_t bytes = (uint64_t)qtype_bytes(type, s->cols);
    float *wide = room + 2 * s->cols + 16;
    for (int64_t r = 0; r < s->rows; r++) {
        void *row = room;
        if (s->type != type || s->sorted || lora) {
            row_floats(s, r, lora, wide, room);
            qtypes[type].from_f32(row, wide, s->cols);
        } else {
            source_rows(s, r, 1, row, wide);
        }
        if (weights_save_part(f, row, bytes))
            return -1;
    }
    return 0;
}

/* Room for a row as floats, in any type (none takes more than a float per element), and in order. */
static float *row_room(const struct source *s)
{
    return malloc((3 * (size_t)s->cols + 16) * sizeof(float));
}

int export_floats(const struct export *e, size_t i, int64_t row, int64_t n, float *dst)
{
    const struct part *p = &e->part[i];
    const int64_t cols = e->tensor[i].dims[0];
    if (p->made) {
        memcpy(dst, p->made, (size_t)cols * sizeof *dst);
        return 0;
    }
    for (size_t k = p->first; k < p->first + p->n && n > 0; k++) {
        const struct binding *b = &e->binding[k];
        const struct source *s = &b->source;
        if (!role_is_matrix(b->role)) {
            source_vector(s, dst);
            dst += s->cols;
            continue;
        }
        const struct lora_pair *lora = lora_find(&e->lora, b->role, b->layer, b->expert);
        float *room = row_room(s);
        if (!room)
            return -1;
        for (; row < s->rows && n > 0; row++, n--, dst += s->cols)
            row_floats(s, row, lora, dst, room);
        row -= s->rows;
        row = row < 0 ? 0 : row;
        free(room);
    }
    return 0;
}

void export_drop(const struct export *e, size_t i)
{
    for (size_t k = 0; k < e->part[i].n; k++) {
        const struct tensor *t = e->binding[e->part[i].first + k].source.tensor;
        weights_drop(e->w, t, 0, t->bytes);
    }
}

size_t export_n_runs(const struct export *e, size_t i)
{
    return e->part[i].made ? 0 : e->part[i].n;
}

struct export_run export_run(const struct export *e, size_t i, size_t k)
{
    const struct binding *b = &e->binding[e->part[i].first];
    const bool matrix = role_is_matrix(b->role);
    int64_t row0 = 0;
    for (size_t j = 0; j < k; j++)
        row0 += matrix ? b[j].source.rows : b[j].source.cols;
    return (struct export_run){b[k].role, b[k].layer, b[k].expert, row0,
                               matrix ? b[k].source.rows : b[k].source.cols};
}

enum qtype export_source_type(const struct export *e, size_t i)
{
    const struct part *p = &e->part[i];
    return p->made ? QTYPE_F32 : e->binding[p->first].source.type;
}

int export_write(void *arg, size_t i, struct save_file *f)
{
    struct export *e = arg;
    const struct part *p = &e->part[i];
    if (p->made)
        return weights_save_part(f, p->made, (uint64_t)e->tensor[i].dims[0] * sizeof(float));
    for (size_t k = p->first; k < p->first + p->n; k++) {
        const struct source *s = &e->binding[k].source;
        float *room = row_room(s);
        if (!room)
            return -1;
        int rc;
        if (role_is_matrix(e->binding[k].role)) {
            const struct binding *b = &e->binding[k];
            rc = write_rows(s, e->tensor[i].type, lora_find(&e->lora, b->role, b->layer, b->expert), f, room);
        } else {
            source_vector(s, room);
            rc = weights_save_part(f, room, (uint64_t)s->cols * sizeof *room);
        }
        free(room);
        if (rc)
            return -1;
        weights_drop(e->w, s->tensor, 0, s->tensor->bytes);
    }
    return 0;
}
