/* The lab's report: results.json, results.csv and one page that needs nothing else. */
#include "tools/lab.h"
#include "tools/tools.h"

#include "quant/err.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Cells ---------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *cell, const char *key)
{
    const char *s = json_string_value(json_object_get(cell, key));
    return s ? s : "";
}

/* NaN: not there. */
static double number_of(const json_t *cell, const char *key)
{
    const json_t *v = json_object_get(cell, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static bool is_same_cell(const json_t *a, const json_t *b)
{
    return strcmp(text_of(a, "type"), text_of(b, "type")) == 0 &&
           strcmp(text_of(a, "method"), text_of(b, "method")) == 0 &&
           strcmp(text_of(a, "kv"), text_of(b, "kv")) == 0;
}

struct cells {
    const json_t **v;
    size_t n;
};

/* Those that count: of a cell that was tried again the last one. */
static int collect(struct cells *to, const struct lab_store *s)
{
    const size_t n = json_array_size(s->cells);
    *to = (struct cells){calloc(n + 1, sizeof *to->v), 0};
    if (!to->v)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *cell = json_array_get(s->cells, i);
        bool again = false;
        for (size_t k = i + 1; k < n; k++)
            again = again || is_same_cell(cell, json_array_get(s->cells, k));
        if (!again)
            to->v[to->n++] = cell;
    }
    return 0;
}

static bool is_good(const json_t *cell)
{
    return !json_object_get(cell, "error");
}

/* No other cell is as small and closer to the base, or as close and smaller. */
static bool is_on_front(const struct cells *c, size_t i)
{
    const double size = number_of(c->v[i], "tensor_bytes"), kl = number_of(c->v[i], "kl_mean");
    for (size_t k = 0; k < c->n; k++) {
        if (k == i || !is_good(c->v[k]) || strcmp(text_of(c->v[k], "kv"), text_of(c->v[i], "kv")) != 0)
            continue;
        const double other_size = number_of(c->v[k], "tensor_bytes"), other = number_of(c->v[k], "kl_mean");
        if (other_size <= size && other <= kl && (other_size < size || other < kl))
            return false;
    }
    return true;
}

/* ---- Files ---------------------------------------------------------------------------------------- */

/* Opens DIR/name.tmp; close_file gives it its name. */
static FILE *open_file(char **path, const char *dir, const char *name, char *err, size_t errlen)
{
    if (asprintf(path, "%s/%s.tmp", dir, name) < 0) {
        *path = NULL;
        (void)err_set(err, errlen, "out of memory");
        return NULL;
    }
    FILE *f = fopen(*path, "w");
    if (!f) {
        (void)err_set(err, errlen, "%s: %s", *path, strerror(errno));
        free(*path);
        *path = NULL;
    }
    return f;
}

static int close_file(FILE *f, char *path, char *err, size_t errlen)
{
    char *name = strdup(path);
    bool good = !ferror(f) && fflush(f) == 0;
    good = fclose(f) == 0 && good && name;
    if (good) {
        name[strlen(name) - strlen(".tmp")] = 0;
        good = rename(path, name) == 0;
    }
    int rc = good ? 0 : err_set(err, errlen, "%s: %s", path, strerror(errno));
    if (!good)
        (void)remove(path);
    free(name);
    free(path);
    return rc;
}

static int write_json(const struct lab_store *s, const struct cells *c, const char *dir, char *err,
                      size_t errlen)
{
    char *path;
    FILE *f = open_file(&path, dir, "results.json", err, errlen);
    if (!f)
        return -1;
    /* A line per cell: histograms are many numbers. */
    (void)fputs("{\n\"lab\": ", f);
    (void)json_dumpf(s->header, f, JSON_INDENT(1) | JSON_REAL_PRECISION(10));
    (void)fputs(",\n\"cells\": [", f);
    for (size_t i = 0; i < c->n; i++) {
        (void)fputs(i ? ",\n" : "\n", f);
        (void)json_dumpf(c->v[i], f, JSON_COMPACT | JSON_REAL_PRECISION(10));
    }
    (void)fputs("\n]\n}\n", f);
    return close_file(f, path, err, errlen);
}

static const char *const columns[] = {"bits_per_weight",  "tensor_bytes", "ppl",       "ppl_se", "ppl_ratio",
                                      "kl_mean",          "kl_se",        "kl_median", "kl_p99", "kl_max",
                                      "dp_mean",          "dp_rms",       "top1_same", "pp_ts",  "tg_ts",
                                      "quantize_seconds", "weight_error"};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

static int write_csv(const struct cells *c, const char *dir, char *err, size_t errlen)
{
    char *path;
    FILE *f = open_file(&path, dir, "results.csv", err, errlen);
    if (!f)
        return -1;
    (void)fputs("type,method,kv", f);
    for (size_t i = 0; i < N_COLUMNS; i++)
        (void)fprintf(f, ",%s", columns[i]);
    (void)fputs(",error\n", f);
    for (size_t i = 0; i < c->n; i++) {
        (void)fprintf(f, "%s,%s,%s", text_of(c->v[i], "type"), text_of(c->v[i], "method"),
                      text_of(c->v[i], "kv"));
        for (size_t k = 0; k < N_COLUMNS; k++) {
            const double v = number_of(c->v[i], columns[k]);
            (void)fprintf(f, isnan(v) ? "," : ",%.8g", v);
        }
        (void)fputs(",\"", f);
        for (const char *s = text_of(c->v[i], "error"); *s; s++)
            (void)fprintf(f, *s == '"' ? "\"\"" : "%c", *s);
        (void)fputs("\"\n", f);
    }
    return close_file(f, path, err, errlen);
}

/* ---- The page ------------------------------------------------------------------------------------- */

static void put_text(FILE *f, const char *s)
{
    for (; *s; s++)
        if (*s == '<')
            (void)fputs("&lt;", f);
        else if (*s == '>')
            (void)fputs("&gt;", f);
        else if (*s == '&')
            (void)fputs("&amp;", f);
        else if (*s == '"')
            (void)fputs("&quot;", f);
        else
            (void)fputc(*s, f);
}

static void put_number(FILE *f, double v, int digits)
{
    if (isnan(v))
        (void)fputs("<td></td>", f);
    else
        (void)fprintf(f, "<td>%.*f</td>", digits, v);
}

/* A picture, or why there is none. */
static void put_svg(FILE *f, char *svg, const char *caption)
{
    (void)fputs("<figure>", f);
    if (svg)
        (void)fputs(svg, f);
    else
        (void)fputs("<p class=note>(no picture: gnuplot is not installed)</p>", f);
    (void)fputs("<figcaption>", f);
    put_text(f, caption);
    (void)fputs("</figcaption></figure>\n", f);
    free(svg);
}

static const char base_name[] = "the model as it is";

/* Points of cells with the first KV type, one series per method (and the base). */
struct points {
    struct lab_series *series;
    double *x, *y;
    const char **label;
    size_t n;
};

static void points_free(struct points *p)
{
    free(p->series);
    free(p->x);
    free(p->y);
    free(p->label);
}

/* Adds a series of the good cells that `belongs` picks, sorted by x; line: only those on the front. */
static int add_series(struct points *p, const struct cells *c, const char *name, const char *method,
                      const char *kv, const char *x, const char *y, bool front, size_t *used)
{
    struct lab_series *s = &p->series[p->n];
    const size_t first = *used;
    for (size_t i = 0; i < c->n; i++) {
        const double vx = number_of(c->v[i], x), vy = number_of(c->v[i], y);
        if (!is_good(c->v[i]) || strcmp(text_of(c->v[i], "kv"), kv) != 0 || !isfinite(vx) || !(vy > 0))
            continue;
        if (front ? !is_on_front(c, i) : strcmp(text_of(c->v[i], "method"), method) != 0)
            continue;
        size_t at = *used;
        for (; at > first && p->x[at - 1] > vx; at--) {
            p->x[at] = p->x[at - 1];
            p->y[at] = p->y[at - 1];
            p->label[at] = p->label[at - 1];
        }
        p->x[at] = vx;
        p->y[at] = vy;
        p->label[at] = text_of(c->v[i], "type");
        ++*used;
    }
    /* Types' names once: where all methods' points are close they would hide each other. */
    const bool named = front || (p->n == 0 || (p->n == 1 && strcmp(p->series[0].name, base_name) == 0));
    *s = (struct lab_series){name, *used - first, p->x + first, p->y + first, named ? p->label + first : NULL,
                             front};
    p->n += *used > first;
    return 0;
}

/* The names that a key has, in order of their first cell. */
static size_t names_of(const struct cells *c, const char *key, const char **name)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        const char *s = text_of(c->v[i], key);
        bool known = false;
        for (size_t k = 0; k < n; k++)
            known = known || strcmp(name[k], s) == 0;
        if (!known)
            name[n++] = s;
    }
    return n;
}

