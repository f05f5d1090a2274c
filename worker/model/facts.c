/* The facts of a model from the metadata of its file, each checked: missing, of another kind or out of range
 * it is named in the error. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "worker/model/reader.h"

/* "llama.<key>" */
static const char *full_key(const struct reader *r, const char *key, char out[static 96])
{
    snprintf(out, 96, "%s.%s", r->m->architecture->name, key);
    return out;
}

/* Reads a whole number from low to high. An absent key keeps *out if it is optional. */
static enum status read_count(struct reader *r, const char *key, bool is_optional, uint64_t low,
                              uint64_t high, int *out)
{
    char full[96];
    uint64_t value = 0;
    enum status s = gguf_get_u64(r->m->gguf, full_key(r, key, full), &value, r->err);
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

/* The same for a number in (low, high); absent keeps *out. So does 0 where it is out of range: converters
 * write it for what a model does not set. */
static enum status read_number(struct reader *r, const char *key, double low, double high, double *out)
{
    char full[96];
    double value = 0;
    enum status s = gguf_get_double(r->m->gguf, full_key(r, key, full), &value, r->err);
    if (s == E_NOTFOUND)
        return OK;
    if (s != OK)
        return s;
    if (value == 0 && low == 0)
        return OK;
    if (!(value > low && value < high))
        return error_set(r->err, E_FORMAT, "%s: %s is %g; it must be between %g and %g", r->path, full, value,
                         low, high);
    *out = value;
    return OK;
}

/* A number above 0, or *out where none is set. */
static enum status read_scale(struct reader *r, const char *key, float *out)
{
    double value = (double)*out;
    enum status s = read_number(r, key, 0, 1e30, &value);
    *out = (float)value;
    return s;
}

/* The same, but here 0 says that there is no cap. */
static enum status read_cap(struct reader *r, const char *key, float *out)
{
    double value = (double)*out;
    enum status s = read_number(r, key, -1e-9, 1e30, &value);
    *out = value > 0 ? (float)value : 0;
    return s;
}

static enum status read_architecture(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    struct gguf_string text = { 0 };
    char known[256];
    enum status s = gguf_get_string(r->m->gguf, "general.architecture", &text, r->err);
    if (s == E_NOTFOUND)
        return error_set(r->err, E_FORMAT, "%s: there is no general.architecture", r->path);
    if (s != OK)
        return s;
    gguf_printable(text, f->architecture, sizeof f->architecture);
    r->m->architecture = architecture_find(f->architecture);
    if (!r->m->architecture)
        return error_set(r->err, E_UNSUPPORTED, "%s: the architecture is '%s'; this build knows %s", r->path,
                         f->architecture, architecture_list(known, sizeof known));
    return OK;
}

/* Things a file may ask for that the forward pass does not do: better refused than ignored. */
static enum status refuse_variants(struct reader *r)
{
    static const struct {
        const char *key;
        int most;
    } limits[] = {
        { "expert_gating_func", 1 }, /* 1 is the softmax */
        { "leading_dense_block_count", 0 },
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        int value = 0;
        enum status s = read_count(r, limits[i].key, true, 0, INT32_MAX, &value);
        if (s != OK)
            return s;
        if (value > limits[i].most)
            return error_set(r->err, E_UNSUPPORTED, "%s: %s.%s is %d; this build cannot do that", r->path,
                             r->m->architecture->name, limits[i].key, value);
    }
    return OK;
}

static enum status read_rope_scaling(struct reader *r)
{
    static const struct {
        const char *name;
        enum rope_scaling scaling;
    } known[] = {
        { "none", ROPE_UNSCALED },
        { "linear", ROPE_LINEAR },
        { "yarn", ROPE_YARN },
        { "longrope", ROPE_UNSCALED }, /* all it does is in its factors and its gain */
    };
    enum { N_KNOWN = sizeof known / sizeof *known };
    struct gguf_string type = { "linear", 6 };
    char full[96], name[32];
    enum status s = gguf_get_string(r->m->gguf, full_key(r, "rope.scaling.type", full), &type, r->err);
    int i = 0;

    if (s != OK && s != E_NOTFOUND)
        return s;
    while (i < N_KNOWN && !gguf_string_is(type, known[i].name))
        i++;
    if (i == N_KNOWN)
        return error_set(r->err, E_UNSUPPORTED,
                         "%s: %s is '%s'; this build knows none, linear, yarn and longrope", r->path, full,
                         gguf_printable(type, name, sizeof name));
    r->m->facts.rope.scaling = known[i].scaling;
    return OK;
}

/* For angles of YaRN see engine.c. Its paper lets attention see sharper by a gain that grows with the factor;
 * a file may name a further gain of its own. */
static enum status read_rope(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    struct rope_facts *rope = &f->rope;
    enum status s;

    *rope = (struct rope_facts){ .factor = 1, .gain = 1, .original_context = f->n_ctx_train };
    if (r->m->architecture->rope == ROPE_NONE) {
        f->n_positions = f->n_ctx_train;
        return OK;
    }
    rope->n_rot = f->head_dim;
    if ((s = read_count(r, "rope.dimension_count", true, 2, (uint64_t)f->head_dim, &rope->n_rot)) != OK)
        return s;
    if (rope->n_rot % 2)
        return error_set(r->err, E_FORMAT, "%s: %s.rope.dimension_count is %d; it must be even", r->path,
                         r->m->architecture->name, rope->n_rot);
    rope->base = 10000;
    rope->yarn_extrapolation = 1;
    rope->yarn_beta_fast = 32;
    rope->yarn_beta_slow = 1;
    if ((s = read_rope_scaling(r)) != OK ||
        (s = read_number(r, "rope.freq_base", 1, 1e30, &rope->base)) != OK ||
        (s = read_number(r, "rope.scale_linear", 0, 1e6, &rope->factor)) != OK ||
        (s = read_number(r, "rope.scaling.factor", 0, 1e6, &rope->factor)) != OK ||
        (s = read_count(r, "rope.scaling.original_context_length", true, 1, MAX_CONTEXT,
                        &rope->original_context)) != OK ||
        (s = read_number(r, "rope.scaling.attn_factor", 0, 1e6, &rope->gain)) != OK ||
        (s = read_number(r, "rope.scaling.yarn_attn_factor", 0, 1e6, &rope->gain)) != OK ||
        (s = read_number(r, "rope.scaling.yarn_ext_factor", -1e-9, 1e6, &rope->yarn_extrapolation)) != OK ||
        (s = read_number(r, "rope.scaling.yarn_beta_fast", 0, 1e6, &rope->yarn_beta_fast)) != OK ||
        (s = read_number(r, "rope.scaling.yarn_beta_slow", 0, 1e6, &rope->yarn_beta_slow)) != OK)
        return s;
    if (rope->scaling == ROPE_UNSCALED)
        rope->factor = 1;
    if (rope->scaling == ROPE_YARN && rope->factor > 1 && rope->yarn_extrapolation > 0)
        rope->gain *= 1 + 0.1 * log(rope->factor);
    return OK;
}

static enum status read_heads(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    const char *name = r->m->architecture->name;
    int value_dim;
    enum status s;

    if ((s = read_count(r, "attention.head_count", false, 1, MAX_HEADS, &f->n_heads)) != OK)
        return s;
    f->n_kv_heads = f->n_heads;
    if ((s = read_count(r, "attention.head_count_kv", true, 1, (uint64_t)f->n_heads, &f->n_kv_heads)) != OK)
        return s;
    if (f->n_heads % f->n_kv_heads)
        return error_set(r->err, E_FORMAT,
                         "%s: %s.attention.head_count %d is no multiple of %s.attention.head_count_kv %d",
                         r->path, name, f->n_heads, name, f->n_kv_heads);
    f->head_dim = f->n_embd / f->n_heads;
    if ((s = read_count(r, "attention.key_length", true, 2, MAX_HEAD_DIM, &f->head_dim)) != OK)
        return s;
    if (f->head_dim < 2 || f->head_dim > MAX_HEAD_DIM)
        return error_set(r->err, E_FORMAT,
                         "%s: %s.embedding_length %d and %s.attention.head_count %d make heads of %d "
                         "elements; it must be 2 to %d",
                         r->path, name, f->n_embd, name, f->n_heads, f->head_dim, MAX_HEAD_DIM);
    value_dim = f->head_dim;
    if ((s = read_count(r, "attention.value_length", true, 1, MAX_HEAD_DIM, &value_dim)) != OK)
        return s;
    if (value_dim != f->head_dim)
        return error_set(r->err, E_UNSUPPORTED,
                         "%s: %s.attention.value_length is %d and keys have %d; this build wants them equal",
                         r->path, name, value_dim, f->head_dim);
    return OK;
}

static enum status read_attention(struct reader *r)
{
    const struct architecture *a = r->m->architecture;
    struct model_facts *f = &r->m->facts;
    /* gemma2 scales by a fact its files do not carry. It is the head's width but in the one size with 46
     * layers, where it is the width of x per head. */
    bool is_narrow = a->has_narrow_query_46 && f->n_layers == 46;
    enum status s;

    f->attention_scale = (float)(1 / sqrt(is_narrow ? (double)f->n_embd / f->n_heads : f->head_dim));
    f->window = a->window;
    if ((s = read_scale(r, "attention.scale", &f->attention_scale)) != OK ||
        (s = read_count(r, "attention.sliding_window", true, 0, INT32_MAX, &f->window)) != OK)
        return s;
    f->attention_cap = (float)a->attention_cap;
    return a->attention_cap > 0 ? read_cap(r, "attn_logit_softcapping", &f->attention_cap) : OK;
}

static enum status read_scales(struct reader *r)
{
    const struct architecture *a = r->m->architecture;
    struct model_facts *f = &r->m->facts;
    enum status s;

    f->embedding_scale = a->has_sqrt_embedding ? (float)sqrt(f->n_embd) : 1;
    f->residual_scale = 1;
    f->logit_scale = 1;
    f->logit_cap = (float)a->logit_cap;
    if (a->has_scales && ((s = read_scale(r, "embedding_scale", &f->embedding_scale)) != OK ||
                          (s = read_scale(r, "residual_scale", &f->residual_scale)) != OK ||
                          (s = read_scale(r, "logit_scale", &f->logit_scale)) != OK))
        return s;
    return a->logit_cap > 0 ? read_cap(r, "final_logit_softcapping", &f->logit_cap) : OK;
}

static enum status read_experts(struct reader *r)
{
    const struct architecture *a = r->m->architecture;
    struct expert_facts *x = &r->m->facts.experts;
    enum status s;

    if ((s = read_count(r, "expert_count", !a->needs_experts, a->needs_experts, MAX_EXPERTS, &x->n)) != OK ||
        !x->n)
        return s;
    if (a->ffn == FFN_GELU || a->has_sub_norms)
        return error_set(r->err, E_UNSUPPORTED, "%s: %s.expert_count is %d; this build cannot do that",
                         r->path, a->name, x->n);
    if ((s = read_count(r, "expert_used_count", false, 1, (uint64_t)x->n, &x->n_used)) != OK ||
        (s = read_count(r, "expert_feed_forward_length", true, 1, MAX_WIDTH, &x->n_ff)) != OK)
        return s;
    return read_count(r, "expert_shared_feed_forward_length", true, 0, MAX_WIDTH, &x->n_ff_shared);
}

static enum status read_norm(struct reader *r)
{
    const char *key = r->m->architecture->norm == NORM_LAYER ? "attention.layer_norm_epsilon"
                                                             : "attention.layer_norm_rms_epsilon";
    double eps = 0;
    enum status s = read_number(r, key, 0, 1, &eps);
    if (s != OK)
        return s;
    if (eps == 0)
        return error_set(r->err, E_FORMAT, "%s: %s.%s is missing or 0", r->path, r->m->architecture->name,
                         key);
    r->m->facts.norm_eps = (float)eps;
    return OK;
}

enum status read_facts(struct reader *r)
{
    struct model_facts *f = &r->m->facts;
    enum status s;

    if ((s = read_architecture(r)) != OK || (s = refuse_variants(r)) != OK ||
        (s = read_count(r, "block_count", false, 1, MAX_LAYERS, &f->n_layers)) != OK ||
        (s = read_count(r, "context_length", false, 1, MAX_CONTEXT, &f->n_ctx_train)) != OK ||
        (s = read_count(r, "embedding_length", false, 1, MAX_WIDTH, &f->n_embd)) != OK ||
        (s = read_count(r, "feed_forward_length", false, 1, MAX_WIDTH, &f->n_ff)) != OK ||
        (s = read_heads(r)) != OK || (s = read_rope(r)) != OK || (s = read_attention(r)) != OK ||
        (s = read_scales(r)) != OK || (s = read_experts(r)) != OK)
        return s;
    return read_norm(r);
}
