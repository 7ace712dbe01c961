/* The sampler chain against golden/sampling (float64 reference, most cases checked against transformers),
 * and what the golden cases do not reach: DRY, drawing, awkward logits, limits. */
#include "model/sampler.h"
#include "tests/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char err[512];

/* A chain of which every step is off. */
static struct sampler_options neutral(void)
{
    struct sampler_options o;
    sampler_defaults(&o);
    o.seed = 1;
    o.temp = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    o.repeat_last_n = -1;
    return o;
}

static struct sampler *make(const struct sampler_options *o, int vocab_size)
{
    struct sampler *s;
    int failed = sampler_new(&s, o, vocab_size, err, sizeof err);
    ck_assert_msg(!failed, "%s", err);
    return s;
}

static float *read_logits(json_t *array, size_t *n)
{
    *n = json_array_size(array);
    float *x = malloc(*n * sizeof *x);
    for (size_t i = 0; i < *n; i++) {
        json_t *v = json_array_get(array, i);
        x[i] = json_is_null(v) ? -INFINITY : (float)json_number_value(v);
    }
    return x;
}

static float number(json_t *v)
{
    return (float)json_number_value(v);
}

/* Sets one step of a golden chain; the step's name in our lists. */
static const char *set_step(struct sampler_options *o, const char *step, json_t *v, struct logit_bias *bias)
{
    if (strcmp(step, "temperature") == 0)
        return o->temp = number(v), "temperature";
    if (strcmp(step, "top_k") == 0)
        return o->top_k = (int)json_integer_value(v), "top_k";
    if (strcmp(step, "top_p") == 0)
        return o->top_p = number(v), "top_p";
    if (strcmp(step, "min_p") == 0)
        return o->min_p = number(v), "min_p";
    if (strcmp(step, "typical_p") == 0)
        return o->typical = number(v), "typ_p";
    if (strcmp(step, "tail_free") == 0)
        return o->tfs = number(v), "tfs";
    if (strcmp(step, "top_n_sigma") == 0)
        return o->top_n_sigma = number(v), "top_n_sigma";
    if (strcmp(step, "xtc") == 0)
        return o->xtc_probability = 1, o->xtc_threshold = number(v), "xtc";
    if (strcmp(step, "repetition") == 0)
        return o->repeat_penalty = number(v), "penalties";
    if (strcmp(step, "frequency") == 0)
        return o->frequency_penalty = number(v), "penalties";
    if (strcmp(step, "presence") == 0)
        return o->presence_penalty = number(v), "penalties";
    ck_assert_str_eq(step, "logit_bias");
    const char *id;
    json_t *value;
    json_object_foreach(v, id, value)
    {
        ck_assert_uint_lt(o->n_logit_bias, 16);
        bias[o->n_logit_bias++] =
            (struct logit_bias){atoi(id), json_is_null(value) ? -INFINITY : number(value)};
    }
    o->logit_bias = bias;
    return "";
}

