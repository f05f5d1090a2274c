/* The GGUF reader: files are built in memory byte by byte, then bent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/model/gguf.h"

/* Writing a file */

static void put(struct buffer *b, const void *bytes, size_t len)
{
    buffer_append(b, bytes, len);
}

static void put_u32(struct buffer *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put_u64(struct buffer *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static void put_string(struct buffer *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static void put_header(struct buffer *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static void put_key(struct buffer *b, const char *key, uint32_t kind)
{
    put_string(b, key);
    put_u32(b, kind);
}

static void put_key_u32(struct buffer *b, const char *key, uint32_t value)
{
    put_key(b, key, GGUF_U32);
    put_u32(b, value);
}

static void put_array(struct buffer *b, const char *key, uint32_t element, uint64_t count)
{
    put_key(b, key, GGUF_ARRAY);
    put_u32(b, element);
    put_u64(b, count);
}

/* A tensor of two dimensions. */
static void put_tensor(struct buffer *b, const char *name, uint64_t columns, uint64_t rows, uint32_t type,
                       uint64_t offset)
{
    put_string(b, name);
    put_u32(b, 2);
    put_u64(b, columns);
    put_u64(b, rows);
    put_u32(b, type);
    put_u64(b, offset);
}

static void put_padding(struct buffer *b, size_t alignment)
{
    while (b->len % alignment)
        put(b, "", 1);
}

/* Every kind of value, arrays of numbers, bools and strings, two tensors: F32 [4][2] and Q8_0 [64][1]. */
static struct buffer small_file(uint32_t version)
{
    struct buffer b = { 0 };
    float f32 = 1.5f;
    double f64 = -2.25;

    put_header(&b, version, 2, 17);
    put_key(&b, "u8", GGUF_U8), put(&b, "\xfe", 1);
    put_key(&b, "i8", GGUF_I8), put(&b, "\xfe", 1);
    put_key(&b, "u16", GGUF_U16), put(&b, "\xfe\xff", 2);
    put_key(&b, "i16", GGUF_I16), put(&b, "\xfe\xff", 2);
    put_key(&b, "u32", GGUF_U32), put_u32(&b, 4000000000u);
    put_key(&b, "i32", GGUF_I32), put_u32(&b, (uint32_t)-7);
    put_key(&b, "f32", GGUF_F32), put(&b, &f32, sizeof f32);
    put_key(&b, "yes", GGUF_BOOL), put(&b, "\1", 1);
    put_key(&b, "general.name", GGUF_STRING), put_string(&b, "tiny \xe2\x96\x81");
    put_key(&b, "u64", GGUF_U64), put_u64(&b, UINT64_MAX);
    put_key(&b, "i64", GGUF_I64), put_u64(&b, (uint64_t)-9);
    put_key(&b, "f64", GGUF_F64), put(&b, &f64, sizeof f64);
    put_array(&b, "scores", GGUF_F32, 2), put(&b, &f32, sizeof f32), put(&b, &f32, sizeof f32);
    put_array(&b, "types", GGUF_I16, 3), put(&b, "\1\0\xff\xff\2\0", 6);
    put_array(&b, "flags", GGUF_BOOL, 2), put(&b, "\1\0", 2);
    put_array(&b, "tokens", GGUF_STRING, 3), put_string(&b, "<s>"), put_string(&b, ""), put_string(&b, "a");
    put_key_u32(&b, "general.alignment", 64);
    put_tensor(&b, "first.weight", 4, 2, WEIGHT_F32, 0);
    put_tensor(&b, "second.weight", 64, 1, WEIGHT_Q8_0, 64);
    put_padding(&b, 64);
    for (int i = 0; i < 64 + 68; i++)
        put(&b, &(char){ (char)i }, 1);
    return b;
}

/* Opening */

/* From a copy of exactly that many bytes, so that a read past the end is noticed by the sanitizer. */
static enum status open_bytes(const void *bytes, size_t len, struct gguf **g, void **copy, struct error *err)
{
    *copy = xmalloc(len ? len : 1);
    if (len)
        memcpy(*copy, bytes, len);
    return gguf_open_memory(g, *copy, len, err);
}

static void check_error_text(const char *text)
{
    if (!strstr(text, " at offset ") || !strstr(text, ": "))
        fail_msg("names no field and offset: %s", text);
    assert_true(utf8_is_valid(text, strlen(text)));
    for (const char *c = text; *c; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
}

/* Frees b. */
static void expect_error(struct buffer *b, enum status want, const char *wanted_text)
{
    struct gguf *g;
    struct error err = { 0 };
    void *copy;
    enum status s = open_bytes(b->data, b->len, &g, &copy, &err);

    if (s != want || !strstr(err.text, wanted_text))
        fail_msg("wanted %s with '%s', got %s: %s", status_name(want), wanted_text, status_name(s), err.text);
    assert_null(g);
    assert_int_equal(err.status, want);
    assert_memory_equal(err.text, "(memory): ", 10);
    check_error_text(err.text);
    free(copy);
    buffer_fini(b);
}

static void check_small(const struct gguf *g, uint32_t version)
{
    const struct gguf_value *v;
    const struct gguf_tensor *t;

    assert_int_equal(gguf_version(g), version);
    assert_int_equal(gguf_n_entries(g), 17);
    assert_int_equal(gguf_n_tensors(g), 2);
    assert_true(gguf_string_is(gguf_entry(g, 4)->key, "u32"));
    assert_int_equal(gguf_find(g, "u8")->u, 254);
    assert_int_equal(gguf_find(g, "i8")->i, -2);
    assert_int_equal(gguf_find(g, "u16")->u, 65534);
    assert_int_equal(gguf_find(g, "i16")->i, -2);
    assert_int_equal(gguf_find(g, "u32")->u, 4000000000u);
    assert_int_equal(gguf_find(g, "i32")->i, -7);
    assert_true(gguf_find(g, "f32")->f == 1.5);
    assert_int_equal(gguf_find(g, "yes")->u, 1);
    assert_true(gguf_string_is(gguf_find(g, "general.name")->string, "tiny \xe2\x96\x81"));
    assert_true(gguf_find(g, "u64")->u == UINT64_MAX);
    assert_int_equal(gguf_find(g, "i64")->i, -9);
    assert_true(gguf_find(g, "f64")->f == -2.25);
    v = gguf_find(g, "scores");
    assert_true(v->count == 2 && gguf_array_double(v, 1) == 1.5 && gguf_array_int(v, 1) == 1);
    v = gguf_find(g, "types");
    assert_true(v->count == 3 && gguf_array_int(v, 1) == -1 && gguf_array_double(v, 2) == 2);
    v = gguf_find(g, "flags");
    assert_true(gguf_array_int(v, 0) == 1 && gguf_array_int(v, 1) == 0);
    v = gguf_find(g, "tokens");
    assert_int_equal(v->count, 3);
    assert_true(gguf_string_is(v->strings[0], "<s>") && gguf_string_is(v->strings[1], "") &&
                gguf_string_is(v->strings[2], "a"));
    assert_null(gguf_find(g, "u3"));
    assert_null(gguf_find(g, ""));

    t = gguf_find_tensor(g, "second.weight");
    assert_ptr_equal(t, gguf_tensor(g, 1));
    assert_true(t->type == WEIGHT_Q8_0 && t->n_dims == 2 && t->dims[0] == 64 && t->dims[1] == 1 &&
                t->dims[2] == 1 && t->dims[3] == 1 && t->bytes == 68 && t->part == 0);
    assert_int_equal(((const unsigned char *)t->data)[0], 64);
    assert_int_equal(gguf_find_tensor(g, "first.weight")->bytes, 32);
    assert_null(gguf_find_tensor(g, "third.weight"));
}

static void test_good_files_of_both_versions_are_read(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct buffer b = small_file(version);
        struct gguf *g;
        struct error err;
        void *copy;
        assert_int_equal(open_bytes(b.data, b.len, &g, &copy, &err), OK);
        check_small(g, version);
        assert_int_equal(gguf_file_bytes(g), b.len);
        gguf_close(g);
        free(copy);
        buffer_fini(&b);
    }
}

static void test_typed_reads_convert_or_explain(void **state)
{
    struct buffer b = small_file(3);
    struct gguf *g;
    struct error err = { 0 };
    uint64_t u = 42;
    double f = 42;
    bool yes = false;
    struct gguf_string text;
    (void)state;

    assert_int_equal(gguf_open_memory(&g, b.data, b.len, &err), OK);
    assert_true(gguf_get_u64(g, "u8", &u, &err) == OK && u == 254);
    assert_true(gguf_get_double(g, "f32", &f, &err) == OK && f == 1.5);
    assert_true(gguf_get_double(g, "f64", &f, &err) == OK && f == -2.25);
    assert_true(gguf_get_bool(g, "yes", &yes, &err) == OK && yes);
    assert_true(gguf_get_string(g, "general.name", &text, &err) == OK && text.len == 8);

    u = 42;
    assert_true(gguf_get_u64(g, "absent", &u, &err) == E_NOTFOUND && u == 42);
    assert_string_equal(err.text, "");
    assert_int_equal(gguf_get_u64(g, "i32", &u, &err), E_FORMAT);
    assert_non_null(strstr(err.text, "(memory): key \"i32\" at offset "));
    assert_int_equal(gguf_get_u64(g, "f32", &u, &err), E_FORMAT);
    assert_int_equal(gguf_get_double(g, "general.name", &f, &err), E_FORMAT);
    assert_int_equal(gguf_get_bool(g, "u8", &yes, &err), E_FORMAT);
    assert_int_equal(gguf_get_string(g, "tokens", &text, &err), E_FORMAT);
    check_error_text(err.text);
    assert_int_equal(u, 42);
    gguf_close(g);
    buffer_fini(&b);
}

static void test_numbers_out_of_range_become_the_nearest_integer(void **state)
{
    static const double values[] = { 1e300, -1e300, 0.0 / 0.0, 7.9 };
    struct buffer b = { 0 };
    struct gguf *g;
    struct error err;
    (void)state;

    put_header(&b, 3, 0, 2);
    put_array(&b, "f", GGUF_F64, 4), put(&b, values, sizeof values);
    put_array(&b, "u", GGUF_U64, 1), put_u64(&b, UINT64_MAX);
    assert_int_equal(gguf_open_memory(&g, b.data, b.len, &err), OK);
    const struct gguf_value *f = gguf_find(g, "f");
    assert_true(gguf_array_int(f, 0) == INT64_MAX && gguf_array_int(f, 1) == INT64_MIN);
    assert_true(gguf_array_int(f, 2) == INT64_MIN && gguf_array_int(f, 3) == 7);
    assert_true(gguf_array_int(gguf_find(g, "u"), 0) == INT64_MAX);
    gguf_close(g);
    buffer_fini(&b);
}

/* Broken files */

static void test_file_cut_at_any_byte_is_refused_with_field_and_offset(void **state)
{
    struct buffer b = small_file(3);
    (void)state;
    for (size_t len = 0; len < b.len; len++) {
        struct buffer cut = { 0 };
        put(&cut, b.data, len);
        expect_error(&cut, E_FORMAT, " at offset ");
    }
    put(&b, "padding", 7); /* more than is needed does no harm */
    struct gguf *g;
    struct error err;
    assert_int_equal(gguf_open_memory(&g, b.data, b.len, &err), OK);
    gguf_close(g);
    buffer_fini(&b);
}

/* Small changes anywhere either leave a file that can be walked or give a clear error. */
static void test_any_changed_byte_is_harmless(void **state)
{
    static const unsigned char changes[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
    struct buffer b = small_file(3);
    (void)state;
    for (size_t at = 0; at < b.len; at++) {
        for (size_t k = 0; k < sizeof changes; k++) {
            struct gguf *g;
            struct error err = { 0 };
            void *copy;
            char old = b.data[at];
            b.data[at] = (char)changes[k];
            if (open_bytes(b.data, b.len, &g, &copy, &err) == OK)
                gguf_close(g);
            else
                check_error_text(err.text);
            free(copy);
            b.data[at] = old;
        }
    }
    buffer_fini(&b);
}

static void test_header_errors_are_named(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    put(&b, "GGML", 4), put_u32(&b, 3);
    expect_error(&b, E_FORMAT, "magic at offset 0: is not \"GGUF\"");
    put_header(&b, 1, 0, 0);
    expect_error(&b, E_UNSUPPORTED, "version at offset 4: is 1");
    put_header(&b, 4, 0, 0);
    expect_error(&b, E_UNSUPPORTED, "version at offset 4: is 4");
    put_header(&b, __builtin_bswap32(3), 0, 0);
    expect_error(&b, E_UNSUPPORTED, "version at offset 4: big-endian");
    put_header(&b, 3, UINT64_MAX, 0);
    expect_error(&b, E_FORMAT, "tensor count at offset 8: is 18446744073709551615");
    put_header(&b, 3, 0, UINT64_MAX / 8);
    expect_error(&b, E_FORMAT, "key count at offset 16: ");
}

static void test_key_errors_are_named(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    put_header(&b, 3, 0, 1), put_u64(&b, UINT64_MAX - 7), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "key #0 name at offset 32: needs 18446744073709551608 bytes");
    put_header(&b, 3, 0, 1), put_key_u32(&b, "", 1), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "key #0 name at offset 24: is 0 bytes long");
    put_header(&b, 3, 0, 1), put_u64(&b, 70000);
    for (int i = 0; i < 70008; i++)
        put(&b, "k", 1);
    expect_error(&b, E_FORMAT, "name at offset 24: is 70000 bytes long");
    put_header(&b, 3, 0, 1), put_key(&b, "what", 13), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "key \"what\" kind at offset 36: unknown kind of value 13");
    put_header(&b, 3, 0, 2), put_key_u32(&b, "again", 1), put_key_u32(&b, "again", 2);
    expect_error(&b, E_FORMAT, "key \"again\" value at offset 62: the key appears twice");
    put_header(&b, 3, 0, 1), put_key(&b, "text", GGUF_STRING), put_u64(&b, 1ULL << 63);
    expect_error(&b, E_FORMAT, "key \"text\" value at offset 48: needs 9223372036854775808 bytes");
    put_header(&b, 3, 0, 1), put_key(&b, "bool", GGUF_BOOL), put(&b, "\2", 1);
    expect_error(&b, E_FORMAT, "key \"bool\" value at offset 40: is 2, not a truth value");
}

static void test_array_errors_are_named(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    put_header(&b, 3, 0, 1), put_array(&b, "deep", GGUF_ARRAY, 1), put_u64(&b, 0);
    expect_error(&b, E_UNSUPPORTED, "key \"deep\" element kind at offset 40: arrays of arrays");
    put_header(&b, 3, 0, 1), put_array(&b, "many", GGUF_U64, (1ULL << 61) + 1), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "key \"many\" element count at offset 44: 2305843009213693953 elements");
    put_header(&b, 3, 0, 1), put_array(&b, "many", GGUF_STRING, 1ULL << 60), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "element count at offset 44");
    put_header(&b, 3, 0, 1), put_array(&b, "list", GGUF_STRING, 2), put_string(&b, "ok"), put_u64(&b, 99);
    expect_error(&b, E_FORMAT, "key \"list\" element at offset 70: needs 99 bytes");
    put_header(&b, 3, 0, 1), put_array(&b, "bits", GGUF_BOOL, 3), put(&b, "\1\0\3", 3);
    expect_error(&b, E_FORMAT, "key \"bits\" value at offset 54: is 3");
    put_header(&b, 3, 0, 1), put_array(&b, "odd", 77, 1), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "key \"odd\" element kind at offset 39: unknown kind of value 77");
}

