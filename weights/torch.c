/* PyTorch checkpoints: the tensors of a state dict, as views into the file.
 *
 * Since 1.6 torch.save writes a zip archive: PREFIX/data.pkl is a pickle of the state dict, PREFIX/data/KEY
 * the bytes of storage KEY, PREFIX/byteorder, where present, says "little". Before, it wrote five pickles one
 * after the other (a magic number, a version, facts about the machine, the state dict, the list of storage
 * keys), then for every key of the list the number of its elements (i64) and their bytes.
 *
 * Either way a tensor is (storage, offset, size, stride), and only the data of contiguous ones can be lent.
 */
#include "quant/err.h"
#include "weights/pickle.h"
#include "weights/reader.h"
#include "weights/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PICKLE_BYTES = 64 << 20, MAX_DICT_DEPTH = 8, MAX_TENSOR_NAME = 256 };

/* Where a storage lies in the file. */
struct storage {
    const char *key;
    size_t key_len;
    uint64_t offset, bytes; /* offset 0: not there */
    uint64_t n;             /* elements */
};

struct reader {
    struct weights *w;
    int file;
    struct pickle p;
    struct zip_entry *entries; /* of an archive */
    size_t n_entries;
    const char *prefix;
    size_t prefix_len;
    struct storage *storages; /* of a file from before the archives, sorted by key */
    size_t n_storages;
    char *err;
    size_t errlen;
};

/* ---- Storages -------------------------------------------------------------------------------- */

