/* One step, in order: cancelled and faulty ones end, rows are collected
 * (running jobs first, then prompts, oldest first), the engine computes them, and every row that asked for
 * logits gives its job a token. */
#include "worker/scheduler.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/sampler.h"
#include "worker/text_out.h"

static_assert((int)MAX_LOGPROBS <= (int)SAMPLER_MAX_LOGPROBS,
              "the sampler reports what a request may ask for");

/* The lowest log-probability sent: the wire carries finite numbers only. */
static const float LOGPROB_FLOOR = -9999;

/* How many prompt rows a step takes depends on how long they take here: the number doubles while steps stay
 * under half of the time wanted and halves when they go over it. That time is what the other streams notice
 * as a pause, or, with no other stream, how long the broker may hear nothing and a cancel may wait. Below 8
 * rows the weights are read for too little work. It begins there, because the first step is blind: on 2 cores
 * with AVX2 an 8 B model takes 0.15 s per row, and the broker gives a silent worker up after
 * PEER_TIMEOUT_MS. The other numbers are guesses until measured. */
enum { CHUNK_LEAST_ROWS = 8, STEP_BESIDE_US = 150 * 1000, STEP_ALONE_US = 1000 * 1000 };

struct chunk {
    int rows;
    int64_t wanted_us;
};

enum sequence_state {
    SEQUENCE_FREE,    /* on free */
    SEQUENCE_WAITING, /* on waiting: part of its prompt is not computed; or it has an error to tell */
    SEQUENCE_RUNNING, /* on running: one row per step */
    SEQUENCE_ENDED,   /* on ended: its last item is with the caller until the next step or job */
    SEQUENCE_STATES
};

struct sequence {
    struct link link;
    enum sequence_state state;
    int32_t slot; /* of the engine: its place in scheduler.sequences */
    uint64_t job;

    int32_t *prompt; /* [n_ctx] */
    int n_prompt;
    int n_past;                /* positions computed; after the prompt also the position of `token` */
    int32_t token;             /* the last one chosen */
    uint32_t n_given;          /* tokens handed out */
    int64_t first_us, last_us; /* when the first of them was there, and the last */

    struct sampling sampling;
    uint32_t max_tokens;
    bool ignore_end, wants_logprobs, is_cancelled;

    struct text_out text;
    const char *stops[MAX_STOPS];
    size_t stop_lens[MAX_STOPS];
    char stop_bytes[MAX_STOPS * FIELD_TEXTS_BYTES];

    /* What its current item points to. */
    struct token_detail detail;
    struct token_alternative top[MAX_LOGPROBS];
    const char *error_code; /* NULL while all is well */
    char error_text[160];
};

struct scheduler {
    struct engine *engine;
    const struct tokenizer *tokenizer;
    struct sampler *sampler;
    int n_slots, n_ctx, n_vocab, max_rows;
    size_t longest_piece; /* most bytes of text one token can stand for */

    struct list lists[SEQUENCE_STATES];
    struct sequence *sequences; /* [n_slots] */
    int32_t *prompts;           /* [n_slots][n_ctx] */
    struct token_list encoded;  /* scratch of scheduler_add */

    struct chunk alone, beside;
    struct row *rows;         /* [max_rows] */
    struct sequence **wanted; /* [n_slots]: whose logits the step gives, in order */
    struct step_item *items;  /* [n_slots] */
    uint32_t n_items;
    int64_t computed_us; /* when the engine had this step's logits */
    struct scheduler_counts counts;
};

static void set_state(struct scheduler *s, struct sequence *q, enum sequence_state state)
{
    list_remove(&q->link);
    q->state = state;
    list_append(&s->lists[state], &q->link);
}

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

struct scheduler *scheduler_create(struct engine *e, const struct tokenizer *t, int n_vocab)
{
    const struct engine_options *o = engine_options(e);
    assert(o->max_rows > o->n_slots);

