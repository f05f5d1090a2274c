/* A draft model: a small model of the same vocabulary that runs ahead of a large one, which then checks many
 * tokens at the price of little more than one. It draws with the random numbers the large one will draw with,
 * so that where the two agree about the distribution they agree about the token.
 *
 * Owns an engine of its own, with a slot for each of the large model's. One thread calls it. What it says has
 * no effect on what is generated, only on when. */
#ifndef WOOLLY_WORKER_DRAFTER_H
#define WOOLLY_WORKER_DRAFTER_H

#include "common/status.h"
#include "worker/model/engine.h"
#include "worker/sampler.h"

/* A sequence that wants drafts. */
struct draft_request {
    int slot;
    uint64_t owner; /* of the slot: another number is another sequence */
    const int32_t *tokens;
    int n_tokens; /* at least 1 */
    const struct sampling *sampling;
    int max_draft;

    int32_t *out; /* [max_draft] */
    int n_out;
};

struct drafter;

/* `like` are the options of the large model's engine, whose threads it shares in turn. */
MUST_CHECK enum status drafter_create(struct drafter **out, const struct model *m,
                                      const struct engine_options *like, struct error *err);
void drafter_destroy(struct drafter *d);

/* Drafts for n requests in different slots, together. A sequence it knows little of gets none yet: first its
 * tokens are read, DRAFTER_CATCH_UP of all sequences per call. */
enum { DRAFTER_CATCH_UP = 64 };
void drafter_propose(struct drafter *d, struct draft_request *requests, int n);

/* What one more token for so many sequences costs, us; 0 before the first. */
double drafter_token_us(const struct drafter *d);

#endif
