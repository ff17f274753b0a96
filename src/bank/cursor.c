/*
 * cursor.c - a place in a bank as it was at one moment.
 *
 *     open    gather the first entries of the range, at what is visible now
 *             all of it?  then nothing more is needed, ever
 *             else        hold the moment, and go on a group at a time
 *
 * What was gathered unpinned counts if the horizon did not pass the sequence
 * meanwhile; else all starts over at a later moment. That is hidden in open: a
 * cursor that was handed out never has to.
 *
 * A cursor stands at an entry of its group, or before or behind it. In a pinned
 * bank a group can be gathered in either direction from any key.
 */
#include "bank/gather.h"

#include "base/err.h"

#include <string.h>

enum { FIRST_GROUP = 256, GROUP = 512, HASH_FIRST = 256 };

/* Where the cursor stands. */
enum stand { FRESH, IN_GROUP, BELOW, ABOVE };

struct kist_cursor {
    kist_bank *handle;
    struct source src;
    struct snapshot *own;  /* its pin, or NULL */
    struct key_range range;
    uint8_t *bounds; /* the range's bytes */
    bool reverse, is_hash;
    bool whole; /* the group is all there is */
    bool weak;  /* of no moment: each group is what the bank holds by then */
    bool stale; /* the group was, of another content */
    uint64_t generation; /* of the index that the group was read from, if so */
    uint64_t limit, handed;

    struct group group;
    size_t at; /* entry of the group, with IN_GROUP */
    enum stand stand;
    bool flows; /* the entry behind it is the next one, and nothing else is to be looked at */
    struct hash_cursor hash;

    uint8_t *key; /* where the group after this one begins */
    size_t key_room;
};

/* ---- the range -------------------------------------------------------- */

static int bytes_cmp(kist_bytes a, kist_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int c = len ? memcmp(a.data, b.data, len) : 0;

    return c != 0 ? c : a.len < b.len ? -1 : a.len > b.len;
}

/* The bytes of a prefix up to the last that is not 0xff: with that one raised, the
 * first key behind all that begin so. 0: there is none. */
static size_t successor_len(kist_bytes prefix)
{
    const uint8_t *p = prefix.data;
    size_t len = prefix.len;

    while (len > 0 && p[len - 1] == 0xff)
        len--;
    return len;
}

static int take_range(kist_cursor *cur, const kist_cursor_options *o)
{
    size_t up = successor_len(o->prefix);
    kist_bytes next;
    uint8_t *p;

    p = cur->bounds = os_alloc(o->prefix.len + up + o->from.len + o->to.len + 1);
    if (!p)
        return KIST_ENOMEM;
#define COPY(name, from, n)                                                                        \
    const kist_bytes name = { p, (n) };                                                            \
    if ((n) > 0)                                                                                   \
        memcpy(p, (from).data, (n));                                                               \
    p += (n)
    COPY(prefix, o->prefix, o->prefix.len);
    COPY(from, o->from, o->from.len);
    COPY(to, o->to, o->to.len);
    COPY(copy, o->prefix, up);
#undef COPY
    next = copy;
    if (up > 0)
        cur->bounds[(size_t)((const uint8_t *)copy.data - cur->bounds) + up - 1]++;
    cur->range.lower = bytes_cmp(from, prefix) > 0 ? from : prefix;
    cur->range.has_upper = o->to.data != NULL || up > 0;
    cur->range.upper = o->to.data && (up == 0 || bytes_cmp(to, next) < 0) ? to : next;
    return KIST_OK;
}

static int options_check(const kist_bank *h, const kist_cursor_options *o, bool is_hash)
{
    const char *what = NULL;

    if (o->flags & ~(uint32_t)KIST_CURSOR_REVERSE)
        what = "kist_cursor_options.flags has a bit that is not known";
    else if (is_hash && (o->flags != 0 || o->prefix.len != 0 || o->from.len != 0 || o->to.data))
        what = "a hash bank has no order: no prefix, from, to or reverse";
    else if (o->from.len > 0 && o->to.data && bytes_cmp(o->to, o->from) < 0)
        what = "the range's end is before its start";
    return what ? bank_err(h->bank, KIST_EINVAL, NULL, ERR_NOWHERE, "bank '%s': %s", h->bank->name,
                           what)
                : KIST_OK;
}

/* ---- opening ---------------------------------------------------------- */

