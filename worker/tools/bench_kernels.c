/* woolly-bench-kernels: the measuring half of `woolly-bench kernels`. First what the machine can do at most,
 * then the products of every weight type and attention over every type of cache. Clocks and memory of shared
 * machines drift, so every repetition of a kernel stands beside a measurement of the ceilings taken in the
 * same second. */
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/numbers.h"
#include "common/progress.h"
#include "common/status.h"
#include "common/topology.h"
#include "worker/tools/bench_attention.h"
#include "worker/tools/bench_ceilings.h"
#include "worker/tools/bench_multiply.h"
#include "worker/tools/bench_run.h"

static const char help[] = "Usage: woolly-bench-kernels [-t T,...] [-r R] [--types TYPE,...] [--rows N,...]\n"
                           "       [--kv TYPE,...] [--ceilings]\n"
                           "\n"
                           "The measuring half of `woolly-bench kernels`, which see. Prints one JSON object\n"
                           "per line with what was measured in each repetition.\n";

/* How long a sample lasts at least. Long beside a scheduler's tick, short enough to take many. */
#define SAMPLE_S 0.03

struct lab {
    struct numbers threads, rows;
    struct numbers types;    /* of enum weight_type */
    struct numbers kv_types; /* of enum kv_type */
    int reps;
    bool only_ceilings;
    int n_cores;
    struct kernels kernels;

    char *memory; /* larger than any cache, in huge pages */
    size_t bytes;

    struct pool *pool; /* of the thread count being measured */
    int n_threads;
    int n_streams; /* those that read fastest with these threads */
    struct bench_share share;
};

/* Ceilings */

struct read_job {
    const struct lab *lab;
    int n_streams;
};

static void read_share(void *arg, int thread, int n_threads)
{
    const struct read_job *job = arg;
    int64_t first, last;
    pool_share((int64_t)job->lab->bytes, 4 * READ_GRAIN, thread, n_threads, &first, &last);
    ceiling_read(job->lab->memory + first, (size_t)(last - first), job->n_streams);
}

static double read_bytes_per_s(const struct lab *l, int n_streams)
{
    struct read_job job = { l, n_streams };
    double begin = bench_seconds();
    pool_run(l->pool, read_share, &job);
    return (double)l->bytes / (bench_seconds() - begin);
}

struct compute_job {
    const struct ceiling *ceiling;
    uint64_t rounds; /* of all threads together */
};

static void compute_share(void *arg, int thread, int n_threads)
{
    (void)thread;
    const struct compute_job *job = arg;
    job->ceiling->run(job->rounds / (uint64_t)n_threads);
}

/* Rounds grow until they last long enough. */
static double ops_per_s(const struct lab *l, const struct ceiling *c)
{
    struct compute_job job = { c, (uint64_t)l->n_threads << 16 };
    for (;; job.rounds *= 2) {
        double begin = bench_seconds();
        pool_run(l->pool, compute_share, &job);
        double s = bench_seconds() - begin;
        if (s >= SAMPLE_S / 2)
            return (double)job.rounds * c->round_ops / s;
    }
}

static void print_ceiling(const struct lab *l, const char *name, const char *how, const char *unit,
                          json_t *samples)
{
    bench_print(json_pack("{s:s, s:s, s:s, s:i, s:s, s:o}", "kind", "ceiling", "name", name, "how", how,
                          "threads", l->n_threads, "unit", unit, "samples", samples));
}

static void measure_reading(struct lab *l)
{
    double best[2] = { 0 };
    json_t *samples[2] = { json_array(), json_array() };
    for (int r = 0; r < l->reps; r++)
        for (int i = 0; i < 2; i++) {
            double rate = read_bytes_per_s(l, i ? 4 : 1);
            json_array_append_new(samples[i], json_real(rate));
            best[i] = rate > best[i] ? rate : best[i];
        }
    print_ceiling(l, "read", "1 stream per thread", "byte/s", samples[0]);
    print_ceiling(l, "read", "4 streams per thread", "byte/s", samples[1]);
    l->n_streams = best[1] > best[0] ? 4 : 1;
}

