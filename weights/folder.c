/* Folders as Hugging Face lays them out: JSON files that describe the model, and its weights in one file or
 * in several under an index ("weight_map": tensor name -> file). weights.h says what is looked for. */
#include "quant/err.h"
#include "weights/reader.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 1 << 16, MAX_SHARDS = 1 << 12, MAX_INDEX_BYTES = 64 << 20 };

/* The names in a folder, sorted. */
struct listing {
    char **name;
    size_t n, cap;
};

struct folder {
    struct weights *w;
    struct listing list;
    char *err;
    size_t errlen;
};

/* One way to keep weights: preferred names, then whatever is alone with its ending. */
struct container {
    const char *format;
    const char *index;
    const char *single[3];
    const char *endings[4];
    int (*read)(struct weights *w, int file, char *err, size_t errlen);
};

static const struct container containers[] = {
    {"safetensors folder",
     "model.safetensors.index.json",
     {"model.safetensors", "adapter_model.safetensors"},
     {".safetensors"},
     safetensors_read},
    {"PyTorch folder",
     "pytorch_model.bin.index.json",
     {"pytorch_model.bin", "adapter_model.bin"},
     {".bin", ".pt", ".pth"},
     torch_read},
};

/* What training leaves beside a checkpoint, and vocabularies. */
static const char *const no_weights[] = {"training_args.bin", "optimizer.", "scheduler.", "rng_state",
                                         "tokenizer."};

/* ---- The listing ----------------------------------------------------------------------------- */

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(struct listing *l, const char *name)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        char **p = realloc(l->name, cap * sizeof *p);
        if (!p)
            return -1;
        l->name = p;
        l->cap = cap;
    }
    l->name[l->n] = strdup(name);
    return l->name[l->n] ? (l->n++, 0) : -1;
}

static void free_listing(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
}

static int list_folder(struct folder *f)
{
    const char *path = f->w->folder;
    DIR *dir = opendir(path);
    if (!dir)
        return err_set(f->err, f->errlen, "%s: %s", path, strerror(errno));
    int rc = 0;
    for (const struct dirent *e; rc == 0 && (e = readdir(dir));) {
        if (f->list.n == MAX_NAMES)
            rc = err_set(f->err, f->errlen, "%s: holds more than %d files", path, MAX_NAMES);
        else if (e->d_name[0] != '.' && add_name(&f->list, e->d_name))
            rc = err_set(f->err, f->errlen, "%s: out of memory", path);
    }
    (void)closedir(dir);
    if (rc == 0 && f->list.n > 0)
        qsort(f->list.name, f->list.n, sizeof *f->list.name, compare_strings);
    return rc;
}

static bool has(const struct folder *f, const char *name)
{
    return f->list.n > 0 &&
           bsearch(&name, f->list.name, f->list.n, sizeof *f->list.name, compare_strings) != NULL;
}

static bool is_weights_name(const char *name, const char *const *endings)
{
    for (size_t i = 0; i < sizeof no_weights / sizeof *no_weights; i++)
        if (strncmp(name, no_weights[i], strlen(no_weights[i])) == 0)
            return false;
    for (; *endings; endings++)
        if (weights_ends_with(name, *endings))
            return true;
    return false;
}

/* FOLDER/NAME, NULL: no memory (then the message is set). */
static char *join(const struct folder *f, const char *name)
{
    const char *dir = f->w->folder;
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    if (path)
        (void)snprintf(path, n, "%s%s%s", dir, weights_ends_with(dir, "/") ? "" : "/", name);
    else
        err_set(f->err, f->errlen, "%s: out of memory", dir);
    return path;
}

/* ---- JSON files ------------------------------------------------------------------------------ */

static int add_json(const struct folder *f, const char *name, const char *prefix)
{
    if (!has(f, name))
        return 0;
    char *path = join(f, name);
    int rc = path ? weights_add_json(f->w, path, prefix, f->err, f->errlen) : -1;
    free(path);
    return rc;
}

