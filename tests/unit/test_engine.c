/* The engine's promise, on small random models of every architecture and kind of weight kernel and on every
 * instruction set: the logits of a row are bit for bit the same whatever shares its step, however a prompt is
 * cut, with any number of threads, in a slot used before. And what model_open and engine_create refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/utf8.h"
#include "common/xalloc.h"
#include "worker/kernels/kernels.h"
#include "worker/model/engine.h"
#include "worker/model/gguf_write.h"

enum { N_CTX = 64, N_TOKENS = 37, N_SLOTS = 3, MAX_ROWS = 64 };

static const char *const types[] = { "F32", "F16", "BF16", "Q8_0", "Q4_0" };
enum { N_TYPES = sizeof types / sizeof *types };

/* One model or more for every way the forward pass can go, besides those of `types`. Windows are narrower
 * than the text, experts more than a row uses. */
static const struct variant {
    const char *name, *options;
} variants[] = {
    { "window", "--arch llama --type Q8_0 --window 11" },
    { "mixtral", "--arch llama --type Q4_0 --experts 8" },
    { "old-mixtral", "--arch llama --type Q4_0 --experts 8 --own-experts" },
    { "granitemoe", "--arch granitemoe --type Q8_0 --experts 5 --experts-used 3 --expert-ff 64" },
    { "qwen2moe", "--arch qwen2moe --type Q8_0 --experts 6 --shared-ff 96" },
    { "uneven", /* experts that end amid a vector and a thread's share */
      "--arch qwen2moe --type F16 --experts 5 --experts-used 3 --expert-ff 37 --shared-ff 45" },
    { "qwen3", "--arch qwen3 --type F16 --head-dim 32 --rope yarn" },
    { "gemma2", "--arch gemma2 --type Q5_1 --window 13" },
    { "phi3", "--arch phi3 --type IQ4_NL --rot 12" },
    { "gpt2", "--arch gpt2 --type Q8_0" },
    { "bitnet", "--arch bitnet --type F32" },
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

static char folder[] = "/tmp/woolly-test-engine-XXXXXX";

static char *model_path(const char *name)
{
    return xasprintf("%s/%s.gguf", folder, name);
}

/* Odd shapes: heads of 16 in groups of 3, and sums that fill no vector. */
static int make_model(const char *name, const char *options)
{
    char *path = model_path(name);
    char *command = xasprintf("'%s' --out '%s' --layers 3 --embd 96 --heads 6 --kv-heads 2 --ff 160 "
                              "--vocab 331 --ctx %d --seed 5 %s >/dev/null",
                              MAKE_GGUF, path, N_CTX, options);
    int code = system(command);
    free(command);
    free(path);
    return code;
}

static int make_models(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    for (int t = 0; t < N_TYPES; t++) {
        char *options = xasprintf("--type %s", types[t]);
        int code = make_model(types[t], options);
        free(options);
        if (code)
            return -1;
    }
    for (int v = 0; v < N_VARIANTS; v++)
        if (make_model(variants[v].name, variants[v].options))
            return -1;
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES + N_VARIANTS; i++) {
        char *path = model_path(i < N_TYPES ? types[i] : variants[i - N_TYPES].name);
        unlink(path);
        free(path);
    }
    return rmdir(folder);
}

static struct model *open_model(const char *name)
{
    struct model *m;
    struct error err;
    char *path = model_path(name);
    if (model_open(&m, path, &err) != OK)
        fail_msg("%s", err.text);
    free(path);
    return m;
}

static struct engine *create_engine(const struct model *m, int n_threads, enum kv_type kv_type)
{
    struct engine_options o = {
        .n_threads = n_threads, .n_slots = N_SLOTS, .n_ctx = N_CTX, .max_rows = MAX_ROWS, .kv_type = kv_type
    };
    struct engine *e;
    struct error err;
    if (engine_create(&e, m, &o, &err) != OK)
        fail_msg("%s", err.text);
    return e;
}

/* The i-th token of sequence s. */
static int32_t token_of(int s, int i, int n_vocab)
{
    return (int32_t)(((unsigned)i * 37u + (unsigned)s * 101u + (unsigned)(i * i) % 13u) % (unsigned)n_vocab);
}

