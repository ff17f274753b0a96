/*
 * ordered_grow.c - how the ordered index changes: entries, full leaves, parents.
 * One writer, under the bank's lock (O7).
 *
 * A change of the tree's shape builds what is new aside, from the leaf up to the
 * first node that has room, publishes it by one store, and retires what it
 * replaced. Killed before that store, nothing has changed, and what was built is
 * found by the next look around.
 *
 * tests/model/publish.pml has the steps that comments name, (model: P3), and reuse.pml
 * those with Q.
 */
#include "index/ordered_inner.h"

#include "base/os.h"
#include "kist/kist.h"

enum {
    REBUILD_BELOW = 12, /* a full leaf with fewer entries has lost some: it is not split */
    JOIN_BELOW = 5,     /* a leaf with fewer entries is joined to one beside it, */
    JOINED_MOST = 11,   /* if both have no more than this */
    SKIP_WORTH = 4,     /* bytes that a head must win, before records are read for it */
    ARENA_KEY = 2,      /* of the keys that there is room for: for a fence */
};

struct entry {
    uint64_t head, slot;
};

/* A change under way. */
struct change {
    struct ordered_index *ix;
    const struct index_owner *o;
    kist_bytes key;
    struct ordered_spot *at;
    uint64_t retired[ORDERED_LEVEL_MAX + 2];
    unsigned retired_count;
};

/* ---- fences ----------------------------------------------------------- */

/* The separator below all that the child i of the path's node d holds; its node
 * is written to *n. -1: there is none. */
static int lower_fence(const struct ordered_index *ix, const struct ordered_spot *at,
                       unsigned depth, struct inner *n)
{
    for (unsigned d = depth; d-- > 0;)
        if (at->path[d].at > 0)
            return inner_of(ix, at->path[d].node, n) && at->path[d].at <= n->count
                       ? (int)at->path[d].at - 1
                       : -1;
    return -1;
}

static int upper_fence(const struct ordered_index *ix, const struct ordered_spot *at,
                       unsigned depth, struct inner *n)
{
    for (unsigned d = depth; d-- > 0;)
        if (inner_of(ix, at->path[d].node, n) && at->path[d].at < n->count)
            return (int)at->path[d].at;
    return -1;
}

/* Copy a separator. 0: it is too long, damage. */
static size_t separator_copy(const struct inner *n, unsigned i, uint8_t *out)
{
    size_t len;
    const uint8_t *suffix = inner_suffix(n, i, &len);

    if (n->prefix_len + len > KEY_MOST)
        return 0;
    memcpy(out, n->prefix, n->prefix_len);
    memcpy(out + n->prefix_len, suffix, len);
    return n->prefix_len + len;
}

/* In how many bytes a key agrees with a fence of the path; 0 where there is none. */
static size_t fence_agree(const struct change *c, bool upper, const uint8_t *key, size_t len)
{
    struct inner n;
    int i = upper ? upper_fence(c->ix, c->at, c->at->depth, &n)
                  : lower_fence(c->ix, c->at, c->at->depth, &n);

    return i < 0 ? 0 : inner_agree(&n, (unsigned)i, key, len);
}

/* ---- leaves ----------------------------------------------------------- */

static unsigned leaf_entries(const struct ordered_leaf *leaf, uint64_t order, struct entry *out)
{
    unsigned n = 0;

    for (unsigned i = 0; i < order_count(order); i++) {
        unsigned e = order_at(order, i);

        if (e < ORDERED_WAYS)
            out[n++] = (struct entry){ shm_peek(&leaf->head[e]), shm_peek(&leaf->slot[e]) };
    }
    return n;
}

/* Free entries are those whose slot is 0 (O4); they are taken in a row, so none is below as
 * many as the order has. ORDERED_WAYS: there is none. */
static unsigned free_entry(const struct ordered_leaf *leaf, uint64_t order)
{
    unsigned e = order_count(order);

    while (e < ORDERED_WAYS && shm_peek(&leaf->slot[e]) != 0)
        e++;
    return e;
}

static void write_leaf(const struct ordered_index *ix, uint64_t word, size_t skip,
                       const struct entry *e, unsigned n)
{
    uint64_t w[sizeof(struct ordered_leaf) / 8] = { skip, order_straight(n) };

    for (unsigned i = 0; i < n; i++) {
        w[offsetof(struct ordered_leaf, head) / 8 + i] = e[i].head;
        w[offsetof(struct ordered_leaf, slot) / 8 + i] = e[i].slot;
    }
    node_write(ix, word, w, sizeof w);
}

