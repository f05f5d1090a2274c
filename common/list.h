/* Intrusive doubly linked list. The link sits inside the element, so moving an element between lists never
 * allocates. An element is on at most one list per link; list_remove on an unlinked element does nothing.
 * The head counts its elements. */
#ifndef WOOLLY_COMMON_LIST_H
#define WOOLLY_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct link {
    struct link *next, *prev;
    struct list *list; /* NULL while on no list */
};

struct list {
    struct link *first, *last;
    size_t count;
};

void list_append(struct list *l, struct link *n);
void list_prepend(struct list *l, struct link *n);
void list_insert_before(struct link *at, struct link *n);
void list_remove(struct link *n);

static inline bool list_is_empty(const struct list *l)
{
    return !l->first;
}

/* The struct that holds `link` as its member `name`, or NULL for a NULL link. */
#define list_entry(link_ptr, type, name)                                                                     \
    ((link_ptr) ? (type *)(void *)((char *)(link_ptr)-offsetof(type, name)) : (type *)NULL)

/* for (it = each element): the element may be removed inside the loop. */
#define list_each(it, head, type, name)                                                                      \
    for (type *it = list_entry((head)->first, type, name), *it##_next;                                       \
         it && (it##_next = list_entry(it->name.next, type, name), true); it = it##_next)

#endif
