/* libwoolly: see woolly.h for what it promises.
 *
 * A request is live from woolly_submit until its one end has been told. Live requests stand in one array in
 * the order of their ids; an end is told by the function that removes the row, and by nothing else, which is
 * what makes it exactly one.
 *
 * When the line breaks, the server is silent or another server answers, whatever is live then is lost. That
 * only raises the connection's generation: rows of an older generation are told as errors by the next calls,
 * after messages that had already come. */
#include "proto/woolly.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/utf8.h"
#include "common/xalloc.h"
#include "proto/channel.h"
#include "proto/client_layout.h"
#include "proto/messages.h"

enum {
    CONNECT_MS = 2000,
    CLOSE_LINGER_MS = 200,
    MAX_LIVE = 65536,
    MAX_KEPT = 10000,             /* messages set aside while a question waits for its answer */
    MAX_MESSAGES_PER_CALL = 1000, /* without an event among them: a flood must not catch the caller */
};

struct live {
    uint64_t id;
    void *user;
    uint64_t generation;
    uint64_t next_seq[MAX_CHOICES]; /* index of the token that must come next */
    bool is_accepted;
};

struct kept {
    struct link link;
    zmq_msg_t body;
};

struct woolly {
    struct channel channel;
    struct decoder *decoder;
    struct buffer out;
    uint64_t last_id;
    uint64_t epoch; /* the server's, 0 when unknown */

    struct live *live; /* by ascending id, and so by ascending generation */
    size_t n_live, cap_live;
    uint64_t generation;
    char lost_why[200];

    int64_t heard_ms;  /* the last message, or when waiting for one began */
    int64_t looked_ms; /* the last time we looked for messages */

    struct list kept;            /* struct kept, oldest first */
    struct wire_message current; /* what the last event or reply points into */
    bool has_current;
    struct buffer text; /* its terminated copies */
    void *rows;         /* its rows */
};

