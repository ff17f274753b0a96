/*
 * batch.c - several puts and deletes at once.
 *
 *     gather      changes in a spool, found by key through a table; no lock held
 *     look        are the expected sequences what they are?   (lock word held)
 *     append      each change, flagged as in a batch, ...
 *     publish     ... and its slot at once: readers hide what is in a batch and
 *                 above `visible`, and go back by its previous link
 *     commit      the record that makes the batch count
 *     step        by which all becomes visible (I1)
 *     sync        in durable banks
 *
 * What can fail comes before the commit record. Until then a failure, or a death,
 * is undone by repair(): each slot leads again to what it led to before.
 */
#include "bank/batch.h"

#include "bank/ahead.h"
#include "bank/spool.h"
#include "base/err.h"

#include <string.h>

enum { TABLE_FIRST = 64 };

/*
 * Where the newest change of each key is: open addressing, at most half full.
 *
 *     slot  63          48 47                        0
 *          +--------------+---------------------------+
 *          | hash, tag    |  place in the spool / 16 + 1; 0: free
 *          +--------------+---------------------------+
 */
enum { TAG_SHIFT = 48 };
#define SPOT_MASK ((UINT64_C(1) << TAG_SHIFT) - 1)

struct kist_batch {
    kist_bank *handle;
    _Atomic uint32_t busy;  /* a thread is inside a call */
    _Atomic uint64_t count; /* keys that it changes */
    struct spool spool;
    uint64_t *table;
    uint64_t slots;   /* a power of two, or 0 */
    uint64_t expects; /* the last expectation's place + 1; each names the one before */
};

/* In the spool: an expectation; a note about a key; and what a later change of its
 * key follows. */
enum { SPOOLED_EXPECT = RECORD_TOUCH, SPOOLED_NOTE = RECORD_MARK, SPOOLED_PAST = 0 };

/* ---- entering ---------------------------------------------------------- */

static int check_handle(kist_bank *h)
{
    struct core *c;

    if (!*h->bank->env->forked || atomic_load_explicit(&h->bank->closed, memory_order_acquire))
        return core_enter_slow(h, &c); /* says which */
    return KIST_OK;
}

static int begin(kist_batch *b)
{
    int rc = check_handle(b->handle);

    if (rc < 0)
        return rc;
    /* acquire: pairs with end(), so that threads may take turns */
    if (atomic_exchange_explicit(&b->busy, 1, memory_order_acquire) != 0)
        return bank_err(b->handle->bank, KIST_EINUSE, NULL, ERR_NOWHERE,
                        "another thread is using this batch of bank '%s'",
                        b->handle->bank->name);
    return KIST_OK;
}

static int end(kist_batch *b, int rc)
{
    atomic_store_explicit(&b->busy, 0, memory_order_release);
    return rc;
}

/* ---- the table --------------------------------------------------------- */

static uint64_t slot_of(uint64_t hash, uint64_t at)
{
    return hash << TAG_SHIFT | (at / RECORD_ALIGN + 1);
}

static uint64_t spot_of(uint64_t slot)
{
    return ((slot & SPOT_MASK) - 1) * RECORD_ALIGN;
}

/* The slot of a key, or the free one where it belongs. */
static uint64_t *find(const kist_batch *b, kist_bytes key, uint64_t hash)
{
    uint64_t mask = b->slots - 1;

    for (uint64_t i = hash >> 16;; i++) {
        uint64_t *slot = &b->table[i & mask];

        if (*slot == 0 || ((*slot ^ hash << TAG_SHIFT) >> TAG_SHIFT == 0 &&
                           record_key_is(spool_at(&b->spool, spot_of(*slot)), key)))
            return slot;
    }
}

static bool is_change(const struct record *r)
{
    return record_kind(r) == RECORD_PUT || record_kind(r) == RECORD_DELETE;
}

/* From the spool, in its order: no key is compared. */
static void fill_table(uint64_t *table, uint64_t mask, const struct spool *sp)
{
    for (uint64_t at = 0; at < sp->len; at = spool_behind(sp, at)) {
        const struct record *r = spool_at(sp, at);
        uint64_t i = spool_hash(r) >> 16;

        if (!is_change(r) && record_kind(r) != (enum record_kind)SPOOLED_NOTE)
            continue;
        while (table[i & mask] != 0)
            i++;
        table[i & mask] = slot_of(spool_hash(r), at);
    }
}

