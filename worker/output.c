/* From what the engine computed to what is handed out: tokens, their text and log-probabilities, embeddings,
 * endings. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "common/log.h"
#include "worker/scheduler_state.h"

static_assert((int)MAX_LOGPROBS <= (int)SAMPLER_MAX_LOGPROBS,
              "the sampler reports what a request may ask for");

/* The lowest log-probability sent: the wire carries finite numbers only. */
static const float LOGPROB_FLOOR = -9999;

struct step_item *output_item(struct scheduler *s, struct job *job, int choice)
{
    assert(s->n_items < s->max_items);
    struct step_item *item = &s->items[s->n_items++];
    *item = (struct step_item){ .job = job->number,
                                .choice = (uint32_t)choice,
                                .prompt_tokens = (uint64_t)job->n_prompt };
    return item;
}

void output_ending(struct scheduler *s, struct job *job)
{
    struct step_item *item = output_item(s, job, 0);
    if (job->is_cancelled) {
        item->finish_reason = slice_of("cancelled");
    } else {
        item->error_code = slice_of(job->error_code);
        item->error_message = slice_of(job->error_text);
    }
}

static struct step_item *item_of(struct scheduler *s, struct turn *t)
{
    struct job *job = t->sequence->job;
    if (!t->item) {
        t->item = output_item(s, job, t->sequence->choice);
        if (!job->is_told) {
            job->is_told = true;
            t->item->cached_tokens = (uint64_t)job->n_cached;
            if (job->cache_miss)
                t->item->cache_miss = slice_of(job->cache_miss);
        }
    }
    return t->item;
}

static struct output *output_of(struct scheduler *s, const struct step_item *item)
{
    return &s->outputs[item - s->items];
}

/* ---- tokens in detail ---- */

static struct slice piece_of(const struct scheduler *s, int32_t id)
{
    size_t len;
    const char *bytes = tokenizer_piece(s->tokenizer, id, &len);
    return (struct slice){ len ? bytes : "", len < MAX_TOKEN_BYTES ? len : MAX_TOKEN_BYTES };
}

static float sendable(float logprob)
{
    return logprob > LOGPROB_FLOOR ? logprob : LOGPROB_FLOOR;
}

struct token_detail output_detail(const struct scheduler *s, const struct choice *c,
                                  struct token_alternative *top)
{
    for (int i = 0; i < c->n_top; i++)
        top[i] = (struct token_alternative){ c->top[i].id, sendable(c->top[i].logprob),
                                             piece_of(s, c->top[i].id) };
    return (struct token_detail){ .id = c->token.id,
                                  .logprob = sendable(c->token.logprob),
                                  .bytes = piece_of(s, c->token.id),
                                  .top = { top, (uint32_t)c->n_top } };
}

/* ---- what a prompt gives ---- */

/* Details of the tokens of the prompt that follow the rows of this turn, and of the first of all. */
static void tell_prompt(struct scheduler *s, struct turn *t)
{
    struct sequence *q = t->sequence;
    struct job *job = q->job;
    struct token_detail *details = &s->prompt_details[s->n_prompt_details];
    uint32_t n = 0;
    if (job->n_prompt_told == 0) {
        details[n++] = (struct token_detail){ .id = q->tokens[0], .bytes = piece_of(s, q->tokens[0]) };
        job->n_prompt_told = 1;
    }
    while (job->n_prompt_told < job->n_prompt && job->n_prompt_told <= q->n_past + t->n_rows) {
        int row = job->n_prompt_told - 1 - q->n_past;
        int logits = t->first_logits + row - (t->n_rows - t->n_logits);
        struct choice c;
        sampler_describe(s->sampler, engine_logits(s->engine, logits), q->tokens[job->n_prompt_told],
                         job->n_prompt_logprobs, &c);
        details[n] = output_detail(s, &c, s->prompt_top[s->n_prompt_details + (int)n]);
        n++;
        job->n_prompt_told++;
    }
    s->n_prompt_details += (int)n;
    if (n)
        item_of(s, t)->prompt_logprobs = (struct struct_array){ details, n };
}

/* In the order of the tokens, so that the sum is the same however the prompt was cut. */
static void pool_hidden(struct scheduler *s, const struct turn *t)
{
    struct job *job = t->sequence->job;
    int n = job->pooling == POOLING_MEAN ? t->n_rows : 1;
    if (t->sequence->n_past == 0 || job->pooling == POOLING_LAST)
        memset(job->pooled, 0, (size_t)s->n_embd * sizeof *job->pooled);
    for (int row = 0; row < n; row++) {
        const float *hidden = engine_hidden(s->engine, t->first_hidden + row);
        for (int i = 0; i < s->n_embd; i++)
            job->pooled[i] += (double)hidden[i];
    }
}

static void give_embedding(struct scheduler *s, struct turn *t)
{
    struct job *job = t->sequence->job;
    double squares = 0, divisor = job->pooling == POOLING_MEAN ? job->n_prompt : 1;
    for (int i = 0; i < s->n_embd; i++)
        squares += job->pooled[i] * job->pooled[i];
    if (job->is_normalised && squares > 0)
        divisor = sqrt(squares);
    for (int i = 0; i < s->n_embd; i++)
        job->embedding[i] = (float)(job->pooled[i] / divisor);

    struct step_item *item = item_of(s, t);
    item->embedding = (struct slice){ (const char *)job->embedding, (size_t)s->n_embd * sizeof(float) };
    item->finish_reason = slice_of("stop");
    scheduler_end_job(s, job);
}

