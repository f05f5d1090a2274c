#include "worker/drafter.h"

#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/xalloc.h"

/* What a slot's cache holds. */
struct known {
    uint64_t owner;
    int32_t *tokens; /* [n_ctx] */
    int n;
};

struct drafter {
    struct engine *engine;
    struct sampler *sampler;
    int n_slots, n_ctx, max_rows;
    struct known *known; /* [n_slots] */
    struct row *rows;    /* [max_rows] */
    int *asked;          /* [n_slots] requests with logits in the step, in order */
    double token_us;     /* smoothed */
};

enum status drafter_create(struct drafter **out, const struct model *m, const struct engine_options *like,
                           struct error *err)
{
    struct engine_options o = *like;
    struct engine *engine;
    o.n_pages = 0;
    o.max_rows = o.n_slots + DRAFTER_CATCH_UP;
    enum status s = engine_create(&engine, m, &o, err);
    *out = NULL;
    if (s != OK)
        return s;

    struct drafter *d = *out = xcalloc(1, sizeof *d);
    d->engine = engine;
    d->sampler = sampler_create(model_facts(m)->n_vocab);
    d->n_slots = o.n_slots;
    d->n_ctx = o.n_ctx;
    d->max_rows = o.max_rows;
    d->rows = xcalloc((size_t)o.max_rows, sizeof *d->rows);
    d->asked = xcalloc((size_t)o.n_slots, sizeof *d->asked);
    d->known = xcalloc((size_t)o.n_slots, sizeof *d->known);
    for (int i = 0; i < o.n_slots; i++)
        d->known[i].tokens = xcalloc((size_t)o.n_ctx, sizeof *d->known[i].tokens);
    return OK;
}

void drafter_destroy(struct drafter *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->n_slots; i++)
        free(d->known[i].tokens);
    free(d->known);
    free(d->asked);
    free(d->rows);
    sampler_destroy(d->sampler);
    engine_destroy(d->engine);
    free(d);
}

double drafter_token_us(const struct drafter *d)
{
    return d->token_us;
}

/* Forgets what is not the beginning of the sequence, and its last token, whose logits are wanted. */
static struct known *agree(struct drafter *d, const struct draft_request *r)
{
    struct known *k = &d->known[r->slot];
    int n = 0, most = k->n < r->n_tokens - 1 ? k->n : r->n_tokens - 1;
    while (k->owner == r->owner && n < most && k->tokens[n] == r->tokens[n])
        n++;
    k->owner = r->owner;
    k->n = n;
    return k;
}

static void add_row(struct drafter *d, int *n_rows, struct known *k, int slot, int32_t token, bool wants)
{
    d->rows[(*n_rows)++] = (struct row){ .token = token, .slot = slot, .pos = k->n, .want_logits = wants };
    k->tokens[k->n++] = token;
}

/* Rows for what is not known of the sequences; those that are known to the end are asked what follows. */
static int catch_up(struct drafter *d, struct draft_request *requests, int n, int *n_asked)
{
    int n_rows = 0, room = DRAFTER_CATCH_UP;
    for (int i = 0; i < n; i++) {
        struct draft_request *r = &requests[i];
        struct known *k = agree(d, r);
        r->n_out = 0;
        while (k->n < r->n_tokens - 1 && room-- > 0)
            add_row(d, &n_rows, k, r->slot, r->tokens[k->n], false);
        if (k->n < r->n_tokens - 1 || r->max_draft == 0)
            continue;
        add_row(d, &n_rows, k, r->slot, r->tokens[k->n], true);
        d->asked[(*n_asked)++] = i;
    }
    return n_rows;
}

/* What the asked ones are told; they ask again while they want more. Returns the rows for it. */
static int extend(struct drafter *d, struct draft_request *requests, int *n_asked)
{
    int n_rows = 0, n_again = 0;
    for (int i = 0; i < *n_asked; i++) {
        struct draft_request *r = &requests[d->asked[i]];
        struct known *k = &d->known[r->slot];
        struct choice c;
        if (!sampler_choose(d->sampler, r->sampling, engine_logits(d->engine, i), (uint64_t)k->n, &c))
            continue;
        r->out[r->n_out++] = c.token.id;
        if (r->n_out == r->max_draft || k->n == d->n_ctx)
            continue;
        add_row(d, &n_rows, k, r->slot, c.token.id, true);
        d->asked[n_again++] = d->asked[i];
    }
    *n_asked = n_again;
    return n_rows;
}

void drafter_propose(struct drafter *d, struct draft_request *requests, int n)
{
    int n_asked = 0, n_rows = catch_up(d, requests, n, &n_asked);
    bool is_catching_up = true; /* steps of which tell nothing about the price of a token */
    while (n_rows > 0) {
        int64_t begin_us = clock_us();
        engine_step(d->engine, d->rows, n_rows);
        double us = (double)(clock_us() - begin_us);
        if (!is_catching_up || n_rows == n_asked)
            d->token_us = d->token_us > 0 ? d->token_us + (us - d->token_us) / 8 : us;
        is_catching_up = false;
        n_rows = extend(d, requests, &n_asked);
    }
}
