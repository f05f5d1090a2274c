/* The hash of a text for tables that are filled from a file: keyed at random, so that a hostile file cannot
 * choose texts that all fall into one slot.
 *
 * A text is a polynomial over the field of 2^61 - 1 elements with seven bytes to a coefficient and its length
 * in front. Two texts of n bytes agree at a random point with probability n / 2^61, whoever chose them. The
 * last lines spread the result over all 64 bits; they take nothing away, being one to one. */
#ifndef WOOLLY_COMMON_KEYED_HASH_H
#define WOOLLY_COMMON_KEYED_HASH_H

#include <bsd/stdlib.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_FIELD ((1ULL << 61) - 1)

/* a * b + c in the field; a and b are in it, c < 2^56. */
static inline uint64_t hash_multiply_add(uint64_t a, uint64_t b, uint64_t c)
{
    unsigned __int128 sum = (unsigned __int128)a * b + c;
    uint64_t folded = (uint64_t)(sum & HASH_FIELD) + (uint64_t)(sum >> 61);
    return folded >= HASH_FIELD ? folded - HASH_FIELD : folded;
}

/* point: the key, a random number below HASH_FIELD, the same for all texts of a table. */
static inline uint64_t keyed_hash(uint64_t point, const char *text, uint64_t len)
{
    enum { STEP = 7 };
    uint64_t h = len % HASH_FIELD, word = 0;

    for (; len >= STEP; text += STEP, len -= STEP) {
        memcpy(&word, text, STEP);
        h = hash_multiply_add(h, point, word);
    }
    word = 0;
    for (uint64_t i = 0; i < len; i++)
        word = word << 8 | (unsigned char)text[i];
    h = hash_multiply_add(h, point, word);
    h = hash_multiply_add(h, point, 0);
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* A key for a new table. */
static inline uint64_t keyed_hash_point(void)
{
    uint64_t point;
    arc4random_buf(&point, sizeof point);
    return point % HASH_FIELD;
}

#endif
