#include "proto/cli/json.h"

#include <stdio.h>

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

void json_print(json_t *object)
{
    /* On one line; 9 digits are enough for a float and keep milliseconds readable. */
    json_dumpf(object, stdout, JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    json_decref(object);
}
