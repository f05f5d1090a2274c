#include "worker/kv/saved.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/xalloc.h"
#include "worker/kv/page.h"
#include "worker/kv/saved_file.h"

static struct saved_header header_for(const struct kv_cache *c, uint64_t model)
{
    return (struct saved_header){
        .magic = SAVED_MAGIC,
        .byte_order = SAVED_BYTE_ORDER,
        .layout = SAVED_LAYOUT,
        .model = model,
        .page_bytes = c->page_bytes,
        .type = (int32_t)c->shape.type,
        .head_dim = c->shape.head_dim,
        .n_layers = c->shape.n_layers,
        .n_kv_heads = c->shape.n_kv_heads,
    };
}

static char *bytes_of(const struct kv_cache *c, int32_t page)
{
    return c->memory + (size_t)page * c->page_bytes;
}

/* --- writing --- */

static bool write_all(int fd, const void *bytes, size_t n)
{
    for (const char *next = bytes; n > 0;) {
        ssize_t done = write(fd, next, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        next += done;
        n -= (size_t)done;
    }
    return true;
}

static bool write_pages(const struct kv_cache *c, int slot, int n_pages, uint64_t model, int fd)
{
    const int32_t *table = kv_cache_table(c, slot);
    const struct kv_salt *salt = &c->pages[table[0]].salt;
    struct saved_header h = header_for(c, model);
    h.n_pages = (uint32_t)n_pages;
    h.salt_bytes = salt->n;
    memcpy(h.salt, salt->bytes, salt->n);
    h.checksum = saved_header_checksum(&h);
    if (!write_all(fd, &h, sizeof h))
        return false;

    uint64_t before = h.checksum;
    for (int i = 0; i < n_pages; i++) {
        struct saved_page p;
        memcpy(p.tokens, c->pages[table[i]].tokens, sizeof p.tokens);
        p.checksum = saved_page_checksum(before, &p, bytes_of(c, table[i]), c->page_bytes);
        if (!write_all(fd, &p, sizeof p) || !write_all(fd, bytes_of(c, table[i]), c->page_bytes))
            return false;
        before = p.checksum;
    }
    return fsync(fd) == 0;
}

/* The file's name is on disk too, where the file system can say so. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? xstrndup(path, slash > path ? (size_t)(slash - path) : 1) : xstrdup(".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(folder);
}

enum status kv_saved_write(const struct kv_cache *c, int slot, uint64_t model, const char *path,
                           struct error *err)
{
    int n_pages = kv_cache_slot_published(c, slot);
    if (!n_pages)
        return error_set(err, E_INVALID,
                         "there is nothing to save: the text has less than %d computed tokens", KV_BLOCK);

    enum status s = OK;
    char *draft = xasprintf("%s.XXXXXX", path);
    int fd = mkostemp(draft, O_CLOEXEC); /* for its owner only: the pages tell what was said */
    if (fd < 0) {
        s = error_errno(err, "cannot write saved pages to \"%s\"", path);
    } else if (!write_pages(c, slot, n_pages, model, fd) || rename(draft, path)) {
        s = error_errno(err, "cannot write saved pages to \"%s\"", path);
        unlink(draft);
    } else {
        sync_folder(path);
    }
    if (fd >= 0)
        close(fd);
    free(draft);
    return s;
}

/* --- reading --- */

/* A file that is being read. */
struct source {
    struct kv_cache *cache;
    const char *path;
    int fd;
    uint64_t at;
    struct error *err;
};

static enum status damaged(const struct source *f, const char *why)
{
    return error_set(f->err, E_FORMAT, "saved pages \"%s\": %s", f->path, why);
}

