/* make_gguf: writes a model of any supported architecture and weight type with random weights, for tests of
 * size, speed and arithmetic.
 *
 * The same options and seed give the same bytes. Weights are made as they are written, a megabyte at a time,
 * so the file may be larger than memory: of every tensor a pool of blocks is drawn and quantised, and the
 * tensor is a random sequence of those. Matrices have a standard deviation of 1 / sqrt(columns) and norms lie
 * near 1, so that activations neither vanish nor explode. The vocabulary is a SentencePiece one in which
 * every word is the merge of two earlier tokens, so any text can be tokenized. */
#include <bsd/stdlib.h>
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/status.h"
#include "common/xalloc.h"
#include "worker/kernels/quantise.h"

enum { ALIGNMENT = 32, CHUNK_BYTES = 1 << 20 };

/* Numbers of the format. */
enum { KIND_U32 = 4, KIND_I32 = 5, KIND_F32 = 6, KIND_BOOL = 7, KIND_STRING = 8, KIND_ARRAY = 9 };
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_BYTE = 6 };

enum ffn_shape { FFN_GATED, FFN_FUSED, FFN_PLAIN };

/* What tensors and keys a file of an architecture has, where it differs from llama. */
struct architecture {
    const char *name;
    enum ffn_shape ffn;
    bool is_tied; /* always */
    bool has_fused_qkv, has_qkv_biases, has_all_biases, has_layer_norm, has_qk_norms, has_sub_norms;
    bool has_post_norms, has_positions, has_scales, has_caps, has_experts, has_shared, has_long_rope;
};
/* clang-format off */
static const struct architecture architectures[] = {
    { .name = "llama" },
    { .name = "granite", .has_scales = true },
    { .name = "granitemoe", .has_scales = true, .has_experts = true },
    { .name = "qwen2", .has_qkv_biases = true },
    { .name = "qwen2moe", .has_qkv_biases = true, .has_experts = true, .has_shared = true },
    { .name = "qwen3", .has_qk_norms = true },
    { .name = "qwen3moe", .has_qk_norms = true, .has_experts = true },
    { .name = "gemma", .is_tied = true },
    { .name = "gemma2", .is_tied = true, .has_post_norms = true, .has_caps = true },
    { .name = "phi3", .has_fused_qkv = true, .ffn = FFN_FUSED, .has_long_rope = true },
    { .name = "gpt2", .is_tied = true, .has_fused_qkv = true, .ffn = FFN_PLAIN, .has_layer_norm = true,
      .has_all_biases = true, .has_positions = true },
    { .name = "bitnet", .is_tied = true, .has_sub_norms = true },
};
/* clang-format on */
enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

/* The ways to scale RoPE. */
enum rope { ROPE_PLAIN, ROPE_LINEAR, ROPE_YARN, ROPE_LLAMA3, ROPE_LONG, N_ROPES };
static const char *const ropes[N_ROPES] = { "none", "linear", "yarn", "llama3", "longrope" };

struct options {
    const char *out;
    const struct architecture *arch;
    uint32_t layers, embd, heads, kv_heads, ff, vocab, ctx;
    uint32_t head_dim, rot, window;
    uint32_t experts, experts_used, expert_ff, shared_ff;
    int rope; /* enum rope, or -1: as the architecture */
    const struct type *type;
    uint64_t seed;
    bool is_tied;         /* the embedding is the output matrix too */
    bool has_own_experts; /* a tensor for each expert's matrix, as files had it before there were stacks */
};

/* Matrix types this program can write, with the number general.file_type has for each. */
struct type {
    const char *name;
    enum weight_type weight;
    uint32_t file_type;
};
static const struct type types[] = {
    { "F32", WEIGHT_F32, 0 },      { "F16", WEIGHT_F16, 1 },        { "BF16", WEIGHT_BF16, 32 },
    { "Q8_0", WEIGHT_Q8_0, 7 },    { "Q4_0", WEIGHT_Q4_0, 2 },      { "Q4_1", WEIGHT_Q4_1, 3 },
    { "Q5_0", WEIGHT_Q5_0, 8 },    { "Q5_1", WEIGHT_Q5_1, 9 },      { "Q2_K", WEIGHT_Q2_K, 10 },
    { "Q3_K", WEIGHT_Q3_K, 12 },   { "Q4_K", WEIGHT_Q4_K, 15 },     { "Q5_K", WEIGHT_Q5_K, 17 },
    { "Q6_K", WEIGHT_Q6_K, 18 },   { "IQ4_NL", WEIGHT_IQ4_NL, 25 }, { "IQ4_XS", WEIGHT_IQ4_XS, 30 },
    { "MXFP4", WEIGHT_MXFP4, 38 }, { "TQ1_0", WEIGHT_TQ1_0, 36 },   { "TQ2_0", WEIGHT_TQ2_0, 37 },
};
enum { N_TYPES = sizeof types / sizeof *types };

