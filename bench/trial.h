/* What `woolly-bench engine` measures: the request, and the trials it is made of, each with the rates that we
 * and, in a comparison, a peer reached. */
#ifndef WOOLLY_BENCH_TRIAL_H
#define WOOLLY_BENCH_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/stats.h"
#include "common/numbers.h"

struct engine_request {
    const char *model, *kv;
    struct numbers threads, depth, batch, prompt, decode; /* batch.n is 0 where none was asked for */
    int reps;
    const char *peer; /* the path of a llama-bench, or with batches of a llama-batched-bench; or NULL */
    const char *peer_args;
    bool as_json;
};

enum side { OURS, PEER, SIDES };

/* With these threads, `sequences` sequences have `depth` positions; then each is given `prompt` tokens, then
 * each makes `decode` tokens. Without a batch, prompt or decode is 0, as llama-bench has it: then decoding
 * starts at the depth, and in a batch behind the prompt, as llama-batched-bench has it. */
struct trial {
    int threads, depth, sequences, prompt, decode;
    struct samples prefill_rate[SIDES], decode_rate[SIDES]; /* tokens per second, of all sequences together */
};

/* What the measuring program said about itself and the model. */
struct subject {
    char isa[32], kv[16], architecture[40];
    int64_t parameters, weight_bytes;
    double cpu_s, wanted_s; /* of the cores our threads got, and that they wanted */
};

#endif
