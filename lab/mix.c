/* The mixes, as tables: what each changes of its base type, and in which layers. They follow llama-quantize,
 * so that the same name gives the same sizes. */
#include "lab/mix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind {
    OTHER,
    OUTPUT,
    EMBEDDING,
    ATTN_Q,
    ATTN_K,
    ATTN_V,
    ATTN_QKV,
    ATTN_OUT,
    FFN_GATE,
    FFN_UP,
    FFN_DOWN
};

enum where {
    ALWAYS,
    FIRST_2,      /* layers */
    FIRST_4,      /* layers */
    FIRST_16TH,   /* of the layers */
    FIRST_8TH,    /* of the layers */
    MIDDLE,       /* all but the first and the last eighth */
    ENDS_AND_3RD, /* the first and the last eighth, and every third between */
};

/* When a rule counts at all. */
enum when {
    ANY,
    SHARED_KEYS /* four query heads per key head, or more */,
    IMATRIX,
    NO_IMATRIX,
    EIGHT_EXPERTS,
    EXPERTS
};

struct rule {
    enum kind kind; /* OTHER ends a table */
    enum qtype type;
    enum where where;
    enum when when;
};

enum { MAX_RULES = 14 };

struct mix {
    const char *name;
    enum qtype base;
    int file_type;
    struct rule rules[MAX_RULES]; /* the first that fits counts; none: the base */
};

/* The output matrix of all but the float types, and what shares it. */
#define OUT_Q6                          \
    {                                   \
        OUTPUT, QTYPE_Q6_K, ALWAYS, ANY \
    }
#define OUT_Q5                          \
    {                                   \
        OUTPUT, QTYPE_Q5_K, ALWAYS, ANY \
    }
/* Eight experts share one attention: its matrices are a small part of such a model. */
#define MIXTRAL_KV                                \
    {ATTN_V, QTYPE_Q8_0, ALWAYS, EIGHT_EXPERTS},  \
    {                                             \
        ATTN_K, QTYPE_Q8_0, ALWAYS, EIGHT_EXPERTS \
    }
#define MIXTRAL_OUT                                 \
    {                                               \
        ATTN_OUT, QTYPE_Q5_K, ALWAYS, EIGHT_EXPERTS \
    }

