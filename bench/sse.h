/* Server-sent events, as servers stream answers over HTTP: bytes in, in pieces cut anywhere; the data of each
 * event out. The bytes are foreign: whatever they are, memory stays bounded. */
#ifndef WOOLLY_BENCH_SSE_H
#define WOOLLY_BENCH_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buffer.h"
#include "common/status.h"

enum { SSE_MAX_EVENT = 1 << 20 }; /* bytes of a line, and of the data of one event */

/* Zero-initialised it stands at the beginning of a stream. */
struct sse {
    struct buffer line, data;
    bool has_data;    /* since the last event */
    bool after_cr;    /* a line feed now belongs to the line that has just ended */
    bool after_begin; /* past the place for a byte order mark */
};

/* Called with the data of an event, 0-terminated (the 0 is not counted), which may also contain 0 bytes. */
typedef void sse_take(void *context, const char *data, size_t len);

/* Calls `take` for each event that these bytes complete. E_LIMIT when a line or an event is too long: there
 * is no going on with this stream then. An event that the stream does not complete is none. */
MUST_CHECK enum status sse_feed(struct sse *s, const char *bytes, size_t len, sse_take *take, void *context);

/* Back to the beginning of a stream; keeps the memory. */
void sse_restart(struct sse *s);
void sse_fini(struct sse *s);

#endif
