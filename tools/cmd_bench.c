/* `quoll bench`: prompt and generation speed, measured as llama-bench measures it. */
#include "model/arch.h"
#include "quant/err.h"
#include "tools/bench_limits.h"
#include "tools/bench_source.h"
#include "tools/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LIST = 64, MAX_REPETITIONS = 10000, MAX_COUNT = 1024 /* of threads, of sequences */ };

struct int_list {
    int64_t v[MAX_LIST];
    size_t n;
};

enum format { FORMAT_MD, FORMAT_CSV, FORMAT_JSON, FORMAT_JSONL };

struct bench_command {
    struct run_options run;
    struct bench_sources sources;
    struct int_list n_prompt, n_gen, n_depth, n_threads, n_seqs;
    int repetitions;
    enum format format;
    bool membw;
    struct bench_limits limits; /* of membw */
    json_t *records;            /* FORMAT_JSON */
    size_t n_printed;
};

/* One line of the result. */
struct test {
    int n_threads;
    int64_t n_prompt, n_gen, n_depth; /* one of n_prompt and n_gen is 0 */
    int n_seqs;                       /* sequences that are generated together */
    int n_samples;
    double *samples; /* (n_samples) tokens/s */
    double mean, deviation, read_gb_s, gmac_s;
};

/* ---- Options ------------------------------------------------------------------------------------- */

static int set_list(void *to, const char *option, const char *value)
{
    struct int_list *list = to;
    int64_t min = strcmp(option, "--threads") == 0 || strcmp(option, "--parallel") == 0 ? 1 : 0;
    list->n = 0;
    for (const char *c = value;;) {
        char word[24];
        size_t len = strcspn(c, ",");
        snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word - 1), c);
        if (list->n == MAX_LIST)
            return usage_error("%s %s: more than %d numbers", option, value, MAX_LIST);
        if (!parse_int64(word, min, min ? MAX_COUNT : INT32_MAX / 4, &list->v[list->n++]))
            return usage_error("%s %s: not a list of numbers, comma separated", option, value);
        if (!c[len])
            return 0;
        c += len + 1;
    }
}

static int set_format(void *to, const char *option, const char *value)
{
    static const char *const names[] = {"md", "csv", "json", "jsonl"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(value, names[i]) == 0) {
            *(enum format *)to = (enum format)i;
            return 0;
        }
    }
    return usage_error("%s %s: md, csv, json or jsonl", option, value);
}

/* ---- Measuring ----------------------------------------------------------------------------------- */

/* Any ids will do: the work is the same. The same ones every time, spread over the vocabulary. */
static void fill_ids(int32_t *ids, size_t n, int vocab_size)
{
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = (int32_t)((x >> 8) % (uint32_t)vocab_size);
    }
}

static int eval_test(struct session *s, const struct test *t, const int32_t *ids, char *err, size_t errlen)
{
    const float *logits;
    if (t->n_prompt > 0)
        return session_eval(s, ids, (size_t)t->n_prompt, &logits, err, errlen);
    int32_t seq[MAX_COUNT]; /* each sequence's next token */
    for (int i = 0; i < t->n_seqs; i++)
        seq[i] = i;
    int rc = 0;
    for (int64_t i = 0; rc == 0 && i < t->n_gen; i++)
        rc = session_eval_seqs(s, ids + i, seq, (size_t)t->n_seqs, &logits, err, errlen);
    return rc;
}

/* Every sequence holds the test's depth and no more. Layers with a sliding window may have let go of what
 * that needs: it is evaluated again. */
static int restore_depth(struct session *s, const struct test *t, const int32_t *ids, char *err,
                         size_t errlen)
{
    int32_t *seq = malloc((size_t)(t->n_depth + 1) * sizeof *seq);
    if (!seq)
        return err_set(err, errlen, "out of memory");
    int rc = 0;
    for (int i = 0; rc == 0 && i < t->n_seqs; i++) {
        const float *logits;
        int64_t held = cache_truncate(s->cache, i, t->n_depth);
        for (int64_t k = 0; k < t->n_depth - held; k++)
            seq[k] = i;
        rc = session_eval_seqs(s, ids + held, seq, (size_t)(t->n_depth - held), &logits, err, errlen);
    }
    free(seq);
    return rc;
}

