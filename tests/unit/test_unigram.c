/* Unigram vocabularies: against what SentencePiece made of the same texts, against the slow way, and with
 * files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/utf8.h"
#include "common/xalloc.h"
#include "tests/unit/tokenizer_fixture.h"
#include "tests/unit/unigram_vectors.h"
#include "worker/token/charsmap.h"
#include "worker/token/trie.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

#define SPACE       "\xe2\x96\x81"
#define N_OF(array) (sizeof(array) / sizeof(*(array)))
#define CHARSMAP    "tokenizer.ggml.precompiled_charsmap"
#define ADD_PREFIX  "tokenizer.ggml.add_space_prefix"
#define MERGE       "tokenizer.ggml.remove_extra_whitespaces"
#define UNKNOWN_ID  "tokenizer.ggml.unknown_token_id"

/* ids: 0 <pad>, 1 </s>, 2 <unk>, as in the first models of the family */
static void begin(struct fixture *x)
{
    *x = (struct fixture){ .file.family = "t5" };
    vocab_file_add(&x->file, "<pad>", 0, CONTROL);
    vocab_file_add(&x->file, "</s>", 0, CONTROL);
    vocab_file_add(&x->file, "<unk>", 0, UNKNOWN);
}

static void put_charsmap(struct vocab_file *f, const char *bytes, size_t len)
{
    struct buffer b = { 0 };

    buffer_append(&b, bytes, len);
    vocab_file_array(f, CHARSMAP, 0, len, &b);
    buffer_fini(&b);
}

static void open_model(struct fixture *x, const struct unigram_piece *pieces, size_t n, const char *charsmap,
                       size_t charsmap_len, bool merges)
{
    *x = (struct fixture){ .file.family = "t5" };
    for (size_t i = 0; i < n; i++)
        vocab_file_add(&x->file, pieces[i].text, pieces[i].score, pieces[i].kind);
    vocab_file_put_number(&x->file, UNKNOWN_ID, 0);
    vocab_file_put_bool(&x->file, ADD_PREFIX, 1);
    vocab_file_put_bool(&x->file, MERGE, merges);
    if (charsmap_len)
        put_charsmap(&x->file, charsmap, charsmap_len);
    finish(x);
}

static void open_rules(struct fixture *x)
{
    open_model(x, rules_pieces, N_OF(rules_pieces), rules_charsmap, sizeof(rules_charsmap) - 1, true);
}

static void open_bytes(struct fixture *x)
{
    open_model(x, bytes_pieces, N_OF(bytes_pieces), bytes_charsmap, sizeof(bytes_charsmap) - 1, false);
}

static void check_cases(const struct fixture *x, const struct unigram_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int32_t want[512];
        size_t n_wanted = 0;
        char *at = (char *)(uintptr_t)cases[i].ids, *after;
        for (long id; id = strtol(at, &after, 10), after != at; at = after) {
            assert_true(n_wanted < N_OF(want) - 1);
            want[n_wanted++] = (int32_t)id;
        }
        want[n_wanted] = -1;
        check_ids(x, cases[i].text, cases[i].len, 0, want);
    }
}

