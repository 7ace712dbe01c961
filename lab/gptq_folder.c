/* Writing a GPTQ folder: which tensors there are under Hugging Face's names, what each becomes, and the
 * configuration beside them. The rows come from the bindings, so that any model can be the source. */
#include "lab/gptq_folder.h"

#include "lab/rows.h"
#include "model/arch.h"
#include "model/bind.h"
#include "quant/err.h"
#include "weights/save.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Types -------------------------------------------------------------------------------------- */

static const struct gptq_folder_type types[] = {
    {"int8_g32", 8, 32}, {"int8_g64", 8, 64}, {"int8_g128", 8, 128}, {"int8_row", 8, -1},
    {"int4_g32", 4, 32}, {"int4_g64", 4, 64}, {"int4_g128", 4, 128}, {"int4_row", 4, -1},
    {"int3_g32", 3, 32}, {"int3_g64", 3, 64}, {"int3_g128", 3, 128}, {"int3_row", 3, -1},
    {"int2_g32", 2, 32}, {"int2_g64", 2, 64}, {"int2_g128", 2, 128}, {"int2_row", 2, -1},
};

enum { N_TYPES = sizeof types / sizeof types[0], WORD_BITS = 32 };

size_t gptq_folder_n_types(void)
{
    return N_TYPES;
}

const struct gptq_folder_type *gptq_folder_type(size_t i)
{
    return &types[i];
}

