#include "lab/journal.h"

#include "quant/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { VERSION = 1, DUE_SECONDS = 2 };

static const char journal_name[] = "journal.json", temporary_name[] = "journal.tmp";

struct journal {
    char *folder, *file; /* file: its path, NULL before journal_begin */
    const char *name;    /* … in the folder */
    const char *program;
    int fd;        /* of the folder; holds the lock */
    json_t *facts; /* NULL: there are none yet */
    uint64_t bytes;
    int layer;
    bool finished;
    double kept_at; /* seconds */
};

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- The folder --------------------------------------------------------------------------------- */

/* Removes its files whose name begins so. */
static void remove_files(const struct journal *j, const char *prefix)
{
    const int fd = dup(j->fd);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *e;
    if (!d) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    rewinddir(d);
    while ((e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strncmp(e->d_name, prefix, strlen(prefix)) == 0)
            (void)unlinkat(j->fd, e->d_name, 0);
    (void)closedir(d);
}

/* Nothing is in it, or only a journal that a run was killed over. */
static bool is_empty(const char *folder)
{
    DIR *d = opendir(folder);
    const struct dirent *e;
    bool empty = true;
    while (d && (e = readdir(d)) != NULL)
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                          strcmp(e->d_name, temporary_name) == 0);
    if (d)
        (void)closedir(d);
    return empty;
}

