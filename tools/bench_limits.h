#ifndef QUOLL_BENCH_LIMITS_H
#define QUOLL_BENCH_LIMITS_H

#include "kernels/kernels.h"

/* What no kernel on this machine can be faster than, all threads together; each the best of several runs. */
struct bench_limits {
    double read; /* bytes per second, of memory that no cache holds */
    double dots; /* multiply-adds of bytes per second, with the level's instructions on registers alone */
    double fmas; /* of floats */
};

/* −1: out of memory, or stopped by Ctrl-C. */
int bench_limits(struct bench_limits *l, enum isa isa, int n_threads);

#endif
