/*
 * read.c - gets: no lock, no copy, no store to shared memory, and no system
 * call once the segments are mapped.
 *
 * A search reads the counter of changes first and again before its answer counts
 * (I4). What it meets is checked before it is used (I5); a record that does
 * not verify is an error, never a miss.
 *
 * tests/model/ has the steps that comments name: (model: R1) in reuse.pml, G3 in publish.pml.
 */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum { GROUP = 16 }; /* keys of a batched get that are under way at once */

struct kist_view {
    struct segment *segment; /* NULL: the value stands behind */
    kist_bytes value;
};

/* ---- verifying -------------------------------------------------------- */

int core_damaged(const struct core *c, const struct segment *s, uint64_t offset)
{
    char name[SEGMENT_NAME_MAX];

    segment_name(name, s->n);
    bank_log(c->bank, KIST_LOG_DAMAGE, name, offset, "a record is damaged");
    return bank_err(c->bank, KIST_ECORRUPT, name, offset,
                    "bank '%s': the record at %s, byte %llu, is damaged; store the key again or "
                    "restore the file",
                    c->bank->name, name, (unsigned long long)offset);
}

static __attribute__((noinline)) bool verify_now(struct core *c, struct segment *s,
                                                 const struct record *r, uint64_t offset)
{
    if (!record_is_whole(r, s->len - offset, &c->bank->set.record, place_make(s->n, offset)))
        return false;
    segment_mark_seen(s, offset);
    return true;
}

bool core_verified(struct core *c, struct segment *s, const struct record *r, uint64_t offset,
                   uint32_t verify)
{
    if (verify == KIST_VERIFY_NEVER || (verify != KIST_VERIFY_ALWAYS && segment_seen(s, offset)))
        return true;
    return verify_now(c, s, r, offset);
}

/* The bit that tells that chunk `i` was verified: one inside the value that
 * belongs to no other chunk, and to no record that begins behind the value. */
static uint64_t chunk_bit(const struct record *r, uint64_t offset, uint64_t i)
{
    return offset + record_value_at(r) + i * CHUNK_BYTES - (i > 0 ? 1u << SEEN_SHIFT : 0);
}

/* The bit that tells that all chunks were, behind chunk 0's and in no other's. So
 * that a get of 100 MB looks at one bit, as one of 1 MB does. */
static uint64_t chunks_bit(const struct record *r, uint64_t offset)
{
    return offset + record_value_at(r) + (2u << SEEN_SHIFT);
}

static bool chunks_verified(struct segment *s, const struct record *r, uint64_t offset,
                            uint32_t verify)
{
    if (!(r->kind & RECORD_CHUNKED) || verify == KIST_VERIFY_NEVER)
        return true;
    if (verify != KIST_VERIFY_ALWAYS && segment_seen(s, chunks_bit(r, offset)))
        return true;
    for (uint64_t i = 0; i < chunk_count(r->value_len); i++) {
        uint64_t at = chunk_bit(r, offset, i);

        if (verify != KIST_VERIFY_ALWAYS && segment_seen(s, at))
            continue;
        if (!record_chunk_is_whole(r, i))
            return false;
        segment_mark_seen(s, at);
    }
    segment_mark_seen(s, chunks_bit(r, offset));
    return true;
}

int core_value(struct core *c, const struct found *f, uint32_t verify, kist_bytes *value)
{
    if (f->record->kind & RECORD_CHUNKED &&
        !chunks_verified(f->segment, f->record, f->offset, verify))
        return core_damaged(c, f->segment, f->offset);
    *value = (kist_bytes){ record_value(f->record), f->record->value_len };
    return KIST_OK;
}

/* ---- searching -------------------------------------------------------- */

static __attribute__((noinline)) int segment_lost(const struct core *c, uint64_t n)
{
    return bank_err(c->bank, KIST_ECORRUPT, "kist.heap", ERR_NOWHERE,
                    "bank '%s': segment %llu is missing; run 'kist repair'", c->bank->name,
                    (unsigned long long)n);
}

/* The segment that a slot leads to is not there. It may have been cleaned
 * since the slot was read; seen twice, with `newest` read in between, it is
 * damage (I5). 1: search again. */
