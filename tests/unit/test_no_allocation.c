/* A token costs arithmetic, never memory: from the first step of an engine to its last neither a step nor
 * a choice asks for any, and the scheduler around them only when a job begins. Every way to ask is counted,
 * of any thread and of the C library too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/engine_world.h"
#include "worker/kernels/kernels.h"
#include "worker/kv/prefix.h"
#include "worker/sampler.h"
#include "worker/scheduler.h"
#include "worker/token/tokenizer.h"

/* --- the counter --- */

static atomic_long n_requests;

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__

/* A sanitizer has an allocator of its own, and tells. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));

static void on_malloc(const volatile void *p, size_t n)
{
    (void)p;
    (void)n;
    atomic_fetch_add(&n_requests, 1);
}

static void on_free(const volatile void *p)
{
    atomic_fetch_add(&n_requests, p != NULL);
}

static void begin_counting(void)
{
    static bool is_installed;
    if (!is_installed)
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    is_installed = true;
}

#else

static void begin_counting(void)
{
}

/* What these names stand for everywhere in this program, in front of the C library's own. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *old, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void __libc_free(void *p);

void *malloc(size_t n)
{
    atomic_fetch_add(&n_requests, 1);
    return __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    atomic_fetch_add(&n_requests, 1);
    return __libc_calloc(count, n);
}

void *realloc(void *old, size_t n)
{
    atomic_fetch_add(&n_requests, 1);
    return __libc_realloc(old, n);
}

void free(void *p)
{
    atomic_fetch_add(&n_requests, p != NULL);
    __libc_free(p);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    atomic_fetch_add(&n_requests, 1);
    return __libc_memalign(alignment, n);
}

void *memalign(size_t alignment, size_t n);
void *memalign(size_t alignment, size_t n)
{
    return aligned_alloc(alignment, n);
}

int posix_memalign(void **out, size_t alignment, size_t n)
{
    void *p = aligned_alloc(alignment, n);
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    atomic_fetch_add(&n_requests, 1);
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}

int munmap(void *at, size_t n)
{
    atomic_fetch_add(&n_requests, 1);
    return (int)syscall(SYS_munmap, at, n);
}

void *sbrk(intptr_t more)
{
    (void)more;
    atomic_fetch_add(&n_requests, 1);
    errno = ENOMEM;
    return (void *)-1;
}

#endif

static void test_the_counter_sees_every_way_to_ask(void **state)
{
    (void)state;
    void *volatile p; /* or compilers leave out what is given back at once */
    long before = n_requests;
    p = malloc(10);
    assert_int_equal(n_requests, before + 1);
    p = realloc(p, 1000);
    assert_true(n_requests > before + 1);
    before = n_requests;
    free(p);
    assert_int_equal(n_requests, before + 1);
    p = calloc(3, 5);
    assert_int_equal(n_requests, before + 2);
    free(p);
    p = aligned_alloc(64, 128);
    assert_int_equal(n_requests, before + 4);
    free(p);
    before = n_requests;
    p = strdup("by the C library"); /* from inside of it */
    assert_int_equal(n_requests, before + 1);
    free(p);
}

/* --- models --- */

enum { N_CTX = 300, N_SLOTS = 8, MAX_ROWS = N_SLOTS * (1 + SPECULATE_MOST) + SCHEDULER_PREFILL_ROWS };

