/* Command-line options: tables of rows that say where a value goes. The options that all commands
 * running a model share are one such table (docs: INTERFACE). */
#ifndef QUOLL_OPTIONS_H
#define QUOLL_OPTIONS_H

#include "tools/tools.h"

enum option_kind {
    OPTION_FLAG,   /* bool: becomes true */
    OPTION_INT,    /* int in [min, max] */
    OPTION_INT64,  /* int64_t in [min, max] */
    OPTION_FLOAT,  /* float in [min, max] */
    OPTION_DOUBLE, /* double in [min, max] */
    OPTION_STRING, /* const char *: argv's own text */
    OPTION_CALL,   /* set(to, option, value) */
    OPTION_ON_OFF, /* takes an optional on, off or auto and changes nothing */
    OPTION_LATER,  /* a feature to come: a usage error that says so */
};

struct option_row {
    const char *name; /* long name with hyphens, "" for none */
    int letter;       /* 0: none */
    enum option_kind kind;
    void *to;
    double min, max;
    const char *arg;  /* the value's name in the help; NULL: takes none */
    const char *help; /* NULL: not listed */
    /* OPTION_CALL: 0, or an exit code after printing why; value is NULL without arg */
    int (*set)(void *to, const char *option, const char *value);
};

/* Rows, their kind taken from the type of the place they fill. */
#define OPTION_KIND(to) \
    _Generic((to),                                                                                      \
        bool *: OPTION_FLAG,                                                                            \
        int *: OPTION_INT,                                                                              \
        int64_t *: OPTION_INT64,                                                                        \
        float *: OPTION_FLOAT,                                                                          \
        double *: OPTION_DOUBLE,                                                                        \
        const char **: OPTION_STRING)
#define OPTION_NUMBER_ROW(name, letter, to, min, max, arg, help)     \
    {                                                                \
        name, letter, OPTION_KIND(to), to, min, max, arg, help, NULL \
    }
#define OPTION_STRING_ROW(name, letter, to, arg, help)           \
    {                                                            \
        name, letter, OPTION_KIND(to), to, 0, 0, arg, help, NULL \
    }
#define OPTION_FLAG_ROW(name, letter, to, help)                   \
    {                                                             \
        name, letter, OPTION_KIND(to), to, 0, 0, NULL, help, NULL \
    }
#define OPTION_CALL_ROW(name, letter, to, set, arg, help)   \
    {                                                       \
        name, letter, OPTION_CALL, to, 0, 0, arg, help, set \
    }
#define OPTION_LATER_ROW(name)                             \
    {                                                      \
        name, 0, OPTION_LATER, NULL, 0, 0, "X", NULL, NULL \
    }

/* A growing list of strings (argv's own texts), for options that may repeat: set with option_append. */
struct string_list {
    const char **item;
    size_t n;
};
int option_append(void *string_list, const char *option, const char *value);

/* Adapters, as "PATH" or "PATH:SCALE"; set with lora_append. Paths are copies. */
struct lora_list {
    struct lora_option *item;
    size_t n;
};
int lora_append(void *lora_list, const char *option, const char *value);
void lora_list_free(struct lora_list *l);

enum { DEVICE_CPU = -1, DEVICE_AUTO = -2 };

/* What the commands that run a model share. */
struct run_options {
    struct string_list models;      /* -m; a command with one model uses the last */
    int n_threads, n_threads_batch; /* never 0 after parsing */
    int64_t n_ctx;                  /* −1: 4096 or the model's, the smaller; 0: the model's */
    int n_batch;
    int n_seqs;   /* sequences the cache is for; 0: one. Only `bench` asks for more */
    enum isa isa; /* supported and built */
    enum compute compute;
    bool no_repack, exact, gpu_layers_asked;
    int device;             /* DEVICE_CPU, DEVICE_AUTO: a GPU where there is one, or the number of a GPU */
    const char *pack_cache; /* folder of packed weights; NULL: none */
    int type_k, type_v;     /* enum qtype; −1: f16, or f32 with --compute f32 */
    int rope_scaling;       /* enum rope_scaling; −1: the model's */
    double rope_scale, rope_freq_base;
    struct lora_list lora;
    int quantize; /* enum qtype of float matrices; F32: as they are */
    bool no_mmap, mlock, check_finite;
    int log_level;
    const char *log_file;

    struct sampler_options sampler;
    struct logit_bias *biases;   /* sampler.logit_bias */
    bool seed_given, ignore_eos; /* ignore_eos: tokens that end a text are banned */
    struct string_list dry_breakers;
    bool dry_breakers_given; /* else the default ones */
};

struct option_set {
    const char *usage; /* "quoll run -p TEXT | -f FILE [options]" */
    const char *about; /* a sentence or two */
    const struct option_row *own;
    size_t n_own;            /* an own row hides a shared one of the same name or letter */
    struct run_options *run; /* NULL: the command runs no model */
    /* Arguments that are no options, up to max_args of them. */
    const char **args;
    size_t max_args, n_args;
};

enum { OPTIONS_GO = -1, MAX_OPTION_ROWS = 128 };

/* Gives one row its value, as the command line would: 0, or an exit code after printing why. */
int option_set(const struct option_row *row, const char *option, const char *value);
/* The shared rows, filling o: up to MAX_OPTION_ROWS of them; their number. */
size_t run_option_rows(struct run_options *o, struct option_row *rows);

/* Parses; OPTIONS_GO, or the exit code to return now (0 after --help). Sets the log up. Fills what the
 * command line leaves open in *run from the environment and the machine. */
int options_parse(struct option_set *set, int argc, char **argv);
void run_options_free(struct run_options *o);

/* The model to open: given, else $QUOLL_MODEL, else the default model's file where it lies. NULL: none
 * was found, *err says what to do. Lent until the next call. */
const char *model_path(const char *given, char *err, size_t errlen);

/* Strict numbers: all of s, in [min, max], no NaN. */
bool parse_int64(const char *s, int64_t min, int64_t max, int64_t *out);
bool parse_double(const char *s, double min, double max, double *out);

#endif
