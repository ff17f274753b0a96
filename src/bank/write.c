/*
 * write.c - put, delete, and their conditions. Each is one record, one
 * publish, one step:
 *
 *     look the key up -> room in the heap -> room in the index
 *       -> record -> slot (publish, I1) -> step
 *
 * What can fail comes before the record. Killed behind it, the record is
 * found by repair() and published again, which changes nothing. In
 * tests/model/handover.pml these are W2, W3 and S1, S2; in publish.pml P1, P2.
 */
#include "bank/ahead.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

enum { SUMS_ON_STACK = 64, PREFETCH_MOST = 512, CACHE_LINE = 64 };

/* What a write asks of the key's present record. */
enum condition { ALWAYS, IF_ABSENT, IF_SEQUENCE };

struct change {
    struct entry entry;
    enum condition condition;
    uint64_t sequence;    /* for IF_SEQUENCE */
    kist_view **existing; /* for IF_ABSENT, or NULL */
    struct ahead *ahead;
    bool arrived; /* what it found holds under the lock */
};

/* ---- what the index asks back ----------------------------------------- */

static const struct record *owner_record(void *arg, uint64_t loc)
{
    return core_record(arg, loc, NULL, NULL);
}

static void owner_reuse(void *arg)
{
    struct core *c = arg;

    (void)shm_add(&c->live->change, 1); /* pairs with core_find() (I4) */
}

/* ⚑ In a tree records of other keys decide where one goes: they have to be whole. */
static void comparing_reuse(void *arg)
{
    owner_reuse(((struct comparing *)arg)->core);
}

static void owner_intent(void *arg, uint64_t old_entry, uint64_t prefix, uint64_t lo, uint64_t hi)
{
    struct live *l = ((struct core *)arg)->live;

    shm_store(&l->intent_old, old_entry);
    shm_store(&l->intent_prefix, prefix);
    shm_store(&l->intent_lo, lo);
    shm_store(&l->intent_hi, hi);
    shm_publish(&l->intent, 1); /* pairs with repair() */
}

static void owner_intent_done(void *arg)
{
    shm_publish(&((struct core *)arg)->live->intent, 0);
}

struct index_owner core_owner(struct core *c)
{
    return (struct index_owner){
        .bank = &c->bank->set.record,
        .record = owner_record,
        .reuse = owner_reuse,
        .intent = owner_intent,
        .intent_done = owner_intent_done,
        .arg = c,
    };
}

int core_room(struct core *c, kist_bytes key, uint64_t hash, struct index_room *room)
{
    struct comparing m = { .core = c, .key = key, .verify = VERIFY_OTHERS };
    struct index_owner o = core_owner(c);
    int rc;

    if (core_index(c)->kind == KIST_INDEX_ORDERED) {
        o.record = record_to_compare;
        o.reuse = comparing_reuse;
        o.arg = &m;
    }
    for (int i = 0; i < 2; i++) {
        rc = index_make_room(core_index(c), &o, key, hash, room);
        if (rc != -ENOMEM || i == 1)
            break;
        rc = core_follow_index(c, true); /* the map could not grow in place */
        if (rc < 0)
            break;
    }
    if (rc < 0)
        return bank_err(c->bank, err_system(rc), "kist.index", ERR_NOWHERE,
                        "bank '%s': no room in the index: %s", c->bank->name,
                        kist_strerror(err_system(rc)));
    return rc == KIST_OK ? KIST_OK : bank_index_damaged(c->bank);
}

void core_publish(struct core *c, shm_word *slot, struct index_room *room, kist_bytes key,
                  uint64_t hash, uint64_t place)
{
    if (slot)
        index_update(core_index(c), slot, hash, place);
    else
        index_insert(core_index(c), room, key, hash, place);
}

int core_remove(struct core *c, kist_bytes key, shm_word *slot)
{
    struct index_owner o = core_owner(c);
    int rc = index_remove(core_index(c), &o, key, slot);

    return rc == KIST_OK ? KIST_OK : bank_index_damaged(c->bank);
}

