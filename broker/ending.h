/* The four ways in which a job leaves the live states, each of which tells its client exactly once (or knows
 * that there is nobody to tell), counts and logs it. Nothing else ends a job. */
#ifndef WOOLLY_BROKER_ENDING_H
#define WOOLLY_BROKER_ENDING_H

#include "broker/job.h"

struct broker;

/* Whether the job's worker (if it has one) is through with it. If it holds the slot still, it is told to drop
 * the job, which is then abandoned until it answers. */
enum job_slot { SLOT_FREED, SLOT_HELD };

/* The worker finished it, with this embedding if one was wanted. If the whole answer finds no room at a
 * client that does not read, it ends with slow_reader instead. */
void job_end_done(struct broker *b, struct job *job, struct slice embedding, int64_t now_ms);

void job_end_cancelled(struct broker *b, struct job *job, int64_t now_ms);
void job_end_error(struct broker *b, struct job *job, enum job_slot slot, struct slice code,
                   struct slice message, int64_t now_ms);

/* The client is gone. */
void job_end_unheard(struct broker *b, struct job *job, int64_t now_ms);

bool error_is_retryable(struct slice code);

#endif
