/* The sampler chain: logits → id. Steps and their order are INTERFACE's; definitions are those of the
 * papers named at each step in sampler.c. */
#ifndef QUOLL_SAMPLER_H
#define QUOLL_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct logit_bias {
    int32_t id;
    float bias; /* −INFINITY bans */
};

enum { SAMPLER_MAX_STEPS = 16 };

struct sampler_options {
    uint64_t seed;
    float temp;                 /* ≤ 0: greedy */
    int top_k;                  /* ≤ 0: off */
    float top_p, min_p, typical, top_n_sigma;
    float xtc_probability, xtc_threshold;
    float repeat_penalty, presence_penalty, frequency_penalty;
    int repeat_last_n;          /* −1: the whole context; 0: off */
    float dry_multiplier, dry_base;
    int dry_allowed_length, dry_penalty_last_n;
    const int32_t (*dry_breakers)[8]; /* reserved; NULL: none */
    size_t n_dry_breakers;
    int mirostat;               /* 0 or 2 */
    float mirostat_tau, mirostat_eta;
    const struct logit_bias *logit_bias;
    size_t n_logit_bias;
    const char *samplers;       /* NULL: the default order; else names separated by ';' */
};

void sampler_defaults(struct sampler_options *o);

struct sampler;

int sampler_new(struct sampler **out, const struct sampler_options *o, int vocab_size, char *err,
                size_t errlen);
void sampler_free(struct sampler *s);
/* Ids already seen (the prompt's, then each accepted one), for penalties and DRY. */
void sampler_accept(struct sampler *s, int32_t id);
void sampler_reset(struct sampler *s); /* forgets what was seen; the random state goes on */
/* Picks an id; logits (vocab_size) are not changed. Does not accept it. */
int32_t sampler_pick(struct sampler *s, const float *logits);

#endif
