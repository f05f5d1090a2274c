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
    int n_slots;  /* sequences */
    int n_ctx;    /* the most positions of one */
    int max_rows; /* most rows in one step */
    enum kv_type kv_type;
    int n_pages; /* of the KV cache, KV_BLOCK positions each; 0: enough for all slots at full length */
};

struct row {
    int32_t token; /* 0 <= token < n_vocab */
    int32_t slot;  /* 0 <= slot < n_slots */
    int32_t pos; /* 0 <= pos < n_ctx; positions 0..pos-1 of the slot have pages, and were given before or come
                    earlier in this step. Giving one again overwrites it. */
    bool want_logits;
    bool want_hidden;
};

struct engine;

MUST_CHECK enum status engine_create(struct engine **out, const struct model *m,
                                     const struct engine_options *o, struct error *err);
void engine_destroy(struct engine *e);

/* Runs n rows (1 <= n <= max_rows). A row whose position is not writable yet gets a page, or a copy of its
 * own, which must be available; with n_pages of 0 and no pages shared or published it always is. Logits of
 * the i-th row that wants them, in order, are at engine_logits(e, i), [n_vocab], until the next step. The
 * hidden state is what logits are computed from, after the last norm: [n_embd], in the same way. */
void engine_step(struct engine *e, const struct row *rows, int n);
const float *engine_logits(const struct engine *e, int i);
const float *engine_hidden(const struct engine *e, int i);

const struct engine_options *engine_options(const struct engine *e);
int engine_n_embd(const struct engine *e);

/* Slots and pages belong to the caller: who begins a new sequence in a slot truncates it. */
struct kv_cache *engine_cache(struct engine *e);
uint64_t engine_kv_bytes(const struct engine *e); /* of all pages */

/* Tells what keys and values depend on: the model, and how its positions are computed in this engine. */
uint64_t engine_fingerprint(const struct engine *e);

/* What the kernels of this process run on: a name of isa_name, "avx512" or "scalar". */
const char *engine_isa(const struct engine *e);

#endif
