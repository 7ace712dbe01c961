/* The lab's histograms of weights' errors: measured while a cell's file is there, kept in the cell, drawn. */
#include "tools/lab.h"
#include "tools/tools.h"

#include "lab/errors.h"
#include "quant/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROLES = 12, MOST_LAYERS = 1024, ROLE_NAME = 32 };

/* ---- Measuring ------------------------------------------------------------------------------------ */

static json_t *errors_json(const struct tensor_errors *t, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; all && i < n; i++) {
        json_t *bins = json_array();
        for (int b = 0; b < ERRORS_BINS; b++)
            (void)json_array_append_new(bins, json_integer(t[i].bin[b]));
        (void)json_array_append_new(all, json_pack("{s:s, s:I, s:f, s:f, s:o}", "name", t[i].name, "n",
                                                   (json_int_t)t[i].n, "rms", t[i].rms, "max", t[i].max,
                                                   "bins", bins));
    }
    return all;
}

json_t *lab_errors(const char *model, const char *made, int n_threads, char *err, size_t errlen)
{
    struct weights *a = NULL, *b = NULL;
    struct tensor_errors *t = NULL;
    size_t n = 0;
    json_t *all = NULL;
    if (weights_open(&a, model, NULL, err, errlen) == 0 && weights_open(&b, made, NULL, err, errlen) == 0 &&
        errors_measure(&t, &n, a, b, n_threads, tool_interrupted, err, errlen) == 0) {
        all = errors_json(t, n);
        if (!all)
            (void)err_set(err, errlen, "out of memory");
    }
    free(t);
    weights_close(a);
    weights_close(b);
    return all;
}

double lab_errors_rms(const json_t *errors)
{
    double sum = 0, n = 0;
    size_t i;
    json_t *tensor;
    json_array_foreach(errors, i, tensor)
    {
        const double rms = json_number_value(json_object_get(tensor, "rms")),
                     weights = json_number_value(json_object_get(tensor, "n"));
        sum += weights * rms * rms;
        n += weights;
    }
    return n > 0 ? sqrt(sum / n) : 0;
}

/* ---- Drawing -------------------------------------------------------------------------------------- */

/* The shares of a cell's tensors: of all tensors of a role together, and of each layer's. */
struct shares {
    char role[MOST_ROLES][ROLE_NAME];
    int n_roles, n_layers;
    bool is_in_layers[MOST_ROLES];
    double total[MOST_ROLES][ERRORS_BINS];
    double (*layer)[MOST_ROLES][ERRORS_BINS]; /* (n_layers); negative: there is none */
};

/* "blk.3.attn_q.weight": 3 and "attn_q"; "output.weight": −1 and "output". */
static int split_name(char role[ROLE_NAME], const char *name)
{
    int layer = -1, at = 0;
    if (sscanf(name, "blk.%d.%n", &layer, &at) != 1 || at == 0 || layer < 0 || layer >= MOST_LAYERS)
        layer = -1;
    (void)snprintf(role, ROLE_NAME, "%.*s", (int)strcspn(name + at, "."), name + at);
    return layer;
}

static int find_role(struct shares *s, const char *role)
{
    int r = 0;
    while (r < s->n_roles && strcmp(s->role[r], role) != 0)
        r++;
    if (r == MOST_ROLES)
        return -1;
    if (r == s->n_roles)
        (void)strcpy(s->role[s->n_roles++], role);
    return r;
}

static int shares_of(struct shares *s, const json_t *errors)
{
    size_t i;
    json_t *tensor;
    double n[MOST_ROLES] = {0};
    *s = (struct shares){.layer = calloc(MOST_LAYERS, sizeof *s->layer)};
    if (!s->layer)
        return -1;
    for (int l = 0; l < MOST_LAYERS; l++)
        for (int r = 0; r < MOST_ROLES; r++)
            s->layer[l][r][0] = -1;
    json_array_foreach(errors, i, tensor)
    {
        char role[ROLE_NAME];
        const char *name = json_string_value(json_object_get(tensor, "name"));
        const json_t *bins = json_object_get(tensor, "bins");
        const double weights = json_number_value(json_object_get(tensor, "n"));
        const int l = split_name(role, name ? name : "");
        if (!(weights > 0) || !(json_number_value(json_object_get(tensor, "rms")) > 0))
            continue; /* copied */
        const int r = find_role(s, role);
        if (r < 0)
            continue;
        n[r] += weights;
        s->n_layers = l + 1 > s->n_layers ? l + 1 : s->n_layers;
        s->is_in_layers[r] = l >= 0;
        for (size_t b = 0; b < ERRORS_BINS; b++) {
            const double count = json_number_value(json_array_get(bins, b));
            s->total[r][b] += count;
            if (l >= 0)
                s->layer[l][r][b] = count / weights;
        }
    }
    for (int r = 0; r < s->n_roles; r++)
        for (int b = 0; b < ERRORS_BINS; b++)
            s->total[r][b] /= n[r] > 0 ? n[r] : 1;
    return 0;
}

