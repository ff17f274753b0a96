/*
 * K3: a writer is killed with SIGKILL at any moment, its opening included,
 * thousands of times, while two readers go on. The next writer must find all
 * that was acknowledged, and the operation that was cut short made in full or
 * not at all; the readers must see nothing odd, ever.
 */
#include "support.h"
#include "witness.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { READERS = 2, KILL_AFTER_US = 8000 };

enum whole { CLEAR, REPLACE, RESTORE, REVERT, WHOLES };

struct scene {
    struct witness *w;
    const char *dir;
    _Atomic bool stop;
    _Atomic uint64_t opened; /* writers that came as far as writing */
    _Atomic uint64_t in_flight;
    _Atomic uint64_t mended; /* poison that a kill inside a sync left */
    _Atomic uint64_t wholes[WHOLES]; /* that were not cut off */
    uint64_t round;
};

struct reader {
    struct scene *scene;
    int which;
};

static struct row row = { .id = "K3" };

static kist_bank *open_k3(kist_store *store, uint32_t flags)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = flags, .segment_bytes = 65536 };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "k3", &opt));
    return bank;
}

/* ---- the writer ------------------------------------------------------- */

static void kill_self_in(uint64_t us)
{
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL };
    struct itimerspec when = { .it_value.tv_nsec = (long)(us * 1000 + 1) };
    timer_t timer;

    must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    must(timer_settime(timer, 0, &when, NULL) == 0);
}

/* A bank, the store that can mend it, and what is known of it. */
struct writer {
    struct witness *w;
    kist_store *store;
    kist_bank *bank;
    _Atomic uint64_t *mended;
    _Atomic uint64_t *wholes;
};

/* Whether the call that gave `rc` did its work. */
static bool worked(const struct writer *wr, int rc)
{
    if (mended(wr->store, "k3", rc)) {
        ++*wr->mended;
        return false;
    }
    must_ok(rc);
    return true;
}

static void write_one(const struct writer *wr, struct rng *rng)
{
    char buf[VALUE_CAP];
    uint64_t key = rng_below(rng, WITNESS_KEYS);
    bool is_delete = rng_below(rng, 6) == 0;
    uint64_t version = witness_next(wr->w, key, is_delete);
    int rc;

    witness_begin(wr->w, key, version);
    if (is_delete)
        rc = kist_delete(wr->bank, number(key));
    else
        rc = kist_put(wr->bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) });
    if (worked(wr, is_delete && rc == KIST_MISS ? KIST_OK : rc))
        witness_ack(wr->w, key, version);
}

struct feed {
    struct witness *w;
    uint64_t key;
};

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    static char buf[VALUE_CAP];
    struct feed *feed = arg;

    if (feed->key == WITNESS_KEYS)
        return KIST_END;
    *key = number(feed->key);
    *value = (kist_bytes){ buf, value_make(buf, feed->key, feed->w->key[feed->key].begun) };
    feed->key++;
    return 0;
}

/* What is fed comes from a bank in memory: as a saved snapshot, or one that is open. */
static int copy_from_memory(const struct writer *wr, struct feed *feed, bool saved)
{
    kist_store_options memory = { .size = sizeof memory, .flags = KIST_STORE_MEMORY };
    int rc, fd = memfd_create("saved", MFD_CLOEXEC);
    kist_bank *bank, *snapshot;
    kist_store *store;

    must(fd >= 0);
    must_ok(kist_store_open(&store, NULL, &memory));
    bank = open_k3(store, KIST_BANK_CREATE);
    must_ok(kist_replace(bank, feed_next, feed));
    must_ok(kist_snapshot_open(&snapshot, bank));
    if (saved) {
        must_ok(kist_snapshot_save(snapshot, kist_write_fd, &fd));
        must(lseek(fd, 0, SEEK_SET) == 0);
        rc = kist_snapshot_restore(wr->bank, kist_read_fd, &fd);
    } else {
        rc = kist_snapshot_revert(wr->bank, snapshot);
    }
    must_ok(kist_bank_close(snapshot));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    must(close(fd) == 0);
    return rc;
}

/* One operation that changes every key. */
static void write_all(const struct writer *wr, enum whole how)
{
    struct feed feed = { wr->w, 0 };
    int rc;

    for (uint64_t key = 0; key < WITNESS_KEYS; key++)
        witness_begin(wr->w, key, witness_next(wr->w, key, how == CLEAR));
    if (how == CLEAR)
        rc = kist_clear(wr->bank);
    else if (how == REPLACE)
        rc = kist_replace(wr->bank, feed_next, &feed);
    else
        rc = copy_from_memory(wr, &feed, how == RESTORE);
    if (!worked(wr, rc))
        return;
    for (uint64_t key = 0; key < WITNESS_KEYS; key++)
        witness_ack(wr->w, key, wr->w->key[key].begun);
    ++wr->wholes[how];
}

/* One operation that changes some keys, by puts and deletes. */
static void write_batch(const struct writer *wr, struct rng *rng)
{
    char buf[VALUE_CAP];
    uint64_t first = rng_below(rng, WITNESS_KEYS), n = 2 + rng_below(rng, 30), key;
    kist_batch *batch;

    must_ok(kist_batch_open(&batch, wr->bank));
    for (uint64_t i = 0; i < n; i++) {
        bool is_delete = rng_below(rng, 4) == 0;

        key = (first + i) % WITNESS_KEYS;
        uint64_t version = witness_next(wr->w, key, is_delete);
        must_ok(is_delete ? kist_batch_delete(batch, number(key))
                          : kist_batch_put(batch, number(key),
                                           (kist_bytes){ buf, value_make(buf, key, version) }));
        witness_begin(wr->w, key, version);
    }
    if (worked(wr, kist_batch_commit(batch)))
        for (key = first; key < first + n; key++)
            witness_ack(wr->w, key % WITNESS_KEYS, wr->w->key[key % WITNESS_KEYS].begun);
    kist_batch_close(batch);
}

