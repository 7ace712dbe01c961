/* `quoll perplexity`: how well a model predicts a text, and how far it is from another one. */
#include "lab/perplexity.h"
#include "quant/err.h"
#include "tools/corpus.h"
#include "tools/session.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CTX = 512 };

struct perplexity_command {
    struct run_options run;
    const char *file, *save, *base, *against, *kl_base, *protocol;
    int64_t stride, chunks;
    bool kl, json;
};

struct measurement {
    struct session model, against;
    struct corpus text;
    struct logits_reader *in;
    struct logits_writer *out;
    struct windows windows;
    const int32_t *ids;  /* of the windows */
    const uint8_t *hash; /* of the text */
    struct token_score *scores;
    int64_t n_scored;

    double begin, sum_nll; /* of the running estimate */
    int64_t n_summed;
};

/* ---- The windows: of a text, or of a file of logits ------------------------------------------------- */

static enum protocol protocol_of(const struct perplexity_command *c)
{
    return c->protocol ? (enum protocol)protocol_by_name(c->protocol) : PROTOCOL_LLAMA;
}

static int plan(const struct perplexity_command *c, struct measurement *m, char *err, size_t errlen)
{
    const enum protocol protocol = protocol_of(c);
    int64_t n_ctx = c->run.n_ctx < 0 ? DEFAULT_CTX : c->run.n_ctx;
    if (n_ctx == 0 && protocol == PROTOCOL_LLAMA && c->stride > 0)
        return err_set(err, errlen, "-c 0 and --stride: protocol llama wants -c in numbers");
    if (n_ctx == 0)
        n_ctx = m->model.n_ctx;
    const struct tokenizer *t = m->model.tokenizer;
    const int32_t bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    return windows_plan(&m->windows, protocol, n_ctx, c->stride, (int64_t)m->text.n, bos, c->chunks, err,
                        errlen);
}

/* A base in a file has its own windows; options that say otherwise are an error. */
static int plan_as_base(const struct perplexity_command *c, struct measurement *m, char *err, size_t errlen)
{
    const struct logits_header *h = logits_reader_header(m->in);
    m->windows = h->windows;
    m->ids = logits_reader_ids(m->in);
    m->hash = h->text_hash;
    if (c->chunks > 0 && m->windows.n > c->chunks)
        m->windows.n = c->chunks;
    if ((c->run.n_ctx > 0 && c->run.n_ctx != h->windows.n_ctx) ||
        (c->stride > 0 && c->stride != h->windows.stride) ||
        (c->protocol && protocol_of(c) != h->windows.protocol))
        return err_set(err, errlen, "%s: its logits are of protocol %s, context %" PRId64 ", stride %" PRId64,
                       c->base, protocol_name(h->windows.protocol), h->windows.n_ctx, h->windows.stride);
    if (!c->file)
        return 0;
    if (m->text.n != (size_t)h->windows.n_ids || memcmp(m->text.ids, m->ids, m->text.n * sizeof *m->ids) != 0)
        return err_set(err, errlen, "%s: its logits are of another text, or of other tokens of it", c->base);
    return 0;
}

/* ---- Models ---------------------------------------------------------------------------------------- */

/* Options of a session for windows of this length. */
static struct run_options session_options(const struct perplexity_command *c, int64_t window)
{
    struct run_options o = c->run;
    o.n_ctx = window;
    o.n_seqs = window > 0 && window < o.n_batch ? (int)(o.n_batch / window) : 1;
    return o;
}

/* The base in memory, and whether it can be compared. Its cache stays as it is by default: of --kv-type too
 * the cost is to be seen. */
static int open_against(const struct perplexity_command *c, struct measurement *m, int64_t window, char *err,
                        size_t errlen)
{
    struct run_options o = session_options(c, window);
    o.type_k = o.type_v = -1;
    if (session_open(&m->against, c->against, &o, 0, err, errlen) != 0)
        return -1;
    if (!c->file || !m->against.tokenizer)
        return 0;
    int same = corpus_is_same(&m->text, m->against.tokenizer, err, errlen);
    if (same < 0)
        return -1;
    return same ? 0
                : err_set(err, errlen, "%s: its tokenizer cuts the text otherwise than that of %s",
                          c->against, m->model.path);
}

