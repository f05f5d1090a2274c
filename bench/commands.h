/* The subcommands of woolly-bench, one file each. A command gets its own name as argv[0] and returns the exit
 * status. What it was asked for goes to standard output; all else, one line at a time, to standard error. */
#ifndef WOOLLY_BENCH_COMMANDS_H
#define WOOLLY_BENCH_COMMANDS_H

int command_engine(int argc, char **argv);
int command_kernels(int argc, char **argv);
int command_load(int argc, char **argv);

/* "woolly-bench engine: ..." and where help is to be had, on standard error; returns EXIT_USAGE. */
int command_misused(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
