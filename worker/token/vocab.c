#include "worker/token/vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/keyed_hash.h"
#include "common/xalloc.h"

static const char KEY_TOKENS[] = "tokenizer.ggml.tokens";
static const char KEY_SCORES[] = "tokenizer.ggml.scores";
static const char KEY_KINDS[] = "tokenizer.ggml.token_type";

/* The slot that holds this text with one of these kinds, or the empty slot where the search ended. */
static struct vocab_slot *find_slot(const struct vocab *v, const char *text, size_t len, unsigned kinds)
{
    uint64_t h = keyed_hash(v->hash_point, text, len);
    uint32_t tag = (uint32_t)(h >> 32);

    for (size_t i = h & (v->n_slots - 1);; i = (i + 1) & (v->n_slots - 1)) {
        struct vocab_slot *slot = &v->slots[i];
        if (slot->id < 0)
            return slot;
        const struct gguf_string *s = &v->texts[slot->id];
        if (slot->tag == tag && s->len == len && (kinds & TOKEN_SET(v->kinds[slot->id])) &&
            !memcmp(s->text, text, len))
            return slot;
    }
}

int32_t vocab_find(const struct vocab *v, const char *text, size_t len, unsigned kinds)
{
    return find_slot(v, text, len, kinds)->id;
}

/* An array of v->n numbers under this key. */
static enum status find_array(const struct vocab *v, const struct gguf *g, const char *key, bool is_float,
                              const struct gguf_value **out, struct error *err)
{
    const struct gguf_value *a = gguf_find(g, key);

    if (!a)
        return error_set(err, E_FORMAT, "%s: the key %s is missing", gguf_path(g), key);
    bool has_floats = a->element == GGUF_F32 || a->element == GGUF_F64;
    bool has_integers =
        !has_floats && a->element != GGUF_STRING && a->element != GGUF_ARRAY && a->element != GGUF_BOOL;
    if (a->kind != GGUF_ARRAY || !(is_float ? has_floats : has_integers))
        return error_set(err, E_FORMAT, "%s: %s is not an array of %s", gguf_path(g), key,
                         is_float ? "floats" : "integers");
    if (a->count != (uint64_t)v->n)
        return error_set(err, E_FORMAT, "%s: %s has %llu elements, but %s has %d", gguf_path(g), key,
                         (unsigned long long)a->count, KEY_TOKENS, v->n);
    *out = a;
    return OK;
}

static enum status read_texts(struct vocab *v, const struct gguf *g, struct error *err)
{
    const struct gguf_value *a = gguf_find(g, KEY_TOKENS);

    if (!a)
        return error_set(err, E_FORMAT, "%s: the key %s is missing", gguf_path(g), KEY_TOKENS);
    if (a->kind != GGUF_ARRAY || a->element != GGUF_STRING || !a->count)
        return error_set(err, E_FORMAT, "%s: %s is not an array of strings", gguf_path(g), KEY_TOKENS);
    if (a->count > VOCAB_MAX_TOKENS)
        return error_set(err, E_LIMIT, "%s: %s has %llu elements, more than %d", gguf_path(g), KEY_TOKENS,
                         (unsigned long long)a->count, VOCAB_MAX_TOKENS);
    for (uint64_t i = 0; i < a->count; i++) {
        if (a->strings[i].len > VOCAB_MAX_TOKEN_BYTES)
            return error_set(err, E_LIMIT, "%s: %s[%llu] is %llu bytes long, more than %d", gguf_path(g),
                             KEY_TOKENS, (unsigned long long)i, (unsigned long long)a->strings[i].len,
                             VOCAB_MAX_TOKEN_BYTES);
    }
    v->n = (int)a->count;
    v->texts = a->strings;
    return OK;
}

static enum status read_scores(struct vocab *v, const struct gguf *g, struct error *err)
{
    const struct gguf_value *a;
    enum status s = find_array(v, g, KEY_SCORES, true, &a, err);

    if (s != OK)
        return s;
    v->scores = xcalloc((size_t)v->n, sizeof(*v->scores));
    for (int i = 0; i < v->n; i++) {
        v->scores[i] = (float)gguf_array_double(a, (uint64_t)i);
        if (isnan(v->scores[i]))
            return error_set(err, E_FORMAT, "%s: %s[%d] is not a number", gguf_path(g), KEY_SCORES, i);
    }
    return OK;
}

static enum status read_kinds(struct vocab *v, const struct gguf *g, bool may_lack, struct error *err)
{
    const struct gguf_value *a;

