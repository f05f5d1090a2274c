/* Keys for connections between machines (CURVE: Curve25519, as ZeroMQ has it). A key file holds a pair and is
 * for its owner only; the public key, 40 printable characters, is what others are told. */
#ifndef WOOLLY_PROTO_KEYS_H
#define WOOLLY_PROTO_KEYS_H

#include <stdbool.h>

#include "common/status.h"

enum { KEY_TEXT = 41 }; /* 32 bytes in the letters of Z85, and a zero */

struct key_pair {
    char public_key[KEY_TEXT], secret_key[KEY_TEXT];
};

/* What the end of a connection that calls the other needs. */
struct peer_keys {
    struct key_pair own;
    char server[KEY_TEXT]; /* public, of whom we want to reach */
};

/* Makes a pair and the file, mode 0600, which must not exist. */
MUST_CHECK enum status keys_make(const char *path, struct key_pair *pair, struct error *err);

/* Refuses a file that others can read, and one whose two keys do not belong together. */
MUST_CHECK enum status keys_read(const char *path, struct key_pair *pair, struct error *err);

/* Whether the text can be a public key. */
bool key_is_well_formed(const char *text);

/* From what a user gave, flag by flag or else in the environment ($WOOLLY_KEY, $WOOLLY_SERVER_KEY); the flags
 * may be NULL. *is_given tells whether there were any: both or none. */
MUST_CHECK enum status keys_find(const char *key_file, const char *server_key, struct peer_keys *keys,
                                 bool *is_given, struct error *err);

#endif
