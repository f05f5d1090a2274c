/* The reference of attention: the jobs of a tile in plain C, element by element, with the same integers as
 * the fast levels where the cache holds integers. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/attention_tile.h"
#include "worker/kernels/half.h"
#include "worker/kernels/levels.h"

static float number(enum kv_type type, const char *from, size_t i)
{
    const void *numbers = from;
    if (type == KV_F32)
        return ((const float *)numbers)[i];
    uint16_t bits = ((const uint16_t *)numbers)[i];
    return type == KV_F16 ? float_of_half(bits) : float_of_bf16(bits);
}

static void scores_of_floats(struct tile *t, const char *block)
{
    const struct kv_layout *l = t->layout;
    size_t dim = (size_t)l->head_dim;
    for (int i = 0; i < t->n; i++)
        for (int p = t->from[i]; p < t->to[i]; p++) {
            const float *q = t->q + (size_t)i * dim;
            size_t at = (size_t)(p / KV_GROUP) * dim * KV_GROUP + (size_t)(p % KV_GROUP);
            float sum = 0;
            for (size_t d = 0; d < dim; d++)
                sum += q[d] * number(l->type, block + l->k, at + d * KV_GROUP);
            t->score[i * KV_BLOCK + p] = sum;
        }
}

static void add_values_of_floats(struct tile *t, const char *block)
{
    const struct kv_layout *l = t->layout;
    for (int i = 0; i < t->n; i++)
        for (int p = t->from[i]; p < t->to[i]; p++) {
            float *out = t->record + (size_t)i * record_floats(l), weight = t->score[i * KV_BLOCK + p];
            for (int d = 0; d < l->head_dim; d++)
                out[d] += weight * number(l->type, block + l->v, (size_t)(p * l->width + d));
        }
}

/* --- integers --- */

static int integer(enum kv_type type, uint8_t byte, bool is_high)
{
    return type == KV_Q8 ? byte : is_high ? byte >> 4 : byte & 15;
}

static void quantise(struct tile *t)
{
    const struct kv_layout *l = t->layout;
    memset(t->words, 0, (size_t)(t->n * l->depth) * sizeof *t->words);
    memset(t->q_sum, 0, (size_t)(t->n * l->n_parts) * sizeof *t->q_sum);
    for (int i = 0; i < t->n; i++) {
        const float *q = t->q + i * l->head_dim;
        int16_t *words = t->words + i * l->depth;
        float largest = 0;
        bool is_finite = true;
        for (int d = 0; d < l->head_dim; d++) {
            is_finite = is_finite && fabsf(q[d]) <= FLT_MAX;
            largest = fmaxf(largest, fabsf(q[d]));
        }
        t->q_scale[i] = is_finite ? largest / QUERY_MOST : NAN;
        for (int d = 0; d < l->head_dim && is_finite && largest >= FLT_MIN * QUERY_MOST; d++) {
            words[d] = (int16_t)lrintf(q[d] * (QUERY_MOST / largest));
            t->q_sum[i * l->n_parts + d / KV_PART] += words[d];
        }
    }
}

static float score_of_integers(const struct tile *t, const char *block, int query, int p)
{
    const struct kv_layout *l = t->layout;
    int group = p / KV_GROUP, lane = p % KV_GROUP, per_byte = l->type == KV_Q4 ? 2 : 1;
    const uint8_t *lines = (const uint8_t *)block + l->k + group * (l->depth / 4 / per_byte) * 64;
    const uint16_t *scales = (const uint16_t *)(const void *)block + group * l->n_parts * KV_GROUP + lane;
    const int16_t *words = t->words + query * l->depth;
    float score = 0;
    for (int part = 0; part < l->n_parts; part++) {
        int32_t q_sum = t->q_sum[query * l->n_parts + part], sum = l->type == KV_Q8 ? -128 * q_sum : 0;
        for (int d = part * KV_PART; d < part * KV_PART + KV_PART && d < l->depth; d++) {
            uint8_t byte = lines[d / 4 / per_byte * 64 + lane * 4 + d % 4];
            sum += words[d] * integer(l->type, byte, d / 4 % per_byte);
        }
        score += float_of_half(scales[part * KV_GROUP]) * (float)sum;
        if (l->type == KV_Q4)
            score += float_of_half(scales[part * KV_GROUP + KV_BLOCK * l->n_parts]) * (float)q_sum;
    }
    return score * t->q_scale[query];
}

static void scores_of_integers(struct tile *t, const char *block)
{
    for (int i = 0; i < t->n; i++)
        for (int p = t->from[i]; p < t->to[i]; p++)
            t->score[i * KV_BLOCK + p] = score_of_integers(t, block, i, p);
}

