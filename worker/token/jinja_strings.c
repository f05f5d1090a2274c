/* What strings do, for methods and filters alike. */
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja_call.h"
#include "worker/token/jinja_operate.h"
#include "worker/token/jinja_text.h"

static bool has_code(struct jinja_value set, const char *text, int len)
{
    return memmem(set.text, set.len, text, (size_t)len) != NULL;
}

struct jinja_value jinja_strip(struct jinja_run *r, struct jinja_value s, struct jinja_value chars, bool left,
                               bool right)
{
    size_t from = 0, to = s.len;

    jinja_charge_bytes(r, s.len);
    if (chars.kind != JINJA_STRING) {
        from = left ? jinja_space_before(s.text, s.len) : 0;
        to -= right ? jinja_space_after(s.text + from, s.len - from) : 0;
        return jinja_string(r, s.text + from, to - from);
    }
    while (left && from < to) {
        int n = utf8_next(s.text + from, to - from, NULL);
        jinja_charge_bytes(r, 32 + chars.len);
        if (!has_code(chars, s.text + from, n))
            break;
        from += (size_t)n;
    }
    while (right && from < to) {
        size_t start = to - 1;
        while ((s.text[start] & 0xc0) == 0x80)
            start--;
        jinja_charge_bytes(r, 32 + chars.len);
        if (!has_code(chars, s.text + start, (int)(to - start)))
            break;
        to = start;
    }
    return jinja_string(r, s.text + from, to - from);
}

/* Between all characters, as Python does for an empty `from`. */
static struct jinja_value interleave(struct jinja_run *r, struct jinja_value s, struct jinja_value to,
                                     int64_t count)
{
    struct jinja_text out = { 0 };
    size_t i = 0;

    for (;; count--) {
        if (count)
            jinja_text_append(r, &out, to.text, to.len);
        if (i >= s.len || !count)
            break;
        int n = utf8_next(s.text + i, s.len - i, NULL);
        jinja_charge(r, 1);
        jinja_text_append(r, &out, s.text + i, (size_t)n);
        i += (size_t)n;
    }
    jinja_text_append(r, &out, s.text + i, s.len - i);
    return jinja_text_value(r, &out);
}

struct jinja_value jinja_replace(struct jinja_run *r, struct jinja_value s, struct jinja_value from,
                                 struct jinja_value to, int64_t count)
{
    struct jinja_text out = { 0 };
    const char *at = s.text, *end = s.text + s.len, *found;

    if (!from.len)
        return interleave(r, s, to, count);
    for (; count && (found = memmem(at, (size_t)(end - at), from.text, from.len)); count--) {
        jinja_charge(r, 1);
        jinja_text_append(r, &out, at, (size_t)(found - at));
        jinja_text_append(r, &out, to.text, to.len);
        at = found + from.len;
    }
    if (at == s.text)
        return s;
    jinja_text_append(r, &out, at, (size_t)(end - at));
    return jinja_text_value(r, &out);
}

struct jinja_value jinja_join(struct jinja_run *r, struct jinja_value separator, const struct jinja_list *l)
{
    struct jinja_text out = { 0 };

    for (size_t i = 0; i < l->n; i++) {
        if (i)
            jinja_text_append(r, &out, separator.text, separator.len);
        jinja_print(r, &out, l->items[i]);
    }
    return jinja_text_value(r, &out);
}

struct jinja_value jinja_change_case(struct jinja_run *r, struct jinja_value s, uint32_t (*change)(uint32_t))
{
    struct jinja_text out = { 0 };
    char bytes[4];

    jinja_charge(r, s.len / 8);
    for (size_t i = 0; i < s.len;) {
        uint32_t code = 0;
        i += (size_t)utf8_next(s.text + i, s.len - i, &code);
        jinja_text_append(r, &out, bytes, (size_t)utf8_put(change(code), bytes));
    }
    return jinja_text_value(r, &out);
}

struct jinja_value jinja_capitalize(struct jinja_run *r, struct jinja_value s)
{
    size_t first = jinja_text_offset(s.text, s.len, 1);
    struct jinja_value head = jinja_change_case(r, jinja_string(r, s.text, first), jinja_upper);

    return jinja_concatenate(
        r, head, jinja_change_case(r, jinja_string(r, s.text + first, s.len - first), jinja_lower));
}

bool jinja_is_case(struct jinja_value s, bool upper)
{
    bool has_case = false;

    for (size_t i = 0; i < s.len;) {
        uint32_t code = 0;
        i += (size_t)utf8_next(s.text + i, s.len - i, &code);
        if (upper ? jinja_is_lower(code) : jinja_is_upper(code))
            return false;
        has_case |= upper ? jinja_is_upper(code) : jinja_is_lower(code);
    }
    return has_case;
}

