/* Packed weights kept in a file: the next start maps them and gives the same logits; a file that is not what
 * it should be is refused and written anew; and no trouble with the folder keeps a model from opening. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/model/engine.h"

enum { N_VOCAB = 331, N_TOKENS = 5, MAX_STEPS = 4 };

/* Where things are; each test begins with an empty cache. */
static char folder[] = "/tmp/woolly-test-cache-XXXXXX";
static char *model_path, *other_path, *cache;

static int make_model(const char *path, int seed)
{
    char *command =
        xasprintf("'%s' --out '%s' --layers 2 --embd 256 --heads 4 --kv-heads 2 --ff 512 --vocab %d "
                  "--ctx 64 --type Q4_K --seed %d >/dev/null",
                  MAKE_GGUF, path, N_VOCAB, seed);
    int code = system(command);
    free(command);
    return code;
}

/* Removes what a folder holds, and the folder. */
static void empty(const char *path)
{
    char *command = xasprintf("rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
    free(command);
}

static int make_all(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    model_path = xasprintf("%s/model.gguf", folder);
    other_path = xasprintf("%s/other.gguf", folder);
    cache = xasprintf("%s/cache", folder);
    return make_model(model_path, 1) || make_model(other_path, 2);
}

static int remove_all(void **state)
{
    (void)state;
    empty(folder);
    free(model_path);
    free(other_path);
    free(cache);
    return 0;
}

static int empty_cache(void **state)
{
    (void)state;
    empty(cache);
    return 0;
}

/* --- a start --- */

struct start {
    float logits[N_VOCAB];
    int n_steps;
    char steps[MAX_STEPS][40]; /* that were begun */
};

static void note_step(void *context, const char *step, uint64_t done, uint64_t total)
{
    struct start *s = context;
    assert_true(done <= total);
    if (done == 0) {
        assert_true(s->n_steps < MAX_STEPS);
        snprintf(s->steps[s->n_steps++], sizeof s->steps[0], "%s", step);
    }
}

static bool never(void)
{
    return false;
}

static void start(struct start *s, const char *path, const char *cache_folder)
{
    struct model_options with = { cache_folder, note_step, s };
    struct engine_options o = {
        .n_threads = 1, .n_slots = 1, .n_ctx = 64, .max_rows = 64, .kv_type = KV_F32
    };
    struct model *m;
    struct engine *e;
    struct error err;
    *s = (struct start){ 0 };
    if (model_open_with(&m, path, &with, &err) != OK || engine_create(&e, m, &o, &err) != OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < N_TOKENS; i++)
        engine_step(e, &(struct row){ .token = 3 + 7 * i, .pos = i, .want_logits = true }, 1);
    if (model_wants_cache(m))
        model_write_cache(m, &with, never);
    memcpy(s->logits, engine_logits(e, 0), sizeof s->logits);
    engine_destroy(e);
    model_close(m);
}

static bool has_step(const struct start *s, const char *word)
{
    for (int i = 0; i < s->n_steps; i++)
        if (strstr(s->steps[i], word))
            return true;
    return false;
}

static void assert_same_logits(const struct start *s, const char *path)
{
    struct start plain;
    start(&plain, path, NULL);
    assert_memory_equal(s->logits, plain.logits, sizeof plain.logits);
}

/* A start that packs and writes, whatever it found, and one after it that maps. */
static void assert_written_anew(const char *path)
{
    struct start s;
    start(&s, path, cache);
    assert_true(has_step(&s, "packing") && has_step(&s, "writing"));
    assert_same_logits(&s, path);
    start(&s, path, cache);
    assert_int_equal(s.n_steps, 1);
    assert_true(has_step(&s, "reading"));
    assert_same_logits(&s, path);
}

/* --- the cache's files --- */

/* The only one; *n is how many there are. */
static char *cache_file(int *n)
{
    char *found = NULL;
    DIR *d = opendir(cache);
    *n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            free(found);
            found = xasprintf("%s/%s", cache, e->d_name);
            ++*n;
        }
    if (d)
        closedir(d);
    return found;
}

static char *made_file(void)
{
    struct start s;
    int n;
    start(&s, model_path, cache);
    char *file = cache_file(&n);
    assert_int_equal(n, 1);
    return file;
}

static void flip(const char *path, off_t at)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 4;
    assert_true(pwrite(fd, &byte, 1, at) == 1 && close(fd) == 0);
}

static off_t size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* --- tests --- */

static void test_second_start_maps_and_gives_the_same_logits(void **state)
{
    (void)state;
    assert_written_anew(model_path);
}

