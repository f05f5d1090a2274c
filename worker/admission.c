/* Who runs, and with whose pages: a sequence is admitted when there is a slot for it and pages for what it
 * has and some more, it shares pages with others that begin alike, and the youngest gives up its own when
 * somebody has none for the next row. */
#include <string.h>

#include "common/log.h"
#include "worker/scheduler_state.h"

/* Room that an admission leaves for each sequence that runs to grow. Without any a third of all rows are
 * computed a second time, with 64 tokens a tenth at most; with 128 hardly any, but fewer sequences run at a
 * time, and in all it takes longer. (200 requests of 20 to 320 tokens, room for 3 to 8 at a time.) */
enum { HEADROOM_TOKENS = 64 };

void scheduler_move(struct scheduler *s, struct sequence *q, enum sequence_state state)
{
    list_remove(&q->link);
    q->state = state;
    list_append(&s->lists[state], &q->link);
}

static void give_back(struct scheduler *s, struct sequence *q)
{
    if (q->slot < 0)
        return;
    kv_cache_truncate(s->cache, q->slot, 0);
    s->free_slots[s->n_free_slots++] = q->slot;
    q->slot = -1;
    q->n_past = q->n_published = 0;
}

/* The first choice stands for the session: what others add to the prompt is not what will be gone on from. */
static void write_session(struct scheduler *s, const struct sequence *q)
{
    const struct job *job = q->job;
    if (s->options.sessions && job->session.data && q->choice == 0 && q->slot >= 0 &&
        q->n_past >= job->n_prompt)
        sessions_write(s->options.sessions, q->slot, job->session, &job->salt);
}

void scheduler_release(struct scheduler *s, struct sequence *q, enum sequence_state next)
{
    if (next == SEQUENCE_FINISHED)
        write_session(s, q);
    give_back(s, q);
    scheduler_move(s, q, next);
}

/* ---- pages ---- */

