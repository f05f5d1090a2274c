/* Text from elsewhere on the way to a person: a model's output or a server's strings must not move the
 * cursor, rename the window or answer in the user's place. */
#ifndef WOOLLY_CLI_TERMINAL_H
#define WOOLLY_CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/status.h"

/* Writes generated text: as it is to a file or pipe; to a terminal without control characters other than
 * newline and tab. False when it cannot be written. */
MUST_CHECK bool terminal_write(FILE *to, const char *text, size_t len);

/* One line of text into out, with '?' for every control character and broken byte. */
void terminal_clean(const char *text, char *out, size_t size);

#endif
