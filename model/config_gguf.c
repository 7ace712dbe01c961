/* Hyper-parameters from a GGUF's metadata ("<arch>.block_count" and so on, as the GGUF specification names
 * them). */
#include "model/arch.h"
#include "model/rope.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Keys that other engines give a meaning, which this one would silently leave out: accepted only with
 * the value that changes nothing. */
static const struct {
    const char *name;
    double neutral;
} unsupported[] = {
    {"attention.max_alibi_bias", 0}, {"attention.clamp_kqv", 0}, {"attention.causal", 1},
    {"embedding_scale", 1},          {"residual_scale", 1},      {"logit_scale", 1},
    {"use_parallel_residual", 0},    {"expert_shared_count", 0}, {"expert_shared_feed_forward_length", 0},
    {"expert_weights_scale", 1},     {"expert_group_count", 1},  {"leading_dense_block_count", 0},
};

static int refuse_unsupported(const struct keys *k)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        char key[KEY_MAX];
        const struct meta *m = keys_find(k, unsupported[i].name, key);
        if (!m)
            continue;
        double v;
        int64_t whole;
        if (m->n == 1 && meta_int(m, 0, &whole)) /* a BOOL is no float */
            v = (double)whole;
        else if (m->n != 1 || !meta_float(m, 0, &v))
            return keys_fault(k, unsupported[i].name, "is no number (type %s, %" PRIu64 " values)",
                              meta_type_name(m->type), m->n);
        if (v != unsupported[i].neutral)
            return keys_fault(k, unsupported[i].name, "is %g, which is not supported yet", v);
    }
    return 0;
}

static int read_scaling_type(struct config *c, const struct keys *k)
{
    struct rope_config *r = &c->rope;
    char key[KEY_MAX], shown[SHOWN_MAX];
    struct wstr type;
    if (keys_string(k, "rope.scaling.type", &type))
        return -1;
    /* A factor without a type is linear; two sets of divisors are longrope whatever the type says. */
    r->scaling = r->factor != 1 ? ROPE_SCALING_LINEAR : ROPE_SCALING_NONE;
    bool given = keys_find(k, "rope.scaling.factor", key) || keys_find(k, "rope.scale_linear", key);
    if (type.s) {
        int s = 0;
        while (s < N_ROPE_SCALINGS &&
               !keys_is(k, "rope.scaling.type", rope_scaling_name((enum rope_scaling)s)))
            s++;
        if (s == N_ROPE_SCALINGS || s == ROPE_SCALING_DYNAMIC || s == ROPE_SCALING_LLAMA3)
            return keys_fault(k, "rope.scaling.type",
                              "is '%s'; 'none', 'linear', 'yarn' and 'longrope' are supported",
                              keys_shown(type, shown));
        r->scaling = (enum rope_scaling)s;
        if ((s == ROPE_SCALING_LINEAR || s == ROPE_SCALING_YARN) && !given)
            return keys_fault(k, "rope.scaling.type", "is '%s', but no factor is given",
                              rope_scaling_name(r->scaling));
    }
    if (weights_find(k->w, "rope_factors_long.weight"))
        r->scaling = ROPE_SCALING_LONGROPE;
    if (keys_find(k, "rope.scaling.dynamic_factor", key)) { /* a key of ours: GGUF has no name for it */
        r->scaling = ROPE_SCALING_DYNAMIC;
        return keys_float(k, "rope.scaling.dynamic_factor", 0, 1e6, NAN, &r->factor);
    }
    return 0;
}

