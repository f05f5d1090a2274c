/* Tokens as the reference engine has them: the prompts of every golden file, and the conformance cases of
 * well-known vocabularies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/token/tokenizer.h"

struct subject {
    struct gguf *g;
    struct tokenizer *t;
};

static const char *data_folder(void)
{
    const char *folder = getenv("WOOLLY_TEST_DATA");

    return folder ? folder : "../shared/data";
}

static void subject_open(struct subject *s, const char *path)
{
    struct error err = { 0 };

    if (gguf_open(&s->g, path, &err) != OK)
        fail_msg("%s", err.text);
    if (tokenizer_create(&s->t, s->g, &err) != OK)
        fail_msg("%s", err.text);
}

static void subject_close(struct subject *s)
{
    tokenizer_destroy(s->t);
    gguf_close(s->g);
}

static void read_whole_file(const char *path, struct buffer *out)
{
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!f)
        fail_msg("cannot open %s", path);
    do {
        n = fread(buffer_reserve(out, 65536), 1, 65536, f);
        out->len += n;
    } while (n);
    fclose(f);
    buffer_append(out, "", 1);
    out->len--;
}

static void decode_hex(const char *hex, struct buffer *out)
{
    for (; hex[0] && hex[1]; hex += 2) {
        unsigned byte;
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        char c = (char)byte;
        buffer_append(out, &c, 1);
    }
}

static void print_ids(const char *what, const int32_t *ids, size_t n)
{
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, " %d", ids[i]);
    fprintf(stderr, "\n");
}

static void check_ids(const char *where, const struct token_list *got, const int32_t *want, size_t n)
{
    if (got->n == n && (!n || !memcmp(got->ids, want, n * sizeof(*want))))
        return;
    print_ids("expected", want, n);
    print_ids("got", got->ids, got->n);
    fail_msg("%s: other ids than the reference", where);
}

static void check_encode(const struct subject *s, const struct buffer *text, unsigned flags,
                         const json_t *want, const char *where)
{
    struct token_list got = { 0 }, expected = { 0 };

    for (size_t i = 0; i < json_array_size(want); i++)
        token_list_push(&expected, (int32_t)json_integer_value(json_array_get(want, i)));
    tokenizer_encode(s->t, text->data, text->len, flags, &got);
    check_ids(where, &got, expected.ids, expected.n);
    token_list_fini(&got);
    token_list_fini(&expected);
}

static void check_pieces(const struct subject *s, const json_t *ids, const char *hex, const char *where)
{
    struct buffer want = { 0 }, got = { 0 };

    decode_hex(hex, &want);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(ids, i));
        tokenizer_decode(s->t, &id, 1, &got);
    }
    if (got.len != want.len || (got.len && memcmp(got.data, want.data, got.len) != 0))
        fail_msg("%s: the pieces make \"%.*s\", not \"%.*s\"", where, (int)got.len, got.data, (int)want.len,
                 want.data);
    buffer_fini(&want);
    buffer_fini(&got);
}

/* Where the reference engine gives up, a character that is not in the vocabulary is the unknown token: 0 in
 * every file here. */
static void check_unknown(const struct subject *s, const struct buffer *text, const char *where)
{
    struct token_list got = { 0 };
    bool has_unknown = false;

    tokenizer_encode(s->t, text->data, text->len, 0, &got);
    for (size_t i = 0; i < got.n; i++)
        has_unknown = has_unknown || got.ids[i] == 0;
    if (!has_unknown)
        fail_msg("%s: expected an unknown token", where);
    token_list_fini(&got);
}

/* Compares one golden file; returns the number of prompts. */
static int check_golden(const char *path)
{
    char *name = xstrdup(strrchr(path, '/') + 1);
    *strrchr(name, '.') = 0;
    char *model = xasprintf("%s/models/%s.gguf", data_folder(), name);
    json_t *root = json_load_file(path, 0, NULL), *prompts = json_object_get(root, "tokens");
    struct subject s;
    int n = (int)json_array_size(prompts);

    assert_true(n > 0);
    subject_open(&s, model);
    for (int i = 0; i < n; i++) {
        const json_t *p = json_array_get(prompts, (size_t)i), *plain = json_object_get(p, "ids_no_special");
        struct buffer text = { 0 };
        char *where = xasprintf("%s prompt %d", name, i);

        decode_hex(json_string_value(json_object_get(p, "hex")), &text);
        if (json_object_get(p, "error")) {
            check_unknown(&s, &text, where);
        } else {
            check_encode(&s, &text, ENCODE_BOS, json_object_get(p, "ids"), where);
            check_encode(&s, &text, 0, plain, where);
            check_encode(&s, &text, ENCODE_BOS | ENCODE_SPECIAL, json_object_get(p, "ids_parse_special"),
                         where);
            check_pieces(&s, plain, json_string_value(json_object_get(p, "pieces_hex")), where);
        }
        buffer_fini(&text);
        free(where);
    }
    subject_close(&s);
    json_decref(root);
    free(model);
    free(name);
    return n;
}

