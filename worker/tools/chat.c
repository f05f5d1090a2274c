/* woolly-gguf chat: the prompt that a conversation becomes by a model file's chat template. */
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/model/gguf.h"
#include "worker/token/chat.h"
#include "worker/tools/commands.h"

struct request {
    bool as_json, no_generation_prompt, help;
    const char *model, *messages;
};

/* Returns EXIT_SUCCESS or what command_misused returned. */
static int read_arguments(struct request *r, int argc, char **argv)
{
    static const struct option all[] = {
        { "json", no_argument, NULL, 'j' },
        { "no-generation-prompt", no_argument, NULL, 'n' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };

    *r = (struct request){ 0 };
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "h", all, NULL)) >= 0;) {
        if (option == 'j')
            r->as_json = true;
        else if (option == 'n')
            r->no_generation_prompt = true;
        else if (option == 'h')
            r->help = true;
        else
            return command_misused(argv[0], "there is no option %s", argv[optind - 1]);
    }
    if (r->help)
        return EXIT_SUCCESS;
    if (argc - optind != 2)
        return command_misused(argv[0], "expected a model file and a file of messages");
    r->model = argv[optind];
    r->messages = argv[optind + 1];
    return EXIT_SUCCESS;
}

static enum status read_messages(const char *path, json_t **out, struct error *err)
{
    bool is_standard = !strcmp(path, "-");
    FILE *f = is_standard ? stdin : fopen(path, "r");
    json_error_t where;

    if (!f)
        return error_errno(err, "cannot open %s", path);
    const char *shown = is_standard ? "standard input" : path;
    enum status s = OK;
    *out = json_loadf(f, 0, &where);
    if (!*out && ferror(f)) /* a folder, for one, opens but cannot be read */
        s = error_set(err, E_IO, "cannot read %s", shown);
    else if (!*out)
        s = error_set(err, E_FORMAT, "%s: line %d, column %d: %s", shown, where.line, where.column,
                      where.text);
    if (!is_standard)
        fclose(f);
    return s;
}

static enum status make_prompt(const struct request *r, const json_t *messages, struct buffer *out,
                               struct error *err)
{
    struct gguf *g = NULL;
    struct chat_template *t = NULL;
    time_t seconds = time(NULL);
    struct tm now;
    enum status s;

    localtime_r(&seconds, &now);
    if ((s = gguf_open(&g, r->model, err)) == OK && (s = chat_template_create(&t, g, err)) == OK)
        s = chat_apply(t, messages, !r->no_generation_prompt, &now, out, err);
    chat_template_destroy(t);
    gguf_close(g);
    return s;
}

static void print_prompt(const struct buffer *prompt, bool as_json)
{
    if (!as_json) {
        fwrite(prompt->data, 1, prompt->len, stdout);
        return;
    }
    json_t *answer = json_pack("{s:s%}", "prompt", prompt->len ? prompt->data : "", prompt->len);
    json_dumpf(answer, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(answer);
}

int command_chat(int argc, char **argv)
{
    struct request r;
    struct buffer prompt = { 0 };
    struct error err = { 0 };
    json_t *messages = NULL;
    int status = read_arguments(&r, argc, argv);

    if (status != EXIT_SUCCESS)
        return status;
    if (r.help) {
        printf("Usage: woolly-gguf chat FILE MESSAGES.json [--json] [--no-generation-prompt]\n"
               "Prints the prompt that a conversation becomes by the chat template of FILE.\n"
               "MESSAGES.json (\"-\": standard input) is an array of messages like\n"
               "  [{\"role\": \"user\", \"content\": \"Hello\"}]\n"
               "or an object with messages, tools, documents and variables of the template's own.\n"
               "  --json                  as an object: {\"prompt\": TEXT}\n"
               "  --no-generation-prompt  without the beginning of the assistant's answer\n");
        return command_done();
    }
    if (read_messages(r.messages, &messages, &err) != OK || make_prompt(&r, messages, &prompt, &err) != OK) {
        status = command_failed(&err);
    } else {
        print_prompt(&prompt, r.as_json);
        status = command_done();
    }
    json_decref(messages);
    buffer_fini(&prompt);
    return status;
}