/* ---- one change ------------------------------------------------------- */

/* Does the key's present record allow the change? KIST_OK, an outcome, or an
 * error; `live` is the record of its value, or NULL. */
static int condition_check(struct writer *w, const struct change *ch, const struct found *live)
{
    kist_bytes value;
    int rc;

    if (ch->condition == IF_ABSENT && live) {
        if (!ch->existing)
            return KIST_EXISTS;
        rc = core_value(w->core, live, w->handle->verify, &value);
        if (rc == KIST_OK)
            rc = view_make(live->segment, value, ch->existing);
        return rc < 0 ? rc : KIST_EXISTS;
    }
    if (ch->condition == IF_SEQUENCE && !live)
        return ch->sequence == 0 ? KIST_OK : KIST_MISS;
    if (ch->condition == IF_SEQUENCE)
        return live->record->sequence == ch->sequence ? KIST_OK : KIST_CHANGED;
    return ch->entry.kind == RECORD_DELETE && !live ? KIST_MISS : KIST_OK;
}

static bool is_durable(const struct writer *w)
{
    return w->handle->durability == KIST_DURABILITY_ALWAYS;
}

/* What is known of the record now that it is its turn. */
static void number(struct entry *e, uint64_t previous, struct state *next)
{
    e->sequence = ++next->visible;
    e->mtime_ns = os_clock(OS_CLOCK_REAL_COARSE);
    e->previous = previous;
}

/* A slot leads to it now: account for that, and end the operation. */
static void account(struct writer *w, const struct entry *e, struct key_record before,
                    struct state *next, uint64_t place)
{
    struct key_record now = {
        .counts = e->kind == RECORD_PUT,
        .tombstone = e->kind == RECORD_DELETE,
        .size = entry_size(e),
        .payload = e->key.len + e->value.len,
        .n = place_n(place),
    };

    state_replace(w->core, next, before, now);
    core_step(w->core, next);
    w->state = *next;
    if (!is_durable(w))
        append_prepare(w->core, &w->state);
}

static int publish(struct writer *w, struct change *ch, const struct found *old,
                   struct key_record before, uint64_t *place)
{
    struct entry *e = &ch->entry;
    struct state next = w->state;
    bool tombstone = e->kind == RECORD_DELETE;
    uint64_t origin;
    int rc = old->slot ? KIST_OK : core_room(w->core, e->key, e->key_hash, &ch->ahead->room);

    if (rc == KIST_OK)
        rc = append_room(w->core, &next, entry_size(e), tombstone ? APPEND_DELETE : APPEND_PUT);
    if (rc < 0)
        return rc;
    if (tombstone) { /* I10: it stays until every segment up to here is gone */
        origin = place_n(next.tail);
        e->value = (kist_bytes){ &origin, sizeof origin };
        e->value_hash = record_hash_value(&origin, sizeof origin, NULL);
    }
    number(e, old->place, &next);
    rc = append(w->core, &next, e, is_durable(w), place);
    if (rc < 0)
        return rc;
    core_publish(w->core, old->slot, &ch->ahead->room, e->key, e->key_hash, *place);
    account(w, e, before, &next, *place);
    return KIST_OK;
}

/* Ask for the lines that will be needed, so that one wait follows the other as
 * seldom as may be: where the key is, or would be, while the value is hashed and the locks
 * are taken; ... */
static void look_ahead(kist_bank *h, struct ahead *a, kist_bytes key, uint64_t hash)
{
    uint64_t change;
    struct core *c = core_ready(h, &change);

    a->index = NULL;
    if (c)
        ahead_begin(a, c, key, hash);
}

