/* A turn of the loop: take messages, run one step, send what came of it in one message; when there is nothing
 * to run, wait. A step is never begun while the last message still waits for room in the broker's queue, so
 * nothing piles up here: the broker's credit bounds the jobs, and the jobs bound the message. */
#include "worker/loop.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "common/signals.h"
#include "common/utf8.h"
#include "worker/sandbox.h"
#include "worker/scheduler.h"
#include "worker/uplink.h"

/* Messages taken between two steps: a full load of jobs fits, and a flood cannot keep us from stepping. */
enum { MESSAGES_PER_TURN = 256, TITLE_MS = 1000 };

struct worker {
    const struct worker_setup *setup;
    int index;
    struct engine *engine;
    struct drafter *drafter;   /* or NULL */
    struct sessions *sessions; /* or NULL */
    struct scheduler *scheduler;
    struct uplink uplink;
    struct msg_register self;
    char host[MAX_HOST_BYTES];
    bool is_stopping;

    int64_t beat_at_ms;
    int64_t title_ms; /* when it was last written, and what it was computed from */
    uint64_t title_tokens;
};

/* ---- what it tells others ---- */

static void refresh_title(struct worker *w, int64_t now_ms)
{
    if (now_ms - w->title_ms < TITLE_MS)
        return;
    struct scheduler_counts counts = scheduler_counts(w->scheduler);
    double tok_s = (double)(counts.tokens - w->title_tokens) * 1000 / (double)(now_ms - w->title_ms);
    process_title("worker %s.%d %d/%d slots %.0f tok/s", w->setup->name, w->index, counts.taken,
                  w->setup->engine.n_slots, tok_s);
    w->title_ms = now_ms;
    w->title_tokens = counts.tokens;
}

/* A beat goes out every BEAT_MS, also between steps: the broker reads progress and speed from it. */
static void beat(struct worker *w, int64_t now_ms)
{
    if (!uplink_can_send(&w->uplink) || !deadline_passed(now_ms, w->beat_at_ms))
        return;
    if (w->sessions)
        sessions_collect(w->sessions, 0);
    struct scheduler_counts counts = scheduler_counts(w->scheduler);
    struct kv_counts pages = kv_cache_counts(engine_cache(w->engine));
    struct message m = { .kind = MSG_WORKER_BEAT,
                         .beat = { .epoch = w->uplink.epoch,
                                   .steps = counts.steps,
                                   .running = (uint32_t)counts.taken,
                                   .tokens = counts.tokens,
                                   .prompt_tokens = counts.prompt_tokens,
                                   .kv_used = (uint64_t)pages.used,
                                   .kv_cached = (uint64_t)pages.cached,
                                   .preempted = counts.preempted,
                                   .cached_tokens = counts.cached_tokens } };
    uplink_send(&w->uplink, &m, now_ms);
    w->beat_at_ms = now_ms + BEAT_MS;
}

/* ---- one turn ---- */

static void handle(struct worker *w, const struct message *m, int64_t now_ms)
{
    if (m->kind == MSG_SUBMIT) {
        if (!scheduler_add(w->scheduler, m->submit.job, &m->submit.request))
            uplink_leave(&w->uplink, "the broker sent more jobs than there are slots", now_ms);
    } else if (m->kind == MSG_OPEN) {
        if (!scheduler_open(w->scheduler, m->submit.job, &m->submit.request))
            uplink_leave(&w->uplink, "the broker sent more jobs than there are slots", now_ms);
    } else if (m->kind == MSG_ADVANCE) {
        scheduler_advance(w->scheduler, &m->advance);
    } else if (m->kind == MSG_DROP) {
        scheduler_cancel(w->scheduler, m->drop.job);
    } else if (m->kind == MSG_STOP) {
        log_info("stop_asked", "by=broker");
        w->is_stopping = true;
    }
}

