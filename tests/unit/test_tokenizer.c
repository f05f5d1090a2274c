/* The tokenizer, on small vocabularies made in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "tests/unit/tokenizer_fixture.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

#define SPACE "\xe2\x96\x81"

static void begin(struct fixture *x)
{
    *x = (struct fixture){ 0 };
    vocab_file_add(&x->file, "<unk>", 0, UNKNOWN);
    vocab_file_add(&x->file, "<s>", 0, CONTROL);
    vocab_file_add(&x->file, "</s>", 0, CONTROL);
}

/* ids 3.. : a b c ab bc abc ▁ and the bytes from 10 on */
static void add_letters(struct fixture *x)
{
    vocab_file_add(&x->file, "a", -10, NORMAL);
    vocab_file_add(&x->file, "b", -11, NORMAL);
    vocab_file_add(&x->file, "c", -12, NORMAL);
    vocab_file_add(&x->file, "ab", -2, NORMAL);
    vocab_file_add(&x->file, "bc", -1, NORMAL);
    vocab_file_add(&x->file, "abc", -3, NORMAL);
    vocab_file_add(&x->file, SPACE, -4, NORMAL);
    vocab_file_add_all_bytes(&x->file);
}

static void test_best_score_merges_first_and_ties_go_to_the_left(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    vocab_file_add(&x.file, "aa", -1, NORMAL);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
    finish(&x);
    CHECK(&x, "ab", 0, 6);
    CHECK(&x, "abc", 0, 8); /* bc first, then a with bc */
    CHECK(&x, "abbc", 0, 6, 7);
    CHECK(&x, "aaa", 0, 266, 3);
    CHECK(&x, "aaaab", 0, 266, 266, 4);
    end(&x);
}

static void test_space_prefix_stands_at_the_beginning_and_after_special_tokens(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    finish(&x);
    CHECK(&x, "a b", 0, 9, 3, 9, 4);
    CHECK(&x, "a<s>b", ENCODE_SPECIAL, 9, 3, 1, 9, 4);
    CHECK(&x, "<s> b", ENCODE_SPECIAL, 1, 9, 9, 4);
    CHECK(&x, "", ENCODE_BOS, 1);
    end(&x);
}

static void test_begin_and_end_tokens_follow_the_file(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    vocab_file_put_number(&x.file, "tokenizer.ggml.bos_token_id", 2);
    vocab_file_put_number(&x.file, "tokenizer.ggml.eos_token_id", 1);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_eos_token", 1);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 2, 9, 3, 1);
    CHECK(&x, "a", 0, 9, 3);
    assert_int_equal(tokenizer_bos(x.t), 2);
    assert_int_equal(tokenizer_eos(x.t), 1);
    end(&x);

    begin(&x);
    add_letters(&x);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_bos_token", 0);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 9, 3);
    end(&x);
}

static void test_control_tokens_match_on_request_and_user_defined_always(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    int32_t tag = vocab_file_add(&x.file, "<b>", 0, USER_DEFINED);
    int32_t longer = vocab_file_add(&x.file, "a<b>c", 0, USER_DEFINED);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
    finish(&x);
    CHECK(&x, "a<b>b", 0, 3, tag, 4);
    CHECK(&x, "b<b><b>", 0, 4, tag, tag);
    CHECK(&x, "a<b>c<b>", 0, longer, tag); /* the longest first, wherever it stands */
    CHECK(&x, "<s>a", ENCODE_SPECIAL, 1, 3);
    CHECK(&x, "a<unk>", ENCODE_SPECIAL, 3, 0);
    CHECK(&x, "<s", ENCODE_SPECIAL, 10 + '<', 10 + 's');
    end(&x);
}

static void test_plain_text_never_merges_into_a_control_token(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    int32_t open = vocab_file_add(&x.file, "<", -1, NORMAL),
            letter = vocab_file_add(&x.file, "s", -1, NORMAL);
    int32_t close = vocab_file_add(&x.file, ">", -1, NORMAL),
            tail = vocab_file_add(&x.file, "s>", -1, NORMAL);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
    finish(&x);
    CHECK(&x, "<s>", 0, open, tail);
    CHECK(&x, "s<>", 0, letter, open, close);
    end(&x);
}