static size_t first_want(const kist_cursor *cur)
{
    return cur->limit > 0 && cur->limit < FIRST_GROUP ? (size_t)cur->limit : FIRST_GROUP;
}

/* The first group, of the moment that src says. */
static int gather_first(kist_cursor *cur)
{
    const struct key_start edge = { 0 };
    int rc = KIST_OK;

    if (!cur->is_hash)
        return gather_keys(&cur->src, &cur->range, &edge, cur->reverse, first_want(cur),
                           &cur->group);
    cur->hash = (struct hash_cursor){ 0 };
    group_drop(&cur->group);
    while (rc == KIST_OK && !cur->hash.done && cur->group.n < HASH_FIRST)
        rc = gather_block(&cur->src, &cur->hash, &cur->group);
    return rc;
}

/* Are there as many as may be handed out? Damaged ones are not. */
static bool is_enough(const kist_cursor *cur)
{
    uint64_t n = 0;

    for (size_t i = 0; i < cur->group.n; i++)
        n += cur->group.met[i].record != NULL;
    return n >= cur->limit;
}

static bool is_whole(const kist_cursor *cur)
{
    return cur->group.ended || (cur->limit > 0 && cur->limit <= first_want(cur) && !cur->is_hash &&
                                is_enough(cur));
}

/* At the present moment. 1: history went meanwhile. In a read section. */
static int try_open(kist_cursor *cur)
{
    kist_bank *h = cur->handle;
    struct index_file *ix;
    struct core *c;
    struct state s;
    int rc = core_enter(h, &c);

    if (rc == KIST_OK)
        rc = snapshot_moment(h, c, &s, &ix);
    if (rc != KIST_OK)
        return rc;
    cur->src = (struct source){ .handle = h, .fixed = ix, .at = s.visible };
    rc = gather_first(cur);
    if (rc < 0 && rc != KIST_ENOMEM && !core_was_right(c))
        return 1; /* what it met was nobody's any more */
    if (rc != KIST_OK)
        return rc;
    if (!is_whole(cur)) {
        rc = snapshot_hold(c, &s, ix, &cur->own);
        cur->src.pin = cur->own;
        return rc;
    }
    cur->whole = true;
    shm_fence(); /* what was gathered, then the horizon (model: U3, U4) */
    /* ⚑ The horizon of a live that was retired stays where it was. */
    return shm_read(&c->live->horizon) > s.visible || !core_was_right(c) ? 1 : KIST_OK;
}

static int open_now(kist_cursor *cur)
{
    int rc = 1;

    for (int i = 0; i < READ_TRIES && rc == 1; i++) {
        rc = kist_read_begin();
        if (rc == KIST_OK) {
            rc = try_open(cur);
            kist_read_end();
        }
    }
    return rc == 1 ? bank_err(cur->handle->bank, KIST_EBUSY, NULL, ERR_NOWHERE,
                              "bank '%s' is being recovered or cleaned by others; try again",
                              cur->handle->bank->name)
                   : rc;
}

/* Through a snapshot: its moment is held. */
static int open_in_snapshot(kist_cursor *cur)
{
    const struct snapshot *snap = cur->handle->snapshot;
    int rc;

    cur->src = (struct source){ .handle = cur->handle, .fixed = snapshot_index(snap),
                                .at = snap->at, .pin = snap };
    rc = gather_first(cur);
    cur->whole = rc == KIST_OK && is_whole(cur);
    return rc;
}

int kist_cursor_open(kist_cursor **out, kist_bank *h, const kist_cursor_options *opt)
{
    bool is_hash = h->bank->set.index == KIST_INDEX_HASH;
    kist_cursor_options o;
    kist_cursor *cur;
    int rc = options_take(&o, sizeof o, opt, "kist_cursor_options");

    if (rc == KIST_OK)
        rc = options_check(h, &o, is_hash);
    *out = NULL;
    if (rc < 0)
        return rc;
    cur = os_alloc(sizeof *cur);
    if (!cur)
        return KIST_ENOMEM;
    cur->handle = h;
    cur->is_hash = is_hash;
    cur->reverse = o.flags & KIST_CURSOR_REVERSE;
    cur->limit = o.limit;
    rc = take_range(cur, &o);
    if (rc == KIST_OK)
        rc = h->snapshot ? open_in_snapshot(cur) : open_now(cur);
    if (rc < 0) {
        kist_cursor_close(cur);
        return rc;
    }
    *out = cur;
    return KIST_OK;
}

