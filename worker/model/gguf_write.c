#include "worker/model/gguf_write.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/xalloc.h"

struct gguf_writer {
    char *path, *temporary; /* temporary is NULL once there is nothing to remove */
    int fd;
    uint32_t alignment;
    uint64_t n_keys, n_tensors;
    struct buffer keys, directory;
    uint64_t *ends;    /* [n_tensors] of each tensor's data without padding, from the start of the data */
    uint64_t data_len; /* to the end of the last tensor with its padding */
    uint64_t written;  /* bytes of data, padding included */
    uint64_t next;     /* the tensor whose data comes next */
    bool has_header;
};

static void put_number(struct buffer *b, uint64_t value, size_t bytes)
{
    buffer_append(b, &value, bytes); /* little-endian, as the reader insists the machine is */
}

static void put_string(struct buffer *b, struct gguf_string s)
{
    put_number(b, s.len, 8);
    buffer_append(b, s.text, s.len);
}

static struct gguf_string string_of(const char *text)
{
    return (struct gguf_string){ text, strlen(text) };
}

static uint64_t padded(const struct gguf_writer *w, uint64_t len)
{
    return (len + w->alignment - 1) / w->alignment * w->alignment;
}

static enum status write_all(struct gguf_writer *w, const char *bytes, uint64_t len, struct error *err)
{
    while (len) {
        ssize_t n = write(w->fd, bytes, len < 1 << 30 ? len : 1 << 30);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, "cannot write %s", w->path);
        bytes += n;
        len -= (uint64_t)n;
    }
    return OK;
}

/* --- opening --- */

static enum status check_target(const char *path, struct error *err)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return error_set(err, E_INVALID, "%s is there and is no regular file", path);
    return OK;
}

static enum status open_temporary(struct gguf_writer *w, struct error *err)
{
    char *copy = xstrdup(w->path);
    w->temporary = xasprintf("%s/.woolly-XXXXXX", dirname(copy));
    free(copy);
    w->fd = mkostemp(w->temporary, O_CLOEXEC);
    if (w->fd < 0) {
        enum status s = error_errno(err, "cannot write %s", w->path);
        free(w->temporary);
        w->temporary = NULL;
        return s;
    }
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(w->fd, 0666 & ~mask) < 0)
        return error_errno(err, "cannot write %s", w->path);
    return OK;
}

enum status gguf_writer_create(struct gguf_writer **out, const char *path, uint32_t alignment,
                               struct error *err)
{
    assert(alignment >= 8 && !(alignment & (alignment - 1)));
    struct gguf_writer *w = xcalloc(1, sizeof *w);
    enum status s;

    *out = NULL;
    w->path = xstrdup(path);
    w->fd = -1;
    w->alignment = alignment;
    if ((s = check_target(path, err)) != OK || (s = open_temporary(w, err)) != OK) {
        gguf_writer_destroy(w);
        return s;
    }
    *out = w;
    return OK;
}

void gguf_writer_destroy(struct gguf_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary)
        unlink(w->temporary);
    buffer_fini(&w->keys);
    buffer_fini(&w->directory);
    free(w->ends);
    free(w->temporary);
    free(w->path);
    free(w);
}

/* --- keys and directory --- */

static size_t bytes_of_kind(enum gguf_kind kind)
{
    switch (kind) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    default:
        return 8;
    }
}

static void put_array(struct buffer *b, const struct gguf_value *v)
{
    put_number(b, v->element, 4);
    put_number(b, v->count, 8);
    if (v->element == GGUF_STRING)
        for (uint64_t i = 0; i < v->count; i++)
            put_string(b, v->strings[i]);
    else
        buffer_append(b, v->elements, v->count * bytes_of_kind(v->element));
}