static void take_messages(struct worker *w, int64_t now_ms)
{
    struct message m;
    for (int i = 0; i < MESSAGES_PER_TURN && uplink_receive(&w->uplink, now_ms, &m) == OK; i++)
        handle(w, &m, now_ms);
    if (w->uplink.state != UPLINK_UP) {
        if (scheduler_has_work(w->scheduler))
            log_warn("jobs_dropped", "jobs=%d", scheduler_counts(w->scheduler).taken);
        scheduler_clear(w->scheduler);
    }
}

static bool can_step(const struct worker *w)
{
    return uplink_can_send(&w->uplink) && scheduler_has_work(w->scheduler);
}

static void step(struct worker *w)
{
    struct struct_array items = scheduler_step(w->scheduler);
    struct message m = { .kind = MSG_STEP, .step = { .epoch = w->uplink.epoch, .items = items } };
    if (items.n)
        uplink_send(&w->uplink, &m, clock_ms());
    for (const struct msg_advanced *a;
         uplink_can_send(&w->uplink) && (a = scheduler_next_advanced(w->scheduler));) {
        m = (struct message){ .kind = MSG_ADVANCED, .advanced = *a };
        m.advanced.epoch = w->uplink.epoch;
        uplink_send(&w->uplink, &m, clock_ms());
    }
}

static void wait_for_something(struct worker *w, int64_t now_ms)
{
    /* A blocked beat is not waited for: there will be news of the socket first. */
    int64_t deadline_ms = uplink_can_send(&w->uplink) ? w->beat_at_ms : w->title_ms + TITLE_MS;
    uplink_wait(&w->uplink, signals_fd(), now_ms, deadline_ms);
}

static void turn(struct worker *w)
{
    int64_t now_ms = clock_ms();
    uplink_update(&w->uplink, now_ms);
    take_messages(w, now_ms);
    beat(w, now_ms);
    refresh_title(w, now_ms);
    if (w->is_stopping)
        return;
    if (can_step(w))
        step(w);
    else
        wait_for_something(w, now_ms);
    signals_drain();
    w->is_stopping = w->is_stopping || signals_stop_wanted();
}

/* ---- begin and end ---- */

static void name_host(char *out, size_t size)
{
    char name[HOST_NAME_MAX + 1] = "";
    if (gethostname(name, sizeof name - 1) != 0 || !utf8_is_valid(name, strlen(name)))
        name[0] = 0;
    snprintf(out, size, "%s:%d", name, (int)getppid());
}

static void describe_self(struct worker *w)
{
    name_host(w->host, sizeof w->host);
    const struct model_facts *facts = model_facts(w->setup->model);
    const char *path = w->setup->path; /* a path may be any bytes, a message may not */
    w->self = (struct msg_register){ .model = slice_of(w->setup->name),
                                     .path = slice_of(utf8_is_valid(path, strlen(path)) ? path : "?"),
                                     .architecture = slice_of(facts->architecture),
                                     .host = slice_of(w->host),
                                     .index = (uint32_t)w->index,
                                     .pid = (uint64_t)getpid(),
                                     .slots = (uint32_t)w->setup->engine.n_slots,
                                     .n_ctx = (uint32_t)w->setup->engine.n_ctx,
                                     .n_vocab = (uint32_t)facts->n_vocab,
                                     .parameters = facts->n_params,
                                     .weight_bytes = facts->weight_bytes,
                                     .isa = slice_of(engine_isa(w->engine)),
                                     .kv_pages = (uint64_t)kv_cache_counts(engine_cache(w->engine)).total,
                                     .page_tokens = KV_BLOCK };
}

/* Before anything that starts a thread or touches much memory: both stay where their maker runs. Within its
 * cores the kernel places the threads, so that one of another program can be given way. */
static bool pin(const struct worker *w)
{
    const struct worker_setup *s = w->setup;
    cpu_set_t ours;
    return s->cores && topology_share(s->cores, w->index, s->n_workers, s->engine.n_threads, &ours) &&
           sched_setaffinity(0, sizeof ours, &ours) == 0;
}

