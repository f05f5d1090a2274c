/* woolly-gguf: looks into model files and runs them without a server. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/tools/commands.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments;
    const char *summary;
} commands[] = {
    { "inspect", command_inspect, "FILE [--json]", "show metadata and tensors" },
    { "tokenize", command_tokenize, "FILE [--json] [--no-bos] [--special] TEXT", "show a text's tokens" },
    { "detokenize", command_detokenize, "FILE IDS [--json]", "show the text of tokens" },
    { "chat", command_chat, "FILE MESSAGES.json [--json] [--no-generation-prompt]",
      "show the prompt a conversation becomes" },
    { "logits", command_logits, "FILE --tokens IDS --out OUT [--all]",
      "write what the model says after tokens" },
    { "generate", command_generate, "FILE -p TEXT [-n N] [--chat] [--json]",
      "continue a text, or answer it" },
    { "perplexity", command_perplexity, "FILE TEXTFILE [--json]", "measure how well the model knows a text" },
    { "quantize", command_quantize, "IN OUT TYPE [--threads N] [--json]",
      "write a model in another weight type" },
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void)
{
    printf("Looks into GGUF model files and runs them without a server.\n\nUsage:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  woolly-gguf %s %s\n        %s\n", commands[i].name, commands[i].arguments,
               commands[i].summary);
    printf("\nAny part of a split model stands for all of it. `woolly-gguf COMMAND --help` says more.\n"
           "Exit status: 0 success, 1 failure, 2 wrong usage.\n");
}

int command_misused(const char *command, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "woolly-gguf: %s: %s (see woolly-gguf %s --help)\n", command, text, command);
    return EXIT_USAGE;
}

int command_failed(const struct error *err)
{
    fprintf(stderr, "woolly-gguf: %s\n", err->text);
    return EXIT_FAILURE;
}

int command_done(void)
{
    if (!fflush(stdout) && !ferror(stdout))
        return EXIT_SUCCESS;
    fprintf(stderr, "woolly-gguf: cannot write to standard output: %s\n", strerror(errno));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "woolly-gguf: no command given (see woolly-gguf --help)\n");
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help();
        return command_done();
    }
    if (!strcmp(argv[1], "--version")) {
        printf("woolly-gguf " WOOLLY_VERSION "\n");
        return command_done();
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "woolly-gguf: there is no command \"%s\" (see woolly-gguf --help)\n", argv[1]);
    return EXIT_USAGE;
}
