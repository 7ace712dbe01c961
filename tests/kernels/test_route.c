/* The router of a mixture of experts: weights against double, rows against plain sorting, every level and
 * thread count to the last bit, logits that are not numbers. */
#include "tests/kernels/support.h"
#include "tests/test.h"

enum { TOKENS_MAX = 97, EXPERTS_MAX = 128, USED_MAX = 20 };

static const struct shape {
    int n_tokens, n_experts, n_used;
    bool normalise;
} shapes[] = {
    {1, 1, 1, false},  {1, 8, 2, true},     {1, 128, 8, true},  {5, 8, 2, true},     {5, 8, 2, false},
    {97, 60, 4, true}, {97, 128, 8, false}, {64, 20, 20, true}, {2, 128, 20, false},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

struct routed {
    float weight[TOKENS_MAX * USED_MAX];
    int32_t first[EXPERTS_MAX + 1], token[TOKENS_MAX * USED_MAX], row[TOKENS_MAX * USED_MAX];
};

struct job {
    const struct ops *ops;
    struct route_args a;
};

static void run(struct worker *w, void *arg)
{
    const struct job *job = arg;
    job->ops->route(w, &job->a);
}

/* Everything written lies in r or in the scratch; what is not written is 0xff. */
static void route(struct routed *r, const struct shape *s, const float *logits, enum isa isa, int n_threads)
{
    memset(r, 0xff, sizeof *r);
    int32_t *scratch = malloc((size_t)(s->n_tokens * s->n_used) * sizeof *scratch);
    struct job job = {ops_cpu(isa),
                      {logits, s->n_tokens, s->n_experts, s->n_used, s->normalise, r->weight, r->first,
                       r->token, r->row, scratch}};
    struct team *team = team_new(n_threads);
    team_run(team, run, &job);
    team_free(team);
    free(scratch);
}

static int expert_of(const struct routed *r, const struct shape *s, int row)
{
    int e = 0;
    while (e < s->n_experts - 1 && r->first[e + 1] <= row)
        e++;
    return e;
}

/* Rows are a permutation of the pairs, in order of expert, then token; no token has an expert twice. */
static void rows_are_sound(const struct routed *r, const struct shape *s)
{
    const int n = s->n_tokens * s->n_used;
    bool taken[TOKENS_MAX * USED_MAX] = {false};
    ck_assert(r->first[0] == 0 && r->first[s->n_experts] == n);
    for (int e = 0; e < s->n_experts; e++) {
        ck_assert(r->first[e] <= r->first[e + 1]);
        for (int i = r->first[e] + 1; i < r->first[e + 1]; i++)
            ck_assert(r->token[i - 1] < r->token[i]);
    }
    for (int i = 0; i < n; i++) {
        ck_assert(r->row[i] >= 0 && r->row[i] < n && !taken[r->row[i]]);
        taken[r->row[i]] = true;
        ck_assert_int_eq(r->token[r->row[i]], i / s->n_used);
    }
}

static void same_everywhere(const struct shape *s, const float *logits, const struct routed *want)
{
    static struct routed got;
    const int n = s->n_tokens * s->n_used;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int threads = 1; threads <= 3; threads++) {
            route(&got, s, logits, isa, threads);
            ck_assert(first_difference(got.weight, want->weight, n) < 0);
            ck_assert_mem_eq(got.first, want->first, sizeof got.first);
            ck_assert_mem_eq(got.token, want->token, sizeof got.token);
            ck_assert_mem_eq(got.row, want->row, sizeof got.row);
        }
}

/* The exact softmax over all experts. */
static double weight_of(const float *logits, int n, int e)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)logits[e]);
    return 1 / sum;
}

START_TEST(largest_experts_are_chosen)
{
    const struct shape *s = &shapes[_i];
    static struct routed r;
    float *logits = random_row(1, (size_t)(s->n_tokens * s->n_experts));
    for (int i = 0; i < s->n_tokens * s->n_experts; i++)
        logits[i] = i % 3 ? 8 * logits[i] : rintf(4 * logits[i]); /* equal ones too */
    route(&r, s, logits, ISA_SCALAR, 1);
    rows_are_sound(&r, s);
    for (int t = 0; t < s->n_tokens; t++) {
        const float *x = logits + t * s->n_experts;
        double total = 0, last = INFINITY;
        int last_expert = -1;
        for (int slot = 0; slot < s->n_used; slot++)
            total += weight_of(x, s->n_experts, expert_of(&r, s, r.row[t * s->n_used + slot]));
        for (int slot = 0; slot < s->n_used; slot++) {
            int e = expert_of(&r, s, r.row[t * s->n_used + slot]), n_larger = 0;
            double want = weight_of(x, s->n_experts, e) / (s->normalise ? total : 1);
            ck_assert_double_le(fabs((double)r.weight[t * s->n_used + slot] - want), 1e-6 * want);
            ck_assert((double)x[e] < last || ((double)x[e] == last && e > last_expert));
            for (int i = 0; i < s->n_experts; i++)
                n_larger += x[i] > x[e] || (i < e && x[i] == x[e]);
            ck_assert_int_eq(n_larger, slot);
            last = (double)x[e];
            last_expert = e;
        }
    }
    same_everywhere(s, logits, &r);
    /* A token alone gets the same weights and experts. */
    for (int t = 0; t < s->n_tokens; t += 5) {
        static struct routed one;
        struct shape alone = {1, s->n_experts, s->n_used, s->normalise};
        route(&one, &alone, logits + t * s->n_experts, ISA_SCALAR, 2);
        ck_assert_mem_eq(one.weight, r.weight + t * s->n_used, (size_t)s->n_used * sizeof *r.weight);
        for (int slot = 0; slot < s->n_used; slot++)
            ck_assert_int_eq(expert_of(&one, &alone, one.row[slot]),
                             expert_of(&r, s, r.row[t * s->n_used + slot]));
    }
    free(logits);
}
END_TEST

/* Whatever the logits are, rows stay within bounds, and the fault shows in its token's weights only. */
START_TEST(faults_stay_visible)
{
    const struct shape *s = &shapes[_i];
    static struct routed r;
    const float faults[] = {NAN, INFINITY, -INFINITY, -NAN};
    float *logits = random_row(2, (size_t)(s->n_tokens * s->n_experts));
    for (int t = 0; t < s->n_tokens; t += 2)
        for (int e = 0; e < s->n_experts; e++)
            if (t % 8 == 0 || (e + t) % 3 == 0)
                logits[t * s->n_experts + e] = t % 8 == 0 ? faults[t / 8 % 4] : faults[e % 4];
    route(&r, s, logits, ISA_SCALAR, 1);
    rows_are_sound(&r, s);
    for (int i = 0; i < s->n_tokens * s->n_used; i++) {
        bool faulty = false;
        for (int e = 0; e < s->n_experts; e++) /* one expert of −Inf among others is only never chosen */
            faulty |= !(logits[i / s->n_used * s->n_experts + e] < INFINITY);
        if (i / s->n_used % 2)
            ck_assert(isfinite(r.weight[i]));
        else if (faulty)
            ck_assert(isnan(r.weight[i]));
    }
    same_everywhere(s, logits, &r);
    free(logits);
}
END_TEST

static Suite *route_suite(void)
{
    Suite *s = suite_create("kernels/route");
    TCase *t = tcase_create("route");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, largest_experts_are_chosen, 0, N_SHAPES);
    tcase_add_loop_test(t, faults_stay_visible, 0, N_SHAPES);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(route_suite)
