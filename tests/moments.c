/* moments.c - see moments.h. */
#include "moments.h"

#include <stdio.h>

/* ---- keys ------------------------------------------------------------- */

int bytes_order(kist_bytes a, kist_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int c = len > 0 ? memcmp(a.data, b.data, len) : 0;

    return c != 0 ? c : a.len < b.len ? -1 : a.len > b.len;
}

static int order(const void *a, const void *b)
{
    return bytes_order(*(const kist_bytes *)a, *(const kist_bytes *)b);
}

static size_t make_key(struct rng *rng, const struct keys *made, unsigned char *out)
{
    static const unsigned char few[] = { 0, 1, 0x7f, 0x80, 0xff };
    uint64_t shape = rng_below(rng, 100);
    size_t len = rng_below(rng, 20);

    if (shape < 15) { /* of few bytes */
        for (size_t i = 0; i < len; i++)
            out[i] = few[rng_below(rng, sizeof few)];
        return len;
    }
    if (shape < 20) {
        memset(out, 0xff, len);
        return len;
    }
    if (shape < 35 && made->n > 0) { /* one that is there, longer */
        kist_bytes old = made->key[rng_below(rng, made->n)];

        if (old.len < 400) {
            memcpy(out, old.data, old.len);
            for (len = 0; len < 1 + rng_below(rng, 4); len++)
                out[old.len + len] = few[rng_below(rng, sizeof few)];
            return old.len + len;
        }
    }
    if (shape < 50) { /* a long common prefix */
        memset(out, 'p', 300);
        for (size_t i = 300; i < 304; i++)
            out[i] = (unsigned char)rng_next(rng);
        return 304;
    }
    if (shape < 80)
        return (size_t)snprintf((char *)out, 64, "user:%010u", (unsigned)rng_below(rng, 100000));
    for (size_t i = 0; i < 16; i++)
        out[i] = (unsigned char)rng_next(rng);
    return 16;
}

static void add(struct keys *keys, const unsigned char *bytes, size_t len)
{
    void *copy = malloc(len + 1);

    must(copy != NULL);
    memcpy(copy, bytes, len);
    keys->key[keys->n++] = (kist_bytes){ copy, len };
}

struct keys keys_make(struct rng *rng, size_t n, unsigned longest)
{
    struct keys keys = { calloc(n + 1 + longest, sizeof *keys.key), 0 };
    unsigned char *out = malloc(KIST_KEY_MAX);
    size_t to = 0;

    must(keys.key != NULL && out != NULL);
    add(&keys, out, 0);
    while (keys.n < n)
        add(&keys, out, make_key(rng, &keys, out));
    for (unsigned i = 0; i < longest; i++) {
        memset(out, 'q', KIST_KEY_MAX);
        if (i % 2 == 1)
            out[KIST_KEY_MAX - 1 - rng_below(rng, 20)] = (unsigned char)rng_next(rng);
        add(&keys, out, KIST_KEY_MAX - i / 2);
    }
    free(out);
    qsort(keys.key, keys.n, sizeof *keys.key, order);
    for (size_t i = 0; i < keys.n; i++) {
        if (to > 0 && bytes_order(keys.key[to - 1], keys.key[i]) == 0)
            free((void *)(uintptr_t)keys.key[i].data);
        else
            keys.key[to++] = keys.key[i];
    }
    keys.n = to;
    return keys;
}

void keys_free(struct keys *keys)
{
    for (size_t i = 0; i < keys->n; i++)
        free((void *)(uintptr_t)keys->key[i].data);
    free(keys->key);
    *keys = (struct keys){ 0 };
}

