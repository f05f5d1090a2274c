/* The order of a vocabulary's bytes, and the probabilities of strings, against a search through all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "tests/unit/vocab_file.h"
#include "worker/score.h"

static uint32_t random_state = 3;

static uint32_t random_word(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

struct world {
    struct vocab_file file;
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct byte_order *order;
    struct sampler *sampler;
    struct score *score;
    int n;
    float *logits;
};

static void world_finish(struct world *w)
{
    struct error err;

    vocab_file_finish(&w->file);
    assert_int_equal(gguf_open_memory(&w->gguf, w->file.bytes.data, w->file.bytes.len, &err), OK);
    assert_int_equal(tokenizer_create(&w->tokenizer, w->gguf, &err), OK);
    w->order = byte_order_create(w->tokenizer);
    w->n = tokenizer_n_vocab(w->tokenizer);
    w->sampler = sampler_create(w->n);
    w->score = score_create(w->order);
    w->logits = xcalloc((size_t)w->n, sizeof *w->logits);
}

static void world_fini(struct world *w)
{
    free(w->logits);
    score_destroy(w->score);
    sampler_destroy(w->sampler);
    byte_order_destroy(w->order);
    tokenizer_destroy(w->tokenizer);
    gguf_close(w->gguf);
    vocab_file_fini(&w->file);
}

/* Byte tokens, some spelled like others, and words of few letters, so that prefixes are shared. */
static void make_world(struct world *w)
{
    *w = (struct world){ 0 };
    vocab_file_add(&w->file, "<unk>", 0, 2);
    vocab_file_add(&w->file, "<s>", 0, 3);
    vocab_file_add(&w->file, "</s>", 0, 3);
    vocab_file_add_all_bytes(&w->file);
    for (int i = 0; i < 2500; i++) {
        char text[16];
        int len = 1 + (int)(random_word() % 7);
        for (int j = 0; j < len; j++)
            text[j] = "ab\xff c"[random_word() % 5];
        vocab_file_add_bytes(&w->file, text, (size_t)len, 0, 1);
    }
    world_finish(w);
}

static void fill_logits(struct world *w, float spread)
{
    for (int i = 0; i < w->n; i++)
        w->logits[i] = (float)(random_word() % 10000) / 10000 * spread;
}

static bool matches(const struct world *w, int32_t id, const char *bytes, size_t len, bool is_prefix)
{
    size_t piece_len;
    const char *piece = tokenizer_piece(w->tokenizer, id, &piece_len);

    return piece_len > 0 && (is_prefix ? piece_len >= len : piece_len == len) &&
           (len == 0 || memcmp(piece, bytes, len) == 0);
}

static double plain_log(const struct world *w, const char *bytes, size_t len, bool is_prefix, int *n_found)
{
    double max = -INFINITY, z = 0, sum = 0;

    *n_found = 0;
    for (int i = 0; i < w->n; i++)
        max = (double)w->logits[i] > max ? (double)w->logits[i] : max;
    for (int i = 0; i < w->n; i++) {
        double weight = exp((double)w->logits[i] - max);
        bool is_match = matches(w, i, bytes, len, is_prefix);
        z += weight;
        sum += is_match ? weight : 0;
        *n_found += is_match;
    }
    return sum > 0 ? log(sum / z) : SCORE_NONE;
}

static int random_string(char *text)
{
    int len = (int)(random_word() % 6);

    for (int j = 0; j < len; j++)
        text[j] = random_word() % 8 ? "ab\xff c"[random_word() % 5] : (char)random_word();
    return len;
}

static void test_the_order_is_that_of_the_bytes_and_leaves_out_what_has_none(void **state)
{
    struct world w;

    (void)state;
    make_world(&w);
    const int32_t *ids = byte_order_ids(w.order);
    assert_int_equal(byte_order_count(w.order), w.n - 3);
    for (int i = 0; i + 1 < w.n - 3; i++) {
        size_t len, next_len;
        const char *piece = tokenizer_piece(w.tokenizer, ids[i], &len);
        const char *next = tokenizer_piece(w.tokenizer, ids[i + 1], &next_len);
        int c = memcmp(piece, next, len < next_len ? len : next_len);
        assert_true(c < 0 || (c == 0 && (len < next_len || (len == next_len && ids[i] < ids[i + 1]))));
    }
    world_fini(&w);
}

static void test_ranges_hold_all_that_match_and_nothing_else(void **state)
{
    struct world w;

    (void)state;
    make_world(&w);
    const int32_t *ids = byte_order_ids(w.order);
    for (int trial = 0; trial < 500; trial++) {
        char text[8];
        size_t len = (size_t)random_string(text);
        for (int is_prefix = 0; is_prefix < 2; is_prefix++) {
            struct byte_range r =
                is_prefix ? byte_order_prefix(w.order, text, len) : byte_order_equal(w.order, text, len);
            int n = 0;
            for (int i = 0; i < w.n; i++)
                n += matches(&w, i, text, len, is_prefix);
            assert_int_equal(r.end - r.first, n);
            for (int i = r.first; i < r.end; i++)
                assert_true(matches(&w, ids[i], text, len, is_prefix));
        }
    }
    assert_int_equal(byte_order_prefix(w.order, "", 0).end, w.n - 3);
    world_fini(&w);
}

