/* kernels/: the operators of a forward pass on rows of float, and the CPU's implementation of them.
 * They know buffers, shapes and formats; never files or architectures.
 *
 * Every operator is called by all threads of a team with the same arguments, takes its share of the
 * work and ends in a barrier: when it returns, its result is visible to every thread. Results follow
 * the numerics contract (docs/numerics.md): the same bits for every thread count, split of a batch and
 * CPU level. */
#ifndef QUOLL_KERNELS_H
#define QUOLL_KERNELS_H

#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- CPU levels ------------------------------------------------------------------------------ */

enum isa {
    ISA_SCALAR,
    ISA_AVX2,    /* with FMA and F16C */
    ISA_AVXVNNI, /* AVX2 and the 256-bit dot products of AVX-VNNI */
    ISA_AVX512,  /* F, BW, DQ, VL */
    ISA_VNNI,    /* AVX512 and AVX512-VNNI */
    ISA_AMX,     /* VNNI and AMX-INT8 */
    ISA_COUNT
};

bool isa_supported(enum isa isa); /* by this CPU and operating system (CPUID and XCR0) */
enum isa isa_best(void);          /* the highest that is */
const char *isa_name(enum isa isa);
int isa_by_name(const char *name); /* −1: none; "auto" is isa_best() */

/* ---- Threads --------------------------------------------------------------------------------- */

struct team;

/* One thread's handle inside a parallel region. */
struct worker {
    struct team *team;
    int id; /* 0 … n_threads − 1 */
    int n_threads;
    int phase;                     /* the barrier's, private to it */
    const char *ahead, *ahead_end; /* memory that this thread reads soon: asked for while it waits */
};

struct team *team_new(int n_threads); /* NULL: out of memory */
void team_free(struct team *t);
int team_n_threads(const struct team *t);
/* One OpenMP parallel region: fn runs once on every thread (MXCSR set to 0x1f80), then all join. */
void team_run(struct team *t, void (*fn)(struct worker *w, void *arg), void *arg);
/* As team_run, on the first n threads of the team only. */
void team_run_n(struct team *t, int n, void (*fn)(struct worker *w, void *arg), void *arg);
/* All threads wait for each other, awake for some milliseconds. Resets the counters of team_next and
 * team_next_near. */
void team_barrier(struct worker *w);
/* Takes the next `grain` of n items from a counter that all threads share; false when none is left. */
bool team_next(struct worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end);
/* The same from a part of the items that is the thread's own, from team_part on, and then from what the
 * others have left of theirs: what lies side by side in memory is read by one thread. */
bool team_next_near(struct worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end);
/* Where thread id's part of n items begins; it ends where the next one's does. */
static inline int64_t team_part(const struct worker *w, int id, int64_t n)
{
    return n * id / w->n_threads;
}

/* ---- Packed weights -------------------------------------------------------------------------- */

enum { TILE_ROWS = 16 };

/* A matrix (rows, cols) of a type, rewritten in tiles of 16 rows (kernels/pack.h draws the layouts).
 * Its bytes are those of the rows in the file, rows rounded up to 16. */
struct packed {
    enum qtype type;
    int64_t rows, cols; /* cols: the inputs' width, a multiple of the type's block length */
    int64_t tile_bytes;
    int64_t n_tiles;
    void *data;
    bool is_lent; /* data belongs to somebody else */
    bool is_view; /* not packed: view is the rows as the file has them, dense, lent (slow) */
    const void *view;
};

static inline size_t packed_bytes(const struct packed *p)
{
    return (size_t)(p->n_tiles * p->tile_bytes);
}

/* ---- KV cache layout ------------------------------------------------------------------------- */

enum { KV_PAGE = 64 }; /* positions per page: the attention's block */

/* A page holds 64 consecutive positions of one sequence in one layer: for every KV head, the keys as
 * four packed tiles (rows are positions) and the values as 64 rows (kernels/kv.h draws both). */
