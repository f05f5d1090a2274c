/* The scheduler with an engine and a tokenizer made up here, so that every answer is known: the alphabet
 * model continues "ab" with "cdef...z" and then the end. Its noise mode has logits that depend on every token
 * so far, as they lie in the pages of a real KV cache, so that a row in the wrong slot or place shows, and a
 * page that was lost, shared or overwritten where it must not. */
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
#include "worker/kv/page.h"
#include "worker/scheduler.h"

enum { BOS = 1, END = 2, A = 3, Z = A + 25, BYTE_1 = 29, BYTE_2 = 30, SILENT = 31, N_VOCAB = 32 };
enum { MAX_SLOTS = 8, MAX_CTX = 2048, MAX_ROWS = MAX_SLOTS * 9 + SCHEDULER_PREFILL_ROWS, N_EMBD = 4 };

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
    struct kv_cache cache; /* tokens lie where keys and values would */
    float logits[MAX_ROWS][N_VOCAB];
    float hidden[MAX_ROWS][N_EMBD];
    int largest_step, n_steps, n_rows;
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

const float *engine_hidden(const struct engine *e, int i)
{
    return e->hidden[i];
}

int engine_n_embd(const struct engine *e)
{
    (void)e;
    return N_EMBD;
}

struct kv_cache *engine_cache(struct engine *e)
{
    return &e->cache;
}

static int32_t *token_at(const struct engine *e, int slot, int pos)
{
    assert_true(pos / KV_BLOCK < kv_cache_slot_pages(&e->cache, slot));
    size_t page = (size_t)kv_cache_table(&e->cache, slot)[pos / KV_BLOCK];
    char *memory = kv_cache_blocks(&e->cache, 0, 0) + page * e->cache.page_bytes;
    return (int32_t *)(void *)memory + pos % KV_BLOCK;
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
        h = (h ^ (uint64_t)*token_at(e, row->slot, i)) * 1099511628211u;
    /* Some texts go on as one would guess, most of the time. */
    bool is_easy = row->pos > 0 && *token_at(e, row->slot, 1) % 2;
    int32_t likely = is_easy ? successor(row->token) : -1;
    for (int v = 0; v < N_VOCAB; v++) {
        uint64_t x = (h ^ (uint64_t)v) * 0x9e3779b97f4a7c15u;
        logits[v] = e->is_mute    ? NAN
                    : e->is_steep ? (v == successor(row->token) ? FLT_MAX : -FLT_MAX)
                    : e->is_noisy ? (float)(x >> 40) / (float)(1 << 22) + (v == likely ? 3 : 0)
                                  : (v == successor(row->token) ? 10.0f : -(float)v);
    }
}

void engine_step(struct engine *e, const struct row *rows, int n)
{
    int n_wanted = 0, n_hidden = 0;
    assert_in_range(n, 1, e->options.max_rows);
    for (int i = 0; i < n; i++) {
        assert_in_range(rows[i].token, 0, N_VOCAB - 1);
        assert_in_range(rows[i].slot, 0, e->options.n_slots - 1);
        assert_in_range(rows[i].pos, 0, e->options.n_ctx - 1);
        *token_at(e, rows[i].slot, rows[i].pos) = rows[i].token;
        if (rows[i].want_logits)
            fill_logits(e, &rows[i], e->logits[n_wanted++]);
        for (int k = 0; k < N_EMBD && rows[i].want_hidden; k++)
            e->hidden[n_hidden][k] = (float)(rows[i].token * (k + 1)) + 1e-3f * (float)rows[i].pos;
        n_hidden += rows[i].want_hidden;
    }
    e->n_rows += n;
    e->largest_step = n > e->largest_step ? n : e->largest_step;
    e->n_steps++;
    e->steps_with_decode_and_prefill += rows[0].want_logits && !rows[n - 1].want_logits;
    if (e->row_us)
        usleep((useconds_t)n * e->row_us);
}

/* ---- a draft model ---- */

/* Guesses that the text goes on as one would think, which some texts do. */
void drafter_propose(struct drafter *d, struct draft_request *requests, int n)
{
    (void)d;
    for (int i = 0; i < n; i++) {
        int32_t token = requests[i].tokens[requests[i].n_tokens - 1];
        for (int k = 0; k < requests[i].max_draft; k++)
            token = requests[i].out[k] = successor(token);
        requests[i].n_out = requests[i].max_draft;
    }
}

