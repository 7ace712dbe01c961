/* quoll quantize: a model's matrices in fewer bits. */
#include "tools/convert_vocab.h"
#include "tools/corpus.h"
#include "tools/folder_vocab.h"
#include "tools/options.h"
#include "tools/quantize_target.h"
#include "tools/tools.h"

#include "lab/facts.h"
#include "lab/gptq_folder.h"
#include "lab/imatrix.h"
#include "lab/quantize.h"
#include "lab/rotate.h"
#include "quant/err.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* How scales and codes are found. */
static const struct method {
    const char *name;
    const char *about;
    bool imatrix, text; /* what it needs */
    enum solver solver;
    bool awq;
} methods[] = {
    {"rtn", "every block by itself, least squared error", .solver = SOLVE_NEAREST},
    {"imatrix", "the squared error weighed by --imatrix", .imatrix = true},
    {"hqq", "the sum of |error|^0.7 instead (Badri & Shaji 2023)", .solver = SOLVE_HQQ},
    {"awq", "columns with large inputs scaled up first (Lin et al. 2023)", .text = true, .awq = true},
    {"gptq", "columns make up for the errors of others (Frantar et al. 2022)", .text = true,
     .solver = SOLVE_GPTQ},
    {"awq+gptq", "both", .text = true, .solver = SOLVE_GPTQ, .awq = true},
};
enum { N_METHODS = sizeof methods / sizeof methods[0], METHOD_RTN = 0, METHOD_IMATRIX = 1 };

struct quantize_command {
    struct lora_list lora;
    struct quantize_rule *rules;
    size_t n_rules;
    const char *method_name, *imatrix, *calib, *target_types;
    const struct method *method;
    double target_bpw; /* 0: types are the mix's */
    int64_t target_tokens;
    int calib_tokens, calib_ctx;
    double damp;
    bool natural_order;
    int output_type, embedding_type, n_threads, log_level;
    bool list, pure, dry_run, allow_nan, allow_requantize, leave_output, rotate, resume;
    const char *type; /* as it was typed; "": none */
    struct journal *journal;
    struct calibration calibration;
    const struct weights *source; /* IN: its tokenizer reads texts, and is written */
};

/* ---- The command line ----------------------------------------------------------------------------- */

/* A type that a GGUF can hold and that can be written; −1 after saying what is wrong. */
static int type_of(const char *option, const char *name)
{
    int type = qtype_by_name(name);
    if (type >= 0 && qtypes[type].quantise && qtypes[type].gguf_id >= 0)
        return type;
    (void)usage_error("%s %s: no tensor type; see `quoll quantize --list`", option, name);
    return -1;
}

static int set_type(void *to, const char *option, const char *value)
{
    int type = type_of(option, value);
    if (type < 0)
        return EXIT_USAGE;
    *(int *)to = type;
    return 0;
}

static int add_rule(void *to, const char *option, const char *value)
{
    struct quantize_command *c = to;
    const char *equals = strrchr(value, '=');
    if (!equals || equals == value)
        return usage_error("%s %s: not PATTERN=TYPE", option, value);
    int type = type_of(option, equals + 1);
    if (type < 0)
        return EXIT_USAGE;
    struct quantize_rule *grown = realloc(c->rules, (c->n_rules + 1) * sizeof *grown);
    char *pattern = grown ? strndup(value, (size_t)(equals - value)) : NULL;
    if (grown)
        c->rules = grown;
    if (!pattern)
        return tool_error("out of memory");
    grown[c->n_rules++] = (struct quantize_rule){pattern, (enum qtype)type};
    return 0;
}

static void command_free(struct quantize_command *c)
{
    for (size_t i = 0; i < c->n_rules; i++)
        free((char *)c->rules[i].pattern);
    free(c->rules);
    lora_list_free(&c->lora);
}

/* ---- What is shown -------------------------------------------------------------------------------- */

static double bits_of(enum qtype t)
{
    return 8.0 * qtypes[t].block_bytes / qtypes[t].block_len;
}

