/* Goes backwards over blocks, asking of each whether the last two tokens lie anywhere in it; only where they
 * do are places looked at one by one. The compiler's vectors, of a size that every CPU has. */
#include "worker/lookup.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

typedef int32_t ints __attribute__((vector_size(16)));

enum { LANES = 4, BLOCK = 32 };

static ints load(const int32_t *at)
{
    ints v;

    memcpy(&v, at, sizeof v);
    return v;
}

/* Whether a pair begins at one of the BLOCK places from `at` on. */
static bool block_has_pair(const int32_t *at, const int32_t pair[2])
{
    ints first = (ints){ 0 } + pair[0], second = (ints){ 0 } + pair[1], any = { 0 };

    for (int i = 0; i < BLOCK; i += LANES)
        any |= (load(at + i) == first) & (load(at + i + 1) == second);
    return (any[0] | any[1] | any[2] | any[3]) != 0;
}

/* How many of the tokens up to the pair at `at` are the last tokens of all; 0 where there is no pair. */
static int match_length(const int32_t *tokens, int n, int at)
{
    int length = 0;

    while (length < LOOKUP_LONGEST && length < at + 2 && tokens[at + 1 - length] == tokens[n - 1 - length])
        length++;
    return length < LOOKUP_SHORTEST ? 0 : length;
}

struct match {
    int at; /* of its pair */
    int length;
};

/* The latest and longest match of the pairs at first..end-1, if it is longer than what is there. */
static void look_at_each(const int32_t *tokens, int n, int first, int end, struct match *best)
{
    for (int i = end - 1; i >= first && best->length < LOOKUP_LONGEST; i--) {
        int length = match_length(tokens, n, i);
        if (length > best->length)
            *best = (struct match){ i, length };
    }
}

static struct match find_match(const int32_t *tokens, int n)
{
    struct match best = { 0, 0 };
    int first = n > LOOKUP_REACH ? n - LOOKUP_REACH : 0, end = n - 2;

    for (; end - first >= BLOCK && best.length < LOOKUP_LONGEST; end -= BLOCK)
        if (block_has_pair(tokens + end - BLOCK, tokens + n - 2))
            look_at_each(tokens, n, end - BLOCK, end, &best);
    if (end - first < BLOCK)
        look_at_each(tokens, n, first, end, &best);
    return best;
}

int lookup_draft(const int32_t *tokens, int n, int max_draft, int32_t *out)
{
    assert(n >= 0 && max_draft >= 0);
    struct match m = find_match(tokens, n);

    if (m.length == 0)
        return 0;
    int begin = m.at + 2, period = n - begin;
    for (int i = 0; i < max_draft; i++)
        out[i] = tokens[begin + i % period];
    return max_draft;
}
