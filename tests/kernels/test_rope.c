/* Rotation and storing: against double, every level and thread count to the last bit, batches cut in any
 * way. */
#include "kernels/kv.h"
#include "tests/kernels/support.h"
#include "tests/test.h"

enum { TOKENS = 9, HEADS = 6, KV_HEADS = 2, FIRST = 60, PAGES = 3 }; /* positions 60 … 68 cross a page */

static const int32_t page_table[] = {2, 0};

static const struct shape {
    int head_dim, rotary_dim;
    enum rope_pairing pairing;
    enum qtype type;
    int n_sections; /* 2: the second has positions of its own */
    int n_rows;     /* of frequencies; 2: tokens take turns */
} shapes[] = {
    {64, 64, ROPE_HALF, QTYPE_F16, 1, 1},       {64, 64, ROPE_ADJACENT, QTYPE_F32, 1, 2},
    {96, 96, ROPE_HALF, QTYPE_Q8_0, 1, 1},      {80, 32, ROPE_HALF, QTYPE_F16, 1, 2},
    {10, 10, ROPE_HALF, QTYPE_F32, 1, 1},       {10, 6, ROPE_ADJACENT, QTYPE_F16, 1, 1},
    {128, 64, ROPE_ADJACENT, QTYPE_Q4_0, 1, 1}, {16, 16, ROPE_HALF, QTYPE_F32, 1, 1},
    {32, 0, ROPE_NONE, QTYPE_F16, 1, 1},        {54, 54, ROPE_HALF, QTYPE_F32, 1, 1},
    {54, 54, ROPE_ADJACENT, QTYPE_F32, 1, 1},   {128, 128, ROPE_HALF, QTYPE_F16, 2, 1},
    {36, 20, ROPE_HALF, QTYPE_F32, 2, 2},       {64, 48, ROPE_ADJACENT, QTYPE_F16, 2, 1},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* Positions and frequencies as the operator should use them. */
static int64_t position(int section, int token)
{
    return section == 0 ? FIRST + token : 3 * token + 1;
}

static double frequency(const struct shape *s, int row, int i)
{
    return pow(row == 0 ? 10000 : 500, -2.0 * i / s->rotary_dim);
}

static int freq_row(const struct shape *s, int token)
{
    return token % s->n_rows;
}

/* Everything that the operator writes. */
struct state {
    float *q, *k, *v, *table;
    uint8_t *k_pages, *v_pages;
};

static struct state state_new(const struct kv_layout *l, int n_freqs)
{
    size_t n = (size_t)(TOKENS * l->head_dim);
    return (struct state){random_row(1, n * HEADS),
                          random_row(2, n * KV_HEADS),
                          random_row(3, n * KV_HEADS),
                          random_row(4, (size_t)(TOKENS * n_freqs * 2)),
                          calloc(PAGES, (size_t)l->k_page_bytes),
                          calloc(PAGES, (size_t)l->v_page_bytes)};
}

static void state_free(struct state *s)
{
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->table);
    free(s->k_pages);
    free(s->v_pages);
}

struct job {
    const struct cpu_kernels *k;
    struct rope_table_args table;
    struct rope_store_args store;
};

static void run(struct worker *w, void *arg)
{
    const struct job *job = arg;
    cpu_rope_table(w, &job->table);
    cpu_rope_store(w, &job->store, job->k);
}

/* Tokens first … first + n − 1 of the batch. */
static void run_tokens(const struct shape *s, const struct kv_layout *l, struct state *st, enum isa isa,
                       int n_threads, int first, int n)
{
    double inv_freq[2 * 64];
    struct kv_slot slot[TOKENS];
    int64_t pos[2 * TOKENS];
    int32_t rows[TOKENS];
    int n_freqs = s->rotary_dim / 2;
    for (int i = 0; i < s->n_rows * n_freqs; i++)
        inv_freq[i] = frequency(s, i / n_freqs, i % n_freqs);
    for (int i = 0; i < n; i++) {
        for (int section = 0; section < s->n_sections; section++)
            pos[section * n + i] = position(section, first + i);
        rows[i] = freq_row(s, first + i);
        slot[i] = (struct kv_slot){page_table, FIRST + first + i, 0, FIRST + first + i + 1};
    }
    int64_t at = (int64_t)first * l->head_dim;
    float *table = st->table + first * n_freqs * 2;
    struct job job = {
        cpu_kernels(isa),
        {table, pos, s->n_sections, inv_freq, s->n_rows > 1 ? rows : NULL, n, n_freqs, 1.25},
        {st->q + at * HEADS, st->k + at * KV_HEADS, st->v + at * KV_HEADS, n, HEADS, s->rotary_dim,
         s->n_sections, s->pairing, s->pairing == ROPE_NONE ? NULL : table, slot, l, st->k_pages,
         st->v_pages},
    };
    struct team *team = team_new(n_threads);
    team_run(team, run, &job);
    team_free(team);
}

