/* woolly-gguf perplexity: how surprised the model is by a text. */
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/progress.h"
#include "worker/tools/commands.h"
#include "worker/tools/run.h"

static const char help[] =
    "Usage: woolly-gguf perplexity FILE TEXTFILE [--json] [--threads N] [--kv TYPE]\n"
    "\n"
    "Prints exp of the mean negative log-likelihood of the text's tokens. The text is\n"
    "cut into windows of 255 tokens (less if the model's context is shorter), each\n"
    "with the beginning-of-text token in front.\n"
    "\n"
    "  --json            print one JSON object: perplexity, nll, scored, window\n" RUN_HELP;

enum { MAX_WINDOW = 256 };

struct score {
    double nll; /* sum over the scored tokens */
    size_t scored;
    int window;
};

static enum status read_text(const char *path, struct buffer *text, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && text->len <= TOKENIZER_MAX_BYTES) {
        n = read(fd, buffer_reserve(text, 1 << 16), 1 << 16);
        text->len += n > 0 ? (size_t)n : 0;
    }
    enum status s = n < 0 ? error_errno(err, "cannot read %s", path) : OK;
    if (fd >= 0)
        close(fd);
    if (s == OK && text->len > TOKENIZER_MAX_BYTES)
        s = error_set(err, E_LIMIT, "%s is larger than %d MB", path, TOKENIZER_MAX_BYTES >> 20);
    return s;
}

static double negative_log_likelihood(const float *logits, int n_vocab, int32_t id)
{
    double top = logits[0], sum = 0;
    for (int i = 1; i < n_vocab; i++)
        top = fmax(top, logits[i]);
    for (int i = 0; i < n_vocab; i++)
        sum += exp(logits[i] - top);
    return top + log(sum) - logits[id];
}

/* A window is the beginning-of-text token and up to window - 1 tokens; the row of each says how likely the
 * next one was, so the last token needs no row. */
static enum status score_text(struct run *run, const struct token_list *tokens, struct score *score,
                              struct error *err)
{
    int n_vocab = model_facts(run->model)->n_vocab;
    size_t step = (size_t)score->window - 1;
    struct row rows[MAX_WINDOW];
    for (size_t start = 0; start < tokens->n; start += step) {
        int count = tokens->n - start < step ? (int)(tokens->n - start) : (int)step;
        const int32_t *ids = tokens->ids + start;
        for (int i = 0; i < count; i++)
            rows[i] = (struct row){ .token = i ? ids[i - 1] : tokenizer_bos(run->tokenizer),
                                    .pos = i,
                                    .want_logits = true };
        engine_step(run->engine, rows, count);
        for (int i = 0; i < count; i++)
            score->nll += negative_log_likelihood(engine_logits(run->engine, i), n_vocab, ids[i]);
        score->scored += (size_t)count;
        progress_update("perplexity", score->scored, tokens->n);
    }
    progress_end();
    if (!score->scored)
        return error_set(err, E_INVALID, "the text has no tokens to score");
    return OK;
}

static enum status execute(struct run *run, const char *path, const char *text_path, struct score *score,
                           struct error *err)
{
    struct buffer text = { 0 };
    struct token_list tokens = { 0 };
    enum status s;
    if ((s = run_open_model(run, path, true, err)) != OK || (s = read_text(text_path, &text, err)) != OK)
        goto done;
    if (tokenizer_bos(run->tokenizer) < 0 || model_facts(run->model)->n_ctx_train < 2) {
        s = error_set(err, E_UNSUPPORTED, "%s has no beginning-of-text token to put before a window", path);
        goto done;
    }
    score->window = model_facts(run->model)->n_ctx_train;
    if (score->window > MAX_WINDOW)
        score->window = MAX_WINDOW;
    tokenizer_encode(run->tokenizer, text.data, text.len, 0, &tokens);
    if ((s = run_start(run, score->window, err)) == OK)
        s = score_text(run, &tokens, score, err);
done:
    token_list_fini(&tokens);
    buffer_fini(&text);
    return s;
}

static void print_score(const struct score *score, bool as_json)
{
    double perplexity = exp(score->nll / (double)score->scored);
    if (!as_json) {
        printf("%.4f\n", perplexity);
        return;
    }
    /* JSON has no number for a perplexity that is infinite or not a number: null. */
    json_t *object = json_pack("{s:o, s:o, s:I, s:i}", "perplexity",
                               isfinite(perplexity) ? json_real(perplexity) : json_null(), "nll",
                               isfinite(score->nll) ? json_real(score->nll) : json_null(), "scored",
                               (json_int_t)score->scored, "window", score->window);
    json_dumpf(object, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

int command_perplexity(int argc, char **argv)
{
    static const struct option options[] = {
        { "threads", required_argument, NULL, 't' },
        { "kv", required_argument, NULL, 'k' },
        { "pack-cache", required_argument, NULL, 'C' },
        { "json", no_argument, NULL, 'j' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    struct run run;
    struct score score = { 0 };
    struct error err;
    bool as_json = false;
    int option, problem = 0;

    run_init(&run);
    opterr = 0;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            return command_done();
        }
        if (option == '?')
            return command_misused(argv[0], "option %s is unknown or lacks its value", argv[optind - 1]);
        if (option == 'j')
            as_json = true;
        else if ((problem = run_take_option(&run, argv[0], option, optarg)))
            return problem;
    }
    if (argc - optind != 2)
        return command_misused(argv[0], "it takes a model file and a text file");
    if (execute(&run, argv[optind], argv[optind + 1], &score, &err) != OK) {
        problem = command_failed(&err);
    } else {
        print_score(&score, as_json);
        problem = command_done();
    }
    run_fini(&run);
    return problem;
}
