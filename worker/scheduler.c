/* What runs, and with whose pages. One step, in order: cancelled and faulty jobs end; sequences are admitted
 * while there is room; every running one gets pages for its next row, from the youngest if need be; rows are
 * collected, the engine computes them, and output.c makes tokens of what it gives. */
#include "worker/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/lookup.h"
#include "worker/scheduler_state.h"

/* Room that an admission leaves for each sequence that runs to grow. Without any a third of all rows are
 * computed a second time, with 64 tokens a tenth at most; with 128 hardly any, but fewer sequences run at a
 * time, and in all it takes longer. (200 requests of 20 to 320 tokens, room for 3 to 8 at a time.) */
enum { HEADROOM_TOKENS = 64 };

/* Rows of a prompt whose log-probabilities are wanted, per step: each has as many logits as a token. */
enum { LOGPROB_ROWS = 32 };

/* How long a step that has nothing to compute waits for pages that are being written to disk. */
enum { PAGES_WAIT_MS = 10 };

static void set_state(struct scheduler *s, struct sequence *q, enum sequence_state state)
{
    list_remove(&q->link);
    q->state = state;
    list_append(&s->lists[state], &q->link);
}

/* ---- its life ---- */

static size_t find_longest_piece(const struct tokenizer *t)
{
    size_t longest = 4; /* a character without a token of its own */
    for (int id = 0; id < tokenizer_n_vocab(t); id++) {
        size_t len;
        tokenizer_piece(t, id, &len);
        longest = len > longest ? len : longest;
    }
    return longest;
}

int scheduler_rows(int n_slots)
{
    return n_slots * (1 + SPECULATE_MOST) + SCHEDULER_PREFILL_ROWS;
}

struct scheduler *scheduler_create(struct engine *e, const struct tokenizer *t, int n_vocab,
                                   const struct scheduler_options *options)
{
    const struct engine_options *o = engine_options(e);
    int n_slots = o->n_slots - (options->sessions ? SESSIONS_SLOTS : 0);
    assert(n_slots > 0 && o->max_rows >= scheduler_rows(n_slots));

    struct scheduler *s = xcalloc(1, sizeof *s);
    s->engine = e;
    s->cache = engine_cache(e);
    s->tokenizer = t;
    s->sampler = sampler_create(n_vocab);
    s->score = score_create(options->byte_order);
    s->options = *options;
    pace_init(&s->pace, options->itl_target_us);
    s->n_slots = n_slots;
    s->n_ctx = o->n_ctx;
    s->n_vocab = n_vocab;
    s->n_embd = engine_n_embd(e);
    s->limits = (struct job_limits){ .tokenizer = t,
                                     .n_ctx = s->n_ctx,
                                     .n_vocab = n_vocab,
                                     .n_embd = s->n_embd,
                                     .longest_piece = find_longest_piece(t),
                                     .scratch = &s->encoded };
    s->max_items = 3 * s->n_slots; /* endings of jobs, turns, forks */
    s->rows = xcalloc((size_t)o->max_rows, sizeof *s->rows);
    s->turns = xcalloc((size_t)s->n_slots, sizeof *s->turns);
    s->draft_requests = xcalloc((size_t)s->n_slots, sizeof *s->draft_requests);
    s->items = xcalloc((size_t)s->max_items, sizeof *s->items);
    s->outputs = xcalloc((size_t)s->max_items, sizeof *s->outputs);
    s->prompt_details = xcalloc(SCHEDULER_PREFILL_ROWS + s->n_slots, sizeof *s->prompt_details);
    s->prompt_top = xcalloc(SCHEDULER_PREFILL_ROWS + s->n_slots, sizeof *s->prompt_top);
    s->free_slots = xcalloc((size_t)s->n_slots, sizeof *s->free_slots);
    for (int i = s->n_slots; i-- > 0;)
        s->free_slots[s->n_free_slots++] = i;
    return s;
}

static void give_back(struct scheduler *s, struct sequence *q)
{
    if (q->slot < 0)
        return;
    kv_cache_truncate(s->cache, q->slot, 0);
    s->free_slots[s->n_free_slots++] = q->slot;
    q->slot = -1;
    q->n_past = q->n_published = 0;
}

