/* WordPiece vocabularies: words and their pieces, what becomes of letters first, and hostile text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/xalloc.h"
#include "tests/unit/tokenizer_fixture.h"
#include "worker/token/fold.h"

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4 };
enum { PAD, UNK, CLS, SEP, FIRST };

#define MARK  "\xe2\x96\x81"
#define ACUTE "\xcc\x81"

static void begin(struct fixture *x)
{
    *x = (struct fixture){ .file.family = "bert" };
    vocab_file_add(&x->file, "[PAD]", 0, CONTROL);
    vocab_file_add(&x->file, "[UNK]", 0, CONTROL);
    vocab_file_add(&x->file, "[CLS]", 0, CONTROL);
    vocab_file_add(&x->file, "[SEP]", 0, CONTROL);
    vocab_file_put_number(&x->file, "tokenizer.ggml.unknown_token_id", UNK);
}

/* Adds pieces, the first with id FIRST. */
static void add_all(struct fixture *x, const char *const *pieces, size_t n)
{
    for (size_t i = 0; i < n; i++)
        vocab_file_add(&x->file, pieces[i], 0, NORMAL);
}

#define ADD(x, ...)                                                                                          \
    add_all(x, (const char *const[]){ __VA_ARGS__ }, sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *))

static void test_words_become_their_longest_pieces_from_the_left(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "sheep", MARK "she", "ep", "p", "e", "epe", "skin", MARK "s");
    finish(&x);
    CHECK(&x, "sheep she", 0, FIRST, FIRST + 1);
    CHECK(&x, "sheepskin", 0, FIRST, FIRST + 6);
    CHECK(&x, "sheppe shepe", 0, FIRST + 1, FIRST + 3, FIRST + 3, FIRST + 4, FIRST + 1, FIRST + 3, FIRST + 4);
    CHECK(&x, "  \t\n", 0, -1);
    end(&x);
}

static void test_a_word_that_no_pieces_make_up_is_one_unknown_token(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "she", "ep", "skin");
    finish(&x);
    CHECK(&x, "sheepx sheep skin", 0, UNK, FIRST, FIRST + 1, UNK);
    end(&x);

    x = (struct fixture){ .file.family = "bert" }; /* the default's number is not in this vocabulary */
    vocab_file_add(&x.file, MARK "a", 0, NORMAL);
    finish(&x);
    CHECK(&x, "b a", ENCODE_BOS, 0);
    end(&x);
}

static void test_letters_become_small_and_lose_their_accents(void **state)
{
    static const char lower[] = "tokenizer.ggml.normalizer.lowercase";
    static const char strip[] = "tokenizer.ggml.normalizer.strip_accents";
    struct fixture x;

    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        begin(&x);
        ADD(&x, MARK "cafe", MARK "caf\xc3\xa9", MARK "Cafe", MARK "Caf\xc3\xa9");
        if (kind)
            vocab_file_put_bool(&x.file, lower, kind == 1);
        if (kind == 1 || kind == 3)
            vocab_file_put_bool(&x.file, strip, kind == 3);
        finish(&x);
        int32_t want[] = { FIRST, FIRST + 1, FIRST + 3, FIRST + 2 };
        CHECK(&x, "Caf\xc3\xa9", 0, want[kind]);
        end(&x);
    }

    begin(&x);
    ADD(&x, MARK "\xce\xb1", MARK "\xd0\xb8", MARK "i", MARK "\xc7\x86", ";", MARK ";");
    finish(&x);
    CHECK(&x, "\xce\x86 \xd0\x99 \xc4\xb0 \xc7\x84", 0, FIRST, FIRST + 1, FIRST + 2, FIRST + 3);
    CHECK(&x, "I" ACUTE ACUTE ACUTE " " ACUTE, 0, FIRST + 2);
    CHECK(&x, "i\xcd\xbe", 0, FIRST + 2, FIRST + 5); /* U+037E is a semicolon */
    end(&x);
}

static void test_hangul_falls_into_its_letters(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "\xe1\x84\x92", "\xe1\x85\xa1", "\xe1\x86\xab", "\xe1\x84\x80");
    finish(&x);
    CHECK(&x, "\xed\x95\x9c\xea\xb0\x80", 0, FIRST, FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 1); /* 한가 */
    end(&x);
}

