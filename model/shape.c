/* The tensors that a config.json implies: the naming tables read backwards. */
#include "model/shape.h"

#include "model/bind.h"
#include "quant/err.h"

#include <inttypes.h>
#include <string.h>

const struct shape *shape_find(const char *name, size_t len)
{
    for (const struct shape *s = shapes; s->name; s++)
        if (strlen(s->name) == len && memcmp(s->name, name, len) == 0)
            return s;
    return NULL;
}

/* ---- The directory ------------------------------------------------------------------------------ */

struct builder {
    struct weights *w;
    const struct config *c;
    const struct naming *naming;
    enum qtype type;
    char *err;
    size_t errlen;
};

/* Has config.json's model the tensors of a group? Those that the architecture may have are told by keys. */
static bool has_group(const struct builder *b, enum tensor_group g)
{
    static const struct {
        enum tensor_group group;
        const char *key;
    } switches[] = {
        {TENSORS_QKV_BIAS, "attention_bias"}, {TENSORS_OUTPUT_BIAS, "attention_bias"},
        {TENSORS_QKV_BIAS, "add_qkv_bias"},   {TENSORS_FFN_BIAS, "mlp_bias"},
        {TENSORS_GATE_BIAS, "mlp_bias"},
    };
    enum presence presence = arch_presence(b->c, g);
    if (g == TENSORS_OUTPUT)
        return presence != TENSOR_REFUSED && !b->c->tied_embeddings;
    if (presence != TENSOR_OPTIONAL)
        return presence == TENSOR_REQUIRED;
    const struct keys k = {b->w, "config", NULL, 0};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        bool on;
        if (switches[i].group == g && keys_bool(&k, switches[i].key, false, &on) == 0 && on)
            return true;
    }
    return false;
}

/* The name that stands for a role: one of its own, else the first of those where it is fused. */
static const struct name *name_of(const struct naming *all, enum role role)
{
    const struct name *fused = NULL;
    for (const struct naming *n = all; n; n = n->base)
        for (const struct name *p = n->names; p->pattern; p++) {
            if (p->role[0] == role && !p->role[1])
                return p;
            for (int i = 0; i < NAME_ROLES && !fused; i++)
                if (p->role[i] == role)
                    fused = p;
        }
    return fused;
}

static int add_tensor(const struct builder *b, const struct name *n, int layer, int expert)
{
    char name[NAME_MAX_BYTES];
    int64_t rows = 0, cols = 0;
    bool matrix = role_is_matrix(n->role[0]);
    for (int i = 0; i < NAME_ROLES && n->role[i]; i++) {
        int64_t r, c;
        role_shape(b->c, n->role[i], &r, &c);
        rows += matrix ? r : c;
        cols = c;
    }
    naming_expand(name, n->pattern, layer, expert);
    if (!matrix)
        return weights_make_tensor(b->w, name, QTYPE_F32, 1, &rows, b->err, b->errlen);
    enum qtype type = n->role[0] == ROLE_ROUTER ? QTYPE_F32 : qtype_for_rows(b->type, cols);
    return weights_make_tensor(b->w, name, type, 2, (int64_t[]){cols, rows}, b->err, b->errlen);
}

static int add_role(const struct builder *b, enum role role, int layer)
{
    const struct name *n = name_of(b->naming, role);
    if (!n || n->role[0] != role || !has_group(b, role_group(role)))
        return 0; /* of a fused tensor the first role stands for all */
    if (!strchr(n->pattern, '@'))
        return add_tensor(b, n, layer, -1);
    for (int e = 0; e < b->c->n_experts; e++)
        if (add_tensor(b, n, layer, e))
            return -1;
    return 0;
}

/* Whether the output matrix is the embedding is read off the tensors and config.json together: with an
 * output matrix in the directory only config.json can say so. */
static int read_config(struct config *c, const struct shape_options *o, char *err, size_t errlen)
{
    struct weights *w;
    if (weights_make(&w, o->name, o->config, o->config_path, err, errlen))
        return -1;
    int rc = config_read(c, w, err, errlen);
    if (rc == 0) {
        c->tied_embeddings = false;
        const struct builder b = {w, c, naming_of(c, w), QTYPE_F32, err, errlen};
        rc = add_role(&b, ROLE_OUTPUT, -1) || weights_make_done(w, err, errlen) ||
                     config_read(c, w, err, errlen)
                 ? -1
                 : 0;
    }
    weights_close(w);
    return rc;
}

