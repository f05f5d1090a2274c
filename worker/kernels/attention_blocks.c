/* Blocks of the cache: their layout, and keys and values put in and taken out. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "worker/kernels/attention_tile.h"
#include "worker/kernels/half.h"
#include "worker/kernels/kernels.h"

static const char *const names[KV_TYPES] = { "f16", "bf16", "q8", "q4", "f32" };

/* Numbers widened or rounded at a time. */
enum { RUN = 64 };

const char *kv_type_name(enum kv_type type)
{
    return names[type];
}

bool kv_type_parse(const char *name, enum kv_type *out)
{
    for (int i = 0; i < KV_TYPES; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum kv_type)i;
            return true;
        }
    return false;
}

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

static size_t lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

struct kv_layout kv_layout(enum kv_type type, int head_dim)
{
    struct kv_layout l = { .type = type, .head_dim = head_dim };
    bool is_integer = type == KV_Q8 || type == KV_Q4;
    size_t bits = type == KV_F32 ? 32 : type == KV_Q8 ? 8 : type == KV_Q4 ? 4 : 16;
    size_t scale_bytes = !is_integer ? 0 : type == KV_Q4 ? 2 * sizeof(uint16_t) : sizeof(uint16_t);

    l.depth = is_integer ? round_up(head_dim, 8) : head_dim;
    l.width = round_up(head_dim, type == KV_Q4 ? 32 : 16);
    l.n_parts = round_up(head_dim, KV_PART) / KV_PART;
    l.k = lines(KV_BLOCK * (size_t)l.n_parts * scale_bytes);
    l.v_scales = l.k + lines(KV_BLOCK * (size_t)l.depth * bits / 8);
    l.v = l.v_scales + lines(KV_BLOCK * scale_bytes);
    l.bytes = l.v + lines(KV_BLOCK * (size_t)l.width * bits / 8);
    return l;
}

/* --- floats --- */

