/* Operations on an opened sequence, for ensembles: truncate it, append to it, generate, and score what could
 * follow. Inside of the scheduler. */
#ifndef WOOLLY_WORKER_OPERATIONS_H
#define WOOLLY_WORKER_OPERATIONS_H

#include "proto/messages.h"

struct operation; /* the one that runs, or the last one */
struct scheduler;
struct sequence;
struct turn;

struct operation *operation_create(void);
void operation_destroy(struct operation *o);

/* Begins what m asks for. */
void operation_begin(struct scheduler *s, struct sequence *q, const struct msg_advance *m);

/* The first position whose logits it needs; it needs those of all positions behind as well. */
int operation_first_wanted(const struct sequence *q);

/* What comes of a turn. */
void operation_turn(struct scheduler *s, struct turn *t);

/* The answer, valid until the next operation; it is given once. */
bool operation_is_done(const struct operation *o);
const struct msg_advanced *operation_take(struct operation *o);

#endif
