/* The text of a test's prompts, and what of a written answer counts. */
#ifndef QUOLL_EVAL_PROMPT_H
#define QUOLL_EVAL_PROMPT_H

#include "tools/eval_rows.h"

enum eval_style {
    EVAL_LETTERS,         /* the choices are in the prompt, their letters are compared: MMLU's words */
    EVAL_LETTERS_CHINESE, /* C-Eval's words */
    EVAL_TEXTS,           /* the choices' texts themselves are compared: HellaSwag */
    EVAL_WRITTEN,         /* the answer is written: GSM8K */
};

/* Examples, then the question; malloc'ed. NULL: out of memory. */
char *eval_prompt(enum eval_style style, const struct eval_row *const *shots, size_t n_shots,
                  const struct eval_row *row);
/* What stands behind a prompt for choice i, with the space in front of it; malloc'ed. */
char *eval_choice(enum eval_style style, const struct eval_row *row, int i);

/* Is what was written right? Where the known answer is a number, or ends in "#### number", numbers are
 * compared: what follows "####", else the last number of the text. Other answers: the first line, without
 * regard to case, blanks around it and a full stop. */
bool eval_is_right(const char *written, const char *answer);
/* Does the answer count by its number? */
bool eval_is_number(const char *answer);

#endif
