/*
 * open.c - opening and closing a bank's files, and what a bank is made of.
 *
 * Who opens for writing holds the recovery lock while it decides:
 *
 *     a seat lives   retired, in its place       rebuild: the last one was killed
 *                    files as recorded      yes: join        no: KIST_EFOREIGN
 *     nobody lives   clean, files as recorded    use the index as it is
 *                    files and place as recorded a process died: repair
 *                    anything else               rebuild from the heap
 *
 * The files are recorded by device and inode. The place is the boot and the
 * mounted superblock: only there does the page cache hold what a process that
 * died had stored. The clean mark needs no place, since all that it vouches
 * for was synced before it, and it is removed, synced, before anything
 * changes.
 *
 * The last close also holds the recovery lock, and sets the clean mark.
 */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BANK_FORMAT = 1, BANK_COPY_AT = 2048, BANK_BYTES = 4096 };

/* ---- kist.bank -------------------------------------------------------- */

/* Twice in its file, so that damage to one copy costs nothing. */
struct bank_file {
    char magic[8];
    uint32_t format, index;
    uint8_t id[16];
    uint64_t seed;
    uint32_t segment_bytes, durability;
    uint32_t interval_ms, verify;
    uint64_t expect_entries;
    uint64_t checksum;
};
static_assert(sizeof(struct bank_file) == 72, "on-disk: kist.bank");

static const char magic[8] = { 'K', 'I', 'S', 'T', 'B', 'A', 'N', 'K' };

static int settings_take(struct bank_settings *to, const struct bank_file *f)
{
    if (memcmp(f->magic, magic, sizeof magic) != 0 ||
        f->checksum != hash_bytes(f, offsetof(struct bank_file, checksum)))
        return KIST_ECORRUPT;
    if (f->format > BANK_FORMAT || (f->index != KIST_INDEX_HASH && f->index != KIST_INDEX_ORDERED))
        return KIST_ENEWER;
    *to = (struct bank_settings){
        .record.seed = f->seed,
        .index = f->index,
        .segment_bytes = f->segment_bytes,
        .durability = f->durability,
        .interval_ms = f->interval_ms,
        .verify = f->verify,
        .expect_entries = f->expect_entries,
    };
    memcpy(to->record.id, f->id, sizeof f->id);
    return KIST_OK;
}

static int path_error(const struct bank *b, int rc)
{
    if (rc == -ENOENT)
        return bank_err(b, KIST_ENOBANK, NULL, ERR_NOWHERE, "there is no bank '%s'", b->name);
    return bank_path_error(b, rc, BANK_FILE);
}

static int settings_read(const struct bank *b, struct bank_settings *to)
{
    uint8_t content[BANK_BYTES] = { 0 };
    struct bank_file f;
    struct os_stat st;
    int64_t n;
    int fd = bank_open_file(b, BANK_FILE, OS_READ), rc;

    if (fd < 0)
        return path_error(b, fd);
    rc = os_stat(fd, &st);
    n = rc < 0 || st.kind != OS_FILE_REGULAR ? -EINVAL : os_pread(fd, content, sizeof content, 0);
    (void)os_close(fd);
    if (n < 0)
        return bank_err(b, KIST_EPATH, BANK_FILE, 0, "kist.bank of '%s' is no regular file",
                        b->name);
    memcpy(&f, content, sizeof f);
    rc = settings_take(to, &f);
    if (rc == KIST_ECORRUPT) {
        memcpy(&f, content + BANK_COPY_AT, sizeof f);
        rc = settings_take(to, &f);
        if (rc == KIST_OK)
            bank_log(b, KIST_LOG_DAMAGE, BANK_FILE, 0, "the first copy of the settings is damaged");
    }
    return rc < 0 ? bank_err(b, rc, BANK_FILE, 0, "kist.bank of '%s': %s", b->name,
                             kist_strerror(rc))
                  : KIST_OK;
}

/* Settings are kept once, before other threads know of the bank; these read
 * them without a lock. A bank's id never changes: when it does, this is
 * another bank. */