struct tensor {
    char name[48];
    int n_dims;
    uint64_t dims[3];
    enum weight_type type;
    float center, reach; /* its numbers are uniform in center +- reach */
    uint64_t offset, bytes;
    /* Its numbers are part `part` of `n_parts` of the stream of random numbers of that number: a stack of
     * experts and their single tensors hold the same. */
    uint64_t stream, part, n_parts;
};

struct tensors {
    struct tensor *all;
    size_t count, capacity;
    uint64_t bytes;   /* of the data so far, padded */
    uint64_t streams; /* begun so far */
};

/* SplitMix64: fast, and any seed is a good one. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Vocabulary */

struct vocab {
    char **tokens;
    uint32_t count;
    uint32_t *slots; /* token + 1 by hash, 0 is free */
    uint32_t mask;
};

static uint32_t *vocab_slot(const struct vocab *v, const char *token)
{
    uint32_t h = 2166136261u;
    for (const char *c = token; *c; c++)
        h = (h ^ (unsigned char)*c) * 16777619u;
    for (;; h++) {
        uint32_t *slot = &v->slots[h & v->mask];
        if (!*slot || !strcmp(v->tokens[*slot - 1], token))
            return slot;
    }
}

static void vocab_add(struct vocab *v, const char *token)
{
    uint32_t *slot = vocab_slot(v, token);
    if (*slot)
        return;
    v->tokens[v->count] = xstrdup(token);
    *slot = ++v->count;
}

enum { N_SPECIAL = 3, N_BYTES = 256, FIRST_NORMAL = N_SPECIAL + N_BYTES };

static const char space_mark[] = "\xe2\x96\x81"; /* SentencePiece's letter for a space */

/* A normal token, an early one far more often than a late one: so most words are short and made of frequent
 * letters, and real text finds many of them. */
static const char *early_token(const struct vocab *v, uint64_t *random)
{
    const uint32_t normal = v->count - FIRST_NORMAL;
    uint64_t r = next_random(random);
    uint32_t reach = normal >> (r >> 32) % 12;
    return v->tokens[FIRST_NORMAL + (uint32_t)r % (reach ? reach : 1)];
}

static void vocab_make(struct vocab *v, uint32_t want, uint64_t seed)
{
    enum { MAX_WORD = 15 };
    uint64_t random = seed ^ 0x766f636162; /* not the weights' stream */
    char text[MAX_WORD + 1];

    *v = (struct vocab){ .tokens = xcalloc(want, sizeof *v->tokens), .mask = 15 };
    while (v->mask < 2 * want)
        v->mask = 2 * v->mask + 1;
    v->slots = xcalloc(v->mask + 1, sizeof *v->slots);
    vocab_add(v, "<unk>");
    vocab_add(v, "<s>");
    vocab_add(v, "</s>");
    for (int i = 0; i < N_BYTES; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        vocab_add(v, text);
    }
    if (v->count < want)
        vocab_add(v, space_mark);
    static const char letters[] =
        "etaoinshrdlucmfwypvbgkjxqz.,'!?-:;\"()0123456789ETAOINSHRDLUCMFWYPVBGKJXQZ";
    for (const char *c = letters; *c && v->count < want; c++)
        vocab_add(v, (char[]){ *c, 0 });
    while (v->count < want) {
        const char *head = early_token(v, &random), *tail = early_token(v, &random);
        if (strlen(head) + strlen(tail) > MAX_WORD || !strncmp(tail, space_mark, strlen(space_mark)))
            continue;
        strcpy(stpcpy(text, head), tail);
        vocab_add(v, text);
    }
}

static void vocab_fini(struct vocab *v)
{
    for (uint32_t i = 0; i < v->count; i++)
        free(v->tokens[i]);
    free(v->tokens);
    free(v->slots);
}

/* Header */

static void put_u32(struct buffer *b, uint32_t v)
{
    buffer_append(b, &v, sizeof v);
}

static void put_u64(struct buffer *b, uint64_t v)
{
    buffer_append(b, &v, sizeof v);
}

static void put_float(struct buffer *b, float v)
{
    buffer_append(b, &v, sizeof v);
}

