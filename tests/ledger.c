/* ledger.c - see ledger.h. */
#include "ledger.h"

#include <stdio.h>

enum {
    FIRST_AMOUNT = 1000,
    STRIDE = 7, /* from clock key to clock key */
    BACK = 291, /* STRIDE * BACK % CLOCK == 1 */
    VALUE_MOST = 300,
};

struct name {
    char text[8];
};

static kist_bytes account_key(struct name *n, uint64_t i)
{
    return (kist_bytes){ n->text, (size_t)snprintf(n->text, sizeof *n, "a%04u", (unsigned)i) };
}

static kist_bytes clock_key(struct name *n, uint64_t i)
{
    return (kist_bytes){ n->text, (size_t)snprintf(n->text, sizeof *n, "c%04u", (unsigned)i) };
}

/* ---- the clock -------------------------------------------------------- */

static bool is_delete(uint64_t t)
{
    return mix(t, 1) % 6 == 0;
}

/* The last change of a clock key up to t; 0: it was not there then. */
static uint64_t clock_at(uint64_t key, uint64_t t)
{
    uint64_t behind = (t + CLOCK - key * BACK % CLOCK) % CLOCK;
    uint64_t last = t > behind ? t - behind : 0;

    return last != 0 && is_delete(last) ? 0 : last;
}

static kist_bytes clock_value(unsigned char *buf, uint64_t t)
{
    size_t len = VALUE_MIN + mix(t, 2) % (VALUE_MOST - VALUE_MIN);

    value_fill(buf, len, t, t);
    return (kist_bytes){ buf, len };
}

static int clock_write(struct ledger *l, kist_bank *bank)
{
    unsigned char buf[VALUE_MOST];
    uint64_t t = l->t + 1, key = t * STRIDE % CLOCK;
    struct name name;
    int rc;

    if (is_delete(t)) {
        rc = kist_delete(bank, clock_key(&name, key));
        must(rc < 0 || rc == (clock_at(key, l->t) ? KIST_OK : KIST_MISS));
        rc = rc == KIST_MISS ? KIST_OK : rc;
    } else {
        rc = kist_put(bank, clock_key(&name, key), clock_value(buf, t));
    }
    l->t += rc == KIST_OK;
    return rc;
}

/* ---- the accounts ----------------------------------------------------- */

static int put_amount(kist_batch *batch, uint64_t account, uint64_t amount)
{
    struct name name;

    return kist_batch_put(batch, account_key(&name, account), number(amount));
}

static int move(struct ledger *l, kist_bank *bank, struct rng *rng)
{
    uint64_t n = 1 + rng_below(rng, 4);
    struct ledger next = *l;
    kist_batch *batch;
    int rc = kist_batch_open(&batch, bank);

    for (uint64_t i = 0; i < n && rc == KIST_OK; i++) {
        uint64_t from = rng_below(rng, ACCOUNTS), to = rng_below(rng, ACCOUNTS);
        uint64_t amount = rng_below(rng, next.amount[from] + 1);

        next.amount[from] -= amount;
        next.amount[to] += amount;
        rc = put_amount(batch, from, next.amount[from]);
        if (rc == KIST_OK)
            rc = put_amount(batch, to, next.amount[to]);
    }
    if (rc == KIST_OK)
        rc = kist_batch_commit(batch);
    kist_batch_close(batch);
    if (rc == KIST_OK)
        *l = next;
    return rc;
}

void ledger_begin(struct ledger *l, kist_bank *bank)
{
    kist_batch *batch;

    *l = (struct ledger){ 0 };
    if (count_of(bank) > 0) {
        kist_stats stats = { .size = sizeof stats };

        must_ok(kist_stat(bank, &stats));
        ledger_read(l, bank, stats.index == KIST_INDEX_ORDERED);
        return;
    }
    must_ok(kist_batch_open(&batch, bank));
    for (uint64_t i = 0; i < ACCOUNTS; i++)
        must_ok(put_amount(batch, i, l->amount[i] = FIRST_AMOUNT));
    must_ok(kist_batch_commit(batch));
    kist_batch_close(batch);
}

int ledger_write(struct ledger *l, kist_bank *bank, struct rng *rng)
{
    return rng_below(rng, 4) == 0 ? move(l, bank, rng) : clock_write(l, bank);
}

struct feed {
    const struct ledger *l;
    uint64_t next;
    uint64_t amount;
    struct name name;
    unsigned char buf[VALUE_MOST];
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct feed *f = arg;