static void test_alignment_must_be_a_sane_power_of_two(void **state)
{
    static const uint32_t bad[] = { 0, 1, 4, 48, 1u << 31 };
    struct buffer b = { 0 };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_header(&b, 3, 0, 1), put_key_u32(&b, "general.alignment", bad[i]);
        expect_error(&b, E_FORMAT, "key \"general.alignment\" at offset 53: is ");
    }
    put_header(&b, 3, 0, 1), put_key(&b, "general.alignment", GGUF_STRING), put_string(&b, "32");
    expect_error(&b, E_FORMAT, "key \"general.alignment\" at offset 53: is of type string");
}

/* A file of one tensor "t" with these dimensions, then room for data. */
static void put_shape(struct buffer *b, uint32_t n_dims, const uint64_t *dims, uint32_t type)
{
    put_header(b, 3, 1, 0);
    put_string(b, "t");
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put_u64(b, dims[i]);
    put_u32(b, type);
    put_u64(b, 0);
    put_padding(b, 32);
    for (int i = 0; i < 64; i++)
        put(b, "", 1);
}

static void test_tensor_errors_are_named(void **state)
{
    struct buffer b = { 0 };
    (void)state;
    put_shape(&b, 0, NULL, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "tensor \"t\" dimension count at offset 33: is 0");
    put_shape(&b, 5, (uint64_t[]){ 1, 1, 1, 1, 1 }, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "tensor \"t\" dimension count at offset 33: is 5");
    put_shape(&b, 2, (uint64_t[]){ 4, 0 }, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "tensor \"t\" dimension at offset 45: dimension 1 is 0");
    put_shape(&b, 2, (uint64_t[]){ 1ULL << 32, 1ULL << 32 }, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "too many elements");
    put_shape(&b, 2, (uint64_t[]){ 1ULL << 62, 2 }, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "dimension 1 is 2: too many elements");
    put_shape(&b, 1, (uint64_t[]){ 1ULL << 62 }, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "more bytes than can be counted");
    put_shape(&b, 1, (uint64_t[]){ 1ULL << 61 }, WEIGHT_F32);
    expect_error(&b, E_FORMAT, "tensor \"t\" data at offset 64: needs 9223372036854775808 bytes");
    put_shape(&b, 1, (uint64_t[]){ 33 }, WEIGHT_Q4_0);
    expect_error(&b, E_FORMAT, "rows of 33 elements are no multiple of Q4_0's block of 32");
    put_shape(&b, 2, (uint64_t[]){ 16, 2 }, WEIGHT_Q4_0);
    expect_error(&b, E_FORMAT, "rows of 16 elements");
    put_shape(&b, 1, (uint64_t[]){ 4 }, 4); /* a type the format has dropped */
    expect_error(&b, E_UNSUPPORTED, "tensor \"t\" type at offset 45: unknown type 4");
    put_shape(&b, 1, (uint64_t[]){ 4 }, 4000000000u);
    expect_error(&b, E_UNSUPPORTED, "unknown type 4000000000");

    put_header(&b, 3, 1, 0), put_tensor(&b, "", 1, 1, WEIGHT_F32, 0), put_u64(&b, 0);
    expect_error(&b, E_FORMAT, "tensor #0 name at offset 24: is 0 bytes");
    put_header(&b, 3, 1, 0), put_tensor(&b, "t", 1, 1, WEIGHT_F32, 8);
    expect_error(&b, E_FORMAT,
                 "tensor \"t\" data offset at offset 57: is 8, no multiple of the alignment 32");
    /* Added to the data's start this one wraps to a place inside the file. */
    put_header(&b, 3, 1, 0), put_tensor(&b, "t", 1, 1, WEIGHT_F32, 0 - 32ULL), put_padding(&b, 96);
    expect_error(&b, E_FORMAT, "tensor \"t\" data at offset 18446744073709551615: needs 4 bytes");
    put_header(&b, 3, 1, 0), put_tensor(&b, "t", 1, 1, WEIGHT_F32, 1ULL << 40);
    expect_error(&b, E_FORMAT, "tensor \"t\" data at offset 1099511627872: needs 4 bytes");

    put_header(&b, 3, 2, 0);
    put_tensor(&b, "t", 1, 1, WEIGHT_F32, 0), put_tensor(&b, "t", 2, 1, WEIGHT_F32, 32);
    put_padding(&b, 32);
    for (int i = 0; i < 64; i++)
        put(&b, "", 1);
    expect_error(&b, E_FORMAT, "tensor \"t\" data at offset 160: the name appears twice");
}