/* One row per step, every position: what all other ways are compared with. */
static float *reference_logits(const struct model *m, enum kv_type kv_type)
{
    size_t n_vocab = (size_t)model_facts(m)->n_vocab;
    float *all = xcalloc(N_TOKENS * n_vocab, sizeof *all);
    struct engine *e = create_engine(m, 1, kv_type);
    for (int i = 0; i < N_TOKENS; i++) {
        struct row row = { .token = token_of(0, i, (int)n_vocab), .pos = i, .want_logits = true };
        engine_step(e, &row, 1);
        memcpy(all + (size_t)i * n_vocab, engine_logits(e, 0), n_vocab * sizeof *all);
    }
    for (size_t i = 0; i < N_TOKENS * n_vocab; i++)
        assert_true(isfinite(all[i]));
    engine_destroy(e);
    return all;
}

/* Gives sequence 0 to `slot` in chunks; between its rows stand rows of sequences 1 and 2 in the other slots,
 * each at a place of its own, if `mixed`. */
static void check_chunks(struct engine *e, const float *expected, int chunk, bool mixed, int slot,
                         int n_vocab)
{
    struct row rows[MAX_ROWS];
    int other_pos[2] = { 0, 0 };
    for (int start = 0; start < N_TOKENS; start += chunk) {
        int n = 0, n_logits = 0, index[MAX_ROWS], count = 0;
        for (int i = start; i < start + chunk && i < N_TOKENS; i++) {
            if (mixed && i % 3 != 1 && n < MAX_ROWS - 1 && other_pos[i % 2] < N_CTX) {
                int s = i % 2;
                rows[n++] = (struct row){ .token = token_of(s + 1, other_pos[s], n_vocab),
                                          .slot = (slot + 1 + s) % N_SLOTS,
                                          .pos = other_pos[s],
                                          .want_logits = i % 5 == 0 };
                other_pos[s]++;
                n_logits += i % 5 == 0;
            }
            index[count++] = n_logits++;
            rows[n++] =
                (struct row){ .token = token_of(0, i, n_vocab), .slot = slot, .pos = i, .want_logits = true };
        }
        engine_step(e, rows, n);
        for (int i = 0; i < count; i++)
            assert_memory_equal(engine_logits(e, index[i]), expected + (size_t)(start + i) * (size_t)n_vocab,
                                (size_t)n_vocab * sizeof(float));
    }
}

static void check_model(const char *name, enum kv_type kv_type, int fewest_threads, int most_threads)
{
    static const int chunks[] = { 1, 3, 7, N_TOKENS };
    struct model *m = open_model(name);
    int n_vocab = model_facts(m)->n_vocab;
    float *expected = reference_logits(m, kv_type);
    for (int n_threads = fewest_threads; n_threads <= most_threads; n_threads++) {
        struct engine *e = create_engine(m, n_threads, kv_type);
        for (int c = 0; c < 4; c++)
            for (int mixed = 0; mixed < 2; mixed++)
                check_chunks(e, expected, chunks[c], mixed, (c + mixed) % N_SLOTS, n_vocab);
        engine_destroy(e);
    }
    free(expected);
    model_close(m);
}

static void check_every_level(enum kv_type kv_type)
{
    for (enum isa isa = ISA_SCALAR; isa < ISA_COUNT; isa++) {
        if (!isa_is_available(isa)) {
            print_message("NOT RUN: %s, this machine does not have it\n", isa_name(isa));
            continue;
        }
        setenv("WOOLLY_ISA", isa_name(isa), 1);
        /* What the cache holds has nothing to do with the weights: one type is enough for the second kind.
         * How work is cut has nothing to do with the level: three threads, slow on two cores, are for one
         * model. */
        for (int t = 0; t < N_TYPES; t++)
            if (kv_type == KV_F32 || t == 0)
                check_model(types[t], kv_type, 1, t == 0 ? 3 : 2);
        for (int v = 0; v < N_VARIANTS; v++)
            if (kv_type == KV_F32 || v == 0)
                check_model(variants[v].name, kv_type, 2, 2);
    }
    unsetenv("WOOLLY_ISA");
}

static void test_logits_do_not_depend_on_neighbours_chunks_threads_or_slots_with_an_f32_cache(void **state)
{
    (void)state;
    check_every_level(KV_F32);
}

static void test_logits_do_not_depend_on_neighbours_chunks_threads_or_slots_with_an_f16_cache(void **state)
{
    (void)state;
    check_every_level(KV_F16);
}

