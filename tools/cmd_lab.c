/* quoll lab: types, methods and KV caches measured side by side on the user's own model and text. */
#include "tools/corpus.h"
#include "tools/lab.h"
#include "tools/tools.h"

#include "quant/err.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_ARGS = 24, NUMBER_LEN = 24, N_CONTEXTS = 4 };
static const char *const contexts[N_CONTEXTS] = {"512", "2048", "8192", "32768"};
static const char base_type[] = "base"; /* the model as it is */

struct lab_command {
    const char *model, *eval, *calib, *grid_text, *dir;
    int n_ctx, chunks, calib_tokens, n_threads;
    bool keep, no_speed;

    struct lab_grid grid;
    struct lab_store store;
    char ctx_text[NUMBER_LEN], chunks_text[NUMBER_LEN], tokens_text[NUMBER_LEN], threads_text[NUMBER_LEN];
    char *imatrix, *cell_path;           /* in dir */
    const char *cell_type, *cell_method; /* what lies at cell_path; NULL: nothing */
    double cell_seconds;                 /* making it took */
    char *cell_command;
    json_t *cell_errors; /* of its weights; NULL: they have no meaning, or are in a cell already */
    int n_cells, n_done, n_failed;
    double begin;
};

/* ---- Commands ------------------------------------------------------------------------------------- */

struct args {
    const char *v[MAX_ARGS];
    size_t n;
};

static void add(struct args *a, const char *s)
{
    if (a->n + 1 < MAX_ARGS)
        a->v[a->n++] = s;
}

static void add_option(struct args *a, const char *name, const char *value)
{
    if (value && *value) {
        add(a, name);
        add(a, value);
    }
}

/* The importance matrix, once for all cells. */
static int make_imatrix(const struct lab_command *c, char *err, size_t errlen)
{
    FILE *f = fopen(c->imatrix, "rb");
    if (f) {
        (void)fclose(f);
        return 0;
    }
    struct args a = {{"imatrix"}, 1};
    add_option(&a, "-m", c->model);
    add_option(&a, "-f", c->calib);
    add_option(&a, "-o", c->imatrix);
    add_option(&a, "-t", c->threads_text);
    return lab_run(a.v, NULL, err, errlen);
}

static void drop_cell(struct lab_command *c)
{
    if (c->cell_type && !c->keep)
        lab_remove(c->cell_path);
    free(c->cell_path);
    free(c->cell_command);
    json_decref(c->cell_errors);
    c->cell_errors = NULL;
    c->cell_path = c->cell_command = NULL;
    c->cell_type = c->cell_method = NULL;
}

static bool is_folder_type(const char *type)
{
    return strncasecmp(type, "int", 3) == 0;
}

/* What is there of a model that could not be made. A run that was interrupted goes on with it. */
static void drop_part(const struct lab_command *c)
{
    char *part;
    lab_remove(c->cell_path);
    if (tool_interrupts() == 0 && asprintf(&part, "%s.part", c->cell_path) >= 0) {
        lab_remove(part);
        free(part);
    }
}

/* The quantised model of a cell, unless the last one is the same. */
static int make_cell(struct lab_command *c, const char *type, const char *method, char *err, size_t errlen)
{
    if (c->cell_type && strcmp(c->cell_type, type) == 0 && strcmp(c->cell_method, method) == 0)
        return 0;
    drop_cell(c);
    if (asprintf(&c->cell_path, "%s/%s-%s%s", c->dir, type, method, is_folder_type(type) ? "" : ".gguf") <
        0) {
        c->cell_path = NULL;
        return err_set(err, errlen, "out of memory");
    }
    const bool weighed = strcmp(method, "imatrix") == 0;
    const bool calibrated = strstr(method, "gptq") || strstr(method, "awq");
    if ((weighed || calibrated) && !c->calib)
        return err_set(err, errlen, "method %s needs --calib TEXT", method);
    if (weighed && make_imatrix(c, err, errlen))
        return -1;
    struct args a = {{"quantize", c->model, c->cell_path, type, "--resume"}, 5};
    add_option(&a, "--method", method);
    add_option(&a, "--imatrix", weighed ? c->imatrix : NULL);
    add_option(&a, "--calib", calibrated ? c->calib : NULL);
    add_option(&a, "--calib-tokens", calibrated ? c->tokens_text : NULL);
    add_option(&a, "-t", c->threads_text);
    lab_remove(c->cell_path);
    const double begin = machine_seconds();
    if (lab_run(a.v, NULL, err, errlen) != 0) {
        drop_part(c);
        return -1;
    }
    c->cell_seconds = machine_seconds() - begin;
    c->cell_command = lab_command_text(a.v);
    c->cell_type = type;
    c->cell_method = method;
    /* AWQ's columns are others: its weights cannot be compared one by one. */
    if (strstr(method, "awq"))
        return 0;
    c->cell_errors =
        lab_errors(c->model, c->cell_path, c->n_threads ? c->n_threads : machine_threads(), err, errlen);
    return c->cell_errors ? 0 : -1;
}