static int open_all(const struct perplexity_command *c, struct measurement *m, char *err, size_t errlen)
{
    const char *path =
        model_path(c->run.models.n ? c->run.models.item[c->run.models.n - 1] : NULL, err, errlen);
    if (!path)
        return -1;
    int64_t window = c->run.n_ctx < 0 ? DEFAULT_CTX : c->run.n_ctx;
    if (window > 0)
        window = windows_len(&(struct windows){protocol_of(c), window, c->stride, 0, 0, 0});
    if (c->base) {
        if (logits_reader_open(&m->in, c->base, err, errlen))
            return -1;
        window = windows_len(&logits_reader_header(m->in)->windows);
    }
    const struct run_options o = session_options(c, window);
    if (session_open(&m->model, path, &o, c->file ? SESSION_TEXT : 0, err, errlen) != 0)
        return -1;
    if (c->file) {
        if (corpus_read(&m->text, c->file, m->model.tokenizer, false, err, errlen) != 0)
            return -1;
        m->ids = m->text.ids;
        m->hash = m->text.hash;
    }
    if (m->in ? plan_as_base(c, m, err, errlen) : plan(c, m, err, errlen))
        return -1;
    return c->against ? open_against(c, m, m->model.n_ctx, err, errlen) : 0;
}

/* ---- Evaluation ------------------------------------------------------------------------------------ */

static void progress(void *arg, int64_t n_windows, int64_t n_scored)
{
    struct measurement *m = arg;
    if (m->n_summed == 0) {
        double left = (machine_seconds() - m->begin) / (double)n_windows * (double)(m->windows.n - n_windows);
        tool_note(NOTE_USUAL, "%.0f seconds to go\n", left);
    }
    for (; m->n_summed < n_scored; m->n_summed++)
        m->sum_nll += m->scores[m->n_summed].nll;
    tool_note(NOTE_USUAL, "[%" PRId64 "]%.4f,%s", n_windows, exp(m->sum_nll / (double)n_scored),
              n_windows == m->windows.n ? "\n" : "");
}

static int evaluate(const struct perplexity_command *c, struct measurement *m, char *err, size_t errlen)
{
    m->n_scored = windows_n_scored(&m->windows);
    m->scores = calloc((size_t)m->n_scored, sizeof *m->scores);
    if (!m->scores)
        return err_set(err, errlen, "out of memory");
    struct logits_header h = {.windows = m->windows, .vocab_size = m->model.config->vocab_size};
    memcpy(h.text_hash, m->hash, sizeof h.text_hash);
    if (c->save && logits_writer_open(&m->out, c->save, &h, m->ids, err, errlen))
        return -1;
    int n_parallel = (int)(cache_capacity(m->model.cache) / m->model.n_ctx);
    if (model_needs_whole_prompt(m->model.model))
        n_parallel = 1;
    if (n_parallel > m->windows.n)
        n_parallel = (int)m->windows.n;
    const struct ppl_run r = {
        .windows = &m->windows,
        .ids = m->ids,
        .model = {m->model.model, m->model.cache, m->model.context},
        .base = {m->against.model, m->against.cache, m->against.context},
        .in = m->in,
        .out = m->out,
        .n_parallel = n_parallel,
        .n_threads = c->run.n_threads > c->run.n_threads_batch ? c->run.n_threads : c->run.n_threads_batch,
        .stop = tool_interrupted,
        .progress = progress,
        .arg = m,
    };
    tool_note(NOTE_USUAL,
              "%" PRId64 " windows of %" PRId64 " tokens, %" PRId64 " tokens count, %d windows at once\n",
              m->windows.n, windows_len(&m->windows), m->n_scored, n_parallel);
    m->begin = machine_seconds();
    int rc = ppl_evaluate(&r, m->scores, err, errlen);
    rc = logits_writer_close(m->out, rc);
    m->out = NULL;
    double seconds = machine_seconds() - m->begin;
    if (rc == 0)
        tool_note(NOTE_USUAL, "%.2f s, %.1f tokens/s\n", seconds,
                  (double)(windows_len(&m->windows) * m->windows.n) / seconds);
    return rc;
}

/* ---- Results --------------------------------------------------------------------------------------- */

static void print_line(const char *name, struct estimate e, const char *unit)
{
    printf("%-14s %11.6f ± %.6f%s\n", name, e.value, e.error, unit);
}

