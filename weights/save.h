/* A file that is written under a temporary name beside the target and renamed when it is complete. For
 * formats of this folder, and for files that are no weights of the rooms above it. */
#ifndef QUOLL_SAVE_H
#define QUOLL_SAVE_H

#include "weights/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct save_file {
    const char *path;
    char *temporary; /* NULL when path is a device or a pipe, which a rename would replace */
    bool stays;      /* `temporary` is the caller's (struct save_partial) and stays when writing fails */
    int fd;
    uint64_t at;   /* bytes written */
    uint64_t kept; /* so many are there from before: they are compared, not written */
    char *err;
    size_t errlen;
};

/* path and err are kept until save_close. −1: nothing is open. partial: NULL, or where the file grows. */
int save_open(struct save_file *f, const char *path, const struct save_partial *partial, char *err,
              size_t errlen);
int save_write(struct save_file *f, const void *data, uint64_t n);
/* Passes n bytes that are there from before; false: they are not all there. */
bool save_skip(struct save_file *f, uint64_t n);
/* Zero bytes up to the next multiple of `to`. */
int save_pad(struct save_file *f, uint64_t to);
/* rc 0: the file gets its name. Else what was written goes away, unless it stays. Returns rc, or −1 when that
 * fails. */
int save_close(struct save_file *f, int rc);

#endif
