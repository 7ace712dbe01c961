#include "tests/tokenizer/vocabs.h"

#include "tools/tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const vocab_names[] = {
    "llama-spm",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "deepseek-llm",
    "deepseek-coder",
    "phi-3",
    "baichuan",
    "falcon",
    "starcoder",
    "smollm2",
    "gemma3",
    "small-sp-bpe",
    "small-hf-bytelevel",
    "small-tiktoken-glm4",
};
_Static_assert(sizeof vocab_names / sizeof *vocab_names == N_VOCABS, "as declared");

struct tokenizer *vocab_load(const char *name)
{
    char path[200], err[512];
    snprintf(path, sizeof path, "tokenizers/vocab/%s.gguf", name);
    const char *file = test_golden(path);
    if (!file) {
        test_skip("golden vocabularies", "only the small ones are here");
        return NULL;
    }
    struct weights *w;
    struct tokenizer *t;
    ck_assert_msg(weights_open(&w, file, NULL, err, sizeof err) == 0, "%s", err);
    ck_assert_msg(vocab_open(&t, w, err, sizeof err) == 0, "%s", err);
    weights_close(w);
    return t;
}

bool each_line(const char *golden_name, void (*fn)(json_t *line, void *arg), void *arg)
{
    const char *path = test_golden(golden_name);
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (!f)
        return false;
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; (n = getline(&line, &cap, f)) > 0;) {
        json_error_t fault;
        json_t *j = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, &fault);
        ck_assert_msg(j != NULL, "%s: %s", golden_name, fault.text);
        fn(j, arg);
        json_decref(j);
    }
    free(line);
    fclose(f);
    return true;
}

char *line_bytes(const json_t *line, const char *key, const char *hex_key, size_t *len)
{
    const json_t *text = json_object_get(line, key);
    const char *hex = json_string_value(json_object_get(line, hex_key));
    *len = text ? json_string_length(text) : hex ? strlen(hex) / 2 : 0;
    char *bytes = text || hex ? malloc(*len + 1) : NULL;
    if (text)
        memcpy(bytes, json_string_value(text), *len);
    for (size_t i = 0; !text && hex && i < *len; i++) {
        unsigned b;
        ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &b), 1);
        bytes[i] = (char)b;
    }
    return bytes;
}

int32_t *encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags, size_t *n)
{
    int32_t *ids;
    char err[512];
    ck_assert_msg(tokenizer_encode(t, text, len, flags, &ids, n, err, sizeof err) == 0, "%s", err);
    bool valid = true; /* one assertion: Check writes each to a pipe */
    for (size_t i = 0; i < *n; i++)
        valid = valid && ids[i] >= 0 && ids[i] < tokenizer_n_tokens(t);
    ck_assert(valid);
    return ids;
}

bool ids_equal(const int32_t *ids, size_t n, const json_t *expected)
{
    if (!json_is_array(expected) || json_array_size(expected) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(expected, i)) != ids[i])
            return false;
    return true;
}

void check_ids(const struct tokenizer *t, const char *text, unsigned flags, const char *expected)
{
    size_t n, at = 0;
    int32_t *ids = encode(t, text, strlen(text), flags, &n);
    char got[4096] = "";
    for (size_t i = 0; i < n && at < sizeof got - 16; i++)
        at += (size_t)sprintf(got + at, "%s%d", i ? " " : "", ids[i]);
    ck_assert_str_eq(got, expected);
    free(ids);
}

bool round_trip(const struct tokenizer *t, const char *text, size_t len)
{
    size_t n, n_back;
    char *back;
    int32_t *ids = encode(t, text, len, 0, &n);
    ck_assert_int_eq(tokenizer_decode(t, ids, n, false, &back, &n_back), 0);
    bool same = n_back == len && memcmp(back, text, len) == 0;
    free(ids);
    free(back);
    return same;
}

void made_init(struct made_vocab *m, enum vocab_kind kind)
{
    m->spec = (struct vocab_spec){
        .name = "made", .kind = kind, .pre = "gpt-2", .bos = -1, .eos = -1, .eot = -1, .eom = -1, .unk = -1};
    m->spec.tokens = m->tokens;
    m->spec.merges = m->merges;
    m->n_text = 0;
}

static const char *keep(struct made_vocab *m, const char *text, size_t len)
{
    char *kept = m->texts + m->n_text;
    ck_assert(m->n_text + len <= sizeof m->texts);
    memcpy(kept, text, len);
    m->n_text += len;
    return kept;
}

int32_t made_token(struct made_vocab *m, const char *text, size_t len, float score, enum token_type type)
{
    ck_assert(m->spec.n_tokens < sizeof m->tokens / sizeof *m->tokens);
    m->tokens[m->spec.n_tokens] =
        (struct vocab_token){.text = keep(m, text, len), .len = len, .score = score, .type = type};
    return (int32_t)m->spec.n_tokens++;
}

void made_merge(struct made_vocab *m, const char *pair)
{
    ck_assert(m->spec.n_merges < sizeof m->merges / sizeof *m->merges);
    size_t len = strlen(pair), n = (size_t)(strchr(pair + 1, ' ') - pair);
    const char *kept = keep(m, pair, len);
    m->merges[m->spec.n_merges++] =
        (struct vocab_merge){.left = kept, .left_len = n, .right = kept + n + 1, .right_len = len - n - 1};
}

void made_bytes(struct made_vocab *m)
{
    unsigned other = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        if (m->spec.kind == VOCAB_SPM) {
            made_token(m, text, (size_t)sprintf(text, "<0x%02X>", b), 0, TOKEN_BYTE);
            continue;
        }
        bool printable = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        unsigned c = printable ? b : other++;
        if (c < 0x80)
            sprintf(text, "%c", (char)c);
        else
            sprintf(text, "%c%c", (char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f)));
        made_token(m, text, strlen(text), 0, TOKEN_NORMAL);
    }
}

struct tokenizer *made_open(struct made_vocab *m)
{
    struct tokenizer *t;
    char err[512];
    ck_assert_msg(tokenizer_new(&t, &m->spec, err, sizeof err) == 0, "%s", err);
    return t;
}

uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 32) * n >> 32);
}
