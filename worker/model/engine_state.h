/* Inside of the model folder: the engine's memory, shared by engine.c (who sets it up) and the stages of the
 * forward pass (who compute in it). */
#ifndef WOOLLY_MODEL_ENGINE_STATE_H
#define WOOLLY_MODEL_ENGINE_STATE_H

#include "worker/kernels/kernels.h"
#include "worker/kv/cache.h"
#include "worker/model/engine.h"
#include "worker/model/pool.h"
#include "worker/model/weights.h"

/* Rows of floats, each `stride` (a multiple of Q16_BLOCK) after the one before. */
struct row_buffer {
    float *data;
    size_t stride;
};

/* Where rows and experts meet. A pair is one row at one of the experts chosen for it; the pairs of an expert
 * lie together, so that its weights meet all their rows in one product. Empty without experts. */
struct expert_state {
    struct row_buffer router; /* [max_rows][n_experts] */
    int *chosen;              /* [max_rows][n_used] experts of each row, the best first */
    float *share;             /* [max_rows][n_used] what each of them counts */
    int *pair;                /* [max_rows][n_used] where the row lies among the pairs */
    int *pair_row;            /* [pairs] and back */
    int *busy;                /* [n_experts] experts with any pairs */
    int *first_pair;          /* [n_experts + 1] of each expert */
    int n_busy, n_pairs;

    struct row_buffer in;          /* [pairs][n_embd] */
    struct row_buffer gate, up;    /* [pairs][n_ff of an expert] */
    struct row_buffer out;         /* [pairs][n_embd] */
    struct row_buffer shared_gate; /* [max_rows][1] */
};

struct engine {
    const struct model *model;
    struct engine_options options;
    struct kernels kernels;
    struct pool *pool;
    struct kv_cache cache;
    double *frequencies; /* [n_rot / 2], radians per position */

    char *scratch; /* one map that holds all below */
    uint64_t scratch_bytes;

    struct row_buffer x;              /* [max_rows][n_embd] what flows from layer to layer */
    struct row_buffer h;              /* [max_rows][n_embd] x normalised */
    struct row_buffer q, k, v;        /* [max_rows][heads * head_dim] */
    struct row_buffer attended;       /* [max_rows][n_heads * head_dim] */
    struct row_buffer gate, up;       /* [max_rows][n_ff] */
    struct row_buffer delta;          /* [max_rows][n_embd] what a block adds to x */
    struct row_buffer cosines, sines; /* [max_rows][n_rot / 2] */
    struct expert_state experts;
    int16_t *quants;     /* [max_rows or pairs][the widest input of a matrix] */
    float *quant_scales; /* [the same][the same / Q16_BLOCK] */
    float *logits;       /* [max_rows][n_vocab] */
    int *logit_rows;     /* [n_logits] which rows want logits */

    /* The step that is running. */
    const struct row *rows;
    int n_rows;
    int n_logits;
    int layer_index;
    const struct layer *layer;
    const struct ffn *ffn;          /* the layer's only block, or its shared one */
    const struct matrix *block_out; /* the last product of the current block */
    const struct norm *block_norm;  /* of what it adds */
    struct activations input;       /* of the products of the current stage */
};

/* Runs e->rows through the model; logits of those that want them come into e->logits. */
void forward(struct engine *e);

#endif
