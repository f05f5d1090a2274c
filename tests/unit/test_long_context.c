/* The engine's promise where attention is long: contexts of many blocks and chunks, work that is cut between
 * threads, every type of cache, windows, soft caps, heads of odd sizes. The logits of a row are bit for bit
 * the same one by one or in runs of any length, with any number of threads, next to other sequences, in a
 * slot whose pages held another sequence before. */
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

enum { N_CTX = 800, N_TOKENS = 780, N_SLOTS = 3, MAX_ROWS = 400, EVERY = 13 };

static const struct shape {
    const char *name, *options;
} shapes[] = {
    { "grouped", "--arch llama --heads 8 --kv-heads 1 --embd 64" },
    { "window", "--arch llama --heads 3 --kv-heads 3 --embd 60 --window 300" },
    { "capped", "--arch gemma2 --heads 6 --kv-heads 2 --embd 96 --window 70" },
    { "wide", "--arch qwen3 --heads 5 --kv-heads 1 --embd 64 --head-dim 80" },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static int make_models(void **state)
{
    char more[80];
    (void)state;
    if (!world_begin())
        return -1;
    snprintf(more, sizeof more, "--layers 2 --ff 64 --vocab 320 --ctx %d --seed 3 --type F32", N_CTX);
    for (int i = 0; i < N_SHAPES; i++)
        if (!world_make_model(shapes[i].name, shapes[i].options, more))
            return -1;
    return 0;
}

static struct engine *create_engine(const struct model *m, int n_threads, enum kv_type kv_type)
{
    struct engine_options o = {
        .n_threads = n_threads, .n_slots = N_SLOTS, .n_ctx = N_CTX, .max_rows = MAX_ROWS, .kv_type = kv_type
    };
    return world_create_engine(m, &o);
}

static int32_t token_of(int sequence, int i, int n_vocab)
{
    return (int32_t)(((unsigned)i * 37u + (unsigned)sequence * 101u + (unsigned)(i * i) % 13u) %
                     (unsigned)n_vocab);
}

static bool wants_logits(int pos)
{
    return pos % EVERY == 0 || pos == N_TOKENS - 1;
}

/* Logits of every position that wants them are at [pos]. */
struct answer {
    size_t n_vocab;
    float *logits;
};

static void keep(struct answer *a, const struct engine *e, int i, int pos)
{
    memcpy(a->logits + (size_t)pos * a->n_vocab, engine_logits(e, i), a->n_vocab * sizeof(float));
}

/* Gives sequence 0 to a slot in runs of `run` rows; with others, a row of another sequence stands before each
 * run, whose positions go their own way. */
static struct answer answer_in_runs(struct engine *e, int slot, int run, bool has_others, int n_vocab)
{
    struct answer a = { .n_vocab = (size_t)n_vocab };
    struct row rows[MAX_ROWS];
    int other = 0;
    a.logits = xcalloc((size_t)N_TOKENS * a.n_vocab, sizeof(float));
    for (int i = 0; i < N_SLOTS; i++) /* pages change hands */
        kv_cache_truncate(engine_cache(e), i, 0);
    for (int start = 0; start < N_TOKENS; start += run) {
        int n = 0, first = 0;
        if (has_others) {
            rows[n++] = (struct row){ .token = token_of(1, other, n_vocab),
                                      .slot = (slot + 1) % N_SLOTS,
                                      .pos = other,
                                      .want_logits = true };
            other = (other + 1) % 150;
            first = 1;
        }
        for (int i = start; i < start + run && i < N_TOKENS; i++)
            rows[n++] = (struct row){
                .token = token_of(0, i, n_vocab), .slot = slot, .pos = i, .want_logits = wants_logits(i)
            };
        engine_step(e, rows, n);
        for (int i = start, k = first; i < start + run && i < N_TOKENS; i++)
            if (wants_logits(i))
                keep(&a, e, k++, i);
    }
    return a;
}

static void compare(const struct answer *expected, struct answer a, const char *what, int threads, int run)
{
    for (int pos = 0; pos < N_TOKENS; pos++)
        if (memcmp(a.logits + (size_t)pos * a.n_vocab, expected->logits + (size_t)pos * a.n_vocab,
                   a.n_vocab * sizeof(float)) != 0)
            fail_msg("%s: position %d differs with %d threads and runs of %d", what, pos, threads, run);
    free(a.logits);
}

static void check_shape(const char *name, enum kv_type type, int n_ways)
{
    static const struct {
        int threads, run;
        bool has_others;
    } ways[] = { { 2, 390, true }, { 4, 1, false }, { 3, 50, true }, { 1, 64, false } };
    struct model *m = world_open_model(name);
    int n_vocab = model_facts(m)->n_vocab;
    struct engine *e = create_engine(m, 1, type);
    struct answer expected = answer_in_runs(e, 0, 1, false, n_vocab);
    for (size_t i = 0; i < (size_t)N_TOKENS * expected.n_vocab; i++)
        assert_true(isfinite(expected.logits[i]));
    engine_destroy(e);
    for (int i = 0; i < n_ways; i++) {
        e = create_engine(m, ways[i].threads, type);
        /* The pages of the slot come from one that held another sequence. */
        struct row stranger = { .token = 5, .slot = 2 };
        engine_step(e, &stranger, 1);
        compare(&expected, answer_in_runs(e, i % N_SLOTS, ways[i].run, ways[i].has_others, n_vocab), name,
                ways[i].threads, ways[i].run);
        compare(&expected, answer_in_runs(e, (i + 1) % N_SLOTS, 128, false, n_vocab), name, ways[i].threads,
                128);
        engine_destroy(e);
    }
    free(expected.logits);
    model_close(m);
}

static void check_level(enum isa isa)
{
    if (!isa_is_available(isa)) {
        print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
        return;
    }
    setenv("WOOLLY_ISA", isa_name(isa), 1);
    /* How work is cut has nothing to do with the level: the slow one does a part. */
    if (isa == ISA_SCALAR)
        check_shape("capped", KV_Q8, 1);
    else
        for (int s = 0; s < N_SHAPES; s++)
            for (enum kv_type type = 0; type < KV_TYPES; type++)
                check_shape(shapes[s].name, type, isa == ISA_AVX2 ? 1 : 4);
    unsetenv("WOOLLY_ISA");
}

static void test_long_contexts_give_the_same_bits_however_the_work_is_cut(void **state)
{
    (void)state;
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++)
        check_level(isa);
}