static void test_hostile_names_are_escaped_and_shortened(void **state)
{
    struct buffer b = { 0 };
    char name[301];
    (void)state;
    memset(name, 'x', 300), name[300] = 0;
    memcpy(name, "\033[31m\n\xff\"\xe2\x80\xae", 11);
    put_header(&b, 3, 1, 0), put_tensor(&b, name, 0, 1, WEIGHT_F32, 0);
    expect_error(&b, E_FORMAT, "tensor \"\\x1B[31m\\n\\xFF\\\"\\u202Exxx");
    put_header(&b, 3, 1, 0), put_tensor(&b, name, 0, 1, WEIGHT_F32, 0);
    expect_error(&b, E_FORMAT, "xxx...\" dimension");
}

static void test_printable_text_fits_its_room(void **state)
{
    char out[8], large[40];
    (void)state;
    assert_string_equal(gguf_printable((struct gguf_string){ "abcdefg", 7 }, out, sizeof out), "abcdefg");
    assert_string_equal(gguf_printable((struct gguf_string){ "abcdefgh", 8 }, out, sizeof out), "abcd...");
    assert_string_equal(gguf_printable((struct gguf_string){ "\1\2\3", 3 }, out, sizeof out), "\\x01...");
    assert_string_equal(gguf_printable((struct gguf_string){ NULL, 0 }, out, sizeof out), "");
    assert_string_equal(
        gguf_printable((struct gguf_string){ "\xe2\x96\x81\tz\xe2\x96", 7 }, large, sizeof large),
        "\xe2\x96\x81\\tz\\xE2\\x96");
}

