#include "worker/token/jinja_text.h"

#include "common/utf8.h"

size_t jinja_text_count(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += (text[i] & 0xc0) != 0x80;
    return n;
}

size_t jinja_text_offset(const char *text, size_t len, size_t i)
{
    size_t at = 0;

    for (; at < len; at++) {
        if ((text[at] & 0xc0) != 0x80 && !i--)
            break;
    }
    return at;
}

bool jinja_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

size_t jinja_space_before(const char *text, size_t len)
{
    size_t at = 0;
    uint32_t code;

    while (at < len) {
        int n = utf8_next(text + at, len - at, &code);
        if (n <= 0 || !jinja_is_space(code))
            break;
        at += (size_t)n;
    }
    return at;
}

size_t jinja_space_after(const char *text, size_t len)
{
    size_t end = len;
    uint32_t code;

    while (end) {
        size_t start = end - 1;
        while (start && (text[start] & 0xc0) == 0x80)
            start--;
        if (utf8_next(text + start, end - start, &code) <= 0 || !jinja_is_space(code))
            break;
        end = start;
    }
    return len - end;
}

/* Where the blocks lay the cases out in pairs, the capital is even (or odd) and the small letter follows. */
static bool is_paired(uint32_t c, bool *capital_is_odd)
{
    *capital_is_odd = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e);
    if (c == 0x130 || c == 0x131 || c == 0x138 || c == 0x149 || c == 0x178 || c == 0x17f)
        return false;
    return (c >= 0x100 && c <= 0x17e) || (c >= 0x3d8 && c <= 0x3ef) || (c >= 0x460 && c <= 0x481) ||
           (c >= 0x48a && c <= 0x4bf) || (c >= 0x4d0 && c <= 0x52f) || (c >= 0x1e00 && c <= 0x1e95) ||
           (c >= 0x1ea0 && c <= 0x1eff);
}

uint32_t jinja_upper(uint32_t c)
{
    bool odd;

    if (c < 0x80)
        return c >= 'a' && c <= 'z' ? c - 32 : c;
    if ((c >= 0xe0 && c <= 0xfe && c != 0xf7) || (c >= 0x3b1 && c <= 0x3cb && c != 0x3c2) ||
        (c >= 0x430 && c <= 0x44f))
        return c - 32;
    if (c == 0xff)
        return 0x178;
    if (c == 0x3c2)
        return 0x3a3;
    if (c >= 0x450 && c <= 0x45f)
        return c - 80;
    if (c >= 0x561 && c <= 0x586)
        return c - 48;
    return is_paired(c, &odd) && (c & 1) == !odd ? c - 1 : c;
}

uint32_t jinja_lower(uint32_t c)
{
    bool odd;

    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if ((c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3ab && c != 0x3a2) ||
        (c >= 0x410 && c <= 0x42f))
        return c + 32;
    if (c == 0x178)
        return 0xff;
    if (c >= 0x400 && c <= 0x40f)
        return c + 80;
    if (c >= 0x531 && c <= 0x556)
        return c + 48;
    return is_paired(c, &odd) && (c & 1) == odd ? c + 1 : c;
}

bool jinja_is_upper(uint32_t code)
{
    return jinja_lower(code) != code;
}

bool jinja_is_lower(uint32_t code)
{
    return jinja_upper(code) != code || code == 0xdf;
}
