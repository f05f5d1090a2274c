/* The formulas. With x_i the logits, m their maximum, Z = sum exp(x_i - m) over the whole vocabulary:
 *
 *   log-probability   x_i - m - ln Z
 *   top-k             keep the k first in the order (x descending, id ascending)
 *   top-p             keep the shortest beginning of that order whose probability reaches p, where
 *                     probabilities are those of what top-k left: exp(x_i - m) / sum of the kept
 *   min-p             keep where x_i >= m + ln min_p
 *   draw              weights w_i = exp((x_i - m) / temperature) of what is kept; the first token, by id,
 *                     whose running sum exceeds u * sum w, u in [0, 1) from 53 random bits
 *
 * Nothing is sorted but the list of log-probabilities. A filter keeps a beginning of the one order, so all it
 * needs is a cutoff. First a bound is found that all it keeps must reach, so that only a few are looked at
 * again: the k highest are not below the k-th of the maxima of the blocks; for top-p the bound sinks until
 * what reaches it has the share, or, where that would be most of a large vocabulary, a sample says between
 * which bounds the cutoff lies. Then the cutoff, by halving: at most 32 sums, over ever fewer logits unless
 * they are of one value.
 *
 * exp comes from the kernels, where every level gives the same bits; its sums are of floats in a block, of
 * doubles from block to block. So the same logits give the same choice on every machine. */
#include "worker/sampler.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/kernels/kernels.h"

enum {
    SLACK = 16,      /* asked for by collect */
    WEIGHTLESS = 87, /* so far below the maximum weights are 0 */
    /* When halving drops the candidates out of its range. Measured, but flat around. */
    STEPS_TO_NARROW = 4,
    WORTH_NARROWING = 512,
    /* Of top-p over a large vocabulary: every such block, and from how many tokens on. */
    SAMPLE = 16,
    SMALL_SAMPLE = 64,
    LEAST_TO_SAMPLE = 16 * 1024,
    LIKELY = 6, /* so far below ln Z most of the weight is above */
};

/* Of a share: with more the sample is not worth looking at. */
static const double MOST_DOUBT = 0.2;

struct sampler {
    struct logit_kernels kernels;
    int n_vocab;
    int n_blocks;
    float *maxima; /* [n_blocks] */
    float *sums;   /* [n_blocks] of weights, of all logits or of the candidates */

    /* Of the logits at hand. */
    struct logit_scale scale;
    double z;
    bool is_spread; /* over most of a large vocabulary; then there are: */
    float *all;     /* [n_vocab] weights of all */

    /* The candidates, by id. */
    int n;
    float *x;       /* [n_vocab + SLACK] */
    int32_t *ids;   /* [n_vocab + SLACK] */
    float *weights; /* [n_vocab] */
    float least;    /* the bound they reach */
    float most;     /* the one they do not exceed */
    double above;   /* the weight, or the number, of what exceeds it */
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

/* Which level is only a matter of speed: all give the same. */
static struct logit_kernels find_kernels(void)
{
    struct kernels k;
    enum isa isa;
    char problem[120];

    kernels_init(&k, isa_choose(&isa, problem, sizeof(problem)) ? isa : ISA_SCALAR);
    return k.logits;
}

struct sampler *sampler_create(int n_vocab)
{
    assert(n_vocab > 0);
    struct sampler *s = xcalloc(1, sizeof(*s));
    size_t n = (size_t)n_vocab, n_blocks = (n + LOGIT_BLOCK - 1) / LOGIT_BLOCK;

