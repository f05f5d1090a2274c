/* For client.c: what woolly.h shows of a token lies in memory as messages.h decodes it, so that it can be
 * handed out without a copy. Checked here, at compile time. */
#ifndef WOOLLY_PROTO_CLIENT_LAYOUT_H
#define WOOLLY_PROTO_CLIENT_LAYOUT_H

#include <stddef.h>

#include "proto/messages.h"
#include "proto/woolly.h"

#define SAME_FIELD(a, field_a, b, field_b)                                                                   \
    _Static_assert(offsetof(struct a, field_a) == offsetof(struct b, field_b), #a "." #field_a)
SAME_FIELD(woolly_alternative, id, token_alternative, id);
SAME_FIELD(woolly_alternative, logprob, token_alternative, logprob);
SAME_FIELD(woolly_alternative, bytes, token_alternative, bytes.data);
SAME_FIELD(woolly_alternative, n_bytes, token_alternative, bytes.len);
SAME_FIELD(woolly_token, id, token_detail, id);
SAME_FIELD(woolly_token, logprob, token_detail, logprob);
SAME_FIELD(woolly_token, bytes, token_detail, bytes.data);
SAME_FIELD(woolly_token, n_bytes, token_detail, bytes.len);
SAME_FIELD(woolly_token, top, token_detail, top.items);
SAME_FIELD(woolly_token, n_top, token_detail, top.n);
_Static_assert(sizeof(struct woolly_token) == sizeof(struct token_detail), "woolly_token");
_Static_assert(sizeof(struct woolly_alternative) == sizeof(struct token_alternative), "woolly_alternative");

#undef SAME_FIELD

#endif
