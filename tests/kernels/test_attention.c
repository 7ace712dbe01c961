/* Attention: the scalar reference against double, then every level, thread count (which decides between
 * whole chunks and split blocks) and cut of the batch against the reference, to the last bit. Every position
 * that is not stored holds NaN, so that touching one shows; pages that no token sees have a number whose
 * address does not exist. */
#include "kernels/kv.h"
#include "kernels/mathf.h"
#include "tests/kernels/support.h"
#include "tests/test.h"

#include <inttypes.h>

/* Sequences of one length; the batch is the last n_tokens of each. */
static const struct shape {
    int head_dim, n_kv_heads, group, len, n_tokens, window, n_seqs;
    float softcap;
} shapes[] = {
    {16, 1, 1, 1, 1, 0, 1, 0},     {16, 2, 3, 15, 15, 0, 1, 0},     {64, 3, 3, 16, 5, 0, 1, 0},
    {64, 3, 3, 17, 1, 0, 2, 0},    {64, 1, 8, 63, 13, 0, 1, 0},     {64, 2, 1, 64, 64, 0, 1, 0},
    {128, 1, 3, 65, 9, 0, 1, 0},   {64, 3, 3, 200, 35, 0, 1, 0},    {96, 2, 4, 200, 2, 0, 3, 0},
    {32, 1, 7, 200, 16, 50, 1, 0}, {64, 2, 3, 200, 30, 64, 1, 0},   {64, 1, 2, 129, 6, 1, 2, 0},
    {256, 1, 2, 130, 14, 0, 1, 0}, {32, 5, 1, 300, 1, 17, 2, 0},    {512, 1, 1, 66, 3, 0, 1, 0},
    {64, 1, 100, 70, 2, 0, 1, 0},  {80, 2, 2, 150, 20, 0, 1, 0},    {10, 3, 5, 100, 40, 0, 1, 0},
    {2, 1, 1, 70, 70, 0, 1, 0},    {54, 1, 6, 131, 2, 90, 2, 0},    {64, 2, 3, 200, 9, 64, 1, 2},
    {256, 1, 2, 130, 1, 0, 2, 50}, {80, 2, 2, 200, 3, 70, 2, 1.5f},
};
static const struct {
    enum qtype k, v;
} types[] = {
    {QTYPE_F32, QTYPE_F32},   {QTYPE_F16, QTYPE_F16},  {QTYPE_Q8_0, QTYPE_Q8_0},
    {QTYPE_Q4_0, QTYPE_Q4_0}, {QTYPE_Q8_0, QTYPE_F16}, {QTYPE_F32, QTYPE_Q4_0},
};
enum {
    N_SHAPES = sizeof shapes / sizeof shapes[0],
    N_TYPES = sizeof types / sizeof types[0],
    MAX_TOKENS = 100
};

struct fixture {
    const struct shape *s;
    struct kv_layout l;
    int n_tokens, n_heads, n_pages; /* tokens of all sequences; pages of each */
    float *k, *v, *q;               /* keys and values: (sequence, position, KV head, head_dim) */
    uint8_t *k_pages, *v_pages;
    int32_t *pages;
    struct kv_slot slot[MAX_TOKENS];
};

static void store(struct fixture *f, int seq, int pos)
{
    const struct kv_layout *l = &f->l;
    int64_t page = f->pages[seq * f->n_pages + pos / KV_PAGE];
    for (int h = 0; h < l->n_kv_heads; h++) {
        int64_t row = (((int64_t)seq * f->s->len + pos) * l->n_kv_heads + h) * l->head_dim;
        kv_store_key(l, f->k_pages + page * l->k_page_bytes, h, pos % KV_PAGE, f->k + row,
                     cpu_kernels(ISA_SCALAR));
        kv_store_value(l, f->v_pages + page * l->v_page_bytes, h, pos % KV_PAGE, f->v + row,
                       cpu_kernels(ISA_SCALAR));
    }
}

