/* Hyper-parameters: where a model file keeps them, and what must hold whatever the file says. Everything is
 * checked here, once, so that the rest of the room may multiply. */
#include "model/arch.h"

#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *rope_scaling_name(enum rope_scaling s)
{
    static const char *const names[N_ROPE_SCALINGS] = {"none", "linear", "dynamic",
                                                       "yarn", "llama3", "longrope"};
    return names[s];
}

void config_window_pattern(struct config *c, int pattern)
{
    for (int l = 0; l < c->n_layers; l++)
        c->windowed[l] = pattern == 0 || (l + 1) % pattern != 0;
}

/* ---- Which architecture ------------------------------------------------------------------------- */

static int unknown_arch(const struct weights *w, struct wstr name, const char *key, bool hf, char *err,
                        size_t errlen)
{
    char known[512] = "", shown[SHOWN_MAX];
    size_t at = 0;
    for (size_t i = 0; archs[i]; i++)
        if (!hf)
            at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", archs[i]->name);
        else
            for (size_t j = 0; archs[i]->hf_types[j]; j++)
                if (!archs[i]->hf_key) /* named once */
                    at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "",
                                           archs[i]->hf_types[j]);
    return err_set(err, errlen, "%s: architecture '%s' is not supported (key '%s'); these are: %s",
                   weights_path(w), keys_shown(name, shown), key, known);
}

/* Keys may change the activation afterwards. */
static bool set_arch(struct config *c, const struct arch *arch)
{
    c->arch = arch;
    if (arch)
        c->act = arch->act;
    return arch != NULL;
}

static int read_gguf(struct config *c, const struct weights *w, char *err, size_t errlen)
{
    struct keys general = {w, "general", err, errlen};
    struct wstr name;
    if (keys_string(&general, "architecture", &name))
        return -1;
    if (!set_arch(c, arch_find(name.s, name.len)))
        return unknown_arch(w, name, "general.architecture", false, err, errlen);
    struct keys k = {w, c->arch->name, err, errlen};
    return config_gguf(c, &k) || (c->arch->gguf_config && c->arch->gguf_config(c, &k)) ? -1 : 0;
}

static int read_hf(struct config *c, const struct weights *w, char *err, size_t errlen)
{
    struct keys k = {w, "config", err, errlen};
    struct wstr type;
    char key[KEY_MAX];
    if (keys_string(&k, "model_type", &type))
        return -1;
    if (!type.s)
        return keys_missing(&k, "model_type");
    for (size_t i = 0; archs[i] && !c->arch; i++)
        for (size_t j = 0; archs[i]->hf_types[j]; j++)
            if (keys_is(&k, "model_type", archs[i]->hf_types[j]) &&
                (!archs[i]->hf_key || keys_find(&k, archs[i]->hf_key, key)))
                set_arch(c, archs[i]);
    if (!c->arch)
        return unknown_arch(w, type, "config.model_type", true, err, errlen);
    if (c->arch->hf_read ? c->arch->hf_read(c, &k) : config_hf(c, &k))
        return -1;
    return c->arch->hf_config ? c->arch->hf_config(c, &k) : 0;
}

/* llama2.c's header, as weights/llama2c.c lends it. */
static int read_llama2c(struct config *c, const struct weights *w, char *err, size_t errlen)
{
    struct keys k = {w, "llama2c", err, errlen};
    set_arch(c, arch_find("llama", 5));
    if (keys_int(&k, "dim", 1, MAX_WIDTH, KEYS_REQUIRED, &c->dim) ||
        keys_int(&k, "hidden_dim", 1, MAX_WIDTH, KEYS_REQUIRED, &c->ffn_dim) ||
        keys_int(&k, "n_layers", 1, MAX_LAYERS, KEYS_REQUIRED, &c->n_layers) ||
        keys_int(&k, "n_heads", 1, MAX_HEADS, KEYS_REQUIRED, &c->n_heads) ||
        keys_int(&k, "n_kv_heads", 1, c->n_heads, KEYS_REQUIRED, &c->n_kv_heads) ||
        keys_int(&k, "vocab_size", 1, MAX_VOCAB, KEYS_REQUIRED, &c->vocab_size) ||
        keys_int(&k, "seq_len", 1, MAX_CONTEXT, KEYS_REQUIRED, &c->max_seq_len))
        return -1;
    c->head_dim = c->rotary_dim = c->dim % c->n_heads ? 0 : c->dim / c->n_heads;
    c->norm_eps = 1e-5f; /* run.c's */
    c->rope.theta = 10000;
    c->tied_embeddings = !weights_find(w, "output.weight");
    return 0;
}

/* params.json of Meta's LLaMA checkpoints, which leaves sizes to be read off the tensors. Heads pair
 * neighbours there, as they do here. */
