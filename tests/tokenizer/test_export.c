/* Vocabularies written as a GGUF would have them: what is read back gives the same ids. */
#include "tests/tokenizer/vocabs.h"
#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PHI3 = 1,        /* that its reader strips white space is not the vocabulary's to say */
    FIRST_ONLY = 2,  /* a space is put in front of a text that has none, not in front of every stretch */
    OTHER_BYTES = 4, /* what is not UTF-8 becomes ids in a way of its own */
    NO_SPECIALS = 8, /* a bare SentencePiece model finds none in text */
};

static const struct exported {
    const char *file, *pre;
    unsigned is;
} files[] = {
    {"vocab/llama-spm.gguf", NULL, 0},
    {"vocab/gpt-2.gguf", "gpt-2", 0},
    {"vocab/llama-bpe.gguf", "llama-bpe", 0},
    {"vocab/qwen2.gguf", "qwen2", 0},
    {"vocab/deepseek-llm.gguf", "deepseek-llm", 0},
    {"vocab/deepseek-coder.gguf", "deepseek-coder", 0},
    {"vocab/phi-3.gguf", NULL, PHI3},
    {"vocab/baichuan.gguf", NULL, 0},
    {"vocab/falcon.gguf", "falcon", 0},
    {"vocab/starcoder.gguf", "starcoder", 0},
    {"vocab/smollm2.gguf", "starcoder", 0},
    {"vocab/gemma3.gguf", NULL, 0},
    {"vocab/small-sp-bpe.gguf", NULL, 0},
    {"vocab/small-hf-bytelevel.gguf", "llama-bpe", 0},
    {"vocab/small-tiktoken-glm4.gguf", NULL, 0},
    {"tiny/hf-bytelevel.json", "llama-bpe", 0},
    {"tiny/hf-llama2-metaspace.json", NULL, FIRST_ONLY | OTHER_BYTES},
    {"tiny/hf-llama2-prepend.json", NULL, OTHER_BYTES},
    {"tiny/sp-bpe.model", NULL, NO_SPECIALS | OTHER_BYTES},
    {"tiny/tiktoken-glm4.model", NULL, OTHER_BYTES},
};

struct both {
    const struct exported *file;
    struct tokenizer *t, *again;
    size_t n;
};

static bool has_special(const struct tokenizer *t, const char *text, size_t len)
{
    size_t n;
    int32_t *ids = encode(t, text, len, ENCODE_SPECIAL, &n);
    bool has = false;
    for (size_t i = 0; i < n; i++)
        has = has || tokenizer_is_control(t, ids[i]);
    free(ids);
    return has;
}

static bool begins_with_space(const char *text, size_t len)
{
    return (len > 0 && text[0] == ' ') || (len > 2 && memcmp(text, "\xe2\x96\x81", 3) == 0);
}

static bool is_ascii(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= 0x80)
            return false;
    return true;
}

static void same_ids(json_t *line, void *arg)
{
    struct both *b = arg;
    size_t len, n, m;
    char *text = line_bytes(line, "text", "hex", &len);
    bool invalid = json_object_get(line, "hex") != NULL;
    unsigned is = b->file->is, most = is & NO_SPECIALS ? 0 : ENCODE_SPECIAL;
    if ((is & FIRST_ONLY) && has_special(b->t, text, len))
        most = 0;
    bool skip = (is & OTHER_BYTES && invalid) || (is & FIRST_ONLY && begins_with_space(text, len));
    for (unsigned how = 0; how <= most && !skip; how += ENCODE_SPECIAL) {
        int32_t *x = encode(b->t, text, len, how, &n), *y = encode(b->again, text, len, how, &m);
        ck_assert_msg(n == m && memcmp(x, y, n * sizeof *x) == 0, "%s: case %s, %s: %zu ids, not %zu",
                      b->file->file, json_string_value(json_object_get(line, "id")),
                      how ? "special" : "plain", m, n);
        char *s, *u;
        size_t n_s, n_u;
        ck_assert_int_eq(tokenizer_decode(b->t, x, n, false, &s, &n_s), 0);
        ck_assert_int_eq(tokenizer_decode(b->again, y, m, false, &u, &n_u), 0);
        ck_assert_msg(!is_ascii(text, len) || (n_s == n_u && memcmp(s, u, n_s) == 0),
                      "%s: case %s: '%s' '%s'", b->file->file, json_string_value(json_object_get(line, "id")),
                      s, u);
        b->n += n;
        free(s);
        free(u);
        free(x);
        free(y);
    }
    free(text);
}