const struct gptq_folder_type *gptq_folder_type_by_name(const char *name)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (strcasecmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

double gptq_folder_bits(const struct gptq_folder_type *t)
{
    return t->bits + (t->group > 0 ? (16.0 + t->bits) / t->group : 0);
}

static enum qtype block_type(int bits)
{
    return bits == 2 ? QTYPE_INT2Z : bits == 3 ? QTYPE_INT3Z : bits == 4 ? QTYPE_INT4Z : QTYPE_INT8Z;
}

/* ---- What is written ---------------------------------------------------------------------------- */

/* A tensor of a Hugging Face checkpoint: one role's, or several one after the other. */
struct linear {
    const struct name *name;
    const struct binding *part[NAME_ROLES];
    int n_parts, layer, expert;
    int64_t rows, cols;
    bool quantised;
};

/* Which of a layer's tensors an entry of the file is. */
enum piece { WHOLE, QWEIGHT, QZEROS, SCALES, G_IDX };

struct entry {
    size_t layer;
    enum piece piece;
};

struct folder {
    struct weights *w;
    const struct gptq_folder_options *opt;
    struct config config;
    struct binding *binding;
    size_t n_bindings;
    struct linear *layer;
    size_t n_layers, layer_cap;
    struct entry *entry;
    struct save_tensor *tensor;
    size_t n_entries;
    struct export *export;       /* with a calibration text, else NULL */
    struct rows_format *format;  /* of the export's tensors */
    struct calibrate *calibrate; /* has made layers 0 … calibrated */
    int calibrated;
    size_t next;        /* the first entry that is neither written nor there from before */
    uint64_t begin;     /* where the last one that may be kept begins */
    uint32_t *words;    /* of the layer being written: qweight, */
    uint32_t *zeros;    /* qzeros, */
    uint16_t *scales;   /* scales */
    double done, total; /* elements */
    const char *path;
    char *err;
    size_t errlen;
};

static int no_memory(const struct folder *f)
{
    return err_set(f->err, f->errlen, "%s: out of memory", f->path);
}

static const struct weights *source_of(const struct folder *f)
{
    return f->opt->source ? f->opt->source : f->w;
}

static const struct binding *find_binding(const struct folder *f, enum role role, int layer, int expert)
{
    for (size_t i = 0; i < f->n_bindings; i++)
        if (f->binding[i].role == role && f->binding[i].layer == layer && f->binding[i].expert == expert)
            return &f->binding[i];
    return NULL;
}

/* The tensor of a name, if the model has all its roles; taken: the bindings that are written. */
static int add_layer(struct folder *f, const struct name *name, int layer, int expert, bool *taken)
{
    struct linear l = {.name = name, .layer = layer, .expert = expert};
    for (; l.n_parts < NAME_ROLES && name->role[l.n_parts]; l.n_parts++) {
        const struct binding *b = find_binding(f, name->role[l.n_parts], layer, expert);
        if (!b || taken[b - f->binding])
            return 0;
        l.part[l.n_parts] = b;
        l.rows += role_is_matrix(b->role) ? b->source.rows : b->source.cols;
        l.cols = role_is_matrix(b->role) ? b->source.cols : 1;
    }
    if (l.n_parts == 0)
        return 0;
    for (int i = 0; i < l.n_parts; i++)
        taken[l.part[i] - f->binding] = true;
    const enum role role = name->role[0];
    l.quantised = role_is_matrix(role) && role_in_layer(role) && role != ROLE_ROUTER;
    if (f->n_layers == f->layer_cap) {
        size_t cap = f->layer_cap ? 2 * f->layer_cap : 256;
        struct linear *grown = realloc(f->layer, cap * sizeof *grown);
        if (!grown)
            return no_memory(f);
        f->layer = grown;
        f->layer_cap = cap;
    }
    f->layer[f->n_layers++] = l;
    return 0;
}

static int add_layers(struct folder *f)
{
    bool *taken = calloc(f->n_bindings + 1, sizeof *taken);
    int rc = taken ? 0 : no_memory(f);
    for (int layer = -1; rc == 0 && layer < f->config.n_layers; layer++)
        for (const struct naming *n = f->config.arch->hf_names; n; n = n->base)
            for (const struct name *p = n->names; p->pattern && rc == 0; p++) {
                bool in_layer = strchr(p->pattern, '#') != NULL, of_expert = strchr(p->pattern, '@') != NULL;
                if (in_layer != (layer >= 0))
                    continue;
                if (!of_expert)
                    rc = add_layer(f, p, layer, -1, taken);
                for (int e = 0; of_expert && e < f->config.n_experts && rc == 0; e++)
                    rc = add_layer(f, p, layer, e, taken);
            }
    for (size_t i = 0; rc == 0 && i < f->n_bindings; i++)
        if (!taken[i])
            rc = err_set(f->err, f->errlen,
                         "%s: tensor '%s' has no place in a Hugging Face checkpoint of architecture '%s'",
                         weights_path(f->w), f->binding[i].source.tensor->name, f->config.arch->name);
    free(taken);
    return rc;
}

static int64_t group_of(const struct folder *f, const struct linear *l)
{
    return f->opt->type->group > 0 ? f->opt->type->group : l->cols;
}

/* Can the format hold a layer? */
static int check_layer(const struct folder *f, const struct linear *l)
{
    const struct gptq_folder_type *t = f->opt->type;
    const char *name = l->part[0]->source.tensor->name;
    if (l->name->fusing == FUSED_BY_HEAD)
        return err_set(f->err, f->errlen, "%s: tensor '%s' is fused head by head, which GPTQ folders are not",
                       weights_path(f->w), name);
    if (l->cols % group_of(f, l) || l->cols % WORD_BITS)
        return err_set(f->err, f->errlen,
                       "%s: tensor '%s' has rows of %" PRId64
                       ", no multiple of %s's group; a smaller one may fit (int%d_g64, int%d_g32)",
                       weights_path(f->w), name, l->cols, t->name, t->bits, t->bits);
    if (l->rows * t->bits % WORD_BITS)
        return err_set(f->err, f->errlen,
                       "%s: tensor '%s' has %" PRId64 " rows, whose zero points fill no whole words",
                       weights_path(f->w), name, l->rows);
    return 0;
}

static int add_entry(struct folder *f, size_t layer, enum piece piece, enum qtype type, int64_t rows,
                     int64_t cols)
{
    static const char *const endings[] = {
        [QWEIGHT] = "qweight", [QZEROS] = "qzeros", [SCALES] = "scales", [G_IDX] = "g_idx"};
    const struct linear *l = &f->layer[layer];
    char name[NAME_MAX_BYTES];
    naming_expand(name, l->name->pattern, l->layer, l->expert);
    if (piece != WHOLE) /* "….weight" */
        (void)strcpy(name + strlen(name) - strlen("weight"), endings[piece]);
    char *kept = strdup(name);
    if (!kept)
        return no_memory(f);
    f->entry[f->n_entries] = (struct entry){layer, piece};
    f->tensor[f->n_entries++] = (struct save_tensor){
        .name = kept, .type = type, .n_dims = cols > 0 ? 2 : 1, .dims = {rows, cols > 0 ? cols : 1, 1, 1}};
    return 0;
}

static int add_entries(struct folder *f)
{
    const int bits = f->opt->type->bits;
    f->entry = calloc(4 * f->n_layers + 1, sizeof *f->entry);
    f->tensor = calloc(4 * f->n_layers + 1, sizeof *f->tensor);
    int rc = f->entry && f->tensor ? 0 : no_memory(f);
    for (size_t i = 0; rc == 0 && i < f->n_layers; i++) {
        const struct linear *l = &f->layer[i];
        f->total += (double)l->rows * (double)l->cols;
        if (!l->quantised) {
            rc = add_entry(f, i, WHOLE, QTYPE_F16, l->rows, role_is_matrix(l->part[0]->role) ? l->cols : 0);
            continue;
        }
        rc = check_layer(f, l);
        if (rc)
            break;
        const int64_t groups = l->cols / group_of(f, l);
        if (add_entry(f, i, QWEIGHT, QTYPE_I32, l->cols * bits / WORD_BITS, l->rows) ||
            add_entry(f, i, QZEROS, QTYPE_I32, groups, l->rows * bits / WORD_BITS) ||
            add_entry(f, i, SCALES, QTYPE_F16, groups, l->rows) ||
            add_entry(f, i, G_IDX, QTYPE_I32, l->cols, 0))
            rc = -1;
    }
    return rc;
}

/* ---- Rows --------------------------------------------------------------------------------------- */

/* Row r of a layer in Hugging Face's order: whose it is, and which row there. */
static const struct binding *row_of(const struct folder *f, const struct linear *l, int64_t r, int64_t *row)
{
    int i = 0;
    for (; r >= l->part[i]->source.rows; i++)
        r -= l->part[i]->source.rows;
    const struct config *c = &f->config;
    const enum role role = l->part[i]->role;
    /* Pairs that are side by side here are halves there (arch.h, hf_halves). */
    if (c->arch->hf_halves && (role == ROLE_ATTN_Q || role == ROLE_ATTN_K)) {
        int64_t in_head = r % c->head_dim, half = c->rotary_dim / 2;
        if (in_head < 2 * half)
            r += in_head % half * 2 + in_head / half - in_head;
    }
    *row = r;
    return l->part[i];
}

/* A vector likewise: all of it. */
static void vector_floats(const struct folder *f, const struct linear *l, float *dst, float *room)
{
    const struct config *c = &f->config;
    for (int i = 0; i < l->n_parts; i++) {
        const struct binding *b = l->part[i];
        const int64_t n = b->source.cols, half = c->rotary_dim / 2;
        const float *changed =
            f->calibrate && b->layer >= 0 ? calibrate_role_vector(f->calibrate, b->role, b->layer) : NULL;
        if (changed)
            memcpy(room, changed, (size_t)n * sizeof *room);
        else
            source_vector(&b->source, room);
        bool halves = c->arch->hf_halves && (b->role == ROLE_ATTN_Q_BIAS || b->role == ROLE_ATTN_K_BIAS);
        for (int64_t k = 0; k < n; k++) {
            int64_t in_head = k % c->head_dim, from = k;
            if (halves && in_head < 2 * half)
                from += in_head % half * 2 + in_head / half - in_head;
            *dst++ = room[from] - (c->arch->hf_norm_minus_1 && role_is_norm(b->role) ? 1.0f : 0.0f);
        }
    }
}

static bool layer_floats(const struct folder *f, const struct linear *l, int64_t first, int64_t n, float *dst)
{
    bool failed = false;
#pragma omp parallel num_threads(f->opt->n_threads) reduction(|| : failed)
    {
        float *room = malloc((2 * (size_t)l->cols + 16) * sizeof *room);
        failed = !room;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < n; r++) {
            int64_t row;
            const struct binding *b = row_of(f, l, first + r, &row);
            if (room)
                source_floats(&b->source, row, dst + r * l->cols, room);
        }
        free(room);
    }
    return !failed;
}

