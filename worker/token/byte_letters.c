#include "worker/token/byte_letters.h"

#include <stdbool.h>
#include <stdint.h>

#include "common/utf8.h"

enum { N_HIDDEN = 68, FIRST_HIDDEN = 0x100 };

static bool is_visible(uint32_t code)
{
    return (code >= '!' && code <= '~') || (code >= 0xa1 && code <= 0xff && code != 0xad);
}

/* The bytes that are no visible character, in order: 0 to 32, 127 to 160, 173. */
static uint32_t hidden_byte(uint32_t index)
{
    return index <= 32 ? index : index < N_HIDDEN - 1 ? index - 33 + 127 : 0xad;
}

static uint32_t letter_of(unsigned char byte)
{
    if (is_visible(byte))
        return byte;
    return FIRST_HIDDEN + (byte <= 32 ? byte : byte == 0xad ? N_HIDDEN - 1 : byte - 127u + 33);
}

size_t byte_letters_put(const char *bytes, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += (size_t)utf8_put(letter_of((unsigned char)bytes[i]), out + n);
    return n;
}

size_t byte_letters_read(const char *letters, size_t len, char *out)
{
    size_t n = 0;

    for (size_t at = 0; at < len;) {
        uint32_t code = 0;
        int taken = utf8_next(letters + at, len - at, &code);
        if (taken > 0 && (is_visible(code) || (code >= FIRST_HIDDEN && code < FIRST_HIDDEN + N_HIDDEN))) {
            out[n++] = (char)(is_visible(code) ? code : hidden_byte(code - FIRST_HIDDEN));
            at += (size_t)taken;
            continue;
        }
        for (size_t stop = at + (size_t)(taken > 0 ? taken : 1); at < stop;)
            out[n++] = letters[at++];
    }
    return n;
}