size_t keys_from(const struct keys *keys, kist_bytes key)
{
    size_t low = 0, high = keys->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (bytes_order(keys->key[mid], key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* ---- values ----------------------------------------------------------- */

static size_t value_bytes(size_t key, uint64_t version)
{
    uint64_t h = mix(key + 17, version);

    if (h % 31 == 0)
        return 0;
    if (h % 251 == 1)
        return (h >> 10) % MOMENT_VALUE_CAP;
    return (h >> 10) % 150;
}

kist_bytes moment_value(size_t key, uint64_t version)
{
    static _Thread_local unsigned char bytes[MOMENT_VALUE_CAP];
    size_t len = value_bytes(key, version);

    value_fill(bytes, len < VALUE_MIN ? VALUE_MIN : len, key, version);
    return (kist_bytes){ bytes, len };
}

bool moment_value_is(kist_bytes value, size_t key, uint64_t version)
{
    kist_bytes want = moment_value(key, version);

    return version != 0 && value.len == want.len &&
           (want.len == 0 || memcmp(value.data, want.data, want.len) == 0);
}

/* ---- the model -------------------------------------------------------- */

struct moment *moment_make(const struct keys *keys)
{
    struct moment *m = calloc(1, sizeof *m);

    must(m != NULL);
    m->keys = keys;
    m->version = calloc(keys->n, sizeof *m->version);
    m->meta = calloc(keys->n, sizeof *m->meta);
    must(m->version != NULL && m->meta != NULL);
    return m;
}

struct moment *moment_copy(const struct moment *m)
{
    struct moment *copy = moment_make(m->keys);

    memcpy(copy->version, m->version, m->keys->n * sizeof *m->version);
    memcpy(copy->meta, m->meta, m->keys->n * sizeof *m->meta);
    copy->newest = m->newest;
    copy->entries = m->entries;
    copy->payload = m->payload;
    return copy;
}

void moment_free(struct moment *m)
{
    if (!m)
        return;
    free(m->version);
    free(m->meta);
    free(m);
}

void moment_set(struct moment *m, size_t key, uint64_t version)
{
    if (m->version[key]) {
        m->entries--;
        m->payload -= m->keys->key[key].len + value_bytes(key, m->version[key]);
    }
    m->version[key] = version;
    m->meta[key] = (kist_meta){ 0 };
    if (version) {
        m->entries++;
        m->payload += m->keys->key[key].len + value_bytes(key, version);
    }
}

/* ---- changes ---------------------------------------------------------- */

void moment_change(struct moment *m, kist_bank *bank, struct rng *rng)
{
    size_t key = rng_below(rng, m->keys->n);

    if (rng_below(rng, 4) == 0) {
        must_rc(kist_delete(bank, m->keys->key[key]), m->version[key] ? KIST_OK : KIST_MISS);
        moment_set(m, key, 0);
    } else {
        must_ok(kist_put(bank, m->keys->key[key], moment_value(key, ++m->newest)));
        moment_set(m, key, m->newest);
    }
}

void moment_change_many(struct moment *m, kist_bank *bank, struct rng *rng, uint64_t n)
{
    for (; n > 0; n--)
        moment_change(m, bank, rng);
}

void moment_clear(struct moment *m, kist_bank *bank)
{
    must_ok(kist_clear(bank));
    for (size_t i = 0; i < m->keys->n; i++)
        moment_set(m, i, 0);
}

struct feed {
    struct moment *m;
    size_t key;
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *feed = arg;
    struct moment *m = feed->m;

    while (feed->key < m->keys->n && mix(feed->key, m->newest) % 3 == 0)
        moment_set(m, feed->key++, 0);
    if (feed->key == m->keys->n)
        return KIST_END;
    *key = m->keys->key[feed->key];
    *value = moment_value(feed->key, m->newest);
    moment_set(m, feed->key++, m->newest);
    return 0;
}

void moment_replace(struct moment *m, kist_bank *bank)
{
    struct feed feed = { m, 0 };

    m->newest++;
    must_ok(kist_replace(bank, feed_next, &feed));
}

void moment_note_meta(struct moment *m, kist_bank *bank)
{
    for (size_t i = 0; i < m->keys->n; i++)
        must_rc(kist_get_meta(bank, m->keys->key[i], &m->meta[i]),
                m->version[i] ? KIST_OK : KIST_MISS);
}

/* ---- looking ---------------------------------------------------------- */

static void must_be_meta(const struct moment *m, size_t key, const kist_meta *meta)
{
    must(meta->value_bytes == value_bytes(key, m->version[key]));
    if (m->meta[key].sequence != 0)
        must(memcmp(meta, &m->meta[key], sizeof *meta) == 0);
}

void moment_must_be_entry(const struct moment *m, size_t key, const kist_entry *entry)
{
    must(key < m->keys->n && bytes_order(entry->key, m->keys->key[key]) == 0);
    must(moment_value_is(entry->value, key, m->version[key]));
    must_be_meta(m, key, &entry->meta);
}

static void must_be_got(const struct moment *m, kist_bank *bank)
{
    enum { MANY = 37 };
    const kist_bytes *key = m->keys->key;
    kist_bytes value, values[MANY];
    kist_meta meta;
    int rc[MANY];

    for (size_t i = 0; i < m->keys->n; i++) {
        int want = m->version[i] ? KIST_OK : KIST_MISS;
        kist_view *view;

        must_ok(kist_read_begin());
        must_rc(kist_get(bank, key[i], &value), want);
        must(want != KIST_OK || moment_value_is(value, i, m->version[i]));
        kist_read_end();
        must_rc(kist_get_meta(bank, key[i], &meta), want);
        if (want == KIST_OK)
            must_be_meta(m, i, &meta);
        if (i % 7 != 0)
            continue;
        must_rc(kist_get_view(bank, key[i], &view), want);
        must(want != KIST_OK || moment_value_is(kist_view_bytes(view), i, m->version[i]));
        kist_view_release(view);
    }
    for (size_t at = 0; at < m->keys->n; at += MANY) {
        size_t n = m->keys->n - at < MANY ? m->keys->n - at : MANY;
        int found = 0;

        must_ok(kist_read_begin());
        for (size_t i = 0; i < n; i++)
            found += m->version[at + i] != 0;
        must(kist_get_many(bank, key + at, n, values, rc) == found);
        for (size_t i = 0; i < n; i++) {
            must_rc(rc[i], m->version[at + i] ? KIST_OK : KIST_MISS);
            must(rc[i] != KIST_OK || moment_value_is(values[i], at + i, m->version[at + i]));
        }
        kist_read_end();
    }
}

/* Entries in any order: each once. */
struct tally {
    const struct moment *m;
    unsigned char *met;
    uint64_t n;
};

static void tally_add(struct tally *t, const kist_entry *entry)
{
    size_t key = keys_from(t->m->keys, entry->key);

    moment_must_be_entry(t->m, key, entry);
    must(!t->met[key]);
    t->met[key] = 1;
    t->n++;
}

static void tally_end(struct tally *t)
{
    must(t->n == t->m->entries);
    free(t->met);
}

static struct tally tally_begin(const struct moment *m)
{
    return (struct tally){ m, calloc(m->keys->n, 1), 0 };
}

static void must_be_walked(const struct moment *m, kist_bank *bank)
{
    struct tally t = tally_begin(m);
    kist_iter *iter;
    kist_entry entry;
    int rc;

    must_ok(kist_iter_open(&iter, bank));
    while ((rc = kist_iter_next(iter, &entry)) == KIST_OK)
        tally_add(&t, &entry);
    must_rc(rc, KIST_END);
    kist_iter_close(iter);
    tally_end(&t);
}

static void must_be_met(const struct moment *m, kist_bank *bank, bool is_ordered, bool reverse)
{
    kist_cursor_options opt = { .size = sizeof opt, .flags = reverse ? KIST_CURSOR_REVERSE : 0 };
    struct tally t = tally_begin(m);
    kist_cursor *cursor;
    kist_entry entry;
    size_t last = 0, key;
    int rc;

    must_ok(kist_cursor_open(&cursor, bank, &opt));
    while ((rc = kist_cursor_next(cursor, &entry)) == KIST_OK) {
        key = keys_from(m->keys, entry.key);
        must(!is_ordered || t.n == 0 || (reverse ? key < last : key > last));
        last = key;
        tally_add(&t, &entry);
    }
    must_rc(rc, KIST_END);
    kist_cursor_close(cursor);
    tally_end(&t);
}

void moment_must_be_seen(const struct moment *m, kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };
    bool is_ordered;

    must(count_of(bank) == m->entries);
    must_ok(kist_stat(bank, &stats));
    must(stats.entries == m->entries && stats.payload_bytes == m->payload);
    is_ordered = stats.index == KIST_INDEX_ORDERED;
    must_be_got(m, bank);
    must_be_walked(m, bank);
    must_be_met(m, bank, is_ordered, false);
    if (is_ordered)
        must_be_met(m, bank, true, true);
}
