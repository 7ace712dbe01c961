/* Python's pickle format, protocols 2 to 5, as far as torch.save uses it for state dicts (opcodes: CPython's
 * Lib/pickletools.py; globals: torch/_utils.py and torch/_weights_only_unpickler.py). */
#include "weights/pickle.h"
#include "quant/err.h"
#include "weights/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A tensor takes about 18 items, one link and six entries of the memo. Python writes dicts and lists in
 * batches of 1000, which bounds the stack. */
enum {
    MAX_STACK = 1 << 17,
    MAX_ITEMS = 1 << 22,
    MAX_MEMO = 1 << 22,
    MAX_LISTS = 1 << 19,
    MAX_LINKS = 1 << 19,
    MAX_GLOBAL_BYTES = 128
};

#define STORAGE(name, type, bytes)                  \
    {                                               \
        "torch", #name, GLOBAL_STORAGE, type, bytes \
    }
#define DTYPE(name, type, bytes)                  \
    {                                             \
        "torch", #name, GLOBAL_DTYPE, type, bytes \
    }
#define REFUSED(name, kind)                  \
    {                                        \
        "torch", #name, kind, QTYPE_COUNT, 0 \
    }

const struct pickle_global pickle_globals[] = {
    {"collections", "OrderedDict", GLOBAL_DICT, QTYPE_COUNT, 0},
    {"torch._utils", "_rebuild_tensor", GLOBAL_TENSOR, QTYPE_COUNT, 0},
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_TENSOR, QTYPE_COUNT, 0},
    {"torch._utils", "_rebuild_tensor_v3", GLOBAL_TENSOR_V3, QTYPE_COUNT, 0},
    {"torch._utils", "_rebuild_parameter", GLOBAL_PARAMETER, QTYPE_COUNT, 0},
    {"torch._utils", "_rebuild_parameter_with_state", GLOBAL_PARAMETER, QTYPE_COUNT, 0},
    {"torch", "Size", GLOBAL_SIZE, QTYPE_COUNT, 0},
    STORAGE(FloatStorage, QTYPE_F32, 4),
    STORAGE(HalfStorage, QTYPE_F16, 2),
    STORAGE(BFloat16Storage, QTYPE_BF16, 2),
    STORAGE(DoubleStorage, QTYPE_F64, 8),
    STORAGE(CharStorage, QTYPE_I8, 1),
    STORAGE(ByteStorage, QTYPE_I8, 1),
    STORAGE(BoolStorage, QTYPE_I8, 1),
    STORAGE(ShortStorage, QTYPE_I16, 2),
    STORAGE(IntStorage, QTYPE_I32, 4),
    STORAGE(LongStorage, QTYPE_I64, 8),
    STORAGE(UntypedStorage, QTYPE_COUNT, 1),
    {"torch.storage", "UntypedStorage", GLOBAL_STORAGE, QTYPE_COUNT, 1},
    REFUSED(ComplexFloatStorage, GLOBAL_STORAGE),
    REFUSED(ComplexDoubleStorage, GLOBAL_STORAGE),
    REFUSED(QInt8Storage, GLOBAL_STORAGE),
    REFUSED(QUInt8Storage, GLOBAL_STORAGE),
    REFUSED(QInt32Storage, GLOBAL_STORAGE),
    DTYPE(float32, QTYPE_F32, 4),
    DTYPE(float16, QTYPE_F16, 2),
    DTYPE(bfloat16, QTYPE_BF16, 2),
    DTYPE(float64, QTYPE_F64, 8),
    DTYPE(int8, QTYPE_I8, 1),
    DTYPE(uint8, QTYPE_I8, 1),
    DTYPE(bool, QTYPE_I8, 1),
    DTYPE(int16, QTYPE_I16, 2),
    DTYPE(uint16, QTYPE_I16, 2),
    DTYPE(int32, QTYPE_I32, 4),
    DTYPE(uint32, QTYPE_I32, 4),
    DTYPE(int64, QTYPE_I64, 8),
    DTYPE(uint64, QTYPE_I64, 8),
    REFUSED(float8_e4m3fn, GLOBAL_DTYPE),
    REFUSED(float8_e4m3fnuz, GLOBAL_DTYPE),
    REFUSED(float8_e5m2, GLOBAL_DTYPE),
    REFUSED(float8_e5m2fnuz, GLOBAL_DTYPE),
    REFUSED(complex64, GLOBAL_DTYPE),
    REFUSED(complex128, GLOBAL_DTYPE),
    {NULL, NULL, GLOBAL_DICT, QTYPE_COUNT, 0},
};

