/* Opening a model: read the architecture's facts, check each, then find every tensor and check its type and
 * shape against the facts. After that the forward pass checks nothing. */
#include "worker/model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/kernels/kernels.h"
#include "worker/model/weights.h"

/* Bounds on facts: far above any model, low enough that products of two of them fit an int and that a
 * nonsensical file is refused before it asks for memory. */
enum {
    MAX_LAYERS = 1024,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_WIDTH = 1 << 20, /* n_embd, n_ff */
    MAX_VOCAB = 1 << 24,
    MAX_CONTEXT = 1 << 28,
};

struct reader {
    struct model *m;
    const char *path;
    struct error *err;
    struct kernels kernels; /* says which weight types we can compute with */
    bool *is_used;          /* [tensors of the file] */
};

/* Reads "llama.<key>" as a whole number from low to high. An absent key keeps *out if it is optional. */
static enum status read_count(struct reader *r, const char *key, bool is_optional, uint64_t low,
                              uint64_t high, int *out)
{
    char full[96];
    uint64_t value = 0;
    snprintf(full, sizeof full, "llama.%s", key);
    enum status s = gguf_get_u64(r->m->gguf, full, &value, r->err);
    if (s == E_NOTFOUND)
        return is_optional ? OK : error_set(r->err, E_FORMAT, "%s: there is no %s", r->path, full);
    if (s != OK)
        return s;
    if (value < low || value > high)
        return error_set(r->err, E_FORMAT, "%s: %s is %" PRIu64 "; it must be %" PRIu64 " to %" PRIu64,
                         r->path, full, value, low, high);
    *out = (int)value;
    return OK;
}

/* The same for a number in (low, high); absent keeps *out. */
static enum status read_number(struct reader *r, const char *key, double low, double high, double *out)
{
    char full[96];
    double value = 0;
    snprintf(full, sizeof full, "llama.%s", key);
    enum status s = gguf_get_double(r->m->gguf, full, &value, r->err);
    if (s == E_NOTFOUND)
        return OK;
    if (s != OK)
        return s;
    if (!(value > low && value < high))
        return error_set(r->err, E_FORMAT, "%s: %s is %g; it must be between %g and %g", r->path, full, value,
                         low, high);
    *out = value;
    return OK;
}

static enum status read_architecture(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    struct gguf_string text = { 0 };
    enum status s = gguf_get_string(r->m->gguf, "general.architecture", &text, r->err);
    if (s == E_NOTFOUND)
        return error_set(r->err, E_FORMAT, "%s: there is no general.architecture", r->path);
    if (s != OK)
        return s;
    gguf_printable(text, f->architecture, sizeof f->architecture);
    if (!gguf_string_is(text, "llama"))
        return error_set(r->err, E_UNSUPPORTED, "%s: the architecture is '%s'; this build knows llama",
                         r->path, f->architecture);
    return OK;
}

/* Things a llama file may ask for that the forward pass does not do: better refused than ignored. */
static enum status refuse_variants(struct reader *r)
{
    static const char *const keys[] = { "expert_count", "attention.sliding_window" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int value = 0;
        enum status s = read_count(r, keys[i], true, 0, INT32_MAX, &value);
        if (s != OK)
            return s;
        if (value)
            return error_set(r->err, E_UNSUPPORTED, "%s: llama.%s is %d; this build cannot do that", r->path,
                             keys[i], value);
    }
    return OK;
}

static enum status read_rope(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    struct gguf_string type = { "linear", 6 };
    double factor = 1;
    enum status s;

    f->n_rot = f->head_dim;
    if ((s = read_count(r, "rope.dimension_count", true, 2, (uint64_t)f->head_dim, &f->n_rot)) != OK)
        return s;
    if (f->n_rot % 2)
        return error_set(r->err, E_FORMAT, "%s: llama.rope.dimension_count is %d; it must be even", r->path,
                         f->n_rot);
    f->rope_base = 10000;
    if ((s = read_number(r, "rope.freq_base", 0, 1e30, &f->rope_base)) != OK)
        return s;
    s = gguf_get_string(r->m->gguf, "llama.rope.scaling.type", &type, r->err);
    if (s != OK && s != E_NOTFOUND)
        return s;
    if (!gguf_string_is(type, "linear") && !gguf_string_is(type, "none")) {
        char name[32];
        gguf_printable(type, name, sizeof name);
        return error_set(r->err, E_UNSUPPORTED,
                         "%s: llama.rope.scaling.type is '%s'; this build knows none and linear", r->path,
                         name);
    }
    if ((s = read_number(r, "rope.scale_linear", 0, 1e6, &factor)) != OK ||
        (s = read_number(r, "rope.scaling.factor", 0, 1e6, &factor)) != OK)
        return s;
    f->rope_scale = gguf_string_is(type, "linear") ? 1 / factor : 1;
    return OK;
}

