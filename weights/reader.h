/* What the readers of weights/ share: struct weights itself and the steps that fill it. Private to this
 * folder; a reader maps files, adds metadata and tensors, and leaves lookup, duplicates and overlaps to
 * weights_open. */
#ifndef QUOLL_READER_H
#define QUOLL_READER_H

#include "weights/weights.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the readers take numbers from the file as they are");

/* Limits far above any real model, so that a hostile file costs neither much memory nor much time. */
enum {
    WEIGHTS_MAX_TENSORS = 1 << 20,
    WEIGHTS_MAX_KEYS = 1 << 20,
    WEIGHTS_MAX_STRINGS = 1 << 24, /* in the metadata of a model, together */
    WEIGHTS_MAX_NAME = 65535,      /* bytes of a key or of a tensor's name */
};

struct mapped_file {
    char *name;
    const uint8_t *data;
    uint64_t size;
    bool mapped; /* by mmap; else read into memory */
    bool shared; /* tensors may share bytes: they are views of storages */
};

struct chunk; /* of the arena that holds names and arrays of strings */

struct weights {
    char *path;
    char *folder; /* NULL: a file was opened */
    const char *format;
    struct weights_options opt;
    struct mapped_file *file;
    struct tensor *tensor;
    struct meta *meta;
    int n_files;
    size_t n_tensors, n_meta, n_strings;
    size_t file_cap, tensor_cap, meta_cap;   /* elements allocated */
    const void **tensor_index, **meta_index; /* pointers into the arrays, sorted by name */
    struct chunk *chunks;
    uint64_t made_bytes; /* of the tensors that weights_make_tensor added */
};

/* One more file, without bytes yet; NULL: out of memory. */
struct mapped_file *weights_new_file(struct weights *w, const char *name);
/* Maps (or reads) one more file, whole: w->file[w->n_files - 1]. Refuses what is no regular file. */
int weights_add_file(struct weights *w, const char *path, char *err, size_t errlen);

/* One more element at the end, zero; NULL: out of memory. Pointers to others of its kind may move. */
struct tensor *weights_add_tensor(struct weights *w);
struct meta *weights_add_meta(struct weights *w);

/* Memory that lives as long as w, NULL: none left. */
void *weights_alloc(struct weights *w, size_t n_bytes);
char *weights_copy_string(struct weights *w, const char *s, size_t len);

/* Why s cannot be the name of a tensor or a key ("is empty", …); NULL: it can. Control characters are
 * refused so that no error message drives a terminal. */
const char *weights_name_fault(const char *s, size_t len);

/* Elements of a tensor and, from them, t->bytes; a message without file or tensor name on overflow or a
 * row that is no multiple of the type's block. */
int weights_tensor_size(struct tensor *t, char *err, size_t errlen);

/* Sorts what lookup needs, when all tensors and metadata are there; once more when there are more. Fails
 * when two of a kind have the same name. */
int weights_index(struct weights *w, char *err, size_t errlen);

/* Fails when two of the metadata w->meta[first …] have the same key. */
int weights_check_keys(const struct weights *w, const char *path, size_t first, char *err, size_t errlen);

/* Bytes of one number of a metadata type; 0 for strings and arrays. */
unsigned meta_type_bytes(enum meta_type t);

/* The dtypes of safetensors that have a type here; ends with a NULL name. */
struct safetensors_dtype {
    const char *name;
    enum qtype type;
};
extern const struct safetensors_dtype safetensors_dtypes[];

bool weights_ends_with(const char *s, const char *end);

/* Parses JSON within limits of depth and number of values. NULL: why says what is wrong ("is no valid JSON
 * (byte 12)"), places counted from base. Names that occur twice in an object: an error, or the last counts
 * (as in Python). */
struct json_t *weights_parse_json(const void *data, size_t len, uint64_t base, bool unique_names, char *why,
                                  size_t whylen);
/* The same from a file of at most max_bytes that holds an object; NULL: err is filled. */
struct json_t *weights_read_json(const char *path, size_t max_bytes, bool unique_names, char *err,
                                 size_t errlen);
/* A JSON file as metadata "prefix.key", flattened as weights.h says; the same of a text, called `path` in
 * messages. */
int weights_add_json(struct weights *w, const char *path, const char *prefix, char *err, size_t errlen);
int weights_add_json_text(struct weights *w, const char *text, const char *path, const char *prefix,
                          char *err, size_t errlen);

/* The readers: w->file[file] is mapped (gguf_read: the only one so far), the rest of w is theirs to fill. */
int gguf_read(struct weights *w, char *err, size_t errlen);
int safetensors_read(struct weights *w, int file, char *err, size_t errlen);
int torch_read(struct weights *w, int file, char *err, size_t errlen);
int llama2c_read(struct weights *w, int file, char *err, size_t errlen);
/* Whether a file begins as one of these readers' files do. */
bool torch_is(const struct mapped_file *f);
bool llama2c_is(const struct mapped_file *f);
/* Reads the folder w->folder; its files are opened here. */
int folder_read(struct weights *w, char *err, size_t errlen);

#endif
