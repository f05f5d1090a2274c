#include <string.h>

#include "worker/model/stages.h"

/* Output elements per grain of a cut: a group of packed weights, whose outputs fill two cache lines. */
enum { GRAIN = PACK_ROWS };

/* Outputs of a part: what the gate's product of 512 rows gives for them stays in the second-level cache until
 * the other product meets it. */
enum { PART = 4 * GRAIN };

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

void each_row(struct engine *e, stage_fn *run, int n_rows)
{
    struct stage s = { e, run, n_rows, 1 };
    if (n_rows == 1)
        run(e, 0, 1);
    else
        pool_run(e->pool, run_share, &s);
}

void each_output(struct engine *e, stage_fn *run, int n)
{
    struct stage s = { e, run, n, GRAIN };
    pool_run(e->pool, run_share, &s);
}

static void set_planes(struct engine *e, const struct row_buffer *b, int n, int n_rows, int planes)
{
    e->input = (struct activations){ .n_rows = n_rows,
                                     .n = n,
                                     .stride = b->stride,
                                     .x = b->data,
                                     .planes = planes,
                                     .block_stride = (size_t)n_rows * (size_t)planes,
                                     .blocks = e->blocks };
}

void set_input(struct engine *e, const struct row_buffer *b, int n, int n_rows)
{
    set_planes(e, b, n, n_rows, n <= NARROW_INPUT ? 2 : 1);
}

void set_output_input(struct engine *e, const struct row_buffer *b, int n, int n_rows)
{
    set_planes(e, b, n, n_rows, 2);
}

/* A matrix with quantised weights has n_in in whole blocks, so every element of the row is in one. */
void prepare_row(struct engine *e, int row, const struct matrix *const *users, int n)
{
    const struct activations *a = &e->input;
    bool is_wanted = false;
    for (int i = 0; i < n; i++)
        is_wanted = is_wanted || (users[i]->data && packed_wants_blocks(users[i]->type));
    if (is_wanted)
        packed_quantise(e->kernels.packed, e->blocks + row * a->planes, a->block_stride, a->planes,
                        a->x + (size_t)row * a->stride, a->n);
}

/* What becomes of the outputs of a product. It happens group by group, while a group is in the cache: of 512
 * rows a pass of its own would find nothing there. */
enum use {
    STORE,    /* out = y */
    ADD,      /* out += y */
    GATE,     /* out = act(out) * y */
    ACTIVATE, /* out = act(y) */
};

struct delivery {
    struct engine *engine;
    const struct matrix *matrix;
    const struct row_buffer *out;
    enum use use;
};

/* Whole groups are what counts: the compiler knows their size. */
static void copy_outputs(float *out, const float *y, int n)
{
    if (n == PACK_ROWS)
        memcpy(out, y, PACK_ROWS * sizeof *out);
    else
        memcpy(out, y, (size_t)n * sizeof *out);
}

/* Outputs i..i+n-1 of one row, at y. */
static void deliver(const struct delivery *d, float *out, float *y, int i, int n)
{
    struct engine *e = d->engine;
    float residual_scale = e->model->facts.residual_scale;
    for (int k = 0; k < n && d->matrix->scale; k++)
        y[k] *= *d->matrix->scale;
    for (int k = 0; k < n && d->matrix->bias; k++)
        y[k] += d->matrix->bias[i + k];
    switch (d->use) {
    case STORE:
        copy_outputs(out, y, n);
        break;
    case ADD:
        for (int k = 0; k < n && residual_scale != 1; k++)
            y[k] *= residual_scale;
        e->kernels.add(out, y, n);
        break;
    case GATE:
        activate(e, out, y, n);
        break;
    case ACTIVATE:
        activate(e, y, NULL, n);
        copy_outputs(out, y, n);
        break;
    }
}

/* Rows lie so far apart that no processor fetches the next one by itself. */
enum { ROWS_AHEAD = 16 };

static void deliver_rows(void *arg, float (*values)[PACK_ROWS], int first_row, int n_rows, int i, int width)
{
    const struct delivery *d = arg;
    for (int r = 0; r < n_rows; r++) {
        float *out = row_of(d->out, first_row + r) + i;
        if (r + ROWS_AHEAD < n_rows) {
            const float *ahead = out + ROWS_AHEAD * d->out->stride;
            __builtin_prefetch(ahead, 1);
            __builtin_prefetch(ahead + PACK_ROWS / 2, 1);
        }
        deliver(d, out, values[r], i, width);
    }
}

static void multiply_to(struct delivery d, const struct activations *in, int first, int last)
{
    packed_multiply_to(deliver_rows, &d, d.engine->kernels.packed, d.matrix->type, d.matrix->packed, first,
                       last, in);
}

void multiply_rows(struct engine *e, const struct matrix *m, const struct activations *in,
                   const struct row_buffer *out, int first, int last)
{
    multiply_to((struct delivery){ e, m, out, STORE }, in, first, last);
}

void multiply(struct engine *e, const struct matrix *m, const struct row_buffer *out, int first, int last)
{
    multiply_rows(e, m, &e->input, out, first, last);
}

void gate_and_up_rows(struct engine *e, const struct ffn *ffn, const struct activations *in,
                      const struct row_buffer *gate, int first, int last)
{
    bool is_gated = ffn->gate.data;
    for (int part = first; part < last; part += PART) {
        int end = last - part < PART ? last : part + PART;
        if (is_gated)
            multiply_rows(e, &ffn->gate, in, gate, part, end);
        multiply_to((struct delivery){ e, &ffn->up, gate, is_gated ? GATE : ACTIVATE }, in, part, end);
    }
}

void normalise(struct engine *e, const struct norm *norm, float *out, const float *x, int n)
{
    float eps = e->model->facts.norm_eps;
    if (e->model->architecture->norm == NORM_LAYER)
        e->kernels.layer_norm(out, x, norm->weight, norm->bias, n, eps);
    else
        e->kernels.rms_norm(out, x, norm->weight, n, eps);
}

void add_delta(struct engine *e, int row, int first, int last)
{
    float scale = e->model->facts.residual_scale, *delta = row_of(&e->delta, row);
    if (scale != 1)
        for (int i = first; i < last; i++)
            delta[i] *= scale;
    e->kernels.add(row_of(&e->x, row) + first, delta + first, last - first);
}

static void project_and_add(struct engine *e, int first, int last)
{
    if (e->block_norm->weight)
        multiply(e, e->block_out, &e->delta, first, last);
    else
        multiply_to((struct delivery){ e, e->block_out, &e->x, ADD }, &e->input, first, last);
}

static void normalise_and_add(struct engine *e, int first, int last)
{
    int n = e->model->facts.n_embd;
    for (int r = first; r < last; r++) {
        normalise(e, e->block_norm, row_of(&e->delta, r), row_of(&e->delta, r), n);
        add_delta(e, r, 0, n);
    }
}

void add_product(struct engine *e, const struct matrix *m, const struct norm *norm)
{
    e->block_out = m;
    e->block_norm = norm;
    each_output(e, project_and_add, m->n_out);
    if (norm->weight)
        each_row(e, normalise_and_add, e->n_rows);
}
