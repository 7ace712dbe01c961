/* The sampler chain. Each step narrows or reshapes the candidates; what is left is drawn from.
 *
 *   penalties    Keskar et al. 2019 (CTRL), section 4.1: each id seen, once: x > 0 ? x / r : x · r;
 *                then OpenAI's x − frequency · count − presence
 *   dry          "Don't repeat yourself" (p-e-w, text-generation-webui 5637): an id that would continue a
 *                repetition of the text's end, m tokens long, loses multiplier · base^(m − allowed)
 *   top_n_sigma  Tang et al. 2024: x ≥ max − n · σ, σ the population's standard deviation
 *   top_k        Fan et al. 2018
 *   typ_p        Meister et al. 2022 (locally typical): by |−ln p − H| upwards, until their sum reaches c
 *   tfs          Phénix & Egan 2019 (tail free): by the second differences of the sorted p
 *   top_p        Holtzman et al. 2019 (nucleus): an id stays if the sum of all larger p is below c
 *   min_p        Nguyen et al. 2024: p ≥ m · max p
 *   xtc          "Exclude top choices" (p-e-w, text-generation-webui 6335)
 *   temperature  x / t
 *   mirostat 2   Basu et al. 2020, algorithm 2: ids of surprise −log2 p ≤ μ; μ −= η (surprise − τ)
 *
 * Probabilities are those of the step's own input, computed in double. */
#include "model/sampler.h"

#include "quant/err.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler;
typedef void step_fn(struct sampler *s);

struct sampler {
    struct sampler_options o; /* its pointers are ours or NULL */
    int vocab_size;
    uint64_t rng[4];
    float mu; /* mirostat's */

    step_fn *step[SAMPLER_MAX_STEPS];
    int n_steps;

    struct candidate *cand; /* (vocab_size); the first n are left */
    size_t n;
    size_t n_sorted; /* the first n_sorted are the largest, in order */

    int32_t *seen; /* (n_seen) */
    size_t n_seen, cap_seen;
    int32_t *count;   /* (vocab_size) in the last repeat_last_n ids */
    int32_t *match;   /* (cap_seen) DRY: of the text's end, read backwards, with itself */
    int32_t *repeats; /* (vocab_size) DRY: longest repetition that this id would continue */
    bool *breaker;    /* (vocab_size) or NULL */
    struct logit_bias *bias;
};

/* ---- Random numbers: xoshiro256** (Blackman & Vigna 2018), seeded by splitmix64 ------------------ */

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

