/* Hugging Face's tokenizer.json: the vocabulary and merges of its model, the added tokens, what is put around
 * a text. Ids are the file's. */
#include "tokenizer/hf_json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

enum { MAX_GAPS = 1 << 16 }; /* ids without a token, so that one bad id is not a huge table */

static int check_vocab_id(struct hf_reader *r, const json_t *id, const char *text, size_t n_known,
                          size_t *n_tokens)
{
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    uint64_t limit = 2 * (uint64_t)n_known + MAX_GAPS;
    if (v < 0 || (uint64_t)v > limit)
        return HF_FAULT(r, "%s: the id of the token '%.60s' is no id below %" PRIu64, r->name, text, limit);
    if ((size_t)v >= *n_tokens)
        *n_tokens = (size_t)v + 1;
    return 0;
}

/* Names of bytes are told by their form: a "<0x4" that merges to it is text all the same. */
static enum token_type type_of(const struct hf_reader *r, const char *text, size_t len)
{
    return r->spec.byte_fallback && len == 6 && memcmp(text, "<0x", 3) == 0 ? TOKEN_BYTE : TOKEN_NORMAL;
}

static int new_tokens(struct hf_reader *r, size_t n)
{
    r->tokens = calloc(n + 1, sizeof *r->tokens);
    if (!r->tokens)
        return HF_FAULT(r, "%s: out of memory for %zu tokens", r->name, n);
    for (size_t i = 0; i < n; i++)
        r->tokens[i] = (struct vocab_token){.text = "", .type = TOKEN_UNUSED, .flags = TOKEN_NOT_IN_MODEL};
    r->spec.tokens = r->tokens;
    r->spec.n_tokens = n;
    return 0;
}

static int read_bpe_vocab(struct hf_reader *r, json_t *vocab, const json_t *added)
{
    size_t n = 0, n_known = json_object_size(vocab) + json_array_size(added), i;
    const char *text;
    json_t *id, *token;
    r->model_vocab = vocab;
    json_object_foreach(vocab, text, id)
    {
        if (check_vocab_id(r, id, text, n_known, &n) < 0)
            return -1;
    }
    json_array_foreach(added, i, token)
    {
        if (check_vocab_id(r, json_object_get(token, "id"), "added", n_known, &n) < 0)
            return -1;
    }
    if (new_tokens(r, n) < 0)
        return -1;
    json_object_foreach(vocab, text, id)
    {
        struct vocab_token *t = &r->tokens[json_integer_value(id)];
        if (t->len > 0)
            return HF_FAULT(r, "%s: the tokens '%.*s' and '%.60s' have one id", r->name,
                            (int)(t->len < 60 ? t->len : 60), t->text, text);
        t->text = text;
        t->len = strlen(text);
        t->type = type_of(r, text, t->len);
        t->flags = 0;
    }
    return 0;
}

static int read_unigram_vocab(struct hf_reader *r, const json_t *vocab, const json_t *added)
{
    size_t n = json_array_size(vocab), n_known = n + json_array_size(added), i;
    json_t *pair, *token;
    json_array_foreach(added, i, token)
    {
        if (check_vocab_id(r, json_object_get(token, "id"), "added", n_known, &n) < 0)
            return -1;
    }
    if (new_tokens(r, n) < 0)
        return -1;
    json_array_foreach(vocab, i, pair)
    {
        const json_t *text = json_array_get(pair, 0), *score = json_array_get(pair, 1);
        if (!json_is_string(text) || !json_is_number(score))
            return HF_FAULT(r, "%s: model.vocab[%zu] is no pair of a text and a score", r->name, i);
        r->tokens[i].text = json_string_value(text);
        r->tokens[i].len = json_string_length(text);
        r->tokens[i].score = json_number_value(score);
        r->tokens[i].type = type_of(r, r->tokens[i].text, r->tokens[i].len);
        r->tokens[i].flags = 0;
    }
    return 0;
}

