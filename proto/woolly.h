/* libwoolly: completions from a Woolly server, for C and C++ programs.
 *
 *     struct woolly *w;
 *     struct woolly_error err;
 *     if (woolly_connect(&w, NULL, &err) != WOOLLY_OK)
 *         errx(1, "%s", err.text);
 *     struct woolly_request r;
 *     woolly_request_init(&r, "llama", "Once upon a time");
 *     uint64_t id;
 *     if (woolly_submit(w, &r, &id, &err) != WOOLLY_OK)
 *         errx(1, "%s", err.text);
 *     struct woolly_event e;
 *     while (woolly_next(w, -1, &e) == WOOLLY_OK)
 *         if (e.kind == WOOLLY_TOKENS)
 *             fwrite(e.text, 1, e.text_len, stdout);
 *     woolly_close(w);
 *
 * Ownership: a request is copied by woolly_submit. Everything an event or a reply points to belongs to the
 * connection and is valid until the next call on that connection, whichever it is.
 *
 * Threads: one connection belongs to one thread at a time; any number of connections may live side by side.
 * After a fork only the parent may go on using its connections.
 *
 * Requests: many at once on one connection. Each that woolly_submit or woolly_embed took ends in exactly one
 * event WOOLLY_DONE, WOOLLY_ERROR or WOOLLY_CANCELLED, and none follows after it. When the server goes away
 * or is silent for six seconds, every live request ends with an error "unreachable"; the connection itself
 * stays usable and finds the server again when it is back.
 *
 * Limits: names of models 128 bytes, prompts 8 MiB of text or 524288 tokens, 16 stop texts of 256 bytes, 20
 * alternatives per token, 16 choices, salts 64 bytes, messages 16 MiB. What the server refuses comes back as
 * WOOLLY_ERROR. The library ends the program when there is no memory for its small control structures. */
#ifndef WOOLLY_H
#define WOOLLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WOOLLY_API        __attribute__((visibility("default")))
#define WOOLLY_MUST_CHECK __attribute__((warn_unused_result))

enum woolly_status {
    WOOLLY_OK = 0,
    WOOLLY_TIMEOUT,     /* nothing came in that time */
    WOOLLY_IDLE,        /* no request is live: there is nothing to wait for */
    WOOLLY_INVALID,     /* the arguments break a limit, or name a request that is not live */
    WOOLLY_UNREACHABLE, /* no server there, or it does not answer */
    WOOLLY_OVERLOADED,  /* too much is waiting on this connection: take events first */
    WOOLLY_REFUSED,     /* the server answered with an error, which the text repeats */
    WOOLLY_FAILED,      /* a system call failed */
};

/* Filled on failure: one sentence, what and what to do. */
struct woolly_error {
    enum woolly_status status;
    char text[500];
};

struct woolly;

/* Connects and waits, at most two seconds, for the server's first answer. `endpoint` is a ZeroMQ endpoint
 * such as "tcp://127.0.0.1:5555"; NULL means $WOOLLY_ENDPOINT, else the server that this user has running.
 * *out is NULL on failure. err may be NULL, here and below. */
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status woolly_connect(struct woolly **out, const char *endpoint,
                                                               struct woolly_error *err);

/* The same for a server on another machine that takes only encrypted connections of keys it knows. `key_file`
 * is a file made by `woolly keygen`, `server_key` the server's public key; NULL means $WOOLLY_KEY and
 * $WOOLLY_SERVER_KEY, which woolly_connect uses as well. Keys count for tcp:// endpoints only. */
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status
woolly_connect_with_keys(struct woolly **out, const char *endpoint, const char *key_file,
                         const char *server_key, struct woolly_error *err);

/* Cancels what is live, without waiting for the answers, and frees the connection. NULL is fine. */
WOOLLY_API void woolly_close(struct woolly *w);

/* ---- requests ---- */

