/*
 * Cursors, step by step against a sorted array, while the bank changes below them;
 * what they refuse; and what they do about damage.
 */
#include "moments.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <unistd.h>

static struct fixture open_kind(uint32_t index, uint32_t segment_bytes)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = segment_bytes };

    return fixture_open_with(&opt);
}

static kist_stats stats_of(kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };

    must_ok(kist_stat(bank, &stats));
    return stats;
}

/* ---- what a cursor is to say ------------------------------------------ */

enum stand { FRESH, AT, BELOW, ABOVE };

struct walker {
    kist_cursor *cursor;
    kist_bank *snapshot; /* that it goes through, or NULL */
    struct moment *then;
    size_t *list, n; /* keys of its range, upwards */
    bool reverse;
    uint64_t limit, handed;
    enum stand stand;
    size_t at; /* in the list */
};

static bool starts_with(kist_bytes key, kist_bytes prefix)
{
    return key.len >= prefix.len &&
           (prefix.len == 0 || memcmp(key.data, prefix.data, prefix.len) == 0);
}

static void list_range(struct walker *w, const kist_cursor_options *o)
{
    const struct keys *keys = w->then->keys;

    w->list = calloc(keys->n + 1, sizeof *w->list);
    for (size_t i = 0; i < keys->n; i++) {
        kist_bytes key = keys->key[i];

        if (w->then->version[i] && starts_with(key, o->prefix) && bytes_order(key, o->from) >= 0 &&
            (!o->to.data || bytes_order(key, o->to) < 0))
            w->list[w->n++] = i;
    }
}

/* The result that the model gives; KIST_OK: at w->at. */
static int to_place(struct walker *w, bool exists, size_t at, bool down)
{
    if (!exists) {
        w->stand = down ? BELOW : ABOVE;
        return KIST_END;
    }
    w->stand = AT;
    w->at = at;
    w->handed++;
    return KIST_OK;
}

static int want_edge(struct walker *w, bool down) /* where going `down` begins */
{
    return to_place(w, w->n > 0, down ? w->n - 1 : 0, down);
}

static int want_step(struct walker *w, bool down)
{
    if (w->stand == (down ? BELOW : ABOVE))
        return KIST_END;
    if (w->stand == FRESH && w->limit > 0 && down != w->reverse)
        return KIST_EINVAL;
    if (w->stand != AT)
        return want_edge(w, down);
    return down ? to_place(w, w->at > 0, w->at - 1, down)
                : to_place(w, w->at + 1 < w->n, w->at + 1, down);
}

static int want_seek(struct walker *w, kist_bytes key, enum kist_where where)
{
    const struct keys *keys = w->then->keys;
    size_t i = 0;

    while (i < w->n && bytes_order(keys->key[w->list[i]], key) < 0)
        i++;
    if (where == KIST_GE)
        return to_place(w, i < w->n, i, false);
    if (i < w->n && bytes_order(keys->key[w->list[i]], key) == 0)
        return to_place(w, true, i, true);
    return to_place(w, i > 0, i - 1, true);
}

/* ---- random ranges, keys and steps ------------------------------------ */

/* One that is there, or one close to it. */
static kist_bytes some_key(const struct keys *keys, struct rng *rng, unsigned char *buf)
{
    kist_bytes key = keys->key[rng_below(rng, keys->n)];
    uint64_t shape = rng_below(rng, 10);
    size_t len = key.len;

    if (len > 0)
        memcpy(buf, key.data, len);
    if (shape == 0)
        memset(buf, 0xff, len = rng_below(rng, 30));
    else if (shape == 1 && len > 0)
        len = rng_below(rng, len);
    else if (shape == 2 && len > 0)
        buf[len - 1]++;
    else if (shape == 3 && len < KIST_KEY_MAX)
        buf[len++] = 0;
    return (kist_bytes){ buf, len };
}

enum { ROOM = KIST_KEY_MAX + 100000 };

struct bounds {
    unsigned char prefix[ROOM], from[ROOM], to[ROOM], key[ROOM];
};

