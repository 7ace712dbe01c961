#ifndef QUOLL_BENCH_MEMBW_H
#define QUOLL_BENCH_MEMBW_H

/* Bytes per second at which n_threads threads together read memory that no cache holds (the best of
 * several passes over 512 MiB); 0: out of memory. */
double bench_membw(int n_threads);

#endif
