/* Cuts text into the stretches that byte-level merging never crosses (words, numbers, runs of signs, spaces),
 * by the rule that a model's file names in tokenizer.ggml.pre.
 *
 * A rule is a chain of steps. The first step cuts the whole text, each further one cuts every stretch of the
 * step before as if it were a text of its own. Each step is a matcher written by hand; where it matches
 * nothing, what lies before its next match is a stretch too. */
#ifndef WOOLLY_TOKEN_PRETOKEN_H
#define WOOLLY_TOKEN_PRETOKEN_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/model/gguf.h"

struct pretoken_step;

enum { PRETOKEN_MAX_STEPS = 6 };

struct pretoken_rule {
    const char *names; /* the values of tokenizer.ggml.pre that mean this rule, each behind one space */
    const struct pretoken_step *steps;
    int n_steps;
    bool keeps_whole_words; /* a stretch that is a token stays whole, whatever the merges say */
    bool adds_bos;          /* unless the file says otherwise */
    bool lacks_bos;         /* unless the file names one */
};

/* NULL when no rule has this name. The name "default" is that of files which name none. */
const struct pretoken_rule *pretoken_find(struct gguf_string name);

struct pretoken_cut {
    const struct pretoken_rule *rule;
    const char *text;
    size_t at;
    size_t ends[PRETOKEN_MAX_STEPS + 1]; /* [i + 1] ends the current stretch of step i, [0] the text */
};

/* text is valid UTF-8 and stays where it is. */
void pretoken_begin(struct pretoken_cut *c, const struct pretoken_rule *rule, const char *text, size_t len);

/* The next stretch, text[*start .. *end), or false at the end. All of them together take time O(len). */
bool pretoken_next(struct pretoken_cut *c, size_t *start, size_t *end);

#endif
