#include <stdio.h>
#include <stdlib.h>

#include "common/status.h"
#include "proto/cli/cli.h"
#include "proto/cli/terminal.h"

int report_failure(const struct woolly_error *err)
{
    char text[sizeof err->text];
    terminal_clean(err->text, text, sizeof text);
    fprintf(stderr, "woolly: %s\n", text);
    return err->status == WOOLLY_UNREACHABLE ? EXIT_UNREACHABLE : EXIT_FAILURE;
}

int connect_to_server(struct woolly **w, const char *endpoint)
{
    struct woolly_error err;
    if (woolly_connect(w, endpoint, &err) == WOOLLY_OK)
        return EXIT_SUCCESS;
    return report_failure(&err);
}
