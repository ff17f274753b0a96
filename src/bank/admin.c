/*
 * admin.c - drop and repair: what takes a bank's files out of everybody's
 * hands. Both end in a `retired` live, which every handle notices at its next
 * call.
 */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

/* ---- drop ----------------------------------------------------------------- */

/* All files of kist's own in the directory; what else is there stays. */
static int unlink_all(int dir)
{
    _Alignas(8) char buf[8192];
    bool any = true;
    int64_t got = 0;

    while (any) { /* again from the start, until nothing is left to unlink */
        int fd = os_open_under(dir, ".", OS_READ | OS_DIR, 0);

        if (fd < 0)
            return fd;
        any = false;
        while ((got = os_list(fd, buf, sizeof buf)) > 0) {
            for (int64_t at = 0; at < got;) {
                const struct os_dirent *e = (const void *)(buf + at);

                if (strncmp(e->name, "kist.", 5) == 0 && os_unlink(dir, e->name) == 0)
                    any = true;
                at += e->len;
            }
        }
        (void)os_close(fd);
    }
    return (int)got;
}

/* kist.bank first: without it there is no bank, whatever else is left. */
static int remove_files(const struct bank *b, int dir)
{
    const char *last = strrchr(b->name, '/');
    int rc = os_unlink(dir, BANK_FILE);

    if (rc == 0)
        rc = os_fsync(dir);
    if (rc == 0)
        rc = unlink_all(dir);
    if (rc < 0)
        return err_os(rc, b->name, BANK_FILE, "remove the bank's files");
    if (last == NULL) /* a nested bank's directory may be shared: it stays */
        (void)os_rmdir(b->env->dir, b->name);
    return KIST_OK;
}

int bank_drop(kist_bank *h)
{
    struct guarded lock;
    struct writer w;
    int dir, rc = write_begin(&w, h, WRITE_POISONED);

    if (rc < 0)
        return rc;
    dir = bank_open_guarded(h->bank, &lock, NULL, 0);
    rc = dir < 0 ? err_os(dir, h->bank->name, NULL, "open the bank's directory")
                 : os_flock(dir, OS_LOCK_EXCLUSIVE);
    if (rc == 0) {
        live_retire(w.core->live);
        rc = remove_files(h->bank, dir);
    }
    thread_guard_close(&lock);
    write_end(&w);
    return rc;
}

/* ---- repair ------------------------------------------------------------------ */

/* Somebody has it open: then with the lock word, so that nobody is writing. A
 * rebuild does all that a repair of what a dead holder left would do. */
static int lock_if_used(struct core *c, int dir, bool have_live, int32_t ms, uint64_t *dead)
{
    int lives = seat_any(c->lock_fd), rc;

    if (lives <= 0)
        return lives < 0 ? err_os(lives, c->bank->name, LOCK_FILE, "ask who has it open") : KIST_OK;
    if (have_live && core_was_retired_here(c, dir))
        return core_wait_for_holder(c, dir, deadline_after(ms));
    if (!have_live || shm_peek(&c->live->retired) != 0 || !core_files_match(c->live, dir))
        return bank_err(c->bank, KIST_EFOREIGN, LIVE_FILE, ERR_NOWHERE,
                        "bank '%s' is in use, and its files were exchanged meanwhile; close it "
                        "everywhere first",
                        c->bank->name);
    rc = core_sit_down(c);
    if (rc == KIST_OK)
        rc = lock_take_as_is(c, ms, dead);
    if (rc == KIST_OK && shm_peek(&c->live->retired) != 0) { /* it was dropped meanwhile */
        lock_leave(c);
        rc = KIST_EGONE;
    }
    return rc != KIST_EGONE ? rc : bank_err(c->bank, rc, NULL, ERR_NOWHERE,
                                            "bank '%s' was dropped", c->bank->name);
}

int bank_repair(struct bank *b, int32_t deadline_ms, const struct rebuild *how)
{
    struct guarded lock = { .fd = -1 };
    struct rebuild mine = *how;
    struct core *c = NULL;
    bool have_live = false;
    uint64_t dead = 0;
    int dir = bank_open_dir(b), fd, rc;

    if (dir < 0)
        return err_os(dir, b->name, NULL, "open the bank's directory");
    rc = bank_make_lock_file(b, dir);
    if (rc == KIST_OK) {
        fd = bank_open_guarded(b, &lock, LOCK_FILE, OS_READ | OS_WRITE);
        rc = fd < 0 ? err_os(fd, b->name, LOCK_FILE, "open the lock file")
                    : recovery_lock(b, fd, false, deadline_after(deadline_ms));
    }
    if (rc == KIST_OK)
        rc = core_start(b, true, &c, &have_live);
    if (rc == KIST_OK)
        rc = lock_if_used(c, dir, have_live, deadline_ms, &dead);
    if (rc == KIST_OK) {
        mine.dir = dir;
        mine.core = c; /* a live of no use is retired too: readers may watch it */
        mine.known_tail = have_live ? core_known_tail(c, dir) : 0;
        mine.again_from = have_live ? core_again_from(c->live) : PLACE_END;
        rc = rebuild(b, &mine);
        if (have_live && shm_peek(&c->live->lock) >> 1 == c->seat.number && c->seat.number != 0)
            lock_give_back(c, rc != KIST_OK ? dead : 0);
    }
    if (c)
        core_free(c);
    thread_guard_close(&lock);
    (void)os_close(dir);
    return rc;
}
