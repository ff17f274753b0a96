/* witness - see witness.h. */
#include "witness.h"

#include <inttypes.h>
#include <stdio.h>

struct witness *witness_make(void)
{
    return shared_memory(sizeof(struct witness));
}

static void raise_to(_Atomic uint64_t *word, uint64_t version)
{
    uint64_t now = *word;

    while (now < version && !atomic_compare_exchange_weak(word, &now, version))
        ;
}

uint64_t witness_next(struct witness *w, uint64_t key, bool is_delete)
{
    uint64_t version = w->key[key].next;

    version += version == 0;
    while (witness_is_delete(version) != is_delete)
        version++;
    return version;
}

void witness_begin(struct witness *w, uint64_t key, uint64_t version)
{
    raise_to(&w->key[key].next, version + 1);
    raise_to(&w->key[key].begun, version);
}

void witness_ack(struct witness *w, uint64_t key, uint64_t version)
{
    raise_to(&w->key[key].acked, version);
    w->writes++;
}

/* ---- reads ------------------------------------------------------------ */

static bool holds_delete(uint64_t low, uint64_t high)
{
    for (uint64_t v = low; v <= high && v <= low + 8; v++)
        if (witness_is_delete(v))
            return true;
    return false;
}

static void complain(const char *why, uint64_t key, uint64_t got, uint64_t low, uint64_t high)
{
    (void)fprintf(stderr,
                  "key %" PRIu64 ": version %" PRIu64 ", acknowledged %" PRIu64 ", begun %" PRIu64
                  "\n",
                  key, got, low, high);
    test_fail(__FILE__, __LINE__, "a read", why);
}

/* What was read between a look at `acked` and one at `begun`. */
static void check_hit(kist_bytes value, uint64_t key, uint64_t low, uint64_t high, uint64_t *seen)
{
    uint64_t version = 0;

    if (!value_check(value, key, &version))
        complain("gave wrong bytes", key, version, low, high);
    if (version < low || version < *seen)
        complain("gave an old version", key, version, low > *seen ? low : *seen, high);
    if (version > high || witness_is_delete(version))
        complain("gave a version that nobody wrote", key, version, low, high);
    *seen = version;
}

static void check_miss(uint64_t key, uint64_t low, uint64_t high, uint64_t seen)
{
    if (!holds_delete(low > seen ? low : seen, high))
        complain("found nothing", key, 0, low > seen ? low : seen, high);
}

static int read_borrowed(kist_bank *bank, uint64_t key, unsigned char *buf, size_t *len)
{
    kist_bytes value;
    int rc;

    must_ok(kist_read_begin());
    rc = kist_get(bank, number(key), &value);
    if (rc == KIST_OK) {
        must(value.len <= VALUE_CAP);
        memcpy(buf, value.data, *len = value.len);
    }
    kist_read_end();
    return rc;
}

static int read_view(kist_bank *bank, uint64_t key, unsigned char *buf, size_t *len)
{
    kist_view *view;
    int rc = kist_get_view(bank, number(key), &view);

    if (rc == KIST_OK) {
        kist_bytes value = kist_view_bytes(view);
        must(value.len <= VALUE_CAP);
        memcpy(buf, value.data, *len = value.len);
    }
    kist_view_release(view);
    return rc;
}

static int read_many(kist_bank *bank, uint64_t key, unsigned char *buf, size_t *len)
{
    kist_bytes keys[3] = { number(key + 1), number(key), number(key + 2) }, values[3];
    int rc[3], got;

    must_ok(kist_read_begin());
    got = kist_get_many(bank, keys, 3, values, rc);
    if (got < 0)
        rc[1] = got;
    else if (rc[1] == KIST_OK) {
        must(values[1].len <= VALUE_CAP);
        memcpy(buf, values[1].data, *len = values[1].len);
    }
    kist_read_end();
    return rc[1];
}

void witness_read(struct witness *w, kist_bank *bank, uint64_t key, uint64_t *seen, struct rng *rng)
{
    unsigned char buf[VALUE_CAP];
    uint64_t low = w->key[key].acked, high, way = rng_below(rng, 8);
    size_t len = 0;
    int rc;

    if (way == 0)
        rc = read_view(bank, key, buf, &len);
    else if (way == 1)
        rc = kist_get_copy(bank, number(key), buf, sizeof buf, &len);
    else if (way == 2)
        rc = read_many(bank, key, buf, &len);
    else
        rc = read_borrowed(bank, key, buf, &len);
    high = w->key[key].begun;
    if (rc == KIST_OK) {
        check_hit((kist_bytes){ buf, len }, key, low, high, seen);
    } else {
        must_rc(rc, KIST_MISS);
        check_miss(key, low, high, *seen);
    }
    w->reads++;
}

void witness_walk(struct witness *w, kist_bank *bank)
{
    uint64_t low[WITNESS_KEYS], version[WITNESS_KEYS] = { 0 }, key;
    kist_iter *iter;
    kist_entry entry;
    int rc;

    for (uint64_t k = 0; k < WITNESS_KEYS; k++)
        low[k] = w->key[k].acked;
    must_ok(kist_iter_open(&iter, bank));
    while ((rc = kist_iter_next(iter, &entry)) == KIST_OK) {
        must(entry.key.len == sizeof key);
        memcpy(&key, entry.key.data, sizeof key);
        must(key < WITNESS_KEYS && version[key] == 0);
        check_hit(entry.value, key, low[key], w->key[key].begun, &version[key]);
    }
    must_rc(rc, KIST_END);
    kist_iter_close(iter);
}

/* ---- after a death ---------------------------------------------------- */

static uint64_t settled_version(const struct witness_key *k, kist_bank *bank, uint64_t key)
{
    kist_view *view;
    uint64_t version = 0;
    int rc = kist_get_view(bank, number(key), &view);

    if (rc == KIST_MISS) {
        if (!witness_is_delete(k->acked) && !witness_is_delete(k->begun))
            complain("found nothing after a death", key, 0, k->acked, k->begun);
        return witness_is_delete(k->acked) ? k->acked : k->begun;
    }
    must_ok(rc);
    if (!value_check(kist_view_bytes(view), key, &version))
        complain("gave wrong bytes after a death", key, version, k->acked, k->begun);
    if (version != k->acked && version != k->begun)
        complain("gave another version after a death", key, version, k->acked, k->begun);
    kist_view_release(view);
    return version;
}

uint64_t witness_settle(struct witness *w, kist_bank *bank)
{
    uint64_t cut = 0, made = 0, lost = 0;

    for (uint64_t key = 0; key < WITNESS_KEYS; key++) {
        struct witness_key *k = &w->key[key];
        uint64_t version = settled_version(k, bank, key);

        if (k->begun != k->acked) {
            cut++;
            /* Of a delete of nothing one cannot see whether it was made. */
            if (!(witness_is_delete(k->acked) && witness_is_delete(k->begun))) {
                made += version == k->begun;
                lost += version != k->begun;
            }
        }
        k->acked = version;
        k->begun = version;
    }
    if (made > 0 && lost > 0)
        complain("found an operation made by halves", 0, made, lost, 0);
    return cut;
}
