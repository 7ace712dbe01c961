/* The router of a mixture of experts: which experts compute which tokens. */
#include "kernels/cpu.h"
#include "kernels/mathf.h"

/* Whether expert i is chosen before expert j: falling logits, NaN last, of equals the lower one first. A
 * total order, so that every choice is another expert, whatever the logits are. */
static bool before(const float *logits, int i, int j)
{
    float a = logits[i], b = logits[j];
    if (isnan(a) != isnan(b))
        return isnan(b);
    return a > b || (!(a < b) && i < j);
}

/* The next expert after `last` in that order; last −1: the first one. */
static int next_expert(const float *logits, int n, int last)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (i != last && (last < 0 || before(logits, last, i)) && (best < 0 || before(logits, i, best)))
            best = i;
    return best;
}

/* Σ e^(x − max), 16 partial sums. */
MATHF_INLINE float exp_sum(const float *x, int n, float max)
{
    float s[16] = {0};
    for (int i = 0; i < n; i++)
        s[i % 16] += mathf_exp(x[i] - max);
    return mathf_sum16(s);
}

/* One token's experts and weights. */
MATHF_INLINE void route_token_body(const struct route_args *a, int64_t token)
{
    const float *logits = a->logits + token * a->n_experts;
    int32_t *expert = a->scratch + token * a->n_used;
    float *weight = a->weight + token * a->n_used, chosen[16] = {0};
    for (int slot = 0, last = -1; slot < a->n_used; slot++)
        expert[slot] = last = next_expert(logits, a->n_experts, last);
    float max = logits[expert[0]], sum = exp_sum(logits, a->n_experts, max);
    for (int slot = 0; slot < a->n_used; slot++) {
        weight[slot] = mathf_exp(logits[expert[slot]] - max) / sum;
        chosen[slot % 16] += weight[slot];
    }
    float total = mathf_sum16(chosen);
    for (int slot = 0; slot < a->n_used && a->normalise; slot++)
        weight[slot] /= total;
}
FMA_VERSIONS(route_token, (const struct route_args *a, int64_t token), (a, token))

/* Counting sort by expert. A thread places the rows of the experts begin ≤ e < end; where they begin, it
 * counts for itself. */
static void group(const struct route_args *a, int begin, int end)
{
    const int64_t n = (int64_t)a->n_tokens * a->n_used;
    int32_t base = 0;
    for (int e = begin; e < end; e++)
        a->first[e] = 0;
    for (int64_t i = 0; i < n; i++) {
        int e = a->scratch[i];
        if (e < begin)
            base++;
        else if (e < end)
            a->first[e]++;
    }
    int32_t at = base;
    for (int e = begin; e < end; e++) {
        int32_t count = a->first[e];
        a->first[e] = at;
        at += count;
    }
    for (int64_t i = 0; i < n; i++) {
        int e = a->scratch[i];
        if (e < begin || e >= end)
            continue;
        a->row[i] = a->first[e]++;
        a->token[a->row[i]] = (int32_t)(i / a->n_used);
    }
    for (int e = end - 1; e >= begin; e--) /* each is now where the next expert begins */
        a->first[e] = e > begin ? a->first[e - 1] : base;
}

void cpu_route(struct worker *w, const struct route_args *a)
{
    for (int64_t t = w->id; t < a->n_tokens; t += w->n_threads)
        route_token(a, t);
    team_barrier(w);
    group(a, a->n_experts * w->id / w->n_threads, a->n_experts * (w->id + 1) / w->n_threads);
    if (w->id == 0)
        a->first[a->n_experts] = a->n_tokens * a->n_used;
    team_barrier(w);
}
