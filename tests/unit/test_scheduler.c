/* The scheduler with an engine and a tokenizer made up here, so that every answer is known: the alphabet
 * model continues "ab" with "cdef...z" and then the end. Its noise mode has logits that depend on every token
 * so far, so that a row in the wrong slot or place shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buffer.h"
#include "worker/scheduler.h"

enum { BOS = 1, END = 2, A = 3, Z = A + 25, BYTE_1 = 29, BYTE_2 = 30, SILENT = 31, N_VOCAB = 32 };
enum { MAX_SLOTS = 8, MAX_CTX = 2048, MAX_ROWS = MAX_SLOTS + SCHEDULER_PREFILL_ROWS };

/* ---- the tokenizer ---- */

struct tokenizer {
    bool has_bos;
};

void token_list_push(struct token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->ids = realloc(l->ids, l->cap * sizeof *l->ids);
    }
    l->ids[l->n++] = id;
}

void token_list_fini(struct token_list *l)
{
    free(l->ids);
}

int tokenizer_n_vocab(const struct tokenizer *t)
{
    (void)t;
    return N_VOCAB;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    (void)t;
    return id == END;
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                      struct token_list *out)
{
    if (t->has_bos && (flags & ENCODE_BOS))
        token_list_push(out, BOS);
    for (size_t i = 0; i < len; i++)
        token_list_push(out, text[i] >= 'a' && text[i] <= 'z' ? A + text[i] - 'a' : 0);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    (void)t;
    *len = id >= A && id <= BYTE_2;
    return id == BYTE_1 ? "\xc3" : id == BYTE_2 ? "\xa9" : *len ? letters + (id - A) : NULL;
}

/* ---- the engine ---- */

struct engine {
    struct engine_options options;
    bool is_noisy, is_mute, is_steep; /* mute: every logit is not a number */
    useconds_t row_us;
    int32_t tokens[MAX_SLOTS][MAX_CTX];
    float logits[MAX_SLOTS][N_VOCAB];
    int largest_step, n_steps;
    int steps_with_decode_and_prefill;
};

const struct engine_options *engine_options(const struct engine *e)
{
    return &e->options;
}

const float *engine_logits(const struct engine *e, int i)
{
    return e->logits[i];
}

static int32_t successor(int32_t token)
{
    if (token == Z)
        return END;
    if (token == SILENT)
        return BYTE_1;
    return token >= A && token < BYTE_2 ? token + 1 : A;
}

static void fill_logits(const struct engine *e, const struct row *row, float *logits)
{
    uint64_t h = 1469598103934665603u;
    for (int i = 0; i <= row->pos; i++)
        h = (h ^ (uint64_t)e->tokens[row->slot][i]) * 1099511628211u;
    for (int v = 0; v < N_VOCAB; v++) {
        uint64_t x = (h ^ (uint64_t)v) * 0x9e3779b97f4a7c15u;
        logits[v] = e->is_mute    ? NAN
                    : e->is_steep ? (v == successor(row->token) ? FLT_MAX : -FLT_MAX)
                    : e->is_noisy ? (float)(x >> 40) / (float)(1 << 22)
                                  : (v == successor(row->token) ? 10.0f : -(float)v);
    }
}

void engine_step(struct engine *e, const struct row *rows, int n)
{
    int n_wanted = 0;
    assert_in_range(n, 1, e->options.max_rows);
    for (int i = 0; i < n; i++) {
        assert_in_range(rows[i].token, 0, N_VOCAB - 1);
        assert_in_range(rows[i].slot, 0, e->options.n_slots - 1);
        assert_in_range(rows[i].pos, 0, e->options.n_ctx - 1);
        e->tokens[rows[i].slot][rows[i].pos] = rows[i].token;
        if (rows[i].want_logits)
            fill_logits(e, &rows[i], e->logits[n_wanted++]);
    }
    e->largest_step = n > e->largest_step ? n : e->largest_step;
    e->n_steps++;
    e->steps_with_decode_and_prefill += rows[0].want_logits && !rows[n - 1].want_logits;
    if (e->row_us)
        usleep((useconds_t)n * e->row_us);
}

/* ---- what a job gave ---- */

struct outcome {
    struct buffer text;
    int32_t ids[MAX_CTX];
    float logprobs[MAX_CTX];
    int n_ids, n_ends, n_items;
    char finish_reason[16], error_code[32], error_message[200];
    uint64_t prompt_tokens;
};