static bool has_meta_below(const struct weights *w, const char *prefix)
{
    for (size_t i = 0; i < w->n_meta; i++)
        if (strncmp(w->meta[i].key, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

static int add_all_json(const struct folder *f)
{
    static const char quantization[] = "config.quantization_config";
    if (add_json(f, "config.json", "config") || add_json(f, "generation_config.json", "generation_config") ||
        add_json(f, "adapter_config.json", "adapter_config") || add_json(f, "params.json", "params"))
        return -1;
    /* Where GPTQ and AWQ folders of 2023 say what config.json says today. */
    static const char *const old[] = {"quantize_config.json", "quant_config.json"};
    for (size_t i = 0; i < 2 && !has_meta_below(f->w, "config.quantization_config."); i++)
        if (add_json(f, old[i], quantization))
            return -1;
    return 0;
}

/* ---- Weights --------------------------------------------------------------------------------- */

static int add_weights_file(const struct folder *f, const struct container *c, const char *name)
{
    char *path = join(f, name);
    int rc = path ? weights_add_file(f->w, path, f->err, f->errlen) : -1;
    free(path);
    return rc ? -1 : c->read(f->w, f->w->n_files - 1, f->err, f->errlen);
}

/* The file names that a weight_map names, each once, sorted. */
static int list_shards(const struct folder *f, const char *index, json_t *map, struct listing *shards)
{
    const char *tensor;
    json_t *value;
    json_t *seen = json_object(); /* a set: names of shards -> true */
    int rc = seen ? 0 : err_set(f->err, f->errlen, "%s: out of memory", index);
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value), *fault;
        if (rc)
            break;
        if ((fault = weights_name_fault(tensor, strlen(tensor))))
            rc = err_set(f->err, f->errlen, "%s: the name of a tensor in 'weight_map' %s", index, fault);
        else if (!name || weights_name_fault(name, strlen(name)))
            rc = err_set(f->err, f->errlen, "%s: tensor '%.80s': its file is no name", index, tensor);
        else if (strchr(name, '/') || strcmp(name, "..") == 0 || strcmp(name, ".") == 0)
            rc = err_set(f->err, f->errlen, "%s: tensor '%.80s': its file '%.80s' is no name in this folder",
                         index, tensor, name);
        else if (!json_object_get(seen, name)) {
            if (shards->n == MAX_SHARDS)
                rc = err_set(f->err, f->errlen, "%s: tensor '%.80s': more than %d files", index, tensor,
                             MAX_SHARDS);
            else if (!has(f, name))
                rc = err_set(f->err, f->errlen, "%s: tensor '%.80s': its file '%.80s' is missing", index,
                             tensor, name);
            else if (json_object_set_new(seen, name, json_true()) || add_name(shards, name))
                rc = err_set(f->err, f->errlen, "%s: out of memory", index);
        }
    }
    json_decref(seen);
    if (rc == 0 && shards->n > 0)
        qsort(shards->name, shards->n, sizeof *shards->name, compare_strings);
    return rc;
}

/* Takes the tensors from first on, all of one shard, off the map: each has to be listed there under it. */
static int match_tensors(const struct folder *f, const char *index, json_t *map, const char *shard,
                         size_t first)
{
    const struct weights *w = f->w;
    for (size_t i = first; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensor[i];
        const char *listed = json_string_value(json_object_get(map, t->name));
        if (!listed)
            return err_set(f->err, f->errlen, "%s: tensor '%.80s' is not listed in %s, or in two files",
                           w->file[t->file].name, t->name, index);
        if (strcmp(listed, shard) != 0)
            return err_set(f->err, f->errlen, "%s: tensor '%.80s' is listed as in '%.80s' by %s",
                           w->file[t->file].name, t->name, listed, index);
        (void)json_object_del(map, t->name);
    }
    return 0;
}

static int read_shards(const struct folder *f, const struct container *c, const char *index, json_t *map)
{
    struct listing shards = {0};
    int rc = list_shards(f, index, map, &shards);
    if (rc == 0 && shards.n == 0)
        rc = err_set(f->err, f->errlen, "%s: its 'weight_map' has no tensor", index);
    for (size_t i = 0; i < shards.n && rc == 0; i++) {
        size_t first = f->w->n_tensors;
        rc = add_weights_file(f, c, shards.name[i]) || match_tensors(f, index, map, shards.name[i], first);
    }
    free_listing(&shards);
    if (rc == 0 && json_object_size(map) > 0) { /* listed, but in no shard */
        void *left = json_object_iter(map);
        rc = err_set(f->err, f->errlen, "%s: tensor '%.80s' is not in its file '%.80s'", index,
                     json_object_iter_key(left), json_string_value(json_object_iter_value(left)));
    }
    return rc ? -1 : 0;
}

static int read_index(const struct folder *f, const struct container *c, const char *name)
{
    char *path = join(f, name);
    json_t *index = path ? weights_read_json(path, MAX_INDEX_BYTES, true, f->err, f->errlen) : NULL;
    json_t *map = json_object_get(index, "weight_map");
    int rc = -1;
    if (index)
        rc = json_is_object(map) ? read_shards(f, c, path, map)
                                 : err_set(f->err, f->errlen, "%s: has no object 'weight_map'", path);
    json_decref(index);
    free(path);
    return rc;
}

/* The file that is alone with one of c's endings; *n says how many there are. */
static const char *only_file(const struct folder *f, const char *const *endings, size_t *n)
{
    const char *found = NULL;
    *n = 0;
    for (size_t i = 0; i < f->list.n; i++) {
        if (!is_weights_name(f->list.name[i], endings))
            continue;
        if ((*n)++ == 0)
            found = f->list.name[i];
    }
    return found;
}

/* 1: read; 0: this container is not there; -1: error. */
static int read_container(const struct folder *f, const struct container *c)
{
    size_t n;
    f->w->format = c->format;
    if (has(f, c->index))
        return read_index(f, c, c->index) ? -1 : 1;
    for (size_t i = 0; c->single[i]; i++)
        if (has(f, c->single[i]))
            return add_weights_file(f, c, c->single[i]) ? -1 : 1;
    const char *only = only_file(f, c->endings, &n);
    if (n > 1)
        return err_set(f->err, f->errlen,
                       "%s: holds %zu weight files ('%.80s', …) and neither '%s' nor '%s': name one of them",
                       f->w->folder, n, only, c->index, c->single[0]);
    return n == 0 ? 0 : add_weights_file(f, c, only) ? -1 : 1;
}

static int read_weights(const struct folder *f)
{
    for (size_t i = 0; i < sizeof containers / sizeof *containers; i++) {
        int found = read_container(f, &containers[i]);
        if (found)
            return found < 0 ? -1 : 0;
    }
    size_t n;
    const char *gguf = only_file(f, (const char *const[]){".gguf", NULL}, &n);
    if (gguf)
        return err_set(f->err, f->errlen, "%s: is a folder; name a GGUF file in it, such as '%.80s'",
                       f->w->folder, gguf);
    return err_set(f->err, f->errlen, "%s: is a folder without weights (no .safetensors, .bin, .pt or .pth)",
                   f->w->folder);
}

int folder_read(struct weights *w, char *err, size_t errlen)
{
    struct folder f = {.w = w, .err = err, .errlen = errlen};
    w->format = "folder without weights";
    int rc = list_folder(&f) || add_all_json(&f) ? -1 : 0;
    if (rc == 0 && !w->opt.no_tensors)
        rc = read_weights(&f);
    else if (rc == 0 && w->n_meta == 0 && !has(&f, "config.json"))
        rc = err_set(err, errlen, "%s: is a folder without config.json", w->folder);
    free_listing(&f.list);
    return rc;
}
