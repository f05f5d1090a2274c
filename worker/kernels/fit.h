/* The searches behind the quantisers: scales and integers with a small sum of squared errors. */
#ifndef WOOLLY_KERNELS_FIT_H
#define WOOLLY_KERNELS_FIT_H

#include <stdint.h>

/* The values an integer code may stand for, ascending: `values`, or count whole numbers from `first` up. */
struct ladder {
    int first, count;
    const int8_t *values; /* NULL for whole numbers */
};

enum { FIT_MAX_SUBS = 16 };

/* A block of `n_subs` sub-blocks of `len` numbers; the scale of sub-block s is scale * sub[s], with sub in
 * sub_low..sub_high. */
struct fit_signed {
    const struct ladder *ladder;
    int n_subs, len, sub_low, sub_high;
    uint16_t scale; /* f16 */
    int sub[FIT_MAX_SUBS];
    uint8_t q[256]; /* codes */
};

/* As above; numbers are scale * sub_scale[s] * q - base * sub_base[s], with q in 0..q_high and both sub
 * scales in 0..sub_high. */
struct fit_affine {
    int n_subs, len, sub_high, q_high;
    uint16_t scale, base; /* f16 */
    int sub_scale[FIT_MAX_SUBS], sub_base[FIT_MAX_SUBS];
    uint8_t q[256];
};

/* Fill the fields after the shape from n_subs * len numbers. */
void fit_signed(struct fit_signed *f, const float *x);
void fit_affine(struct fit_affine *f, const float *x);

/* The codes of x at a given scale; returns the sum of squared errors. */
double ladder_encode(const struct ladder *l, float scale, const float *x, int n, uint8_t *q);

/* The scale with the smallest error found, not yet rounded. */
float ladder_fit(const struct ladder *l, const float *x, int n);

#endif