static void put_string(struct buffer *b, const char *text)
{
    put_u64(b, strlen(text));
    buffer_append(b, text, strlen(text));
}

/* The metadata, and how many keys it holds. */
struct metadata {
    struct buffer bytes;
    uint64_t count;
};

static struct buffer *put_key(struct metadata *m, const char *key, uint32_t kind)
{
    m->count++;
    put_string(&m->bytes, key);
    put_u32(&m->bytes, kind);
    return &m->bytes;
}

static void add_u32(struct metadata *m, const char *key, uint32_t value)
{
    put_u32(put_key(m, key, KIND_U32), value);
}

static void add_float(struct metadata *m, const char *key, float value)
{
    put_float(put_key(m, key, KIND_F32), value);
}

static void add_bool(struct metadata *m, const char *key, bool value)
{
    buffer_append(put_key(m, key, KIND_BOOL), &(char){ value }, 1);
}

static void add_string(struct metadata *m, const char *key, const char *value)
{
    put_string(put_key(m, key, KIND_STRING), value);
}

static struct buffer *add_array(struct metadata *m, const char *key, uint32_t element, uint64_t count)
{
    struct buffer *b = put_key(m, key, KIND_ARRAY);
    put_u32(b, element);
    put_u64(b, count);
    return b;
}

static uint32_t token_kind(uint32_t i)
{
    return i == 0             ? TOKEN_UNKNOWN
           : i < N_SPECIAL    ? TOKEN_CONTROL
           : i < FIRST_NORMAL ? TOKEN_BYTE
                              : TOKEN_NORMAL;
}

static void add_vocab(struct metadata *m, const struct vocab *v)
{
    struct buffer *b;

    add_string(m, "tokenizer.ggml.model", "llama");
    b = add_array(m, "tokenizer.ggml.tokens", KIND_STRING, v->count);
    for (uint32_t i = 0; i < v->count; i++)
        put_string(b, v->tokens[i]);
    b = add_array(m, "tokenizer.ggml.scores", KIND_F32, v->count);
    for (uint32_t i = 0; i < v->count; i++)
        put_float(b, i < FIRST_NORMAL ? 0 : -(float)(i - FIRST_NORMAL));
    b = add_array(m, "tokenizer.ggml.token_type", KIND_I32, v->count);
    for (uint32_t i = 0; i < v->count; i++)
        put_u32(b, token_kind(i));
    add_u32(m, "tokenizer.ggml.unknown_token_id", 0);
    add_u32(m, "tokenizer.ggml.bos_token_id", 1);
    add_u32(m, "tokenizer.ggml.eos_token_id", 2);
    add_bool(m, "tokenizer.ggml.add_bos_token", true);
    add_bool(m, "tokenizer.ggml.add_eos_token", false);
}

/* The key with the architecture's name in front, in a buffer of its own until the next call. */
static const char *own_key(const struct options *o, const char *key)
{
    static char full[80];
    snprintf(full, sizeof full, "%s.%s", o->arch->name, key);
    return full;
}

static void add_rope(struct metadata *m, const struct options *o)
{
    if (o->arch->has_positions)
        return;
    add_u32(m, own_key(o, "rope.dimension_count"), o->rot);
    add_float(m, own_key(o, "rope.freq_base"), 10000.0f);
    if (o->rope == ROPE_LINEAR || o->rope == ROPE_YARN) {
        add_string(m, own_key(o, "rope.scaling.type"), ropes[o->rope]);
        add_float(m, own_key(o, "rope.scaling.factor"), 4);
    }
    if (o->rope == ROPE_YARN || o->rope == ROPE_LONG)
        add_u32(m, own_key(o, "rope.scaling.original_context_length"), o->ctx / 4 + 1);
    if (o->rope == ROPE_LONG)
        add_float(m, own_key(o, "rope.scaling.attn_factor"), 1.19f);
}

static void add_experts(struct metadata *m, const struct options *o)
{
    if (!o->experts)
        return;
    add_u32(m, own_key(o, "expert_count"), o->experts);
    add_u32(m, own_key(o, "expert_used_count"), o->experts_used);
    add_u32(m, own_key(o, "expert_feed_forward_length"), o->expert_ff);
    if (o->shared_ff)
        add_u32(m, own_key(o, "expert_shared_feed_forward_length"), o->shared_ff);
}

