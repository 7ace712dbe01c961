/* Parsing of options: getopt_long_only over rows, strict numbers, and the rows that the commands
 * running a model share. */
#include "tools/options.h"

#include "quant/err.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

/* ---- Values ------------------------------------------------------------------------------------ */

bool parse_int64(const char *s, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (end == s || *end || errno || isspace((unsigned char)*s) || v < min || v > max)
        return false;
    *out = v;
    return true;
}

bool parse_double(const char *s, double min, double max, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(s, &end);
    /* ERANGE of a tiny number is no error: it is as good as zero. */
    bool overflow = errno == ERANGE && fabs(v) > 1;
    if (end == s || *end || overflow || isspace((unsigned char)*s) || !(v >= min && v <= max))
        return false;
    *out = v;
    return true;
}

int option_append(void *to, const char *option, const char *value)
{
    (void)option;
    struct string_list *list = to;
    const char **grown = realloc(list->item, (list->n + 1) * sizeof *grown);
    if (!grown)
        return tool_error("out of memory");
    list->item = grown;
    list->item[list->n++] = value;
    return 0;
}

static int later(const char *option, const char *value)
{
    return usage_error("%s%s%s comes with a later version", option, value ? " " : "", value ? value : "");
}

int option_set(const struct option_row *row, const char *option, const char *value)
{
    int64_t i = 0;
    double d = 0;
    bool integer = row->kind == OPTION_INT || row->kind == OPTION_INT64;
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)row->to = true;
        return 0;
    case OPTION_INT:
    case OPTION_INT64:
        if (!parse_int64(value, (int64_t)row->min, (int64_t)row->max, &i))
            break;
        if (row->kind == OPTION_INT)
            *(int *)row->to = (int)i;
        else
            *(int64_t *)row->to = i;
        return 0;
    case OPTION_FLOAT:
    case OPTION_DOUBLE:
        if (!parse_double(value, row->min, row->max, &d))
            break;
        if (row->kind == OPTION_FLOAT)
            *(float *)row->to = (float)d;
        else
            *(double *)row->to = d;
        return 0;
    case OPTION_STRING:
        *(const char **)row->to = value;
        return 0;
    case OPTION_CALL:
        return row->set(row->to, option, value);
    case OPTION_ON_OFF:
        return 0;
    case OPTION_LATER:
        return later(option, NULL);
    }
    return usage_error("%s %s: not a%s between %.10g and %.10g", option, value,
                       integer ? " whole number" : " number", row->min, row->max);
}

/* ---- The parser -------------------------------------------------------------------------------- */

/* Names that people's fingers know for a row that exists under another one. */
static const struct {
    const char *alias, *name;
} aliases[] = {
    {"n-predict", "predict"},
    {"max-new-tokens", "predict"},
    {"sys", "system"},
    {"system-prompt", "system"},
    {"n-ctx", "ctx-size"},
    {"n-batch", "batch-size"},
    {"tb", "threads-batch"},
    {"dev", "device"},
    {"ctk", "kv-type-k"},
    {"cache-type-k", "kv-type-k"},
    {"ctv", "kv-type-v"},
    {"cache-type-v", "kv-type-v"},
    {"fa", "flash-attn"},
    {"ngl", "n-gpu-layers"},
    {"gpu-layers", "n-gpu-layers"},
    {"temperature", "temp"},
    {"typical-p", "typical"},
    {"top-nsigma", "top-n-sigma"},
    {"mirostat-lr", "mirostat-eta"},
    {"mirostat-ent", "mirostat-tau"},
};
enum { N_ALIASES = sizeof aliases / sizeof aliases[0], ROW_CODE = 1000, MAX_THREADS = 1024 };

struct parser {
    const struct option_row *row[MAX_OPTION_ROWS];
    size_t n_rows;
    struct option names[MAX_OPTION_ROWS + N_ALIASES + 1]; /* getopt's; val is ROW_CODE + index of the row */
    char letters[2 * MAX_OPTION_ROWS + 8];
};

