#include "proto/cli/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_put_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text));
}

void json_put_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, json_real(value));
}

void json_put_count(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* On one line; 9 digits are enough for a float and keep milliseconds readable. */
enum { STYLE = JSON_REAL_PRECISION(9) };

void json_print_with_count(json_t *object, const char *key, uint64_t value)
{
    char *text = json_dumps(object, STYLE);
    if (text)
        printf("%.*s, \"%s\": %" PRIu64 "}\n", (int)strlen(text) - 1, text, key, value);
    free(text);
    json_decref(object);
}

void json_print(json_t *object)
{
    json_dumpf(object, stdout, STYLE);
    fputc('\n', stdout);
    json_decref(object);
}
