/* woolly-gguf generate: continues a text without a server. */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/kv/saved.h"
#include "worker/sampler.h"
#include "worker/text_out.h"
#include "worker/token/chat.h"
#include "worker/tools/commands.h"
#include "worker/tools/run.h"

static const char help[] =
    "Usage: woolly-gguf generate FILE -p TEXT [-n N] [options]\n"
    "\n"
    "Continues TEXT and prints the continuation as it comes.\n"
    "\n"
    "  -p TEXT           the text to continue\n"
    "  --chat            TEXT is a user's message: answer it, by the model's chat template\n"
    "  -n N              tokens to make at most (default 64); the model's context also ends it\n"
    "  --temperature T   0 takes the most likely token (default); higher is more random\n"
    "  --top-k K         choose among the K most likely (default 0: all)\n"
    "  --top-p P         choose among the fewest that together have this share (default 1: all)\n"
    "  --min-p P         drop those less likely than this share of the most likely (default 0)\n"
    "  --seed S          of the random choice (default 0)\n"
    "  --session FILE    keep there what was computed of the text, in whole 64 tokens; if FILE is\n"
    "                    there already, what it has of TEXT's beginning is not computed again\n"
    "  --json            print one JSON object instead: text, tokens, finish_reason,\n"
    "                    prompt_tokens, cached_tokens, prefill_tok_s, decode_tok_s, isa, threads\n" RUN_HELP;

struct request {
    const char *path, *prompt, *session; /* the last may be NULL */
    int n_tokens;
    bool as_json, is_chat;
    struct sampling sampling;
};

struct result {
    struct token_list prompt, tokens;
    struct buffer text;
    int n_cached;    /* tokens of the prompt that the session had */
    bool is_stopped; /* by an end token of the model */
    int64_t prefill_us, decode_us;
};

/* The first token comes out of the prefill, so it took one step less than there are tokens; one more if the
 * last step gave an end token. */
static size_t n_steps(const struct result *result)
{
    return result->tokens.n - (result->is_stopped ? 0 : 1);
}

static bool parse_share(const char *text, double low, double high, float *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        return false;
    *out = (float)value;
    return true;
}

/* Takes one option; NULL when its value is fine, else what the option wants. */
static const char *take_option(struct request *q, int option, const char *value)
{
    struct sampling *s = &q->sampling;
    long long n = 0;
    char *end;
    switch (option) {
    case 'p':
        q->prompt = value;
        return NULL;
    case 'n':
        if (!run_parse_whole(value, 1, INT32_MAX, &n))
            return "-n wants a number from 1 up";
        q->n_tokens = (int)n;
        return NULL;
    case 'T':
        return parse_share(value, 0, 100, &s->temperature) ? NULL : "--temperature wants 0 to 100";
    case 'K':
        if (!run_parse_whole(value, 0, INT32_MAX, &n))
            return "--top-k wants a number from 0 up";
        s->top_k = (int)n;
        return NULL;
    case 'P':
        return parse_share(value, 0, 1, &s->top_p) ? NULL : "--top-p wants 0 to 1";
    case 'M':
        return parse_share(value, 0, 1, &s->min_p) ? NULL : "--min-p wants 0 to 1";
    default: /* 'S' */
        s->seed = strtoull(value, &end, 10);
        return *value >= '0' && *value <= '9' && !*end ? NULL : "--seed wants a number from 0 up";
    }
}

/* 0, -1 when help was printed, or EXIT_USAGE. */
static int parse(int argc, char **argv, struct request *q, struct run *run)
{
    static const struct option options[] = {
        { "threads", required_argument, NULL, 't' },
        { "kv", required_argument, NULL, 'k' },
        { "pack-cache", required_argument, NULL, 'C' },
        { "temperature", required_argument, NULL, 'T' },
        { "top-k", required_argument, NULL, 'K' },
        { "top-p", required_argument, NULL, 'P' },
        { "min-p", required_argument, NULL, 'M' },
        { "seed", required_argument, NULL, 'S' },
        { "session", required_argument, NULL, 's' },
        { "json", no_argument, NULL, 'j' },
        { "chat", no_argument, NULL, 'c' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    const char *wants;
    int option, problem;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "hp:n:", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return -1;
        }
        if (option == '?')
            return command_misused(argv[0], "option %s is unknown or lacks its value", argv[optind - 1]);
        if (option == 'j')
            q->as_json = true;
        else if (option == 'c')
            q->is_chat = true;
        else if (option == 's')
            q->session = optarg;
        else if (option == 't' || option == 'k' || option == 'C') {
            if ((problem = run_take_option(run, argv[0], option, optarg)))
                return problem;
        } else if ((wants = take_option(q, option, optarg)))
            return command_misused(argv[0], "%s, not \"%.80s\"", wants, optarg);
    }
    if (argc - optind != 1)
        return command_misused(argv[0], "it takes one model file");
    if (!q->prompt)
        return command_misused(argv[0], "-p is needed");
    q->path = argv[optind];
    return 0;
}