static void put_plot(FILE *f, const struct cells *c, const char *y, const char *title, const char *y_title,
                     bool log_y, bool front, const char *caption)
{
    struct points p = {calloc(c->n + 2, sizeof *p.series), calloc(2 * c->n + 2, sizeof *p.x),
                       calloc(2 * c->n + 2, sizeof *p.y), calloc(2 * c->n + 2, sizeof *p.label), 0};
    const char **method = calloc(c->n + 1, sizeof *method);
    size_t used = 0;
    if (p.series && p.x && p.y && p.label && method && c->n > 0) {
        const char *kv = text_of(c->v[0], "kv");
        const size_t n = names_of(c, "method", method);
        if (front)
            (void)add_series(&p, c, "Pareto front", "", kv, "bits_per_weight", y, true, &used);
        for (size_t i = 0; i < n; i++)
            (void)add_series(&p, c, strcmp(method[i], "none") == 0 ? base_name : method[i], method[i], kv,
                             "bits_per_weight", y, false, &used);
        const struct lab_plot plot = {title, "bits per weight", y_title, false, log_y, p.n, p.series};
        put_svg(f, p.n ? lab_plot_svg(&plot) : NULL, caption);
    }
    free(method);
    points_free(&p);
}

/* Memory against context length, a line per type and KV type of the first method. */
static void put_memory_plot(FILE *f, const struct cells *c)
{
    enum { MAX_LINES = 8, MAX_CONTEXTS = 8 };
    struct lab_series series[MAX_LINES];
    double x[MAX_LINES][MAX_CONTEXTS], y[MAX_LINES][MAX_CONTEXTS];
    char name[MAX_LINES][64];
    size_t n = 0;
    for (size_t i = 0; i < c->n && n < MAX_LINES; i++) {
        const json_t *memory = json_object_get(c->v[i], "memory"), *v;
        const char *key, *type = text_of(c->v[i], "type");
        bool known = !is_good(c->v[i]);
        (void)snprintf(name[n], sizeof name[n], "%s, KV %s", type, text_of(c->v[i], "kv"));
        for (size_t k = 0; k < n; k++)
            known = known || strcmp(name[k], name[n]) == 0;
        if (known)
            continue;
        size_t len = 0;
        json_object_foreach((json_t *)memory, key, v) if (len < MAX_CONTEXTS)
        {
            x[n][len] = atof(key);
            y[n][len++] = json_number_value(v) / (1 << 20);
        }
        series[n] = (struct lab_series){name[n], len, x[n], y[n], NULL, true};
        n++;
    }
    const struct lab_plot plot = {"Memory against context",
                                  "tokens of context",
                                  "MiB: weights, KV cache, scratch",
                                  true,
                                  true,
                                  n,
                                  series};
    put_svg(f, n ? lab_plot_svg(&plot) : NULL,
            "What loading and running takes, by context length (quoll inspect --plan).");
}