int bank_read_settings(struct bank *b)
{
    struct bank_settings now;
    int rc = settings_read(b, &now);

    if (rc < 0)
        return rc;
    if (!b->known) {
        b->set = now;
        b->known = true;
    } else if (memcmp(now.record.id, b->set.record.id, sizeof now.record.id) != 0) {
        return bank_err(b, KIST_EGONE, NULL, ERR_NOWHERE,
                        "bank '%s' was dropped, and another one made", b->name);
    }
    return KIST_OK;
}

static int write_settings(struct bank *b, int dir, const char *name)
{
    uint8_t content[BANK_BYTES] = { 0 };
    struct bank_file f = {
        .format = BANK_FORMAT,
        .index = b->set.index,
        .segment_bytes = b->set.segment_bytes,
        .durability = b->set.durability,
        .interval_ms = b->set.interval_ms,
        .verify = b->set.verify,
        .expect_entries = b->set.expect_entries,
    };
    int fd, rc = os_random(f.id, sizeof f.id);

    if (rc == 0)
        rc = os_random(&f.seed, sizeof f.seed);
    if (rc < 0)
        return rc;
    memcpy(f.magic, magic, sizeof magic);
    f.checksum = hash_bytes(&f, offsetof(struct bank_file, checksum));
    memcpy(content, &f, sizeof f);
    memcpy(content + BANK_COPY_AT, &f, sizeof f);
    fd = os_open_under(dir, name, OS_WRITE | OS_CREATE, b->env->file_mode);
    if (fd < 0)
        return fd;
    rc = os_write_all(fd, content, sizeof content, 0);
    if (rc == 0)
        rc = bank_own(b, fd);
    if (rc == 0)
        rc = os_fsync(fd);
    (void)os_close(fd);
    return rc;
}

/* Under flock of the directory. Settings under a new name, synced, linked:
 * of two who make one bank, one wins, and both use the winner's. */
int bank_create_files(struct bank *b, int dir)
{
    char name[64];
    uint64_t random;
    int rc = os_random(&random, sizeof random), fd;

    if (rc < 0)
        return rc;
    (void)snprintf(name, sizeof name, BANK_FILE ".%016llx", (unsigned long long)random);
    rc = write_settings(b, dir, name);
    if (rc == 0)
        rc = os_link(dir, name, BANK_FILE);
    (void)os_unlink(dir, name);
    if (rc < 0)
        return rc;
    fd = os_open_under(dir, LOCK_FILE, OS_WRITE | OS_CREATE, b->env->file_mode);
    if (fd >= 0) {
        rc = bank_own(b, fd);
        (void)os_close(fd);
    } else if (fd != -EEXIST) {
        rc = fd;
    }
    return rc < 0 ? rc : os_fsync(dir);
}

/* ---- identity --------------------------------------------------------- */

static int inode_of(int dir, const char *name, uint64_t *dev, uint64_t *ino)
{
    struct os_stat st;
    int rc = os_stat_under(dir, name, &st);

    if (rc == 0) {
        *dev = st.dev;
        *ino = st.ino;
    }
    return rc;
}

static bool file_is(int dir, const char *name, uint64_t dev, uint64_t ino)
{
    uint64_t d, i;

    return inode_of(dir, name, &d, &i) == 0 && d == dev && i == ino;
}

static bool own_files_match(const struct live *l, int dir)
{
    return file_is(dir, BANK_FILE, l->dev, l->ino_bank) &&
           file_is(dir, LOCK_FILE, l->dev, l->ino_lock) &&
           file_is(dir, LIVE_FILE, l->dev, l->ino_live);
}

static bool match_as_of(const struct live *l, int dir, uint64_t generation, uint64_t newest)
{
    const struct live_segment *e = &l->ring[newest % (1 << LIVE_RING_LG)];
    char index[INDEX_NAME_MAX], segment[SEGMENT_NAME_MAX];

    index_name(index, generation);
    segment_name(segment, newest);
    return own_files_match(l, dir) &&
           file_is(dir, index, l->dev, shm_peek(&l->ino_index[generation & 1])) &&
           (shm_peek(&l->ring_lg) != LIVE_RING_LG || shm_peek(&e->n) != newest ||
            file_is(dir, segment, l->dev, shm_peek(&e->ino)));
}