static uint16_t bf16_of_float(float x)
{
    uint32_t bits = bits_of_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void round_floats(const struct kernels *k, enum kv_type type, uint16_t *out, const float *x, int n)
{
    if (type == KV_F16)
        k->store_f16(out, x, n);
    else
        for (int i = 0; i < n; i++)
            out[i] = bf16_of_float(x[i]);
}

static float float_at(enum kv_type type, const char *from, size_t i)
{
    if (type == KV_F32)
        return ((const float *)(const void *)from)[i];
    uint16_t bits = ((const uint16_t *)(const void *)from)[i];
    return type == KV_F16 ? float_of_half(bits) : float_of_bf16(bits);
}

static size_t key_at(const struct kv_layout *l, int i, int d)
{
    return ((size_t)(i / KV_GROUP) * (size_t)l->depth + (size_t)d) * KV_GROUP + (size_t)(i % KV_GROUP);
}

static void store_floats(const struct kernels *k, const struct kv_layout *l, char *block, int i,
                         const float *key, const float *value)
{
    size_t v_at = (size_t)i * (size_t)l->width;
    if (l->type == KV_F32) {
        float *keys = (void *)(block + l->k), *values = (void *)(block + l->v);
        for (int d = 0; d < l->head_dim; d++)
            keys[key_at(l, i, d)] = key[d];
        memcpy(values + v_at, value, (size_t)l->head_dim * sizeof *value);
        return;
    }
    uint16_t *keys = (void *)(block + l->k), *values = (void *)(block + l->v), rounded[RUN];
    for (int first = 0; first < l->head_dim; first += RUN) {
        int n = l->head_dim - first < RUN ? l->head_dim - first : RUN;
        round_floats(k, l->type, rounded, key + first, n);
        for (int d = 0; d < n; d++)
            keys[key_at(l, i, first + d)] = rounded[d];
    }
    round_floats(k, l->type, values + v_at, value, l->head_dim);
}

/* --- integers --- */

/* Where the scale of a part of a key lies, or of a value. In q4 the minimum is key_scales, or KV_BLOCK,
 * further on. */
static size_t key_scale_at(const struct kv_layout *l, int i, int part)
{
    return (size_t)((i / KV_GROUP * l->n_parts + part) * KV_GROUP + i % KV_GROUP);
}

static size_t key_scales(const struct kv_layout *l)
{
    return (size_t)(KV_BLOCK * l->n_parts);
}

/* The byte of the first element of a key: each four elements are a line of 64 bytes apart, in q4 each eight,
 * of which the second four are in the high halves. */
static size_t key_byte_at(const struct kv_layout *l, int i)
{
    int lines_of_group = l->type == KV_Q4 ? l->depth / 8 : l->depth / 4;
    return l->k + (size_t)(i / KV_GROUP * lines_of_group * 64 + i % KV_GROUP * 4);
}

/* The byte of the first element of a value: each sixteen elements are a line apart, in q4 each 32, of which
 * the second sixteen are in the high halves. */
static size_t value_byte_at(const struct kv_layout *l, int i)
{
    int lines_of_quad = l->type == KV_Q4 ? l->width / 32 : l->width / 16;
    return l->v + (size_t)(i / 4 * lines_of_quad * 64 + i % 4);
}

/* How numbers become integers: x is about scale * integer, plus least in q4. */
struct rule {
    uint16_t scale, least;
    float low, inverse;
    int lowest, highest;
};

static bool is_finite_half(uint16_t half)
{
    return (half & 0x7c00) != 0x7c00;
}

/* The scale is NaN for what holds infinity or NaN, or is too large for a scale in f16; too small a scale
 * makes 0 of all. */
static struct rule find_rule(enum kv_type type, const float *x, int n)
{
    float low = x[0], high = x[0];
    bool is_finite = true;
    for (int i = 0; i < n; i++) {
        is_finite = is_finite && fabsf(x[i]) <= FLT_MAX;
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    struct rule r = { .lowest = -127, .highest = 127 };
    if (type == KV_Q4) {
        r = (struct rule){ .highest = 15, .least = half_of_float(low) };
        r.low = float_of_half(r.least);
        r.scale = half_of_float((high - r.low) / 15);
    } else
        r.scale = half_of_float((high > -low ? high : -low) / 127);
    if (!is_finite || !is_finite_half(r.scale) || !is_finite_half(r.least))
        r.scale = 0x7e00;
    else if (r.scale)
        r.inverse = 1 / float_of_half(r.scale);
    return r;
}

/* To nearest, ties to even. */
static int apply(const struct rule *r, float x)
{
    float quotient = (x - r->low) * r->inverse;
    if (!(quotient > (float)r->lowest))
        return r->lowest;
    if (quotient >= (float)r->highest)
        return r->highest;
    return (int)bits_of_float(quotient + 0x1.8p23f) - (int)bits_of_float(0x1.8p23f);
}

static void put_half(uint8_t *byte, int half, bool is_high)
{
    *byte = (uint8_t)(is_high ? (*byte & 15) | half << 4 : (*byte & 240) | half);
}

/* Keys of q8 lie as 128 more than they are: byte dot products want one side without a sign. */
static void store_key(const struct kv_layout *l, char *block, int i, const float *key)
{
    uint16_t *scales = (void *)block;
    uint8_t *bytes = (uint8_t *)block + key_byte_at(l, i);
    for (int part = 0; part < l->n_parts; part++) {
        int first = part * KV_PART, last = first + KV_PART < l->head_dim ? first + KV_PART : l->head_dim;
        struct rule r = find_rule(l->type, key + first, last - first);
        size_t at = key_scale_at(l, i, part);
        scales[at] = r.scale;
        if (l->type == KV_Q4) {
            scales[at + key_scales(l)] = r.least;
            for (int d = first; d < last; d++)
                put_half(bytes + d / 8 * 64 + d % 4, apply(&r, key[d]), d / 4 % 2);
        } else
            for (int d = first; d < last; d++)
                bytes[d / 4 * 64 + d % 4] = (uint8_t)(128 + apply(&r, key[d]));
    }
}

static void store_value(const struct kv_layout *l, char *block, int i, const float *value)
{
    uint16_t *scales = (void *)(block + l->v_scales);
    uint8_t *bytes = (uint8_t *)block + value_byte_at(l, i);
    struct rule r = find_rule(l->type, value, l->head_dim);
    scales[i] = r.scale;
    if (l->type == KV_Q4) {
        scales[i + KV_BLOCK] = r.least;
        for (int d = 0; d < l->head_dim; d++)
            put_half(bytes + d / 32 * 64 + d % 16 * 4, apply(&r, value[d]), d / 16 % 2);
    } else
        for (int d = 0; d < l->head_dim; d++)
            bytes[d / 16 * 64 + d % 16 * 4] = (uint8_t)apply(&r, value[d]);
}

static float half_of(uint8_t byte, bool is_high)
{
    return (float)(is_high ? byte >> 4 : byte & 15);
}

static void load_integers(const struct kv_layout *l, const char *block, int i, float *key, float *value)
{
    const uint16_t *k_scales = (const void *)block, *v_scales = (const void *)(block + l->v_scales);
    const uint8_t *k = (const uint8_t *)block + key_byte_at(l, i);
    const uint8_t *v = (const uint8_t *)block + value_byte_at(l, i);
    float v_scale = float_of_half(v_scales[i]);
    for (int d = 0; d < l->head_dim; d++) {
        size_t at = key_scale_at(l, i, d / KV_PART);
        float scale = float_of_half(k_scales[at]);
        if (l->type == KV_Q4) {
            key[d] = scale * half_of(k[d / 8 * 64 + d % 4], d / 4 % 2) +
                     float_of_half(k_scales[at + key_scales(l)]);
            value[d] = v_scale * half_of(v[d / 32 * 64 + d % 16 * 4], d / 16 % 2) +
                       float_of_half(v_scales[i + KV_BLOCK]);
        } else {
            key[d] = scale * (float)(k[d / 4 * 64 + d % 4] - 128);
            value[d] = v_scale * (float)(int8_t)v[d / 16 * 64 + d % 16 * 4];
        }
    }
}

/* --- both --- */

void kv_store(const struct kernels *k, const struct kv_layout *l, char *block, int i, const float *key,
              const float *value)
{
    if (l->type == KV_Q8 || l->type == KV_Q4) {
        store_key(l, block, i, key);
        store_value(l, block, i, value);
    } else
        store_floats(k, l, block, i, key, value);
}

void kv_load(const struct kv_layout *l, const char *block, int i, float *key, float *value)
{
    if (l->type == KV_Q8 || l->type == KV_Q4) {
        load_integers(l, block, i, key, value);
        return;
    }
    for (int d = 0; d < l->head_dim; d++) {
        key[d] = float_at(l->type, block + l->k, key_at(l, i, d));
        value[d] = float_at(l->type, block + l->v, (size_t)i * (size_t)l->width + (size_t)d);
    }
}
