#include "worker/model/stages.h"

/* Output elements per grain of a cut: a group of packed weights, whose outputs fill two cache lines. */
enum { GRAIN = PACK_ROWS };

/* Outputs of a part: what a product of 512 rows gives for them stays in the second-level cache for what comes
 * next. */
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

void multiply_rows(struct engine *e, const struct matrix *m, const struct activations *in,
                   const struct row_buffer *out, int first, int last)
{
    packed_multiply(e->kernels.packed, m->type, out->data, out->stride, m->packed, first, last, in);
    for (int r = 0; r < in->n_rows; r++) {
        float *y = row_of(out, r);
        if (m->scale)
            for (int i = first; i < last; i++)
                y[i] *= *m->scale;
        if (m->bias)
            for (int i = first; i < last; i++)
                y[i] += m->bias[i];
    }
}

void multiply(struct engine *e, const struct matrix *m, const struct row_buffer *out, int first, int last)
{
    multiply_rows(e, m, &e->input, out, first, last);
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

void in_parts(struct engine *e, stage_fn *run, int first, int last)
{
    for (; first < last; first += PART)
        run(e, first, last - first < PART ? last : first + PART);
}

static void project_and_add_part(struct engine *e, int first, int last)
{
    multiply(e, e->block_out, &e->delta, first, last);
    if (!e->block_norm->weight)
        for (int r = 0; r < e->n_rows; r++)
            add_delta(e, r, first, last);
}

static void project_and_add(struct engine *e, int first, int last)
{
    in_parts(e, project_and_add_part, first, last);
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