    struct scheduler *s = xcalloc(1, sizeof *s);
    s->engine = e;
    s->tokenizer = t;
    s->sampler = sampler_create(n_vocab);
    s->n_slots = o->n_slots;
    s->n_ctx = o->n_ctx;
    s->n_vocab = n_vocab;
    s->max_rows = o->max_rows;
    s->longest_piece = find_longest_piece(t);
    s->alone = (struct chunk){ .rows = CHUNK_LEAST_ROWS, .wanted_us = STEP_ALONE_US };
    s->beside = (struct chunk){ .rows = CHUNK_LEAST_ROWS, .wanted_us = STEP_BESIDE_US };
    s->rows = xcalloc((size_t)s->max_rows, sizeof *s->rows);
    s->wanted = xcalloc((size_t)s->n_slots, sizeof *s->wanted);
    s->items = xcalloc((size_t)s->n_slots, sizeof *s->items);
    s->prompts = xcalloc((size_t)s->n_slots * (size_t)s->n_ctx, sizeof *s->prompts);
    s->sequences = xcalloc((size_t)s->n_slots, sizeof *s->sequences);
    for (int i = 0; i < s->n_slots; i++) {
        s->sequences[i].slot = i;
        s->sequences[i].prompt = s->prompts + (size_t)i * (size_t)s->n_ctx;
        set_state(s, &s->sequences[i], SEQUENCE_FREE);
    }
    return s;
}

static void release(struct scheduler *s, struct sequence *q)
{
    text_out_fini(&q->text);
    set_state(s, q, SEQUENCE_FREE);
}

static void forget_ended(struct scheduler *s)
{
    list_each(q, &s->lists[SEQUENCE_ENDED], struct sequence, link) release(s, q);
    s->n_items = 0;
}

void scheduler_clear(struct scheduler *s)
{
    for (int i = 0; i < s->n_slots; i++)
        if (s->sequences[i].state != SEQUENCE_FREE)
            release(s, &s->sequences[i]);
    s->n_items = 0;
}

void scheduler_destroy(struct scheduler *s)
{
    if (!s)
        return;
    scheduler_clear(s);
    token_list_fini(&s->encoded);
    sampler_destroy(s->sampler);
    free(s->sequences);
    free(s->prompts);
    free(s->items);
    free(s->wanted);
    free(s->rows);
    free(s);
}

/* ---- admission ---- */

static void __attribute__((format(printf, 3, 4)))
fail(struct sequence *q, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(q->error_text, sizeof q->error_text, format, args);
    va_end(args);
    q->error_code = code;
}

static bool prompt_fits(const struct scheduler *s, struct sequence *q, size_t n)
{
    if (n + 1 <= (size_t)s->n_ctx)
        return true;
    fail(q, ERROR_CONTEXT_LENGTH,
         "the prompt has %zu tokens, and with one to generate the context of %d is too short", n, s->n_ctx);
    return false;
}

static void take_text(struct scheduler *s, struct sequence *q, struct slice text)
{
    /* What cannot fit is not worth the time to find out how many tokens it is. */
    if (text.len > (size_t)s->n_ctx * s->longest_piece) {
        fail(q, ERROR_CONTEXT_LENGTH,
             "the prompt of %zu bytes is more than a context of %d tokens can hold (at most %zu bytes each)",
             text.len, s->n_ctx, s->longest_piece);
        return;
    }
    s->encoded.n = 0;
    tokenizer_encode(s->tokenizer, text.data, text.len, ENCODE_BOS, &s->encoded);
    if (s->encoded.n == 0) {
        fail(q, ERROR_BAD_REQUEST,
             "the prompt is empty, and this model has no token that begins a text to put in its place");
    } else if (prompt_fits(s, q, s->encoded.n)) {
        q->n_prompt = (int)s->encoded.n;
        memcpy(q->prompt, s->encoded.ids, s->encoded.n * sizeof *q->prompt);
    }
}

static void take_tokens(struct scheduler *s, struct sequence *q, struct id_array tokens)
{
    if (tokens.n == 0) {
        fail(q, ERROR_BAD_REQUEST, "the list of prompt tokens is empty");
        return;
    }
    if (!prompt_fits(s, q, tokens.n))
        return;
    for (uint32_t i = 0; i < tokens.n; i++) {
        if (tokens.ids[i] < 0 || tokens.ids[i] >= s->n_vocab) {
            fail(q, ERROR_BAD_REQUEST, "tokens[%u] is %d, and the vocabulary ends at %d", i, tokens.ids[i],
                 s->n_vocab - 1);
            return;
        }
    }
    q->n_prompt = (int)tokens.n;
    memcpy(q->prompt, tokens.ids, tokens.n * sizeof *q->prompt);
}