static int print_list(void)
{
    printf("Types and mixes of a GGUF. bits: per weight, of the type and of a model of Llama 3 8B's shape,\n"
           "in which the output matrix and some others get more.\n\n"
           "name      type      bits  model\n");
    for (size_t i = 0; i < mix_n(); i++) {
        const struct mix *m = mix_at(i);
        printf("%-9s %-8s %5.2f  %5.2f\n", mix_name(m), qtypes[mix_base(m)].name, bits_of(mix_base(m)),
               mix_bits(m));
    }
    printf("\nIntegers with a scale and a zero point per group, as a folder in the GPTQ format:\n");
    for (size_t i = 0; i < gptq_folder_n_types(); i++)
        printf("%-9s %-8s %5.2f\n", gptq_folder_type(i)->name, "", gptq_folder_bits(gptq_folder_type(i)));
    printf("\nMethods (--method):\n");
    for (int i = 0; i < N_METHODS; i++)
        printf("%-9s %s\n", methods[i].name, methods[i].about);
    return EXIT_OK;
}

static const char *bytes_text(char text[32], uint64_t bytes)
{
    double b = (double)bytes;
    if (b < 1e6)
        (void)snprintf(text, 32, "%.1f kB", b / 1e3);
    else if (b < 1e9)
        (void)snprintf(text, 32, "%.1f MB", b / 1e6);
    else
        (void)snprintf(text, 32, "%.2f GB", b / 1e9);
    return text;
}

/* Every tensor of a dry run, or with -v. */
static void print_steps(const struct quantize_step *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char from[32], to[32], shape[64], wanted[48] = "";
        (void)snprintf(shape, sizeof shape, "[%" PRId64 ", %" PRId64 "]", s[i].cols, s[i].rows);
        if (s[i].wanted != s[i].to)
            (void)snprintf(wanted, sizeof wanted, "  (not %s: its rows are no multiple of %d)",
                           qtypes[s[i].wanted].name, qtypes[s[i].wanted].block_len);
        printf("%-32s %-16s %-7s -> %-7s %10s -> %10s%s%s\n", s[i].name, shape, qtypes[s[i].from].name,
               qtypes[s[i].to].name, bytes_text(from, s[i].from_bytes), bytes_text(to, s[i].to_bytes),
               s[i].importance ? "  weighed" : "", wanted);
    }
}

/* Rows that a type cannot have: what their matrices become instead, once per pair of types and length. */
static void note_fallbacks(const struct quantize_step *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t count = 0;
        bool said = false;
        if (s[i].wanted == s[i].to)
            continue;
        for (size_t k = 0; k < n && !said; k++)
            if (s[k].wanted == s[i].wanted && s[k].to == s[i].to && s[k].cols == s[i].cols) {
                said = k < i;
                count++;
            }
        if (!said)
            tool_note(NOTE_USUAL, "rows of %" PRId64 " are no multiple of %d: %zu %s %s instead of %s\n",
                      s[i].cols, qtypes[s[i].wanted].block_len, count,
                      count == 1 ? "matrix becomes" : "matrices become", qtypes[s[i].to].name,
                      qtypes[s[i].wanted].name);
    }
}

static void note_importance(const struct quantize_step *s, size_t n)
{
    size_t with = 0, without = 0;
    for (size_t i = 0; i < n; i++) {
        bool could = !s[i].copied && qtypes[s[i].to].block_len > 1;
        with += s[i].importance != NULL;
        without += could && !s[i].importance;
    }
    tool_note(NOTE_USUAL, "importances for %zu matrices, none for %zu\n", with, without);
}

/* Returns bits per weight. */
static void note_size(const struct quantize_step *s, size_t n)
{
    uint64_t from = 0, to = 0;
    double weights = 0;
    char a[32], b[32];
    for (size_t i = 0; i < n; i++) {
        from += s[i].from_bytes;
        to += s[i].to_bytes;
        weights += (double)s[i].cols * (double)s[i].rows;
    }
    tool_note(NOTE_USUAL, "%.1f M weights: %s become %s, %.2f bits per weight\n", weights / 1e6,
              bytes_text(a, from), bytes_text(b, to), 8 * (double)to / weights);
}

/* A line on a terminal that is written again and again. */
struct bar {
    double begin, shown;
    bool terminal;
};

