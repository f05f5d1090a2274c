/* A request that another worker began: from whatever came of it before, the scheduler makes the rest that
 * would have come, bit for bit. Each request is cut after every step that gave something, and goes on in a
 * scheduler that has never seen it. The model is random, with a vocabulary that is mostly single bytes, so
 * that characters are cut, too. */
#include "tests/unit/engine_world.h"

#include <stdio.h>

#include "common/buffer.h"
#include "worker/scheduler.h"

enum { N_CTX = 320, N_SLOTS = 4, N_VOCAB = 330, MAX_N = 4, LONG_PROMPT = 200, MAX_CUTS = 400 };

static struct model *model;
static struct tokenizer *tokenizer;
static struct byte_order *byte_order;
static struct engine *engines[2];
static struct scheduler *schedulers[2];

/* What has been told of a request. */
struct told {
    struct buffer ids[MAX_N], text[MAX_N], details[MAX_N], prompt;
    double logprob_sum[MAX_N];
    const char *reason[MAX_N];
    uint32_t n_prompt_told;
    int n_ended;
    char error[64];
};

static int begin(void **state)
{
    struct error err;
    (void)state;
    if (!world_begin() || !world_make_model("tiny", "--layers 2 --embd 64 --heads 4 --ff 128 --type F32",
                                            "--vocab 330 --ctx 512"))
        return -1;
    model = world_open_model("tiny");
    if (tokenizer_create(&tokenizer, model_gguf(model), &err) != OK)
        fail_msg("%s", err.text);
    byte_order = byte_order_create(tokenizer);
    for (int i = 0; i < 2; i++) {
        const struct engine_options o = {
            .n_threads = 1, .n_slots = N_SLOTS, .n_ctx = N_CTX, .max_rows = scheduler_rows(N_SLOTS)
        };
        const struct scheduler_options how = { .itl_target_us = 10000,
                                               .speculate = i ? SPECULATE_ALWAYS : SPECULATE_OFF,
                                               .byte_order = byte_order };
        engines[i] = world_create_engine(model, &o);
        schedulers[i] = scheduler_create(engines[i], tokenizer, N_VOCAB, &how);
    }
    return 0;
}

static int end(void **state)
{
    for (int i = 0; i < 2; i++) {
        scheduler_destroy(schedulers[i]);
        engine_destroy(engines[i]);
    }
    byte_order_destroy(byte_order);
    tokenizer_destroy(tokenizer);
    model_close(model);
    return world_end(state);
}

/* ---- what is told ---- */

static void told_fini(struct told *t)
{
    for (int i = 0; i < MAX_N; i++) {
        buffer_fini(&t->ids[i]);
        buffer_fini(&t->text[i]);
        buffer_fini(&t->details[i]);
    }
    buffer_fini(&t->prompt);
}

static void copy_buffer(struct buffer *b)
{
    struct buffer copy = { 0 };
    buffer_append(&copy, b->data, b->len);
    *b = copy;
}

static struct told told_copy(const struct told *from)
{
    struct told t = *from;
    for (int i = 0; i < MAX_N; i++) {
        copy_buffer(&t.ids[i]);
        copy_buffer(&t.text[i]);
        copy_buffer(&t.details[i]);
    }
    copy_buffer(&t.prompt);
    return t;
}

static void add_details(struct buffer *out, struct struct_array details)
{
    const struct token_detail *items = details.items;
    for (uint32_t i = 0; i < details.n; i++) {
        const struct token_alternative *top = items[i].top.items;
        buffer_append(out, &items[i].id, sizeof items[i].id);
        buffer_append(out, &items[i].logprob, sizeof items[i].logprob);
        for (uint32_t k = 0; k < items[i].top.n; k++) {
            buffer_append(out, &top[k].id, sizeof top[k].id);
            buffer_append(out, &top[k].logprob, sizeof top[k].logprob);
        }
    }
}

static void take(struct told *t, const struct step_item *item)
{
    uint32_t c = item->choice;
    if (item->error_code.data)
        snprintf(t->error, sizeof t->error, "%.*s", (int)item->error_code.len, item->error_code.data);
    assert_true(item->error_code.data || !t->reason[c]);
    buffer_append(&t->ids[c], item->ids.ids, item->ids.n * sizeof *item->ids.ids);
    buffer_append(&t->text[c], item->text.data, item->text.len);
    add_details(&t->details[c], item->logprobs);
    add_details(&t->prompt, item->prompt_logprobs);
    t->n_prompt_told += item->prompt_logprobs.n;
    if (item->logprob_sum != 0)
        t->logprob_sum[c] = item->logprob_sum;
    if (!item->finish_reason.data)
        return;
    t->reason[c] = slice_is(item->finish_reason, "stop") ? "stop" : "length";
    t->n_ended++;
}

static int n_candidates(const struct generate *r)
{
    return (int)(r->best_of > r->n ? r->best_of : r->n);
}

