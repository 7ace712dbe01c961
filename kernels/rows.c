/* Operators on rows that depend on nothing else: RMSNorm and the gate. */
#include "kernels/cpu.h"

void cpu_norm(struct worker *w, const struct norm_args *a, const struct cpu_kernels *k)
{
    int64_t begin = (int64_t)a->n_rows * w->id / w->n_threads;
    int64_t end = (int64_t)a->n_rows * (w->id + 1) / w->n_threads;
    for (int64_t i = begin; i < end; i++)
        k->norm_row(a->dst + i * a->dim, a->src + i * a->dim, a->weight, a->dim, a->eps);
    team_barrier(w);
}

void cpu_gate(struct worker *w, float *dst, const float *gate, const float *up, int64_t n, enum act act,
              const struct cpu_kernels *k)
{
    enum { LINE = 16 }; /* threads never write to the same cache line */
    int64_t n_lines = (n + LINE - 1) / LINE;
    int64_t begin = n_lines * w->id / w->n_threads * LINE, end = n_lines * (w->id + 1) / w->n_threads * LINE;
    end = end < n ? end : n;
    if (begin < end)
        k->gate[act](dst + begin, gate + begin, up + begin, end - begin);
    team_barrier(w);
}
