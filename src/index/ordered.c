/*
 * ordered.c - files of the ordered index, and what proves it. How it is searched is in
 * ordered_find.c, how it grows in ordered_grow.c.
 */
#include "index/ordered.h"

#include "base/os.h"
#include "index/ordered_node.h"
#include "kist/kist.h"

static const struct index_kind ordered_kind = { .format = ORDERED_FORMAT, .kind = ORDERED_KIND };

/* ---- making and opening ----------------------------------------------- */

static struct ordered_index *index_new(uint64_t generation)
{
    struct ordered_index *ix = os_alloc(sizeof *ix);

    if (ix)
        index_file_init(&ix->file, &ordered_kind, generation);
    return ix;
}

/* An empty tree: no root; page 0 is given out, to whoever looks for free nodes. */
static int made(struct ordered_index *ix, int rc, struct ordered_index **out)
{
    if (rc < 0) {
        ordered_close(ix);
        return rc;
    }
    shm_publish(&ordered_head(ix)->fresh, 1);
    *out = ix;
    return KIST_OK;
}

int ordered_create(struct ordered_index **out, int dir, uint32_t mode, const uint8_t bank_id[16],
                   uint64_t generation)
{
    struct ordered_index *ix = index_new(generation);

    return ix ? made(ix,
                     index_file_create(&ix->file, dir, mode, &ordered_kind, bank_id, INDEX_PAGE),
                     out)
              : KIST_ENOMEM;
}

int ordered_create_private(struct ordered_index **out, const uint8_t bank_id[16])
{
    struct ordered_index *ix = index_new(1);

    return ix ? made(ix, index_file_create_private(&ix->file, &ordered_kind, bank_id, INDEX_PAGE),
                     out)
              : KIST_ENOMEM;
}

int ordered_open(struct ordered_index **out, int fd, const uint8_t bank_id[16], uint64_t generation,
                 bool writable)
{
    struct ordered_index *ix = index_new(generation);
    int rc;

    if (!ix) {
        (void)os_close(fd);
        return KIST_ENOMEM;
    }
    rc = index_file_open(&ix->file, fd, &ordered_kind, bank_id, writable);
    if (rc < 0) {
        ordered_close(ix);
        return rc;
    }
    *out = ix;
    return KIST_OK;
}

void ordered_close(struct ordered_index *ix)
{
    if (!ix)
        return;
    ordered_space_drop(ix->space);
    index_file_close(&ix->file);
    os_free(ix);
}

/* ---- all nodes -------------------------------------------------------- */

int ordered_each(const struct ordered_index *ix, bool (*each)(void *arg, uint64_t word), void *arg)
{
    struct {
        struct inner n;
        unsigned level, at;
    } up[ORDERED_LEVEL_MAX + 1];
    uint64_t word = shm_read(&ordered_head(ix)->root), seen = 0;
    unsigned depth = 0, level = ORDERED_LEVEL_MAX + 1;

    for (;;) {
        int rc = word ? node_enter(ix, word, level) : KIST_OK;

        if (rc != KIST_OK)
            return rc;
        /* Each node is there once: more than the file has are damage (I5). */
        seen += node_bytes(word);
        if (seen > index_len(&ix->file))
            return KIST_ECORRUPT;
        if (word && !each(arg, word))
            return KIST_ECORRUPT;
        if (node_level(word) > 0) {
            if (!inner_of(ix, word, &up[depth].n))
                return KIST_ECORRUPT;
            up[depth].at = 0;
            up[depth++].level = node_level(word);
        }
        while (depth > 0 && up[depth - 1].at > up[depth - 1].n.count)
            depth--;
        if (depth == 0)
            return KIST_OK;
        level = up[depth - 1].level;
        word = shm_read(&up[depth - 1].n.child[up[depth - 1].at++]);
    }
}

/* ---- checking --------------------------------------------------------- */

/* A separator of a node above, or none: that side is open. */
struct fence {
    const struct inner *node;
    unsigned at;
};

struct checking {
    const struct ordered_index *ix;
    const struct index_owner *o;
    struct ordered_facts *facts;
    unsigned depth;
    uint8_t *key; /* room for one */
};

static size_t fence_key(const struct fence *f, uint8_t *out)
{
    size_t len;
    const uint8_t *suffix = inner_suffix(f->node, f->at, &len);

    if (f->node->prefix_len + len > KEY_MOST)
        len = KEY_MOST - f->node->prefix_len;
    racy_copy(out, f->node->prefix, f->node->prefix_len);
    racy_copy(out + f->node->prefix_len, suffix, len);
    return f->node->prefix_len + len;
}

static bool is_within(const struct fence *lower, const struct fence *upper, const uint8_t *key,
                      size_t len)
{
    return (!lower->node || inner_order(lower->node, lower->at, key, len) <= 0) &&
           (!upper->node || inner_order(upper->node, upper->at, key, len) > 0);
}

