/* RMSNorm and the gate: every level and thread count against the scalar reference to the last bit, and the
 * reference against double. */
#include "kernels/cpu.h"
#include "tests/kernels/support.h"
#include "tests/test.h"

#include <float.h>

struct gate_args {
    float *dst;
    const float *gate, *up;
    int64_t n;
};

struct job {
    const struct cpu_kernels *k;
    const struct norm_args *norm;
    const struct gate_args *gate;
};

static void run(struct worker *w, void *arg)
{
    const struct job *job = arg;
    if (job->norm)
        cpu_norm(w, job->norm, job->k);
    if (job->gate)
        cpu_gate(w, job->gate->dst, job->gate->gate, job->gate->up, job->gate->n, ACT_SILU, job->k);
}

static void run_on(int n_threads, struct job job)
{
    struct team *team = team_new(n_threads);
    team_run(team, run, &job);
    team_free(team);
}

static const int dims[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 576, 1536};
enum { N_DIMS = sizeof dims / sizeof dims[0], N_ROWS = 40 };

START_TEST(norm_is_the_same_everywhere)
{
    int dim = dims[_i];
    float *x = random_row(1, (size_t)(N_ROWS * dim)), *w = random_row(2, (size_t)dim);
    float *want = random_row(3, (size_t)(N_ROWS * dim)), *got = random_row(4, (size_t)(N_ROWS * dim));
    memset(x, 0, (size_t)dim * sizeof *x); /* a row of zeros stays zero */
    x[N_ROWS * dim - 1] = 1e18f;
    struct norm_args a = {want, x, w, NULL, N_ROWS, dim, 1e-5f, NORM_RMS};
    run_on(1, (struct job){.k = cpu_kernels(ISA_SCALAR), .norm = &a});
    a.dst = got;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int threads = 1; threads <= 2; threads++) {
            memset(got, 0xff, (size_t)(N_ROWS * dim) * sizeof *got);
            run_on(threads, (struct job){.k = cpu_kernels(isa), .norm = &a});
            ck_assert_msg(first_difference(got, want, N_ROWS * dim) < 0, "%s, dim %d", isa_name(isa), dim);
        }
    for (int t = 0; t < N_ROWS; t++) {
        double sum = 0;
        for (int i = 0; i < dim; i++)
            sum += (double)x[t * dim + i] * (double)x[t * dim + i];
        double r = 1 / sqrt(sum / dim + 1e-5), worst = 0;
        for (int i = 0; i < dim; i++) {
            double y = (double)x[t * dim + i] * r * (double)w[i], error = fabs((double)want[t * dim + i] - y);
            worst = fmax(worst, error <= 1e-6 * fabs(y) ? 0 : error);
        }
        ck_assert(worst == 0);
    }
    free(x);
    free(w);
    free(want);
    free(got);
}
END_TEST

/* A NaN or an Inf spoils its own row, and no other. */
START_TEST(norm_keeps_faults_visible)
{
    enum { DIM = 37 };
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int fault = 0; fault < 2; fault++) {
            float *x = random_row(5, 3 * DIM), *w = random_row(6, DIM), y[3 * DIM];
            x[DIM + 35] = fault ? INFINITY : NAN;
            struct norm_args a = {y, x, w, NULL, 3, DIM, 1e-5f, NORM_RMS};
            run_on(2, (struct job){.k = cpu_kernels(isa), .norm = &a});
            for (int i = 0; i < 3 * DIM; i++)
                if (i < DIM || i >= 2 * DIM)
                    ck_assert(isfinite(y[i]));
            ck_assert(isnan(y[DIM + 35]));
            ck_assert(fault || isnan(y[DIM]));
            free(x);
            free(w);
        }
}
END_TEST

/* All binades, both signs, and the edges: SiLU by level and thread count, and against double. */
START_TEST(gate_is_the_same_everywhere)
{
    enum { EDGES = 16, N = 40007 };
    static const float edges[EDGES] = {0,          -0.0f,     INFINITY, -INFINITY, NAN,     88.72283f,
                                       -88.72283f, 88.72284f, 87.3365f, -87.3365f, 87.337f, -87.337f,
                                       FLT_MAX,    -FLT_MAX,  FLT_MIN,  -1e-40f};
    float *x = malloc(N * sizeof *x), *up = random_row(7, N), *want = malloc(N * sizeof *want);
    float *got = malloc(N * sizeof *got);
    uint64_t state = 8;
    for (int i = 0; i < N; i++)
        x[i] = i < EDGES ? edges[i]
               : i % 4   ? 100 * random_uniform(&state)
                         : ldexpf(random_uniform(&state), i % 60 - 50);
    struct gate_args a = {want, x, up, N};
    run_on(1, (struct job){.k = cpu_kernels(ISA_SCALAR), .gate = &a});
    int n_wrong = 0;
    for (int i = 0; i < N; i++) {
        double y = (double)x[i] / (1 + exp(-(double)x[i])) * (double)up[i];
        if (isnan(x[i]) || x[i] == -INFINITY)
            n_wrong += !isnan(want[i]);
        else if (isinf(x[i]))
            n_wrong += !isinf(want[i]);
        else
            n_wrong += !(fabs((double)want[i] - y) <= 4e-7 * fabs(y) + 0x1p-120);
    }
    ck_assert_int_eq(n_wrong, 0);
    a.dst = got;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int threads = 1; threads <= 2; threads++)
            for (int n = N; n > 0; n /= 3) {
                memset(got, 0xff, N * sizeof *got);
                a.n = n;
                run_on(threads, (struct job){.k = cpu_kernels(isa), .gate = &a});
                ck_assert_msg(first_difference(got, want, n) < 0, "%s, %d threads", isa_name(isa), threads);
            }
    free(x);
    free(up);
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
    tcase_add_loop_test(t, norm_is_the_same_everywhere, 0, N_DIMS);
    tcase_add_test(t, norm_keeps_faults_visible);
    tcase_add_test(t, gate_is_the_same_everywhere);
    tcase_add_test(t, halves_are_the_same_everywhere);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(rows_suite)