static void show_bar(void *arg, const char *what, double fraction)
{
    struct bar *b = arg;
    double now = machine_seconds();
    if (b->terminal && (now - b->shown > 0.1 || fraction >= 1)) {
        enum { WIDTH = 30 };
        static const char full[] = "##############################",
                          none[] = "..............................";
        int filled = (int)(fraction * WIDTH);
        int left = fraction > 0.01 ? (int)((now - b->begin) * (1 - fraction) / fraction + 0.5) : -1;
        char eta[32] = "";
        if (left >= 0)
            (void)snprintf(eta, sizeof eta, "%d:%02d to go", left / 60, left % 60);
        tool_note(NOTE_USUAL, "\r[%.*s%.*s] %3d %%  %-14s %-32.32s", filled, full, WIDTH - filled, none,
                  (int)(fraction * 100), eta, what);
        b->shown = now;
    }
}

static bool show_progress(void *arg, const struct quantize_step *step, double fraction)
{
    show_bar(arg, step->name, fraction);
    return tool_interrupts() == 0;
}

static void clear_progress(const struct bar *b)
{
    if (b->terminal)
        tool_note(NOTE_USUAL, "\r%80s\r", "");
}

/* ---- The work ------------------------------------------------------------------------------------- */

/* Rows of the embedding: as many tokens the model knows. */
static size_t embedding_rows(const struct quantize *q)
{
    size_t n;
    const struct save_gguf_tensor *t = quantize_tensors(q, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].name, "token_embd.weight") == 0)
            return (size_t)t[i].dims[1];
    return 0;
}

static int write_gguf(struct quantize *q, const struct weights *w, const char *out, char *err, size_t errlen)
{
    struct vocab_meta *vocab = NULL;
    size_t n_meta;
    const struct meta *meta = quantize_meta(q, &n_meta);
    struct bar bar = {machine_seconds(), 0, isatty(STDERR_FILENO) != 0};
    int rc = 0;
    if (strncmp(weights_format(w), "GGUF", 4) != 0) {
        rc = vocab_meta_open(&vocab, w, meta, n_meta, embedding_rows(q), err, errlen);
        if (rc == 0)
            meta = vocab_meta_all(vocab, &n_meta);
    }
    if (rc == 0) {
        rc = quantize_write(q, out, meta, n_meta, show_progress, &bar, err, errlen);
        clear_progress(&bar);
    }
    if (rc == 0)
        tool_note(NOTE_USUAL, "%s: written in %.1f s\n", out, machine_seconds() - bar.begin);
    vocab_meta_close(vocab);
    return rc;
}

static bool needs_calibration(const struct quantize_command *c)
{
    return c->method->text || c->method->solver != SOLVE_NEAREST;
}

/* What the method needs beside the weights; ids: malloc'ed, of the calibration text. */
static int open_calibration(struct quantize_command *c, char *err, size_t errlen)
{
    struct calibration *const to = &c->calibration;
    struct corpus text;
    struct config config;
    *to = (struct calibration){.solver = c->method->solver,
                               .awq = c->method->awq,
                               .act_order = !c->natural_order,
                               .damp = c->damp,
                               .seq_len = c->calib_ctx,
                               .n_threads = c->n_threads,
                               .ops = ops_cpu(isa_best()),
                               .stop = tool_interrupted};
    if (!c->method->text)
        return 0;
    if (config_read(&config, c->source, err, errlen) ||
        corpus_read_for(&text, c->calib, c->source, NULL, err, errlen))
        return -1;
    if (to->seq_len > config.max_seq_len)
        to->seq_len = config.max_seq_len;
    int rc = 0;
    if ((int64_t)text.n < to->seq_len) {
        rc = err_set(err, errlen, "%s: %zu tokens are too few, a sequence has %d (--calib-ctx)", c->calib,
                     text.n, to->seq_len);
    } else {
        to->n_ids = (int64_t)text.n < c->calib_tokens ? (int64_t)text.n : c->calib_tokens;
        to->n_ids = to->n_ids < to->seq_len ? to->seq_len : to->n_ids;
        to->ids = text.ids;
        text.ids = NULL;
    }
    corpus_free(&text);
    return rc;
}

/* Says what the plan is, which began as that mix, and does it. */
static int quantize_as_planned(const struct quantize_command *c, struct quantize *q, const struct weights *w,
                               const char *out, const struct target *target, const char *mix, char *err,
                               size_t errlen)
{
    size_t n;
    const struct quantize_step *steps = quantize_steps(q, &n);
    if (target)
        target_print(target, q, mix, c->dry_run);
    else if (c->dry_run)
        print_steps(steps, n);
    note_fallbacks(steps, n);
    if (c->method->imatrix)
        note_importance(steps, n);
    note_size(steps, n);
    return c->dry_run ? 0 : write_gguf(q, w, out, err, errlen);
}

