/* Encoding: cut the text at special tokens, then each stretch between them by its family.
 *
 * SentencePiece: put a space in front of a stretch that begins the text or follows a special token (where the
 * model wants that), write spaces as "▁", merge. The others: see bpe.h, unigram.h, wordpiece.h. */
#include "worker/token/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/xalloc.h"
#include "worker/token/bpe.h"
#include "worker/token/byte_letters.h"
#include "worker/token/ends.h"
#include "worker/token/special.h"
#include "worker/token/spm.h"
#include "worker/token/unigram.h"
#include "worker/token/vocab.h"
#include "worker/token/wordpiece.h"

/* SentencePiece's mark for a space: U+2581. */
static const char SPACE_MARK[] = "\xe2\x96\x81";
enum { SPACE_MARK_BYTES = 3 };

struct piece {
    const char *text;
    uint32_t len;
};

enum family { FAMILY_SPM, FAMILY_BPE, FAMILY_UNIGRAM, FAMILY_WORDPIECE };

struct tokenizer {
    enum family family;
    struct vocab vocab;
    struct special special;
    struct bpe bpe; /* this one and the next two are empty in other families */
    struct unigram unigram;
    struct wordpiece wordpiece;
    struct piece *pieces; /* [n_vocab] */
    char *piece_bytes;    /* those pieces that are not spelled as in the file */
    bool *is_end;         /* [n_vocab] */
    int32_t bos, eos;
    int32_t last; /* stands at the end of a text where adds_last; -1: none */
    bool adds_bos, adds_last, adds_space_prefix;
};

void token_list_push(struct token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->ids = xrealloc(l->ids, l->cap * sizeof(*l->ids));
    }
    l->ids[l->n++] = id;
}

void token_list_fini(struct token_list *l)
{
    free(l->ids);
    *l = (struct token_list){ 0 };
}

static enum status read_family(const struct gguf *g, enum family *out, struct error *err)
{
    static const char key[] = "tokenizer.ggml.model";
    static const char *const names[] = { "llama", "gpt2", "t5", "bert" }; /* in the order of enum family */
    struct gguf_string family;
    enum status s = gguf_get_string(g, key, &family, err);
    char shown[40];

    if (s == E_NOTFOUND)
        return error_set(err, E_FORMAT, "%s: the key %s is missing", gguf_path(g), key);
    if (s != OK)
        return s;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (gguf_string_is(family, names[i])) {
            *out = (enum family)i;
            return OK;
        }
    }
    return error_set(err, E_UNSUPPORTED,
                     "%s: %s is \"%s\"; supported are \"llama\" (SentencePiece), \"gpt2\" (byte-level "
                     "merging), \"t5\" (unigram) and \"bert\" (WordPiece)",
                     gguf_path(g), key, gguf_printable(family, shown, sizeof(shown)));
}

static enum status read_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    enum status s = gguf_get_bool(g, key, out, err);

    return s == E_NOTFOUND ? OK : s;
}

/* Phi-3's tokens swallow the white space behind them; the only sign of it in a file is the model's name. */
static bool special_eats_space(const struct gguf *g)
{
    struct gguf_string name;

    if (gguf_get_string(g, "general.name", &name, NULL) != OK)
        return false;
    for (uint64_t i = 0; i + 4 <= name.len; i++) {
        bool is_dashed = i + 5 <= name.len && !strncasecmp(name.text + i, "phi-3", 5);
        if (is_dashed || !strncasecmp(name.text + i, "phi3", 4))
            return true;
    }
    return false;
}

/* Writes a normal SentencePiece token's running text to out: "▁" becomes a space. Returns its length. */
static size_t put_unmarked(const struct gguf_string *s, char *out)
{
    size_t n = 0;

    for (uint64_t i = 0; i < s->len;) {
        if (s->len - i >= SPACE_MARK_BYTES && !memcmp(s->text + i, SPACE_MARK, SPACE_MARK_BYTES)) {
            out[n++] = ' ';
            i += SPACE_MARK_BYTES;
        } else {
            out[n++] = s->text[i++];
        }
    }
    return n;
}