static void check_case(json_t *c, json_t *all_logits)
{
    const char *id = json_string_value(json_object_get(c, "id"));
    size_t n;
    float *logits =
        read_logits(json_object_get(all_logits, json_string_value(json_object_get(c, "logits"))), &n);
    struct sampler_options o = neutral();
    struct logit_bias bias[16];
    char list[256] = "";
    json_t *entry;
    size_t i;
    json_array_foreach(json_object_get(c, "chain"), i, entry)
    {
        const char *name =
            set_step(&o, json_string_value(json_array_get(entry, 0)), json_array_get(entry, 1), bias);
        size_t len = strlen(list);
        if (name[0] && !strstr(list, name)) /* frequency and presence are one step */
            snprintf(list + len, sizeof list - len, "%s%s", len ? ";" : "", name);
    }
    o.samplers = list;
    struct sampler *s = make(&o, (int)n);
    json_array_foreach(json_object_get(c, "previous"), i, entry)
    {
        ck_assert_int_eq(sampler_accept(s, (int32_t)json_integer_value(entry)), 0);
    }

    size_t kept;
    const struct candidate *cand = sampler_distribution(s, logits, &kept);
    ck_assert_msg((int)kept == json_integer_value(json_object_get(c, "n_kept")), "%s: %zu kept", id, kept);
    float *p = calloc(n, sizeof *p);
    size_t best = 0;
    for (i = 0; i < kept; i++) {
        p[cand[i].id] = cand[i].p;
        best = cand[i].p > cand[best].p ? i : best;
    }
    ck_assert_msg(cand[best].id == json_integer_value(json_object_get(c, "argmax")), "%s: argmax", id);
    double sum = 0;
    json_array_foreach(json_object_get(c, "probs"), i, entry)
    {
        json_int_t token = json_integer_value(json_array_get(entry, 0));
        double want = json_number_value(json_array_get(entry, 1));
        ck_assert_msg(fabs((double)p[token] - want) <= 1e-5, "%s: p[%d] = %g, not %g", id, (int)token,
                      (double)p[token], want);
        sum += want;
    }
    ck_assert_double_eq_tol(sum, 1, 1e-4); /* so no other token has any p */
    free(p);
    free(logits);
    sampler_free(s);
}

