/* The product's driver: makes the input once, then starts the kernel for each kind of weights. */
#include "kernels/cuda/linear.cuh"

bool cuda_linear_few_blocks(const struct linear_work *a);
bool cuda_linear_few_super(const struct linear_work *a);
bool cuda_linear_few_grids(const struct linear_work *a);

size_t cuda_scratch_bytes(int n_tokens, int64_t cols)
{
    return (size_t)n_tokens * (size_t)((cols + ACT_LEN - 1) / ACT_LEN) * sizeof(struct act_block);
}

/* How weights are multiplied, which decides what they need of the input. */
enum path { PATH_FLOAT, PATH_INT8, PATH_HALF };

static enum path path_of(const struct linear_args *a, const struct packed *w)
{
    if (a->compute == COMPUTE_FAST && !cuda_types[w->type].x_is_f32)
        return PATH_INT8;
    return a->compute == COMPUTE_FAST && !cuda.exact && cuda_half_takes(w, a->n_tokens) ? PATH_HALF : PATH_FLOAT;
}

enum { ADD_THREADS = 256 };

/* Sums of splits, in the order of the columns, whichever block was done first. */
__global__ void __launch_bounds__(ADD_THREADS) add_splits(struct linear_work a)
{
    begin_kernel();
    const int64_t n_rows = rows_of(a), n = n_rows * a.n_tokens, i = (int64_t)blockIdx.x * ADD_THREADS + threadIdx.x;
    if (i >= n)
        return;
    float y = a.partial[i];
    for (int64_t s = 1; s < a.n_splits; s++)
        y += a.partial[s * n + i];
    int64_t row = i % n_rows;
    int part = 0;
    while (row >= a.part[part].w.rows)
        row -= a.part[part++].w.rows;
    store_sum(a.part[part], i / n_rows, row, y);
}

static void add_all_splits(const struct linear_work *a)
{
    launch(add_splits, dim3(blocks_for(rows_of(*a) * a->n_tokens, ADD_THREADS)), ADD_THREADS, 0, *a);
}

static void multiply(const struct linear_work *work, enum path path)
{
    const bool few = work->n_tokens <= FEW_TOKENS;
    if (path == PATH_HALF)
        cuda_linear_half(work);
    else if (path == PATH_INT8 && few)
        (void)(cuda_linear_few_blocks(work) || cuda_linear_few_super(work) || cuda_linear_few_grids(work));
    else if (path == PATH_INT8)
        cuda_linear_many(work);
    else if (few && work->part[0].w.is_float)
        cuda_linear_few_float(work);
    else
        cuda_linear_many_float(work);
    if (work->n_splits > 1)
        add_all_splits(work);
}

struct product {
    enum path path;
    struct linear_work work;
};

/* Parts of one type are one product. */
static int group_parts(struct product product[3], const struct linear_args *a)
{
    int n = 0;
    for (int i = 0; i < a->n_parts; i++) {
        const struct linear_part *p = &a->part[i];
        int at = 0;
        while (at < n && product[at].work.part[0].w.type != (int)p->w->type)
            at++;
        if (at == n)
            product[n++].path = path_of(a, p->w);
        struct linear_work *work = &product[at].work;
        work->part[work->n_parts++] = {device_matrix_of(p->w), p->bias, p->out, p->add, 0};
        work->n_tiles += (int)p->w->n_tiles;
    }
    return n;
}

void cuda_linear(struct worker *worker, const struct linear_args *a)
{
    (void)worker;
    const int64_t cols = a->part[0].w->cols;
    struct product product[3] = {};
    const int n = group_parts(product, a);
    struct act_block *act = NULL;
    size_t half_bytes = 0, partial_bytes = 0;
    for (int i = 0; i < n; i++) {
        struct linear_work *work = &product[i].work;
        work->n_tokens = a->n_tokens;
        work->n_splits = 1;
        if (product[i].path == PATH_INT8)
            act = (struct act_block *)a->scratch;
        if (product[i].path == PATH_HALF) {
            half_bytes = cuda_half_bytes(a->n_tokens, cols);
            work->n_splits = cuda_half_splits(work);
        } else if (product[i].path == PATH_INT8 && !cuda.exact) {
            work->n_splits = cuda_many_splits(work);
        }
        const size_t bytes = sizeof(float) * (size_t)(work->n_splits * a->n_tokens * rows_of(*work));
        partial_bytes = work->n_splits > 1 && bytes > partial_bytes ? bytes : partial_bytes;
    }
    if (a->norm)
        cuda_norm_into(a->norm, act);
    else if (a->gate)
        cuda_gate_into(a->gate, act);
    else if (act)
        cuda_act_quantise(act, a->x, a->n_tokens, cols);
    uint8_t *own = half_bytes + partial_bytes ? (uint8_t *)cuda_workspace(half_bytes + partial_bytes) : NULL;
    if (half_bytes + partial_bytes && !own)
        return;
    if (half_bytes)
        cuda_make_halves(own, a->x, a->n_tokens, cols);
    for (int i = 0; i < n; i++) {
        struct linear_work *work = &product[i].work;
        work->act = (const uint8_t *)act;
        work->x = a->x;
        work->half = own;
        work->partial = (float *)(void *)(own + half_bytes);
        work->grids = cuda_grids;
        multiply(work, product[i].path);
    }
}