static void build_pieces(struct tokenizer *t)
{
    const struct vocab *v = &t->vocab;
    size_t room = 256;

    for (int i = 0; i < v->n; i++)
        room += v->kinds[i] == TOKEN_NORMAL ? v->texts[i].len : 0;
    t->piece_bytes = xmalloc(room);
    t->pieces = xcalloc((size_t)v->n, sizeof(*t->pieces));

    char *at = t->piece_bytes;
    for (int byte = 0; byte < 256; byte++)
        *at++ = (char)byte;
    for (int i = 0; i < v->n; i++) {
        t->pieces[i].text = "";
        if (v->kinds[i] == TOKEN_USER_DEFINED) {
            t->pieces[i].text = v->texts[i].text;
            t->pieces[i].len = (uint32_t)v->texts[i].len;
        } else if (v->kinds[i] == TOKEN_NORMAL) {
            size_t len = t->family == FAMILY_BPE ? byte_letters_read(v->texts[i].text, v->texts[i].len, at)
                                                 : put_unmarked(&v->texts[i], at);
            t->pieces[i].text = at;
            t->pieces[i].len = (uint32_t)len;
            at += len;
        } else if (v->kinds[i] == TOKEN_BYTE) {
            t->pieces[i].text = t->piece_bytes + vocab_byte(v, i);
            t->pieces[i].len = 1;
        }
    }
}

/* An id that counts where the vocabulary is so large, else -1. */
static int32_t default_id(const struct tokenizer *t, int32_t id)
{
    return id < t->vocab.n ? id : -1;
}

/* What the family, or the rule of a byte-level vocabulary, means when a key is absent. The numbers are those
 * of each family's first model. */
static void set_defaults(struct tokenizer *t)
{
    t->bos = t->eos = -1;
    switch (t->family) {
    case FAMILY_SPM:
        t->bos = default_id(t, 1);
        t->eos = default_id(t, 2);
        t->adds_bos = true;
        t->adds_space_prefix = true;
        break;
    case FAMILY_BPE:
        t->eos = default_id(t, 11);
        t->bos = t->bpe.rule->lacks_bos ? -1 : t->eos;
        t->adds_bos = t->bpe.rule->adds_bos;
        break;
    case FAMILY_UNIGRAM:
        t->eos = default_id(t, 1);
        t->adds_last = true;
        break;
    case FAMILY_WORDPIECE:
        t->bos = default_id(t, 101);
        t->last = default_id(t, 102);
        t->adds_bos = true;
        t->adds_last = true;
        break;
    }
}

static enum status init_family(struct tokenizer *t, const struct gguf *g, struct error *err)
{
    static const int32_t unknown[] = { 0, -1, 2, 100 }; /* by family, where the file names none */
    bool has_scores = t->family == FAMILY_SPM || t->family == FAMILY_UNIGRAM;
    enum status s = vocab_init(&t->vocab, g, has_scores, unknown[t->family], err);

    if (s != OK)
        return s;
    if (t->family == FAMILY_BPE)
        return bpe_init(&t->bpe, &t->vocab, g, err);
    if (t->family == FAMILY_UNIGRAM)
        return unigram_init(&t->unigram, &t->vocab, g, err);
    if (t->family == FAMILY_WORDPIECE)
        return wordpiece_init(&t->wordpiece, &t->vocab, g, err);
    return OK;
}

/* Which tokens stand around a text: at its end the end of sequence, in WordPiece the separator. */
static enum status read_ends(struct tokenizer *t, const struct gguf *g, struct error *err)
{
    bool is_wordpiece = t->family == FAMILY_WORDPIECE;
    const char *adds_last = is_wordpiece ? "tokenizer.ggml.add_sep_token" : "tokenizer.ggml.add_eos_token";
    enum status s;

    set_defaults(t);
    if ((s = vocab_read_id(&t->vocab, g, "tokenizer.ggml.bos_token_id", &t->bos, err)) != OK ||
        (s = vocab_read_id(&t->vocab, g, "tokenizer.ggml.eos_token_id", &t->eos, err)) != OK ||
        (s = read_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, err)) != OK ||
        (s = read_bool(g, adds_last, &t->adds_last, err)) != OK ||
        (s = read_bool(g, "tokenizer.ggml.add_space_prefix", &t->adds_space_prefix, err)) != OK)
        return s;
    if (!is_wordpiece) {
        t->last = t->eos;
        return OK;
    }
    /* The first files name only the token that begins a text for classification. The format's name of the
     * second key is misspelled. */
    if (!gguf_find(g, "tokenizer.ggml.bos_token_id") &&
        (s = vocab_read_id(&t->vocab, g, "tokenizer.ggml.cls_token_id", &t->bos, err)) != OK)
        return s;
    return vocab_read_id(&t->vocab, g, "tokenizer.ggml.seperator_token_id", &t->last, err);
}

