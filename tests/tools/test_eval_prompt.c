/* Prompts, to the byte, and which written answers are right. */
#include "tests/test.h"
#include "tools/eval_prompt.h"

#include <stdlib.h>

static char *choices[] = {(char[]){"three"}, (char[]){"four"}};
static const struct eval_row sum = {.question = (char[]){"What is 2 + 2?"},
                                    .choice = choices,
                                    .n_choices = 2,
                                    .right = 1,
                                    .subject = (char[]){"basic_maths"}};
static const struct eval_row written = {
    .question = (char[]){"How many?"}, .answer = (char[]){"two\n#### 2"}, .subject = (char[]){"x"}};

static void expect(enum eval_style style, size_t n_shots, const struct eval_row *row, const char *wanted)
{
    const struct eval_row *shots[] = {row, row};
    char *text = eval_prompt(style, shots, n_shots, row);
    ck_assert_str_eq(text, wanted);
    free(text);
}

START_TEST(prompts_are_the_papers)
{
    expect(EVAL_LETTERS, 0, &sum,
           "The following are multiple choice questions (with answers) about basic maths.\n\n"
           "What is 2 + 2?\nA. three\nB. four\nAnswer:");
    expect(EVAL_LETTERS, 1, &sum,
           "The following are multiple choice questions (with answers) about basic maths.\n\n"
           "What is 2 + 2?\nA. three\nB. four\nAnswer: B\n\n"
           "What is 2 + 2?\nA. three\nB. four\nAnswer:");
    expect(EVAL_LETTERS_CHINESE, 1, &sum,
           "以下是中国关于basic maths考试的单项选择题，请选出其中的正确答案。\n\n"
           "What is 2 + 2?\nA. three\nB. four\n答案：B\n\nWhat is 2 + 2?\nA. three\nB. four\n答案：");
    expect(EVAL_TEXTS, 1, &sum, "What is 2 + 2? four\n\nWhat is 2 + 2?");
    expect(EVAL_WRITTEN, 2, &written,
           "Question: How many?\nAnswer: two\n#### 2\n\nQuestion: How many?\nAnswer: two\n#### 2\n\n"
           "Question: How many?\nAnswer:");
}
END_TEST

START_TEST(choices_stand_behind_prompts)
{
    static const char *const wanted[] = {" B", "B", " four"};
    for (int style = EVAL_LETTERS; style <= EVAL_TEXTS; style++) {
        char *text = eval_choice((enum eval_style)style, &sum, 1);
        ck_assert_str_eq(text, wanted[style]);
        free(text);
    }
}
END_TEST

static const struct {
    const char *written, *answer;
    bool right;
} cases[] = {
    {" 3 + 4 = 7.\n#### 7", "so\n#### 7", true},
    {"It is 7", "#### 7", true},
    {"7 apples and 8 pears", "#### 7", false}, /* the last number */
    {"#### 7 of 8", "#### 7", true},           /* … but for what is marked */
    {"#### 6\nno: #### 7", "#### 7", true},
    {"$1,234.50.", "#### 1234.5", true},
    {"1234", "#### 1,234", true},
    {"it is -5", "#### -5", true},
    {"it is 5", "#### -5", false},
    {"none", "#### 5", false},
    {"", "#### 5", false},
    {"####", "#### 5", false},
    {" 12", "12", true},
    {"12.0", "12", true},
    {"1.2.3", "12", false},
    {" Paris.\nThe capital", "paris", true},
    {"\n\n Paris ", "Paris.", true},
    {"Paris, France", "Paris", false},
    {"", "Paris", false},
    {"3 apples", "three apples", false},
    {"Three apples", "three apples", true},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

START_TEST(right_answers_are_known)
{
    ck_assert_msg(eval_is_right(cases[_i].written, cases[_i].answer) == cases[_i].right, "'%s' for '%s'",
                  cases[_i].written, cases[_i].answer);
}
END_TEST

START_TEST(numbers_are_told_from_texts)
{
    ck_assert(eval_is_number("because\n#### 12"));
    ck_assert(eval_is_number(" $1,200.50"));
    ck_assert(eval_is_number("-3."));
    ck_assert(eval_is_number("40%"));
    ck_assert(!eval_is_number("3 apples"));
    ck_assert(!eval_is_number("Paris"));
    ck_assert(!eval_is_number(""));
    ck_assert(!eval_is_number("-"));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tools/eval_prompt");
    TCase *tc = tcase_create("prompt");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, prompts_are_the_papers);
    tcase_add_test(tc, choices_stand_behind_prompts);
    tcase_add_loop_test(tc, right_answers_are_known, 0, N_CASES);
    tcase_add_test(tc, numbers_are_told_from_texts);
    suite_add_tcase(s, tc);
    return s;
}
TEST_SUITE(suite)
