#include "worker/token/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/token/jinja.h"

struct chat_template {
    struct jinja_template *plain, *with_tools; /* with_tools: NULL when the plain one serves */
    json_t *special;                           /* "bos_token" and the like with their texts */
};

static const struct {
    const char *variable, *key;
} special_tokens[] = {
    { "bos_token", "tokenizer.ggml.bos_token_id" },       { "eos_token", "tokenizer.ggml.eos_token_id" },
    { "unk_token", "tokenizer.ggml.unknown_token_id" },   { "pad_token", "tokenizer.ggml.padding_token_id" },
    { "sep_token", "tokenizer.ggml.seperator_token_id" },
};

/* *out stays NULL when the file does not have the key. */
static enum status read_template(struct jinja_template **out, const struct gguf *g, const char *key,
                                 struct error *err)
{
    struct gguf_string text;
    struct error inner = { 0 };
    enum status s = gguf_get_string(g, key, &text, err);

    if (s == E_NOTFOUND)
        return OK;
    if (s == OK && (s = jinja_parse(out, text.text, text.len, &inner)) != OK)
        return error_set(err, s, "%s: %s", key, inner.text);
    return s;
}

/* A token that a template mentions but the file does not name is an empty text: templates print it
 * unasked, and most of them would fail on an undefined one. */
static enum status read_special(struct chat_template *t, const struct gguf *g, struct error *err)
{
    const struct gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    bool has_texts = tokens && tokens->kind == GGUF_ARRAY && tokens->element == GGUF_STRING;

    t->special = json_object();
    for (size_t i = 0; i < sizeof special_tokens / sizeof *special_tokens; i++) {
        uint64_t id = UINT64_MAX;
        struct gguf_string text = { "", 0 };
        enum status s = gguf_get_u64(g, special_tokens[i].key, &id, err);
        if (s != OK && s != E_NOTFOUND)
            return s;
        if (has_texts && id < tokens->count)
            text = tokens->strings[id];
        if (!utf8_is_valid(text.text, text.len))
            return error_set(err, E_FORMAT, "the token that %s names is not UTF-8", special_tokens[i].key);
        json_object_set_new(t->special, special_tokens[i].variable, json_stringn(text.text, text.len));
    }
    return OK;
}

enum status chat_template_create(struct chat_template **out, const struct gguf *g, struct error *err)
{
    struct chat_template *t = calloc(1, sizeof *t);
    enum status s = E_NOMEM;

    *out = NULL;
    if (!t)
        return error_set(err, s, "no memory for a chat template");
    if ((s = read_template(&t->plain, g, "tokenizer.chat_template", err)) != OK ||
        (s = read_template(&t->with_tools, g, "tokenizer.chat_template.tool_use", err)) != OK ||
        (s = read_special(t, g, err)) != OK)
        goto fail;
    if (!t->plain) {
        s = error_set(err, E_NOTFOUND, "%s has no chat template (tokenizer.chat_template)", gguf_path(g));
        goto fail;
    }
    *out = t;
    return OK;

fail:
    chat_template_destroy(t);
    return s;
}

void chat_template_destroy(struct chat_template *t)
{
    if (!t)
        return;
    jinja_template_destroy(t->plain);
    jinja_template_destroy(t->with_tools);
    json_decref(t->special);
    free(t);
}

static enum status check_messages(const json_t *messages, struct error *err)
{
    if (!json_is_array(messages))
        return error_set(err, E_INVALID,
                         "a conversation is an array of messages, or an object with one named "
                         "\"messages\"");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message) || !json_is_string(json_object_get(message, "role")))
            return error_set(err, E_INVALID, "messages[%zu] is no object with a \"role\"", i);
    }
    return OK;
}

/* What the template is to see: a new object, or NULL with an error. */
static json_t *make_variables(const struct chat_template *t, const json_t *conversation, bool with_prompt,
                              struct error *err)
{
    json_t *given = (json_t *)(uintptr_t)conversation; /* only read: jansson counts references in it */
    bool is_object = json_is_object(given);

    if (check_messages(is_object ? json_object_get(given, "messages") : given, err) != OK)
        return NULL;
    json_t *variables = json_copy(t->special);
    json_object_set_new(variables, "tools", json_null());
    json_object_set_new(variables, "documents", json_null());
    json_object_set_new(variables, "add_generation_prompt", json_boolean(with_prompt));
    if (is_object)
        json_object_update(variables, given);
    else
        json_object_set(variables, "messages", given);
    return variables;
}

enum status chat_apply(const struct chat_template *t, const json_t *conversation, bool with_generation_prompt,
                       const struct tm *now, struct buffer *out, struct error *err)
{
    struct error inner = { 0 };
    json_t *variables = make_variables(t, conversation, with_generation_prompt, err);

    if (!variables)
        return E_INVALID;
    bool has_tools = json_array_size(json_object_get(variables, "tools")) > 0;
    enum status s = jinja_render(has_tools && t->with_tools ? t->with_tools : t->plain, variables, now,
                                 &jinja_default_limits, out, &inner);
    if (s != OK)
        error_set(err, s, "chat template: %s", inner.text);
    json_decref(variables);
    return s;
}
