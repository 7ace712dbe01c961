/* The directory of zip archives, with and without zip64. */
#include "tests/test.h"
#include "tests/weights/zip_build.h"
#include "weights/zip.h"

#include <stdlib.h>
#include <string.h>

static struct zip_build z;
static struct zip_entry *entries;
static size_t n_entries;

/* _i: with zip64? */
static void build(bool zip64)
{
    z.zip64 = zip64;
    zip_build_add(&z, "a/two", "xy", 2);
    zip_build_add(&z, "a/data/10", "0123456789", 10);
    zip_build_add(&z, "a/none", "", 0);
    zip_build_finish(&z);
}

static void forget(void)
{
    free(entries);
    entries = NULL;
    zip_build_free(&z);
}

static int read_it(char *err, size_t errlen)
{
    free(entries);
    err[0] = '\0';
    int rc = zip_read("FILE", z.data, z.len, &entries, &n_entries, err, errlen);
    if (rc) {
        ck_assert_ptr_null(entries);
        ck_assert_msg(strncmp(err, "FILE: ", 6) == 0 && !strchr(err, '\n') && !strchr(err, '\033'), "%s",
                      err);
    }
    return rc;
}

static void is_bad(const char *expected)
{
    char err[256];
    ck_assert_int_eq(read_it(err, sizeof err), -1);
    ck_assert_msg(strstr(err, expected) != NULL, "'%s' is not in: %s", expected, err);
}

START_TEST(good_archive)
{
    char err[256];
    build(_i == 1);
    ck_assert_msg(read_it(err, sizeof err) == 0, "%s", err);
    ck_assert_uint_eq(n_entries, 3);
    const struct zip_entry *e = zip_find(entries, n_entries, "a/", 2, "data/10", 7);
    ck_assert_ptr_nonnull(e);
    ck_assert_uint_eq(e->size, 10);
    ck_assert_mem_eq(z.data + e->offset, "0123456789", 10);
    e = zip_find(entries, n_entries, "a/", 2, "two", 3);
    ck_assert_mem_eq(z.data + e->offset, "xy", 2);
    ck_assert_uint_eq(zip_find(entries, n_entries, "a/none", 6, "", 0)->size, 0);
    ck_assert_ptr_null(zip_find(entries, n_entries, "a/", 2, "data/1", 6));
    ck_assert_ptr_null(zip_find(entries, n_entries, "a/", 2, "data/100", 8));
    ck_assert_ptr_null(zip_find(entries, n_entries, "b/", 2, "two", 3));
    ck_assert_ptr_null(zip_find(entries, n_entries, "a/two/and/more", 14, "", 0));
}
END_TEST

START_TEST(comment_behind_the_directory)
{
    char err[256];
    build(false);
    z.data = realloc(z.data, z.len + 70000);
    memset(z.data + z.len, 'c', 70000);
    memcpy(z.data + z.end + 20, (const uint8_t[]){0xff, 0xff}, 2);
    z.len += 65535;
    ck_assert_msg(read_it(err, sizeof err) == 0, "%s", err);
    z.len++;
    is_bad("without its directory");
}
END_TEST

static void set(size_t at, uint64_t v, size_t n_bytes)
{
    memcpy(z.data + at, &v, n_bytes);
}

START_TEST(bad_fields)
{
    build(false);
    set(z.central[1] + 10, 8, 2);
    is_bad("zip entry 'a/data/10' (byte 182) is compressed");
    set(z.central[1] + 10, 0, 2);
    set(z.central[1] + 20, 9, 4);
    is_bad("is compressed");
    set(z.central[1] + 20, 10, 4);
    set(z.central[1] + 8, 1, 2);
    is_bad("is encrypted");
    set(z.central[1] + 8, 0, 2);
    set(z.central[1] + 20, 2000, 4);
    set(z.central[1] + 24, 2000, 4);
    is_bad("runs past the end of the file");
    set(z.central[1] + 20, 10, 4);
    set(z.central[1] + 24, 10, 4);
    set(z.central[1] + 42, 1, 4);
    is_bad("no local header");
    set(z.central[1] + 42, 1 << 30, 4);
    is_bad("no local header");
    set(z.central[1] + 42, UINT32_MAX, 4);
    is_bad("zip64 field that does not fit");
    set(z.central[1] + 42, z.local[1], 4);
    set(z.local[1] + 28, 0xffff, 2);
    is_bad("runs past the end of the file");
    set(z.local[1] + 28, 3, 2);
    set(z.central[1] + 30, 500, 2);
    is_bad("runs past its end");
    set(z.central[1] + 30, 0, 2);
    set(z.central[1], 0, 4);
    is_bad("no entry of the zip directory at byte 182");
    memcpy(z.data + z.central[1], "PK\001\002", 4);
    memcpy(z.data + z.central[0] + 46, "a\033two", 5);
    set(z.central[0] + 10, 8, 2);
    is_bad("zip entry '?' (byte 131) is compressed");
    set(z.central[0] + 10, 0, 2);
    set(z.end + 10, 4, 2);
    is_bad("cannot hold 4 entries");
    set(z.end + 10, 3, 2);
    set(z.end + 16, z.end + 1, 4);
    is_bad("does not lie in the file");
    set(z.end + 16, z.central[0], 4);
    set(z.end + 12, z.len, 4);
    is_bad("does not lie in the file");
}
END_TEST

START_TEST(bad_zip64)
{
    build(true);
    set(z.end - 20 + 8, UINT64_MAX - 3, 8);
    is_bad("no zip64 end record at byte 18446744073709551612");
    set(z.end - 20 + 8, z.end - 76, 8);
    set(z.end - 76 + 48, UINT64_MAX, 8);
    is_bad("does not lie in the file");
    set(z.end - 76 + 48, z.central[0], 8);
    set(z.end - 76 + 32, UINT64_MAX / 2, 8);
    is_bad("cannot hold");
    set(z.end - 76 + 32, 3, 8);
    size_t extra = z.central[0] + 46 + 5;
    set(extra + 2, 0xffff, 2);
    is_bad("zip64 field that does not fit");
    set(extra + 2, 2, 2);
    set(extra + 8, 16, 2);
    is_bad("zip64 field that does not fit");
    set(extra + 8, 24, 2);
    set(extra + 10, UINT64_MAX, 8);
    set(extra + 18, UINT64_MAX, 8);
    is_bad("runs past the end of the file");
}
END_TEST

START_TEST(same_name_twice)
{
    zip_build_add(&z, "a", "1", 1);
    zip_build_add(&z, "b", "2", 1);
    zip_build_add(&z, "a", "3", 1);
    zip_build_finish(&z);
    is_bad("zip entry 'a' (byte 105) occurs twice");
}
END_TEST

static Suite *zip_suite(void)
{
    Suite *s = suite_create("weights/zip");
    TCase *tc = tcase_create("zip");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, NULL, forget);
    tcase_add_loop_test(tc, good_archive, 0, 2);
    tcase_add_test(tc, comment_behind_the_directory);
    tcase_add_test(tc, bad_fields);
    tcase_add_test(tc, bad_zip64);
    tcase_add_test(tc, same_name_twice);
    suite_add_tcase(s, tc);
    return s;
}

TEST_SUITE(zip_suite)
