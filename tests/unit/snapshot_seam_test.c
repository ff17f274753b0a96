/*
 * Snapshots and cursors that another process overtakes, exactly where it hurts: system
 * calls are the places where one of the two waits for the other.
 */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bank/core.h"

static const uint32_t kinds[] = { KIST_INDEX_HASH, KIST_INDEX_ORDERED };

enum { KEYS = 200, NEW = 10, MORE = 20000 };

/* Two processes of one bank, and their words to each other. */
struct pair {
    struct fixture f;
    uint32_t index;
    int to_child[2], to_parent[2];
    pid_t child;
    void (*overtake)(kist_bank *bank); /* what the child does when it is told to */
};

static struct pair *the_pair;
static unsigned fired;

static void tell(int fd)
{
    must(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
    char byte;

    must(read(fd, &byte, 1) == 1);
}

/* ---- content: all keys have one version ------------------------------- */

static void put_all(kist_bank *bank, uint64_t version)
{
    char key[16], value[40];

    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "key %04u", i);
        (void)snprintf(value, sizeof value, "version %llu", (unsigned long long)version);
        put_text(bank, key, value);
    }
}

static void compact(kist_bank *bank)
{
    for (int i = 0; i < 3; i++) /* tombstones go with the oldest segment */
        must_ok(kist_compact(bank, NULL, NULL));
}

static void must_show(kist_bank *bank, const char *value)
{
    char key[16];

    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "key %04u", i);
        must_hold(bank, key, value);
    }
}

static void write_anew(kist_bank *bank)
{
    put_all(bank, 2);
    compact(bank);
}

/* Half of them go, and others come: no moment has neither. */
static void exchange_half(kist_bank *bank)
{
    char key[16];

    for (unsigned i = 0; i < KEYS; i += 2) {
        (void)snprintf(key, sizeof key, "key %04u", i);
        must_ok(kist_delete(bank, text(key)));
    }
    for (unsigned i = 0; i < NEW; i++) {
        (void)snprintf(key, sizeof key, "new %04u", i);
        put_text(bank, key, "version 1");
    }
    compact(bank);
}

/* Nodes are split, and those that were replaced are used again. */
static void crowd(kist_bank *bank)
{
    char key[32];

    for (unsigned i = 0; i < MORE; i++) {
        (void)snprintf(key, sizeof key, "key %04u %06u", (i * 7919) % KEYS, i);
        put_text(bank, key, "between");
    }
}

/* ---- the child -------------------------------------------------------- */

static void overtake_when_told(void *arg)
{
    struct pair *p = arg;
    kist_store *store = open_store(p->f.dir);
    kist_bank *bank = open_bank(store, "bank");

    the_pair = p;
    tell(p->to_parent[1]);
    hear(p->to_child[0]);
    p->overtake(bank);
    tell(p->to_parent[1]);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void pair_begin(struct pair *p, uint32_t index, void (*child)(void *))
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = 4096 };

    p->f = fixture_open_with(&opt);
    p->index = index;
    put_all(p->f.bank, 1);
    must(pipe(p->to_child) == 0 && pipe(p->to_parent) == 0);
    p->child = child_start(child, p);
    (void)close(p->to_child[0]);
    (void)close(p->to_parent[1]);
    hear(p->to_parent[0]);
    the_pair = p;
    fired = 0;
}

static void pair_end(struct pair *p)
{
    must_end_well(p->child);
    (void)close(p->to_child[1]);
    (void)close(p->to_parent[0]);
    fixture_close(&p->f);
}

static void let_it_overtake(void)
{
    if (fired++ > 0)
        return;
    tell(the_pair->to_child[1]);
    hear(the_pair->to_parent[0]);
}

/* ---- pins ------------------------------------------------------------- */

static bool is_pin(enum os_lock_kind kind, uint64_t at)
{
    return kind == OS_LOCK_SHARED && at < SEAT_HELD;
}

static int lock_late(int fd, enum os_lock_kind kind, uint64_t at, uint64_t len, bool wait)
{
    if (is_pin(kind, at))
        let_it_overtake();
    return os_real_lock(fd, kind, at, len, wait);
}

TEST(a_pin_that_comes_too_late_is_of_a_later_moment)
{
    for (int k = 0; k < 2; k++) {
        struct pair p = { .overtake = write_anew };
        kist_bank *snap;

        pair_begin(&p, kinds[k], overtake_when_told);
        os_seam.lock = lock_late;
        must_ok(kist_snapshot_open(&snap, p.f.bank));
        os_seam.lock = os_real_lock;
        must(fired > 0);
        must_show(snap, "version 2");
        must_ok(kist_bank_close(snap));
        pair_end(&p);
    }
}

