/* Text from elsewhere on its way to a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "proto/cli/terminal.h"

static const char hostile[] = "a\x1b[2J\xc2\x9bm\xe2\x80\xae\x07\r\x7f\xff\xe2\x80z\n\t\xc3\xa9";

static void test_names_lose_control_characters_and_broken_bytes(void **state)
{
    (void)state;
    char out[100];
    terminal_clean(hostile, out, sizeof out);
    assert_string_equal(out, "a?[2J?m???????z??\xc3\xa9");
}

static void test_names_are_cut_between_characters(void **state)
{
    (void)state;
    char out[4];
    terminal_clean("ab\xc3\xa9", out, sizeof out);
    assert_string_equal(out, "ab");
    terminal_clean("a\xc3\xa9z", out, sizeof out);
    assert_string_equal(out, "a\xc3\xa9");
}

/* What arrives at the other side of `fd_out` when the hostile text is written to `fd_in`. */
static void pass(int fd_in, int fd_out, char *out, size_t size)
{
    FILE *f = fdopen(fd_in, "w");
    assert_non_null(f);
    assert_true(terminal_write(f, hostile, strlen(hostile)));
    fclose(f);
    /* A terminal gets each line by itself, so one read may not be enough. */
    size_t len = 0;
    for (ssize_t n; len < size - 1 && (n = read(fd_out, out + len, size - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = 0;
    close(fd_out);
}

static void test_terminal_gets_only_newline_and_tab_of_the_control_characters(void **state)
{
    (void)state;
    int ours, theirs;
    struct termios raw;
    char out[100];
    memset(&raw, 0, sizeof raw);
    cfmakeraw(&raw);
    if (openpty(&ours, &theirs, NULL, &raw, NULL) != 0) {
        puts("NOT RUN: no pseudo-terminals here");
        skip();
    }
    pass(theirs, ours, out, sizeof out);
    assert_string_equal(out, "a[2Jmz\n\t\xc3\xa9");
}

static void test_pipe_gets_every_byte(void **state)
{
    (void)state;
    int fds[2];
    char out[100];
    assert_int_equal(pipe(fds), 0);
    pass(fds[1], fds[0], out, sizeof out);
    assert_string_equal(out, hostile);
}

static void test_closed_pipe_is_reported(void **state)
{
    (void)state;
    FILE *f = fopen("/dev/full", "w");
    if (!f)
        skip();
    assert_false(terminal_write(f, "x", 1));
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_lose_control_characters_and_broken_bytes),
        cmocka_unit_test(test_names_are_cut_between_characters),
        cmocka_unit_test(test_terminal_gets_only_newline_and_tab_of_the_control_characters),
        cmocka_unit_test(test_pipe_gets_every_byte),
        cmocka_unit_test(test_closed_pipe_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
