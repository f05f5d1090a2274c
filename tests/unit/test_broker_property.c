/* Random events against the broker's core: whatever happens, every accepted request ends exactly once,
 * nothing is sent about it afterwards, the stream of each choice has no gap and ends once, and no worker gets
 * more jobs than it has slots. */
#include "common/log.h"
#include "tests/unit/broker_world.h"

enum {
    CLIENTS = 4, /* peers 1..4 */
    WORKERS = 3, /* peers 8..10 */
    FIRST_WORKER = 8,
    REQUESTS = 800,  /* per client */
    WORKER_JOBS = 8, /* slots are fewer */
    CHOICES = 3,     /* at most, also with best_of */
    EVENTS = 3000,
    RUNS = 30,
};

struct request {
    int accepted, endings;
    bool is_stream;
    uint32_t n;
    uint64_t tokens[CHOICES];
    int choice_endings[CHOICES];
    bool may_be_unheard; /* its client could not be reached at some time */
};

struct fake_job {
    uint64_t job;
    bool is_dropped;
    uint32_t n_candidates;
    bool has_ended[CHOICES];
};

struct fake_worker {
    uint32_t slots;
    bool is_alive;
    int n;
    struct fake_job jobs[WORKER_JOBS];
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

static void check_done(const struct request *q, const struct sent *s)
{
    uint64_t streamed = 0;
    assert_int_equal(s->n_choices, q->n > 1 ? q->n : 0);
    for (uint32_t i = 0; i < q->n && q->is_stream; i++) {
        assert_int_equal(q->choice_endings[i], q->n > 1);
        assert_true(q->n == 1 || s->choice_tokens[i] == q->tokens[i]);
        streamed += q->tokens[i];
    }
    if (q->is_stream)
        assert_int_equal(s->completion_tokens, streamed);
}

static void client_hears(struct run *r, const struct sent *s)
{
    if (s->kind == MSG_CLIENT_BEAT)
        return;
    struct request *q = &r->requests[s->to][s->id];
    assert_int_equal(q->endings, 0);
    if (s->kind == MSG_ACCEPTED) {
        assert_int_equal(q->accepted++, 0);
    } else if (s->kind == MSG_TOKENS) {
        assert_true(q->accepted == 1 && q->is_stream && s->choice < q->n);
        assert_int_equal(q->choice_endings[s->choice], 0);
        assert_int_equal(s->seq, q->tokens[s->choice]);
        q->tokens[s->choice] += s->n_ids;
        q->choice_endings[s->choice] += s->is_end;
    } else {
        assert_true(s->kind == MSG_DONE || s->kind == MSG_CANCELLED || s->kind == MSG_ERROR);
        q->endings++;
        if (s->kind == MSG_DONE)
            check_done(q, s);
    }
}

static void worker_hears(struct run *r, const struct sent *s)
{
    struct fake_worker *f = &r->workers[s->to - FIRST_WORKER];
    if (s->kind == MSG_SUBMIT) {
        assert_true((uint32_t)f->n < f->slots);
        memset(&f->jobs[f->n], 0, sizeof f->jobs[f->n]);
        f->jobs[f->n].job = s->job;
        f->jobs[f->n++].n_candidates = s->best_of > s->n ? s->best_of : s->n;
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
    struct request *q = &r->requests[client][m.generate.id];
    q->n = m.generate.request.n = draw(r, 2) ? 1 : 1 + draw(r, CHOICES);
    q->is_stream = m.generate.request.stream = draw(r, 3) != 0;
    if (!q->is_stream && draw(r, 2))
        m.generate.request.best_of = q->n + draw(r, CHOICES - q->n + 1);
    q->may_be_unheard = r->world->client_status[client] == E_UNREACHABLE;
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

/* Some tokens of a choice that goes on, with some end perhaps. Returns true if the job ends with them. */
static bool step_job(struct run *r, struct fake_job *job, struct step_item *item)
{
    static const int32_t ids[] = { 1, 2, 3 };
    uint32_t n_ids = draw(r, 4), fate = draw(r, 12), choice = draw(r, job->n_candidates), n_ended = 0;
    while (job->has_ended[choice])
        choice = (choice + 1) % job->n_candidates;
    *item = (struct step_item){
        .job = job->job, .choice = choice, .ids = { ids, n_ids }, .text = { "aaa", n_ids }
    };
    if (job->is_dropped && draw(r, 2)) {
        item->finish_reason = slice_of("cancelled");
        return true;
    }
    if (fate == 0) {
        item->error_code = slice_of(ERROR_CONTEXT_LENGTH);
        return true;
    }
    if (fate >= 5)
        return false;
    item->finish_reason = slice_of(fate == 1 ? "length" : "stop");
    item->logprob_sum = -(double)draw(r, 5);
    job->has_ended[choice] = true;
    for (uint32_t i = 0; i < job->n_candidates; i++)
        n_ended += job->has_ended[i];
    return n_ended == job->n_candidates;
}

static void worker_steps(struct run *r, int i)
{
    struct fake_worker *f = &r->workers[i];
    struct step_item items[WORKER_JOBS + 1];
    int n = 0, kept = 0;

    for (int k = 0; k < f->n; k++)
        if (!step_job(r, &f->jobs[k], &items[n++]))
            f->jobs[kept++] = f->jobs[k];
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
