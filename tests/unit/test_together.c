/* The promise that a request gets the same answer whatever runs beside it, for the scheduler with a real
 * model: 200 requests one by one, each in a world of its own, and the same together, in random order and at
 * random moments, where pages are scarce, prompts begin alike and what comes next is guessed. Token for token
 * and bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "worker/scheduler.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { N_REQUESTS = 40 };
#else
enum { N_REQUESTS = 200 };
#endif
enum { N_CTX = 512, N_CHOICES = 3, N_PARTS = 4 };

static const char *const beginnings[] = {
    "",
    "Once upon a time there was a little girl who lived near the mill. ",
    "Tom had five apples. He gave two of them to his friend and kept the rest. Then he went home to his "
    "mother, "
    "who asked him how many apples he had left. He counted them again and again, and then he said that he "
    "had "
    "three. His mother was glad. In the evening they sat by the fire, and the cat slept. Tom had five "
    "apples. ",
};

struct world {
    struct model *model, *draft;
    struct tokenizer *tokenizer;
    struct byte_order *byte_order;
};

struct conditions {
    int n_slots, n_pages, n_threads;
    enum speculate_mode speculate;
    bool has_drafter;
};

struct bench {
    struct engine *engine;
    struct drafter *drafter;
    struct scheduler *s;
};

/* All that a request gave. */
struct answer {
    struct buffer prompt;                    /* the details of its tokens */
    struct buffer parts[N_CHOICES][N_PARTS]; /* ids, details, text, how it ended */
    int n_ended;
};

static struct model *open_model(const char *path)
{
    struct model *m;
    struct error err;
    if (model_open(&m, path, &err) != OK)
        fail_msg("%s", err.text);
    return m;
}

static int begin(void **state)
{
    static struct world w;
    struct error err;
    w.model = open_model(MODELS "/woolhill-qwen2.gguf");
    w.draft = open_model(MODELS "/woolhill-chat.gguf");
    if (tokenizer_create(&w.tokenizer, model_gguf(w.model), &err) != OK)
        fail_msg("%s", err.text);
    w.byte_order = byte_order_create(w.tokenizer);
    *state = &w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    byte_order_destroy(w->byte_order);
    tokenizer_destroy(w->tokenizer);
    model_close(w->draft);
    model_close(w->model);
    return 0;
}

static struct bench bench_create(const struct world *w, const struct conditions *with)
{
    struct bench b = { 0 };
    struct error err;
    const struct engine_options o = { .n_threads = with->n_threads,
                                      .n_slots = with->n_slots,
                                      .n_ctx = N_CTX,
                                      .max_rows = scheduler_rows(with->n_slots),
                                      .n_pages = with->n_pages };
    if (engine_create(&b.engine, w->model, &o, &err) != OK ||
        (with->has_drafter && drafter_create(&b.drafter, w->draft, &o, &err) != OK))
        fail_msg("%s", err.text);
    const struct scheduler_options how = { .itl_target_us = 10000,
                                           .speculate = with->speculate,
                                           .drafter = b.drafter,
                                           .byte_order = w->byte_order };
    b.s = scheduler_create(b.engine, w->tokenizer, model_facts(w->model)->n_vocab, &how);
    return b;
}

static void bench_destroy(struct bench *b)
{
    scheduler_destroy(b->s);
    drafter_destroy(b->drafter);
    assert_int_equal(kv_cache_counts(engine_cache(b->engine)).used, 0);
    engine_destroy(b->engine);
}

static void make_request(struct generate *r, struct buffer *prompt, const struct tokenizer *t)
{
    buffer_clear(prompt);
    const char *beginning = beginnings[rand() % 3];
    buffer_append(prompt, beginning, strlen(beginning));
    for (int i = rand() % (rand() % 6 ? 12 : 200); i > 0; i--) {
        size_t len;
        const char *piece = tokenizer_piece(t, rand() % tokenizer_n_vocab(t), &len);
        buffer_append(prompt, piece, len);
    }
    *r = (struct generate){ .prompt = { prompt->data ? prompt->data : "", prompt->len },
                            .max_tokens = 1 + (uint32_t)(rand() % (rand() % 3 ? 30 : 400)),
                            .n = rand() % 6 ? 1 : N_CHOICES,
                            .temperature = rand() % 2 ? 0.8f : 0,
                            .top_k = rand() % 3 ? 0 : 20,
                            .top_p = rand() % 3 ? 1 : 0.9f,
                            .min_p = rand() % 3 ? 0 : 0.02f,
                            .seed = (uint64_t)rand(),
                            .has_logprobs = true,
                            .logprobs = (uint32_t)(rand() % 4),
                            .has_prompt_logprobs = rand() % 8 == 0,
                            .ignore_end = rand() % 4 > 0 };
}

static void take_details(struct buffer *to, struct struct_array list)
{
    const struct token_detail *d = list.items;
    for (uint32_t i = 0; i < list.n; i++) {
        const struct token_alternative *top = d[i].top.items;
        buffer_append(to, &d[i].id, sizeof d[i].id);
        buffer_append(to, &d[i].logprob, sizeof d[i].logprob);
        for (uint32_t k = 0; k < d[i].top.n; k++) {
            buffer_append(to, &top[k].id, sizeof top[k].id);
            buffer_append(to, &top[k].logprob, sizeof top[k].logprob);
        }
    }
}

