/* What has come of a job so far: its candidates, each until it ends, and details of its prompt. Of a stream
 * only the counts are kept, and the ids, with which another worker could go on. Growth keeps its memory for
 * the next job that uses the same struct. Zero-initialised it is empty and valid. */
#ifndef WOOLLY_BROKER_ANSWER_H
#define WOOLLY_BROKER_ANSWER_H

#include "broker/collected.h"

/* One of the texts that the worker makes of the prompt. */
struct candidate {
    struct collected collected;
    const char *finish_reason; /* static; NULL while it goes on */
    uint64_t n_tokens, text_bytes;
    double logprob_sum;
};

struct answer {
    bool is_kept; /* until the end, not streamed */
    bool is_embedding;
    bool is_resumable;      /* the ids are all here */
    size_t ids_bytes;       /* of them */
    uint32_t n_prompt_told; /* details of the prompt that have come */
    uint32_t n_choices;     /* the client gets */
    uint32_t n_candidates;  /* the worker makes; more than n_choices if only the best are wanted */
    uint32_t n_ended;
    struct candidate candidates[MAX_CHOICES];
    struct collected prompt;
    struct choice_row rows[MAX_CHOICES];        /* of answer_fill */
    struct resumed_choice resumed[MAX_CHOICES]; /* of answer_fill_resume */
};

void answer_fini(struct answer *a);

/* Gives back what a large one took. */
void answer_clear(struct answer *a);

/* An empty one, for this request. */
void answer_begin(struct answer *a, const struct generate *request, bool is_kept);

/* NULL, or what the item says that cannot be true of this answer. */
const char *answer_find_fault(const struct answer *a, const struct step_item *item);

/* Takes over what the item says, which must be without fault. True if the job ends with it. */
bool answer_add(struct answer *a, const struct step_item *item);

/* Nobody wants it any more: what still comes is only counted. */
void answer_abandon(struct answer *a);

/* Lets the request say how far the answer came, if it came anywhere; valid until the answer changes. It must
 * be resumable. */
void answer_fill_resume(struct answer *a, struct generate *request);

/* What it takes in all, about as many bytes, and as many msgpack objects, as it will be in a message: with
 * many alternatives the latter bound comes first. */
size_t answer_size(const struct answer *a);
size_t answer_objects(const struct answer *a);

/* Tokens after the first of each candidate. */
uint64_t answer_decoded(const struct answer *a);

/* Lets `done` point into a complete answer, valid until it changes. Call it once, at the end. */
void answer_fill(struct answer *a, struct msg_done *done);

#endif
