/* woolly-bench: measures the engine, the kernels, the machine, and servers under load. What it runs is other
 * programs of ours, and of others: measuring takes a process that does nothing else. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/report.h"
#include "common/status.h"

static const struct command_row {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    { "engine", command_engine, "prefill and decode of a model in tokens per second, also against a peer" },
    { "kernels", command_kernels, "products and attention beside what the machine can do" },
    { "load", command_load, "a server with many users: tokens per second and how long each waits" },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(void)
{
    puts("usage: woolly-bench COMMAND [OPTION ...]\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].summary);
    puts("\n`woolly-bench COMMAND --help` says more.\n"
         "Exit status: 0 success, 1 failure, 2 wrong usage, 3 server unreachable, 4 not measurable.");
}

int command_misused(const char *command, const char *format, ...)
{
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "woolly-bench %s: %s (see woolly-bench %s --help)\n", command, text, command);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "woolly-bench: no command given (see woolly-bench --help)\n");
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help();
        return report_done();
    }
    if (!strcmp(argv[1], "--version")) {
        puts("woolly-bench " WOOLLY_VERSION);
        return report_done();
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "woolly-bench: there is no command \"%s\" (see woolly-bench --help)\n", argv[1]);
    return EXIT_USAGE;
}
