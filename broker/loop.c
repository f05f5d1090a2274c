#include "broker/loop.h"

#include <bsd/stdlib.h>
#include <bsd/string.h>
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/access.h"
#include "broker/broker.h"
#include "common/clock.h"
#include "common/process.h"
#include "common/signals.h"
#include "common/xalloc.h"

enum {
    BATCH = 64,      /* messages from one side before the other has its turn */
    FIRST_WATCH = 4, /* in the poll set: clients, workers, signals, gatekeeper, then one per worker process */
    LINGER_MS = 500, /* at the end, for the last messages to leave */
};

struct loop {
    struct broker broker;
    void *context, *clients, *workers;
    struct gatekeeper gatekeeper; /* without a socket if there are no keys */
    struct decoder *decoder;
    struct wire_message received;
    zmq_pollitem_t *items;
    size_t n_items, items_cap;
    int note_fd;
    struct loop_note note;
    int stops_seen;
};

/* ---- the port ---- */

static enum status send_to_peer(void *context, enum message_link link, const struct peer *to,
                                const void *bytes, size_t len)
{
    struct loop *l = context;
    return wire_send(link == BROKER_TO_CLIENT ? l->clients : l->workers, to->identity, to->identity_len,
                     to->is_req, bytes, len);
}

/* Whoever registers can name any process, so what will perhaps be killed is looked at closely, and after the
 * descriptor was opened, which from then on stands for the same process. */
static int watch_process(void *context, pid_t pid, bool *is_ours)
{
    const struct loop *l = context;
    int fd = process_watch(pid);
    *is_ours = fd >= 0 && process_is_near_descendant(pid, l->broker.supervisor);
    return fd;
}

static void kill_process(void *context, int watch_fd)
{
    (void)context;
    process_kill_watched(watch_fd);
}

/* ---- start and end ---- */

static uint64_t draw_epoch(void)
{
    uint64_t epoch;
    do {
        arc4random_buf(&epoch, sizeof epoch);
        epoch &= MAX_WIRE_NUMBER;
    } while (!epoch);
    return epoch;
}

static enum status bind_sockets(struct loop *l, const struct config *config, const struct key_pair *key,
                                const char *clients, const char *workers, struct error *err)
{
    const struct wire_guard for_clients = { config->key ? key : NULL, access_client },
                            for_workers = { config->key ? key : NULL, access_worker };
    bool is_open = config->key || config->is_insecure;
    char bound[ENDPOINT_BYTES];
    enum status s;
    if ((s = wire_bind(l->workers, workers, NULL, NULL, err)) != OK ||
        (s = wire_bind(l->clients, clients, is_open ? &for_clients : NULL, l->note.endpoint, err)) != OK)
        return s;
    if (!config->zmq_workers)
        return OK;
    s = wire_bind(l->workers, config->zmq_workers, is_open ? &for_workers : NULL, bound, err);
    if (s == OK)
        log_info("listening_for_workers", "endpoint=%s encrypted=%s", bound, config->key ? "yes" : "no");
    return s;
}

static enum status open_sockets(struct loop *l, const struct config *config, const char *clients,
                                const char *workers, struct error *err)
{
    struct key_pair key;
    struct access_list list;
    l->context = zmq_ctx_new();
    if (!l->context)
        return error_set(err, E_IO, "cannot start ZeroMQ");
    if (!(l->clients = wire_open(l->context, WIRE_CLIENT_SIDE, err)) ||
        !(l->workers = wire_open(l->context, WIRE_WORKER_SIDE, err)))
        return E_IO;
    enum status s = config_read_keys(config, &key, &list, err);
    if (s == OK && config->key)
        s = gatekeeper_open(&l->gatekeeper, l->context, list, err);
    if (s == OK)
        s = bind_sockets(l, config, &key, clients, workers, err);
    explicit_bzero(&key, sizeof key);
    return s;
}

static void close_sockets(struct loop *l)
{
    int linger = LINGER_MS;
    void *sockets[] = { l->clients, l->workers };
    for (int i = 0; i < 2; i++) {
        if (sockets[i]) {
            zmq_setsockopt(sockets[i], ZMQ_LINGER, &linger, sizeof linger);
            zmq_close(sockets[i]);
        }
    }
    gatekeeper_close(&l->gatekeeper);
    if (l->context)
        zmq_ctx_term(l->context);
}