/* Uniform in [0, 1). */
static double random_unit(uint64_t s[4])
{
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* ---- Sorting ------------------------------------------------------------------------------------- */

/* Strict orders, so that equal values have one result: the lower id first. */
static inline bool by_logit(const struct candidate *a, const struct candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

/* Here p holds a distance: the smallest first. */
static inline bool by_distance(const struct candidate *a, const struct candidate *b)
{
    return a->p != b->p ? a->p < b->p : a->id < b->id;
}

typedef bool order_fn(const struct candidate *a, const struct candidate *b);

static inline void exchange(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* heap[0] is the last of its order; restores that for the part below i. */
__attribute__((always_inline)) static inline void sift_down(struct candidate *heap, size_t n, size_t i,
                                                            order_fn *before)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            return;
        if (child + 1 < n && before(&heap[child], &heap[child + 1]))
            child++;
        if (!before(&heap[i], &heap[child]))
            return;
        exchange(&heap[i], &heap[child]);
        i = child;
    }
}

/* Brings the first k of c[0 … n) to the front, in order. O(n log k) whatever the input; for the usual
 * k ≪ n nearly every element costs one comparison. */
__attribute__((always_inline)) static inline void select_first(struct candidate *c, size_t n, size_t k,
                                                               order_fn *before)
{
    if (k > n)
        k = n;
    if (k == 0)
        return;
    for (size_t i = k / 2; i-- > 0;)
        sift_down(c, k, i, before);
    for (size_t i = k; i < n; i++) {
        if (before(&c[i], &c[0])) {
            exchange(&c[i], &c[0]);
            sift_down(c, k, 0, before);
        }
    }
    for (size_t left = k; left-- > 1;) {
        exchange(&c[0], &c[left]);
        sift_down(c, left, 0, before);
    }
}

/* The k largest (all, if fewer) are in front and sorted. */
static void sort_top(struct sampler *s, size_t k)
{
    if (k > s->n)
        k = s->n;
    if (k <= s->n_sorted)
        return;
    select_first(s->cand + s->n_sorted, s->n - s->n_sorted, k - s->n_sorted, by_logit);
    s->n_sorted = k;
}

/* Grows the sorted part by a factor when a step walks past it. */
static void sort_past(struct sampler *s, size_t i)
{
    if (i >= s->n_sorted)
        sort_top(s, i < 64 ? 128 : 4 * i);
}

static void keep_first(struct sampler *s, size_t n)
{
    s->n = n;
    if (s->n_sorted > n)
        s->n_sorted = n;
}

/* Keeps the candidates with logit ≥ least, in their order. */
static void keep_at_least(struct sampler *s, double least)
{
    size_t n = 0, n_sorted = 0;
    for (size_t i = 0; i < s->n; i++) {
        if ((double)s->cand[i].logit < least)
            continue;
        n_sorted += i < s->n_sorted;
        s->cand[n++] = s->cand[i];
    }
    s->n = n;
    s->n_sorted = n_sorted;
}

/* ---- Helpers of the steps ------------------------------------------------------------------------ */

/* Steps may overflow; the rest of the chain counts on finite logits. */
static float bounded(double x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : (float)x;
}

static double max_logit(const struct sampler *s)
{
    float max = s->cand[0].logit;
    for (size_t i = 1; s->n_sorted == 0 && i < s->n; i++)
        if (s->cand[i].logit > max)
            max = s->cand[i].logit;
    return (double)max;
}

/* Fills p; n ≥ 1. */
static void softmax(struct sampler *s)
{
    double max = max_logit(s), sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += exp((double)s->cand[i].logit - max);
    for (size_t i = 0; i < s->n; i++)
        s->cand[i].p = (float)(exp((double)s->cand[i].logit - max) / sum);
}

/* ---- Steps: called with n ≥ 1 candidates of finite logits, leave n ≥ 1 --------------------------- */

static void step_penalties(struct sampler *s)
{
    const struct sampler_options *o = &s->o;
    if (o->repeat_penalty == 1 && o->frequency_penalty == 0 && o->presence_penalty == 0)
        return;
    for (size_t i = 0; i < s->n; i++) {
        int32_t count = s->count[s->cand[i].id];
        if (count == 0)
            continue;
        float x = s->cand[i].logit;
        x = bounded((double)(x > 0 ? x / o->repeat_penalty : x * o->repeat_penalty));
        s->cand[i].logit = bounded((double)(x - (float)count * o->frequency_penalty - o->presence_penalty));
    }
    s->n_sorted = 0;
}

/* The text's end, read backwards: r[k]. match[k] is how far r[k …] agrees with r: the Z algorithm
 * (Gusfield 1997, section 1.3), linear in the text. */
static void match_end(struct sampler *s, const int32_t *text, size_t n)
{
    const int32_t *end = text + n - 1;
    size_t left = 0, right = 0; /* the agreement that reaches furthest: r[left … right) */
    for (size_t k = 1; k < n; k++) {
        size_t m = 0;
        if (k < right)
            m = (size_t)s->match[k - left] < right - k ? (size_t)s->match[k - left] : right - k;
        while (k + m < n && end[-(ptrdiff_t)m] == end[-(ptrdiff_t)(k + m)])
            m++;
        s->match[k] = (int32_t)m;
        if (k + m > right) {
            left = k;
            right = k + m;
        }
    }
}

static void step_dry(struct sampler *s)
{
    const struct sampler_options *o = &s->o;
    size_t n = s->n_seen;
    if (o->dry_penalty_last_n >= 0 && n > (size_t)o->dry_penalty_last_n)
        n = (size_t)o->dry_penalty_last_n;
    if (o->dry_multiplier <= 0 || n < 2)
        return;
    const int32_t *text = s->seen + s->n_seen - n;
    size_t limit = 0; /* tokens since the last breaker */
    while (limit < n && !(s->breaker && s->breaker[text[n - 1 - limit]]))
        limit++;
    if (limit == 0)
        return;

    match_end(s, text, n);
    for (size_t k = 1; k < n; k++) {
        size_t m = (size_t)s->match[k] < limit ? (size_t)s->match[k] : limit;
        int32_t next = text[n - k]; /* what followed the earlier occurrence */
        if (!(s->breaker && s->breaker[next]) && s->repeats[next] < (int32_t)m)
            s->repeats[next] = (int32_t)m;
    }
    for (size_t i = 0; i < s->n; i++) {
        int32_t m = s->repeats[s->cand[i].id];
        if (m == 0 || m < o->dry_allowed_length)
            continue;
        double penalty = (double)o->dry_multiplier * pow((double)o->dry_base, m - o->dry_allowed_length);
        s->cand[i].logit = bounded((double)s->cand[i].logit - penalty);
    }
    for (size_t k = 1; k < n; k++)
        s->repeats[text[n - k]] = 0;
    s->n_sorted = 0;
}

static void step_top_n_sigma(struct sampler *s)
{
    if (s->o.top_n_sigma <= 0)
        return;
    double sum = 0, square = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += (double)s->cand[i].logit;
    double mean = sum / (double)s->n;
    for (size_t i = 0; i < s->n; i++) {
        double d = (double)s->cand[i].logit - mean;
        square += d * d;
    }
    keep_at_least(s, max_logit(s) - (double)s->o.top_n_sigma * sqrt(square / (double)s->n));
}

static void step_top_k(struct sampler *s)
{
    if (s->o.top_k <= 0 || (size_t)s->o.top_k >= s->n)
        return;
    sort_top(s, (size_t)s->o.top_k);
    keep_first(s, (size_t)s->o.top_k);
}

static void step_typical(struct sampler *s)
{
    if (s->o.typical >= 1 || s->n < 2)
        return;
    double max = max_logit(s), sum = exp((double)s->cand[0].logit - max), entropy = 0;
    for (size_t i = 1; i < s->n; i++)
        sum += exp((double)s->cand[i].logit - max);
    /* −ln p = ln sum + max − x; H = Σ p (−ln p) */
    double log_sum = log(sum) + max;
    for (size_t i = 0; i < s->n; i++) {
        double surprise = log_sum - (double)s->cand[i].logit;
        entropy += exp(-surprise) * surprise;
    }
    for (size_t i = 0; i < s->n; i++)
        s->cand[i].p = (float)fabs(log_sum - (double)s->cand[i].logit - entropy);

    double before = 0; /* Σ p of those nearer to H */
    size_t kept = 0, ordered = 0;
    for (; kept < s->n && (kept == 0 || before < (double)s->o.typical); kept++) {
        if (kept == ordered) {
            size_t more = ordered < 64 ? 128 : 3 * ordered;
            select_first(s->cand + ordered, s->n - ordered, more, by_distance);
            ordered = more < s->n - ordered ? ordered + more : s->n;
        }
        before += exp((double)s->cand[kept].logit - log_sum);
    }
    s->n = kept;
    s->n_sorted = 0;
}

static void step_tail_free(struct sampler *s)
{
    if (s->o.tfs >= 1 || s->n < 3)
        return;
    sort_top(s, s->n);
    softmax(s);
    const struct candidate *c = s->cand;
    double sum = 0, running = 0;
    for (size_t i = 0; i + 2 < s->n; i++)
        sum += fabs((double)c[i].p - 2 * (double)c[i + 1].p + (double)c[i + 2].p);
    for (size_t i = 0; sum > 0 && i + 2 < s->n; i++) {
        running += fabs((double)c[i].p - 2 * (double)c[i + 1].p + (double)c[i + 2].p) / sum;
        if (i >= 1 && running > (double)s->o.tfs) {
            keep_first(s, i);
            return;
        }
    }
}

static void step_top_p(struct sampler *s)
{
    if (s->o.top_p >= 1)
        return;
    softmax(s);
    double larger = 0;
    size_t kept = 0;
    for (; kept < s->n && (kept == 0 || larger < (double)s->o.top_p); kept++) {
        sort_past(s, kept);
        larger += (double)s->cand[kept].p;
    }
    keep_first(s, kept);
}

static void step_min_p(struct sampler *s)
{
    if (s->o.min_p > 0)
        keep_at_least(s, max_logit(s) + fmin(log((double)s->o.min_p), 0));
}

static void step_xtc(struct sampler *s)
{
    if (s->o.xtc_probability <= 0 || random_unit(s->rng) >= (double)s->o.xtc_probability)
        return;
    softmax(s);
    size_t n_top = 0;
    for (; n_top < s->n; n_top++) {
        sort_past(s, n_top);
        if (s->cand[n_top].p < s->o.xtc_threshold)
            break;
    }
    if (n_top < 2)
        return;
    s->n -= n_top - 1;
    s->n_sorted -= n_top - 1;
    memmove(s->cand, s->cand + n_top - 1, s->n * sizeof *s->cand);
}

static void step_temperature(struct sampler *s)
{
    if (s->o.temp != 1)
        for (size_t i = 0; i < s->n; i++)
            s->cand[i].logit = bounded((double)(s->cand[i].logit / s->o.temp));
}

static void step_mirostat(struct sampler *s)
{
    softmax(s);
    size_t kept = 0;
    for (; kept < s->n; kept++) {
        sort_past(s, kept);
        if (kept > 0 && -log2((double)s->cand[kept].p) > (double)s->mu)
            break;
    }
    keep_first(s, kept);
}

static void step_greedy(struct sampler *s)
{
    sort_top(s, 1);
    keep_first(s, 1);
}

/* ---- The chain ----------------------------------------------------------------------------------- */

static const struct {
    const char *name, *alias;
    step_fn *run;
    bool reshapes; /* what greedy choice needs too: the rest only cuts below the best */
} steps[] = {
    {"penalties", "penalty", step_penalties, true},
    {"dry", "dry", step_dry, true},
    {"top_n_sigma", "top_nsigma", step_top_n_sigma, false},
    {"top_k", "top_k", step_top_k, false},
    {"typ_p", "typical", step_typical, false},
    {"tfs", "tail_free", step_tail_free, false},
    {"top_p", "nucleus", step_top_p, false},
    {"min_p", "min_p", step_min_p, false},
    {"xtc", "xtc", step_xtc, false},
    {"temperature", "temp", step_temperature, false},
};
enum { N_STEPS = sizeof steps / sizeof steps[0] };

/* Is text[0 … len) this name, '-' as good as '_'? */
static bool same_name(const char *text, size_t len, const char *name)
{
    for (size_t i = 0; i < len; i++)
        if (!name[i] || (text[i] == '-' ? '_' : text[i]) != name[i])
            return false;
    return !name[len];
}

/* Fills at most SAMPLER_MAX_STEPS indices into steps[]; their number, or −1. */
static int parse_steps(const char *text, int index[SAMPLER_MAX_STEPS], char *err, size_t errlen)
{
    int n = 0;
    while (*text) {
        size_t len = strcspn(text, ";,");
        size_t i = 0;
        while (i < N_STEPS && !same_name(text, len, steps[i].name) && !same_name(text, len, steps[i].alias))
            i++;
        if (i == N_STEPS)
            return err_set(err, errlen, "no sampler '%.*s' among %s", (int)(len < 64 ? len : 64), text,
                           SAMPLER_DEFAULT_STEPS);
        if (n == SAMPLER_MAX_STEPS)
            return err_set(err, errlen, "more than %d samplers", SAMPLER_MAX_STEPS);
        index[n++] = (int)i;
        text += len;
        text += *text != '\0';
    }
    return n;
}

int sampler_check_steps(const char *samplers, char *err, size_t errlen)
{
    int index[SAMPLER_MAX_STEPS];
    return parse_steps(samplers, index, err, errlen) < 0 ? -1 : 0;
}

static int choose_steps(struct sampler *s, char *err, size_t errlen)
{
    int index[SAMPLER_MAX_STEPS];
    int n = parse_steps(s->o.samplers ? s->o.samplers : SAMPLER_DEFAULT_STEPS, index, err, errlen);
    if (n < 0)
        return -1;
    s->o.samplers = NULL;
    bool greedy = s->o.temp <= 0;
    if (s->o.mirostat && !greedy) {
        s->step[s->n_steps++] = step_temperature;
        s->step[s->n_steps++] = step_mirostat;
        return 0;
    }
    for (int i = 0; i < n; i++)
        if (!greedy || steps[index[i]].reshapes)
            s->step[s->n_steps++] = steps[index[i]].run;
    if (greedy) {
        s->n_steps -= s->n_steps == SAMPLER_MAX_STEPS; /* sixteen of them repeat each other */
        s->step[s->n_steps++] = step_greedy;
    }
    return 0;
}

void sampler_defaults(struct sampler_options *o)
{
    *o = (struct sampler_options){.temp = 0.8f,
                                  .top_k = 40,
                                  .top_p = 0.95f,
                                  .min_p = 0.05f,
                                  .typical = 1,
                                  .tfs = 1,
                                  .xtc_threshold = 0.1f,
                                  .repeat_penalty = 1,
                                  .repeat_last_n = 64,
                                  .dry_base = 1.75f,
                                  .dry_allowed_length = 2,
                                  .dry_penalty_last_n = -1,
                                  .mirostat_tau = 5,
                                  .mirostat_eta = 0.1f};
}

static int check_options(const struct sampler_options *o, int vocab_size, char *err, size_t errlen)
{
    const struct {
        const char *name;
        float value, min;
    } numbers[] = {
        {"temperature", o->temp, -FLT_MAX},
        {"top-p", o->top_p, 0},
        {"min-p", o->min_p, 0},
        {"typical", o->typical, 0},
        {"tfs", o->tfs, 0},
        {"top-n-sigma", o->top_n_sigma, -FLT_MAX},
        {"xtc-probability", o->xtc_probability, 0},
        {"xtc-threshold", o->xtc_threshold, 0},
        {"repeat-penalty", o->repeat_penalty, FLT_MIN},
        {"presence-penalty", o->presence_penalty, -FLT_MAX},
        {"frequency-penalty", o->frequency_penalty, -FLT_MAX},
        {"dry-multiplier", o->dry_multiplier, 0},
        {"dry-base", o->dry_base, 0},
        {"mirostat-tau", o->mirostat_tau, 0},
        {"mirostat-eta", o->mirostat_eta, 0},
    };
    if (vocab_size < 1)
        return err_set(err, errlen, "sampler: a vocabulary of %d", vocab_size);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (!(numbers[i].value >= numbers[i].min && numbers[i].value <= FLT_MAX))
            return err_set(err, errlen, "sampler: %s is %g", numbers[i].name, (double)numbers[i].value);
    if (o->mirostat != 0 && o->mirostat != 2)
        return err_set(err, errlen, "sampler: mirostat is %d, not 0 or 2", o->mirostat);
    for (size_t i = 0; i < o->n_logit_bias; i++)
        if (o->logit_bias[i].id < 0 || o->logit_bias[i].id >= vocab_size || isnan(o->logit_bias[i].bias))
            return err_set(err, errlen, "logit bias of id %d: the vocabulary has %d ids", o->logit_bias[i].id,
                           vocab_size);
    return 0;
}

int sampler_new(struct sampler **out, const struct sampler_options *o, int vocab_size, char *err,
                size_t errlen)
{
    *out = NULL;
    if (check_options(o, vocab_size, err, errlen) != 0)
        return -1;
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, errlen, "sampler: out of memory");
    size_t n = (size_t)vocab_size;
    s->o = *o;
    s->vocab_size = vocab_size;
    s->mu = 2 * o->mirostat_tau;
    uint64_t state = o->seed;
    for (int i = 0; i < 4; i++)
        s->rng[i] = splitmix64(&state);

    s->cand = malloc(n * sizeof *s->cand);
    s->count = calloc(n, sizeof *s->count);
    s->repeats = calloc(n, sizeof *s->repeats);
    s->breaker = o->dry_breaker ? malloc(n * sizeof *s->breaker) : NULL;
    s->bias = o->n_logit_bias ? malloc(o->n_logit_bias * sizeof *s->bias) : NULL;
    if (!s->cand || !s->count || !s->repeats || (o->dry_breaker && !s->breaker) ||
        (o->n_logit_bias && !s->bias)) {
        sampler_free(s);
        return err_set(err, errlen, "sampler: out of memory");
    }
    if (s->breaker)
        memcpy(s->breaker, o->dry_breaker, n * sizeof *s->breaker);
    if (s->bias)
        memcpy(s->bias, o->logit_bias, o->n_logit_bias * sizeof *s->bias);
    s->o.dry_breaker = s->breaker;
    s->o.logit_bias = s->bias;
    if (choose_steps(s, err, errlen) != 0) {
        sampler_free(s);
        return -1;
    }
    *out = s;
    return 0;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->cand);
    free(s->seen);
    free(s->count);
    free(s->match);
    free(s->repeats);
    free(s->breaker);
    free(s->bias);
    free(s);
}

