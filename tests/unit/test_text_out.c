/* Text on its way out: cut anywhere, it comes out the same, valid, and without a stop string. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/utf8.h"
#include "worker/text_out.h"

enum { MAX_STOPS = 4, MAX_TEXT = 60 };

struct stops {
    const char *texts[MAX_STOPS];
    size_t lens[MAX_STOPS];
    int n;
};

static void check_ready(const struct text_out *t, const char *want)
{
    assert_int_equal(t->ready.len, strlen(want));
    assert_memory_equal(t->ready.data ? t->ready.data : "", want, strlen(want));
}

static bool push(struct text_out *t, const char *text)
{
    return text_out_push(t, text, strlen(text));
}

static void test_unfinished_character_waits_for_its_end(void **state)
{
    struct text_out t;

    (void)state;
    text_out_init(&t, NULL, NULL, 0);
    assert_false(push(&t, "a\xe2"));
    check_ready(&t, "a");
    assert_false(push(&t, "\x82"));
    check_ready(&t, "a");
    assert_false(push(&t, "\xac z"));
    check_ready(&t, "a\xe2\x82\xac z");
    text_out_fini(&t);
}

static void test_impossible_bytes_become_the_replacement_character(void **state)
{
    struct text_out t;

    (void)state;
    text_out_init(&t, NULL, NULL, 0);
    push(&t, "\xff\xe2");
    check_ready(&t, "\xef\xbf\xbd");
    push(&t, "A");
    check_ready(&t, "\xef\xbf\xbd\xef\xbf\xbd"
                    "A");
    buffer_clear(&t.ready);
    push(&t, "\xf0\x9f");
    text_out_flush(&t);
    check_ready(&t, "\xef\xbf\xbd\xef\xbf\xbd");
    text_out_fini(&t);
}

static void test_stop_string_across_pushes_ends_the_text(void **state)
{
    const char *const stops[] = { "END" };
    const size_t lens[] = { 3 };
    struct text_out t;

    (void)state;
    text_out_init(&t, stops, lens, 1);
    assert_false(push(&t, "the E"));
    check_ready(&t, "the ");
    assert_false(push(&t, "N"));
    check_ready(&t, "the ");
    assert_true(push(&t, "D and more"));
    check_ready(&t, "the ");
    assert_true(push(&t, "nothing"));
    text_out_flush(&t);
    check_ready(&t, "the ");
    text_out_fini(&t);
}

static void test_false_alarm_and_flush_release_what_was_held(void **state)
{
    const char *const stops[] = { "END" };
    const size_t lens[] = { 3 };
    struct text_out t;

    (void)state;
    text_out_init(&t, stops, lens, 1);
    push(&t, "EEN");
    check_ready(&t, "E");
    push(&t, "x");
    check_ready(&t, "EENx");
    push(&t, "EN");
    text_out_flush(&t);
    check_ready(&t, "EENxEN");
    assert_false(t.is_stopped);
    text_out_fini(&t);
}

static void test_first_completed_stop_wins_and_then_the_longer(void **state)
{
    const char *const stops[] = { "abcd", "bc", "xbc" };
    const size_t lens[] = { 4, 2, 3 };
    struct text_out t;

    (void)state;
    text_out_init(&t, stops, lens, 3);
    assert_true(push(&t, "abcd"));
    check_ready(&t, "a");
    text_out_fini(&t);
    text_out_init(&t, stops, lens, 3);
    assert_true(push(&t, "axbc"));
    check_ready(&t, "a");
    text_out_fini(&t);
}

/* The obvious way: make all of it valid, then look at every end for a stop string. */
static void filter_slowly(const struct stops *stops, const char *text, size_t len, struct buffer *out)
{
    struct buffer valid = { 0 };

    for (size_t i = 0; i < len;) {
        int n = utf8_next(text + i, len - i, NULL);
        buffer_append(&valid, n > 0 ? text + i : "\xef\xbf\xbd", n > 0 ? (size_t)n : 3);
        i += n > 0 ? (size_t)n : 1;
    }
    size_t cut = valid.len;
    for (size_t end = 1; end <= valid.len && cut == valid.len; end++) {
        for (int s = 0; s < stops->n; s++) {
            size_t n = stops->lens[s];
            if (n <= end && !memcmp(valid.data + end - n, stops->texts[s], n) && end - n < cut)
                cut = end - n;
        }
    }
    while (!utf8_is_valid(valid.data, cut))
        cut--;
    buffer_append(out, valid.data, cut);
    buffer_fini(&valid);
}

