/* Lists of whole numbers in options: "1,2,8". */
#ifndef WOOLLY_COMMON_NUMBERS_H
#define WOOLLY_COMMON_NUMBERS_H

#include <stdbool.h>

#include "common/buffer.h"

enum { NUMBERS_MAX = 32 };

struct numbers {
    int n, values[NUMBERS_MAX];
};

/* False, with *out in any state, unless the text is 1 to NUMBERS_MAX numbers from least to most. */
bool numbers_parse(const char *text, int least, int most, struct numbers *out);

/* A single one. */
bool number_parse(const char *text, int least, int most, int *out);

int numbers_largest(const struct numbers *list);

/* As they were given; 0-terminated, the caller frees it. */
char *numbers_print(const struct numbers *list);

#endif
