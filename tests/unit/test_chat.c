/* Chat templates: conversation in, prompt out. The templates are the project's own, each in the manner of a
 * family of models and with the constructs that family uses; the expected texts are those of Jinja2 3.1 as
 * Hugging Face sets it up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/unit/vocab_file.h"
#include "worker/token/chat.h"

/* Saturday, 26 July 2025, noon. */
static const struct tm now = {
    .tm_year = 125, .tm_mon = 6, .tm_mday = 26, .tm_hour = 12, .tm_wday = 6, .tm_yday = 206
};

struct example {
    const char *name, *conversation;
    bool with_generation_prompt;
    const char *wanted, *refusal; /* one of them */
};

/* A file with a vocabulary of three tokens and these templates, each of which may be NULL. */
struct subject {
    struct vocab_file file;
    struct gguf *g;
    struct chat_template *t;
};

static enum status open_subject(struct subject *x, const char *template, const char *tool_template,
                                struct error *err)
{
    *x = (struct subject){ 0 };
    vocab_file_add(&x->file, "<unk>", 0, 2);
    vocab_file_add(&x->file, "<s>", 0, 3);
    vocab_file_add(&x->file, "</s>", 0, 3);
    vocab_file_put_number(&x->file, "tokenizer.ggml.bos_token_id", 1);
    vocab_file_put_number(&x->file, "tokenizer.ggml.eos_token_id", 2);
    if (template)
        vocab_file_put_text(&x->file, "tokenizer.chat_template", template);
    if (tool_template)
        vocab_file_put_text(&x->file, "tokenizer.chat_template.tool_use", tool_template);
    vocab_file_finish(&x->file);
    if (gguf_open_memory(&x->g, x->file.bytes.data, x->file.bytes.len, err) != OK)
        fail_msg("%s", err->text);
    return chat_template_create(&x->t, x->g, err);
}

static void close_subject(struct subject *x)
{
    chat_template_destroy(x->t);
    gguf_close(x->g);
    vocab_file_fini(&x->file);
}

/* The prompt, or the error's text, in *out with a NUL behind it. */
static enum status apply(const struct subject *x, const char *conversation, bool with_generation_prompt,
                         struct buffer *out)
{
    struct error err = { 0 };
    json_t *j = json_loads(conversation, 0, NULL);

    assert_non_null(j);
    buffer_clear(out);
    enum status s = chat_apply(x->t, j, with_generation_prompt, &now, out, &err);
    if (s != OK)
        buffer_append(out, err.text, strlen(err.text));
    buffer_append(out, "", 1);
    json_decref(j);
    return s;
}

static void check_examples(const char *template, const struct example *examples, size_t n)
{
    struct subject x;
    struct error err;
    struct buffer out = { 0 };

    if (open_subject(&x, template, NULL, &err) != OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        const struct example *e = &examples[i];
        enum status s = apply(&x, e->conversation, e->with_generation_prompt, &out);
        bool is_right = e->wanted ? s == OK && !strcmp(out.data, e->wanted)
                                  : s == E_INVALID && strstr(out.data, e->refusal);
        if (!is_right)
            fail_msg("%s\n  gives  %s: %s\n  wanted %s", e->name, status_name(s), out.data,
                     e->wanted ? e->wanted : e->refusal);
    }
    buffer_fini(&out);
    close_subject(&x);
}

