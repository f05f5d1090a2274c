/* An operation truncates, appends, generates and scores, in this order, each as far as it is asked to. What
 * can be said from the tokens alone is done when the operation comes; the rest happens row by row in the
 * steps that follow, beside all others. */
#include "worker/operations.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/scheduler_state.h"

/* Tokens and alternatives that an answer tells of: some 3 MB of a message. */
enum { MAX_DETAILS = 64 << 10 };

struct operation {
    bool is_busy, is_done; /* never both */
    struct msg_advanced reply;

    int n_before;   /* tokens of the sequence before any were appended */
    int n_told;     /* tokens behind n_before that have their details */
    int n_wanted;   /* tokens that it generates yet */
    int n_logprobs; /* alternatives of each token; -1 for no details */
    bool has_score;
    int n_top, n_strings;
    struct buffer strings; /* each a size_t and its bytes */

    struct buffer details;      /* struct token_detail, whose top is filled in at the end */
    struct buffer alternatives; /* struct token_alternative */
    struct token_alternative top[MAX_LOGPROBS];
    float exact[MAX_SCORED_STRINGS], prefix[MAX_SCORED_STRINGS];
    char error_text[160];
};

struct operation *operation_create(void)
{
    return xcalloc(1, sizeof(struct operation));
}

void operation_destroy(struct operation *o)
{
    if (!o)
        return;
    buffer_fini(&o->strings);
    buffer_fini(&o->details);
    buffer_fini(&o->alternatives);
    free(o);
}

bool operation_is_done(const struct operation *o)
{
    return o->is_done;
}

const struct msg_advanced *operation_take(struct operation *o)
{
    assert(o->is_done);
    o->is_done = false;
    return &o->reply;
}

/* ---- the beginning ---- */

static void __attribute__((format(printf, 2, 3))) refuse(struct operation *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(o->error_text, sizeof o->error_text, format, args);
    va_end(args);
    o->reply.error_code = slice_of(ERROR_BAD_REQUEST);
    o->reply.error_message = slice_of(o->error_text);
    o->is_done = true;
}

static void keep_strings(struct operation *o, struct slice_array strings)
{
    buffer_clear(&o->strings);
    o->n_strings = (int)strings.n;
    for (uint32_t i = 0; i < strings.n; i++) {
        buffer_append(&o->strings, &strings.items[i].len, sizeof strings.items[i].len);
        buffer_append(&o->strings, strings.items[i].data, strings.items[i].len);
    }
}

/* The tokens to append are in s->encoded then. */
static bool check(struct scheduler *s, struct operation *o, const struct sequence *q,
                  const struct msg_advance *m)
{
    uint32_t keep = m->has_keep ? m->keep : (uint32_t)q->n_tokens;
    if (keep < 1 || keep > (uint32_t)q->n_tokens) {
        refuse(o, "keep is %u, and the sequence has %d tokens", keep, q->n_tokens);
        return false;
    }
    s->encoded.n = 0;
    if (m->bytes.len)
        tokenizer_encode(s->tokenizer, m->bytes.data, m->bytes.len, 0, &s->encoded);
    for (uint32_t i = 0; i < m->tokens.n; i++) {
        if (m->tokens.ids[i] < 0 || m->tokens.ids[i] >= s->n_vocab) {
            refuse(o, "tokens[%u] is %d, and the vocabulary ends at %d", i, m->tokens.ids[i], s->n_vocab - 1);
            return false;
        }
        token_list_push(&s->encoded, m->tokens.ids[i]);
    }
    if (m->has_logprobs && (s->encoded.n + m->generate) * (1 + (size_t)m->logprobs) > MAX_DETAILS) {
        refuse(o, "%zu tokens with %u alternatives each are more than an answer takes, which is %d in all",
               s->encoded.n + m->generate, m->logprobs, MAX_DETAILS);
        return false;
    }
    if (keep + s->encoded.n + m->generate > (size_t)q->max_tokens) {
        refuse(o, "%u tokens kept, %zu appended and %u generated are more than the context of %d", keep,
               s->encoded.n, m->generate, q->max_tokens);
        o->reply.error_code = slice_of(ERROR_CONTEXT_LENGTH);
        return false;
    }
    return true;
}

static void begin(struct scheduler *s, struct operation *o, struct sequence *q, const struct msg_advance *m)
{
    q->n_tokens = m->has_keep ? (int)m->keep : q->n_tokens;
    o->n_before = q->n_tokens;
    memcpy(q->tokens + q->n_tokens, s->encoded.ids, s->encoded.n * sizeof *q->tokens);
    q->n_tokens += (int)s->encoded.n;
    o->n_told = 0;
    o->n_wanted = (int)m->generate;
    o->n_logprobs = m->has_logprobs ? (int)m->logprobs : -1;
    o->has_score = m->has_score;
    o->n_top = (int)m->score.top;
    keep_strings(o, m->score.strings);
    buffer_clear(&o->details);
    buffer_clear(&o->alternatives);
    o->is_busy = true;

    /* What lies in the cache has no logits any more: the last row before the first that are wanted is
     * computed again. */
    scheduler_rewind(s, q, o->n_before - 1);
}

