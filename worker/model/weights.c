/* The tensors of a model: each is found by name and its type and shape checked against the facts, so that the
 * forward pass checks nothing. Fused tensors become views of their parts. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/model/reader.h"

enum { NAME_SIZE = 64 };

static bool has_tensor(const struct reader *r, const char *prefix, const char *suffix)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return gguf_find_tensor(r->m->gguf, name);
}

/* Finds the tensor of that name and marks it as used. */
static enum status need_tensor(struct reader *r, const char *name, uint64_t dim0, uint64_t dim1,
                               uint64_t dim2, const struct gguf_tensor **out)
{
    const struct gguf_tensor *t = gguf_find_tensor(r->m->gguf, name);
    if (!t)
        return error_set(r->err, E_FORMAT, "%s: there is no tensor %s", r->path, name);
    r->is_used[t - gguf_tensor(r->m->gguf, 0)] = true;
    if (t->dims[0] != dim0 || t->dims[1] != dim1 || t->dims[2] != dim2 || t->dims[3] != 1)
        return error_set(r->err, E_FORMAT,
                         "%s: tensor %s is [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                         "]; the facts of the model ask for [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", 1]",
                         r->path, name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], dim0, dim1, dim2);
    *out = t;
    return OK;
}

static enum status find_vector(struct reader *r, const char *name, int n, const float **out)
{
    const struct gguf_tensor *t;
    enum status s = need_tensor(r, name, (uint64_t)n, 1, 1, &t);
    if (s != OK)
        return s;
    if (t->type != WEIGHT_F32)
        return error_set(r->err, E_UNSUPPORTED, "%s: tensor %s is of type %s; this build wants F32", r->path,
                         name, weight_name(t->type));
    *out = t->data;
    return OK;
}

/* The vector base.suffix, where there is one. */
static enum status find_extra(struct reader *r, const char *base, const char *suffix, int n,
                              const float **out)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    return gguf_find_tensor(r->m->gguf, name) ? find_vector(r, name, n, out) : OK;
}

/* `depth` matrices, one behind the other */
static enum status find_stack(struct reader *r, const char *base, int n_in, int n_out, int depth,
                              struct matrix *out)
{
    char name[NAME_SIZE];
    const struct gguf_tensor *t;
    snprintf(name, sizeof name, "%s.weight", base);
    enum status s = need_tensor(r, name, (uint64_t)n_in, (uint64_t)n_out, (uint64_t)depth, &t);
    if (s != OK)
        return s;
    if (!weight_dequantise(t->type))
        return error_set(r->err, E_UNSUPPORTED,
                         "%s: tensor %s is of type %s, which this build cannot compute with", r->path, name,
                         weight_name(t->type));
    *out = (struct matrix){ .type = t->type, .n_in = n_in, .n_out = n_out, .data = t->data };
    return OK;
}

/* base.weight, and base.bias and base.scale where they are */
static enum status find_matrix(struct reader *r, const char *base, int n_in, int n_out, bool needs_bias,
                               struct matrix *out)
{
    enum status s;
    if ((s = find_stack(r, base, n_in, n_out, 1, out)) != OK ||
        (s = find_extra(r, base, ".scale", 1, &out->scale)) != OK ||
        (s = find_extra(r, base, ".bias", n_out, &out->bias)) != OK)
        return s;
    if (needs_bias && !out->bias)
        return error_set(r->err, E_FORMAT, "%s: there is no tensor %s.bias", r->path, base);
    return OK;
}

/* Outputs first..first+n_out-1 of a matrix, as one of its own. */
static struct matrix part_of(const struct matrix *whole, int first, int n_out)
{
    struct matrix part = *whole;
    uint64_t row_bytes = weight_row_bytes(whole->type, (uint64_t)whole->n_in);
    part.data = (const char *)whole->data + (uint64_t)first * row_bytes;
    part.n_out = n_out;
    if (whole->bias)
        part.bias = whole->bias + first;
    return part;
}

static enum status find_norm(struct reader *r, const char *base, int n, struct norm *out)
{
    char name[NAME_SIZE];
    enum status s;
    snprintf(name, sizeof name, "%s.weight", base);
    if ((s = find_vector(r, name, n, &out->weight)) != OK)
        return s;
    snprintf(name, sizeof name, "%s.bias", base);
    return r->m->architecture->norm == NORM_LAYER ? find_vector(r, name, n, &out->bias) : OK;
}

