#include "tools/bench_source.h"

#include "quant/err.h"
#include "tools/inspect.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Options ------------------------------------------------------------------------------------- */

static int unknown_shape(const char *option, const char *value)
{
    char known[2048] = "";
    size_t at = 0;
    for (const struct shape *s = shapes; s->name; s++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", s->name);
    return usage_error("%s %s: neither the path of a config.json nor one of these shapes: %s", option, value,
                       known);
}

/* The types that a matrix can have, in the table's order. */
static int unknown_type(const char *option, const char *value)
{
    char known[512] = "";
    size_t at = 0;
    for (int t = 0; t < QTYPE_N_MATRIX; t++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "", qtypes[t].name);
    return usage_error("%s %s: not NAME:TYPE with one of these types: %s", option, value, known);
}

/* "NAME:TYPE"; a name with a slash or the ending .json is a path. */
static int parse_shape(struct bench_source *b, const char *option, const char *value)
{
    const char *colon = strrchr(value, ':');
    int type = colon ? qtype_by_name(colon + 1) : -1;
    if (type < 0 || type >= QTYPE_N_MATRIX)
        return unknown_type(option, value);
    size_t len = (size_t)(colon - value);
    const struct shape *known = shape_find(value, len);
    b->shape = (struct shape_options){.name = value, .type = (enum qtype)type};
    if (known) {
        b->shape.config = known->config;
        return 0;
    }
    bool json = len > 5 && strncmp(colon - 5, ".json", 5) == 0;
    if (!json && !memchr(value, '/', len))
        return unknown_shape(option, value);
    b->config_path = strndup(value, len);
    b->shape.config_path = b->config_path;
    return b->config_path ? 0 : tool_error("out of memory");
}

int bench_source_add(void *bench_sources, const char *option, const char *value)
{
    struct bench_sources *l = bench_sources;
    struct bench_source *grown = realloc(l->item, (l->n + 1) * sizeof *grown);
    if (!grown)
        return tool_error("out of memory");
    l->item = grown;
    struct bench_source *b = &grown[l->n];
    *b = (struct bench_source){.name = value, .is_shape = strcmp(option, "--shape") == 0};
    int code = b->is_shape ? parse_shape(b, option, value) : 0;
    l->n += code == 0;
    return code;
}

int bench_sources_check(const struct bench_sources *l, const struct run_options *o)
{
    for (size_t i = 0; i < l->n; i++)
        if (!l->item[i].is_shape)
            return 0;
    const char *option = o->mlock        ? "--mlock"
                         : o->no_mmap    ? "--no-mmap"
                         : o->pack_cache ? "--pack-cache"
                                         : NULL;
    if (l->n > 0 && option)
        return usage_error("%s is about a model's file, and --shape has none", option);
    return 0;
}

void bench_sources_free(struct bench_sources *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->item[i].config_path);
    free(l->item);
    *l = (struct bench_sources){NULL, 0};
}

/* ---- Opening ------------------------------------------------------------------------------------- */

/* Says which matrices could not have the type that was asked for. */
static void note_types(const struct weights *w, enum qtype wanted)
{
    size_t n[QTYPE_COUNT] = {0};
    int64_t row_len[QTYPE_COUNT] = {0};
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        if (t->n_dims == 1 || t->dims[0] % qtypes[wanted].block_len == 0)
            continue;
        n[t->type]++;
        row_len[t->type] = t->dims[0];
    }
    for (int t = 0; t < QTYPE_COUNT; t++)
        if (n[t])
            tool_note(NOTE_USUAL,
                      "note: %s: %zu matrices are %s: rows of %" PRId64 " are no multiple of %d\n",
                      weights_path(w), n[t], qtypes[t].name, row_len[t], qtypes[wanted].block_len);
}

/* A shape is typed in a moment; what it needs may be many times what there is, and the system would end the
 * program in the middle instead of refusing memory. */
static int check_memory(const struct weights *w, const struct run_options *o, char *err, size_t errlen)
{
    struct config c;
    struct plan p;
    uint64_t there = machine_free_memory();
    if (config_read(&c, w, err, errlen) || plan_memory(&p, &c, w, o, err, errlen))
        return -1;
    uint64_t made = shape_fill_bytes(w, o->no_repack);
    uint64_t need =
        made + (o->no_repack ? 0 : p.memory.weight_bytes) + p.memory.kv_bytes + p.memory.scratch_bytes;
    if (there == 0 || need <= there)
        return 0;
    return err_set(err, errlen, "%s: needs %.1f GiB of memory, %.1f GiB are free", weights_path(w),
                   (double)need / (1 << 30), (double)there / (1 << 30));
}

int bench_source_open(struct session *s, const struct bench_source *b, const struct run_options *o, char *err,
                      size_t errlen)
{
    if (!b->is_shape) {
        const char *path = model_path(b->name, err, errlen);
        return path ? session_open(s, path, o, 0, err, errlen) : -1;
    }
    struct weights *w;
    if (shape_open(&w, &b->shape, err, errlen))
        return -1;
    note_types(w, b->shape.type);
    if (check_memory(w, o, err, errlen) || shape_fill(w, o->no_repack, err, errlen)) {
        weights_close(w);
        return -1;
    }
    struct run_options own = *o;
    own.pack_cache = NULL; /* of the model files beside it */
    return session_open_weights(s, b->name, w, &own, 0, err, errlen);
}
