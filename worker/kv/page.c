#include "worker/kv/page.h"

#include <assert.h>

static void list_append_cached(struct kv_cache *c, int32_t page)
{
    struct kv_page *p = &c->pages[page];
    p->previous = c->last_cached;
    p->next = -1;
    if (c->last_cached >= 0)
        c->pages[c->last_cached].next = page;
    else
        c->first_cached = page;
    c->last_cached = page;
    c->counts.cached++;
}

static void list_remove_cached(struct kv_cache *c, int32_t page)
{
    const struct kv_page *p = &c->pages[page];
    if (p->previous >= 0)
        c->pages[p->previous].next = p->next;
    else
        c->first_cached = p->next;
    if (p->next >= 0)
        c->pages[p->next].previous = p->previous;
    else
        c->last_cached = p->previous;
    c->counts.cached--;
}

int32_t kv_page_take(struct kv_cache *c)
{
    int32_t page;
    assert(kv_cache_available(c) > 0);
    if (c->counts.free > 0) {
        page = c->free_pages[--c->counts.free];
    } else {
        page = c->first_cached;
        list_remove_cached(c, page);
        kv_page_unpublish(c, page);
        c->counts.n_evicted++;
    }
    c->pages[page].refs = 1;
    c->counts.used++;
    return page;
}

void kv_page_hold(struct kv_cache *c, int32_t page)
{
    while (page >= 0 && c->pages[page].refs++ == 0) {
        list_remove_cached(c, page);
        c->counts.used++;
        page = c->pages[page].parent;
    }
}

void kv_page_drop(struct kv_cache *c, int32_t page)
{
    while (page >= 0 && --c->pages[page].refs == 0) {
        c->counts.used--;
        if (!c->pages[page].is_published) {
            c->free_pages[c->counts.free++] = page;
            return;
        }
        list_append_cached(c, page);
        page = c->pages[page].parent;
    }
}
