/* Names of tensors → roles → places and shapes. */
#include "model/bind.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Sizes that the hyper-parameters imply. */
enum width {
    WIDTH_DIM,
    WIDTH_Q,
    WIDTH_KV,
    WIDTH_HEAD,
    WIDTH_FFN,
    WIDTH_VOCAB,
    WIDTH_ROPE_PAIRS,
    WIDTH_EXPERTS,
    WIDTH_EXPERT_FFN,
    WIDTH_PREFIX,
};

static int64_t width_of(const struct config *c, enum width w)
{
    const int64_t kv = (int64_t)c->n_kv_heads * c->head_dim;
    const int64_t widths[] = {
        [WIDTH_DIM] = c->dim,
        [WIDTH_Q] = (int64_t)c->n_heads * c->head_dim,
        [WIDTH_KV] = kv,
        [WIDTH_HEAD] = c->head_dim,
        [WIDTH_FFN] = c->ffn_dim,
        [WIDTH_VOCAB] = c->vocab_size,
        [WIDTH_ROPE_PAIRS] = c->rotary_dim / 2,
        [WIDTH_EXPERTS] = c->n_experts,
        [WIDTH_EXPERT_FFN] = c->expert_ffn_dim,
        [WIDTH_PREFIX] = (int64_t)c->n_virtual * 2 * c->n_layers * kv,
    };
    return widths[w];
}

enum role_kind { VECTOR, NORM, MATRIX, EXPERTS };

struct role_info {
    enum tensor_group group;
    enum role_kind kind; /* NORM: a vector that some files store less 1 */
    bool in_layer;
    enum width cols, rows; /* a vector has cols only */
    size_t at;             /* in struct layer or struct model */
};

#define MODEL(field) false, .at = offsetof(struct model, field)
#define LAYER(field) true, .at = offsetof(struct layer, field)
#define SIZE(r, c)   .rows = WIDTH_##r, .cols = WIDTH_##c
#define LENGTH(c)    .cols = WIDTH_##c