/* ---- One cell ------------------------------------------------------------------------------------- */

static int measure_quality(const struct lab_command *c, json_t *cell, const char *file, const char *kv,
                           char *err, size_t errlen)
{
    struct args a = {{"perplexity", "--json", "-q"}, 3};
    add_option(&a, "-m", file);
    add_option(&a, "--against", c->model);
    add_option(&a, "-f", c->eval);
    add_option(&a, "-c", c->ctx_text);
    add_option(&a, "--chunks", c->chunks_text);
    add_option(&a, "--kv-type", kv);
    add_option(&a, "-t", c->threads_text);
    json_t *got = lab_run_json(a.v, err, errlen);
    if (!got)
        return -1;
    char *text = lab_command_text(a.v);
    (void)json_object_set_new(cell, "command", json_string(text ? text : ""));
    free(text);
    int rc = json_object_update(cell, got) ? err_set(err, errlen, "out of memory") : 0;
    json_decref(got);
    return rc;
}

static int measure_speed(const struct lab_command *c, json_t *cell, const char *file, const char *kv,
                         char *err, size_t errlen)
{
    struct args a = {{"bench", "-p", "128", "-n", "32", "-r", "3", "-o", "json"}, 9};
    add_option(&a, "-m", file);
    add_option(&a, "--kv-type", kv);
    add_option(&a, "-t", c->threads_text);
    json_t *got = lab_run_json(a.v, err, errlen), *row;
    size_t i;
    if (!got)
        return -1;
    json_array_foreach(got, i, row)
    {
        const bool generated = json_integer_value(json_object_get(row, "n_gen")) > 0;
        (void)json_object_set(cell, generated ? "tg_ts" : "pp_ts", json_object_get(row, "avg_ts"));
        (void)json_object_set(cell, generated ? "tg_sd" : "pp_sd", json_object_get(row, "stddev_ts"));
    }
    json_decref(got);
    return 0;
}

static int measure_size(json_t *cell, const char *file, const char *kv, char *err, size_t errlen)
{
    json_t *memory = json_object();
    int rc = memory ? 0 : err_set(err, errlen, "out of memory");
    for (int i = 0; rc == 0 && i < N_CONTEXTS; i++) {
        struct args a = {{"inspect", file, "--json", "--plan"}, 4};
        add_option(&a, "-c", contexts[i]);
        add_option(&a, "--kv-type", kv);
        json_t *got = lab_run_json(a.v, err, errlen);
        if (!got) {
            rc = -1;
            continue;
        }
        (void)json_object_set(cell, "bits_per_weight", json_object_get(got, "bits_per_weight"));
        (void)json_object_set(cell, "tensor_bytes", json_object_get(got, "tensor_bytes"));
        (void)json_object_set(memory, contexts[i],
                              json_object_get(json_object_get(got, "plan"), "total_bytes"));
        json_decref(got);
    }
    (void)json_object_set_new(cell, "memory", memory);
    return rc;
}

static int measure(struct lab_command *c, json_t *cell, const char *type, const char *method, const char *kv,
                   char *err, size_t errlen)
{
    const bool is_base = strcmp(type, base_type) == 0;
    if (!is_base && make_cell(c, type, method, err, errlen))
        return -1;
    const char *file = is_base ? c->model : c->cell_path;
    if (!is_base && c->cell_errors) {
        (void)json_object_set_new(cell, "weight_error", json_real(lab_errors_rms(c->cell_errors)));
        (void)json_object_set_new(cell, "errors", c->cell_errors);
        c->cell_errors = NULL;
    }
    if (!is_base) {
        (void)json_object_set_new(cell, "quantize", json_string(c->cell_command ? c->cell_command : ""));
        (void)json_object_set_new(cell, "quantize_seconds", json_real(c->cell_seconds));
    }
    if (measure_quality(c, cell, file, kv, err, errlen) || measure_size(cell, file, kv, err, errlen))
        return -1;
    return c->no_speed ? 0 : measure_speed(c, cell, file, kv, err, errlen);
}