static enum status read_heads(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    int value_dim;
    enum status s;

    if ((s = read_count(r, "attention.head_count", false, 1, MAX_HEADS, &f->n_heads)) != OK)
        return s;
    f->n_kv_heads = f->n_heads;
    if ((s = read_count(r, "attention.head_count_kv", true, 1, (uint64_t)f->n_heads, &f->n_kv_heads)) != OK)
        return s;
    if (f->n_heads % f->n_kv_heads)
        return error_set(r->err, E_FORMAT,
                         "%s: llama.attention.head_count %d is no multiple of llama.attention.head_count_kv "
                         "%d",
                         r->path, f->n_heads, f->n_kv_heads);
    f->head_dim = f->n_embd / f->n_heads;
    if ((s = read_count(r, "attention.key_length", true, 2, MAX_HEAD_DIM, &f->head_dim)) != OK)
        return s;
    if (f->head_dim < 2 || f->head_dim > MAX_HEAD_DIM)
        return error_set(r->err, E_FORMAT,
                         "%s: llama.embedding_length %d and llama.attention.head_count %d make heads of %d "
                         "elements; it must be 2 to %d",
                         r->path, f->n_embd, f->n_heads, f->head_dim, MAX_HEAD_DIM);
    value_dim = f->head_dim;
    if ((s = read_count(r, "attention.value_length", true, 1, MAX_HEAD_DIM, &value_dim)) != OK)
        return s;
    if (value_dim != f->head_dim)
        return error_set(r->err, E_UNSUPPORTED,
                         "%s: llama.attention.value_length is %d and keys have %d; this build wants them "
                         "equal",
                         r->path, value_dim, f->head_dim);
    return OK;
}

static enum status read_facts(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    double eps = 0;
    enum status s;

    if ((s = read_architecture(r)) != OK || (s = refuse_variants(r)) != OK ||
        (s = read_count(r, "block_count", false, 1, MAX_LAYERS, &f->n_layers)) != OK ||
        (s = read_count(r, "context_length", false, 1, MAX_CONTEXT, &f->n_ctx_train)) != OK ||
        (s = read_count(r, "embedding_length", false, 1, MAX_WIDTH, &f->n_embd)) != OK ||
        (s = read_count(r, "feed_forward_length", false, 1, MAX_WIDTH, &f->n_ff)) != OK ||
        (s = read_heads(r)) != OK || (s = read_rope(r)) != OK)
        return s;
    if ((s = read_number(r, "attention.layer_norm_rms_epsilon", 0, 1, &eps)) != OK)
        return s;
    if (eps == 0)
        return error_set(r->err, E_FORMAT, "%s: there is no llama.attention.layer_norm_rms_epsilon", r->path);
    f->norm_eps = (float)eps;
    return OK;
}

/* The tensor of that name, or NULL; marks it as used. */
static const struct gguf_tensor *take_tensor(struct reader *r, const char *name)
{
    const struct gguf_tensor *t = gguf_find_tensor(r->m->gguf, name);
    if (t)
        r->is_used[t - gguf_tensor(r->m->gguf, 0)] = true;
    return t;
}

static enum status need_tensor(struct reader *r, const char *name, uint64_t dim0, uint64_t dim1,
                               const struct gguf_tensor **out)
{
    const struct gguf_tensor *t = take_tensor(r, name);
    if (!t)
        return error_set(r->err, E_FORMAT, "%s: there is no tensor %s", r->path, name);
    if (t->dims[0] != dim0 || t->dims[1] != dim1 || t->dims[2] != 1 || t->dims[3] != 1)
        return error_set(r->err, E_FORMAT,
                         "%s: tensor %s is [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                         "]; the facts of the model ask for [%" PRIu64 ", %" PRIu64 "]",
                         r->path, name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], dim0, dim1);
    *out = t;
    return OK;
}

static enum status find_matrix(struct reader *r, const char *name, int n_in, int n_out, struct matrix *out)
{
    const struct gguf_tensor *t;
    enum status s = need_tensor(r, name, (uint64_t)n_in, (uint64_t)n_out, &t);
    if (s != OK)
        return s;
    if (!r->kernels.weights[t->type].multiply)
        return error_set(r->err, E_UNSUPPORTED,
                         "%s: tensor %s is of type %s, which this build cannot compute with", r->path, name,
                         weight_name(t->type));
    *out = (struct matrix){ .type = t->type, .n_in = n_in, .n_out = n_out, .data = t->data };
    return OK;
}

static enum status find_vector(struct reader *r, const char *name, int n, const float **out)
{
    const struct gguf_tensor *t;
    enum status s = need_tensor(r, name, (uint64_t)n, 1, &t);
    if (s != OK)
        return s;
    if (t->type != WEIGHT_F32)
        return error_set(r->err, E_UNSUPPORTED, "%s: tensor %s is of type %s; this build wants F32", r->path,
                         name, weight_name(t->type));
    *out = t->data;
    return OK;
}

