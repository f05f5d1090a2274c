/* Packing: a super-block of a row at a time becomes 256 unsigned quants and its scales; the quants are
 * pressed together to the dwords that the row has in planes and lines, and the dwords of a group's rows are
 * turned from rows into lines. All work on quants is done on dwords of four: the compiler makes vectors of
 * that on any machine, and what is stored is stored front to back. */
#include <assert.h>
#include <string.h>

#include "worker/kernels/blocks.h"
#include "worker/kernels/half.h"
#include "worker/kernels/packed_layout.h"

/* iq4_values + 128, and twice the 4-bit floats + 12: as quants with an offset. */
static const uint8_t iq4_quants[16] = { 1,   24,  45,  63,  79,  93,  106, 118,
                                        129, 141, 153, 166, 181, 197, 217, 241 };
static const uint8_t mxfp4_quants[16] = { 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0 };

static const struct pack_format formats[WEIGHT_TYPES] = {
    [WEIGHT_F32] = { .lines = LINES_FLOAT },
    [WEIGHT_F16] = { .lines = LINES_FLOAT },
    [WEIGHT_BF16] = { .lines = LINES_FLOAT },
    [WEIGHT_Q4_0] = { LINES_4, SCALES_HALF, 8, NULL },
    [WEIGHT_Q4_1] = { LINES_4, SCALES_HALF_MIN, 0, NULL },
    [WEIGHT_Q5_0] = { LINES_5, SCALES_HALF, 16, NULL },
    [WEIGHT_Q5_1] = { LINES_5, SCALES_HALF_MIN, 0, NULL },
    [WEIGHT_Q8_0] = { LINES_8, SCALES_HALF, 128, NULL },
    [WEIGHT_Q2_K] = { LINES_2, SCALES_NIBBLE_MIN, 0, NULL },
    [WEIGHT_Q3_K] = { LINES_3, SCALES_SIX_16, 4, NULL },
    [WEIGHT_Q4_K] = { LINES_4, SCALES_SIX_MIN, 0, NULL },
    [WEIGHT_Q5_K] = { LINES_5, SCALES_SIX_MIN, 0, NULL },
    [WEIGHT_Q6_K] = { LINES_6, SCALES_BYTE_16, 32, NULL },
    [WEIGHT_Q8_K] = { LINES_8, SCALES_WHOLE, 128, NULL },
    [WEIGHT_IQ4_NL] = { LINES_TABLE, SCALES_HALF, 128, iq4_quants },
    [WEIGHT_IQ4_XS] = { LINES_TABLE, SCALES_SIX_32, 128, iq4_quants },
    [WEIGHT_TQ1_0] = { LINES_2, SCALES_WHOLE, 1, NULL },
    [WEIGHT_TQ2_0] = { LINES_2, SCALES_WHOLE, 1, NULL },
    [WEIGHT_MXFP4] = { LINES_TABLE, SCALES_BF16, 12, mxfp4_quants },
};

const struct pack_format *pack_format(enum weight_type type)
{
    return &formats[type];
}

bool packed_wants_blocks(enum weight_type type)
{
    return formats[type].lines != LINES_FLOAT;
}

size_t packed_group_size(enum weight_type type, int n)
{
    const struct pack_format *f = &formats[type];
    int whole = n / PACK_K, rest = blocks_in(n, whole);
    if (f->lines == LINES_NONE)
        return 0;
    if (f->lines == LINES_FLOAT)
        return (size_t)PACK_ROWS * weight_row_bytes(type, (uint64_t)n);
    return (size_t)whole * super_block_size(f, PACK_BLOCKS) + (rest ? super_block_size(f, rest) : 0);
}

uint64_t packed_size(enum weight_type type, int n_rows, int n)
{
    uint64_t groups = ((uint64_t)n_rows + PACK_ROWS - 1) / PACK_ROWS;
    return groups * packed_group_size(type, n);
}

/* --- a row's super-block as quants and scales --- */

