/* llama2.c's checkpoints (karpathy/llama2.c, export.py and the readers in run.c and runq.c): a header of
 * integers and the tensors in a fixed order, nothing between them.
 *
 *     version 0: i32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; float32 tensors.
 *                vocab_size < 0: the classifier is a tensor of its own, else the embedding serves as one.
 *     version 1: u32 0x616b3432, i32 version, the seven integers, u8 shared classifier, zeros up to byte 256;
 *                float32 tensors in another order
 *     version 2: as 1, but i32 group_size behind the u8 (unaligned); each matrix is int8[n], then a float32
 * scale for each group_size of them; norms are float32
 *
 * Tensors get GGUF's names. Rows of wq and wk are in the order of GGUF's llama, too: RoPE turns neighbours.
 */
#include "quant/err.h"
#include "weights/reader.h"

#include <inttypes.h>
#include <string.h>

enum { HEADER_BYTES = 256, V0_HEADER_BYTES = 28, SHARED_AT = 36, GROUP_AT = 37, MAX_VERSION = 2 };

static const char magic[] = "24ka"; /* 0x616b3432, little-endian */

/* The integers of the header in its order, then what follows from them: the sizes of tensors. */
enum size {
    DIM,
    HIDDEN,
    N_LAYERS,
    N_HEADS,
    N_KV_HEADS,
    VOCAB,
    SEQ_LEN,
    N_HEADER,
    KV_DIM = N_HEADER, /* n_kv_heads heads */
    ROPE,              /* cosines and sines of a position */
    ONE,
    N_SIZES
};

/* Far above any real model, and such that no product of tensor sizes overflows 64 bits. */
static const struct {
    const char *key;
    int64_t max;
} header[N_HEADER] = {
    [DIM] = {"llama2c.dim", 1 << 20},
    [HIDDEN] = {"llama2c.hidden_dim", 1 << 22},
    [N_LAYERS] = {"llama2c.n_layers", 4096},
    [N_HEADS] = {"llama2c.n_heads", 1 << 16},
    [N_KV_HEADS] = {"llama2c.n_kv_heads", 1 << 16},
    [VOCAB] = {"llama2c.vocab_size", 1 << 24},
    [SEQ_LEN] = {"llama2c.seq_len", 1 << 24},
};

/* One kind of tensor: there are n_layers of it, one behind the other, or one. */
struct part {
    const char *name; /* "%s" of "blk.0.%s" for those of layers; NULL: not exposed */
    enum size rows, cols;
    bool layers;
};

static const struct part order_v0[] = {
    {"token_embd.weight", VOCAB, DIM, false}, {"attn_norm.weight", ONE, DIM, true},
    {"attn_q.weight", DIM, DIM, true},        {"attn_k.weight", KV_DIM, DIM, true},
    {"attn_v.weight", KV_DIM, DIM, true},     {"attn_output.weight", DIM, DIM, true},
    {"ffn_norm.weight", ONE, DIM, true},      {"ffn_gate.weight", HIDDEN, DIM, true},
    {"ffn_down.weight", DIM, HIDDEN, true},   {"ffn_up.weight", HIDDEN, DIM, true},
    {"output_norm.weight", ONE, DIM, false},  {NULL, SEQ_LEN, ROPE, false},
    {"output.weight", VOCAB, DIM, false},
};

static const struct part order_v1[] = {
    {"attn_norm.weight", ONE, DIM, true},    {"ffn_norm.weight", ONE, DIM, true},
    {"output_norm.weight", ONE, DIM, false}, {"token_embd.weight", VOCAB, DIM, false},
    {"attn_q.weight", DIM, DIM, true},       {"attn_k.weight", KV_DIM, DIM, true},
    {"attn_v.weight", KV_DIM, DIM, true},    {"attn_output.weight", DIM, DIM, true},
    {"ffn_gate.weight", HIDDEN, DIM, true},  {"ffn_down.weight", DIM, HIDDEN, true},
    {"ffn_up.weight", HIDDEN, DIM, true},    {"output.weight", VOCAB, DIM, false},
};