static void show_text(const struct request *q, struct text_out *out, struct result *result)
{
    if (q->as_json)
        buffer_append(&result->text, out->ready.data, out->ready.len);
    else if (out->ready.len) {
        fwrite(out->ready.data, 1, out->ready.len, stdout);
        fflush(stdout);
    }
    buffer_clear(&out->ready);
}

/* Leaves the logits of the prompt's last token in the engine. */
static void prefill(struct run *run, struct result *result)
{
    const struct token_list *prompt = &result->prompt;
    int max_rows = engine_options(run->engine)->max_rows;
    struct row rows[RUN_MAX_ROWS];
    int64_t began_us = clock_us();
    for (size_t start = (size_t)result->n_cached; start < prompt->n; start += (size_t)max_rows) {
        int count = prompt->n - start < (size_t)max_rows ? (int)(prompt->n - start) : max_rows;
        for (int i = 0; i < count; i++) {
            size_t pos = start + (size_t)i;
            rows[i] = (struct row){ .token = prompt->ids[pos],
                                    .pos = (int32_t)pos,
                                    .want_logits = pos == prompt->n - 1 };
        }
        engine_step(run->engine, rows, count);
    }
    result->prefill_us = clock_us() - began_us;
}

static void decode(struct run *run, const struct request *q, int n_ctx, struct result *result)
{
    struct sampler *sampler = sampler_create(model_facts(run->model)->n_vocab);
    struct text_out out;
    struct choice choice;
    int32_t pos = (int32_t)result->prompt.n; /* of the token being chosen */

    text_out_init(&out, NULL, NULL, 0);
    for (;; pos++) {
        sampler_choose(sampler, &q->sampling, engine_logits(run->engine, 0), (uint64_t)pos, &choice);
        int32_t id = choice.token.id;
        if (tokenizer_is_end(run->tokenizer, id)) {
            result->is_stopped = true;
            break;
        }
        token_list_push(&result->tokens, id);
        size_t len;
        const char *piece = tokenizer_piece(run->tokenizer, id, &len);
        text_out_push(&out, piece, len);
        show_text(q, &out, result);
        if (result->tokens.n == (size_t)q->n_tokens || pos + 1 >= n_ctx)
            break;
        int64_t began_us = clock_us();
        engine_step(run->engine, &(struct row){ .token = id, .pos = pos, .want_logits = true }, 1);
        result->decode_us += clock_us() - began_us;
    }
    text_out_flush(&out);
    show_text(q, &out, result);
    text_out_fini(&out);
    sampler_destroy(sampler);
}

/* ---- what is computed lives on in a file ---- */

/* A file that cannot be used is an error: at the end it would be overwritten. */
static enum status read_session(struct run *run, const struct request *q, struct result *result,
                                struct error *err)
{
    struct kv_cache *cache = engine_cache(run->engine);
    int n_tokens;
    if (!q->session || access(q->session, F_OK))
        return OK;
    enum status s = kv_saved_read(cache, 0, engine_fingerprint(run->engine), q->session, &n_tokens, err);
    while (s == OK && (size_t)result->n_cached + KV_BLOCK < result->prompt.n &&
           kv_cache_adopt(cache, 0, result->n_cached / KV_BLOCK, result->prompt.ids + result->n_cached,
                          (struct kv_salt){ 0 }))
        result->n_cached += KV_BLOCK;
    return s;
}

static enum status write_session(struct run *run, const struct request *q, const struct result *result,
                                 struct error *err)
{
    struct kv_cache *cache = engine_cache(run->engine);
    struct token_list all = { 0 };
    for (size_t i = 0; i < result->prompt.n; i++)
        token_list_push(&all, result->prompt.ids[i]);
    for (size_t i = 0; i < n_steps(result); i++)
        token_list_push(&all, result->tokens.ids[i]);
    int n_pages = (int)(all.n / KV_BLOCK);
    for (int i = 0; i < n_pages && q->session; i++)
        kv_cache_publish(cache, 0, i, all.ids + i * KV_BLOCK, (struct kv_salt){ 0 });
    token_list_fini(&all);
    return q->session && n_pages ? kv_saved_write(cache, 0, engine_fingerprint(run->engine), q->session, err)
                                 : OK;
}