double drafter_token_us(const struct drafter *d)
{
    (void)d;
    return 1;
}

/* ---- what a job gave ---- */

struct outcome {
    struct buffer text;
    int32_t ids[MAX_CTX];
    float logprobs[MAX_CTX];
    int n_ids, n_ends, n_items;
    float prompt_logprobs[MAX_CTX];
    int32_t prompt_ids[MAX_CTX];
    int n_prompt_details;
    float embedding[N_EMBD];
    char finish_reason[16], error_code[32], error_message[200], cache_miss[16];
    uint64_t prompt_tokens, cached_tokens;
    double logprob_sum;
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
    details = item->prompt_logprobs.items;
    for (uint32_t i = 0; i < item->prompt_logprobs.n; i++) {
        o->prompt_logprobs[o->n_prompt_details] = details[i].logprob;
        o->prompt_ids[o->n_prompt_details++] = details[i].id;
    }
    if (item->embedding.data) {
        assert_int_equal(item->embedding.len, sizeof o->embedding);
        memcpy(o->embedding, item->embedding.data, sizeof o->embedding);
    }
    o->prompt_tokens = item->prompt_tokens;
    o->cached_tokens += item->cached_tokens;
    if (item->finish_reason.data)
        o->logprob_sum = item->logprob_sum;
    if (item->cache_miss.data)
        copy_slice(o->cache_miss, sizeof o->cache_miss, item->cache_miss);
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
    assert_int_equal(a->n_prompt_details, b->n_prompt_details);
    assert_memory_equal(a->prompt_ids, b->prompt_ids, (size_t)a->n_prompt_details * sizeof *a->prompt_ids);
    assert_memory_equal(a->prompt_logprobs, b->prompt_logprobs,
                        (size_t)a->n_prompt_details * sizeof *a->prompt_logprobs);
    assert_true(a->logprob_sum == b->logprob_sum);
    assert_string_equal(a->finish_reason, b->finish_reason);
    assert_string_equal(a->error_code, b->error_code);
}

/* ---- a bench to run it on ---- */

struct bench {
    struct engine engine;
    struct tokenizer tokenizer;
    struct byte_order *byte_order;
    struct scheduler *s;
    struct outcome *outcomes; /* of job j, choice c: at j + c */
    int n_outcomes;
};

struct conditions {
    int n_slots, n_ctx, n_pages;
    enum speculate_mode speculate;
    bool has_drafter;
};

static struct bench *bench_under(struct conditions with, int n_outcomes)
{
    struct bench *b = calloc(1, sizeof *b);
    struct error err;
    b->engine.options = (struct engine_options){ .n_slots = with.n_slots,
                                                 .n_ctx = with.n_ctx,
                                                 .max_rows = scheduler_rows(with.n_slots) };
    const struct kv_shape shape = { .type = KV_F16,
                                    .head_dim = 8,
                                    .n_layers = 1,
                                    .n_kv_heads = 1,
                                    .n_slots = with.n_slots,
                                    .n_ctx = with.n_ctx,
                                    .n_pages = with.n_pages };
    assert_int_equal(kv_cache_init(&b->engine.cache, &shape, &err), OK);
    b->tokenizer.has_bos = true;
    b->outcomes = calloc((size_t)n_outcomes, sizeof *b->outcomes);
    b->n_outcomes = n_outcomes;
    b->byte_order = byte_order_create(&b->tokenizer);
    const struct scheduler_options options = { .itl_target_us = 25000,
                                               .speculate = with.speculate,
                                               .drafter = with.has_drafter ? (void *)b : NULL,
                                               .byte_order = b->byte_order };
    b->s = scheduler_create(&b->engine, &b->tokenizer, N_VOCAB, &options);
    return b;
}

static struct bench *bench_create(int n_slots, int n_ctx, int n_outcomes)
{
    return bench_under((struct conditions){ n_slots, n_ctx, 0, SPECULATE_OFF, false }, n_outcomes);
}

