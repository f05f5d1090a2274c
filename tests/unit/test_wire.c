/* Sockets as Woolly opens them: shapes of messages, honest failures, and who may listen where. */
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

#include "proto/wire.h"

struct pair {
    void *context, *router, *dealer;
    char endpoint[256];
    struct error err;
};

static int set_up(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    p->context = zmq_ctx_new();
    p->router = wire_open(p->context, WIRE_CLIENT_SIDE, &p->err);
    p->dealer = wire_open(p->context, WIRE_PEER, &p->err);
    assert_int_equal(wire_bind(p->router, "tcp://127.0.0.1:*", NULL, p->endpoint, &p->err), OK);
    assert_int_equal(wire_connect(p->dealer, p->endpoint, NULL, &p->err), OK);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *p = *state;
    if (p->dealer)
        zmq_close(p->dealer);
    zmq_close(p->router);
    zmq_ctx_term(p->context);
    free(p);
    return 0;
}

static void wait_for(void *socket, short events)
{
    zmq_pollitem_t item = { .socket = socket, .events = events };
    assert_int_equal(zmq_poll(&item, 1, 5000), 1);
}

static void receive(void *socket, struct wire_message *m)
{
    wait_for(socket, ZMQ_POLLIN);
    assert_int_equal(wire_receive(socket, m), OK);
}

static void test_a_message_goes_there_and_back(void **state)
{
    struct pair *p = *state;
    struct wire_message m;
    wait_for(p->dealer, ZMQ_POLLOUT);
    assert_int_equal(wire_receive(p->router, &m), E_TIMEOUT);
    assert_int_equal(wire_send(p->dealer, NULL, 0, false, "hello", 5), OK);
    receive(p->router, &m);
    assert_false(m.has_delimiter);
    assert_int_equal(zmq_msg_size(&m.body), 5);
    wire_message_close(&m);
    assert_int_equal(wire_send(p->router, m.identity, m.identity_len, false, "there", 5), OK);
    receive(p->dealer, &m);
    assert_memory_equal(zmq_msg_data(&m.body), "there", 5);
    wire_message_close(&m);
}

static void test_a_req_peer_is_known_by_its_delimiter(void **state)
{
    struct pair *p = *state;
    struct wire_message m;
    char reply[8];
    void *req = zmq_socket(p->context, ZMQ_REQ);
    int linger = 0;
    zmq_setsockopt(req, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(req, p->endpoint), 0);
    assert_int_equal(zmq_send(req, "ask", 3, 0), 3);
    receive(p->router, &m);
    assert_true(m.has_delimiter);
    wire_message_close(&m);
    assert_int_equal(wire_send(p->router, m.identity, m.identity_len, true, "answer", 6), OK);
    assert_int_equal(zmq_recv(req, reply, sizeof reply, 0), 6);
    zmq_close(req);
}

static void test_too_many_frames_are_consumed_and_reported(void **state)
{
    struct pair *p = *state;
    struct wire_message m;
    wait_for(p->dealer, ZMQ_POLLOUT);
    zmq_send(p->dealer, "a", 1, ZMQ_SNDMORE);
    zmq_send(p->dealer, "b", 1, ZMQ_SNDMORE);
    zmq_send(p->dealer, "c", 1, 0);
    zmq_send(p->dealer, "fine", 4, 0);
    wait_for(p->router, ZMQ_POLLIN);
    assert_int_equal(wire_receive(p->router, &m), E_FORMAT);
    receive(p->router, &m);
    assert_memory_equal(zmq_msg_data(&m.body), "fine", 4);
    wire_message_close(&m);
}

static void test_sending_to_a_peer_that_is_gone_says_so(void **state)
{
    struct pair *p = *state;
    struct wire_message m;
    wait_for(p->dealer, ZMQ_POLLOUT);
    assert_int_equal(wire_send(p->dealer, NULL, 0, false, "x", 1), OK);
    receive(p->router, &m);
    wire_message_close(&m);
    zmq_close(p->dealer);
    p->dealer = NULL;
    enum status s = OK;
    for (int i = 0; i < 500 && s != E_UNREACHABLE; i++) {
        s = wire_send(p->router, m.identity, m.identity_len, false, "x", 1);
        usleep(10000);
    }
    assert_int_equal(s, E_UNREACHABLE);
}

static void test_a_peer_that_does_not_read_fills_up_without_blocking(void **state)
{
    struct pair *p = *state;
    struct wire_message m;
    static char block[1 << 16];
    wait_for(p->dealer, ZMQ_POLLOUT);
    assert_int_equal(wire_send(p->dealer, NULL, 0, false, "x", 1), OK);
    receive(p->router, &m);
    wire_message_close(&m);
    enum status s = OK;
    for (int i = 0; i < 100000 && s == OK; i++)
        s = wire_send(p->router, m.identity, m.identity_len, false, block, sizeof block);
    assert_int_equal(s, E_OVERLOADED);
}