static void test_phi_3_special_tokens_swallow_white_space_behind_them(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    vocab_file_put_text(&x.file, "general.name", "My Phi-3 mini");
    finish(&x);
    CHECK(&x, "</s> \n\tb </s>  ", ENCODE_SPECIAL, 2, 9, 4, 9, 2);
    CHECK(&x, "<s> b", ENCODE_SPECIAL, 1, 9, 9, 4);
    end(&x);
}

static void test_characters_outside_the_vocabulary_become_bytes_or_the_unknown_token(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
    finish(&x);
    CHECK(&x, "a\xc3\xa9z", 0, 3, 10 + 0xc3, 10 + 0xa9, 10 + 'z');
    CHECK(&x, "\xff", 0, 10 + 0xff);
    /* A stray lead byte takes as many followers as it announces. */
    CHECK(&x,
          "\xf0"
          "abcb",
          0, 10 + 0xf0, 10 + 'a', 10 + 'b', 10 + 'c', 4);
    CHECK(&x,
          "\xc3"
          "ab",
          0, 10 + 0xc3, 10 + 'a', 4);
    end(&x);

    begin(&x);
    int32_t a = vocab_file_add(&x.file, "a", -1, NORMAL), unknown = vocab_file_add(&x.file, "?", 0, UNKNOWN);
    vocab_file_put_number(&x.file, "tokenizer.ggml.unknown_token_id", (uint32_t)unknown);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
    finish(&x);
    CHECK(&x, "a\xf0\x9f\x99\x82za", 0, a, unknown, unknown, a);
    end(&x);
}

static void check_piece(const struct fixture *x, int32_t id, const char *want, size_t want_len)
{
    size_t len;
    const char *piece = tokenizer_piece(x->t, id, &len);

    assert_int_equal(len, want_len);
    assert_memory_equal(piece, want, len);
}

static void test_pieces_are_running_text(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    int32_t word = vocab_file_add(&x.file, SPACE "ab" SPACE, 0, NORMAL);
    int32_t user = vocab_file_add(&x.file, "<b>", 0, USER_DEFINED);
    int32_t spare = vocab_file_add(&x.file, "[PAD]", 0, UNUSED);
    finish(&x);
    check_piece(&x, word, " ab ", 4);
    check_piece(&x, user, "<b>", 3);
    check_piece(&x, 10, "\0", 1);
    check_piece(&x, 10 + 0xff, "\xff", 1);
    check_piece(&x, 0, "", 0);
    check_piece(&x, 1, "", 0);
    check_piece(&x, spare, "", 0);
    check_piece(&x, -1, "", 0);
    check_piece(&x, tokenizer_n_vocab(x.t), "", 0);
    assert_int_equal(tokenizer_n_vocab(x.t), spare + 1);
    end(&x);
}

static void test_ends_are_the_named_keys_and_the_well_known_spellings(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    int32_t a = vocab_file_add(&x.file, "a", 0, NORMAL), eot = vocab_file_add(&x.file, "[turn]", 0, CONTROL);
    int32_t im_end = vocab_file_add(&x.file, "<|im_end|>", 0, CONTROL);
    int32_t text = vocab_file_add(&x.file, "<end_of_turn>", 0, NORMAL);
    vocab_file_put_number(&x.file, "tokenizer.ggml.eot_token_id", (uint32_t)eot);
    finish(&x);
    assert_true(tokenizer_is_end(x.t, 2));
    assert_true(tokenizer_is_end(x.t, eot));
    assert_true(tokenizer_is_end(x.t, im_end));
    assert_false(tokenizer_is_end(x.t, text));
    assert_false(tokenizer_is_end(x.t, a));
    assert_false(tokenizer_is_end(x.t, 1));
    assert_false(tokenizer_is_end(x.t, -1));
    assert_false(tokenizer_is_end(x.t, 1000));
    end(&x);
}

/* The slow, obvious merge: look at all neighbours, merge the best, again. */
static void merge_slowly(const char *const *words, const float *scores, int n_words, const char *text,
                         struct token_list *out)
{
    size_t n = strlen(text);
    size_t *cuts = xcalloc(n + 1, sizeof(*cuts)); /* symbol i is text[cuts[i]..cuts[i + 1]) */

