/* A loop keeps as many sums going as it takes to hide the latency of its instruction (4 to 6 cycles, two per
 * cycle), all in registers. Sums begin with different values: compilers would make equal ones into one. */
#include "worker/tools/bench_ceilings.h"

#include <math.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#endif

enum { SUMS = 16, SUMS_AVX2 = 10 }; /* AVX2 has 16 registers, and inputs and products need some of them */

#define TARGET(features) __attribute__((target(features)))

/* Makes the compiler believe that somebody wants the value. */
#define USE_INTEGER(x) __asm__ volatile("" : : "r"(x))

/* The streams of one thread read lines of 64 bytes in turn; TYPE is what one load takes. */
#define READ_STREAMS(TYPE, LOAD, ADD)                                                                        \
    for (size_t at = 0; at < part; at += 64)                                                                 \
        for (int s = 0; s < N_STREAMS; s++) {                                                                \
            const char *line = p + (size_t)s * part + at;                                                    \
            for (size_t i = 0; i < 64 / sizeof(TYPE); i++)                                                   \
                sum[s] = ADD(sum[s], LOAD((const void *)(line + i * sizeof(TYPE))));                         \
        }

#define PLAIN_LOAD(address) (*(const uint64_t *)(address))
#define PLAIN_ADD(a, b)     ((a) + (b))

#define READER(name, target, N, TYPE, ZERO, LOAD, ADD, FIRST)                                                \
    target static void name(const char *p, size_t bytes)                                                     \
    {                                                                                                        \
        enum { N_STREAMS = N };                                                                              \
        const size_t part = bytes / N_STREAMS;                                                               \
        TYPE sum[N_STREAMS];                                                                                 \
        for (int s = 0; s < N_STREAMS; s++)                                                                  \
            sum[s] = ZERO;                                                                                   \
        READ_STREAMS(TYPE, LOAD, ADD)                                                                        \
        for (int s = 1; s < N_STREAMS; s++)                                                                  \
            sum[0] = ADD(sum[0], sum[s]);                                                                    \
        USE_INTEGER(FIRST(sum[0]));                                                                          \
    }

READER(read_1, , 1, uint64_t, 0, PLAIN_LOAD, PLAIN_ADD, )
READER(read_4, , 4, uint64_t, 0, PLAIN_LOAD, PLAIN_ADD, )

/* Multiply and add where nothing better is known: as vectors of the build's own instruction set. */
static void f32_plain(uint64_t rounds)
{
    enum { LANES = 4 * SUMS };
    float sum[LANES];
    for (int i = 0; i < LANES; i++)
        sum[i] = (float)i;
    for (uint64_t r = 0; r < rounds; r++)
        for (int i = 0; i < LANES; i++)
#ifdef __FP_FAST_FMAF
            sum[i] = fmaf(sum[i], 0.999f, 0.001f);
#else
            sum[i] = sum[i] * 0.999f + 0.001f;
#endif
    for (int i = 1; i < LANES; i++)
        sum[0] += sum[i];
    USE_INTEGER((int)sum[0]);
}

#ifdef __x86_64__

#define LOW_LANE_256(x) _mm_cvtsi128_si32(_mm256_castsi256_si128(x))
#define LOW_LANE_512(x) _mm_cvtsi128_si32(_mm512_castsi512_si128(x))

READER(read_1_avx2, TARGET("avx2"), 1, __m256i, _mm256_setzero_si256(), _mm256_load_si256, _mm256_add_epi32,
       LOW_LANE_256)
READER(read_4_avx2, TARGET("avx2"), 4, __m256i, _mm256_setzero_si256(), _mm256_load_si256, _mm256_add_epi32,
       LOW_LANE_256)
READER(read_1_avx512, TARGET("avx512f"), 1, __m512i, _mm512_setzero_si512(), _mm512_load_si512,
       _mm512_add_epi32, LOW_LANE_512)
READER(read_4_avx512, TARGET("avx512f"), 4, __m512i, _mm512_setzero_si512(), _mm512_load_si512,
       _mm512_add_epi32, LOW_LANE_512)

/* A loop of N sums; STEP makes the next value of `s`. */
#define LOOP(name, target, N, TYPE, START, STEP, ADD, FIRST)                                                 \
    target static void name(uint64_t rounds)                                                                 \
    {                                                                                                        \
        TYPE sum[N];                                                                                         \
        for (int i = 0; i < N; i++)                                                                          \
            sum[i] = START(i);                                                                               \
        for (uint64_t r = 0; r < rounds; r++) {                                                              \
            _Pragma("GCC unroll 16") for (int i = 0; i < N; i++)                                             \
            {                                                                                                \
                TYPE s = sum[i];                                                                             \
                sum[i] = STEP;                                                                               \
            }                                                                                                \
        }                                                                                                    \
        for (int i = 1; i < N; i++)                                                                          \
            sum[0] = ADD(sum[0], sum[i]);                                                                    \
        USE_INTEGER(FIRST(sum[0]));                                                                          \
    }

