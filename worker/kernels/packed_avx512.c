/* Packed products with AVX-512 VNNI: two vectors of sixteen outputs times up to six rows of activations keep
 * twelve integer and twelve float sums in registers; each four activations, broadcast once, feed two dot
 * products. */
#include <float.h>
#include <math.h>

#include "worker/kernels/avx512.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/packed_level.h"

INLINE floats halves_to_floats(const uint8_t *p)
{
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

INLINE dwords look_up(dwords line, const uint8_t *table)
{
    __m512i entries = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
    return (dwords)_mm512_shuffle_epi8(entries, (__m512i)line);
}

#include "worker/kernels/packed_expand.h"

INLINE __m512i broadcast(const void *p)
{
    int32_t dword;
    memcpy(&dword, p, sizeof dword);
    return _mm512_set1_epi32(dword);
}

/* What each block's dot products begin with: -offset times the sum of the activations. */
INLINE void correct_offset(int32_t (*init)[16], bool per_16, int offset, const struct activation_block *a)
{
    __m512i sums =
        per_16 ? _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void *)a->sums16))
               : _mm512_castsi256_si512(_mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)a->sums)));
    _mm512_store_si512(init, _mm512_mullo_epi32(sums, _mm512_set1_epi32(-offset)));
}

/* What is read once for a block: the planes of its quants. */
struct block_planes {
    __m512i plane[2]; /* LINES_6 has two, LINES_5 and LINES_3 one */
};

INLINE struct block_planes load_planes(enum line_kind lines, const struct tile_facts *t, int b, int v)
{
    struct block_planes planes = { { _mm512_setzero_si512(), _mm512_setzero_si512() } };
    if (lines == LINES_5 || lines == LINES_3)
        planes.plane[0] = _mm512_loadu_si512(t->lines + b * GROUP_LINE + v * LINE);
    if (lines == LINES_6)
        for (int j = 0; j < 2; j++)
            planes.plane[j] = _mm512_loadu_si512(t->lines + (2 * b + j) * GROUP_LINE + v * LINE);
    return planes;
}

/* Bits `mask` of each byte, from bit `from` up moved to bit `to`. */
INLINE __m512i move_bits(__m512i v, int from, int to, int mask)
{
    v = from < to ? _mm512_slli_epi32(v, (unsigned)(to - from)) : _mm512_srli_epi32(v, (unsigned)(from - to));
    return _mm512_and_si512(v, _mm512_set1_epi8((char)(mask << to)));
}

/* The quants of place i of block b, whose parity is given. */
INLINE __m512i load_quants(enum line_kind lines, const uint8_t *base, const uint8_t *table,
                           const struct block_planes *p, int b, int parity, int i, int v)
{
    if (lines == LINES_8)
        return _mm512_loadu_si512(base + (8 * b + i) * GROUP_LINE + v * LINE);
    if (lines == LINES_2 || lines == LINES_3) {
        __m512i q =
            move_bits(_mm512_loadu_si512(base + (2 * b + i / 4) * GROUP_LINE + v * LINE), 2 * (i % 4), 0, 3);
        return lines == LINES_2 ? q : _mm512_or_si512(q, move_bits(p->plane[0], i, 2, 1));
    }
    __m512i q =
        move_bits(_mm512_loadu_si512(base + (b / 2 * 8 + i) * GROUP_LINE + v * LINE), 4 * parity, 0, 15);
    if (lines == LINES_TABLE)
        q = (__m512i)look_up((dwords)q, table);
    if (lines == LINES_5)
        q = _mm512_or_si512(q, move_bits(p->plane[0], i, 4, 1));
    if (lines == LINES_6)
        q = _mm512_or_si512(q, move_bits(p->plane[i / 4], 2 * (i % 4), 4, 3));
    return q;
}

/* Sums of the tile: [vector][row]. */
struct tile_sums {
    __m512 part[2][PACKED_MAX_TILE];
};

INLINE void add_minima(int rows, enum min_kind minima, struct tile_sums *s, const struct expanded *e,
                       const struct activation_block *a)
{
    __m512i dot[2][PACKED_MAX_TILE];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        dot[0][r] = dot[1][r] = _mm512_setzero_si512();
    int n_pairs = minima == MIN_PAIRS_16 ? 8 : 4;
#pragma GCC unroll 8
    for (int p = 0; p < n_pairs; p++) {
        __m512i low = _mm512_load_si512(e->pairs[p]), high = _mm512_load_si512(e->pairs[p][16]);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512i sums =
                broadcast(minima == MIN_PAIRS_16 ? &a[r].level_sums16[2 * p] : &a[r].level_sums[2 * p]);
            dot[0][r] = _mm512_dpwssd_epi32(dot[0][r], low, sums);
            dot[1][r] = _mm512_dpwssd_epi32(dot[1][r], high, sums);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        s->part[0][r] = _mm512_mul_ps(_mm512_load_ps(e->neg_base), _mm512_cvtepi32_ps(dot[0][r]));
        s->part[1][r] = _mm512_mul_ps(_mm512_load_ps(e->neg_base + 16), _mm512_cvtepi32_ps(dot[1][r]));
    }
}

