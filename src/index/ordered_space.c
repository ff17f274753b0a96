/*
 * ordered_space.c - memory for the nodes of the ordered index.
 *
 * Nodes of up to half a page share pages of their size; larger ones have pages
 * of their own. What is free is not stored. A writing process keeps lists, of
 * nodes that it may write, and of nodes in quarantine, which it retired itself. What
 * another process retired, or left unfinished when it died, is found by a
 * look around: whatever the root does not lead to. Lists of others are void
 * from then on, says `walks`. In between, each process takes pages that none
 * has had: those from `fresh` on.
 *
 *     take:  list -> free page -> fresh page -> quarantine, if it is an eighth of
 *            all, or 256 KiB, or a quarter of that with lists that have an eighth, or
 *            where others write too -> look around, if others left something, or lists
 *            have a quarter -> a longer file -> if there is no room for that:
 *            quarantine and look around, however little they give
 *
 * A look around takes all from the lists of others, and goes through the whole tree: of
 * two that take turns each would do so for a node or two that the other has. So whoever
 * knows of one looks again only when the tree has changed an eighth as often as it has pages.
 *
 * tests/model/reuse.pml has the steps that comments name: (model: Q1).
 */
#include "index/ordered_node.h"

#include "base/os.h"
#include "index/pages.h"
#include "kist/kist.h"

#include <errno.h>

enum {
    CLASSES = 4, /* 256 << class bytes */
    UNITS = INDEX_PAGE / ORDERED_UNIT,
    TAKEN_MOST = 2 * (ORDERED_LEVEL_MAX + 2),
    KEYS = 3,
    RELEASE_SHARE = 8,
    RELEASE_LEAST = 4 * INDEX_PAGE,
    RELEASE_MOST = 64 * INDEX_PAGE, /* so that nodes are still near when they are used again */
    LOOK_SHARE = 8,
    SPARE = CLASSES, /* pages that are kept for changes that make room, one a class */
};

struct list {
    uint64_t *word;
    size_t n, room;
};

struct ordered_space {
    struct pages pages;         /* free: released, and no part of a list */
    uint64_t walks;             /* as of the last look around; the lists are void when it moved */
    struct list free[CLASSES];  /* node words */
    struct list retired;        /* quarantine */
    uint64_t waiting;           /* bytes in it */
    uint64_t taken[TAKEN_MOST]; /* by the change under way: nothing leads there yet */
    unsigned taken_count;
    bool complete;         /* the lists have all that is free, */
    uint64_t built, fresh; /* as long as nobody else changes these */
    uint64_t looked;       /* what `built` was at the last look around that is known of */
    bool saves;            /* the change under way makes room: it may use the spare pages */
    uint8_t *key;
    uint64_t *scratch;
    uint64_t scratch_bytes;
};

/* ---- lists ------------------------------------------------------------ */

/* Without memory the node is lost to this process, until it looks around. */
static void list_add(struct ordered_space *sp, struct list *l, uint64_t word)
{
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        uint64_t *more = os_resize(l->word, room * sizeof *more);

        if (!more) {
            sp->complete = false;
            return;
        }
        l->word = more;
        l->room = room;
    }
    l->word[l->n++] = word;
}

static unsigned class_of(uint64_t bytes)
{
    unsigned c = 0;

    while (c < CLASSES && bytes > (uint64_t)ORDERED_UNIT << c)
        c++;
    return c;
}

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + INDEX_PAGE - 1) / INDEX_PAGE;
}

void ordered_space_drop(struct ordered_space *sp)
{
    if (!sp)
        return;
    for (unsigned c = 0; c < CLASSES; c++)
        os_free(sp->free[c].word);
    os_free(sp->retired.word);
    pages_drop(&sp->pages);
    os_free(sp->key);
    os_free(sp->scratch);
    os_free(sp);
}

/* Units `first` and up of a page are free nodes of this class. */
static void cut_page(struct ordered_space *sp, uint64_t page, unsigned c, unsigned first)
{
    for (unsigned u = UNITS; u >= first + (1u << c); u -= 1u << c)
        list_add(sp, &sp->free[c],
                 node_make(page * INDEX_PAGE + (u - (1u << c)) * ORDERED_UNIT,
                           (uint64_t)ORDERED_UNIT << c, 0));
}

static void forget_lists(struct ordered_space *sp)
{
    for (unsigned c = 0; c < CLASSES; c++)
        sp->free[c].n = 0;
    sp->retired.n = 0;
    sp->waiting = 0;
    sp->complete = false;
}