static int check_finite(const struct folder *f, const struct linear *l, const float *x, int64_t first,
                        int64_t n)
{
    if (f->opt->allow_nan)
        return 0;
    return rows_check_finite(x, first, n, l->cols, weights_path(f->w), l->part[0]->source.tensor->name,
                             f->err, f->errlen);
}

/* ---- Packing ------------------------------------------------------------------------------------ */

/* A block of one of the INT types. */
static void read_block(uint16_t *d, int *zero, uint8_t q[ACT_LEN], const uint8_t *block, int bits)
{
    memcpy(d, block, sizeof *d);
    *zero = bits == 8 ? block[2] | block[3] << 8 : block[2];
    const uint8_t *codes = block + (bits == 8 ? 4 : 3);
    for (int i = 0; i < ACT_LEN; i++)
        if (bits == 8)
            q[i] = codes[i];
        else if (bits == 4)
            q[i] = codes[i % 16] >> (i / 16 * 4) & 15;
        else
            q[i] = (uint8_t)((codes[i % 8] >> (i / 8 * 2) & 3) |
                             (bits == 3 ? (codes[8 + i / 8] >> (i % 8) & 1) << 2 : 0));
}

/* Code i of a stream of `bits` each, in words that lie `step` apart; the words begin as zeros. */
static void put_code(uint32_t *words, int64_t step, int64_t i, int bits, uint32_t code)
{
    const int64_t bit = i * bits;
    const int shift = (int)(bit % WORD_BITS);
    words[bit / WORD_BITS * step] |= code << shift;
    if (shift + bits > WORD_BITS)
        words[(bit / WORD_BITS + 1) * step] |= code >> (WORD_BITS - shift);
}

