#include "tests/weights/image.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Like ck_assert_msg, but costs nothing where it holds: that one writes to a file each time, and there are
 * tests that open ten thousand images. */
#define CHECK(cond, ...)               \
    do {                               \
        if (!(cond))                   \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)

const char *image_path(const void *data, size_t len)
{
    static char path[64];
    static int fd = -1;
    if (fd >= 0)
        (void)close(fd);
    fd = memfd_create("image", MFD_CLOEXEC);
    CHECK(fd >= 0 && (len == 0 || write(fd, data, len) == (ssize_t)len), "no file of %zu bytes", len);
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
    CHECK(strncmp(err, path, strlen(path)) == 0 && strchr(":/", err[strlen(path)]), "no path: %s", err);
    CHECK(strchr(err, '\n') == NULL && strchr(err, '\033') == NULL, "more than a line: %s", err);
    CHECK(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
}

void path_is_bad(const char *path, const char *expected)
{
    char err[512] = "";
    struct weights *w;
    int rc = weights_open(&w, path, NULL, err, sizeof err);
    CHECK(rc == -1 && w == NULL, "opened, expected: %s", expected);
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
        CHECK(weights_meta_find(w, m->key) == m, "not found: %s", m->key);
        for (uint64_t j = 0; j < m->n; j++)
            CHECK(meta_int(m, j, &v) || meta_float(m, j, &f) || meta_str(m, j, &s) || m->elem == META_U64,
                  "no value: %s", m->key);
    }
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        const volatile uint8_t *p = t->data;
        CHECK(weights_find(w, t->name) == t, "not found: %s", t->name);
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
        CHECK(rc == -1 && w == NULL, "neither opened nor closed");
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
