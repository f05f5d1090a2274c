/* The forward pass, in model order. Read forward() at the end first; what the stages of its blocks do is in
 * attention.c, ffn.c and experts.c. Where architectures differ a stage asks the table of facts, or whether a
 * layer has the weights in question. */
#include <math.h>

#include "worker/model/stages.h"

/* x = embedding of the token, and of its position where those are learned; cosines and sines of its position
 * where they are not */
static void embed(struct engine *e, int first, int last)
{
    const struct model *m = e->model;
    const struct model_facts *f = &m->facts;
    uint64_t row_bytes = weight_row_bytes(m->embedding.type, (uint64_t)f->n_embd);
    for (int r = first; r < last; r++) {
        const char *row = (const char *)m->embedding.data + (uint64_t)e->rows[r].token * row_bytes;
        float *x = row_of(&e->x, r);
        weight_dequantise(m->embedding.type)(x, row, f->n_embd);
        for (int i = 0; i < f->n_embd && f->embedding_scale != 1; i++)
            x[i] *= f->embedding_scale;
        if (m->positions.data) {
            uint64_t bytes = weight_row_bytes(m->positions.type, (uint64_t)f->n_embd);
            row = (const char *)m->positions.data + (uint64_t)e->rows[r].pos * bytes;
            weight_dequantise(m->positions.type)(row_of(&e->h, r), row, f->n_embd);
            e->kernels.add(x, row_of(&e->h, r), f->n_embd);
        }
        for (int i = 0; i < f->rope.n_rot / 2; i++) {
            double angle = e->rows[r].pos * e->frequencies[i];
            row_of(&e->cosines, r)[i] = (float)(f->rope.gain * cos(angle));
            row_of(&e->sines, r)[i] = (float)(f->rope.gain * sin(angle));
        }
    }
}

static void attention_block(struct engine *e)
{
    const struct layer *l = e->layer;
    int n_embd = e->model->facts.n_embd;

    set_input(e, &e->h, n_embd, e->n_rows);
    each_row(e, normalise_for_attention, e->n_rows); /* h = norm(x) */
    each_output(e, project_q_k_v,
                whole_groups(l->q.n_out) + whole_groups(l->k.n_out) +
                    whole_groups(l->v.n_out)); /* q, k, v = Wq h, Wk h, Wv h */
    each_row(e, turn_and_store, e->n_rows);    /* cache <- rope(k), v */
    pool_run(e->pool, attend, e);              /* attended [rows][n_heads * head_dim] */

    set_input(e, &e->attended, l->attention_out.n_in, e->n_rows);
    each_row(e, prepare_attended, e->n_rows);
    add_product(e, &l->attention_out, &l->attention_post_norm); /* x += Wo attended */
}

static void ffn_block(struct engine *e)
{
    const struct layer *l = e->layer;

    e->ffn = &l->ffn;
    set_input(e, &e->h, e->model->facts.n_embd, e->n_rows);
    each_row(e, normalise_for_ffn, e->n_rows);     /* h = norm(x) */
    each_output(e, gate_and_up, e->ffn->up.n_out); /* gate = act(Wg h) * Wu h, [rows][n_ff] */

    set_input(e, &e->gate, e->ffn->down.n_in, e->n_rows);
    each_row(e, prepare_gated, e->n_rows);
    add_product(e, &e->ffn->down, &l->ffn_post_norm); /* x += Wd gate */
}

static void expert_block(struct engine *e)
{
    const struct layer *l = e->layer;
    struct expert_state *x = &e->experts;
    int n_embd = e->model->facts.n_embd, n_ff = e->model->facts.experts.n_ff;

    set_input(e, &e->h, n_embd, e->n_rows);
    each_row(e, normalise_for_experts, e->n_rows); /* h = norm(x) */
    each_output(e, route, l->router.n_out);        /* router [rows][n_experts] */
    if (l->shared.up.data) {
        e->ffn = &l->shared;
        if (l->shared_gate.data)
            each_output(e, weigh_shared, 1);
        each_output(e, gate_and_up, e->ffn->up.n_out);
        set_input(e, &e->gate, e->ffn->down.n_in, e->n_rows);
        each_row(e, prepare_gated, e->n_rows);
        each_output(e, project_shared, n_embd); /* delta = the shared block's answer */
    }
    each_row(e, choose_experts, e->n_rows);
    pair_up(e);

    set_input(e, &x->in, n_embd, x->n_pairs);
    each_row(e, gather_pairs, x->n_pairs);                              /* in [pairs][n_embd] */
    each_output(e, expert_gate_and_up, x->n_busy * whole_groups(n_ff)); /* gate = act(Wg in) * Wu in */

    set_input(e, &x->gate, n_ff, x->n_pairs);
    each_row(e, prepare_expert_gated, x->n_pairs);
    each_output(e, expert_down, x->n_busy * whole_groups(n_embd)); /* out [pairs][n_embd] */
    each_row(e, combine_experts, e->n_rows); /* x += sum of share * out + the shared block */
}

/* Only rows that want logits go on; they move together in h. */
static void normalise_for_output(struct engine *e, int first, int last)
{
    const struct model *m = e->model;
    const struct matrix *const users[] = { &m->output };
    for (int i = first; i < last; i++) {
        normalise(e, &m->output_norm, row_of(&e->h, i), row_of(&e->x, e->logit_rows[i]), m->facts.n_embd);
        prepare_row(e, i, users, 1);
    }
}

static void compute_logits(struct engine *e, int first, int last)
{
    const struct model_facts *f = &e->model->facts;
    const struct row_buffer out = { e->logits, (size_t)f->n_vocab };
    multiply(e, &e->model->output, &out, first, last);
    for (int r = 0; r < e->n_logits; r++) {
        float *logits = row_of(&out, r);
        for (int i = first; i < last && f->logit_scale != 1; i++)
            logits[i] /= f->logit_scale;
        if (f->logit_cap > 0)
            e->kernels.soft_cap(logits + first, f->logit_cap, last - first);
    }
}

static void give_hidden(struct engine *e, int first, int last)
{
    const struct model *m = e->model;
    for (int i = first; i < last; i++)
        normalise(e, &m->output_norm, row_of(&e->hidden, i), row_of(&e->x, e->hidden_rows[i]),
                  m->facts.n_embd);
}

void forward(struct engine *e)
{
    const struct model *m = e->model;

    each_row(e, embed, e->n_rows); /* x [rows][n_embd] */
    for (e->layer_index = 0; e->layer_index < m->facts.n_layers; e->layer_index++) {
        e->layer = &m->layers[e->layer_index];
        attention_block(e);
        if (e->layer->experts)
            expert_block(e);
        else
            ffn_block(e);
    }
    if (e->n_hidden)
        each_row(e, give_hidden, e->n_hidden); /* hidden = norm(x) of the rows that want it */
    if (!e->n_logits)
        return;
    set_output_input(e, &e->h, m->facts.n_embd, e->n_logits);
    each_row(e, normalise_for_output, e->n_logits);   /* h = norm(x) of the rows that want logits */
    each_output(e, compute_logits, m->facts.n_vocab); /* logits [n_logits][n_vocab] */
}