/* Runs to the end; with `cuts`, a copy of what was told after each step, of which *n_cuts come. */
static void run(struct scheduler *s, const struct generate *r, struct told *t, struct told *cuts, int *n_cuts)
{
    assert_true(scheduler_add(s, 1, r));
    while (t->n_ended < n_candidates(r) && !*t->error) {
        assert_true(scheduler_has_work(s));
        struct struct_array items = scheduler_step(s);
        for (uint32_t i = 0; i < items.n; i++)
            take(t, (const struct step_item *)items.items + i);
        if (cuts && items.n && t->n_ended < n_candidates(r)) {
            assert_true(*n_cuts < MAX_CUTS);
            cuts[(*n_cuts)++] = told_copy(t);
        }
    }
    assert_false(scheduler_has_work(s));
}

static void fill_resume(struct generate *r, const struct told *t, struct resumed_choice choices[MAX_N])
{
    for (int i = 0; i < n_candidates(r); i++) {
        choices[i] =
            (struct resumed_choice){ .text_bytes = t->text[i].len, .logprob_sum = t->logprob_sum[i] };
        if (t->reason[i])
            choices[i].finish_reason = slice_of(t->reason[i]);
        else if (t->ids[i].len)
            choices[i].ids = (struct slice){ t->ids[i].data, t->ids[i].len };
    }
    r->resume = (struct struct_array){ choices, (uint32_t)n_candidates(r) };
    r->prompt_told = t->n_prompt_told;
}

static void assert_same_bytes(const struct buffer *a, const struct buffer *b)
{
    assert_int_equal(a->len, b->len);
    if (a->len)
        assert_memory_equal(a->data, b->data, a->len);
}

static void assert_same(const struct told *a, const struct told *b, const struct generate *r)
{
    assert_string_equal(a->error, b->error);
    for (int i = 0; i < n_candidates(r); i++) {
        assert_same_bytes(&a->ids[i], &b->ids[i]);
        assert_same_bytes(&a->text[i], &b->text[i]);
        assert_same_bytes(&a->details[i], &b->details[i]);
        assert_string_equal(a->reason[i], b->reason[i]);
        if (n_candidates(r) > 1)
            assert_memory_equal(&a->logprob_sum[i], &b->logprob_sum[i], sizeof a->logprob_sum[i]);
    }
    assert_same_bytes(&a->prompt, &b->prompt);
}

/* Returns how often it was cut. */
static int check_every_cut(const struct generate *request)
{
    static struct told cuts[MAX_CUTS];
    struct told whole = { 0 };
    int n_cuts = 0;
    run(schedulers[0], request, &whole, cuts, &n_cuts);
    assert_string_equal(whole.error, "");
    for (int i = 0; i < n_cuts; i++) {
        struct generate r = *request;
        struct resumed_choice choices[MAX_N];
        struct told *t = &cuts[i], before = told_copy(t);
        fill_resume(&r, &before, choices);
        run(schedulers[i % 2], &r, t, NULL, NULL);
        assert_same(&whole, t, request);
        told_fini(&before);
        told_fini(t);
    }
    told_fini(&whole);
    return n_cuts;
}

static struct generate make_request(uint64_t seed)
{
    return (struct generate){ .prompt = slice_of("Once upon a time"),
                              .max_tokens = 60,
                              .n = 1,
                              .temperature = 1.5f,
                              .top_p = 1,
                              .seed = seed,
                              .has_seed = true,
                              .ignore_end = true };
}

static struct generate make_long_request(void)
{
    static int32_t prompt[LONG_PROMPT];
    for (int i = 0; i < LONG_PROMPT; i++)
        prompt[i] = 3 + (i * 37) % (N_VOCAB - 3);
    struct generate r = make_request(1);
    r.prompt = (struct slice){ 0 };
    r.tokens = (struct id_array){ prompt, LONG_PROMPT };
    return r;
}

/* ---- the tests ---- */

static void test_a_text_goes_on_from_every_token(void **state)
{
    int n = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct generate r = make_request(seed);
        r.has_logprobs = true;
        r.logprobs = 2;
        n += check_every_cut(&r);
    }
    assert_int_equal(n, 5 * 59);
}

static void test_a_text_that_ends_with_the_context_does_so(void **state)
{
    (void)state;
    struct generate r = make_request(3);
    r.max_tokens = 1 << 20;
    assert_true(check_every_cut(&r) > N_CTX - 60);
}

static void test_an_end_token_ends_what_goes_on(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct generate r = make_request(seed);
        r.ignore_end = false;
        check_every_cut(&r);
    }
}

/* Stop strings that the text has, and such that it nearly has: there it holds back what may be their
 * beginning. */
