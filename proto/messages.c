#include "proto/messages.h"

#include <assert.h>
#include <string.h>

#define FIELD(s, member, name, kind, ...)                                                                    \
    {                                                                                                        \
        .key = name, .type = FIELD_##kind, .offset = offsetof(struct s, member), __VA_ARGS__                 \
    }
#define REQUIRED .is_required = true
#define SCHEMA(variable, s, fields_)                                                                         \
    static const struct schema variable = { .size = sizeof(struct s),                                        \
                                            .fields = fields_,                                               \
                                            .n_fields = (int)(sizeof fields_ / sizeof *fields_) }

/* Most rows in one reply or step: more models, workers or sequences than one broker or worker will have. */
enum { MAX_ROWS = 4096, MAX_WORD = 64, MAX_PATH_BYTES = 4096, MAX_ERROR_BYTES = 1024 };

/* ---- parts ---- */

/* What may be asked of a model, without and with what only a worker is told. */
#define PROMPT_FIELDS                                                                                        \
    FIELD(generate, model, "model", TEXT, REQUIRED, .max = MAX_MODEL_NAME),                                  \
        FIELD(generate, prompt, "prompt", TEXT, .max = MAX_PROMPT_BYTES),                                    \
        FIELD(generate, tokens, "tokens", IDS, .max = MAX_PROMPT_TOKENS),                                    \
        FIELD(generate, cache_salt, "cache_salt", TEXT, .max = MAX_SALT_BYTES),                              \
        FIELD(generate, deadline_ms, "deadline_ms", U64, .max = UINT64_C(7) * 24 * 3600 * 1000)
#define SAMPLING_FIELDS                                                                                      \
    FIELD(generate, max_tokens, "max_tokens", U32, .min = 1, .max = 1 << 20, .fallback = 128,                \
          .present = offsetof(struct generate, has_max_tokens)),                                             \
        FIELD(generate, n, "n", U32, .min = 1, .max = MAX_CHOICES, .fallback = 1),                           \
        FIELD(generate, best_of, "best_of", U32, .max = MAX_CHOICES),                                        \
        FIELD(generate, temperature, "temperature", FLOAT, .fmin = 0, .fmax = 100),                          \
        FIELD(generate, top_k, "top_k", U32, .max = INT32_MAX),                                              \
        FIELD(generate, top_p, "top_p", FLOAT, .fmin = 0, .fmax = 1, .fallback = 1),                         \
        FIELD(generate, min_p, "min_p", FLOAT, .fmin = 0, .fmax = 1),                                        \
        FIELD(generate, seed, "seed", U64, .present = offsetof(struct generate, has_seed)),                  \
        FIELD(generate, stop, "stop", TEXTS, .max = MAX_STOPS),                                              \
        FIELD(generate, logprobs, "logprobs", U32, .max = MAX_LOGPROBS,                                      \
              .present = offsetof(struct generate, has_logprobs)),                                           \
        FIELD(generate, prompt_logprobs, "prompt_logprobs", U32, .max = MAX_LOGPROBS,                        \
              .present = offsetof(struct generate, has_prompt_logprobs)),                                    \
        FIELD(generate, session, "session", TEXT, .max = MAX_SESSION_NAME),                                  \
        FIELD(generate, ignore_end, "ignore_end", BOOL),                                                     \
        FIELD(generate, stream, "stream", BOOL, .fallback = 1)
#define POOLING_FIELD FIELD(generate, pooling, "pooling", TEXT, .max = MAX_WORD)

static const struct field generate_fields[] = { PROMPT_FIELDS, SAMPLING_FIELDS };
SCHEMA(generate_schema, generate, generate_fields);

static const struct field embed_fields[] = {
    PROMPT_FIELDS,
    POOLING_FIELD,
    FIELD(generate, normalize, "normalize", BOOL, .fallback = 1),
};
SCHEMA(embed_schema, generate, embed_fields);

static const struct field resumed_choice_fields[] = {
    FIELD(resumed_choice, ids, "ids", BYTES, .max = MAX_RESUME_BYTES),
    FIELD(resumed_choice, text_bytes, "text_bytes", U64),
    FIELD(resumed_choice, logprob_sum, "logprob_sum", DOUBLE),
    FIELD(resumed_choice, finish_reason, "finish_reason", TEXT, .max = MAX_WORD),
};
SCHEMA(resumed_choice_schema, resumed_choice, resumed_choice_fields);

