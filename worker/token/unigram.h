/* SentencePiece's unigram model (T5 and its kin): every piece has a score, and text becomes those pieces
 * whose scores add up to the most. Read-only after unigram_init. */
#ifndef WOOLLY_TOKEN_UNIGRAM_H
#define WOOLLY_TOKEN_UNIGRAM_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buffer.h"
#include "common/status.h"
#include "worker/token/charsmap.h"
#include "worker/token/tokenizer.h"
#include "worker/token/trie.h"
#include "worker/token/vocab.h"

struct unigram {
    const struct vocab *vocab;
    struct trie trie;
    struct charsmap charsmap;
    double unknown_score; /* of a character that no piece is spelled like */
    bool adds_prefix;     /* a space in front of the text */
    bool merges_spaces;   /* several become one, those at both ends none */
    bool marks_spaces;    /* a space is written "▁" */
};

/* v and g must outlive *u. On failure *u is empty and err names the key. */
MUST_CHECK enum status unigram_init(struct unigram *u, const struct vocab *v, const struct gguf *g,
                                    struct error *err);
void unigram_fini(struct unigram *u);

/* Appends the ids of text, of any bytes; what is not valid UTF-8 counts as U+FFFD, one for each byte. A
 * character that is in no piece becomes its byte tokens, or, with the unknown ones beside it, one unknown
 * token. Memory is O(len), time O(len) times at most the bytes of the longest piece. */
void unigram_encode(const struct unigram *u, const char *text, size_t len, struct token_list *out);

#endif
