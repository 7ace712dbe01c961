/* quoll convert: any model that -m takes, as one GGUF. */
#include "tools/convert_vocab.h"
#include "tools/options.h"
#include "tools/tools.h"

#include "model/export.h"
#include "quant/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct convert_command {
    struct lora_list lora;
    const char *type; /* "keep" or a float type */
};

/* −1: keep, −2: none of these. */
static int type_of(const char *name)
{
    if (!name || strcmp(name, "keep") == 0)
        return -1;
    int type = qtype_by_name(name);
    return type == QTYPE_F32 || type == QTYPE_F16 || type == QTYPE_BF16 ? type : -2;
}

struct progress {
    struct export *export;
    size_t n;
};

static int write_tensor(void *arg, size_t i, struct save_file *f)
{
    struct progress *p = arg;
    tool_note(NOTE_VERBOSE, "tensor %zu of %zu\n", i + 1, p->n);
    return tool_interrupts() > 0 ? -1 : export_write(p->export, i, f);
}

/* Rows of the embedding: as many tokens the model knows. */
static size_t embedding_rows(const struct save_gguf *g)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensor[i].name, "token_embd.weight") == 0)
            return (size_t)g->tensor[i].dims[1];
    return 0;
}

static int convert(const char *in, const char *out, int type, const struct lora_list *lora, char *err,
                   size_t errlen)
{
    struct weights *w;
    struct vocab_meta *vocab = NULL;
    struct progress p = {NULL, 0};
    struct save_gguf g = {.write = write_tensor, .arg = &p};
    if (weights_open(&w, in, NULL, err, errlen))
        return -1;
    int rc = export_open(&p.export, w, type, lora->item, lora->n, err, errlen);
    if (rc == 0) {
        g.meta = export_meta(p.export, &g.n_meta);
        g.tensor = export_tensors(p.export, &g.n_tensors);
        p.n = g.n_tensors;
    }
    if (rc == 0 && strncmp(weights_format(w), "GGUF", 4) != 0) {
        rc = vocab_meta_open(&vocab, w, g.meta, g.n_meta, embedding_rows(&g), err, errlen);
        if (rc == 0)
            g.meta = vocab_meta_all(vocab, &g.n_meta);
    }
    if (rc == 0)
        rc = weights_save_gguf(out, &g, err, errlen);
    vocab_meta_close(vocab);
    export_close(p.export);
    weights_close(w);
    return rc;
}

int cmd_convert(int argc, char **argv)
{
    struct convert_command c = {.type = NULL};
    const char *args[2];
    const struct option_row rows[] = {
        OPTION_STRING_ROW(
            "type", 0, &c.type, "TYPE",
            "f32, f16 or bf16 for all matrices; keep (default): each as it is, and what no GGUF "
            "can hold (GPTQ's and AWQ's zero points and act-order) as f32"),
        OPTION_CALL_ROW("lora", 0, &c.lora, lora_append, "PATH[:SCALE]",
                        "merge a PEFT adapter into the matrices, repeatable"),
    };
    struct option_set set = {
        .usage = "quoll convert IN OUT.gguf [--type f32|f16|bf16|keep]",
        .about = "Writes a model (a Hugging Face folder, a checkpoint, a llama2.c file, a GGUF) as a GGUF.",
        .own = rows,
        .n_own = sizeof rows / sizeof rows[0],
        .args = args,
        .max_args = 2,
    };
    int code = options_parse(&set, argc, argv);
    if (code != OPTIONS_GO) {
        lora_list_free(&c.lora);
        return code;
    }
    int type = type_of(c.type);
    if (set.n_args != 2 || type < -1) {
        lora_list_free(&c.lora);
        if (set.n_args != 2)
            return usage_error("convert: IN and OUT.gguf are needed; see `quoll convert --help`");
        return usage_error("convert: --type wants f32, f16, bf16 or keep, not '%s'", c.type);
    }
    char err[1024] = "";
    tool_catch_interrupts();
    int rc = convert(args[0], args[1], type, &c.lora, err, sizeof err);
    lora_list_free(&c.lora);
    if (rc == 0)
        return EXIT_OK;
    return tool_interrupts() > 0 ? EXIT_INTERRUPTED : tool_error("%s", err);
}