/* Pages that a sequence left go to the next one that needs any: more positions pass through the engine than
 * it has room for. */
static void test_a_slot_begins_anew_at_position_0(void **state)
{
    (void)state;
    struct model *m = world_open_model("grouped");
    int n_vocab = model_facts(m)->n_vocab;
    struct engine *e = create_engine(m, 2, KV_F16);
    struct answer expected = answer_in_runs(e, 0, 300, false, n_vocab);
    for (int round = 1; round < 12; round++)
        compare(&expected, answer_in_runs(e, round % N_SLOTS, 300, false, n_vocab), "round", 2, round);
    free(expected.logits);
    engine_destroy(e);
    model_close(m);
}

/* Fewer bits cost accuracy, in this order, and not more than this much of the logits' spread. */
static void test_smaller_types_cost_little(void **state)
{
    (void)state;
    static const struct {
        enum kv_type type;
        double most;
    } types[] = { { KV_F16, 1e-3 }, { KV_BF16, 1e-2 }, { KV_Q8, 2e-2 }, { KV_Q4, 0.3 } };
    struct model *m = world_open_model("capped");
    int n_vocab = model_facts(m)->n_vocab;
    struct engine *e = create_engine(m, 1, KV_F32);
    struct answer exact = answer_in_runs(e, 0, 390, false, n_vocab);
    double before = 0;
    engine_destroy(e);
    for (int t = 0; t < 4; t++) {
        e = create_engine(m, 1, types[t].type);
        struct answer a = answer_in_runs(e, 0, 390, false, n_vocab);
        double error = 0, size = 0;
        for (size_t i = 0; i < (size_t)N_TOKENS * a.n_vocab; i++) {
            error += pow((double)a.logits[i] - (double)exact.logits[i], 2);
            size += pow((double)exact.logits[i], 2);
        }
        if (!(sqrt(error / size) > before && sqrt(error / size) < types[t].most))
            fail_msg("%s: relative error %g", kv_type_name(types[t].type), sqrt(error / size));
        before = sqrt(error / size);
        free(a.logits);
        engine_destroy(e);
    }
    free(exact.logits);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_contexts_give_the_same_bits_however_the_work_is_cut),
        cmocka_unit_test(test_a_slot_begins_anew_at_position_0),
        cmocka_unit_test(test_smaller_types_cost_little),
    };
    return cmocka_run_group_tests(tests, make_models, world_end);
}