/* Heads that begin elsewhere, from the records. False: one can't be read. */
static bool heads_from(const struct change *c, struct entry *e, unsigned n, size_t skip)
{
    struct entry made[ORDERED_WAYS];

    for (unsigned i = 0; i < n; i++)
        __builtin_prefetch(c->o->record(c->o->arg, e[i].slot & LOC_MASK));
    for (unsigned i = 0; i < n; i++) {
        const struct record *r = c->o->record(c->o->arg, e[i].slot & LOC_MASK);

        if (!r)
            return false;
        made[i] = (struct entry){ bytes_head(record_key(r), r->key_len, skip), e[i].slot };
    }
    memcpy(e, made, n * sizeof *e);
    return true;
}

/* What the heads of a new leaf should skip, of the `agree` bytes that its fences
 * have in common; the heads are made to do so. A leaf that is `settled` gets no more keys: as
 * long as its heads differ they will do. */
static size_t better_skip(const struct change *c, struct entry *e, unsigned n, size_t skip,
                          size_t agree, bool settled)
{
    bool tied = false;

    for (unsigned i = 1; i < n; i++)
        tied |= e[i].head == e[i - 1].head;
    if (agree < skip + (tied ? 1 : SKIP_WORTH) || (settled && !tied))
        return skip;
    return heads_from(c, e, n, agree) ? agree : skip;
}

/* Byte in which two heads differ; 8: none. */
static unsigned heads_differ(const struct entry *e, unsigned m)
{
    uint64_t x = e[m - 1].head ^ e[m].head;

    return x ? (unsigned)__builtin_clzll(x) / 8 : 8;
}

/* Where to split: near the middle, between keys that differ early; at the end of
 * a leaf that was filled in order. */
static unsigned split_at(const struct ordered_spot *at, const struct entry *e, unsigned n)
{
    unsigned best = n / 2;

    if (at->rank == n && at->order == order_straight(n))
        return n - 1;
    for (unsigned d = 0; d <= n / 8; d++) {
        if (heads_differ(e, n / 2 + d) < heads_differ(e, best))
            best = n / 2 + d;
        if (heads_differ(e, n / 2 - d) < heads_differ(e, best))
            best = n / 2 - d;
    }
    return best;
}

/* The shortest key that is above entry m - 1, and not above entry m. KIST_OK,
 * ORDERED_LOST, KIST_ECORRUPT. */
static int separator_between(const struct change *c, const struct entry *e, unsigned m, size_t skip,
                             uint8_t *out, size_t *len)
{
    const struct record *l, *r;
    unsigned d = heads_differ(e, m);
    size_t agree;

    if (d < 8) { /* the key that is to come has the same beginning */
        uint64_t bytes = __builtin_bswap64(e[m].head);

        if (c->key.len < skip || skip + d + 1 > KEY_MOST)
            return KIST_ECORRUPT;
        if (skip)
            memcpy(out, c->key.data, skip);
        memcpy(out + skip, &bytes, d + 1);
        *len = skip + d + 1;
        return KIST_OK;
    }
    l = c->o->record(c->o->arg, e[m - 1].slot & LOC_MASK);
    r = c->o->record(c->o->arg, e[m].slot & LOC_MASK);
    if (!l || !r) {
        c->at->lost = (l ? e[m].slot : e[m - 1].slot) & LOC_MASK;
        return ORDERED_LOST;
    }
    agree = bytes_agree(record_key(l), l->key_len, record_key(r), r->key_len);
    if (agree >= r->key_len)
        return KIST_ECORRUPT; /* they do not ascend */
    memcpy(out, record_key(r), agree + 1);
    *len = agree + 1;
    return KIST_OK;
}

/* ---- publishing ------------------------------------------------------- */

/* Let a word lead to a new node, or to none: that of child `at` in the path's node
 * d - 1, or the root. What was replaced is retired. */
static int change_publish(struct change *c, unsigned d, uint64_t word)
{
    struct ordered_file *head = ordered_head(c->ix);
    struct inner n;
    shm_word *to = &head->root;

    if (d > 0) {
        if (!inner_of(c->ix, c->at->path[d - 1].node, &n) || c->at->path[d - 1].at > n.count)
            return KIST_ECORRUPT;
        to = &n.child[c->at->path[d - 1].at];
    }
    shm_publish(&head->built, shm_peek(&head->built) + 1);
    shm_publish(to, word); /* pairs with descend() (O5) (model: P6, Q6) */
    space_done(c->ix);
    for (unsigned i = 0; i < c->retired_count; i++)
        space_retire(c->ix, c->retired[i]); /* (model: Q7) */
    c->retired_count = 0;
    return KIST_OK;
}