int cursor_open_weak(kist_cursor **out, kist_bank *h)
{
    kist_cursor *cur = os_alloc(sizeof *cur);

    if (!cur)
        return KIST_ENOMEM;
    *cur = (kist_cursor){
        .handle = h,
        .src = { .handle = h, .at = SEQUENCE_NOW },
        .weak = true,
        .stale = true, /* nothing was gathered yet */
    };
    *out = cur;
    return KIST_OK;
}

void kist_cursor_close(kist_cursor *cur)
{
    if (!cur)
        return;
    group_drop(&cur->group);
    snapshot_release(cur->own);
    os_free(cur->bounds);
    os_free(cur->key);
    os_free(cur);
}

/* ---- moving ----------------------------------------------------------- */

static int refuse(const kist_cursor *cur)
{
    return bank_err(cur->handle->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                    "bank '%s' is a hash bank: its cursors go forward only",
                    cur->handle->bank->name);
}

/* A limit counts what is handed out: it says nothing of where the last entry is. */
static int refuse_limited(const kist_cursor *cur)
{
    return bank_err(cur->handle->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                    "bank '%s': a cursor with a limit does not seek, nor go to the last entry",
                    cur->handle->bank->name);
}

static bool is_usable(const kist_cursor *cur)
{
    const struct bank *b = cur->handle->bank;

    return *b->env->forked && !atomic_load_explicit(&b->closed, memory_order_relaxed);
}

/* The bank as it is now; a weak cursor's group may be of another content. */
static __attribute__((noinline)) int check_bank(kist_cursor *cur)
{
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = core_enter_to_read(cur->handle, &c);
    if (rc == KIST_OK && cur->weak && shm_read(&c->live->generation) != cur->generation)
        cur->stale = true; /* cleared or replaced: what is left of the group is gone */
    kist_read_end();
    return rc;
}

/* May the cursor be used, and has it entries left to hand out? That its bank was dropped
 * is no matter for a group that is there. */
static inline int check(kist_cursor *cur)
{
    if (__builtin_expect(cur->weak || !is_usable(cur), 0)) {
        int rc = check_bank(cur);

        if (rc < 0)
            return rc;
    }
    return cur->limit > 0 && cur->handed >= cur->limit ? KIST_END : KIST_OK;
}

static int hand_out(kist_cursor *cur, size_t at, kist_entry *entry)
{
    int rc;

    cur->at = at;
    cur->stand = IN_GROUP;
    cur->flows = !cur->weak && cur->limit == 0 && cur->group.down == cur->reverse;
    rc = group_entry(&cur->src, &cur->group, at, entry);
    cur->handed += rc == KIST_OK;
    return rc;
}

static int beyond(kist_cursor *cur, bool down)
{
    cur->stand = down ? BELOW : ABOVE;
    cur->flows = false;
    return KIST_END;
}

static int copy_key(kist_cursor *cur, const struct record *r)
{
    if (r->key_len > cur->key_room || !cur->key) {
        uint8_t *p = os_resize(cur->key, r->key_len + 64u);

        if (!p)
            return KIST_ENOMEM;
        cur->key = p;
        cur->key_room = r->key_len + 64u;
    }
    memcpy(cur->key, record_key(r), r->key_len);
    return KIST_OK;
}

/* From where to gather on, downwards or upwards: the entry of the group nearest to
 * that side whose key can be read, and how many that can't lie behind it. */
static int start_behind(kist_cursor *cur, bool down, struct key_start *out)
{
    const struct group *g = &cur->group;
    bool from_end = down == g->down;
    size_t i = from_end ? g->n : 0, step = from_end ? SIZE_MAX : 1;
    int rc;

    *out = (struct key_start){ 0 };
    if (from_end)
        i--;
    for (size_t k = 0; k < g->n; k++, i += step) {
        const struct record *r = g->met[i].record;

        if (!r) {
            out->skip++;
            continue;
        }
        rc = copy_key(cur, r);
        out->has_key = true;
        out->key = (kist_bytes){ cur->key, r->key_len };
        return rc;
    }
    return bank_index_damaged(cur->handle->bank); /* nothing of it says where it is */
}

/* The same from where it stands. */
static int start_at(kist_cursor *cur, struct key_start *out)
{
    struct group *g = &cur->group;

    g->n = cur->at + 1; /* what is behind is gone, or another's */
    return start_behind(cur, g->down, out);
}

