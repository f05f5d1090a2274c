#include "worker/model/architectures.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
static const struct architecture table[] = {
    { .name = "llama" }, /* also Mistral and Mixtral */
    { .name = "granite", .has_scales = true },
    { .name = "granitemoe", .has_scales = true, .needs_experts = true },
    { .name = "qwen2", .rope = ROPE_HALVES, .needs_qkv_biases = true },
    { .name = "qwen2moe", .rope = ROPE_HALVES, .needs_qkv_biases = true, .needs_experts = true,
      .keeps_expert_weights = true },
    { .name = "qwen3", .rope = ROPE_HALVES, .has_qk_norms = true },
    { .name = "qwen3moe", .rope = ROPE_HALVES, .has_qk_norms = true, .needs_experts = true },
    { .name = "gemma", .rope = ROPE_HALVES, .ffn = FFN_GELU_GATED, .has_sqrt_embedding = true },
    { .name = "gemma2", .rope = ROPE_HALVES, .ffn = FFN_GELU_GATED, .has_sqrt_embedding = true,
      .has_post_norms = true, .has_narrow_query_46 = true, .window = 4096, .window_period = 2,
      .attention_cap = 50, .logit_cap = 30 },
    { .name = "phi3", .rope = ROPE_HALVES }, /* its window is in every layer, as in the models' own code */
    { .name = "gpt2", .rope = ROPE_NONE, .norm = NORM_LAYER, .ffn = FFN_GELU, .needs_all_biases = true },
    { .name = "bitnet", .rope = ROPE_HALVES, .has_sub_norms = true },
};
/* clang-format on */
enum { N_ARCHITECTURES = sizeof table / sizeof *table };

const struct architecture *architecture_find(const char *name)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (!strcmp(table[i].name, name))
            return &table[i];
    return NULL;
}

const char *architecture_list(char *out, size_t size)
{
    size_t len = 0;
    for (size_t i = 0; i < N_ARCHITECTURES && len < size; i++)
        len += (size_t)snprintf(out + len, size - len, "%s%s", i ? ", " : "", table[i].name);
    return out;
}
