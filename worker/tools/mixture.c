/* The rules are those by which the mixtures of these names are commonly made, so that a file named Q4_K_M has
 * the size and quality people expect of one. */
#include "worker/tools/mixture.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { FILE_TYPE_MXFP4 = 38 };

static const struct mixture mixtures[] = {
    { "F32", WEIGHT_F32, 0 },
    { "F16", WEIGHT_F16, 1 },
    { "BF16", WEIGHT_BF16, 32 },
    { "Q8_0", WEIGHT_Q8_0, 7 },
    { "Q4_0", WEIGHT_Q4_0, 2 },
    { "Q4_1", WEIGHT_Q4_1, 3 },
    { "Q5_0", WEIGHT_Q5_0, 8 },
    { "Q5_1", WEIGHT_Q5_1, 9 },
    { "Q2_K", WEIGHT_Q2_K, 10 },
    { "Q2_K_S", WEIGHT_Q2_K, 21 },
    { "Q3_K_S", WEIGHT_Q3_K, 11 },
    { "Q3_K_M", WEIGHT_Q3_K, 12 },
    { "Q3_K_L", WEIGHT_Q3_K, 13 },
    { "Q4_K_S", WEIGHT_Q4_K, 14 },
    { "Q4_K_M", WEIGHT_Q4_K, 15 },
    { "Q5_K_S", WEIGHT_Q5_K, 16 },
    { "Q5_K_M", WEIGHT_Q5_K, 17 },
    { "Q6_K", WEIGHT_Q6_K, 18 },
    { "Q8_K", WEIGHT_Q8_K, NO_FILE_TYPE },
    { "IQ4_NL", WEIGHT_IQ4_NL, 25 },
    { "IQ4_XS", WEIGHT_IQ4_XS, 30 },
    { "TQ1_0", WEIGHT_TQ1_0, 36 },
    { "TQ2_0", WEIGHT_TQ2_0, 37 },
    { "MXFP4", WEIGHT_MXFP4, FILE_TYPE_MXFP4 },
};
enum { N_MIXTURES = sizeof mixtures / sizeof *mixtures };

const struct mixture *mixture_find(const char *name)
{
    char full[16];
    bool is_short = !strcasecmp(name, "Q3_K") || !strcasecmp(name, "Q4_K") || !strcasecmp(name, "Q5_K");
    snprintf(full, sizeof full, "%s%s", name, is_short ? "_M" : "");
    for (int i = 0; i < N_MIXTURES && strlen(name) < 8; i++)
        if (!strcasecmp(full, mixtures[i].name))
            return &mixtures[i];
    return NULL;
}

const char *mixture_names(void)
{
    return "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S "
           "Q5_K_M Q6_K Q8_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4";
}

/* ARCHITECTURE.field, or `missing`. Of a field that has a value per layer the first counts. */
static uint64_t read_fact(const struct gguf *g, const char *field, uint64_t missing)
{
    struct gguf_string architecture;
    char key[128];
    if (gguf_get_string(g, "general.architecture", &architecture, NULL) != OK)
        return missing;
    snprintf(key, sizeof key, "%.*s.%s", (int)(architecture.len < 64 ? architecture.len : 64),
             architecture.text, field);
    const struct gguf_value *v = gguf_find(g, key);
    if (v && v->kind == GGUF_ARRAY && v->element != GGUF_STRING && v->element != GGUF_ARRAY && v->count)
        return (uint64_t)gguf_array_int(v, 0);
    uint64_t value;
    return gguf_get_u64(g, key, &value, NULL) == OK ? value : missing;
}

void mixture_read_model(struct mixture_model *m, const struct gguf *g)
{
    m->n_layers = read_fact(g, "block_count", 0);
    m->n_heads = read_fact(g, "attention.head_count", 1);
    m->n_kv_heads = read_fact(g, "attention.head_count_kv", m->n_heads);
    m->n_experts = read_fact(g, "expert_count", 0);
    m->has_output = gguf_find_tensor(g, "output.weight") != NULL;
}

static bool contains(struct gguf_string s, const char *part)
{
    return memmem(s.text, s.len, part, strlen(part)) != NULL;
}

/* i of "blk.i." */
static uint64_t layer_of(struct gguf_string name)
{
    uint64_t layer = 0;
    for (uint64_t i = 4; i < name.len && name.text[i] >= '0' && name.text[i] <= '9' && layer < 100000; i++)
        layer = 10 * layer + (uint64_t)(name.text[i] - '0');
    return layer;
}

