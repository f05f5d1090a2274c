/* The scheduler with a real model, few pages, and a long row of requests of every kind that come and are
 * cancelled at random moments: whatever happens, each ends exactly once, all pages come back, and memory does
 * not grow. WOOLLY_SOAK_REQUESTS in the environment says how many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/kv/page.h"
#include "worker/scheduler.h"

enum { N_REQUESTS = 500, N_SLOTS = 12, N_PAGES = 9, N_CTX = 512, MAX_PROMPT = N_CTX + 60 };
enum { MOST_TURNS = 100000 }; /* until another one has ended */
enum { GROWTH_KB = 4096 };    /* of the resident set, after the first tenth */

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
static const bool keeps_freed_memory = true;
#else
static const bool keeps_freed_memory = false;
#endif

enum kind { TEXT, CHOICES, PROMPT_LOGPROBS, EMBEDDING, OPENED, KINDS };

struct outcome {
    bool is_taken, is_over, was_cancelled;
    int n_left;         /* choices that have not ended */
    int n_operations;   /* that will be asked for yet */
    bool was_cut_short; /* "cancelled" or an error */
};

struct soak {
    struct model *model;
    struct tokenizer *tokenizer;
    struct byte_order *byte_order;
    struct engine *engine;
    struct sessions *sessions;
    struct scheduler *s;

    int n_requests, n_begun, n_over;
    struct outcome *outcomes;             /* [n_requests] */
    int32_t beginnings[3][N_CTX];         /* what prompts have in common */
    int n_operations, n_refused, n_texts; /* what came of it all, to see that it was much of everything */
    int n_embeddings, n_prompt_details;
};

static char folder[] = "/tmp/woolly-test-soak-XXXXXX"; /* of saved sessions */

static long resident_kb(void)
{
    long total, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &total, &resident), 2);
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static int n_requests_wanted(void)
{
    const char *text = getenv("WOOLLY_SOAK_REQUESTS");
    int n = text ? atoi(text) : N_REQUESTS;
    return n < 10 ? 10 : n;
}

static int32_t any_token(const struct soak *k)
{
    return rand() % tokenizer_n_vocab(k->tokenizer);
}

static int begin(void **state)
{
    static struct soak k;
    struct error err;
    const struct engine_options o = { .n_threads = 2,
                                      .n_slots = N_SLOTS + SESSIONS_SLOTS,
                                      .n_ctx = N_CTX,
                                      .max_rows = scheduler_rows(N_SLOTS),
                                      .n_pages = N_PAGES };
    if (model_open(&k.model, MODELS "/woolhill-chat.gguf", &err) != OK ||
        tokenizer_create(&k.tokenizer, model_gguf(k.model), &err) != OK ||
        engine_create(&k.engine, k.model, &o, &err) != OK || !mkdtemp(folder) ||
        sessions_create(&k.sessions, engine_cache(k.engine), N_SLOTS, engine_fingerprint(k.engine), folder,
                        "m", &err) != OK)
        fail_msg("%s", err.text);
    k.byte_order = byte_order_create(k.tokenizer);
    const struct scheduler_options how = { .itl_target_us = 10000,
                                           .byte_order = k.byte_order,
                                           .sessions = k.sessions };
    k.s = scheduler_create(k.engine, k.tokenizer, model_facts(k.model)->n_vocab, &how);
    k.n_requests = n_requests_wanted();
    k.outcomes = xcalloc((size_t)k.n_requests, sizeof *k.outcomes);
    srand(17);
    for (int i = 0; i < 3 * N_CTX; i++)
        k.beginnings[i / N_CTX][i % N_CTX] = any_token(&k);
    *state = &k;
    return 0;
}

static int end(void **state)
{
    struct soak *k = *state;
    scheduler_destroy(k->s);
    sessions_destroy(k->sessions);
    assert_int_equal(kv_cache_counts(engine_cache(k->engine)).used, 0);
    engine_destroy(k->engine);
    byte_order_destroy(k->byte_order);
    tokenizer_destroy(k->tokenizer);
    model_close(k->model);
    free(k->outcomes);
    char *command = xasprintf("rm -r '%s'", folder);
    int code = system(command);
    free(command);
    return code;
}