struct model {
    int64_t size[N_SIZES];
    int version;
    bool shared;        /* the embedding is the classifier */
    int64_t group_size; /* version 2 */
    uint64_t header_bytes;
    const struct part *order;
    size_t n_parts; /* the classifier is the last one */
};

/* ---- The header ------------------------------------------------------------------------------ */

static int64_t i32_at(const struct mapped_file *f, uint64_t at)
{
    int32_t v;
    memcpy(&v, f->data + at, sizeof v);
    return v;
}

/* Reads the seven integers. Returns the key of one that no model can have, or NULL. */
static const char *read_sizes(const struct mapped_file *f, uint64_t at, struct model *m)
{
    for (int i = 0; i < N_HEADER; i++)
        m->size[i] = i32_at(f, at + 4 * (uint64_t)i);
    if (m->version == 0) {
        m->shared = m->size[VOCAB] > 0;
        m->size[VOCAB] *= m->shared ? 1 : -1;
    }
    for (int i = 0; i < N_HEADER; i++)
        if (m->size[i] < 1 || m->size[i] > header[i].max)
            return header[i].key;
    if (m->size[DIM] % (2 * m->size[N_HEADS]) != 0) /* RoPE turns pairs within a head */
        return header[N_HEADS].key;
    if (m->size[N_HEADS] % m->size[N_KV_HEADS] != 0)
        return header[N_KV_HEADS].key;
    m->size[ROPE] = m->size[DIM] / m->size[N_HEADS];
    m->size[KV_DIM] = m->size[ROPE] * m->size[N_KV_HEADS];
    m->size[ONE] = 1;
    m->order = m->version == 0 ? order_v0 : order_v1;
    m->n_parts = (m->version == 0 ? sizeof order_v0 : sizeof order_v1) / sizeof *m->order - m->shared;
    return NULL;
}

static bool has_magic(const struct mapped_file *f)
{
    return f->size >= 4 && memcmp(f->data, magic, 4) == 0;
}

/* Version 0 has no magic: it is told by seven plausible integers. As text they would be too large, as the
 * start of a safetensors file the second would be zero. */
static bool is_v0(const struct mapped_file *f, struct model *m)
{
    *m = (struct model){.header_bytes = V0_HEADER_BYTES};
    return f->size >= V0_HEADER_BYTES && !read_sizes(f, 0, m);
}

bool llama2c_is(const struct mapped_file *f)
{
    struct model m;
    return has_magic(f) || is_v0(f, &m);
}

static int read_header(const struct mapped_file *f, struct model *m, char *err, size_t errlen)
{
    if (!has_magic(f))
        return is_v0(f, m) ? 0 : err_set(err, errlen, "%s: is no llama2.c file (byte 0)", f->name);
    *m = (struct model){.header_bytes = HEADER_BYTES};
    if (f->size < HEADER_BYTES)
        return err_set(err, errlen, "%s: cut short: %" PRIu64 " bytes, the header of a llama2.c file has %d",
                       f->name, f->size, HEADER_BYTES);
    int64_t version = i32_at(f, 4);
    if (version < 1 || version > MAX_VERSION)
        return err_set(err, errlen, "%s: llama2.c version %" PRId64 " is not one of 0 to %d (byte 4)",
                       f->name, version, MAX_VERSION);
    m->version = (int)version;
    m->shared = f->data[SHARED_AT] != 0;
    const char *key = read_sizes(f, 8, m);
    if (key)
        return err_set(err, errlen, "%s: the header's %s does not fit any model (bytes 8 to 35)", f->name,
                       key);
    if (version == 2) {
        m->group_size = i32_at(f, GROUP_AT);
        if (m->group_size < 1 || m->size[DIM] % m->group_size != 0 || m->size[HIDDEN] % m->group_size != 0)
            return err_set(err, errlen,
                           "%s: a group of %" PRId64 " weights does not divide rows of %" PRId64
                           " and %" PRId64 " (byte %d)",
                           f->name, m->group_size, m->size[DIM], m->size[HIDDEN], GROUP_AT);
    }
    return 0;
}