static void tell_supervisor(struct loop *l)
{
    if (write(l->note_fd, &l->note, sizeof l->note) < 0)
        log_error("note_failed", "the supervisor does not listen");
}

static void add_models(struct broker *b, const struct config *config)
{
    for (int i = 0; i < config->n_models; i++)
        model_add(b, slice_of(config->models[i].name), config->models[i].path, config->workers);
}

/* ---- turns ---- */

static void collect_poll_items(struct loop *l)
{
    size_t n = FIRST_WATCH + l->broker.workers.count;
    if (n > l->items_cap) {
        l->items_cap = n * 2;
        l->items = xrealloc(l->items, l->items_cap * sizeof *l->items);
    }
    l->items[0] = (zmq_pollitem_t){ .socket = l->clients, .events = ZMQ_POLLIN };
    l->items[1] = (zmq_pollitem_t){ .socket = l->workers, .events = ZMQ_POLLIN };
    l->items[2] = (zmq_pollitem_t){ .fd = signals_fd(), .events = ZMQ_POLLIN };
    l->items[3] = l->gatekeeper.socket
                      ? (zmq_pollitem_t){ .socket = l->gatekeeper.socket, .events = ZMQ_POLLIN }
                      : (zmq_pollitem_t){ .fd = -1 };
    l->n_items = FIRST_WATCH;
    list_each(w, &l->broker.workers, struct worker, of_broker)
    {
        if (w->watch_fd >= 0)
            l->items[l->n_items++] = (zmq_pollitem_t){ .fd = w->watch_fd, .events = ZMQ_POLLIN };
    }
}

static struct peer sender_of(const struct wire_message *m)
{
    struct peer from = { .identity_len = (unsigned char)m->identity_len, .is_req = m->has_delimiter };
    memcpy(from.identity, m->identity, m->identity_len);
    return from;
}

static void take_client_message(struct loop *l, int64_t now_ms)
{
    struct peer from = sender_of(&l->received);
    struct message m;
    struct error err;
    if (message_decode(l->decoder, CLIENT_TO_BROKER, zmq_msg_data(&l->received.body),
                       zmq_msg_size(&l->received.body), &m, &err) == OK)
        broker_on_client(&l->broker, &from, &m, now_ms);
    else
        broker_on_bad_client(&l->broker, &from, decoder_id(l->decoder), err.text, now_ms);
}

static void take_worker_message(struct loop *l, int64_t now_ms)
{
    struct peer from = sender_of(&l->received);
    from.is_remote = wire_came_by_tcp(&l->received);
    struct message m;
    struct error err;
    if (message_decode(l->decoder, WORKER_TO_BROKER, zmq_msg_data(&l->received.body),
                       zmq_msg_size(&l->received.body), &m, &err) == OK)
        broker_on_worker(&l->broker, &from, &m, now_ms);
    else
        broker_on_bad_worker(&l->broker, &from, err.text, now_ms);
}

/* True if there may be more. */
static bool drain_clients(struct loop *l, int64_t now_ms)
{
    for (int i = 0; i < BATCH; i++) {
        enum status s = wire_receive(l->clients, &l->received);
        if (s == E_FORMAT) {
            struct peer from = sender_of(&l->received);
            broker_on_bad_client(&l->broker, &from, 0, "a message is one frame", now_ms);
            continue;
        }
        if (s != OK)
            return false;
        take_client_message(l, now_ms);
        wire_message_close(&l->received);
    }
    return true;
}

static bool drain_workers(struct loop *l, int64_t now_ms)
{
    for (int i = 0; i < BATCH; i++) {
        enum status s = wire_receive(l->workers, &l->received);
        if (s == E_FORMAT) {
            struct peer from = sender_of(&l->received);
            broker_on_bad_worker(&l->broker, &from, "a message is one frame", now_ms);
            continue;
        }
        if (s != OK)
            return false;
        take_worker_message(l, now_ms);
        wire_message_close(&l->received);
    }
    return true;
}

static struct worker *worker_watched_by(struct broker *b, int fd)
{
    list_each(w, &b->workers, struct worker, of_broker)
    {
        if (w->watch_fd == fd)
            return w;
    }
    return NULL;
}

static bool has_ended(int watch_fd)
{
    zmq_pollitem_t item = { .fd = watch_fd, .events = ZMQ_POLLIN };
    return zmq_poll(&item, 1, 0) > 0;
}

