/* Saved sessions, with the scheduler and a real model: a conversation goes on in another life of the worker
 * as if it had been there all the time, and what lies on disk can only be of use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/scheduler.h"

enum { N_CTX = 512, N_SLOTS = 3, N_PROMPT = 150, N_MORE = 20, N_ANSWER = 70 };

static struct model *model;
static struct tokenizer *tokenizer;
static struct byte_order *byte_order;
static char folder[] = "/tmp/woolly-test-sessions-XXXXXX";

/* One life of a worker. */
struct life {
    struct engine *engine;
    struct sessions *sessions;
    struct scheduler *s;
};

struct answer {
    int32_t ids[N_CTX];
    int n;
    uint64_t cached_tokens;
};

static int begin(void **state)
{
    struct error err;
    (void)state;
    if (model_open(&model, MODELS "/woolhill-chat.gguf", &err) != OK ||
        tokenizer_create(&tokenizer, model_gguf(model), &err) != OK)
        fail_msg("%s", err.text);
    byte_order = byte_order_create(tokenizer);
    return mkdtemp(folder) ? 0 : -1;
}

static void empty_folder(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
}

static int end(void **state)
{
    (void)state;
    empty_folder();
    byte_order_destroy(byte_order);
    tokenizer_destroy(tokenizer);
    model_close(model);
    return rmdir(folder);
}

/* The path of the only file in the folder; NULL when there is none. */
static char *only_file(void)
{
    char *path = NULL;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));) {
        if (entry->d_name[0] == '.')
            continue;
        assert_null(path);
        path = xasprintf("%s/%s", folder, entry->d_name);
    }
    closedir(d);
    return path;
}

static struct life life_begin_named(bool has_sessions, const char *model_name)
{
    struct life l = { 0 };
    struct error err;
    const struct engine_options o = { .n_threads = 2,
                                      .n_slots = N_SLOTS + (has_sessions ? SESSIONS_SLOTS : 0),
                                      .n_ctx = N_CTX,
                                      .max_rows = scheduler_rows(N_SLOTS),
                                      .n_pages = 24 };
    if (engine_create(&l.engine, model, &o, &err) != OK)
        fail_msg("%s", err.text);
    if (has_sessions && sessions_create(&l.sessions, engine_cache(l.engine), N_SLOTS,
                                        engine_fingerprint(l.engine), folder, model_name, &err) != OK)
        fail_msg("%s", err.text);
    const struct scheduler_options how = {
        .itl_target_us = 10000, .speculate = SPECULATE_OFF, .byte_order = byte_order, .sessions = l.sessions
    };
    l.s = scheduler_create(l.engine, tokenizer, model_facts(model)->n_vocab, &how);
    return l;
}

static struct life life_begin(bool has_sessions)
{
    return life_begin_named(has_sessions, "m");
}

/* All that is to be written is on disk then. */
static void life_end(struct life *l)
{
    scheduler_destroy(l->s);
    sessions_destroy(l->sessions);
    assert_int_equal(kv_cache_counts(engine_cache(l->engine)).used, 0);
    engine_destroy(l->engine);
}

static void fill(int32_t *tokens, int n, unsigned seed)
{
    srand(seed);
    for (int i = 0; i < n; i++)
        tokens[i] = rand() % tokenizer_n_vocab(tokenizer);
}

static struct generate ask(const int32_t *tokens, int n, const char *session)
{
    struct generate r = { .tokens = { tokens, (uint32_t)n },
                          .max_tokens = N_ANSWER,
                          .n = 1,
                          .top_p = 1,
                          .temperature = 0.8f,
                          .seed = 5,
                          .ignore_end = true };
    if (session)
        r.session = slice_of(session);
    return r;
}

static void run(struct life *l, struct answer *answers)
{
    while (scheduler_has_work(l->s)) {
        struct struct_array items = scheduler_step(l->s);
        for (uint32_t i = 0; i < items.n; i++) {
            const struct step_item *item = (const struct step_item *)items.items + i;
            struct answer *a = &answers[item->job];
            assert_null(item->error_code.data);
            for (uint32_t k = 0; k < item->ids.n && item->choice == 0; k++)
                a->ids[a->n++] = item->ids.ids[k];
            a->cached_tokens += item->cached_tokens;
        }
    }
}

