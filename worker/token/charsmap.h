/* The normalisation that SentencePiece compiles into a model (tokenizer.ggml.precompiled_charsmap): a list of
 * byte sequences and what stands for each, as a double array (a trie in one array of 32-bit units) behind its
 * length in bytes, and then the replacements, each ended by a zero byte. Read-only after charsmap_init. */
#ifndef WOOLLY_TOKEN_CHARSMAP_H
#define WOOLLY_TOKEN_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/model/gguf.h"

enum {
    CHARSMAP_MAX_REPLACEMENT = 128, /* bytes; Unicode's longest, U+FDFA's, has 33 */
    CHARSMAP_MAX_KEY = 256,         /* bytes; a guess: the longest seen have 18 */

    /* How many bytes a replacement may have for each byte it stands for, a space counted as the three of
     * "▁". Unicode's greatest, U+FDFA's, is 13. With it 256 MiB of text stay below 4 GiB. */
    CHARSMAP_MAX_GROWTH = 15,
};

struct charsmap {
    const uint8_t *units; /* [n_units], 4 bytes each, in the file */
    size_t n_units;       /* 0: nothing is replaced */
    const char *replacements;
    size_t replacements_len;
};

/* A file without the key gives an empty map. One whose units or replacements point out of the file's bytes,
 * or with a replacement that is too long, also for what it replaces, is refused. *c points into g's bytes. */
MUST_CHECK enum status charsmap_init(struct charsmap *c, const struct gguf *g, struct error *err);

/* The longest sequence that the text begins with: returns its length, and what stands for it in *to; 0 where
 * there is none. */
size_t charsmap_find(const struct charsmap *c, const char *text, size_t len, struct gguf_string *to);

#endif