/* ---- Bytes, stack, memory -------------------------------------------------------------------- */

/* The place of an error is that of the opcode at `at`. */
__attribute__((format(printf, 3, 4))) static int fault(const struct pickle *p, uint64_t at, const char *fmt,
                                                       ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return err_set(p->err, p->errlen, "%s: %s, byte %" PRIu64 ": %s", p->file, p->part, at - p->begin, why);
}

static const uint8_t *take(struct pickle *p, uint64_t n)
{
    if (n > p->end - p->pos) {
        fault(p, p->pos, "it ends here, %" PRIu64 " more bytes should follow", n);
        return NULL;
    }
    const uint8_t *bytes = p->data + p->pos;
    p->pos += n;
    return bytes;
}

/* A little-endian number of n ≤ 8 bytes. */
static int take_number(struct pickle *p, unsigned n, uint64_t *v)
{
    const uint8_t *bytes = take(p, n);
    *v = 0;
    if (!bytes)
        return -1;
    memcpy(v, bytes, n);
    return 0;
}

/* Room for elements up to index n - 1; new ones are zero. */
static int grow(const struct pickle *p, struct array *a, size_t n, size_t size, size_t max, const char *what)
{
    if (n > max)
        return fault(p, p->pos, "more than %zu %s", max, what);
    if (n > a->cap) {
        size_t cap = a->cap ? a->cap : 256;
        while (cap < n)
            cap *= 2;
        void *mem = realloc(a->p, cap * size);
        if (!mem)
            return fault(p, p->pos, "out of memory");
        memset((char *)mem + a->cap * size, 0, (cap - a->cap) * size);
        a->p = mem;
        a->cap = cap;
    }
    return 0;
}

static int push(struct pickle *p, struct value v)
{
    if (grow(p, &p->stack, p->stack.n + 1, sizeof v, MAX_STACK, "values on the stack"))
        return -1;
    ((struct value *)p->stack.p)[p->stack.n++] = v;
    return 0;
}

static int push_simple(struct pickle *p, enum value_kind kind, int64_t i)
{
    return push(p, (struct value){.kind = kind, .i = i});
}

static struct value *top(const struct pickle *p, size_t below)
{
    return p->stack.n > below ? (struct value *)p->stack.p + (p->stack.n - 1 - below) : NULL;
}

static int pop(struct pickle *p, struct value *v)
{
    const struct value *t = top(p, 0);
    if (!t || t->kind == VALUE_MARK)
        return fault(p, p->pos, "nothing on the stack to use");
    *v = *t;
    p->stack.n--;
    return 0;
}

/* Values above the topmost mark. Each operation that looks for a mark also removes what it walked over. */
static int count_to_mark(const struct pickle *p, size_t *n)
{
    for (*n = 0;; ++*n) {
        const struct value *t = top(p, *n);
        if (!t)
            return fault(p, p->pos, "no mark on the stack");
        if (t->kind == VALUE_MARK)
            return 0;
    }
}

/* ---- Containers ------------------------------------------------------------------------------ */

/* The n topmost values become a tuple. */
static int make_tuple(struct pickle *p, size_t n, bool mark)
{
    struct value v = {.kind = VALUE_TUPLE, .n = (uint32_t)n, .at = p->items.n};
    for (size_t i = 0; i < n; i++)
        if (!top(p, i) || top(p, i)->kind == VALUE_MARK)
            return fault(p, p->pos, "nothing on the stack to use");
    if (n > 0) {
        if (grow(p, &p->items, p->items.n + n, sizeof v, MAX_ITEMS, "values in tuples"))
            return -1;
        memcpy((struct value *)p->items.p + p->items.n, top(p, n - 1), n * sizeof v);
        p->items.n += n;
    }
    p->stack.n -= n + mark;
    return push(p, v);
}

static int make_list(struct pickle *p, enum value_kind kind)
{
    if (grow(p, &p->lists, p->lists.n + 1, sizeof(struct list), MAX_LISTS, "lists and dicts"))
        return -1;
    ((struct list *)p->lists.p)[p->lists.n] = (struct list){UINT32_MAX, UINT32_MAX, false};
    return push(p, (struct value){.kind = kind, .at = p->lists.n++});
}

static int add_link(struct pickle *p, struct list *l, struct value key, struct value value)
{
    if (grow(p, &p->links, p->links.n + 1, sizeof(struct link), MAX_LINKS, "values in lists and dicts"))
        return -1;
    struct link *links = p->links.p;
    uint32_t i = (uint32_t)p->links.n++;
    links[i] = (struct link){key, value, UINT32_MAX};
    *(l->last == UINT32_MAX ? &l->first : &links[l->last].next) = i;
    l->last = i;
    return 0;
}

