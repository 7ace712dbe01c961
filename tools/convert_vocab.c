/* The vocabulary and the chat template of a model as metadata of a GGUF: the way back from vocab_gguf.c. */
#include "tools/convert_vocab.h"

#include "quant/err.h"
#include "tools/chat_prompt.h"
#include "tools/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 20 };

/* A number, or one text. */
struct value {
    union {
        uint32_t u32;
        uint8_t flag;
    } number;
    struct wstr text;
};

struct vocab_meta {
    struct tokenizer *tokenizer;
    struct vocab_export v;
    struct chat_source chat;
    struct wstr *tokens, *merges;
    float *scores;
    int32_t *types;
    char *merge_texts;
    struct meta *all; /* the model's, then these */
    size_t n;
    struct value value[MAX_KEYS];
    size_t n_values;
};

static struct meta *add(struct vocab_meta *m, const char *key, enum meta_type type, enum meta_type elem,
                        uint64_t n)
{
    m->all[m->n] = (struct meta){.key = key, .type = type, .elem = elem, .n = n};
    return &m->all[m->n++];
}

static void add_text(struct vocab_meta *m, const char *key, const char *text, size_t len)
{
    struct value *v = &m->value[m->n_values++];
    v->text = (struct wstr){text, len};
    add(m, key, META_STRING, META_STRING, 1)->str = &v->text;
}

static void add_id(struct vocab_meta *m, const char *key, int32_t id, bool always)
{
    if (id < 0 && !always)
        return;
    struct value *v = &m->value[m->n_values++];
    v->number.u32 = (uint32_t)id; /* all ones: there is none */
    add(m, key, META_U32, META_U32, 1)->data = &v->number;
}

static void add_flag(struct vocab_meta *m, const char *key, bool flag)
{
    struct value *v = &m->value[m->n_values++];
    v->number.flag = flag;
    add(m, key, META_BOOL, META_BOOL, 1)->data = &v->number;
}

static int add_tokens(struct vocab_meta *m)
{
    const struct vocab_spec *s = &m->v.spec;
    m->tokens = calloc(s->n_tokens, sizeof *m->tokens);
    m->scores = calloc(s->n_tokens, sizeof *m->scores);
    m->types = calloc(s->n_tokens, sizeof *m->types);
    if (!m->tokens || !m->scores || !m->types)
        return -1;
    for (size_t i = 0; i < s->n_tokens; i++) {
        m->tokens[i] = (struct wstr){s->tokens[i].text, s->tokens[i].len};
        m->scores[i] = (float)s->tokens[i].score;
        m->types[i] = (int32_t)s->tokens[i].type;
    }
    add(m, "tokenizer.ggml.tokens", META_ARRAY, META_STRING, s->n_tokens)->str = m->tokens;
    if (s->kind == VOCAB_SPM)
        add(m, "tokenizer.ggml.scores", META_ARRAY, META_F32, s->n_tokens)->data = m->scores;
    add(m, "tokenizer.ggml.token_type", META_ARRAY, META_I32, s->n_tokens)->data = m->types;
    return 0;
}

/* "left right" */
static int add_merges(struct vocab_meta *m)
{
    const struct vocab_spec *s = &m->v.spec;
    size_t bytes = 1;
    for (size_t i = 0; i < s->n_merges; i++)
        bytes += s->merges[i].left_len + s->merges[i].right_len + 1;
    m->merges = calloc(s->n_merges + 1, sizeof *m->merges);
    m->merge_texts = malloc(bytes);
    if (!m->merges || !m->merge_texts)
        return -1;
    char *to = m->merge_texts;
    for (size_t i = 0; i < s->n_merges; i++) {
        const struct vocab_merge *k = &s->merges[i];
        m->merges[i] = (struct wstr){to, k->left_len + k->right_len + 1};
        memcpy(to, k->left, k->left_len);
        to[k->left_len] = ' ';
        memcpy(to + k->left_len + 1, k->right, k->right_len);
        to += m->merges[i].len;
    }
    add(m, "tokenizer.ggml.merges", META_ARRAY, META_STRING, s->n_merges)->str = m->merges;
    return 0;
}