static void measure_ceilings(struct lab *l)
{
    measure_reading(l);
    for (const struct ceiling *c = ceilings_here(); c->name; c++) {
        json_t *samples = json_array();
        for (int r = 0; r < l->reps; r++)
            json_array_append_new(samples, json_real(ops_per_s(l, c)));
        print_ceiling(l, c->name, c->how, "op/s", samples);
    }
}

/* Kernels */

struct bench_case {
    int rows, depth;
    double bytes, ops; /* of a pass */
};

/* A kernel and the cases it is measured in. */
struct bench_kernel {
    const char *name, *type, *ceiling;
    int n_cases;
    struct bench_case cases[NUMBERS_MAX];
    void *state;
    void (*set)(void *state, const struct bench_case *c);
    void (*pass)(void *state, struct pool *pool);
};

/* The first, widest one of the name; NULL where the machine, or this program for it, has none. */
static const struct ceiling *find_ceiling(const char *name)
{
    for (const struct ceiling *c = ceilings_here(); c->name; c++)
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

static double seconds_per_pass(const struct lab *l, const struct bench_kernel *k, const struct bench_case *c)
{
    k->set(k->state, c);
    double begin = bench_seconds(), s;
    int passes = 0;
    do {
        k->pass(k->state, l->pool);
        passes++;
        s = bench_seconds() - begin;
    } while (s < SAMPLE_S);
    return s / passes;
}

static void print_kernel(const struct lab *l, const struct bench_kernel *k, json_t *const *seconds,
                         json_t *read, json_t *peak)
{
    for (int i = 0; i < k->n_cases; i++)
        bench_print(json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:o, s:s, s:O, s:O}", "kind",
                              "kernel", "name", k->name, "type", k->type, "rows", k->cases[i].rows, "depth",
                              k->cases[i].depth, "threads", l->n_threads, "bytes", k->cases[i].bytes, "ops",
                              k->cases[i].ops, "seconds", seconds[i], "ceiling", k->ceiling, "read", read,
                              "peak", peak));
}

static void measure_kernel(struct lab *l, const struct bench_kernel *k)
{
    const struct ceiling *ceiling = find_ceiling(k->ceiling);
    json_t *read = json_array(), *peak = json_array(), *seconds[NUMBERS_MAX];

    for (int i = 0; i < k->n_cases; i++)
        seconds[i] = json_array();
    bench_share_begin(&l->share);
    for (int r = 0; r < l->reps; r++) {
        json_array_append_new(read, json_real(read_bytes_per_s(l, l->n_streams)));
        if (ceiling)
            json_array_append_new(peak, json_real(ops_per_s(l, ceiling)));
        for (int i = 0; i < k->n_cases; i++) {
            progress_update(k->type, (uint64_t)(r * k->n_cases + i), (uint64_t)(l->reps * k->n_cases));
            json_array_append_new(seconds[i], json_real(seconds_per_pass(l, k, &k->cases[i])));
        }
    }
    bench_share_end(&l->share, l->n_threads);
    progress_end();
    print_kernel(l, k, seconds, read, peak);
    json_decref(read);
    json_decref(peak);
}

static void set_rows(void *state, const struct bench_case *c)
{
    multiply_set_rows(state, c->rows);
}

static void pass_multiply(void *state, struct pool *pool)
{
    multiply_pass(state, pool);
}

static void measure_products(struct lab *l, enum weight_type type)
{
    struct multiply m;
    struct bench_kernel k = { .name = "multiply",
                              .type = weight_name(type),
                              .ceiling = type == WEIGHT_BF16                        ? "bf16"
                                         : type == WEIGHT_F32 || type == WEIGHT_F16 ? "f32"
                                                                                    : "int8",
                              .n_cases = l->rows.n,
                              .state = &m,
                              .set = set_rows,
                              .pass = pass_multiply };
    multiply_init(&m, &l->kernels, type, l->memory, l->bytes / 2);
    for (int i = 0; i < k.n_cases; i++) {
        int rows = l->rows.values[i];
        k.cases[i] =
            (struct bench_case){ rows, 0, (double)m.matrix_bytes, 2.0 * MULTIPLY_IN * MULTIPLY_OUT * rows };
    }
    measure_kernel(l, &k);
    multiply_fini(&m);
}

