/* woolly-bench without measuring: statistics, lists, what peers print, running programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/child.h"
#include "bench/peer.h"
#include "bench/stats.h"
#include "common/numbers.h"

static struct samples samples_of(size_t n, const double *values)
{
    struct samples s = { 0 };
    for (size_t i = 0; i < n; i++)
        samples_add(&s, values[i]);
    return s;
}

#define SAMPLES(...)                                                                                         \
    samples_of(sizeof(double[]){ __VA_ARGS__ } / sizeof(double), (const double[]){ __VA_ARGS__ })

static void check_summary(struct samples s, double median, double q1, double q3, double min, double max)
{
    struct summary x = samples_summary(&s);
    assert_true(x.n == s.n && x.median == median && x.q1 == q1 && x.q3 == q3 && x.min == min && x.max == max);
    samples_fini(&s);
}

static void test_median_and_quartiles_do_not_depend_on_the_order(void **state)
{
    (void)state;
    check_summary(SAMPLES(7), 7, 7, 7, 7, 7);
    check_summary(SAMPLES(4, 2), 3, 2.5, 3.5, 2, 4);
    check_summary(SAMPLES(9, 1, 5), 5, 3, 7, 1, 9);
    check_summary(SAMPLES(50, 10, 40, 20, 30), 30, 20, 40, 10, 50);
    check_summary(SAMPLES(1, 2, 3, 1000), 2.5, 1.75, 252.25, 1, 1000);
}

static void test_no_samples_have_an_empty_summary(void **state)
{
    (void)state;
    check_summary((struct samples){ 0 }, 0, 0, 0, 0, 0);
}

static void test_ratios_are_of_samples_taken_in_the_same_round(void **state)
{
    (void)state;
    struct samples a = SAMPLES(10, 30, 8), b = SAMPLES(5, 10), ratio = samples_ratio(&a, &b);
    assert_int_equal(ratio.n, 2);
    assert_true(ratio.values[0] == 2 && ratio.values[1] == 3);
    samples_fini(&a);
    samples_fini(&b);
    samples_fini(&ratio);
}

static void test_list_of_numbers_is_taken_as_it_stands(void **state)
{
    (void)state;
    struct numbers list;
    assert_true(numbers_parse("1,8,32", 1, 32, &list));
    assert_int_equal(list.n, 3);
    assert_int_equal(numbers_largest(&list), 32);
    char *text = numbers_print(&list);
    assert_string_equal(text, "1,8,32");
    free(text);
}

static void test_what_is_no_list_of_numbers_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",   ",",    "1,",  ",1", "1,,2", "1 ", " 1",  "+1",
        "-1", "0x10", "1.5", "x",  "0",    "33", "1;2", "99999999999999999999"
    };
    struct numbers list;
    char many[200] = "1";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(numbers_parse(bad[i], 1, 32, &list));
    for (int i = 0; i < NUMBERS_MAX; i++)
        strcat(many, ",1");
    assert_false(numbers_parse(many, 1, 32, &list));
}

/* Figures go to the trial they are of, and only the figure asked for. */
static void check_rate(const struct samples *s, double rate)
{
    assert_int_equal(s->n, rate ? 1 : 0);
    if (rate)
        assert_true(s->values[0] == rate);
}

static void trials_fini(struct trial *t, int n)
{
    for (int i = 0; i < n; i++) {
        samples_fini(&t[i].prefill_rate[PEER]);
        samples_fini(&t[i].decode_rate[PEER]);
    }
}

static void test_figures_of_llama_bench_reach_their_trials(void **state)
{
    (void)state;
    struct trial t[] = { { .prompt = 512 }, { .prompt = 64 }, { .decode = 64 } };
    peer_take_json("a line before\n[\n {\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": 404.25},\n"
                   " {\"n_prompt\": 0, \"n_gen\": 64, \"n_depth\": 0, \"avg_ts\": 64.5},\n"
                   " {\"n_prompt\": 0, \"n_gen\": 128, \"avg_ts\": 1}]\nand one behind",
                   t, 3);
    check_rate(&t[0].prefill_rate[PEER], 404.25);
    check_rate(&t[1].prefill_rate[PEER], 0);
    check_rate(&t[2].decode_rate[PEER], 64.5);
    trials_fini(t, 3);
}

static void test_depth_is_a_field_or_a_prompt_before_the_decoding(void **state)
{
    (void)state;
    struct trial by_field[] = { { .depth = 4096, .prompt = 512 }, { .depth = 4096, .decode = 64 } };
    peer_take_json("[{\"n_prompt\": 512, \"n_gen\": 0, \"n_depth\": 4096, \"avg_ts\": 100},"
                   " {\"n_prompt\": 512, \"n_gen\": 0, \"n_depth\": 0, \"avg_ts\": 200}]",
                   by_field, 2);
    check_rate(&by_field[0].prefill_rate[PEER], 100);
    check_rate(&by_field[1].decode_rate[PEER], 0);
    trials_fini(by_field, 2);

    struct trial by_prompt[] = { { .depth = 4096, .decode = 64 }, { .decode = 64 } };
    peer_take_json("[{\"n_prompt\": 4096, \"n_gen\": 64, \"avg_ts\": 26.5}]", by_prompt, 2);
    check_rate(&by_prompt[0].decode_rate[PEER], 26.5);
    check_rate(&by_prompt[1].decode_rate[PEER], 0);
    trials_fini(by_prompt, 2);
}

