#include "proto/wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <bsd/string.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/messages.h"

/* Messages per peer that ZeroMQ may hold. The real bounds are the broker's queue and its per-client limit;
 * these only keep a stuck peer from taking memory. */
enum { HIGH_WATER = 1000, HANDSHAKE_MS = 5000, ZMTP_BEAT_MS = 2000, ZMTP_DEAD_MS = 6000, BACKLOG = 1024 };

/* A packet that gets lost must not hold up a new try for minutes, nor a peer that vanished keep its socket
 * for hours: the kernel asks after KEEPALIVE_IDLE_S of silence, and gives up after three unanswered times. */
enum { CONNECT_MS = 3000, KEEPALIVE_IDLE_S = 30, KEEPALIVE_INTERVAL_S = 10, KEEPALIVE_TRIES = 3 };

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

void *wire_open(void *context, enum wire_role role, struct error *err)
{
    void *socket = zmq_socket(context, role == WIRE_PEER ? ZMQ_DEALER : ZMQ_ROUTER);
    if (!socket) {
        error_set(err, E_IO, "cannot open a ZeroMQ socket: %s", zmq_strerror(errno));
        return NULL;
    }
    int64_t max_bytes = MAX_MESSAGE_BYTES;
    bool ok = set_int(socket, ZMQ_LINGER, 0) && set_int(socket, ZMQ_SNDHWM, HIGH_WATER) &&
              set_int(socket, ZMQ_RCVHWM, HIGH_WATER) && set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) &&
              set_int(socket, ZMQ_BACKLOG, BACKLOG) && set_int(socket, ZMQ_TCP_KEEPALIVE, 1) &&
              set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S) &&
              set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S) &&
              set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_TRIES) &&
              zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof max_bytes) == 0;
    if (role == WIRE_PEER) /* nothing is queued for a peer that is not there */
        ok = ok && set_int(socket, ZMQ_IMMEDIATE, 1) && set_int(socket, ZMQ_RECONNECT_IVL, 100) &&
             set_int(socket, ZMQ_RECONNECT_IVL_MAX, 2000) && set_int(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    else /* a send to a peer that is gone or full fails instead of vanishing */
        ok = ok && set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    if (!ok) {
        error_set(err, E_IO, "cannot set a ZeroMQ option: %s", zmq_strerror(errno));
        zmq_close(socket);
        return NULL;
    }
    return socket;
}

/* What stands behind the "ipc://" or the "HOST:" of a local endpoint; NULL for any other. */
static const char *local_part(const char *endpoint)
{
    if (!strncmp(endpoint, "ipc://@", 7)) /* abstract names have no permissions: every user could connect */
        return NULL;
    static const char *const prefixes[] = { "ipc://",
                                            "tcp://127.0.0.1:", "tcp://localhost:", "tcp://[::1]:" };
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(endpoint, prefixes[i], strlen(prefixes[i])))
            return endpoint + strlen(prefixes[i]);
    return NULL;
}

static bool is_local(const char *endpoint)
{
    return local_part(endpoint) != NULL;
}

static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return !strcmp(text, "*") || (digits && digits <= 5 && !text[digits] && atoi(text) <= 65535);
}

bool wire_is_tcp(const char *endpoint)
{
    return !strncmp(endpoint, "tcp://", 6);
}

static enum status check_open(const char *endpoint, struct error *err)
{
    if (!wire_is_tcp(endpoint))
        return error_set(err, E_UNSUPPORTED,
                         "cannot listen on \"%s\": only ipc://PATH and tcp://HOST:PORT are known", endpoint);
    return error_set(
        err, E_UNSUPPORTED,
        "cannot listen on \"%s\": beyond loopback (tcp://127.0.0.1:PORT) only with --key and --allow, "
        "which encrypt connections and say whose are taken (or, on a network where everybody may do "
        "everything, with --insecure)",
        endpoint);
}

enum status wire_check_listen(const char *endpoint, enum wire_reach reach, struct error *err)
{
    enum { MAX_PATH = sizeof((struct sockaddr_un *)0)->sun_path - 1 };
    const char *part = local_part(endpoint), *colon = strrchr(endpoint, ':');
    if (!part && (reach == REACH_MACHINE || !wire_is_tcp(endpoint)))
        return check_open(endpoint, err);
    if (wire_is_tcp(endpoint) && (colon < endpoint + 6 || !is_port(colon + 1)))
        return error_set(err, E_INVALID, "cannot listen on \"%s\": a port is 0 to 65535 or *", endpoint);
    if (!wire_is_tcp(endpoint) && (!*part || strlen(part) > MAX_PATH))
        return error_set(err, E_INVALID, "cannot listen on \"%s\": a path has 1 to %d bytes", endpoint,
                         MAX_PATH);
    return OK;
}