static struct tokenizer *load(const struct exported *f)
{
    char name[200], err[512];
    struct tokenizer *t;
    snprintf(name, sizeof name, "tokenizers/%s", f->file);
    const char *path = test_golden(name);
    if (!path) {
        test_skip("golden vocabularies", "only the small ones are here");
        return NULL;
    }
    ck_assert_msg(vocab_open_path(&t, path, err, sizeof err) == 0, "%s", err);
    return t;
}

START_TEST(reads_back)
{
    struct vocab_export v;
    char err[512] = "";
    struct both b = {.file = &files[_i], .t = load(&files[_i])};
    if (!b.t)
        return;
    ck_assert_msg(tokenizer_export(&v, b.t, 0, err, sizeof err) == 0, "%s: %s", b.file->file, err);
    ck_assert_uint_eq(v.spec.n_tokens, (size_t)tokenizer_n_tokens(b.t));
    if (b.file->pre)
        ck_assert_str_eq(v.spec.pre, b.file->pre);
    v.spec.strip_after_special = b.file->is & PHI3;
    ck_assert_msg(tokenizer_new(&b.again, &v.spec, err, sizeof err) == 0, "%s", err);
    ck_assert_int_eq(tokenizer_adds_bos(b.t), tokenizer_adds_bos(b.again));
    for (int32_t id = 0; id < tokenizer_n_tokens(b.t); id++)
        if (tokenizer_is_end(b.t, id) != tokenizer_is_end(b.again, id))
            ck_abort_msg("%s: token %d ends a text", b.file->file, id);
    if (each_line("tokenizers/cases.jsonl", same_ids, &b))
        ck_assert_uint_gt(b.n, 5000);
    else
        test_skip("golden texts", "they are not here");
    ck_assert_msg(!v.note[0] == !(b.file->is & FIRST_ONLY || strstr(b.file->file, "tiktoken-glm4.model")),
                  "%s", v.note);
    tokenizer_free(b.again);
    vocab_export_free(&v);
    tokenizer_free(b.t);
}
END_TEST

static struct tokenizer *made_json(const char *json)
{
    static const struct vocab_hints hints = {.bos = "<s>", .add_bos = 1, .add_eos = -1};
    struct tokenizer *t;
    char err[512];
    ck_assert_msg(tokenizer_from_json(&t, "made.json", json, strlen(json), &hints, err, sizeof err) == 0,
                  "%s", err);
    return t;
}

/* Ids without a token get a text, ids beyond the model's go, with the merges that lead to them. */
START_TEST(padded_and_cut)
{
    struct tokenizer *t =
        made_json("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":3,\"abb\":4},"
                  "\"merges\":[\"a b\",\"ab b\"]},\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
                  "\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true}]}");
    struct vocab_export v;
    char err[512];
    ck_assert_int_eq(tokenizer_export(&v, t, 8, err, sizeof err), 0);
    ck_assert_uint_eq(v.spec.n_tokens, 8);
    for (size_t id = 2; id < 8; id += id == 2 ? 4 : 1) {
        char pad[32];
        snprintf(pad, sizeof pad, "[PAD%zu]", id);
        ck_assert(v.tokens[id].len == strlen(pad) && memcmp(v.tokens[id].text, pad, strlen(pad)) == 0);
        ck_assert_int_eq(v.tokens[id].type, TOKEN_UNUSED);
    }
    ck_assert_int_eq(v.spec.bos, 5);
    ck_assert_int_eq(v.spec.add_bos, 1);
    ck_assert_int_eq(v.tokens[5].type, TOKEN_CONTROL);
    ck_assert_uint_eq(v.spec.n_merges, 2);
    ck_assert_str_eq(v.note, "");
    vocab_export_free(&v);
    ck_assert_int_eq(tokenizer_export(&v, t, 4, err, sizeof err), 0);
    ck_assert_uint_eq(v.spec.n_tokens, 4);
    ck_assert_uint_eq(v.spec.n_merges, 1);
    ck_assert_int_eq(v.spec.bos, -1);
    ck_assert_ptr_nonnull(strstr(v.note, "last 2 of 6 tokens"));
    vocab_export_free(&v);
    tokenizer_free(t);
}
END_TEST