static kist_cursor_options some_range(const struct keys *keys, struct rng *rng, struct bounds *b)
{
    kist_cursor_options o = { .size = sizeof o };
    uint64_t shape = rng_below(rng, 16);

    if (rng_below(rng, 2))
        o.flags = KIST_CURSOR_REVERSE;
    if (rng_below(rng, 5) == 0)
        o.limit = rng_below(rng, 3) ? 1 + rng_below(rng, 20) : 1 + rng_below(rng, 2000);
    if (shape & 1)
        o.from = some_key(keys, rng, b->from);
    if (shape & 2)
        o.to = some_key(keys, rng, b->to);
    if (shape & 4) {
        o.prefix = some_key(keys, rng, b->prefix);
        if (o.prefix.len > 0 && shape & 8)
            o.prefix.len = 1 + rng_below(rng, o.prefix.len < 4 ? o.prefix.len : 4);
    }
    if (rng_below(rng, 60) == 0) { /* longer than any key */
        memset(b->from, 'p', ROOM);
        o.from = (kist_bytes){ b->from, ROOM };
    }
    if (rng_below(rng, 60) == 0) {
        memset(b->to, 'q', ROOM);
        o.to = (kist_bytes){ b->to, ROOM };
    }
    return o;
}

static bool is_refused(const kist_cursor_options *o)
{
    return o->from.len > 0 && o->to.data && bytes_order(o->to, o->from) < 0;
}

/* False: it was rightly refused. */
static bool walker_open(struct walker *w, kist_bank *bank, const struct moment *now,
                        struct rng *rng, struct bounds *b, bool through_snapshot)
{
    kist_cursor_options o = some_range(now->keys, rng, b);
    kist_cursor_stats stats = { .size = sizeof stats };
    kist_bank *snapshot = NULL;

    *w = (struct walker){ 0 };
    if (through_snapshot)
        must_ok(kist_snapshot_open(&snapshot, bank));
    if (is_refused(&o)) {
        must_rc(kist_cursor_open(&w->cursor, snapshot ? snapshot : bank, &o), KIST_EINVAL);
        must(w->cursor == NULL);
        must_ok(kist_bank_close(snapshot));
        return false;
    }
    w->snapshot = snapshot;
    w->then = moment_copy(now);
    w->reverse = o.flags & KIST_CURSOR_REVERSE;
    w->limit = o.limit;
    list_range(w, &o);
    must_ok(kist_cursor_open(&w->cursor, snapshot ? snapshot : bank, &o));
    memset(b, 'x', sizeof *b); /* all of it was copied */
    must_ok(kist_cursor_stat(w->cursor, &stats));
    must(stats.handed == 0 && stats.sequence > 0);
    if (snapshot || w->n < 200 || (w->limit > 0 && w->limit < 200))
        must(stats.pinned == 0);
    else if (w->n > 2000 && (w->limit == 0 || w->limit > 2000))
        must(stats.pinned == 1);
    return true;
}

static void walker_close(struct walker *w)
{
    kist_cursor_close(w->cursor);
    if (w->snapshot)
        must_ok(kist_bank_close(w->snapshot));
    moment_free(w->then);
    free(w->list);
    *w = (struct walker){ 0 };
}

static void walker_step(struct walker *w, struct rng *rng, struct bounds *b)
{
    kist_cursor_stats stats = { .size = sizeof stats };
    bool spent = w->limit > 0 && w->handed >= w->limit;
    uint64_t pick = rng_below(rng, 20);
    kist_entry entry = { 0 };
    kist_view *view;
    int rc, want;

    if (pick < 11) {
        want = spent ? KIST_END : want_step(w, w->reverse);
        rc = kist_cursor_next(w->cursor, &entry);
    } else if (pick < 16) {
        want = spent ? KIST_END : want_step(w, !w->reverse);
        rc = kist_cursor_prev(w->cursor, &entry);
    } else if (pick == 16) {
        want = spent ? KIST_END : want_edge(w, w->reverse);
        rc = kist_cursor_first(w->cursor, &entry);
    } else if (pick == 17) {
        want = spent ? KIST_END : w->limit ? KIST_EINVAL : want_edge(w, !w->reverse);
        rc = kist_cursor_last(w->cursor, &entry);
    } else {
        enum kist_where where = rng_below(rng, 2) ? KIST_GE : KIST_LE;
        kist_bytes key = some_key(w->then->keys, rng, b->key);

        want = spent ? KIST_END : w->limit ? KIST_EINVAL : want_seek(w, key, where);
        rc = kist_cursor_seek(w->cursor, key, where, &entry);
    }
    must_rc(rc, want);
    must_ok(kist_cursor_stat(w->cursor, &stats));
    must(stats.handed == w->handed);
    if (rc == KIST_OK)
        moment_must_be_entry(w->then, w->list[w->at], &entry);
    if (pick % 5 != 0)
        return;
    must_rc(kist_cursor_view(w->cursor, &view), w->stand == AT ? KIST_OK : KIST_END);
    if (w->stand == AT)
        must(moment_value_is(kist_view_bytes(view), w->list[w->at],
                             w->then->version[w->list[w->at]]));
    kist_view_release(view);
}

