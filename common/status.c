#include "common/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *status_name(enum status s)
{
    switch (s) {
    case OK:
        return "ok";
    case E_INVALID:
        return "invalid";
    case E_FORMAT:
        return "format";
    case E_UNSUPPORTED:
        return "unsupported";
    case E_LIMIT:
        return "limit";
    case E_IO:
        return "io";
    case E_NOMEM:
        return "out_of_memory";
    case E_NOTFOUND:
        return "not_found";
    case E_TIMEOUT:
        return "timeout";
    case E_UNREACHABLE:
        return "unreachable";
    case E_OVERLOADED:
        return "overloaded";
    case E_CANCELLED:
        return "cancelled";
    case E_INTERNAL:
        return "internal";
    }
    return "unknown";
}

enum status error_set(struct error *e, enum status s, const char *format, ...)
{
    if (e) {
        va_list args;
        va_start(args, format);
        e->status = s;
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
    }
    return s;
}

enum status error_errno(struct error *e, const char *format, ...)
{
    int saved = errno;
    if (e) {
        va_list args;
        va_start(args, format);
        e->status = E_IO;
        int n = vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof e->text)
            snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", strerror(saved));
    }
    return E_IO;
}