/* --- experts in tensors of their own --- */

static void test_experts_in_tensors_of_their_own_give_the_same_logits(void **state)
{
    (void)state;
    struct model *stacked = open_model("mixtral"), *single = open_model("old-mixtral");
    float *expected = reference_logits(stacked, KV_F32), *logits = reference_logits(single, KV_F32);
    assert_null(gguf_find_tensor(model_gguf(single), "blk.0.ffn_up_exps.weight"));
    assert_memory_equal(logits, expected, N_TOKENS * (size_t)model_facts(stacked)->n_vocab * sizeof *logits);
    free(logits);
    free(expected);
    model_close(single);
    model_close(stacked);
}

/* The numbers of t, which is of a type of blocks, as F32. */
static float *dequantised(const struct gguf_tensor *t)
{
    uint64_t row_bytes = weight_row_bytes(t->type, t->dims[0]);
    float *x = xcalloc(t->dims[0] * t->dims[1], sizeof *x);
    for (uint64_t r = 0; r < t->dims[1]; r++)
        weight_dequantise(t->type)(x + r * t->dims[0], (const char *)t->data + r * row_bytes,
                                   (int)t->dims[0]);
    return x;
}

/* A copy of the model in which the experts of that number have F32 weights. */
static void write_with_wide_expert(const char *path, const struct gguf *from, const char *expert)
{
    struct gguf_writer *w;
    struct error err;
    assert_int_equal(gguf_writer_create(&w, path, 32, &err), OK);
    for (uint64_t i = 0; i < gguf_n_entries(from); i++)
        gguf_writer_put(w, gguf_entry(from, i)->key, &gguf_entry(from, i)->value);
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = 0; i < gguf_n_tensors(from); i++) {
            const struct gguf_tensor *t = gguf_tensor(from, i);
            bool is_wide = memmem(t->name.text, t->name.len, expert, strlen(expert)) != NULL;
            if (pass == 0) {
                gguf_writer_add_tensor(w, t->name, is_wide ? WEIGHT_F32 : t->type, t->n_dims, t->dims);
                continue;
            }
            float *wide = is_wide ? dequantised(t) : NULL;
            const void *bytes = is_wide ? wide : t->data;
            uint64_t len = is_wide ? t->dims[0] * t->dims[1] * sizeof *wide : t->bytes;
            assert_int_equal(gguf_writer_data(w, bytes, len, &err), OK);
            free(wide);
        }
    }
    assert_int_equal(gguf_writer_commit(w, &err), OK);
    gguf_writer_destroy(w);
}

/* Files of that kind have come with types that differ within a layer. */
static void test_each_expert_may_have_a_type_of_its_own(void **state)
{
    (void)state;
    struct model *plain = open_model("old-mixtral");
    float *expected = reference_logits(plain, KV_F32);
    size_t n = N_TOKENS * (size_t)model_facts(plain)->n_vocab;
    static const char *const wide[] = { ".0.weight", ".5.weight" };

    for (int i = 0; i < 2; i++) {
        char *path = model_path("mixed");
        double error = 0, size = 0;
        write_with_wide_expert(path, model_gguf(plain), wide[i]);
        struct model *mixed = open_model("mixed");
        float *logits = reference_logits(mixed, KV_F32);
        for (size_t k = 0; k < n; k++) {
            error += pow((double)logits[k] - (double)expected[k], 2);
            size += pow((double)expected[k], 2);
        }
        /* They differ by the rounding of what meets one expert in eight. */
        if (!(error > 0 && sqrt(error / size) < 0.02))
            fail_msg("relative difference %g", sqrt(error / size));
        free(logits);
        model_close(mixed);
        unlink(path);
        free(path);
    }
    free(expected);
    model_close(plain);
}

static void test_rows_that_want_no_logits_get_none_and_change_nothing(void **state)
{
    (void)state;
    struct model *m = open_model("Q8_0");
    int n_vocab = model_facts(m)->n_vocab;
    float *expected = reference_logits(m, KV_F32);
    struct engine *e = create_engine(m, 2, KV_F32);
    struct row rows[N_TOKENS];
    for (int i = 0; i < N_TOKENS; i++)
        rows[i] = (struct row){
            .token = token_of(0, i, n_vocab), .slot = 1, .pos = i, .want_logits = i == 4 || i == N_TOKENS - 1
        };
    engine_step(e, rows, N_TOKENS);
    assert_memory_equal(engine_logits(e, 0), expected + 4 * n_vocab, (size_t)n_vocab * sizeof(float));
    assert_memory_equal(engine_logits(e, 1), expected + (N_TOKENS - 1) * n_vocab,
                        (size_t)n_vocab * sizeof(float));
    engine_destroy(e);
    model_close(m);
    free(expected);
}

