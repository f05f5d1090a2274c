#include "worker/sequence.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/operations.h"

void job_fail(struct job *job, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(job->error_text, sizeof job->error_text, format, args);
    va_end(args);
    job->error_code = code;
}

/* ---- the prompt ---- */

static void take_text(struct job *job, struct slice text, const struct job_limits *l)
{
    /* What cannot fit is not worth the time to find out how many tokens it is. */
    if (text.len > (size_t)l->n_ctx * l->longest_piece) {
        job_fail(
            job, ERROR_CONTEXT_LENGTH,
            "the prompt of %zu bytes is more than a context of %d tokens can hold (at most %zu bytes each)",
            text.len, l->n_ctx, l->longest_piece);
        return;
    }
    l->scratch->n = 0;
    tokenizer_encode(l->tokenizer, text.data, text.len, ENCODE_BOS, l->scratch);
    if (l->scratch->n == 0)
        job_fail(job, ERROR_BAD_REQUEST,
                 "the prompt is empty, and this model has no token that begins a text to put in its place");
}

static void take_tokens(struct job *job, struct id_array tokens, const struct job_limits *l)
{
    l->scratch->n = 0;
    if (tokens.n == 0)
        job_fail(job, ERROR_BAD_REQUEST, "the list of prompt tokens is empty");
    for (uint32_t i = 0; i < tokens.n && !job->error_code; i++) {
        if (tokens.ids[i] < 0 || tokens.ids[i] >= l->n_vocab)
            job_fail(job, ERROR_BAD_REQUEST, "tokens[%u] is %d, and the vocabulary ends at %d", i,
                     tokens.ids[i], l->n_vocab - 1);
        else
            token_list_push(l->scratch, tokens.ids[i]);
    }
}

/* The prompt and at least one token, or as many as were asked for by number, must have a place. */
static void check_length(struct job *job, const struct generate *request, const struct job_limits *l)
{
    size_t n = l->scratch->n;
    if (job->pooling != POOLING_NONE && n > (size_t)l->n_ctx)
        job_fail(job, ERROR_CONTEXT_LENGTH, "the text has %zu tokens, and the context has %d", n, l->n_ctx);
    else if (job->pooling == POOLING_NONE && n + 1 > (size_t)l->n_ctx)
        job_fail(job, ERROR_CONTEXT_LENGTH,
                 "the prompt has %zu tokens, and with one to generate the context of %d is too short", n,
                 l->n_ctx);
    else if (request->has_max_tokens && n + request->max_tokens > (size_t)l->n_ctx)
        job_fail(job, ERROR_CONTEXT_LENGTH,
                 "the prompt has %zu tokens and max_tokens is %u: together %zu, and the context has %d", n,
                 request->max_tokens, n + request->max_tokens, l->n_ctx);
}

/* ---- the rest of the request ---- */

static void take_stops(struct job *job, struct slice_array stop)
{
    size_t bytes = 0;
    assert(stop.n <= MAX_STOPS);
    for (uint32_t i = 0; i < stop.n; i++)
        bytes += stop.items[i].len;
    char *to = job->stop_bytes = xmalloc(bytes + 1);
    for (uint32_t i = 0; i < stop.n; i++) {
        memcpy(to, stop.items[i].data, stop.items[i].len);
        job->stops[i] = to;
        job->stop_lens[i] = stop.items[i].len;
        to += stop.items[i].len;
    }
}

static void take_salt(struct job *job, struct slice salt)
{
    assert(salt.len <= sizeof job->salt.bytes);
    job->salt.n = (uint8_t)salt.len;
    if (salt.len)
        memcpy(job->salt.bytes, salt.data, salt.len);
}

static void take_session(struct job *job, struct slice name)
{
    assert(name.len <= sizeof job->session_bytes);
    if (!name.data)
        return;
    memcpy(job->session_bytes, name.data, name.len);
    job->session = (struct slice){ job->session_bytes, name.len };
}

static void take_pooling(struct job *job, const struct generate *request, const struct job_limits *l)
{
    job->pooling = !request->pooling.data               ? POOLING_NONE
                   : slice_is(request->pooling, "last") ? POOLING_LAST
                                                        : POOLING_MEAN;
    job->is_normalised = request->normalize;
    if (job->pooling == POOLING_NONE)
        return;
    job->pooled = xcalloc((size_t)l->n_embd, sizeof *job->pooled);
    job->embedding = xcalloc((size_t)l->n_embd, sizeof *job->embedding);
}

