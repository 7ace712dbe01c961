/* Products of few tokens: types of super-blocks that are kept as fields. */
#include "kernels/cuda/linear_few.cuh"

bool cuda_linear_few_grids(const struct linear_work *a)
{
    switch (a->part[0].w.type) {
    case QTYPE_IQ1_S:
        launch_few<QTYPE_IQ1_S>(a);
        return true;
    case QTYPE_IQ1_M:
        launch_few<QTYPE_IQ1_M>(a);
        return true;
    case QTYPE_IQ2_XXS:
        launch_few<QTYPE_IQ2_XXS>(a);
        return true;
    case QTYPE_IQ2_XS:
        launch_few<QTYPE_IQ2_XS>(a);
        return true;
    case QTYPE_IQ2_S:
        launch_few<QTYPE_IQ2_S>(a);
        return true;
    case QTYPE_IQ3_XXS:
        launch_few<QTYPE_IQ3_XXS>(a);
        return true;
    case QTYPE_IQ3_S:
        launch_few<QTYPE_IQ3_S>(a);
        return true;
    case QTYPE_TQ1_0:
        launch_few<QTYPE_TQ1_0>(a);
        return true;
    default:
        return false;
    }
}
