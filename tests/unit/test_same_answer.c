/* The promise that a request gets the same answer whatever runs beside it, where the arithmetic has most ways
 * to go: every layout of packed weights, matrices that end amid a super-block, a group or a block, every size
 * of a step up to 33 sequences, prompts cut below and above the numbers of rows at which products change
 * their ways, positions that an earlier request computed, every type of cache, one to four threads. Every
 * row's logits are bit for bit those of a model that reads one token at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "tests/unit/engine_world.h"
#include "worker/kernels/kernels.h"
#include "worker/kv/prefix.h"

enum { N_STREAMS = 3, N_TOKENS = 150, MAX_BATCH = 33, N_SLOTS = MAX_BATCH + 1, MAX_ROWS = 160 };

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define IS_SANITIZED true /* some twenty times slower */
#else
#define IS_SANITIZED false
#endif

/* Inputs of up to 512 elements go through products in two planes, wider ones in one; so models are wide or
 * narrow. A type whose blocks have 256 elements allows no sizes but multiples. */
static const struct shape {
    const char *name, *options;
    bool is_heavy; /* takes minutes with a sanitizer, which is content with the others */
} shapes[] = {
    { "Q8_0", "--type Q8_0 --embd 576 --heads 9 --kv-heads 3 --ff 1568", false },
    { "Q5_0", "--type Q5_0 --embd 576 --heads 9 --kv-heads 3 --ff 1056", true },
    { "Q4_0", "--type Q4_0 --embd 608 --heads 19 --kv-heads 1 --ff 1120", false },
    { "Q4_1", "--type Q4_1 --embd 544 --heads 17 --kv-heads 17 --ff 800", true },
    { "IQ4_NL", "--type IQ4_NL --embd 544 --heads 8 --kv-heads 2 --ff 800", true },
    { "Q2_K", "--type Q2_K --embd 768 --heads 12 --kv-heads 4 --ff 1280", true },
    { "Q3_K", "--type Q3_K --embd 768 --heads 12 --kv-heads 4 --ff 1280", true },
    { "Q4_K", "--type Q4_K --embd 768 --heads 12 --kv-heads 4 --ff 1536", true },
    { "Q5_K", "--type Q5_K --embd 768 --heads 12 --kv-heads 4 --ff 1280", true },
    { "Q6_K", "--type Q6_K --embd 768 --heads 12 --kv-heads 4 --ff 1536", true },
    { "TQ2_0", "--type TQ2_0 --embd 768 --heads 12 --kv-heads 4 --ff 1280", true },
    { "F16", "--type F16 --embd 580 --heads 10 --kv-heads 5 --ff 601", true },
    { "narrow-Q4_K", "--type Q4_K --embd 256 --heads 8 --kv-heads 4 --ff 512", true },
    { "narrow-Q6_K", "--type Q6_K --embd 256 --heads 8 --kv-heads 4 --ff 512", true },
    { "narrow-Q5_0", "--type Q5_0 --embd 480 --heads 10 --kv-heads 5 --ff 352", false },
    { "narrow-F16", "--type F16 --embd 90 --heads 5 --kv-heads 1 --ff 100", false },
    { "experts-Q4_K", "--type Q4_K --embd 768 --heads 6 --kv-heads 2 --experts 6 --expert-ff 256", true },
    { "experts-Q8_0",
      "--arch qwen2moe --type Q8_0 --embd 576 --heads 9 --kv-heads 3 --experts 7 "
      "--experts-used 3 --expert-ff 544 --shared-ff 608",
      false },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static int make_models(void **state)
{
    char more[80];
    (void)state;
    if (!world_begin())
        return -1;
    snprintf(more, sizeof more, "--layers 2 --vocab 331 --ctx %d --seed 7", N_TOKENS);
    for (int i = 0; i < N_SHAPES; i++)
        if (!(IS_SANITIZED && shapes[i].is_heavy) &&
            !world_make_model(shapes[i].name, shapes[i].options, more))
            return -1;
    return 0;
}

/* --- a model, what it has to say, and an engine that is asked --- */

struct exam {
    const char *model_name;
    const struct model *model;
    enum kv_type kv_type;
    int n_threads, n_vocab;
    float *expected; /* [N_STREAMS][N_TOKENS][n_vocab] */
    struct engine *engine;
    const char *question; /* what is being tried */
    int size;

    struct row rows[MAX_ROWS]; /* of the next step */
    int stream[MAX_ROWS];
    int n_rows;
    int next[N_SLOTS]; /* position that comes next in the slot */
};

static int32_t token_of(const struct exam *x, int stream, int i)
{
    return (int32_t)(((unsigned)i * 37u + (unsigned)stream * 101u + (unsigned)(i * i) % 13u) %
                     (unsigned)x->n_vocab);
}

static const float *expected_of(const struct exam *x, int stream, int pos)
{
    return x->expected + ((size_t)stream * N_TOKENS + (size_t)pos) * (size_t)x->n_vocab;
}

static void open_engine(struct exam *x, int n_threads)
{
    struct engine_options o = { .n_threads = n_threads,
                                .n_slots = N_SLOTS,
                                .n_ctx = N_TOKENS,
                                .max_rows = MAX_ROWS,
                                .kv_type = x->kv_type };
    x->engine = world_create_engine(x->model, &o);
    x->n_threads = n_threads;
    memset(x->next, 0, sizeof x->next);
}

/* One row per step, one thread. */
static void ask_one_by_one(struct exam *x)
{
    size_t n = (size_t)N_STREAMS * N_TOKENS * (size_t)x->n_vocab;
    x->expected = xcalloc(n, sizeof *x->expected);
    open_engine(x, 1);
    for (int s = 0; s < N_STREAMS; s++)
        for (int i = 0; i < N_TOKENS; i++) {
            struct row row = { .token = token_of(x, s, i), .pos = i, .want_logits = true };
            engine_step(x->engine, &row, 1);
            memcpy(x->expected + ((size_t)s * N_TOKENS + (size_t)i) * (size_t)x->n_vocab,
                   engine_logits(x->engine, 0), (size_t)x->n_vocab * sizeof *x->expected);
        }
    engine_destroy(x->engine);
    for (size_t i = 0; i < n; i++)
        assert_true(isfinite(x->expected[i]));
}

/* All slots begin anew; their pages are handed out again, those that nobody published. */
static void begin_anew(struct exam *x)
{
    for (int slot = 0; slot < N_SLOTS; slot++)
        kv_cache_truncate(engine_cache(x->engine), slot, 0);
    memset(x->next, 0, sizeof x->next);
}

/* The next position of the slot joins the step. */
static void add_row(struct exam *x, int stream, int slot)
{
    int pos = x->next[slot]++;
    x->stream[x->n_rows] = stream;
    x->rows[x->n_rows++] = (struct row){
        .token = token_of(x, stream, pos), .slot = slot, .pos = pos, .want_logits = pos % 5 != 1
    };
}

static void run_step(struct exam *x)
{
    engine_step(x->engine, x->rows, x->n_rows);
    for (int i = 0, n_logits = 0; i < x->n_rows; i++) {
        const struct row *row = &x->rows[i];
        if (!row->want_logits)
            continue;
        if (memcmp(engine_logits(x->engine, n_logits++), expected_of(x, x->stream[i], row->pos),
                   (size_t)x->n_vocab * sizeof(float)) != 0)
            fail_msg("%s on %s, %s cache, %d threads, %s %d: position %d of stream %d differs", x->model_name,
                     engine_isa(x->engine), kv_type_name(x->kv_type), x->n_threads, x->question, x->size,
                     row->pos, x->stream[i]);
    }
    x->n_rows = 0;
}

/* --- the questions --- */

/* A prompt cut into chunks, each behind a row of some other sequences. */
static void ask_chunks(struct exam *x, int chunk, int n_others)
{
    x->question = "chunks of";
    x->size = chunk;
    begin_anew(x);
    while (x->next[0] < N_TOKENS) {
        for (int s = 1; s <= n_others; s++)
            if (x->next[s] < N_TOKENS)
                add_row(x, s, s);
        for (int i = 0; i < chunk && x->next[0] < N_TOKENS; i++)
            add_row(x, 0, 0);
        run_step(x);
    }
}

/* Steps of 1 to 33 sequences, each at a place of its own and with the prompts of others before it. */
static void ask_batches(struct exam *x)
{
    x->question = "prompts, rows per step up to";
    x->size = MAX_ROWS;
    begin_anew(x);
    for (int slot = 0; slot < MAX_BATCH; slot++) {
        int n_prompt = 1 + slot * 7 % 67;
        while (x->next[slot] < n_prompt) {
            if (x->n_rows == MAX_ROWS)
                run_step(x);
            add_row(x, slot % N_STREAMS, slot);
        }
    }
    run_step(x);

    x->question = "batch of";
    for (x->size = 1; x->size <= MAX_BATCH; x->size++) {
        for (int i = 0; i < x->size; i++) {
            int slot = (i * 4 + x->size) % MAX_BATCH;
            add_row(x, slot % N_STREAMS, slot);
        }
        run_step(x);
    }
}

/* A request whose first `kept` tokens are those of the one before it in the slot, which went on differently.
 */
static void ask_to_continue(struct exam *x, int kept)
{
    x->question = "positions kept:";
    x->size = kept;
    for (int part = 0; part < 2; part++) {
        struct row rows[MAX_ROWS];
        int from = part ? kept : 0, n = 0, last = part ? N_TOKENS - 3 : kept;
        for (int pos = from; pos < last; pos++)
            rows[n++] =
                (struct row){ .token = token_of(x, part ? 1 : 0, pos), .slot = N_SLOTS - 1, .pos = pos };
        engine_step(x->engine, rows, n);
    }
    x->next[N_SLOTS - 1] = kept;
    while (x->next[N_SLOTS - 1] < N_TOKENS) {
        for (int i = 0; i < 29 && x->next[N_SLOTS - 1] < N_TOKENS; i++)
            add_row(x, 0, N_SLOTS - 1);
        run_step(x);
    }
}

/* Rows that go on in the slot until it has n positions. */
static void compute_to(struct exam *x, int stream, int slot, int n)
{
    while (x->next[slot] < n) {
        if (x->n_rows == MAX_ROWS)
            run_step(x);
        add_row(x, stream, slot);
    }
    run_step(x);
}

static void take_tokens(const struct exam *x, int stream, int page, int32_t tokens[KV_BLOCK])
{
    for (int i = 0; i < KV_BLOCK; i++)
        tokens[i] = token_of(x, stream, page * KV_BLOCK + i);
}

/* Pages that slot 0 computed and published are read by others: by one that comes when it has gone, by one
 * that computed the same beside it and gave its own pages back, and by one that computes the last position of
 * a page again, as who wants its logits must, and puts something else there first. */
static void ask_for_published_pages(struct exam *x)
{
    struct kv_cache *cache = engine_cache(x->engine);
    struct kv_salt none = { 0 };
    int32_t tokens[KV_BLOCK];

    x->question = "pages of others, published:";
    x->size = N_TOKENS / KV_BLOCK;
    begin_anew(x);
    compute_to(x, 0, 0, N_TOKENS - 9);
    compute_to(x, 0, 1, N_TOKENS - 17);
    for (int slot = 0; slot < 2; slot++)
        for (int i = 0; i < N_TOKENS / KV_BLOCK; i++) {
            take_tokens(x, 0, i, tokens);
            assert_true(kv_cache_publish(cache, slot, i, tokens, none));
            assert_int_equal(kv_cache_table(cache, slot)[i], kv_cache_table(cache, 0)[i]);
        }
    kv_cache_truncate(cache, 0, 0);
    for (int slot = 2; slot < 4; slot++) {
        for (int i = 0; i < N_TOKENS / KV_BLOCK; i++) {
            take_tokens(x, 0, i, tokens);
            assert_true(kv_cache_adopt(cache, slot, i, tokens, none));
        }
        x->next[slot] = N_TOKENS / KV_BLOCK * KV_BLOCK - (slot == 3);
    }
    struct row strange = { .token = 3, .slot = 3, .pos = x->next[3] };
    engine_step(x->engine, &strange, 1);
    for (int slot = 1; slot < 4; slot++)
        compute_to(x, 0, slot, N_TOKENS);
}

/* A sequence that forks amid a page: each goes on in a copy of its own. What one fork writes, here something
 * else first, reaches neither the sequence it comes from, which is ahead of it, nor the other fork. */
static void ask_forks(struct exam *x, int at)
{
    x->question = "fork at";
    x->size = at;
    begin_anew(x);
    compute_to(x, 0, 0, at);
    for (int slot = 1; slot <= 2; slot++) {
        kv_cache_share(engine_cache(x->engine), 0, slot, at);
        x->next[slot] = at;
    }
    compute_to(x, 0, 0, at + 3);
    compute_to(x, 0, 2, at + 2);
    struct row strange[] = { { .token = 3, .slot = 1, .pos = at }, { .token = 4, .slot = 1, .pos = at + 1 } };
    engine_step(x->engine, strange, 2);
    while (x->next[0] < N_TOKENS) {
        for (int slot = 0; slot <= 2; slot++)
            add_row(x, 0, slot);
        run_step(x);
    }
}

static void ask_all(struct exam *x, int n_threads)
{
    static const int chunks[] = { 1, 2, 5, 7, 12, 13, 24, 47, 48, 64, 100 };
    static const int kept[] = { 1, 31, 63, 64, 65, 100 };
    static const int forks[] = { 20, 64, 101 };

    open_engine(x, n_threads);
    for (size_t i = IS_SANITIZED ? 7 : 0; i < sizeof chunks / sizeof *chunks; i++)
        ask_chunks(x, chunks[i], i % 2 ? N_STREAMS - 1 : 0);
    ask_batches(x);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        ask_to_continue(x, kept[i]);
    ask_for_published_pages(x);
    for (size_t i = 0; i < sizeof forks / sizeof *forks; i++)
        ask_forks(x, forks[i]);
    engine_destroy(x->engine);
}

static void examine(const char *name, enum kv_type kv_type, int fewest_threads, int most_threads)
{
    if (IS_SANITIZED && !world_has_model(name))
        return;
    struct model *m = world_open_model(name);
    struct exam x = { .model_name = name, .model = m, .kv_type = kv_type };
    x.n_vocab = model_facts(m)->n_vocab;
    ask_one_by_one(&x);
    for (int n = fewest_threads; n <= most_threads; n++)
        ask_all(&x, n);
    free(x.expected);
    model_close(m);
}

/* --- tests --- */

static void test_every_type_of_weights_gives_the_same_answer(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++)
        examine(shapes[i].name, KV_F16, 2, 2);
}