static int read_rope(struct config *c, const struct keys *k)
{
    struct rope_config *r = &c->rope;
    double old, attn_factor, ext_factor;
    /* "rope.scale_linear" is the factor's name in the first GGUFs; 0 is none. */
    if (keys_int(k, "rope.dimension_count", 2, c->head_dim, c->head_dim, &c->rotary_dim) ||
        keys_float(k, "rope.freq_base", 1, 1e15, 10000, &r->theta) ||
        keys_float(k, "rope.freq_base_swa", 1, 1e15, 0, &c->rope_theta_windowed) ||
        keys_float(k, "rope.scale_linear", 0, 1e6, 0, &old) ||
        keys_float(k, "rope.scaling.factor", 0, 1e6, old, &r->factor) ||
        keys_float(k, "rope.scaling.attn_factor", 1e-3, 1e3, 1, &attn_factor) ||
        keys_int(k, "rope.scaling.original_context_length", 1, MAX_CONTEXT, c->max_seq_len,
                 &r->original_len) ||
        keys_float(k, "rope.scaling.yarn_ext_factor", 0, 1, 1, &ext_factor) ||
        keys_float(k, "rope.scaling.yarn_beta_fast", 0, 1e6, 32, &r->beta_fast) ||
        keys_float(k, "rope.scaling.yarn_beta_slow", 0, 1e6, 1, &r->beta_slow))
        return -1;
    if (c->rotary_dim % 2)
        return keys_fault(k, "rope.dimension_count", "is %d, which is odd", c->rotary_dim);
    if (r->factor == 0)
        r->factor = 1;
    if (read_scaling_type(c, k))
        return -1;
    if (r->scaling == ROPE_SCALING_NONE)
        r->factor = 1;
    if (r->scaling == ROPE_SCALING_YARN) {
        if (ext_factor != 1)
            return keys_fault(k, "rope.scaling.yarn_ext_factor", "is %g, which is not supported", ext_factor);
        r->attention_factor = attn_factor * rope_yarn_attention(r->factor, 1);
    } else if (r->scaling == ROPE_SCALING_LONGROPE) {
        r->attention_factor = attn_factor;
    } else if (attn_factor != 1) {
        return keys_fault(k, "rope.scaling.attn_factor", "is %g, which only yarn and longrope have",
                          attn_factor);
    }
    return 0;
}

/* One window for all layers, unless a pattern says which: a number n (every n-th layer sees everything) or a
 * truth value per layer. */
static int read_window(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    if (keys_int(k, "attention.sliding_window", 0, MAX_CONTEXT, 0, &c->sliding_window))
        return -1;
    config_window_pattern(c, 0);
    const struct meta *m = keys_find(k, "attention.sliding_window_pattern", key);
    int64_t v;
    if (!m)
        return 0;
    if (m->type != META_ARRAY && meta_int(m, 0, &v) && v >= 0 && v <= MAX_LAYERS) {
        config_window_pattern(c, (int)v);
        return 0;
    }
    if (m->n != (uint64_t)c->n_layers)
        return keys_fault(k, "attention.sliding_window_pattern", "has %" PRIu64 " values for %d layers", m->n,
                          c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        if (!meta_int(m, (uint64_t)l, &v) || v < 0 || v > 1)
            return keys_fault(k, "attention.sliding_window_pattern", "is no truth value for layer %d", l);
        c->windowed[l] = v != 0;
    }
    return 0;
}

static int read_experts(struct config *c, const struct keys *k)
{
    int gating;
    if (keys_int(k, "expert_count", 0, MAX_EXPERTS, 0, &c->n_experts))
        return -1;
    if (c->n_experts == 0)
        return 0;
    if (c->arch->tensors[TENSORS_EXPERTS] == TENSOR_REFUSED)
        return keys_fault(k, "expert_count", "is %d, but architecture '%s' has no experts", c->n_experts,
                          c->arch->name);
    return keys_int(k, "expert_used_count", 1, c->n_experts, KEYS_REQUIRED, &c->n_experts_used) ||
                   keys_int(k, "expert_feed_forward_length", 1, MAX_WIDTH, c->ffn_dim, &c->expert_ffn_dim) ||
                   keys_bool(k, "expert_weights_norm", true, &c->normalise_experts) ||
                   keys_int(k, "expert_gating_func", 1, 1, 1, &gating)
               ? -1
               : 0;
}

