/* tiktoken's ranks, as GLM-4 keeps them in tokenizer.model: a line per token, its bytes in base64 and its
 * rank, which is its id. Neighbours merge in the order of the rank of what they give. */
#include "tokenizer/internal.h"

#include <stdlib.h>

enum { MAX_RANK = 1 << 24, MAX_GAP = 1 << 16, MAX_TOKEN = 4096, GLM4_RANKS = 151329 };

static const char cl100k[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                             " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* GLM-4's special tokens follow its ranks in this order (tokenization_chatglm.py of glm-4-9b). */
static const char *const glm4_special[] = {
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
};
enum { N_GLM4 = sizeof glm4_special / sizeof *glm4_special };

struct rank_reader {
    const char *name;
    struct vocab_spec spec;
    struct vocab_token *tokens;
    char *texts;
    int32_t *prefix;
    char *err;
    size_t errlen;
};

#define FAULT(r, ...) err_set((r)->err, (r)->errlen, __VA_ARGS__)

/* "base64 rank"; the bytes go to `bytes`. */
static int read_line(const char *line, size_t len, char *bytes, size_t *n_bytes, size_t *rank)
{
    const char *space = memchr(line, ' ', len);
    size_t n = space ? (size_t)(space - line) : 0;
    if (n == 0 || n > MAX_TOKEN || base64_decode(line, n, bytes, n_bytes) < 0 || *n_bytes == 0)
        return -1;
    *rank = 0;
    if (n + 1 == len)
        return -1;
    for (size_t i = n + 1; i < len; i++) {
        if (line[i] < '0' || line[i] > '9' || *rank > MAX_RANK)
            return -1;
        *rank = *rank * 10 + (size_t)(line[i] - '0');
    }
    return 0;
}

static int add_token(struct rank_reader *r, size_t id, const struct vocab_token *t)
{
    if (id >= r->spec.n_tokens)
        r->spec.n_tokens = id + 1;
    if (r->tokens[id].len > 0)
        return FAULT(r, "%s: two tokens have the id %zu", r->name, id);
    r->tokens[id] = *t;
    return 0;
}

static int read_ranks(struct rank_reader *r, const char *text, size_t len, size_t most)
{
    char bytes[MAX_TOKEN];
    size_t number = 1, used = 0;
    for (size_t i = 0; i < len; number++) {
        const char *end = memchr(text + i, '\n', len - i);
        size_t n = end ? (size_t)(end - text) - i : len - i, n_bytes, rank;
        size_t n_line = n > 0 && text[i + n - 1] == '\r' ? n - 1 : n;
        if (n_line > 0) {
            if (read_line(text + i, n_line, bytes, &n_bytes, &rank) < 0)
                return FAULT(r, "%s: line %zu is no \"base64 rank\"", r->name, number);
            if (rank >= most)
                return FAULT(r, "%s: line %zu: the rank %zu is far beyond the number of lines", r->name,
                             number, rank);
            struct vocab_token t = {.text = r->texts + used, .score = -(double)rank, .type = TOKEN_NORMAL};
            t.len = byte_alphabet_spell(bytes, n_bytes, r->texts + used);
            used += t.len;
            if (add_token(r, rank, &t) < 0)
                return -1;
        }
        i += n + 1;
    }
    return 0;
}

static int32_t find_token(const struct rank_reader *r, const char *text)
{
    size_t len = text ? strlen(text) : 0;
    for (size_t i = r->spec.n_tokens; len > 0 && i-- > 0;)
        if (r->tokens[i].type != TOKEN_NORMAL && r->tokens[i].len == len &&
            memcmp(r->tokens[i].text, text, len) == 0)
            return (int32_t)i;
    return -1;
}

static int read_special(struct rank_reader *r, const struct vocab_hints *h, size_t most)
{
    size_t n_ranks = r->spec.n_tokens;
    for (size_t i = 0; i < h->n_added; i++) {
        const struct vocab_added *a = &h->added[i];
        size_t id = a->id < 0 ? r->spec.n_tokens : (size_t)a->id;
        if (id >= most)
            return FAULT(r, "%s: the special token %.60s has the id %zu, far outside the vocabulary", r->name,
                         a->token.text, id);
        if (add_token(r, id, &a->token) < 0)
            return -1;
    }
    for (size_t i = 0; h->n_added == 0 && n_ranks == GLM4_RANKS && i < N_GLM4; i++) {
        struct vocab_token t = {
            .text = glm4_special[i], .len = strlen(glm4_special[i]), .type = TOKEN_CONTROL};
        if (add_token(r, n_ranks + i, &t) < 0)
            return -1;
    }
    return 0;
}

/* [gMASK]<sop> where the file's own list does not say. */
static int read_prefix(struct rank_reader *r, const struct vocab_hints *h)
{
    static const char *const glm4[] = {"[gMASK]", "<sop>"};
    bool is_glm4 = find_token(r, glm4[0]) >= 0 && find_token(r, glm4[1]) >= 0;
    const char *const *texts = h->n_prefix > 0 ? h->prefix : glm4;
    size_t n = h->n_prefix > 0 ? h->n_prefix : is_glm4 ? 2 : 0;
    r->prefix = calloc(n + 1, sizeof *r->prefix);
    if (!r->prefix)
        return FAULT(r, "%s: out of memory", r->name);
    for (size_t i = 0; i < n; i++)
        if ((r->prefix[i] = find_token(r, texts[i])) < 0)
            return FAULT(r, "%s: no token %.60s to put in front", r->name, texts[i]);
    r->spec.prefix = r->prefix;
    r->spec.n_prefix = n;
    return 0;
}

static int read_all(struct rank_reader *r, const char *bytes, size_t len, const struct vocab_hints *h)
{
    size_t n_lines = 1;
    for (size_t i = 0; i < len; i++)
        n_lines += bytes[i] == '\n';
    size_t most = 2 * n_lines + h->n_added + N_GLM4 + MAX_GAP;
    r->tokens = calloc(most + h->n_added + N_GLM4, sizeof *r->tokens);
    r->texts = malloc(2 * len + 2);
    if (!r->tokens || !r->texts)
        return FAULT(r, "%s: out of memory for %zu tokens", r->name, n_lines);
    for (size_t i = 0; i < most + h->n_added + N_GLM4; i++)
        r->tokens[i] = (struct vocab_token){.text = "", .type = TOKEN_UNUSED};
    r->spec.tokens = r->tokens;
    if (read_ranks(r, bytes, len, most) < 0)
        return -1;
    if (r->spec.n_tokens == 0)
        return FAULT(r, "%s: no ranks in the file", r->name);
    if (read_special(r, h, most) < 0 || read_prefix(r, h) < 0)
        return -1;
    r->spec.bos = find_token(r, h->bos);
    r->spec.eos = find_token(r, h->eos ? h->eos : "<|endoftext|>");
    r->spec.ends = h->ends;
    r->spec.n_ends = h->n_ends;
    return 0;
}

int tokenizer_from_tiktoken(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                            const struct vocab_hints *hints, char *err, size_t errlen)
{
    const char *pattern = hints->pattern ? hints->pattern : cl100k;
    const struct vocab_step steps[] = {
        {.kind = STEP_SPLIT, .pattern = pattern, .pattern_len = strlen(pattern)},
        {.kind = STEP_BYTES},
    };
    struct rank_reader r = {.name = name, .err = err, .errlen = errlen};
    r.spec = (struct vocab_spec){.name = name,
                                 .kind = VOCAB_SPM,
                                 .spelling = SPELLING_BYTES,
                                 .pretokenizer = steps,
                                 .n_pretokenizer = 2,
                                 .own_steps = true,
                                 .bos = -1,
                                 .eos = -1,
                                 .eot = -1,
                                 .eom = -1,
                                 .unk = -1,
                                 .whole_words = true,
                                 .join_invalid = true};
    *out = NULL;
    int rc = read_all(&r, bytes, len, hints);
    if (rc == 0)
        rc = tokenizer_new(out, &r.spec, err, errlen);
    free(r.tokens);
    free(r.texts);
    free(r.prefix);
    return rc;
}
