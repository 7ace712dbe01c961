/* Hyper-parameters from a GGUF's metadata ("<arch>.block_count" and so on, as the GGUF specification
 * names them). Everything is checked here, once, so that the rest of the room may multiply. */
#include "model/arch.h"
#include "model/model.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Bounds far above any model; products of any two fit 64 bits with room to spare. */
enum {
    MAX_LAYERS = 4096,
    MAX_HEADS = 1 << 14,
    MAX_HEAD_DIM = 1 << 14,
    MAX_WIDTH = 1 << 22, /* dim, ffn_dim, n_heads · head_dim */
    MAX_VOCAB = 1 << 26,
    MAX_CONTEXT = 1 << 30,
};

struct reader {
    const struct weights *w;
    const char *arch; /* prefix of the keys */
    char *err;
    size_t errlen;
};

enum { KEY_MAX = 128 };

static const struct meta *find(const struct reader *r, const char *name, char key[KEY_MAX])
{
    (void)snprintf(key, KEY_MAX, "%s.%s", r->arch, name);
    return weights_meta_find(r->w, key);
}

static int missing(const struct reader *r, const char *key)
{
    return err_set(r->err, r->errlen, "%s: no key '%s'", weights_path(r->w), key);
}

/* A whole number in lo … hi. Where the key is an array (one value per layer), all must be equal: models
 * whose layers differ in shape are not supported. Absent: dflt, or an error when dflt is negative. */
static int read_int(const struct reader *r, const char *name, int64_t lo, int64_t hi, int64_t dflt, int *out)
{
    char key[KEY_MAX];
    const struct meta *m = find(r, name, key);
    if (!m) {
        if (dflt < 0)
            return missing(r, key);
        *out = (int)dflt;
        return 0;
    }
    int64_t v;
    if (!meta_int(m, 0, &v))
        return err_set(r->err, r->errlen, "%s: key '%s' is no whole number (type %s, %" PRIu64 " values)",
                       weights_path(r->w), key, meta_type_name(m->type), m->n);
    if (v < lo || v > hi)
        return err_set(r->err, r->errlen, "%s: key '%s' is %" PRId64 ", outside %" PRId64 " … %" PRId64,
                       weights_path(r->w), key, v, lo, hi);
    for (uint64_t i = 1; i < m->n; i++) {
        int64_t other;
        if (!meta_int(m, i, &other) || other != v)
            return err_set(r->err, r->errlen,
                           "%s: key '%s' differs between layers (value %" PRIu64 "), which is not supported",
                           weights_path(r->w), key, i);
    }
    *out = (int)v;
    return 0;
}

/* A number in lo … hi (NaN is not). Absent: dflt, or an error when dflt is NaN. */
static int read_float(const struct reader *r, const char *name, double lo, double hi, double dflt,
                      double *out)
{
    char key[KEY_MAX];
    const struct meta *m = find(r, name, key);
    if (!m) {
        if (isnan(dflt))
            return missing(r, key);
        *out = dflt;
        return 0;
    }
    double v;
    if (m->n != 1 || !meta_float(m, 0, &v))
        return err_set(r->err, r->errlen, "%s: key '%s' is no number (type %s, %" PRIu64 " values)",
                       weights_path(r->w), key, meta_type_name(m->type), m->n);
    if (!(v >= lo && v <= hi))
        return err_set(r->err, r->errlen, "%s: key '%s' is %g, outside %g … %g", weights_path(r->w), key, v,
                       lo, hi);
    *out = v;
    return 0;
}