static const struct role_info roles[N_ROLES] = {
    [ROLE_TOKEN_EMBD] = {TENSORS_CORE, MATRIX, MODEL(token_embd), SIZE(VOCAB, DIM)},
    [ROLE_OUTPUT_NORM] = {TENSORS_CORE, NORM, MODEL(output_norm), LENGTH(DIM)},
    [ROLE_OUTPUT_NORM_BIAS] = {TENSORS_NORM_BIAS, VECTOR, MODEL(output_norm_bias), LENGTH(DIM)},
    [ROLE_OUTPUT] = {TENSORS_OUTPUT, MATRIX, MODEL(own_output), SIZE(VOCAB, DIM)},
    [ROLE_ROPE_FREQS] = {TENSORS_ROPE_FREQS, VECTOR, MODEL(rope_freqs), LENGTH(ROPE_PAIRS)},
    [ROLE_ROPE_LONG] = {TENSORS_ROPE_FACTORS, VECTOR, MODEL(rope_long), LENGTH(ROPE_PAIRS)},
    [ROLE_ROPE_SHORT] = {TENSORS_ROPE_FACTORS, VECTOR, MODEL(rope_short), LENGTH(ROPE_PAIRS)},
    [ROLE_PREFIX] = {TENSORS_PREFIX, VECTOR, MODEL(prefix), LENGTH(PREFIX)},
    [ROLE_ATTN_NORM] = {TENSORS_CORE, NORM, LAYER(attn_norm), LENGTH(DIM)},
    [ROLE_ATTN_NORM_BIAS] = {TENSORS_NORM_BIAS, VECTOR, LAYER(attn_norm_bias), LENGTH(DIM)},
    [ROLE_ATTN_Q] = {TENSORS_CORE, MATRIX, LAYER(attn_q), SIZE(Q, DIM)},
    [ROLE_ATTN_K] = {TENSORS_CORE, MATRIX, LAYER(attn_k), SIZE(KV, DIM)},
    [ROLE_ATTN_V] = {TENSORS_CORE, MATRIX, LAYER(attn_v), SIZE(KV, DIM)},
    [ROLE_ATTN_OUTPUT] = {TENSORS_CORE, MATRIX, LAYER(attn_output), SIZE(DIM, Q)},
    [ROLE_ATTN_Q_BIAS] = {TENSORS_QKV_BIAS, VECTOR, LAYER(attn_q.bias), LENGTH(Q)},
    [ROLE_ATTN_K_BIAS] = {TENSORS_QKV_BIAS, VECTOR, LAYER(attn_k.bias), LENGTH(KV)},
    [ROLE_ATTN_V_BIAS] = {TENSORS_QKV_BIAS, VECTOR, LAYER(attn_v.bias), LENGTH(KV)},
    [ROLE_ATTN_OUTPUT_BIAS] = {TENSORS_OUTPUT_BIAS, VECTOR, LAYER(attn_output.bias), LENGTH(DIM)},
    [ROLE_ATTN_Q_NORM] = {TENSORS_QK_NORM, NORM, LAYER(attn_q_norm), LENGTH(HEAD)},
    [ROLE_ATTN_K_NORM] = {TENSORS_QK_NORM, NORM, LAYER(attn_k_norm), LENGTH(HEAD)},
    [ROLE_POST_ATTN_NORM] = {TENSORS_POST_NORM, NORM, LAYER(post_attn_norm), LENGTH(DIM)},
    [ROLE_FFN_NORM] = {TENSORS_CORE, NORM, LAYER(ffn_norm), LENGTH(DIM)},
    [ROLE_FFN_NORM_BIAS] = {TENSORS_NORM_BIAS, VECTOR, LAYER(ffn_norm_bias), LENGTH(DIM)},
    [ROLE_FFN_GATE] = {TENSORS_GATE, MATRIX, LAYER(ffn_gate), SIZE(FFN, DIM)},
    [ROLE_FFN_UP] = {TENSORS_FFN, MATRIX, LAYER(ffn_up), SIZE(FFN, DIM)},
    [ROLE_FFN_DOWN] = {TENSORS_FFN, MATRIX, LAYER(ffn_down), SIZE(DIM, FFN)},
    [ROLE_FFN_GATE_BIAS] = {TENSORS_GATE_BIAS, VECTOR, LAYER(ffn_gate.bias), LENGTH(FFN)},
    [ROLE_FFN_UP_BIAS] = {TENSORS_FFN_BIAS, VECTOR, LAYER(ffn_up.bias), LENGTH(FFN)},
    [ROLE_FFN_DOWN_BIAS] = {TENSORS_FFN_BIAS, VECTOR, LAYER(ffn_down.bias), LENGTH(DIM)},
    [ROLE_POST_FFN_NORM] = {TENSORS_POST_NORM, NORM, LAYER(post_ffn_norm), LENGTH(DIM)},
    [ROLE_ROUTER] = {TENSORS_EXPERTS, MATRIX, LAYER(router), SIZE(EXPERTS, DIM)},
    [ROLE_GATE_EXPS] = {TENSORS_EXPERTS, EXPERTS, LAYER(gate_exps), SIZE(EXPERT_FFN, DIM)},
    [ROLE_UP_EXPS] = {TENSORS_EXPERTS, EXPERTS, LAYER(up_exps), SIZE(EXPERT_FFN, DIM)},
    [ROLE_DOWN_EXPS] = {TENSORS_EXPERTS, EXPERTS, LAYER(down_exps), SIZE(DIM, EXPERT_FFN)},
};

bool role_is_matrix(enum role role)
{
    return roles[role].kind >= MATRIX;
}

bool role_is_norm(enum role role)
{
    return roles[role].kind == NORM;
}

bool role_in_layer(enum role role)
{
    return roles[role].in_layer;
}

