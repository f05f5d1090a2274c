/* Saved pages: what one cache wrote another finds again, and a file that was changed in any place is refused
 * before its pages are used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/kv/page.h"
#include "worker/kv/saved.h"
#include "worker/kv/saved_file.h"

enum { MODEL = 4711, DEPTH = 4 };

static const struct kv_shape small = {
    .type = KV_Q8, .head_dim = 8, .n_layers = 2, .n_kv_heads = 1, .n_slots = 2, .n_ctx = DEPTH * KV_BLOCK
};
static const struct kv_salt salt = { .n = 3, .bytes = "abc" };

static char folder[] = "/tmp/woolly-test-saved-XXXXXX";
static char *path;

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    path = xasprintf("%s/pages", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    free(path);
    return rmdir(folder); /* fails when anything was left behind */
}

static void open_cache(struct kv_cache *c, struct kv_shape shape)
{
    struct error err;
    if (kv_cache_init(c, &shape, &err) != OK)
        fail_msg("%s", err.text);
}

static const int32_t *tokens_of(int page)
{
    static int32_t tokens[KV_BLOCK];
    for (int i = 0; i < KV_BLOCK; i++)
        tokens[i] = page * KV_BLOCK + i;
    return tokens;
}

static char *content(const struct kv_cache *c, int slot, int page)
{
    return c->memory + (size_t)kv_cache_table(c, slot)[page] * c->page_bytes;
}

static char byte_of(int page, size_t i)
{
    return (char)(page * 31 + (int)(i * 7 % 251));
}

/* Slot 0 gets n pages, of which the first n_published are published. */
static void fill(struct kv_cache *c, int n, int n_published)
{
    assert_true(kv_cache_reserve(c, 0, 0, n * KV_BLOCK));
    for (int page = 0; page < n; page++) {
        for (size_t i = 0; i < c->page_bytes; i++)
            content(c, 0, page)[i] = byte_of(page, i);
        if (page < n_published)
            assert_true(kv_cache_publish(c, 0, page, tokens_of(page), salt));
    }
}

/* The pages are there for a slot that begins, with their content. */
static void expect_pages(struct kv_cache *c, int n)
{
    for (int page = 0; page < n; page++) {
        assert_true(kv_cache_adopt(c, 0, page, tokens_of(page), salt));
        for (size_t i = 0; i < c->page_bytes; i++)
            assert_int_equal(content(c, 0, page)[i], byte_of(page, i));
    }
    if (n < DEPTH)
        assert_false(kv_cache_adopt(c, 0, n, tokens_of(n), salt));
    kv_cache_truncate(c, 0, 0);
    kv_cache_check(c);
}

static void write_file(int n, int n_published)
{
    struct kv_cache c;
    struct error err;
    open_cache(&c, small);
    fill(&c, n, n_published);
    if (kv_saved_write(&c, 0, MODEL, path, &err) != OK)
        fail_msg("%s", err.text);
    kv_cache_fini(&c);
}

static void test_published_pages_come_back(void **state)
{
    (void)state;
    struct kv_cache c;
    struct error err;
    struct stat st;
    int n_tokens;
    write_file(4, 3);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    open_cache(&c, small);
    assert_int_equal(kv_saved_read(&c, 1, MODEL, path, &n_tokens, &err), OK);
    assert_int_equal(n_tokens, 3 * KV_BLOCK);
    assert_int_equal(kv_cache_available(&c), c.shape.n_pages);
    expect_pages(&c, 3);
    assert_int_equal(kv_saved_read(&c, 1, MODEL, path, &n_tokens, &err), OK); /* all there already */
    assert_int_equal(n_tokens, 3 * KV_BLOCK);
    assert_int_equal(kv_cache_counts(&c).published, 3);
    kv_cache_fini(&c);
}

static void test_what_does_not_fit_is_left_out_from_the_end(void **state)
{
    (void)state;
    struct kv_cache c;
    struct kv_shape shape = small;
    struct error err;
    int n_tokens;
    write_file(4, 4);
    shape.n_ctx = 2 * KV_BLOCK + 1; /* three pages a slot, of which the third is never full */
    open_cache(&c, shape);
    assert_int_equal(kv_saved_read(&c, 1, MODEL, path, &n_tokens, &err), OK);
    assert_int_equal(n_tokens, 2 * KV_BLOCK);
    kv_cache_fini(&c);

    shape = small;
    shape.n_pages = 4;
    open_cache(&c, shape);
    assert_true(kv_cache_reserve(&c, 0, 0, 3 * KV_BLOCK));
    assert_int_equal(kv_saved_read(&c, 1, MODEL, path, &n_tokens, &err), OK);
    assert_int_equal(n_tokens, KV_BLOCK);
    kv_cache_truncate(&c, 0, 0);
    expect_pages(&c, 1);
    kv_cache_fini(&c);
}

static void test_a_file_of_another_model_or_kind_of_cache_is_refused(void **state)
{
    (void)state;
    struct kv_shape shapes[] = { small, small, small, small, small };
    write_file(2, 2);
    shapes[1].type = KV_F16;
    shapes[2].head_dim = 9;
    shapes[3].n_layers = 1;
    shapes[4].n_kv_heads = 2;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct kv_cache c;
        struct error err = { 0 };
        int n_tokens = -1;
        open_cache(&c, shapes[i]);
        assert_int_equal(kv_saved_read(&c, 1, MODEL + (i == 0), path, &n_tokens, &err), E_UNSUPPORTED);
        assert_int_equal(n_tokens, 0);
        assert_non_null(strstr(err.text, path));
        kv_cache_fini(&c);
    }
}

