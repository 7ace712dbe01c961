/* Attention over the paged KV cache: how the work is cut, and in what order blocks are merged.
 *
 * For one KV head, the queries that read it are rows: row i of a batch is token i / group, head i % group
 * of the KV head's group. A chunk of rows goes through a sequence's blocks of 64 positions together, so
 * that keys and values are read once per chunk. A block gives each row a maximum, a sum and an output of
 * its own; blocks are merged in order (numerics contract, rule 4; the online softmax of Milakov &
 * Gimelshein 2018, blocked as in Dao et al. 2022). That makes the result independent of the cut:
 *
 *     whole    an item of work is (chunk, KV head): one thread walks all blocks and merges as it goes;
 *     split    few items (one token's, say): an item is (chunk, KV head, block), its result is put down
 *              in scratch, and after a barrier the rows are merged, each by one thread. It goes in waves
 *              of some blocks, so that scratch stays bounded; two buffers spare a second barrier. */
#include "kernels/kv.h"
#include "kernels/linear.h"

#include <string.h>

enum {
    CHUNK_MAX = 96, /* rows of a chunk: keys and values cost less per row, queries and outputs stay in L2 */
    CHUNK_MIN = 24,
    CHUNK_FLOATS = 6144,  /* rows · head_dim of a chunk, where that gives between the two */
    ITEMS_PER_THREAD = 4, /* fewer than that: split */
    TAKES_PER_THREAD = 8, /* of a wave's items: neighbours are worth taking together */
    WAVE_BLOCKS = 64,     /* of one token; several tokens have waves of as many partial results */
    LINE = 16,            /* floats of a cache line: threads do not share one */
};

/* ---- Scratch ----------------------------------------------------------------------------------- */

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int chunk_rows(int head_dim)
{
    int rows = CHUNK_FLOATS / head_dim / CHUNK_MIN * CHUNK_MIN;
    return rows < CHUNK_MIN ? CHUNK_MIN : rows > CHUNK_MAX ? CHUNK_MAX : rows;
}

/* One thread's part: queries (a quantised block of 32 is smaller than its floats), probabilities, output
 * and what the kernels need. */
struct work {
    float *q, *s, *o, *tmp;
};

static int64_t work_len(int head_dim)
{
    int64_t rows = chunk_rows(head_dim), stride = round_up(head_dim, TILE_ROWS);
    return rows * (stride + KV_PAGE + stride) + round_up(attention_tmp_len(head_dim), LINE);
}

static struct work work_at(float *scratch, int head_dim)
{
    int64_t rows = chunk_rows(head_dim), stride = round_up(head_dim, TILE_ROWS);
    struct work w;
    w.q = scratch;
    w.s = w.q + rows * stride;
    w.o = w.s + rows * KV_PAGE;
    w.tmp = w.o + rows * stride;
    return w;
}

/* Blocks of a wave, before the sequence's length bounds it. */
static int wave_blocks(int n_tokens)
{
    return n_tokens < WAVE_BLOCKS ? WAVE_BLOCKS / n_tokens : 1;
}

size_t cpu_attention_scratch_bytes(int n_tokens, int n_heads, int head_dim, int64_t max_len, int n_threads)
{
    /* (token, head, block) results of one wave, at most, for any batch of up to n_tokens: a wave has several
     * blocks only if that makes no more than WAVE_BLOCKS results per head; and a batch that is split has
     * fewer than ITEMS_PER_THREAD · n_threads chunks, of CHUNK_MIN rows. */
    int64_t n_blocks = (max_len + KV_PAGE - 1) / KV_PAGE;
    int64_t wave = n_blocks < WAVE_BLOCKS ? n_blocks * n_tokens : WAVE_BLOCKS;
    wave = n_heads * (wave < WAVE_BLOCKS ? wave : WAVE_BLOCKS);
    int64_t rows = (int64_t)n_tokens * n_heads, rows_max = (int64_t)CHUNK_MIN * ITEMS_PER_THREAD * n_threads;
    rows = rows < rows_max ? rows : rows_max;
    int64_t partials = rows > wave ? rows : wave;
    /* two buffers of (o, m, l), and the running (m, l) of every row */
    int64_t split = n_threads > 1 ? partials * (2 * (round_up(head_dim, TILE_ROWS) + 2) + 2) : 0;
    return sizeof(float) * (size_t)(n_threads * work_len(head_dim) + split);
}

/* ---- The cut ----------------------------------------------------------------------------------- */

struct plan {
    const struct attention_args *a;
    const struct cpu_kernels *k;
    int group, n_rows; /* per KV head */
    int chunk, n_chunks;
    bool split;
};