static void copy_slice(char *out, size_t size, struct slice s)
{
    assert_true(s.len < size);
    memcpy(out, s.data, s.len);
    out[s.len] = 0;
}

static void outcome_add(struct outcome *o, const struct step_item *item)
{
    assert_int_equal(o->n_ends, 0);
    o->n_items++;
    buffer_append(&o->text, item->text.data, item->text.len);
    const struct token_detail *details = item->logprobs.items;
    assert_true(item->logprobs.n == 0 || item->logprobs.n == item->ids.n);
    for (uint32_t i = 0; i < item->ids.n; i++) {
        o->logprobs[o->n_ids] = item->logprobs.n ? details[i].logprob : 0;
        o->ids[o->n_ids++] = item->ids.ids[i];
    }
    o->prompt_tokens = item->prompt_tokens;
    if (item->finish_reason.data) {
        copy_slice(o->finish_reason, sizeof o->finish_reason, item->finish_reason);
        o->n_ends++;
    }
    if (item->error_code.data) {
        copy_slice(o->error_code, sizeof o->error_code, item->error_code);
        copy_slice(o->error_message, sizeof o->error_message, item->error_message);
        o->n_ends++;
    }
}

static const char *text_of(struct outcome *o)
{
    buffer_append(&o->text, "", 1);
    return o->text.data;
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n_ids * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n_ids * sizeof *a->logprobs);
    assert_int_equal(a->text.len, b->text.len);
    if (a->text.len)
        assert_memory_equal(a->text.data, b->text.data, a->text.len);
    assert_string_equal(a->finish_reason, b->finish_reason);
    assert_string_equal(a->error_code, b->error_code);
}

/* ---- a bench to run it on ---- */

struct bench {
    struct engine engine;
    struct tokenizer tokenizer;
    struct scheduler *s;
    struct outcome *outcomes; /* by job number */
    int n_outcomes;
};

static struct bench *bench_create(int n_slots, int n_ctx, int n_outcomes)
{
    struct bench *b = calloc(1, sizeof *b);
    b->engine.options = (struct engine_options){ .n_slots = n_slots,
                                                 .n_ctx = n_ctx,
                                                 .max_rows = n_slots + SCHEDULER_PREFILL_ROWS };
    b->tokenizer.has_bos = true;
    b->outcomes = calloc((size_t)n_outcomes, sizeof *b->outcomes);
    b->n_outcomes = n_outcomes;
    b->s = scheduler_create(&b->engine, &b->tokenizer, N_VOCAB);
    return b;
}

static void bench_destroy(struct bench *b)
{
    scheduler_destroy(b->s);
    for (int i = 0; i < b->n_outcomes; i++)
        buffer_fini(&b->outcomes[i].text);
    free(b->outcomes);
    free(b);
}

static void step(struct bench *b)
{
    struct struct_array items = scheduler_step(b->s);
    for (uint32_t i = 0; i < items.n; i++) {
        const struct step_item *item = (const struct step_item *)items.items + i;
        assert_in_range(item->job, 0, b->n_outcomes - 1);
        outcome_add(&b->outcomes[item->job], item);
    }
}

static void run(struct bench *b)
{
    for (int i = 0; scheduler_has_work(b->s); i++) {
        assert_true(i < 100000);
        step(b);
    }
}

static struct generate ask(const char *prompt, uint32_t max_tokens)
{
    return (struct generate){
        .prompt = slice_of(prompt), .max_tokens = max_tokens, .top_p = 1, .has_seed = true
    };
}

static struct outcome *run_alone(struct bench *b, struct generate request)
{
    assert_true(scheduler_add(b->s, 0, &request));
    run(b);
    assert_int_equal(b->outcomes[0].n_ends, 1);
    return &b->outcomes[0];
}

static void add(struct bench *b, uint64_t job, struct generate request)
{
    assert_true(scheduler_add(b->s, job, &request));
}

/* ---- one job ---- */

static void test_generates_until_the_end_token_and_does_not_show_it(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    struct outcome *o = run_alone(b, ask("tuv", 50));
    assert_string_equal(text_of(o), "wxyz");
    assert_int_equal(o->n_ids, 4);
    assert_string_equal(o->finish_reason, "stop");
    assert_int_equal(o->prompt_tokens, 4); /* with the one that begins a text */
    bench_destroy(b);
}

