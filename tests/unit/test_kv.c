/* Pages: who has which, who may write to them, who finds them, and in which order they make room. A random
 * run of all operations is compared with a world in which every slot has memory of its own and all texts are
 * kept in full. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/xalloc.h"
#include "worker/kv/page.h"

/* A page of two layers and two heads, whose content is one number all over. */
static const struct kv_shape small = {
    .type = KV_F16, .head_dim = 8, .n_layers = 2, .n_kv_heads = 2, .n_slots = 4, .n_ctx = 4 * KV_BLOCK
};

static struct kv_cache make_cache(int n_pages)
{
    struct kv_cache c;
    struct kv_shape shape = small;
    struct error err;
    shape.n_pages = n_pages;
    if (kv_cache_init(&c, &shape, &err) != OK)
        fail_msg("%s", err.text);
    return c;
}

static struct kv_salt salt_of(const char *text)
{
    struct kv_salt salt = { .n = (uint8_t)strlen(text) };
    memcpy(salt.bytes, text, salt.n);
    return salt;
}

/* 64 tokens that differ from those of another number in one place only, the last or the first. */
struct text {
    int32_t tokens[KV_BLOCK];
};

static const int32_t *tokens_of(int number, struct text *room)
{
    for (int i = 0; i < KV_BLOCK; i++)
        room->tokens[i] = 1000 + i;
    room->tokens[number % 2 ? 0 : KV_BLOCK - 1] = number;
    return room->tokens;
}

static bool publish(struct kv_cache *c, int slot, int page, int number, const char *salt)
{
    struct text room;
    return kv_cache_publish(c, slot, page, tokens_of(number, &room), salt_of(salt));
}

static bool adopt(struct kv_cache *c, int slot, int page, int number, const char *salt)
{
    struct text room;
    return kv_cache_adopt(c, slot, page, tokens_of(number, &room), salt_of(salt));
}

static enum kv_miss miss(const struct kv_cache *c, int slot, int page, int number, const char *salt)
{
    struct text room;
    return kv_cache_miss(c, slot, page, tokens_of(number, &room), salt_of(salt));
}

static char *content(const struct kv_cache *c, int slot, int page)
{
    return c->memory + (size_t)kv_cache_table(c, slot)[page] * c->page_bytes;
}

static void stamp(struct kv_cache *c, int slot, int page, uint32_t number)
{
    for (size_t i = 0; i < c->page_bytes; i += sizeof number)
        memcpy(content(c, slot, page) + i, &number, sizeof number);
}

static void assert_stamp(const struct kv_cache *c, int slot, int page, uint32_t number)
{
    const char *bytes = content(c, slot, page);
    assert_memory_equal(bytes, &number, sizeof number);
    assert_memory_equal(bytes, bytes + sizeof number, c->page_bytes - sizeof number);
}

/* Computes and publishes pages first..last-1 of a slot, whose texts have these numbers. */
static void fill(struct kv_cache *c, int slot, int first, int last, const int *numbers, const char *salt)
{
    assert_true(kv_cache_reserve(c, slot, first * KV_BLOCK, last * KV_BLOCK));
    for (int i = first; i < last; i++) {
        stamp(c, slot, i, (uint32_t)numbers[i]);
        assert_true(publish(c, slot, i, numbers[i], salt));
    }
    kv_cache_check(c);
}

/* How many pages of this text there are for a slot that begins. */
static int n_found(struct kv_cache *c, int slot, int n, const int *numbers, const char *salt)
{
    int found = 0;
    kv_cache_truncate(c, slot, 0);
    while (found < n && adopt(c, slot, found, numbers[found], salt)) {
        assert_stamp(c, slot, found, (uint32_t)numbers[found]);
        found++;
    }
    kv_cache_truncate(c, slot, 0);
    return found;
}

/* --- slots --- */

