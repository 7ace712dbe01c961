/* A file becomes a model: hyper-parameters, bound tensors, packed weights. */
#include "model/bind.h"
#include "model/layers.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PACK_BYTES = 1 << 20, /* source bytes per piece of work: what is in memory twice, per thread */
    VECTOR_ALIGN = 64,
};

/* ---- Overrides of RoPE -------------------------------------------------------------------------- */

static int apply_rope_options(struct config *c, const struct model_options *o, char *err, size_t errlen)
{
    if (o->rope_freq_base != 0) {
        if (!(o->rope_freq_base >= 1 && o->rope_freq_base <= 1e15))
            return err_set(err, errlen, "RoPE base %g is outside 1 … 1e15", o->rope_freq_base);
        c->rope_theta = o->rope_freq_base;
    }
    if (o->rope_scale != 0 && !(o->rope_scale > 0 && o->rope_scale <= 1e6))
        return err_set(err, errlen, "RoPE scale %g is outside 0 … 1e6", o->rope_scale);
    int scaling = o->rope_scaling;
    if (scaling < 0)
        scaling = o->rope_scale != 0 ? ROPE_SCALING_LINEAR : (int)c->rope_scaling;
    if (scaling == ROPE_SCALING_NONE) {
        c->rope_factor = 1;
    } else if (scaling == ROPE_SCALING_LINEAR) {
        if (o->rope_scale != 0)
            c->rope_factor = o->rope_scale;
        else if (c->rope_scaling != ROPE_SCALING_LINEAR)
            return err_set(err, errlen, "linear RoPE scaling needs a scale: the model has none of its own");
    } else {
        return err_set(err, errlen, "RoPE scaling: only none and linear are supported yet");
    }
    c->rope_scaling = (enum rope_scaling)scaling;
    return 0;
}

/* ---- Vectors ------------------------------------------------------------------------------------ */

static size_t vector_bytes(const struct tensor *t)
{
    size_t bytes = (size_t)t->dims[0] * sizeof(float);
    return (bytes + VECTOR_ALIGN - 1) / VECTOR_ALIGN * VECTOR_ALIGN;
}

/* Where a binding's pointer or matrix lives. */
static void *place_of(struct model *m, const struct binding *b)
{
    char *base = b->layer < 0 ? (char *)m : (char *)&m->layers[b->layer];
    return base + b->at;
}

/* Norm weights and biases: widened to float, in one allocation of the backend. */
static int load_vectors(struct model *m, const struct binding *b, size_t n)
{
    size_t longest = 0;
    for (size_t i = 0; i < n; i++)
        if (!b[i].is_matrix) {
            size_t bytes = vector_bytes(b[i].tensor);
            m->vectors_bytes += bytes;
            longest = bytes > longest ? bytes : longest;
        }
    float *wide = malloc(longest ? longest : 1);
    m->vectors = m->ops->alloc(m->vectors_bytes);
    if (!wide || !m->vectors) {
        free(wide);
        return -1;
    }
    char *at = m->vectors;
    for (size_t i = 0; i < n; i++) {
        if (b[i].is_matrix)
            continue;
        const struct tensor *t = b[i].tensor;
        qtypes[t->type].to_f32(wide, t->data, t->dims[0]);
        m->ops->upload(at, wide, (size_t)t->dims[0] * sizeof(float));
        float *vector = (float *)(void *)at;
        memcpy(place_of(m, &b[i]), &vector, sizeof vector);
        at += vector_bytes(t);
    }
    free(wide);
    return 0;
}

static int load_rope(struct model *m, const char *path, char *err, size_t errlen)
{
    size_t n = (size_t)m->config.rotary_dim / 2;
    char why[256];
    int rc = -1;
    float *divisors = malloc(n * sizeof *divisors);
    m->inv_freq = malloc(n * sizeof *m->inv_freq);
    if (!divisors || !m->inv_freq) {
        (void)err_set(err, errlen, "%s: out of memory", path);
    } else {
        if (m->rope_freqs)
            m->ops->download(divisors, m->rope_freqs, n * sizeof *divisors);
        rc = rope_frequencies(m->inv_freq, &m->rope_attention_factor, &m->config,
                              m->rope_freqs ? divisors : NULL, why, sizeof why);
        if (rc)
            (void)err_set(err, errlen, "%s: %s", path, why);
    }
    free(divisors);
    return rc;
}

/* ---- Matrices ----------------------------------------------------------------------------------- */

/* Some tiles of one matrix. */
struct piece {
    struct packed *dst;
    const struct tensor *src;
    int64_t row0, n_rows;
};

struct packing {
    const struct ops *ops;
    const struct weights *w;
    const struct piece *piece;
    int64_t n;
};

static int64_t piece_rows(const struct tensor *t)
{
    int64_t tile_bytes = TILE_ROWS * qtype_bytes(t->type, t->dims[0]);
    int64_t tiles = PACK_BYTES / tile_bytes;
    return (tiles > 0 ? tiles : 1) * TILE_ROWS;
}

static int64_t n_pieces(const struct tensor *t)
{
    int64_t rows = piece_rows(t);
    return (t->dims[1] + rows - 1) / rows;
}

/* The piece's bytes in its tensor. */
static void piece_range(const struct piece *p, uint64_t *from, uint64_t *bytes)
{
    uint64_t row_bytes = (uint64_t)qtype_bytes(p->src->type, p->src->dims[0]);
    *from = (uint64_t)p->row0 * row_bytes;
    *bytes = (uint64_t)p->n_rows * row_bytes;
}

/* Every thread takes pieces, in the file's order. The file is asked for what comes next and its pages
 * leave memory behind the packing, so that the weights are hardly ever there twice. */
