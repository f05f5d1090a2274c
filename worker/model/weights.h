/* Inside of the model folder: the weights of a model as the forward pass wants them, pointers into the map.
 * What a file does not have is NULL. */
#ifndef WOOLLY_MODEL_WEIGHTS_H
#define WOOLLY_MODEL_WEIGHTS_H

#include "worker/model/architectures.h"
#include "worker/model/model.h"

/* [n_out] rows of [n_in]; the product is times *scale and plus bias. */
struct matrix {
    enum weight_type type;
    int n_in, n_out;
    const void *data;   /* rows as in the file */
    const void *packed; /* as products read them; NULL for those only looked up */
    const float *scale; /* [1], or NULL */
    const float *bias;  /* [n_out], or NULL */
};

struct norm {
    const float *weight; /* NULL: no norm here */
    const float *bias;   /* of a LayerNorm */
};

/* A feed-forward block of n_ff = up.n_out. */
struct ffn {
    struct matrix gate, up; /* n_embd -> n_ff; no gate where the architecture has none */
    struct matrix down;     /* n_ff -> n_embd */
};

struct layer {
    struct norm attention_norm;     /* [n_embd] */
    struct matrix q;                /* n_embd -> n_heads * head_dim */
    struct matrix k, v;             /* n_embd -> n_kv_heads * head_dim */
    struct norm q_norm, k_norm;     /* [head_dim] */
    struct norm attention_sub_norm; /* [n_heads * head_dim] */
    struct matrix attention_out;    /* n_heads * head_dim -> n_embd */
    struct norm attention_post_norm;
    struct norm ffn_norm;     /* [n_embd] */
    struct ffn ffn;           /* without experts */
    struct norm ffn_sub_norm; /* [n_ff] */
    struct norm ffn_post_norm;

    struct ffn *experts;       /* [n_experts], or NULL. All have one shape, but each may lie anywhere in the
                                  file and be of types of its own. */
    struct matrix router;      /* n_embd -> n_experts */
    struct ffn shared;         /* a block every row goes through; shared.up.data is NULL for none */
    struct matrix shared_gate; /* n_embd -> 1; data is NULL: the shared block counts in full */
    int window;                /* positions a row sees, itself included; INT32_MAX for all */
};

/* One map, read-only once filled or of a file, for the packed form of every matrix that products read. */
struct packed_map {
    char *map;
    uint64_t map_bytes;
};

struct model {
    struct packed_map packed;
    struct pack_cache *unwritten; /* where what was packed is to be kept; NULL for none */
    struct gguf *gguf;
    const struct architecture *architecture;
    struct model_facts facts;
    struct matrix embedding; /* [n_vocab] rows of [n_embd] */
    struct matrix positions; /* [n_ctx_train] rows of [n_embd], of architectures without RoPE */
    struct layer *layers;    /* [n_layers] */
    struct norm output_norm; /* [n_embd] */
    struct matrix output;    /* n_embd -> n_vocab; the embedding again when the file ties them */

    /* [n_rot / 2], each divides a frequency; NULL for none. Those for long contexts replace the others in an
     * engine whose slots are longer than rope.original_context. */
    const float *rope_factors, *rope_factors_long;
};

#endif
