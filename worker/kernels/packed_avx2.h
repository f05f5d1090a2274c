/* Packed products with vectors of 256 bits, eight outputs each, for AVX2 with and without VNNI. A tile keeps
 * an integer and a float sum in registers for each of its rows and of one, two or four vectors; it walks the
 * super-block once for so many vectors and begins again for the next. The file that includes this defines
 *
 *     PACKED_LEVEL    the name of its table
 *     TWO_UP_TO       rows up to which a tile has two vectors; one row has four
 *     LARGEST_TILE    rows
 *     SATURATES       whether dot products go by way of 16-bit sums, of which `depth` says how much they hold
 *
 * before it and, after it, add_products and add_pairs. */
#include <float.h>
#include <math.h>

#include "worker/kernels/avx2.h"
#include "worker/kernels/packed_level.h"

INLINE floats halves_to_floats(const uint8_t *p)
{
    floats v;
    for (int i = 0; i < 2; i++) {
        __m256 half = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16 * i)));
        memcpy((char *)&v + 32 * i, &half, sizeof half);
    }
    return v;
}

INLINE __m256i look_up_bytes(__m256i bytes, const uint8_t *table)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)), bytes);
}

#define EXPAND_SCALES_ONLY
#include "worker/kernels/packed_expand.h"

enum { VECTOR = 32, VECTORS = GROUP_LINE / VECTOR, OUTPUTS = 8 };

INLINE __m256i broadcast(const void *p)
{
    int32_t dword;
    memcpy(&dword, p, sizeof dword);
    return _mm256_set1_epi32(dword);
}

/* Places that are multiplied between two roundings to f32: n from the first on, in block b of given parity.
 */
struct places {
    int b, parity, first, n;
};

/* Adds the products of some places to dot[vector][row]. The vectors are those from v on. */
INLINE void add_products(int rows, int vectors, int depth, enum line_kind lines,
                         __m256i (*dot)[PACKED_MAX_TILE], const struct tile_facts *t, const uint8_t *base,
                         const struct activation_block *a, struct places p, int v);

/* sum + the products of neighbouring 16-bit numbers */
INLINE __m256i add_pairs(__m256i sum, __m256i x, __m256i y);

/* How many products of two quants, weight times activation, a 16-bit sum of neighbours holds. 1 stands for
 * weights of all eight bits: they become signed, and even one fits only with the sign moved to the other
 * factor. */
INLINE int depth_of(enum line_kind kind)
{
    return kind == LINES_8 || kind == LINES_TABLE ? 1 : kind == LINES_6 ? 2 : kind == LINES_5 ? 4 : 8;
}

INLINE int vectors_of(int rows)
{
    return rows == 1 ? VECTORS : rows <= TWO_UP_TO ? 2 : 1;
}

/* Bits `mask` of each byte, from bit `from` up moved to bit `to`. */
INLINE __m256i move_bits(__m256i v, int from, int to, int mask)
{
    v = from < to ? _mm256_slli_epi32(v, to - from) : _mm256_srli_epi32(v, from - to);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)(mask << to)));
}

/* Bits `mask` from bit `from` up of a line, moved to bit `to`. */
INLINE __m256i load_bits(const uint8_t *lines, int line, int v, int from, int to, int mask)
{
    return move_bits(_mm256_loadu_si256((const void *)(lines + line * GROUP_LINE + v * VECTOR)), from, to,
                     mask);
}

/* The quants of place i. */
INLINE __m256i load_quants(enum line_kind lines, const struct tile_facts *t, const uint8_t *base,
                           struct places p, int i, int v)
{
    if (lines == LINES_8)
        return _mm256_loadu_si256((const void *)(base + (8 * p.b + i) * GROUP_LINE + v * VECTOR));
    if (lines == LINES_2 || lines == LINES_3) {
        __m256i q = load_bits(base, 2 * p.b + i / 4, v, 2 * (i % 4), 0, 3);
        return lines == LINES_2 ? q : _mm256_or_si256(q, load_bits(t->lines, p.b, v, i, 2, 1));
    }
    __m256i q = load_bits(base, p.b / 2 * 8 + i, v, 4 * p.parity, 0, 15);
    if (lines == LINES_TABLE)
        q = look_up_bytes(q, t->table);
    if (lines == LINES_5)
        q = _mm256_or_si256(q, load_bits(t->lines, p.b, v, i, 4, 1));
    if (lines == LINES_6)
        q = _mm256_or_si256(q, load_bits(t->lines, 2 * p.b + i / 4, v, 2 * (i % 4), 4, 3));
    return q;
}

INLINE void expand_block(enum line_kind lines, struct expanded *e, const struct tile_facts *t,
                         const uint8_t *base, struct places p, int v)
{
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        _mm256_store_si256((void *)(e->buffer[8 * p.b + i] + v * VECTOR),
                           load_quants(lines, t, base, p, i, v));
}