/* Weights with the scales of their values in them become integers of 0..WEIGHT_MOST; returns their scale. */
static float quantise_weights(const struct tile *t, const uint16_t *scales, int query, int *words)
{
    float scaled[KV_BLOCK] = { 0 }, largest = 0;
    bool is_number = true;
    memset(words, 0, KV_BLOCK * sizeof *words);
    for (int p = t->from[query]; p < t->to[query]; p++) {
        scaled[p] = t->score[query * KV_BLOCK + p] * float_of_half(scales[p]);
        is_number = is_number && !isnan(scaled[p]);
        largest = fmaxf(largest, scaled[p]);
    }
    if (!is_number)
        return NAN;
    if (largest < FLT_MIN * WEIGHT_MOST)
        return 0;
    for (int p = t->from[query]; p < t->to[query]; p++)
        words[p] = (int)lrintf(scaled[p] * (WEIGHT_MOST / largest));
    return largest / WEIGHT_MOST;
}

static int32_t sum_of_values(const struct kv_layout *l, const uint8_t *lines, const int *words, int d)
{
    int per_byte = l->type == KV_Q4 ? 2 : 1, vectors = l->width / 16 / per_byte;
    int32_t sum = 0;
    for (int p = 0; p < KV_BLOCK; p++) {
        uint8_t byte = lines[(p / 4 * vectors + d / 16 / per_byte) * 64 + d % 16 * 4 + p % 4];
        sum += words[p] * (l->type == KV_Q8 ? (int8_t)byte : integer(l->type, byte, d / 16 % per_byte));
    }
    return sum;
}

static void add_values_of_integers(struct tile *t, const char *block)
{
    const struct kv_layout *l = t->layout;
    const uint16_t *scales = (const void *)(block + l->v_scales);
    int words[KV_BLOCK];
    for (int i = 0; i < t->n; i++) {
        if (sees_nothing(t, i))
            continue;
        float scale = quantise_weights(t, scales, i, words), least = 0;
        float *out = t->record + (size_t)i * record_floats(l);
        for (int p = t->from[i]; p < t->to[i] && l->type == KV_Q4; p++)
            least += t->score[i * KV_BLOCK + p] * float_of_half(scales[KV_BLOCK + p]);
        for (int d = 0; d < l->head_dim; d++)
            out[d] += (float)sum_of_values(l, (const uint8_t *)block + l->v, words, d) * scale + least;
    }
}

/* --- weights and records --- */

static void weigh_query(struct tile *t, int query)
{
    const struct kv_layout *l = t->layout;
    float *score = t->score + query * KV_BLOCK, *record = t->record + (size_t)query * record_floats(l);
    float *reference = record_reference(l, record), *total = record + l->width, top = -INFINITY;
    for (int p = t->from[query]; p < t->to[query]; p++) {
        if (t->soft_cap > 0)
            score[p] = t->soft_cap * tanhf(score[p] / t->soft_cap);
        top = fmaxf(top, score[p]);
    }
    if (top > *reference + REFERENCE_SLACK) {
        float shrink = exp2f(*reference - top);
        for (int d = 0; d < l->width + 1; d++)
            record[d] *= shrink;
        *reference = top;
    }
    for (int p = t->from[query]; p < t->to[query]; p++)
        *total += score[p] = exp2f(score[p] - *reference);
}

static void weigh(struct tile *t)
{
    for (int i = 0; i < t->n; i++)
        if (!sees_nothing(t, i))
            weigh_query(t, i);
}

static void merge(const struct kv_layout *l, float *into, const float *from)
{
    float *to = record_reference(l, into), more = from[l->width + 16], top = fmaxf(*to, more);
    float a = exp2f(*to - top), b = exp2f(more - top);
    for (int d = 0; d < l->width + 1; d++)
        into[d] = into[d] * a + from[d] * b;
    *to = top;
}

static void finish(const struct kv_layout *l, float *out, const float *record)
{
    for (int d = 0; d < l->head_dim; d++)
        out[d] = record[d] / record[l->width];
}

void attention_init_scalar(struct kernels *k)
{
    k->attention =
        (struct attention_kernels){ .quantise = quantise, .weigh = weigh, .merge = merge, .finish = finish };
    for (int type = 0; type < KV_TYPES; type++) {
        bool is_integer = type == KV_Q8 || type == KV_Q4;
        k->attention.scores[type] = is_integer ? scores_of_integers : scores_of_floats;
        k->attention.add_values[type] = is_integer ? add_values_of_integers : add_values_of_floats;
    }
}
