/* What parsing and rendering share: memory from one arena with a limit, a budget of steps, the place in the
 * template that an error is about, and the way out.
 *
 * jinja_fail leaves by longjmp for the function that armed `escape`. Nothing in between owns anything but
 * arena memory, so there is nothing to undo on the way, and hundreds of small functions need no status. */
#ifndef WOOLLY_TOKEN_JINJA_RUN_H
#define WOOLLY_TOKEN_JINJA_RUN_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>

#include "common/status.h"

/* Levels of nesting, in the template's text or while it runs. Chosen so that the stack stays under 1 MB. */
enum { JINJA_MAX_DEPTH = 300 };

struct jinja_place {
    uint32_t line, column; /* from 1; columns are counted in code points */
};

struct jinja_block;

struct jinja_run {
    jmp_buf escape;
    struct error *err;
    enum status status; /* of the failure */
    struct jinja_place at;
    uint64_t steps_left, steps;
    int depth;

    struct jinja_block *blocks; /* the newest first */
    size_t taken, limit;        /* bytes of all blocks */

    /* Of a rendering. */
    struct jinja_text *out;
    size_t output_limit;
    const struct tm *now;
    uint64_t hash_point;
    const char *tail, *tail_room; /* the end of the latest concatenation, and of the room behind it */
};

/* Frees all memory that came from jinja_alloc. */
void jinja_run_fini(struct jinja_run *r);

/* Uninitialised memory, aligned for anything; lives until jinja_run_fini. */
void *jinja_alloc(struct jinja_run *r, size_t bytes);
void *jinja_alloc_zeroed(struct jinja_run *r, size_t bytes);

/* Room for n elements, n * each checked. */
void *jinja_alloc_array(struct jinja_run *r, size_t n, size_t each);

/* Grows what jinja_alloc gave, in place if it was the last thing that it gave. */
void *jinja_realloc(struct jinja_run *r, void *old, size_t old_bytes, size_t new_bytes);

void jinja_charge(struct jinja_run *r, uint64_t steps);

/* For work on so many bytes. */
void jinja_charge_bytes(struct jinja_run *r, size_t bytes);

/* Counts a level of nesting; the caller takes it back by r->depth--. */
void jinja_enter(struct jinja_run *r);

/* "line 3, column 7: ..." */
noreturn void jinja_fail(struct jinja_run *r, enum status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
