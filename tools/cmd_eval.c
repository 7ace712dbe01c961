/* `quoll eval`: how many questions of a test a model answers rightly. */
#include "lab/generate.h"
#include "lab/likelihood.h"
#include "quant/err.h"
#include "tools/eval_prompt.h"
#include "tools/session.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARALLEL = 1024, TAIL_IDS = 16 };

struct eval_command {
    struct run_options run;
    struct string_list files;
    const char *dev;
    int64_t limit;
    int shots; /* −1: as many as the dev file has, up to 5 */
    int max_new, parallel;
    bool texts, normalise, json;
};

/* A question: its row, prompt and answers as ids, and what came of it. */
struct item {
    const struct eval_rows *file;
    const struct eval_row *row;
    struct query query;
    double *bytes; /* (query.n_answers): of the answers' texts */
    struct continuation written;
    bool is_right;
};

struct test {
    const struct eval_command *command;
    struct session s;
    struct eval_rows *file; /* as many as command->files has */
    struct eval_rows dev;
    enum eval_style style; /* but for the language, which is a file's */
    struct item *item;
    size_t n;
    double begin;
};

/* Always −1, also to those who read the code without running it. */
static int no_memory(char *err, size_t errlen)
{
    (void)err_set(err, errlen, "out of memory");
    return -1;
}

/* ---- Prompts ------------------------------------------------------------------------------------------ */

static enum eval_style style_of(const struct test *t, const struct item *it)
{
    return t->style == EVAL_LETTERS && it->file->is_chinese ? EVAL_LETTERS_CHINESE : t->style;
}

/* The examples for a row: the first ones of its subject; where the dev file has none of it, the first ones.
 */
static size_t find_shots(const struct test *t, const struct eval_row *row, const struct eval_row **shots)
{
    size_t n = 0, max = t->command->shots < 0 ? 5 : (size_t)t->command->shots;
    for (int any = 0; any < 2 && n == 0; any++)
        for (size_t i = 0; i < t->dev.n && n < max; i++)
            if (any || strcmp(t->dev.row[i].subject, row->subject) == 0)
                shots[n++] = &t->dev.row[i];
    return n;
}

static int encode(const struct test *t, const char *text, unsigned flags, int32_t **ids, size_t *n, char *err,
                  size_t errlen)
{
    return tokenizer_encode(t->s.tokenizer, text, strlen(text), flags, ids, n, err, errlen);
}

/* The ids of an answer as they follow the prompt's: those of both texts together, where they begin with the
 * prompt's. */
static int encode_answer(const struct test *t, const struct item *it, const char *prompt, const char *answer,
                         struct answer *to, char *err, size_t errlen)
{
    const size_t n_prompt = (size_t)it->query.n_prompt;
    char *both;
    int32_t *ids = NULL;
    size_t n = 0;
    if (asprintf(&both, "%s%s", prompt, answer) < 0)
        return no_memory(err, errlen);
    int rc = encode(t, both, ENCODE_BOS, &ids, &n, err, errlen);
    free(both);
    if (rc)
        return rc;
    if (n > n_prompt && memcmp(ids, it->query.prompt, n_prompt * sizeof *ids) == 0) {
        n -= n_prompt;
        memmove(ids, ids + n_prompt, n * sizeof *ids);
    } else {
        free(ids);
        ids = NULL;
        if (encode(t, answer, 0, &ids, &n, err, errlen) != 0)
            return -1;
    }
    *to = (struct answer){.id = ids, .n = (int)n};
    return n > 0 ? 0
                 : err_set(err, errlen, "%s: line %d: an answer of no tokens", it->file->path, it->row->line);
}

