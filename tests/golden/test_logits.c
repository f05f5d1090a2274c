/* Logits and greedy text against llama.cpp and against a float64 evaluation of the same files, on every
 * instruction set of this CPU.
 *
 * Float files must agree with llama.cpp itself. In quantised files every engine rounds activations its own
 * way, so the measure there is the float64 answer, and the yardstick llama.cpp's own distance from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/kernels/kernels.h"
#include "worker/model/engine.h"

enum { MAX_ROWS = 256 };

/* What to expect of a file. tolerance: the largest difference from llama.cpp of a single logit; 0 for a
 * quantised file, which is measured against float64. The figures are those of the data's README. */
static const struct subject {
    const char *name;
    double tolerance;
} subjects[] = {
    { "stories260K-F32", 5e-5 },
    { "babyllama105-F32", 5e-5 },
    { "stories260K-F16", 0.01 },
    { "stories260K-BF16", 0.08 },
    { "stories260K-pad256-F16", 0.01 },
    { "stories260K-Q8_0", 0 },
    { "stories260K-Q4_0", 0 },
    { "babyllama105-Q8_0", 0 },
    { "babyllama105-Q4_0", 0 },
    { "stories260K-pad256-Q8_0", 0 },
    { "stories260K-pad256-Q4_K_M", 0 },
    { "stories260K-granite-F32", 5e-5 },
    { "stories260K-granite-Q8_0", 0 },
    { "slm4096-F32", 0.012 }, /* llama.cpp rounds GELU to half precision */
    { "slm4096-Q8_0", 0 },
    { "stories-bit1M-F32", 5e-5 },
    { "stories-bit1M-Q8_0", 0 },
};
enum { N_SUBJECTS = sizeof subjects / sizeof *subjects };

/* The other weight types; on the best instruction set only, to keep the test short. */
static const struct subject more_subjects[] = {
    { "stories260K-Q5_1", 0 },          { "stories260K-pad256-Q4_0", 0 },
    { "stories260K-pad256-Q4_1", 0 },   { "stories260K-pad256-Q5_0", 0 },
    { "stories260K-pad256-Q5_1", 0 },   { "stories260K-pad256-Q2_K", 0 },
    { "stories260K-pad256-Q3_K_M", 0 }, { "stories260K-pad256-Q4_K_S", 0 },
    { "stories260K-pad256-Q5_K_M", 0 }, { "stories260K-pad256-Q6_K", 0 },
    { "stories260K-pad256-IQ4_NL", 0 }, { "stories260K-pad256-IQ4_XS", 0 },
};
enum { N_MORE = sizeof more_subjects / sizeof *more_subjects };

/* A file opened with its golden answers. */
struct golden {
    const struct subject *subject;
    struct model *model;
    struct engine *engine;
    json_t *answers;   /* golden/NAME.json */
    json_t *reference; /* golden/NAME.ref64.json */
};

static const char *data_folder(void)
{
    const char *folder = getenv("WOOLLY_TEST_DATA");
    return folder ? folder : "../shared/data";
}

static json_t *load_json(const char *name, const char *suffix)
{
    json_error_t problem;
    char *path = xasprintf("%s/golden/%s%s", data_folder(), name, suffix);
    json_t *j = json_load_file(path, 0, &problem);
    if (!j)
        fail_msg("%s: %s", path, problem.text);
    free(path);
    return j;
}

static void golden_open(struct golden *g, const struct subject *subject)
{
    struct error err;
    char *path = xasprintf("%s/models/%s.gguf", data_folder(), subject->name);
    *g = (struct golden){ .subject = subject };
    if (model_open(&g->model, path, &err) != OK)
        fail_msg("%s", err.text);
    struct engine_options o = { .n_threads = 2,
                                .n_slots = 1,
                                .n_ctx = model_facts(g->model)->n_ctx_train,
                                .max_rows = MAX_ROWS,
                                .kv_type = KV_F32 };
    if (engine_create(&g->engine, g->model, &o, &err) != OK)
        fail_msg("%s", err.text);
    g->answers = load_json(subject->name, ".json");
    g->reference = load_json(subject->name, ".ref64.json");
    free(path);
}

static void golden_close(struct golden *g)
{
    json_decref(g->answers);
    json_decref(g->reference);
    engine_destroy(g->engine);
    model_close(g->model);
}

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* Logits of every position, [n][n_vocab]; the caller frees. */
static float *run_tokens(struct golden *g, const int32_t *ids, int n)
{
    size_t n_vocab = (size_t)model_facts(g->model)->n_vocab;
    float *all = xcalloc((size_t)n * n_vocab, sizeof *all);
    struct row rows[MAX_ROWS];
    for (int start = 0; start < n; start += MAX_ROWS) {
        int count = n - start < MAX_ROWS ? n - start : MAX_ROWS;
        for (int i = 0; i < count; i++)
            rows[i] = (struct row){ .token = ids[start + i], .pos = start + i, .want_logits = true };
        engine_step(g->engine, rows, count);
        memcpy(all + (size_t)start * n_vocab, engine_logits(g->engine, 0),
               (size_t)count * n_vocab * sizeof *all);
    }
    return all;
}

struct difference {
    double rms, largest;
};

static struct difference compare(const float *ours, const char *name, const char *suffix, long offset,
                                 size_t count)
{
    struct difference d = { 0, 0 };
    char *path = xasprintf("%s/golden/%s%s", data_folder(), name, suffix);
    float *theirs = xcalloc(count, sizeof *theirs);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, offset, SEEK_SET), 0);
    assert_int_equal(fread(theirs, sizeof *theirs, count, f), count);
    fclose(f);
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)ours[i] - theirs[i]);
        /* In this form a NaN is the largest. */
        if (!(error <= d.largest))
            d.largest = error;
        d.rms += error * error;
    }
    d.rms = sqrt(d.rms / (double)count);
    free(theirs);
    free(path);
    return d;
}