static int add_vocabulary(struct vocab_meta *m)
{
    const struct vocab_spec *s = &m->v.spec;
    bool spm = s->kind == VOCAB_SPM; /* readers take SentencePiece's usual ids where a file names none */
    add_text(m, "tokenizer.ggml.model", spm ? "llama" : "gpt2", spm ? 5 : 4);
    add_text(m, "tokenizer.ggml.pre", spm ? "default" : s->pre, spm ? 7 : strlen(s->pre));
    if (add_tokens(m) || (!spm && add_merges(m)))
        return -1;
    add_id(m, "tokenizer.ggml.bos_token_id", s->bos, spm);
    add_id(m, "tokenizer.ggml.eos_token_id", s->eos, spm);
    add_id(m, "tokenizer.ggml.unknown_token_id", s->unk, spm);
    add_id(m, "tokenizer.ggml.eot_token_id", s->eot, false);
    add_id(m, "tokenizer.ggml.eom_token_id", s->eom, false);
    add_flag(m, "tokenizer.ggml.add_bos_token", s->add_bos == 1);
    add_flag(m, "tokenizer.ggml.add_eos_token", s->add_eos == 1);
    if (spm) {
        add_flag(m, "tokenizer.ggml.add_space_prefix", s->add_space_prefix);
        add_flag(m, "tokenizer.ggml.remove_extra_whitespaces", s->remove_extra_spaces);
    }
    return 0;
}

static void add_chat(struct vocab_meta *m, const struct weights *w)
{
    char err[512], *folder = weights_folder(w) ? strdup(weights_folder(w)) : vocab_folder(weights_path(w));
    int rc = folder ? chat_source_folder(&m->chat, folder, err, sizeof err) : 1;
    if (rc < 0)
        tool_note(NOTE_USUAL, "no chat template is written: %s\n", err);
    if (rc == 0)
        add_text(m, "tokenizer.chat_template", m->chat.source, m->chat.len);
    free(folder);
}

static int fill(struct vocab_meta *m, const struct weights *w, size_t n_tokens, char *err, size_t errlen)
{
    char why[512];
    int rc = vocab_open(&m->tokenizer, w, why, sizeof why);
    if (rc == 0)
        rc = tokenizer_export(&m->v, m->tokenizer, n_tokens, why, sizeof why);
    if (rc != 0) {
        tool_note(NOTE_USUAL, "no vocabulary is written: %s\n", why);
        return 0;
    }
    if (m->v.note[0])
        tool_note(NOTE_USUAL, "%s\n", m->v.note);
    size_t kept = 0;
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->all[i].key, "tokenizer.ggml.model") != 0) /* "no_vocab" */
            m->all[kept++] = m->all[i];
    m->n = kept;
    if (add_vocabulary(m))
        return err_set(err, errlen, "%s: out of memory for %zu tokens", weights_path(w), m->v.spec.n_tokens);
    add_chat(m, w);
    return 0;
}

int vocab_meta_open(struct vocab_meta **out, const struct weights *w, const struct meta *model, size_t n,
                    size_t n_tokens, char *err, size_t errlen)
{
    struct vocab_meta *m = calloc(1, sizeof *m);
    *out = m;
    if (m)
        m->all = malloc((n + MAX_KEYS) * sizeof *m->all);
    if (!m || !m->all)
        return err_set(err, errlen, "%s: out of memory", weights_path(w));
    memcpy(m->all, model, n * sizeof *m->all);
    m->n = n;
    return fill(m, w, n_tokens, err, errlen);
}

const struct meta *vocab_meta_all(const struct vocab_meta *m, size_t *n)
{
    *n = m->n;
    return m->all;
}

void vocab_meta_close(struct vocab_meta *m)
{
    if (!m)
        return;
    vocab_export_free(&m->v);
    tokenizer_free(m->tokenizer);
    chat_source_free(&m->chat);
    free(m->tokens);
    free(m->merges);
    free(m->scores);
    free(m->types);
    free(m->merge_texts);
    free(m->all);
    free(m);
}
