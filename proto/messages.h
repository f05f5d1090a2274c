/* Every message between clients, broker and workers, as C structs. PROTOCOL.md is the same for people and
 * other languages; the tables in messages.c join the two. */
#ifndef WOOLLY_PROTO_MESSAGES_H
#define WOOLLY_PROTO_MESSAGES_H

#include "proto/schema.h"

enum {
    PROTOCOL_VERSION = 1,
    MAX_MESSAGE_BYTES = 16 << 20,
    MAX_PROMPT_BYTES = 8 << 20,
    MAX_PROMPT_TOKENS = 512 << 10,
    /* Unpacked, an object takes 24 bytes: this bounds what a message can make its reader allocate to some
     * 15 MB. */
    MAX_MESSAGE_OBJECTS = MAX_PROMPT_TOKENS + (64 << 10),
    MAX_MODEL_NAME = 128,
    MAX_STOPS = 16,
    MAX_LOGPROBS = 20,
    MAX_TOKEN_BYTES = 1024, /* of one token in struct token_detail */
    BEAT_MS = 1000,         /* silence after which each side sends a beat */
    PEER_TIMEOUT_MS = 6000, /* silence after which a peer counts as dead */
};

/* Ids, job numbers, epochs and drawn seeds stay below 2^53, so that a client whose numbers are doubles can
 * hold them exactly. (A seed that a client gives may use all 64 bits.) */
#define MAX_WIRE_NUMBER ((UINT64_C(1) << 53) - 1)

/* Who sends to whom: the same type name can mean another message on another link. */
enum message_link { CLIENT_TO_BROKER, BROKER_TO_CLIENT, WORKER_TO_BROKER, BROKER_TO_WORKER };

enum message_kind {
    /* client to broker */
    MSG_GENERATE,
    MSG_CANCEL,
    MSG_MODELS,
    MSG_STATS,
    MSG_HEALTH,
    MSG_PING,
    /* broker to client */
    MSG_ACCEPTED,
    MSG_TOKENS,
    MSG_DONE,
    MSG_CANCELLED,
    MSG_ERROR,
    MSG_MODELS_REPLY,
    MSG_STATS_REPLY,
    MSG_HEALTH_REPLY,
    MSG_PONG,
    MSG_CLIENT_BEAT,
    /* worker to broker */
    MSG_REGISTER,
    MSG_STEP,
    MSG_WORKER_BEAT,
    MSG_BYE,
    /* broker to worker */
    MSG_WELCOME,
    MSG_SUBMIT,
    MSG_DROP,
    MSG_BROKER_BEAT,
    MSG_STOP,
    MSG_KINDS
};

/* A completion that somebody wants. Exactly one of prompt and tokens is given. */
struct generate {
    struct slice model;
    struct slice prompt;
    struct id_array tokens; /* used as they are: no BOS is added */
    uint32_t max_tokens;
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    bool has_seed; /* without one the broker draws it, once, at acceptance */
    uint64_t seed;
    struct slice_array stop;
    uint32_t logprobs; /* alternatives per token; with has_logprobs even 0 asks for the chosen token's */
    bool has_logprobs;
    bool ignore_end;      /* go on past end-of-text tokens */
    bool stream;          /* tokens as they come; otherwise all of them in `done` */
    uint64_t deadline_ms; /* from acceptance to the last token; 0 for none */
};

struct token_alternative {
    int32_t id;
    float logprob;
    struct slice bytes;
};

struct token_detail {
    int32_t id;
    float logprob;
    struct slice bytes;
    struct struct_array top; /* struct token_alternative, most likely first */
};

/* Where the time went, in ms as the broker saw it. */
struct timing {
    double queue_ms; /* acceptance to dispatch */
    double ttft_ms;  /* acceptance to first token; 0 when there was none */
    double total_ms; /* acceptance to end */
    double tok_s;    /* tokens after the first, per second; 0 when fewer than two */
};

/* ---- client to broker: each with `id`, the client's number for the request ---- */

struct msg_generate {
    uint64_t id;
    uint64_t epoch; /* 0, or the broker's: another one is refused */
    struct generate request;
};

struct msg_request { /* cancel, models, stats, health, ping */
    uint64_t id;
    uint64_t epoch;
};

/* ---- broker to client ---- */

struct msg_accepted {
    uint64_t id, epoch;
    uint64_t job; /* the broker's number, as in logs */
    uint64_t seed;
    uint32_t queue_position; /* requests of this model that will be dispatched before it */
};

struct msg_tokens {
    uint64_t id, epoch;
    uint64_t seq; /* index in the stream of ids[0] */
    struct id_array ids;
    struct slice text;            /* may lag behind ids while a character or a stop string is undecided */
    struct struct_array logprobs; /* struct token_detail, one per id, if asked for */
};

struct msg_done {
    uint64_t id, epoch;
    struct slice finish_reason; /* "stop" or "length" */
    struct id_array ids;        /* when not streaming */
    struct slice text;          /* when not streaming */
    struct struct_array logprobs;
    uint64_t prompt_tokens, completion_tokens;
    uint64_t seed;
    struct timing timing;
};

struct msg_cancelled {
    uint64_t id, epoch;
    uint64_t prompt_tokens, completion_tokens;
};

