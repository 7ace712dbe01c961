#include "tests/weights/zip_build.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct zip_build *z, const void *data, size_t len)
{
    z->data = realloc(z->data, z->len + len + 1);
    ck_assert_ptr_nonnull(z->data);
    if (len > 0)
        memcpy(z->data + z->len, data, len);
    z->len += len;
}

static void put_number(struct zip_build *z, uint64_t v, size_t n_bytes)
{
    put(z, &v, n_bytes);
}

static void put_zeros(struct zip_build *z, size_t n)
{
    for (; n > 0; n--)
        put_number(z, 0, 1);
}

void zip_build_add(struct zip_build *z, const char *name, const void *data, size_t len)
{
    ck_assert_uint_lt(z->n, ZIP_BUILD_MAX);
    ck_assert_uint_lt(strlen(name), sizeof z->name[0]);
    (void)snprintf(z->name[z->n], sizeof z->name[0], "%s", name);
    z->local[z->n] = z->len;
    z->bytes[z->n++] = len;
    put(z, "PK\003\004", 4);
    put_zeros(z, 22); /* torch leaves the sizes here to the directory as well */
    put_number(z, strlen(name), 2);
    put_number(z, 3, 2); /* padding */
    put(z, name, strlen(name));
    put_zeros(z, 3);
    put(z, data, len);
}

static void put_central(struct zip_build *z, size_t i)
{
    size_t small = z->zip64 ? UINT32_MAX : z->bytes[i];
    z->central[i] = z->len;
    put(z, "PK\001\002", 4);
    put_zeros(z, 16);
    put_number(z, small, 4);
    put_number(z, small, 4);
    put_number(z, strlen(z->name[i]), 2);
    put_number(z, z->zip64 ? 34 : 0, 2);
    put_zeros(z, 10);
    put_number(z, z->zip64 ? UINT32_MAX : z->local[i], 4);
    put(z, z->name[i], strlen(z->name[i]));
    if (!z->zip64)
        return;
    put_number(z, 0x4246, 2); /* some other field first */
    put_number(z, 2, 2);
    put_zeros(z, 2);
    put_number(z, 1, 2);
    put_number(z, 24, 2);
    put_number(z, z->bytes[i], 8);
    put_number(z, z->bytes[i], 8);
    put_number(z, z->local[i], 8);
}

void zip_build_finish(struct zip_build *z)
{
    size_t begin = z->len;
    for (size_t i = 0; i < z->n; i++)
        put_central(z, i);
    size_t bytes = z->len - begin, end64 = z->len;
    if (z->zip64) {
        put(z, "PK\006\006", 4);
        put_number(z, 44, 8);
        put_zeros(z, 12);
        put_number(z, z->n, 8);
        put_number(z, z->n, 8);
        put_number(z, bytes, 8);
        put_number(z, begin, 8);
        put(z, "PK\006\007", 4);
        put_zeros(z, 4);
        put_number(z, end64, 8);
        put_number(z, 1, 4);
    }
    z->end = z->len;
    put(z, "PK\005\006", 4);
    put_zeros(z, 4);
    put_number(z, z->zip64 ? UINT16_MAX : z->n, 2);
    put_number(z, z->zip64 ? UINT16_MAX : z->n, 2);
    put_number(z, z->zip64 ? UINT32_MAX : bytes, 4);
    put_number(z, z->zip64 ? UINT32_MAX : begin, 4);
    put_number(z, 0, 2);
}

void zip_build_free(struct zip_build *z)
{
    free(z->data);
    *z = (struct zip_build){0};
}