static void test_ignoring_the_end_goes_on_to_max_tokens(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    struct generate request = ask("y", 4);
    request.ignore_end = true;
    struct outcome *o = run_alone(b, request);
    const int32_t expected[] = { Z, END, A, A + 1 };
    assert_int_equal(o->n_ids, 4);
    assert_memory_equal(o->ids, expected, sizeof expected);
    assert_string_equal(text_of(o), "zab");
    assert_string_equal(o->finish_reason, "length");
    bench_destroy(b);
}

static void test_one_token_is_one_item(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    struct outcome *o = run_alone(b, ask("abc", 1));
    assert_string_equal(text_of(o), "d");
    assert_int_equal(o->n_items, 1);
    assert_string_equal(o->finish_reason, "length");
    bench_destroy(b);
}

static void test_a_stop_string_may_span_tokens(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    const struct slice stops[] = { slice_of("hx"), slice_of("fgh") };
    struct generate request = ask("ab", 20);
    request.stop = (struct slice_array){ stops, 2 };
    struct outcome *o = run_alone(b, request);
    assert_string_equal(text_of(o), "cde");
    assert_int_equal(o->n_ids, 6); /* c d e f g h */
    assert_string_equal(o->finish_reason, "stop");
    bench_destroy(b);
}

static void test_text_held_back_for_a_stop_string_comes_at_the_end(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    const struct slice stop = slice_of("cdefghX");
    struct generate request = ask("ab", 4);
    request.stop = (struct slice_array){ &stop, 1 };
    add(b, 0, request);
    for (int i = 0; i < 3; i++)
        step(b);
    assert_int_equal(b->outcomes[0].n_ids, 3);
    assert_int_equal(b->outcomes[0].text.len, 0);
    run(b);
    assert_string_equal(text_of(&b->outcomes[0]), "cdef");
    bench_destroy(b);
}

static void test_a_character_cut_between_tokens_comes_whole(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    const int32_t prompt[] = { SILENT };
    add(b, 0, (struct generate){ .tokens = { prompt, 1 }, .max_tokens = 3, .top_p = 1 });
    step(b);
    assert_int_equal(b->outcomes[0].ids[0], BYTE_1);
    assert_int_equal(b->outcomes[0].text.len, 0);
    run(b);
    assert_string_equal(text_of(&b->outcomes[0]), "\xc3\xa9"
                                                  "a");
    assert_int_equal(b->outcomes[0].prompt_tokens, 1);
    bench_destroy(b);
}

static void test_generation_ends_when_the_context_is_full(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 8, 1);
    struct outcome *o = run_alone(b, ask("abcd", 100)); /* 5 tokens with the first */
    assert_string_equal(text_of(o), "efg");
    assert_string_equal(o->finish_reason, "length");
    bench_destroy(b);
}

static void test_a_prompt_that_leaves_room_for_one_token_gets_one(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 8, 1);
    struct outcome *o = run_alone(b, ask("abcdef", 100));
    assert_string_equal(text_of(o), "g");
    assert_string_equal(o->finish_reason, "length");
    bench_destroy(b);
}

static void test_log_probabilities_come_with_the_bytes_of_tokens(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    struct generate request = ask("ab", 1);
    request.has_logprobs = true;
    request.logprobs = 3;
    add(b, 0, request);
    struct struct_array items = scheduler_step(b->s);
    const struct step_item *item = items.items;
    assert_int_equal(items.n, 1);
    assert_int_equal(item->logprobs.n, 1);
    const struct token_detail *d = item->logprobs.items;
    assert_int_equal(d->id, A + 2);
    assert_int_equal(d->bytes.len, 1);
    assert_int_equal(d->bytes.data[0], 'c');
    assert_int_equal(d->top.n, 3);
    const struct token_alternative *top = d->top.items;
    assert_int_equal(top[0].id, A + 2);
    assert_int_equal(top[1].id, 0);
    assert_int_equal(top[1].bytes.len, 0);
    assert_non_null(top[1].bytes.data);
    assert_true(top[0].logprob > top[1].logprob && top[1].logprob > top[2].logprob);
    bench_destroy(b);
}

static void test_impossible_log_probabilities_are_finite_on_the_wire(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    b->engine.is_steep = true;
    struct generate request = ask("ab", 2);
    request.has_logprobs = true;
    request.logprobs = 2;
    add(b, 0, request);
    struct struct_array items = scheduler_step(b->s);
    assert_int_equal(items.n, 1);
    const struct token_detail *detail = ((const struct step_item *)items.items)->logprobs.items;
    const struct token_alternative *top = detail->top.items;
    assert_int_equal(detail->top.n, 2);
    assert_true(isfinite(top[0].logprob) && isfinite(top[1].logprob));
    bench_destroy(b);
}