struct row_block {
    uint32_t q[PACK_K / 4];                            /* four quants each */
    uint16_t half[PACK_BLOCKS], half_min[PACK_BLOCKS]; /* f16 or bf16 */
    uint16_t scale, base;                              /* f16, of 256 */
    float whole;
    uint8_t sub[16];     /* scales of sub-blocks, as the format has them */
    uint8_t sub_min[16]; /* minima of sub-blocks */
};

/* The byte in all four places of a dword. */
#define EACH(byte) ((byte)*0x01010101u)

static uint32_t four(const void *bytes)
{
    uint32_t d;
    memcpy(&d, bytes, sizeof d);
    return d;
}

static void read_bytes(uint32_t *q, const int8_t *bytes, int n)
{
    for (int i = 0; i < n / 4; i++)
        q[i] = four(bytes + 4 * i) ^ EACH(0x80u);
}

static void read_nibbles(uint32_t *q, const uint8_t *bytes)
{
    for (int i = 0; i < 4; i++) {
        q[i] = four(bytes + 4 * i) & EACH(15);
        q[i + 4] = four(bytes + 4 * i) >> 4 & EACH(15);
    }
}

/* Bit i of `high` is bit 4 of quant i. The product puts four bits at the bottoms of four bytes. */
static void add_fifth_bits(uint32_t *q, const uint8_t *high)
{
    uint32_t bits = four(high);
    for (int i = 0; i < 8; i++)
        q[i] |= ((bits >> 4 * i & 15) * 0x00204081u & EACH(1)) << 4;
}

static void read_short_block(struct row_block *out, int b, enum weight_type type, const void *block)
{
    uint32_t *q = out->q + 8 * b;
    switch (type) {
    case WEIGHT_Q8_0: {
        const struct block_q8_0 *in = block;
        out->half[b] = in->scale;
        read_bytes(q, in->q, 32);
        break;
    }
    case WEIGHT_Q4_0: {
        const struct block_q4_0 *in = block;
        out->half[b] = in->scale;
        read_nibbles(q, in->q);
        break;
    }
    case WEIGHT_Q4_1: {
        const struct block_q4_1 *in = block;
        out->half[b] = in->scale;
        out->half_min[b] = in->base;
        read_nibbles(q, in->q);
        break;
    }
    case WEIGHT_Q5_0: {
        const struct block_q5_0 *in = block;
        out->half[b] = in->scale;
        read_nibbles(q, in->q);
        add_fifth_bits(q, in->high);
        break;
    }
    case WEIGHT_Q5_1: {
        const struct block_q5_1 *in = block;
        out->half[b] = in->scale;
        out->half_min[b] = in->base;
        read_nibbles(q, in->q);
        add_fifth_bits(q, in->high);
        break;
    }
    case WEIGHT_IQ4_NL: {
        const struct block_iq4_nl *in = block;
        out->half[b] = in->scale;
        read_nibbles(q, in->q);
        break;
    }
    case WEIGHT_MXFP4: {
        const struct block_mxfp4 *in = block;
        out->half[b] = (uint16_t)(bits_of_float(mxfp4_scale(in->exponent)) >> 16);
        read_nibbles(q, in->q);
        break;
    }
    default:
        assert(false);
    }
}

/* Bits 2 * (i / 32) up of byte i % 32, of each half of 128. */
static void read_two_bits(uint32_t *q, const uint8_t *bytes)
{
    for (int half = 0; half < 2; half++)
        for (int layer = 0; layer < 4; layer++)
            for (int i = 0; i < 8; i++)
                q[32 * half + 8 * layer + i] = four(bytes + 32 * half + 4 * i) >> 2 * layer & EACH(3);
}

static void read_nibble_pairs(uint32_t *q, const uint8_t *bytes)
{
    for (int p = 0; p < 4; p++)
        for (int i = 0; i < 8; i++) {
            q[16 * p + i] = four(bytes + 32 * p + 4 * i) & EACH(15);
            q[16 * p + 8 + i] = four(bytes + 32 * p + 4 * i) >> 4 & EACH(15);
        }
}

