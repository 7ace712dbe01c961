/* The frequencies of rotary position embeddings (Su et al. 2021, arXiv:2104.09864) and their scalings. */
#include "model/layers.h"

#include "quant/err.h"

#include <math.h>

int rope_frequencies(double *inv_freq, double *attention_factor, const struct config *c,
                     const float *divisors, char *err, size_t errlen)
{
    for (int i = 0; i < c->rotary_dim / 2; i++) {
        inv_freq[i] = pow(c->rope_theta, -2.0 * i / c->rotary_dim);
        /* Llama 3.1 slows the long wavelengths down; GGUF carries the result of its rule (the file
         * format's rope_freqs tensor), not the rule's parameters. */
        if (divisors) {
            if (!(isfinite(divisors[i]) && divisors[i] > 0))
                return err_set(err, errlen, "tensor 'rope_freqs.weight': divisor %d is %g", i,
                               (double)divisors[i]);
            inv_freq[i] /= (double)divisors[i];
        }
        /* Position interpolation (Chen et al. 2023, arXiv:2306.15595): positions p / factor. */
        if (c->rope_scaling == ROPE_SCALING_LINEAR)
            inv_freq[i] /= c->rope_factor;
    }
    *attention_factor = 1;
    return 0;
}