static int encode_item(const struct test *t, struct item *it, const struct eval_row **shots, char *err,
                       size_t errlen)
{
    const struct eval_row *row = it->row;
    const enum eval_style style = style_of(t, it);
    char *prompt = eval_prompt(style, shots, find_shots(t, row, shots), row);
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = prompt ? encode(t, prompt, ENCODE_BOS, &ids, &n, err, errlen) : no_memory(err, errlen);
    it->query = (struct query){.prompt = ids, .n_prompt = (int64_t)n};
    it->written = (struct continuation){.prompt = ids, .n_prompt = (int64_t)n, .max = t->command->max_new};
    int64_t longest = style == EVAL_WRITTEN ? t->command->max_new : 1;
    if (rc == 0 && n == 0)
        rc = err_set(err, errlen, "%s: line %d: a question of no tokens", it->file->path, row->line);
    if (rc == 0 && style == EVAL_WRITTEN) {
        it->written.id = calloc((size_t)t->command->max_new, sizeof *it->written.id);
        rc = it->written.id ? 0 : no_memory(err, errlen);
    } else if (rc == 0) {
        it->query.answer = calloc((size_t)row->n_choices, sizeof *it->query.answer);
        it->bytes = calloc((size_t)row->n_choices, sizeof *it->bytes);
        rc = it->query.answer && it->bytes ? 0 : no_memory(err, errlen);
    }
    for (int i = 0; rc == 0 && style != EVAL_WRITTEN && i < row->n_choices; i++) {
        char *answer = eval_choice(style, row, i);
        struct answer *a = &it->query.answer[i];
        rc = answer ? encode_answer(t, it, prompt, answer, a, err, errlen) : no_memory(err, errlen);
        it->bytes[i] = answer ? (double)strlen(answer) : 1;
        it->query.n_answers = i + 1;
        longest = a->n > longest ? a->n : longest;
        free(answer);
    }
    free(prompt);
    if (rc == 0 && (int64_t)n + longest > t->s.n_ctx)
        rc = err_set(err, errlen,
                     "%s: line %d: a prompt of %zu tokens and an answer of %" PRId64
                     ", the context holds %" PRId64 " (-c, or fewer --shots)",
                     it->file->path, row->line, n, longest, t->s.n_ctx);
    return rc;
}

/* All questions of the files; which style they are of. */
static int read_files(struct test *t, char *err, size_t errlen)
{
    const struct eval_command *c = t->command;
    size_t n_all = 0, n_written = 0;
    for (size_t i = 0; i < c->files.n; i++) {
        if (eval_rows_read(&t->file[i], c->files.item[i], err, errlen))
            return -1;
        size_t n = t->file[i].n;
        n_all += c->limit > 0 && (size_t)c->limit < n ? (size_t)c->limit : n;
    }
    if (!(t->item = calloc(n_all, sizeof *t->item)))
        return no_memory(err, errlen);
    for (size_t i = 0; i < c->files.n; i++)
        for (size_t k = 0; k < t->file[i].n && (c->limit <= 0 || k < (size_t)c->limit); k++) {
            t->item[t->n++] = (struct item){.file = &t->file[i], .row = &t->file[i].row[k]};
            n_written += t->file[i].row[k].n_choices == 0;
        }
    if (n_written > 0 && n_written < t->n)
        return err_set(err, errlen, "questions with choices and without cannot be one test");
    t->style = n_written ? EVAL_WRITTEN : c->texts || c->normalise ? EVAL_TEXTS : EVAL_LETTERS;
    if (c->dev && eval_rows_read(&t->dev, c->dev, err, errlen))
        return -1;
    for (size_t i = 0; i < t->dev.n; i++)
        if ((t->dev.row[i].n_choices == 0) != (t->style == EVAL_WRITTEN))
            return err_set(err, errlen, "%s: line %d: an example of another kind than the questions", c->dev,
                           t->dev.row[i].line);
    return 0;
}

static int encode_all(struct test *t, char *err, size_t errlen)
{
    const struct eval_row **shots = calloc(t->dev.n + 1, sizeof(const struct eval_row *));
    int rc = shots ? 0 : no_memory(err, errlen);
    for (size_t i = 0; rc == 0 && i < t->n; i++)
        rc = tool_interrupted() ? -1 : encode_item(t, &t->item[i], shots, err, errlen);
    free(shots);
    return rc;
}

/* ---- Evaluation ---------------------------------------------------------------------------------------- */

static void progress(void *arg, size_t n_done)
{
    const struct test *t = arg;
    double seconds = machine_seconds() - t->begin;
    tool_note(NOTE_USUAL, "%zu of %zu, %.0f seconds to go\n", n_done, t->n,
              seconds / (double)n_done * (double)(t->n - n_done));
}

static int ask_choices(struct test *t, const struct asker *a, char *err, size_t errlen)
{
    struct query *q = calloc(t->n, sizeof *q);
    if (!q)
        return no_memory(err, errlen);
    for (size_t i = 0; i < t->n; i++)
        q[i] = t->item[i].query; /* the answers stay the items' */
    int rc = queries_score(a, q, t->n, progress, t, err, errlen);
    free(q);
    for (size_t i = 0; rc == 0 && i < t->n; i++) {
        struct item *it = &t->item[i];
        int best = 0;
        double best_score = -INFINITY;
        for (int k = 0; k < it->query.n_answers; k++) {
            double score = it->query.answer[k].log_p / (t->command->normalise ? it->bytes[k] : 1);
            if (score > best_score) {
                best_score = score;
                best = k;
            }
        }
        it->is_right = best == it->row->right;
    }
    return rc;
}

