/* The GGUF reader on the real files of the test data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/model/gguf.h"

static const char *data_folder;

static void check_file(const char *path)
{
    struct gguf *g;
    struct error err;

    if (gguf_open(&g, path, &err) != OK)
        fail_msg("%s", err.text);
    assert_non_null(gguf_find(g, "tokenizer.ggml.tokens"));
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++)
        assert_int_equal((uintptr_t)gguf_tensor(g, i)->data % 32, 0);
    gguf_close(g);
}

static void check_all_in(const char *sub)
{
    char path[1024];
    int opened = 0;

    snprintf(path, sizeof path, "%s/%s", data_folder, sub);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".gguf"))
            continue;
        snprintf(path, sizeof path, "%s/%s/%s", data_folder, sub, e->d_name);
        check_file(path);
        opened++;
    }
    closedir(d);
    assert_true(opened > 0);
}

static void test_real_models_open(void **state)
{
    (void)state;
    check_all_in("models");
}

static void test_real_vocabularies_open(void **state)
{
    (void)state;
    check_all_in("vocabs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_models_open),
        cmocka_unit_test(test_real_vocabularies_open),
    };
    data_folder = getenv("WOOLLY_TEST_DATA");
    if (!data_folder)
        data_folder = "../shared/data";
    if (access(data_folder, R_OK)) {
        printf("NOT RUN: no test data at %s\n", data_folder);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
