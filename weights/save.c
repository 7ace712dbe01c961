#include "weights/save.h"

#include "quant/err.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that grew to at least its kept bytes before: behind them it is written again. */
static int open_partial(struct save_file *f, const struct save_partial *p)
{
    struct stat st;
    f->stays = true;
    f->kept = p->kept;
    f->temporary = strdup(p->path);
    if (!f->temporary)
        return err_set(f->err, f->errlen, "%s: out of memory", f->path);
    f->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    int rc = 0;
    if (f->fd < 0 || fstat(f->fd, &st))
        rc = err_set(f->err, f->errlen, "%s: cannot create it: %s", p->path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < p->kept)
        rc = err_set(f->err, f->errlen, "%s: is shorter than what was written to it", p->path);
    else if (ftruncate(f->fd, (off_t)p->kept) || lseek(f->fd, (off_t)p->kept, SEEK_SET) < 0)
        rc = err_set(f->err, f->errlen, "%s: cannot write it: %s", p->path, strerror(errno));
    if (rc) {
        if (f->fd >= 0)
            (void)close(f->fd);
        free(f->temporary);
    }
    return rc;
}

int save_open(struct save_file *f, const char *path, const struct save_partial *partial, char *err,
              size_t errlen)
{
    struct stat st;
    *f = (struct save_file){.path = path, .fd = -1, .err = err, .errlen = errlen};
    if (partial)
        return open_partial(f, partial);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        f->fd = open(path, O_WRONLY | O_CLOEXEC);
    } else if (asprintf(&f->temporary, "%s.%ld.tmp", path, (long)getpid()) < 0) {
        f->temporary = NULL;
        errno = ENOMEM;
    } else {
        f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    }
    if (f->fd >= 0)
        return 0;
    (void)err_set(err, errlen, "%s: cannot create it: %s", path, strerror(errno));
    free(f->temporary);
    return -1;
}

/* The next n bytes are the same in the file. */
static int compare(struct save_file *f, const char *data, uint64_t n)
{
    char there[4096];
    while (n > 0) {
        const uint64_t some = n < sizeof there ? n : sizeof there;
        if (pread(f->fd, there, (size_t)some, (off_t)f->at) != (ssize_t)some ||
            memcmp(there, data, (size_t)some) != 0)
            return err_set(f->err, f->errlen,
                           "%s: holds something else than what would be written to it, at byte %" PRIu64,
                           f->temporary, f->at);
        f->at += some;
        data += some;
        n -= some;
    }
    return 0;
}

int save_write(struct save_file *f, const void *data, uint64_t n)
{
    const char *p = data;
    if (f->at < f->kept) {
        const uint64_t there = f->kept - f->at < n ? f->kept - f->at : n;
        if (compare(f, p, there))
            return -1;
        p += there;
        n -= there;
    }
    f->at += n;
    while (n > 0) {
        ssize_t done = write(f->fd, p, (size_t)n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_set(f->err, f->errlen, "%s: cannot write it: %s", f->path,
                           strerror(done < 0 ? errno : ENOSPC));
        p += done;
        n -= (uint64_t)done;
    }
    return 0;
}

bool save_skip(struct save_file *f, uint64_t n)
{
    if (n > f->kept || f->at > f->kept - n)
        return false;
    f->at += n;
    return true;
}

int save_pad(struct save_file *f, uint64_t to)
{
    static const char zeros[64];
    uint64_t n = (to - f->at % to) % to;
    for (; n > sizeof zeros; n -= sizeof zeros)
        if (save_write(f, zeros, sizeof zeros))
            return -1;
    return save_write(f, zeros, n);
}

int save_close(struct save_file *f, int rc)
{
    if (close(f->fd) && rc == 0)
        rc = err_set(f->err, f->errlen, "%s: cannot write it: %s", f->path, strerror(errno));
    if (f->temporary && rc == 0 && rename(f->temporary, f->path))
        rc = err_set(f->err, f->errlen, "%s: cannot rename the finished file to it: %s", f->path,
                     strerror(errno));
    if (f->temporary && rc && !f->stays)
        (void)unlink(f->temporary);
    free(f->temporary);
    return rc;
}