/* The text of a continuation's last ids; malloc'ed, NULL: out of memory. */
static char *text_of(const struct test *t, const int32_t *id, int n)
{
    char *text;
    size_t len;
    return tokenizer_decode(t->s.tokenizer, id, (size_t)n, false, &text, &len) == 0 ? text : NULL;
}

static bool ended(void *arg, size_t i, const struct continuation *c)
{
    const struct test *t = arg;
    if (tokenizer_is_end(t->s.tokenizer, c->id[c->n - 1]))
        return true;
    const bool number = eval_is_number(t->item[i].row->answer);
    const int n = number && c->n > TAIL_IDS ? TAIL_IDS : c->n;
    char *text = text_of(t, c->id + c->n - n, n);
    if (!text)
        return true;
    /* A number may come after many lines; any other answer is one line. */
    bool end = number ? strstr(text, "Question:") != NULL : strchr(text + strspn(text, " \n"), '\n') != NULL;
    free(text);
    return end;
}

static int ask_written(struct test *t, const struct asker *a, char *err, size_t errlen)
{
    struct continuation *c = calloc(t->n, sizeof *c);
    if (!c)
        return no_memory(err, errlen);
    for (size_t i = 0; i < t->n; i++)
        c[i] = t->item[i].written;
    const struct generate_hooks hooks = {ended, progress, t};
    int rc = generate_greedy(a, c, t->n, &hooks, err, errlen);
    for (size_t i = 0; rc == 0 && i < t->n; i++) {
        char *text = text_of(t, c[i].id, c[i].n);
        if (!text) {
            rc = no_memory(err, errlen);
            break;
        }
        char *next = strstr(text, "Question:"); /* one of its own making */
        if (next)
            *next = '\0';
        t->item[i].is_right = eval_is_right(text, t->item[i].row->answer);
        free(text);
    }
    free(c);
    return rc;
}

static int ask(struct test *t, char *err, size_t errlen)
{
    const struct asker a = {.model = t->s.model,
                            .cache = t->s.cache,
                            .context = t->s.context,
                            .n_seqs = (int)(cache_capacity(t->s.cache) / t->s.n_ctx),
                            .n_ctx = t->s.n_ctx,
                            .stop = tool_interrupted};
    t->begin = machine_seconds();
    return t->style == EVAL_WRITTEN ? ask_written(t, &a, err, errlen) : ask_choices(t, &a, err, errlen);
}

/* ---- Results ------------------------------------------------------------------------------------------- */

struct tally {
    const char *subject; /* lent */
    size_t n, n_right;
};

/* Wilson's interval of 95 % (JASA 22, 1927): the shares p whose z-test does not reject what was seen. */
static void wilson(const struct tally *t, double *low, double *high)
{
    const double z = 1.959963984540054, n = (double)t->n, p = (double)t->n_right / n;
    const double middle = p + z * z / (2 * n), half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    const double scale = 1 + z * z / n;
    *low = (middle - half) / scale;
    *high = (middle + half) / scale;
}

static int by_subject(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;
    return strcmp(x->subject, y->subject);
}

/* One tally per subject, by name; tally has room for all items. */
static size_t tally_subjects(const struct test *t, struct tally *tally)
{
    for (size_t i = 0; i < t->n; i++)
        tally[i] = (struct tally){t->item[i].row->subject, 1, t->item[i].is_right};
    qsort(tally, t->n, sizeof *tally, by_subject);
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (n > 0 && strcmp(tally[n - 1].subject, tally[i].subject) == 0) {
            tally[n - 1].n++;
            tally[n - 1].n_right += tally[i].n_right;
        } else {
            tally[n++] = tally[i];
        }
    }
    return n;
}

static void print_tally(const char *name, const struct tally *t)
{
    double low, high;
    wilson(t, &low, &high);
    printf("%-36s %6.2f %%  [%6.2f, %6.2f]  %zu of %zu\n", name, 100 * (double)t->n_right / (double)t->n,
           100 * low, 100 * high, t->n_right, t->n);
}

static json_t *tally_record(const struct tally *t)
{
    double low, high;
    wilson(t, &low, &high);
    return json_pack("{s:f, s:f, s:f, s:I, s:I}", "accuracy", (double)t->n_right / (double)t->n, "ci_low",
                     low, "ci_high", high, "n", (json_int_t)t->n, "n_right", (json_int_t)t->n_right);
}

