/* BERT's tokenizer: text is cut into words, and each word into the longest pieces from its beginning on. A
 * file marks the pieces that begin a word with "▁"; the others continue one. Read-only after wordpiece_init.
 */
#ifndef WOOLLY_TOKEN_WORDPIECE_H
#define WOOLLY_TOKEN_WORDPIECE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "worker/token/tokenizer.h"
#include "worker/token/trie.h"
#include "worker/token/vocab.h"

struct wordpiece {
    const struct vocab *vocab;
    struct trie trie;
    bool lowers, strips_accents;
};

/* v and g must outlive *w. On failure *w is empty and err names the key. */
MUST_CHECK enum status wordpiece_init(struct wordpiece *w, const struct vocab *v, const struct gguf *g,
                                      struct error *err);
void wordpiece_fini(struct wordpiece *w);

/* Appends the ids of text, of any bytes. Controls, and what is not valid UTF-8, are left out; a word that no
 * pieces make up is one unknown token. Memory is O(len), time O(len) times at most the bytes of the longest
 * piece. */
void wordpiece_encode(const struct wordpiece *w, const char *text, size_t len, struct token_list *out);

#endif
