#include "worker/tools/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/progress.h"
#include "common/topology.h"
#include "worker/tools/commands.h"

void run_init(struct run *r)
{
    struct topology t;
    topology_init(&t);
    *r = (struct run){ .n_threads = t.n_cores, .kv_type = KV_F32 };
    topology_fini(&t);
}

void run_fini(struct run *r)
{
    engine_destroy(r->engine);
    tokenizer_destroy(r->tokenizer);
    model_close(r->model);
}

bool run_parse_whole(const char *text, long long low, long long high, long long *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < low || value > high)
        return false;
    *out = value;
    return true;
}

int run_take_option(struct run *r, const char *command, int option, const char *value)
{
    long long n;
    if (option == 't') {
        if (!run_parse_whole(value, 1, 1024, &n))
            return command_misused(command, "--threads wants a number from 1 to 1024, not \"%s\"", value);
        r->n_threads = (int)n;
        return 0;
    }
    if (option == 'C') {
        r->pack_cache = value;
        return *value ? 0 : command_misused(command, "--pack-cache wants a folder");
    }
    if (!kv_type_parse(value, &r->kv_type))
        return command_misused(command, "--kv wants f32, f16, bf16, q8 or q4, not \"%s\"", value);
    return 0;
}

/* Small models are there before anyone could read a line. */
static void show_step(void *context, const char *step, uint64_t done, uint64_t total)
{
    enum { PATIENCE_MS = 500 };
    int64_t *began_ms = context;
    if (done == 0)
        *began_ms = clock_ms();
    else if (done == total)
        progress_end();
    else if (clock_ms() - *began_ms > PATIENCE_MS)
        progress_update(step, done, total);
}

static bool never(void)
{
    return false;
}

enum status run_open_model(struct run *r, const char *path, bool with_tokenizer, struct error *err)
{
    int64_t began_ms = 0;
    struct model_options o = { r->pack_cache, show_step, &began_ms };
    enum status s = model_open_with(&r->model, path, &o, err);
    if (s == OK && model_wants_cache(r->model))
        model_write_cache(r->model, &o, never);
    if (s == OK && with_tokenizer)
        s = tokenizer_create(&r->tokenizer, model_gguf(r->model), err);
    return s;
}

enum status run_start(struct run *r, int n_ctx, struct error *err)
{
    struct engine_options o = {
        .n_threads = r->n_threads,
        .n_slots = 1,
        .n_ctx = n_ctx,
        .max_rows = n_ctx < RUN_MAX_ROWS ? n_ctx : RUN_MAX_ROWS,
        .kv_type = r->kv_type,
    };
    return engine_create(&r->engine, r->model, &o, err);
}

enum status run_check_ids(const struct run *r, const int32_t *ids, size_t n, struct error *err)
{
    const struct model_facts *f = model_facts(r->model);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= f->n_vocab)
            return error_set(err, E_INVALID, "token %d is not one of this model's 0 to %d", ids[i],
                             f->n_vocab - 1);
    if (n > (size_t)f->n_ctx_train)
        return error_set(err, E_LIMIT, "%zu tokens are more than this model's context of %d", n,
                         f->n_ctx_train);
    return OK;
}
