/* A tokenizer from a GGUF file's metadata: the keys tokenizer.ggml.*, each checked. */
#include "quant/err.h"
#include "tools/vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

struct vocab_reader {
    const struct weights *w;
    struct vocab_spec spec;
    struct vocab_token *tokens;
    struct vocab_merge *merges;
    struct vocab_step normalizer;
    char *pre;
    char *err;
    size_t errlen;
};

#define FAULT(r, ...) err_set((r)->err, (r)->errlen, __VA_ARGS__)

/* The array at key, NULL without an error: absent and optional. n: its length must be this; 0: any. */
static int find_array(struct vocab_reader *r, const char *key, bool required, uint64_t n,
                      const struct meta **out)
{
    const char *path = weights_path(r->w);
    const struct meta *m = weights_meta_find(r->w, key);
    *out = m;
    if (!m)
        return required ? FAULT(r, "%s: no key %s", path, key) : 0;
    if (m->type != META_ARRAY)
        return FAULT(r, "%s: key %s is %s, not an array", path, key, meta_type_name(m->type));
    if (n && m->n != n)
        return FAULT(r, "%s: key %s has %" PRIu64 " values for %" PRIu64 " tokens", path, key, m->n, n);
    return 0;
}

static int array_fault(struct vocab_reader *r, const struct meta *m, uint64_t i, const char *expected)
{
    return FAULT(r, "%s: key %s, element %" PRIu64 " (%s) is not %s", weights_path(r->w), m->key, i,
                 meta_type_name(m->elem), expected);
}

/* A string value as it is in the file; out->s NULL: absent. */
static int find_string(struct vocab_reader *r, const char *key, struct wstr *out)
{
    const struct meta *m = weights_meta_find(r->w, key);
    *out = (struct wstr){NULL, 0};
    if (!m || (m->type == META_STRING && meta_str(m, 0, out)))
        return 0;
    return FAULT(r, "%s: key %s is %s, not a string", weights_path(r->w), key, meta_type_name(m->type));
}

static int read_id(struct vocab_reader *r, const char *key, int32_t absent, int32_t *out)
{
    const struct meta *m = weights_meta_find(r->w, key);
    int64_t id;
    *out = absent >= 0 && (size_t)absent < r->spec.n_tokens ? absent : -1;
    if (!m)
        return 0;
    if (m->type == META_ARRAY || !meta_int(m, 0, &id))
        return FAULT(r, "%s: key %s is %s, not a token id", weights_path(r->w), key, meta_type_name(m->type));
    if (id == -1 || id == UINT32_MAX) { /* how converters write "none" */
        *out = -1;
        return 0;
    }
    if (id < 0 || (uint64_t)id >= r->spec.n_tokens)
        return FAULT(r, "%s: key %s is %" PRId64 ", the vocabulary has %zu tokens", weights_path(r->w), key,
                     id, r->spec.n_tokens);
    *out = (int32_t)id;
    return 0;
}

/* 0 or 1; absent where the file does not say. */
static int read_bool(struct vocab_reader *r, const char *key, int absent, int *out)
{
    const struct meta *m = weights_meta_find(r->w, key);
    int64_t v;
    *out = absent;
    if (!m)
        return 0;
    if (m->type != META_BOOL || !meta_int(m, 0, &v))
        return FAULT(r, "%s: key %s is %s, not a bool", weights_path(r->w), key, meta_type_name(m->type));
    *out = v != 0;
    return 0;
}

static int read_kind(struct vocab_reader *r)
{
    struct wstr s;
    if (find_string(r, KEY("model"), &s) < 0)
        return -1;
    if (!s.s)
        return FAULT(r, "%s: no tokenizer in the file (no key %s)", weights_path(r->w), KEY("model"));
    if (s.len == 4 && memcmp(s.s, "gpt2", 4) == 0)
        r->spec.kind = VOCAB_BPE;
    else if (s.len == 5 && memcmp(s.s, "llama", 5) == 0)
        r->spec.kind = VOCAB_SPM;
    else if (s.len == 2 && memcmp(s.s, "t5", 2) == 0)
        r->spec.kind = VOCAB_UNIGRAM;
    else
        return FAULT(r, "%s: key %s is '%.*s', supported are gpt2, llama and t5", weights_path(r->w),
                     KEY("model"), (int)(s.len < 40 ? s.len : 40), s.s);

    if (find_string(r, KEY("pre"), &s) < 0)
        return -1;
    if (s.s) {
        if (s.len > 60 || memchr(s.s, 0, s.len))
            return FAULT(r, "%s: key %s is no name of a pre-tokenizer", weights_path(r->w), KEY("pre"));
        r->pre = strndup(s.s, s.len);
        if (!r->pre)
            return FAULT(r, "%s: out of memory", weights_path(r->w));
        r->spec.pre = r->pre;
    }
    return 0;
}