/* Moves the n topmost values into the list or dict below them (and below a mark). */
static int add_items(struct pickle *p, enum value_kind kind, size_t n, bool mark)
{
    bool dict = kind == VALUE_DICT;
    const struct value *v = top(p, n + mark);
    if (!v || v->kind != kind)
        return fault(p, p->pos, "no %s on the stack to add to", dict ? "dict" : "list");
    if (dict && n % 2 != 0)
        return fault(p, p->pos, "a key without a value");
    struct list *l = pickle_list(p, v);
    const struct value *item = v + 1 + mark;
    for (size_t i = 0; i < n; i++)
        if (item[i].kind == VALUE_MARK)
            return fault(p, p->pos, "nothing on the stack to use");
    for (size_t i = 0; i < n; i += dict ? 2 : 1)
        if (add_link(p, l, dict ? item[i] : (struct value){.kind = VALUE_OTHER}, item[i + dict]))
            return -1;
    p->stack.n -= n + mark;
    return 0;
}

/* ---- Globals, and what is made of them ------------------------------------------------------- */

static int find_global(struct pickle *p, uint64_t at, const char *module, size_t module_len, const char *name,
                       size_t name_len)
{
    for (size_t i = 0; pickle_globals[i].name; i++) {
        const struct pickle_global *g = &pickle_globals[i];
        if (strlen(g->module) == module_len && memcmp(g->module, module, module_len) == 0 &&
            strlen(g->name) == name_len && memcmp(g->name, name, name_len) == 0)
            return push(p, (struct value){.kind = VALUE_GLOBAL, .at = i});
    }
    if (weights_name_fault(module, module_len) || weights_name_fault(name, name_len) ||
        module_len > MAX_GLOBAL_BYTES || name_len > MAX_GLOBAL_BYTES / 2)
        return fault(p, at, "a global of this name is not allowed");
    return fault(p, at, "global '%.*s.%.*s' is not allowed", (int)module_len, module, (int)name_len, name);
}

/* GLOBAL: two lines of text. */
static int take_global(struct pickle *p, uint64_t at)
{
    const char *line[2];
    size_t len[2];
    for (int i = 0; i < 2; i++) {
        line[i] = (const char *)p->data + p->pos;
        const char *end = memchr(line[i], '\n', (size_t)(p->end - p->pos));
        if (!end)
            return fault(p, at, "the name of a global has no end");
        len[i] = (size_t)(end - line[i]);
        p->pos += len[i] + 1;
    }
    return find_global(p, at, line[0], len[0], line[1], len[1]);
}

static int stack_global(struct pickle *p, uint64_t at)
{
    struct value name = {0}, module = {0};
    if (pop(p, &name) || pop(p, &module))
        return -1;
    if (name.kind != VALUE_STRING || module.kind != VALUE_STRING)
        return fault(p, at, "the name of a global is no string");
    return find_global(p, at, (const char *)p->data + module.at, module.n, (const char *)p->data + name.at,
                       name.n);
}

/* Calls a global, which means: the arguments stand for the result. */
static int reduce(struct pickle *p, uint64_t at)
{
    struct value args = {0}, f = {0};
    if (pop(p, &args) || pop(p, &f))
        return -1;
    if (f.kind != VALUE_GLOBAL || args.kind != VALUE_TUPLE)
        return fault(p, at, "a call of something that is no global, or without arguments");
    const struct pickle_global *g = &pickle_globals[f.at];
    const struct value *arg = pickle_items(p, &args);
    switch (g->kind) {
    case GLOBAL_DICT:
        if (args.n == 0)
            return make_list(p, VALUE_DICT);
        break;
    case GLOBAL_TENSOR:
        /* Storage, offset, size, stride; the dtype is the storage's. */
        if (args.n >= 4)
            return push(p, (struct value){.kind = VALUE_TENSOR, .n = 4, .at = args.at});
        break;
    case GLOBAL_TENSOR_V3:
        if (args.n >= 7)
            return push(p, (struct value){.kind = VALUE_TENSOR, .n = 7, .at = args.at});
        break;
    case GLOBAL_PARAMETER:
        if (args.n >= 1 && arg[0].kind == VALUE_TENSOR)
            return push(p, arg[0]);
        break;
    case GLOBAL_SIZE:
        if (args.n == 1 && arg[0].kind == VALUE_TUPLE)
            return push(p, arg[0]);
        break;
    case GLOBAL_STORAGE:
    case GLOBAL_DTYPE:
        break;
    }
    return fault(p, at, "'%s.%s' is called with arguments that do not fit it", g->module, g->name);
}

