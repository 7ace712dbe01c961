/* Opens a model for running. */
#include "tools/session.h"

#include "kernels/cuda.h"
#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CTX = 4096 };

static void note_types(struct session *s)
{
    uint64_t bytes[QTYPE_COUNT] = {0};
    for (size_t i = 0; i < weights_n_tensors(s->weights); i++) {
        const struct tensor *t = weights_tensor(s->weights, i);
        bytes[t->type] += t->bytes;
        s->tensor_bytes += t->bytes;
        if (bytes[t->type] > bytes[s->main_type])
            s->main_type = t->type;
    }
}

/* Tokens whose text holds one of the breakers: a repetition does not reach across them (DRY). */
static bool *dry_breakers(const struct session *s, const struct run_options *o)
{
    static const char *const usual[] = {"\n", ":", "\"", "*"};
    const char *const *texts = o->dry_breakers_given ? o->dry_breakers.item : usual;
    size_t n_texts = o->dry_breakers_given ? o->dry_breakers.n : sizeof usual / sizeof usual[0];
    bool *is_breaker = calloc((size_t)s->config->vocab_size, sizeof *is_breaker);
    if (!is_breaker || !s->tokenizer)
        return is_breaker;
    for (int32_t id = 0; id < s->config->vocab_size; id++) {
        size_t len;
        const char *piece = tokenizer_piece(s->tokenizer, id, true, &len);
        for (size_t i = 0; i < n_texts && !is_breaker[id]; i++)
            is_breaker[id] = memmem(piece, len, texts[i], strlen(texts[i])) != NULL;
    }
    return is_breaker;
}

/* The biases of o, then a ban of every token that ends a text. */
static struct logit_bias *end_bans(const struct session *s, const struct run_options *o, size_t *n)
{
    *n = o->sampler.n_logit_bias;
    struct logit_bias *bias = malloc((*n + (size_t)s->config->vocab_size) * sizeof *bias);
    if (!bias)
        return NULL;
    if (*n > 0)
        memcpy(bias, o->sampler.logit_bias, *n * sizeof *bias);
    for (int32_t id = 0; id < s->config->vocab_size; id++)
        if (tokenizer_is_end(s->tokenizer, id))
            bias[(*n)++] = (struct logit_bias){id, -INFINITY};
    return bias;
}

int session_set_sampler(struct session *s, const struct run_options *o, char *err, size_t errlen)
{
    struct sampler_options so = o->sampler;
    struct sampler *sampler = NULL;
    bool *is_breaker = NULL;
    struct logit_bias *bias = NULL;
    int failed = 0;
    if (so.dry_multiplier > 0 && !(so.dry_breaker = is_breaker = dry_breakers(s, o)))
        failed = err_set(err, errlen, "out of memory");
    if (o->ignore_eos && s->tokenizer && !(so.logit_bias = bias = end_bans(s, o, &so.n_logit_bias)))
        failed = err_set(err, errlen, "out of memory");
    if (!failed)
        failed = sampler_new(&sampler, &so, s->config->vocab_size, err, errlen);
    free(is_breaker);
    free(bias);
    if (failed)
        return -1;
    sampler_free(s->sampler);
    s->sampler = sampler;
    return 0;
}

static int open_text(struct session *s, unsigned needs, char *err, size_t errlen)
{
    /* A model without a vocabulary runs on ids; a broken vocabulary matters only to who needs one. */
    bool required = needs & (SESSION_TEXT | SESSION_CHAT);
    if (vocab_open(&s->tokenizer, s->weights, err, errlen) != 0) {
        s->tokenizer = NULL;
        if (required)
            return -1;
        tool_note(NOTE_VERBOSE, "note: no tokenizer: %s\n", err);
    }
    if (s->tokenizer && tokenizer_warning(s->tokenizer))
        tool_note(NOTE_USUAL, "note: %s\n", tokenizer_warning(s->tokenizer));
    return needs & SESSION_CHAT ? chat_prompt_open(&s->chat, s->weights, s->tokenizer, err, errlen) : 0;
}

static void choose_context(struct session *s, const struct run_options *o)
{
    int64_t own = s->config->max_seq_len;
    if (o->n_ctx > 0)
        s->n_ctx = o->n_ctx;
    else if (o->n_ctx == 0 || own < DEFAULT_CTX)
        s->n_ctx = own;
    else
        s->n_ctx = DEFAULT_CTX;
    if (s->n_ctx > own)
        tool_note(NOTE_USUAL,
                  "note: a context of %" PRId64 " tokens is more than the model's own %" PRId64 "\n",
                  s->n_ctx, own);
    const int64_t positions = s->n_ctx * (o->n_seqs > 1 ? o->n_seqs : 1);
    s->n_batch = o->n_batch < positions ? o->n_batch : (int)positions;
    enum qtype usual = o->compute == COMPUTE_F32 ? QTYPE_F32 : QTYPE_F16;
    s->type_k = o->type_k >= 0 ? (enum qtype)o->type_k : usual;
    s->type_v = o->type_v >= 0 ? (enum qtype)o->type_v : usual;
}

static void note_line(bool important, const char *line)
{
    tool_note(important ? NOTE_USUAL : NOTE_VERBOSE, "%s\n", line);
}

/* The operators of the device that o names; NULL: it cannot be used. */
static const struct ops *open_device(const struct run_options *o, char *err, size_t errlen)
{
    if (o->device >= 0)
        return ops_cuda(o->device, o->exact, err, errlen);
    const struct ops *gpu = NULL;
    if (o->device == DEVICE_AUTO && !o->no_repack && cuda_probe(err, errlen) == 0)
        gpu = ops_cuda(0, o->exact, err, errlen);
    return gpu ? gpu : ops_cpu(o->isa);
}

