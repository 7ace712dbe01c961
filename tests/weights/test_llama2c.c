/* llama2.c's checkpoints: the golden ones, files of every version made here, and broken ones. */
#include "tests/test.h"
#include "tests/weights/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tensors in the order of the exporter's source (export.py: legacy_export, version1_export, version2_export).
 * d: dim, k: n_kv_heads * head size, h: hidden_dim, v: vocab_size, s: seq_len, p: head size / 2, 1: one. */
static const struct part {
    const char *name;  /* with %d: for each layer */
    const char *shape; /* slowest first */
} v0[] = {{"token_embd.weight", "vd"},
          {"blk.%d.attn_norm.weight", "d"},
          {"blk.%d.attn_q.weight", "dd"},
          {"blk.%d.attn_k.weight", "kd"},
          {"blk.%d.attn_v.weight", "kd"},
          {"blk.%d.attn_output.weight", "dd"},
          {"blk.%d.ffn_norm.weight", "d"},
          {"blk.%d.ffn_gate.weight", "hd"},
          {"blk.%d.ffn_down.weight", "dh"},
          {"blk.%d.ffn_up.weight", "hd"},
          {"output_norm.weight", "d"},
          {"cos", "sp"},
          {"sin", "sp"},
          {"output.weight", "vd"}},
  v1[] = {
      {"blk.%d.attn_norm.weight", "d"}, {"blk.%d.ffn_norm.weight", "d"},     {"output_norm.weight", "d"},
      {"token_embd.weight", "vd"},      {"blk.%d.attn_q.weight", "dd"},      {"blk.%d.attn_k.weight", "kd"},
      {"blk.%d.attn_v.weight", "kd"},   {"blk.%d.attn_output.weight", "dd"}, {"blk.%d.ffn_gate.weight", "hd"},
      {"blk.%d.ffn_down.weight", "dh"}, {"blk.%d.ffn_up.weight", "hd"},      {"output.weight", "vd"}};

enum { LAYERS = 3, GROUP = 4, MAX_BYTES = 1 << 15 };

static int64_t letter_size(char c)
{
    switch (c) {
    case 'd':
        return 16;
    case 'k':
        return 8;
    case 'h':
        return 24;
    case 'v':
        return 10;
    case 's':
        return 5;
    default:
        return 2;
    }
}

struct image {
    uint8_t bytes[MAX_BYTES];
    size_t len;
    int version;
    bool shared;
};

static struct image m;

static void put(const void *data, size_t n)
{
    if (n > MAX_BYTES - m.len)
        ck_abort_msg("more than %d bytes", MAX_BYTES);
    memcpy(m.bytes + m.len, data, n);
    m.len += n;
}

static void put_i32(int32_t v)
{
    put(&v, sizeof v);
}

/* A part's tensors. Their data: floats count on from the position in the file, int8 from its low byte. */
static void put_part(const struct part *p)
{
    size_t n = (size_t)letter_size(p->shape[0]) * (p->shape[1] ? (size_t)letter_size(p->shape[1]) : 1);
    for (int layer = 0; layer < (strchr(p->name, '%') ? LAYERS : 1); layer++) {
        size_t n_floats = n;
        if (m.version == 2 && p->shape[1]) {
            for (size_t i = 0; i < n; i++)
                put(&(int8_t){(int8_t)m.len}, 1);
            n_floats = n / GROUP;
        }
        for (size_t i = 0; i < n_floats; i++)
            put(&(float){(float)m.len}, sizeof(float));
    }
}

static void build(int version, bool shared)
{
    static const int32_t header[7] = {16, 24, LAYERS, 4, 2, 10, 5};
    m.len = 0;
    m.version = version;
    m.shared = shared;
    if (version > 0) {
        put_i32(0x616b3432);
        put_i32(version);
    }
    for (int i = 0; i < 7; i++)
        put_i32(version == 0 && i == 5 && !shared ? -header[i] : header[i]);
    if (version > 0) {
        put(&(uint8_t){shared}, 1);
        if (version == 2)
            put_i32(GROUP);
        memset(m.bytes + m.len, 0, 256 - m.len);
        m.len = 256;
    }
    const struct part *parts = version == 0 ? v0 : v1;
    size_t n = version == 0 ? sizeof v0 / sizeof *v0 : sizeof v1 / sizeof *v1;
    for (size_t i = 0; i < n - shared; i++)
        put_part(&parts[i]);
}

