/* Any bytes as a file of saved pages. The first byte says what becomes of the rest: it is the file, or it
 * comes over the beginning of a sound file, where the header's checksum and those of the pages are then put
 * right, so that what they protect is read as well. Whatever the file, the cache stays sound and nobody holds
 * a page. Seeds: seeds/saved. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/utf8.h"
#include "worker/kv/page.h"
#include "worker/kv/saved.h"
#include "worker/kv/saved_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { MODEL = 1, N_PAGES = 3 };

static void require(int holds)
{
    if (!holds)
        abort();
}

static void open_cache(struct kv_cache *c)
{
    const struct kv_shape shape = { .type = KV_F16,
                                    .head_dim = 2,
                                    .n_layers = 1,
                                    .n_kv_heads = 1,
                                    .n_slots = 2,
                                    .n_ctx = 2 * KV_BLOCK,
                                    .n_pages = N_PAGES };
    struct error err;
    require(kv_cache_init(c, &shape, &err) == OK);
}

static void put_right(char *file, size_t len, size_t page_bytes)
{
    struct saved_header h;
    if (len < sizeof h)
        return;
    memcpy(&h, file, sizeof h);
    h.checksum = saved_header_checksum(&h);
    memcpy(file, &h, sizeof h);
    uint64_t before = h.checksum;
    struct saved_page p;
    for (size_t at = sizeof h; len - at >= sizeof p + page_bytes; at += sizeof p + page_bytes) {
        memcpy(&p, file + at, sizeof p);
        before = p.checksum = saved_page_checksum(before, &p, file + at + sizeof p, page_bytes);
        memcpy(file + at, &p, sizeof p);
    }
}

/* A file of two pages, made once. */
static const char *sound_file(size_t *len)
{
    static char *file;
    static size_t file_len;
    if (!file) {
        struct kv_cache c;
        int32_t tokens[KV_BLOCK] = { 1, 2, 3 };
        open_cache(&c);
        file_len = sizeof(struct saved_header) + 2 * (sizeof(struct saved_page) + c.page_bytes);
        file = calloc(1, file_len);
        struct saved_header h = { .magic = SAVED_MAGIC,
                                  .byte_order = SAVED_BYTE_ORDER,
                                  .layout = SAVED_LAYOUT,
                                  .model = MODEL,
                                  .page_bytes = c.page_bytes,
                                  .type = KV_F16,
                                  .head_dim = 2,
                                  .n_layers = 1,
                                  .n_kv_heads = 1,
                                  .n_pages = 2 };
        memcpy(file, &h, sizeof h);
        memcpy(file + sizeof h, tokens, sizeof tokens);
        kv_cache_fini(&c);
    }
    *len = file_len;
    return file;
}

static void read_file(struct kv_cache *c, const char *file, size_t len)
{
    int fd = memfd_create("saved", MFD_CLOEXEC), n_tokens = -1;
    char path[32];
    struct error err = { 0 };
    require(fd >= 0 && write(fd, file, len) == (ssize_t)len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum status s = kv_saved_read(c, 1, MODEL, path, &n_tokens, &err);
    close(fd);
    require(n_tokens >= 0 && n_tokens % KV_BLOCK == 0 && n_tokens <= 2 * KV_BLOCK);
    require(s == OK ? n_tokens > 0 : err.status == s && utf8_is_valid(err.text, strlen(err.text)));
    require(kv_cache_available(c) == N_PAGES && kv_cache_counts(c).published >= n_tokens / KV_BLOCK);
    kv_cache_check(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct kv_cache c;
    if (!len)
        return 0;
    open_cache(&c);
    if (bytes[0] % 2 == 0) {
        read_file(&c, (const char *)bytes + 1, len - 1);
    } else {
        size_t sound_len, n = len - 1;
        const char *sound = sound_file(&sound_len);
        size_t total = n > sound_len ? n : sound_len;
        char *file = malloc(total);
        memcpy(file, sound, sound_len);
        memcpy(file, bytes + 1, n);
        put_right(file, total, c.page_bytes);
        read_file(&c, file, total);
        read_file(&c, file, total); /* what is there already is taken from there */
        free(file);
    }
    kv_cache_fini(&c);
    return 0;
}
