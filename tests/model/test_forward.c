/* The forward pass: golden logits, and the same bits for every setting. */
#include "tests/model/fixture.h"
#include "tests/model/gguf_edit.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Golden models: a few of whole architectures, and one for every quantised type. */
static const char *const plain_models[] = {"llama-f32", "llama-f16", "llama-bf16", "qwen2-f32", "qwen2-f16"};

enum {
    N_PLAIN = sizeof plain_models / sizeof *plain_models,
    N_MODELS = N_PLAIN + QTYPE_N_MATRIX - QTYPE_Q4_0,
};

static const char *model_name(int i)
{
    static char name[64];
    if (i < N_PLAIN)
        return plain_models[i];
    (void)snprintf(name, sizeof name, "quant-%s", qtypes[QTYPE_Q4_0 + i - N_PLAIN].name);
    return name;
}

/* Those that are there: loop tests run over them. */
static int models[N_MODELS], n_models;

static const char *model_file(int i, const char *file)
{
    char name[128];
    (void)snprintf(name, sizeof name, "gguf/%s/%s", model_name(i), file);
    return test_golden(name);
}

static void find_models(void)
{
    char missing[512] = "";
    n_models = 0;
    for (int i = 0; i < N_MODELS; i++)
        if (model_file(i, "model.gguf") && model_file(i, "expected.safetensors")) {
            models[n_models++] = i;
        } else {
            size_t at = strlen(missing);
            (void)snprintf(missing + at, sizeof missing - at, " %s", model_name(i));
        }
    if (missing[0])
        test_skip("golden models of gguf/", missing + 1);
}

static void *new_floats(int64_t n)
{
    void *p = malloc((size_t)n * sizeof(float));
    ck_assert_ptr_nonnull(p);
    return p;
}

static double max_error(const float *a, const float *b, int64_t n)
{
    double max = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= max))
            max = d;
    }
    return max;
}

/* ---- Golden values ------------------------------------------------------------------------------ */

static void check_golden(const char *what, const char *model_path, const struct expected *e, enum isa isa,
                         int n_greedy, double tolerance)
{
    struct setting s = plain;
    s.isa = isa;
    struct fixture f = fixture_open(model_path, &s);
    float *logits = new_floats((int64_t)e->n * f.vocab_size);
    int32_t greedy[64];
    ck_assert(n_greedy <= e->n_greedy && n_greedy <= 64);
    fixture_eval(&f, 0, e->ids, e->n, logits);
    const float *tail = logits + (int64_t)(e->n - e->n_logits) * f.vocab_size;
    double error = max_error(tail, e->logits, (int64_t)e->n_logits * f.vocab_size);
    ck_assert_msg(error <= tolerance, "%s, %s: largest error of a logit %g", what, isa_name(isa), error);
    fixture_greedy(&f, logits + (int64_t)(e->n - 1) * f.vocab_size, greedy, n_greedy);
    for (int i = 0; i < n_greedy; i++)
        ck_assert_msg(greedy[i] == e->greedy[i], "%s, %s: greedy token %d is %d, not %d", what, isa_name(isa),
                      i, greedy[i], e->greedy[i]);
    free(logits);
    fixture_close(&f);
}

START_TEST(golden_logits) /* loop over models */
{
    const int model = models[_i];
    struct expected e = expected_open(model_file(model, "expected.safetensors"));
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++)
        if (isa_supported(isa) && isa_built(isa))
            check_golden(model_name(model), model_file(model, "model.gguf"), &e, isa, e.n_greedy, 1e-3);
    weights_close(e.w);
}
END_TEST

