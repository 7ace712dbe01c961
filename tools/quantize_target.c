#include "tools/quantize_target.h"

#include "lab/budget.h"
#include "lab/sensitivity.h"
#include "quant/err.h"
#include "tools/corpus.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a mix or a choice comes to. */
struct sums {
    uint64_t bytes;
    double kl; /* of the matrices measured */
};

struct target {
    struct target_options o;
    struct sensitivity *sensitivity;
    bool allowed[QTYPE_N_MATRIX];
    struct sums before, after;
    double weights;
};

static double bits_of(enum qtype t)
{
    return 8.0 * qtypes[t].block_bytes / qtypes[t].block_len;
}

/* A type that can be chosen for a matrix. */
static bool can_be_chosen(int type)
{
    return type < QTYPE_N_MATRIX && qtypes[type].quantise && qtypes[type].gguf_id >= 0 &&
           qtypes[type].block_len > 1 && bits_of((enum qtype)type) >= 2;
}

/* allowed (may be NULL) of the names; −1: name `*bad` (of that length) is none of them. */
static int parse_types(const char *names, bool allowed[QTYPE_N_MATRIX], const char **bad, int *bad_len)
{
    for (const char *at = names; at;) {
        const char *comma = strchr(at, ',');
        const size_t len = comma ? (size_t)(comma - at) : strlen(at);
        char name[32];
        (void)snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name - 1), at);
        const int type = qtype_by_name(name);
        if (type < 0 || !can_be_chosen(type)) {
            *bad = at;
            *bad_len = (int)len;
            return -1;
        }
        if (allowed)
            allowed[type] = true;
        at = comma ? comma + 1 : NULL;
    }
    return 0;
}

int target_check_types(const char *names)
{
    const char *bad;
    int len;
    if (parse_types(names, NULL, &bad, &len) == 0)
        return EXIT_OK;
    return usage_error("quantize: --target-types: '%.*s' is no type that a matrix can be given", len, bad);
}

static int measure(struct target *t, struct weights *w, char *err, size_t errlen)
{
    struct corpus text;
    int32_t bos;
    if (corpus_read_for(&text, t->o.calib, t->o.source, &bos, err, errlen))
        return -1;
    const struct sensitivity_options so = {
        .ids = text.ids,
        .n_ids = (int64_t)text.n,
        .bos = bos,
        .n_probe = t->o.n_probe,
        .probe_bits = t->o.bpw,
        .importance = t->o.importance,
        .weighed = t->o.weighed,
        .lora = t->o.lora->item,
        .n_lora = t->o.lora->n,
        .n_threads = t->o.n_threads,
        .ops = ops_cpu(isa_best()),
        .stop = tool_interrupted,
        .progress = t->o.progress,
        .arg = t->o.arg,
    };
    int rc = sensitivity_open(&t->sensitivity, w, &so, err, errlen);
    if (rc > 0 && errlen)
        err[0] = 0;
    corpus_free(&text);
    return rc ? -1 : 0;
}

int target_open(struct target **out, struct weights *w, const struct target_options *o, char *err,
                size_t errlen)
{
    *out = NULL;
    struct target *t = calloc(1, sizeof *t);
    const char *bad;
    int len;
    if (!t)
        return err_set(err, errlen, "out of memory");
    t->o = *o;
    for (int type = 0; type < QTYPE_N_MATRIX && !o->types; type++)
        t->allowed[type] = can_be_chosen(type);
    if ((o->types && parse_types(o->types, t->allowed, &bad, &len)) || measure(t, w, err, errlen)) {
        target_close(t);
        return -1;
    }
    *out = t;
    return 0;
}

void target_close(struct target *t)
{
    if (!t)
        return;
    sensitivity_close(t->sensitivity);
    free(t);
}

const struct importance *target_importance(const struct target *t)
{
    return sensitivity_importance(t->sensitivity);
}

/* ---- The choice ------------------------------------------------------------------------------------- */

static struct sums sums_of(const struct target *t, const struct quantize *q)
{
    size_t n;
    const struct quantize_step *s = quantize_steps(q, &n);
    struct sums sums = {0, 0};
    for (size_t i = 0; i < n; i++) {
        const struct sensitivity_tensor *k = sensitivity_find(t->sensitivity, s[i].name);
        const double kl = k ? sensitivity_kl(k, s[i].to) : 0;
        sums.bytes += s[i].to_bytes;
        sums.kl += kl > 0 && !s[i].copied ? kl : 0;
    }
    return sums;
}

