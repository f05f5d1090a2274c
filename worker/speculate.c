#include "worker/speculate.h"

#include <assert.h>

/* Before anything is known a draft is more likely right than not: text that repeats four tokens goes on
 * repeating. Fading experience comes back to it. */
static const double first_rate = 0.6;

static const double first_weight = 3; /* of the first rate, in draft tokens judged */
static const double least_gain = 1.05;

/* The weight of one more draft token judged when many have been, and of one more draft not tried. A draft in
 * vain costs a row or two, and with these numbers comes so seldom that the loss stays below 1 %. */
static const double newest_weight = 1.0 / 8;
static const double fading_weight = 1.0 / 256;

void speculation_init(struct speculation *s)
{
    *s = (struct speculation){ .rate = first_rate };
}

static int lower(int a, int b)
{
    return a < b ? a : b;
}

int speculation_choose(const struct speculation *s, enum speculate_mode mode, const struct pace *pace,
                       int other_rows, double draft_us, int max_draft)
{
    double plain_us = pace_step_us(pace, other_rows + 1);
    double best_gain = least_gain, expected = 1, share = 1;
    int best = 0;

    if (mode != SPECULATE_AUTO)
        return mode == SPECULATE_OFF ? 0 : lower(SPECULATE_FIXED, max_draft);
    for (int k = 1; k <= lower(max_draft, SPECULATE_MOST); k++) {
        share *= s->rate;
        expected += share;
        /* Tokens per time, of all, against those without a draft. */
        double gain = (other_rows + expected) * plain_us;
        gain /= (other_rows + 1) * (pace_step_us(pace, other_rows + 1 + k) + k * draft_us);
        if (gain > best_gain) {
            best_gain = gain;
            best = k;
        }
    }
    return best;
}

static void judge(struct speculation *s, double was_accepted)
{
    double weight = 1 / (first_weight + ++s->seen);

    if (weight < newest_weight)
        weight = newest_weight;
    s->rate += (was_accepted - s->rate) * weight;
}

void speculation_note(struct speculation *s, int n_verified, int n_accepted)
{
    assert(n_accepted >= 0 && n_accepted <= n_verified);
    if (n_verified == 0)
        s->rate += (first_rate - s->rate) * fading_weight;
    for (int i = 0; i < n_accepted; i++)
        judge(s, 1);
    /* What comes after the first that is wrong says nothing. */
    if (n_accepted < n_verified)
        judge(s, 0);
}
