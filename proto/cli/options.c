#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/status.h"
#include "proto/cli/cli.h"

void usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("woolly: ", stderr);
    vfprintf(stderr, format, args);
    fputs(" (see woolly --help)\n", stderr);
    va_end(args);
    exit(EXIT_USAGE);
}

uint64_t option_integer(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < min || value > max)
        usage_error("%s: \"%s\" is no whole number from %llu to %llu", name, text, (unsigned long long)min,
                    (unsigned long long)max);
    return value;
}

float option_float(const char *name, const char *text, float min, float max)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < (double)min || value > (double)max)
        usage_error("%s: \"%s\" is no number from %g to %g", name, text, (double)min, (double)max);
    return (float)value;
}

/* The library looks there. */
static void override(const char *variable, const char *value)
{
    if (setenv(variable, value, 1) != 0)
        usage_error("out of memory");
}

void option_key(const char *file)
{
    override("WOOLLY_KEY", file);
}

void option_server_key(const char *key)
{
    override("WOOLLY_SERVER_KEY", key);
}

void common_options_parse(struct common_options *o, int argc, char **argv)
{
    static const struct option options[] = { { "endpoint", required_argument, NULL, 'e' },
                                             { "key", required_argument, NULL, 'k' },
                                             { "server-key", required_argument, NULL, 's' },
                                             { "json", no_argument, NULL, 'j' },
                                             { 0 } };
    int c;

    *o = (struct common_options){ 0 };
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'e':
            o->endpoint = optarg;
            break;
        case 'k':
            option_key(optarg);
            break;
        case 's':
            option_server_key(optarg);
            break;
        case 'j':
            o->wants_json = true;
            break;
        default:
            exit(EXIT_USAGE); /* getopt has said why */
        }
    }
    if (optind < argc)
        usage_error("%s takes no argument \"%s\"", argv[0], argv[optind]);
}
