/* The forward pass of the llama family, in model order. Read forward() at the end first.
 *
 * Each stage is one function over a run of things: rows of the step, or output elements of a product, or
 * heads. The pool cuts the run between the threads and the next stage begins when all are done. No sum is
 * ever split between threads, so their number cannot change a result. */
#include <math.h>
#include <string.h>

#include "worker/model/engine_state.h"

/* Output elements per grain of a cut: a cache line, so that two threads never write the same one. */
enum { GRAIN = 16 };

typedef void stage_fn(struct engine *e, int first, int last);

struct stage {
    struct engine *engine;
    stage_fn *run;
    int n, grain;
};

static void run_share(void *arg, int thread, int n_threads)
{
    const struct stage *s = arg;
    int64_t first, last;
    pool_share(s->n, s->grain, thread, n_threads, &first, &last);
    if (first < last)
        s->run(s->engine, (int)first, (int)last);
}

/* A stage that works on whole rows. For a single row waking the threads costs more than the work. */
static void each_row(struct engine *e, stage_fn *run)
{
    struct stage s = { e, run, e->n_rows, 1 };
    if (e->n_rows == 1)
        run(e, 0, 1);
    else
        pool_run(e->pool, run_share, &s);
}

/* A stage that works on output elements 0..n-1 of every row. */
static void each_output(struct engine *e, stage_fn *run, int n)
{
    struct stage s = { e, run, n, GRAIN };
    pool_run(e->pool, run_share, &s);
}

static float *row_of(const struct row_buffer *b, int row)
{
    return b->data + (size_t)row * b->stride;
}

/* Says what the next products read: n elements of each row of b. */
static void set_input(struct engine *e, const struct row_buffer *b, int n, int n_rows)
{
    e->input = (struct activations){ .n_rows = n_rows,
                                     .n = n,
                                     .stride = b->stride,
                                     .x = b->data,
                                     .q = e->quants,
                                     .q_scale = e->quant_scales };
}

static bool wants_q16(const struct engine *e, const struct matrix *m)
{
    return e->kernels.weights[m->type].wants_q16;
}

/* A matrix with quantised weights has n_in in whole blocks, so every element of the row is in one. */
static void quantise_row(struct engine *e, int row)
{
    const struct activations *a = &e->input;
    size_t at = (size_t)row * a->stride;
    e->kernels.quantise(e->quants + at, e->quant_scales + at / Q16_BLOCK, a->x + at, a->n);
}

/* Output elements first..last-1 of m times the stage's input. */
static void multiply(struct engine *e, const struct matrix *m, const struct row_buffer *out, int first,
                     int last)
{
    e->kernels.weights[m->type].multiply(out->data, out->stride, m->data, first, last, &e->input);
}

/* x += m times the input, for those elements */
static void multiply_and_add(struct engine *e, const struct matrix *m, int first, int last)
{
    multiply(e, m, &e->delta, first, last);
    for (int r = 0; r < e->n_rows; r++)
        e->kernels.add(row_of(&e->x, r) + first, row_of(&e->delta, r) + first, last - first);
}

/* x = embedding of the token; cosines and sines of its position */
static void embed(struct engine *e, int first, int last)
{
    const struct matrix *m = &e->model->embedding;
    uint64_t row_bytes = weight_row_bytes(m->type, (uint64_t)m->n_in);
    for (int r = first; r < last; r++) {
        const char *row = (const char *)m->data + (uint64_t)e->rows[r].token * row_bytes;
        e->kernels.weights[m->type].dequantise(row_of(&e->x, r), row, m->n_in);
        for (int i = 0; i < e->model->facts.n_rot / 2; i++) {
            double angle = e->rows[r].pos * e->frequencies[i];
            row_of(&e->cosines, r)[i] = (float)cos(angle);
            row_of(&e->sines, r)[i] = (float)sin(angle);
        }
    }
}

static void normalise_for_attention(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    for (int r = first; r < last; r++) {
        e->kernels.rms_norm(row_of(&e->h, r), row_of(&e->x, r), l->attention_norm, e->model->facts.n_embd,
                            e->model->facts.norm_eps);
        if (wants_q16(e, &l->q) || wants_q16(e, &l->k) || wants_q16(e, &l->v))
            quantise_row(e, r);
    }
}

/* The outputs of q, k and v in one run, as if the three matrices were one. */
static void project_q_k_v(struct engine *e, int first, int last)
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

static void store_position(struct engine *e, void *head, const float *x, int pos)
{
    size_t dim = (size_t)e->model->facts.head_dim, at = (size_t)pos * dim;
    if (e->cache.type == KV_F16)
        e->kernels.store_f16((uint16_t *)head + at, x, (int)dim);
    else
        memcpy((float *)head + at, x, dim * sizeof *x);
}

