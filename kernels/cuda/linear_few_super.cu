/* Products of few tokens: types of super-blocks of 256. */
#include "kernels/cuda/linear_few.cuh"

bool cuda_linear_few_super(const struct linear_work *a)
{
    switch (a->part[0].w.type) {
    case QTYPE_Q2_K:
        launch_few<QTYPE_Q2_K>(a);
        return true;
    case QTYPE_Q3_K:
        launch_few<QTYPE_Q3_K>(a);
        return true;
    case QTYPE_Q4_K:
        launch_few<QTYPE_Q4_K>(a);
        return true;
    case QTYPE_Q5_K:
        launch_few<QTYPE_Q5_K>(a);
        return true;
    case QTYPE_Q6_K:
        launch_few<QTYPE_Q6_K>(a);
        return true;
    case QTYPE_IQ4_XS:
        launch_few<QTYPE_IQ4_XS>(a);
        return true;
    case QTYPE_TQ2_0:
        launch_few<QTYPE_TQ2_0>(a);
        return true;
    default:
        return false;
    }
}
