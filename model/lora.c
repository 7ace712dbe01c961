#include "model/lora.h"
#include "model/bind.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANK = 1 << 14 };

struct adapter {
    const struct weights *w;
    const struct config *c;
    double scale; /* the user's */
    char *err;
    size_t errlen;
};

#define FAULT(a, ...) err_set((a)->err, (a)->errlen, __VA_ARGS__)

/* ---- The configuration -------------------------------------------------------------------------- */

/* What changes the mathematics and is not computed. */
static int check_kind(const struct adapter *a, const struct keys *k)
{
    static const char *const flags[] = {"use_dora", "fan_in_fan_out", "use_qalora", "lora_bias"};
    static const char *const lists[] = {"modules_to_save", "trainable_token_indices", "target_parameters"};
    char key[KEY_MAX];
    struct wstr bias;
    if (!keys_find(k, "peft_type", key))
        return FAULT(a, "%s: no adapter_config.json of a PEFT adapter", weights_path(a->w));
    if (!keys_is(k, "peft_type", "LORA"))
        return keys_fault(k, "peft_type", "is not LORA");
    if (keys_string(k, "bias", &bias))
        return -1;
    if (bias.s && !keys_is(k, "bias", "none"))
        return keys_fault(k, "bias", "is not none: adapters with biases are not supported");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on;
        if (keys_bool(k, flags[i], false, &on))
            return -1;
        if (on)
            return keys_fault(k, flags[i], "is true, which is not supported");
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const struct meta *m = keys_find(k, lists[i], key);
        if (m && m->n > 0)
            return keys_fault(k, lists[i], "is not empty, which is not supported");
    }
    return 0;
}

/* alpha of a module: the one of alpha_pattern whose key the module's name ends with, else lora_alpha. */
static int read_alpha(const struct adapter *a, const struct keys *k, const char *module, size_t len,
                      double *alpha)
{
    static const char prefix[] = "adapter_config.alpha_pattern.";
    if (keys_float(k, "lora_alpha", -1e6, 1e6, NAN, alpha))
        return -1;
    for (size_t i = 0; i < weights_n_meta(a->w); i++) {
        const struct meta *m = weights_meta(a->w, i);
        if (strncmp(m->key, prefix, strlen(prefix)) != 0)
            continue;
        const char *end = m->key + strlen(prefix);
        size_t n = strlen(end);
        bool match =
            n <= len && memcmp(module + len - n, end, n) == 0 && (n == len || module[len - n - 1] == '.');
        if (match && !meta_float(m, 0, alpha))
            return FAULT(a, "%s: key '%s' is no number", weights_path(a->w), m->key);
    }
    return 0;
}

/* ---- Pairs -------------------------------------------------------------------------------------- */

