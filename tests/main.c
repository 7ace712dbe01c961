/* The runner: every suite that was linked in, one closing line. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_SUITES = 128 };

static Suite *(*suites[MAX_SUITES])(void);
static int n_suites;

void test_register(Suite *(*make)(void))
{
    if (n_suites == MAX_SUITES)
        abort();
    suites[n_suites++] = make;
}

static const char *first_readable(const char *const *dirs, size_t n_dirs, const char *name)
{
    static char path[1024];
    for (size_t i = 0; i < n_dirs; i++) {
        if (!dirs[i])
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", dirs[i], name);
        if (access(path, R_OK) == 0)
            return path;
    }
    return NULL;
}

const char *test_golden(const char *name)
{
    const char *dirs[] = {getenv("QUOLL_GOLDEN"), "../shared/golden", "tests/golden"};
    return first_readable(dirs, 3, name);
}

const char *test_model(const char *name)
{
    const char *dirs[] = {getenv("QUOLL_TEST_MODELS"), "weights"};
    return first_readable(dirs, 2, name);
}

void test_skip(const char *what, const char *why)
{
    (void)fprintf(stderr, "skipped: %s: %s\n", what, why);
}

int main(void)
{
    SRunner *runner = srunner_create(NULL);
    for (int i = 0; i < n_suites; i++)
        srunner_add_suite(runner, suites[i]());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
