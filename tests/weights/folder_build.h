/* One folder of a test under /tmp, with files written and removed by name. */
#ifndef QUOLL_TEST_FOLDER_BUILD_H
#define QUOLL_TEST_FOLDER_BUILD_H

#include <stddef.h>

extern char folder[64]; /* its path */

/* For a fixture: makes it, removes it with everything put there. */
void folder_make(void);
void folder_remove(void);

/* FOLDER/NAME; lent until the next call. */
const char *folder_path(const char *name);

/* Writes a file, anew if it is there. */
void folder_put_bytes(const char *name, const void *data, size_t len);
void folder_put(const char *name, const char *text);
/* A .safetensors file of F32 tensors of one element, with these names ("a b c"). */
void folder_put_tensors(const char *name, const char *tensors);

#endif