/* Bytes in them. */
static uint64_t listed(const struct ordered_space *sp)
{
    uint64_t bytes = sp->waiting;

    for (unsigned c = 0; c < CLASSES; c++)
        bytes += sp->free[c].n * ORDERED_UNIT << c;
    return bytes;
}

/* The pages that the file has by now are not for this map to give. */
static int resize(struct ordered_index *ix)
{
    struct pages *p = &ix->space->pages;
    uint64_t had = p->count, pages = index_len(&ix->file) / INDEX_PAGE;
    int rc = pages_resize(p, pages);

    if (rc == 0 && pages > had)
        pages_take(p, had * INDEX_PAGE, (pages - had) * INDEX_PAGE);
    return rc;
}

int space_begin(struct ordered_index *ix, bool saves)
{
    struct ordered_space *sp = ix->space;
    struct ordered_file *head = ordered_head(ix);
    uint64_t walks = shm_peek(&head->walks);
    int rc;

    if (sp && sp->walks == walks) { /* (model: Q1) */
        /* Another one's retired nodes, and what he left unfinished, are in no list here. */
        sp->complete &= sp->built == shm_peek(&head->built) && sp->fresh == shm_peek(&head->fresh);
        sp->taken_count = 0;
        sp->saves = saves;
        return KIST_OK;
    }
    rc = index_refresh(&ix->file, UINT64_MAX);
    if (rc < 0)
        return rc;
    if (!sp) {
        sp = os_alloc(sizeof *sp);
        if (!sp)
            return KIST_ENOMEM;
        sp->key = os_alloc((size_t)KEYS * (KEY_MOST + 1));
        if (!sp->key) {
            ordered_space_drop(sp);
            return KIST_ENOMEM;
        }
        ix->space = sp;
        sp->walks = walks + 1; /* so that it is not ready if what follows fails */
    } else {
        sp->looked = shm_peek(&head->built); /* another one did */
    }
    rc = resize(ix);
    if (rc < 0)
        return rc;
    forget_lists(sp);
    pages_none_free(&sp->pages);
    sp->built = shm_peek(&head->built);
    sp->fresh = shm_peek(&head->fresh);
    if (sp->built == 0) { /* nothing has ever led to page 0 */
        shm_publish(&head->walks, ++walks);
        sp->complete = sp->fresh == 1;
        cut_page(sp, 0, 0, 1);
    }
    sp->walks = walks;
    sp->taken_count = 0;
    sp->saves = saves;
    return KIST_OK;
}

uint8_t *space_key(struct ordered_index *ix, unsigned which)
{
    return ix->space->key + (size_t)which * (KEY_MOST + 1);
}

uint64_t *space_scratch(struct ordered_index *ix, uint64_t bytes)
{
    struct ordered_space *sp = ix->space;

    if (bytes > sp->scratch_bytes) {
        uint64_t *more = os_resize(sp->scratch, bytes);

        if (!more)
            return NULL;
        sp->scratch = more;
        sp->scratch_bytes = bytes;
    }
    return sp->scratch;
}

/* ---- releasing -------------------------------------------------------- */

static void bump(const struct index_owner *o)
{
    o->reuse(o->arg); /* (model: Q3) */
    shm_fence(); /* the bump before every store into a released node (O6) (model: Q4) */
}

/* A node's memory may be written from here on. Of a shape that no node has, it is
 * left alone (I5); so is what lies behind the pages that are known of. */
static void now_free(struct ordered_space *sp, uint64_t word)
{
    uint64_t bytes = node_bytes(word), at = node_offset(word);
    unsigned c = class_of(bytes);

    if (at + bytes > sp->pages.count * INDEX_PAGE)
        sp->complete = false;
    else if (c < CLASSES && bytes == (uint64_t)ORDERED_UNIT << c && at % bytes == 0)
        list_add(sp, &sp->free[c], word);
    else if (c == CLASSES && at % INDEX_PAGE == 0 && bytes % INDEX_PAGE == 0)
        pages_give(&sp->pages, at, bytes);
}

static void release_retired(struct ordered_index *ix, const struct index_owner *o)
{
    struct ordered_space *sp = ix->space;

    if (sp->retired.n == 0)
        return;
    (void)resize(ix); /* ⚑ others have let the file grow, and it was their nodes that were retired */
    bump(o);
    for (size_t i = 0; i < sp->retired.n; i++)
        now_free(sp, sp->retired.word[i]);
    sp->retired.n = 0;
    sp->waiting = 0;
}