START_TEST(golden_steps)
{
    const char *path = test_golden("sampling/logits.json");
    if (!path) {
        test_skip("sampling", "no golden data");
        return;
    }
    json_t *logits = json_load_file(path, 0, NULL);
    ck_assert_ptr_nonnull(logits);
    FILE *f = fopen(test_golden("sampling/steps.jsonl"), "r");
    ck_assert_ptr_nonnull(f);
    int n_cases = 0;
    json_t *c;
    while ((c = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        check_case(c, logits);
        json_decref(c);
        n_cases++;
    }
    ck_assert_int_ge(n_cases, 300);
    fclose(f);
    json_decref(logits);
}
END_TEST

START_TEST(golden_mirostat)
{
    const char *path = test_golden("sampling/logits.json");
    if (!path) {
        test_skip("mirostat", "no golden data");
        return;
    }
    json_t *all = json_load_file(path, 0, NULL);
    json_t *cases = json_load_file(test_golden("sampling/mirostat2.json"), 0, NULL);
    ck_assert_uint_ge(json_array_size(cases), 1);
    json_t *c, *step;
    size_t i, k;
    json_array_foreach(cases, i, c)
    {
        size_t n, kept;
        float *x = read_logits(json_object_get(all, json_string_value(json_object_get(c, "logits"))), &n);
        float *rolled = malloc(n * sizeof *rolled);
        struct sampler_options o = neutral();
        o.mirostat = 2;
        o.mirostat_tau = number(json_object_get(c, "tau"));
        o.mirostat_eta = number(json_object_get(c, "eta"));
        struct sampler *s = make(&o, (int)n);
        ck_assert_float_eq_tol(sampler_mirostat_mu(s), number(json_object_get(c, "mu_start")), 1e-6f);
        json_array_foreach(json_object_get(c, "trace"), k, step)
        {
            size_t roll = (size_t)json_integer_value(json_object_get(step, "roll")) % n;
            for (size_t j = 0; j < n; j++)
                rolled[(j + roll) % n] = x[j];
            const struct candidate *cand = sampler_distribution(s, rolled, &kept);
            ck_assert_int_eq((int)kept, json_integer_value(json_object_get(step, "n_kept")));
            size_t j = 0;
            while (j < kept && cand[j].id != json_integer_value(json_object_get(step, "chosen")))
                j++;
            ck_assert_uint_lt(j, kept);
            ck_assert_float_eq_tol(cand[j].p, number(json_object_get(step, "p_chosen")), 1e-5f);
            sampler_choose(s, &cand[j]);
            ck_assert_float_eq_tol(sampler_mirostat_mu(s), number(json_object_get(step, "mu_after")), 1e-4f);
        }
        sampler_free(s);
        free(rolled);
        free(x);
    }
    json_decref(cases);
    json_decref(all);
}
END_TEST

/* ---- DRY --------------------------------------------------------------------------------------- */

/* The definition, quadratic: how long a repetition of the text's end would id continue? */
static int dry_reference(const int32_t *text, int n, int32_t id, const bool *breaker)
{
    int longest = 0;
    for (int i = 0; i + 1 < n; i++) {
        int m = 0;
        while (m <= i && text[i - m] == text[n - 1 - m] && !breaker[text[n - 1 - m]])
            m++;
        if (text[i + 1] == id && !breaker[id] && m > longest)
            longest = m;
    }
    return longest;
}

START_TEST(dry_matches_definition)
{
    enum { VOCAB = 5, LEN = 60 };
    srand(7 + (unsigned)_i);
    int32_t text[LEN];
    bool breaker[VOCAB] = {false};
    breaker[4] = _i % 2 == 1;
    struct sampler_options o = neutral();
    o.dry_multiplier = 0.5f;
    o.dry_base = 1.25f;
    o.dry_allowed_length = 1 + _i % 3;
    o.dry_penalty_last_n = _i % 4 == 3 ? 17 : -1;
    o.dry_breaker = breaker;
    o.samplers = "dry";
    struct sampler *s = make(&o, VOCAB);
    float logits[VOCAB] = {0};
    for (int n = 0; n < LEN; n++) {
        int from = o.dry_penalty_last_n >= 0 && n > o.dry_penalty_last_n ? n - o.dry_penalty_last_n : 0;
        size_t kept;
        const struct candidate *c = sampler_distribution(s, logits, &kept);
        ck_assert_uint_eq(kept, VOCAB);
        for (size_t i = 0; i < kept; i++) {
            int m = dry_reference(text + from, n - from, c[i].id, breaker);
            double penalty =
                m > 0 && m >= o.dry_allowed_length ? 0.5 * pow(1.25, m - o.dry_allowed_length) : 0;
            ck_assert_double_eq_tol((double)c[i].logit, -penalty, 1e-4 * (1 + penalty));
        }
        /* runs, loops and noise */
        text[n] = n % 20 < 10 ? n % (2 + _i % 3) : rand() % VOCAB;
        ck_assert_int_eq(sampler_accept(s, text[n]), 0);
    }
    sampler_free(s);
}
END_TEST

/* ---- Drawing ----------------------------------------------------------------------------------- */

START_TEST(same_seed_same_ids)
{
    enum { VOCAB = 300 };
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = 3 * sinf((float)(i * i));
    struct sampler_options o;
    sampler_defaults(&o);
    o.xtc_probability = 0.5f;
    int different = 0;
    struct sampler *a, *b, *c;
    o.seed = 42;
    a = make(&o, VOCAB);
    b = make(&o, VOCAB);
    o.seed = 43;
    c = make(&o, VOCAB);
    for (int i = 0; i < 200; i++) {
        int32_t id = sampler_pick(a, logits);
        ck_assert_int_eq(id, sampler_pick(b, logits));
        different += id != sampler_pick(c, logits);
    }
    ck_assert_int_gt(different, 50);
    sampler_free(a);
    sampler_free(b);
    sampler_free(c);
}
END_TEST

START_TEST(draws_follow_the_distribution)
{
    enum { VOCAB = 6, DRAWS = 60000 };
    float logits[VOCAB] = {0, 1, 2, -1, -INFINITY, 1.5f};
    struct sampler_options o = neutral();
    struct sampler *s = make(&o, VOCAB);
    int count[VOCAB] = {0};
    for (int i = 0; i < DRAWS; i++)
        count[sampler_pick(s, logits)]++;
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i]);
    for (int i = 0; i < VOCAB; i++) {
        double p = exp((double)logits[i]) / sum, sigma = sqrt(p * (1 - p) * DRAWS);
        ck_assert_double_le(fabs(count[i] - p * DRAWS), 4.5 * sigma);
    }
    sampler_free(s);
}
END_TEST