static int open_all(struct session *s, const char *path, const struct run_options *o, unsigned needs,
                    char *err, size_t errlen)
{
    const struct weights_options wo = {.no_mmap = o->no_mmap, .mlock = o->mlock};
    if (!(s->path = strdup(path)))
        return err_set(err, errlen, "out of memory");
    if (!s->weights &&
        (weights_open(&s->weights, path, &wo, err, errlen) != 0 || open_text(s, needs, err, errlen) != 0))
        return -1;
    note_types(s);

    if (!(s->ops = open_device(o, err, errlen)))
        return -1;
    if (o->pack_cache && !s->ops->on_host)
        tool_note(NOTE_USUAL, "note: --pack-cache is of no use to a GPU\n");
    const struct model_options mo = {.ops = s->ops,
                                     .n_threads = o->n_threads_batch,
                                     .no_repack = o->no_repack,
                                     .rope_freq_base = o->rope_freq_base,
                                     .rope_scale = o->rope_scale,
                                     .rope_scaling = o->rope_scaling,
                                     .lora = o->lora.item,
                                     .n_lora = o->lora.n,
                                     .quantize = o->quantize,
                                     .pack_cache = s->ops->on_host ? o->pack_cache : NULL,
                                     .pack_version = QUOLL_VERSION,
                                     .note = note_line,
                                     .stop = tool_interrupted};
    if (model_load(&s->model, s->weights, &mo, err, errlen) != 0)
        return -1;
    s->config = model_config(s->model);
    if (!o->no_repack) {
        weights_close(s->weights);
        s->weights = NULL;
    }

    choose_context(s, o);
    const int n_seqs = o->n_seqs > 1 ? o->n_seqs : 1;
    const struct cache_options co = {.n_ctx = s->n_ctx * n_seqs,
                                     .n_seqs = n_seqs,
                                     .type_k = s->type_k,
                                     .type_v = s->type_v,
                                     .max_batch = s->n_batch};
    const struct context_options xo = {.n_threads = o->n_threads,
                                       .n_threads_batch = o->n_threads_batch,
                                       .max_batch = s->n_batch,
                                       .compute = o->compute,
                                       .check_finite = o->check_finite};
    if (cache_new(&s->cache, s->model, &co, err, errlen) != 0 ||
        context_new(&s->context, s->model, s->cache, &xo, err, errlen) != 0)
        return -1;
    return needs & SESSION_SAMPLER ? session_set_sampler(s, o, err, errlen) : 0;
}

int session_open(struct session *s, const char *path, const struct run_options *o, unsigned needs, char *err,
                 size_t errlen)
{
    return session_open_weights(s, path, NULL, o, needs, err, errlen);
}

int session_open_weights(struct session *s, const char *path, struct weights *w, const struct run_options *o,
                         unsigned needs, char *err, size_t errlen)
{
    double start = machine_seconds();
    *s = (struct session){.weights = w, .main_type = QTYPE_F32};
    if (open_all(s, path, o, needs, err, errlen) != 0) {
        session_close(s);
        return -1;
    }
    s->load_seconds = machine_seconds() - start;
    tool_note(NOTE_VERBOSE,
              "model: %s, %s, %d layers, %s %s, context %" PRId64
              ", KV cache %.1f MiB (%s/%s), scratch %.1f MiB\n",
              s->path, qtypes[s->main_type].name, s->config->n_layers,
              s->ops->on_host ? "level" : s->ops->name, s->ops->on_host ? isa_name(o->isa) : s->ops->device,
              s->n_ctx, (double)cache_bytes(s->cache) / (1 << 20), qtypes[s->type_k].name,
              qtypes[s->type_v].name, (double)context_bytes(s->context) / (1 << 20));
    return 0;
}

void session_close(struct session *s)
{
    sampler_free(s->sampler);
    context_free(s->context);
    cache_free(s->cache);
    model_free(s->model);
    chat_prompt_close(s->chat);
    tokenizer_free(s->tokenizer);
    weights_close(s->weights);
    if (s->ops && s->ops->close)
        s->ops->close();
    free(s->path);
    *s = (struct session){.main_type = QTYPE_F32};
}

int session_eval(struct session *s, const int32_t *ids, size_t n, const float **logits, char *err,
                 size_t errlen)
{
    return session_eval_seqs(s, ids, NULL, n, logits, err, errlen);
}

int session_eval_seqs(struct session *s, const int32_t *ids, const int32_t *seq, size_t n,
                      const float **logits, char *err, size_t errlen)
{
    *logits = NULL;
    if (n == 0)
        return 0;
    const struct batch b = {.n = (int)n, .id = ids, .seq = seq, .stop = tool_interrupted};
    if (tool_interrupted())
        return SESSION_STOPPED;
    int rc = context_eval(s->context, &b, logits, err, errlen);
    return rc == CONTEXT_STOPPED ? SESSION_STOPPED : rc;
}

int session_set_threads(struct session *s, int n_threads, const struct run_options *o, char *err,
                        size_t errlen)
{
    const struct context_options xo = {.n_threads = n_threads,
                                       .n_threads_batch = n_threads,
                                       .max_batch = s->n_batch,
                                       .compute = o->compute,
                                       .check_finite = o->check_finite};
    context_free(s->context);
    s->context = NULL;
    return context_new(&s->context, s->model, s->cache, &xo, err, errlen);
}
