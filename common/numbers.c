#include "common/numbers.h"

#include <errno.h>
#include <stdlib.h>

bool numbers_parse(const char *text, int least, int most, struct numbers *out)
{
    for (out->n = 0; out->n < NUMBERS_MAX;) {
        char *end;
        errno = 0;
        long value = strtol(text, &end, 10);
        if (*text < '0' || *text > '9' || errno || value < least || value > most || (*end && *end != ','))
            return false;
        out->values[out->n++] = (int)value;
        if (!*end)
            return true;
        text = end + 1;
    }
    return false;
}

bool number_parse(const char *text, int least, int most, int *out)
{
    struct numbers list;
    if (!numbers_parse(text, least, most, &list) || list.n != 1)
        return false;
    *out = list.values[0];
    return true;
}

int numbers_largest(const struct numbers *list)
{
    int largest = list->values[0];
    for (int i = 1; i < list->n; i++)
        if (list->values[i] > largest)
            largest = list->values[i];
    return largest;
}

char *numbers_print(const struct numbers *list)
{
    struct buffer b = { 0 };
    for (int i = 0; i < list->n; i++)
        buffer_printf(&b, "%s%d", i ? "," : "", list->values[i]);
    buffer_append(&b, "", 1);
    return b.data;
}