/* The choices of a matrix: types that its rows can have and that may be chosen. type: which; 0: there are
 * none, and it keeps what it has. */
static size_t list_choices(struct budget_choice choice[QTYPE_N_MATRIX], enum qtype type[QTYPE_N_MATRIX],
                           const struct target *t, const struct quantize_step *s)
{
    const struct sensitivity_tensor *k = sensitivity_find(t->sensitivity, s->name);
    size_t n = 0;
    for (int i = 0; k && !s->fixed && i < QTYPE_N_MATRIX; i++) {
        if (!t->allowed[i] || k->error[i] < 0)
            continue;
        type[n] = (enum qtype)i;
        choice[n++] =
            (struct budget_choice){sensitivity_kl(k, (enum qtype)i),
                                   (uint64_t)s->rows * (uint64_t)qtype_bytes((enum qtype)i, s->cols)};
    }
    if (n == 0) {
        type[0] = s->to;
        choice[0] = (struct budget_choice){0, s->to_bytes};
    }
    return n;
}

int target_apply(struct target *t, struct quantize *q, char *err, size_t errlen)
{
    size_t n;
    const struct quantize_step *s = quantize_steps(q, &n);
    struct budget_item *item = calloc(n + 1, sizeof *item);
    struct budget_choice(*choice)[QTYPE_N_MATRIX] = calloc(n + 1, sizeof *choice);
    enum qtype(*type)[QTYPE_N_MATRIX] = calloc(n + 1, sizeof *type);
    size_t *chosen = calloc(n + 1, sizeof *chosen);
    int rc = item && choice && type && chosen ? 0 : err_set(err, errlen, "out of memory");
    t->before = sums_of(t, q);
    t->weights = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const size_t n_choices = list_choices(choice[i], type[i], t, &s[i]);
        item[i] = (struct budget_item){choice[i], n_choices ? n_choices : 1};
        t->weights += (double)s[i].cols * (double)s[i].rows;
    }
    if (rc == 0) {
        rc = budget_choose(chosen, item, n, (uint64_t)(t->o.bpw * t->weights / 8));
        if (rc < 0)
            (void)err_set(err, errlen, "out of memory");
    }
    for (size_t i = 0; rc >= 0 && i < n; i++)
        if (!s[i].fixed && quantize_set_type(q, i, type[i][chosen[i]], err, errlen))
            rc = -1;
    if (rc >= 0)
        t->after = sums_of(t, q);
    if (rc == BUDGET_TOO_SMALL)
        rc = err_set(err, errlen,
                     "--target-bpw %g: the smallest that these types and rows allow is %.3f bits per weight",
                     t->o.bpw, 8 * (double)t->after.bytes / t->weights);
    free(chosen);
    free(type);
    free(choice);
    free(item);
    return rc;
}

/* ---- What is shown ------------------------------------------------------------------------------------ */

void target_print(const struct target *t, const struct quantize *q, const char *mix, bool tensors)
{
    size_t n;
    const struct quantize_step *s = quantize_steps(q, &n);
    if (tensors)
        printf(
            "KL: of the output, with this matrix alone quantised; as tried, and expected of the type chosen\n"
            "%-28s %8s  %-8s %10s  %-8s %10s %6s %12s\n",
            "tensor", "M", "tried", "KL", "chosen", "KL", "%", "bytes");
    for (size_t i = 0; tensors && i < n; i++) {
        const struct sensitivity_tensor *k = sensitivity_find(t->sensitivity, s[i].name);
        if (!k)
            continue;
        const double kl = s[i].copied ? 0 : sensitivity_kl(k, s[i].to);
        printf("%-28s %8.3f  %-8s %10.3e  %-8s %10.3e %6.2f %12" PRIu64 "%s\n", s[i].name,
               (double)s[i].cols * (double)s[i].rows / 1e6, qtypes[k->probe].name, k->probe_kl,
               qtypes[s[i].to].name, kl > 0 ? kl : 0, t->after.kl > 0 && kl > 0 ? 100 * kl / t->after.kl : 0,
               s[i].to_bytes, s[i].fixed ? "  as asked for" : "");
    }
    tool_note(NOTE_USUAL, "chosen: %.3f bits per weight, expected KL %.5f; all of %s: %.3f bits, %.5f\n",
              8 * (double)t->after.bytes / t->weights, t->after.kl, mix,
              8 * (double)t->before.bytes / t->weights, t->before.kl);
}