/* Quantised rows into the three tensors. */
static void pack_rows(struct folder *f, const struct linear *l, const uint8_t *rows)
{
    const int bits = f->opt->type->bits;
    const enum qtype type = block_type(bits);
    const int64_t block_bytes = qtypes[type].block_bytes, group = group_of(f, l);
    const int64_t zero_words = l->rows * bits / WORD_BITS;
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t b = 0; b < l->cols / ACT_LEN; b++, rows += block_bytes) {
            uint16_t d;
            int zero;
            uint8_t q[ACT_LEN];
            const int64_t g = b * ACT_LEN / group;
            read_block(&d, &zero, q, rows, bits);
            for (int i = 0; i < ACT_LEN; i++)
                put_code(f->words + r, l->rows, b * ACT_LEN + i, bits, q[i]);
            if (b * ACT_LEN % group)
                continue;
            f->scales[g * l->rows + r] = d;
            put_code(f->zeros + g * zero_words, 1, r, bits, (uint32_t)zero - 1);
        }
}

static const float *importance_of(const struct folder *f, const struct linear *l)
{
    char name[NAME_MAX_BYTES];
    const struct importance_entry *e = NULL;
    if (naming_write(name, f->config.arch->gguf_names, l->part[0]->role, l->layer, -1))
        e = importance_find(f->opt->importance, name);
    int expert = l->expert < 0 ? 0 : l->expert;
    return e && e->cols == l->cols && expert < e->n_experts ? e->mean + expert * l->cols : NULL;
}

/* ---- Methods with a calibration text ------------------------------------------------------------- */

static int open_calibration(struct folder *f)
{
    size_t n;
    if (!f->opt->calibration)
        return 0;
    if (export_open(&f->export, f->w, -1, NULL, 0, f->err, f->errlen))
        return -1;
    const struct save_gguf_tensor *t = export_tensors(f->export, &n);
    f->format = calloc(n + 1, sizeof *f->format);
    if (!f->format)
        return no_memory(f);
    for (size_t i = 0; i < n; i++) {
        const enum role role = export_n_runs(f->export, i) ? export_run(f->export, i, 0).role : ROLE_NONE;
        if (role != ROLE_NONE && role_is_matrix(role) && role_in_layer(role) && role != ROLE_ROUTER)
            f->format[i] = (struct rows_format){block_type(f->opt->type->bits),
                                                f->opt->type->group > 0 ? f->opt->type->group : t[i].dims[0]};
    }
    return calibrate_open(&f->calibrate, f->w, f->export, f->format, f->opt->calibration, f->err, f->errlen);
}