static void bench_destroy(struct bench *b)
{
    scheduler_destroy(b->s);
    byte_order_destroy(b->byte_order);
    assert_int_equal(kv_cache_counts(&b->engine.cache).used, 0);
    kv_cache_fini(&b->engine.cache);
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
        assert_in_range(item->job + item->choice, 0, b->n_outcomes - 1);
        outcome_add(&b->outcomes[item->job + item->choice], item);
    }
    kv_cache_check(&b->engine.cache);
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

static void test_waiting_prompts_are_taken_oldest_first(void **state)
{
    (void)state;
    struct bench *b = bench_create(4, MAX_CTX, 4);
    char prompt[301];
    fill_prompt(prompt, 300);
    for (uint64_t job = 0; job < 4; job++) {
        prompt[0] = (char)('g' + job);
        add(b, job, ask(prompt, 500));
    }
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
    size_t len = (size_t)(rand() % 4 ? rand() % 20 : rand() % 390);
    size_t n_common = rand() % 2 ? (size_t)(rand() % 390) : 0; /* the same beginning as others */
    for (size_t i = 0; i < len; i++)
        j->prompt[i] = (char)('a' + (i < n_common ? (int)(i * i % 25) : rand() % 26));
    j->prompt[len] = 0;
    j->request = ask(j->prompt, 1 + (uint32_t)(rand() % (rand() % 5 ? 40 : 400)));
    j->request.cache_salt = rand() % 4 ? (struct slice){ 0 } : slice_of("mine");
    j->request.has_prompt_logprobs = rand() % 8 == 0;
    j->request.temperature = rand() % 3 ? 0.9f : 0;
    j->request.top_k = rand() % 2 ? 10 : 0;
    j->request.seed = (uint64_t)rand();
    j->request.ignore_end = j->request.max_tokens > 40 || rand() % 4 == 0;
    j->request.has_logprobs = rand() % 2;
    j->request.logprobs = (uint32_t)(rand() % 4);
    j->stops[0] = slice_of("q");
    j->stops[1] = slice_of("zz");
    j->request.stop =
        (struct slice_array){ j->stops, j->request.max_tokens > 40 ? 0 : (uint32_t)(rand() % 3) };
}

/* Jobs that come at random moments, alone in a new world each or all in one. */
static void test_a_job_gives_the_same_alone_and_in_company(void **state)
{
    static const struct conditions company[] = {
        { MAX_SLOTS, 512, 0, SPECULATE_OFF, false },
        { MAX_SLOTS, 512, 0, SPECULATE_ALWAYS, false },
        { MAX_SLOTS, 512, 200, SPECULATE_AUTO, false },
        { MAX_SLOTS, 512, 13, SPECULATE_OFF, false }, /* too small for two long ones */
        { MAX_SLOTS, 512, 9, SPECULATE_ALWAYS, false },
        { MAX_SLOTS, 512, 20, SPECULATE_ALWAYS, true },
    };
    (void)state;
    static struct random_job jobs[N_RANDOM];
    for (size_t round = 0; round < sizeof company / sizeof *company; round++) {
        struct bench *mixed = bench_under(company[round], N_RANDOM);
        mixed->engine.is_noisy = true;
        srand(7 + (unsigned)round);
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
        int n_refused = 0;
        for (int i = 0; i < N_RANDOM; i++) {
            struct bench *alone = bench_create(1, 512, 1);
            alone->engine.is_noisy = true;
            assert_same(run_alone(alone, jobs[i].request), &mixed->outcomes[i]);
            bench_destroy(alone);
            assert_int_equal(mixed->outcomes[i].n_ends, 1);
            n_refused += mixed->outcomes[i].error_code[0] != 0;
        }
        struct scheduler_counts counts = scheduler_counts(mixed->s);
        assert_true(n_refused < N_RANDOM / 4);
        assert_true(counts.cached_tokens > 0);
        if (company[round].speculate == SPECULATE_ALWAYS)
            assert_true(counts.accepted > 0 && counts.accepted < counts.drafted);
        if (company[round].n_pages && company[round].n_pages < 20)
            assert_true(counts.preempted > 0 && counts.recomputed > 0);
        bench_destroy(mixed);
    }
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

/* ---- what sequences share ---- */

static void test_a_prompt_that_was_computed_is_found_again(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, MAX_CTX, 3);
    char prompt[1501];
    fill_prompt(prompt, 200);
    add(b, 0, ask(prompt, 3));
    run(b);
    assert_int_equal(b->outcomes[0].cached_tokens, 0);
    assert_string_equal(b->outcomes[0].cache_miss, "new");
    int n_rows = b->engine.n_rows;
    add(b, 1, ask(prompt, 3));
    run(b);
    assert_int_equal(b->outcomes[1].cached_tokens, 3 * KV_BLOCK);
    assert_string_equal(b->outcomes[1].cache_miss, "");
    assert_int_equal(b->engine.n_rows - n_rows, 201 - 3 * KV_BLOCK + 2);
    add(b, 2, ask("abc", 3));
    run(b);
    assert_string_equal(b->outcomes[2].cache_miss, "short");
    bench_destroy(b);
}

