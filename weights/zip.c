/* Zip archives, zip64 too (PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 to 4.3.16):
 *
 *     { local header, name, extra, bytes } …  { central header, name, extra, comment } …
 *     [zip64 end record, zip64 locator] end record, comment
 *
 * Only the central directory is believed; the local headers say where their bytes begin. Checksums are not
 * looked at: that would read every weight once. */
#include "weights/zip.h"
#include "quant/err.h"
#include "weights/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    MAX_COMMENT_BYTES = 65535,
    MAX_ENTRIES = 1 << 21,
    STORED = 0,
    FLAG_ENCRYPTED = 1,
    EXTRA_ZIP64 = 1
};

struct archive {
    const char *path;
    const uint8_t *data;
    uint64_t size;
    char *err;
    size_t errlen;
};

struct directory {
    uint64_t offset, size, n;
};

static uint64_t number(const uint8_t *p, unsigned n_bytes)
{
    uint64_t v = 0;
    memcpy(&v, p, n_bytes);
    return v;
}

static bool has_magic(const struct archive *a, uint64_t at, uint64_t n, const char *magic)
{
    return at <= a->size && n <= a->size - at && memcmp(a->data + at, magic, 4) == 0;
}

/* ---- Where the directory is ------------------------------------------------------------------ */

static int find_directory(const struct archive *a, struct directory *d)
{
    uint64_t end = UINT64_MAX;
    for (uint64_t back = END_BYTES; back <= a->size && back <= END_BYTES + MAX_COMMENT_BYTES; back++) {
        uint64_t at = a->size - back;
        if (has_magic(a, at, END_BYTES, "PK\005\006") && number(a->data + at + 20, 2) == back - END_BYTES) {
            end = at;
            break;
        }
    }
    if (end == UINT64_MAX)
        return err_set(a->err, a->errlen,
                       "%s: cut short: a zip archive without its directory (none before byte %" PRIu64 ")",
                       a->path, a->size);
    const uint8_t *p = a->data + end;
    *d = (struct directory){.n = number(p + 10, 2), .size = number(p + 12, 4), .offset = number(p + 16, 4)};
    if (end >= LOCATOR_BYTES && has_magic(a, end - LOCATOR_BYTES, LOCATOR_BYTES, "PK\006\007")) {
        uint64_t end64 = number(a->data + end - LOCATOR_BYTES + 8, 8);
        if (!has_magic(a, end64, END64_BYTES, "PK\006\006"))
            return err_set(a->err, a->errlen, "%s: no zip64 end record at byte %" PRIu64, a->path, end64);
        p = a->data + end64;
        *d = (struct directory){
            .n = number(p + 32, 8), .size = number(p + 40, 8), .offset = number(p + 48, 8)};
    }
    if (d->offset > end || d->size > end - d->offset)
        return err_set(a->err, a->errlen,
                       "%s: its zip directory (%" PRIu64 " bytes at byte %" PRIu64
                       ") does not lie in the file",
                       a->path, d->size, d->offset);
    if (d->n > d->size / CENTRAL_BYTES || d->n > MAX_ENTRIES)
        return err_set(a->err, a->errlen,
                       "%s: its zip directory of %" PRIu64 " bytes cannot hold %" PRIu64 " entries", a->path,
                       d->size, d->n);
    return 0;
}

/* ---- Entries --------------------------------------------------------------------------------- */

/* Replaces the values that stand for "see the zip64 field" by those. */
static int read_zip64(const uint8_t *extra, uint64_t len, uint64_t *const value[3])
{
    bool wanted = *value[0] == UINT32_MAX || *value[1] == UINT32_MAX || *value[2] == UINT32_MAX;
    for (uint64_t at = 0; wanted && len - at >= 4;) {
        uint64_t id = number(extra + at, 2), n = number(extra + at + 2, 2);
        at += 4;
        if (n > len - at)
            return -1;
        if (id != EXTRA_ZIP64) {
            at += n;
            continue;
        }
        for (int i = 0; i < 3; i++) {
            if (*value[i] != UINT32_MAX)
                continue;
            if (n < 8)
                return -1;
            *value[i] = number(extra + at, 8);
            at += 8;
            n -= 8;
        }
        return 0;
    }
    return wanted ? -1 : 0;
}

static int entry_fault(const struct archive *a, const struct zip_entry *e, uint64_t at, const char *what)
{
    bool printable = e->name_len <= 200 && !weights_name_fault(e->name, e->name_len);
    return err_set(a->err, a->errlen, "%s: zip entry '%.*s' (byte %" PRIu64 ") %s", a->path,
                   printable ? (int)e->name_len : 1, printable ? e->name : "?", at, what);
}