/* ... where the record will be, while the key is looked up. */
static void prefetch_tail(const struct core *c, const struct state *s, uint64_t size)
{
    uint64_t at = place_offset(s->tail);

    size = size < PREFETCH_MOST ? size : PREFETCH_MOST;
    if (place_n(s->tail) == c->active.n && at + size <= c->active.len)
        for (uint64_t i = 0; i < size; i += CACHE_LINE)
            __builtin_prefetch(c->active.base + at + i, 1);
}

/* The slot that likely is the key's, if it exists: the first of its home bucket that
 * matches; or in a tree, the only one that has the key's head. */
static shm_word *likely_slot(struct core *c, const struct change *ch)
{
    struct index_file *ix = core_index(c);
    struct hash_block b;
    unsigned m;

    if (ix->kind == KIST_INDEX_ORDERED)
        return ch->arrived ? ordered_likely(index_ordered(ix), &ch->ahead->room.ordered) : NULL;
    if (!hash_block_of(index_hash(ix), ch->entry.key_hash, &b))
        return NULL;
    m = hash_bucket_match(b.home, ch->entry.key_hash);
    return m ? &b.home->slot[hash_way(m)] : NULL;
}

/*
 * What nearly every overwrite is: the likely slot leads to the key's record.
 * That record is asked for at once, but looked at last: it comes from far away,
 * and meanwhile the new one's header is made. NOT_LIKELY: it is another key's,
 * and nothing was done.
 */
enum { NOT_LIKELY = 100 };

static int overwrite_likely(struct writer *w, struct change *ch, uint64_t *place)
{
    struct core *c = w->core;
    struct state next = w->state;
    shm_word *slot = likely_slot(c, ch);
    const struct record *old;
    struct record head;
    struct segment *s;
    uint64_t at;
    int rc;

    /* ⚑ A new segment begun here would be forgotten when it is another key's. */
    if (!slot || !append_fits(c, &next, entry_size(&ch->entry), APPEND_PUT))
        return NOT_LIKELY;
    at = loc_place(slot_loc(shm_peek(slot)), shm_peek(&c->live->newest));
    s = core_segment(c, place_n(at));
    if (!s)
        return NOT_LIKELY;
    old = (const void *)(s->base + place_offset(at));
    __builtin_prefetch(old); /* wherever that is: no more than a hint */
    __builtin_prefetch(old->body + RECORD_ALIGN);

    number(&ch->entry, at, &next);
    append_head(c, &next, &ch->entry, &head);
    old = segment_record(s, place_offset(at));
    if (!old || !record_key_is(old, ch->entry.key))
        return NOT_LIKELY;
    rc = append_under(c, &next, &head, &ch->entry, is_durable(w), place);
    if (rc < 0)
        return rc;
    index_update(core_index(c), slot, ch->entry.key_hash, *place);
    account(w, &ch->entry, key_record_of(old, at), &next, *place);
    return KIST_OK;
}

static int change_locked(struct writer *w, struct change *ch, uint64_t *place)
{
    struct found old = { 0 };
    struct key_record before = { 0 };
    /* The old value is not read: only its lengths count. */
    uint32_t verify = ch->condition == ALWAYS ? VERIFY_OTHERS : w->handle->verify;
    bool live = false;
    int rc;

    prefetch_tail(w->core, &w->state, entry_size(&ch->entry));
    ch->arrived = ahead_arrive(ch->ahead, w->core, ch->entry.key);
    if (ch->condition == ALWAYS && ch->entry.kind == RECORD_PUT) {
        rc = overwrite_likely(w, ch, place);
        if (rc != NOT_LIKELY)
            return rc;
    }
    rc = core_find_room(w->core, ch->entry.key, ch->entry.key_hash, verify, ch->arrived, &old,
                        &ch->ahead->room);
    if (rc == KIST_ECORRUPT && ch->condition == ALWAYS &&
        core_can_write(w->core, &old, &ch->ahead->room)) {
        if (old.record)
            before = key_record_of(old.record, old.place);
        live = true;
    } else if (rc < 0) {
        return rc;
    } else if (rc == KIST_OK) {
        before = key_record_of(old.record, old.place);
        live = before.counts;
    } else {
        old = (struct found){ 0 };
    }
    rc = condition_check(w, ch, live ? &old : NULL);
    return rc == KIST_OK ? publish(w, ch, &old, before, place) : rc;
}

