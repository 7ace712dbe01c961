#include "lab/imatrix.h"

#include "quant/err.h"
#include "weights/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    USUAL_CHUNK = 512,
    MAX_NAME = 512,
    MAX_ENTRIES = 1 << 20,
    MAX_EXPERTS = 1 << 16,
    MAX_COLS = 1 << 28,
};

struct entry {
    char *name;
    int64_t cols;
    int n_experts;
    double *sum, *count; /* (n_experts, cols), (n_experts) */
};

struct imatrix {
    struct entry *entry; /* a few hundred */
    size_t n, cap;
    char **text;
    size_t n_texts;
    int64_t n_chunks;
};

/* Always −1, also to those who read the code without running it. */
static int no_memory(char *err, size_t errlen)
{
    (void)err_set(err, errlen, "out of memory");
    return -1;
}

struct imatrix *imatrix_new(void)
{
    return calloc(1, sizeof(struct imatrix));
}

void imatrix_free(struct imatrix *im)
{
    if (!im)
        return;
    for (size_t i = 0; i < im->n; i++) {
        free(im->entry[i].name);
        free(im->entry[i].sum);
        free(im->entry[i].count);
    }
    for (size_t i = 0; i < im->n_texts; i++)
        free(im->text[i]);
    free(im->entry);
    free(im->text);
    free(im);
}

size_t imatrix_n(const struct imatrix *im)
{
    return im->n;
}

int64_t imatrix_n_chunks(const struct imatrix *im)
{
    return im->n_chunks;
}

/* ---- Adding --------------------------------------------------------------------------------------- */

/* The entry of the name, a new one of zeros where there is none; NULL: out of memory. */
static struct entry *entry_of(struct imatrix *im, const char *name, int64_t cols, int n_experts)
{
    for (size_t i = 0; i < im->n; i++)
        if (strcmp(im->entry[i].name, name) == 0)
            return &im->entry[i];
    if (im->n == im->cap) {
        size_t cap = im->cap ? 2 * im->cap : 256;
        struct entry *grown = realloc(im->entry, cap * sizeof *grown);
        if (!grown)
            return NULL;
        im->entry = grown;
        im->cap = cap;
    }
    struct entry e = {.name = strdup(name),
                      .cols = cols,
                      .n_experts = n_experts,
                      .sum = calloc((size_t)cols * (size_t)n_experts, sizeof *e.sum),
                      .count = calloc((size_t)n_experts, sizeof *e.count)};
    if (!e.name || !e.sum || !e.count) {
        free(e.name);
        free(e.sum);
        free(e.count);
        return NULL;
    }
    im->entry[im->n] = e;
    return &im->entry[im->n++];
}

static bool is_amount(double v)
{
    return isfinite(v) && v >= 0;
}

int imatrix_add(struct imatrix *im, const char *name, int64_t cols, int n_experts, const double *sum,
                const double *count, char *err, size_t errlen)
{
    if (cols < 1 || cols > MAX_COLS || n_experts < 1 || n_experts > MAX_EXPERTS)
        return err_set(err, errlen, "'%s': %" PRId64 " columns of %d experts", name, cols, n_experts);
    struct entry *e = entry_of(im, name, cols, n_experts);
    if (!e)
        return no_memory(err, errlen);
    if (e->cols != cols || e->n_experts != n_experts)
        return err_set(err, errlen,
                       "'%s' has %" PRId64 " columns of %d experts, and %" PRId64 " of %d elsewhere", name,
                       cols, n_experts, e->cols, e->n_experts);
    const int64_t n = cols * n_experts;
    for (int64_t i = 0; i < n; i++)
        if (!is_amount(sum[i]))
            return err_set(err, errlen, "'%s': column %" PRId64 " has a mean square of %g", name, i % cols,
                           sum[i]);
    for (int x = 0; x < n_experts; x++)
        if (!is_amount(count[x]))
            return err_set(err, errlen, "'%s': a count of %g tokens", name, count[x]);
    for (int64_t i = 0; i < n; i++)
        e->sum[i] += sum[i];
    for (int x = 0; x < n_experts; x++)
        e->count[x] += count[x];
    return 0;
}