static const struct field work_fields[] = {
    PROMPT_FIELDS,
    SAMPLING_FIELDS,
    POOLING_FIELD,
    FIELD(generate, normalize, "normalize", BOOL),
    FIELD(generate, resume, "resume", LIST, .max = MAX_CHOICES, .inner = &resumed_choice_schema),
    FIELD(generate, prompt_told, "prompt_told", U32),
};
SCHEMA(work_schema, generate, work_fields);

static const struct field token_alternative_fields[] = {
    FIELD(token_alternative, id, "id", ID, REQUIRED),
    FIELD(token_alternative, logprob, "logprob", FLOAT, REQUIRED),
    FIELD(token_alternative, bytes, "bytes", BYTES, REQUIRED, .max = MAX_TOKEN_BYTES),
};
SCHEMA(token_alternative_schema, token_alternative, token_alternative_fields);

static const struct field token_detail_fields[] = {
    FIELD(token_detail, id, "id", ID, REQUIRED),
    FIELD(token_detail, logprob, "logprob", FLOAT, REQUIRED),
    FIELD(token_detail, bytes, "bytes", BYTES, REQUIRED, .max = MAX_TOKEN_BYTES),
    FIELD(token_detail, top, "top", LIST, .max = MAX_LOGPROBS, .inner = &token_alternative_schema),
};
SCHEMA(token_detail_schema, token_detail, token_detail_fields);

static const struct field choice_row_fields[] = {
    FIELD(choice_row, index, "index", U32, REQUIRED),
    FIELD(choice_row, finish_reason, "finish_reason", TEXT, REQUIRED, .max = MAX_WORD),
    FIELD(choice_row, ids, "ids", IDS),
    FIELD(choice_row, text, "text", TEXT),
    FIELD(choice_row, logprobs, "logprobs", LIST, .inner = &token_detail_schema),
    FIELD(choice_row, completion_tokens, "completion_tokens", U64, REQUIRED),
    FIELD(choice_row, logprob_sum, "logprob_sum", DOUBLE, REQUIRED),
};
SCHEMA(choice_row_schema, choice_row, choice_row_fields);

static const struct field timing_fields[] = {
    FIELD(timing, queue_ms, "queue_ms", DOUBLE, REQUIRED),
    FIELD(timing, ttft_ms, "ttft_ms", DOUBLE, REQUIRED),
    FIELD(timing, total_ms, "total_ms", DOUBLE, REQUIRED),
    FIELD(timing, tok_s, "tok_s", DOUBLE, REQUIRED),
};
SCHEMA(timing_schema, timing, timing_fields);

/* ---- client to broker ---- */

static const struct field msg_generate_fields[] = {
    FIELD(msg_generate, id, "id", U64, REQUIRED, .min = 1, .max = MAX_WIRE_NUMBER),
    FIELD(msg_generate, epoch, "epoch", U64),
    FIELD(msg_generate, request, "request", STRUCT, REQUIRED, .inner = &generate_schema),
};
SCHEMA(msg_generate_schema, msg_generate, msg_generate_fields);

static const struct field msg_embed_fields[] = {
    FIELD(msg_generate, id, "id", U64, REQUIRED, .min = 1, .max = MAX_WIRE_NUMBER),
    FIELD(msg_generate, epoch, "epoch", U64),
    FIELD(msg_generate, request, "request", STRUCT, REQUIRED, .inner = &embed_schema),
};
SCHEMA(msg_embed_schema, msg_generate, msg_embed_fields);

static const struct field msg_request_fields[] = {
    FIELD(msg_request, id, "id", U64, REQUIRED, .min = 1, .max = MAX_WIRE_NUMBER),
    FIELD(msg_request, epoch, "epoch", U64),
};
SCHEMA(msg_request_schema, msg_request, msg_request_fields);

/* ---- broker to client ---- */

static const struct field msg_accepted_fields[] = {
    FIELD(msg_accepted, id, "id", U64, REQUIRED),
    FIELD(msg_accepted, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_accepted, job, "job", U64, REQUIRED),
    FIELD(msg_accepted, seed, "seed", U64, REQUIRED),
    FIELD(msg_accepted, queue_position, "queue_position", U32, REQUIRED),
};
SCHEMA(msg_accepted_schema, msg_accepted, msg_accepted_fields);

