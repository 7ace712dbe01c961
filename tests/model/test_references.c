/* What the golden data does not cover, against references of our own: the folders that
 * tests/golden/make_model_fixtures.py made. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const folders[] = {
    "chatglm1-ptuning",         /* P-Tuning v2, before a prefix that sees itself both ways */
    "chatglm2-ptuning",         /* P-Tuning v2, grouped queries */
    "chatglm2-32k",             /* rope_ratio divides positions */
    "chatglm3-32k",             /* rope_ratio multiplies the base */
    "gemma2",                   /* soft caps, windows in turn, query_pre_attn_scalar */
    "gemma2-5",                 /* its config.json as transformers 5 writes it */
    "gemma3-scaled",            /* bases and scaling of both kinds of layer */
    "gemma3-scaled-5",          /* as transformers 5 writes it */
    "gemma-hidden-activation",  /* hidden_act "gelu", which is not meant */
    "llama-gptq-2bit",          /* asymmetric */
    "llama-gptq-3bit-v2",       /* zeros as they are, a group a row, a quantised output matrix */
    "llama-gptq-8bit-desc-act", /* other orders of columns for v than for q and k */
    "llama-tied-twice",         /* tied, and lm_head in the file */
    "llama-yarn-betas",         /* beta_fast, beta_slow, attention_factor */
    "llama-yarn-betas-5",       /* as transformers 5 writes it */
    "llama-yarn-mscale",        /* mscale, mscale_all_dim */
    "phi3-longrope",            /* on three quarters of a head, below and above the original length */
    "phi3-longrope-5",          /* as transformers 5 writes it */
    "qwen2-window",             /* use_sliding_window from max_window_layers on */
    "qwen2-window-5",           /* as transformers 5 writes it */
    "qwen3-moe-plain",          /* norm_topk_prob false, windows */
};

enum { N_FOLDERS = sizeof folders / sizeof *folders, MAX_PROMPTS = 2, MAX_GREEDY = 16 };

static const double tolerance = 1e-4;

static const char *file_of(int folder, const char *file)
{
    char name[128];
    (void)snprintf(name, sizeof name, "models/%s/%s", folders[folder], file);
    return test_golden(name);
}

/* All prompts of expected.safetensors: "input_ids" and, where it is there, "short.input_ids". */
struct prompts {
    struct expected of[MAX_PROMPTS];
    int n;
};

static const struct tensor *find(const struct weights *w, const char *name, enum qtype type)
{
    const struct tensor *t = weights_find(w, name);
    ck_assert_msg(t && t->type == type, "%s", name);
    return t;
}

static bool prompts_open(struct prompts *p, int folder)
{
    const char *path = file_of(folder, "expected.safetensors");
    if (!path) {
        test_skip(folders[folder], "no such golden model");
        return false;
    }
    struct expected *e = p->of, *brief = e + 1;
    *e = expected_open(path);
    p->n = 1;
    if (weights_find(e->w, "short.input_ids")) {
        const struct tensor *ids = find(e->w, "short.input_ids", QTYPE_I32),
                            *logits = find(e->w, "short.logits", QTYPE_F32),
                            *greedy = find(e->w, "short.greedy_ids", QTYPE_I32);
        *brief = (struct expected){.w = e->w,
                                   .ids = ids->data,
                                   .logits = logits->data,
                                   .greedy = greedy->data,
                                   .n = (int)ids->dims[0],
                                   .n_logits = (int)logits->dims[1],
                                   .n_greedy = (int)greedy->dims[0]};
        p->n = 2;
    }
    for (int i = 0; i < p->n; i++)
        ck_assert(p->of[i].n_logits == p->of[i].n && p->of[i].n_greedy == MAX_GREEDY);
    return true;
}

static void prompts_close(struct prompts *p)
{
    weights_close(p->of[0].w);
}

static float *eval(struct fixture *f, const struct expected *e)
{
    float *logits = calloc((size_t)e->n * (size_t)f->vocab_size, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    cache_drop(f->cache, 0);
    fixture_eval(f, 0, e->ids, e->n, logits);
    return logits;
}

START_TEST(reference_logits) /* loop over folders */
{
    struct prompts p;
    if (!prompts_open(&p, _i))
        return;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_supported(isa))
            continue;
        struct setting s = plain;
        s.isa = isa;
        struct fixture f = fixture_open(file_of(_i, "config.json"), &s);
        for (int k = 0; k < p.n; k++) {
            const struct expected *e = &p.of[k];
            const size_t vocab_size = (size_t)f.vocab_size;
            float *logits = eval(&f, e);
            for (size_t i = 0; i < (size_t)e->n * vocab_size; i++) {
                double error = fabs((double)logits[i] - (double)e->logits[i]);
                ck_assert_msg(error <= tolerance, "%s, %s, prompt %d: logit %zu of token %zu differs by %g",
                              folders[_i], isa_name(isa), k, i % vocab_size, i / vocab_size, error);
            }
            int32_t greedy[MAX_GREEDY];
            fixture_greedy(&f, logits + (size_t)(e->n - 1) * vocab_size, e->ids, e->n, greedy, MAX_GREEDY);
            for (int i = 0; i < MAX_GREEDY; i++)
                ck_assert_msg(greedy[i] == e->greedy[i], "%s, %s, prompt %d: greedy token %d is %d, not %d",
                              folders[_i], isa_name(isa), k, i, greedy[i], e->greedy[i]);
            free(logits);
        }
        fixture_close(&f);
    }
    prompts_close(&p);
}
END_TEST

/* Levels, threads and slices change no bit, computed either way. */
START_TEST(reference_settings_change_no_bit) /* loop over folders */
{
    static const struct {
        int n_threads, max_batch;
    } settings[] = {{1, 1}, {1, 512}, {2, 7}, {2, 512}};
    struct prompts p;
    if (!prompts_open(&p, _i))
        return;
    for (int k = 0; k < 2 * p.n; k++) {
        const struct expected *e = &p.of[k / 2];
        struct setting s = plain;
        s.compute = k % 2 ? COMPUTE_FAST : COMPUTE_F32;
        s.kv_type = k % 2 ? QTYPE_F16 : QTYPE_F32;
        struct fixture f = fixture_open(file_of(_i, "config.json"), &s);
        float *ref = eval(&f, e);
        const size_t bytes = (size_t)e->n * (size_t)f.vocab_size * sizeof *ref;
        fixture_close(&f);
        for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
            if (!isa_supported(isa))
                continue;
            s.isa = isa;
            f = fixture_open(file_of(_i, "config.json"), &s);
            for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
                struct setting other = s;
                other.n_threads = settings[i].n_threads;
                other.max_batch = settings[i].max_batch;
                fixture_set(&f, &other);
                float *got = eval(&f, e);
                ck_assert_msg(memcmp(ref, got, bytes) == 0,
                              "%s, %s, %s, prompt %d: other bits with %d threads, slices of %d", folders[_i],
                              isa_name(isa), k % 2 ? "fast" : "f32", k / 2, other.n_threads, other.max_batch);
                free(got);
            }
            fixture_close(&f);
        }
        free(ref);
    }
    prompts_close(&p);
}
END_TEST

static Suite *references_suite(void)
{
    Suite *suite = suite_create("model/references");
    TCase *tcase = tcase_create("references");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, reference_logits, 0, N_FOLDERS);
    tcase_add_loop_test(tcase, reference_settings_change_no_bit, 0, N_FOLDERS);
    suite_add_tcase(suite, tcase);
    return suite;
}
TEST_SUITE(references_suite)
