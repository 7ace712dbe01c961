/* Operators on rows and single elements. */
#include "kernels/cuda/rows.cuh"

enum { THREADS = 256, SHARED_ROW = 12288 /* floats of a row that are kept in shared memory */ };

/* ---- Norms ------------------------------------------------------------------------------------------ */

/* A block of threads takes one row. It may be normed in place: all of it is read before any is written. */
__global__ void norm_rows(struct norm_args a, struct act_block *act)
{
    begin_kernel();
    SHARED_MEMORY(memory);
    float *part = (float *)(void *)memory, *kept = part + 16;
    const int64_t row = blockIdx.x;
    const float *src = a.src + row * a.dim;
    if (a.dim <= SHARED_ROW) {
        for (int i = (int)threadIdx.x; i < a.dim; i += (int)blockDim.x)
            kept[i] = src[i];
        sync_block();
        src = kept;
    }
    const struct norm_sums s = sum_row(src, a.dim, a.eps, a.kind, part);
    float *dst = a.dst + row * a.dim;
    const int step = 4 * (int)blockDim.x;
    for (int base = 0; base < a.dim; base += step) {
        const int i = base + 4 * (int)threadIdx.x;
        float x[4] = {0, 0, 0, 0};
        for (int k = 0; k < 4; k++)
            if (i + k < a.dim) {
                x[k] = norm_element(s, src[i + k], a.weight, a.bias, i + k, a.kind);
                dst[i + k] = x[k];
            }
        if (act)
            quantise_block(i < a.dim ? act + (row * a.dim + i) / ACT_LEN : NULL, x,
                           (int)threadIdx.x % ACT_LANES);
    }
}

void cuda_norm_into(const struct norm_args *a, struct act_block *act)
{
    const int threads = a->dim <= 256 ? 64 : a->dim <= 1024 ? 128 : THREADS;
    const size_t shared = sizeof(float) * (size_t)(16 + (a->dim <= SHARED_ROW ? a->dim : 0));
    launch(norm_rows, dim3((unsigned)a->n_rows), threads, shared, *a, act);
}

void cuda_norm(struct worker *w, const struct norm_args *a)
{
    (void)w;
    cuda_norm_into(a, NULL);
}

/* ---- Gates and activations -------------------------------------------------------------------------- */

/* Four elements a thread, so that eight threads have a block of activations. */
__global__ void gate_elements(float *dst, const float *gate, const float *up, int64_t n, int kind, struct act_block *act)
{
    begin_kernel();
    const int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    float x[4] = {0, 0, 0, 0};
    for (int k = 0; k < 4; k++)
        if (i + k < n) {
            x[k] = apply_act((enum act)kind, gate[i + k]);
            if (up)
                x[k] = x[k] * up[i + k];
            dst[i + k] = x[k];
        }
    if (act)
        quantise_block(i < n ? act + i / ACT_LEN : NULL, x, (int)threadIdx.x % ACT_LANES);
}

void cuda_gate_into(const struct gate_args *a, struct act_block *act)
{
    if (a->n > 0)
        launch(gate_elements, dim3(blocks_for(a->n, 4 * THREADS)), THREADS, 0, a->dst, a->gate, a->up, a->n, (int)a->act, act);
}

void cuda_gate(struct worker *w, const struct gate_args *a)
{
    (void)w;
    cuda_gate_into(a, NULL);
}

__global__ void quantise_elements(struct act_block *act, const float *src, int64_t n)
{
    begin_kernel();
    const int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    float x[4] = {0, 0, 0, 0};
    if (i < n) {
        const float4_ v = *(const float4_ *)(const void *)(src + i);
        for (int k = 0; k < 4; k++)
            x[k] = v.v[k];
    }
    quantise_block(i < n ? act + i / ACT_LEN : NULL, x, (int)threadIdx.x % ACT_LANES);
}

void cuda_act_quantise(struct act_block *dst, const float *x, int64_t n_rows, int64_t cols)
{
    launch(quantise_elements, dim3(blocks_for(n_rows * cols, 4 * THREADS)), THREADS, 0, dst, x, n_rows * cols);
}

/* ---- Single elements --------------------------------------------------------------------------------- */

__global__ void scale_elements(float *dst, const float *src, int64_t n, float s)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = s * src[i];
}

void cuda_scale(struct worker *w, float *dst, const float *src, int64_t n, float s)
{
    (void)w;
    launch(scale_elements, dim3(blocks_for(n, THREADS)), THREADS, 0, dst, src, n, s);
}

__global__ void softcap_elements(float *x, int64_t n, float cap)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] = mathf_softcap(x[i], cap);
}

void cuda_softcap(struct worker *w, float *x, int64_t n, float cap)
{
    (void)w;
    launch(softcap_elements, dim3(blocks_for(n, THREADS)), THREADS, 0, x, n, cap);
}

__global__ void add_elements(float *dst, const float *src, int64_t n)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] += src[i];
}

void cuda_add(struct worker *w, float *dst, const float *src, int64_t n)
{
    (void)w;
    launch(add_elements, dim3(blocks_for(n, THREADS)), THREADS, 0, dst, src, n);
}

cudaError_t cuda_compiled_for(int *capability)
{
    struct cudaFuncAttributes a;
    const cudaError_t e = cudaFuncGetAttributes(&a, add_elements);
    *capability = e == cudaSuccess ? a.ptxVersion : 0;
    return e;
}

