/* What the files of a model say about text: shared by tools/vocab*.c. */
#ifndef QUOLL_VOCAB_H
#define QUOLL_VOCAB_H

#include "tools/tools.h"

#include <jansson.h>

/* tools/vocab_gguf.c: from a GGUF's metadata. */
int vocab_from_gguf(struct tokenizer **out, const struct weights *w, char *err, size_t errlen);

/* tools/vocab_files.c: the small files beside a vocabulary, read for hints. */
struct vocab_files {
    json_t *config, *generation_config, *tokenizer_config, *special_tokens_map,
        *special;             /* NULL: not there */
    struct vocab_hints hints; /* its texts are the files' */
    int32_t *ends;
    struct vocab_added *added;
    const char **prefix;
};
int vocab_files_open(struct vocab_files *f, const char *folder, char *err, size_t errlen);
/* … and those beside the tiktoken ranks at path. */
int vocab_files_special(struct vocab_files *f, const char *path, char *err, size_t errlen);
void vocab_files_close(struct vocab_files *f);

/* tools/vocab_chatglm.c: hints of a ChatGLM folder; first: ChatGLM-6B, else ChatGLM2 or 3. */
int vocab_chatglm(struct vocab_files *f, const char *folder, bool first, char *err, size_t errlen);

/* The bytes of a file, malloc'ed, NUL-terminated past *len. 1: there is none and optional; −1: an error. */
int vocab_read(const char *path, size_t max_len, bool optional, char **bytes, size_t *len, char *err,
               size_t errlen);
/* A JSON file's text; whole numbers that no 64 bits hold are read as floats, and then all are. NULL: *fault.
 */
json_t *vocab_json(const char *bytes, size_t len, json_error_t *fault);
/* folder/name, malloc'ed; NULL: out of memory. */
char *vocab_path(const char *folder, const char *name);

/* tools/vocab.c: a folder itself, or the one a file is in; malloc'ed, NULL: out of memory. */
char *vocab_folder(const char *path);
bool vocab_is_gguf(const char *path); /* by its first bytes */

#endif