static void test_strings_have_the_probability_of_their_tokens(void **state)
{
    static const float spreads[] = { 1, 20, 80 };
    struct world w;

    (void)state;
    make_world(&w);
    for (int trial = 0; trial < 600; trial++) {
        if (trial % 200 == 0) {
            fill_logits(&w, spreads[trial / 200]);
            assert_true(score_begin(w.score, w.sampler, w.logits));
        }
        char text[8];
        size_t len = (size_t)random_string(text);
        int n_exact, n_prefix;
        double exact = plain_log(&w, text, len, false, &n_exact);
        double prefix = plain_log(&w, text, len, true, &n_prefix);
        assert_true(fabs(score_exact(w.score, text, len) - exact) < 2e-5);
        assert_true(fabs(score_prefix(w.score, text, len) - prefix) < 2e-5);
        assert_true(score_prefix(w.score, text, len) <= 0);
        if (n_exact == 0)
            assert_true(score_exact(w.score, text, len) == SCORE_NONE);
    }
    world_fini(&w);
}

/* A prefix hardly ever likely, between neighbours that have all the weight. */
static void test_rare_strings_keep_their_digits(void **state)
{
    struct world w;
    int n;

    (void)state;
    make_world(&w);
    fill_logits(&w, 1);
    for (int i = 0; i < w.n; i++)
        if (matches(&w, i, "b", 1, true))
            w.logits[i] -= 60;
    assert_true(score_begin(w.score, w.sampler, w.logits));
    double want = plain_log(&w, "b", 1, true, &n);
    assert_true(n > 300);
    assert_true(fabs(score_prefix(w.score, "b", 1) - want) < 1e-5);
    world_fini(&w);
}

static void test_a_single_token_has_the_samplers_log_probability(void **state)
{
    struct world w;
    struct choice c;

    (void)state;
    make_world(&w);
    fill_logits(&w, 200);
    w.logits[5] = -INFINITY;
    w.logits[6] = NAN;
    assert_true(score_begin(w.score, w.sampler, w.logits));
    for (int32_t id = 3; id < w.n; id++) {
        size_t len;
        const char *piece = tokenizer_piece(w.tokenizer, id, &len);
        struct byte_range r = byte_order_equal(w.order, piece, len);
        assert_true(sampler_describe(w.sampler, w.logits, id, 0, &c));
        if (r.end - r.first == 1)
            assert_true(score_exact(w.score, piece, len) ==
                        (c.token.logprob > -9999 ? (double)c.token.logprob : SCORE_NONE));
    }
    assert_true(score_exact(w.score, "\x02", 1) == SCORE_NONE);
    assert_true(score_exact(w.score, "\x03", 1) == SCORE_NONE);
    world_fini(&w);
}

/* The members whose keys make all the difference: {ab .5, a .2, b .3} and {a .7, bc .3} agree about the first
 * byte. */
static void test_members_of_unlike_vocabularies_agree_about_bytes(void **state)
{
    struct world a = { 0 }, b = { 0 };

    (void)state;
    for (struct world *w = &a; w; w = w == &a ? &b : NULL) {
        vocab_file_add(&w->file, "<unk>", 0, 2);
        for (const char *const *word = w == &a ? (const char *[]){ "ab", "a", "b", NULL }
                                               : (const char *[]){ "a", "bc", NULL };
             *word; word++)
            vocab_file_add(&w->file, *word, 0, 1);
        world_finish(w);
        w->logits[0] = -INFINITY;
    }
    memcpy(a.logits + 1, (float[]){ logf(.5f), logf(.2f), logf(.3f) }, 3 * sizeof(float));
    memcpy(b.logits + 1, (float[]){ logf(.7f), logf(.3f) }, 2 * sizeof(float));
    assert_true(score_begin(a.score, a.sampler, a.logits) && score_begin(b.score, b.sampler, b.logits));
    assert_true(fabs(score_prefix(a.score, "a", 1) - log(.7)) < 1e-6);
    assert_true(fabs(score_exact(a.score, "a", 1) - log(.2)) < 1e-6);
    assert_true(fabs(score_prefix(b.score, "a", 1) - log(.7)) < 1e-6);
    assert_true(fabs(score_prefix(b.score, "b", 1) - log(.3)) < 1e-6);
    assert_true(score_exact(b.score, "b", 1) == SCORE_NONE);
    assert_true(fabs(score_mass(a.score, byte_order_prefix(a.order, "", 0)) - 1) < 1e-6);
    world_fini(&a);
    world_fini(&b);
}

static void test_impossible_logits_are_refused(void **state)
{
    struct world w;

    (void)state;
    make_world(&w);
    for (int i = 0; i < w.n; i++)
        w.logits[i] = i % 2 ? NAN : -INFINITY;
    assert_false(score_begin(w.score, w.sampler, w.logits));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_order_is_that_of_the_bytes_and_leaves_out_what_has_none),
        cmocka_unit_test(test_ranges_hold_all_that_match_and_nothing_else),
        cmocka_unit_test(test_strings_have_the_probability_of_their_tokens),
        cmocka_unit_test(test_rare_strings_keep_their_digits),
        cmocka_unit_test(test_a_single_token_has_the_samplers_log_probability),
        cmocka_unit_test(test_members_of_unlike_vocabularies_agree_about_bytes),
        cmocka_unit_test(test_impossible_logits_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