/* Turns q and k by the position; k and v go to the cache. */
static void turn_and_store(struct engine *e, int first, int last)
{
    const struct model_facts *f = &e->model->facts;
    for (int r = first; r < last; r++) {
        const struct row *row = &e->rows[r];
        const float *cosines = row_of(&e->cosines, r), *sines = row_of(&e->sines, r);
        for (int h = 0; h < f->n_heads; h++)
            e->kernels.rope(row_of(&e->q, r) + h * f->head_dim, cosines, sines, f->n_rot / 2);
        for (int h = 0; h < f->n_kv_heads; h++) {
            float *k = row_of(&e->k, r) + h * f->head_dim, *v = row_of(&e->v, r) + h * f->head_dim;
            e->kernels.rope(k, cosines, sines, f->n_rot / 2);
            store_position(e, kv_cache_keys(&e->cache, e->layer_index, row->slot, h), k, row->pos);
            store_position(e, kv_cache_values(&e->cache, e->layer_index, row->slot, h), v, row->pos);
        }
    }
}

/* attended = softmax(q k / sqrt(head_dim)) v for the query heads that share a KV head */
static void attend_group(struct engine *e, int row, int kv_head)
{
    const struct model_facts *f = &e->model->facts;
    int n_group = f->n_heads / f->n_kv_heads, at = kv_head * n_group * f->head_dim;
    struct attention a = {
        .n_group = n_group,
        .n_pos = e->rows[row].pos + 1,
        .head_dim = f->head_dim,
        .scale = (float)(1 / sqrt(f->head_dim)),
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
static void attend(void *arg, int thread, int n_threads)
{
    struct engine *e = arg;
    int64_t n = (int64_t)e->n_rows * e->model->facts.n_kv_heads;
    for (int64_t i = thread; i < n; i += n_threads)
        attend_group(e, (int)(i % e->n_rows), (int)(i / e->n_rows));
}

static void prepare_attended(struct engine *e, int first, int last)
{
    if (wants_q16(e, &e->layer->attention_out))
        for (int r = first; r < last; r++)
            quantise_row(e, r);
}

static void project_attended(struct engine *e, int first, int last)
{
    multiply_and_add(e, &e->layer->attention_out, first, last);
}

static void normalise_for_ffn(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    for (int r = first; r < last; r++) {
        e->kernels.rms_norm(row_of(&e->h, r), row_of(&e->x, r), l->ffn_norm, e->model->facts.n_embd,
                            e->model->facts.norm_eps);
        if (wants_q16(e, &l->gate) || wants_q16(e, &l->up))
            quantise_row(e, r);
    }
}

static void gate_and_up(struct engine *e, int first, int last)
{
    multiply(e, &e->layer->gate, &e->gate, first, last);
    multiply(e, &e->layer->up, &e->up, first, last);
    for (int r = 0; r < e->n_rows; r++)
        e->kernels.silu_gate(row_of(&e->gate, r) + first, row_of(&e->up, r) + first, last - first);
}

static void prepare_gated(struct engine *e, int first, int last)
{
    if (wants_q16(e, &e->layer->down))
        for (int r = first; r < last; r++)
            quantise_row(e, r);
}

static void project_down(struct engine *e, int first, int last)
{
    multiply_and_add(e, &e->layer->down, first, last);
}

/* Only rows that want logits go on; they move together in h. */
static void normalise_for_output(struct engine *e, int first, int last)
{
    const struct model *m = e->model;
    for (int i = first; i < last; i++) {
        e->kernels.rms_norm(row_of(&e->h, i), row_of(&e->x, e->logit_rows[i]), m->output_norm,
                            m->facts.n_embd, m->facts.norm_eps);
        if (wants_q16(e, &m->output))
            quantise_row(e, i);
    }
}

static void compute_logits(struct engine *e, int first, int last)
{
    const struct row_buffer out = { e->logits, (size_t)e->model->facts.n_vocab };
    multiply(e, &e->model->output, &out, first, last);
}

void forward(struct engine *e)
{
    const struct model *m = e->model;
    const struct model_facts *f = &m->facts;
    int n_q = f->n_heads * f->head_dim, n_kv = f->n_kv_heads * f->head_dim;

    each_row(e, embed); /* x [rows][n_embd] */
    for (e->layer_index = 0; e->layer_index < f->n_layers; e->layer_index++) {
        e->layer = &m->layers[e->layer_index];

        set_input(e, &e->h, f->n_embd, e->n_rows);
        each_row(e, normalise_for_attention);          /* h = norm(x) */
        each_output(e, project_q_k_v, n_q + 2 * n_kv); /* q, k, v = Wq h, Wk h, Wv h */
        each_row(e, turn_and_store);                   /* cache <- rope(k), v */
        pool_run(e->pool, attend, e);                  /* attended [rows][n_heads * head_dim] */

        set_input(e, &e->attended, n_q, e->n_rows);
        each_row(e, prepare_attended);
        each_output(e, project_attended, f->n_embd); /* x += Wo attended */

        set_input(e, &e->h, f->n_embd, e->n_rows);
        each_row(e, normalise_for_ffn);       /* h = norm(x) */
        each_output(e, gate_and_up, f->n_ff); /* gate = silu(Wg h) * Wu h, [rows][n_ff] */

        set_input(e, &e->gate, f->n_ff, e->n_rows);
        each_row(e, prepare_gated);
        each_output(e, project_down, f->n_embd); /* x += Wd gate */
    }
    if (!e->n_logits)
        return;
    set_input(e, &e->h, f->n_embd, e->n_logits);
    e->n_rows = e->n_logits;
    each_row(e, normalise_for_output);          /* h = norm(x) of the rows that want logits */
    each_output(e, compute_logits, f->n_vocab); /* logits [n_logits][n_vocab] */
}