static __attribute__((noinline)) int segment_missing(struct core *c, uint64_t n,
                                                     uint64_t *missing, struct segment **out)
{
    int rc = core_map_segment(c, n, out);

    if (rc != -ENOENT)
        return rc;
    if (*missing != n) {
        *missing = n;
        return 1;
    }
    return segment_lost(c, n);
}

/* One candidate. KIST_OK: it is the key's record; KIST_MISS: another key's;
 * SEARCH_AGAIN. */

static int
try_slot(struct core *c, kist_bytes key, uint64_t slot, uint32_t verify, uint64_t *missing,
         struct found *out)
{
    /* after the slot: N is made whole with a `newest` at least as new */
    uint64_t place = loc_place(slot_loc(slot), shm_read(&c->live->newest));
    struct segment *s = core_segment(c, place_n(place));
    uint64_t offset = place_offset(place);
    const struct record *r;

    if (__builtin_expect(!s, 0)) {
        int rc = segment_missing(c, place_n(place), missing, &s);

        if (rc != 0)
            return rc == 1 ? SEARCH_AGAIN : rc;
    }
    r = segment_record(s, offset);
    if (__builtin_expect(!r, 0)) {
        *out = (struct found){ .segment = s, .offset = offset, .place = place };
        return KIST_ECORRUPT;
    }
    *out = (struct found){ r, s, offset, place, NULL };
    if (__builtin_expect(!record_key_is(r, key), 0))
        /* ⚑ another key's, or ours damaged: never a silent miss */
        return core_verified(c, s, r, offset, verify) ? KIST_MISS : KIST_ECORRUPT;
    if (verify == VERIFY_OTHERS)
        return KIST_OK;
    return __builtin_expect(core_verified(c, s, r, offset, verify), 1) ? KIST_OK : KIST_ECORRUPT;
}

/* Search a block. Results as try_slot(). */
static int
search_block(struct core *c, const struct hash_block *b, kist_bytes key, uint64_t hash,
             uint32_t verify, uint64_t *missing, struct found *out)
{
    int worst = KIST_MISS;

    for (uint32_t i = 0; i <= b->mask; i++) {
        struct hash_bucket *k = hash_bucket_at(b, i);

        for (unsigned m = hash_bucket_match(k, hash); m; m &= m - 1) {
            shm_word *at = &k->slot[hash_way(m)];
            uint64_t slot = shm_read(at); /* pairs with hash_update() (H3) (model: G3, R3) */
            struct found f = { 0 };
            int rc;

            if (slot_loc(slot) == 0 || !slot_tag_is(slot, hash))
                continue;
            rc = try_slot(c, key, slot, verify, missing, &f);
            if (rc == KIST_MISS)
                continue;
            f.slot = at;
            if (rc != KIST_ECORRUPT) {
                *out = f;
                return rc;
            }
            if (worst == KIST_MISS)
                *out = f; /* the key itself may still come */
            worst = rc;
        }
        if (!hash_bucket_overflows(k))
            break;
    }
    return worst;
}

/* ⚑ A record of another key decides where the search goes on: it has to be
 * whole. The key's own is looked at by search_tree(). */
const struct record *record_to_compare(void *arg, uint64_t loc)
{
    struct comparing *m = arg;
    struct segment *s;
    uint64_t place;
    const struct record *r = core_record(m->core, loc, &s, &place);

    if (!r)
        return NULL;
    if (record_key_is(r, m->key)) {
        m->record = r;
        m->segment = s;
        m->place = place;
        return r;
    }
    return core_verified(m->core, s, r, place_offset(place), m->verify) ? r : NULL;
}

/* Why the tree could not be told a record. */
static int record_lost(struct core *c, uint64_t loc, uint64_t *missing, struct found *out)
{
    uint64_t place = loc_place(loc, shm_read(&c->live->newest));
    struct segment *s = core_segment(c, place_n(place));
    int rc = s ? 0 : segment_missing(c, place_n(place), missing, &s);

    *out = (struct found){ .segment = s, .offset = place_offset(place), .place = place };
    return rc == 0 ? KIST_ECORRUPT : rc == 1 ? SEARCH_AGAIN : rc;
}

