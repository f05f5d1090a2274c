/* woolly.yaml as a list of settings. It knows YAML and the shape of the file, not what the settings mean:
 *
 *     SECTION:            models:
 *       KEY: VALUE          - KEY: VALUE
 *
 * An error names file, line and key. (The tree of libyaml and one table of settings, which is that of the
 * command line too, instead of a library with a schema of its own: so a value out of range has a line like
 * any other mistake has.) */
#ifndef WOOLLY_BROKER_CONFIG_FILE_H
#define WOOLLY_BROKER_CONFIG_FILE_H

#include "common/status.h"

struct config_sink {
    void *context;

    /* One setting. After those of each model comes one with `key` NULL, in which something may be missing.
     * The texts end with the call. */
    enum status (*take)(void *context, const char *section, const char *key, const char *value,
                        struct error *err);
};

/* Stops at the first error, the sink's included. */
MUST_CHECK enum status config_file_read(const char *path, const struct config_sink *sink, struct error *err);

#endif
