/* Zip archives of a test, built in memory: stored entries, no checksums (nobody reads them). */
#ifndef QUOLL_TEST_ZIP_BUILD_H
#define QUOLL_TEST_ZIP_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ZIP_BUILD_MAX = 16 };

struct zip_build {
    uint8_t *data;
    size_t len;
    bool zip64; /* sizes and offsets in zip64 fields, and a zip64 end record; set it before adding */
    size_t n, local[ZIP_BUILD_MAX], bytes[ZIP_BUILD_MAX];
    char name[ZIP_BUILD_MAX][32];
    size_t central[ZIP_BUILD_MAX], end; /* where the headers are, once finished */
};

void zip_build_add(struct zip_build *z, const char *name, const void *data, size_t len);
void zip_build_finish(struct zip_build *z); /* writes the directory */
void zip_build_free(struct zip_build *z);

#endif