static void begin_sequence(struct job *job, int choice, const struct generate *request, int n_stops,
                           const struct job_limits *l)
{
    struct sequence *q = &job->sequences[choice];
    int most = job->n_prompt + job->max_given;
    q->job = job;
    q->choice = choice;
    q->slot = -1;
    q->max_tokens = most < l->n_ctx ? most : l->n_ctx;
    q->tokens = xcalloc((size_t)q->max_tokens + 1, sizeof *q->tokens);
    q->n_tokens = job->n_prompt;
    if (job->n_prompt)
        memcpy(q->tokens, l->scratch->ids, (size_t)job->n_prompt * sizeof *q->tokens);
    q->sampling = (struct sampling){ .temperature = request->temperature,
                                     .top_k = (int)request->top_k,
                                     .top_p = request->top_p,
                                     .min_p = request->min_p,
                                     .seed = request->seed + (uint64_t)choice,
                                     .n_logprobs = request->has_logprobs ? (int)request->logprobs : 0 };
    speculation_init(&q->speculation);
    text_out_init(&q->text, job->stops, job->stop_lens, n_stops);
}

/* ---- what another worker began ---- */

/* Takes over the tokens of a choice; what its text held back comes of them anew. False if they are not a
 * beginning of what could come here. */
static bool resume_choice(struct sequence *q, const struct resumed_choice *r, const struct job_limits *l)
{
    size_t n = r->ids.len / sizeof *q->tokens, len, n_text = 0;
    if (r->ids.len % sizeof *q->tokens || n >= (size_t)(q->max_tokens - q->n_tokens))
        return false;
    if (n)
        memcpy(q->tokens + q->n_tokens, r->ids.data, r->ids.len);
    for (size_t i = 0; i < n; i++) {
        int32_t id = q->tokens[q->n_tokens++];
        if (id < 0 || id >= l->n_vocab)
            return false;
        const char *bytes = tokenizer_piece(l->tokenizer, id, &len);
        if (len && text_out_push(&q->text, bytes, len))
            return false;
        n_text += q->text.ready.len;
        buffer_clear(&q->text.ready);
    }
    q->n_given = (int)n;
    q->logprob_sum = r->logprob_sum;
    return n_text == r->text_bytes;
}

static bool resume_choices(struct job *job, const struct generate *request, const struct job_limits *l)
{
    const struct resumed_choice *choices = request->resume.items;
    if (request->resume.n != (uint32_t)job->n_sequences || request->prompt_told > (uint32_t)job->n_prompt)
        return false;
    job->n_prompt_told = (int)request->prompt_told;
    for (int i = 0; i < job->n_sequences; i++) {
        struct sequence *q = &job->sequences[i];
        if (choices[i].finish_reason.data) {
            q->state = SEQUENCE_FINISHED;
            job->n_open--;
        } else if (!resume_choice(q, &choices[i], l)) {
            return false;
        }
    }
    /* The details of a prompt come before any token. */
    bool is_told = !job->wants_prompt_logprobs || job->n_prompt_told == job->n_prompt;
    return job->n_open > 0 && (is_told || job->sequences[0].n_given == 0);
}

struct job *job_create(uint64_t number, const struct generate *request, const struct job_limits *l)
{
    uint32_t n = request->best_of > request->n ? request->best_of : request->n;
    struct job *job = xcalloc(1, sizeof *job);
    job->number = number;
    job->n_sequences = job->n_open = n ? (int)n : 1;
    job->sequences = xcalloc((size_t)job->n_sequences, sizeof *job->sequences);
    job->ignore_end = request->ignore_end;
    job->wants_logprobs = request->has_logprobs;
    job->wants_prompt_logprobs = request->has_prompt_logprobs;
    job->n_prompt_logprobs = (int)request->prompt_logprobs;
    take_salt(job, request->cache_salt);
    take_session(job, request->session);
    take_stops(job, request->stop);
    take_pooling(job, request, l);
    if (request->prompt.data)
        take_text(job, request->prompt, l);
    else
        take_tokens(job, request->tokens, l);
    if (!job->error_code)
        check_length(job, request, l);

    job->n_prompt = job->error_code ? 0 : (int)l->scratch->n;
    job->max_given = job->pooling != POOLING_NONE || job->error_code ? 0
                     : request->max_tokens < (uint32_t)l->n_ctx      ? (int)request->max_tokens
                                                                     : l->n_ctx;
    for (int i = 0; i < job->n_sequences; i++)
        begin_sequence(job, i, request, (int)request->stop.n, l);
    if (request->resume.n && !job->error_code && !resume_choices(job, request, l))
        job_fail(job, ERROR_INTERNAL, "what another worker began of this request does not fit it");
    return job;
}

void job_destroy(struct job *job)
{
    for (int i = 0; i < job->n_sequences; i++) {
        list_remove(&job->sequences[i].link);
        text_out_fini(&job->sequences[i].text);
        free(job->sequences[i].tokens);
    }
    list_remove(&job->link);
    operation_destroy(job->operation);
    free(job->sequences);
    free(job->stop_bytes);
    free(job->pooled);
    free(job->embedding);
    free(job);
}

bool sequence_uses_prefix(const struct sequence *q)
{
    const struct job *job = q->job;
    return !(job->wants_prompt_logprobs && q->choice == 0) && job->pooling != POOLING_MEAN;
}