static void set_depth(void *state, const struct bench_case *c)
{
    attention_set(state, c->rows, c->depth);
}

static void pass_attention(void *state, struct pool *pool)
{
    attention_pass(state, pool);
}

/* A row that decodes, and as many of a prompt as a tile takes, in short and in long sequences. */
static void measure_attention(struct lab *l, enum kv_type type)
{
    static const int depths[] = { 512, 4096 }, rows[] = { 1, ATTENTION_MAX_ROWS };
    struct attention_bench a;
    struct bench_kernel k = { .name = "attention",
                              .type = kv_type_name(type),
                              .ceiling = type == KV_Q8 || type == KV_Q4 ? "int8" : "f32",
                              .state = &a,
                              .set = set_depth,
                              .pass = pass_attention };
    attention_init(&a, &l->kernels, type, l->memory, l->bytes / 2, l->n_threads);
    for (int d = 0; d < 2; d++)
        for (int r = 0; r < 2; r++) {
            attention_set(&a, rows[r], depths[d]);
            k.cases[k.n_cases++] =
                (struct bench_case){ rows[r], depths[d], attention_bytes(&a), attention_ops(&a) };
        }
    measure_kernel(l, &k);
    attention_fini(&a);
}

/* The lab */

/* Of the cache the first core shares with its neighbours; 0 when nobody says. Not what sysconf says: where
 * there are several, that is their sum. */
static size_t last_cache_bytes(void)
{
    unsigned kib = 0;
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%uK", &kib) != 1)
        kib = 0;
    fclose(f);
    return (size_t)kib << 10;
}

static enum status map_memory(struct lab *l, struct error *err)
{
    const size_t gib = (size_t)1 << 30, huge_page = (size_t)2 << 20;
    size_t most = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 4;
    l->bytes = last_cache_bytes() * 8 > gib ? last_cache_bytes() * 8 : gib;
    if (l->bytes > most)
        l->bytes = most;
    l->bytes = l->bytes / huge_page * huge_page;
    void *map = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return error_set(err, E_NOMEM, "cannot map %zu MB to read", l->bytes >> 20);
    madvise(map, l->bytes, MADV_HUGEPAGE); /* where there are none, small pages are what the machine has */
    l->memory = map;
    memset(l->memory, 1, l->bytes);
    return OK;
}

static enum status measure(struct lab *l, struct error *err)
{
    bench_print(json_pack("{s:s, s:s, s:i, s:I, s:[i,i]}", "kind", "machine", "isa", isa_name(l->kernels.isa),
                          "cores", l->n_cores, "memory_bytes", (json_int_t)l->bytes, "shape", MULTIPLY_IN,
                          MULTIPLY_OUT));
    for (int i = 0; i < l->threads.n; i++) {
        enum status s = pool_create(&l->pool, l->threads.values[i], err);
        if (s != OK)
            return s;
        l->n_threads = l->threads.values[i];
        bench_share_begin(&l->share);
        measure_ceilings(l);
        bench_share_end(&l->share, l->n_threads);
        for (int t = 0; t < l->types.n; t++)
            measure_products(l, (enum weight_type)l->types.values[t]);
        for (int t = 0; t < l->kv_types.n; t++)
            measure_attention(l, (enum kv_type)l->kv_types.values[t]);
        pool_destroy(l->pool);
        l->pool = NULL;
    }
    bench_print(json_pack("{s:s, s:f, s:f}", "kind", "share", "cpu_s", l->share.cpu_s, "wanted_s",
                          l->share.wanted_s));
    return OK;
}

/* Options */

static int misused(const char *what, const char *value)
{
    fprintf(stderr, "woolly-bench kernels: %s, not \"%.80s\" (see --help)\n", what, value);
    return EXIT_USAGE;
}

static const char *weight_word(int type)
{
    return multiply_knows((enum weight_type)type) ? weight_name((enum weight_type)type) : NULL;
}

static const char *kv_word(int type)
{
    return kv_type_name((enum kv_type)type);
}