struct kv_layout {
    enum qtype type_k, type_v; /* F32, F16, Q8_0, Q4_0 */
    int n_kv_heads, head_dim;
    int64_t k_head_bytes, v_head_bytes; /* one head's part of a page */
    int64_t k_page_bytes, v_page_bytes;
};

bool kv_type_supported(enum qtype t);
/* head_dim a multiple of the types' block length; −1 when it is not or a type cannot be cached. */
int kv_layout_init(struct kv_layout *l, enum qtype type_k, enum qtype type_v, int n_kv_heads, int head_dim);

/* Where one token's keys and values go, and what its query sees. */
struct kv_slot {
    const int32_t *pages; /* the sequence's page table: page number of positions 64 i … 64 i + 63 */
    int64_t pos;          /* the token's own position */
    int64_t begin, end;   /* its query sees positions begin ≤ p < end: only their pages are read */
};

/* ---- Operators ------------------------------------------------------------------------------- */

enum compute { COMPUTE_FAST, COMPUTE_F32 };
enum rope_pairing { ROPE_NONE, ROPE_ADJACENT, ROPE_HALF }; /* (2i, 2i+1); (i, i + rotary_dim/2) */
enum act {
    ACT_SILU,      /* x / (1 + e^−x) */
    ACT_GELU_TANH, /* 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) */
    ACT_GELU_ERF,  /* 0.5 x (1 + erf(x / √2)) */
    ACT_RELU,
    N_ACTS
};
enum norm_kind { NORM_RMS, NORM_LAYER, N_NORMS };

struct linear_part {
    const struct packed *w;
    const float *bias; /* (rows), NULL: none */
    float *out;        /* row t at out + t * w->rows */
    bool add;          /* out += W x (+ bias), the residual connection; else out = W x (+ bias) */
};

struct norm_args;
struct gate_args;

struct packed_list {
    int n;
    const struct packed *w[3];
};

struct linear_args {
    const float *x; /* (n_tokens, cols), rows dense */
    /* Not NULL: x is what that operator makes, which comes first. The meaning and the bits are those of two
     * operators, but a pass over x and a barrier are saved. */
    const struct norm_args *norm; /* dst is x; src is not, and no part's out */
    const struct gate_args *gate; /* dst is x */
    int n_tokens;
    int n_parts; /* 1 … 3 weights of the same cols share the input (QKV; gate and up) */
    struct linear_part part[3];
    enum compute compute;
    void *scratch;                  /* ops->scratch_bytes(n_tokens, cols) bytes */
    const struct packed_list *next; /* a hint: what the next product multiplies with. NULL: unknown */
};

/* NORM_RMS (Zhang & Sennrich 2019): dst = src / sqrt(mean(src²) + eps) · weight
 * NORM_LAYER (Ba et al. 2016): dst = (src − mean) / sqrt(variance + eps) · weight + bias */
struct norm_args {
    float *dst; /* (n_rows, dim); may be src */
    const float *src;
    const float *weight; /* (dim), NULL: 1 */
    const float *bias;   /* (dim), NORM_LAYER only, NULL: none */
    int n_rows, dim;
    float eps;
    enum norm_kind kind;
};

/* dst = act(gate) · up, element by element */
struct gate_args {
    float *dst; /* (n); may be gate */
    const float *gate;
    const float *up; /* NULL: act(gate) alone */
    int64_t n;       /* tokens · ffn_dim */
    enum act act;
};

/* dst[t][i] = (cos, sin)(pos[t] · inv_freq[i]) · scale, in double, rounded once. */
struct rope_table_args {
    float *dst;              /* (n_tokens, n_freqs, 2) */
    const int64_t *pos;      /* (n_sections, n_tokens), host memory */
    int n_sections;          /* 1; ChatGLM-6B 2: frequency i uses row i · n_sections / n_freqs of pos */
    const double *inv_freq;  /* (rows, n_freqs), host memory */
    const int32_t *freq_row; /* (n_tokens), host memory: the row of inv_freq that a token uses, where the base
                                depends on the length; NULL: row 0 */
    int n_tokens, n_freqs;
    double scale; /* YaRN's attention factor; 1 */
};