    v->kinds = xcalloc((size_t)v->n, sizeof(*v->kinds));
    if (may_lack && !gguf_find(g, KEY_KINDS)) {
        memset(v->kinds, TOKEN_NORMAL, (size_t)v->n);
        return OK;
    }
    enum status s = find_array(v, g, KEY_KINDS, false, &a, err);
    if (s != OK)
        return s;
    for (int i = 0; i < v->n; i++) {
        int64_t kind = gguf_array_int(a, (uint64_t)i);
        if (kind < 0 || kind >= TOKEN_N_KINDS)
            return error_set(err, E_FORMAT, "%s: %s[%d] is %lld, no kind of token", gguf_path(g), KEY_KINDS,
                             i, (long long)kind);
        v->kinds[i] = (uint8_t)kind;
    }
    return OK;
}

/* "<0x0A>" is 10; anything else is -1. */
static int parse_byte_text(const struct gguf_string *s)
{
    static const char digits[] = "0123456789ABCDEFabcdef";
    int value = 0;

    if (s->len != 6 || memcmp(s->text, "<0x", 3) != 0 || s->text[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        const char *d = memchr(digits, s->text[i], sizeof(digits) - 1);
        if (!d)
            return -1;
        int digit = (int)(d - digits);
        value = value * 16 + (digit > 15 ? digit - 6 : digit);
    }
    return value;
}

int vocab_byte(const struct vocab *v, int32_t id)
{
    return parse_byte_text(&v->texts[id]);
}

static enum status find_bytes(struct vocab *v, const struct gguf *g, struct error *err)
{
    memset(v->byte_ids, -1, sizeof(v->byte_ids));
    for (int i = 0; i < v->n; i++) {
        if (v->kinds[i] != TOKEN_BYTE)
            continue;
        int byte = parse_byte_text(&v->texts[i]);
        if (byte < 0)
            return error_set(err, E_FORMAT, "%s: %s[%d] is of kind byte but not spelled like <0x0A>",
                             gguf_path(g), KEY_TOKENS, i);
        v->byte_ids[byte] = i;
    }
    return OK;
}

static void build_slots(struct vocab *v)
{
    v->hash_point = keyed_hash_point();
    v->n_slots = 16;
    while (v->n_slots < (size_t)v->n * 2)
        v->n_slots *= 2;
    v->slots = xcalloc(v->n_slots, sizeof(*v->slots));
    memset(v->slots, -1, v->n_slots * sizeof(*v->slots));
    for (int i = 0; i < v->n; i++) {
        const struct gguf_string *s = &v->texts[i];
        struct vocab_slot *slot = find_slot(v, s->text, s->len, TOKEN_SET(v->kinds[i]));
        *slot = (struct vocab_slot){ .tag = (uint32_t)(keyed_hash(v->hash_point, s->text, s->len) >> 32),
                                     .id = i };
    }
}

enum status vocab_read_id(const struct vocab *v, const struct gguf *g, const char *key, int32_t *out,
                          struct error *err)
{
    uint64_t id;
    enum status s = gguf_get_u64(g, key, &id, err);

    if (s == E_NOTFOUND)
        return OK;
    if (s != OK)
        return s;
    if (id >= (uint64_t)v->n)
        return error_set(err, E_FORMAT, "%s: %s is %llu, but the vocabulary has %d tokens", gguf_path(g), key,
                         (unsigned long long)id, v->n);
    *out = (int32_t)id;
    return OK;
}

enum status vocab_init(struct vocab *v, const struct gguf *g, bool has_scores, int32_t unknown,
                       struct error *err)
{
    enum status s;

    *v = (struct vocab){ .unknown = -1 };
    if ((s = read_texts(v, g, err)) != OK || (has_scores && (s = read_scores(v, g, err)) != OK) ||
        (s = read_kinds(v, g, !has_scores, err)) != OK || (s = find_bytes(v, g, err)) != OK)
        goto fail;
    v->unknown = unknown < v->n ? unknown : -1;
    if ((s = vocab_read_id(v, g, "tokenizer.ggml.unknown_token_id", &v->unknown, err)) != OK)
        goto fail;
    build_slots(v);
    return OK;

fail:
    vocab_fini(v);
    return s;
}

void vocab_fini(struct vocab *v)
{
    free(v->scores);
    free(v->kinds);
    free(v->slots);
    *v = (struct vocab){ 0 };
}
