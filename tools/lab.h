/* The parts of `quoll lab`: a grid of types, methods and KV caches, each cell measured by this program's own
 * commands, and the report. */
#ifndef QUOLL_LAB_H
#define QUOLL_LAB_H

#include "tools/options.h"

#include <jansson.h>
#include <stdio.h>

/* ---- tools/lab_grid.c ------------------------------------------------------------------------- */

/* "types=q8_0,q4_k methods=rtn,gptq kv=f16,q8_0": what is not named has one value, or none (types). */
struct lab_grid {
    struct string_list types, methods, kvs;
    char *text; /* what the items point into */
};
/* −1 with a message: an unknown key, an empty list. The names themselves are not checked. */
int lab_grid_parse(struct lab_grid *g, const char *text, char *err, size_t errlen);
void lab_grid_free(struct lab_grid *g);

/* ---- tools/lab_run.c: commands of this program as processes ----------------------------------- */

/* Runs this program with these arguments (the last NULL; args[0] is the command) and waits. *out: its stdout,
 * malloc'ed (NULL: not wanted). Returns its exit code; where that is not 0, err holds what it said last. An
 * interrupt goes to it too. */
int lab_run(const char *const *args, char **out, char *err, size_t errlen);
/* The same, stdout parsed; NULL: an error. */
json_t *lab_run_json(const char *const *args, char *err, size_t errlen);
/* The command as one could type it; malloc'ed. */
char *lab_command_text(const char *const *args);
/* Removes a file, or a folder with the files in it; what is not there is fine. */
void lab_remove(const char *path);

/* ---- tools/lab_store.c: finished cells, one line of JSON each --------------------------------- */

/* DIR/cells.jsonl: the first line says what was measured on what (header), every other is a cell. */
struct lab_store {
    char *path;
    json_t *header, *cells; /* an object; an array */
};
/* Opens DIR, made if it is not there, with what an earlier run has left; a last line that was cut off is
 * dropped. −1: it cannot be made, or holds results of another header. */
int lab_store_open(struct lab_store *s, const char *dir, json_t *header, char *err, size_t errlen);
void lab_store_close(struct lab_store *s); /* a zeroed one is fine */
/* The cell of these three; NULL: not there, or it failed. */
json_t *lab_store_find(const struct lab_store *s, const char *type, const char *method, const char *kv);
/* Appends a cell, which is the store's from here on, and its line to the file. */
int lab_store_add(struct lab_store *s, json_t *cell, char *err, size_t errlen);

/* ---- tools/lab_sensitivity.c ------------------------------------------------------------------- */

/* How much each matrix of the model matters (lab/sensitivity.h), measured on a text: DIR/sensitivity.json, an
 * array of {name, type, kl}; an earlier run's is left as it is. −1: an error, or interrupted. */
int lab_sensitivity(const char *dir, const char *model, const char *text, int n_threads, char *err,
                    size_t errlen);

/* ---- tools/lab_report.c, lab_plot.c ------------------------------------------------------------ */

/* Writes DIR/results.json, results.csv and report.html; with DIR/sensitivity.json, where that is. */
int lab_report(const struct lab_store *s, const char *dir, char *err, size_t errlen);

struct lab_series {
    const char *name;
    size_t n;
    const double *x, *y;
    const char *const *label; /* (n), NULL: none */
    bool line;                /* joined */
};
struct lab_plot {
    const char *title, *x_title, *y_title;
    bool log_x, log_y;
    size_t n;
    const struct lab_series *series;
};
/* The picture as SVG, by gnuplot; malloc'ed. NULL: there is no gnuplot, or it failed. */
char *lab_plot_svg(const struct lab_plot *p);
/* A matrix of values (rows, cols) as colours. */
char *lab_heat_svg(const char *title, size_t rows, size_t cols, const double *value,
                   const char *const *row_name, const char *const *col_name);

/* A script for gnuplot that begins with a picture of this size, into f; the picture (closes f; NULL: as
 * above); a text in quotes; colours that all eyes tell apart, again and again. */
void lab_svg_begin(FILE *f, const char *title, int width, int height);
char *lab_svg_end(FILE *f);
void lab_put_quoted(FILE *f, const char *s);
const char *lab_colour(size_t i);

/* ---- tools/lab_errors.c ------------------------------------------------------------------------ */

/* lab/errors.h of a quantised model against the one it was made of: an array of {name, n, rms, max, bins};
 * NULL: an error, or interrupted. */
json_t *lab_errors(const char *model, const char *made, int n_threads, char *err, size_t errlen);
/* The root mean square of them all. */
double lab_errors_rms(const json_t *errors);
/* Histograms of such cells ("errors"): a panel per role of matrix, a line per cell; or of one, a line of
 * colours per layer. SVG as above. */
char *lab_errors_svg(const json_t *const *cell, const char *const *name, size_t n);
char *lab_layer_errors_svg(const json_t *cell);

#endif