static void test_logits_that_are_no_numbers_end_the_job_with_an_error(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 64, 1);
    add(b, 0, ask("ab", 9));
    step(b);
    b->engine.is_mute = true;
    run(b);
    struct outcome *o = &b->outcomes[0];
    assert_int_equal(o->n_ids, 1); /* the one from before */
    assert_int_equal(o->n_ends, 1);
    assert_string_equal(o->error_code, ERROR_INTERNAL);
    assert_non_null(strstr(o->error_message, "no number"));
    assert_int_equal(scheduler_counts(b->s).taken, 0);
    bench_destroy(b);
}

/* ---- requests that cannot be served ---- */

static void assert_refused(int n_ctx, bool has_bos, struct generate request, const char *code,
                           const char *word)
{
    struct bench *b = bench_create(1, n_ctx, 1);
    b->tokenizer.has_bos = has_bos;
    struct outcome *o = run_alone(b, request);
    assert_string_equal(o->error_code, code);
    assert_non_null(strstr(o->error_message, word));
    assert_int_equal(o->n_ids, 0);
    assert_int_equal(b->engine.n_steps, 0);
    bench_destroy(b);
}

static void test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(void **state)
{
    (void)state;
    assert_refused(8, true, ask("abcdefg", 1), ERROR_CONTEXT_LENGTH, "8 tokens");
    char huge[4096];
    memset(huge, 'a', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    assert_refused(8, true, ask(huge, 1), ERROR_CONTEXT_LENGTH, "4095 bytes");
    const int32_t ids[8] = { A, A, A, A, A, A, A, A };
    assert_refused(8, true, (struct generate){ .tokens = { ids, 8 }, .max_tokens = 1 }, ERROR_CONTEXT_LENGTH,
                   "8 tokens");
}

static void test_tokens_outside_the_vocabulary_are_refused(void **state)
{
    (void)state;
    const int32_t ids[] = { A, N_VOCAB }, negative[] = { -1 };
    assert_refused(8, true, (struct generate){ .tokens = { ids, 2 }, .max_tokens = 1 }, ERROR_BAD_REQUEST,
                   "tokens[1] is 32");
    assert_refused(8, true, (struct generate){ .tokens = { negative, 1 }, .max_tokens = 1 },
                   ERROR_BAD_REQUEST, "-1");
    assert_refused(8, true, (struct generate){ .max_tokens = 1 }, ERROR_BAD_REQUEST, "empty");
}

static void test_an_empty_prompt_needs_a_token_that_begins_a_text(void **state)
{
    (void)state;
    assert_refused(8, false, ask("", 1), ERROR_BAD_REQUEST, "empty");
    struct bench *b = bench_create(1, 8, 1);
    assert_string_equal(text_of(run_alone(b, ask("", 2))), "ab");
    bench_destroy(b);
}

static void test_no_more_jobs_than_slots(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, 64, 3);
    struct generate request = ask("a", 2);
    add(b, 0, request);
    add(b, 1, request);
    assert_false(scheduler_add(b->s, 2, &request));
    run(b);
    add(b, 2, request); /* the slots of ended jobs are free at once */
    run(b);
    assert_string_equal(text_of(&b->outcomes[2]), "bc");
    bench_destroy(b);
}

/* ---- cancel ---- */

static void test_cancel_while_running_ends_at_the_next_step(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, 64, 2);
    add(b, 0, ask("a", 20));
    add(b, 1, ask("a", 3));
    step(b);
    scheduler_cancel(b->s, 0);
    step(b);
    assert_string_equal(b->outcomes[0].finish_reason, "cancelled");
    assert_int_equal(b->outcomes[0].n_ids, 1);
    run(b);
    assert_string_equal(text_of(&b->outcomes[1]), "bcd");
    scheduler_cancel(b->s, 1); /* too late: nothing */
    assert_false(scheduler_has_work(b->s));
    bench_destroy(b);
}

static void fill_prompt(char *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (char)('a' + i % 7);
    out[n] = 0;
}