/* Lines of less than eight bits to bytes. */
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

/* What each block's dot products begin with: -offset times the sum of the activations. */
INLINE void correct_offset(int32_t (*init)[16], bool per_16, int offset, const struct activation_block *a)
{
    __m256i factor = _mm256_set1_epi32(-offset);
    for (int i = 0; i < (per_16 ? 2 : 1); i++) {
        const int16_t *from = per_16 ? a->sums16 + 8 * i : a->sums;
        __m256i sums = _mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)from));
        _mm256_storeu_si256((void *)(*init + 8 * i), _mm256_mullo_epi32(sums, factor));
    }
}

/* Sums of the tile: [vector][row]. */
struct tile_sums {
    __m256 part[VECTORS][PACKED_MAX_TILE];
};

INLINE void add_minima(int rows, int vectors, enum min_kind minima, struct tile_sums *s,
                       const struct expanded *e, const struct activation_block *a, int v)
{
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
        int first = (v + j) * OUTPUTS, n_pairs = minima == MIN_PAIRS_16 ? 8 : 4;
        __m256i dot[PACKED_MAX_TILE];
        __m256 base = _mm256_load_ps(e->neg_base + first);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            dot[r] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int p = 0; p < n_pairs; p++) {
            __m256i pairs = _mm256_load_si256((const void *)e->pairs[p][first]);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                dot[r] = add_pairs(
                    dot[r], pairs,
                    broadcast(minima == MIN_PAIRS_16 ? &a[r].level_sums16[2 * p] : &a[r].level_sums[2 * p]));
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            s->part[j][r] = _mm256_mul_ps(base, _mm256_cvtepi32_ps(dot[r]));
    }
}

INLINE void add_block(int rows, int vectors, int depth, enum line_kind lines, bool per_16,
                      enum min_kind minima, bool is_levelled, struct tile_sums *sums,
                      const struct expanded *e, const struct tile_facts *t, const uint8_t *base,
                      const struct activation_block *a, int32_t (*init)[16], int b, int parity, int v)
{
    int halves = per_16 ? 2 : 1, n = 8 / halves;

    if (minima == MIN_FLOAT)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            __m256 minimum = _mm256_load_ps(e->minimum[b] + (v + j) * OUTPUTS);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                sums->part[j][r] =
                    _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(&a[r].level_sum[b]), sums->part[j][r]);
        }
#pragma GCC unroll 2
    for (int half = 0; half < halves; half++) {
        int s = halves * b + half;
        __m256i dot[VECTORS][PACKED_MAX_TILE];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                dot[j][r] = SATURATES ? _mm256_setzero_si256() : _mm256_set1_epi32(init[r][s]);
        add_products(rows, vectors, depth, lines, dot, t, base, a, (struct places){ b, parity, half * n, n },
                     v);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            int first = (v + j) * OUTPUTS;
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m256 scale = is_levelled ? _mm256_load_ps(e->levelled[s][a[r].step[b]] + first)
                                           : _mm256_mul_ps(_mm256_load_ps(e->scale[s] + first),
                                                           _mm256_broadcast_ss(&a[r].level[b]));
                if (SATURATES && depth > 1) /* else weights are signed or sums began with it */
                    dot[j][r] = _mm256_add_epi32(dot[j][r], _mm256_set1_epi32(init[r][s]));
                sums->part[j][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[j][r]), scale, sums->part[j][r]);
            }
        }
    }
}

INLINE void tile(int rows, int depth, enum line_kind lines, bool per_16, enum min_kind minima,
                 bool is_levelled, float (*totals)[PACK_ROWS], const struct expanded *e,
                 const struct tile_facts *t, const struct activation_block *a)
{
    int32_t init[PACKED_MAX_TILE][16] __attribute__((aligned(32)));
    const uint8_t *base = t->lines + planes_size(lines, t->blocks), *prefetch = t->prefetch;
    int n_prefetch =
        (lines == LINES_8 ? 2 : 4) * t->n_prefetch; /* for the one or two blocks of an iteration */
    int vectors = vectors_of(rows);

    for (int r = 0; r < rows; r++)
        correct_offset(&init[r], per_16, t->offset, a + r);
    for (int v = 0; v < VECTORS; v += vectors) {
        struct tile_sums sums;
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sums.part[j][r] = _mm256_setzero_ps();
        if (minima == MIN_PAIRS_32 || minima == MIN_PAIRS_16)
            add_minima(rows, vectors, minima, &sums, e, a, v);
        for (int b = 0; b < t->blocks; b++) {
            for (int i = 0; v == 0 && i < n_prefetch; i++, prefetch += LINE)
                _mm_prefetch(prefetch, _MM_HINT_T0);
            add_block(rows, vectors, depth, lines, per_16, minima, is_levelled, &sums, e, t, base, a, init, b,
                      0, v);
            if (lines == LINES_8 || ++b == t->blocks) /* a block's parity tells which of two nibbles is its */
                continue;
            add_block(rows, vectors, depth, lines, per_16, minima, is_levelled, &sums, e, t, base, a, init, b,
                      1, v);
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) {
                float *total = totals[r] + (v + j) * OUTPUTS;
                __m256 scale = _mm256_broadcast_ss(&a[r].scale);
                _mm256_store_ps(total, _mm256_fmadd_ps(scale, sums.part[j][r], _mm256_load_ps(total)));
            }
    }
}

