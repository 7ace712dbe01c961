/* The product's driver: makes the input once, then starts the kernel for each kind of weights. */
#include "kernels/cuda/linear.cuh"

bool cuda_linear_few_blocks(const struct linear_work *a);
bool cuda_linear_few_super(const struct linear_work *a);
bool cuda_linear_few_grids(const struct linear_work *a);

size_t cuda_scratch_bytes(int n_tokens, int64_t cols)
{
    return (size_t)n_tokens * (size_t)((cols + ACT_LEN - 1) / ACT_LEN) * sizeof(struct act_block);
}

static bool is_quantised(const struct linear_args *a, const struct packed *w)
{
    return a->compute == COMPUTE_FAST && !cuda_types[w->type].x_is_f32;
}

static void multiply(const struct linear_work *work, bool quantised)
{
    const bool few = work->n_tokens <= FEW_TOKENS;
    if (quantised && few)
        (void)(cuda_linear_few_blocks(work) || cuda_linear_few_super(work) || cuda_linear_few_grids(work));
    else if (quantised)
        cuda_linear_many(work);
    else if (few && work->part[0].w.is_float)
        cuda_linear_few_float(work);
    else
        cuda_linear_many_float(work);
}

void cuda_linear(struct worker *worker, const struct linear_args *a)
{
    (void)worker;
    const int64_t cols = a->part[0].w->cols;
    struct act_block *act = NULL;
    for (int i = 0; i < a->n_parts; i++)
        if (is_quantised(a, a->part[i].w))
            act = (struct act_block *)a->scratch;
    if (a->norm)
        cuda_norm_into(a->norm, act);
    else if (a->gate)
        cuda_gate_into(a->gate, act);
    else if (act)
        cuda_act_quantise(act, a->x, a->n_tokens, cols);
    bool done[3] = {false, false, false};
    for (int i = 0; i < a->n_parts; i++) {
        struct linear_work work = {};
        work.n_tokens = a->n_tokens;
        work.act = (const uint8_t *)act;
        work.x = a->x;
        work.grids = cuda_grids;
        for (int k = i; k < a->n_parts && !done[i]; k++)
            if (!done[k] && a->part[k].w->type == a->part[i].w->type) {
                const struct linear_part *p = &a->part[k];
                work.part[work.n_parts++] = {device_matrix_of(p->w), p->bias, p->out, p->add, 0};
                work.n_tiles += (int)p->w->n_tiles;
                done[k] = k != i;
            }
        if (work.n_parts)
            multiply(&work, is_quantised(a, a->part[i].w));
        done[i] = true;
    }
}
