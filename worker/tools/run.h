/* What the commands that compute share: their common options, and a model opened with tokenizer and engine.
 */
#ifndef WOOLLY_TOOLS_RUN_H
#define WOOLLY_TOOLS_RUN_H

#include <stdbool.h>

#include "worker/model/engine.h"
#include "worker/token/tokenizer.h"

/* Rows of a prompt per step: enough to use each weight many times while it is in the cache. */
enum { RUN_MAX_ROWS = 256 };

struct run {
    int n_threads;
    enum kv_type kv_type;
    const char *pack_cache; /* NULL: none */
    struct model *model;
    struct tokenizer *tokenizer; /* NULL unless asked for */
    struct engine *engine;
};

/* All cores, f32 cache, nothing open. */
void run_init(struct run *r);
void run_fini(struct run *r);

/* Of --threads, --kv and --pack-cache, which getopt knows as 't', 'k' and 'C'. */
#define RUN_HELP                                                                                             \
    "  --threads N       threads to compute with (default: all cores)\n"                                     \
    "  --kv TYPE         numbers the cache of keys and values holds: f32, f16, bf16,\n"                      \
    "                    q8 or q4 (default f32)\n"                                                           \
    "  --pack-cache DIR  keep the weights there as the products read them: the next run\n"                   \
    "                    maps that file, as large as FILE, instead of making it\n"

/* Takes the value of one of them; returns 0, or EXIT_USAGE after saying what is wrong. */
int run_take_option(struct run *r, const char *command, int option, const char *value);

/* A whole number from low to high and nothing else. */
bool run_parse_whole(const char *text, long long low, long long high, long long *out);

/* Shows the progress of what takes long. */
MUST_CHECK enum status run_open_model(struct run *r, const char *path, bool with_tokenizer,
                                      struct error *err);

/* Starts the engine for one sequence of n_ctx positions. */
MUST_CHECK enum status run_start(struct run *r, int n_ctx, struct error *err);

/* E_INVALID when an id is outside the vocabulary, E_LIMIT when there are more than the model's context. */
MUST_CHECK enum status run_check_ids(const struct run *r, const int32_t *ids, size_t n, struct error *err);

#endif
