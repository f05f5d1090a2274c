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
    MAX_HOST_BYTES = 128,
    MAX_STOPS = 16,
    MAX_LOGPROBS = 20,
    MAX_CHOICES = 16, /* of one request: n and best_of */
    MAX_SALT_BYTES = 64,
    MAX_SESSION_NAME = 64,
    MAX_EMBEDDING_BYTES = 1 << 20,
    MAX_RESUME_BYTES = 4 << 20, /* ids of all choices, at 4 bytes: of more a request cannot be resumed */
    MAX_SCORED_TOKENS = MAX_LOGPROBS,
    MAX_SCORED_STRINGS = 256, /* each of 1 to FIELD_TEXTS_BYTES bytes */
    MAX_TOKEN_BYTES = 1024,   /* of one token in struct token_detail */
    BEAT_MS = 1000,           /* silence after which each side sends a beat */
    PEER_TIMEOUT_MS = 6000,   /* silence after which a peer counts as dead */
};

/* Ids, job numbers, epochs and drawn seeds stay below 2^53, so that a client whose numbers are doubles can
 * hold them exactly. (A seed that a client gives may use all 64 bits.) */
#define MAX_WIRE_NUMBER ((UINT64_C(1) << 53) - 1)

/* Who sends to whom: the same type name can mean another message on another link. */
enum message_link { CLIENT_TO_BROKER, BROKER_TO_CLIENT, WORKER_TO_BROKER, BROKER_TO_WORKER };

enum message_kind {
    /* client to broker */
    MSG_GENERATE,
    MSG_EMBED,
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
    MSG_ADVANCED,
    MSG_WORKER_BEAT,
    MSG_BYE,
    /* broker to worker */
    MSG_WELCOME,
    MSG_REFUSED,
    MSG_SUBMIT,
    MSG_OPEN,
    MSG_ADVANCE,
    MSG_DROP,
    MSG_BROKER_BEAT,
    MSG_STOP,
    MSG_KINDS
};

/* How far a worker that is gone came with one choice of a request. */
struct resumed_choice {
    struct slice ids;           /* int32_t, little-endian: generated so far */
    uint64_t text_bytes;        /* of the text of these that have been told */
    double logprob_sum;         /* of these */
    struct slice finish_reason; /* it has ended; absent while it goes on */
};

/* A completion that somebody wants, or with `pooling` an embedding. Exactly one of prompt and tokens is
 * given. */
struct generate {
    struct slice model;
    struct slice prompt;
    struct id_array tokens; /* used as they are: no BOS is added */
    uint32_t max_tokens;    /* 128 if not given */
    bool has_max_tokens; /* given: prompt and max_tokens must fit the context; else the context may end it */
    uint32_t n;          /* choices: independent answers to one prompt; choice k draws with seed + k */
    uint32_t best_of;    /* candidates of which the n best become the choices; 0: n */
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    bool has_seed; /* without one the broker draws it, once, at acceptance */
    uint64_t seed;
    struct slice_array stop;
    uint32_t logprobs; /* alternatives per token; with has_logprobs even 0 asks for the chosen token's */
    bool has_logprobs;
    uint32_t prompt_logprobs; /* the same for the tokens of the prompt */
    bool has_prompt_logprobs;
    struct slice cache_salt; /* requests with different salts share no cached prefix */
    struct slice session;    /* a name: what is computed of the text is kept on disk under it */
    struct slice pooling; /* "mean" or "last": the hidden states become an embedding, nothing is generated */
    bool normalize;       /* the embedding, to length 1 */
    bool ignore_end;      /* go on past end-of-text tokens */
    bool stream;          /* tokens as they come; otherwise all of them in `done` */
    uint64_t deadline_ms; /* from acceptance to the last token; 0 for none */