static const char im_turns[] =
    "{%- set has_system = messages[0].role == 'system' %}\n"
    "{%- if tools %}\n"
    "    {{- '<|turn|>system\\n' ~ (messages[0].content ~ '\\n\\n' if has_system else '') }}\n"
    "    {{- \"# Functions\\nOne JSON object per line:\" }}\n"
    "    {%- for tool in tools %}\n"
    "        {{- '\\n' }}\n"
    "        {{- tool | tojson }}\n"
    "    {%- endfor %}\n"
    "    {{- '\\nAnswer with <call>{\"name\": ..., \"arguments\": ...}</call>.<|end|>\\n' }}\n"
    "{%- elif has_system %}\n"
    "    {{- '<|turn|>system\\n' + messages[0].content + '<|end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n"
    "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.searching and message.role == 'user' and message.content is string and not "
    "(message.content.startswith('<result>') and message.content.endswith('</result>')) %}\n"
    "        {%- set ns.searching = false %}\n"
    "        {%- set ns.last_query = index %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- for message in messages %}\n"
    "    {%- set content = message.content if message.content is string else '' %}\n"
    "    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}\n"
    "        {{- '<|turn|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}\n"
    "    {%- elif message.role == 'assistant' %}\n"
    "        {%- set thought = '' %}\n"
    "        {%- if '</think>' in content %}\n"
    "            {%- set thought = "
    "content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
    "            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
    "        {%- endif %}\n"
    "        {{- '<|turn|>assistant\\n' }}\n"
    "        {%- if loop.index0 > ns.last_query and thought %}\n"
    "            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}\n"
    "        {%- endif %}\n"
    "        {{- content }}\n"
    "        {%- for call in message.tool_calls or [] %}\n"
    "            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{% endif %}\n"
    "            {%- if call.function %}{% set call = call.function %}{% endif %}\n"
    "            {{- '<call>{\"name\": \"' }}{{ call.name }}{{- '\", \"arguments\": ' }}\n"
    "            {%- if call.arguments is string %}{{ call.arguments }}{% else %}{{ call.arguments | tojson "
    "}}{% endif %}\n"
    "            {{- '}</call>' }}\n"
    "        {%- endfor %}\n"
    "        {{- '<|end|>\\n' }}\n"
    "    {%- elif message.role == 'tool' %}\n"
    "        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|turn|>user' }}{% endif "
    "%}\n"
    "        {{- '\\n<result>\\n' ~ content ~ '\\n</result>' }}\n"
    "        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|end|>\\n' }}{% endif %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|turn|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' "
    "}}{% endif %}\n"
    "{%- endif %}";

static const char inst[] =
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content'] %}\n"
    "    {%- set loop_messages = messages[1:] %}\n"
    "{%- else %}\n"
    "    {%- set loop_messages = messages %}\n"
    "{%- endif %}\n"
    "{{- bos_token }}\n"
    "{%- for message in loop_messages %}\n"
    "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n"
    "        {{- raise_exception('Turns must go user, assistant, user, assistant, ...') }}\n"
    "    {%- endif %}\n"
    "    {%- if message['role'] == 'user' %}\n"
    "        {%- if loop.last and system_message is defined %}\n"
    "            {{- '[INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}\n"
    "        {%- else %}\n"
    "            {{- '[INST] ' + message['content'] + ' [/INST]' }}\n"
    "        {%- endif %}\n"
    "    {%- elif message['role'] == 'assistant' %}\n"
    "        {{- ' ' + message['content'] | trim + eos_token }}\n"
    "    {%- else %}\n"
    "        {{- raise_exception('Only user and assistant roles are known, not ' + message['role']) }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}";

static const char headers[] =
    "{{- bos_token }}\n"
    "{%- if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') if strftime_now is "
    "defined else '26 Jul 2024' %}{% endif %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content']|trim %}\n"
    "    {%- set messages = messages[1:] %}\n"
    "{%- else %}\n"
    "    {%- set system_message = '' %}\n"
    "{%- endif %}\n"
    "{{- '<|head|>system<|/head|>\\n\\n' }}\n"
    "{%- if tools is not none %}{{- 'Environment: tools\\n' }}{% endif %}\n"
    "{{- 'Today: ' + date_string + '\\n\\n' }}\n"
    "{{- system_message }}\n"
    "{{- '<|eot|>' }}\n"
    "{%- if tools is not none %}\n"
    "    {%- if messages | length != 0 %}\n"
    "        {%- set first_user = messages[0]['content']|trim %}\n"
    "        {%- set messages = messages[1:] %}\n"
    "    {%- else %}\n"
    "        {{- raise_exception('There is no first user message to put the tools into') }}\n"
    "    {%- endif %}\n"
    "    {{- '<|head|>user<|/head|>\\n\\nTools:\\n\\n' }}\n"
    "    {%- for t in tools %}\n"
    "        {{- t | tojson(indent=4) }}\n"
    "        {{- '\\n\\n' }}\n"
    "    {%- endfor %}\n"
    "    {{- first_user + '<|eot|>' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}\n"
    "        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' + message['content'] | trim + '<|eot|>' "
    "}}\n"
    "    {%- elif 'tool_calls' in message %}\n"
    "        {%- if not message.tool_calls|length == 1 %}{{- raise_exception('One tool call at a time') }}{% "
    "endif %}\n"
    "        {%- set call = message.tool_calls[0].function %}\n"
    "        {{- '<|head|>assistant<|/head|>\\n\\n{\"name\": \"' + call.name + '\", \"parameters\": ' }}\n"
    "        {{- call.arguments | tojson }}{{- '}<|eot|>' }}\n"
    "    {%- else %}\n"
    "        {{- '<|head|>result<|/head|>\\n\\n' }}\n"
    "        {%- if message.content is mapping or message.content is iterable and message.content is not "
    "string %}\n"
    "            {{- message.content | tojson }}\n"
    "        {%- else %}{{- message.content }}{% endif %}\n"
    "        {{- '<|eot|>' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}\n";

