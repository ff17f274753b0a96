/*
 * R2: several processes read and write one bank while a hand from outside
 * stops, continues and kills them at random, a counted number of times. Values prove themselves, the
 * versions of a key only grow, what was acknowledged is there.
 *
 * Keys below SHARED are written by all, each next version on top of the one
 * that was read (put_if_sequence); every other key belongs to one writer, who
 * also deletes.
 */
#include "support.h"
#include "witness.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WRITERS = 3, READERS = 2, CREW = WRITERS + READERS, SHARED = 32 };

struct scene {
    struct witness *w;
    const char *dir;
    _Atomic bool stop;
    _Atomic uint64_t changed;
    _Atomic uint64_t mended; /* poison that a kill inside a sync left */
};

struct member {
    struct scene *scene;
    uint64_t number, life;
    pid_t pid;
};

static struct row row = { .id = "R2" };

static kist_bank *open_r2(kist_store *store, uint32_t flags)
{
    kist_bank_options opt = {
        .size = sizeof opt, .flags = flags, .segment_bytes = 65536, .deadline_ms = -1
    };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "r2", &opt));
    return bank;
}

/* ---- writers ---------------------------------------------------------- */

static uint64_t version_there(kist_bank *bank, uint64_t key)
{
    kist_view *view;
    uint64_t version = 0;
    int rc = kist_get_view(bank, number(key), &view);

    if (rc == KIST_MISS)
        return 0;
    must_ok(rc);
    must(value_check(kist_view_bytes(view), key, &version));
    kist_view_release(view);
    return version;
}

/* The sequence is read first: if another writes between, it no longer fits. */
static int advance_shared(struct scene *scene, kist_bank *bank, uint64_t key)
{
    char buf[VALUE_CAP];
    kist_meta meta = { .sequence = 0 };
    int rc = kist_get_meta(bank, number(key), &meta);
    uint64_t version;

    must(rc == KIST_OK || rc == KIST_MISS);
    version = version_there(bank, key) + 1;
    while (witness_is_delete(version))
        version++;
    witness_begin(scene->w, key, version);
    rc = kist_put_if_sequence(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) },
                              meta.sequence);
    scene->changed += rc == KIST_CHANGED;
    if (rc == KIST_OK)
        witness_ack(scene->w, key, version);
    return rc == KIST_CHANGED ? KIST_OK : rc;
}

static int write_own(struct scene *scene, kist_bank *bank, uint64_t key, struct rng *rng)
{
    char buf[VALUE_CAP];
    bool is_delete = rng_below(rng, 5) == 0;
    uint64_t version = witness_next(scene->w, key, is_delete);
    int rc;

    witness_begin(scene->w, key, version);
    if (is_delete)
        rc = kist_delete(bank, number(key));
    else
        rc = kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) });
    if (rc == KIST_MISS && is_delete)
        rc = KIST_OK;
    if (rc == KIST_OK)
        witness_ack(scene->w, key, version);
    return rc;
}

static int stop_now_and_then(uint64_t done, uint64_t all, void *arg)
{
    (void)done, (void)all;
    return rng_below(arg, 10) == 0;
}

static void write_once(const struct member *m, kist_store *store, kist_bank *bank, struct rng *rng)
{
    uint64_t pick = rng_below(rng, 1000);
    uint64_t own = SHARED + m->number + WRITERS * rng_below(rng, (WITNESS_KEYS - SHARED) / WRITERS);
    int rc;

    if (pick < 2)
        rc = kist_compact(bank, stop_now_and_then, rng);
    else if (pick < 5)
        rc = kist_sync(bank);
    else if (pick < 450)
        rc = advance_shared(m->scene, bank, rng_below(rng, SHARED));
    else
        rc = write_own(m->scene, bank, own, rng);
    if (mended(store, "r2", rc))
        m->scene->mended++;
    else if (rc != 1) /* as stop_now_and_then() says */
        must_ok(rc);
}

