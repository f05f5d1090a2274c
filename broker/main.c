/* woolly-broker, which `woolly serve` runs: options, then the supervisor and what it starts. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/supervisor.h"
#include "common/process.h"

static int say_good(const struct config *c)
{
    printf("woolly: the settings are good: %d model%s, %u worker%s each with %u thread%s\n", c->n_models,
           c->n_models == 1 ? "" : "s", c->workers, c->workers == 1 ? "" : "s", c->threads,
           c->threads == 1 ? "" : "s");
    return EXIT_SUCCESS;
}

int main(int argc, char **argv, char **envp)
{
    static struct config config; /* too large for a stack */
    struct error err;

    process_init(argc, argv, envp);
    process_harden();
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
    if (config.wants_check)
        return say_good(&config);
    int status = supervisor_run(&config);
    config_fini(&config);
    return status;
}