/* The first choice stands for the session: what others add to the prompt is not what will be gone on from. */
static void write_session(struct scheduler *s, const struct sequence *q)
{
    const struct job *job = q->job;
    if (s->options.sessions && job->session.data && q->choice == 0 && q->slot >= 0 &&
        q->n_past >= job->n_prompt)
        sessions_write(s->options.sessions, q->slot, job->session, &job->salt);
}

void scheduler_release(struct scheduler *s, struct sequence *q, enum sequence_state next)
{
    if (next == SEQUENCE_FINISHED)
        write_session(s, q);
    give_back(s, q);
    set_state(s, q, next);
}

void scheduler_end_job(struct scheduler *s, struct job *job)
{
    for (int i = 0; i < job->n_sequences; i++)
        scheduler_release(s, &job->sequences[i], SEQUENCE_FINISHED);
    list_remove(&job->link);
    list_append(&s->ended, &job->link);
}

static void forget_ended(struct scheduler *s)
{
    list_each(job, &s->ended, struct job, link) job_destroy(job);
    s->n_items = 0;
}

void scheduler_clear(struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link) scheduler_end_job(s, job);
    forget_ended(s);
}

void scheduler_destroy(struct scheduler *s)
{
    if (!s)
        return;
    scheduler_clear(s);
    token_list_fini(&s->encoded);
    score_destroy(s->score);
    sampler_destroy(s->sampler);
    free(s->free_slots);
    free(s->prompt_top);
    free(s->prompt_details);
    free(s->outputs);
    free(s->items);
    free(s->draft_requests);
    free(s->turns);
    free(s->rows);
    free(s);
}

/* ---- jobs come and go ---- */

static struct job *find_job(const struct scheduler *s, uint64_t number)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (job->number == number)
            return job;
    }
    return NULL;
}

bool scheduler_add(struct scheduler *s, uint64_t number, const struct generate *request)
{
    forget_ended(s);
    if (s->jobs.count == (size_t)s->n_slots)
        return false;
    struct job *job = job_create(number, request, &s->limits);
    job->age = s->n_arrived++;
    list_append(&s->jobs, &job->link);
    for (int i = 0; i < job->n_sequences; i++)
        set_state(s, &job->sequences[i], SEQUENCE_WAITING);
    return true;
}

bool scheduler_open(struct scheduler *s, uint64_t number, const struct generate *request)
{
    struct generate whole = *request;
    whole.max_tokens = (uint32_t)s->n_ctx;
    whole.has_max_tokens = false;
    whole.n = whole.best_of = 1;
    if (!scheduler_add(s, number, &whole))
        return false;
    find_job(s, number)->operation = operation_create();
    return true;
}

void scheduler_advance(struct scheduler *s, const struct msg_advance *m)
{
    struct job *job = find_job(s, m->job);
    if (job && job->operation && !job->error_code && !job->is_cancelled)
        operation_begin(s, &job->sequences[0], m);
}

const struct msg_advanced *scheduler_next_advanced(struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (job->operation && operation_is_done(job->operation))
            return operation_take(job->operation);
    }
    return NULL;
}

void scheduler_cancel(struct scheduler *s, uint64_t number)
{
    struct job *job = find_job(s, number);
    if (job)
        job->is_cancelled = true;
}

static void end_idle(struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (!job->is_cancelled && !job->error_code)
            continue;
        output_ending(s, job);
        scheduler_end_job(s, job);
    }
}

bool scheduler_has_work(const struct scheduler *s)
{
    list_each(job, &s->jobs, struct job, link)
    {
        if (job->is_cancelled || job->error_code || (job->operation && operation_is_done(job->operation)))
            return true;
    }
    return !list_is_empty(&s->lists[SEQUENCE_WAITING]) || !list_is_empty(&s->lists[SEQUENCE_PREEMPTED]) ||
           !list_is_empty(&s->lists[SEQUENCE_PREFILLING]) || !list_is_empty(&s->lists[SEQUENCE_RUNNING]);
}

struct scheduler_counts scheduler_counts(const struct scheduler *s)
{
    struct scheduler_counts counts = s->counts;
    counts.taken = (int)s->jobs.count;
    return counts;
}

/* ---- pages ---- */

