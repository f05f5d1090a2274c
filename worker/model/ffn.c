/* The stages of the feed-forward block that every row goes through. */
#include "worker/model/stages.h"

void normalise_for_ffn(struct engine *e, int first, int last)
{
    const struct matrix *const users[] = { &e->ffn->gate, &e->ffn->up };
    for (int r = first; r < last; r++) {
        normalise(e, &e->layer->ffn_norm, row_of(&e->h, r), row_of(&e->x, r), e->model->facts.n_embd);
        prepare_row(e, r, users, 2);
    }
}

void activate(struct engine *e, float *gate, const float *up, int n)
{
    switch (e->model->architecture->ffn) {
    case FFN_SILU_GATED:
        e->kernels.silu_gate(gate, up, n);
        break;
    case FFN_GELU_GATED:
        e->kernels.gelu_gate(gate, up, n);
        break;
    case FFN_GELU:
        e->kernels.gelu_gate(gate, NULL, n);
        break;
    }
}

void gate_and_up(struct engine *e, int first, int last)
{
    gate_and_up_rows(e, e->ffn, &e->input, &e->gate, first, last);
}

void prepare_gated(struct engine *e, int first, int last)
{
    const struct norm *sub_norm = &e->layer->ffn_sub_norm;
    const struct matrix *const users[] = { &e->ffn->down };
    for (int r = first; r < last; r++) {
        float *gate = row_of(&e->gate, r);
        if (sub_norm->weight)
            normalise(e, sub_norm, gate, gate, e->ffn->down.n_in);
        prepare_row(e, r, users, 1);
    }
}