static int measure_target(struct target **target, const struct quantize_command *c, struct weights *w,
                          const struct importance *importance, char *err, size_t errlen)
{
    struct bar bar = {machine_seconds(), 0, isatty(STDERR_FILENO) != 0};
    const struct target_options o = {
        .bpw = c->target_bpw,
        .source = c->source,
        .calib = c->calib,
        .types = c->target_types,
        .n_probe = c->target_tokens,
        .importance = importance,
        .weighed = c->method->imatrix || c->method->text,
        .lora = &c->lora,
        .n_threads = c->n_threads,
        .progress = show_bar,
        .arg = &bar,
    };
    int rc = target_open(target, w, &o, err, errlen);
    clear_progress(&bar);
    if (rc == 0)
        tool_note(NOTE_USUAL, "sensitivity measured in %.1f s\n", machine_seconds() - bar.begin);
    return rc;
}

static int quantize_gguf(const struct quantize_command *c, struct weights *w, const struct mix *mix,
                         const char *out, const struct importance *importance, char *err, size_t errlen)
{
    struct target *target = NULL;
    struct quantize *q = NULL;
    int rc = 0;
    if (c->target_bpw > 0) {
        rc = measure_target(&target, c, w, importance, err, errlen);
        if (rc == 0 && c->method->imatrix)
            importance = target_importance(target);
    }
    const struct quantize_options options = {
        .mix = mix,
        .pure = c->pure,
        .output_type = c->output_type,
        .embedding_type = c->embedding_type,
        .rules = c->rules,
        .n_rules = c->n_rules,
        .importance = importance,
        .lora = c->lora.item,
        .n_lora = c->lora.n,
        .n_threads = c->n_threads,
        .allow_nan = c->allow_nan,
        .calibration = needs_calibration(c) ? &c->calibration : NULL,
        .journal = c->journal,
    };
    if (rc == 0)
        rc = quantize_open(&q, w, &options, err, errlen);
    if (rc == 0 && target)
        rc = target_apply(target, q, err, errlen);
    if (rc == 0)
        rc = quantize_as_planned(c, q, c->source, out, target, mix_name(mix), err, errlen);
    quantize_close(q);
    target_close(target);
    return rc;
}

static int write_extras(void *arg, const char *folder, const struct weights *w, char *err, size_t errlen)
{
    (void)arg;
    return folder_vocab_write(folder, w, err, errlen);
}

static int quantize_folder(const struct quantize_command *c, struct weights *w,
                           const struct gptq_folder_type *type, const char *out,
                           const struct importance *importance, char *err, size_t errlen)
{
    struct bar bar = {machine_seconds(), 0, isatty(STDERR_FILENO) != 0};
    const struct gptq_folder_options options = {
        .type = type,
        .source = c->source,
        .importance = importance,
        .calibration = needs_calibration(c) ? &c->calibration : NULL,
        .journal = c->journal,
        .n_threads = c->n_threads,
        .allow_nan = c->allow_nan,
        .progress = show_progress,
        .extras = write_extras,
        .arg = &bar,
    };
    int rc = gptq_folder_write(out, w, &options, err, errlen);
    clear_progress(&bar);
    if (rc == 0)
        tool_note(NOTE_USUAL, "%s: written in %.1f s\n", out, machine_seconds() - bar.begin);
    return rc;
}

static bool show_rotation(void *arg, const char *tensor, double fraction)
{
    show_bar(arg, tensor, fraction);
    return tool_interrupts() == 0;
}

/* The rotated model, beside OUT until it is open. */
static int open_rotated(struct weights **out, const struct quantize_command *c, const char *beside, char *err,
                        size_t errlen)
{
    struct bar bar = {machine_seconds(), 0, isatty(STDERR_FILENO) != 0};
    const struct rotate_options o = {c->n_threads, show_rotation, &bar};
    bool untied;
    char *path;
    if (asprintf(&path, "%s.rotated.tmp", beside) < 0)
        return err_set(err, errlen, "out of memory");
    int rc = rotate_open(out, path, c->source, &o, &untied, err, errlen);
    clear_progress(&bar);
    if (rc == 0)
        tool_note(NOTE_USUAL, "rotated in %.1f s%s\n", machine_seconds() - bar.begin,
                  untied ? "; the output matrix, which was the embedding, is now a tensor of its own" : "");
    free(path);
    return rc;
}

