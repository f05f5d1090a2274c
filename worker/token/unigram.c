/* First the text is normalised: by the file's list of replacements, then its spaces. After that the best way
 * to every place between two characters is known from the best ways to the places before it (Viterbi). Scores
 * are added in double, so that long texts do not round to ties; of equals the way with the longer last piece
 * counts, which is the one found first. */
#include "worker/token/unigram.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "common/xalloc.h"

static const char SPACE_MARK[] = "\xe2\x96\x81";

/* Unused pieces never stand in text, control and byte tokens are not spelled out in it. */
#define PIECE_KINDS (TOKEN_SET(TOKEN_NORMAL) | TOKEN_SET(TOKEN_USER_DEFINED))

/* So places in normalised text have 32 bits. 3: a space in front, or U+FFFD for a byte. */
_Static_assert((uint64_t)TOKENIZER_MAX_BYTES *CHARSMAP_MAX_GROWTH + 3 < UINT32_MAX &&
                   CHARSMAP_MAX_GROWTH >= 3,
               "places in normalised text need more bits");

enum {
    NOT_REACHED = -1,
    UNKNOWN = -2,
    UNKNOWN_PENALTY = 10, /* SentencePiece's: below the worst piece */
};

static enum status read_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    enum status s = gguf_get_bool(g, key, out, err);

    return s == E_NOTFOUND ? OK : s;
}

enum status unigram_init(struct unigram *u, const struct vocab *v, const struct gguf *g, struct error *err)
{
    double lowest = INFINITY;
    enum status s;

    *u = (struct unigram){ .vocab = v, .marks_spaces = true };
    if ((s = read_bool(g, "tokenizer.ggml.add_space_prefix", &u->adds_prefix, err)) != OK ||
        (s = read_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &u->merges_spaces, err)) != OK ||
        (s = read_bool(g, "tokenizer.ggml.escape_whitespaces", &u->marks_spaces, err)) != OK ||
        (s = charsmap_init(&u->charsmap, g, err)) != OK ||
        (s = trie_init(&u->trie, v, g, PIECE_KINDS, err)) != OK) {
        unigram_fini(u);
        return s;
    }
    for (int i = 0; i < v->n; i++) {
        if (v->kinds[i] == TOKEN_NORMAL && v->scores[i] < lowest)
            lowest = v->scores[i];
    }
    u->unknown_score = (isinf(lowest) ? 0 : lowest) - UNKNOWN_PENALTY;
    return OK;
}

void unigram_fini(struct unigram *u)
{
    trie_fini(&u->trie);
    *u = (struct unigram){ 0 };
}

static void put_space(const struct unigram *u, struct buffer *out)
{
    if (u->marks_spaces)
        buffer_append(out, SPACE_MARK, sizeof(SPACE_MARK) - 1);
    else
        buffer_append(out, " ", 1);
}

/* What stands for the beginning of the text; returns how many bytes of it that is. */
static size_t next_replaced(const struct unigram *u, const char *text, size_t len, struct gguf_string *to)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t n = charsmap_find(&u->charsmap, text, len, to);

    if (n)
        return n;
    int taken = utf8_next(text, len, NULL);
    if (taken > 0)
        *to = (struct gguf_string){ text, (uint64_t)taken };
    else
        *to = (struct gguf_string){ replacement, 3 };
    return taken > 0 ? (size_t)taken : 1;
}

static void normalise(const struct unigram *u, const char *text, size_t len, struct buffer *out)
{
    bool has_begun = !u->merges_spaces, owes_space = false;
    struct gguf_string to;

    if (has_begun && u->adds_prefix && len)
        put_space(u, out);
    for (size_t at = 0; at < len;) {
        at += next_replaced(u, text + at, len - at, &to);
        for (uint64_t i = 0; i < to.len; i++) {
            if (to.text[i] == ' ' && u->merges_spaces) {
                owes_space = has_begun;
                continue;
            }
            if (owes_space || (!has_begun && u->adds_prefix))
                put_space(u, out);
            owes_space = false;
            has_begun = true;
            if (to.text[i] == ' ')
                put_space(u, out);
            else
                buffer_append(out, &to.text[i], 1);
        }
    }
}

/* The best way to a place. */
struct way {
    double score;
    uint32_t from; /* where its last piece begins */
    int32_t id;    /* of that piece; NOT_REACHED, or UNKNOWN for one character */
};

static void offer(struct way *w, double score, size_t from, int32_t id)
{
    if (w->id == NOT_REACHED || score > w->score)
        *w = (struct way){ score, (uint32_t)from, id };
}

/* By the first byte alone: a replacement from the file may be any bytes. */
static size_t char_bytes(const char *text, size_t len)
{
    unsigned char lead = (unsigned char)text[0];
    size_t n = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;

    return n < len ? n : len;
}

/* Fills ways, [len + 1], whose elements are not reached yet. */
static void find_ways(const struct unigram *u, const char *text, size_t len, struct way *ways)
{
    const struct vocab *v = u->vocab;

    ways[0] = (struct way){ 0, 0, UNKNOWN };
    for (size_t at = 0, n; at < len; at += n) {
        uint32_t node = 0;
        bool has_char = false;
        n = char_bytes(text + at, len - at);
        for (size_t end = at; end < len && trie_step(&u->trie, &node, (uint8_t)text[end]);) {
            int32_t id = u->trie.nodes[node].id;
            if (++end == at + n && id >= 0)
                has_char = true;
            if (id >= 0)
                offer(&ways[end], ways[at].score + (v->kinds[id] == TOKEN_NORMAL ? v->scores[id] : 0), at,
                      id);
        }
        if (!has_char)
            offer(&ways[at + n], ways[at].score + u->unknown_score, at, UNKNOWN);
    }
}

static bool put_bytes(const struct vocab *v, const char *text, size_t len, struct token_list *out)
{
    for (size_t i = 0; i < len; i++) {
        if (v->byte_ids[(unsigned char)text[i]] < 0)
            return false;
    }
    for (size_t i = 0; i < len; i++)
        token_list_push(out, v->byte_ids[(unsigned char)text[i]]);
    return true;
}

/* Turns the way to the end round, so that from is where the next piece ends, and writes its ids. */
static void put_way(const struct vocab *v, const char *text, size_t len, struct way *ways,
                    struct token_list *out)
{
    bool after_unknown = false;
    uint32_t next = 0;

    for (uint32_t at = (uint32_t)len; at;) {
        uint32_t from = ways[at].from;
        ways[at].from = next;
        next = at;
        at = from;
    }
    for (uint32_t at = 0; at < len; at = next, next = ways[at].from) {
        bool is_unknown = ways[next].id == UNKNOWN;
        if (!is_unknown) {
            token_list_push(out, ways[next].id);
        } else if (put_bytes(v, text + at, next - at, out)) {
            is_unknown = false;
        } else if (!after_unknown && v->unknown >= 0) {
            token_list_push(out, v->unknown);
        }
        after_unknown = is_unknown;
    }
}

void unigram_encode(const struct unigram *u, const char *text, size_t len, struct token_list *out)
{
    struct buffer normal = { 0 };

    normalise(u, text, len, &normal);
    assert(normal.len < UINT32_MAX);
    if (normal.len) {
        struct way *ways = xmalloc((normal.len + 1) * sizeof(*ways));
        for (size_t i = 0; i <= normal.len; i++)
            ways[i].id = NOT_REACHED;
        find_ways(u, normal.data, normal.len, ways);
        put_way(u->vocab, normal.data, normal.len, ways, out);
        free(ways);
    }
    buffer_fini(&normal);
}
