#include "common/list.h"

#include <assert.h>

void list_append(struct list *l, struct link *n)
{
    assert(!n->list);
    *n = (struct link){ .prev = l->last, .list = l };
    if (l->last)
        l->last->next = n;
    else
        l->first = n;
    l->last = n;
    l->count++;
}

void list_prepend(struct list *l, struct link *n)
{
    assert(!n->list);
    *n = (struct link){ .next = l->first, .list = l };
    if (l->first)
        l->first->prev = n;
    else
        l->last = n;
    l->first = n;
    l->count++;
}

void list_insert_before(struct link *at, struct link *n)
{
    if (!at->prev) {
        list_prepend(at->list, n);
        return;
    }
    assert(!n->list);
    *n = (struct link){ .next = at, .prev = at->prev, .list = at->list };
    at->prev->next = n;
    at->prev = n;
    at->list->count++;
}

void list_remove(struct link *n)
{
    struct list *l = n->list;
    if (!l)
        return;
    if (n->prev)
        n->prev->next = n->next;
    else
        l->first = n->next;
    if (n->next)
        n->next->prev = n->prev;
    else
        l->last = n->prev;
    l->count--;
    *n = (struct link){ 0 };
}
