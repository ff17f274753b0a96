/*
 * ordered_find.c - searching and stepping through the ordered index, without
 * a lock. All that is read may be a node that is being used again: then what is
 * found is thrown away by whoever asked (O6); here it only must stay in bounds.
 *
 * tests/model/ has the steps that comments name: publish.pml G1 to G4, reuse.pml R1 to R5.
 */
#include "index/ordered_node.h"

#include "kist/kist.h"

enum { LINE = 64, LEAF_LINES = 4, INNER_LINES = 9, STEP_TIMES = 4 };

/* ---- down ------------------------------------------------------------- */

/* Wherever that is: no more than a hint. */
static inline void prefetch_lines(const uint8_t *p, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        __builtin_prefetch(p + (size_t)i * LINE);
}

/*
 * Have a node that is inside come: a leaf, or of an inner node what is before its children,
 * most often. ⚑ The first line is loaded: where the TLB does not have the page, prefetches
 * alone came to nothing (docs/decisions/0018).
 */
static inline void fetch_node(const struct ordered_index *ix, uint64_t word)
{
    const uint8_t *p = ix->base + node_offset(word);

    shm_touch(p);
    prefetch_lines(p, 1, LEAF_LINES);
    if (node_level(word) > 0)
        prefetch_lines(p, LEAF_LINES, INNER_LINES);
}

/* How many of n ascending numbers are below h. */
static inline unsigned count_below(const shm_word *head, unsigned n, uint64_t h)
{
    const shm_word *from = head;

    if (n == 0)
        return 0;
    while (n > 1) {
        unsigned half = n / 2;

        from = shm_peek(from + half - 1) < h ? from + half : from;
        n -= half;
    }
    return (unsigned)(from - head) + (shm_peek(from) < h);
}

/* The child that a key belongs to. */
static inline unsigned pick_child(const struct inner *n, kist_bytes key)
{
    const uint8_t *k = key.data;
    size_t pre = n->prefix_len;
    uint64_t h;
    unsigned at;
    int c = pre ? racy_compare(n->prefix, k, pre < key.len ? pre : key.len) : 0;

    if (c != 0 || key.len < pre)
        return c < 0 ? n->count : 0;
    h = bytes_head(k, key.len, pre);
    at = count_below(n->head, n->count, h);
    while (at < n->count && shm_peek(&n->head[at]) == h) {
        size_t len;
        const uint8_t *suffix = inner_suffix(n, at, &len);

        if (bytes_order(suffix, len, k + pre, key.len - pre) > 0)
            break;
        at++;
    }
    return at;
}

/* To the leaf, which is asked for. */
static int descend(const struct ordered_index *ix, kist_bytes key, struct ordered_spot *out)
{
    uint64_t word = shm_read(&ordered_head(ix)->root);
    unsigned level = ORDERED_LEVEL_MAX + 1;
    struct inner n;

    out->depth = out->rank = 0;
    out->order = out->seen = out->lost = 0;
    while (word) {
        int rc = node_enter(ix, word, level);

        if (rc != KIST_OK)
            return rc;
        fetch_node(ix, word);
        level = node_level(word);
        if (level == 0)
            break;
        if (!inner_of(ix, word, &n))
            return KIST_ECORRUPT;
        out->path[out->depth].node = word;
        out->path[out->depth].at = pick_child(&n, key);
        word = shm_read(&n.child[out->path[out->depth++].at]); /* (model: G1, R2) */
    }
    out->leaf = word;
    return KIST_OK;
}

/* Does the path lead to its leaf? Its nodes are what they were when it was gone. ⚑ All of them
 * are on the way: where one went, with all that was below, there is an empty range as well. */
static bool leads_there(const struct ordered_index *ix, const struct ordered_spot *at)
{
    uint64_t word = shm_peek(&ordered_head(ix)->root);

    for (uint32_t d = 0; d < at->depth; d++) {
        const shm_word *child =
            word == at->path[d].node ? inner_child(ix, word, at->path[d].at) : NULL;

        if (!child)
            return false;
        word = shm_peek(child);
    }
    return word == at->leaf;
}

/* ---- in a leaf -------------------------------------------------------- */

/* An entry's key compared with this one. False: its record can't be read. */
static bool entry_order(const struct ordered_index *ix, const struct index_owner *o,
                        struct ordered_spot *at, unsigned rank, kist_bytes key, int *order)
{
    const struct ordered_leaf *leaf = leaf_of(ix, at->leaf);
    uint64_t loc = shm_read(&leaf->slot[order_at(at->order, rank)]) & LOC_MASK;
    const struct record *r = loc ? o->record(o->arg, loc) : NULL;