/* The i-th row's hidden state times the output matrix gives its logits; where the matrix is that of the
 * embedding and has f32, the test can do that itself. */
static void test_a_hidden_state_is_what_logits_are_computed_from(void **state)
{
    (void)state;
    struct model *m = open_model("F32");
    const struct gguf_tensor *embedding = gguf_find_tensor(model_gguf(m), "token_embd.weight");
    const struct gguf_tensor *output = gguf_find_tensor(model_gguf(m), "output.weight");
    const float *matrix = (output ? output : embedding)->data;
    int n_vocab = model_facts(m)->n_vocab;
    struct engine *e = create_engine(m, 2, KV_F32);
    int n_embd = engine_n_embd(e), n_logits = 0, n_hidden = 0;
    struct row rows[N_TOKENS];
    assert_int_equal(n_embd, model_facts(m)->n_embd);
    for (int i = 0; i < N_TOKENS; i++)
        rows[i] = (struct row){
            .token = token_of(0, i, n_vocab), .pos = i, .want_logits = i % 3 == 0, .want_hidden = i % 2 == 0
        };
    engine_step(e, rows, N_TOKENS);
    for (int i = 0; i < N_TOKENS; i++) {
        const float *hidden = rows[i].want_hidden ? engine_hidden(e, n_hidden++) : NULL;
        const float *logits = rows[i].want_logits ? engine_logits(e, n_logits++) : NULL;
        for (int t = 0; hidden && logits && t < n_vocab; t++) {
            double sum = 0, size = 0;
            for (int k = 0; k < n_embd; k++) {
                double term = (double)hidden[k] * (double)matrix[(size_t)t * (size_t)n_embd + (size_t)k];
                sum += term;
                size += fabs(term);
            }
            assert_true(fabs(sum - (double)logits[t]) <= n_embd * 0x1p-23 * size);
        }
    }
    engine_destroy(e);
    model_close(m);
}

static void test_rows_that_want_only_a_hidden_state_get_the_same(void **state)
{
    (void)state;
    struct model *m = open_model("Q8_0");
    struct engine *e = create_engine(m, 2, KV_F16);
    int n_embd = engine_n_embd(e), n_vocab = model_facts(m)->n_vocab;
    size_t bytes = (size_t)n_embd * sizeof(float);
    struct row rows[2] = { { .token = 5, .want_logits = true, .want_hidden = true },
                           { .token = 7 % n_vocab, .pos = 1, .want_hidden = true } };
    engine_step(e, rows, 2);
    float *both = xcalloc(2, bytes);
    memcpy(both, engine_hidden(e, 0), bytes);
    memcpy(both + n_embd, engine_hidden(e, 1), bytes);
    for (int i = 0; i < 2; i++) {
        rows[i].want_logits = false;
        rows[i].slot = 1;
        engine_step(e, &rows[i], 1);
        assert_memory_equal(engine_hidden(e, 0), both + (size_t)i * (size_t)n_embd, bytes);
    }
    free(both);
    engine_destroy(e);
    model_close(m);
}

/* Saved pages go by it. */
static void test_fingerprints_tell_models_apart(void **state)
{
    (void)state;
    struct model *m = open_model("F16"), *again = open_model("F16"), *other = open_model("Q8_0");
    assert_int_equal(model_fingerprint(m), model_fingerprint(again));
    assert_true(model_fingerprint(m) != model_fingerprint(other));
    struct engine *e = create_engine(m, 1, KV_F16), *f = create_engine(again, 2, KV_F16);
    assert_int_equal(engine_fingerprint(e), engine_fingerprint(f));
    engine_destroy(e);
    engine_destroy(f);
    model_close(m);
    model_close(again);
    model_close(other);
}

static void expect_refusal(const struct model *m, struct engine_options o, enum status status)
{
    struct engine *e = (void *)1;
    struct error err = { 0 };
    assert_int_equal(engine_create(&e, m, &o, &err), status);
    assert_null(e);
    assert_true(strlen(err.text) > 0);
}