static void test_a_conversation_goes_on_from_its_answer(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, MAX_CTX, 2);
    int32_t tokens[400];
    struct generate request = {
        .tokens = { tokens, 100 }, .max_tokens = 200, .ignore_end = true, .top_p = 1
    };
    b->engine.is_noisy = true;
    for (int i = 0; i < 400; i++)
        tokens[i] = A + i % 5;
    add(b, 0, request);
    run(b);
    memcpy(tokens + 100, b->outcomes[0].ids, 200 * sizeof *tokens);
    request.tokens.n = 310;
    add(b, 1, request);
    run(b);
    assert_int_equal(b->outcomes[1].cached_tokens, 4 * KV_BLOCK); /* of 299 that were computed */
    bench_destroy(b);
}

static void test_a_prompt_that_many_ask_for_at_once_is_computed_once(void **state)
{
    (void)state;
    struct bench *b = bench_create(MAX_SLOTS, MAX_CTX, MAX_SLOTS);
    char prompt[1501];
    fill_prompt(prompt, 1000);
    for (uint64_t job = 0; job < MAX_SLOTS; job++)
        add(b, job, ask(prompt, 1));
    run(b);
    assert_int_equal(b->engine.n_rows, 1001 + (MAX_SLOTS - 1) * (1001 % KV_BLOCK));
    for (int job = 1; job < MAX_SLOTS; job++)
        assert_string_equal(text_of(&b->outcomes[job]), text_of(&b->outcomes[0]));
    bench_destroy(b);
}

static void test_who_salts_shares_with_nobody_else(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, MAX_CTX, 4);
    char prompt[1501];
    fill_prompt(prompt, 100);
    struct generate request = ask(prompt, 1);
    static const char *const salts[] = { "", "a", "b", "a" };
    static const uint64_t cached[] = { 0, 0, 0, KV_BLOCK };
    for (uint64_t job = 0; job < 4; job++) {
        request.cache_salt = slice_of(salts[job]);
        add(b, job, request);
        run(b);
        assert_int_equal(b->outcomes[job].cached_tokens, cached[job]);
    }
    bench_destroy(b);
}

static void test_a_forgotten_prompt_is_said_to_be_evicted(void **state)
{
    (void)state;
    struct bench *b = bench_under((struct conditions){ 1, 256, 4, SPECULATE_OFF, false }, 3);
    char prompt[1501], other[1501];
    fill_prompt(prompt, 100);
    fill_prompt(other, 250);
    memset(other, 'z', 30);
    add(b, 0, ask(prompt, 1));
    run(b);
    add(b, 1, ask(other, 1));
    run(b);
    add(b, 2, ask(prompt, 1));
    run(b);
    assert_string_equal(b->outcomes[2].cache_miss, "evicted");
    bench_destroy(b);
}

/* ---- several choices ---- */

static void assert_choices(struct conditions with, int prompt_len)
{
    enum { N = 5 };
    struct bench *b = bench_under(with, N);
    char prompt[1501];
    fill_prompt(prompt, (size_t)prompt_len);
    struct generate request = ask(prompt, 70);
    request.temperature = 1;
    request.seed = 40;
    request.n = N;
    request.has_logprobs = true;
    b->engine.is_noisy = true;
    add(b, 0, request);
    run(b);
    assert_int_equal(scheduler_counts(b->s).taken, 0);
    request.n = 1;
    for (int i = 0; i < N; i++) {
        struct bench *alone = bench_create(1, with.n_ctx, 1);
        alone->engine.is_noisy = true;
        request.seed = 40 + (uint64_t)i;
        assert_same(run_alone(alone, request), &b->outcomes[i]);
        bench_destroy(alone);
    }
    bench_destroy(b);
}