    for (size_t i = 0; i <= n; i++)
        cuts[i] = i;
    for (;;) {
        size_t best_at = n;
        int best = -1;
        for (size_t i = 0; i + 1 < n; i++) {
            for (int w = 0; w < n_words; w++) {
                size_t len = cuts[i + 2] - cuts[i];
                if (strlen(words[w]) == len && !memcmp(words[w], text + cuts[i], len) &&
                    (best < 0 || scores[w] > scores[best])) {
                    best = w;
                    best_at = i;
                }
            }
        }
        if (best < 0)
            break;
        memmove(cuts + best_at + 1, cuts + best_at + 2, (n - best_at - 1) * sizeof(*cuts));
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        size_t len = cuts[i + 1] - cuts[i];
        for (int w = 0; w < n_words; w++) {
            if (strlen(words[w]) == len && !memcmp(words[w], text + cuts[i], len))
                token_list_push(out, 3 + w);
        }
    }
    free(cuts);
}

static void test_merge_agrees_with_the_slow_one(void **state)
{
    static const char *const words[] = { "a",   "b",   "c",   "ab",   "ba",   "bc",  "aa",   "cc",
                                         "aab", "abc", "bcc", "aaaa", "abab", "cab", "ccccc" };
    static const float scores[] = { 0, 0, 0, -1, -1, -2, -2, -3, -4, -1, -5, -6, -7, -2, -8 };
    const int n_words = (int)(sizeof(words) / sizeof(*words));
    struct fixture x;
    uint32_t random = 1;

    (void)state;
    begin(&x);
    for (int i = 0; i < n_words; i++)
        vocab_file_add(&x.file, words[i], scores[i], NORMAL);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
    finish(&x);
    for (int round = 0; round < 3000; round++) {
        struct token_list want = { 0 }, got = { 0 };
        char text[41];
        int len = 0;
        for (int n = round % 41; len < n; len++) {
            random = random * 1664525 + 1013904223;
            text[len] = (char)('a' + (random >> 20) % 3);
        }
        text[len] = 0;
        merge_slowly(words, scores, n_words, text, &want);
        tokenizer_encode(x.t, text, (size_t)len, 0, &got);
        assert_int_equal(got.n, want.n);
        if (got.n)
            assert_memory_equal(got.ids, want.ids, got.n * sizeof(*got.ids));
        token_list_fini(&want);
        token_list_fini(&got);
    }
    end(&x);
}

/* A bound that an algorithm of quadratic time misses by hours, met even under sanitizers. */
static void test_a_megabyte_of_one_character_takes_little_time(void **state)
{
    const size_t len = 1 << 20;
    char *text = xmalloc(len);
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    for (int n = 2; n <= 64; n *= 2) {
        char letters[65] = { 0 };
        memset(letters, 'a', (size_t)n);
        vocab_file_add(&x.file, letters, (float)-n, NORMAL);
    }
    vocab_file_add(&x.file, SPACE SPACE, -4, NORMAL);
    vocab_file_add(&x.file, SPACE SPACE SPACE SPACE, -5, NORMAL);
    vocab_file_add(&x.file, "<<<<<<<<<<<<<<<>", 0, USER_DEFINED);
    finish(&x);
    for (const char *c = "a <\xff"; *c; c++) {
        struct token_list ids = { 0 };
        int64_t start = clock_us();
        memset(text, *c, len);
        tokenizer_encode(x.t, text, len, ENCODE_SPECIAL, &ids);
        int64_t took_ms = (clock_us() - start) / 1000;
        print_message("1 MiB of 0x%02x: %zu tokens in %lld ms\n", (unsigned char)*c, ids.n,
                      (long long)took_ms);
        assert_true(ids.n > 0 && took_ms < 20000);
        token_list_fini(&ids);
    }
    end(&x);
    free(text);
}

/* Cuts at user-defined tokens, ids `first` and up, the slow way; what is left are the letters 3 and 4. */
static void cut_slowly(const char *const *tokens, int n_tokens, const char *text, int32_t first,
                       int32_t *want)
{
    size_t len = strlen(text), n = 0;
    int32_t at[64]; /* 0: free; -1: inside a token */

    assert_true(len <= 64);
    memset(at, 0, sizeof at);
    for (size_t size = 12; size > 0; size--) {
        for (size_t i = 0; i + size <= len; i++) {
            bool is_free = true;
            for (size_t k = i; k < i + size; k++)
                is_free = is_free && !at[k];
            for (int t = 0; is_free && t < n_tokens; t++) {
                if (strlen(tokens[t]) != size || memcmp(tokens[t], text + i, size) != 0)
                    continue;
                memset(at + i, -1, size * sizeof *at);
                at[i] = first + t;
                break;
            }
        }
    }
    for (size_t i = 0; i < len; i++) {
        if (at[i] >= 0)
            want[n++] = at[i] ? at[i] : 3 + (text[i] == 'b');
    }
    want[n] = -1;
}