static int pages_for(int n_tokens)
{
    return (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
}

void scheduler_publish(struct scheduler *s, struct sequence *q)
{
    while (!q->is_private && (q->n_published + 1) * KV_BLOCK <= q->n_past) {
        q->is_private = !kv_cache_publish(s->cache, q->slot, q->n_published,
                                          q->tokens + q->n_published * KV_BLOCK, q->job->salt);
        q->n_published += !q->is_private;
    }
}

/* The first position that must be computed, since its logits are wanted. */
static int first_wanted(const struct sequence *q)
{
    return q->job->operation ? operation_first_wanted(q) : q->n_tokens - 1;
}

/* Takes from the cache what others have computed. */
static void adopt(struct scheduler *s, struct sequence *q)
{
    if (!sequence_uses_prefix(q))
        return;
    while ((q->n_published + 1) * KV_BLOCK <= first_wanted(q) &&
           kv_cache_adopt(s->cache, q->slot, q->n_published, q->tokens + q->n_published * KV_BLOCK,
                          q->job->salt))
        q->n_published++;
    q->n_past = q->n_published * KV_BLOCK;
}

/* Once, and only if the cache does not have all that could be of use. */
static void read_session(struct scheduler *s, struct sequence *q)
{
    struct job *job = q->job;
    if (!s->options.sessions || !job->session.data || job->is_session_read || !sequence_uses_prefix(q) ||
        (q->n_published + 1) * KV_BLOCK > first_wanted(q))
        return;
    job->is_session_read = true;
    sessions_read(s->options.sessions, job->session, &job->salt);
    adopt(s, q);
}

static bool is_same_salt(const struct kv_salt *a, const struct kv_salt *b)
{
    return a->n == b->n && !memcmp(a->bytes, b->bytes, a->n);
}

/* Tokens in pages that q can take over from the other one, when the first n are the same. */
static int count_common(const struct sequence *q, const struct sequence *other, int n)
{
    int most = first_wanted(q) < other->n_tokens ? first_wanted(q) : other->n_tokens;
    while (n + KV_BLOCK <= most && !memcmp(other->tokens + n, q->tokens + n, KV_BLOCK * sizeof *q->tokens))
        n += KV_BLOCK;
    return n;
}

/* Whether somebody is computing the next page that q needs: waiting for it is cheaper than doing it again.
 * Then q remembers who, and for how long that is of use. */
static bool is_being_computed(const struct scheduler *s, struct sequence *q)
{
    int end = (q->n_published + 1) * KV_BLOCK;
    if (end > first_wanted(q) || !sequence_uses_prefix(q))
        return false;
    list_each(other, &s->lists[SEQUENCE_PREFILLING], struct sequence, link)
    {
        if (!other->is_private && other->n_tokens >= end && is_same_salt(&other->job->salt, &q->job->salt) &&
            !memcmp(other->tokens, q->tokens, (size_t)end * sizeof *q->tokens)) {
            q->awaited = sequence_id(other);
            q->n_awaited = count_common(q, other, end);
            return true;
        }
    }
    return false;
}

/* The same, where it was so before: looks at no tokens, since all that wait ask in every step. */
static bool is_still_computed(const struct scheduler *s, const struct sequence *q)
{
    if (q->n_awaited == 0)
        return false;
    list_each(other, &s->lists[SEQUENCE_PREFILLING], struct sequence, link)
    {
        if (sequence_id(other) == q->awaited)
            return !other->is_private && other->n_published * KV_BLOCK < q->n_awaited;
    }
    return false;
}

static int headroom(const struct scheduler *s)
{
    static const enum sequence_state active[] = { SEQUENCE_PREFILLING, SEQUENCE_RUNNING };
    int n = 0;
    for (size_t i = 0; i < sizeof active / sizeof *active; i++)
        list_each(q, &s->lists[active[i]], struct sequence, link)
        {
            int left = q->max_tokens - q->n_tokens;
            n += pages_for(left < HEADROOM_TOKENS ? left : HEADROOM_TOKENS);
        }
    return n;
}

static bool is_younger(const struct sequence *a, const struct sequence *b)
{
    return a->job->age != b->job->age ? a->job->age > b->job->age : a->choice > b->choice;
}

/* The youngest of those that hold pages. */
static struct sequence *find_victim(const struct scheduler *s)
{
    struct sequence *victim = NULL;
    for (enum sequence_state state = SEQUENCE_PREFILLING; state <= SEQUENCE_RUNNING; state++)
        list_each(q, &s->lists[state], struct sequence, link)
        {
            if (!victim || is_younger(q, victim))
                victim = q;
        }
    return victim;
}

static void preempt(struct scheduler *s, struct sequence *q)
{
    log_debug("preempted", "job=%llu tokens=%d", (unsigned long long)q->job->number, q->n_tokens);
    s->counts.preempted++;
    give_back(s, q);
    list_remove(&q->link);
    q->state = SEQUENCE_PREEMPTED;
    list_prepend(&s->lists[SEQUENCE_PREEMPTED], &q->link); /* older than those preempted before it */
}

/* ---- admission ---- */

enum admission { ADMITTED, NOT_YET, NO_ROOM };

static const char *miss_reason(struct scheduler *s, const struct sequence *q)
{
    if (!sequence_uses_prefix(q))
        return "not_used";
    if (q->n_tokens <= KV_BLOCK)
        return "short";
    if ((q->n_published + 1) * KV_BLOCK >= q->n_tokens)
        return NULL;
    enum kv_miss miss =
        kv_cache_miss(s->cache, q->slot, q->n_published, q->tokens + q->n_published * KV_BLOCK, q->job->salt);
    return miss == KV_MISS_EVICTED ? "evicted" : "new";
}

static bool waits_for_fork(const struct sequence *q)
{
    const struct sequence *first = q->job->sequences;
    return q->choice > 0 && q->n_given == 0 && first->n_given == 0 && first->state != SEQUENCE_FINISHED;
}

/* Whether n pages can be had for q, if need be from those who hold some for later. That an operation waits
 * for room protects nothing: two that wait could hold what the other lacks. */
static bool find_pages(struct scheduler *s, const struct sequence *q, int n)
{
    static const enum sequence_state idle[] = { SEQUENCE_HELD, SEQUENCE_PREEMPTED };
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        list_each(other, &s->lists[idle[i]], struct sequence, link)
        {
            if (kv_cache_available(s->cache) >= n)
                return true;
            if (other != q)
                give_back(s, other);
        }
    return kv_cache_available(s->cache) >= n;
}

static void take_slot(struct scheduler *s, struct sequence *q)
{
    q->slot = s->free_slots[--s->n_free_slots];
    q->n_past = q->n_published = 0;
    q->is_private = false;
}

/* Usage is counted once: of the prompt, when its first choice begins. */
static void count_prompt(struct scheduler *s, struct sequence *q, const char *cache_miss)
{
    struct job *job = q->job;
    if (q->state == SEQUENCE_PREEMPTED) {
        s->counts.recomputed += (uint64_t)(q->n_tokens - q->n_past);
    } else if (q->choice == 0) {
        job->n_cached = q->n_past;
        job->cache_miss = cache_miss;
        s->counts.cached_tokens += (uint64_t)q->n_past;
        s->counts.prompt_tokens += (uint64_t)(q->n_tokens - q->n_past);
    }
}

static enum admission admit(struct scheduler *s, struct sequence *q)
{
    bool is_new = q->slot < 0; /* an opened one may have kept what it has */
    const char *cache_miss = NULL;
    if (waits_for_fork(q) || is_still_computed(s, q))
        return NOT_YET;
    if (is_new && s->n_free_slots == 0)
        return NO_ROOM;
    if (is_new) {
        take_slot(s, q);
        adopt(s, q);
        read_session(s, q);
        if (is_being_computed(s, q)) {
            give_back(s, q);
            return NOT_YET;
        }
        cache_miss = miss_reason(s, q);
    }
    int n_next = q->n_tokens < s->n_ctx ? q->n_tokens + 1 : q->n_tokens;
    int more = pages_for(n_next) - q->n_past / KV_BLOCK;
    if (!find_pages(s, q, more + headroom(s)) ||
        !kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_tokens)) {
        give_back(s, q);
        return NO_ROOM;
    }
    if (is_new)
        count_prompt(s, q, cache_miss);
    set_state(s, q, SEQUENCE_PREFILLING);
    return ADMITTED;
}