int imatrix_add_text(struct imatrix *im, const char *name, int64_t n_chunks, char *err, size_t errlen)
{
    char **grown = realloc(im->text, (im->n_texts + 1) * sizeof *grown);
    if (!grown)
        return no_memory(err, errlen);
    im->text = grown;
    if (!(grown[im->n_texts] = strdup(name)))
        return no_memory(err, errlen);
    im->n_texts++;
    im->n_chunks += n_chunks;
    return 0;
}

/* ---- Reading: GGUF --------------------------------------------------------------------------------- */

static const char sums_end[] = ".in_sum2", counts_end[] = ".counts";

/* The floats of an F32 tensor, widened; NULL: out of memory. */
static double *widened(const struct tensor *t, int64_t n)
{
    double *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; v && i < n; i++) {
        float f;
        memcpy(&f, (const char *)t->data + (size_t)i * sizeof f, sizeof f);
        v[i] = (double)f;
    }
    return v;
}

/* One matrix: the tensor of its sums, called NAME.in_sum2. */
static int add_tensor(struct imatrix *im, const struct weights *w, const struct tensor *sums, char *err,
                      size_t errlen)
{
    char name[MAX_NAME], counts_name[MAX_NAME + sizeof counts_end], why[1024];
    size_t len = strlen(sums->name) - (sizeof sums_end - 1);
    if (len >= sizeof name)
        return err_set(err, errlen, "%s: a tensor's name is %zu bytes long", weights_path(w), len);
    memcpy(name, sums->name, len);
    name[len] = '\0';
    (void)snprintf(counts_name, sizeof counts_name, "%s%s", name, counts_end);
    const struct tensor *counts = weights_find(w, counts_name);
    if (!counts)
        return err_set(err, errlen, "%s: no tensor '%s'", weights_path(w), counts_name);
    const int64_t cols = sums->dims[0], n_experts = sums->dims[1];
    if (sums->type != QTYPE_F32 || counts->type != QTYPE_F32 || sums->dims[2] * sums->dims[3] != 1 ||
        counts->dims[0] * counts->dims[1] * counts->dims[2] * counts->dims[3] != n_experts ||
        n_experts > MAX_EXPERTS)
        return err_set(err, errlen, "%s: '%s': sums and counts do not go together", weights_path(w), name);
    double *sum = widened(sums, cols * n_experts), *count = widened(counts, n_experts);
    int rc = sum && count ? imatrix_add(im, name, cols, (int)n_experts, sum, count, why, sizeof why)
                          : no_memory(why, sizeof why);
    free(sum);
    free(count);
    return rc ? err_set(err, errlen, "%s: %s", weights_path(w), why) : 0;
}

static int read_gguf(struct imatrix *im, const char *path, char *err, size_t errlen)
{
    struct weights *w;
    if (weights_open(&w, path, NULL, err, errlen))
        return -1;
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        size_t len = strlen(t->name);
        if (len < sizeof sums_end || strcmp(t->name + len - (sizeof sums_end - 1), sums_end) != 0)
            continue;
        rc = add_tensor(im, w, t, err, errlen);
        n++;
    }
    if (rc == 0 && n == 0)
        rc = err_set(err, errlen, "%s: no importance matrix: no tensor ends in %s", path, sums_end);
    const struct meta *texts = weights_meta_find(w, "imatrix.datasets");
    struct wstr s;
    for (uint64_t i = 0; rc == 0 && texts && meta_str(texts, i, &s); i++) {
        char name[MAX_NAME];
        (void)snprintf(name, sizeof name, "%.*s", (int)(s.len < MAX_NAME ? s.len : MAX_NAME - 1), s.s);
        rc = imatrix_add_text(im, name, 0, err, errlen);
    }
    const struct meta *chunks = weights_meta_find(w, "imatrix.chunk_count");
    int64_t n_chunks;
    if (rc == 0 && chunks && meta_int(chunks, 0, &n_chunks) && n_chunks > 0 && n_chunks <= INT32_MAX)
        im->n_chunks += n_chunks;
    weights_close(w);
    return rc;
}

/* ---- Reading: the older file ------------------------------------------------------------------------ */

struct old_file {
    const char *path;
    FILE *f;
    int64_t left; /* bytes */
};

static bool read_bytes(struct old_file *o, void *to, int64_t n)
{
    if (n > o->left || fread(to, 1, (size_t)n, o->f) != (size_t)n)
        return false;
    o->left -= n;
    return true;
}

