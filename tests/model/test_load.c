/* Loading: the same model however many threads pack it, memory counts, ownership. */
#include "tests/model/fixture.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const char llama[] = "gguf/llama-f16/model.gguf", qwen2[] = "gguf/qwen2-f16/model.gguf";

START_TEST(memory_is_counted)
{
    const char *path = test_golden(_i ? qwen2 : llama);
    if (!path) {
        test_skip(_i ? qwen2 : llama, "no such golden file");
        return;
    }
    struct fixture f = fixture_open(path, &plain);
    struct model_memory mem;
    model_memory(f.model, &mem);
    uint64_t n_params = 0, bytes = 0;
    for (size_t i = 0; i < weights_n_tensors(f.weights); i++) {
        const struct tensor *t = weights_tensor(f.weights, i);
        n_params += (uint64_t)(t->dims[0] * t->dims[1]);
        bytes += t->bytes;
    }
    ck_assert_uint_eq(mem.n_params, n_params);
    ck_assert_uint_eq(mem.weight_bytes, bytes); /* all dimensions are multiples of a tile */
    /* Of an embedding that is not the output too, a token reads one row of 64 halves out of 320. */
    ck_assert_uint_eq(mem.token_bytes, _i ? bytes - 319 * 64 * 2 : bytes);
    fixture_close(&f);
}
END_TEST

START_TEST(the_file_may_be_closed)
{
    const char *path = test_golden(qwen2);
    if (!path) {
        test_skip(qwen2, "no such golden file");
        return;
    }
    struct fixture f = fixture_open(path, &plain);
    int32_t id[10];
    make_ids(id, 10, f.vocab_size, 1);
    float *before = malloc(10 * (size_t)f.vocab_size * sizeof *before);
    float *after = malloc(10 * (size_t)f.vocab_size * sizeof *after);
    ck_assert(before && after);
    fixture_eval(&f, 0, id, 10, before);
    weights_close(f.weights);
    f.weights = NULL;
    cache_drop(f.cache, 0);
    fixture_eval(&f, 0, id, 10, after);
    ck_assert_mem_eq(before, after, 10 * (size_t)f.vocab_size * sizeof *before);
    free(before);
    free(after);
    fixture_close(&f);
}
END_TEST

/* An own output matrix that equals the embedding is the tied model. */
START_TEST(tied_output_is_the_embedding)
{
    struct edit *g = edit_golden(llama);
    if (!g)
        return;
    enum { N = 10 };
    int32_t id[N];
    float *logits[2];
    for (int i = 0; i < 2; i++) {
        const char *path = edit_write(g);
        struct fixture f = fixture_open(path, &plain);
        ck_assert(model_config(f.model)->tied_embeddings == !i);
        make_ids(id, N, f.vocab_size, 1);
        logits[i] = malloc(N * (size_t)f.vocab_size * sizeof **logits);
        ck_assert_ptr_nonnull(logits[i]);
        fixture_eval(&f, 0, id, N, logits[i]);
        if (i)
            ck_assert_mem_eq(logits[0], logits[1], N * (size_t)f.vocab_size * sizeof **logits);
        fixture_close(&f);
        if (!i) {
            const struct edit_tensor *embd = edit_find(g, "token_embd.weight");
            void *data = malloc(embd->bytes);
            struct edit_tensor copy = *embd;
            ck_assert_ptr_nonnull(data);
            memcpy(data, embd->data, embd->bytes);
            struct edit_tensor *output = edit_add(g, "output.weight", NULL, 0);
            free(output->data);
            *output = copy;
            output->data = data;
            strcpy(output->name, "output.weight");
        }
    }
    free(logits[0]);
    free(logits[1]);
    edit_free(g);
}
END_TEST

START_TEST(closing_nothing_is_fine)
{
    model_free(NULL);
    cache_free(NULL);
    context_free(NULL);
}
END_TEST

static Suite *load_suite(void)
{
    Suite *s = suite_create("model/load");
    TCase *t = tcase_create("load");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, memory_is_counted, 0, 2);
    tcase_add_test(t, the_file_may_be_closed);
    tcase_add_test(t, tied_output_is_the_embedding);
    tcase_add_test(t, closing_nothing_is_fine);
    suite_add_tcase(s, t);
    return s;
}

TEST_SUITE(load_suite)
