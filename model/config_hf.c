/* Hyper-parameters from a Hugging Face folder's config.json, whose names weights/ lends as "config.<name>".
 * Where a value is absent, the default is that of the transformers library's configuration classes. */
#include "model/arch.h"
#include "model/rope.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static int read_act(struct config *c, const struct keys *k, const char *name)
{
    static const struct {
        const char *name;
        enum act act;
    } acts[] = {
        {"silu", ACT_SILU},          {"swish", ACT_SILU},          {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu_new", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH}, {"gelu", ACT_GELU_ERF},
        {"relu", ACT_RELU},
    };
    struct wstr s;
    char shown[SHOWN_MAX];
    if (keys_string(k, name, &s))
        return -1;
    if (!s.s)
        return 0;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (keys_is(k, name, acts[i].name)) {
            c->act = acts[i].act;
            return 0;
        }
    return keys_fault(k, name, "is '%s', an activation that is not supported", keys_shown(s, shown));
}

/* What the configuration classes take for numbers that the file leaves out. */
struct defaults {
    const char *type;
    double theta, eps;
};

static struct defaults defaults_of(const struct keys *k)
{
    static const struct defaults all[] = {{"mixtral", 1e6, 1e-5},
                                          {"gemma3_text", 1e6, 1e-6},
                                          {"phi3", 1e4, 1e-5},
                                          {"glm", 1e4, 1.5625e-7},
                                          {"glm4", 1e4, 1.5625e-7}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (keys_is(k, "model_type", all[i].type))
            return all[i];
    return (struct defaults){NULL, 1e4, 1e-6};
}

/* ---- RoPE --------------------------------------------------------------------------------------- */

static int read_yarn(struct rope_config *r, const struct keys *s)
{
    double mscale, mscale_all, own = rope_yarn_attention(r->factor, 1);
    if (keys_float(s, "beta_fast", 0, 1e6, 32, &r->beta_fast) ||
        keys_float(s, "beta_slow", 0, 1e6, 1, &r->beta_slow) || keys_float(s, "mscale", 0, 1e3, 0, &mscale) ||
        keys_float(s, "mscale_all_dim", 0, 1e3, 0, &mscale_all))
        return -1;
    bool whole; /* the ramp's ends rounded to whole frequencies */
    if (keys_bool(s, "truncate", true, &whole))
        return -1;
    if (!whole)
        return keys_fault(s, "truncate", "is false, which is not supported");
    if (mscale != 0 && mscale_all != 0)
        own = rope_yarn_attention(r->factor, mscale) / rope_yarn_attention(r->factor, mscale_all);
    return keys_float(s, "attention_factor", 1e-3, 1e3, own, &r->attention_factor);
}

/* s: the keys of rope_scaling (or, since transformers 5, rope_parameters). */
static int read_scaling(struct config *c, const struct keys *k, const struct keys *s)
{
    static const struct {
        const char *name;
        enum rope_scaling scaling;
    } types[] = {
        {"default", ROPE_SCALING_NONE},      {"none", ROPE_SCALING_NONE},   {"linear", ROPE_SCALING_LINEAR},
        {"dynamic", ROPE_SCALING_DYNAMIC},   {"yarn", ROPE_SCALING_YARN},   {"llama3", ROPE_SCALING_LLAMA3},
        {"longrope", ROPE_SCALING_LONGROPE}, {"su", ROPE_SCALING_LONGROPE},
    };
    struct rope_config *r = &c->rope;
    struct wstr type;
    char key[KEY_MAX], shown[SHOWN_MAX];
    const char *name = keys_find(s, "rope_type", key) ? "rope_type" : "type";
    if (keys_string(s, name, &type))
        return -1;
    if (!type.s)
        return 0;
    size_t i = 0, n = sizeof types / sizeof *types;
    while (i < n && !keys_is(s, name, types[i].name))
        i++;
    if (i == n)
        return keys_fault(s, name, "is '%s', a RoPE scaling that is not supported", keys_shown(type, shown));
    r->scaling = types[i].scaling;
    if (r->scaling == ROPE_SCALING_NONE)
        return 0;

    /* The length before scaling stands beside the factor or, with Phi-3, at the top. */
    int original;
    if (keys_int(k, "original_max_position_embeddings", 1, MAX_CONTEXT, c->max_seq_len, &original) ||
        keys_int(s, "original_max_position_embeddings", 1, MAX_CONTEXT, original, &r->original_len))
        return -1;
    double stretched = (double)c->max_seq_len / r->original_len;
    if (keys_float(s, "factor", 0, 1e6, r->scaling == ROPE_SCALING_LONGROPE ? stretched : NAN, &r->factor))
        return -1;
    switch (r->scaling) {
    case ROPE_SCALING_YARN:
        return read_yarn(r, s);
    case ROPE_SCALING_LLAMA3:
        return keys_float(s, "low_freq_factor", 0, 1e6, NAN, &r->low_freq) ||
                       keys_float(s, "high_freq_factor", 0, 1e6, NAN, &r->high_freq)
                   ? -1
                   : 0;
    case ROPE_SCALING_LONGROPE: {
        double own = r->factor > 1 ? sqrt(1 + log(r->factor) / log(r->original_len)) : 1;
        return keys_float(s, "attention_factor", 1e-3, 1e3, own, &r->attention_factor);
    }
    case ROPE_SCALING_DYNAMIC: /* the original length is the one of the configuration */
        return keys_int(s, "original_max_position_embeddings", 1, MAX_CONTEXT, c->max_seq_len,
                        &r->original_len);
    default:
        return 0;
    }
}

const struct meta *config_hf_factors(const struct weights *w, const char *name)
{
    static const char *const places[] = {"config.rope_parameters", "config.rope_scaling"};
    const struct meta *m = NULL;
    for (size_t i = 0; !m && i < sizeof places / sizeof *places; i++) {
        char key[KEY_MAX];
        (void)snprintf(key, sizeof key, "%s.%s", places[i], name);
        m = weights_meta_find(w, key);
    }
    return m;
}

int config_hf_rope(struct config *c, const struct keys *k)
{
    /* transformers 5 has base and scaling in one object, Gemma 3's in one for each kind of layer. */
    static const char *const places[] = {"rope_parameters.full_attention", "rope_parameters", "rope_scaling"};
    char key[KEY_MAX], prefix[KEY_MAX];
    struct keys s = *k;
    s.prefix = prefix;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        (void)snprintf(prefix, sizeof prefix, "%s.%s", k->prefix, places[i]);
        if (keys_find(&s, "rope_type", key) || keys_find(&s, "rope_theta", key))
            break;
    }
    double partial, top;
    if (keys_float(k, "rope_theta", 1, 1e15, defaults_of(k).theta, &top) ||
        keys_float(&s, "rope_theta", 1, 1e15, top, &c->rope.theta) ||
        keys_float(k, "partial_rotary_factor", 0, 1, 1, &partial) ||
        keys_float(&s, "partial_rotary_factor", 0, 1, partial, &partial))
        return -1;
    c->rotary_dim = (int)(c->head_dim * partial);
    return read_scaling(c, k, &s);
}

/* ---- Windows ------------------------------------------------------------------------------------ */

/* Which layers are windowed: a list of kinds of layer where there is one, else by the older keys. */
static int read_window(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    bool used;
    int from;
    /* Whoever has windows that can be turned on (Qwen) has them from layer 28 on, or another. */
    bool qwen = keys_find(k, "use_sliding_window", key) != NULL;
    if (keys_int(k, "sliding_window", 0, MAX_CONTEXT, 0, &c->sliding_window) ||
        keys_bool(k, "use_sliding_window", true, &used) ||
        keys_int(k, "max_window_layers", 0, MAX_CONTEXT, qwen ? 28 : 0, &from))
        return -1;
    if (!used)
        c->sliding_window = 0;
    for (int l = 0; l < c->n_layers; l++)
        c->windowed[l] = l >= from;
    const struct meta *m = keys_find(k, "layer_types", key);
    if (!m)
        return 0;
    if (m->n != (uint64_t)c->n_layers)
        return keys_fault(k, "layer_types", "has %" PRIu64 " values for %d layers", m->n, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        static const char sliding[] = "sliding_attention", full[] = "full_attention";
        struct wstr s;
        char shown[SHOWN_MAX];
        if (!meta_str(m, (uint64_t)l, &s))
            return keys_fault(k, "layer_types", "is no list of strings");
        bool is_sliding = s.len == strlen(sliding) && memcmp(s.s, sliding, s.len) == 0;
        if (!is_sliding && (s.len != strlen(full) || memcmp(s.s, full, s.len) != 0))
            return keys_fault(k, "layer_types", "has '%s', a kind of layer that is not supported",
                              keys_shown(s, shown));
        c->windowed[l] = is_sliding;
    }
    return 0;
}

/* ---- Experts ------------------------------------------------------------------------------------ */

static int read_experts(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    int step;
    const char *count = keys_find(k, "num_experts", key) ? "num_experts" : "num_local_experts";
    if (keys_int(k, count, 0, MAX_EXPERTS, 0, &c->n_experts))
        return -1;
    if (c->n_experts == 0)
        return 0;
    if (c->arch->tensors[TENSORS_EXPERTS] == TENSOR_REFUSED)
        return keys_fault(k, count, "is %d, but architecture '%s' has no experts", c->n_experts,
                          c->arch->name);
    if (keys_int(k, "num_experts_per_tok", 1, c->n_experts, KEYS_REQUIRED, &c->n_experts_used) ||
        keys_int(k, "moe_intermediate_size", 1, MAX_WIDTH, c->ffn_dim, &c->expert_ffn_dim) ||
        keys_int(k, "decoder_sparse_step", 1, 1, 1, &step))
        return -1;
    const struct meta *dense = keys_find(k, "mlp_only_layers", key);
    if (dense && dense->n > 0)
        return keys_fault(k, "mlp_only_layers", "names layers without experts, which is not supported");
    return 0;
}

/* ---- All --------------------------------------------------------------------------------------- */

/* Rows of the embedding, under the name that the folder has for it. */
static int read_vocab_size(struct config *c, const struct keys *k)
{
    static const char *const names[] = {"vocab_size", "padded_vocab_size"};
    char key[KEY_MAX];
    const char *name = names[keys_find(k, names[1], key) != NULL];
    return keys_int(k, name, 1, MAX_VOCAB, KEYS_REQUIRED, &c->vocab_size);
}

bool config_hf_has_matrix(const struct weights *w, const char *name)
{
    static const char *const parts[] = {"weight", "qweight"};
    bool found = false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char full[KEY_MAX];
        (void)snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        found |= weights_find(w, full) != NULL;
    }
    return found;
}