static void add_model(struct metadata *m, const struct options *o)
{
    const struct architecture *a = o->arch;
    char name[64];

    snprintf(name, sizeof name, "random %u x %u seed %llu", o->layers, o->embd, (unsigned long long)o->seed);
    add_string(m, "general.architecture", a->name);
    add_string(m, "general.name", name);
    add_u32(m, "general.file_type", o->type->file_type);
    add_u32(m, "general.alignment", ALIGNMENT);
    add_u32(m, own_key(o, "block_count"), o->layers);
    add_u32(m, own_key(o, "context_length"), o->ctx);
    add_u32(m, own_key(o, "embedding_length"), o->embd);
    add_u32(m, own_key(o, "feed_forward_length"), o->experts && !o->shared_ff ? o->expert_ff : o->ff);
    add_u32(m, own_key(o, "attention.head_count"), o->heads);
    add_u32(m, own_key(o, "attention.head_count_kv"), o->kv_heads);
    if (o->head_dim * o->heads != o->embd) {
        add_u32(m, own_key(o, "attention.key_length"), o->head_dim);
        add_u32(m, own_key(o, "attention.value_length"), o->head_dim);
    }
    add_float(
        m,
        own_key(o, a->has_layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
        1e-5f);
    add_u32(m, own_key(o, "vocab_size"), o->vocab);
    if (o->window)
        add_u32(m, own_key(o, "attention.sliding_window"), o->window);
    add_rope(m, o);
    add_experts(m, o);
    if (a->has_scales) {
        add_float(m, own_key(o, "embedding_scale"), 6);
        add_float(m, own_key(o, "residual_scale"), 0.4f);
        add_float(m, own_key(o, "logit_scale"), 3);
        add_float(m, own_key(o, "attention.scale"), 1.5f / sqrtf((float)o->head_dim));
    }
    /* Far below what real models have, as random ones have no large scores that real caps would change. */
    if (a->has_caps) {
        add_float(m, own_key(o, "attn_logit_softcapping"), 2);
        add_float(m, own_key(o, "final_logit_softcapping"), 3);
    }
}

static struct tensor *add_tensor(struct tensors *t, const char *name, enum weight_type type, uint64_t columns,
                                 uint64_t rows, uint64_t depth)
{
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 64;
        t->all = xrealloc(t->all, t->capacity * sizeof *t->all);
    }
    struct tensor *x = &t->all[t->count++];
    *x = (struct tensor){ .n_dims = depth  ? 3
                                    : rows ? 2
                                           : 1,
                          .dims = { columns, rows ? rows : 1, depth ? depth : 1 },
                          .type = type,
                          .reach = sqrtf(3.0f / (float)columns),
                          .offset = t->bytes,
                          .stream = t->streams++,
                          .n_parts = 1 };
    snprintf(x->name, sizeof x->name, "%s", name);
    x->bytes = weight_row_bytes(type, columns) * x->dims[1] * x->dims[2];
    t->bytes += (x->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return x;
}

/* Numbers that stay F32, in center +- reach. */
static void add_vector(struct tensors *t, const char *name, uint64_t n, float center, float reach)
{
    struct tensor *x = add_tensor(t, name, WEIGHT_F32, n, 0, 0);
    x->center = center;
    x->reach = reach;
}

/* A list of one layer's tensors, or with layer -1 of those outside of layers. */
struct lister {
    struct tensors *t;
    const struct options *o;
    int layer;
};

static const char *tensor_name(const struct lister *l, const char *what, const char *suffix)
{
    static char full[48];
    if (l->layer < 0)
        snprintf(full, sizeof full, "%s.%s", what, suffix);
    else
        snprintf(full, sizeof full, "blk.%d.%s.%s", l->layer, what, suffix);
    return full;
}

static void list_norm(const struct lister *l, const char *what, uint64_t n)
{
    add_vector(l->t, tensor_name(l, what, "weight"), n, 1, 0.1f);
    if (l->o->arch->has_layer_norm)
        add_vector(l->t, tensor_name(l, what, "bias"), n, 0, 0.1f);
}

static void list_matrix(const struct lister *l, const char *what, uint64_t columns, uint64_t rows,
                        bool has_bias)
{
    add_tensor(l->t, tensor_name(l, what, "weight"), l->o->type->weight, columns, rows, 0);
    if (has_bias || (l->o->arch->has_all_biases && l->layer >= 0))
        add_vector(l->t, tensor_name(l, what, "bias"), rows, 0, 0.2f);
    if (l->o->arch->has_sub_norms && l->layer >= 0)
        add_vector(l->t, tensor_name(l, what, "scale"), 1, 1, 0.3f);
}

static void list_attention(const struct lister *l)
{
    const struct options *o = l->o;
    const struct architecture *a = o->arch;
    uint64_t q = (uint64_t)o->heads * o->head_dim, kv = (uint64_t)o->kv_heads * o->head_dim;

    list_norm(l, "attn_norm", o->embd);
    if (a->has_fused_qkv) {
        list_matrix(l, "attn_qkv", o->embd, q + 2 * kv, a->has_qkv_biases);
    } else {
        list_matrix(l, "attn_q", o->embd, q, a->has_qkv_biases);
        list_matrix(l, "attn_k", o->embd, kv, a->has_qkv_biases);
        list_matrix(l, "attn_v", o->embd, kv, a->has_qkv_biases);
    }
    if (a->has_qk_norms) {
        list_norm(l, "attn_q_norm", o->head_dim);
        list_norm(l, "attn_k_norm", o->head_dim);
    }
    if (a->has_sub_norms)
        list_norm(l, "attn_sub_norm", q);
    list_matrix(l, "attn_output", q, o->embd, false);
    if (a->has_post_norms)
        list_norm(l, "post_attention_norm", o->embd);
}

static void list_stacks(const struct lister *l)
{
    const struct options *o = l->o;
    enum weight_type type = o->type->weight;

    add_tensor(l->t, tensor_name(l, "ffn_gate_exps", "weight"), type, o->embd, o->expert_ff, o->experts);
    add_tensor(l->t, tensor_name(l, "ffn_up_exps", "weight"), type, o->embd, o->expert_ff, o->experts);
    add_tensor(l->t, tensor_name(l, "ffn_down_exps", "weight"), type, o->expert_ff, o->embd, o->experts);
}

/* The same matrices one by one: those of an expert lie together. */
static void list_own_experts(const struct lister *l)
{
    const struct options *o = l->o;
    const struct {
        const char *what;
        uint64_t columns, rows;
    } matrices[] = { { "ffn_gate", o->embd, o->expert_ff },
                     { "ffn_up", o->embd, o->expert_ff },
                     { "ffn_down", o->expert_ff, o->embd } };
    uint64_t first_stream = l->t->streams;

    for (uint32_t expert = 0; expert < o->experts; expert++)
        for (uint64_t i = 0; i < 3; i++) {
            char what[32];
            snprintf(what, sizeof what, "%s.%u", matrices[i].what, expert);
            struct tensor *x = add_tensor(l->t, tensor_name(l, what, "weight"), o->type->weight,
                                          matrices[i].columns, matrices[i].rows, 0);
            x->stream = first_stream + i;
            x->part = expert;
            x->n_parts = o->experts;
        }
    l->t->streams = first_stream + 3;
}

static void list_experts(const struct lister *l)
{
    const struct options *o = l->o;

    add_tensor(l->t, tensor_name(l, "ffn_gate_inp", "weight"), WEIGHT_F32, o->embd, o->experts, 0);
    if (o->has_own_experts)
        list_own_experts(l);
    else
        list_stacks(l);
    if (!o->shared_ff)
        return;
    if (o->arch->has_shared)
        add_vector(l->t, tensor_name(l, "ffn_gate_inp_shexp", "weight"), o->embd, 0,
                   sqrtf(3.0f / (float)o->embd));
    list_matrix(l, "ffn_gate_shexp", o->embd, o->shared_ff, false);
    list_matrix(l, "ffn_up_shexp", o->embd, o->shared_ff, false);
    list_matrix(l, "ffn_down_shexp", o->shared_ff, o->embd, false);
}

static void list_ffn(const struct lister *l)
{
    const struct options *o = l->o;

    if (o->arch->ffn == FFN_GATED)
        list_matrix(l, "ffn_gate", o->embd, o->ff, false);
    list_matrix(l, "ffn_up", o->embd, o->arch->ffn == FFN_FUSED ? 2 * (uint64_t)o->ff : o->ff, false);
    if (o->arch->has_sub_norms)
        list_norm(l, "ffn_sub_norm", o->ff);
    list_matrix(l, "ffn_down", o->ff, o->embd, false);
}

static void list_tensors(struct tensors *t, const struct options *o)
{
    struct lister l = { t, o, -1 };

    *t = (struct tensors){ 0 };
    list_matrix(&l, "token_embd", o->embd, o->vocab, false);
    if (o->arch->has_positions)
        add_tensor(t, "position_embd.weight", WEIGHT_F32, o->embd, o->ctx, 0);
    if (o->rope == ROPE_LLAMA3)
        add_vector(t, "rope_freqs.weight", o->rot / 2, 2.5f, 1.4f);
    if (o->rope == ROPE_LONG) {
        add_vector(t, "rope_factors_short.weight", o->rot / 2, 1.2f, 0.15f);
        add_vector(t, "rope_factors_long.weight", o->rot / 2, 5, 3);
    }
    for (l.layer = 0; l.layer < (int)o->layers; l.layer++) {
        list_attention(&l);
        list_norm(&l, "ffn_norm", o->embd);
        if (o->experts)
            list_experts(&l);
        else
            list_ffn(&l);
        if (o->arch->has_post_norms)
            list_norm(&l, "post_ffw_norm", o->embd);
    }
    l.layer = -1;
    list_norm(&l, "output_norm", o->embd);
    if (!o->is_tied)
        list_matrix(&l, "output", o->embd, o->vocab, false);
}

static struct buffer make_header(const struct options *o, const struct tensors *t)
{
    struct metadata m = { 0 };
    struct buffer b = { 0 };
    struct vocab v;

    vocab_make(&v, o->vocab, o->seed);
    add_model(&m, o);
    add_vocab(&m, &v);
    vocab_fini(&v);
    buffer_append(&b, "GGUF", 4);
    put_u32(&b, 3);
    put_u64(&b, t->count);
    put_u64(&b, m.count);
    buffer_append(&b, m.bytes.data, m.bytes.len);
    buffer_fini(&m.bytes);
    for (size_t i = 0; i < t->count; i++) {
        const struct tensor *x = &t->all[i];
        put_string(&b, x->name);
        put_u32(&b, (uint32_t)x->n_dims);
        for (int d = 0; d < x->n_dims; d++)
            put_u64(&b, x->dims[d]);
        put_u32(&b, x->type);
        put_u64(&b, x->offset);
    }
    while (b.len % ALIGNMENT)
        buffer_append(&b, "", 1);
    return b;
}

/* Weights */

/* A tensor is a random sequence of units of its pool. */
struct pool {
    char *bytes;
    size_t unit_bytes;
    uint64_t n_units; /* a power of two */
};

/* Units are blocks, or 32 numbers where blocks are single ones. A few hundred of them have as much variety as
 * a test can see, and even the slowest quantiser makes them in a moment. */
static void pool_init(struct pool *p, const struct tensor *t, uint64_t *random)
{
    enum { SHORT = 32, LONG = 256, MOST_SHORT = 4096, MOST_LONG = 512 };
    const struct weight_info *w = weight_info(t->type);
    int unit = w->block_len > SHORT ? w->block_len : SHORT;
    float x[LONG];

    *p = (struct pool){ .unit_bytes = (size_t)weight_row_bytes(t->type, (uint64_t)unit), .n_units = 1 };
    while (p->n_units < (unit > SHORT ? MOST_LONG : MOST_SHORT) &&
           p->n_units * p->unit_bytes < t->bytes * t->n_parts)
        p->n_units *= 2;
    p->bytes = xmalloc(p->n_units * p->unit_bytes);
    for (uint64_t i = 0; i < p->n_units; i++) {
        for (int k = 0; k < unit; k++)
            x[k] = t->center + t->reach * (float)(int32_t)(next_random(random) >> 32) / 0x1p31f;
        weight_quantiser(t->type)(p->bytes + i * p->unit_bytes, x, unit);
    }
}

static void write_all(int fd, const char *bytes, size_t len, const char *path)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0)
            err(EXIT_FAILURE, "cannot write %s", path);
        bytes += n;
        len -= (size_t)n;
    }
}

