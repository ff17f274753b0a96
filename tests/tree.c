/* tree.c - an ordered index by itself, and a sorted array beside it. */
#include "tree.h"

#include <sys/mman.h>

/* ---- a heap and an index ---------------------------------------------- */

const uint8_t tree_bank_id[16] = { 1, 2, 3 };

const struct record *tree_read(void *arg, uint64_t loc)
{
    const struct tree_heap *h = arg;

    /* whatever the index says: header and key are in memory */
    return loc > 0 && loc * RECORD_ALIGN + 66000 < h->cap
               ? (const struct record *)(h->bytes + loc * RECORD_ALIGN)
               : NULL;
}

static void reuse(void *arg)
{
    struct tree_heap *h = arg;

    (void)atomic_fetch_add(&h->reuse, 1);
}

uint64_t tree_record(struct tree_heap *h, const void *key, size_t len)
{
    uint64_t at = h->used;
    struct record *r = (struct record *)(h->bytes + at);

    h->used += round16(RECORD_HEADER + len);
    must(h->used + 70000 < h->cap);
    *r = (struct record){ .key_len = (uint16_t)len, .kind = RECORD_PUT };
    memcpy(r->body, key, len);
    return at / RECORD_ALIGN;
}

static struct tree_heap *heap_make(size_t bytes)
{
    struct tree_heap *h = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    must(h != MAP_FAILED);
    h->cap = bytes - sizeof *h;
    h->used = RECORD_ALIGN;
    return h;
}

struct tree tree_private(size_t bytes)
{
    struct tree w = { .heap = heap_make(bytes), .dir_fd = -1 };

    w.o = (struct index_owner){ .record = tree_read, .reuse = reuse, .arg = w.heap };
    must_ok(ordered_create_private(&w.ix, tree_bank_id));
    return w;
}

struct tree tree_in_a_file(size_t bytes)
{
    struct tree w = { .heap = heap_make(bytes), .dir = tmp_dir(TMP_FAST) };

    w.o = (struct index_owner){ .record = tree_read, .reuse = reuse, .arg = w.heap };
    w.dir_fd = os_open_path(w.dir, OS_READ | OS_DIR);
    must(w.dir_fd >= 0);
    must_ok(ordered_create(&w.ix, w.dir_fd, 0600, tree_bank_id, 1));
    return w;
}

struct ordered_index *tree_open_again(const struct tree *w, bool writable)
{
    struct ordered_index *ix;
    int fd = os_open_under(w->dir_fd, "kist.index.1", writable ? OS_READ | OS_WRITE : OS_READ, 0);

    must(fd >= 0);
    must_ok(ordered_open(&ix, fd, tree_bank_id, 1, writable));
    return ix;
}

void tree_end(struct tree *w)
{
    ordered_close(w->ix);
    must(munmap(w->heap, w->heap->cap + sizeof *w->heap) == 0);
    if (w->dir_fd >= 0)
        (void)os_close(w->dir_fd);
    if (w->dir)
        tmp_remove(w->dir);
    free(w->dir);
}

kist_bytes tree_key_at(const struct tree *w, uint64_t loc)
{
    const struct record *r = tree_read(w->heap, loc);

    must(r != NULL);
    return (kist_bytes){ record_key(r), r->key_len };
}

int tree_order_of(kist_bytes a, kist_bytes b)
{
    return bytes_order(a.data, a.len, b.data, b.len);
}

int tree_find(struct tree *w, struct ordered_index *ix, kist_bytes key, enum ordered_where where,
              struct ordered_spot *at)
{
    int rc;

    do {
        uint64_t seen = index_len(&ix->file);

        rc = ordered_find(ix, &w->o, key, where, at);
        if (rc == ORDERED_OUTSIDE && index_refresh(&ix->file, seen) != 1)
            return KIST_ECORRUPT;
    } while (rc == ORDERED_OUTSIDE);
    return rc;
}

int tree_try_put_in(struct tree *w, struct ordered_index *ix, kist_bytes key)
{
    struct ordered_spot at;
    int rc = tree_find(w, ix, key, ORDERED_AT, &at);

    if (rc == KIST_OK) {
        ordered_update(ordered_slot(ix, &at), tree_record(w->heap, key.data, key.len));
    } else if (rc == KIST_MISS) {
        rc = ordered_room(ix, &w->o, key, &at);
        if (rc == KIST_OK)
            ordered_insert(ix, key, &at, tree_record(w->heap, key.data, key.len));
    }
    return rc;
}

void tree_put(struct tree *w, kist_bytes key)
{
    must_ok(tree_try_put_in(w, w->ix, key));
}