/* --- one layer --- */

/* "blk.3.attn_q" */
static const char *in_layer(int index, const char *what, char out[static NAME_SIZE])
{
    snprintf(out, NAME_SIZE, "blk.%d.%s", index, what);
    return out;
}

static enum status find_norms(struct reader *r, int index)
{
    const struct architecture *a = r->m->architecture;
    const struct model_facts *f = &r->m->facts;
    struct layer *l = &r->m->layers[index];
    const struct {
        bool is_there;
        const char *name;
        int n;
        struct norm *where;
    } norms[] = {
        { true, "attn_norm", f->n_embd, &l->attention_norm },
        { a->has_qk_norms, "attn_q_norm", f->head_dim, &l->q_norm },
        { a->has_qk_norms, "attn_k_norm", f->head_dim, &l->k_norm },
        { a->has_sub_norms, "attn_sub_norm", f->n_heads * f->head_dim, &l->attention_sub_norm },
        { a->has_post_norms, "post_attention_norm", f->n_embd, &l->attention_post_norm },
        { true, "ffn_norm", f->n_embd, &l->ffn_norm },
        { a->has_sub_norms, "ffn_sub_norm", f->n_ff, &l->ffn_sub_norm },
        { a->has_post_norms, "post_ffw_norm", f->n_embd, &l->ffn_post_norm },
    };
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
        char name[NAME_SIZE];
        if (!norms[i].is_there)
            continue;
        enum status s = find_norm(r, in_layer(index, norms[i].name, name), norms[i].n, norms[i].where);
        if (s != OK)
            return s;
    }
    return OK;
}

static enum status find_attention(struct reader *r, int index)
{
    const struct architecture *a = r->m->architecture;
    const struct model_facts *f = &r->m->facts;
    struct layer *l = &r->m->layers[index];
    int n_q = f->n_heads * f->head_dim, n_kv = f->n_kv_heads * f->head_dim;
    bool needs_bias = a->needs_qkv_biases || a->needs_all_biases;
    char name[NAME_SIZE];
    struct matrix qkv;
    enum status s;

    in_layer(index, "attn_qkv", name);
    if (has_tensor(r, name, ".weight")) {
        if ((s = find_matrix(r, name, f->n_embd, n_q + 2 * n_kv, needs_bias, &qkv)) != OK)
            return s;
        l->q = part_of(&qkv, 0, n_q);
        l->k = part_of(&qkv, n_q, n_kv);
        l->v = part_of(&qkv, n_q + n_kv, n_kv);
    } else if ((s = find_matrix(r, in_layer(index, "attn_q", name), f->n_embd, n_q, needs_bias, &l->q)) !=
                   OK ||
               (s = find_matrix(r, in_layer(index, "attn_k", name), f->n_embd, n_kv, needs_bias, &l->k)) !=
                   OK ||
               (s = find_matrix(r, in_layer(index, "attn_v", name), f->n_embd, n_kv, needs_bias, &l->v)) !=
                   OK) {
        return s;
    }
    return find_matrix(r, in_layer(index, "attn_output", name), n_q, f->n_embd, a->needs_all_biases,
                       &l->attention_out);
}

/* The three products of a block whose tensors' names end in `suffix`. Where gate and up are one tensor it is
 * called up, and the gate comes first. */
static enum status find_ffn(struct reader *r, int index, const char *suffix, int n_ff, struct ffn *out)
{
    const struct architecture *a = r->m->architecture;
    int n_embd = r->m->facts.n_embd;
    bool needs_bias = a->needs_all_biases;
    char gate[NAME_SIZE], up[NAME_SIZE], down[NAME_SIZE], weight[NAME_SIZE + 8];
    struct matrix both;
    enum status s;