static const struct field msg_tokens_fields[] = {
    FIELD(msg_tokens, id, "id", U64, REQUIRED),
    FIELD(msg_tokens, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_tokens, choice, "choice", U32),
    FIELD(msg_tokens, seq, "seq", U64, REQUIRED),
    FIELD(msg_tokens, ids, "ids", IDS, REQUIRED),
    FIELD(msg_tokens, text, "text", TEXT, REQUIRED),
    FIELD(msg_tokens, logprobs, "logprobs", LIST, .inner = &token_detail_schema),
    FIELD(msg_tokens, prompt_logprobs, "prompt_logprobs", LIST, .inner = &token_detail_schema),
    FIELD(msg_tokens, finish_reason, "finish_reason", TEXT, .max = MAX_WORD),
};
SCHEMA(msg_tokens_schema, msg_tokens, msg_tokens_fields);

static const struct field msg_done_fields[] = {
    FIELD(msg_done, id, "id", U64, REQUIRED),
    FIELD(msg_done, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_done, finish_reason, "finish_reason", TEXT, REQUIRED, .max = MAX_WORD),
    FIELD(msg_done, ids, "ids", IDS),
    FIELD(msg_done, text, "text", TEXT),
    FIELD(msg_done, logprobs, "logprobs", LIST, .inner = &token_detail_schema),
    FIELD(msg_done, prompt_logprobs, "prompt_logprobs", LIST, .inner = &token_detail_schema),
    FIELD(msg_done, choices, "choices", LIST, .max = MAX_CHOICES, .inner = &choice_row_schema),
    FIELD(msg_done, embedding, "embedding", BYTES, .max = MAX_EMBEDDING_BYTES),
    FIELD(msg_done, prompt_tokens, "prompt_tokens", U64, REQUIRED),
    FIELD(msg_done, completion_tokens, "completion_tokens", U64, REQUIRED),
    FIELD(msg_done, cached_tokens, "cached_tokens", U64, REQUIRED),
    FIELD(msg_done, cache_miss, "cache_miss", TEXT, .max = MAX_WORD),
    FIELD(msg_done, seed, "seed", U64, REQUIRED),
    FIELD(msg_done, timing, "timing", STRUCT, REQUIRED, .inner = &timing_schema),
};
SCHEMA(msg_done_schema, msg_done, msg_done_fields);

static const struct field msg_cancelled_fields[] = {
    FIELD(msg_cancelled, id, "id", U64, REQUIRED),
    FIELD(msg_cancelled, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_cancelled, prompt_tokens, "prompt_tokens", U64, REQUIRED),
    FIELD(msg_cancelled, completion_tokens, "completion_tokens", U64, REQUIRED),
};
SCHEMA(msg_cancelled_schema, msg_cancelled, msg_cancelled_fields);

static const struct field msg_error_fields[] = {
    FIELD(msg_error, id, "id", U64, REQUIRED),
    FIELD(msg_error, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_error, code, "code", TEXT, REQUIRED, .max = MAX_WORD),
    FIELD(msg_error, message, "message", TEXT, REQUIRED, .max = MAX_ERROR_BYTES),
    FIELD(msg_error, is_retryable, "retryable", BOOL, REQUIRED),
    FIELD(msg_error, retry_ms, "retry_ms", U64),
};
SCHEMA(msg_error_schema, msg_error, msg_error_fields);

static const struct field model_row_fields[] = {
    FIELD(model_row, name, "name", TEXT, REQUIRED, .max = MAX_MODEL_NAME),
    FIELD(model_row, path, "path", TEXT, .max = MAX_PATH_BYTES),
    FIELD(model_row, architecture, "architecture", TEXT, .max = MAX_WORD),
    FIELD(model_row, state, "state", TEXT, REQUIRED, .max = MAX_WORD),
    FIELD(model_row, parameters, "parameters", U64),
    FIELD(model_row, weight_bytes, "weight_bytes", U64),
    FIELD(model_row, n_ctx, "n_ctx", U32),
    FIELD(model_row, n_vocab, "n_vocab", U32),
    FIELD(model_row, workers, "workers", U32, REQUIRED),
    FIELD(model_row, slots, "slots", U32, REQUIRED),
    FIELD(model_row, running, "running", U32, REQUIRED),
    FIELD(model_row, queued, "queued", U32, REQUIRED),
};
SCHEMA(model_row_schema, model_row, model_row_fields);