/* Names that a hash without a key would put into few slots. The loop is far under a second or it hangs. */
static void test_many_keys_are_found(void **state)
{
    enum { N = 20000 };
    struct buffer b = { 0 };
    struct gguf *g;
    struct error err;
    char key[16];
    (void)state;
    put_header(&b, 3, 0, N);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(key, sizeof key, "key.%u", i);
        put_key_u32(&b, key, i);
    }
    assert_int_equal(gguf_open_memory(&g, b.data, b.len, &err), OK);
    for (uint32_t i = 0; i < N; i++) {
        uint64_t u;
        snprintf(key, sizeof key, "key.%u", i);
        assert_true(gguf_get_u64(g, key, &u, &err) == OK && u == i);
    }
    gguf_close(g);
    buffer_fini(&b);
}

/* Files */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/woolly-gguf-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    DIR *d = opendir(folder);
    (void)state;
    for (struct dirent *e; d && (e = readdir(d));)
        if (unlinkat(dirfd(d), e->d_name, 0))
            unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
    closedir(d);
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Frees b. */
static void write_file(const char *name, struct buffer *b)
{
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    if (b->len)
        assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
    buffer_fini(b);
}

static void expect_open_error(const char *name, enum status want, const char *wanted_text)
{
    struct gguf *g;
    struct error err = { 0 };
    enum status s = gguf_open(&g, in_folder(name), &err);
    if (s != want || !strstr(err.text, wanted_text) || !strstr(err.text, name))
        fail_msg("wanted %s with '%s', got %s: %s", status_name(want), wanted_text, status_name(s), err.text);
    assert_null(g);
}

