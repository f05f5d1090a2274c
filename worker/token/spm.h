/* SentencePiece's byte-pair merge: text whose spaces are already written "▁" becomes ids. */
#ifndef WOOLLY_TOKEN_SPM_H
#define WOOLLY_TOKEN_SPM_H

#include <stddef.h>

#include "worker/token/tokenizer.h"
#include "worker/token/vocab.h"

/* Appends the ids of text to *out. len is less than 2^31. Time O(len log len), memory O(len). */
void spm_encode(const struct vocab *v, const char *text, size_t len, struct token_list *out);

#endif
