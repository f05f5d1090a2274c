/* Load on a server that speaks HTTP: a connection for each request, all driven by this thread. Connections
 * are not used again: servers close idle ones just when the next request is on its way, or keep a thread for
 * each. Events wait in a queue from where curl finds them until they are asked for; their times are those of
 * their arrival. */
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load_answer.h"
#include "bench/load_target.h"
#include "bench/sse.h"
#include "common/buffer.h"
#include "common/clock.h"
#include "common/process.h"
#include "common/xalloc.h"

enum { MAX_REFUSAL = 64 << 10, MAX_MODELS_BODY = 1 << 20, ANSWER_MS = 5000 };

struct http_target;

struct http_user {
    struct http_target *target;
    CURL *easy;
    char *body; /* of the running request */
    bool is_running, has_end;
    struct sse stream;
    struct buffer refusal; /* the answer's body when its status is not 200 */
    int total;
    char why[300]; /* not empty: the request has failed, whatever else comes */
};

struct http_target {
    struct load_target target;
    const struct load_request *request;
    char url[600];
    CURLM *multi;
    struct curl_slist *headers;
    struct http_user users[LOAD_MAX_USERS];
    struct load_event *events; /* those from first to n are waiting */
    size_t first, n, cap;
};

static void post(struct http_user *u, struct load_event e)
{
    struct http_target *t = u->target;
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->events = xrealloc(t->events, t->cap * sizeof *t->events);
    }
    e.user = (int)(u - t->users);
    e.at_us = clock_us();
    t->events[t->n++] = e;
}

/* ---- the answer ---- */

static void take_event(void *context, const char *data, size_t len)
{
    struct http_user *u = context;
    struct answer_event a;
    if (*u->why)
        return;
    if (!answer_read(u->target->request->api, data, len, &a)) {
        snprintf(u->why, sizeof u->why, "the server streams what is no completion");
        return;
    }
    if (a.is_error)
        snprintf(u->why, sizeof u->why, "%s", *a.why ? a.why : "an error");
    if (a.total)
        u->total = a.total;
    u->has_end = u->has_end || a.is_end;
    if (a.tokens)
        post(u, (struct load_event){ .kind = LOAD_TOKENS, .tokens = a.tokens });
}

/* Curl's write function: all bytes taken, or the transfer ends with an error. */
static size_t take_bytes(char *bytes, size_t one, size_t n, void *context)
{
    struct http_user *u = context;
    long status = 0;
    (void)one;
    curl_easy_getinfo(u->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (u->refusal.len + n > MAX_REFUSAL)
            return 0;
        buffer_append(&u->refusal, bytes, n);
        return n;
    }
    if (sse_feed(&u->stream, bytes, n, take_event, u) == OK)
        return n;
    snprintf(u->why, sizeof u->why, "the server streams an event of more than %d bytes", SSE_MAX_EVENT);
    return 0;
}

static void stop(struct http_user *u)
{
    curl_multi_remove_handle(u->target->multi, u->easy);
    free(u->body);
    u->body = NULL;
    u->is_running = false;
}

static void end_transfer(struct http_user *u, CURLcode result)
{
    long status = 0;
    curl_easy_getinfo(u->easy, CURLINFO_RESPONSE_CODE, &status);
    stop(u);
    if (!*u->why && result != CURLE_OK)
        snprintf(u->why, sizeof u->why, "%s", curl_easy_strerror(result));
    if (!*u->why && status != 200) {
        int begin = snprintf(u->why, sizeof u->why, "HTTP status %ld: ", status);
        buffer_append(&u->refusal, "", 1);
        answer_refusal(u->refusal.data, u->refusal.len - 1, u->why + begin, sizeof u->why - (size_t)begin);
    }
    if (!*u->why && !u->has_end)
        snprintf(u->why, sizeof u->why, "the answer broke off");
    if (*u->why)
        post(u, (struct load_event){ .kind = LOAD_ERROR, .why = u->why });
    else
        post(u, (struct load_event){ .kind = LOAD_DONE, .tokens = u->total });
}

/* ---- the request ---- */

static json_t *prompt_json(const struct http_target *t, const struct prompts *prompt)
{
    if (!t->target.n_vocab)
        return json_string(prompt->text.data);
    json_t *ids = json_array();
    for (int i = 0; i < prompt->n_shared + prompt->n_own; i++)
        json_array_append_new(ids, json_integer(prompt->ids[i]));
    return ids;
}

/* Always the most likely token, in the way that costs a server least. What prompts share may be taken from a
 * cache where that is what is measured, and only there. */