static void test_a_start_without_a_cache_leaves_none(void **state)
{
    struct start s;
    int n;
    (void)state;
    start(&s, model_path, NULL);
    assert_int_equal(s.n_steps, 1);
    assert_null(cache_file(&n));
}

static void test_two_models_have_files_of_their_own(void **state)
{
    int n;
    (void)state;
    assert_written_anew(model_path);
    assert_written_anew(other_path);
    free(cache_file(&n));
    assert_int_equal(n, 2);
}

static void test_any_flipped_bit_is_noticed(void **state)
{
    char *file = made_file();
    off_t size = size_of(file);
    const off_t places[] = { 0, 17, 21, 30, 40, 45, 50, 60, 70, 4096, 4097, size / 2, size - 1 };
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        flip(file, places[i]);
        assert_written_anew(model_path);
    }
    free(file);
}

static void test_a_file_that_is_cut_off_or_too_long_is_refused(void **state)
{
    char *file = made_file();
    off_t size = size_of(file);
    const off_t sizes[] = { 0, 1, 10, 64, 4095, 4096, 5000, size - 1, size + 1 };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(truncate(file, sizes[i]), 0);
        assert_written_anew(model_path);
    }
    free(file);
}

static void test_a_foreign_file_is_refused(void **state)
{
    char *file = made_file(), *command;
    int n;
    (void)state;
    command = xasprintf("cp '%s' '%s'", model_path, file);
    assert_int_equal(system(command), 0);
    free(command);
    assert_written_anew(model_path);

    /* The file of another model under this one's name. */
    char *kept = xasprintf("%s/kept", folder);
    assert_int_equal(rename(file, kept), 0);
    assert_written_anew(other_path);
    char *others = cache_file(&n);
    assert_int_equal(rename(others, file), 0);
    assert_written_anew(model_path);
    unlink(kept);
    free(kept);
    free(others);
    free(file);
}

static void test_a_touched_model_is_packed_again_but_not_written_again(void **state)
{
    struct start s;
    char *file = made_file();
    struct stat before, after;
    (void)state;
    assert_int_equal(stat(file, &before), 0);
    const struct timespec times[2] = { { 1000, 5 }, { 1000, 6 } };
    assert_int_equal(utimensat(AT_FDCWD, model_path, times, 0), 0);
    start(&s, model_path, cache);
    assert_true(has_step(&s, "packing") && !has_step(&s, "writing"));
    assert_same_logits(&s, model_path);
    start(&s, model_path, cache);
    assert_true(has_step(&s, "reading") && !has_step(&s, "packing"));
    assert_int_equal(stat(file, &after), 0);
    assert_true(before.st_ino == after.st_ino);
    free(file);
}

static void test_a_model_with_other_weights_is_packed_anew(void **state)
{
    struct start old;
    (void)state;
    start(&old, model_path, cache);
    flip(model_path, size_of(model_path) - 70000);
    assert_written_anew(model_path);
    flip(model_path, size_of(model_path) - 70000);
    assert_written_anew(model_path);
}

static void test_a_folder_that_cannot_be_used_keeps_no_model_from_opening(void **state)
{
    struct start s;
    char *under_file = xasprintf("%s/cache", model_path), *nowhere = xasprintf("%s/a/b/c", folder);
    int n;
    (void)state;
    start(&s, model_path, under_file);
    assert_same_logits(&s, model_path);
    start(&s, model_path, nowhere);
    assert_same_logits(&s, model_path);

    /* A folder where the file should be. */
    char *file = made_file();
    assert_true(unlink(file) == 0 && mkdir(file, 0700) == 0);
    start(&s, model_path, cache);
    assert_same_logits(&s, model_path);
    char *left = cache_file(&n);
    assert_int_equal(n, 1);
    free(left);
    free(file);
    free(under_file);
    free(nowhere);
}

static void test_a_draft_of_a_killed_process_is_used_again(void **state)
{
    char *file = made_file(), *draft = xasprintf("%s.draft", file);
    int n;
    (void)state;
    assert_int_equal(rename(file, draft), 0);
    assert_int_equal(truncate(draft, size_of(draft) + 12345), 0);
    assert_written_anew(model_path);
    char *left = cache_file(&n);
    assert_int_equal(n, 1);
    assert_string_equal(left, file);
    free(left);
    free(draft);
    free(file);
}

/* Kills the process before, amid or after writing: `done` is the part of the weights that the file has. */
static void kill_writer(void *context, const char *step, uint64_t done, uint64_t total)
{
    if (strstr(step, "writing") && done == (*(bool *)context ? total : 0))
        raise(SIGKILL);
}

