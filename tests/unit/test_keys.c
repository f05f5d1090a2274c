/* Keys, their files, the list of those that are let in, and real encrypted connections past it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/access.h"
#include "common/clock.h"
#include "common/log.h"
#include "proto/keys.h"
#include "proto/wire.h"

static char folder[] = "/tmp/woolly-keys-XXXXXX";
static char path[100];
static struct error err;

static const char *file(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(file(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static void assert_refused(enum status s, const char *word)
{
    assert_int_not_equal(s, OK);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not mention %s", err.text, word);
}

static void test_a_key_file_is_for_its_owner_and_reads_back(void **state)
{
    struct key_pair made, read;
    struct stat st;
    (void)state;
    assert_int_equal(keys_make(file("own"), &made, &err), OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(keys_read(path, &read, &err), OK);
    assert_memory_equal(&made, &read, sizeof made);
    assert_true(key_is_well_formed(made.public_key));
    assert_refused(keys_make(path, &made, &err), path);
}

static void test_a_bad_key_file_is_refused_with_the_reason(void **state)
{
    struct key_pair a, b, read;
    char text[200];
    (void)state;
    assert_int_equal(keys_make(file("a"), &a, &err), OK);
    assert_int_equal(keys_make(file("b"), &b, &err), OK);
    assert_refused(keys_read(file("none"), &read, &err), "none");
    assert_refused(keys_read(folder, &read, &err), "not a file");
    snprintf(text, sizeof text, "public %s\nsecret %s\n", a.public_key, a.secret_key);
    assert_int_equal(keys_read(write_file("c", text, 0600), &read, &err), OK);
    assert_refused(keys_read(write_file("c", text, 0640), &read, &err), "read by others");
    snprintf(text, sizeof text, "public %s\nsecret %s\n", a.public_key, b.secret_key);
    assert_refused(keys_read(write_file("c", text, 0600), &read, &err), "belong together");
    assert_refused(keys_read(write_file("c", "# nothing\n", 0600), &read, &err), "no key pair");
    assert_refused(keys_read(write_file("c", "# hm\npublic abc\n", 0600), &read, &err), "c:2");
}

static void test_keys_of_a_connection_come_both_or_not_at_all(void **state)
{
    struct key_pair own, server;
    struct peer_keys keys;
    bool is_given;
    (void)state;
    assert_int_equal(keys_make(file("k1"), &server, &err), OK);
    assert_int_equal(keys_make(file("k2"), &own, &err), OK);
    unsetenv("WOOLLY_KEY");
    unsetenv("WOOLLY_SERVER_KEY");
    assert_int_equal(keys_find(NULL, NULL, &keys, &is_given, &err), OK);
    assert_false(is_given);
    assert_refused(keys_find(path, NULL, &keys, &is_given, &err), "--server-key");
    assert_refused(keys_find(NULL, server.public_key, &keys, &is_given, &err), "--key");
    assert_refused(keys_find(path, "short", &keys, &is_given, &err), "short");
    setenv("WOOLLY_KEY", "/none", 1);
    setenv("WOOLLY_SERVER_KEY", server.public_key, 1);
    assert_int_equal(keys_find(path, NULL, &keys, &is_given, &err), OK); /* the flag counts more */
    assert_true(is_given);
    assert_string_equal(keys.server, server.public_key);
    assert_string_equal(keys.own.public_key, own.public_key);
    unsetenv("WOOLLY_KEY");
    unsetenv("WOOLLY_SERVER_KEY");
}

