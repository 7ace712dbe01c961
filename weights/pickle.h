/* A machine for the pickles inside PyTorch checkpoints. It executes nothing: it knows the dozen globals from
 * which state dicts are made and refuses every other one by name. Private to weights/.
 *
 * The result is a graph of values; what it says about tensors is not checked here but by torch.c, which knows
 * the names under which they are found. */
#ifndef QUOLL_PICKLE_H
#define QUOLL_PICKLE_H

#include "quant/quant.h"

#include <stddef.h>

enum value_kind {
    VALUE_UNSET, /* of the memo only */
    VALUE_OTHER, /* None, floats, bytes, integers beyond 64 bits: nothing that describes a tensor */
    VALUE_MARK,
    VALUE_INT, /* also booleans */
    VALUE_STRING,
    VALUE_TUPLE,
    VALUE_LIST,
    VALUE_DICT,
    VALUE_GLOBAL,
    VALUE_STORAGE, /* the tuple ('storage', type, key, location, numel, …) of a persistent id */
    VALUE_TENSOR,  /* the tuple of arguments of a function that rebuilds tensors */
};

struct value {
    enum value_kind kind;
    uint32_t n; /* bytes of a string, elements of a tuple; of a tensor: elements, see below */
    union {
        int64_t i;
        uint64_t at; /* string: first byte in the file; tuple, storage, tensor: first element in items;
                      * list, dict: index in lists; global: index in pickle_globals */
    };
};

enum global_kind {
    GLOBAL_DICT,      /* collections.OrderedDict */
    GLOBAL_TENSOR,    /* (storage, offset, size, stride, …) */
    GLOBAL_TENSOR_V3, /* (storage, offset, size, stride, requires_grad, hooks, dtype, …) */
    GLOBAL_PARAMETER, /* (tensor, …) */
    GLOBAL_SIZE,      /* torch.Size(tuple) */
    GLOBAL_STORAGE,   /* a type of storage: elements of a type, or bytes */
    GLOBAL_DTYPE,
};

struct pickle_global {
    const char *module, *name;
    enum global_kind kind;
    enum qtype type; /* of storages and dtypes; QTYPE_COUNT: none here */
    int bytes;       /* of an element; 0: the type is not supported */
};
extern const struct pickle_global pickle_globals[];

/* Lists and dicts: chains of links, since both grow. */
struct link {
    struct value key, value; /* of a list: no key */
    uint32_t next;           /* UINT32_MAX: none */
};

struct list {
    uint32_t first, last;
    bool seen; /* for whoever walks the graph */
};

struct array {
    void *p;
    size_t n, cap;
};

struct pickle {
    const char *file, *part; /* for messages: "model.bin", "data.pkl" */
    const uint8_t *data;     /* the file; strings stay there */
    uint64_t begin, end;     /* of the part in it */
    uint64_t pos;
    struct array stack, items, memo; /* of struct value */
    struct array links, lists;
    struct array storages; /* of struct value: every storage met, also again */
    char *err;
    size_t errlen;
};

/* Runs one pickle from p->pos, where it moves past its end. Everything but file, part, data, begin, end, pos
 * and err begins as zero and stays valid for more pickles of the same file. Time and memory grow with the
 * bytes read, up to fixed limits. */
int pickle_run(struct pickle *p, struct value *result);
void pickle_free(struct pickle *p);

static inline const struct value *pickle_items(const struct pickle *p, const struct value *v)
{
    return p->items.p ? (const struct value *)p->items.p + v->at : NULL; /* none: () */
}

static inline struct list *pickle_list(const struct pickle *p, const struct value *v)
{
    return (struct list *)p->lists.p + v->at;
}

static inline const struct link *pickle_link(const struct pickle *p, uint32_t i)
{
    return (const struct link *)p->links.p + i;
}

#endif
