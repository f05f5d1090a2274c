#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/process.h"
#include "proto/cli/cli.h"

void external_exec(const char *name, char **argv, bool only_ours)
{
    char folder[3000], path[4000];

    if (strchr(name, '/')) /* a path is no command */
        return;
    if (process_folder(folder, sizeof folder) == OK) {
        snprintf(path, sizeof path, "%s/%s", folder, name);
        execv(path, argv);
    }
    if (!only_ours)
        execvp(name, argv);
}
