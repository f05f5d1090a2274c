/* A streamed HTTP answer of any bytes: the parser of its events, cut in two places, finds the same events as
 * in one piece, and what they say can be read. The first two bytes are the places. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load_answer.h"
#include "bench/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take(void *context, const char *data, size_t len)
{
    struct answer_event e;
    char why[64];
    for (int api = LOAD_COMPLETION; api <= LOAD_OPENAI; api++)
        if (answer_read((enum load_api)api, data, len, &e) && (e.tokens < 0 || e.total < 0))
            abort();
    answer_refusal(data, len, why, sizeof why);
    buffer_append(context, data, len + 1);
}

static void feed(struct sse *s, const char *bytes, size_t len, struct buffer *events)
{
    if (sse_feed(s, bytes, len, take, events) != OK)
        sse_restart(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *bytes = (const char *)data + 2;
    size_t len = size - 2, first = data[0] < len ? data[0] : len,
           second = data[1] < len - first ? data[1] : len - first;
    struct sse whole = { 0 }, pieces = { 0 };
    struct buffer events = { 0 }, same = { 0 };
    feed(&whole, bytes, len, &events);
    feed(&pieces, bytes, first, &same);
    feed(&pieces, bytes + first, second, &same);
    feed(&pieces, bytes + first + second, len - first - second, &same);
    /* Longer ones may be refused at different places. */
    if (len < SSE_MAX_EVENT &&
        (events.len != same.len || (same.len && memcmp(events.data, same.data, same.len) != 0)))
        abort();
    sse_fini(&whole);
    sse_fini(&pieces);
    buffer_fini(&events);
    buffer_fini(&same);
    return 0;
}
