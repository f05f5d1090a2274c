/* What one event of a streamed HTTP answer says, in the words of llama-server or of OpenAI. The text is
 * foreign. */
#ifndef WOOLLY_BENCH_LOAD_ANSWER_H
#define WOOLLY_BENCH_LOAD_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/load.h"

struct answer_event {
    int tokens; /* that came with it: as many as there are ids, else 1 for any text */
    int total;  /* of the whole answer so far, 0 if it does not say */
    bool is_end;
    bool is_error;
    char why[200]; /* of an error; any bytes */
};

/* False when it is not what the API says an event is. */
bool answer_read(enum load_api api, const char *data, size_t len, struct answer_event *out);

/* The message in the body of a refusal, or the beginning of the body; any bytes. */
void answer_refusal(const char *body, size_t len, char *why, size_t size);

#endif
