#include "tools/eval_prompt.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Prompts ---------------------------------------------------------------------------------------- */

/* What is written around questions. */
struct words {
    const char *head;     /* with the subject's name; NULL: none */
    const char *question; /* in front of each */
    const char *answer;   /* behind it */
    const char *space;    /* between that and the answer itself */
    bool lists_choices;
};

static const struct words words_of[] = {
    [EVAL_LETTERS] = {"The following are multiple choice questions (with answers) about %s.\n\n", "",
                      "\nAnswer:", " ", true},
    [EVAL_LETTERS_CHINESE] = {"以下是中国关于%s考试的单项选择题，请选出其中的正确答案。\n\n", "", "\n答案：",
                              "", true},
    [EVAL_TEXTS] = {NULL, "", "", " ", false},
    [EVAL_WRITTEN] = {NULL, "Question: ", "\nAnswer:", " ", false},
};

static void put_question(FILE *f, const struct words *w, const struct eval_row *row)
{
    fprintf(f, "%s%s", w->question, row->question);
    for (int i = 0; w->lists_choices && i < row->n_choices; i++)
        fprintf(f, "\n%c. %s", 'A' + i, row->choice[i]);
    fputs(w->answer, f);
}

char *eval_choice(enum eval_style style, const struct eval_row *row, int i)
{
    const char *space = words_of[style].space;
    char *text;
    int n = words_of[style].lists_choices ? asprintf(&text, "%s%c", space, 'A' + i)
                                          : asprintf(&text, "%s%s", space, row->choice[i]);
    return n < 0 ? NULL : text;
}

/* An example's answer. */
static bool put_answer(FILE *f, enum eval_style style, const struct eval_row *row)
{
    char *text = NULL;
    if (style == EVAL_WRITTEN)
        fprintf(f, "%s%s", words_of[style].space, row->answer);
    else if ((text = eval_choice(style, row, row->right)))
        fputs(text, f);
    free(text);
    return style == EVAL_WRITTEN || text;
}

char *eval_prompt(enum eval_style style, const struct eval_row *const *shots, size_t n_shots,
                  const struct eval_row *row)
{
    const struct words *w = &words_of[style];
    char *text = NULL, subject[128];
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return NULL;
    (void)snprintf(subject, sizeof subject, "%s", row->subject);
    for (char *c = subject; *c; c++)
        if (*c == '_')
            *c = ' ';
    bool ok = true;
    if (w->head) {
        const char *at = strstr(w->head, "%s");
        fprintf(f, "%.*s%s%s", (int)(at - w->head), w->head, subject, at + 2);
    }
    for (size_t i = 0; i < n_shots; i++) {
        put_question(f, w, shots[i]);
        ok &= put_answer(f, style, shots[i]);
        fputs("\n\n", f);
    }
    put_question(f, w, row);
    ok &= !ferror(f);
    if (fclose(f) != 0 || !ok) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- Written answers --------------------------------------------------------------------------------- */

static const char mark[] = "####";

/* The number that begins at s, thousands in commas; its length in *len, 0: none. */
static double number_at(const char *s, size_t *len)
{
    char digits[64];
    size_t n = 0, at = 0;
    bool any = false, point = false;
    if (s[at] == '-')
        digits[n++] = s[at++];
    for (; n < sizeof digits - 1; at++) {
        bool digit_next = isdigit((unsigned char)s[at + (s[at] != '\0')]) != 0;
        if (isdigit((unsigned char)s[at]))
            any = true;
        else if (s[at] == ',' && any && !point && digit_next)
            continue;
        else if (s[at] == '.' && !point && digit_next)
            point = true;
        else
            break;
        digits[n++] = s[at];
    }
    digits[n] = '\0';
    *len = any ? at : 0;
    return strtod(digits, NULL);
}

/* The number behind the last mark, else the last one of the text. */
static bool find_number(const char *s, double *v)
{
    bool found = false;
    const char *marked = NULL;
    for (const char *at = strstr(s, mark); at; at = strstr(at + 1, mark))
        marked = at + sizeof mark - 1;
    for (const char *at = marked ? marked : s; *at;) {
        size_t len;
        double number = number_at(at, &len);
        if (len > 0) {
            *v = number;
            found = true;
            if (marked)
                break;
        }
        at += len ? len : 1;
    }
    return found;
}

bool eval_is_number(const char *answer)
{
    if (strstr(answer, mark))
        return true;
    const char *s = answer + strspn(answer, " \t$");
    size_t len;
    (void)number_at(s, &len);
    s += len;
    return len > 0 && s[strspn(s, " \t\r\n.%")] == '\0';
}

/* The first line that has something on it, without blanks around it and a full stop: its length. */
static size_t first_line(const char **s)
{
    while (isspace((unsigned char)**s))
        (*s)++;
    size_t n = strcspn(*s, "\n");
    while (n > 0 && (isspace((unsigned char)(*s)[n - 1]) || (*s)[n - 1] == '.'))
        n--;
    return n;
}

bool eval_is_right(const char *written, const char *answer)
{
    if (eval_is_number(answer)) {
        double got, wanted;
        return find_number(written, &got) && find_number(answer, &wanted) &&
               fabs(got - wanted) <= 1e-9 * fabs(wanted);
    }
    size_t n = first_line(&written), n_wanted = first_line(&answer);
    return n == n_wanted && strncasecmp(written, answer, n) == 0;
}
