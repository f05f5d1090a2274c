/* woolly keygen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/cli/cli.h"
#include "proto/keys.h"

int command_keygen(int argc, char **argv)
{
    struct key_pair pair;
    struct error err;

    if (argc != 2 || argv[1][0] == '-')
        usage_error("%s takes one argument, the file to make", argv[0]);
    if (keys_make(argv[1], &pair, &err) != OK) {
        fprintf(stderr, "woolly: %s\n", err.text);
        return EXIT_FAILURE;
    }
    explicit_bzero(pair.secret_key, sizeof pair.secret_key);
    puts(pair.public_key);
    return EXIT_SUCCESS;
}
