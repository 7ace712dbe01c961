/* How files name the tensors of a model: tables from names to roles. A naming that shares most names with
 * another one is what differs, and its base. */
#ifndef QUOLL_NAMING_H
#define QUOLL_NAMING_H

#include "model/arch.h"

/* What a tensor is to the forward pass. bind.c knows each one's shape and place. */
enum role {
    ROLE_NONE,
    ROLE_IGNORED, /* known, and computed here instead */
    ROLE_TOKEN_EMBD,
    ROLE_OUTPUT_NORM,
    ROLE_OUTPUT_NORM_BIAS,
    ROLE_OUTPUT,
    ROLE_ROPE_FREQS,
    ROLE_ROPE_LONG,
    ROLE_ROPE_SHORT,
    ROLE_PREFIX,
    ROLE_ATTN_NORM,
    ROLE_ATTN_NORM_BIAS,
    ROLE_ATTN_Q,
    ROLE_ATTN_K,
    ROLE_ATTN_V,
    ROLE_ATTN_OUTPUT,
    ROLE_ATTN_Q_BIAS,
    ROLE_ATTN_K_BIAS,
    ROLE_ATTN_V_BIAS,
    ROLE_ATTN_OUTPUT_BIAS,
    ROLE_ATTN_Q_NORM,
    ROLE_ATTN_K_NORM,
    ROLE_POST_ATTN_NORM,
    ROLE_FFN_NORM,
    ROLE_FFN_NORM_BIAS,
    ROLE_FFN_GATE,
    ROLE_FFN_UP,
    ROLE_FFN_DOWN,
    ROLE_FFN_GATE_BIAS,
    ROLE_FFN_UP_BIAS,
    ROLE_FFN_DOWN_BIAS,
    ROLE_POST_FFN_NORM,
    ROLE_ROUTER,
    ROLE_GATE_EXPS,
    ROLE_UP_EXPS,
    ROLE_DOWN_EXPS,
    N_ROLES
};

enum { NAME_ROLES = 3, NAME_MAX_BYTES = 128 };

/* How a tensor holds several roles: one after the other, or (ChatGLM-6B) head by head. */
enum fusing { FUSED_STACKED, FUSED_BY_HEAD };

struct name {
    const char *pattern;        /* '#' stands for a layer's number, '@' for an expert's */
    enum role role[NAME_ROLES]; /* ROLE_NONE behind the last */
    enum fusing fusing;
};

struct naming {
    const struct name *names;  /* up to a NULL pattern */
    const struct naming *base; /* NULL: none */
};

extern const struct naming gguf_names, gguf_names_fused, gguf_names_fused_ffn;
extern const struct naming meta_names; /* Meta's own LLaMA checkpoints */
extern const struct naming hf_names, hf_names_post_norm, hf_names_glm4, hf_names_chatglm1, hf_names_chatglm2;

/* The naming of an opened file. */
const struct naming *naming_of(const struct config *c, const struct weights *w);

/* The entry for a tensor's name of `len` bytes; *layer and *expert are −1 where the name has none. NULL: no
 * such name. Numbers have no leading zeros. */
const struct name *naming_find(const struct naming *n, const char *name, size_t len, int *layer, int *expert);

/* The name of a pattern: '#' and '@' become numbers. */
void naming_expand(char name[NAME_MAX_BYTES], const char *pattern, int layer, int expert);
/* A role's own name (alone in its tensor), into name; false: the naming has none. */
bool naming_write(char name[NAME_MAX_BYTES], const struct naming *n, enum role role, int layer, int expert);

#endif
