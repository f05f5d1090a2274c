/* The formulas. With x_i the logits, m their maximum, Z = sum exp(x_i - m) over the whole vocabulary:
 *
 *   log-probability   x_i - m - ln Z
 *   top-k             keep the k first in the order (x descending, id ascending)
 *   top-p             keep the shortest beginning of that order whose probability reaches p, where
 *                     probabilities are those of what top-k left: exp(x_i - m) / sum of the kept
 *   min-p             keep where exp(x_i - m) >= min_p
 *   draw              weights w_i = exp((x_i - m) / temperature) of what is kept; the first token whose
 * running sum exceeds u * sum w, u in [0, 1) from 53 random bits
 *
 * Sums are doubles and run in one fixed order: by id where nothing was sorted, else in the order above. The
 * order is total, so the same logits give the same choice on every machine whose expf agrees.
 *
 * Nothing sorts the vocabulary. Where an order is needed the candidates become a binary heap, O(n), and only
 * as many are taken off it, best first, as the filters keep or the caller wants to see. */
#include "worker/sampler.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/xalloc.h"

struct candidate {
    float x;
    int32_t id;
};

struct sampler {
    int n_vocab;
    /* Those taken off the heap lie behind it, in reverse: the best is last. */
    struct candidate *items;
    int n_items, n_heap;
    float max;
    double z, log_z;
};

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0, p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static double random_unit(uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = { (uint32_t)position, (uint32_t)(position >> 32), 0, 0 };
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t words[4];

    philox4x32(counter, key, words);
    uint64_t bits = (uint64_t)words[0] << 32 | words[1];
    return (double)(bits >> 11) * 0x1p-53;
}

struct sampler *sampler_create(int n_vocab)
{
    assert(n_vocab > 0);
    struct sampler *s = xcalloc(1, sizeof(*s));
    s->n_vocab = n_vocab;
    s->items = xcalloc((size_t)n_vocab, sizeof(*s->items));
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (s) {
        free(s->items);
        free(s);
    }
}

/* A logit as the formulas can bear it: no NaN, no plus infinity. */
static float tame(float x)
{
    if (isnan(x))
        return -INFINITY;
    return x > FLT_MAX ? FLT_MAX : x;
}

/* Finds the most likely token and the sum; false when no token is possible. */
static bool scan(struct sampler *s, const float *logits, int32_t *best)
{
    s->z = 0;
    s->max = -INFINITY;
    *best = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        float x = tame(logits[i]);
        if (x > s->max) {
            s->max = x;
            *best = i;
        }
    }
    if (s->max == -INFINITY)
        return false;
    for (int i = 0; i < s->n_vocab; i++)
        s->z += expf(tame(logits[i]) - s->max);
    s->log_z = log(s->z);
    return true;
}

static struct token_logprob report(const struct sampler *s, int32_t id, float x)
{
    return (struct token_logprob){ id, (float)((double)x - s->max - s->log_z) };
}

static bool is_before(struct candidate a, struct candidate b)
{
    return a.x > b.x || (a.x == b.x && a.id < b.id);
}

