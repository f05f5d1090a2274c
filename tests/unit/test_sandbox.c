/* What a process in the worker's sandbox can still do. Each test has a process of its own, because there is
 * no way out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "worker/sandbox.h"

/* The wait status of a process that enters the sandbox and does this; it exits with 0 if that is true. */
static int in_sandbox(const struct sandbox *needs, bool (*act)(void))
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sandbox_enter(needs);
        _exit(!act());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static const struct sandbox local = { 0 }, network = { .has_network = true }, files = { .has_files = true };

static bool is_filtered(void)
{
    return prctl(PR_GET_SECCOMP) == 2 || errno == ENOSYS;
}

static bool start_program(void)
{
    char name[] = "true", *argv[] = { name, NULL };
    execv("/bin/true", argv);
    return true;
}

static bool fork_fails(void)
{
    return fork() < 0;
}

static bool can_read(void)
{
    return open("/etc/passwd", O_RDONLY) >= 0;
}

static bool can_write(void)
{
    char path[] = "/tmp/woolly-sandbox-XXXXXX";
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    return fd >= 0 && write(fd, "x", 1) == 1 && unlink(path) == 0;
}

static bool can_use_internet(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 && socket(AF_INET6, SOCK_STREAM, 0) >= 0;
}

static bool can_open_raw_sockets(void)
{
    return socket(AF_PACKET, SOCK_RAW, 0) >= 0 || errno == EPERM;
}

static bool can_run_new_code(void)
{
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map != MAP_FAILED)
        return true;
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return map == MAP_FAILED || mprotect(map, 4096, PROT_READ | PROT_EXEC) == 0;
}

static bool can_work(void)
{
    char *big = malloc(100 << 20);
    if (!big)
        return false;
    memset(big, 1, 100 << 20);
    free(big);
    return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 && write(STDERR_FILENO, "", 0) == 0;
}

static void test_what_the_work_needs_is_allowed(void **state)
{
    (void)state;
    assert_int_equal(in_sandbox(&local, can_work), 0);
    assert_int_equal(in_sandbox(&local, is_filtered), 0);
    assert_int_equal(in_sandbox(&network, can_use_internet), 0);
    assert_int_equal(in_sandbox(&network, can_read), 0); /* the resolver's files */
    assert_int_equal(in_sandbox(&files, can_write), 0);
}

static void test_starting_a_program_is_the_end(void **state)
{
    (void)state;
    int status = in_sandbox(&files, start_program);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
    assert_int_equal(in_sandbox(&files, fork_fails), 0);
}

static void test_what_it_does_not_need_fails(void **state)
{
    (void)state;
    assert_int_not_equal(in_sandbox(&local, can_read), 0);
    assert_int_not_equal(in_sandbox(&local, can_write), 0);
    assert_int_not_equal(in_sandbox(&local, can_use_internet), 0);
    assert_int_not_equal(in_sandbox(&network, can_write), 0);
    assert_int_not_equal(in_sandbox(&network, can_open_raw_sockets), 0);
    assert_int_not_equal(in_sandbox(&files, can_use_internet), 0);
    assert_int_not_equal(in_sandbox(&files, can_run_new_code), 0);
}

static int go[2], result[2];

static void *try_from_thread(void *nothing)
{
    char byte;
    (void)nothing;
    if (read(go[0], &byte, 1) == 1) {
        byte = can_read();
        if (write(result[1], &byte, 1) != 1)
            _exit(2);
    }
    return NULL;
}

/* A thread that was there before is inside, too. */
static void test_every_thread_is_inside(void **state)
{
    int status;
    (void)state;
    assert_true(pipe(go) == 0 && pipe(result) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        char byte = 0;
        if (pthread_create(&thread, NULL, try_from_thread, NULL) != 0)
            _exit(3);
        sandbox_enter(&local);
        if (write(go[1], "", 1) != 1 || read(result[0], &byte, 1) != 1)
            _exit(4);
        _exit(byte);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_files_are_few(void **state)
{
    (void)state;
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        struct rlimit limit;
        sandbox_enter(&files);
        int n = 0;
        while (dup(0) >= 0 && n < 100000)
            n++;
        _exit(n > 1000 || getrlimit(RLIMIT_NOFILE, &limit) == 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool is_there(void)
{
    return prctl(PR_GET_SECCOMP) != 0;
}

int main(void)
{
    log_init("test", LOG_ERROR);
    /* A sanitizer's build has none, and so has an old kernel: the worker says so. */
    if (in_sandbox(&local, is_there) != 0) {
        puts("NOT RUN: sandbox: this build or this kernel has no filter");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_work_needs_is_allowed),
        cmocka_unit_test(test_starting_a_program_is_the_end),
        cmocka_unit_test(test_what_it_does_not_need_fails),
        cmocka_unit_test(test_every_thread_is_inside),
        cmocka_unit_test(test_files_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
