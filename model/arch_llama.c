/* LLaMA 1, 2, 3 (Touvron et al. 2023, arXiv:2302.13971) and what shares its GGUF name: Mistral
 * (arXiv:2310.06825), Mixtral (arXiv:2401.04088), SmolLM2, … */
#include "model/naming.h"

const struct arch arch_llama = {
    .name = "llama",
    .hf_types = {"llama", "mistral", "mixtral"},
    .gguf_names = &gguf_names,
    .hf_names = &hf_names,
    /* GGUF permutes the rows of q and k, so that the halves of a Hugging Face head are neighbours. */
    .rope_pairing = ROPE_ADJACENT,
    .hf_halves = true,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_EXPERTS] = TENSOR_OPTIONAL,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            /* attention_bias and mlp_bias of Hugging Face configurations */
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_OUTPUT_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_FFN_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_GATE_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
        },
};