/* Words with commas between, of n that `word_of` knows; it gives NULL for gaps. */
static bool parse_words(const char *text, const char *(*word_of)(int), int n, struct numbers *list)
{
    for (list->n = 0; list->n < NUMBERS_MAX;) {
        size_t len = strcspn(text, ",");
        int i = 0;
        while (i < n && !(word_of(i) && strlen(word_of(i)) == len && !strncmp(word_of(i), text, len)))
            i++;
        if (i == n)
            return false;
        list->values[list->n++] = i;
        if (!text[len])
            return true;
        text += len + 1;
    }
    return false;
}

static void add_all(const char *(*word_of)(int), int n, struct numbers *list)
{
    for (int i = 0; i < n && list->n < NUMBERS_MAX; i++)
        if (word_of(i))
            list->values[list->n++] = i;
}

/* 1, 2, 4, ... and all. */
static void default_threads(int n_cores, struct numbers *list)
{
    for (int t = 1; t < n_cores && list->n < NUMBERS_MAX - 1; t *= 2)
        list->values[list->n++] = t;
    list->values[list->n++] = n_cores;
}

/* -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct lab *l)
{
    static const struct option options[] = {
        { "types", required_argument, NULL, 'T' }, { "rows", required_argument, NULL, 'R' },
        { "kv", required_argument, NULL, 'K' },    { "ceilings", no_argument, NULL, 'C' },
        { "help", no_argument, NULL, 'h' },        { 0 },
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "t:r:h", options, NULL)) != -1)
        switch (option) {
        case 't':
            if (!numbers_parse(optarg, 1, 1024, &l->threads))
                return misused("-t wants numbers from 1 to 1024 with commas between", optarg);
            break;
        case 'r':
            if (!number_parse(optarg, 1, BENCH_MAX_REPS, &l->reps))
                return misused("-r wants a number from 1 to 1000", optarg);
            break;
        case 'T':
            if (!parse_words(optarg, weight_word, WEIGHT_TYPES, &l->types))
                return misused("--types wants weight types that have products, with commas between", optarg);
            break;
        case 'K':
            if (!parse_words(optarg, kv_word, KV_TYPES, &l->kv_types))
                return misused("--kv wants types of caches, with commas between", optarg);
            break;
        case 'R':
            if (!numbers_parse(optarg, 1, MULTIPLY_MAX_ROWS, &l->rows))
                return misused("--rows wants numbers from 1 to 512 with commas between", optarg);
            break;
        case 'C':
            l->only_ceilings = true;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_SUCCESS;
        default:
            return misused("it wants options it knows, with their values", argv[optind - 1]);
        }
    if (optind != argc)
        return misused("it wants options only", argv[optind]);
    if (l->only_ceilings && (l->types.n || l->kv_types.n))
        return misused("with --ceilings only those are measured", l->types.n ? "--types" : "--kv");
    return -1;
}

int main(int argc, char **argv)
{
    struct lab l = { .reps = 5, .rows = { 6, { 1, 4, 8, 32, 128, 512 } } };
    struct error err;
    struct topology topology;
    char problem[120];
    enum isa isa;

    int status = parse(argc, argv, &l);
    if (status >= 0)
        return status;
    if (!isa_choose(&isa, problem, sizeof problem)) {
        fprintf(stderr, "woolly-bench kernels: %s\n", problem);
        return EXIT_USAGE;
    }
    kernels_init(&l.kernels, isa);
    topology_init(&topology);
    l.n_cores = topology.n_cores;
    topology_fini(&topology);
    if (!l.threads.n)
        default_threads(l.n_cores, &l.threads);
    if (!l.types.n && !l.kv_types.n && !l.only_ceilings) {
        add_all(weight_word, WEIGHT_TYPES, &l.types);
        add_all(kv_word, KV_TYPES, &l.kv_types);
    }
    if (map_memory(&l, &err) != OK || measure(&l, &err) != OK) {
        fprintf(stderr, "woolly-bench kernels: %s\n", err.text);
        return EXIT_NOT_MEASURABLE;
    }
    return EXIT_SUCCESS;
}