static void test_choices_are_what_single_requests_with_the_next_seeds_give(void **state)
{
    (void)state;
    for (int prompt_len = 1; prompt_len < 200; prompt_len += 61) {
        assert_choices((struct conditions){ 8, 512, 0, SPECULATE_OFF, false }, prompt_len);
        assert_choices((struct conditions){ 2, 512, 0, SPECULATE_ALWAYS, false }, prompt_len); /* in turns */
        assert_choices((struct conditions){ 8, 512, 8, SPECULATE_OFF, false },
                       prompt_len); /* with preemption */
    }
}

static void test_choices_compute_their_prompt_once(void **state)
{
    (void)state;
    struct bench *b = bench_create(8, 512, 5);
    struct generate request = ask("abcdefghijklmnop", 1);
    request.n = 5;
    add(b, 0, request);
    run(b);
    assert_int_equal(b->engine.n_rows, 17);
    for (int i = 0; i < 5; i++)
        assert_string_equal(text_of(&b->outcomes[i]), "q");
    bench_destroy(b);
}

/* Each frees its slot for the next one. */
static void test_choices_of_one_token_need_few_slots(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, 512, 2 + MAX_CHOICES);
    struct generate request = ask("abc", 1);
    add(b, 0, request);
    request.n = MAX_CHOICES;
    add(b, 1, request);
    run(b);
    for (int i = 0; i < 1 + MAX_CHOICES; i++)
        assert_string_equal(text_of(&b->outcomes[i]), "d");
    bench_destroy(b);
}

static void test_a_cancel_ends_all_choices_in_one_item(void **state)
{
    (void)state;
    struct bench *b = bench_create(8, 512, 5);
    struct generate request = ask("a", 20);
    request.n = 5;
    add(b, 0, request);
    step(b);
    scheduler_cancel(b->s, 0);
    step(b);
    assert_string_equal(b->outcomes[0].finish_reason, "cancelled");
    assert_int_equal(b->outcomes[1].n_ends, 0);
    assert_false(scheduler_has_work(b->s));
    bench_destroy(b);
}

/* ---- what a prompt is worth ---- */

static void test_log_probabilities_of_a_prompt_are_those_of_choosing_it(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, MAX_CTX, 2);
    int32_t tokens[301] = { A };
    b->engine.is_noisy = true;
    struct generate request = {
        .tokens = { tokens, 1 }, .max_tokens = 300, .ignore_end = true, .top_p = 1, .has_logprobs = true
    };
    add(b, 0, request);
    run(b);
    memcpy(tokens + 1, b->outcomes[0].ids, 300 * sizeof *tokens);
    request.tokens.n = 301;
    request.max_tokens = 1;
    request.has_prompt_logprobs = true;
    add(b, 1, request);
    run(b);
    struct outcome *o = &b->outcomes[1];
    assert_string_equal(o->cache_miss, "not_used");
    assert_int_equal(o->n_prompt_details, 301);
    assert_memory_equal(o->prompt_ids, tokens, sizeof tokens);
    assert_true(o->prompt_logprobs[0] == 0);
    assert_memory_equal(o->prompt_logprobs + 1, b->outcomes[0].logprobs, 300 * sizeof(float));
    bench_destroy(b);
}

static void test_embeddings_are_means_or_the_last_state(void **state)
{
    (void)state;
    enum { N = 600 };
    int32_t tokens[N];
    double sum = 0;
    for (int i = 0; i < N; i++) {
        tokens[i] = A + i % 26;
        sum += (double)((float)(tokens[i] * 1) + 1e-3f * (float)i);
    }
    struct bench *b = bench_create(2, MAX_CTX, 3);
    struct generate request = { .tokens = { tokens, N }, .max_tokens = 1, .pooling = slice_of("mean") };
    add(b, 0, request);
    request.pooling = slice_of("last");
    add(b, 1, request);
    run(b);
    request.normalize = true;
    add(b, 2, request);
    run(b);
    assert_true(b->outcomes[0].embedding[0] == (float)(sum / N));
    assert_true(b->outcomes[1].embedding[1] == (float)(tokens[N - 1] * 2) + 1e-3f * (float)(N - 1));
    assert_string_equal(b->outcomes[0].finish_reason, "stop");
    assert_int_equal(b->outcomes[0].n_ids, 0);
    double squares = 0;
    for (int i = 0; i < N_EMBD; i++)
        squares += pow((double)b->outcomes[2].embedding[i], 2);
    assert_true(fabs(squares - 1) < 1e-6);
    assert_int_equal(b->outcomes[2].cached_tokens, N / KV_BLOCK * KV_BLOCK);
    bench_destroy(b);
}

