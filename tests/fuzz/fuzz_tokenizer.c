/* Any bytes as text for two vocabularies made in memory: one with every byte, where decoding must give the
 * text back, and one of a few letters, where every id must be in range. The first byte chooses the flags. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/vocab_file.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct subject subjects[2]; /* without and with every byte */

    for (int i = 0; !subjects[1].t && i < 2; i++)
        make_tokenizer(&subjects[i], i);
    if (!len)
        return 0;
    const char *text = (const char *)bytes + 1;
    unsigned flags = bytes[0] & (ENCODE_BOS | ENCODE_SPECIAL);
    for (int i = 0; i < 2; i++) {
        struct token_list ids = { 0 };
        tokenizer_encode(subjects[i].t, text, len - 1, flags, &ids);
        for (size_t k = 0; k < ids.n; k++)
            require(ids.ids[k] >= 0 && ids.ids[k] < tokenizer_n_vocab(subjects[i].t));
        if (i == 1 && !(flags & ENCODE_SPECIAL))
            check_round_trip(subjects[i].t, text, len - 1, &ids);
        token_list_fini(&ids);
    }
    return 0;
}
