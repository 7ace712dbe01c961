/* Qwen2 and Qwen2.5 (arXiv:2407.10671): LLaMA with biases on q, k and v. Qwen3 and its mixtures of experts
 * (arXiv:2505.09388): norms of each head of q and k instead. */
#include "model/naming.h"

/* Qwen's windows are off unless they are asked for, and so is the division by the chosen experts' sum. */
static int qwen_config(struct config *c, const struct keys *k)
{
    bool windows;
    if (keys_bool(k, "use_sliding_window", false, &windows) ||
        keys_bool(k, "norm_topk_prob", false, &c->normalise_experts))
        return -1;
    if (!windows)
        c->sliding_window = 0;
    if (c->n_experts) /* their configuration class knows no max_window_layers */
        config_window_pattern(c, 0);
    return 0;
}

const struct arch arch_qwen2 = {
    .name = "qwen2",
    .hf_types = {"qwen2"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names,
    .rope_pairing = ROPE_HALF,
    .act = ACT_SILU,
    .hf_config = qwen_config,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QKV_BIAS] = TENSOR_REQUIRED,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
        },
};

const struct arch arch_qwen3 = {
    .name = "qwen3",
    .hf_types = {"qwen3"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names,
    .rope_pairing = ROPE_HALF,
    .act = ACT_SILU,
    .hf_config = qwen_config,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QK_NORM] = TENSOR_REQUIRED,
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL, /* attention_bias */
            [TENSORS_OUTPUT_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
        },
};

const struct arch arch_qwen3moe = {
    .name = "qwen3moe",
    .hf_types = {"qwen3_moe"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names,
    .rope_pairing = ROPE_HALF,
    .act = ACT_SILU,
    .hf_config = qwen_config,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_EXPERTS] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QK_NORM] = TENSOR_REQUIRED,
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL, /* attention_bias */
            [TENSORS_OUTPUT_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
        },
};