/* ---- while all else goes on ------------------------------------------- */

enum { WALKERS = 4 };

struct world {
    struct fixture f;
    kist_store *store; /* another one of the same directory */
    kist_bank *bank;
    struct keys keys;
    struct moment *now;
    struct rng rng;
    struct bounds *bounds;
    struct walker w[WALKERS];
};

static void delete_a_run(struct world *d)
{
    size_t from = rng_below(&d->rng, d->keys.n), n = rng_below(&d->rng, d->keys.n / 2 + 1);

    for (size_t i = from; i < d->keys.n && i < from + n; i++) {
        must_rc(kist_delete(d->bank, d->keys.key[i]), d->now->version[i] ? KIST_OK : KIST_MISS);
        moment_set(d->now, i, 0);
    }
}

static void change(struct world *d)
{
    kist_bank *bank = rng_below(&d->rng, 2) ? d->bank : d->f.bank;
    uint64_t pick = rng_below(&d->rng, 400);

    if (pick < 100)
        moment_change_many(d->now, bank, &d->rng, 1 + rng_below(&d->rng, d->keys.n / 8 + 1));
    else if (pick < 104)
        delete_a_run(d);
    else if (pick < 110)
        must_ok(kist_compact(bank, NULL, NULL));
    else if (pick == 110)
        moment_clear(d->now, bank);
    else if (pick < 114)
        moment_replace(d->now, bank);
    else if (pick == 114)
        must_ok(kist_repair(d->store, "bank", NULL, NULL, NULL));
}

static void against_an_array(size_t keys, unsigned longest, uint32_t segment_bytes, uint64_t steps)
{
    struct world *d = calloc(1, sizeof *d);

    d->rng.state = mix(test_seed(), keys);
    d->bounds = malloc(sizeof *d->bounds);
    d->keys = keys_make(&d->rng, keys, longest);
    d->f = open_kind(KIST_INDEX_ORDERED, segment_bytes);
    d->store = open_store(d->f.dir);
    d->bank = open_bank(d->store, "bank");
    d->now = moment_make(&d->keys);
    for (size_t i = 0; i < d->keys.n; i++) {
        must_ok(kist_put(d->bank, d->keys.key[i], moment_value(i, ++d->now->newest)));
        moment_set(d->now, i, d->now->newest);
    }
    for (test_case = 1; test_case <= steps; test_case++) {
        struct walker *w = &d->w[rng_below(&d->rng, WALKERS)];
        bool reopens = rng_below(&d->rng, 60) == 0;

        change(d);
        if (w->cursor && reopens)
            walker_close(w);
        if (!w->cursor && !walker_open(w, rng_below(&d->rng, 2) ? d->bank : d->f.bank, d->now,
                                       &d->rng, d->bounds, rng_below(&d->rng, 3) == 0))
            continue;
        for (uint64_t n = rng_below(&d->rng, 12); n > 0; n--)
            walker_step(w, &d->rng, d->bounds);
        for (uint64_t n = rng_below(&d->rng, 900); reopens && w->n > 500 && n > 0; n--)
            walker_step(w, &d->rng, d->bounds);
    }
    test_case = 0;
    for (int i = 0; i < WALKERS; i++)
        if (d->w[i].cursor)
            walker_close(&d->w[i]);
    must(stats_of(d->bank).oldest_pin == 0 && stats_of(d->f.bank).snapshots == 0);
    moment_must_be_seen(d->now, d->f.bank);
    must_ok(kist_bank_close(d->bank));
    must_ok(kist_store_close(d->store));
    fixture_close(&d->f);
    moment_free(d->now);
    keys_free(&d->keys);
    free(d->bounds);
    free(d);
}

TEST(a_cursor_over_a_few_keys_agrees_with_a_sorted_array)
{
    against_an_array(60, 2, 1 << 18, test_scaled(60000));
}

TEST(a_cursor_over_many_keys_agrees_with_a_sorted_array)
{
    against_an_array(5000, 4, 1 << 20, test_scaled(10000));
}