    s->kernels = find_kernels();
    s->n_vocab = n_vocab;
    s->n_blocks = (int)n_blocks;
    s->maxima = xcalloc(n_blocks, sizeof(*s->maxima));
    s->sums = xcalloc(n_blocks, sizeof(*s->sums));
    s->x = xcalloc(n + SLACK, sizeof(*s->x));
    s->ids = xcalloc(n + SLACK, sizeof(*s->ids));
    s->weights = xcalloc(n, sizeof(*s->weights));
    s->all = xcalloc(n, sizeof(*s->all));
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (!s)
        return;
    free(s->maxima);
    free(s->sums);
    free(s->x);
    free(s->ids);
    free(s->weights);
    free(s->all);
    free(s);
}

/* Leaves the sums of the blocks and returns theirs. */
static double sum_weights(struct sampler *s, const float *x, int n, float slope)
{
    double sum = 0;

    s->kernels.sums(s->sums, x, n, s->scale.max, slope);
    for (int at = 0; at < n; at += LOGIT_BLOCK)
        sum += s->sums[at / LOGIT_BLOCK];
    return sum;
}

/* Finds the maximum; false when no token is possible. */
static bool find_max(struct sampler *s, const float *logits)
{
    s->kernels.maxima(s->maxima, logits, s->n_vocab);
    s->scale.max = -INFINITY;
    for (int b = 0; b < s->n_blocks; b++)
        s->scale.max = s->maxima[b] > s->scale.max ? s->maxima[b] : s->scale.max;
    s->is_spread = false;
    return s->scale.max > -INFINITY;
}

static void set_z(struct sampler *s, double z)
{
    s->z = z;
    s->scale.log_z = log(z);
}

/* And the sum. */
static bool scan(struct sampler *s, const float *logits)
{
    if (!find_max(s, logits))
        return false;
    set_z(s, sum_weights(s, logits, s->n_vocab, 1));
    return true;
}

static int32_t find_best(const struct sampler *s, const float *logits)
{
    int i = 0;

    while (s->maxima[i / LOGIT_BLOCK] < s->scale.max)
        i += LOGIT_BLOCK;
    while (!(logits[i] >= s->scale.max))
        i++;
    return i;
}

float logit_logprob(const struct logit_scale *scale, float x)
{
    if (isnan(x))
        return -INFINITY;
    x = x < FLT_MAX ? x : FLT_MAX;
    return (float)((double)x - scale->max - scale->log_z);
}

static struct token_logprob report(const struct sampler *s, int32_t id, float x)
{
    return (struct token_logprob){ id, logit_logprob(&s->scale, x) };
}

/* An integer in the order of the floats. */
static uint32_t order_of(float x)
{
    union {
        float f;
        uint32_t bits;
    } u = { x };

    return u.bits & 0x80000000u ? ~u.bits : u.bits | 0x80000000u;
}

static float float_at(uint32_t order)
{
    union {
        uint32_t bits;
        float f;
    } u = { order & 0x80000000u ? order & ~0x80000000u : ~order };

    return u.f;
}

/* A beginning of the order: what is above x, and of what equals it the first n_equal by id. */
struct cutoff {
    float x;
    int n_equal;
};

static struct cutoff higher_cutoff(struct cutoff a, struct cutoff b)
{
    if (a.x == b.x)
        return a.n_equal < b.n_equal ? a : b;
    return a.x > b.x ? a : b;
}

/* What is at least `least` becomes the candidates. */
static void collect(struct sampler *s, const float *logits, float least)
{
    s->least = least;
    s->most = s->scale.max;
    s->above = 0;
    s->n = s->kernels.collect(s->x, s->ids, logits, s->n_vocab, s->maxima, least, INFINITY);
}

static void weigh(struct sampler *s)
{
    s->kernels.weights(s->weights, s->x, s->n, s->scale.max, 1);
}

static double sum_above(const struct sampler *s, bool is_weighted, float least)
{
    return s->kernels.sum_above(s->x, is_weighted ? s->weights : NULL, s->n, least);
}

/* Leaves only the candidates between two places in the order, which is all that halving looks at. */
static void narrow(struct sampler *s, bool is_weighted, uint32_t low, uint32_t high)
{
    s->n = s->kernels.collect(s->x, s->ids, s->x, s->n, NULL, float_at(low), float_at(high));
    if (is_weighted)
        weigh(s);
}

/* The shortest beginning of the candidates whose weights, or whose number, reach the goal; at least one, and
 * all where rounding keeps the sum below. Halves the range of the floats, and uses the candidates up. */
static struct cutoff find_cutoff(struct sampler *s, bool is_weighted, double goal)
{
    uint32_t low = order_of(s->least), high = order_of(s->most);
    double above = s->above, gone = s->above;

