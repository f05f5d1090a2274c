/* Inside of the kv folder: a file of saved pages. A header, and for each page a saved_page and its bytes. */
#ifndef WOOLLY_KV_SAVED_FILE_H
#define WOOLLY_KV_SAVED_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/checksum.h"
#include "worker/kv/prefix.h"

#define SAVED_MAGIC "woolly-kv 1"

/* To be raised when blocks change inside (worker/kernels/attention.h). */
enum { SAVED_LAYOUT = 1, SAVED_BYTE_ORDER = 0x01020304 };

struct saved_header {
    char magic[16];
    uint32_t byte_order, layout;
    uint64_t model;
    uint64_t page_bytes;
    int32_t type, head_dim, n_layers, n_kv_heads;
    uint32_t n_pages; /* 1 or more */
    uint32_t salt_bytes;
    char salt[KV_SALT_BYTES];
    uint64_t checksum; /* of all the above */
};

struct saved_page {
    int32_t tokens[KV_BLOCK];
    uint64_t checksum; /* of the page before, or the header, and of this page's tokens and bytes */
};

static inline uint64_t saved_header_checksum(const struct saved_header *h)
{
    return checksum_bytes(h, offsetof(struct saved_header, checksum));
}

static inline uint64_t saved_page_checksum(uint64_t before, const struct saved_page *p, const char *bytes,
                                           size_t n)
{
    uint64_t sum = checksum_add(before, checksum_bytes(p->tokens, sizeof p->tokens));
    return checksum_add(sum, checksum_bytes(bytes, n));
}

#endif
