#include "broker/models.h"

#include <bsd/string.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/ending.h"
#include "common/clock.h"
#include "common/xalloc.h"

enum { RETRY_FIRST_MS = 1000, RETRY_MIN_MS = 100, RETRY_MAX_MS = 60000 };

/* How much the newest gap counts: about the last ten ends matter. A guess. */
static const double GAP_WEIGHT = 0.2;

struct model *model_add(struct broker *b, struct slice name, const char *path, uint32_t wanted_workers)
{
    if (b->models.count >= MAX_MODELS)
        return NULL;
    struct model *model = xcalloc(1, sizeof *model);
    memcpy(model->name, name.data, name.len);
    model->path = xstrdup(path);
    model->wanted_workers = wanted_workers;
    list_append(&b->models, &model->of_broker);
    return model;
}

struct model *model_find(const struct broker *b, struct slice name)
{
    list_each(model, &b->models, struct model, of_broker)
    {
        if (slice_is(name, model->name))
            return model;
    }
    return NULL;
}

void model_destroy(struct model *model)
{
    list_remove(&model->of_broker);
    free(model->path);
    free(model);
}

static void copy_slice(char *out, size_t size, struct slice from)
{
    size_t n = from.len < size - 1 ? from.len : size - 1;
    memcpy(out, from.data ? from.data : "", n);
    out[n] = 0;
}

void model_note_loss(struct broker *b, struct model *model, int64_t now_ms)
{
    if (model->wanted_workers || !list_is_empty(&model->workers))
        return;
    if (list_is_empty(&model->queue)) {
        model_destroy(model);
        return;
    }
    model->deserted_ms = now_ms;
    broker_wake_at(b, now_ms + MODEL_WAIT_MS);
}

void model_upkeep(struct broker *b, struct model *model, int64_t now_ms)
{
    if (!model->deserted_ms)
        return;
    if (!deadline_passed(now_ms, model->deserted_ms + MODEL_WAIT_MS)) {
        broker_wake_at(b, model->deserted_ms + MODEL_WAIT_MS);
        return;
    }
    list_each(job, &model->queue, struct job, place)
        job_end_error(b, job, SLOT_FREED, slice_of(ERROR_WORKER_LOST),
                      slice_of("the last worker of this model is lost"), now_ms);
    model_destroy(model);
}

void model_take_facts(struct model *model, const struct msg_register *facts)
{
    model->deserted_ms = 0;
    if (facts->path.data) {
        free(model->path);
        model->path = xstrndup(facts->path.data, facts->path.len);
    }
    copy_slice(model->architecture, sizeof model->architecture, facts->architecture);
    model->parameters = facts->parameters;
    model->weight_bytes = facts->weight_bytes;
    model->n_ctx = facts->n_ctx;
    model->n_vocab = facts->n_vocab;
}

bool model_is_same(const struct model *model, const struct msg_register *facts)
{
    return list_is_empty(&model->workers) ||
           (model->parameters == facts->parameters && model->weight_bytes == facts->weight_bytes &&
            model->n_vocab == facts->n_vocab && model->n_ctx == facts->n_ctx &&
            strlen(model->architecture) == facts->architecture.len);
}

void model_note_end(struct model *model, int64_t now_ms)
{
    double gap = (double)(now_ms - model->last_end_ms);
    bool is_busy = !list_is_empty(&model->queue);

    /* Only under load does the gap say how fast the model is and not how often it is asked. */
    if (is_busy && model->last_end_ms)
        model->gap_ms = model->gap_ms > 0 ? model->gap_ms + GAP_WEIGHT * (gap - model->gap_ms) : gap;
    model->last_end_ms = is_busy ? now_ms : 0;
}

uint64_t model_retry_ms(const struct model *model)
{
    if (model->gap_ms <= 0)
        return RETRY_FIRST_MS;
    if (model->gap_ms < RETRY_MIN_MS)
        return RETRY_MIN_MS;
    return model->gap_ms > RETRY_MAX_MS ? RETRY_MAX_MS : (uint64_t)model->gap_ms;
}

uint32_t model_slots(const struct model *model)
{
    uint32_t n = 0;
    list_each(w, &model->workers, struct worker, of_model) n += w->slots;
    return n;
}

uint32_t model_running(const struct model *model)
{
    uint32_t n = 0;
    list_each(w, &model->workers, struct worker, of_model) n += (uint32_t)w->jobs.count;
    return n;
}
