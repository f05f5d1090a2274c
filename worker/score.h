/* The probability of strings as the next bytes, from logits: of the tokens that are the string, and of those
 * that begin with it. Memory is taken at creation; one thread at a time. Numbers are of the model's own
 * distribution, as the sampler's log-probabilities, and the same on every machine but for the C library's
 * logarithm. */
#ifndef WOOLLY_WORKER_SCORE_H
#define WOOLLY_WORKER_SCORE_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/sampler.h"
#include "worker/token/byte_order.h"

/* The logarithm of no probability. */
#define SCORE_NONE (-9999.0)

struct score;

/* The order must outlive it. */
struct score *score_create(const struct byte_order *o);
void score_destroy(struct score *s);

/* Takes in the logits of one position: one pass over the vocabulary. The logits must stay until the last
 * question about them, the sampler is free again at once. False if no token is possible. */
bool score_begin(struct score *s, struct sampler *sampler, const float *logits);

/* Logarithms, or SCORE_NONE. A string that is one token's alone has the log-probability that the sampler
 * gives it. In the others, tokens of less than e^-87 of the most likely one count as nothing. O(log V). */
double score_exact(const struct score *s, const char *bytes, size_t len);
double score_prefix(const struct score *s, const char *bytes, size_t len);

/* The probability of a part of the order. */
double score_mass(const struct score *s, struct byte_range range);

#endif