static int add_old_entry(struct imatrix *im, struct old_file *o, int64_t chunk_size, char *err, size_t errlen)
{
    int32_t len, calls, n;
    char name[MAX_NAME], why[1024];
    if (!read_bytes(o, &len, sizeof len) || len < 1 || len >= MAX_NAME || !read_bytes(o, name, len) ||
        memchr(name, 0, (size_t)len))
        return err_set(err, errlen, "%s: no importance matrix: a name is missing at byte %ld", o->path,
                       ftell(o->f));
    name[len] = '\0';
    if (!read_bytes(o, &calls, sizeof calls) || !read_bytes(o, &n, sizeof n) || calls < 0 || n < 1 ||
        n > o->left / (int64_t)sizeof(float))
        return err_set(err, errlen, "%s: '%s': its values are cut short, or none", o->path, name);
    float *values = malloc((size_t)n * sizeof *values);
    double *sum = malloc((size_t)n * sizeof *sum), count = (double)calls * (double)chunk_size;
    int rc = -1;
    if (!values || !sum) {
        (void)no_memory(why, sizeof why);
    } else if (!read_bytes(o, values, (int64_t)n * (int64_t)sizeof *values)) {
        (void)err_set(why, sizeof why, "cannot read it: %s", strerror(errno));
    } else {
        for (int32_t i = 0; i < n; i++)
            sum[i] = (double)values[i] * (double)chunk_size;
        rc = imatrix_add(im, name, n, 1, sum, &count, why, sizeof why);
    }
    free(values);
    free(sum);
    return rc ? err_set(err, errlen, "%s: %s", o->path, why) : 0;
}

static int read_old(struct imatrix *im, struct old_file *o, int64_t chunk_size, char *err, size_t errlen)
{
    int32_t n, chunks, len;
    if (!read_bytes(o, &n, sizeof n) || n < 1 || n > MAX_ENTRIES)
        return err_set(err, errlen, "%s: no importance matrix", o->path);
    for (int32_t i = 0; i < n; i++)
        if (add_old_entry(im, o, chunk_size, err, errlen))
            return -1;
    char name[MAX_NAME];
    if (!read_bytes(o, &chunks, sizeof chunks) || !read_bytes(o, &len, sizeof len) || len < 1 ||
        len >= MAX_NAME || !read_bytes(o, name, len))
        return 0;
    name[len] = '\0';
    return imatrix_add_text(im, name, chunks > 0 ? chunks : 0, err, errlen);
}

int imatrix_read(struct imatrix *im, const char *path, int64_t chunk_size, char *err, size_t errlen)
{
    struct old_file o = {path, fopen(path, "rb"), 0};
    char magic[4] = "";
    if (!o.f)
        return err_set(err, errlen, "%s: %s", path, strerror(errno));
    int rc = 1; /* GGUF */
    if (fread(magic, 1, sizeof magic, o.f) != sizeof magic || memcmp(magic, "GGUF", sizeof magic) != 0) {
        if (fseek(o.f, 0, SEEK_END) == 0 && (o.left = ftell(o.f)) >= 0 && fseek(o.f, 0, SEEK_SET) == 0)
            rc = read_old(im, &o, chunk_size, err, errlen);
        else
            rc = err_set(err, errlen, "%s: cannot read it: %s", path, strerror(errno));
    }
    fclose(o.f);
    return rc == 1 ? read_gguf(im, path, err, errlen) : rc;
}

/* ---- Writing --------------------------------------------------------------------------------------- */

static bool is_seen(const struct entry *e)
{
    for (int x = 0; x < e->n_experts; x++)
        if (e->count[x] > 0)
            return true;
    return false;
}

/* Tensors 2 i and 2 i + 1: sums and counts of the i-th entry that is seen. */
struct writing {
    const struct imatrix *im;
    size_t *seen; /* its number */
    char **name;
    struct save_gguf_tensor *tensor;
    size_t n;
};

static int write_tensor(void *arg, size_t i, struct save_file *f)
{
    const struct writing *to = arg;
    const struct entry *e = &to->im->entry[to->seen[i / 2]];
    const double *v = i % 2 ? e->count : e->sum;
    int64_t n = i % 2 ? e->n_experts : e->cols * e->n_experts;
    for (int64_t at = 0; at < n;) {
        float part[1024];
        int64_t len = n - at < 1024 ? n - at : 1024;
        for (int64_t j = 0; j < len; j++)
            part[j] = (float)v[at + j];
        if (weights_save_part(f, part, (uint64_t)len * sizeof *part))
            return -1;
        at += len;
    }
    return 0;
}