/* The template's text holds the special tokens itself, BOS included. */
static enum status encode_message(struct run *run, const char *message, struct token_list *out,
                                  struct error *err)
{
    struct chat_template *template = NULL;
    struct buffer prompt = { 0 };
    struct tm now;
    time_t seconds = time(NULL);
    json_t *conversation = json_pack("[{s:s, s:s}]", "role", "user", "content", message);
    if (!conversation)
        return error_set(err, E_FORMAT, "the message is not valid UTF-8");

    localtime_r(&seconds, &now);
    enum status s = chat_template_create(&template, model_gguf(run->model), err);
    if (s == OK && (s = chat_apply(template, conversation, true, &now, &prompt, err)) == OK)
        tokenizer_encode(run->tokenizer, prompt.data, prompt.len, ENCODE_SPECIAL, out);
    json_decref(conversation);
    chat_template_destroy(template);
    buffer_fini(&prompt);
    return s;
}

static enum status execute(struct run *run, const struct request *q, struct result *result, struct error *err)
{
    enum status s;
    if ((s = run_open_model(run, q->path, true, err)) != OK)
        return s;
    size_t len = strlen(q->prompt);
    if (len > TOKENIZER_MAX_BYTES)
        return error_set(err, E_LIMIT, "the text to continue is too long");
    if (!q->is_chat)
        tokenizer_encode(run->tokenizer, q->prompt, len, ENCODE_BOS, &result->prompt);
    else if ((s = encode_message(run, q->prompt, &result->prompt, err)) != OK)
        return s;
    if (!result->prompt.n)
        return error_set(err, E_INVALID, "there is nothing to continue: the text has no tokens");
    if ((s = run_check_ids(run, result->prompt.ids, result->prompt.n, err)) != OK)
        return s;
    int64_t n_ctx = (int64_t)result->prompt.n + q->n_tokens;
    if (n_ctx > model_facts(run->model)->n_ctx_train)
        n_ctx = model_facts(run->model)->n_ctx_train;
    if ((s = run_start(run, (int)n_ctx, err)) != OK)
        return s;
    if ((s = read_session(run, q, result, err)) != OK)
        return s;
    prefill(run, result);
    decode(run, q, (int)n_ctx, result);
    return write_session(run, q, result, err);
}

/* Tokens per second, or NAN where nothing was measured. */
static double rate(size_t tokens, int64_t us)
{
    return tokens && us > 0 ? (double)tokens * 1e6 / (double)us : NAN;
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void print_result(const struct run *run, const struct request *q, const struct result *result)
{
    double prefill_rate = rate(result->prompt.n - (size_t)result->n_cached, result->prefill_us);
    double decode_rate = rate(n_steps(result), result->decode_us);
    if (!q->as_json) {
        putchar('\n');
        fprintf(stderr, "prefill %zu tokens, %.1f tok/s; decode %zu tokens, ", result->prompt.n, prefill_rate,
                result->tokens.n);
        if (isfinite(decode_rate))
            fprintf(stderr, "%.1f tok/s\n", decode_rate);
        else
            fprintf(stderr, "too few to measure\n");
        return;
    }
    json_t *tokens = json_array();
    for (size_t i = 0; i < result->tokens.n; i++)
        json_array_append_new(tokens, json_integer(result->tokens.ids[i]));
    json_t *object = json_pack(
        "{s:s%, s:o, s:s, s:I, s:i, s:o, s:o, s:s, s:i}", "text", result->text.data ? result->text.data : "",
        result->text.len, "tokens", tokens, "finish_reason", result->is_stopped ? "stop" : "length",
        "prompt_tokens", (json_int_t)result->prompt.n, "cached_tokens", result->n_cached, "prefill_tok_s",
        number_or_null(prefill_rate), "decode_tok_s", number_or_null(decode_rate), "isa",
        engine_isa(run->engine), "threads", run->n_threads);
    json_dumpf(object, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
}

int command_generate(int argc, char **argv)
{
    struct request q = { .n_tokens = 64, .sampling = { .top_p = 1 } };
    struct result result = { 0 };
    struct run run;
    struct error err;
    run_init(&run);
    int problem = parse(argc, argv, &q, &run);
    if (problem == -1)
        problem = command_done();
    else if (!problem && execute(&run, &q, &result, &err) != OK)
        problem = command_failed(&err);
    else if (!problem) {
        print_result(&run, &q, &result);
        problem = command_done();
    }
    token_list_fini(&result.prompt);
    token_list_fini(&result.tokens);
    buffer_fini(&result.text);
    run_fini(&run);
    return problem;
}