static const char model_turns[] =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('The system role is not "
    "supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 "
    "% 2 == 0) %}{{ raise_exception('Turns must alternate') }}{% endif %}{% if (message['role'] == "
    "'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<turn>' "
    "+ role + '\\n' + message['content'] | trim + '</turn>\\n' }}{% endfor %}{% if add_generation_prompt "
    "%}{{'<turn>model\\n'}}{% endif %}";

static const char short_marks[] = "{% for message in messages %}\n"
                                  "{% if message['role'] == 'system' and message['content'] %}\n"
                                  "{{'<|system|>\n"
                                  "' + message['content'] + '<|end|>\n"
                                  "'}}\n"
                                  "{% elif message['role'] == 'user' %}\n"
                                  "{{'<|user|>\n"
                                  "' + message['content'] + '<|end|>\n"
                                  "'}}\n"
                                  "{% elif message['role'] == 'assistant' %}\n"
                                  "{% generation %}{{'<|assistant|>\n"
                                  "' + message['content'] + '<|end|>\n"
                                  "'}}{% endgeneration %}\n"
                                  "{% endif %}\n"
                                  "{% endfor %}\n"
                                  "{% if add_generation_prompt %}{{ '<|assistant|>\n"
                                  "' }}{% else %}{{ eos_token }}{% endif %}";

static const char documents[] =
    "{%- macro heading(name) %}{{ '<|role|>' ~ name ~ '<|/role|>' }}{% endmacro %}\n"
    "{%- macro type_of(schema, depth=0) %}\n"
    "    {%- if schema.type == 'object' %}\n"
    "        {{- '{' }}\n"
    "        {%- for name, part in schema.properties.items() %}\n"
    "            {{- name }}{{ '' if name in schema.required | default([]) else '?' }}: {{ type_of(part, "
    "depth=depth + 1) }}{{ ', ' if not loop.last }}\n"
    "        {%- endfor %}\n"
    "        {{- '}' }}\n"
    "    {%- elif schema.type == 'array' %}\n"
    "        {{- type_of(schema['items']) }}[]\n"
    "    {%- elif schema.enum is defined %}\n"
    "        {{- schema.enum | map('tojson') | join(' | ') }}\n"
    "    {%- else %}{{ schema.type }}{% endif %}\n"
    "{%- endmacro %}\n"
    "{%- set instructions = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | "
    "join('\\n') %}\n"
    "{{- heading('system') }}{{ instructions or 'Knowledge: today is ' ~ strftime_now('%B %-d, %Y') ~ '.' "
    "}}<|eos|>\n"
    "{% if tools %}{{ heading('tools') }}\n"
    "{% for tool in tools | map(attribute='function') | sort(attribute='name') %}\n"
    "{{ loop.index }}. {{ tool.name }}({{ type_of(tool.parameters) }}): {{ tool.description | default('-', "
    "true) | replace('\\n', ' ') }}\n"
    "{% endfor %}\n"
    "<|eos|>\n"
    "{% endif %}\n"
    "{% if documents %}{{ heading('documents') }}\n"
    "{% for document in documents %}\n"
    "[{{ document.id | default(loop.index0) }}] {{ document.title | title }}\n"
    "{{ document.text | indent(2, first=true) }}\n"
    "{% endfor %}\n"
    "<|eos|>\n"
    "{% endif %}\n"
    "{% for message in messages if message.role != 'system' %}\n"
    "{{ heading(message.role) }}{% if message.content is string %}{{ message.content | trim }}{% else %}{% "
    "for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}<{{ part.type }}>{% "
    "endif %}{% endfor %}{% endif %}<|eos|>\n"
    "{% if loop.last and add_generation_prompt %}{{ heading('assistant') }}{% endif %}\n"
    "{% endfor %}";

static void test_turns_between_marks_with_thoughts_and_tools(void **state)
{
    static const struct example examples[] = {
        { "one_message", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}", true,
          "<|turn|>user\n"
          "Hello<|end|>\n"
          "<|turn|>assistant\n",
          NULL },
        { "system_message_first",
          "{\"messages\": [{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", "
          "\"content\": \"Hi\\n\"}]}",
          true,
          "<|turn|>system\n"
          " Be kind. <|end|>\n"
          "<|turn|>user\n"
          "Hi\n"
          "<|end|>\n"
          "<|turn|>assistant\n",
          NULL },
        { "only_thoughts_since_the_last_question_stay",
          "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": "
          "\"q\"}, {\"role\": \"assistant\", \"content\": \"<think>\\nlong\\n</think>\\n\\nold\"}, "
          "{\"role\": \"user\", \"content\": \"r\"}, {\"role\": \"assistant\", \"content\": "
          "\"<think>\\nwhy\\n</think>\\n\\nnew\"}]}",
          false,
          "<|turn|>system\n"
          "S<|end|>\n"
          "<|turn|>user\n"
          "q<|end|>\n"
          "<|turn|>assistant\n"
          "old<|end|>\n"
          "<|turn|>user\n"
          "r<|end|>\n"
          "<|turn|>assistant\n"
          "<think>\n"
          "why\n"
          "</think>\n"
          "\n"
          "new<|end|>\n",
          NULL },
        { "tool_calls_and_results",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"weather?\"}, {\"role\": \"assistant\", "
          "\"content\": null, \"tool_calls\": [{\"id\": \"a1\", \"type\": \"function\", \"function\": "
          "{\"name\": \"weather\", \"arguments\": {\"city\": \"Z\303\274rich\", \"days\": [1, 2]}}}]}, "
          "{\"role\": \"tool\", \"content\": \"sunny\"}, {\"role\": \"tool\", \"content\": \"warm\"}, "
          "{\"role\": \"assistant\", \"content\": \"Sunny.\"}], \"tools\": [{\"type\": \"function\", "
          "\"function\": {\"name\": \"weather\", \"description\": \"Weather of a city \342\200\224 "
          "\\\"now\\\"\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": "
          "\"string\"}, \"days\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}, \"unit\": "
          "{\"enum\": [\"C\", \"F\"]}}, \"required\": [\"city\"]}}}]}",
          true,
          "<|turn|>system\n"
          "# Functions\n"
          "One JSON object per line:\n"
          "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Weather of a "
          "city \342\200\224 \\\"now\\\"\", \"parameters\": {\"type\": \"object\", \"properties\": "
          "{\"city\": {\"type\": \"string\"}, \"days\": {\"type\": \"array\", \"items\": {\"type\": "
          "\"integer\"}}, \"unit\": {\"enum\": [\"C\", \"F\"]}}, \"required\": [\"city\"]}}}\n"
          "Answer with <call>{\"name\": ..., \"arguments\": ...}</call>.<|end|>\n"
          "<|turn|>user\n"
          "weather?<|end|>\n"
          "<|turn|>assistant\n"
          "<call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Z\303\274rich\", \"days\": [1, "
          "2]}}</call><|end|>\n"
          "<|turn|>user\n"
          "<result>\n"
          "sunny\n"
          "</result>\n"
          "<result>\n"
          "warm\n"
          "</result><|end|>\n"
          "<|turn|>assistant\n"
          "Sunny.<|end|>\n"
          "<|turn|>assistant\n",
          NULL },
        { "a_variable_of_its_own_stops_the_thinking",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"enable_thinking\": false}", true,
          "<|turn|>user\n"
          "Hello<|end|>\n"
          "<|turn|>assistant\n"
          "<think>\n"
          "\n"
          "</think>\n"
          "\n",
          NULL },
    };

    (void)state;
    check_examples(im_turns, examples, sizeof examples / sizeof *examples);
}