static void test_table_of_llama_batched_bench_is_read_by_row(void **state)
{
    (void)state;
    struct trial t[] = { { .sequences = 1, .prompt = 128, .decode = 32 },
                         { .sequences = 8, .prompt = 128, .decode = 32 } };
    peer_take_table(
        "main: n_kv_max = 8192\n\n"
        "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |"
        "    S t/s |\n"
        "|-------|--------|------|--------|----------|----------|----------|----------|----------|"
        "----------|\n"
        "|   128 |     32 |    1 |    160 |    0.600 |   213.33 |    0.500 |    64.00 |    1.100 |"
        "   145.45 |\n"
        "|   128 |     32 |    8 |   1280 |    4.632 |   221.07 |    2.535 |   101.00 |    7.167 |"
        "   178.60 |\n",
        t, 2);
    check_rate(&t[0].prefill_rate[PEER], 213.33);
    check_rate(&t[0].decode_rate[PEER], 64);
    check_rate(&t[1].prefill_rate[PEER], 221.07);
    check_rate(&t[1].decode_rate[PEER], 101);
    trials_fini(t, 2);
}

static void test_output_that_makes_no_sense_gives_no_figures(void **state)
{
    (void)state;
    static const char *const texts[] = { "",
                                         "[",
                                         "[{]",
                                         "{}",
                                         "[1, \"x\", null, [], {}]",
                                         "[{\"n_prompt\": \"512\", \"avg_ts\": []}]",
                                         "[{\"n_prompt\": 512, \"n_gen\": 0, \"avg_ts\": -5}]",
                                         "|",
                                         "|||||||||||",
                                         "|512|0|0|0|0|0|0|",
                                         "| 512 | 0 | 1 | 512 | x | 1 | 1 | 1 |" };
    struct trial t = { .prompt = 512, .sequences = 1 };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        peer_take_json(texts[i], &t, 1);
        peer_take_table(texts[i], &t, 1);
    }
    check_rate(&t.prefill_rate[PEER], 0);
    check_rate(&t.decode_rate[PEER], 0);
}

struct run {
    enum status s;
    int exit_status;
    struct buffer output, complaints;
    struct error err;
};

static struct run run_shell(const char *script)
{
    struct run r = { 0 };
    struct command c = { 0 };
    command_add_words(&c, "/bin/sh  -c ");
    command_add(&c, "%s", script);
    assert_int_equal(c.n, 3);
    r.s = child_run(&c, &r.output, &r.complaints, &r.exit_status, &r.err);
    command_fini(&c);
    return r;
}

static void run_fini(struct run *r)
{
    buffer_fini(&r->output);
    buffer_fini(&r->complaints);
}

static void test_program_gives_its_output_and_its_complaints(void **state)
{
    (void)state;
    struct run r = run_shell("echo out; echo complaint >&2");
    assert_int_equal(r.s, OK);
    assert_int_equal(r.exit_status, 0);
    assert_string_equal(r.output.data, "out\n");
    assert_string_equal(r.complaints.data, "complaint\n");
    run_fini(&r);
}

static void test_failing_program_is_quoted_with_its_last_line(void **state)
{
    (void)state;
    struct run r = run_shell("echo first >&2; printf 'no \\033 memory\\n\\n' >&2; exit 3");
    assert_int_equal(r.s, E_IO);
    assert_non_null(strstr(r.err.text, "exit status 3"));
    assert_non_null(strstr(r.err.text, "no ? memory"));
    assert_null(strstr(r.err.text, "first"));
    run_fini(&r);

    r = run_shell("kill -9 $$");
    assert_int_equal(r.s, E_IO);
    assert_non_null(strstr(r.err.text, "signal 9"));
    run_fini(&r);
}

static void test_missing_program_is_said_to_be_missing(void **state)
{
    (void)state;
    struct command c = { 0 };
    struct buffer output = { 0 };
    struct error err;
    int status;
    command_add(&c, "/no/such/program");
    assert_int_equal(child_run(&c, &output, NULL, &status, &err), E_NOTFOUND);
    assert_non_null(strstr(err.text, "/no/such/program"));
    command_fini(&c);
    buffer_fini(&output);
}

static void test_endless_output_is_cut_off(void **state)
{
    (void)state;
    struct run r = run_shell("exec yes");
    assert_int_equal(r.s, E_LIMIT);
    run_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median_and_quartiles_do_not_depend_on_the_order),
        cmocka_unit_test(test_no_samples_have_an_empty_summary),
        cmocka_unit_test(test_ratios_are_of_samples_taken_in_the_same_round),
        cmocka_unit_test(test_list_of_numbers_is_taken_as_it_stands),
        cmocka_unit_test(test_what_is_no_list_of_numbers_is_refused),
        cmocka_unit_test(test_figures_of_llama_bench_reach_their_trials),
        cmocka_unit_test(test_depth_is_a_field_or_a_prompt_before_the_decoding),
        cmocka_unit_test(test_table_of_llama_batched_bench_is_read_by_row),
        cmocka_unit_test(test_output_that_makes_no_sense_gives_no_figures),
        cmocka_unit_test(test_program_gives_its_output_and_its_complaints),
        cmocka_unit_test(test_failing_program_is_quoted_with_its_last_line),
        cmocka_unit_test(test_missing_program_is_said_to_be_missing),
        cmocka_unit_test(test_endless_output_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
