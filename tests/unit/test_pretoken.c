/* The rules that cut text before byte-level merging, each by its name in the file: what is expected was
 * worked out from the regular expressions that the rules stand for. */
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
#include "worker/token/pretoken.h"

#define ACUTE      "\xcc\x81"     /* a combining mark */
#define E_ACUTE    "\xc3\xa9"     /* é */
#define CAPITAL_E  "\xc3\x89"     /* É */
#define HAN        "\xe4\xb8\xad" /* a Chinese character */
#define KANA       "\xe3\x81\x8b" /* a Japanese one */
#define ARABIC_3   "\xd9\xa3"     /* a digit */
#define WIDE_SPACE "\xe3\x80\x80" /* U+3000 */

static const struct pretoken_rule *rule_of(const char *name)
{
    const struct pretoken_rule *rule = pretoken_find((struct gguf_string){ name, strlen(name) });

    if (!rule)
        fail_msg("there is no rule %s", name);
    return rule;
}

/* Cuts the text that the expected stretches make together. */
static void check_cut(const char *name, const char *const *want)
{
    char text[512] = "";
    struct pretoken_cut cut;
    size_t start, end, n = 0;

    for (int i = 0; want[i]; i++)
        strcat(text, want[i]);
    pretoken_begin(&cut, rule_of(name), text, strlen(text));
    for (; pretoken_next(&cut, &start, &end); n++) {
        if (!want[n] || strlen(want[n]) != end - start || memcmp(want[n], text + start, end - start) != 0)
            fail_msg("%s cuts \"%s\" at %zu to \"%.*s\"", name, text, start, (int)(end - start),
                     text + start);
    }
    assert_null(want[n]);
}

#define CUT(name, ...) check_cut(name, (const char *const[]){ __VA_ARGS__, NULL })

static void test_gpt2_takes_one_space_along_and_leaves_one_to_the_next_word(void **state)
{
    (void)state;
    CUT("gpt-2", "Hello", ",", " world", "!", " 123", "a");
    CUT("gpt-2", "don", "'t", " we", "'ll", " I", "'", "M", " '", "s");
    CUT("gpt-2", "a", "   ", " b", "\n\n", "\n", "c", "   ");
    CUT("gpt-2", " ", "\t", "x", "\r\n");
    CUT("gpt-2", HAN KANA, " " E_ACUTE "x", ACUTE, "7" ARABIC_3, "!" ACUTE "\x01");
    CUT("gpt-2", WIDE_SPACE, "a", WIDE_SPACE " ", " a");
    CUT("mpt", "a", " 1234");
    CUT("olmo", "a", " 1234");
}

static void test_starcoder_and_its_kin_cut_digits_one_by_one_first(void **state)
{
    (void)state;
    CUT("starcoder", "a", "   ", "1", "2", ARABIC_3, " b", "'s");
    CUT("refact", "x", "1", ".", "5");
    CUT("smollm", "x", " ", "1", "5");
    CUT("command-r", "x", " ", "1", "5");
}

static void test_falcon_and_default_take_signs_apart(void **state)
{
    (void)state;
    CUT("falcon", "a", " ", "-", "b", "$+", " c", "'", "s", "`");
    CUT("falcon", "123", "45", " ", "123", "4");
    CUT("default", "a", " ", "123", "45", "`");
    CUT("default", "a", " ", "123", ARABIC_3, "-");
}

static void test_llama3_takes_three_digits_and_one_sign_before_a_word(void **state)
{
    (void)state;
    CUT("llama-bpe", "He", "'S", " (", "it", "'Ll", " ", "123", "456", "7");
    CUT("llama-bpe", "(a", " b", "123", "4", " ", "5", "!!\n\n", "x");
    CUT("llama-bpe", "a", "  \n \n", "   ", " b", "  ");
    CUT("llama-bpe", "\tx", "\xc2\xa0y", "\r\n", "z", ACUTE "z", "!" ACUTE "\n");
    CUT("dbrx", "a", " ", "123", "4");
    CUT("glm4", "a", " ", "123", "4");
}

static void test_qwen2_takes_single_digits(void **state)
{
    (void)state;
    CUT("qwen2", "a", " ", "1", "2", "3", " =", " b", "'RE", ";\n", "'x");
    CUT("stablelm2", "a", "1", "2");
    CUT("seed-coder", "a", ";", "\n", "1", "2");
    CUT("minicpm5", "a", "  ", "123", "4", " b");
    CUT("qwen35", "a" ACUTE "b", " " ACUTE, "1", "!" ACUTE, "!!", ACUTE);
}

static void test_tekken_ends_words_where_capitals_begin(void **state)
{
    (void)state;
    CUT("tekken", "camel", "Case", "HTTPServer", " ABC");
    CUT("tekken", "Hello", "'s", " a", "//\n", "1", "2", "!!//\n");
    /* Other letters count as small and as capital. */
    CUT("tekken", CAPITAL_E, "COLE", " caf" E_ACUTE, "X");
    CUT("tekken", "AB" CAPITAL_E, "CD", ACUTE);
}