/* All of it, from one end to the other and back. */
TEST(a_walk_to_the_end_and_back_meets_each_entry_twice)
{
    struct rng rng = { test_seed() };
    struct keys keys = keys_make(&rng, 4000, 2);
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 1 << 18);
    struct moment *now = moment_make(&keys), *then;
    kist_cursor *cursor;
    kist_entry entry;
    size_t i;

    moment_change_many(now, f.bank, &rng, 8000);
    then = moment_copy(now);
    must_ok(kist_cursor_open(&cursor, f.bank, NULL));
    for (i = 0; i < keys.n; i++) {
        if (then->version[i]) {
            must_ok(kist_cursor_next(cursor, &entry));
            moment_must_be_entry(then, i, &entry);
        }
        if (i % 40 == 0)
            moment_change_many(now, f.bank, &rng, 30);
        if (i % 1000 == 500)
            must_ok(kist_compact(f.bank, NULL, NULL));
    }
    must_rc(kist_cursor_next(cursor, &entry), KIST_END);
    must_rc(kist_cursor_next(cursor, &entry), KIST_END);
    moment_clear(now, f.bank);
    while (i-- > 0) {
        if (!then->version[i])
            continue;
        must_ok(kist_cursor_prev(cursor, &entry));
        moment_must_be_entry(then, i, &entry);
    }
    must_rc(kist_cursor_prev(cursor, &entry), KIST_END);
    kist_cursor_close(cursor);
    moment_free(now);
    moment_free(then);
    keys_free(&keys);
    fixture_close(&f);
}

/* ---- hash banks ------------------------------------------------------- */

static uint64_t rest_of(kist_cursor *cursor, const struct moment *then, unsigned char *met)
{
    kist_entry entry;
    uint64_t n = 0;
    int rc;

    while ((rc = kist_cursor_next(cursor, &entry)) == KIST_OK) {
        size_t key = keys_from(then->keys, entry.key);

        moment_must_be_entry(then, key, &entry);
        must(!met[key]);
        met[key] = 1;
        n++;
    }
    must_rc(rc, KIST_END);
    must_rc(kist_cursor_next(cursor, &entry), KIST_END);
    return n;
}

static void in_a_hash_bank(size_t n, bool large)
{
    struct rng rng = { mix(test_seed(), n) };
    struct keys keys = keys_make(&rng, n, 0);
    struct fixture f = open_kind(KIST_INDEX_HASH, 1 << 16);
    struct moment *now = moment_make(&keys), *then;
    unsigned char *met = calloc(keys.n, 1);
    kist_cursor_stats stats = { .size = sizeof stats };
    kist_cursor *cursor;
    kist_entry entry;

    moment_change_many(now, f.bank, &rng, 4 * n);
    must_ok(kist_cursor_open(&cursor, f.bank, NULL));
    then = moment_copy(now);
    must_ok(kist_cursor_stat(cursor, &stats));
    must(stats.pinned == large);
    for (size_t i = 0; i < 20; i++)
        must_ok(kist_cursor_next(cursor, &entry));
    moment_change_many(now, f.bank, &rng, 2 * n);
    must_ok(kist_compact(f.bank, NULL, NULL));
    must_ok(kist_cursor_first(cursor, &entry)); /* from the beginning */
    met[keys_from(&keys, entry.key)] = 1;
    moment_clear(now, f.bank);
    must(rest_of(cursor, then, met) == then->entries - 1);
    must_ok(kist_cursor_first(cursor, &entry));
    memset(met, 0, keys.n);
    met[keys_from(&keys, entry.key)] = 1;
    must(rest_of(cursor, then, met) == then->entries - 1);
    kist_cursor_close(cursor);
    free(met);
    moment_free(now);
    moment_free(then);
    keys_free(&keys);
    fixture_close(&f);
}

TEST(a_hash_banks_cursor_meets_what_was_there_once)
{
    in_a_hash_bank(100, false);
    in_a_hash_bank(6000, true);
}