static void test_instructions_in_brackets(void **state)
{
    static const struct example examples[] = {
        { "system_goes_to_the_last_question",
          "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": "
          "\"a\"}, {\"role\": \"assistant\", \"content\": \" b \"}, {\"role\": \"user\", \"content\": "
          "\"c\"}]}",
          true,
          "<s>[INST] a [/INST] b</s>[INST] S\n"
          "\n"
          "c [/INST]",
          NULL },
        { "turns_that_do_not_alternate_are_refused",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": "
          "\"b\"}]}",
          true, NULL, "Turns must go user, assistant, user, assistant, ..." },
        { "unknown_roles_are_refused",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"critic\", \"content\": "
          "\"b\"}]}",
          true, NULL, "Only user and assistant roles are known, not critic" },
    };

    (void)state;
    check_examples(inst, examples, sizeof examples / sizeof *examples);
}

static void test_turns_behind_headers_with_date_and_tools(void **state)
{
    static const struct example examples[] = {
        { "date_and_system",
          "{\"messages\": [{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", "
          "\"content\": \"Hi\\n\"}]}",
          true,
          "<s><|head|>system<|/head|>\n"
          "\n"
          "Today: 26 Jul 2025\n"
          "\n"
          "Be kind.<|eot|><|head|>user<|/head|>\n"
          "\n"
          "Hi<|eot|><|head|>assistant<|/head|>\n"
          "\n",
          NULL },
        { "date_given",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
          "\" b \"}, {\"role\": \"user\", \"content\": \"c\"}], \"date_string\": \"1 Jan 2001\"}",
          false,
          "<s><|head|>system<|/head|>\n"
          "\n"
          "Today: 1 Jan 2001\n"
          "\n"
          "<|eot|><|head|>user<|/head|>\n"
          "\n"
          "a<|eot|><|head|>assistant<|/head|>\n"
          "\n"
          "b<|eot|><|head|>user<|/head|>\n"
          "\n"
          "c<|eot|>",
          NULL },
        { "tools_go_to_the_first_question",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"weather?\"}, {\"role\": \"assistant\", "
          "\"content\": \"\", \"tool_calls\": [{\"id\": \"a1\", \"type\": \"function\", \"function\": "
          "{\"name\": \"weather\", \"arguments\": {\"city\": \"Z\303\274rich\", \"days\": [1, 2]}}}]}, "
          "{\"role\": \"tool\", \"content\": {\"t\": 20.5}}], \"tools\": [{\"type\": \"function\", "
          "\"function\": {\"name\": \"weather\", \"description\": \"Weather of a city \342\200\224 "
          "\\\"now\\\"\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": "
          "\"string\"}, \"days\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}, \"unit\": "
          "{\"enum\": [\"C\", \"F\"]}}, \"required\": [\"city\"]}}}]}",
          true,
          "<s><|head|>system<|/head|>\n"
          "\n"
          "Environment: tools\n"
          "Today: 26 Jul 2025\n"
          "\n"
          "<|eot|><|head|>user<|/head|>\n"
          "\n"
          "Tools:\n"
          "\n"
          "{\n"
          "    \"type\": \"function\",\n"
          "    \"function\": {\n"
          "        \"name\": \"weather\",\n"
          "        \"description\": \"Weather of a city \342\200\224 \\\"now\\\"\",\n"
          "        \"parameters\": {\n"
          "            \"type\": \"object\",\n"
          "            \"properties\": {\n"
          "                \"city\": {\n"
          "                    \"type\": \"string\"\n"
          "                },\n"
          "                \"days\": {\n"
          "                    \"type\": \"array\",\n"
          "                    \"items\": {\n"
          "                        \"type\": \"integer\"\n"
          "                    }\n"
          "                },\n"
          "                \"unit\": {\n"
          "                    \"enum\": [\n"
          "                        \"C\",\n"
          "                        \"F\"\n"
          "                    ]\n"
          "                }\n"
          "            },\n"
          "            \"required\": [\n"
          "                \"city\"\n"
          "            ]\n"
          "        }\n"
          "    }\n"
          "}\n"
          "\n"
          "weather?<|eot|><|head|>assistant<|/head|>\n"
          "\n"
          "{\"name\": \"weather\", \"parameters\": {\"city\": \"Z\303\274rich\", \"days\": [1, "
          "2]}}<|eot|><|head|>result<|/head|>\n"
          "\n"
          "{\"t\": 20.5}<|eot|><|head|>assistant<|/head|>\n"
          "\n",
          NULL },
    };

    (void)state;
    check_examples(headers, examples, sizeof examples / sizeof *examples);
}

