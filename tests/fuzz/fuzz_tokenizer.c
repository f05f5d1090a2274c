/* Any bytes as text for vocabularies made in memory: SentencePiece with every byte, where decoding must give
 * the text back, and of a few letters, where every id must be in range; byte-level merging, where decoding
 * must give back valid text, under a rule for cutting that the first byte chooses; unigram with every byte,
 * where valid text must come back, and WordPiece. The first byte chooses the flags too. Then the same bytes
 * as a unigram file's list of replacements. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "tests/unit/vocab_file.h"
#include "worker/token/byte_letters.h"
#include "worker/token/tokenizer.h"

#define SPACE "\xe2\x96\x81"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(int holds)
{
    if (!holds)
        abort();
}

/* Lives as long as the process. */
struct subject {
    struct vocab_file file;
    struct gguf *g;
    struct tokenizer *t;
};

static void open_subject(struct subject *x)
{
    struct error err = { 0 };

    vocab_file_finish(&x->file);
    require(gguf_open_memory(&x->g, x->file.bytes.data, x->file.bytes.len, &err) == OK);
    require(tokenizer_create(&x->t, x->g, &err) == OK);
}

static void make_tokenizer(struct subject *x, int has_bytes)
{
    struct vocab_file *f = &x->file;
    static const char *const words[] = { SPACE,
                                         "a",
                                         "b",
                                         "\xc3\xa9",
                                         SPACE "a",
                                         SPACE SPACE,
                                         "ab",
                                         "aa",
                                         "ba",
                                         SPACE "ab",
                                         "aab",
                                         "a" SPACE,
                                         "abab",
                                         "\xc3\xa9"
                                         "a",
                                         "<",
                                         "s",
                                         ">",
                                         "s>" };

    vocab_file_add(f, "<unk>", 0, 2);
    vocab_file_add(f, "<s>", 0, 3);
    vocab_file_add(f, "</s>", 0, 3);
    for (int i = 0; i < (int)(sizeof(words) / sizeof(*words)); i++)
        vocab_file_add(f, words[i], (float)(-i % 5), 1);
    vocab_file_add(f, "<b>", 0, 4);
    vocab_file_add(f, "aaaa", 0, 4);
    if (has_bytes)
        vocab_file_add_all_bytes(f);
    open_subject(x);
}

/* Spaces and their marks are one to this family, so they are compared as one. */
static void unmark(struct buffer *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->len; n++) {
        if (b->len - i >= 3 && !memcmp(b->data + i, SPACE, 3)) {
            b->data[n] = ' ';
            i += 3;
        } else {
            b->data[n] = b->data[i++];
        }
    }
    b->len = n;
}

/* Without control tokens the text comes back behind one space for each prefix, which stands at the beginning
 * and after user-defined tokens; so all spaces are left out of the comparison. */
static void check_round_trip(const struct tokenizer *t, const char *text, size_t len,
                             const struct token_list *ids)
{
    struct buffer want = { 0 }, got = { 0 };

    buffer_append(&want, text, len);
    tokenizer_decode(t, ids->ids, ids->n, &got);
    struct buffer *sides[] = { &want, &got };
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        unmark(sides[i]);
        for (size_t k = 0; k < sides[i]->len; k++) {
            if (sides[i]->data[k] != ' ')
                sides[i]->data[n++] = sides[i]->data[k];
        }
        sides[i]->len = n;
    }
    require(want.len == got.len && (!want.len || !memcmp(want.data, got.data, want.len)));
    buffer_fini(&want);
    buffer_fini(&got);
}