/* What is kept of the output while it is made, and what an earlier run left of it. A device or a pipe cannot
 * be gone on with. */
static int open_journal(struct quantize_command *c, const char *out, bool folder,
                        const struct importance *importance, char *err, size_t errlen)
{
    struct stat st;
    if (!folder && stat(out, &st) == 0 && !S_ISREG(st.st_mode))
        return 0;
    if (journal_open(&c->journal, out, "quoll " QUOLL_VERSION, c->resume, err, errlen))
        return -1;
    json_t *facts = quantize_facts(c->source, needs_calibration(c) ? &c->calibration : NULL, importance,
                                   c->lora.item, c->lora.n);
    if (facts) {
        (void)json_object_set_new(facts, "type", json_string(c->type));
        (void)json_object_set_new(facts, "--rotate", json_boolean(c->rotate));
        (void)json_object_set_new(facts, "--pure", json_boolean(c->pure));
        (void)json_object_set_new(facts, "--target-bpw", json_real(c->target_bpw));
        (void)json_object_set_new(facts, "--calib", json_string(c->calib ? c->calib : ""));
    }
    if (journal_begin(c->journal, facts, folder ? "model.safetensors" : "model.gguf", err, errlen))
        return -1;
    if (journal_bytes(c->journal) > 0)
        tool_note(NOTE_USUAL, "goes on behind %.1f MB in %s\n", (double)journal_bytes(c->journal) / 1e6,
                  journal_folder(c->journal));
    else if (c->resume)
        tool_note(NOTE_USUAL, "nothing to resume: begins anew\n");
    return 0;
}

static int quantize_model(struct quantize_command *c, const char *in, const char *out, const struct mix *mix,
                          const struct gptq_folder_type *folder, char *err, size_t errlen)
{
    struct weights *w, *rotated = NULL;
    struct importance *importance = NULL;
    if (c->imatrix && importance_read(&importance, c->imatrix, err, errlen))
        return -1;
    int rc = weights_open(&w, in, NULL, err, errlen);
    c->source = w;
    if (rc == 0)
        rc = open_calibration(c, err, errlen);
    if (rc == 0 && !c->dry_run)
        rc = open_journal(c, out, folder != NULL, importance, err, errlen);
    if (rc == 0 && c->rotate)
        rc = open_rotated(&rotated, c, out, err, errlen);
    struct weights *const model = rotated ? rotated : w;
    if (rc == 0)
        rc = folder ? quantize_folder(c, model, folder, out, importance, err, errlen)
                    : quantize_gguf(c, model, mix, out, importance, err, errlen);
    if (rc && c->journal && journal_bytes(c->journal) > 0)
        tool_note(NOTE_USUAL, "%s keeps what is done: the same command with --resume goes on with it\n",
                  journal_folder(c->journal));
    journal_close(c->journal);
    free((int32_t *)c->calibration.ids);
    weights_close(rotated);
    weights_close(w);
    importance_free(importance);
    return rc;
}

static bool ends_in_gguf(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcasecmp(path + n - 5, ".gguf") == 0;
}

static int check_rotate(const struct quantize_command *c, size_t n_paths)
{
    if (!c->rotate)
        return 0;
    if (c->imatrix)
        return usage_error(
            "quantize: an imatrix of the model as it is says nothing of the rotated one: write "
            "that with `quoll quantize IN ROTATED.gguf f32 --rotate`, measure and quantise it "
            "without --rotate");
    if (c->lora.n)
        return usage_error("quantize: --rotate takes no --lora: merge it first with `quoll convert --lora`");
    if (c->allow_nan)
        return usage_error("quantize: --rotate takes no --allow-nan: one NaN would be everywhere");
    if (n_paths != 2)
        return usage_error("quantize: --rotate needs OUT even in a dry run: the rotated model lies beside it "
                           "meanwhile");
    return 0;
}