enum tensor_group role_group(enum role role)
{
    return roles[role].group;
}

void *binding_place(struct model *m, const struct binding *b)
{
    const struct role_info *r = &roles[b->role];
    char *place = (r->in_layer ? (char *)&m->layers[b->layer] : (char *)m) + r->at;
    if (r->kind != EXPERTS)
        return place;
    struct matrix *all;
    memcpy(&all, place, sizeof all);
    return &all[b->expert];
}

/* ---- Binding ------------------------------------------------------------------------------------ */

struct binder {
    const struct weights *w;
    const struct config *c;
    const struct naming *naming;
    enum qtype quantise;
    struct binding *out;
    size_t n, cap;
    int *bound; /* (n_layers + 1, N_ROLES): how many tensors fill the role; the model's own come first */
    char *err;
    size_t errlen;
};

#define FAULT(b, ...) err_set((b)->err, (b)->errlen, __VA_ARGS__)

static int *bound_at(const struct binder *b, enum role role, int layer)
{
    return &b->bound[(size_t)(roles[role].in_layer ? layer + 1 : 0) * N_ROLES + (size_t)role];
}

static int shape_fault(const struct binder *b, const struct tensor *t, const int64_t *wants, int n)
{
    char text[2][128];
    const int64_t *dims[] = {t->dims, wants};
    const int count[] = {t->n_dims, n};
    for (int k = 0; k < 2; k++) {
        size_t at = 0;
        for (int i = 0; i < count[k]; i++)
            at +=
                (size_t)snprintf(text[k] + at, sizeof text[k] - at, "%s%" PRId64, i ? ", " : "", dims[k][i]);
    }
    return FAULT(b, "%s: tensor '%s' has shape [%s], the hyper-parameters imply [%s]", weights_path(b->w),
                 t->name, text[0], text[1]);
}

static int not_a_part(const struct binder *b, const struct tensor *t)
{
    return FAULT(b, "%s: tensor '%s' is no part of architecture '%s' with %d layers", weights_path(b->w),
                 t->name, b->c->arch->name, b->c->n_layers);
}

static struct binding *add(struct binder *b)
{
    if (b->n == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 256;
        struct binding *grown = realloc(b->out, cap * sizeof *grown);
        if (!grown) {
            (void)FAULT(b, "%s: out of memory", weights_path(b->w));
            return NULL;
        }
        b->out = grown;
        b->cap = cap;
    }
    b->out[b->n] = (struct binding){.layer = -1, .expert = -1};
    return &b->out[b->n];
}

void role_shape(const struct config *c, enum role role, int64_t *rows, int64_t *cols)
{
    *cols = width_of(c, roles[role].cols);
    *rows = role_is_matrix(role) ? width_of(c, roles[role].rows) : 1;
}

void role_rows(struct source *s, const struct config *c, const struct name *name, int index, int64_t first,
               bool hf)
{
    const enum role role = name->role[index];
    const struct role_info *r = &roles[role];
    s->first = first;
    s->run = s->stride = width_of(c, r->kind < MATRIX ? r->cols : r->rows);
    if (name->fusing == FUSED_BY_HEAD) {
        s->run = c->head_dim;
        s->stride = (int64_t)NAME_ROLES * c->head_dim;
        s->first = (int64_t)index * c->head_dim;
    }
    bool is_qk =
        role == ROLE_ATTN_Q || role == ROLE_ATTN_K || role == ROLE_ATTN_Q_BIAS || role == ROLE_ATTN_K_BIAS;
    if (is_qk && c->arch->hf_halves && hf) {
        s->head_len = c->head_dim;
        s->pair_len = c->rotary_dim;
    }
}

