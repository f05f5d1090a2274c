/* Random events against the broker's core: whatever happens, every accepted request ends exactly once,
 * nothing is sent about it afterwards, streams have no gap, and no worker gets more jobs than it has slots.
 */
#include "common/log.h"
#include "tests/unit/broker_world.h"

enum {
    CLIENTS = 4, /* peers 1..4 */
    WORKERS = 3, /* peers 8..10 */
    FIRST_WORKER = 8,
    REQUESTS = 800,  /* per client */
    WORKER_JOBS = 8, /* slots are fewer */
    EVENTS = 3000,
    RUNS = 30,
};

struct request {
    int accepted, endings;
    uint64_t tokens;
    bool may_be_unheard; /* its client could not be reached at some time */
};

struct fake_worker {
    uint32_t slots;
    bool is_alive;
    int n;
    struct {
        uint64_t job;
        bool is_dropped;
    } jobs[WORKER_JOBS];
};

struct run {
    struct world *world;
    size_t n_read; /* of world->sent */
    struct request requests[CLIENTS + 1][REQUESTS + 1];
    uint64_t last_id[CLIENTS + 1];
    struct fake_worker workers[WORKERS];
    uint32_t seed;
};

static uint32_t draw(struct run *r, uint32_t below)
{
    r->seed = r->seed * 1664525 + 1013904223;
    return (r->seed >> 8) % below;
}

/* ---- what the peers make of what was sent ---- */

static void client_hears(struct run *r, const struct sent *s)
{
    if (s->kind == MSG_CLIENT_BEAT)
        return;
    struct request *q = &r->requests[s->to][s->id];
    assert_int_equal(q->endings, 0);
    if (s->kind == MSG_ACCEPTED) {
        assert_int_equal(q->accepted++, 0);
    } else if (s->kind == MSG_TOKENS) {
        assert_int_equal(q->accepted, 1);
        assert_int_equal(s->seq, q->tokens);
        q->tokens += s->n_ids;
    } else {
        assert_true(s->kind == MSG_DONE || s->kind == MSG_CANCELLED || s->kind == MSG_ERROR);
        q->endings++;
        if (s->kind == MSG_DONE)
            assert_int_equal(s->completion_tokens, q->tokens);
    }
}

static void worker_hears(struct run *r, const struct sent *s)
{
    struct fake_worker *f = &r->workers[s->to - FIRST_WORKER];
    if (s->kind == MSG_SUBMIT) {
        assert_true((uint32_t)f->n < f->slots);
        f->jobs[f->n].job = s->job;
        f->jobs[f->n++].is_dropped = false;
    } else if (s->kind == MSG_DROP) {
        for (int i = 0; i < f->n; i++)
            if (f->jobs[i].job == s->id)
                f->jobs[i].is_dropped = true;
    }
}

static void hear(struct run *r)
{
    for (; r->n_read < r->world->n_sent; r->n_read++) {
        const struct sent *s = &r->world->sent[r->n_read];
        if (s->link == BROKER_TO_CLIENT)
            client_hears(r, s);
        else
            worker_hears(r, s);
    }
    r->n_read = 0;
    forget_sent(r->world);
    list_each(model, &r->world->broker.models, struct model, of_broker)
        assert_in_range(model->queue.count, 0, WORLD_QUEUE);
}

/* ---- events ---- */

static void new_request(struct run *r, int client)
{
    if (r->last_id[client] == REQUESTS)
        return;
    struct message m = world_generate(++r->last_id[client]);
    if (draw(r, 4) == 0)
        m.generate.request.deadline_ms = 1 + draw(r, 3000);
    r->requests[client][m.generate.id].may_be_unheard = r->world->client_status[client] == E_UNREACHABLE;
    world_client_says(r->world, client, &m);
}

static void change_client(struct run *r, int client)
{
    static const enum status choices[] = { OK, OK, OK, E_OVERLOADED, E_UNREACHABLE };
    enum status s = choices[draw(r, 5)];
    r->world->client_status[client] = s;
    if (s == E_UNREACHABLE)
        for (uint64_t id = 1; id <= r->last_id[client]; id++)
            r->requests[client][id].may_be_unheard = true;
}

