/* What `quoll inspect` shows: gathered once, printed as text or as JSON. */
#ifndef QUOLL_INSPECT_H
#define QUOLL_INSPECT_H

#include "tools/options.h"

/* Memory that a command would take which runs the model with these options. */
struct plan {
    int64_t n_ctx;
    int n_batch;
    enum qtype type_k, type_v;
    struct model_plan memory;
    bool on_gpu;           /* a GPU was named: … */
    char why_unknown[512]; /* "": … of its memory so many bytes are free, of all */
    size_t gpu_free, gpu_total;
};

/* From hyper-parameters and the tensors' shapes alone. −1: the model is not whole, or its KV cache cannot
 * have these types. */
int plan_memory(struct plan *p, const struct config *c, const struct weights *w, const struct run_options *o,
                char *err, size_t errlen);

struct type_total {
    uint64_t n_tensors, n_params, bytes;
};

struct inspection {
    const struct weights *w;
    struct config config;
    bool has_config;
    char why_not[512]; /* no config: the reason, without the file's name */
    struct type_total type[QTYPE_COUNT], all;
    struct plan plan;
    bool show_plan, show_tensors;
};

/* Prints one JSON object. −1: out of memory. */
int inspect_print_json(const struct inspection *in);

#endif
