#include "tests/model/fixture.h"
#include "tests/test.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct setting plain = {
    .isa = ISA_SCALAR,
    .compute = COMPUTE_F32,
    .kv_type = QTYPE_F32,
    .n_threads = 1,
    .max_batch = 512,
    .n_seqs = 1,
    .n_ctx = 256,
};

static char err[512];

static struct model_options model_options_for(enum isa isa, int n_threads)
{
    return (struct model_options){.ops = ops_cpu(isa), .n_threads = n_threads, .rope_scaling = -1};
}

static void open_cache(struct fixture *f, const struct setting *s)
{
    struct cache_options c = {s->n_ctx, s->n_seqs, s->kv_type, s->kv_type, s->max_batch};
    ck_assert_msg(cache_new(&f->cache, f->model, &c, err, sizeof err) == 0, "%s", err);
    struct context_options o = {s->n_threads, s->n_threads, s->max_batch, s->compute, s->check_finite};
    ck_assert_msg(context_new(&f->context, f->model, f->cache, &o, err, sizeof err) == 0, "%s", err);
}

struct fixture fixture_open(const char *path, const struct setting *s)
{
    struct fixture f = {0};
    ck_assert_msg(weights_open(&f.weights, path, NULL, err, sizeof err) == 0, "%s", err);
    struct model_options m = model_options_for(s->isa, s->n_threads);
    if (s->ops)
        m.ops = s->ops;
    ck_assert_msg(model_load(&f.model, f.weights, &m, err, sizeof err) == 0, "%s", err);
    f.vocab_size = model_config(f.model)->vocab_size;
    open_cache(&f, s);
    return f;
}

void fixture_close(struct fixture *f)
{
    context_free(f->context);
    cache_free(f->cache);
    model_free(f->model);
    weights_close(f->weights);
}

void fixture_set(struct fixture *f, const struct setting *s)
{
    context_free(f->context);
    cache_free(f->cache);
    open_cache(f, s);
}

void fixture_reload(struct fixture *f, const struct model_options *o, const struct setting *s)
{
    context_free(f->context);
    cache_free(f->cache);
    model_free(f->model);
    ck_assert_msg(model_load(&f->model, f->weights, o, err, sizeof err) == 0, "%s", err);
    open_cache(f, s);
}

void fixture_eval(struct fixture *f, int seq, const int32_t *id, int n, float *out)
{
    int32_t *seqs = malloc((size_t)n * sizeof *seqs);
    uint8_t *want = malloc((size_t)n);
    ck_assert(seqs && want);
    for (int i = 0; i < n; i++)
        seqs[i] = seq;
    memset(want, out != NULL, (size_t)n);
    struct batch b = {.n = n, .id = id, .seq = seqs, .want_logits = want};
    const float *logits;
    ck_assert_msg(context_eval(f->context, &b, &logits, err, sizeof err) == 0, "%s", err);
    if (out)
        memcpy(out, logits, (size_t)n * (size_t)f->vocab_size * sizeof *out);
    free(want);
    free(seqs);
}

void fixture_greedy(struct fixture *f, const float *last, const int32_t *text, int n_text, int32_t *id, int n)
{
    int32_t *all = malloc((size_t)(n_text + n) * sizeof *all);
    ck_assert_ptr_nonnull(all);
    memcpy(all, text, (size_t)n_text * sizeof *all);
    for (int i = 0; i < n; i++) {
        id[i] = 0;
        for (int v = 1; v < f->vocab_size; v++)
            if (last[v] > last[id[i]])
                id[i] = v;
        all[n_text + i] = id[i];
        int held = (int)cache_reuse(f->cache, 0, n_text + i, n_text + i + 1);
        struct batch b = {.n = n_text + i + 1 - held, .id = all + held};
        ck_assert_msg(context_eval(f->context, &b, &last, err, sizeof err) == 0, "%s", err);
    }
    free(all);
}

struct expected expected_open(const char *path)
{
    struct expected e = {0};
    ck_assert_msg(weights_open(&e.w, path, NULL, err, sizeof err) == 0, "%s", err);
    const struct tensor *ids = weights_find(e.w, "input_ids"), *logits = weights_find(e.w, "logits"),
                        *greedy = weights_find(e.w, "greedy_ids");
    ck_assert(ids && logits && greedy);
    ck_assert(ids->type == QTYPE_I32 && logits->type == QTYPE_F32 && greedy->type == QTYPE_I32);
    e.ids = ids->data;
    e.logits = logits->data;
    e.greedy = greedy->data;
    e.n = (int)ids->dims[0];
    e.n_logits = (int)logits->dims[1];
    e.n_greedy = (int)greedy->dims[0];
    return e;
}

void make_ids(int32_t *id, int n, int vocab_size, unsigned seed)
{
    uint32_t state = seed;
    for (int i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        id[i] = (int32_t)(state >> 8) % vocab_size;
    }
}

int try_load(const char *path, char *message, size_t len)
{
    struct weights *w;
    struct model *m = NULL;
    message[0] = 0;
    int rc = weights_open(&w, path, NULL, message, len);
    if (rc == 0) {
        struct model_options o = model_options_for(ISA_SCALAR, 1);
        rc = model_load(&m, w, &o, message, len);
        ck_assert_int_eq(rc == 0, m != NULL);
        model_free(m);
        weights_close(w);
    }
    ck_assert_ptr_null(strchr(message, '\n'));
    return rc;
}

struct edit *edit_golden(const char *name)
{
    const char *path = test_golden(name);
    if (!path)
        test_skip(name, "no such golden file");
    return path ? edit_read(path) : NULL;
}

void edit_refused(struct edit *g, const char *why)
{
    char message[512];
    const char *path = edit_write(g);
    int rc = try_load(path, message, sizeof message);
    (void)unlink(path);
    edit_free(g);
    ck_assert_msg(rc == -1, "loaded, although: %s", why);
    ck_assert_msg(strncmp(message, path, strlen(path)) == 0, "'%s' does not begin with %s", message, path);
    ck_assert_msg(strstr(message, why) != NULL, "'%s' does not say '%s'", message, why);
}

void edit_accepted(struct edit *g)
{
    char message[512];
    const char *path = edit_write(g);
    int rc = try_load(path, message, sizeof message);
    (void)unlink(path);
    edit_free(g);
    ck_assert_msg(rc == 0, "%s", message);
}