    if (!r) {
        at->lost = loc;
        return false;
    }
    *order = bytes_order(record_key(r), r->key_len, key.data, key.len);
    return true;
}

/* Heads alone: the key is, or would be, from `rank` on and below `upto`. False: damage. */
static bool narrow(const struct ordered_index *ix, kist_bytes key, struct ordered_spot *at)
{
    const struct ordered_leaf *leaf = leaf_of(ix, at->leaf);
    const shm_word *head = leaf->head;
    unsigned n, below = 0, upto = 0;
    uint64_t h, order;

    at->rank = at->upto = 0;
    if (at->leaf == 0)
        return true;
    at->order = order = shm_read(&leaf->order); /* pairs with ordered_insert() (O5) (model: G2) */
    n = order_count(order);
    if (!order_is_whole(order))
        return false;
    h = bytes_head(key.data, key.len, shm_peek(&leaf->skip) & 0xffff);
    for (unsigned i = 0; i < n; i++) {
        unsigned e = (unsigned)((order >>= 4) & 15);
        uint64_t w = shm_peek(head + e); /* (model: G3, R3) */

        below += w < h;
        upto += w <= h;
    }
    at->rank = below;
    at->upto = upto;
    return true;
}

/* One of these can't be read: is the key any of the others? Else it may be that one; or its
 * place would be behind all that are below it. */
static int look_at_each(const struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                        struct ordered_spot *at)
{
    unsigned behind = at->rank;

    for (unsigned rank = at->rank; rank < at->upto; rank++) {
        int c;

        if (!entry_order(ix, o, at, rank, key, &c))
            continue;
        if (c == 0) {
            at->rank = rank;
            at->lost = 0;
            return KIST_OK;
        }
        behind = c < 0 ? rank + 1 : behind;
    }
    at->rank = behind;
    return ORDERED_LOST;
}

/* KIST_OK: the key is at `rank`. KIST_MISS: it would be. */
int ordered_decide(const struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                   struct ordered_spot *at)
{
    unsigned below = at->rank, upto = at->upto;

    while (below < upto) {
        unsigned middle = (below + upto) / 2;
        int c;

        if (!entry_order(ix, o, at, middle, key, &c))
            return look_at_each(ix, o, key, at);
        if (c == 0) {
            at->rank = middle;
            return KIST_OK;
        }
        if (c < 0)
            below = middle + 1;
        else
            upto = middle;
    }
    at->rank = below;
    return KIST_MISS;
}

/* ---- to the side ------------------------------------------------------ */

/* Down from a child word, along one edge, to a leaf that has entries. KIST_MISS:
 * it has none. */
static int descend_edge(const struct ordered_index *ix, struct ordered_spot *at, uint64_t word,
                        unsigned level, bool right)
{
    struct inner n;

    while (word) {
        int rc = node_enter(ix, word, level);

        if (rc != KIST_OK)
            return rc;
        /* ⚑ Child words may lead to one node from many places, if somebody wrote them
         * so: no step goes through more than a few times what there is (I5). */
        at->seen += node_bytes(word);
        if (at->seen / STEP_TIMES > index_len(&ix->file))
            return KIST_ECORRUPT;
        level = node_level(word);
        if (level == 0)
            break;
        if (!inner_of(ix, word, &n))
            return KIST_ECORRUPT;
        at->path[at->depth].node = word;
        at->path[at->depth].at = right ? n.count : 0;
        word = shm_read(&n.child[at->path[at->depth++].at]);
    }
    at->leaf = word;
    at->order = word ? shm_read(&leaf_of(ix, word)->order) : 0;
    at->rank = order_count(at->order);
    if (at->rank == 0)
        return KIST_MISS;
    at->rank = right ? at->rank - 1 : 0;
    return KIST_OK;
}

/* The leaf behind the one that is being entered, so that it is there in time. */
static void fetch_sibling(const struct ordered_index *ix, const struct inner *n, unsigned at,
                          bool right)
{
    if (right ? at < n->count : at > 0)
        prefetch_lines(ix->base + node_offset(shm_peek(&n->child[right ? at + 1 : at - 1])), 0,
                       LEAF_LINES);
}

/* To the nearest entry of another leaf, on the right or on the left. */
static int leave_leaf(const struct ordered_index *ix, struct ordered_spot *at, bool right)
{
    struct inner n;
    int rc;

    while (at->depth > 0) {
        uint64_t node = at->path[at->depth - 1].node;
        uint32_t *child = &at->path[at->depth - 1].at;

        if (!inner_of(ix, node, &n) || *child > n.count)
            return KIST_ECORRUPT;
        if (right ? *child == n.count : *child == 0) {
            at->depth--;
            continue;
        }
        *child += right ? 1 : UINT32_MAX;
        fetch_sibling(ix, &n, *child, right);
        rc = descend_edge(ix, at, shm_read(&n.child[*child]), node_level(node), !right);
        if (rc != KIST_MISS)
            return rc;
    }
    return KIST_END;
}

