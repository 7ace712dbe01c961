/* Chat templates: the Jinja subset that real models' templates use, interpreted with limits.
 * Semantics: Jinja2 3.1 as Hugging Face's apply_chat_template sets it up (trim_blocks, lstrip_blocks,
 * loopcontrols, immutable sandbox, tojson without escaping, raise_exception, strftime_now). */
#ifndef QUOLL_TEMPLATE_H
#define QUOLL_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <time.h>

struct chat_template; /* parsed, immutable */

int chat_template_new(struct chat_template **out, const char *name, const char *source, size_t len,
                      char *err, size_t errlen);
void chat_template_free(struct chat_template *t);

/* vars: a JSON object of the template's variables (messages, tools, add_generation_prompt, bos_token,
 * eos_token, …); key order is kept. now: what strftime_now sees (local broken-down time, with weekday and day of the year).
 * *text is malloc'ed, NUL-terminated past *len. A template that raises, fails or passes the step or
 * output limit: −1; err is then exactly the message that raise_exception was given, else "NAME:LINE: what is
 * wrong". */
int chat_template_render(const struct chat_template *t, json_t *vars, const struct tm *now,
                         char **text, size_t *len, char *err, size_t errlen);

#endif
