/* Byte-level merging, on small vocabularies made in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/xalloc.h"
#include "tests/unit/tokenizer_fixture.h"
#include "worker/token/byte_letters.h"

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4 };

/* Ids 0 to 255 are the bytes. */
static void begin(struct fixture *x, const char *rule)
{
    *x = (struct fixture){ .file.family = "gpt2", .file.left_out = "tokenizer.ggml.scores" };
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, letter[4];
        size_t len = byte_letters_put(&byte, 1, letter);
        vocab_file_add_bytes(&x->file, letter, len, 0, NORMAL);
    }
    if (rule)
        vocab_file_put_text(&x->file, "tokenizer.ggml.pre", rule);
}

/* Adds the token and the merge that makes it; returns the id. */
static int32_t add_merged(struct fixture *x, const char *left, const char *right)
{
    char *joint = xasprintf("%s%s", left, right), *merge = xasprintf("%s %s", left, right);
    int32_t id = vocab_file_add(&x->file, joint, 0, NORMAL);

    vocab_file_add_merge(&x->file, merge);
    free(joint);
    free(merge);
    return id;
}

static void test_earliest_merge_goes_first_and_ties_go_to_the_left(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "gpt-2");
    int32_t bc = add_merged(&x, "b", "c"), ab = add_merged(&x, "a", "b"), aa = add_merged(&x, "a", "a");
    int32_t space_a = add_merged(&x, "\xc4\xa0", "a"), abc = add_merged(&x, "a", "bc");
    finish(&x);
    CHECK(&x, "ab", 0, ab);
    CHECK(&x, "abc", 0, abc);
    CHECK(&x, "aaa", 0, aa, 'a');
    CHECK(&x, "aaab", 0, aa, ab);
    CHECK(&x, "bcb a", 0, bc, 'b', space_a);
    CHECK(&x, "", 0, -1);
    end(&x);
}

static void test_merges_never_cross_the_cuts_of_the_rule(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "qwen2");
    int32_t a1 = add_merged(&x, "a", "1"), digits = add_merged(&x, "1", "1");
    finish(&x);
    assert_true(a1 < digits);
    CHECK(&x, "a11", 0, 'a', '1', '1');
    end(&x);

    begin(&x, "gpt-2");
    digits = add_merged(&x, "1", "1");
    finish(&x);
    CHECK(&x, "a11", 0, 'a', digits);
    end(&x);
}

/* The slow, obvious merge of one stretch: of all merges in order, the first that fits, leftmost, again. */
static void merge_slowly(const char *const (*merges)[2], int n_merges, const char *text,
                         struct token_list *out)
{
    size_t n = strlen(text), *cuts = xcalloc(n + 1, sizeof(*cuts));

    for (size_t i = 0; i <= n; i++)
        cuts[i] = i;
    for (int m = 0; m < n_merges;) {
        size_t left = strlen(merges[m][0]), right = strlen(merges[m][1]), i = 0;
        while (i + 1 < n && (cuts[i + 1] - cuts[i] != left || cuts[i + 2] - cuts[i + 1] != right ||
                             memcmp(text + cuts[i], merges[m][0], left) != 0 ||
                             memcmp(text + cuts[i + 1], merges[m][1], right) != 0))
            i++;
        if (i + 1 >= n) {
            m++;
            continue;
        }
        memmove(cuts + i + 1, cuts + i + 2, (n - i - 1) * sizeof(*cuts));
        n--;
        m = 0;
    }
    for (size_t i = 0; i < n; i++) {
        size_t len = cuts[i + 1] - cuts[i];
        int32_t id = (unsigned char)text[cuts[i]];
        for (int m = 0; m < n_merges && len > 1; m++) {
            char *joint = xasprintf("%s%s", merges[m][0], merges[m][1]);
            if (strlen(joint) == len && !memcmp(joint, text + cuts[i], len))
                id = 256 + m;
            free(joint);
        }
        token_list_push(out, id);
    }
    free(cuts);
}

