/* A GGUF file in memory that tests change and write again: every field of struct edit_tensor may be set
 * directly. Helpers abort the test (ck_assert) on misuse. */
#ifndef QUOLL_GGUF_EDIT_H
#define QUOLL_GGUF_EDIT_H

#include <stddef.h>
#include <stdint.h>

struct edit_tensor {
    char name[128];
    uint32_t n_dims, type; /* type: GGUF's number */
    uint64_t dims[4];
    void *data; /* malloc'ed */
    size_t bytes;
};

struct edit_key {
    char name[128];
    uint32_t type;
    void *value; /* as in the file, malloc'ed */
    size_t bytes;
};

struct edit {
    struct edit_key *key;
    size_t n_keys;
    struct edit_tensor *tensor;
    size_t n_tensors;
};

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_STRING = 8, GGUF_ARRAY = 9 };

struct edit *edit_read(const char *path);
void edit_free(struct edit *g);

/* A key's value, replaced or added. */
void edit_set(struct edit *g, const char *name, uint32_t type, const void *value, size_t bytes);
void edit_set_u32(struct edit *g, const char *name, uint32_t v);
void edit_set_f32(struct edit *g, const char *name, float v);
void edit_set_str(struct edit *g, const char *name, const char *v);
void edit_set_array(struct edit *g, const char *name, const uint32_t *v, size_t n);
void edit_remove_key(struct edit *g, const char *name);

struct edit_tensor *edit_find(struct edit *g, const char *name);
void edit_remove_tensor(struct edit *g, const char *name);
/* A new vector of F32. */
struct edit_tensor *edit_add(struct edit *g, const char *name, const float *v, size_t n);

/* Writes a temporary file; its path is lent until the next call. */
const char *edit_write(const struct edit *g);

#endif