/* Where an earlier run ended. */
static int go_on(struct folder *f)
{
    const struct journal *j = f->opt->journal;
    size_t n = 0;
    if (!f->calibrate || !j || journal_layer(j) < 0)
        return 0;
    f->calibrated = journal_layer(j);
    float *rows = calibrate_text_rows(f->calibrate, &n);
    return rows ? journal_read_rows(j, rows, n, f->err, f->errlen) : 0;
}

static void close_calibration(struct folder *f)
{
    calibrate_close(f->calibrate);
    free(f->format);
    export_close(f->export);
}

/* Layers up to this one are made. */
static int calibrate_to(struct folder *f, int layer)
{
    int rc = 0;
    while (f->calibrate && rc == 0 && f->calibrated < layer)
        rc = calibrate_layer(f->calibrate, ++f->calibrated, f->err, f->errlen);
    if (rc > 0)
        f->err[0] = 0;
    return rc ? -1 : 0;
}

/* The rows that the method has made, in Hugging Face's order. */
static void calibrated_rows(const struct folder *f, const struct linear *l, int64_t row_bytes, uint8_t *rows)
{
    for (int64_t r = 0; r < l->rows; r++, rows += row_bytes) {
        int64_t row;
        const struct binding *b = row_of(f, l, r, &row);
        const uint8_t *made = calibrate_role_rows(f->calibrate, b->role, b->expert);
        memcpy(rows, made + row * row_bytes, (size_t)row_bytes);
    }
}

/* Quantises a layer; its words are kept until the last of its tensors is written. */
static int make_layer(struct folder *f, const struct linear *l)
{
    const int bits = f->opt->type->bits;
    const int64_t groups = l->cols / group_of(f, l);
    const struct rows_format format = {block_type(bits), group_of(f, l)};
    float *x = malloc((size_t)(l->rows * l->cols) * sizeof *x);
    uint8_t *rows = malloc((size_t)(l->rows * qtype_bytes(format.type, l->cols)));
    f->words = calloc((size_t)(l->cols * bits / WORD_BITS * l->rows), sizeof *f->words);
    f->zeros = calloc((size_t)(groups * l->rows * bits / WORD_BITS), sizeof *f->zeros);
    f->scales = calloc((size_t)(groups * l->rows), sizeof *f->scales);
    int rc = x && rows && f->words && f->zeros && f->scales ? 0 : no_memory(f);
    if (rc == 0 && f->calibrate)
        calibrated_rows(f, l, qtype_bytes(format.type, l->cols), rows);
    else if (rc == 0 && !layer_floats(f, l, 0, l->rows, x))
        rc = no_memory(f);
    if (rc == 0 && !f->calibrate)
        rc = check_finite(f, l, x, 0, l->rows);
    if (rc == 0 && !f->calibrate &&
        rows_quantise(&format, rows, x, importance_of(f, l), l->rows, l->cols, f->opt->n_threads))
        rc = no_memory(f);
    if (rc == 0)
        pack_rows(f, l, rows);
    free(x);
    free(rows);
    return rc;
}

static void drop_layer(struct folder *f, const struct linear *l)
{
    free(f->words);
    free(f->zeros);
    free(f->scales);
    f->words = f->zeros = NULL;
    f->scales = NULL;
    for (int i = 0; i < l->n_parts; i++)
        weights_drop(f->w, l->part[i]->source.tensor, 0, l->part[i]->source.tensor->bytes);
}

/* ---- Writing ------------------------------------------------------------------------------------ */

static bool report(struct folder *f, const char *name, double more)
{
    const struct quantize_step step = {.name = name};
    f->done += more;
    if (!f->opt->progress || f->opt->progress(f->opt->arg, &step, f->done / f->total))
        return true;
    f->err[0] = 0;
    return false;
}

