/* The subcommands of woolly-gguf, one file each. A command gets its own name as argv[0] and returns the exit
 * status. What it was asked for goes to standard output; all else, one line at a time, to standard error. */
#ifndef WOOLLY_TOOLS_COMMANDS_H
#define WOOLLY_TOOLS_COMMANDS_H

#include "common/status.h"

int command_chat(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_detokenize(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_perplexity(int argc, char **argv);
int command_quantize(int argc, char **argv);

/* "woolly-gguf: inspect: ..." and where help is to be had, on standard error; returns EXIT_USAGE. */
int command_misused(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "woolly-gguf: ..." on standard error; returns EXIT_FAILURE. */
int command_failed(const struct error *err);

/* The last thing of a command that printed its answer: EXIT_SUCCESS if all of it reached standard output. */
int command_done(void);

#endif