static const struct option_row *row_of(const struct parser *p, const char *name)
{
    for (size_t i = 0; i < p->n_rows; i++) {
        const struct option_row *r = p->row[i];
        if (strcmp(r->name, name) == 0 || (r->letter && name[0] == r->letter && !name[1]))
            return r;
    }
    return NULL;
}

/* A row hides later ones of its name, or of its letter when that is all they have. */
static void parser_add(struct parser *p, const struct option_row *rows, size_t n)
{
    for (size_t i = 0; i < n && p->n_rows < MAX_OPTION_ROWS; i++)
        if (!rows[i].name[0] || !row_of(p, rows[i].name))
            p->row[p->n_rows++] = &rows[i];
}

static int has_arg(const struct option_row *r)
{
    if (r->kind == OPTION_ON_OFF || r->kind == OPTION_LATER)
        return optional_argument;
    return r->arg ? required_argument : no_argument;
}

static void parser_finish(struct parser *p)
{
    size_t n = 0;
    char *l = p->letters;
    *l++ = '-'; /* arguments in order, as code 1 */
    *l++ = ':'; /* a missing value is told apart */
    for (size_t i = 0; i < p->n_rows; i++) {
        const struct option_row *r = p->row[i];
        if (r->name[0])
            p->names[n++] = (struct option){r->name, has_arg(r), NULL, ROW_CODE + (int)i};
        if (r->letter && !memchr(p->letters, r->letter, (size_t)(l - p->letters))) {
            *l++ = (char)r->letter;
            if (has_arg(r) == required_argument)
                *l++ = ':';
        }
    }
    *l = '\0';
    for (size_t a = 0; a < N_ALIASES; a++) {
        if (row_of(p, aliases[a].alias))
            continue;
        for (size_t i = 0; i < p->n_rows; i++)
            if (row_of(p, aliases[a].name) == p->row[i])
                p->names[n++] =
                    (struct option){aliases[a].alias, has_arg(p->row[i]), NULL, ROW_CODE + (int)i};
    }
    p->names[n] = (struct option){NULL, 0, NULL, 0};
}

/* "--top_k" is "--top-k"; what follows '=' is the value's own. */
static void normalise(char *arg)
{
    if (strncmp(arg, "--", 2) != 0)
        return;
    for (char *c = arg + 2; *c && *c != '='; c++)
        if (*c == '_')
            *c = '-';
}

static const char *is_switch_word(const char *arg)
{
    static const char *const words[] = {"on", "off", "auto", "0", "1"};
    for (size_t i = 0; arg && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(arg, words[i]) == 0)
            return words[i];
    return NULL;
}

static void print_rows(const struct parser *p, const struct option_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct option_row *r = &rows[i];
        bool shown = false; /* hidden by an own row of the command */
        for (size_t j = 0; j < p->n_rows; j++)
            shown = shown || p->row[j] == r;
        if (!shown || !r->help)
            continue;
        char left[80], letter[8] = "";
        if (r->letter)
            snprintf(letter, sizeof letter, "-%c%s", r->letter, r->name[0] ? ", " : "");
        snprintf(left, sizeof left, "%s%s%s%s%s", letter, r->name[0] ? "--" : "", r->name, r->arg ? " " : "",
                 r->arg ? r->arg : "");
        printf("  %-30s %s\n", left, r->help);
    }
}

static void run_defaults(struct run_options *o);
static int run_complete(struct run_options *o);

