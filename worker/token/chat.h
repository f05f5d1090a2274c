/* Conversations to prompts: a model's chat template with the special tokens it may mention. Read-only after
 * creation; any thread, any forked child. */
#ifndef WOOLLY_TOKEN_CHAT_H
#define WOOLLY_TOKEN_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "common/buffer.h"
#include "common/status.h"
#include "worker/model/gguf.h"

struct chat_template;

/* Reads tokenizer.chat_template, and tokenizer.chat_template.tool_use for conversations with tools, of a
 * file. E_NOTFOUND (with a text) when the file has none. Nothing of g is kept. */
MUST_CHECK enum status chat_template_create(struct chat_template **out, const struct gguf *g,
                                            struct error *err);
void chat_template_destroy(struct chat_template *t);

/* Appends the prompt to *out. conversation: an array of messages, or an object with `messages` and whatever
 * else the template is to know: `tools`, `documents`, variables of its own, which also replace the special
 * tokens. As with Hugging Face, tools and documents that are not given are none. with_generation_prompt: the
 * prompt ends where the assistant's answer begins. `now` is the time that templates may tell the model.
 *
 * On failure *out is as before and err says where in the template, or what about the conversation, is wrong;
 * E_INVALID when the template refuses the conversation. */
MUST_CHECK enum status chat_apply(const struct chat_template *t, const json_t *conversation,
                                  bool with_generation_prompt, const struct tm *now, struct buffer *out,
                                  struct error *err);

#endif