/* Search a tree; `at` receives where, or has `arrived` there. Results as try_slot(), or
 * ORDERED_OUTSIDE. */
static int search_tree(struct core *c, struct ordered_index *ix, kist_bytes key, uint32_t verify,
                       bool arrived, uint64_t *missing, struct ordered_spot *at,
                       struct found *out)
{
    struct comparing m = { .core = c, .key = key, .verify = verify };
    struct index_owner o = { .record = record_to_compare, .arg = &m };
    int rc = arrived ? ordered_decide(ix, &o, key, at)
                     : ordered_find(ix, &o, key, ORDERED_AT, at);

    if (rc == ORDERED_LOST)
        return record_lost(c, at->lost, missing, out);
    if (rc != KIST_OK)
        return rc;
    *out = (struct found){ m.record, m.segment, place_offset(m.place), m.place,
                           ordered_slot(ix, at) };
    return verify == VERIFY_OTHERS || core_verified(c, m.segment, m.record, out->offset, verify)
               ? KIST_OK
               : KIST_ECORRUPT;
}

int bank_index_damaged(const struct bank *b)
{
    return bank_err(b, KIST_ECORRUPT, "kist.index", ERR_NOWHERE,
                    "bank '%s': the index is damaged; run 'kist repair'", b->name);
}

/* Once. Results as try_slot(), or ORDERED_OUTSIDE. */
static inline int search(struct core *c, struct index_file *ix, kist_bytes key, uint64_t hash,
                         uint32_t verify, bool arrived, uint64_t *missing, struct index_room *room,
                         struct found *out)
{
    struct hash_block b;

    if (ix->kind == KIST_INDEX_ORDERED)
        return search_tree(c, index_ordered(ix), key, verify, arrived, missing, &room->ordered,
                           out);
    if (__builtin_expect(!hash_block_of(index_hash(ix), hash, &b), 0))
        return ORDERED_OUTSIDE;
    return search_block(c, &b, key, hash, verify, missing, out);
}

__attribute__((noinline)) int core_look_further(struct core *c, struct index_file *fixed,
                                                uint64_t seen, uint64_t change)
{
    int rc;

    if (!fixed) {
        rc = core_refresh_index(c, seen);
    } else {
        os_mutex_lock(&c->mapping);
        rc = index_refresh(fixed, seen);
        os_mutex_unlock(&c->mapping);
    }
    if (rc == 1 || shm_read(c->change) != change)
        return KIST_OK;
    return rc < 0 ? err_os(rc, c->bank->name, "kist.index", "map the index") : bank_index_damaged(c->bank);
}

/* In the bank's index, or one that is `fixed`. */
static int find(struct core *c, struct index_file *fixed, kist_bytes key, uint64_t hash,
                uint32_t verify, bool arrived, struct found *out, struct index_room *room)
{
    uint64_t missing = 0;

    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t change = shm_read(c->change); /* (model: R1) */
        struct index_file *ix = fixed ? fixed : core_index(c);
        uint64_t seen = index_len(ix);
        int rc;

        out->segment = NULL;
        rc = search(c, ix, key, hash, verify, arrived, &missing, room, out);
        arrived = false;
        if (__builtin_expect(rc == ORDERED_OUTSIDE, 0)) {
            rc = core_look_further(c, fixed, seen, change);
            if (rc < 0)
                return rc;
            continue;
        }
        atomic_thread_fence(memory_order_acquire); /* the slots, then the counter (model: R4, R5) */
        if (__builtin_expect(rc < 0 && rc != KIST_ENOMEM, 0) && !fixed &&
            ix->generation != shm_read(&c->live->generation)) {
            rc = core_follow_index(c, false); /* the content was replaced meanwhile */
            if (rc < 0)
                return rc;
            missing = 0;
            continue;
        }
        if (__builtin_expect(rc != SEARCH_AGAIN && shm_peek(c->change) == change, 1)) {
            if (__builtin_expect(rc == KIST_ECORRUPT, 0))
                return out->segment ? core_damaged(c, out->segment, out->offset)
                                    : bank_index_damaged(c->bank);
            return rc;
        }
    }
    return bank_err(c->bank, KIST_ECORRUPT, "kist.index", ERR_NOWHERE,
                    "bank '%s': the index leads nowhere; run 'kist repair'", c->bank->name);
}