struct rope_store_args { /* rotates q and k in place; stores k and v into the cache */
    float *q;            /* (n_tokens, n_heads · head_dim) */
    float *k;            /* (n_tokens, n_kv_heads · head_dim) */
    const float *v;
    int n_tokens, n_heads;
    int rotary_dim; /* the first rotary_dim of each head are rotated */
    int n_sections; /* in so many sub-vectors of equal length, each paired within itself: 1; ChatGLM-6B 2 */
    enum rope_pairing pairing;
    const float *table; /* of rope_table, n_freqs = rotary_dim / 2; ROPE_NONE: NULL */
    const struct kv_slot *slot;
    const struct kv_layout *kv;
    void *k_pages, *v_pages; /* the layer's */
};

struct attention_args {
    float *out;            /* (n_tokens, n_heads · head_dim) */
    const float *q;        /* as out, rotated */
    int n_tokens, n_heads; /* n_heads a multiple of kv->n_kv_heads: head h reads KV head h / group */
    float scale;           /* of the scores, 1/sqrt(head_dim) as a rule */
    float softcap;         /* score = softcap · tanh(score · scale / softcap) (Gemma 2); 0: none */
    const struct kv_slot *slot;
    const struct kv_layout *kv;
    const void *k_pages, *v_pages;
    void *scratch; /* ops->attention_scratch_bytes(…) */
    size_t scratch_bytes;
};

/* Mixture of experts (Shazeer et al. 2017): each token's n_used experts of largest logit, and its (token,
 * slot) pairs grouped by expert, so that an expert's rows can be gathered and computed together. */
struct route_args {
    const float *logits; /* (n_tokens, n_experts) */
    int n_tokens, n_experts;
    int n_used;     /* 1 … n_experts */
    bool normalise; /* the chosen weights are divided by their sum */
    float *weight;  /* (n_tokens, n_used): softmax over all experts; slots in falling order of logit, of equal
                       ones the lower expert first, NaN last */
    int32_t *first; /* (n_experts + 1): rows first[e] … first[e + 1] − 1 belong to expert e */
    int32_t *token; /* (n_tokens · n_used): token of each row, in order of expert, then token */
    int32_t *row;   /* (n_tokens, n_used): the row of each slot */
    int32_t *scratch; /* n_tokens · n_used */
};

/* mixture[t] = Σ over slots, in order, of weight[t][slot] · src[row[t][slot]] */
struct combine_args {
    float *dst;          /* (n_tokens, dim); not src */
    const float *src;    /* (n_tokens · n_used, dim): the experts' results, in rows as routed */
    const float *weight; /* of route */
    const int32_t *row;  /* of route */
    int n_tokens, n_used, dim;
    bool add; /* dst += mixture, else dst = mixture */
};

/* What operators of one slice of a batch will be given, all of it the host's memory. */
struct slice_args {
    const void *owner; /* whose buffers the operators work on: slices of one owner and as many tokens … */
    bool repeats;      /* … are the same calls every time, but for what is in the memory named here */
    int n, n_want;
    const int32_t *id;             /* (n), NULL: none are embedded */
    const int32_t *want;           /* (n_want): rows gathered at the end */
    const int64_t *pos;            /* (n): RoPE's positions, NULL: not one for each token */
    const struct kv_slot *slot[2]; /* (n) each; NULL: not used */
    float *logits;                 /* where deliver will put things: logits_bytes from here on */
    size_t logits_bytes;
};

/* A backend. The CPU fills the table (ops_cpu), CUDA fills it a second time (cuda.h). Buffers are the
 * backend's own memory: the host reads and writes them through upload and download only. What describes a
 * batch is the host's own memory: slots and their page tables, ids and indices (embed, gather), positions,
 * frequencies and their rows (rope_table). */
struct ops {
    const char *name;
    const char *device; /* what it runs on, as its maker calls it; NULL: the CPU */
    enum isa isa;
    int packed_layout; /* a version: another one when the bytes that pack makes of a row change */
    bool on_host;      /* its memory is the host's: buffers may be read where they are */