static void take_stops(struct sequence *q, struct slice_array stop)
{
    char *to = q->stop_bytes;
    assert(stop.n <= MAX_STOPS);
    for (uint32_t i = 0; i < stop.n; i++) {
        assert(stop.items[i].len <= FIELD_TEXTS_BYTES);
        memcpy(to, stop.items[i].data, stop.items[i].len);
        q->stops[i] = to;
        q->stop_lens[i] = stop.items[i].len;
        to += stop.items[i].len;
    }
    text_out_init(&q->text, q->stops, q->stop_lens, (int)stop.n);
}

bool scheduler_add(struct scheduler *s, uint64_t job, const struct generate *request)
{
    forget_ended(s);
    struct sequence *q = list_entry(s->lists[SEQUENCE_FREE].first, struct sequence, link);
    if (!q)
        return false;

    q->job = job;
    q->n_prompt = q->n_past = 0;
    q->n_given = 0;
    q->first_us = q->last_us = 0;
    q->error_code = NULL;
    q->is_cancelled = false;
    q->max_tokens = request->max_tokens;
    q->ignore_end = request->ignore_end;
    q->wants_logprobs = request->has_logprobs;
    q->sampling = (struct sampling){ .temperature = request->temperature,
                                     .top_k = (int)request->top_k,
                                     .top_p = request->top_p,
                                     .min_p = request->min_p,
                                     .seed = request->seed,
                                     .n_logprobs = request->has_logprobs ? (int)request->logprobs : 0 };
    take_stops(q, request->stop);
    if (request->prompt.data)
        take_text(s, q, request->prompt);
    else
        take_tokens(s, q, request->tokens);
    set_state(s, q, SEQUENCE_WAITING);
    return true;
}

void scheduler_cancel(struct scheduler *s, uint64_t job)
{
    for (int i = 0; i < s->n_slots; i++) {
        struct sequence *q = &s->sequences[i];
        if (q->job == job && (q->state == SEQUENCE_WAITING || q->state == SEQUENCE_RUNNING))
            q->is_cancelled = true;
    }
}

bool scheduler_has_work(const struct scheduler *s)
{
    return !list_is_empty(&s->lists[SEQUENCE_WAITING]) || !list_is_empty(&s->lists[SEQUENCE_RUNNING]);
}

struct scheduler_counts scheduler_counts(const struct scheduler *s)
{
    struct scheduler_counts counts = s->counts;
    counts.taken = (int)(s->lists[SEQUENCE_WAITING].count + s->lists[SEQUENCE_RUNNING].count);
    return counts;
}

/* ---- a step ---- */

static struct step_item *add_item(struct scheduler *s, const struct sequence *q)
{
    struct step_item *item = &s->items[s->n_items++];
    *item = (struct step_item){ .job = q->job, .prompt_tokens = (uint64_t)q->n_prompt };
    return item;
}

static void tell_error(const struct sequence *q, struct step_item *item)
{
    item->error_code = slice_of(q->error_code);
    item->error_message = slice_of(q->error_text);
}

static void end_idle(struct scheduler *s, enum sequence_state state)
{
    list_each(q, &s->lists[state], struct sequence, link)
    {
        if (!q->is_cancelled && !q->error_code)
            continue;
        struct step_item *item = add_item(s, q);
        if (q->is_cancelled)
            item->finish_reason = slice_of("cancelled");
        else
            tell_error(q, item);
        set_state(s, q, SEQUENCE_ENDED);
    }
}

/* Rows of prompts from n on, at most up to max_rows; returns the new number of rows. */
static int collect_prompts(struct scheduler *s, int n, int max_rows, int *n_wanted)
{
    list_each(q, &s->lists[SEQUENCE_WAITING], struct sequence, link)
    {
        while (n < max_rows && q->n_past < q->n_prompt) {
            int pos = q->n_past++;
            bool is_last = q->n_past == q->n_prompt;
            s->rows[n++] = (struct row){ q->prompt[pos], q->slot, pos, is_last };
            if (is_last)
                s->wanted[(*n_wanted)++] = q;
        }
    }
    return n;
}

static int collect_running(struct scheduler *s, int *n_wanted)
{
    int n = 0;
    list_each(q, &s->lists[SEQUENCE_RUNNING], struct sequence, link)
    {
        s->rows[n++] = (struct row){ q->token, q->slot, q->n_past++, true };
        s->wanted[(*n_wanted)++] = q;
    }
    return n;
}