TEST(a_hash_banks_cursor_has_no_order)
{
    struct fixture f = open_kind(KIST_INDEX_HASH, 1 << 16);
    kist_cursor_options o[] = {
        { .size = sizeof *o, .flags = KIST_CURSOR_REVERSE },
        { .size = sizeof *o, .prefix = text("a") },
        { .size = sizeof *o, .from = text("a") },
        { .size = sizeof *o, .to = text("a") },
    };
    kist_cursor_options limited = { .size = sizeof limited, .limit = 2 };
    kist_cursor *cursor;
    kist_entry entry;

    for (uint64_t i = 0; i < 10; i++)
        must_ok(kist_put(f.bank, number(i), text("value")));
    for (size_t i = 0; i < sizeof o / sizeof *o; i++) {
        must_rc(kist_cursor_open(&cursor, f.bank, &o[i]), KIST_EINVAL);
        must(cursor == NULL && strstr(kist_last_error()->what, "hash") != NULL);
    }
    must_ok(kist_cursor_open(&cursor, f.bank, &limited));
    must_rc(kist_cursor_prev(cursor, &entry), KIST_EINVAL);
    must_rc(kist_cursor_last(cursor, &entry), KIST_EINVAL);
    must_rc(kist_cursor_seek(cursor, number(3), KIST_GE, &entry), KIST_EINVAL);
    must_ok(kist_cursor_next(cursor, &entry));
    must_ok(kist_cursor_next(cursor, &entry));
    must_rc(kist_cursor_next(cursor, &entry), KIST_END);
    kist_cursor_close(cursor);
    fixture_close(&f);
}

/* ---- refusals and ends ------------------------------------------------ */

TEST(what_is_wrong_with_a_range_or_a_key_is_said)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 1 << 16);
    kist_cursor_options backwards = { .size = sizeof backwards,
                                      .from = text("b"),
                                      .to = text("a") };
    kist_cursor_options flags = { .size = sizeof flags, .flags = 2 };
    kist_cursor_options small = { .size = 0 };
    struct {
        kist_cursor_options known;
        uint64_t later;
    } newer = { .known = { .size = sizeof newer }, .later = 1 };
    kist_cursor_options empty = { .size = sizeof empty, .from = text("b"), .to = text("b") };
    kist_cursor_stats stats = { .size = sizeof stats - 1 };
    char *long_key = calloc(KIST_KEY_MAX + 1, 1);
    kist_cursor *cursor;
    kist_entry entry;
    kist_view *view;

    put_text(f.bank, "a", "value");
    must_rc(kist_cursor_open(&cursor, f.bank, &backwards), KIST_EINVAL);
    must(cursor == NULL && strstr(kist_last_error()->what, "end is before its start") != NULL);
    must_rc(kist_cursor_open(&cursor, f.bank, &flags), KIST_EINVAL);
    must_rc(kist_cursor_open(&cursor, f.bank, &small), KIST_EINVAL);
    must_rc(kist_cursor_open(&cursor, f.bank, &newer.known), KIST_EINVAL);
    newer.later = 0;
    must_ok(kist_cursor_open(&cursor, f.bank, &newer.known));
    kist_cursor_close(cursor);
    must_ok(kist_cursor_open(&cursor, f.bank, &empty));
    must_rc(kist_cursor_next(cursor, &entry), KIST_END);
    kist_cursor_close(cursor);
    kist_cursor_close(NULL);
    must_ok(kist_cursor_open(&cursor, f.bank, NULL));
    must_rc(kist_cursor_view(cursor, &view), KIST_END);
    must(view == NULL);
    must_rc(kist_cursor_stat(cursor, &stats), KIST_EINVAL);
    must_rc(kist_cursor_seek(cursor, (kist_bytes){ long_key, KIST_KEY_MAX + 1 }, KIST_GE, &entry),
            KIST_EKEYLEN);
    must_rc(kist_cursor_seek(cursor, text("a"), (enum kist_where)2, &entry), KIST_EINVAL);
    must_ok(kist_cursor_next(cursor, &entry)); /* it stands where it stood */
    kist_cursor_close(cursor);
    free(long_key);
    fixture_close(&f);
}

enum { MANY = 3000 };

static void put_many(kist_bank *bank)
{
    for (uint64_t i = 0; i < MANY; i++)
        must_ok(kist_put(bank, number(i), text("value")));
}

static void all_say(kist_cursor *cursor, int rc)
{
    kist_entry entry;

    must_rc(kist_cursor_next(cursor, &entry), rc);
    must_rc(kist_cursor_prev(cursor, &entry), rc);
    must_rc(kist_cursor_first(cursor, &entry), rc);
    must_rc(kist_cursor_last(cursor, &entry), rc);
    must_rc(kist_cursor_seek(cursor, text("a"), KIST_GE, &entry), rc);
}