/* A cache of an eighth of the memory fits; what a thousand threads need to share its attention does not. */
static void test_threads_and_context_that_take_too_much_are_named(void **state)
{
    (void)state;
    struct model *m = open_model("Q4_0");
    struct engine_options o = {
        .n_threads = 1, .n_slots = 1, .n_ctx = N_CTX, .max_rows = 8, .kv_type = KV_F16
    };
    struct engine *e;
    struct error err;
    if (engine_create(&e, m, &o, &err) != OK)
        fail_msg("%s", err.text);
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t positions = memory / 8 / (engine_kv_bytes(e) / N_CTX);
    engine_destroy(e);
    o.n_threads = 1024;
    o.n_ctx = positions < 1 << 28 ? (int)positions : 1 << 28;
    assert_int_equal(engine_create(&e, m, &o, &err), E_LIMIT);
    assert_non_null(strstr(err.text, "1024 threads that share the attention of"));
    model_close(m);
}

static void test_absurd_sizes_are_refused(void **state)
{
    (void)state;
    struct model *m = open_model("Q4_0");
    expect_refusal(m, (struct engine_options){ 1, 1 << 16, 1 << 28, 8, KV_F32, 0 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1, INT32_MAX, 64, 8, KV_F32, 0 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1, 1, INT32_MAX, 8, KV_F16, 0 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1, 1, 64, INT32_MAX, KV_F16, 0 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1000000, 1, 64, 8, KV_F16, 0 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 0, 1, 64, 8, KV_F16, 0 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1, 1, 64, 8, KV_F16, -1 }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1, 1, 64, 8, KV_F16, INT32_MAX }, E_LIMIT);
    expect_refusal(m, (struct engine_options){ 1, 2, 129, 8, KV_F16, 2 }, E_LIMIT); /* a sequence takes 3 */
    setenv("WOOLLY_ISA", "abacus", 1);
    expect_refusal(m, (struct engine_options){ 1, 1, 64, 8, KV_F16, 0 }, E_INVALID);
    unsetenv("WOOLLY_ISA");
    model_close(m);
}

static void test_the_cache_size_is_what_full_slots_take(void **state)
{
    (void)state;
    struct model *m = open_model("F32");
    struct engine *e = create_engine(m, 1, KV_F16);
    /* layers, keys and values, KV heads of 16, 2 bytes */
    assert_int_equal(engine_kv_bytes(e), 3 * 2 * (2 * 16) * 2 * N_CTX * N_SLOTS);
    engine_destroy(e);
    model_close(m);
}

/* --- files with one fact changed --- */

/* Opens the model of that name with the bytes of `find` replaced (all of them where there are several); says
 * how that ended. With value_at >= 0, `with` replaces what lies that far behind `find` instead. */
static enum status open_changed_as(struct model **m, const char *name, const char *find, int value_at,
                                   const void *with, size_t with_len, struct error *err)
{
    char *path = model_path(name), *copy = xasprintf("%s/changed.gguf", folder);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size_t len = (size_t)ftell(f);
    char *bytes = xmalloc(len);
    rewind(f);
    assert_int_equal(fread(bytes, 1, len, f), len);
    fclose(f);
    char *at = memmem(bytes, len, find, strlen(find));
    assert_non_null(at);
    memcpy(value_at < 0 ? at : at + strlen(find) + value_at, with, with_len);
    f = fopen(copy, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
    free(bytes);

    enum status s = model_open(m, copy, err);
    unlink(copy);
    free(copy);
    free(path);
    return s;
}

static enum status open_changed(const char *name, const char *find, int value_at, const void *with,
                                size_t with_len, struct error *err)
{
    struct model *m;
    enum status s = open_changed_as(&m, name, find, value_at, with, with_len, err);
    if (s == OK)
        model_close(m);
    else
        assert_null(m);
    return s;
}

static void test_a_bad_fact_is_refused_by_its_key(void **state)
{
    (void)state;
    const struct {
        const char *key;
        uint32_t value;
    } facts[] = {
        { "llama.embedding_length", 0 },
        { "llama.embedding_length", 0xffffffff },
        { "llama.block_count", 0 },
        { "llama.block_count", 0x7fffffff },
        { "llama.context_length", 0 },
        { "llama.feed_forward_length", 0 },
        { "llama.attention.head_count", 0 },
        { "llama.attention.head_count_kv", 0 },
        { "llama.attention.head_count_kv", 4 },
        { "llama.attention.head_count", 0x10000000 },
    };
    struct error err;
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        /* Behind the key stand four bytes of kind, then the value. */
        assert_int_equal(open_changed("F32", facts[i].key, 4, &facts[i].value, 4, &err), E_FORMAT);
        assert_non_null(strstr(err.text, facts[i].key));
    }
}