static int read_meta(struct config *c, const struct weights *w, char *err, size_t errlen)
{
    struct keys k = {w, "params", err, errlen};
    const struct tensor *embd = weights_find(w, "tok_embeddings.weight"),
                        *gate = weights_find(w, "layers.0.feed_forward.w1.weight");
    double eps;
    bool scaled;
    set_arch(c, arch_find("llama", 5));
    if (!embd || !gate || embd->dims[1] > MAX_VOCAB || gate->dims[1] > MAX_WIDTH)
        return err_set(err, errlen, "%s: no tensor '%s'", weights_path(w),
                       embd ? "layers.0.feed_forward.w1.weight" : "tok_embeddings.weight");
    if (keys_int(&k, "dim", 1, MAX_WIDTH, KEYS_REQUIRED, &c->dim) ||
        keys_int(&k, "n_layers", 1, MAX_LAYERS, KEYS_REQUIRED, &c->n_layers) ||
        keys_int(&k, "n_heads", 1, MAX_HEADS, KEYS_REQUIRED, &c->n_heads) ||
        keys_int(&k, "n_kv_heads", 1, c->n_heads, c->n_heads, &c->n_kv_heads) ||
        keys_int(&k, "max_seq_len", 1, MAX_CONTEXT, 4096, &c->max_seq_len) ||
        keys_float(&k, "norm_eps", 1e-30, 0.1, 1e-5, &eps) ||
        keys_float(&k, "rope_theta", 1, 1e15, 10000, &c->rope.theta) ||
        keys_bool(&k, "use_scaled_rope", false, &scaled))
        return -1;
    if (scaled) { /* Llama 3.1's, whose parameters the published code has as constants */
        c->rope.scaling = ROPE_SCALING_LLAMA3;
        c->rope.factor = 8;
        c->rope.low_freq = 1;
        c->rope.high_freq = 4;
        c->rope.original_len = 8192;
    }
    c->norm_eps = (float)eps;
    c->vocab_size = (int)embd->dims[1];
    c->ffn_dim = (int)gate->dims[1];
    c->head_dim = c->rotary_dim = c->dim % c->n_heads ? 0 : c->dim / c->n_heads;
    c->tied_embeddings = !weights_find(w, "output.weight");
    return 0;
}

/* ---- What all must obey ------------------------------------------------------------------------- */

static int check_rope(const struct config *c, const char *path, char *err, size_t errlen)
{
    const struct rope_config *r = &c->rope;
    int sections = arch_sections(c->arch);
    if (c->rotary_dim < 2 || c->rotary_dim > c->head_dim || c->rotary_dim % (2 * sections))
        return err_set(err, errlen, "%s: heads of %d cannot have %d rotated elements (rope.dimension_count)",
                       path, c->head_dim, c->rotary_dim);
    if (!(r->theta >= 1 && r->theta <= 1e15))
        return err_set(err, errlen, "%s: RoPE base %g is outside 1 … 1e15", path, r->theta);
    if (r->scaling != ROPE_SCALING_NONE && !(r->factor > 0 && r->factor <= 1e6))
        return err_set(err, errlen, "%s: RoPE scaling factor %g is outside 0 … 1e6", path, r->factor);
    if (r->scaling >= ROPE_SCALING_DYNAMIC && r->original_len < 1)
        return err_set(err, errlen, "%s: RoPE scaling '%s' needs the original context length", path,
                       rope_scaling_name(r->scaling));
    if (r->scaling == ROPE_SCALING_LLAMA3 && !(r->low_freq > 0 && r->high_freq > r->low_freq))
        return err_set(err, errlen, "%s: RoPE scaling 'llama3': factors %g and %g are not in order", path,
                       r->low_freq, r->high_freq);
    if (r->scaling == ROPE_SCALING_YARN && !(r->beta_slow > 0 && r->beta_fast >= r->beta_slow))
        return err_set(err, errlen, "%s: RoPE scaling 'yarn': betas %g and %g are not in order", path,
                       r->beta_fast, r->beta_slow);
    return 0;
}

static int check(struct config *c, const char *path, char *err, size_t errlen)
{
    if (c->n_heads % c->n_kv_heads)
        return err_set(err, errlen, "%s: %d key-value heads (head_count_kv) do not divide %d heads", path,
                       c->n_kv_heads, c->n_heads);
    if (c->head_dim < 2 || c->head_dim % 2 || c->head_dim > MAX_WIDTH / c->n_heads)
        return err_set(err, errlen,
                       "%s: %d heads of %d (keys head_count, key_length or head_dim): a head's size must be "
                       "even and all heads together at most %d",
                       path, c->n_heads, c->head_dim, MAX_WIDTH);
    if (c->n_experts && (c->n_experts_used < 1 || c->n_experts_used > c->n_experts))
        return err_set(err, errlen, "%s: %d experts used of %d", path, c->n_experts_used, c->n_experts);
    /* A window that is never full is none. */
    if (c->sliding_window >= c->max_seq_len)
        c->sliding_window = 0;
    bool any = false;
    for (int l = 0; l < c->n_layers; l++)
        any |= c->windowed[l] &= c->sliding_window > 0;
    if (!any)
        c->sliding_window = 0;
    return check_rope(c, path, err, errlen);
}

int config_read(struct config *c, const struct weights *w, char *err, size_t errlen)
{
    memset(c, 0, sizeof *c);
    c->rope.factor = c->rope.attention_factor = 1;
    c->embedding_scale = c->residual_scale = 1;
    c->bos_id = c->gmask_id = c->mask_id = -1;
    c->normalise_experts = true;
    int rc;
    if (weights_meta_find(w, "general.architecture"))
        rc = read_gguf(c, w, err, errlen);
    else if (weights_meta_find(w, "config.model_type"))
        rc = read_hf(c, w, err, errlen);
    else if (weights_meta_find(w, "llama2c.dim"))
        rc = read_llama2c(c, w, err, errlen);
    else if (weights_meta_find(w, "params.dim"))
        rc = read_meta(c, w, err, errlen);
    else
        return err_set(
            err, errlen,
            "%s: no key 'general.architecture', and no config.json with a 'model_type': not a model",
            weights_path(w));
    if (rc)
        return -1;
    if (c->attention_scale == 0)
        c->attention_scale = (float)(1 / sqrt(c->head_dim > 0 ? c->head_dim : 1));
    return check(c, weights_path(w), err, errlen);
}