int core_find(struct core *c, kist_bytes key, uint64_t hash, uint32_t verify, struct found *out)
{
    struct index_room room;

    return find(c, NULL, key, hash, verify, false, out, &room);
}

int core_find_room(struct core *c, kist_bytes key, uint64_t hash, uint32_t verify,
                   bool arrived, struct found *out, struct index_room *room)
{
    return find(c, NULL, key, hash, verify, arrived, out, room);
}

int core_find_in(struct core *c, struct index_file *ix, kist_bytes key, uint64_t hash,
                 uint32_t verify, struct found *out)
{
    struct index_room room;

    return find(c, ix, key, hash, verify, false, out, &room);
}

/* ---- what a reader sees ------------------------------------------------ */

/* Records of batches above this sequence are hidden. A replace publishes its index
 * right before its step: then nothing in that index is. */
static uint64_t shown_now(struct core *c)
{
    struct state s;

    if (!live_state(c->live, &s) || shm_read(&c->live->cleared) > s.visible)
        return SEQUENCE_NOW;
    atomic_store_explicit(&c->shown, s.visible, memory_order_release); /* core_as_of() */
    return s.visible;
}

/* To the record before this one of its key. Results as core_as_of(). */
static int go_back(struct core *c, struct found *f, bool pinned, uint32_t verify)
{
    kist_bytes key = { record_key(f->record), f->record->key_len };
    uint64_t to = f->record->previous;
    const struct record *r;
    struct segment *s;

    if (to == 0)
        return KIST_MISS;
    if (to >= f->place) /* it was there before: so this ends (I5) */
        return core_damaged(c, f->segment, f->offset);
    s = core_segment(c, place_n(to));
    if (!s) {
        int rc = core_map_segment(c, place_n(to), &s);

        if (rc == -ENOENT && pinned) /* kept for the pin: only damage takes it away */
            return segment_lost(c, place_n(to));
        if (rc == -ENOENT)
            return SEARCH_AGAIN;
        if (rc < 0)
            return rc;
    }
    r = segment_record(s, place_offset(to));
    if (!r || !record_key_is(r, key) || !core_verified(c, s, r, place_offset(to), verify))
        return core_damaged(c, s, place_offset(to));
    *f = (struct found){ r, s, place_offset(to), to, f->slot };
    return KIST_OK;
}

int core_as_of(struct core *c, struct found *f, uint64_t at, bool pinned, uint32_t verify)
{
    int rc = KIST_OK;

    if (at == SEQUENCE_NOW) {
        if (__builtin_expect(!(f->record->kind & RECORD_IN_BATCH), 1) ||
            /* acquire: what shown_now() has seen, this thread has */
            f->record->sequence <= atomic_load_explicit(&c->shown, memory_order_acquire))
            return KIST_OK;
        at = shown_now(c);
    }
    while (rc == KIST_OK && f->record->sequence > at)
        rc = go_back(c, f, pinned, verify);
    return rc;
}

/* ---- calls ------------------------------------------------------------ */

static int key_check(const kist_bank *h, kist_bytes key)
{
    if (__builtin_expect(key.len <= KIST_KEY_MAX, 1))
        return KIST_OK;
    return bank_err(h->bank, KIST_EKEYLEN, NULL, ERR_NOWHERE,
                    "a key of %zu bytes; 65,535 is the most", key.len);
}

int core_enter_to_read(kist_bank *h, struct core **core)
{
    struct core *c;
    int rc = KIST_OK;

    if (__builtin_expect(!h->snapshot, 1))
        return core_enter(h, core);
    c = atomic_load_explicit(&h->bank->core, memory_order_acquire); /* core_install() */
    if (!*h->bank->env->forked || !c ||
        shm_read(c->change) != atomic_load_explicit(&c->stamp, memory_order_relaxed))
        rc = core_enter_slow(h, &c);
    if (rc == KIST_OK)
        rc = snapshot_check(h->snapshot, c);
    if (rc == KIST_OK)
        *core = c;
    return rc;
}

