/* Lookup against the plain way of saying it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/lookup.h"

static uint32_t random_state = 7;

static uint32_t random_word(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static int plain_draft(const int32_t *tokens, int n, int max_draft, int32_t *out)
{
    for (int length = LOOKUP_LONGEST; length >= LOOKUP_SHORTEST; length--) {
        for (int at = n - length - 1; at >= 0; at--) {
            /* The pair at its end must be in reach. */
            if (at + length - 2 < n - LOOKUP_REACH)
                break;
            if (memcmp(tokens + at, tokens + n - length, (size_t)length * sizeof *tokens) != 0)
                continue;
            for (int i = 0; i < max_draft; i++)
                out[i] = at + length + i < n ? tokens[at + length + i] : out[i - (n - at - length)];
            return max_draft;
        }
    }
    return 0;
}

static void test_what_followed_the_last_time_is_proposed(void **state)
{
    const int32_t tokens[] = { 1, 2, 3, 4, 5, 6, 9, 3, 4, 8, 8, 3, 4 };
    int32_t out[3];

    (void)state;
    assert_int_equal(lookup_draft(tokens, 13, 3, out), 3);
    assert_memory_equal(out, ((int32_t[]){ 8, 8, 3 }), sizeof out);
}

static void test_a_longer_match_beats_a_more_recent_one(void **state)
{
    const int32_t tokens[] = { 7, 3, 4, 5, 1, 4, 5, 2, 3, 4, 5 };
    int32_t out[1];

    (void)state;
    assert_int_equal(lookup_draft(tokens, 11, 1, out), 1);
    assert_int_equal(out[0], 1);
}

static void test_a_short_period_goes_round(void **state)
{
    const int32_t tokens[] = { 5, 6, 5, 6, 5, 6 };
    int32_t out[5];

    (void)state;
    assert_int_equal(lookup_draft(tokens, 6, 5, out), 5);
    assert_memory_equal(out, ((int32_t[]){ 5, 6, 5, 6, 5 }), sizeof out);
}

static void test_new_text_gives_no_draft(void **state)
{
    const int32_t tokens[] = { 1, 2, 3, 2, 1 };
    int32_t out[4];

    (void)state;
    for (int n = 0; n <= 5; n++)
        assert_int_equal(lookup_draft(tokens, n, 4, out), 0);
    assert_int_equal(lookup_draft((int32_t[]){ 1, 1 }, 2, 4, out), 0);
}

static void test_random_texts_agree_with_the_plain_search(void **state)
{
    int32_t *tokens = xcalloc(40000, sizeof *tokens), out[8], plain[8];

    (void)state;
    for (int trial = 0; trial < 3000; trial++) {
        int n = (int)(random_word() % 400);
        uint32_t n_kinds = 2 + random_word() % 60;
        int32_t *at =
            xcalloc((size_t)n + 1, sizeof *at); /* to its end: a sanitizer sees what is read behind */
        for (int i = 0; i < n; i++)
            at[i] = (int32_t)(random_word() % n_kinds);
        int n_draft = lookup_draft(at, n, 8, out);
        assert_int_equal(n_draft, plain_draft(at, n, 8, plain));
        assert_memory_equal(out, plain, (size_t)n_draft * sizeof *out);
        free(at);
    }
    for (int trial = 0; trial < 20; trial++) {
        int n = 32700 + (int)(random_word() % 7000);
        for (int i = 0; i < n; i++)
            tokens[i] = (int32_t)(random_word() % 3000);
        int n_draft = lookup_draft(tokens, n, 8, out);
        assert_int_equal(n_draft, plain_draft(tokens, n, 8, plain));
        assert_memory_equal(out, plain, (size_t)n_draft * sizeof *out);
    }
    free(tokens);
}

static void test_what_is_far_back_is_not_looked_at(void **state)
{
    int32_t *tokens = xcalloc(LOOKUP_REACH + 10, sizeof *tokens), out[2];
    int n = LOOKUP_REACH + 10;

    (void)state;
    for (int i = 0; i < n; i++)
        tokens[i] = i;
    tokens[n - 2] = 3;
    tokens[n - 1] = 4;
    assert_int_equal(lookup_draft(tokens, n, 2, out), 0);
    tokens[n - 2] = 300;
    tokens[n - 1] = 301;
    assert_int_equal(lookup_draft(tokens, n, 2, out), 2);
    assert_int_equal(out[0], 302);
    free(tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed_the_last_time_is_proposed),
        cmocka_unit_test(test_a_longer_match_beats_a_more_recent_one),
        cmocka_unit_test(test_a_short_period_goes_round),
        cmocka_unit_test(test_new_text_gives_no_draft),
        cmocka_unit_test(test_random_texts_agree_with_the_plain_search),
        cmocka_unit_test(test_what_is_far_back_is_not_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
