/* tools/: the commands. Only this room reads argv or the environment, prints, or exits. */
#ifndef QUOLL_TOOLS_H
#define QUOLL_TOOLS_H

#include "model/model.h"
#include "model/sampler.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"
#include "weights/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
int cmd_convert(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_imatrix(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_lab(int argc, char **argv);

/* ---- tools/report.c: messages, signals, whole files ------------------------------------------ */

/* Prints "quoll: message" on stderr; returns the exit code 1 (tool_error) or 2 (usage_error). */
int tool_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Notes: progress, timings, warnings. They go to stderr, or to the file of --log-file, when the level
 * is at most that of the options (-q: −1, none: 0, -v: 1). */
enum { NOTE_ALWAYS = -1, NOTE_USUAL = 0, NOTE_VERBOSE = 1 };
void tool_note(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Sets the level, and the file ("" or NULL: stderr). −1: the file cannot be opened. */
int tool_log_open(int level, const char *log_file, char *err, size_t errlen);

/* Writes to stdout and flushes; −1 when the reader is gone or the disk full (tool_finish says so). */
int tool_write(const char *text, size_t len);
/* The last thing a program does: flushes stdout. The exit code, EXIT_FAILED where writing failed. */
int tool_finish(int code);

/* From the first call on Ctrl-C only counts up; tool_interrupts() is how often. SIGTERM counts as two:
 * where one Ctrl-C only stops an answer, it ends the program. */
void tool_catch_interrupts(void);
int tool_interrupts(void);
bool tool_interrupted(void); /* at least once: what batches and methods ask to know when to stop */
void tool_clear_interrupts(void);

/* The whole of a file ("-": stdin); *text is malloc'ed, NUL-terminated past *len. */
int read_file(const char *path, char **text, size_t *len, char *err, size_t errlen);

/* ---- tools/machine.c ------------------------------------------------------------------------- */

/* Physical cores this process may use: its affinity mask, siblings of one core counted once, capped by
 * the cgroup's CPU quota. At least 1. */
int machine_threads(void);
/* The processor's name, "unknown CPU" where the system does not tell. Lent. */
const char *machine_cpu_name(void);
/* Highest resident memory of this process so far, in bytes; 0: unknown. */
uint64_t machine_peak_memory(void);
/* Bytes that this process can still get without another one losing any: free memory, caches and swap, as far
 * as the cgroup lets it; 0: unknown. */
uint64_t machine_free_memory(void);
/* Seconds of a clock that only goes forward. */
double machine_seconds(void);

/* ---- tools/vocab.c ---------------------------------------------------------------------------- */

/* The tokenizer of a model: from a GGUF's metadata, else from the files in its folder: tokenizer.json,
 * tokenizer.model (SentencePiece or tiktoken), ChatGLM-6B's ice_text.model, llama2.c's tokenizer.bin, with
 * what the configuration files there say. −1 with a message when there is none or a broken one. */
int vocab_open(struct tokenizer **out, const struct weights *w, char *err, size_t errlen);
/* … of a path: a model, its folder, or one of those vocabulary files. */
int vocab_open_path(struct tokenizer **out, const char *path, char *err, size_t errlen);

#endif
