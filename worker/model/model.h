/* A model: facts and weights, read from a GGUF file, checked, read-only, shared by every process forked after
 * model_open. Nothing here knows of threads, caches or requests; engine.h computes with it. */
#ifndef WOOLLY_MODEL_MODEL_H
#define WOOLLY_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "worker/model/gguf.h"

enum rope_scaling { ROPE_UNSCALED, ROPE_LINEAR, ROPE_YARN };

struct rope_facts {
    int n_rot; /* leading elements of a head that RoPE turns; 0 without RoPE */
    double base;
    enum rope_scaling scaling;
    double factor;        /* how much longer the context is than the one first trained; 1 unscaled */
    int original_context; /* the one first trained */
    double gain;          /* of cosines and sines */
    double yarn_extrapolation, yarn_beta_fast, yarn_beta_slow;
};

/* Of a mixture of experts; 0 without. */
struct expert_facts {
    int n, n_used;         /* how many there are, and how many a row goes through */
    int n_ff, n_ff_shared; /* width of each, and of the block every row goes through */
};

struct model_facts {
    char architecture[32]; /* a name of the table in architectures.c */
    uint64_t n_params;
    uint64_t weight_bytes; /* of all tensors, as in the file */
    int n_layers;
    int n_embd;
    int n_ff;
    int n_heads;
    int n_kv_heads;
    int head_dim; /* of q and k */
    int n_vocab;
    int n_ctx_train;
    int n_positions; /* learned ones, beyond which no context goes; 0 where positions are computed */
    int window;      /* positions seen in layers with a sliding window; 0: all */
    float norm_eps;
    struct rope_facts rope;
    struct expert_facts experts;
    float attention_scale;                 /* of scores */
    float attention_cap, logit_cap;        /* soft caps; 0 for none */
    float embedding_scale, residual_scale; /* the latter of what a block adds */
    float logit_scale;                     /* logits are divided by it */
};

struct model;

/* Called by the thread that opens a model, before the first and after every part of a long step: done goes
 * from 0 to total bytes. */
typedef void model_progress(void *context, const char *step, uint64_t done, uint64_t total);

struct model_options {
    const char *cache_folder; /* where packed weights are kept for the next start; NULL: nowhere */
    model_progress *progress; /* NULL: nobody wants to know */
    void *context;            /* of progress */
};

/* Maps and checks the file, and packs its weights with all cores, or maps what an earlier start has kept of
 * them. On failure *out is NULL and err holds one line. A cache that cannot be used is no failure: the log
 * says so. */
MUST_CHECK enum status model_open_with(struct model **out, const char *path,
                                       const struct model_options *options, struct error *err);

/* True where there is a folder for packed weights and it did not have those of this model. */
bool model_wants_cache(const struct model *m);

/* Then this writes them there, with one thread, in the time that the disk takes, or, if it is told to stop
 * meanwhile, not; else it does nothing. The process may be a fork of the one that opened the model: nothing
 * of the model changes. What goes wrong is logged. */
void model_write_cache(const struct model *m, const struct model_options *options,
                       bool (*is_told_to_stop)(void));

/* The same without a cache and in silence. */
MUST_CHECK enum status model_open(struct model **out, const char *path, struct error *err);
void model_close(struct model *m);

const struct model_facts *model_facts(const struct model *m);
const struct gguf *model_gguf(const struct model *m);

/* Tells models apart: a checksum of all metadata, of every tensor's name, type and shape, and of the first of
 * its bytes. */
uint64_t model_fingerprint(const struct model *m);

#endif