static void write_tensor(int fd, const struct options *o, const struct tensor *t, char *chunk)
{
    uint64_t random = o->seed + t->stream * 0xd1342543de82ef95;
    struct pool p;

    next_random(&random);
    pool_init(&p, t, &random);
    const size_t units = CHUNK_BYTES / p.unit_bytes;
    for (uint64_t i = 0; i < t->part * (t->bytes / p.unit_bytes); i++)
        next_random(&random);
    for (uint64_t left = t->bytes; left;) {
        size_t n = left < units * p.unit_bytes ? (size_t)left : units * p.unit_bytes;
        for (size_t at = 0; at < n; at += p.unit_bytes)
            memcpy(chunk + at, p.bytes + next_random(&random) % p.n_units * p.unit_bytes, p.unit_bytes);
        write_all(fd, chunk, n, o->out);
        left -= n;
    }
    write_all(fd, (char[ALIGNMENT]){ 0 }, (size_t)(-t->bytes % ALIGNMENT), o->out);
    free(p.bytes);
}

/* Options */

static void usage(int status)
{
    FILE *f = status ? stderr : stdout;
    fprintf(f, "usage: make_gguf --out FILE [options]\n"
               "  --layers N    8        --embd N      256      --heads N    4\n"
               "  --kv-heads N  heads    --ff N        3 embd   --vocab N    4096\n"
               "  --ctx N       2048     --seed S      1        --tied       no output matrix of its own\n"
               "  --head-dim N  embd / heads           --rot N  head-dim, elements that RoPE turns\n"
               "  --window N    none     --rope R      none, linear, yarn, llama3 or longrope\n"
               "  --experts N   8 where the architecture has them, else none\n"
               "  --experts-used N  2    --expert-ff N  ff      --shared-ff N  ff in qwen2moe, else none\n"
               "  --own-experts          a tensor for each expert, as old files have them\n"
               "  --arch A      llama (the default)");
    for (int i = 1; i < N_ARCHITECTURES; i++)
        fprintf(f, ", %s", architectures[i].name);
    fprintf(f, "\n  --type T      Q8_0 (the default)");
    for (int i = 0; i < N_TYPES; i++)
        if (types[i].weight != WEIGHT_Q8_0)
            fprintf(f, ", %s", types[i].name);
    fprintf(f, "\n");
    exit(status);
}

