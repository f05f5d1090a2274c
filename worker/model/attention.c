/* The stages of the attention block. */
#include <string.h>

#include "worker/model/stages.h"

void normalise_for_attention(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    const struct matrix *const users[] = { &l->q, &l->k, &l->v };
    for (int r = first; r < last; r++) {
        normalise(e, &l->attention_norm, row_of(&e->h, r), row_of(&e->x, r), e->model->facts.n_embd);
        prepare_row(e, r, users, 3);
    }
}

void project_q_k_v(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    const struct matrix *const matrices[] = { &l->q, &l->k, &l->v };
    const struct row_buffer *const outs[] = { &e->q, &e->k, &e->v };
    for (int i = 0; i < 3; i++) {
        int n = matrices[i]->n_out, from = first > 0 ? first : 0, to = last < n ? last : n;
        if (from < to)
            multiply(e, matrices[i], outs[i], from, to);
        first -= n;
        last -= n;
    }
}

/* A head of q or k, normalised if it has a norm and turned by the position of its row. */
static void turn_head(struct engine *e, int row, const struct norm *norm, float *head)
{
    const struct model_facts *f = &e->model->facts;
    const float *cosines = row_of(&e->cosines, row), *sines = row_of(&e->sines, row);
    if (norm->weight)
        normalise(e, norm, head, head, f->head_dim);
    switch (e->model->architecture->rope) {
    case ROPE_NEIGHBOURS:
        e->kernels.rope(head, cosines, sines, f->rope.n_rot / 2);
        break;
    case ROPE_HALVES:
        e->kernels.rope_halves(head, cosines, sines, f->rope.n_rot / 2);
        break;
    case ROPE_NONE:
        break;
    }
}

static void store_position(struct engine *e, void *head, const float *x, int pos)
{
    size_t dim = (size_t)e->model->facts.head_dim, at = (size_t)pos * dim;
    if (e->cache.type == KV_F16)
        e->kernels.store_f16((uint16_t *)head + at, x, (int)dim);
    else
        memcpy((float *)head + at, x, dim * sizeof *x);
}

void turn_and_store(struct engine *e, int first, int last)
{
    const struct model_facts *f = &e->model->facts;
    for (int r = first; r < last; r++) {
        const struct row *row = &e->rows[r];
        for (int h = 0; h < f->n_heads; h++)
            turn_head(e, r, &e->layer->q_norm, row_of(&e->q, r) + h * f->head_dim);
        for (int h = 0; h < f->n_kv_heads; h++) {
            float *k = row_of(&e->k, r) + h * f->head_dim, *v = row_of(&e->v, r) + h * f->head_dim;
            turn_head(e, r, &e->layer->k_norm, k);
            store_position(e, kv_cache_keys(&e->cache, e->layer_index, row->slot, h), k, row->pos);
            store_position(e, kv_cache_values(&e->cache, e->layer_index, row->slot, h), v, row->pos);
        }
    }
}

/* The query heads of a row that share a KV head. */
static void attend_group(struct engine *e, int row, int kv_head)
{
    const struct model_facts *f = &e->model->facts;
    int n_group = f->n_heads / f->n_kv_heads, at = kv_head * n_group * f->head_dim;
    int n_pos = e->rows[row].pos + 1;
    struct attention a = {
        .n_group = n_group,
        .first_pos = n_pos > e->layer->window ? n_pos - e->layer->window : 0,
        .n_pos = n_pos,
        .head_dim = f->head_dim,
        .scale = f->attention_scale,
        .soft_cap = f->attention_cap,
        .q = row_of(&e->q, row) + at,
        .k = kv_cache_keys(&e->cache, e->layer_index, e->rows[row].slot, kv_head),
        .v = kv_cache_values(&e->cache, e->layer_index, e->rows[row].slot, kv_head),
        .out = row_of(&e->attended, row) + at,
    };
    if (e->cache.type == KV_F16)
        e->kernels.attend_f16(&a);
    else
        e->kernels.attend_f32(&a);
}

/* Dealt out in turn and not in runs: later rows of a prompt see more positions and take longer. */
void attend(void *arg, int thread, int n_threads)
{
    struct engine *e = arg;
    int64_t n = (int64_t)e->n_rows * e->model->facts.n_kv_heads;
    for (int64_t i = thread; i < n; i += n_threads)
        attend_group(e, (int)(i % e->n_rows), (int)(i / e->n_rows));
}

void prepare_attended(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    const struct matrix *const users[] = { &l->attention_out };
    for (int r = first; r < last; r++) {
        float *attended = row_of(&e->attended, r);
        if (l->attention_sub_norm.weight)
            normalise(e, &l->attention_sub_norm, attended, attended, l->attention_out.n_in);
        prepare_row(e, r, users, 1);
    }
}
