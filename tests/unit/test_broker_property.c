/* Random events against the broker's core, workers that die while they work among them: whatever happens,
 * every accepted request ends exactly once, nothing is sent about it afterwards, the stream of each choice is
 * token by token and letter by letter what it would be in a world without deaths, and no worker gets more
 * jobs than it has slots.
 *
 * What a choice will be is a function of its seed, as in a real worker: so and so many tokens, the letters of
 * which come one token later at some places. */
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
    uint64_t seed;
    uint64_t tokens[CHOICES];
    size_t letters[CHOICES];
    int choice_endings[CHOICES];
    bool has_candidates; /* more than choices */
    bool may_be_unheard; /* its client could not be reached at some time */
};

struct fake_job {
    uint64_t job, seed;
    bool is_dropped;
    uint32_t n_candidates;
    uint32_t n_given[CHOICES];
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
    int n_poison, n_resumed;
};

static uint32_t draw(struct run *r, uint32_t below)
{
    r->seed = r->seed * 1664525 + 1013904223;
    return (r->seed >> 8) % below;
}

/* ---- the world without deaths ---- */

static uint32_t hash(uint64_t seed, uint32_t i)
{
    return (uint32_t)(((seed + 1) * 0x9e3779b97f4a7c15u + i * 0xd1b54a32d192ed03u) >> 40);
}

static uint32_t length_of(uint64_t seed)
{
    return hash(seed, 1000) % 24;
}

static int32_t token_of(uint64_t seed, uint32_t i)
{
    return (int32_t)(hash(seed, i) % 26);
}

/* Letters that have been told with the first n tokens. */
static uint32_t letters_of(uint64_t seed, uint32_t n)
{
    bool is_held = n > 0 && n < length_of(seed) && hash(seed, n) % 3 == 0;
    return is_held ? n - 1 : n;
}

static void check_letters(const char *letters, size_t n, uint64_t seed, size_t from)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(letters[i], 'a' + token_of(seed, (uint32_t)(from + i)));
}

/* ---- what the peers make of what was sent ---- */

static void check_done(const struct request *q, const struct sent *s)
{
    uint64_t streamed = 0;
    assert_int_equal(s->n_choices, q->n > 1 ? q->n : 0);
    for (uint32_t i = 0; i < q->n && q->is_stream; i++) {
        assert_int_equal(q->tokens[i], length_of(q->seed + i));
        assert_int_equal(q->letters[i], q->tokens[i]);
        assert_int_equal(q->choice_endings[i], q->n > 1);
        assert_true(q->n == 1 || s->choice_tokens[i] == q->tokens[i]);
        streamed += q->tokens[i];
    }
    if (q->is_stream)
        assert_int_equal(s->completion_tokens, streamed);
    if (q->is_stream || q->has_candidates)
        return;
    if (q->n == 1)
        assert_int_equal(strlen(s->text), length_of(q->seed));
    check_letters(s->text, strlen(s->text), q->seed, 0);
    for (uint32_t i = 0; i < s->n_choices; i++) {
        assert_int_equal(s->choice_tokens[i], length_of(q->seed + i));
        check_letters(s->choice_text[i], strlen(s->choice_text[i]), q->seed + i, 0);
    }
}

static void check_tokens(struct request *q, const struct sent *s)
{
    uint64_t seed = q->seed + s->choice;
    assert_int_equal(s->seq, q->tokens[s->choice]);
    for (uint32_t i = 0; i < s->n_ids; i++)
        assert_int_equal(s->ids[i], token_of(seed, (uint32_t)s->seq + i));
    check_letters(s->text, strlen(s->text), seed, q->letters[s->choice]);
    q->letters[s->choice] += strlen(s->text);
    q->tokens[s->choice] += s->n_ids;
    q->choice_endings[s->choice] += s->is_end;
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
        check_tokens(q, s);
    } else {
        assert_true(s->kind == MSG_DONE || s->kind == MSG_CANCELLED || s->kind == MSG_ERROR);
        q->endings++;
        if (s->kind == MSG_DONE)
            check_done(q, s);
        if (s->kind == MSG_ERROR) {
            assert_string_not_equal(s->code, ERROR_WORKER_LOST);
            r->n_poison += !strcmp(s->code, ERROR_POISON);
        }
    }
}

