/* Operators on rows and single elements: every level and thread count against the scalar reference to the
 * last bit, and the reference against double. */
#include "kernels/cpu.h"
#include "tests/kernels/support.h"
#include "tests/test.h"

#include <float.h>

/* What an operator is called with; f says which one. */
struct job {
    const struct ops *ops;
    const struct norm_args *norm;
    const struct combine_args *combine;
    float *dst;
    const float *src, *up;
    const int32_t *order;
    int64_t n;
    int rows;
    float by;
    enum act act;
};

typedef void job_fn(struct worker *w, void *arg);

static void run_norm(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->norm(w, j->norm);
}

static void run_gate(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->gate(w, &(struct gate_args){j->dst, j->src, j->up, j->n, j->act});
}

static void run_scale(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->scale(w, j->dst, j->src, j->n, j->by);
}

static void run_softcap(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->softcap(w, j->dst, j->n, j->by);
}

static void run_add(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->add(w, j->dst, j->src, j->n);
}

static void run_permute(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->permute(w, j->dst, j->src, j->rows, (int)j->n, j->order);
}

static void run_combine(struct worker *w, void *arg)
{
    const struct job *j = arg;
    j->ops->combine(w, j->combine);
}

static void run_on(enum isa isa, int n_threads, job_fn *f, struct job job)
{
    struct team *team = team_new(n_threads);
    job.ops = ops_cpu(isa);
    team_run(team, f, &job);
    team_free(team);
}

enum { MAX_THREADS = 3 };

/* An operator from dst = start to dst = want, n elements, at every level and on every number of threads. */
static void same_everywhere(job_fn *f, struct job job, float *dst, const float *start, const float *want,
                            int64_t n)
{
    size_t bytes = (size_t)n * sizeof *dst;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int threads = 1; threads <= MAX_THREADS; threads++) {
            memcpy(dst, start, bytes);
            run_on(isa, threads, f, job);
            ck_assert_msg(first_difference(dst, want, n) < 0, "%s, %d threads, %d elements", isa_name(isa),
                          threads, (int)n);
        }
}

static float *copy_of(const float *x, int64_t n)
{
    float *y = malloc((size_t)(n + 1) * sizeof *y);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

/* ---- Norms ------------------------------------------------------------------------------------- */

static const int dims[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 576, 1536};
enum { N_DIMS = sizeof dims / sizeof dims[0], N_ROWS = 40, N_NORM_CASES = N_NORMS * 4 };

/* Largest distance from double, relative to the largest value of the row. */
static double norm_error(const struct norm_args *a, const float *x, const float *y)
{
    double mean = 0, sum = 0, worst = 0, largest = 0;
    for (int i = 0; i < a->dim && a->kind == NORM_LAYER; i++)
        mean += (double)x[i] / a->dim;
    for (int i = 0; i < a->dim; i++)
        sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    double r = 1 / sqrt(sum / a->dim + (double)a->eps);
    for (int i = 0; i < a->dim; i++) {
        double want = ((double)x[i] - mean) * r * (a->weight ? (double)a->weight[i] : 1);
        want += a->kind == NORM_LAYER && a->bias ? (double)a->bias[i] : 0;
        double error = fabs((double)y[i] - want);
        worst = error <= worst ? worst : error;
        largest = fmax(largest, fmax(1e-3, fabs(want)));
    }
    return worst / largest;
}

/* Either norm, weight and bias there or not, into another buffer and in place. */
START_TEST(norm_is_the_same_everywhere)
{
    const int dim = dims[_i % N_DIMS], c = _i / N_DIMS;
    const int64_t n = (int64_t)N_ROWS * dim;
    float *x = random_row(1, (size_t)n), *weight = random_row(2, (size_t)dim);
    float *bias = random_row(3, (size_t)dim), *start = random_row(4, (size_t)n);
    float *want = malloc((size_t)n * sizeof *want), *got = malloc((size_t)n * sizeof *got);
    memset(x, 0, (size_t)dim * sizeof *x); /* a row of zeros stays zero */
    for (int i = 0; i < dim; i++)
        x[dim + i] += 100; /* a mean much larger than the deviation */
    x[n - 1] = 1e18f;
    struct norm_args a = {want, x,     c & 1 ? weight : NULL,        c & 2 ? bias : NULL, N_ROWS,
                          dim,  1e-5f, c & 4 ? NORM_LAYER : NORM_RMS};
    run_on(ISA_SCALAR, 1, run_norm, (struct job){.norm = &a});
    for (int t = 0; t < N_ROWS; t++)
        ck_assert_double_le(norm_error(&a, x + t * dim, want + t * dim), t == 1 ? 2e-4 : 1e-6);
    a.dst = got;
    same_everywhere(run_norm, (struct job){.norm = &a}, got, start, want, n);
    a.src = got;
    same_everywhere(run_norm, (struct job){.norm = &a}, got, x, want, n);
    free(x);
    free(weight);
    free(bias);
    free(start);
    free(want);
    free(got);
}
END_TEST

/* A NaN or an Inf spoils its own row, and no other. */
START_TEST(norm_keeps_faults_visible)
{
    enum { DIM = 37 };
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int c = 0; c < 2 * N_NORMS; c++) {
            float *x = random_row(5, 3 * DIM), *w = random_row(6, DIM), y[3 * DIM];
            bool layer = c / 2 == NORM_LAYER, infinite = c % 2;
            x[DIM + 35] = infinite ? INFINITY : NAN;
            struct norm_args a = {y, x, w, w, 3, DIM, 1e-5f, layer ? NORM_LAYER : NORM_RMS};
            run_on(isa, 2, run_norm, (struct job){.norm = &a});
            for (int i = 0; i < 3 * DIM; i++)
                if (i < DIM || i >= 2 * DIM)
                    ck_assert(isfinite(y[i]));
            ck_assert(isnan(y[DIM + 35]));
            ck_assert((infinite && !layer) || isnan(y[DIM]));
            free(x);
            free(w);
        }
}
END_TEST