static void write_until_told(const struct member *m, struct rng *rng)
{
    kist_store *store = open_store(m->scene->dir);
    kist_bank *bank = open_r2(store, KIST_BANK_CREATE);

    while (!m->scene->stop) {
        write_once(m, store, bank, rng);
        if (rng_below(rng, 5000) == 0) {
            int rc = kist_bank_close(bank);
            must(rc == KIST_OK || rc == KIST_EPOISON);
            bank = open_r2(store, 0);
        }
    }
    must_close(bank, store);
}

/* ---- readers ---------------------------------------------------------- */

static void read_until_told(const struct member *m, struct rng *rng)
{
    uint64_t seen[WITNESS_KEYS] = { 0 };
    kist_store *store = open_store(m->scene->dir);
    kist_bank *bank = open_r2(store, KIST_BANK_READONLY);

    while (!m->scene->stop) {
        uint64_t key = rng_below(rng, WITNESS_KEYS);
        witness_read(m->scene->w, bank, key, &seen[key], rng);
        if (rng_below(rng, 10000) == 0)
            witness_walk(m->scene->w, bank);
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void play(void *arg)
{
    const struct member *m = arg;
    struct rng rng = { mix(mix(test_seed(), m->number), m->life) };

    if (m->number < WRITERS)
        write_until_told(m, &rng);
    else
        read_until_told(m, &rng);
}

/* ---- the hand from outside -------------------------------------------- */

static void start(struct member *m)
{
    m->life++;
    m->pid = child_start(play, m);
}

static void nap(uint64_t us)
{
    struct timespec t = { 0, (long)us * 1000 };

    (void)nanosleep(&t, NULL);
}

static void must_live(const struct member *m)
{
    int status;

    if (waitpid(m->pid, &status, WNOHANG) != 0)
        test_fail(__FILE__, __LINE__, m->number < WRITERS ? "a writer" : "a reader", "has ended");
}

static void disturb(struct member *m, struct rng *rng)
{
    uint64_t pick = rng_below(rng, 10);

    must_live(m);
    if (pick < 5) {
        must(kill(m->pid, SIGSTOP) == 0);
        nap(rng_below(rng, 4000));
        if (pick == 0) { /* killed while it stands still */
            child_kill(m->pid);
            start(m);
            return;
        }
        must(kill(m->pid, SIGCONT) == 0);
    } else if (pick < 8) {
        child_kill(m->pid);
        start(m);
    }
}

TEST(processes_that_are_stopped_and_killed_never_disturb_each_other)
{
    struct scene *scene = shared_memory(sizeof *scene);
    uint64_t disturbances = test_scaled(5000);
    struct member crew[CREW];
    struct rng rng = { test_seed() };
    char *dir = tmp_dir(TMP_DISK);
    uint64_t deaths = 0;
    kist_store *store;

    scene->w = witness_make();
    scene->dir = dir;
    store = open_store(dir);
    must_ok(kist_bank_close(open_r2(store, KIST_BANK_CREATE)));
    must_ok(kist_store_close(store));
    for (uint64_t i = 0; i < CREW; i++) {
        crew[i] = (struct member){ .scene = scene, .number = i };
        start(&crew[i]);
    }
    while (row.cases < disturbances) {
        nap(1000 + rng_below(&rng, 4000));
        disturb(&crew[rng_below(&rng, CREW)], &rng);
        row.cases++;
    }
    scene->stop = true;
    for (int i = 0; i < CREW; i++) {
        must_end_well(crew[i].pid);
        deaths += crew[i].life - 1;
    }

    store = open_store(dir);
    kist_bank *bank = open_r2(store, 0);
    uint64_t seen[WITNESS_KEYS] = { 0 };
    for (uint64_t key = 0; key < WITNESS_KEYS; key++)
        witness_read(scene->w, bank, key, &seen[key], &rng);
    must_verify(bank);
    must_close(bank, store);
    printf("killed %llu, inside a sync %llu, reads %llu, writes %llu, overtaken %llu\n",
           (unsigned long long)deaths, (unsigned long long)scene->mended,
           (unsigned long long)scene->w->reads, (unsigned long long)scene->w->writes,
           (unsigned long long)scene->changed);
    row_print(&row);
    free(dir);
}
