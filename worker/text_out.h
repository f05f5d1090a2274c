/* The text side of a stream: bytes of tokens come in, text that may be sent comes out. It holds back
 * an unfinished UTF-8 sequence and any tail that could be the beginning of a stop string, so that what it has
 * released is always valid UTF-8 (a byte that can never be valid becomes U+FFFD) and never contains a stop
 * string, wherever token borders fall. The stop string that is completed first ends the text; of two
 * completed by the same byte, the longer. */
#ifndef WOOLLY_WORKER_TEXT_OUT_H
#define WOOLLY_WORKER_TEXT_OUT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buffer.h"

struct text_out {
    struct buffer held;  /* valid UTF-8 not yet released */
    struct buffer ready; /* valid UTF-8 to send; the caller takes it and calls buffer_clear */
    const char *const *stops;
    const size_t *stop_lens;
    int n_stops;
    bool is_stopped;
    char partial[4]; /* an unfinished sequence */
    int n_partial;
};

/* stops: n strings of any bytes, none empty; the arrays belong to the caller and outlive the struct. */
void text_out_init(struct text_out *t, const char *const *stops, const size_t *stop_lens, int n_stops);
void text_out_fini(struct text_out *t);

/* Takes bytes; returns true when a stop string was completed (nothing after this call changes *t->ready).
 * Text before the stop string is released, the stop string and what follows are dropped. */
bool text_out_push(struct text_out *t, const char *bytes, size_t len);

/* The stream ended for another reason: releases what is held. */
void text_out_flush(struct text_out *t);

#endif
