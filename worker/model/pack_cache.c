#include "worker/model/pack_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/log.h"
#include "common/xalloc.h"
#include "worker/kernels/packed.h"

/* Weights begin a page into the file. Pieces are what is done between two reports of progress. */
enum { HEADER_BYTES = 4096, PIECE = 64 << 20, CHUNK = 1 << 20 };

struct pack_cache {
    char *folder, *path;
    struct {
        uint64_t identity, times;
    } source;
    uint64_t bytes; /* of packed weights */

    /* Of a file that differs from the source in nothing but times. */
    bool is_only_older;
    uint64_t its_source_checksum, its_checksum;

    /* To be written. */
    const char *packed;
    uint64_t source_checksum;
};

static const char magic[16] = "woolly-packed 1";

struct header {
    char magic[16];
    uint32_t byte_order; /* 0x01020304 to who wrote it */
    uint32_t layout;
    uint64_t identity, times;
    uint64_t source_checksum;
    uint64_t bytes, checksum; /* of the packed weights */
    uint64_t header_checksum; /* of all the above */
};

static uint64_t header_checksum(const struct header *h)
{
    return checksum_bytes(h, offsetof(struct header, header_checksum));
}

/* --- the source --- */

static char *cache_path(const char *folder, const char *model_path, uint64_t identity)
{
    const char *slash = strrchr(model_path, '/'), *name = slash ? slash + 1 : model_path;
    size_t len = strlen(name);
    if (len > 5 && !strcmp(name + len - 5, ".gguf"))
        len -= 5;
    return xasprintf("%s/%.*s-%016llx.woolly-packed", folder, (int)(len < 128 ? len : 128), name,
                     (unsigned long long)identity);
}

struct pack_cache *pack_cache_create(const struct reader *r, uint64_t shapes, uint64_t bytes)
{
    struct pack_cache *c = xcalloc(1, sizeof *c);
    c->bytes = bytes;
    c->source.identity = checksum_add(shapes, bytes);
    for (int i = 0; i < gguf_n_parts(r->m->gguf); i++) {
        struct gguf_origin o = gguf_origin(r->m->gguf, i);
        c->source.identity = checksum_add(c->source.identity, o.file_bytes);
        c->source.identity =
            checksum_add(c->source.identity, checksum_bytes(o.bytes, (size_t)o.header_bytes));
        c->source.times = checksum_add(c->source.times, (uint64_t)o.modified_ns);
    }
    c->folder = xstrdup(r->options->cache_folder);
    c->path = cache_path(c->folder, r->path, c->source.identity);
    return c;
}

void pack_cache_destroy(struct pack_cache *c)
{
    if (!c)
        return;
    free(c->folder);
    free(c->path);
    free(c);
}

/* --- the packed weights' checksum --- */

struct summing {
    const char *bytes; /* a piece */
    uint64_t n, place;
    bool is_mapped; /* from the file */
    uint64_t sum;
};

static void sum_share(void *arg, int thread, int n_threads)
{
    struct summing *s = arg;
    int64_t first, last;
    uint64_t sum = 0;
    pool_share((int64_t)(s->n + CHUNK - 1) / CHUNK, 1, thread, n_threads, &first, &last);
    for (uint64_t at = (uint64_t)first * CHUNK; at < (uint64_t)last * CHUNK; at += CHUNK) {
        size_t n = s->n - at < CHUNK ? s->n - at : CHUNK;
        /* A fault for every few pages would cost as much as the sum. Only a help: it may fail. */
        if (s->is_mapped)
            madvise((void *)(s->bytes + at), n, MADV_POPULATE_READ);
        sum += checksum_piece(s->place + at, s->bytes + at, n);
    }
    __atomic_fetch_add(&s->sum, sum, __ATOMIC_RELAXED);
}

/* Of a piece of the packed weights: those of all pieces are added up. */
static uint64_t sum_mapped(struct pool *pool, const char *packed, uint64_t at, uint64_t n)
{
    struct summing s = { .bytes = packed + at, .n = n, .place = at, .is_mapped = true };
    pool_run(pool, sum_share, &s);
    return s.sum;
}