static uint32_t number(const char *name, const char *text, long long least, long long most)
{
    const char *problem;
    long long v = strtonum(text, least, most, &problem);
    if (problem)
        errx(EXIT_USAGE, "--%s %s: %s (%lld to %lld)", name, text, problem, least, most);
    return (uint32_t)v;
}

static const struct type *parse_type(const char *text)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (!strcmp(types[i].name, text))
            return &types[i];
    errx(EXIT_USAGE, "--type %s: no such type, see --help", text);
}

static const struct architecture *parse_architecture(const char *text)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (!strcmp(architectures[i].name, text))
            return &architectures[i];
    errx(EXIT_USAGE, "--arch %s: no such architecture, see --help", text);
}

static int parse_rope(const char *text)
{
    for (int i = 0; i < N_ROPES; i++)
        if (!strcmp(ropes[i], text))
            return i;
    errx(EXIT_USAGE, "--rope %s: must be none, linear, yarn, llama3 or longrope", text);
}

static void set_default(uint32_t *value, uint32_t otherwise)
{
    if (!*value)
        *value = otherwise;
}

static void check_blocks(const struct options *o, const char *what, uint32_t columns)
{
    uint32_t block_len = (uint32_t)weight_info(o->type->weight)->block_len;
    if (columns % block_len)
        errx(EXIT_USAGE, "%s is %u; it must be a multiple of %s's block of %u", what, columns, o->type->name,
             block_len);
}