/* The entry whose central header is at *at, which moves behind it. */
static int read_entry(const struct archive *a, uint64_t *at, uint64_t end, struct zip_entry *e)
{
    uint64_t header = *at, local;
    if (end - header < CENTRAL_BYTES || !has_magic(a, header, CENTRAL_BYTES, "PK\001\002"))
        return err_set(a->err, a->errlen, "%s: no entry of the zip directory at byte %" PRIu64, a->path,
                       header);
    const uint8_t *p = a->data + header;
    uint64_t flags = number(p + 8, 2), method = number(p + 10, 2), packed = number(p + 20, 4);
    uint64_t name_len = number(p + 28, 2), extra_len = number(p + 30, 2), comment_len = number(p + 32, 2);
    if (name_len + extra_len + comment_len > end - header - CENTRAL_BYTES)
        return err_set(a->err, a->errlen,
                       "%s: the entry of the zip directory at byte %" PRIu64 " runs past its end", a->path,
                       header);
    *e = (struct zip_entry){(const char *)p + CENTRAL_BYTES, (size_t)name_len, 0, number(p + 24, 4)};
    local = number(p + 42, 4);
    *at += CENTRAL_BYTES + name_len + extra_len + comment_len;
    if (read_zip64(p + CENTRAL_BYTES + name_len, extra_len, (uint64_t *const[]){&e->size, &packed, &local}))
        return entry_fault(a, e, header, "has a zip64 field that does not fit");
    if (flags & FLAG_ENCRYPTED)
        return entry_fault(a, e, header, "is encrypted");
    if (method != STORED || packed != e->size)
        return entry_fault(a, e, header,
                           "is compressed, which torch.save does not do: unpack the archive and zip it "
                           "again without compression (zip -0)");
    if (!has_magic(a, local, LOCAL_BYTES, "PK\003\004"))
        return entry_fault(a, e, header, "has no local header where the directory says");
    uint64_t skip = LOCAL_BYTES + number(a->data + local + 26, 2) + number(a->data + local + 28, 2);
    if (skip > a->size - local || e->size > a->size - local - skip)
        return entry_fault(a, e, header, "runs past the end of the file");
    e->offset = local + skip;
    return 0;
}

static int compare_entries(const void *x, const void *y)
{
    const struct zip_entry *a = x, *b = y;
    int c = memcmp(a->name, b->name, a->name_len < b->name_len ? a->name_len : b->name_len);
    return c ? c : (a->name_len > b->name_len) - (a->name_len < b->name_len);
}

int zip_read(const char *path, const uint8_t *data, uint64_t size, struct zip_entry **entries, size_t *n,
             char *err, size_t errlen)
{
    struct archive a = {path, data, size, err, errlen};
    struct directory d = {0};
    *entries = NULL;
    *n = 0;
    if (find_directory(&a, &d))
        return -1;
    struct zip_entry *list = calloc((size_t)d.n + 1, sizeof *list);
    if (!list)
        return err_set(err, errlen, "%s: out of memory", path);
    uint64_t at = d.offset, end = d.offset + d.size;
    int rc = 0;
    for (uint64_t i = 0; i < d.n && rc == 0; i++)
        rc = read_entry(&a, &at, end, &list[i]);
    if (rc == 0)
        qsort(list, (size_t)d.n, sizeof *list, compare_entries);
    for (uint64_t i = 1; i < d.n && rc == 0; i++)
        if (compare_entries(&list[i - 1], &list[i]) == 0)
            rc = entry_fault(&a, &list[i], d.offset, "occurs twice");
    if (rc) {
        free(list);
        return -1;
    }
    *entries = list;
    *n = (size_t)d.n;
    return 0;
}

const struct zip_entry *zip_find(const struct zip_entry *entries, size_t n, const char *prefix,
                                 size_t prefix_len, const char *name, size_t name_len)
{
    size_t lo = 0, hi = n;
    while (lo < hi) { /* the name is in two parts: no bsearch */
        size_t mid = lo + (hi - lo) / 2;
        const struct zip_entry *e = &entries[mid];
        struct zip_entry head = {e->name, e->name_len < prefix_len ? e->name_len : prefix_len, 0, 0};
        struct zip_entry tail = {e->name + head.name_len, e->name_len - head.name_len, 0, 0};
        int c = compare_entries(&head, &(struct zip_entry){prefix, prefix_len, 0, 0});
        if (c == 0)
            c = compare_entries(&tail, &(struct zip_entry){name, name_len, 0, 0});
        if (c == 0)
            return e;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}