static void test_file_on_disk_is_mapped_and_named(void **state)
{
    struct buffer b = small_file(2);
    struct gguf *g;
    struct error err;
    (void)state;
    write_file("good.gguf", &b);
    assert_int_equal(gguf_open(&g, in_folder("good.gguf"), &err), OK);
    check_small(g, 2);
    assert_string_equal(gguf_path(g), in_folder("good.gguf"));
    assert_int_equal((uintptr_t)gguf_tensor(g, 0)->data % 64, 0);
    gguf_close(g);

    b = small_file(3);
    b.len -= 1;
    write_file("short.gguf", &b);
    expect_open_error("short.gguf", E_FORMAT, "short.gguf: tensor \"second.weight\" data at offset ");
}

static void test_what_is_no_file_is_refused_at_once(void **state)
{
    (void)state;
    struct buffer empty = { 0 };
    write_file("empty.gguf", &empty);
    assert_int_equal(mkfifo(in_folder("pipe.gguf"), 0600), 0);
    assert_int_equal(mkdir(in_folder("folder.gguf"), 0700), 0);
    expect_open_error("empty.gguf", E_FORMAT, "magic at offset 0: the file is empty");
    expect_open_error("pipe.gguf", E_INVALID, "is a pipe");
    expect_open_error("folder.gguf", E_INVALID, "is a folder");
    expect_open_error("absent.gguf", E_NOTFOUND, "there is no such file");
}