/* What it is told of an earlier worker's doing must be what that one did. */
static void resume(struct fake_job *job, const struct sent *s)
{
    assert_true(s->n_resumed == 0 || s->n_resumed == job->n_candidates);
    for (uint32_t i = 0; i < s->n_resumed; i++) {
        const struct sent_resume *c = &s->resumed[i];
        uint64_t seed = job->seed + i;
        job->has_ended[i] = c->has_ended;
        job->n_given[i] = c->n_ids;
        if (c->has_ended)
            continue;
        for (uint32_t k = 0; k < c->n_ids; k++)
            assert_int_equal(c->ids[k], token_of(seed, k));
        assert_int_equal(c->text_bytes, letters_of(seed, c->n_ids));
    }
}

static void worker_hears(struct run *r, const struct sent *s)
{
    struct fake_worker *f = &r->workers[s->to - FIRST_WORKER];
    if (s->kind == MSG_SUBMIT) {
        assert_true((uint32_t)f->n < f->slots);
        memset(&f->jobs[f->n], 0, sizeof f->jobs[f->n]);
        f->jobs[f->n].job = s->job;
        f->jobs[f->n].seed = s->seed;
        f->jobs[f->n].n_candidates = s->best_of > s->n ? s->best_of : s->n;
        resume(&f->jobs[f->n++], s);
        r->n_resumed += s->n_resumed > 0;
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
        assert_in_range(model->queue.count, 0, WORLD_QUEUE + WORKERS * WORKER_JOBS); /* with what was moved */
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
    q->has_candidates = m.generate.request.best_of > q->n;
    m.generate.request.has_seed = true;
    m.generate.request.seed = q->seed = draw(r, 1 << 20);
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

/* What an item points to. */
struct fake_output {
    int32_t ids[3];
    char letters[32];
};

/* Some tokens of a choice that goes on, and its end if those were all. Returns true if the job ends with
 * them. */
static bool step_job(struct run *r, struct fake_job *job, struct step_item *item, struct fake_output *out)
{
    uint32_t choice = draw(r, job->n_candidates), n_ended = 0;
    while (job->has_ended[choice])
        choice = (choice + 1) % job->n_candidates;
    *item = (struct step_item){ .job = job->job, .choice = choice };
    if (job->is_dropped && draw(r, 2)) {
        item->finish_reason = slice_of("cancelled");
        return true;
    }
    if (draw(r, 100) == 0) {
        item->error_code = slice_of(ERROR_CONTEXT_LENGTH);
        return true;
    }
    uint64_t seed = job->seed + choice;
    uint32_t from = job->n_given[choice], n = draw(r, 4), told = letters_of(seed, from);
    if (n > length_of(seed) - from)
        n = length_of(seed) - from;
    for (uint32_t i = 0; i < n; i++)
        out->ids[i] = token_of(seed, from + i);
    job->n_given[choice] += n;
    uint32_t n_letters = letters_of(seed, from + n) - told;
    for (uint32_t i = 0; i < n_letters; i++)
        out->letters[i] = (char)('a' + token_of(seed, told + i));
    item->ids = (struct id_array){ out->ids, n };
    item->text = (struct slice){ out->letters, n_letters };
    item->logprob_sum = -(double)(from + n);
    if (from + n < length_of(seed))
        return false;
    item->finish_reason = slice_of(hash(seed, 2000) % 2 ? "length" : "stop");
    job->has_ended[choice] = true;
    for (uint32_t i = 0; i < job->n_candidates; i++)
        n_ended += job->has_ended[i];
    return n_ended == job->n_candidates;
}

static void worker_steps(struct run *r, int i)
{
    struct fake_worker *f = &r->workers[i];
    struct step_item items[WORKER_JOBS + 1];
    struct fake_output outputs[WORKER_JOBS];
    int n = 0, kept = 0;

    for (int k = 0; k < f->n; k++) {
        bool is_over = step_job(r, &f->jobs[k], &items[n], &outputs[n]);
        n++;
        if (!is_over)
            f->jobs[kept++] = f->jobs[k];
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
    else if (what == 86 && r->workers[worker].is_alive)
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
    assert_int_equal(r->world->broker.jobs.held_bytes, 0);
    assert_int_equal(r->world->broker.clients.count, 0);
    const struct counts *c = &r->world->broker.counts;
    assert_int_equal(c->accepted, c->done + c->failed + c->cancelled);
}

static void test_every_accepted_request_ends_exactly_once(void **state)
{
    int n_resumed = 0, n_poison = 0;
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
        n_resumed += r->n_resumed;
        n_poison += r->n_poison;
        world_destroy(r->world);
        free(r);
    }
    print_message("%d requests went on at another worker, %d were refused as poison\n", n_resumed, n_poison);
    assert_true(n_resumed > 300);
    assert_in_range(n_poison, 0, n_resumed / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_accepted_request_ends_exactly_once) };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
