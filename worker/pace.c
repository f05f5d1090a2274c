/* Prompt rows are no straight line: the first ones hide behind the reading of the weights, and each costs
 * more the deeper the prompt. So chunks are not foretold but steered: one that took half of what it may is
 * followed by a larger one. The constants are guesses that the test's machines agree with. */
#include "worker/pace.h"

#include <assert.h>

/* Of a new step among the last ones. */
static const double newest_share = 1.0 / 8;

/* How far rows must have varied (squared) for what they show of the cost of a row to count as much as what
 * was known of it before. */
static const double known_spread = 4;

/* What is further above the expectation counts as this, unless the step before was above it too. */
static const double believed_excess = 1.3;

/* From one step to the next a chunk grows and shrinks by no more. */
static const double most_growth = 2, most_shrinking = 0.7;

enum {
    STEPS_TO_KNOW = 3, /* of streams alone */
    STEPS_BESIDE = 15, /* with prompt rows, and then one without */
    MOST_CHUNK = 1 << 20,
    HIGHEST_US = 60 * 1000000, /* no step teaches more */
};

void pace_init(struct pace *p, int64_t target_us)
{
    assert(target_us > 0);
    *p = (struct pace){ .target_us = (double)target_us };
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

double pace_step_us(const struct pace *p, int n_decode_rows)
{
    return p->mean_us + p->row_us * (n_decode_rows - p->mean_rows);
}

/* What prompt rows should cost beside streams. They may cost as much as these, and the target; but a step
 * takes now more, now less than one thinks. */
static double aim_us(const struct pace *p, int n_decode_rows)
{
    return 0.8 * (pace_step_us(p, n_decode_rows) + p->target_us);
}

/* ---- what streams cost ---- */

/* The time to learn from: a single slow step is the neighbours', two are ours. */
static double believe(struct pace *p, double us, double expected_us)
{
    double excess = us / expected_us, last = p->last_excess;
    p->last_excess = excess;
    return clamp(excess, 0, last > believed_excess ? last : believed_excess) * expected_us;
}

static void learn_line(struct pace *p, int n_rows, double us)
{
    /* A cold start is slow. Taken for the rule, it would let prompts take as long. */
    if (p->n_learnt == 0 || (p->n_learnt < STEPS_TO_KNOW && us < pace_step_us(p, n_rows))) {
        p->mean_rows = n_rows;
        p->mean_us = us;
        p->row_us = us / 2 / n_rows; /* anything but sure */
    }
    us = believe(p, us, pace_step_us(p, n_rows));
    double rows_off = n_rows - p->mean_rows, us_off = us - p->mean_us;
    p->spread += newest_share * (rows_off * rows_off - p->spread);
    /* The slope is drawn to what this step shows, the more the further it is from the mean. */
    p->row_us += newest_share * rows_off * (us_off - p->row_us * rows_off) / (p->spread + known_spread);
    p->mean_rows += newest_share * rows_off;
    p->mean_us += newest_share * us_off;
    /* No row costs less than nothing, and no step costs less than its rows. */
    p->row_us = clamp(p->row_us, 0, p->mean_us / p->mean_rows);
    p->n_learnt += p->n_learnt < STEPS_TO_KNOW;
}

/* ---- how large a chunk may be ---- */

/* A chunk of n_rows took so much of its time. */
static void steer(double *chunk, int n_rows, double share)
{
    double now = *chunk > 0 ? *chunk : n_rows;
    double right = n_rows / (share > 0.01 ? share : 0.01);
    /* The end of a prompt hides behind the weights, or drowns in the noise. */
    if (n_rows + 1 < now && (right > now || n_rows < now / 2))
        return;
    *chunk = clamp((now + right) / 2, now * most_shrinking, now * most_growth);
    *chunk = clamp(*chunk, 1, MOST_CHUNK);
}

void pace_note(struct pace *p, int n_decode_rows, int n_prompt_rows, int64_t took_us)
{
    assert(n_decode_rows >= 0 && n_prompt_rows >= 0);
    double us = clamp((double)took_us, 1, HIGHEST_US);

    if (n_decode_rows == 0) {
        if (n_prompt_rows > 0)
            steer(&p->alone, n_prompt_rows, us / PACE_ALONE_US);
        return;
    }
    if (n_prompt_rows == 0) {
        p->n_beside = 0;
        learn_line(p, n_decode_rows, us);
        return;
    }
    p->n_beside++;
    if (p->n_learnt > 0)
        steer(&p->beside, n_prompt_rows, (us - pace_step_us(p, n_decode_rows)) / aim_us(p, n_decode_rows));
}

int pace_prompt_rows(const struct pace *p, int n_decode_rows, int max_rows)
{
    double rows;
    if (n_decode_rows == 0)
        rows = p->alone > 0 ? p->alone : PACE_FIRST_ROWS;
    else if (p->n_learnt < STEPS_TO_KNOW || p->n_beside >= STEPS_BESIDE)
        rows = 0;
    else
        rows = clamp(p->beside, PACE_LEAST_BESIDE, MOST_CHUNK);
    return rows < max_rows ? (int)rows : max_rows > 0 ? max_rows : 0;
}