/* After the messages are drained: what a worker said before its end counts. A descriptor of the poll set may
 * have been closed, and its number used again, since; so it is asked once more. */
static void note_worker_ends(struct loop *l, int64_t now_ms)
{
    for (size_t i = FIRST_WATCH; i < l->n_items; i++) {
        if (!l->items[i].revents)
            continue;
        struct worker *w = worker_watched_by(&l->broker, l->items[i].fd);
        if (w && has_ended(w->watch_fd))
            broker_on_worker_exit(&l->broker, w, now_ms);
    }
}

/* What can change while we run: how much is logged, and whose connections are taken. */
static void reload(struct loop *l, const struct config *config)
{
    static struct config fresh; /* too large for a stack */
    struct access_list list = { 0 };
    struct key_pair key;
    struct error err;
    enum status s = config_parse(&fresh, config->argc, config->argv, &err);
    if (s == OK && l->gatekeeper.socket)
        s = config_read_keys(&fresh, &key, &list, &err);
    explicit_bzero(&key, sizeof key);
    if (s != OK) {
        log_error("reload_failed", "why=\"%s\"", err.text);
    } else {
        log_init("broker", fresh.log_level);
        if (l->gatekeeper.socket)
            gatekeeper_replace(&l->gatekeeper, list);
        log_info("reloaded", "log_level=%s keys=%zu", log_level_name(fresh.log_level), list.n);
    }
    config_fini(&fresh);
}

static void note_signals(struct loop *l, const struct config *config, int64_t now_ms)
{
    if (l->items[2].revents)
        signals_drain();
    if (signals_take_reload())
        reload(l, config);
    int stops = signals_stop_count();
    if (stops == l->stops_seen)
        return;
    l->stops_seen = stops;
    broker_stop(&l->broker, stops > 1 ? 0 : config->grace_ms, now_ms);
}

static void note_completion(struct loop *l)
{
    if (l->note.is_complete || !broker_is_complete(&l->broker))
        return;
    l->note.is_complete = true;
    tell_supervisor(l);
}

static void serve(struct loop *l, const struct config *config)
{
    bool more_clients = false, more_workers = false;
    int64_t now_ms = clock_ms();

    while (!broker_is_stopped(&l->broker, now_ms)) {
        collect_poll_items(l);
        int wait_ms = more_clients || more_workers ? 0 : deadline_poll_ms(now_ms, l->broker.wake_ms);
        zmq_poll(l->items, (int)l->n_items, wait_ms);
        l->broker.turn_us = clock_us();
        now_ms = l->broker.turn_us / 1000;
        if (l->gatekeeper.socket)
            gatekeeper_answer(&l->gatekeeper, now_ms);
        more_clients = drain_clients(l, now_ms);
        more_workers = drain_workers(l, now_ms);
        if (!more_workers)
            note_worker_ends(l, now_ms);
        note_signals(l, config, now_ms);
        /* Silence only counts when everything said has been heard: this process may have been stopped. */
        if (!more_workers && now_ms >= l->broker.wake_ms)
            broker_upkeep(&l->broker, now_ms);
        note_completion(l);
    }
}

int loop_run(const struct config *config, const char *clients, const char *workers, pid_t supervisor,
             int note_fd)
{
    struct loop l = { .note_fd = note_fd };
    struct port port = { .context = &l, .send = send_to_peer, .watch = watch_process, .kill = kill_process };
    struct error err;

    signals_init();
    log_rename("broker");
    process_title("broker");
    process_raise_file_limit(); /* a connection that finds no descriptor ends ZeroMQ, and us with it */
    if (open_sockets(&l, config, clients, workers, &err) != OK) {
        close_sockets(&l);
        warnx("%s", err.text);
        return EXIT_FAILURE;
    }
    broker_init(&l.broker, &port, draw_epoch(), supervisor, config->queue, config->stall_ms, clock_ms());
    add_models(&l.broker, config);
    l.decoder = decoder_create();
    log_info("listening", "endpoint=%s epoch=%llu", l.note.endpoint, (unsigned long long)l.broker.epoch);
    tell_supervisor(&l);

    serve(&l, config);

    log_info("stopped", "done=%llu failed=%llu", (unsigned long long)l.broker.counts.done,
             (unsigned long long)l.broker.counts.failed);
    broker_fini(&l.broker);
    decoder_destroy(l.decoder);
    free(l.items);
    close_sockets(&l);
    return EXIT_SUCCESS;
}
