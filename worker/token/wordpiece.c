/* Words end at white space; punctuation and Chinese characters are words of one character. Before that, as
 * the file says, letters become small and lose their accents. */
#include "worker/token/wordpiece.h"

#include <string.h>

#include "common/buffer.h"
#include "common/utf8.h"
#include "worker/token/fold.h"
#include "worker/token/unicode.h"

static const char WORD_MARK[] = "\xe2\x96\x81";
enum { WORD_MARK_BYTES = 3, REPLACEMENT = 0xfffd };

/* What text may become: never a control token. */
#define PIECE_KINDS (TOKEN_SET(TOKEN_NORMAL) | TOKEN_SET(TOKEN_USER_DEFINED) | TOKEN_SET(TOKEN_UNUSED))

enum status wordpiece_init(struct wordpiece *w, const struct vocab *v, const struct gguf *g,
                           struct error *err)
{
    static const char lower_key[] = "tokenizer.ggml.normalizer.lowercase";
    static const char accents_key[] = "tokenizer.ggml.normalizer.strip_accents";
    enum status s;

    *w = (struct wordpiece){ .vocab = v, .lowers = true };
    if ((s = gguf_get_bool(g, lower_key, &w->lowers, err)) != OK && s != E_NOTFOUND)
        goto fail;
    w->strips_accents = w->lowers;
    if ((s = gguf_get_bool(g, accents_key, &w->strips_accents, err)) != OK && s != E_NOTFOUND)
        goto fail;
    if ((s = trie_init(&w->trie, v, g, PIECE_KINDS, err)) != OK)
        goto fail;
    return OK;

fail:
    wordpiece_fini(w);
    return s;
}

void wordpiece_fini(struct wordpiece *w)
{
    trie_fini(&w->trie);
    *w = (struct wordpiece){ 0 };
}

/* How many bytes the longest piece has that the text begins with; 0 when there is none. */
static size_t longest_piece(const struct wordpiece *w, const char *text, size_t len, int32_t *id)
{
    uint32_t node = 0;
    size_t longest = 0;

    for (size_t i = 0; i < len && trie_step(&w->trie, &node, (uint8_t)text[i]); i++) {
        if (w->trie.nodes[node].id < 0)
            continue;
        longest = i + 1;
        *id = w->trie.nodes[node].id;
    }
    return longest;
}

/* Writes the ids of the word in b, which begins with the mark, and leaves the mark of the next one. */
static void end_word(const struct wordpiece *w, struct buffer *b, struct token_list *out)
{
    size_t n_before = out->n;
    int32_t id = -1;

    if (b->len == WORD_MARK_BYTES)
        return;
    for (size_t at = 0, n; at < b->len; at += n) {
        n = longest_piece(w, b->data + at, b->len - at, &id);
        if (!n) {
            out->n = n_before;
            if (w->vocab->unknown >= 0)
                token_list_push(out, w->vocab->unknown);
            break;
        }
        token_list_push(out, id);
    }
    b->len = WORD_MARK_BYTES;
}

/* As BERT has it: the ideographs of Chinese, which Japanese and Korean use too, not their other scripts. The
 * gap at 2B820 is one that its usual implementations have. */
static bool is_ideograph(uint32_t code)
{
    return (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) ||
           (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f) ||
           (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) ||
           (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f);
}

/* Of the symbols only those of ASCII count as punctuation. */
static bool stands_alone(uint32_t code)
{
    enum unicode_class class = unicode_class_of(code);

    return class == UNICODE_PUNCTUATION || (code < 0x80 && class == UNICODE_SYMBOL) || is_ideograph(code);
}

static void put_char(const struct wordpiece *w, uint32_t code, struct buffer *word, struct token_list *out)
{
    char bytes[4];
    int n = utf8_put(w->lowers ? fold_to_lower(code) : code, bytes);

    if (stands_alone(code)) {
        end_word(w, word, out);
        buffer_append(word, bytes, (size_t)n);
        end_word(w, word, out);
    } else {
        buffer_append(word, bytes, (size_t)n);
    }
}

void wordpiece_encode(const struct wordpiece *w, const char *text, size_t len, struct token_list *out)
{
    struct buffer word = { 0 };

    buffer_append(&word, WORD_MARK, WORD_MARK_BYTES);
    for (size_t at = 0; at < len;) {
        uint32_t code = 0, bases[FOLD_MAX_BASES];
        int taken = utf8_next(text + at, len - at, &code);
        at += taken > 0 ? (size_t)taken : 1;
        if (taken <= 0 || code == REPLACEMENT || fold_is_control(code))
            continue;
        if (unicode_class_of(code) == UNICODE_SPACE) {
            end_word(w, &word, out);
            continue;
        }
        bases[0] = code;
        int n = w->strips_accents ? fold_strip_accents(code, bases) : 1;
        for (int i = 0; i < n; i++)
            put_char(w, bases[i], &word, out);
    }
    end_word(w, &word, out);
    buffer_fini(&word);
}