/* A number by one key against another, the third one fixed at its first value (kv), or any method. */
static void put_heat(FILE *f, const struct cells *c, const char *rows, const char *cols, const char *number,
                     const char *title, const char *caption)
{
    const char **row = calloc(c->n + 1, sizeof *row), **col = calloc(c->n + 1, sizeof *col);
    double *value = calloc(c->n * c->n + 1, sizeof *value);
    if (row && col && value && c->n > 0) {
        const size_t n_rows = names_of(c, rows, row), n_cols = names_of(c, cols, col);
        for (size_t i = 0; i < n_rows * n_cols; i++)
            value[i] = NAN;
        const bool by_method = strcmp(cols, "method") == 0;
        for (size_t i = 0; i < c->n; i++) {
            const json_t *cell = c->v[i];
            const char *first = text_of(c->v[0], "kv");
            if (by_method ? strcmp(text_of(cell, "kv"), first) != 0 : false)
                continue;
            for (size_t r = 0; r < n_rows; r++)
                for (size_t k = 0; k < n_cols; k++) {
                    double *v = &value[r * n_cols + k];
                    if (strcmp(text_of(cell, rows), row[r]) == 0 &&
                        strcmp(text_of(cell, cols), col[k]) == 0 && is_good(cell) && isnan(*v))
                        *v = number_of(cell, number);
                }
        }
        put_svg(f, lab_heat_svg(title, n_rows, n_cols, value, row, col), caption);
    }
    free(value);
    free(col);
    free(row);
}

