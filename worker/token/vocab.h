/* The vocabulary of a model as its file states it, checked, with a lookup from bytes to id. Knows nothing of
 * how text is cut into tokens. Read-only after vocab_init; keeps pointers into the file. */
#ifndef WOOLLY_TOKEN_VOCAB_H
#define WOOLLY_TOKEN_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/model/gguf.h"

/* The numbers of tokenizer.ggml.token_type. */
enum token_kind {
    TOKEN_UNDEFINED,
    TOKEN_NORMAL,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE,
    TOKEN_N_KINDS,
};

/* Sets of kinds for vocab_find. */
#define TOKEN_SET(kind) (1u << (kind))

enum {
    VOCAB_MAX_TOKENS = 1 << 22,   /* a guess: ten times the largest vocabulary seen */
    VOCAB_MAX_TOKEN_BYTES = 1024, /* a guess: the longest seen are runs of 128 spaces */
};

struct vocab_slot {
    uint32_t tag; /* upper half of the hash */
    int32_t id;   /* -1: empty */
};

struct vocab {
    int n;
    const struct gguf_string *texts; /* [n], as in the file: "▁" for a space, "<0x0A>" for a byte */
    float *scores;                   /* [n], no NaN; NULL where the family has none */
    uint8_t *kinds;                  /* [n], enum token_kind */
    int32_t byte_ids[256];           /* the byte token of each byte, or -1 */
    int32_t unknown;                 /* stands for what cannot be written otherwise; -1: nothing does */
    struct vocab_slot *slots;
    size_t n_slots;      /* a power of two */
    uint64_t hash_point; /* the key of keyed_hash */
};

/* Reads tokenizer.ggml.tokens, .scores, .token_type and .unknown_token_id. Where tokens have no scores those
 * are not read, and a file without kinds has only normal tokens. `unknown` counts where the file names no
 * token and has one of this number. On failure *v is empty and err names the key. */
MUST_CHECK enum status vocab_init(struct vocab *v, const struct gguf *g, bool has_scores, int32_t unknown,
                                  struct error *err);
void vocab_fini(struct vocab *v);

/* Reads a key that holds an id of this vocabulary; *out stays as it is when the key is absent. */
MUST_CHECK enum status vocab_read_id(const struct vocab *v, const struct gguf *g, const char *key,
                                     int32_t *out, struct error *err);

/* The id of the token spelled so and of one of the kinds in the set, or -1. Where a file spells two tokens of
 * one kind alike the later one counts. */
int32_t vocab_find(const struct vocab *v, const char *text, size_t len, unsigned kinds);

/* The byte that token `id`, of kind TOKEN_BYTE, stands for. */
int vocab_byte(const struct vocab *v, int32_t id);

#endif