static int add_int(struct weights *w, const char *key, enum meta_type type, int64_t v)
{
    int64_t *data = weights_alloc(w, sizeof v);
    struct meta *m = weights_add_meta(w);
    if (!data || !m)
        return -1;
    *data = v; /* little-endian: a bool is the first byte */
    *m = (struct meta){.key = key, .type = type, .elem = type, .n = 1, .data = data};
    return 0;
}

static int add_metadata(struct weights *w, const struct model *m)
{
    for (int i = 0; i < N_HEADER; i++)
        if (add_int(w, header[i].key, META_I64, m->size[i]))
            return -1;
    if (add_int(w, "llama2c.version", META_I64, m->version) ||
        add_int(w, "llama2c.shared_classifier", META_BOOL, m->shared))
        return -1;
    return m->version == 2 ? add_int(w, "llama2c.group_size", META_I64, m->group_size) : 0;
}

/* ---- Tensors --------------------------------------------------------------------------------- */

static int64_t count(const struct model *m, const struct part *p)
{
    return p->layers ? m->size[N_LAYERS] : 1;
}

static bool is_quantised(const struct model *m, const struct part *p)
{
    return m->version == 2 && p->rows != ONE;
}

/* Bytes of one tensor of a part, its scales included. */
static uint64_t part_bytes(const struct model *m, const struct part *p)
{
    uint64_t n = (uint64_t)m->size[p->rows] * (uint64_t)m->size[p->cols];
    return is_quantised(m, p) ? n + n / (uint64_t)m->group_size * sizeof(float) : n * sizeof(float);
}

static int add_tensor(struct weights *w, int file, const char *name, enum qtype type, int64_t cols,
                      int64_t rows, uint64_t *at)
{
    char why[64];
    struct tensor t = {.type = type, .n_dims = rows > 1 ? 2 : 1, .dims = {cols, rows, 1, 1}, .file = file};
    t.name = weights_copy_string(w, name, strlen(name));
    struct tensor *slot = weights_add_tensor(w);
    if (!slot || !t.name || weights_tensor_size(&t, why, sizeof why))
        return -1; /* no memory: the sizes are within limits */
    t.offset = *at;
    t.data = w->file[file].data + *at;
    *at += t.bytes;
    *slot = t;
    return 0;
}

static int add_part(struct weights *w, int file, const struct model *m, const struct part *p, int64_t layer,
                    uint64_t *at)
{
    char name[80];
    int64_t rows = m->size[p->rows], cols = m->size[p->cols];
    if (!p->name) {
        *at += part_bytes(m, p);
        return 0;
    }
    int len = p->layers ? snprintf(name, sizeof name, "blk.%" PRId64 ".%s", layer, p->name)
                        : snprintf(name, sizeof name, "%s", p->name);
    if (!is_quantised(m, p))
        return add_tensor(w, file, name, QTYPE_F32, cols, rows, at);
    if (add_tensor(w, file, name, QTYPE_I8, cols, rows, at))
        return -1;
    (void)snprintf(name + len, sizeof name - (size_t)len, "_scale");
    return add_tensor(w, file, name, QTYPE_F32, cols / m->group_size, rows, at);
}

int llama2c_read(struct weights *w, int file, char *err, size_t errlen)
{
    static const char *const formats[] = {"llama2.c v0", "llama2.c v1", "llama2.c v2"};
    const struct mapped_file *f = &w->file[file];
    struct model m = {0};
    if (read_header(f, &m, err, errlen))
        return -1;
    w->format = formats[m.version];
    uint64_t expected = m.header_bytes;
    for (size_t i = 0; i < m.n_parts; i++)
        expected += (uint64_t)count(&m, &m.order[i]) * part_bytes(&m, &m.order[i]);
    if (expected != f->size)
        return err_set(err, errlen, "%s: by its llama2.c header it has %" PRIu64 " bytes, in fact %" PRIu64,
                       f->name, expected, f->size);
    uint64_t at = m.header_bytes;
    int rc = add_metadata(w, &m);
    for (size_t i = 0; i < m.n_parts && rc == 0; i++)
        for (int64_t layer = 0; layer < count(&m, &m.order[i]) && rc == 0; layer++)
            rc = add_part(w, file, &m, &m.order[i], layer, &at);
    return rc ? err_set(err, errlen, "%s: out of memory", f->name) : 0;
}