bool core_was_retired_here(const struct core *c, int dir)
{
    return shm_peek(&c->live->retired) != 0 && own_files_match(c->live, dir);
}

int core_wait_for_holder(const struct core *c, int dir, int64_t deadline)
{
    for (;;) {
        uint64_t held = shm_read(&c->live->lock) >> 1; /* pairs with lock_leave() */

        if (held == 0 || seat_lives(c->lock_fd, held) == 0)
            break;
        if (deadline_left(deadline, WAIT_MS) == 0)
            return bank_err(c->bank, KIST_EBUSY, LIVE_FILE, ERR_NOWHERE,
                            "bank '%s': another process is dropping it", c->bank->name);
        (void)os_sleep(deadline_left(deadline, WAIT_MS));
    }
    if (core_was_retired_here(c, dir))
        return KIST_OK;
    return bank_err(c->bank, KIST_EGONE, NULL, ERR_NOWHERE, "bank '%s' was dropped", c->bank->name);
}

bool core_files_match(const struct live *l, int dir)
{
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t generation = shm_read(&l->generation), newest = shm_read(&l->newest);

        if (match_as_of(l, dir, generation, newest))
            return true;
        if (generation == shm_read(&l->generation) && newest == shm_read(&l->newest))
            return false;
    } /* else: a writer went on meanwhile */
    return false;
}

static bool place_matches(const struct live *l, int dir)
{
    struct os_place p;

    return os_place(dir, &p) == 0 && p.witness != 0 && p.witness == l->witness &&
           memcmp(p.boot_id, l->boot_id, sizeof p.boot_id) == 0;
}

/* In the place where it was written, and with no failed sync, a live is right
 * about its tail: a bad record below is damage then, and not a torn tail. */
uint64_t core_known_tail(const struct core *c, int dir)
{
    struct state s;

    if (shm_peek(&c->live->poison) != 0 ||
        !(core_was_retired_here(c, dir) || core_files_match(c->live, dir)) ||
        !place_matches(c->live, dir) || !live_state(c->live, &s))
        return 0;
    return s.tail;
}

uint64_t core_again_from(const struct live *l)
{
    return shm_peek(&l->poison) != 0 || shm_peek(&l->syncing) != 0 ? shm_peek(&l->durable)
                                                                   : PLACE_END;
}

/* L2: the last record of the last step is whole and ends at the tail. */
static bool tail_holds(struct core *c)
{
    struct segment *seg;
    struct state s;
    uint64_t at;

    if (!live_state(c->live, &s))
        return false;
    if (core_map_segment(c, place_n(s.tail), &seg) < 0)
        return false;
    if (s.last == 0)
        return place_offset(s.tail) == SEGMENT_FIRST_RECORD;
    if (place_n(s.last) != place_n(s.tail))
        return false;
    at = place_offset(s.last);
    return segment_record(seg, at) &&
           record_is_whole(segment_record(seg, at), seg->len - at, &c->bank->set.record, s.last) &&
           place_behind(seg->n, at + record_size(segment_record(seg, at))) == s.tail;
}

/* ---- the four openings ------------------------------------------------ */

enum opening { OPEN_JOIN, OPEN_CLEAN, OPEN_DIED, OPEN_REBUILD };

int recovery_lock(const struct bank *b, int fd, bool shared, int64_t deadline)
{
    for (;;) {
        int rc = os_lock(fd, shared ? OS_LOCK_SHARED : OS_LOCK_EXCLUSIVE, SEAT_RECOVERY, 1, false);

        if (rc != -EAGAIN)
            return rc < 0 ? err_os(rc, b->name, LOCK_FILE, "lock the bank for opening") : 0;
        if (deadline_left(deadline, WAIT_MS) == 0)
            return bank_err(b, KIST_EBUSY, LOCK_FILE, ERR_NOWHERE,
                            "bank '%s': another process is recovering it", b->name);
        (void)os_sleep(deadline_left(deadline, WAIT_MS));
    }
}

