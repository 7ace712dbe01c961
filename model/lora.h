/* Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) as the PEFT library writes them: a folder of
 * adapter_config.json and adapter_model.safetensors or .bin. And what THUDM's P-Tuning v2 (Liu et al. 2021,
 * arXiv:2110.07602) leaves beside a ChatGLM: a checkpoint with the prefix encoder's embedding alone. */
#ifndef QUOLL_LORA_H
#define QUOLL_LORA_H

#include "model/naming.h"

/* What all adapters together add to one matrix: W x + b (a x). Rows of b are in the engine's order, alpha / r
 * and the user's scale are in it. */
struct lora_pair {
    enum role role;
    int layer, expert;
    int rank; /* of all adapters together */
    int64_t rows, cols;
    float *a; /* (rank, cols) */
    float *b; /* (rows, rank) */
};

struct lora {
    struct lora_pair *pair;
    size_t n;
    float *
        prefix; /* of a P-Tuning v2 checkpoint: (n_virtual, n_layers, 2, n_kv_heads · head_dim); NULL: none */
    int n_virtual;
};

/* Reads and checks n adapters for the model. −1: an adapter of another kind (DoRA, trained biases, …), a
 * tensor that fits no matrix. */
int lora_open(struct lora *l, const struct config *c, const struct lora_option *option, size_t n, char *err,
              size_t errlen);
void lora_close(struct lora *l); /* a zeroed one is fine */
const struct lora_pair *lora_find(const struct lora *l, enum role role, int layer, int expert);

#endif