static void test_signs_and_chinese_characters_are_words_of_their_own(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "a", MARK ".", MARK "\xe7\xbe\x8a", MARK "\xe3\x81\x8b", "\xe3\x81\x8b", MARK "$",
        MARK "\xc2\xa2", "\xc2\xa2", MARK "\xe2\x80\x9c");
    finish(&x);
    CHECK(&x, "a.a..", 0, FIRST, FIRST + 1, FIRST, FIRST + 1, FIRST + 1);
    CHECK(&x, "a\xe7\xbe\x8a\xe7\xbe\x8a", 0, FIRST, FIRST + 2, FIRST + 2);
    CHECK(&x, "\xe3\x81\x8b\xe3\x81\x8b", 0, FIRST + 3, FIRST + 4);
    CHECK(&x, "a$\xc2\xa2\xc2\xa2\xe2\x80\x9c", 0, FIRST, FIRST + 5, FIRST + 6, FIRST + 7, FIRST + 8);
    end(&x);
}

static void test_controls_and_broken_bytes_are_left_out(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "ab", MARK "a", MARK "b");
    finish(&x);
    CHECK(&x,
          "a\x01\xe2\x80\x8b\xff\xc3\xef\xbf\xbd\xc2\xad"
          "b",
          0, FIRST);
    CHECK(&x,
          "a\xe3\x80\x80"
          "b\xc2\xa0"
          "a\nb",
          0, FIRST + 1, FIRST + 2, FIRST + 1, FIRST + 2);
    end(&x);
}

static void test_texts_stand_between_the_tokens_of_the_file(void **state)
{
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "a");
    vocab_file_put_number(&x.file, "tokenizer.ggml.cls_token_id", CLS);
    vocab_file_put_number(&x.file, "tokenizer.ggml.seperator_token_id", SEP);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, CLS, FIRST, SEP);
    CHECK(&x, "", ENCODE_BOS, CLS, SEP);
    CHECK(&x, "a[SEP]a", ENCODE_SPECIAL, FIRST, SEP, FIRST);
    CHECK(&x, "a[SEP]", 0, FIRST, UNK, UNK, UNK);
    assert_int_equal(tokenizer_bos(x.t), CLS);
    assert_int_equal(tokenizer_eos(x.t), -1);
    end(&x);

    begin(&x);
    ADD(&x, MARK "a");
    vocab_file_put_number(&x.file, "tokenizer.ggml.bos_token_id", PAD);
    vocab_file_put_number(&x.file, "tokenizer.ggml.cls_token_id", CLS);
    vocab_file_put_number(&x.file, "tokenizer.ggml.seperator_token_id", SEP);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_sep_token", 0);
    finish(&x);
    CHECK(&x, "a", ENCODE_BOS, PAD, FIRST);
    end(&x);

    begin(&x);
    for (int i = 0; i < 99; i++) {
        char text[16];
        snprintf(text, sizeof(text), "x%d", i);
        vocab_file_add(&x.file, text, 0, NORMAL);
    }
    finish(&x);
    CHECK(&x, "", ENCODE_BOS, 101, 102); /* where the file names none */
    end(&x);
}

static void test_pieces_are_running_text(void **state)
{
    static const int32_t ids[] = { CLS, FIRST, FIRST + 1, FIRST, SEP };
    struct buffer text = { 0 };
    struct fixture x;

    (void)state;
    begin(&x);
    ADD(&x, MARK "she", "ep");
    finish(&x);
    tokenizer_decode(x.t, ids, 5, &text);
    assert_int_equal(text.len, 10);
    assert_memory_equal(text.data, " sheep she", 10);
    buffer_fini(&text);
    end(&x);
}

static uint32_t next_random(uint32_t *seed)
{
    return (*seed = *seed * 1664525u + 1013904223u) >> 16;
}