/* A tensor that stays in floats. */
static int write_whole(struct folder *f, const struct linear *l, const char *name, struct save_file *to)
{
    enum { BATCH = 1 << 20 };
    const bool matrix = role_is_matrix(l->part[0]->role);
    int64_t few = matrix ? BATCH / l->cols + 1 : l->rows;
    few = few < l->rows ? few : l->rows;
    float *x = malloc(2 * (size_t)(few * l->cols) * sizeof *x);
    uint16_t *half = malloc((size_t)(few * l->cols) * sizeof *half);
    int rc = x && half ? 0 : no_memory(f);
    for (int64_t r = 0; rc == 0 && r < l->rows; r += few) {
        const int64_t n = l->rows - r < few ? l->rows - r : few;
        if (!matrix)
            vector_floats(f, l, x, x + few);
        else if (!layer_floats(f, l, r, n, x))
            rc = no_memory(f);
        if (rc == 0)
            rc = check_finite(f, l, x, r, n);
        if (rc)
            break;
        qtypes[QTYPE_F16].from_f32(half, x, n * l->cols);
        rc = weights_save_part(to, half, (uint64_t)(n * l->cols) * sizeof *half);
        if (rc == 0 && !report(f, name, (double)(n * l->cols)))
            rc = -1;
    }
    free(x);
    free(half);
    return rc;
}

static int write_groups(struct folder *f, const struct linear *l, struct save_file *to)
{
    int32_t *index = malloc((size_t)l->cols * sizeof *index);
    if (!index)
        return no_memory(f);
    for (int64_t c = 0; c < l->cols; c++)
        index[c] = (int32_t)(c / group_of(f, l));
    int rc = weights_save_part(to, index, (uint64_t)l->cols * sizeof *index);
    free(index);
    return rc;
}

/* As quantize.c has it; entries of one layer follow each other, and so do those of one linear layer. */
static int keep(struct folder *f, size_t i, const struct save_file *to)
{
    struct journal *j = f->opt->journal;
    const enum piece piece = f->entry[i].piece;
    for (; f->next < i; f->next++) {
        const struct linear *l = &f->layer[f->entry[f->next].layer];
        const enum piece done = f->entry[f->next].piece;
        f->done += done == WHOLE || done == QWEIGHT ? (double)l->rows * (double)l->cols : 0;
    }
    f->next = i + 1;
    if (piece != WHOLE && piece != QWEIGHT)
        return 0;
    f->begin = i > 0 ? to->at : 0;
    if (!j || f->begin <= journal_bytes(j))
        return 0;
    if (f->calibrate && f->calibrated >= 0 && f->layer[f->entry[i].layer].layer == f->calibrated)
        return 0;
    const bool moved = f->calibrate && f->calibrated > journal_layer(j);
    if (!moved && !journal_is_due(j))
        return 0;
    size_t n = 0;
    const float *rows = moved ? calibrate_text_rows(f->calibrate, &n) : NULL;
    return journal_keep(j, to->at, f->calibrated, rows, n, f->err, f->errlen);
}

static int write_entry(void *arg, size_t i, struct save_file *to)
{
    struct folder *f = arg;
    const struct entry *e = &f->entry[i];
    const struct linear *l = &f->layer[e->layer];
    const int64_t *dims = f->tensor[i].dims;
    if (keep(f, i, to) || calibrate_to(f, l->layer))
        return -1;
    switch (e->piece) {
    case WHOLE:
        return write_whole(f, l, f->tensor[i].name, to);
    case QWEIGHT:
        if (make_layer(f, l) || !report(f, f->tensor[i].name, (double)l->rows * (double)l->cols))
            return -1;
        return weights_save_part(to, f->words, (uint64_t)(dims[0] * dims[1]) * sizeof *f->words);
    case QZEROS:
        return weights_save_part(to, f->zeros, (uint64_t)(dims[0] * dims[1]) * sizeof *f->zeros);
    case SCALES:
        return weights_save_part(to, f->scales, (uint64_t)(dims[0] * dims[1]) * sizeof *f->scales);
    default:
        drop_layer(f, l);
        return write_groups(f, l, to);
    }
}

