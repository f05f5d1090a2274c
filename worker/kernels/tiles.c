#include "worker/kernels/levels.h"

/* Weight rows walked before going on to the next activation rows: few enough to stay in the L2 cache. */
enum { CHUNK = 32 };

static int min(int a, int b)
{
    return a < b ? a : b;
}

void tiles_multiply(const struct tile_set *t, float *out, size_t out_stride, const void *weights, int first,
                    int last, const struct activations *a)
{
    size_t row_bytes = weight_row_bytes(t->type, (uint64_t)a->n);
    for (int chunk = first; chunk < last; chunk += CHUNK) {
        int end = min(chunk + CHUNK, last);
        for (int r = 0; r < a->n_rows; r += t->max_rows) {
            int n_rows = min(t->max_rows, a->n_rows - r);
            const char *w = (const char *)weights + (size_t)chunk * row_bytes;
            float *o = out + (size_t)r * out_stride + chunk;
            int i = chunk;
            for (; i + t->wide <= end; i += t->wide, w += (size_t)t->wide * row_bytes, o += t->wide)
                t->wider[n_rows - 1](o, out_stride, w, row_bytes, a, r);
            for (; i < end; i++, w += row_bytes, o++)
                t->narrow[n_rows - 1](o, out_stride, w, row_bytes, a, r);
        }
    }
}