static void test_alternating_turns_without_a_system(void **state)
{
    static const struct example examples[] = {
        { "conversation",
          "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
          "\" b \"}, {\"role\": \"user\", \"content\": \"c\"}]}",
          true,
          "<s><turn>user\n"
          "a</turn>\n"
          "<turn>model\n"
          "b</turn>\n"
          "<turn>user\n"
          "c</turn>\n"
          "<turn>model\n",
          NULL },
        { "system_is_refused",
          "{\"messages\": [{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", "
          "\"content\": \"Hi\\n\"}]}",
          true, NULL, "The system role is not supported" },
    };

    (void)state;
    check_examples(model_turns, examples, sizeof examples / sizeof *examples);
}

static void test_a_mark_per_role(void **state)
{
    static const struct example examples[] = {
        { "prompt",
          "{\"messages\": [{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", "
          "\"content\": \"Hi\\n\"}]}",
          true,
          "<|system|>\n"
          " Be kind. <|end|>\n"
          "\n"
          "<|user|>\n"
          "Hi\n"
          "<|end|>\n"
          "\n"
          "<|assistant|>\n",
          NULL },
        { "whole_conversation",
          "{\"messages\": [{\"role\": \"system\", \"content\": \" Be kind. \"}, {\"role\": \"user\", "
          "\"content\": \"Hi\\n\"}, {\"role\": \"assistant\", \"content\": \"Yes\"}]}",
          false,
          "<|system|>\n"
          " Be kind. <|end|>\n"
          "\n"
          "<|user|>\n"
          "Hi\n"
          "<|end|>\n"
          "\n"
          "<|assistant|>\n"
          "Yes<|end|>\n"
          "</s>",
          NULL },
    };

    (void)state;
    check_examples(short_marks, examples, sizeof examples / sizeof *examples);
}