    snprintf(gate, sizeof gate, "blk.%d.ffn_gate%s", index, suffix);
    snprintf(up, sizeof up, "blk.%d.ffn_up%s", index, suffix);
    snprintf(down, sizeof down, "blk.%d.ffn_down%s", index, suffix);
    snprintf(weight, sizeof weight, "%s.weight", up);
    const struct gguf_tensor *t = gguf_find_tensor(r->m->gguf, weight);
    if (a->ffn == FFN_GELU) {
        s = find_matrix(r, up, n_embd, n_ff, needs_bias, &out->up);
    } else if (t && t->dims[1] == 2 * (uint64_t)n_ff && !has_tensor(r, gate, ".weight")) {
        s = find_matrix(r, up, n_embd, 2 * n_ff, needs_bias, &both);
        if (s == OK) {
            out->gate = part_of(&both, 0, n_ff);
            out->up = part_of(&both, n_ff, n_ff);
        }
    } else {
        s = find_matrix(r, gate, n_embd, n_ff, needs_bias, &out->gate);
        if (s == OK)
            s = find_matrix(r, up, n_embd, n_ff, needs_bias, &out->up);
    }
    return s == OK ? find_matrix(r, down, n_ff, n_embd, needs_bias, &out->down) : s;
}

/* The experts' blocks: "blk.3.ffn_up_exps" holds the matrices of all, one behind the other. Files made before
 * there were such stacks have a tensor for each, "blk.3.ffn_up.0" and so on. */
static enum status find_expert_blocks(struct reader *r, int index, struct ffn *blocks)
{
    const struct model_facts *f = &r->m->facts;
    const struct expert_facts *x = &f->experts;
    char name[NAME_SIZE];
    struct ffn all;
    enum status s;

    if (has_tensor(r, in_layer(index, "ffn_up.0", name), ".weight")) {
        for (int i = 0; i < x->n; i++) {
            char suffix[16];
            snprintf(suffix, sizeof suffix, ".%d", i);
            if ((s = find_ffn(r, index, suffix, x->n_ff, &blocks[i])) != OK)
                return s;
        }
        return OK;
    }
    if ((s = find_stack(r, in_layer(index, "ffn_gate_exps", name), f->n_embd, x->n_ff, x->n, &all.gate)) !=
            OK ||
        (s = find_stack(r, in_layer(index, "ffn_up_exps", name), f->n_embd, x->n_ff, x->n, &all.up)) != OK ||
        (s = find_stack(r, in_layer(index, "ffn_down_exps", name), x->n_ff, f->n_embd, x->n, &all.down)) !=
            OK)
        return s;
    for (int i = 0; i < x->n; i++) {
        blocks[i].gate = part_of(&all.gate, i * x->n_ff, x->n_ff);
        blocks[i].up = part_of(&all.up, i * x->n_ff, x->n_ff);
        blocks[i].down = part_of(&all.down, i * f->n_embd, f->n_embd);
    }
    return OK;
}

static enum status find_experts(struct reader *r, int index)
{
    const struct model_facts *f = &r->m->facts;
    const struct expert_facts *x = &f->experts;
    struct layer *l = &r->m->layers[index];
    char name[NAME_SIZE];
    enum status s;

    l->experts = xcalloc((size_t)x->n, sizeof *l->experts);
    if ((s = find_matrix(r, in_layer(index, "ffn_gate_inp", name), f->n_embd, x->n, false, &l->router)) !=
            OK ||
        (s = find_expert_blocks(r, index, l->experts)) != OK)
        return s;
    if (!x->n_ff_shared)
        return OK;
    if ((s = find_ffn(r, index, "_shexp", x->n_ff_shared, &l->shared)) != OK)
        return s;
    in_layer(index, "ffn_gate_inp_shexp", name);
    return has_tensor(r, name, ".weight") ? find_matrix(r, name, f->n_embd, 1, false, &l->shared_gate) : OK;
}

static enum status find_layer(struct reader *r, int index)
{
    const struct architecture *a = r->m->architecture;
    const struct model_facts *f = &r->m->facts;
    struct layer *l = &r->m->layers[index];
    bool sees_all = a->window_period && index % a->window_period == a->window_period - 1;
    enum status s;

    l->window = f->window && !sees_all ? f->window : INT32_MAX;
    if ((s = find_norms(r, index)) != OK || (s = find_attention(r, index)) != OK)
        return s;
    return f->experts.n ? find_experts(r, index) : find_ffn(r, index, "", f->n_ff, &l->ffn);
}