static bool ends_line(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct jinja_value jinja_split_lines(struct jinja_run *r, struct jinja_value s, bool keep_ends)
{
    struct jinja_value lines = jinja_list_new(r, JINJA_LIST, 0);
    size_t start = 0;

    jinja_charge(r, s.len / 8);
    for (size_t i = 0; i < s.len;) {
        uint32_t code = 0;
        size_t end = i;
        i += (size_t)utf8_next(s.text + i, s.len - i, &code);
        if (!ends_line(code))
            continue;
        i += code == '\r' && i < s.len && s.text[i] == '\n';
        jinja_list_push(r, lines.list, jinja_string(r, s.text + start, (keep_ends ? i : end) - start));
        start = i;
    }
    if (start < s.len)
        jinja_list_push(r, lines.list, jinja_string(r, s.text + start, s.len - start));
    return lines;
}

/* What snprintf, which returned `len`, wrote to text. */
static void put_number(struct jinja_run *r, struct jinja_text *out, const char *text, size_t room, int len)
{
    if (len < 0 || (size_t)len >= room)
        jinja_fail(r, E_LIMIT, "a formatted number has more than %zu characters", room - 1);
    jinja_text_puts(r, out, text);
}

/* One "%5.2f" of a format with its value. Returns the bytes of the format behind the "%". */
static size_t format_one(struct jinja_run *r, struct jinja_text *out, const char *p, size_t len,
                         struct jinja_value v)
{
    char spec[24] = "%", text[400];
    size_t n = 0;

    while (n < len && p[n] && strchr("-+ #0123456789.", p[n]))
        n++;
    if (n >= len || n > 6)
        jinja_fail(r, E_INVALID, "a format has no conversion after its %%");
    memcpy(spec + 1, p, n);
    char conversion = p[n];
    if (v.kind == JINJA_UNDEFINED && conversion != 's')
        jinja_fail_undefined(r, v);
    if (conversion == 's' || conversion == 'r') {
        if (n)
            jinja_fail(r, E_UNSUPPORTED, "a width for %%%c is not supported", conversion);
        if (conversion == 's')
            jinja_print(r, out, v);
        else
            jinja_print_quoted(r, out, v);
    } else if (conversion && strchr("dixX", conversion) && jinja_is_number(v)) {
        strcpy(spec + 1 + n, "ll");
        spec[n + 3] = conversion;
        double f = jinja_to_double(v);
        if (!(f > -9e18 && f < 9e18))
            jinja_fail(r, E_INVALID, "a number is too large for a format");
        put_number(r, out, text, sizeof text,
                   snprintf(text, sizeof text, spec,
                            v.kind == JINJA_FLOAT ? (long long)f : (long long)jinja_to_int(v)));
    } else if (conversion && strchr("feEgG", conversion) && jinja_is_number(v)) {
        spec[1 + n] = conversion;
        put_number(r, out, text, sizeof text, snprintf(text, sizeof text, spec, jinja_to_double(v)));
    } else {
        jinja_fail(r, E_INVALID, "a '%s' object cannot be formatted with %%%c", jinja_kind_name(v),
                   conversion);
    }
    return n + 1;
}

struct jinja_value jinja_format_percent(struct jinja_run *r, struct jinja_value format,
                                        struct jinja_value arguments)
{
    bool has_many = arguments.kind == JINJA_TUPLE;
    size_t n = has_many ? arguments.list->n : 1, used = 0;
    struct jinja_text out = { 0 };

    for (size_t i = 0; i < format.len;) {
        const char *p = memchr(format.text + i, '%', format.len - i);
        size_t end = p ? (size_t)(p - format.text) : format.len;
        jinja_charge(r, 1);
        jinja_text_append(r, &out, format.text + i, end - i);
        i = end + 1;
        if (!p)
            break;
        if (i < format.len && format.text[i] == '%') {
            jinja_text_puts(r, &out, "%");
            i++;
            continue;
        }
        if (used == n)
            jinja_fail(r, E_INVALID, "not enough arguments for a format");
        struct jinja_value v = has_many ? arguments.list->items[used] : arguments;
        used++;
        i += format_one(r, &out, format.text + i, format.len - i, v);
    }
    if (used < n && arguments.kind != JINJA_DICT)
        jinja_fail(r, E_INVALID, "not all arguments of a format are used");
    return jinja_text_value(r, &out);
}