/* The index that a weak cursor reads from next, or one before it. */
static int note_generation(kist_cursor *cur)
{
    struct core *c;
    int rc = kist_read_begin();

    if (rc < 0)
        return rc;
    rc = core_enter_to_read(cur->handle, &c);
    if (rc == KIST_OK)
        cur->generation = shm_read(&c->live->generation);
    cur->stale = false;
    kist_read_end();
    return rc;
}

/* The index leads no further: else each call would say so, and none that it is the end. */
static int no_way_on(kist_cursor *cur, bool down, int rc)
{
    if (rc == KIST_ECORRUPT)
        cur->stand = down ? BELOW : ABOVE;
    return rc;
}

/* Another group, and its first entry. */
static int load(kist_cursor *cur, const struct key_start *from, bool down, kist_entry *entry)
{
    struct key_start behind = { .has_key = true };
    struct group made = { 0 };
    int rc = cur->weak ? note_generation(cur) : KIST_OK;

    if (rc == KIST_OK)
        rc = gather_keys(&cur->src, &cur->range, from, down, GROUP, &made);
    while (rc == KIST_OK && made.n == 0 && !made.ended) { /* across what was deleted */
        rc = copy_key(cur, made.reached);
        behind.key = (kist_bytes){ cur->key, made.reached->key_len };
        if (rc == KIST_OK)
            rc = gather_keys(&cur->src, &cur->range, &behind, down, GROUP, &made);
    }
    if (rc == KIST_OK && made.n == 0) {
        group_drop(&made);
        return beyond(cur, down);
    }
    if (rc != KIST_OK) {
        group_drop(&made);
        return no_way_on(cur, down, rc);
    }
    group_drop(&cur->group);
    cur->group = made;
    return hand_out(cur, 0, entry);
}

static int from_edge(kist_cursor *cur, bool down, kist_entry *entry)
{
    const struct key_start edge = { 0 };
    const struct group *g = &cur->group;

    if (!cur->whole)
        return load(cur, &edge, down, entry);
    if (g->n == 0)
        return beyond(cur, down);
    return hand_out(cur, down == g->down ? 0 : g->n - 1, entry);
}

/* One step up or down. */
static int step(kist_cursor *cur, bool down, kist_entry *entry)
{
    const struct group *g = &cur->group;
    bool along = down == g->down;
    struct key_start from;
    int rc;

    if (cur->stand == (down ? BELOW : ABOVE))
        return KIST_END;
    if (cur->limit > 0 && cur->stand == FRESH && !along)
        return refuse_limited(cur);
    if (cur->stand == FRESH && along && g->n > 0)
        return hand_out(cur, 0, entry);
    if (cur->stand != IN_GROUP)
        return from_edge(cur, down, entry); /* from beyond the other end, or fresh */
    if (cur->stale) {
        rc = start_at(cur, &from);
        return rc == KIST_OK ? load(cur, &from, down, entry) : no_way_on(cur, down, rc);
    }
    if (along ? cur->at + 1 < g->n : cur->at > 0)
        return hand_out(cur, along ? cur->at + 1 : cur->at - 1, entry);
    if (cur->whole || (along && g->ended))
        return beyond(cur, down);
    rc = start_behind(cur, down, &from);
    return rc == KIST_OK ? load(cur, &from, down, entry) : no_way_on(cur, down, rc);
}

/* Forward in a hash bank. */
static int step_hash(kist_cursor *cur, kist_entry *entry)
{
    size_t next = cur->stand == IN_GROUP ? cur->at + 1 : 0;

    if (cur->stand == ABOVE)
        return KIST_END;
    while (next >= cur->group.n) {
        int rc;

        if (cur->group.ended)
            return beyond(cur, false);
        group_drop(&cur->group);
        cur->stand = FRESH;
        cur->flows = false;
        next = 0;
        rc = gather_block(&cur->src, &cur->hash, &cur->group);
        if (rc != KIST_OK)
            return no_way_on(cur, false, rc);
    }
    return hand_out(cur, next, entry);
}

static __attribute__((noinline)) int next_slowly(kist_cursor *cur, kist_entry *entry)
{
    int rc = check(cur);

    if (rc != KIST_OK)
        return rc;
    return cur->is_hash ? step_hash(cur, entry) : step(cur, cur->reverse, entry);
}