struct woolly_request {
    const char *model;
    const char *prompt;    /* UTF-8; NULL when tokens are given */
    const int32_t *tokens; /* used as they are: no BOS is added */
    size_t n_tokens;
    uint32_t max_tokens; /* 0: 128, or fewer where the context ends; else prompt and these must fit it */
    float temperature;   /* 0: always the most likely token */
    uint32_t top_k;      /* 0: off */
    float top_p;         /* 1: off */
    float min_p;         /* 0: off */
    bool has_seed;       /* without one the server draws it and tells it in `accepted` and `done` */
    uint64_t seed;
    const char *const *stop;
    size_t n_stop;
    bool has_logprobs;
    uint32_t logprobs; /* alternatives per token, besides the chosen one */
    bool has_prompt_logprobs;
    uint32_t prompt_logprobs; /* the same for the tokens of the prompt */
    uint32_t n;               /* 1: answers wanted, at most 16; answer k draws with seed + k */
    uint32_t best_of;         /* 0: n; else so many are made and the n best are told: `whole` only */
    const char *cache_salt; /* NULL, or up to 64 bytes: what the server has computed of a prompt serves other
                               prompts that begin like it, of requests with the same salt only */
    const char *session;    /* NULL, or a name of up to 64 letters, digits, '_', '-': the server keeps what it
                               has    computed of the text on disk, for a later request of the same session */
    bool ignore_end;        /* go on past end-of-text tokens */
    bool whole;             /* no tokens events: everything comes in `done` */
    uint64_t deadline_ms;   /* from acceptance to the last token; 0: none */
    void *user;             /* comes back in every event */
};

/* The defaults noted above. prompt may be NULL. */
WOOLLY_API void woolly_request_init(struct woolly_request *r, const char *model, const char *prompt);

/* Sends the request and returns at once. *id names it on this connection (never 0, never used twice). */
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status
woolly_submit(struct woolly *w, const struct woolly_request *r, uint64_t *id, struct woolly_error *err);

/* What a model makes of a text as a whole, as a vector. */
struct woolly_embed_request {
    const char *model;
    const char *prompt; /* or tokens, as in struct woolly_request */
    const int32_t *tokens;
    size_t n_tokens;
    const char *pooling; /* "mean" of the hidden states of all tokens, or that of the "last" */
    bool normalize;      /* true: to length 1 */
    const char *cache_salt;
    uint64_t deadline_ms;
    void *user;
};

/* The defaults: mean, to length 1. */
WOOLLY_API void woolly_embed_request_init(struct woolly_embed_request *r, const char *model,
                                          const char *prompt);

/* As woolly_submit. The event WOOLLY_DONE has the embedding. */
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status
woolly_embed(struct woolly *w, const struct woolly_embed_request *r, uint64_t *id, struct woolly_error *err);

/* Asks the server to stop request `id`. It still ends with its one event: cancelled, or done or error if
 * that was faster. */
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status woolly_cancel(struct woolly *w, uint64_t id,
                                                              struct woolly_error *err);

/* ---- events ---- */

enum woolly_event_kind {
    WOOLLY_ACCEPTED = 1,
    WOOLLY_TOKENS,
    WOOLLY_DONE,      /* an end */
    WOOLLY_ERROR,     /* an end */
    WOOLLY_CANCELLED, /* an end */
};

struct woolly_alternative {
    int32_t id;
    float logprob;
    const char *bytes; /* the token's bytes: not always whole characters, not terminated */
    size_t n_bytes;
};

struct woolly_token {
    int32_t id;
    float logprob;
    const char *bytes;
    size_t n_bytes;
    const struct woolly_alternative *top; /* most likely first */
    uint32_t n_top;
};

/* Times in ms and speed as the server measured them. */
struct woolly_timing {
    double queue_ms; /* acceptance to start */
    double ttft_ms;  /* acceptance to first token; 0 when there was none */
    double total_ms; /* acceptance to end */
    double tok_s;    /* tokens after the first of each choice, per second; 0 when there are none */
};

/* One of several answers. */
struct woolly_choice {
    uint32_t index; /* of best_of: by rank */
    const char *finish_reason;
    uint64_t completion_tokens;
    double logprob_sum; /* of its tokens */

    /* when the request asked for the whole, as in an event */
    const char *text;
    size_t text_len;
    const int32_t *ids;
    uint32_t n_ids;
    const struct woolly_token *logprobs;
    uint32_t n_logprobs;
};

/* Fields that the kind does not have are 0, or "" for text. All text is UTF-8 and terminated. */
struct woolly_event {
    enum woolly_event_kind kind;
    uint64_t request;
    void *user;

    /* accepted */
    uint64_t job;            /* the server's number for it, as in its log */
    uint32_t queue_position; /* requests before it */

    /* accepted, done */
    uint64_t seed;

