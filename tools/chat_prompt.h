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

/* Does the file carry a chat template (tokenizer.chat_template)? */
bool chat_prompt_exists(const struct weights *w);

/* The template of a model file; bos_token and eos_token are the texts of t's tokens. A file without a
 * template, or with a broken one, is an error: "PATH: …". Neither w nor t is needed afterwards. */
int chat_prompt_open(struct chat_prompt **out, const struct weights *w, const struct tokenizer *t, char *err,
                     size_t errlen);
/* The same from a template's source; name is for error messages. bos, eos NULL: undefined in it. */
int chat_prompt_open_source(struct chat_prompt **out, const char *name, const char *source, size_t len,
                            const char *bos, const char *eos, char *err, size_t errlen);
void chat_prompt_close(struct chat_prompt *p); /* NULL is fine */

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

#endif