/* Published models, where they are; the default one under the name it is fetched by, too. */
static const struct {
    const char *golden, *file, *other;
} real_models[] = {
    {"real/smollm2-135m-q4_1", "smollm2-135m-q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"real/qwen-0.5b", "qwen-0.5b.gguf", NULL},
};

enum { N_REAL = sizeof real_models / sizeof *real_models };

/* With sanitizers a real model takes minutes; the tiny ones have been everywhere it goes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD true
#elif defined(__has_feature)
#define SLOW_BUILD (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SLOW_BUILD false
#endif

START_TEST(golden_real) /* loop over real models */
{
    char golden[128], model[1024];
    (void)snprintf(golden, sizeof golden, "%s/expected.safetensors", real_models[_i].golden);
    const char *path = test_model(real_models[_i].file);
    if (!path && real_models[_i].other)
        path = test_model(real_models[_i].other);
    if (!path) {
        test_skip(real_models[_i].file, "no such model");
        return;
    }
    (void)snprintf(model, sizeof model, "%s", path);
    path = test_golden(golden);
    if (!path) {
        test_skip(golden, "no such golden file");
        return;
    }
    struct expected e = expected_open(path);
    check_golden(real_models[_i].file, model, &e, isa_best(), SLOW_BUILD ? 2 : e.n_greedy, 2e-2);

    /* The other levels: the same bits, on fewer tokens. */
    const int n = SLOW_BUILD ? 1 : 5;
    float *ref = NULL;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa) || !isa_built(isa))
            continue;
        struct setting s = plain;
        s.isa = isa;
        s.compute = COMPUTE_FAST;
        s.kv_type = QTYPE_F16;
        struct fixture f = fixture_open(model, &s);
        float *got = new_floats((int64_t)n * f.vocab_size);
        fixture_eval(&f, 0, e.ids, n, got);
        if (ref)
            ck_assert_msg(memcmp(ref, got, (size_t)(n * f.vocab_size) * sizeof *got) == 0, "%s: %s",
                          real_models[_i].file, isa_name(isa));
        free(ref);
        ref = got;
        fixture_close(&f);
    }
    free(ref);
    weights_close(e.w);
}
END_TEST

/* ---- The same bits ------------------------------------------------------------------------------ */

enum { N_LEVEL_TOKENS = 70, N_TOKENS = 150, N_PREFIX = 77, N_BRANCH = 40 };

START_TEST(levels_have_the_same_bits) /* loop over models × compute */
{
    const int model = models[_i / 2];
    struct setting s = plain;
    s.compute = _i % 2 ? COMPUTE_F32 : COMPUTE_FAST;
    s.kv_type = _i % 2 ? QTYPE_F32 : QTYPE_F16;
    int32_t id[N_LEVEL_TOKENS];
    float *ref = NULL;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa) || !isa_built(isa))
            continue;
        s.isa = isa;
        struct fixture f = fixture_open(model_file(model, "model.gguf"), &s);
        make_ids(id, N_LEVEL_TOKENS, f.vocab_size, 1);
        float *got = new_floats((int64_t)N_LEVEL_TOKENS * f.vocab_size);
        fixture_eval(&f, 0, id, N_LEVEL_TOKENS, got);
        if (ref) {
            ck_assert_msg(memcmp(ref, got, (size_t)(N_LEVEL_TOKENS * f.vocab_size) * sizeof *got) == 0,
                          "%s: %s differs from scalar", model_name(model), isa_name(isa));
            free(got);
        } else {
            ref = got;
        }
        fixture_close(&f);
    }
    free(ref);
}
END_TEST

/* Settings that must not change a bit, on models of every kind of weight and cache. */
static const struct {
    const char *model;
    enum compute compute;
    enum qtype kv_type;
} cases[] = {
    {"llama-f32", COMPUTE_FAST, QTYPE_F32},     {"llama-f16", COMPUTE_FAST, QTYPE_F16},
    {"llama-bf16", COMPUTE_FAST, QTYPE_F16},    {"qwen2-f16", COMPUTE_F32, QTYPE_F32},
    {"quant-q4_0", COMPUTE_FAST, QTYPE_Q8_0},   {"quant-q4_0", COMPUTE_F32, QTYPE_Q4_0},
    {"quant-q4_1", COMPUTE_FAST, QTYPE_F16},    {"quant-q4_1", COMPUTE_F32, QTYPE_F32},
    {"quant-q2_k", COMPUTE_FAST, QTYPE_F16},    {"quant-q6_k", COMPUTE_F32, QTYPE_F16},
    {"quant-iq4_xs", COMPUTE_FAST, QTYPE_Q4_0},
};

enum { N_CASES = sizeof cases / sizeof *cases };

struct same {
    struct setting s;
    struct fixture f;
    int32_t id[N_TOKENS];
    float *ref, *got;
};

static bool same_open(struct same *t, int i)
{
    char name[128];
    (void)snprintf(name, sizeof name, "gguf/%s/model.gguf", cases[i].model);
    const char *path = test_golden(name);
    if (!path) {
        test_skip(name, "no such golden file");
        return false;
    }
    t->s = plain;
    t->s.isa = isa_best();
    t->s.compute = cases[i].compute;
    t->s.kv_type = cases[i].kv_type;
    t->s.n_seqs = 2;
    t->s.n_ctx = 2 * N_TOKENS;
    t->f = fixture_open(path, &t->s);
    make_ids(t->id, N_TOKENS, t->f.vocab_size, 2);
    t->ref = new_floats((int64_t)N_TOKENS * t->f.vocab_size);
    t->got = new_floats((int64_t)N_TOKENS * t->f.vocab_size);
    fixture_eval(&t->f, 0, t->id, N_TOKENS, t->ref);
    return true;
}

