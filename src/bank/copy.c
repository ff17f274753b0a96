/*
 * copy.c - a bank as it was at one step, copied while others go on.
 *
 * The heap is the truth (I2), and no record is overwritten in place (I3). So
 * the segments that exist at a step, up to the tail of that step, are the bank
 * as it was then: what a rebuild makes of them is what a rebuild would have
 * made of the bank, had the machine stopped there. That is a prefix by
 * sequence.
 *
 *     remember   the count of unlinks
 *     read       the state: its tail is the end of the copy
 *     hold       the map of each segment up to there that has a file
 *     compare    the count: had one grown, a record could be missing whose
 *                new place is behind the tail; then all once more
 *     write      the bytes. The kernel keeps the pages of a file for whoever
 *                maps it, so cleaning may unlink it meanwhile
 *     rebuild    the index of the copy, which reads every record
 *
 * No lock is taken, and no byte of the bank is changed: a read-only handle
 * will do. What was read at the end of the copy need not be durable in the
 * bank; in the copy it is.
 */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

enum { PIECE = 1 << 20, SMALL_PAGE = 4096 };

struct heap_held {
    struct segment **segment; /* held, in the order of their numbers */
    size_t count;
    uint64_t tail;       /* behind the last record that is copied */
    uint64_t known_tail; /* the same, if a live vouches for it; 0: none does */
    uint64_t entries;    /* live keys then */
};

static void let_go(struct heap_held *held)
{
    for (size_t i = 0; i < held->count; i++)
        segment_release(held->segment[i]);
    os_free(held->segment);
    *held = (struct heap_held){ 0 };
}

static int hold(struct heap_held *held, struct segment *s)
{
    if ((held->count & (held->count - 1)) == 0) { /* full: 0, 1, 2, 4, ... */
        size_t room = held->count ? 2 * held->count : 1;
        struct segment **more = os_resize(held->segment, room * sizeof(struct segment *));

        if (!more)
            return KIST_ENOMEM;
        held->segment = more;
    }
    segment_hold(s);
    held->segment[held->count++] = s;
    return KIST_OK;
}

/* All segments that have a file, up to the tail's. -ENOENT: one went. */
static int hold_all(struct heap_held *held, struct core *c)
{
    uint64_t n = shm_read(&c->live->oldest), last = place_n(held->tail);
    struct segment *s;
    int rc;

    for (;; n++) {
        rc = bank_next_segment(c->bank, &n, last);
        if (rc == KIST_END)
            return KIST_OK;
        if (rc == KIST_OK)
            rc = core_map_segment(c, n, &s);
        if (rc == KIST_OK)
            rc = hold(held, s);
        if (rc < 0)
            return rc;
    }
}

/* ---- one look --------------------------------------------------------- */

/* Where the copy ends. A private live was made from all there is in the files,
 * and by the same rules the copy will be. */
static int find_tail(struct heap_held *held, const struct core *c)
{
    struct state s;

    if (!live_state(c->live, &s))
        return bank_err(c->bank, KIST_ECORRUPT, LIVE_FILE, 0,
                        "bank '%s': kist.live is damaged; run 'kist repair'", c->bank->name);
    held->entries = s.entries;
    held->tail = c->is_private ? place_make(core_newest(c), PLACE_OFF_LIMIT) : s.tail;
    held->known_tail = c->is_private ? 0 : s.tail;
    return KIST_OK;
}

/* Is the segment there in which the copy ends? */
static bool has_tail(const struct heap_held *held)
{
    return place_offset(held->tail) == SEGMENT_FIRST_RECORD ||
           (held->count > 0 && held->segment[held->count - 1]->n == place_n(held->tail));
}

/* A bank without a usable live has no count of unlinks. Then nobody may have
 * it open for writing, from before the look until after: *writers tells. */
static int ask_writers(const struct core *c, bool *writers)
{
    int fd, rc;

    *writers = false;
    if (!c->is_private)
        return KIST_OK;
    fd = bank_open_file(c->bank, LOCK_FILE, OS_READ);
    if (fd < 0)
        return fd == -ENOENT ? KIST_OK : bank_path_error(c->bank, fd, LOCK_FILE);
    rc = seat_any(fd);
    (void)os_close(fd);
    *writers = rc > 0;
    return rc < 0 ? err_os(rc, c->bank->name, LOCK_FILE, "ask who has the bank open") : KIST_OK;
}