static int read_arch(const struct arch **out, const struct weights *w, char *err, size_t errlen)
{
    const struct meta *m = weights_meta_find(w, "general.architecture");
    struct wstr name;
    if (!m)
        return err_set(err, errlen, "%s: no key 'general.architecture': not a GGUF model", weights_path(w));
    if (!meta_str(m, 0, &name))
        return err_set(err, errlen, "%s: key 'general.architecture' is no string", weights_path(w));
    *out = arch_find(name.s, name.len);
    if (*out)
        return 0;
    char known[256] = "";
    size_t at = 0;
    for (size_t i = 0; archs[i] && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", archs[i]->name);
    char shown[64]; /* the name is the file's: printable characters only */
    size_t n = name.len < sizeof shown - 1 ? name.len : sizeof shown - 1;
    for (size_t i = 0; i < n; i++)
        shown[i] = name.s[i] >= ' ' && name.s[i] < 0x7f ? name.s[i] : '?';
    shown[n] = 0;
    return err_set(err, errlen,
                   "%s: architecture '%s' is not supported (key 'general.architecture'); these are: %s",
                   weights_path(w), shown, known);
}

/* Keys that other engines give a meaning, which this one would silently leave out: accepted only with
 * the value that changes nothing. */
static const struct {
    const char *name;
    double neutral;
} unsupported[] = {
    {"expert_count", 0},
    {"attention.scale", 0},
    {"attention.max_alibi_bias", 0},
    {"attention.clamp_kqv", 0},
    {"attention.causal", 1},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"embedding_scale", 1},
    {"residual_scale", 1},
    {"logit_scale", 1},
    {"use_parallel_residual", 0},
    {"rope.scaling.attn_factor", 1},
};

static int refuse_unsupported(const struct reader *r)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        char key[KEY_MAX];
        const struct meta *m = find(r, unsupported[i].name, key);
        if (!m)
            continue;
        double v;
        int64_t whole;
        if (m->n == 1 && meta_int(m, 0, &whole)) /* a BOOL is no float */
            v = (double)whole;
        else if (m->n != 1 || !meta_float(m, 0, &v))
            return err_set(r->err, r->errlen, "%s: key '%s' is no number (type %s, %" PRIu64 " values)",
                           weights_path(r->w), key, meta_type_name(m->type), m->n);
        if (v != unsupported[i].neutral)
            return err_set(r->err, r->errlen, "%s: key '%s' is %g, which is not supported yet",
                           weights_path(r->w), key, v);
    }
    return 0;
}

static int read_rope(struct config *c, const struct reader *r)
{
    if (read_int(r, "rope.dimension_count", 2, c->head_dim, c->head_dim, &c->rotary_dim) ||
        read_float(r, "rope.freq_base", 1, 1e15, 10000, &c->rope_theta))
        return -1;
    if (c->rotary_dim % 2)
        return err_set(r->err, r->errlen, "%s: key '%s.rope.dimension_count' is %d, which is odd",
                       weights_path(r->w), r->arch, c->rotary_dim);
    c->rope_pairing = c->arch->rope_pairing;

    /* A factor without a type is linear; "rope.scale_linear" is its name in the first GGUFs. */
    double old, factor;
    if (read_float(r, "rope.scale_linear", 0, 1e6, 0, &old) ||
        read_float(r, "rope.scaling.factor", 0, 1e6, old, &factor))
        return -1;
    c->rope_scaling = factor > 0 && factor != 1 ? ROPE_SCALING_LINEAR : ROPE_SCALING_NONE;
    char key[KEY_MAX];
    const struct meta *m = find(r, "rope.scaling.type", key);
    if (m) {
        struct wstr type;
        if (!meta_str(m, 0, &type))
            return err_set(r->err, r->errlen, "%s: key '%s' is no string", weights_path(r->w), key);
        if (type.len == 4 && memcmp(type.s, "none", 4) == 0)
            c->rope_scaling = ROPE_SCALING_NONE;
        else if (type.len != 6 || memcmp(type.s, "linear", 6) != 0)
            return err_set(r->err, r->errlen, "%s: key '%s': only 'none' and 'linear' are supported yet",
                           weights_path(r->w), key);
        else if (factor == 0)
            return err_set(r->err, r->errlen, "%s: key '%s' is 'linear', but no factor is given",
                           weights_path(r->w), key);
    }
    c->rope_factor = c->rope_scaling == ROPE_SCALING_LINEAR ? factor : 1;
    return 0;
}

/* The rows of the embedding; the other places that know the number must agree. A file without tensors
 * (a vocabulary) has only those. */