/* --- the model --- */

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
    enum status s = find_stack(r, "token_embd", m->facts.n_embd, m->facts.n_vocab, 1, &m->embedding);
    if (s == OK && m->facts.n_positions)
        s = find_stack(r, "position_embd", m->facts.n_embd, m->facts.n_positions, 1, &m->positions);
    return s;
}

static enum status find_factors(struct reader *r, const char *name, const float **out)
{
    int n = r->m->facts.rope.n_rot / 2;
    enum status s = find_vector(r, name, n, out);
    for (int i = 0; s == OK && i < n; i++)
        if (!((*out)[i] > 0) || !isfinite((*out)[i]))
            return error_set(r->err, E_FORMAT, "%s: tensor %s holds %g at %d; it must be positive", r->path,
                             name, (double)(*out)[i], i);
    return s;
}

static enum status find_rope_factors(struct reader *r)
{
    struct model *m = r->m;
    enum status s;
    if (!m->facts.rope.n_rot)
        return OK;
    if (has_tensor(r, "rope_freqs", ".weight"))
        return find_factors(r, "rope_freqs.weight", &m->rope_factors);
    if (!has_tensor(r, "rope_factors_long", ".weight") && !has_tensor(r, "rope_factors_short", ".weight"))
        return OK;
    if ((s = find_factors(r, "rope_factors_short.weight", &m->rope_factors)) != OK)
        return s;
    return find_factors(r, "rope_factors_long.weight", &m->rope_factors_long);
}

/* Files may leave the widths of experts to their tensors. */
static enum status measure_experts(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    const struct {
        const char *name;
        int *width;
    } blocks[] = {
        { "blk.0.ffn_up_exps.weight", &f->experts.n_ff },
        { "blk.0.ffn_up.0.weight", &f->experts.n_ff },
        { "blk.0.ffn_up_shexp.weight", &f->experts.n_ff_shared },
    };
    enum { N_BLOCKS = sizeof blocks / sizeof *blocks };
    for (int i = 0; f->experts.n && i < N_BLOCKS; i++) {
        const struct gguf_tensor *t = gguf_find_tensor(r->m->gguf, blocks[i].name);
        if (!t || *blocks[i].width)
            continue;
        if (t->dims[1] < 1 || t->dims[1] > MAX_WIDTH)
            return error_set(r->err, E_FORMAT, "%s: tensor %s has %" PRIu64 " rows; it must be 1 to %d",
                             r->path, blocks[i].name, t->dims[1], MAX_WIDTH);
        *blocks[i].width = (int)t->dims[1];
    }
    return OK;
}

/* A tensor nobody asked for would change the answer: refuse it. */
static enum status count_tensors(struct reader *r)
{
    struct model *m = r->m;
    for (uint64_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor(m->gguf, i);
        char name[NAME_SIZE];
        if (!r->is_used[i])
            return error_set(r->err, E_UNSUPPORTED,
                             "%s: there is a tensor %s, which a %s of %d layers does not have", r->path,
                             gguf_printable(t->name, name, sizeof name), m->architecture->name,
                             m->facts.n_layers);
        m->facts.n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        m->facts.weight_bytes += t->bytes;
    }
    return OK;
}

enum status find_tensors(struct reader *r)
{
    struct model *m = r->m;
    struct model_facts *f = &m->facts;
    enum status s;

    r->is_used = xcalloc(gguf_n_tensors(m->gguf) + 1, sizeof *r->is_used);
    m->layers = xcalloc((size_t)f->n_layers, sizeof *m->layers);
    if ((s = find_embedding(r)) != OK || (s = find_rope_factors(r)) != OK || (s = measure_experts(r)) != OK ||
        (s = find_norm(r, "output_norm", f->n_embd, &m->output_norm)) != OK)
        return s;
    m->output = m->embedding;
    if (has_tensor(r, "output", ".weight") &&
        (s = find_matrix(r, "output", f->n_embd, f->n_vocab, false, &m->output)) != OK)
        return s;
    for (int i = 0; i < f->n_layers; i++)
        if ((s = find_layer(r, i)) != OK)
            return s;
    return count_tensors(r);
}