/* clang-format off */
static const struct mix mixes[] = {
    {"f32",  QTYPE_F32,  0, {{0}}},
    {"f16",  QTYPE_F16,  1, {{0}}},
    {"bf16", QTYPE_BF16, 32, {{0}}},
    {"q8_0", QTYPE_Q8_0, 7, {{0}}},
    {"q6_k", QTYPE_Q6_K, 18, {OUT_Q6, MIXTRAL_KV}},
    {"q5_1", QTYPE_Q5_1, 9, {OUT_Q6, MIXTRAL_KV}},
    {"q5_0", QTYPE_Q5_0, 8, {OUT_Q6, MIXTRAL_KV, {FFN_DOWN, QTYPE_Q5_1, FIRST_8TH, IMATRIX}}},
    {"q5_k_m", QTYPE_Q5_K, 17, {OUT_Q6, {ATTN_QKV, QTYPE_Q6_K, ALWAYS, ANY}, MIXTRAL_KV,
        {ATTN_V, QTYPE_Q6_K, ENDS_AND_3RD, ANY}, {FFN_DOWN, QTYPE_Q6_K, ENDS_AND_3RD, ANY}}},
    {"q5_k_s", QTYPE_Q5_K, 16, {OUT_Q6, MIXTRAL_KV}},
    {"q4_1", QTYPE_Q4_1, 3, {OUT_Q6, MIXTRAL_KV}},
    {"q4_0", QTYPE_Q4_0, 2, {OUT_Q6, MIXTRAL_KV, {FFN_DOWN, QTYPE_Q4_1, FIRST_8TH, IMATRIX}}},
    {"q4_k_m", QTYPE_Q4_K, 15, {OUT_Q6, {ATTN_QKV, QTYPE_Q5_K, ALWAYS, ANY}, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q6_K, ENDS_AND_3RD, ANY}, {FFN_DOWN, QTYPE_Q6_K, ENDS_AND_3RD, ANY}}},
    {"q4_k_s", QTYPE_Q4_K, 14, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q5_K, FIRST_4, ANY}, {FFN_DOWN, QTYPE_Q5_K, FIRST_8TH, ANY}}},
    {"iq4_nl", QTYPE_IQ4_NL, 25, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q5_K, ALWAYS, SHARED_KEYS}, {FFN_DOWN, QTYPE_Q5_K, FIRST_8TH, NO_IMATRIX}}},
    {"iq4_xs", QTYPE_IQ4_XS, 30, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q5_K, ALWAYS, SHARED_KEYS}, {FFN_DOWN, QTYPE_Q5_K, FIRST_8TH, NO_IMATRIX}}},
    {"mxfp4", QTYPE_MXFP4, 38, {{OUTPUT, QTYPE_Q8_0, ALWAYS, ANY}, {EMBEDDING, QTYPE_Q8_0, ALWAYS, ANY}}},
    {"mxfp4_moe", QTYPE_Q8_0, 38, {{FFN_GATE, QTYPE_MXFP4, ALWAYS, EXPERTS},
        {FFN_UP, QTYPE_MXFP4, ALWAYS, EXPERTS}, {FFN_DOWN, QTYPE_MXFP4, ALWAYS, EXPERTS}}},
    {"nvfp4", QTYPE_NVFP4, 39, {{OUTPUT, QTYPE_Q8_0, ALWAYS, ANY}, {EMBEDDING, QTYPE_Q8_0, ALWAYS, ANY}}},
    {"q3_k_l", QTYPE_Q3_K, 13, {OUT_Q6, {ATTN_QKV, QTYPE_Q4_K, ALWAYS, ANY}, MIXTRAL_KV,
        {ATTN_V, QTYPE_Q5_K, ALWAYS, ANY}, {FFN_DOWN, QTYPE_Q5_K, ALWAYS, ANY}, {ATTN_OUT, QTYPE_Q5_K, ALWAYS, ANY}}},
    {"q3_k_m", QTYPE_Q3_K, 12, {OUT_Q6, {ATTN_QKV, QTYPE_Q4_K, ALWAYS, ANY}, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q5_K, FIRST_2, ANY}, {ATTN_V, QTYPE_Q4_K, ALWAYS, ANY},
        {FFN_DOWN, QTYPE_Q5_K, FIRST_16TH, ANY}, {FFN_DOWN, QTYPE_Q4_K, ALWAYS, ANY}, {ATTN_OUT, QTYPE_Q4_K, ALWAYS, ANY}}},
    {"q3_k_s", QTYPE_Q3_K, 11, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT}},
    {"iq3_m", QTYPE_IQ3_S, 27, {OUT_Q6, {ATTN_QKV, QTYPE_Q4_K, ALWAYS, ANY}, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q4_K, ALWAYS, ANY}, {FFN_DOWN, QTYPE_Q4_K, FIRST_8TH, ANY},
        {FFN_DOWN, QTYPE_Q4_K, ENDS_AND_3RD, EIGHT_EXPERTS}, {ATTN_OUT, QTYPE_Q4_K, ALWAYS, ANY}}},
    {"iq3_s", QTYPE_IQ3_S, 26, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT, {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}}},
    {"iq3_xs", QTYPE_IQ3_S, 22, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT, {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS},
        {ATTN_K, QTYPE_IQ3_XXS, ALWAYS, ANY}, {ATTN_Q, QTYPE_IQ3_XXS, ALWAYS, ANY},
        {FFN_GATE, QTYPE_IQ3_XXS, MIDDLE, ANY}, {FFN_UP, QTYPE_IQ3_XXS, MIDDLE, ANY}}},
    {"iq3_xxs", QTYPE_IQ3_XXS, 23, {OUT_Q5, {EMBEDDING, QTYPE_IQ3_S, ALWAYS, ANY}, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_IQ3_S, ALWAYS, NO_IMATRIX},
        {ATTN_K, QTYPE_IQ2_S, ALWAYS, ANY}, {ATTN_Q, QTYPE_IQ2_S, ALWAYS, ANY},
        {FFN_DOWN, QTYPE_Q4_K, FIRST_8TH, NO_IMATRIX}, {FFN_DOWN, QTYPE_Q3_K, ALWAYS, NO_IMATRIX},
        {ATTN_OUT, QTYPE_IQ3_S, ALWAYS, ANY}}},
    {"q2_k", QTYPE_Q2_K, 10, {OUT_Q6, MIXTRAL_KV, MIXTRAL_OUT,
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q3_K, ALWAYS, ANY},
        {FFN_DOWN, QTYPE_Q3_K, ALWAYS, ANY}, {ATTN_OUT, QTYPE_Q3_K, ALWAYS, ANY}}},
    {"q2_k_s", QTYPE_Q2_K, 21, {OUT_Q6, MIXTRAL_KV,
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {FFN_DOWN, QTYPE_Q4_K, FIRST_8TH, ANY}}},
    {"iq2_m", QTYPE_IQ2_S, 29, {OUT_Q5, {EMBEDDING, QTYPE_IQ3_S, ALWAYS, ANY},
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {ATTN_V, QTYPE_IQ3_S, ALWAYS, ANY}, {ATTN_K, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {FFN_DOWN, QTYPE_IQ3_S, FIRST_8TH, ANY}, MIXTRAL_OUT, {ATTN_OUT, QTYPE_IQ3_S, ALWAYS, ANY}}},
    {"iq2_s", QTYPE_IQ2_XS, 28, {OUT_Q5, {EMBEDDING, QTYPE_IQ3_S, ALWAYS, ANY},
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {ATTN_V, QTYPE_IQ3_S, ALWAYS, ANY}, {ATTN_K, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {FFN_DOWN, QTYPE_IQ3_S, FIRST_8TH, ANY}, MIXTRAL_OUT, {ATTN_OUT, QTYPE_IQ3_S, ALWAYS, ANY}}},
    {"iq2_xs", QTYPE_IQ2_XS, 20, {OUT_Q5, {EMBEDDING, QTYPE_Q2_K, ALWAYS, ANY},
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {ATTN_V, QTYPE_Q2_K, ALWAYS, ANY}, {ATTN_K, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {FFN_DOWN, QTYPE_Q2_K, FIRST_8TH, ANY}, MIXTRAL_OUT}},
    {"iq2_xxs", QTYPE_IQ2_XXS, 19, {OUT_Q5, {EMBEDDING, QTYPE_Q2_K, ALWAYS, ANY},
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {ATTN_V, QTYPE_Q2_K, ALWAYS, ANY}, {ATTN_K, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {FFN_DOWN, QTYPE_Q2_K, FIRST_8TH, ANY}, MIXTRAL_OUT}},
    {"tq2_0", QTYPE_TQ2_0, 37, {OUT_Q6, {EMBEDDING, QTYPE_Q4_K, ALWAYS, ANY}, MIXTRAL_KV}},
    {"iq1_m", QTYPE_IQ1_M, 31, {OUT_Q5, {EMBEDDING, QTYPE_Q2_K, ALWAYS, ANY},
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {ATTN_V, QTYPE_Q2_K, ALWAYS, ANY}, {ATTN_K, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {FFN_DOWN, QTYPE_Q2_K, FIRST_8TH, ANY}, MIXTRAL_OUT, {ATTN_OUT, QTYPE_IQ2_XXS, ALWAYS, ANY}}},
    {"tq1_0", QTYPE_TQ1_0, 36, {OUT_Q6, {EMBEDDING, QTYPE_Q4_K, ALWAYS, ANY}, MIXTRAL_KV}},
    {"iq1_s", QTYPE_IQ1_S, 24, {OUT_Q5, {EMBEDDING, QTYPE_Q2_K, ALWAYS, ANY},
        {ATTN_V, QTYPE_Q4_K, ALWAYS, SHARED_KEYS}, {ATTN_V, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {ATTN_V, QTYPE_Q2_K, ALWAYS, ANY}, {ATTN_K, QTYPE_Q4_K, ALWAYS, EIGHT_EXPERTS},
        {FFN_DOWN, QTYPE_Q2_K, FIRST_8TH, ANY}, MIXTRAL_OUT, {ATTN_OUT, QTYPE_IQ2_XXS, ALWAYS, ANY}}},
};
/* clang-format on */

enum { N_MIXES = sizeof mixes / sizeof mixes[0] };

const struct mix *mix_by_name(const char *name)
{
    static const char *const same[][2] = {
        {"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}, {"fp16", "f16"}, {"fp32", "f32"}};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (strcasecmp(name, same[i][0]) == 0)
            name = same[i][1];
    for (size_t i = 0; i < N_MIXES; i++)
        if (strcasecmp(mixes[i].name, name) == 0)
            return &mixes[i];
    return NULL;
}

size_t mix_n(void)
{
    return N_MIXES;
}

const struct mix *mix_at(size_t i)
{
    return &mixes[i];
}

const char *mix_name(const struct mix *m)
{
    return m->name;
}

enum qtype mix_base(const struct mix *m)
{
    return m->base;
}

int mix_file_type(const struct mix *m)
{
    return m->file_type;
}

/* Experts' tensors have the names of the plain ones with "_exps" or "_shexp" behind. */
static enum kind kind_of(const char *name, bool tied)
{
    static const struct {
        const char *part;
        enum kind kind;
    } parts[] = {
        {"attn_qkv", ATTN_QKV},    {"attn_q", ATTN_Q},     {"attn_k", ATTN_K}, {"attn_v", ATTN_V},
        {"attn_output", ATTN_OUT}, {"ffn_gate", FFN_GATE}, {"ffn_up", FFN_UP}, {"ffn_down", FFN_DOWN},
    };
    if (strcmp(name, "output.weight") == 0)
        return OUTPUT;
    if (strcmp(name, "token_embd.weight") == 0)
        return tied ? OUTPUT : EMBEDDING;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(name, parts[i].part))
            return parts[i].kind;
    return OTHER;
}

static bool layer_is(enum where where, int layer, int n)
{
    switch (where) {
    case FIRST_2:
        return layer < 2;
    case FIRST_4:
        return layer < 4;
    case FIRST_16TH:
        return layer < n / 16;
    case FIRST_8TH:
        return layer < n / 8;
    case MIDDLE:
        return layer >= n / 8 && layer < 7 * n / 8;
    case ENDS_AND_3RD:
        return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    default:
        return true;
    }
}

static bool counts(enum when when, const struct mix_model *m)
{
    switch (when) {
    case SHARED_KEYS:
        return m->n_heads >= 4 * m->n_kv_heads;
    case IMATRIX:
        return m->imatrix;
    case NO_IMATRIX:
        return !m->imatrix;
    case EIGHT_EXPERTS:
        return m->n_experts == 8;
    case EXPERTS:
        return m->n_experts > 0;
    default:
        return true;
    }
}

enum qtype mix_type(const struct mix *m, const char *name, const struct mix_model *model)
{
    enum kind kind = kind_of(name, model->tied);
    int layer = strncmp(name, "blk.", 4) == 0 ? atoi(name + 4) : 0;
    for (int i = 0; i < MAX_RULES && m->rules[i].kind != OTHER; i++) {
        const struct rule *r = &m->rules[i];
        if (r->kind == kind && layer_is(r->where, layer, model->n_layers) && counts(r->when, model))
            return r->type;
    }
    return m->base;
}

double mix_bits(const struct mix *m)
{
    enum { DIM = 4096, KV = 1024, FFN = 14336, LAYERS = 32, VOCAB = 128256 };
    static const struct {
        const char *name;
        double elements;
    } layer[] = {
        {"attn_q", DIM * DIM},           {"attn_k", DIM * KV},    {"attn_v", DIM * KV},
        {"attn_output", DIM * DIM},      {"ffn_gate", DIM * FFN}, {"ffn_up", DIM * FFN},
        {"ffn_down", (double)DIM * FFN},
    };
    const struct mix_model model = {.n_layers = LAYERS, .n_heads = 32, .n_kv_heads = 8};
    double bytes = 0, elements = 0;
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "blk.%d.%s.weight", l, layer[i].name);
            const struct qtype_info *t = &qtypes[mix_type(m, name, &model)];
            bytes += layer[i].elements / t->block_len * t->block_bytes;
            elements += layer[i].elements;
        }
    for (int i = 0; i < 2; i++) {
        const struct qtype_info *t = &qtypes[mix_type(m, i ? "output.weight" : "token_embd.weight", &model)];
        bytes += (double)DIM * VOCAB / t->block_len * t->block_bytes;
        elements += (double)DIM * VOCAB;
    }
    return 8 * bytes / elements;
}