static struct answer get(struct life *l, struct generate request)
{
    struct answer a = { 0 };
    assert_true(scheduler_add(l->s, 0, &request));
    run(l, &a);
    return a;
}

static struct answer get_in_new_life(struct generate request, bool has_sessions)
{
    struct life l = life_begin(has_sessions);
    struct answer a = get(&l, request);
    life_end(&l);
    return a;
}

static void assert_same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
}

/* The first turn of a conversation, and what its second one asks; returns how long the latter is. */
static int converse(int32_t *tokens, const char *session)
{
    fill(tokens, N_PROMPT, 1);
    struct answer first = get_in_new_life(ask(tokens, N_PROMPT, session), true);
    assert_int_equal(first.cached_tokens, 0);
    memcpy(tokens + N_PROMPT, first.ids, (size_t)first.n * sizeof *tokens);
    fill(tokens + N_PROMPT + first.n, N_MORE, 2);
    return N_PROMPT + first.n + N_MORE;
}

static void test_a_conversation_goes_on_in_another_life(void **state)
{
    int32_t tokens[N_CTX];
    (void)state;
    empty_folder();
    int n = converse(tokens, "talk_1");
    struct answer without = get_in_new_life(ask(tokens, n, NULL), false);
    struct answer with = get_in_new_life(ask(tokens, n, "talk_1"), true);
    assert_int_equal(without.cached_tokens, 0);
    assert_int_equal(with.cached_tokens, (N_PROMPT + N_ANSWER - 1) / KV_BLOCK * KV_BLOCK);
    assert_same(&with, &without);
}

static void test_nothing_is_written_or_read_without_a_name(void **state)
{
    int32_t tokens[N_CTX];
    (void)state;
    empty_folder();
    int n = converse(tokens, NULL);
    assert_null(only_file());
    converse(tokens, "talk_1");
    assert_int_equal(get_in_new_life(ask(tokens, n, NULL), true).cached_tokens, 0);
}

static void test_another_name_or_salt_finds_nothing(void **state)
{
    int32_t tokens[N_CTX];
    (void)state;
    empty_folder();
    int n = converse(tokens, "talk_1");
    assert_int_equal(get_in_new_life(ask(tokens, n, "talk_2"), true).cached_tokens, 0);
    struct generate salted = ask(tokens, n, "talk_1");
    salted.cache_salt = slice_of("mine");
    assert_int_equal(get_in_new_life(salted, true).cached_tokens, 0);
    assert_true(get_in_new_life(salted, true).cached_tokens > 0);
}

static void test_a_damaged_file_is_ignored(void **state)
{
    int32_t tokens[N_CTX];
    (void)state;
    empty_folder();
    int n = converse(tokens, "talk_1");
    char *path = only_file();
    assert_non_null(path);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "garbage", 7, 600), 7); /* in the first page */
    close(fd);
    struct answer without = get_in_new_life(ask(tokens, n, NULL), false);
    struct answer with = get_in_new_life(ask(tokens, n, "talk_1"), true);
    assert_int_equal(with.cached_tokens, 0);
    assert_same(&with, &without);
    assert_true(get_in_new_life(ask(tokens, n, "talk_1"), true).cached_tokens > 0); /* written anew */
    free(path);
}

static void test_a_file_that_was_cut_off_is_ignored(void **state)
{
    int32_t tokens[N_CTX];
    (void)state;
    empty_folder();
    int n = converse(tokens, "talk_1");
    char *path = only_file();
    int fd = open(path, O_WRONLY);
    assert_int_equal(ftruncate(fd, 10), 0);
    close(fd);
    assert_int_equal(get_in_new_life(ask(tokens, n, "talk_1"), true).cached_tokens, 0);
    free(path);
}

static void test_a_model_may_have_any_name(void **state)
{
    int32_t tokens[N_CTX];
    (void)state;
    empty_folder();
    fill(tokens, N_PROMPT, 1);
    struct life l = life_begin_named(true, "m/../she ep/\xc3\xa9");
    get(&l, ask(tokens, N_PROMPT, "talk_1"));
    life_end(&l);
    char *path = only_file();
    assert_non_null(strstr(path, "/m_.._she_ep___-"));
    free(path);
}