/* The first and last eighth of the layers and every third between. */
static bool is_sensitive(uint64_t layer, uint64_t n)
{
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static bool is(const struct mixture *x, const char *name)
{
    return !strcmp(x->name, name);
}

static bool is_iq4(const struct mixture *x)
{
    return x->type == WEIGHT_IQ4_NL || x->type == WEIGHT_IQ4_XS;
}

static enum weight_type choose_value(const struct mixture *x, const struct mixture_model *m, uint64_t layer)
{
    bool is_grouped = m->n_kv_heads && m->n_heads / m->n_kv_heads >= 4; /* V is small and used often */
    if (m->n_experts == 8)
        return WEIGHT_Q8_0;
    if (is(x, "Q2_K"))
        return is_grouped ? WEIGHT_Q4_K : WEIGHT_Q3_K;
    if (is(x, "Q2_K_S") && is_grouped)
        return WEIGHT_Q4_K;
    if (is(x, "Q3_K_M"))
        return layer < 2 ? WEIGHT_Q5_K : WEIGHT_Q4_K;
    if (is(x, "Q3_K_L") || (is_iq4(x) && is_grouped) || (is(x, "Q4_K_S") && layer < 4))
        return WEIGHT_Q5_K;
    if ((is(x, "Q4_K_M") || is(x, "Q5_K_M")) && is_sensitive(layer, m->n_layers))
        return WEIGHT_Q6_K;
    return x->type;
}

static enum weight_type choose_down(const struct mixture *x, const struct mixture_model *m, uint64_t layer)
{
    bool is_early = layer < m->n_layers / 8;
    if (is(x, "Q2_K"))
        return WEIGHT_Q3_K;
    if (is(x, "Q2_K_S") && is_early)
        return WEIGHT_Q4_K;
    if (is(x, "Q3_K_M"))
        return layer < m->n_layers / 16 ? WEIGHT_Q5_K : WEIGHT_Q4_K;
    if (is(x, "Q3_K_L") || ((is(x, "Q4_K_S") || is_iq4(x)) && is_early))
        return WEIGHT_Q5_K;
    if ((is(x, "Q4_K_M") || is(x, "Q5_K_M")) && is_sensitive(layer, m->n_layers))
        return WEIGHT_Q6_K;
    return x->type;
}

static enum weight_type choose_attention_output(const struct mixture *x, const struct mixture_model *m)
{
    if (m->n_experts == 8 &&
        (x->type == WEIGHT_Q2_K || x->type == WEIGHT_Q3_K || x->type == WEIGHT_Q4_K || is_iq4(x)))
        return WEIGHT_Q5_K;
    if (is(x, "Q2_K"))
        return WEIGHT_Q3_K;
    if (is(x, "Q3_K_M"))
        return WEIGHT_Q4_K;
    return is(x, "Q3_K_L") ? WEIGHT_Q5_K : x->type;
}

static enum weight_type choose_fused(const struct mixture *x)
{
    if (is(x, "Q3_K_M") || is(x, "Q3_K_L"))
        return WEIGHT_Q4_K;
    if (is(x, "Q4_K_M"))
        return WEIGHT_Q5_K;
    return is(x, "Q5_K_M") ? WEIGHT_Q6_K : x->type;
}

static enum weight_type choose_output(const struct mixture *x)
{
    if (x->type == WEIGHT_Q8_0 || x->type == WEIGHT_Q8_K)
        return x->type;
    return x->type == WEIGHT_MXFP4 ? WEIGHT_Q8_0 : WEIGHT_Q6_K;
}

static bool is_float(enum weight_type type)
{
    return type == WEIGHT_F32 || type == WEIGHT_F16 || type == WEIGHT_BF16;
}

static enum weight_type choose_matrix(const struct mixture *x, const struct mixture_model *m,
                                      const struct gguf_tensor *t)
{
    uint64_t layer = layer_of(t->name);
    if (is_float(x->type))
        return x->type;
    if (gguf_string_is(t->name, "output.weight"))
        return choose_output(x);
    if (gguf_string_is(t->name, "token_embd.weight")) {
        if (!m->has_output)
            return choose_output(x);
        return x->type == WEIGHT_TQ1_0 || x->type == WEIGHT_TQ2_0 ? WEIGHT_Q4_K : x->type;
    }
    if (contains(t->name, "attn_v.weight"))
        return choose_value(x, m, layer);
    if (contains(t->name, "attn_k.weight"))
        return m->n_experts == 8 ? WEIGHT_Q8_0 : x->type;
    if (contains(t->name, "ffn_down"))
        return choose_down(x, m, layer);
    if (contains(t->name, "attn_output.weight"))
        return choose_attention_output(x, m);
    return contains(t->name, "attn_qkv.weight") ? choose_fused(x) : x->type;
}

/* The nearest type whose blocks fit a row: of 32, or none. */
static enum weight_type fit_row(enum weight_type type, uint64_t row)
{
    if (row % (uint64_t)weight_info(type)->block_len == 0)
        return type;
    if (row % 32)
        return WEIGHT_F16;
    switch (type) {
    case WEIGHT_TQ1_0:
    case WEIGHT_TQ2_0:
        return WEIGHT_Q4_0;
    case WEIGHT_Q4_K:
        return WEIGHT_Q5_0;
    case WEIGHT_Q5_K:
        return WEIGHT_Q5_1;
    case WEIGHT_Q6_K:
    case WEIGHT_Q8_K:
        return WEIGHT_Q8_0;
    default: /* Q2_K, Q3_K, IQ4_XS */
        return WEIGHT_IQ4_NL;
    }
}

/* Whole numbers, positions, and the router of experts are few and matter much. */
static bool stays(const struct gguf_tensor *t)
{
    bool is_weight = t->name.len > 6 && !memcmp(t->name.text + t->name.len - 6, "weight", 6);
    return !is_weight || (t->type >= WEIGHT_I8 && t->type <= WEIGHT_F64) || contains(t->name, "_norm") ||
           contains(t->name, "ffn_gate_inp") || contains(t->name, "position_embd") ||
           contains(t->name, "token_types");
}

enum weight_type mixture_choose(const struct mixture *x, const struct mixture_model *m,
                                const struct gguf_tensor *t, enum weight_type *wanted)
{
    if (t->n_dims == 1 && (t->type == WEIGHT_F16 || t->type == WEIGHT_BF16))
        return *wanted = WEIGHT_F32;
    if (t->n_dims == 1 || stays(t))
        return *wanted = t->type;
    *wanted = choose_matrix(x, m, t);
    return fit_row(*wanted, t->dims[0]);
}