/* O2 */
static bool check_separators(struct checking *c, const struct inner *n, const struct fence *lower,
                             const struct fence *upper)
{
    const uint8_t *last = NULL, *s;
    size_t last_len = 0, len;

    for (unsigned i = 0; i < n->count; i++) {
        s = inner_suffix(n, i, &len);
        if (shm_peek(&n->head[i]) != bytes_head(s, len, 0) ||
            (i > 0 && bytes_order(last, last_len, s, len) >= 0))
            return false;
        last = s;
        last_len = len;
        if (i == 0 || i + 1 == n->count) {
            size_t key_len = fence_key(&(struct fence){ n, i }, c->key);

            if (!is_within(lower, upper, c->key, key_len) ||
                (lower->node && inner_order(lower->node, lower->at, c->key, key_len) == 0))
                return false;
        }
    }
    return true;
}

/* The keys of one entry and the next; heads and fences. */
static bool check_records(const struct checking *c, const struct ordered_leaf *leaf, uint64_t order,
                          const struct fence *lower, const struct fence *upper)
{
    const struct record *last = NULL;
    uint64_t skip = shm_peek(&leaf->skip);

    for (unsigned i = 0; i < order_count(order); i++) {
        unsigned at = order_at(order, i);
        const struct record *r = c->o->record(c->o->arg, shm_read(&leaf->slot[at]) & LOC_MASK);

        if (r && (bytes_head(record_key(r), r->key_len, skip) != shm_peek(&leaf->head[at]) ||
                  !is_within(lower, upper, record_key(r), r->key_len) ||
                  (last &&
                   bytes_order(record_key(last), last->key_len, record_key(r), r->key_len) >= 0)))
            return false;
        last = r;
    }
    return true;
}

/* O3 */
static bool check_leaf(struct checking *c, uint64_t word, const struct fence *lower,
                       const struct fence *upper)
{
    const struct ordered_leaf *leaf = leaf_of(c->ix, word);
    uint64_t order = shm_read(&leaf->order), skip = shm_peek(&leaf->skip), last = 0;
    unsigned met = 1u << ORDERED_WAYS;

    for (unsigned i = 0; i < order_count(order); i++) {
        unsigned at = order_at(order, i);

        if (met & 1u << at || (shm_read(&leaf->slot[at]) & LOC_MASK) == 0 ||
            shm_peek(&leaf->head[at]) < last)
            return false;
        met |= 1u << at;
        last = shm_peek(&leaf->head[at]);
    }
    if (skip > 0) {
        size_t len;

        if (!lower->node || !upper->node)
            return false;
        len = fence_key(lower, c->key);
        if (inner_agree(upper->node, upper->at, c->key, len) < skip)
            return false;
    }
    c->facts->leaves++;
    c->facts->entries += order_count(order);
    return !c->o || check_records(c, leaf, order, lower, upper);
}

/* As deep as there are levels: levels fall. */
static int check_node(struct checking *c, uint64_t word, unsigned level, struct fence lower,
                      struct fence upper)
{
    struct inner n;
    int rc = word ? node_enter(c->ix, word, level) : KIST_OK;

    if (rc != KIST_OK || word == 0)
        return rc;
    c->facts->bytes += node_bytes(word);
    if (c->facts->bytes > index_len(&c->ix->file))
        return KIST_ECORRUPT; /* O1: a node is there once */
    if (++c->depth > c->facts->depth)
        c->facts->depth = c->depth;
    if (node_level(word) == 0) {
        rc = check_leaf(c, word, &lower, &upper) ? KIST_OK : KIST_ECORRUPT;
    } else {
        c->facts->inner++;
        if (!inner_of(c->ix, word, &n) || !check_separators(c, &n, &lower, &upper))
            return KIST_ECORRUPT;
        for (unsigned i = 0; i <= n.count && rc == KIST_OK; i++)
            rc = check_node(c, shm_read(&n.child[i]), node_level(word),
                            i > 0 ? (struct fence){ &n, i - 1 } : lower,
                            i < n.count ? (struct fence){ &n, i } : upper);
    }
    c->depth--;
    return rc;
}

int ordered_check(const struct ordered_index *ix, const struct index_owner *o,
                  struct ordered_facts *out)
{
    struct checking c = { .ix = ix, .o = o, .facts = out };
    struct fence open = { 0 };
    int rc;

    *out = (struct ordered_facts){ 0 };
    c.key = os_alloc(KEY_MOST + 1);
    if (!c.key)
        return KIST_ENOMEM;
    rc = check_node(&c, shm_read(&ordered_head(ix)->root), ORDERED_LEVEL_MAX + 1, open, open);
    os_free(c.key);
    return rc;
}
