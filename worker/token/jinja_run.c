#include "worker/token/jinja_run.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* Small, because most templates need little; what is larger gets a block of its own. */
enum { BLOCK_BYTES = 32 << 10, BYTES_PER_STEP = 32 };

struct jinja_block {
    struct jinja_block *next;
    size_t used, cap;
    alignas(max_align_t) char bytes[];
};

void jinja_run_fini(struct jinja_run *r)
{
    for (struct jinja_block *b = r->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    r->blocks = NULL;
}

static size_t aligned(size_t bytes)
{
    return (bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
}

static void check_room(struct jinja_run *r, size_t bytes)
{
    if (bytes > r->limit || r->taken > r->limit - bytes)
        jinja_fail(r, E_LIMIT, "the template needs more than %zu MiB of memory", r->limit >> 20);
}

void *jinja_alloc(struct jinja_run *r, size_t bytes)
{
    struct jinja_block *b = r->blocks;

    check_room(r, bytes);
    bytes = aligned(bytes ? bytes : 1);
    if (!b || b->cap - b->used < bytes) {
        size_t cap = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        check_room(r, cap);
        if (!(b = malloc(sizeof(*b) + cap)))
            jinja_fail(r, E_NOMEM, "no memory for the template");
        *b = (struct jinja_block){ .next = r->blocks, .cap = cap };
        r->blocks = b;
        r->taken += cap;
    }
    void *p = b->bytes + b->used;
    b->used += bytes;
    return p;
}

void *jinja_alloc_zeroed(struct jinja_run *r, size_t bytes)
{
    return memset(jinja_alloc(r, bytes), 0, bytes);
}

void *jinja_alloc_array(struct jinja_run *r, size_t n, size_t each)
{
    if (n > r->limit / each)
        check_room(r, r->limit + 1);
    return jinja_alloc(r, n * each);
}

void *jinja_realloc(struct jinja_run *r, void *old, size_t old_bytes, size_t new_bytes)
{
    struct jinja_block *b = r->blocks;
    char *start = old;

    if (old && new_bytes <= r->limit && start + aligned(old_bytes ? old_bytes : 1) == b->bytes + b->used) {
        size_t offset = (size_t)(start - b->bytes);
        if (aligned(new_bytes) <= b->cap - offset) {
            b->used = offset + aligned(new_bytes ? new_bytes : 1);
            return old;
        }
    }
    void *p = jinja_alloc(r, new_bytes);
    if (old)
        memcpy(p, old, old_bytes < new_bytes ? old_bytes : new_bytes);
    return p;
}

void jinja_charge(struct jinja_run *r, uint64_t steps)
{
    if (r->steps_left < steps)
        jinja_fail(r, E_LIMIT, "the template takes more than %llu steps", (unsigned long long)r->steps);
    r->steps_left -= steps;
}

void jinja_charge_bytes(struct jinja_run *r, size_t bytes)
{
    jinja_charge(r, bytes / BYTES_PER_STEP);
}

void jinja_enter(struct jinja_run *r)
{
    if (++r->depth > JINJA_MAX_DEPTH)
        jinja_fail(r, E_LIMIT, "nested more than %d levels deep", JINJA_MAX_DEPTH);
}

/* A message that was cut at the end of its buffer must not end inside a character. */
static void cut_to_utf8(char *text)
{
    size_t len = strlen(text), i = 0;

    while (i < len) {
        int n = utf8_next(text + i, len - i, NULL);
        if (n < 0)
            text[i] = '?';
        else if (n == 0)
            text[i] = '\0';
        if (n == 0)
            return;
        i += n < 0 ? 1 : (size_t)n;
    }
}

noreturn void jinja_fail(struct jinja_run *r, enum status s, const char *format, ...)
{
    struct error full = { 0 };
    va_list args;

    va_start(args, format);
    vsnprintf(full.text, sizeof full.text, format, args);
    va_end(args);
    r->status = error_set(r->err, s, "line %u, column %u: %s", r->at.line, r->at.column, full.text);
    if (r->err)
        cut_to_utf8(r->err->text);
    longjmp(r->escape, 1);
}
