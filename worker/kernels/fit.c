/* How the search goes.
 *
 * For integers given, the best scale is a small least squares problem; for a scale given, the best integers
 * are the nearest. So: try a row of scales that put the largest number near the end of the range, let each
 * find its integers, keep the one whose least squares solution leaves the smallest error, and go back and
 * forth from there until nothing improves. Then the scales of the sub-blocks become integers themselves: the
 * neighbours of each are tried, and the block's own scale is solved for again with all integers given. */
#include "worker/kernels/fit.h"

#include <math.h>
#include <string.h>

#include "worker/kernels/half.h"

/* Rounds v, which lies in low..high or is brought there; a NaN becomes low. */
static inline int round_into(float v, int low, int high)
{
    v = v > (float)low ? v : (float)low;
    v = v < (float)high ? v : (float)high;
    return (int)(v - (float)low + 0.5f) + low;
}

static inline int ladder_nearest(const struct ladder *l, float v)
{
    if (!l->values)
        return round_into(v - (float)l->first, 0, l->count - 1);
    int below = 0, above = l->count - 1;
    while (above - below > 1) {
        int middle = (below + above) / 2;
        if (v >= (float)l->values[middle])
            below = middle;
        else
            above = middle;
    }
    return v - (float)l->values[below] <= (float)l->values[above] - v ? below : above;
}

static inline float ladder_value(const struct ladder *l, int code)
{
    return (float)(l->values ? l->values[code] : l->first + code);
}

static float inverse_of(float scale)
{
    float inverse = scale != 0 ? 1 / scale : 0;
    return isfinite(inverse) ? inverse : 0;
}

double ladder_encode(const struct ladder *l, float scale, const float *x, int n, uint8_t *q)
{
    float inverse = inverse_of(scale), error = 0;
    for (int i = 0; i < n; i++) {
        int code = ladder_nearest(l, x[i] * inverse);
        float off = x[i] - scale * ladder_value(l, code);
        q[i] = (uint8_t)code;
        error += off * off;
    }
    return error;
}

/* With the codes that 1/inverse gives x: the least squares scale, and by how much it lowers the sum of
 * squared errors from that of all zeros. */
static float solve_scale(const struct ladder *l, float inverse, const float *x, int n, float *gain)
{
    float xv = 0, vv = 0;
    for (int i = 0; i < n; i++) {
        float v = ladder_value(l, ladder_nearest(l, x[i] * inverse));
        xv += x[i] * v;
        vv += v * v;
    }
    *gain = vv > 0 ? xv * xv / vv : 0;
    return vv > 0 ? xv / vv : 0;
}

static float largest_of(const float *x, int n)
{
    float largest = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(largest))
            largest = x[i];
    return largest;
}

float ladder_fit(const struct ladder *l, const float *x, int n)
{
    enum { STEPS = 10 }; /* to either side, covering a tenth of the range or one step of it */
    float largest = largest_of(x, n), ends[2] = { ladder_value(l, 0), ladder_value(l, l->count - 1) };
    float best = 0, best_gain = 0;
    if (!(fabsf(largest) > 0))
        return 0;
    for (int e = 0; e < 2; e++) {
        float reach = fmaxf(1, fabsf(ends[e]) / 10);
        for (int i = -STEPS; i <= STEPS; i++) {
            float gain, scale = solve_scale(l, (ends[e] + reach * (float)i / STEPS) / largest, x, n, &gain);
            if (gain > best_gain) {
                best_gain = gain;
                best = scale;
            }
        }
    }
    for (int round = 0; round < 4; round++) {
        float gain, scale = solve_scale(l, inverse_of(best), x, n, &gain);
        if (!(gain > best_gain))
            break;
        best_gain = gain;
        best = scale;
    }
    return best;
}

/* The best integer scale of one sub-block near `wanted`, with its codes; returns the error. */
static double choose_sub(const struct fit_signed *f, float scale, float wanted, const float *x, int *sub,
                         uint8_t *q)
{
    int middle = round_into(wanted * inverse_of(scale), f->sub_low, f->sub_high);
    double best = INFINITY;
    uint8_t codes[256];
    for (int s = middle - 1; s <= middle + 1; s++) {
        if (s < f->sub_low || s > f->sub_high)
            continue;
        double error = ladder_encode(f->ladder, scale * (float)s, x, f->len, codes);
        if (!(error < best) && s != middle)
            continue;
        best = error;
        *sub = s;
        memcpy(q, codes, (size_t)f->len);
    }
    return best;
}

