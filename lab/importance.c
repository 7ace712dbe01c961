/* The table of lab/importance.h: a few hundred entries at most, in an open hash table of their indices. */
#include "lab/importance.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct importance {
    struct importance_entry *entry;
    size_t n, cap;
    size_t *slot; /* n_slots of them, a power of two above n: index + 1 of an entry, 0: free */
    size_t n_slots;
};

struct importance *importance_new(void)
{
    return calloc(1, sizeof(struct importance));
}

void importance_free(struct importance *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++) {
        free((char *)t->entry[i].name);
        free(t->entry[i].mean);
    }
    free(t->entry);
    free(t->slot);
    free(t);
}

size_t importance_n(const struct importance *t)
{
    return t->n;
}

const struct importance_entry *importance_at(const struct importance *t, size_t i)
{
    return &t->entry[i];
}

/* The slot that holds the name, or the free one where it belongs. */
static size_t slot_of(const struct importance *t, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    size_t s = (size_t)hash & (t->n_slots - 1);
    while (t->slot[s] && strcmp(t->entry[t->slot[s] - 1].name, name) != 0)
        s = (s + 1) & (t->n_slots - 1);
    return s;
}

/* Room for one entry more. */
static bool grow(struct importance *t)
{
    if (t->n < t->cap)
        return true;
    size_t cap = t->cap ? 2 * t->cap : 64;
    struct importance_entry *entry = realloc(t->entry, cap * sizeof *entry);
    if (!entry)
        return false;
    t->entry = entry;
    size_t *slot = calloc(2 * cap, sizeof *slot);
    if (!slot)
        return false;
    free(t->slot);
    t->slot = slot;
    t->n_slots = 2 * cap;
    t->cap = cap;
    for (size_t i = 0; i < t->n; i++)
        slot[slot_of(t, t->entry[i].name)] = i + 1;
    return true;
}

int importance_set(struct importance *t, const char *name, int64_t cols, int n_experts, const float *mean)
{
    if (cols < 1 || n_experts < 1 || cols > INT64_MAX / (int64_t)sizeof(float) / n_experts || !grow(t))
        return -1;
    size_t bytes = (size_t)cols * (size_t)n_experts * sizeof(float), s = slot_of(t, name);
    float *copy = malloc(bytes);
    if (!copy)
        return -1;
    memcpy(copy, mean, bytes);
    if (!t->slot[s]) {
        char *key = strdup(name);
        if (!key) {
            free(copy);
            return -1;
        }
        t->entry[t->n] = (struct importance_entry){.name = key};
        t->slot[s] = ++t->n;
    }
    struct importance_entry *e = &t->entry[t->slot[s] - 1];
    free(e->mean);
    e->cols = cols;
    e->n_experts = n_experts;
    e->mean = copy;
    return 0;
}

const struct importance_entry *importance_find(const struct importance *t, const char *name)
{
    if (!t || t->n == 0)
        return NULL;
    size_t s = t->slot[slot_of(t, name)];
    return s ? &t->entry[s - 1] : NULL;
}