INLINE void add_block(int rows, enum line_kind lines, bool per_16, enum min_kind minima, bool is_levelled,
                      struct tile_sums *sums, const struct expanded *e, const struct tile_facts *t,
                      const uint8_t *base, const struct activation_block *a, int32_t (*init)[16], int b,
                      int parity, const uint8_t **prefetch)
{
    __m512i dot[2][PACKED_MAX_TILE];
    struct block_planes low_planes = load_planes(lines, t, b, 0), high_planes = load_planes(lines, t, b, 1);

    if (minima == MIN_FLOAT) {
        __m512 low = _mm512_load_ps(e->minimum[b]), high = _mm512_load_ps(e->minimum[b] + 16);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512 sum = _mm512_set1_ps(a[r].level_sum[b]);
            sums->part[0][r] = _mm512_fmadd_ps(low, sum, sums->part[0][r]);
            sums->part[1][r] = _mm512_fmadd_ps(high, sum, sums->part[1][r]);
        }
    }
    int halves = per_16 ? 2 : 1, places = 8 / halves;
#pragma GCC unroll 2
    for (int half = 0; half < halves; half++) {
        int s = halves * b + half;
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            dot[0][r] = dot[1][r] =
                minima == MIN_NONE ? _mm512_set1_epi32(init[r][s]) : _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int j = 0; j < places; j++) {
            int i = 4 * half + j;
            if (i % 4 == 0)
                for (int p = 0; p < t->n_prefetch; p++, *prefetch += LINE)
                    _mm_prefetch(*prefetch, _MM_HINT_T0);
            __m512i low = load_quants(lines, base, t->table, &low_planes, b, parity, i, 0);
            __m512i high = load_quants(lines, base, t->table, &high_planes, b, parity, i, 1);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m512i q = broadcast(a[r].q + 32 * b + 4 * i);
                dot[0][r] = _mm512_dpbusd_epi32(dot[0][r], low, q);
                dot[1][r] = _mm512_dpbusd_epi32(dot[1][r], high, q);
            }
        }
        __m512 low = _mm512_load_ps(e->scale[s]), high = _mm512_load_ps(e->scale[s] + 16);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512 low_scale, high_scale;
            if (is_levelled) {
                const float *levelled = e->levelled[s][a[r].step[b]];
                low_scale = _mm512_load_ps(levelled);
                high_scale = _mm512_load_ps(levelled + 16);
            } else {
                __m512 level = _mm512_set1_ps(a[r].level[b]);
                low_scale = _mm512_mul_ps(low, level);
                high_scale = _mm512_mul_ps(high, level);
            }
            sums->part[0][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[0][r]), low_scale, sums->part[0][r]);
            sums->part[1][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[1][r]), high_scale, sums->part[1][r]);
        }
    }
}

INLINE void tile(int rows, enum line_kind lines, bool per_16, enum min_kind minima, bool is_levelled,
                 float (*totals)[PACK_ROWS], const struct expanded *e, const struct tile_facts *t,
                 const struct activation_block *a)
{
    struct tile_sums sums;
    int32_t init[PACKED_MAX_TILE][16] __attribute__((aligned(64)));
    const uint8_t *base = t->lines + planes_size(lines, t->blocks), *prefetch = t->prefetch;

#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        if (minima == MIN_NONE)
            correct_offset(&init[r], per_16, t->offset, a + r);
        sums.part[0][r] = sums.part[1][r] = _mm512_setzero_ps();
    }
    if (minima == MIN_PAIRS_32 || minima == MIN_PAIRS_16)
        add_minima(rows, minima, &sums, e, a);
    for (int b = 0; b < t->blocks; b += 2) {
        add_block(rows, lines, per_16, minima, is_levelled, &sums, e, t, base, a, init, b, 0, &prefetch);
        if (b + 1 < t->blocks)
            add_block(rows, lines, per_16, minima, is_levelled, &sums, e, t, base, a, init, b + 1, 1,
                      &prefetch);
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m512 scale = _mm512_set1_ps(a[r].scale);
        _mm512_store_ps(totals[r], _mm512_fmadd_ps(scale, sums.part[0][r], _mm512_load_ps(totals[r])));
        _mm512_store_ps(totals[r] + 16,
                        _mm512_fmadd_ps(scale, sums.part[1][r], _mm512_load_ps(totals[r] + 16)));
    }
}