struct msg_error {
    uint64_t id; /* 0 when the message could not be read that far */
    uint64_t epoch;
    struct slice code; /* ERROR_... below */
    struct slice message;
    bool is_retryable; /* the same request may succeed later */
    uint64_t retry_ms; /* when to try again; 0 when unknown */
};

struct model_row {
    struct slice name, path, architecture;
    struct slice state; /* "loading" or "ready" */
    uint64_t parameters, weight_bytes;
    uint32_t n_ctx, n_vocab;
    uint32_t workers, slots, running, queued;
};

struct msg_models_reply {
    uint64_t id, epoch;
    struct struct_array models; /* struct model_row */
};

struct worker_row {
    struct slice model;
    uint32_t index;
    uint64_t pid;
    uint32_t slots, running;
    uint64_t done, tokens, prompt_tokens;
    double tok_s; /* over the time between its last two beats */
    double beat_age_ms;
};

struct msg_stats_reply {
    uint64_t id, epoch;
    struct slice version;
    double uptime_s;
    uint64_t clients, queued, running;
    uint64_t accepted, done, failed, cancelled, refused;
    uint64_t tokens;             /* delivered by workers since the start */
    uint64_t rss_bytes;          /* of the broker */
    struct struct_array workers; /* struct worker_row */
};

struct msg_health_reply {
    uint64_t id, epoch;
    bool is_ready;       /* every configured model can answer */
    struct slice status; /* "loading", "ok", "stopping" */
    uint64_t pid;        /* of the supervisor: SIGTERM there stops the server */
    struct slice version;
};

struct msg_empty { /* pong, client beat */
    uint64_t id, epoch;
};

/* ---- worker to broker ---- */

struct msg_register {
    struct slice model, path, architecture;
    uint32_t index; /* which worker of its host: 0, 1, ... */
    uint64_t pid;
    uint32_t slots; /* first credit: jobs it takes at once */
    uint32_t n_ctx, n_vocab;
    uint64_t parameters, weight_bytes;
    struct slice isa;
};

/* One message for everything a step brought forth. An item with finish_reason or error_code ends its job and
 * gives back one credit. */
struct step_item {
    uint64_t job;
    struct id_array ids;
    struct slice text;
    struct struct_array logprobs; /* struct token_detail */
    struct slice finish_reason;   /* "stop", "length", "cancelled" */
    struct slice error_code, error_message;
    uint64_t prompt_tokens; /* known from the first item on */
    uint64_t decode_us;     /* of an ending: from its first token to its last, as the worker made them */
};

struct msg_step {
    uint64_t epoch;
    struct struct_array items; /* struct step_item */
};

struct msg_worker_beat {
    uint64_t epoch;
    uint64_t steps; /* forward progress: must rise while running is not 0 */
    uint32_t running;
    uint64_t tokens, prompt_tokens;
};

/* ---- broker to worker ---- */

struct msg_welcome {
    uint64_t epoch;
};

struct msg_submit {
    uint64_t epoch;
    uint64_t job;
    struct generate request; /* with has_seed */
};

struct msg_drop {
    uint64_t epoch;
    uint64_t job; /* cancel it: the worker answers with an item whose finish_reason is "cancelled" */
};

struct msg_epoch { /* bye, broker beat, stop */
    uint64_t epoch;
};

/* Error codes, as in PROTOCOL.md. */
#define ERROR_BAD_MESSAGE       "bad_message"
#define ERROR_BAD_REQUEST       "bad_request"
#define ERROR_UNKNOWN_MODEL     "unknown_model"
#define ERROR_DUPLICATE_ID      "duplicate_id"
#define ERROR_WRONG_EPOCH       "wrong_epoch"
#define ERROR_CONTEXT_LENGTH    "context_length_exceeded"
#define ERROR_OVERLOADED        "overloaded"
#define ERROR_SHUTTING_DOWN     "shutting_down"
#define ERROR_DEADLINE_EXCEEDED "deadline_exceeded"
#define ERROR_WORKER_LOST       "worker_lost"
#define ERROR_SLOW_READER       "slow_reader"
#define ERROR_INTERNAL          "internal"

struct message {
    enum message_kind kind;
    union {
        struct msg_generate generate;
        struct msg_request request;
        struct msg_accepted accepted;
        struct msg_tokens tokens;
        struct msg_done done;
        struct msg_cancelled cancelled;
        struct msg_error error;
        struct msg_models_reply models;
        struct msg_stats_reply stats;
        struct msg_health_reply health;
        struct msg_empty empty;
        struct msg_register registration;
        struct msg_step step;
        struct msg_worker_beat beat;
        struct msg_welcome welcome;
        struct msg_submit submit;
        struct msg_drop drop;
        struct msg_epoch epoch;
    };
};

/* Decodes one message that came over `link`. On failure the error names the field, and decoder_id has the
 * client's id if it could be read. */
MUST_CHECK enum status message_decode(struct decoder *d, enum message_link link, const void *bytes,
                                      size_t len, struct message *out, struct error *err);

/* Replaces the contents of out. */
void message_encode(struct buffer *out, const struct message *m);

const char *message_kind_name(enum message_kind kind);

/* A slice of a C string. */
struct slice slice_of(const char *text);
bool slice_is(struct slice s, const char *text);

#endif
