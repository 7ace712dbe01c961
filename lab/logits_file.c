#include "lab/logits_file.h"

#include "kernels/mathf.h"
#include "lab/divergence.h"
#include "quant/err.h"
#include "weights/save.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char magic[8] = "quollKL1";

enum { N_CODES = 255, MAX_VOCAB = 1 << 24 };
#define MAX_REACH 0.999999f /* what is 41 or more below the top counts as that */

struct file_header {
    char magic[8];
    int32_t protocol, bos;
    int64_t n_ctx, stride, n_windows, vocab_size, n_ids;
    uint8_t text_hash[TEXT_HASH_BYTES];
};
_Static_assert(sizeof(struct file_header) == 88, "no gaps");

struct row_header {
    uint32_t n_exact;
    float top, reach;
};

/* ---- Rows ---------------------------------------------------------------------------------------- */

size_t logits_row_max_bytes(int64_t vocab_size)
{
    return sizeof(struct row_header) + (size_t)vocab_size * (1 + sizeof(float));
}

/* Does a log-probability get a code? Not the token's, the large ones, and what is no number. */
static bool is_coded(float log_p, float least, bool is_token)
{
    return log_p < least && isfinite(log_p) && !is_token;
}

/* What a code stands for. */
static float log_p_of(const struct row_header *h, int code)
{
    return h->top + 3 * logf(1 - h->reach * (float)(code - 1) / (N_CODES - 1));
}

size_t logits_row_pack(uint8_t *to, const float *row, int64_t vocab_size, int32_t token)
{
    const double all = logits_log_sum_exp(row, vocab_size);
    const float least = -logf((float)vocab_size);
    float low = least;
    for (int64_t i = 0; i < vocab_size; i++) {
        float log_p = (float)((double)row[i] - all);
        if (is_coded(log_p, low, i == token))
            low = log_p;
    }
    struct row_header h = {0, least, 1 - expf((low - least) / 3)};
    if (h.reach > MAX_REACH)
        h.reach = MAX_REACH;
    const float per_reach = h.reach > FLT_EPSILON ? (N_CODES - 1) / h.reach : 0;
    uint8_t *code = to + sizeof h, *exact = code + vocab_size;
    int64_t n_of[N_CODES + 1] = {0};
    double rest = 1; /* the probability of those with codes */
    for (int64_t i = 0; i < vocab_size; i++) {
        float log_p = (float)((double)row[i] - all);
        if (is_coded(log_p, least, i == token)) {
            float x = (log_p - least) / 3; /* below EXP_MIN: as that */
            float steps = (1 - mathf_exp_inside(x < EXP_MIN ? EXP_MIN : x)) * per_reach + 0.5f;
            code[i] = (uint8_t)(1 + (steps < N_CODES - 1 ? (int)steps : N_CODES - 1));
            n_of[code[i]]++;
        } else {
            code[i] = 0;
            memcpy(exact + h.n_exact++ * sizeof log_p, &log_p, sizeof log_p);
            rest -= exp((double)log_p);
        }
    }
    /* Rounded logarithms make probabilities larger on the average: all codes are shifted so that the sum of
     * the probabilities stays 1. */
    double coded = 0;
    for (int c = 1; c <= N_CODES; c++)
        coded += (double)n_of[c] * exp((double)log_p_of(&h, c));
    if (coded > 0 && rest > coded / 2 && rest < coded * 2)
        h.top += (float)log(rest / coded);
    memcpy(to, &h, sizeof h);
    return (size_t)(exact - to) + h.n_exact * sizeof(float);
}

void logits_row_unpack(float *row, const uint8_t *from, int64_t vocab_size)
{
    struct row_header h;
    float table[N_CODES + 1];
    memcpy(&h, from, sizeof h);
    for (int c = 1; c <= N_CODES; c++)
        table[c] = log_p_of(&h, c);
    const uint8_t *code = from + sizeof h, *exact = code + vocab_size;
    for (int64_t i = 0; i < vocab_size; i++) {
        if (code[i]) {
            row[i] = table[code[i]];
        } else {
            memcpy(&row[i], exact, sizeof *row);
            exact += sizeof *row;
        }
    }
}

/* ---- Writing -------------------------------------------------------------------------------------- */

struct logits_writer {
    struct save_file file;
};

int logits_writer_open(struct logits_writer **out, const char *path, const struct logits_header *h,
                       const int32_t *ids, char *err, size_t errlen)
{
    const struct windows *w = &h->windows;
    struct file_header f = {.protocol = (int32_t)w->protocol,
                            .bos = w->bos,
                            .n_ctx = w->n_ctx,
                            .stride = w->stride,
                            .n_windows = w->n,
                            .vocab_size = h->vocab_size,
                            .n_ids = w->n_ids};
    memcpy(f.magic, magic, sizeof magic);
    memcpy(f.text_hash, h->text_hash, sizeof f.text_hash);
    *out = NULL;
    struct logits_writer *to = malloc(sizeof *to);
    if (!to)
        return err_set(err, errlen, "out of memory");
    if (save_open(&to->file, path, NULL, err, errlen)) {
        free(to);
        return -1;
    }
    *out = to;
    if (save_write(&to->file, &f, sizeof f) == 0 &&
        save_write(&to->file, ids, (uint64_t)w->n_ids * sizeof *ids) == 0)
        return 0;
    (void)logits_writer_close(to, -1);
    *out = NULL;
    return -1;
}

