/* What a step costs, learnt from the steps taken, and from that how many prompt rows the next one may take.
 *
 * Two things are learnt. A line, cost over rows, from steps of streams alone, of which there is one now and
 * then. And the size of a chunk of prompt that takes as long as it may: one for steps with streams, one for
 * those without. Both follow the machine and the depth of the prompts; a single slow step hardly moves them.
 * Knows nothing of clocks: times come in as numbers. A plain struct, one per scheduler, one thread. */
#ifndef WOOLLY_WORKER_PACE_H
#define WOOLLY_WORKER_PACE_H

#include <stdint.h>

enum {
    PACE_ALONE_US = 250000, /* a step of prompts alone: cancelling and heartbeats wait that long */
    PACE_LEAST_BESIDE = 4,  /* rows, however slow: a prompt beside streams must get on */
    PACE_FIRST_ROWS = 16,   /* before anything is known */
};

struct pace {
    double target_us; /* what prompt rows may cost the streams beside them, above doubling their time */

    /* Of the last steps with streams alone, the older the less. */
    int n_learnt; /* such steps, up to where they are enough */
    double mean_rows, mean_us;
    double spread;      /* of rows around their mean, squared */
    double row_us;      /* what a row more costs */
    double last_excess; /* the last one's time over what was foretold */

    double alone, beside; /* prompt rows that take as long as they may; 0: nothing is known */
    int n_beside;         /* steps with both since one of streams alone */
};

void pace_init(struct pace *p, int64_t target_us);

/* A step took so long. Decode rows are those of running streams, drafts included. */
void pace_note(struct pace *p, int n_decode_rows, int n_prompt_rows, int64_t took_us);

/* Beside streams the prompt rows cost at most as much as the decode rows by themselves, and the target; alone
 * at most PACE_ALONE_US. At least PACE_LEAST_BESIDE, alone 1, at most max_rows; but
 * now and then there are none beside streams, to learn what those cost. */
int pace_prompt_rows(const struct pace *p, int n_decode_rows, int max_rows);

/* What a step of decode rows alone costs; 0 while nothing is known. */
double pace_step_us(const struct pace *p, int n_decode_rows);

#endif
