/* The machine's limits: one token at a time cannot be faster than memory is read, a prompt not faster than
 * the arithmetic units. */
#include "tools/bench_limits.h"

#include "tools/tools.h"

#include <stdlib.h>
#include <string.h>

enum { BUFFER_BYTES = 512 << 20, PASSES = 6, LANES = 8, ROUNDS = 200000 };

/* 64 bytes: as many loads as the compiler's target needs for them. */
typedef uint64_t lane_vector __attribute__((vector_size(8 * LANES)));

struct reader {
    lane_vector *data;
    size_t n;
    double seconds;
    uint64_t sum; /* keeps the reads alive */
};

static void share(const struct worker *w, size_t n, size_t *begin, size_t *end)
{
    *begin = n * (size_t)w->id / (size_t)w->n_threads;
    *end = n * ((size_t)w->id + 1) / (size_t)w->n_threads;
}

/* Each thread's pages come from the memory next to it. */
static void fill(struct worker *w, void *arg)
{
    struct reader *r = arg;
    size_t begin, end;
    share(w, r->n, &begin, &end);
    memset(r->data + begin, 1, (end - begin) * sizeof *r->data);
}

static void read_all(struct worker *w, void *arg)
{
    struct reader *r = arg;
    size_t begin, end;
    share(w, r->n, &begin, &end);
    team_barrier(w);
    double start = machine_seconds();
    lane_vector a = {0}, b = {0}, c = {0}, d = {0};
    size_t i = begin;
    for (; i + 4 <= end; i += 4) {
        a += r->data[i];
        b += r->data[i + 1];
        c += r->data[i + 2];
        d += r->data[i + 3];
    }
    for (; i < end; i++)
        a += r->data[i];
    a += b + c + d;
    uint64_t sum = 0;
    for (int k = 0; k < LANES; k++)
        sum += a[k];
    __atomic_fetch_add(&r->sum, sum, __ATOMIC_RELAXED);
    team_barrier(w);
    if (w->id == 0)
        r->seconds = machine_seconds() - start;
}

/* Bytes per second; 0: out of memory. */
static double read_rate(struct team *team)
{
    struct reader r = {.n = BUFFER_BYTES / sizeof(lane_vector)};
    r.data = aligned_alloc(1 << 21, BUFFER_BYTES);
    if (!r.data)
        return 0;
    double best = 0;
    team_run(team, fill, &r);
    for (int pass = 0; pass < PASSES && tool_interrupts() == 0; pass++) {
        team_run(team, read_all, &r);
        double rate = r.seconds > 0 ? (double)BUFFER_BYTES / r.seconds : 0;
        best = rate > best ? rate : best;
    }
    free(r.data);
    return r.sum ? best : 0;
}

struct peak {
    int64_t (*run)(enum isa isa, int64_t n_rounds);
    enum isa isa;
    int64_t n_done; /* by one thread */
};

static void run_peak(struct worker *w, void *arg)
{
    struct peak *p = arg;
    int64_t n = p->run(p->isa, ROUNDS);
    if (w->id == 0)
        p->n_done = n;
    team_barrier(w);
}

static double peak_rate(struct team *team, struct peak p)
{
    double best = 0;
    for (int pass = 0; pass < PASSES && tool_interrupts() == 0; pass++) {
        double start = machine_seconds();
        team_run(team, run_peak, &p);
        double seconds = machine_seconds() - start;
        double rate = seconds > 0 ? (double)p.n_done * team_n_threads(team) / seconds : 0;
        best = rate > best ? rate : best;
    }
    return best;
}

int bench_limits(struct bench_limits *l, enum isa isa, int n_threads)
{
    struct team *team = team_new(n_threads);
    if (!team)
        return -1;
    l->read = read_rate(team);
    l->dots = peak_rate(team, (struct peak){cpu_peak_dots, isa, 0});
    l->fmas = peak_rate(team, (struct peak){cpu_peak_fmas, isa, 0});
    team_free(team);
    return l->read > 0 && tool_interrupts() == 0 ? 0 : -1;
}