/* --- activations --- */

/* All sums of a super-block, as packed_scalar.c has them. The absolute differences from 0 of quants + 128 add
 * up eight bytes at a time; 16 * 128 too much in each sum of sixteen. */
INLINE void sum_blocks(struct activation_block *out, __m256i level)
{
    __m512i bias = _mm512_set1_epi8((char)0x80), eights = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i q = _mm512_xor_si512(_mm512_loadu_si512(out->q + 64 * i), bias);
        __m128i words = _mm512_cvtepi64_epi16(_mm512_sad_epu8(q, _mm512_setzero_si512()));
        eights = i == 0   ? _mm512_inserti32x4(eights, words, 0)
                 : i == 1 ? _mm512_inserti32x4(eights, words, 1)
                 : i == 2 ? _mm512_inserti32x4(eights, words, 2)
                          : _mm512_inserti32x4(eights, words, 3);
    }
    __m512i sums16 =
        _mm512_sub_epi32(_mm512_madd_epi16(eights, _mm512_set1_epi16(1)), _mm512_set1_epi32(2048));
    __m256i words16 = _mm512_cvtepi32_epi16(sums16);
    __m256i sums = _mm256_madd_epi16(words16, _mm256_set1_epi16(1));
    __m256i level_sums = _mm256_mullo_epi32(sums, level);
    __m256i level_twice =
        _mm256_or_si256(level, _mm256_slli_epi32(level, 16)); /* for both sixteens of a block */
    _mm256_storeu_ps(out->level, _mm256_cvtepi32_ps(level));
    _mm256_storeu_ps(out->level_sum, _mm256_cvtepi32_ps(level_sums));
    _mm_storeu_si128((void *)out->level_sums, _mm256_cvtepi32_epi16(level_sums));
    _mm256_storeu_si256((void *)out->level_sums16, _mm256_mullo_epi16(words16, level_twice));
    _mm_storeu_si128((void *)out->sums, _mm256_cvtepi32_epi16(sums));
    _mm256_storeu_si256((void *)out->sums16, words16);
    _mm_storel_epi64((void *)out->step, _mm256_cvtepi32_epi8(_mm256_sub_epi32(level, _mm256_set1_epi32(1))));
    memset(out->pad, 0, sizeof out->pad);
}

/* See choose_levels in packed_scalar.c. */
INLINE __m256i levels_for(__m256 share, int top)
{
    __m256 exact = _mm256_ceil_ps(_mm256_mul_ps(share, _mm256_set1_ps((float)top)));
    exact = _mm256_min_ps(_mm256_max_ps(exact, _mm256_set1_ps(1)), _mm256_set1_ps((float)top));
    return _mm256_cvtps_epi32(exact);
}

INLINE int choose_levels(__m256i *level, __m256 share, __mmask8 blocks)
{
    int best = PACK_LEVELS, least = INT32_MAX;
#pragma GCC unroll 4
    for (int top = PACK_LEVELS; top >= LOWEST_TOP; top--) {
        __m256i levels = levels_for(share, top);
        __m256i squares = _mm256_maskz_mullo_epi32(blocks, levels, levels);
        __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(squares), _mm256_extracti128_si256(squares, 1));
        sums = _mm_hadd_epi32(sums, sums);
        int sum = (_mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 1)) * (TOP_SQUARES / (top * top));
        if (sum < least) {
            least = sum;
            best = top;
        }
    }
    *level = _mm256_mask_mov_epi32(_mm256_set1_epi32(1), blocks, levels_for(share, best));
    return best;
}

