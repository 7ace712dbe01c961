/* The runner: every suite that was linked in, one closing line. */
#include "tests/test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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

/* Check runs each test in a process of its own: what was said is remembered in memory they share. */
static struct {
    atomic_ullong hash[1024];
} * said;

/* FNV-1a of both texts. */
static unsigned long long hash_of(const char *what, const char *why)
{
    unsigned long long h = 0xcbf29ce484222325;
    for (const char *c = what; *c; c++)
        h = (h ^ (unsigned char)*c) * 0x100000001b3;
    h *= 0x100000001b3;
    for (const char *c = why; *c; c++)
        h = (h ^ (unsigned char)*c) * 0x100000001b3;
    return h;
}

void test_skip(const char *what, const char *why)
{
    unsigned long long h = hash_of(what, why);
    for (size_t i = 0; i < sizeof said->hash / sizeof said->hash[0]; i++) {
        unsigned long long none = 0;
        if (atomic_load(&said->hash[i]) == h)
            return;
        if (atomic_compare_exchange_strong(&said->hash[i], &none, h))
            break;
        if (none == h)
            return;
    }
    (void)fprintf(stderr, "skipped: %s: %s\n", what, why);
}

int main(void)
{
    said = mmap(NULL, sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (said == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    SRunner *runner = srunner_create(NULL);
    for (int i = 0; i < n_suites; i++)
        srunner_add_suite(runner, suites[i]());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
