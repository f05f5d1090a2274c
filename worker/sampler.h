/* Choosing the next token from logits. The random number of a choice depends only on (seed, position), by the
 * counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011), and the same logits give the same choice at every level of the kernels, so a sequence moved to
 * another worker goes on as if nothing had happened. */
#ifndef WOOLLY_WORKER_SAMPLER_H
#define WOOLLY_WORKER_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

enum { SAMPLER_MAX_LOGPROBS = 20 };

struct sampling {
    float temperature; /* 0 is greedy: the highest logit, the lowest id on a tie */
    int top_k;         /* keep the k most likely; 0 keeps all */
    float top_p;       /* keep the smallest set that has this share of what top_k left; 1 keeps all */
    float min_p;       /* drop what is less likely than this share of the most likely; 0 keeps all */
    uint64_t seed;
    int n_logprobs; /* most likely tokens to report, 0..SAMPLER_MAX_LOGPROBS */
};

struct token_logprob {
    int32_t id;
    float logprob; /* natural logarithm, of the model's own distribution: temperature 1, nothing cut off */
};

struct choice {
    struct token_logprob token;
    int n_top; /* less than asked for where fewer tokens are possible at all */
    struct token_logprob top[SAMPLER_MAX_LOGPROBS]; /* most likely first; the lower id first on a tie */
};

struct sampler; /* scratch memory; one per thread */

struct sampler *sampler_create(int n_vocab);
void sampler_destroy(struct sampler *s);

/* Filters in the order top-k, top-p, min-p on the distribution at temperature 1, then applies the temperature
 * and draws. `position` is the index in the sequence of the token being chosen. Not-a-number logits count as
 * minus infinity; false if nothing is left: the choice is then id 0 and its log-probability minus infinity.
 * Allocates nothing. */
bool sampler_choose(struct sampler *s, const struct sampling *how, const float *logits, uint64_t position,
                    struct choice *out);

/* What sampler_choose reports, for a token that is given: its log-probability and the n_top most likely ones.
 * False, with minus infinity and none, where no token is possible. */
bool sampler_describe(struct sampler *s, const float *logits, int32_t token, int n_top, struct choice *out);

/* The scale of a row of logits. */
struct logit_scale {
    float max;
    double log_z; /* the logarithm of the sum of exp(x - max) */
};

/* The log-probability of a logit, as it is reported. */
float logit_logprob(const struct logit_scale *scale, float x);

/* exp(x - max) of every logit, 0 below e^-87: [n_vocab], until the sampler is used again. NULL where no token
 * is possible. */
const float *sampler_weigh(struct sampler *s, const float *logits, struct logit_scale *scale);

/* Four 32-bit words from a 128-bit counter and a 64-bit key. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
