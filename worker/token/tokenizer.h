/* The tokenizer of a model, built from its GGUF file: text to token ids and back. Families, by
 * tokenizer.ggml.model: SentencePiece merging ("llama"), byte-level merging ("gpt2"), SentencePiece unigram
 * ("t5") and WordPiece ("bert"). Read-only after creation; any thread, any forked child. */
#ifndef WOOLLY_TOKEN_TOKENIZER_H
#define WOOLLY_TOKEN_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buffer.h"
#include "common/status.h"
#include "worker/model/gguf.h"

/* A growable run of ids. Zero-initialised it is empty; the owner calls token_list_fini. */
struct token_list {
    int32_t *ids;
    size_t n, cap;
};

void token_list_push(struct token_list *l, int32_t id);
void token_list_fini(struct token_list *l);

enum encode_flags {
    ENCODE_BOS = 1,     /* put the beginning- and end-of-text tokens around it that the model wants */
    ENCODE_SPECIAL = 2, /* text that spells a control token becomes that token */
};

struct tokenizer;

/* What one call of tokenizer_encode takes at most; the caller checks. */
enum { TOKENIZER_MAX_BYTES = 256 << 20 };

/* The handle keeps pointers into g, which must outlive it. */
MUST_CHECK enum status tokenizer_create(struct tokenizer **out, const struct gguf *g, struct error *err);
void tokenizer_destroy(struct tokenizer *t);

int tokenizer_n_vocab(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 when there is none */
int32_t tokenizer_eos(const struct tokenizer *t);

/* True for every id that ends a text (end of sequence, end of turn, ...). */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);

/* Appends the ids of text (any bytes) to *out. What is not valid UTF-8 becomes byte tokens where
 * SentencePiece merges, U+FFFD in byte-level and unigram vocabularies, and nothing in WordPiece, as in the
 * reference engine. Time is O(len log len), memory O(len). */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                      struct token_list *out);

/* The bytes an id stands for in running text: "▁" (in byte-level vocabularies "Ġ") is a space, a byte token
 * is its byte, a control token and the unknown token are nothing. Valid as long as the tokenizer. An id
 * outside the vocabulary gives length 0. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len);

/* Appends the pieces of n ids to *out. */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, struct buffer *out);

#endif
