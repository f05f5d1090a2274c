#include "worker/sessions.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/kv/saved.h"

enum { MAX_WRITES = SESSIONS_SLOTS - 1 };

/* Clients choose names, so files could be without number: this share of the disk stays free. */
enum { FREE_SHARE = 20 };

/* Nobody writes a file for so long. */
enum { DRAFT_SECONDS = 3600 };

/* A slot that holds pages, and the file that they go to. */
struct write {
    int slot;
    char *path;
};

struct sessions {
    struct kv_cache *cache;
    int first_slot; /* to read into; those of writes follow */
    uint64_t fingerprint, model_hash;
    char *folder, *model; /* the latter as it stands in names of files */

    struct write writes[MAX_WRITES]; /* a ring: write i is at i % MAX_WRITES */
    uint64_t n_begun, n_collected;   /* the owner's */
    uint64_t n_done;                 /* the thread's, under the lock, as are the next two */
    uint64_t n_offered;
    bool is_closing;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t offered, done;
};

/* ---- files ---- */

/* A model's name may be any text; a file's is letters, digits, dots, lines. */
static char *file_word(const char *text)
{
    char *word = xstrdup(text);
    for (char *c = word; *c; c++)
        if (!isascii((unsigned char)*c) || (!isalnum((unsigned char)*c) && !strchr("._-", *c)))
            *c = '_';
    return word;
}

static char *path_of(const struct sessions *s, struct slice name, const struct kv_salt *salt)
{
    uint64_t hash = checksum_add(s->model_hash, checksum_bytes(salt->bytes, salt->n));
    hash = checksum_add(hash, checksum_bytes(name.data, name.len));
    return xasprintf("%s/%s-%016llx.kv", s->folder, s->model, (unsigned long long)hash);
}

/* What a process that was killed while it wrote has left: "<model>-<hash>.kv.XXXXXX", long untouched. */
static void remove_drafts(const struct sessions *s)
{
    size_t n = strlen(s->model), n_path = n + strlen("-0123456789abcdef.kv");
    DIR *d = opendir(s->folder);
    struct stat st;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        const char *name = entry->d_name;
        if (strlen(name) == n_path + strlen(".XXXXXX") && !strncmp(name, s->model, n) && name[n] == '-' &&
            !strncmp(name + n_path - 3, ".kv.", 4) && !fstatat(dirfd(d), name, &st, AT_SYMLINK_NOFOLLOW) &&
            st.st_mtime < time(NULL) - DRAFT_SECONDS)
            unlinkat(dirfd(d), name, 0);
    }
    if (d)
        closedir(d);
}

static bool has_disk(const char *folder, uint64_t bytes)
{
    struct statvfs v;
    if (statvfs(folder, &v))
        return true; /* the attempt will tell */
    uint64_t unit = v.f_frsize ? v.f_frsize : v.f_bsize;
    return (uint64_t)v.f_bavail >= (uint64_t)v.f_blocks / FREE_SHARE + bytes / unit + 1;
}

/* ---- the thread ---- */

static void write_one(const struct sessions *s, const struct write *w)
{
    int n_pages = kv_cache_slot_published(s->cache, w->slot);
    int64_t begin_us = clock_us();
    struct error err;
    if (!has_disk(s->folder, (uint64_t)n_pages * s->cache->page_bytes))
        log_warn("session_not_written", "why=\"less than 1/%d of the disk would be free\"", FREE_SHARE);
    else if (kv_saved_write(s->cache, w->slot, s->fingerprint, w->path, &err) != OK)
        log_warn("session_not_written", "why=\"%s\"", err.text);
    else
        log_info("session_written", "tokens=%d us=%lld", n_pages * KV_BLOCK,
                 (long long)(clock_us() - begin_us));
}