static struct core *core_new(struct bank *b, bool writable)
{
    struct core *c = os_alloc(sizeof *c);
    struct segment_table *t = os_alloc(sizeof *t + 16 * sizeof t->at[0]);

    if (!c || !t) {
        os_free(c);
        os_free(t);
        return NULL;
    }
    t->mask = 15;
    atomic_store_explicit(&c->segments, t, memory_order_relaxed);
    os_mutex_init(&c->mapping);
    c->bank = b;
    c->writable = writable;
    c->lock_fd = c->active.fd = -1;
    return c;
}

/* Map kist.live. KIST_MISS: there is none that could be used. */
static int map_live(struct core *c)
{
    int fd = bank_open_file(c->bank, LIVE_FILE, OS_READ | (c->writable ? OS_WRITE : 0));
    struct os_stat st;
    int rc;

    if (fd == -ENOENT)
        return KIST_MISS;
    if (fd < 0)
        return path_error(c->bank, fd);
    rc = os_stat(fd, &st);
    if (rc == 0 && (st.kind != OS_FILE_REGULAR || st.size < LIVE_BYTES))
        rc = KIST_MISS;
    if (rc == 0)
        rc = map_file(&c->live_map, fd, LIVE_BYTES, 0,
                      OS_PROT_READ | (c->writable ? OS_PROT_WRITE : 0));
    (void)os_close(fd);
    if (rc < 0)
        return err_os(rc, c->bank->name, LIVE_FILE, "map the live file");
    if (rc == KIST_MISS)
        return rc;
    c->live = (struct live *)(void *)c->live_map.base;
    c->retired = &c->live->retired;
    c->change = &c->live->change;
    /* One of a newer format counts as none: what its bank may hold is told by
     * kist.bank and the segments. While its process lives, decide() refuses. */
    return live_check(c->live, c->bank->set.record.id) < 0 ? KIST_MISS : KIST_OK;
}

static int decide(struct core *c, int dir, bool have_live, int64_t deadline, enum opening *out)
{
    int lives = c->lock_fd < 0 ? 0 : seat_any(c->lock_fd);
    bool match = have_live && shm_peek(&c->live->retired) == 0 && core_files_match(c->live, dir);

    if (lives < 0)
        return err_os(lives, c->bank->name, LOCK_FILE, "ask who has the bank open");
    *out = OPEN_REBUILD;
    if (lives && have_live && core_was_retired_here(c, dir))
        return core_wait_for_holder(c, dir, deadline);
    if (lives && !match)
        return bank_err(c->bank, KIST_EFOREIGN, LIVE_FILE, ERR_NOWHERE,
                        "bank '%s' is in use, and its files were exchanged meanwhile; close it "
                        "everywhere, then run 'kist repair'",
                        c->bank->name);
    if (lives)
        *out = OPEN_JOIN;
    else if (match && live_is_clean(c->live) && tail_holds(c))
        *out = OPEN_CLEAN;
    else if (match && shm_peek(&c->live->clean) == 0 && place_matches(c->live, dir) &&
             tail_holds(c))
        *out = OPEN_DIED;
    return KIST_OK;
}

/* Take a seat; numbers come from a counter that only grows. */
int core_sit_down(struct core *c)
{
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t n = shm_add(&c->live->seats, 1) & SEAT_MAX;
        int fd, rc;

        thread_hold_forks();
        fd = bank_open_file(c->bank, LOCK_FILE, OS_READ | OS_WRITE);
        rc = fd < 0 ? fd : seat_take(&c->seat, fd, n ? n : 1);
        thread_allow_forks();
        if (rc == 0)
            return KIST_OK;
        if (rc != -EAGAIN)
            return err_os(rc, c->bank->name, LOCK_FILE, "take a writer's seat");
    }
    return bank_err(c->bank, KIST_ECORRUPT, LOCK_FILE, ERR_NOWHERE,
                    "bank '%s': no free seat; run 'kist repair'", c->bank->name);
}