    /* tokens */
    uint32_t choice; /* of which answer, from 0 */

    /* tokens; done, when the request asked for the whole of one answer */
    const char *text; /* whole characters; may lag behind ids while a stop text is undecided */
    size_t text_len;
    const int32_t *ids;
    uint32_t n_ids;
    const struct woolly_token *logprobs; /* one per id, if asked for */
    uint32_t n_logprobs;

    /* tokens, before the first of them; done, when the request asked for the whole; one per token of the
     * prompt, if asked for */
    const struct woolly_token *prompt_logprobs;
    uint32_t n_prompt_logprobs;

    /* done, cancelled */
    uint64_t prompt_tokens, completion_tokens;

    /* done; tokens, when this one of several choices has ended */
    const char *finish_reason; /* "stop" or "length" */

    /* done */
    struct woolly_timing timing;
    const struct woolly_choice *choices; /* if several were wanted */
    uint32_t n_choices;
    uint64_t cached_tokens; /* of the prompt, which were not computed again */
    const char *cache_miss; /* why not more: "new", "evicted", "short", "not_used"; or "" */
    const float *embedding; /* of woolly_embed */
    uint32_t n_embedding;

    /* error */
    const char *code;    /* "unknown_model", "overloaded", ...; "unreachable" when the server is gone */
    const char *message; /* for people */
    bool is_retryable;   /* the same request may succeed later */
    uint64_t retry_ms;   /* when to try again; 0 when unknown */
};

/* The next event of any live request, in the order they came. Waits at most timeout_ms, -1 for as long as it
 * takes. Returns WOOLLY_OK, WOOLLY_TIMEOUT (also early, when a signal handler ran) or WOOLLY_IDLE. A program
 * with live requests calls this at least once a second, or when woolly_fd is readable: a silent server is
 * noticed here. */
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status woolly_next(struct woolly *w, int timeout_ms,
                                                            struct woolly_event *e);

/* A descriptor for poll, select or epoll: readable while woolly_next(w, 0, ...) has something to do. It
 * belongs to the connection. -1 when the system has none left. */
WOOLLY_API int woolly_fd(struct woolly *w);

/* Requests submitted whose end woolly_next has not told yet. */
WOOLLY_API size_t woolly_live(const struct woolly *w);

/* ---- questions: each waits for its answer, at most timeout_ms; events meanwhile are kept ---- */

struct woolly_model {
    const char *name, *path, *architecture;
    const char *state; /* "loading" or "ready" */
    uint64_t parameters, weight_bytes;
    uint32_t n_ctx, n_vocab;
    uint32_t workers, slots, running, queued;
};

struct woolly_models {
    const struct woolly_model *models;
    size_t n;
};

struct woolly_worker {
    const char *model;
    uint32_t index;
    uint64_t pid;
    uint32_t slots, running;
    uint64_t done, tokens, prompt_tokens;
    double tok_s;       /* now */
    double beat_age_ms; /* since its last sign of life */
    uint64_t kv_pages;  /* of its cache: */
    uint64_t kv_used;   /* those of running requests, */
    uint64_t kv_cached; /* those kept for prompts that begin alike */
    uint64_t preempted; /* sequences that had to wait for pages in their middle */
    uint64_t cached_tokens;
};

struct woolly_stats {
    const char *version;
    double uptime_s;
    uint64_t clients, queued, running;
    uint64_t accepted, done, failed, cancelled, refused;
    uint64_t moved;  /* to another worker, since theirs was lost */
    uint64_t tokens; /* generated since the server started */
    uint64_t rss_bytes;
    const struct woolly_worker *workers;
    size_t n_workers;
};

struct woolly_health {
    bool is_ready;      /* every configured model can answer */
    const char *status; /* "loading", "ok", "stopping" */
    uint64_t pid;       /* SIGTERM there stops the server */
    const char *version;
};

WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status
woolly_get_models(struct woolly *w, int timeout_ms, struct woolly_models *out, struct woolly_error *err);
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status
woolly_get_stats(struct woolly *w, int timeout_ms, struct woolly_stats *out, struct woolly_error *err);
WOOLLY_API WOOLLY_MUST_CHECK enum woolly_status
woolly_get_health(struct woolly *w, int timeout_ms, struct woolly_health *out, struct woolly_error *err);

#ifdef __cplusplus
}
#endif

#endif
