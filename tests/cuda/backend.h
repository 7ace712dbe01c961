/* The CUDA backend in tests: the host executor's, or with QUOLL_TEST_CUDA=1 a real GPU through the plug-in.
 */
#ifndef QUOLL_TESTS_CUDA_BACKEND_H
#define QUOLL_TESTS_CUDA_BACKEND_H

#include "kernels/cuda.h"
#include "tests/test.h"

#ifndef QUOLL_NO_EXECUTOR
#include "tests/cuda/executor.h"
#endif

#include <stdlib.h>

static inline bool cuda_is_real(void)
{
    const char *real = getenv("QUOLL_TEST_CUDA");
    return real && real[0] == '1';
}

/* The operators; NULL: skipped, and said so. Fails the test when a GPU was asked for and does not open. */
static inline const struct ops *cuda_test_ops(bool exact)
{
    char err[512] = "";
    const struct ops *ops = NULL;
    if (cuda_is_real()) {
        ops = ops_cuda(0, exact, err, sizeof err);
        ck_assert_msg(ops != NULL, "%s", err);
        return ops;
    }
#ifdef QUOLL_NO_EXECUTOR
    (void)exact;
    test_skip("CUDA", "this build has no executor for its kernels");
#else
    ops = quoll_cuda_open(cuda_host_tables(), 0, exact, err, sizeof err);
    ck_assert_msg(ops != NULL, "%s", err);
#endif
    return ops;
}

#endif
