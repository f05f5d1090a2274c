/* The prompts of a load: the n-th is a function of the seed and n, so that every server gets the same ones.
 */
#ifndef WOOLLY_BENCH_LOAD_PROMPT_H
#define WOOLLY_BENCH_LOAD_PROMPT_H

#include <stdint.h>

#include "common/buffer.h"

struct prompts {
    uint64_t seed;
    int n_shared, n_own; /* tokens: the same in all prompts, then the prompt's own */
    int n_vocab;         /* 0: prompts are texts, a word for a token */
    uint64_t n_made;
    int32_t *ids;       /* [n_shared + n_own] */
    struct buffer text; /* 0-terminated */
};

/* ids, or text, hold the next prompt until the call after that. */
void prompts_next(struct prompts *p);
void prompts_fini(struct prompts *p);

#endif
