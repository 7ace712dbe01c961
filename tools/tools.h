/* tools/: the commands. Only this room reads argv or the environment, prints, or exits. */
#ifndef QUOLL_TOOLS_H
#define QUOLL_TOOLS_H

#include "model/model.h"
#include "model/sampler.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"
#include "weights/weights.h"

#define QUOLL_VERSION "0.1.0"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* One row per command (tools/main.c); `quoll --help` prints the table. run gets argv[0] = command name
 * and returns the exit code. */
struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
};

int cmd_chat(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_logits(int argc, char **argv);

/* Prints "quoll: message" on stderr; returns the exit code 1 (tool_error) or 2 (usage_error). */
int tool_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* tools/vocab.c: a tokenizer from a model file's metadata (tokenizer.ggml.*). −1 with a message when the
 * file holds none or a broken one. */
int vocab_open(struct tokenizer **out, const struct weights *w, char *err, size_t errlen);

/* The whole of a file ("-": stdin); *text is malloc'ed, NUL-terminated past *len. */
int read_file(const char *path, char **text, size_t *len, char *err, size_t errlen);

#endif