/* Where to split an inner node: near the middle, at a short separator. */
static unsigned split_inner_at(const struct parts *ps, bool ascending)
{
    unsigned best = ps->n / 2;

    if (ascending)
        return ps->n - 1;
    for (unsigned i = ps->n / 2 - ps->n / 8; i <= ps->n / 2 + ps->n / 8 && i < ps->n; i++)
        if (ps->sep[i].len < ps->sep[best].len)
            best = i;
    return best;
}

/* Two new nodes take the place of the leaf that the path leads to. `sep` is in
 * the first of the rooms for keys. */
static int grow_up(struct change *c, uint64_t left, uint64_t right, size_t len, bool ascending)
{
    const struct ordered_spot *at = c->at;
    struct parts ps;
    unsigned room = 0, m;
    uint64_t word, l, r;
    int rc;

    ps.arena = NULL;
    for (unsigned d = at->depth; d-- > 0;) {
        uint64_t node = at->path[d].node;

        rc = inner_copy(c->ix, c->o, at, d, left, right, space_key(c->ix, room), len, &word);
        if (rc != KIST_MISS) {
            c->retired[c->retired_count++] = node;
            if (rc == KIST_OK)
                rc = change_publish(c, d, word);
            goto out;
        }
        rc = parts_of(c->ix, node, &ps);
        if (rc == KIST_OK && at->path[d].at > ps.n)
            rc = KIST_ECORRUPT;
        ascending &= at->path[d].at == ps.n;
        if (rc == KIST_OK)
            rc = parts_split(&ps, at->path[d].at, left, right, space_key(c->ix, room), len);
        if (rc < 0)
            goto out;
        parts_tidy(&ps);
        c->retired[c->retired_count++] = node;
        if (parts_fit(&ps)) {
            rc = parts_build(c->ix, c->o, &ps, 0, ps.n, node_level(node), &word);
            if (rc == KIST_OK)
                rc = change_publish(c, d, word);
            goto out;
        }
        m = split_inner_at(&ps, ascending);
        rc = parts_build(c->ix, c->o, &ps, 0, m, node_level(node), &l);
        if (rc == KIST_OK)
            rc = parts_build(c->ix, c->o, &ps, m + 1, ps.n, node_level(node), &r);
        if (rc < 0)
            goto out;
        left = l;
        right = r;
        room ^= 1;
        len = ps.prefix_len + ps.sep[m].len;
        memcpy(space_key(c->ix, room), ps.prefix, ps.prefix_len);
        memcpy(space_key(c->ix, room) + ps.prefix_len, ps.sep[m].p, ps.sep[m].len);
        os_free(ps.arena);
        ps.arena = NULL;
    }
    m = node_level(left) > node_level(right) ? node_level(left) : node_level(right);
    ps = (struct parts){ .n = 1, .child = { left, right } };
    ps.prefix = ps.sep[0].p = space_key(c->ix, room);
    ps.sep[0].len = len;
    rc = m >= ORDERED_LEVEL_MAX ? KIST_EFULL : parts_build(c->ix, c->o, &ps, 0, 1, m + 1, &word);
    if (rc == KIST_OK)
        rc = change_publish(c, 0, word);
out:
    os_free(ps.arena);
    return rc;
}

/* ---- room for a key --------------------------------------------------- */

/* An empty range gets a leaf. */
static int make_leaf(struct change *c)
{
    uint8_t *key = space_key(c->ix, ARENA_KEY);
    size_t skip = 0;
    struct inner n;
    uint64_t word;
    int i = lower_fence(c->ix, c->at, c->at->depth, &n);
    int rc = space_take(c->ix, c->o, ORDERED_UNIT, 0, &word);

    if (rc < 0)
        return rc;
    if (i >= 0)
        skip = fence_agree(c, true, key, separator_copy(&n, (unsigned)i, key));
    write_leaf(c->ix, word, skip, NULL, 0);
    return change_publish(c, c->at->depth, word);
}

