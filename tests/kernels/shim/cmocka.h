/* The little of cmocka that test_packed.c uses, for builds where the library is not there: a test that fails
 * stops the program. */
#ifndef WOOLLY_TESTS_SHIM_CMOCKA_H
#define WOOLLY_TESTS_SHIM_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(function)                                                                           \
    {                                                                                                        \
#function, function                                                                                  \
    }
#define print_message printf

#define fail_msg(...)                                                                                        \
    do {                                                                                                     \
        fprintf(stderr, __VA_ARGS__);                                                                        \
        fprintf(stderr, "\n");                                                                               \
        exit(1);                                                                                             \
    } while (0)

#define assert_true(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            fail_msg("%s:%d: not true: %s", __FILE__, __LINE__, #condition);                                 \
    } while (0)

#define assert_int_equal(a, b) assert_true((a) == (b))

#define cmocka_run_group_tests(tests, setup, teardown) run_tests(tests, sizeof tests / sizeof *(tests))

static int run_tests(const struct CMUnitTest *tests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf("%s\n", tests[i].name);
        fflush(stdout);
        tests[i].run(NULL);
    }
    return 0;
}

#endif