static void start_and_kill_writer(bool at_the_end)
{
    pid_t pid = fork();
    int status;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct model_options with = { cache, kill_writer, &at_the_end };
        struct model *m;
        struct error err;
        if (model_open_with(&m, model_path, &with, &err) == OK && model_wants_cache(m))
            model_write_cache(m, &with, never);
        _exit(1);
    }
    assert_true(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_what_a_killed_writer_leaves_is_not_believed(void **state)
{
    struct start s;
    int n;
    (void)state;
    start_and_kill_writer(false);
    char *left = cache_file(&n);
    assert_int_equal(n, 1);
    assert_non_null(strstr(left, ".draft"));
    free(left);
    assert_written_anew(model_path);

    empty(cache);
    start_and_kill_writer(true); /* when the file has its name */
    start(&s, model_path, cache);
    assert_true(has_step(&s, "reading") && !has_step(&s, "packing"));
    assert_same_logits(&s, model_path);
}

static bool at_once(void)
{
    return true;
}

static void test_a_writer_that_is_told_to_stop_leaves_nothing(void **state)
{
    struct model_options with = { .cache_folder = cache };
    struct model *m;
    struct error err;
    int n;
    (void)state;
    if (model_open_with(&m, model_path, &with, &err) != OK)
        fail_msg("%s", err.text);
    assert_true(model_wants_cache(m));
    model_write_cache(m, &with, at_once);
    assert_null(cache_file(&n));
    model_write_cache(m, &with, never);
    model_close(m);
    if (model_open_with(&m, model_path, &with, &err) != OK)
        fail_msg("%s", err.text);
    assert_false(model_wants_cache(m));
    model_close(m);
}

static void test_a_file_that_another_process_writes_is_left_to_it(void **state)
{
    struct start s;
    char *file = made_file(), *draft = xasprintf("%s.draft", file);
    (void)state;
    assert_int_equal(rename(file, draft), 0);
    int fd = open(draft, O_RDONLY);
    off_t size = size_of(draft);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    start(&s, model_path, cache);
    assert_same_logits(&s, model_path);
    assert_true(size_of(draft) == size && access(file, F_OK) != 0);
    close(fd);
    assert_written_anew(model_path);
    free(draft);
    free(file);
}

static void test_many_processes_at_once_all_have_the_right_weights(void **state)
{
    enum { PROCESSES = 6, ROUNDS = 5 };
    struct start plain;
    int n;
    (void)state;
    start(&plain, model_path, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[PROCESSES];
        empty(cache);
        for (int i = 0; i < PROCESSES; i++) {
            children[i] = fork();
            assert_true(children[i] >= 0);
            if (children[i] == 0) {
                struct start s;
                start(&s, model_path, cache);
                _exit(memcmp(s.logits, plain.logits, sizeof s.logits) ? 1 : 0);
            }
        }
        for (int i = 0, status; i < PROCESSES; i++)
            assert_true(waitpid(children[i], &status, 0) == children[i] && status == 0);
        char *file = cache_file(&n);
        assert_int_equal(n, 1);
        free(file);
        struct start s;
        start(&s, model_path, cache);
        assert_true(has_step(&s, "reading") && !has_step(&s, "packing"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_second_start_maps_and_gives_the_same_logits, empty_cache),
        cmocka_unit_test_setup(test_a_start_without_a_cache_leaves_none, empty_cache),
        cmocka_unit_test_setup(test_two_models_have_files_of_their_own, empty_cache),
        cmocka_unit_test_setup(test_any_flipped_bit_is_noticed, empty_cache),
        cmocka_unit_test_setup(test_a_file_that_is_cut_off_or_too_long_is_refused, empty_cache),
        cmocka_unit_test_setup(test_a_foreign_file_is_refused, empty_cache),
        cmocka_unit_test_setup(test_a_touched_model_is_packed_again_but_not_written_again, empty_cache),
        cmocka_unit_test_setup(test_a_model_with_other_weights_is_packed_anew, empty_cache),
        cmocka_unit_test_setup(test_a_folder_that_cannot_be_used_keeps_no_model_from_opening, empty_cache),
        cmocka_unit_test_setup(test_a_draft_of_a_killed_process_is_used_again, empty_cache),
        cmocka_unit_test_setup(test_what_a_killed_writer_leaves_is_not_believed, empty_cache),
        cmocka_unit_test_setup(test_a_writer_that_is_told_to_stop_leaves_nothing, empty_cache),
        cmocka_unit_test_setup(test_a_file_that_another_process_writes_is_left_to_it, empty_cache),
        cmocka_unit_test_setup(test_many_processes_at_once_all_have_the_right_weights, empty_cache),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