/* False when the types cannot hold the shape's heads. */
static bool fixture_init(struct fixture *f, const struct shape *s, enum qtype type_k, enum qtype type_v)
{
    *f = (struct fixture){.s = s, .n_heads = s->n_kv_heads * s->group};
    if (kv_layout_init(&f->l, type_k, type_v, s->n_kv_heads, s->head_dim) != 0)
        return false;
    f->n_tokens = s->n_tokens * s->n_seqs;
    f->n_pages = (s->len + KV_PAGE - 1) / KV_PAGE;
    int all_pages = f->n_pages * s->n_seqs;
    size_t kv_len = (size_t)(s->len * s->n_seqs * s->n_kv_heads * s->head_dim);
    f->k = random_row(1, kv_len);
    f->v = random_row(2, kv_len);
    f->q = random_row(3, (size_t)(f->n_tokens * f->n_heads * s->head_dim));
    for (int i = 0; i < f->n_tokens * f->n_heads * s->head_dim; i++)
        f->q[i] *= 4; /* probabilities from 0 to almost 1 */
    f->k_pages = malloc((size_t)(all_pages * f->l.k_page_bytes));
    f->v_pages = malloc((size_t)(all_pages * f->l.v_page_bytes));
    memset(f->k_pages, 0xff, (size_t)(all_pages * f->l.k_page_bytes));
    memset(f->v_pages, 0xff, (size_t)(all_pages * f->l.v_page_bytes));
    f->pages = malloc((size_t)all_pages * sizeof *f->pages);
    for (int i = 0; i < all_pages; i++) /* sequences interleaved, backwards */
        f->pages[i] = (f->n_pages - 1 - i % f->n_pages) * s->n_seqs + i / f->n_pages;
    for (int seq = 0; seq < s->n_seqs; seq++)
        for (int pos = 0; pos < s->len; pos++)
            store(f, seq, pos);
    for (int t = 0; t < f->n_tokens; t++) {
        int pos = s->len - s->n_tokens + t % s->n_tokens;
        int begin = s->window && pos + 1 > s->window ? pos + 1 - s->window : 0;
        f->slot[t] = (struct kv_slot){f->pages + t / s->n_tokens * f->n_pages, pos, begin, pos + 1};
    }
    return true;
}

static void fixture_free(struct fixture *f)
{
    free(f->k);
    free(f->v);
    free(f->q);
    free(f->k_pages);
    free(f->v_pages);
    free(f->pages);
}

static size_t out_len(const struct fixture *f)
{
    return (size_t)(f->n_tokens * f->n_heads * f->s->head_dim);
}

struct job {
    const struct cpu_kernels *k;
    struct attention_args a;
};

static void run(struct worker *w, void *arg)
{
    struct job *job = arg;
    cpu_attention(w, &job->a, job->k);
}

enum { RELEASED = 1 << 30 }; /* a page that a sliding window no longer holds, say */

/* The slots of tokens first … first + n − 1 with page tables of their own, which hold only the pages that
 * these tokens see. */
static void slots_of(const struct fixture *f, struct kv_slot *slot, int32_t *pages, int first, int n)
{
    for (int i = 0; i < f->n_pages * f->s->n_seqs; i++)
        pages[i] = RELEASED;
    for (int t = 0; t < n; t++) {
        slot[t] = f->slot[first + t];
        int64_t table = slot[t].pages - f->pages;
        for (int64_t b = slot[t].begin / KV_PAGE; b * KV_PAGE < slot[t].end; b++)
            if (slot[t].begin < slot[t].end)
                pages[table + b] = f->pages[table + b];
        slot[t].pages = pages + table;
    }
}

/* Tokens first … first + n − 1, in exactly the scratch that is promised to be enough. */
static void attend(const struct fixture *f, float *out, enum isa isa, struct team *team, int first, int n)
{
    struct kv_slot slot[MAX_TOKENS];
    int32_t *pages = malloc((size_t)(f->n_pages * f->s->n_seqs) * sizeof *pages);
    slots_of(f, slot, pages, first, n);
    int64_t at = (int64_t)first * f->n_heads * f->s->head_dim;
    struct job job = {cpu_kernels(isa),
                      {.out = out + at,
                       .q = f->q + at,
                       .n_tokens = n,
                       .n_heads = f->n_heads,
                       .scale = 1 / sqrtf((float)f->s->head_dim),
                       .softcap = f->s->softcap,
                       .slot = slot,
                       .kv = &f->l,
                       .k_pages = f->k_pages,
                       .v_pages = f->v_pages}};
    job.a.scratch_bytes =
        cpu_attention_scratch_bytes(n, f->n_heads, f->s->head_dim, f->s->len, team_n_threads(team));
    job.a.scratch = malloc(job.a.scratch_bytes);
    memset(job.a.scratch, 0xff, job.a.scratch_bytes);
    team_run(team, run, &job);
    free(job.a.scratch);
    free(pages);
}