static int plan_tensors(struct writing *to, const struct imatrix *im)
{
    to->seen = calloc(im->n, sizeof *to->seen);
    to->name = calloc(2 * im->n, sizeof *to->name);
    to->tensor = calloc(2 * im->n, sizeof *to->tensor);
    if (!to->seen || !to->name || !to->tensor)
        return -1;
    for (size_t i = 0; i < im->n; i++) {
        const struct entry *e = &im->entry[i];
        if (!is_seen(e))
            continue;
        const size_t at = 2 * to->n;
        to->seen[to->n++] = i;
        for (size_t k = 0; k < 2; k++) {
            if (asprintf(&to->name[at + k], "%s%s", e->name, k ? counts_end : sums_end) < 0) {
                to->name[at + k] = NULL;
                return -1;
            }
            to->tensor[at + k] = (struct save_gguf_tensor){.name = to->name[at + k],
                                                           .type = QTYPE_F32,
                                                           .n_dims = 2,
                                                           .dims = {k ? 1 : e->cols, e->n_experts, 1, 1}};
        }
    }
    return 0;
}

int imatrix_write(const struct imatrix *im, const char *path, int64_t chunk_size, char *err, size_t errlen)
{
    const uint32_t chunks = (uint32_t)im->n_chunks, size = (uint32_t)chunk_size;
    const struct wstr type = {"imatrix", 7};
    struct wstr *texts = calloc(im->n_texts + 1, sizeof *texts);
    struct writing to = {.im = im};
    int rc = -1;
    if (im->n == 0) {
        rc = err_set(err, errlen, "%s: nothing to write: no matrix has been seen", path);
    } else if (!texts || plan_tensors(&to, im)) {
        rc = no_memory(err, errlen);
    } else {
        for (size_t i = 0; i < im->n_texts; i++)
            texts[i] = (struct wstr){im->text[i], strlen(im->text[i])};
        const struct meta meta[] = {
            {"general.type", META_STRING, META_STRING, 1, NULL, &type},
            {"imatrix.datasets", META_ARRAY, META_STRING, im->n_texts, NULL, texts},
            {"imatrix.chunk_count", META_U32, META_U32, 1, &chunks, NULL},
            {"imatrix.chunk_size", META_U32, META_U32, 1, &size, NULL},
        };
        const struct save_gguf g = {.meta = meta,
                                    .tensor = to.tensor,
                                    .n_meta = sizeof meta / sizeof meta[0],
                                    .n_tensors = 2 * to.n,
                                    .write = write_tensor,
                                    .arg = &to};
        rc = weights_save_gguf(path, &g, err, errlen);
    }
    for (size_t i = 0; to.name && i < 2 * im->n; i++)
        free(to.name[i]);
    free(to.name);
    free(to.tensor);
    free(to.seen);
    free(texts);
    return rc;
}

/* ---- Means ----------------------------------------------------------------------------------------- */

struct importance *imatrix_importance(const struct imatrix *im)
{
    struct importance *t = importance_new();
    for (size_t i = 0; t && i < im->n; i++) {
        const struct entry *e = &im->entry[i];
        const int64_t n = e->cols * e->n_experts;
        float *mean = malloc((size_t)n * sizeof *mean);
        for (int64_t j = 0; mean && j < n; j++) {
            const double count = e->count[j / e->cols];
            mean[j] = count > 0 ? (float)(e->sum[j] / count) : 0;
        }
        if (!mean || importance_set(t, e->name, e->cols, e->n_experts, mean)) {
            importance_free(t);
            t = NULL;
        }
        free(mean);
    }
    return t;
}

int importance_read(struct importance **out, const char *path, char *err, size_t errlen)
{
    struct imatrix *im = imatrix_new();
    *out = NULL;
    int rc = im ? imatrix_read(im, path, USUAL_CHUNK, err, errlen) : no_memory(err, errlen);
    if (rc == 0 && !(*out = imatrix_importance(im)))
        rc = no_memory(err, errlen);
    imatrix_free(im);
    return rc;
}