static void test_what_was_said_before_is_kept_when_pages_are_lost(void **state)
{
    int32_t tokens[N_CTX], others[N_CTX];
    (void)state;
    empty_folder();
    struct life l = life_begin(true);
    fill(tokens, N_PROMPT, 1);
    get(&l, ask(tokens, N_PROMPT, "talk_1"));
    for (unsigned i = 0; i < 12; i++) { /* more than there are pages */
        fill(others, 400, 10 + i);
        get(&l, ask(others, 400, NULL));
    }
    assert_int_equal(get(&l, ask(tokens, N_PROMPT, NULL)).cached_tokens, 0);
    for (unsigned i = 0; i < 12; i++) {
        fill(others, 400, 10 + i);
        get(&l, ask(others, 400, NULL));
    }
    assert_int_equal(get(&l, ask(tokens, N_PROMPT, "talk_1")).cached_tokens, 2 * KV_BLOCK);
    life_end(&l);
}

static void make_file(const char *name, bool is_old)
{
    char *path = xasprintf("%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    const struct timespec times[] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
    assert_true(fd >= 0);
    if (is_old)
        assert_int_equal(futimens(fd, times), 0);
    close(fd);
    free(path);
}

static void test_old_drafts_are_removed_and_nothing_else(void **state)
{
    static const char *const stay[] = { "m-0123456789abcdef.kv", "other-0123456789abcdef.kv.aB3dEf",
                                        "m-x.kv.aB3dEf" };
    (void)state;
    empty_folder();
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        make_file(stay[i], true);
    make_file("m-0123456789abcdef.kv.aB3dEf", true);
    make_file("m-0123456789abcdef.kv.fresh1", false);
    struct life l = life_begin(true);
    life_end(&l);
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        assert_int_equal(faccessat(fd, stay[i], F_OK, 0), 0);
    assert_int_equal(faccessat(fd, "m-0123456789abcdef.kv.fresh1", F_OK, 0), 0);
    assert_int_not_equal(faccessat(fd, "m-0123456789abcdef.kv.aB3dEf", F_OK, 0), 0);
    close(fd);
    empty_folder();
}

static void test_choices_and_cancelled_requests_leave_nothing_behind(void **state)
{
    int32_t tokens[N_CTX];
    struct answer answers[N_SLOTS] = { 0 };
    (void)state;
    empty_folder();
    struct life l = life_begin(true);
    fill(tokens, N_PROMPT, 1);
    struct generate r = ask(tokens, N_PROMPT, "talk_1");
    r.n = 3;
    assert_true(scheduler_add(l.s, 0, &r));
    r = ask(tokens, N_PROMPT, "talk_2");
    assert_true(scheduler_add(l.s, 1, &r));
    r = ask(tokens + 1, N_PROMPT - 1, "talk_3");
    assert_true(scheduler_add(l.s, 2, &r));
    for (int i = 0; i < 3; i++)
        scheduler_step(l.s);
    scheduler_cancel(l.s, 1);
    scheduler_cancel(l.s, 2);
    run(&l, answers);
    life_end(&l); /* which sees that no page is in use */
}

static void test_a_folder_that_cannot_be_used_is_refused(void **state)
{
    struct error err;
    struct sessions *sessions;
    struct life l = life_begin(true);
    (void)state;
    assert_int_not_equal(
        sessions_create(&sessions, engine_cache(l.engine), N_SLOTS, 1, "/dev/null/sessions", "m", &err), OK);
    assert_null(sessions);
    assert_non_null(strstr(err.text, "/dev/null/sessions"));
    life_end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_conversation_goes_on_in_another_life),
        cmocka_unit_test(test_nothing_is_written_or_read_without_a_name),
        cmocka_unit_test(test_another_name_or_salt_finds_nothing),
        cmocka_unit_test(test_a_damaged_file_is_ignored),
        cmocka_unit_test(test_a_file_that_was_cut_off_is_ignored),
        cmocka_unit_test(test_a_model_may_have_any_name),
        cmocka_unit_test(test_what_was_said_before_is_kept_when_pages_are_lost),
        cmocka_unit_test(test_old_drafts_are_removed_and_nothing_else),
        cmocka_unit_test(test_choices_and_cancelled_requests_leave_nothing_behind),
        cmocka_unit_test(test_a_folder_that_cannot_be_used_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