static void test_a_slot_has_the_pages_its_positions_need(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    assert_int_equal(kv_cache_available(&c), 16);
    assert_true(kv_cache_reserve(&c, 1, 0, 1));
    assert_int_equal(kv_cache_slot_pages(&c, 1), 1);
    assert_true(kv_cache_reserve(&c, 1, 1, 64));
    assert_int_equal(kv_cache_slot_pages(&c, 1), 1);
    assert_true(kv_cache_reserve(&c, 1, 63, 65));
    assert_int_equal(kv_cache_slot_pages(&c, 1), 2);
    assert_true(kv_cache_reserve(&c, 1, 65, 256));
    assert_int_equal(kv_cache_slot_pages(&c, 1), 4);
    assert_int_equal(kv_cache_available(&c), 12);
    kv_cache_truncate(&c, 1, 200);
    assert_int_equal(kv_cache_slot_pages(&c, 1), 4);
    kv_cache_truncate(&c, 1, 65);
    assert_int_equal(kv_cache_slot_pages(&c, 1), 2);
    kv_cache_truncate(&c, 1, 64);
    assert_int_equal(kv_cache_slot_pages(&c, 1), 1);
    kv_cache_truncate(&c, 1, 0);
    assert_int_equal(kv_cache_available(&c), 16);
    kv_cache_fini(&c);
}

static void test_a_reserve_that_finds_too_few_pages_changes_nothing(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(5);
    assert_true(kv_cache_reserve(&c, 0, 0, 3 * KV_BLOCK));
    assert_true(kv_cache_reserve(&c, 1, 0, 1));
    assert_false(kv_cache_reserve(&c, 1, 1, 3 * KV_BLOCK));
    assert_int_equal(kv_cache_slot_pages(&c, 1), 1);
    assert_int_equal(kv_cache_available(&c), 1);
    assert_true(kv_cache_reserve(&c, 1, 1, 2 * KV_BLOCK));
    assert_int_equal(kv_cache_available(&c), 0);
    kv_cache_check(&c);
    kv_cache_fini(&c);
}

static void test_who_writes_to_a_shared_page_gets_a_copy(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    assert_true(kv_cache_reserve(&c, 0, 0, 2 * KV_BLOCK));
    stamp(&c, 0, 0, 7);
    stamp(&c, 0, 1, 8);
    kv_cache_share(&c, 0, 1, 100);
    kv_cache_share(&c, 0, 2, 10);
    assert_int_equal(kv_cache_slot_pages(&c, 1), 2);
    assert_int_equal(kv_cache_slot_pages(&c, 2), 1);
    assert_int_equal(kv_cache_available(&c), 14);
    kv_cache_check(&c);

    assert_true(kv_cache_reserve(&c, 1, 100, 101));
    assert_ptr_equal(content(&c, 0, 0), content(&c, 1, 0));
    assert_ptr_not_equal(content(&c, 0, 1), content(&c, 1, 1));
    assert_stamp(&c, 1, 1, 8);
    stamp(&c, 1, 1, 9);
    assert_stamp(&c, 0, 1, 8);

    char *own = content(&c, 0, 1); /* by now nobody else has it */
    assert_true(kv_cache_reserve(&c, 0, 100, 101));
    assert_ptr_equal(content(&c, 0, 1), own);
    assert_int_equal(kv_cache_counts(&c).n_copied, 1);
    kv_cache_check(&c);
    kv_cache_fini(&c);
}

static void test_absurd_shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        int n_slots, n_ctx, n_pages;
    } shapes[] = { { 1 << 16, 1 << 28, 0 },     { 1 << 16, 1 << 28, 1 << 22 },
                   { INT32_MAX, INT32_MAX, 0 }, { 1, 65, 1 },
                   { 1, 64, INT32_MAX },        { 1, INT32_MAX, INT32_MAX } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct kv_shape shape = small;
        struct kv_cache c;
        struct error err = { 0 };
        shape.head_dim = 4096;
        shape.n_layers = shape.n_kv_heads = 1 << 15;
        shape.n_slots = shapes[i].n_slots;
        shape.n_ctx = shapes[i].n_ctx;
        shape.n_pages = shapes[i].n_pages;
        assert_int_equal(kv_cache_init(&c, &shape, &err), E_LIMIT);
        assert_non_null(strstr(err.text, "pages"));
        assert_null(c.memory);
    }
}

/* --- published pages --- */