/* Quants of a byte each, whose size the kind of the weights' lines tells. A depth of 1 is right for all, and
 * fast enough for few rows, which come with expanded quants only where a level has no other tiles. */
INLINE void byte_tile(int rows, bool per_16, enum min_kind minima, bool is_levelled,
                      float (*totals)[PACK_ROWS], const struct expanded *e, const struct tile_facts *t,
                      const struct activation_block *a)
{
    int depth = !SATURATES ? 8 : rows < 3 ? 1 : depth_of(t->kind);
    if (depth == 1)
        tile(rows, 1, LINES_8, per_16, minima, is_levelled, totals, e, t, a);
    else if (SATURATES && (per_16 || depth == 2))
        tile(rows, 2, LINES_8, per_16, minima, is_levelled, totals, e, t, a);
    else if (SATURATES && depth == 4)
        tile(rows, 4, LINES_8, per_16, minima, is_levelled, totals, e, t, a);
    else
        tile(rows, 8, LINES_8, per_16, minima, is_levelled, totals, e, t, a);
}

/* --- float weights --- */

/* Eight weights, of which the type says how they lie. */
INLINE __m256 load_weights(enum weight_type type, const char *p)
{
    if (type == WEIGHT_F32)
        return _mm256_loadu_ps((const void *)p);
    __m128i half = _mm_loadu_si128((const void *)p);
    if (type == WEIGHT_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

INLINE void float_step(enum weight_type type, int rows, int vectors, __m256 (*part)[PACKED_MAX_TILE],
                       const char *w, const float *x, size_t x_stride)
{
    __m256 weights[VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++)
        weights[j] = load_weights(type, w + j * OUTPUTS * (type == WEIGHT_F32 ? 4 : 2));
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m256 activation = _mm256_broadcast_ss(x + (size_t)r * x_stride);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            part[j][r] = _mm256_fmadd_ps(weights[j], activation, part[j][r]);
    }
}

INLINE void float_tile(enum weight_type type, int rows, float (*totals)[PACK_ROWS], const char *weights,
                       int n, const float *x, size_t x_stride)
{
    size_t element = type == WEIGHT_F32 ? 4 : 2, line = element * PACK_ROWS;
    int vectors = vectors_of(rows);

    for (int v = 0; v < VECTORS; v += vectors) {
        const char *w = weights + (size_t)v * OUTPUTS * element;
        __m256 even[VECTORS][PACKED_MAX_TILE], odd[VECTORS][PACKED_MAX_TILE];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                even[j][r] = odd[j][r] = _mm256_setzero_ps();
        int k = 0;
        for (; k + 2 <= n; k += 2, w += 2 * line) {
            if (rows < 3 && v == 0) /* memory is the bound */
                for (size_t i = 0; i < 2 * line; i += 64)
                    _mm_prefetch(w + 4096 + i, _MM_HINT_T0);
            float_step(type, rows, vectors, even, w, x + k, x_stride);
            float_step(type, rows, vectors, odd, w + line, x + k + 1, x_stride);
        }
        if (k < n)
            float_step(type, rows, vectors, even, w, x + k, x_stride);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) {
                float *total = totals[r] + (v + j) * OUTPUTS;
                __m256 sum = _mm256_add_ps(even[j][r], odd[j][r]);
                _mm256_store_ps(total, _mm256_add_ps(_mm256_load_ps(total), sum));
            }
    }
}

/* --- activations to blocks --- */