static void test_max_tokens_that_do_not_fit_are_refused_with_the_numbers(void **state)
{
    (void)state;
    struct generate request = ask("abc", 10);
    request.has_max_tokens = true;
    assert_refused(13, true, request, ERROR_CONTEXT_LENGTH, "max_tokens is 10: together 14");
    struct bench *b = bench_create(1, 14, 1);
    assert_int_equal(run_alone(b, request)->n_ids, 10);
    bench_destroy(b);
}

/* ---- operations on an opened sequence ---- */

static const struct msg_advanced *advance(struct bench *b, struct msg_advance m)
{
    const struct msg_advanced *answer;
    scheduler_advance(b->s, &m);
    for (int i = 0; !(answer = scheduler_next_advanced(b->s)); i++) {
        assert_true(i < 1000);
        step(b);
    }
    assert_int_equal(answer->op, m.op);
    return answer;
}

static void test_an_opened_sequence_is_extended_truncated_and_scored(void **state)
{
    (void)state;
    struct bench *b = bench_create(2, 256, 2);
    struct generate request = ask("abc", 1); /* with the first: 4 tokens */
    assert_true(scheduler_open(b->s, 0, &request));
    const struct slice strings[] = { slice_of("g"), slice_of("a"), slice_of("gh"), slice_of("") };

    const struct msg_advanced *a = advance(b, (struct msg_advance){ .job = 0, .op = 1, .generate = 3 });
    const int32_t def[] = { A + 3, A + 4, A + 5 };
    assert_int_equal(a->ids.n, 3);
    assert_memory_equal(a->ids.ids, def, sizeof def);
    assert_int_equal(a->n_tokens, 7);

    a = advance(b,
                (struct msg_advance){
                    .job = 0, .op = 2, .has_score = true, .score = { .top = 2, .strings = { strings, 3 } } });
    assert_true(a->has_score);
    const struct token_alternative *top = a->score.top.items;
    assert_int_equal(a->score.top.n, 2);
    assert_int_equal(top[0].id, A + 6);
    assert_true(a->score.exact.values[0] == top[0].logprob);
    assert_true(a->score.exact.values[1] < a->score.exact.values[0]);
    assert_true(a->score.exact.values[2] == -9999);

    a = advance(b, (struct msg_advance){ .job = 0,
                                         .op = 3,
                                         .has_keep = true,
                                         .keep = 3,
                                         .bytes = slice_of("xy"),
                                         .has_logprobs = true,
                                         .logprobs = 1,
                                         .generate = 9 });
    assert_int_equal(a->n_tokens, 6); /* BOS a b x y z */
    assert_true(a->is_end);
    assert_int_equal(a->logprobs.n, 3);
    const struct token_detail *details = a->logprobs.items;
    assert_int_equal(details[0].id, A + 23);
    assert_int_equal(((const struct token_alternative *)details[0].top.items)->id, A + 2);
    assert_true(details[0].logprob < details[1].logprob); /* x after b, y after x */
    assert_int_equal(((const struct token_alternative *)details[2].top.items)->id, A + 25);

    scheduler_cancel(b->s, 0);
    step(b);
    assert_string_equal(b->outcomes[0].finish_reason, "cancelled");
    assert_int_equal(scheduler_counts(b->s).taken, 0);
    bench_destroy(b);
}

static void test_operations_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct bench *b = bench_create(1, 16, 1);
    struct generate request = ask("abc", 1);
    const int32_t foreign[] = { N_VOCAB };
    assert_true(scheduler_open(b->s, 0, &request));
    const struct msg_advance wrong[] = { { .op = 1, .has_keep = true, .keep = 5 },
                                         { .op = 2, .has_keep = true, .keep = 0 },
                                         { .op = 3, .tokens = { foreign, 1 } },
                                         { .op = 4, .generate = 13 } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const struct msg_advanced *a = advance(b, wrong[i]);
        assert_non_null(a->error_code.data);
        assert_int_equal(a->n_tokens, 4);
    }
    assert_int_equal(advance(b, (struct msg_advance){ .op = 5, .generate = 12 })->n_tokens, 16);
    bench_destroy(b);
}

