/* Monotonic time. A loop reads the clock once per turn and passes `now` down, so that a test can be any time
 * it likes. On one Linux machine the values agree between processes. */
#ifndef WOOLLY_COMMON_CLOCK_H
#define WOOLLY_COMMON_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

int64_t clock_us(void);
int64_t clock_ms(void);

/* A deadline is a point on the clock_ms axis; DEADLINE_NONE never comes. */
#define DEADLINE_NONE INT64_MAX

int64_t deadline_after(int64_t now_ms, int64_t span_ms);
bool deadline_passed(int64_t now_ms, int64_t deadline_ms);
int64_t deadline_earlier(int64_t a_ms, int64_t b_ms);

/* The timeout for poll and zmq_poll: 0 if passed, -1 for never. */
int deadline_poll_ms(int64_t now_ms, int64_t deadline_ms);

#endif
