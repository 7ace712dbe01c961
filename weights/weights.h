/* weights/: containers of weight files. They parse untrusted bytes, check everything before use,
 * map files read-only and lend views; they compute nothing.
 *
 * What opens, each by a reader that fills the same struct weights:
 *
 * - GGUF v2 and v3, also split ("NAME-00001-of-00005.gguf", opened by the first file).
 *
 * - One .safetensors file.
 *
 * - One PyTorch checkpoint (.bin, .pt, .pth): the zip archives of today (stored, not compressed; zip64)
 *   and the files of before PyTorch 1.6. Nothing in it is executed: pickle opcodes and globals that state
 *   dicts do not need are errors. Tensors are named by their keys, those of a dict in the dict by both
 *   ("model.x"), 8 dicts deep; other values and keys that are no strings are passed over. Tensors may
 *   share bytes (tied embeddings, views); one that is not contiguous, or not in the file, is an error.
 *
 * - One llama2.c checkpoint, versions 0, 1 and 2, under GGUF's names ("blk.0.attn_q.weight", "output.weight"
 *   only where it is not the embedding). Its header becomes META_I64 "llama2c.dim", "….hidden_dim",
 *   "….n_layers", "….n_heads", "….n_kv_heads", "….vocab_size", "….seq_len", "….version" and META_BOOL
 *   "….shared_classifier". Version 2 also has "….group_size", and each matrix X is an I8 tensor with an F32
 *   tensor "X_scale" [rows, cols / group_size] beside it; every weight is its integer times its scale.
 *
 * - A Hugging Face folder, by its own path or that of a config.json, adapter_config.json or index in it.
 *   Its weights are the first of these that is there:
 *   1. model.safetensors.index.json, which names every tensor's file ("weight_map"; a tensor that is
 *      listed but missing, or there but not listed, is an error)
 *   2. model.safetensors, adapter_model.safetensors
 *   3. the only *.safetensors (GPTQ folders have names of their own)
 *   4. pytorch_model.bin.index.json, as 1.
 *   5. pytorch_model.bin, adapter_model.bin
 *   6. the only *.bin, *.pt or *.pth that is not left over from training and no tokenizer
 *   A folder with only GGUF files is an error that names one.
 *
 * Types: unsigned integers and booleans are lent as the signed type of the same width, same bytes; 8-bit
 * floats are refused.
 *
 * Metadata of a folder are its JSON files, flattened: names of members are joined by dots, after a prefix
 * that tells the file:
 *
 *   config.…             config.json
 *   generation_config.…  generation_config.json
 *   adapter_config.…     adapter_config.json (PEFT)
 *   params.…             params.json (Meta's LLaMA)
 *   config.quantization_config.…  where config.json says nothing there: quantize_config.json, else
 *                        quant_config.json (GPTQ and AWQ of 2023)
 *
 * So: "config.hidden_size", "config.rope_scaling.factor", "config.layer_types". Whole numbers are META_I64
 * (larger ones: an error), others META_F64, true and false META_BOOL, strings META_STRING. An array of
 * strings, booleans or numbers is a META_ARRAY of that type (I64 only if all are whole; empty: I64 with
 * n = 0), any other array is flattened by index: "config.x.0.y". null: no entry.
 *
 * Limits: JSON 64 levels deep, 2²⁰ values; a config file 4 MiB, 2¹⁷ keys of 512 bytes; safetensors
 * headers, indexes and pickles 64 MiB; 2²⁰ tensors.
 *
 * A mapped file must not be cut while it is open: touching a page that is gone ends the process (SIGBUS).
 * What no_mmap reads is a copy, and safe. */
#ifndef QUOLL_WEIGHTS_H
#define QUOLL_WEIGHTS_H

#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WEIGHTS_MAX_DIMS = 4 };

/* A string of the file: not NUL-terminated, may hold any byte. Lent by struct weights. */
struct wstr {
    const char *s;
    size_t len;
};

struct tensor {
    const char *name; /* NUL-terminated (names holding a NUL are refused), owned by struct weights */
    enum qtype type;
    int n_dims;                     /* 1 … WEIGHTS_MAX_DIMS */
    int64_t dims[WEIGHTS_MAX_DIMS]; /* dims[0] runs fastest (the row's length), unused ones are 1 */
    const void *data;               /* in the mapping; no alignment is promised */
    uint64_t bytes;
    uint64_t offset; /* of data in its file */
    int file;        /* which file of a split one, for weights_file_name */
};

/* The types of metadata values, with GGUF's numbers. */
enum meta_type {
    META_U8,
    META_I8,
    META_U16,
    META_I16,
    META_U32,
    META_I32,
    META_F32,
    META_BOOL,
    META_STRING,
    META_ARRAY,
    META_U64,
    META_I64,
    META_F64,
};

struct meta {
    const char *key;
    enum meta_type type;    /* META_ARRAY: an array of elem */
    enum meta_type elem;    /* type of the elements; same as type when no array */
    uint64_t n;             /* elements; 1 when no array */
    const void *data;       /* raw little-endian numbers; unused for strings */
    const struct wstr *str; /* strings: n of them */
};

struct weights_options {
    bool no_mmap;    /* read the files into memory instead */
    bool mlock;      /* keep the pages in memory */
    bool no_tensors; /* of a folder read only the JSON files; weights need not be there */
};