/* Bit i / 32 of byte i % 32 is bit `to` of quant i. */
static void add_high_bits(uint32_t *q, const uint8_t *high, int to)
{
    for (int layer = 0; layer < 8; layer++)
        for (int i = 0; i < 8; i++)
            q[8 * layer + i] |= (four(high + 4 * i) >> layer & EACH(1)) << to;
}

/* The scales and minima of Q4_K and Q5_K; see unpack_pair in blocks_k.c. */
static void read_six_pairs(struct row_block *out, const uint8_t *sub)
{
    for (int s = 0; s < 4; s++) {
        out->sub[s] = sub[s] & 63;
        out->sub_min[s] = sub[s + 4] & 63;
        out->sub[s + 4] = (uint8_t)((sub[s + 8] & 15) | sub[s] >> 6 << 4);
        out->sub_min[s + 4] = (uint8_t)(sub[s + 8] >> 4 | sub[s + 4] >> 6 << 4);
    }
}

static void read_q6_k(struct row_block *out, const struct block_q6_k *in)
{
    out->scale = in->scale;
    memcpy(out->sub, in->sub, 16);
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 8; i++) {
            uint32_t *q = out->q + 32 * half + i, high = four(in->high + 32 * half + 4 * i);
            uint32_t low0 = four(in->low + 64 * half + 4 * i), low1 = four(in->low + 64 * half + 32 + 4 * i);
            q[0] = (low0 & EACH(15)) | (high & EACH(3)) << 4;
            q[8] = (low1 & EACH(15)) | (high >> 2 & EACH(3)) << 4;
            q[16] = (low0 >> 4 & EACH(15)) | (high >> 4 & EACH(3)) << 4;
            q[24] = (low1 >> 4 & EACH(15)) | (high >> 6 & EACH(3)) << 4;
        }
}

static void read_q3_k(struct row_block *out, const struct block_q3_k *in)
{
    out->scale = in->scale;
    read_two_bits(out->q, in->q);
    add_high_bits(out->q, in->high, 2);
    for (int s = 0; s < 16; s++) {
        int low = s < 8 ? in->sub[s] & 15 : in->sub[s - 8] >> 4;
        int high = in->sub[8 + s % 4] >> s / 4 * 2 & 3;
        out->sub[s] = (uint8_t)(low | high << 4);
    }
}

static void read_q2_k(struct row_block *out, const struct block_q2_k *in)
{
    out->scale = in->scale;
    out->base = in->base;
    memcpy(out->sub, in->sub, 16);
    read_two_bits(out->q, in->q);
}

static void read_q4_k(struct row_block *out, const struct block_q4_k *in)
{
    out->scale = in->scale;
    out->base = in->base;
    read_six_pairs(out, in->sub);
    read_nibble_pairs(out->q, in->q);
}

static void read_q5_k(struct row_block *out, const struct block_q5_k *in)
{
    out->scale = in->scale;
    out->base = in->base;
    read_six_pairs(out, in->sub);
    read_nibble_pairs(out->q, in->q);
    add_high_bits(out->q, in->high, 4);
}

static void read_q8_k(struct row_block *out, const struct block_q8_k *in)
{
    memcpy(&out->whole, &in->scale, sizeof out->whole);
    read_bytes(out->q, in->q, PACK_K);
}

static void read_iq4_xs(struct row_block *out, const struct block_iq4_xs *in)
{
    out->scale = in->scale;
    for (int s = 0; s < 8; s++) {
        out->sub[s] = (uint8_t)((in->sub_low[s / 2] >> s % 2 * 4 & 15) | (in->sub_high >> 2 * s & 3) << 4);
        read_nibbles(out->q + 8 * s, in->q + 16 * s);
    }
}

enum { HALF_ONE = 0x3c00 };

/* Few files have the ternary types: by way of the numbers, in units of the scale, which is 1 for that. */
static void take_ternary(struct row_block *out, uint16_t scale, const float x[PACK_K])
{
    out->whole = float_of_half(scale);
    for (int i = 0; i < PACK_K; i++)
        ((uint8_t *)out->q)[i] = (uint8_t)(x[i] + 1);
}