static void complete(struct options *o)
{
    const struct architecture *a = o->arch;

    if (!o->out)
        usage(EXIT_USAGE);
    if (!o->head_dim && (o->embd % o->heads || o->embd / o->heads % 2))
        errx(EXIT_USAGE, "--embd %u must be an even multiple of --heads %u", o->embd, o->heads);
    set_default(&o->head_dim, o->embd / o->heads);
    set_default(&o->rot, o->head_dim);
    set_default(&o->kv_heads, o->heads);
    set_default(&o->ff, 3 * o->embd);
    if (a->has_experts)
        set_default(&o->experts, 8);
    if (o->experts) {
        set_default(&o->experts_used, o->experts < 2 ? o->experts : 2);
        set_default(&o->expert_ff, o->ff);
        if (a->has_shared)
            set_default(&o->shared_ff, o->ff);
    }
    if (o->rope < 0)
        o->rope = a->has_long_rope ? ROPE_LONG : ROPE_PLAIN;
    o->is_tied = o->is_tied || a->is_tied;
    if (o->heads % o->kv_heads)
        errx(EXIT_USAGE, "--heads %u must be a multiple of --kv-heads %u", o->heads, o->kv_heads);
    if (o->rot % 2 || o->rot > o->head_dim)
        errx(EXIT_USAGE, "--rot %u must be even and at most the %u of a head", o->rot, o->head_dim);
    if (o->experts_used > o->experts)
        errx(EXIT_USAGE, "--experts-used %u is more than --experts %u", o->experts_used, o->experts);
    check_blocks(o, "--embd", o->embd);
    check_blocks(o, "--heads times --head-dim", o->heads * o->head_dim);
    check_blocks(o, "--ff", o->ff);
    check_blocks(o, "--expert-ff", o->expert_ff);
    check_blocks(o, "--shared-ff", o->shared_ff);
    if (o->has_own_experts && (uint64_t)o->embd * o->expert_ff % 32)
        errx(EXIT_USAGE, "--own-experts: --embd times --expert-ff must be a multiple of 32");
}

