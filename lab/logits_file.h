/* A file of a model's logits on a text, to compare other models with: what `quoll perplexity --save-logits`
 * writes. All numbers are little-endian.
 *
 *   8   "quollKL1"
 *   4   protocol (enum protocol)         4   BOS id, −1: none
 *   8   n_ctx                            8   stride
 *   8   windows                          8   vocab_size
 *   8   n_ids                           32   SHA-256 of the text
 *   4 · n_ids   the text's token ids
 *
 * and then a row for each token that counts, in order, of logits in front of it, as log-probabilities:
 *
 *   4   n_exact      4   top (float)     4   reach (float)
 *   vocab_size       codes: 0: the next of the exact ones, c > 0: top + 3 ln(1 − reach (c − 1) / 254)
 *   4 · n_exact      floats
 *
 * Exact are the text's own next token and all with a probability of at least 1 / vocab_size. The others have
 * some hundredths together, and keep their sum. A divergence weighs the error of a logarithm by its
 * probability p, so their steps are wider where p is smaller, as p^(−1/3), which makes Σ p error² least.
 * docs/evaluation.md measures what is lost. A row takes little more than a byte per logit. */
#ifndef QUOLL_LOGITS_FILE_H
#define QUOLL_LOGITS_FILE_H

#include "lab/windows.h"

enum { TEXT_HASH_BYTES = 32 };

struct logits_header {
    struct windows windows;
    int64_t vocab_size;
    uint8_t text_hash[TEXT_HASH_BYTES];
};

/* ---- Rows ---------------------------------------------------------------------------------------- */

size_t logits_row_max_bytes(int64_t vocab_size);
/* Packs a row of logits in front of the token; returns its bytes. */
size_t logits_row_pack(uint8_t *to, const float *row, int64_t vocab_size, int32_t token);
/* A row that logits_read has checked, as log-probabilities. */
void logits_row_unpack(float *row, const uint8_t *from, int64_t vocab_size);

/* ---- Writing: under a temporary name until logits_writer_close ------------------------------------- */

struct logits_writer;
int logits_writer_open(struct logits_writer **out, const char *path, const struct logits_header *h,
                       const int32_t *ids, char *err, size_t errlen);
int logits_write(struct logits_writer *w, const uint8_t *row, size_t n_bytes);
/* rc 0: the file is whole and gets its name; else it goes away. Returns rc, or −1 when that fails. NULL is
 * fine. Messages go where logits_writer_open was told. */
int logits_writer_close(struct logits_writer *w, int rc);

/* ---- Reading -------------------------------------------------------------------------------------- */

struct logits_reader;
int logits_reader_open(struct logits_reader **out, const char *path, char *err, size_t errlen);
void logits_reader_close(struct logits_reader *r); /* NULL is fine */
const struct logits_header *logits_reader_header(const struct logits_reader *r);
const int32_t *logits_reader_ids(const struct logits_reader *r); /* (windows.n_ids), lent */
/* The next row as it is in the file, up to logits_row_max_bytes. */
int logits_read(struct logits_reader *r, uint8_t *row, char *err, size_t errlen);

#endif
