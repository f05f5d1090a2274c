/* Any bytes as a configuration file: settings or an error with a line, and never both a bad end and a good
 * one. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct config config;
    char program[] = "woolly-broker", option[] = "--config", path[40];
    char workers[] = "--workers=1",
         threads[] = "--threads=1"; /* chosen, so that nobody looks at the machine */
    char *argv[] = { program, option, path, workers, threads, NULL };
    struct error err = { .text = "" };

    int fd = memfd_create("config", 0);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if ((config_parse(&config, 5, argv, &err) == OK) != !err.text[0])
        abort();
    config_fini(&config);
    close(fd);
    return 0;
}