/* Everything that follows from the block's scale; returns the error. */
static double fit_signed_at(struct fit_signed *f, uint16_t scale, const float *wanted, const float *x)
{
    double error = 0;
    f->scale = scale;
    for (int s = 0; s < f->n_subs; s++)
        error +=
            choose_sub(f, float_of_half(scale), wanted[s], x + s * f->len, &f->sub[s], f->q + s * f->len);
    return error;
}

/* The least squares scale for the integers at hand. */
static float solve_block_scale(const struct fit_signed *f, const float *x)
{
    double xv = 0, vv = 0;
    for (int i = 0; i < f->n_subs * f->len; i++) {
        double v = (double)f->sub[i / f->len] * (double)ladder_value(f->ladder, f->q[i]);
        xv += x[i] * v;
        vv += v * v;
    }
    return vv > 0 ? (float)(xv / vv) : 0;
}

static void keep_better(struct fit_signed *best, double *best_error, struct fit_signed *trial, float scale,
                        const float *wanted, const float *x)
{
    double error = fit_signed_at(trial, half_of_float(scale), wanted, x);
    if (error < *best_error) {
        *best_error = error;
        *best = *trial;
    }
}

void fit_signed(struct fit_signed *f, const float *x)
{
    float wanted[FIT_MAX_SUBS];
    struct fit_signed trial = *f;
    for (int s = 0; s < f->n_subs; s++)
        wanted[s] = ladder_fit(f->ladder, x + s * f->len, f->len);
    float largest = largest_of(wanted, f->n_subs);
    double best_error = fit_signed_at(f, 0, wanted, x);
    const float ends[] = { (float)f->sub_low, (float)f->sub_low - 0.5f, (float)f->sub_low + 0.5f,
                           (float)f->sub_high };
    for (int e = 0; e < 4; e++)
        keep_better(f, &best_error, &trial, largest / ends[e], wanted, x);
    for (int round = 0; round < 2; round++)
        keep_better(f, &best_error, &trial, solve_block_scale(f, x), wanted, x);
}

/* --- with a base --- */

/* x is about scale * q - base */
struct line {
    float scale, base;
};

/* With the codes that `l` gives x: the least squares line with a base that is not negative, and its sum of
 * squared errors less the sum of x squared. */
static struct line solve_line(struct line l, int q_high, const float *x, int n, float *error)
{
    float inverse = inverse_of(l.scale), q1 = 0, q2 = 0, x1 = 0, xq = 0;
    for (int i = 0; i < n; i++) {
        float q = (float)round_into((x[i] + l.base) * inverse, 0, q_high);
        q1 += q;
        q2 += q * q;
        x1 += x[i];
        xq += x[i] * q;
    }
    float determinant = (float)n * q2 - q1 * q1;
    struct line best = { 0, 0 };
    if (determinant > 0) {
        best.scale = ((float)n * xq - q1 * x1) / determinant;
        best.base = (q1 * xq - q2 * x1) / determinant;
    }
    if (!(best.base > 0) || !(best.scale > 0))
        best = (struct line){ q2 > 0 ? fmaxf(xq / q2, 0) : 0, 0 };
    *error = best.scale * best.scale * q2 + (float)n * best.base * best.base -
             2 * best.scale * best.base * q1 - 2 * best.scale * xq + 2 * best.base * x1;
    return best;
}

static struct line fit_line(int q_high, const float *x, int n)
{
    enum { STEPS = 10 };
    float low = 0, high = x[0], best_error = 0;
    struct line best = { 0, 0 };
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (!(high > low))
        return (struct line){ 0, -low };
    for (int i = -STEPS; i <= STEPS; i++) {
        float error;
        struct line trial = { (high - low) / ((float)q_high + (float)i / STEPS), -low };
        trial = solve_line(trial, q_high, x, n, &error);
        if (error < best_error) {
            best_error = error;
            best = trial;
        }
    }
    for (int round = 0; round < 4; round++) {
        float error;
        struct line trial = solve_line(best, q_high, x, n, &error);
        if (!(error < best_error))
            break;
        best_error = error;
        best = trial;
    }
    return best;
}