static int print_results(const struct test *t)
{
    struct tally *tally = calloc(t->n, sizeof *tally), all = {"Accuracy", 0, 0};
    if (!tally)
        return tool_error("out of memory");
    const size_t n = tally_subjects(t, tally);
    for (size_t i = 0; i < n; i++) {
        all.n += tally[i].n;
        all.n_right += tally[i].n_right;
    }
    if (t->command->json) {
        json_t *r = tally_record(&all), *subjects = json_object();
        for (size_t i = 0; i < n; i++)
            json_object_set_new(subjects, tally[i].subject, tally_record(&tally[i]));
        json_object_set_new(r, "subjects", subjects);
        char *text = json_dumps(r, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        json_decref(r);
        if (text)
            printf("%s\n", text);
        free(text);
    } else {
        for (size_t i = 0; n > 1 && i < n; i++)
            print_tally(tally[i].subject, &tally[i]);
        print_tally(all.subject, &all);
    }
    free(tally);
    return EXIT_OK;
}

static void test_free(struct test *t)
{
    for (size_t i = 0; i < t->n; i++) {
        struct item *it = &t->item[i];
        for (int k = 0; k < it->query.n_answers; k++)
            free((int32_t *)it->query.answer[k].id);
        free(it->query.answer);
        free((int32_t *)it->query.prompt);
        free(it->written.id);
        free(it->bytes);
    }
    for (size_t i = 0; i < t->command->files.n; i++)
        eval_rows_free(&t->file[i]);
    eval_rows_free(&t->dev);
    free(t->file);
    free(t->item);
    session_close(&t->s);
}

static int run(const struct eval_command *c)
{
    char err[1024] = "";
    const char *path =
        model_path(c->run.models.n ? c->run.models.item[c->run.models.n - 1] : NULL, err, sizeof err);
    if (!path)
        return tool_error("%s", err);
    struct test t = {.command = c, .file = calloc(c->files.n, sizeof *t.file)};
    if (!t.file)
        return tool_error("out of memory");
    tool_catch_interrupts();
    struct run_options o = c->run;
    o.n_seqs = 1 + (c->parallel > EVAL_MAX_CHOICES + 1 ? c->parallel : EVAL_MAX_CHOICES + 1);
    int rc = read_files(&t, err, sizeof err);
    if (rc == 0)
        rc = session_open(&t.s, path, &o, SESSION_TEXT, err, sizeof err);
    if (rc == 0)
        rc = encode_all(&t, err, sizeof err);
    if (rc == 0)
        rc = ask(&t, err, sizeof err);
    int code = EXIT_INTERRUPTED;
    if (rc == 0)
        code = print_results(&t);
    else if (!tool_interrupted())
        code = tool_error("%s", err);
    test_free(&t);
    return code;
}

int cmd_eval(int argc, char **argv)
{
    struct eval_command c = {.shots = -1, .max_new = 256, .parallel = 32};
    const struct option_row rows[] = {
        OPTION_CALL_ROW("file", 'f', &c.files, option_append, "FILE",
                        "questions: MMLU's or C-Eval's .csv, or JSON lines; repeatable"),
        OPTION_STRING_ROW("dev", 0, &c.dev, "FILE", "examples in front of each question, in the same forms"),
        OPTION_NUMBER_ROW("shots", 0, &c.shots, 0, 1000, "N", "so many of them (default: up to 5)"),
        OPTION_FLAG_ROW("full-text", 0, &c.texts,
                        "compare the likelihoods of the choices' texts, not letters"),
        OPTION_FLAG_ROW("normalise", 0, &c.normalise, "… divided by their bytes (HellaSwag)"),
        OPTION_FLAG_ROW("normalize", 0, &c.normalise, NULL),
        OPTION_NUMBER_ROW("limit", 0, &c.limit, 1, INT32_MAX, "N", "the first N questions of each file"),
        OPTION_NUMBER_ROW("predict", 'n', &c.max_new, 1, 1 << 16, "N",
                          "tokens of a written answer at most (default: 256)"),
        OPTION_NUMBER_ROW("parallel", 0, &c.parallel, 1, MAX_PARALLEL, "N",
                          "sequences evaluated together (default: 32)"),
        OPTION_FLAG_ROW("json", 0, &c.json, "one JSON object"),
    };
    struct option_set set = {
        .usage = "quoll eval -f FILE… [--dev FILE] [--shots N] [--normalise] [--limit N] [--json] [options]",
        .about =
            "Asks a model the questions of a test: accuracy, with its 95 % interval. JSON lines have "
            "question,\n"
            "choices and answer (index, letter or text), or question and an answer that is to be written.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &c.run,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO) {
        if (c.files.n == 0)
            code = usage_error("eval: questions are missing (-f); see `quoll eval --help`");
        else if (c.shots > 0 && !c.dev)
            code = usage_error("eval: --shots wants --dev FILE, where the examples are");
        else
            code = run(&c);
    }
    free(c.files.item);
    run_options_free(&c.run);
    return code;
}