static void print_comparison(const struct divergence *d)
{
    print_line("PPL(base)", d->ppl_base, "");
    print_line("PPL ratio", d->ppl_ratio, "");
    printf("\n");
    print_line("Mean KLD", d->kl, "");
    const struct {
        const char *name;
        double value;
    } kl[] = {{"Maximum KLD", d->kl_max}, {"99.9% KLD", d->kl_p999},    {"99% KLD", d->kl_p99},
              {"90% KLD", d->kl_p90},     {"Median KLD", d->kl_median}, {"10% KLD", d->kl_p10},
              {"1% KLD", d->kl_p01},      {"Minimum KLD", d->kl_min}};
    for (size_t i = 0; i < sizeof kl / sizeof kl[0]; i++)
        printf("%-14s %11.6f\n", kl[i].name, kl[i].value);
    printf("\n");
    print_line("Mean \xce\x94p ", d->dp, " %");
    print_line("RMS \xce\x94p ", d->dp_rms, " %");
    const struct {
        const char *name;
        double value;
    } dp[] = {{"99% \xce\x94p ", d->dp_p99},
              {"90% \xce\x94p ", d->dp_p90},
              {"Median \xce\x94p ", d->dp_median},
              {"10% \xce\x94p ", d->dp_p10},
              {"1% \xce\x94p ", d->dp_p01}};
    for (size_t i = 0; i < sizeof dp / sizeof dp[0]; i++)
        printf("%-14s %11.6f %%\n", dp[i].name, dp[i].value);
    print_line("Same top-1", d->top1_same, " %");
}

