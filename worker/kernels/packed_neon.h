/* Packed products with vectors of 128 bits, four outputs each, for the dot products of NEON and for its
 * matrix products. A tile keeps an integer and a float sum in registers for each of its rows and of some
 * vectors; it walks the super-block once for so many vectors and begins again for the next. The instructions
 * take signed bytes: quants of all eight bits, and those from a table, have 128 taken off.
 *
 * The file that includes this defines
 *
 *     PACKED_LEVEL    the name of its table
 *
 * before it and, after it, add_products and arrange. */
#include <arm_neon.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/packed_level.h"
#include "worker/kernels/simd.h"

INLINE floats halves_to_floats(const uint8_t *p)
{
    floats v;
    for (int i = 0; i < 4; i++) {
        float32x4_t part = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i)));
        memcpy((char *)&v + 16 * i, &part, sizeof part);
    }
    return v;
}

INLINE uint8x16_t flip(uint8x16_t bytes)
{
    return veorq_u8(bytes, vdupq_n_u8(0x80));
}

INLINE uint8x16_t look_up_bytes(uint8x16_t bytes, const uint8_t *table)
{
    return vqtbl1q_u8(flip(vld1q_u8(table)), bytes);
}

#define EXPAND_SCALES_ONLY
#include "worker/kernels/packed_expand.h"

enum { VECTOR = 16, VECTORS = GROUP_LINE / VECTOR, OUTPUTS = 4, LARGEST_TILE = 4 };

/* Places that are multiplied between two roundings to f32: n from the first on, in block b of given parity.
 */
struct places {
    int b, parity, first, n;
};

/* Adds the products of some places to dot[vector][row]. The vectors are those from v on. is_arranged: base is
 * e.buffer. */
INLINE void add_products(int rows, int vectors, enum line_kind lines, bool is_arranged,
                         int32x4_t (*dot)[LARGEST_TILE], const struct tile_facts *t, const uint8_t *base,
                         const struct activation_block *a, struct places p, int v);

/* Turns two neighbouring lines into what add_products wants to find in e.buffer. */
INLINE void arrange(int8x16_t *first, int8x16_t *second);

INLINE int vectors_of(int rows)
{
    return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

/* Bits `mask` from bit `from` up of the bytes of a line, moved to bit `to`. */
INLINE uint8x16_t load_bits(const uint8_t *lines, int line, int v, int from, int to, int mask)
{
    uint8x16_t bytes = vld1q_u8(lines + line * GROUP_LINE + v * VECTOR);
    bytes = from < to ? bytes << (to - from) : bytes >> (from - to);
    return vandq_u8(bytes, vdupq_n_u8((uint8_t)(mask << to)));
}

/* The quants of place i, as signed bytes. */
INLINE int8x16_t load_quants(enum line_kind lines, bool is_arranged, const struct tile_facts *t,
                             const uint8_t *base, struct places p, int i, int v)
{
    uint8x16_t q;
    if (lines == LINES_8) {
        q = vld1q_u8(base + (8 * p.b + i) * GROUP_LINE + v * VECTOR);
        return vreinterpretq_s8_u8(is_arranged ? q : flip(q));
    }
    if (lines == LINES_2 || lines == LINES_3) {
        q = load_bits(base, 2 * p.b + i / 4, v, 2 * (i % 4), 0, 3);
        if (lines == LINES_3)
            q = vorrq_u8(q, load_bits(t->lines, p.b, v, i, 2, 1));
        return vreinterpretq_s8_u8(q);
    }
    q = load_bits(base, p.b / 2 * 8 + i, v, 4 * p.parity, 0, 15);
    if (lines == LINES_TABLE)
        q = look_up_bytes(q, t->table);
    if (lines == LINES_5)
        q = vorrq_u8(q, load_bits(t->lines, p.b, v, i, 4, 1));
    if (lines == LINES_6)
        q = vorrq_u8(q, load_bits(t->lines, 2 * p.b + i / 4, v, 2 * (i % 4), 4, 3));
    return vreinterpretq_s8_u8(q);
}

INLINE void expand_block(enum line_kind lines, struct expanded *e, const struct tile_facts *t,
                         const uint8_t *base, struct places p, int v)
{
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        int8x16_t first = load_quants(lines, false, t, base, p, i, v);
        int8x16_t second = load_quants(lines, false, t, base, p, i + 1, v);
        arrange(&first, &second);
        vst1q_s8((int8_t *)e->buffer[8 * p.b + i] + v * VECTOR, first);
        vst1q_s8((int8_t *)e->buffer[8 * p.b + i + 1] + v * VECTOR, second);
    }
}

