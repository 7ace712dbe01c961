/* The runner: every suite that was linked in, one closing line. */
#include "tests/test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
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

/* What the processes of a parallel run have in common. */
static struct totals {
    atomic_int next; /* suite */
    atomic_int checks, failures, errors, broken;
    atomic_size_t n_said; /* bytes of failed */
    char failed[1 << 16]; /* a line for each, printed last: the end of a log is what is looked at */
} * totals;

static void note_failed(TestResult *r)
{
    char line[512];
    int n = snprintf(line, sizeof line, "failed: %s:%d: %s: %s\n", tr_lfile(r), tr_lno(r), tr_tcname(r),
                     tr_msg(r));
    size_t len = n < 0 ? 0 : strlen(line), at = atomic_fetch_add(&totals->n_said, len);
    if (at + len < sizeof totals->failed)
        memcpy(totals->failed + at, line, len);
}

static void count(SRunner *runner)
{
    int n = srunner_ntests_run(runner);
    TestResult **results = srunner_results(runner);
    atomic_fetch_add(&totals->checks, n);
    for (int i = 0; i < n; i++) {
        enum test_result r = (enum test_result)tr_rtype(results[i]);
        if (r == CK_PASS)
            continue;
        atomic_fetch_add(r == CK_FAILURE ? &totals->failures : &totals->errors, 1);
        note_failed(results[i]);
    }
    free(results);
}

/* Suites in n_jobs processes, each taking the next one; then the closing line that Check prints for one. */
static int run_parallel(int n_jobs)
{
    for (int j = 0; j < n_jobs; j++) {
        (void)fflush(NULL);
        pid_t pid = fork();
        if (pid < 0)
            atomic_store(&totals->broken, 1);
        if (pid != 0)
            continue;
        for (int i; (i = atomic_fetch_add(&totals->next, 1)) < n_suites;) {
            SRunner *runner = srunner_create(suites[i]());
            srunner_run_all(runner, CK_ENV);
            count(runner);
            (void)fflush(stdout);
            srunner_free(runner);
        }
        exit(EXIT_SUCCESS);
    }
    for (int status; wait(&status) > 0;)
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            atomic_store(&totals->broken, 1);
    (void)fputs(totals->failed, stdout);
    if (atomic_load(&totals->broken))
        (void)printf("a process of the test run ended before its time\n");
    int checks = totals->checks, failures = totals->failures, errors = totals->errors;
    (void)printf("%d%%: Checks: %d, Failures: %d, Errors: %d\n",
                 checks ? 100 * (checks - failures - errors) / checks : 0, checks, failures, errors);
    return checks == 0 || failures || errors || totals->broken;
}

static int run_all(void)
{
    SRunner *runner = srunner_create(NULL);
    for (int i = 0; i < n_suites; i++)
        srunner_add_suite(runner, suites[i]());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed;
}

static void *shared(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(EXIT_FAILURE);
    }
    return p;
}

/* QUOLL_TEST_JOBS: processes that share the suites (under sanitizers, where they take long). */
int main(void)
{
    said = shared(sizeof *said);
    totals = shared(sizeof *totals);
    const char *jobs = getenv("QUOLL_TEST_JOBS");
    int n_jobs = jobs && !getenv("CK_RUN_SUITE") ? atoi(jobs) : 1;
    return (n_jobs > 1 ? run_parallel(n_jobs) : run_all()) ? EXIT_FAILURE : EXIT_SUCCESS;
}
