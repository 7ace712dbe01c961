/* What an observer of a batch is shown: every input of the layers' matrices and of the output, as it is
 * multiplied with (after its norm or gate), once for all matrices that share it. For statistics of
 * activations: importance, Hessians, scales. */
#ifndef QUOLL_OBSERVE_H
#define QUOLL_OBSERVE_H

#include "model/layers.h"

struct observation {
    const float
        *x; /* (n, cols), rows dense, in the backend's memory; of act-order matrices not yet ordered */
    int n, cols;
    int n_parts;                  /* matrices that multiply with it, 1 … 3 */
    const struct matrix *part[3]; /* role, layer and expert say which; tied output: the embedding */
};

#endif