static void test_gpt4o_keeps_contractions_with_their_word(void **state)
{
    (void)state;
    CUT("gpt-4o", "don't", " WE'LL", " I'm", "Fine", " '");
    CUT("gpt-4o", "'s", "'", " ", "123");
    CUT("gpt-4o", "a", " ", "123", "4", "?/\n/", " x");
}

static void test_deepseek_llm_cuts_by_script(void **state)
{
    (void)state;
    CUT("deepseek-llm", "a", "\n", "\r", " b", E_ACUTE, " !", "\t,");
    CUT("deepseek-llm", HAN KANA, "123" ARABIC_3, " ", HAN);
    CUT("deepseek-llm", HAN, "   ");
    CUT("deepseek-llm", CAPITAL_E, "t", "!", "   ", " x");
}

static void test_deepseek_coder_cuts_single_digits_and_signs(void **state)
{
    (void)state;
    CUT("deepseek-coder", "int", " x", " = ", "1", "2", ";", "\n", " (", "y", ")");
}

static void test_deepseek_v3_takes_a_sign_with_a_word_and_marks_with_letters(void **state)
{
    (void)state;
    CUT("deepseek-v3", "a", " b" ACUTE "c", "_d", " _", "e", "123", "4", HAN KANA, "!!\n", " (");
    CUT("deepseek-v3", "\x01", "\002a", " ", "1", "\x01\x02");
}

static void test_bloom_cuts_at_sentence_signs(void **state)
{
    (void)state;
    CUT("bloom", "Hi1", ",", " you-2", "! (", "a", ").");
    CUT("bloom", "a", " ", " b", "\n\n", "c");
    CUT("viking", "Hi", "1", "2", " ", "3");
}

static void test_spark_cuts_line_ends_one_by_one(void **state)
{
    (void)state;
    CUT("spark2_5", "a", " b", "1", "2", "3", "!!", "\n", "\n", "_c", HAN KANA, "  ", " d");
}

static void test_digits_are_grouped_from_the_right(void **state)
{
    (void)state;
    CUT("afmoe", "a", "1", "234", "567", " ", "12", "!", "345", "x", HAN KANA, " " E_ACUTE);
    CUT("superbpe", "any words, at all ", "12", "345", ".", "678", "\n");
    CUT("tiny_aya", "a", " ", "1", "234", ".", "567", " x");
    /* Inside a word they are not. */
    CUT("tiny_aya", "123", "4", "a", "1", "234", " ", " ", "567", "8", "_", "9");
    CUT("cohere2moe", "12", "345");
}

static void test_tiny_aya_and_youtu_keep_marks_and_contractions_with_a_word(void **state)
{
    (void)state;
    CUT("tiny_aya", "camelCase", " don't", " a" ACUTE "b", "!!/\n", ACUTE "'s", " '");
    CUT("youtu", "don't", " ", "1", "2", HAN KANA, "\xe3\x80\x81\xef\xbc\x81", "\xea\xb0\x80", "x" ACUTE,
        "/");
}

static void test_granite_embedding_ends_words_where_capitals_begin_and_keeps_marks(void **state)
{
    (void)state;
    CUT("granite-embed-multi-97m", "camel", "Case", "HTTPServer's", " e" ACUTE "a", "A" ACUTE, "B", " ",
        "123", "4");
    CUT("granite-embed-multi-97m", ACUTE "a", " " ACUTE, "AB", "?/\n", ACUTE "B" ACUTE, "B");
}

static void test_kimi_keeps_chinese_apart_from_words(void **state)
{
    (void)state;
    CUT("kimi-k2", "don't", HAN HAN, KANA "x", " (", HAN, " ", " ", HAN, "123", "4", "!\n", "a", ACUTE);
}

static void test_exaone_moe_keeps_words_with_single_spaces_together(void **state)
{
    (void)state;
    CUT("exaone-moe", "Hello to the" ACUTE " world", "'s", " a", " ", " b c", " ", "1", "2", "!!\n", "\n",
        "(a b", " ?//");
    CUT("exaone-moe", E_ACUTE, "  ");
}

static void test_laguna_cuts_at_line_feeds_first(void **state)
{
    (void)state;
    CUT("laguna", "a", " b", ";", "\n\n", "  ", " c", "1", "2", "\r", "\n");
}

static void test_ufakzeka_knows_no_contractions(void **state)
{
    (void)state;
    CUT("ufakzeka", "Ali", "'nin", " ", "1", "2", ";\n", "x");
}