static void test_macros_for_tools_and_documents(void **state)
{
    static const struct example examples[] = {
        { "tools_documents_and_parts",
          "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"What is \"}, "
          "{\"type\": \"image\"}, {\"type\": \"text\", \"text\": \"?\"}]}], \"tools\": [{\"type\": "
          "\"function\", \"function\": {\"name\": \"weather\", \"description\": \"Weather of a city "
          "\342\200\224 \\\"now\\\"\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": "
          "{\"type\": \"string\"}, \"days\": {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}, "
          "\"unit\": {\"enum\": [\"C\", \"F\"]}}, \"required\": [\"city\"]}}}], \"documents\": [{\"title\": "
          "\"on rain\", \"text\": \"It falls.\\nOften.\"}, {\"id\": \"x7\", \"title\": \"sun\", \"text\": "
          "\"It shines.\"}]}",
          true,
          "<|role|>system<|/role|>Knowledge: today is July 26, 2025.<|eos|>\n"
          "<|role|>tools<|/role|>\n"
          "1. weather({city: string, days?: integer[], unit?: \"C\" | \"F\"}): Weather of a city "
          "\342\200\224 \"now\"\n"
          "<|eos|>\n"
          "<|role|>documents<|/role|>\n"
          "[0] On Rain\n"
          "  It falls.\n"
          "  Often.\n"
          "[x7] Sun\n"
          "  It shines.\n"
          "<|eos|>\n"
          "<|role|>user<|/role|>What is <image>?<|eos|>\n"
          "<|role|>assistant<|/role|>",
          NULL },
        { "date_instead_of_system", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}", true,
          "<|role|>system<|/role|>Knowledge: today is July 26, 2025.<|eos|>\n"
          "<|role|>user<|/role|>Hello<|eos|>\n"
          "<|role|>assistant<|/role|>",
          NULL },
    };

    (void)state;
    check_examples(documents, examples, sizeof examples / sizeof *examples);
}

