#include "tools/lab.h"

#include "quant/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(10) };

/* Lines of an earlier run. A last line without its end was being written when that run ended: it is cut
 * off the file, so that the next one does not run into it. */
static int read_lines(struct lab_store *s, json_t *header, char *err, size_t errlen)
{
    FILE *f = fopen(s->path, "r");
    if (!f)
        return errno == ENOENT ? 0 : err_set(err, errlen, "%s: %s", s->path, strerror(errno));
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    off_t whole = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && (n = getline(&line, &cap, f)) > 0 && line[n - 1] == '\n'; i++) {
        json_error_t why;
        json_t *j = json_loads(line, 0, &why);
        if (!json_is_object(j))
            rc = err_set(err, errlen, "%s: line %zu is no JSON object", s->path, i + 1);
        else if (i == 0 && !json_equal(j, header))
            rc = err_set(err, errlen,
                         "%s: holds results of another model, text or setting; name another folder with -o",
                         s->path);
        else if (i > 0)
            rc = json_array_append(s->cells, j) ? err_set(err, errlen, "out of memory") : 0;
        json_decref(j);
        whole += n;
    }
    free(line);
    (void)fclose(f);
    if (rc == 0 && truncate(s->path, whole) != 0)
        rc = err_set(err, errlen, "%s: %s", s->path, strerror(errno));
    return rc;
}

/* Appends a line and makes sure that it is on the disk. */
static int write_line(const struct lab_store *s, const json_t *j, char *err, size_t errlen)
{
    char *text = json_dumps(j, LINE_FLAGS);
    if (!text)
        return err_set(err, errlen, "out of memory");
    FILE *f = fopen(s->path, "a");
    bool good = f && fputs(text, f) >= 0 && fputc('\n', f) >= 0 && fflush(f) == 0 && fsync(fileno(f)) == 0;
    int number = errno;
    if (f && fclose(f) != 0 && good) {
        number = errno;
        good = false;
    }
    free(text);
    return good ? 0 : err_set(err, errlen, "%s: %s", s->path, strerror(number));
}

int lab_store_open(struct lab_store *s, const char *dir, json_t *header, char *err, size_t errlen)
{
    *s = (struct lab_store){.header = json_incref(header), .cells = json_array()};
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        int rc = err_set(err, errlen, "%s: %s", dir, strerror(errno));
        lab_store_close(s);
        return rc;
    }
    struct stat st;
    int rc = asprintf(&s->path, "%s/cells.jsonl", dir) < 0 ? -1 : 0;
    if (rc || !s->cells) {
        s->path = rc ? NULL : s->path;
        rc = err_set(err, errlen, "out of memory");
    }
    if (rc == 0)
        rc = read_lines(s, header, err, errlen);
    if (rc == 0 && (stat(s->path, &st) != 0 || st.st_size == 0))
        rc = write_line(s, header, err, errlen);
    if (rc)
        lab_store_close(s);
    return rc;
}

void lab_store_close(struct lab_store *s)
{
    json_decref(s->header);
    json_decref(s->cells);
    free(s->path);
    *s = (struct lab_store){.path = NULL};
}

static bool is(const json_t *cell, const char *key, const char *value)
{
    const char *s = json_string_value(json_object_get(cell, key));
    return s && strcmp(s, value) == 0;
}

json_t *lab_store_find(const struct lab_store *s, const char *type, const char *method, const char *kv)
{
    size_t i;
    json_t *cell;
    json_array_foreach(s->cells, i, cell) if (is(cell, "type", type) && is(cell, "method", method) &&
                                              is(cell, "kv", kv) &&
                                              !json_object_get(cell, "error")) return cell;
    return NULL;
}

int lab_store_add(struct lab_store *s, json_t *cell, char *err, size_t errlen)
{
    if (!cell || json_array_append_new(s->cells, cell))
        return err_set(err, errlen, "out of memory");
    return write_line(s, cell, err, errlen);
}
