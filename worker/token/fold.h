/* What BERT's tokenizer makes of single code points: small letters, letters without their accents, and which
 * ones it drops. From generated tables (make_fold.py). */
#ifndef WOOLLY_TOKEN_FOLD_H
#define WOOLLY_TOKEN_FOLD_H

#include <stdbool.h>
#include <stdint.h>

struct fold_range {
    uint32_t first, last;
};

/* first, first + step ... last: the small letter is delta further on. */
struct fold_run {
    uint32_t first, last;
    uint8_t step;
    int32_t delta;
};

/* Neighbours with the same code stand for what it becomes, in order; 0: nothing. */
struct fold_pair {
    uint32_t code, base;
};

/* All ascending. */
extern const struct fold_range fold_controls[], fold_marks[];
extern const struct fold_run fold_lower[];
extern const struct fold_pair fold_bases[];
extern const int n_fold_controls, n_fold_marks, n_fold_lower, n_fold_bases;

enum { FOLD_MAX_BASES = 4 }; /* the most that one code point becomes; a test counts them */

/* Controls, formats and private use, but not tab, line feed and carriage return. */
bool fold_is_control(uint32_t code);

uint32_t fold_to_lower(uint32_t code);

/* Decomposes, leaves out the accents (marks without a width of their own), and returns how many code points
 * are left: 0 for an accent alone. */
int fold_strip_accents(uint32_t code, uint32_t out[FOLD_MAX_BASES]);

#endif
