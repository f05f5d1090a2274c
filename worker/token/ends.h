/* Which tokens end a text. Files name one end of sequence; chat models stop at other tokens too. */
#ifndef WOOLLY_TOKEN_ENDS_H
#define WOOLLY_TOKEN_ENDS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/token/vocab.h"

/* Sets is_end, [v->n], for eos (-1: none), the file's keys for the end of a turn and the like, and control
 * and user-defined tokens spelled as the well-known families spell theirs. */
MUST_CHECK enum status ends_mark(const struct vocab *v, const struct gguf *g, int32_t eos, bool *is_end,
                                 struct error *err);

#endif