/* ---- looking around --------------------------------------------------- */

struct look {
    uint8_t *used;  /* a byte for each unit */
    uint8_t *class; /* of each page: 1 + class of what it has, OWN: one node, or pages of one */
    uint64_t last;  /* page in use */
};

enum { OWN = 0xff };

/* False: two nodes in one place, or of two sizes in a page. */
static bool look_at(void *arg, uint64_t word)
{
    struct look *l = arg;
    uint64_t first = node_offset(word) / ORDERED_UNIT, n = node_bytes(word) / ORDERED_UNIT;
    uint64_t page = first / UNITS;
    unsigned c = class_of(node_bytes(word)), mark = c < CLASSES ? c + 1 : OWN;

    if (first % (c < CLASSES ? 1u << c : UNITS) != 0 || (l->class[page] && l->class[page] != mark))
        return false;
    l->class[page] = (uint8_t)mark;
    for (uint64_t u = first; u < first + n; u++) {
        if (l->used[u])
            return false;
        l->used[u] = 1;
    }
    page = (first + n - 1) / UNITS;
    if (page > l->last)
        l->last = page;
    return true;
}

static bool page_is_empty(const struct look *l, uint64_t page)
{
    for (unsigned u = 0; u < UNITS; u++)
        if (l->used[page * UNITS + u])
            return false;
    return true;
}

/* Free bytes below page `end`; into the lists, if `adopt`. */
static uint64_t collect(struct ordered_space *sp, const struct look *l, uint64_t end, bool adopt)
{
    uint64_t found = 0;

    for (uint64_t page = 0; page < end; page++) {
        unsigned c = page == 0 ? 0u : l->class[page] - 1u, size = 1u << (c & 7);

        if (page > 0 && l->class[page] == 0 && page_is_empty(l, page)) {
            found += INDEX_PAGE;
            if (adopt)
                pages_give(&sp->pages, page * INDEX_PAGE, INDEX_PAGE);
            continue;
        }
        for (unsigned u = page == 0; c < CLASSES && u + size <= UNITS; u += size) {
            if (l->used[page * UNITS + u])
                continue;
            found += size * ORDERED_UNIT;
            if (adopt)
                list_add(sp, &sp->free[c],
                         node_make(page * INDEX_PAGE + u * ORDERED_UNIT, size * ORDERED_UNIT, 0));
        }
    }
    return found;
}

/* Find what nothing leads to; release it, if it is worth it. */
static int look_around(struct ordered_index *ix, const struct index_owner *o, bool must)
{
    struct ordered_space *sp = ix->space;
    struct ordered_file *head = ordered_head(ix);
    uint64_t pages, fresh = shm_peek(&head->fresh), found;
    struct look l = { 0 };
    bool whole = true;
    int rc = index_refresh(&ix->file, UINT64_MAX); /* another process may have grown it */

    if (rc >= 0)
        rc = resize(ix);
    if (rc < 0)
        return rc;
    pages = sp->pages.count;
    l.used = os_alloc(pages * UNITS);
    l.class = os_alloc(pages);
    if (!l.used || !l.class)
        rc = KIST_ENOMEM;
    for (unsigned i = 0; rc == KIST_OK && i < sp->taken_count; i++)
        whole = look_at(&l, sp->taken[i]) && whole;
    if (rc == KIST_OK)
        rc = whole ? ordered_each(ix, look_at, &l) : KIST_ECORRUPT;
    if (rc == ORDERED_OUTSIDE)
        rc = KIST_ECORRUPT; /* a writer has all of the file mapped */
    if (rc < 0)
        goto out;
    if (fresh > pages)
        fresh = pages;
    if (fresh <= l.last) {
        fresh = l.last + 1;
        shm_publish(&head->fresh, fresh);
    }
    found = collect(sp, &l, fresh, false);
    if (found > 0 && (must || !sp->complete || found >= pages * INDEX_PAGE / RELEASE_SHARE)) {
        /* Told before a node is written: lists of other processes have them too (model: Q2). */
        shm_publish(&head->walks, sp->walks + 1);
        sp->walks++;
        bump(o);
        forget_lists(sp);
        pages_none_free(&sp->pages);
        sp->complete = true;
        (void)collect(sp, &l, fresh, true);
    }
    sp->complete |= found == 0;
    sp->looked = sp->built = shm_peek(&head->built);
    sp->fresh = shm_peek(&head->fresh);
out:
    os_free(l.used);
    os_free(l.class);
    return rc;
}