    while (f->next >= ACCOUNTS && f->next < ACCOUNTS + CLOCK &&
           clock_at(f->next - ACCOUNTS, f->l->t) == 0)
        f->next++;
    if (f->next == ACCOUNTS + CLOCK)
        return KIST_END;
    if (f->next < ACCOUNTS) {
        f->amount = f->l->amount[f->next];
        *key = account_key(&f->name, f->next);
        *value = (kist_bytes){ &f->amount, sizeof f->amount };
    } else {
        *key = clock_key(&f->name, f->next - ACCOUNTS);
        *value = clock_value(f->buf, clock_at(f->next - ACCOUNTS, f->l->t));
    }
    f->next++;
    return 0;
}

int ledger_replace(const struct ledger *l, kist_bank *bank)
{
    struct feed feed = { .l = l };

    return kist_replace(bank, feed_next, &feed);
}

/* ---- reading ---------------------------------------------------------- */

struct reading {
    uint64_t amount[ACCOUNTS], clock[CLOCK];
    bool has_amount[ACCOUNTS];
    uint64_t accounts, entries, newest;
};

static uint64_t number_of(const kist_entry *e)
{
    char digits[8] = { 0 };

    must(e->key.len == 5);
    memcpy(digits, (const char *)e->key.data + 1, 4);
    return strtoull(digits, NULL, 10);
}

static void read_entry(struct reading *r, const kist_entry *e)
{
    uint64_t i = number_of(e), t;

    r->entries++;
    if (*(const char *)e->key.data == 'a') {
        must(i < ACCOUNTS && !r->has_amount[i] && e->value.len == sizeof t);
        memcpy(&r->amount[i], e->value.data, sizeof t);
        r->has_amount[i] = true;
        r->accounts++;
        return;
    }
    must(i < CLOCK && r->clock[i] == 0 && e->value.len >= VALUE_MIN);
    memcpy(&t, e->value.data, sizeof t);
    must(value_check(e->value, t, &r->clock[i]) && r->clock[i] == t);
    must(t * STRIDE % CLOCK == i);
    if (t > r->newest)
        r->newest = t;
}

static bool is_clock_of(const struct reading *r, uint64_t t)
{
    for (uint64_t i = 0; i < CLOCK; i++)
        if (r->clock[i] != clock_at(i, t))
            return false;
    return true;
}

static void add_up(const struct reading *r)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < ACCOUNTS; i++)
        sum += r->amount[i];
    must(r->accounts == ACCOUNTS && sum == ACCOUNTS * FIRST_AMOUNT);
}

static void read_all(struct reading *r, kist_bank *bank, const kist_cursor_options *opt,
                     bool is_ordered)
{
    unsigned char last[8] = { 0 };
    kist_cursor *cursor;
    kist_entry e;
    int rc;

    *r = (struct reading){ 0 };
    must_ok(kist_cursor_open(&cursor, bank, opt));
    while ((rc = kist_cursor_next(cursor, &e)) == KIST_OK) {
        read_entry(r, &e);
        must(!is_ordered || memcmp(last, e.key.data, e.key.len) < 0);
        memcpy(last, e.key.data, e.key.len);
    }
    must_rc(rc, KIST_END);
    kist_cursor_close(cursor);
}

void ledger_read(struct ledger *l, kist_bank *bank, bool is_ordered)
{
    struct reading r;

    read_all(&r, bank, NULL, is_ordered);
    add_up(&r);
    memcpy(l->amount, r.amount, sizeof r.amount);
    l->t = r.newest;
    while (!is_clock_of(&r, l->t)) { /* what came behind can only have been deletes */
        must(is_delete(l->t + 1));
        l->t++;
    }
}

void ledger_add_up(kist_bank *bank)
{
    kist_cursor_options opt = { .size = sizeof opt, .prefix = text("a") };
    struct reading r;

    read_all(&r, bank, &opt, true);
    must(r.entries == ACCOUNTS);
    add_up(&r);
}

void ledger_must_be(const struct ledger *l, kist_bank *snapshot)
{
    unsigned char buf[VALUE_MOST];
    uint64_t entries = ACCOUNTS;
    struct name name;
    kist_bytes value, want;

    must_ok(kist_read_begin());
    for (uint64_t i = 0; i < ACCOUNTS; i++) {
        must_ok(kist_get(snapshot, account_key(&name, i), &value));
        must(value.len == 8 && memcmp(value.data, &l->amount[i], 8) == 0);
    }
    for (uint64_t i = 0; i < CLOCK; i++) {
        uint64_t t = clock_at(i, l->t);

        must_rc(kist_get(snapshot, clock_key(&name, i), &value), t ? KIST_OK : KIST_MISS);
        if (t == 0)
            continue;
        want = clock_value(buf, t);
        must(value.len == want.len && memcmp(value.data, want.data, want.len) == 0);
        entries++;
    }
    kist_read_end();
    must(count_of(snapshot) == entries);
}
