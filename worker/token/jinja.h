/* Templates in the Jinja language, as far as the chat templates of models use it, with the results that
 * Jinja2 gives under trim_blocks, lstrip_blocks, loop controls and the immutable sandbox.
 *
 * A template is parsed once and may then be rendered by any number of threads. Both are bounded in time,
 * memory and depth, whatever the text; an error names line, column and construct. What is not there:
 * inheritance, imports, recursive loops, integers beyond 64 bits. */
#ifndef WOOLLY_TOKEN_JINJA_H
#define WOOLLY_TOKEN_JINJA_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/buffer.h"
#include "common/status.h"

enum { JINJA_MAX_TEMPLATE_BYTES = 1 << 20 }; /* a guess: the longest seen have 30 KB */

/* A step is one node of the template evaluated, or some tens of bytes or a few elements handled by one. */
struct jinja_limits {
    uint64_t steps;
    size_t memory_bytes; /* all that one rendering allocates, its output included */
    size_t output_bytes;
};

/* Room for conversations of megabytes, an end within about a second for templates that never would. */
extern const struct jinja_limits jinja_default_limits;

struct jinja_template;

/* E_FORMAT for what is no template, E_LIMIT for one that is too large or too deeply nested. The text need
 * not outlive the call. */
MUST_CHECK enum status jinja_parse(struct jinja_template **out, const char *text, size_t len,
                                   struct error *err);
void jinja_template_destroy(struct jinja_template *t);

/* Appends the text that the template gives with the members of `variables` (an object) to *out. `now` is what
 * strftime_now tells. On failure *out is as before; E_INVALID with the template's own words when it called
 * raise_exception. */
MUST_CHECK enum status jinja_render(const struct jinja_template *t, const json_t *variables,
                                    const struct tm *now, const struct jinja_limits *limits,
                                    struct buffer *out, struct error *err);

#endif