static void test_nothing_published_is_nothing_to_save(void **state)
{
    (void)state;
    struct kv_cache c;
    struct error err = { 0 };
    open_cache(&c, small);
    assert_int_equal(kv_saved_write(&c, 0, MODEL, path, &err), E_INVALID);
    fill(&c, 1, 0);
    assert_int_equal(kv_saved_write(&c, 0, MODEL, path, &err), E_INVALID);
    kv_cache_fini(&c);
}

static void test_a_folder_that_is_not_there_is_said(void **state)
{
    (void)state;
    struct kv_cache c;
    struct error err = { 0 };
    char *nowhere = xasprintf("%s/no/pages", folder);
    int n_tokens;
    open_cache(&c, small);
    fill(&c, 1, 1);
    assert_int_equal(kv_saved_write(&c, 0, MODEL, nowhere, &err), E_IO);
    assert_non_null(strstr(err.text, nowhere));
    assert_int_equal(kv_saved_read(&c, 1, MODEL, nowhere, &n_tokens, &err), E_IO);
    assert_int_equal(kv_saved_read(&c, 1, MODEL, folder, &n_tokens, &err), E_FORMAT);
    kv_cache_fini(&c);
    free(nowhere);
}

static char *read_all(size_t *n)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    char *bytes = xmalloc((size_t)st.st_size);
    *n = (size_t)st.st_size;
    assert_int_equal(read(fd, bytes, *n), st.st_size);
    close(fd);
    return bytes;
}

static void write_back(const char *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

/* Reads the file into an empty cache; where that fails, the pages that came before the fault are right. */
static enum status read_into_empty(int *n_tokens)
{
    struct kv_cache c;
    struct error err = { 0 };
    open_cache(&c, small);
    enum status s = kv_saved_read(&c, 1, MODEL, path, n_tokens, &err);
    assert_int_equal(err.status, s);
    assert_int_equal(kv_cache_available(&c), c.shape.n_pages);
    assert_int_equal(*n_tokens % KV_BLOCK, 0);
    expect_pages(&c, *n_tokens / KV_BLOCK);
    kv_cache_fini(&c);
    return s;
}

static void test_a_change_of_any_byte_is_noticed(void **state)
{
    (void)state;
    size_t n;
    int n_tokens;
    write_file(2, 2);
    char *bytes = read_all(&n);
    for (size_t i = 0; i < n; i += i < 1024 ? 1 : 61) {
        bytes[i] = (char)(bytes[i] ^ 1 << i % 8);
        write_back(bytes, n);
        assert_int_not_equal(read_into_empty(&n_tokens), OK);
        bytes[i] = (char)(bytes[i] ^ 1 << i % 8);
    }
    write_back(bytes, n);
    assert_int_equal(read_into_empty(&n_tokens), OK);
    free(bytes);
}

static void test_a_file_of_any_other_length_is_refused(void **state)
{
    (void)state;
    size_t n;
    int n_tokens;
    write_file(2, 2);
    char *bytes = read_all(&n), *longer = xcalloc(2, n);
    memcpy(longer, bytes, n);
    for (size_t len = 0; len <= n + 8; len += len < 512 || len > n - 8 ? 1 : 97) {
        write_back(longer, len);
        assert_int_equal(read_into_empty(&n_tokens), len == n ? OK : E_FORMAT);
    }
    free(longer);
    free(bytes);
}

/* Headers that are whole but tell nonsense, as another program might write them. */
static void test_a_header_that_tells_nonsense_is_refused(void **state)
{
    (void)state;
    size_t n;
    write_file(2, 2);
    char *bytes = read_all(&n);
    for (int i = 0; i < 6; i++) {
        struct saved_header h;
        int n_tokens;
        memcpy(&h, bytes, sizeof h);
        h.n_pages = i == 0 ? 0 : i == 1 ? 1 : i == 2 ? 3 : i == 3 ? UINT32_MAX : h.n_pages;
        h.salt_bytes = i == 4 ? KV_SALT_BYTES + 1 : h.salt_bytes;
        h.layout = i == 5 ? h.layout + 1 : h.layout;
        h.checksum = saved_header_checksum(&h);
        char *changed = xmalloc(n);
        memcpy(changed, bytes, n);
        memcpy(changed, &h, sizeof h);
        write_back(changed, n);
        assert_int_equal(read_into_empty(&n_tokens), i == 5 ? E_UNSUPPORTED : E_FORMAT);
        assert_int_equal(n_tokens, 0);
        free(changed);
    }
    free(bytes);
}

static void test_a_new_file_replaces_the_old_one(void **state)
{
    (void)state;
    int n_tokens;
    write_file(3, 3);
    write_file(1, 1);
    assert_int_equal(read_into_empty(&n_tokens), OK);
    assert_int_equal(n_tokens, KV_BLOCK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_pages_come_back),
        cmocka_unit_test(test_what_does_not_fit_is_left_out_from_the_end),
        cmocka_unit_test(test_a_file_of_another_model_or_kind_of_cache_is_refused),
        cmocka_unit_test(test_nothing_published_is_nothing_to_save),
        cmocka_unit_test(test_a_folder_that_is_not_there_is_said),
        cmocka_unit_test(test_a_change_of_any_byte_is_noticed),
        cmocka_unit_test(test_a_file_of_any_other_length_is_refused),
        cmocka_unit_test(test_a_header_that_tells_nonsense_is_refused),
        cmocka_unit_test(test_a_new_file_replaces_the_old_one),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
