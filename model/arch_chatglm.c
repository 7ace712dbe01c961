/* The ChatGLM family (Zeng et al. 2022, arXiv:2210.02414; GLM team 2024, arXiv:2406.12793). ChatGLM-6B is a
 * prefix language model with two positions per token, LayerNorm, and a residual stream that goes on from the
 * norm's result; ChatGLM2, ChatGLM3 and GLM-4 are LLaMA with RoPE on half of each head. */
#include "model/naming.h"

#include "quant/err.h"

#include <math.h>
#include <string.h>

/* A P-Tuning prefix, under a key of ours. */
static int chatglm_gguf(struct config *c, const struct keys *k)
{
    return keys_int(k, "prefix_length", 0, MAX_VIRTUAL, 0, &c->n_virtual);
}

/* ---- ChatGLM-6B --------------------------------------------------------------------------------- */

static int chatglm1_ids(struct config *c, const struct keys *k)
{
    int ids[3];
    if (keys_int(k, "bos_token_id", 0, MAX_VOCAB, 130004, &ids[0]) ||
        keys_int(k, "gmask_token_id", 0, MAX_VOCAB, 130001, &ids[1]) ||
        keys_int(k, "mask_token_id", 0, MAX_VOCAB, 130000, &ids[2]))
        return -1;
    c->bos_id = ids[0];
    c->gmask_id = ids[1];
    c->mask_id = ids[2];
    /* DeepNorm's α (arXiv:2203.00555), √(2 · layers). The published code never tells its blocks how many
     * layers there are: they count 28, the number of ChatGLM-6B, whatever config.json says. */
    c->residual_scale = sqrtf(2.0f * 28.0f);
    return 0;
}

static int chatglm1_hf(struct config *c, const struct keys *k)
{
    double eps;
    bool two;
    if (keys_int(k, "num_layers", 1, MAX_LAYERS, KEYS_REQUIRED, &c->n_layers) ||
        keys_int(k, "max_sequence_length", 1, MAX_CONTEXT, 2048, &c->max_seq_len) ||
        keys_int(k, "hidden_size", 1, MAX_WIDTH, KEYS_REQUIRED, &c->dim) ||
        keys_int(k, "inner_hidden_size", 1, MAX_WIDTH, KEYS_REQUIRED, &c->ffn_dim) ||
        keys_int(k, "num_attention_heads", 1, MAX_HEADS, KEYS_REQUIRED, &c->n_heads) ||
        keys_int(k, "vocab_size", 1, MAX_VOCAB, KEYS_REQUIRED, &c->vocab_size) ||
        keys_float(k, "layernorm_epsilon", 1e-30, 0.1, 1e-5, &eps) ||
        keys_bool(k, "position_encoding_2d", true, &two))
        return -1;
    if (!two)
        return keys_fault(k, "position_encoding_2d", "is false, which is not supported");
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->rotary_dim = c->dim % c->n_heads ? 0 : c->dim / c->n_heads;
    c->norm_eps = (float)eps;
    c->rope.theta = 10000;
    c->tied_embeddings = !config_hf_has_matrix(k->w, "lm_head");
    return chatglm1_ids(c, k) || keys_int(k, "pre_seq_len", 0, MAX_VIRTUAL, 0, &c->n_virtual) ? -1 : 0;
}

static int chatglm1_gguf(struct config *c, const struct keys *k)
{
    return chatglm1_ids(c, k) || chatglm_gguf(c, k) ? -1 : 0;
}

/* ---- ChatGLM2, ChatGLM3, GLM-4 ------------------------------------------------------------------ */

/* What would change the result and no published model has. */
static int refuse_variants(const struct keys *k)
{
    static const struct {
        const char *name;
        bool usual;
    } flags[] = {{"rmsnorm", true},
                 {"post_layer_norm", true},
                 {"apply_residual_connection_post_layernorm", false},
                 {"add_bias_linear", false},
                 {"original_rope", true}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool v;
        if (keys_bool(k, flags[i].name, flags[i].usual, &v))
            return -1;
        if (v != flags[i].usual)
            return keys_fault(k, flags[i].name, "is %s, which is not supported", v ? "true" : "false");
    }
    return 0;
}

static bool contains(struct wstr s, const char *what)
{
    return s.s && memmem(s.s, s.len, what, strlen(what));
}

/* The 32K variants: ChatGLM2's code divides positions by rope_ratio, ChatGLM3's and GLM-4's multiply the
 * base by it, under the same key. Only the model's name tells them apart. */