static void test_any_number_of_threads_gives_the_same_answer(void **state)
{
    (void)state;
    examine("Q8_0", KV_F16, 1, IS_SANITIZED ? 1 : 4);
    examine("Q4_K", KV_F16, 1, IS_SANITIZED ? 1 : 4);
    examine("experts-Q8_0", KV_Q8, 1, IS_SANITIZED ? 1 : 4);
}

static void test_every_type_of_cache_gives_the_same_answer(void **state)
{
    (void)state;
    for (enum kv_type t = 0; t < KV_TYPES; t++) {
        examine("narrow-Q5_0", t, 1, 2); /* heads of 48 */
        examine("narrow-F16", t, 3, 3);  /* heads of 18 */
    }
}

/* The best level answers in the other tests. */
static void test_the_other_instruction_sets_give_the_same_answer(void **state)
{
    (void)state;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_is_available(isa))
            continue;
        setenv("WOOLLY_ISA", isa_name(isa), 1);
        if (isa == ISA_SCALAR) { /* slow */
            examine("narrow-F16", KV_F16, 2, 2);
            continue;
        }
        examine("Q4_0", KV_F16, 2, 2);
        examine("Q4_K", KV_Q8, 2, 2);
        examine("Q6_K", KV_Q4, 2, 2);
        examine("experts-Q8_0", KV_F16, 2, 2);
        examine("F16", KV_BF16, 2, 2);
    }
    unsetenv("WOOLLY_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_of_weights_gives_the_same_answer),
        cmocka_unit_test(test_any_number_of_threads_gives_the_same_answer),
        cmocka_unit_test(test_every_type_of_cache_gives_the_same_answer),
        cmocka_unit_test(test_the_other_instruction_sets_give_the_same_answer),
    };
    return cmocka_run_group_tests(tests, make_models, world_end);
}
