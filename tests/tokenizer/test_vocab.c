/* Vocabularies from files (tools/vocab.c): every key checked, each fault one line that names it. */
#include "tests/tokenizer/vocabs.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A GGUF file without tensors, written value by value. */
struct gguf {
    uint8_t bytes[1 << 16];
    size_t n;
    uint64_t n_keys;
};

static void put(struct gguf *g, const void *p, size_t n)
{
    ck_assert(n <= sizeof g->bytes - g->n);
    memcpy(g->bytes + g->n, p, n);
    g->n += n;
}

static void put_u32(struct gguf *g, uint32_t v)
{
    put(g, &v, 4);
}

static void put_str(struct gguf *g, const char *s)
{
    uint64_t n = strlen(s);
    put(g, &n, 8);
    put(g, s, n);
}

static void put_key(struct gguf *g, const char *key, enum meta_type type)
{
    char name[100];
    snprintf(name, sizeof name, "tokenizer.ggml.%s", key);
    put_str(g, strchr(key, '.') ? key : name);
    put_u32(g, type);
    g->n_keys++;
}

static void put_array(struct gguf *g, const char *key, enum meta_type elem, uint64_t n)
{
    put_key(g, key, META_ARRAY);
    put_u32(g, elem);
    put(g, &n, 8);
}

static int open_file(const char *path, struct tokenizer **t, char *err, size_t errlen)
{
    struct weights *w;
    *t = NULL;
    if (weights_open(&w, path, NULL, err, errlen) != 0)
        return -1;
    int rc = vocab_open(t, w, err, errlen);
    weights_close(w);
    return rc;
}

static int open_bytes(const void *bytes, size_t n, struct tokenizer **t, char *err, size_t errlen)
{
    char path[] = "/tmp/quoll-vocab-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
    close(fd);
    int rc = open_file(path, t, err, errlen);
    unlink(path);
    return rc;
}

static int open_gguf(const struct gguf *g, struct tokenizer **t, char *err, size_t errlen)
{
    uint8_t *whole = malloc(24 + g->n);
    uint32_t version = 3;
    uint64_t none = 0;
    memcpy(whole, "GGUF", 4);
    memcpy(whole + 4, &version, 4);
    memcpy(whole + 8, &none, 8);
    memcpy(whole + 16, &g->n_keys, 8);
    memcpy(whole + 24, g->bytes, g->n);
    int rc = open_bytes(whole, 24 + g->n, t, err, errlen);
    free(whole);
    return rc;
}

/* Which of the keys a test writes itself. */
enum {
    OWN_MODEL = 1,
    OWN_TOKENS = 2,
    OWN_SCORES = 4,
    OWN_TYPES = 8,
    OWN_MERGES = 16,
    BPE = 32,
};

static struct gguf *good(unsigned own)
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1};
    struct gguf *g = calloc(1, sizeof *g);
    if (!(own & OWN_MODEL)) {
        put_key(g, "model", META_STRING);
        put_str(g, own & BPE ? "gpt2" : "llama");
    }
    if (!(own & OWN_TOKENS)) {
        put_array(g, "tokens", META_STRING, 6);
        for (int i = 0; i < 6; i++)
            put_str(g, tokens[i]);
    }
    if (!(own & (OWN_SCORES | BPE))) {
        put_array(g, "scores", META_F32, 6);
        for (int i = 0; i < 6; i++)
            put(g, &(float){(float)i}, 4);
    }
    if (!(own & OWN_TYPES)) {
        put_array(g, "token_type", META_I32, 6);
        put(g, types, sizeof types);
    }
    if ((own & BPE) && !(own & OWN_MERGES)) {
        put_array(g, "merges", META_STRING, 1);
        put_str(g, "a b");
    }
    return g;
}

static void refused(struct gguf *g, const char *key, const char *what)
{
    struct tokenizer *t;
    char err[512] = "";
    int rc = open_gguf(g, &t, err, sizeof err);
    free(g);
    ck_assert_int_eq(rc, -1);
    ck_assert_ptr_null(t);
    ck_assert_msg(strstr(err, key) && strstr(err, what) && strstr(err, "/tmp/quoll-vocab-") &&
                      !strchr(err, '\n'),
                  "\"%s\" should name \"%s\" and say \"%s\"", err, key, what);
}