/* ZeroMQ puts its socket in the place of whatever has that path. Only a socket that a dead server left over
 * may go; NULL if the path may be taken. */
static const char *find_owner(const char *endpoint)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct stat st;
    if (strncmp(endpoint, "ipc://", 6) ||
        strlcpy(address.sun_path, endpoint + 6, sizeof address.sun_path) >= sizeof address.sun_path ||
        lstat(address.sun_path, &st) != 0)
        return NULL;
    if (!S_ISSOCK(st.st_mode))
        return "there is a file of that name";
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return strerror(errno);
    bool is_alive = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    close(fd);
    return is_alive ? "another server does" : NULL;
}

void wire_remove_socket(const char *endpoint)
{
    struct stat st;
    if (!strncmp(endpoint, "ipc://", 6) && lstat(endpoint + 6, &st) == 0 && S_ISSOCK(st.st_mode) &&
        !find_owner(endpoint))
        unlink(endpoint + 6);
}

/* Options count for what is bound or connected after them, so one socket may have a plain and an encrypted
 * end. */
static bool guard(void *socket, const char *endpoint, const struct wire_guard *g)
{
    if (!g || !g->key || !wire_is_tcp(endpoint))
        return set_int(socket, ZMQ_CURVE_SERVER, 0);
    return set_int(socket, ZMQ_CURVE_SERVER, 1) &&
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, g->key->secret_key, KEY_TEXT) == 0 &&
           zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, g->domain, strlen(g->domain)) == 0;
}

enum status wire_bind(void *socket, const char *endpoint, const struct wire_guard *g, char *bound,
                      struct error *err)
{
    enum status s = wire_check_listen(endpoint, g ? REACH_NETWORK : REACH_MACHINE, err);
    if (s != OK)
        return s;
    if (!strncmp(endpoint, "tcp://[", 7) && !set_int(socket, ZMQ_IPV6, 1))
        return error_set(err, E_IO, "cannot use IPv6: %s", zmq_strerror(errno));
    if (!guard(socket, endpoint, g))
        return error_set(err, E_IO, "cannot guard \"%s\": %s", endpoint, zmq_strerror(errno));
    const char *owner = find_owner(endpoint);
    if (owner)
        return error_set(err, E_IO, "cannot listen on \"%s\": %s", endpoint, owner);
    if (zmq_bind(socket, endpoint) != 0)
        return error_set(err, E_IO, "cannot listen on \"%s\": %s", endpoint, zmq_strerror(errno));
    size_t size = 256;
    if (bound && zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &size) != 0)
        return error_set(err, E_IO, "cannot read back the endpoint: %s", zmq_strerror(errno));
    return OK;
}

static bool use_keys(void *socket, const struct peer_keys *keys)
{
    return zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys->server, KEY_TEXT) == 0 &&
           zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->own.public_key, KEY_TEXT) == 0 &&
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->own.secret_key, KEY_TEXT) == 0;
}

/* Across a network a peer can vanish without a word. On this machine the kernel tells, and pings would cut
 * off a peer that merely does not read for a while. */
static bool watch_line(void *socket, const char *endpoint)
{
    return is_local(endpoint) || (set_int(socket, ZMQ_HEARTBEAT_IVL, ZMTP_BEAT_MS) &&
                                  set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, ZMTP_DEAD_MS) &&
                                  set_int(socket, ZMQ_HEARTBEAT_TTL, ZMTP_DEAD_MS));
}

enum status wire_connect(void *socket, const char *endpoint, const struct peer_keys *keys, struct error *err)
{
    if (!strncmp(endpoint, "tcp://[", 7) && !set_int(socket, ZMQ_IPV6, 1))
        return error_set(err, E_IO, "cannot use IPv6: %s", zmq_strerror(errno));
    if (!watch_line(socket, endpoint))
        return error_set(err, E_IO, "cannot set ZMTP heartbeats: %s", zmq_strerror(errno));
    if (keys && wire_is_tcp(endpoint) && !use_keys(socket, keys))
        return error_set(err, E_IO, "cannot encrypt the connection to \"%s\": %s", endpoint,
                         zmq_strerror(errno));
    if (zmq_connect(socket, endpoint) != 0)
        return error_set(err, E_INVALID, "cannot connect to \"%s\": %s", endpoint, zmq_strerror(errno));
    return OK;
}

static void skip_rest(void *socket, zmq_msg_t *frame)
{
    while (zmq_msg_more(frame) && zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) >= 0)
        ;
    zmq_msg_close(frame);
}