static struct plan make_plan(const struct attention_args *a, const struct cpu_kernels *k, int n_threads)
{
    const int n_kv_heads = a->kv->n_kv_heads, n_items = ITEMS_PER_THREAD * n_threads;
    struct plan p = {.a = a, .k = k, .group = a->n_heads / n_kv_heads};
    p.n_rows = a->n_tokens * p.group;
    p.chunk = chunk_rows(a->kv->head_dim);
    if (n_threads > 1) { /* smaller chunks, down to a limit, so that every thread finds work */
        int64_t share = (int64_t)p.n_rows * n_kv_heads / n_items / (CHUNK_MIN / 2) * (CHUNK_MIN / 2);
        p.chunk = share < p.chunk ? (int)share : p.chunk;
        p.chunk = p.chunk < CHUNK_MIN ? CHUNK_MIN : p.chunk;
    }
    p.n_chunks = (p.n_rows + p.chunk - 1) / p.chunk;
    p.split = n_threads > 1 && (int64_t)p.n_chunks * n_kv_heads < n_items;
    return p;
}

static const struct kv_slot *slot_of(const struct plan *p, int row)
{
    return &p->a->slot[row / p->group];
}

/* Where a row's query and output are. */
static int64_t row_offset(const struct plan *p, int kv_head, int row)
{
    int64_t token = row / p->group, head = kv_head * p->group + row % p->group;
    return (token * p->a->n_heads + head) * p->a->kv->head_dim;
}

/* Rows of a chunk that read the same sequence. */
struct run {
    int row, n;
    const int32_t *pages;
    int64_t block_begin, block_end; /* what any of them sees */
};

static struct run run_at(const struct plan *p, int row, int end)
{
    struct run u = {.row = row, .pages = slot_of(p, row)->pages, .block_begin = INT64_MAX};
    for (; row < end && slot_of(p, row)->pages == u.pages; row++) {
        const struct kv_slot *s = slot_of(p, row);
        if (s->begin >= s->end)
            continue;
        int64_t begin = s->begin / KV_PAGE, last = (s->end - 1) / KV_PAGE;
        u.block_begin = begin < u.block_begin ? begin : u.block_begin;
        u.block_end = last + 1 > u.block_end ? last + 1 : u.block_end;
    }
    u.n = row - u.row;
    return u;
}

static bool sees(const struct kv_slot *s, int64_t block)
{
    return s->begin < s->end && block >= s->begin / KV_PAGE && block <= (s->end - 1) / KV_PAGE;
}

/* ---- One block --------------------------------------------------------------------------------- */

static void load_queries(const struct plan *p, const struct run *u, int kv_head, const struct work *w)
{
    const int head_dim = p->a->kv->head_dim;
    const struct linear_kernels *linear = linear_kernels(p->k->isa);
    bool quantise = qtypes[p->a->kv->type_k].block_len > 1;
    for (int r = 0; r < u->n; r++) {
        const float *q = p->a->q + row_offset(p, kv_head, u->row + r);
        if (quantise)
            linear->act_quantise((struct act_block *)(void *)w->q + r * (head_dim / ACT_LEN), 1, q, head_dim);
        else
            memcpy(w->q + r * head_dim, q, (size_t)head_dim * sizeof *q);
    }
}

static const void *keys_of(const struct plan *p, const struct run *u, int kv_head, int64_t block)
{
    const struct kv_layout *kv = p->a->kv;
    return (const uint8_t *)p->a->k_pages + u->pages[block] * kv->k_page_bytes + kv_head * kv->k_head_bytes;
}

/* Where the results of a chunk's rows go. */
struct result {
    float *o, *m, *l;
    float *old, *new; /* NULL: the block's results are put there; else they are merged into those of the
                         blocks before it */
};