static void *write_all(void *context)
{
    struct sessions *s = context;
    setpriority(PRIO_PROCESS, (id_t)gettid(), 19); /* on Linux that is the thread's own */
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (s->n_done == s->n_offered && !s->is_closing)
            pthread_cond_wait(&s->offered, &s->lock);
        if (s->n_done == s->n_offered)
            break;
        const struct write *w = &s->writes[s->n_done % MAX_WRITES];
        pthread_mutex_unlock(&s->lock);
        write_one(s, w);
        pthread_mutex_lock(&s->lock);
        s->n_done++;
        pthread_cond_signal(&s->done);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Signals are for the thread that turns the loop. */
static int start_thread(struct sessions *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&s->thread, NULL, write_all, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

/* ---- its life ---- */

static void init_lock(struct sessions *s)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->offered, &monotonic);
    pthread_cond_init(&s->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void free_all(struct sessions *s)
{
    pthread_cond_destroy(&s->done);
    pthread_cond_destroy(&s->offered);
    pthread_mutex_destroy(&s->lock);
    free(s->folder);
    free(s->model);
    free(s);
}

enum status sessions_create(struct sessions **out, struct kv_cache *c, int first_slot, uint64_t fingerprint,
                            const char *folder, const char *model, struct error *err)
{
    *out = NULL;
    assert(first_slot + SESSIONS_SLOTS <= c->shape.n_slots);
    if ((mkdir(folder, 0700) && errno != EEXIST) || access(folder, R_OK | W_OK | X_OK))
        return error_errno(err, "saved sessions: the folder \"%s\" cannot be used", folder);
    struct sessions *s = xcalloc(1, sizeof *s);
    s->cache = c;
    s->first_slot = first_slot;
    s->fingerprint = fingerprint;
    s->model_hash = checksum_bytes(model, strlen(model));
    s->folder = xstrdup(folder);
    s->model = file_word(model);
    for (int i = 0; i < MAX_WRITES; i++)
        s->writes[i].slot = first_slot + 1 + i;
    remove_drafts(s);
    init_lock(s);
    int code = start_thread(s);
    if (code) {
        free_all(s);
        return error_set(err, E_NOMEM, "cannot start a thread: %s", strerror(code));
    }
    *out = s;
    return OK;
}

void sessions_destroy(struct sessions *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_closing = true;
    pthread_cond_signal(&s->offered);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    sessions_collect(s, 0);
    free_all(s);
}

/* ---- reading and writing ---- */

void sessions_read(struct sessions *s, struct slice name, const struct kv_salt *salt)
{
    char *path = path_of(s, name, salt);
    int64_t begin_us = clock_us();
    int n_tokens;
    struct stat st;
    struct error err;
    if (stat(path, &st) == 0) {
        if (kv_saved_read(s->cache, s->first_slot, s->fingerprint, path, &n_tokens, &err) != OK)
            log_warn("session_ignored", "tokens_used=%d why=\"%s\"", n_tokens, err.text);
        else
            log_info("session_read", "tokens=%d us=%lld", n_tokens, (long long)(clock_us() - begin_us));
    }
    free(path);
}

void sessions_write(struct sessions *s, int slot, struct slice name, const struct kv_salt *salt)
{
    int n_pages = kv_cache_slot_published(s->cache, slot);
    sessions_collect(s, 0);
    if (!n_pages)
        return;
    if (s->n_begun - s->n_collected == MAX_WRITES) {
        log_warn("session_not_written", "why=\"%d others wait for the disk\"", MAX_WRITES);
        return;
    }
    struct write *w = &s->writes[s->n_begun % MAX_WRITES];
    kv_cache_share(s->cache, slot, w->slot, n_pages * KV_BLOCK);
    w->path = path_of(s, name, salt);
    s->n_begun++;
    pthread_mutex_lock(&s->lock);
    s->n_offered = s->n_begun;
    pthread_cond_signal(&s->offered);
    pthread_mutex_unlock(&s->lock);
}

static struct timespec time_after_ms(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

void sessions_collect(struct sessions *s, int max_wait_ms)
{
    if (s->n_collected == s->n_begun)
        return;
    const struct timespec end = time_after_ms(max_wait_ms);
    pthread_mutex_lock(&s->lock);
    while (s->n_done == s->n_collected && max_wait_ms > 0 &&
           pthread_cond_timedwait(&s->done, &s->lock, &end) == 0)
        continue;
    uint64_t n_done = s->n_done;
    pthread_mutex_unlock(&s->lock);
    for (; s->n_collected < n_done; s->n_collected++) {
        struct write *w = &s->writes[s->n_collected % MAX_WRITES];
        kv_cache_truncate(s->cache, w->slot, 0);
        free(w->path);
        w->path = NULL;
    }
}