static int start_rebuild(struct core *c, int dir, bool have_live)
{
    /* ⚑ Only a repair that was asked for ends the poison. */
    uint64_t poison = have_live ? shm_peek(&c->live->poison) : 0;
    struct rebuild how = {
        .dir = dir,
        .is_private = !c->writable,
        .poison = poison,
        .known_tail = have_live ? core_known_tail(c, dir) : 0,
        .again_from = have_live ? core_again_from(c->live) : PLACE_END,
        .core = c,
    };

    /* In the place where it was written, and not whole any more, behind a sync
     * of one who died: that sync failed, and the kernel gave up its pages. Noted
     * at once, for who comes next should this rebuild be killed. */
    if (how.known_tail != 0 && shm_peek(&c->live->syncing) != 0 &&
        shm_peek(&c->live->retired) == 0) {
        how.poison = EIO;
        how.known_tail = 0;
        if (c->writable)
            shm_publish(&c->live->poison, EIO);
    }
    return rebuild(c->bank, &how);
}

/* A copy may have been made without it. */
int bank_make_lock_file(const struct bank *b, int dir)
{
    int fd = os_open_under(dir, LOCK_FILE, OS_WRITE | OS_CREATE, b->env->file_mode);

    if (fd == -EEXIST)
        return KIST_OK;
    if (fd < 0)
        return path_error(b, fd);
    (void)bank_own(b, fd);
    (void)os_close(fd);
    return KIST_OK;
}

static int open_lock_file(struct core *c)
{
    c->lock_fd = bank_open_file(c->bank, LOCK_FILE, OS_READ | (c->writable ? OS_WRITE : 0));
    if (c->lock_fd >= 0)
        return KIST_OK;
    if (c->lock_fd == -ENOENT && !c->writable) {
        c->lock_fd = -1;
        return KIST_OK;
    }
    return path_error(c->bank, c->lock_fd);
}

/* Under the recovery lock. */
static int open_locked(struct core *c, int dir, bool have_live, int64_t deadline)
{
    enum opening how = OPEN_REBUILD;
    int rc = decide(c, dir, have_live, deadline, &how);

    if (rc < 0)
        return rc;
    if (how == OPEN_REBUILD) {
        rc = start_rebuild(c, dir, have_live);
        if (rc < 0 || !c->writable)
            return rc;
        map_drop(&c->live_map);
        rc = map_live(c);
        if (rc == KIST_MISS)
            rc = bank_err(c->bank, KIST_ECORRUPT, LIVE_FILE, 0, "bank '%s': kist.live vanished",
                          c->bank->name);
        if (rc < 0)
            return rc;
    }
    rc = core_follow_index(c, false);
    if (rc == KIST_OK && c->writable)
        rc = core_sit_down(c);
    if (rc == KIST_OK && c->writable && how == OPEN_DIED) {
        rc = lock_take(c, 0); /* repairs, if it was held */
        if (rc == KIST_OK) {
            bank_log(c->bank, KIST_LOG_INFO, LIVE_FILE, ERR_NOWHERE,
                     "bank '%s' was not closed; what its processes had stored is there",
                     c->bank->name);
            shm_store(&c->live->recovery, KIST_RECOVERY_REPAIR);
            shm_store(&c->live->recovery_ns, (uint64_t)os_clock(OS_CLOCK_REAL_COARSE));
            lock_leave(c);
        }
    }
    return rc;
}

int core_start(struct bank *b, bool writable, struct core **out, bool *have_live)
{
    struct core *c = core_new(b, writable);
    int rc;

    if (!c)
        return KIST_ENOMEM;
    rc = open_lock_file(c);
    if (rc == KIST_OK)
        rc = map_live(c);
    if (rc < 0) {
        core_free(c);
        return rc;
    }
    *have_live = rc == KIST_OK;
    *out = c;
    return KIST_OK;
}