static void test_ids_are_those_of_sentencepiece(void **state)
{
    struct fixture x;

    (void)state;
    open_rules(&x);
    check_cases(&x, rules_cases, N_OF(rules_cases));
    end(&x);
    open_bytes(&x);
    check_cases(&x, bytes_cases, N_OF(bytes_cases));
    end(&x);
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static void test_every_valid_text_comes_back_behind_the_prefix(void **state)
{
    struct fixture x;
    uint64_t seed = 3;

    (void)state;
    open_bytes(&x);
    for (int round = 0; round < 100000; round++) {
        char text[64];
        size_t len = 0;
        struct token_list ids = { 0 };
        struct buffer back = { 0 };
        for (uint32_t n = next_random(&seed) % 12; n > 0; n--) {
            uint32_t code = next_random(&seed) % (next_random(&seed) % 2 ? 0x80 : 0x11000);
            bool is_usable = (code < 0xd800 || code > 0xdfff) && code != 0x2581;
            len += (size_t)utf8_put(is_usable ? code : ' ', text + len);
        }
        tokenizer_encode(x.t, text, len, 0, &ids);
        tokenizer_decode(x.t, ids.ids, ids.n, &back);
        assert_int_equal(back.len, len ? len + 1 : 0);
        if (len)
            assert_memory_equal(back.data + 1, text, len);
        token_list_fini(&ids);
        buffer_fini(&back);
    }
    end(&x);
}

/* Of all ways to cut the text into pieces, the best one's score. Several ways may have it. */
struct search {
    char pieces[16][8];
    float scores[16];
    int n;
    const char *text;
    double best_score;
};

static void try_all(struct search *s, size_t at, double score)
{
    if (!s->text[at] && score > s->best_score)
        s->best_score = score;
    for (int i = 0; s->text[at] && i < s->n; i++) {
        size_t len = strlen(s->pieces[i]);
        if (!strncmp(s->text + at, s->pieces[i], len))
            try_all(s, at + len, score + s->scores[i]);
    }
}

/* Encodes the text to ids 3.. that spell it and have the best score. */
static void check_best(const struct fixture *x, const struct search *s)
{
    struct token_list ids = { 0 };
    double score = 0;
    size_t at = 0;

    tokenizer_encode(x->t, s->text, strlen(s->text), 0, &ids);
    for (size_t i = 0; i < ids.n; i++) {
        int piece = ids.ids[i] - 3;
        assert_in_range(piece, 0, s->n - 1);
        size_t len = strlen(s->pieces[piece]);
        assert_int_equal(strncmp(s->text + at, s->pieces[piece], len), 0);
        at += len;
        score += s->scores[piece];
    }
    assert_int_equal(at, strlen(s->text));
    assert_true(score > s->best_score - 1e-6);
    token_list_fini(&ids);
}

static void test_the_best_way_agrees_with_trying_all(void **state)
{
    uint64_t seed = 9;

    (void)state;
    for (int round = 0; round < 100; round++) {
        struct search s = { .n = 2, .pieces = { "a", "b" }, .scores = { -3.25f, -4.5f } };
        struct fixture x;
        while (s.n < 10) {
            size_t len = 2 + next_random(&seed) % 5;
            bool is_new = true;
            for (size_t i = 0; i < len; i++)
                s.pieces[s.n][i] = next_random(&seed) % 3 ? 'a' : 'b';
            s.pieces[s.n][len] = 0;
            for (int i = 0; i < s.n; i++)
                is_new = is_new && strcmp(s.pieces[i], s.pieces[s.n]) != 0;
            s.scores[s.n] = -(float)(next_random(&seed) % 1000003) / 100000;
            s.n += is_new;
        }
        begin(&x);
        for (int i = 0; i < s.n; i++)
            vocab_file_add(&x.file, s.pieces[i], s.scores[i], NORMAL);
        finish(&x);
        for (int i = 0; i < 20; i++) {
            char text[13];
            size_t len = next_random(&seed) % 12;
            for (size_t k = 0; k < len; k++)
                text[k] = next_random(&seed) % 3 ? 'a' : 'b';
            text[len] = 0;
            s.text = text;
            s.best_score = -1e9;
            try_all(&s, 0, 0);
            check_best(&x, &s);
        }
        end(&x);
    }
}

static void test_of_equally_good_ways_the_longer_last_piece_counts(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    vocab_file_add(&x.file, "a", -1, NORMAL);
    vocab_file_add(&x.file, "aa", -2, NORMAL);
    finish(&x);
    CHECK(&x, "aa", 0, 4);
    CHECK(&x, "aaa", 0, 3, 4);
    end(&x);
}

/* ids 3.. : ▁ a b ab ▁a c */
static void add_letters(struct fixture *x)
{
    vocab_file_add(&x->file, SPACE, -2, NORMAL);
    vocab_file_add(&x->file, "a", -3, NORMAL);
    vocab_file_add(&x->file, "b", -3, NORMAL);
    vocab_file_add(&x->file, "ab", -4, NORMAL);
    vocab_file_add(&x->file, SPACE "a", -2, NORMAL);
    vocab_file_add(&x->file, "c", -20, NORMAL);
}

static void test_unknown_characters_in_a_row_are_one_token(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    finish(&x);
    CHECK(&x,
          "abxyz\xc3\xa9"
          "b\xff",
          0, 6, 2, 5, 2);
    CHECK(&x, "x<pad>", 0, 2, 4, 2);
    end(&x);

    /* A file without such a token leaves them out. */
    x = (struct fixture){ .file.family = "t5" };
    vocab_file_add(&x.file, "a", -1, NORMAL);
    finish(&x);
    CHECK(&x, "xax", 0, 0);
    end(&x);
}

static void test_spaces_follow_the_keys_of_the_file(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    finish(&x);
    CHECK(&x, "b  b ", 0, 5, 3, 3, 5, 3);
    end(&x);

    begin(&x);
    add_letters(&x);
    vocab_file_put_bool(&x.file, ADD_PREFIX, 1);
    finish(&x);
    CHECK(&x, "b  b ", 0, 3, 5, 3, 3, 5, 3);
    CHECK(&x, " ", 0, 3, 3);
    CHECK(&x, "", 0, -1);
    end(&x);

    begin(&x);
    add_letters(&x);
    vocab_file_put_bool(&x.file, ADD_PREFIX, 1);
    vocab_file_put_bool(&x.file, MERGE, 1);
    finish(&x);
    CHECK(&x, "  b  a ", 0, 3, 5, 7);
    CHECK(&x, "   ", 0, -1);
    end(&x);

    begin(&x);
    add_letters(&x);
    int32_t plain = vocab_file_add(&x.file, " b", -1, NORMAL);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.escape_whitespaces", 0);
    finish(&x);
    CHECK(&x, "a b", 0, 4, plain);
    end(&x);
}

static void test_whole_pieces_are_cut_out_and_unused_ones_never_stand_in_text(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    int32_t whole = vocab_file_add(&x.file, "<x>", 0, USER_DEFINED);
    vocab_file_add(&x.file, "bb", 0, UNUSED);
    finish(&x);
    CHECK(&x, "a<x>b", 0, 4, whole, 5);
    CHECK(&x, "bb", 0, 5, 5);
    CHECK(&x, "a</s>", ENCODE_SPECIAL, 4, 1);
    end(&x);
}

static void test_texts_end_with_the_end_token_unless_the_file_says_otherwise(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    add_letters(&x);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 4, 1);
    assert_int_equal(tokenizer_bos(x.t), -1);
    assert_int_equal(tokenizer_eos(x.t), 1);
    assert_true(tokenizer_is_end(x.t, 1));
    end(&x);

    begin(&x);
    add_letters(&x);
    vocab_file_put_number(&x.file, "tokenizer.ggml.bos_token_id", 0);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_bos_token", 1);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_eos_token", 0);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, 0, 4);
    end(&x);
}

