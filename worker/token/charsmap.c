/* A unit is 32 bits, the lowest first: 0-7 the byte that leads to it, 8 whether a sequence may end there,
 * 9-30 where its children are. Their place is the unit's own index, XOR an offset, XOR each child's byte;
 * what would be the child of the byte 0 has bit 31 set and holds the place of the replacement. */
#include "worker/token/charsmap.h"

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"

static const char KEY[] = "tokenizer.ggml.precompiled_charsmap";

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t unit_at(const struct charsmap *c, uint32_t index)
{
    return read_u32(c->units + 4 * (size_t)index);
}

static bool ends_sequence(uint32_t unit)
{
    return unit >> 8 & 1;
}

static bool is_value(uint32_t unit)
{
    return unit >> 31;
}

/* Bit 9 says that the offset is in steps of 256. */
static uint32_t offset_of(uint32_t unit)
{
    return unit >> 9 & 1 ? (unit >> 10) << 8 : unit >> 10;
}

static enum status check_units(const struct charsmap *c, const struct gguf *g, struct error *err)
{
    for (uint32_t i = 0; i < c->n_units; i++) {
        uint32_t unit = unit_at(c, i), children = i ^ offset_of(unit);
        if (is_value(unit))
            continue;
        if (children >= c->n_units)
            return error_set(err, E_FORMAT, "%s: %s: unit %u points to unit %u of %zu", gguf_path(g), KEY, i,
                             children, c->n_units);
        uint32_t place = unit_at(c, children) & 0x7fffffff;
        if (ends_sequence(unit) && place >= c->replacements_len)
            return error_set(err, E_FORMAT, "%s: %s: unit %u points to byte %u of %zu of the replacements",
                             gguf_path(g), KEY, children, place, c->replacements_len);
    }
    return OK;
}

static enum status check_replacements(const struct charsmap *c, const struct gguf *g, struct error *err)
{
    size_t begin = 0;

    if (c->replacements[c->replacements_len - 1])
        return error_set(err, E_FORMAT, "%s: %s: the last replacement has no end", gguf_path(g), KEY);
    for (size_t i = 0; i < c->replacements_len; i++) {
        if (c->replacements[i])
            continue;
        if (i - begin > CHARSMAP_MAX_REPLACEMENT)
            return error_set(err, E_LIMIT, "%s: %s: a replacement has %zu bytes, more than %d", gguf_path(g),
                             KEY, i - begin, CHARSMAP_MAX_REPLACEMENT);
        begin = i + 1;
    }
    return OK;
}

static size_t replaced_bytes(const char *replacement)
{
    size_t n = 0;
    for (const char *c = replacement; *c; c++)
        n += *c == ' ' ? 3 : 1;
    return n;
}

/* Breadth first: each unit once, at the end of the shortest sequence that leads there, which has the least
 * right to a long replacement. */
static enum status check_growth(const struct charsmap *c, const struct gguf *g, struct error *err)
{
    uint32_t *queue = xmalloc((c->n_units + 1) * sizeof(*queue)); /* the root may be led to, too */
    bool *is_seen = xcalloc(c->n_units, sizeof(*is_seen));
    size_t head = 0, tail = 0, level_end = 1;
    enum status s = OK;

    queue[tail++] = 0;
    for (size_t depth = 0; head < tail && depth < CHARSMAP_MAX_KEY && s == OK; head++) {
        uint32_t children = queue[head] ^ offset_of(unit_at(c, queue[head]));
        for (uint32_t byte = 1; byte < 256; byte++) {
            uint32_t index = children ^ byte, unit = index < c->n_units ? unit_at(c, index) : 0;
            if (is_value(unit) || (unit & 0xff) != byte || is_seen[index])
                continue;
            is_seen[index] = true;
            queue[tail++] = index;
            if (!ends_sequence(unit))
                continue;
            uint32_t place = unit_at(c, index ^ offset_of(unit)) & 0x7fffffff;
            size_t n = replaced_bytes(c->replacements + place);
            if (n > CHARSMAP_MAX_GROWTH * (depth + 1))
                s = error_set(err, E_LIMIT, "%s: %s: %zu bytes become %zu, more than %d times as many",
                              gguf_path(g), KEY, depth + 1, n, CHARSMAP_MAX_GROWTH);
        }
        if (head + 1 == level_end) {
            level_end = tail;
            depth++;
        }
    }
    free(queue);
    free(is_seen);
    return s;
}

enum status charsmap_init(struct charsmap *c, const struct gguf *g, struct error *err)
{
    const struct gguf_value *a = gguf_find(g, KEY);
    struct charsmap found = { 0 };
    enum status s;

    *c = found;
    if (!a)
        return OK;
    if (a->kind != GGUF_ARRAY || (a->element != GGUF_U8 && a->element != GGUF_I8))
        return error_set(err, E_FORMAT, "%s: %s is not an array of bytes", gguf_path(g), KEY);
    if (!a->count)
        return OK;
    uint64_t units_bytes = a->count < 4 ? 0 : read_u32(a->elements);
    if (!units_bytes || units_bytes % 4 || units_bytes >= a->count - 4)
        return error_set(err, E_FORMAT, "%s: %s: of %llu bytes %llu cannot be units", gguf_path(g), KEY,
                         (unsigned long long)a->count, (unsigned long long)units_bytes);
    found.units = (const uint8_t *)a->elements + 4;
    found.n_units = units_bytes / 4;
    found.replacements = (const char *)found.units + units_bytes;
    found.replacements_len = a->count - 4 - units_bytes;
    if ((s = check_replacements(&found, g, err)) != OK || (s = check_units(&found, g, err)) != OK ||
        (s = check_growth(&found, g, err)) != OK)
        return s;
    *c = found;
    return OK;
}

/* A hostile array may lead round in a circle: so the length of a sequence has a limit. */
size_t charsmap_find(const struct charsmap *c, const char *text, size_t len, struct gguf_string *to)
{
    size_t longest = 0, max = len < CHARSMAP_MAX_KEY ? len : CHARSMAP_MAX_KEY;

    if (!c->n_units)
        return 0;
    uint32_t children = offset_of(unit_at(c, 0));
    for (size_t i = 0; i < max; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t index = children ^ byte;
        uint32_t unit = index < c->n_units && byte ? unit_at(c, index) : 0;
        if (is_value(unit) || (unit & 0xff) != byte || !byte)
            break;
        children = index ^ offset_of(unit);
        if (ends_sequence(unit)) {
            longest = i + 1;
            to->text = c->replacements + (unit_at(c, children) & 0x7fffffff);
        }
    }
    to->len = longest ? strlen(to->text) : 0;
    return longest;
}