/* Lines of less than eight bits to bytes, signed and arranged. */
INLINE void expand_blocks(enum line_kind lines, struct expanded *e, const struct pack_format *f, int blocks,
                          const uint8_t *planes)
{
    const uint8_t *base = planes + planes_size(lines, blocks);
    struct tile_facts t = { .lines = planes, .table = f->table };
    for (int b = 0; b < blocks; b += 2)
        for (int v = 0; v < VECTORS; v++) {
            expand_block(lines, e, &t, base, (struct places){ b, 0, 0, 8 }, v);
            if (b + 1 < blocks)
                expand_block(lines, e, &t, base, (struct places){ b + 1, 1, 0, 8 }, v);
        }
}

static void expand_lines(struct expanded *e, const struct pack_format *f, int blocks, const uint8_t *planes)
{
    switch (f->lines) {
    case LINES_6:
        expand_blocks(LINES_6, e, f, blocks, planes);
        break;
    case LINES_5:
        expand_blocks(LINES_5, e, f, blocks, planes);
        break;
    case LINES_4:
        expand_blocks(LINES_4, e, f, blocks, planes);
        break;
    case LINES_TABLE:
        expand_blocks(LINES_TABLE, e, f, blocks, planes);
        break;
    case LINES_3:
        expand_blocks(LINES_3, e, f, blocks, planes);
        break;
    case LINES_2:
        expand_blocks(LINES_2, e, f, blocks, planes);
        break;
    default:
        break;
    }
}

/* What each block's dot products begin with: minus what is left of the offset, times the activations' sum. */
INLINE void correct_offset(int32_t (*init)[16], bool per_16, const struct tile_facts *t,
                           const struct activation_block *a)
{
    bool is_flipped = t->kind == LINES_8 || t->kind == LINES_TABLE;
    int offset = t->offset - (is_flipped ? 128 : 0);
    for (int i = 0; i < (per_16 ? 4 : 2); i++) {
        int16x4_t sums = vld1_s16((per_16 ? a->sums16 : a->sums) + 4 * i);
        vst1q_s32(*init + 4 * i, vmull_n_s16(sums, (int16_t)-offset));
    }
}

/* Adds four places' products: lane i of x goes with w[i]. */
INLINE int32x4_t add_four(int32x4_t dot, const int8x16_t *w, int8x16_t x)
{
    dot = vdotq_laneq_s32(dot, w[0], x, 0);
    dot = vdotq_laneq_s32(dot, w[1], x, 1);
    dot = vdotq_laneq_s32(dot, w[2], x, 2);
    return vdotq_laneq_s32(dot, w[3], x, 3);
}

/* add_products by dot products. */
INLINE void add_dot_products(int rows, int vectors, enum line_kind lines, bool is_arranged,
                             int32x4_t (*dot)[LARGEST_TILE], const struct tile_facts *t, const uint8_t *base,
                             const struct activation_block *a, struct places p, int v)
{
#pragma GCC unroll 2
    for (int i = p.first; i < p.first + p.n; i += 4)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            int8x16_t w[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                w[k] = load_quants(lines, is_arranged, t, base, p, i + k, v + j);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                dot[j][r] = add_four(dot[j][r], w, vld1q_s8(a[r].q + PACK_BLOCK * p.b + 4 * i));
        }
}

/* Sums of the tile: [vector][row]. */
struct tile_sums {
    float32x4_t part[VECTORS][LARGEST_TILE];
};