/* See sum_block in packed_scalar.c. The instruction sums eight bytes without sign. */
INLINE void sum_block(struct activation_block *out, int b, int level)
{
    __m256i q = _mm256_loadu_si256((const void *)(out->q + PACK_BLOCK * b)), zero = _mm256_setzero_si256();
    __m256i eights = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8(-128)), zero);
    int first = _mm256_extract_epi16(eights, 0) + _mm256_extract_epi16(eights, 4) - 16 * 128;
    int second = _mm256_extract_epi16(eights, 8) + _mm256_extract_epi16(eights, 12) - 16 * 128;

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
    __m256i q32[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m256 v = _mm256_loadu_ps(x + 8 * i);
        q32[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v, _mm256_set1_ps(inverse)));
        _mm256_storeu_ps(rest + 8 * i, _mm256_fnmadd_ps(_mm256_cvtepi32_ps(q32[i]), _mm256_set1_ps(step), v));
    }
    /* Packing works within halves: dwords of bytes come out in the order 0 2 4 6 1 3 5 7. */
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q32[0], q32[1]), _mm256_packs_epi32(q32[2], q32[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((void *)q, bytes);
}

/* See set_levels and choose_levels in packed_scalar.c. */
INLINE __m256i levels_for(__m256 share, int top)
{
    __m256 highest = _mm256_set1_ps((float)top), level = _mm256_ceil_ps(_mm256_mul_ps(share, highest));
    level = _mm256_min_ps(_mm256_max_ps(level, _mm256_set1_ps(1)), highest);
    return _mm256_cvtps_epi32(level);
}

INLINE int choose_levels(int32_t *level, const float *shares, int blocks)
{
    __m256 share = _mm256_loadu_ps(shares);
    __m256i used = first_lanes(blocks);
    int best = PACK_LEVELS, least = INT32_MAX;
    for (int top = PACK_LEVELS; top >= LOWEST_TOP; top--) {
        __m256i levels = _mm256_and_si256(levels_for(share, top), used);
        __m256i squares = _mm256_mullo_epi32(levels, levels);
        __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(squares), _mm256_extracti128_si256(squares, 1));
        sums = _mm_hadd_epi32(sums, sums);
        int sum = (_mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 1)) * (TOP_SQUARES / (top * top));
        if (sum < least) {
            least = sum;
            best = top;
        }
    }
    _mm256_storeu_si256((void *)level, levels_for(share, best));
    return best;
}

/* See quantise_super_block in packed_scalar.c. */
static void quantise_super_block(struct activation_block *out, float *rest, const float *x, int n)
{
    __m256 finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1)), sign = _mm256_set1_ps(-0.0f);
    float share[PACK_BLOCKS] = { 0 }, amax = 0;
    int32_t level[PACK_BLOCKS];
    int blocks = n / PACK_BLOCK;

    memset(out, 0, sizeof *out);
    memset(rest, 0, (size_t)n * sizeof *rest);
    for (int b = 0; b < blocks; b++) {
        __m256 most = _mm256_setzero_ps();
        for (int i = 0; i < PACK_BLOCK; i += 8) {
            __m256 v = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + b * PACK_BLOCK + i));
            finite = _mm256_and_ps(finite, _mm256_cmp_ps(v, _mm256_set1_ps(FLT_MAX), _CMP_LE_OQ));
            most = _mm256_max_ps(most, v);
        }
        share[b] = max_lanes(most);
        amax = share[b] > amax ? share[b] : amax;
    }
    bool is_finite = _mm256_movemask_ps(finite) == 0xff;
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
        tile(rows, depth_of(lines), lines, per_16, minima, false, totals, e, t, a);                          \
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

/* MACRO(name, rows, ...) for each number of rows, and the names they give. */
#if LARGEST_TILE == 4
#define EACH(macro, name, ...)                                                                               \
    macro(name, 1, __VA_ARGS__) macro(name, 2, __VA_ARGS__) macro(name, 3, __VA_ARGS__)                      \
        macro(name, 4, __VA_ARGS__)
#define ENTRIES(name)                                                                                        \
    {                                                                                                        \
        name##_1, name##_2, name##_3, name##_4                                                               \
    }
#define EACH_OF_MANY(macro, name, ...) macro(name, 3, __VA_ARGS__) macro(name, 4, __VA_ARGS__)
#define ENTRIES_OF_MANY(name)                                                                                \
    {                                                                                                        \
        NULL, NULL, name##_3, name##_4                                                                       \
    }
#else
#define EACH(macro, name, ...)                                                                               \
    macro(name, 1, __VA_ARGS__) macro(name, 2, __VA_ARGS__) macro(name, 3, __VA_ARGS__)
#define ENTRIES(name)                                                                                        \
    {                                                                                                        \
        name##_1, name##_2, name##_3                                                                         \
    }
#define EACH_OF_MANY(macro, name, ...) macro(name, 2, __VA_ARGS__) macro(name, 3, __VA_ARGS__)
#define ENTRIES_OF_MANY(name)                                                                                \
    {                                                                                                        \
        NULL, name##_2, name##_3                                                                             \
    }
#endif

/* Many rows are cut into tiles of the two largest sizes only. */
#define BYTE_TILES(name, per_16, minima)                                                                     \
    EACH(BYTE_TILE, name, per_16, minima, false)                                                             \
    EACH_OF_MANY(BYTE_TILE, levelled_##name, per_16, minima, true)
#define BYTES(name, per_16, minima)    ENTRIES(name),
#define LEVELLED(name, per_16, minima) ENTRIES_OF_MANY(levelled_##name),
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