int shape_open(struct weights **out, const struct shape_options *o, char *err, size_t errlen)
{
    struct config c;
    struct weights *w;
    *out = NULL;
    if (read_config(&c, o, err, errlen) || weights_make(&w, o->name, o->config, o->config_path, err, errlen))
        return -1;
    const struct builder b = {w, &c, naming_of(&c, w), o->type, err, errlen};
    int rc = 0;
    for (int layer = -1; layer < c.n_layers && rc == 0; layer++)
        for (int role = ROLE_TOKEN_EMBD; role < N_ROLES && rc == 0; role++)
            if (role_in_layer((enum role)role) == (layer >= 0))
                rc = add_role(&b, (enum role)role, layer);
    if (rc || weights_make_done(w, err, errlen)) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

/* ---- Data --------------------------------------------------------------------------------------- */

static bool is_matrix(const struct tensor *t)
{
    return t->n_dims > 1;
}

/* Bytes of a type's matrices: of the largest, or of all. */
static uint64_t matrix_bytes(const struct weights *w, enum qtype type, bool separate)
{
    uint64_t largest = 0, sum = 0;
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        if (!is_matrix(t) || t->type != type)
            continue;
        largest = t->bytes > largest ? t->bytes : largest;
        sum += t->bytes;
    }
    return separate ? sum : largest;
}

static uint64_t vector_bytes(const struct weights *w)
{
    uint64_t longest = 0;
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        if (!is_matrix(t))
            longest = t->bytes > longest ? t->bytes : longest;
    }
    return longest;
}

uint64_t shape_fill_bytes(const struct weights *w, bool separate)
{
    uint64_t sum = 2 * vector_bytes(w);
    for (int type = 0; type < QTYPE_N_MATRIX; type++)
        sum += matrix_bytes(w, (enum qtype)type, separate);
    return sum;
}

static void *random_buffer(struct weights *w, enum qtype type, uint64_t bytes, uint64_t *state)
{
    void *data = weights_make_buffer(w, bytes);
    if (data)
        qtype_random(type, data, (int64_t)bytes / qtypes[type].block_bytes * qtypes[type].block_len, state);
    return data;
}

static int fill_matrices(struct weights *w, enum qtype type, bool separate, uint64_t *state)
{
    uint64_t bytes = matrix_bytes(w, type, separate);
    const char *data = bytes ? random_buffer(w, type, bytes, state) : NULL;
    if (bytes && !data)
        return -1;
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        if (!is_matrix(t) || t->type != type)
            continue;
        weights_make_data(w, i, data);
        data += separate ? t->bytes : 0;
    }
    return 0;
}

/* Norms around 1, or around 0 where the architecture's files store them less 1; biases around 0. */
static int fill_vectors(struct weights *w, const struct config *c, uint64_t *state)
{
    uint64_t bytes = vector_bytes(w);
    const struct naming *naming = naming_of(c, w);
    const float *small = random_buffer(w, QTYPE_F32, bytes, state);
    float *norm = random_buffer(w, QTYPE_F32, bytes, state);
    if (!small || !norm)
        return -1;
    for (size_t i = 0; i < bytes / sizeof *norm; i++)
        norm[i] += c->arch->hf_norm_minus_1 ? 0 : 1;
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        int layer, expert;
        if (!is_matrix(t))
            weights_make_data(
                w, i,
                role_is_norm(naming_find(naming, t->name, strlen(t->name), &layer, &expert)->role[0])
                    ? norm
                    : small);
    }
    return 0;
}

int shape_fill(struct weights *w, bool separate, char *err, size_t errlen)
{
    struct config c;
    uint64_t state = 1;
    if (config_read(&c, w, err, errlen))
        return -1;
    int rc = fill_vectors(w, &c, &state);
    for (int type = 0; type < QTYPE_N_MATRIX && rc == 0; type++)
        rc = fill_matrices(w, (enum qtype)type, separate, &state);
    if (rc)
        return err_set(err, errlen, "%s: not enough memory for %" PRIu64 " bytes of weights", weights_path(w),
                       shape_fill_bytes(w, separate));
    return 0;
}
