/* core.c - entering a bank, and the maps that a core holds, see core.h. */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    TABLE_FIRST = 16,
    GAP_TRIES = 32, /* names tried one by one before the directory is read */
};

/* ---- files of the bank ------------------------------------------------ */

int bank_open_dir(const struct bank *b)
{
    return os_open_under(b->env->dir, b->name, OS_READ | OS_DIR, 0);
}

int bank_open_unasked(const struct bank *b, const char *file, int flags)
{
    char path[BANK_PATH_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", b->name, file);
    return os_open_under(b->env->dir, path, flags, 0);
}

int bank_open_file(const struct bank *b, const char *file, int flags)
{
    int fd = bank_open_unasked(b, file, flags), rc;
    struct os_stat st;

    if (fd < 0)
        return fd;
    rc = os_stat(fd, &st);
    if (rc == 0 && st.kind == OS_FILE_REGULAR)
        return fd;
    (void)os_close(fd);
    return rc < 0 ? rc : -ELOOP; /* as a link would be */
}

int bank_open_guarded(const struct bank *b, struct guarded *g, const char *file, int flags)
{
    int fd;

    *g = (struct guarded){ .fd = -1 };
    thread_hold_forks();
    fd = file ? bank_open_file(b, file, flags) : bank_open_dir(b);
    if (fd >= 0)
        thread_guard(g, fd);
    thread_allow_forks();
    return fd;
}

int bank_path_error(const struct bank *b, int rc, const char *file)
{
    if (rc == -ELOOP || rc == -ENOTDIR || rc == -ENXIO || rc == -EXDEV || rc == -EISDIR)
        return bank_err(b, KIST_EPATH, file, ERR_NOWHERE,
                        "a symlink, or no regular file or directory, is in the way of bank '%s'",
                        b->name);
    return err_os(rc, b->name, file, "open a file of the bank");
}

int bank_own(const struct bank *b, int fd)
{
    return os_own(fd, b->env->uid, b->env->gid, b->env->file_mode);
}

void bank_log(const struct bank *b, uint32_t level, const char *file, uint64_t offset,
              const char *format, ...)
{
    char text[256];
    kist_log_event e = {
        .level = level, .bank = b->name, .file = file, .offset = offset, .message = text
    };
    va_list ap;

    if (!b->env->log)
        return;
    va_start(ap, format);
    (void)vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    b->env->log(&e, b->env->log_arg);
}

/* ---- which segments exist --------------------------------------------- */

/* The lowest number in the directory from n to last. KIST_END: none. */
static int list_segments(int dir, uint64_t n, uint64_t last, uint64_t *out)
{
    _Alignas(8) char buf[8192];
    uint64_t lowest = UINT64_MAX;
    int64_t got;

    while ((got = os_list(dir, buf, sizeof buf)) > 0) {
        for (int64_t at = 0; at < got;) {
            const struct os_dirent *e = (const void *)(buf + at);
            uint64_t number = segment_number(e->name);

            if (number >= n && number <= last && number < lowest)
                lowest = number;
            at += e->len;
        }
    }
    if (got == 0 && lowest <= last)
        *out = lowest;
    return got < 0 ? (int)got : lowest <= last ? KIST_OK : KIST_END;
}

int bank_next_segment(const struct bank *b, uint64_t *n, uint64_t last)
{
    int dir, rc = KIST_END;
    char name[SEGMENT_NAME_MAX];
    uint64_t at = *n;
    struct os_stat st;

    last = last < SEGMENT_N_MAX ? last : SEGMENT_N_MAX;
    if (at > last)
        return KIST_END;
    dir = bank_open_dir(b);
    if (dir < 0)
        return dir;
    for (int i = 0; rc == KIST_END && i < GAP_TRIES && at <= last; i++) {
        segment_name(name, at);
        rc = os_stat_under(dir, name, &st);
        if (rc == -ENOENT) {
            rc = KIST_END;
            at++;
        }
    }
    if (rc == KIST_END && at <= last)
        rc = list_segments(dir, at, last, &at);
    (void)os_close(dir);
    if (rc == KIST_OK)
        *n = at;
    return rc;
}

int bank_skip_gap(const struct bank *b, uint64_t *n, uint64_t last)
{
    uint64_t next = *n + 1;
    int rc = bank_next_segment(b, &next, last);

    if (rc >= 0)
        *n = rc == KIST_OK ? next - 1 : last;
    return rc < 0 ? rc : KIST_OK;
}

uint64_t core_newest(const struct core *c)
{
    uint64_t newest = shm_read(&c->live->newest);

    return newest < SEGMENT_N_MAX ? newest : SEGMENT_N_MAX;
}

/* ---- segments --------------------------------------------------------- */

static void table_free(struct retired *r)
{
    os_free((char *)r - offsetof(struct segment_table, retired));
}

static struct segment_table *table_new(uint64_t size)
{
    struct segment_table *t = os_alloc(sizeof *t + size * sizeof t->at[0]);

    if (t)
        t->mask = size - 1;
    return t;
}

/* A table in which `s` and all others have a place of their own. */
static int table_grow(struct core *c, struct segment_table **table, uint64_t n)
{
    struct segment_table *old = *table, *t;
    uint64_t size = old ? (old->mask + 1) * 2 : TABLE_FIRST;
    bool fits;

    do {
        fits = true;
        t = table_new(size);
        if (!t)
            return KIST_ENOMEM;
        for (uint64_t i = 0; old && i <= old->mask; i++) {
            struct segment *s = atomic_load_explicit(&old->at[i], memory_order_relaxed);

            if (!s)
                continue;
            fits &= !atomic_load_explicit(&t->at[s->n & t->mask], memory_order_relaxed);
            atomic_store_explicit(&t->at[s->n & t->mask], s, memory_order_relaxed);
        }
        fits &= !atomic_load_explicit(&t->at[n & t->mask], memory_order_relaxed);
        if (!fits) {
            os_free(t);
            size *= 2;
        }
    } while (!fits);
    atomic_store_explicit(&c->segments, t, memory_order_release); /* core_segment */
    if (old)
        thread_retire(&old->retired, table_free);
    *table = t;
    return 0;
}

static void hold_lock(const struct core *c, uint64_t n, enum os_lock_kind kind)
{
    if (c->lock_fd >= 0 && !c->is_private) /* only statistics miss it, should it fail */
        (void)os_lock(c->lock_fd, kind, SEAT_HELD + n, 1, false);
}

static void drop_at(struct core *c, struct segment_table *t, uint64_t i)
{
    struct segment *s = atomic_load_explicit(&t->at[i], memory_order_relaxed);

    atomic_store_explicit(&t->at[i], NULL, memory_order_release);
    hold_lock(c, s->n, OS_LOCK_FREE);
    segment_retire(s);
}

/* Unlinked, as far as a look at `live` tells: below the oldest, or not in the
 * accounts while these are all in the first page. */
static bool is_gone(const struct core *c, uint64_t n)
{
    const struct live *l = c->live;

    if (n < shm_read(&l->oldest) || shm_read(&l->newest) - n >= 2 * SEGMENTS_ROUND)
        return true;
    return shm_read(&l->ring_lg) == LIVE_RING_LG && n < shm_read(&l->newest) &&
           shm_read(&l->ring[n % (1 << LIVE_RING_LG)].n) != n;
}

/* Further from the newest than segments in use may be. */
static bool is_far(const struct core *c, uint64_t n)
{
    uint64_t newest = shm_read(&c->live->newest);

    return (n > newest ? n - newest : newest - n) >= 2 * SEGMENTS_ROUND;
}

void core_drop_old(struct core *c)
{
    struct segment_table *t = atomic_load_explicit(&c->segments, memory_order_relaxed);

    for (uint64_t i = 0; t && i <= t->mask && !c->is_private; i++) {
        struct segment *s = atomic_load_explicit(&t->at[i], memory_order_relaxed);

        if (s && is_gone(c, s->n))
            drop_at(c, t, i);
    }
}

static int map_segment(struct core *c, uint64_t n, struct segment **out)
{
    char name[SEGMENT_NAME_MAX];
    int fd, rc;

    segment_name(name, n);
    fd = bank_open_file(c->bank, name, OS_READ);
    if (fd < 0)
        return fd == -ENOENT ? fd : bank_path_error(c->bank, fd, name);
    rc = segment_map(out, fd, c->bank->set.record.id, n);
    (void)os_close(fd);
    if (rc < 0 && rc > -4096) /* a system error, such as too many maps */
        return bank_err(c->bank, err_system(rc), name, ERR_NOWHERE, "cannot map the segment: %s",
                        kist_strerror(rc));
    if (rc < 0)
        return bank_err(c->bank, rc == KIST_ENOMEM ? rc : KIST_ECORRUPT, name, 0,
                        "the segment's header is damaged; run 'kist verify'");
    return rc;
}

int core_map_segment(struct core *c, uint64_t n, struct segment **out)
{
    struct segment_table *t;
    struct segment *s;
    int rc = 0;

    os_mutex_lock(&c->mapping);
    s = core_segment(c, n);
    if (s)
        goto out;
    core_drop_old(c);
    rc = -ENOENT;
    if (is_far(c, n)) /* no slot reaches it, and the table would have to */
        goto out;
    rc = map_segment(c, n, &s);
    if (rc < 0)
        goto out;
    t = atomic_load_explicit(&c->segments, memory_order_relaxed);
    if (atomic_load_explicit(&t->at[n & t->mask], memory_order_relaxed)) {
        rc = table_grow(c, &t, n);
        if (rc < 0) {
            segment_release(s);
            goto out;
        }
    }
    hold_lock(c, n, OS_LOCK_SHARED);
    atomic_store_explicit(&t->at[n & t->mask], s, memory_order_release); /* core_segment */
out:
    os_mutex_unlock(&c->mapping);
    if (rc == 0)
        *out = s;
    return rc;
}

const struct record *core_record(struct core *c, uint64_t loc, struct segment **segment,
                                 uint64_t *place)
{
    uint64_t at = loc_place(loc, shm_read(&c->live->newest));
    struct segment *s = core_segment(c, place_n(at));

    if (!s && core_map_segment(c, place_n(at), &s) < 0)
        return NULL;
    if (segment)
        *segment = s;
    if (place)
        *place = at;
    return segment_record(s, place_offset(at));
}

/* ---- the index -------------------------------------------------------- */

static int open_index(struct core *c, uint64_t generation, struct index_file **out)
{
    char name[INDEX_NAME_MAX];
    int fd;

    index_name(name, generation);
    fd = bank_open_file(c->bank, name, OS_READ | (c->writable ? OS_WRITE : 0));
    return fd < 0 ? fd
                  : index_open(out, c->bank->set.index, fd, c->bank->set.record.id, generation,
                               c->writable);
}

int core_follow_index(struct core *c, bool anew)
{
    struct index_file *old, *made = NULL;
    uint64_t generation;
    int rc = 0;

    os_mutex_lock(&c->mapping);
    old = atomic_load_explicit(&c->index, memory_order_relaxed);
    for (int i = 0; i < READ_TRIES; i++) {
        generation = shm_read(&c->live->generation);
        if (old && old->generation == generation && !anew)
            break;
        rc = open_index(c, generation, &made);
        if (rc != -ENOENT) /* else: replaced again since, look once more */
            break;
    }
    if (made) {
        atomic_store_explicit(&c->index, made, memory_order_release); /* core_ready */
        if (old)
            index_retire(old);
    }
    os_mutex_unlock(&c->mapping);
    if (rc < 0)
        return bank_err(c->bank,
                        rc == KIST_ENOMEM || (rc > -4096 && rc != -ENOENT) ? err_system(rc)
                                                                      : KIST_ECORRUPT,
                        "kist.index", ERR_NOWHERE,
                        "the index can't be opened (%s); run 'kist repair'", kist_strerror(rc));
    return rc;
}

int core_refresh_index(struct core *c, uint64_t seen)
{
    int rc;

    os_mutex_lock(&c->mapping);
    rc = index_refresh(atomic_load_explicit(&c->index, memory_order_relaxed), seen);
    os_mutex_unlock(&c->mapping);
    if (rc == -ENOMEM) {
        rc = core_follow_index(c, true);
        return rc < 0 ? rc : 1;
    }
    return rc;
}

/* ---- coming and going ------------------------------------------------- */

void core_free(struct core *c)
{
    struct segment_table *t = atomic_load_explicit(&c->segments, memory_order_relaxed);

    append_close(c);
    seat_leave(&c->seat);
    for (uint64_t i = 0; t && i <= t->mask; i++)
        segment_release(atomic_load_explicit(&t->at[i], memory_order_relaxed));
    os_free(t);
    index_close(atomic_load_explicit(&c->index, memory_order_relaxed));
    if (c->lock_fd >= 0)
        (void)os_close(c->lock_fd);
    map_drop(&c->ring_map);
    map_drop(&c->live_map);
    map_drop(&c->watch_map);
    os_free(c->scratch);
    os_free(c);
}

static void on_unseen(struct retired *r)
{
    core_free((struct core *)((char *)r - offsetof(struct core, gone)));
}

void core_install(struct bank *b, struct core *c)
{
    struct core *old = atomic_exchange_explicit(&b->core, c, memory_order_acq_rel);

    if (old)
        thread_retire(&old->gone, on_unseen);
}

/* Why there is no way on, or KIST_OK. */
static int handle_check(const kist_bank *h)
{
    const struct bank *b = h->bank;

    if (!*b->env->forked)
        return bank_err(b, KIST_EFORK, NULL, ERR_NOWHERE,
                        "bank '%s' was opened before fork; open the store again in the child",
                        b->name);
    if (atomic_load_explicit(&b->closed, memory_order_acquire))
        return bank_err(b, KIST_ECLOSED, NULL, ERR_NOWHERE,
                        "the store of bank '%s' was closed; open both again", b->name);
    return KIST_OK;
}

/* A private one that found no live: nothing tells it of another, so each call
 * looks whether there is one by now. */
static bool has_no_watch(const struct core *c)
{
    return c->is_private && !c->watch_map.base;
}

static bool has_live_now(const struct bank *b)
{
    int fd = bank_open_file(b, LIVE_FILE, OS_READ);
    struct os_stat st;
    bool has = fd >= 0 && os_stat(fd, &st) == 0 && st.size >= LIVE_BYTES;

    if (fd >= 0)
        (void)os_close(fd);
    return has;
}

bool core_is_up_to_date(const struct core *c)
{
    return shm_peek(c->retired) == c->retired_before &&
           !(has_no_watch(c) && has_live_now(c->bank));
}

bool core_was_right(struct core *c)
{
    bool was = core_is_up_to_date(c);

    if (!was)
        atomic_store_explicit(&c->stamp, 0, memory_order_relaxed);
    return was;
}

/* Open the bank, or open it again because its live was retired. */
static int reopen(kist_bank *h, struct core **out)
{
    struct bank *b = h->bank;
    struct core *c = atomic_load_explicit(&b->core, memory_order_acquire);
    /* relaxed: who opens a writing handle raised it before it comes here */
    bool writable = atomic_load_explicit(&b->writers, memory_order_relaxed) > 0;
    int rc;

    if (c && (c->writable || !writable) && core_is_up_to_date(c)) {
        *out = c;
        return KIST_OK;
    }
    b->env->make_room(b->env->arg);
    rc = bank_read_settings(b);
    if (rc == KIST_ENOBANK)
        rc = bank_err(b, KIST_EGONE, NULL, ERR_NOWHERE, "bank '%s' was dropped", b->name);
    if (rc < 0)
        return rc;
    if (c) /* leave the old seat, or the bank would look in use (I8) */
        core_install(b, NULL);
    rc = core_open(b, writable, deadline_after(h->deadline_ms), &c);
    if (rc < 0)
        return rc;
    core_install(b, c);
    *out = c;
    return KIST_OK;
}

bool bank_was_used(struct bank *b)
{
    /* acquire: pairs with core_enter_slow(): its stamp, stored before, goes too */
    bool used = atomic_exchange_explicit(&b->used, 0, memory_order_acquire) != 0;
    struct core *c;

    if (kist_read_begin() < 0)
        return true;
    c = atomic_load_explicit(&b->core, memory_order_acquire); /* core_install() */
    if (c)
        atomic_store_explicit(&c->stamp, 0, memory_order_relaxed);
    kist_read_end();
    return used;
}

int core_enter_slow(kist_bank *h, struct core **out)
{
    struct core *c = NULL;
    uint64_t stamp;
    int rc = handle_check(h);

    if (rc < 0)
        return rc;
    os_mutex_lock(&h->bank->opening);
    rc = handle_check(h);
    if (rc == KIST_OK)
        rc = reopen(h, &c);
    os_mutex_unlock(&h->bank->opening);
    if (rc < 0)
        return rc;
    stamp = shm_read(c->change); /* before the look at what it tells of */
    if (core_index(c)->generation != shm_read(&c->live->generation)) {
        rc = core_follow_index(c, false);
        if (rc < 0)
            return rc;
    }
    os_mutex_lock(&c->mapping);
    core_drop_old(c);
    os_mutex_unlock(&c->mapping);
    if (shm_read(c->retired) == c->retired_before && !has_no_watch(c))
        atomic_store_explicit(&c->stamp, stamp, memory_order_relaxed);
    /* release: pairs with bank_was_used() */
    atomic_store_explicit(&h->bank->used, 1, memory_order_release);
    *out = c;
    return KIST_OK;
}
