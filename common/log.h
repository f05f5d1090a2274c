/* The log: one line per event on standard error.
 *
 *     2026-11-21T12:00:00.123Z info  broker[4711] job_done req=17 tokens=64 ms=812
 *
 * `event` is a fixed snake_case word; the rest is key=value, with "..." around free text. Lines about a
 * request carry req=. Control characters in values become '?', so a hostile string cannot forge a line. Each
 * line is one write, so lines of several processes do not mix. Callable from any thread. */
#ifndef WOOLLY_COMMON_LOG_H
#define WOOLLY_COMMON_LOG_H

#include "common/status.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* `who` names the process in every line (copied). Call again after a fork to rename it. */
void log_init(const char *who, enum log_level level);
void log_rename(const char *who);

/* "debug", "info", "warn", "error". */
MUST_CHECK enum status log_level_parse(const char *text, enum log_level *level);
const char *log_level_name(enum log_level level);
enum log_level log_level_now(void);

void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