INLINE void add_minima(int rows, int vectors, enum min_kind minima, struct tile_sums *s,
                       const struct expanded *e, const struct activation_block *a, int v)
{
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++) {
        int first = (v + j) * OUTPUTS, n_pairs = minima == MIN_PAIRS_16 ? 8 : 4;
        int32x4_t dot[LARGEST_TILE];
        float32x4_t base = vld1q_f32(e->neg_base + first);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            dot[r] = vdupq_n_s32(0);
#pragma GCC unroll 8
        for (int p = 0; p < n_pairs; p++) {
            int16x4x2_t pairs = vld2_s16(e->pairs[p][first]);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const int16_t *sums =
                    minima == MIN_PAIRS_16 ? &a[r].level_sums16[2 * p] : &a[r].level_sums[2 * p];
                dot[r] = vmlal_n_s16(dot[r], pairs.val[0], sums[0]);
                dot[r] = vmlal_n_s16(dot[r], pairs.val[1], sums[1]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            s->part[j][r] = vmulq_f32(base, vcvtq_f32_s32(dot[r]));
    }
}

INLINE void add_block(int rows, int vectors, enum line_kind lines, bool is_arranged, bool per_16,
                      enum min_kind minima, bool is_levelled, struct tile_sums *sums,
                      const struct expanded *e, const struct tile_facts *t, const uint8_t *base,
                      const struct activation_block *a, int32_t (*init)[16], int b, int parity, int v)
{
    int halves = per_16 ? 2 : 1, n = 8 / halves;

    if (minima == MIN_FLOAT)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            float32x4_t minimum = vld1q_f32(e->minimum[b] + (v + j) * OUTPUTS);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                sums->part[j][r] = vfmaq_n_f32(sums->part[j][r], minimum, a[r].level_sum[b]);
        }
#pragma GCC unroll 2
    for (int half = 0; half < halves; half++) {
        int s = halves * b + half;
        int32x4_t dot[VECTORS][LARGEST_TILE];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++)
                dot[j][r] = vdupq_n_s32(init[r][s]);
        add_products(rows, vectors, lines, is_arranged, dot, t, base, a,
                     (struct places){ b, parity, half * n, n }, v);
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            int first = (v + j) * OUTPUTS;
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                float32x4_t scale = is_levelled ? vld1q_f32(e->levelled[s][a[r].step[b]] + first)
                                                : vmulq_n_f32(vld1q_f32(e->scale[s] + first), a[r].level[b]);
                sums->part[j][r] = vfmaq_f32(sums->part[j][r], vcvtq_f32_s32(dot[j][r]), scale);
            }
        }
    }
}

INLINE void tile(int rows, enum line_kind lines, bool is_arranged, bool per_16, enum min_kind minima,
                 bool is_levelled, float (*totals)[PACK_ROWS], const struct expanded *e,
                 const struct tile_facts *t, const struct activation_block *a)
{
    int32_t init[LARGEST_TILE][16];
    const uint8_t *base = t->lines + planes_size(lines, t->blocks), *prefetch = t->prefetch;
    int n_prefetch =
        (lines == LINES_8 ? 2 : 4) * t->n_prefetch; /* for the one or two blocks of an iteration */
    int vectors = vectors_of(rows);

    for (int r = 0; r < rows; r++)
        correct_offset(&init[r], per_16, t, a + r);
    for (int v = 0; v < VECTORS; v += vectors) {
        struct tile_sums sums;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++)
                sums.part[j][r] = vdupq_n_f32(0);
        if (minima == MIN_PAIRS_32 || minima == MIN_PAIRS_16)
            add_minima(rows, vectors, minima, &sums, e, a, v);
        for (int b = 0; b < t->blocks; b++) {
            for (int i = 0; v == 0 && i < n_prefetch; i++, prefetch += LINE)
                __builtin_prefetch(prefetch);
            add_block(rows, vectors, lines, is_arranged, per_16, minima, is_levelled, &sums, e, t, base, a,
                      init, b, 0, v);
            if (lines == LINES_8 || ++b == t->blocks) /* a block's parity tells which of two nibbles is its */
                continue;
            add_block(rows, vectors, lines, is_arranged, per_16, minima, is_levelled, &sums, e, t, base, a,
                      init, b, 1, v);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++) {
                float *total = totals[r] + (v + j) * OUTPUTS;
                vst1q_f32(total, vfmaq_n_f32(vld1q_f32(total), sums.part[j][r], a[r].scale));
            }
    }
}

