/* The class of a code point, as far as tokenizers ask for it. From a generated table (make_unicode.py). */
#ifndef WOOLLY_TOKEN_UNICODE_H
#define WOOLLY_TOKEN_UNICODE_H

#include <stdint.h>

enum unicode_class {
    UNICODE_OTHER, /* controls, what is not assigned, and everything else */
    UNICODE_LETTER,
    UNICODE_NUMBER,
    UNICODE_PUNCTUATION,
    UNICODE_SYMBOL,
    UNICODE_MARK,  /* combining */
    UNICODE_SPACE, /* the property White_Space; stands before all others */
};

enum { UNICODE_LAST = 0x110000, UNICODE_BLOCK_BITS = 7 };

extern const uint8_t unicode_blocks[UNICODE_LAST >> UNICODE_BLOCK_BITS];
extern const char unicode_classes[][(1 << UNICODE_BLOCK_BITS) + 1]; /* a digit for each */

/* code is below UNICODE_LAST. */
static inline enum unicode_class unicode_class_of(uint32_t code)
{
    uint32_t low = code & ((1 << UNICODE_BLOCK_BITS) - 1);
    return (enum unicode_class)(unicode_classes[unicode_blocks[code >> UNICODE_BLOCK_BITS]][low] - '0');
}

#endif