static int pages_for(int n_tokens)
{
    return (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
}

void scheduler_publish(struct scheduler *s, struct sequence *q)
{
    while (!q->is_private && (q->n_published + 1) * KV_BLOCK <= q->n_past) {
        q->is_private = !kv_cache_publish(s->cache, q->slot, q->n_published,
                                          q->tokens + q->n_published * KV_BLOCK, q->job->salt);
        q->n_published += !q->is_private;
    }
}

/* The first position that must be computed, since its logits are wanted. */
static int first_wanted(const struct sequence *q)
{
    return q->job->operation ? operation_first_wanted(q) : q->n_tokens - 1;
}

/* Takes from the cache what others have computed. */
static void adopt(struct scheduler *s, struct sequence *q)
{
    if (!sequence_uses_prefix(q))
        return;
    while ((q->n_published + 1) * KV_BLOCK <= first_wanted(q) &&
           kv_cache_adopt(s->cache, q->slot, q->n_published, q->tokens + q->n_published * KV_BLOCK,
                          q->job->salt))
        q->n_published++;
    q->n_past = q->n_published * KV_BLOCK;
}

/* Once, and only if the cache does not have all that could be of use. */
static void read_session(struct scheduler *s, struct sequence *q)
{
    struct job *job = q->job;
    if (!s->options.sessions || !job->session.data || job->is_session_read || !sequence_uses_prefix(q) ||
        (q->n_published + 1) * KV_BLOCK > first_wanted(q))
        return;
    job->is_session_read = true;
    sessions_read(s->options.sessions, job->session, &job->salt);
    adopt(s, q);
}

static bool is_same_salt(const struct kv_salt *a, const struct kv_salt *b)
{
    return a->n == b->n && !memcmp(a->bytes, b->bytes, a->n);
}

/* Tokens in pages that q can take over from the other one, when the first n are the same. */
static int count_common(const struct sequence *q, const struct sequence *other, int n)
{
    int most = first_wanted(q) < other->n_tokens ? first_wanted(q) : other->n_tokens;
    while (n + KV_BLOCK <= most && !memcmp(other->tokens + n, q->tokens + n, KV_BLOCK * sizeof *q->tokens))
        n += KV_BLOCK;
    return n;
}

/* Whether somebody is computing the next page that q needs: waiting for it is cheaper than doing it again.
 * Then q remembers who, and for how long that is of use. */
static bool is_being_computed(const struct scheduler *s, struct sequence *q)
{
    int end = (q->n_published + 1) * KV_BLOCK;
    if (end > first_wanted(q) || !sequence_uses_prefix(q))
        return false;
    list_each(other, &s->lists[SEQUENCE_PREFILLING], struct sequence, link)
    {
        if (!other->is_private && other->n_tokens >= end && is_same_salt(&other->job->salt, &q->job->salt) &&
            !memcmp(other->tokens, q->tokens, (size_t)end * sizeof *q->tokens)) {
            q->awaited = sequence_id(other);
            q->n_awaited = count_common(q, other, end);
            return true;
        }
    }
    return false;
}

/* The same, where it was so before: looks at no tokens, since all that wait ask in every step. */
static bool is_still_computed(const struct scheduler *s, const struct sequence *q)
{
    if (q->n_awaited == 0)
        return false;
    list_each(other, &s->lists[SEQUENCE_PREFILLING], struct sequence, link)
    {
        if (sequence_id(other) == q->awaited)
            return !other->is_private && other->n_published * KV_BLOCK < q->n_awaited;
    }
    return false;
}

static int headroom(const struct scheduler *s)
{
    static const enum sequence_state active[] = { SEQUENCE_PREFILLING, SEQUENCE_RUNNING };
    int n = 0;
    for (size_t i = 0; i < sizeof active / sizeof *active; i++)
        list_each(q, &s->lists[active[i]], struct sequence, link)
        {
            int left = q->max_tokens - q->n_tokens;
            n += pages_for(left < HEADROOM_TOKENS ? left : HEADROOM_TOKENS);
        }
    return n;
}

static bool is_younger(const struct sequence *a, const struct sequence *b)
{
    return a->job->age != b->job->age ? a->job->age > b->job->age : a->choice > b->choice;
}

/* The youngest of those that hold pages. */
static struct sequence *find_victim(const struct scheduler *s)
{
    struct sequence *victim = NULL;
    for (enum sequence_state state = SEQUENCE_PREFILLING; state <= SEQUENCE_RUNNING; state++)
        list_each(q, &s->lists[state], struct sequence, link)
        {
            if (!victim || is_younger(q, victim))
                victim = q;
        }
    return victim;
}

static void preempt(struct scheduler *s, struct sequence *q)
{
    log_debug("preempted", "job=%llu tokens=%d", (unsigned long long)q->job->number, q->n_tokens);
    s->counts.preempted++;
    give_back(s, q);
    list_remove(&q->link);
    q->state = SEQUENCE_PREEMPTED;
    list_prepend(&s->lists[SEQUENCE_PREEMPTED], &q->link); /* older than those preempted before it */
}

/* ---- admission ---- */

enum admission { ADMITTED, NOT_YET, NO_ROOM };

static const char *miss_reason(struct scheduler *s, const struct sequence *q)
{
    if (!sequence_uses_prefix(q))
        return "not_used";
    if (q->n_tokens <= KV_BLOCK)
        return "short";
    if ((q->n_published + 1) * KV_BLOCK >= q->n_tokens)
        return NULL;
    enum kv_miss miss =
        kv_cache_miss(s->cache, q->slot, q->n_published, q->tokens + q->n_published * KV_BLOCK, q->job->salt);
    return miss == KV_MISS_EVICTED ? "evicted" : "new";
}

static bool waits_for_fork(const struct sequence *q)
{
    const struct sequence *first = q->job->sequences;
    return q->choice > 0 && q->n_given == 0 && first->n_given == 0 && first->state != SEQUENCE_FINISHED;
}

/* Whether n pages can be had for q, if need be from those who hold some for later. That an operation waits
 * for room protects nothing: two that wait could hold what the other lacks. */
static bool find_pages(struct scheduler *s, const struct sequence *q, int n)
{
    static const enum sequence_state idle[] = { SEQUENCE_HELD, SEQUENCE_PREEMPTED };
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++)
        list_each(other, &s->lists[idle[i]], struct sequence, link)
        {
            if (kv_cache_available(s->cache) >= n)
                return true;
            if (other != q)
                give_back(s, other);
        }
    return kv_cache_available(s->cache) >= n;
}