int options_parse(struct option_set *set, int argc, char **argv)
{
    struct option_row shared[MAX_OPTION_ROWS];
    size_t n_shared = 0;
    bool help = false;
    if (set->run) {
        run_defaults(set->run); /* own rows may point into it: they are set later */
        n_shared = run_option_rows(set->run, shared);
    }
    const struct option_row help_row = OPTION_FLAG_ROW("help", 'h', &help, "this text");
    struct parser p = {.n_rows = 0};
    parser_add(&p, set->own, set->n_own);
    parser_add(&p, shared, n_shared);
    parser_add(&p, &help_row, 1);
    parser_finish(&p);

    int code;
    set->n_args = 0;
    opterr = 0;
    optind = 0; /* glibc: start afresh */
    for (int next = 1;; next = optind) {
        char *word = next < argc ? argv[next] : NULL;
        bool only_args = word && strcmp(word, "--") == 0;
        if (word)
            normalise(word);
        int c = getopt_long_only(argc, argv, p.letters, p.names, NULL);
        if (c == -1 && only_args) {
            for (; optind < argc; optind++) {
                if (set->n_args == set->max_args)
                    return usage_error("unexpected argument '%s'", argv[optind]);
                set->args[set->n_args++] = argv[optind];
            }
        }
        if (c == -1)
            break;
        if (c == 1) { /* no option */
            if (set->n_args == set->max_args)
                return usage_error("unexpected argument '%s'; see `quoll %s --help`", optarg, argv[0]);
            set->args[set->n_args++] = optarg;
            continue;
        }
        if (c == ':')
            return usage_error("%s needs a value", word);
        if (c == '?' && optopt >= ROW_CODE)
            return usage_error("%s: this option takes no value", word);
        if (c == '?')
            return usage_error("no such option: %s; see `quoll %s --help`", word, argv[0]);
        char letter[2] = {(char)c, '\0'};
        const struct option_row *row = c >= ROW_CODE ? p.row[c - ROW_CODE] : row_of(&p, letter);
        char name[64];
        snprintf(name, sizeof name, "%s%s", row->name[0] ? "--" : "-", row->name[0] ? row->name : letter);
        if (row->kind == OPTION_ON_OFF) {
            if (!optarg && is_switch_word(optind < argc ? argv[optind] : NULL))
                optind++;
            else if (optarg && !is_switch_word(optarg))
                return usage_error("%s %s: on, off or auto", name, optarg);
        }
        if ((code = option_set(row, name, optarg)) != 0)
            return code;
        if (help)
            break;
    }
    if (help) {
        printf("usage: %s\n\n%s\n\n", set->usage, set->about);
        print_rows(&p, set->own, set->n_own);
        print_rows(&p, &help_row, 1);
        if (set->run)
            printf("\nmodel, machine and sampling:\n");
        print_rows(&p, shared, n_shared);
        return EXIT_OK;
    }
    return set->run && (code = run_complete(set->run)) != 0 ? code : OPTIONS_GO;
}

/* ---- Shared options ---------------------------------------------------------------------------- */

static int set_isa(void *to, const char *option, const char *value)
{
    int isa = isa_by_name(value);
    if (isa < 0)
        return usage_error("%s %s: auto, scalar, avx2, avxvnni, avx512, vnni or amx", option, value);
    if (!isa_supported((enum isa)isa))
        return tool_error("%s %s: this CPU lacks it", option, value);
    *(enum isa *)to = (enum isa)isa;
    return 0;
}

static int set_device(void *to, const char *option, const char *value)
{
    int *device = to;
    int64_t n = 0;
    if (strcmp(value, "cpu") == 0)
        *device = DEVICE_CPU;
    else if (strcmp(value, "auto") == 0)
        *device = DEVICE_AUTO;
    else if (strcmp(value, "cuda") == 0 ||
             (strncmp(value, "cuda:", 5) == 0 && parse_int64(value + 5, 0, 1023, &n)))
        *device = (int)n;
    else
        return usage_error("%s %s: cpu, cuda, cuda:N or auto", option, value);
    return 0;
}

static int set_gpu_layers(void *to, const char *option, const char *value)
{
    bool *ignored = to;
    int64_t n;
    if (strcmp(value, "all") != 0 && strcmp(value, "auto") != 0 && !parse_int64(value, -1, INT32_MAX, &n))
        return usage_error("%s %s: a number of layers", option, value);
    *ignored = strcmp(value, "auto") != 0 && strcmp(value, "0") != 0;
    return 0;
}

static int set_compute(void *to, const char *option, const char *value)
{
    enum compute *c = to;
    if (strcmp(value, "fast") == 0)
        *c = COMPUTE_FAST;
    else if (strcmp(value, "f32") == 0)
        *c = COMPUTE_F32;
    else
        return usage_error("%s %s: fast or f32", option, value);
    return 0;
}

