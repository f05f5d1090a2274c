/* The small parts of common/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/process.h"
#include "common/status.h"
#include "common/utf8.h"

/* buffer */

static void test_buffer_keeps_bytes_in_order_while_it_grows(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    buffer_append(&b, NULL, 0);
    assert_int_equal(b.len, 0);
    for (int i = 0; i < 1000; i++)
        buffer_printf(&b, "%03d,", i);
    buffer_append(&b, "\0end", 4);
    assert_int_equal(b.len, 4004);
    assert_memory_equal(b.data, "000,001,", 8);
    assert_memory_equal(b.data + 4 * 999, "999,\0end", 8);
    buffer_fini(&b);
    assert_true(!b.data && !b.len && !b.cap);
}

static void test_cleared_buffer_keeps_its_room(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    char *at = buffer_reserve(&b, 5000);
    memset(at, 'x', 5000);
    assert_int_equal(b.len, 0);
    b.len = 5000;
    buffer_clear(&b);
    buffer_append(&b, "abc", 3);
    assert_ptr_equal(b.data, at);
    buffer_fini(&b);
}

static void test_consumed_bytes_leave_from_the_front(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    buffer_append(&b, "head tail", 9);
    buffer_consume(&b, 0);
    buffer_consume(&b, 5);
    assert_int_equal(b.len, 4);
    assert_memory_equal(b.data, "tail", 4);
    buffer_consume(&b, 4);
    assert_int_equal(b.len, 0);
    buffer_fini(&b);
}

/* list */

struct item {
    char name;
    struct link link;
};

static void expect_order(const struct list *l, const char *names)
{
    size_t n = 0;
    const struct link *last = NULL;
    list_each(it, l, struct item, link)
    {
        assert_int_equal(it->name, names[n++]);
        assert_ptr_equal(it->link.prev, last);
        assert_ptr_equal(it->link.list, l);
        last = &it->link;
    }
    assert_int_equal(names[n], 0);
    assert_ptr_equal(l->last, last);
    assert_int_equal(l->count, n);
    assert_int_equal(list_is_empty(l), n == 0);
}

static void test_list_keeps_order_and_count(void **state)
{
    struct list l = { 0 };
    struct item a = { .name = 'a' }, b = { .name = 'b' }, c = { .name = 'c' };
    (void)state;
    expect_order(&l, "");
    list_append(&l, &b.link);
    list_append(&l, &c.link);
    list_prepend(&l, &a.link);
    expect_order(&l, "abc");
    list_remove(&b.link);
    expect_order(&l, "ac");
    list_remove(&b.link); /* on no list: nothing happens */
    list_remove(&a.link);
    list_append(&l, &a.link);
    expect_order(&l, "ca");
    list_insert_before(&a.link, &b.link);
    expect_order(&l, "cba");
    list_remove(&b.link);
    list_insert_before(&c.link, &b.link);
    expect_order(&l, "bca");
    list_remove(&a.link);
    list_remove(&b.link);
    list_remove(&c.link);
    expect_order(&l, "");
}

static void test_elements_may_leave_their_list_inside_the_loop(void **state)
{
    struct list from = { 0 }, to = { 0 };
    struct item items[4] = { { .name = 'a' }, { .name = 'b' }, { .name = 'c' }, { .name = 'd' } };
    (void)state;
    for (int i = 0; i < 4; i++)
        list_append(&from, &items[i].link);
    list_each(it, &from, struct item, link)
    {
        if (it->name != 'c') {
            list_remove(&it->link);
            list_prepend(&to, &it->link);
        }
    }
    expect_order(&from, "c");
    expect_order(&to, "dba");
}

/* process */

/* Waits until somebody ends it. */
static pid_t fork_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