static enum status find_layer(struct reader *r, int index)
{
    const struct model_facts *f = &r->m->facts;
    struct layer *l = &r->m->layers[index];
    int n_q = f->n_heads * f->head_dim, n_kv = f->n_kv_heads * f->head_dim;
    const struct {
        const char *name;
        int n_in, n_out;
        struct matrix *where;
    } matrices[] = {
        { "attn_q", f->n_embd, n_q, &l->q },          { "attn_k", f->n_embd, n_kv, &l->k },
        { "attn_v", f->n_embd, n_kv, &l->v },         { "attn_output", n_q, f->n_embd, &l->attention_out },
        { "ffn_gate", f->n_embd, f->n_ff, &l->gate }, { "ffn_up", f->n_embd, f->n_ff, &l->up },
        { "ffn_down", f->n_ff, f->n_embd, &l->down },
    };
    char name[64];
    enum status s;

    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", index);
    if ((s = find_vector(r, name, f->n_embd, &l->attention_norm)) != OK)
        return s;
    snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", index);
    if ((s = find_vector(r, name, f->n_embd, &l->ffn_norm)) != OK)
        return s;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", index, matrices[i].name);
        if ((s = find_matrix(r, name, matrices[i].n_in, matrices[i].n_out, matrices[i].where)) != OK)
            return s;
    }
    return OK;
}

/* The vocabulary is as large as the embedding; other places that give its size must not go beyond it. */
static enum status find_embedding(struct reader *r)
{
    struct model *m = r->m;
    const struct gguf_tensor *t = gguf_find_tensor(m->gguf, "token_embd.weight");
    const struct gguf_value *tokens = gguf_find(m->gguf, "tokenizer.ggml.tokens");

    if (!t)
        return error_set(r->err, E_FORMAT, "%s: there is no tensor token_embd.weight", r->path);
    if (t->dims[1] < 1 || t->dims[1] > MAX_VOCAB)
        return error_set(r->err, E_FORMAT,
                         "%s: tensor token_embd.weight has %" PRIu64 " rows; it must be 1 to %d", r->path,
                         t->dims[1], MAX_VOCAB);
    m->facts.n_vocab = (int)t->dims[1];
    if (tokens && tokens->kind == GGUF_ARRAY && tokens->count > t->dims[1])
        return error_set(r->err, E_FORMAT,
                         "%s: tokenizer.ggml.tokens has %" PRIu64 " entries, but token_embd.weight only "
                         "%" PRIu64 " rows",
                         r->path, tokens->count, t->dims[1]);
    return find_matrix(r, "token_embd.weight", m->facts.n_embd, m->facts.n_vocab, &m->embedding);
}

static enum status find_rope_factors(struct reader *r)
{
    struct model *m = r->m;
    int n = m->facts.n_rot / 2;
    if (!gguf_find_tensor(m->gguf, "rope_freqs.weight"))
        return OK;
    enum status s = find_vector(r, "rope_freqs.weight", n, &m->rope_factors);
    if (s != OK)
        return s;
    for (int i = 0; i < n; i++)
        if (!(m->rope_factors[i] > 0) || !isfinite(m->rope_factors[i]))
            return error_set(r->err, E_FORMAT, "%s: rope_freqs.weight holds %g at %d; it must be positive",
                             r->path, (double)m->rope_factors[i], i);
    return OK;
}

static enum status find_tensors(struct reader *r)
{
    struct model *m = r->m;
    struct model_facts *f = &m->facts;
    enum status s;

    r->is_used = xcalloc(gguf_n_tensors(m->gguf) + 1, sizeof *r->is_used);
    m->layers = xcalloc((size_t)f->n_layers, sizeof *m->layers);
    if ((s = find_embedding(r)) != OK || (s = find_rope_factors(r)) != OK ||
        (s = find_vector(r, "output_norm.weight", f->n_embd, &m->output_norm)) != OK)
        return s;
    m->output = m->embedding;
    if (gguf_find_tensor(m->gguf, "output.weight") &&
        (s = find_matrix(r, "output.weight", f->n_embd, f->n_vocab, &m->output)) != OK)
        return s;
    for (int i = 0; i < f->n_layers; i++)
        if ((s = find_layer(r, i)) != OK)
            return s;

    /* A tensor nobody asked for (a bias, an expert) would change the answer: refuse it. */
    for (uint64_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor(m->gguf, i);
        char name[64];
        if (!r->is_used[i])
            return error_set(r->err, E_UNSUPPORTED,
                             "%s: there is a tensor %s, which a llama of %d layers "
                             "does not have",
                             r->path, gguf_printable(t->name, name, sizeof name), f->n_layers);
        f->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        f->weight_bytes += t->bytes;
    }
    return OK;
}

enum status model_open(struct model **out, const char *path, struct error *err)
{
    struct model *m = xcalloc(1, sizeof *m);
    struct reader r = { .m = m, .path = path, .err = err };
    enum status s;

    *out = NULL;
    kernels_init(&r.kernels, ISA_SCALAR);
    if ((s = gguf_open(&m->gguf, path, err)) != OK || (s = read_facts(&r)) != OK ||
        (s = find_tensors(&r)) != OK)
        goto fail;
    free(r.is_used);
    *out = m;
    return OK;

fail:
    free(r.is_used);
    model_close(m);
    return s;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    gguf_close(m->gguf);
    free(m->layers);
    free(m);
}

const struct model_facts *model_facts(const struct model *m)
{
    return &m->facts;
}

const struct gguf *model_gguf(const struct model *m)
{
    return m->gguf;
}