static void test_jais_2_cuts_white_space_into_powers_of_two(void **state)
{
    (void)state;
    CUT("jais-2", "a", "    ", "  ", " b", "  \n", "  ", " ", "123", "4", " ");
    CUT("jais-2", "                ", "        ", " ");
}

static void test_chameleon_takes_image_tokens_and_single_signs(void **state)
{
    (void)state;
    CUT("chameleon", "<", "sentinel", ":", "1", "2", ">", "x", "IMGIMGABZ", "IMGIMGABCDEZ", "\t", "    ",
        "  ", " b", "1", "!", "!", " c");
}

static void test_unknown_names_have_no_rule(void **state)
{
    static const char *const names[] = { "", " ", "gpt", "gpt-2 ", "gpt-2 phi-2", "llama-bp", "qwen22" };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        assert_null(pretoken_find((struct gguf_string){ names[i], strlen(names[i]) }));
}

/* Half a million of the same few bytes, an unlike end: quadratic time would take minutes of the
 * processor. */
static void test_monotonous_text_takes_linear_time(void **state)
{
    static const char *const names[] = {
        "default",      "gpt-2",          "starcoder",
        "falcon",       "llama-bpe",      "qwen2",
        "qwen35",       "tekken",         "gpt-4o",
        "deepseek-llm", "deepseek-coder", "deepseek-v3",
        "bloom",        "viking",         "minicpm5",
        "spark2_5",     "afmoe",          "superbpe",
        "tiny_aya",     "youtu",          "granite-embed-multi-97m",
        "kimi-k2",      "exaone-moe",     "laguna",
        "ufakzeka",     "jais-2",         "chameleon",
    };
    static const char *const units[] = {
        "a", "A",  " ",        "\n", "\n ",         "7",  ACUTE, "!",       "'",  E_ACUTE, "\x01",
        HAN, "\t", WIDE_SPACE, " 7", CAPITAL_E "A", "7a", "IMG", ACUTE "A", "a ", "7",
    };
    enum { BYTES = 1 << 19 };
    char *text = xmalloc(BYTES + 16);

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        clock_t slowest = 0;
        for (size_t u = 0; u < sizeof(units) / sizeof(*units); u++) {
            size_t len = 0, start = 0, end = 0, sum = 0;
            for (; len < BYTES; len += strlen(units[u]))
                memcpy(text + len, units[u], strlen(units[u]));
            text[len++] = u % 2 ? '7' : 'x';
            clock_t begin = clock();
            struct pretoken_cut cut;
            pretoken_begin(&cut, rule_of(names[i]), text, len);
            while (pretoken_next(&cut, &start, &end))
                sum += end - start;
            assert_int_equal(sum, len);
            clock_t took = clock() - begin;
            slowest = took > slowest ? took : slowest;
        }
        print_message("%s: at most %lld ms\n", names[i], (long long)(slowest * 1000 / CLOCKS_PER_SEC));
        assert_true(slowest < 5 * CLOCKS_PER_SEC);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2_takes_one_space_along_and_leaves_one_to_the_next_word),
        cmocka_unit_test(test_starcoder_and_its_kin_cut_digits_one_by_one_first),
        cmocka_unit_test(test_falcon_and_default_take_signs_apart),
        cmocka_unit_test(test_llama3_takes_three_digits_and_one_sign_before_a_word),
        cmocka_unit_test(test_qwen2_takes_single_digits),
        cmocka_unit_test(test_tekken_ends_words_where_capitals_begin),
        cmocka_unit_test(test_gpt4o_keeps_contractions_with_their_word),
        cmocka_unit_test(test_deepseek_llm_cuts_by_script),
        cmocka_unit_test(test_deepseek_coder_cuts_single_digits_and_signs),
        cmocka_unit_test(test_deepseek_v3_takes_a_sign_with_a_word_and_marks_with_letters),
        cmocka_unit_test(test_bloom_cuts_at_sentence_signs),
        cmocka_unit_test(test_spark_cuts_line_ends_one_by_one),
        cmocka_unit_test(test_digits_are_grouped_from_the_right),
        cmocka_unit_test(test_tiny_aya_and_youtu_keep_marks_and_contractions_with_a_word),
        cmocka_unit_test(test_granite_embedding_ends_words_where_capitals_begin_and_keeps_marks),
        cmocka_unit_test(test_kimi_keeps_chinese_apart_from_words),
        cmocka_unit_test(test_exaone_moe_keeps_words_with_single_spaces_together),
        cmocka_unit_test(test_laguna_cuts_at_line_feeds_first),
        cmocka_unit_test(test_ufakzeka_knows_no_contractions),
        cmocka_unit_test(test_jais_2_cuts_white_space_into_powers_of_two),
        cmocka_unit_test(test_chameleon_takes_image_tokens_and_single_signs),
        cmocka_unit_test(test_unknown_names_have_no_rule),
        cmocka_unit_test(test_monotonous_text_takes_linear_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