static int64_t meta_value(const struct weights *w, const char *key)
{
    int64_t v = -1;
    ck_assert_msg(meta_int(weights_meta_find(w, key), 0, &v), "%s", key);
    return v;
}

/* Checks one tensor, which begins at *at of the file, and moves *at behind it. */
static void check_tensor(const struct weights *w, const char *name, enum qtype type, const char *shape,
                         int64_t cols, size_t *at)
{
    const struct tensor *t = weights_find(w, name);
    ck_assert_msg(t != NULL, "%s", name);
    int64_t rows = shape[1] ? letter_size(shape[0]) : 1;
    ck_assert_int_eq(t->type, type);
    ck_assert_int_eq(t->n_dims, shape[1] ? 2 : 1);
    ck_assert_int_eq(t->dims[0], cols);
    ck_assert_int_eq(t->dims[1], rows);
    ck_assert_msg(t->offset == *at, "%s", name);
    ck_assert_mem_eq(t->data, m.bytes + *at, t->bytes);
    *at += t->bytes;
}

START_TEST(every_version)
{
    build(_i / 2, _i % 2 == 1);
    struct weights *w = image_open(m.bytes, m.len);
    const char formats[][16] = {"llama2.c v0", "llama2.c v1", "llama2.c v2"};
    ck_assert_str_eq(weights_format(w), formats[m.version]);
    ck_assert_int_eq(meta_value(w, "llama2c.dim"), 16);
    ck_assert_int_eq(meta_value(w, "llama2c.hidden_dim"), 24);
    ck_assert_int_eq(meta_value(w, "llama2c.n_layers"), LAYERS);
    ck_assert_int_eq(meta_value(w, "llama2c.n_heads"), 4);
    ck_assert_int_eq(meta_value(w, "llama2c.n_kv_heads"), 2);
    ck_assert_int_eq(meta_value(w, "llama2c.vocab_size"), 10);
    ck_assert_int_eq(meta_value(w, "llama2c.seq_len"), 5);
    ck_assert_int_eq(meta_value(w, "llama2c.version"), m.version);
    ck_assert_int_eq(meta_value(w, "llama2c.shared_classifier"), m.shared);
    ck_assert_int_eq(weights_meta_find(w, "llama2c.shared_classifier")->type, META_BOOL);
    if (m.version == 2)
        ck_assert_int_eq(meta_value(w, "llama2c.group_size"), GROUP);
    else
        ck_assert_ptr_null(weights_meta_find(w, "llama2c.group_size"));

    const struct part *parts = m.version == 0 ? v0 : v1;
    size_t n = m.version == 0 ? sizeof v0 / sizeof *v0 : sizeof v1 / sizeof *v1, n_tensors = 0;
    size_t at = m.version == 0 ? 28 : 256;
    for (size_t i = 0; i < n - m.shared; i++) {
        const struct part *p = &parts[i];
        int64_t cols = letter_size(p->shape[strlen(p->shape) - 1]);
        if (p->shape[0] == 's') { /* the tables of RoPE are not exposed */
            at += (size_t)(letter_size('s') * cols) * sizeof(float);
            continue;
        }
        const char *rest = strstr(p->name, "%d");
        for (int layer = 0; layer < (rest ? LAYERS : 1); layer++) {
            char name[64];
            if (rest)
                (void)snprintf(name, sizeof name, "blk.%d%s", layer, rest + 2);
            else
                (void)snprintf(name, sizeof name, "%s", p->name);
            bool q = m.version == 2 && p->shape[1];
            check_tensor(w, name, q ? QTYPE_I8 : QTYPE_F32, p->shape, cols, &at);
            size_t len = strlen(name);
            (void)snprintf(name + len, sizeof name - len, "_scale");
            if (q)
                check_tensor(w, name, QTYPE_F32, p->shape, cols / GROUP, &at);
            n_tensors += q ? 2 : 1;
        }
    }
    ck_assert_uint_eq(at, m.len);
    ck_assert_uint_eq(weights_n_tensors(w), n_tensors);
    ck_assert_int_eq(weights_find(w, "output.weight") == NULL, m.shared);
    weights_close(w);
}
END_TEST

static void set_i32(size_t at, int32_t v)
{
    memcpy(m.bytes + at, &v, sizeof v);
}

/* The header with one integer changed; the rest stays. */
static void header_is_bad(int version, size_t at, int32_t v, const char *expected)
{
    build(version, true);
    set_i32(at, v);
    image_is_bad(m.bytes, m.len, expected);
}