START_TEST(greedy_is_the_first_largest)
{
    enum { VOCAB = 1000 };
    float logits[VOCAB] = {0};
    logits[7] = logits[400] = logits[999] = 5;
    struct sampler_options o;
    sampler_defaults(&o);
    o.temp = 0;
    o.xtc_probability = 1; /* would drop the best one: greedy is greedy */
    o.xtc_threshold = 0;
    struct sampler *s = make(&o, VOCAB);
    ck_assert_int_eq(sampler_pick(s, logits), 7);
    sampler_free(s);

    o.repeat_penalty = 2; /* but penalties count */
    s = make(&o, VOCAB);
    sampler_accept(s, 7);
    ck_assert_int_eq(sampler_pick(s, logits), 400);
    sampler_reset(s);
    ck_assert_int_eq(sampler_pick(s, logits), 7);
    sampler_free(s);
}
END_TEST

START_TEST(window_of_penalties_slides)
{
    float logits[4] = {1, 1, 1, 1};
    struct sampler_options o = neutral();
    o.presence_penalty = 1;
    o.repeat_last_n = 2;
    struct sampler *s = make(&o, 4);
    for (int32_t id = 0; id < 4; id++)
        sampler_accept(s, id);
    size_t n;
    const struct candidate *c = sampler_distribution(s, logits, &n);
    for (size_t i = 0; i < n; i++)
        ck_assert_float_eq(c[i].logit, c[i].id < 2 ? 1.0f : 0.0f);
    sampler_free(s);
}
END_TEST

START_TEST(ties_go_to_the_lower_id)
{
    enum { VOCAB = 500 };
    float logits[VOCAB] = {0};
    struct sampler_options o = neutral();
    o.top_k = 37;
    struct sampler *s = make(&o, VOCAB);
    size_t n;
    const struct candidate *c = sampler_distribution(s, logits, &n);
    ck_assert_uint_eq(n, 37);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(c[i].id, (int)i);
    sampler_free(s);
}
END_TEST

/* ---- Awkward logits ---------------------------------------------------------------------------- */

static const char *const chains[] = {
    "",
    SAMPLER_DEFAULT_STEPS,
    "temperature;xtc;min_p;top_p;tfs;typ_p;top_k;top_n_sigma;dry;penalties",
    "typical;typical;nucleus;tail_free;temp",
};
enum { N_CHAINS = sizeof chains / sizeof chains[0], VOCAB_BAD = 200 };

START_TEST(bad_logits_pick_something_valid)
{
    struct sampler_options o;
    sampler_defaults(&o);
    o.samplers = chains[_i % N_CHAINS];
    o.mirostat = _i / N_CHAINS % 2 ? 2 : 0;
    o.temp = _i / N_CHAINS / 2 ? 1e-30f : 0.7f;
    o.typical = 0.9f;
    o.tfs = 0.9f;
    o.top_n_sigma = 1;
    o.xtc_probability = 1;
    o.repeat_penalty = 1e30f;
    o.dry_multiplier = 1e30f;
    o.dry_base = 1e30f;
    struct sampler *s = make(&o, VOCAB_BAD);
    float x[VOCAB_BAD];
    for (int kind = 0; kind < 6; kind++) {
        for (int i = 0; i < VOCAB_BAD; i++) {
            const float values[6] = {
                NAN, -INFINITY, INFINITY, i % 3 ? NAN : 1, i % 2 ? 3e38f : -3e38f, i == 150 ? 0 : -INFINITY};
            x[i] = values[kind];
        }
        for (int k = 0; k < 20; k++) {
            int32_t id = sampler_pick(s, x);
            ck_assert_int_ge(id, 0);
            ck_assert_int_lt(id, VOCAB_BAD);
            if (kind < 2)
                ck_assert_int_eq(id, 0); /* nothing to pick from */
            if (kind == 3)
                ck_assert_int_eq(id % 3, 0); /* never a NaN */
            if (kind == 5)
                ck_assert_int_eq(id, 150);
            sampler_accept(s, id);
            sampler_accept(s, -1); /* ignored */
            sampler_accept(s, VOCAB_BAD);
        }
    }
    sampler_free(s);
}
END_TEST

