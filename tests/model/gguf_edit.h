/* A GGUF file in memory that tests change and write again: every field of struct gguf_tensor may be set
 * directly. Helpers abort the test (ck_assert) on misuse. */
#ifndef QUOLL_GGUF_EDIT_H
#define QUOLL_GGUF_EDIT_H

#include <stddef.h>
#include <stdint.h>

struct gguf_tensor {
    char name[128];
    uint32_t n_dims, type; /* type: GGUF's number */
    uint64_t dims[4];
    void *data; /* malloc'ed */
    size_t bytes;
};

struct gguf_key {
    char name[128];
    uint32_t type;
    void *value; /* as in the file, malloc'ed */
    size_t bytes;
};

struct gguf {
    struct gguf_key *key;
    size_t n_keys;
    struct gguf_tensor *tensor;
    size_t n_tensors;
};

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_STRING = 8, GGUF_ARRAY = 9 };

struct gguf *gguf_read(const char *path);
void gguf_free(struct gguf *g);

/* A key's value, replaced or added. */
void gguf_set(struct gguf *g, const char *name, uint32_t type, const void *value, size_t bytes);
void gguf_set_u32(struct gguf *g, const char *name, uint32_t v);
void gguf_set_f32(struct gguf *g, const char *name, float v);
void gguf_set_str(struct gguf *g, const char *name, const char *v);
void gguf_set_array(struct gguf *g, const char *name, const uint32_t *v, size_t n);
void gguf_remove_key(struct gguf *g, const char *name);

struct gguf_tensor *gguf_find(struct gguf *g, const char *name);
void gguf_remove_tensor(struct gguf *g, const char *name);
/* A new vector of F32. */
struct gguf_tensor *gguf_add(struct gguf *g, const char *name, const float *v, size_t n);

/* Writes a temporary file; its path is lent until the next call. */
const char *gguf_write(const struct gguf *g);

#endif
