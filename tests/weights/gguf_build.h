/* Builds GGUF files in memory, good ones and, by the fields it records, bad ones.
 *
 *     struct gguf_build *b = gguf_build_new(3);
 *     gguf_build_str(b, "general.architecture", "llama"); set: replaces the key where it exists
 *     gguf_build_tensor(b, "x", QTYPE_F32, 2, (int64_t[]){4, 3}, data);
 *     gguf_build_finish(b);                               b->data, b->len
 *     gguf_build_free(b);
 *
 * Running out of memory ends the program: this is for tests. */
#ifndef QUOLL_GGUF_BUILD_H
#define QUOLL_GGUF_BUILD_H

#include "weights/weights.h"

/* What a number at a place of the image is, for mutations. */
struct gguf_field {
    const char *what; /* "string length", "count", "type", "dims", "offset", "version" */
    size_t at;
    int bytes; /* 4 or 8 */
};

struct gguf_entry; /* a key or a tensor */

struct gguf_build {
    uint32_t version;
    uint64_t alignment; /* of the data; gguf_build_new: 32, which needs no key */
    struct gguf_entry *keys, *tensors;
    size_t n_keys, n_tensors;
    uint8_t *data; /* after gguf_build_finish */
    size_t len, cap;
    size_t data_at; /* where the tensor data start */
    struct gguf_field *fields;
    size_t n_fields, field_cap;
};

struct gguf_build *gguf_build_new(uint32_t version);
void gguf_build_free(struct gguf_build *b);

/* Each replaces a key of the same name. */
void gguf_build_int(struct gguf_build *b, const char *key, enum meta_type type, int64_t v);
void gguf_build_float(struct gguf_build *b, const char *key, enum meta_type type, double v);
void gguf_build_str(struct gguf_build *b, const char *key, const char *s);
void gguf_build_strs(struct gguf_build *b, const char *key, const char *const *s, size_t n);
/* n numbers as the file will hold them. */
void gguf_build_array(struct gguf_build *b, const char *key, enum meta_type elem, const void *data,
                      uint64_t n);
/* Any type number and value bytes, beside a key of the same name where there is one. */
void gguf_build_raw(struct gguf_build *b, const char *key, size_t key_len, uint32_t type, const void *value,
                    size_t len);
bool gguf_build_remove_key(struct gguf_build *b, const char *key);

/* data NULL: zeros. Beside a tensor of the same name where there is one. */
void gguf_build_tensor(struct gguf_build *b, const char *name, enum qtype type, int n_dims,
                       const int64_t *dims, const void *data);
bool gguf_build_remove_tensor(struct gguf_build *b, const char *name);

/* Serialises; may be called again after changes. */
void gguf_build_finish(struct gguf_build *b);

#endif