/* Room for one key more. */
static int make_room(kist_batch *b)
{
    uint64_t count = atomic_load_explicit(&b->count, memory_order_relaxed);
    uint64_t slots = b->slots ? b->slots * 2 : TABLE_FIRST, *table;

    if (count < b->slots / 2)
        return KIST_OK;
    table = os_alloc(slots * sizeof *table);
    if (!table)
        return bank_err(b->handle->bank, KIST_ENOMEM, NULL, ERR_NOWHERE,
                        "no memory for a batch of %llu changes", (unsigned long long)count + 1);
    fill_table(table, slots - 1, &b->spool);
    os_free(b->table);
    b->table = table;
    b->slots = slots;
    return KIST_OK;
}

static const struct record *find_change(const kist_batch *b, kist_bytes key)
{
    uint64_t hash, *slot;

    if (b->slots == 0 || key.len > KIST_KEY_MAX)
        return NULL;
    hash = record_hash_key(&b->handle->bank->set.record, key.data, key.len);
    slot = find(b, key, hash);
    return *slot ? spool_at(&b->spool, spot_of(*slot)) : NULL;
}

/* ---- gathering --------------------------------------------------------- */

static int add(kist_batch *b, uint8_t kind, kist_bytes key, kist_bytes value)
{
    uint64_t at, hash, *slot;
    int rc = make_room(b);

    if (rc == KIST_OK)
        rc = spool_add(&b->spool, kind, key, value, &at);
    if (rc < 0)
        return rc;
    hash = spool_hash(spool_at(&b->spool, at));
    slot = find(b, key, hash);
    if (*slot)
        spool_at(&b->spool, spot_of(*slot))->kind &= (uint8_t)~RECORD_KIND_MASK; /* SPOOLED_PAST */
    else
        atomic_fetch_add_explicit(&b->count, 1, memory_order_relaxed);
    *slot = slot_of(hash, at);
    return KIST_OK;
}

bool batch_has(const kist_batch *b, kist_bytes key, uint64_t *note)
{
    const struct record *r = find_change(b, key);

    *note = r && !is_change(r) ? r->sequence : 0;
    return r && is_change(r);
}

/* With a word that is kept where a record has its sequence. */
static int add_with(kist_batch *b, uint8_t kind, kist_bytes key, kist_bytes value, uint64_t word)
{
    uint64_t hash = record_hash_key(&b->handle->bank->set.record, key.data, key.len);
    int rc = add(b, kind, key, value);

    if (rc == KIST_OK)
        spool_at(&b->spool, spot_of(*find(b, key, hash)))->sequence = word;
    return rc;
}

int batch_note(kist_batch *b, kist_bytes key, uint64_t note)
{
    return add_with(b, SPOOLED_NOTE, key, (kist_bytes){ 0 }, note);
}

int batch_put_again(kist_batch *b, kist_bytes key, kist_bytes value, int64_t mtime_ns)
{
    b->spool.has_times = true;
    return add_with(b, RECORD_PUT, key, value, (uint64_t)mtime_ns);
}

int batch_delete(kist_batch *b, kist_bytes key)
{
    static const uint64_t origin; /* filled in when its place is known */

    return add(b, RECORD_DELETE, key, (kist_bytes){ &origin, sizeof origin });
}

static void empty(kist_batch *b)
{
    spool_empty(&b->spool);
    if (b->slots > TABLE_FIRST) {
        os_free(b->table);
        b->table = NULL;
        b->slots = 0;
    }
    if (b->slots > 0)
        memset(b->table, 0, b->slots * sizeof *b->table);
    b->expects = 0;
    atomic_store_explicit(&b->count, 0, memory_order_relaxed);
}

/* ---- committing -------------------------------------------------------- */

/* KIST_OK, an outcome, or an error. */
static int look_at(struct writer *w, const struct record *expected)
{
    kist_bytes key = { record_key(expected), expected->key_len };
    struct found f;
    int rc = core_find(w->core, key, spool_hash(expected), w->handle->verify, &f);

    if (rc < 0)
        return rc;
    if (rc != KIST_OK || record_kind(f.record) != RECORD_PUT)
        return expected->sequence == 0 ? KIST_OK : KIST_MISS;
    if (expected->sequence == 0)
        return KIST_EXISTS;
    return f.record->sequence == expected->sequence ? KIST_OK : KIST_CHANGED;
}

static int look_at_all(struct writer *w, const kist_batch *b)
{
    int rc = KIST_OK;

    for (uint64_t next = b->expects; next != 0 && rc == KIST_OK;) {
        const struct record *r = spool_at(&b->spool, next - 1);

        rc = look_at(w, r);
        next = r->previous;
    }
    return rc;
}

