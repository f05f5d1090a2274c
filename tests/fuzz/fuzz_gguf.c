/* Any bytes as a GGUF file: what opens is walked to its last byte, what does not gives one clean line.
 * Seeds: seeds/gguf, made by seeds/make_gguf_seeds.py. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "worker/model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void require(int holds)
{
    if (!holds)
        abort();
}

/* Sums go here, so that no read is optimised away. */
static volatile uint64_t seen;

static void touch(const void *bytes, uint64_t len)
{
    const unsigned char *b = bytes;
    if (len)
        seen += (uint64_t)b[0] + b[len - 1];
}

static void walk_string(struct gguf_string s)
{
    char shown[64];
    touch(s.text, s.len);
    gguf_printable(s, shown, sizeof shown);
    require(utf8_is_valid(shown, strlen(shown)));
}

static void walk_entry(const struct gguf *g, const struct gguf_entry *e)
{
    const struct gguf_value *v = &e->value;

    walk_string(e->key);
    require(v->offset <= gguf_file_bytes(g));
    if (v->kind == GGUF_STRING)
        walk_string(v->string);
    for (uint64_t i = 0; v->kind == GGUF_ARRAY && i < v->count; i++) {
        if (v->element == GGUF_STRING)
            walk_string(v->strings[i]);
        else
            seen += (uint64_t)gguf_array_int(v, i) + (gguf_array_double(v, i) > 0);
    }
    /* Keys with a NUL inside cannot be asked for. */
    if (memchr(e->key.text, 0, e->key.len))
        return;
    char *key = strndup(e->key.text, e->key.len);
    uint64_t u;
    double f;
    bool yes;
    struct gguf_string text;
    struct error err;
    require(gguf_find(g, key) == v);
    seen += gguf_get_u64(g, key, &u, &err) + gguf_get_double(g, key, &f, &err) +
            gguf_get_bool(g, key, &yes, &err) + gguf_get_string(g, key, &text, &err);
    free(key);
}

static void walk(const struct gguf *g)
{
    for (uint64_t i = 0; i < gguf_n_entries(g); i++)
        walk_entry(g, gguf_entry(g, i));
    for (uint64_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        walk_string(t->name);
        require(t->bytes == weight_row_bytes(t->type, t->dims[0]) * t->dims[1] * t->dims[2] * t->dims[3]);
        touch(t->data, t->bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct gguf *g;
    struct error err = { 0 };

    enum status s = gguf_open_memory(&g, bytes, len, &err);
    if (s == OK) {
        walk(g);
        gguf_close(g);
        return 0;
    }
    require(!g && err.status == s && strstr(err.text, " at offset "));
    require(utf8_is_valid(err.text, strlen(err.text)));
    for (const char *c = err.text; *c; c++)
        require((unsigned char)*c >= 0x20 && *c != 0x7f);
    return 0;
}
