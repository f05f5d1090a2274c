/* The engine: computes with a model for one process. It owns the thread pool, the KV cache and the scratch
 * memory, all taken at creation; a step allocates nothing. One thread calls it.
 *
 * The unit of work is a row: one token of one sequence at one position. A step takes any mix of rows, single
 * decode rows of many sequences next to a chunk of someone's prompt, and gives logits for those that ask.
 * Where a file has RoPE factors for short and for long contexts, n_ctx of the options decides which are used.
 * The logits of a row are bit-for-bit the same whatever other rows are in the step, however a prompt is cut
 * into steps, and with any number of threads. */
#ifndef WOOLLY_MODEL_ENGINE_H
#define WOOLLY_MODEL_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/kv/cache.h" /* enum kv_type */
#include "worker/model/model.h"

struct engine_options {
    int n_threads;
    int n_slots;  /* sequences with a cache of their own */
    int n_ctx;    /* positions per slot */
    int max_rows; /* most rows in one step */
    enum kv_type kv_type;
};

struct row {
    int32_t token; /* 0 <= token < n_vocab */
    int32_t slot;  /* 0 <= slot < n_slots */
    int32_t pos;   /* 0 <= pos < n_ctx; positions 0..pos-1 of the slot were given before, or come earlier in
                      this step. Giving one again overwrites it; giving position 0 begins a new sequence in the
                      slot, of which nothing before is left. */
    bool want_logits;
};

struct engine;

MUST_CHECK enum status engine_create(struct engine **out, const struct model *m,
                                     const struct engine_options *o, struct error *err);
void engine_destroy(struct engine *e);

/* Runs n rows (1 <= n <= max_rows). Logits of the i-th row that wants them, in order, are at
 * engine_logits(e, i), [n_vocab], until the next step. */
void engine_step(struct engine *e, const struct row *rows, int n);
const float *engine_logits(const struct engine *e, int i);

const struct engine_options *engine_options(const struct engine *e);
uint64_t engine_kv_bytes(const struct engine *e); /* of all slots, when full */

/* What the kernels of this process run on: a name of isa_name, "avx512" or "scalar". */
const char *engine_isa(const struct engine *e);

#endif