/* Entries that are in no order any more take up the room of a leaf. */
static int rebuild_leaf(struct change *c)
{
    const struct ordered_leaf *leaf = leaf_of(c->ix, c->at->leaf);
    struct entry e[ORDERED_WAYS];
    unsigned n = leaf_entries(leaf, c->at->order, e);
    uint64_t word;
    int rc = space_take(c->ix, c->o, ORDERED_UNIT, 0, &word);

    if (rc < 0)
        return rc;
    write_leaf(c->ix, word, shm_peek(&leaf->skip) & 0xffff, e, n);
    c->retired[c->retired_count++] = c->at->leaf;
    return change_publish(c, c->at->depth, word);
}

/* The separator at *m, or at the nearest place that needs no record that is lost. */
static int separator_near(const struct change *c, const struct entry *e, unsigned n, unsigned *m,
                          size_t skip, uint8_t *out, size_t *len)
{
    unsigned best = *m;
    int rc = separator_between(c, e, best, skip, out, len);

    for (unsigned d = 1; rc == ORDERED_LOST && d < n; d++)
        for (unsigned side = 0; rc == ORDERED_LOST && side < 2; side++) {
            *m = side ? best + d : best - d; /* below 0 it is beyond n */
            if (*m > 0 && *m < n)
                rc = separator_between(c, e, *m, skip, out, len);
        }
    return rc;
}

static int split_leaf(struct change *c)
{
    const struct ordered_leaf *leaf = leaf_of(c->ix, c->at->leaf);
    struct entry e[ORDERED_WAYS];
    unsigned n = leaf_entries(leaf, c->at->order, e), m = split_at(c->at, e, n);
    size_t skip = shm_peek(&leaf->skip) & 0xffff, len, left_skip, right_skip;
    uint8_t *sep = space_key(c->ix, 0);
    uint64_t left, right;
    int rc = separator_near(c, e, n, &m, skip, sep, &len);

    if (rc != KIST_OK)
        return rc;
    left_skip = better_skip(c, e, m, skip, fence_agree(c, false, sep, len), m == n - 1);
    right_skip = better_skip(c, e + m, n - m, skip, fence_agree(c, true, sep, len), false);
    rc = space_take(c->ix, c->o, ORDERED_UNIT, 0, &left);
    if (rc == KIST_OK)
        rc = space_take(c->ix, c->o, ORDERED_UNIT, 0, &right);
    if (rc < 0)
        return rc;
    write_leaf(c->ix, left, left_skip, e, m);
    write_leaf(c->ix, right, right_skip, e + m, n - m);
    c->retired[c->retired_count++] = c->at->leaf;
    return grow_up(c, left, right, len, m == n - 1);
}

static bool has_room(const struct ordered_index *ix, const struct ordered_spot *at)
{
    return at->leaf && free_entry(leaf_of(ix, at->leaf), at->order) < ORDERED_WAYS;
}

/* Change the tree so that there is more room where the key will be. */
static int make_room(struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                     struct ordered_spot *at)
{
    struct change c = { .ix = ix, .o = o, .key = key, .at = at };
    bool rebuild = at->leaf && order_count(at->order) < REBUILD_BELOW;
    int rc = space_begin(ix, rebuild);

    if (rc < 0)
        return rc;
    if (at->leaf == 0)
        rc = make_leaf(&c);
    else
        rc = rebuild ? rebuild_leaf(&c) : split_leaf(&c);
    if (rc != KIST_OK)
        space_abandon(ix);
    return rc;
}

int ordered_room(struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                 struct ordered_spot *at)
{
    bool lost = at->lost != 0;

    for (int tries = 0; tries < 2 && !has_room(ix, at); tries++) {
        int rc = make_room(ix, o, key, at);

        if (rc != KIST_OK)
            return rc;
        rc = ordered_find(ix, o, key, ORDERED_AT, at);
        if (rc != KIST_MISS && !(lost && rc == ORDERED_LOST))
            return rc == KIST_OK ? KIST_ECORRUPT : rc;
    }
    return has_room(ix, at) ? KIST_OK : KIST_ECORRUPT;
}

void ordered_insert(struct ordered_index *ix, kist_bytes key, struct ordered_spot *at,
                    uint64_t place)
{
    struct ordered_leaf *leaf = leaf_of(ix, at->leaf);
    unsigned e = free_entry(leaf, at->order);

    shm_publish(&leaf->head[e], bytes_head(key.data, key.len, shm_peek(&leaf->skip) & 0xffff));
    shm_publish(&leaf->slot[e], place & LOC_MASK); /* (model: P3) */
    at->order = order_insert(at->order, at->rank, e);
    shm_publish(&leaf->order, at->order); /* pairs with descend() (O5) (model: P4) */
}