static const struct field msg_models_reply_fields[] = {
    FIELD(msg_models_reply, id, "id", U64, REQUIRED),
    FIELD(msg_models_reply, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_models_reply, models, "models", LIST, REQUIRED, .max = MAX_ROWS, .inner = &model_row_schema),
};
SCHEMA(msg_models_reply_schema, msg_models_reply, msg_models_reply_fields);

static const struct field worker_row_fields[] = {
    FIELD(worker_row, model, "model", TEXT, REQUIRED, .max = MAX_MODEL_NAME),
    FIELD(worker_row, index, "index", U32, REQUIRED),
    FIELD(worker_row, pid, "pid", U64, REQUIRED),
    FIELD(worker_row, slots, "slots", U32, REQUIRED),
    FIELD(worker_row, running, "running", U32, REQUIRED),
    FIELD(worker_row, done, "done", U64, REQUIRED),
    FIELD(worker_row, tokens, "tokens", U64, REQUIRED),
    FIELD(worker_row, prompt_tokens, "prompt_tokens", U64, REQUIRED),
    FIELD(worker_row, tok_s, "tok_s", DOUBLE, REQUIRED),
    FIELD(worker_row, beat_age_ms, "beat_age_ms", DOUBLE, REQUIRED),
    FIELD(worker_row, kv_pages, "kv_pages", U64, REQUIRED),
    FIELD(worker_row, kv_used, "kv_used", U64, REQUIRED),
    FIELD(worker_row, kv_cached, "kv_cached", U64, REQUIRED),
    FIELD(worker_row, preempted, "preempted", U64, REQUIRED),
    FIELD(worker_row, cached_tokens, "cached_tokens", U64, REQUIRED),
};
SCHEMA(worker_row_schema, worker_row, worker_row_fields);

static const struct field msg_stats_reply_fields[] = {
    FIELD(msg_stats_reply, id, "id", U64, REQUIRED),
    FIELD(msg_stats_reply, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_stats_reply, version, "version", TEXT, REQUIRED, .max = MAX_WORD),
    FIELD(msg_stats_reply, uptime_s, "uptime_s", DOUBLE, REQUIRED),
    FIELD(msg_stats_reply, clients, "clients", U64, REQUIRED),
    FIELD(msg_stats_reply, queued, "queued", U64, REQUIRED),
    FIELD(msg_stats_reply, running, "running", U64, REQUIRED),
    FIELD(msg_stats_reply, accepted, "accepted", U64, REQUIRED),
    FIELD(msg_stats_reply, done, "done", U64, REQUIRED),
    FIELD(msg_stats_reply, failed, "failed", U64, REQUIRED),
    FIELD(msg_stats_reply, cancelled, "cancelled", U64, REQUIRED),
    FIELD(msg_stats_reply, refused, "refused", U64, REQUIRED),
    FIELD(msg_stats_reply, moved, "moved", U64),
    FIELD(msg_stats_reply, tokens, "tokens", U64, REQUIRED),
    FIELD(msg_stats_reply, rss_bytes, "rss_bytes", U64, REQUIRED),
    FIELD(msg_stats_reply, workers, "workers", LIST, REQUIRED, .max = MAX_ROWS, .inner = &worker_row_schema),
};
SCHEMA(msg_stats_reply_schema, msg_stats_reply, msg_stats_reply_fields);

static const struct field msg_health_reply_fields[] = {
    FIELD(msg_health_reply, id, "id", U64, REQUIRED),
    FIELD(msg_health_reply, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_health_reply, is_ready, "ready", BOOL, REQUIRED),
    FIELD(msg_health_reply, status, "status", TEXT, REQUIRED, .max = MAX_WORD),
    FIELD(msg_health_reply, pid, "pid", U64, REQUIRED),
    FIELD(msg_health_reply, version, "version", TEXT, REQUIRED, .max = MAX_WORD),
};
SCHEMA(msg_health_reply_schema, msg_health_reply, msg_health_reply_fields);

static const struct field msg_empty_fields[] = {
    FIELD(msg_empty, id, "id", U64),
    FIELD(msg_empty, epoch, "epoch", U64, REQUIRED),
};
SCHEMA(msg_empty_schema, msg_empty, msg_empty_fields);

/* ---- worker to broker ---- */