/* The first pair that gives a token is its score; a token that no pair gives does not come about. */
START_TEST(ranks_as_scores)
{
    struct tokenizer *t = made_json(
        "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"\xe2\x96\x81\":0,\"a\":1,\"b\":2,"
        "\"bb\":3,\"ab\":4,\"abb\":5,\"aa\":6},\"merges\":[\"b b\",\"a b\",\"a bb\",\"ab b\"]},"
        "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}}");
    struct vocab_export v;
    struct tokenizer *again;
    char err[512];
    ck_assert_int_eq(tokenizer_export(&v, t, 0, err, sizeof err), 0);
    ck_assert_int_eq(v.spec.kind, VOCAB_SPM);
    ck_assert(!v.spec.add_space_prefix && !v.spec.remove_extra_spaces);
    ck_assert(v.tokens[3].score == 0 && v.tokens[4].score == -1 && v.tokens[5].score == -2);
    ck_assert_int_eq(v.tokens[6].type, TOKEN_UNUSED);
    ck_assert_int_eq(tokenizer_new(&again, &v.spec, err, sizeof err), 0);
    check_ids(t, "aa ab abb b", 0, "1 1 0 4 0 5 0 2");
    check_ids(again, "aa ab abb b", 0, "1 1 0 4 0 5 0 2");
    tokenizer_free(again);
    vocab_export_free(&v);
    tokenizer_free(t);
}
END_TEST

START_TEST(not_to_be_said)
{
    static const char *const kinds[] = {
        "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\",-1]],\"unk_id\":0}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a</w>\":1},\"merges\":[],"
        "\"end_of_word_suffix\":\"</w>\"}}",
    };
    struct vocab_export v;
    char err[512];
    for (size_t i = 0; i < 2; i++) {
        struct tokenizer *t = made_json(kinds[i]);
        ck_assert_int_eq(tokenizer_export(&v, t, 0, err, sizeof err), 1);
        ck_assert_ptr_nonnull(strstr(err, i ? "marks the parts of words" : "probabilities"));
        tokenizer_free(t);
    }
    /* words cut at every letter e: no rule does so */
    struct tokenizer *t = made_json(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"e\":0,\"l\":1,\"el\":2,\"o\":3,\"r\":4,\"or\":5},"
        "\"merges\":[\"e l\",\"o r\"]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Split\",\"pattern\":{\"String\":\"e\"},\"behavior\":\"Isolated\"},"
        "{\"type\":\"ByteLevel\",\"use_regex\":false}]}}");
    ck_assert_int_eq(tokenizer_export(&v, t, 0, err, sizeof err), 0);
    ck_assert_ptr_nonnull(strstr(v.note, "sample texts have other ids"));
    vocab_export_free(&v);
    tokenizer_free(t);
}
END_TEST

static Suite *export_suite(void)
{
    Suite *s = suite_create("export");
    TCase *c = tcase_create("export");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, reads_back, 0, sizeof files / sizeof *files);
    tcase_add_test(c, padded_and_cut);
    tcase_add_test(c, ranks_as_scores);
    tcase_add_test(c, not_to_be_said);
    suite_add_tcase(s, c);
    return s;
}
TEST_SUITE(export_suite)