/* Expects tokenizer_create to fail with a text that has `words`. */
static void check_refused(struct fixture *x, enum status want, const char *words)
{
    struct error err = { 0 };

    vocab_file_finish(&x->file);
    assert_int_equal(gguf_open_memory(&x->g, x->file.bytes.data, x->file.bytes.len, &err), OK);
    assert_int_equal(tokenizer_create(&x->t, x->g, &err), want);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    end(x);
}

/* A unit of the double array: the byte that leads to it, whether a sequence ends, how far off its children.
 */
static uint32_t unit(uint8_t byte, bool ends, uint32_t offset)
{
    return byte | (uint32_t)ends << 8 | offset << 10;
}

/* Length, units and replacements as one array of the file. */
static void put_units(struct fixture *x, const uint32_t *units, size_t n, const char *replacements,
                      size_t len)
{
    struct buffer b = { 0 };

    begin(x);
    add_letters(x);
    vocab_file_number(&b, 4 * n, 4);
    for (size_t i = 0; i < n; i++)
        vocab_file_number(&b, units[i], 4);
    buffer_append(&b, replacements, len);
    vocab_file_array(&x->file, CHARSMAP, 0, b.len, &b);
    buffer_fini(&b);
}

/* The root's children begin at 256; "x" ends a sequence, and its value lies in unit 1. */
static void make_units(uint32_t units[512])
{
    memset(units, 0, 512 * sizeof(*units));
    units[0] = unit(0, false, 256);
    units[256 ^ 'x'] = unit('x', true, 1 ^ 256 ^ 'x');
    units[1] = 1u << 31 | 2;
}