#define BYTES_256        _mm256_set1_epi8(3)
#define BYTES_512        _mm512_set1_epi8(3)
#define FLOATS_256       _mm256_set1_ps(0.5f)
#define FLOATS_512       _mm512_set1_ps(0.5f)
#define HALVES_512       ((__m512bh)_mm512_set1_epi16(0x3f00)) /* 0.5 */
#define LOW_FLOAT_256(x) LOW_LANE_256(_mm256_castps_si256(x))
#define LOW_FLOAT_512(x) LOW_LANE_512(_mm512_castps_si512(x))

/* Products of bytes without a dot product: pairs to 16 bits, fours to 32, added to the sum. The pairs depend
 * on the sum, or the compiler would take them out of the loop. */
#define FOURS_256(s)                                                                                         \
    _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(s, BYTES_256), _mm256_set1_epi16(1)))

LOOP(int8_avx2, TARGET("avx2"), SUMS_AVX2, __m256i, _mm256_set1_epi32, FOURS_256(s), _mm256_add_epi32,
     LOW_LANE_256)
LOOP(f32_avx2, TARGET("avx2,fma"), SUMS_AVX2, __m256, _mm256_set1_ps,
     _mm256_fmadd_ps(FLOATS_256, FLOATS_256, s), _mm256_add_ps, LOW_FLOAT_256)
LOOP(int8_avxvnni, TARGET("avx2,avxvnni"), SUMS_AVX2, __m256i, _mm256_set1_epi32,
     _mm256_dpbusd_avx_epi32(s, BYTES_256, BYTES_256), _mm256_add_epi32, LOW_LANE_256)
LOOP(int8_avx512, TARGET("avx512f,avx512vnni"), SUMS, __m512i, _mm512_set1_epi32,
     _mm512_dpbusd_epi32(s, BYTES_512, BYTES_512), _mm512_add_epi32, LOW_LANE_512)
LOOP(f32_avx512, TARGET("avx512f"), SUMS, __m512, _mm512_set1_ps, _mm512_fmadd_ps(FLOATS_512, FLOATS_512, s),
     _mm512_add_ps, LOW_FLOAT_512)
LOOP(bf16_avx512, TARGET("avx512f,avx512bf16"), SUMS, __m512, _mm512_set1_ps,
     _mm512_dpbf16_ps(s, HALVES_512, HALVES_512), _mm512_add_ps, LOW_FLOAT_512)

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* Clang 14 cannot ask for this one by name. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

static const struct {
    struct ceiling ceiling;
    bool (*is_here)(void);
} known[] = {
    { { "int8", "vpdpbusd 512", SUMS * 128, int8_avx512 }, has_avx512vnni },
    { { "int8", "vpdpbusd 256", SUMS_AVX2 * 64, int8_avxvnni }, has_avxvnni },
    { { "int8", "vpmaddubsw 256", SUMS_AVX2 * 64, int8_avx2 }, has_avx2 },
    { { "bf16", "vdpbf16ps 512", SUMS * 64, bf16_avx512 }, has_avx512bf16 },
    { { "f32", "vfmadd 512", SUMS * 32, f32_avx512 }, has_avx512 },
    { { "f32", "vfmadd 256", SUMS_AVX2 * 16, f32_avx2 }, has_avx2 },
};
enum { N_KNOWN = sizeof known / sizeof *known };

#endif

static const struct ceiling plain = { "f32", "plain C", 4 * SUMS * 2, f32_plain };

const struct ceiling *ceilings_here(void)
{
    static struct ceiling here[8];
    int n = 0;
    if (here[0].name)
        return here;
#ifdef __x86_64__
    for (int i = 0; i < N_KNOWN; i++)
        if (known[i].is_here())
            here[n++] = known[i].ceiling;
#endif
    if (!n)
        here[n++] = plain;
    return here;
}

void ceiling_read(const char *p, size_t bytes, int n_streams)
{
#ifdef __x86_64__
    if (has_avx512()) {
        (n_streams == 4 ? read_4_avx512 : read_1_avx512)(p, bytes);
        return;
    }
    if (has_avx2()) {
        (n_streams == 4 ? read_4_avx2 : read_1_avx2)(p, bytes);
        return;
    }
#endif
    (n_streams == 4 ? read_4 : read_1)(p, bytes);
}