/* A number that JSON has; others become null. */
static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static int print_json(const struct measurement *m, const struct divergence *d, bool comparison)
{
    char hash[HASH_TEXT_BYTES];
    json_t *r = json_object();
    const struct windows *w = &m->windows;
    json_object_set_new(r, "ppl", number(d->ppl.value));
    json_object_set_new(r, "ppl_se", number(d->ppl.error));
    json_object_set_new(r, "n_tokens", json_integer(d->n));
    const struct {
        const char *key;
        double value;
    } all[] = {
        {"kl_mean", d->kl.value},
        {"kl_se", d->kl.error},
        {"kl_median", d->kl_median},
        {"kl_p90", d->kl_p90},
        {"kl_p99", d->kl_p99},
        {"kl_p999", d->kl_p999},
        {"kl_max", d->kl_max},
        {"dp_mean", d->dp.value},
        {"dp_mean_se", d->dp.error},
        {"dp_rms", d->dp_rms.value},
        {"dp_rms_se", d->dp_rms.error},
        {"top1_same", d->top1_same.value},
        {"top1_same_se", d->top1_same.error},
        {"ppl_base", d->ppl_base.value},
        {"ppl_base_se", d->ppl_base.error},
        {"ppl_ratio", d->ppl_ratio.value},
        {"ppl_ratio_se", d->ppl_ratio.error},
    };
    for (size_t i = 0; comparison && i < sizeof all / sizeof all[0]; i++)
        json_object_set_new(r, all[i].key, number(all[i].value));
    json_object_set_new(r, "protocol", json_string(protocol_name(w->protocol)));
    json_object_set_new(r, "n_ctx", json_integer(w->n_ctx));
    json_object_set_new(r, "stride", json_integer(w->stride));
    json_object_set_new(r, "n_windows", json_integer(w->n));
    json_object_set_new(r, "text_sha256", json_string(hash_text(hash, m->hash)));
    char *text = json_dumps(r, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    json_decref(r);
    if (!text)
        return tool_error("out of memory");
    printf("%s\n", text);
    free(text);
    return EXIT_OK;
}

static int print_results(const struct perplexity_command *c, const struct measurement *m)
{
    struct divergence d;
    const bool comparison = c->base || c->against;
    if (divergence_of(&d, m->scores, (size_t)m->n_scored))
        return tool_error("out of memory");
    if (isnan(d.ppl.value) || isnan(d.kl.value))
        return tool_error("%s: its logits are not finite (--check-finite says where that begins)",
                          m->model.path);
    if (c->json)
        return print_json(m, &d, comparison);
    char hash[HASH_TEXT_BYTES];
    printf("text: %s%ssha256 %s\n", c->file ? c->file : "", c->file ? ", " : "", hash_text(hash, m->hash));
    printf("protocol: %s, context %" PRId64 ", stride %" PRId64 ", %" PRId64 " windows, %" PRId64 " tokens\n",
           protocol_name(m->windows.protocol), m->windows.n_ctx, m->windows.stride, m->windows.n, d.n);
    printf("Final estimate: PPL = %.4f +/- %.5f\n", d.ppl.value, d.ppl.error);
    if (comparison)
        print_comparison(&d);
    return EXIT_OK;
}

static int run(const struct perplexity_command *c)
{
    char err[1024] = "";
    struct measurement m = {.ids = NULL};
    tool_catch_interrupts();
    int rc = open_all(c, &m, err, sizeof err);
    if (rc == 0)
        rc = evaluate(c, &m, err, sizeof err);
    int code = EXIT_INTERRUPTED;
    if (rc == 0)
        code = print_results(c, &m);
    else if (!tool_interrupted())
        code = tool_error("%s", err);
    free(m.scores);
    logits_reader_close(m.in);
    corpus_free(&m.text);
    session_close(&m.against);
    session_close(&m.model);
    return code;
}

/* ---- Options --------------------------------------------------------------------------------------- */

static int check(struct perplexity_command *c)
{
    /* llama.cpp's names: the file is read with --kl-divergence and written without. */
    const char **kl_file = c->kl ? &c->base : &c->save;
    if (c->kl_base && *kl_file)
        return usage_error("perplexity: two files of logits to %s", c->kl ? "compare with" : "write");
    if (c->kl_base)
        *kl_file = c->kl_base;
    if (c->kl && !c->base)
        return usage_error("perplexity: --kl-divergence wants --kl-divergence-base FILE");
    if (c->base && c->against)
        return usage_error("perplexity: --base and --against are two bases");
    if (!c->file && !c->base)
        return usage_error("perplexity: a text is missing (-f); see `quoll perplexity --help`");
    if (c->protocol && protocol_by_name(c->protocol) < 0)
        return usage_error("perplexity: --protocol wants llama, gptq or strided, not '%s'", c->protocol);
    return OPTIONS_GO;
}

int cmd_perplexity(int argc, char **argv)
{
    struct perplexity_command c = {.stride = 0};
    const struct option_row rows[] = {
        OPTION_STRING_ROW("file", 'f', &c.file, "TEXT", "the text (-: stdin)"),
        OPTION_NUMBER_ROW("ctx-size", 'c', &c.run.n_ctx, 0, INT32_MAX, "N",
                          "tokens of a window, 0: the model's context (default: 512)"),
        OPTION_NUMBER_ROW("stride", 0, &c.stride, 1, INT32_MAX, "N",
                          "windows begin N tokens after each other (strided: default half a window)"),
        OPTION_NUMBER_ROW("ppl-stride", 0, &c.stride, 0, INT32_MAX, "N", NULL),
        OPTION_NUMBER_ROW("chunks", 0, &c.chunks, -1, INT32_MAX, "N",
                          "at most so many windows (default: all)"),
        OPTION_STRING_ROW("protocol", 0, &c.protocol, "NAME",
                          "llama (default), gptq or strided: which tokens count, with what in front"),
        OPTION_STRING_ROW("save-logits", 0, &c.save, "F", "write the logits, to compare others with"),
        OPTION_STRING_ROW("base", 0, &c.base, "F", "compare with the logits in this file"),
        OPTION_STRING_ROW("against", 0, &c.against, "MODEL", "compare with this model, both in memory"),
        OPTION_STRING_ROW("kl-divergence-base", 0, &c.kl_base, "F", NULL),
        OPTION_FLAG_ROW("kl-divergence", 0, &c.kl, NULL),
        OPTION_FLAG_ROW("json", 0, &c.json, "one JSON object"),
    };
    struct option_set set = {
        .usage = "quoll perplexity -f TEXT [-c 512] [--stride N] [--chunks N] [--protocol NAME]\n"
                 "       [--save-logits F | --base F | --against MODEL] [--json] [options]",
        .about = "Measures how well a model predicts a text, and how far it is from another model.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &c.run,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO)
        code = check(&c);
    if (code == OPTIONS_GO)
        code = run(&c);
    run_options_free(&c.run);
    return code;
}
