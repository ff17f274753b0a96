/*
 * A writer stopped by SIGSTOP at any store of a put, a delete, a split: two
 * reading processes make 1,000 gets each meanwhile, see nothing odd, and never
 * wait nor lock (I1, I8).
 */
#include "base/os.h"
#include "base/shm.h"
#include "seam/actor.h"
#include "seam/check.h"
#include "seam/plan.h"
#include "seam/tally.h"

#include <stdio.h>

enum { READERS = 2, GETS = 1000, WRITES = 60 };

/* ---- in the readers --------------------------------------------------- */

/* A reader that maps a segment for the first time marks it as held, by a lock
 * that does not wait; in its warm gets it makes none. */
static bool warm;
static uint64_t waits;

static int count_wait(uint32_t *word, uint32_t while_is, int timeout_ms)
{
    waits++;
    return os_real_wait(word, while_is, timeout_ms);
}

static int count_lock(int fd, enum os_lock_kind kind, uint64_t start, uint64_t len, bool wait)
{
    waits += warm || wait;
    return os_real_lock(fd, kind, start, len, wait);
}

static int count_lock_ask(int fd, uint64_t start, uint64_t len, uint64_t *found)
{
    waits++;
    return os_real_lock_ask(fd, start, len, found);
}

static int count_flock(int fd, enum os_lock_kind kind)
{
    waits++;
    return os_real_flock(fd, kind);
}

static int count_sleep(int ms)
{
    waits++;
    return os_real_sleep(ms);
}

static void count_all_waits(void)
{
    os_seam.wait = count_wait;
    os_seam.lock = count_lock;
    os_seam.lock_ask = count_lock_ask;
    os_seam.flock = count_flock;
    os_seam.sleep = count_sleep;
    waits = 0;
}

/* A key's version is the acknowledged one, or that of the write under way. */
static bool may_have(const struct oracle *o, uint32_t key, uint32_t version)
{
    struct content now = o->now;
    struct content then = now;

    if (o->ops > 0)
        content_apply(o, &then, &o->op[o->ops - 1]);
    if (version == VERSION_EMPTY)
        return (now.version[key] && oracle_value_len(o, key, now.version[key]) == 0) ||
               (then.version[key] && oracle_value_len(o, key, then.version[key]) == 0);
    return version == now.version[key] || version == then.version[key];
}

static bool one_get(struct work *w, uint32_t k)
{
    static char key_buf[KEY_MOST];
    kist_bytes key = { key_buf, oracle_key(w->o, k, key_buf) }, value = { 0 };
    uint32_t version = 0;
    int rc;

    must_ok(kist_read_begin());
    rc = kist_get(w->bank, key, &value);
    if (rc == KIST_OK)
        version = oracle_version(w->o, k, value);
    kist_read_end();
    if (rc >= 0 && may_have(w->o, k, version))
        return true;
    (void)fprintf(stderr, "key %u: %s, version %u, acknowledged %u, %s\n", k, kist_errname(rc),
                  version, w->o->now.version[k], oracle_op_text(w->o, w->o->ops - 1));
    return false;
}

/* Returns the waits that 1,000 gets needed; negative: something odd. */
static int64_t act_gets(struct work *w, int64_t seed)
{
    struct rng rng = { (uint64_t)seed };

    count_all_waits();
    warm = false;
    for (uint32_t k = 0; k < w->o->keys; k++)
        if (!one_get(w, k))
            return -1;
    warm = true;
    for (int i = 0; i < GETS; i++)
        if (!one_get(w, (uint32_t)rng_below(&rng, w->o->keys)))
            return -1;
    return (int64_t)waits;
}

/* ---- in the writer ---------------------------------------------------- */

static uint64_t stores, stop_each;

/* At each store of a short operation, at every n-th of a long one. */
static void stop_at_store(const void *addr, size_t len)
{
    (void)addr, (void)len;
    if (stores++ % stop_each == 0)
        actor_stop_self();
}

/* `arg`: which write, and how often it stops. */
static int64_t act_write(struct work *w, int64_t arg)
{
    uint32_t key = (uint32_t)(arg & 0xffff);
    int rc;

    stores = 0;
    stop_each = (uint64_t)arg >> 32;
    shm_seam = stop_at_store;
    if (arg & 0x10000)
        rc = work_delete(w, key);
    else if (arg & 0x20000)
        rc = work_compact(w);
    else
        rc = work_put(w, key);
    shm_seam = NULL;
    return rc < 0 ? rc : (int64_t)stores;
}

/* ---- the test --------------------------------------------------------- */

/* What the write was stopped for; returns the number of stops. */
static uint64_t one_write(struct tally *t, struct actor *writer, struct actor *reader, int64_t arg)
{
    uint64_t stops = 0;
    int64_t result;

    actor_tell(writer, act_write, arg);
    while ((result = actor_hear(writer)) == ACTOR_STOPPED) {
        stops++;
        tally_case(t);
        tally_state(t, mix((uint64_t)arg, stops));
        for (int i = 0; i < READERS; i++)
            actor_tell(&reader[i], act_gets, arg + (int64_t)stops);
        for (int i = 0; i < READERS; i++) {
            int64_t n = actor_hear(&reader[i]);

            if (n != 0)
                tally_fail(t, "reader %d at stop %llu of write %llx: %lld", i,
                           (unsigned long long)stops, (unsigned long long)arg, (long long)n);
        }
        actor_continue(writer);
    }
    if (result < 0)
        tally_fail(t, "the writer: %lld", (long long)result);
    return stops;
}

/* Puts of new keys that split blocks and roll segments, overwrites, deletes,
 * a cleaning. */
static int64_t which_write(uint32_t i, uint32_t keys)
{
    if (i == WRITES - 1)
        return 0x20000 | (INT64_C(7) << 32);
    if (i % 6 == 5)
        return 0x10000 | (int64_t)(i * 7 % keys) | INT64_C(1) << 32;
    return (int64_t)(i * 5 % keys) | INT64_C(1) << 32;
}

TEST(readers_never_wait_for_a_stopped_writer)
{
    static const struct plan plan = {
        "stopped", { "bank", 4096, KIST_DURABILITY_NONE, KIST_VERIFY_FIRST }, 200, 60, 0, 0, NULL, 0
    };
    struct tally *t = tally_new("readers_never_wait_for_a_stopped_writer");
    struct oracle *o = oracle_new();
    char *root = tmp_dir(TMP_FAST);
    struct actor writer, reader[READERS];
    uint64_t stops = 0;
    struct work w;

    plan_oracle(&plan, test_seed(), o);
    w = plan_work(&plan, root, NULL, o);
    writer = actor_start(&w);
    actor_must(&writer, act_open, 0, KIST_OK);
    for (uint32_t k = 0; k < 60; k++)
        actor_must(&writer, act_put, k, KIST_OK);
    for (int i = 0; i < READERS; i++) {
        reader[i] = actor_start(&w);
        actor_must(&reader[i], act_join, 1, KIST_OK);
        actor_must(&reader[i], act_check, 0, 0); /* warm */
    }
    for (uint32_t i = 0; i < test_scaled(WRITES); i++)
        stops += one_write(t, &writer, reader, which_write(i, plan.keys));
    must(stops > test_scaled(WRITES) * 5);
    actor_must(&writer, act_check, 0, 0);
    for (int i = 0; i < READERS; i++) {
        actor_must(&reader[i], act_check, 0, 0);
        actor_end(&reader[i]);
    }
    actor_end(&writer);
    free(root);
    tally_end(t);
}
