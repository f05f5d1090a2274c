/* The reference of attention: softmax(scale * q k) v, its scores capped or not, with a running maximum and a
 * running sum. When a block brings a higher maximum, what was summed so far is scaled down to it. */
#include <math.h>

#include "worker/kernels/half.h"
#include "worker/kernels/levels.h"

static float load_f32(const void *base, size_t i)
{
    return ((const float *)base)[i];
}

static float load_f16(const void *base, size_t i)
{
    return float_of_half(((const uint16_t *)base)[i]);
}

static void attend_head(const struct attention *a, const float *q, float *out,
                        float (*load)(const void *base, size_t i))
{
    float score[ATTENTION_BLOCK], highest = -INFINITY, total = 0;
    size_t dim = (size_t)a->head_dim;
    memset(out, 0, dim * sizeof *out);
    for (int start = attention_start(a); start < a->n_pos; start += ATTENTION_BLOCK) {
        int n = a->n_pos - start < ATTENTION_BLOCK ? a->n_pos - start : ATTENTION_BLOCK;
        int from = a->first_pos > start ? a->first_pos - start : 0;
        float before = highest;
        for (int p = from; p < n; p++) {
            score[p] = 0;
            for (size_t d = 0; d < dim; d++)
                score[p] += q[d] * load(a->k, (size_t)(start + p) * dim + d);
            score[p] *= a->scale;
            if (a->soft_cap > 0)
                score[p] = a->soft_cap * tanhf(score[p] / a->soft_cap);
            highest = fmaxf(highest, score[p]);
        }
        float shrink = expf(before - highest);
        total *= shrink;
        for (size_t d = 0; d < dim; d++)
            out[d] *= shrink;
        for (int p = from; p < n; p++) {
            float weight = expf(score[p] - highest);
            total += weight;
            for (size_t d = 0; d < dim; d++)
                out[d] += weight * load(a->v, (size_t)(start + p) * dim + d);
        }
    }
    for (size_t d = 0; d < dim; d++)
        out[d] /= total;
}

static void attend_f32(const struct attention *a)
{
    for (int g = 0; g < a->n_group; g++)
        attend_head(a, a->q + (size_t)g * (size_t)a->head_dim, a->out + (size_t)g * (size_t)a->head_dim,
                    load_f32);
}

static void attend_f16(const struct attention *a)
{
    for (int g = 0; g < a->n_group; g++)
        attend_head(a, a->q + (size_t)g * (size_t)a->head_dim, a->out + (size_t)g * (size_t)a->head_dim,
                    load_f16);
}

void attention_init_scalar(struct kernels *k)
{
    k->attend_f32 = attend_f32;
    k->attend_f16 = attend_f16;
}