static double value(const json_t *cell, const char *key)
{
    return json_number_value(json_object_get(cell, key));
}

static void say_cell(const struct lab_command *c, const json_t *cell, double seconds)
{
    const char *error = json_string_value(json_object_get(cell, "error"));
    const double left = (machine_seconds() - c->begin) / (c->n_done + 1) * (c->n_cells - c->n_done - 1);
    char name[128];
    (void)snprintf(name, sizeof name, "%s %s %s", json_string_value(json_object_get(cell, "type")),
                   json_string_value(json_object_get(cell, "method")),
                   json_string_value(json_object_get(cell, "kv")));
    if (error)
        tool_note(NOTE_USUAL, "[%d/%d] %-24s failed: %s\n", c->n_done + 1, c->n_cells, name, error);
    else
        tool_note(
            NOTE_USUAL,
            "[%d/%d] %-24s KL %.5f  PPL %.3f  same top %.1f %%  %.2f bits  %.1f tokens/s  (%.0f s; about "
            "%.0f min to go)\n",
            c->n_done + 1, c->n_cells, name, value(cell, "kl_mean"), value(cell, "ppl"),
            value(cell, "top1_same"), value(cell, "bits_per_weight"), value(cell, "tg_ts"), seconds,
            left / 60);
}

/* Measures a cell that is not there yet. −1: the work cannot go on; a cell that fails is a result. */
static int do_cell(struct lab_command *c, const char *type, const char *method, const char *kv, char *err,
                   size_t errlen)
{
    char why[512] = "";
    if (lab_store_find(&c->store, type, method, kv)) {
        c->n_cells--;
        return 0;
    }
    json_t *cell = json_pack("{s:s, s:s, s:s}", "type", type, "method", method, "kv", kv);
    if (!cell)
        return err_set(err, errlen, "out of memory");
    const double begin = machine_seconds();
    if (measure(c, cell, type, method, kv, why, sizeof why)) {
        if (tool_interrupts() > 0) {
            json_decref(cell);
            return -1;
        }
        (void)json_object_set_new(cell, "error", json_string(why));
        c->n_failed++;
    }
    say_cell(c, cell, machine_seconds() - begin);
    c->n_done++;
    return lab_store_add(&c->store, cell, err, errlen);
}

/* ---- The grid ------------------------------------------------------------------------------------- */

static int do_grid(struct lab_command *c, char *err, size_t errlen)
{
    const struct lab_grid *g = &c->grid;
    c->n_cells = (int)((g->types.n * g->methods.n + 1) * g->kvs.n);
    c->begin = machine_seconds();
    for (size_t k = 0; k < g->kvs.n; k++)
        if (do_cell(c, base_type, "none", g->kvs.item[k], err, errlen))
            return -1;
    for (size_t t = 0; t < g->types.n; t++)
        for (size_t m = 0; m < g->methods.n; m++)
            for (size_t k = 0; k < g->kvs.n; k++)
                if (do_cell(c, g->types.item[t], g->methods.item[m], g->kvs.item[k], err, errlen))
                    return -1;
    return 0;
}

/* What all cells have in common; another one cannot go on in the same folder. */
static json_t *header_of(const struct lab_command *c, char *err, size_t errlen)
{
    struct args a = {{"inspect", c->model, "--json"}, 3};
    json_t *model = lab_run_json(a.v, err, errlen);
    char *text, hash[HASH_TEXT_BYTES];
    uint8_t bytes[CORPUS_HASH_BYTES];
    size_t len;
    if (!model)
        return NULL;
    if (read_file(c->eval, &text, &len, err, errlen)) {
        json_decref(model);
        return NULL;
    }
    corpus_hash(bytes, text, len);
    free(text);
    json_t *header = json_pack(
        "{s:s, s:s, s:O, s:O, s:O, s:s, s:s, s:i, s:i, s:s, s:i, s:s}", "program", "quoll " QUOLL_VERSION,
        "model", c->model, "file_bytes", json_object_get(model, "file_bytes"), "architecture",
        json_object_get(model, "architecture"), "n_params", json_object_get(model, "n_params"), "text",
        c->eval, "text_sha256", hash_text(hash, bytes), "n_ctx", c->n_ctx, "chunks", c->chunks, "calib",
        c->calib ? c->calib : "", "calib_tokens", c->calib_tokens, "cpu", machine_cpu_name());
    json_decref(model);
    if (!header)
        (void)err_set(err, errlen, "out of memory");
    return header;
}

