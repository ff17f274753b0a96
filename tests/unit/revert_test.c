/*
 * A bank set back to what a snapshot of it sees: by as much as was written since,
 * whatever was written, cleaned, cleared or rebuilt meanwhile.
 */
#include "support.h"

#include <pthread.h>
#include <unistd.h>

enum { KEYS = 400 };

static uint64_t sequence_of(kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };

    must_ok(kist_stat(bank, &stats));
    return stats.sequence;
}

static kist_store *memory_store(void)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_MEMORY };
    kist_store *store;

    must_ok(kist_store_open(&store, NULL, &opt));
    return store;
}

static kist_bank *bank_of(kist_store *store, const char *name, uint32_t index)
{
    kist_bank_options opt = {
        .size = sizeof opt, .flags = KIST_BANK_CREATE, .index = index, .segment_bytes = 1 << 20
    };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, name, &opt));
    return bank;
}

/* ---- a model ---------------------------------------------------------- */

struct model {
    uint64_t version[KEYS]; /* 0: none */
    int64_t mtime[KEYS];
    uint64_t entries;
};

static void put(kist_bank *bank, struct model *m, uint64_t key, uint64_t version)
{
    unsigned char buf[VALUE_CAP];
    kist_meta meta;

    must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) }));
    must_ok(kist_get_meta(bank, number(key), &meta));
    m->entries += m->version[key] == 0;
    m->version[key] = version;
    m->mtime[key] = meta.mtime_ns;
}

static void drop(kist_bank *bank, struct model *m, uint64_t key)
{
    must_rc(kist_delete(bank, number(key)), m->version[key] ? KIST_OK : KIST_MISS);
    m->entries -= m->version[key] != 0;
    m->version[key] = 0;
}

static void must_equal(kist_bank *bank, const struct model *m)
{
    unsigned char buf[VALUE_CAP];
    kist_meta meta;
    uint64_t version;
    size_t len;

    must(count_of(bank) == m->entries);
    for (uint64_t key = 0; key < KEYS; key++) {
        int rc = kist_get_copy(bank, number(key), buf, sizeof buf, &len);

        must_rc(rc, m->version[key] ? KIST_OK : KIST_MISS);
        if (rc != KIST_OK)
            continue;
        must(value_check((kist_bytes){ buf, len }, key, &version) && version == m->version[key]);
        must_ok(kist_get_meta(bank, number(key), &meta));
        must(meta.mtime_ns == m->mtime[key]);
    }
}

static const uint32_t kinds[] = { KIST_INDEX_HASH, KIST_INDEX_ORDERED };

/* ---- how much --------------------------------------------------------- */

TEST(ten_changes_are_taken_back_by_ten_records)
{
    enum { MANY = 100000 };

    for (int kind = 0; kind < 2; kind++) {
        kist_store *store = memory_store();
        kist_bank *bank = bank_of(store, "bank", kinds[kind]), *snap;
        uint64_t before, value;
        size_t len;

        for (uint64_t i = 0; i < MANY; i++)
            must_ok(kist_put(bank, number(i), number(i)));
        must_ok(kist_snapshot_open(&snap, bank));
        for (uint64_t i = 0; i < 4; i++)
            must_ok(kist_put(bank, number(i * 1000), number(1)));
        for (uint64_t i = 0; i < 3; i++)
            must_ok(kist_delete(bank, number(i * 777 + 1)));
        for (uint64_t i = 0; i < 3; i++)
            must_ok(kist_put(bank, number(MANY + i), number(i)));
        for (uint64_t i = 0; i < 1000; i++) /* of one key: that is one change more */
            must_ok(kist_put(bank, number(5), number(i)));
        must_ok(kist_put(bank, number(MANY + 9), number(1)));
        must_ok(kist_delete(bank, number(MANY + 9))); /* and none */
        before = sequence_of(bank);
        must_ok(kist_snapshot_revert(bank, snap));
        must(sequence_of(bank) - before == 11);
        must(count_of(bank) == MANY);
        for (uint64_t i = 0; i < MANY; i++) {
            must_ok(kist_get_copy(bank, number(i), &value, sizeof value, &len));
            must(value == i);
        }
        must_ok(kist_snapshot_revert(bank, snap)); /* nothing to do */
        must(sequence_of(bank) - before == 11);
        must_verify(bank);
        must_ok(kist_bank_close(snap));
        must_close(bank, store);
    }
}

