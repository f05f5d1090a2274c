/* Expanding a super-block, written once with the compiler's vectors and compiled for each instruction set.
 * The file that includes this defines before it
 *
 *     static floats halves_to_floats(const uint8_t *p)        sixteen f16 numbers
 *     static dwords look_up(dwords line, const uint8_t *table)  each byte, 0..15, by table[byte]
 *
 * or, for scales only, EXPAND_SCALES_ONLY instead of the latter: compilers are bad at vectors that are wider
 * than those of the machine. */
#include <string.h>

#include "worker/kernels/packed_level.h"
#include "worker/kernels/simd.h"

INLINE dwords load_line(const uint8_t *p)
{
    dwords v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_line(uint8_t *p, dwords v)
{
    memcpy(p, &v, sizeof v);
}

INLINE dwords masked(dwords v, uint32_t mask)
{
    return v & mask;
}

#ifndef EXPAND_SCALES_ONLY
/* Lines of nibbles, with the bits of the planes on top of them: `plane_bits` of each, 0, 1 or 2. */
INLINE void expand_nibbles(struct expanded *e, int plane_bits, const uint8_t *table, int blocks,
                           const uint8_t *planes, const uint8_t *in)
{
    for (int p = 0; 2 * p < blocks; p++)
        for (int v = 0; v < 2; v++) {
            dwords high[2][2] = { 0 }; /* planes of the pair's two blocks */
            for (int h = 0; h < 2 && 2 * p + h < blocks; h++)
                for (int j = 0; j < plane_bits; j++)
                    high[h][j] = load_line(planes + ((2 * p + h) * plane_bits + j) * GROUP_LINE + v * LINE);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                dwords both = load_line(in + (8 * p + i) * GROUP_LINE + v * LINE);
                dwords q[2] = { masked(both, 0x0f0f0f0f), masked(both >> 4, 0x0f0f0f0f) };
#pragma GCC unroll 2
                for (int h = 0; h < 2; h++) {
                    if (table)
                        q[h] = look_up(q[h], table);
                    if (plane_bits == 1)
                        q[h] |= masked(i < 4 ? high[h][0] << (4 - i) : high[h][0] >> (i - 4), 0x10101010);
                    if (plane_bits == 2) {
                        dwords bits = high[h][i / 4];
                        int shift = 2 * (i % 4) - 4;
                        q[h] |= masked(shift < 0 ? bits << -shift : bits >> shift, 0x30303030);
                    }
                    store_line(e->buffer[16 * p + 8 * h + i] + v * LINE, q[h]);
                }
            }
        }
}

/* Lines of two bits, with a plane of a third or without. */
INLINE void expand_crumbs(struct expanded *e, bool has_plane, int blocks, const uint8_t *planes,
                          const uint8_t *in)
{
    for (int b = 0; b < blocks; b++)
        for (int v = 0; v < 2; v++) {
            dwords high = { 0 };
            if (has_plane)
                high = load_line(planes + b * GROUP_LINE + v * LINE);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                dwords q = load_line(in + (2 * b + i / 4) * GROUP_LINE + v * LINE);
                q = masked(q >> 2 * (i % 4), 0x03030303);
                if (has_plane)
                    q |= masked(i < 2 ? high << (2 - i) : high >> (i - 2), 0x04040404);
                store_line(e->buffer[8 * b + i] + v * LINE, q);
            }
        }
}

static void expand_lines(struct expanded *e, const struct pack_format *f, int blocks, const uint8_t *planes)
{
    const uint8_t *in = planes + planes_size(f->lines, blocks);
    switch (f->lines) {
    case LINES_6:
        expand_nibbles(e, 2, NULL, blocks, planes, in);
        break;
    case LINES_5:
        expand_nibbles(e, 1, NULL, blocks, planes, in);
        break;
    case LINES_4:
        expand_nibbles(e, 0, NULL, blocks, planes, in);
        break;
    case LINES_TABLE:
        expand_nibbles(e, 0, f->table, blocks, planes, in);
        break;
    case LINES_3:
        expand_crumbs(e, true, blocks, planes, in);
        break;
    case LINES_2:
        expand_crumbs(e, false, blocks, planes, in);
        break;
    default:
        break;
    }
}
#endif

INLINE void store_floats16(float *p, floats v)
{
    memcpy(p, &v, sizeof v);
}

INLINE floats to_floats(dwords v)
{
    return __builtin_convertvector((ints)v, floats);
}

/* Pair p of the six-bit fields in n_dwords dwords, as put_six_fields in pack.c lays them. */
INLINE dwords six_fields(const dwords *d, int p)
{
    if (p < 6)
        return masked(p % 2 ? d[p / 2] >> 6 : d[p / 2], 0x003f003f);
    return masked(d[p - 6] >> 12, 0x000f000f) | masked(d[2] >> (p == 6 ? 12 : 14), 0x00030003) << 4;
}

