#include "worker/token/fold.h"

/* Hangul syllables are numbered by their parts: 19 leading consonants, 21 vowels, 28 endings of which the
 * first is none. (The Unicode Standard, 3.12.) */
enum {
    HANGUL_FIRST = 0xac00,
    HANGUL_LAST = 0xd7a3,
    LEADING = 0x1100,
    VOWEL = 0x1161,
    ENDING = 0x11a7,
    N_VOWELS = 21,
    N_ENDINGS = 28,
};

static bool is_in(const struct fold_range *ranges, int n, uint32_t code)
{
    int low = 0, high = n;

    while (low < high) {
        int middle = (low + high) / 2;
        if (ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= code;
}

bool fold_is_control(uint32_t code)
{
    return is_in(fold_controls, n_fold_controls, code);
}

uint32_t fold_to_lower(uint32_t code)
{
    int low = 0, high = n_fold_lower;

    if (code < 0x80)
        return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
    while (low < high) {
        int middle = (low + high) / 2;
        if (fold_lower[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    const struct fold_run *run = &fold_lower[low];
    if (low == n_fold_lower || code < run->first || (code - run->first) % run->step)
        return code;
    return code + (uint32_t)run->delta;
}

static int put_hangul(uint32_t code, uint32_t *out)
{
    uint32_t place = code - HANGUL_FIRST, ending = place % N_ENDINGS;

    out[0] = LEADING + place / (N_VOWELS * N_ENDINGS);
    out[1] = VOWEL + place / N_ENDINGS % N_VOWELS;
    out[2] = ENDING + ending;
    return ending ? 3 : 2;
}

int fold_strip_accents(uint32_t code, uint32_t out[FOLD_MAX_BASES])
{
    int low = 0, high = n_fold_bases, n = 0;

    out[0] = code;
    if (code < 0x80)
        return 1;
    if (code >= HANGUL_FIRST && code <= HANGUL_LAST)
        return put_hangul(code, out);
    while (low < high) {
        int middle = (low + high) / 2;
        if (fold_bases[middle].code < code)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == n_fold_bases || fold_bases[low].code != code)
        return !is_in(fold_marks, n_fold_marks, code);
    for (; low < n_fold_bases && fold_bases[low].code == code && n < FOLD_MAX_BASES; low++) {
        if (fold_bases[low].base)
            out[n++] = fold_bases[low].base;
    }
    return n;
}