enum status tokenizer_create(struct tokenizer **out, const struct gguf *g, struct error *err)
{
    enum family family = FAMILY_SPM;
    enum status s = read_family(g, &family, err);
    struct tokenizer *t;

    *out = NULL;
    if (s != OK)
        return s;
    t = xcalloc(1, sizeof(*t));
    t->family = family;
    if ((s = init_family(t, g, err)) != OK || (s = read_ends(t, g, err)) != OK)
        goto fail;

    build_pieces(t);
    t->is_end = xcalloc((size_t)t->vocab.n, sizeof(*t->is_end));
    if ((s = ends_mark(&t->vocab, g, t->eos, t->is_end, err)) != OK)
        goto fail;
    special_init(&t->special, &t->vocab, special_eats_space(g));
    *out = t;
    return OK;

fail:
    tokenizer_destroy(t);
    return s;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t)
        return;
    special_fini(&t->special);
    bpe_fini(&t->bpe);
    unigram_fini(&t->unigram);
    wordpiece_fini(&t->wordpiece);
    vocab_fini(&t->vocab);
    free(t->pieces);
    free(t->piece_bytes);
    free(t->is_end);
    free(t);
}

int tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->vocab.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n && t->is_end[id];
}

/* Appends text to b with every space as "▁". */
static void append_marked(struct buffer *b, const char *text, size_t len)
{
    while (len) {
        const char *space = memchr(text, ' ', len);
        size_t n = space ? (size_t)(space - text) : len;
        buffer_append(b, text, n);
        if (space) {
            buffer_append(b, SPACE_MARK, SPACE_MARK_BYTES);
            n++;
        }
        text += n;
        len -= n;
    }
}

static void encode_spm(const struct tokenizer *t, const char *text, size_t len, struct token_list *out)
{
    struct buffer marked = { 0 };

    if (t->adds_space_prefix)
        buffer_append(&marked, SPACE_MARK, SPACE_MARK_BYTES);
    append_marked(&marked, text, len);
    spm_encode(&t->vocab, marked.data, marked.len, out);
    buffer_fini(&marked);
}

/* Text between special tokens. */
static void encode_text(const struct tokenizer *t, const char *text, size_t len, struct token_list *out)
{
    switch (t->family) {
    case FAMILY_SPM:
        encode_spm(t, text, len, out);
        break;
    case FAMILY_BPE:
        bpe_encode(&t->bpe, text, len, out);
        break;
    case FAMILY_UNIGRAM:
        unigram_encode(&t->unigram, text, len, out);
        break;
    case FAMILY_WORDPIECE:
        wordpiece_encode(&t->wordpiece, text, len, out);
        break;
    }
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                      struct token_list *out)
{
    struct fragment_list fragments = { 0 };

    assert(len <= TOKENIZER_MAX_BYTES);
    if ((flags & ENCODE_BOS) && t->adds_bos && t->bos >= 0)
        token_list_push(out, t->bos);
    special_cut(&t->special, &t->vocab, text, len, flags & ENCODE_SPECIAL, &fragments);
    for (size_t i = 0; i < fragments.n; i++) {
        const struct fragment *f = &fragments.items[i];
        if (f->id >= 0)
            token_list_push(out, f->id);
        else
            encode_text(t, text + f->start, f->len, out);
    }
    if ((flags & ENCODE_BOS) && t->adds_last && t->last >= 0)
        token_list_push(out, t->last);
    fragment_list_fini(&fragments);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len)
{
    if (id < 0 || id >= t->vocab.n) {
        *len = 0;
        return "";
    }
    *len = t->pieces[id].len;
    return t->pieces[id].text;
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, struct buffer *out)
{
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *piece = tokenizer_piece(t, ids[i], &len);
        buffer_append(out, piece, len);
    }
}