    /* Only for workers: what another one began. */
    struct struct_array resume; /* struct resumed_choice, one for each choice or candidate; none: nothing */
    uint32_t prompt_told;       /* tokens of the prompt whose details have been told */
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

/* One of several answers to a prompt. */
struct choice_row {
    uint32_t index;
    struct slice finish_reason;
    struct id_array ids; /* this and the next two when not streaming */
    struct slice text;
    struct struct_array logprobs;
    uint64_t completion_tokens;
    double logprob_sum; /* of its tokens */
};

/* Where the time went, in ms as the broker saw it. */
struct timing {
    double queue_ms; /* acceptance to dispatch */
    double ttft_ms;  /* acceptance to first token; 0 when there was none */
    double total_ms; /* acceptance to end */
    double tok_s;    /* tokens after the first of each choice, per second; 0 when there are none */
};

/* ---- client to broker: each with `id`, the client's number for the request ---- */

struct msg_generate { /* generate, embed */
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
    uint32_t choice;
    uint64_t seq; /* index in the choice's stream of ids[0] */
    struct id_array ids;
    struct slice text;            /* may lag behind ids while a character or a stop string is undecided */
    struct struct_array logprobs; /* struct token_detail, one per id, if asked for */
    struct struct_array prompt_logprobs; /* struct token_detail of the prompt's next tokens */
    struct slice finish_reason;          /* of several choices: this one has ended */
};

struct msg_done {
    uint64_t id, epoch;
    struct slice finish_reason; /* "stop" or "length"; of choice 0 if there are several */
    struct id_array ids;        /* this and the next two when not streaming, of the only choice */
    struct slice text;
    struct struct_array logprobs;
    struct struct_array prompt_logprobs; /* struct token_detail, when not streaming, if asked for */
    struct struct_array choices;         /* struct choice_row, if there are several */
    struct slice embedding;              /* little-endian float32 */
    uint64_t prompt_tokens;
    uint64_t completion_tokens; /* of all candidates */
    uint64_t cached_tokens;     /* of the prompt, found in the cache */
    struct slice cache_miss;    /* why not all: "new", "evicted", "short", "not_used" */
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
    uint64_t kv_pages;           /* it has */
    uint64_t kv_used, kv_cached; /* of these: by sequences; kept for prompts that begin alike */
    uint64_t preempted;          /* sequences that had to give their pages to others */
    uint64_t cached_tokens;      /* of prompts, found in the cache */
};

struct msg_stats_reply {
    uint64_t id, epoch;
    struct slice version;
    double uptime_s;
    uint64_t clients, queued, running;
    uint64_t accepted, done, failed, cancelled, refused;
    uint64_t moved;              /* requests that went on at another worker, since theirs was lost */
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
    struct slice
        host;       /* one run of a model host: the same for its workers, and for all their registrations */
    uint32_t index; /* which worker of its host: 0, 1, ... */
    uint64_t pid;
    uint32_t slots; /* first credit: jobs it takes at once */
    uint32_t n_ctx, n_vocab;
    uint64_t parameters, weight_bytes;
    struct slice isa;
    uint64_t kv_pages;    /* of its cache */
    uint32_t page_tokens; /* positions a page holds */
};

/* One message for everything a step brought forth. finish_reason ends a choice of its job, and the job with
 * the last of max(n, best_of) choices; "cancelled" and error_code end the whole job at once. The item that
 * ends a job gives back one credit. */
struct step_item {
    uint64_t job;
    uint32_t choice;
    struct id_array ids;
    struct slice text;
    struct struct_array logprobs; /* struct token_detail */
    struct slice finish_reason;   /* "stop", "length", "cancelled" */
    struct slice error_code, error_message;
    uint64_t prompt_tokens; /* known from the first item on */
    uint64_t cached_tokens; /* this and cache_miss with the first item of a job, as in done */
    struct slice cache_miss;
    struct struct_array
        prompt_logprobs;    /* struct token_detail of the prompt's next tokens, before any token */
    double logprob_sum;     /* of the choice's tokens so far: where there are several, and of an ending */
    struct slice embedding; /* with finish_reason "stop": little-endian float32 */
    uint64_t decode_us;     /* of an ending: from its first token to its last, as the worker made them */
};

struct msg_step {
    uint64_t epoch;
    struct struct_array items; /* struct step_item */
};

/* The answer to `advance`. */
struct token_scores {
    struct struct_array top;   /* struct token_alternative, most likely first */
    struct float_array exact;  /* log of the probability that the next token spells strings[i] */
    struct float_array prefix; /* that it begins with it; -9999 for a probability of 0 */
};

struct msg_advanced {
    uint64_t epoch, job, op;
    uint32_t n_tokens;            /* length of the sequence now */
    struct id_array ids;          /* appended, then generated */
    struct struct_array logprobs; /* struct token_detail, one per id, if asked for */
    bool is_end;                  /* generation met an end token, which is not among ids */
    bool has_score;
    struct token_scores score;
    struct slice error_code, error_message; /* nothing of the operation was done */
};

struct msg_worker_beat {
    uint64_t epoch;
    uint64_t steps; /* forward progress: must rise while running is not 0 */
    uint32_t running;
    uint64_t tokens, prompt_tokens;
    uint64_t kv_used, kv_cached; /* pages, now */
    uint64_t preempted, cached_tokens;
};

/* ---- broker to worker ---- */

struct msg_welcome {
    uint64_t epoch;
};

struct msg_refused { /* in place of welcome */
    uint64_t epoch;
    struct slice message;
};

struct msg_submit { /* submit, open */
    uint64_t epoch;
    uint64_t job;
    struct generate request; /* with has_seed */
};

struct score_request {
    uint32_t top;
    struct slice_array strings;
};

/* Of an opened sequence: these happen in this order. */
struct msg_advance {
    uint64_t epoch, job;
    uint64_t op;   /* comes back in `advanced` */
    bool has_keep; /* truncate to this many tokens */
    uint32_t keep;
    struct id_array tokens; /* append these, or what `bytes` are as running text */
    struct slice bytes;
    uint32_t logprobs; /* details of every token appended or generated, as in struct generate */
    bool has_logprobs;
    uint32_t generate; /* tokens to generate */
    bool has_score;
    struct score_request score; /* of the token that would follow */
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
#define ERROR_POISON            "poison"
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
        struct msg_advanced advanced;
        struct msg_worker_beat beat;
        struct msg_welcome welcome;
        struct msg_refused refused;
        struct msg_submit submit;
        struct msg_advance advance;
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

/* 1 to MAX_SESSION_NAME letters, digits, '_', '-'. */
bool session_name_is_valid(struct slice name);

/* A slice of a C string. */
struct slice slice_of(const char *text);
bool slice_is(struct slice s, const char *text);

#endif