/* Quants of a byte each: as the weights have them, or from e.buffer. */
INLINE void byte_tile(int rows, bool per_16, enum min_kind minima, bool is_levelled,
                      float (*totals)[PACK_ROWS], const struct expanded *e, const struct tile_facts *t,
                      const struct activation_block *a)
{
    if (t->kind == LINES_8)
        tile(rows, LINES_8, false, per_16, minima, is_levelled, totals, e, t, a);
    else
        tile(rows, LINES_8, true, per_16, minima, is_levelled, totals, e, t, a);
}

/* --- float weights --- */

/* Four weights, of which the type says how they lie. */
INLINE float32x4_t load_weights(enum weight_type type, const char *p)
{
    if (type == WEIGHT_F32)
        return vld1q_f32((const void *)p);
    uint16x4_t half = vld1_u16((const void *)p);
    if (type == WEIGHT_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

INLINE void float_step(enum weight_type type, int rows, int vectors, float32x4_t (*part)[LARGEST_TILE],
                       const char *w, const float *x, size_t x_stride)
{
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++) {
        float32x4_t weights = load_weights(type, w + j * OUTPUTS * (type == WEIGHT_F32 ? 4 : 2));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            part[j][r] = vfmaq_n_f32(part[j][r], weights, x[(size_t)r * x_stride]);
    }
}

INLINE void float_tile(enum weight_type type, int rows, float (*totals)[PACK_ROWS], const char *weights,
                       int n, const float *x, size_t x_stride)
{
    size_t element = type == WEIGHT_F32 ? 4 : 2, line = element * PACK_ROWS;
    int vectors = vectors_of(rows);

    for (int v = 0; v < VECTORS; v += vectors) {
        const char *w = weights + (size_t)v * OUTPUTS * element;
        float32x4_t even[VECTORS][LARGEST_TILE], odd[VECTORS][LARGEST_TILE];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++)
                even[j][r] = odd[j][r] = vdupq_n_f32(0);
        int k = 0;
        for (; k + 2 <= n; k += 2, w += 2 * line) {
            float_step(type, rows, vectors, even, w, x + k, x_stride);
            float_step(type, rows, vectors, odd, w + line, x + k + 1, x_stride);
        }
        if (k < n)
            float_step(type, rows, vectors, even, w, x + k, x_stride);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++) {
                float *total = totals[r] + (v + j) * OUTPUTS;
                vst1q_f32(total, vaddq_f32(vld1q_f32(total), vaddq_f32(even[j][r], odd[j][r])));
            }
    }
}

/* --- activations to blocks --- */

/* See sum_block in packed_scalar.c. */
INLINE void sum_block(struct activation_block *out, int b, int level)
{
    int first = vaddlvq_s8(vld1q_s8(out->q + PACK_BLOCK * b));
    int second = vaddlvq_s8(vld1q_s8(out->q + PACK_BLOCK * b + 16));

    out->level[b] = (float)level;
    out->sums16[2 * b] = (int16_t)first;
    out->sums16[2 * b + 1] = (int16_t)second;
    out->sums[b] = (int16_t)(first + second);
    out->level_sums16[2 * b] = (int16_t)(level * first);
    out->level_sums16[2 * b + 1] = (int16_t)(level * second);
    out->level_sums[b] = (int16_t)(level * (first + second));
    out->level_sum[b] = (float)(level * (first + second));
}

/* Thirty-two quants in units of `step`, which is about 1 / inverse. */
INLINE void quantise_block(int8_t *q, float *rest, const float *x, float inverse, float step)
{
#pragma GCC unroll 4
    for (int i = 0; i < PACK_BLOCK; i += 8) {
        int16x4_t words[2];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            int at = i + 4 * half;
            float32x4_t v = vld1q_f32(x + at);
            int32x4_t rounded = vcvtnq_s32_f32(vmulq_n_f32(v, inverse));
            vst1q_f32(rest + at, vfmsq_f32(v, vcvtq_f32_s32(rounded), vdupq_n_f32(step)));
            words[half] = vmovn_s32(rounded);
        }
        vst1_s8(q + i, vmovn_s16(vcombine_s16(words[0], words[1])));
    }
}