/* ---- whatever happens meanwhile --------------------------------------- */

static int next_of(kist_bytes *key, kist_bytes *value, void *arg)
{
    uint64_t *left = arg;

    if ((*left)-- == 0)
        return KIST_END;
    *key = *value = number(*left + 17);
    return 0;
}

struct life {
    struct rng rng;
    kist_store *store;
    kist_bank *bank;
    struct model now;
    uint64_t version;
};

static void batch_some(struct life *l)
{
    kist_batch *batch;
    uint64_t keys[10], n = rng_below(&l->rng, 10);
    unsigned char buf[VALUE_CAP];
    kist_meta meta;

    must_ok(kist_batch_open(&batch, l->bank));
    l->version++;
    for (uint64_t i = 0; i < n; i++) {
        keys[i] = rng_below(&l->rng, KEYS);
        must_ok(kist_batch_put(batch, number(keys[i]),
                               (kist_bytes){ buf, value_make(buf, keys[i], l->version) }));
    }
    must_ok(kist_batch_commit(batch));
    kist_batch_close(batch);
    for (uint64_t i = 0; i < n; i++) {
        must_ok(kist_get_meta(l->bank, number(keys[i]), &meta));
        l->now.entries += l->now.version[keys[i]] == 0;
        l->now.version[keys[i]] = l->version;
        l->now.mtime[keys[i]] = meta.mtime_ns;
    }
}

static void change_some(struct life *l, uint64_t changes)
{
    for (uint64_t i = 0; i < changes; i++) {
        uint64_t key = rng_below(&l->rng, KEYS), what = rng_below(&l->rng, 50);

        if (what == 0)
            batch_some(l);
        else if (what < 16)
            drop(l->bank, &l->now, key);
        else
            put(l->bank, &l->now, key, ++l->version);
    }
}

static void something_larger(struct life *l)
{
    uint64_t few = 20, what = rng_below(&l->rng, 12);

    if (what == 0)
        must_ok(kist_clear(l->bank));
    else if (what == 1)
        must_ok(kist_replace(l->bank, next_of, &few));
    else if (what == 2)
        must_ok(kist_repair(l->store, "bank", NULL, NULL, NULL));
    else if (what < 7)
        must_ok(kist_compact(l->bank, NULL, NULL));
    else if (what == 7)
        must_ok(kist_sync(l->bank));
}

TEST(a_bank_is_set_back_whatever_was_written_and_cleaned_since)
{
    for (int kind = 0; kind < 2; kind++) {
        struct life l = { .rng.state = mix(test_seed(), (uint64_t)kind), .store = memory_store() };

        l.bank = bank_of(l.store, "bank", kinds[kind]);
        for (uint64_t round = 0; round < test_scaled(150); round++) {
            struct model then[2];
            kist_bank *snap[2];

            test_case = round;
            for (int i = 0; i < 2; i++) {
                change_some(&l, rng_below(&l.rng, 300));
                must_ok(kist_snapshot_open(&snap[i], l.bank));
                then[i] = l.now;
            }
            change_some(&l, rng_below(&l.rng, 300));
            something_larger(&l);
            for (uint64_t i = 0; i < 4; i++) {
                int to = (int)rng_below(&l.rng, 2);

                must_ok(kist_snapshot_revert(l.bank, snap[to]));
                must_equal(l.bank, &then[to]);
                must_equal(snap[0], &then[0]);
                must_equal(snap[1], &then[1]);
                l.now = then[to];
                change_some(&l, rng_below(&l.rng, 50));
                if (rng_below(&l.rng, 3) == 0)
                    must_ok(kist_compact(l.bank, NULL, NULL));
            }
            must_verify(l.bank);
            must_ok(kist_bank_close(snap[0]));
            must_ok(kist_bank_close(snap[1]));
        }
        must_close(l.bank, l.store);
    }
}

