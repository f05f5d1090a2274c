/* woolly: the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/status.h"
#include "common/xalloc.h"
#include "proto/cli/cli.h"

struct command {
    const char *name;
    const char *arguments;
    const char *summary;
    const char *details;
    int (*run)(int argc, char **argv); /* NULL: `program` does it */
    const char *program;
};

#define ENDPOINT_HELP                                                                                        \
    "  --endpoint E       where the server listens (default: $WOOLLY_ENDPOINT, else your running server)\n"  \
    "  --key FILE         our key, for a server on another machine (default: $WOOLLY_KEY)\n"                 \
    "  --server-key KEY   the public key of that server, in quotes (default: $WOOLLY_SERVER_KEY)\n"
#define JSON_HELP "  --json             one JSON object on standard output\n"

static const struct command commands[] = {
    { .name = "serve",
      .arguments = "--model NAME=PATH ... [OPTION ...]",
      .summary = "start a server (see `woolly serve --help`)",
      .program = "woolly-broker" },
    { .name = "run",
      .arguments = "MODEL PROMPT [OPTION ...]",
      .summary = "complete a prompt",
      .details = "MODEL is the name of a model of the server, or the path of a .gguf file. For a path that "
                 "no running\n"
                 "server has, a server is started for this one run. PROMPT may be - for standard input.\n\n"
                 "  -n N               at most N tokens (128, or fewer where the context ends)\n"
                 "  --n N              N answers, one after the other (1)\n"
                 "  --temperature T    0 takes the most likely token always (0)\n"
                 "  --top-k K          choose among the K most likely tokens (0: all)\n"
                 "  --top-p P          choose among the smallest set with this probability (1)\n"
                 "  --min-p P          drop what is less likely than this share of the likeliest (0)\n"
                 "  --seed S           the same seed gives the same text (drawn; --json tells it)\n"
                 "  --stop TEXT        end before TEXT appears; may be given 16 times\n"
                 "  --logprobs N       with --json: log-probabilities, with N alternatives per token\n"
                 "  --deadline MS      give up after so many milliseconds\n" JSON_HELP ENDPOINT_HELP,
      .run = command_run },
    { .name = "list",
      .arguments = "[--json] [--endpoint E]",
      .summary = "the models of the server",
      .details = JSON_HELP ENDPOINT_HELP,
      .run = command_list },
    { .name = "stats",
      .arguments = "[--json] [--endpoint E]",
      .summary = "what the server and its workers have done and do",
      .details = JSON_HELP ENDPOINT_HELP,
      .run = command_stats },
    { .name = "stop",
      .arguments = "[--endpoint E]",
      .summary = "stop the server: running requests are finished first",
      .details = ENDPOINT_HELP,
      .run = command_stop },
    { .name = "keygen",
      .arguments = "FILE",
      .summary = "make a key for connections between machines",
      .details =
          "Writes a new key pair into FILE, which must not exist and only its owner can read, and prints "
          "the\n"
          "public key. Give FILE to --key of the program that the key is for: `woolly serve`,\n"
          "`woolly-worker` or `woolly`. The public key of a server is what others give to --server-key; the\n"
          "public key of a client or worker stands in the file that the server gets as --allow:\n\n"
          "  client NAME KEY\n"
          "  worker NAME KEY\n",
      .run = command_keygen },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static void print_help(FILE *to)
{
    fputs("usage: woolly COMMAND [ARGUMENT ...]\n\n", to);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("  help X     about command X; also woolly X --help\n\n"
          "`woolly X` runs the program woolly-X when there is no command X.\n"
          "Exit status: 0 success, 1 failure, 2 wrong usage, 3 no server can be reached.\n",
          to);
}

static int print_command_help(const struct command *c)
{
    printf("usage: woolly %s %s\n\n%s\n\n%s", c->name, c->arguments, c->summary, c->details);
    return EXIT_SUCCESS;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    return false;
}

static int run_external(const char *program, char **argv, bool only_ours)
{
    char *name = argv[0];
    argv[0] = (char *)program; /* the name under which it complains */
    external_exec(program, argv, only_ours);
    if (only_ours) {
        fprintf(stderr, "woolly: cannot run %s: it belongs in the folder of this program\n", program);
        return EXIT_FAILURE;
    }
    fprintf(stderr, "woolly: there is no command \"%s\" and no program %s (see woolly --help)\n", name,
            program);
    return EXIT_USAGE;
}

/* What was printed has arrived, or the command failed. */
static int finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_SUCCESS;
    fprintf(stderr, "woolly: cannot write to standard output\n");
    return EXIT_FAILURE;
}

/* argv[0] is the command's name. */
static int run_command(int argc, char **argv)
{
    const struct command *c = find_command(argv[0]);
    if (c && c->run && asks_for_help(argc, argv))
        return print_command_help(c);
    if (c && c->run) {
        char *name = xasprintf("woolly %s", argv[0]);
        argv[0] = name;
        int status = c->run(argc, argv);
        free(name);
        return status == EXIT_SUCCESS ? finish_output() : status;
    }
    if (c)
        return run_external(c->program, argv, true);
    char *program = xasprintf("woolly-%s", argv[0]);
    int status = run_external(program, argv, false);
    free(program);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    bool is_help_word = !strcmp(argv[1], "help");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || (is_help_word && argc == 2)) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("woolly " WOOLLY_VERSION);
        return EXIT_SUCCESS;
    }
    if (is_help_word) {
        char option[] = "--help";
        char *about[] = { argv[2], option, NULL };
        return run_command(2, about);
    }
    if (argv[1][0] == '-') {
        fprintf(stderr, "woolly: no option %s before the command (see woolly --help)\n", argv[1]);
        return EXIT_USAGE;
    }
    return run_command(argc - 1, argv + 1);
}