/* A live value's record. In a read section. Damage that is met in a bank that
 * was rebuilt meanwhile, or dropped, is none: look again. */
static int find_live(kist_bank *h, kist_bytes key, struct core **core, struct found *f)
{
    struct index_file *fixed = h->snapshot ? snapshot_index(h->snapshot) : NULL;
    uint64_t hash = h->bank->set.index == KIST_INDEX_HASH
                        ? record_hash_key(&h->bank->set.record, key.data, key.len)
                        : 0;
    struct index_room room;
    uint64_t change;
    int rc = SEARCH_AGAIN;

    for (int i = 0; i < READ_TRIES; i++) {
        rc = core_enter_to_read(h, core);
        if (rc < 0)
            return rc;
        change = shm_read((*core)->change);
        rc = find(*core, fixed, key, hash, h->verify, false, f, &room);
        if (rc == KIST_OK)
            rc = core_as_of(*core, f, h->at, h->snapshot != NULL, h->verify);
        /* ⚑ What is visible was asked behind the slot: a batch that was given up in
         * between would pass for one that counts. Pairs with give_up(). */
        if (rc == KIST_OK && f->record->kind & RECORD_IN_BATCH &&
            shm_peek((*core)->change) != change)
            rc = SEARCH_AGAIN;
        if (rc != SEARCH_AGAIN &&
            (rc >= 0 || shm_read((*core)->retired) == (*core)->retired_before))
            break;
    }
    if (rc == SEARCH_AGAIN)
        return bank_index_damaged(h->bank);
    if (rc == KIST_OK && record_kind(f->record) != RECORD_PUT)
        return KIST_MISS;
    return rc;
}

/*
 * What nearly every get is: the first slot of the home bucket that matches
 * leads to a plain put of this key, in a segment that is mapped, verified
 * before. True: *value is it. False: core_find() has to look; it makes the
 * same checks, and more. Short, so that the processor overlaps several.
 */
static inline __attribute__((always_inline)) bool
get_plain(const struct core *c, const struct hash_block *b, uint64_t change, kist_bytes key,
          uint64_t hash, uint32_t verify, kist_bytes *value)
{
    const struct hash_bucket *k = b->home;
    unsigned m = hash_bucket_match(k, hash);
    uint64_t slot, offset, shape;
    const struct segment *s;
    const struct record *r;

    if (m == 0)
        return false;
    slot = shm_read(&k->slot[hash_way(m)]); /* pairs with hash_update() (H3) (model: G3, R3) */
    s = core_segment_of(c, slot);
    offset = place_offset(slot);
    if (!s || offset + RECORD_MIN > s->len)
        return false;
    r = (const void *)(s->base + offset);
    shape = record_shape(r) - record_plain(key.len);
    if (__builtin_expect(shape > CHUNKED_ABOVE, 0)) { /* or of a batch, known to be visible */
        shape -= (uint64_t)RECORD_IN_BATCH << 48;
        if (shape > CHUNKED_ABOVE ||
            r->sequence > atomic_load_explicit(&c->shown, memory_order_acquire)) /* core_as_of() */
            return false;
    }
    if (offset + RECORD_HEADER + key.len + shape > s->len ||
        !bytes_equal(r->body, key.data, key.len))
        return false;
    if (verify == KIST_VERIFY_FIRST ? !segment_seen(s, offset) : verify != KIST_VERIFY_NEVER)
        return false;
    *value = (kist_bytes){ r->body + key.len, shape };
    atomic_thread_fence(memory_order_acquire); /* the slot, then the counter (I4) (model: R4, R5) */
    return shm_peek(c->change) == change;
}

static __attribute__((noinline)) int get_slowly(kist_bank *h, kist_bytes key, kist_bytes *value)
{
    struct core *c;
    struct found f;
    int rc = key_check(h, key);

    if (rc == KIST_OK && !thread_in_section())
        rc = bank_err(h->bank, KIST_ESECTION, NULL, ERR_NOWHERE,
                      "kist_get needs kist_read_begin() first");
    if (rc == KIST_OK)
        rc = find_live(h, key, &c, &f);
    if (rc == KIST_OK)
        rc = core_value(c, &f, h->verify, value);
    return rc;
}

