/* Any bytes as text for vocabularies made in memory: SentencePiece with every byte, where decoding must give
 * the text back, and of a few letters, where every id must be in range; and byte-level merging, where
 * decoding must give back valid text, under a rule for cutting that the first byte chooses. It chooses the
 * flags too. */
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
    struct error err = { 0 };

    vocab_file_add(f, "<unk>", 0, 2);
    vocab_file_add(f, "<s>", 0, 3);
    vocab_file_add(f, "</s>", 0, 3);
    for (int i = 0; i < (int)(sizeof(words) / sizeof(*words)); i++)
        vocab_file_add(f, words[i], (float)(-i % 5), 1);
    vocab_file_add(f, "<b>", 0, 4);
    vocab_file_add(f, "aaaa", 0, 4);
    if (has_bytes)
        vocab_file_add_all_bytes(f);
    vocab_file_finish(f);
    require(gguf_open_memory(&x->g, f->bytes.data, f->bytes.len, &err) == OK);
    require(tokenizer_create(&x->t, x->g, &err) == OK);
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
    struct error err = { 0 };

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
    vocab_file_finish(f);
    require(gguf_open_memory(&x->g, f->bytes.data, f->bytes.len, &err) == OK);
    require(tokenizer_create(&x->t, x->g, &err) == OK);
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
        "default", "gpt-2",  "starcoder", "falcon",       "llama-bpe",      "qwen2",
        "qwen35",  "tekken", "gpt-4o",    "deepseek-llm", "deepseek-coder", "deepseek-v3",
        "bloom",   "viking", "minicpm5",  "seed-coder",
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (!len)
        return 0;
    const char *text = (const char *)bytes + 1;
    unsigned flags = bytes[0] & (ENCODE_BOS | ENCODE_SPECIAL);
    fuzz_spm(text, len - 1, flags);
    fuzz_bpe(text, len - 1, flags, bytes[0] / 4);
    return 0;
}
