/* `quoll imatrix`: which columns of a model's matrices matter on a text. */
#include "lab/collect.h"
#include "quant/err.h"
#include "tools/corpus.h"
#include "tools/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CTX = 512 };

struct imatrix_command {
    struct run_options run;
    const char *file, *out;
    struct string_list in;
    int64_t chunks, first;
    bool output, special;
};

static void progress(void *arg, int64_t n_done, int64_t n_chunks)
{
    const double *begin = arg, seconds = machine_seconds() - *begin;
    tool_note(NOTE_USUAL, "chunk %" PRId64 " of %" PRId64 ", %.0f seconds to go\n", n_done, n_chunks,
              seconds / (double)n_done * (double)(n_chunks - n_done));
}

static int collect(const struct imatrix_command *c, struct imatrix *im, int64_t *n_ctx, char *err,
                   size_t errlen)
{
    const char *path =
        model_path(c->run.models.n ? c->run.models.item[c->run.models.n - 1] : NULL, err, errlen);
    struct session s = {.path = NULL};
    struct corpus text = {.ids = NULL};
    if (!path)
        return -1;
    struct run_options o = c->run;
    if (o.n_ctx < 0)
        o.n_ctx = DEFAULT_CTX;
    o.n_seqs = o.n_ctx > 0 && o.n_ctx < o.n_batch ? (int)(o.n_batch / o.n_ctx) : 1;
    int rc = session_open(&s, path, &o, SESSION_TEXT, err, errlen);
    if (rc == 0)
        rc = corpus_read(&text, c->file, s.tokenizer, c->special, err, errlen);
    if (rc == 0) {
        double begin = machine_seconds();
        int64_t n_chunks;
        *n_ctx = s.n_ctx;
        const struct collect_run r = {
            .model = s.model,
            .cache = s.cache,
            .context = s.context,
            .ids = text.ids,
            .n_ids = (int64_t)text.n,
            .n_ctx = s.n_ctx,
            .bos = tokenizer_adds_bos(s.tokenizer) ? tokenizer_bos(s.tokenizer) : -1,
            .first = c->first,
            .max_chunks = c->chunks,
            .n_parallel = model_needs_whole_prompt(s.model) ? 1 : (int)(cache_capacity(s.cache) / s.n_ctx),
            .output = c->output,
            .stop = tool_interrupted,
            .progress = progress,
            .arg = &begin,
        };
        rc = collect_importance(im, &r, &n_chunks, err, errlen);
        if (rc == 0)
            rc = imatrix_add_text(im, c->file, n_chunks, err, errlen);
    }
    corpus_free(&text);
    session_close(&s);
    return rc;
}

static int run(const struct imatrix_command *c)
{
    char err[1024] = "";
    int64_t n_ctx = c->run.n_ctx > 0 ? c->run.n_ctx : DEFAULT_CTX;
    struct imatrix *im = imatrix_new();
    if (!im)
        return tool_error("out of memory");
    tool_catch_interrupts();
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->in.n; i++)
        rc = imatrix_read(im, c->in.item[i], n_ctx, err, sizeof err);
    if (rc == 0 && c->file)
        rc = collect(c, im, &n_ctx, err, sizeof err);
    if (rc == 0)
        rc = imatrix_write(im, c->out, n_ctx, err, sizeof err);
    if (rc == 0)
        tool_note(NOTE_USUAL, "%s: %zu matrices, %" PRId64 " chunks\n", c->out, imatrix_n(im),
                  imatrix_n_chunks(im));
    imatrix_free(im);
    if (rc == 0)
        return EXIT_OK;
    return tool_interrupted() ? EXIT_INTERRUPTED : tool_error("%s", err);
}

int cmd_imatrix(int argc, char **argv)
{
    struct imatrix_command c = {.chunks = 0};
    bool ignored;
    const struct option_row rows[] = {
        OPTION_STRING_ROW("file", 'f', &c.file, "TEXT", "the calibration text (-: stdin)"),
        OPTION_STRING_ROW("output", 'o', &c.out, "F", "the importance matrix, a GGUF as llama.cpp's"),
        OPTION_STRING_ROW("output-file", 0, &c.out, "F", NULL),
        OPTION_CALL_ROW("in-file", 0, &c.in, option_append, "F",
                        "add what this importance matrix has (also llama.cpp's older files), repeatable"),
        OPTION_NUMBER_ROW("ctx-size", 'c', &c.run.n_ctx, 0, INT32_MAX, "N",
                          "tokens of a chunk, 0: the model's context (default: 512)"),
        OPTION_NUMBER_ROW("chunks", 0, &c.chunks, -1, INT32_MAX, "N",
                          "at most so many chunks (default: all)"),
        OPTION_NUMBER_ROW("from-chunk", 0, &c.first, 0, INT32_MAX, "N", "pass over the first N chunks"),
        OPTION_NUMBER_ROW("chunk", 0, &c.first, 0, INT32_MAX, "N", NULL),
        OPTION_FLAG_ROW("process-output", 0, &c.output, "of the output matrix too"),
        OPTION_FLAG_ROW("parse-special", 0, &c.special, "text that looks like a control token is one"),
        OPTION_FLAG_ROW("no-ppl", 0, &ignored, NULL), /* there never is one */
    };
    struct option_set set = {
        .usage = "quoll imatrix -f TEXT -o F [-c 512] [--chunks N] [--in-file F]… [options]\n"
                 "       quoll imatrix --in-file F [--in-file F]… -o F",
        .about =
            "Writes how much each column of the model's matrices matters on a text: for `quoll quantize\n"
            "--imatrix` and llama-quantize.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &c.run,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO) {
        if (!c.file && c.in.n == 0)
            code = usage_error("imatrix: a text is missing (-f); see `quoll imatrix --help`");
        else if (!c.out)
            code = usage_error("imatrix: -o FILE is missing; see `quoll imatrix --help`");
        else
            code = run(&c);
    }
    free(c.in.item);
    run_options_free(&c.run);
    return code;
}
