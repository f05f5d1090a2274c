/* Drafts without a draft model: text often repeats itself, so what followed the last time is proposed again.
 */
#ifndef WOOLLY_WORKER_LOOKUP_H
#define WOOLLY_WORKER_LOOKUP_H

#include <stdint.h>

enum {
    LOOKUP_LONGEST = 4,
    LOOKUP_SHORTEST = 2,
    LOOKUP_REACH = 32768, /* tokens looked back: bounds the time of a call */
};

/* Finds the longest suffix of tokens, of LOOKUP_LONGEST to LOOKUP_SHORTEST, that occurred before, its most
 * recent occurrence, and writes to `out` what followed it: max_draft tokens, going round where the occurrence
 * is so near that the text ends before them. 0 when there is none. */
int lookup_draft(const int32_t *tokens, int n, int max_draft, int32_t *out);

#endif