static void read_tq1_0(struct row_block *out, const struct block_tq1_0 *in)
{
    struct block_tq1_0 unit = *in;
    float x[PACK_K];
    unit.scale = HALF_ONE;
    dequantise_tq1_0(x, &unit, PACK_K);
    take_ternary(out, in->scale, x);
}

static void read_tq2_0(struct row_block *out, const struct block_tq2_0 *in)
{
    struct block_tq2_0 unit = *in;
    float x[PACK_K];
    unit.scale = HALF_ONE;
    dequantise_tq2_0(x, &unit, PACK_K);
    take_ternary(out, in->scale, x);
}

static void read_long_block(struct row_block *out, enum weight_type type, const void *block)
{
    switch (type) {
    case WEIGHT_Q2_K:
        read_q2_k(out, block);
        break;
    case WEIGHT_Q3_K:
        read_q3_k(out, block);
        break;
    case WEIGHT_Q4_K:
        read_q4_k(out, block);
        break;
    case WEIGHT_Q5_K:
        read_q5_k(out, block);
        break;
    case WEIGHT_Q6_K:
        read_q6_k(out, block);
        break;
    case WEIGHT_Q8_K:
        read_q8_k(out, block);
        break;
    case WEIGHT_IQ4_XS:
        read_iq4_xs(out, block);
        break;
    case WEIGHT_TQ1_0:
        read_tq1_0(out, block);
        break;
    case WEIGHT_TQ2_0:
        read_tq2_0(out, block);
        break;
    default:
        assert(false);
    }
}

/* --- scales into their places --- */

static void put_half(uint8_t *at, int row, uint16_t half)
{
    memcpy(at + 2 * row, &half, sizeof half);
}

/* Dword d of a row among `per_row` of them: vectors of sixteen rows, each with its dwords one after the
 * other. */
static uint8_t *dword_place(uint8_t *at, int row, int d, int per_row)
{
    return at + ((row / 16 * per_row + d) * 16 + row % 16) * 4;
}

/* Sixteen fields of six bits in three dwords. A dword's halves hold fields 2p and 2p + 1 of a pair, so that a
 * mask and at most one shift give a pair as two 16-bit numbers: twelve fields in the low twelve bits of the
 * halves, the last four in what is left at their tops. */
static void put_six_fields(uint8_t *at, int row, const uint8_t field[16])
{
    uint32_t d[3];
    for (int i = 0; i < 3; i++)
        d[i] = (uint32_t)field[4 * i] | (uint32_t)field[4 * i + 1] << 16 | (uint32_t)field[4 * i + 2] << 6 |
               (uint32_t)field[4 * i + 3] << 22;
    d[0] |= (uint32_t)(field[12] & 15) << 12 | (uint32_t)(field[13] & 15) << 28;
    d[1] |= (uint32_t)(field[14] & 15) << 12 | (uint32_t)(field[15] & 15) << 28;
    d[2] |= (uint32_t)(field[12] >> 4) << 12 | (uint32_t)(field[13] >> 4) << 28 |
            (uint32_t)(field[14] >> 4) << 14 | (uint32_t)(field[15] >> 4) << 30;
    for (int i = 0; i < 3; i++)
        memcpy(dword_place(at, row, i, 3), &d[i], 4);
}

