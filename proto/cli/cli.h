/* The command line `woolly`: what its commands share. Each command is one file with one function of the shape
 * below; its result is the exit status. Usage errors print one line and end the program with status 2. */
#ifndef WOOLLY_CLI_CLI_H
#define WOOLLY_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/woolly.h"

enum { ANSWER_MS = 5000 }; /* how long a server may take to answer a question */

/* argv[0] is "woolly NAME". */
int command_run(int argc, char **argv);
int command_list(int argc, char **argv);
int command_stats(int argc, char **argv);
int command_stop(int argc, char **argv);
int command_keygen(int argc, char **argv);

/* ---- options.c ---- */

/* Prints the line, and how to get help, and exits. */
void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The value of option `name`, within the bounds, or usage_error. */
uint64_t option_integer(const char *name, const char *text, uint64_t min, uint64_t max);
float option_float(const char *name, const char *text, float min, float max);

/* --key FILE and --server-key KEY: with what the next connection is encrypted. */
void option_key(const char *file);
void option_server_key(const char *key);

/* For commands that take no more than these. */
struct common_options {
    const char *endpoint; /* NULL: the default */
    bool wants_json;
};
void common_options_parse(struct common_options *o, int argc, char **argv);

/* ---- connect.c ---- */

/* Connects, or prints why not and what to do, and returns the exit status: 0, 1 or 3. */
int connect_to_server(struct woolly **w, const char *endpoint);

/* Prints the failure of a call of libwoolly; returns the exit status. */
int report_failure(const struct woolly_error *err);

/* ---- external.c ---- */

/* Becomes the program `name` from our own folder, else, unless only there, from PATH. Returns only when there
 * is none. */
void external_exec(const char *name, char **argv, bool only_ours);

#endif