int kist_cursor_next(kist_cursor *cur, kist_entry *entry)
{
    size_t next = cur->at + 1;
    const struct record *r;

    if (__builtin_expect(!cur->flows || next >= cur->group.n || !is_usable(cur), 0))
        return next_slowly(cur, entry);
    r = cur->group.met[next].record;
    if (__builtin_expect(!r || r->kind != RECORD_PUT, 0))
        return next_slowly(cur, entry);
    cur->at = next;
    cur->handed++;
    entry_fill(entry, r, (kist_bytes){ record_value(r), r->value_len });
    return KIST_OK;
}

int kist_cursor_prev(kist_cursor *cur, kist_entry *entry)
{
    int rc = check(cur);

    if (rc != KIST_OK)
        return rc;
    return cur->is_hash ? refuse(cur) : step(cur, !cur->reverse, entry);
}

int kist_cursor_first(kist_cursor *cur, kist_entry *entry)
{
    int rc = check(cur);

    if (rc != KIST_OK)
        return rc;
    if (!cur->is_hash)
        return from_edge(cur, cur->reverse, entry);
    if (!cur->whole) {
        cur->hash = (struct hash_cursor){ 0 };
        group_drop(&cur->group);
    }
    cur->stand = FRESH;
    cur->flows = false;
    return step_hash(cur, entry);
}

int kist_cursor_last(kist_cursor *cur, kist_entry *entry)
{
    int rc = check(cur);

    if (rc != KIST_OK)
        return rc;
    if (cur->is_hash || cur->limit > 0)
        return cur->is_hash ? refuse(cur) : refuse_limited(cur);
    return from_edge(cur, !cur->reverse, entry);
}

/* ---- seeking ---------------------------------------------------------- */

/* In a group that is all there is. */
static int seek_in_group(kist_cursor *cur, kist_bytes key, bool down, kist_entry *entry)
{
    const struct group *g = &cur->group;
    bool along = down == g->down;

    for (size_t k = 0; k < g->n; k++) {
        size_t i = along ? k : g->n - 1 - k;
        const struct record *r = g->met[i].record;
        kist_bytes other;

        if (!r)
            continue;
        other = (kist_bytes){ record_key(r), r->key_len };
        if (down ? bytes_cmp(other, key) <= 0 : bytes_cmp(other, key) >= 0)
            return hand_out(cur, i, entry);
    }
    return beyond(cur, down);
}

int kist_cursor_seek(kist_cursor *cur, kist_bytes key, enum kist_where where, kist_entry *entry)
{
    struct key_start from = { .has_key = true, .inclusive = true, .key = key };
    bool down = where == KIST_LE;
    int rc = check(cur);

    if (rc != KIST_OK)
        return rc;
    if (cur->is_hash || cur->limit > 0)
        return cur->is_hash ? refuse(cur) : refuse_limited(cur);
    if (where != KIST_GE && where != KIST_LE)
        return bank_err(cur->handle->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                        "kist_cursor_seek: `where` is neither KIST_GE nor KIST_LE");
    if (key.len > KIST_KEY_MAX)
        return bank_err(cur->handle->bank, KIST_EKEYLEN, NULL, ERR_NOWHERE,
                        "a key of %zu bytes; 65,535 is the most", key.len);
    if (cur->whole)
        return seek_in_group(cur, key, down, entry);
    if (!down && bytes_cmp(key, cur->range.lower) < 0)
        from = (struct key_start){ 0 };
    if (down && cur->range.has_upper && bytes_cmp(key, cur->range.upper) >= 0)
        from = (struct key_start){ 0 };
    return load(cur, &from, down, entry);
}

/* ---- what else -------------------------------------------------------- */

int kist_cursor_view(kist_cursor *cur, kist_view **out)
{
    kist_entry e;
    int rc;

    *out = NULL;
    if (cur->stand != IN_GROUP)
        return KIST_END;
    rc = group_entry(&cur->src, &cur->group, cur->at, &e);
    return rc == KIST_OK ? view_make(cur->group.met[cur->at].segment, e.value, out) : rc;
}

int kist_cursor_stat(const kist_cursor *cur, kist_cursor_stats *out)
{
    if (out->size < sizeof *out)
        return bank_err(cur->handle->bank, KIST_EINVAL, NULL, ERR_NOWHERE,
                        "kist_cursor_stats.size is not set to sizeof(kist_cursor_stats)");
    *out = (kist_cursor_stats){
        .size = out->size,
        .pinned = cur->own != NULL,
        .sequence = cur->src.at,
        .handed = cur->handed,
    };
    return KIST_OK;
}
