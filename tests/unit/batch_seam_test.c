/* Batches when the system says no, at each call in turn: the bank is as it was. */
#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bank/core.h"
#include "base/os.h"

/* ---- calls that fail --------------------------------------------------- */

/* The call number `at` fails with `error`, and all behind it if `lasting`. */
static struct {
    int64_t at, calls;
    int error;
    bool lasting, failed;
} fault;

static bool fails(void)
{
    bool now = fault.at >= 0 &&
               (fault.lasting ? fault.calls >= fault.at : fault.calls == fault.at);

    fault.calls++;
    fault.failed |= now;
    return now;
}

static void *alloc_or_not(size_t len)
{
    return fails() ? NULL : os_real_alloc(len);
}

static void *resize_or_not(void *p, size_t len)
{
    return fails() ? NULL : os_real_resize(p, len);
}

static int allocate_or_not(int fd, uint64_t off, uint64_t len)
{
    return fails() ? -fault.error : os_real_allocate(fd, off, len);
}

static int64_t pwrite_or_not(int fd, const void *buf, size_t len, uint64_t off)
{
    return fails() ? -fault.error : os_real_pwrite(fd, buf, len, off);
}

static int open_under_or_not(int dir, const char *path, int flags, uint32_t mode)
{
    return fails() ? -fault.error : os_real_open_under(dir, path, flags, mode);
}

static int map_or_not(void **out, void *addr, size_t len, int prot, int flags, int fd,
                      uint64_t off)
{
    return fails() ? -fault.error : os_real_map(out, addr, len, prot, flags, fd, off);
}

static int random_or_not(void *buf, size_t len)
{
    return fails() ? -fault.error : os_real_random(buf, len);
}

static void fail_from(int64_t at, int error, bool lasting)
{
    fault.at = at;
    fault.calls = 0;
    fault.error = error;
    fault.lasting = lasting;
    fault.failed = false;
    os_seam.alloc = alloc_or_not;
    os_seam.resize = resize_or_not;
    os_seam.allocate = allocate_or_not;
    os_seam.pwrite = pwrite_or_not;
    os_seam.open_under = open_under_or_not;
    os_seam.map = map_or_not;
    os_seam.random = random_or_not;
}

static void fail_no_more(void)
{
    os_seam.alloc = os_real_alloc;
    os_seam.resize = os_real_resize;
    os_seam.allocate = os_real_allocate;
    os_seam.pwrite = os_real_pwrite;
    os_seam.open_under = os_real_open_under;
    os_seam.map = os_real_map;
    os_seam.random = os_real_random;
}

/* ---- a batch midway ---------------------------------------------------- */

enum { KEYS = 60, BEFORE = 1, AFTER = 2 };

/* Before: the even keys; after: all keys but those that three divides. */
static bool is_there(uint64_t key, uint64_t version)
{
    return version == BEFORE ? key % 2 == 0 : key % 3 != 0;
}

static void must_be(kist_bank *bank, uint64_t version)
{
    static char buf[VALUE_CAP];
    uint64_t count = 0, got;
    size_t len;

    for (uint64_t key = 0; key < KEYS; key++) {
        int rc = kist_get_copy(bank, number(key), buf, sizeof buf, &len);

        must_rc(rc, is_there(key, version) ? KIST_OK : KIST_MISS);
        if (rc == KIST_OK)
            must(value_check((kist_bytes){ buf, len }, key, &got) && got == version);
        count += rc == KIST_OK;
    }
    must(count_of(bank) == count);
}

static void put_before(kist_bank *bank)
{
    char buf[VALUE_CAP];

    for (uint64_t key = 0; key < KEYS; key += 2)
        must_ok(kist_put(bank, number(key),
                         (kist_bytes){ buf, value_make(buf, key, BEFORE) }));
}

static int fill(kist_batch *batch)
{
    char buf[VALUE_CAP];
    int rc = KIST_OK;

    for (uint64_t key = 0; key < KEYS && rc == KIST_OK; key++)
        rc = is_there(key, AFTER)
                 ? kist_batch_put(batch, number(key),
                                  (kist_bytes){ buf, value_make(buf, key, AFTER) })
                 : kist_batch_delete(batch, number(key));
    return rc;
}