static const struct shape {
    const char *name, *options;
} shapes[] = {
    { "plain", "--type Q4_K --embd 768 --heads 12 --kv-heads 4 --ff 1024" },
    { "narrow", "--type F16 --embd 90 --heads 5 --kv-heads 1 --ff 100" },
    { "window", "--arch gemma2 --type Q8_0 --embd 96 --heads 6 --kv-heads 2 --ff 160 --window 70" },
    { "experts", "--arch qwen2moe --type Q8_0 --embd 96 --heads 6 --kv-heads 2 --ff 160 --experts 5 "
                 "--experts-used 3 --expert-ff 64 --shared-ff 96" },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static int make_models(void **state)
{
    char more[80];
    (void)state;
    if (!world_begin())
        return -1;
    begin_counting();
    snprintf(more, sizeof more, "--layers 2 --vocab 640 --ctx %d --seed 3", N_CTX);
    for (int i = 0; i < N_SHAPES; i++)
        if (!world_make_model(shapes[i].name, shapes[i].options, more))
            return -1;
    return 0;
}

static struct engine *create_engine(const struct model *m, int n_threads, enum kv_type kv_type)
{
    struct engine_options o = {
        .n_threads = n_threads, .n_slots = N_SLOTS, .n_ctx = N_CTX, .max_rows = MAX_ROWS, .kv_type = kv_type
    };
    return world_create_engine(m, &o);
}

/* --- steps and choices --- */

static const struct sampling ways[] = {
    { .temperature = 0, .top_p = 1 },
    { .temperature = 1, .top_p = 1, .seed = 3 },
    { .temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .min_p = 0.05f, .seed = 5 },
    { .temperature = 1.5f, .top_p = 0.95f, .n_logprobs = SAMPLER_MAX_LOGPROBS },
};
enum { N_WAYS = sizeof ways / sizeof *ways };

/* Every slot gets a prompt, in steps of up to MAX_ROWS rows, then all go on token by token. */
static void read_and_go_on(struct engine *e, struct sampler *s)
{
    static struct row rows[MAX_ROWS];
    int32_t token[N_SLOTS];
    struct choice choice;
    for (int slot = 0; slot < N_SLOTS; slot++) {
        int n = 1 + slot * 37;
        for (int i = 0; i < n; i++)
            rows[i] = (struct row){
                .token = 300 + (i * 7 + slot) % 300, .slot = slot, .pos = i, .want_logits = i == n - 1
            };
        engine_step(e, rows, n);
        assert_true(sampler_choose(s, &ways[slot % N_WAYS], engine_logits(e, 0), (uint64_t)n, &choice));
        token[slot] = choice.token.id;
    }
    for (int step = 0; step < 30; step++) {
        int n = 1 + step % N_SLOTS;
        for (int slot = 0; slot < n; slot++)
            rows[slot] = (struct row){
                .token = token[slot], .slot = slot, .pos = 1 + slot * 37 + step / N_SLOTS, .want_logits = true
            };
        engine_step(e, rows, n);
        for (int slot = 0; slot < n; slot++) {
            assert_true(sampler_choose(s, &ways[(slot + step) % N_WAYS], engine_logits(e, slot),
                                       (uint64_t)step, &choice));
            token[slot] = choice.token.id;
        }
    }
}

/* Pages are published, found, shared, copied and given back. */
static void pass_pages_on(struct engine *e)
{
    enum { LONGEST = N_SLOTS - 1 };
    static const int32_t tokens[KV_BLOCK];
    struct kv_cache *c = engine_cache(e);
    struct kv_salt none = { 0 };
    assert_true(kv_cache_publish(c, LONGEST, 0, tokens, none));
    kv_cache_truncate(c, 0, 0);
    assert_true(kv_cache_adopt(c, 0, 0, tokens, none));
    assert_true(kv_cache_reserve(c, 0, 0, 1));
    kv_cache_truncate(c, 0, 0);
    kv_cache_share(c, LONGEST, 0, KV_BLOCK);
}

static void check_steps(const char *name, int n_threads, enum kv_type kv_type)
{
    struct model *m = world_open_model(name);
    struct engine *e = create_engine(m, n_threads, kv_type);
    struct sampler *s = sampler_create(model_facts(m)->n_vocab);
    struct row first[] = { { .token = 300, .want_logits = true },
                           { .token = 301, .pos = 1, .want_logits = true } };
    engine_step(e, first, 2); /* by now the threads have started, for which sanitizers ask for memory */
    long before = n_requests;
    read_and_go_on(e, s);
    pass_pages_on(e);
    if (n_requests != before)
        fail_msg("%s, %d threads, %s cache: %ld calls of the allocator", name, n_threads,
                 kv_type_name(kv_type), n_requests - before);
    sampler_destroy(s);
    engine_destroy(e);
    model_close(m);
}

static void test_steps_and_choices_ask_for_no_memory(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++)
        check_steps(shapes[i].name, 1 + i % 3, KV_F16);
    for (enum kv_type t = 0; t < KV_TYPES; t++)
        check_steps("window", 2, t);
}

/* --- the scheduler --- */

static struct generate request(int i)
{
    static const struct slice stops[] = { { "\x01never\x02", 7 }, { "nor this", 8 } };
    static const char text[] = "the rain in the plain falls mainly on a train of thought and on and on ";
    return (struct generate){ .prompt = { text, sizeof text - 1 - (size_t)i },
                              .max_tokens = 60,
                              .ignore_end = true,
                              .temperature = i % 2 ? 1.0f : 0.0f,
                              .top_p = 1,
                              .seed = (uint64_t)i,
                              .has_logprobs = i % 3 == 0,
                              .logprobs = 5,
                              .stop = { stops, i % 4 ? 2 : 0 } };
}

/* A job gets the buffers for its text with its first token. */
static void test_the_scheduler_asks_for_memory_only_when_a_job_begins(void **state)
{
    (void)state;
    enum { SETTLING_STEPS = 1 };
    struct error err;
    struct model *m = world_open_model("narrow");
    struct tokenizer *t;
    if (tokenizer_create(&t, model_gguf(m), &err) != OK)
        fail_msg("%s", err.text);
    struct engine *e = create_engine(m, 2, KV_F16);
    struct byte_order *order = byte_order_create(t);
    const struct scheduler_options options = { .itl_target_us = 25000, .byte_order = order };
    struct scheduler *s = scheduler_create(e, t, model_facts(m)->n_vocab, &options);

    for (int i = 0; i < N_SLOTS; i++) {
        struct generate g = request(i);
        assert_true(scheduler_add(s, (uint64_t)i, &g));
    }
    uint64_t began_at = 0, tokens = 0;
    while (scheduler_has_work(s)) {
        long before = n_requests;
        struct struct_array items = scheduler_step(s);
        struct scheduler_counts now = scheduler_counts(s);
        bool all_run = items.n == N_SLOTS;
        if (!began_at && all_run)
            began_at = now.steps;
        for (uint32_t i = 0; i < items.n; i++)
            all_run = all_run && !((const struct step_item *)items.items)[i].finish_reason.data;
        if (!began_at || now.steps < began_at + SETTLING_STEPS || !all_run)
            continue;
        if (n_requests != before)
            fail_msg("step %llu: %ld calls of the allocator", (unsigned long long)now.steps,
                     n_requests - before);
        tokens += items.n;
    }
    assert_true(tokens > 100);

    scheduler_destroy(s);
    engine_destroy(e);
    byte_order_destroy(order);
    tokenizer_destroy(t);
    model_close(m);
}

int main(void)
{
#if defined __SANITIZE_THREAD__
    printf("NOT RUN: allocations are not counted under the thread sanitizer, which hides some\n");
    return 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_counter_sees_every_way_to_ask),
        cmocka_unit_test(test_steps_and_choices_ask_for_no_memory),
        cmocka_unit_test(test_the_scheduler_asks_for_memory_only_when_a_job_begins),
    };
    return cmocka_run_group_tests(tests, make_models, world_end);
}
