/* The stages of a block that is a mixture of experts: every row chooses some of them, and its answer is the
 * sum of theirs, weighted by how much the router wants each.
 *
 * Which rows share an expert in a step changes what is multiplied together but, by the kernels' rule, no
 * result; the sum of a row runs over its own experts in its own order. */
#include <math.h>
#include <string.h>

#include "worker/model/stages.h"

void normalise_for_experts(struct engine *e, int first, int last)
{
    const struct layer *l = e->layer;
    const struct matrix *const users[] = { &l->router, &l->shared.gate, &l->shared.up, &l->shared_gate };
    for (int r = first; r < last; r++) {
        normalise(e, &l->ffn_norm, row_of(&e->h, r), row_of(&e->x, r), e->model->facts.n_embd);
        prepare_row(e, r, users, 4);
    }
}

void route(struct engine *e, int first, int last)
{
    multiply(e, &e->layer->router, &e->experts.router, first, last);
}

void weigh_shared(struct engine *e, int first, int last)
{
    multiply(e, &e->layer->shared_gate, &e->experts.shared_gate, first, last);
}

void project_shared(struct engine *e, int first, int last)
{
    multiply(e, &e->layer->shared.down, &e->delta, first, last);
}

/* The highest of n; the first of equals, and some valid one among NaNs. */
static int find_best(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void choose_for_row(struct engine *e, int row)
{
    const struct expert_facts *f = &e->model->facts.experts;
    float *router = row_of(&e->experts.router, row);
    int *chosen = e->experts.chosen + (size_t)row * (size_t)f->n_used;
    float *share = e->experts.share + (size_t)row * (size_t)f->n_used;
    float highest = router[find_best(router, f->n)];
    double all = 0, taken = 0;

    for (int i = 0; i < f->n; i++) {
        router[i] = expf(router[i] - highest);
        all += (double)router[i];
    }
    for (int i = 0; i < f->n_used; i++) {
        chosen[i] = find_best(router, f->n);
        share[i] = router[chosen[i]];
        taken += (double)share[i];
        router[chosen[i]] = -1; /* below any that is left */
    }
    if (e->model->architecture->keeps_expert_weights)
        taken = all;
    for (int i = 0; i < f->n_used; i++)
        share[i] = (float)((double)share[i] / taken);
}

void choose_experts(struct engine *e, int first, int last)
{
    for (int r = first; r < last; r++)
        choose_for_row(e, r);
}

/* A counting sort by expert. */
void pair_up(struct engine *e)
{
    struct expert_state *x = &e->experts;
    const struct expert_facts *f = &e->model->facts.experts;
    int *count = x->first_pair + 1; /* first of the counts of each expert, then where it begins, then ends */

    x->n_pairs = e->n_rows * f->n_used;
    x->n_busy = 0;
    memset(x->first_pair, 0, ((size_t)f->n + 1) * sizeof *x->first_pair);
    for (int i = 0; i < x->n_pairs; i++)
        count[x->chosen[i]]++;
    for (int i = 0, begin = 0; i < f->n; i++) {
        int n = count[i];
        if (n)
            x->busy[x->n_busy++] = i;
        count[i] = begin;
        begin += n;
    }
    for (int i = 0; i < x->n_pairs; i++) {
        x->pair[i] = count[x->chosen[i]]++;
        x->pair_row[x->pair[i]] = i / f->n_used;
    }
}

/* The block that pair p goes through. */
static const struct ffn *block_of(const struct engine *e, int p)
{
    const int *first_pair = e->experts.first_pair;
    int low = 0, high = e->model->facts.experts.n;
    while (high - low > 1) { /* p is in first_pair[low] .. first_pair[high] - 1 */
        int middle = (low + high) / 2;
        if (p < first_pair[middle])
            high = middle;
        else
            low = middle;
    }
    return &e->layer->experts[low];
}

void gather_pairs(struct engine *e, int first, int last)
{
    size_t bytes = (size_t)e->model->facts.n_embd * sizeof(float);
    for (int p = first; p < last; p++) {
        const struct ffn *block = block_of(e, p);
        const struct matrix *const users[] = { &block->gate, &block->up };
        memcpy(row_of(&e->experts.in, p), row_of(&e->h, e->experts.pair_row[p]), bytes);
        prepare_row(e, p, users, 2);
    }
}

/* Part of the outputs of one expert: `to` - `from` of them, for all its rows. */
struct expert_part {
    int expert, from, to;
    int first_pair;
    struct activations in; /* its pairs of the input */
};

/* Takes the next part off the run first..last of outputs, `n_out` of each busy expert. */
static bool next_part(const struct engine *e, int n_out, int *first, int last, struct expert_part *out)
{
    const struct expert_state *x = &e->experts;
    const struct activations *all = &e->input;
    if (*first >= last)
        return false;
    int width = whole_groups(n_out), place = *first / width, begin = place * width;
    int expert = x->busy[place], first_pair = x->first_pair[expert];
    *out = (struct expert_part){ .expert = expert,
                                 .from = *first - begin,
                                 .to = last - begin < n_out ? last - begin : n_out,
                                 .first_pair = first_pair,
                                 .in = *all };
    out->in.n_rows = x->first_pair[expert + 1] - first_pair;
    out->in.x += (size_t)first_pair * all->stride;
    out->in.blocks += first_pair * all->planes;
    *first = begin + (out->to < n_out ? out->to : width);
    return true;
}

/* That part of the product with m, a matrix of the expert. */
static void multiply_part(struct engine *e, const struct expert_part *p, const struct matrix *m,
                          const struct row_buffer *out)
{
    const struct row_buffer own = { row_of(out, p->first_pair), out->stride };
    multiply_rows(e, m, &p->in, &own, p->from, p->to);
}

void expert_gate_and_up(struct engine *e, int first, int last)
{
    struct expert_state *x = &e->experts;
    struct expert_part p;
    while (next_part(e, e->model->facts.experts.n_ff, &first, last, &p)) {
        const struct row_buffer gate = { row_of(&x->gate, p.first_pair), x->gate.stride };
        gate_and_up_rows(e, &e->layer->experts[p.expert], &p.in, &gate, p.from, p.to);
    }
}

void prepare_expert_gated(struct engine *e, int first, int last)
{
    for (int p = first; p < last; p++) {
        const struct matrix *const users[] = { &block_of(e, p)->down };
        prepare_row(e, p, users, 1);
    }
}

void expert_down(struct engine *e, int first, int last)
{
    struct expert_part p;
    while (next_part(e, e->model->facts.n_embd, &first, last, &p))
        multiply_part(e, &p, &e->layer->experts[p.expert].down, &e->experts.out);
}

/* What the shared block counts for a row. */
static float shared_share(const struct engine *e, int row)
{
    return e->layer->shared_gate.data ? 1 / (1 + expf(-*row_of(&e->experts.shared_gate, row))) : 1;
}

static void combine_row(struct engine *e, int row)
{
    const struct layer *l = e->layer;
    const struct expert_state *x = &e->experts;
    int n_embd = e->model->facts.n_embd, n_used = e->model->facts.experts.n_used;
    size_t at = (size_t)row * (size_t)n_used;
    float *delta = row_of(&e->delta, row);
    float share = l->shared.up.data ? shared_share(e, row) : 0;

    if (!l->shared.up.data)
        memset(delta, 0, (size_t)n_embd * sizeof *delta);
    for (int i = 0; i < n_embd && share != 1; i++)
        delta[i] *= share;
    for (int k = 0; k < n_used; k++) {
        const float *out = row_of(&x->out, x->pair[at + (size_t)k]);
        for (int i = 0; i < n_embd; i++)
            delta[i] += x->share[at + (size_t)k] * out[i];
    }
    if (l->ffn_post_norm.weight)
        normalise(e, &l->ffn_post_norm, delta, delta, n_embd);
    add_delta(e, row, 0, n_embd);
}

void combine_experts(struct engine *e, int first, int last)
{
    for (int r = first; r < last; r++)
        combine_row(e, r);
}
