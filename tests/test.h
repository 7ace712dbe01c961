/* tests/: one file per file of the engine. A test file ends in TEST_SUITE(function), where function
 * returns its Check suite; linking the file is enough to run it. */
#ifndef QUOLL_TEST_H
#define QUOLL_TEST_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

void test_register(Suite *(*make)(void));

#define TEST_SUITE(fn)                                           \
    __attribute__((constructor)) static void fn##_register(void) \
    {                                                            \
        test_register(fn);                                       \
    }

/* Path of a golden file: ../shared/golden/NAME where that exists, else tests/golden/NAME, else NULL
 * (the caller skips, with test_skip). Lent until the next call. */
const char *test_golden(const char *name);
/* Path of a real model in weights/ or $QUOLL_TEST_MODELS, NULL: not there. */
const char *test_model(const char *name);
/* Says once per reason, on stderr, that something was skipped. */
void test_skip(const char *what, const char *why);

#endif
