/* The blocks of quantised weights as they lie in the file, and how each becomes numbers. Multi-byte fields
 * are little-endian; a file's blocks are aligned to two bytes at least. Types of one block are 32 elements
 * long, the _K, IQ4_XS and TQ types 256.
 *
 * Every dequantise_*(out, row, n) reads n elements of a row (whole blocks) into out. Any bytes are a valid
 * block: a scale may be infinite or NaN, and so may the numbers then. */
#ifndef WOOLLY_KERNELS_BLOCKS_H
#define WOOLLY_KERNELS_BLOCKS_H

#include <stdint.h>

enum { LONG_BLOCK = 256 };

struct block_q8_0 {
    uint16_t scale; /* f16 */
    int8_t q[32];   /* weight = scale * q */
};

struct block_q4_0 {
    uint16_t scale; /* f16 */
    uint8_t q[16];  /* weight i is scale * ((q[i] & 15) - 8), weight i + 16 is scale * ((q[i] >> 4) - 8) */
};

struct block_q4_1 {
    uint16_t scale, base; /* f16; weight = scale * q + base */
    uint8_t q[16];        /* halves as in Q4_0 */
};

struct block_q5_0 {
    uint16_t scale;  /* f16; weight = scale * (q - 16) */
    uint8_t high[4]; /* bit 4 of q: weight i has bit i % 8 of byte i / 8 */
    uint8_t q[16];   /* bits 0-3, halves as in Q4_0 */
};

struct block_q5_1 {
    uint16_t scale, base; /* f16; weight = scale * q + base */
    uint8_t high[4];
    uint8_t q[16];
};

/* Weights of sub-block s, 16 each: scale * (sub[s] & 15) * q - base * (sub[s] >> 4). */
struct block_q2_k {
    uint8_t sub[16];
    uint8_t q[64]; /* weight i of each half of 128: byte i % 32 of the half's 32, bits 2 * (i / 32) up */
    uint16_t scale, base;
};

/* Weights of sub-block s, 16 each: scale * (sub - 32) * (q - 4), q of three bits. */
struct block_q3_k {
    uint8_t high[32]; /* bit 2 of q: weight i has bit i / 32 of byte i % 32 */
    uint8_t q[64];    /* bits 0-1, as in Q2_K */
    uint8_t sub[12];  /* low four bits: nibbles of bytes 0-7; high two: pairs of bits of bytes 8-11 */
    uint16_t scale;
};

/* Weights of sub-block s, 32 each: scale * (its scale) * q - base * (its base), both of six bits. */
struct block_q4_k {
    uint16_t scale, base;
    uint8_t sub[12]; /* see unpack_pair in blocks_k.c */
    uint8_t q[128];  /* each 32 bytes: low nibbles are 32 weights, high nibbles the next 32 */
};

struct block_q5_k {
    uint16_t scale, base;
    uint8_t sub[12];
    uint8_t high[32]; /* bit 4 of q: weight i has bit i / 32 of byte i % 32 */
    uint8_t q[128];
};

/* Weights of sub-block s, 16 each: scale * sub[s] * (q - 32), q of six bits. */
struct block_q6_k {
    uint8_t low[128]; /* each half of 128 weights: 64 bytes, low nibbles are 64 weights, high the next 64 */
    uint8_t high[64]; /* bits 4-5, as the bits of Q2_K */
    int8_t sub[16];
    uint16_t scale;
};

struct block_q8_k {
    float scale;
    int8_t q[256];
    int16_t sums[16]; /* of sixteen q each; a shortcut for products */
};

struct block_iq4_nl {
    uint16_t scale;
    uint8_t q[16]; /* places in iq4_values, halves as in Q4_0 */
};

/* Weights of sub-block s, 32 each: scale * (sub - 32) * value, sub of six bits. */
struct block_iq4_xs {
    uint16_t scale;
    uint16_t sub_high; /* bits 4-5 of sub: two bits each */
    uint8_t sub_low[4];
    uint8_t q[128]; /* each 16 bytes as in IQ4_NL */
};

struct block_mxfp4 {
    uint8_t exponent; /* weight = 2^(exponent - 128) * value */
    uint8_t q[16];    /* value: twice the 4-bit float, so that it is whole; halves as in Q4_0 */
};

/* Weights of -scale, 0 and scale: bytes hold up to five digits to the base three, as a fraction of 256. */
struct block_tq1_0 {
    uint8_t q[48];   /* 32 bytes of five digits, then 16 bytes of five */
    uint8_t last[4]; /* four digits each */
    uint16_t scale;
};

struct block_tq2_0 {
    uint8_t q[64]; /* as in Q2_K; weight = scale * (q - 1) */
    uint16_t scale;
};

extern const int8_t iq4_values[16];

/* 2^(exponent - 128) */
float mxfp4_scale(uint8_t exponent);

void dequantise_q8_0(float *out, const void *row, int n);
void dequantise_q4_0(float *out, const void *row, int n);
void dequantise_q4_1(float *out, const void *row, int n);
void dequantise_q5_0(float *out, const void *row, int n);
void dequantise_q5_1(float *out, const void *row, int n);
void dequantise_q2_k(float *out, const void *row, int n);
void dequantise_q3_k(float *out, const void *row, int n);
void dequantise_q4_k(float *out, const void *row, int n);
void dequantise_q5_k(float *out, const void *row, int n);
void dequantise_q6_k(float *out, const void *row, int n);
void dequantise_q8_k(float *out, const void *row, int n);
void dequantise_iq4_nl(float *out, const void *row, int n);
void dequantise_iq4_xs(float *out, const void *row, int n);
void dequantise_mxfp4(float *out, const void *row, int n);
void dequantise_tq1_0(float *out, const void *row, int n);
void dequantise_tq2_0(float *out, const void *row, int n);

#endif