/* Part `number` (from 0) of `count`, with one tensor of that name. */
static struct buffer split_part(uint32_t number, uint32_t count, uint32_t total, const char *tensor)
{
    struct buffer b = { 0 };
    put_header(&b, 3, 1, number ? 3 : 4);
    if (!number)
        put_key_u32(&b, "only.in.first", 17);
    put_key(&b, "split.no", GGUF_U16), put(&b, &(uint16_t){ (uint16_t)number }, 2);
    put_key(&b, "split.count", GGUF_U16), put(&b, &(uint16_t){ (uint16_t)count }, 2);
    put_key(&b, "split.tensors.count", GGUF_I32), put_u32(&b, total);
    put_tensor(&b, tensor, 2, 1, WEIGHT_F32, 0);
    put_padding(&b, 32);
    put_u32(&b, number), put_u32(&b, 0);
    return b;
}

static void write_split(const char *prefix, uint32_t total, const char *second_tensor)
{
    static const char *const tensors[] = { "a", NULL, "c" };
    for (uint32_t i = 0; i < 3; i++) {
        char name[64];
        struct buffer b = split_part(i, 3, total, tensors[i] ? tensors[i] : second_tensor);
        snprintf(name, sizeof name, "%s-%05u-of-00003.gguf", prefix, i + 1);
        write_file(name, &b);
    }
}