/* The rows of the embedding; the other places that know the number must agree. A file without tensors
 * (a vocabulary) has only those. */
static int read_vocab_size(struct config *c, const struct keys *k)
{
    const struct tensor *embd = weights_find(k->w, "token_embd.weight");
    const struct meta *tokens = weights_meta_find(k->w, "tokenizer.ggml.tokens");
    int64_t n_tokens = tokens && tokens->n <= MAX_VOCAB ? (int64_t)tokens->n : 0;
    char key[KEY_MAX];
    if (keys_int(k, "vocab_size", 1, MAX_VOCAB, n_tokens, &c->vocab_size))
        return -1;
    if (embd) {
        int64_t rows = embd->dims[1];
        if (rows < 1 || rows > MAX_VOCAB)
            return err_set(k->err, k->errlen, "%s: tensor 'token_embd.weight' has %" PRId64 " rows",
                           weights_path(k->w), rows);
        if (keys_find(k, "vocab_size", key) && c->vocab_size != rows)
            return keys_fault(k, "vocab_size", "is %d, but tensor 'token_embd.weight' has %" PRId64 " rows",
                              c->vocab_size, rows);
        if (tokens && tokens->n > (uint64_t)rows)
            return err_set(k->err, k->errlen,
                           "%s: key 'tokenizer.ggml.tokens' has %" PRIu64
                           " tokens, but tensor 'token_embd.weight' has %" PRId64 " rows",
                           weights_path(k->w), tokens->n, rows);
        c->vocab_size = (int)rows;
    }
    return c->vocab_size < 1 ? keys_missing(k, "vocab_size") : 0;
}

int config_gguf(struct config *c, const struct keys *k)
{
    int value_dim;
    double eps, scale, attention_cap, logit_cap;
    if (keys_int(k, "block_count", 1, MAX_LAYERS, KEYS_REQUIRED, &c->n_layers) ||
        keys_int(k, "context_length", 1, MAX_CONTEXT, KEYS_REQUIRED, &c->max_seq_len) ||
        keys_int(k, "embedding_length", 1, MAX_WIDTH, KEYS_REQUIRED, &c->dim) ||
        keys_int(k, "feed_forward_length", 1, MAX_WIDTH, KEYS_REQUIRED, &c->ffn_dim) ||
        keys_int(k, "attention.head_count", 1, MAX_HEADS, KEYS_REQUIRED, &c->n_heads) ||
        keys_int(k, "attention.head_count_kv", 1, c->n_heads, c->n_heads, &c->n_kv_heads))
        return -1;
    /* Without a size a head is its share of the width; 0 is refused with all sizes at hand. */
    int64_t share = c->dim % c->n_heads == 0 ? c->dim / c->n_heads : 0;
    if (keys_int(k, "attention.key_length", 2, MAX_HEAD_DIM, share, &c->head_dim) ||
        keys_int(k, "attention.value_length", c->head_dim, c->head_dim, c->head_dim, &value_dim) ||
        keys_float(k,
                   c->arch->norm == NORM_LAYER ? "attention.layer_norm_epsilon"
                                               : "attention.layer_norm_rms_epsilon",
                   1e-30, 0.1, NAN, &eps) ||
        keys_float(k, "attention.scale", 0, 1e3, 0, &scale) ||
        keys_float(k, "attn_logit_softcapping", 0, 1e6, 0, &attention_cap) ||
        keys_float(k, "final_logit_softcapping", 0, 1e6, 0, &logit_cap))
        return -1;
    c->norm_eps = (float)eps;
    c->attention_scale = (float)scale;
    c->attention_softcap = (float)attention_cap;
    c->logit_softcap = (float)logit_cap;
    c->tied_embeddings = !weights_find(k->w, "output.weight");
    if (read_rope(c, k) || read_window(c, k) || read_experts(c, k) || read_vocab_size(c, k))
        return -1;
    return refuse_unsupported(k);
}