/* What others, and the next writer, find after a commit that failed. */
static void must_be_as_before(struct fixture *f)
{
    kist_store *store = open_store(f->dir);
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };
    kist_bank *reader;

    must_ok(kist_bank_open(&reader, store, "bank", &opt));
    must_be(reader, BEFORE);
    must_be(f->bank, BEFORE);
    put_text(f->bank, "other", "1");
    must_hold(reader, "other", "1");
    must_ok(kist_delete(f->bank, text("other")));
    must_be(reader, BEFORE);
    must_be(f->bank, BEFORE);
    must_ok(kist_bank_close(reader));
    must_ok(kist_store_close(store));
}

/* True: it failed somewhere. */
static bool fail_at(int64_t at, int error, bool lasting, uint32_t index, uint32_t durability)
{
    kist_bank_options opt = { .size = sizeof opt, .index = index, .segment_bytes = 4096,
                              .durability = durability };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch;
    bool failed;
    int rc;

    put_before(f.bank);
    must_ok(kist_batch_open(&batch, f.bank));
    must_ok(fill(batch));
    fail_from(at, error, lasting);
    rc = kist_batch_commit(batch);
    fail_no_more();
    failed = fault.failed;
    if (rc < 0) { /* else it did without */
        must(failed);
        must(rc != KIST_EPOISON && kist_batch_count(batch) == KEYS);
        must_be_as_before(&f);
        must_ok(kist_batch_commit(batch));
    }
    must_be(f.bank, AFTER);
    kist_batch_close(batch);
    must_verify(f.bank);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_be(f.bank, AFTER);
    must_ok(kist_compact(f.bank, NULL, NULL));
    must_be(f.bank, AFTER);
    fixture_close(&f);
    return failed;
}

static void fail_at_each(uint32_t index, int error, bool lasting)
{
    uint64_t n = 0;

    for (test_case = 0;
         fail_at((int64_t)test_case, error, lasting, index, KIST_DURABILITY_NONE); test_case++)
        n++;
    must(n > 20);
}

TEST(a_commit_that_fails_at_any_call_changes_nothing)
{
    for (uint32_t index = KIST_INDEX_HASH; index <= KIST_INDEX_ORDERED; index++) {
        fail_at_each(index, ENOSPC, false);
        fail_at_each(index, ENOMEM, true);
    }
}

TEST(a_durable_commit_that_fails_at_any_call_before_its_sync_changes_nothing)
{
    /* The sync itself opens files; then all is visible already. */
    for (test_case = 0; test_case < 60; test_case++)
        (void)fail_at((int64_t)test_case, EDQUOT, false, KIST_INDEX_HASH,
                      KIST_DURABILITY_ALWAYS);
}

TEST(a_change_that_fails_is_not_in_the_batch)
{
    struct fixture f = fixture_open();
    static char large[300000];
    int64_t at = 0;

    for (bool failed = true; failed; at++) {
        kist_batch *batch;
        uint64_t in = 0;

        must_ok(kist_batch_open(&batch, f.bank));
        fail_from(at, ENOSPC, false);
        for (uint64_t key = 0; key < 200; key++) {
            size_t len = key % 40 == 39 ? sizeof large : 8;
            int rc = kist_batch_put(batch, number(key), (kist_bytes){ large, len });

            must(rc == KIST_OK || rc == KIST_ENOMEM || rc == KIST_EFULL);
            in += rc == KIST_OK;
            must(kist_batch_count(batch) == in);
            if (rc != KIST_OK) {
                kist_view *view;
                must_rc(kist_batch_get_view(batch, number(key), &view), KIST_MISS);
            }
        }
        failed = fault.failed;
        fail_no_more();
        must(failed ? in >= 199 : in == 200);
        must_ok(kist_batch_commit(batch));
        must(count_of(f.bank) == in);
        must_ok(kist_clear(f.bank));
        kist_batch_close(batch);
    }
    must(at > 5);
    fixture_close(&f);
}

/* ---- no room ----------------------------------------------------------- */

static int allocate_nothing(int fd, uint64_t off, uint64_t len)
{
    (void)fd, (void)off, (void)len;
    return -ENOSPC;
}

