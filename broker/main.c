/* woolly-broker, which `woolly serve` runs: options, then the supervisor and what it starts. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/supervisor.h"
#include "common/process.h"

int main(int argc, char **argv, char **envp)
{
    static struct config config; /* too large for a stack */
    struct error err;

    process_init(argc, argv, envp);
    if (config_parse(&config, argc, argv, &err) != OK)
        errx(EXIT_USAGE, "%s (see --help)", err.text);
    if (config.wants_help) {
        fputs(config_help, stdout);
        return EXIT_SUCCESS;
    }
    if (config.wants_version) {
        puts("woolly-broker " WOOLLY_VERSION);
        return EXIT_SUCCESS;
    }
    log_init("supervisor", config.log_level);
    if (config_check_files(&config, &err) != OK)
        errx(EXIT_FAILURE, "%s", err.text);
    return supervisor_run(&config);
}