/* The middle of a bin, as log10 |e|. */
static double position(int bin)
{
    return (ERRORS_LOW + (bin + 0.5) / 2) * log10(2);
}

enum { WIDTH = 860, COLS = 4 };

/* Panels of so many pixels (with a title and a scale) in lines of COLS. */
static void begin_panels(FILE *f, int n, int pixels)
{
    const int lines = (n + COLS - 1) / COLS, height = lines * pixels;
    lab_svg_begin(f, "", WIDTH, height);
    (void)fprintf(f,
                  "set multiplot layout %d,%d margins 0.06,0.99,%.4f,%.4f spacing 0.045,%.4f\nset xrange "
                  "[-4.2:1.4]\nset xtics ('0.001' -3, '0.01' -2, '0.1' -1, '1' 0) font ',10'\n"
                  "set ytics font ',10'\nset title offset 0,-0.7 font ',11'\nset grid lc rgb '#dddddd'\n",
                  lines, COLS, 30.0 / height, 1 - 30.0 / height, 64.0 / height);
}

static void put_title(FILE *f, const char *role)
{
    (void)fputs("set title ", f);
    lab_put_quoted(f, role);
    (void)fputs("\n", f);
}

static void put_line(FILE *f, const struct shares *s, const char *role, size_t i)
{
    (void)fprintf(f, "$d%zu << EOD\n", i);
    for (int r = 0; r < s->n_roles; r++)
        for (int b = 0; b < ERRORS_BINS && strcmp(s->role[r], role) == 0; b++)
            (void)fprintf(f, "%.4f %.6g\n", position(b), 100 * s->total[r][b]);
    (void)fputs("NaN NaN\nEOD\n", f); /* where a cell has no such matrices */
}

/* A panel per role, a line per cell; the first panel has their names. */
char *lab_errors_svg(const json_t *const *cell, const char *const *name, size_t n)
{
    struct shares *s = calloc(n + 1, sizeof *s), all = {.n_roles = 0};
    size_t good = 0;
    for (; s && good < n && shares_of(&s[good], json_object_get(cell[good], "errors")) == 0; good++)
        for (int r = 0; r < s[good].n_roles; r++)
            (void)find_role(&all, s[good].role[r]);
    FILE *f = s && good == n && all.n_roles > 0 ? tmpfile() : NULL;
    char *svg = NULL;
    if (f) {
        begin_panels(f, all.n_roles, 190);
        (void)fputs("set yrange [0:*]\nset ytics 10 format '%h %%'\n"
                    "set key right top samplen 0.8 spacing 0.9 font ',9'\n",
                    f);
        for (int r = 0; r < all.n_roles; r++) {
            put_title(f, all.role[r]);
            for (size_t i = 0; i < n; i++)
                put_line(f, &s[i], all.role[r], i);
            for (size_t i = 0; i < n; i++) {
                (void)fprintf(f, "%s$d%zu using 1:2 with lines lw 1.6 lc rgb '%s' title ", i ? ", " : "plot ",
                              i, lab_colour(i));
                lab_put_quoted(f, name[i]);
            }
            (void)fputs("\nunset key\n", f);
        }
        (void)fputs("unset multiplot\n", f);
        svg = lab_svg_end(f);
    }
    for (size_t i = 0; s && i < n; i++)
        free(s[i].layer);
    free(s);
    return svg;
}

/* A panel per role that all layers have, a line of colours per layer. */
char *lab_layer_errors_svg(const json_t *cell)
{
    struct shares s;
    int n_roles = 0;
    char *svg = NULL;
    if (shares_of(&s, json_object_get(cell, "errors")))
        return NULL;
    for (int r = 0; r < s.n_roles; r++)
        n_roles += s.is_in_layers[r];
    FILE *f = n_roles > 0 ? tmpfile() : NULL;
    if (f) {
        begin_panels(f, n_roles, 94 + 4 * s.n_layers);
        (void)fprintf(
            f,
            "unset key\nunset colorbox\nset ytics %d\nset yrange [%d.5:-0.5]\nset cbrange [0:0.25]\n"
            "set palette defined (0 '#ffffff', 1 '#deebf7', 3 '#6baed6', 6 '#08519c', 10 '#08224c')\n",
            (s.n_layers + 5) / 6, s.n_layers - 1);
        for (int r = 0; r < s.n_roles; r++) {
            if (!s.is_in_layers[r])
                continue;
            put_title(f, s.role[r]);
            (void)fputs("$d << EOD\n", f);
            for (int l = 0; l < s.n_layers; l++)
                for (int b = 0; b < ERRORS_BINS; b++)
                    if (s.layer[l][r][0] >= 0)
                        (void)fprintf(f, "%.4f %d %.6g\n", position(b), l, s.layer[l][r][b]);
                    else
                        (void)fprintf(f, "%.4f %d NaN\n", position(b), l);
            (void)fputs("EOD\nplot $d using 1:2:3 with image\n", f);
        }
        (void)fputs("unset multiplot\n", f);
        svg = lab_svg_end(f);
    }
    free(s.layer);
    return svg;
}
