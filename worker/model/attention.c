/* The stages of the attention block. */
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
        first -= whole_groups(n);
        last -= whole_groups(n);
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

void turn_and_store(struct engine *e, int first, int last)
{
    const struct model_facts *f = &e->model->facts;
    for (int r = first; r < last; r++) {
        const struct row *row = &e->rows[r];
        size_t page = (size_t)kv_cache_table(&e->cache, row->slot)[row->pos / KV_BLOCK];
        for (int h = 0; h < f->n_heads; h++)
            turn_head(e, r, &e->layer->q_norm, row_of(&e->q, r) + h * f->head_dim);
        for (int h = 0; h < f->n_kv_heads; h++) {
            float *k = row_of(&e->k, r) + h * f->head_dim;
            char *blocks = kv_cache_blocks(&e->cache, e->layer_index, h);
            turn_head(e, r, &e->layer->k_norm, k);
            kv_store(&e->kernels, &e->cache.layout, blocks + page * e->cache.page_bytes, row->pos % KV_BLOCK,
                     k, row_of(&e->v, r) + h * f->head_dim);
        }
    }
}

void prepare_attended(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    const struct matrix *const users[] = { &l->attention_out };
    merge_cut_units(e, first, last);
    for (int r = first; r < last; r++) {
        float *attended = row_of(&e->attended, r);
        if (l->attention_sub_norm.weight)
            normalise(e, &l->attention_sub_norm, attended, attended, l->attention_out.n_in);
        prepare_row(e, r, users, 1);
    }
}