static void test_only_this_machine_may_be_listened_to(void **state)
{
    struct pair *p = *state;
    static const char *const open[] = { "tcp://*:5555",        "tcp://0.0.0.0:5555",
                                        "tcp://10.0.0.1:5555", "tcp://127.0.0.1.example.org:5555",
                                        "inproc://x",          "ipc://@woolly" };
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        assert_int_equal(wire_bind(p->router, open[i], NULL, NULL, &p->err), E_UNSUPPORTED);
        assert_non_null(strstr(p->err.text, open[i]));
    }
}

static void test_the_path_of_a_living_server_is_not_taken_over(void **state)
{
    struct pair *p = *state;
    char folder[] = "/tmp/woolly-wire-XXXXXX", endpoint[64];
    assert_non_null(mkdtemp(folder));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", folder);

    void *first = wire_open(p->context, WIRE_CLIENT_SIDE, &p->err);
    assert_int_equal(wire_bind(first, endpoint, NULL, NULL, &p->err), OK);
    assert_int_equal(wire_bind(p->router, endpoint, NULL, NULL, &p->err), E_IO);
    assert_non_null(strstr(p->err.text, "another server"));
    zmq_close(first);
    /* ZeroMQ closes sockets in a thread of its own. */
    enum status s = E_IO;
    for (int i = 0; i < 500 && s != OK; i++) {
        s = wire_bind(p->router, endpoint, NULL, NULL, &p->err);
        usleep(10000);
    }
    assert_int_equal(s, OK);
    unlink(endpoint + strlen("ipc://"));

    FILE *file = fopen(endpoint + strlen("ipc://"), "w");
    fclose(file);
    assert_int_equal(wire_bind(p->router, endpoint, NULL, NULL, &p->err), E_IO);
    assert_non_null(strstr(p->err.text, "a file of that name"));
    unlink(endpoint + strlen("ipc://"));
    rmdir(folder);
}

static void test_only_a_socket_nobody_listens_at_is_removed(void **state)
{
    struct pair *p = *state;
    char folder[] = "/tmp/woolly-wire-XXXXXX", endpoint[64];
    const char *path = endpoint + strlen("ipc://");
    assert_non_null(mkdtemp(folder));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/s", folder);
    wire_remove_socket(endpoint); /* nothing there */
    wire_remove_socket("tcp://127.0.0.1:1");

    void *server = wire_open(p->context, WIRE_CLIENT_SIDE, &p->err);
    assert_int_equal(wire_bind(server, endpoint, NULL, NULL, &p->err), OK);
    wire_remove_socket(endpoint);
    assert_int_equal(access(path, F_OK), 0);
    zmq_close(server);
    for (int i = 0; i < 500 && access(path, F_OK) == 0; i++) {
        wire_remove_socket(endpoint);
        usleep(10000);
    }
    assert_int_not_equal(access(path, F_OK), 0);

    fclose(fopen(path, "w"));
    wire_remove_socket(endpoint);
    assert_int_equal(unlink(path), 0); /* a file stays */
    rmdir(folder);
}

static void test_a_runtime_folder_that_others_can_enter_is_refused(void **state)
{
    (void)state;
    char folder[] = "/tmp/woolly-wire-XXXXXX", out[256], endpoint[256], path[300];
    struct error err;
    assert_non_null(mkdtemp(folder));
    setenv("WOOLLY_RUNTIME_DIR", folder, 1);
    unsetenv("WOOLLY_ENDPOINT");
    assert_int_equal(wire_runtime_folder(out, sizeof out, &err), OK);
    assert_string_equal(out, folder);

    assert_int_equal(wire_find_endpoint(NULL, endpoint, sizeof endpoint, &err), E_NOTFOUND);
    snprintf(path, sizeof path, "%s/endpoint", folder);
    FILE *f = fopen(path, "w");
    fputs("ipc:///somewhere\n", f);
    fclose(f);
    assert_int_equal(wire_find_endpoint(NULL, endpoint, sizeof endpoint, &err), OK);
    assert_string_equal(endpoint, "ipc:///somewhere");
    assert_int_equal(wire_find_endpoint("tcp://127.0.0.1:9", endpoint, sizeof endpoint, &err), OK);
    assert_string_equal(endpoint, "tcp://127.0.0.1:9");

    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(wire_runtime_folder(out, sizeof out, &err), E_INVALID);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
#define WITH_PAIR(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_PAIR(test_a_message_goes_there_and_back),
        WITH_PAIR(test_a_req_peer_is_known_by_its_delimiter),
        WITH_PAIR(test_too_many_frames_are_consumed_and_reported),
        WITH_PAIR(test_sending_to_a_peer_that_is_gone_says_so),
        WITH_PAIR(test_a_peer_that_does_not_read_fills_up_without_blocking),
        WITH_PAIR(test_only_this_machine_may_be_listened_to),
        WITH_PAIR(test_the_path_of_a_living_server_is_not_taken_over),
        WITH_PAIR(test_only_a_socket_nobody_listens_at_is_removed),
        cmocka_unit_test(test_a_runtime_folder_that_others_can_enter_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
