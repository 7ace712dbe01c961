/* Names of tensors → roles: GGUF's naming scheme, as one table. */
#include "model/bind.h"
#include "model/arch.h"
#include "model/layers.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Sizes that the hyper-parameters imply. */
enum width { WIDTH_DIM, WIDTH_Q, WIDTH_KV, WIDTH_FFN, WIDTH_VOCAB, WIDTH_ROPE_PAIRS };

static int64_t width_of(const struct config *c, enum width w)
{
    const int64_t widths[] = {
        [WIDTH_DIM] = c->dim,
        [WIDTH_Q] = (int64_t)c->n_heads * c->head_dim,
        [WIDTH_KV] = (int64_t)c->n_kv_heads * c->head_dim,
        [WIDTH_FFN] = c->ffn_dim,
        [WIDTH_VOCAB] = c->vocab_size,
        [WIDTH_ROPE_PAIRS] = c->rotary_dim / 2,
    };
    return widths[w];
}

struct role {
    const char *name; /* of a layer's tensor: what follows "blk.N." */
    enum tensor_group group;
    bool in_layer, is_matrix;
    enum width cols, rows; /* a vector has cols only */
    size_t at;             /* in struct layer or struct model */
};

#define MODEL(field) .at = offsetof(struct model, field)
#define LAYER(field) .in_layer = true, .at = offsetof(struct layer, field)
#define MATRIX(r, c) .is_matrix = true, .rows = WIDTH_##r, .cols = WIDTH_##c
#define VECTOR(c)    .cols = WIDTH_##c

static const struct role roles[] = {
    {"token_embd.weight", TENSORS_CORE, MATRIX(VOCAB, DIM), MODEL(token_embd)},
    {"output_norm.weight", TENSORS_CORE, VECTOR(DIM), MODEL(output_norm)},
    {"output.weight", TENSORS_OUTPUT, MATRIX(VOCAB, DIM), MODEL(own_output)},
    {"rope_freqs.weight", TENSORS_ROPE_FREQS, VECTOR(ROPE_PAIRS), MODEL(rope_freqs)},
    {"attn_norm.weight", TENSORS_CORE, VECTOR(DIM), LAYER(attn_norm)},
    {"attn_q.weight", TENSORS_CORE, MATRIX(Q, DIM), LAYER(attn_q)},
    {"attn_k.weight", TENSORS_CORE, MATRIX(KV, DIM), LAYER(attn_k)},
    {"attn_v.weight", TENSORS_CORE, MATRIX(KV, DIM), LAYER(attn_v)},
    {"attn_q.bias", TENSORS_QKV_BIAS, VECTOR(Q), LAYER(attn_q_bias)},
    {"attn_k.bias", TENSORS_QKV_BIAS, VECTOR(KV), LAYER(attn_k_bias)},
    {"attn_v.bias", TENSORS_QKV_BIAS, VECTOR(KV), LAYER(attn_v_bias)},
    {"attn_output.weight", TENSORS_CORE, MATRIX(DIM, Q), LAYER(attn_output)},
    {"attn_output.bias", TENSORS_OUTPUT_BIAS, VECTOR(DIM), LAYER(attn_output_bias)},
    {"ffn_norm.weight", TENSORS_CORE, VECTOR(DIM), LAYER(ffn_norm)},
    {"ffn_gate.weight", TENSORS_CORE, MATRIX(FFN, DIM), LAYER(ffn_gate)},
    {"ffn_up.weight", TENSORS_CORE, MATRIX(FFN, DIM), LAYER(ffn_up)},
    {"ffn_down.weight", TENSORS_CORE, MATRIX(DIM, FFN), LAYER(ffn_down)},
    {"ffn_gate.bias", TENSORS_FFN_BIAS, VECTOR(FFN), LAYER(ffn_gate_bias)},
    {"ffn_up.bias", TENSORS_FFN_BIAS, VECTOR(FFN), LAYER(ffn_up_bias)},
    {"ffn_down.bias", TENSORS_FFN_BIAS, VECTOR(DIM), LAYER(ffn_down_bias)},
};

enum { N_ROLES = sizeof roles / sizeof *roles };

/* "blk.12.attn_q.weight" → role and layer 12; "output.weight" → role and −1. NULL: no such name. */
static const struct role *role_of(const char *name, int n_layers, int *layer)
{
    *layer = -1;
    const char *rest = name;
    if (strncmp(name, "blk.", 4) == 0) {
        int64_t l = 0;
        const char *p = name + 4;
        if (*p < '0' || *p > '9' || (*p == '0' && p[1] != '.'))
            return NULL;
        for (; *p >= '0' && *p <= '9' && l < n_layers; p++)
            l = 10 * l + (*p - '0');
        if (*p != '.' || l >= n_layers)
            return NULL;
        *layer = (int)l;
        rest = p + 1;
    }
    for (size_t i = 0; i < N_ROLES; i++)
        if (roles[i].in_layer == (*layer >= 0) && strcmp(roles[i].name, rest) == 0)
            return &roles[i];
    return NULL;
}