static void test_cancel_during_prefill_ends_at_the_next_step(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, MAX_CTX, 2);
    char prompt[1501];
    fill_prompt(prompt, 1500);
    add(b, 0, ask(prompt, 20));
    step(b);
    int n_steps = b->engine.n_steps;
    scheduler_cancel(b->s, 0);
    step(b);
    assert_string_equal(b->outcomes[0].finish_reason, "cancelled");
    assert_int_equal(b->outcomes[0].n_ids, 0);
    assert_int_equal(b->engine.n_steps, n_steps);
    add(b, 1, ask("k", 2)); /* the slot is good for the next job */
    run(b);
    assert_string_equal(text_of(&b->outcomes[1]), "lm");
    bench_destroy(b);
}

static void test_clear_forgets_everything_silently(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, 64, 1);
    add(b, 0, ask("a", 20));
    step(b);
    scheduler_clear(b->s);
    assert_false(scheduler_has_work(b->s));
    assert_int_equal(scheduler_step(b->s).n, 0);
    assert_int_equal(scheduler_counts(b->s).taken, 0);
    bench_destroy(b);
}

/* ---- many jobs ---- */

static void test_a_long_prompt_does_not_stop_running_streams(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, MAX_CTX, 2);
    char prompt[1501];
    fill_prompt(prompt, 1500);
    struct generate endless = ask("a", 1000);
    endless.ignore_end = true;
    add(b, 0, endless);
    step(b);
    add(b, 1, ask(prompt, 1));
    while (b->outcomes[1].n_ids == 0) {
        int before = b->outcomes[0].n_ids;
        step(b);
        assert_int_equal(b->outcomes[0].n_ids, before + 1);
    }
    assert_true(b->engine.steps_with_decode_and_prefill >= 5);
    assert_true(b->engine.largest_step <= SCHEDULER_PREFILL_ROWS + 1);
    bench_destroy(b);
}

/* A first step of a large model must not take longer than the broker waits for a sign of life. */
static void test_chunks_begin_small_and_shrink_again_on_a_slow_machine(void **state)
{
    static const useconds_t row_us[] = { 0, 0, 8000, 0 }; /* of each step; 33 rows then take 264 ms */
    static const int rows[] = { 8, 16, 32, 16 };          /* of the prompt in each step */
    (void)state;
    struct bench *b = bench_create(2, MAX_CTX, 2);
    char prompt[201];
    fill_prompt(prompt, 200);
    struct generate endless = ask("a", 1000);
    endless.ignore_end = true;
    add(b, 0, endless);
    step(b);
    add(b, 1, ask(prompt, 1));
    for (int i = 0; i < 4; i++) {
        b->engine.row_us = row_us[i];
        b->engine.largest_step = 0;
        step(b);
        assert_int_equal(b->engine.largest_step, 1 + rows[i]);
    }
    bench_destroy(b);
}

static void test_waiting_prompts_are_taken_oldest_first(void **state)
{
    (void)state;
    struct bench *b = bench_create(4, MAX_CTX, 4);
    char prompt[301];
    fill_prompt(prompt, 300);
    for (uint64_t job = 0; job < 4; job++)
        add(b, job, ask(prompt, 500));
    for (int job = 0; job < 4; job++) {
        while (b->outcomes[job].n_ids == 0)
            step(b);
        for (int later = job + 1; later < 4; later++)
            assert_true(b->outcomes[later].n_ids <= b->outcomes[job].n_ids);
    }
    assert_true(b->outcomes[0].n_ids > b->outcomes[3].n_ids);
    bench_destroy(b);
}

enum { N_RANDOM = 200 };

struct random_job {
    char prompt[400];
    struct slice stops[2];
    struct generate request;
};

static void make_random_job(struct random_job *j)
{
    size_t len = (size_t)(rand() % 8 ? rand() % 20 : rand() % 390);
    for (size_t i = 0; i < len; i++)
        j->prompt[i] = (char)('a' + rand() % 26);
    j->prompt[len] = 0;
    j->request = ask(j->prompt, 1 + (uint32_t)(rand() % 40));
    j->request.temperature = rand() % 3 ? 0.9f : 0;
    j->request.top_k = rand() % 2 ? 10 : 0;
    j->request.seed = (uint64_t)rand();
    j->request.ignore_end = rand() % 4 == 0;
    j->request.has_logprobs = rand() % 2;
    j->request.logprobs = (uint32_t)(rand() % 4);
    j->stops[0] = slice_of("q");
    j->stops[1] = slice_of("zz");
    j->request.stop = (struct slice_array){ j->stops, (uint32_t)(rand() % 3) };
}

