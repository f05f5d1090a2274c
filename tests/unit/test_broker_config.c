/* The options of woolly serve, and the files by which servers find each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/runtime.h"
#include "proto/wire.h"

static struct config config;
static struct error err;

#define PARSE(...) parse((char *[]){ "woolly-broker", __VA_ARGS__, NULL })

static enum status parse(char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    err.text[0] = 0;
    config_fini(&config);
    return config_parse(&config, argc, argv, &err);
}

static void test_models_get_their_names_from_options_or_files(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--model", "a=/x/y.gguf", "/z/small.Q4.gguf", "/odd=dir/c.gguf", "plain"), OK);
    assert_int_equal(config.n_models, 4);
    assert_string_equal(config.models[0].name, "a");
    assert_string_equal(config.models[0].path, "/x/y.gguf");
    assert_string_equal(config.models[1].name, "small.Q4");
    assert_string_equal(config.models[2].name, "c");
    assert_string_equal(config.models[2].path, "/odd=dir/c.gguf");
    assert_string_equal(config.models[3].name, "plain");
    assert_int_equal(config.queue, 256);
    assert_true(config.threads >= 1);
}

static void assert_refused(enum status s, const char *word)
{
    assert_int_not_equal(s, OK);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not mention %s", err.text, word);
}

static void test_bad_options_are_refused_by_name(void **state)
{
    char *long_name = calloc(1, 300);
    (void)state;
    memset(long_name, 'n', 200);
    strcat(long_name, "=/x");
    assert_refused(parse((char *[]){ "woolly-broker", NULL }), "model");
    assert_refused(PARSE("--workers", "0", "x"), "--workers");
    assert_refused(PARSE("--queue", "many", "x"), "--queue");
    assert_refused(PARSE("--pin", "maybe", "x"), "--pin");
    assert_refused(PARSE("--kv", "q5", "x"), "--kv");
    assert_refused(PARSE("--pack-cache", "", "x"), "--pack-cache");
    assert_refused(PARSE("--sessions", "", "x"), "--sessions");
    assert_refused(PARSE("--kv-memory", "lots", "x"), "--kv-memory");
    assert_refused(PARSE("--itl-target", "0", "x"), "--itl-target");
    assert_refused(PARSE("--speculate", "maybe", "x"), "--speculate");
    assert_refused(PARSE("--draft", "/small", "x"), "NAME=PATH");
    assert_refused(PARSE("--draft", "y=/small", "x"), "no model \"y\"");
    assert_refused(PARSE("--log-level", "loud", "x"), "--log-level");
    assert_refused(PARSE("--bogus", "x"), "--bogus");
    assert_refused(PARSE("x", "--slots"), "--slots");
    assert_refused(PARSE("--zmq", "tcp://0.0.0.0:1", "x"), "loopback");
    assert_refused(PARSE("--zmq", "tcp://127.0.0.1:70000", "x"), "port");
    assert_refused(PARSE("a=/x", "a=/y"), "two models");
    assert_refused(PARSE("a="), "no path");
    assert_refused(PARSE("=/x"), "name");
    assert_refused(PARSE("a b=/x"), "name");
    assert_refused(PARSE(long_name), "longer");
    free(long_name);
}

static void test_a_draft_belongs_to_the_model_it_names(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--draft", "b=/small.gguf", "a=/x", "b=/y", "--kv-memory", "512"), OK);
    assert_null(config.models[0].draft);
    assert_string_equal(config.models[1].draft, "/small.gguf");
    assert_int_equal(config.kv_memory_mb, 512);
    assert_int_equal(config.itl_target_ms, 5);
    assert_string_equal(config.speculate, "auto");
}

static void test_a_missing_model_file_is_named(void **state)
{
    (void)state;
    assert_int_equal(PARSE("a=/no/such.gguf"), OK);
    assert_refused(config_check_files(&config, &err), "/no/such.gguf");
    assert_int_equal(PARSE("a=/"), OK);
    assert_refused(config_check_files(&config, &err), "not a file");
}

/* ---- the file ---- */

static char yaml[60];