/* KIST_OK; 1: something went meanwhile, look again; or an error. */
static int look_once(struct heap_held *held, struct core *c)
{
    uint64_t unlinks = shm_read(&c->live->unlinks); /* pairs with unlink_range() */
    bool writers;
    int rc = find_tail(held, c);

    if (rc == KIST_OK)
        rc = hold_all(held, c);
    if (rc == -ENOENT)
        return 1;
    if (rc < 0)
        return err_os(rc, c->bank->name, NULL, "map the bank's segments");
    rc = ask_writers(c, &writers);
    if (rc < 0)
        return rc;
    atomic_thread_fence(memory_order_acquire); /* the files, then the words */
    return writers || shm_peek(&c->live->unlinks) != unlinks || shm_peek(c->retired) != 0 ||
                   (!c->is_private && !has_tail(held))
               ? 1
               : KIST_OK;
}

static int look(kist_bank *h, struct heap_held *held)
{
    int rc = 1;

    for (int i = 0; i < READ_TRIES && rc == 1; i++) {
        struct core *c;

        let_go(held);
        rc = kist_read_begin();
        if (rc < 0)
            return rc;
        rc = core_enter(h, &c);
        if (rc == KIST_OK)
            rc = look_once(held, c);
        kist_read_end();
    }
    return rc == 1 ? bank_err(h->bank, KIST_EBUSY, NULL, ERR_NOWHERE,
                              "bank '%s' is being recovered or emptied by others; try again",
                              h->bank->name)
                   : rc;
}

/* ---- writing ---------------------------------------------------------- */

static bool is_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* What is zero stays a hole: the copy's segments are never appended to. */
static int write_piece(int fd, const uint8_t *p, size_t len, uint64_t at)
{
    size_t from = 0;
    int rc = 0;

    while (from < len && rc == 0) {
        size_t to = from, n;

        for (; to < len; to += n) {
            n = len - to < SMALL_PAGE ? len - to : SMALL_PAGE;
            if (is_zero(p + to, n))
                break;
        }
        rc = to > from ? os_write_all(fd, p + from, to - from, at + from) : 0;
        from = to + SMALL_PAGE;
    }
    return rc;
}

/* How far a segment is copied: up to its end, or the tail. */
static uint64_t reach(const struct heap_held *held, const struct segment *s)
{
    uint64_t at = place_offset(held->tail);

    return s->n < place_n(held->tail) || at >= PLACE_OFF_LIMIT || at > s->len ? s->len : at;
}

static int write_segment(const struct segment *s, uint64_t until, int fd, struct copying *cp)
{
    uint64_t page = os_page_size(), len = (until + page - 1) / page * page;
    int rc = os_truncate(fd, len > s->len ? s->len : len);

    for (uint64_t at = 0; at < until && rc == 0; at += PIECE) {
        size_t n = until - at < PIECE ? (size_t)(until - at) : PIECE;

        rc = write_piece(fd, s->base + at, n, at);
        cp->bytes += n;
        cp->done += n;
        if (rc == 0 && cp->progress)
            rc = cp->progress(cp->done < cp->all ? cp->done : cp->all, cp->all, cp->arg);
    }
    return rc == 0 ? os_fsync(fd) : rc;
}

static int write_heap(const struct heap_held *held, struct bank *to, int dir, struct copying *cp)
{
    char name[SEGMENT_NAME_MAX];
    int fd, rc = KIST_OK;

    for (size_t i = 0; i < held->count && rc == KIST_OK; i++) {
        segment_name(name, held->segment[i]->n);
        fd = os_open_under(dir, name, OS_WRITE | OS_CREATE, to->env->file_mode);
        rc = fd < 0 ? fd : bank_own(to, fd);
        if (rc == 0)
            rc = write_segment(held->segment[i], reach(held, held->segment[i]), fd, cp);
        if (fd >= 0)
            (void)os_close(fd);
        if (rc < 0)
            return err_os(rc, to->name, name, "write the copy");
    }
    return rc;
}