static void sift_down(struct candidate *heap, int n, int i)
{
    struct candidate moved = heap[i];

    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_before(heap[child + 1], heap[child]))
            child++;
        if (!is_before(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Tokens of probability 0 are no candidates: they are never drawn and never listed. */
static void build_heap(struct sampler *s, const float *logits)
{
    s->n_items = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        float x = tame(logits[i]);
        if (x > -INFINITY)
            s->items[s->n_items++] = (struct candidate){ x, i };
    }
    s->n_heap = s->n_items;
    for (int i = s->n_heap / 2 - 1; i >= 0; i--)
        sift_down(s->items, s->n_heap, i);
}

/* The candidate of this rank, 0 the best; takes as many off the heap as that needs. rank < n_items. */
static struct candidate ranked(struct sampler *s, int rank)
{
    while (s->n_items - s->n_heap <= rank) {
        struct candidate best = s->items[0];
        s->items[0] = s->items[--s->n_heap];
        if (s->n_heap)
            sift_down(s->items, s->n_heap, 0);
        s->items[s->n_heap] = best;
    }
    return s->items[s->n_items - 1 - rank];
}

/* How many of the ranked candidates the filters leave, at least 1. */
static int count_kept(struct sampler *s, const struct sampling *how)
{
    int kept = s->n_items;

    if (how->top_k > 0 && how->top_k < kept)
        kept = how->top_k;
    if (how->top_p < 1) {
        double total = 0, sum = 0;
        int n = 0;
        if (kept == s->n_items)
            total = s->z;
        else
            for (int i = 0; i < kept; i++)
                total += expf(ranked(s, i).x - s->max);
        do
            sum += expf(ranked(s, n++).x - s->max);
        while (n < kept && sum < how->top_p * total);
        kept = n;
    }
    if (how->min_p > 0) {
        int n = 1;
        while (n < kept && expf(ranked(s, n).x - s->max) >= how->min_p)
            n++;
        kept = n;
    }
    return kept;
}

/* A weight is never NaN: an infinite difference over an infinite temperature counts as impossible. */
static double weigh(const struct sampler *s, float x, float temperature)
{
    float w = expf((x - s->max) / temperature);

    return w > 0 ? w : 0;
}

static struct candidate draw_ranked(struct sampler *s, int kept, float temperature, double unit)
{
    double total = 0, sum = 0;
    struct candidate chosen = ranked(s, 0);

    for (int i = 0; i < kept; i++)
        total += weigh(s, ranked(s, i).x, temperature);
    for (int i = 0; i < kept; i++) {
        struct candidate c = ranked(s, i);
        double w = weigh(s, c.x, temperature);
        if (w > 0)
            chosen = c;
        sum += w;
        if (sum > unit * total)
            break;
    }
    return chosen;
}

/* The same over the whole vocabulary by id, when nothing is cut off. */
static struct candidate draw_any(const struct sampler *s, const float *logits, float temperature, double unit)
{
    double total = 0, sum = 0;
    struct candidate chosen = { 0 };

    for (int i = 0; i < s->n_vocab; i++)
        total += weigh(s, tame(logits[i]), temperature);
    for (int i = 0; i < s->n_vocab; i++) {
        float x = tame(logits[i]);
        double w = weigh(s, x, temperature);
        if (w > 0)
            chosen = (struct candidate){ x, i };
        sum += w;
        if (sum > unit * total)
            break;
    }
    return chosen;
}

void sampler_choose(struct sampler *s, const struct sampling *how, const float *logits, uint64_t position,
                    struct choice *out)
{
    bool is_greedy = !(how->temperature > 0);
    bool has_filter = how->top_k > 0 || how->top_p < 1 || how->min_p > 0;
    struct candidate chosen = { 0 };

    assert(how->n_logprobs >= 0 && how->n_logprobs <= SAMPLER_MAX_LOGPROBS);
    out->n_top = 0;
    if (!scan(s, logits, &chosen.id)) {
        out->token = (struct token_logprob){ 0, -INFINITY };
        return;
    }
    chosen.x = s->max;
    if (how->n_logprobs > 0 || (has_filter && !is_greedy))
        build_heap(s, logits);
    if (!is_greedy) {
        double unit = random_unit(how->seed, position);
        chosen = has_filter ? draw_ranked(s, count_kept(s, how), how->temperature, unit)
                            : draw_any(s, logits, how->temperature, unit);
    }
    out->token = report(s, chosen.id, chosen.x);
    for (; out->n_top < how->n_logprobs && out->n_top < s->n_items; out->n_top++) {
        struct candidate c = ranked(s, out->n_top);
        out->top[out->n_top] = report(s, c.id, c.x);
    }
}