static void make_byte_level(struct subject *x, const char *rule)
{
    static const char *const merges[] = {
        "a a",
        "aa aa",
        "\xc4\xa0 a",
        "a b",
        "' s",
        "1 2",
        "12 3",
        "\xc4\xa0 \xc4\xa0",
        "\xc3\x83 \xc2\xa9",
        "\xc4\x8a \xc4\x8a",
    };
    struct vocab_file *f = &x->file;

    f->family = "gpt2";
    vocab_file_put_text(f, "tokenizer.ggml.pre", rule);
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, letter[4];
        size_t n = byte_letters_put(&byte, 1, letter);
        vocab_file_add_bytes(f, letter, n, 0, 1);
    }
    for (size_t i = 0; i < sizeof(merges) / sizeof(*merges); i++) {
        const char *space = strchr(merges[i], ' ');
        char joint[16] = "";
        strncat(joint, merges[i], (size_t)(space - merges[i]));
        strcat(joint, space + 1);
        vocab_file_add(f, joint, 0, 1);
        vocab_file_add_merge(f, merges[i]);
    }
    vocab_file_add(f, "<s>", 0, 3);
    vocab_file_add(f, "<b>", 0, 4);
    vocab_file_add(f, "   ", 0, 4);
    open_subject(x);
}

static void check_ids(const struct tokenizer *t, const struct token_list *ids)
{
    for (size_t k = 0; k < ids->n; k++)
        require(ids->ids[k] >= 0 && ids->ids[k] < tokenizer_n_vocab(t));
}

static void fuzz_spm(const char *text, size_t len, unsigned flags)
{
    static struct subject subjects[2]; /* without and with every byte */

    for (int i = 0; !subjects[1].t && i < 2; i++)
        make_tokenizer(&subjects[i], i);
    for (int i = 0; i < 2; i++) {
        struct token_list ids = { 0 };
        tokenizer_encode(subjects[i].t, text, len, flags, &ids);
        check_ids(subjects[i].t, &ids);
        if (i == 1 && !(flags & ENCODE_SPECIAL))
            check_round_trip(subjects[i].t, text, len, &ids);
        token_list_fini(&ids);
    }
}

static void fuzz_bpe(const char *text, size_t len, unsigned flags, unsigned choice)
{
    static const char *const rules[] = {
        "default",        "gpt-2",
        "starcoder",      "falcon",
        "llama-bpe",      "qwen2",
        "qwen35",         "tekken",
        "gpt-4o",         "deepseek-llm",
        "deepseek-coder", "deepseek-v3",
        "bloom",          "viking",
        "minicpm5",       "seed-coder",
        "spark2_5",       "afmoe",
        "superbpe",       "tiny_aya",
        "youtu",          "granite-embed-multi-97m",
        "kimi-k2",        "exaone-moe",
        "laguna",         "ufakzeka",
        "jais-2",         "chameleon",
    };
    enum { N_RULES = sizeof(rules) / sizeof(*rules) };
    static struct subject subjects[N_RULES];
    struct subject *x = &subjects[choice % N_RULES];
    struct token_list ids = { 0 };
    struct buffer back = { 0 };

    if (!x->t)
        make_byte_level(x, rules[choice % N_RULES]);
    tokenizer_encode(x->t, text, len, flags, &ids);
    check_ids(x->t, &ids);
    tokenizer_decode(x->t, ids.ids, ids.n, &back);
    require(utf8_is_valid(back.data, back.len));
    if (!(flags & ENCODE_SPECIAL) && !(flags & ENCODE_BOS) && utf8_is_valid(text, len))
        require(back.len == len && (!len || !memcmp(back.data, text, len)));
    token_list_fini(&ids);
    buffer_fini(&back);
}

static void add_words(struct vocab_file *f, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        vocab_file_add(f, words[i], (float)(-i % 7), 1);
}

static void begin_unigram(struct vocab_file *f)
{
    static const char *const words[] = { SPACE, "a", "b",  SPACE "a",  SPACE SPACE, "ab",       "aa",
                                         "ba",  "<", "s>", "\xc3\xa9", "\xa9",      "\xef\xbf", NULL };

    f->family = "t5";
    vocab_file_add(f, "<pad>", 0, 3);
    vocab_file_add(f, "</s>", 0, 3);
    vocab_file_add(f, "<unk>", 0, 2);
    add_words(f, words);
    vocab_file_add(f, "<b>", 0, 4);
}