/* "blk.3.attn_q.weight": layer 3, *name "attn_q" of *len bytes; −1: of no layer. */
static int layer_of(const char *tensor, const char **name, size_t *len)
{
    int layer, at = 0;
    if (sscanf(tensor, "blk.%d.%n", &layer, &at) != 1 || at == 0)
        return -1;
    *name = tensor + at;
    *len = strcspn(*name, ".");
    return layer;
}

/* Layers against their matrices. */
static void put_sensitivity(FILE *f, const char *dir)
{
    enum { MAX_COLS = 16, MAX_ROWS = 1024, NAME = 32 };
    char *path, (*label)[NAME] = calloc(MAX_ROWS, NAME);
    if (asprintf(&path, "%s/sensitivity.json", dir) < 0)
        path = NULL;
    json_t *all = path ? json_load_file(path, 0, NULL) : NULL, *tensor;
    double *value = calloc(MAX_ROWS * MAX_COLS, sizeof *value);
    const char **row = calloc(MAX_ROWS, sizeof *row), *col[MAX_COLS];
    char names[MAX_COLS][NAME];
    size_t n_rows = 0, n_cols = 0, i;
    if (all && label && value && row) {
        for (int pass = 0; pass < 2; pass++) { /* counts; fills */
            json_array_foreach(all, i, tensor)
            {
                const char *name;
                size_t len, c = 0;
                const int layer = layer_of(text_of(tensor, "name"), &name, &len);
                if (layer < 0 || layer >= MAX_ROWS || len >= NAME)
                    continue;
                while (c < n_cols && (strlen(names[c]) != len || memcmp(names[c], name, len) != 0))
                    c++;
                if (c == n_cols && n_cols < MAX_COLS) {
                    (void)snprintf(names[c], NAME, "%.*s", (int)len, name);
                    col[n_cols++] = names[c];
                }
                n_rows = (size_t)layer + 1 > n_rows ? (size_t)layer + 1 : n_rows;
                if (pass == 1 && c < n_cols)
                    value[(size_t)layer * n_cols + c] = number_of(tensor, "kl");
            }
        }
        for (size_t r = 0; r < n_rows; r++) {
            (void)snprintf(label[r], NAME, "layer %zu", r);
            row[r] = label[r];
        }
    }
    if (n_rows && n_cols) {
        (void)fputs("<h2>Which matrices matter</h2>\n", f);
        put_svg(
            f, lab_heat_svg("Divergence when one matrix alone has few bits", n_rows, n_cols, value, row, col),
            "Mean KL of the model with this one matrix quantised to a type of about four bits.");
    }
    json_decref(all);
    free(path);
    free(label);
    free(value);
    free(row);
}

/* What became of the weights: of all types by the first method, then of each, layer by layer. */
static void put_errors(FILE *f, const struct cells *c)
{
    const json_t **cell = calloc(c->n + 1, sizeof *cell);
    const char **name = calloc(c->n + 1, sizeof *name), *method = NULL;
    size_t n = 0;
    for (size_t i = 0; cell && name && i < c->n; i++) {
        if (!is_good(c->v[i]) || json_array_size(json_object_get(c->v[i], "errors")) == 0)
            continue;
        method = method ? method : text_of(c->v[i], "method");
        if (strcmp(method, text_of(c->v[i], "method")) != 0)
            continue;
        name[n] = text_of(c->v[i], "type");
        cell[n++] = c->v[i];
    }
    if (n > 0) {
        (void)fputs(
            "<h2>Errors of the weights</h2>\n<p>The error of a weight, |w&prime; &minus; w|, is given in "
            "units of its tensor's root mean square; what is smaller than 0.0001 counts as that. "
            "Methods that look at inputs give up closeness of the weights for closeness of the "
            "products; AWQ's weights are scaled, and cannot be compared.</p>\n",
            f);
        put_heat(f, c, "type", "method", "weight_error", "Error of the weights by type and method",
                 "Root mean square over all quantised weights.");
        char caption[200];
        (void)snprintf(
            caption, sizeof caption,
            "Share of the weights by the size of their error (half octaves), all layers' together, "
            "by %s.",
            method);
        put_svg(f, lab_errors_svg(cell, name, n), caption);
        for (size_t i = 0; i < n; i++) {
            (void)snprintf(
                caption, sizeof caption,
                "%s by %s: a histogram per tensor, the first layer on top; the darker, the more of "
                "its weights.",
                name[i], method);
            put_svg(f, lab_layer_errors_svg(cell[i]), caption);
        }
    }
    free(cell);
    free(name);
}