struct weights;

/* Opens a model file (kind told by its first bytes) or folder. opt NULL: all off. *out is NULL on error. */
int weights_open(struct weights **out, const char *path, const struct weights_options *opt, char *err,
                 size_t errlen);
void weights_close(struct weights *w); /* NULL is fine */

const char *weights_path(const struct weights *w); /* as it was opened */
const char *
weights_folder(const struct weights *w); /* of a folder, also if opened by its config.json; else NULL */
const char *weights_format(const struct weights *w); /* "GGUF v3", "safetensors", "PyTorch folder" */
int weights_n_files(const struct weights *w);        /* that hold weights; 0 under no_tensors */
const char *weights_file_name(const struct weights *w, int file);
uint64_t weights_file_bytes(const struct weights *w); /* sum over the files */

size_t weights_n_tensors(const struct weights *w);
const struct tensor *weights_tensor(const struct weights *w, size_t i);
const struct tensor *weights_find(const struct weights *w, const char *name); /* NULL: none; O(log n) */

size_t weights_n_meta(const struct weights *w);
const struct meta *weights_meta(const struct weights *w, size_t i);
const struct meta *weights_meta_find(const struct weights *w, const char *key);

/* ---- Made, not read: a model whose tensors are given one by one, their bytes in memory ---- */

/* name: what weights_path says and messages begin with. config: the text of a config.json, which becomes
 * metadata as a folder's does; NULL: it is read from config_path. No tensors yet. */
int weights_make(struct weights **out, const char *name, const char *config, const char *config_path,
                 char *err, size_t errlen);
/* One more tensor (dims of n_dims elements, dims[0] fastest), without data. It is found by its name after
 * the next weights_make_done. −1: a shape that the type cannot have, too many tensors, more bytes than any
 * memory. */
int weights_make_tensor(struct weights *w, const char *name, enum qtype type, int n_dims, const int64_t *dims,
                        char *err, size_t errlen);
int weights_make_done(struct weights *w, char *err, size_t errlen);
/* Memory for tensors' data, of any content; w frees it. NULL: there is not so much. */
void *weights_make_buffer(struct weights *w, uint64_t n_bytes);
/* Tensor i's bytes are these; tensors may share them. */
void weights_make_data(struct weights *w, size_t i, const void *data);

/* Element i of a value as …; false when the type does not fit (integers: any integer type or BOOL
 * whose value fits; floats: F32, F64 or any integer) or i is out of range. */
bool meta_int(const struct meta *m, uint64_t i, int64_t *out);
bool meta_float(const struct meta *m, uint64_t i, double *out);
bool meta_str(const struct meta *m, uint64_t i, struct wstr *out);
const char *meta_type_name(enum meta_type t);

/* Advice about tensor bytes [from, from + n), cut at the tensor's end. prefetch: they will be read soon
 * (all pages the range touches); drop: not needed any more, their pages may leave memory and a later read
 * brings them back (whole pages inside the range only). No effect under no_mmap or mlock. */
void weights_prefetch(const struct weights *w, const struct tensor *t, uint64_t from, uint64_t n);
void weights_drop(const struct weights *w, const struct tensor *t, uint64_t from, uint64_t n);

/* Writes a .safetensors file, to a temporary name first, then renamed. */
struct save_tensor {
    const char *name;
    enum qtype type; /* F32, F16, BF16, I8 … I64, F64 */
    int n_dims;
    int64_t dims[WEIGHTS_MAX_DIMS]; /* in the file's order: slowest first, as in Python's shape */
    const void *data;
};
int weights_save_safetensors(const char *path, const struct save_tensor *t, size_t n, char *err,
                             size_t errlen);
/* A file that takes long to write, instead of the temporary name: it grows under this one, which stays when
 * writing ends early. The first `kept` bytes are there from such a time; tensors that lie within them are not
 * asked for again, everything else in them is compared with what would be written. */
struct save_partial {
    const char *path;
    uint64_t kept;
};
/* The same where some have no data: `write` hands the bytes of tensor i to weights_save_part, as for a GGUF.
 */
struct save_file;
typedef int save_tensor_write(void *arg, size_t i, struct save_file *f);
int weights_save_safetensors_parts(const char *path, const struct save_tensor *t, size_t n,
                                   save_tensor_write *write, void *arg, const struct save_partial *partial,
                                   char *err, size_t errlen); /* partial NULL: none */

/* Writes a GGUF v3 file, likewise. Tensors come one after the other from `write`, which hands the bytes of
 * tensor i (rows dense, dims[0] fastest) to weights_save_part in as many parts as it likes; −1 ends it. */
struct save_gguf_tensor {
    const char *name;
    enum qtype type; /* one with a GGUF number */
    int n_dims;
    int64_t dims[WEIGHTS_MAX_DIMS]; /* as struct tensor has them: dims[0] fastest */
};
struct save_gguf {
    const struct meta *meta;
    const struct save_gguf_tensor *tensor;
    size_t n_meta, n_tensors;
    save_tensor_write *write;
    void *arg;
    const struct save_partial *partial; /* NULL: none */
};
int weights_save_gguf(const char *path, const struct save_gguf *g, char *err, size_t errlen);
int weights_save_part(struct save_file *f, const void *data, uint64_t n);

#endif
