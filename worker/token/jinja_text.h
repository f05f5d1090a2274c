/* Text as Python's str sees it: a row of code points, over valid UTF-8. Plain functions over bytes. */
#ifndef WOOLLY_TOKEN_JINJA_TEXT_H
#define WOOLLY_TOKEN_JINJA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many code points. */
size_t jinja_text_count(const char *text, size_t len);

/* The byte at which code point i begins; len when there are no more than i. */
size_t jinja_text_offset(const char *text, size_t len, size_t i);

/* str.isspace of one code point. */
bool jinja_is_space(uint32_t code);

/* The bytes of white space at the beginning or end. */
size_t jinja_space_before(const char *text, size_t len);
size_t jinja_space_after(const char *text, size_t len);

/* Case of Latin, Greek, Cyrillic and Armenian letters; others stay as they are. */
uint32_t jinja_upper(uint32_t code);
uint32_t jinja_lower(uint32_t code);
bool jinja_is_upper(uint32_t code);
bool jinja_is_lower(uint32_t code);

#endif
