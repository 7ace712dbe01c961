#include "model/naming.h"

#include <stdio.h>
#include <string.h>

/* ---- GGUF --------------------------------------------------------------------------------------- */

static const struct name gguf[] = {
    {"token_embd.weight", {ROLE_TOKEN_EMBD}, 0},
    {"output_norm.weight", {ROLE_OUTPUT_NORM}, 0},
    {"output_norm.bias", {ROLE_OUTPUT_NORM_BIAS}, 0},
    {"output.weight", {ROLE_OUTPUT}, 0},
    {"rope_freqs.weight", {ROLE_ROPE_FREQS}, 0},
    {"rope_factors_long.weight", {ROLE_ROPE_LONG}, 0},
    {"rope_factors_short.weight", {ROLE_ROPE_SHORT}, 0},
    {"prefix.weight", {ROLE_PREFIX}, 0},
    {"blk.#.attn_norm.weight", {ROLE_ATTN_NORM}, 0},
    {"blk.#.attn_norm.bias", {ROLE_ATTN_NORM_BIAS}, 0},
    {"blk.#.attn_q.weight", {ROLE_ATTN_Q}, 0},
    {"blk.#.attn_k.weight", {ROLE_ATTN_K}, 0},
    {"blk.#.attn_v.weight", {ROLE_ATTN_V}, 0},
    {"blk.#.attn_output.weight", {ROLE_ATTN_OUTPUT}, 0},
    {"blk.#.attn_q.bias", {ROLE_ATTN_Q_BIAS}, 0},
    {"blk.#.attn_k.bias", {ROLE_ATTN_K_BIAS}, 0},
    {"blk.#.attn_v.bias", {ROLE_ATTN_V_BIAS}, 0},
    {"blk.#.attn_output.bias", {ROLE_ATTN_OUTPUT_BIAS}, 0},
    {"blk.#.attn_q_norm.weight", {ROLE_ATTN_Q_NORM}, 0},
    {"blk.#.attn_k_norm.weight", {ROLE_ATTN_K_NORM}, 0},
    {"blk.#.post_attention_norm.weight", {ROLE_POST_ATTN_NORM}, 0},
    {"blk.#.ffn_norm.weight", {ROLE_FFN_NORM}, 0},
    {"blk.#.ffn_norm.bias", {ROLE_FFN_NORM_BIAS}, 0},
    {"blk.#.ffn_gate.weight", {ROLE_FFN_GATE}, 0},
    {"blk.#.ffn_up.weight", {ROLE_FFN_UP}, 0},
    {"blk.#.ffn_down.weight", {ROLE_FFN_DOWN}, 0},
    {"blk.#.ffn_gate.bias", {ROLE_FFN_GATE_BIAS}, 0},
    {"blk.#.ffn_up.bias", {ROLE_FFN_UP_BIAS}, 0},
    {"blk.#.ffn_down.bias", {ROLE_FFN_DOWN_BIAS}, 0},
    {"blk.#.post_ffw_norm.weight", {ROLE_POST_FFN_NORM}, 0},
    {"blk.#.ffn_gate_inp.weight", {ROLE_ROUTER}, 0},
    {"blk.#.ffn_gate_exps.weight", {ROLE_GATE_EXPS}, 0},
    {"blk.#.ffn_up_exps.weight", {ROLE_UP_EXPS}, 0},
    {"blk.#.ffn_down_exps.weight", {ROLE_DOWN_EXPS}, 0},
    /* Mixtral files from before the experts were stacked */
    {"blk.#.ffn_gate.@.weight", {ROLE_GATE_EXPS}, 0},
    {"blk.#.ffn_up.@.weight", {ROLE_UP_EXPS}, 0},
    {"blk.#.ffn_down.@.weight", {ROLE_DOWN_EXPS}, 0},
    {0},
};

static const struct name gguf_fused_ffn[] = {
    {"blk.#.ffn_up.weight", {ROLE_FFN_GATE, ROLE_FFN_UP}, 0},
    {0},
};

static const struct name gguf_fused_qkv[] = {
    {"blk.#.attn_qkv.weight", {ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V}, 0},
    {"blk.#.attn_qkv.bias", {ROLE_ATTN_Q_BIAS, ROLE_ATTN_K_BIAS, ROLE_ATTN_V_BIAS}, 0},
    {0},
};

