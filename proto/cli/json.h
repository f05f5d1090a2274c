/* One JSON object on standard output, and nothing else there. */
#ifndef WOOLLY_CLI_JSON_H
#define WOOLLY_CLI_JSON_H

#include <jansson.h>
#include <stdint.h>

void json_put_text(json_t *object, const char *key, const char *text);
void json_put_number(json_t *object, const char *key, double value);
void json_put_count(json_t *object, const char *key, uint64_t value);

/* Print and free it. The second adds a number that may be beyond the integers of a json_t, which end at
 * 2^63 - 1; the object is not empty. */
void json_print(json_t *object);
void json_print_with_count(json_t *object, const char *key, uint64_t value);

#endif