static float encode_line(struct line l, int q_high, const float *x, int n, uint8_t *q)
{
    float inverse = inverse_of(l.scale), error = 0;
    for (int i = 0; i < n; i++) {
        int code = round_into((x[i] + l.base) * inverse, 0, q_high);
        float off = x[i] - (l.scale * (float)code - l.base);
        q[i] = (uint8_t)code;
        error += off * off;
    }
    return error;
}

/* Moves the integers of sub-block s to their best neighbours while that helps; returns the error. */
static double settle_sub(struct fit_affine *f, int s, const float *x)
{
    float scale = float_of_half(f->scale), base = float_of_half(f->base);
    int *sub_scale = &f->sub_scale[s], *sub_base = &f->sub_base[s];
    uint8_t codes[256], *q = f->q + s * f->len;
    float best = encode_line((struct line){ scale * (float)*sub_scale, base * (float)*sub_base }, f->q_high,
                             x, f->len, q);
    for (int round = 0; round < 3; round++) {
        int from_scale = *sub_scale, from_base = *sub_base;
        for (int i = 0; i < 9; i++) {
            int a = from_scale + i / 3 - 1, b = from_base + i % 3 - 1;
            if (i == 4 || a < 0 || b < 0 || a > f->sub_high || b > f->sub_high)
                continue;
            struct line l = { scale * (float)a, base * (float)b };
            float error = encode_line(l, f->q_high, x, f->len, codes);
            if (error < best) {
                best = error;
                *sub_scale = a;
                *sub_base = b;
                memcpy(q, codes, (size_t)f->len);
            }
        }
        if (*sub_scale == from_scale && *sub_base == from_base)
            break;
    }
    return best;
}

/* Everything that follows from the block's scale and base; the integers start from what is wanted. */
static double fit_affine_at(struct fit_affine *f, struct line block, const struct line *wanted,
                            const float *x)
{
    double error = 0;
    f->scale = half_of_float(block.scale);
    f->base = half_of_float(block.base);
    float inverse_scale = inverse_of(float_of_half(f->scale)),
          inverse_base = inverse_of(float_of_half(f->base));
    for (int s = 0; s < f->n_subs; s++) {
        f->sub_scale[s] = round_into(wanted[s].scale * inverse_scale, 0, f->sub_high);
        f->sub_base[s] = round_into(wanted[s].base * inverse_base, 0, f->sub_high);
        error += settle_sub(f, s, x + s * f->len);
    }
    return error;
}

/* The least squares scale and base of the block for the integers at hand. */
static struct line solve_block_line(const struct fit_affine *f, const float *x)
{
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int i = 0; i < f->n_subs * f->len; i++) {
        double a = (double)f->sub_scale[i / f->len] * f->q[i], b = -(double)f->sub_base[i / f->len];
        aa += a * a;
        ab += a * b;
        bb += b * b;
        ax += a * x[i];
        bx += b * x[i];
    }
    double determinant = aa * bb - ab * ab;
    if (!(determinant > 0))
        return (struct line){ aa > 0 ? (float)(ax / aa) : 0, bb > 0 ? (float)(bx / bb) : 0 };
    return (struct line){ (float)((ax * bb - bx * ab) / determinant),
                          (float)((bx * aa - ax * ab) / determinant) };
}

void fit_affine(struct fit_affine *f, const float *x)
{
    struct line wanted[FIT_MAX_SUBS], largest = { 0, 0 };
    struct fit_affine trial = *f;
    for (int s = 0; s < f->n_subs; s++) {
        wanted[s] = fit_line(f->q_high, x + s * f->len, f->len);
        largest.scale = fmaxf(largest.scale, wanted[s].scale);
        largest.base = fmaxf(largest.base, wanted[s].base);
    }
    struct line block = { largest.scale / (float)f->sub_high, largest.base / (float)f->sub_high };
    double best_error = fit_affine_at(f, block, wanted, x);
    for (int round = 0; round < 4; round++) {
        double error = fit_affine_at(&trial, solve_block_line(f, x), wanted, x);
        if (!(error < best_error))
            break;
        best_error = error;
        *f = trial;
    }
}