/* ---- what is asked for ---- */

static void fill_prompt(const struct soak *k, int32_t prompt[MAX_PROMPT], uint32_t *n)
{
    const int32_t *beginning = k->beginnings[rand() % 3];
    int n_common = rand() % 2 ? rand() % 300 : 0;
    *n = 1 + (uint32_t)(rand() % (rand() % 6 ? 100 : MAX_PROMPT)); /* some are too long */
    for (uint32_t i = 0; i < *n; i++)
        prompt[i] = (int)i < n_common ? beginning[i] : any_token(k);
}

static enum kind make_request(const struct soak *k, struct generate *r, int32_t prompt[MAX_PROMPT])
{
    static const struct slice stop = { "the", 3 };
    enum kind kind = rand() % 2 ? TEXT : (enum kind)(rand() % KINDS);
    *r = (struct generate){ .max_tokens = 1 + (uint32_t)(rand() % (rand() % 4 ? 30 : 400)),
                            .n = 1,
                            .temperature = rand() % 2 ? 0.8f : 0,
                            .top_p = rand() % 3 ? 1 : 0.9f,
                            .seed = (uint64_t)rand(),
                            .has_logprobs = rand() % 4 == 0,
                            .logprobs = (uint32_t)(rand() % 4),
                            .ignore_end = rand() % 4 > 0 };
    fill_prompt(k, prompt, &r->tokens.n);
    r->tokens.ids = prompt;
    if (rand() % 4 == 0)
        r->stop = (struct slice_array){ (struct slice *)&stop, 1 };
    if (rand() % 6 == 0)
        r->cache_salt = slice_of("mine");
    if (rand() % 10 == 0)
        r->session = rand() % 2 ? slice_of("one") : slice_of("two");
    if (kind == CHOICES) {
        r->n = 1 + (uint32_t)(rand() % 3);
        r->best_of = rand() % 3 ? 0 : r->n + 1;
    } else if (kind == PROMPT_LOGPROBS) {
        r->has_prompt_logprobs = true;
        r->prompt_logprobs = (uint32_t)(rand() % 4);
    } else if (kind == EMBEDDING) {
        r->pooling = slice_of(rand() % 2 ? "mean" : "last");
        r->normalize = rand() % 2;
    }
    return kind;
}

/* False while there is no room for another. */
static bool ask(struct soak *k)
{
    int32_t prompt[MAX_PROMPT];
    struct generate r;
    struct outcome *o = &k->outcomes[k->n_begun];
    enum kind kind = make_request(k, &r, prompt);
    bool is_taken = kind == OPENED ? scheduler_open(k->s, (uint64_t)k->n_begun, &r)
                                   : scheduler_add(k->s, (uint64_t)k->n_begun, &r);
    if (!is_taken)
        return false;
    o->is_taken = true;
    o->n_left = (int)(r.best_of > r.n ? r.best_of : r.n);
    o->n_operations = kind == OPENED ? 1 + rand() % 6 : 0;
    k->n_begun++;
    return true;
}

static void operate(struct soak *k, int job, uint32_t n_tokens)
{
    static struct slice strings[] = { { " the", 4 }, { "a", 1 } };
    int32_t tokens[20];
    struct msg_advance m = { .job = (uint64_t)job,
                             .op = (uint64_t)rand(),
                             .has_keep = rand() % 2,
                             .keep = 1 + (uint32_t)rand() % (n_tokens + 1), /* at times one too many */
                             .tokens = { tokens, (uint32_t)(rand() % 20) },
                             .has_logprobs = rand() % 2,
                             .logprobs = (uint32_t)(rand() % 4),
                             .generate = (uint32_t)(rand() % 20),
                             .has_score = rand() % 2,
                             .score = { .top = 3, .strings = { strings, 2 } } };
    for (int i = 0; i < 20; i++)
        tokens[i] = any_token(k);
    k->outcomes[job].n_operations--;
    scheduler_advance(k->s, &m);
}

static void cancel(struct soak *k, int job)
{
    k->outcomes[job].was_cancelled = true;
    scheduler_cancel(k->s, (uint64_t)job);
}

/* ---- what comes of it ---- */

