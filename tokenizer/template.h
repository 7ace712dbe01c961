/* Chat templates: the Jinja subset that real models' templates use, interpreted with limits.
 * Semantics: Jinja2 3.1 as Hugging Face's apply_chat_template sets it up (trim_blocks, lstrip_blocks,
 * loopcontrols, immutable sandbox, tojson without escaping, raise_exception, strftime_now). */
#ifndef QUOLL_TEMPLATE_H
#define QUOLL_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <time.h>

struct chat_template; /* parsed, immutable: several threads may render it at once */

/* name is for messages. A template that cannot be parsed: −1, "NAME:LINE: what is wrong". */
int chat_template_new(struct chat_template **out, const char *name, const char *source, size_t len, char *err,
                      size_t errlen);
void chat_template_free(struct chat_template *t);

/* vars: a JSON object of the template's variables (messages, tools, add_generation_prompt, bos_token,
 * eos_token, …); key order is kept. now: what strftime_now sees (local broken-down time, with weekday
 * and day of the year). *text is malloc'ed, NUL-terminated past *len. −1: err is exactly the message
 * that the template gave to raise_exception; for any other failure (a limit of steps, memory, output or
 * depth too) it is "NAME:LINE: what is wrong". */
int chat_template_render(const struct chat_template *t, json_t *vars, const struct tm *now, char **text,
                         size_t *len, char *err, size_t errlen);

#endif
