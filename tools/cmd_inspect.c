/* `quoll inspect`: what a model file holds. */
#include "tools/inspect.h"

#include "model/arch.h"
#include "tools/chat.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_SHOWN = 72, ARRAY_SHOWN = 4 }; /* bytes of a string, elements of an array */

/* ---- Text ---------------------------------------------------------------------------------------- */

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* At most `most` bytes of a file's text, cut between characters, on one line that drives no terminal. */
static void print_text(const char *s, size_t len, size_t most)
{
    size_t n = len;
    if (n > most)
        for (n = most; n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80;)
            n--;
    char *shown = text_for_terminal(s, n);
    for (const char *p = shown; p && *p; p++) {
        if (*p == '\n' || *p == '\t')
            (void)printf("\\%c", *p == '\n' ? 'n' : 't');
        else
            (void)putchar(*p);
    }
    free(shown);
    if (n < len)
        (void)printf("…");
}

static void print_element(const struct meta *m, uint64_t i, size_t most)
{
    int64_t v;
    double f;
    struct wstr s;
    if (meta_str(m, i, &s)) {
        (void)putchar('"');
        print_text(s.s, s.len, most);
        (void)putchar('"');
    } else if (m->elem == META_BOOL && meta_int(m, i, &v))
        (void)printf("%s", v ? "true" : "false");
    else if (meta_int(m, i, &v))
        (void)printf("%" PRId64, v);
    else if (meta_float(m, i, &f))
        (void)printf(m->elem == META_U64 ? "%.0f" : m->elem == META_F32 ? "%.7g" : "%.17g", f);
}

static void print_meta(const struct meta *m)
{
    (void)printf("  %-42s ", m->key);
    if (m->type != META_ARRAY) {
        (void)printf("%-5s ", meta_type_name(m->type));
        print_element(m, 0, TEXT_SHOWN);
    } else {
        (void)printf("%s[%" PRIu64 "] ", meta_type_name(m->elem), m->n);
        for (uint64_t i = 0; i < m->n && i < ARRAY_SHOWN; i++) {
            (void)printf("%s", i ? ", " : "");
            print_element(m, i, TEXT_SHOWN / ARRAY_SHOWN);
        }
        (void)printf("%s", m->n > ARRAY_SHOWN ? ", …" : "");
    }
    (void)putchar('\n');
}