TEST(of_another_bank_all_is_copied)
{
    kist_store *store = memory_store();

    for (int kind = 0; kind < 2; kind++) {
        kist_bank *a = bank_of(store, "a", kinds[kind]), *b = bank_of(store, "b", kinds[!kind]);
        struct model m = { 0 };
        kist_bank *snap;

        for (uint64_t key = 0; key < KEYS; key++)
            put(a, &m, key, key + 1);
        put_text(b, "what was there", "goes");
        must_ok(kist_snapshot_open(&snap, a));
        must_ok(kist_clear(a));
        must_ok(kist_snapshot_revert(b, snap));
        must_equal(b, &m);
        must_hold(b, "what was there", NULL);
        must_ok(kist_snapshot_revert(a, snap));
        must_equal(a, &m);
        must_ok(kist_bank_close(snap));
        must_ok(kist_bank_close(b));
        must_ok(kist_bank_close(a));
        must_ok(kist_bank_drop(store, "a"));
        must_ok(kist_bank_drop(store, "b"));
    }
    must_ok(kist_store_close(store));
}

TEST(only_a_snapshot_is_reverted_to_and_only_what_may_be_written)
{
    kist_bank_options readonly = { .size = sizeof readonly, .flags = KIST_BANK_READONLY };
    kist_store *store = memory_store();
    kist_bank *bank = bank_of(store, "bank", 0), *reader, *snap;

    put_text(bank, "k", "v");
    must_ok(kist_bank_open(&reader, store, "bank", &readonly));
    must_ok(kist_snapshot_open(&snap, bank));
    put_text(bank, "k", "w");
    must_rc(kist_snapshot_revert(bank, bank), KIST_EINVAL);
    must_rc(kist_snapshot_revert(reader, snap), KIST_EREADONLY);
    must_rc(kist_snapshot_revert(snap, snap), KIST_EREADONLY);
    must_hold(bank, "k", "w");
    must_ok(kist_snapshot_revert(bank, snap));
    must_hold(bank, "k", "v");
    must_ok(kist_bank_close(reader));
    must_ok(kist_bank_close(snap));
    must_close(bank, store);
}

/* ---- others ----------------------------------------------------------- */

struct others {
    kist_bank *bank;
    _Atomic int over;
    _Atomic uint64_t writes;
};

/* Each batch writes its number into key 0 and into one of the others: so key 0 has
 * the highest that is anywhere, and 0 when all was set back. */
static void *write_in_batches(void *arg)
{
    struct others *o = arg;
    kist_batch *batch;

    must_ok(kist_batch_open(&batch, o->bank));
    for (uint64_t i = 1; !o->over; i++) {
        must_ok(kist_batch_put(batch, number(0), number(i)));
        must_ok(kist_batch_put(batch, number(1 + i % 29), number(i)));
        must_ok(kist_batch_commit(batch));
        o->writes++;
        (void)usleep(100); /* or the one that reverts hardly gets the lock */
    }
    kist_batch_close(batch);
    return NULL;
}

static void must_be_of_one_moment(kist_bank *bank)
{
    kist_bank *snap;
    uint64_t first = 0, highest = 0, value;
    size_t len;

    must_ok(kist_snapshot_open(&snap, bank));
    for (uint64_t k = 0; k < 30; k++) {
        must_ok(kist_get_copy(snap, number(k), &value, sizeof value, &len));
        first = k == 0 ? value : first;
        highest = value > highest ? value : highest;
    }
    must(first == highest);
    must_ok(kist_bank_close(snap));
}

TEST(a_writer_meanwhile_comes_before_or_behind)
{
    for (int kind = 0; kind < 2; kind++) {
        kist_store *store = memory_store();
        struct others o = { .bank = bank_of(store, "bank", kinds[kind]) };
        kist_bank *snap;
        pthread_t thread;

        for (uint64_t k = 0; k < 30; k++)
            must_ok(kist_put(o.bank, number(k), number(0)));
        must_ok(kist_snapshot_open(&snap, o.bank));
        must(pthread_create(&thread, NULL, write_in_batches, &o) == 0);
        for (uint64_t i = 0; i < test_scaled(100); i++) {
            uint64_t seen = o.writes;

            while (o.writes == seen)
                (void)usleep(10);
            must_ok(kist_snapshot_revert(o.bank, snap));
            must_be_of_one_moment(o.bank);
        }
        o.over = 1;
        must(pthread_join(thread, NULL) == 0);
        must_ok(kist_bank_close(snap));
        must_verify(o.bank);
        must_close(o.bank, store);
    }
}