static void worker_starts(struct run *r, int i)
{
    struct fake_worker *f = &r->workers[i];
    *f = (struct fake_worker){ .is_alive = true, .slots = 1 + draw(r, 4) };
    r->world->worker_status[FIRST_WORKER + i] = OK;
    register_as(r->world, FIRST_WORKER + i, "m", (uint32_t)i, f->slots);
}

static void worker_steps(struct run *r, int i)
{
    struct fake_worker *f = &r->workers[i];
    static const int32_t ids[] = { 1, 2, 3 };
    struct step_item items[WORKER_JOBS];
    int n = 0, kept = 0;

    for (int k = 0; k < f->n; k++) {
        uint32_t n_ids = draw(r, 4), fate = draw(r, 12);
        bool is_dropped = f->jobs[k].is_dropped && draw(r, 2);
        struct step_item item = { .job = f->jobs[k].job, .ids = { ids, n_ids }, .text = { "aaa", n_ids } };
        if (is_dropped)
            item.finish_reason = slice_of("cancelled");
        else if (fate == 0)
            item.error_code = slice_of(ERROR_CONTEXT_LENGTH);
        else if (fate < 3)
            item.finish_reason = slice_of("stop");
        if (!item.finish_reason.data && !item.error_code.data)
            f->jobs[kept++] = f->jobs[k];
        items[n++] = item;
    }
    f->n = kept;
    if (draw(r, 10) == 0) /* of a job that nobody knows */
        items[n++] = (struct step_item){ .job = 1000000, .finish_reason = slice_of("stop") };
    say_items(r->world, FIRST_WORKER + i, items, (uint32_t)n);
}

static void worker_dies(struct run *r, int i)
{
    struct peer peer = world_peer(FIRST_WORKER + i);
    struct worker *known = worker_find(&r->world->broker, &peer);
    r->workers[i].is_alive = false;
    if (draw(r, 2))
        r->world->worker_status[FIRST_WORKER + i] = E_UNREACHABLE; /* noticed at the next message */
    else if (known)
        broker_on_worker_exit(&r->world->broker, known, r->world->now_ms);
}

static void any_event(struct run *r)
{
    int client = 1 + (int)draw(r, CLIENTS), worker = (int)draw(r, WORKERS);
    uint32_t what = draw(r, 100);
    if (what < 30)
        new_request(r, client);
    else if (what < 40 && r->last_id[client])
        ask(r->world, client, MSG_CANCEL, 1 + draw(r, (uint32_t)r->last_id[client]));
    else if (what < 45)
        change_client(r, client);
    else if (what < 75 && r->workers[worker].is_alive)
        worker_steps(r, worker);
    else if (what < 85 && !r->workers[worker].is_alive)
        worker_starts(r, worker);
    else if (what == 85)
        worker_starts(r, worker); /* also a live one that begins anew */
    else if (what == 86)
        worker_dies(r, worker);
    else
        pass(r->world, draw(r, 200));
}

static void check_endings(const struct run *r)
{
    for (int client = 1; client <= CLIENTS; client++)
        for (uint64_t id = 1; id <= r->last_id[client]; id++) {
            const struct request *q = &r->requests[client][id];
            if (q->accepted && !q->may_be_unheard)
                assert_int_equal(q->endings, 1);
        }
    assert_int_equal(r->world->broker.jobs.n_live, 0);
    assert_int_equal(r->world->broker.jobs.queued_bytes, 0);
    assert_int_equal(r->world->broker.clients.count, 0);
    const struct counts *c = &r->world->broker.counts;
    assert_int_equal(c->accepted, c->done + c->failed + c->cancelled);
}

static void test_every_accepted_request_ends_exactly_once(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= RUNS; seed++) {
        struct run *r = xcalloc(1, sizeof *r);
        r->seed = seed;
        r->world = world_create();
        for (int i = 0; i < EVENTS; i++) {
            any_event(r);
            hear(r);
        }
        for (int client = 1; client <= CLIENTS; client++)
            r->world->client_status[client] = OK;
        broker_stop(&r->world->broker, 100, r->world->now_ms);
        pass(r->world, 200);
        hear(r);
        assert_true(broker_is_stopped(&r->world->broker, r->world->now_ms));
        check_endings(r);
        assert_true(r->world->broker.counts.done > 50);
        world_destroy(r->world);
        free(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_accepted_request_ends_exactly_once) };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