struct commit {
    struct writer w;
    struct state next; /* to be stepped */
    struct commit_body body;
    bool durable;
    uint64_t place; /* of the commit record */
};

/* There is room for it, and for its key. */
static int append_change(struct commit *cm, struct entry *e, const struct found *old,
                         struct key_record before, struct index_room *room)
{
    struct core *c = cm->w.core;
    bool tombstone = e->kind == RECORD_DELETE;
    uint64_t origin = place_n(cm->next.tail), place;
    struct key_record now = {
        .counts = !tombstone,
        .tombstone = tombstone,
        .size = entry_size(e),
        .payload = e->key.len + e->value.len,
    };
    int rc;

    if (tombstone) { /* I10 */
        e->value = (kist_bytes){ &origin, sizeof origin };
        e->value_hash = record_hash_value(&origin, sizeof origin, NULL);
    }
    e->kind |= RECORD_IN_BATCH;
    e->sequence = ++cm->next.visible;
    e->previous = old->place;
    rc = append(c, &cm->next, e, cm->durable, &place);
    if (rc < 0)
        return rc;
    append_count(c, &cm->body, place);
    core_publish(c, old->slot, room, e->key, e->key_hash, place);
    now.n = place_n(place);
    state_replace(c, &cm->next, before, now);
    return KIST_OK;
}

static int change(struct commit *cm, const struct spool *sp, const struct record *r,
                  struct ahead *ahead)
{
    struct entry e = spool_entry(r);
    bool tombstone = e.kind == RECORD_DELETE, live = false;
    struct key_record before = { 0 };
    struct found old = { 0 };
    bool arrived = ahead_arrive(ahead, cm->w.core, e.key);
    /* The old value is not read: only its lengths count. */
    int rc = core_find_room(cm->w.core, e.key, e.key_hash, VERIFY_OTHERS, arrived, &old,
                            &ahead->room);

    if (rc < 0 && !(rc == KIST_ECORRUPT && core_can_write(cm->w.core, &old, &ahead->room)))
        return rc;
    if (rc < 0) {
        if (old.record)
            before = key_record_of(old.record, old.place);
        live = true;
    } else if (rc == KIST_OK) {
        before = key_record_of(old.record, old.place);
        live = before.counts;
    } else {
        old = (struct found){ 0 };
    }
    if (tombstone && !live)
        return KIST_OK;
    e.mtime_ns = spool_mtime(sp, r);
    rc = append_room(cm->w.core, &cm->next, entry_size(&e),
                     tombstone ? APPEND_DELETE : APPEND_PUT);
    if (rc == KIST_OK && !old.slot)
        rc = core_room(cm->w.core, e.key, e.key_hash, &ahead->room);
    return rc < 0 ? rc : append_change(cm, &e, &old, before, &ahead->room);
}

/* Room in the heap for all of it. What is written and given up takes room until it is
 * cleaned, so a full disk should be met before. Deletes alone go on without: they have
 * room that is kept for them. */
static int look_for_room(struct commit *cm, const kist_batch *b)
{
    uint64_t size = 2 * RECORD_MIN; /* the commit record */
    bool puts = false;
    int rc;

    for (uint64_t at = 0; at < b->spool.len; at = spool_behind(&b->spool, at)) {
        const struct record *r = spool_at(&b->spool, at);

        size += is_change(r) ? record_size(r) : 0;
        puts |= record_kind(r) == RECORD_PUT;
    }
    rc = append_ahead(cm->w.core, &cm->next, size, puts ? APPEND_PUT : APPEND_DELETE);
    return puts || rc == KIST_EPOISON ? rc : KIST_OK;
}

/* Where the first change from `at` on is; or the spool's end. */
static uint64_t change_from(const struct spool *sp, uint64_t at)
{
    while (at < sp->len && !is_change(spool_at(sp, at)))
        at = spool_behind(sp, at);
    return at;
}

/* All of them; while one is made, what the next one needs is on its way. */
static int change_all(struct commit *cm, const struct spool *sp)
{
    struct ahead ahead[2];
    unsigned turn = 0;
    int rc = KIST_OK;

    ahead[0].index = NULL;
    for (uint64_t at = change_from(sp, 0), next; at < sp->len && rc == KIST_OK; at = next) {
        const struct record *r;

        next = change_from(sp, spool_behind(sp, at));
        r = spool_at(sp, next);
        if (next < sp->len)
            ahead_begin(&ahead[turn ^ 1], cm->w.core, (kist_bytes){ record_key(r), r->key_len },
                        spool_hash(r));
        rc = change(cm, sp, spool_at(sp, at), &ahead[turn]);
        turn ^= 1;
    }
    return rc;
}