static int persistent_id(struct pickle *p, uint64_t at)
{
    struct value v = {0};
    if (pop(p, &v))
        return -1;
    const struct value *e = v.kind == VALUE_TUPLE && v.n >= 5 ? pickle_items(p, &v) : NULL;
    if (!e || e[0].kind != VALUE_STRING || e[0].n != 7 || memcmp(p->data + e[0].at, "storage", 7) != 0 ||
        e[1].kind != VALUE_GLOBAL || pickle_globals[e[1].at].kind != GLOBAL_STORAGE ||
        e[2].kind != VALUE_STRING || e[4].kind != VALUE_INT || (v.n > 5 && e[5].kind != VALUE_OTHER))
        return fault(p, at, "a persistent id that is no storage of tensors");
    v.kind = VALUE_STORAGE;
    if (grow(p, &p->storages, p->storages.n + 1, sizeof v, MAX_ITEMS, "storages"))
        return -1;
    ((struct value *)p->storages.p)[p->storages.n++] = v;
    return push(p, v);
}

/* Attributes of dicts and tensors say nothing about the weights. */
static int build(struct pickle *p, uint64_t at)
{
    struct value state = {0};
    if (pop(p, &state))
        return -1;
    const struct value *t = top(p, 0);
    return t && (t->kind == VALUE_DICT || t->kind == VALUE_TENSOR)
               ? 0
               : fault(p, at, "attributes for something that is no dict or tensor");
}

/* ---- Constants and the memo ------------------------------------------------------------------ */

static int take_string(struct pickle *p, unsigned length_bytes, enum value_kind kind)
{
    uint64_t len;
    if (take_number(p, length_bytes, &len))
        return -1;
    uint64_t at = p->pos;
    if (!take(p, len))
        return -1;
    return push(p, (struct value){.kind = kind, .n = (uint32_t)len, .at = at});
}

static int take_int(struct pickle *p, unsigned n_bytes, bool is_signed)
{
    uint64_t v;
    if (take_number(p, n_bytes, &v))
        return -1;
    unsigned unused = 64 - 8 * n_bytes; /* n_bytes > 0 */
    return push_simple(p, VALUE_INT, is_signed ? (int64_t)(v << unused) >> unused : (int64_t)v);
}

/* LONG1: a count of bytes and that many of them, two's complement. */
static int take_long(struct pickle *p)
{
    uint64_t n;
    if (take_number(p, 1, &n))
        return -1;
    if (n == 0)
        return push_simple(p, VALUE_INT, 0);
    if (n <= 8)
        return take_int(p, (unsigned)n, true);
    return take(p, n) ? push_simple(p, VALUE_OTHER, 0) : -1;
}

static int memo_put(struct pickle *p, uint64_t i)
{
    const struct value *t = top(p, 0);
    if (!t || t->kind == VALUE_MARK)
        return fault(p, p->pos, "nothing on the stack to remember");
    if (i >= MAX_MEMO)
        return fault(p, p->pos, "more than %d values to remember", MAX_MEMO);
    if (grow(p, &p->memo, (size_t)i + 1, sizeof *t, MAX_MEMO, "values to remember"))
        return -1;
    ((struct value *)p->memo.p)[i] = *top(p, 0);
    if (i >= p->memo.n)
        p->memo.n = (size_t)i + 1;
    return 0;
}

static int take_memo_put(struct pickle *p, unsigned n_bytes)
{
    uint64_t i;
    return take_number(p, n_bytes, &i) ? -1 : memo_put(p, i);
}

static int take_memo_get(struct pickle *p, unsigned n_bytes)
{
    uint64_t i;
    if (take_number(p, n_bytes, &i))
        return -1;
    const struct value *memo = p->memo.p;
    if (i >= p->memo.n || memo[i].kind == VALUE_UNSET)
        return fault(p, p->pos, "no value was remembered as number %" PRIu64, i);
    return push(p, memo[i]);
}

/* ---- Running --------------------------------------------------------------------------------- */

static int take_protocol(struct pickle *p, uint64_t at)
{
    uint64_t v;
    if (take_number(p, 1, &v))
        return -1;
    return v >= 2 && v <= 5 ? 0 : fault(p, at, "pickle protocol %" PRIu64 " is not one of 2 to 5", v);
}

