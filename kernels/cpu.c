/* The table of kernels of each CPU level: the scalar one is complete, faster levels overwrite what they
 * have. */
#include "kernels/cpu.h"

#include <pthread.h>

static struct cpu_kernels tables[ISA_COUNT];

static void fill_scalar(struct cpu_kernels *k)
{
    k->norm_row = norm_row_scalar;
    k->gate[ACT_SILU] = gate_silu_scalar;
    k->rope_row[ROPE_ADJACENT] = rope_adjacent_scalar;
    k->rope_row[ROPE_HALF] = rope_half_scalar;
    k->f16_row = f16_row_scalar;
    k->attention_scores[QTYPE_F32] = attention_scores_f32_scalar;
    k->attention_scores[QTYPE_F16] = attention_scores_f16_scalar;
    k->attention_scores[QTYPE_Q8_0] = attention_scores_q8_0_scalar;
    k->attention_scores[QTYPE_Q4_0] = attention_scores_q4_0_scalar;
    k->attention_softmax = attention_softmax_scalar;
    k->attention_values[QTYPE_F32] = attention_values_f32_scalar;
    k->attention_values[QTYPE_F16] = attention_values_f16_scalar;
    k->attention_values[QTYPE_Q8_0] = attention_values_q8_0_scalar;
    k->attention_values[QTYPE_Q4_0] = attention_values_q4_0_scalar;
    k->attention_merge = attention_merge_scalar;
    k->attention_finish = attention_finish_scalar;
}

static void fill_avx2(struct cpu_kernels *k)
{
    k->norm_row = norm_row_avx2;
    k->gate[ACT_SILU] = gate_silu_avx2;
    k->rope_row[ROPE_ADJACENT] = rope_adjacent_avx2;
    k->rope_row[ROPE_HALF] = rope_half_avx2;
    k->f16_row = f16_row_avx2;
    k->attention_scores[QTYPE_F32] = attention_scores_f32_avx2;
    k->attention_scores[QTYPE_F16] = attention_scores_f16_avx2;
    k->attention_scores[QTYPE_Q8_0] = attention_scores_q8_0_avx2;
    k->attention_scores[QTYPE_Q4_0] = attention_scores_q4_0_avx2;
    k->attention_softmax = attention_softmax_avx2;
    k->attention_values[QTYPE_F32] = attention_values_f32_avx2;
    k->attention_values[QTYPE_F16] = attention_values_f16_avx2;
    k->attention_values[QTYPE_Q8_0] = attention_values_q8_0_avx2;
    k->attention_values[QTYPE_Q4_0] = attention_values_q4_0_avx2;
    k->attention_merge = attention_merge_avx2;
    k->attention_finish = attention_finish_avx2;
}

static void fill_avx512(struct cpu_kernels *k)
{
    k->attention_scores[QTYPE_F32] = attention_scores_f32_avx512;
    k->attention_scores[QTYPE_F16] = attention_scores_f16_avx512;
    k->attention_softmax = attention_softmax_avx512;
    k->attention_values[QTYPE_F32] = attention_values_f32_avx512;
    k->attention_values[QTYPE_F16] = attention_values_f16_avx512;
    k->attention_values[QTYPE_Q8_0] = attention_values_q8_0_avx512;
    k->attention_values[QTYPE_Q4_0] = attention_values_q4_0_avx512;
    k->attention_merge = attention_merge_avx512;
    k->attention_finish = attention_finish_avx512;
}

static void fill(void)
{
    for (int isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        struct cpu_kernels *k = &tables[isa];
        k->isa = (enum isa)isa;
        fill_scalar(k);
        if (isa >= ISA_AVX2)
            fill_avx2(k);
        if (isa >= ISA_AVX512)
            fill_avx512(k);
    }
}

const struct cpu_kernels *cpu_kernels(enum isa isa)
{
    /* not C11's call_once, which ThreadSanitizer does not know to synchronise */
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, fill);
    return &tables[isa];
}
