/* Attention over a paged cache of keys and values: who holds what of a sequence, in which numbers, laid out
 * for the vector unit; and softmax(q k) v over it.
 *
 * A block is the keys and values that KV_BLOCK consecutive positions have in one layer and one KV head.
 * Blocks are cut at absolute positions, a multiple of KV_BLOCK each; where they lie is the business of the
 * cache, which hands a table over. 64 positions: long enough that the work per block (a maximum, an
 * exponential, a rescaling of the sums) is a tenth of the products, short enough for a block's keys in f32,
 * its scores and the queries of a tile to stay in the L1 cache.
 *
 * Keys lie in groups of 16 positions, [head_dim][16], so that a vector register holds the scores of 16
 * positions and no sum runs across lanes; values lie row by row, so that one holds 16 elements of the output.
 * Q8 and Q4 are integers, four to a 32-bit lane as byte dot products want them: keys with a scale per
 * position and 32 elements, because channels of keys differ in size, values with one per position. Queries
 * and weights meet them as integers of 15 and 14 bits, whose rounding is far below that of the cache.
 *
 * The result of a query is one fixed sequence of operations given its position and its sequence's cache:
 * blocks in order, and every ATTENTION_CHUNK positions the sums start anew and are merged into those before,
 * in order, whether one thread computes all chunks or several share them. What else is in a tile, which
 * heads share keys, which positions lie behind in the same block changes nothing. Bytes of positions that a
 * query does not see may be anything: they are masked by selection, never multiplied by 0. */
#ifndef WOOLLY_KERNELS_ATTENTION_H
#define WOOLLY_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kv_type { KV_F16, KV_BF16, KV_Q8, KV_Q4, KV_F32, KV_TYPES };

enum {
    KV_BLOCK = 64,
    ATTENTION_CHUNK = 256,  /* four blocks: small enough to balance threads from 512 positions on */
    ATTENTION_QUERIES = 64, /* most queries of a tile: a block is widened to f32 once for all of them */
};

/* The bytes of a block. */
struct kv_layout {
    enum kv_type type;
    int head_dim;
    int depth;       /* head_dim as keys have it: padded to whole 32-bit lanes, two of them in q4 */
    int width;       /* head_dim as values have it: padded to whole vectors, two of them in q4 */
    int n_parts;     /* runs of 32 elements of a key that share a scale */
    size_t k_scales; /* where it begins: f16 [4 groups][n_parts][16]; in q4 as many minima follow */
    size_t k;        /* [4 groups][depth][16], or bytes [4][depth / 4][16][4], two quads in one in q4 */
    size_t v_scales; /* f16 [64]; in q4 as many minima follow */
    size_t v;        /* [64][width], or bytes [16][width][4], in q4 two vectors of 16 in one */
    size_t bytes;    /* a multiple of 64 */
};

/* Queries of one sequence: n_rows consecutive positions, and of each the n_heads query heads that share a KV
 * head. n_rows * n_heads is at most ATTENTION_QUERIES. */
struct attention {
    const struct kv_layout *layout;
    const char *memory; /* block i of the sequence is at memory + table[i] * page_bytes */
    size_t page_bytes;
    const int32_t *table;
    int n_rows, n_heads;
    int pos;        /* of the first row */
    int window;     /* positions a row sees, itself included */
    float scale;    /* of the scores */
    float soft_cap; /* scores become soft_cap * tanh(score / soft_cap); 0 for none */
    const float *q; /* [n_rows] rows of [n_heads][head_dim], `stride` apart */
    float *out;     /* the same */
    size_t stride;
    char *scratch; /* attention_scratch_bytes of this thread's own, 64-byte aligned */
};

struct kernels;

/* "f16", "bf16", "q8", "q4", "f32" */
const char *kv_type_name(enum kv_type type);
bool kv_type_parse(const char *name, enum kv_type *out);

struct kv_layout kv_layout(enum kv_type type, int head_dim);

/* Puts key and value, [head_dim] each, into a block as its i-th position. Different positions may be put by
 * different threads at the same time. */
void kv_store(const struct kernels *k, const struct kv_layout *l, char *block, int i, const float *key,
              const float *value);

/* The key and value back, for tests. */
void kv_load(const struct kv_layout *l, const char *block, int i, float *key, float *value);

size_t attention_scratch_bytes(const struct kv_layout *l);

/* Chunks first..last-1 are those that any row of `a` sees. */
int attention_first_chunk(const struct attention *a);
int attention_last_chunk(const struct attention *a);

/* All chunks, to a->out. */
void attention_compute(const struct kernels *k, const struct attention *a);

/* Some of the chunks; what each gave goes to partials + chunk * attention_partial_floats. When all are there
 * attention_merge makes of them, for rows first..last-1, the same bits as attention_compute. `merged` is room
 * for as much as a chunk gives; different rows use different parts of it. */
size_t attention_partial_floats(const struct kv_layout *l, int n_queries);
void attention_compute_chunks(const struct kernels *k, const struct attention *a, int first_chunk,
                              int last_chunk, float *partials);
void attention_merge(const struct kernels *k, const struct attention *a, int first_row, int last_row,
                     const float *partials, float *merged);

#endif
