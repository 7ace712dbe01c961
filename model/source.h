/* Where the rows of a matrix come from: a tensor as it is, some of its rows, or the several tensors of a
 * quantised checkpoint. A source yields rows in the file layout of one enum qtype, ready to be packed. */
#ifndef QUOLL_SOURCE_H
#define QUOLL_SOURCE_H

#include "weights/weights.h"

enum source_kind {
    SOURCE_PLAIN, /* rows of the tensor's type */
    SOURCE_INT8,  /* THUDM: int8 with a half-float scale per row; llama2.c: float scales per group */
    SOURCE_INT4,  /* THUDM: high nibble = even column, low nibble = odd column, two's complement */
    SOURCE_GPTQ,  /* arXiv:2210.17323, as AutoGPTQ writes it: codes packed along the columns */
    SOURCE_AWQ,   /* arXiv:2306.00978, "GEMM" packing: codes packed along the rows */
};

/* Of a tensor's name. */
bool source_name_ends(const char *name, const char *end);
/* F32, F16, BF16: what a norm, a bias or an adapter can be. */
bool source_is_float(const struct tensor *t);

struct source {
    enum source_kind kind;
    const struct tensor *tensor, *scales, *zeros, *order;
    int64_t rows, cols;
    /* Row r is the tensor's row first + r / run · stride + r % run … */
    int64_t first, run, stride;
    /* … after each head's first pair_len rows, halves in the file, were put side by side; 0: as they are. */
    int head_len, pair_len;
    float plus;      /* added to a vector's elements (Gemma's norms) */
    enum qtype type; /* of the rows that source_rows yields */
    bool quantise;   /* to that type; the file's is another */
    int bits, group; /* GPTQ, AWQ; group: columns per scale */
    int zero_offset; /* GPTQ: what its zeros lack */
    int32_t *sorted; /* (cols) GPTQ act-order: column j of the yielded rows is the matrix's column sorted[j];
                      * malloc'ed, NULL: as they are */
};

/* Finds what belongs to s->tensor (whose name ends in .weight or .qweight) among w's tensors, and checks
 * shapes, group indices and scales; `total` rows are in the tensor, s->rows of them this source's. Sets kind
 * and type. quantise: what float matrices become, QTYPE_F32: they stay. */
int source_open(struct source *s, const struct weights *w, int64_t total, enum qtype quantise, char *err,
                size_t errlen);
void source_close(struct source *s);

/* Is this the name of a tensor that only belongs to another one, which source_open finds by its name? */
bool source_is_companion(const struct weights *w, const struct tensor *t);
/* The name that a naming knows a tensor by, "X.weight" for "X.qweight": its length without, and the ending.
 */
const char *source_stem(const char *name, size_t *len);

/* The tensor's row behind row r. */
int64_t source_row(const struct source *s, int64_t r);
/* Rows row … row + n − 1 where they are, NULL: they must be made. */
const void *source_direct(const struct source *s, int64_t row, int64_t n);
/* Makes them; scratch: cols floats. */
void source_rows(const struct source *s, int64_t row, int64_t n, void *dst, float *scratch);
/* Row `row` as floats, columns in the matrix's own order; room: 2 cols floats and 64 bytes. */
void source_floats(const struct source *s, int64_t row, float *dst, float *room);
/* A vector as floats. */
void source_vector(const struct source *s, float *dst);
/* The bytes of the tensor that these rows come from; 0 where they are spread. */
void source_range(const struct source *s, int64_t row, int64_t n, uint64_t *from, uint64_t *bytes);

#endif