/* The method's options agree: 0, or an exit code after saying what does not. */
static int check_method(struct quantize_command *c)
{
    int method = c->imatrix || c->target_bpw > 0 ? METHOD_IMATRIX : METHOD_RTN;
    if (c->method_name)
        for (method = 0; method < N_METHODS && strcmp(methods[method].name, c->method_name) != 0;)
            method++;
    if (method == N_METHODS)
        return usage_error("quantize: --method %s: no such method; see `quoll quantize --list`",
                           c->method_name);
    c->method = &methods[method];
    const bool target = c->target_bpw > 0; /* has a text, and importances from it */
    if (c->method->imatrix != (c->imatrix != NULL) && !(c->method->imatrix && target))
        return usage_error("quantize: --method %s %s", c->method->name,
                           c->imatrix ? "takes no --imatrix" : "needs --imatrix FILE");
    if (target && !c->calib)
        return usage_error("quantize: --target-bpw needs --calib TEXT");
    if (!target && (c->target_types || c->target_tokens))
        return usage_error("quantize: --target-types and --target-tokens belong to --target-bpw");
    if (c->target_types && target_check_types(c->target_types))
        return EXIT_USAGE;
    if (c->allow_nan && needs_calibration(c))
        return usage_error("quantize: --method %s takes no --allow-nan: one NaN would be everywhere",
                           c->method->name);
    if (c->method->text != (c->calib != NULL) && !target)
        return usage_error("quantize: --method %s %s", c->method->name,
                           c->calib ? "takes no --calib" : "needs --calib TEXT");
    return 0;
}

/* Whose name a model of so many bits per weight gets, and with which it is compared. */
static const struct mix *nearest_mix(double bpw)
{
    const struct mix *best = mix_at(0);
    for (size_t i = 1; i < mix_n(); i++)
        if (fabs(mix_bits(mix_at(i)) - bpw) < fabs(mix_bits(best) - bpw))
            best = mix_at(i);
    return best;
}

static int run(struct quantize_command *c, const char *const *args, size_t n_args)
{
    char err[1024] = "";
    if (c->list)
        return print_list();
    const bool target = c->target_bpw > 0;
    const char *const last = n_args ? args[n_args - 1] : "";
    const bool named = !target || mix_by_name(last) || gptq_folder_type_by_name(last);
    const size_t n_paths = n_args - (named && n_args > 0);
    if (n_paths != 2 && !(c->dry_run && n_paths == 1))
        return usage_error("quantize: IN, OUT and TYPE are needed; see `quoll quantize --help`");
    const char *in = args[0], *out = args[1], *type = last;
    c->type = named ? type : "";
    const struct mix *mix = named ? mix_by_name(type) : nearest_mix(c->target_bpw);
    const struct gptq_folder_type *folder = gptq_folder_type_by_name(type);
    if (!mix && !folder)
        return usage_error("quantize: no type '%s'; see `quoll quantize --list`", type);
    if (mix && n_paths == 2 && !ends_in_gguf(out))
        return usage_error("quantize: OUT must end in .gguf, not '%s'", out);
    if (folder && ends_in_gguf(out))
        return usage_error("quantize: %s is written as a folder: OUT must not end in .gguf", type);
    if (folder &&
        (target || c->dry_run || c->n_rules || c->output_type >= 0 || c->embedding_type >= 0 || c->lora.n))
        return usage_error("quantize: %s takes no --dry-run, no --lora, no --target-bpw and no types of "
                           "single tensors",
                           type);
    int code = check_method(c);
    if (code == 0)
        code = check_rotate(c, n_paths);
    if (code)
        return code;
    if (c->leave_output)
        c->output_type = QTYPE_F16;
    if (c->n_threads == 0)
        c->n_threads = machine_threads();
    if (tool_log_open(c->log_level, NULL, err, sizeof err))
        return tool_error("%s", err);
    tool_catch_interrupts();
    if (quantize_model(c, in, out, mix, folder, err, sizeof err) == 0)
        return EXIT_OK;
    return tool_interrupts() > 0 ? EXIT_INTERRUPTED : tool_error("%s", err);
}

static int be_quiet(void *to, const char *option, const char *value)
{
    (void)option, (void)value;
    *(int *)to = NOTE_ALWAYS;
    return 0;
}