/* Without control tokens valid text comes back, as nothing is replaced and no space is added or lost. */
static void fuzz_unigram(const char *text, size_t len, unsigned flags)
{
    static struct subject x;
    struct token_list ids = { 0 };
    struct buffer back = { 0 }, want = { 0 };

    if (!x.t) {
        begin_unigram(&x.file);
        vocab_file_add_all_bytes(&x.file);
        open_subject(&x);
    }
    tokenizer_encode(x.t, text, len, flags, &ids);
    check_ids(x.t, &ids);
    tokenizer_decode(x.t, ids.ids, ids.n, &back);
    buffer_append(&want, text, len);
    unmark(&want);
    unmark(&back);
    if (!(flags & ENCODE_SPECIAL) && utf8_is_valid(text, len))
        require(back.len == want.len && (!want.len || !memcmp(back.data, want.data, want.len)));
    token_list_fini(&ids);
    buffer_fini(&back);
    buffer_fini(&want);
}

/* The bytes as replacements, most of which are refused, and then as text. */
static void fuzz_replacements(const char *bytes, size_t len, unsigned choice)
{
    struct subject x = { 0 };
    struct buffer map = { 0 };
    struct error err = { 0 };

    begin_unigram(&x.file);
    buffer_append(&map, bytes, len);
    vocab_file_array(&x.file, "tokenizer.ggml.precompiled_charsmap", 0, len, &map);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.add_space_prefix", choice & 1);
    vocab_file_put_bool(&x.file, "tokenizer.ggml.remove_extra_whitespaces", choice >> 1 & 1);
    vocab_file_finish(&x.file);
    require(gguf_open_memory(&x.g, x.file.bytes.data, x.file.bytes.len, &err) == OK);
    if (tokenizer_create(&x.t, x.g, &err) == OK) {
        struct token_list ids = { 0 };
        tokenizer_encode(x.t, bytes, len, 0, &ids);
        check_ids(x.t, &ids);
        token_list_fini(&ids);
        tokenizer_destroy(x.t);
    }
    gguf_close(x.g);
    vocab_file_fini(&x.file);
    buffer_fini(&map);
}

static void fuzz_wordpiece(const char *text, size_t len, unsigned flags, unsigned choice)
{
    static const char *const words[] = {
        SPACE "a",      "a",        SPACE "ab", "b",       SPACE "e",
        "aba",          "\xc3\xa9", SPACE ".",  SPACE "<", SPACE "\xe7\xbe\x8a",
        "\xe1\x85\xa1", NULL
    };
    static struct subject subjects[2];
    struct subject *x = &subjects[choice % 2];
    struct token_list ids = { 0 };

    if (!x->t) {
        x->file.family = "bert";
        vocab_file_add(&x->file, "[UNK]", 0, 3);
        vocab_file_add(&x->file, "[SEP]", 0, 3);
        add_words(&x->file, words);
        vocab_file_put_number(&x->file, "tokenizer.ggml.unknown_token_id", 0);
        vocab_file_put_bool(&x->file, "tokenizer.ggml.normalizer.lowercase", (int)(choice % 2));
        open_subject(x);
    }
    tokenizer_encode(x->t, text, len, flags, &ids);
    check_ids(x->t, &ids);
    token_list_fini(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (!len)
        return 0;
    const char *text = (const char *)bytes + 1;
    unsigned flags = bytes[0] & (ENCODE_BOS | ENCODE_SPECIAL), choice = bytes[0] / 4;
    if (bytes[0] & 0x80) {
        fuzz_replacements(text, len - 1, flags);
        return 0;
    }
    fuzz_spm(text, len - 1, flags);
    fuzz_bpe(text, len - 1, flags, choice);
    fuzz_unigram(text, len - 1, flags);
    fuzz_wordpiece(text, len - 1, flags, choice);
    return 0;
}
