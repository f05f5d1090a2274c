#include "bench/load_answer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TOTAL = 1 << 30 };

static int count_of(const json_t *number)
{
    json_int_t n = json_integer_value(number);
    return n > 0 && n <= MAX_TOTAL ? (int)n : 0;
}

/* {"error": "text"}, {"error": {"message": "text"}} or a message by itself. */
static bool find_error(const json_t *object, char *why, size_t size)
{
    const json_t *error = json_object_get(object, "error");
    if (!error || json_is_null(error))
        return false;
    const char *text = json_string_value(json_is_object(error) ? json_object_get(error, "message") : error);
    snprintf(why, size, "%s", text ? text : "an error without a message");
    return true;
}

static bool read_completion(const json_t *object, struct answer_event *out)
{
    const json_t *content = json_object_get(object, "content");
    size_t n_ids = json_array_size(json_object_get(object, "tokens"));
    if (!json_is_string(content))
        return false;
    out->tokens = n_ids ? (int)n_ids : json_string_length(content) > 0;
    out->is_end = json_is_true(json_object_get(object, "stop"));
    if (out->is_end)
        out->total = count_of(json_object_get(object, "tokens_predicted"));
    return true;
}

/* The last chunk may have no choices but the usage. */
static bool read_openai(const json_t *object, struct answer_event *out)
{
    const json_t *choices = json_object_get(object, "choices"), *choice = json_array_get(choices, 0);
    const json_t *usage = json_object_get(object, "usage");
    if (!json_is_array(choices) && !json_is_object(usage))
        return false;
    out->tokens = json_string_length(json_object_get(choice, "text")) > 0;
    out->is_end = json_is_string(json_object_get(choice, "finish_reason"));
    out->total = count_of(json_object_get(usage, "completion_tokens"));
    return true;
}

bool answer_read(enum load_api api, const char *data, size_t len, struct answer_event *out)
{
    *out = (struct answer_event){ 0 };
    if (len == 6 && !memcmp(data, "[DONE]", 6)) {
        out->is_end = true;
        return true;
    }
    json_t *object = json_loadb(data, len, 0, NULL);
    bool is_right = json_is_object(object);
    if (is_right && find_error(object, out->why, sizeof out->why))
        out->is_error = true;
    else if (is_right)
        is_right = api == LOAD_COMPLETION ? read_completion(object, out) : read_openai(object, out);
    json_decref(object);
    return is_right;
}

void answer_refusal(const char *body, size_t len, char *why, size_t size)
{
    json_t *object = json_loadb(body, len, 0, NULL);
    if (!json_is_object(object) || !find_error(object, why, size))
        snprintf(why, size, "%.*s", (int)(len < size ? len : size - 1), body);
    json_decref(object);
}
