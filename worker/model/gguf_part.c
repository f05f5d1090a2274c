/* Opening one GGUF file.
 *
 * The map is private and read-only; its pages are the page cache's. A file that someone shortens after it was
 * mapped ends the process with SIGBUS at the next touch of a lost page. That is not defended against: it
 * would take a copy of the weights, and a model file is replaced by renaming another one over it. */
#include "worker/model/gguf_part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/xalloc.h"

enum { SHOWN_PATH = 200 };

/* A path's end tells more than its beginning. */
static char *shown_path(const char *path)
{
    char text[SHOWN_PATH + 8];
    size_t len = strlen(path);
    const char *tail = len > SHOWN_PATH / 2 ? path + len - SHOWN_PATH / 2 : path;
    gguf_printable((struct gguf_string){ tail, strlen(tail) }, text, sizeof text);
    return xasprintf("%s%s", tail == path ? "" : "...", text);
}

static enum status map_file(struct gguf_part *p, int fd, struct error *err)
{
    struct stat st;

    if (fstat(fd, &st))
        return error_errno(err, "%s: cannot look at the file", p->shown);
    if (!S_ISREG(st.st_mode))
        return error_set(err, E_INVALID, "%s: is %s, not a file", p->shown,
                         S_ISDIR(st.st_mode)    ? "a folder"
                         : S_ISFIFO(st.st_mode) ? "a pipe"
                                                : "a device or socket");
    if (!st.st_size)
        return error_set(err, E_FORMAT, "%s: magic at offset 0: the file is empty", p->shown);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, "%s: cannot map %lld bytes", p->shown, (long long)st.st_size);
    p->bytes = map;
    p->len = (uint64_t)st.st_size;
    p->modified_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    p->is_mapped = true;
    return OK;
}

enum status gguf_part_open(struct gguf_part *p, const char *path, struct error *err)
{
    enum status s;

    *p = (struct gguf_part){ .shown = shown_path(path) };
    /* Without O_NONBLOCK, opening a pipe would wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        s = errno == ENOENT ? error_set(err, E_NOTFOUND, "%s: there is no such file", p->shown)
                            : error_errno(err, "%s: cannot open", p->shown);
        goto fail;
    }
    p->fd = fd;
    if ((s = map_file(p, fd, err)) != OK) {
        close(fd);
        goto fail;
    }
    if ((s = gguf_part_read(p, err)) != OK)
        goto fail;
    return OK;

fail:
    gguf_part_close(p);
    return s;
}

enum status gguf_part_open_memory(struct gguf_part *p, const void *bytes, size_t len, struct error *err)
{
    *p = (struct gguf_part){ .shown = xstrdup("(memory)"), .bytes = bytes, .len = len };
    enum status s = gguf_part_read(p, err);
    if (s != OK)
        gguf_part_close(p);
    return s;
}

void gguf_part_close(struct gguf_part *p)
{
    for (uint64_t i = 0; i < p->n_entries; i++) {
        struct gguf_value *v = &p->entries[i].value;
        if (v->kind == GGUF_ARRAY && v->element == GGUF_STRING)
            free((void *)v->strings);
    }
    free(p->entries);
    free(p->tensors);
    gguf_index_fini(&p->keys);
    if (p->is_mapped) {
        munmap((void *)p->bytes, p->len);
        close(p->fd);
    }
    free(p->shown);
    *p = (struct gguf_part){ 0 };
}

const struct gguf_value *gguf_part_find(const struct gguf_part *p, const char *key)
{
    const struct gguf_entry *e = gguf_index_find(&p->keys, (struct gguf_string){ key, strlen(key) });
    return e ? &e->value : NULL;
}

enum status gguf_part_blame_key(const struct gguf_part *p, const char *key, enum status status,
                                struct error *err, const char *format, ...)
{
    char problem[300];
    const struct gguf_value *v = gguf_part_find(p, key);
    va_list args;
    va_start(args, format);
    vsnprintf(problem, sizeof problem, format, args);
    va_end(args);
    return error_set(err, status, "%s: key \"%s\" at offset %llu: %s", p->shown, key,
                     v ? (unsigned long long)v->offset : 0, problem);
}

enum status gguf_part_get_u64(const struct gguf_part *p, const char *key, uint64_t *out, struct error *err)
{
    const struct gguf_value *v = gguf_part_find(p, key);
    if (!v)
        return E_NOTFOUND;
    switch (v->kind) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        *out = v->u;
        return OK;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if (v->i < 0)
            return gguf_part_blame_key(p, key, E_FORMAT, err, "is %lld, must not be negative",
                                       (long long)v->i);
        *out = (uint64_t)v->i;
        return OK;
    default:
        return gguf_part_blame_key(p, key, E_FORMAT, err, "is of type %s, must be an integer",
                                   gguf_kind_name(v->kind));
    }
}
