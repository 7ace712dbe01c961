/* The normalizer, pre_tokenizer and decoder of a tokenizer.json as steps. */
#include "tokenizer/hf_json.h"

#include <stdlib.h>

enum { MAX_DEPTH = 16 };

/* The published split of GPT-2, in Oniguruma's dialect. */
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char punctuation[] = "[\\p{P}!-/:-@\\[-`{-~]";

static struct vocab_step *add(struct hf_reader *r, struct hf_steps *to, enum vocab_step_kind kind)
{
    if (to->n == HF_MAX_STEPS) {
        (void)HF_FAULT(r, "%s: more than %d steps", r->name, HF_MAX_STEPS);
        return NULL;
    }
    to->v[to->n] = (struct vocab_step){.kind = kind};
    return &to->v[to->n++];
}

static int add_split(struct hf_reader *r, struct hf_steps *to, const char *pattern,
                     enum split_behavior behavior)
{
    struct vocab_step *s = add(r, to, STEP_SPLIT);
    if (!s)
        return -1;
    s->pattern = pattern;
    s->pattern_len = strlen(pattern);
    s->behavior = behavior;
    return 0;
}

static bool flag(const json_t *j, const char *key, bool absent)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : absent;
}

/* {"String": "…"} or {"Regex": "…"} */
static int read_pattern(struct hf_reader *r, const json_t *j, const char *type, struct vocab_step *s)
{
    const json_t *pattern = json_object_get(j, "pattern");
    const json_t *text = json_object_get(pattern, "String"), *regex = json_object_get(pattern, "Regex");
    s->literal = text != NULL;
    if (!text)
        text = json_is_string(pattern) ? pattern : regex;
    if (!json_is_string(text))
        return HF_FAULT(r, "%s: %s without a pattern", r->name, type);
    s->pattern = json_string_value(text);
    s->pattern_len = json_string_length(text);
    return 0;
}

static int read_content(struct hf_reader *r, const json_t *j, const char *key, const char *type,
                        struct vocab_step *s)
{
    const json_t *text = json_object_get(j, key);
    if (!json_is_string(text))
        return HF_FAULT(r, "%s: %s without \"%s\"", r->name, type, key);
    s->content = json_string_value(text);
    s->content_len = json_string_length(text);
    return 0;
}

static int read_behavior(struct hf_reader *r, const json_t *j, const char *type, const char *absent,
                         struct vocab_step *s)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    const char *name = json_string_value(json_object_get(j, "behavior"));
    if (!name)
        name = absent;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            s->behavior = (enum split_behavior)i;
            return 0;
        }
    return HF_FAULT(r, "%s: %s has the unknown behavior '%.40s'", r->name, type, name);
}

