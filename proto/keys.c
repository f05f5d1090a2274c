#include "proto/keys.h"

#include <bsd/string.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

static const char file_head[] =
    "# A key pair of Woolly. Whoever has this file is its owner: keep it secret.\n";

enum status keys_make(const char *path, struct key_pair *pair, struct error *err)
{
    if (zmq_curve_keypair(pair->public_key, pair->secret_key) != 0)
        return error_set(err, E_UNSUPPORTED, "this ZeroMQ has no encryption (CURVE)");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_errno(err, "cannot make the key file %s", path);
    bool ok = dprintf(fd, "%spublic %s\nsecret %s\n", file_head, pair->public_key, pair->secret_key) > 0 &&
              fsync(fd) == 0;
    if (close(fd) != 0 || !ok) {
        error_errno(err, "cannot write the key file %s", path);
        unlink(path);
        return E_IO;
    }
    return OK;
}

bool key_is_well_formed(const char *text)
{
    unsigned char bytes[32]; /* 4 for every 5 letters */
    return strlen(text) == KEY_TEXT - 1 && zmq_z85_decode(bytes, text) != NULL;
}

static FILE *open_secret(const char *path, struct error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0)
        error_errno(err, "cannot read the key file %s", path);
    else if (!S_ISREG(st.st_mode))
        error_set(err, E_INVALID, "cannot read the key file %s: it is not a file", path);
    else if (st.st_mode & 077)
        error_set(err, E_INVALID, "the key file %s can be read by others: chmod 600 %s, or better a new key",
                  path, path);
    else
        return fdopen(fd, "r");
    if (fd >= 0)
        close(fd);
    return NULL;
}

static bool take_line(struct key_pair *pair, char *line)
{
    line[strcspn(line, "\n")] = 0;
    if (!*line || *line == '#')
        return true;
    if (!strncmp(line, "public ", 7) && key_is_well_formed(line + 7))
        return strlcpy(pair->public_key, line + 7, KEY_TEXT) < KEY_TEXT;
    if (!strncmp(line, "secret ", 7) && key_is_well_formed(line + 7))
        return strlcpy(pair->secret_key, line + 7, KEY_TEXT) < KEY_TEXT;
    return false;
}

enum status keys_read(const char *path, struct key_pair *pair, struct error *err)
{
    char line[128], derived[KEY_TEXT];
    int number = 0;
    enum status s = OK;

    *pair = (struct key_pair){ 0 };
    FILE *f = open_secret(path, err);
    if (!f)
        return err ? err->status : E_IO;
    while (s == OK && fgets(line, sizeof line, f)) {
        number++;
        if (!take_line(pair, line))
            s = error_set(err, E_FORMAT, "%s:%d: neither \"public KEY\" nor \"secret KEY\" with 40 letters",
                          path, number);
    }
    explicit_bzero(line, sizeof line);
    fclose(f);
    if (s == OK && (!pair->secret_key[0] || !pair->public_key[0]))
        s = error_set(err, E_FORMAT, "%s has no key pair (woolly keygen makes such files)", path);
    if (s == OK &&
        (zmq_curve_public(derived, pair->secret_key) != 0 || strcmp(derived, pair->public_key) != 0))
        s = error_set(err, E_FORMAT, "%s: its two keys do not belong together", path);
    return s;
}

static const char *flag_or_environment(const char *flag, const char *name)
{
    const char *value = flag ? flag : getenv(name);
    return value && *value ? value : NULL;
}

enum status keys_find(const char *key_file, const char *server_key, struct peer_keys *keys, bool *is_given,
                      struct error *err)
{
    *keys = (struct peer_keys){ 0 };
    key_file = flag_or_environment(key_file, "WOOLLY_KEY");
    server_key = flag_or_environment(server_key, "WOOLLY_SERVER_KEY");
    *is_given = key_file && server_key;
    if (!key_file && !server_key)
        return OK;
    if (!key_file || !server_key)
        return error_set(
            err, E_INVALID,
            "an encrypted connection needs both: the file of our own key (--key) and the server's "
            "public key (--server-key)");
    if (!key_is_well_formed(server_key))
        return error_set(err, E_INVALID, "--server-key: \"%s\" is no public key of 40 letters", server_key);
    strlcpy(keys->server, server_key, sizeof keys->server);
    return keys_read(key_file, &keys->own, err);
}