static uint64_t sum_alone(const char *packed, uint64_t at, uint64_t n)
{
    struct summing s = { .bytes = packed + at, .n = n, .place = at };
    sum_share(&s, 0, 1);
    return s.sum;
}

/* --- mapping --- */

/* What is wrong with a file of that size, or NULL. */
static const char *find_fault(struct pack_cache *c, const struct header *h, uint64_t file_bytes)
{
    if (memcmp(h->magic, magic, sizeof magic))
        return "it holds no packed weights";
    if (h->byte_order != 0x01020304 || h->header_checksum != header_checksum(h))
        return "its header is damaged";
    if (h->layout != PACK_LAYOUT)
        return "it has the layout of another version";
    if (h->identity != c->source.identity || h->bytes != c->bytes)
        return "it belongs to another model file";
    if (file_bytes != HEADER_BYTES + c->bytes)
        return "it is cut off";
    if (h->times != c->source.times) {
        c->is_only_older = true;
        c->its_source_checksum = h->source_checksum;
        c->its_checksum = h->checksum;
        return "the model file has changed since";
    }
    return NULL;
}

/* Of a mapped file: by whom, and who wants to know of it. */
struct check {
    struct pack_cache *cache;
    struct pool *pool;
    const struct model_options *options;
};

static const char *check_bytes(const struct check *check, const struct header *h, const char *packed)
{
    const struct pack_cache *c = check->cache;
    uint64_t sum = 0;
    for (uint64_t at = 0, n; at < c->bytes; at += n) {
        n = c->bytes - at < PIECE ? c->bytes - at : PIECE;
        madvise((void *)(packed + at), n + PIECE, MADV_WILLNEED);
        sum += sum_mapped(check->pool, packed, at, n);
        model_progress_report(check->options, "reading packed weights", at + n, c->bytes);
    }
    return sum == h->checksum ? NULL : "its weights are damaged";
}

static const char *map_file(const struct check *check, int fd, struct packed_map *out)
{
    struct pack_cache *c = check->cache;
    struct header h;
    struct stat st;
    const char *fault;

    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return "it is no file";
    ssize_t n = pread(fd, &h, sizeof h, 0);
    if (n != sizeof h)
        return n < 0 ? strerror(errno) : "it is cut off";
    if ((fault = find_fault(c, &h, (uint64_t)st.st_size)))
        return fault;
    out->map_bytes = (uint64_t)st.st_size;
    out->map = mmap(NULL, out->map_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (out->map == MAP_FAILED) {
        *out = (struct packed_map){ 0 };
        return strerror(errno);
    }
    model_progress_report(check->options, "reading packed weights", 0, c->bytes);
    if ((fault = check_bytes(check, &h, out->map + HEADER_BYTES))) {
        free_packed(out);
        *out = (struct packed_map){ 0 };
    }
    return fault;
}

bool pack_cache_map(struct pack_cache *c, struct pool *pool, const struct model_options *options,
                    struct packed_map *out, const char **first)
{
    struct check check = { c, pool, options };
    int fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return false;
    const char *fault = fd < 0 ? strerror(errno) : map_file(&check, fd, out);
    if (fd >= 0)
        close(fd);
    if (fault) {
        log_warn("packed_weights_refused", "path=\"%s\" why=\"%s\"", c->path, fault);
        return false;
    }
    *first = out->map + HEADER_BYTES;
    return true;
}

/* --- writing --- */

static bool write_at(int fd, const void *bytes, size_t n, uint64_t at)
{
    for (const char *next = bytes; n > 0;) {
        ssize_t done = pwrite(fd, next, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        next += done;
        n -= (size_t)done;
        at += (uint64_t)done;
    }
    return true;
}

static bool write_header(const struct pack_cache *c, int fd, uint64_t checksum)
{
    struct header h = { .byte_order = 0x01020304,
                        .layout = PACK_LAYOUT,
                        .identity = c->source.identity,
                        .times = c->source.times,
                        .source_checksum = c->source_checksum,
                        .bytes = c->bytes,
                        .checksum = checksum };
    char page[HEADER_BYTES] = { 0 };
    memcpy(h.magic, magic, sizeof magic);
    h.header_checksum = header_checksum(&h);
    memcpy(page, &h, sizeof h);
    return write_at(fd, page, sizeof page, 0) && !fsync(fd);
}

/* The draft, empty and locked: -1 with errno, EWOULDBLOCK when another process writes it. A draft that a
 * killed process left behind is used again. */
static int open_draft(const char *path)
{
    struct stat opened, named;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0)
        return -1;
    /* The one who held the lock before us may have renamed what we opened: then it is the finished file. */
    if (flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &opened) || stat(path, &named))
        goto fail;
    if (opened.st_ino != named.st_ino || opened.st_dev != named.st_dev) {
        errno = EWOULDBLOCK;
        goto fail;
    }
    if (ftruncate(fd, 0))
        goto fail;
    return fd;

fail:;
    int why = errno == ENOENT ? EWOULDBLOCK : errno;
    close(fd);
    errno = why;
    return -1;
}