static void take_slot(struct scheduler *s, struct sequence *q)
{
    q->slot = s->free_slots[--s->n_free_slots];
    q->n_past = q->n_published = 0;
    q->is_private = false;
}

/* Usage is counted once: of the prompt, when its first choice begins. */
static void count_prompt(struct scheduler *s, struct sequence *q, const char *cache_miss)
{
    struct job *job = q->job;
    if (q->state == SEQUENCE_PREEMPTED || q->n_given) {
        s->counts.recomputed += (uint64_t)(q->n_tokens - q->n_past);
    } else if (q->choice == 0) {
        job->n_cached = q->n_past;
        job->cache_miss = cache_miss;
        s->counts.cached_tokens += (uint64_t)q->n_past;
        s->counts.prompt_tokens += (uint64_t)(q->n_tokens - q->n_past);
    }
}

static enum admission admit(struct scheduler *s, struct sequence *q)
{
    bool is_new = q->slot < 0; /* an opened one may have kept what it has */
    const char *cache_miss = NULL;
    if (waits_for_fork(q) || is_still_computed(s, q))
        return NOT_YET;
    if (is_new && s->n_free_slots == 0)
        return NO_ROOM;
    if (is_new) {
        take_slot(s, q);
        adopt(s, q);
        read_session(s, q);
        if (is_being_computed(s, q)) {
            give_back(s, q);
            return NOT_YET;
        }
        cache_miss = miss_reason(s, q);
    }
    int n_next = q->n_tokens < s->n_ctx ? q->n_tokens + 1 : q->n_tokens;
    int more = pages_for(n_next) - q->n_past / KV_BLOCK;
    if (!find_pages(s, q, more + headroom(s)) ||
        !kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_tokens)) {
        give_back(s, q);
        return NO_ROOM;
    }
    if (is_new)
        count_prompt(s, q, cache_miss);
    scheduler_move(s, q, SEQUENCE_PREFILLING);
    return ADMITTED;
}

/* Who lost pages, oldest first, operations as they came, and then who is new, oldest first: who has no room
 * lets nobody overtake. */
void scheduler_admit(struct scheduler *s)
{
    static const enum sequence_state order[] = { SEQUENCE_PREEMPTED, SEQUENCE_WAITING };
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        list_each(q, &s->lists[order[i]], struct sequence, link)
        {
            if (admit(s, q) == NO_ROOM)
                return;
        }
}

bool scheduler_fork(struct scheduler *s, const struct sequence *from, struct sequence *to)
{
    if (s->n_free_slots == 0 || kv_cache_available(s->cache) < 1 + headroom(s))
        return false;
    take_slot(s, to);
    kv_cache_share(s->cache, from->slot, to->slot, from->n_past);
    to->n_past = from->n_past;
    to->n_published = from->n_published;
    to->is_private = from->is_private;
    scheduler_move(s, to, SEQUENCE_RUNNING);
    return true;
}

void scheduler_rewind(struct scheduler *s, struct sequence *q, int n_past)
{
    if (q->n_past <= n_past)
        return;
    q->n_past = n_past;
    q->n_published = q->n_published < n_past / KV_BLOCK ? q->n_published : n_past / KV_BLOCK;
    kv_cache_truncate(s->cache, q->slot, n_past);
}

static bool has_place(struct scheduler *s, const struct sequence *q)
{
    return kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_past + 1) ||
           (find_pages(s, q, 1) && kv_cache_reserve(s->cache, q->slot, q->n_past, q->n_past + 1));
}

/* A page for the next row of everyone who runs; the youngest give up theirs where there are not enough. */
void scheduler_make_room(struct scheduler *s)
{
    struct link *at = s->lists[SEQUENCE_RUNNING].first;
    while (at) {
        struct sequence *q = list_entry(at, struct sequence, link);
        if (has_place(s, q)) {
            at = at->next;
        } else {
            preempt(s, find_victim(s));
            at = s->lists[SEQUENCE_RUNNING].first;
        }
    }
}