const struct naming gguf_names = {gguf, NULL};
const struct naming gguf_names_fused_ffn = {gguf_fused_ffn, &gguf_names};
const struct naming gguf_names_fused = {gguf_fused_qkv, &gguf_names_fused_ffn};

/* ---- Hugging Face ------------------------------------------------------------------------------- */

#define LAYER "model.layers.#."

static const struct name hf[] = {
    {"model.embed_tokens.weight", {ROLE_TOKEN_EMBD}, 0},
    {"model.norm.weight", {ROLE_OUTPUT_NORM}, 0},
    {"lm_head.weight", {ROLE_OUTPUT}, 0},
    {LAYER "input_layernorm.weight", {ROLE_ATTN_NORM}, 0},
    {LAYER "self_attn.q_proj.weight", {ROLE_ATTN_Q}, 0},
    {LAYER "self_attn.k_proj.weight", {ROLE_ATTN_K}, 0},
    {LAYER "self_attn.v_proj.weight", {ROLE_ATTN_V}, 0},
    {LAYER "self_attn.o_proj.weight", {ROLE_ATTN_OUTPUT}, 0},
    {LAYER "self_attn.qkv_proj.weight", {ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V}, 0},
    {LAYER "self_attn.q_proj.bias", {ROLE_ATTN_Q_BIAS}, 0},
    {LAYER "self_attn.k_proj.bias", {ROLE_ATTN_K_BIAS}, 0},
    {LAYER "self_attn.v_proj.bias", {ROLE_ATTN_V_BIAS}, 0},
    {LAYER "self_attn.o_proj.bias", {ROLE_ATTN_OUTPUT_BIAS}, 0},
    {LAYER "self_attn.q_norm.weight", {ROLE_ATTN_Q_NORM}, 0},
    {LAYER "self_attn.k_norm.weight", {ROLE_ATTN_K_NORM}, 0},
    {LAYER "self_attn.rotary_emb.inv_freq", {ROLE_IGNORED}, 0},
    {LAYER "post_attention_layernorm.weight", {ROLE_FFN_NORM}, 0},
    {LAYER "mlp.gate_proj.weight", {ROLE_FFN_GATE}, 0},
    {LAYER "mlp.up_proj.weight", {ROLE_FFN_UP}, 0},
    {LAYER "mlp.gate_up_proj.weight", {ROLE_FFN_GATE, ROLE_FFN_UP}, 0},
    {LAYER "mlp.down_proj.weight", {ROLE_FFN_DOWN}, 0},
    {LAYER "mlp.gate_proj.bias", {ROLE_FFN_GATE_BIAS}, 0},
    {LAYER "mlp.up_proj.bias", {ROLE_FFN_UP_BIAS}, 0},
    {LAYER "mlp.down_proj.bias", {ROLE_FFN_DOWN_BIAS}, 0},
    /* Mixtral */
    {LAYER "block_sparse_moe.gate.weight", {ROLE_ROUTER}, 0},
    {LAYER "block_sparse_moe.experts.@.w1.weight", {ROLE_GATE_EXPS}, 0},
    {LAYER "block_sparse_moe.experts.@.w3.weight", {ROLE_UP_EXPS}, 0},
    {LAYER "block_sparse_moe.experts.@.w2.weight", {ROLE_DOWN_EXPS}, 0},
    /* Qwen3-MoE */
    {LAYER "mlp.gate.weight", {ROLE_ROUTER}, 0},
    {LAYER "mlp.experts.@.gate_proj.weight", {ROLE_GATE_EXPS}, 0},
    {LAYER "mlp.experts.@.up_proj.weight", {ROLE_UP_EXPS}, 0},
    {LAYER "mlp.experts.@.down_proj.weight", {ROLE_DOWN_EXPS}, 0},
    {0},
};

/* Gemma 2 and 3: the norm after attention is one of what attention adds. */
static const struct name hf_post_norm[] = {
    {LAYER "post_attention_layernorm.weight", {ROLE_POST_ATTN_NORM}, 0},
    {LAYER "pre_feedforward_layernorm.weight", {ROLE_FFN_NORM}, 0},
    {LAYER "post_feedforward_layernorm.weight", {ROLE_POST_FFN_NORM}, 0},
    {0},
};

