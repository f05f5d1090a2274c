/* Any bytes as a template, rendered with a small conversation: it ends within its limits, with text that is
 * UTF-8 or with an error that says where. A zero byte ends the template; what follows is the content of the
 * first message. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(int holds)
{
    if (!holds)
        abort();
}

static json_t *make_variables(const char *content, size_t len)
{
    json_t *text = utf8_is_valid(content, len) ? json_stringn(content, len) : json_string("Hi <there>\n");

    return json_pack("{s:[{s:s,s:o},{s:s,s:s,s:n},{s:s,s:[{s:s,s:{s:i,s:f}}]}],s:[i,i,i],s:s,s:b,s:n}",
                     "messages", "role", "user", "content", text, "role", "assistant", "content", " yes ",
                     "extra", "role", "tool", "tool_calls", "name", "f", "arguments", "x", 1, "y", 0.5, "l",
                     3, 1, 2, "bos_token", "<s>", "add_generation_prompt", 1, "tools");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const struct jinja_limits limits = { 20000, 4 << 20, 1 << 20 };
    static const struct tm now = { .tm_year = 125, .tm_mday = 1 };
    const char *text = (const char *)bytes, *end = memchr(text, 0, len);
    size_t template_len = end ? (size_t)(end - text) : len;
    struct jinja_template *t;
    struct error err = { 0 };
    struct buffer out = { 0 };

    if (jinja_parse(&t, text, template_len, &err) != OK) {
        require(!strncmp(err.text, "line ", 5));
        return 0;
    }
    json_t *variables = make_variables(end ? end + 1 : "", end ? len - template_len - 1 : 0);
    if (jinja_render(t, variables, &now, &limits, &out, &err) == OK)
        require(utf8_is_valid(out.len ? out.data : "", out.len));
    else
        require(!strncmp(err.text, "line ", 5) && utf8_is_valid(err.text, strlen(err.text)) && !out.len);
    json_decref(variables);
    jinja_template_destroy(t);
    buffer_fini(&out);
    return 0;
}