static void check_one(const char *template, const char *tool_template, const char *conversation,
                      enum status status, const char *wanted)
{
    struct subject x;
    struct error err;
    struct buffer out = { 0 };

    assert_int_equal(open_subject(&x, template, tool_template, &err), OK);
    assert_int_equal(apply(&x, conversation, true, &out), status);
    assert_string_equal(out.data, wanted);
    buffer_fini(&out);
    close_subject(&x);
}

static void test_an_array_of_messages_is_a_conversation(void **state)
{
    (void)state;
    check_one("{{ bos_token }}{{ messages[0].content }}{{ tools }}{{ documents }}{{ add_generation_prompt }}",
              NULL, "[{\"role\": \"user\", \"content\": \"Hi\"}]", OK, "<s>HiNoneNoneTrue");
}

static void test_tokens_that_the_file_does_not_name_are_empty(void **state)
{
    (void)state;
    check_one("[{{ pad_token + '' }}]", NULL, "[]", OK, "[]");
}

static void test_a_conversation_may_replace_a_special_token(void **state)
{
    (void)state;
    check_one("{{ bos_token }}", NULL, "{\"messages\": [], \"bos_token\": \"!\"}", OK, "!");
}

static void test_the_template_for_tools_serves_only_conversations_with_tools(void **state)
{
    (void)state;
    check_one("plain", "{{ tools|length }} tools", "{\"messages\": [], \"tools\": [{}]}", OK, "1 tools");
    check_one("plain", "{{ tools|length }} tools", "{\"messages\": [], \"tools\": []}", OK, "plain");
    check_one("plain", "{{ tools|length }} tools", "[]", OK, "plain");
}

static void test_what_is_no_conversation_is_refused(void **state)
{
    static const char wanted[] =
        "a conversation is an array of messages, or an object with one named \"messages\"";

    (void)state;
    check_one("x", NULL, "{\"message\": []}", E_INVALID, wanted);
    check_one("x", NULL, "[{\"role\": \"user\"}, 5]", E_INVALID, "messages[1] is no object with a \"role\"");
    check_one("x", NULL, "[{\"content\": \"a\"}]", E_INVALID, "messages[0] is no object with a \"role\"");
}

static void test_an_error_of_the_template_says_where(void **state)
{
    (void)state;
    check_one("{{ messages[0].content }}\n{{ nothing.here }}", NULL, "[{\"role\": \"user\"}]", E_INVALID,
              "chat template: line 2, column 12: 'nothing' is undefined");
}

static void test_a_file_without_template_says_so(void **state)
{
    struct subject x;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(open_subject(&x, NULL, NULL, &err), E_NOTFOUND);
    assert_non_null(strstr(err.text, "has no chat template (tokenizer.chat_template)"));
    assert_null(x.t);
    close_subject(&x);
}

static void test_a_broken_template_is_named_by_its_key(void **state)
{
    struct subject x;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(open_subject(&x, "fine", "a\n{% if %}", &err), E_FORMAT);
    assert_string_equal(err.text,
                        "tokenizer.chat_template.tool_use: line 2, column 7: expected an expression, "
                        "found the end of the tag");
    close_subject(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_between_marks_with_thoughts_and_tools),
        cmocka_unit_test(test_instructions_in_brackets),
        cmocka_unit_test(test_turns_behind_headers_with_date_and_tools),
        cmocka_unit_test(test_alternating_turns_without_a_system),
        cmocka_unit_test(test_a_mark_per_role),
        cmocka_unit_test(test_macros_for_tools_and_documents),
        cmocka_unit_test(test_an_array_of_messages_is_a_conversation),
        cmocka_unit_test(test_tokens_that_the_file_does_not_name_are_empty),
        cmocka_unit_test(test_a_conversation_may_replace_a_special_token),
        cmocka_unit_test(test_the_template_for_tools_serves_only_conversations_with_tools),
        cmocka_unit_test(test_what_is_no_conversation_is_refused),
        cmocka_unit_test(test_an_error_of_the_template_says_where),
        cmocka_unit_test(test_a_file_without_template_says_so),
        cmocka_unit_test(test_a_broken_template_is_named_by_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