static void same_close(struct same *t)
{
    free(t->ref);
    free(t->got);
    fixture_close(&t->f);
}

/* Rows of got are those of ref from token `from` on. */
static void check_same(const struct same *t, int from, int n, const char *what)
{
    size_t row = (size_t)t->f.vocab_size * sizeof *t->ref;
    for (int i = 0; i < n; i++)
        ck_assert_msg(
            memcmp((char *)t->got + (size_t)i * row, (char *)t->ref + (size_t)(from + i) * row, row) == 0,
            "%s: token %d differs", what, from + i);
}

START_TEST(threads_and_slices_change_no_bit)
{
    static const struct {
        int n_threads, max_batch;
    } settings[] = {{1, 1}, {1, 64}, {2, 7}, {2, 512}, {3, 64}};
    struct same t;
    if (!same_open(&t, _i))
        return;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        struct setting s = t.s;
        s.n_threads = settings[i].n_threads;
        s.max_batch = settings[i].max_batch;
        fixture_set(&t.f, &s);
        fixture_eval(&t.f, 0, t.id, N_TOKENS, t.got);
        char what[64];
        (void)snprintf(what, sizeof what, "%d threads, slices of %d", s.n_threads, s.max_batch);
        check_same(&t, 0, N_TOKENS, what);
    }
    same_close(&t);
}
END_TEST

START_TEST(reused_prefix_changes_no_bit)
{
    struct same t;
    if (!same_open(&t, _i))
        return;
    int32_t other[N_BRANCH];
    make_ids(other, N_BRANCH, t.f.vocab_size, 3);
    /* Two sequences share a prefix that ends inside a page; each goes its own way. */
    ck_assert_int_eq(cache_copy_prefix(t.f.cache, 1, 0, N_PREFIX), 0);
    cache_truncate(t.f.cache, 0, N_PREFIX);
    fixture_eval(&t.f, 0, other, N_BRANCH, NULL);
    fixture_eval(&t.f, 1, t.id + N_PREFIX, N_TOKENS - N_PREFIX, t.got);
    check_same(&t, N_PREFIX, N_TOKENS - N_PREFIX, "copied prefix");
    /* Back to the prefix, whose page was copied on the first write. */
    cache_truncate(t.f.cache, 0, N_PREFIX);
    fixture_eval(&t.f, 0, t.id + N_PREFIX, N_TOKENS - N_PREFIX, t.got);
    check_same(&t, N_PREFIX, N_TOKENS - N_PREFIX, "truncated");
    /* Token by token from the start, in pages that held something else. */
    cache_drop(t.f.cache, 0);
    cache_drop(t.f.cache, 1);
    for (int i = 0; i < N_TOKENS; i++)
        fixture_eval(&t.f, 0, &t.id[i], 1, t.got + (int64_t)i * t.f.vocab_size);
    check_same(&t, 0, N_TOKENS, "one at a time");
    same_close(&t);
}
END_TEST

START_TEST(neighbours_change_no_bit)
{
    struct same t;
    if (!same_open(&t, _i))
        return;
    cache_drop(t.f.cache, 0);
    /* Sequence 1 is the one compared; sequence 0's tokens, fewer, stand between its own. */
    enum { N_OTHER = 90, N_BOTH = N_TOKENS + N_OTHER };
    int32_t other[N_OTHER], id[N_BOTH], seq[N_BOTH];
    int64_t pos[N_BOTH];
    uint8_t want[N_BOTH];
    make_ids(other, N_OTHER, t.f.vocab_size, 4);
    int n = 0;
    for (int i = 0; i < N_TOKENS; i++) {
        if (i % 5 < 3 && n - i < N_OTHER) {
            id[n] = other[n - i];
            pos[n] = n - i;
            seq[n] = 0;
            want[n] = 0;
            n++;
        }
        id[n] = t.id[i];
        pos[n] = i;
        seq[n] = 1;
        want[n] = i % 3 == 0;
        n++;
    }
    char err[256];
    const float *logits;
    struct batch b = {.n = n, .id = id, .seq = seq, .pos = pos, .want_logits = want};
    ck_assert_msg(context_eval(t.f.context, &b, &logits, err, sizeof err) == 0, "%s", err);
    size_t row = (size_t)t.f.vocab_size;
    for (int i = 0; i < N_TOKENS; i += 3, logits += row)
        ck_assert_msg(memcmp(logits, t.ref + (size_t)i * row, row * sizeof *logits) == 0, "token %d differs",
                      i);
    same_close(&t);
}
END_TEST