/* One word of the letters a and b, by comparing with every piece. */
static size_t cut_slowly(char pieces[][12], int n, const char *word, int32_t *want)
{
    char marked[64] = MARK;
    size_t n_ids = 0;

    strcat(marked, word);
    for (size_t at = 0, longest; marked[at]; at += longest) {
        int best = -1;
        longest = 0;
        for (int i = 0; i < n; i++) {
            size_t len = strlen(pieces[i]);
            if (len > longest && !strncmp(marked + at, pieces[i], len)) {
                longest = len;
                best = i;
            }
        }
        if (best < 0) {
            want[0] = UNK;
            return 1;
        }
        want[n_ids++] = FIRST + best;
    }
    return n_ids;
}

static void test_cutting_words_agrees_with_the_slow_way(void **state)
{
    uint32_t seed = 17;

    (void)state;
    for (int round = 0; round < 100; round++) {
        char pieces[20][12], word[13];
        int n = 0;
        struct fixture x;
        begin(&x);
        for (int i = 0; i < 20; i++) {
            bool is_new = true;
            strcpy(pieces[n], i % 2 ? MARK : "");
            for (uint32_t k = next_random(&seed) % 5 + 1; k > 0; k--)
                strcat(pieces[n], next_random(&seed) % 3 ? "a" : "b");
            for (int k = 0; k < n; k++)
                is_new = is_new && strcmp(pieces[k], pieces[n]) != 0;
            if (is_new)
                vocab_file_add(&x.file, pieces[n++], 0, NORMAL);
        }
        finish(&x);
        for (int i = 0; i < 50; i++) {
            int32_t want[20];
            size_t len = 1 + next_random(&seed) % 12;
            for (size_t k = 0; k < len; k++)
                word[k] = next_random(&seed) % 3 ? 'a' : 'b';
            word[len] = 0;
            want[cut_slowly(pieces, n, word, want)] = -1;
            check_ids(&x, word, strlen(word), 0, want);
        }
        end(&x);
    }
}

static void test_fold_tables_are_in_order(void **state)
{
    (void)state;
    for (int i = 1, same = 1; i < n_fold_bases; i++) {
        same = fold_bases[i].code == fold_bases[i - 1].code ? same + 1 : 1;
        assert_true(fold_bases[i].code >= fold_bases[i - 1].code && same <= FOLD_MAX_BASES);
    }
    for (int i = 1; i < n_fold_marks; i++)
        assert_true(fold_marks[i].first > fold_marks[i - 1].last);
    for (int i = 1; i < n_fold_controls; i++)
        assert_true(fold_controls[i].first > fold_controls[i - 1].last);
    for (int i = 1; i < n_fold_lower; i++)
        assert_true(fold_lower[i].first > fold_lower[i - 1].last && fold_lower[i].step);
}

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
static void test_monotonous_text_takes_linear_time(void **state)
{
    static const char *const texts[] = { "a", " ", ACUTE, "\xff", "ab", ".", "\xe7\xbe\x8a", "\xea\xb0\x80",
                                         "a " };
    struct fixture x;
    char runs[65] = "";

    (void)state;
    begin(&x);
    ADD(&x, MARK "a", MARK ".", MARK "b");
    for (size_t n = 0; n < 60; n++) {
        strcat(runs, "a");
        vocab_file_add(&x.file, runs, 0, NORMAL);
    }
    finish(&x);
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        double an_eighth = seconds_for(x.t, texts[i], 1 << 17), whole = seconds_for(x.t, texts[i], 1 << 20);
        if (whole > 24 * an_eighth + 0.2)
            fail_msg("1 MiB of \"%s\" takes %g s, an eighth of it %g s", texts[i], whole, an_eighth);
    }
    end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_become_their_longest_pieces_from_the_left),
        cmocka_unit_test(test_a_word_that_no_pieces_make_up_is_one_unknown_token),
        cmocka_unit_test(test_letters_become_small_and_lose_their_accents),
        cmocka_unit_test(test_hangul_falls_into_its_letters),
        cmocka_unit_test(test_signs_and_chinese_characters_are_words_of_their_own),
        cmocka_unit_test(test_controls_and_broken_bytes_are_left_out),
        cmocka_unit_test(test_texts_stand_between_the_tokens_of_the_file),
        cmocka_unit_test(test_pieces_are_running_text),
        cmocka_unit_test(test_cutting_words_agrees_with_the_slow_way),
        cmocka_unit_test(test_fold_tables_are_in_order),
        cmocka_unit_test(test_monotonous_text_takes_linear_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
