/* The team: barriers, the shared counter, teams of changing size; also with more threads than processors and
 * with threads that come late, so that the others sleep. What threads hand over is plain memory: the thread
 * sanitizer sees whether a barrier orders it. */
#include "tests/kernels/support.h"
#include "tests/test.h"

#include <immintrin.h>
#include <time.h>

enum { MAX_THREADS = 7, ROUNDS = 100 };

struct job {
    int turn[MAX_THREADS]; /* each thread writes its own, all read all of them between two barriers */
    int n_wrong[MAX_THREADS];
    int n_threads; /* as every thread found it */
    bool late;     /* now and then a thread arrives after the others have gone to sleep */
    int64_t n, grain;
    int *taken; /* (n): how often each item was taken */
    bool (*next)(struct worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end);
};

static void wait_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void run_barriers(struct worker *w, void *arg)
{
    struct job *job = arg;
    for (int round = 1; round <= ROUNDS; round++) {
        if (job->late && round % 20 == 0 && round / 20 % w->n_threads == w->id)
            wait_ms(1);
        job->turn[w->id] = round;
        team_barrier(w);
        for (int i = 0; i < w->n_threads; i++)
            job->n_wrong[w->id] += job->turn[i] != round;
        team_barrier(w);
    }
    if (w->id == 0)
        job->n_threads = w->n_threads;
}

START_TEST(barriers_hold_everyone)
{
    struct team *team = team_new(1 + _i % MAX_THREADS);
    struct job job = {.late = _i >= MAX_THREADS};
    for (int again = 0; again < 2; again++)
        team_run(team, run_barriers, &job);
    ck_assert_int_eq(job.n_threads, team_n_threads(team));
    for (int i = 0; i < MAX_THREADS; i++)
        ck_assert_int_eq(job.n_wrong[i], 0);
    team_free(team);
}
END_TEST

/* An operator's way: items from the counters until none is left, then the barrier, which sets them back. */
static void run_items(struct worker *w, void *arg)
{
    struct job *job = arg;
    int64_t begin, end;
    for (int round = 0; round < 50; round++) {
        /* What a thread that is held up has not begun, the others take. */
        bool held_up = w->n_threads > 1 && round % 10 == w->id;
        while (!held_up && job->next(w, job->n, job->grain, &begin, &end))
            for (int64_t i = begin; i < end; i++)
                job->taken[i]++;
        team_barrier(w);
    }
}

START_TEST(items_are_taken_once)
{
    const int64_t sizes[] = {0, 1, 2, 63, 1000};
    struct team *team = team_new(3);
    for (int i = 0; i < 5; i++)
        for (int64_t grain = 1; grain < 100; grain *= 7) {
            struct job job = {.n = sizes[i],
                              .grain = grain,
                              .taken = calloc(1001, sizeof(int)),
                              .next = _i ? team_next_near : team_next};
            for (int n_threads = 0; n_threads <= 4; n_threads++) /* 1 at least, and no more than it has */
                team_run_n(team, n_threads, run_items, &job);
            for (int64_t j = 0; j < job.n; j++)
                ck_assert_int_eq(job.taken[j], 5 * 50);
            free(job.taken);
        }
    team_free(team);
}
END_TEST

static void run_mxcsr(struct worker *w, void *arg)
{
    unsigned *mxcsr = arg;
    mxcsr[w->id] = _mm_getcsr();
}

/* Rounding and denormals are as the numerics contract has them, whatever the caller set; and his again after.
 */
START_TEST(threads_compute_alike)
{
    enum { FLUSH = 0x8040, MASKS = 0x1f80 };
    unsigned before = _mm_getcsr(), mxcsr[3] = {0};
    struct team *team = team_new(3);
    _mm_setcsr(before | FLUSH);
    team_run(team, run_mxcsr, mxcsr);
    unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(mxcsr[i], MASKS);
    ck_assert_uint_eq(after & FLUSH, FLUSH);
    team_free(team);
}
END_TEST

static Suite *team_suite(void)
{
    Suite *s = suite_create("kernels/team");
    TCase *t = tcase_create("team");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, barriers_hold_everyone, 0, 2 * MAX_THREADS);
    tcase_add_loop_test(t, items_are_taken_once, 0, 2);
    tcase_add_test(t, threads_compute_alike);
    suite_add_tcase(s, t);
    return s;
}
TEST_SUITE(team_suite)