/* Pages for the memory that was asked for, else for an eighth of the machine's, shared among the workers of
 * the model; but for one sequence of full length at least, and never more than twice what all slots can use.
 */
static int choose_pages(const struct worker_setup *s)
{
    const struct model_facts *f = model_facts(s->model);
    uint64_t page_bytes = (uint64_t)kv_layout(s->engine.kv_type, f->head_dim).bytes * (uint64_t)f->n_layers *
                          (uint64_t)f->n_kv_heads;
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = s->kv_memory_mb ? (uint64_t)s->kv_memory_mb << 20 : memory / 8 / (uint64_t)s->n_workers;
    uint64_t least = ((uint64_t)s->engine.n_ctx + KV_BLOCK - 1) / KV_BLOCK;
    uint64_t most = 2 * least * (uint64_t)s->engine.n_slots, n = bytes / page_bytes;
    n = n < least ? least : n > most ? most : n;
    return n < INT32_MAX ? (int)n : INT32_MAX;
}

static enum status begin(struct worker *w, struct error *err)
{
    int64_t begin_us = clock_us();
    bool is_pinned = pin(w);
    struct engine_options options = w->setup->engine;
    options.n_pages = choose_pages(w->setup);
    if (w->setup->sessions)
        options.n_slots += SESSIONS_SLOTS;
    enum status s = engine_create(&w->engine, w->setup->model, &options, err);
    if (s == OK && w->setup->sessions)
        s = sessions_create(&w->sessions, engine_cache(w->engine), w->setup->engine.n_slots,
                            engine_fingerprint(w->engine), w->setup->sessions, w->setup->name, err);
    if (s != OK)
        return s;
    if (w->setup->draft && (s = drafter_create(&w->drafter, w->setup->draft, &options, err)) != OK)
        return s;
    struct scheduler_options how = { .itl_target_us = (int64_t)w->setup->itl_target_ms * 1000,
                                     .speculate = w->setup->speculate,
                                     .drafter = w->drafter,
                                     .byte_order = w->setup->byte_order,
                                     .sessions = w->sessions };
    w->scheduler =
        scheduler_create(w->engine, w->setup->tokenizer, model_facts(w->setup->model)->n_vocab, &how);
    describe_self(w);
    log_info("worker_started", "isa=%s threads=%d pinned=%s slots=%d ctx=%d kv_bytes=%llu us=%lld",
             engine_isa(w->engine), w->setup->engine.n_threads, is_pinned ? "yes" : "no",
             w->setup->engine.n_slots, w->setup->engine.n_ctx, (unsigned long long)engine_kv_bytes(w->engine),
             (long long)(clock_us() - begin_us));
    s = uplink_init(&w->uplink, w->setup->endpoint, w->setup->keys, &w->self, clock_ms(), err);
    if (s == OK)
        sandbox_enter(&(struct sandbox){ .has_network = wire_is_tcp(w->setup->endpoint),
                                         .has_files = w->setup->sessions != NULL });
    return s;
}

static void say_bye(struct worker *w)
{
    struct message m = { .kind = MSG_BYE, .epoch = { .epoch = w->uplink.epoch } };
    if (uplink_can_send(&w->uplink))
        uplink_send(&w->uplink, &m, clock_ms());
}

int worker_run(int index, const void *setup)
{
    struct worker w = { .setup = setup, .index = index };
    struct error err;
    int exit_status = EXIT_FAILURE;
    char who[32];

    snprintf(who, sizeof who, "%.24s.%d", w.setup->name, index);
    log_rename(who);
    if (begin(&w, &err) == OK) {
        while (!w.is_stopping)
            turn(&w);
        say_bye(&w);
        exit_status = EXIT_SUCCESS;
    } else {
        fprintf(stderr, "woolly-worker: %s\n", err.text);
    }
    uplink_fini(&w.uplink);
    scheduler_destroy(w.scheduler);
    sessions_destroy(w.sessions);
    drafter_destroy(w.drafter);
    engine_destroy(w.engine);
    return exit_status;
}
