#include "worker/kernels/unpacked.h"

/* PIECE: whole blocks of every type. GROUP: what the widest f32 tile takes. ROWS: activation rows whose
 * partial sums lie on the stack; a guess. */
enum { PIECE = 256, GROUP = 4, ROWS = 64 };

/* Elements at..at+n-1 of a group of weight rows, lying in w, times all activation rows; added to what earlier
 * pieces gave. */
static void add_piece(multiply_fn *multiply_f32, float *out, size_t out_stride, const float *w, int group,
                      int at, int n, const struct activations *a)
{
    float part[ROWS * GROUP];
    for (int r = 0; r < a->n_rows; r += ROWS) {
        struct activations piece = { .n_rows = a->n_rows - r < ROWS ? a->n_rows - r : ROWS,
                                     .n = n,
                                     .stride = a->stride,
                                     .x = a->x + (size_t)r * a->stride + at };
        multiply_f32(part, GROUP, w, 0, group, &piece);
        for (int i = 0; i < piece.n_rows; i++)
            for (int j = 0; j < group; j++) {
                float *o = out + (size_t)(r + i) * out_stride + j;
                *o = at ? *o + part[i * GROUP + j] : part[i * GROUP + j];
            }
    }
}

void multiply_unpacked(enum weight_type type, dequantise_fn *dequantise, multiply_fn *multiply_f32,
                       float *out, size_t out_stride, const void *weights, int first, int last,
                       const struct activations *a)
{
    size_t row_bytes = weight_row_bytes(type, (uint64_t)a->n);
    float w[GROUP * PIECE];
    for (int i = first; i < last; i += GROUP) {
        int group = last - i < GROUP ? last - i : GROUP;
        for (int at = 0; at < a->n; at += PIECE) {
            int n = a->n - at < PIECE ? a->n - at : PIECE;
            size_t skip = weight_row_bytes(type, (uint64_t)at);
            for (int j = 0; j < group; j++)
                dequantise(w + j * n, (const char *)weights + (size_t)(i + j) * row_bytes + skip, n);
            add_piece(multiply_f32, out + i, out_stride, w, group, at, n, a);
        }
    }
}
