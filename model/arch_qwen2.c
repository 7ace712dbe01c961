/* Qwen2 and Qwen2.5 (arXiv:2407.10671): LLaMA with biases on q, k and v. */
#include "model/arch.h"

const struct arch arch_qwen2 = {
    .name = "qwen2",
    .rope_pairing = ROPE_HALF,
    .act = ACT_SILU,
    .tensors =
        {
            [TENSORS_CORE] = TENSOR_REQUIRED,
            [TENSORS_OUTPUT] = TENSOR_OPTIONAL,
            [TENSORS_QKV_BIAS] = TENSOR_REQUIRED,
            [TENSORS_ROPE_FREQS] = TENSOR_OPTIONAL,
        },
};