static void take_item(struct soak *k, const struct step_item *item)
{
    assert_true(item->job < (uint64_t)k->n_begun);
    struct outcome *o = &k->outcomes[item->job];
    assert_true(o->is_taken && !o->is_over);
    k->n_prompt_details += (int)item->prompt_logprobs.n;
    k->n_embeddings += item->embedding.len > 0;
    if (item->error_code.data || (item->finish_reason.data && slice_is(item->finish_reason, "cancelled"))) {
        assert_true(item->error_code.data || o->was_cancelled);
        k->n_refused += item->error_code.data != NULL;
        o->is_over = o->was_cut_short = true;
    } else if (item->finish_reason.data) {
        assert_true(o->n_left > 0);
        o->is_over = --o->n_left == 0;
        k->n_texts++;
    }
    k->n_over += o->is_over;
}

static void take_answers(struct soak *k)
{
    for (const struct msg_advanced *a; (a = scheduler_next_advanced(k->s));) {
        int job = (int)a->job;
        uint32_t n_tokens = a->n_tokens;
        k->n_operations++;
        if (k->outcomes[job].n_operations > 0)
            operate(k, job, n_tokens);
        else
            cancel(k, job);
    }
}

static void turn(struct soak *k)
{
    for (int i = rand() % 4; i > 0 && k->n_begun < k->n_requests; i--) {
        if (!ask(k))
            break;
        if (k->outcomes[k->n_begun - 1].n_operations)
            operate(k, k->n_begun - 1, 1);
    }
    if (k->n_begun > 0 && rand() % 100 == 0)
        cancel(k, k->n_begun - 1 - rand() % (k->n_begun < N_SLOTS ? k->n_begun : N_SLOTS));
    struct struct_array items = scheduler_step(k->s);
    for (uint32_t i = 0; i < items.n; i++)
        take_item(k, (const struct step_item *)items.items + i);
    take_answers(k);
}

static void test_everything_ends_once_and_nothing_is_left(void **state)
{
    struct soak *k = *state;
    long early_kb = 0, late_kb;
    int n_cut_short = 0;
    for (int n_over = 0, n_turns = 0; k->n_over < k->n_requests; n_turns++) {
        turn(k);
        if (k->n_over > n_over)
            n_turns = 0;
        n_over = k->n_over;
        assert_true(n_turns < MOST_TURNS);
        if (!early_kb && k->n_over >= k->n_requests / 10)
            early_kb = resident_kb();
        if (k->n_over % 64 == 0)
            kv_cache_check(engine_cache(k->engine));
    }
    for (int i = 0; i < 60 && kv_cache_counts(engine_cache(k->engine)).used > 0; i++)
        sessions_collect(k->sessions, 1000); /* the last are on their way to disk */
    late_kb = resident_kb();

    struct scheduler_counts counts = scheduler_counts(k->s);
    struct kv_counts pages = kv_cache_counts(engine_cache(k->engine));
    for (int i = 0; i < k->n_requests; i++)
        n_cut_short += k->outcomes[i].was_cut_short;
    print_message(
        "%d requests: %d choices and embeddings (%d), %d operations, %d cut short, %d of them refused; "
        "%llu tokens, %llu of prompts, %llu cached, %llu preempted; resident %ld kB, at the end %ld\n",
        k->n_requests, k->n_texts, k->n_embeddings, k->n_operations, n_cut_short, k->n_refused,
        (unsigned long long)counts.tokens, (unsigned long long)counts.prompt_tokens,
        (unsigned long long)counts.cached_tokens, (unsigned long long)counts.preempted, early_kb, late_kb);
    assert_false(scheduler_has_work(k->s));
    assert_int_equal(counts.taken, 0);
    assert_int_equal(pages.used, 0);
    assert_int_equal(pages.free + pages.cached, pages.total);
    kv_cache_check(engine_cache(k->engine));
    assert_true(k->n_embeddings && k->n_operations && k->n_refused && k->n_prompt_details);
    assert_true(k->n_requests < N_REQUESTS || (counts.preempted && counts.cached_tokens));
    assert_true(keeps_freed_memory || late_kb - early_kb < GROWTH_KB);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_everything_ends_once_and_nothing_is_left) };
    return cmocka_run_group_tests(tests, begin, end);
}