    void *(*alloc)(size_t bytes); /* 64-byte aligned, zero; NULL: out of memory */
    void (*release)(void *p, size_t bytes);
    void (*upload)(void *dst, const void *src, size_t bytes);
    void (*download)(void *dst, const void *src, size_t bytes);
    /* Before the operators of a slice, after them; NULL: nothing to be done. begin: true when the backend has
     * repeated an earlier slice's work on what a says: no operator is to be called. finish waits for the
     * results; −1: something has failed since the backend was opened, its buffers hold nothing of use. */
    bool (*begin)(const struct slice_args *a);
    int (*finish)(char *err, size_t errlen);
    /* As download, but dst has its bytes only when finish returns. NULL: download does it. */
    void (*deliver)(void *dst, const void *src, size_t bytes);
    void (*close)(void); /* gives back all memory and the device; NULL: nothing is held */

    /* Fills p and allocates p->data; −1: out of memory or a type that is no matrix type. */
    int (*packed_alloc)(struct packed *p, enum qtype type, int64_t rows, int64_t cols);
    void (*packed_release)(struct packed *p);
    /* Fills p but for its data: the caller's memory, packed_bytes(p) of it, 64-byte aligned, which
     * packed_release leaves alone. −1: a type that is no matrix type. */
    int (*packed_lend)(struct packed *p, enum qtype type, int64_t rows, int64_t cols);
    /* Fills p with a view of rows in the file's layout instead, which must outlive it (slow, the same bits);
     * NULL where a backend has no such path. */
    void (*packed_view)(struct packed *p, enum qtype type, int64_t rows, int64_t cols, const void *src);
    /* Packs n_rows rows (src: in the file's layout, dense) as rows row0 …; row0 a multiple of 16, and
     * n_rows too unless these are the last ones. Tiles are independent: callers may run it in parallel. */
    void (*pack)(struct packed *p, int64_t row0, int64_t n_rows, const void *src);

    size_t (*scratch_bytes)(int n_tokens, int64_t cols);
    size_t (*attention_scratch_bytes)(int n_tokens, int n_heads, int head_dim, int64_t max_len,
                                      int n_threads);

    /* dst (n, cols): row id[i] of the table, dequantised. */
    void (*embed)(struct worker *w, float *dst, const struct packed *table, const int32_t *id, int n);
    /* dst (n, dim): row index[i] of src. index: the host's memory, or rows that route has written. */
    void (*gather)(struct worker *w, float *dst, const float *src, const int32_t *index, int n, int dim);
    void (*norm)(struct worker *w, const struct norm_args *a);
    void (*linear)(struct worker *w, const struct linear_args *a);
    void (*rope_table)(struct worker *w, const struct rope_table_args *a);
    void (*rope_store)(struct worker *w, const struct rope_store_args *a);
    void (*attention)(struct worker *w, const struct attention_args *a);
    void (*gate)(struct worker *w, const struct gate_args *a);
    /* dst = s · src, n elements; dst may be src. */
    void (*scale)(struct worker *w, float *dst, const float *src, int64_t n, float s);
    /* x = cap · tanh(x / cap), n elements (Gemma 2's final logits). */
    void (*softcap)(struct worker *w, float *x, int64_t n, float cap);
    /* dst += src, n elements. */
    void (*add)(struct worker *w, float *dst, const float *src, int64_t n);
    /* dst[t][i] = src[t][order[i]], both (n, dim), not the same (GPTQ's act-order). order (dim): the
     * backend's memory. */
    void (*permute)(struct worker *w, float *dst, const float *src, int n, int dim, const int32_t *order);
    void (*route)(struct worker *w, const struct route_args *a);
    void (*combine)(struct worker *w, const struct combine_args *a);
};

/* The CPU's operators at a level that is supported and built. */
const struct ops *ops_cpu(enum isa isa);

/* That level's limits: rounds of multiply-adds of bytes, or of floats, on registers alone, to be timed. How
 * many multiply-adds they were. */
int64_t cpu_peak_dots(enum isa isa, int64_t n_rounds);
int64_t cpu_peak_fmas(enum isa isa, int64_t n_rounds);

#endif
