#include "broker/answer.h"

#include <math.h>

/* What a free one may keep for the next job. */
enum { KEEP_BYTES = 64 << 10 };

void answer_fini(struct answer *a)
{
    for (int i = 0; i < MAX_CHOICES; i++)
        collected_fini(&a->candidates[i].collected);
    collected_fini(&a->prompt);
}

void answer_clear(struct answer *a)
{
    if (answer_size(a) > KEEP_BYTES)
        answer_fini(a);
    for (int i = 0; i < MAX_CHOICES; i++) {
        struct collected kept = a->candidates[i].collected;
        collected_clear(&kept);
        a->candidates[i] = (struct candidate){ .collected = kept };
    }
    collected_clear(&a->prompt);
}

void answer_begin(struct answer *a, const struct generate *request, bool is_kept)
{
    a->is_kept = is_kept;
    a->is_embedding = request->pooling.data != NULL;
    a->is_resumable = true;
    a->ids_bytes = 0;
    a->n_prompt_told = 0;
    a->n_choices = request->n;
    a->n_candidates = request->best_of > request->n ? request->best_of : request->n;
    a->n_ended = 0;
}

/* The worker's word as a text that stays; NULL for one that ends no choice. */
static const char *reason_of(const struct step_item *item)
{
    return slice_is(item->finish_reason, "stop")     ? "stop"
           : slice_is(item->finish_reason, "length") ? "length"
                                                     : NULL;
}

static bool ends_the_job(const struct step_item *item)
{
    return item->error_code.data || slice_is(item->finish_reason, "cancelled");
}

const char *answer_find_fault(const struct answer *a, const struct step_item *item)
{
    bool is_job_end = ends_the_job(item);
    if (item->choice >= a->n_candidates)
        return "it made a choice that nobody wants";
    if (a->candidates[item->choice].finish_reason && (item->ids.n || item->text.len || !is_job_end))
        return "it went on with a choice that had ended";
    if (is_job_end)
        return NULL;
    if (item->finish_reason.data && !reason_of(item))
        return "it ended a choice for a reason that does not exist";
    if (item->finish_reason.data && a->is_embedding && !item->embedding.data)
        return "it ended an embedding without one";
    return NULL;
}

static void keep_ids(struct answer *a, struct candidate *c, struct id_array ids)
{
    size_t bytes = ids.n * sizeof *ids.ids;
    a->is_resumable = a->is_resumable && a->ids_bytes + bytes <= MAX_RESUME_BYTES;
    if (!a->is_resumable)
        return;
    a->ids_bytes += bytes;
    if (!a->is_kept)
        buffer_append(&c->collected.ids, ids.ids, bytes);
}

bool answer_add(struct answer *a, const struct step_item *item)
{
    struct candidate *c = &a->candidates[item->choice];

    c->n_tokens += item->ids.n;
    c->text_bytes += item->text.len;
    a->n_prompt_told += item->prompt_logprobs.n;
    if (item->logprob_sum != 0)
        c->logprob_sum = item->logprob_sum;
    keep_ids(a, c, item->ids);
    if (a->is_kept) {
        collected_add(&c->collected, item->ids, item->text, item->logprobs);
        collected_add(&a->prompt, (struct id_array){ 0 }, (struct slice){ 0 }, item->prompt_logprobs);
    }
    if (ends_the_job(item))
        return true;
    if (!item->finish_reason.data)
        return false;
    c->finish_reason = reason_of(item);
    return ++a->n_ended == a->n_candidates;
}

void answer_abandon(struct answer *a)
{
    a->is_kept = a->is_resumable = false;
}

static bool has_begun(const struct answer *a)
{
    for (uint32_t i = 0; i < a->n_candidates; i++)
        if (a->candidates[i].n_tokens || a->candidates[i].finish_reason)
            return true;
    return a->n_prompt_told > 0;
}

void answer_fill_resume(struct answer *a, struct generate *request)
{
    if (!has_begun(a))
        return;
    for (uint32_t i = 0; i < a->n_candidates; i++) {
        const struct candidate *c = &a->candidates[i];
        a->resumed[i] = (struct resumed_choice){ .text_bytes = c->text_bytes, .logprob_sum = c->logprob_sum };
        if (c->finish_reason)
            a->resumed[i].finish_reason = slice_of(c->finish_reason);
        else if (c->collected.ids.len)
            a->resumed[i].ids = (struct slice){ c->collected.ids.data, c->collected.ids.len };
    }
    request->resume = (struct struct_array){ a->resumed, a->n_candidates };
    request->prompt_told = a->n_prompt_told;
}

size_t answer_size(const struct answer *a)
{
    size_t size = collected_size(&a->prompt);
    for (uint32_t i = 0; i < a->n_candidates; i++)
        size += collected_size(&a->candidates[i].collected);
    return size;
}

size_t answer_objects(const struct answer *a)
{
    size_t n = collected_objects(&a->prompt);
    for (uint32_t i = 0; i < a->n_candidates; i++)
        n += collected_objects(&a->candidates[i].collected);
    return n;
}

uint64_t answer_decoded(const struct answer *a)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_candidates; i++)
        if (a->candidates[i].n_tokens)
            n += a->candidates[i].n_tokens - 1;
    return n;
}

/* Mean log-probability per token. One without tokens comes last: it has nothing to say for itself. */
static double worth(const struct candidate *c)
{
    return c->n_tokens ? c->logprob_sum / (double)c->n_tokens : -INFINITY;
}

/* The candidates that are told, in their order: as they are numbered, or the best ones, best first. */
static void rank(const struct answer *a, uint32_t order[MAX_CHOICES])
{
    for (uint32_t i = 0; i < a->n_candidates; i++) {
        uint32_t at = i;
        if (a->n_candidates > a->n_choices) {
            for (; at > 0 && worth(&a->candidates[i]) > worth(&a->candidates[order[at - 1]]); at--)
                order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

static void fill_only_choice(const struct answer *a, struct candidate *c, struct msg_done *done)
{
    if (a->is_kept && !a->is_embedding)
        collected_fill(&c->collected, &done->ids, &done->text, &done->logprobs);
}

static void fill_choices(struct answer *a, const uint32_t order[MAX_CHOICES], struct msg_done *done)
{
    for (uint32_t i = 0; i < a->n_choices; i++) {
        struct candidate *c = &a->candidates[order[i]];
        struct choice_row *row = &a->rows[i];
        *row = (struct choice_row){ .index = i,
                                    .finish_reason = slice_of(c->finish_reason),
                                    .completion_tokens = c->n_tokens,
                                    .logprob_sum = c->logprob_sum };
        if (a->is_kept)
            collected_fill(&c->collected, &row->ids, &row->text, &row->logprobs);
    }
    done->choices = (struct struct_array){ a->rows, a->n_choices };
}

void answer_fill(struct answer *a, struct msg_done *done)
{
    uint32_t order[MAX_CHOICES] = { 0 };
    struct id_array no_ids;
    struct slice no_text;

    rank(a, order);
    done->finish_reason = slice_of(a->candidates[order[0]].finish_reason);
    if (a->n_choices == 1)
        fill_only_choice(a, &a->candidates[order[0]], done);
    else
        fill_choices(a, order, done);
    if (a->is_kept)
        collected_fill(&a->prompt, &no_ids, &no_text, &done->prompt_logprobs);
}
