#include "model/pack_cache.h"

#include "quant/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE = 4096, /* of the file: the same on every machine */
    SAMPLE_BYTES = 64,
    STEM_BYTES = 64,        /* of the model's name in the file's */
    WRITE_BYTES = 64 << 20, /* at a time: whole huge pages of the system's cache, and then stop is asked */
    FINGERPRINT_DIGITS = 32,
};

static const char magic[8] = "quollpk\n", ending[] = ".packed";

struct head {
    char magic[8];
    int32_t layout, n_matrices;
    char version[32];
    unsigned __int128 fingerprint;
    uint64_t bytes; /* of the file */
};

struct head_matrix {
    int32_t role, layer, expert, type;
    int64_t rows, cols;
    uint64_t offset, bytes;
};

__attribute__((format(printf, 3, 4))) static void note(const struct pack_cache *k, bool important,
                                                       const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (!k->opt->note)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    k->opt->note(important, text);
}

/* ---- Fingerprint: FNV-1a with 128 bits (G. Fowler, L. C. Noll, K.-P. Vo) ------------------------- */

static void mix(unsigned __int128 *h, const void *data, size_t n)
{
    const unsigned __int128 prime = (unsigned __int128)1 << 88 | 0x13b;
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        *h = (*h ^ p[i]) * prime;
}

static void mix_int(unsigned __int128 *h, int64_t v)
{
    mix(h, &v, sizeof v);
}

static void mix_text(unsigned __int128 *h, const char *s)
{
    mix(h, s, strlen(s) + 1);
}

static void mix_tensor(unsigned __int128 *h, const struct tensor *t)
{
    uint64_t n = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;
    mix_text(h, t->name);
    mix_int(h, t->type);
    mix_int(h, t->n_dims);
    for (int d = 0; d < WEIGHTS_MAX_DIMS; d++)
        mix_int(h, t->dims[d]);
    mix_int(h, t->file);
    mix_int(h, (int64_t)t->offset);
    mix(h, (const char *)t->data + (t->bytes - n) / 2, (size_t)n);
}

static void mix_source(unsigned __int128 *h, const struct source *s)
{
    const struct tensor *all[] = {s->tensor, s->scales, s->zeros, s->order};
    const int64_t all_ints[] = {s->kind,   s->rows,     s->cols,       s->first, s->run,
                                s->stride, s->head_len, s->pair_len,   s->type,  s->quantise,
                                s->bits,   s->group,    s->zero_offset};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mix_text(h, all[i] ? all[i]->name : "");
    mix(h, all_ints, sizeof all_ints);
    if (s->sorted)
        mix(h, s->sorted, (size_t)s->cols * sizeof *s->sorted);
}

/* −1: a source file is gone. */
static int fingerprint(unsigned __int128 *h, const struct weights *w, const struct slot *s, size_t n,
                       const struct model_options *opt)
{
    *h = (unsigned __int128)0x6c62272e07bb0142 << 64 | 0x62b821756295c58d;
    mix_text(h, opt->ops->name);
    mix_int(h, opt->ops->packed_layout);
    mix_text(h, opt->pack_version);
    for (int i = 0; i < weights_n_files(w); i++) {
        struct stat st;
        if (stat(weights_file_name(w, i), &st))
            return -1;
        mix_int(h, st.st_size);
        mix_int(h, st.st_mtim.tv_sec);
        mix_int(h, st.st_mtim.tv_nsec);
    }
    for (size_t i = 0; i < weights_n_tensors(w); i++)
        mix_tensor(h, weights_tensor(w, i));
    for (size_t i = 0; i < n; i++)
        mix_source(h, &s[i].binding->source);
    return 0;
}

/* ---- What the file begins with ------------------------------------------------------------------- */

size_t pack_cache_head_bytes(const struct model_options *opt, size_t n)
{
    size_t bytes = sizeof(struct head) + n * sizeof(struct head_matrix);
    return opt->pack_cache ? (bytes + PAGE - 1) / PAGE * PAGE : 0;
}