static void put_scales(uint8_t *at, enum scale_kind kind, int row, int blocks, const struct row_block *in)
{
    uint8_t field[16];
    switch (kind) {
    case SCALES_HALF:
    case SCALES_BF16:
        for (int b = 0; b < blocks; b++)
            put_half(at + b * 64, row, in->half[b]);
        break;
    case SCALES_HALF_MIN:
        for (int b = 0; b < blocks; b++) {
            put_half(at + b * 128, row, in->half[b]);
            put_half(at + b * 128 + 64, row, in->half_min[b]);
        }
        break;
    case SCALES_WHOLE:
        memcpy(at + 4 * row, &in->whole, sizeof in->whole);
        break;
    case SCALES_SIX_MIN:
        memcpy(field, in->sub, 8);
        memcpy(field + 8, in->sub_min, 8);
        put_six_fields(at, row, field);
        put_half(at + 6 * 64, row, in->scale);
        put_half(at + 7 * 64, row, in->base);
        break;
    case SCALES_SIX_32:
        for (int i = 0; i < 2; i++) {
            const uint8_t *s = in->sub + 4 * i;
            uint32_t d = (uint32_t)s[0] | (uint32_t)s[1] << 16 | (uint32_t)s[2] << 6 | (uint32_t)s[3] << 22;
            memcpy(dword_place(at, row, i, 2), &d, 4);
        }
        put_half(at + 4 * 64, row, in->scale);
        break;
    case SCALES_SIX_16:
        put_six_fields(at, row, in->sub);
        put_half(at + 6 * 64, row, in->scale);
        break;
    case SCALES_BYTE_16:
    case SCALES_NIBBLE_MIN:
        for (int i = 0; i < 4; i++)
            memcpy(dword_place(at, row, i, 4), in->sub + 4 * i, 4);
        put_half(at + 8 * 64, row, in->scale);
        if (kind == SCALES_NIBBLE_MIN)
            put_half(at + 9 * 64, row, in->base);
        break;
    }
}

/* --- quants into lines --- */

/* Nibbles of two neighbouring blocks in one dword each; of the last block alone when their number is odd. */
static uint32_t *press_nibbles(uint32_t *out, const uint32_t *q, int blocks)
{
    for (int p = 0; p < (blocks + 1) / 2; p++, out += 8, q += 16)
        for (int i = 0; i < 8; i++)
            out[i] = (q[i] & EACH(15)) | (q[i + 8] & EACH(15)) << 4;
    return out;
}

/* Two bits, `from` up, of four dwords in one. */
static uint32_t *press_two_bits(uint32_t *out, const uint32_t *q, int blocks, int from)
{
    for (int h = 0; h < 2 * blocks; h++, q += 4)
        *out++ = (q[0] >> from & EACH(3)) | (q[1] >> from & EACH(3)) << 2 | (q[2] >> from & EACH(3)) << 4 |
                 (q[3] >> from & EACH(3)) << 6;
    return out;
}

/* One bit of eight dwords in one. */
static uint32_t *press_one_bit(uint32_t *out, const uint32_t *q, int blocks, int from)
{
    for (int b = 0; b < blocks; b++, q += 8, out++) {
        *out = 0;
        for (int i = 0; i < 8; i++)
            *out |= (q[i] >> from & EACH(1)) << i;
    }
    return out;
}

/* The dwords of a row, in the order of planes and lines. q is 0 beyond its blocks. */
static void press(uint32_t *out, enum line_kind kind, int blocks, const uint32_t *q)
{
    switch (kind) {
    case LINES_8:
        memcpy(out, q, (size_t)blocks * PACK_BLOCK);
        break;
    case LINES_6:
        press_nibbles(press_two_bits(out, q, blocks, 4), q, blocks);
        break;
    case LINES_5:
        press_nibbles(press_one_bit(out, q, blocks, 4), q, blocks);
        break;
    case LINES_3:
        press_two_bits(press_one_bit(out, q, blocks, 2), q, blocks, 0);
        break;
    case LINES_2:
        press_two_bits(out, q, blocks, 0);
        break;
    default:
        press_nibbles(out, q, blocks);
    }
}

/* What is turned at a time: as many dwords of each row. Few enough that the rows stay in the first-level
 * cache. */
enum { TURN = PACK_K / 4 };

/* [PACK_ROWS][TURN] becomes [n][PACK_ROWS]. */
static void turn_dwords(uint8_t *out, const uint32_t (*rows)[TURN], int n)
{
    for (int i = 0; i < n; i++, out += GROUP_LINE) {
        uint32_t line[PACK_ROWS];
        for (int r = 0; r < PACK_ROWS; r++)
            line[r] = rows[r][i];
        memcpy(out, line, sizeof line);
    }
}