/* The home bucket of a hash; nothing in it matches, and none goes on: no such
 * key, if the counter did not move. */
static inline __attribute__((always_inline)) bool
misses_plainly(const struct core *c, const struct hash_block *b, uint64_t change, uint64_t hash)
{
    const struct hash_bucket *k = b->home;

    if (hash_bucket_match(k, hash) != 0 || hash_bucket_overflows(k))
        return false;
    atomic_thread_fence(memory_order_acquire);
    return shm_peek(c->change) == change;
}

static inline __attribute__((always_inline)) int
get_ready(kist_bank *h, kist_bytes key, kist_bytes *value)
{
    const struct core *c;
    struct hash_block b;
    kist_bytes found;
    uint64_t hash = record_hash_key(&h->bank->set.record, key.data, key.len), change;

    if (__builtin_expect(!thread_in_section(), 0))
        return get_slowly(h, key, value);
    c = core_ready(h, &change);
    if (__builtin_expect(!c, 0))
        return get_slowly(h, key, value);
    if (__builtin_expect(
            !hash_block_ready(index_hash(core_index(c)), hash, &b), 0))
        return get_slowly(h, key, value);
    if (__builtin_expect(get_plain(c, &b, change, key, hash, h->verify, &found), 1)) {
        *value = found;
        return KIST_OK;
    }
    if (misses_plainly(c, &b, change, hash))
        return KIST_MISS;
    return get_slowly(h, key, value);
}

static __attribute__((noinline)) int get_any(kist_bank *h, kist_bytes key, kist_bytes *value)
{
    return key.len > KIST_KEY_MAX ? get_slowly(h, key, value)
                                  : get_ready(h, key, value);
}

/* In a tree hash_block_ready() says no: no root's word is the one that counts as
 * checked. Known lengths make hash and comparison a few instructions, and the whole a
 * function that calls nothing: so more of the next gets fit into the processor's
 * window, and their cache misses overlap. */
int kist_get(kist_bank *h, kist_bytes key, kist_bytes *value)
{
    switch (key.len) {
    case 8:
        return get_ready(h, (kist_bytes){ key.data, 8 }, value);
    case 16:
        return get_ready(h, (kist_bytes){ key.data, 16 }, value);
    default:
        return get_any(h, key, value);
    }
}

/* ---- many at once ----------------------------------------------------- */

struct lookup {
    uint64_t hash;
    struct hash_block block;
    bool known;
};

/* The record that the first matching slot of the home bucket leads to. */
static void prefetch_record(const struct core *c, const struct lookup *l)
{
    const struct hash_bucket *k = l->block.home;
    unsigned m = hash_bucket_match(k, l->hash);
    uint64_t slot;
    const struct segment *s;

    if (m == 0)
        return;
    slot = shm_read(&k->slot[hash_way(m)]);
    s = core_segment_of(c, slot);
    if (!s || place_offset(slot) >= s->len)
        return;
    __builtin_prefetch(s->base + place_offset(slot));
    __builtin_prefetch((const void *)&s->seen[(place_offset(slot) >> SEEN_SHIFT) / 64]);
}

static void get_group(kist_bank *h, struct core *c, const kist_bytes *keys, size_t n,
                      kist_bytes *values, int *rc)
{
    uint64_t change = shm_read(c->change);
    struct index_file *ix = core_index(c);
    bool plain = ix->kind == KIST_INDEX_HASH && !h->snapshot;
    struct lookup l[GROUP];

    for (size_t i = 0; i < n; i++) {
        l[i].known = plain && keys[i].len <= KIST_KEY_MAX;
        if (!l[i].known)
            continue;
        l[i].hash = record_hash_key(&h->bank->set.record, keys[i].data, keys[i].len);
        l[i].known = hash_block_of(index_hash(ix), l[i].hash, &l[i].block);
        if (l[i].known)
            __builtin_prefetch(l[i].block.home);
    }
    for (size_t i = 0; i < n; i++)
        if (l[i].known)
            prefetch_record(c, &l[i]);
    for (size_t i = 0; i < n; i++) {
        values[i] = (kist_bytes){ NULL, 0 };
        rc[i] = KIST_OK;
        if (!l[i].known ||
            !get_plain(c, &l[i].block, change, keys[i], l[i].hash, h->verify, &values[i]))
            rc[i] = get_slowly(h, keys[i], &values[i]);
        if (rc[i] != KIST_OK)
            values[i] = (kist_bytes){ NULL, 0 };
    }
}