void operation_begin(struct scheduler *s, struct sequence *q, const struct msg_advance *m)
{
    struct operation *o = q->job->operation;
    if (o->is_busy || o->is_done) {
        job_fail(q->job, ERROR_BAD_REQUEST, "an operation came before the one before it was answered");
        return;
    }
    o->reply = (struct msg_advanced){ .job = m->job, .op = m->op, .n_tokens = (uint32_t)q->n_tokens };
    if (!check(s, o, q, m))
        return;
    begin(s, o, q, m);
    scheduler_move(s, q, SEQUENCE_PREEMPTED);
}

/* ---- the steps ---- */

int operation_first_wanted(const struct sequence *q)
{
    const struct operation *o = q->job->operation;
    int first = q->n_tokens - 1, told = o->n_before + o->n_told - 1;
    return o->is_busy && o->n_logprobs >= 0 && told < first ? told : first;
}

static void add_detail(struct scheduler *s, struct operation *o, const struct choice *c)
{
    struct token_alternative top[MAX_LOGPROBS];
    struct token_detail detail = output_detail(s, c, top);
    buffer_append(&o->details, &detail, sizeof detail);
    buffer_append(&o->alternatives, top, detail.top.n * sizeof *top);
    o->n_told++;
}

/* Details of appended tokens, from the logits of the rows before them, which are the last of the turn. */
static void tell_appended(struct scheduler *s, struct operation *o, const struct turn *t)
{
    const struct sequence *q = t->sequence;
    int end = q->n_past + t->n_rows;
    if (o->n_logprobs < 0)
        return;
    for (int i = o->n_before + o->n_told; i < q->n_tokens && i <= end; i++) {
        struct choice c;
        int logits = t->first_logits + t->n_logits - (end - (i - 1));
        sampler_describe(s->sampler, engine_logits(s->engine, logits), q->tokens[i], o->n_logprobs, &c);
        add_detail(s, o, &c);
    }
}

static void score(struct scheduler *s, struct operation *o, const float *logits)
{
    struct choice c;
    struct token_alternative top[MAX_LOGPROBS];
    const char *at = o->strings.data;
    sampler_describe(s->sampler, logits, 0, o->n_top, &c);
    struct token_detail detail = output_detail(s, &c, top);
    memcpy(o->top, top, detail.top.n * sizeof *top);
    bool is_possible = score_begin(s->score, s->sampler, logits);
    for (int i = 0; i < o->n_strings; i++) {
        size_t len;
        memcpy(&len, at, sizeof len);
        at += sizeof len;
        o->exact[i] = is_possible ? (float)score_exact(s->score, at, len) : (float)SCORE_NONE;
        o->prefix[i] = is_possible ? (float)score_prefix(s->score, at, len) : (float)SCORE_NONE;
        at += len;
    }
    o->reply.has_score = true;
    o->reply.score = (struct token_scores){ .top = { o->top, detail.top.n },
                                            .exact = { o->exact, (uint32_t)o->n_strings },
                                            .prefix = { o->prefix, (uint32_t)o->n_strings } };
}

static void finish(struct operation *o, const struct sequence *q)
{
    struct token_detail *details = (void *)o->details.data;
    struct token_alternative *alternatives = (void *)o->alternatives.data;
    for (size_t i = 0; i < o->details.len / sizeof *details; i++) {
        details[i].top.items = alternatives;
        alternatives += details[i].top.n;
    }
    o->reply.logprobs = (struct struct_array){ details, (uint32_t)(o->details.len / sizeof *details) };
    o->reply.n_tokens = (uint32_t)q->n_tokens;
    o->reply.ids = (struct id_array){ q->tokens + o->n_before, (uint32_t)(q->n_tokens - o->n_before) };
    o->is_busy = false;
    o->is_done = true;
}

/* One more token, if another is wanted and the text does not end. */
static bool generate(struct scheduler *s, struct operation *o, struct sequence *q, const float *logits)
{
    struct choice c;
    if (o->n_wanted == 0)
        return false;
    struct sampling how = q->sampling;
    how.n_logprobs = o->n_logprobs > 0 ? o->n_logprobs : 0;
    if (!sampler_choose(s->sampler, &how, logits, (uint64_t)q->n_tokens, &c) ||
        (!q->job->ignore_end && tokenizer_is_end(s->tokenizer, c.token.id))) {
        o->reply.is_end = true;
        o->n_wanted = 0;
        return false;
    }
    q->tokens[q->n_tokens++] = c.token.id;
    if (o->n_logprobs >= 0)
        add_detail(s, o, &c);
    o->n_wanted--;
    return true;
}

void operation_turn(struct scheduler *s, struct turn *t)
{
    struct sequence *q = t->sequence;
    struct operation *o = q->job->operation;

    if (o->is_busy)
        tell_appended(s, o, t);
    q->n_past += t->n_rows;
    scheduler_publish(s, q);
    if (q->n_past < q->n_tokens)
        return;
    if (!o->is_busy) {
        scheduler_move(s, q, SEQUENCE_HELD);
        return;
    }
    const float *logits = engine_logits(s->engine, t->first_logits + t->n_logits - 1);
    if (generate(s, o, q, logits) && (o->n_wanted || o->has_score)) {
        scheduler_move(s, q, SEQUENCE_RUNNING);
        return;
    }
    if (o->has_score)
        score(s, o, logits);
    finish(o, q);
    scheduler_move(s, q, SEQUENCE_HELD);
}
