/* A checksum that runs as fast as memory is read, to notice bytes that were lost or changed by accident. It
 * is no defence against someone who chooses bytes: who may write where it is used may write anything there.
 *
 * Eight lanes each take every eighth word of 64 bits. Every step is one to one in what the lane held before,
 * so a change of one word changes the result for certain, others but for one in 2^64. */
#ifndef WOOLLY_COMMON_CHECKSUM_H
#define WOOLLY_COMMON_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CHECKSUM_FACTOR 0x9e3779b97f4a7c15u

/* Takes a word into a running checksum; order counts. One to one in either argument. */
static inline uint64_t checksum_add(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * CHECKSUM_FACTOR;
    return sum ^ sum >> 29;
}

static inline uint64_t checksum_bytes(const void *bytes, size_t n)
{
    enum { LANES = 8, STEP = LANES * sizeof(uint64_t) };
    const char *at = bytes;
    uint64_t lane[LANES] = { 1, 2, 3, 4, 5, 6, 7, 8 }, words[LANES], sum = n;

    for (size_t left = n; left > 0; left -= left < STEP ? left : STEP, at += STEP) {
        if (left < STEP)
            memset(words, 0, sizeof words);
        memcpy(words, at, left < STEP ? left : STEP);
        for (int i = 0; i < LANES; i++) {
            uint64_t product = (lane[i] ^ words[i]) * CHECKSUM_FACTOR;
            lane[i] = product << 29 | product >> 35;
        }
    }
    for (int i = 0; i < LANES; i++)
        sum = checksum_add(sum, lane[i]);
    return sum;
}

/* The checksum of a piece of something larger: those of all pieces are added up, in any order. */
static inline uint64_t checksum_piece(uint64_t place, const void *bytes, size_t n)
{
    return checksum_add(checksum_add(place, checksum_bytes(bytes, n)), place);
}

#endif
