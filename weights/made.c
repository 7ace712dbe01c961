/* Models that no file holds. */
#include "quant/err.h"
#include "weights/reader.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t most_bytes = (uint64_t)1 << 60; /* sums of them overflow nowhere */

int weights_make(struct weights **out, const char *name, const char *config, const char *config_path,
                 char *err, size_t errlen)
{
    *out = NULL;
    struct weights *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(name))) {
        free(w);
        return err_set(err, errlen, "%s: out of memory", name);
    }
    w->format = "made up";
    int rc = config ? weights_add_json_text(w, config, name, "config", err, errlen)
                    : weights_add_json(w, config_path, "config", err, errlen);
    if (rc || weights_index(w, err, errlen)) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

int weights_make_tensor(struct weights *w, const char *name, enum qtype type, int n_dims, const int64_t *dims,
                        char *err, size_t errlen)
{
    char why[128];
    if (w->n_tensors == WEIGHTS_MAX_TENSORS)
        return err_set(err, errlen, "%s: more than %d tensors", w->path, WEIGHTS_MAX_TENSORS);
    const char *copy = weights_copy_string(w, name, strlen(name));
    struct tensor *t = copy ? weights_add_tensor(w) : NULL;
    if (!t)
        return err_set(err, errlen, "%s: out of memory", w->path);
    *t = (struct tensor){.name = copy, .type = type, .n_dims = n_dims, .dims = {1, 1, 1, 1}};
    memcpy(t->dims, dims, (size_t)n_dims * sizeof *dims);
    if (weights_tensor_size(t, why, sizeof why))
        return err_set(err, errlen, "%s: tensor '%s': %s", w->path, name, why);
    w->made_bytes += t->bytes; /* both at most 2⁶³ − 1 before the check */
    if (t->bytes > most_bytes || w->made_bytes > most_bytes)
        return err_set(err, errlen, "%s: its tensors are larger than any memory", w->path);
    return 0;
}

int weights_make_done(struct weights *w, char *err, size_t errlen)
{
    return weights_index(w, err, errlen);
}

void *weights_make_buffer(struct weights *w, uint64_t n_bytes)
{
    struct mapped_file *f = weights_new_file(w, w->path);
    void *data = f ? malloc((size_t)n_bytes) : NULL;
    if (data) {
        f->data = data;
        f->size = n_bytes;
    }
    return data;
}

void weights_make_data(struct weights *w, size_t i, const void *data)
{
    w->tensor[i].data = data;
}