START_TEST(good_files)
{
    struct tokenizer *t;
    char err[512];
    struct gguf *g = good(0);
    ck_assert_msg(open_gguf(g, &t, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(tokenizer_bos(t), 1); /* LLaMA's, where the file names none */
    ck_assert_int_eq(tokenizer_eos(t), 2);
    ck_assert(tokenizer_adds_bos(t));
    check_ids(t, "ab", ENCODE_BOS, "1 0 5"); /* no token for the space in front */
    tokenizer_free(t);
    put_key(g, "add_space_prefix", META_BOOL);
    put(g, &(uint8_t){0}, 1);
    put_key(g, "add_bos_token", META_BOOL);
    put(g, &(uint8_t){0}, 1);
    put_key(g, "bos_token_id", META_U32);
    put_u32(g, UINT32_MAX);
    put_key(g, "eot_token_id", META_U32);
    put_u32(g, 4);
    put_key(g, "eom_token_id", META_U64);
    put(g, &(uint64_t){3}, 8);
    ck_assert_msg(open_gguf(g, &t, err, sizeof err) == 0, "%s", err);
    check_ids(t, "ab", ENCODE_BOS, "5");
    ck_assert_int_eq(tokenizer_bos(t), -1);
    ck_assert(tokenizer_is_end(t, 4) && tokenizer_is_end(t, 3) && !tokenizer_is_end(t, 5));
    tokenizer_free(t);
    free(g);
    g = good(BPE);
    ck_assert_msg(open_gguf(g, &t, err, sizeof err) == 0, "%s", err);
    check_ids(t, "abc", ENCODE_BOS, "5");
    ck_assert_int_eq(tokenizer_bos(t), -1);
    tokenizer_free(t);
    free(g);
}
END_TEST

/* The same pieces as a unigram model: the best sum of scores, EOS behind a text. */
START_TEST(unigram_file)
{
    struct tokenizer *t;
    char err[512];
    struct gguf *g = good(OWN_MODEL);
    put_key(g, "model", META_STRING);
    put_str(g, "t5");
    put_key(g, "unknown_token_id", META_U32);
    put_u32(g, 0);
    put_key(g, "add_space_prefix", META_BOOL);
    put(g, &(uint8_t){0}, 1);
    ck_assert_msg(open_gguf(g, &t, err, sizeof err) == 0, "%s", err);
    check_ids(t, "  ab", ENCODE_BOS, "3 4 1"); /* 3 + 4 is more than 5 */
    tokenizer_free(t);
    put_array(g, "precompiled_charsmap", META_U8, 5);
    put(g, "abcde", 5);
    refused(g, "character map", "broken");
    g = good(OWN_MODEL);
    put_key(g, "model", META_STRING);
    put_str(g, "t5");
    put_array(g, "precompiled_charsmap", META_U32, 1);
    put_u32(g, 0);
    refused(g, "precompiled_charsmap", "not a byte");
}
END_TEST

START_TEST(bad_keys)
{
    struct gguf *g;
    refused(good(OWN_MODEL), "tokenizer.ggml.model", "no tokenizer");
    put_key(g = good(OWN_MODEL), "model", META_STRING);
    put_str(g, "bert");
    refused(g, "tokenizer.ggml.model", "'bert'");
    put_key(g = good(OWN_MODEL), "model", META_U32);
    put_u32(g, 7);
    refused(g, "tokenizer.ggml.model", "not a string");
    put_key(g = good(BPE), "pre", META_BOOL);
    put(g, &(uint8_t){1}, 1);
    refused(g, "tokenizer.ggml.pre", "not a string");

    refused(good(OWN_TOKENS), "tokenizer.ggml.tokens", "no key");
    put_array(g = good(OWN_TOKENS), "tokens", META_STRING, 0);
    refused(g, "tokenizer.ggml.tokens", "empty");
    put_array(g = good(OWN_TOKENS), "tokens", META_U8, 6);
    put(g, "abcdef", 6);
    refused(g, "tokenizer.ggml.tokens, element 0", "not a string");
    put_key(g = good(OWN_TOKENS), "tokens", META_STRING);
    put_str(g, "abcdef");
    refused(g, "tokenizer.ggml.tokens", "not an array");

    refused(good(OWN_SCORES), "tokenizer.ggml.scores", "no key");
    put_array(g = good(OWN_SCORES), "scores", META_F32, 5);
    put(g, (float[5]){0}, 20);
    refused(g, "tokenizer.ggml.scores", "5 values for 6 tokens");
    put_array(g = good(OWN_SCORES), "scores", META_U32, 6);
    put(g, (uint32_t[6]){0, 0, 0, 0x7fc00000}, 24);
    struct tokenizer *t;
    char err[512];
    ck_assert_int_eq(open_gguf(g, &t, err, sizeof err), 0); /* whole numbers are scores too */
    tokenizer_free(t);
    free(g);
    put_array(g = good(OWN_SCORES), "scores", META_F32, 6);
    put(g, (uint32_t[6]){0, 0, 0, 0x7fc00000}, 24);
    refused(g, "tokenizer.ggml.scores, element 3", "not a number");
    put_array(g = good(OWN_SCORES), "scores", META_STRING, 6);
    for (int i = 0; i < 6; i++)
        put_str(g, "1");
    refused(g, "tokenizer.ggml.scores, element 0", "not a number");

    put_array(g = good(OWN_TYPES), "token_type", META_I32, 7);
    put(g, (int32_t[7]){1, 1, 1, 1, 1, 1, 1}, 28);
    refused(g, "tokenizer.ggml.token_type", "7 values for 6 tokens");
    put_array(g = good(OWN_TYPES), "token_type", META_I32, 6);
    put(g, (int32_t[6]){1, 1, 7, 1, 1, 1}, 24);
    refused(g, "tokenizer.ggml.token_type, element 2", "not a token type");
    put_array(g = good(OWN_TYPES), "token_type", META_I32, 6);
    put(g, (int32_t[6]){-1, 1, 1, 1, 1, 1}, 24);
    refused(g, "tokenizer.ggml.token_type, element 0", "not a token type");

    refused(good(BPE | OWN_MERGES), "tokenizer.ggml.merges", "no key");
    put_array(g = good(BPE | OWN_MERGES), "merges", META_STRING, 2);
    put_str(g, "a b");
    put_str(g, "ab");
    refused(g, "tokenizer.ggml.merges, element 1", "not a pair");
    put_array(g = good(BPE | OWN_MERGES), "merges", META_U16, 1);
    put(g, "ab", 2);
    refused(g, "tokenizer.ggml.merges, element 0", "not a string");

    static const char *const ids[] = {"bos_token_id", "eos_token_id", "unknown_token_id", "eot_token_id",
                                      "eom_token_id"};
    for (size_t i = 0; i < 5; i++) {
        put_key(g = good(0), ids[i], META_U32);
        put_u32(g, 6);
        refused(g, ids[i], "is 6, the vocabulary has 6 tokens");
        put_key(g = good(0), ids[i], META_I32);
        put_u32(g, (uint32_t)-2);
        refused(g, ids[i], "is -2");
        put_key(g = good(0), ids[i], META_F32);
        put_u32(g, 0);
        refused(g, ids[i], "not a token id");
    }
    static const char *const bools[] = {"add_bos_token", "add_eos_token", "add_space_prefix",
                                        "remove_extra_whitespaces"};
    for (size_t i = 0; i < 4; i++) {
        put_key(g = good(0), bools[i], META_STRING);
        put_str(g, "true");
        refused(g, bools[i], "not a bool");
    }
    put_key(g = good(0), "general.architecture", META_U8);
    put(g, "x", 1);
    refused(g, "general.architecture", "not a string");
}
END_TEST

/* Bytes of a good file changed at random: an error or a tokenizer that works, nothing else. */
START_TEST(random_changes)
{
    char path[100], err[512];
    snprintf(path, sizeof path, "tokenizers/vocab/%s.gguf", vocab_names[N_BIG_VOCABS + _i]);
    FILE *f = fopen(test_golden(path), "rb");
    ck_assert_ptr_nonnull(f);
    uint8_t *bytes = malloc(1 << 17), *bad = malloc(1 << 17);
    size_t n = fread(bytes, 1, 1 << 17, f);
    fclose(f);
    uint64_t state = 1;
    int n_opened = 0;
    for (int k = 0; k < 150; k++) {
        memcpy(bad, bytes, n);
        size_t span = k % 2 ? n : 2000; /* the head holds the keys and counts */
        for (uint32_t i = 1 + random_below(&state, 3); i > 0; i--)
            bad[random_below(&state, (uint32_t)(span < n ? span : n))] = (uint8_t)random_below(&state, 256);
        size_t len = k % 10 == 9 ? random_below(&state, (uint32_t)n) : n;
        struct tokenizer *t;
        err[0] = '\0';
        if (open_bytes(bad, len, &t, err, sizeof err) != 0) {
            ck_assert_ptr_null(t);
            ck_assert(err[0]);
            continue;
        }
        n_opened++;
        size_t n_ids, n_text;
        char *text;
        int32_t *ids = encode(t, "Hello <s> wörld, 你好\xff 123", 27, ENCODE_SPECIAL | ENCODE_BOS, &n_ids);
        ck_assert_int_eq(tokenizer_decode(t, ids, n_ids, true, &text, &n_text), 0);
        free(text);
        free(ids);
        tokenizer_free(t);
    }
    ck_assert_int_ge(n_opened, 10);
    free(bytes);
    free(bad);
}
END_TEST

static Suite *vocab_suite(void)
{
    Suite *s = suite_create("vocab");
    TCase *c = tcase_create("vocab");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, good_files);
    tcase_add_test(c, unigram_file);
    tcase_add_test(c, bad_keys);
    tcase_add_loop_test(c, random_changes, 0, N_VOCABS - N_BIG_VOCABS);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(vocab_suite)