static void test_a_job_gives_the_same_alone_and_in_company(void **state)
{
    (void)state;
    static struct random_job jobs[N_RANDOM];
    struct bench *mixed = bench_create(MAX_SLOTS, 256, N_RANDOM);
    mixed->engine.is_noisy = true;
    srand(7);
    uint64_t next = 0;
    while (next < N_RANDOM || scheduler_has_work(mixed->s)) {
        for (int i = rand() % 3; i > 0 && next < N_RANDOM; i--) {
            make_random_job(&jobs[next]);
            if (!scheduler_add(mixed->s, next, &jobs[next].request))
                break;
            next++;
        }
        step(mixed);
    }
    int n_done = 0, n_refused = 0;
    for (int i = 0; i < N_RANDOM; i++) {
        struct bench *alone = bench_create(1, 256, 1);
        alone->engine.is_noisy = true;
        assert_same(run_alone(alone, jobs[i].request), &mixed->outcomes[i]);
        bench_destroy(alone);
        n_done += mixed->outcomes[i].finish_reason[0] != 0;
        n_refused += mixed->outcomes[i].error_code[0] != 0;
    }
    assert_int_equal(n_done + n_refused, N_RANDOM);
    assert_true(n_refused > 0 && n_done > N_RANDOM / 2);
    bench_destroy(mixed);
}

static void test_every_job_ends_exactly_once_whatever_is_cancelled(void **state)
{
    (void)state;
    struct random_job j;
    enum { N = 500 };
    struct bench *b = bench_create(4, 200, N);
    b->engine.is_noisy = true;
    srand(11);
    uint64_t next = 0;
    while (next < N || scheduler_has_work(b->s)) {
        if (next < N) {
            make_random_job(&j);
            if (scheduler_add(b->s, next, &j.request))
                next++;
        }
        if (rand() % 3 == 0)
            scheduler_cancel(b->s, next ? (uint64_t)rand() % next : 0);
        step(b); /* outcome_add checks that nothing follows an end */
    }
    int n_cancelled = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(b->outcomes[i].n_ends, 1);
        n_cancelled += strcmp(b->outcomes[i].finish_reason, "cancelled") == 0;
    }
    assert_true(n_cancelled > 5 && n_cancelled < N);
    assert_int_equal(scheduler_counts(b->s).taken, 0);
    bench_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generates_until_the_end_token_and_does_not_show_it),
        cmocka_unit_test(test_ignoring_the_end_goes_on_to_max_tokens),
        cmocka_unit_test(test_one_token_is_one_item),
        cmocka_unit_test(test_a_stop_string_may_span_tokens),
        cmocka_unit_test(test_text_held_back_for_a_stop_string_comes_at_the_end),
        cmocka_unit_test(test_a_character_cut_between_tokens_comes_whole),
        cmocka_unit_test(test_generation_ends_when_the_context_is_full),
        cmocka_unit_test(test_a_prompt_that_leaves_room_for_one_token_gets_one),
        cmocka_unit_test(test_log_probabilities_come_with_the_bytes_of_tokens),
        cmocka_unit_test(test_impossible_log_probabilities_are_finite_on_the_wire),
        cmocka_unit_test(test_logits_that_are_no_numbers_end_the_job_with_an_error),
        cmocka_unit_test(test_a_prompt_longer_than_the_context_is_refused_with_the_numbers),
        cmocka_unit_test(test_tokens_outside_the_vocabulary_are_refused),
        cmocka_unit_test(test_an_empty_prompt_needs_a_token_that_begins_a_text),
        cmocka_unit_test(test_no_more_jobs_than_slots),
        cmocka_unit_test(test_cancel_while_running_ends_at_the_next_step),
        cmocka_unit_test(test_cancel_during_prefill_ends_at_the_next_step),
        cmocka_unit_test(test_clear_forgets_everything_silently),
        cmocka_unit_test(test_a_long_prompt_does_not_stop_running_streams),
        cmocka_unit_test(test_chunks_begin_small_and_shrink_again_on_a_slow_machine),
        cmocka_unit_test(test_waiting_prompts_are_taken_oldest_first),
        cmocka_unit_test(test_a_job_gives_the_same_alone_and_in_company),
        cmocka_unit_test(test_every_job_ends_exactly_once_whatever_is_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