static int run(struct lab_command *c)
{
    char err[1024] = "";
    const char *model = model_path(c->model, err, sizeof err);
    if (!model)
        return tool_error("%s", err);
    if (lab_grid_parse(&c->grid, c->grid_text, err, sizeof err))
        return usage_error("lab: --grid: %s", err);
    c->model = model;
    tool_catch_interrupts();
    (void)snprintf(c->ctx_text, NUMBER_LEN, "%d", c->n_ctx);
    (void)snprintf(c->tokens_text, NUMBER_LEN, "%d", c->calib_tokens);
    if (c->chunks > 0)
        (void)snprintf(c->chunks_text, NUMBER_LEN, "%d", c->chunks);
    if (c->n_threads > 0)
        (void)snprintf(c->threads_text, NUMBER_LEN, "%d", c->n_threads);
    int rc = asprintf(&c->imatrix, "%s/imatrix.gguf", c->dir);
    if (rc < 0) {
        c->imatrix = NULL;
        return tool_error("out of memory");
    }
    json_t *header = header_of(c, err, sizeof err);
    rc = header ? lab_store_open(&c->store, c->dir, header, err, sizeof err) : -1;
    json_decref(header);
    if (rc == 0)
        rc = do_grid(c, err, sizeof err);
    if (rc == 0 && c->calib)
        rc = lab_sensitivity(c->dir, c->model, c->calib, c->n_threads ? c->n_threads : machine_threads(), err,
                             sizeof err);
    if (rc == 0 || (tool_interrupts() > 0 && c->store.path))
        rc |= lab_report(&c->store, c->dir, err, sizeof err);
    const bool stopped = tool_interrupts() > 0;
    if (rc == 0)
        tool_note(NOTE_USUAL, "%s/report.html\n", c->dir);
    drop_cell(c);
    lab_store_close(&c->store);
    if (stopped)
        return EXIT_INTERRUPTED;
    if (rc == 0 && c->n_failed)
        return tool_error("lab: %d of %d cells failed; the report says why", c->n_failed, c->n_done);
    return rc ? tool_error("%s", err) : EXIT_OK;
}

int cmd_lab(int argc, char **argv)
{
    struct lab_command c = {.n_ctx = 512, .calib_tokens = 1 << 16};
    const struct option_row rows[] = {
        OPTION_STRING_ROW("model", 'm', &c.model, "PATH", "the model, the base of all comparisons"),
        OPTION_STRING_ROW("file", 'f', &c.eval, "TEXT", "the text that quality is measured on"),
        OPTION_STRING_ROW("calib", 0, &c.calib, "TEXT", "the calibration text of imatrix, awq and gptq"),
        OPTION_STRING_ROW(
            "grid", 0, &c.grid_text, "SPEC",
            "'types=q8_0,q4_k,int4_g128 methods=rtn,gptq kv=f16,q8_0'; each is combined with each"),
        OPTION_STRING_ROW("output", 'o', &c.dir, "DIR",
                          "results and report; what is done there is not repeated"),
        OPTION_NUMBER_ROW("ctx-size", 'c', &c.n_ctx, 2, 1 << 20, "N", "tokens of a window (default 512)"),
        OPTION_NUMBER_ROW("chunks", 0, &c.chunks, 1, INT32_MAX, "N", "at most so many windows (default all)"),
        OPTION_NUMBER_ROW("calib-tokens", 0, &c.calib_tokens, 1, 1 << 30, "N",
                          "of the calibration text, for awq and gptq (default 65536)"),
        OPTION_NUMBER_ROW("threads", 't', &c.n_threads, 1, 1024, "N", "threads (default: physical cores)"),
        OPTION_FLAG_ROW("no-speed", 0, &c.no_speed, "quality and size alone"),
        OPTION_FLAG_ROW("keep", 0, &c.keep, "keep the quantised models"),
    };
    struct option_set set = {
        .usage = "quoll lab -m MODEL -f TEXT [--calib TEXT] --grid SPEC -o DIR [options]",
        .about =
            "Quantises a model in many ways and measures them side by side: divergence and perplexity, "
            "bits,\n"
            "speed, memory. Writes results.json, results.csv and report.html. Goes on where it was stopped.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO && (!c.eval || !c.grid_text || !c.dir))
        code = usage_error("lab: -f TEXT, --grid SPEC and -o DIR are needed; see `quoll lab --help`");
    if (code == OPTIONS_GO)
        code = run(&c);
    lab_grid_free(&c.grid);
    free(c.imatrix);
    return code;
}