/* Lengths on both sides of the border between the two ways of merging. */
static void test_merge_agrees_with_the_slow_one(void **state)
{
    static const char *const merges[][2] = {
        { "b", "c" },   { "a", "b" },     { "c", "c" },   { "a", "a" },  { "aa", "b" },
        { "cc", "a" },  { "c", "aa" },    { "aa", "aa" }, { "ab", "c" }, { "bc", "bc" },
        { "cc", "cc" }, { "bcbc", "ab" }, { "c", "b" },
    };
    const int n_merges = (int)(sizeof(merges) / sizeof(*merges));
    struct fixture x;
    uint32_t random = 1;

    (void)state;
    begin(&x, "gpt-2");
    for (int i = 0; i < n_merges; i++)
        add_merged(&x, merges[i][0], merges[i][1]);
    finish(&x);
    for (int round = 0; round < 3000; round++) {
        struct token_list want = { 0 }, got = { 0 };
        char text[160];
        int len = 0;
        for (int n = round % 150; len < n; len++) {
            random = random * 1664525 + 1013904223;
            text[len] = (char)('a' + (random >> 20) % 3);
        }
        text[len] = 0;
        merge_slowly(merges, n_merges, text, &want);
        tokenizer_encode(x.t, text, (size_t)len, 0, &got);
        assert_int_equal(got.n, want.n);
        if (got.n)
            assert_memory_equal(got.ids, want.ids, got.n * sizeof(*got.ids));
        token_list_fini(&want);
        token_list_fini(&got);
    }
    end(&x);
}

/* A long text remembers its words; one word at a time nothing is remembered. */
static void test_words_of_a_long_text_become_what_they_become_alone(void **state)
{
    struct token_list whole = { 0 }, apart = { 0 };
    struct buffer text = { 0 };
    struct fixture x;
    uint32_t random = 7;

    (void)state;
    begin(&x, "gpt-2");
    add_merged(&x, "a", "b");
    add_merged(&x, "\xc4\xa0", "ab");
    add_merged(&x, "b", "a");
    finish(&x);
    for (int word = 0; word < 20000; word++) {
        char letters[16] = " ";
        size_t len = 1;
        for (random = random * 1664525 + 1013904223; len < 2 + (random >> 8) % 10; len++)
            letters[len] = (char)('a' + (random >> (10 + len)) % 2);
        tokenizer_encode(x.t, letters, len, 0, &apart);
        buffer_append(&text, letters, len);
    }
    tokenizer_encode(x.t, text.data, text.len, 0, &whole);
    assert_int_equal(whole.n, apart.n);
    assert_memory_equal(whole.ids, apart.ids, whole.n * sizeof(*whole.ids));
    buffer_fini(&text);
    token_list_fini(&whole);
    token_list_fini(&apart);
    end(&x);
}

static void test_a_word_that_is_a_token_stays_whole_where_the_rule_says_so(void **state)
{
    static const char *const rules[] = { "llama-bpe", "tekken", "qwen2" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture x;
        begin(&x, rules[i]);
        int32_t xy = vocab_file_add(&x.file, "\xc4\xa0xy", 0, NORMAL);
        vocab_file_put_bool(&x.file, "tokenizer.ggml.add_bos_token", 0);
        finish(&x);
        if (i < 2)
            CHECK(&x, " xy", 0, xy);
        else
            CHECK(&x, " xy", 0, ' ', 'x', 'y');
        end(&x);
    }
}

static void test_begin_token_is_added_by_rule_unless_the_file_says_otherwise(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "llama-bpe");
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 11, 'a'); /* the default of files that name none */
    end(&x);

    begin(&x, "llama-bpe");
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_bos_token", 0);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 'a');
    end(&x);

    begin(&x, "qwen2");
    vocab_file_put_number(&x.file, "tokenizer.ggml.bos_token_id", 5);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 'a');
    assert_int_equal(tokenizer_bos(x.t), 5);
    end(&x);

    begin(&x, "glm4");
    finish(&x);
    assert_int_equal(tokenizer_bos(x.t), -1);
    assert_int_equal(tokenizer_eos(x.t), 11);
    end(&x);
}