static void print_config(const struct config *c)
{
    const struct {
        const char *name;
        int v;
    } rows[] = {{"layers", c->n_layers},       {"dim", c->dim},
                {"ffn dim", c->ffn_dim},       {"heads", c->n_heads},
                {"KV heads", c->n_kv_heads},   {"head dim", c->head_dim},
                {"rotary dim", c->rotary_dim}, {"vocabulary", c->vocab_size},
                {"context", c->max_seq_len}};
    (void)printf("\nhyper-parameters\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        (void)printf("  %-16s %d\n", rows[i].name, rows[i].v);
    if (c->n_experts > 0)
        (void)printf("  %-16s %d, %d used, ffn dim %d\n", "experts", c->n_experts, c->n_experts_used,
                     c->expert_ffn_dim);
    int n_windowed = 0;
    for (int l = 0; l < c->n_layers; l++)
        n_windowed += c->windowed[l];
    if (c->sliding_window > 0)
        (void)printf("  %-16s %d, in %d of %d layers\n", "sliding window", c->sliding_window, n_windowed,
                     c->n_layers);
    (void)printf("  %-16s %g\n", "rope theta", c->rope.theta);
    if (c->rope.scaling != ROPE_SCALING_NONE)
        (void)printf("  %-16s %s, factor %g\n", "rope scaling", rope_scaling_name(c->rope.scaling),
                     c->rope.factor);
    (void)printf("  %-16s %g\n", "norm eps", (double)c->norm_eps);
    (void)printf("  %-16s %s\n", "output matrix", c->tied_embeddings ? "the embedding" : "its own");
}

static void print_head(const struct inspection *in)
{
    struct wstr arch;
    const struct meta *named = weights_meta_find(in->w, "general.architecture");
    if (!named)
        named = weights_meta_find(in->w, "config.model_type");
    for (int i = 0; i < weights_n_files(in->w); i++) {
        const char *name = weights_file_name(in->w, i);
        (void)printf("%-16s ", i ? "" : "file");
        print_text(name, strlen(name), SIZE_MAX);
        (void)putchar('\n');
    }
    (void)printf("%-16s %s, %" PRIu64 " bytes (%.1f MiB)\n", "format", weights_format(in->w),
                 weights_file_bytes(in->w), mib(weights_file_bytes(in->w)));
    if (in->has_config) {
        (void)printf("%-16s %s\n", "architecture", in->config.arch->name);
    } else if (meta_str(named, 0, &arch)) {
        (void)printf("%-16s ", "architecture");
        print_text(arch.s, arch.len, TEXT_SHOWN);
        (void)putchar('\n');
    }
    if (!in->has_config) {
        (void)printf("%-16s no: ", "supported");
        print_text(in->why_not, strlen(in->why_not), SIZE_MAX);
        (void)putchar('\n');
    }
    (void)printf("%-16s %" PRIu64 " in %" PRIu64 " tensors\n", "parameters", in->all.n_params,
                 in->all.n_tensors);
    if (in->all.n_params > 0)
        (void)printf("%-16s %.3f\n", "bits per weight", 8 * (double)in->all.bytes / (double)in->all.n_params);
    if (in->has_config)
        print_config(&in->config);
}

static void print_types(const struct inspection *in)
{
    if (in->all.n_tensors == 0)
        return;
    (void)printf("\n%-8s %8s %16s %16s %8s\n", "type", "tensors", "parameters", "bytes", "share");
    for (int t = 0; t < QTYPE_COUNT; t++) {
        const struct type_total *total = &in->type[t];
        if (total->n_tensors > 0)
            (void)printf("%-8s %8" PRIu64 " %16" PRIu64 " %16" PRIu64 " %6.1f %%\n", qtypes[t].name,
                         total->n_tensors, total->n_params, total->bytes,
                         in->all.bytes ? 100 * (double)total->bytes / (double)in->all.bytes : 0);
    }
}

static void print_tensors(const struct weights *w)
{
    (void)printf("\ntensors (shape: the row's length first)\n");
    for (size_t i = 0; i < weights_n_tensors(w); i++) {
        const struct tensor *t = weights_tensor(w, i);
        char shape[96];
        size_t at = 0;
        for (int d = 0; d < t->n_dims; d++)
            at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRId64, d ? " × " : "", t->dims[d]);
        (void)printf("  %-40s %-7s %12" PRIu64 " bytes  %s\n", t->name, qtypes[t->type].name, t->bytes,
                     shape);
    }
}

static void print_plan(const struct plan *p)
{
    uint64_t total = p->memory.weight_bytes + p->memory.kv_bytes + p->memory.scratch_bytes;
    (void)printf("\nmemory to run it\n");
    (void)printf("  %-16s %10.1f MiB  packed\n", "weights", mib(p->memory.weight_bytes));
    (void)printf("  %-16s %10.1f MiB  context %" PRId64 ", keys %s, values %s\n", "KV cache",
                 mib(p->memory.kv_bytes), p->n_ctx, qtypes[p->type_k].name, qtypes[p->type_v].name);
    (void)printf("  %-16s %10.1f MiB  batches of %d\n", "scratch", mib(p->memory.scratch_bytes), p->n_batch);
    (void)printf("  %-16s %10.1f MiB\n", "together", mib(total));
    if (p->on_gpu && p->why_unknown[0])
        (void)printf("  %-16s %14s  %s\n", "the GPU's", "unknown", p->why_unknown);
    else if (p->on_gpu)
        (void)printf("  %-16s %10.1f MiB  free of %.1f: %s\n", "the GPU's", mib(p->gpu_free),
                     mib(p->gpu_total), total <= p->gpu_free ? "it fits" : "it does not fit");
}

