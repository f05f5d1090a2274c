/* A tokenizer over a vocabulary made in memory, for the tests of the token folder. A test begins a fixture in
 * its own way, adds to the file, finishes it, checks and ends it. */
#ifndef WOOLLY_TESTS_TOKENIZER_FIXTURE_H
#define WOOLLY_TESTS_TOKENIZER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/unit/vocab_file.h"
#include "worker/token/tokenizer.h"

struct fixture {
    struct vocab_file file;
    struct gguf *g;
    struct tokenizer *t;
};

static inline void finish(struct fixture *x)
{
    struct error err = { 0 };

    vocab_file_finish(&x->file);
    if (gguf_open_memory(&x->g, x->file.bytes.data, x->file.bytes.len, &err) != OK)
        fail_msg("%s", err.text);
    if (tokenizer_create(&x->t, x->g, &err) != OK)
        fail_msg("%s", err.text);
}

static inline void end(struct fixture *x)
{
    tokenizer_destroy(x->t);
    gguf_close(x->g);
    vocab_file_fini(&x->file);
}

/* Encodes and compares with a list that ends at -1. */
static inline void check_ids(const struct fixture *x, const char *text, size_t len, unsigned flags,
                             const int32_t *want)
{
    struct token_list got = { 0 };

    tokenizer_encode(x->t, text, len, flags, &got);
    for (size_t i = 0; i < got.n; i++) {
        if (got.ids[i] != want[i])
            fail_msg("\"%.*s\": token %zu is %d, not %d", (int)len, text, i, got.ids[i], want[i]);
    }
    assert_int_equal(want[got.n], -1);
    token_list_fini(&got);
}

#define CHECK(x, text, flags, ...)                                                                           \
    check_ids(x, text, strlen(text), flags, (const int32_t[]){ __VA_ARGS__, -1 })

#endif
