/* Running another program to its end and reading what it prints. It dies with us. */
#ifndef WOOLLY_BENCH_CHILD_H
#define WOOLLY_BENCH_CHILD_H

#include <stdbool.h>

#include "common/buffer.h"
#include "common/status.h"

/* The words of a command line, ended by a NULL. Zero-initialised it is empty. */
struct command {
    char **words;
    size_t n;
};

void command_add(struct command *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Each word of a text with spaces between them. */
void command_add_words(struct command *c, const char *text);
void command_fini(struct command *c);

/* Runs it and appends its standard output to `output`, and its standard error to `complaints`; where that is
 * NULL, the program shares ours. A 0 byte, not counted, ends each. E_NOTFOUND when there is nothing to run,
 * E_IO when it was killed, or, where complaints are kept, failed: their last line then stands in the error.
 */
MUST_CHECK enum status child_run(const struct command *c, struct buffer *output, struct buffer *complaints,
                                 int *exit_status, struct error *err);

/* The path of a program of ours, which stands in our folder. */
MUST_CHECK enum status child_add_own(struct command *c, const char *name, struct error *err);

#endif