static void test_special_tokens_cut_and_control_tokens_are_never_spelled(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "gpt-2");
    int32_t turn = vocab_file_add(&x.file, "<|t|>", 0, CONTROL);
    int32_t spaces = vocab_file_add(&x.file, "   ", 0, USER_DEFINED);
    int32_t ab = vocab_file_add(&x.file, "ab", 0, CONTROL);
    vocab_file_add_merge(&x.file, "a b");
    finish(&x);
    CHECK(&x, "a<|t|>b", ENCODE_SPECIAL, 'a', turn, 'b');
    CHECK(&x, "<|t|>", 0, '<', '|', 't', '|', '>');
    CHECK(&x, "x    y", 0, 'x', spaces, ' ', 'y');
    CHECK(&x, "ab", 0, 'a', 'b');
    CHECK(&x, "ab", ENCODE_SPECIAL, ab);
    end(&x);
}

static void test_what_is_not_utf8_becomes_the_replacement_character(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "gpt-2");
    finish(&x);
    CHECK(&x, "a\xff", 0, 'a', 0xef, 0xbf, 0xbd);
    CHECK(&x, "\xc3", 0, 0xef, 0xbf, 0xbd);
    CHECK(&x, "\xe4\xb8z", 0, 0xef, 0xbf, 0xbd, 0xef, 0xbf, 0xbd, 'z');
    CHECK(&x, "\xc3\xa9", 0, 0xc3, 0xa9);
    end(&x);
}

static void test_bytes_that_the_vocabulary_lacks_are_lost(void **state)
{
    struct fixture x = { .file.family = "gpt2" };

    (void)state;
    vocab_file_add(&x.file, "a", 0, NORMAL);
    vocab_file_add(&x.file, "b", 0, NORMAL);
    add_merged(&x, "a", "b");
    vocab_file_add_merge(&x.file, "a z"); /* parts and results that do not exist, */
    vocab_file_add_merge(&x.file, "b a");
    vocab_file_add_merge(&x.file, "ab"); /* and what is no pair at all */
    vocab_file_add_merge(&x.file, "");
    finish(&x);
    CHECK(&x, "azb", 0, 0, 1);
    CHECK(&x, "abab!", 0, 2, 2);
    CHECK(&x, "zz", 0, -1);
    end(&x);
}

static void check_piece(const struct fixture *x, int32_t id, const char *want)
{
    size_t len;
    const char *piece = tokenizer_piece(x->t, id, &len);

    assert_int_equal(len, strlen(want));
    assert_memory_equal(piece, want, len);
}

static void test_pieces_are_bytes(void **state)
{
    struct buffer all = { 0 };
    struct fixture x;

    (void)state;
    begin(&x, "gpt-2");
    int32_t word = vocab_file_add(&x.file,
                                  "\xc4\xa0"
                                  "a\xc4\x8a\xc3\x83\xc2\xa9",
                                  0, NORMAL);
    int32_t user = vocab_file_add(&x.file, "\xc4\xa0 x", 0, USER_DEFINED);
    int32_t control = vocab_file_add(&x.file, "<|t|>", 0, CONTROL);
    int32_t foreign = vocab_file_add(&x.file, "a\xe4\xb8\xad", 0, NORMAL);
    finish(&x);
    check_piece(&x, word, " a\n\xc3\xa9");
    check_piece(&x, user, "\xc4\xa0 x");
    check_piece(&x, control, "");
    check_piece(&x, foreign, "a\xe4\xb8\xad");
    for (int32_t id = 0; id < 256; id++)
        tokenizer_decode(x.t, &id, 1, &all);
    assert_int_equal(all.len, 256);
    for (int i = 0; i < 256; i++)
        assert_int_equal((unsigned char)all.data[i], i);
    buffer_fini(&all);
    end(&x);
}

static void test_a_message_end_is_no_end_where_answers_have_several_messages(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "gpt-4o");
    int32_t message_end = vocab_file_add(&x.file, "<|end|>", 0, CONTROL);
    finish(&x);
    assert_true(tokenizer_is_end(x.t, message_end));
    end(&x);

    begin(&x, "gpt-4o");
    vocab_file_add(&x.file, "<|end|>", 0, CONTROL);
    int32_t last = vocab_file_add(&x.file, "<|return|>", 0, CONTROL);
    int32_t call = vocab_file_add(&x.file, "<|call|>", 0, CONTROL);
    finish(&x);
    assert_false(tokenizer_is_end(x.t, message_end));
    assert_true(tokenizer_is_end(x.t, last));
    assert_true(tokenizer_is_end(x.t, call));
    end(&x);
}