static char *body_text(const struct http_target *t, const struct prompts *prompt)
{
    const struct load_request *q = t->request;
    json_t *body = json_pack("{s:o, s:b, s:i, s:b}", "prompt", prompt_json(t, prompt), "stream", 1,
                             "temperature", 0, "ignore_eos", 1);
    if (q->api == LOAD_COMPLETION)
        json_object_update_new(body, json_pack("{s:i, s:b, s:i}", "n_predict", q->tokens, "cache_prompt",
                                               q->shared_prefix > 0, "top_k", 1));
    else
        json_object_update_new(body, json_pack("{s:s, s:i, s:{s:b}}", "model", q->model, "max_tokens",
                                               q->tokens, "stream_options", "include_usage", 1));
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

static enum status submit(struct load_target *target, int user, const struct prompts *prompt,
                          struct error *err)
{
    struct http_target *t = (struct http_target *)target;
    struct http_user *u = &t->users[user];
    if (!u->easy) {
        u->target = t;
        u->easy = curl_easy_init();
        curl_easy_setopt(u->easy, CURLOPT_URL, t->url);
        curl_easy_setopt(u->easy, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(u->easy, CURLOPT_HTTPHEADER, t->headers);
        curl_easy_setopt(u->easy, CURLOPT_WRITEFUNCTION, take_bytes);
        curl_easy_setopt(u->easy, CURLOPT_WRITEDATA, u);
        curl_easy_setopt(u->easy, CURLOPT_PRIVATE, u);
        curl_easy_setopt(u->easy, CURLOPT_FORBID_REUSE, 1L);
        curl_easy_setopt(u->easy, CURLOPT_NOSIGNAL, 1L);
    }
    sse_restart(&u->stream);
    buffer_clear(&u->refusal);
    u->has_end = false;
    u->total = 0;
    *u->why = 0;
    u->body = body_text(t, prompt);
    curl_easy_setopt(u->easy, CURLOPT_POSTFIELDS, u->body);
    CURLMcode code = curl_multi_add_handle(t->multi, u->easy);
    if (code != CURLM_OK) {
        free(u->body);
        u->body = NULL;
        return error_set(err, E_IO, "%s", curl_multi_strerror(code));
    }
    u->is_running = true;
    return OK;
}

static void cancel(struct load_target *target, int user)
{
    struct http_target *t = (struct http_target *)target;
    stop(&t->users[user]);
    size_t kept = t->first;
    for (size_t i = t->first; i < t->n; i++)
        if (t->events[i].user != user)
            t->events[kept++] = t->events[i];
    t->n = kept;
}

/* ---- the loop ---- */

static void perform(struct http_target *t)
{
    int n;
    curl_multi_perform(t->multi, &n);
    for (CURLMsg *m; (m = curl_multi_info_read(t->multi, &n));) {
        struct http_user *u;
        CURLcode result = m->data.result; /* the message does not outlive its transfer */
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &u);
        end_transfer(u, result);
    }
}

static bool next(struct load_target *target, int timeout_ms, struct load_event *e)
{
    struct http_target *t = (struct http_target *)target;
    if (t->first == t->n) {
        t->first = t->n = 0;
        perform(t);
    }
    if (!t->n && timeout_ms > 0) {
        curl_multi_poll(t->multi, NULL, 0, timeout_ms, NULL);
        perform(t);
    }
    if (t->first == t->n)
        return false;
    *e = t->events[t->first++];
    return true;
}

static void close_target(struct load_target *target)
{
    struct http_target *t = (struct http_target *)target;
    for (int i = 0; i < LOAD_MAX_USERS; i++) {
        struct http_user *u = &t->users[i];
        if (u->is_running)
            stop(u);
        curl_easy_cleanup(u->easy);
        sse_fini(&u->stream);
        buffer_fini(&u->refusal);
    }
    curl_multi_cleanup(t->multi);
    curl_slist_free_all(t->headers);
    curl_global_cleanup();
    free(t->events);
    free(t);
}

/* ---- opening ---- */

static size_t take_models(char *bytes, size_t one, size_t n, void *context)
{
    struct buffer *body = context;
    (void)one;
    if (body->len + n > MAX_MODELS_BODY)
        return 0;
    buffer_append(body, bytes, n);
    return n;
}

/* llama-server tells the size of its vocabulary among the facts of its model; OpenAI does not. */
static int vocabulary_in(const struct buffer *body)
{
    json_t *answer = json_loadb(body->data ? body->data : "", body->len, 0, NULL);
    const json_t *model = json_array_get(json_object_get(answer, "data"), 0);
    json_int_t n = json_integer_value(json_object_get(json_object_get(model, "meta"), "n_vocab"));
    json_decref(answer);
    return n > 0 && n <= INT32_MAX ? (int)n : 0;
}

static enum status ask_vocabulary(struct http_target *t, const char *base, int base_len, struct error *err)
{
    struct buffer body = { 0 };
    char url[600];
    enum status s = OK;
    CURL *easy = curl_easy_init();
    snprintf(url, sizeof url, "%.*s/v1/models", base_len, base);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_models);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)ANSWER_MS);
    CURLcode code = curl_easy_perform(easy);
    curl_easy_cleanup(easy);
    if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
        s = error_set(err, E_INVALID, "%.*s: %s", base_len, base, curl_easy_strerror(code));
    else if (code != CURLE_OK)
        s = error_set(err, E_UNREACHABLE, "no server at %.*s: %s", base_len, base, curl_easy_strerror(code));
    else if (!(t->target.n_vocab = vocabulary_in(&body)) && t->request->api == LOAD_COMPLETION)
        s = error_set(err, E_UNSUPPORTED,
                      "%s does not tell how many tokens its model has; --api openai can do without", url);
    buffer_fini(&body);
    return s;
}

enum status load_open_http(struct load_target **out, const struct load_request *q, struct error *err)
{
    static const struct load_target_calls calls = { submit, cancel, next, close_target };
    struct http_target *t = xcalloc(1, sizeof *t);
    int base_len = (int)strlen(q->url);

    *out = NULL;
    process_raise_file_limit();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    while (base_len && q->url[base_len - 1] == '/')
        base_len--;
    t->target.calls = &calls;
    t->request = q;
    snprintf(t->target.where, sizeof t->target.where, "%s", q->url);
    snprintf(t->url, sizeof t->url, "%.*s%s", base_len, q->url,
             q->api == LOAD_COMPLETION ? "/completion" : "/v1/completions");
    t->multi = curl_multi_init();
    t->headers = curl_slist_append(NULL, "Content-Type: application/json");
    t->headers = curl_slist_append(t->headers, "Expect:"); /* nobody waits for a 100 */
    enum status s = ask_vocabulary(t, q->url, base_len, err);
    if (s == OK && q->api == LOAD_OPENAI)
        t->target.n_vocab = 0;
    if (s == OK)
        *out = &t->target;
    else
        close_target(&t->target);
    return s;
}