static int read_tokens(struct vocab_reader *r)
{
    const struct meta *text, *score, *type;
    if (find_array(r, KEY("tokens"), true, 0, &text) < 0)
        return -1;
    uint64_t n = text->n;
    if (n == 0)
        return FAULT(r, "%s: key %s is empty", weights_path(r->w), text->key);
    if (find_array(r, KEY("scores"), r->spec.kind != VOCAB_BPE, n, &score) < 0 ||
        find_array(r, KEY("token_type"), false, n, &type) < 0)
        return -1;
    r->tokens = calloc(n, sizeof *r->tokens);
    if (!r->tokens)
        return FAULT(r, "%s: out of memory for %" PRIu64 " tokens", weights_path(r->w), n);
    for (uint64_t i = 0; i < n; i++) {
        struct vocab_token *t = &r->tokens[i];
        struct wstr s;
        double f;
        int64_t v;
        if (!meta_str(text, i, &s))
            return array_fault(r, text, i, "a string");
        t->text = s.s;
        t->len = s.len;
        if (score) {
            if (!meta_float(score, i, &f) || f != f)
                return array_fault(r, score, i, "a number");
            t->score = (float)f;
        }
        t->type = TOKEN_NORMAL;
        if (type) {
            if (!meta_int(type, i, &v) || v < 0 || v > TOKEN_BYTE)
                return array_fault(r, type, i, "a token type (0 to 6)");
            t->type = v == 0 ? TOKEN_NORMAL : (enum token_type)v;
        }
    }
    r->spec.tokens = r->tokens;
    r->spec.n_tokens = n;
    return 0;
}

static int read_merges(struct vocab_reader *r)
{
    const struct meta *m;
    if (find_array(r, KEY("merges"), true, 0, &m) < 0)
        return -1;
    r->merges = calloc(m->n + 1, sizeof *r->merges);
    if (!r->merges)
        return FAULT(r, "%s: out of memory for %" PRIu64 " merges", weights_path(r->w), m->n);
    for (uint64_t i = 0; i < m->n; i++) {
        struct wstr s;
        if (!meta_str(m, i, &s))
            return array_fault(r, m, i, "a string");
        /* The pieces are spelled without spaces; one that begins with a space is not byte-level. */
        const char *space = s.len > 2 ? memchr(s.s + 1, ' ', s.len - 2) : NULL;
        if (!space)
            return array_fault(r, m, i, "a pair of pieces");
        r->merges[i].left = s.s;
        r->merges[i].left_len = (size_t)(space - s.s);
        r->merges[i].right = space + 1;
        r->merges[i].right_len = s.len - r->merges[i].left_len - 1;
    }
    r->spec.merges = r->merges;
    r->spec.n_merges = m->n;
    return 0;
}

/* A unigram vocabulary comes with SentencePiece's normaliser. */
static int read_normalizer(struct vocab_reader *r, bool prefix, bool remove_extra)
{
    const struct meta *map;
    if (find_array(r, KEY("precompiled_charsmap"), false, 0, &map) < 0)
        return -1;
    if (map && map->elem != META_U8 && map->elem != META_I8)
        return array_fault(r, map, 0, "a byte");
    r->normalizer = (struct vocab_step){.kind = STEP_SENTENCEPIECE,
                                        .content = map ? map->data : NULL,
                                        .content_len = map ? map->n : 0,
                                        .sp_flags = SP_ESCAPE | (prefix ? SP_DUMMY_PREFIX : 0u) |
                                                    (remove_extra ? SP_REMOVE_EXTRA : 0u)};
    r->spec.own_steps = true;
    r->spec.normalizer = &r->normalizer;
    r->spec.n_normalizer = 1;
    r->spec.strip_first_space = prefix || remove_extra;
    r->spec.strip_first_pieces = remove_extra;
    r->spec.float_scores = true;
    return 0;
}

static int read_spec(struct vocab_reader *r)
{
    struct vocab_spec *s = &r->spec;
    int prefix, extra;
    if (read_kind(r) < 0 || read_tokens(r) < 0 || (s->kind == VOCAB_BPE && read_merges(r) < 0))
        return -1;
    /* SentencePiece's usual ids stand in where a LLaMA file names none, T5's where one of that kind does not.
     */
    bool spm = s->kind == VOCAB_SPM, t5 = s->kind == VOCAB_UNIGRAM;
    if (read_id(r, KEY("bos_token_id"), spm ? 1 : -1, &s->bos) < 0 ||
        read_id(r, KEY("eos_token_id"),
                spm  ? 2
                : t5 ? 1
                     : -1,
                &s->eos) < 0 ||
        read_id(r, KEY("unknown_token_id"),
                spm  ? 0
                : t5 ? 2
                     : -1,
                &s->unk) < 0 ||
        read_id(r, KEY("eot_token_id"), -1, &s->eot) < 0 ||
        read_id(r, KEY("eom_token_id"), -1, &s->eom) < 0 ||
        read_bool(r, KEY("add_bos_token"), -1, &s->add_bos) < 0 ||
        read_bool(r, KEY("add_eos_token"), t5 ? 1 : -1, &s->add_eos) < 0 ||
        read_bool(r, KEY("add_space_prefix"), spm || t5, &prefix) < 0 ||
        read_bool(r, KEY("remove_extra_whitespaces"), t5, &extra) < 0)
        return -1;
    if (t5 && read_normalizer(r, prefix, extra) < 0)
        return -1;
    struct wstr arch;
    if (find_string(r, "general.architecture", &arch) < 0)
        return -1;
    s->strip_after_special = spm && arch.len == 4 && memcmp(arch.s, "phi3", 4) == 0;
    s->add_space_prefix = prefix;
    s->remove_extra_spaces = extra;
    return 0;
}

int vocab_from_gguf(struct tokenizer **out, const struct weights *w, char *err, size_t errlen)
{
    struct vocab_reader r = {.w = w, .spec.name = weights_path(w), .err = err, .errlen = errlen};
    *out = NULL;
    int rc = read_spec(&r);
    if (rc == 0)
        rc = tokenizer_new(out, &r.spec, err, errlen);
    free(r.tokens);
    free(r.merges);
    free(r.pre);
    return rc;
}
