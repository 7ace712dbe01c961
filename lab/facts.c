#include "lab/facts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* FNV-1a, 64 bits (Fowler, Noll, Vo): against mistakes, not against attackers. */
static uint64_t hash(uint64_t h, const void *data, size_t n)
{
    for (const uint8_t *p = data; n > 0; n--, p++)
        h = (h ^ *p) * 0x100000001b3;
    return h;
}
static const uint64_t hash_begin = 0xcbf29ce484222325;

static json_t *hash_json(uint64_t h)
{
    char text[17];
    (void)snprintf(text, sizeof text, "%016" PRIx64, h);
    return json_string(text);
}

/* [bytes, nanoseconds]; null: it is gone. */
static json_t *file_json(const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return json_null();
    return json_pack("[I, I]", (json_int_t)st.st_size,
                     (json_int_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
}

static json_t *files_json(const struct weights *w)
{
    json_t *all = json_array();
    for (int i = 0; all && i < weights_n_files(w); i++)
        (void)json_array_append_new(all, file_json(weights_file_name(w, i)));
    return all;
}

static json_t *calibration_json(const struct calibration *c)
{
    static const char *const solvers[] = {
        [SOLVE_NEAREST] = "nearest", [SOLVE_HQQ] = "hqq", [SOLVE_GPTQ] = "gptq"};
    if (!c)
        return json_null();
    return json_pack("{s:s, s:b, s:b, s:f, s:i, s:I, s:o}", "solver", solvers[c->solver], "awq", c->awq,
                     "act_order", c->act_order, "damp", c->damp, "sequence", c->seq_len, "tokens",
                     (json_int_t)c->n_ids, "text",
                     hash_json(hash(hash_begin, c->ids, (size_t)c->n_ids * sizeof *c->ids)));
}

static json_t *importance_json(const struct importance *t)
{
    uint64_t h = hash_begin;
    if (!t)
        return json_null();
    for (size_t i = 0; i < importance_n(t); i++) {
        const struct importance_entry *e = importance_at(t, i);
        h = hash(h, e->name, strlen(e->name));
        h = hash(h, e->mean, (size_t)e->n_experts * (size_t)e->cols * sizeof *e->mean);
    }
    return hash_json(h);
}

static json_t *adapters_json(const struct lora_option *lora, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; all && i < n; i++)
        (void)json_array_append_new(
            all, json_pack("[s, f, o]", lora[i].path, (double)lora[i].scale, file_json(lora[i].path)));
    return all;
}

json_t *quantize_facts(const struct weights *w, const struct calibration *c, const struct importance *t,
                       const struct lora_option *lora, size_t n_lora)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "source", files_json(w), "method", calibration_json(c),
                     "importances", importance_json(t), "adapters", adapters_json(lora, n_lora));
}