static void test_any_part_of_a_split_opens_all(void **state)
{
    (void)state;
    write_split("split", 3, "b");
    for (int i = 1; i <= 3; i++) {
        char name[64];
        struct gguf *g;
        struct error err = { 0 };
        uint64_t u;
        snprintf(name, sizeof name, "split-%05d-of-00003.gguf", i);
        if (gguf_open(&g, in_folder(name), &err) != OK)
            fail_msg("%s", err.text);
        assert_true(gguf_n_parts(g) == 3 && gguf_n_tensors(g) == 3);
        assert_true(gguf_get_u64(g, "only.in.first", &u, &err) == OK && u == 17);
        assert_int_equal(gguf_find_tensor(g, "b")->part, 1);
        assert_int_equal(*(const uint32_t *)gguf_find_tensor(g, "c")->data, 2);
        gguf_close(g);
    }
}

static void test_broken_splits_are_named(void **state)
{
    (void)state;
    write_split("gone", 3, "b");
    unlink(in_folder("gone-00002-of-00003.gguf"));
    struct gguf *g;
    struct error err = { 0 };
    assert_int_equal(gguf_open(&g, in_folder("gone-00003-of-00003.gguf"), &err), E_NOTFOUND);
    assert_non_null(strstr(err.text, "gone-00002-of-00003.gguf: there is no such file"));

    write_split("twice", 3, "a");
    expect_open_error("twice-00002-of-00003.gguf", E_FORMAT, "tensor \"a\" data at offset ");
    write_split("total", 4, "b");
    expect_open_error("total-00001-of-00003.gguf", E_FORMAT, "\"split.tensors.count\" at offset ");
    write_split("swap", 3, "b");
    struct buffer b = split_part(2, 3, 3, "b");
    write_file("swap-00002-of-00003.gguf", &b);
    assert_int_equal(gguf_open(&g, in_folder("swap-00001-of-00003.gguf"), &err), E_FORMAT);
    assert_non_null(strstr(err.text, "says part 3 of 3, the name says part 2 of 3"));

    b = split_part(0, 3, 3, "a");
    write_file("plain.gguf", &b);
    expect_open_error("plain.gguf", E_FORMAT, "must end in \"-00001-of-00003.gguf\"");
    b = split_part(3, 3, 3, "a");
    write_file("high-00004-of-00003.gguf", &b);
    expect_open_error("high-00004-of-00003.gguf", E_FORMAT, "\"split.no\" at offset ");
    b = split_part(0, 3, 3, "a");
    expect_error(&b, E_UNSUPPORTED, "a split model cannot be read from memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_files_of_both_versions_are_read),
        cmocka_unit_test(test_typed_reads_convert_or_explain),
        cmocka_unit_test(test_numbers_out_of_range_become_the_nearest_integer),
        cmocka_unit_test(test_file_cut_at_any_byte_is_refused_with_field_and_offset),
        cmocka_unit_test(test_any_changed_byte_is_harmless),
        cmocka_unit_test(test_header_errors_are_named),
        cmocka_unit_test(test_key_errors_are_named),
        cmocka_unit_test(test_array_errors_are_named),
        cmocka_unit_test(test_alignment_must_be_a_sane_power_of_two),
        cmocka_unit_test(test_tensor_errors_are_named),
        cmocka_unit_test(test_hostile_names_are_escaped_and_shortened),
        cmocka_unit_test(test_printable_text_fits_its_room),
        cmocka_unit_test(test_many_keys_are_found),
        cmocka_unit_test(test_file_on_disk_is_mapped_and_named),
        cmocka_unit_test(test_what_is_no_file_is_refused_at_once),
        cmocka_unit_test(test_any_part_of_a_split_opens_all),
        cmocka_unit_test(test_broken_splits_are_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