static void take_item(struct answer *a, const struct step_item *item)
{
    struct buffer *parts = a->parts[item->choice];
    buffer_append(&parts[0], item->ids.ids, item->ids.n * sizeof *item->ids.ids);
    take_details(&parts[1], item->logprobs);
    buffer_append(&parts[2], item->text.data, item->text.len);
    take_details(&a->prompt, item->prompt_logprobs);
    if (item->finish_reason.data)
        buffer_append(&parts[3], item->finish_reason.data, item->finish_reason.len);
    if (item->error_code.data)
        buffer_append(&parts[3], item->error_message.data, item->error_message.len);
    a->n_ended += item->finish_reason.data || item->error_code.data;
}

static void step(struct bench *b, struct answer *answers)
{
    struct struct_array items = scheduler_step(b->s);
    for (uint32_t i = 0; i < items.n; i++) {
        const struct step_item *item = (const struct step_item *)items.items + i;
        take_item(&answers[item->job], item);
    }
}

static void assert_same_bytes(const struct buffer *a, const struct buffer *b)
{
    assert_int_equal(a->len, b->len);
    if (a->len)
        assert_memory_equal(a->data, b->data, a->len);
}

static void assert_same_answer(const struct answer *a, const struct answer *b)
{
    assert_true(a->n_ended > 0);
    assert_int_equal(a->n_ended, b->n_ended);
    assert_same_bytes(&a->prompt, &b->prompt);
    for (int choice = 0; choice < N_CHOICES; choice++)
        for (int part = 0; part < N_PARTS; part++)
            assert_same_bytes(&a->parts[choice][part], &b->parts[choice][part]);
}

static void forget(struct answer *a)
{
    buffer_fini(&a->prompt);
    for (int choice = 0; choice < N_CHOICES; choice++)
        for (int part = 0; part < N_PARTS; part++)
            buffer_fini(&a->parts[choice][part]);
    *a = (struct answer){ 0 };
}

static struct generate requests[N_REQUESTS];
static struct buffer prompts[N_REQUESTS];
static struct answer alone[N_REQUESTS], together[N_REQUESTS];

static void shuffle(int *order)
{
    for (int i = 0; i < N_REQUESTS; i++)
        order[i] = i;
    for (int i = N_REQUESTS - 1; i > 0; i--) {
        int k = rand() % (i + 1), other = order[i];
        order[i] = order[k];
        order[k] = other;
    }
}

static struct scheduler_counts run_together(const struct world *w, const struct conditions *with)
{
    struct bench b = bench_create(w, with);
    int order[N_REQUESTS], next = 0;
    shuffle(order);
    while (next < N_REQUESTS || scheduler_has_work(b.s)) {
        for (int i = rand() % 3; i > 0 && next < N_REQUESTS; i--) {
            int job = order[next];
            if (!scheduler_add(b.s, (uint64_t)job, &requests[job]))
                break;
            next++;
        }
        step(&b, together);
    }
    struct scheduler_counts counts = scheduler_counts(b.s);
    bench_destroy(&b);
    return counts;
}

static void test_the_same_alone_and_together(void **state)
{
    static const struct conditions scarce[] = {
        { 12, 10, 2, SPECULATE_OFF, false },  { 12, 9, 1, SPECULATE_ALWAYS, false },
        { 7, 10, 3, SPECULATE_AUTO, false },  { 12, 10, 2, SPECULATE_ALWAYS, true },
        { 16, 200, 2, SPECULATE_AUTO, true },
    };
    const struct world *w = *state;
    srand(5);
    for (int i = 0; i < N_REQUESTS; i++) {
        make_request(&requests[i], &prompts[i], w->tokenizer);
        struct bench b =
            bench_create(w, &(struct conditions){ .n_slots = 1, .n_threads = 1, .speculate = SPECULATE_OFF });
        assert_true(scheduler_add(b.s, (uint64_t)i, &requests[i]));
        while (scheduler_has_work(b.s))
            step(&b, alone);
        bench_destroy(&b);
    }
    for (size_t c = 0; c < sizeof scarce / sizeof *scarce; c++) {
        struct scheduler_counts counts = run_together(w, &scarce[c]);
        for (int i = 0; i < N_REQUESTS; i++) {
            assert_same_answer(&alone[i], &together[i]);
            forget(&together[i]);
        }
        print_message("%d pages: %llu tokens, %llu of prompts, %llu cached, %llu preempted, %llu recomputed, "
                      "%llu guessed, %llu of them right\n",
                      scarce[c].n_pages, (unsigned long long)counts.tokens,
                      (unsigned long long)counts.prompt_tokens, (unsigned long long)counts.cached_tokens,
                      (unsigned long long)counts.preempted, (unsigned long long)counts.recomputed,
                      (unsigned long long)counts.drafted, (unsigned long long)counts.accepted);
        assert_true(counts.cached_tokens > 0);
        assert_true(scarce[c].n_pages > 30 || counts.preempted > 0);
        assert_true(scarce[c].speculate != SPECULATE_ALWAYS || counts.accepted > 0);
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        forget(&alone[i]);
        buffer_fini(&prompts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_the_same_alone_and_together) };
    return cmocka_run_group_tests(tests, begin, end);
}