static const struct name hf_glm4[] = {
    {LAYER "post_self_attn_layernorm.weight", {ROLE_POST_ATTN_NORM}, 0},
    {LAYER "post_mlp_layernorm.weight", {ROLE_POST_FFN_NORM}, 0},
    {0},
};

const struct naming hf_names = {hf, NULL};
const struct naming hf_names_post_norm = {hf_post_norm, &hf_names};
const struct naming hf_names_glm4 = {hf_glm4, &hf_names};

/* ---- THUDM -------------------------------------------------------------------------------------- */

#undef LAYER
#define LAYER "transformer.layers.#."

static const struct name hf_chatglm1[] = {
    {"transformer.word_embeddings.weight", {ROLE_TOKEN_EMBD}, 0},
    {"transformer.final_layernorm.weight", {ROLE_OUTPUT_NORM}, 0},
    {"transformer.final_layernorm.bias", {ROLE_OUTPUT_NORM_BIAS}, 0},
    {"lm_head.weight", {ROLE_OUTPUT}, 0},
    {"transformer.prefix_encoder.embedding.weight", {ROLE_PREFIX}, 0},
    {LAYER "input_layernorm.weight", {ROLE_ATTN_NORM}, 0},
    {LAYER "input_layernorm.bias", {ROLE_ATTN_NORM_BIAS}, 0},
    {LAYER "attention.query_key_value.weight", {ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V}, FUSED_BY_HEAD},
    {LAYER "attention.query_key_value.bias",
     {ROLE_ATTN_Q_BIAS, ROLE_ATTN_K_BIAS, ROLE_ATTN_V_BIAS},
     FUSED_BY_HEAD},
    {LAYER "attention.dense.weight", {ROLE_ATTN_OUTPUT}, 0},
    {LAYER "attention.dense.bias", {ROLE_ATTN_OUTPUT_BIAS}, 0},
    {LAYER "attention.rotary_emb.inv_freq", {ROLE_IGNORED}, 0},
    {LAYER "post_attention_layernorm.weight", {ROLE_FFN_NORM}, 0},
    {LAYER "post_attention_layernorm.bias", {ROLE_FFN_NORM_BIAS}, 0},
    {LAYER "mlp.dense_h_to_4h.weight", {ROLE_FFN_UP}, 0},
    {LAYER "mlp.dense_h_to_4h.bias", {ROLE_FFN_UP_BIAS}, 0},
    {LAYER "mlp.dense_4h_to_h.weight", {ROLE_FFN_DOWN}, 0},
    {LAYER "mlp.dense_4h_to_h.bias", {ROLE_FFN_DOWN_BIAS}, 0},
    {0},
};

#undef LAYER
#define LAYER "transformer.encoder.layers.#."

static const struct name hf_chatglm2[] = {
    {"transformer.embedding.word_embeddings.weight", {ROLE_TOKEN_EMBD}, 0},
    {"transformer.encoder.final_layernorm.weight", {ROLE_OUTPUT_NORM}, 0},
    {"transformer.output_layer.weight", {ROLE_OUTPUT}, 0},
    {"transformer.rotary_pos_emb.inv_freq", {ROLE_IGNORED}, 0},
    {"transformer.prefix_encoder.embedding.weight", {ROLE_PREFIX}, 0},
    {LAYER "input_layernorm.weight", {ROLE_ATTN_NORM}, 0},
    {LAYER "self_attention.query_key_value.weight", {ROLE_ATTN_Q, ROLE_ATTN_K, ROLE_ATTN_V}, 0},
    {LAYER "self_attention.query_key_value.bias", {ROLE_ATTN_Q_BIAS, ROLE_ATTN_K_BIAS, ROLE_ATTN_V_BIAS}, 0},
    {LAYER "self_attention.dense.weight", {ROLE_ATTN_OUTPUT}, 0},
    {LAYER "post_attention_layernorm.weight", {ROLE_FFN_NORM}, 0},
    {LAYER "mlp.dense_h_to_4h.weight", {ROLE_FFN_GATE, ROLE_FFN_UP}, 0},
    {LAYER "mlp.dense_4h_to_h.weight", {ROLE_FFN_DOWN}, 0},
    {0},
};