/* ---- Functions of one element ------------------------------------------------------------------ */

static double gate_exact(enum act act, double x)
{
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU_TANH:
        return x / (1 + exp(-2 * u));
    case ACT_GELU_ERF:
        return x * 0.5 * erfc(-x / sqrt(2));
    case ACT_RELU:
        return fmax(x, 0);
    case N_ACTS:
        break;
    }
    return NAN;
}

enum { EDGES = 18, N_VALUES = 20011 };

/* All binades, both signs, and the edges. */
static float *all_values(uint64_t seed)
{
    static const float edges[EDGES] = {0,          -0.0f,     INFINITY, -INFINITY, NAN,     88.72283f,
                                       -88.72283f, 88.72284f, 87.3365f, -87.3365f, 87.337f, -87.337f,
                                       FLT_MAX,    -FLT_MAX,  FLT_MIN,  -1e-40f,   0.625f,  -0.625f};
    float *x = malloc(N_VALUES * sizeof *x);
    for (int i = 0; i < N_VALUES; i++)
        x[i] = i < EDGES ? edges[i]
               : i % 4   ? (i % 8 < 4 ? 100 : 8) * random_uniform(&seed)
                         : ldexpf(random_uniform(&seed), i % 60 - 50);
    return x;
}

START_TEST(gate_is_the_same_everywhere)
{
    enum act act = (enum act)(_i / 2);
    float *x = all_values(8), *up = _i % 2 ? random_row(7, N_VALUES) : NULL;
    float *start = random_row(9, N_VALUES), *want = copy_of(start, N_VALUES), *got = copy_of(start, N_VALUES);
    run_on(ISA_SCALAR, 1, run_gate, (struct job){.dst = want, .src = x, .up = up, .n = N_VALUES, .act = act});
    int n_wrong = 0;
    for (int i = 0; i < N_VALUES; i++) {
        double y = gate_exact(act, (double)x[i]) * (up ? (double)up[i] : 1);
        double tail = x[i] < 0 && x[i] > -14 ? (double)(x[i] * x[i]) : 0; /* of a normal distribution */
        if (isnan(x[i]) || (x[i] == -INFINITY && act != ACT_RELU))
            n_wrong += !isnan(want[i]);
        else if (x[i] == INFINITY)
            n_wrong += !isinf(want[i]);
        else
            n_wrong += !(fabs((double)want[i] - y) <= (6 + 2 * tail) * 0x1p-23 * fabs(y) + 0x1p-120);
    }
    ck_assert_int_eq(n_wrong, 0);
    for (int n = N_VALUES; n > 0; n /= 3) {
        struct job job = {.dst = got, .src = x, .up = up, .n = n, .act = act};
        same_everywhere(run_gate, job, got, start, want, n);
        job.src = got;
        same_everywhere(run_gate, job, got, x, want, n);
    }
    free(x);
    free(up);
    free(start);
    free(want);
    free(got);
}
END_TEST

START_TEST(scale_and_add_are_the_same_everywhere)
{
    float *x = all_values(10), *y = all_values(11), want[2][N_VALUES], *got = copy_of(y, N_VALUES);
    for (int i = 0; i < N_VALUES; i++) {
        want[0][i] = 0.37f * x[i];
        want[1][i] = y[i] + x[i];
    }
    for (int n = N_VALUES; n > 0; n /= 3) {
        struct job job = {.dst = got, .src = x, .n = n, .by = 0.37f};
        same_everywhere(run_scale, job, got, y, want[0], n);
        same_everywhere(run_add, job, got, y, want[1], n);
        job.src = got;
        same_everywhere(run_scale, job, got, x, want[0], n);
    }
    free(x);
    free(y);
    free(got);
}
END_TEST