static void test_a_watched_process_can_be_killed(void **state)
{
    int status, fd;
    pid_t pid = fork_child();
    (void)state;
    assert_true((fd = process_watch(pid)) >= 0);
    process_kill_watched(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    process_kill_watched(fd); /* it is gone, and whoever has its number now is safe */
    close(fd);
}

static void test_children_and_theirs_are_near_descendants(void **state)
{
    int status;
    pid_t pid = fork_child();
    (void)state;
    assert_true(process_is_near_descendant(pid, getpid()));
    assert_true(process_is_near_descendant(pid, getppid()));
    assert_false(process_is_near_descendant(pid, pid));
    assert_false(process_is_near_descendant(getppid(), getpid()));
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_false(process_is_near_descendant(pid, getpid()));
}

/* utf8 */

static void test_every_code_point_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        char text[4];
        uint32_t back = 0;
        int n = utf8_put(code, text);
        if (code >= 0xd800 && code <= 0xdfff) {
            assert_int_equal(utf8_next(text, (size_t)n, NULL), -1);
            continue;
        }
        assert_int_equal(utf8_next(text, (size_t)n, &back), n);
        assert_int_equal(back, code);
        for (int cut = 1; cut < n; cut++)
            assert_int_equal(utf8_next(text, (size_t)cut, NULL), 0);
    }
    assert_int_equal(utf8_next("", 0, NULL), 0);
}

static void test_broken_utf8_is_refused(void **state)
{
    static const char *const broken[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xc3(",
        "\xe2\x82(",
        "\xe2(\xa1",
        "\xf0\x9f\x98(",
    };
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_int_equal(utf8_next(broken[i], strlen(broken[i]), NULL), -1);
        assert_false(utf8_is_valid(broken[i], strlen(broken[i])));
    }
    assert_true(utf8_is_valid("", 0));
    assert_true(utf8_is_valid("a\0\xc3\xa4\xf0\x9f\x98\x80", 8));
    assert_false(utf8_is_valid("a\xe2\x82", 3)); /* not broken, but not all there */
}

/* clock */

static void test_deadlines_never_overflow(void **state)
{
    (void)state;
    assert_int_equal(deadline_after(1000, 500), 1500);
    assert_true(deadline_after(1000, INT64_MAX) == DEADLINE_NONE);
    assert_true(deadline_after(1000, INT64_MAX - 1000) == DEADLINE_NONE);
    assert_true(deadline_passed(1500, 1500) && deadline_passed(1501, 1500));
    assert_false(deadline_passed(1499, 1500));
    assert_false(deadline_passed(1LL << 60, DEADLINE_NONE));
    assert_int_equal(deadline_earlier(7, DEADLINE_NONE), 7);
    assert_int_equal(deadline_earlier(7, 6), 6);
}

static void test_poll_timeouts_fit_poll(void **state)
{
    (void)state;
    assert_int_equal(deadline_poll_ms(1000, DEADLINE_NONE), -1);
    assert_int_equal(deadline_poll_ms(1000, 1000), 0);
    assert_int_equal(deadline_poll_ms(1000, 3), 0);
    assert_int_equal(deadline_poll_ms(1000, 1250), 250);
    assert_int_equal(deadline_poll_ms(0, 1LL << 40), INT_MAX);
}

static void test_clock_does_not_run_backwards(void **state)
{
    (void)state;
    int64_t before_us = clock_us();
    for (int i = 0; i < 1000; i++) {
        int64_t now_us = clock_us();
        assert_true(now_us >= before_us);
        before_us = now_us;
    }
    assert_true(clock_ms() >= before_us / 1000);
}

/* log: what goes to standard error comes back through a pipe. */

static int saved_stderr, log_pipe[2];

static void capture_log(void)
{
    assert_int_equal(pipe(log_pipe), 0);
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    assert_true(dup2(log_pipe[1], STDERR_FILENO) >= 0);
    close(log_pipe[1]);
}

static void captured_log(char *out, size_t size)
{
    dup2(saved_stderr, STDERR_FILENO); /* the pipe's last writer is gone: read ends */
    close(saved_stderr);
    size_t used = 0;
    for (ssize_t n; used < size - 1 && (n = read(log_pipe[0], out + used, size - 1 - used)) > 0;)
        used += (size_t)n;
    out[used] = 0;
    close(log_pipe[0]);
}

