/* How many draft tokens a sequence's next step should verify. A draft token that is accepted saves a step;
 * one that is not has cost a row. One struct per sequence remembers how often drafts were accepted; what rows
 * cost is the pace's to know. No effect on what is generated, only on when. */
#ifndef WOOLLY_WORKER_SPECULATE_H
#define WOOLLY_WORKER_SPECULATE_H

#include "worker/pace.h"

enum speculate_mode {
    SPECULATE_AUTO,
    SPECULATE_OFF,
    SPECULATE_ALWAYS, /* SPECULATE_FIXED tokens whenever there is a draft, whatever it costs: for tests */
};

enum {
    SPECULATE_FIXED = 4,
    SPECULATE_MOST = 8, /* no choice is higher */
};

struct speculation {
    double rate; /* the share of draft tokens accepted, of those whose predecessors were */
    double seen; /* draft tokens judged, up to where it does not matter any more */
};

void speculation_init(struct speculation *s);

/* For the step of a sequence that has a draft of max_draft tokens; 0: none is worth it. other_rows are those
 * that other sequences have in the step, each taken to be worth one token; draft_us is what a draft token
 * costs to come by. */
int speculation_choose(const struct speculation *s, enum speculate_mode mode, const struct pace *pace,
                       int other_rows, double draft_us, int max_draft);

/* Tell it of every step for which there was a draft: how many of its tokens were verified, and of these how
 * many accepted. With n_verified 0 old experience fades, so that a text that has changed is tried again. */
void speculation_note(struct speculation *s, int n_verified, int n_accepted);

#endif