int sampler_accept(struct sampler *s, int32_t id)
{
    if (id < 0 || id >= s->vocab_size)
        return 0; /* nothing that a step could reach */
    if (s->n_seen == s->cap_seen) {
        size_t cap = s->cap_seen ? 2 * s->cap_seen : 4096;
        int32_t *seen = realloc(s->seen, cap * sizeof *seen);
        if (!seen)
            return -1;
        s->seen = seen;
        int32_t *match = realloc(s->match, cap * sizeof *match);
        if (!match)
            return -1;
        s->match = match;
        s->cap_seen = cap;
    }
    s->seen[s->n_seen++] = id;
    s->count[id]++;
    /* the window of the penalties slides */
    if (s->o.repeat_last_n >= 0 && s->n_seen > (size_t)s->o.repeat_last_n)
        s->count[s->seen[s->n_seen - 1 - (size_t)s->o.repeat_last_n]]--;
    return 0;
}

void sampler_reset(struct sampler *s)
{
    memset(s->count, 0, (size_t)s->vocab_size * sizeof *s->count);
    s->n_seen = 0;
    s->mu = 2 * s->o.mirostat_tau;
}

const struct candidate *sampler_distribution(struct sampler *s, const float *logits, size_t *n)
{
    for (int32_t id = 0; id < s->vocab_size; id++)
        s->cand[id] = (struct candidate){id, logits[id], 0};
    for (size_t i = 0; i < s->o.n_logit_bias; i++)
        s->cand[s->bias[i].id].logit += s->bias[i].bias;
    s->n = 0;
    s->n_sorted = 0;
    for (int32_t id = 0; id < s->vocab_size; id++) {
        struct candidate c = s->cand[id];
        if (c.logit > -INFINITY) { /* no NaN either */
            c.logit = c.logit > FLT_MAX ? FLT_MAX : c.logit;
            s->cand[s->n++] = c;
        }
    }
    for (int i = 0; i < s->n_steps && s->n > 0; i++)
        s->step[i](s);
    if (s->n > 0)
        softmax(s);
    *n = s->n;
    return s->cand;
}

void sampler_choose(struct sampler *s, const struct candidate *c)
{
    if (s->o.mirostat && c->p > 0)
        s->mu = bounded((double)s->mu -
                        (double)s->o.mirostat_eta * (-log2((double)c->p) - (double)s->o.mirostat_tau));
}

float sampler_mirostat_mu(const struct sampler *s)
{
    return s->mu;
}

int32_t sampler_pick(struct sampler *s, const float *logits)
{
    size_t n, i = 0;
    const struct candidate *c = sampler_distribution(s, logits, &n);
    if (n == 0)
        return 0;
    if (n > 1) {
        double sum = 0, running = 0;
        for (size_t k = 0; k < n; k++)
            sum += (double)c[k].p;
        double target = random_unit(s->rng) * sum;
        for (; i + 1 < n; i++) {
            running += (double)c[i].p;
            if (running > target)
                break;
        }
    }
    sampler_choose(s, &c[i]);
    return c[i].id;
}