static const struct field msg_register_fields[] = {
    FIELD(msg_register, model, "model", TEXT, REQUIRED, .max = MAX_MODEL_NAME),
    FIELD(msg_register, path, "path", TEXT, .max = MAX_PATH_BYTES),
    FIELD(msg_register, architecture, "architecture", TEXT, .max = MAX_WORD),
    FIELD(msg_register, host, "host", TEXT, .max = MAX_HOST_BYTES),
    FIELD(msg_register, index, "index", U32, REQUIRED, .max = MAX_ROWS),
    FIELD(msg_register, pid, "pid", U64, REQUIRED, .min = 1, .max = INT32_MAX),
    FIELD(msg_register, slots, "slots", U32, REQUIRED, .min = 1, .max = MAX_ROWS),
    FIELD(msg_register, n_ctx, "n_ctx", U32, REQUIRED),
    FIELD(msg_register, n_vocab, "n_vocab", U32, REQUIRED),
    FIELD(msg_register, parameters, "parameters", U64, REQUIRED),
    FIELD(msg_register, weight_bytes, "weight_bytes", U64, REQUIRED),
    FIELD(msg_register, isa, "isa", TEXT, .max = MAX_WORD),
    FIELD(msg_register, kv_pages, "kv_pages", U64),
    FIELD(msg_register, page_tokens, "page_tokens", U32),
};
SCHEMA(msg_register_schema, msg_register, msg_register_fields);

static const struct field step_item_fields[] = {
    FIELD(step_item, job, "job", U64, REQUIRED),
    FIELD(step_item, choice, "choice", U32),
    FIELD(step_item, ids, "ids", IDS),
    FIELD(step_item, text, "text", TEXT),
    FIELD(step_item, logprobs, "logprobs", LIST, .inner = &token_detail_schema),
    FIELD(step_item, finish_reason, "finish_reason", TEXT, .max = MAX_WORD),
    FIELD(step_item, error_code, "error_code", TEXT, .max = MAX_WORD),
    FIELD(step_item, error_message, "error_message", TEXT, .max = MAX_ERROR_BYTES),
    FIELD(step_item, prompt_tokens, "prompt_tokens", U64),
    FIELD(step_item, cached_tokens, "cached_tokens", U64),
    FIELD(step_item, cache_miss, "cache_miss", TEXT, .max = MAX_WORD),
    FIELD(step_item, prompt_logprobs, "prompt_logprobs", LIST, .inner = &token_detail_schema),
    FIELD(step_item, logprob_sum, "logprob_sum", DOUBLE),
    FIELD(step_item, embedding, "embedding", BYTES, .max = MAX_EMBEDDING_BYTES),
    FIELD(step_item, decode_us, "decode_us", U64),
};
SCHEMA(step_item_schema, step_item, step_item_fields);

static const struct field msg_step_fields[] = {
    FIELD(msg_step, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_step, items, "items", LIST, REQUIRED, .max = MAX_ROWS, .inner = &step_item_schema),
};
SCHEMA(msg_step_schema, msg_step, msg_step_fields);

static const struct field score_fields[] = {
    FIELD(token_scores, top, "top", LIST, .max = MAX_SCORED_TOKENS, .inner = &token_alternative_schema),
    FIELD(token_scores, exact, "exact", FLOATS, .max = MAX_SCORED_STRINGS),
    FIELD(token_scores, prefix, "prefix", FLOATS, .max = MAX_SCORED_STRINGS),
};
SCHEMA(score_schema, token_scores, score_fields);

static const struct field msg_advanced_fields[] = {
    FIELD(msg_advanced, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_advanced, job, "job", U64, REQUIRED, .min = 1),
    FIELD(msg_advanced, op, "op", U64, REQUIRED),
    FIELD(msg_advanced, n_tokens, "n_tokens", U32, REQUIRED),
    FIELD(msg_advanced, ids, "ids", IDS),
    FIELD(msg_advanced, logprobs, "logprobs", LIST, .inner = &token_detail_schema),
    FIELD(msg_advanced, is_end, "end", BOOL),
    FIELD(msg_advanced, score, "score", STRUCT, .inner = &score_schema,
          .present = offsetof(struct msg_advanced, has_score)),
    FIELD(msg_advanced, error_code, "error_code", TEXT, .max = MAX_WORD),
    FIELD(msg_advanced, error_message, "error_message", TEXT, .max = MAX_ERROR_BYTES),
};
SCHEMA(msg_advanced_schema, msg_advanced, msg_advanced_fields);