enum status wire_receive(void *socket, struct wire_message *m)
{
    int type;
    size_t size = sizeof type;
    zmq_getsockopt(socket, ZMQ_TYPE, &type, &size);
    m->identity_len = 0;
    m->has_delimiter = false;
    zmq_msg_init(&m->body);
    if (zmq_msg_recv(&m->body, socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&m->body);
        return errno == EAGAIN || errno == EINTR ? E_TIMEOUT : E_IO;
    }
    /* The frames of one message arrive together: the others need no waiting. */
    if (type == ZMQ_ROUTER) {
        m->identity_len = zmq_msg_size(&m->body);
        assert(m->identity_len <= WIRE_MAX_IDENTITY);
        memcpy(m->identity, zmq_msg_data(&m->body), m->identity_len);
        if (!zmq_msg_more(&m->body) || zmq_msg_recv(&m->body, socket, ZMQ_DONTWAIT) < 0)
            goto malformed;
    }
    if (zmq_msg_size(&m->body) == 0 && zmq_msg_more(&m->body)) {
        m->has_delimiter = true;
        if (zmq_msg_recv(&m->body, socket, ZMQ_DONTWAIT) < 0)
            goto malformed;
    }
    if (zmq_msg_more(&m->body))
        goto malformed;
    return OK;

malformed:
    skip_rest(socket, &m->body);
    return E_FORMAT;
}

/* Of a TCP connection ZeroMQ tells the address in numbers, of a local socket something else. */
bool wire_came_by_tcp(struct wire_message *m)
{
    const char *address = zmq_msg_gets(&m->body, "Peer-Address");
    unsigned char numbers[16];
    return address &&
           (inet_pton(AF_INET, address, numbers) == 1 || inet_pton(AF_INET6, address, numbers) == 1);
}

void wire_message_close(struct wire_message *m)
{
    zmq_msg_close(&m->body);
}

static enum status send_status(void)
{
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return E_OVERLOADED;
    case EHOSTUNREACH:
        return E_UNREACHABLE;
    }
    return E_IO;
}

enum status wire_send(void *socket, const void *identity, size_t identity_len, bool with_delimiter,
                      const void *body, size_t len)
{
    /* Only the first frame can fail for lack of room or of a peer; the others follow it into the same pipe.
     */
    if (identity_len && zmq_send(socket, identity, identity_len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return send_status();
    if (with_delimiter && zmq_send(socket, "", 0, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return send_status();
    if (zmq_send(socket, body, len, ZMQ_DONTWAIT) < 0)
        return send_status();
    return OK;
}

enum status wire_runtime_folder(char *out, size_t size, struct error *err)
{
    const char *own = getenv("WOOLLY_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
    int n;
    if (own && *own)
        n = snprintf(out, size, "%s", own);
    else if (xdg && *xdg)
        n = snprintf(out, size, "%s/woolly", xdg);
    else
        n = snprintf(out, size, "/tmp/woolly-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= size)
        return error_set(err, E_LIMIT, "the path of the runtime folder is too long (set WOOLLY_RUNTIME_DIR)");

    if (mkdir(out, 0700) != 0 && errno != EEXIST)
        return error_errno(err, "cannot make the runtime folder %s (set WOOLLY_RUNTIME_DIR)", out);
    struct stat st;
    if (lstat(out, &st) != 0)
        return error_errno(err, "cannot look at the runtime folder %s", out);
    /* In /tmp anybody could have made it first, to listen in or to answer in our place. */
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
        return error_set(err, E_INVALID,
                         "%s must be a folder of yours with mode 0700 (or set WOOLLY_RUNTIME_DIR)", out);
    return OK;
}

enum status wire_find_endpoint(const char *flag, char *out, size_t size, struct error *err)
{
    const char *given = flag ? flag : getenv("WOOLLY_ENDPOINT");
    if (given && *given) {
        if (strlcpy(out, given, size) >= size)
            return error_set(err, E_LIMIT, "the endpoint is longer than %zu bytes", size - 1);
        return OK;
    }

    char folder[200], path[220];
    enum status s = wire_runtime_folder(folder, sizeof folder, err);
    if (s != OK)
        return s;
    snprintf(path, sizeof path, "%s/endpoint", folder);
    FILE *f = fopen(path, "re");
    if (!f)
        return error_set(err, E_NOTFOUND,
                         "no server is running (start one with: woolly serve --model NAME=PATH)");
    bool ok = fgets(out, (int)size, f) != NULL;
    fclose(f);
    if (!ok)
        return error_set(err, E_FORMAT, "%s is empty", path);
    out[strcspn(out, "\n")] = 0;
    return OK;
}