/* A list of steps under key; each goes to fn. */
static int read_list(struct hf_reader *r, const json_t *j, const char *key, struct hf_steps *to, int depth,
                     int (*fn)(struct hf_reader *, const json_t *, struct hf_steps *, int))
{
    const json_t *list = json_object_get(j, key);
    if (!json_is_array(list))
        return HF_FAULT(r, "%s: a Sequence without \"%s\"", r->name, key);
    if (depth == MAX_DEPTH)
        return HF_FAULT(r, "%s: Sequences %d deep", r->name, depth);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (fn(r, json_array_get(list, i), to, depth + 1) < 0)
            return -1;
    return 0;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(const char *text, size_t len, char *out, size_t *n_out)
{
    uint32_t bits = 0;
    int n_bits = 0;
    *n_out = 0;
    while (len > 0 && text[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++) {
        int d = base64_digit(text[i]);
        if (d < 0)
            return -1;
        bits = bits << 6 | (uint32_t)d;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[(*n_out)++] = (char)(bits >> n_bits);
            bits &= (1u << n_bits) - 1;
        }
    }
    return n_bits < 6 && bits == 0 ? 0 : -1;
}

static int read_precompiled(struct hf_reader *r, const json_t *j, struct hf_steps *to)
{
    const json_t *map = json_object_get(j, "precompiled_charsmap");
    struct vocab_step *s = add(r, to, STEP_PRECOMPILED);
    if (!s)
        return -1;
    if (!json_is_string(map))
        return json_is_null(map) ? 0 : HF_FAULT(r, "%s: Precompiled without its map", r->name);
    size_t len = json_string_length(map);
    char *bytes = malloc(len + 1);
    if (!bytes)
        return HF_FAULT(r, "%s: out of memory", r->name);
    to->owned[to->n_owned++] = bytes;
    s->content = bytes;
    if (base64_decode(json_string_value(map), len, bytes, &s->content_len) < 0)
        return HF_FAULT(r, "%s: Precompiled: the map is not base64", r->name);
    return 0;
}

static int read_normalizer(struct hf_reader *r, const json_t *j, struct hf_steps *to, int depth)
{
    static const struct {
        const char *name;
        enum vocab_step_kind kind;
    } plain[] = {
        {"NFC", STEP_NFC},
        {"NFD", STEP_NFD},
        {"NFKC", STEP_NFKC},
        {"NFKD", STEP_NFKD},
        {"Lowercase", STEP_LOWERCASE},
        {"StripAccents", STEP_STRIP_ACCENTS},
        {"ByteLevel", STEP_BYTES},
    };
    struct vocab_step *s;
    if (!j || json_is_null(j))
        return 0;
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type)
        return HF_FAULT(r, "%s: a normalizer without a type", r->name);
    if (strcmp(type, "Sequence") == 0)
        return read_list(r, j, "normalizers", to, depth, read_normalizer);
    if (strcmp(type, "Precompiled") == 0)
        return read_precompiled(r, j, to);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].name) == 0)
            return add(r, to, plain[i].kind) ? 0 : -1;
    if (strcmp(type, "Strip") == 0) {
        if (!(s = add(r, to, STEP_STRIP)))
            return -1;
        s->left = flag(j, "strip_left", true);
        s->right = flag(j, "strip_right", true);
        return 0;
    }
    if (strcmp(type, "Prepend") == 0)
        return (s = add(r, to, STEP_PREPEND)) ? read_content(r, j, "prepend", type, s) : -1;
    if (strcmp(type, "Replace") == 0) {
        if (!(s = add(r, to, STEP_REPLACE)) || read_pattern(r, j, type, s) < 0)
            return -1;
        return read_content(r, j, "content", type, s);
    }
    return HF_FAULT(r, "%s: the normalizer '%.40s' is not supported", r->name, type);
}

static int read_metaspace(struct hf_reader *r, const json_t *j, struct vocab_step *s)
{
    const char *scheme = json_string_value(json_object_get(j, "prepend_scheme"));
    if (read_content(r, j, "replacement", "Metaspace", s) < 0)
        return -1;
    if (s->content_len == 0)
        return HF_FAULT(r, "%s: Metaspace with an empty replacement", r->name);
    /* older files have a bool in place of the scheme */
    s->scheme = flag(j, "add_prefix_space", true) ? PREFIX_ALWAYS : PREFIX_NEVER;
    if (scheme && strcmp(scheme, "always") == 0)
        s->scheme = PREFIX_ALWAYS;
    else if (scheme && strcmp(scheme, "first") == 0)
        s->scheme = PREFIX_FIRST;
    else if (scheme && strcmp(scheme, "never") == 0)
        s->scheme = PREFIX_NEVER;
    else if (scheme)
        return HF_FAULT(r, "%s: Metaspace has the unknown prepend_scheme '%.40s'", r->name, scheme);
    s->split = flag(j, "split", true);
    return 0;
}

static int read_byte_level(struct hf_reader *r, const json_t *j, struct hf_steps *to)
{
    if (flag(j, "add_prefix_space", true) && !add(r, to, STEP_PREFIX_SPACE))
        return -1;
    if (flag(j, "use_regex", true) && add_split(r, to, gpt2, SPLIT_ISOLATED) < 0)
        return -1;
    return add(r, to, STEP_BYTES) ? 0 : -1;
}

