#include "broker/collected.h"

void collected_fini(struct collected *c)
{
    buffer_fini(&c->ids);
    buffer_fini(&c->text);
    buffer_fini(&c->bytes);
    buffer_fini(&c->alternatives);
    buffer_fini(&c->details);
}

void collected_clear(struct collected *c)
{
    buffer_clear(&c->ids);
    buffer_clear(&c->text);
    buffer_clear(&c->bytes);
    buffer_clear(&c->alternatives);
    buffer_clear(&c->details);
}

size_t collected_size(const struct collected *c)
{
    return c->ids.len + c->text.len + c->bytes.len + c->alternatives.len + c->details.len;
}

size_t collected_objects(const struct collected *c)
{
    enum { PER_ALTERNATIVE = 1 + 2 * 3, PER_DETAIL = 1 + 2 * 4, PER_MESSAGE = 64 };
    return PER_MESSAGE + c->ids.len / sizeof(int32_t) +
           c->alternatives.len / sizeof(struct token_alternative) * PER_ALTERNATIVE +
           c->details.len / sizeof(struct token_detail) * PER_DETAIL;
}

/* The buffers may move while they grow, so until the end only the lengths are kept: everything lies in the
 * order in which it was added, and that is enough to find it again. */
static struct slice add_bytes(struct collected *c, struct slice bytes)
{
    buffer_append(&c->bytes, bytes.data, bytes.len);
    return (struct slice){ NULL, bytes.len };
}

static void add_detail(struct collected *c, const struct token_detail *detail)
{
    struct token_detail kept = *detail;
    kept.bytes = add_bytes(c, detail->bytes);
    kept.top.items = NULL;
    buffer_append(&c->details, &kept, sizeof kept);

    const struct token_alternative *top = detail->top.items;
    for (uint32_t i = 0; i < detail->top.n; i++) {
        struct token_alternative other = top[i];
        other.bytes = add_bytes(c, top[i].bytes);
        buffer_append(&c->alternatives, &other, sizeof other);
    }
}

void collected_add(struct collected *c, struct id_array ids, struct slice text, struct struct_array details)
{
    const struct token_detail *items = details.items;

    buffer_append(&c->ids, ids.ids, ids.n * sizeof *ids.ids);
    buffer_append(&c->text, text.data, text.len);
    for (uint32_t i = 0; i < details.n; i++)
        add_detail(c, &items[i]);
}

/* Never NULL, which would mean absent. */
static char *start_of(struct buffer *b)
{
    buffer_reserve(b, 1);
    return b->data;
}

static const char *take_bytes(const char **at, size_t len)
{
    const char *here = *at;
    *at += len;
    return here;
}

static void restore_pointers(struct collected *c)
{
    struct token_detail *details = (void *)c->details.data;
    struct token_alternative *alternative = (void *)start_of(&c->alternatives);
    const char *at = start_of(&c->bytes);

    for (size_t i = 0; i < c->details.len / sizeof *details; i++) {
        details[i].bytes.data = take_bytes(&at, details[i].bytes.len);
        details[i].top.items = alternative;
        for (uint32_t k = 0; k < details[i].top.n; k++, alternative++)
            alternative->bytes.data = take_bytes(&at, alternative->bytes.len);
    }
}

void collected_fill(struct collected *c, struct id_array *ids, struct slice *text,
                    struct struct_array *details)
{
    if (c->details.len)
        restore_pointers(c);
    *ids = (struct id_array){ (const void *)start_of(&c->ids), (uint32_t)(c->ids.len / sizeof(int32_t)) };
    *text = (struct slice){ start_of(&c->text), c->text.len };
    *details = (struct struct_array){ start_of(&c->details),
                                      (uint32_t)(c->details.len / sizeof(struct token_detail)) };
}