    for (int step = 0; low < high; step++) {
        /* Many may share the maximum. */
        uint32_t middle = step ? low + (high - low) / 2 + 1 : high;
        double sum = gone + sum_above(s, is_weighted, float_at(middle));
        if (sum >= goal) {
            low = middle;
        } else {
            high = middle - 1;
            above = sum;
        }
        if (step % STEPS_TO_NARROW == STEPS_TO_NARROW - 1 && s->n > WORTH_NARROWING) {
            narrow(s, is_weighted, low, high);
            gone = above;
        }
    }
    struct cutoff c = { float_at(low), 1 };
    float weight = 1;
    if (is_weighted)
        s->kernels.weights(&weight, &c.x, 1, s->scale.max, 1);
    double n_equal = ceil((goal - above) / weight);
    if (n_equal > 1)
        c.n_equal = n_equal < s->n_vocab ? (int)n_equal : s->n_vocab;
    return c;
}

/* The `count` first of all become candidates, and maybe more. */
static void collect_first(struct sampler *s, const float *logits, int count)
{
    float least = -FLT_MAX;

    if (count <= s->n_blocks) {
        memcpy(s->x, s->maxima, (size_t)s->n_blocks * sizeof(*s->x));
        s->n = s->n_blocks;
        s->least = least;
        s->most = s->scale.max;
        s->above = 0;
        least = find_cutoff(s, false, count).x;
    }
    collect(s, logits, least);
}

/* Those of at least `lowest` with this weight become candidates, and maybe more; they are weighed. Where
 * rounding keeps their sum below it, all that have weight. The steps are a guess: one pass for sharp
 * distributions and for normal ones, seven at most. */
static void collect_share(struct sampler *s, const float *logits, double goal, float lowest)
{
    for (float below = LIKELY + (float)s->scale.log_z;; below *= 1.5f) {
        float least = s->scale.max - below > lowest ? s->scale.max - below : lowest;
        collect(s, logits, least);
        weigh(s);
        if (least <= lowest || below >= WEIGHTLESS || sum_above(s, true, least) >= goal)
            return;
    }
}

/* Every n-th block of the logits becomes a candidate. */
static void take_sample(struct sampler *s, const float *logits, int n)
{
    s->n = 0;
    for (int b = 0; (b + 1) * LOGIT_BLOCK <= s->n_vocab; b += n) {
        memcpy(s->x + s->n, logits + b * LOGIT_BLOCK, LOGIT_BLOCK * sizeof(*s->x));
        s->n += LOGIT_BLOCK;
    }
    s->least = s->scale.max - WEIGHTLESS;
    s->most = s->scale.max;
    s->above = 0;
}

/* As scan, for top-p alone. Where the weight is spread over most of a large vocabulary, what reaches the
 * share is most of it too, and it pays to keep all weights and to look at few logits again. */
static bool scan_for_share(struct sampler *s, const float *logits)
{
    if (s->n_vocab < LEAST_TO_SAMPLE)
        return scan(s, logits);
    if (!find_max(s, logits))
        return false;

    take_sample(s, logits, SMALL_SAMPLE);
    double sampled = sum_weights(s, s->x, s->n, 1);
    float below = LIKELY + (float)log(sampled * SMALL_SAMPLE);
    s->is_spread = sampled > 0 && sum_above(s, false, s->scale.max - below) > s->n / 2;
    if (!s->is_spread) {
        set_z(s, sum_weights(s, logits, s->n_vocab, 1));
        return true;
    }
    s->kernels.weights(s->all, logits, s->n_vocab, s->scale.max, 1);
    set_z(s, s->kernels.sum_above(logits, s->all, s->n_vocab, -FLT_MAX));
    return true;
}

/* Only those near the cutoff become candidates: a sample says where it must lie, and the weight of all above
 * is summed in one pass. False where the sample leaves it in doubt or was wrong. */
static bool collect_border(struct sampler *s, const float *logits, double goal)
{
    double share = goal / s->z;

    take_sample(s, logits, SAMPLE);
    double sampled = sum_weights(s, s->x, s->n, 1);
    /* The share found by a sample errs as if it were of so many equal tokens; four times that is enough. */
    double n_equal = sampled * sampled / sum_weights(s, s->x, s->n, 2);
    double doubt = 4 * sqrt(share * (1 - share) / n_equal);
    if (!(share > doubt && doubt < MOST_DOUBT))
        return false;
    weigh(s);
    float most = find_cutoff(s, true, (share - doubt) * sampled).x, least = s->scale.max - WEIGHTLESS;
    if (share + doubt < 1) {
        take_sample(s, logits, SAMPLE);
        weigh(s);
        least = find_cutoff(s, true, (share + doubt) * sampled).x;
    }

    s->n = s->kernels.collect(s->x, s->ids, logits, s->n_vocab, s->maxima, least, most);
    s->least = least;
    s->most = most;
    s->above = s->kernels.sum_above(logits, s->all, s->n_vocab, nextafterf(most, INFINITY));
    weigh(s);
    return s->above < goal && s->above + sum_above(s, true, least) >= goal;
}

/* Leaves as candidates what the cutoff keeps. */
static void collect_kept(struct sampler *s, const float *logits, struct cutoff c)
{
    int n = 0, n_equal = 0;

    collect(s, logits, c.x);
    if (s->n - sum_above(s, false, nextafterf(c.x, INFINITY)) <= c.n_equal)
        return;
    for (int i = 0; i < s->n; i++) {
        n_equal += s->x[i] == c.x;
        s->x[n] = s->x[i];
        s->ids[n] = s->ids[i];
        n += s->x[i] > c.x || n_equal <= c.n_equal;
    }
    s->n = n;
}

/* Leaves as candidates what passes the filters, at least the best. */
static void filter(struct sampler *s, const struct sampling *how, const float *logits)
{
    struct cutoff c = { -FLT_MAX, s->n_vocab };

    if (how->min_p > 0) {
        float least = s->scale.max + (float)log(how->min_p < 1 ? (double)how->min_p : 1);
        c.x = least > c.x ? least : c.x;
    }
    if (how->top_k > 0) {
        collect_first(s, logits, how->top_k);
        struct cutoff first = find_cutoff(s, false, how->top_k);
        c = higher_cutoff(c, first);
        if (how->top_p < 1) {
            collect_kept(s, logits, first);
            weigh(s);
            c = higher_cutoff(c, find_cutoff(s, true, how->top_p * sum_above(s, true, s->least)));
        }
    } else if (how->top_p < 1) {
        if (!s->is_spread || !collect_border(s, logits, how->top_p * s->z))
            collect_share(s, logits, how->top_p * s->z, c.x);
        c = higher_cutoff(c, find_cutoff(s, true, how->top_p * s->z));
    }
    collect_kept(s, logits, c);
}

/* The place of the one drawn. The sums of the blocks and their total are there. The block where the running
 * sum exceeds the target has weights, and so has the one taken where rounding keeps the sum of its weights
 * below its own. */
static int draw(struct sampler *s, const float *x, int n, float slope, double total, double unit)
{
    float weights[LOGIT_BLOCK];
    double sum = 0, target = unit * total;
    int b = 0, drawn = 0;

    while ((b + 1) * LOGIT_BLOCK < n && sum + s->sums[b] <= target)
        sum += s->sums[b++];
    x += b * LOGIT_BLOCK;
    n = n - b * LOGIT_BLOCK < LOGIT_BLOCK ? n - b * LOGIT_BLOCK : LOGIT_BLOCK;
    s->kernels.weights(weights, x, n, s->scale.max, slope);
    for (int i = 0; i < n && sum <= target; i++) {
        sum += weights[i];
        drawn = weights[i] > 0 ? i : drawn;
    }
    return b * LOGIT_BLOCK + drawn;
}

/* 1 / temperature, as a number that makes no NaN of any difference. */
static float slope_of(float temperature)
{
    float slope = 1 / temperature;

    return slope < FLT_MIN ? FLT_MIN : slope > FLT_MAX ? FLT_MAX : slope;
}

static int32_t choose_by_chance(struct sampler *s, const struct sampling *how, const float *logits,
                                uint64_t position)
{
    bool has_filter = how->top_k > 0 || how->top_p < 1 || how->min_p > 0;
    double unit = random_unit(how->seed, position);
    float slope = slope_of(how->temperature);

    if (!has_filter) {
        double total = slope == 1 ? s->z : sum_weights(s, logits, s->n_vocab, slope);
        return draw(s, logits, s->n_vocab, slope, total, unit);
    }
    filter(s, how, logits);
    double total = sum_weights(s, s->x, s->n, slope);
    return s->ids[draw(s, s->x, s->n, slope, total, unit)];
}

static void list_first(struct sampler *s, int count, const float *logits, struct choice *out)
{
    float best[SAMPLER_MAX_LOGPROBS];

    collect_first(s, logits, count);
    for (int i = 0; i < s->n; i++) {
        if (out->n_top == count && s->x[i] <= best[count - 1])
            continue;
        int at = out->n_top < count ? out->n_top++ : count - 1;
        for (; at > 0 && s->x[i] > best[at - 1]; at--) {
            best[at] = best[at - 1];
            out->top[at] = out->top[at - 1];
        }
        best[at] = s->x[i];
        out->top[at] = report(s, s->ids[i], s->x[i]);
    }
}

bool sampler_choose(struct sampler *s, const struct sampling *how, const float *logits, uint64_t position,
                    struct choice *out)
{
    assert(how->n_logprobs >= 0 && how->n_logprobs <= SAMPLER_MAX_LOGPROBS);
    out->n_top = 0;
    bool wants_share = how->temperature > 0 && how->top_k <= 0 && how->top_p < 1 && how->min_p <= 0;
    if (!(wants_share ? scan_for_share(s, logits) : scan(s, logits))) {
        out->token = (struct token_logprob){ 0, -INFINITY };
        return false;
    }
    int32_t id = how->temperature > 0 ? choose_by_chance(s, how, logits, position) : find_best(s, logits);
    out->token = report(s, id, logits[id]);
    if (how->n_logprobs > 0)
        list_first(s, how->n_logprobs, logits, out);
    return true;
}

bool sampler_describe(struct sampler *s, const float *logits, int32_t token, int n_top, struct choice *out)
{
    assert(token >= 0 && token < s->n_vocab && n_top >= 0 && n_top <= SAMPLER_MAX_LOGPROBS);
    out->n_top = 0;
    if (!scan(s, logits)) {
        out->token = (struct token_logprob){ token, -INFINITY };
        return false;
    }
    out->token = report(s, token, logits[token]);
    if (n_top > 0)
        list_first(s, n_top, logits, out);
    return true;
}

const float *sampler_weigh(struct sampler *s, const float *logits, struct logit_scale *scale)
{
    if (!scan(s, logits))
        return NULL;
    *scale = s->scale;
    s->kernels.weights(s->weights, logits, s->n_vocab, s->scale.max, 1);
    return s->weights;
}
