/* A quantised GGUF: its tensors have the planned types and the quantiser's bytes, its faults are named. */
#include "tests/lab/scratch.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rows of 64 and 160, of floats; rows of 256 and 512, that any type can have. */
#define F16  "gguf/llama-f16/model.gguf"
#define WIDE "gguf/quant-q4_1/model.gguf"

static char err[512];

static struct weights *open_model(const char *path)
{
    struct weights *w;
    ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
    return w;
}

/* NULL after saying that the golden models are not here. Lent until the next call. */
static const char *golden(const char *name)
{
    static char path[1024];
    const char *found = test_golden(name);
    if (!found) {
        test_skip("quantised files", "no golden model");
        return NULL;
    }
    (void)snprintf(path, sizeof path, "%s", found);
    return path;
}

static void temporary_name(char path[64])
{
    (void)snprintf(path, 64, "/tmp/quoll-quantize-%ld.gguf", (long)getpid());
}

static const struct quantize_options defaults = {.output_type = -1, .embedding_type = -1, .n_threads = 1};

static int write_model(const char *from, const char *to, const struct quantize_options *o)
{
    return scratch_gguf(from, to, o, err, sizeof err);
}

/* What the file must hold for a tensor of the source: its own bytes, or those of the quantiser. */
static void check_tensor(const struct tensor *got, const struct tensor *from, const struct importance *table)
{
    ck_assert_uint_eq(got->bytes, (uint64_t)qtype_bytes(got->type, got->dims[0]) * (uint64_t)got->dims[1] *
                                      (uint64_t)got->dims[2]);
    if (got->type == from->type) {
        ck_assert_mem_eq(got->data, from->data, got->bytes);
        return;
    }
    const struct importance_entry *e = importance_find(table, from->name);
    const int64_t cols = from->dims[0];
    float *x = malloc((size_t)cols * sizeof *x);
    char *row = malloc((size_t)cols * 4);
    for (int64_t r = 0; r < from->dims[1]; r++) {
        qtypes[from->type].to_f32(x, (const char *)from->data + r * qtype_bytes(from->type, cols), cols);
        qtypes[got->type].quantise(row, x, e ? e->mean : NULL, cols);
        ck_assert_mem_eq((const char *)got->data + r * qtype_bytes(got->type, cols), row,
                         (size_t)qtype_bytes(got->type, cols));
    }
    free(x);
    free(row);
}

START_TEST(every_mix)
{
    const char *from = golden(_i % 2 ? F16 : WIDE);
    char path[64];
    if (!from)
        return;
    temporary_name(path);
    struct quantize_options o = defaults;
    o.mix = mix_at((size_t)_i / 2);
    o.n_threads = 3;
    ck_assert_msg(write_model(from, path, &o) == 0, "%s", err);
    struct weights *a = open_model(from), *b = open_model(path);
    ck_assert_uint_eq(weights_n_tensors(a), weights_n_tensors(b));
    for (size_t i = 0; i < weights_n_tensors(b); i++) {
        const struct tensor *t = weights_tensor(b, i), *s = weights_find(a, t->name);
        ck_assert_ptr_nonnull(s);
        check_tensor(t, s, NULL);
    }
    int64_t v;
    ck_assert(meta_int(weights_meta_find(b, "general.file_type"), 0, &v) && v == mix_file_type(o.mix));
    ck_assert(meta_int(weights_meta_find(b, "general.quantization_version"), 0, &v) && v == 2);
    for (size_t i = 0; i < weights_n_meta(a); i++)
        ck_assert_ptr_nonnull(weights_meta_find(b, weights_meta(a, i)->key));
    weights_close(a);
    weights_close(b);
    (void)unlink(path);
}
END_TEST

