/* Operators on rows and single elements that depend on nothing else. */
#include "kernels/cpu.h"

/* This thread's part of (n_rows, n) elements: whole cache lines, so that threads never write to the same
 * one where rows are whole lines. */
struct share {
    int64_t at, end; /* lines */
    int64_t row_lines, n;
};

/* A part of one row. */
struct piece {
    int64_t row, begin, end;
};

enum { LINE = 16 };

static struct share share_of(const struct worker *w, int64_t n_rows, int64_t n)
{
    struct share s = {.row_lines = (n + LINE - 1) / LINE, .n = n};
    int64_t lines = n_rows * s.row_lines;
    s.at = team_part(w, w->id, lines);
    s.end = team_part(w, w->id + 1, lines);
    return s;
}

static bool share_next(struct share *s, struct piece *p)
{
    if (s->at >= s->end)
        return false;
    p->row = s->at / s->row_lines;
    int64_t first = p->row * s->row_lines, last = first + s->row_lines;
    p->begin = (s->at - first) * LINE;
    s->at = last < s->end ? last : s->end;
    p->end = (s->at - first) * LINE;
    p->end = p->end < s->n ? p->end : s->n;
    return true;
}

void cpu_norm(struct worker *w, const struct norm_args *a, const struct cpu_kernels *k)
{
    for (int64_t i = team_part(w, w->id, a->n_rows); i < team_part(w, w->id + 1, a->n_rows); i++)
        norm_one_row(a, k, i, a->dst + i * a->dim);
    team_barrier(w);
}

void cpu_gate(struct worker *w, const struct gate_args *a, const struct cpu_kernels *k)
{
    struct share s = share_of(w, 1, a->n);
    for (struct piece p; share_next(&s, &p);)
        gate_piece(a, k, p.begin, p.end);
    team_barrier(w);
}

void cpu_scale(struct worker *w, float *dst, const float *src, int64_t n, float by,
               const struct cpu_kernels *k)
{
    struct share s = share_of(w, 1, n);
    for (struct piece p; share_next(&s, &p);)
        k->scale(dst + p.begin, src + p.begin, p.end - p.begin, by);
    team_barrier(w);
}

void cpu_softcap(struct worker *w, float *x, int64_t n, float cap, const struct cpu_kernels *k)
{
    struct share s = share_of(w, 1, n);
    for (struct piece p; share_next(&s, &p);)
        k->softcap(x + p.begin, p.end - p.begin, cap);
    team_barrier(w);
}

void cpu_add(struct worker *w, float *dst, const float *src, int64_t n, const struct cpu_kernels *k)
{
    struct share s = share_of(w, 1, n);
    for (struct piece p; share_next(&s, &p);)
        k->add(dst + p.begin, src + p.begin, p.end - p.begin);
    team_barrier(w);
}

void cpu_permute(struct worker *w, float *dst, const float *src, int n, int dim, const int32_t *order)
{
    struct share s = share_of(w, n, dim);
    for (struct piece p; share_next(&s, &p);)
        for (int64_t i = p.begin; i < p.end; i++)
            dst[p.row * dim + i] = src[p.row * dim + order[i]];
    team_barrier(w);
}

void cpu_combine(struct worker *w, const struct combine_args *a, const struct cpu_kernels *k)
{
    struct share s = share_of(w, a->n_tokens, a->dim);
    for (struct piece p; share_next(&s, &p);)
        k->combine(a, p.row, p.begin, p.end);
    team_barrier(w);
}
