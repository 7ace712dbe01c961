/* LLaMA 1, 2, 3 (Touvron et al. 2023, arXiv:2302.13971) and what shares its GGUF name: Mistral, SmolLM2, … */
#include "model/arch.h"

const struct arch arch_llama = {
    .name = "llama",
    /* GGUF permutes the rows of q and k, so that the halves of a Hugging Face head are neighbours. */
    .rope_pairing = ROPE_ADJACENT,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            /* attention_bias and mlp_bias of Hugging Face configurations */
            [TENSORS_QKV_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_OUTPUT_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_FFN_BIAS] = TENSOR_OPTIONAL,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
        },
};
