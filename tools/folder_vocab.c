#include "tools/folder_vocab.h"
#include "quant/err.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Copies ---------------------------------------------------------------------------------------- */

static int copy_file(const char *from, const char *to, char *err, size_t errlen)
{
    char *text;
    size_t len;
    if (read_file(from, &text, &len, err, errlen))
        return -1;
    FILE *f = fopen(to, "wb");
    bool good = f && fwrite(text, 1, len, f) == len;
    if (f && fclose(f))
        good = false;
    free(text);
    return good ? 0 : err_set(err, errlen, "%s: cannot write it: %s", to, strerror(errno));
}

static int copy_files(const char *folder, const char *from, char *err, size_t errlen)
{
    static const char *const names[] = {
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "ice_text.model",
        "chat_template.json",
        "chat_template.jinja",
        "generation_config.json",
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && rc == 0; i++) {
        char a[4096], b[4096];
        (void)snprintf(a, sizeof a, "%s/%s", from, names[i]);
        (void)snprintf(b, sizeof b, "%s/%s", folder, names[i]);
        if (access(a, F_OK) == 0)
            rc = copy_file(a, b, err, errlen);
    }
    return rc;
}

/* ---- From a GGUF ----------------------------------------------------------------------------------- */

/* How text is cut into words before merging: as the models' own tokenizer.json files have it. */
static const struct {
    const char *pre; /* tokenizer.ggml.pre */
    const char *normalizer, *pre_tokenizer;
    bool ignore_merges; /* a word that is a token is that token */
} families[] = {
    {"gpt-2", NULL,
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}", false},
    {"smollm", NULL,
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}]}",
     false},
    {"qwen2", "{\"type\":\"NFC\"}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
     "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
     "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
     "\"behavior\":\"Isolated\",\"invert\":false},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false}]}",
     false},
    {"llama-bpe", NULL,
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
     "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
     "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
     "\"behavior\":\"Isolated\",\"invert\":false},"
     "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]}",
     true},
};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static bool meta_is(const struct weights *w, const char *key, const char *value)
{
    const struct meta *m = weights_meta_find(w, key);
    struct wstr s;
    return m && meta_str(m, 0, &s) && s.len == strlen(value) && memcmp(s.s, value, s.len) == 0;
}

static json_t *json_text(struct wstr s)
{
    return json_stringn(s.s, s.len);
}

/* Vocabulary, merges and added tokens; NULL: a token is no UTF-8, a list is missing. */
static json_t *make_tokenizer(const struct weights *w, size_t family)
{
    const struct meta *tokens = weights_meta_find(w, "tokenizer.ggml.tokens");
    const struct meta *types = weights_meta_find(w, "tokenizer.ggml.token_type");
    const struct meta *merges = weights_meta_find(w, "tokenizer.ggml.merges");
    if (!tokens || !merges)
        return NULL;
    json_t *vocab = json_object(), *added = json_array(), *pairs = json_array();
    bool good = true;
    for (uint64_t i = 0; i < tokens->n && good; i++) {
        struct wstr s = {NULL, 0};
        int64_t type = TOKEN_NORMAL;
        good = meta_str(tokens, i, &s) && (!types || meta_int(types, i, &type));
        json_t *text = good ? json_text(s) : NULL;
        good = text != NULL;
        if (good && (type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED))
            (void)json_array_append_new(added,
                                        json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                                  "content", text, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                                  "normalized", 0, "special", type == TOKEN_CONTROL));
        else if (good && type == TOKEN_NORMAL)
            good = json_object_setn_new(vocab, s.s, s.len, json_integer((json_int_t)i)) == 0;
        json_decref(text);
    }
    for (uint64_t i = 0; i < merges->n && good; i++) {
        struct wstr s;
        good = meta_str(merges, i, &s) && json_array_append_new(pairs, json_text(s)) == 0;
    }
    const char *normalizer = families[family].normalizer;
    json_t *all = json_pack(
        "{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
        normalizer ? json_loads(normalizer, 0, NULL) : json_null(), "pre_tokenizer",
        json_loads(families[family].pre_tokenizer, 0, NULL), "post_processor",
        json_loads("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
                   "\"use_regex\":false}",
                   0, NULL),
        "decoder",
        json_loads("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
                   "\"use_regex\":false}",
                   0, NULL),
        "model", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", families[family].ignore_merges, "vocab", vocab,
        "merges", pairs);
    if (good)
        return all;
    json_decref(all);
    return NULL;
}

static json_t *make_tokenizer_config(const struct weights *w)
{
    static const char *const ids[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token"},
                                         {"tokenizer.ggml.eos_token_id", "eos_token"},
                                         {"tokenizer.ggml.padding_token_id", "pad_token"},
                                         {"tokenizer.ggml.unknown_token_id", "unk_token"}};
    const struct meta *tokens = weights_meta_find(w, "tokenizer.ggml.tokens");
    const struct meta *chat = weights_meta_find(w, "tokenizer.chat_template");
    const struct meta *add = weights_meta_find(w, "tokenizer.ggml.add_bos_token");
    json_t *j = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                          "clean_up_tokenization_spaces", 0);
    struct wstr s;
    int64_t v = 0;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        const struct meta *m = weights_meta_find(w, ids[i][0]);
        if (m && meta_int(m, 0, &v) && v >= 0 && meta_str(tokens, (uint64_t)v, &s))
            (void)json_object_set_new(j, ids[i][1], json_text(s));
    }
    if (add && meta_int(add, 0, &v))
        (void)json_object_set_new(j, "add_bos_token", json_boolean(v != 0));
    if (chat && meta_str(chat, 0, &s))
        (void)json_object_set_new(j, "chat_template", json_text(s));
    return j;
}

static int save_json(const char *folder, const char *name, const json_t *j, char *err, size_t errlen)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    errno = 0;
    if (json_dump_file(j, path, JSON_COMPACT) == 0)
        return 0;
    return err_set(err, errlen, "%s: cannot write it: %s", path, strerror(errno ? errno : EIO));
}

static int make_files(const char *folder, const struct weights *w, char *err, size_t errlen)
{
    size_t family = 0;
    while (family < N_FAMILIES && !meta_is(w, "tokenizer.ggml.pre", families[family].pre))
        family++;
    json_t *j = NULL;
    if (family < N_FAMILIES && meta_is(w, "tokenizer.ggml.model", "gpt2"))
        j = make_tokenizer(w, family);
    if (!j) {
        tool_note(NOTE_ALWAYS, "no tokenizer is written: it cannot be made from this vocabulary; copy the "
                               "original model's tokenizer files into the folder\n");
        return 0;
    }
    int rc = save_json(folder, "tokenizer.json", j, err, errlen);
    json_decref(j);
    j = make_tokenizer_config(w);
    if (rc == 0)
        rc = save_json(folder, "tokenizer_config.json", j, err, errlen);
    json_decref(j);
    return rc;
}

int folder_vocab_write(const char *folder, const struct weights *w, char *err, size_t errlen)
{
    const char *from = weights_folder(w);
    return from ? copy_files(folder, from, err, errlen) : make_files(folder, w, err, errlen);
}