static struct lora_pair *pair_of(struct lora *l, enum role role, int layer, int expert, int64_t rows,
                                 int64_t cols)
{
    for (size_t i = 0; i < l->n; i++) {
        struct lora_pair *p = &l->pair[i];
        if (p->role == role && p->layer == layer && p->expert == expert)
            return p;
    }
    struct lora_pair *grown = realloc(l->pair, (l->n + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    l->pair = grown;
    grown[l->n] =
        (struct lora_pair){.role = role, .layer = layer, .expert = expert, .rows = rows, .cols = cols};
    return &grown[l->n++];
}

/* One role's part of an adapter's module: `rank` more rows of a, `rank` more columns of b. */
static int add_part(struct lora_pair *p, const struct tensor *ta, const struct source *b, int rank,
                    double scale)
{
    int total = p->rank + rank;
    float *new_a = realloc(p->a, (size_t)total * (size_t)p->cols * sizeof *new_a);
    p->a = new_a ? new_a : p->a;
    float *new_b = malloc((size_t)p->rows * (size_t)total * sizeof *new_b);
    float *row = malloc((size_t)rank * sizeof *row);
    if (!new_a || !new_b || !row) {
        free(new_b);
        free(row);
        return -1;
    }
    qtypes[ta->type].to_f32(p->a + (int64_t)p->rank * p->cols, ta->data, (int64_t)rank * p->cols);
    for (int64_t r = 0; r < p->rows; r++) {
        float *to = new_b + r * total;
        if (p->rank)
            memcpy(to, p->b + r * p->rank, (size_t)p->rank * sizeof *to);
        const void *from =
            (const char *)b->tensor->data + source_row(b, r) * qtype_bytes(b->tensor->type, rank);
        qtypes[b->tensor->type].to_f32(row, from, rank);
        for (int i = 0; i < rank; i++)
            to[p->rank + i] = (float)((double)row[i] * scale);
    }
    free(row);
    free(p->b);
    p->b = new_b;
    p->rank = total;
    return 0;
}

static const char a_end[] = ".lora_A.weight", b_end[] = ".lora_B.weight";

/* A module's two tensors. name: "base_model.model.<module>.lora_A.weight" */
static int read_module(struct lora *l, const struct adapter *a, const struct keys *k, const struct tensor *ta)
{
    static const char prefix[] = "base_model.model.";
    const char *module = ta->name;
    size_t len = strlen(module) - strlen(a_end);
    char b_name[512], full[512];
    (void)snprintf(b_name, sizeof b_name, "%.*s%s", (int)len, module, b_end);
    const struct tensor *tb = weights_find(a->w, b_name);
    if (!tb)
        return FAULT(a, "%s: no tensor '%s'", weights_path(a->w), b_name);
    if (strncmp(module, prefix, strlen(prefix)) == 0) {
        module += strlen(prefix);
        len -= strlen(prefix);
    }
    int n_full = snprintf(full, sizeof full, "%.*s.weight", (int)len, module), layer, expert;
    const struct name *name = n_full < (int)sizeof full
                                  ? naming_find(a->c->arch->hf_names, full, (size_t)n_full, &layer, &expert)
                                  : NULL;
    if (!name || layer >= a->c->n_layers || expert >= (a->c->n_experts ? a->c->n_experts : 1) ||
        !role_is_matrix(name->role[0]) || name->role[0] == ROLE_TOKEN_EMBD)
        return FAULT(a, "%s: tensor '%s' belongs to no matrix of architecture '%s' with %d layers",
                     weights_path(a->w), ta->name, a->c->arch->name, a->c->n_layers);

    int64_t total = 0, rows, cols = 0, rank = ta->dims[1];
    for (int i = 0; i < NAME_ROLES && name->role[i]; i++) {
        role_shape(a->c, name->role[i], &rows, &cols);
        total += rows;
    }
    if (ta->n_dims != 2 || tb->n_dims != 2 || ta->dims[0] != cols || tb->dims[1] != total || rank < 1 ||
        rank > MAX_RANK || tb->dims[0] != rank || !source_is_float(ta) || !source_is_float(tb))
        return FAULT(a,
                     "%s: tensors '%s' and its lora_B must be floats of shapes [rank, %" PRId64
                     "] and [%" PRId64 ", rank]",
                     weights_path(a->w), ta->name, cols, total);
    double alpha;
    bool rooted;
    if (read_alpha(a, k, module, len, &alpha) || keys_bool(k, "use_rslora", false, &rooted))
        return -1;
    double scale = a->scale * alpha / (rooted ? sqrt((double)rank) : (double)rank);

    int64_t first = 0;
    for (int i = 0; i < NAME_ROLES && name->role[i]; i++, first += rows) {
        struct source b = {.tensor = tb};
        role_shape(a->c, name->role[i], &rows, &cols);
        role_rows(&b, a->c, name, i, first, true);
        struct lora_pair *p = pair_of(l, name->role[i], layer, expert, rows, cols);
        if (!p || add_part(p, ta, &b, (int)rank, scale))
            return FAULT(a, "%s: out of memory", weights_path(a->w));
    }
    return 0;
}

/* The whole checkpoint is "transformer.prefix_encoder.embedding.weight". */
static int read_prefix(struct lora *l, const struct adapter *a, const struct tensor *t)
{
    const struct config *c = a->c;
    int64_t width = (int64_t)c->n_kv_heads * c->head_dim * 2 * c->n_layers;
    if (c->arch->tensors[TENSORS_PREFIX] == TENSOR_REFUSED || c->n_virtual || l->prefix)
        return FAULT(a, "%s: tensor '%s': %s", weights_path(a->w), t->name,
                     c->n_virtual || l->prefix ? "there is a prefix already" : "the model takes no prefix");
    if (weights_n_tensors(a->w) != 1)
        return FAULT(
            a, "%s: tensor '%s' has others beside it (a prefix encoder with a projection is not supported)",
            weights_path(a->w), t->name);
    if (t->n_dims != 2 || t->dims[0] != width || t->dims[1] < 1 || t->dims[1] > MAX_VIRTUAL ||
        !source_is_float(t))
        return FAULT(a, "%s: tensor '%s' must be floats of shape [n, %" PRId64 "]", weights_path(a->w),
                     t->name, width);
    l->prefix = malloc((size_t)(t->dims[0] * t->dims[1]) * sizeof *l->prefix);
    if (!l->prefix)
        return FAULT(a, "%s: out of memory", weights_path(a->w));
    qtypes[t->type].to_f32(l->prefix, t->data, t->dims[0] * t->dims[1]);
    l->n_virtual = (int)t->dims[1];
    return 0;
}

static int read_adapter(struct lora *l, const struct adapter *a)
{
    struct keys k = {a->w, "adapter_config", a->err, a->errlen};
    for (size_t i = 0; i < weights_n_tensors(a->w); i++)
        if (source_name_ends(weights_tensor(a->w, i)->name, "prefix_encoder.embedding.weight"))
            return read_prefix(l, a, weights_tensor(a->w, i));
    if (check_kind(a, &k))
        return -1;
    size_t n_a = 0, n_b = 0;
    for (size_t i = 0; i < weights_n_tensors(a->w); i++) {
        const struct tensor *t = weights_tensor(a->w, i);
        if (source_name_ends(t->name, a_end) && strlen(t->name) < 400) {
            n_a++;
            if (read_module(l, a, &k, t))
                return -1;
        } else if (source_name_ends(t->name, b_end)) {
            n_b++;
        } else {
            return FAULT(a, "%s: tensor '%s' is no part of a LoRA adapter", weights_path(a->w), t->name);
        }
    }
    if (n_a != n_b || n_a == 0)
        return FAULT(a, "%s: %zu lora_A tensors and %zu lora_B tensors", weights_path(a->w), n_a, n_b);
    return 0;
}

int lora_open(struct lora *l, const struct config *c, const struct lora_option *option, size_t n, char *err,
              size_t errlen)
{
    *l = (struct lora){.n = 0};
    for (size_t i = 0; i < n; i++) {
        struct weights *w;
        int rc = weights_open(&w, option[i].path, NULL, err, errlen);
        if (rc == 0) {
            rc = read_adapter(l, &(struct adapter){w, c, option[i].scale, err, errlen});
            weights_close(w);
        }
        if (rc) {
            lora_close(l);
            return -1;
        }
    }
    return 0;
}

void lora_close(struct lora *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->pair[i].a);
        free(l->pair[i].b);
    }
    free(l->pair);
    free(l->prefix);
    *l = (struct lora){.n = 0};
}

const struct lora_pair *lora_find(const struct lora *l, enum role role, int layer, int expert)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->pair[i].role == role && l->pair[i].layer == layer && l->pair[i].expert == expert)
            return &l->pair[i];
    return NULL;
}
