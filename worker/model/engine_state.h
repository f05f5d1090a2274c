/* Inside of the model folder: the engine's memory, shared by engine.c (who sets it up) and the stages of the
 * forward pass (who compute in it). */
#ifndef WOOLLY_MODEL_ENGINE_STATE_H
#define WOOLLY_MODEL_ENGINE_STATE_H

#include "worker/kernels/kernels.h"
#include "worker/kv/cache.h"
#include "worker/model/engine.h"
#include "worker/model/pool.h"
#include "worker/model/weights.h"

/* Activations have 8 bits, but 16 (two planes, see packed.h) where a product gives logits, whose errors a
 * client sees, and where rows are narrow: sums over few elements average little of the rounding away, and in
 * a model that small the arithmetic is not what takes the time. */
enum { NARROW_INPUT = 512 };

/* Rows of floats, each `stride` (a multiple of PACK_BLOCK) after the one before. */
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
    struct row_buffer gate;        /* [pairs][n_ff of an expert] */
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
    struct row_buffer gate;           /* [max_rows][n_ff] */
    struct row_buffer delta;          /* [max_rows][n_embd] what a block adds to x */
    struct row_buffer cosines, sines; /* [max_rows][n_rot / 2] */
    char *attention_scratch;          /* [n_threads][attention_scratch_bytes] */
    float *cut_rooms;                 /* [n_threads - 1][cut_room_floats]: see attend.c */
    size_t attention_scratch_bytes;
    size_t cut_room_floats; /* what max_chunks chunks of a tile give, and the merge of them */
    int max_chunks;
    struct expert_state experts;
    struct activation_block *blocks; /* [super-blocks of the widest input][max_rows or pairs][planes] */
    float *logits;                   /* [max_rows][n_vocab] */
    int *logit_rows;                 /* [n_logits] which rows want logits */
    struct row_buffer hidden;        /* [n_hidden][n_embd] */
    int *hidden_rows;                /* [n_hidden] which rows want their hidden state */

    /* The step that is running. */
    const struct row *rows;
    int n_rows;
    int n_logits, n_hidden;
    int layer_index;
    int attend_threads; /* that the attention of this layer was cut for: the pool may use fewer than it has */
    const struct layer *layer;
    const struct ffn *ffn;          /* the layer's only block, or its shared one */
    const struct matrix *block_out; /* the last product of the current block */
    const struct norm *block_norm;  /* of what it adds */
    struct activations input;       /* of the products of the current stage */
};

/* Runs e->rows through the model; logits of those that want them come into e->logits. */
void forward(struct engine *e);

#endif
