/* Packed weights kept in a file (--pack-cache DIR), so that the next start maps them instead of packing.
 *
 * DIR holds one file per model and way of loading it:
 *
 *     NAME-FINGERPRINT.packed    NAME: of the model's file or folder, FINGERPRINT: 32 hexadecimal digits
 *
 *     struct head                magic, layout, version, fingerprint, how many matrices, bytes of the file
 *     struct head_matrix [n]     role, layer, expert, type, shape, offset, bytes
 *     zeros                      to a multiple of 4096 bytes
 *     the matrices               as kernels/pack.h draws them, at multiples of 64 bytes
 *
 * The fingerprint (FNV-1a, 128 bits) covers all that the packed bytes depend on: the layout's version and the
 * program's; size and time of modification of each source file; names, types, shapes and offsets of its
 * tensors and 64 bytes from the middle of each; and for every matrix which rows of which tensors it is made
 * of, and how. So a changed model, another --quantize or another version of the program have another file,
 * and adapters (which are kept apart from the matrices) have the same one.
 *
 * Nothing in a file is believed: its size must be, and the head must equal to the byte, what this load would
 * write. Else it is made anew, with a note. The matrices' bytes are taken as they are (any bytes are safe to
 * compute with, as in a model file), so DIR should be writable by nobody else; a damaged disk is not noticed.
 *
 * A file appears complete or not at all: it is written without a name (where the file system cannot do that,
 * under a temporary one), synced, and given its own. So processes may share DIR, and one that is stopped
 * leaves nothing behind. A file that is replaced goes on existing for those who have it mapped; cutting one
 * while it is mapped ends them (SIGBUS), as for models, and nothing here does it.
 *
 * No file is ever deleted, except a damaged one with the very name that is wanted; what other versions and
 * options have left is counted in a note, for the user to remove. */
#ifndef QUOLL_PACK_CACHE_H
#define QUOLL_PACK_CACHE_H

#include "model/image.h"

struct pack_cache {
    const struct model_options *opt;
    char *path, *head; /* NULL: there is no cache, and the functions below do nothing */
    size_t head_bytes;
    uint64_t bytes; /* of the whole file */
};

/* Bytes that come before n matrices; 0: no cache is asked for. */
size_t pack_cache_head_bytes(const struct model_options *opt, size_t n);
/* The cache of an image that has these matrices and so many bytes, its head included. */
void pack_cache_open(struct pack_cache *k, const struct weights *w, const struct slot *s, size_t n,
                     uint64_t bytes, const struct model_options *opt);
/* The image, mapped; NULL: there is no file, or no good one. */
void *pack_cache_map(struct pack_cache *k);
/* Writes the file from an image whose first head_bytes are free. When that fails a note says why, and
 * everything goes on. */
void pack_cache_write(struct pack_cache *k, void *image);
void pack_cache_close(struct pack_cache *k);

#endif
