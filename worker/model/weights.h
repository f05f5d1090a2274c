/* Inside of the model folder: the weights of a model as the forward pass wants them, pointers into the map.
 */
#ifndef WOOLLY_MODEL_WEIGHTS_H
#define WOOLLY_MODEL_WEIGHTS_H

#include "worker/model/model.h"

/* [n_out] rows of [n_in] */
struct matrix {
    enum weight_type type;
    int n_in, n_out;
    const void *data;
};

struct layer {
    const float *attention_norm; /* [n_embd] */
    struct matrix q;             /* n_embd -> n_heads * head_dim */
    struct matrix k, v;          /* n_embd -> n_kv_heads * head_dim */
    struct matrix attention_out; /* n_heads * head_dim -> n_embd */
    const float *ffn_norm;       /* [n_embd] */
    struct matrix gate, up;      /* n_embd -> n_ff */
    struct matrix down;          /* n_ff -> n_embd */
};

struct model {
    struct gguf *gguf;
    struct model_facts facts;
    struct matrix embedding;   /* [n_vocab] rows of [n_embd] */
    struct layer *layers;      /* [n_layers] */
    const float *output_norm;  /* [n_embd] */
    struct matrix output;      /* n_embd -> n_vocab; the embedding again when the file ties them */
    const float *rope_factors; /* [n_rot / 2], each divides a frequency; NULL for none */
};

#endif
