/* llama2.c's tokenizer.bin: the length of the longest token (int32), then for every token its score (float),
 * its length (int32) and its text with spaces for U+2581. The ids are those of LLaMA's SentencePiece model.
 */
#include "tokenizer/internal.h"

#include <stdlib.h>

enum { MAX_TOKEN = 1 << 16 };

static uint32_t u32_at(const char *p)
{
    const uint8_t *b = (const uint8_t *)p;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* A token at bytes + at; its text is escaped into `to`. Returns where the next one is, 0: this one is broken.
 */
static size_t read_token(const char *bytes, size_t len, size_t at, struct vocab_token *t, char *to)
{
    if (len - at < 8)
        return 0;
    uint32_t bits = u32_at(bytes + at), n = u32_at(bytes + at + 4);
    float score;
    memcpy(&score, &bits, sizeof score);
    at += 8;
    if (n > MAX_TOKEN || n > len - at)
        return 0;
    *t = (struct vocab_token){.text = to, .score = (double)score, .type = TOKEN_NORMAL};
    for (uint32_t i = 0; i < n; i++) {
        if (bytes[at + i] == ' ') {
            memcpy(to + t->len, SPACE_MARK, 3);
            t->len += 3;
        } else {
            to[t->len++] = bytes[at + i];
        }
    }
    if (t->len == 6 && memcmp(to, "<0x", 3) == 0)
        t->type = TOKEN_BYTE;
    return at + n;
}

static void name_special(struct vocab_token *t, const char *text, enum token_type type)
{
    t->text = text;
    t->len = strlen(text);
    t->type = type;
}

/* All tokens of a file; returns how many, 0: an error. */
static size_t read_tokens(const char *name, const char *bytes, size_t len, struct vocab_token *tokens,
                          char *texts, char *err, size_t errlen)
{
    size_t at = 4, n = 0;
    while (at < len) {
        at = read_token(bytes, len, at, &tokens[n], texts);
        if (at == 0) {
            (void)err_set(err, errlen, "%s: token %zu of the llama2.c vocabulary is broken", name, n);
            return 0;
        }
        texts += tokens[n++].len;
    }
    if (n < 3) {
        (void)err_set(err, errlen, "%s: a llama2.c vocabulary of %zu tokens", name, n);
        return 0;
    }
    name_special(&tokens[0], "<unk>", TOKEN_UNKNOWN);
    name_special(&tokens[1], "<s>", TOKEN_CONTROL);
    name_special(&tokens[2], "</s>", TOKEN_CONTROL);
    return n;
}

int tokenizer_from_llama2c(struct tokenizer **out, const char *name, const char *bytes, size_t len,
                           const struct vocab_hints *hints, char *err, size_t errlen)
{
    struct vocab_spec spec = {.name = name,
                              .kind = VOCAB_SPM,
                              .bos = 1,
                              .eos = 2,
                              .eot = -1,
                              .eom = -1,
                              .unk = 0,
                              .add_bos = hints->add_bos != 0,
                              .add_eos = hints->add_eos == 1,
                              .ends = hints->ends,
                              .n_ends = hints->n_ends,
                              .add_space_prefix = true};
    /* a token takes 8 bytes at least */
    struct vocab_token *tokens = calloc(len / 8 + 1, sizeof *tokens);
    char *texts = malloc(3 * len + 1);
    int rc = -1;
    *out = NULL;
    if (!tokens || !texts) {
        (void)err_set(err, errlen, "%s: out of memory", name);
    } else if ((spec.n_tokens = read_tokens(name, bytes, len, tokens, texts, err, errlen)) > 0) {
        spec.tokens = tokens;
        rc = tokenizer_new(out, &spec, err, errlen);
    }
    free(tokens);
    free(texts);
    return rc;
}