static const struct field msg_worker_beat_fields[] = {
    FIELD(msg_worker_beat, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_worker_beat, steps, "steps", U64, REQUIRED),
    FIELD(msg_worker_beat, running, "running", U32, REQUIRED),
    FIELD(msg_worker_beat, tokens, "tokens", U64, REQUIRED),
    FIELD(msg_worker_beat, prompt_tokens, "prompt_tokens", U64, REQUIRED),
    FIELD(msg_worker_beat, kv_used, "kv_used", U64),
    FIELD(msg_worker_beat, kv_cached, "kv_cached", U64),
    FIELD(msg_worker_beat, preempted, "preempted", U64),
    FIELD(msg_worker_beat, cached_tokens, "cached_tokens", U64),
};
SCHEMA(msg_worker_beat_schema, msg_worker_beat, msg_worker_beat_fields);

/* ---- broker to worker ---- */

static const struct field msg_welcome_fields[] = {
    FIELD(msg_welcome, epoch, "epoch", U64, REQUIRED, .min = 1),
};
SCHEMA(msg_welcome_schema, msg_welcome, msg_welcome_fields);

static const struct field msg_refused_fields[] = {
    FIELD(msg_refused, epoch, "epoch", U64, REQUIRED, .min = 1),
    FIELD(msg_refused, message, "message", TEXT, .max = MAX_ERROR_BYTES),
};
SCHEMA(msg_refused_schema, msg_refused, msg_refused_fields);

static const struct field msg_submit_fields[] = {
    FIELD(msg_submit, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_submit, job, "job", U64, REQUIRED, .min = 1),
    FIELD(msg_submit, request, "request", STRUCT, REQUIRED, .inner = &work_schema),
};
SCHEMA(msg_submit_schema, msg_submit, msg_submit_fields);

static const struct field score_request_fields[] = {
    FIELD(score_request, top, "top", U32, .max = MAX_SCORED_TOKENS),
    FIELD(score_request, strings, "strings", BINS, .max = MAX_SCORED_STRINGS),
};
SCHEMA(score_request_schema, score_request, score_request_fields);

static const struct field msg_advance_fields[] = {
    FIELD(msg_advance, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_advance, job, "job", U64, REQUIRED, .min = 1),
    FIELD(msg_advance, op, "op", U64, REQUIRED),
    FIELD(msg_advance, keep, "keep", U32, .present = offsetof(struct msg_advance, has_keep)),
    FIELD(msg_advance, tokens, "tokens", IDS, .max = MAX_PROMPT_TOKENS),
    FIELD(msg_advance, bytes, "bytes", BYTES, .max = MAX_PROMPT_BYTES),
    FIELD(msg_advance, logprobs, "logprobs", U32, .max = MAX_LOGPROBS,
          .present = offsetof(struct msg_advance, has_logprobs)),
    FIELD(msg_advance, generate, "generate", U32, .max = 1 << 20),
    FIELD(msg_advance, score, "score", STRUCT, .inner = &score_request_schema,
          .present = offsetof(struct msg_advance, has_score)),
};
SCHEMA(msg_advance_schema, msg_advance, msg_advance_fields);

static const struct field msg_drop_fields[] = {
    FIELD(msg_drop, epoch, "epoch", U64, REQUIRED),
    FIELD(msg_drop, job, "job", U64, REQUIRED, .min = 1),
};
SCHEMA(msg_drop_schema, msg_drop, msg_drop_fields);

static const struct field msg_epoch_fields[] = {
    FIELD(msg_epoch, epoch, "epoch", U64, REQUIRED),
};
SCHEMA(msg_epoch_schema, msg_epoch, msg_epoch_fields);

/* ---- the messages ---- */