static int read_vocab_size(struct config *c, const struct reader *r)
{
    const struct tensor *embd = weights_find(r->w, "token_embd.weight");
    const struct meta *tokens = weights_meta_find(r->w, "tokenizer.ggml.tokens");
    int64_t n_tokens = tokens && tokens->n <= MAX_VOCAB ? (int64_t)tokens->n : 0;
    if (read_int(r, "vocab_size", 1, MAX_VOCAB, n_tokens, &c->vocab_size))
        return -1;
    char key[KEY_MAX];
    const struct meta *given = find(r, "vocab_size", key);
    if (embd) {
        int64_t rows = embd->dims[1];
        if (rows < 1 || rows > MAX_VOCAB)
            return err_set(r->err, r->errlen, "%s: tensor 'token_embd.weight' has %" PRId64 " rows",
                           weights_path(r->w), rows);
        if (given && c->vocab_size != rows)
            return err_set(r->err, r->errlen,
                           "%s: key '%s' is %d, but tensor 'token_embd.weight' has %" PRId64 " rows",
                           weights_path(r->w), key, c->vocab_size, rows);
        if (tokens && tokens->n > (uint64_t)rows)
            return err_set(r->err, r->errlen,
                           "%s: key 'tokenizer.ggml.tokens' has %" PRIu64
                           " tokens, but tensor 'token_embd.weight' has %" PRId64 " rows",
                           weights_path(r->w), tokens->n, rows);
        c->vocab_size = (int)rows;
    }
    if (c->vocab_size < 1)
        return missing(r, key);
    return 0;
}

int config_read(struct config *c, const struct weights *w, char *err, size_t errlen)
{
    memset(c, 0, sizeof *c);
    if (read_arch(&c->arch, w, err, errlen))
        return -1;
    struct reader r = {w, c->arch->name, err, errlen};
    if (read_int(&r, "block_count", 1, MAX_LAYERS, -1, &c->n_layers) ||
        read_int(&r, "context_length", 1, MAX_CONTEXT, -1, &c->max_seq_len) ||
        read_int(&r, "embedding_length", 1, MAX_WIDTH, -1, &c->dim) ||
        read_int(&r, "feed_forward_length", 1, MAX_WIDTH, -1, &c->ffn_dim) ||
        read_int(&r, "attention.head_count", 1, MAX_HEADS, -1, &c->n_heads) ||
        read_int(&r, "attention.head_count_kv", 1, c->n_heads, c->n_heads, &c->n_kv_heads))
        return -1;
    if (c->n_heads % c->n_kv_heads)
        return err_set(err, errlen,
                       "%s: key '%s.attention.head_count_kv' is %d, which does not divide %d heads",
                       weights_path(w), r.arch, c->n_kv_heads, c->n_heads);

    int value_dim;
    int64_t per_head = c->dim % c->n_heads == 0 ? c->dim / c->n_heads : -1;
    if (read_int(&r, "attention.key_length", 2, MAX_HEAD_DIM, per_head, &c->head_dim) ||
        read_int(&r, "attention.value_length", c->head_dim, c->head_dim, c->head_dim, &value_dim))
        return -1;
    if (c->head_dim < 2 || c->head_dim % 2 || c->head_dim > MAX_WIDTH / c->n_heads)
        return err_set(
            err, errlen,
            "%s: %d heads of %d (keys '%s.attention.head_count', '.key_length'): a head's size must be "
            "even and all heads together at most %d",
            weights_path(w), c->n_heads, c->head_dim, r.arch, MAX_WIDTH);

    double eps;
    if (read_float(&r, "attention.layer_norm_rms_epsilon", 1e-30, 0.1, NAN, &eps))
        return -1;
    c->norm_eps = (float)eps;
    if (read_int(&r, "attention.sliding_window", 0, MAX_CONTEXT, 0, &c->sliding_window))
        return -1;
    if (c->sliding_window >= c->max_seq_len)
        c->sliding_window = 0;
    c->tied_embeddings = !weights_find(w, "output.weight");
    if (read_rope(c, &r) || read_vocab_size(c, &r))
        return -1;
    return refuse_unsupported(&r);
}