int kist_get_many(kist_bank *h, const kist_bytes *keys, size_t n, kist_bytes *values, int *rc)
{
    struct core *c;
    int found = 0, err;

    if (n > INT_MAX)
        return bank_err(h->bank, KIST_EINVAL, NULL, ERR_NOWHERE, "more than INT_MAX keys");
    if (!thread_in_section())
        return bank_err(h->bank, KIST_ESECTION, NULL, ERR_NOWHERE,
                        "kist_get_many needs kist_read_begin() first");
    err = core_enter_to_read(h, &c);
    if (err < 0)
        return err;
    for (size_t at = 0; at < n; at += GROUP)
        get_group(h, c, keys + at, n - at < GROUP ? n - at : GROUP, values + at, rc + at);
    for (size_t i = 0; i < n; i++)
        found += rc[i] == KIST_OK;
    return found;
}

/* ---- held, copied, described ------------------------------------------ */

int view_make(struct segment *s, kist_bytes value, kist_view **out)
{
    kist_view *v = os_alloc(sizeof *v);

    if (!v)
        return KIST_ENOMEM;
    segment_hold(s);
    *v = (kist_view){ .segment = s, .value = value };
    *out = v;
    return KIST_OK;
}

int view_copy(kist_bytes value, kist_view **out)
{
    kist_view *v = os_alloc(sizeof *v + value.len);

    if (!v)
        return KIST_ENOMEM;
    v->value = (kist_bytes){ v + 1, value.len };
    if (value.len > 0)
        memcpy(v + 1, value.data, value.len);
    *out = v;
    return KIST_OK;
}

int kist_get_view(kist_bank *h, kist_bytes key, kist_view **out)
{
    struct core *c;
    struct found f;
    kist_bytes value;
    int rc = key_check(h, key);

    *out = NULL;
    if (rc < 0)
        return rc;
    rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = find_live(h, key, &c, &f);
    if (rc == KIST_OK)
        rc = core_value(c, &f, h->verify, &value);
    if (rc == KIST_OK)
        rc = view_make(f.segment, value, out);
    kist_read_end();
    return rc;
}

kist_bytes kist_view_bytes(const kist_view *view)
{
    return view->value;
}

void kist_view_release(kist_view *view)
{
    if (!view)
        return;
    segment_release(view->segment);
    os_free(view);
}

int kist_get_copy(kist_bank *h, kist_bytes key, void *buf, size_t cap, size_t *len)
{
    struct core *c;
    struct found f;
    kist_bytes value;
    int rc = key_check(h, key);

    if (rc < 0)
        return rc;
    rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = find_live(h, key, &c, &f);
    if (rc == KIST_OK && f.record->value_len > cap) {
        *len = f.record->value_len;
        rc = bank_err(h->bank, KIST_ESPACE, NULL, ERR_NOWHERE,
                      "the value has %u bytes, the buffer %zu", f.record->value_len, cap);
    }
    if (rc == KIST_OK)
        rc = core_value(c, &f, h->verify, &value);
    if (rc == KIST_OK) {
        if (value.len > 0)
            memcpy(buf, value.data, value.len);
        *len = value.len;
    }
    kist_read_end();
    return rc;
}

int kist_get_meta(kist_bank *h, kist_bytes key, kist_meta *meta)
{
    struct core *c;
    struct found f;
    int rc = key_check(h, key);

    if (rc < 0)
        return rc;
    rc = kist_read_begin();
    if (rc < 0)
        return rc;
    rc = find_live(h, key, &c, &f);
    if (rc == KIST_OK)
        *meta = (kist_meta){
            .value_bytes = f.record->value_len,
            .sequence = f.record->sequence,
            .mtime_ns = f.record->mtime_ns,
            .expiry_ns = record_expiry(f.record),
        };
    kist_read_end();
    return rc;
}