/* Whatever else runs and takes their pages. */
static void test_opened_sequences_say_the_same_alone_and_in_company(void **state)
{
    enum { N_OPS = 60, N_OPENED = 3 };
    (void)state;
    struct bench *mixed =
        bench_under((struct conditions){ MAX_SLOTS, 512, 10, SPECULATE_ALWAYS, false }, 1000);
    struct bench *alone = bench_create(N_OPENED, 512, N_OPENED);
    struct generate request = ask("abcdefghij", 1);
    struct random_job j;
    char bytes[20];
    uint64_t next = N_OPENED;
    int length[N_OPENED];
    mixed->engine.is_noisy = alone->engine.is_noisy = true;
    srand(3);
    for (uint64_t job = 0; job < N_OPENED; job++) {
        request.seed = job;
        request.temperature = 1;
        assert_true(scheduler_open(mixed->s, job, &request) && scheduler_open(alone->s, job, &request));
        length[job] = 11;
    }
    for (int op = 0; op < N_OPS; op++) {
        int job = rand() % N_OPENED;
        size_t n_bytes = (size_t)(rand() % 18);
        for (size_t i = 0; i < n_bytes; i++)
            bytes[i] = (char)('a' + rand() % 26);
        struct msg_advance m = { .job = (uint64_t)job,
                                 .op = (uint64_t)op,
                                 .has_keep = true,
                                 .keep = (uint32_t)(length[job] - (length[job] > 300 ? 250 : rand() % 10)),
                                 .bytes = { bytes, n_bytes },
                                 .has_logprobs = rand() % 2,
                                 .logprobs = 3,
                                 .generate = (uint32_t)(rand() % 30),
                                 .has_score = rand() % 2,
                                 .score = { .top = 5 } };
        while (next < 900 && rand() % 4) {
            make_random_job(&j);
            if (!scheduler_add(mixed->s, next, &j.request))
                break;
            next++;
        }
        const struct msg_advanced *x = advance(mixed, m), *y = advance(alone, m);
        assert_null(x->error_code.data);
        assert_int_equal(x->n_tokens, y->n_tokens);
        assert_int_equal(x->is_end, y->is_end);
        assert_int_equal(x->ids.n, y->ids.n);
        assert_memory_equal(x->ids.ids, y->ids.ids, x->ids.n * sizeof *x->ids.ids);
        assert_int_equal(x->logprobs.n, m.has_logprobs ? x->ids.n : 0);
        const struct token_detail *a = x->logprobs.items, *c = y->logprobs.items;
        for (uint32_t i = 0; i < x->logprobs.n; i++)
            assert_true(a[i].id == c[i].id && a[i].logprob == c[i].logprob && a[i].top.n == 3);
        const struct token_alternative *p = x->score.top.items, *q = y->score.top.items;
        for (uint32_t i = 0; i < x->score.top.n; i++)
            assert_true(p[i].id == q[i].id && p[i].logprob == q[i].logprob);
        length[job] = (int)x->n_tokens;
    }
    assert_true(scheduler_counts(mixed->s).recomputed > 0);
    bench_destroy(mixed);
    bench_destroy(alone);
}

/* ---- pages run out ---- */

static void test_a_text_as_long_as_the_context_needs_no_page_more(void **state)
{
    (void)state;
    int32_t tokens[2 * KV_BLOCK];
    for (int i = 0; i < 2 * KV_BLOCK; i++)
        tokens[i] = A + i % 26;
    struct bench *b = bench_under((struct conditions){ 2, 2 * KV_BLOCK, 2, SPECULATE_OFF, false }, 2);
    struct generate request = { .tokens = { tokens, 2 * KV_BLOCK }, .max_tokens = 1 };
    request.pooling = slice_of("mean");
    assert_string_equal(run_alone(b, request)->finish_reason, "stop");
    request.pooling = (struct slice){ 0 };
    request.tokens.n--;
    assert_true(scheduler_open(b->s, 1, &request));
    assert_int_equal(advance(b, (struct msg_advance){ .job = 1, .op = 1, .tokens = { tokens, 1 } })->n_tokens,
                     2 * KV_BLOCK);
    bench_destroy(b);
}