TEST(a_cursor_of_a_bank_that_was_dropped_says_so_when_it_reads_on)
{
    for (uint32_t kind = KIST_INDEX_HASH; kind <= KIST_INDEX_ORDERED; kind++) {
        struct fixture f = open_kind(kind, 1 << 16);
        kist_cursor *cursor, *none;
        kist_entry entry;
        uint64_t n = 0;
        int rc;

        put_many(f.bank);
        must_ok(kist_cursor_open(&cursor, f.bank, NULL));
        must_ok(kist_bank_drop(f.store, "bank"));
        while ((rc = kist_cursor_next(cursor, &entry)) == KIST_OK) {
            must(entry.value.len == 5 && memcmp(entry.value.data, "value", 5) == 0);
            n++;
        }
        must_rc(rc, KIST_EGONE);
        must(n < MANY);
        must_rc(kist_cursor_next(cursor, &entry), KIST_EGONE);
        must_rc(kist_cursor_open(&none, f.bank, NULL), KIST_EGONE);
        must(none == NULL);
        kist_cursor_close(cursor);
        fixture_close(&f);
    }
}

TEST(a_cursor_of_a_store_that_was_closed_says_so)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 1 << 16);
    kist_cursor_options few = { .size = sizeof few, .to = number(1) };
    kist_cursor *cursor[2];
    kist_view *view[2];
    kist_entry entry;

    put_many(f.bank);
    must_ok(kist_cursor_open(&cursor[0], f.bank, NULL));
    must_ok(kist_cursor_open(&cursor[1], f.bank, &few));
    for (int i = 0; i < 2; i++) {
        must_ok(kist_cursor_next(cursor[i], &entry));
        must_ok(kist_cursor_view(cursor[i], &view[i]));
    }
    must_ok(kist_store_close(f.store));
    for (int i = 0; i < 2; i++) {
        all_say(cursor[i], KIST_ECLOSED);
        kist_cursor_close(cursor[i]);
    }
    must_ok(kist_bank_close(f.bank));
    for (int i = 0; i < 2; i++) {
        must(kist_view_bytes(view[i]).len == 5);
        must(memcmp(kist_view_bytes(view[i]).data, "value", 5) == 0);
        kist_view_release(view[i]);
    }
    tmp_remove(f.dir);
    free(f.dir);
}

TEST(a_cursors_view_outlives_the_cursor_and_its_bank)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 4096);
    kist_cursor *cursor;
    kist_view *view;
    kist_entry entry;

    put_many(f.bank);
    must_ok(kist_cursor_open(&cursor, f.bank, NULL));
    must_ok(kist_cursor_last(cursor, &entry));
    must_ok(kist_cursor_view(cursor, &view));
    kist_cursor_close(cursor);
    must_ok(kist_clear(f.bank));
    must_ok(kist_compact(f.bank, NULL, NULL));
    must_ok(kist_bank_drop(f.store, "bank"));
    must(memcmp(kist_view_bytes(view).data, "value", 5) == 0);
    fixture_close(&f);
    must(memcmp(kist_view_bytes(view).data, "value", 5) == 0);
    kist_view_release(view);
}

/* Nothing is pinned for a cursor over so few, but what it has. */
TEST(what_a_cursor_has_gathered_outlives_the_files_it_lay_in)
{
    enum { FEW_KEYS = 200 };

    for (uint32_t kind = KIST_INDEX_HASH; kind <= KIST_INDEX_ORDERED; kind++) {
        struct fixture f = open_kind(kind, 4096);
        kist_cursor_stats stats = { .size = sizeof stats };
        kist_cursor *cursor;
        kist_entry entry;
        uint64_t met = 0;
        int rc;

        for (uint64_t i = 0; i < FEW_KEYS; i++)
            must_ok(kist_put(f.bank, number(i), text("value of then")));
        must_ok(kist_cursor_open(&cursor, f.bank, NULL));
        must_ok(kist_cursor_stat(cursor, &stats));
        must(!stats.pinned);
        for (uint64_t i = 0; i < FEW_KEYS; i++)
            must_ok(kist_put(f.bank, number(i), text("value of today")));
        for (int i = 0; i < 3; i++)
            must_ok(kist_compact(f.bank, NULL, NULL));
        while ((rc = kist_cursor_next(cursor, &entry)) == KIST_OK) {
            must(entry.value.len == 13 && memcmp(entry.value.data, "value of then", 13) == 0);
            met++;
        }
        must_rc(rc, KIST_END);
        must(met == FEW_KEYS);
        kist_cursor_close(cursor);
        fixture_close(&f);
    }
}

static void in_the_child(void *arg)
{
    kist_cursor *cursor = arg;

    all_say(cursor, KIST_EFORK);
    kist_cursor_close(cursor);
}