static void test_a_mistake_in_the_list_is_named_with_its_line(void **state)
{
    static const char key[] = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    struct access_list list;
    char text[300];
    (void)state;
    snprintf(text, sizeof text, "# who\n\n  client me %s\nworker it %s\n", key, key);
    assert_int_equal(access_read(&list, write_file("list", text, 0600), &err), OK);
    assert_int_equal(list.n, 2);
    assert_string_equal(access_find(&list, access_client, key), "me");
    assert_string_equal(access_find(&list, access_worker, key), "it");
    assert_null(access_find(&list, access_client, "rq"));
    access_free(&list);
    static const struct {
        const char *line, *word;
    } bad[] = { { "client me", ":2" },
                { "client me short", "short" },
                { "owner me rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "owner" },
                { "client me rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7 more", ":2" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "# who\n%s\n", bad[i].line);
        assert_refused(access_read(&list, write_file("list", text, 0600), &err), bad[i].word);
        assert_null(list.rows);
    }
    snprintf(text, sizeof text, "client me %s\nclient you %s\n", key, key);
    assert_refused(access_read(&list, write_file("list", text, 0600), &err), "list:2");
    assert_refused(access_read(&list, file("absent"), &err), "absent");
}

/* ---- connections ---- */

struct stage {
    void *context, *router;
    char endpoint[256];
    struct gatekeeper keeper;
    struct key_pair server, friend, stranger;
};

static struct stage *open_stage(void)
{
    static struct stage s;
    struct access_list list;
    char text[200];
    s = (struct stage){ .context = zmq_ctx_new() };
    unlink(file("server")), assert_int_equal(keys_make(path, &s.server, &err), OK);
    unlink(file("friend")), assert_int_equal(keys_make(path, &s.friend, &err), OK);
    unlink(file("stranger")), assert_int_equal(keys_make(path, &s.stranger, &err), OK);
    snprintf(text, sizeof text, "client friend %s\n", s.friend.public_key);
    assert_int_equal(access_read(&list, write_file("list", text, 0600), &err), OK);
    assert_int_equal(gatekeeper_open(&s.keeper, s.context, list, &err), OK);
    return &s;
}

static void listen_for(struct stage *s, const char *side)
{
    const struct wire_guard guard = { &s->server, side };
    s->router = wire_open(s->context, WIRE_CLIENT_SIDE, &err);
    assert_int_equal(wire_bind(s->router, "tcp://127.0.0.1:*", &guard, s->endpoint, &err), OK);
}

static void close_stage(struct stage *s)
{
    zmq_close(s->router);
    gatekeeper_close(&s->keeper);
    zmq_ctx_term(s->context);
}

/* Whether a message of this key arrives. */
static bool gets_through(struct stage *s, const struct key_pair *own, const char *server)
{
    struct peer_keys keys = { .own = own ? *own : s->friend };
    void *context = zmq_ctx_new();
    void *dealer = wire_open(context, WIRE_PEER, &err);
    struct wire_message m;
    bool came = false;
    int64_t end_ms = clock_ms() + 500;
    strcpy(keys.server, server);
    assert_int_equal(wire_connect(dealer, s->endpoint, own ? &keys : NULL, &err), OK);
    for (bool is_sent = false; !came && clock_ms() < end_ms; usleep(1000)) {
        gatekeeper_answer(&s->keeper, clock_ms());
        is_sent = is_sent || wire_send(dealer, NULL, 0, false, "x", 1) == OK;
        if ((came = wire_receive(s->router, &m) == OK)) {
            assert_true(wire_came_by_tcp(&m));
            wire_message_close(&m);
        }
    }
    zmq_close(dealer);
    zmq_ctx_term(context);
    return came;
}

static void test_only_listed_keys_get_through(void **state)
{
    struct stage *s = open_stage();
    (void)state;
    listen_for(s, access_client);
    assert_true(gets_through(s, &s->friend, s->server.public_key));
    assert_false(gets_through(s, &s->stranger, s->server.public_key));
    assert_false(gets_through(s, &s->friend, s->stranger.public_key)); /* another server than it wants */
    assert_false(gets_through(s, NULL, ""));
    gatekeeper_replace(&s->keeper, (struct access_list){ 0 });
    assert_false(gets_through(s, &s->friend, s->server.public_key));
    close_stage(s);
}

static void test_a_client_key_opens_no_door_for_workers(void **state)
{
    struct stage *s = open_stage();
    (void)state;
    listen_for(s, access_worker);
    assert_false(gets_through(s, &s->friend, s->server.public_key));
    close_stage(s);
}

static void test_one_socket_has_a_plain_local_end_and_an_encrypted_one(void **state)
{
    struct stage *s = open_stage();
    char local[150];
    (void)state;
    const struct wire_guard guard = { &s->server, access_client };
    snprintf(local, sizeof local, "ipc://%s/s", folder);
    s->router = wire_open(s->context, WIRE_CLIENT_SIDE, &err);
    assert_int_equal(wire_bind(s->router, local, NULL, NULL, &err), OK);
    assert_int_equal(wire_bind(s->router, "tcp://127.0.0.1:*", &guard, s->endpoint, &err), OK);
    assert_true(gets_through(s, &s->friend, s->server.public_key));
    assert_false(gets_through(s, &s->stranger, s->server.public_key));

    void *dealer = wire_open(s->context, WIRE_PEER, &err);
    struct wire_message m;
    assert_int_equal(wire_connect(dealer, local, NULL, &err), OK);
    while (wire_send(dealer, NULL, 0, false, "x", 1) != OK)
        usleep(1000);
    while (wire_receive(s->router, &m) != OK)
        usleep(1000);
    assert_false(wire_came_by_tcp(&m));
    wire_message_close(&m);
    zmq_close(dealer);
    close_stage(s);
}

static int make_folder(void **state)
{
    (void)state;
    log_init("test", LOG_ERROR);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_file_is_for_its_owner_and_reads_back),
        cmocka_unit_test(test_a_bad_key_file_is_refused_with_the_reason),
        cmocka_unit_test(test_keys_of_a_connection_come_both_or_not_at_all),
        cmocka_unit_test(test_a_mistake_in_the_list_is_named_with_its_line),
        cmocka_unit_test(test_only_listed_keys_get_through),
        cmocka_unit_test(test_a_client_key_opens_no_door_for_workers),
        cmocka_unit_test(test_one_socket_has_a_plain_local_end_and_an_encrypted_one),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
