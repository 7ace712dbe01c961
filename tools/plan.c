/* How much memory the commands that run a model would take with these options. */
#include "tools/inspect.h"

#include "kernels/cuda.h"

enum { DEFAULT_CTX = 4096 };

int plan_memory(struct plan *p, const struct config *c, const struct weights *w, const struct run_options *o,
                char *err, size_t errlen)
{
    enum qtype usual = o->compute == COMPUTE_F32 ? QTYPE_F32 : QTYPE_F16;
    *p = (struct plan){.n_ctx = o->n_ctx > 0 ? o->n_ctx : c->max_seq_len,
                       .type_k = o->type_k >= 0 ? (enum qtype)o->type_k : usual,
                       .type_v = o->type_v >= 0 ? (enum qtype)o->type_v : usual};
    if (o->n_ctx < 0 && p->n_ctx > DEFAULT_CTX)
        p->n_ctx = DEFAULT_CTX;
    const int n_seqs = o->n_seqs > 1 ? o->n_seqs : 1;
    p->n_batch = o->n_batch < p->n_ctx * n_seqs ? o->n_batch : (int)(p->n_ctx * n_seqs);
    p->on_gpu = o->device >= 0;
    if (p->on_gpu)
        (void)cuda_memory(o->device, &p->gpu_free, &p->gpu_total, p->why_unknown, sizeof p->why_unknown);
    const struct model_options mo = {.ops = o->device >= 0 ? cuda_plan_ops() : ops_cpu(o->isa),
                                     .quantize = o->quantize};
    const struct cache_options co = {p->n_ctx * n_seqs, n_seqs, p->type_k, p->type_v, p->n_batch};
    const struct context_options xo = {o->n_threads, o->n_threads_batch, p->n_batch, o->compute, false};
    return model_plan(&p->memory, w, &mo, &co, &xo, err, errlen);
}