static void test_stop_strings_are_found_across_the_cut(void **state)
{
    int n = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct generate r = make_request(seed);
        struct told whole = { 0 };
        run(schedulers[0], &r, &whole, NULL, NULL);
        size_t len = whole.text[0].len, stop = len * 2 / 3, near = len / 3;
        assert_true(len > 40);
        char nearly[12];
        memcpy(nearly, whole.text[0].data + near, sizeof nearly - 1);
        nearly[sizeof nearly - 1] = '~';
        struct slice stops[] = { { whole.text[0].data + stop, 9 }, { nearly, sizeof nearly } };
        r.stop = (struct slice_array){ stops, 2 };
        n += check_every_cut(&r);
        told_fini(&whole);
    }
    assert_in_range(n, 8 * 10, 8 * 58);
}

static void test_choices_go_on_each_from_where_it_was(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct generate r = make_request(seed);
        struct told whole = { 0 };
        r.n = 3;
        r.max_tokens = 30;
        r.has_logprobs = true;
        run(schedulers[0], &r, &whole, NULL, NULL);
        struct slice stop = { whole.text[1].data + 8, 8 }; /* which ends the second one early */
        r.stop = (struct slice_array){ &stop, 1 };
        check_every_cut(&r);
        r.stop.n = 0;
        r.n = 2;
        r.best_of = 4; /* which of them are best depends on the sums */
        check_every_cut(&r);
        told_fini(&whole);
    }
}

/* The first choice is behind the others, as when a message was understood only in part. */
static void test_choices_go_on_though_the_first_has_nothing_yet(void **state)
{
    static struct told cuts[MAX_CUTS];
    struct generate r = make_long_request(), more; /* the others wait for its pages */
    struct resumed_choice choices[MAX_N];
    struct told whole = { 0 };
    int n_cuts = 0;
    (void)state;
    r.n = 3;
    run(schedulers[0], &r, &whole, cuts, &n_cuts);
    for (int i = 0; i < n_cuts; i++) {
        buffer_clear(&cuts[i].ids[0]);
        buffer_clear(&cuts[i].text[0]);
        cuts[i].logprob_sum[0] = 0;
        struct told before = told_copy(&cuts[i]);
        more = r;
        fill_resume(&more, &before, choices);
        run(schedulers[1], &more, &cuts[i], NULL, NULL);
        assert_same(&whole, &cuts[i], &r);
        told_fini(&before);
        told_fini(&cuts[i]);
    }
    told_fini(&whole);
}

static void test_details_of_the_prompt_go_on_from_where_they_were(void **state)
{
    (void)state;
    struct generate r = make_long_request();
    r.has_prompt_logprobs = true;
    r.prompt_logprobs = 3;
    r.max_tokens = 8;
    assert_true(check_every_cut(&r) > 8); /* more than one step is for the prompt */
    r.n = 2;
    check_every_cut(&r);
}

static void assert_does_not_fit(struct generate r, struct resumed_choice c, uint32_t n)
{
    struct told t = { 0 };
    struct resumed_choice choices[] = { c, c };
    r.resume = (struct struct_array){ choices, n };
    run(schedulers[0], &r, &t, NULL, NULL);
    assert_string_equal(t.error, ERROR_INTERNAL);
    told_fini(&t);
}

static void test_what_does_not_fit_the_request_is_refused(void **state)
{
    static const int32_t ids[60] = { 'a' };
    const struct slice one = { (const char *)ids, 4 };
    (void)state;
    struct told t = { 0 };
    struct generate r = make_request(1);
    r.max_tokens = 1;
    run(schedulers[0], &r, &t, NULL, NULL); /* what one token of it may be */
    const struct resumed_choice good = { .ids = { t.ids[0].data, t.ids[0].len },
                                         .text_bytes = t.text[0].len };

    assert_does_not_fit(r, good, 1); /* it would have ended */
    r.max_tokens = 60;
    assert_does_not_fit(r, good, 2);
    assert_does_not_fit(r, (struct resumed_choice){ .ids = { (const char *)ids, 3 } }, 1);
    assert_does_not_fit(r, (struct resumed_choice){ .ids = { (const char *)ids, sizeof ids } }, 1);
    assert_does_not_fit(r, (struct resumed_choice){ .ids = one, .text_bytes = 100 }, 1);
    assert_does_not_fit(r, (struct resumed_choice){ .finish_reason = slice_of("stop") }, 1);
    assert_does_not_fit(r, (struct resumed_choice){ .ids = { "\xff\xff\xff\xff", 4 } }, 1);
    assert_does_not_fit(r, (struct resumed_choice){ .ids = { "\xff\xff\xff\x7f", 4 } }, 1);
    r.prompt_told = 1000;
    assert_does_not_fit(r, good, 1);
    told_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_text_goes_on_from_every_token),
        cmocka_unit_test(test_a_text_that_ends_with_the_context_does_so),
        cmocka_unit_test(test_an_end_token_ends_what_goes_on),
        cmocka_unit_test(test_stop_strings_are_found_across_the_cut),
        cmocka_unit_test(test_choices_go_on_each_from_where_it_was),
        cmocka_unit_test(test_choices_go_on_though_the_first_has_nothing_yet),
        cmocka_unit_test(test_details_of_the_prompt_go_on_from_where_they_were),
        cmocka_unit_test(test_what_does_not_fit_the_request_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
