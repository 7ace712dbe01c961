/* ChatGLM's tokenizers: SentencePiece models whose special tokens are written in their Python code, not in
 * the file (tokenization_chatglm.py of THUDM/chatglm-6b, chatglm2-6b and chatglm3-6b). */
#include "tools/vocab.h"

#include "quant/err.h"

#include <stdlib.h>
#include <string.h>

/* Ids that follow the vocabulary. "sop" and "eop" are words too: in text they are nothing else. */
static const char *const special[] = {"[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"};
static const char *const roles[] = {"<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"};
static const char *const prefix[] = {"[gMASK]", "sop"};
/* Pieces of ChatGLM-6B's model. */
static const char *const special1[] = {"[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"};
static const char *const suffix1[] = {"[gMASK]", "<sop>"};

enum { MAX_SOURCE = 1 << 22, IMAGE_TOKENS = 20000 };

static void add(struct vocab_files *f, const char *text, int32_t id)
{
    bool word = text[0] != '[' && text[0] != '<';
    f->added[f->hints.n_added++] = (struct vocab_added){.id = id,
                                                        .token = {.text = text,
                                                                  .len = strlen(text),
                                                                  .type = TOKEN_CONTROL,
                                                                  .flags = word ? TOKEN_NOT_IN_TEXT : 0u}};
}

/* ChatGLM3 is ChatGLM2 with tokens for roles; its configuration is the same. */
static bool has_roles(const struct vocab_files *f, const char *folder)
{
    for (size_t i = 0; i < f->hints.n_added; i++)
        if (strcmp(f->added[i].token.text, roles[1]) == 0)
            return true;
    const char *name = json_string_value(json_object_get(f->config, "_name_or_path"));
    if (name && strstr(name, "chatglm3"))
        return true;
    char *source = NULL, *path = vocab_path(folder, "tokenization_chatglm.py"), err[8];
    size_t len;
    bool found = path && vocab_read(path, MAX_SOURCE, true, &source, &len, err, sizeof err) == 0 &&
                 strstr(source, roles[3]);
    free(source);
    free(path);
    return found;
}

static void first_generation(struct vocab_files *f)
{
    const json_t *gmask = json_object_get(f->config, "gmask_token_id");
    const json_t *images = json_object_get(f->tokenizer_config, "num_image_tokens");
    struct vocab_hints *h = &f->hints;
    for (size_t i = 0; i < sizeof special1 / sizeof *special1; i++)
        add(f, special1[i], VOCAB_ID_OF_TEXT);
    h->chatglm_blanks = true;
    h->id_offset = IMAGE_TOKENS; /* the first ids are an image's, the model of text alone has none of them */
    if (json_is_integer(images) && json_integer_value(images) >= 0 && json_integer_value(images) < 1 << 16)
        h->id_offset = (size_t)json_integer_value(images);
    if (json_is_integer(gmask) && json_integer_value(gmask) < INT32_MAX) {
        h->anchor = "[gMASK]";
        h->anchor_id = (int32_t)json_integer_value(gmask);
    }
    if (!h->bos)
        h->bos = "<sop>";
    if (!h->eos)
        h->eos = "<eop>";
    h->suffix = suffix1;
    h->n_suffix = sizeof suffix1 / sizeof *suffix1;
}

int vocab_chatglm(struct vocab_files *f, const char *folder, bool first, char *err, size_t errlen)
{
    bool third = !first && has_roles(f, folder);
    free(f->added);
    f->hints.n_added = 0;
    f->hints.added = f->added = calloc(16, sizeof *f->added);
    if (!f->added)
        return err_set(err, errlen, "%s: out of memory", folder);
    if (first) {
        first_generation(f);
        return 0;
    }
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        add(f, special[i], VOCAB_ID_NEXT);
    for (size_t i = 0; third && i < sizeof roles / sizeof *roles; i++)
        add(f, roles[i], VOCAB_ID_NEXT);
    f->hints.prefix = prefix;
    f->hints.n_prefix = sizeof prefix / sizeof *prefix;
    return 0;
}