/* One block's (o, m, l) of the run's rows that see any of it. */
static void attend_block(const struct plan *p, const struct run *u, int kv_head, int64_t block,
                         const void *next_k, const struct work *w, const struct result *to)
{
    const struct kv_layout *kv = p->a->kv;
    uint8_t begin[CHUNK_MAX], end[CHUNK_MAX];
    bool merge[CHUNK_MAX], whole = true;
    for (int r = 0; r < u->n; r++) {
        const struct kv_slot *s = slot_of(p, u->row + r);
        int64_t b = s->begin - block * KV_PAGE, e = s->end - block * KV_PAGE;
        bool any = sees(s, block);
        begin[r] = (uint8_t)(!any ? KV_PAGE : b < 0 ? 0 : b);
        end[r] = (uint8_t)(!any ? 0 : e > KV_PAGE ? KV_PAGE : e);
        merge[r] = block != s->begin / KV_PAGE;
        whole = whole && begin[r] == 0 && end[r] == KV_PAGE;
    }
    const struct attention_block b = {
        .n_rows = u->n,
        .head_dim = kv->head_dim,
        .q = w->q,
        .q8 = (const struct act_block *)(const void *)w->q,
        .k = keys_of(p, u, kv_head, block),
        .v = (const uint8_t *)p->a->v_pages + u->pages[block] * kv->v_page_bytes + kv_head * kv->v_head_bytes,
        .k_bytes = kv->k_head_bytes,
        .v_bytes = kv->v_head_bytes,
        .next_k = next_k,
        .begin = begin,
        .end = end,
        .whole = whole,
        .merge = to->old ? merge : NULL,
        .scale = p->a->scale,
        .softcap = p->a->softcap,
        .s = w->s,
        .m = to->m,
        .l = to->l,
        .old = to->old,
        .new = to->new,
        .o = to->o,
        .o_stride = (int)round_up(kv->head_dim, TILE_ROWS),
        .tmp = w->tmp,
    };
    p->k->attention_scores[kv->type_k](&b);
    p->k->attention_softmax(&b);
    p->k->attention_values[kv->type_v](&b);
}

/* A row that sees nothing is zero. */
static void finish_row(const struct plan *p, int kv_head, int row, const float *o, float l)
{
    const int head_dim = p->a->kv->head_dim;
    const struct kv_slot *s = slot_of(p, row);
    float *out = p->a->out + row_offset(p, kv_head, row);
    if (s->begin < s->end)
        p->k->attention_finish(out, o, l, head_dim);
    else
        memset(out, 0, (size_t)head_dim * sizeof *out);
}

/* ---- Whole ------------------------------------------------------------------------------------- */

static void attend_chunk(const struct plan *p, int chunk, int kv_head, const struct work *w)
{
    const int64_t stride = round_up(p->a->kv->head_dim, TILE_ROWS);
    float m[CHUNK_MAX], l[CHUNK_MAX], old[CHUNK_MAX], new[CHUNK_MAX];
    const struct result to = {w->o, m, l, old, new};
    int end = (chunk + 1) * p->chunk < p->n_rows ? (chunk + 1) * p->chunk : p->n_rows;
    struct run u;
    for (int row = chunk * p->chunk; row < end; row += u.n) {
        u = run_at(p, row, end);
        load_queries(p, &u, kv_head, w);
        for (int64_t block = u.block_begin; block < u.block_end; block++) {
            const void *next_k = block + 1 < u.block_end ? keys_of(p, &u, kv_head, block + 1) : NULL;
            attend_block(p, &u, kv_head, block, next_k, w, &to);
        }
        for (int r = 0; r < u.n; r++)
            finish_row(p, kv_head, row + r, w->o + r * stride, l[r]);
    }
}

/* Later chunks of a prompt see more, so they come first. */
static void attend_whole(struct worker *worker, const struct plan *p, const struct work *w)
{
    const int n_kv_heads = p->a->kv->n_kv_heads;
    int64_t begin, end;
    while (team_next(worker, (int64_t)p->n_chunks * n_kv_heads, 1, &begin, &end))
        for (int64_t i = begin; i < end; i++)
            attend_chunk(p, p->n_chunks - 1 - (int)(i / n_kv_heads), (int)(i % n_kv_heads), w);
}

/* ---- Split ------------------------------------------------------------------------------------- */

/* Results of a wave: (block, KV head, row), so that a chunk's are together. */
struct partials {
    float *o, *m, *l;
};

/* Items go through a block's KV heads, which lie one after the other, and through the chunks of each. */
static void attend_item(const struct plan *p, int64_t item, bool more, int64_t block0, const struct work *w,
                        const struct partials *out)
{
    const int64_t stride = round_up(p->a->kv->head_dim, TILE_ROWS), n_kv_heads = p->a->kv->n_kv_heads;
    int64_t head = item / p->n_chunks, next_head = (item + 1) / p->n_chunks; /* of all blocks */
    int64_t block = block0 + head / n_kv_heads, next_block = block0 + next_head / n_kv_heads;
    int kv_head = (int)(head % n_kv_heads), chunk = (int)(item % p->n_chunks);
    int end = (chunk + 1) * p->chunk < p->n_rows ? (chunk + 1) * p->chunk : p->n_rows;
    struct run u;
    for (int row = chunk * p->chunk; row < end; row += u.n) {
        u = run_at(p, row, end);
        if (block < u.block_begin || block >= u.block_end)
            continue;
        int64_t i = head * p->n_rows + row;
        const void *next_k = more && next_block < u.block_end
                                 ? keys_of(p, &u, (int)(next_head % n_kv_heads), next_block)
                                 : NULL;
        load_queries(p, &u, kv_head, w);
        const struct result to = {out->o + i * stride, out->m + i, out->l + i, NULL, NULL};
        attend_block(p, &u, kv_head, block, next_k, w, &to);
    }
}

