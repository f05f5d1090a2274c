#include "bench/sse.h"

#include <string.h>

void sse_restart(struct sse *s)
{
    buffer_clear(&s->line);
    buffer_clear(&s->data);
    s->has_data = s->after_cr = s->after_begin = false;
}

void sse_fini(struct sse *s)
{
    buffer_fini(&s->line);
    buffer_fini(&s->data);
    *s = (struct sse){ 0 };
}

/* Lines of data are joined by line feeds. */
static enum status take_data(struct sse *s, const char *value, size_t len)
{
    if (s->data.len + len + 1 > SSE_MAX_EVENT)
        return E_LIMIT;
    if (s->has_data)
        buffer_append(&s->data, "\n", 1);
    buffer_append(&s->data, value, len);
    s->has_data = true;
    return OK;
}

/* "field: value", "field:value" or "field". Of the fields only data matters here; comments have no name. */
static enum status take_field(struct sse *s, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    size_t name_len = colon ? (size_t)(colon - line) : len;
    if (name_len != 4 || memcmp(line, "data", 4) != 0)
        return OK;
    const char *value = colon ? colon + 1 : line + len, *end = line + len;
    if (value < end && *value == ' ')
        value++;
    return take_data(s, value, (size_t)(end - value));
}

static enum status end_line(struct sse *s, sse_take *take, void *context)
{
    enum status status = OK;
    if (!s->after_begin && s->line.len >= 3 && !memcmp(s->line.data, "\xEF\xBB\xBF", 3))
        buffer_consume(&s->line, 3);
    s->after_begin = true;
    if (s->line.len) {
        status = take_field(s, s->line.data, s->line.len);
    } else if (s->has_data) {
        buffer_append(&s->data, "", 1);
        take(context, s->data.data, s->data.len - 1);
        buffer_clear(&s->data);
        s->has_data = false;
    }
    buffer_clear(&s->line);
    return status;
}

enum status sse_feed(struct sse *s, const char *bytes, size_t len, sse_take *take, void *context)
{
    enum status status = OK;
    for (const char *end = bytes + len; bytes < end && status == OK;) {
        if (s->after_cr && *bytes == '\n')
            bytes++;
        s->after_cr = false;
        const char *stop = bytes;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        if (s->line.len + (size_t)(stop - bytes) > SSE_MAX_EVENT)
            return E_LIMIT;
        buffer_append(&s->line, bytes, (size_t)(stop - bytes));
        if (stop == end)
            return OK;
        s->after_cr = *stop == '\r';
        bytes = stop + 1;
        status = end_line(s, take, context);
    }
    return status;
}