START_TEST(file_layout_has_the_same_bits)
{
    struct same t;
    if (!same_open(&t, _i))
        return;
    if (!ops_cpu(t.s.isa)->packed_view) {
        same_close(&t);
        return;
    }
    struct model_options o = {.ops = ops_cpu(t.s.isa), .n_threads = 1, .rope_scaling = -1, .no_repack = true};
    t.s.n_threads = 2;
    fixture_reload(&t.f, &o, &t.s);
    fixture_eval(&t.f, 0, t.id, N_TOKENS, t.got);
    check_same(&t, 0, N_TOKENS, "not repacked");
    same_close(&t);
}
END_TEST

/* ---- --check-finite ----------------------------------------------------------------------------- */

static const struct {
    const char *tensor, *message; /* NaN in the tensor; NULL: none */
} poisons[] = {
    {NULL, NULL},
    {"blk.0.attn_norm.weight", "layer 0, attention norm: a value is not finite"},
    {"blk.1.attn_norm.weight", "layer 1, attention norm: a value is not finite"},
    {"blk.1.attn_k.bias", "layer 1, key: a value is not finite"},
    {"blk.0.attn_v.bias", "layer 0, value: a value is not finite"},
    {"blk.1.ffn_norm.weight", "layer 1, FFN norm: a value is not finite"},
    {"output_norm.weight", "output norm: a value is not finite"},
};

START_TEST(first_value_not_finite_is_named)
{
    const char *path = test_golden("gguf/qwen2-f16/model.gguf");
    if (!path) {
        test_skip("gguf/qwen2-f16", "no such golden file");
        return;
    }
    struct edit *g = edit_read(path);
    if (poisons[_i].tensor)
        ((float *)edit_find(g, poisons[_i].tensor)->data)[1] = NAN;
    path = edit_write(g);
    struct setting s = plain;
    s.max_batch = 8;
    s.check_finite = true;
    s.n_threads = 2;
    struct fixture f = fixture_open(path, &s);
    int32_t id[20];
    char err[256];
    make_ids(id, 20, f.vocab_size, 7);
    struct batch b = {.n = 20, .id = id};
    int rc = context_eval(f.context, &b, NULL, err, sizeof err);
    if (poisons[_i].tensor) {
        ck_assert_int_eq(rc, -1);
        ck_assert_str_eq(err, poisons[_i].message);
        ck_assert_int_eq(cache_len(f.cache, 0), 0);
        s.check_finite = false;
        fixture_set(&f, &s);
        ck_assert_int_eq(context_eval(f.context, &b, NULL, err, sizeof err), 0);
    } else {
        ck_assert_int_eq(rc, 0);
        ck_assert_int_eq(cache_len(f.cache, 0), 20);
    }
    fixture_close(&f);
    edit_free(g);
    (void)unlink(path);
}
END_TEST

static Suite *forward_suite(void)
{
    Suite *s = suite_create("model/forward");
    find_models();
    TCase *golden = tcase_create("golden");
    tcase_set_timeout(golden, 300);
    tcase_add_loop_test(golden, golden_logits, 0, n_models);
    tcase_add_loop_test(golden, golden_real, 0, N_REAL);
    suite_add_tcase(s, golden);

    TCase *bits = tcase_create("bits");
    tcase_set_timeout(bits, 120);
    tcase_add_loop_test(bits, levels_have_the_same_bits, 0, 2 * n_models);
    tcase_add_loop_test(bits, threads_and_slices_change_no_bit, 0, N_CASES);
    tcase_add_loop_test(bits, reused_prefix_changes_no_bit, 0, N_CASES);
    tcase_add_loop_test(bits, neighbours_change_no_bit, 0, N_CASES);
    tcase_add_loop_test(bits, file_layout_has_the_same_bits, 0, N_CASES);
    suite_add_tcase(s, bits);

    TCase *finite = tcase_create("finite");
    tcase_set_timeout(finite, 60);
    tcase_add_loop_test(finite, first_value_not_finite_is_named, 0, sizeof poisons / sizeof *poisons);
    suite_add_tcase(s, finite);
    return s;
}

TEST_SUITE(forward_suite)