static int set_kv_type(void *to, const char *option, const char *value)
{
    if (strcasecmp(value, "fp8") == 0)
        return later(option, value);
    int t = qtype_by_name(value);
    if (t < 0 || !kv_type_supported((enum qtype)t))
        return usage_error("%s %s: f16, f32, q8_0 or q4_0", option, value);
    *(int *)to = t;
    return 0;
}

static int set_kv_types(void *to, const char *option, const char *value)
{
    struct run_options *o = to;
    int code = set_kv_type(&o->type_k, option, value);
    o->type_v = o->type_k;
    return code;
}

/* A scale follows the last colon, if what is there is a number. */
int lora_append(void *lora_list, const char *option, const char *value)
{
    struct lora_list *l = lora_list;
    double scale = 1;
    const char *colon = strrchr(value, ':');
    size_t len =
        colon && parse_double(colon + 1, -1e6, 1e6, &scale) ? (size_t)(colon - value) : strlen(value);
    if (len == 0)
        return usage_error("%s %s: a path is missing", option, value);
    struct lora_option *grown = realloc(l->item, (l->n + 1) * sizeof *grown);
    char *path = strndup(value, len);
    if (grown)
        l->item = grown;
    if (!grown || !path) {
        free(path);
        return tool_error("out of memory");
    }
    l->item[l->n++] = (struct lora_option){path, (float)scale};
    return 0;
}

void lora_list_free(struct lora_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free((char *)l->item[i].path);
    free(l->item);
    *l = (struct lora_list){NULL, 0};
}

static int set_rope_scaling(void *to, const char *option, const char *value)
{
    static const enum rope_scaling kinds[] = {ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_DYNAMIC,
                                              ROPE_SCALING_YARN};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(value, rope_scaling_name(kinds[i])) == 0) {
            *(int *)to = (int)kinds[i];
            return 0;
        }
    return usage_error("%s %s: none, linear, dynamic or yarn", option, value);
}

/* What float matrices become while they are loaded. */
static int set_quantize(void *to, const char *option, const char *value)
{
    int type = qtype_by_name(value);
    if (type < 0 || type >= QTYPE_N_MATRIX || !qtypes[type].from_f32)
        return usage_error("%s %s: no tensor type that can be written (q8_0, q4_k, …)", option, value);
    *(int *)to = type;
    return 0;
}

static int set_seed(void *to, const char *option, const char *value)
{
    struct run_options *o = to;
    int64_t seed;
    if (!parse_int64(value, -1, INT64_MAX, &seed))
        return usage_error("%s %s: not a whole number from 0 up (-1: by the clock)", option, value);
    o->seed_given = seed >= 0;
    o->sampler.seed = (uint64_t)seed;
    return 0;
}

static int set_samplers(void *to, const char *option, const char *value)
{
    char err[256];
    if (sampler_check_steps(value, err, sizeof err) != 0)
        return usage_error("%s: %s", option, err);
    *(const char **)to = value;
    return 0;
}

static int set_mirostat(void *to, const char *option, const char *value)
{
    if (strcmp(value, "0") != 0 && strcmp(value, "2") != 0)
        return usage_error("%s %s: 0 (off) or 2", option, value);
    *(int *)to = value[0] - '0';
    return 0;
}

/* "ID=F", and llama.cpp's "ID+F" and "ID-F". */
static int add_logit_bias(void *to, const char *option, const char *value)
{
    struct run_options *o = to;
    size_t digits = strspn(value, "0123456789");
    char id_text[16];
    int64_t id = -1;
    double bias;
    if (digits > 0 && digits < sizeof id_text) {
        memcpy(id_text, value, digits);
        id_text[digits] = '\0';
        if (!parse_int64(id_text, 0, INT32_MAX, &id))
            id = -1;
    }
    const char *number = value + digits + (value[digits] == '=');
    if (id < 0 || (value[digits] != '=' && value[digits] != '+' && value[digits] != '-') ||
        !parse_double(number, -HUGE_VAL, HUGE_VAL, &bias))
        return usage_error("%s %s: not ID=NUMBER", option, value);
    struct logit_bias *grown = realloc(o->biases, (o->sampler.n_logit_bias + 1) * sizeof *grown);
    if (!grown)
        return tool_error("out of memory");
    grown[o->sampler.n_logit_bias++] = (struct logit_bias){(int32_t)id, (float)bias};
    o->sampler.logit_bias = o->biases = grown;
    return 0;
}

