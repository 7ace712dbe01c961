/* The threads of one parallel region: OpenMP starts them, a barrier of our own keeps them in step.
 * The barrier spins for some microseconds, which is what an operator's imbalance lasts, then lets other
 * threads of its processor run, for those it waits for may be among them, and after some milliseconds sleeps
 * (a futex). Not sooner: a virtual processor that halts is given to others, and comes back late. */
#include "kernels/kernels.h"

#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct counter {
    alignas(64) atomic_llong at;
};

/* Each counter has a cache line to itself. NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct team {
    int n_threads;
    alignas(64) atomic_int arrived;
    alignas(64) atomic_int phase; /* what sleepers wait on */
    atomic_int sleepers;
    struct counter next; /* of team_next; every barrier sets it back to 0 */
    /* Of team_next_near: how much of each thread's part is taken. Phases use the one and the other by turns;
     * each thread sets its own back to 0 while it is not in use. */
    struct counter near[][2];
};

enum {
    SPINS = 1000,           /* pauses before yielding: some 10 to 50 µs, by the CPU */
    YIELDS = 10000,         /* and these before sleeping: some milliseconds */
    MXCSR_DEFAULT = 0x1f80, /* round to nearest, denormals kept, no traps */
};

struct team *team_new(int n_threads)
{
    n_threads = n_threads < 1 ? 1 : n_threads;
    struct team *t = aligned_alloc(64, sizeof *t + (size_t)n_threads * sizeof t->near[0]);
    if (!t)
        return NULL;
    t->n_threads = n_threads;
    atomic_init(&t->arrived, 0);
    atomic_init(&t->phase, 0);
    atomic_init(&t->sleepers, 0);
    atomic_init(&t->next.at, 0);
    for (int i = 0; i < 2 * n_threads; i++)
        atomic_init(&t->near[i / 2][i % 2].at, 0);
    return t;
}

void team_free(struct team *t)
{
    free(t);
}

int team_n_threads(const struct team *t)
{
    return t->n_threads;
}

void team_run_n(struct team *t, int n, void (*fn)(struct worker *w, void *arg), void *arg)
{
    atomic_store_explicit(&t->next.at, 0, memory_order_relaxed);
    for (int i = 0; i < 2 * t->n_threads; i++)
        atomic_store_explicit(&t->near[i / 2][i % 2].at, 0, memory_order_relaxed);
#pragma omp parallel num_threads(n < 1 ? 1 : n < t->n_threads ? n : t->n_threads)
    {
        unsigned mxcsr = _mm_getcsr();
        _mm_setcsr(MXCSR_DEFAULT);
        /* The runtime may grant fewer threads than asked for. No thread can leave the first barrier
         * before all have read the phase here, so they all read the same. */
        struct worker w = {
            .team = t,
            .id = omp_get_thread_num(),
            .n_threads = omp_get_num_threads(),
            .phase = atomic_load_explicit(&t->phase, memory_order_relaxed),
        };
        fn(&w, arg);
        _mm_setcsr(mxcsr);
    }
}

void team_run(struct team *t, void (*fn)(struct worker *w, void *arg), void *arg)
{
    team_run_n(t, t->n_threads, fn, arg);
}

/* Until the phase changes from `old`, or for no reason. A thread first counts itself as a sleeper and then
 * looks at the phase, the last to arrive sets the phase and then looks for sleepers, both in one order that
 * all threads agree on: either the sleeper sees the new phase (the kernel compares it again), or it is woken.
 */
static void sleep_on(struct team *t, int old)
{
    atomic_fetch_add(&t->sleepers, 1);
    (void)syscall(SYS_futex, &t->phase, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&t->sleepers, 1);
}

static void open_phase(struct team *t, int phase)
{
    atomic_store(&t->phase, phase);
    if (atomic_load(&t->sleepers) > 0)
        (void)syscall(SYS_futex, &t->phase, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Into the second cache. */
static void read_ahead(struct worker *w)
{
    enum { AT_ONCE = 8, LINE = 64 };
    for (int i = 0; i < AT_ONCE; i++, w->ahead += LINE)
        __builtin_prefetch(w->ahead, 0, 2);
}

void team_barrier(struct worker *w)
{
    struct team *t = w->team;
    int old = w->phase, phase = w->phase = (int)((unsigned)old + 1);
    /* Nobody is in the phase before this one, which used the other counters. */
    atomic_store_explicit(&t->near[w->id][phase & 1].at, 0, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == w->n_threads - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&t->next.at, 0, memory_order_relaxed);
        open_phase(t, phase);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&t->phase, memory_order_acquire) != phase; spins++) {
        if (w->ahead < w->ahead_end)
            read_ahead(w);
        else if (spins < SPINS)
            _mm_pause();
        else if (spins < YIELDS)
            (void)sched_yield();
        else
            sleep_on(t, old);
    }
}

/* The next of items first … last − 1; the counter may run past them. */
static bool take(struct counter *c, int64_t first, int64_t last, int64_t grain, int64_t *begin, int64_t *end)
{
    int64_t at = first + atomic_fetch_add_explicit(&c->at, grain, memory_order_relaxed);
    if (at >= last)
        return false;
    *begin = at;
    *end = last - at < grain ? last : at + grain;
    return true;
}

bool team_next(struct worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end)
{
    return take(&w->team->next, 0, n, grain, begin, end);
}

bool team_next_near(struct worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end)
{
    for (int i = 0; i < w->n_threads; i++) {
        int id = (w->id + i) % w->n_threads;
        struct counter *c = &w->team->near[id][w->phase & 1];
        if (take(c, team_part(w, id, n), team_part(w, id + 1, n), grain, begin, end))
            return true;
    }
    return false;
}