START_TEST(rules_and_importance)
{
    const char *from = golden(F16);
    char path[64];
    if (!from)
        return;
    temporary_name(path);
    struct weights *a = open_model(from);
    const struct tensor *q0 = weights_find(a, "blk.0.attn_q.weight");
    float *mean = malloc((size_t)q0->dims[0] * sizeof *mean);
    for (int64_t i = 0; i < q0->dims[0]; i++)
        mean[i] = i % 7 == 0 ? 100 : 1;
    struct importance *table = importance_new();
    ck_assert_int_eq(importance_set(table, q0->name, q0->dims[0], 1, mean), 0);

    struct quantize_options o = defaults;
    const struct quantize_rule rules[] = {{"ffn_(up|gate)", QTYPE_Q8_0}, {"blk\\.\\d+\\.ffn", QTYPE_Q5_0}};
    o.mix = mix_by_name("q4_0");
    o.pure = true;
    o.rules = rules;
    o.n_rules = 2;
    o.embedding_type = QTYPE_F32;
    o.importance = table;
    ck_assert_msg(write_model(from, path, &o) == 0, "%s", err);
    struct weights *b = open_model(path);
    ck_assert_int_eq(weights_find(b, "blk.0.ffn_up.weight")->type, QTYPE_Q8_0);
    ck_assert_int_eq(weights_find(b, "blk.0.ffn_down.weight")->type, QTYPE_Q5_0);
    ck_assert_int_eq(weights_find(b, "blk.0.attn_q.weight")->type, QTYPE_Q4_0);
    ck_assert_int_eq(weights_find(b, "token_embd.weight")->type, QTYPE_F32);
    ck_assert_int_eq(weights_find(b, "output_norm.weight")->type, QTYPE_F32);
    check_tensor(weights_find(b, q0->name), q0, table);
    weights_close(b);
    (void)unlink(path);

    ck_assert_int_eq(importance_set(table, q0->name, q0->dims[0] / 2, 1, mean), 0);
    ck_assert_int_eq(write_model(from, path, &o), -1);
    ck_assert_ptr_nonnull(strstr(err, "'blk.0.attn_q.weight'"));
    o.importance = NULL;
    const struct quantize_rule bad = {"ffn_(", QTYPE_Q8_0};
    o.rules = &bad;
    o.n_rules = 1;
    ck_assert_int_eq(write_model(from, path, &o), -1);
    ck_assert_ptr_nonnull(strstr(err, "pattern 'ffn_('"));
    ck_assert_int_ne(access(path, F_OK), 0);
    importance_free(table);
    free(mean);
    weights_close(a);
}
END_TEST

/* A copy of the model in which one value is this half float. */
static void spoil(const char *to, const char *from, const char *name, uint16_t half)
{
    struct weights *w = open_model(from);
    const struct tensor *t = weights_find(w, name);
    const long at = (long)t->offset + 2 * (long)(t->dims[0] * 2 + 3);
    ck_assert_int_eq(t->type, QTYPE_F16);
    weights_close(w);
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    ck_assert(in && out);
    for (int c; (c = getc(in)) != EOF;)
        putc(c, out);
    ck_assert_int_eq(fseek(out, at, SEEK_SET), 0);
    ck_assert_uint_eq(fwrite(&half, sizeof half, 1, out), 1);
    (void)fclose(in);
    (void)fclose(out);
}

START_TEST(faults_are_named)
{
    static const struct {
        uint16_t half;
        const char *what;
    } faults[] = {{0x7e00, "NaN"}, {0xfc00, "an infinite value"}};
    const char *from = golden(F16);
    char path[64], bad[] = "/tmp/quoll-spoilt-XXXXXX";
    if (!from)
        return;
    temporary_name(path);
    int fd = mkstemp(bad);
    ck_assert_int_ge(fd, 0);
    (void)close(fd);
    struct quantize_options o = defaults;
    for (size_t i = 0; i < 2; i++)
        for (int same = 0; same < 2; same++) { /* also where the type stays */
            o.mix = mix_by_name(same ? "f16" : "q8_0");
            o.allow_nan = false;
            spoil(bad, from, "blk.1.ffn_up.weight", faults[i].half);
            ck_assert_int_eq(write_model(bad, path, &o), -1);
            ck_assert_msg(strstr(err, "'blk.1.ffn_up.weight'") && strstr(err, faults[i].what) &&
                              strstr(err, "row 2, column 3"),
                          "%s", err);
            ck_assert_int_ne(access(path, F_OK), 0);
            o.allow_nan = true;
            ck_assert_msg(write_model(bad, path, &o) == 0, "%s", err);
            (void)unlink(path);
        }
    (void)unlink(bad);
}
END_TEST

static bool stop_at_half(void *arg, const struct quantize_step *step, double fraction)
{
    ck_assert_ptr_nonnull(step->name);
    ++*(int *)arg;
    return fraction < 0.5;
}