static void test_a_model_that_contradicts_its_facts_is_refused_by_tensor(void **state)
{
    (void)state;
    uint32_t more = 4, wide = 192;
    struct error err;
    assert_int_equal(open_changed("F32", "llama.block_count", 4, &more, 4, &err), E_FORMAT);
    assert_non_null(strstr(err.text, "blk.3.attn_norm.weight"));
    more = 2;
    assert_int_equal(open_changed("F32", "llama.block_count", 4, &more, 4, &err), E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "blk.2."));
    assert_int_equal(open_changed("F32", "llama.embedding_length", 4, &wide, 4, &err), E_FORMAT);
    assert_non_null(strstr(err.text, "token_embd.weight"));
    assert_int_equal(open_changed("F32", "blk.1.ffn_up.weight", -1, "blk.1.ffn_xx.weight", 19, &err),
                     E_FORMAT);
    assert_non_null(strstr(err.text, "blk.1.ffn_up.weight"));
}

static void test_another_architecture_is_refused_by_name(void **state)
{
    (void)state;
    struct error err;
    /* Behind the key stand four bytes of kind and eight of length, then the text. */
    assert_int_equal(open_changed("F32", "general.architecture", 12, "mamba", 5, &err), E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "mamba"));
    assert_int_equal(open_changed("F32", "general.architecture", 12, "\x9b\x33\x31m\xff", 5, &err),
                     E_UNSUPPORTED);
    assert_true(utf8_is_valid(err.text, strlen(err.text)));
}

static void test_facts_of_other_architectures_are_checked_too(void **state)
{
    (void)state;
    const struct {
        const char *model, *find;
        int value_at; /* as open_changed has it */
        uint32_t value;
        enum status status;
        const char *named; /* in the error */
    } changes[] = {
        { "granitemoe", "granitemoe.expert_count", 4, 0, E_FORMAT, "granitemoe.expert_count" },
        { "granitemoe", "granitemoe.expert_count", 4, 6, E_FORMAT, "blk.0.ffn_gate_inp.weight" },
        { "granitemoe", "granitemoe.expert_used_count", 4, 6, E_FORMAT, "granitemoe.expert_used_count" },
        { "granitemoe", "granitemoe.expert_feed_forward_length", 4, 96, E_FORMAT, "ffn_gate_exps.weight" },
        { "granitemoe", "granitemoe.residual_scale", 4, 0xbf800000, E_FORMAT, "granitemoe.residual_scale" },
        { "gemma2", "gemma2.attn_logit_softcapping", 4, 0xbf800000, E_FORMAT, "attn_logit_softcapping" },
        { "qwen3", "qwen3.rope.scaling.factor", 4, 0x7fc00000, E_FORMAT, "qwen3.rope.scaling.factor" },
        { "qwen3", "qwen3.attention.layer_norm_rms_epsilon", 4, 0, E_FORMAT, "layer_norm_rms_epsilon" },
        { "gemma2", "gemma2.attn_logit_softcapping", 4, 0x7fc00000, E_FORMAT, "attn_logit_softcapping" },
        { "gemma2", "blk.2.post_ffw_norm", -1, 0x316b6c62, E_FORMAT, "blk.2.post_ffw_norm.weight" },
        { "qwen3", "qwen3.attention.key_length", 4, 16, E_UNSUPPORTED, "qwen3.attention.value_length" },
        { "qwen3", "yarn", -1, 0x6e726162, E_UNSUPPORTED, "'barn'" },
        { "gpt2", "gpt2.context_length", 4, N_CTX + 1, E_FORMAT, "position_embd.weight" },
        { "gpt2", "blk.1.ffn_up.bias", -1, 0x316b6c62, E_FORMAT, "blk.1.ffn_up.bias" },
        { "phi3", "rope_factors_short", -1, 0x65706f73, E_FORMAT, "rope_factors_short.weight" },
        { "bitnet", "blk.0.attn_sub_norm", -1, 0x316b6c62, E_FORMAT, "blk.0.attn_sub_norm.weight" },
    };
    struct error err;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        enum status s =
            open_changed(changes[i].model, changes[i].find, changes[i].value_at, &changes[i].value, 4, &err);
        assert_int_equal(s, changes[i].status);
        if (!strstr(err.text, changes[i].named))
            fail_msg("no %s in: %s", changes[i].named, err.text);
    }
}