int logits_write(struct logits_writer *w, const uint8_t *row, size_t n_bytes)
{
    return save_write(&w->file, row, n_bytes);
}

int logits_writer_close(struct logits_writer *w, int rc)
{
    if (!w)
        return rc;
    rc = save_close(&w->file, rc);
    free(w);
    return rc;
}

/* ---- Reading -------------------------------------------------------------------------------------- */

struct logits_reader {
    char *path;
    FILE *file;
    struct logits_header header;
    int32_t *ids;
    int64_t n_read;
};

static int cut_short(const struct logits_reader *r, char *err, size_t errlen)
{
    if (ferror(r->file))
        return err_set(err, errlen, "%s: cannot read it: %s", r->path, strerror(errno));
    return err_set(err, errlen, "%s: the file ends early, at byte %lld", r->path, (long long)ftell(r->file));
}

static int read_header(struct logits_reader *r, char *err, size_t errlen)
{
    struct file_header f;
    struct stat st;
    if (fread(&f, sizeof f, 1, r->file) != 1 || memcmp(f.magic, magic, sizeof magic) != 0)
        return err_set(err, errlen, "%s: no file of logits (quoll perplexity --save-logits writes them)",
                       r->path);
    if (f.protocol < 0 || f.protocol >= N_PROTOCOLS || f.vocab_size < 1 || f.vocab_size > MAX_VOCAB ||
        f.n_windows < 1)
        return err_set(err, errlen, "%s: a header that makes no sense", r->path);
    if (fstat(fileno(r->file), &st) != 0 || f.n_ids < 1 ||
        f.n_ids > (int64_t)(st.st_size / (off_t)sizeof *r->ids))
        return err_set(err, errlen, "%s: %" PRId64 " tokens, more than the file holds", r->path, f.n_ids);
    struct logits_header *h = &r->header;
    char why[256];
    if (windows_plan(&h->windows, (enum protocol)f.protocol, f.n_ctx, f.stride, f.n_ids, f.bos, f.n_windows,
                     why, sizeof why))
        return err_set(err, errlen, "%s: %s", r->path, why);
    if (h->windows.n != f.n_windows)
        return err_set(err, errlen, "%s: %" PRId64 " windows, more than its text has", r->path, f.n_windows);
    h->vocab_size = f.vocab_size;
    memcpy(h->text_hash, f.text_hash, sizeof h->text_hash);
    r->ids = malloc((size_t)f.n_ids * sizeof *r->ids);
    if (!r->ids)
        return err_set(err, errlen, "out of memory");
    if (fread(r->ids, sizeof *r->ids, (size_t)f.n_ids, r->file) != (size_t)f.n_ids)
        return cut_short(r, err, errlen);
    for (int64_t i = 0; i < f.n_ids; i++)
        if (r->ids[i] < 0 || r->ids[i] >= f.vocab_size)
            return err_set(err, errlen, "%s: token %" PRId64 ": id %" PRId32 " is outside the vocabulary",
                           r->path, i, r->ids[i]);
    return f.bos < f.vocab_size ? 0 : err_set(err, errlen, "%s: BOS is outside the vocabulary", r->path);
}

int logits_reader_open(struct logits_reader **out, const char *path, char *err, size_t errlen)
{
    *out = NULL;
    struct logits_reader *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        free(r);
        return err_set(err, errlen, "out of memory");
    }
    int rc = 0;
    if (!(r->file = fopen(path, "rb")))
        rc = err_set(err, errlen, "%s: %s", path, strerror(errno));
    if (rc || read_header(r, err, errlen)) {
        logits_reader_close(r);
        return -1;
    }
    *out = r;
    return 0;
}

void logits_reader_close(struct logits_reader *r)
{
    if (!r)
        return;
    if (r->file)
        fclose(r->file);
    free(r->ids);
    free(r->path);
    free(r);
}

const struct logits_header *logits_reader_header(const struct logits_reader *r)
{
    return &r->header;
}

const int32_t *logits_reader_ids(const struct logits_reader *r)
{
    return r->ids;
}

int logits_read(struct logits_reader *r, uint8_t *row, char *err, size_t errlen)
{
    const size_t vocab_size = (size_t)r->header.vocab_size;
    struct row_header h;
    if (fread(row, sizeof h + vocab_size, 1, r->file) != 1)
        return cut_short(r, err, errlen);
    memcpy(&h, row, sizeof h);
    size_t n_exact = 0;
    for (size_t i = 0; i < vocab_size; i++)
        n_exact += row[sizeof h + i] == 0;
    if (h.n_exact != n_exact)
        return err_set(err, errlen, "%s: row %" PRId64 " counts %" PRIu32 " exact logits, not %zu", r->path,
                       r->n_read, h.n_exact, n_exact);
    if (n_exact > 0 && fread(row + sizeof h + vocab_size, sizeof(float), n_exact, r->file) != n_exact)
        return cut_short(r, err, errlen);
    r->n_read++;
    return 0;
}
