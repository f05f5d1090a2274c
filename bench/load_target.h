/* A server under load, whichever way it is spoken to: one connection or many, used by one thread. */
#ifndef WOOLLY_BENCH_LOAD_TARGET_H
#define WOOLLY_BENCH_LOAD_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/load.h"
#include "bench/load_prompt.h"
#include "common/status.h"

enum load_event_kind { LOAD_TOKENS, LOAD_DONE, LOAD_ERROR };

struct load_event {
    enum load_event_kind kind;
    int user;
    int tokens;      /* that came; of LOAD_DONE: of the whole answer, 0 when the server does not say */
    const char *why; /* of LOAD_ERROR; valid until the next call */
    int64_t at_us;   /* when it came */
};

struct load_target {
    const struct load_target_calls *calls;
    char where[512]; /* for people */
    int n_vocab;     /* prompts are ids below it; 0: they are texts */
};

struct load_target_calls {
    /* Asks for user's next answer. Only when that user has none running. */
    enum status (*submit)(struct load_target *t, int user, const struct prompts *prompt, struct error *err);

    /* Gives up the user's running answer: no event of it comes any more. */
    void (*cancel)(struct load_target *t, int user);

    /* The next event of any user. False when none came within timeout_ms, or somewhat earlier. */
    bool (*next)(struct load_target *t, int timeout_ms, struct load_event *e);

    void (*close)(struct load_target *t);
};

/* Each sets *out to NULL on failure; E_UNREACHABLE when nobody answers. The request outlives the target. */
MUST_CHECK enum status load_open_zmq(struct load_target **out, const struct load_request *q,
                                     struct error *err);
MUST_CHECK enum status load_open_http(struct load_target **out, const struct load_request *q,
                                      struct error *err);

#endif