static enum woolly_status fail(struct woolly_error *err, enum woolly_status s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum woolly_status fail(struct woolly_error *err, enum woolly_status s, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->status = s;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return s;
}

static enum woolly_status public_status(enum status s)
{
    switch (s) {
    case OK:
        return WOOLLY_OK;
    case E_TIMEOUT:
        return WOOLLY_TIMEOUT;
    case E_INVALID:
    case E_LIMIT:
        return WOOLLY_INVALID;
    case E_UNREACHABLE:
    case E_NOTFOUND:
        return WOOLLY_UNREACHABLE;
    case E_OVERLOADED:
        return WOOLLY_OVERLOADED;
    default:
        return WOOLLY_FAILED;
    }
}

/* ---- live requests ---- */

static struct live *live_find(struct woolly *w, uint64_t id)
{
    size_t low = 0, high = w->n_live;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (w->live[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->n_live && w->live[low].id == id ? &w->live[low] : NULL;
}

static void live_add(struct woolly *w, uint64_t id, void *user)
{
    if (w->n_live == w->cap_live) {
        w->cap_live = w->cap_live ? 2 * w->cap_live : 16;
        w->live = xrealloc(w->live, w->cap_live * sizeof *w->live);
    }
    w->live[w->n_live++] = (struct live){ .id = id, .user = user, .generation = w->generation };
}

static void live_remove(struct woolly *w, struct live *l)
{
    size_t at = (size_t)(l - w->live);
    memmove(l, l + 1, (--w->n_live - at) * sizeof *l);
}

static bool has_lost(const struct woolly *w)
{
    return w->n_live && w->live[0].generation != w->generation;
}

static void lose_all(struct woolly *w, const char *why)
{
    w->generation++;
    snprintf(w->lost_why, sizeof w->lost_why, "%s", why);
}

static void lose_line(struct woolly *w)
{
    lose_all(w, "the server closed the connection, or died");
    w->epoch = 0; /* whoever listens there next is welcome */
}

/* ---- sending ---- */

static enum status send_message(struct woolly *w, const struct message *m)
{
    message_encode(&w->out, m);
    return channel_send(&w->channel, &w->out);
}

static enum status send_plain(struct woolly *w, enum message_kind kind, uint64_t id)
{
    return send_message(w, &(struct message){ .kind = kind, .request = { .id = id, .epoch = w->epoch } });
}

static enum woolly_status explain_send(enum status s, struct woolly_error *err)
{
    switch (s) {
    case OK:
        return WOOLLY_OK;
    case E_OVERLOADED:
        return fail(err, WOOLLY_OVERLOADED, "the server does not take messages as fast as they are sent");
    case E_UNREACHABLE:
        return fail(err, WOOLLY_UNREACHABLE, "the server is gone");
    default:
        return fail(err, WOOLLY_FAILED, "cannot send to the server");
    }
}

/* ---- receiving ---- */

/* Forgets what the last call handed out. */
static void release(struct woolly *w)
{
    if (w->has_current)
        wire_message_close(&w->current);
    w->has_current = false;
    buffer_clear(&w->text);
}

/* The next message into w->current: E_TIMEOUT when there is none. */
static enum status receive(struct woolly *w)
{
    release(w);
    enum status s = channel_receive(&w->channel, &w->current);
    w->has_current = s == OK;
    if (s == E_UNREACHABLE)
        lose_line(w);
    return s;
}

/* Decodes w->current and notes that the server lives. */
static enum status decode(struct woolly *w, struct message *m, struct error *why)
{
    size_t len = zmq_msg_size(&w->current.body);
    enum status s = message_decode(w->decoder, BROKER_TO_CLIENT, zmq_msg_data(&w->current.body), len, m, why);
    if (s == OK) {
        w->heard_ms = clock_ms();
        /* Room for a terminated copy of every text in it: a text has at least one byte of head. */
        buffer_reserve(&w->text, len + 1);
    }
    return s;
}

static const char *terminated(struct woolly *w, struct slice s)
{
    if (!s.len)
        return "";
    assert(w->text.cap - w->text.len > s.len);
    char *copy = w->text.data + w->text.len;
    buffer_append(&w->text, s.data, s.len);
    buffer_append(&w->text, "", 1);
    return copy;
}

static bool make_error(struct woolly *w, struct live *l, struct woolly_event *e, const char *code,
                       const char *message)
{
    *e = (struct woolly_event){ .kind = WOOLLY_ERROR, .request = l->id, .user = l->user, .code = code };
    e->message = terminated(w, slice_of(message));
    e->text = e->finish_reason = e->cache_miss = "";
    live_remove(w, l);
    return true;
}

/* Ends a request because of what the server said of it, and asks the server to stop it too. */
static bool break_off(struct woolly *w, struct live *l, struct woolly_event *e, const char *why)
{
    char message[300];
    snprintf(message, sizeof message, "the server sent a message that makes no sense: %s", why);
    if (send_plain(w, MSG_CANCEL, l->id) != OK) {
        /* It goes on for nobody, until the server notices that nobody is there. */
    }
    buffer_reserve(&w->text, sizeof message);
    return make_error(w, l, e, ERROR_BAD_MESSAGE, message);
}

static bool take_tokens(struct woolly *w, const struct msg_tokens *m, struct live *l, struct woolly_event *e)
{
    if (m->choice >= MAX_CHOICES)
        return break_off(w, l, e, "there is a choice that nobody asked for");
    if (m->seq != l->next_seq[m->choice])
        return break_off(w, l, e, "there is a gap between tokens");
    if (m->logprobs.n && m->logprobs.n != m->ids.n)
        return break_off(w, l, e, "not every token has its probabilities");
    l->next_seq[m->choice] += m->ids.n;
    e->kind = WOOLLY_TOKENS;
    e->choice = m->choice;
    e->finish_reason = terminated(w, m->finish_reason);
    e->prompt_logprobs = m->prompt_logprobs.items;
    e->n_prompt_logprobs = m->prompt_logprobs.n;
    e->text = terminated(w, m->text);
    e->text_len = m->text.len;
    e->ids = m->ids.ids;
    e->n_ids = m->ids.n;
    e->logprobs = m->logprobs.items;
    e->n_logprobs = m->logprobs.n;
    return true;
}

static void *rows_reserve(struct woolly *w, size_t n, size_t size)
{
    return w->rows = xrealloc(w->rows, (n ? n : 1) * size);
}

static void take_choices(struct woolly *w, struct struct_array choices, struct woolly_event *e)
{
    const struct choice_row *in = choices.items;
    if (!choices.n)
        return;
    struct woolly_choice *rows = rows_reserve(w, choices.n, sizeof *rows);
    for (uint32_t i = 0; i < choices.n; i++) {
        rows[i] = (struct woolly_choice){
            .index = in[i].index,
            .finish_reason = terminated(w, in[i].finish_reason),
            .completion_tokens = in[i].completion_tokens,
            .logprob_sum = in[i].logprob_sum,
            .text = terminated(w, in[i].text),
            .text_len = in[i].text.len,
            .ids = in[i].ids.ids,
            .n_ids = in[i].ids.n,
            .logprobs = in[i].logprobs.items,
            .n_logprobs = in[i].logprobs.n,
        };
    }
    e->choices = rows;
    e->n_choices = choices.n;
}

/* Little-endian and anywhere in the message, so it is copied. */
static void take_embedding(struct woolly *w, struct slice bytes, struct woolly_event *e)
{
    uint32_t n = (uint32_t)(bytes.len / 4);
    const unsigned char *at = (const unsigned char *)bytes.data;
    if (!n)
        return;
    float *values = rows_reserve(w, n, sizeof *values);
    for (uint32_t i = 0; i < n; i++, at += 4) {
        uint32_t bits = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        memcpy(&values[i], &bits, sizeof bits);
    }
    e->embedding = values;
    e->n_embedding = n;
}

static bool take_done(struct woolly *w, const struct msg_done *m, struct live *l, struct woolly_event *e)
{
    e->kind = WOOLLY_DONE;
    e->seed = m->seed;
    e->text = terminated(w, m->text);
    e->text_len = m->text.len;
    e->ids = m->ids.ids;
    e->n_ids = m->ids.n;
    e->logprobs = m->logprobs.items;
    e->n_logprobs = m->logprobs.n;
    e->prompt_tokens = m->prompt_tokens;
    e->completion_tokens = m->completion_tokens;
    e->finish_reason = terminated(w, m->finish_reason);
    e->prompt_logprobs = m->prompt_logprobs.items;
    e->n_prompt_logprobs = m->prompt_logprobs.n;
    e->cached_tokens = m->cached_tokens;
    e->cache_miss = terminated(w, m->cache_miss);
    if (m->embedding.data) /* these two share one piece of memory, and never come together */
        take_embedding(w, m->embedding, e);
    else
        take_choices(w, m->choices, e);
    e->timing =
        (struct woolly_timing){ m->timing.queue_ms, m->timing.ttft_ms, m->timing.total_ms, m->timing.tok_s };
    live_remove(w, l);
    return true;
}

/* Turns a message about live request `l` into an event; false when there is nothing to tell. */
static bool take_message(struct woolly *w, const struct message *m, struct live *l, struct woolly_event *e)
{
    *e = (struct woolly_event){ .request = l->id, .user = l->user };
    e->text = e->finish_reason = e->cache_miss = e->code = e->message = "";
    switch (m->kind) {
    case MSG_ACCEPTED:
        if (l->is_accepted)
            return false;
        l->is_accepted = true;
        e->kind = WOOLLY_ACCEPTED;
        e->job = m->accepted.job;
        e->seed = m->accepted.seed;
        e->queue_position = m->accepted.queue_position;
        return true;
    case MSG_TOKENS:
        return take_tokens(w, &m->tokens, l, e);
    case MSG_DONE:
        return take_done(w, &m->done, l, e);
    case MSG_CANCELLED:
        e->kind = WOOLLY_CANCELLED;
        e->prompt_tokens = m->cancelled.prompt_tokens;
        e->completion_tokens = m->cancelled.completion_tokens;
        live_remove(w, l);
        return true;
    case MSG_ERROR:
        e->kind = WOOLLY_ERROR;
        e->code = terminated(w, m->error.code);
        e->message = terminated(w, m->error.message);
        e->is_retryable = m->error.is_retryable;
        e->retry_ms = m->error.retry_ms;
        live_remove(w, l);
        return true;
    default:
        return false;
    }
}

/* Looks at w->current; false when it is no event: a beat, a late answer, or garbage about nothing of ours. */
static bool take_current(struct woolly *w, struct woolly_event *e)
{
    struct message m;
    struct error why;
    struct live *l;

    enum status s = decode(w, &m, &why);
    if (s == E_UNSUPPORTED) /* later versions of the server may say more than we know */
        return false;
    if (s != OK) {
        l = live_find(w, decoder_id(w->decoder));
        return l && break_off(w, l, e, why.text);
    }
    /* Every message to a client begins with id and epoch. */
    if (w->epoch && m.empty.epoch != w->epoch)
        lose_all(w, "another server took its place");
    w->epoch = m.empty.epoch;
    l = live_find(w, m.empty.id);
    return l && take_message(w, &m, l, e);
}

static bool take_kept(struct woolly *w)
{
    struct kept *k = list_entry(w->kept.first, struct kept, link);
    if (!k)
        return false;
    release(w);
    zmq_msg_init(&w->current.body);
    zmq_msg_move(&w->current.body, &k->body);
    w->has_current = true;
    list_remove(&k->link);
    zmq_msg_close(&k->body);
    free(k);
    return true;
}

/* A server is silent when it had the time to say something and we had the time to hear it: a program that did
 * not look for long, stopped in a debugger perhaps, gives it another chance. */
static void judge_silence(struct woolly *w, int64_t now_ms)
{
    if (now_ms - w->looked_ms > PEER_TIMEOUT_MS / 2 && w->heard_ms < now_ms - PEER_TIMEOUT_MS / 2)
        w->heard_ms = now_ms - PEER_TIMEOUT_MS / 2;
    w->looked_ms = now_ms;
    if (w->n_live && !has_lost(w) && now_ms - w->heard_ms >= PEER_TIMEOUT_MS)
        lose_all(w, "the server has been silent for too long");
}

/* One step of woolly_next: OK with an event, E_TIMEOUT when there is nothing to look at, E_FORMAT when there
 * was something but no event in it. */
static enum status step(struct woolly *w, struct woolly_event *e)
{
    if (take_kept(w))
        return take_current(w, e) ? OK : E_FORMAT;
    if (has_lost(w)) {
        release(w);
        buffer_reserve(&w->text, sizeof w->lost_why);
        make_error(w, &w->live[0], e, "unreachable", w->lost_why);
        e->is_retryable = true;
        return OK;
    }
    switch (receive(w)) {
    case OK:
        return take_current(w, e) ? OK : E_FORMAT;
    case E_TIMEOUT:
        judge_silence(w, clock_ms());
        return has_lost(w) ? E_FORMAT : E_TIMEOUT;
    default:
        return E_FORMAT;
    }
}

static int64_t silence_deadline(const struct woolly *w)
{
    return w->n_live ? w->heard_ms + PEER_TIMEOUT_MS : DEADLINE_NONE;
}

/* Before every return to the caller: woolly_fd then tells whether there is more. */
static void settle(struct woolly *w)
{
    int64_t now_ms = clock_ms();
    channel_set_alarm(&w->channel, now_ms,
                      has_lost(w) || !list_is_empty(&w->kept) ? now_ms : silence_deadline(w));
}

static int64_t deadline_of(int timeout_ms)
{
    return timeout_ms < 0 ? DEADLINE_NONE : deadline_after(clock_ms(), timeout_ms);
}

enum woolly_status woolly_next(struct woolly *w, int timeout_ms, struct woolly_event *e)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    enum woolly_status result = WOOLLY_TIMEOUT;

    for (int n = 0; n < MAX_MESSAGES_PER_CALL; n++) {
        enum status s = step(w, e);
        if (s == OK) {
            result = WOOLLY_OK;
            break;
        }
        if (s == E_FORMAT)
            continue;
        if (!w->n_live) {
            result = WOOLLY_IDLE;
            break;
        }
        /* Waits are short so that a long one can only mean that we were stopped: see judge_silence. */
        int64_t now_ms = clock_ms();
        if (deadline_passed(now_ms, deadline_ms) ||
            !channel_wait(&w->channel, deadline_earlier(deadline_ms, deadline_after(now_ms, BEAT_MS))))
            break;
    }
    settle(w);
    return result;
}

int woolly_fd(struct woolly *w)
{
    int fd = channel_fd(&w->channel);
    settle(w);
    return fd;
}

size_t woolly_live(const struct woolly *w)
{
    return w->n_live;
}

/* ---- questions ---- */

static enum woolly_status keep_current(struct woolly *w, struct woolly_error *err)
{
    if (w->kept.count >= MAX_KEPT)
        return fail(err, WOOLLY_OVERLOADED, "too many events are waiting: take them first");
    struct kept *k = xcalloc(1, sizeof *k);
    zmq_msg_init(&k->body);
    zmq_msg_move(&k->body, &w->current.body);
    list_append(&w->kept, &k->link);
    return WOOLLY_OK;
}

/* Whether w->current is the answer to question `id`; if so, *result tells what it says. */
static bool take_answer(struct woolly *w, uint64_t id, enum message_kind expected, struct message *answer,
                        enum woolly_status *result, struct woolly_error *err)
{
    struct error why;
    if (decode(w, answer, &why) != OK) {
        if (decoder_id(w->decoder) != id)
            return false;
        *result = fail(err, WOOLLY_FAILED, "the server's answer makes no sense: %s", why.text);
    } else if (answer->empty.id != id) {
        return false;
    } else if (answer->kind == MSG_ERROR) {
        *result = fail(err, WOOLLY_REFUSED, "%s: %s", terminated(w, answer->error.code),
                       terminated(w, answer->error.message));
    } else if (answer->kind != expected) {
        *result = fail(err, WOOLLY_FAILED, "the server answered another question");
    } else {
        if (!w->epoch)
            w->epoch = answer->empty.epoch;
        *result = WOOLLY_OK;
    }
    return true;
}

/* Asks and waits. What *answer points to lies in w->current. */
static enum woolly_status ask(struct woolly *w, enum message_kind question, enum message_kind expected,
                              int timeout_ms, struct message *answer, struct woolly_error *err)
{
    int64_t deadline_ms = deadline_of(timeout_ms);
    uint64_t id = ++w->last_id;
    enum woolly_status result = explain_send(send_plain(w, question, id), err);

    while (result == WOOLLY_OK) {
        enum status s = receive(w);
        if (s == OK) {
            if (take_answer(w, id, expected, answer, &result, err))
                return result;
            result = keep_current(w, err);
        } else if (s == E_UNREACHABLE) {
            result = fail(err, WOOLLY_UNREACHABLE, "%s", w->lost_why);
        } else if (s == E_TIMEOUT) {
            if (deadline_passed(clock_ms(), deadline_ms))
                result = fail(err, WOOLLY_UNREACHABLE, "the server did not answer in %d ms", timeout_ms);
            else
                channel_wait(&w->channel, deadline_ms);
        }
    }
    return result;
}

enum woolly_status woolly_get_models(struct woolly *w, int timeout_ms, struct woolly_models *out,
                                     struct woolly_error *err)
{
    struct message m;
    enum woolly_status s = ask(w, MSG_MODELS, MSG_MODELS_REPLY, timeout_ms, &m, err);
    settle(w);
    if (s != WOOLLY_OK)
        return s;
    const struct model_row *in = m.models.models.items;
    size_t n = m.models.models.n;
    struct woolly_model *rows = rows_reserve(w, n, sizeof *rows);
    for (size_t i = 0; i < n; i++) {
        rows[i] = (struct woolly_model){
            .name = terminated(w, in[i].name),
            .path = terminated(w, in[i].path),
            .architecture = terminated(w, in[i].architecture),
            .state = terminated(w, in[i].state),
            .parameters = in[i].parameters,
            .weight_bytes = in[i].weight_bytes,
            .n_ctx = in[i].n_ctx,
            .n_vocab = in[i].n_vocab,
            .workers = in[i].workers,
            .slots = in[i].slots,
            .running = in[i].running,
            .queued = in[i].queued,
        };
    }
    *out = (struct woolly_models){ .models = rows, .n = n };
    return WOOLLY_OK;
}

enum woolly_status woolly_get_stats(struct woolly *w, int timeout_ms, struct woolly_stats *out,
                                    struct woolly_error *err)
{
    struct message m;
    enum woolly_status s = ask(w, MSG_STATS, MSG_STATS_REPLY, timeout_ms, &m, err);
    settle(w);
    if (s != WOOLLY_OK)
        return s;
    const struct worker_row *in = m.stats.workers.items;
    size_t n = m.stats.workers.n;
    struct woolly_worker *rows = rows_reserve(w, n, sizeof *rows);
    for (size_t i = 0; i < n; i++) {
        rows[i] = (struct woolly_worker){
            .model = terminated(w, in[i].model),
            .index = in[i].index,
            .pid = in[i].pid,
            .slots = in[i].slots,
            .running = in[i].running,
            .done = in[i].done,
            .tokens = in[i].tokens,
            .prompt_tokens = in[i].prompt_tokens,
            .tok_s = in[i].tok_s,
            .beat_age_ms = in[i].beat_age_ms,
            .kv_pages = in[i].kv_pages,
            .kv_used = in[i].kv_used,
            .kv_cached = in[i].kv_cached,
            .preempted = in[i].preempted,
            .cached_tokens = in[i].cached_tokens,
        };
    }
    *out = (struct woolly_stats){
        .version = terminated(w, m.stats.version),
        .uptime_s = m.stats.uptime_s,
        .clients = m.stats.clients,
        .queued = m.stats.queued,
        .running = m.stats.running,
        .accepted = m.stats.accepted,
        .done = m.stats.done,
        .failed = m.stats.failed,
        .cancelled = m.stats.cancelled,
        .refused = m.stats.refused,
        .moved = m.stats.moved,
        .tokens = m.stats.tokens,
        .rss_bytes = m.stats.rss_bytes,
        .workers = rows,
        .n_workers = n,
    };
    return WOOLLY_OK;
}

enum woolly_status woolly_get_health(struct woolly *w, int timeout_ms, struct woolly_health *out,
                                     struct woolly_error *err)
{
    struct message m;
    enum woolly_status s = ask(w, MSG_HEALTH, MSG_HEALTH_REPLY, timeout_ms, &m, err);
    settle(w);
    if (s != WOOLLY_OK)
        return s;
    *out = (struct woolly_health){
        .is_ready = m.health.is_ready,
        .status = terminated(w, m.health.status),
        .pid = m.health.pid,
        .version = terminated(w, m.health.version),
    };
    return WOOLLY_OK;
}

/* ---- requests ---- */

void woolly_request_init(struct woolly_request *r, const char *model, const char *prompt)
{
    *r = (struct woolly_request){ .model = model, .prompt = prompt, .top_p = 1, .n = 1 };
}

void woolly_embed_request_init(struct woolly_embed_request *r, const char *model, const char *prompt)
{
    *r = (struct woolly_embed_request){
        .model = model, .prompt = prompt, .pooling = "mean", .normalize = true
    };
}

/* What every request has. */
static enum woolly_status check_prompt(const struct generate *g, struct woolly_error *err)
{
    if (!g->model.len || g->model.len > MAX_MODEL_NAME)
        return fail(err, WOOLLY_INVALID, "model: a name of 1 to %d bytes is needed", MAX_MODEL_NAME);
    if (!g->prompt.data == !g->tokens.n)
        return fail(err, WOOLLY_INVALID, "prompt: either text or tokens are needed");
    if (g->tokens.n > MAX_PROMPT_TOKENS)
        return fail(err, WOOLLY_INVALID, "tokens: more than %d", MAX_PROMPT_TOKENS);
    if (g->prompt.len > MAX_PROMPT_BYTES)
        return fail(err, WOOLLY_INVALID, "prompt: longer than %d bytes", MAX_PROMPT_BYTES);
    if (!utf8_is_valid(g->model.data, g->model.len) ||
        (g->prompt.data && !utf8_is_valid(g->prompt.data, g->prompt.len)))
        return fail(err, WOOLLY_INVALID, "model and prompt must be valid UTF-8");
    if (g->cache_salt.data &&
        (g->cache_salt.len > MAX_SALT_BYTES || !utf8_is_valid(g->cache_salt.data, g->cache_salt.len)))
        return fail(err, WOOLLY_INVALID, "cache_salt: at most %d bytes of UTF-8", MAX_SALT_BYTES);
    return WOOLLY_OK;
}

static enum woolly_status check_request(const struct woolly_request *r, struct woolly_error *err)
{
    if (r->n > MAX_CHOICES || r->best_of > MAX_CHOICES)
        return fail(err, WOOLLY_INVALID, "n and best_of: at most %d", MAX_CHOICES);
    if (r->best_of && !r->whole)
        return fail(err, WOOLLY_INVALID, "best_of: which answers are best is known at the end: set whole");
    if (r->session && !session_name_is_valid(slice_of(r->session)))
        return fail(err, WOOLLY_INVALID, "session: a name is 1 to %d letters, digits, '_' or '-'",
                    MAX_SESSION_NAME);
    if (r->n_stop > MAX_STOPS)
        return fail(err, WOOLLY_INVALID, "stop: more than %d texts", MAX_STOPS);
    for (size_t i = 0; i < r->n_stop; i++) {
        size_t len = strlen(r->stop[i]);
        if (!len || len > FIELD_TEXTS_BYTES || !utf8_is_valid(r->stop[i], len))
            return fail(err, WOOLLY_INVALID, "stop: a text must be 1 to %d bytes of UTF-8",
                        FIELD_TEXTS_BYTES);
    }
    return WOOLLY_OK;
}

static struct slice slice_or_none(const char *text)
{
    return text ? slice_of(text) : (struct slice){ 0 };
}

static struct id_array id_array_of(const int32_t *ids, size_t n)
{
    return (struct id_array){ ids, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX };
}

/* After a break the line may be up again, with another server: a request sent now must not count as lost with
 * those from before. */
static enum woolly_status pass_break(struct woolly *w, struct woolly_error *err)
{
    struct wire_message late;
    if (!channel_is_broken(&w->channel))
        return WOOLLY_OK;
    while (channel_receive(&w->channel, &late) == OK) {
        w->current = late;
        w->has_current = true;
        enum woolly_status s = keep_current(w, err);
        if (s != WOOLLY_OK)
            return s;
    }
    lose_line(w);
    return WOOLLY_OK;
}

/* Sends a generate or embed message, which gets its id here, and makes it live. */
static enum woolly_status begin_request(struct woolly *w, struct message *m, void *user, uint64_t *id,
                                        struct woolly_error *err)
{
    enum woolly_status s = check_prompt(&m->generate.request, err);
    if (s != WOOLLY_OK)
        return s;
    if (w->n_live >= MAX_LIVE)
        return fail(err, WOOLLY_OVERLOADED, "%d requests are live on this connection", MAX_LIVE);
    release(w);
    if ((s = pass_break(w, err)) != WOOLLY_OK)
        return s;
    if (!w->n_live)
        w->heard_ms = w->looked_ms = clock_ms();
    m->generate.id = w->last_id + 1;
    m->generate.epoch = w->epoch;
    if ((s = explain_send(send_message(w, m), err)) == WOOLLY_OK) {
        *id = ++w->last_id;
        live_add(w, *id, user);
    }
    settle(w);
    return s;
}

enum woolly_status woolly_submit(struct woolly *w, const struct woolly_request *r, uint64_t *id,
                                 struct woolly_error *err)
{
    enum woolly_status s = check_request(r, err);
    if (s != WOOLLY_OK)
        return s;

    struct slice stop[MAX_STOPS];
    for (size_t i = 0; i < r->n_stop; i++)
        stop[i] = slice_of(r->stop[i]);
    struct message m = { .kind = MSG_GENERATE };
    m.generate.request = (struct generate){
        .model = slice_or_none(r->model),
        .prompt = slice_or_none(r->prompt),
        .tokens = id_array_of(r->tokens, r->n_tokens),
        .max_tokens = r->max_tokens,
        .has_max_tokens = r->max_tokens > 0,
        .n = r->n ? r->n : 1,
        .best_of = r->best_of,
        .temperature = r->temperature,
        .top_k = r->top_k,
        .top_p = r->top_p,
        .min_p = r->min_p,
        .has_seed = r->has_seed,
        .seed = r->seed,
        .stop = { stop, (uint32_t)r->n_stop },
        .logprobs = r->logprobs,
        .has_logprobs = r->has_logprobs,
        .prompt_logprobs = r->prompt_logprobs,
        .has_prompt_logprobs = r->has_prompt_logprobs,
        .cache_salt = slice_or_none(r->cache_salt),
        .session = slice_or_none(r->session),
        .ignore_end = r->ignore_end,
        .stream = !r->whole,
        .deadline_ms = r->deadline_ms,
    };
    return begin_request(w, &m, r->user, id, err);
}

enum woolly_status woolly_embed(struct woolly *w, const struct woolly_embed_request *r, uint64_t *id,
                                struct woolly_error *err)
{
    if (r->pooling && strcmp(r->pooling, "mean") && strcmp(r->pooling, "last"))
        return fail(err, WOOLLY_INVALID, "pooling: neither mean nor last");
    struct message m = { .kind = MSG_EMBED };
    m.generate.request = (struct generate){
        .model = slice_or_none(r->model),
        .prompt = slice_or_none(r->prompt),
        .tokens = id_array_of(r->tokens, r->n_tokens),
        .pooling = slice_or_none(r->pooling),
        .normalize = r->normalize,
        .cache_salt = slice_or_none(r->cache_salt),
        .deadline_ms = r->deadline_ms,
    };
    return begin_request(w, &m, r->user, id, err);
}

enum woolly_status woolly_cancel(struct woolly *w, uint64_t id, struct woolly_error *err)
{
    if (!live_find(w, id))
        return fail(err, WOOLLY_INVALID, "request %llu is not live", (unsigned long long)id);
    release(w);
    enum woolly_status s = explain_send(send_plain(w, MSG_CANCEL, id), err);
    settle(w);
    return s;
}

/* ---- connection ---- */

enum woolly_status woolly_connect(struct woolly **out, const char *endpoint, struct woolly_error *err)
{
    return woolly_connect_with_keys(out, endpoint, NULL, NULL, err);
}

enum woolly_status woolly_connect_with_keys(struct woolly **out, const char *endpoint, const char *key_file,
                                            const char *server_key, struct woolly_error *err)
{
    char address[512];
    struct error why;
    struct message pong;
    struct woolly *w = xcalloc(1, sizeof *w);
    int64_t deadline_ms = deadline_after(clock_ms(), CONNECT_MS);

    *out = NULL;
    w->decoder = decoder_create();
    enum status s = wire_find_endpoint(endpoint, address, sizeof address, &why);
    if (s == OK)
        s = channel_open(&w->channel, address, key_file, server_key, deadline_ms, &why);
    if (s != OK) {
        woolly_close(w);
        return fail(err, public_status(s), "%s", why.text);
    }
    if (ask(w, MSG_PING, MSG_PONG, CONNECT_MS, &pong, err) != WOOLLY_OK) {
        woolly_close(w);
        return fail(err, WOOLLY_UNREACHABLE, "no Woolly server answers at %s", address);
    }
    *out = w;
    return WOOLLY_OK;
}

void woolly_close(struct woolly *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_live; i++)
        if (!w->channel.is_connected || send_plain(w, MSG_CANCEL, w->live[i].id) != OK)
            break;
    release(w);
    while (take_kept(w))
        release(w);
    channel_close(&w->channel, w->channel.is_connected && w->n_live ? CLOSE_LINGER_MS : 0);
    decoder_destroy(w->decoder);
    buffer_fini(&w->out);
    buffer_fini(&w->text);
    free(w->live);
    free(w->rows);
    free(w);
}