static void test_a_published_text_is_found_from_its_beginning(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    fill(&c, 0, 0, 3, (int[]){ 1, 2, 3 }, "");
    assert_int_equal(n_found(&c, 1, 3, (int[]){ 1, 2, 3 }, ""), 3);
    assert_int_equal(n_found(&c, 1, 3, (int[]){ 1, 2, 4 }, ""), 2);
    assert_int_equal(n_found(&c, 1, 3, (int[]){ 1, 3, 3 }, ""), 1);
    assert_int_equal(n_found(&c, 1, 3, (int[]){ 2, 3, 3 }, ""), 0);
    kv_cache_truncate(&c, 0, 0);
    assert_int_equal(kv_cache_available(&c), 16);
    assert_int_equal(kv_cache_counts(&c).cached, 3);
    assert_int_equal(n_found(&c, 1, 3, (int[]){ 1, 2, 3 }, ""), 3);
    kv_cache_check(&c);
    kv_cache_fini(&c);
}

static void test_a_salt_keeps_texts_apart(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    fill(&c, 0, 0, 2, (int[]){ 1, 2 }, "anna");
    assert_int_equal(n_found(&c, 2, 2, (int[]){ 1, 2 }, ""), 0);
    assert_int_equal(n_found(&c, 2, 2, (int[]){ 1, 2 }, "ann"), 0);
    assert_int_equal(n_found(&c, 2, 2, (int[]){ 1, 2 }, "anna"), 2);
    fill(&c, 1, 0, 2, (int[]){ 1, 2 }, "bert");
    assert_ptr_not_equal(content(&c, 0, 0), content(&c, 1, 0));
    assert_ptr_not_equal(content(&c, 0, 1), content(&c, 1, 1));
    assert_int_equal(miss(&c, 3, 0, 1, "anna"), KV_MISS_NONE);
    assert_int_equal(miss(&c, 3, 0, 1, "carl"), KV_MISS_NEW);
    fill(&c, 2, 0, 1, (int[]){ 1 }, "");
    assert_int_equal(n_found(&c, 3, 1, (int[]){ 1 }, "carl"), 0);
    assert_int_equal(n_found(&c, 3, 1, (int[]){ 1 }, ""), 1);
    kv_cache_fini(&c);
}

static void test_a_page_without_a_published_parent_stays_private(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    assert_true(kv_cache_reserve(&c, 0, 0, 3 * KV_BLOCK));
    assert_false(publish(&c, 0, 1, 2, ""));
    assert_true(publish(&c, 0, 0, 1, ""));
    assert_false(publish(&c, 0, 2, 3, ""));
    assert_true(publish(&c, 0, 1, 2, ""));
    assert_int_equal(kv_cache_slot_published(&c, 0), 2);
    assert_int_equal(kv_cache_counts(&c).published, 2);
    kv_cache_check(&c);
    kv_cache_fini(&c);
}

static void test_equal_pages_become_one(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    fill(&c, 0, 0, 2, (int[]){ 1, 2 }, "");
    fill(&c, 1, 0, 3, (int[]){ 1, 2, 3 }, "");
    assert_ptr_equal(content(&c, 0, 0), content(&c, 1, 0));
    assert_ptr_equal(content(&c, 0, 1), content(&c, 1, 1));
    assert_int_equal(kv_cache_counts(&c).used, 3);
    assert_true(publish(&c, 1, 2, 3, ""));
    assert_int_equal(kv_cache_counts(&c).published, 3);
    kv_cache_check(&c);
    kv_cache_fini(&c);
}

static void test_a_published_page_is_never_written(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(0);
    fill(&c, 0, 0, 2, (int[]){ 1, 2 }, "");
    assert_true(kv_cache_reserve(&c, 0, 127, 128));
    assert_stamp(&c, 0, 1, 2);
    stamp(&c, 0, 1, 99);
    assert_int_equal(kv_cache_slot_published(&c, 0), 1);
    assert_int_equal(n_found(&c, 1, 2, (int[]){ 1, 2 }, ""), 2);
    kv_cache_check(&c);
    kv_cache_fini(&c);
}