static int step(const struct ordered_index *ix, struct ordered_spot *at, bool right)
{
    int rc;

    if (right && at->rank + 1 < order_count(at->order)) {
        at->rank++;
        return KIST_OK;
    }
    if (!right && at->rank > 0) {
        at->rank--;
        return KIST_OK;
    }
    at->seen = 0;
    rc = leave_leaf(ix, at, right);
    at->seen = 0;
    return rc;
}

int ordered_next(const struct ordered_index *ix, struct ordered_spot *at)
{
    return step(ix, at, true);
}

int ordered_prev(const struct ordered_index *ix, struct ordered_spot *at)
{
    return step(ix, at, false);
}

int ordered_next_leaf(const struct ordered_index *ix, struct ordered_spot *at)
{
    return leave_leaf(ix, at, true);
}

int ordered_prev_leaf(const struct ordered_index *ix, struct ordered_spot *at)
{
    return leave_leaf(ix, at, false);
}

/* ---- calls ------------------------------------------------------------ */

static int edge(const struct ordered_index *ix, struct ordered_spot *out, bool right)
{
    int rc;

    out->depth = 0;
    out->seen = 0;
    rc = descend_edge(ix, out, shm_read(&ordered_head(ix)->root), ORDERED_LEVEL_MAX + 1, right);
    return rc == KIST_MISS ? leave_leaf(ix, out, !right) : rc;
}

int ordered_first(const struct ordered_index *ix, struct ordered_spot *out)
{
    return edge(ix, out, false);
}

int ordered_last(const struct ordered_index *ix, struct ordered_spot *out)
{
    return edge(ix, out, true);
}

int ordered_find(const struct ordered_index *ix, const struct index_owner *o, kist_bytes key,
                 enum ordered_where where, struct ordered_spot *out)
{
    bool right = where == ORDERED_GE || where == ORDERED_GT;
    int rc = descend(ix, key, out);

    if (rc == KIST_OK)
        rc = narrow(ix, key, out) ? ordered_decide(ix, o, key, out) : KIST_ECORRUPT;
    if (where == ORDERED_AT || (rc != KIST_OK && rc != KIST_MISS))
        return rc;
    if (rc == KIST_OK && (where == ORDERED_GE || where == ORDERED_LE))
        return KIST_OK;
    if (rc == KIST_MISS && right && out->rank < order_count(out->order))
        return KIST_OK;
    if (rc == KIST_MISS && right)
        rc = leave_leaf(ix, out, true); /* all of its entries are below */
    else
        rc = step(ix, out, right);
    out->seen = 0;
    return rc == KIST_END ? KIST_MISS : rc;
}

void ordered_approach(const struct ordered_index *ix, kist_bytes key, struct ordered_spot *out)
{
    if (descend(ix, key, out) != KIST_OK)
        out->leaf = out->depth = 0; /* to arrive somewhere is another matter */
}

bool ordered_arrive(const struct ordered_index *ix, kist_bytes key, struct ordered_spot *at)
{
    /* Nodes do not change (O4): the same ones in a row cover the same keys. */
    return leads_there(ix, at) && narrow(ix, key, at);
}

/* The location of entry e, added to the n there are. */
static inline unsigned add_loc(const struct ordered_leaf *leaf, unsigned e, uint64_t *loc,
                               unsigned n)
{
    uint64_t l = e < ORDERED_WAYS ? shm_read(&leaf->slot[e]) & LOC_MASK : 0;

    loc[n] = l;
    return n + (l != 0);
}

unsigned ordered_ahead(const struct ordered_index *ix, const struct ordered_spot *at,
                       uint64_t loc[ORDERED_WAYS])
{
    const struct ordered_leaf *leaf = leaf_of(ix, at->leaf);
    unsigned count = at->leaf ? order_count(at->order) : 0, n = 0;
    uint64_t order = at->order >> (4 * (at->rank & 15));

    for (unsigned rank = at->rank; rank < count; rank++)
        n = add_loc(leaf, (unsigned)((order >>= 4) & 15), loc, n);
    return n;
}

unsigned ordered_behind(const struct ordered_index *ix, const struct ordered_spot *at,
                        uint64_t loc[ORDERED_WAYS])
{
    const struct ordered_leaf *leaf = leaf_of(ix, at->leaf);
    unsigned n = 0;

    for (unsigned rank = at->rank + 1; at->leaf && rank-- > 0;)
        n = add_loc(leaf, order_at(at->order, rank), loc, n);
    return n;
}
