/* The threads of one parallel region: OpenMP starts them, a barrier of our own keeps them in step.
 * The barrier spins for some microseconds, which is what an operator's imbalance lasts, and then yields
 * the processor each time round, so that a busy machine is not starved by waiting threads. */
#include "kernels/kernels.h"

#include <immintrin.h>
#include <omp.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

struct team {
    int n_threads;
    alignas(64) atomic_int arrived;
    alignas(64) atomic_int phase;
    alignas(64) atomic_llong next; /* of team_next; every barrier sets it back to 0 */
};

enum {
    SPINS = 4000,           /* pauses before the first yield: about 40 µs */
    MXCSR_DEFAULT = 0x1f80, /* round to nearest, denormals kept, no traps */
};

struct team *team_new(int n_threads)
{
    struct team *t = aligned_alloc(64, sizeof *t);
    if (!t)
        return NULL;
    t->n_threads = n_threads < 1 ? 1 : n_threads;
    atomic_init(&t->arrived, 0);
    atomic_init(&t->phase, 0);
    atomic_init(&t->next, 0);
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
    if (n > t->n_threads)
        n = t->n_threads;
    if (n < 1)
        n = 1;
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
#pragma omp parallel num_threads(n)
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

void team_barrier(struct worker *w)
{
    struct team *t = w->team;
    int phase = w->phase = (int)((unsigned)w->phase + 1);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == w->n_threads - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&t->next, 0, memory_order_relaxed);
        atomic_store_explicit(&t->phase, phase, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&t->phase, memory_order_acquire) != phase; spins++) {
        if (spins < SPINS)
            _mm_pause();
        else
            (void)sched_yield();
    }
}

bool team_next(struct worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end)
{
    long long at = atomic_fetch_add_explicit(&w->team->next, grain, memory_order_relaxed);
    if (at >= n)
        return false;
    *begin = at;
    *end = n - at < grain ? n : at + grain;
    return true;
}