/* One role's part of a tensor: `rows` of its `total`, from row `first` on. */
static int bind_part(struct binder *b, const struct tensor *t, const struct name *name, int index, int layer,
                     int expert, int64_t first, int64_t total)
{
    const enum role role = name->role[index];
    const struct role_info *r = &roles[role];
    const struct config *c = b->c;
    bool vector = r->kind < MATRIX, hf = b->naming == c->arch->hf_names;
    struct binding *o = add(b);
    if (!o)
        return -1;
    int64_t rows = width_of(c, vector ? r->cols : r->rows);
    o->role = role;
    o->layer = layer;
    o->expert = expert;
    o->source = (struct source){.tensor = t, .rows = vector ? 1 : rows, .cols = width_of(c, r->cols)};
    role_rows(&o->source, c, name, index, first, hf);
    if (r->kind == NORM && c->arch->hf_norm_minus_1 && hf)
        o->source.plus = 1;
    (*bound_at(b, role, layer))++;
    b->n++;
    /* The router decides which experts run at all: it keeps its own precision. */
    enum qtype quantise = role == ROLE_ROUTER ? QTYPE_F32 : b->quantise;
    return vector ? 0 : source_open(&o->source, b->w, total, quantise, b->err, b->errlen);
}

/* Shapes of tensors that are as the file's naming has them; source_open checks those of quantised ones. */
static int check_plain_shape(const struct binder *b, const struct tensor *t, const struct name *name,
                             int64_t rows, int64_t n_stacked)
{
    const struct role_info *r = &roles[name->role[0]];
    int64_t cols = width_of(b->c, r->cols);
    if (r->kind < MATRIX) {
        int64_t len = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        bool flat = t->n_dims == 1 || name->role[0] == ROLE_PREFIX || t->dims[0] == len;
        if (len != rows || !flat)
            return shape_fault(b, t, &rows, 1);
    } else if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != n_stacked || t->dims[3] != 1) {
        return shape_fault(b, t, (int64_t[]){cols, rows, n_stacked}, n_stacked > 1 ? 3 : 2);
    }
    bool is_float = source_is_float(t);
    if (t->type >= QTYPE_N_MATRIX || (r->kind < MATRIX && !is_float && qtypes[t->type].block_len > rows))
        return FAULT(b, "%s: tensor '%s' has type %s, which no weight can have", weights_path(b->w), t->name,
                     qtypes[t->type].name);
    if (r->kind < MATRIX && !is_float)
        return FAULT(b, "%s: tensor '%s' has type %s, which no norm or bias can have", weights_path(b->w),
                     t->name, qtypes[t->type].name);
    return 0;
}

static int bind_tensor(struct binder *b, const struct tensor *t)
{
    const struct config *c = b->c;
    if (source_is_companion(b->w, t))
        return 0; /* of a tensor that is bound, or refused, itself */
    size_t len;
    char full[512];
    const char *ending = source_stem(t->name, &len);
    int written = snprintf(full, sizeof full, "%.*s%s", (int)len, t->name, ending);
    if (written < 0 || written >= (int)sizeof full)
        return not_a_part(b, t);
    int layer, expert;
    const struct name *name = naming_find(b->naming, full, (size_t)written, &layer, &expert);
    if (!name || layer >= c->n_layers || expert >= (c->n_experts ? c->n_experts : 1))
        return not_a_part(b, t);
    if (name->role[0] == ROLE_IGNORED || (name->role[0] == ROLE_OUTPUT && c->tied_embeddings))
        return 0;

    int64_t total = 0;
    int n_roles = 0;
    for (; n_roles < NAME_ROLES && name->role[n_roles]; n_roles++) {
        const struct role_info *r = &roles[name->role[n_roles]];
        if (arch_presence(c, r->group) == TENSOR_REFUSED)
            return not_a_part(b, t);
        total += width_of(c, r->kind < MATRIX ? r->cols : r->rows);
    }
    bool stacked = roles[name->role[0]].kind == EXPERTS && expert < 0;
    bool quantised = ending[0] || t->type == QTYPE_I8;
    if (stacked && quantised)
        return FAULT(b, "%s: tensor '%s': stacked experts cannot be of this kind", weights_path(b->w),
                     t->name);
    if (!quantised && check_plain_shape(b, t, name, total, stacked ? c->n_experts : 1))
        return -1;

    if (stacked) {
        for (int e = 0; e < c->n_experts; e++)
            if (bind_part(b, t, name, 0, layer, e, e * total, total * c->n_experts))
                return -1;
        return 0;
    }
    int64_t first = 0;
    for (int i = 0; i < n_roles; i++) {
        const struct role_info *r = &roles[name->role[i]];
        if (bind_part(b, t, name, i, layer, expert, first, total))
            return -1;
        first += width_of(c, r->kind < MATRIX ? r->cols : r->rows);
    }
    return 0;
}