/* ---- Configuration ------------------------------------------------------------------------------ */

/* For a model that has no config.json of its own. */
static json_t *make_config(const struct folder *f)
{
    static const struct {
        const char *arch, *model_type, *class;
    } classes[] = {{"llama", "llama", "LlamaForCausalLM"},
                   {"qwen2", "qwen2", "Qwen2ForCausalLM"},
                   {"qwen3", "qwen3", "Qwen3ForCausalLM"}};
    const struct config *c = &f->config;
    size_t i = 0, n = sizeof classes / sizeof classes[0];
    while (i < n && strcmp(classes[i].arch, c->arch->name) != 0)
        i++;
    if (i == n || c->n_experts || c->rope.scaling == ROPE_SCALING_LLAMA3 ||
        c->rope.scaling == ROPE_SCALING_LONGROPE || find_binding(f, ROLE_ROPE_FREQS, -1, -1)) {
        (void)err_set(f->err, f->errlen,
                      "%s: a config.json cannot be made for this model of architecture '%s': quantise its "
                      "Hugging Face folder",
                      weights_path(f->w), c->arch->name);
        return NULL;
    }
    json_t *j =
        json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:s, s:b, s:b}",
                  "architectures", classes[i].class, "model_type", classes[i].model_type, "hidden_size",
                  c->dim, "intermediate_size", c->ffn_dim, "num_hidden_layers", c->n_layers,
                  "num_attention_heads", c->n_heads, "num_key_value_heads", c->n_kv_heads, "head_dim",
                  c->head_dim, "max_position_embeddings", c->max_seq_len, "vocab_size", c->vocab_size,
                  "rms_norm_eps", (double)c->norm_eps, "rope_theta", c->rope.theta, "hidden_act", "silu",
                  "tie_word_embeddings", c->tied_embeddings, "use_sliding_window", 0);
    static const char *const ids[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                         {"tokenizer.ggml.eos_token_id", "eos_token_id"}};
    for (size_t k = 0; k < 2; k++) {
        const struct meta *m = weights_meta_find(f->w, ids[k][0]);
        int64_t id;
        if (m && meta_int(m, 0, &id))
            (void)json_object_set_new(j, ids[k][1], json_integer(id));
    }
    if (c->rope.scaling == ROPE_SCALING_LINEAR || c->rope.scaling == ROPE_SCALING_DYNAMIC ||
        c->rope.scaling == ROPE_SCALING_YARN)
        (void)json_object_set_new(j, "rope_scaling",
                                  json_pack("{s:s, s:f, s:i}", "rope_type",
                                            rope_scaling_name(c->rope.scaling), "factor", c->rope.factor,
                                            "original_max_position_embeddings", c->rope.original_len));
    return j;
}

static json_t *read_config(const struct folder *f, const char *from)
{
    char path[4096];
    json_error_t why;
    (void)snprintf(path, sizeof path, "%s/config.json", from);
    json_t *j = json_load_file(path, 0, &why);
    if (!j)
        (void)err_set(f->err, f->errlen, "%s: %s", path, why.text);
    return j;
}

static int save_json(const struct folder *f, const char *folder, const char *name, const json_t *j)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    errno = 0;
    if (json_dump_file(j, path, JSON_INDENT(2)) == 0)
        return 0;
    return err_set(f->err, f->errlen, "%s: cannot write it: %s", path, strerror(errno ? errno : EIO));
}

static int write_config(const struct folder *f, const char *folder)
{
    const struct gptq_folder_type *t = f->opt->type;
    const char *from = weights_folder(source_of(f));
    json_t *j = from ? read_config(f, from) : make_config(f);
    json_t *q = json_pack("{s:s, s:i, s:i, s:b, s:b, s:b, s:s, s:s}", "quant_method", "gptq", "bits", t->bits,
                          "group_size", t->group, "desc_act", 0, "sym", 0, "lm_head", 0, "checkpoint_format",
                          "gptq", "pack_dtype", "int32");
    int rc = j ? 0 : -1;
    if (rc == 0) {
        (void)json_object_set(j, "quantization_config", q);
        (void)json_object_set_new(j, "tie_word_embeddings", json_boolean(f->config.tied_embeddings));
        (void)json_object_set_new(j, "torch_dtype", json_string("float16"));
        rc = save_json(f, folder, "config.json", j);
    }
    if (rc == 0)
        rc = save_json(f, folder, "quantize_config.json", q);
    json_decref(q);
    json_decref(j);
    return rc;
}

