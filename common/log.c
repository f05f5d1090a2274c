#include "common/log.h"

#include <bsd/string.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char log_who[32] = "woolly";
static enum log_level log_threshold = LOG_INFO;

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_init(const char *who, enum log_level level)
{
    log_rename(who);
    log_threshold = level;
}

void log_rename(const char *who)
{
    strlcpy(log_who, who, sizeof log_who);
}

enum status log_level_parse(const char *text, enum log_level *level)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (!strcmp(text, level_names[i])) {
            *level = (enum log_level)i;
            return OK;
        }
    }
    return E_INVALID;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

enum log_level log_level_now(void)
{
    return log_threshold;
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    if (level < log_threshold)
        return;

    char line[2048];
    const size_t room = sizeof line - 1; /* the newline */
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, room, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, room - n, ".%03ldZ %-5s %s[%d] %s ", now.tv_nsec / 1000000,
                          level_names[level], log_who, (int)getpid(), event);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + n, room - n, format, args);
    va_end(args);
    if (more > 0)
        n += (size_t)more < room - n ? (size_t)more : room - n - 1;
    while (n && line[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0) {
        /* Nowhere left to say it. */
    }
}
