/* Products of few tokens: types of blocks of 32. */
#include "kernels/cuda/linear_few.cuh"

bool cuda_linear_few_blocks(const struct linear_work *a)
{
    switch (a->part[0].w.type) {
    case QTYPE_Q4_0:
        launch_few<QTYPE_Q4_0>(a);
        return true;
    case QTYPE_Q4_1:
        launch_few<QTYPE_Q4_1>(a);
        return true;
    case QTYPE_Q5_0:
        launch_few<QTYPE_Q5_0>(a);
        return true;
    case QTYPE_Q5_1:
        launch_few<QTYPE_Q5_1>(a);
        return true;
    case QTYPE_Q8_0:
        launch_few<QTYPE_Q8_0>(a);
        return true;
    case QTYPE_IQ4_NL:
        launch_few<QTYPE_IQ4_NL>(a);
        return true;
    case QTYPE_MXFP4:
        launch_few<QTYPE_MXFP4>(a);
        return true;
    case QTYPE_NVFP4:
        launch_few<QTYPE_NVFP4>(a);
        return true;
    case QTYPE_INT2Z:
        launch_few<QTYPE_INT2Z>(a);
        return true;
    case QTYPE_INT3Z:
        launch_few<QTYPE_INT3Z>(a);
        return true;
    case QTYPE_INT4Z:
        launch_few<QTYPE_INT4Z>(a);
        return true;
    case QTYPE_INT8Z:
        launch_few<QTYPE_INT8Z>(a);
        return true;
    default:
        return false;
    }
}