/* ---- what is generated ---- */

/* Hands out the token just chosen; returns why the sequence ends with it, or NULL. */
static const char *give_token(struct scheduler *s, struct sequence *q, const struct choice *c,
                              struct step_item *item)
{
    const struct job *job = q->job;
    struct output *out = output_of(s, item);
    int32_t id = c->token.id;
    if (!job->ignore_end && tokenizer_is_end(s->tokenizer, id))
        return "stop";

    q->tokens[q->n_tokens++] = id;
    q->logprob_sum += (double)sendable(c->token.logprob);
    out->ids[item->ids.n] = id;
    if (job->wants_logprobs) {
        out->details[item->ids.n] = output_detail(s, c, out->top[item->ids.n]);
        item->logprobs = (struct struct_array){ out->details, item->ids.n + 1 };
    }
    item->ids = (struct id_array){ out->ids, item->ids.n + 1 };
    q->n_given++;
    if (!q->first_us)
        q->first_us = s->computed_us;
    q->last_us = s->computed_us;
    s->counts.tokens++;

    size_t len;
    const char *bytes = tokenizer_piece(s->tokenizer, id, &len);
    if (len && text_out_push(&q->text, bytes, len))
        return "stop";
    return q->n_given >= job->max_given || q->n_tokens >= s->n_ctx ? "length" : NULL;
}

static void end_sequence(struct scheduler *s, struct sequence *q, struct step_item *item, const char *reason)
{
    text_out_flush(&q->text);
    item->finish_reason = slice_of(reason);
    item->decode_us = (uint64_t)(q->last_us - q->first_us);
    item->logprob_sum = q->logprob_sum;
    if (--q->job->n_open == 0)
        scheduler_end_job(s, q->job);
    else
        scheduler_release(s, q, SEQUENCE_FINISHED);
}

static void end_without_numbers(struct scheduler *s, struct sequence *q, struct step_item *item)
{
    struct job *job = q->job;
    log_error("no_token_possible", "job=%llu position=%d", (unsigned long long)job->number, q->n_tokens);
    job_fail(job, ERROR_INTERNAL,
             "after %d tokens the model gives no number to any token; its file may be damaged", q->n_tokens);
    item->error_code = slice_of(job->error_code);
    item->error_message = slice_of(job->error_text);
    scheduler_end_job(s, job);
}

/* Tokens of q from the logits of turn t: one, and one more for each guess that comes true. Returns how many
 * came true. */
static int generate(struct scheduler *s, struct turn *t, struct sequence *q)
{
    struct turn own = *t;
    struct choice c;
    const char *reason = NULL;
    int n_true = 0;

    own.sequence = q;
    own.item = q == t->sequence ? t->item : NULL;
    struct step_item *item = item_of(s, &own);
    int logits = t->first_logits + t->n_logits - 1 - t->n_drafts;
    buffer_clear(&q->text.ready);
    for (int i = 0;; i++) {
        if (!sampler_choose(s->sampler, &q->sampling, engine_logits(s->engine, logits + i),
                            (uint64_t)q->n_tokens, &c)) {
            end_without_numbers(s, q, item);
            break;
        }
        reason = give_token(s, q, &c, item);
        if (reason || i == t->n_drafts || c.token.id != t->drafts[i])
            break;
        n_true++;
    }
    if (reason)
        end_sequence(s, q, item, reason);
    if (q->job->n_sequences > 1)
        item->logprob_sum = q->logprob_sum;
    if (q->text.ready.len)
        item->text = (struct slice){ q->text.ready.data, q->text.ready.len };
    return n_true;
}

/* The other choices of the job go on from the prompt of the first. Where a choice ends at once its slot
 * serves the next; there are items for so many of them that all turns still have theirs, and the rest begin
 * later. */
static void fork_choices(struct scheduler *s, struct turn *t)
{
    struct job *job = t->sequence->job;
    for (int i = 1; i < job->n_sequences && !job->error_code && s->n_items + s->n_turns < s->max_items; i++)
        if (job->sequences[i].state == SEQUENCE_WAITING && job->sequences[i].n_given == 0 &&
            scheduler_fork(s, t->sequence, &job->sequences[i]))
            generate(s, t, &job->sequences[i]);
}

void output_turn(struct scheduler *s, struct turn *t)
{
    struct sequence *q = t->sequence;
    struct job *job = q->job;

    if (job->operation) {
        operation_turn(s, t);
        return;
    }
    if (job->wants_prompt_logprobs && q->choice == 0)
        tell_prompt(s, t);
    if (job->pooling != POOLING_NONE && t->first_hidden >= 0)
        pool_hidden(s, t);
    q->n_past += t->n_rows - t->n_drafts;
    scheduler_publish(s, q);
    if (q->n_past < q->n_tokens)
        return;
    if (job->pooling != POOLING_NONE) {
        give_embedding(s, t);
        return;
    }

    if (q->choice == 0 && q->n_tokens == job->n_prompt)
        fork_choices(s, t);
    if (job->error_code)
        return;
    if (q->state == SEQUENCE_PREFILLING)
        scheduler_move(s, q, SEQUENCE_RUNNING);
    int n_true = generate(s, t, q);
    s->counts.drafted += (uint64_t)t->n_drafts;
    s->counts.accepted += (uint64_t)n_true;
    if (q->slot < 0)
        return;
    if (t->has_draft)
        speculation_note(&q->speculation, t->n_drafts, n_true);
    q->n_past += n_true;
    scheduler_publish(s, q);
}