START_TEST(bad_headers)
{
    static const int32_t values[] = {INT32_MIN, -1, 0, 7, 1 << 25, INT32_MAX};
    for (size_t i = 0; i < 7; i++) {
        for (size_t k = 0; k < sizeof values / sizeof *values; k++) {
            if (i < 6 || values[k] != 7) /* versions 1 and 2 have no tables whose size is seq_len's */
                header_is_bad(1, 8 + 4 * i, values[k], "");
            header_is_bad(0, 4 * i, values[k], "");
        }
    }
    header_is_bad(0, 0, 15, "is no GGUF, safetensors, PyTorch or llama2.c file");
    header_is_bad(0, 4, 23, "by its llama2.c header it has ");
    header_is_bad(1, 8, 15, "the header's llama2c.n_heads does not fit any model");
    header_is_bad(1, 24, 3, "the header's llama2c.n_kv_heads does not fit");
    header_is_bad(1, 28, -10, "the header's llama2c.vocab_size does not fit");
    header_is_bad(1, 8, (1 << 20) + 8, "the header's llama2c.dim does not fit");
    header_is_bad(1, 16, 4096, "by its llama2.c header it has ");
    header_is_bad(1, 4, 0, "llama2.c version 0 is not one of 0 to 2 (byte 4)");
    header_is_bad(1, 4, 3, "llama2.c version 3 is not");
    header_is_bad(2, 37, 0, "a group of 0 weights does not divide rows of 16 and 24 (byte 37)");
    header_is_bad(2, 37, -4, "a group of -4 weights");
    header_is_bad(2, 37, 16, "a group of 16 weights");
    header_is_bad(2, 37, 2, "by its llama2.c header it has ");
    /* As large as integers of a header can be: sizes do not overflow. */
    build(1, true);
    for (size_t i = 0; i < 7; i++)
        set_i32(8 + 4 * i, (const int32_t[]){1 << 20, 1 << 22, 4096, 1 << 16, 1 << 16, 1 << 24, 1 << 24}[i]);
    image_is_bad(m.bytes, m.len, "by its llama2.c header it has ");
}
END_TEST

START_TEST(wrong_sizes)
{
    build(_i / 2, _i % 2 == 1);
    for (size_t len = 0; len < m.len; len += len < 300 ? 1 : 97)
        image_is_bad(m.bytes, len, "");
    image_is_bad(m.bytes, m.len - 1, "by its llama2.c header it has ");
    m.bytes[m.len] = 0;
    image_is_bad(m.bytes, m.len + 1, "by its llama2.c header it has ");
}
END_TEST

START_TEST(random_headers)
{
    uint64_t state = 5;
    int n_bad = 0;
    for (int i = 0; i < 1500; i++) {
        build(i % 3, i % 2 == 0);
        for (uint64_t k = 1 + test_random(&state) % 3; k > 0; k--)
            m.bytes[test_random(&state) % (m.version == 0 ? 28 : 41)] ^=
                (uint8_t)(1U << test_random(&state) % 8);
        n_bad += !image_is_safe(m.bytes, m.len);
    }
    ck_assert_int_gt(n_bad, 1000);
}
END_TEST

START_TEST(golden_files)
{
    static const struct {
        const char *name;
        size_t n_tensors;
        int64_t n_kv_heads;
        bool shared;
    } files[] = {{"llama2c/tied-mha/model.bin", 20, 4, true}, {"llama2c/untied-gqa/model.bin", 30, 2, false}};
    for (size_t i = 0; i < 2; i++) {
        const char *path = test_golden(files[i].name);
        struct weights *w;
        char err[512] = "";
        if (!path) {
            test_skip(files[i].name, "not there");
            continue;
        }
        ck_assert_msg(weights_open(&w, path, NULL, err, sizeof err) == 0, "%s", err);
        ck_assert_uint_eq(weights_n_tensors(w), files[i].n_tensors);
        ck_assert_int_eq(meta_value(w, "llama2c.n_kv_heads"), files[i].n_kv_heads);
        ck_assert_int_eq(meta_value(w, "llama2c.shared_classifier"), files[i].shared);
        weights_close(w);
    }
}
END_TEST

static Suite *llama2c_suite(void)
{
    Suite *s = suite_create("weights/llama2c");
    TCase *tc = tcase_create("llama2c");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, every_version, 0, 6);
    tcase_add_test(tc, bad_headers);
    tcase_add_loop_test(tc, wrong_sizes, 0, 6);
    tcase_add_test(tc, random_headers);
    tcase_add_test(tc, golden_files);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(llama2c_suite)