static float *attend_all(const struct fixture *f, enum isa isa, int n_threads, int step)
{
    float *out = malloc(out_len(f) * sizeof *out);
    memset(out, 0xff, out_len(f) * sizeof *out);
    struct team *team = team_new(n_threads);
    for (int t = 0; t < f->n_tokens; t += step)
        attend(f, out, isa, team, t, t + step < f->n_tokens ? step : f->n_tokens - t);
    team_free(team);
    return out;
}

/* softmax(softcap(q k · scale)) v in double, from keys, values and queries as their types round them. */
static void rounded(double *dst, enum qtype t, const float *x, int n)
{
    uint8_t row[KV_HEAD_DIM_MAX * sizeof(float)];
    float y[KV_HEAD_DIM_MAX];
    qtypes[t].from_f32(row, x, n);
    qtypes[t].to_f32(y, row, n);
    for (int i = 0; i < n; i++)
        dst[i] = (double)y[i];
}

static void query_rounded(double *dst, bool quantised, const float *x, int n)
{
    struct act_block b[KV_HEAD_DIM_MAX / ACT_LEN];
    if (quantised)
        act_quantise(b, x, n);
    for (int i = 0; i < n; i++)
        dst[i] = quantised ? (double)b[i / ACT_LEN].d * b[i / ACT_LEN].q[i % ACT_LEN] : (double)x[i];
}

static void reference(const struct fixture *f, double *out, int token, int head)
{
    int n = f->s->head_dim, kv_head = head / f->s->group, seq = token / f->s->n_tokens;
    const struct kv_slot *slot = &f->slot[token];
    double q[KV_HEAD_DIM_MAX], k[KV_HEAD_DIM_MAX], v[KV_HEAD_DIM_MAX], s[512], max = -INFINITY, sum = 0;
    query_rounded(q, qtypes[f->l.type_k].block_len > 1, f->q + ((int64_t)token * f->n_heads + head) * n, n);
    for (int64_t p = slot->begin; p < slot->end; p++) {
        rounded(k, f->l.type_k, f->k + ((seq * f->s->len + p) * f->s->n_kv_heads + kv_head) * n, n);
        s[p] = 0;
        for (int i = 0; i < n; i++)
            s[p] += q[i] * k[i];
        s[p] /= sqrt(n);
        s[p] = f->s->softcap != 0 ? (double)f->s->softcap * tanh(s[p] / (double)f->s->softcap) : s[p];
        max = fmax(max, s[p]);
    }
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t p = slot->begin; p < slot->end; p++) {
        rounded(v, f->l.type_v, f->v + ((seq * f->s->len + p) * f->s->n_kv_heads + kv_head) * n, n);
        sum += exp(s[p] - max);
        for (int i = 0; i < n; i++)
            out[i] += exp(s[p] - max) * v[i];
    }
    for (int i = 0; i < n; i++)
        out[i] /= sum;
}

/* The largest distance from double of one head's output; zeros are wanted where nothing is seen. */
static double worst_error(const struct fixture *f, const float *out, int token, int head)
{
    double want[KV_HEAD_DIM_MAX], worst = 0;
    int n = f->s->head_dim;
    bool empty = f->slot[token].begin >= f->slot[token].end;
    reference(f, want, token, head);
    for (int i = 0; i < n; i++) {
        double error =
            fabs((double)out[((int64_t)token * f->n_heads + head) * n + i] - (empty ? 0 : want[i]));
        worst = error <= worst ? worst : error; /* a NaN too */
    }
    return worst;
}

START_TEST(reference_is_near_double)
{
    struct fixture f;
    if (!fixture_init(&f, &shapes[_i % N_SHAPES], types[_i / N_SHAPES].k, types[_i / N_SHAPES].v))
        return;
    float *out = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    for (int t = 0; t < f.n_tokens; t += 1 + f.n_tokens / 6)
        for (int h = 0; h < f.n_heads; h += 1 + f.n_heads / 3)
            ck_assert_double_le(worst_error(&f, out, t, h), 3e-6);
    free(out);
    fixture_free(&f);
}
END_TEST

