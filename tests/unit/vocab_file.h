/* Builds a GGUF file in memory that holds a vocabulary and nothing else. For the tests of the tokenizer. */
#ifndef WOOLLY_TESTS_VOCAB_FILE_H
#define WOOLLY_TESTS_VOCAB_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/buffer.h"

/* Zero-initialised it is empty. The buffers hold what goes between the header and the end; a test may spoil
 * them. */
struct vocab_file {
    struct buffer texts, scores, kinds; /* elements of the three arrays */
    struct buffer merges;               /* and of a fourth, which only a byte-level family has */
    struct buffer entries;              /* further keys with their values */
    uint64_t n_texts, n_entries, n_merges;
    const char *family;   /* NULL: "llama" */
    const char *left_out; /* a key that is not written */
    struct buffer bytes;  /* the file */
};

static inline void vocab_file_number(struct buffer *b, uint64_t value, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        char c = (char)(value >> (8 * i));
        buffer_append(b, &c, 1);
    }
}

static inline void vocab_file_text(struct buffer *b, const char *text, size_t len)
{
    vocab_file_number(b, len, 8);
    buffer_append(b, text, len);
}

static inline int32_t vocab_file_add_bytes(struct vocab_file *f, const char *text, size_t len, float score,
                                           int kind)
{
    uint32_t bits;

    memcpy(&bits, &score, 4);
    vocab_file_text(&f->texts, text, len);
    vocab_file_number(&f->scores, bits, 4);
    vocab_file_number(&f->kinds, (uint64_t)kind, 4);
    return (int32_t)f->n_texts++;
}

/* Returns the id. */
static inline int32_t vocab_file_add(struct vocab_file *f, const char *text, float score, int kind)
{
    return vocab_file_add_bytes(f, text, strlen(text), score, kind);
}

static inline void vocab_file_add_all_bytes(struct vocab_file *f)
{
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof(text), "<0x%02X>", i);
        vocab_file_add(f, text, 0, 6);
    }
}

/* kind and n_bytes are of the file format: 4 and 4 for an unsigned number, 7 and 1 for a truth value. */
static inline void vocab_file_put(struct vocab_file *f, const char *key, uint32_t kind, uint64_t value,
                                  size_t n_bytes)
{
    vocab_file_text(&f->entries, key, strlen(key));
    vocab_file_number(&f->entries, kind, 4);
    vocab_file_number(&f->entries, value, n_bytes);
    f->n_entries++;
}

static inline void vocab_file_put_number(struct vocab_file *f, const char *key, uint32_t value)
{
    vocab_file_put(f, key, 4, value, 4);
}

static inline void vocab_file_put_bool(struct vocab_file *f, const char *key, int value)
{
    vocab_file_put(f, key, 7, (uint64_t)value, 1);
}

static inline void vocab_file_put_text(struct vocab_file *f, const char *key, const char *text)
{
    vocab_file_put(f, key, 8, strlen(text), 8);
    buffer_append(&f->entries, text, strlen(text));
}

static inline void vocab_file_array(struct vocab_file *f, const char *key, uint32_t kind, uint64_t n,
                                    const struct buffer *elements)
{
    if (f->left_out && !strcmp(f->left_out, key))
        return;
    vocab_file_put(f, key, 9, kind, 4);
    vocab_file_number(&f->entries, n, 8);
    buffer_append(&f->entries, elements->data, elements->len);
}

/* "a b": the token ab, which must exist, may be made of these. */
static inline void vocab_file_add_merge(struct vocab_file *f, const char *merge)
{
    vocab_file_text(&f->merges, merge, strlen(merge));
    f->n_merges++;
}

/* Writes f->bytes. Once per file. */
static inline void vocab_file_finish(struct vocab_file *f)
{
    if (!f->left_out || strcmp(f->left_out, "tokenizer.ggml.model") != 0)
        vocab_file_put_text(f, "tokenizer.ggml.model", f->family ? f->family : "llama");
    vocab_file_put_text(f, "general.architecture", "llama");
    vocab_file_array(f, "tokenizer.ggml.tokens", 8, f->n_texts, &f->texts);
    vocab_file_array(f, "tokenizer.ggml.scores", 6, f->scores.len / 4, &f->scores);
    vocab_file_array(f, "tokenizer.ggml.token_type", 5, f->kinds.len / 4, &f->kinds);
    if (f->family && !strcmp(f->family, "gpt2"))
        vocab_file_array(f, "tokenizer.ggml.merges", 8, f->n_merges, &f->merges);
    buffer_append(&f->bytes, "GGUF\3\0\0\0", 8);
    vocab_file_number(&f->bytes, 0, 8);
    vocab_file_number(&f->bytes, f->n_entries, 8);
    buffer_append(&f->bytes, f->entries.data, f->entries.len);
}

static inline void vocab_file_fini(struct vocab_file *f)
{
    buffer_fini(&f->texts);
    buffer_fini(&f->scores);
    buffer_fini(&f->kinds);
    buffer_fini(&f->merges);
    buffer_fini(&f->entries);
    buffer_fini(&f->bytes);
}

#endif
