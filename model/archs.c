/* The table of architectures. */
#include "model/arch.h"

#include <string.h>

const struct arch *const archs[] = {
    &arch_llama,
    &arch_qwen2,
    NULL,
};

const struct arch *arch_find(const char *name, size_t len)
{
    for (size_t i = 0; archs[i]; i++)
        if (strlen(archs[i]->name) == len && memcmp(archs[i]->name, name, len) == 0)
            return archs[i];
    return NULL;
}