/* The batch at once, in pieces of 7 tokens and (where that is quick) one by one. */
static void same_everywhere(const struct fixture *f, const float *want)
{
    const int steps[] = {f->n_tokens, 7, 1};
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int threads = 1; threads <= 2; threads++)
            for (int i = 0; i < 3; i++) {
                bool again = i > 0 && steps[i] >= f->n_tokens, slow = i == 2 && f->n_tokens > 20;
                if (again || slow || (isa == ISA_SCALAR && threads == 1))
                    continue;
                float *got = attend_all(f, isa, threads, steps[i]);
                int64_t at = first_difference(got, want, (int64_t)out_len(f));
                ck_assert_msg(at < 0, "%s, %d threads, %d tokens at a time: element %" PRId64, isa_name(isa),
                              threads, steps[i], at);
                free(got);
            }
}

START_TEST(attention_is_the_same_everywhere)
{
    struct fixture f;
    if (!fixture_init(&f, &shapes[_i % N_SHAPES], types[_i / N_SHAPES].k, types[_i / N_SHAPES].v))
        return;
    float *want = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    size_t finite = 0;
    while (finite < out_len(&f) && isfinite(want[finite]))
        finite++;
    ck_assert_uint_eq(finite, out_len(&f));
    same_everywhere(&f, want);
    free(want);
    fixture_free(&f);
}
END_TEST

/* Tokens that see any range of their sequence, some nothing at all. */
START_TEST(any_range_is_seen)
{
    const struct shape s = {32, 2, 3, 200, 30, 0, 2, 0};
    struct fixture f;
    ck_assert(fixture_init(&f, &s, types[_i].k, types[_i].v));
    uint64_t state = 4;
    for (int t = 0; t < f.n_tokens; t++) {
        int64_t a = (int64_t)(fabsf(random_uniform(&state)) * 200),
                b = (int64_t)(fabsf(random_uniform(&state)) * 200);
        f.slot[t].begin = a < b ? a : b;
        f.slot[t].end = t % 9 == 0 ? f.slot[t].begin : a < b ? b : a;
        if (t % 5 == 0)
            f.slot[t].begin = f.slot[t].begin / KV_PAGE * KV_PAGE;
    }
    float *want = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    for (int t = 0; t < f.n_tokens; t++)
        ck_assert_double_le(worst_error(&f, want, t, t % f.n_heads), 3e-6);
    same_everywhere(&f, want);
    free(want);
    fixture_free(&f);
}
END_TEST

/* A prefix that sees all of itself beside a sliding window and a causal sequence: together as alone. */
START_TEST(kinds_of_sequence_mix)
{
    enum { TOKENS = 6, PREFIX = 190, WINDOW = 70 };
    const struct shape s = {64, 2, 3, 200, TOKENS, 0, 3, 0};
    struct fixture f;
    ck_assert(fixture_init(&f, &s, types[_i].k, types[_i].v));
    for (int t = 0; t < TOKENS; t++) {
        f.slot[t].pos = 100 + 10 * t; /* tokens of the prefix */
        f.slot[t].end = PREFIX;
        f.slot[TOKENS + t].begin = f.slot[TOKENS + t].end - WINDOW;
    }
    float *want = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    for (int t = 0; t < f.n_tokens; t++)
        ck_assert_double_le(worst_error(&f, want, t, t % f.n_heads), 3e-6);
    same_everywhere(&f, want);
    free(want);
    fixture_free(&f);
}
END_TEST

/* e^x over all of its range and at its edges, masked in every way; m and l too. */
START_TEST(softmax_is_the_same_everywhere)
{
    enum { ROWS = 500 };
    static float scores[ROWS * KV_PAGE], want[ROWS * KV_PAGE], got[ROWS * KV_PAGE];
    const float edges[] = {
        EXP_MIN, nextafterf(EXP_MIN, 0), nextafterf(EXP_MIN, -100), -INFINITY, -0.0f, 0, -1e-30f, -200};
    uint8_t begin[ROWS], end[ROWS];
    float m[2][ROWS], l[2][ROWS];
    uint64_t state = 5;
    for (int r = 0; r < ROWS; r++) {
        begin[r] = (uint8_t)(r % 3 ? 0 : r / 3 % KV_PAGE);
        end[r] = (uint8_t)(begin[r] + 1 + (KV_PAGE - begin[r] - 1) * (r % 5) / 4);
        for (int i = 0; i < KV_PAGE; i++)
            scores[r * KV_PAGE + i] =
                i % 7 == 3 ? edges[(r + i) % 8] : -100 * fabsf(random_uniform(&state)) / (float)(1 + r % 50);
        scores[r * KV_PAGE + begin[r]] = 0;
    }
    struct attention_block a = {.n_rows = ROWS,
                                .begin = begin,
                                .end = end,
                                .scale = 1,
                                .softcap = _i ? 30 : 0,
                                .s = want,
                                .m = m[0],
                                .l = l[0]};
    memcpy(want, scores, sizeof want);
    cpu_kernels(ISA_SCALAR)->attention_softmax(&a);
    for (enum isa isa = next_isa(ISA_SCALAR); isa < ISA_COUNT; isa = next_isa(isa)) {
        a.s = got;
        a.m = m[1];
        a.l = l[1];
        memcpy(got, scores, sizeof got);
        cpu_kernels(isa)->attention_softmax(&a);
        ck_assert_mem_eq(got, want, sizeof got);
        ck_assert_mem_eq(l[1], l[0], sizeof l[0]);
        for (int r = 0; r < ROWS; r++)
            ck_assert(m[1][r] == 0 && m[0][r] == 0); /* of either sign */
    }
}
END_TEST