/* Bytes of weights and of keys and values that are read for one token of each sequence, at the test's mean
 * depth. */
static double bytes_per_token(const struct session *s, const struct test *t)
{
    struct model_memory mem;
    model_memory(s->model, &mem);
    const struct config *c = s->config;
    int64_t position = qtype_bytes(s->type_k, c->head_dim) + qtype_bytes(s->type_v, c->head_dim);
    double depth = (double)t->n_depth + (double)(t->n_gen + 1) / 2;
    return (double)mem.token_bytes + depth * (double)position * c->n_kv_heads * c->n_layers * t->n_seqs;
}

static void summarise(const struct session *s, struct test *t)
{
    double sum = 0, square = 0;
    for (int i = 0; i < t->n_samples; i++)
        sum += t->samples[i];
    t->mean = sum / t->n_samples;
    for (int i = 0; i < t->n_samples; i++)
        square += (t->samples[i] - t->mean) * (t->samples[i] - t->mean);
    t->deviation = t->n_samples > 1 ? sqrt(square / (t->n_samples - 1)) : 0;
    struct model_memory mem;
    model_memory(s->model, &mem);
    t->gmac_s = t->n_prompt > 0 ? (double)mem.token_macs * t->mean * 1e-9 : 0;
    t->read_gb_s = t->n_gen > 0 ? bytes_per_token(s, t) * t->mean / t->n_seqs * 1e-9 : 0;
}

/* A warm-up, then the samples; each from the same depth. 0, −1, or SESSION_STOPPED. */
static int measure(struct session *s, struct test *t, const int32_t *ids, char *err, size_t errlen)
{
    struct test warm = *t;
    if (t->n_gen > 0)
        warm.n_gen = 1;
    for (int i = 0; i < t->n_seqs; i++)
        cache_drop(s->cache, i);
    int rc = eval_test(s, &warm, ids, err, errlen);
    for (int i = 0; i < t->n_seqs; i++)
        cache_drop(s->cache, i);
    for (int i = 0; rc == 0 && i < t->n_samples; i++) {
        if ((rc = restore_depth(s, t, ids, err, errlen)) != 0)
            break;
        double start = machine_seconds();
        rc = eval_test(s, t, ids, err, errlen);
        double seconds = machine_seconds() - start;
        t->samples[i] = (double)(t->n_prompt + t->n_gen * t->n_seqs) / (seconds > 0 ? seconds : 1e-9);
    }
    if (rc == 0)
        summarise(s, t);
    return rc;
}

/* ---- Printing ------------------------------------------------------------------------------------ */

