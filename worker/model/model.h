/* A model: facts and weights, read from a GGUF file, checked, read-only, shared by every process forked after
 * model_open. Nothing here knows of threads, caches or requests; engine.h computes with it. */
#ifndef WOOLLY_MODEL_MODEL_H
#define WOOLLY_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/model/gguf.h"

struct model_facts {
    char architecture[32]; /* "llama" */
    uint64_t n_params;
    uint64_t weight_bytes; /* of all tensors, as in the file */
    int n_layers;
    int n_embd;
    int n_ff;
    int n_heads;
    int n_kv_heads;
    int head_dim; /* of q and k */
    int n_rot;    /* leading elements of a head that RoPE turns */
    int n_vocab;
    int n_ctx_train;
    float norm_eps;
    double rope_base;
    double rope_scale; /* positions are multiplied by this: 1, or 1/factor for linear scaling */
};

struct model;

/* Maps and checks the file. On failure *out is NULL and err holds one line. */
MUST_CHECK enum status model_open(struct model **out, const char *path, struct error *err);
void model_close(struct model *m);

const struct model_facts *model_facts(const struct model *m);
const struct gguf *model_gguf(const struct model *m);

#endif