/* More blocks than a wave of split work has, and scratch for the shorter ones too. */
START_TEST(waves_are_the_same)
{
    const struct shape s = {32, 2, 2, 64 * 70 + 5, 3, 0, 1, 0};
    struct fixture f;
    ck_assert(fixture_init(&f, &s, QTYPE_F16, QTYPE_Q8_0));
    float *want = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa = next_isa(isa))
        for (int step = 1; step <= 3; step++) {
            float *got = attend_all(&f, isa, 2, step);
            ck_assert(first_difference(got, want, (int64_t)out_len(&f)) < 0);
            free(got);
        }
    free(want);
    fixture_free(&f);
}
END_TEST

/* One faulty key or value spoils what depends on it, at every level alike, and nothing else. */
START_TEST(faults_stay_visible)
{
    enum { AT = 70, CHANNEL = 37, HEAD = 1 };
    const struct shape s = {64, 2, 3, 140, 80, 0, 1, 0};
    const float faults[] = {NAN, INFINITY, -INFINITY};
    struct fixture f;
    ck_assert(fixture_init(&f, &s, types[_i / 6].k, types[_i / 6].v));
    bool in_key = _i % 2;
    float fault = faults[_i / 2 % 3], *clean = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    (in_key ? f.k : f.v)[(AT * s.n_kv_heads + HEAD) * s.head_dim + CHANNEL] = fault;
    store(&f, 0, AT);
    float *want = attend_all(&f, ISA_SCALAR, 1, f.n_tokens);
    enum qtype t = in_key ? f.l.type_k : f.l.type_v;
    bool whole_block = qtypes[t].block_len > 1; /* the block's scale becomes NaN */
    int n_wrong = 0;
    for (int token = 0; token < f.n_tokens; token++)
        for (int h = 0; h < f.n_heads; h++)
            for (int i = 0; i < s.head_dim; i++) {
                int64_t at = ((int64_t)token * f.n_heads + h) * s.head_dim + i;
                bool reached = f.slot[token].end > AT && h / s.group == HEAD &&
                               (in_key || (whole_block ? i / ACT_LEN == CHANNEL / ACT_LEN : i == CHANNEL));
                if (!reached)
                    n_wrong += first_difference(&want[at], &clean[at], 1) >= 0;
                else if (isnan(fault) || whole_block)
                    n_wrong += !isnan(want[at]);
                else if (!in_key)
                    n_wrong += isfinite(want[at]);
                else /* a score of -Inf is a probability of zero, one of +Inf is NaN */
                    n_wrong += isfinite(want[at]) == (f.q[at - i + CHANNEL] * fault > 0);
            }
    ck_assert_int_eq(n_wrong, 0);
    same_everywhere(&f, want);
    free(clean);
    free(want);
    fixture_free(&f);
}
END_TEST

static Suite *attention_suite(void)
{
    Suite *s = suite_create("kernels/attention");
    TCase *t = tcase_create("attention");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, reference_is_near_double, 0, N_SHAPES * N_TYPES);
    tcase_add_loop_test(t, attention_is_the_same_everywhere, 0, N_SHAPES * N_TYPES);
    tcase_add_loop_test(t, any_range_is_seen, 0, N_TYPES);
    tcase_add_loop_test(t, kinds_of_sequence_mix, 0, N_TYPES);
    tcase_add_loop_test(t, softmax_is_the_same_everywhere, 0, 2);
    tcase_add_test(t, waves_are_the_same);
    tcase_add_loop_test(t, faults_stay_visible, 0, 6 * N_TYPES);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(attention_suite)