/* The largest number of each of eight vectors, by halves. */
INLINE __m256 largest_of_each(const __m512 *v)
{
    __m256 h[8], pairs[4], fours[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        h[i] = _mm256_max_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        pairs[i] = _mm256_max_ps(_mm256_unpacklo_ps(h[2 * i], h[2 * i + 1]),
                                 _mm256_unpackhi_ps(h[2 * i], h[2 * i + 1]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        fours[i] = _mm256_max_ps(_mm256_shuffle_ps(pairs[2 * i], pairs[2 * i + 1], 0x44),
                                 _mm256_shuffle_ps(pairs[2 * i], pairs[2 * i + 1], 0xee));
    return _mm256_max_ps(_mm256_permute2f128_ps(fours[0], fours[1], 0x20),
                         _mm256_permute2f128_ps(fours[0], fours[1], 0x31));
}

/* rest is NULL where nobody asks what rounding left over. */
INLINE void quantise_super_block(struct activation_block *out, float *rest, const float *x, int n)
{
    __m512 both[PACK_BLOCKS], most = _mm512_set1_ps(FLT_MAX);
    int blocks = n / PACK_BLOCK;
    float inverses[PACK_BLOCKS], steps[PACK_BLOCKS];
    __m256i level = _mm256_set1_epi32(1);
    __mmask16 finite = 0xffff;

#pragma GCC unroll 8
    for (int b = 0; b < PACK_BLOCKS; b++) {
        both[b] = _mm512_setzero_ps();
        if (b < blocks) {
            __m512 low = _mm512_abs_ps(_mm512_loadu_ps(x + b * PACK_BLOCK));
            __m512 high = _mm512_abs_ps(_mm512_loadu_ps(x + b * PACK_BLOCK + 16));
            finite &= _mm512_cmp_ps_mask(low, most, _CMP_LE_OQ) & _mm512_cmp_ps_mask(high, most, _CMP_LE_OQ);
            both[b] = _mm512_max_ps(low, high);
        }
    }
    __m256 largest = largest_of_each(both);
    float amax = _mm512_mask_reduce_max_ps(0xff, _mm512_castps256_ps512(largest));
    if (finite != 0xffff || amax < SMALLEST_LARGEST) {
        memset(out->q, 0, sizeof out->q);
        sum_blocks(out, level);
        out->scale = finite == 0xffff ? 0 : NAN;
        if (rest)
            memset(rest, 0, (size_t)n * sizeof *rest);
        return;
    }
    __m256 share = _mm256_div_ps(largest, _mm256_set1_ps(amax));
    float all_steps = QUANT_MOST * (float)choose_levels(&level, share, (__mmask8)((1u << blocks) - 1));
    out->scale = amax / all_steps;
    __m256 levels = _mm256_cvtepi32_ps(level);
    _mm256_storeu_ps(inverses, _mm256_div_ps(_mm256_set1_ps(all_steps / amax), levels));
    _mm256_storeu_ps(steps, _mm256_mul_ps(_mm256_set1_ps(out->scale), levels));
    for (int b = 0; b < blocks; b++) {
        __m512 inverse = _mm512_set1_ps(inverses[b]), step = _mm512_set1_ps(steps[b]);
#pragma GCC unroll 2
        for (int i = b * PACK_BLOCK; i < (b + 1) * PACK_BLOCK; i += 16) {
            __m512 v = _mm512_loadu_ps(x + i);
            __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
            _mm_storeu_si128((void *)(out->q + i), _mm512_cvtepi32_epi8(q));
            if (rest)
                _mm512_storeu_ps(rest + i, _mm512_fnmadd_ps(_mm512_cvtepi32_ps(q), step, v));
        }
    }
    memset(out->q + n, 0, (size_t)(PACK_K - n));
    sum_blocks(out, level);
}

static void quantise(struct activation_block *out, size_t stride, int planes, const float *x, int n)
{
    for (int s = 0; s < packed_super_blocks(n); s++, out += stride) {
        int count = blocks_in(n, s) * PACK_BLOCK;
        float rest[PACK_K];
        quantise_super_block(out, planes == 2 ? rest : NULL, x + s * PACK_K, count);
        if (planes == 2)
            quantise_super_block(out + 1, NULL, rest, count);
    }
}

/* --- the table --- */

#define TILE(name, rows, lines, per_16, minima, is_levelled)                                                 \
    static void name##_##rows(float(*totals)[PACK_ROWS], const struct expanded *e,                           \
                              const struct tile_facts *t, const struct activation_block *a)                  \
    {                                                                                                        \
        tile(rows, lines, per_16, minima, is_levelled, totals, e, t, a);                                     \
    }
#define TILES(name, lines, per_16, minima)                                                                   \
    TILE(name, 1, lines, per_16, minima, false)                                                              \
    TILE(name, 2, lines, per_16, minima, false)                                                              \
    TILE(name, 3, lines, per_16, minima, false)                                                              \
    TILE(name, 4, lines, per_16, minima, false)                                                              \
    TILE(name, 5, lines, per_16, minima, false)                                                              \
    TILE(name, 6, lines, per_16, minima, false)
#define ENTRIES(name)                                                                                        \
    {                                                                                                        \
        name##_1, name##_2, name##_3, name##_4, name##_5, name##_6                                           \
    }

#define BYTE_TILES(name, per_16, minima)                                                                     \
    TILES(name, LINES_8, per_16, minima)                                                                     \
    TILE(levelled_##name, 5, LINES_8, per_16, minima, true)                                                  \
    TILE(levelled_##name, 6, LINES_8, per_16, minima, true)
PACKED_TILE_KINDS(BYTE_TILES)
#define BYTES(name, per_16, minima) ENTRIES(name),
/* Many rows are cut into tiles of five and six only. */
#define LEVELLED(name, per_16, minima) { NULL, NULL, NULL, NULL, levelled_##name##_5, levelled_##name##_6 },

/* What the types of pack.c want of other lines. */
TILES(nibbles, LINES_4, false, MIN_NONE)
TILES(nibbles_floats, LINES_4, false, MIN_FLOAT)
TILES(nibbles_pairs, LINES_4, false, MIN_PAIRS_32)
TILES(fives, LINES_5, false, MIN_NONE)
TILES(fives_floats, LINES_5, false, MIN_FLOAT)
TILES(fives_pairs, LINES_5, false, MIN_PAIRS_32)
TILES(places, LINES_TABLE, false, MIN_NONE)
TILES(sixes, LINES_6, true, MIN_NONE)
TILES(threes, LINES_3, true, MIN_NONE)
TILES(twos, LINES_2, false, MIN_NONE)
TILES(twos_pairs, LINES_2, true, MIN_PAIRS_16)

/* Sixteen weights, of which the type says how they lie. */
INLINE __m512 load_weights(enum weight_type type, const char *p)
{
    if (type == WEIGHT_F32)
        return _mm512_loadu_ps((const void *)p);
    __m256i half = _mm256_loadu_si256((const void *)p);
    if (type == WEIGHT_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

INLINE void float_step(enum weight_type type, int rows, __m512 (*part)[PACKED_MAX_TILE], const char *w,
                       const float *x, size_t x_stride)
{
    __m512 low = load_weights(type, w), high = load_weights(type, w + (type == WEIGHT_F32 ? 64 : 32));
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m512 activation = _mm512_set1_ps(x[(size_t)r * x_stride]);
        part[0][r] = _mm512_fmadd_ps(low, activation, part[0][r]);
        part[1][r] = _mm512_fmadd_ps(high, activation, part[1][r]);
    }
}

INLINE void float_tile(enum weight_type type, int rows, float (*totals)[PACK_ROWS], const char *w, int n,
                       const float *x, size_t x_stride)
{
    size_t line = (type == WEIGHT_F32 ? 4 : 2) * PACK_ROWS;
    __m512 even[2][PACKED_MAX_TILE], odd[2][PACKED_MAX_TILE];

#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        even[0][r] = even[1][r] = odd[0][r] = odd[1][r] = _mm512_setzero_ps();
    int k = 0;
    for (; k + 2 <= n; k += 2, w += 2 * line) {
        if (rows < 3) /* memory is the bound */
            for (size_t i = 0; i < 2 * line; i += 64)
                _mm_prefetch(w + 4096 + i, _MM_HINT_T0);
        float_step(type, rows, even, w, x + k, x_stride);
        float_step(type, rows, odd, w + line, x + k + 1, x_stride);
    }
    if (k < n)
        float_step(type, rows, even, w, x + k, x_stride);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            __m512 sum = _mm512_add_ps(even[v][r], odd[v][r]);
            _mm512_store_ps(totals[r] + 16 * v, _mm512_add_ps(_mm512_load_ps(totals[r] + 16 * v), sum));
        }
}

#define FLOAT_TILE(name, type, rows)                                                                         \
    static void name##_tile_##rows(float(*totals)[PACK_ROWS], const void *weights, int n, const float *x,    \
                                   size_t x_stride)                                                          \
    {                                                                                                        \
        float_tile(type, rows, totals, weights, n, x, x_stride);                                             \
    }
#define FLOAT_TILES(name, type)                                                                              \
    FLOAT_TILE(name, type, 1)                                                                                \
    FLOAT_TILE(name, type, 2)                                                                                \
    FLOAT_TILE(name, type, 3)                                                                                \
    FLOAT_TILE(name, type, 4)                                                                                \
    FLOAT_TILE(name, type, 5)                                                                                \
    FLOAT_TILE(name, type, 6)
FLOAT_TILES(f32, WEIGHT_F32)
FLOAT_TILES(f16, WEIGHT_F16)
FLOAT_TILES(bf16, WEIGHT_BF16)

const struct packed_level packed_level_avx512 = {
    .quantise = quantise,
    .max_tile = PACKED_MAX_TILE,
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