static void fill_head(struct pack_cache *k, unsigned __int128 h, const struct slot *s, size_t n)
{
    struct head *head = (struct head *)(void *)k->head;
    struct head_matrix *x = (struct head_matrix *)(void *)(head + 1);
    memcpy(head->magic, magic, sizeof magic);
    head->layout = k->opt->ops->packed_layout;
    head->n_matrices = (int32_t)n;
    (void)snprintf(head->version, sizeof head->version, "%s", k->opt->pack_version);
    head->fingerprint = h;
    head->bytes = k->bytes;
    for (size_t i = 0; i < n; i++) {
        const struct binding *b = s[i].binding;
        const struct packed *p = s[i].packed;
        x[i] = (struct head_matrix){(int32_t)b->role, b->layer, b->expert,   (int32_t)p->type,
                                    p->rows,          p->cols,  s[i].offset, packed_bytes(p)};
    }
}

/* The model's name as part of a file's: what follows the last slash, without .gguf; letters, digits and a
 * few signs. */
static void write_stem(char stem[STEM_BYTES], const struct weights *w)
{
    const char *path = weights_folder(w) ? weights_folder(w) : weights_path(w);
    char *whole = realpath(path, NULL), *slash = strrchr(whole ? whole : path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t len = strlen(name), n = 0;
    if (len > 5 && strcmp(name + len - 5, ".gguf") == 0)
        len -= 5;
    for (; n < len && n < STEM_BYTES - 1; n++) {
        char c = name[n];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        stem[n] = plain || (n > 0 && (c == '.' || c == '-')) ? c : '_';
    }
    stem[n] = '\0';
    free(whole);
}

static int make_folder(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -1;
    for (char *c = copy + 1; copy[0] && *c; c++)
        if (*c == '/') {
            *c = '\0';
            (void)mkdir(copy, 0777); /* what is missing at the end is told then */
            *c = '/';
        }
    int rc = mkdir(copy, 0777) && errno != EEXIST ? -1 : 0;
    free(copy);
    return rc;
}

void pack_cache_open(struct pack_cache *k, const struct weights *w, const struct slot *s, size_t n,
                     uint64_t bytes, const struct model_options *opt)
{
    unsigned __int128 h;
    char stem[STEM_BYTES];
    *k = (struct pack_cache){.opt = opt, .head_bytes = pack_cache_head_bytes(opt, n), .bytes = bytes};
    if (!opt->pack_cache || n == 0 || weights_n_files(w) == 0)
        return;
    if (fingerprint(&h, w, s, n, opt)) {
        note(k, true, "warning: %s: a file of it has gone: packed weights are neither read nor kept",
             weights_path(w));
        return;
    }
    write_stem(stem, w);
    k->head = calloc(1, k->head_bytes);
    if (!k->head || asprintf(&k->path, "%s/%s-%016" PRIx64 "%016" PRIx64 "%s", opt->pack_cache, stem,
                             (uint64_t)(h >> 64), (uint64_t)h, ending) < 0) {
        k->path = NULL;
        note(k, true, "warning: %s: out of memory: packed weights are neither read nor kept",
             opt->pack_cache);
        return;
    }
    fill_head(k, h, s, n);
}

void pack_cache_close(struct pack_cache *k)
{
    free(k->path);
    free(k->head);
    k->path = k->head = NULL;
}

/* ---- Reading ------------------------------------------------------------------------------------- */

/* Is it byte for byte what this load would write, as far as that can be told without its matrices? */
static bool is_ours(const struct pack_cache *k, int fd)
{
    struct stat st;
    char *head = NULL;
    bool ours = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == k->bytes &&
                (head = malloc(k->head_bytes)) &&
                pread(fd, head, k->head_bytes, 0) == (ssize_t)k->head_bytes &&
                memcmp(head, k->head, k->head_bytes) == 0;
    free(head);
    return ours;
}

void *pack_cache_map(struct pack_cache *k)
{
    if (!k->path)
        return NULL;
    int fd = open(k->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        if (errno != ENOENT && errno != ENOTDIR) { /* somebody else's, perhaps: it stays */
            note(k, true, "warning: %s: cannot be read: %s", k->path, strerror(errno));
            pack_cache_close(k);
        }
        return NULL;
    }
    void *image = MAP_FAILED;
    if (is_ours(k, fd))
        image = mmap(NULL, (size_t)k->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    else
        note(k, true, "note: %s: is damaged, and made anew", k->path);
    (void)close(fd);
    if (image == MAP_FAILED)
        return NULL;
    /* What is not in memory yet comes while the rest of the load goes on. */
    (void)madvise(image, (size_t)k->bytes, MADV_WILLNEED);
    note(k, false, "packed weights: %.1f MiB from %s", (double)k->bytes / (1 << 20), k->path);
    return image;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

/* A file that has no name yet; where the file system has no such thing, one with the temporary name. */
static int create(const struct pack_cache *k, const char *temporary, bool *named)
{
    int fd = open(k->opt->pack_cache, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    *named = fd < 0;
    return fd >= 0 ? fd : open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
}

static int write_all(const struct pack_cache *k, int fd, const char *image)
{
    /* A full disk is known at once where the file system can promise space. */
    if (fallocate(fd, 0, 0, (off_t)k->bytes) && errno != EOPNOTSUPP && errno != ENOSYS)
        return -1;
    for (uint64_t at = 0; at < k->bytes;) {
        uint64_t end = (at / WRITE_BYTES + 1) * WRITE_BYTES;
        if (k->opt->stop && k->opt->stop()) {
            errno = ECANCELED;
            return -1;
        }
        ssize_t done = write(fd, image + at, (size_t)((end < k->bytes ? end : k->bytes) - at));
        if (done < 0 && errno != EINTR)
            return -1;
        at += done > 0 ? (uint64_t)done : 0;
    }
    return fsync(fd);
}

/* The finished file replaces what has its name. */
static int publish(const struct pack_cache *k, int fd, const char *temporary, bool named)
{
    char by_number[64];
    (void)snprintf(by_number, sizeof by_number, "/proc/self/fd/%d", fd);
    if (!named) {
        (void)unlink(temporary); /* of a process that had our number and did not come to its end */
        if (linkat(AT_FDCWD, by_number, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW))
            return -1;
    }
    return rename(temporary, k->path);
}

/* Files of the same model that are not this one: NAME and a fingerprint that differ in the latter alone. */
static void count_others(const struct pack_cache *k)
{
    const char *own = strrchr(k->path, '/') + 1;
    const size_t len = strlen(own), tail = FINGERPRINT_DIGITS + sizeof ending - 1;
    DIR *folder = opendir(k->opt->pack_cache);
    uint64_t n = 0, bytes = 0;
    for (struct dirent *e; folder && (e = readdir(folder));) {
        struct stat st;
        if (strlen(e->d_name) != len || memcmp(e->d_name, own, len - tail) != 0 ||
            strcmp(e->d_name + len - sizeof ending + 1, ending) != 0 || strcmp(e->d_name, own) == 0 ||
            fstatat(dirfd(folder), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        n++;
        bytes += (uint64_t)st.st_size;
    }
    if (folder)
        (void)closedir(folder);
    if (n > 0)
        note(k, false, "note: %s has %" PRIu64 " more of this model (%.1f MiB), of other versions or options",
             k->opt->pack_cache, n, (double)bytes / (1 << 20));
}

void pack_cache_write(struct pack_cache *k, void *image)
{
    if (!k->path)
        return;
    memcpy(image, k->head, k->head_bytes);
    char *temporary = NULL;
    int fd = -1, why = ENOMEM;
    bool named, failed = true;
    if (asprintf(&temporary, "%s.%ld.tmp", k->path, (long)getpid()) >= 0) {
        failed = make_folder(k->opt->pack_cache) || (fd = create(k, temporary, &named)) < 0 ||
                 write_all(k, fd, image) || publish(k, fd, temporary, named);
        why = errno;
        if (fd >= 0)
            (void)close(fd);
        if (failed)
            (void)unlink(temporary);
        free(temporary);
    }
    if (failed) {
        note(k, true, "warning: %s: the packed weights are not kept: %s", k->opt->pack_cache, strerror(why));
        return;
    }
    note(k, false, "packed weights: %.1f MiB kept in %s", (double)k->bytes / (1 << 20), k->path);
    count_others(k);
}