static void pack_pieces(struct worker *worker, void *arg)
{
    const struct packing *k = arg;
    int64_t ahead = worker->n_threads, begin, end;
    while (team_next(worker, k->n, 1, &begin, &end))
        for (int64_t i = begin; i < end; i++) {
            const struct piece *p = &k->piece[i];
            uint64_t from, bytes;
            if (i + ahead < k->n) {
                piece_range(&k->piece[i + ahead], &from, &bytes);
                weights_prefetch(k->w, k->piece[i + ahead].src, from, bytes);
            }
            piece_range(p, &from, &bytes);
            k->ops->pack(p->dst, p->row0, p->n_rows, (const char *)p->src->data + from);
            weights_drop(k->w, p->src, from, bytes);
        }
}

/* --no-repack: the matrices are views of the file. */
static void view_matrices(struct model *m, const struct binding *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = b[i].tensor;
        if (b[i].is_matrix)
            m->ops->packed_view(place_of(m, &b[i]), t->type, t->dims[1], t->dims[0], t->data);
    }
}

/* Allocates every matrix and packs it. Nothing in the parallel part can fail. */
static int pack_matrices(struct model *m, const struct weights *w, const struct binding *b, size_t n,
                         int n_threads)
{
    int64_t pieces = 0;
    for (size_t i = 0; i < n; i++)
        if (b[i].is_matrix)
            pieces += n_pieces(b[i].tensor);
    struct piece *piece = calloc((size_t)pieces + 1, sizeof *piece);
    struct team *team = team_new(n_threads);
    int rc = piece && team ? 0 : -1;
    int64_t at = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct tensor *t = b[i].tensor;
        if (!b[i].is_matrix)
            continue;
        struct packed *p = place_of(m, &b[i]);
        rc = m->ops->packed_alloc(p, t->type, t->dims[1], t->dims[0]);
        for (int64_t row = 0, step = piece_rows(t); rc == 0 && row < t->dims[1]; row += step) {
            int64_t left = t->dims[1] - row;
            piece[at++] = (struct piece){p, t, row, left < step ? left : step};
        }
    }
    if (rc == 0) {
        struct packing k = {m->ops, w, piece, at};
        team_run(team, pack_pieces, &k);
    }
    if (team)
        team_free(team);
    free(piece);
    return rc;
}

/* ---- The model ---------------------------------------------------------------------------------- */

/* What a generated token reads: every matrix once, of the embedding one row unless it is the output too. */
static void count_memory(struct model *m, const struct binding *b, size_t n)
{
    struct model_memory *mem = &m->memory;
    mem->weight_bytes = m->vectors_bytes;
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = b[i].tensor;
        mem->n_params += (uint64_t)(t->dims[0] * t->dims[1]);
        if (b[i].is_matrix) {
            const struct packed *p = place_of(m, &b[i]);
            mem->weight_bytes += p->is_view ? t->bytes : (uint64_t)(p->n_tiles * p->tile_bytes);
            if (p == &m->token_embd && m->output != p) {
                mem->token_bytes += (uint64_t)qtype_bytes(t->type, t->dims[0]);
                continue;
            }
        }
        mem->token_bytes += t->bytes;
    }
}

int model_load(struct model **out, struct weights *w, const struct model_options *opt, char *err,
               size_t errlen)
{
    *out = NULL;
    if (opt->no_repack && !opt->ops->packed_view)
        return err_set(err, errlen, "%s: %s cannot compute from the file's layout", weights_path(w),
                       opt->ops->name);
    struct model *m = calloc(1, sizeof *m);
    struct binding *b = NULL;
    size_t n = 0;
    char why[256];
    if (!m)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    m->ops = opt->ops;
    if (config_read(&m->config, w, err, errlen))
        goto failed;
    if (apply_rope_options(&m->config, opt, why, sizeof why)) {
        (void)err_set(err, errlen, "%s: %s", weights_path(w), why);
        goto failed;
    }
    if (bind_tensors(&b, &n, w, &m->config, err, errlen))
        goto failed;
    m->layers = calloc((size_t)m->config.n_layers, sizeof *m->layers);
    if (!m->layers || load_vectors(m, b, n))
        goto no_memory;
    if (load_rope(m, weights_path(w), err, errlen))
        goto failed;
    if (opt->no_repack)
        view_matrices(m, b, n);
    else if (pack_matrices(m, w, b, n, opt->n_threads))
        goto no_memory;
    m->output = m->config.tied_embeddings ? &m->token_embd : &m->own_output;
    count_memory(m, b, n);
    free(b);
    *out = m;
    return 0;

no_memory:
    (void)err_set(err, errlen, "%s: not enough memory for %" PRIu64 " bytes of weights", weights_path(w),
                  weights_file_bytes(w));
failed:
    free(b);
    model_free(m);
    return -1;
}

static void release_matrix(const struct ops *ops, struct packed *p)
{
    if (p->data)
        ops->packed_release(p);
}

void model_free(struct model *m)
{
    if (!m)
        return;
    release_matrix(m->ops, &m->token_embd);
    release_matrix(m->ops, &m->own_output);
    for (int i = 0; m->layers && i < m->config.n_layers; i++) {
        struct layer *l = &m->layers[i];
        struct packed *all[] = {&l->attn_q,   &l->attn_k, &l->attn_v,  &l->attn_output,
                                &l->ffn_gate, &l->ffn_up, &l->ffn_down};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            release_matrix(m->ops, all[k]);
    }
    if (m->vectors)
        m->ops->release(m->vectors, m->vectors_bytes);
    free(m->layers);
    free(m->inv_freq);
    free(m);
}

const struct config *model_config(const struct model *m)
{
    return &m->config;
}

void model_memory(const struct model *m, struct model_memory *mem)
{
    *mem = m->memory;
}
