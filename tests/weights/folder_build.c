#include "tests/weights/folder_build.h"
#include "tests/test.h"
#include "weights/weights.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char folder[64];

void folder_make(void)
{
    (void)strcpy(folder, "/tmp/quoll-folder-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

void folder_remove(void)
{
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    for (const struct dirent *e; (e = readdir(dir));)
        (void)unlink(folder_path(e->d_name)); /* "." and ".." stay */
    (void)closedir(dir);
    (void)rmdir(folder);
}

const char *folder_path(const char *name)
{
    static char path[sizeof folder + 256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

void folder_put_bytes(const char *name, const void *data, size_t len)
{
    FILE *f = fopen(folder_path(name), "wb");
    ck_assert_ptr_nonnull(f);
    if (len > 0)
        ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

void folder_put(const char *name, const char *text)
{
    folder_put_bytes(name, text, strlen(text));
}

void folder_put_tensors(const char *name, const char *tensors)
{
    struct save_tensor t[8];
    static const float one = 1;
    char names[64], err[256] = "";
    size_t n = 0;
    ck_assert_uint_lt(strlen(tensors), sizeof names);
    (void)snprintf(names, sizeof names, "%s", tensors);
    for (const char *s = strtok(names, " "); s; s = strtok(NULL, " ")) {
        ck_assert_uint_lt(n, sizeof t / sizeof *t);
        t[n++] = (struct save_tensor){s, QTYPE_F32, 1, {1}, &one};
    }
    ck_assert_msg(weights_save_safetensors(folder_path(name), t, n, err, sizeof err) == 0, "%s", err);
}