/* What a model has where its file says 0 under that key. */
static struct model_facts facts_with_zero(const char *name, const char *key)
{
    struct model *m;
    struct error err;
    uint32_t zero = 0;
    if (open_changed_as(&m, name, key, 4, &zero, 4, &err) != OK)
        fail_msg("%s", err.text);
    struct model_facts facts = *model_facts(m);
    model_close(m);
    return facts;
}

static void test_a_zero_is_what_a_model_does_not_set(void **state)
{
    (void)state;
    assert_true(facts_with_zero("qwen3", "qwen3.rope.scaling.factor").rope.factor == 1);
    assert_true(facts_with_zero("granitemoe", "granitemoe.attention.scale").attention_scale == 0.25f);
    assert_true(facts_with_zero("granitemoe", "granitemoe.embedding_scale").embedding_scale == 1);
    assert_true(facts_with_zero("granitemoe", "granitemoe.residual_scale").residual_scale == 1);
    assert_true(facts_with_zero("granitemoe", "granitemoe.logit_scale").logit_scale == 1);
    assert_true(facts_with_zero("gemma2", "gemma2.attn_logit_softcapping").attention_cap == 0);
    assert_true(facts_with_zero("gemma2", "gemma2.final_logit_softcapping").logit_cap == 0);
}

/* No architecture we know has such experts; a file that claims them is not one of those. */
static void test_experts_chosen_by_another_function_are_refused_by_name(void **state)
{
    (void)state;
    struct {
        char key[27];
        uint32_t kind, value;
    } __attribute__((packed)) gating = { .kind = 4, .value = 2 };
    struct error err;
    memcpy(gating.key, "qwen2moe.expert_gating_func", sizeof gating.key);
    assert_int_equal(
        open_changed("qwen2moe", "tokenizer.ggml.bos_token_id", -1, &gating, sizeof gating, &err),
        E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "qwen2moe.expert_gating_func is 2"));
}

static void test_a_slot_is_no_longer_than_the_positions_a_model_learned(void **state)
{
    (void)state;
    struct model *m = open_model("gpt2");
    expect_refusal(m, (struct engine_options){ 1, 1, N_CTX + 1, 8, KV_F32, 0 }, E_LIMIT);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_do_not_depend_on_neighbours_chunks_threads_or_slots_with_an_f32_cache),
        cmocka_unit_test(test_logits_do_not_depend_on_neighbours_chunks_threads_or_slots_with_an_f16_cache),
        cmocka_unit_test(test_experts_in_tensors_of_their_own_give_the_same_logits),
        cmocka_unit_test(test_each_expert_may_have_a_type_of_its_own),
        cmocka_unit_test(test_rows_that_want_no_logits_get_none_and_change_nothing),
        cmocka_unit_test(test_a_hidden_state_is_what_logits_are_computed_from),
        cmocka_unit_test(test_rows_that_want_only_a_hidden_state_get_the_same),
        cmocka_unit_test(test_fingerprints_tell_models_apart),
        cmocka_unit_test(test_threads_and_context_that_take_too_much_are_named),
        cmocka_unit_test(test_absurd_sizes_are_refused),
        cmocka_unit_test(test_the_cache_size_is_what_full_slots_take),
        cmocka_unit_test(test_a_bad_fact_is_refused_by_its_key),
        cmocka_unit_test(test_a_model_that_contradicts_its_facts_is_refused_by_tensor),
        cmocka_unit_test(test_another_architecture_is_refused_by_name),
        cmocka_unit_test(test_facts_of_other_architectures_are_checked_too),
        cmocka_unit_test(test_a_zero_is_what_a_model_does_not_set),
        cmocka_unit_test(test_experts_chosen_by_another_function_are_refused_by_name),
        cmocka_unit_test(test_a_slot_is_no_longer_than_the_positions_a_model_learned),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
