/* Byte-level byte-pair merging (GPT-2 and its many heirs): text is cut by a rule (pretoken.h), every stretch
 * starts as its bytes, and neighbours merge in the order of the file's list. Read-only after bpe_init. */
#ifndef WOOLLY_TOKEN_BPE_H
#define WOOLLY_TOKEN_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/token/pretoken.h"
#include "worker/token/tokenizer.h"
#include "worker/token/vocab.h"

/* Two neighbours that may become one token. */
struct bpe_pair {
    int32_t left, right; /* -1: an empty slot */
    int32_t rank;        /* place in the list: the lowest merges first */
    int32_t joint;
};

struct bpe {
    const struct vocab *vocab;
    const struct pretoken_rule *rule;
    int32_t byte_ids[256];  /* -1: the vocabulary lacks it, and text loses it */
    struct bpe_pair *pairs; /* hash table */
    size_t n_pairs;         /* a power of two */
    uint64_t hash_point;    /* the key of the hash */
};

/* Reads tokenizer.ggml.merges and .pre. v and g must outlive *b. On failure *b is empty and err names the
 * key. A merge whose parts or result are no tokens is left out: it could not be written. */
MUST_CHECK enum status bpe_init(struct bpe *b, const struct vocab *v, const struct gguf *g,
                                struct error *err);
void bpe_fini(struct bpe *b);

/* Appends the ids of text. What is not valid UTF-8 becomes U+FFFD, one for each byte. Time O(len log len),
 * memory O(len). */
void bpe_encode(const struct bpe *b, const char *text, size_t len, struct token_list *out);

#endif