/* Who lost pages, oldest first, operations as they came, and then who is new, oldest first: who has no room
 * lets nobody overtake. */
static void admit_all(struct scheduler *s)
{
    static const enum sequence_state order[] = { SEQUENCE_PREEMPTED, SEQUENCE_WAITING };
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        list_each(q, &s->lists[order[i]], struct sequence, link)
        {
            if (admit(s, q) == NO_ROOM)
                return;
        }
}

bool scheduler_fork(struct scheduler *s, const struct sequence *from, struct sequence *to)
{
    if (s->n_free_slots == 0 || kv_cache_available(s->cache) < 1 + headroom(s))
        return false;
    take_slot(s, to);
    kv_cache_share(s->cache, from->slot, to->slot, from->n_past);
    to->n_past = from->n_past;
    to->n_published = from->n_published;
    to->is_private = from->is_private;
    set_state(s, to, SEQUENCE_RUNNING);
    return true;
}

void scheduler_rewind(struct scheduler *s, struct sequence *q, int n_past)
{
    if (q->n_past <= n_past)
        return;
    q->n_past = n_past;
    q->n_published = q->n_published < n_past / KV_BLOCK ? q->n_published : n_past / KV_BLOCK;
    kv_cache_truncate(s->cache, q->slot, n_past);
}