/* In the child: it knows the moment, and has no pin yet. */
static int lock_when_told(int fd, enum os_lock_kind kind, uint64_t at, uint64_t len, bool wait)
{
    if (is_pin(kind, at) && fired++ == 0) {
        tell(the_pair->to_parent[1]);
        hear(the_pair->to_child[0]);
    }
    return os_real_lock(fd, kind, at, len, wait);
}

static void pin_while_it_asks(void *arg)
{
    struct pair *p = arg;
    kist_store *store = open_store(p->f.dir);
    kist_bank *bank = open_bank(store, "bank"), *snap;

    the_pair = p;
    fired = 0;
    os_seam.lock = lock_when_told;
    must_ok(kist_snapshot_open(&snap, bank));
    tell(p->to_parent[1]);
    hear(p->to_child[0]);
    must_show(snap, "version 2"); /* that of the first was gone */
    must_ok(kist_bank_close(snap));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static int ask_and_let_it_pin(int fd, uint64_t at, uint64_t len, uint64_t *found)
{
    int rc = os_real_lock_ask(fd, at, len, found);

    if (at == SEAT_PINS && len < SEAT_HELD)
        let_it_overtake();
    return rc;
}

TEST(a_pin_that_comes_while_cleaning_asks_is_of_a_later_moment)
{
    for (int k = 0; k < 2; k++) {
        struct pair p = { .overtake = NULL };

        pair_begin(&p, kinds[k], pin_while_it_asks); /* it stands before its pin */
        put_all(p.f.bank, 2);
        os_seam.lock_ask = ask_and_let_it_pin;
        compact(p.f.bank);
        os_seam.lock_ask = os_real_lock_ask;
        must(fired > 0);
        tell(p.to_child[1]);
        pair_end(&p);
    }
}

/* ---- groups ----------------------------------------------------------- */

static int open_late(int dir, const char *path, int flags, uint32_t mode)
{
    if (strstr(path, "kist.heap."))
        let_it_overtake();
    return os_real_open_under(dir, path, flags, mode);
}

/* A store that has none of the heap mapped yet: it asks for it while it gathers. */
static uint64_t count_of_cursor(struct pair *p, bool in_snapshot, uint64_t *odd)
{
    kist_bank *snap = NULL;
    kist_store *store = open_store(p->f.dir);
    kist_bank *bank = open_bank(store, "bank");
    kist_cursor *cursor;
    kist_entry e;
    uint64_t n = 0;
    int rc;

    if (in_snapshot)
        must_ok(kist_snapshot_open(&snap, bank));
    os_seam.open_under = open_late;
    must_ok(kist_cursor_open(&cursor, snap ? snap : bank, NULL));
    os_seam.open_under = os_real_open_under;
    *odd = 0;
    while ((rc = kist_cursor_next(cursor, &e)) == KIST_OK) {
        *odd += e.value.len != strlen("version 1") ||
                memcmp(e.value.data, "version 1", e.value.len) != 0;
        n++;
    }
    must_rc(rc, KIST_END);
    kist_cursor_close(cursor);
    must_ok(kist_bank_close(snap));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    return n;
}

TEST(a_short_cursor_that_was_overtaken_is_of_a_later_moment)
{
    for (int k = 0; k < 2; k++) {
        struct pair p = { .overtake = exchange_half };
        uint64_t odd;

        pair_begin(&p, kinds[k], overtake_when_told);
        must(count_of_cursor(&p, false, &odd) == KEYS / 2 + NEW && odd == 0);
        must(fired > 0);
        pair_end(&p);
    }
}

/* Records were moved, and their files unlinked, between a look at the index and one there. */
TEST(a_segment_that_was_emptied_meanwhile_is_no_damage)
{
    for (int k = 0; k < 2; k++) {
        struct pair p = { .overtake = compact };
        uint64_t odd;

        pair_begin(&p, kinds[k], overtake_when_told);
        put_all(p.f.bank, 1); /* the first ones are dead */
        must(count_of_cursor(&p, true, &odd) == KEYS && odd == 0);
        must(fired > 0);
        pair_end(&p);
    }
}

TEST(a_group_counts_when_no_node_was_used_again_meanwhile)
{
    struct pair p = { .overtake = crowd };
    uint64_t odd, n;

    pair_begin(&p, KIST_INDEX_ORDERED, overtake_when_told);
    n = count_of_cursor(&p, false, &odd);
    must(fired > 0);
    must(n == KEYS ? odd == 0 : n == KEYS + MORE && odd == MORE);
    pair_end(&p);
}

/* ---- reverts ------------------------------------------------------------ */

static void write_some(kist_bank *bank)
{
    put_text(bank, "key 0003", "between");
    must_ok(kist_delete(bank, text("key 0005")));
    put_text(bank, "new", "between");
}

/* It has asked where the heap ends, and looks at what was written up to there. */
TEST(what_is_written_while_a_revert_looks_is_set_back_too)
{
    for (int k = 0; k < 2; k++) {
        struct pair p = { .overtake = write_some };
        kist_store *store;
        kist_bank *bank, *snap;

        pair_begin(&p, kinds[k], overtake_when_told);
        store = open_store(p.f.dir);
        bank = open_bank(store, "bank");
        must_ok(kist_snapshot_open(&snap, bank));
        put_text(p.f.bank, "key 0004", "version 2");
        os_seam.open_under = open_late; /* it has none of the heap mapped yet */
        must_ok(kist_snapshot_revert(bank, snap));
        os_seam.open_under = os_real_open_under;
        must(fired > 0);
        must_show(bank, "version 1");
        must(count_of(bank) == KEYS);
        must_ok(kist_bank_close(snap));
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
        pair_end(&p);
    }
}

/* ---- rebuilt meanwhile -------------------------------------------------- */

static void repair_and_write_anew(kist_bank *bank)
{
    kist_store *store = open_store(the_pair->f.dir);

    must_ok(kist_repair(store, "bank", NULL, NULL, NULL));
    must_ok(kist_store_close(store));
    write_anew(bank);
}

TEST(a_short_cursor_during_a_rebuild_is_of_a_later_moment)
{
    for (int k = 0; k < 2; k++) {
        struct pair p = { .overtake = repair_and_write_anew };
        uint64_t odd;

        pair_begin(&p, kinds[k], overtake_when_told);
        must(count_of_cursor(&p, 0, &odd) == KEYS);
        must(fired > 0);
        must(odd == KEYS);
        pair_end(&p);
    }
}

/* ---- searches that fail ------------------------------------------------- */

static char no_more[64]; /* a heap file that can't be opened */

static int open_others(int dir, const char *path, int flags, uint32_t mode)
{
    return strstr(path, no_more) ? -EMFILE : os_real_open_under(dir, path, flags, mode);
}

static uint64_t newest_of(kist_bank *bank)
{
    struct core *c;
    uint64_t n;

    must_ok(kist_read_begin());
    must_ok(core_enter(bank, &c));
    n = shm_read(&c->live->newest);
    kist_read_end();
    return n;
}

/* To tell one of these keys from another the tree needs their records. The tombstone's own is
 * at hand; that of the key `put_again` is not. */
static void compact_without_the_newest(bool put_again)
{
    static const char filler[3000];
    kist_bank_options opt = { .size = sizeof opt, .index = KIST_INDEX_ORDERED,
                              .segment_bytes = 4096 };
    struct fixture f = fixture_open_with(&opt);
    kist_store *store = open_store(f.dir);
    kist_bank *bank = open_bank(store, "bank"), *snap;
    char key[] = "prefix: 0";

    put_text(f.bank, key, "to be deleted");
    must_ok(kist_snapshot_open(&snap, bank));
    must_ok(kist_delete(f.bank, text(key)));
    must_ok(kist_compact(f.bank, NULL, NULL)); /* what was put waits; the tombstone is moved */
    must_ok(kist_put(f.bank, text("filler"), (kist_bytes){ filler, sizeof filler }));
    must_ok(kist_put(f.bank, text("more"), (kist_bytes){ filler, sizeof filler }));
    (void)snprintf(no_more, sizeof no_more, "kist.heap.%llu",
                   (unsigned long long)newest_of(f.bank));
    for (char c = put_again ? '0' : '1'; c < '8'; c++) {
        key[8] = c;
        put_text(f.bank, key, "to be compared");
    }
    must_ok(kist_put(f.bank, text("last"), (kist_bytes){ filler, sizeof filler }));
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    f.store = open_store(f.dir);
    f.bank = open_bank(f.store, "bank"); /* it has none of the heap mapped */
    os_seam.open_under = open_others;
    must((kist_compact(f.bank, NULL, NULL) < 0) == put_again);
    os_seam.open_under = os_real_open_under;
    must_ok(kist_bank_close(snap));
    compact(f.bank);
    must_hold(f.bank, "prefix: 0", put_again ? "to be compared" : NULL);
    must_hold(f.bank, "prefix: 7", "to be compared");
    must_verify(f.bank);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    fixture_close(&f);
}

TEST(a_tombstone_stays_when_nobody_can_tell_whether_it_counts)
{
    compact_without_the_newest(true);
}

TEST(a_tombstone_is_found_though_its_neighbours_are_not)
{
    compact_without_the_newest(false);
}

/* ---- killed behind an unlink -------------------------------------------- */

static int unlink_and_die(int dir, const char *name)
{
    int rc = os_real_unlink(dir, name);

    if (strstr(name, "kist.heap."))
        (void)kill(getpid(), SIGKILL);
    return rc;
}

static void compact_and_die(void *arg)
{
    const struct fixture *f = arg;
    kist_store *store = open_store(f->dir);
    kist_bank *bank = open_bank(store, "bank");

    os_seam.unlink = unlink_and_die;
    must_ok(kist_compact(bank, NULL, NULL)); /* it does not get that far */
}

/* What it could not account for any more must not count as wasted for good, nor may the
 * number of a file that is gone keep tombstones. */
TEST(a_compaction_that_died_behind_an_unlink_is_accounted_for_by_the_next)
{
    for (int k = 0; k < 2; k++) {
        kist_bank_options opt = { .size = sizeof opt, .index = kinds[k], .segment_bytes = 4096 };
        struct fixture f = fixture_open_with(&opt);
        kist_stats stats = { .size = sizeof stats };
        double share = 1;

        put_all(f.bank, 1);
        put_all(f.bank, 2);
        must_ok(kist_delete(f.bank, text("key 0007")));
        must(WIFSIGNALED(child_wait(child_start(compact_and_die, &f))));
        compact(f.bank);
        must_ok(kist_fragmentation(f.bank, &share));
        must_ok(kist_stat(f.bank, &stats));
        must(stats.deleted == 0);
        must(share == 0);
        must_hold(f.bank, "key 0007", NULL);
        must_hold(f.bank, "key 0008", "version 2");
        must_verify(f.bank);
        fixture_close(&f);
    }
}

/* ---- notes of what waits ------------------------------------------------ */

/* It says that the oldest heap file may go. */
static void note_of_nobody(kist_bank *bank)
{
    struct core *c;

    must_ok(kist_read_begin());
    must_ok(core_enter(bank, &c));
    shm_store(&c->live->waiting[0].emptied, 0);
    shm_store(&c->live->waiting[0].check, 1);
    shm_store(&c->live->waiting[0].n, shm_peek(&c->live->oldest));
    kist_read_end();
}

TEST(a_damaged_note_of_what_waits_costs_no_heap_file)
{
    for (int k = 0; k < 2; k++) {
        kist_bank_options opt = { .size = sizeof opt, .index = kinds[k], .segment_bytes = 4096 };
        struct fixture f = fixture_open_with(&opt);

        put_all(f.bank, 1);
        note_of_nobody(f.bank);
        compact(f.bank);
        must_show(f.bank, "version 1");
        must_verify(f.bank);
        fixture_close(&f);
    }
}

/* ---- a writer that died while it replaced the content --------------------- */

enum way { CLEAR, REPLACE, RESTORE, REVERT, WAYS };
enum { WORDS = 3 }; /* stores between the commit and the step */

/* What it holds before and after; NULL: nothing. */
static const char *const before_it[WAYS] = { "version 1", "version 1", "version 2", "version 2" };
static const char *const after_it[WAYS] = { NULL, "version 2", "version 1", "version 1" };

static struct {
    const char *dir;
    enum way way;
    int word;
    const shm_word *at;
} dying;

static struct {
    uint8_t bytes[1 << 16];
    size_t len, at;
} saved;

static int save_bytes(const void *data, size_t len, void *arg)
{
    (void)arg;
    must(saved.len + len <= sizeof saved.bytes);
    memcpy(saved.bytes + saved.len, data, len);
    saved.len += len;
    return 0;
}

static int64_t read_saved(void *buf, size_t len, void *arg)
{
    size_t n = len < saved.len - saved.at ? len : saved.len - saved.at;

    (void)arg;
    memcpy(buf, saved.bytes + saved.at, n);
    saved.at += n;
    return (int64_t)n;
}

static int feed_second(kist_bytes *key, kist_bytes *value, void *arg)
{
    static char name[16];
    unsigned *i = arg;

    if (*i == KEYS)
        return KIST_END;
    *key = (kist_bytes){ name, (size_t)snprintf(name, sizeof name, "key %04u", (*i)++) };
    *value = text("version 2");
    return 0;
}

static void replace_by_second(kist_bank *bank)
{
    unsigned i = 0;

    must_ok(kist_replace(bank, feed_second, &i));
}

static void die_at_the_word(const void *addr, size_t len)
{
    (void)len;
    if (addr == (const void *)dying.at)
        (void)kill(getpid(), SIGKILL);
}

static void die_within(kist_bank *bank)
{
    struct core *c;

    must_ok(kist_read_begin());
    must_ok(core_enter(bank, &c));
    dying.at = dying.word == 0   ? &c->live->cleared
               : dying.word == 1 ? &c->live->generation
                                 : &c->live->change;
    kist_read_end();
    shm_seam = die_at_the_word;
}

static void die_while_replacing(void *arg)
{
    kist_store *store = open_store(dying.dir);
    kist_bank *bank = open_bank(store, "bank"), *snap;

    (void)arg;
    saved.len = saved.at = 0;
    must_ok(kist_snapshot_save(bank, save_bytes, NULL));
    must_ok(kist_snapshot_open(&snap, bank));
    if (dying.way == RESTORE || dying.way == REVERT)
        replace_by_second(bank);
    die_within(bank);
    switch (dying.way) {
    case CLEAR:
        must_ok(kist_clear(bank));
        break;
    case REPLACE:
        replace_by_second(bank);
        break;
    case RESTORE:
        must_ok(kist_snapshot_restore(bank, read_saved, NULL));
        break;
    default:
        must_ok(kist_snapshot_revert(bank, snap)); /* of another content: all is copied */
        break;
    }
}

/* All keys as before, or all as after. */
static void must_show_either(kist_bank *bank)
{
    kist_view *view = NULL;
    int rc = kist_get_view(bank, text("key 0000"), &view);
    bool old = rc == KIST_OK && kist_view_bytes(view).len == strlen(before_it[dying.way]) &&
               memcmp(kist_view_bytes(view).data, before_it[dying.way],
                      strlen(before_it[dying.way])) == 0;

    must(rc == KIST_OK || rc == KIST_MISS);
    kist_view_release(view);
    must_show(bank, old ? before_it[dying.way] : after_it[dying.way]);
}

/* Whoever reads, by a pin or without, meets all of one of them. */
static void must_read_either(kist_bank *reader)
{
    uint64_t n = 0, counted;
    kist_cursor *cursor;
    kist_bank *snap;
    kist_entry e;

    must_show_either(reader);
    must_ok(kist_snapshot_open(&snap, reader));
    must_show_either(snap);
    counted = count_of(snap);
    must_ok(kist_cursor_open(&cursor, reader, NULL));
    while (kist_cursor_next(cursor, &e) == KIST_OK)
        n++;
    must(n == counted && (n == KEYS || (n == 0 && !after_it[dying.way])));
    kist_cursor_close(cursor);
    saved.len = 0;
    must_ok(kist_snapshot_save(reader, save_bytes, NULL));
    must_ok(kist_bank_close(snap));
}

static void must_be_done(kist_bank *bank)
{
    kist_bank *snap;
    kist_cursor *cursor;

    must_ok(kist_snapshot_open(&snap, bank));
    must_show(snap, after_it[dying.way]);
    must(count_of(snap) == (after_it[dying.way] ? KEYS : 0));
    must_ok(kist_bank_close(snap));
    must_ok(kist_cursor_open(&cursor, bank, NULL));
    kist_cursor_close(cursor);
}

static void must_copy_either(struct fixture *f)
{
    char *dir = tmp_dir(TMP_FAST), *to = path_join(dir, "copy");
    kist_store *store;
    kist_bank *bank;

    must_ok(kist_store_copy(f->store, to, NULL, NULL, NULL, NULL));
    store = open_store(to);
    bank = open_bank(store, "bank");
    must_show_either(bank);
    must_verify(bank);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    tmp_remove(dir);
    free(to);
    free(dir);
}

/* `is_open`: another process has the bank open for writing. */
static void died_while_replacing(uint32_t index, bool is_open)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = 4096 };
    kist_bank_options may_read = { .size = sizeof may_read, .flags = KIST_BANK_READONLY,
                                   .deadline_ms = 1 };
    struct fixture f = fixture_open_with(&opt);
    kist_store *store;
    kist_bank *reader;

    put_all(f.bank, 1);
    if (!is_open) {
        must_ok(kist_bank_close(f.bank));
        must_ok(kist_store_close(f.store));
    }
    dying.dir = f.dir;
    must(WIFSIGNALED(child_wait(child_start(die_while_replacing, NULL))));
    store = open_store(f.dir);
    must_ok(kist_bank_open(&reader, store, "bank", &may_read));
    must_read_either(reader);
    if (!is_open) {
        f.store = open_store(f.dir);
        f.bank = open_bank(f.store, "bank");
    } else {
        must_copy_either(&f);
        must_read_either(f.bank);
    }
    must_rc(kist_delete(f.bank, text("none")), KIST_MISS); /* who writes next finishes it */
    must_be_done(f.bank);
    must_be_done(reader);
    must_verify(f.bank);
    must_ok(kist_bank_close(reader));
    must_ok(kist_store_close(store));
    fixture_close(&f);
}