/* ---- The folder --------------------------------------------------------------------------------- */

static int fill_folder(struct folder *f, const char *folder)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    struct journal *j = f->opt->journal;
    const struct save_partial partial = {path, j ? journal_bytes(j) : 0};
    int rc = go_on(f) || write_config(f, folder) ? -1 : 0;
    if (rc == 0 && f->opt->extras)
        rc = f->opt->extras(f->opt->arg, folder, source_of(f), f->err, f->errlen);
    if (rc == 0)
        rc = weights_save_safetensors_parts(path, f->tensor, f->n_entries, write_entry, f,
                                            j ? &partial : NULL, f->err, f->errlen);
    if (rc && j && !f->calibrate && f->begin > journal_bytes(j))
        (void)journal_keep(j, f->begin, -1, NULL, 0, NULL, 0); /* else what was kept before counts */
    return rc;
}

/* The names are those that the source's config.json goes with: of two Hugging Face architectures with one
 * GGUF name, its. */
static int take_names(struct folder *f)
{
    struct config c;
    if (!f->opt->source)
        return 0;
    if (config_read(&c, f->opt->source, f->err, f->errlen))
        return -1;
    f->config.arch = c.arch;
    return 0;
}

/* Removes a folder that holds only files. */
static void remove_folder(const char *folder)
{
    DIR *d = opendir(folder);
    const struct dirent *e;
    while (d && (e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        (void)closedir(d);
    (void)rmdir(folder);
}

/* Makes it in the journal's folder, or one of its own, which then gets the output's name. */
static int write_folder(struct folder *f)
{
    struct journal *j = f->opt->journal;
    char *temporary = NULL;
    if (!j && (asprintf(&temporary, "%s.%ld.tmp", f->path, (long)getpid()) < 0 || mkdir(temporary, 0777))) {
        free(temporary);
        return err_set(f->err, f->errlen, "%s: cannot create it: %s", f->path, strerror(errno));
    }
    const char *folder = j ? journal_folder(j) : temporary;
    int rc = fill_folder(f, folder);
    if (rc == 0 && rename(folder, f->path))
        rc = err_set(f->err, f->errlen, "%s: cannot rename the finished folder to it: %s", f->path,
                     strerror(errno));
    if (rc == 0 && j)
        journal_finish(j);
    if (rc && !j)
        remove_folder(temporary);
    free(temporary);
    return rc;
}

int gptq_folder_write(const char *path, struct weights *w, const struct gptq_folder_options *opt, char *err,
                      size_t errlen)
{
    struct folder f = {.w = w, .opt = opt, .calibrated = -1, .path = path, .err = err, .errlen = errlen};
    int rc = config_read(&f.config, w, err, errlen) ||
                     bind_tensors(&f.binding, &f.n_bindings, w, &f.config, QTYPE_F32, err, errlen) ||
                     take_names(&f) || add_layers(&f) || add_entries(&f) || open_calibration(&f)
                 ? -1
                 : 0;
    if (rc == 0 && rmdir(path) && errno != ENOENT)
        rc = err_set(err, errlen, "%s: cannot be made: %s", path,
                     strerror(errno == ENOTEMPTY ? EEXIST : errno));
    if (rc == 0)
        rc = write_folder(&f);
    close_calibration(&f);
    for (size_t i = 0; i < f.n_entries; i++)
        free((char *)f.tensor[i].name);
    free(f.words);
    free(f.zeros);
    free(f.scales);
    free(f.entry);
    free(f.tensor);
    free(f.layer);
    bindings_free(f.binding, f.n_bindings);
    return rc;
}
