#include "tests/lab/scratch.h"

#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[32];

void scratch_make(void)
{
    (void)strcpy(folder, "/tmp/quoll-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

void scratch_remove(void)
{
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

const char *scratch(const char *name)
{
    static char path[4][128];
    static int next;
    char *p = path[next++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

int scratch_gguf(const char *from, const char *to, const struct quantize_options *o, char *err, size_t errlen)
{
    struct weights *w;
    struct quantize *q;
    ck_assert_msg(weights_open(&w, from, NULL, err, errlen) == 0, "%s", err);
    int rc = quantize_open(&q, w, o, err, errlen);
    if (rc == 0) {
        size_t n;
        const struct meta *meta = quantize_meta(q, &n);
        rc = quantize_write(q, to, meta, n, NULL, NULL, err, errlen);
    }
    quantize_close(q);
    weights_close(w);
    return rc;
}

int scratch_gptq(const char *from, const char *to, const struct gptq_folder_options *o, char *err,
                 size_t errlen)
{
    struct weights *w;
    ck_assert_msg(weights_open(&w, from, NULL, err, errlen) == 0, "%s", err);
    int rc = gptq_folder_write(to, w, o, err, errlen);
    weights_close(w);
    return rc;
}

float *scratch_logits(const char *model, int n, int *vocab_size)
{
    struct fixture f = fixture_open(model, &plain);
    int32_t *ids = calloc((size_t)n, sizeof *ids);
    float *logits = calloc((size_t)n * (size_t)f.vocab_size, sizeof *logits);
    ck_assert(ids && logits);
    make_ids(ids, n, f.vocab_size, SCRATCH_SEED);
    fixture_eval(&f, 0, ids, n, logits);
    *vocab_size = f.vocab_size;
    fixture_close(&f);
    free(ids);
    return logits;
}