static enum status read_bytes(struct source *f, void *out, size_t n)
{
    for (char *next = out; n > 0;) {
        ssize_t done = pread(f->fd, next, n, (off_t)f->at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return error_errno(f->err, "cannot read saved pages \"%s\"", f->path);
        if (done == 0)
            return damaged(f, "the file is cut off");
        next += done;
        n -= (size_t)done;
        f->at += (uint64_t)done;
    }
    return OK;
}

static enum status check_header(const struct source *f, const struct saved_header *h, uint64_t model,
                                uint64_t file_bytes)
{
    const struct kv_cache *c = f->cache;
    const struct saved_header own = header_for(c, model);
    uint64_t record_bytes = sizeof(struct saved_page) + c->page_bytes;

    if (memcmp(h->magic, own.magic, sizeof own.magic))
        return damaged(f, "this is no file of saved pages");
    if (h->byte_order != own.byte_order || h->checksum != saved_header_checksum(h))
        return damaged(f, "the header is damaged");
    if (h->layout != own.layout)
        return error_set(f->err, E_UNSUPPORTED,
                         "saved pages \"%s\" have layout %u, which another version of Woolly wrote; this one "
                         "reads layout %d",
                         f->path, h->layout, SAVED_LAYOUT);
    if (h->model != own.model)
        return error_set(f->err, E_UNSUPPORTED, "saved pages \"%s\" belong to another model", f->path);
    if (h->type != own.type)
        return error_set(f->err, E_UNSUPPORTED, "saved pages \"%s\" are of another kind than this cache's %s",
                         f->path, kv_type_name(c->shape.type));
    if (h->head_dim != own.head_dim || h->n_layers != own.n_layers || h->n_kv_heads != own.n_kv_heads ||
        h->page_bytes != own.page_bytes)
        return error_set(f->err, E_UNSUPPORTED, "saved pages \"%s\" have another shape than this cache's",
                         f->path);
    if (h->salt_bytes > KV_SALT_BYTES)
        return damaged(f, "the salt is too long");
    if (h->n_pages < 1 || (file_bytes - sizeof *h) / record_bytes != h->n_pages ||
        (file_bytes - sizeof *h) % record_bytes)
        return damaged(f, "the file has not the length that its header tells");
    return OK;
}

static enum status read_header(struct source *f, struct saved_header *h, uint64_t model)
{
    struct stat st;
    enum status s;
    if (fstat(f->fd, &st))
        return error_errno(f->err, "cannot read saved pages \"%s\"", f->path);
    if (!S_ISREG(st.st_mode))
        return damaged(f, "this is no regular file");
    if ((s = read_bytes(f, h, sizeof *h)) != OK)
        return s;
    return check_header(f, h, model, (uint64_t)st.st_size);
}

/* Reads the page that comes next and appends it to the slot, published. E_OVERLOADED when there is no room.
 */
static enum status read_page(struct source *f, int slot, struct kv_salt salt, uint64_t *before)
{
    struct kv_cache *c = f->cache;
    int index = kv_cache_slot_pages(c, slot);
    struct saved_page p;
    enum status s;

    if (index == c->shape.n_ctx / KV_BLOCK)
        return E_OVERLOADED;
    if ((s = read_bytes(f, &p, sizeof p)) != OK)
        return s;
    if (kv_cache_adopt(c, slot, index, p.tokens, salt)) {
        f->at += c->page_bytes;
    } else {
        if (!kv_cache_reserve(c, slot, index * KV_BLOCK, (index + 1) * KV_BLOCK))
            return E_OVERLOADED;
        char *bytes = bytes_of(c, kv_cache_table(c, slot)[index]);
        if ((s = read_bytes(f, bytes, c->page_bytes)) != OK)
            return s;
        if (p.checksum != saved_page_checksum(*before, &p, bytes, c->page_bytes))
            return damaged(f, "a page is damaged");
        kv_cache_publish(c, slot, index, p.tokens, salt);
    }
    *before = p.checksum;
    return OK;
}

static enum status read_pages(struct source *f, int slot, uint64_t model, int *n_tokens)
{
    struct saved_header h;
    enum status s = read_header(f, &h, model);
    if (s != OK)
        return s;

    struct kv_salt salt = { .n = (uint8_t)h.salt_bytes };
    memcpy(salt.bytes, h.salt, salt.n);
    uint64_t before = h.checksum;
    for (uint32_t i = 0; i < h.n_pages && s == OK; i++)
        s = read_page(f, slot, salt, &before);
    *n_tokens = kv_cache_slot_published(f->cache, slot) * KV_BLOCK;
    kv_cache_truncate(f->cache, slot, 0);
    return s == E_OVERLOADED ? OK : s;
}

enum status kv_saved_read(struct kv_cache *c, int spare_slot, uint64_t model, const char *path, int *n_tokens,
                          struct error *err)
{
    struct source f = { .cache = c, .path = path, .err = err };

    assert(kv_cache_slot_pages(c, spare_slot) == 0);
    *n_tokens = 0;
    f.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f.fd < 0)
        return error_errno(err, "cannot read saved pages \"%s\"", path);
    enum status s = read_pages(&f, spare_slot, model, n_tokens);
    close(f.fd);
    return s;
}