TEST(a_cursor_in_a_forked_child_says_so)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 1 << 16);
    kist_cursor *cursor;
    kist_entry entry;
    uint64_t n = 0;

    put_many(f.bank);
    must_ok(kist_cursor_open(&cursor, f.bank, NULL));
    must_ok(kist_cursor_next(cursor, &entry));
    in_child(in_the_child, cursor);
    must(stats_of(f.bank).snapshots == 1 && stats_of(f.bank).oldest_pin != 0);
    must_ok(kist_clear(f.bank));
    must_ok(kist_compact(f.bank, NULL, NULL));
    for (n = 1; kist_cursor_next(cursor, &entry) == KIST_OK; n++)
        continue;
    must(n == MANY);
    kist_cursor_close(cursor);
    fixture_close(&f);
}

/* ---- damage ----------------------------------------------------------- */

/* Flip a byte of each record whose value says that it is one of those: value N is
 * "damaged:N" or "sound:N". False: none was found. */
static uint64_t damage(const char *dir, const char *what)
{
    char *pattern = path_join(dir, "bank/kist.heap.*");
    uint64_t met = 0;
    glob_t found;

    must(glob(pattern, 0, NULL, &found) == 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        int fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC);
        static char bytes[1 << 20];
        ssize_t len = pread(fd, bytes, sizeof bytes, 0);
        char *at = bytes;

        must(fd >= 0 && len > 0 && len < (ssize_t)sizeof bytes);
        while ((at = memmem(at, (size_t)(bytes + len - at), what, strlen(what))) != NULL) {
            must(pwrite(fd, "D", 1, at - bytes) == 1);
            at++;
            met++;
        }
        (void)close(fd);
    }
    globfree(&found);
    free(pattern);
    return met;
}

/* A bank of `n` keys, every so many of them damaged, opened anew. */
static struct fixture open_damaged(uint32_t kind, uint64_t n, uint64_t each, uint64_t *damaged)
{
    struct fixture f = open_kind(kind, 1 << 16);
    char key[32], value[64];

    for (uint64_t i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "key %06u", (unsigned)i);
        (void)snprintf(value, sizeof value, "%s:%u", i % each == each / 2 ? "damaged" : "sound",
                       (unsigned)i);
        put_text(f.bank, key, value);
    }
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    *damaged = damage(f.dir, "damaged:");
    f.store = open_store(f.dir);
    f.bank = open_bank(f.store, "bank");
    return f;
}

/* All around, once: what is met, and that it comes to an end. */
static void walk_around(kist_cursor *cursor, int (*go)(kist_cursor *, kist_entry *), uint64_t most,
                        uint64_t *sound, uint64_t *damaged)
{
    kist_entry entry;

    *sound = *damaged = 0;
    for (uint64_t n = 0;; n++) {
        int rc = go(cursor, &entry);

        must(n <= most);
        if (rc == KIST_END)
            return;
        must(rc == KIST_OK || rc == KIST_ECORRUPT);
        *(rc == KIST_OK ? sound : damaged) += 1;
        must(rc != KIST_OK || memcmp(entry.value.data, "sound:", 6) == 0);
    }
}

TEST(a_damaged_record_is_told_of_once_and_the_cursor_goes_on_behind)
{
    static const struct {
        uint32_t kind;
        uint64_t keys, each;
    } cases[] = { { KIST_INDEX_ORDERED, 100, 7 },  { KIST_INDEX_ORDERED, 3000, 700 },
                  { KIST_INDEX_ORDERED, 3000, 3 }, { KIST_INDEX_HASH, 100, 7 },
                  { KIST_INDEX_HASH, 3000, 700 },  { KIST_INDEX_HASH, 3000, 3 } };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t keys = cases[i].keys, sound, damaged, want;
        struct fixture f = open_damaged(cases[i].kind, keys, cases[i].each, &want);
        kist_cursor *cursor;

        test_case = i + 1;
        must_ok(kist_cursor_open(&cursor, f.bank, NULL));
        walk_around(cursor, kist_cursor_next, keys, &sound, &damaged);
        if (cases[i].each > 3) { /* else the tree may have no key to go by */
            must(damaged == want && sound == keys - want);
            if (cases[i].kind == KIST_INDEX_ORDERED) {
                walk_around(cursor, kist_cursor_prev, keys, &sound, &damaged);
                must(damaged == want && sound == keys - want);
            }
        }
        kist_cursor_close(cursor);
        fixture_close(&f);
    }
    test_case = 0;
}