/* Each lacks what the other has. */
static void test_opened_sequences_that_go_on_at_once_do_not_wait_for_each_other(void **state)
{
    (void)state;
    int32_t tokens[2][2 * KV_BLOCK];
    for (int i = 0; i < 4 * KV_BLOCK; i++)
        tokens[i / (2 * KV_BLOCK)][i % (2 * KV_BLOCK)] = A + i % 25;
    struct bench *b = bench_under((struct conditions){ 2, 2 * KV_BLOCK, 3, SPECULATE_OFF, false }, 2);
    struct generate request = { .max_tokens = 1, .tokens = { tokens[0], KV_BLOCK - 1 } };
    assert_true(scheduler_open(b->s, 0, &request));
    request.tokens = (struct id_array){ tokens[1], KV_BLOCK + 2 };
    assert_true(scheduler_open(b->s, 1, &request));
    run(b);
    for (uint64_t job = 0; job < 2; job++)
        scheduler_advance(b->s, &(struct msg_advance){ .job = job, .tokens = { tokens[job], 8 } });
    for (int i = 0, n_answered = 0; n_answered < 2; i++) {
        assert_true(i < 100);
        step(b);
        while (scheduler_next_advanced(b->s))
            n_answered++;
    }
    bench_destroy(b);
}

static void test_admission_leaves_room_for_those_who_run(void **state)
{
    enum { N = 60 };
    (void)state;
    struct bench *b = bench_under((struct conditions){ MAX_SLOTS, 512, 24, SPECULATE_OFF, false }, N);
    char prompt[1501];
    uint64_t next = 0;
    b->engine.is_noisy = true;
    while (next < N || scheduler_has_work(b->s)) {
        fill_prompt(prompt, 100);
        prompt[0] = (char)('a' + next % 26);
        prompt[1] = (char)('a' + next / 26);
        struct generate request = ask(prompt, 250);
        request.ignore_end = true;
        if (next < N && scheduler_add(b->s, next, &request))
            next++;
        step(b);
    }
    struct scheduler_counts counts = scheduler_counts(b->s);
    assert_true(counts.preempted > 0);
    assert_true(counts.recomputed < (counts.tokens + counts.prompt_tokens) / 5);
    bench_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_that_was_computed_is_found_again),
        cmocka_unit_test(test_a_conversation_goes_on_from_its_answer),
        cmocka_unit_test(test_a_prompt_that_many_ask_for_at_once_is_computed_once),
        cmocka_unit_test(test_who_salts_shares_with_nobody_else),
        cmocka_unit_test(test_a_forgotten_prompt_is_said_to_be_evicted),
        cmocka_unit_test(test_choices_are_what_single_requests_with_the_next_seeds_give),
        cmocka_unit_test(test_choices_compute_their_prompt_once),
        cmocka_unit_test(test_choices_of_one_token_need_few_slots),
        cmocka_unit_test(test_a_cancel_ends_all_choices_in_one_item),
        cmocka_unit_test(test_log_probabilities_of_a_prompt_are_those_of_choosing_it),
        cmocka_unit_test(test_embeddings_are_means_or_the_last_state),
        cmocka_unit_test(test_max_tokens_that_do_not_fit_are_refused_with_the_numbers),
        cmocka_unit_test(test_an_opened_sequence_is_extended_truncated_and_scored),
        cmocka_unit_test(test_operations_that_cannot_be_are_refused),
        cmocka_unit_test(test_opened_sequences_say_the_same_alone_and_in_company),
        cmocka_unit_test(test_a_text_as_long_as_the_context_needs_no_page_more),
        cmocka_unit_test(test_opened_sequences_that_go_on_at_once_do_not_wait_for_each_other),
        cmocka_unit_test(test_admission_leaves_room_for_those_who_run),
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
        cmocka_unit_test(test_waiting_prompts_are_taken_oldest_first),
        cmocka_unit_test(test_a_job_gives_the_same_alone_and_in_company),
        cmocka_unit_test(test_every_job_ends_exactly_once_whatever_is_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
