#include "weights/save.h"

#include "quant/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int save_open(struct save_file *f, const char *path, char *err, size_t errlen)
{
    struct stat st;
    *f = (struct save_file){.path = path, .fd = -1, .err = err, .errlen = errlen};
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

int save_write(struct save_file *f, const void *data, uint64_t n)
{
    f->at += n;
    for (const char *p = data; n > 0;) {
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
    if (f->temporary && rc)
        (void)unlink(f->temporary);
    free(f->temporary);
    return rc;
}