static int make_folder(struct journal *j, char *err, size_t errlen)
{
    if (mkdir(j->folder, 0777) && errno != EEXIST)
        return err_set(err, errlen, "%s: cannot create it: %s", j->folder, strerror(errno));
    j->fd = open(j->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (j->fd < 0)
        return err_set(err, errlen, "%s: cannot be used: %s", j->folder, strerror(errno));
    /* Where a file system has no locks, two at once are the user's business. */
    if (flock(j->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        (void)close(j->fd);
        j->fd = -1;
        return err_set(err, errlen, "%s: another process is writing it", j->folder);
    }
    return 0;
}

/* ---- The journal -------------------------------------------------------------------------------- */

/* Writes a file of the folder, all the way to the disk. */
static int write_file(const struct journal *j, const char *name, const void *data, size_t n, char *err,
                      size_t errlen)
{
    const int fd = openat(j->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    bool good = fd >= 0;
    for (const char *p = data; good && n > 0;) {
        const ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        good = done > 0;
        p += good ? done : 0;
        n -= good ? (size_t)done : 0;
    }
    good = good && fsync(fd) == 0;
    const int number = errno;
    if (fd >= 0)
        (void)close(fd);
    return good ? 0 : err_set(err, errlen, "%s/%s: cannot write it: %s", j->folder, name, strerror(number));
}

static int write_journal(const struct journal *j, uint64_t bytes, int layer, char *err, size_t errlen)
{
    json_t *all = json_pack("{s:i, s:s, s:I, s:i, s:O}", "version", VERSION, "file", j->name, "bytes",
                            (json_int_t)bytes, "layer", layer, "facts", j->facts);
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    int rc = text ? write_file(j, temporary_name, text, strlen(text), err, errlen)
                  : err_set(err, errlen, "%s: out of memory", j->folder);
    if (rc == 0 && (renameat(j->fd, temporary_name, j->fd, journal_name) || fsync(j->fd)))
        rc = err_set(err, errlen, "%s/%s: cannot write it: %s", j->folder, journal_name, strerror(errno));
    free(text);
    json_decref(all);
    return rc;
}

/* What an earlier run left; j->facts stays NULL where nothing was worth keeping. */
static int read_journal(struct journal *j, char *err, size_t errlen)
{
    const int fd = openat(j->fd, journal_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT && is_empty(j->folder))
        return 0;
    json_t *all = fd >= 0 ? json_loadfd(fd, 0, NULL) : NULL, *facts;
    json_int_t bytes = 0;
    int version = 0, layer = -1;
    const char *file;
    if (fd >= 0)
        (void)close(fd);
    int rc = all && json_unpack(all, "{s:i, s:s, s:I, s:i, s:o}", "version", &version, "file", &file, "bytes",
                                &bytes, "layer", &layer, "facts", &facts) == 0
                 ? 0
                 : -1;
    if (rc || version != VERSION || bytes < 0 || layer < -1 || !json_is_object(facts))
        rc = err_set(err, errlen, "%s: is no folder that an interrupted run left", j->folder);
    /* Without the file it was killed when that had got its name. */
    if (rc == 0 && bytes > 0 && faccessat(j->fd, file, F_OK, 0) == 0) {
        j->bytes = (uint64_t)bytes;
        j->layer = layer;
        j->facts = json_incref(facts);
    }
    json_decref(all);
    return rc;
}

/* ---- Life --------------------------------------------------------------------------------------- */

static void free_journal(struct journal *j)
{
    if (j->fd >= 0)
        (void)close(j->fd);
    json_decref(j->facts);
    free(j->folder);
    free(j->file);
    free(j);
}

int journal_open(struct journal **out, const char *path, const char *program, bool resume, char *err,
                 size_t errlen)
{
    size_t len = strlen(path);
    *out = NULL;
    while (len > 1 && path[len - 1] == '/')
        len--;
    struct journal *j = calloc(1, sizeof *j);
    if (!j)
        return err_set(err, errlen, "%s: out of memory", path);
    j->fd = -1;
    j->layer = -1;
    j->program = program;
    j->kept_at = seconds();
    int rc = 0;
    if (asprintf(&j->folder, "%.*s.part", (int)len, path) < 0) {
        j->folder = NULL;
        rc = err_set(err, errlen, "%s: out of memory", path);
    }
    if (rc == 0)
        rc = make_folder(j, err, errlen);
    if (rc == 0)
        rc = read_journal(j, err, errlen);
    if (rc == 0 && j->facts && !resume)
        rc = err_set(err, errlen, "%s: an interrupted run left it: --resume goes on with it, or delete it",
                     j->folder);
    if (rc) {
        free_journal(j);
        return -1;
    }
    *out = j;
    return 0;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    if (j->finished || j->bytes == 0) {
        remove_files(j, j->finished ? "rows." : "");
        remove_files(j, "journal.");
        (void)rmdir(j->folder);
    } else if (j->file) {
        (void)truncate(j->file, (off_t)j->bytes); /* what cannot be used need not fill the disk */
    }
    free_journal(j);
}

static int say_difference(const struct journal *j, const char *key, const json_t *was, const json_t *is,
                          char *err, size_t errlen)
{
    const bool scalar = !json_is_array(was) && !json_is_object(was);
    char *a = was && scalar ? json_dumps(was, JSON_ENCODE_ANY) : NULL,
         *b = is && scalar ? json_dumps(is, JSON_ENCODE_ANY) : NULL;
    if (a && b)
        (void)err_set(err, errlen, "%s: was begun with %s %s, not %s: give the same options, or delete it",
                      j->folder, key, a, b);
    else
        (void)err_set(err, errlen, "%s: was begun with another %s: give the same options, or delete it",
                      j->folder, key);
    free(a);
    free(b);
    return -1;
}

int journal_begin(struct journal *j, json_t *facts, const char *file, char *err, size_t errlen)
{
    const char *key;
    json_t *value;
    int rc = 0;
    if (json_object_set_new(facts, "program", json_string(j->program)) ||
        asprintf(&j->file, "%s/%s", j->folder, file) < 0) {
        json_decref(facts);
        j->file = NULL;
        return err_set(err, errlen, "%s: out of memory", j->folder);
    }
    j->name = file;
    json_object_foreach(facts, key, value)
    {
        const json_t *was = json_object_get(j->facts, key);
        if (rc == 0 && j->facts && !json_equal(was, value))
            rc = say_difference(j, key, was, value, err, errlen);
    }
    json_object_foreach(j->facts, key, value) if (rc == 0 && !json_object_get(facts, key)) rc =
        say_difference(j, key, value, NULL, err, errlen);
    if (rc == 0 && !j->facts) {
        remove_files(j, ""); /* of a run that was killed at once */
        j->facts = json_incref(facts);
        rc = write_journal(j, 0, -1, err, errlen);
    }
    json_decref(facts);
    return rc;
}

/* ---- What is kept ------------------------------------------------------------------------------- */

const char *journal_folder(const struct journal *j)
{
    return j->folder;
}

const char *journal_file_path(const struct journal *j)
{
    return j->file;
}

uint64_t journal_bytes(const struct journal *j)
{
    return j->bytes;
}

int journal_layer(const struct journal *j)
{
    return j->layer;
}

static void rows_name(char name[32], int layer)
{
    (void)snprintf(name, 32, "rows.%d", layer);
}

int journal_read_rows(const struct journal *j, float *rows, size_t n, char *err, size_t errlen)
{
    char name[32];
    struct stat st;
    rows_name(name, j->layer);
    const int fd = openat(j->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool good = fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size == n * sizeof *rows;
    for (size_t at = 0; good && at < n * sizeof *rows;) {
        const ssize_t done = pread(fd, (char *)rows + at, n * sizeof *rows - at, (off_t)at);
        good = done > 0;
        at += good ? (size_t)done : 0;
    }
    if (fd >= 0)
        (void)close(fd);
    return good ? 0 : err_set(err, errlen, "%s/%s: cannot be read: delete the folder", j->folder, name);
}

/* The growing file's first bytes are on the disk, and it has no others, which may have filled that. */
static int sync_file(const struct journal *j, uint64_t bytes, char *err, size_t errlen)
{
    const int fd = open(j->file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    const bool good = fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 && fsync(fd) == 0;
    const int number = errno;
    if (fd >= 0)
        (void)close(fd);
    return good ? 0 : err_set(err, errlen, "%s: cannot write it: %s", j->file, strerror(number));
}

int journal_keep(struct journal *j, uint64_t bytes, int layer, const float *rows, size_t n, char *err,
                 size_t errlen)
{
    char name[32];
    rows_name(name, layer);
    if ((rows && write_file(j, name, rows, n * sizeof *rows, err, errlen)) ||
        sync_file(j, bytes, err, errlen) || write_journal(j, bytes, layer, err, errlen))
        return -1;
    if (layer != j->layer) {
        rows_name(name, j->layer);
        (void)unlinkat(j->fd, name, 0);
    }
    j->bytes = bytes;
    j->layer = layer;
    j->kept_at = seconds();
    return 0;
}

bool journal_is_due(const struct journal *j)
{
    return seconds() - j->kept_at > DUE_SECONDS;
}

void journal_finish(struct journal *j)
{
    j->finished = true;
}