static uint32_t next_random(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 16) % below;
}

/* Pushes the text in random cuts, checking after each that what is out is valid and a beginning of `want`. */
static void push_in_pieces(const struct stops *stops, const char *text, size_t len, const struct buffer *want,
                           uint32_t *random)
{
    struct text_out t;
    bool stopped = false;

    text_out_init(&t, stops->texts, stops->lens, stops->n);
    for (size_t at = 0; at < len;) {
        size_t n = 1 + next_random(random, 7);
        if (n > len - at)
            n = len - at;
        bool now = text_out_push(&t, text + at, n);
        assert_true(now || !stopped);
        stopped = now;
        at += n;
        assert_true(utf8_is_valid(t.ready.data, t.ready.len));
        assert_true(t.ready.len <= want->len &&
                    (!t.ready.len || !memcmp(t.ready.data, want->data, t.ready.len)));
        if (stopped)
            assert_int_equal(t.ready.len, want->len);
    }
    text_out_flush(&t);
    assert_int_equal(t.ready.len, want->len);
    if (want->len)
        assert_memory_equal(t.ready.data, want->data, want->len);
    text_out_fini(&t);
}

static void test_random_cuts_give_what_the_obvious_way_gives(void **state)
{
    /* Few different bytes, so that beginnings of stops and broken characters are everywhere. */
    static const char *const atoms[] = { "a",    "a",    "b",        "ab",   "\xe2\x82\xac",
                                         "\xe2", "\x82", "\xc3\xa9", "\xff", "\xf0\x9f\x99" };
    static const struct stops sets[] = {
        { .n = 0 },
        { { "aab" }, { 3 }, 1 },
        { { "abab", "ba" }, { 4, 2 }, 2 },
        { { "aaaa", "\xe2\x82\xac\xe2\x82\xac", "bb" }, { 4, 6, 2 }, 3 },
        { { "\xac"
            "a",
            "\xef\xbf\xbd"
            "b",
            "\xc3" },
          { 2, 4, 1 },
          3 },
        { { "bbbbb", "abbbb",
            "aabab"
            "aa",
            "\xe2\x82" },
          { 5, 5, 7, 2 },
          4 },
    };
    uint32_t random = 7;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        const struct stops *stops = &sets[round % (sizeof(sets) / sizeof(*sets))];
        struct buffer text = { 0 }, want = { 0 };
        uint32_t n_atoms = next_random(&random, MAX_TEXT);
        for (uint32_t i = 0; i < n_atoms; i++) {
            const char *atom = atoms[next_random(&random, sizeof(atoms) / sizeof(*atoms))];
            buffer_append(&text, atom, strlen(atom));
        }
        filter_slowly(stops, text.data, text.len, &want);
        push_in_pieces(stops, text.data, text.len, &want, &random);
        push_in_pieces(stops, text.data, text.len, &want, &random);
        buffer_fini(&text);
        buffer_fini(&want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unfinished_character_waits_for_its_end),
        cmocka_unit_test(test_impossible_bytes_become_the_replacement_character),
        cmocka_unit_test(test_stop_string_across_pushes_ends_the_text),
        cmocka_unit_test(test_false_alarm_and_flush_release_what_was_held),
        cmocka_unit_test(test_first_completed_stop_wins_and_then_the_longer),
        cmocka_unit_test(test_random_cuts_give_what_the_obvious_way_gives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