static void write_some(const struct writer *wr, struct rng *rng)
{
    uint64_t pick = rng_below(rng, 2000);

    if (pick >= 1950)
        write_batch(wr, rng);
    else if (pick < 8)
        write_all(wr, (enum whole)(pick % WHOLES));
    else if (pick < 12)
        (void)worked(wr, kist_compact(wr->bank, NULL, NULL));
    else if (pick < 20)
        (void)worked(wr, kist_sync(wr->bank));
    else
        write_one(wr, rng);
}

/* While others live, a dead writer's operation is carried through only by the
 * next write: make one, that changes nothing. */
static void take_over(const struct writer *wr)
{
    int rc;

    do
        rc = kist_delete(wr->bank, text("no such key"));
    while (rc == KIST_EPOISON && !worked(wr, rc));
    must_rc(rc, KIST_MISS);
}

static void write_until_killed(void *arg)
{
    struct scene *scene = arg;
    struct rng rng = { mix(test_seed(), scene->round) };
    struct writer wr = { .w = scene->w, .mended = &scene->mended, .wholes = scene->wholes };

    kill_self_in(rng_below(&rng, KILL_AFTER_US));
    wr.store = open_store(scene->dir);
    wr.bank = open_k3(wr.store, KIST_BANK_CREATE);
    take_over(&wr);
    scene->in_flight += witness_settle(scene->w, wr.bank) > 0;
    scene->opened++;
    if (scene->round % 8 == 0) /* there may be no time for the one that is picked now and then */
        write_all(&wr, (enum whole)(scene->round / 8 % WHOLES));
    for (;;)
        write_some(&wr, &rng);
}

/* ---- the readers ------------------------------------------------------ */

/* The first keeps one read-only handle throughout; the second opens anew now
 * and then, every other time as one that could write. */
static void read_until_told(void *arg)
{
    const struct reader *reader = arg;
    struct scene *scene = reader->scene;
    struct rng rng = { mix(test_seed(), 1000 + (uint64_t)reader->which) };
    uint64_t seen[WITNESS_KEYS] = { 0 };
    kist_store *store = open_store(scene->dir);
    kist_bank *bank = open_k3(store, KIST_BANK_READONLY);

    for (uint64_t n = 0; !scene->stop; n++) {
        uint64_t key = rng_below(&rng, WITNESS_KEYS);
        witness_read(scene->w, bank, key, &seen[key], &rng);
        if (n % 5000 == 0)
            witness_walk(scene->w, bank);
        if (reader->which == 1 && n % 20000 == 19999) {
            int rc = kist_bank_close(bank);
            must(rc == KIST_OK || rc == KIST_EPOISON);
            bank = open_k3(store, n / 20000 % 2 ? KIST_BANK_READONLY : 0);
        }
    }
    must_close(bank, store);
}

/* ---- the rounds ------------------------------------------------------- */

static void make_bank(const char *dir)
{
    kist_store *store = open_store(dir);

    must_ok(kist_bank_close(open_k3(store, KIST_BANK_CREATE)));
    must_ok(kist_store_close(store));
}

static void must_live(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, WNOHANG) != 0)
        test_fail(__FILE__, __LINE__, "a reader", "has ended");
}

static void check_at_the_end(struct scene *scene)
{
    struct writer wr = { .w = scene->w, .mended = &scene->mended, .wholes = scene->wholes };

    wr.store = open_store(scene->dir);
    wr.bank = open_k3(wr.store, 0);
    take_over(&wr);
    (void)witness_settle(scene->w, wr.bank);
    must_verify(wr.bank);
    must_close(wr.bank, wr.store);
}

TEST(what_was_acknowledged_survives_any_sigkill)
{
    struct scene *scene = shared_memory(sizeof *scene);
    uint64_t rounds = test_scaled(2000);
    pid_t readers[READERS];
    char *dir = tmp_dir(TMP_DISK);

    scene->w = witness_make();
    scene->dir = dir;
    make_bank(dir);
    for (int i = 0; i < READERS; i++) {
        struct reader reader = { scene, i };
        readers[i] = child_start(read_until_told, &reader);
    }
    for (scene->round = 1; scene->round <= rounds; scene->round++) {
        test_case = scene->round;
        int status = child_wait(child_start(write_until_killed, scene));
        must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        for (int i = 0; i < READERS; i++)
            must_live(readers[i]);
        row.cases++;
    }
    scene->stop = true;
    for (int i = 0; i < READERS; i++)
        must_end_well(readers[i]);
    check_at_the_end(scene);
    printf("writers that came to write %llu, killed inside an operation %llu, inside a sync %llu, "
           "reads %llu, writes %llu; not cut off: clears %llu, replacements %llu, restores %llu, "
           "reverts %llu\n",
           (unsigned long long)scene->opened, (unsigned long long)scene->in_flight,
           (unsigned long long)scene->mended, (unsigned long long)scene->w->reads,
           (unsigned long long)scene->w->writes, (unsigned long long)scene->wholes[CLEAR],
           (unsigned long long)scene->wholes[REPLACE], (unsigned long long)scene->wholes[RESTORE],
           (unsigned long long)scene->wholes[REVERT]);
    row_print(&row);
    free(dir);
}
