/* Questions of a test, from the files that people have:
 *
 *   CSV without a header: question, choices, the right one's letter (MMLU)
 *   CSV whose header names "question", choices "A", "B", … and "answer" (C-Eval); other columns are passed
 * over JSON lines: {"question": …, "choices": [texts], "answer": index from 0, letter, or the choice's text};
 * also "ctx", "endings", "label" (HellaSwag), and choices as {"text": [...], "label": [...]} with the label
 * as answer (ARC) JSON lines: {"question": …, "answer": text or number}, without choices: an answer to be
 * written (GSM8K)
 *
 * A "subject" may be in any line; else it is the file's name without its ending and _test, _val or _dev. */
#ifndef QUOLL_EVAL_ROWS_H
#define QUOLL_EVAL_ROWS_H

#include <stdbool.h>
#include <stddef.h>

enum { EVAL_MAX_CHOICES = 26 };

struct eval_row {
    char *question;
    char **choice;
    int n_choices; /* 0: an answer to be written */
    int right;     /* of the choices */
    char *answer;  /* to be written; else NULL */
    char *subject;
    int line; /* of the file, from 1 */
};

struct eval_rows {
    char *path;
    struct eval_row *row;
    size_t n, cap;
    bool is_chinese; /* C-Eval's columns: prompts in its own words */
};

/* −1: no such file, no questions, a line that is none of these: "FILE: line N: why". */
int eval_rows_read(struct eval_rows *r, const char *path, char *err, size_t errlen);
void eval_rows_free(struct eval_rows *r); /* a zeroed one is fine */
/* The subject that a file's name says; malloc'ed. */
char *eval_subject(const char *path);

#endif