TEST(a_batch_of_deletes_works_on_a_full_disk)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch;
    uint64_t n = 0;
    static char buf[VALUE_CAP], large[60000];
    int rc;

    must_ok(kist_batch_open(&batch, f.bank));
    for (uint64_t key = 0; key < 10; key++) /* in memory, once it was in use */
        must_ok(kist_batch_delete(batch, number(key)));
    do { /* the larger a segment, the more room is kept for deletes */
        os_seam.allocate = n < 300 ? os_real_allocate : allocate_nothing;
        rc = kist_put(f.bank, number(n), (kist_bytes){ buf, value_make(buf, n, 1) });
    } while (rc == KIST_OK && ++n);
    must_rc(rc, KIST_EFULL);
    must(n > 10);
    must_ok(kist_batch_put(batch, text("large"), (kist_bytes){ large, sizeof large }));
    must_rc(kist_batch_commit(batch), KIST_EFULL);
    must(count_of(f.bank) == n);
    must_ok(kist_batch_delete(batch, text("large")));
    must_ok(kist_batch_commit(batch));
    os_seam.allocate = os_real_allocate;
    must(count_of(f.bank) == n - 10);
    must_verify(f.bank);
    kist_batch_close(batch);
    fixture_close(&f);
}

/* ---- poison ------------------------------------------------------------- */

static int sync_fails(int fd)
{
    (void)fd;
    return -EIO;
}

TEST(a_durable_commit_whose_sync_fails_is_visible_and_says_so)
{
    kist_bank_options opt = { .size = sizeof opt, .durability = KIST_DURABILITY_ALWAYS };
    struct fixture f = fixture_open_with(&opt);
    kist_batch *batch;

    put_text(f.bank, "k", "1");
    must_ok(kist_batch_open(&batch, f.bank));
    must_ok(kist_batch_put(batch, text("k"), text("2")));
    os_seam.fdatasync = sync_fails;
    must_rc(kist_batch_commit(batch), KIST_EPOISON);
    os_seam.fdatasync = os_real_fdatasync;
    must_hold(f.bank, "k", "2");
    must(kist_batch_count(batch) == 0);
    must_ok(kist_batch_put(batch, text("k"), text("3"))); /* poisoned: it stays as it is */
    must_rc(kist_batch_commit(batch), KIST_EPOISON);
    must_hold(f.bank, "k", "2");
    must(kist_batch_count(batch) == 1);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "k", "3");
    kist_batch_close(batch);
    fixture_close(&f);
}

/* ---- two threads ------------------------------------------------------- */

static kist_batch *shared;
static int second[6];

/* All that a second thread may try while the first is inside. */
static void *use_too(void *arg)
{
    kist_view *view;

    (void)arg;
    second[0] = kist_batch_put(shared, text("k"), text("v"));
    second[1] = kist_batch_delete(shared, text("k"));
    second[2] = kist_batch_expect(shared, text("k"), 0);
    second[3] = kist_batch_get_view(shared, text("k"), &view);
    second[4] = kist_batch_commit(shared);
    second[5] = kist_batch_reset(shared);
    return NULL;
}