int tree_take_out_of(struct tree *w, struct ordered_index *ix, kist_bytes key)
{
    struct ordered_spot at;
    int rc = tree_find(w, ix, key, ORDERED_AT, &at);

    if (rc == KIST_OK)
        ordered_empty(ix, &w->o, &at);
    return rc;
}

bool tree_holds(struct tree *w, kist_bytes key)
{
    struct ordered_spot at;
    int rc = tree_find(w, w->ix, key, ORDERED_AT, &at);

    must(rc == KIST_OK || rc == KIST_MISS);
    must(rc == KIST_MISS || tree_order_of(tree_key_at(w, ordered_loc(w->ix, &at)), key) == 0);
    return rc == KIST_OK;
}

struct ordered_facts tree_checked(struct tree *w)
{
    struct ordered_facts f;

    must_ok(ordered_check(w->ix, &w->o, &f));
    return f;
}

kist_bytes ordered_number(uint64_t n)
{
    static uint64_t some[16];
    static unsigned i;
    uint64_t *p = &some[i++ % 16];

    *p = __builtin_bswap64(n);
    return (kist_bytes){ p, 8 };
}

/* ---- the oracle ------------------------------------------------------- */

/* The first that is not below the key. */
size_t sorted_from(const struct tree *w, const struct sorted *o, kist_bytes key)
{
    size_t lo = 0, hi = o->n;

    while (lo < hi) {
        size_t middle = (lo + hi) / 2;

        if (tree_order_of(tree_key_at(w, o->loc[middle]), key) < 0)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

bool sorted_has(const struct tree *w, const struct sorted *o, size_t i, kist_bytes key)
{
    return i < o->n && tree_order_of(tree_key_at(w, o->loc[i]), key) == 0;
}

void sorted_put(const struct tree *w, struct sorted *o, kist_bytes key, uint64_t loc)
{
    size_t i = sorted_from(w, o, key);

    if (!sorted_has(w, o, i, key)) {
        must(o->n < o->cap);
        memmove(&o->loc[i + 1], &o->loc[i], (o->n - i) * sizeof *o->loc);
        o->n++;
    }
    o->loc[i] = loc;
}

void sorted_take_out(const struct tree *w, struct sorted *o, kist_bytes key)
{
    size_t i = sorted_from(w, o, key);

    must(sorted_has(w, o, i, key));
    memmove(&o->loc[i], &o->loc[i + 1], (o->n - i - 1) * sizeof *o->loc);
    o->n--;
}

void must_be_as_sorted(struct tree *w, const struct sorted *o)
{
    struct ordered_spot at;
    uint64_t ahead[ORDERED_WAYS];
    size_t i = 0;
    int rc;

    for (rc = ordered_first(w->ix, &at); rc == KIST_OK; rc = ordered_next(w->ix, &at))
        must(i < o->n && ordered_loc(w->ix, &at) == o->loc[i++]);
    must_rc(rc, KIST_END);
    must(i == o->n);
    for (rc = ordered_last(w->ix, &at); rc == KIST_OK; rc = ordered_prev(w->ix, &at))
        must(i > 0 && ordered_loc(w->ix, &at) == o->loc[--i]);
    must_rc(rc, KIST_END);
    must(i == 0);
    for (rc = ordered_first(w->ix, &at); rc == KIST_OK; rc = ordered_next_leaf(w->ix, &at)) {
        unsigned n = ordered_ahead(w->ix, &at, ahead);

        for (unsigned k = 0; k < n; k++)
            must(i < o->n && ahead[k] == o->loc[i++]);
    }
    must_rc(rc, KIST_END);
    must(i == o->n);
    must(tree_checked(w).entries == o->n);
}

void must_find_the_same(struct tree *w, const struct sorted *o, kist_bytes key)
{
    size_t i = sorted_from(w, o, key);
    bool has = sorted_has(w, o, i, key);
    const struct {
        enum ordered_where where;
        size_t want; /* o->n and above: none */
    } c[] = {
        { ORDERED_AT, has ? i : SIZE_MAX }, { ORDERED_GE, i },     { ORDERED_GT, has ? i + 1 : i },
        { ORDERED_LE, has ? i : i - 1 },    { ORDERED_LT, i - 1 },
    };
    struct ordered_spot at;

    for (size_t k = 0; k < sizeof c / sizeof c[0]; k++) {
        must_rc(ordered_find(w->ix, &w->o, key, c[k].where, &at),
                c[k].want < o->n ? KIST_OK : KIST_MISS);
        must(c[k].want >= o->n || ordered_loc(w->ix, &at) == o->loc[c[k].want]);
    }
}