/* The same with elements of 16 bits. */
static void turn_words(uint8_t *out, const uint32_t (*rows)[TURN], int n)
{
    for (int i = 0; i < n; i += 2, out += GROUP_LINE) {
        uint16_t line[2][PACK_ROWS];
        for (int r = 0; r < PACK_ROWS; r++) {
            line[0][r] = (uint16_t)rows[r][i / 2];
            line[1][r] = (uint16_t)(rows[r][i / 2] >> 16);
        }
        memcpy(out, line, i + 1 < n ? sizeof line : sizeof line[0]);
    }
}

/* One super-block of up to 32 rows; the others become 0. */
static void pack_super_block(uint8_t *out, enum weight_type type, const char *rows, size_t row_bytes,
                             int n_rows, int blocks)
{
    const struct pack_format *f = &formats[type];
    size_t scales = scales_size(f->scales, blocks);
    size_t lines = planes_size(f->lines, blocks) + lines_size(f->lines, blocks);
    uint32_t pressed[PACK_ROWS][TURN];
    struct row_block row = { 0 };
    const struct weight_info *info = weight_info(type);

    memset(out, 0, scales);
    if (n_rows < PACK_ROWS)
        memset(pressed, 0, sizeof pressed);
    for (int r = 0; r < n_rows; r++) {
        const char *in = rows + (size_t)r * row_bytes;
        if (info->block_len == PACK_K)
            read_long_block(&row, type, in);
        else
            for (int b = 0; b < blocks; b++)
                read_short_block(&row, b, type, in + b * info->block_bytes);
        put_scales(out, f->scales, r, blocks, &row);
        press(pressed[r], f->lines, blocks, row.q);
    }
    turn_dwords(out + scales, (const uint32_t(*)[TURN])pressed, (int)(lines / GROUP_LINE));
}

/* [n][32] elements; those of rows that are not there become 0. */
static void pack_floats(uint8_t *out, const char *rows, size_t element, int n, int n_rows)
{
    uint32_t piece[PACK_ROWS][TURN];
    int per_piece = (int)(sizeof piece[0] / element);

    memset(piece, 0, sizeof piece);
    for (int first = 0; first < n; first += per_piece) {
        int count = n - first < per_piece ? n - first : per_piece;
        for (int r = 0; r < n_rows; r++)
            memcpy(piece[r], rows + ((size_t)r * (size_t)n + (size_t)first) * element,
                   (size_t)count * element);
        if (element == sizeof(uint32_t))
            turn_dwords(out, (const uint32_t(*)[TURN])piece, count);
        else
            turn_words(out, (const uint32_t(*)[TURN])piece, count);
        out += (size_t)count * PACK_ROWS * element;
    }
}

static void pack_group(uint8_t *out, enum weight_type type, const char *rows, int n, int n_rows)
{
    size_t row_bytes = weight_row_bytes(type, (uint64_t)n);
    if (formats[type].lines == LINES_FLOAT) {
        pack_floats(out, rows, type == WEIGHT_F32 ? 4 : 2, n, n_rows);
        return;
    }
    for (int s = 0; s < packed_super_blocks(n); s++) {
        int blocks = blocks_in(n, s);
        pack_super_block(out, type, rows + weight_row_bytes(type, (uint64_t)s * PACK_K), row_bytes, n_rows,
                         blocks);
        out += super_block_size(&formats[type], blocks);
    }
}

void pack_rows(void *packed, enum weight_type type, const void *rows, int n, int first, int last)
{
    size_t row_bytes = weight_row_bytes(type, (uint64_t)n), group_bytes = packed_group_size(type, n);
    assert(first % PACK_ROWS == 0);
    for (int i = first; i < last; i += PACK_ROWS)
        pack_group((uint8_t *)packed + (size_t)(i / PACK_ROWS) * group_bytes, type,
                   (const char *)rows + (size_t)i * row_bytes, n,
                   last - i < PACK_ROWS ? last - i : PACK_ROWS);
}