void gguf_writer_put(struct gguf_writer *w, struct gguf_string key, const struct gguf_value *v)
{
    assert(!w->has_header);
    struct buffer *b = &w->keys;
    put_string(b, key);
    put_number(b, v->kind, 4);
    if (v->kind == GGUF_STRING)
        put_string(b, v->string);
    else if (v->kind == GGUF_ARRAY)
        put_array(b, v);
    else if (v->kind == GGUF_F32)
        buffer_append(b, &(float){ (float)v->f }, 4);
    else /* the low bytes of any whole number are the number; an f64 is its own eight */
        put_number(b, v->u, bytes_of_kind(v->kind));
    w->n_keys++;
}

void gguf_writer_put_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    gguf_writer_put(w, string_of(key), &(struct gguf_value){ .kind = GGUF_U32, .u = value });
}

void gguf_writer_add_tensor(struct gguf_writer *w, struct gguf_string name, enum weight_type type, int n_dims,
                            const uint64_t *dims)
{
    assert(!w->has_header && dims[0] % (uint64_t)weight_info(type)->block_len == 0);
    uint64_t bytes = weight_row_bytes(type, dims[0]);
    put_string(&w->directory, name);
    put_number(&w->directory, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++) {
        put_number(&w->directory, dims[i], 8);
        bytes *= i ? dims[i] : 1;
    }
    put_number(&w->directory, type, 4);
    put_number(&w->directory, w->data_len, 8);
    w->ends = xrealloc(w->ends, (w->n_tensors + 1) * sizeof *w->ends);
    w->ends[w->n_tensors++] = w->data_len + bytes;
    w->data_len = padded(w, w->data_len + bytes);
}

/* --- data --- */

static enum status write_zeros(struct gguf_writer *w, uint64_t len, struct error *err)
{
    static const char zeros[4096];
    enum status s = OK;
    for (uint64_t n; len && s == OK; len -= n) {
        n = len < sizeof zeros ? len : sizeof zeros;
        s = write_all(w, zeros, n, err);
    }
    return s;
}

static enum status write_header(struct gguf_writer *w, struct error *err)
{
    struct buffer head = { 0 };
    w->has_header = true;
    buffer_append(&head, "GGUF", 4);
    put_number(&head, 3, 4);
    put_number(&head, w->n_tensors, 8);
    put_number(&head, w->n_keys, 8);
    uint64_t len = head.len + w->keys.len + w->directory.len;
    enum status s;
    if ((s = write_all(w, head.data, head.len, err)) == OK &&
        (s = write_all(w, w->keys.data, w->keys.len, err)) == OK &&
        (s = write_all(w, w->directory.data, w->directory.len, err)) == OK)
        s = write_zeros(w, padded(w, len) - len, err);
    buffer_fini(&head);
    return s;
}

enum status gguf_writer_data(struct gguf_writer *w, const void *bytes, uint64_t len, struct error *err)
{
    enum status s;
    if (!w->has_header && (s = write_header(w, err)) != OK)
        return s;
    assert(w->next < w->n_tensors && len <= w->ends[w->next] - w->written);
    if ((s = write_all(w, bytes, len, err)) != OK)
        return s;
    w->written += len;
    if (w->written < w->ends[w->next])
        return OK;
    uint64_t padding = padded(w, w->written) - w->written;
    w->written += padding;
    w->next++;
    return write_zeros(w, padding, err);
}

/* The new name is safe on the disk only when its folder is. */
static void sync_folder(const char *path)
{
    char *copy = xstrdup(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* some file systems refuse; the file itself was synced */
        close(fd);
    }
    free(copy);
}

enum status gguf_writer_commit(struct gguf_writer *w, struct error *err)
{
    enum status s;
    if (!w->has_header && (s = write_header(w, err)) != OK)
        return s;
    assert(w->next == w->n_tensors);
    if (fsync(w->fd) < 0 || rename(w->temporary, w->path) < 0)
        return error_errno(err, "cannot write %s", w->path);
    free(w->temporary);
    w->temporary = NULL;
    sync_folder(w->path);
    return OK;
}
