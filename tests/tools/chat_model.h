/* The tiny golden model with a chat template, for the tests of `quoll chat`. */
#ifndef QUOLL_TEST_CHAT_MODEL_H
#define QUOLL_TEST_CHAT_MODEL_H

/* "<s>system\n<u>question\n<a>answer\n…<a>" */
#define CHAT_TEMPLATE                                                       \
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}\n{% endfor %}" \
    "{% if add_generation_prompt %}<a>{% endif %}"

/* Writes the model with this template into a temporary file; its path, lent until the next call, the
 * caller unlinks it. NULL after saying that it was skipped. */
const char *chat_model(const char *chat_template);

#endif