/* Nothing can be read: an end comes all the same. */
TEST(a_cursor_over_nothing_but_damage_comes_to_an_end)
{
    for (uint32_t kind = KIST_INDEX_HASH; kind <= KIST_INDEX_ORDERED; kind++) {
        uint64_t sound, damaged, want;
        struct fixture f = open_damaged(kind, 2000, 1, &want);
        kist_cursor *cursor;
        kist_entry entry;
        int rc;

        must(want == 2000);
        rc = kist_cursor_open(&cursor, f.bank, NULL);
        if (rc == KIST_OK) {
            walk_around(cursor, kist_cursor_next, 2 * want, &sound, &damaged);
            must(sound == 0 && damaged > 0);
            if (kind == KIST_INDEX_ORDERED) {
                rc = kist_cursor_seek(cursor, text("key 001000"), KIST_GE, &entry);
                must(rc == KIST_ECORRUPT || rc == KIST_END);
                walk_around(cursor, kist_cursor_prev, 2 * want, &sound, &damaged);
            }
        } else {
            must_rc(rc, KIST_ECORRUPT);
        }
        kist_cursor_close(cursor);
        fixture_close(&f);
    }
}

TEST(a_limit_is_for_entries_that_are_handed_out)
{
    enum { KEYS = 600 };
    uint64_t want, sound, damaged;
    struct fixture f = open_damaged(KIST_INDEX_ORDERED, KEYS, 4, &want);
    kist_cursor *cursor;

    for (uint64_t limit = 1; limit < 300; limit++) {
        kist_cursor_options o = { .size = sizeof o, .limit = limit };

        test_case = limit;
        must_ok(kist_cursor_open(&cursor, f.bank, &o));
        walk_around(cursor, kist_cursor_next, KEYS, &sound, &damaged);
        must(sound == limit && damaged == limit / 3);
        kist_cursor_close(cursor);
    }
    test_case = 0;
    fixture_close(&f);
}

/* The limit counts what is alive, and so does what is pinned for it. */
TEST(a_short_range_behind_many_deleted_keys_pins_nothing)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 1 << 16);
    kist_cursor_options o = { .size = sizeof o, .limit = 5 };
    kist_cursor_stats stats = { .size = sizeof stats };
    char key[32];
    kist_cursor *cursor;
    kist_entry entry;

    for (unsigned i = 0; i < 900; i++) {
        (void)snprintf(key, sizeof key, "%06u", i);
        put_text(f.bank, key, "value");
        if (i % 100 != 99)
            must_ok(kist_delete(f.bank, text(key)));
    }
    for (int i = 0; i < 2; i++) {
        o.limit = i == 0 ? 5 : 0;
        must_ok(kist_cursor_open(&cursor, f.bank, &o));
        must_ok(kist_cursor_stat(cursor, &stats));
        must(stats.pinned == 0);
        for (unsigned n = 0; n < (i == 0 ? 5 : 9); n++)
            must_ok(kist_cursor_next(cursor, &entry));
        must_rc(kist_cursor_next(cursor, &entry), KIST_END);
        kist_cursor_close(cursor);
    }
    fixture_close(&f);
}

/* ---- what compaction does for them ------------------------------------ */

enum { SCATTERED = 5000 };

/* Entries that do not lie behind the one before them, in reach. */
static unsigned count_jumps(kist_bank *bank)
{
    const char *before = NULL;
    unsigned n = 0, jumps = 0;
    kist_cursor *cursor;
    kist_entry entry;

    must_ok(kist_cursor_open(&cursor, bank, NULL));
    for (; kist_cursor_next(cursor, &entry) == KIST_OK; n++) {
        const char *here = entry.value.data;

        jumps += before && (here <= before || here - before > 256);
        before = here;
    }
    kist_cursor_close(cursor);
    must(n == SCATTERED);
    return jumps;
}

/* So a scan reads memory in a row, but where a segment ends. */
TEST(compaction_puts_records_in_the_order_of_their_keys)
{
    struct fixture f = open_kind(KIST_INDEX_ORDERED, 1 << 16);
    double share = 1;

    for (uint64_t i = 0; i < SCATTERED; i++)
        must_ok(kist_put(f.bank, number(i * 2003 % SCATTERED), text("value")));
    must(count_jumps(f.bank) > SCATTERED / 2);
    must_ok(kist_compact(f.bank, NULL, NULL));
    must(count_jumps(f.bank) < stats_of(f.bank).segments);
    must_ok(kist_fragmentation(f.bank, &share));
    must(share == 0);
    fixture_close(&f);
}
