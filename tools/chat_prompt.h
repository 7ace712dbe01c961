/* A model's chat template, ready to turn messages into a prompt: what `chat`, `run --chat` and
 * `template` share. */
#ifndef QUOLL_CHAT_PROMPT_H
#define QUOLL_CHAT_PROMPT_H

#include "tokenizer/tokenizer.h"
#include "weights/weights.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

struct chat_prompt;

/* The template of a model: the GGUF's own (tokenizer.chat_template), that of a Hugging Face folder
 * (chat_template.jinja, chat_template.json, tokenizer_config.json), else the built-in prompt of a model from
 * before templates (ChatGLM, LLaMA 2), which a note says. bos_token and eos_token are the texts of t's
 * tokens. A model without any of these, or with a broken template, is an error: "PATH: …". Neither w nor t is
 * needed afterwards. */
int chat_prompt_open(struct chat_prompt **out, const struct weights *w, const struct tokenizer *t, char *err,
                     size_t errlen);
/* The same by the path of a model, its folder or its vocabulary file. */
int chat_prompt_open_path(struct chat_prompt **out, const char *path, const struct tokenizer *t, char *err,
                          size_t errlen);
/* The same from a template's source; name is for error messages. bos, eos NULL: undefined in it. */
int chat_prompt_open_source(struct chat_prompt **out, const char *name, const char *source, size_t len,
                            const char *bos, const char *eos, char *err, size_t errlen);
void chat_prompt_close(struct chat_prompt *p); /* NULL is fine */
/* Whether templates that have a switch for it (enable_thinking, thinking) are to let the model think before
 * it answers: 1, 0, −1: what the template does by itself. */
void chat_prompt_set_thinking(struct chat_prompt *p, int thinking);

/* messages (an array of {"role", "content"} objects; borrowed) as the prompt's text: malloc'ed, NUL
 * past *len. strftime_now in the template sees the local time of the call. −1: "NAME:LINE: what is
 * wrong", or "NAME: message" with what the template itself raised; NAME is the file. */
int chat_prompt_render(const struct chat_prompt *p, json_t *messages, bool add_generation_prompt, char **text,
                       size_t *len, char *err, size_t errlen);
/* The same with any variables: request is an object with "messages" and whatever else the template is to
 * see (borrowed). Where it says nothing, tools and documents are null, bos_token and eos_token p's. Its
 * own add_generation_prompt counts when the argument is true. now NULL: the local time. */
int chat_prompt_render_request(const struct chat_prompt *p, json_t *request, bool add_generation_prompt,
                               const struct tm *now, char **text, size_t *len, char *err, size_t errlen);

/* The conversation as ids, as it is given to the model: the rendered text with its control tokens, but those
 * that are spelled in the messages' own text stay text. BOS is where the template writes it, nowhere else.
 * *ids is malloc'ed. */
int chat_prompt_ids(const struct chat_prompt *p, const struct tokenizer *t, json_t *messages,
                    bool add_generation_prompt, int32_t **ids, size_t *n, char *err, size_t errlen);

/* tools/chat_source.c: a folder's template. 0: found, 1: there is none, −1: an error. */
struct chat_source {
    char *source, *name; /* name: where it is, for messages */
    size_t len;
};
int chat_source_folder(struct chat_source *s, const char *folder, char *err, size_t errlen);
void chat_source_free(struct chat_source *s);

/* tools/chat_builtin.c: the name of the built-in prompt that goes with a vocabulary, its template in *source;
 * NULL: none. architecture: GGUF's or config.json's, "" where unknown. */
const char *chat_builtin(const struct tokenizer *t, const char *architecture, const char **source);

#endif