static void test_the_longest_unused_page_makes_room_and_children_before_parents(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(6);
    fill(&c, 0, 0, 3, (int[]){ 1, 2, 3 }, "");
    fill(&c, 1, 0, 2, (int[]){ 4, 5 }, "");
    kv_cache_truncate(&c, 0, 0);
    kv_cache_truncate(&c, 1, 0);
    assert_int_equal(kv_cache_available(&c), 6);
    assert_true(kv_cache_reserve(&c, 2, 0, 2 * KV_BLOCK)); /* the free one, then 3 */
    assert_int_equal(miss(&c, 3, 0, 1, ""), KV_MISS_NONE);
    assert_true(adopt(&c, 3, 0, 1, ""));
    assert_true(adopt(&c, 3, 1, 2, ""));
    assert_int_equal(miss(&c, 3, 2, 3, ""), KV_MISS_EVICTED);
    assert_int_equal(miss(&c, 3, 2, 6, ""), KV_MISS_NEW);
    kv_cache_truncate(&c, 3, 0);                                      /* used last, so they go last */
    assert_true(kv_cache_reserve(&c, 2, 2 * KV_BLOCK, 4 * KV_BLOCK)); /* 5, 4 */
    kv_cache_check(&c);
    assert_int_equal(miss(&c, 3, 0, 4, ""), KV_MISS_EVICTED);
    assert_int_equal(n_found(&c, 3, 2, (int[]){ 1, 2 }, ""), 2);
    assert_int_equal(kv_cache_counts(&c).n_evicted, 3);
    assert_int_equal(kv_cache_counts(&c).cached, 2);
    kv_cache_fini(&c);
}

/* Two forks share a page that nobody published; when one of them publishes it, below a parent that the other
 * does not have, that parent stays while the other uses the page. */
static void test_a_parent_outlives_its_children_in_slots_without_it(void **state)
{
    (void)state;
    struct kv_cache c = make_cache(8);
    fill(&c, 3, 0, 1, (int[]){ 1 }, "");
    assert_true(kv_cache_reserve(&c, 0, 0, 2 * KV_BLOCK));
    kv_cache_share(&c, 0, 1, 2 * KV_BLOCK);
    assert_true(publish(&c, 0, 0, 1, "")); /* becomes that of slot 3 */
    assert_true(publish(&c, 0, 1, 2, ""));
    kv_cache_truncate(&c, 0, 0);
    kv_cache_truncate(&c, 3, 0);
    kv_cache_check(&c);
    assert_int_equal(kv_cache_available(&c), 5);
    assert_true(kv_cache_reserve(&c, 2, 0, 4 * KV_BLOCK));
    assert_true(kv_cache_reserve(&c, 3, 0, KV_BLOCK));
    assert_int_equal(kv_cache_available(&c), 0);
    assert_int_equal(kv_cache_counts(&c).n_evicted, 0);
    kv_cache_truncate(&c, 1, 0);
    kv_cache_check(&c);
    assert_int_equal(kv_cache_counts(&c).cached, 2);
    kv_cache_fini(&c);
}

/* --- at random --- */

enum { SLOTS = 6, DEPTH = 5, CROWD = 11, N_NUMBERS = 3 };

/* What a page of a slot ought to be. */
struct expected_page {
    uint32_t stamp;
    bool is_published;
    int number; /* of its text */
};

struct world {
    struct kv_cache cache;
    struct expected_page pages[SLOTS][DEPTH];
    int n[SLOTS], salt[SLOTS];
    uint32_t n_stamps;
    /* Of the page that was last published for a text: its salt, and numbers from 1, 0 behind its end. */
    uint32_t kept[2][N_NUMBERS + 1][N_NUMBERS + 1][N_NUMBERS + 1][N_NUMBERS + 1][N_NUMBERS + 1];
    uint64_t random;
};

static unsigned draw(struct world *w, unsigned n)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(w->random >> 33) % n;
}

static const char *salt_name(int salt)
{
    return salt ? "x" : "";
}

/* For the text that the slot has before this page, and this number. */
static uint32_t *kept_for(struct world *w, int slot, int page, int number)
{
    int n[DEPTH] = { 0 };
    for (int i = 0; i < page; i++)
        n[i] = w->pages[slot][i].number + 1;
    n[page] = number + 1;
    return &w->kept[w->salt[slot]][n[0]][n[1]][n[2]][n[3]][n[4]];
}

