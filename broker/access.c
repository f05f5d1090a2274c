#include "broker/access.h"

#include <bsd/string.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/log.h"
#include "common/xalloc.h"
#include "proto/keys.h"

enum { MAX_ROWS = 10000, QUIET_MS = 1000, N_FRAMES = 7, MAX_FRAME = 255 };

const char access_client[] = "client", access_worker[] = "worker";

struct access_row {
    const char *side;
    char name[MAX_KEY_NAME + 1];
    char key[KEY_TEXT];
};

/* ---- the list ---- */

static enum status take_line(struct access_list *list, const char *line, const char *where, struct error *err)
{
    char side[16], name[MAX_KEY_NAME + 1], key[KEY_TEXT], more[2];
    struct access_row row = { 0 };
    if (sscanf(line, "%15s %64s %40s %1s", side, name, key, more) != 3)
        return error_set(err, E_FORMAT, "%s: a line is \"client NAME KEY\" or \"worker NAME KEY\"", where);
    if (!strcmp(side, access_client))
        row.side = access_client;
    else if (!strcmp(side, access_worker))
        row.side = access_worker;
    else
        return error_set(err, E_FORMAT, "%s: \"%s\" is neither client nor worker", where, side);
    if (!key_is_well_formed(key))
        return error_set(err, E_FORMAT,
                         "%s: \"%s\" is no public key of 40 letters (woolly keygen prints one)", where, key);
    if (access_find(list, row.side, key))
        return error_set(err, E_FORMAT, "%s: this key is in the list already", where);
    if (list->n == MAX_ROWS)
        return error_set(err, E_LIMIT, "%s: more than %d keys", where, MAX_ROWS);
    strlcpy(row.name, name, sizeof row.name);
    strlcpy(row.key, key, sizeof row.key);
    list->rows = xrealloc(list->rows, (list->n + 1) * sizeof *list->rows);
    list->rows[list->n++] = row;
    return OK;
}

enum status access_read(struct access_list *list, const char *path, struct error *err)
{
    char line[256], where[400];
    enum status s = OK;

    *list = (struct access_list){ 0 };
    FILE *f = fopen(path, "re");
    if (!f)
        return error_errno(err, "cannot read the list of keys %s", path);
    for (int number = 1; s == OK && fgets(line, sizeof line, f); number++) {
        snprintf(where, sizeof where, "%s:%d", path, number);
        if (line[strspn(line, " \t\r\n")] && line[strspn(line, " \t")] != '#')
            s = take_line(list, line, where, err);
    }
    if (s == OK && ferror(f))
        s = error_errno(err, "cannot read the list of keys %s", path);
    fclose(f);
    if (s != OK)
        access_free(list);
    return s;
}

void access_free(struct access_list *list)
{
    free(list->rows);
    *list = (struct access_list){ 0 };
}

const char *access_find(const struct access_list *list, const char *side, const char *key)
{
    for (size_t i = 0; i < list->n; i++)
        if (!strcmp(list->rows[i].side, side) && !strcmp(list->rows[i].key, key))
            return list->rows[i].name;
    return NULL;
}

/* ---- the handler ---- */

enum status gatekeeper_open(struct gatekeeper *g, void *context, struct access_list list, struct error *err)
{
    *g = (struct gatekeeper){ .list = list };
    g->socket = zmq_socket(context, ZMQ_REP);
    if (!g->socket || zmq_bind(g->socket, "inproc://zeromq.zap.01") != 0)
        return error_set(err, E_IO, "cannot check keys: %s", zmq_strerror(errno));
    return OK;
}

void gatekeeper_replace(struct gatekeeper *g, struct access_list list)
{
    access_free(&g->list);
    g->list = list;
}

void gatekeeper_close(struct gatekeeper *g)
{
    if (g->socket)
        zmq_close(g->socket);
    access_free(&g->list);
    *g = (struct gatekeeper){ 0 };
}

struct request {
    char version[8], id[MAX_FRAME + 1], side[16], address[64], mechanism[16];
    size_t id_len;
    char key[KEY_TEXT];
};

/* Frames: version, request id, domain, address, routing id, mechanism, credentials. They come from ZeroMQ in
 * this process; what they carry comes from outside. */
static bool receive(void *socket, struct request *r)
{
    unsigned char key[32];
    struct {
        void *to;
        size_t room;
    } frames[N_FRAMES] = { { r->version, sizeof r->version - 1 },
                           { r->id, MAX_FRAME },
                           { r->side, sizeof r->side - 1 },
                           { r->address, sizeof r->address - 1 },
                           { NULL, 0 },
                           { r->mechanism, sizeof r->mechanism - 1 },
                           { key, sizeof key } };
    *r = (struct request){ 0 };
    for (int i = 0, more = 1; more; i++) {
        size_t size = sizeof more;
        char none[1];
        void *to = i < N_FRAMES && frames[i].to ? frames[i].to : none;
        size_t room = i < N_FRAMES ? frames[i].room : 0;
        int n = zmq_recv(socket, to, room, ZMQ_DONTWAIT);
        if (n < 0)
            return false;
        if (i == 1)
            r->id_len = (size_t)n < room ? (size_t)n : room;
        if (i == N_FRAMES - 1 && n == (int)sizeof key)
            zmq_z85_encode(r->key, key, sizeof key);
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    }
    return true;
}

static void answer(void *socket, const struct request *r, const char *name)
{
    const char *code = name ? "200" : "400", *text = name ? "OK" : "this key is not known here";
    struct {
        const void *bytes;
        size_t len;
    } frames[] = { { "1.0", 3 },
                   { r->id, r->id_len },
                   { code, 3 },
                   { text, strlen(text) },
                   { name ? name : "", name ? strlen(name) : 0 },
                   { "", 0 } };
    const int last = sizeof frames / sizeof *frames - 1;
    for (int i = 0; i <= last; i++)
        if (zmq_send(socket, frames[i].bytes, frames[i].len, ZMQ_DONTWAIT | (i < last ? ZMQ_SNDMORE : 0)) < 0)
            return; /* who asked has gone */
}

/* Anybody can knock as often as he likes; the log is not his to fill. */
static void log_refusal(struct gatekeeper *g, const struct request *r, int64_t now_ms)
{
    if (g->refused_ms && now_ms - g->refused_ms < QUIET_MS) {
        g->n_unlogged++;
        return;
    }
    log_warn("key_refused", "side=%s address=%s key=\"%s\" more=%u", r->side, r->address, r->key,
             g->n_unlogged);
    g->refused_ms = now_ms;
    g->n_unlogged = 0;
}

void gatekeeper_answer(struct gatekeeper *g, int64_t now_ms)
{
    struct request r;
    while (receive(g->socket, &r)) {
        const char *name = NULL;
        if (!strcmp(r.version, "1.0") && !strcmp(r.mechanism, "CURVE") && r.key[0])
            name = access_find(&g->list, r.side, r.key);
        if (name)
            log_info("key_accepted", "side=%s address=%s name=\"%s\"", r.side, r.address, name);
        else
            log_refusal(g, &r, now_ms);
        answer(g->socket, &r, name);
    }
}
