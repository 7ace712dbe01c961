/* Pictures of the lab's report, drawn by gnuplot. */
#include "tools/lab.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Told apart by people who do not see all colours (Okabe & Ito 2008). */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#e69f00", "#56b4e9", "#000000", "#999999"};
enum { N_COLOURS = sizeof colours / sizeof colours[0] };

/* A text in double quotes. */
void lab_put_quoted(FILE *f, const char *s)
{
    (void)fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            (void)fputc('\\', f);
        if (*s == '`') /* what is between two of these would be run */
            (void)fputc('\'', f);
        else if (*s >= ' ' || *s < 0)
            (void)fputc(*s, f);
    }
    (void)fputc('"', f);
}

/* What gnuplot prints for a script; NULL: it is not there or says that something is wrong. */
static char *draw(FILE *script)
{
    char *text = NULL;
    FILE *out = tmpfile(), *messages = tmpfile();
    posix_spawn_file_actions_t actions;
    if (out && messages && fflush(script) == 0 && lseek(fileno(script), 0, SEEK_SET) == 0 &&
        posix_spawn_file_actions_init(&actions) == 0) {
        char *argv[] = {"gnuplot", NULL};
        pid_t pid;
        int status = -1;
        bool ready = posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO) == 0 &&
                     posix_spawn_file_actions_adddup2(&actions, fileno(out), STDOUT_FILENO) == 0 &&
                     posix_spawn_file_actions_adddup2(&actions, fileno(messages), STDERR_FILENO) == 0;
        if (ready && posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) == 0)
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        (void)posix_spawn_file_actions_destroy(&actions);
        off_t size = lseek(fileno(out), 0, SEEK_END);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && size > 0 && (text = calloc(1, (size_t)size + 1)))
            if (pread(fileno(out), text, (size_t)size, 0) != size) {
                free(text);
                text = NULL;
            }
    }
    if (out)
        (void)fclose(out);
    if (messages)
        (void)fclose(messages);
    /* Inside HTML there is no place for an XML declaration. */
    char *svg = text ? strstr(text, "<svg") : NULL;
    if (svg)
        memmove(text, svg, strlen(svg) + 1);
    return text;
}

void lab_svg_begin(FILE *f, const char *title, int width, int height)
{
    static int count; /* names of clip paths and the like differ between the pictures of one page */
    (void)fprintf(f,
                  "set terminal svg size %d,%d fixed font 'sans-serif,13' background 'white' name 'p%d'\n"
                  "set encoding utf8\nset termoption noenhanced\nset title ",
                  width, height, ++count);
    lab_put_quoted(f, title);
    (void)fputs("\n", f);
}

char *lab_svg_end(FILE *f)
{
    char *svg = draw(f);
    (void)fclose(f);
    return svg;
}

const char *lab_colour(size_t i)
{
    return colours[i % N_COLOURS];
}

char *lab_plot_svg(const struct lab_plot *p)
{
    FILE *f = tmpfile();
    if (!f)
        return NULL;
    lab_svg_begin(f, p->title, 860, 460);
    (void)fputs("set xlabel ", f);
    lab_put_quoted(f, p->x_title);
    (void)fputs("\nset ylabel ", f);
    lab_put_quoted(f, p->y_title);
    (void)fprintf(f,
                  "\nset grid lc rgb '#dddddd'\nset key outside right top\n%s%sset offsets graph 0.05, "
                  "graph 0.05, graph 0.1, 0\n",
                  p->log_x ? "set logscale x 2\n" : "", p->log_y ? "set logscale y\n" : "");
    for (size_t i = 0; i < p->n; i++) {
        (void)fprintf(f, "$d%zu << EOD\n", i);
        for (size_t k = 0; k < p->series[i].n; k++) {
            (void)fprintf(f, "%.10g %.10g ", p->series[i].x[k], p->series[i].y[k]);
            lab_put_quoted(f, p->series[i].label ? p->series[i].label[k] : "");
            (void)fputs("\n", f);
        }
        (void)fputs("EOD\n", f);
    }
    (void)fputs("plot ", f);
    for (size_t i = 0; i < p->n; i++) {
        const struct lab_series *s = &p->series[i];
        const char *colour = lab_colour(i);
        (void)fprintf(f, "%s$d%zu using 1:2 with %s lc rgb '%s' %s title ", i ? ", " : "", i,
                      s->line ? "linespoints" : "points", colour,
                      s->line ? "lw 1.5 pt 7 ps 0.4" : "pt 7 ps 0.8");
        lab_put_quoted(f, s->name);
        if (s->label)
            (void)fprintf(f, ", $d%zu using 1:2:3 with labels offset 0,%s font ',10' tc rgb '%s' notitle", i,
                          s->line ? "-0.8" : "0.8", colour);
    }
    (void)fputs("\n", f);
    return lab_svg_end(f);
}

char *lab_heat_svg(const char *title, size_t rows, size_t cols, const double *value,
                   const char *const *row_name, const char *const *col_name)
{
    FILE *f = tmpfile();
    if (!f)
        return NULL;
    lab_svg_begin(f, title, (int)(220 + 70 * cols), (int)(110 + 26 * rows));
    (void)fputs("set palette defined (0 '#ffffff', 1 '#fff7bc', 2 '#fec44f', 3 '#fe9929', 4 '#ec7014')\n"
                "set logscale cb\nset yrange [*:*] reverse\nunset key\nset xtics rotate by -30 scale 0 (",
                f);
    for (size_t c = 0; c < cols; c++) {
        lab_put_quoted(f, col_name[c]);
        (void)fprintf(f, " %zu%s", c, c + 1 < cols ? ", " : "");
    }
    (void)fputs(")\nset ytics scale 0 (", f);
    for (size_t r = 0; r < rows; r++) {
        lab_put_quoted(f, row_name[r]);
        (void)fprintf(f, " %zu%s", r, r + 1 < rows ? ", " : "");
    }
    (void)fputs(")\n$d << EOD\n", f);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const double v = value[r * cols + c];
            if (isfinite(v) && v > 0)
                (void)fprintf(f, "%zu %zu %.10g %.3g\n", c, r, v, v);
            else
                (void)fprintf(f, "%zu %zu NaN \"\"\n", c, r);
        }
    (void)fputs("EOD\nplot $d using 1:2:3 with image pixels", f);
    if (cols <= 12)
        (void)fputs(", $d using 1:2:4 with labels font ',10'", f);
    (void)fputs("\n", f);
    return lab_svg_end(f);
}
