/* The rows of a step: one for each sequence that runs, behind it guesses at what follows, and then chunks of
 * prompts. */
#include "worker/lookup.h"
#include "worker/scheduler_state.h"

/* Rows of a prompt whose log-probabilities are wanted, per step: each has as many logits as a token. */
enum { LOGPROB_ROWS = 32 };

static struct turn *add_turn(struct scheduler *s, struct sequence *q)
{
    struct turn *t = &s->turns[s->n_turns++];
    *t = (struct turn){ .sequence = q, .first_hidden = -1 };
    return t;
}

/* The rows of a turn are added one after the other. */
static void add_row(struct scheduler *s, struct turn *t, int32_t token, bool wants_logits)
{
    const struct sequence *q = t->sequence;
    if (t->n_logits == 0)
        t->first_logits = s->n_logits;
    s->rows[s->n_rows++] = (struct row){
        .token = token, .slot = q->slot, .pos = q->n_past + t->n_rows++, .want_logits = wants_logits
    };
    t->n_logits += wants_logits;
    s->n_logits += wants_logits;
}

/* The most tokens that can be guessed for a sequence. */
static int most_drafts(const struct scheduler *s, const struct sequence *q)
{
    int left = q->max_tokens - q->n_tokens - 1;
    if (s->options.speculate == SPECULATE_OFF || q->job->operation || left < 1)
        return 0;
    return left < SPECULATE_MOST ? left : SPECULATE_MOST;
}

static int worth_checking(const struct scheduler *s, const struct turn *t, double draft_us, int most)
{
    return speculation_choose(&t->sequence->speculation, s->options.speculate, &s->pace, s->n_turns - 1,
                              draft_us, most);
}

/* What followed in the same text before. */
static void look_up_drafts(struct scheduler *s)
{
    for (int i = 0; i < s->n_turns; i++) {
        struct turn *t = &s->turns[i];
        const struct sequence *q = t->sequence;
        int most = most_drafts(s, q);
        if (most > 0)
            most = lookup_draft(q->tokens, q->n_tokens, most, t->drafts);
        t->has_draft = most > 0;
        t->n_drafts = most > 0 ? worth_checking(s, t, 0, most) : 0;
    }
}

/* What the draft model says. */
static void ask_drafter(struct scheduler *s)
{
    double us = drafter_token_us(s->options.drafter) / s->n_turns;
    int n = 0;
    for (int i = 0; i < s->n_turns; i++) {
        struct turn *t = &s->turns[i];
        const struct sequence *q = t->sequence;
        int most = most_drafts(s, q);
        t->has_draft = most > 0;
        most = most > 0 ? worth_checking(s, t, us, most) : 0;
        if (most > 0)
            s->draft_requests[n++] = (struct draft_request){ .slot = q->slot,
                                                             .owner = sequence_id(q),
                                                             .tokens = q->tokens,
                                                             .n_tokens = q->n_tokens,
                                                             .sampling = &q->sampling,
                                                             .max_draft = most,
                                                             .out = t->drafts };
    }
    drafter_propose(s->options.drafter, s->draft_requests, n);
    for (int i = 0, r = 0; i < s->n_turns && r < n; i++)
        if (s->turns[i].drafts == s->draft_requests[r].out)
            s->turns[i].n_drafts = s->draft_requests[r++].n_out;
}

static void collect_running(struct scheduler *s)
{
    list_each(q, &s->lists[SEQUENCE_RUNNING], struct sequence, link) add_turn(s, q);
    if (s->n_turns == 0)
        return;
    if (s->options.drafter)
        ask_drafter(s);
    else
        look_up_drafts(s);
    for (int i = 0; i < s->n_turns; i++) {
        struct turn *t = &s->turns[i];
        const struct sequence *q = t->sequence;
        if (t->n_drafts && !kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_past + 1 + t->n_drafts))
            t->n_drafts = 0;
        add_row(s, t, q->tokens[q->n_past], true);
        for (int k = 0; k < t->n_drafts; k++)
            add_row(s, t, t->drafts[k], true);
    }
}

static bool wants_logits(const struct sequence *q, int pos)
{
    const struct job *job = q->job;
    if (job->operation)
        return pos >= operation_first_wanted(q);
    if (pos + 1 == q->n_tokens)
        return job->pooling == POOLING_NONE;
    return job->wants_prompt_logprobs && q->choice == 0 && pos + 1 >= job->n_prompt_told &&
           pos + 1 < job->n_prompt;
}

static void collect_chunk(struct scheduler *s, struct sequence *q, int n_rows)
{
    const struct job *job = q->job;
    struct turn *t = add_turn(s, q);
    for (int i = 0; i < n_rows; i++) {
        int pos = q->n_past + i;
        bool is_last = pos + 1 == q->n_tokens;
        add_row(s, t, q->tokens[pos], wants_logits(q, pos));
        if (job->pooling == POOLING_MEAN || (job->pooling == POOLING_LAST && is_last)) {
            s->rows[s->n_rows - 1].want_hidden = true;
            t->first_hidden = t->first_hidden < 0 ? s->n_hidden : t->first_hidden;
            s->n_hidden++;
        }
    }
}

/* Prompts, oldest first, as far as max_rows goes. */
static void collect_prompts(struct scheduler *s, int max_rows)
{
    list_each(q, &s->lists[SEQUENCE_PREFILLING], struct sequence, link)
    {
        int n = q->n_tokens - q->n_past, most = max_rows;
        if ((q->job->wants_prompt_logprobs || q->job->operation) && most > LOGPROB_ROWS)
            most = LOGPROB_ROWS;
        n = n < most ? n : most;
        if (n < 1)
            return;
        collect_chunk(s, q, n);
        max_rows -= n;
    }
}

int scheduler_collect(struct scheduler *s)
{
    s->n_turns = s->n_rows = s->n_logits = s->n_hidden = s->n_prompt_details = 0;
    collect_running(s);
    int n_decode = s->n_rows;
    if (!list_is_empty(&s->lists[SEQUENCE_PREFILLING]))
        collect_prompts(s, pace_prompt_rows(&s->pace, n_decode, SCHEDULER_PREFILL_ROWS));
    return n_decode;
}
