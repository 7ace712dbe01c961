/* A folder for a test's files, and models that are quantised in it. */
#ifndef QUOLL_SCRATCH_H
#define QUOLL_SCRATCH_H

#include "lab/gptq_folder.h"
#include "lab/quantize.h"

/* Before and after a test: a checked fixture. */
void scratch_make(void);
void scratch_remove(void);
/* The path of a name in it; the last four are there. */
const char *scratch(const char *name);

/* The program's ways from a model to a quantised one: 0, or −1 with err. */
int scratch_gguf(const char *from, const char *to, const struct quantize_options *o, char *err,
                 size_t errlen);
int scratch_gptq(const char *from, const char *to, const struct gptq_folder_options *o, char *err,
                 size_t errlen);

/* Float32 logits (n, *vocab_size) of n ids, make_ids' with this seed; malloc'ed. */
enum { SCRATCH_SEED = 11 };
float *scratch_logits(const char *model, int n, int *vocab_size);

#endif