void scheduler_resume(struct scheduler *s, struct sequence *q)
{
    set_state(s, q, SEQUENCE_PREEMPTED);
}

void scheduler_run(struct scheduler *s, struct sequence *q)
{
    set_state(s, q, SEQUENCE_RUNNING);
}

void scheduler_hold(struct scheduler *s, struct sequence *q)
{
    set_state(s, q, SEQUENCE_HELD);
}

/* ---- the rows of a step ---- */

static bool has_place(struct scheduler *s, const struct sequence *q)
{
    return kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_past + 1) ||
           (find_pages(s, q, 1) && kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_past + 1));
}

/* A page for the next row of everyone who runs; the youngest give up theirs where there are not enough. */
static void make_room(struct scheduler *s)
{
    struct link *at = s->lists[SEQUENCE_RUNNING].first;
    while (at) {
        struct sequence *q = list_entry(at, struct sequence, link);
        if (has_place(s, q)) {
            at = at->next;
        } else {
            preempt(s, find_victim(s));
            at = s->lists[SEQUENCE_RUNNING].first;
        }
    }
}

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

/* Nobody has room: pages come back when sessions are written. */
static void wait_for_pages(struct scheduler *s)
{
    bool has_waiting =
        !list_is_empty(&s->lists[SEQUENCE_WAITING]) || !list_is_empty(&s->lists[SEQUENCE_PREEMPTED]);
    if (s->options.sessions && has_waiting)
        sessions_collect(s->options.sessions, PAGES_WAIT_MS);
}

static void compute(struct scheduler *s)
{
    s->n_turns = s->n_rows = s->n_logits = s->n_hidden = s->n_prompt_details = 0;
    make_room(s);
    collect_running(s);
    int n_decode = s->n_rows;
    if (!list_is_empty(&s->lists[SEQUENCE_PREFILLING]))
        collect_prompts(s, pace_prompt_rows(&s->pace, n_decode, SCHEDULER_PREFILL_ROWS));
    if (s->n_rows == 0) {
        wait_for_pages(s);
        return;
    }

    int64_t begin_us = clock_us();
    engine_step(s->engine, s->rows, s->n_rows);
    s->computed_us = clock_us();
    pace_note(&s->pace, n_decode, s->n_rows - n_decode, s->computed_us - begin_us);
    s->counts.steps++;
}

struct struct_array scheduler_step(struct scheduler *s)
{
    forget_ended(s);
    end_idle(s);
    if (s->options.sessions)
        sessions_collect(s->options.sessions, 0);
    admit_all(s);
    compute(s);
    for (int i = 0; i < s->n_turns; i++)
        if (!s->turns[i].sequence->job->error_code)
            output_turn(s, &s->turns[i]);
    return (struct struct_array){ s->items, (uint32_t)s->n_items };
}
