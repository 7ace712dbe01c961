/* Binding: a tensor that is missing, unknown, or of the wrong shape or type ends the load, named. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char llama[] = "gguf/llama-f16/model.gguf", qwen2[] = "gguf/qwen2-f16/model.gguf";

/* All tensors of the two golden files, one after the other: the loop tests' index. */
static struct edit *nth_tensor(int i, struct edit_tensor **t)
{
    static const char *const models[] = {llama, qwen2};
    for (int m = 0; m < 2; m++) {
        struct edit *g = edit_golden(models[m]);
        if (!g)
            return NULL;
        if (i < (int)g->n_tensors) {
            *t = &g->tensor[i];
            return g;
        }
        i -= (int)g->n_tensors;
        edit_free(g);
    }
    return NULL;
}

enum { N_TENSORS = 20 + 27 };

static bool is_output(const struct edit_tensor *t) /* without it, the embedding takes its place */
{
    return strcmp(t->name, "output.weight") == 0;
}

START_TEST(every_tensor_is_needed)
{
    struct edit_tensor *t;
    struct edit *g = nth_tensor(_i, &t);
    if (!g)
        return;
    char name[130];
    (void)snprintf(name, sizeof name, "'%s'", t->name);
    bool output = is_output(t);
    edit_remove_tensor(g, t->name);
    if (output)
        edit_accepted(g);
    else
        edit_refused(g, name);
}
END_TEST

START_TEST(every_name_is_known)
{
    struct edit_tensor *t;
    struct edit *g = nth_tensor(_i, &t);
    if (!g)
        return;
    t->name[strlen(t->name) - 1] = 'x';
    char name[130];
    (void)snprintf(name, sizeof name, "'%s'", t->name);
    edit_refused(g, name);
}
END_TEST

START_TEST(every_shape_is_checked)
{
    struct edit_tensor *t;
    struct edit *g = nth_tensor(_i, &t);
    if (!g)
        return;
    char why[256];
    /* The other way round, or half as long: the bytes in the file stay enough. */
    if (t->n_dims == 2 && t->dims[0] != t->dims[1]) {
        (void)snprintf(why, sizeof why, "'%s' has shape [%d, %d], the hyper-parameters imply [%d, %d]",
                       t->name, (int)t->dims[1], (int)t->dims[0], (int)t->dims[0], (int)t->dims[1]);
        uint64_t d = t->dims[0];
        t->dims[0] = t->dims[1];
        t->dims[1] = d;
    } else {
        (void)snprintf(why, sizeof why, "'%s' has shape [", t->name);
        t->dims[0] /= 2;
    }
    if (strcmp(t->name, "token_embd.weight") == 0)
        (void)snprintf(why, sizeof why, "token_embd.weight"); /* its rows are the vocabulary */
    edit_refused(g, why);
}
END_TEST

START_TEST(dimensions_beyond_are_refused)
{
    struct edit_tensor *t;
    struct edit *g = nth_tensor(_i, &t);
    if (!g)
        return;
    t->dims[t->n_dims - 1] /= 2;
    t->dims[t->n_dims++] = 2;
    char name[130];
    (void)snprintf(name, sizeof name, "'%s'", t->name);
    edit_refused(g, name);
}
END_TEST

START_TEST(types_that_are_no_weights_are_refused)
{
    struct edit_tensor *t;
    struct edit *g = nth_tensor(_i, &t);
    if (!g)
        return;
    const struct qtype_info *i32 = &qtypes[QTYPE_I32], *i8 = &qtypes[QTYPE_I8];
    t->type = (uint32_t)(t->n_dims == 1 ? i32 : i8)->gguf_id; /* no more bytes than it had */
    char why[200];
    (void)snprintf(why, sizeof why, "'%s' has type %s", t->name, (t->n_dims == 1 ? i32 : i8)->name);
    edit_refused(g, why);
}
END_TEST

START_TEST(layers_outside_the_model_are_refused)
{
    static const char *const names[] = {
        "blk.2.attn_q.weight",
        "blk.00.attn_q.weight",
        "blk.99999999999.attn_q.weight",
        "blk.-1.attn_q.weight",
        "blk..attn_q.weight",
        "blk.0attn_q.weight",
        "blk.0.output.weight",
        "attn_q.weight",
        "blk.0.token_embd.weight",
        "blk.18446744073709551616.attn_q.weight",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct edit *g = edit_golden(llama);
        if (!g)
            return;
        float v[64] = {0};
        (void)edit_add(g, names[i], v, 64);
        edit_refused(g, names[i]);
    }
}
END_TEST

/* Adds biases of every layer: q, k, v of these lengths. */
static void add_biases(struct edit *g, const char *const *names, const size_t *len, size_t n)
{
    float zero[256] = {0};
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < n; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "blk.%d.%s", layer, names[i]);
            (void)edit_add(g, name, zero, len[i]);
        }
}

START_TEST(optional_biases_come_together)
{
    static const char *const qkv[] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
    static const char *const ffn[] = {"ffn_gate.bias", "ffn_up.bias", "ffn_down.bias", "attn_output.bias"};
    static const size_t qkv_len[] = {64, 32, 32}, ffn_len[] = {160, 160, 64, 64};
    struct edit *g = edit_golden(llama);
    if (!g)
        return;
    add_biases(g, qkv, qkv_len, 3);
    add_biases(g, ffn, ffn_len, 4);
    edit_accepted(g);
    for (int i = 0; i < 3; i++) {
        g = edit_golden(llama);
        char name[64];
        add_biases(g, qkv, qkv_len, 3);
        (void)snprintf(name, sizeof name, "blk.1.%s", qkv[i]);
        edit_remove_tensor(g, name);
        edit_refused(g, name);
    }
    g = edit_golden(qwen2); /* which has no such biases */
    if (!g)
        return;
    add_biases(g, ffn, ffn_len, 4);
    edit_refused(g, "blk.0.ffn_gate.bias");
}
END_TEST

START_TEST(vectors_may_have_any_weight_type)
{
    static const char *const names[] = {"output_norm.weight", "blk.1.ffn_norm.weight"};
    struct edit *g = edit_golden(llama);
    if (!g)
        return;
    for (int i = 0; i < 2; i++) {
        struct edit_tensor *t = edit_find(g, names[i]);
        enum qtype type = i ? QTYPE_BF16 : QTYPE_F16;
        void *data = malloc((size_t)qtype_bytes(type, 64));
        qtypes[type].from_f32(data, t->data, 64);
        free(t->data);
        t->data = data;
        t->bytes = (size_t)qtype_bytes(type, 64);
        t->type = (uint32_t)qtypes[type].gguf_id;
    }
    edit_accepted(g);
}
END_TEST

static Suite *bind_suite(void)
{
    Suite *s = suite_create("model/bind");
    TCase *t = tcase_create("bind");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_tensor_is_needed, 0, N_TENSORS);
    tcase_add_loop_test(t, every_name_is_known, 0, N_TENSORS);
    tcase_add_loop_test(t, every_shape_is_checked, 0, N_TENSORS);
    tcase_add_loop_test(t, dimensions_beyond_are_refused, 0, N_TENSORS);
    tcase_add_loop_test(t, types_that_are_no_weights_are_refused, 0, N_TENSORS);
    tcase_add_test(t, layers_outside_the_model_are_refused);
    tcase_add_test(t, optional_biases_come_together);
    tcase_add_test(t, vectors_may_have_any_weight_type);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(bind_suite)