TEST(a_writer_that_died_while_it_replaced_the_content_keeps_no_reader_waiting)
{
    for (dying.way = 0; dying.way < WAYS; dying.way++)
        for (dying.word = 0; dying.word < WORDS; dying.word++)
            for (int k = 0; k < 2; k++)
                for (int is_open = 0; is_open < 2; is_open++)
                    died_while_replacing(kinds[k], is_open);
}

/* Behind the death of the first: in the midst of the state that is to count next. */
static void die_while_finishing(void *arg)
{
    kist_store *store = open_store(dying.dir);
    kist_bank *bank = open_bank(store, "bank");
    struct core *c;

    (void)arg;
    must_ok(kist_read_begin());
    must_ok(core_enter(bank, &c));
    dying.at = &c->live->copy[(shm_peek(&c->live->step) + 1) & 1].word[1];
    kist_read_end();
    shm_seam = die_at_the_word;
    must_rc(kist_delete(bank, text("none")), KIST_MISS); /* it does not get that far */
}

static void must_be_busy(int rc)
{
    must_rc(rc, KIST_EBUSY);
    must(strstr(kist_last_error()->what, "died while it replaced") != NULL);
}

static void died_while_finishing(uint32_t index)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = 4096 };
    kist_bank_options may_read = { .size = sizeof may_read, .flags = KIST_BANK_READONLY,
                                   .deadline_ms = 1 };
    struct fixture f = fixture_open_with(&opt);
    kist_cursor *cursor;
    kist_bank *reader, *snap;

    put_all(f.bank, 1);
    must_ok(kist_bank_open(&reader, f.store, "bank", &may_read));
    dying.dir = f.dir;
    must(WIFSIGNALED(child_wait(child_start(die_while_replacing, NULL))));
    must(WIFSIGNALED(child_wait(child_start(die_while_finishing, NULL))));
    must_show_either(reader);
    must_be_busy(kist_snapshot_open(&snap, reader));
    must(snap == NULL);
    must_be_busy(kist_cursor_open(&cursor, reader, NULL));
    must(cursor == NULL);
    must_be_busy(kist_snapshot_save(reader, save_bytes, NULL));
    must_rc(kist_delete(f.bank, text("none")), KIST_MISS);
    must_be_done(reader);
    must_verify(f.bank);
    must_ok(kist_bank_close(reader));
    fixture_close(&f);
}

TEST(a_second_death_while_the_first_is_made_good_is_told_until_somebody_writes)
{
    dying.word = 1;
    for (dying.way = 0; dying.way < WAYS; dying.way++)
        for (int k = 0; k < 2; k++)
            died_while_finishing(kinds[k]);
}

/* Whoever has met the first of two replacements is told by the second what comes. */
TEST(the_state_that_comes_next_is_of_the_replacement_that_was_met_and_of_no_later_one)
{
    static _Alignas(4096) uint8_t page[LIVE_BYTES];
    struct live *l = (struct live *)page;
    struct state before = { .visible = 10 }, first = { .visible = 20 }, second = { .visible = 30 };
    struct state out = { 0 };

    live_step(l, &before);
    must(!live_next_state(l, &before, &out));
    live_prepare(l, &first);
    must(live_next_state(l, &before, &out) && out.visible == first.visible);
    live_step(l, &first);
    must(!live_next_state(l, &before, &out));
    live_prepare(l, &second);
    out = before;
    must(!live_next_state(l, &out, &out) && out.visible == before.visible);
    must(live_next_state(l, &first, &out) && out.visible == second.visible);
}
