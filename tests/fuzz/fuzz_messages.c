/* Any bytes on any link: decoded or refused. What decodes must encode again to something that decodes. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct decoder *first, *second;
    static struct buffer again;
    if (!first) {
        first = decoder_create();
        second = decoder_create();
    }
    if (!len)
        return 0;
    enum message_link link = bytes[0] % 4;
    struct message m, copy;
    struct error err;
    if (message_decode(first, link, bytes + 1, len - 1, &m, &err) == OK) {
        message_encode(&again, &m);
        if (message_decode(second, link, again.data, again.len, &copy, &err) != OK || copy.kind != m.kind)
            abort();
    }
    return 0;
}