/* "left right" or ["left", "right"] */
static int read_merge(const json_t *j, struct vocab_merge *m)
{
    const json_t *left = json_array_get(j, 0), *right = json_array_get(j, 1);
    if (json_is_string(left) && json_is_string(right) && json_array_size(j) == 2) {
        *m = (struct vocab_merge){.left = json_string_value(left),
                                  .left_len = json_string_length(left),
                                  .right = json_string_value(right),
                                  .right_len = json_string_length(right)};
        return 0;
    }
    const char *text = json_string_value(j);
    size_t len = json_string_length(j);
    const char *space = text ? memchr(text, ' ', len) : NULL;
    if (!space)
        return -1;
    *m = (struct vocab_merge){.left = text,
                              .left_len = (size_t)(space - text),
                              .right = space + 1,
                              .right_len = len - (size_t)(space - text) - 1};
    return 0;
}

static int read_merges(struct hf_reader *r, const json_t *merges)
{
    size_t n = json_array_size(merges), i;
    json_t *m;
    r->merges = calloc(n + 1, sizeof *r->merges);
    if (!r->merges)
        return HF_FAULT(r, "%s: out of memory for %zu merges", r->name, n);
    json_array_foreach(merges, i, m)
    {
        if (read_merge(m, &r->merges[i]) < 0)
            return HF_FAULT(r, "%s: model.merges[%zu] is no pair of pieces", r->name, i);
    }
    r->spec.merges = r->merges;
    r->spec.n_merges = n;
    return 0;
}

static int32_t find_token(const struct hf_reader *r, const char *text)
{
    size_t len = text ? strlen(text) : 0;
    for (size_t i = 0; len > 0 && i < r->spec.n_tokens; i++)
        if (r->tokens[i].len == len && memcmp(r->tokens[i].text, text, len) == 0)
            return (int32_t)i;
    return -1;
}

static bool flag(const json_t *j, const char *key)
{
    return json_is_true(json_object_get(j, key));
}

static const char *text_or_null(const json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s && *s ? s : NULL;
}

static int read_model(struct hf_reader *r, const json_t *json)
{
    const json_t *model = json_object_get(json, "model"), *added = json_object_get(json, "added_tokens");
    json_t *vocab = json_object_get(model, "vocab");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!json_is_object(model))
        return HF_FAULT(r, "%s: no tokenizer in the file (no key model)", r->name);
    if (!type) /* older files leave it to be guessed */
        type = json_is_array(vocab) ? "Unigram" : json_object_get(model, "merges") ? "BPE" : "";
    r->spec.byte_fallback = flag(model, "byte_fallback");
    if (strcmp(type, "BPE") == 0) {
        if (!json_is_object(vocab))
            return HF_FAULT(r, "%s: model.vocab is no object", r->name);
        r->spec.kind = VOCAB_BPE;
        r->spec.whole_words = flag(model, "ignore_merges");
        r->spec.fuse_unk = flag(model, "fuse_unk");
        r->spec.word_prefix = text_or_null(model, "continuing_subword_prefix");
        r->spec.word_suffix = text_or_null(model, "end_of_word_suffix");
        if (read_bpe_vocab(r, vocab, added) < 0 || read_merges(r, json_object_get(model, "merges")) < 0)
            return -1;
        r->spec.unk = find_token(r, json_string_value(json_object_get(model, "unk_token")));
        return 0;
    }
    if (strcmp(type, "Unigram") == 0) {
        if (!json_is_array(vocab))
            return HF_FAULT(r, "%s: model.vocab is no array", r->name);
        r->spec.kind = VOCAB_UNIGRAM;
        r->spec.fuse_unk = true;
        if (read_unigram_vocab(r, vocab, added) < 0)
            return -1;
        const json_t *unk = json_object_get(model, "unk_id");
        json_int_t id = json_is_integer(unk) ? json_integer_value(unk) : -1;
        if (id >= (json_int_t)r->spec.n_tokens)
            return HF_FAULT(r, "%s: model.unk_id is outside the vocabulary", r->name);
        r->spec.unk = id < 0 ? -1 : (int32_t)id;
        return 0;
    }
    return HF_FAULT(r, "%s: model.type is '%.40s', supported are BPE and Unigram", r->name, type);
}