static void put_table(FILE *f, const struct cells *c)
{
    (void)fputs(
        "<table><thead><tr><th>type</th><th>method</th><th>KV</th><th>bits</th><th>MiB</th>"
        "<th>KL</th><th>&plusmn;</th><th>KL 99 %</th><th>same top-1, %</th><th>PPL</th><th>PPL ratio</th>"
        "<th>prompt, tok/s</th><th>generated, tok/s</th></tr></thead><tbody>\n",
        f);
    for (size_t i = 0; i < c->n; i++) {
        const json_t *cell = c->v[i];
        (void)fputs(is_good(cell) && is_on_front(c, i) ? "<tr class=front><td>" : "<tr><td>", f);
        put_text(f, text_of(cell, "type"));
        (void)fputs("</td><td>", f);
        put_text(f, text_of(cell, "method"));
        (void)fputs("</td><td>", f);
        put_text(f, text_of(cell, "kv"));
        (void)fputs("</td>", f);
        if (!is_good(cell)) {
            (void)fputs("<td class=note colspan=10>", f);
            put_text(f, text_of(cell, "error"));
            (void)fputs("</td></tr>\n", f);
            continue;
        }
        put_number(f, number_of(cell, "bits_per_weight"), 2);
        put_number(f, number_of(cell, "tensor_bytes") / (1 << 20), 1);
        put_number(f, number_of(cell, "kl_mean"), 5);
        put_number(f, number_of(cell, "kl_se"), 5);
        put_number(f, number_of(cell, "kl_p99"), 3);
        put_number(f, number_of(cell, "top1_same"), 1);
        put_number(f, number_of(cell, "ppl"), 3);
        put_number(f, number_of(cell, "ppl_ratio"), 4);
        put_number(f, number_of(cell, "pp_ts"), 0);
        put_number(f, number_of(cell, "tg_ts"), 1);
        (void)fputs("</tr>\n", f);
    }
    (void)fputs("</tbody></table>\n", f);
}

/* The front, smallest first: from which memory on each is the best. */
static void put_advice(FILE *f, const struct cells *c)
{
    size_t *front = calloc(c->n + 1, sizeof *front), n = 0;
    if (!front || c->n == 0) {
        free(front);
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        if (!is_good(c->v[i]) || strcmp(text_of(c->v[i], "kv"), text_of(c->v[0], "kv")) != 0 ||
            !is_on_front(c, i))
            continue;
        size_t at = n++;
        for (; at > 0 && number_of(c->v[front[at - 1]], "tensor_bytes") > number_of(c->v[i], "tensor_bytes");
             at--)
            front[at] = front[at - 1];
        front[at] = i;
    }
    (void)fputs("<table><thead><tr><th>memory at 2,048 tokens, MiB</th><th>take</th><th>bits</th><th>KL</th>"
                "<th>same top-1, %</th><th>generated, tok/s</th></tr></thead><tbody>\n",
                f);
    for (size_t i = 0; i < n; i++) {
        const json_t *cell = c->v[front[i]];
        (void)fprintf(
            f, "<tr><td>from %.0f</td><td>",
            ceil(json_number_value(json_object_get(json_object_get(cell, "memory"), "2048")) / (1 << 20)));
        put_text(f, text_of(cell, "type"));
        if (strcmp(text_of(cell, "method"), "none") != 0) {
            (void)fputs(" by ", f);
            put_text(f, text_of(cell, "method"));
        }
        (void)fputs("</td>", f);
        put_number(f, number_of(cell, "bits_per_weight"), 2);
        put_number(f, number_of(cell, "kl_mean"), 5);
        put_number(f, number_of(cell, "top1_same"), 1);
        put_number(f, number_of(cell, "tg_ts"), 1);
        (void)fputs("</tr>\n", f);
    }
    (void)fputs("</tbody></table>\n", f);
    free(front);
}