START_TEST(bad_options_are_refused)
{
    struct sampler *s;
    struct sampler_options o;
    const struct logit_bias far = {10, 1}, below = {-1, 1};
    static const char *const lists[] = {
        "top_k;nonsense", "top", ";", "top_k;;top_p",
        "xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc;xtc"};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        sampler_defaults(&o);
        o.samplers = lists[i];
        ck_assert_int_eq(sampler_new(&s, &o, 10, err, sizeof err), -1);
        ck_assert_int_eq(sampler_check_steps(lists[i], err, sizeof err), -1);
        ck_assert_ptr_null(s);
    }
    for (int i = 0; i < 5; i++) {
        sampler_defaults(&o);
        if (i == 0)
            o.temp = NAN;
        else if (i == 1)
            o.mirostat = 1;
        else if (i == 2)
            o.logit_bias = &far, o.n_logit_bias = 1;
        else if (i == 3)
            o.logit_bias = &below, o.n_logit_bias = 1;
        else
            o.repeat_penalty = 0;
        ck_assert_int_eq(sampler_new(&s, &o, 10, err, sizeof err), -1);
    }
    sampler_defaults(&o);
    ck_assert_int_eq(sampler_new(&s, &o, 0, err, sizeof err), -1);
    ck_assert_int_eq(sampler_check_steps("top-k;temp;typical", err, sizeof err), 0);
}
END_TEST

/* Sorting must not turn quadratic on any order of a large vocabulary. */
START_TEST(large_vocabulary_is_quick)
{
    enum { VOCAB = 150000, PICKS = 10 };
    float *x = malloc(VOCAB * sizeof *x);
    for (int i = 0; i < VOCAB; i++)
        x[i] = _i == 0 ? (float)i : _i == 1 ? -(float)i : _i == 2 ? 0 : (float)(i * 7919 % 10007) * 1e-3f;
    struct sampler_options o;
    sampler_defaults(&o);
    o.samplers = _i == 3 ? "typ_p;tfs;top_p" : NULL;
    o.typical = o.tfs = 0.99f;
    struct sampler *s = make(&o, VOCAB);
    clock_t start = clock();
    for (int k = 0; k < PICKS; k++)
        ck_assert_int_lt(sampler_pick(s, x), VOCAB);
    /* a few milliseconds each; seconds would be the mistake */
    ck_assert_double_lt((double)(clock() - start) / CLOCKS_PER_SEC, 20);
    sampler_free(s);
    free(x);
}
END_TEST

static Suite *sampler_suite(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tc = tcase_create("sampler");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, golden_steps);
    tcase_add_test(tc, golden_mirostat);
    tcase_add_loop_test(tc, dry_matches_definition, 0, 12);
    tcase_add_test(tc, same_seed_same_ids);
    tcase_add_test(tc, draws_follow_the_distribution);
    tcase_add_test(tc, greedy_is_the_first_largest);
    tcase_add_test(tc, window_of_penalties_slides);
    tcase_add_test(tc, ties_go_to_the_lower_id);
    tcase_add_loop_test(tc, bad_logits_pick_something_valid, 0, 4 * N_CHAINS);
    tcase_add_test(tc, bad_options_are_refused);
    tcase_add_loop_test(tc, large_vocabulary_is_quick, 0, 4);
    suite_add_tcase(suite, tc);
    return suite;
}

TEST_SUITE(sampler_suite)