static void print_text_form(const struct inspection *in)
{
    print_head(in);
    print_types(in);
    (void)printf("\nmetadata\n");
    for (size_t i = 0; i < weights_n_meta(in->w); i++)
        print_meta(weights_meta(in->w, i));
    if (in->show_tensors)
        print_tensors(in->w);
    if (in->show_plan)
        print_plan(&in->plan);
}

/* ---- Command ------------------------------------------------------------------------------------- */

static void gather(struct inspection *in)
{
    const char *path = weights_path(in->w);
    size_t path_len = strlen(path);
    in->has_config = config_read(&in->config, in->w, in->why_not, sizeof in->why_not) == 0;
    if (!in->has_config && strncmp(in->why_not, path, path_len) == 0 && in->why_not[path_len] == ':')
        memmove(in->why_not, in->why_not + path_len + 2, strlen(in->why_not + path_len + 2) + 1);
    for (size_t i = 0; i < weights_n_tensors(in->w); i++) {
        const struct tensor *t = weights_tensor(in->w, i);
        uint64_t n = t->bytes / (uint64_t)qtypes[t->type].block_bytes * (uint64_t)qtypes[t->type].block_len;
        struct type_total *totals[] = {&in->type[t->type], &in->all};
        for (int k = 0; k < 2; k++) {
            totals[k]->n_tensors++;
            totals[k]->n_params += n;
            totals[k]->bytes += t->bytes;
        }
    }
}

static int inspect(struct inspection *in, const struct run_options *o, bool json)
{
    char err[512];
    gather(in);
    /* The rest is shown even where there is nothing to plan with. */
    bool plan_asked = in->show_plan;
    int no_plan = 0;
    if (plan_asked && in->has_config)
        no_plan = plan_memory(&in->plan, &in->config, in->w, o, err, sizeof err);
    in->show_plan = plan_asked && in->has_config && !no_plan;
    if (!json)
        print_text_form(in);
    else if (inspect_print_json(in) != 0)
        return tool_error("out of memory");
    if (no_plan)
        return tool_error("%s", err);
    if (plan_asked && !in->has_config)
        return tool_error("%s: nothing to plan with: %s", weights_path(in->w), in->why_not);
    return EXIT_OK;
}

int cmd_inspect(int argc, char **argv)
{
    struct run_options run = {.n_ctx = 0};
    struct inspection in = {.show_plan = false};
    bool json = false;
    const char *arg = NULL;
    char err[1024];
    const struct option_row rows[] = {
        OPTION_FLAG_ROW("tensors", 0, &in.show_tensors, "list the tensors, with type, size and shape"),
        OPTION_FLAG_ROW("json", 0, &json, "one JSON object"),
        OPTION_FLAG_ROW(
            "plan", 0, &in.show_plan,
            "also the memory to run it: weights, KV cache at -c, scratch (-b, -t, --kv-type count)"),
    };
    struct option_set set = {
        .usage = "quoll inspect MODEL [--tensors] [--json] [--plan] [-c N] [options]",
        .about = "Shows what a model file holds: metadata, architecture, tensors, bytes by type.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .run = &run,
        .args = &arg,
        .max_args = 1,
    };
    int code = options_parse(&set, argc, argv);
    if (code == OPTIONS_GO) {
        const char *given = set.n_args ? arg : run.models.n ? run.models.item[run.models.n - 1] : NULL;
        const char *path = model_path(given, err, sizeof err);
        struct weights *w = NULL;
        if (!path || weights_open(&w, path, NULL, err, sizeof err) != 0)
            code = tool_error("%s", err);
        else {
            in.w = w;
            code = inspect(&in, &run, json);
        }
        weights_close(w);
    }
    run_options_free(&run);
    return code;
}