/* See set_levels and choose_levels in packed_scalar.c. */
INLINE int32x4_t levels_for(float32x4_t share, int top)
{
    float32x4_t highest = vdupq_n_f32((float)top), level = vrndpq_f32(vmulq_f32(share, highest));
    return vcvtq_s32_f32(vminq_f32(vmaxq_f32(level, vdupq_n_f32(1)), highest));
}

/* Blocks that are not there have shares of 0, and levels of 1 in every sum: they do not count as one. */
INLINE int choose_levels(int32_t *level, const float *shares, int blocks)
{
    float32x4_t low = vld1q_f32(shares), high = vld1q_f32(shares + 4);
    int best = PACK_LEVELS, least = INT32_MAX;
    for (int top = PACK_LEVELS; top >= LOWEST_TOP; top--) {
        int32x4_t x = levels_for(low, top), y = levels_for(high, top);
        int sum = vaddvq_s32(vmlaq_s32(vmulq_s32(x, x), y, y)) - (PACK_BLOCKS - blocks);
        sum *= TOP_SQUARES / (top * top);
        if (sum < least) {
            least = sum;
            best = top;
        }
    }
    vst1q_s32(level, levels_for(low, best));
    vst1q_s32(level + 4, levels_for(high, best));
    return best;
}

/* See quantise_super_block in packed_scalar.c. */
static void quantise_super_block(struct activation_block *out, float *rest, const float *x, int n)
{
    uint32x4_t finite = vdupq_n_u32(UINT32_MAX);
    float share[PACK_BLOCKS] = { 0 }, amax = 0;
    int32_t level[PACK_BLOCKS];
    int blocks = n / PACK_BLOCK;

    memset(out, 0, sizeof *out);
    memset(rest, 0, (size_t)n * sizeof *rest);
    for (int b = 0; b < blocks; b++) {
        float32x4_t most = vdupq_n_f32(0);
        for (int i = 0; i < PACK_BLOCK; i += 4) {
            float32x4_t v = vabsq_f32(vld1q_f32(x + b * PACK_BLOCK + i));
            finite = vandq_u32(finite, vcleq_f32(v, vdupq_n_f32(FLT_MAX)));
            most = vmaxq_f32(most, v);
        }
        share[b] = vmaxvq_f32(most);
        amax = share[b] > amax ? share[b] : amax;
    }
    bool is_finite = vminvq_u32(finite) == UINT32_MAX;
    if (!is_finite || amax < SMALLEST_LARGEST) {
        out->scale = is_finite ? 0 : NAN;
        for (int b = 0; b < PACK_BLOCKS; b++)
            out->level[b] = 1;
        return;
    }
    for (int b = 0; b < blocks; b++)
        share[b] /= amax;
    float steps = QUANT_MOST * (float)choose_levels(level, share, blocks);
    out->scale = amax / steps;
    for (int b = 0; b < PACK_BLOCKS; b++) {
        out->level[b] = 1;
        if (b >= blocks)
            continue;
        out->step[b] = (uint8_t)(level[b] - 1);
        quantise_block(out->q + b * PACK_BLOCK, rest + b * PACK_BLOCK, x + b * PACK_BLOCK,
                       steps / amax / (float)level[b], out->scale * (float)level[b]);
        sum_block(out, b, level[b]);
    }
}

static void quantise(struct activation_block *out, size_t stride, int planes, const float *x, int n)
{
    for (int s = 0; s < packed_super_blocks(n); s++, out += stride) {
        float rest[PACK_K], rest_of_rest[PACK_K];
        int count = blocks_in(n, s) * PACK_BLOCK;
        quantise_super_block(out, rest, x + s * PACK_K, count);
        if (planes == 2)
            quantise_super_block(out + 1, rest_of_rest, rest, count);
    }
}

/* --- the table --- */

#define TILE(name, rows, lines, per_16, minima)                                                              \
    static void name##_##rows(float(*totals)[PACK_ROWS], const struct expanded *e,                           \
                              const struct tile_facts *t, const struct activation_block *a)                  \
    {                                                                                                        \
        tile(rows, lines, false, per_16, minima, false, totals, e, t, a);                                    \
    }
#define BYTE_TILE(name, rows, per_16, minima, is_levelled)                                                   \
    static void name##_##rows(float(*totals)[PACK_ROWS], const struct expanded *e,                           \
                              const struct tile_facts *t, const struct activation_block *a)                  \
    {                                                                                                        \
        byte_tile(rows, per_16, minima, is_levelled, totals, e, t, a);                                       \
    }