static void put_header(FILE *f, const json_t *header)
{
    (void)fputs(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Quantization lab</title><style>\n"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}\n"
        "h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}\n"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9em}\n"
        "th,td{padding:.25em .6em;border-bottom:1px solid #ddd;text-align:right}\n"
        "th:nth-child(-n+3),td:nth-child(-n+3){text-align:left}thead th{border-bottom:2px solid #888}\n"
        "tr.front{background:#eef6ee}figure{margin:1.5em 0}figure svg{max-width:100%;height:auto}svg "
        "image{image-rendering:pixelated}\n"
        "figcaption,.note{color:#666;font-size:.9em}code{font-size:.85em;word-break:break-all}\n"
        "@media print{body{max-width:none;margin:0}figure,tr{break-inside:avoid}h2,h2+p{break-after:avoid}}\n"
        "</style></head><body><h1>Quantization lab</h1>\n<p>",
        f);
    put_text(f, text_of(header, "model"));
    (void)fprintf(f, " (%s, %.1f M weights, %.1f MiB) on ", text_of(header, "architecture"),
                  number_of(header, "n_params") / 1e6, number_of(header, "file_bytes") / (1 << 20));
    put_text(f, text_of(header, "text"));
    (void)fprintf(f, " (sha256 %.16s&hellip;), windows of %.0f tokens", text_of(header, "text_sha256"),
                  number_of(header, "n_ctx"));
    if (number_of(header, "chunks") > 0)
        (void)fprintf(f, ", the first %.0f of them", number_of(header, "chunks"));
    if (*text_of(header, "calib")) {
        (void)fputs("; calibrated on ", f);
        put_text(f, text_of(header, "calib"));
        (void)fprintf(f, ", %.0f tokens", number_of(header, "calib_tokens"));
    }
    (void)fputs(". ", f);
    put_text(f, text_of(header, "program"));
    (void)fputs(", ", f);
    put_text(f, text_of(header, "cpu"));
    (void)fputs(
        ".</p>\n<p>KL is the mean divergence of the quantised model's next-token distribution from that of "
        "the model as it is, in nats; same top-1: how often both find the same token likeliest. Rows on the "
        "Pareto front (nothing else is both smaller and closer) are shaded.</p>\n",
        f);
}

static void put_commands(FILE *f, const struct cells *c)
{
    (void)fputs("<h2>How to repeat it</h2>\n<ul>", f);
    for (size_t i = 0; i < c->n; i++) {
        const char *keys[] = {"quantize", "command"};
        for (size_t k = 0; k < 2; k++)
            if (*text_of(c->v[i], keys[k])) {
                (void)fputs("<li><code>", f);
                put_text(f, text_of(c->v[i], keys[k]));
                (void)fputs("</code></li>\n", f);
            }
    }
    (void)fputs("</ul>\n", f);
}

static int write_page(const struct lab_store *s, const struct cells *c, const char *dir, char *err,
                      size_t errlen)
{
    char *path;
    FILE *f = open_file(&path, dir, "report.html", err, errlen);
    if (!f)
        return -1;
    put_header(f, s->header);
    (void)fputs("<h2>Which one to take</h2>\n", f);
    put_advice(f, c);
    (void)fputs("<h2>Quality against size</h2>\n", f);
    put_plot(f, c, "kl_mean", "Divergence against size", "mean KL, nats", true, true,
             "Mean KL divergence from the model as it is; lower and further left is better.");
    put_plot(f, c, "ppl", "Perplexity against size", "perplexity", false, false, "Perplexity of the text.");
    put_heat(f, c, "type", "method", "kl_mean", "Mean KL by type and method",
             "Mean KL of every type with every method.");
    put_sensitivity(f, dir);
    put_errors(f, c);
    (void)fputs("<h2>KV cache</h2>\n", f);
    put_heat(
        f, c, "type", "kv", "kl_mean", "Mean KL by type and KV cache",
        "What quantised keys and values add (of the first method), against the model with an F16 cache.");
    put_memory_plot(f, c);
    if (c->n && !isnan(number_of(c->v[0], "tg_ts"))) {
        (void)fputs("<h2>Speed</h2>\n", f);
        put_plot(f, c, "tg_ts", "Generation against size", "generated tokens/s", false, false,
                 "One token at a time.");
        put_plot(f, c, "pp_ts", "Prompts against size", "prompt tokens/s", false, false,
                 "128 tokens at once.");
    }
    (void)fputs("<h2>All cells</h2>\n", f);
    put_table(f, c);
    put_commands(f, c);
    (void)fputs("</body></html>\n", f);
    return close_file(f, path, err, errlen);
}

int lab_report(const struct lab_store *s, const char *dir, char *err, size_t errlen)
{
    struct cells c;
    if (collect(&c, s))
        return err_set(err, errlen, "out of memory");
    int rc = write_json(s, &c, dir, err, errlen);
    if (rc == 0)
        rc = write_csv(&c, dir, err, errlen);
    if (rc == 0)
        rc = write_page(s, &c, dir, err, errlen);
    free(c.v);
    return rc;
}