static int check_golden_files(const char *pattern)
{
    char *path = xasprintf("%s/golden/%s", data_folder(), pattern);
    glob_t found;
    int n = 0;

    assert_int_equal(glob(path, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (!strstr(found.gl_pathv[i], ".ref64."))
            n += check_golden(found.gl_pathv[i]);
    }
    globfree(&found);
    free(path);
    return n;
}

/* A case ends at the marker line; its ids stand on the line of the same number. */
static int check_vocabulary(const char *name)
{
    static const char marker[] = "\n__ggml_vocab_test__\n";
    char *model = xasprintf("%s/vocabs/%s.gguf", data_folder(), name);
    char *inputs = xasprintf("%s.inp", model), *outputs = xasprintf("%s.out", model);
    struct buffer in = { 0 }, out = { 0 };
    struct subject s;
    int n = 0;

    subject_open(&s, model);
    read_whole_file(inputs, &in);
    read_whole_file(outputs, &out);
    char *line = out.data;
    for (char *text = in.data, *end; (end = strstr(text, marker)); text = end + strlen(marker), n++) {
        struct token_list got = { 0 }, want = { 0 };
        char *where = xasprintf("%s case %d", name, n), *line_end = strchr(line, '\n'), *after;

        assert_non_null(line_end);
        for (*line_end = 0; *line; line = after) {
            token_list_push(&want, (int32_t)strtol(line, &after, 10));
            assert_ptr_not_equal(line, after);
            after += strspn(after, " ");
        }
        line = line_end + 1;
        tokenizer_encode(s.t, text, (size_t)(end - text), 0, &got);
        check_ids(where, &got, want.ids, want.n);
        token_list_fini(&got);
        token_list_fini(&want);
        free(where);
    }
    buffer_fini(&in);
    buffer_fini(&out);
    subject_close(&s);
    free(inputs);
    free(outputs);
    free(model);
    return n;
}

static void test_prompts_encode_and_decode_as_in_the_reference_engine(void **state)
{
    (void)state;
    int stories = check_golden_files("stories*.json"), babyllama = check_golden_files("babyllama*.json");
    int slm = check_golden_files("slm4096*.json");

    printf("compared: %d prompts of the stories models, %d of babyllama, %d of slm4096\n", stories, babyllama,
           slm);
    assert_true(stories > 0 && babyllama > 0 && slm > 0);
}

static void test_conformance_cases_of_known_vocabularies_pass(void **state)
{
    (void)state;
    static const char *const names[] = {
        "ggml-vocab-llama-spm",    "ggml-vocab-phi-3", "ggml-vocab-gpt-2", "ggml-vocab-falcon",
        "ggml-vocab-deepseek-llm", "ggml-vocab-mpt",   "vocab-qwen2.5",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        int n = check_vocabulary(names[i]);
        printf("compared: %d cases of %s\n", n, names[i]);
        assert_int_equal(n, 46);
    }
}

/* Letters of many scripts, signs, digits, marks and white space in runs, and now and then any character. A
 * mark for a space is left out: to SentencePiece it is a space. */
static void make_random_text(uint64_t *random, struct buffer *out)
{
    static const char *const common[] = {
        "the ",
        "in",
        "a",
        "E",
        "'s",
        "'ll",
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "7",
        "123",
        ".",
        "<",
        "|>",
        "!",
        "_",
        "\xc3\xa9",
        "\xcc\x81",
        "\xd0\xb6",
        "\xe4\xb8\xad",
        "\xe3\x81\x8b",
        "\xf0\x9f\x99\x82",
        "\xc2\xa0",
        "\xd9\xa3",
    };
    enum { SPACE_MARK = 0x2581 };
    uint32_t n_parts = 0;

    out->len = 0;
    for (uint32_t i = 0; i <= n_parts; i++) {
        *random = *random * 6364136223846793005u + 1442695040888963407u;
        uint32_t value = (uint32_t)(*random >> 33);
        n_parts = i ? n_parts : value % 24;
        const char *part = common[value % (sizeof(common) / sizeof(*common))];
        uint32_t code = value / 64 % 0x110000;
        if (value % 16 || code == SPACE_MARK || (code >= 0xd800 && code < 0xe000))
            buffer_append(out, part, strlen(part));
        else
            out->len += (size_t)utf8_put(code, buffer_reserve(out, 4));
    }
}

/* What SentencePiece puts in front of a text comes back as a space. */
static void check_round_trips(const char *name, size_t n_prefix)
{
    enum { N = 100000 };
    char *path = xasprintf("%s/%s.gguf", data_folder(), name);
    struct token_list ids = { 0 };
    struct buffer text = { 0 }, back = { 0 };
    uint64_t random = 1;
    struct subject s;

    subject_open(&s, path);
    for (int i = 0; i < N; i++) {
        make_random_text(&random, &text);
        ids.n = back.len = 0;
        tokenizer_encode(s.t, text.data, text.len, 0, &ids);
        tokenizer_decode(s.t, ids.ids, ids.n, &back);
        if (back.len != text.len + n_prefix || memcmp(back.data + n_prefix, text.data, text.len) != 0)
            fail_msg("%s: \"%.*s\" comes back as \"%.*s\"", name, (int)text.len, text.data, (int)back.len,
                     back.data);
    }
    printf("compared: %d round trips of %s\n", N, name);
    subject_close(&s);
    token_list_fini(&ids);
    buffer_fini(&text);
    buffer_fini(&back);
    free(path);
}

/* Falcon's vocabulary lacks some bytes. */
static void test_random_texts_come_back_from_vocabularies_with_every_byte(void **state)
{
    (void)state;
    check_round_trips("models/stories260K-F32", 1);
    check_round_trips("vocabs/ggml-vocab-llama-spm", 1);
    check_round_trips("vocabs/ggml-vocab-phi-3", 1);
    check_round_trips("vocabs/ggml-vocab-gpt-2", 0);
    check_round_trips("vocabs/ggml-vocab-deepseek-llm", 0);
    check_round_trips("vocabs/ggml-vocab-mpt", 0);
    check_round_trips("vocabs/vocab-qwen2.5", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_encode_and_decode_as_in_the_reference_engine),
        cmocka_unit_test(test_conformance_cases_of_known_vocabularies_pass),
        cmocka_unit_test(test_random_texts_come_back_from_vocabularies_with_every_byte),
    };

    if (access(data_folder(), R_OK) != 0) {
        printf("NOT RUN: no test data at %s\n", data_folder());
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
