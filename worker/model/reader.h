/* Inside of the model folder: what reading a model needs while model_open runs. facts.c reads the metadata,
 * weights.c the tensors; each returns the first thing that is wrong, by name. */
#ifndef WOOLLY_MODEL_READER_H
#define WOOLLY_MODEL_READER_H

#include "worker/model/weights.h"

/* Bounds on facts: far above any model, low enough that products of two of them fit an int and that a
 * nonsensical file is refused before it asks for memory. */
enum {
    MAX_LAYERS = 1024,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_EXPERTS = 1024,
    MAX_WIDTH = 1 << 20, /* n_embd, n_ff */
    MAX_VOCAB = 1 << 24,
    MAX_CONTEXT = 1 << 28,
};

struct reader {
    struct model *m;
    const char *path;
    const struct model_options *options;
    struct error *err;
    bool *is_used; /* [tensors of the file] */
};

/* Fills r->m->architecture and r->m->facts, but for what the tensors tell: n_vocab, n_params, weight_bytes,
 * and widths of experts the file gives no key for. */
MUST_CHECK enum status read_facts(struct reader *r);

/* Fills the rest of r->m and checks every tensor against the facts. */
MUST_CHECK enum status find_tensors(struct reader *r);

/* Packs every matrix that products read, or maps what was packed before. Uses all cores, for as long as it
 * takes. */
MUST_CHECK enum status pack_weights(struct reader *r);
void free_packed(struct packed_map *p);

static inline void model_progress_report(const struct model_options *o, const char *step, uint64_t done,
                                         uint64_t total)
{
    if (o->progress)
        o->progress(o->context, step, done, total);
}

#endif
