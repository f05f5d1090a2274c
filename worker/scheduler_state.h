/* Inside of the scheduler: its memory, and what its parts ask of each other. */
#ifndef WOOLLY_WORKER_SCHEDULER_STATE_H
#define WOOLLY_WORKER_SCHEDULER_STATE_H

#include "worker/operations.h"
#include "worker/pace.h"
#include "worker/scheduler.h"
#include "worker/score.h"
#include "worker/sequence.h"

/* What a sequence has in the step that runs: rows for its tokens n_past, n_past + 1, ..., and behind the last
 * of its tokens those that were guessed. */
struct turn {
    struct sequence *sequence;
    int n_rows; /* guesses included */
    int n_drafts;
    int32_t drafts[SPECULATE_MOST];
    bool has_draft;             /* there was something to guess from, whether it was tried or not */
    int first_logits, n_logits; /* those of its last rows */
    int first_hidden;           /* -1 where none are wanted */
    struct step_item *item;     /* NULL while it has nothing to say */
};

/* What an item points to. */
struct output {
    int32_t ids[1 + SPECULATE_MOST];
    struct token_detail details[1 + SPECULATE_MOST];
    struct token_alternative top[1 + SPECULATE_MOST][MAX_LOGPROBS];
};

struct scheduler {
    struct engine *engine;
    struct kv_cache *cache; /* the engine's */
    const struct tokenizer *tokenizer;
    struct sampler *sampler;
    struct score *score;
    struct scheduler_options options;
    struct pace pace;
    int n_slots, n_ctx, n_vocab, n_embd;

    struct list jobs;  /* oldest first */
    struct list ended; /* their last items are with the caller until the next step or job */
    struct list lists[SEQUENCE_STATES];
    int *free_slots; /* [n_free_slots], the last is next */
    int n_free_slots;
    uint64_t n_arrived;
    struct job_limits limits;
    struct token_list encoded; /* scratch of scheduler_add */

    struct row *rows; /* [scheduler_rows] */
    int n_rows, n_logits, n_hidden;
    struct turn *turns; /* [n_slots] */
    int n_turns;
    struct draft_request *draft_requests; /* [n_slots] */
    int64_t computed_us;                  /* when the engine had this step's logits */

    struct step_item *items; /* [max_items] */
    struct output *outputs;  /* of each item */
    int n_items, max_items;
    struct token_detail *prompt_details;                  /* [SCHEDULER_PREFILL_ROWS] */
    struct token_alternative (*prompt_top)[MAX_LOGPROBS]; /* of each of them */
    int n_prompt_details;
    struct scheduler_counts counts;
};

/* scheduler.c */

/* The job has ended, and all that it has left is released. */
void scheduler_end_job(struct scheduler *s, struct job *job);

/* admission.c */

/* Begins what waits, in order of age, as far as there is room. */
void scheduler_admit(struct scheduler *s);

/* A page for the next row of everyone who runs; the youngest give up theirs where there are not enough. */
void scheduler_make_room(struct scheduler *s);

/* To another state, and its list. */
void scheduler_move(struct scheduler *s, struct sequence *q, enum sequence_state state);

/* The same, and takes slot and pages from it: whatever it computed goes with them. */
void scheduler_release(struct scheduler *s, struct sequence *q, enum sequence_state next);

/* Gives a sequence that waits the cached prompt of another one of its job. False if there is no room. */
bool scheduler_fork(struct scheduler *s, const struct sequence *from, struct sequence *to);

/* Lets others find the pages of a sequence that are complete. */
void scheduler_publish(struct scheduler *s, struct sequence *q);

/* The sequence's tokens from n_past on are computed (again). */
void scheduler_rewind(struct scheduler *s, struct sequence *q, int n_past);

/* rows.c */

/* Fills turns and rows; returns how many of the rows are of running sequences: they come first. */
int scheduler_collect(struct scheduler *s);

/* output.c */

/* The first item of this step for the job. */
struct step_item *output_item(struct scheduler *s, struct job *job, int choice);

/* One item that ends the job: with its error, or as "cancelled". */
void output_ending(struct scheduler *s, struct job *job);

/* A token in detail; its alternatives go to top. */
struct token_detail output_detail(const struct scheduler *s, const struct choice *c,
                                  struct token_alternative *top);

/* What the engine computed for a turn becomes tokens of the sequence and an item. */
void output_turn(struct scheduler *s, struct turn *t);

#endif