static int read_ids(const json_t *array, int32_t *ids, int most)
{
    int n = (int)json_array_size(array);
    assert_true(n <= most);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return n;
}

static void check_prompt(struct golden *g, const json_t *logits, const json_t *reference)
{
    const char *name = g->subject->name;
    int32_t ids[512];
    int n = read_ids(json_object_get(logits, "ids"), ids, 512);
    long offset = (long)number_of(logits, "offset");
    size_t count = (size_t)n * (size_t)model_facts(g->model)->n_vocab;
    float *ours = run_tokens(g, ids, n);
    struct difference from_peer = compare(ours, name, ".logits.f32", offset, count);
    struct difference from_exact = compare(ours, name, ".ref64.f32", offset, count);
    double yardstick = number_of(reference, "rms_diff");

    if (g->subject->tolerance > 0) {
        if (!(from_peer.largest <= g->subject->tolerance))
            fail_msg("%s %s: a logit is %g from llama.cpp, allowed %g", name, engine_isa(g->engine),
                     from_peer.largest, g->subject->tolerance);
        if (!(from_exact.largest <= 5e-5))
            fail_msg("%s %s: a logit is %g from float64", name, engine_isa(g->engine), from_exact.largest);
        /* Half of llama.cpp's distance, or what single precision leaves. */
        if (!(from_exact.rms <= fmax(yardstick / 2, 1e-5)))
            fail_msg("%s %s: %g rms from float64, llama.cpp has %g", name, engine_isa(g->engine),
                     from_exact.rms, yardstick);
    } else if (!(from_exact.rms <= yardstick)) {
        fail_msg("%s %s: %g rms from float64, llama.cpp has %g", name, engine_isa(g->engine), from_exact.rms,
                 yardstick);
    }
    print_message("%-24s %-6s prompt %2.0f: rms from float64 %.2e (llama.cpp %.2e)\n", name,
                  engine_isa(g->engine), number_of(logits, "prompt"), from_exact.rms, yardstick);
    free(ours);
}

/* The largest distance of llama.cpp's logits from the exact ones. */
static double peer_error(const struct golden *g)
{
    double largest = 0;
    size_t i;
    json_t *prompt;
    json_array_foreach(json_object_get(g->reference, "logits"), i, prompt) largest =
        fmax(largest, number_of(prompt, "max_abs_diff"));
    return largest;
}

/* Every step is asked with the text llama.cpp chose before it, so one forgiven near-tie does not hide the
 * rest. A different token is forgiven where the winner's margin is below what two logits may differ by. */
static void check_greedy(struct golden *g, const json_t *greedy)
{
    int32_t ids[1024];
    int n_prompt = read_ids(json_object_get(greedy, "prompt_ids"), ids, 512);
    int n = read_ids(json_object_get(greedy, "ids"), ids + n_prompt, 512);
    int n_vocab = model_facts(g->model)->n_vocab, n_forgiven = 0;
    double logit_error = g->subject->tolerance > 0 ? g->subject->tolerance : peer_error(g) + 0.002;
    float *logits = run_tokens(g, ids, n_prompt + n - 1);
    for (int i = 0; i < n; i++) {
        const float *here = logits + (size_t)(n_prompt - 1 + i) * (size_t)n_vocab;
        int best = 0;
        for (int j = 1; j < n_vocab; j++)
            best = here[j] > here[best] ? j : best;
        if (best == ids[n_prompt + i])
            continue;
        double gap = json_number_value(json_array_get(json_object_get(greedy, "top1_gap"), (size_t)i));
        if (!(gap <= 2 * logit_error))
            fail_msg("%s %s: greedy step %d gives %d, llama.cpp %d with a margin of %g", g->subject->name,
                     engine_isa(g->engine), i, best, ids[n_prompt + i], gap);
        n_forgiven++;
    }
    assert_true(n_forgiven <= n / 10);
    free(logits);
}

static void check_logits_of(struct golden *g)
{
    size_t i;
    json_t *prompt;
    assert_true(json_array_size(json_object_get(g->answers, "logits")) > 0);
    json_array_foreach(json_object_get(g->answers, "logits"), i, prompt)
        check_prompt(g, prompt, json_array_get(json_object_get(g->reference, "logits"), i));
}

static void check_greedy_of(struct golden *g)
{
    size_t i;
    json_t *greedy;
    assert_true(json_array_size(json_object_get(g->answers, "greedy")) > 0);
    json_array_foreach(json_object_get(g->answers, "greedy"), i, greedy) check_greedy(g, greedy);
}

static void check_subject(const struct subject *subject, void (*check)(struct golden *g))
{
    struct golden g;
    golden_open(&g, subject);
    check(&g);
    golden_close(&g);
}

static void for_all(void (*check)(struct golden *g))
{
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_is_available(isa)) {
            print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
            continue;
        }
        setenv("WOOLLY_ISA", isa_name(isa), 1);
        for (int s = 0; s < N_SUBJECTS; s++)
            check_subject(&subjects[s], check);
    }
    unsetenv("WOOLLY_ISA");
    for (int s = 0; s < N_MORE; s++)
        check_subject(&more_subjects[s], check);
}

static void test_logits_agree_with_the_references(void **state)
{
    (void)state;
    for_all(check_logits_of);
}

static void test_greedy_text_is_the_reference_text_but_for_near_ties(void **state)
{
    (void)state;
    for_all(check_greedy_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_agree_with_the_references),
        cmocka_unit_test(test_greedy_text_is_the_reference_text_but_for_near_ties),
    };
    if (access(data_folder(), R_OK)) {
        printf("NOT RUN: no test data at %s\n", data_folder());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