/* "llama 135M Q4_1" */
static void model_type(const struct session *s, uint64_t n_params, char *text, size_t size)
{
    char params[32], type[16];
    double n = (double)n_params;
    if (n >= 1e9)
        snprintf(params, sizeof params, "%.2fB", n * 1e-9);
    else if (n >= 1e6)
        snprintf(params, sizeof params, "%.0fM", n * 1e-6);
    else
        snprintf(params, sizeof params, "%.0fK", n * 1e-3);
    snprintf(type, sizeof type, "%s", qtypes[s->main_type].name);
    for (char *c = type; *c; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    snprintf(text, size, "%s %s %s", s->config->arch->name, params, type);
}

static void print_md(struct bench_command *c, const struct session *s, const struct test *t, const char *type,
                     uint64_t n_params)
{
    char test[96], speed[64], depth[32] = "", read[32] = "", seqs[16] = "";
    if (c->n_printed == 0) {
        printf("| model                        |       size |   params | threads | test             |"
               "               t/s |  GB/s |\n");
        printf("| ---------------------------- | ---------: | -------: | ------: | ---------------- |"
               " ----------------: | ----: |\n");
    }
    if (t->n_depth > 0)
        snprintf(depth, sizeof depth, " @ d%" PRId64, t->n_depth);
    if (t->n_seqs > 1)
        snprintf(seqs, sizeof seqs, " x%d", t->n_seqs);
    snprintf(test, sizeof test, "%s%" PRId64 "%s%s", t->n_prompt > 0 ? "pp" : "tg",
             t->n_prompt > 0 ? t->n_prompt : t->n_gen, seqs, depth);
    snprintf(speed, sizeof speed, "%.2f ± %.2f", t->mean, t->deviation);
    if (t->read_gb_s > 0)
        snprintf(read, sizeof read, "%.2f", t->read_gb_s);
    /* ± is two bytes in one column */
    printf("| %-28s | %6.2f MiB | %6.2f M | %7d | %-16s | %18s | %5s |\n", type,
           (double)s->tensor_bytes / (1 << 20), (double)n_params * 1e-6, t->n_threads, test, speed, read);
}

static json_t *test_record(const struct bench_command *c, const struct session *s, const struct test *t,
                           const char *type, uint64_t n_params)
{
    json_t *samples = json_array();
    for (int i = 0; i < t->n_samples; i++)
        json_array_append_new(samples, json_real(t->samples[i]));
    json_t *path = json_string(s->path);
    json_t *r = json_pack(
        "{s:o, s:s, s:I, s:I, s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:I, s:I, s:I, s:i, s:f, s:f, "
        "s:o, s:f, s:f}",
        "model", path ? path : json_string("(not UTF-8)"), "model_type", type, "model_size",
        (json_int_t)s->tensor_bytes, "model_n_params", (json_int_t)n_params, "backend", s->ops->name,
        "cpu_isa", isa_name(c->run.isa), "gpu", s->ops->device ? s->ops->device : "", "n_threads",
        t->n_threads, "n_batch", c->run.n_batch, "type_k", qtypes[s->type_k].name, "type_v",
        qtypes[s->type_v].name, "n_prompt", (json_int_t)t->n_prompt, "n_gen", (json_int_t)t->n_gen, "n_depth",
        (json_int_t)t->n_depth, "n_seqs", t->n_seqs, "avg_ts", t->mean, "stddev_ts", t->deviation,
        "samples_ts", samples, "read_gb_s", t->read_gb_s, "gmac_s", t->gmac_s);
    if (r && c->membw) {
        json_object_set_new(r, "membw_gb_s", json_real(c->limits.read * 1e-9));
        json_object_set_new(r, "int8_gmac_s", json_real(c->limits.dots * 1e-9));
        json_object_set_new(r, "f32_gmac_s", json_real(c->limits.fmas * 1e-9));
    }
    return r;
}

static void print_csv_field(const json_t *v)
{
    if (json_is_string(v)) {
        printf("\"");
        for (const char *c = json_string_value(v); *c; c++)
            printf(*c == '"' ? "\"\"" : "%c", *c);
        printf("\"");
    } else if (json_is_integer(v)) {
        printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        printf("%.6f", json_real_value(v));
    } else { /* samples_ts */
        printf("\"");
        for (size_t i = 0; i < json_array_size(v); i++)
            printf("%s%.6f", i ? " " : "", json_real_value(json_array_get(v, i)));
        printf("\"");
    }
}

static void print_csv(const struct bench_command *c, json_t *r)
{
    const char *key, *sep = "";
    json_t *v;
    json_object_foreach(r, key, v)
    {
        if (c->n_printed > 0)
            break;
        printf("%s%s", sep, key);
        sep = ",";
    }
    printf(c->n_printed > 0 ? "" : "\n");
    sep = "";
    json_object_foreach(r, key, v)
    {
        printf("%s", sep);
        print_csv_field(v);
        sep = ",";
    }
    printf("\n");
}

static int print_test(struct bench_command *c, const struct session *s, const struct test *t, char *err,
                      size_t errlen)
{
    char type[128];
    struct model_memory mem;
    model_memory(s->model, &mem);
    model_type(s, mem.n_params, type, sizeof type);
    if (c->format == FORMAT_MD) {
        print_md(c, s, t, type, mem.n_params);
    } else {
        json_t *r = test_record(c, s, t, type, mem.n_params);
        if (!r)
            return err_set(err, errlen, "out of memory");
        if (c->format == FORMAT_JSON) {
            json_array_append(c->records, r);
        } else if (c->format == FORMAT_CSV) {
            print_csv(c, r);
        } else {
            json_dumpf(r, stdout, JSON_REAL_PRECISION(9));
            printf("\n");
        }
        json_decref(r);
    }
    c->n_printed++;
    fflush(stdout);
    return 0;
}

/* ---- All tests ----------------------------------------------------------------------------------- */

static int64_t list_max(const struct int_list *list)
{
    int64_t max = 0;
    for (size_t i = 0; i < list->n; i++)
        max = list->v[i] > max ? list->v[i] : max;
    return max;
}

/* Positions that the largest test needs. */
static int64_t positions(const struct bench_command *c)
{
    int64_t prompt = list_max(&c->n_prompt), gen = list_max(&c->n_gen);
    int64_t n = list_max(&c->n_depth) + (prompt > gen ? prompt : gen);
    return n > 0 ? n : 1;
}

/* One kind of test (prompts or generation) of the given lengths, at every depth. */
static int bench_lengths(struct bench_command *c, struct session *s, const struct int_list *lengths,
                         bool generate, struct test *t, const int32_t *ids, char *err, size_t errlen)
{
    const size_t n_seqs = generate ? c->n_seqs.n : 1; /* a prompt is one sequence */
    for (size_t i = 0; i < lengths->n * n_seqs; i++) {
        const int64_t length = lengths->v[i / n_seqs];
        if (length == 0)
            continue;
        t->n_prompt = generate ? 0 : length;
        t->n_gen = generate ? length : 0;
        t->n_seqs = generate ? (int)c->n_seqs.v[i % n_seqs] : 1;
        int rc = measure(s, t, ids, err, errlen);
        if (rc == 0)
            rc = print_test(c, s, t, err, errlen);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int bench_model(struct bench_command *c, struct session *s, char *err, size_t errlen)
{
    struct test t = {.n_samples = c->repetitions};
    size_t n_ids = (size_t)(positions(c) + list_max(&c->n_seqs));
    int32_t *ids = malloc(n_ids * sizeof *ids);
    t.samples = calloc((size_t)c->repetitions, sizeof *t.samples);
    if (!ids || !t.samples) {
        free(ids);
        free(t.samples);
        return err_set(err, errlen, "out of memory");
    }
    fill_ids(ids, n_ids, s->config->vocab_size);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->n_threads.n; i++) {
        t.n_threads = (int)c->n_threads.v[i];
        rc = session_set_threads(s, t.n_threads, &c->run, err, errlen);
        for (size_t k = 0; rc == 0 && k < c->n_depth.n; k++) {
            t.n_depth = c->n_depth.v[k];
            rc = bench_lengths(c, s, &c->n_prompt, false, &t, ids, err, errlen);
            if (rc == 0)
                rc = bench_lengths(c, s, &c->n_gen, true, &t, ids, err, errlen);
        }
    }
    free(ids);
    free(t.samples);
    return rc;
}

static int run(struct bench_command *c)
{
    char err[1024];
    int max_threads = (int)list_max(&c->n_threads);
    tool_catch_interrupts();
    if (c->membw && bench_limits(&c->limits, c->run.isa, max_threads) && tool_interrupts() == 0)
        return tool_error("out of memory for --membw");
    c->run.n_threads = c->run.n_threads_batch = max_threads;
    if (c->run.n_ctx < 0)
        c->run.n_ctx = positions(c);
    c->run.n_seqs = (int)list_max(&c->n_seqs);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < (c->sources.n ? c->sources.n : 1); i++) {
        const struct bench_source fallback = {.name = NULL};
        struct session s = {.path = NULL};
        rc = bench_source_open(&s, c->sources.n ? &c->sources.item[i] : &fallback, &c->run, err, sizeof err);
        if (rc == 0 && positions(c) > s.n_ctx)
            rc = err_set(err, sizeof err,
                         "the tests need %" PRId64 " positions, the context holds %" PRId64 " (-c)",
                         positions(c), s.n_ctx);
        if (rc == 0)
            rc = bench_model(c, &s, err, sizeof err);
        session_close(&s);
    }
    if (c->format == FORMAT_JSON) {
        json_dumpf(c->records, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        printf("\n");
    }
    if (c->format == FORMAT_MD && rc == 0) {
        printf("\nquoll %s, %s, level %s", QUOLL_VERSION, machine_cpu_name(), isa_name(c->run.isa));
        if (c->membw)
            printf(", %d threads read %.2f GB/s and multiply %.0f G bytes/s, %.0f G floats/s", max_threads,
                   c->limits.read * 1e-9, c->limits.dots * 1e-9, c->limits.fmas * 1e-9);
        printf("\n");
    }
    return rc == 0 ? EXIT_OK : rc == SESSION_STOPPED ? EXIT_INTERRUPTED : tool_error("%s", err);
}

int cmd_bench(int argc, char **argv)
{
    struct bench_command c = {.n_prompt = {{512}, 1},
                              .n_gen = {{128}, 1},
                              .n_depth = {{0}, 1},
                              .n_seqs = {{1}, 1},
                              .repetitions = 5};
    const struct option_row rows[] = {
        OPTION_CALL_ROW("model", 'm', &c.sources, bench_source_add, "PATH",
                        "a model, repeatable (default: $QUOLL_MODEL, else the default model)"),
        OPTION_CALL_ROW(
            "shape", 0, &c.sources, bench_source_add, "NAME:TYPE",
            "random weights of a known shape, or of a config.json's; repeatable (llama2-7b:q4_0)"),
        OPTION_CALL_ROW("n-prompt", 'p', &c.n_prompt, set_list, "N,…",
                        "prompt lengths (default: 512), 0: none"),
        OPTION_CALL_ROW("n-gen", 'n', &c.n_gen, set_list, "N,…",
                        "tokens to generate (default: 128), 0: none"),
        OPTION_CALL_ROW("n-depth", 'd', &c.n_depth, set_list, "N,…",
                        "tokens already in the context (default: 0)"),
        OPTION_CALL_ROW("parallel", 0, &c.n_seqs, set_list, "N,…",
                        "sequences that are generated together (default: 1); tokens/s are those of all"),
        OPTION_CALL_ROW("threads", 't', &c.n_threads, set_list, "N,…", "(default: physical cores)"),
        OPTION_NUMBER_ROW("repetitions", 'r', &c.repetitions, 1, MAX_REPETITIONS, "N", "(default: 5)"),
        OPTION_CALL_ROW("output", 'o', &c.format, set_format, "FORMAT",
                        "md, csv, json or jsonl (default: md)"),
        OPTION_FLAG_ROW("membw", 0, &c.membw,
                        "also measure the limits of these threads: reading, multiplying"),
    };
    struct option_set set = {
        .usage = "quoll bench [-m MODEL | --shape NAME:TYPE]… [-p 512] [-n 128] [-d 0] [-t N,…] [-r 5] "
                 "[-o md|csv|json|jsonl] [options]",
        .about = "Measures prompt (pp) and generation (tg) speed: mean and standard deviation over -r "
                 "repetitions\n"
                 "after a warm-up. Lists are comma separated; -m and --shape repeat. GB/s: bytes of weights\n"
                 "and KV cache read per generated token × tokens/s.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &c.run,
    };
    int code = options_parse(&set, argc, argv), wrong;
    if (code == OPTIONS_GO && (wrong = bench_sources_check(&c.sources, &c.run)) != 0)
        code = wrong;
    if (code == OPTIONS_GO) {
        if (c.n_threads.n == 0) {
            c.n_threads.v[0] = c.run.n_threads;
            c.n_threads.n = 1;
        }
        c.records = json_array();
        code = c.records ? run(&c) : tool_error("out of memory");
        json_decref(c.records);
    }
    bench_sources_free(&c.sources);
    run_options_free(&c.run);
    return code;
}