static int change(kist_bank *h, struct change *ch)
{
    struct writer w;
    uint64_t place = 0;
    int rc = write_begin(&w, h, 0);

    if (rc < 0)
        return rc;
    rc = change_locked(&w, ch, &place);
    write_end(&w);
    if (rc == KIST_OK && h->durability == KIST_DURABILITY_ALWAYS)
        rc = sync_to(h, place + 1);
    return rc;
}

/* ---- calls ------------------------------------------------------------ */

/* Hash the value outside of the lock, then change. */
static int put(kist_bank *h, kist_bytes key, kist_bytes value, struct change *ch)
{
    uint64_t few[SUMS_ON_STACK], *sums = few, key_hash;
    struct ahead ahead;
    int rc;

    if (key.len > KIST_KEY_MAX)
        return bank_err(h->bank, KIST_EKEYLEN, NULL, ERR_NOWHERE,
                        "a key of %zu bytes; 65,535 is the most", key.len);
    if (value.len > KIST_VALUE_MAX)
        return bank_err(h->bank, KIST_EVALUELEN, NULL, ERR_NOWHERE,
                        "a value of %zu bytes; 4,294,967,294 is the most", value.len);
    if (value.len > CHUNKED_ABOVE && chunk_count((uint32_t)value.len) > SUMS_ON_STACK) {
        sums = os_alloc(chunk_count((uint32_t)value.len) * sizeof *sums);
        if (!sums)
            return KIST_ENOMEM;
    }
    ch->ahead = &ahead;
    rc = kist_read_begin(); /* around all, see ahead.h */
    if (rc < 0)
        goto out;
    key_hash = record_hash_key(&h->bank->set.record, key.data, key.len);
    look_ahead(h, &ahead, key, key_hash);
    ch->entry = (struct entry){
        .kind = RECORD_PUT,
        .key = key,
        .value = value,
        .key_hash = key_hash,
        .value_hash = record_hash_value(value.data, value.len, sums),
        .sums = sums,
    };
    rc = change(h, ch);
    kist_read_end();
out:
    if (sums != few)
        os_free(sums);
    return rc;
}

int kist_put(kist_bank *h, kist_bytes key, kist_bytes value)
{
    struct change ch = { .condition = ALWAYS };

    return put(h, key, value, &ch);
}

int kist_get_or_insert(kist_bank *h, kist_bytes key, kist_bytes value, kist_view **existing)
{
    struct change ch = { .condition = IF_ABSENT, .existing = existing };

    if (existing)
        *existing = NULL;
    return put(h, key, value, &ch);
}

int kist_put_if_sequence(kist_bank *h, kist_bytes key, kist_bytes value, uint64_t sequence)
{
    struct change ch = { .condition = IF_SEQUENCE, .sequence = sequence };

    return put(h, key, value, &ch);
}

int kist_delete(kist_bank *h, kist_bytes key)
{
    struct ahead none;
    struct change ch = { .condition = ALWAYS, .ahead = &none };
    uint64_t origin = 0;

    if (key.len > KIST_KEY_MAX)
        return bank_err(h->bank, KIST_EKEYLEN, NULL, ERR_NOWHERE,
                        "a key of %zu bytes; 65,535 is the most", key.len);
    none.index = NULL;
    ch.entry = (struct entry){
        .kind = RECORD_DELETE,
        .key = key,
        .value = { &origin, sizeof origin }, /* filled in when its place is known */
        .key_hash = record_hash_key(&h->bank->set.record, key.data, key.len),
    };
    return change(h, &ch);
}
