/* Gemma 1, 2 and 3 (arXiv:2403.08295, 2408.00118, 2503.19786): norm weights are 1 + w in Hugging Face
 * files, the embedding is multiplied by the root of its width, the gate is GELU. Gemma 2 caps scores and
 * logits and alternates windowed and full layers; Gemma 3 norms q and k instead of capping, and gives its
 * windowed layers a RoPE base of their own. */
#include "model/naming.h"

#include <math.h>

/* transformers multiplies by the root as the weights' type has it: in bfloat16 that is another number. The
 * golden data and GGUF engines use float32. */
static void scale_embedding(struct config *c)
{
    c->embedding_scale = sqrtf((float)c->dim);
}

static int gemma_gguf(struct config *c, const struct keys *k)
{
    (void)k;
    scale_embedding(c);
    return 0;
}

static int gemma_hf(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    scale_embedding(c);
    c->act = ACT_GELU_TANH; /* whatever hidden_act says: the library reads hidden_activation */
    if (keys_find(k, "hidden_activation", key) && !keys_is(k, "hidden_activation", "gelu_pytorch_tanh"))
        return keys_fault(k, "hidden_activation", "is none of Gemma's");
    bool tied;
    if (keys_bool(k, "tie_word_embeddings", true, &tied))
        return -1;
    c->tied_embeddings |= tied;
    return 0;
}

static int gemma_scale(struct config *c, const struct keys *k)
{
    double scalar;
    if (keys_float(k, "query_pre_attn_scalar", 1e-3, 1e6, 256, &scalar))
        return -1;
    c->attention_scale = (float)(1 / sqrt(scalar));
    return 0;
}

static int gemma_logit_cap(struct config *c, const struct keys *k)
{
    double cap;
    if (keys_float(k, "final_logit_softcapping", 0, 1e6, 0, &cap))
        return -1;
    c->logit_softcap = (float)cap;
    return 0;
}

/* ---- Gemma 2 ------------------------------------------------------------------------------------ */

static int gemma2_gguf(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    if (!keys_find(k, "attention.sliding_window_pattern", key))
        config_window_pattern(c, 2);
    /* Gemma 2 27B's query_pre_attn_scalar is the width divided by the heads, the others' is a head's size. */
    if (c->attention_scale == 0 && c->n_layers == 46)
        c->attention_scale = (float)(1 / sqrt((double)c->dim / c->n_heads));
    return gemma_gguf(c, k);
}

static int gemma2_hf(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    double cap;
    if (gemma_hf(c, k) || gemma_scale(c, k) || gemma_logit_cap(c, k) ||
        keys_int(k, "sliding_window", 0, MAX_CONTEXT, 4096, &c->sliding_window) ||
        keys_float(k, "attn_logit_softcapping", 0, 1e6, 0, &cap))
        return -1;
    c->attention_softcap = (float)cap;
    if (!keys_find(k, "layer_types", key))
        config_window_pattern(c, 2);
    return 0;
}

/* ---- Gemma 3 ------------------------------------------------------------------------------------ */

static int gemma3_gguf(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    if (!keys_find(k, "attention.sliding_window_pattern", key))
        config_window_pattern(c, 6);
    if (c->rope_theta_windowed == 0)
        c->rope_theta_windowed = 10000;
    /* Gemma 3 27B, likewise */
    if (c->attention_scale == 0 && c->n_layers == 62)
        c->attention_scale = (float)(1 / sqrt((double)c->dim / c->n_heads));
    return gemma_gguf(c, k);
}

static int gemma3_hf(struct config *c, const struct keys *k)
{
    char key[KEY_MAX];
    int pattern;
    double local;
    if (gemma_hf(c, k) || gemma_scale(c, k) || gemma_logit_cap(c, k) ||
        keys_int(k, "sliding_window", 0, MAX_CONTEXT, 4096, &c->sliding_window) ||
        keys_int(k, "_sliding_window_pattern", 0, MAX_LAYERS, 6, &pattern) ||
        keys_int(k, "sliding_window_pattern", 0, MAX_LAYERS, pattern, &pattern) ||
        keys_float(k, "rope_local_base_freq", 1, 1e15, 10000, &local) ||
        keys_float(k, "rope_parameters.sliding_attention.rope_theta", 1, 1e15, local, &local))
        return -1;
    c->rope_theta_windowed = local;
    if (!keys_find(k, "layer_types", key))
        config_window_pattern(c, pattern);
    return 0;
}

const struct arch arch_gemma = {
    .name = "gemma",
    .hf_types = {"gemma"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names,
    .gguf_config = gemma_gguf,
    .hf_config = gemma_hf,
    .rope_pairing = ROPE_HALF,
    .act = ACT_GELU_TANH,
    .hf_norm_minus_1 = true,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
        },
};

const struct arch arch_gemma2 = {
    .name = "gemma2",
    .hf_types = {"gemma2"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names_post_norm,
    .gguf_config = gemma2_gguf,
    .hf_config = gemma2_hf,
    .rope_pairing = ROPE_HALF,
    .act = ACT_GELU_TANH,
    .hf_norm_minus_1 = true,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_POST_NORM] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
        },
};

const struct arch arch_gemma3 = {
    .name = "gemma3",
    .hf_types = {"gemma3_text"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names_post_norm,
    .gguf_config = gemma3_gguf,
    .hf_config = gemma3_hf,
    .rope_pairing = ROPE_HALF,
    .act = ACT_GELU_TANH,
    .hf_norm_minus_1 = true,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_QK_NORM] = TENSOR_REQUIRED,
            [TENSORS_POST_NORM] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
        },
};
