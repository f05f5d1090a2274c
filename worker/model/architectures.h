/* The architectures we know, as a table of facts: how each differs from the common decoder. A new one is a
 * row here; where its mathematics are new it is also a branch in the stage concerned, on a field of its row.
 *
 * What a file can say by itself is not in the table: grouped heads, tied output, biases of products,
 * frequency factors, fused tensors, rope scaling, experts and a window work in every architecture whose file
 * has them. */
#ifndef WOOLLY_MODEL_ARCHITECTURES_H
#define WOOLLY_MODEL_ARCHITECTURES_H

#include <stdbool.h>
#include <stddef.h>

enum rope_pairs {
    ROPE_NEIGHBOURS, /* (x[2i], x[2i + 1]) */
    ROPE_HALVES,     /* (x[i], x[i + n_rot / 2]) */
    ROPE_NONE,       /* positions are learned: a row of position_embd is added to the token's */
};

enum norm_kind { NORM_RMS, NORM_LAYER };

enum ffn_kind {
    FFN_SILU_GATED, /* silu(gate) * up */
    FFN_GELU_GATED, /* gelu(gate) * up */
    FFN_GELU,       /* gelu(up) */
};

struct architecture {
    const char *name; /* general.architecture, and the prefix of the keys */
    enum rope_pairs rope;
    enum norm_kind norm;
    enum ffn_kind ffn;
    bool needs_qkv_biases;     /* elsewhere they are used where the file has them */
    bool needs_all_biases;     /* of every product in a layer */
    bool needs_experts;        /* elsewhere they are used where the file has them */
    bool keeps_expert_weights; /* the chosen experts' weights need not sum to 1 */
    bool has_qk_norms;         /* RMS norm of every head of q and k before RoPE */
    bool has_sub_norms;        /* RMS norm before the last product of either block */
    bool has_post_norms;       /* RMS norm of what either block adds */
    bool has_scales;           /* of embedding, residual and logits, from keys */
    bool has_sqrt_embedding;   /* the embedding times sqrt(n_embd) */
    bool has_narrow_query_46;  /* with 46 layers q is scaled by the width per head: see read_attention */
    int window;                /* where the file has no key for it; 0: all positions */
    int window_period;    /* of so many layers the last sees all positions; 0: every layer has the window */
    double attention_cap; /* where the file has no key for it; 0: it may not have one */
    double logit_cap;     /* the same */
};

/* NULL when there is none of that name. */
const struct architecture *architecture_find(const char *name);

/* "llama, granite, ..." */
const char *architecture_list(char *out, size_t size);

#endif