static int read_ratio(struct config *c, const struct keys *k)
{
    double ratio;
    struct wstr name, path = {weights_path(k->w), strlen(weights_path(k->w))};
    if (keys_float(k, "rope_theta", 1, 1e15, 10000, &c->rope.theta) ||
        keys_float(k, "rope_ratio", 1e-3, 1e6, 1, &ratio) || keys_string(k, "_name_or_path", &name))
        return -1;
    if (ratio != 1 && (contains(name, "chatglm2") || (!name.s && contains(path, "chatglm2")))) {
        c->rope.scaling = ROPE_SCALING_LINEAR;
        c->rope.factor = ratio;
    } else {
        c->rope.theta *= ratio;
    }
    return 0;
}

static int chatglm_hf(struct config *c, const struct keys *k)
{
    double eps;
    bool grouped;
    int groups;
    if (keys_int(k, "num_layers", 1, MAX_LAYERS, KEYS_REQUIRED, &c->n_layers) ||
        keys_int(k, "seq_length", 1, MAX_CONTEXT, 2048, &c->max_seq_len) ||
        keys_int(k, "hidden_size", 1, MAX_WIDTH, KEYS_REQUIRED, &c->dim) ||
        keys_int(k, "ffn_hidden_size", 1, MAX_WIDTH, KEYS_REQUIRED, &c->ffn_dim) ||
        keys_int(k, "num_attention_heads", 1, MAX_HEADS, KEYS_REQUIRED, &c->n_heads) ||
        keys_bool(k, "multi_query_attention", false, &grouped) ||
        keys_int(k, "multi_query_group_num", 1, c->n_heads, 1, &groups) ||
        keys_int(k, "padded_vocab_size", 1, MAX_VOCAB, KEYS_REQUIRED, &c->vocab_size) ||
        keys_int(k, "kv_channels", 2, MAX_HEAD_DIM, 128, &c->head_dim) ||
        keys_float(k, "layernorm_epsilon", 1e-30, 0.1, 1e-5, &eps) || refuse_variants(k) || read_ratio(c, k))
        return -1;
    c->n_kv_heads = grouped ? groups : c->n_heads;
    c->rotary_dim = c->head_dim / 2;
    c->norm_eps = (float)eps;
    bool tied;
    if (keys_bool(k, "tie_word_embeddings", false, &tied) ||
        keys_int(k, "pre_seq_len", 0, MAX_VIRTUAL, 0, &c->n_virtual))
        return -1;
    c->tied_embeddings = tied || !config_hf_has_matrix(k->w, "transformer.output_layer");
    return 0;
}

/* GlmForCausalLM and Glm4ForCausalLM of the transformers library */
static int glm_hf(struct config *c, const struct keys *k)
{
    double partial;
    if (keys_float(k, "partial_rotary_factor", 0, 1, 0.5, &partial) ||
        keys_float(k, "rope_parameters.partial_rotary_factor", 0, 1, partial, &partial))
        return -1;
    c->rotary_dim = (int)(c->head_dim * partial);
    return 0;
}

const struct arch arch_chatglm1 = {
    .name = "chatglm1",
    .hf_types = {"chatglm"},
    .hf_key = "inner_hidden_size",
    .gguf_names = &gguf_names,
    .hf_names = &hf_names_chatglm1,
    .gguf_config = chatglm1_gguf,
    .hf_read = chatglm1_hf,
    .rope_pairing = ROPE_HALF,
    .rope_sections = 2,
    .act = ACT_GELU_TANH,
    .norm = NORM_LAYER,
    .normed_residual = true,
    .prefix_lm = true,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QKV_BIAS] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT_BIAS] = TENSOR_REQUIRED,
            [TENSORS_FFN_BIAS] = TENSOR_REQUIRED,
            [TENSORS_NORM_BIAS] = TENSOR_REQUIRED,
            [TENSORS_PREFIX] = TENSOR_OPTIONAL,
        },
};

const struct arch arch_chatglm = {
    .name = "chatglm",
    .hf_types = {"chatglm", "chatglm4"},
    .gguf_names = &gguf_names_fused,
    .hf_names = &hf_names_chatglm2,
    .gguf_config = chatglm_gguf,
    .hf_read = chatglm_hf,
    .rope_pairing = ROPE_ADJACENT,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
            [TENSORS_PREFIX] = TENSOR_OPTIONAL,
        },
};

/* GLM-4-9B as the transformers library names it; its GGUF is that of arch_chatglm. */
const struct arch arch_glm = {
    .name = "chatglm",
    .hf_types = {"glm"},
    .gguf_names = &gguf_names_fused,
    .hf_names = &hf_names,
    .hf_config = glm_hf,
    .rope_pairing = ROPE_ADJACENT,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL,
        },
};

/* GLM-4-0414: norms of what attention and feed-forward add */
const struct arch arch_glm4 = {
    .name = "glm4",
    .hf_types = {"glm4"},
    .gguf_names = &gguf_names_fused_ffn,
    .hf_names = &hf_names_glm4,
    .hf_config = glm_hf,
    .rope_pairing = ROPE_ADJACENT,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_POST_NORM] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL,
        },
};
