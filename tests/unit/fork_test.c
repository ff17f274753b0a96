/* A fork at the worst moment: another thread forks when a descriptor that held
 * a lock is about to be closed. The child has a copy of it, and lives on. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/os.h"
#include "base/seat.h"

enum { SOON = 50 }; /* ms that a fork gets which nothing holds up */

static int locked = -1; /* the descriptor of the lock in question */
static pthread_t forker;
static bool started;
static _Atomic pid_t child;
static atomic_bool over;

static void live_on(void *arg)
{
    (void)arg;
    (void)pause();
}

static int note_recovery_lock(int fd, enum os_lock_kind kind, uint64_t start, uint64_t len,
                              bool wait)
{
    if (start == SEAT_RECOVERY && kind != OS_LOCK_FREE)
        locked = fd;
    return os_real_lock(fd, kind, start, len, wait);
}

static int note_flock(int fd, enum os_lock_kind kind)
{
    if (kind != OS_LOCK_FREE)
        locked = fd;
    return os_real_flock(fd, kind);
}

/* The child dies with this thread. */
static void *fork_one(void *arg)
{
    (void)arg;
    child = child_start(live_on, NULL);
    while (!over)
        (void)usleep(1000);
    child_kill(child);
    return NULL;
}

static int fork_before_close(int fd)
{
    if (fd == locked && !started) {
        started = true;
        must(pthread_create(&forker, NULL, fork_one, NULL) == 0);
        for (int i = 0; i < SOON && !child; i++)
            (void)usleep(1000);
    }
    return os_real_close(fd);
}

static void end(struct fixture *f)
{
    must(started);
    over = true;
    must(pthread_join(forker, NULL) == 0);
    fixture_close(f);
}

static void begin(void)
{
    locked = -1;
    child = 0;
    started = false;
    over = false;
    os_seam.close = fork_before_close;
}

static void stop(void)
{
    while (started && !child)
        (void)usleep(1000);
    os_seam.close = os_real_close;
    os_seam.lock = os_real_lock;
    os_seam.flock = os_real_flock;
}

TEST(a_child_forked_while_a_bank_was_opened_does_not_keep_it_from_others)
{
    kist_bank_options opt = { .size = sizeof opt, .deadline_ms = 200 };
    struct fixture f = fixture_open();
    kist_store *store = open_store(f.dir);
    kist_bank *bank;

    begin();
    os_seam.lock = note_recovery_lock;
    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    stop();
    must_ok(kist_bank_close(bank));
    must_ok(kist_bank_open(&bank, store, "bank", &opt));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    end(&f);
}

static void create_again(void *dir)
{
    (void)alarm(5); /* before the mending it waited for ever */
    kist_store *store = open_store(dir);
    kist_bank *bank = open_bank(store, "new");

    must_ok(kist_bank_close(bank));
    must_ok(kist_bank_drop(store, "new"));
    must_ok(kist_store_close(store));
}

TEST(a_child_forked_while_a_bank_was_created_or_dropped_does_not_keep_it_from_others)
{
    for (int dropping = 0; dropping < 2; dropping++) {
        struct fixture f = fixture_open();
        kist_bank *bank = dropping ? open_bank(f.store, "new/below") : NULL;

        must_ok(kist_bank_close(bank));
        bank = dropping ? open_bank(f.store, "new") : NULL;
        must_ok(kist_bank_close(bank));
        begin();
        os_seam.flock = note_flock;
        if (dropping)
            must_ok(kist_bank_drop(f.store, "new"));
        else
            bank = open_bank(f.store, "new");
        stop();
        if (!dropping) {
            must_ok(kist_bank_close(bank));
            must_ok(kist_bank_drop(f.store, "new"));
        }
        in_child(create_again, f.dir);
        end(&f);
    }
}

/* The parent's seat is a map that the child does not have: something of the
 * child's own may lie there by then. */
static void close_inherited(void *arg)
{
    struct fixture *f = arg;
    kist_store *store = open_store(f->dir);
    kist_bank *bank = open_bank(store, "bank");

    put_text(bank, "k", "v");
    (void)kist_bank_close(f->bank);
    (void)kist_store_close(f->store);
    put_text(bank, "k", "w");
    must_hold(bank, "k", "w");
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(a_child_that_closes_what_it_inherited_keeps_its_own)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "u");
    in_child(close_inherited, &f);
    fixture_close(&f);
}