static int add_dry_breaker(void *to, const char *option, const char *value)
{
    struct run_options *o = to;
    if (!value[0])
        return usage_error("%s: an empty text", option);
    o->dry_breakers_given = true;
    if (strcmp(value, "none") == 0) {
        o->dry_breakers.n = 0;
        return 0;
    }
    return option_append(&o->dry_breakers, option, value);
}

static int more_verbose(void *to, const char *option, const char *value)
{
    (void)option, (void)value;
    *(int *)to = NOTE_VERBOSE;
    return 0;
}

static int less_verbose(void *to, const char *option, const char *value)
{
    (void)option, (void)value;
    *(int *)to = NOTE_ALWAYS;
    return 0;
}

static void run_defaults(struct run_options *o)
{
    *o = (struct run_options){
        .n_ctx = -1, .n_batch = 512, .compute = COMPUTE_FAST, .type_k = -1, .type_v = -1, .rope_scaling = -1};
    o->isa = ISA_COUNT; /* not given */
    o->device = DEVICE_AUTO;
    sampler_defaults(&o->sampler);
}

size_t run_option_rows(struct run_options *o, struct option_row *rows)
{
    struct sampler_options *s = &o->sampler;
    const struct option_row table[] = {
        OPTION_CALL_ROW("model", 'm', &o->models, option_append, "PATH",
                        "a .gguf file (default: $QUOLL_MODEL, else the default model)"),
        OPTION_NUMBER_ROW("threads", 't', &o->n_threads, 1, MAX_THREADS, "N",
                          "threads for one token at a time (default: physical cores)"),
        OPTION_NUMBER_ROW("threads-batch", 0, &o->n_threads_batch, 1, MAX_THREADS, "N",
                          "-tb: threads for prompts (default: as -t)"),
        OPTION_NUMBER_ROW(
            "ctx-size", 'c', &o->n_ctx, 0, INT32_MAX, "N",
            "context in tokens, 0: the model's own (default: 4096 or the model's, the smaller)"),
        OPTION_NUMBER_ROW("batch-size", 'b', &o->n_batch, 1, 1 << 16, "N",
                          "prompt tokens processed at once (default: 512)"),
        OPTION_CALL_ROW("device", 0, &o->device, set_device, "D",
                        "cpu, cuda, cuda:N or auto: a GPU where there is one (default: auto)"),
        OPTION_CALL_ROW("isa", 0, &o->isa, set_isa, "LEVEL",
                        "highest CPU level used: auto, scalar, avx2, avx512, vnni (also $QUOLL_ISA)"),
        OPTION_CALL_ROW("compute", 0, &o->compute, set_compute, "HOW",
                        "fast, or f32: everything in 32-bit float, the reference (default: fast)"),
        OPTION_FLAG_ROW("exact", 0, &o->exact, "on a GPU, the CPU's bits (the CPU always has them)"),
        OPTION_CALL_ROW("n-gpu-layers", 0, &o->gpu_layers_asked, set_gpu_layers, "N",
                        "-ngl: layers on the GPU: all, or 0"),
        OPTION_FLAG_ROW("no-repack", 0, &o->no_repack, "compute from the weights as in the file (slow)"),
        OPTION_STRING_ROW("pack-cache", 0, &o->pack_cache, "DIR",
                          "keep the packed weights in a file there, for quick starts"),
        OPTION_CALL_ROW("kv-type", 0, o, set_kv_types, "TYPE",
                        "type of the KV cache: f16, f32, q8_0, q4_0 (default: f16; f32 with --compute f32)"),
        OPTION_CALL_ROW("kv-type-k", 0, &o->type_k, set_kv_type, "TYPE", "-ctk: of the keys alone"),
        OPTION_CALL_ROW("kv-type-v", 0, &o->type_v, set_kv_type, "TYPE", "-ctv: of the values alone"),
        {"flash-attn", 0, OPTION_ON_OFF, NULL, 0, 0, NULL, "-fa: accepted, always on", NULL},
        OPTION_CALL_ROW("rope-scaling", 0, &o->rope_scaling, set_rope_scaling, "KIND",
                        "none, linear, dynamic or yarn (default: the model's)"),
        OPTION_CALL_ROW("lora", 0, &o->lora, lora_append, "PATH[:SCALE]", "apply a PEFT adapter, repeatable"),
        OPTION_CALL_ROW("quantize", 0, &o->quantize, set_quantize, "TYPE",
                        "matrices in floats become this type while loading (q8_0, q4_k, …)"),
        OPTION_NUMBER_ROW("rope-scale", 0, &o->rope_scale, 1e-6, 1e6, "F", "context grows by this factor"),
        OPTION_NUMBER_ROW("rope-freq-base", 0, &o->rope_freq_base, 1e-6, 1e15, "F", "theta of the rotation"),
        OPTION_FLAG_ROW("no-mmap", 0, &o->no_mmap, "read the file into memory instead of mapping it"),
        OPTION_FLAG_ROW("mlock", 0, &o->mlock, "keep the weights in memory"),
        OPTION_FLAG_ROW("check-finite", 0, &o->check_finite,
                        "stop at the first NaN or infinity and name layer and operator"),
        OPTION_CALL_ROW("verbose", 'v', &o->log_level, more_verbose, NULL, "more notes"),
        OPTION_CALL_ROW("quiet", 'q', &o->log_level, less_verbose, NULL, "no notes"),
        OPTION_STRING_ROW("log-file", 0, &o->log_file, "FILE", "notes go there instead of to stderr"),
        OPTION_CALL_ROW("seed", 's', o, set_seed, "N", "the sampler's seed (default: by the clock)"),
        OPTION_NUMBER_ROW("temp", 0, &s->temp, -1, 1000, "F", "temperature, 0: greedy (default: 0.8)"),
        OPTION_NUMBER_ROW("top-k", 0, &s->top_k, -1, INT32_MAX, "N", "0: off (default: 40)"),
        OPTION_NUMBER_ROW("top-p", 0, &s->top_p, 0, 1, "F", "1: off (default: 0.95)"),
        OPTION_NUMBER_ROW("min-p", 0, &s->min_p, 0, 1, "F", "0: off (default: 0.05)"),
        OPTION_NUMBER_ROW("typical", 0, &s->typical, 0, 1, "F", "locally typical sampling, 1: off"),
        OPTION_NUMBER_ROW("tfs", 0, &s->tfs, 0, 1, "F", "tail-free sampling, 1: off"),
        OPTION_NUMBER_ROW("top-n-sigma", 0, &s->top_n_sigma, -1, 1e6, "F", "0: off"),
        OPTION_NUMBER_ROW("xtc-probability", 0, &s->xtc_probability, 0, 1, "F", "0: off"),
        OPTION_NUMBER_ROW("xtc-threshold", 0, &s->xtc_threshold, 0, 1, "F", "(default: 0.1)"),
        OPTION_NUMBER_ROW("repeat-penalty", 0, &s->repeat_penalty, 1e-3, 1000, "F", "1: off"),
        OPTION_NUMBER_ROW("repeat-last-n", 0, &s->repeat_last_n, -1, INT32_MAX, "N",
                          "tokens that penalties look back on, -1: all (default: 64)"),
        OPTION_NUMBER_ROW("presence-penalty", 0, &s->presence_penalty, -1000, 1000, "F", "0: off"),
        OPTION_NUMBER_ROW("frequency-penalty", 0, &s->frequency_penalty, -1000, 1000, "F", "0: off"),
        OPTION_NUMBER_ROW("dry-multiplier", 0, &s->dry_multiplier, 0, 1000, "F",
                          "DRY repetition penalty, 0: off"),
        OPTION_NUMBER_ROW("dry-base", 0, &s->dry_base, 1, 1000, "F", "(default: 1.75)"),
        OPTION_NUMBER_ROW("dry-allowed-length", 0, &s->dry_allowed_length, 0, INT32_MAX, "N", "(default: 2)"),
        OPTION_NUMBER_ROW("dry-penalty-last-n", 0, &s->dry_penalty_last_n, -1, INT32_MAX, "N",
                          "-1: the whole context (default)"),
        OPTION_CALL_ROW("dry-sequence-breaker", 0, o, add_dry_breaker, "TEXT",
                        "repeatable, \"none\" for none (default: newline : \" *)"),
        OPTION_CALL_ROW("mirostat", 0, &s->mirostat, set_mirostat, "N",
                        "2: Mirostat 2.0 instead of the chain"),
        OPTION_NUMBER_ROW("mirostat-tau", 0, &s->mirostat_tau, 0, 1000, "F", "target surprise (default: 5)"),
        OPTION_NUMBER_ROW("mirostat-eta", 0, &s->mirostat_eta, 0, 1000, "F", "learning rate (default: 0.1)"),
        OPTION_CALL_ROW("logit-bias", 0, o, add_logit_bias, "ID=F", "repeatable; -inf bans the token"),
        OPTION_CALL_ROW("samplers", 0, &s->samplers, set_samplers, "LIST",
                        "the chain's steps, separated by ';' (default: " SAMPLER_DEFAULT_STEPS ")"),
        OPTION_LATER_ROW("grammar"),
        OPTION_LATER_ROW("grammar-file"),
        OPTION_LATER_ROW("json-schema"),
        OPTION_LATER_ROW("json-schema-file"),
    };
    _Static_assert(sizeof table / sizeof table[0] <= MAX_OPTION_ROWS - 32, "room for a command's own rows");
    memcpy(rows, table, sizeof table);
    return sizeof table / sizeof table[0];
}