static int commit_locked(struct commit *cm, const kist_batch *b)
{
    int rc = look_for_room(cm, b);

    if (rc == KIST_OK)
        rc = change_all(cm, &b->spool);
    if (rc < 0 || cm->body.count == 0)
        return rc;
    rc = append_own(&cm->w, &cm->next, RECORD_COMMIT, &cm->body, sizeof cm->body, &cm->place);
    if (rc < 0)
        return rc;
    core_step(cm->w.core, &cm->next);
    if (!cm->durable)
        append_prepare(cm->w.core, &cm->next);
    return KIST_OK;
}

static int look_at_expected(struct writer *w, void *batch)
{
    return look_at_all(w, batch);
}

int batch_commit_with(kist_batch *b, int (*more)(struct writer *w, void *arg), void *arg)
{
    struct commit cm = { .durable = b->handle->durability == KIST_DURABILITY_ALWAYS };
    int rc = write_begin(&cm.w, b->handle, 0);

    if (rc < 0)
        return rc;
    rc = more(&cm.w, arg);
    if (rc != KIST_OK) {
        write_end(&cm.w);
        return rc;
    }
    cm.next = cm.w.state;
    rc = commit_locked(&cm, b);
    if (rc < 0) {
        write_undo(&cm.w);
        return rc;
    }
    write_end(&cm.w);
    empty(b);
    return cm.durable && cm.place != 0 ? sync_to(b->handle, cm.place + 1) : KIST_OK;
}

/* ---- calls ------------------------------------------------------------- */

int kist_batch_open(kist_batch **out, kist_bank *h)
{
    struct core *c;
    kist_batch *b;
    int rc = check_handle(h);

    *out = NULL;
    if (rc == KIST_OK && h->readonly)
        rc = bank_err(h->bank, KIST_EREADONLY, NULL, ERR_NOWHERE,
                      "bank '%s' was opened read-only", h->bank->name);
    if (rc == KIST_OK)
        rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = core_enter(h, &c);
    kist_read_end();
    if (rc < 0)
        return rc;
    b = os_alloc(sizeof *b);
    if (!b)
        return KIST_ENOMEM;
    b->handle = h;
    spool_open(&b->spool, h->bank);
    *out = b;
    return KIST_OK;
}

int kist_batch_put(kist_batch *b, kist_bytes key, kist_bytes value)
{
    int rc = begin(b);

    return rc < 0 ? rc : end(b, add(b, RECORD_PUT, key, value));
}

int kist_batch_delete(kist_batch *b, kist_bytes key)
{
    int rc = begin(b);

    return rc < 0 ? rc : end(b, batch_delete(b, key));
}

int kist_batch_expect(kist_batch *b, kist_bytes key, uint64_t sequence)
{
    uint64_t at;
    int rc = begin(b);

    if (rc < 0)
        return rc;
    rc = spool_add(&b->spool, SPOOLED_EXPECT, key, (kist_bytes){ 0 }, &at);
    if (rc == KIST_OK) {
        spool_at(&b->spool, at)->sequence = sequence;
        spool_at(&b->spool, at)->previous = b->expects;
        b->expects = at + 1;
    }
    return end(b, rc);
}

int kist_batch_get_view(kist_batch *b, kist_bytes key, kist_view **out)
{
    const struct record *r;
    int rc = begin(b);

    *out = NULL;
    if (rc < 0)
        return rc;
    r = find_change(b, key);
    if (!r)
        rc = kist_get_view(b->handle, key, out);
    else if (record_kind(r) == RECORD_DELETE)
        rc = KIST_MISS;
    else
        rc = view_copy((kist_bytes){ record_value(r), r->value_len }, out);
    return end(b, rc);
}

uint64_t kist_batch_count(const kist_batch *b)
{
    return atomic_load_explicit(&b->count, memory_order_relaxed);
}

int kist_batch_commit(kist_batch *b)
{
    int rc = begin(b);

    return rc < 0 ? rc : end(b, batch_commit_with(b, look_at_expected, b));
}

int kist_batch_reset(kist_batch *b)
{
    int rc = begin(b);

    if (rc < 0)
        return rc;
    empty(b);
    return end(b, KIST_OK);
}

void kist_batch_close(kist_batch *b)
{
    if (!b)
        return;
    spool_close(&b->spool);
    os_free(b->table);
    os_free(b);
}