static void adapt(struct chunk *c, int n_rows, int64_t took_us)
{
    if (took_us > c->wanted_us && c->rows > CHUNK_LEAST_ROWS)
        c->rows /= 2;
    else if (took_us < c->wanted_us / 2 && n_rows == c->rows && c->rows < SCHEDULER_PREFILL_ROWS)
        c->rows *= 2;
}

/* Returns how many sequences now have logits. */
static int compute(struct scheduler *s)
{
    int n_wanted = 0;
    int n_running = collect_running(s, &n_wanted);
    struct chunk *chunk = n_running ? &s->beside : &s->alone;
    int max_rows = n_running + chunk->rows;
    int n = collect_prompts(s, n_running, max_rows < s->max_rows ? max_rows : s->max_rows, &n_wanted);
    if (n == 0)
        return 0;

    int64_t begin_us = clock_us();
    engine_step(s->engine, s->rows, n);
    s->computed_us = clock_us();
    if (n > n_running)
        adapt(chunk, n - n_running, s->computed_us - begin_us);
    s->counts.steps++;
    s->counts.prompt_tokens += (uint64_t)(n - n_running);
    return n_wanted;
}

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

static void detail_choice(const struct scheduler *s, struct sequence *q, const struct choice *c,
                          struct step_item *item)
{
    for (int i = 0; i < c->n_top; i++)
        q->top[i] = (struct token_alternative){ c->top[i].id, sendable(c->top[i].logprob),
                                                piece_of(s, c->top[i].id) };
    q->detail = (struct token_detail){ .id = c->token.id,
                                       .logprob = sendable(c->token.logprob),
                                       .bytes = piece_of(s, c->token.id),
                                       .top = { q->top, (uint32_t)c->n_top } };
    item->logprobs = (struct struct_array){ &q->detail, 1 };
}

/* Hands out the token just chosen; returns why the job ends with it, or NULL. */
static const char *give_token(struct scheduler *s, struct sequence *q, const struct choice *c,
                              struct step_item *item)
{
    if (!q->ignore_end && tokenizer_is_end(s->tokenizer, q->token))
        return "stop";

    item->ids = (struct id_array){ &q->token, 1 };
    if (q->wants_logprobs)
        detail_choice(s, q, c, item);
    if (!q->n_given++)
        q->first_us = s->computed_us;
    q->last_us = s->computed_us;
    s->counts.tokens++;

    size_t len;
    const char *bytes = tokenizer_piece(s->tokenizer, q->token, &len);
    if (len && text_out_push(&q->text, bytes, len))
        return "stop";
    /* The token takes position n_past, and one more must have a place to be worth computing. */
    if (q->n_given >= q->max_tokens || q->n_past + 1 >= s->n_ctx)
        return "length";
    return NULL;
}

static void advance(struct scheduler *s, struct sequence *q, const float *logits)
{
    struct choice c;
    struct step_item *item = add_item(s, q);
    if (!sampler_choose(s->sampler, &q->sampling, logits, (uint64_t)q->n_past, &c)) {
        log_error("no_token_possible", "job=%llu position=%d", (unsigned long long)q->job, q->n_past);
        fail(q, ERROR_INTERNAL,
             "after %d tokens the model gives no number to any token; its file may be damaged", q->n_past);
        tell_error(q, item);
        set_state(s, q, SEQUENCE_ENDED);
        return;
    }
    q->token = c.token.id;

    buffer_clear(&q->text.ready);
    const char *reason = give_token(s, q, &c, item);
    if (reason) {
        text_out_flush(&q->text);
        item->finish_reason = slice_of(reason);
        item->decode_us = (uint64_t)(q->last_us - q->first_us);
    }
    if (q->text.ready.len)
        item->text = (struct slice){ q->text.ready.data, q->text.ready.len };
    if (reason)
        set_state(s, q, SEQUENCE_ENDED);
    else if (q->state == SEQUENCE_WAITING)
        set_state(s, q, SEQUENCE_RUNNING);
}

struct struct_array scheduler_step(struct scheduler *s)
{
    forget_ended(s);
    end_idle(s, SEQUENCE_RUNNING);
    end_idle(s, SEQUENCE_WAITING);

    int n_wanted = compute(s);
    for (int i = 0; i < n_wanted; i++)
        advance(s, s->wanted[i], engine_logits(s->engine, i));
    return (struct struct_array){ s->items, s->n_items };
}