/* ---- taking ----------------------------------------------------------- */

/* `n` pages in a row that may be written; 0: none. */
static uint64_t take_pages(struct ordered_index *ix, uint64_t n)
{
    struct ordered_file *head = ordered_head(ix);
    uint64_t page = pages_find(&ix->space->pages, n), fresh = shm_peek(&head->fresh);
    uint64_t keep = ix->space->saves ? 0 : SPARE;

    if (page == 0 && fresh > 0 && fresh <= ix->space->pages.count &&
        n + keep <= ix->space->pages.count - fresh) {
        page = fresh;
        ix->space->fresh = fresh + n;
        shm_publish(&head->fresh, fresh + n); /* before they are written */
    }
    return page;
}

static bool take_now(struct ordered_index *ix, uint64_t bytes, uint64_t *word)
{
    struct ordered_space *sp = ix->space;
    unsigned c = class_of(bytes);
    uint64_t page;

    if (c < CLASSES && sp->free[c].n > 0) {
        *word = sp->free[c].word[--sp->free[c].n];
        return true;
    }
    page = take_pages(ix, c < CLASSES ? 1 : whole_pages(bytes));
    if (page == 0)
        return false;
    if (c < CLASSES)
        cut_page(sp, page, c, 1u << c); /* all but the first, which is taken now */
    *word =
        node_make(page * INDEX_PAGE,
                  c < CLASSES ? (uint64_t)ORDERED_UNIT << c : whole_pages(bytes) * INDEX_PAGE, 0);
    return true;
}

/* Is it worth going through the tree? When all is in the lists, pages may be empty yet. */
static bool may_look(const struct ordered_index *ix, uint64_t share)
{
    const struct ordered_space *sp = ix->space;

    return sp->complete ? listed(sp) >= 2 * share
                        : shm_peek(&ordered_head(ix)->built) - sp->looked >=
                              sp->pages.count / LOOK_SHARE;
}

static int take(struct ordered_index *ix, const struct index_owner *o, uint64_t bytes,
                uint64_t *word)
{
    struct ordered_space *sp = ix->space;
    uint64_t share = sp->pages.count * INDEX_PAGE / RELEASE_SHARE;
    uint64_t enough = share < RELEASE_LEAST ? RELEASE_LEAST
                      : share > RELEASE_MOST ? RELEASE_MOST
                                             : share;
    int rc, grown;

    if (take_now(ix, bytes, word))
        return KIST_OK;
    if (sp->waiting >= enough ||
        (sp->waiting >= enough / 4 && (!sp->complete || listed(sp) >= share))) {
        release_retired(ix, o);
        if (take_now(ix, bytes, word))
            return KIST_OK;
    }
    if (may_look(ix, share)) {
        rc = look_around(ix, o, false);
        if (rc < 0)
            return rc;
        if (take_now(ix, bytes, word))
            return KIST_OK;
    }
    grown = index_grow(&ix->file, whole_pages(bytes) + SPARE);
    if (grown == 0)
        grown = resize(ix);
    if (grown < 0 && !index_no_space(grown))
        return grown;
    if (grown < 0) {
        rc = look_around(ix, o, true);
        if (rc < 0)
            return rc;
    }
    return take_now(ix, bytes, word) ? KIST_OK : grown < 0 ? grown : KIST_EFULL;
}

int space_take(struct ordered_index *ix, const struct index_owner *o, uint64_t bytes,
               unsigned level, uint64_t *word)
{
    struct ordered_space *sp = ix->space;
    int rc;

    if (sp->taken_count == TAKEN_MOST)
        return KIST_EFULL;
    rc = take(ix, o, bytes, word);
    if (rc < 0)
        return rc;
    *word |= level;
    sp->taken[sp->taken_count++] = *word;
    return KIST_OK;
}

void space_done(struct ordered_index *ix)
{
    ix->space->taken_count = 0;
    ix->space->built = shm_peek(&ordered_head(ix)->built);
}

void space_abandon(struct ordered_index *ix)
{
    struct ordered_space *sp = ix->space;

    while (sp->taken_count > 0)
        now_free(sp, sp->taken[--sp->taken_count] & ~UINT64_C(0xff));
}

void space_retire(struct ordered_index *ix, uint64_t word)
{
    struct ordered_space *sp = ix->space;

    list_add(sp, &sp->retired, word & ~UINT64_C(0xff));
    sp->waiting += node_bytes(word);
}