/* One way to write it. */
struct writing {
    const struct pack_cache *cache;
    const struct model_options *options;
    bool (*is_told_to_stop)(void);
};

/* Sends a piece on its way to the disk, and waits for the one before: so the last sync is short, what others
 * write has not long to wait, and the page cache does not fill with what cannot be dropped. Only a help: it
 * may fail. */
static void flush_piece(int fd, uint64_t at, uint64_t n)
{
    sync_file_range(fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE);
    if (at >= PIECE)
        sync_file_range(fd, (off_t)(at - PIECE), PIECE,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

static bool write_draft(const struct writing *w, int fd)
{
    const struct pack_cache *c = w->cache;
    uint64_t sum = 0;
    for (uint64_t at = 0, n; at < c->bytes; at += n) {
        model_progress_report(w->options, "writing packed weights", at, c->bytes);
        if (w->is_told_to_stop()) {
            errno = ECANCELED;
            return false;
        }
        n = c->bytes - at < PIECE ? c->bytes - at : PIECE;
        sum += sum_alone(c->packed, at, n);
        if (!write_at(fd, c->packed + at, n, HEADER_BYTES + at))
            return false;
        flush_piece(fd, HEADER_BYTES + at, n);
    }
    return write_header(c, fd, sum);
}

/* The file's name is on disk too, where the file system can say so. */
static void sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static bool replace_file(const struct writing *w, const char *draft)
{
    int fd = open_draft(draft);
    if (fd < 0)
        return errno == EWOULDBLOCK; /* it is being written: all is well */
    bool is_done = write_draft(w, fd) && !rename(draft, w->cache->path);
    int why = errno;
    if (is_done)
        sync_folder(w->cache->folder);
    else
        unlink(draft);
    close(fd);
    /* The last report is for when it is there. */
    if (is_done)
        model_progress_report(w->options, "writing packed weights", w->cache->bytes, w->cache->bytes);
    errno = why;
    return is_done;
}

/* The weights are those that the file holds: it gets the source's new time. */
static bool renew_header(const struct pack_cache *c)
{
    int fd = open(c->path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is_done = write_header(c, fd, c->its_checksum);
    int why = errno;
    close(fd);
    errno = why;
    return is_done;
}

void pack_cache_take(struct pack_cache *c, const char *packed, uint64_t source_checksum)
{
    c->packed = packed;
    c->source_checksum = source_checksum;
}

void pack_cache_write(const struct pack_cache *c, const struct model_options *options,
                      bool (*is_told_to_stop)(void))
{
    char *draft = xasprintf("%s.draft", c->path);
    bool is_done;
    mkdir(c->folder, 0777); /* if it is not there */
    if (c->is_only_older && c->its_source_checksum == c->source_checksum)
        is_done = renew_header(c);
    else
        is_done = replace_file(&(struct writing){ c, options, is_told_to_stop }, draft);
    if (!is_done)
        log_warn("packed_weights_not_kept", "path=\"%s\" why=\"%s\"", c->path, strerror(errno));
    free(draft);
}