static const char *write_yaml(const char *text)
{
    snprintf(yaml, sizeof yaml, "/tmp/woolly-cfg-%d.yaml", (int)getpid());
    FILE *f = fopen(yaml, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return yaml;
}

static void test_options_count_more_than_the_environment_and_that_more_than_the_file(void **state)
{
    (void)state;
    write_yaml("engine:\n  slots: 3\n  ctx: 3\n  threads: 3\n  kv-memory: 3\n  pin: off\nlimits: {queue: 3}\n"
               "models:\n- path: /a/b.gguf\n- {path: /c, name: d, draft: /e}\nkeys:\n");
    setenv("WOOLLY_SERVE_SLOTS", "2", 1);
    setenv("WOOLLY_SERVE_KV_MEMORY", "2", 1);
    assert_int_equal(PARSE("--config", yaml, "--slots", "1"), OK);
    assert_int_equal(config.slots, 1);
    assert_int_equal(config.kv_memory_mb, 2);
    assert_int_equal(config.n_ctx, 3);
    assert_int_equal(config.queue, 3);
    assert_false(config.is_pinned);
    assert_int_equal(config.n_models, 2);
    assert_string_equal(config.models[0].name, "b");
    assert_string_equal(config.models[1].name, "d");
    assert_string_equal(config.models[1].path, "/c");
    assert_string_equal(config.models[1].draft, "/e");
    assert_int_equal(PARSE("--config", yaml, "x=/y"), OK);
    assert_int_equal(config.n_models, 1);
    assert_string_equal(config.models[0].name, "x");
    assert_null(config.models[0].draft);
    setenv("WOOLLY_SERVE_SLOTS", "many", 1);
    assert_refused(PARSE("--config", yaml), "WOOLLY_SERVE_SLOTS");
    unsetenv("WOOLLY_SERVE_SLOTS");
    unsetenv("WOOLLY_SERVE_KV_MEMORY");
    unlink(yaml);
}

static void test_a_mistake_in_the_file_has_its_line_and_what_would_be_right(void **state)
{
    static const struct {
        const char *text, *where, *what;
    } mistakes[] = {
        { "engine:\n  threads: many\n", ":2: engine: threads", "1 to 1024" },
        { "engine:\n\n  thraeds: 1\n", ":3: engine", "workers, threads" },
        { "motor:\n  threads: 1\n", ":2: motor", "engine" },
        { "motor:\n", ":1: motor", "engine" },
        { "engine: fast\n", ":1: engine", "KEY: VALUE" },
        { "engine:\n  threads: [1, 2]\n", ":2: engine: threads", "one value" },
        { "engine:\n  threads: 1\n  threads: 2\n", ":3: threads", "twice" },
        { "engine:\n  ? [a]\n  : 1\n", ":2:", "one word" },
        { "keys:\n  insecure: maybe\n", ":2: keys: insecure", "on nor off" },
        { "keys:\n  key: \"\"\n", ":2: keys: key", "a path" },
        { "server:\n  zmq: udp://1\n", ":2: server: zmq", "tcp://HOST:PORT" },
        { "server:\n  model: /x\n", ":2: server", "zmq" },
        { "models: /x\n", ":1: models", "list" },
        { "models:\n- name: a\n", ":2: models", "no path" },
        { "models:\n- path: /a\n  size: 3\n", ":3: models", "draft" },
        { "models:\n- path: /a\n- path: /b/a\n", ":3: models", "two models" },
        { "models:\n- path: /a\n  name: a=b\n", ":3: models: name", "a=b" },
        { "- a\n", ":1:", "sections" },
        { "a: b: c\n", ":1:", "YAML" },
        { "engine: {}\n---\nengine: {}\n", ":3:", "second" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        char where[100];
        snprintf(where, sizeof where, "%s%s", write_yaml(mistakes[i].text), mistakes[i].where);
        enum status s = PARSE("--config", yaml, "x=/y");
        assert_refused(s, where);
        assert_refused(s, mistakes[i].what);
    }
    unlink(yaml);
    assert_refused(PARSE("--config", yaml, "x=/y"), yaml);
}

static void test_beyond_this_machine_there_must_be_keys_or_a_word_for_none(void **state)
{
    (void)state;
    assert_refused(PARSE("--zmq", "tcp://*:1", "x"), "--insecure");
    assert_refused(PARSE("--zmq-workers", "tcp://10.0.0.1:1", "x"), "--insecure");
    assert_refused(PARSE("--zmq-workers", "ipc:///x", "x"), "tcp://");
    assert_refused(PARSE("--key", "/k", "x"), "--allow");
    assert_refused(PARSE("--key", "/k", "--allow", "/a", "--insecure", "x"), "contradict");
    assert_int_equal(PARSE("--zmq", "tcp://*:1", "--insecure", "x"), OK);
    assert_int_equal(PARSE("--zmq", "tcp://[::]:1", "--key", "/k", "--allow", "/a", "x"), OK);
    assert_refused(config_read_keys(&config, &(struct key_pair){ 0 }, &(struct access_list){ 0 }, &err),
                   "/k");
}

/* ---- runtime ---- */

static char folder[] = "/tmp/woolly-test-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    strcpy(strrchr(folder, '-') + 1, "XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    return setenv("WOOLLY_RUNTIME_DIR", folder, 1);
}

static int remove_folder(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void test_a_second_published_server_is_refused_with_the_way_out(void **state)
{
    struct runtime first, second, third;
    char pid[20];
    (void)state;
    assert_int_equal(runtime_open(&first, NULL, &err), OK);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_refused(runtime_open(&second, NULL, &err), pid);
    assert_refused(runtime_open(&second, NULL, &err), "--zmq");
    assert_int_equal(runtime_open(&third, "tcp://127.0.0.1:*", &err), OK);
    assert_string_equal(third.clients, "tcp://127.0.0.1:*");
    assert_true(exists(first.boot) && exists(third.boot));
    runtime_close(&third);
    runtime_close(&first);
    assert_int_equal(runtime_open(&second, NULL, &err), OK);
    runtime_close(&second);
}

static void test_the_endpoint_is_published_and_withdrawn(void **state)
{
    struct runtime r;
    char found[256];
    (void)state;
    unsetenv("WOOLLY_ENDPOINT");
    assert_int_equal(runtime_open(&r, NULL, &err), OK);
    assert_int_equal(wire_find_endpoint(NULL, found, sizeof found, &err), E_NOTFOUND);
    assert_int_equal(runtime_publish(&r, r.clients, &err), OK);
    assert_int_equal(wire_find_endpoint(NULL, found, sizeof found, &err), OK);
    assert_string_equal(found, r.clients);
    runtime_close(&r);
    assert_int_equal(wire_find_endpoint(NULL, found, sizeof found, &err), E_NOTFOUND);
}

static void test_folders_of_dead_servers_are_removed_and_of_live_ones_kept(void **state)
{
    struct runtime r;
    char dead[60], live[60], dead_lock[70], live_lock[70];
    (void)state;
    snprintf(dead, sizeof dead, "%s/boot-dead", folder);
    snprintf(live, sizeof live, "%s/boot-live", folder);
    snprintf(dead_lock, sizeof dead_lock, "%s/lock", dead);
    snprintf(live_lock, sizeof live_lock, "%s/lock", live);
    assert_int_equal(mkdir(dead, 0700) + mkdir(live, 0700), 0);
    close(open(dead_lock, O_CREAT | O_RDWR, 0600));
    int fd = open(live_lock, O_CREAT | O_RDWR, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(runtime_open(&r, NULL, &err), OK);
    assert_false(exists(dead));
    assert_true(exists(live));
    close(fd);
    runtime_close(&r);
}

static void test_a_path_too_long_for_a_socket_is_refused(void **state)
{
    struct runtime r;
    char deep[160];
    (void)state;
    snprintf(deep, sizeof deep, "%s/%080d", folder, 7);
    setenv("WOOLLY_RUNTIME_DIR", deep, 1);
    assert_refused(runtime_open(&r, NULL, &err), "too long");
}

#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models_get_their_names_from_options_or_files),
        cmocka_unit_test(test_bad_options_are_refused_by_name),
        cmocka_unit_test(test_a_draft_belongs_to_the_model_it_names),
        cmocka_unit_test(test_a_missing_model_file_is_named),
        cmocka_unit_test(test_options_count_more_than_the_environment_and_that_more_than_the_file),
        cmocka_unit_test(test_a_mistake_in_the_file_has_its_line_and_what_would_be_right),
        cmocka_unit_test(test_beyond_this_machine_there_must_be_keys_or_a_word_for_none),
        IN_FOLDER(test_a_second_published_server_is_refused_with_the_way_out),
        IN_FOLDER(test_the_endpoint_is_published_and_withdrawn),
        IN_FOLDER(test_folders_of_dead_servers_are_removed_and_of_live_ones_kept),
        IN_FOLDER(test_a_path_too_long_for_a_socket_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