static int run_complete(struct run_options *o)
{
    char err[512];
    if (tool_log_open(o->log_level, o->log_file, err, sizeof err) != 0)
        return tool_error("%s", err);
    if (o->no_repack && o->pack_cache)
        return usage_error("--no-repack packs nothing that --pack-cache could keep");
    const char *isa = getenv("QUOLL_ISA");
    int code = 0;
    if (o->isa == ISA_COUNT && (code = set_isa(&o->isa, "QUOLL_ISA", isa && isa[0] ? isa : "auto")) != 0)
        return code;
    if (o->gpu_layers_asked)
        tool_note(NOTE_USUAL, "note: all layers are on one device: -ngl changes nothing\n");
    if (o->n_threads == 0)
        o->n_threads = machine_threads();
    if (o->n_threads_batch == 0)
        o->n_threads_batch = o->n_threads;
    if (!o->seed_given) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        o->sampler.seed = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    return 0;
}

void run_options_free(struct run_options *o)
{
    lora_list_free(&o->lora);
    free(o->models.item);
    free(o->dry_breakers.item);
    free(o->biases);
    o->models = o->dry_breakers = (struct string_list){NULL, 0};
    o->biases = NULL;
}

/* ---- The model to open ------------------------------------------------------------------------- */

const char *model_path(const char *given, char *err, size_t errlen)
{
    static const char file[] = "SmolLM2-135M-Instruct.Q4_1.gguf";
    static char path[4096 + 64];
    if (given)
        return given;
    const char *env = getenv("QUOLL_MODEL");
    if (env && env[0])
        return env;

    /* beside the current directory, then beside the program, then where it was installed */
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = '\0';
    static const char *const places[] = {"weights/", "/weights/", "/../share/quoll/"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, sizeof path, "%s%s%s", i == 0 ? "" : exe, places[i], file);
        if ((i == 0 || slash) && access(path, R_OK) == 0)
            return path;
    }
    err_set(err, errlen,
            "weights/%s: not there; give -m MODEL, set QUOLL_MODEL, or fetch it with `make chat`", file);
    return NULL;
}