static int add_token(struct hf_reader *r, int32_t id, const struct vocab_token *token)
{
    assert(r->tokens);
    struct vocab_token *t = &r->tokens[id];
    bool same = t->len == token->len && memcmp(t->text, token->text, t->len) == 0;
    if (t->len > 0 && !same)
        return HF_FAULT(r, "%s: the added token '%.*s' has the id of '%.*s'", r->name,
                        (int)(token->len < 60 ? token->len : 60), token->text,
                        (int)(t->len < 60 ? t->len : 60), t->text);
    unsigned not_in_model = t->flags & TOKEN_NOT_IN_MODEL;
    double score = t->score;
    *t = *token;
    t->score = score;
    t->flags |= not_in_model;
    return 0;
}

static int read_added(struct hf_reader *r, const json_t *json)
{
    json_t *j;
    size_t i;
    json_array_foreach(json_object_get(json, "added_tokens"), i, j)
    {
        const json_t *text = json_object_get(j, "content");
        if (!json_is_string(text))
            return HF_FAULT(r, "%s: added_tokens[%zu] without a content", r->name, i);
        if (json_string_length(text) == 0)
            continue;
        struct vocab_token t = {.text = json_string_value(text),
                                .len = json_string_length(text),
                                .type = flag(j, "special") ? TOKEN_CONTROL : TOKEN_USER_DEFINED};
        t.flags = TOKEN_ADDED | (flag(j, "lstrip") ? TOKEN_LSTRIP : 0u) |
                  (flag(j, "rstrip") ? TOKEN_RSTRIP : 0u) |
                  (flag(j, "single_word") ? TOKEN_SINGLE_WORD : 0u) |
                  (flag(j, "normalized") ? TOKEN_NORMALIZED : 0u);
        /* a token of the model keeps the model's id */
        const json_t *own =
            r->model_vocab && !memchr(t.text, 0, t.len) ? json_object_get(r->model_vocab, t.text) : NULL;
        json_int_t id = json_integer_value(own ? own : json_object_get(j, "id"));
        if (add_token(r, (int32_t)id, &t) < 0)
            return -1;
    }
    return 0;
}

/* The ids of a special token of TemplateProcessing; SIZE_MAX: an error. */
static size_t template_ids(struct hf_reader *r, const json_t *post, const char *name, int32_t *to,
                           size_t room)
{
    const json_t *ids =
        json_object_get(name ? json_object_get(json_object_get(post, "special_tokens"), name) : NULL, "ids");
    size_t n = json_array_size(ids), i;
    json_t *id;
    if (n == 0 && room > 0 && (to[0] = find_token(r, name)) >= 0)
        return 1;
    if (n == 0 || n > room)
        return SIZE_MAX;
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= (json_int_t)r->spec.n_tokens)
            return SIZE_MAX;
        to[i] = (int32_t)json_integer_value(id);
    }
    return n;
}

enum { MAX_AROUND = 256 }; /* tokens in front of a text, and behind */

static int read_template(struct hf_reader *r, const json_t *post)
{
    const json_t *list = json_object_get(post, "single");
    bool behind = false;
    json_t *part;
    size_t i;
    json_array_foreach(list, i, part)
    {
        const json_t *special = json_object_get(part, "SpecialToken");
        if (!special) {
            behind = behind || json_object_get(part, "Sequence");
            continue;
        }
        size_t *n = behind ? &r->spec.n_suffix : &r->spec.n_prefix;
        int32_t *to = behind ? r->suffix : r->prefix;
        size_t k = template_ids(r, post, json_string_value(json_object_get(special, "id")), to + *n,
                                MAX_AROUND - *n);
        if (k == SIZE_MAX)
            return HF_FAULT(r, "%s: post_processor.single[%zu] names no tokens of the vocabulary", r->name,
                            i);
        *n += k;
    }
    return 0;
}

