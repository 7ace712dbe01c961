#include "tests/weights/image.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *image_path(const void *data, size_t len)
{
    static char path[64];
    static int fd = -1;
    if (fd >= 0)
        (void)close(fd);
    fd = memfd_create("image", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    if (len > 0)
        ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

struct weights *image_open(const void *data, size_t len)
{
    char err[512] = "";
    struct weights *w;
    int rc = weights_open(&w, image_path(data, len), NULL, err, sizeof err);
    ck_assert_msg(rc == 0, "%s", err);
    return w;
}

static void check_message(const char *err, const char *path, const char *expected)
{
    /* In a folder it is one of its files that is wrong. */
    ck_assert_msg(strncmp(err, path, strlen(path)) == 0 && strchr(":/", err[strlen(path)]), "no path: %s",
                  err);
    ck_assert_msg(strchr(err, '\n') == NULL && strchr(err, '\033') == NULL, "more than a line: %s", err);
    ck_assert_msg(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
}

void path_is_bad(const char *path, const char *expected)
{
    char err[512] = "";
    struct weights *w;
    int rc = weights_open(&w, path, NULL, err, sizeof err);
    ck_assert_msg(rc == -1 && w == NULL, "opened, expected: %s", expected);
    check_message(err, path, expected);
}

void image_is_bad(const void *data, size_t len, const char *expected)
{
    path_is_bad(image_path(data, len), expected);
}

static void walk(const struct weights *w)
{
    for (size_t i = 0; i < weights_n_meta(w); i++) {
        const struct meta *m = weights_meta(w, i);
        int64_t v;
        double f;
        struct wstr s;
        ck_assert_ptr_eq(weights_meta_find(w, m->key), m);
        for (uint64_t j = 0; j < m->n; j++)
            ck_assert(meta_int(m, j, &v) || meta_float(m, j, &f) || meta_str(m, j, &s) ||
                      m->elem == META_U64);
    }
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        const volatile uint8_t *p = t->data;
        ck_assert_ptr_eq(weights_find(w, t->name), t);
        if (t->bytes > 0)
            (void)(p[0] + p[t->bytes - 1]);
    }
}

bool path_is_safe(const char *path)
{
    char err[512] = "";
    struct weights *w;
    int rc = weights_open(&w, path, NULL, err, sizeof err);
    if (rc == 0)
        walk(w);
    else {
        ck_assert_int_eq(rc, -1);
        ck_assert_ptr_null(w);
        check_message(err, path, "");
    }
    weights_close(w);
    return rc == 0;
}

bool image_is_safe(const void *data, size_t len)
{
    return path_is_safe(image_path(data, len));
}

uint64_t test_random(uint64_t *state)
{
    /* Vigna's splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
