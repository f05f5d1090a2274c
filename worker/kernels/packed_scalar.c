/* The reference of packed products: what every instruction set computes, one output at a time. */
#include <math.h>

#include "worker/kernels/half.h"
#include "worker/kernels/levels.h"
#include "worker/kernels/packed_level.h"
#include "worker/kernels/simd.h"

INLINE floats halves_to_floats(const uint8_t *p)
{
    uint16_t half[16];
    floats v;
    memcpy(half, p, sizeof half);
    for (int i = 0; i < 16; i++)
        v[i] = float_of_half(half[i]);
    return v;
}

INLINE dwords look_up(dwords line, const uint8_t *table)
{
    uint8_t bytes[LINE];
    memcpy(bytes, &line, sizeof bytes);
    for (int i = 0; i < LINE; i++)
        bytes[i] = table[bytes[i]];
    memcpy(&line, bytes, sizeof bytes);
    return line;
}

#include "worker/kernels/packed_expand.h"

/* Minima in integers: their sum is exact. */
static int32_t sum_pairs(const struct expanded *e, int row, int n, const int16_t *sums)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += e->pairs[i / 2][row][i % 2] * sums[i];
    return sum;
}

static float part_of_row(const struct expanded *e, const struct tile_facts *t, bool per_16,
                         enum min_kind minima, int row, const struct activation_block *a)
{
    int width = per_16 ? 16 : PACK_BLOCK;
    float part = 0;
    if (minima == MIN_PAIRS_32)
        part = e->neg_base[row] * (float)sum_pairs(e, row, PACK_BLOCKS, a->level_sums);
    if (minima == MIN_PAIRS_16)
        part = e->neg_base[row] * (float)sum_pairs(e, row, PACK_K / 16, a->level_sums16);
    for (int s = 0; s < t->blocks * PACK_BLOCK / width; s++) {
        int b = s * width / PACK_BLOCK;
        int32_t dot = -t->offset * (per_16 ? a->sums16[s] : a->sums[s]);
        for (int k = s * width; k < (s + 1) * width; k++)
            dot += t->lines[(k / 4 * PACK_ROWS + row) * 4 + k % 4] * a->q[k];
        if (minima == MIN_FLOAT)
            part = fmaf(e->minimum[b][row], a->level_sum[b], part);
        part = fmaf((float)dot, e->scale[s][row] * a->level[b], part);
    }
    return part;
}

INLINE void tile(bool per_16, enum min_kind minima, float (*totals)[PACK_ROWS], const struct expanded *e,
                 const struct tile_facts *t, const struct activation_block *a)
{
    for (int i = 0; i < PACK_ROWS; i++)
        totals[0][i] = fmaf(a->scale, part_of_row(e, t, per_16, minima, i, a), totals[0][i]);
}

#define TILE(name, per_16, minima)                                                                           \
    static void tile_##name(float(*totals)[PACK_ROWS], const struct expanded *e, const struct tile_facts *t, \
                            const struct activation_block *a)                                                \
    {                                                                                                        \
        tile(per_16, minima, totals, e, t, a);                                                               \
    }
PACKED_TILE_KINDS(TILE)

/* Two chains: of elements at even places and at odd ones. */
INLINE void float_tile(enum weight_type type, float (*totals)[PACK_ROWS], const void *weights, int n,
                       const float *x)
{
    for (int i = 0; i < PACK_ROWS; i++) {
        float part[2] = { 0, 0 };
        for (int k = 0; k < n; k++) {
            size_t at = (size_t)k * PACK_ROWS + (size_t)i;
            float w = type == WEIGHT_F32   ? ((const float *)weights)[at]
                      : type == WEIGHT_F16 ? float_of_half(((const uint16_t *)weights)[at])
                                           : float_of_bf16(((const uint16_t *)weights)[at]);
            part[k % 2] = fmaf(w, x[k], part[k % 2]);
        }
        totals[0][i] += part[0] + part[1];
    }
}

#define FLOAT_TILE(name, type)                                                                               \
    static void name##_tile(float(*totals)[PACK_ROWS], const void *weights, int n, const float *x,           \
                            size_t x_stride)                                                                 \
    {                                                                                                        \
        (void)x_stride;                                                                                      \
        float_tile(type, totals, weights, n, x);                                                             \
    }
FLOAT_TILE(f32, WEIGHT_F32)
FLOAT_TILE(f16, WEIGHT_F16)
FLOAT_TILE(bf16, WEIGHT_BF16)

