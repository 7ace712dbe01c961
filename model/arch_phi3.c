/* Phi-3 (arXiv:2404.14219): LLaMA with q, k, v and gate, up in one tensor each. */
#include "model/naming.h"

const struct arch arch_phi3 = {
    .name = "phi3",
    .hf_types = {"phi3"},
    .gguf_names = &gguf_names_fused,
    .hf_names = &hf_names,
    .rope_pairing = ROPE_HALF,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_FFN] = TENSOR_REQUIRED,
            [TENSORS_GATE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_ROPE_FACTORS] = TENSOR_OPTIONAL,
        },
};
