#include "common/clock.h"

#include <limits.h>
#include <time.h>

int64_t clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_ms(void)
{
    return clock_us() / 1000;
}

int64_t deadline_after(int64_t now_ms, int64_t span_ms)
{
    return span_ms >= DEADLINE_NONE - now_ms ? DEADLINE_NONE : now_ms + span_ms;
}

bool deadline_passed(int64_t now_ms, int64_t deadline_ms)
{
    return now_ms >= deadline_ms;
}

int64_t deadline_earlier(int64_t a_ms, int64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

int deadline_poll_ms(int64_t now_ms, int64_t deadline_ms)
{
    if (deadline_ms == DEADLINE_NONE)
        return -1;
    if (deadline_ms <= now_ms)
        return 0;
    return deadline_ms - now_ms > INT_MAX ? INT_MAX : (int)(deadline_ms - now_ms);
}
