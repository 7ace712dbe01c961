#include "model/image.h"

#include "model/pack_cache.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    PACK_BYTES = 1 << 20, /* source bytes per piece of work: what is in memory twice, per thread */
    ALIGN = 64,
};

static uint64_t aligned(uint64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* ---- Packing ------------------------------------------------------------------------------------ */

/* Some tiles of one matrix. */
struct piece {
    struct packed *dst;
    const struct source *src;
    int64_t row0, n_rows;
    atomic_int *left; /* of the matrix: pieces that are not packed yet */
};

struct packing {
    const struct ops *ops;
    const struct weights *w;
    const struct piece *piece;
    int64_t n;
    char *buffer; /* per thread: rows that must be made, and one row of floats */
    size_t buffer_bytes, rows_bytes;
};

static int64_t piece_rows(const struct source *s)
{
    int64_t tile_bytes = TILE_ROWS * qtype_bytes(s->type, s->cols);
    int64_t tiles = PACK_BYTES / tile_bytes;
    return (tiles > 0 ? tiles : 1) * TILE_ROWS;
}

static int64_t n_pieces(const struct source *s)
{
    int64_t rows = piece_rows(s);
    return (s->rows + rows - 1) / rows;
}

/* Tensors of a quantised checkpoint are read all over for every row: their pages go when the last is made. */
static void drop_sources(const struct weights *w, const struct source *s)
{
    const struct tensor *all[] = {s->tensor, s->scales, s->zeros};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i])
            weights_drop(w, all[i], 0, all[i]->bytes);
}

/* Every thread takes pieces, in the file's order. The file is asked for what comes next and its pages
 * leave memory behind the packing, so that the weights are hardly ever there twice. */
static void pack_pieces(struct worker *worker, void *arg)
{
    const struct packing *k = arg;
    int64_t ahead = worker->n_threads, begin, end;
    char *made = k->buffer + (size_t)worker->id * k->buffer_bytes;
    while (team_next(worker, k->n, 1, &begin, &end))
        for (int64_t i = begin; i < end; i++) {
            const struct piece *p = &k->piece[i];
            uint64_t from, bytes;
            if (i + ahead < k->n) {
                const struct piece *next = &k->piece[i + ahead];
                source_range(next->src, next->row0, next->n_rows, &from, &bytes);
                weights_prefetch(k->w, next->src->tensor, from, bytes);
            }
            const void *rows = source_direct(p->src, p->row0, p->n_rows);
            if (!rows) {
                source_rows(p->src, p->row0, p->n_rows, made, (float *)(void *)(made + k->rows_bytes));
                rows = made;
            }
            k->ops->pack(p->dst, p->row0, p->n_rows, rows);
            source_range(p->src, p->row0, p->n_rows, &from, &bytes);
            weights_drop(k->w, p->src->tensor, from, bytes);
            if (atomic_fetch_sub(p->left, 1) == 1 && p->src->kind != SOURCE_PLAIN)
                drop_sources(k->w, p->src);
        }
}

/* Nothing in the parallel part can fail. */
static int pack_slots(const struct slot *s, size_t n, const struct weights *w,
                      const struct model_options *opt)
{
    int64_t pieces = 0;
    struct packing k = {.ops = opt->ops, .w = w};
    size_t widest = 0;
    for (size_t i = 0; i < n; i++) {
        const struct source *src = &s[i].binding->source;
        pieces += n_pieces(src);
        if (source_direct(src, 0, 1) && source_direct(src, 0, src->rows))
            continue;
        size_t rows_bytes = (size_t)(piece_rows(src) * qtype_bytes(src->type, src->cols));
        k.rows_bytes = rows_bytes > k.rows_bytes ? rows_bytes : k.rows_bytes;
        widest = (size_t)src->cols > widest ? (size_t)src->cols : widest;
    }
    k.rows_bytes = aligned(k.rows_bytes);
    k.buffer_bytes = k.rows_bytes + aligned(widest * sizeof(float));
    struct piece *piece = calloc((size_t)pieces + 1, sizeof *piece);
    atomic_int *left = calloc(n + 1, sizeof *left);
    struct team *team = team_new(opt->n_threads);
    k.buffer = aligned_alloc(ALIGN, (size_t)opt->n_threads * k.buffer_bytes + ALIGN);
    k.piece = piece;
    int rc = piece && left && team && k.buffer ? 0 : -1;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct source *src = &s[i].binding->source;
        left[i] = (int)n_pieces(src);
        for (int64_t row = 0, step = piece_rows(src); row < src->rows; row += step) {
            int64_t rest = src->rows - row;
            piece[k.n++] = (struct piece){s[i].packed, src, row, rest < step ? rest : step, &left[i]};
        }
    }
    if (rc == 0)
        team_run(team, pack_pieces, &k);
    if (team)
        team_free(team);
    free(k.buffer);
    free(left);
    free(piece);
    return rc;
}

/* ---- The image ---------------------------------------------------------------------------------- */

/* Under --no-repack: the matrix is a view of the file, if its rows are there as they are. */
static bool make_view(const struct ops *ops, struct packed *p, const struct source *s)
{
    const void *rows = source_direct(s, 0, s->rows);
    if (rows)
        ops->packed_view(p, s->type, s->rows, s->cols, rows);
    return rows != NULL;
}

/* Slots for the matrices that are to be packed; −1: one cannot be. */
static int make_slots(struct slot *s, size_t *n_slots, struct model *m, const struct binding *b, size_t n,
                      const struct model_options *opt)
{
    *n_slots = 0;
    for (size_t i = 0; i < n; i++) {
        if (!role_is_matrix(b[i].role))
            continue;
        const struct source *src = &b[i].source;
        struct packed *p = &((struct matrix *)binding_place(m, &b[i]))->packed;
        if (opt->no_repack && make_view(m->ops, p, src))
            continue;
        if (m->ops->packed_lend(p, src->type, src->rows, src->cols))
            return -1;
        s[(*n_slots)++] = (struct slot){.binding = &b[i], .packed = p};
    }
    return 0;
}

int image_load(struct model *m, const struct weights *w, const struct binding *b, size_t n,
               const struct model_options *opt)
{
    struct slot *s = calloc(n + 1, sizeof *s);
    size_t n_slots;
    if (!s || make_slots(s, &n_slots, m, b, n, opt)) {
        free(s);
        return -1;
    }
    m->image_bytes = pack_cache_head_bytes(opt, n_slots);
    for (size_t i = 0; i < n_slots; i++) {
        s[i].offset = m->image_bytes;
        m->image_bytes += aligned(packed_bytes(s[i].packed));
    }
    struct pack_cache cache;
    pack_cache_open(&cache, w, s, n_slots, m->image_bytes, opt);
    m->image = pack_cache_map(&cache);
    m->image_is_mapped = m->image != NULL;
    if (!m->image)
        m->image = m->ops->alloc(m->image_bytes);
    for (size_t i = 0; i < n_slots && m->image; i++)
        s[i].packed->data = (char *)m->image + s[i].offset;
    int rc = m->image ? 0 : -1;
    if (rc == 0 && !m->image_is_mapped) {
        rc = pack_slots(s, n_slots, w, opt);
        if (rc == 0)
            pack_cache_write(&cache, m->image);
    }
    pack_cache_close(&cache);
    free(s);
    return rc;
}

void image_release(struct model *m)
{
    if (m->image && m->image_is_mapped)
        (void)munmap(m->image, m->image_bytes);
    else if (m->image)
        m->ops->release(m->image, m->image_bytes);
}