static uint32_t next_random(uint32_t *seed)
{
    return (*seed = *seed * 1664525u + 1013904223u) >> 16;
}

static void random_letters(char *out, size_t len, uint32_t *seed)
{
    for (size_t i = 0; i < len; i++)
        out[i] = next_random(seed) % 4 ? 'a' : 'b';
    out[len] = 0;
}

static void test_cutting_at_whole_tokens_agrees_with_the_slow_way(void **state)
{
    uint32_t seed = 5;

    (void)state;
    for (int round = 0; round < 60; round++) {
        char spelled[20][13], text[65];
        const char *tokens[20];
        int n = 0, n_wanted = 1 + (int)(next_random(&seed) % 20);
        int32_t want[65];
        struct fixture x;
        begin(&x);
        vocab_file_add(&x.file, "a", 0, NORMAL);
        vocab_file_add(&x.file, "b", 0, NORMAL);
        vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
        for (int i = 0; i < n_wanted; i++) {
            bool is_new = true;
            random_letters(spelled[n], 1 + next_random(&seed) % 12, &seed);
            for (int k = 0; k < n; k++)
                is_new = is_new && strcmp(spelled[k], spelled[n]) != 0;
            tokens[n] = spelled[n];
            if (is_new)
                vocab_file_add(&x.file, spelled[n++], 0, USER_DEFINED);
        }
        finish(&x);
        for (int i = 0; i < 50; i++) {
            random_letters(text, next_random(&seed) % 65, &seed);
            cut_slowly(tokens, n, text, 5, want);
            check_ids(&x, text, strlen(text), 0, want);
        }
        end(&x);
    }
}

/* A thousand lengths, and spellings that agree with the text for long: 64 KiB took half a minute once. */
static void test_whole_tokens_of_all_lengths_take_little_time(void **state)
{
    const size_t len = 1 << 17, half = 500;
    char *text = xmalloc(len), spelled[1025];

    (void)state;
    memset(text, 'a', len);
    for (int kind = 0; kind < 4; kind++) {
        struct token_list ids = { 0 };
        struct fixture x;
        begin(&x);
        vocab_file_add(&x.file, "a", 0, NORMAL);
        vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", 0);
        for (size_t n = 2; n <= 1000; n++) {
            memset(spelled, 'a', n);
            if (kind == 1) /* almost matches, as long as n */
                spelled[n - 2] = 'b';
            else if (kind == 2 &&
                     n > half) /* stands in order before the text, and begins with all the others */
                spelled[half] = 1;
            else if (kind == 3) /* long ones match only at the end */
                spelled[0] = n > half ? 'b' : 'a';
            vocab_file_add_bytes(&x.file, spelled, n, 0, USER_DEFINED);
        }
        finish(&x);
        int64_t start = clock_us();
        tokenizer_encode(x.t, text, len, 0, &ids);
        int64_t took_ms = (clock_us() - start) / 1000;
        print_message("whole tokens, kind %d: %zu tokens in %lld ms\n", kind, ids.n, (long long)took_ms);
        assert_true(ids.n > 0 && took_ms < 10000);
        token_list_fini(&ids);
        end(&x);
    }
    free(text);
}

/* Texts of two words w and w', such that an unkeyed hash which folds in w, multiplies by an odd constant,
 * shifts, and folds in w' gives the same for all of them. 200,000 in one slot would take a minute. */
static void test_texts_made_to_collide_take_little_time(void **state)
{
    const uint64_t odd = 0x9e3779b97f4a7c15u;
    struct fixture x;

    (void)state;
    begin(&x);
    for (uint64_t i = 1; i <= 200000; i++) {
        uint64_t words[2] = { i, (16 * odd ^ i) * odd };
        words[1] ^= words[1] >> 32;
        vocab_file_add_bytes(&x.file, (const char *)words, sizeof words, 0, NORMAL);
    }
    int64_t start = clock_us();
    finish(&x);
    int64_t took_ms = (clock_us() - start) / 1000;
    print_message("200,000 tokens in %lld ms\n", (long long)took_ms);
    assert_true(took_ms < 10000);
    end(&x);
}

