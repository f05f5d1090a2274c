/* Two stages. Bytes first become valid text: what can never be valid turns into U+FFFD byte by byte, and the
 * unfinished end of a sequence, at most three bytes, waits in `partial`. Text then waits in `held` as long as
 * its end could be the beginning of a stop string, so `held` stays shorter than the longest stop string
 * between calls. Stops are looked for in the text after replacement, which is what the reader sees.
 *
 * A stop string need not be valid UTF-8 and so may match inside a character; text is always cut in front of
 * that character. */
#include "worker/text_out.h"

#include <string.h>

#include "common/utf8.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */

void text_out_init(struct text_out *t, const char *const *stops, const size_t *stop_lens, int n_stops)
{
    *t = (struct text_out){ .stops = stops, .stop_lens = stop_lens, .n_stops = n_stops };
}

void text_out_fini(struct text_out *t)
{
    buffer_fini(&t->held);
    buffer_fini(&t->ready);
}

/* Appends bytes[0..len) to held as valid text. Returns how many bytes were used: all but an unfinished end.
 */
static size_t hold_valid(struct text_out *t, const char *bytes, size_t len)
{
    size_t at = 0, good = 0; /* bytes[good..at) is valid and not yet held */

    while (at < len) {
        int n = utf8_next(bytes + at, len - at, NULL);
        if (n == 0)
            break;
        if (n > 0) {
            at += (size_t)n;
            continue;
        }
        buffer_append(&t->held, bytes + good, at - good);
        buffer_append(&t->held, REPLACEMENT, 3);
        good = ++at;
    }
    buffer_append(&t->held, bytes + good, at - good);
    return at;
}

/* Takes bytes until the sequence begun by an earlier call is decided. Returns how many were taken. */
static size_t finish_partial(struct text_out *t, const char *bytes, size_t len)
{
    size_t taken = 0;

    while (t->n_partial > 0 && taken < len) {
        t->partial[t->n_partial++] = bytes[taken++];
        size_t used = hold_valid(t, t->partial, (size_t)t->n_partial);
        t->n_partial -= (int)used;
        memmove(t->partial, t->partial + used, (size_t)t->n_partial);
    }
    return taken;
}

/* Where to cut held so that no more than `at` bytes are in front and no character is split. */
static size_t character_start(const struct buffer *held, size_t at)
{
    while (at > 0 && at < held->len && ((unsigned char)held->data[at] & 0xc0) == 0x80)
        at--;
    return at;
}

static void release(struct text_out *t, size_t len)
{
    buffer_append(&t->ready, t->held.data, len);
    buffer_consume(&t->held, len);
}

/* The stop string that is completed first, the longest of those completed by the same byte. */
static bool find_stop(const struct text_out *t, size_t *start)
{
    size_t best_end = t->held.len + 1;

    for (int i = 0; i < t->n_stops; i++) {
        const char *at = t->held.len ? memmem(t->held.data, t->held.len, t->stops[i], t->stop_lens[i]) : NULL;
        if (!at)
            continue;
        size_t from = (size_t)(at - t->held.data), end = from + t->stop_lens[i];
        if (end < best_end || (end == best_end && from < *start)) {
            best_end = end;
            *start = from;
        }
    }
    return best_end <= t->held.len;
}

/* The length of the longest end of held that begins a stop string. */
static size_t count_undecided(const struct text_out *t)
{
    size_t longest = 0;

    for (int i = 0; i < t->n_stops; i++) {
        size_t n = t->stop_lens[i] - 1;
        if (n > t->held.len)
            n = t->held.len;
        while (n > longest && memcmp(t->held.data + t->held.len - n, t->stops[i], n) != 0)
            n--;
        if (n > longest)
            longest = n;
    }
    return longest;
}

/* Releases what is decided; with `at_end` nothing more can come and everything is. */
static void settle(struct text_out *t, bool at_end)
{
    size_t start = 0;

    if (find_stop(t, &start)) {
        release(t, character_start(&t->held, start));
        buffer_clear(&t->held);
        t->n_partial = 0;
        t->is_stopped = true;
        return;
    }
    size_t undecided = at_end ? 0 : count_undecided(t);
    release(t, character_start(&t->held, t->held.len - undecided));
}

bool text_out_push(struct text_out *t, const char *bytes, size_t len)
{
    if (t->is_stopped)
        return true;
    size_t taken = finish_partial(t, bytes, len);
    taken += hold_valid(t, bytes + taken, len - taken);
    for (; taken < len; taken++)
        t->partial[t->n_partial++] = bytes[taken];
    settle(t, false);
    return t->is_stopped;
}

void text_out_flush(struct text_out *t)
{
    if (t->is_stopped)
        return;
    for (; t->n_partial > 0; t->n_partial--)
        buffer_append(&t->held, REPLACEMENT, 3);
    settle(t, true);
}