/* Row i takes in what it sees of blocks block0 … block1 − 1. Its running output is kept where it will be
 * finished, in a->out. */
static void merge_wave(const struct plan *p, int64_t i, int64_t block0, int64_t block1,
                       const struct partials *from, float *m, float *l)
{
    const int64_t stride = round_up(p->a->kv->head_dim, TILE_ROWS);
    const int64_t n = (int64_t)p->a->kv->n_kv_heads * p->n_rows;
    int kv_head = (int)(i / p->n_rows), row = (int)(i % p->n_rows);
    const struct kv_slot *s = slot_of(p, row);
    if (s->begin >= s->end)
        return;
    int64_t first = s->begin / KV_PAGE, last = (s->end - 1) / KV_PAGE;
    int64_t begin = block0 > first ? block0 : first, end = block1 <= last ? block1 : last + 1;
    if (begin >= end)
        return;
    i += (begin - block0) * n;
    const struct attention_merge a = {
        .o = p->a->out + row_offset(p, kv_head, row),
        .m = m,
        .l = l,
        .fresh = begin == first,
        .n = (int)(end - begin),
        .head_dim = p->a->kv->head_dim,
        .o_b = from->o + i * stride,
        .m_b = from->m + i,
        .l_b = from->l + i,
        .o_stride = n * stride,
        .stride = n,
    };
    p->k->attention_merge(&a);
}

static void attend_split(struct worker *worker, const struct plan *p, const struct work *w, float *scratch)
{
    const int64_t n_kv_heads = p->a->kv->n_kv_heads, n = n_kv_heads * p->n_rows;
    int64_t block_begin = INT64_MAX, block_end = 0;
    struct run u;
    for (int row = 0; row < p->n_rows; row += u.n) {
        u = run_at(p, row, p->n_rows);
        block_begin = u.block_begin < block_begin ? u.block_begin : block_begin;
        block_end = u.block_end > block_end ? u.block_end : block_end;
    }
    int64_t wave = block_begin < block_end ? block_end - block_begin : 1;
    wave = wave < wave_blocks(p->a->n_tokens) ? wave : wave_blocks(p->a->n_tokens);

    struct partials buffer[2];
    float *m = scratch, *l = m + n;
    float *next = l + n;
    for (int i = 0; i < 2; i++) {
        buffer[i].o = next;
        buffer[i].m = buffer[i].o + wave * n * round_up(p->a->kv->head_dim, TILE_ROWS);
        buffer[i].l = buffer[i].m + wave * n;
        next = buffer[i].l + wave * n;
    }
    int64_t mine = team_part(worker, worker->id, n), mine_end = team_part(worker, worker->id + 1, n);
    int current = 0;
    for (int64_t block0 = block_begin; block0 < block_end; block0 += wave, current ^= 1) {
        int64_t block1 = block_end - block0 < wave ? block_end : block0 + wave, begin, end;
        int64_t n_items = (block1 - block0) * n_kv_heads * p->n_chunks;
        int64_t grain = n_items / (TAKES_PER_THREAD * worker->n_threads);
        while (team_next_near(worker, n_items, grain < 1 ? 1 : grain, &begin, &end))
            for (int64_t i = begin; i < end; i++)
                attend_item(p, i, i + 1 < end, block0, w, &buffer[current]);
        team_barrier(worker);
        for (int64_t i = mine; i < mine_end; i++)
            merge_wave(p, i, block0, block1, &buffer[current], &m[i], &l[i]);
    }
    for (int64_t i = mine; i < mine_end; i++) {
        int kv_head = (int)(i / p->n_rows), row = (int)(i % p->n_rows);
        finish_row(p, kv_head, row, p->a->out + row_offset(p, kv_head, row), l[i]);
    }
}

void cpu_attention(struct worker *worker, const struct attention_args *a, const struct cpu_kernels *k)
{
    const int64_t len = work_len(a->kv->head_dim);
    struct plan p = make_plan(a, k, worker->n_threads);
    struct work w = work_at((float *)a->scratch + worker->id * len, a->kv->head_dim);
    if (p.split)
        attend_split(worker, &p, &w, (float *)a->scratch + worker->n_threads * len);
    else
        attend_whole(worker, &p, &w);
    team_barrier(worker);
}