static const struct {
    const char *type;
    enum message_link link;
    const struct schema *schema;
} kinds[MSG_KINDS] = {
    [MSG_GENERATE] = { "generate", CLIENT_TO_BROKER, &msg_generate_schema },
    [MSG_EMBED] = { "embed", CLIENT_TO_BROKER, &msg_embed_schema },
    [MSG_CANCEL] = { "cancel", CLIENT_TO_BROKER, &msg_request_schema },
    [MSG_MODELS] = { "models", CLIENT_TO_BROKER, &msg_request_schema },
    [MSG_STATS] = { "stats", CLIENT_TO_BROKER, &msg_request_schema },
    [MSG_HEALTH] = { "health", CLIENT_TO_BROKER, &msg_request_schema },
    [MSG_PING] = { "ping", CLIENT_TO_BROKER, &msg_request_schema },

    [MSG_ACCEPTED] = { "accepted", BROKER_TO_CLIENT, &msg_accepted_schema },
    [MSG_TOKENS] = { "tokens", BROKER_TO_CLIENT, &msg_tokens_schema },
    [MSG_DONE] = { "done", BROKER_TO_CLIENT, &msg_done_schema },
    [MSG_CANCELLED] = { "cancelled", BROKER_TO_CLIENT, &msg_cancelled_schema },
    [MSG_ERROR] = { "error", BROKER_TO_CLIENT, &msg_error_schema },
    [MSG_MODELS_REPLY] = { "models", BROKER_TO_CLIENT, &msg_models_reply_schema },
    [MSG_STATS_REPLY] = { "stats", BROKER_TO_CLIENT, &msg_stats_reply_schema },
    [MSG_HEALTH_REPLY] = { "health", BROKER_TO_CLIENT, &msg_health_reply_schema },
    [MSG_PONG] = { "pong", BROKER_TO_CLIENT, &msg_empty_schema },
    [MSG_CLIENT_BEAT] = { "beat", BROKER_TO_CLIENT, &msg_empty_schema },

    [MSG_REGISTER] = { "register", WORKER_TO_BROKER, &msg_register_schema },
    [MSG_STEP] = { "step", WORKER_TO_BROKER, &msg_step_schema },
    [MSG_ADVANCED] = { "advanced", WORKER_TO_BROKER, &msg_advanced_schema },
    [MSG_WORKER_BEAT] = { "beat", WORKER_TO_BROKER, &msg_worker_beat_schema },
    [MSG_BYE] = { "bye", WORKER_TO_BROKER, &msg_epoch_schema },

    [MSG_WELCOME] = { "welcome", BROKER_TO_WORKER, &msg_welcome_schema },
    [MSG_REFUSED] = { "refused", BROKER_TO_WORKER, &msg_refused_schema },
    [MSG_SUBMIT] = { "submit", BROKER_TO_WORKER, &msg_submit_schema },
    [MSG_OPEN] = { "open", BROKER_TO_WORKER, &msg_submit_schema },
    [MSG_ADVANCE] = { "advance", BROKER_TO_WORKER, &msg_advance_schema },
    [MSG_DROP] = { "drop", BROKER_TO_WORKER, &msg_drop_schema },
    [MSG_BROKER_BEAT] = { "beat", BROKER_TO_WORKER, &msg_epoch_schema },
    [MSG_STOP] = { "stop", BROKER_TO_WORKER, &msg_epoch_schema },
};

enum status message_decode(struct decoder *d, enum message_link link, const void *bytes, size_t len,
                           struct message *out, struct error *err)
{
    const char *type;
    enum status s = decoder_open(d, bytes, len, &type, err);
    if (s != OK)
        return s;
    for (int kind = 0; kind < MSG_KINDS; kind++) {
        if (kinds[kind].link == link && !strcmp(kinds[kind].type, type)) {
            out->kind = (enum message_kind)kind;
            return decoder_read(d, kinds[kind].schema, &out->generate, err);
        }
    }
    return error_set(err, E_UNSUPPORTED, "type: there is no message of this type here");
}

void message_encode(struct buffer *out, const struct message *m)
{
    assert(m->kind < MSG_KINDS);
    schema_encode(out, kinds[m->kind].type, kinds[m->kind].schema, &m->generate);
}

const char *message_kind_name(enum message_kind kind)
{
    return kinds[kind].type;
}

bool session_name_is_valid(struct slice name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    for (size_t i = 0; i < name.len; i++)
        if (!memchr(allowed, name.data[i], sizeof allowed - 1))
            return false;
    return name.len > 0 && name.len <= MAX_SESSION_NAME;
}

struct slice slice_of(const char *text)
{
    return (struct slice){ text, strlen(text) };
}

bool slice_is(struct slice s, const char *text)
{
    return s.data && s.len == strlen(text) && !memcmp(s.data, text, s.len);
}
