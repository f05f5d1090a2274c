/* Clients with something to remember: live jobs, or output that did not fit into their queue yet. All others
 * are only addresses to answer to.
 *
 * Sending never waits. What ZeroMQ does not take is kept here, in order, up to CLIENT_PENDING_BYTES, and
 * tried again every RETRY_MS. Beyond that tokens and whole answers are turned away (their job ends with
 * slow_reader), while endings always fit: there is one small one per live job, of which there are at most
 * CLIENT_LIVE_JOBS, and a client that is far behind gets no new jobs. */
#ifndef WOOLLY_BROKER_CLIENTS_H
#define WOOLLY_BROKER_CLIENTS_H

#include "broker/port.h"
#include "broker/table.h"
#include "common/list.h"

struct broker;
struct job;

enum {
    CLIENT_LIVE_JOBS = 1024,
    CLIENT_PENDING_BYTES = 1 << 20,
    CLIENT_BEHIND_BYTES = CLIENT_PENDING_BYTES / 2, /* no new jobs while more than this waits */
    CLIENT_STALL_MS = 60 * 1000,                    /* a client that takes nothing for so long is gone */
    RETRY_MS = 5,
};

struct client {
    struct link of_broker;
    struct link of_unsettled; /* on broker.unsettled_clients: gone, or without anything to remember */
    struct table_node by_peer;
    struct peer peer;
    struct list jobs;      /* live ones */
    struct buffer pending; /* uint32_t length, bytes, and so on; from pending_at */
    size_t pending_at;
    int64_t sent_ms; /* last message that was taken */
    bool is_gone;
};

enum urgency { MAY_BE_REFUSED, MUST_FIT };

struct client *client_find(const struct broker *b, const struct peer *peer);
struct client *client_add(struct broker *b, const struct peer *peer, int64_t now_ms);

/* Its live job with that number, or NULL. */
struct job *client_job(const struct client *c, uint64_t client_id);
size_t client_pending_bytes(const struct client *c);

/* False if the message may be refused and found no room. A client that cannot be reached is marked gone, and
 * whatever is sent to it vanishes. */
bool client_send(struct broker *b, struct client *c, const struct message *m, enum urgency urgency,
                 int64_t now_ms);

/* To an address, without a promise: a reply that does not fit is dropped. */
void peer_send(struct broker *b, const struct peer *to, const struct message *m, int64_t now_ms);

/* Its job left the live states: it may be idle now. */
void client_note_ending(struct broker *b, struct client *c);

/* Pending output, stalls, beats. */
void client_upkeep(struct broker *b, struct client *c, int64_t now_ms);

/* Of an unsettled client: ends the jobs of one that is gone, frees it if nothing is left to remember. */
void client_settle(struct broker *b, struct client *c, int64_t now_ms);

void client_destroy(struct broker *b, struct client *c);

#endif