START_TEST(it_can_be_stopped)
{
    const char *from = golden(F16);
    char path[64];
    if (!from)
        return;
    temporary_name(path);
    struct weights *w = open_model(from);
    struct quantize *q;
    struct quantize_options o = defaults;
    o.mix = mix_by_name("q4_0");
    ck_assert_int_eq(quantize_open(&q, w, &o, err, sizeof err), 0);
    size_t n;
    int calls = 0;
    const struct meta *meta = quantize_meta(q, &n);
    (void)strcpy(err, "stale");
    ck_assert_int_eq(quantize_write(q, path, meta, n, stop_at_half, &calls, err, sizeof err), -1);
    ck_assert_str_eq(err, "");
    ck_assert_int_gt(calls, 1);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_int_eq(quantize_write(q, "/nowhere/x.gguf", meta, n, NULL, NULL, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, "/nowhere/x.gguf"));
    quantize_close(q);
    weights_close(w);
}
END_TEST

/* A folder of every integer type is bound again, and its rows are those that the INT type's quantiser gives.
 */
START_TEST(gptq_folders)
{
    const struct gptq_folder_type *t = gptq_folder_type((size_t)_i / 2);
    const char *from = golden(_i % 2 ? F16 : WIDE);
    char path[] = "/tmp/quoll-folder-XXXXXX", command[128];
    if (!from)
        return;
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_ptr_eq(gptq_folder_type_by_name(t->name), t);
    const struct gptq_folder_options o = {.type = t, .n_threads = 2};
    struct weights *a = open_model(from);
    const int64_t narrow = weights_find(a, "blk.0.ffn_up.weight")->dims[0],
                  wide = weights_find(a, "blk.0.ffn_down.weight")->dims[0];
    int rc = gptq_folder_write(path, a, &o, err, sizeof err);
    if (t->group > 0 && (narrow % t->group || wide % t->group)) {
        ck_assert_int_eq(rc, -1);
        ck_assert_ptr_nonnull(strstr(err, "no multiple"));
        weights_close(a);
        return;
    }
    ck_assert_msg(rc == 0, "%s", err);
    struct weights *b = open_model(path);
    struct export *source, *made;
    ck_assert_msg(export_open(&source, a, -1, NULL, 0, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(export_open(&made, b, -1, NULL, 0, err, sizeof err) == 0, "%s", err);
    size_t n, m;
    const struct save_gguf_tensor *x = export_tensors(source, &n), *y = export_tensors(made, &m);
    ck_assert_uint_eq(n, m);
    const enum qtype type = t->bits == 2   ? QTYPE_INT2Z
                            : t->bits == 3 ? QTYPE_INT3Z
                            : t->bits == 4 ? QTYPE_INT4Z
                                           : QTYPE_INT8Z;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (strcmp(x[i].name, y[k].name) != 0)
            k++;
        const int64_t len = x[i].dims[0], rows = x[i].dims[1], group = t->group > 0 ? t->group : len;
        float *want = malloc((size_t)len * sizeof *want), *got = malloc((size_t)len * sizeof *got);
        char *row = malloc((size_t)len * 4);
        uint8_t *codes = malloc((size_t)len);
        bool quantised = strncmp(x[i].name, "blk.", 4) == 0 && x[i].n_dims == 2;
        for (int64_t r = 0; r < rows; r++) {
            ck_assert_int_eq(export_floats(source, i, r, 1, want), 0);
            ck_assert_int_eq(export_floats(made, k, r, 1, got), 0);
            for (int64_t c = 0; quantised && c < len; c += group)
                qtypes[type].quantise_group(row + qtype_bytes(type, c), want + c, NULL, group, codes);
            if (quantised)
                qtypes[type].to_f32(want, row, len);
            for (int64_t c = 0; !quantised && c < len; c++)
                want[c] = f16_to_f32(f32_to_f16(want[c]));
            ck_assert_mem_eq(got, want, (size_t)len * sizeof *want);
        }
        free(want);
        free(got);
        free(row);
        free(codes);
    }
    export_close(source);
    export_close(made);
    weights_close(b);
    /* There is something now. */
    ck_assert_int_eq(gptq_folder_write(path, a, &o, err, sizeof err), -1);
    ck_assert_ptr_nonnull(strstr(err, path));
    weights_close(a);
    (void)snprintf(command, sizeof command, "rm -r %s", path);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lab/quantize");
    TCase *tc = tcase_create("files");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, every_mix, 0, 2 * (int)mix_n());
    tcase_add_test(tc, rules_and_importance);
    tcase_add_test(tc, faults_are_named);
    tcase_add_test(tc, it_can_be_stopped);
    tcase_add_loop_test(tc, gptq_folders, 0, 2 * (int)gptq_folder_n_types());
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(suite)