START_TEST(softcap_is_the_same_everywhere)
{
    float *x = all_values(12), *want = copy_of(x, N_VALUES), *got = copy_of(x, N_VALUES);
    struct job job = {.dst = want, .n = N_VALUES, .by = 30};
    run_on(ISA_SCALAR, 1, run_softcap, job);
    for (int i = 0; i < N_VALUES; i++) {
        double y = 30 * tanh((double)x[i] / 30);
        ck_assert(isnan(y) ? isnan(want[i]) : fabs((double)want[i] - y) <= 4e-7 * fabs(y) + 0x1p-140);
    }
    job.dst = got;
    for (job.n = N_VALUES; job.n > 0; job.n /= 3)
        same_everywhere(run_softcap, job, got, x, want, job.n);
    free(x);
    free(want);
    free(got);
}
END_TEST

/* ---- Rows moved and added ---------------------------------------------------------------------- */

START_TEST(permute_is_the_same_everywhere)
{
    enum { TOKENS = 5 };
    const int dim = dims[_i];
    const int64_t n = (int64_t)TOKENS * dim;
    float *x = random_row(13, (size_t)n), *start = random_row(14, (size_t)n);
    float *want = copy_of(start, n), *got = copy_of(start, n);
    int32_t *order = malloc((size_t)dim * sizeof *order);
    uint64_t state = 15;
    for (int i = 0; i < dim; i++) { /* Fisher-Yates, inside out */
        int j = (int)((double)(random_uniform(&state) + 1) / 2 * i);
        order[i] = order[j];
        order[j] = i;
    }
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < dim; i++)
            want[t * dim + i] = x[t * dim + order[i]];
    same_everywhere(run_permute, (struct job){.dst = got, .src = x, .order = order, .rows = TOKENS, .n = dim},
                    got, start, want, n);
    free(x);
    free(start);
    free(want);
    free(got);
    free(order);
}
END_TEST

START_TEST(combine_is_the_same_everywhere)
{
    enum { TOKENS = 7, USED = 3 };
    const int dim = dims[_i / 2];
    const int64_t n = (int64_t)TOKENS * dim;
    float *x = random_row(16, (size_t)(n * USED)), *weight = random_row(17, TOKENS * USED);
    float *start = random_row(18, (size_t)n), *want = copy_of(start, n), *got = copy_of(start, n);
    int32_t row[TOKENS * USED];
    for (int i = 0; i < TOKENS * USED; i++)
        row[i] = i * 5 % (TOKENS * USED);
    struct combine_args a = {want, x, weight, row, TOKENS, USED, dim, _i % 2};
    run_on(ISA_SCALAR, 1, run_combine, (struct job){.combine = &a});
    for (int64_t i = 0; i < n; i++) {
        double y = a.add ? (double)start[i] : 0;
        for (int slot = 0; slot < USED; slot++) {
            int64_t r = i / dim * USED + slot;
            y += (double)weight[r] * (double)x[row[r] * dim + i % dim];
        }
        ck_assert_double_le(fabs((double)want[i] - y), 4e-7);
    }
    a.dst = got;
    same_everywhere(run_combine, (struct job){.combine = &a}, got, start, want, n);
    free(x);
    free(weight);
    free(start);
    free(want);
    free(got);
}
END_TEST

/* Halves by instruction and by hand. */
START_TEST(halves_are_the_same_everywhere)
{
    enum { N = 1000003 };
    float *x = malloc(N * sizeof *x);
    uint16_t *want = malloc(N * sizeof *want), *got = malloc(N * sizeof *got);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t bits = i * 4295u; /* a walk through all floats */
        memcpy(&x[i], &bits, sizeof bits);
    }
    cpu_kernels(ISA_SCALAR)->f16_row(want, x, N);
    for (enum isa isa = next_isa(ISA_SCALAR); isa < ISA_COUNT; isa = next_isa(isa)) {
        cpu_kernels(isa)->f16_row(got, x, N);
        ck_assert_mem_eq(got, want, N * sizeof *got);
    }
    free(x);
    free(want);
    free(got);
}
END_TEST

static Suite *rows_suite(void)
{
    Suite *s = suite_create("kernels/rows");
    TCase *t = tcase_create("rows");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, norm_is_the_same_everywhere, 0, N_DIMS * N_NORM_CASES);
    tcase_add_test(t, norm_keeps_faults_visible);
    tcase_add_loop_test(t, gate_is_the_same_everywhere, 0, 2 * N_ACTS);
    tcase_add_test(t, scale_and_add_are_the_same_everywhere);
    tcase_add_test(t, softcap_is_the_same_everywhere);
    tcase_add_loop_test(t, permute_is_the_same_everywhere, 0, N_DIMS);
    tcase_add_loop_test(t, combine_is_the_same_everywhere, 0, 2 * N_DIMS);
    tcase_add_test(t, halves_are_the_same_everywhere);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(rows_suite)