static bool is_shared(const struct world *w, int slot, int page)
{
    int32_t it = kv_cache_table(&w->cache, slot)[page];
    for (int s = 0; s < SLOTS; s++)
        for (int i = 0; i < w->n[s]; i++)
            if ((s != slot || i != page) && kv_cache_table(&w->cache, s)[i] == it)
                return true;
    return false;
}

/* Pages of the slot that were behind what is written have lost their meaning. */
static void random_reserve(struct world *w, int slot)
{
    int begin = (int)draw(w, (unsigned)w->n[slot] * KV_BLOCK + 1);
    if (begin == DEPTH * KV_BLOCK)
        return;
    int end = begin + 1 + (int)draw(w, (unsigned)(DEPTH * KV_BLOCK - begin)), n_needed = 0;
    if (draw(w, 2))
        end = begin + 1;
    int last = (end - 1) / KV_BLOCK;
    for (int i = begin / KV_BLOCK; i <= last; i++)
        n_needed += i >= w->n[slot] || w->pages[slot][i].is_published || is_shared(w, slot, i);
    bool has_room = n_needed <= kv_cache_available(&w->cache);
    assert_int_equal(kv_cache_reserve(&w->cache, slot, begin, end), has_room);
    if (!has_room)
        return;
    for (int i = begin / KV_BLOCK; i <= last; i++) {
        if (i < w->n[slot]) /* a copy has the content of what it replaced */
            assert_stamp(&w->cache, slot, i, w->pages[slot][i].stamp);
        w->pages[slot][i] =
            (struct expected_page){ .stamp = ++w->n_stamps, .number = (int)draw(w, N_NUMBERS) };
        stamp(&w->cache, slot, i, w->n_stamps);
    }
    if (w->n[slot] < last + 1)
        w->n[slot] = last + 1;
    else
        kv_cache_truncate(&w->cache, slot, (w->n[slot] = last + 1) * KV_BLOCK);
}

static void random_share(struct world *w, int slot)
{
    int from = (int)draw(w, SLOTS);
    if (w->n[slot] || from == slot)
        return;
    int n_positions = (int)draw(w, (unsigned)w->n[from] * KV_BLOCK + 1);
    kv_cache_share(&w->cache, from, slot, n_positions);
    w->n[slot] = (n_positions + KV_BLOCK - 1) / KV_BLOCK;
    w->salt[slot] = w->salt[from];
    memcpy(w->pages[slot], w->pages[from], sizeof w->pages[slot]);
}

/* Whoever else has the page has it published from now on. */
static void mark_published(struct world *w, int32_t page)
{
    for (int s = 0; s < SLOTS; s++)
        for (int i = 0; i < w->n[s]; i++)
            if (kv_cache_table(&w->cache, s)[i] == page)
                w->pages[s][i].is_published = true;
}

/* The first page that is not, and before that the one behind it, which must not be. */
static void random_publish(struct world *w, int slot)
{
    const int32_t *table = kv_cache_table(&w->cache, slot);
    const char *salt = salt_name(w->salt[slot]);
    int i = 0;
    while (i < w->n[slot] && w->pages[slot][i].is_published)
        i++;
    if (i == w->n[slot])
        return;
    if (i + 1 < w->n[slot])
        assert_false(publish(&w->cache, slot, i + 1, w->pages[slot][i + 1].number, salt));
    int number = w->pages[slot][i].number;
    int32_t own = table[i];
    assert_true(publish(&w->cache, slot, i, number, salt));
    if (table[i] == own)
        *kept_for(w, slot, i, number) = w->pages[slot][i].stamp;
    else
        w->pages[slot][i].stamp = *kept_for(w, slot, i, number);
    mark_published(w, table[i]);
}