static int compare_storages(const void *x, const void *y)
{
    const struct storage *a = x, *b = y;
    int c = memcmp(a->key, b->key, a->key_len < b->key_len ? a->key_len : b->key_len);
    return c ? c : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

/* False: the file has no such storage. */
static bool find_storage(const struct reader *r, struct storage *s)
{
    static const char folder[] = "data/";
    char name[64];
    if (r->entries) {
        if (s->key_len > sizeof name - sizeof folder)
            return false;
        memcpy(name, folder, sizeof folder - 1);
        memcpy(name + sizeof folder - 1, s->key, s->key_len);
        const struct zip_entry *e = zip_find(r->entries, r->n_entries, r->prefix, r->prefix_len, name,
                                             sizeof folder - 1 + s->key_len);
        if (e)
            *s =
                (struct storage){.key = s->key, .key_len = s->key_len, .offset = e->offset, .bytes = e->size};
        return e != NULL;
    }
    const struct storage *found =
        r->n_storages ? bsearch(s, r->storages, r->n_storages, sizeof *s, compare_storages) : NULL;
    if (found)
        *s = *found;
    return found && found->offset > 0;
}

static struct storage storage_named(const struct reader *r, const struct value *key)
{
    return (struct storage){.key = (const char *)r->p.data + key->at, .key_len = key->n};
}

/* ---- Tensors --------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int tensor_fault(const struct reader *r, const char *name,
                                                              const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return err_set(r->err, r->errlen, "%s: tensor '%.80s': %s", r->p.file, name, why);
}

/* The shape, checked to be that of rows that follow each other in the file. */
static int read_shape(const struct reader *r, const char *name, const struct value *size,
                      const struct value *stride, struct tensor *t)
{
    if (size->kind != VALUE_TUPLE || stride->kind != VALUE_TUPLE || size->n != stride->n)
        return tensor_fault(r, name, "its size and stride are no tuples of the same length");
    if (size->n > WEIGHTS_MAX_DIMS)
        return tensor_fault(r, name, "it has %" PRIu32 " dimensions, more than %d", size->n,
                            WEIGHTS_MAX_DIMS);
    t->n_dims = size->n > 0 ? (int)size->n : 1;
    int64_t expected = 1;
    bool contiguous = true, empty = false;
    for (uint32_t d = 0; d < size->n; d++) {
        const struct value *n = &pickle_items(&r->p, size)[size->n - 1 - d];
        const struct value *step = &pickle_items(&r->p, stride)[size->n - 1 - d];
        if (n->kind != VALUE_INT || n->i < 0 || step->kind != VALUE_INT)
            return tensor_fault(r, name, "its size or stride has something that is no size");
        t->dims[d] = n->i;
        empty = empty || n->i == 0;
        contiguous = contiguous && (n->i == 1 || step->i == expected);
        if (!empty && __builtin_mul_overflow(expected, n->i, &expected))
            return tensor_fault(r, name, "its shape is larger than any memory");
    }
    if (!contiguous && !empty)
        return tensor_fault(r, name,
                            "it is not contiguous (a transposed or sliced view): save it with .contiguous()");
    return 0;
}

/* Finds the tensor's bytes: element `first` of the storage on, which has `n` elements by the pickle. */
static int place_tensor(const struct reader *r, const char *name, const struct value *storage,
                        const struct value *first, int element_bytes, struct tensor *t)
{
    const struct value *id = pickle_items(&r->p, storage);
    const struct pickle_global *type = &pickle_globals[id[1].at];
    struct storage s = storage_named(r, &id[2]);
    int64_t n = id[4].i, bytes;
    char why[128];
    if (!find_storage(r, &s))
        return tensor_fault(r, name, "its storage is not in the file");
    if (n < 0 || __builtin_mul_overflow(n, (int64_t)type->bytes, &bytes) || (uint64_t)bytes > s.bytes)
        return tensor_fault(r, name,
                            "its storage of %" PRId64 " elements has only %" PRIu64 " bytes at byte %" PRIu64,
                            n, s.bytes, s.offset);
    int64_t skip;
    if (first->kind != VALUE_INT || first->i < 0 ||
        __builtin_mul_overflow(first->i, (int64_t)element_bytes, &skip) || skip > bytes)
        return tensor_fault(r, name, "it begins outside its storage of %" PRId64 " elements", n);
    if (weights_tensor_size(t, why, sizeof why))
        return tensor_fault(r, name, "%s", why);
    if (t->bytes > (uint64_t)(bytes - skip))
        return tensor_fault(
            r, name, "its shape takes %" PRIu64 " bytes, its storage has %" PRId64 " from where it begins",
            t->bytes, bytes - skip);
    t->offset = s.offset + (uint64_t)skip;
    t->data = r->p.data + t->offset;
    t->file = r->file;
    return 0;
}

static int add_tensor(const struct reader *r, const char *name, const struct value *v)
{
    struct tensor t = {.dims = {1, 1, 1, 1}};
    const struct value *arg = pickle_items(&r->p, v); /* storage, offset, size, stride, …, dtype */
    if (arg[0].kind != VALUE_STORAGE)
        return tensor_fault(r, name, "it has no storage");
    const struct pickle_global *type = &pickle_globals[pickle_items(&r->p, &arg[0])[1].at];
    if (type->bytes == 0)
        return tensor_fault(r, name, "its type %s is not supported", type->name);
    if (v->n > 4) {
        if (arg[6].kind != VALUE_GLOBAL || pickle_globals[arg[6].at].kind != GLOBAL_DTYPE)
            return tensor_fault(r, name, "its dtype is none");
        type = &pickle_globals[arg[6].at];
    }
    if (type->type == QTYPE_COUNT)
        return tensor_fault(r, name, "its type %s is not supported", type->name);
    t.type = type->type;
    if (read_shape(r, name, &arg[2], &arg[3], &t) || place_tensor(r, name, &arg[0], &arg[1], type->bytes, &t))
        return -1;
    if (r->w->n_tensors == WEIGHTS_MAX_TENSORS)
        return err_set(r->err, r->errlen, "%s: more than %d tensors", r->p.file, WEIGHTS_MAX_TENSORS);
    t.name = weights_copy_string(r->w, name, strlen(name));
    struct tensor *slot = weights_add_tensor(r->w);
    if (!slot || !t.name)
        return err_set(r->err, r->errlen, "%s: out of memory", r->p.file);
    *slot = t;
    return 0;
}

/* ---- The state dict -------------------------------------------------------------------------- */

/* Adds the tensors of a dict and of the dicts in it, each dict once, so that no sharing multiplies the work.
 * name[len] is the prefix, with its dot. Keys that are no strings belong to optimizers. */
static int walk(struct reader *r, const struct value *dict, char *name, size_t len, int depth)
{
    struct list *l = pickle_list(&r->p, dict);
    if (l->seen)
        return 0;
    l->seen = true;
    for (uint32_t i = l->first; i != UINT32_MAX; i = pickle_link(&r->p, i)->next) {
        const struct link *link = pickle_link(&r->p, i);
        const struct value *key = &link->key, *v = &link->value;
        if ((v->kind != VALUE_TENSOR && v->kind != VALUE_DICT) || key->kind != VALUE_STRING)
            continue;
        const char *text = (const char *)r->p.data + key->at;
        const char *fault = weights_name_fault(text, key->n);
        if (fault)
            return err_set(r->err, r->errlen, "%s: %s, byte %" PRIu64 ": the name of a tensor %s", r->p.file,
                           r->p.part, key->at - r->p.begin, fault);
        if (key->n + 1 > MAX_TENSOR_NAME - len)
            return err_set(r->err, r->errlen,
                           "%s: %s, byte %" PRIu64 ": the name of a tensor is longer than %d bytes",
                           r->p.file, r->p.part, key->at - r->p.begin, MAX_TENSOR_NAME);
        memcpy(name + len, text, key->n);
        name[len + key->n] = '\0';
        if (v->kind == VALUE_TENSOR) {
            if (add_tensor(r, name, v))
                return -1;
        } else if (depth < MAX_DICT_DEPTH) {
            name[len + key->n] = '.';
            if (walk(r, v, name, len + key->n + 1, depth + 1))
                return -1;
        }
    }
    return 0;
}

static int add_tensors(struct reader *r, const struct value *root)
{
    char name[MAX_TENSOR_NAME + 1];
    size_t before = r->w->n_tensors;
    if (root->kind != VALUE_DICT)
        return err_set(r->err, r->errlen, "%s: %s: holds no dict of tensors", r->p.file, r->p.part);
    if (walk(r, root, name, 0, 0))
        return -1;
    if (r->w->n_tensors == before)
        return err_set(r->err, r->errlen, "%s: %s: its dict holds no tensor", r->p.file, r->p.part);
    return 0;
}

/* ---- Zip archives ---------------------------------------------------------------------------- */

static const struct zip_entry *find_entry(const struct reader *r, const char *name)
{
    return zip_find(r->entries, r->n_entries, r->prefix, r->prefix_len, name, strlen(name));
}

static int find_prefix(struct reader *r)
{
    static const char pkl[] = "data.pkl";
    const size_t len = sizeof pkl - 1;
    for (size_t i = 0; i < r->n_entries; i++) {
        const struct zip_entry *e = &r->entries[i];
        if (e->name_len <= len || memcmp(e->name + e->name_len - len, pkl, len) != 0)
            continue;
        const char *slash = memchr(e->name, '/', e->name_len);
        if (!slash || slash + 1 != e->name + e->name_len - len)
            continue;
        r->prefix = e->name;
        r->prefix_len = e->name_len - len;
        return 0;
    }
    return err_set(r->err, r->errlen, "%s: is a zip archive without a data.pkl: no PyTorch checkpoint",
                   r->p.file);
}

static int read_archive(struct reader *r)
{
    if (zip_read(r->p.file, r->p.data, r->w->file[r->file].size, &r->entries, &r->n_entries, r->err,
                 r->errlen) ||
        find_prefix(r))
        return -1;
    const struct zip_entry *pkl = find_entry(r, "data.pkl"), *order = find_entry(r, "byteorder");
    if (order && (order->size < 6 || memcmp(r->p.data + order->offset, "little", 6) != 0))
        return err_set(r->err, r->errlen, "%s: its byteorder (byte %" PRIu64 ") is not little", r->p.file,
                       order->offset);
    if (pkl->size > MAX_PICKLE_BYTES)
        return err_set(r->err, r->errlen, "%s: data.pkl has %" PRIu64 " bytes, more than %d", r->p.file,
                       pkl->size, MAX_PICKLE_BYTES);
    struct value root;
    r->p.part = "data.pkl";
    r->p.begin = r->p.pos = pkl->offset;
    r->p.end = pkl->offset + pkl->size;
    return pickle_run(&r->p, &root) || add_tensors(r, &root) ? -1 : 0;
}

/* ---- Files from before the archives ---------------------------------------------------------- */

/* The pickle of the number with which such a file begins. */
static const uint8_t old_magic[15] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                                      0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

static bool is_old(const struct mapped_file *f)
{
    return f->size >= sizeof old_magic && memcmp(f->data, old_magic, sizeof old_magic) == 0;
}

static bool is_zip(const struct mapped_file *f)
{
    return f->size >= 4 && memcmp(f->data, "PK\003\004", 4) == 0;
}

bool torch_is(const struct mapped_file *f)
{
    return is_old(f) || is_zip(f);
}

/* Runs the pickle at pos. */
static int run_next(struct reader *r, struct value *result)
{
    uint64_t left = r->w->file[r->file].size - r->p.pos;
    r->p.end = r->p.pos + (left < MAX_PICKLE_BYTES ? left : MAX_PICKLE_BYTES);
    return pickle_run(&r->p, result);
}

static bool says_big_endian(const struct reader *r, const struct value *facts)
{
    static const char key[] = "little_endian";
    if (facts->kind != VALUE_DICT)
        return false;
    for (uint32_t i = pickle_list(&r->p, facts)->first; i != UINT32_MAX; i = pickle_link(&r->p, i)->next) {
        const struct link *link = pickle_link(&r->p, i);
        if (link->key.kind == VALUE_STRING && link->key.n == sizeof key - 1 &&
            memcmp(r->p.data + link->key.at, key, sizeof key - 1) == 0)
            return link->value.kind != VALUE_INT || link->value.i == 0;
    }
    return false;
}

/* Every storage that the state dict refers to, once, without its place. */
static int list_storages(struct reader *r)
{
    const struct value *met = r->p.storages.p;
    r->storages = calloc(r->p.storages.n + 1, sizeof *r->storages);
    if (!r->storages)
        return err_set(r->err, r->errlen, "%s: out of memory", r->p.file);
    for (size_t i = 0; i < r->p.storages.n; i++) {
        const struct value *id = pickle_items(&r->p, &met[i]);
        r->storages[i] = storage_named(r, &id[2]);
        r->storages[i].n = (uint64_t)id[4].i;
        if (id[4].i < 0 || __builtin_mul_overflow(r->storages[i].n, (uint64_t)pickle_globals[id[1].at].bytes,
                                                  &r->storages[i].bytes))
            return err_set(r->err, r->errlen, "%s: %s, byte %" PRIu64 ": a storage larger than any memory",
                           r->p.file, r->p.part, id[2].at);
    }
    if (r->p.storages.n > 0)
        qsort(r->storages, r->p.storages.n, sizeof *r->storages, compare_storages);
    for (size_t i = 0; i < r->p.storages.n; i++)
        if (r->n_storages == 0 || compare_storages(&r->storages[r->n_storages - 1], &r->storages[i]) != 0)
            r->storages[r->n_storages++] = r->storages[i];
    return 0;
}

/* Follows the list of keys and the storages behind it. */
static int place_storages(struct reader *r, const struct value *keys)
{
    uint64_t size = r->w->file[r->file].size, n;
    if (keys->kind != VALUE_LIST)
        return err_set(r->err, r->errlen, "%s: no list of storages before byte %" PRIu64, r->p.file,
                       r->p.pos);
    for (uint32_t i = pickle_list(&r->p, keys)->first; i != UINT32_MAX; i = pickle_link(&r->p, i)->next) {
        const struct value *key = &pickle_link(&r->p, i)->value;
        struct storage want = {0}, *s = NULL;
        if (key->kind == VALUE_STRING) {
            want = storage_named(r, key);
            s = r->n_storages ? bsearch(&want, r->storages, r->n_storages, sizeof *s, compare_storages)
                              : NULL;
        }
        if (!s)
            return err_set(r->err, r->errlen, "%s: the storage at byte %" PRIu64 " belongs to no tensor",
                           r->p.file, r->p.pos);
        if (sizeof n > size - r->p.pos)
            return err_set(r->err, r->errlen, "%s: cut short: no storage at byte %" PRIu64, r->p.file,
                           r->p.pos);
        memcpy(&n, r->p.data + r->p.pos, sizeof n);
        if (n != s->n)
            return err_set(r->err, r->errlen,
                           "%s: the storage at byte %" PRIu64 " has %" PRIu64
                           " elements, its tensors say %" PRIu64,
                           r->p.file, r->p.pos, n, s->n);
        s->offset = r->p.pos + sizeof n;
        if (s->bytes > size - s->offset)
            return err_set(r->err, r->errlen,
                           "%s: cut short: the storage of %" PRIu64 " bytes at byte %" PRIu64
                           " runs past the end",
                           r->p.file, s->bytes, s->offset);
        r->p.pos = s->offset + s->bytes;
    }
    return 0;
}

static int read_old(struct reader *r)
{
    struct value version, facts, root, keys;
    r->p.part = "pickle";
    r->p.pos = sizeof old_magic;
    if (run_next(r, &version) || run_next(r, &facts))
        return -1;
    if (version.kind != VALUE_INT || version.i != 1001)
        return err_set(r->err, r->errlen, "%s: is not of version 1001 (byte %zu)", r->p.file,
                       sizeof old_magic);
    if (says_big_endian(r, &facts))
        return err_set(r->err, r->errlen, "%s: was written on a big-endian machine (before byte %" PRIu64 ")",
                       r->p.file, r->p.pos);
    if (run_next(r, &root) || list_storages(r) || run_next(r, &keys) || place_storages(r, &keys))
        return -1;
    return add_tensors(r, &root);
}

/* ---------------------------------------------------------------------------------------------- */

int torch_read(struct weights *w, int file, char *err, size_t errlen)
{
    struct mapped_file *f = &w->file[file];
    struct reader r = {.w = w, .file = file, .err = err, .errlen = errlen};
    r.p = (struct pickle){.file = f->name, .data = f->data, .err = err, .errlen = errlen};
    f->shared = true;
    if (!w->folder)
        w->format = "PyTorch";
    int rc = is_old(f)   ? read_old(&r)
             : is_zip(f) ? read_archive(&r)
                         : err_set(err, errlen, "%s: is no PyTorch checkpoint (byte 0)", f->name);
    pickle_free(&r.p);
    free(r.entries);
    free(r.storages);
    return rc;
}