/* ---- Completeness ------------------------------------------------------------------------------- */

static const char *role_name(const struct binder *b, enum role role, int layer, char name[NAME_MAX_BYTES])
{
    /* A naming without a name of its own for a role has it fused: GGUF's name says which it is. */
    if (!naming_write(name, b->naming, role, layer, 0))
        (void)naming_write(name, &gguf_names, role, layer, 0);
    return name;
}

static int check_role(const struct binder *b, enum role role, int layer, const bool *seen)
{
    const struct role_info *r = &roles[role];
    int wanted = r->kind == EXPERTS ? b->c->n_experts : 1, got = *bound_at(b, role, layer);
    char name[NAME_MAX_BYTES];
    enum presence presence = arch_presence(b->c, r->group);
    if (got == wanted || (presence == TENSOR_REFUSED && got == 0))
        return 0;
    if (got > wanted)
        return FAULT(b, "%s: two tensors are '%s'", weights_path(b->w), role_name(b, role, layer, name));
    if (presence == TENSOR_REQUIRED)
        return FAULT(b, "%s: no tensor '%s', which architecture '%s' with %d layers needs",
                     weights_path(b->w), role_name(b, role, layer, name), b->c->arch->name, b->c->n_layers);
    if (!seen[r->group])
        return 0;
    return FAULT(b, "%s: no tensor '%s', although there are others that belong to it", weights_path(b->w),
                 role_name(b, role, layer, name));
}

/* All tensors of a group are there, in every layer, or none: one missing bias would otherwise be taken
 * for a model without. */
static int check_complete(const struct binder *b)
{
    bool seen[N_TENSOR_GROUPS] = {false};
    for (size_t i = 0; i < b->n; i++)
        seen[roles[b->out[i].role].group] = true;
    for (int layer = -1; layer < b->c->n_layers; layer++)
        for (int role = ROLE_TOKEN_EMBD; role < N_ROLES; role++)
            if (roles[role].in_layer == (layer >= 0) && check_role(b, (enum role)role, layer, seen))
                return -1;
    return 0;
}

void bindings_free(struct binding *b, size_t n)
{
    for (size_t i = 0; b && i < n; i++)
        source_close(&b[i].source);
    free(b);
}

int bind_tensors(struct binding **out, size_t *n, const struct weights *w, const struct config *c,
                 enum qtype quantise, char *err, size_t errlen)
{
    struct binder b = {.w = w,
                       .c = c,
                       .naming = naming_of(c, w),
                       .quantise = quantise,
                       .bound = calloc(((size_t)c->n_layers + 1) * N_ROLES, sizeof *b.bound),
                       .err = err,
                       .errlen = errlen};
    *out = NULL;
    *n = 0;
    int rc = b.bound ? 0 : FAULT(&b, "%s: out of memory", weights_path(w));
    for (size_t i = 0; rc == 0 && i < weights_n_tensors(w); i++)
        rc = bind_tensor(&b, weights_tensor(w, i));
    if (rc == 0)
        rc = check_complete(&b);
    free(b.bound);
    if (rc) {
        bindings_free(b.out, b.n);
        return -1;
    }
    *out = b.out;
    *n = b.n;
    return 0;
}
