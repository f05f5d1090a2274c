/* Status codes and the one error text that goes with them.
 *
 * A function that can fail returns enum status and is marked MUST_CHECK. Where a person will read about the
 * failure it also takes a struct error, which the caller owns and which holds one sentence: what, where, and
 * what to do. The place where an error is first seen fills it; nobody on the way up rewrites it. */
#ifndef WOOLLY_COMMON_STATUS_H
#define WOOLLY_COMMON_STATUS_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum status {
    OK = 0,
    E_INVALID,     /* a value from outside that makes no sense */
    E_FORMAT,      /* a file or message that breaks its format */
    E_UNSUPPORTED, /* well formed, but not something this build can do */
    E_LIMIT,       /* larger than a configured or built-in bound */
    E_IO,          /* a system call failed; the error text has errno's words */
    E_NOMEM,
    E_NOTFOUND,
    E_TIMEOUT,
    E_UNREACHABLE, /* nobody answers at the other end */
    E_OVERLOADED,  /* refused now, worth trying again later */
    E_CANCELLED,
    E_INTERNAL, /* a bug of ours */
};

/* Exit statuses of every program (scripts rely on them). */
enum { EXIT_USAGE = 2, EXIT_UNREACHABLE = 3, EXIT_NOT_MEASURABLE = 4 };

struct error {
    enum status status;
    char text[500];
};

/* A short lower-case name: "invalid", "format", ... */
const char *status_name(enum status s);

/* Fills *e (which may be NULL) and returns s, so that a caller can write `return error_set(e, E_FORMAT,
 * ...)`. */
enum status error_set(struct error *e, enum status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set with E_IO, and appends ": " and the words for errno. */
enum status error_errno(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