static void test_replacements_of_the_file_are_used(void **state)
{
    uint32_t units[512];
    struct fixture x;

    (void)state;
    make_units(units);
    put_units(&x, units, 512, "c\0ab", 5);
    finish(&x);
    CHECK(&x, "bxb", 0, 5, 6, 5);
    end(&x);
}

static void test_malformed_replacements_are_refused(void **state)
{
    uint32_t units[512];
    struct fixture x;
    char *long_text = xcalloc(1, 4096);

    (void)state;
    for (size_t len = 1; len < 9; len++) {
        begin(&x);
        put_charsmap(&x.file, "\4\0\0\0\0\0\0\0", len);
        check_refused(&x, E_FORMAT, "cannot be units");
    }
    begin(&x);
    put_charsmap(&x.file, "\3\0\0\0\0\0\0\0\0\0\0", 11);
    check_refused(&x, E_FORMAT, "cannot be units");
    begin(&x);
    put_charsmap(&x.file, "\xfc\xff\xff\xff\0\0\0\0\0\0\0", 11);
    check_refused(&x, E_FORMAT, "cannot be units");
    begin(&x);
    vocab_file_put_number(&x.file, CHARSMAP, 3);
    check_refused(&x, E_FORMAT, "not an array of bytes");

    make_units(units);
    put_units(&x, units, 512, "c\0ab", 4);
    check_refused(&x, E_FORMAT, "has no end");
    put_units(&x, units, 512, "\0", 2);
    check_refused(&x, E_FORMAT, "points to byte 2 of 2");
    units[0] = unit(0, false, 512);
    put_units(&x, units, 512, "c\0ab", 5);
    check_refused(&x, E_FORMAT, "unit 0 points to unit 512 of 512");
    make_units(units);
    memset(long_text, 'a', 1000);
    put_units(&x, units, 512, long_text, 1001);
    check_refused(&x, E_LIMIT, "a replacement has 1000 bytes");
    free(long_text);
}