static float largest_of(const float *x, int n)
{
    float largest = 0;
    for (int i = 0; i < n; i++)
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    return largest;
}

static bool all_finite(const float *x, int n)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void sum_block(struct activation_block *out, int b)
{
    int sum[2] = { 0, 0 }, level = out->step[b] + 1;
    for (int i = 0; i < PACK_BLOCK; i++)
        sum[i / 16] += out->q[PACK_BLOCK * b + i];
    for (int half = 0; half < 2; half++) {
        out->sums16[2 * b + half] = (int16_t)sum[half];
        out->level_sums16[2 * b + half] = (int16_t)(level * sum[half]);
    }
    out->level[b] = (float)level;
    out->sums[b] = (int16_t)(sum[0] + sum[1]);
    out->level_sums[b] = (int16_t)(level * (sum[0] + sum[1]));
    out->level_sum[b] = (float)out->level_sums[b];
}

/* The levels of blocks whose largest elements are `share` of the super-block's, when that of the largest
 * block is `top`. */
static void set_levels(int *level, const float *share, int blocks, int top)
{
    for (int b = 0; b < blocks; b++) {
        float exact = ceilf(share[b] * (float)top);
        level[b] = exact < 1 ? 1 : exact > (float)top ? top : (int)exact;
    }
}

/* A level is rounded up, and how much that costs depends on the top one: the best of a few is taken, the one
 * with the smallest sum of squared steps. */
static int choose_levels(int *level, const float *share, int blocks)
{
    int best = PACK_LEVELS, least = INT32_MAX;
    for (int top = PACK_LEVELS; top >= LOWEST_TOP; top--) {
        int sum = 0;
        set_levels(level, share, blocks, top);
        for (int b = 0; b < blocks; b++)
            sum += level[b] * level[b];
        sum *= TOP_SQUARES / (top * top);
        if (sum < least) {
            least = sum;
            best = top;
        }
    }
    set_levels(level, share, blocks, best);
    return best;
}

/* n elements, a multiple of PACK_BLOCK; what they lack to PACK_K counts as 0. rest: what rounding left over.
 */
static void quantise_super_block(struct activation_block *out, float *rest, const float *x, int n)
{
    bool is_finite = all_finite(x, n);
    float amax = is_finite ? largest_of(x, n) : 0, share[PACK_BLOCKS] = { 0 };
    int blocks = n / PACK_BLOCK, level[PACK_BLOCKS];
    memset(out, 0, sizeof *out);
    memset(rest, 0, (size_t)n * sizeof *rest);
    if (!is_finite)
        out->scale = NAN;
    if (amax >= SMALLEST_LARGEST) {
        for (int b = 0; b < blocks; b++)
            share[b] = largest_of(x + b * PACK_BLOCK, PACK_BLOCK) / amax;
        float steps = QUANT_MOST * (float)choose_levels(level, share, blocks);
        out->scale = amax / steps;
        for (int b = 0; b < blocks; b++) {
            float inverse = steps / amax / (float)level[b], step = out->scale * (float)level[b];
            out->step[b] = (uint8_t)(level[b] - 1);
            for (int i = b * PACK_BLOCK; i < (b + 1) * PACK_BLOCK; i++) {
                float q = rintf(x[i] * inverse);
                out->q[i] = (int8_t)q;
                rest[i] = fmaf(-q, step, x[i]);
            }
        }
    }
    for (int b = 0; b < PACK_BLOCKS; b++)
        sum_block(out, b);
}

static void quantise(struct activation_block *out, size_t stride, int planes, const float *x, int n)
{
    for (int s = 0; s < packed_super_blocks(n); s++, out += stride) {
        int count = blocks_in(n, s) * PACK_BLOCK;
        float rest[PACK_K];
        quantise_super_block(out, rest, x + s * PACK_K, count);
        if (planes == 2) {
            float rest_of_rest[PACK_K];
            quantise_super_block(out + 1, rest_of_rest, rest, count);
        }
    }
}

#define ENTRY(name, per_16, minima) { tile_##name },

const struct packed_level packed_level_scalar = {
    .quantise = quantise,
    .max_tile = 1,
    .expand_lines = expand_lines,
    .expand_scales = expand_scales,
    .expand_levels = expand_levels,
    .tiles = { [LINES_8] = { PACKED_TILE_KINDS(ENTRY) } },
    .levelled_tiles = { PACKED_TILE_KINDS(ENTRY) },
    .f32_tiles = { f32_tile },
    .f16_tiles = { f16_tile },
    .bf16_tiles = { bf16_tile },
};
