/* The table of kernels of each CPU level: the fastest that it runs. */
#include "kernels/cpu.h"

/* rows, bytes and floats name the levels whose kernels of rows, of attention over bytes and of attention over
 * floats are taken. */
#define KERNELS(level, rows, bytes, floats)                                                   \
    [level] = {                                                                               \
        .isa = level,                                                                         \
        .norm_row = {[NORM_RMS] = norm_rms_##rows, [NORM_LAYER] = norm_layer_##rows},         \
        .gate = {[ACT_SILU] = gate_silu_##rows,                                               \
                 [ACT_GELU_TANH] = gate_gelu_tanh_##rows,                                     \
                 [ACT_GELU_ERF] = gate_gelu_erf_##rows,                                       \
                 [ACT_RELU] = gate_relu_##rows},                                              \
        .scale = scale_##rows,                                                                \
        .softcap = softcap_##rows,                                                            \
        .add = add_##rows,                                                                    \
        .combine = combine_##rows,                                                            \
        .rope_row = {[ROPE_ADJACENT] = rope_adjacent_##rows, [ROPE_HALF] = rope_half_##rows}, \
        .f16_row = f16_row_##rows,                                                            \
        .attention_scores = {[QTYPE_F32] = attention_scores_f32_##floats,                     \
                             [QTYPE_F16] = attention_scores_f16_##floats,                     \
                             [QTYPE_Q8_0] = attention_scores_q8_0_##bytes,                    \
                             [QTYPE_Q4_0] = attention_scores_q4_0_##bytes},                   \
        .attention_softmax = attention_softmax_##floats,                                      \
        .attention_values = {[QTYPE_F32] = attention_values_f32_##floats,                     \
                             [QTYPE_F16] = attention_values_f16_##floats,                     \
                             [QTYPE_Q8_0] = attention_values_q8_0_##floats,                   \
                             [QTYPE_Q4_0] = attention_values_q4_0_##floats},                  \
        .attention_merge = attention_merge_##floats,                                          \
        .attention_finish = attention_finish_##floats,                                        \
    }

static const struct cpu_kernels tables[ISA_COUNT] = {
    KERNELS(ISA_SCALAR, scalar, scalar, scalar), KERNELS(ISA_AVX2, avx2, avx2, avx2),
    KERNELS(ISA_AVXVNNI, avx2, avxvnni, avx2),   KERNELS(ISA_AVX512, avx2, avx2, avx512),
    KERNELS(ISA_VNNI, avx2, vnni, avx512),       KERNELS(ISA_AMX, avx2, vnni, avx512),
};

const struct cpu_kernels *cpu_kernels(enum isa isa)
{
    return &tables[isa];
}