#define FLOAT_TILE(name, rows, type)                                                                         \
    static void name##_##rows(float(*totals)[PACK_ROWS], const void *weights, int n, const float *x,         \
                              size_t x_stride)                                                               \
    {                                                                                                        \
        float_tile(type, rows, totals, weights, n, x, x_stride);                                             \
    }

/* MACRO(name, rows, ...) for each number of rows, and the names they give. Many rows are cut into tiles of
 * the two largest sizes only. */
#define EACH(macro, name, ...)                                                                               \
    macro(name, 1, __VA_ARGS__) macro(name, 2, __VA_ARGS__) macro(name, 3, __VA_ARGS__)                      \
        macro(name, 4, __VA_ARGS__)
#define ENTRIES(name)                                                                                        \
    {                                                                                                        \
        name##_1, name##_2, name##_3, name##_4                                                               \
    }
#define BYTE_TILES(name, per_16, minima)                                                                     \
    EACH(BYTE_TILE, name, per_16, minima, false)                                                             \
    BYTE_TILE(levelled_##name, 3, per_16, minima, true)                                                      \
    BYTE_TILE(levelled_##name, 4, per_16, minima, true)
#define BYTES(name, per_16, minima)    ENTRIES(name),
#define LEVELLED(name, per_16, minima) { NULL, NULL, levelled_##name##_3, levelled_##name##_4 },
PACKED_TILE_KINDS(BYTE_TILES)

/* What the types of pack.c want of other lines. */
EACH(TILE, nibbles, LINES_4, false, MIN_NONE)
EACH(TILE, nibbles_floats, LINES_4, false, MIN_FLOAT)
EACH(TILE, nibbles_pairs, LINES_4, false, MIN_PAIRS_32)
EACH(TILE, fives, LINES_5, false, MIN_NONE)
EACH(TILE, fives_floats, LINES_5, false, MIN_FLOAT)
EACH(TILE, fives_pairs, LINES_5, false, MIN_PAIRS_32)
EACH(TILE, places, LINES_TABLE, false, MIN_NONE)
EACH(TILE, sixes, LINES_6, true, MIN_NONE)
EACH(TILE, threes, LINES_3, true, MIN_NONE)
EACH(TILE, twos, LINES_2, false, MIN_NONE)
EACH(TILE, twos_pairs, LINES_2, true, MIN_PAIRS_16)

EACH(FLOAT_TILE, f32_tile, WEIGHT_F32)
EACH(FLOAT_TILE, f16_tile, WEIGHT_F16)
EACH(FLOAT_TILE, bf16_tile, WEIGHT_BF16)

const struct packed_level PACKED_LEVEL = {
    .quantise = quantise,
    .max_tile = LARGEST_TILE,
    .expand_lines = expand_lines,
    .expand_scales = expand_scales,
    .expand_levels = expand_levels,
    .tiles = {
        [LINES_8] = { PACKED_TILE_KINDS(BYTES) },
        [LINES_4] = { [PER_32] = ENTRIES(nibbles),
                      [PER_32_FLOATS] = ENTRIES(nibbles_floats),
                      [PER_32_PAIRS] = ENTRIES(nibbles_pairs) },
        [LINES_5] = { [PER_32] = ENTRIES(fives),
                      [PER_32_FLOATS] = ENTRIES(fives_floats),
                      [PER_32_PAIRS] = ENTRIES(fives_pairs) },
        [LINES_TABLE] = { [PER_32] = ENTRIES(places) },
        [LINES_6] = { [PER_16] = ENTRIES(sixes) },
        [LINES_3] = { [PER_16] = ENTRIES(threes) },
        [LINES_2] = { [PER_32] = ENTRIES(twos), [PER_16_PAIRS] = ENTRIES(twos_pairs) },
    },
    .levelled_tiles = { PACKED_TILE_KINDS(LEVELLED) },
    .f32_tiles = ENTRIES(f32_tile),
    .f16_tiles = ENTRIES(f16_tile),
    .bf16_tiles = ENTRIES(bf16_tile),
};