int config_hf(struct config *c, const struct keys *k)
{
    double eps;
    if (keys_int(k, "num_hidden_layers", 1, MAX_LAYERS, KEYS_REQUIRED, &c->n_layers) ||
        keys_int(k, "max_position_embeddings", 1, MAX_CONTEXT, 2048, &c->max_seq_len) ||
        keys_int(k, "hidden_size", 1, MAX_WIDTH, KEYS_REQUIRED, &c->dim) ||
        keys_int(k, "intermediate_size", 1, MAX_WIDTH, KEYS_REQUIRED, &c->ffn_dim) ||
        keys_int(k, "num_attention_heads", 1, MAX_HEADS, KEYS_REQUIRED, &c->n_heads) ||
        keys_int(k, "num_key_value_heads", 1, c->n_heads, c->n_heads, &c->n_kv_heads))
        return -1;
    int64_t share = c->dim % c->n_heads == 0 ? c->dim / c->n_heads : 0;
    if (keys_int(k, "head_dim", 2, MAX_HEAD_DIM, share, &c->head_dim) ||
        keys_float(k, "rms_norm_eps", 1e-30, 0.1, defaults_of(k).eps, &eps) || read_vocab_size(c, k) ||
        read_act(c, k, "hidden_act") || config_hf_rope(c, k) || read_window(c, k) || read_experts(c, k))
        return -1;
    c->norm_eps = (float)eps;
    bool tied;
    if (keys_bool(k, "tie_word_embeddings", false, &tied))
        return -1;
    c->tied_embeddings = tied || !config_hf_has_matrix(k->w, "lm_head");
    return 0;
}
