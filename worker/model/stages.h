/* Inside of the model folder: the stages forward() is made of, and what they share.
 *
 * A stage is one function over a run of things: rows of the step, or output elements of a product, or heads.
 * The pool cuts the run between the threads and the next stage begins when all are done. No sum is ever split
 * between threads and no stage mixes rows, so neither their number nor a row's neighbours can change a
 * result. */
#ifndef WOOLLY_MODEL_STAGES_H
#define WOOLLY_MODEL_STAGES_H

#include "worker/model/engine_state.h"

/* Things first..last-1 of the run. */
typedef void stage_fn(struct engine *e, int first, int last);

/* Runs a stage over whole rows, or pairs. For a single one waking the threads costs more than the work. */
void each_row(struct engine *e, stage_fn *run, int n_rows);

/* Outputs of a matrix as they count in a run of several matrices: whole groups of packed weights. */
static inline int whole_groups(int n_out)
{
    return (n_out + PACK_ROWS - 1) / PACK_ROWS * PACK_ROWS;
}

/* Runs a stage over output elements 0..n-1 of every row. */
void each_output(struct engine *e, stage_fn *run, int n);

static inline float *row_of(const struct row_buffer *b, int row)
{
    return b->data + (size_t)row * b->stride;
}

/* Says what the next products read: n elements of each row of b. The other one says it of the product that
 * gives the logits. */
void set_input(struct engine *e, const struct row_buffer *b, int n, int n_rows);
void set_output_input(struct engine *e, const struct row_buffer *b, int n, int n_rows);

/* Quantises a row of the input if any of these matrices (`n` of them) wants that. */
void prepare_row(struct engine *e, int row, const struct matrix *const *users, int n);

/* Output elements first..last-1 of m times the input; with multiply_rows, times those activations. */
void multiply(struct engine *e, const struct matrix *m, const struct row_buffer *out, int first, int last);
void multiply_rows(struct engine *e, const struct matrix *m, const struct activations *in,
                   const struct row_buffer *out, int first, int last);

/* gate = act(Wg in) * Wu in, or act(Wu in) where there is no gate: elements first..last-1. */
void gate_and_up_rows(struct engine *e, const struct ffn *ffn, const struct activations *in,
                      const struct row_buffer *gate, int first, int last);

/* out = the norm of x, of the kind the architecture has; out may be x. */
void normalise(struct engine *e, const struct norm *norm, float *out, const float *x, int n);

/* x += what a block adds, which is in delta and may be changed: elements first..last-1 of one row. */
void add_delta(struct engine *e, int row, int first, int last);

/* x += m times the input, by way of a norm if there is one. */
void add_product(struct engine *e, const struct matrix *m, const struct norm *norm);

/* attention.c */
stage_fn normalise_for_attention; /* h = norm(x) */
stage_fn project_q_k_v;           /* q, k, v = Wq h, Wk h, Wv h: outputs of the three in one run */
stage_fn turn_and_store;          /* cache <- rope(k), v; q = rope(q) */
stage_fn prepare_attended;

/* attend.c */
pool_job attend; /* attended = softmax(q k) v, over the positions in the window, but for units of work that
                    were cut: those are merged by */
stage_fn merge_cut_units;

/* ffn.c */
stage_fn normalise_for_ffn; /* h = norm(x) */
stage_fn gate_and_up;       /* gate = act(Wg h) * Wu h */
stage_fn prepare_gated;

/* gate = act(gate) * up, or act(gate) where up is NULL */
void activate(struct engine *e, float *gate, const float *up, int n);

/* experts.c */
stage_fn normalise_for_experts; /* h = norm(x) */
stage_fn route;                 /* router = Wr h */
stage_fn weigh_shared;          /* shared_gate = Ws h */
stage_fn project_shared;        /* delta = Wd gate of the shared block */
stage_fn choose_experts;        /* chosen, share */
void pair_up(struct engine *e); /* pairs of rows and experts, sorted by expert */
stage_fn gather_pairs;          /* in = h of the pair's row */
stage_fn expert_gate_and_up;    /* gate = act(Wg in) * Wu in: outputs of all busy experts in one run */
stage_fn prepare_expert_gated;
stage_fn expert_down;     /* out = Wd gate */
stage_fn combine_experts; /* x += sum of share * out, + the shared block */

#endif
