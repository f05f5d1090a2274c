/* The weights are laid out in the order of the bytes and summed in blocks; over the blocks stands a binary
 * tree of sums. So every range is a sum of few positive numbers, always the same ones in the same order.
 * Running sums would give a range as the difference of two large numbers, and the rare strings, about which a
 * member of an ensemble is asked most, would drown in their rounding. */
#include "worker/score.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "common/xalloc.h"

enum { BLOCK = 64 };

struct score {
    const struct byte_order *order;
    int n, n_blocks;
    const float *logits; /* those at hand */
    struct logit_scale scale;
    double z;
    float *weights; /* [n], by bytes */
    double *tree;   /* [2 * n_blocks]: node i is the sum of 2i and 2i + 1; blocks from n_blocks on */
};

struct score *score_create(const struct byte_order *o)
{
    struct score *s = xcalloc(1, sizeof *s);

    s->order = o;
    s->n = byte_order_count(o);
    s->n_blocks = (s->n + BLOCK - 1) / BLOCK;
    s->weights = xcalloc((size_t)s->n + 1, sizeof *s->weights);
    s->tree = xcalloc((size_t)s->n_blocks * 2 + 1, sizeof *s->tree);
    return s;
}

void score_destroy(struct score *s)
{
    if (!s)
        return;
    free(s->weights);
    free(s->tree);
    free(s);
}

/* Within a block, from `first` to before `end`. */
static double sum_run(const struct score *s, int first, int end)
{
    double sum = 0;

    for (int i = first; i < end; i++)
        sum += (double)s->weights[i];
    return sum;
}

bool score_begin(struct score *s, struct sampler *sampler, const float *logits)
{
    const int32_t *ids = byte_order_ids(s->order);
    const float *weights = sampler_weigh(sampler, logits, &s->scale);

    if (!weights)
        return false;
    s->logits = logits;
    s->z = exp(s->scale.log_z);
    for (int i = 0; i < s->n; i++)
        s->weights[i] = weights[ids[i]];
    for (int b = 0; b < s->n_blocks; b++)
        s->tree[s->n_blocks + b] = sum_run(s, b * BLOCK, b + 1 < s->n_blocks ? (b + 1) * BLOCK : s->n);
    for (int i = s->n_blocks - 1; i > 0; i--)
        s->tree[i] = s->tree[2 * i] + s->tree[2 * i + 1];
    return true;
}

static double sum_blocks(const struct score *s, int first, int end)
{
    double sum = 0;

    for (int low = first + s->n_blocks, high = end + s->n_blocks; low < high; low /= 2, high /= 2) {
        if (low % 2)
            sum += s->tree[low++];
        if (high % 2)
            sum += s->tree[--high];
    }
    return sum;
}

/* The weight of a range. */
static double sum_range(const struct score *s, struct byte_range r)
{
    int first_block = (r.first + BLOCK - 1) / BLOCK, end_block = r.end / BLOCK;

    if (first_block >= end_block)
        return sum_run(s, r.first, r.end);
    return sum_run(s, r.first, first_block * BLOCK) + sum_blocks(s, first_block, end_block) +
           sum_run(s, end_block * BLOCK, r.end);
}

double score_mass(const struct score *s, struct byte_range range)
{
    assert(range.first >= 0 && range.first <= range.end && range.end <= s->n);
    return sum_range(s, range) / s->z;
}

static double log_of_range(const struct score *s, struct byte_range r)
{
    double log_mass = SCORE_NONE;

    if (r.end - r.first == 1) {
        int32_t id = byte_order_ids(s->order)[r.first];
        log_mass = (double)logit_logprob(&s->scale, s->logits[id]);
    } else if (r.first < r.end) {
        double sum = sum_range(s, r);
        log_mass = sum > 0 ? log(sum) - s->scale.log_z : SCORE_NONE;
        /* The whole may round to more than itself. */
        log_mass = log_mass < 0 ? log_mass : 0;
    }
    return log_mass > SCORE_NONE ? log_mass : SCORE_NONE;
}

double score_exact(const struct score *s, const char *bytes, size_t len)
{
    return log_of_range(s, byte_order_equal(s->order, bytes, len));
}

double score_prefix(const struct score *s, const char *bytes, size_t len)
{
    return log_of_range(s, byte_order_prefix(s->order, bytes, len));
}