/* In the middle of the first one's call. */
static int64_t clock_between(enum os_clock which)
{
    pthread_t thread;

    os_seam.clock = os_real_clock;
    must(pthread_create(&thread, NULL, use_too, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
    return os_real_clock(which);
}

TEST(a_second_thread_is_told_that_the_batch_is_in_use)
{
    struct fixture f = fixture_open();

    must_ok(kist_batch_open(&shared, f.bank));
    must_ok(kist_batch_put(shared, text("k"), text("first")));
    os_seam.clock = clock_between;
    must_ok(kist_batch_commit(shared));
    must(os_seam.clock == os_real_clock);
    for (int i = 0; i < 6; i++)
        must_rc(second[i], KIST_EINUSE);
    must_hold(f.bank, "k", "first");
    use_too(NULL); /* one after the other is fine */
    for (int i = 0; i < 6; i++)
        must_rc(second[i], i == 3 || i == 4 ? (i == 3 ? KIST_MISS : KIST_EXISTS) : KIST_OK);
    kist_batch_close(shared);
    fixture_close(&f);
}

/* ---- readers while batches are given up --------------------------------- */

enum { TOGETHER = 6, GIVEN_UP = 1000000 };

static _Thread_local int writes_left = -1; /* of this thread, until one fails */

static int64_t pwrite_some(int fd, const void *buf, size_t len, uint64_t off)
{
    if (writes_left == 0)
        return -ENOSPC;
    writes_left -= writes_left > 0;
    return os_real_pwrite(fd, buf, len, off);
}

struct scene {
    kist_bank *bank;
    atomic_bool stop;
    _Atomic uint64_t reads;
};

static void *read_meanwhile(void *arg)
{
    struct scene *scene = arg;
    uint64_t seen = 0, version;
    size_t len;

    for (uint64_t n = 0; !scene->stop || n < 1000; n++) {
        kist_bytes key = number(n * 7 % TOGETHER), value;

        if (n % 2) {
            must_ok(kist_get_copy(scene->bank, key, &version, sizeof version, &len));
        } else {
            must_ok(kist_read_begin());
            must_ok(kist_get(scene->bank, key, &value));
            memcpy(&version, value.data, sizeof version);
            kist_read_end();
        }
        must(version < GIVEN_UP && version >= seen);
        seen = version;
        scene->reads++;
    }
    return NULL;
}

static kist_bank_options durable_and_small(void)
{
    return (kist_bank_options){ .size = sizeof(kist_bank_options), .segment_bytes = 4096,
                                .durability = KIST_DURABILITY_ALWAYS };
}

TEST(no_reader_ever_sees_what_is_given_up)
{
    kist_bank_options opt = durable_and_small();
    struct fixture f = fixture_open_with(&opt);
    struct scene scene = { .bank = f.bank };
    kist_batch *batch;
    pthread_t thread;

    must_ok(kist_batch_open(&batch, f.bank));
    for (uint64_t key = 0; key < TOGETHER; key++)
        must_ok(kist_put(f.bank, number(key), number(1)));
    os_seam.pwrite = pwrite_some;
    must(pthread_create(&thread, NULL, read_meanwhile, &scene) == 0);
    for (uint64_t round = 2; round < test_scaled(5000) + 2; round++) {
        for (uint64_t key = 0; key < TOGETHER; key++)
            must_ok(kist_batch_put(batch, number(key), number(GIVEN_UP + round)));
        writes_left = (int)(round % (TOGETHER + 1)); /* its commit record too */
        must_rc(kist_batch_commit(batch), KIST_EFULL);
        writes_left = -1;
        for (uint64_t key = 0; key < TOGETHER; key++)
            must_ok(kist_batch_put(batch, number(key), number(round)));
        must_ok(kist_batch_commit(batch));
    }
    scene.stop = true;
    must(pthread_join(thread, NULL) == 0);
    os_seam.pwrite = os_real_pwrite;
    kist_batch_close(batch);
    must_verify(f.bank);
    fixture_close(&f);
}

/*
 * A reader that is held up between the slot and the record: it finds a record of a
 * batch there, and when it goes on the batch was given up, and later sequences are
 * visible.
 */
static struct {
    kist_bank *bank; /* another handle's, that has not mapped the newest segment */
    pthread_t thread;
    atomic_bool is_reader_held, is_given_up;
    _Atomic int rc;
    char value[64];
    size_t len;
} held;

static _Thread_local bool is_reader;

static int open_held(int dir, const char *path, int flags, uint32_t mode)
{
    if (is_reader && strstr(path, "kist.heap.")) {
        is_reader = false;
        held.is_reader_held = true;
        while (!held.is_given_up)
            (void)os_real_sleep(1);
    }
    return os_real_open_under(dir, path, flags, mode);
}

static void *read_held(void *arg)
{
    (void)arg;
    is_reader = true;
    held.rc = kist_get_copy(held.bank, text("k"), held.value, sizeof held.value, &held.len);
    held.is_reader_held = true; /* should it not have come there */
    return NULL;
}

/* Is it the record that is to fail? */
static bool is_the_last(const void *buf, size_t len)
{
    return memmem(buf, len, "fails", 5) != NULL;
}

/* The write that fails waits for the reader. */
static int64_t pwrite_when_held(int fd, const void *buf, size_t len, uint64_t off)
{
    if (!is_the_last(buf, len))
        return os_real_pwrite(fd, buf, len, off);
    must(pthread_create(&held.thread, NULL, read_held, NULL) == 0);
    while (!held.is_reader_held)
        (void)os_real_sleep(1);
    return -ENOSPC;
}

TEST(a_reader_that_met_a_batch_before_it_was_given_up_looks_again)
{
    kist_bank_options opt = durable_and_small();
    struct fixture f = fixture_open_with(&opt);
    kist_store *store = open_store(f.dir);
    char large[3000] = { 0 };
    kist_batch *batch;

    put_text(f.bank, "k", "before");
    held.bank = open_bank(store, "bank");
    must_hold(held.bank, "k", "before");
    must_ok(kist_batch_open(&batch, f.bank));
    must_ok(kist_batch_put(batch, text("large"), (kist_bytes){ large, sizeof large }));
    must_ok(kist_batch_put(batch, text("large too"), (kist_bytes){ large, sizeof large }));
    must_ok(kist_batch_put(batch, text("k"), text("given up")));
    must_ok(kist_batch_put(batch, text("last"), text("fails")));
    os_seam.open_under = open_held;
    os_seam.pwrite = pwrite_when_held;
    must_rc(kist_batch_commit(batch), KIST_EFULL);
    put_text(f.bank, "other", "1");
    held.is_given_up = true;
    must(pthread_join(held.thread, NULL) == 0);
    os_seam.pwrite = os_real_pwrite;
    os_seam.open_under = os_real_open_under;
    must_rc(held.rc, KIST_OK);
    must(held.len == 6 && memcmp(held.value, "before", 6) == 0);
    kist_batch_close(batch);
    must_ok(kist_bank_close(held.bank));
    must_ok(kist_store_close(store));
    fixture_close(&f);
}

/* ---- a batch that can't be undone at once -------------------------------- */

static bool no_descriptors;

static int open_none(int dir, const char *path, int flags, uint32_t mode)
{
    return no_descriptors ? -EMFILE : os_real_open_under(dir, path, flags, mode);
}

static int64_t pwrite_the_last(int fd, const void *buf, size_t len, uint64_t off)
{
    if (!is_the_last(buf, len))
        return os_real_pwrite(fd, buf, len, off);
    no_descriptors = true;
    return -ENOSPC;
}

TEST(a_batch_that_can_not_be_undone_is_undone_by_the_next_writer)
{
    kist_bank_options opt = durable_and_small();
    struct fixture f = fixture_open_with(&opt);
    char large[12000] = { 0 };
    kist_batch *batch;
    uint64_t version;
    size_t len;

    put_text(f.bank, "k", "before");
    must_ok(kist_batch_open(&batch, f.bank));
    must_ok(kist_batch_put(batch, text("k"), text("given up")));
    must_ok(kist_batch_put(batch, text("new"), text("given up")));
    /* The segment made ahead is too small: undoing it looks for a file that is gone. */
    must_ok(kist_batch_put(batch, text("large"), (kist_bytes){ large, sizeof large }));
    must_ok(kist_batch_put(batch, text("last"), text("fails")));
    os_seam.open_under = open_none;
    os_seam.pwrite = pwrite_the_last;
    must_rc(kist_batch_commit(batch), KIST_EFULL);
    must(no_descriptors);
    must_hold(f.bank, "k", "before");
    must_hold(f.bank, "new", NULL);
    must(kist_put(f.bank, text("k"), text("not yet")) < 0);
    must_hold(f.bank, "k", "before");
    no_descriptors = false;
    os_seam.open_under = os_real_open_under;
    os_seam.pwrite = os_real_pwrite;
    put_text(f.bank, "other", "1");
    must_hold(f.bank, "k", "before");
    must_hold(f.bank, "new", NULL);
    must_rc(kist_get_copy(f.bank, text("large"), &version, sizeof version, &len), KIST_MISS);
    must(count_of(f.bank) == 2);
    must_ok(kist_batch_commit(batch));
    must_hold(f.bank, "k", "given up");
    must(count_of(f.bank) == 5);
    kist_batch_close(batch);
    must_verify(f.bank);
    fixture_close(&f);
}

/* A walk copies slots while a batch is under way, and looks where they lead to when it
 * was given up. */
static kist_iter *walk;
static kist_entry walked;

static int64_t pwrite_when_walked(int fd, const void *buf, size_t len, uint64_t off)
{
    if (!is_the_last(buf, len))
        return os_real_pwrite(fd, buf, len, off);
    must_ok(kist_iter_next(walk, &walked));
    return -ENOSPC;
}

static void must_be_before(const kist_entry *e)
{
    must(e->value.len == 6 && memcmp(e->value.data, "before", 6) == 0);
}

TEST(a_walk_that_met_a_batch_before_it_was_given_up_looks_again)
{
    for (uint32_t index = KIST_INDEX_HASH; index <= KIST_INDEX_ORDERED; index++) {
        kist_bank_options opt = { .size = sizeof opt, .index = index,
                                  .durability = KIST_DURABILITY_ALWAYS };
        struct fixture f = fixture_open_with(&opt);
        kist_batch *batch;
        int met = 1;

        for (uint64_t key = 0; key < 8; key++)
            must_ok(kist_put(f.bank, number(key), text("before")));
        must_ok(kist_batch_open(&batch, f.bank));
        for (uint64_t key = 0; key < 10; key++)
            must_ok(kist_batch_put(batch, number(key), text("given up")));
        must_ok(kist_iter_open(&walk, f.bank));
        os_seam.pwrite = pwrite_when_walked;
        must_ok(kist_batch_put(batch, text("last"), text("fails")));
        must_rc(kist_batch_commit(batch), KIST_EFULL);
        os_seam.pwrite = os_real_pwrite;
        must_be_before(&walked);
        put_text(f.bank, "other", "before");
        while (kist_iter_next(walk, &walked) == KIST_OK) {
            must_be_before(&walked);
            met++;
        }
        must(met >= 8 && met <= 9);
        kist_iter_close(walk);
        kist_batch_close(batch);
        fixture_close(&f);
    }
}

/* ---- a compaction that is killed while it notes a batch ------------------ */

enum { FIRST = 12, SECOND = 4 };

static kist_bytes key_of(int i)
{
    static char key[16];

    return (kist_bytes){ key, (size_t)snprintf(key, sizeof key, "key %02d", i) };
}

static void commit(kist_bank *bank, int keys, const char *value)
{
    kist_batch *batch;

    must_ok(kist_batch_open(&batch, bank));
    for (int i = 0; i < keys; i++)
        must_ok(kist_batch_put(batch, key_of(i), text(value)));
    must_ok(kist_batch_commit(batch));
    kist_batch_close(batch);
}

static int feed_to_the_last(kist_bytes *key, kist_bytes *value, void *arg)
{
    int *i = arg;

    *key = key_of(*i);
    *value = text(*i < FIRST ? "given up" : "fails");
    return (*i)++ <= FIRST ? 0 : KIST_END;
}

static int64_t pwrite_but_the_last(int fd, const void *buf, size_t len, uint64_t off)
{
    return is_the_last(buf, len) ? -ENOSPC : os_real_pwrite(fd, buf, len, off);
}

static void give_a_replacement_up(kist_bank *bank)
{
    int i = 0;

    os_seam.pwrite = pwrite_but_the_last;
    must_rc(kist_replace(bank, feed_to_the_last, &i), KIST_EFULL);
    os_seam.pwrite = os_real_pwrite;
}

static struct {
    const char *dir;
    const struct live *live;
    int left; /* stores to the two words, until it is killed */
} noting;

static void die_at_a_note(const void *addr, size_t len)
{
    (void)len;
    if ((addr == (const void *)&noting.live->range_first ||
         addr == (const void *)&noting.live->range_end) &&
        noting.left-- == 0)
        (void)kill(getpid(), SIGKILL);
}

static void compact_until_a_note(void *arg)
{
    kist_store *store = open_store(noting.dir);
    kist_bank *bank = open_bank(store, "bank");
    struct core *c;

    (void)arg;
    must_ok(kist_read_begin());
    must_ok(core_enter(bank, &c));
    noting.live = c->live;
    kist_read_end();
    shm_seam = die_at_a_note;
    must_ok(kist_compact(bank, NULL, NULL));
    shm_seam = NULL;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void must_hold_both(kist_bank *bank)
{
    must_verify(bank);
    must(count_of(bank) == FIRST);
    for (int i = 0; i < FIRST; i++) {
        char key[16] = { 0 };

        memcpy(key, key_of(i).data, key_of(i).len);
        must_hold(bank, key, i < SECOND ? "second" : "first");
    }
}

/* Two batches count, and between them lies a replacement that does not. True: it was killed. */
static bool killed_at_note(uint32_t index, int n)
{
    kist_bank_options opt = durable_and_small();
    struct fixture f;
    int status;

    opt.index = index;
    f = fixture_open_with(&opt);
    commit(f.bank, FIRST, "first");
    give_a_replacement_up(f.bank);
    commit(f.bank, SECOND, "second");
    noting.dir = f.dir;
    noting.left = n;
    status = child_wait(child_start(compact_until_a_note, NULL));
    must_rc(kist_delete(f.bank, text("none")), KIST_MISS); /* who comes next repairs */
    must_hold_both(f.bank);
    must_ok(kist_compact(f.bank, NULL, NULL));
    must_hold_both(f.bank);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_hold_both(f.bank);
    fixture_close(&f);
    must(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSIGNALED(status);
}

TEST(a_compaction_killed_while_it_notes_a_batch_vouches_for_no_other)
{
    for (uint32_t index = KIST_INDEX_HASH; index <= KIST_INDEX_ORDERED; index++) {
        int n = 0;

        while (killed_at_note(index, n))
            n++;
        must(n >= (index == KIST_INDEX_HASH ? 3 : 6)); /* an ordered bank's notes one twice */
    }
}
