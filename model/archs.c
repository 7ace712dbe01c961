/* The table of architectures. */
#include "model/arch.h"

#include <string.h>

/* One line each. Of two with one GGUF name the first reads GGUFs; of two with one model_type the one with a
 * hf_key is asked first. */
#define ARCHS(X) \
    X(llama)     \
    X(qwen2)     \
    X(qwen3)     \
    X(qwen3moe)  \
    X(phi3)      \
    X(gemma)     \
    X(gemma2)    \
    X(gemma3)    \
    X(chatglm1)  \
    X(chatglm)   \
    X(glm)       \
    X(glm4)

#define DECLARE(name) extern const struct arch arch_##name;
#define LIST(name)    &arch_##name,
ARCHS(DECLARE)

const struct arch *const archs[] = {ARCHS(LIST) NULL};

const struct arch *arch_find(const char *name, size_t len)
{
    for (size_t i = 0; archs[i]; i++)
        if (strlen(archs[i]->name) == len && memcmp(archs[i]->name, name, len) == 0)
            return archs[i];
    return NULL;
}

enum presence arch_presence(const struct config *c, enum tensor_group g)
{
    /* An architecture that has both kinds of layers has them by its number of experts. */
    bool dense = g == TENSORS_FFN || g == TENSORS_GATE || g == TENSORS_FFN_BIAS || g == TENSORS_GATE_BIAS;
    if (g == TENSORS_EXPERTS)
        return c->n_experts ? TENSOR_REQUIRED : TENSOR_REFUSED;
    if (dense && c->n_experts)
        return TENSOR_REFUSED;
    if (g == TENSORS_PREFIX && c->arch->tensors[g] == TENSOR_OPTIONAL)
        return c->n_virtual ? TENSOR_REQUIRED : TENSOR_REFUSED;
    return c->arch->tensors[g];
}