int cmd_quantize(int argc, char **argv)
{
    struct quantize_command c = {.output_type = -1,
                                 .embedding_type = -1,
                                 .log_level = NOTE_USUAL,
                                 .calib_tokens = 1 << 16,
                                 .calib_ctx = 2048};
    const char *args[3];
    const struct option_row rows[] = {
        OPTION_FLAG_ROW("list", 0, &c.list, "types, mixes and methods, with bits per weight"),
        OPTION_STRING_ROW("method", 0, &c.method_name, "NAME",
                          "rtn, imatrix (default with --imatrix), hqq, awq, gptq, awq+gptq"),
        OPTION_STRING_ROW("calib", 0, &c.calib, "TEXT",
                          "the calibration text of awq and gptq, and of --target-bpw"),
        OPTION_NUMBER_ROW("target-bpw", 0, &c.target_bpw, 1, 16, "F",
                          "a type for each matrix so that the output changes least, at so many bits per "
                          "weight (TYPE can be left out)"),
        OPTION_STRING_ROW("target-types", 0, &c.target_types, "TYPE,…",
                          "the types to choose from (default: all from 2 bits on)"),
        OPTION_NUMBER_ROW("target-tokens", 0, &c.target_tokens, 1, 1 << 20, "N",
                          "how many tokens every matrix is tried on (default 384)"),
        OPTION_NUMBER_ROW("calib-tokens", 0, &c.calib_tokens, 1, 1 << 30, "N",
                          "how much of it is used at most (default 65536)"),
        OPTION_NUMBER_ROW("calib-ctx", 0, &c.calib_ctx, 1, 1 << 20, "N",
                          "in sequences of so many tokens (default 2048, or the model's context)"),
        OPTION_NUMBER_ROW("damp", 0, &c.damp, 1e-6, 1, "F",
                          "gptq: added to the diagonal, times its mean (default 0.01)"),
        OPTION_FLAG_ROW("no-act-order", 0, &c.natural_order, "gptq: columns in their order, not by size"),
        OPTION_FLAG_ROW(
            "rotate", 0, &c.rotate,
            "rotate residual stream and heads first, so that no weight stands out (QuaRot); with every "
            "method, of most use where a whole row shares a scale"),
        OPTION_STRING_ROW("imatrix", 0, &c.imatrix, "FILE",
                          "importances of the matrices' columns, from `quoll imatrix` or llama-imatrix"),
        OPTION_CALL_ROW("tensor-type", 0, &c, add_rule, "PATTERN=TYPE",
                        "the type of matrices whose name matches (a regular expression), repeatable; the "
                        "first that matches counts"),
        OPTION_CALL_ROW("output-tensor-type", 0, &c.output_type, set_type, "TYPE", "of output.weight"),
        OPTION_CALL_ROW("token-embedding-type", 0, &c.embedding_type, set_type, "TYPE",
                        "of token_embd.weight"),
        OPTION_FLAG_ROW("pure", 0, &c.pure, "all matrices get the same type"),
        OPTION_FLAG_ROW("dry-run", 0, &c.dry_run, "only say what would become what, and the size"),
        OPTION_FLAG_ROW("allow-nan", 0, &c.allow_nan, "quantise values that are not finite too, to NaN"),
        OPTION_FLAG_ROW("resume", 0, &c.resume,
                        "go on with OUT.part, which the same command left when it was interrupted"),
        OPTION_FLAG_ROW("leave-output-tensor", 0, &c.leave_output, "output.weight becomes f16"),
        OPTION_CALL_ROW("lora", 0, &c.lora, lora_append, "PATH[:SCALE]",
                        "merge a PEFT adapter into the matrices first, repeatable"),
        OPTION_NUMBER_ROW("threads", 't', &c.n_threads, 1, 1024, "N", "threads (default: physical cores)"),
        OPTION_CALL_ROW("quiet", 'q', &c.log_level, be_quiet, NULL, "no notes"),
        OPTION_FLAG_ROW("allow-requantize", 0, &c.allow_requantize,
                        "accepted: models that are quantised already are always taken"),
    };
    struct option_set set = {
        .usage = "quoll quantize IN OUT.gguf TYPE | IN FOLDER intB_gN | --list  [options]",
        .about =
            "Writes a model with its matrices in fewer bits. IN: any model. Norms, biases and routers stay.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .args = args,
        .max_args = 3,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO)
        code = run(&c, args, set.n_args);
    command_free(&c);
    return code;
}