static int take_frame(struct pickle *p, uint64_t at)
{
    uint64_t v;
    if (take_number(p, 8, &v))
        return -1;
    return v <= p->end - p->pos ? 0 : fault(p, at, "a frame of %" PRIu64 " bytes does not fit", v);
}

static int marked(struct pickle *p, enum value_kind kind)
{
    size_t n;
    if (count_to_mark(p, &n))
        return -1;
    return kind == VALUE_TUPLE ? make_tuple(p, n, true) : add_items(p, kind, n, true);
}

static int run_opcode(struct pickle *p, uint8_t op, uint64_t at)
{
    switch (op) {
    case 0x80: /* PROTO */
        return take_protocol(p, at);
    case 0x95: /* FRAME */
        return take_frame(p, at);
    case '(': /* MARK */
        return push_simple(p, VALUE_MARK, 0);

    case 'N': /* NONE */
        return push_simple(p, VALUE_OTHER, 0);
    case 0x88: /* NEWTRUE */
        return push_simple(p, VALUE_INT, 1);
    case 0x89: /* NEWFALSE */
        return push_simple(p, VALUE_INT, 0);
    case 'J': /* BININT */
        return take_int(p, 4, true);
    case 'K': /* BININT1 */
        return take_int(p, 1, false);
    case 'M': /* BININT2 */
        return take_int(p, 2, false);
    case 0x8a: /* LONG1 */
        return take_long(p);
    case 'G': /* BINFLOAT */
        return take(p, 8) ? push_simple(p, VALUE_OTHER, 0) : -1;
    case 'X': /* BINUNICODE */
        return take_string(p, 4, VALUE_STRING);
    case 0x8c: /* SHORT_BINUNICODE */
        return take_string(p, 1, VALUE_STRING);
    case 'B': /* BINBYTES */
        return take_string(p, 4, VALUE_OTHER);
    case 'C': /* SHORT_BINBYTES */
        return take_string(p, 1, VALUE_OTHER);

    case ')': /* EMPTY_TUPLE */
        return make_tuple(p, 0, false);
    case 0x85: /* TUPLE1, TUPLE2, TUPLE3 */
    case 0x86:
    case 0x87:
        return make_tuple(p, (size_t)(op - 0x84), false);
    case 't': /* TUPLE */
        return marked(p, VALUE_TUPLE);
    case ']': /* EMPTY_LIST */
        return make_list(p, VALUE_LIST);
    case '}': /* EMPTY_DICT */
        return make_list(p, VALUE_DICT);
    case 'a': /* APPEND */
        return add_items(p, VALUE_LIST, 1, false);
    case 'e': /* APPENDS */
        return marked(p, VALUE_LIST);
    case 's': /* SETITEM */
        return add_items(p, VALUE_DICT, 2, false);
    case 'u': /* SETITEMS */
        return marked(p, VALUE_DICT);

    case 'q': /* BINPUT */
        return take_memo_put(p, 1);
    case 'r': /* LONG_BINPUT */
        return take_memo_put(p, 4);
    case 0x94: /* MEMOIZE */
        return memo_put(p, p->memo.n);
    case 'h': /* BINGET */
        return take_memo_get(p, 1);
    case 'j': /* LONG_BINGET */
        return take_memo_get(p, 4);

    case 'c': /* GLOBAL */
        return take_global(p, at);
    case 0x93: /* STACK_GLOBAL */
        return stack_global(p, at);
    case 'R': /* REDUCE */
        return reduce(p, at);
    case 'b': /* BUILD */
        return build(p, at);
    case 'Q': /* BINPERSID */
        return persistent_id(p, at);
    default:
        return fault(p, at, "opcode 0x%02x is not one that checkpoints use", op);
    }
}

int pickle_run(struct pickle *p, struct value *result)
{
    p->stack.n = 0;
    if (p->memo.n > 0) /* of the pickle before */
        memset(p->memo.p, 0, p->memo.n * sizeof(struct value));
    p->memo.n = 0;
    for (;;) {
        uint64_t at = p->pos;
        const uint8_t *op = take(p, 1);
        if (!op)
            return -1;
        if (*op == '.') /* STOP */
            return pop(p, result);
        if (run_opcode(p, *op, at))
            return -1;
    }
}

void pickle_free(struct pickle *p)
{
    free(p->stack.p);
    free(p->items.p);
    free(p->memo.p);
    free(p->links.p);
    free(p->lists.p);
    free(p->storages.p);
}