enum { MOST = 1 << 24 };

/* Options that are one number. */
static const struct number_option {
    const char *name;
    size_t offset; /* in struct options */
    long long least, most;
} number_options[] = {
#define NUMBER(name, field, least, most)                                                                     \
    {                                                                                                        \
        name, offsetof(struct options, field), least, most                                                   \
    }
    NUMBER("layers", layers, 1, 9999),
    NUMBER("embd", embd, 2, MOST),
    NUMBER("heads", heads, 1, MOST),
    NUMBER("kv-heads", kv_heads, 1, MOST),
    NUMBER("ff", ff, 1, MOST),
    NUMBER("vocab", vocab, FIRST_NORMAL + 32, MOST),
    NUMBER("ctx", ctx, 1, 1 << 30),
    NUMBER("head-dim", head_dim, 2, 4096),
    NUMBER("rot", rot, 2, 4096),
    NUMBER("window", window, 1, 1 << 30),
    NUMBER("experts", experts, 1, 1024),
    NUMBER("experts-used", experts_used, 1, 1024),
    NUMBER("expert-ff", expert_ff, 1, MOST),
    NUMBER("shared-ff", shared_ff, 1, MOST),
};
enum { N_NUMBERS = sizeof number_options / sizeof *number_options };

static struct options parse_options(int argc, char **argv)
{
    struct option long_options[N_NUMBERS + 9] = {
        { "out", required_argument, NULL, 'o' },  { "type", required_argument, NULL, 't' },
        { "arch", required_argument, NULL, 'a' }, { "rope", required_argument, NULL, 'r' },
        { "seed", required_argument, NULL, 's' }, { "tied", no_argument, NULL, 'T' },
        { "help", no_argument, NULL, 'H' },       { "own-experts", no_argument, NULL, 'E' },
    };
    enum { FIRST_NUMBER = 8, NUMBERS = 256 };
    struct options o = { .layers = 8, .embd = 256, .heads = 4, .vocab = 4096, .ctx = 2048, .seed = 1 };

    for (int i = 0; i < N_NUMBERS; i++)
        long_options[FIRST_NUMBER + i] =
            (struct option){ number_options[i].name, required_argument, NULL, NUMBERS + i };
    o.type = parse_type("Q8_0");
    o.arch = parse_architecture("llama");
    o.rope = -1;
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (c >= NUMBERS) {
            const struct number_option *n = &number_options[c - NUMBERS];
            *(uint32_t *)((char *)&o + n->offset) = number(n->name, optarg, n->least, n->most);
            continue;
        }
        switch (c) {
        case 'o':
            o.out = optarg;
            break;
        case 't':
            o.type = parse_type(optarg);
            break;
        case 'a':
            o.arch = parse_architecture(optarg);
            break;
        case 'r':
            o.rope = parse_rope(optarg);
            break;
        case 's':
            o.seed = number("seed", optarg, 0, UINT32_MAX);
            break;
        case 'T':
            o.is_tied = true;
            break;
        case 'E':
            o.has_own_experts = true;
            break;
        case 'H':
            usage(EXIT_SUCCESS);
            break;
        default:
            usage(EXIT_USAGE);
        }
    }
    if (optind < argc)
        usage(EXIT_USAGE);
    complete(&o);
    return o;
}

int main(int argc, char **argv)
{
    struct options o = parse_options(argc, argv);
    struct tensors t;

    list_tensors(&t, &o);
    struct buffer header = make_header(&o, &t);
    int fd = open(o.out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        err(EXIT_FAILURE, "cannot create %s", o.out);
    write_all(fd, header.data, header.len, o.out);
    char *chunk = xmalloc(CHUNK_BYTES);
    for (size_t i = 0; i < t.count; i++)
        write_tensor(fd, &o, &t.all[i], chunk);
    if (close(fd))
        err(EXIT_FAILURE, "cannot write %s", o.out);
    free(chunk);
    free(t.all);
    buffer_fini(&header);
    return EXIT_SUCCESS;
}