static void random_adopt(struct world *w, int slot)
{
    int page = w->n[slot], number = (int)draw(w, N_NUMBERS);
    if (page == DEPTH || (page && !w->pages[slot][page - 1].is_published))
        return;
    if (!page)
        w->salt[slot] = (int)draw(w, 2);
    uint32_t kept = *kept_for(w, slot, page, number);
    enum kv_miss why = miss(&w->cache, slot, page, number, salt_name(w->salt[slot]));
    if (!adopt(&w->cache, slot, page, number, salt_name(w->salt[slot]))) {
        assert_true(why == KV_MISS_NEW || (kept && why == KV_MISS_EVICTED)); /* ghosts may be forgotten */
        return;
    }
    assert_int_equal(why, KV_MISS_NONE);
    assert_true(kept > 0);
    w->n[slot]++;
    w->pages[slot][page] = (struct expected_page){ .stamp = kept, .is_published = true, .number = number };
}

static void random_truncate(struct world *w, int slot)
{
    int n_positions = draw(w, 3) ? (int)draw(w, (unsigned)w->n[slot] * KV_BLOCK + 1) : 0;
    kv_cache_truncate(&w->cache, slot, n_positions);
    w->n[slot] = (n_positions + KV_BLOCK - 1) / KV_BLOCK;
}

static void compare_world(const struct world *w)
{
    bool is_used[CROWD] = { false };
    int n_used = 0;
    for (int s = 0; s < SLOTS; s++) {
        assert_int_equal(kv_cache_slot_pages(&w->cache, s), w->n[s]);
        for (int i = 0; i < w->n[s]; i++) {
            assert_stamp(&w->cache, s, i, w->pages[s][i].stamp);
            is_used[kv_cache_table(&w->cache, s)[i]] = true;
        }
    }
    for (int i = 0; i < CROWD; i++)
        n_used += is_used[i];
    /* A parent that only a child in some slot keeps is used as well. */
    assert_in_range(kv_cache_available(&w->cache), 0, CROWD - n_used);
    kv_cache_check(&w->cache);
}

static void run_world(uint64_t seed)
{
    static void (*const operations[])(struct world *, int) = { random_reserve, random_share, random_publish,
                                                               random_publish, random_adopt, random_adopt,
                                                               random_truncate };
    struct world *w = xcalloc(1, sizeof *w);
    struct kv_shape shape = small;
    struct error err;
    shape.n_slots = SLOTS;
    shape.n_layers = shape.n_kv_heads = 1;
    shape.n_ctx = DEPTH * KV_BLOCK;
    shape.n_pages = CROWD;
    w->random = seed;
    assert_int_equal(kv_cache_init(&w->cache, &shape, &err), OK);
    for (int i = 0; i < 1500; i++) {
        operations[draw(w, sizeof operations / sizeof *operations)](w, (int)draw(w, SLOTS));
        compare_world(w);
    }
    assert_true(kv_cache_counts(&w->cache).n_evicted > 20 && kv_cache_counts(&w->cache).n_adopted > 20);
    for (int s = 0; s < SLOTS; s++)
        kv_cache_truncate(&w->cache, s, 0);
    assert_int_equal(kv_cache_available(&w->cache), CROWD);
    assert_int_equal(kv_cache_counts(&w->cache).used, 0);
    kv_cache_check(&w->cache);
    kv_cache_fini(&w->cache);
    free(w);
}

static void test_any_order_of_operations_keeps_every_slot_its_content(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        run_world(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_slot_has_the_pages_its_positions_need),
        cmocka_unit_test(test_a_reserve_that_finds_too_few_pages_changes_nothing),
        cmocka_unit_test(test_who_writes_to_a_shared_page_gets_a_copy),
        cmocka_unit_test(test_absurd_shapes_are_refused),
        cmocka_unit_test(test_a_published_text_is_found_from_its_beginning),
        cmocka_unit_test(test_a_salt_keeps_texts_apart),
        cmocka_unit_test(test_a_page_without_a_published_parent_stays_private),
        cmocka_unit_test(test_equal_pages_become_one),
        cmocka_unit_test(test_a_published_page_is_never_written),
        cmocka_unit_test(test_the_longest_unused_page_makes_room_and_children_before_parents),
        cmocka_unit_test(test_a_parent_outlives_its_children_in_slots_without_it),
        cmocka_unit_test(test_any_order_of_operations_keeps_every_slot_its_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
