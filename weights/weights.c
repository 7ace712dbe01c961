/* Files, lookup and metadata access: everything that does not depend on the container's format. */
#include "weights/weights.h"
#include "quant/err.h"
#include "weights/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Memory ---------------------------------------------------------------------------------- */

enum { CHUNK_BYTES = 1 << 16 };

struct chunk {
    struct chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

void *weights_alloc(struct weights *w, size_t n_bytes)
{
    size_t n = (n_bytes + 15) & ~(size_t)15; /* counts come checked against the file's size: no overflow */
    struct chunk *c = w->chunks;
    if (!c || n > c->size - c->used) {
        size_t size = n > CHUNK_BYTES ? n : CHUNK_BYTES;
        c = malloc(sizeof *c + size);
        if (!c)
            return NULL;
        *c = (struct chunk){.next = w->chunks, .size = size};
        w->chunks = c;
    }
    void *p = c->bytes + c->used;
    c->used += n;
    return p;
}

char *weights_copy_string(struct weights *w, const char *s, size_t len)
{
    char *copy = weights_alloc(w, len + 1);
    if (copy) {
        memcpy(copy, s, len);
        copy[len] = '\0';
    }
    return copy;
}

/* Makes room for element n of an array and zeroes it. Grows by doubling, never by what a file claims. */
static void *add_element(void **items, size_t *cap, size_t n, size_t size)
{
    if (n == *cap) {
        size_t new_cap = *cap ? *cap * 2 : 64;
        void *p = realloc(*items, new_cap * size);
        if (!p)
            return NULL;
        *items = p;
        *cap = new_cap;
    }
    return memset((char *)*items + n * size, 0, size);
}

struct tensor *weights_add_tensor(struct weights *w)
{
    void *items = w->tensor;
    struct tensor *t = add_element(&items, &w->tensor_cap, w->n_tensors, sizeof *t);
    w->tensor = items;
    w->n_tensors += t != NULL;
    return t;
}

struct meta *weights_add_meta(struct weights *w)
{
    void *items = w->meta;
    struct meta *m = add_element(&items, &w->meta_cap, w->n_meta, sizeof *m);
    w->meta = items;
    w->n_meta += m != NULL;
    return m;
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* The whole file into memory of our own. */
static int read_whole(struct mapped_file *f, int fd, char *err, size_t errlen)
{
    uint8_t *data = malloc((size_t)f->size);
    if (!data)
        return err_set(err, errlen, "%s: no memory for its %" PRIu64 " bytes", f->name, f->size);
    f->data = data;
    for (uint64_t at = 0; at < f->size;) {
        ssize_t n = read(fd, data + at, (size_t)(f->size - at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, errlen, "%s: cannot read at byte %" PRIu64 ": %s", f->name, at,
                           strerror(errno));
        if (n == 0)
            return err_set(err, errlen, "%s: ends at byte %" PRIu64 " while being read", f->name, at);
        at += (uint64_t)n;
    }
    return 0;
}

static int map_whole(struct mapped_file *f, int fd, char *err, size_t errlen)
{
    void *p = mmap(NULL, (size_t)f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return err_set(err, errlen, "%s: cannot map it: %s", f->name, strerror(errno));
    f->data = p;
    f->mapped = true;
    return 0;
}

static int load_fd(struct weights *w, struct mapped_file *f, int fd, char *err, size_t errlen)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_set(err, errlen, "%s: %s", f->name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return err_set(err, errlen, "%s: is a folder, not a model file", f->name);
    if (!S_ISREG(st.st_mode))
        return err_set(err, errlen, "%s: is not a regular file", f->name);
    if (st.st_size <= 0)
        return err_set(err, errlen, "%s: is empty (0 bytes)", f->name);
    f->size = (uint64_t)st.st_size;
    if (w->opt.no_mmap ? read_whole(f, fd, err, errlen) : map_whole(f, fd, err, errlen))
        return -1;
    if (w->opt.mlock && mlock(f->data, (size_t)f->size))
        return err_set(err, errlen, "%s: cannot lock its %" PRIu64 " bytes in memory: %s (see ulimit -l)",
                       f->name, f->size, strerror(errno));
    return 0;
}

struct mapped_file *weights_new_file(struct weights *w, const char *name)
{
    void *items = w->file;
    struct mapped_file *f = add_element(&items, &w->file_cap, (size_t)w->n_files, sizeof *f);
    w->file = items;
    if (!f || !(f->name = strdup(name)))
        return NULL;
    w->n_files++;
    return f;
}

int weights_add_file(struct weights *w, const char *path, char *err, size_t errlen)
{
    struct mapped_file *f = weights_new_file(w, path);
    if (!f)
        return err_set(err, errlen, "%s: out of memory", path);
    /* O_NONBLOCK: opening a FIFO that nobody writes must not hang; it changes nothing for files. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, errlen, "%s: %s", path, strerror(errno));
    int rc = load_fd(w, f, fd, err, errlen);
    (void)close(fd);
    return rc;
}

/* Pages of tensor bytes [from, from + n) for madvise: those that lie inside (outward = false) or that
 * the range touches. False: none, or the bytes are not a plain file mapping. */
static bool page_range(const struct weights *w, const struct tensor *t, uint64_t from, uint64_t n,
                       bool outward, void **start, size_t *len)
{
    const struct mapped_file *f = &w->file[t->file];
    if (!f->mapped || w->opt.mlock || from >= t->bytes)
        return false;
    if (n > t->bytes - from)
        n = t->bytes - from;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t a = t->offset + from, b = a + n; /* in the file, whose mapping begins with a page */
    a = (outward ? a : a + page - 1) & ~(uint64_t)(page - 1);
    b = (outward ? b + page - 1 : b) & ~(uint64_t)(page - 1);
    if (a >= b)
        return false;
    *start = (void *)(f->data + a);
    *len = (size_t)(b - a);
    return true;
}

void weights_prefetch(const struct weights *w, const struct tensor *t, uint64_t from, uint64_t n)
{
    void *start;
    size_t len;
    if (page_range(w, t, from, n, true, &start, &len))
        (void)madvise(start, len, MADV_WILLNEED); /* advice: failing costs time only */
}

void weights_drop(const struct weights *w, const struct tensor *t, uint64_t from, uint64_t n)
{
    void *start;
    size_t len;
    if (page_range(w, t, from, n, false, &start, &len))
        (void)madvise(start, len, MADV_DONTNEED);
}

/* ---- Checks every format shares -------------------------------------------------------------- */

const char *weights_name_fault(const char *s, size_t len)
{
    if (len == 0)
        return "is empty";
    if (len > WEIGHTS_MAX_NAME)
        return "is too long";
    for (size_t i = 0; i < len; i++) {
        unsigned char ch = (unsigned char)s[i];
        if (ch < 0x20 || ch == 0x7f)
            return "holds a control character";
        if (ch == 0xc2 && i + 1 < len && (unsigned char)s[i + 1] >= 0x80 && (unsigned char)s[i + 1] < 0xa0)
            return "holds a control character"; /* U+0080 … U+009F as UTF-8 */
    }
    return NULL;
}

int weights_tensor_size(struct tensor *t, char *err, size_t errlen)
{
    const struct qtype_info *q = &qtypes[t->type];
    if (t->dims[0] % q->block_len != 0)
        return err_set(err, errlen, "its rows of %" PRId64 " are no multiple of %s's block of %d", t->dims[0],
                       q->name, q->block_len);
    /* A dimension of 0 counts as 1 here: no product of a tensor's dimensions overflows later either. */
    int64_t n = t->dims[0] > 0 ? t->dims[0] / q->block_len : 1;
    bool empty = t->dims[0] == 0, overflow = __builtin_mul_overflow(n, q->block_bytes, &n);
    for (int d = 1; d < t->n_dims; d++) {
        empty = empty || t->dims[d] == 0;
        overflow = overflow || __builtin_mul_overflow(n, t->dims[d] > 0 ? t->dims[d] : 1, &n);
    }
    if (overflow)
        return err_set(err, errlen, "its shape is larger than any memory");
    t->bytes = empty ? 0 : (uint64_t)n;
    return 0;
}

/* Both kinds of element begin with their name, so one pair of functions sorts and finds them. */
_Static_assert(offsetof(struct tensor, name) == 0 && offsetof(struct meta, key) == 0, "the name comes first");

static const char *name_of(const void *item)
{
    return *(const char *const *)item;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(name_of(*(const void *const *)a), name_of(*(const void *const *)b));
}

static int compare_key_to_name(const void *key, const void *item)
{
    return strcmp(key, name_of(*(const void *const *)item));
}

/* sorted[n]: pointers to the items in the order of their names. Sorting rather than hashing: no choice of
 * names makes it slow. Returns a name that occurs twice, or NULL. */
static const char *sort_by_name(const void **sorted, const void *items, size_t n, size_t size)
{
    for (size_t i = 0; i < n; i++)
        sorted[i] = (const char *)items + i * size;
    qsort(sorted, n, sizeof *sorted, compare_names);
    for (size_t i = 1; i < n; i++)
        if (compare_names(&sorted[i - 1], &sorted[i]) == 0)
            return name_of(sorted[i]);
    return NULL;
}

static const void *find_by_name(const void *const *sorted, size_t n, const char *name)
{
    const void *const *hit = n ? bsearch(name, sorted, n, sizeof *sorted, compare_key_to_name) : NULL;
    return hit ? *hit : NULL;
}

int weights_check_keys(const struct weights *w, const char *path, size_t first, char *err, size_t errlen)
{
    size_t n = w->n_meta - first;
    if (n == 0)
        return 0;
    const void **sorted = calloc(n, sizeof *sorted);
    if (!sorted)
        return err_set(err, errlen, "%s: out of memory", path);
    const char *twice = sort_by_name(sorted, w->meta + first, n, sizeof *w->meta);
    free(sorted);
    return twice ? err_set(err, errlen, "%s: key '%.80s' occurs twice", path, twice) : 0;
}

int weights_index(struct weights *w, char *err, size_t errlen)
{
    free(w->tensor_index);
    free(w->meta_index);
    w->tensor_index = calloc(w->n_tensors + 1, sizeof *w->tensor_index);
    w->meta_index = calloc(w->n_meta + 1, sizeof *w->meta_index);
    if (!w->tensor_index || !w->meta_index)
        return err_set(err, errlen, "%s: out of memory", w->path);
    const char *twice = sort_by_name(w->meta_index, w->meta, w->n_meta, sizeof *w->meta);
    if (twice)
        return err_set(err, errlen, "%s: key '%.80s' occurs twice", w->path, twice);
    twice = sort_by_name(w->tensor_index, w->tensor, w->n_tensors, sizeof *w->tensor);
    if (twice)
        return err_set(err, errlen, "%s: tensor '%.80s' occurs twice", w->path, twice);
    return 0;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct tensor *s = *(const struct tensor *const *)a, *t = *(const struct tensor *const *)b;
    if (s->file != t->file)
        return s->file < t->file ? -1 : 1;
    if (s->offset != t->offset)
        return s->offset < t->offset ? -1 : 1;
    return (s->bytes > t->bytes) - (s->bytes < t->bytes);
}

static int check_overlaps(const struct weights *w, char *err, size_t errlen)
{
    const void **sorted = calloc(w->n_tensors + 1, sizeof *sorted);
    if (!sorted)
        return err_set(err, errlen, "%s: out of memory", w->path);
    for (size_t i = 0; i < w->n_tensors; i++)
        sorted[i] = &w->tensor[i];
    qsort(sorted, w->n_tensors, sizeof *sorted, compare_offsets);
    int rc = 0;
    for (size_t i = 1; i < w->n_tensors && rc == 0; i++) {
        const struct tensor *s = sorted[i - 1], *t = sorted[i];
        if (s->file == t->file && s->bytes > t->offset - s->offset && !w->file[t->file].shared)
            rc = err_set(err, errlen, "%s: tensors '%.80s' and '%.80s' overlap at byte %" PRIu64,
                         w->file[t->file].name, s->name, t->name, t->offset);
    }
    free(sorted);
    return rc;
}

/* ---- Open and close -------------------------------------------------------------------------- */

/* Files that are often taken for models, by their first bytes. */
static const struct {
    const char *magic, *what;
} not_models[] = {
    {"lmgg", "a GGML file of 2023, the format before GGUF: convert it to GGUF"},
    {"fmgg", "a GGML file of 2023, the format before GGUF: convert it to GGUF"},
    {"tjgg", "a GGML file of 2023, the format before GGUF: convert it to GGUF"},
    {"version https://git-lfs", "a Git LFS pointer, not the model itself (`git lfs pull` fetches it)"},
    {"<!DOCTYPE", "a web page, not a model: the download went wrong"},
    {"<html", "a web page, not a model: the download went wrong"},
};

bool weights_ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && memcmp(s + n - m, end, m) == 0;
}

static int read_by_kind(struct weights *w, char *err, size_t errlen)
{
    const struct mapped_file *f = &w->file[0];
    if (f->size >= 4 && memcmp(f->data, "GGUF", 4) == 0)
        return gguf_read(w, err, errlen);
    if (torch_is(f))
        return torch_read(w, 0, err, errlen);
    if (llama2c_is(f))
        return llama2c_read(w, 0, err, errlen);
    for (size_t i = 0; i < sizeof not_models / sizeof *not_models; i++) {
        size_t len = strlen(not_models[i].magic);
        if (f->size >= len && memcmp(f->data, not_models[i].magic, len) == 0)
            return err_set(err, errlen, "%s: is %s", w->path, not_models[i].what);
    }
    /* A safetensors file has no magic: the length of its header, then JSON. */
    if ((f->size > 8 && f->data[8] == '{') || weights_ends_with(w->path, ".safetensors"))
        return safetensors_read(w, 0, err, errlen);
    return err_set(err, errlen,
                   "%s: is no GGUF, safetensors, PyTorch or llama2.c file (wrong first bytes, at byte 0)",
                   w->path);
}

/* The folder that a path stands for: itself, or that of a JSON file that describes a model. NULL: none, or
 * no memory (*rc is then -1). */
static char *folder_of(const char *path, int *rc)
{
    static const char *const descriptions[] = {
        "config.json", "adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"};
    struct stat st;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *folder = NULL;
    bool found = false;
    if (stat(path, &st))
        st.st_mode = 0; /* neither: opening it will say why */
    if (S_ISDIR(st.st_mode)) {
        size_t n = strlen(path);
        while (n > 1 && path[n - 1] == '/')
            n--;
        found = true;
        folder = strndup(path, n);
    }
    for (size_t i = 0; i < sizeof descriptions / sizeof *descriptions && !found; i++) {
        if (S_ISREG(st.st_mode) && strcmp(name, descriptions[i]) == 0) {
            found = true;
            folder = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
        }
    }
    *rc = found && !folder ? -1 : 0;
    return folder;
}

static int read_path(struct weights *w, char *err, size_t errlen)
{
    int rc;
    w->folder = folder_of(w->path, &rc);
    if (rc)
        return err_set(err, errlen, "%s: out of memory", w->path);
    if (w->folder)
        return folder_read(w, err, errlen);
    return weights_add_file(w, w->path, err, errlen) || read_by_kind(w, err, errlen) ? -1 : 0;
}

int weights_open(struct weights **out, const char *path, const struct weights_options *opt, char *err,
                 size_t errlen)
{
    *out = NULL;
    struct weights *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return err_set(err, errlen, "%s: out of memory", path);
    }
    if (opt)
        w->opt = *opt;
    if (read_path(w, err, errlen) || weights_index(w, err, errlen) || check_overlaps(w, err, errlen)) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_files; i++) {
        struct mapped_file *f = &w->file[i];
        void *data = (void *)f->data; /* ours: const only to keep readers from writing */
        if (f->mapped)
            (void)munmap(data, (size_t)f->size);
        else {
            if (data && w->opt.mlock)
                (void)munlock(data, (size_t)f->size);
            free(data);
        }
        free(f->name);
    }
    while (w->chunks) {
        struct chunk *next = w->chunks->next;
        free(w->chunks);
        w->chunks = next;
    }
    free(w->file);
    free(w->tensor);
    free(w->meta);
    free(w->tensor_index);
    free(w->meta_index);
    free(w->folder);
    free(w->path);
    free(w);
}

/* ---- Getters --------------------------------------------------------------------------------- */

const char *weights_path(const struct weights *w)
{
    return w->path;
}

const char *weights_folder(const struct weights *w)
{
    return w->folder;
}

const char *weights_format(const struct weights *w)
{
    return w->format;
}

int weights_n_files(const struct weights *w)
{
    return w->n_files;
}

const char *weights_file_name(const struct weights *w, int file)
{
    return w->file[file].name;
}

uint64_t weights_file_bytes(const struct weights *w)
{
    uint64_t sum = 0;
    for (int i = 0; i < w->n_files; i++)
        sum += w->file[i].size;
    return sum;
}

size_t weights_n_tensors(const struct weights *w)
{
    return w->n_tensors;
}

const struct tensor *weights_tensor(const struct weights *w, size_t i)
{
    return &w->tensor[i];
}

const struct tensor *weights_find(const struct weights *w, const char *name)
{
    return find_by_name(w->tensor_index, w->n_tensors, name);
}

size_t weights_n_meta(const struct weights *w)
{
    return w->n_meta;
}

const struct meta *weights_meta(const struct weights *w, size_t i)
{
    return &w->meta[i];
}

const struct meta *weights_meta_find(const struct weights *w, const char *key)
{
    return find_by_name(w->meta_index, w->n_meta, key);
}