static int check_shape(const struct role *role, const struct tensor *t, const struct weights *w,
                       const struct config *c, char *err, size_t errlen)
{
    int64_t cols = width_of(c, role->cols), rows = role->is_matrix ? width_of(c, role->rows) : 1;
    if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1) {
        char has[128];
        size_t at = 0;
        for (int i = 0; i < t->n_dims; i++)
            at += (size_t)snprintf(has + at, sizeof has - at, "%s%" PRId64, i ? ", " : "", t->dims[i]);
        char wants[64];
        (void)snprintf(wants, sizeof wants, role->is_matrix ? "%" PRId64 ", %" PRId64 : "%" PRId64, cols,
                       rows);
        return err_set(err, errlen, "%s: tensor '%s' has shape [%s], the hyper-parameters imply [%s]",
                       weights_path(w), t->name, has, wants);
    }
    if (t->type >= QTYPE_N_MATRIX)
        return err_set(err, errlen, "%s: tensor '%s' has type %s, which no weight can have", weights_path(w),
                       t->name, qtypes[t->type].name);
    return 0;
}

/* Index of a role's slot: the model's own roles first, then N_ROLES per layer (those that are not a
 * layer's stay empty). */
static size_t slot_of(const struct role *role, int layer)
{
    return (size_t)(layer + 1) * N_ROLES + (size_t)(role - roles);
}

/* All tensors of a group are there, in every layer, or none: one missing bias would otherwise be taken
 * for a model without. */
static int check_complete(const struct tensor *const *slots, const struct weights *w, const struct config *c,
                          char *err, size_t errlen)
{
    const struct tensor *seen[N_TENSOR_GROUPS] = {NULL};
    for (int layer = -1; layer < c->n_layers; layer++)
        for (size_t i = 0; i < N_ROLES; i++) {
            const struct tensor *t = slots[slot_of(&roles[i], layer)];
            if (t)
                seen[roles[i].group] = t;
        }
    for (int layer = -1; layer < c->n_layers; layer++)
        for (size_t i = 0; i < N_ROLES; i++) {
            const struct role *role = &roles[i];
            if (role->in_layer != (layer >= 0) || slots[slot_of(role, layer)])
                continue;
            bool required = c->arch->tensors[role->group] == TENSOR_REQUIRED;
            if (!required && !seen[role->group])
                continue;
            char name[64];
            if (role->in_layer)
                (void)snprintf(name, sizeof name, "blk.%d.%s", layer, role->name);
            else
                (void)snprintf(name, sizeof name, "%s", role->name);
            if (required)
                return err_set(err, errlen,
                               "%s: no tensor '%s', which architecture '%s' with %d layers needs",
                               weights_path(w), name, c->arch->name, c->n_layers);
            return err_set(err, errlen, "%s: no tensor '%s', although there is '%s'", weights_path(w), name,
                           seen[role->group]->name);
        }
    return 0;
}

int bind_tensors(struct binding **out, size_t *n, const struct weights *w, const struct config *c, char *err,
                 size_t errlen)
{
    *out = NULL;
    *n = weights_n_tensors(w);
    struct binding *b = calloc(*n ? *n : 1, sizeof *b);
    const struct tensor **slots = calloc(((size_t)c->n_layers + 1) * N_ROLES, sizeof *slots);
    if (!b || !slots) {
        (void)err_set(err, errlen, "%s: out of memory", weights_path(w));
        goto failed;
    }
    for (size_t i = 0; i < *n; i++) {
        const struct tensor *t = weights_tensor(w, i);
        int layer;
        const struct role *role = role_of(t->name, c->n_layers, &layer);
        if (!role || c->arch->tensors[role->group] == TENSOR_REFUSED) {
            (void)err_set(err, errlen, "%s: tensor '%s' is no part of architecture '%s' with %d layers",
                          weights_path(w), t->name, c->arch->name, c->n_layers);
            goto failed;
        }
        if (check_shape(role, t, w, c, err, errlen))
            goto failed;
        slots[slot_of(role, layer)] = t;
        b[i] = (struct binding){t, layer, role->at, role->is_matrix};
    }
    if (check_complete(slots, w, c, err, errlen))
        goto failed;
    free(slots);
    *out = b;
    return 0;

failed:
    free(slots);
    free(b);
    return -1;
}