static void test_log_line_cannot_be_forged_by_a_value(void **state)
{
    char out[4096];
    (void)state;
    log_init("tester", LOG_INFO);
    capture_log();
    log_info("job_done", "req=%d text=\"%s\"", 17, "a\nERROR\x1b[2J\r\x7f\tb");
    captured_log(out, sizeof out);
    assert_non_null(strstr(out, "Z info  tester["));
    assert_non_null(strstr(out, "] job_done req=17 text=\"a?ERROR?[2J???b\"\n"));
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
}

static void test_overlong_log_line_is_cut_and_ended(void **state)
{
    char out[8192], text[5000];
    (void)state;
    memset(text, 'y', sizeof text - 1), text[sizeof text - 1] = 0;
    capture_log();
    log_error("long", "text=%s", text);
    captured_log(out, sizeof out);
    assert_true(strlen(out) > 1000 && strlen(out) <= 2048);
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
}

static void test_log_below_the_level_is_silent(void **state)
{
    char out[4096];
    enum log_level level = LOG_ERROR;
    (void)state;
    assert_int_equal(log_level_parse("warn", &level), OK);
    assert_int_equal(level, LOG_WARN);
    assert_int_equal(log_level_parse("loud", &level), E_INVALID);
    assert_string_equal(log_level_name(LOG_DEBUG), "debug");
    log_init("tester", level);
    capture_log();
    log_info("quiet", "x=1");
    log_warn("bare", "%s", "");
    captured_log(out, sizeof out);
    assert_null(strstr(out, "quiet"));
    assert_non_null(strstr(out, "] bare\n"));
}

/* status */

static void test_error_text_holds_the_sentence_and_fits(void **state)
{
    struct error e = { 0 };
    char text[2000];
    (void)state;
    assert_int_equal(error_set(&e, E_FORMAT, "file %s: line %d", "a.conf", 3), E_FORMAT);
    assert_int_equal(e.status, E_FORMAT);
    assert_string_equal(e.text, "file a.conf: line 3");
    assert_int_equal(error_set(NULL, E_LIMIT, "nobody listens"), E_LIMIT);

    errno = ENOENT;
    assert_int_equal(error_errno(&e, "cannot open %s", "x"), E_IO);
    assert_string_equal(e.text, "cannot open x: No such file or directory");

    memset(text, 'z', sizeof text - 1), text[sizeof text - 1] = 0;
    errno = EIO;
    assert_int_equal(error_errno(&e, "%s", text), E_IO);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

static void test_every_status_has_its_own_name(void **state)
{
    (void)state;
    for (int a = OK; a <= E_INTERNAL; a++) {
        assert_string_not_equal(status_name((enum status)a), "unknown");
        for (int b = a + 1; b <= E_INTERNAL; b++)
            assert_string_not_equal(status_name((enum status)a), status_name((enum status)b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer_keeps_bytes_in_order_while_it_grows),
        cmocka_unit_test(test_cleared_buffer_keeps_its_room),
        cmocka_unit_test(test_consumed_bytes_leave_from_the_front),
        cmocka_unit_test(test_list_keeps_order_and_count),
        cmocka_unit_test(test_elements_may_leave_their_list_inside_the_loop),
        cmocka_unit_test(test_a_watched_process_can_be_killed),
        cmocka_unit_test(test_children_and_theirs_are_near_descendants),
        cmocka_unit_test(test_every_code_point_survives_a_round_trip),
        cmocka_unit_test(test_broken_utf8_is_refused),
        cmocka_unit_test(test_deadlines_never_overflow),
        cmocka_unit_test(test_poll_timeouts_fit_poll),
        cmocka_unit_test(test_clock_does_not_run_backwards),
        cmocka_unit_test(test_log_line_cannot_be_forged_by_a_value),
        cmocka_unit_test(test_overlong_log_line_is_cut_and_ended),
        cmocka_unit_test(test_log_below_the_level_is_silent),
        cmocka_unit_test(test_error_text_holds_the_sentence_and_fits),
        cmocka_unit_test(test_every_status_has_its_own_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