const struct naming hf_names_chatglm1 = {hf_chatglm1, NULL};
const struct naming hf_names_chatglm2 = {hf_chatglm2, NULL};

/* ---- Meta --------------------------------------------------------------------------------------- */

#undef LAYER
#define LAYER "layers.#."

static const struct name meta[] = {
    {"tok_embeddings.weight", {ROLE_TOKEN_EMBD}, 0},
    {"norm.weight", {ROLE_OUTPUT_NORM}, 0},
    {"output.weight", {ROLE_OUTPUT}, 0},
    {"rope.freqs", {ROLE_IGNORED}, 0},
    {LAYER "attention_norm.weight", {ROLE_ATTN_NORM}, 0},
    {LAYER "attention.wq.weight", {ROLE_ATTN_Q}, 0},
    {LAYER "attention.wk.weight", {ROLE_ATTN_K}, 0},
    {LAYER "attention.wv.weight", {ROLE_ATTN_V}, 0},
    {LAYER "attention.wo.weight", {ROLE_ATTN_OUTPUT}, 0},
    {LAYER "attention.inner_attention.rope.freqs", {ROLE_IGNORED}, 0},
    {LAYER "ffn_norm.weight", {ROLE_FFN_NORM}, 0},
    {LAYER "feed_forward.w1.weight", {ROLE_FFN_GATE}, 0},
    {LAYER "feed_forward.w2.weight", {ROLE_FFN_DOWN}, 0},
    {LAYER "feed_forward.w3.weight", {ROLE_FFN_UP}, 0},
    {0},
};

const struct naming meta_names = {meta, NULL};

/* ---- Looking up --------------------------------------------------------------------------------- */

const struct naming *naming_of(const struct config *c, const struct weights *w)
{
    if (weights_meta_find(w, "params.dim") && !weights_meta_find(w, "config.model_type"))
        return &meta_names;
    /* llama2.c's reader gives its tensors GGUF's names. */
    return weights_meta_find(w, "config.model_type") ? c->arch->hf_names : c->arch->gguf_names;
}

/* A decimal number without leading zeros, at most MAX_LAYERS · MAX_EXPERTS; the place behind it, NULL: none.
 */
static const char *read_number(const char *s, const char *end, int *out)
{
    int v = 0;
    const char *p = s;
    for (; p < end && *p >= '0' && *p <= '9' && v < MAX_LAYERS * MAX_EXPERTS; p++)
        v = 10 * v + (*p - '0');
    if (p == s || (*s == '0' && p > s + 1))
        return NULL;
    *out = v;
    return p;
}

static bool matches(const char *pattern, const char *s, size_t len, int *layer, int *expert)
{
    const char *end = s + len;
    *layer = *expert = -1;
    for (; *pattern; pattern++) {
        if (*pattern == '#' || *pattern == '@') {
            s = read_number(s, end, *pattern == '#' ? layer : expert);
            if (!s)
                return false;
        } else if (s == end || *s++ != *pattern) {
            return false;
        }
    }
    return s == end;
}

const struct name *naming_find(const struct naming *n, const char *name, size_t len, int *layer, int *expert)
{
    for (; n; n = n->base)
        for (const struct name *p = n->names; p->pattern; p++)
            if (matches(p->pattern, name, len, layer, expert))
                return p;
    return NULL;
}

void naming_expand(char name[NAME_MAX_BYTES], const char *pattern, int layer, int expert)
{
    size_t at = 0;
    for (const char *p = pattern; *p && at < NAME_MAX_BYTES - 1; p++)
        if (*p == '#' || *p == '@')
            at += (size_t)snprintf(name + at, NAME_MAX_BYTES - at, "%d", *p == '#' ? layer : expert);
        else
            name[at++] = *p;
    if (at < NAME_MAX_BYTES)
        name[at] = '\0';
}

bool naming_write(char name[NAME_MAX_BYTES], const struct naming *n, enum role role, int layer, int expert)
{
    for (; n; n = n->base)
        for (const struct name *p = n->names; p->pattern; p++) {
            if (p->role[0] != role || p->role[1] || (strchr(p->pattern, '@') && expert < 0))
                continue;
            naming_expand(name, p->pattern, layer, expert);
            return true;
        }
    return false;
}