/* ---- taking out ------------------------------------------------------- */

/* An empty leaf goes, and each node above that leads to nothing else. */
static void drop_leaf(struct change *c)
{
    unsigned d = c->at->depth;
    struct inner n;

    c->retired[c->retired_count++] = c->at->leaf;
    while (change_publish(c, d, 0) == KIST_OK && d > 0) {
        uint64_t node = c->at->path[--d].node;

        if (!inner_of(c->ix, node, &n))
            return;
        for (unsigned i = 0; i <= n.count; i++)
            if (shm_peek(&n.child[i]) != 0)
                return;
        c->retired[c->retired_count++] = node;
    }
}

/* Make one leaf of the children `at` and `at + 1` of the path's last node. */
static int join(struct change *c, unsigned at)
{
    struct ordered_spot *spot = c->at;
    unsigned d = spot->depth - 1, n[2];
    uint64_t node = spot->path[d].node, word;
    uint8_t *key = space_key(c->ix, ARENA_KEY);
    struct entry e[2 * ORDERED_WAYS];
    size_t skips[2], skip;
    struct parts ps;
    struct inner fence;
    int rc = parts_of(c->ix, node, &ps), i;

    if (rc < 0)
        return rc;
    for (unsigned k = 0; k < 2; k++) {
        const struct ordered_leaf *leaf = leaf_of(c->ix, ps.child[at + k]);

        n[k] = leaf_entries(leaf, shm_peek(&leaf->order), e + (k ? n[0] : 0));
        skips[k] = shm_peek(&leaf->skip) & 0xffff;
    }
    spot->path[d].at = at;
    i = lower_fence(c->ix, spot, spot->depth, &fence);
    skip = i < 0 ? 0 : separator_copy(&fence, (unsigned)i, key);
    spot->path[d].at = at + 1;
    skip = fence_agree(c, true, key, skip);
    if ((skips[0] != skip || skips[1] != skip) && !heads_from(c, e, n[0] + n[1], skip))
        return ORDERED_LOST;
    rc = space_take(c->ix, c->o, ORDERED_UNIT, 0, &word);
    if (rc < 0)
        return rc;
    write_leaf(c->ix, word, skip, e, n[0] + n[1]);
    c->retired[c->retired_count++] = ps.child[at];
    c->retired[c->retired_count++] = ps.child[at + 1];
    c->retired[c->retired_count++] = node;
    ps.child[at] = word;
    parts_drop(&ps, at);
    parts_tidy(&ps);
    if (ps.n > 0)
        rc = parts_build(c->ix, c->o, &ps, 0, ps.n, node_level(node), &word);
    return rc == KIST_OK ? change_publish(c, d, word) : rc;
}

/* Can these two leaves be one? */
static bool may_join(const struct change *c, const struct inner *n, unsigned at)
{
    unsigned sum = 0;

    for (unsigned i = at; i <= at + 1; i++) {
        uint64_t word = shm_peek(&n->child[i]);

        if (word == 0 || node_level(word) != 0 || node_enter(c->ix, word, 1) != KIST_OK)
            return false;
        sum += order_count(shm_peek(&leaf_of(c->ix, word)->order));
    }
    return sum <= JOINED_MOST;
}

void ordered_empty(struct ordered_index *ix, const struct index_owner *o, struct ordered_spot *at)
{
    struct change c = { .ix = ix, .o = o, .at = at };
    struct ordered_leaf *leaf = leaf_of(ix, at->leaf);
    uint64_t order = order_remove(at->order, at->rank);
    struct inner n;
    int rc = KIST_MISS;

    shm_publish(&leaf->order, order); /* readers of the old one find the tombstone still */
    /* What follows only saves room: it may fail, or be cut off. */
    if (order_count(order) >= JOIN_BELOW || space_begin(ix, true) < 0)
        return;
    if (order_count(order) == 0) {
        drop_leaf(&c);
        return;
    }
    if (at->depth > 0 && inner_of(ix, at->path[at->depth - 1].node, &n)) {
        unsigned child = at->path[at->depth - 1].at;

        if (child < n.count && may_join(&c, &n, child))
            rc = join(&c, child);
        else if (child > 0 && child <= n.count && may_join(&c, &n, child - 1))
            rc = join(&c, child - 1);
    }
    if (rc != KIST_OK)
        space_abandon(ix);
}