INLINE void expand_six(struct expanded *e, int n_dwords, int n_pairs, int offset, const uint8_t *in,
                       const uint8_t *scales)
{
    for (int v = 0; v < 2; v++) {
        floats whole = halves_to_floats(scales + 32 * v);
        dwords d[3];
        for (int i = 0; i < n_dwords; i++)
            d[i] = load_line(in + (v * n_dwords + i) * LINE);
#pragma GCC unroll 8
        for (int p = 0; p < n_pairs; p++) {
            dwords pair = six_fields(d, p);
            store_floats16(&e->scale[2 * p][16 * v],
                           (to_floats(masked(pair, 0xffff)) - (float)offset) * whole);
            store_floats16(&e->scale[2 * p + 1][16 * v], (to_floats(pair >> 16) - (float)offset) * whole);
        }
    }
}

static void expand_six_min(struct expanded *e, const uint8_t *in)
{
    expand_six(e, 3, 4, 0, in, in + 6 * LINE);
    for (int v = 0; v < 2; v++) {
        dwords d[3];
        store_floats16(&e->neg_base[16 * v], -halves_to_floats(in + 7 * LINE + 32 * v));
        for (int i = 0; i < 3; i++)
            d[i] = load_line(in + (v * 3 + i) * LINE);
#pragma GCC unroll 4
        for (int p = 4; p < 8; p++)
            store_line((uint8_t *)e->pairs[p - 4][16 * v], six_fields(d, p));
    }
}

static void expand_bytes(struct expanded *e, const uint8_t *in)
{
    for (int v = 0; v < 2; v++) {
        floats whole = halves_to_floats(in + 8 * LINE + 32 * v);
        for (int i = 0; i < 4; i++) {
            ints d = (ints)load_line(in + (v * 4 + i) * LINE);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                store_floats16(&e->scale[4 * i + j][16 * v],
                               to_floats((dwords)((ints)((dwords)d << (24 - 8 * j)) >> 24)) * whole);
        }
    }
}

static void expand_nibble_min(struct expanded *e, const uint8_t *in)
{
    for (int v = 0; v < 2; v++) {
        floats whole = halves_to_floats(in + 8 * LINE + 32 * v);
        store_floats16(&e->neg_base[16 * v], -halves_to_floats(in + 9 * LINE + 32 * v));
        for (int i = 0; i < 4; i++) {
            dwords d = load_line(in + (v * 4 + i) * LINE);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++)
                store_floats16(&e->scale[4 * i + j][16 * v], to_floats(masked(d >> 8 * j, 15)) * whole);
            dwords low = masked(d >> 4, 15) | masked(d >> 12, 15) << 16;
            dwords high = masked(d >> 20, 15) | masked(d >> 28, 15) << 16;
            store_line((uint8_t *)e->pairs[2 * i][16 * v], low);
            store_line((uint8_t *)e->pairs[2 * i + 1][16 * v], high);
        }
    }
}

INLINE floats brain_floats(const uint8_t *p)
{
    uint16_t half[16];
    dwords v;
    memcpy(half, p, sizeof half);
    for (int i = 0; i < 16; i++)
        v[i] = (uint32_t)half[i] << 16;
    return (floats)v;
}

static void expand_scales(struct expanded *e, enum scale_kind kind, int blocks, const uint8_t *in)
{
    switch (kind) {
    case SCALES_HALF:
        for (int b = 0; b < blocks; b++)
            for (int v = 0; v < 2; v++)
                store_floats16(&e->scale[b][16 * v], halves_to_floats(in + 64 * b + 32 * v));
        break;
    case SCALES_BF16:
        for (int b = 0; b < blocks; b++)
            for (int v = 0; v < 2; v++)
                store_floats16(&e->scale[b][16 * v], brain_floats(in + 64 * b + 32 * v));
        break;
    case SCALES_HALF_MIN:
        for (int b = 0; b < blocks; b++)
            for (int v = 0; v < 2; v++) {
                store_floats16(&e->scale[b][16 * v], halves_to_floats(in + 128 * b + 32 * v));
                store_floats16(&e->minimum[b][16 * v], halves_to_floats(in + 128 * b + 64 + 32 * v));
            }
        break;
    case SCALES_WHOLE:
        for (int b = 0; b < blocks; b++)
            memcpy(e->scale[b], in, sizeof e->scale[b]);
        break;
    case SCALES_SIX_MIN:
        expand_six_min(e, in);
        break;
    case SCALES_SIX_32:
        expand_six(e, 2, 4, 32, in, in + 4 * LINE);
        break;
    case SCALES_SIX_16:
        expand_six(e, 3, 8, 32, in, in + 6 * LINE);
        break;
    case SCALES_BYTE_16:
        expand_bytes(e, in);
        break;
    case SCALES_NIBBLE_MIN:
        expand_nibble_min(e, in);
        break;
    }
}

/* The first n of the scales times every level. */
static void expand_levels(struct expanded *e, int n)
{
    for (int s = 0; s < n; s++)
        for (int i = 0; i < PACK_ROWS; i++) {
            float scale = e->scale[s][i];
#pragma GCC unroll 8
            for (int l = 0; l < PACK_LEVELS; l++)
                e->levelled[s][l][i] = scale * (float)(l + 1);
        }
}