/* The recovery lock first: what is mapped behind it can't be exchanged. */
static int lock_and_start(struct bank *b, int dir, bool writable, int64_t deadline,
                          struct guarded *lock, struct core **c, bool *have_live)
{
    int fd, rc = KIST_OK;

    if (writable)
        rc = bank_make_lock_file(b, dir);
    if (rc < 0)
        return rc;
    fd = bank_open_guarded(b, lock, LOCK_FILE, OS_READ | (writable ? OS_WRITE : 0));
    if (fd < 0 && (fd != -ENOENT || writable))
        return path_error(b, fd);
    if (fd >= 0) /* else nobody ever had it open for writing */
        rc = recovery_lock(b, fd, !writable, deadline);
    return rc < 0 ? rc : core_start(b, writable, c, have_live);
}

int core_open(struct bank *b, bool writable, int64_t deadline, struct core **out)
{
    struct guarded lock = { .fd = -1 };
    struct core *c = NULL;
    bool have_live;
    int dir = bank_open_dir(b), rc;

    if (dir < 0)
        return path_error(b, dir);
    rc = lock_and_start(b, dir, writable, deadline, &lock, &c, &have_live);
    if (rc == KIST_OK)
        rc = open_locked(c, dir, have_live, deadline);
    thread_guard_close(&lock);
    (void)os_close(dir);
    if (rc < 0) {
        if (c)
            core_free(c);
        return rc;
    }
    *out = c;
    return KIST_OK;
}

/* ---- closing ---------------------------------------------------------- */

/* All is synced: say so, in this order. */
static int mark_clean(struct core *c)
{
    struct live *l = c->live;
    int fd = bank_open_file(c->bank, LIVE_FILE, OS_READ | OS_WRITE), rc;

    if (fd < 0) /* without the mark the next open looks for itself */
        return err_os(fd, c->bank->name, LIVE_FILE, "open the live file");
    rc = index_file_sync(core_index(c));
    if (rc == 0)
        rc = os_fdatasync(fd);
    if (rc == 0) {
        shm_store(&l->dirty, 0);
        shm_store(&l->clean, live_checksum(l));
        rc = os_fdatasync(fd);
    }
    (void)os_close(fd);
    return rc < 0 ? sync_failed(c, rc) : KIST_OK;
}

/* Nobody else has it open, and the recovery lock is held. */
static int close_last(struct core *c)
{
    struct state s;
    int rc = KIST_OK;

    if (shm_peek(&c->live->poison) != 0 || shm_peek(c->retired) != 0 ||
        shm_peek(&c->live->clean) != 0)
        return KIST_OK;                  /* nothing to say, or said already */
    if (shm_peek(&c->live->lock) != 0) { /* left by a dead one */
        rc = repair(c);
        if (rc == KIST_OK)
            shm_store(&c->live->lock, 0);
    }
    if (rc == KIST_OK && !live_state(c->live, &s))
        return KIST_OK;
    if (rc == KIST_OK)
        rc = append_ready(c, &s);
    if (rc == KIST_OK)
        rc = core_follow_index(c, false);
    if (rc < 0)
        return rc;
    rc = sync_alone(c, &s);
    if (rc == KIST_OK)
        rc = mark_clean(c);
    /* With no room for the last mark all is synced just the same. */
    return rc == KIST_EFULL || rc == KIST_EQUOTA || rc == KIST_EFILESIZE ? KIST_OK : rc;
}

int core_close(struct core *c)
{
    struct guarded lock = { .fd = -1 };
    int fd, rc = KIST_OK;

    if (c->writable) {
        fd = bank_open_guarded(c->bank, &lock, LOCK_FILE, OS_READ | OS_WRITE);
        if (fd >= 0 && recovery_lock(c->bank, fd, false, deadline_after(WAIT_MS)) == 0 &&
            seat_others(fd, c->seat.number) == 0)
            rc = close_last(c);
        else if (shm_peek(c->retired) == 0)
            rc = sync_before_leaving(c);
    }
    seat_leave(&c->seat);
    thread_guard_close(&lock);
    return rc;
}
