/* The directory of a zip archive whose entries are stored as they are, as torch.save writes them. Private to
 * weights/. */
#ifndef QUOLL_ZIP_H
#define QUOLL_ZIP_H

#include <stddef.h>
#include <stdint.h>

struct zip_entry {
    const char *name; /* in the file, not NUL-terminated */
    size_t name_len;
    uint64_t offset, size; /* of its bytes in the file, inside it */
};

/* The entries of the archive data[size], sorted by name, for the caller to free. Compressed or encrypted
 * entries, two of the same name and whatever does not lie in the file are errors. */
int zip_read(const char *path, const uint8_t *data, uint64_t size, struct zip_entry **entries, size_t *n,
             char *err, size_t errlen);

/* The entry PREFIX NAME, NULL: none. */
const struct zip_entry *zip_find(const struct zip_entry *entries, size_t n, const char *prefix,
                                 size_t prefix_len, const char *name, size_t name_len);

#endif