static void test_files_without_kinds_and_rule_are_read(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, NULL);
    x.file.left_out = "tokenizer.ggml.token_type";
    int32_t digits = add_merged(&x, "1", "1");
    finish(&x);
    CHECK(&x, "a-11", 0, 'a', '-', digits);
    end(&x);
}

/* Expects tokenizer_create to fail with a text that has `words` in it. */
static void check_refused(struct fixture *x, enum status want, const char *words)
{
    struct error err = { 0 };

    vocab_file_finish(&x->file);
    if (gguf_open_memory(&x->g, x->file.bytes.data, x->file.bytes.len, &err) != OK)
        fail_msg("%s", err.text);
    assert_int_equal(tokenizer_create(&x->t, x->g, &err), want);
    assert_null(x->t);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say %s", err.text, words);
    gguf_close(x->g);
    vocab_file_fini(&x->file);
}

static void test_an_unknown_rule_and_missing_merges_are_named(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x, "no-such-rule");
    check_refused(&x, E_UNSUPPORTED, "no-such-rule");

    begin(&x, "gpt-2");
    x.file.left_out = "tokenizer.ggml.merges";
    check_refused(&x, E_FORMAT, "tokenizer.ggml.merges");

    begin(&x, "gpt-2");
    x.file.left_out = "tokenizer.ggml.merges";
    vocab_file_put_number(&x.file, "tokenizer.ggml.merges", 1);
    check_refused(&x, E_FORMAT, "tokenizer.ggml.merges");
}

/* A bound that an algorithm of quadratic time misses by hours, met even under sanitizers. */
static void test_a_megabyte_long_word_takes_little_time(void **state)
{
    static const char *const units[] = { "a", "ab", " ", "7", "\n", "\xcc\x81", "!", "\xff" };
    const size_t len = 1 << 20;
    char *text = xmalloc(len);
    struct fixture x;

    (void)state;
    begin(&x, "gpt-2");
    add_merged(&x, "a", "b");
    add_merged(&x, "7", "7");
    add_merged(&x, "\xc4\xa0", "\xc4\xa0");
    for (int n = 1; n <= 64; n *= 2) {
        char letters[65] = { 0 };
        memset(letters, 'a', (size_t)n);
        add_merged(&x, letters, letters);
    }
    finish(&x);
    for (size_t u = 0; u < sizeof(units) / sizeof(*units); u++) {
        struct token_list ids = { 0 };
        int64_t start = clock_us();
        for (size_t i = 0; i < len; i++)
            text[i] = units[u][i % strlen(units[u])];
        tokenizer_encode(x.t, text, len, ENCODE_SPECIAL, &ids);
        int64_t took_ms = (clock_us() - start) / 1000;
        print_message("1 MiB of 0x%02x: %zu tokens in %lld ms\n", (unsigned char)*units[u], ids.n,
                      (long long)took_ms);
        assert_true(ids.n > 0 && took_ms < 20000);
        token_list_fini(&ids);
    }
    end(&x);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_earliest_merge_goes_first_and_ties_go_to_the_left),
        cmocka_unit_test(test_merges_never_cross_the_cuts_of_the_rule),
        cmocka_unit_test(test_merge_agrees_with_the_slow_one),
        cmocka_unit_test(test_words_of_a_long_text_become_what_they_become_alone),
        cmocka_unit_test(test_a_word_that_is_a_token_stays_whole_where_the_rule_says_so),
        cmocka_unit_test(test_begin_token_is_added_by_rule_unless_the_file_says_otherwise),
        cmocka_unit_test(test_special_tokens_cut_and_control_tokens_are_never_spelled),
        cmocka_unit_test(test_what_is_not_utf8_becomes_the_replacement_character),
        cmocka_unit_test(test_bytes_that_the_vocabulary_lacks_are_lost),
        cmocka_unit_test(test_pieces_are_bytes),
        cmocka_unit_test(test_a_message_end_is_no_end_where_answers_have_several_messages),
        cmocka_unit_test(test_files_without_kinds_and_rule_are_read),
        cmocka_unit_test(test_an_unknown_rule_and_missing_merges_are_named),
        cmocka_unit_test(test_a_megabyte_long_word_takes_little_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