/* ["</s>", 2] */
static int read_pair(struct hf_reader *r, const json_t *post, const char *key, int32_t *to, size_t *n)
{
    const json_t *id = json_array_get(json_object_get(post, key), 1);
    json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v >= (json_int_t)r->spec.n_tokens || *n == MAX_AROUND)
        return HF_FAULT(r, "%s: post_processor.%s is no token of the vocabulary", r->name, key);
    to[(*n)++] = (int32_t)v;
    return 0;
}

static int read_post(struct hf_reader *r, const json_t *post, int depth)
{
    const char *type = json_string_value(json_object_get(post, "type"));
    json_t *part;
    size_t i;
    if (!type)
        return 0;
    if (strcmp(type, "Sequence") == 0) {
        if (depth > 8)
            return HF_FAULT(r, "%s: post_processor: Sequences %d deep", r->name, depth);
        json_array_foreach(json_object_get(post, "processors"), i, part)
        {
            if (read_post(r, part, depth + 1) < 0)
                return -1;
        }
    }
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(r, post);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        return read_pair(r, post, "cls", r->prefix, &r->spec.n_prefix) < 0
                   ? -1
                   : read_pair(r, post, "sep", r->suffix, &r->spec.n_suffix);
    return 0;
}

/* add_bos_token and add_eos_token of tokenizer_config.json overrule the post-processor. */
static void overrule(const int32_t *ids, size_t *n, int32_t *to, int32_t id, int wanted)
{
    bool has = *n > 0 && id >= 0 && ids[0] == id;
    if (wanted == 1 && *n == 0 && id >= 0)
        to[(*n)++] = id;
    if (wanted == 0 && has && *n == 1)
        *n = 0;
}

static int read_around(struct hf_reader *r, const json_t *json, const struct vocab_hints *h)
{
    struct vocab_spec *s = &r->spec;
    r->prefix = calloc(MAX_AROUND, sizeof *r->prefix);
    r->suffix = calloc(MAX_AROUND, sizeof *r->suffix);
    if (!r->prefix || !r->suffix)
        return HF_FAULT(r, "%s: out of memory", r->name);
    if (read_post(r, json_object_get(json, "post_processor"), 0) < 0)
        return -1;
    s->bos = find_token(r, h->bos);
    s->eos = find_token(r, h->eos);
    if (!h->bos && s->n_prefix > 0)
        s->bos = r->prefix[0];
    overrule(r->prefix, &s->n_prefix, r->prefix, s->bos, h->add_bos);
    overrule(r->suffix, &s->n_suffix, r->suffix, s->eos, h->add_eos);
    s->prefix = r->prefix;
    s->suffix = r->suffix;
    s->ends = h->ends;
    s->n_ends = h->n_ends;
    return 0;
}

int tokenizer_from_json(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                        const struct vocab_hints *hints, char *err, size_t errlen)
{
    json_error_t fault;
    json_t *json = json_loadb(bytes, len, JSON_ALLOW_NUL, &fault);
    *out = NULL;
    if (!json)
        return err_set(err, errlen, "%s:%d: %s", name, fault.line, fault.text);
    struct hf_reader *r = calloc(1, sizeof *r);
    int rc = -1;
    if (!r) {
        (void)err_set(err, errlen, "%s: out of memory", name);
    } else {
        *r = (struct hf_reader){.name = name, .err = err, .errlen = errlen};
        r->spec = (struct vocab_spec){.name = name,
                                      .bos = -1,
                                      .eos = -1,
                                      .eot = -1,
                                      .eom = -1,
                                      .unk = -1,
                                      .add_bos = 0,
                                      .add_eos = 0,
                                      .own_vocabulary = true};
        rc = read_model(r, json);
        if (rc == 0)
            rc = read_added(r, json);
        if (rc == 0)
            rc = hf_read_steps(r, json);
        if (rc == 0)
            rc = read_around(r, json, hints);
        if (rc == 0)
            rc = tokenizer_new(out, &r->spec, err, errlen);
        hf_free_steps(&r->normalizer);
        hf_free_steps(&r->pretokenizer);
        free(r->tokens);
        free(r->merges);
        free(r->prefix);
        free(r->suffix);
    }
    free(r);
    json_decref(json);
    return rc;
}