static void same(const struct state *a, const struct state *b, const struct kv_layout *l)
{
    size_t n = (size_t)(TOKENS * l->head_dim) * sizeof(float);
    ck_assert_mem_eq(a->q, b->q, n * HEADS);
    ck_assert_mem_eq(a->k, b->k, n * KV_HEADS);
    ck_assert_mem_eq(a->k_pages, b->k_pages, (size_t)(PAGES * l->k_page_bytes));
    ck_assert_mem_eq(a->v_pages, b->v_pages, (size_t)(PAGES * l->v_page_bytes));
}

START_TEST(rotation_is_the_same_everywhere)
{
    const struct shape *s = &shapes[_i];
    struct kv_layout l;
    ck_assert_int_eq(kv_layout_init(&l, s->type, s->type, KV_HEADS, s->head_dim), 0);
    struct state want = state_new(&l, s->rotary_dim / 2);
    run_tokens(s, &l, &want, ISA_SCALAR, 1, 0, TOKENS);
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int step = 1; step <= TOKENS; step += 4) {
            struct state got = state_new(&l, s->rotary_dim / 2);
            for (int t = 0; t < TOKENS; t += step)
                run_tokens(s, &l, &got, isa, 1 + step % 3, t, t + step < TOKENS ? step : TOKENS - t);
            same(&want, &got, &l);
            state_free(&got);
        }
    state_free(&want);
}
END_TEST

START_TEST(rotation_is_right)
{
    const struct shape *s = &shapes[_i];
    struct kv_layout l;
    ck_assert_int_eq(kv_layout_init(&l, s->type, s->type, KV_HEADS, s->head_dim), 0);
    struct state before = state_new(&l, s->rotary_dim / 2), after = state_new(&l, s->rotary_dim / 2);
    run_tokens(s, &l, &after, next_isa(ISA_SCALAR) < ISA_COUNT ? next_isa(ISA_SCALAR) : ISA_SCALAR, 2, 0,
               TOKENS);
    for (int row = 0; row < TOKENS * HEADS; row++) {
        const float *x = before.q + row * s->head_dim, *y = after.q + row * s->head_dim;
        int half = s->rotary_dim / 2;
        double worst = 0;
        for (int i = 0; i < half; i++) {
            int section = i * s->n_sections / half, per_section = half / s->n_sections, token = row / HEADS;
            int i0 = s->pairing == ROPE_HALF ? i + section * per_section : 2 * i;
            int i1 = s->pairing == ROPE_HALF ? i0 + per_section : 2 * i + 1;
            double angle = (double)position(section, token) * frequency(s, freq_row(s, token), i);
            double c = 1.25 * cos(angle), d = 1.25 * sin(angle);
            worst = fmax(worst, fabs((double)y[i0] - ((double)x[i0] * c - (double)x[i1] * d)));
            worst = fmax(worst, fabs((double)y[i1] - ((double)x[i0] * d + (double)x[i1] * c)));
        }
        ck_assert_double_le(worst, 5e-7);
        ck_assert_mem_eq(y + s->rotary_dim, x + s->rotary_dim,
                         (size_t)(s->head_dim - s->rotary_dim) * sizeof *x);
    }
    /* Keys are stored rotated, values as they are, at their positions of the sequence's pages. */
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < KV_HEADS; h++) {
            int pos = FIRST + t, page = page_table[pos / KV_PAGE];
            uint8_t *k = calloc(1, (size_t)l.k_page_bytes), *v = calloc(1, (size_t)l.v_page_bytes);
            memcpy(k, after.k_pages + page * l.k_page_bytes, (size_t)l.k_page_bytes);
            memcpy(v, after.v_pages + page * l.v_page_bytes, (size_t)l.v_page_bytes);
            int64_t row = (int64_t)(t * KV_HEADS + h) * s->head_dim;
            kv_store_key(&l, k, h, pos % KV_PAGE, after.k + row, cpu_kernels(ISA_SCALAR));
            kv_store_value(&l, v, h, pos % KV_PAGE, before.v + row, cpu_kernels(ISA_SCALAR));
            ck_assert_mem_eq(k, after.k_pages + page * l.k_page_bytes, (size_t)l.k_page_bytes);
            ck_assert_mem_eq(v, after.v_pages + page * l.v_page_bytes, (size_t)l.v_page_bytes);
            free(k);
            free(v);
        }
    uint8_t *zeros = calloc(1, (size_t)l.k_page_bytes); /* page 1 belongs to another sequence */
    ck_assert_mem_eq(after.k_pages + l.k_page_bytes, zeros, (size_t)l.k_page_bytes);
    free(zeros);
    state_free(&before);
    state_free(&after);
}
END_TEST

static Suite *rope_suite(void)
{
    Suite *s = suite_create("kernels/rope");
    TCase *t = tcase_create("rope");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, rotation_is_the_same_everywhere, 0, N_SHAPES);
    tcase_add_loop_test(t, rotation_is_right, 0, N_SHAPES);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(rope_suite)