__global__ void permute_elements(float *dst, const float *src, int64_t n, int dim, const int32_t *order)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = src[i / dim * dim + order[i % dim]];
}

void cuda_permute(struct worker *w, float *dst, const float *src, int n, int dim, const int32_t *order)
{
    (void)w;
    launch(permute_elements, dim3(blocks_for((int64_t)n * dim, THREADS)), THREADS, 0, dst, src, (int64_t)n * dim, dim,
           order);
}

__global__ void gather_rows(float *dst, const float *src, const int32_t *index, int64_t n, int dim)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        dst[i] = src[index[i / dim] * (int64_t)dim + i % dim];
}

void cuda_gather(struct worker *w, float *dst, const float *src, const int32_t *index, int n, int dim)
{
    (void)w;
    if (!cuda_is_device(index))
        index = (const int32_t *)cuda_staged(index, (size_t)n * sizeof *index);
    launch(gather_rows, dim3(blocks_for((int64_t)n * dim, THREADS)), THREADS, 0, dst, src, index, (int64_t)n * dim, dim);
}

/* ---- Mixture of experts ------------------------------------------------------------------------------ */

/* combine_args and route_args without gaps. */
struct device_combine {
    float *dst;
    const float *src, *weight;
    const int32_t *row;
    int n_tokens, n_used, dim, add;
};

struct device_route {
    const float *logits;
    float *weight;
    int32_t *first, *token, *row, *scratch;
    int n_tokens, n_experts, n_used, normalise;
};

__global__ void combine_rows(struct device_combine a)
{
    begin_kernel();
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (int64_t)a.n_tokens * a.dim)
        return;
    const int64_t token = i / a.dim, col = i % a.dim;
    float sum = 0;
    for (int slot = 0; slot < a.n_used; slot++)
        sum = fmaf(a.weight[token * a.n_used + slot], a.src[a.row[token * a.n_used + slot] * (int64_t)a.dim + col],
                   sum);
    a.dst[i] = a.add ? a.dst[i] + sum : sum;
}

void cuda_combine(struct worker *w, const struct combine_args *a)
{
    (void)w;
    const struct device_combine c = {a->dst, a->src, a->weight, a->row, a->n_tokens, a->n_used, a->dim, a->add};
    launch(combine_rows, dim3(blocks_for((int64_t)a->n_tokens * a->dim, THREADS)), THREADS, 0, c);
}

/* Whether expert i is chosen before expert j: falling logits, NaN last, of equals the lower one first. */
DEVICE bool before(const float *logits, int i, int j)
{
    const float a = logits[i], b = logits[j];
    if ((a != a) != (b != b))
        return b != b;
    return a > b || (!(a < b) && i < j);
}

/* One thread a token: routers are small. */
__global__ void route_tokens(struct device_route a)
{
    begin_kernel();
    const int64_t token = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= a.n_tokens)
        return;
    const float *logits = a.logits + token * a.n_experts;
    int32_t *expert = a.scratch + token * a.n_used;
    float *weight = a.weight + token * a.n_used, part[16], chosen[16];
    for (int slot = 0, last = -1; slot < a.n_used; slot++) {
        int best = -1;
        for (int i = 0; i < a.n_experts; i++)
            if (i != last && (last < 0 || before(logits, last, i)) && (best < 0 || before(logits, i, best)))
                best = i;
        expert[slot] = last = best;
    }
    const float max = logits[expert[0]];
    for (int j = 0; j < 16; j++) {
        part[j] = chosen[j] = 0;
        for (int i = j; i < a.n_experts; i += 16)
            part[j] += mathf_exp(logits[i] - max);
    }
    const float sum = mathf_sum16(part);
    for (int j = 0; j < 16; j++)
        for (int slot = j; slot < a.n_used; slot += 16) {
            weight[slot] = mathf_exp(logits[expert[slot]] - max) / sum;
            chosen[j] += weight[slot];
        }
    const float total = mathf_sum16(chosen);
    for (int slot = 0; slot < a.n_used && a.normalise; slot++)
        weight[slot] /= total;
}

/* Counting sort by expert: one block, its threads take experts in turn. */
__global__ void route_groups(struct device_route a)
{
    begin_kernel();
    const int64_t n = (int64_t)a.n_tokens * a.n_used;
    for (int e = (int)threadIdx.x; e < a.n_experts; e += (int)blockDim.x) {
        int32_t at = 0;
        for (int64_t i = 0; i < n; i++)
            at += a.scratch[i] < e;
        a.first[e] = at;
        for (int64_t i = 0; i < n; i++)
            if (a.scratch[i] == e) {
                a.row[i] = at;
                a.token[at++] = (int32_t)(i / a.n_used);
            }
    }
    if (threadIdx.x == 0)
        a.first[a.n_experts] = (int32_t)n;
}

void cuda_route(struct worker *w, const struct route_args *a)
{
    (void)w;
    const struct device_route r = {a->logits, a->weight,   a->first,     a->token,  a->row,
                                   a->scratch, a->n_tokens, a->n_experts, a->n_used, a->normalise};
    launch(route_tokens, dim3(blocks_for(a->n_tokens, 64)), 64, 0, r);
    launch(route_groups, dim3(1), a->n_experts < THREADS ? (a->n_experts + WARP - 1) / WARP * WARP : THREADS, 0, r);
}
