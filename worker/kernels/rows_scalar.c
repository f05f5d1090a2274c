/* The reference of what is done to a row of activations between two products. */
#include <float.h>
#include <math.h>

#include "worker/kernels/half.h"
#include "worker/kernels/levels.h"

#define LOGIT_LANES 4
#include "worker/kernels/logits.h"

static void rms_norm(float *out, const float *x, const float *weight, int n, float eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    float factor = (float)(1 / sqrt(sum / n + eps));
    for (int i = 0; i < n; i++)
        out[i] = x[i] * factor * weight[i];
}

static void layer_norm(float *out, const float *x, const float *weight, const float *bias, int n, float eps)
{
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / n;
    for (int i = 0; i < n; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    double factor = 1 / sqrt(squares / n + (double)eps);
    for (int i = 0; i < n; i++)
        out[i] = (float)(((double)x[i] - mean) * factor) * weight[i] + bias[i];
}

static void rope(float *x, const float *cosines, const float *sines, int n_pairs)
{
    for (int i = 0; i < n_pairs; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cosines[i] - b * sines[i];
        x[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
}

static void rope_halves(float *x, const float *cosines, const float *sines, int n_pairs)
{
    for (int i = 0; i < n_pairs; i++) {
        float a = x[i], b = x[i + n_pairs];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + n_pairs] = a * sines[i] + b * cosines[i];
    }
}

static void silu_gate(float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++)
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

/* x / 2 (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3) is x / (1 + exp(-2 u)). */
static void gelu_gate(float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++) {
        float x = gate[i], u = GELU_SCALE * (x + GELU_CUBE * x * x * x);
        gate[i] = x / (1 + expf(-2 * u)) * (up ? up[i] : 1);
    }
}

static void soft_cap(float *x, float cap, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static void add(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++)
        x[i] += y[i];
}

static void store_f16(uint16_t *out, const float *x, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = half_of_float(x[i]);
}

static int collect(float *found, int32_t *places, const float *x, int n, const float *maxima, float least,
                   float most)
{
    int n_found = 0;
    for (int at = 0; at < n; at += LOGIT_BLOCK) {
        int end = n - at < LOGIT_BLOCK ? n : at + LOGIT_BLOCK;
        if (maxima && maxima[at / LOGIT_BLOCK] < least)
            continue;
        for (int i = at; i < end; i++) {
            bool is_found = x[i] >= least && x[i] <= most;
            found[n_found] = x[i] < FLT_MAX ? x[i] : FLT_MAX;
            places[n_found] = i;
            n_found += is_found;
        }
    }
    return n_found;
}

void rows_init_scalar(struct kernels *k)
{
    logits_init(k);
    k->logits.collect = collect;
    k->rms_norm = rms_norm;
    k->layer_norm = layer_norm;
    k->rope = rope;
    k->rope_halves = rope_halves;
    k->silu_gate = silu_gate;
    k->gelu_gate = gelu_gate;
    k->soft_cap = soft_cap;
    k->add = add;
    k->store_f16 = store_f16;
}
