#include "proto/cli/terminal.h"

#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/utf8.h"

/* C0, DEL and C1, and the marks that reorder text, with which a name can pretend to be another. */
static bool is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

static bool write_filtered(FILE *to, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint32_t code;
        int n = utf8_next(text + i, len - i, &code);
        if (n <= 0) {
            i++;
            continue;
        }
        if (!is_control(code) || code == '\n' || code == '\t')
            fwrite(text + i, 1, (size_t)n, to);
        i += (size_t)n;
    }
    return !ferror(to);
}

bool terminal_write(FILE *to, const char *text, size_t len)
{
    if (isatty(fileno(to)) ? !write_filtered(to, text, len) : fwrite(text, 1, len, to) != len)
        return false;
    return fflush(to) == 0;
}

void terminal_clean(const char *text, char *out, size_t size)
{
    size_t len = strlen(text), used = 0;
    for (size_t i = 0; i < len;) {
        uint32_t code;
        int n = utf8_next(text + i, len - i, &code);
        bool is_fine = n > 0 && !is_control(code);
        size_t in = n > 0 ? (size_t)n : 1, needed = is_fine ? in : 1;
        if (used + needed >= size)
            break;
        if (is_fine)
            memcpy(out + used, text + i, in);
        else
            out[used] = '?';
        used += needed;
        i += in;
    }
    out[used] = 0;
}