/* Expects tokenizer_create to fail with a text that names `key`. */
static void check_refused(struct fixture *x, enum status want, const char *key)
{
    struct error err = { 0 };

    vocab_file_finish(&x->file);
    if (gguf_open_memory(&x->g, x->file.bytes.data, x->file.bytes.len, &err) != OK)
        fail_msg("%s", err.text);
    assert_int_equal(tokenizer_create(&x->t, x->g, &err), want);
    assert_null(x->t);
    if (!strstr(err.text, key))
        fail_msg("\"%s\" does not name %s", err.text, key);
    gguf_close(x->g);
    vocab_file_fini(&x->file);
}

static void test_missing_keys_are_named(void **state)
{
    static const char *const keys[] = { "tokenizer.ggml.model", "tokenizer.ggml.tokens",
                                        "tokenizer.ggml.scores", "tokenizer.ggml.token_type" };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct fixture x;
        begin(&x);
        x.file.left_out = keys[i];
        check_refused(&x, E_FORMAT, keys[i]);
    }
}

static void test_other_families_are_unsupported(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    x.file.family = "rwkv";
    check_refused(&x, E_UNSUPPORTED, "rwkv");
}

static void test_arrays_of_different_lengths_are_refused(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    x.file.scores.len -= 4;
    check_refused(&x, E_FORMAT, "tokenizer.ggml.scores");
    begin(&x);
    x.file.kinds.len -= 4;
    check_refused(&x, E_FORMAT, "tokenizer.ggml.token_type");
}

static void test_ids_outside_the_vocabulary_are_refused(void **state)
{
    static const char *const keys[] = { "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id" };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct fixture x;
        begin(&x);
        vocab_file_put_number(&x.file, keys[i], 3);
        check_refused(&x, E_FORMAT, keys[i]);
    }
}

static void test_senseless_elements_are_refused(void **state)
{
    struct fixture x;
    char *long_text = xcalloc(1, 2000);

    (void)state;
    begin(&x);
    vocab_file_add(&x.file, "a", NAN, NORMAL);
    check_refused(&x, E_FORMAT, "tokenizer.ggml.scores[3]");
    begin(&x);
    vocab_file_add(&x.file, "a", 0, 7);
    check_refused(&x, E_FORMAT, "tokenizer.ggml.token_type[3]");
    begin(&x);
    vocab_file_add(&x.file, "<0xGG>", 0, BYTE);
    check_refused(&x, E_FORMAT, "tokenizer.ggml.tokens[3]");
    begin(&x);
    memset(long_text, 'x', 1999);
    vocab_file_add(&x.file, long_text, 0, NORMAL);
    check_refused(&x, E_LIMIT, "tokenizer.ggml.tokens[3]");
    x = (struct fixture){ 0 };
    check_refused(&x, E_FORMAT, "tokenizer.ggml.tokens");
    free(long_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_score_merges_first_and_ties_go_to_the_left),
        cmocka_unit_test(test_space_prefix_stands_at_the_beginning_and_after_special_tokens),
        cmocka_unit_test(test_begin_and_end_tokens_follow_the_file),
        cmocka_unit_test(test_control_tokens_match_on_request_and_user_defined_always),
        cmocka_unit_test(test_plain_text_never_merges_into_a_control_token),
        cmocka_unit_test(test_phi_3_special_tokens_swallow_white_space_behind_them),
        cmocka_unit_test(test_characters_outside_the_vocabulary_become_bytes_or_the_unknown_token),
        cmocka_unit_test(test_pieces_are_running_text),
        cmocka_unit_test(test_ends_are_the_named_keys_and_the_well_known_spellings),
        cmocka_unit_test(test_merge_agrees_with_the_slow_one),
        cmocka_unit_test(test_a_megabyte_of_one_character_takes_little_time),
        cmocka_unit_test(test_cutting_at_whole_tokens_agrees_with_the_slow_way),
        cmocka_unit_test(test_whole_tokens_of_all_lengths_take_little_time),
        cmocka_unit_test(test_texts_made_to_collide_take_little_time),
        cmocka_unit_test(test_missing_keys_are_named),
        cmocka_unit_test(test_other_families_are_unsupported),
        cmocka_unit_test(test_arrays_of_different_lengths_are_refused),
        cmocka_unit_test(test_ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(test_senseless_elements_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