static int read_pretokenizer(struct hf_reader *r, const json_t *j, struct hf_steps *to, int depth)
{
    struct vocab_step *s;
    if (!j || json_is_null(j))
        return 0;
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type)
        return HF_FAULT(r, "%s: a pre_tokenizer without a type", r->name);
    if (strcmp(type, "Sequence") == 0)
        return read_list(r, j, "pretokenizers", to, depth, read_pretokenizer);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(r, j, to);
    if (strcmp(type, "Metaspace") == 0)
        return (s = add(r, to, STEP_METASPACE)) ? read_metaspace(r, j, s) : -1;
    if (strcmp(type, "Split") == 0) {
        if (!(s = add(r, to, STEP_SPLIT)) || read_pattern(r, j, type, s) < 0)
            return -1;
        s->invert = flag(j, "invert", false);
        return read_behavior(r, j, type, "Isolated", s);
    }
    if (strcmp(type, "Digits") == 0)
        return add_split(r, to, flag(j, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", SPLIT_ISOLATED);
    if (strcmp(type, "Punctuation") == 0) {
        if (add_split(r, to, punctuation, SPLIT_ISOLATED) < 0)
            return -1;
        return read_behavior(r, j, type, "Isolated", &to->v[to->n - 1]);
    }
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_split(r, to, "\\s", SPLIT_REMOVED);
    if (strcmp(type, "Whitespace") == 0) {
        static const char words[] = "[" WORD_OF_RUST "\\x{200c}\\x{200d}]+"
                                    "|[^" WORD_OF_RUST "\\x{200c}\\x{200d}\\s]+";
        if (add_split(r, to, words, SPLIT_REMOVED) < 0)
            return -1;
        to->v[to->n - 1].invert = true;
        return 0;
    }
    if (strcmp(type, "BertPreTokenizer") == 0)
        return add_split(r, to, "\\s", SPLIT_REMOVED) < 0 ? -1
                                                          : add_split(r, to, punctuation, SPLIT_ISOLATED);
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        if (!(s = add(r, to, STEP_SPLIT)))
            return -1;
        const json_t *c = json_object_get(j, "delimiter");
        if (!json_is_string(c))
            return HF_FAULT(r, "%s: CharDelimiterSplit without a delimiter", r->name);
        s->pattern = json_string_value(c);
        s->pattern_len = json_string_length(c);
        s->literal = true;
        s->behavior = SPLIT_REMOVED;
        return 0;
    }
    return HF_FAULT(r, "%s: the pre_tokenizer '%.40s' is not supported", r->name, type);
}

/* Of decoders it is enough to know how tokens spell spaces and bytes, and whether the first space goes. */
static int read_decoder(struct hf_reader *r, const json_t *j, struct hf_steps *to, int depth)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type)
        return 0;
    if (strcmp(type, "Sequence") == 0)
        return read_list(r, j, "decoders", to, depth, read_decoder);
    if (strcmp(type, "ByteLevel") == 0)
        r->spec.spelling = SPELLING_BYTES;
    if (strcmp(type, "Metaspace") == 0) {
        struct vocab_step s = {.kind = STEP_METASPACE};
        if (read_metaspace(r, j, &s) < 0)
            return -1;
        r->spec.spelling = SPELLING_SPACES;
        r->spec.strip_first_space = s.scheme != PREFIX_NEVER;
    }
    if (strcmp(type, "Replace") == 0) {
        struct vocab_step s = {.kind = STEP_REPLACE};
        if (read_pattern(r, j, type, &s) < 0 || read_content(r, j, "content", type, &s) < 0)
            return -1;
        if (s.pattern_len == 3 && memcmp(s.pattern, SPACE_MARK, 3) == 0)
            r->spec.spelling = SPELLING_SPACES;
    }
    if (strcmp(type, "Strip") == 0) {
        const char *what = json_string_value(json_object_get(j, "content"));
        if (what && strcmp(what, " ") == 0 && json_integer_value(json_object_get(j, "start")) > 0)
            r->spec.strip_first_space = true;
    }
    return 0;
}

int hf_read_steps(struct hf_reader *r, const json_t *json)
{
    struct hf_steps none = {.n = 0};
    r->spec.spelling = SPELLING_PLAIN;
    if (read_normalizer(r, json_object_get(json, "normalizer"), &r->normalizer, 0) < 0 ||
        read_pretokenizer(r, json_object_get(json, "pre_tokenizer"), &r->pretokenizer, 0) < 0 ||
        read_decoder(r, json_object_get(json, "decoder"), &none, 0) < 0)
        return -1;
    for (size_t i = 0; i < r->pretokenizer.n; i++)
        if (r->pretokenizer.v[i].kind == STEP_BYTES)
            r->spec.spelling = SPELLING_BYTES;
    r->spec.own_steps = true;
    r->spec.normalizer = r->normalizer.v;
    r->spec.n_normalizer = r->normalizer.n;
    r->spec.pretokenizer = r->pretokenizer.v;
    r->spec.n_pretokenizer = r->pretokenizer.n;
    return 0;
}

void hf_free_steps(struct hf_steps *s)
{
    for (size_t i = 0; i < s->n_owned; i++)
        free(s->owned[i]);
}
