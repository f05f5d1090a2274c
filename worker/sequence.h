/* A job of the scheduler and its sequences. A job is one request; each of the choices it asks for is a
 * sequence: the tokens of the prompt and those generated after them, and how many of them the engine has
 * computed. What lies in the KV cache can be given up at any time and computed again from the tokens.
 *
 * Inside of the scheduler: sequence.c makes jobs from requests, admission.c decides what runs, rows.c what a
 * step computes of it, and output.c turns logits into tokens and items. */
#ifndef WOOLLY_WORKER_SEQUENCE_H
#define WOOLLY_WORKER_SEQUENCE_H

#include "common/list.h"
#include "proto/messages.h"
#include "worker/kv/prefix.h"
#include "worker/sampler.h"
#include "worker/speculate.h"
#include "worker/text_out.h"
#include "worker/token/tokenizer.h"

enum sequence_state {
    SEQUENCE_WAITING,   /* has not begun */
    SEQUENCE_PREEMPTED, /* lost its pages, or was held and has tokens to compute: goes on before any that wait
                         */
    SEQUENCE_PREFILLING, /* has a slot, and pages for all its tokens; more than the last is not computed */
    SEQUENCE_RUNNING,    /* one token per step, or more where guesses come true */
    SEQUENCE_HELD,       /* opened by an ensemble, nothing to do; its pages are given up first */
    SEQUENCE_FINISHED,   /* has neither slot nor pages; what its last item points to is still read */
    SEQUENCE_STATES
};

enum pooling { POOLING_NONE, POOLING_MEAN, POOLING_LAST };

struct job;
struct operation; /* operations.c */

struct sequence {
    struct link link;
    enum sequence_state state;
    struct job *job;
    int choice;
    int slot; /* of the engine; -1 while it has none */

    int32_t *tokens; /* [max_tokens] */
    int n_tokens, max_tokens;
    int n_past;      /* tokens whose keys and values are in the cache */
    int n_published; /* pages that others can find */
    bool is_private; /* its pages cannot be published */

    uint64_t awaited; /* who computes pages that it waits for, */
    int n_awaited;    /* up to this token; 0: nobody */

    struct sampling sampling;
    struct speculation speculation;
    int n_given; /* tokens handed out */
    double logprob_sum;
    int64_t first_us, last_us; /* when the first of them was there, and the last */
    struct text_out text;
};

struct job {
    struct link link;
    uint64_t number;
    uint64_t age; /* how many came before it */
    struct sequence *sequences;
    int n_sequences, n_open; /* all of them; those that have not ended */

    int n_prompt;
    int max_given; /* tokens a choice may have */
    bool ignore_end, wants_logprobs, wants_prompt_logprobs;
    int n_prompt_logprobs, n_prompt_told; /* alternatives per token of the prompt; tokens told of */
    struct kv_salt salt;
    char session_bytes[MAX_SESSION_NAME];
    struct slice session; /* the name; data is NULL for none */
    bool is_session_read;
    const char *stops[MAX_STOPS];
    size_t stop_lens[MAX_STOPS];
    char *stop_bytes;

    int n_cached;           /* tokens of the prompt found in the cache */
    const char *cache_miss; /* why no more of them; NULL if all that can be were found */
    bool is_told;           /* both have been told */

    enum pooling pooling;
    bool is_normalised;
    double *pooled; /* [n_embd] sum so far */
    float *embedding;

    struct operation *operation; /* of a job that was opened: its only sequence does nothing by itself */

    bool is_cancelled;
    const char *error_code; /* NULL while all is well */
    char error_text[160];
};

/* No other sequence ever has the same. */
static inline uint64_t sequence_id(const struct sequence *q)
{
    return q->job->age * MAX_CHOICES + (uint64_t)q->choice;
}

/* What a job is checked against. */
struct job_limits {
    const struct tokenizer *tokenizer;
    int n_ctx, n_vocab, n_embd;
    size_t longest_piece;       /* most bytes of text one token can stand for */
    struct token_list *scratch; /* for text on its way to tokens */
};

/* Copies what it needs of the request; where another worker began it, its sequences have what that one came
 * to. A request that cannot be served gives a job with an error_code. */
struct job *job_create(uint64_t number, const struct generate *request, const struct job_limits *limits);
void job_destroy(struct job *job);

void __attribute__((format(printf, 3, 4)))
job_fail(struct job *job, const char *code, const char *format, ...);

/* Whether the pages of the job's prompt may come from other requests: not where something is wanted of each
 * of its tokens. */
bool sequence_uses_prefix(const struct sequence *q);

#endif