int bank_copy_settings(const struct bank *from, const struct bank_env *env, int dir)
{
    uint8_t content[4096] = { 0 };
    int64_t n;
    int fd = bank_open_file(from, BANK_FILE, OS_READ), rc;

    if (fd < 0)
        return fd == -ENOENT ? KIST_EGONE : bank_path_error(from, fd, BANK_FILE);
    n = os_pread(fd, content, sizeof content, 0);
    (void)os_close(fd);
    if (n < 0)
        return err_os((int)n, from->name, BANK_FILE, "read the bank's settings");
    fd = os_open_under(dir, BANK_FILE, OS_WRITE | OS_CREATE, env->file_mode);
    if (fd < 0)
        return err_os(fd, from->name, BANK_FILE, "write the copy");
    rc = os_write_all(fd, content, (size_t)n, 0);
    if (rc == 0)
        rc = os_own(fd, env->uid, env->gid, env->file_mode);
    if (rc == 0)
        rc = os_fsync(fd);
    (void)os_close(fd);
    return rc < 0 ? err_os(rc, from->name, BANK_FILE, "write the copy") : KIST_OK;
}

/* ---- the whole -------------------------------------------------------- */

/* The rebuild is the second half of the way. */
struct second_half {
    struct copying *cp;
    uint64_t from, bytes;
};

static int second_half(uint64_t done, uint64_t all, void *arg)
{
    const struct second_half *half = arg;
    struct copying *cp = half->cp;
    double share = all > 0 ? (double)done / (double)all : 1;

    if (!cp->progress)
        return KIST_OK;
    cp->done = half->from + (uint64_t)(share * (double)half->bytes);
    return cp->progress(cp->done < cp->all ? cp->done : cp->all, cp->all, cp->arg);
}

/* Is all there that the bank has? What was zeroed at the end of the heap looks
 * like an earlier end; the count of keys tells. */
static int compare(const struct bank *to, const struct heap_held *held, const kist_report *report)
{
    if (report->damaged > 0)
        return bank_err(to, KIST_ECORRUPT, report->first_file, report->first_offset,
                        "bank '%s' has %llu damaged records, so no copy was made; run 'kist "
                        "repair', or 'kist dump' for what can be read",
                        to->name, (unsigned long long)report->damaged);
    if (report->entries != held->entries)
        return bank_err(to, KIST_ECORRUPT, NULL, ERR_NOWHERE,
                        "bank '%s' has %llu entries, its heap %llu, so no copy was made; run "
                        "'kist repair', or 'kist dump' for what can be read",
                        to->name, (unsigned long long)held->entries,
                        (unsigned long long)report->entries);
    return KIST_OK;
}

static int make_index(struct bank *to, int dir, const struct heap_held *held, uint64_t bytes,
                      struct copying *cp)
{
    struct second_half half = { cp, cp->done, bytes };
    kist_report report = { .size = sizeof report };
    struct rebuild how = {
        .dir = dir,
        .again_from = PLACE_END,
        .known_tail = held->known_tail,
        .report = &report,
        .progress = second_half,
        .progress_arg = &half,
    };
    int rc = bank_make_lock_file(to, dir);

    if (rc == KIST_OK)
        rc = rebuild(to, &how);
    if (rc != KIST_OK)
        return rc;
    rc = compare(to, held, &report);
    if (rc == KIST_OK)
        cp->entries += report.entries;
    return rc;
}

int bank_copy(kist_bank *h, struct bank *to, struct copying *cp)
{
    struct heap_held held = { 0 };
    uint64_t before = cp->bytes;
    int dir = bank_open_dir(to), rc;

    if (dir < 0)
        return err_os(dir, to->name, NULL, "open the copy's directory");
    rc = look(h, &held);
    if (rc == KIST_OK)
        rc = write_heap(&held, to, dir, cp);
    if (rc == KIST_OK)
        rc = err_system(os_fsync(dir));
    if (rc == KIST_OK)
        rc = make_index(to, dir, &held, cp->bytes - before, cp);
    let_go(&held);
    (void)os_close(dir);
    return rc;
}
