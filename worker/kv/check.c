#undef NDEBUG /* checking is all that this file does */
#include <assert.h>
#include <stdlib.h>

#include "common/xalloc.h"
#include "worker/kv/page.h"

/* References there ought to be: from slots, and from published children in use. */
static int32_t *count_refs(const struct kv_cache *c)
{
    int32_t *refs = xcalloc((size_t)c->shape.n_pages, sizeof *refs);
    for (int slot = 0; slot < c->shape.n_slots; slot++)
        for (int i = 0; i < kv_cache_slot_pages(c, slot); i++)
            refs[kv_cache_table(c, slot)[i]]++;
    for (int i = 0; i < c->shape.n_pages; i++)
        if (c->pages[i].is_published && c->pages[i].refs > 0 && c->pages[i].parent >= 0)
            refs[c->pages[i].parent]++;
    return refs;
}

static void check_pages(const struct kv_cache *c)
{
    int32_t *refs = count_refs(c);
    int n_used = 0, n_cached = 0, n_published = 0;
    for (int i = 0; i < c->shape.n_pages; i++) {
        const struct kv_page *p = &c->pages[i];
        assert(p->refs == refs[i]);
        assert(!p->is_published || p->parent < 0 || c->pages[p->parent].is_published);
        n_used += p->refs > 0;
        n_published += p->is_published;
        n_cached += p->is_published && p->refs == 0;
    }
    assert(n_used == c->counts.used && n_published == c->counts.published && n_cached == c->counts.cached);
    assert(n_used + n_cached + c->counts.free == c->counts.total);
    free(refs);
}

/* A page that stands before its child would be evicted before it. */
static void check_cached(const struct kv_cache *c)
{
    bool *is_before = xcalloc((size_t)c->shape.n_pages, sizeof *is_before);
    int n = 0;
    int32_t last = -1;
    for (int32_t i = c->first_cached; i >= 0; last = i, i = c->pages[i].next) {
        const struct kv_page *p = &c->pages[i];
        assert(p->is_published && p->refs == 0 && p->previous == last);
        assert(p->parent < 0 || !is_before[p->parent]);
        is_before[i] = true;
        n++;
    }
    assert(last == c->last_cached && n == c->counts.cached);
    free(is_before);
}

static void check_index(const struct kv_cache *c)
{
    int n = 0;
    for (uint32_t b = 0; b < c->n_buckets; b++)
        for (int32_t i = c->buckets[b]; i >= 0; i = c->pages[i].next_in_bucket, n++)
            assert(c->pages[i].is_published && (c->pages[i].hash & (c->n_buckets - 1)) == b);
    assert(n == c->counts.published);
    for (int i = 0; i < c->counts.free; i++)
        assert(c->pages[c->free_pages[i]].refs == 0 && !c->pages[c->free_pages[i]].is_published);
}

void kv_cache_check(const struct kv_cache *c)
{
    check_pages(c);
    check_cached(c);
    check_index(c);
}
