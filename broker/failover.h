/* What becomes of the requests of a worker that is lost: another one goes on with each, from the tokens that
 * the client has, and since tokens depend on the request alone, nobody can tell.
 *
 * Unless the request is why the worker died. A crash says nothing of who caused it, so:
 *
 *   - A request of which the dead worker gave something goes on in company, as it was.
 *   - One of which it gave nothing is a suspect. Suspects go first, a worker takes one at a time, and nothing
 *     else with it until it makes progress: gives a token, a detail of its prompt, its end. Then it is a
 *     request like all others again.
 *   - What was all that its worker had when that died is to blame; a suspect whose worker died with company,
 *     half as much. Twice to blame without progress in between, and the request ends with the error `poison`.
 *
 * So a request alone that kills its workers does it twice; one that came among others some four times, of
 * which those saw nothing but pauses; and one that merely was there is cleared by its next token. There is no
 * endless loop: a request is on at most five dead workers between two of its tokens. */
#ifndef WOOLLY_BROKER_FAILOVER_H
#define WOOLLY_BROKER_FAILOVER_H

#include "broker/broker.h"

/* The worker's jobs leave it: back into the queue, or to their ends. */
void failover_begin(struct broker *b, struct worker *w, int64_t now_ms);

/* The message with which a worker goes on with a job that another one began, valid until the next one is
 * made. */
const struct buffer *failover_write_submit(struct broker *b, struct job *job);

/* Whether the worker has a suspect: then it takes nothing else. */
bool failover_has_suspect(const struct worker *w);

#endif