/* A list that makes much of little would make more of a text than there is memory. */
static void test_replacements_far_longer_than_what_they_replace_are_refused(void **state)
{
    uint32_t units[512];
    struct fixture x;

    (void)state;
    make_units(units);
    put_units(&x, units, 512, "c\0aaaaaaaaaaaaaaa", 18); /* 15 for one */
    finish(&x);
    end(&x);
    put_units(&x, units, 512, "c\0aaaaaaaaaaaaaaaa", 19);
    check_refused(&x, E_LIMIT, "1 bytes become 16, more than 15 times as many");
    put_units(&x, units, 512, "c\0     a", 9); /* a space is written with three */
    check_refused(&x, E_LIMIT, "1 bytes become 16, more than 15 times as many");

    /* "xy" may have twice as many as "y". */
    units[256 ^ 'x'] = unit('x', false, 384 ^ 256 ^ 'x');
    units[384 ^ 'y'] = unit('y', true, 1 ^ 384 ^ 'y');
    put_units(&x, units, 512, "c\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 33);
    finish(&x);
    end(&x);
    put_units(&x, units, 512, "c\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 34);
    check_refused(&x, E_LIMIT, "2 bytes become 31, more than 15 times as many");
    units[256 ^ 'y'] = unit('y', true, 1 ^ 256 ^ 'y');
    put_units(&x, units, 512, "c\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 33);
    check_refused(&x, E_LIMIT, "1 bytes become 30, more than 15 times as many");
}

static void test_pieces_of_too_many_bytes_are_refused(void **state)
{
    struct fixture x;
    char text[1024];

    (void)state;
    begin(&x);
    memset(text, 'a', sizeof(text));
    for (int i = 0; i <= TRIE_MAX_BYTES / 1024; i++)
        vocab_file_add_bytes(&x.file, text, sizeof(text), 0, NORMAL);
    check_refused(&x, E_LIMIT, "tokenizer.ggml.tokens");
}

/* Processor time for so many bytes of the same few, in seconds. */
static double seconds_for(const struct tokenizer *t, const char *unit_text, size_t len)
{
    char *text = xmalloc(len);
    struct token_list ids = { 0 };
    size_t n = strlen(unit_text);

    for (size_t i = 0; i < len; i++)
        text[i] = unit_text[i % n];
    clock_t start = clock();
    tokenizer_encode(t, text, len, 0, &ids);
    double took = (double)(clock() - start) / CLOCKS_PER_SEC;
    token_list_fini(&ids);
    free(text);
    return took;
}

/* Eight times the text in 64 times the time would be quadratic. */
static void check_linear(const struct tokenizer *t, const char *unit_text)
{
    double an_eighth = seconds_for(t, unit_text, 1 << 17), whole = seconds_for(t, unit_text, 1 << 20);

    if (whole > 24 * an_eighth + 0.2)
        fail_msg("1 MiB of \"%s\" takes %g s, an eighth of it %g s", unit_text, whole, an_eighth);
}

static void test_monotonous_text_takes_linear_time(void **state)
{
    static const char *const texts[] = { "a", " ", "\xcc\x81", "\xff", "ab", "\xf0\x9f\x90\x91", "x" };
    uint32_t units[512];
    struct fixture x;
    char runs[65];

    (void)state;
    open_rules(&x);
    for (size_t i = 0; i < N_OF(texts); i++)
        check_linear(x.t, texts[i]);
    end(&x);

    begin(&x); /* pieces of every length */
    memset(runs, 'a', sizeof(runs));
    for (size_t n = 1; n <= 64; n++)
        vocab_file_add_bytes(&x.file, runs, n, -(float)n, NORMAL);
    finish(&x);
    check_linear(x.t, "a");
    end(&x);

    /* A double array that leads from x to x without end. */
    make_units(units);
    units[256 ^ 'x'] = unit('x', false, 'x');
    put_units(&x, units, 512, "c", 2);
    finish(&x);
    check_linear(x.t, "x");
    end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_those_of_sentencepiece),
        cmocka_unit_test(test_every_valid_text_comes_back_behind_the_prefix),
        cmocka_unit_test(test_the_best_way_agrees_with_trying_all),
        cmocka_unit_test(test_of_equally_good_ways_the_longer_last_piece_counts),
        cmocka_unit_test(test_unknown_characters_in_a_row_are_one_token),
        cmocka_unit_test(test_spaces_follow_the_keys_of_the_file),
        cmocka_unit_test(test_whole_pieces_are_cut_out_and_unused_ones_never_stand_in_text),
        cmocka_unit_test(test_texts_end_with_the_end_token_unless_the_file_says_otherwise),
        cmocka_unit_test(test_replacements_of_the_file_are_used),
        cmocka_unit_test(test_malformed_replacements_are_refused),
        cmocka_unit_test(test_replacements_far_longer_than_what_they_replace_are_refused),
        cmocka_unit_test(test_pieces_of_too_many_bytes_are_refused),
        cmocka_unit_test(test_monotonous_text_takes_linear_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
