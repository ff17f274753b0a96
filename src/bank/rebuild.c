/*
 * rebuild.c - make index and live anew from the heap alone (I2, case 4).
 *
 *     list        the segments, and which parts of them are void (S4)
 *     survey      read every record: marks, clears, commits, damage
 *     cut         ⚑ the first bad record at or above every mark's C is a torn
 *                 tail: what lies behind it, in any segment, is dropped. One
 *                 below some mark's C is corruption: reported, passed over
 *     fill        a new index from what counts
 *     make        a new segment with a new incarnation, that names where its
 *                 predecessor ends (nothing is ever appended to a recovered
 *                 one), and a new live; both by names that mean nothing
 *     sync        the segments taken over, and the new one; what a failed sync
 *                 may have lost is written again before, see sync.c
 *     retire      the old live, synced: nobody goes on by it from here on
 *     exchange    the segment gets its name, void ones go, the new live takes
 *                 the old one's name
 *
 * ⚑ Killed or given up before the old live is retired, whoever has the bank
 * open goes on by it, as if nothing had been: so until then no segment may say
 * that another one ends, and none may go. Killed behind that, the next one
 * starts again from the same heap, whoever else has the bank open. For a
 * read-only handle the same is done in private memory, and no file is touched.
 */
#include "bank/rebuild.h"

#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQUENCE_GAP_LG = 40, SEAT_GAP_LG = 16 };

/* ---- filling ---------------------------------------------------------- */

static const struct record *survey_record(void *arg, uint64_t loc, uint64_t *place)
{
    struct heap_survey *v = arg;
    struct part *p;

    *place = loc_place(loc, v->newest);
    p = survey_part(v, place_n(*place));
    return p ? segment_record(p->segment, place_offset(*place)) : NULL;
}

static void survey_live(void *arg, uint64_t n, int64_t bytes)
{
    struct part *p = survey_part(arg, n);

    if (p)
        p->live += (uint64_t)bytes;
}

/* Add what counts of one record. */
static int fill_one(struct heap_survey *v, struct fill *f, const struct record *r, uint64_t place)
{
    if ((record_kind(r) != RECORD_PUT && record_kind(r) != RECORD_DELETE) ||
        r->sequence < v->cleared || !survey_counts(v, r, place))
        return KIST_OK;
    return fill_add(f, r, place);
}

/* A damaged record whose lengths lead on keeps its place in the index: its
 * key then gives an error, not an older value, nor a miss. */
static bool likely_newest(const struct heap_survey *v, const struct record *r, uint64_t place)
{
    return record_kind(r) == RECORD_PUT && r->sequence >= v->cleared &&
           r->sequence <= v->sequence && survey_counts(v, r, place);
}

static int fill_part(struct heap_survey *v, struct fill *f, struct part *p)
{
    struct scan scan = { .segment = p->segment, .bank = &v->bank->set.record, .until = p->until,
                         .trusted = !p->damaged };
    struct scan_step step;
    int rc = KIST_OK;

    while (rc == KIST_OK && p->until > SEGMENT_FIRST_RECORD) {
        scan_next(&scan, &step);
        if (step.found == SCAN_END)
            break;
        if (step.found == SCAN_RECORD) {
            rc = fill_one(v, f, step.record, place_make(p->n, step.offset));
            if (record_kind(step.record) == RECORD_PUT || record_kind(step.record) == RECORD_DELETE)
                p->used += step.len;
        } else if (step.record &&
                   likely_newest(v, step.record, place_make(p->n, step.offset))) {
            uint64_t before = f->state->entries;

            rc = fill_add(f, step.record, place_make(p->n, step.offset));
            v->suspects += f->state->entries - before;
        }
    }
    return rc;
}

static int fill_all(struct heap_survey *v, struct index_file *ix, struct state *s)
{
    struct fill f;
    int rc = KIST_OK;

    fill_init(&f, ix, s, &v->bank->set.record, survey_record, survey_live, v);
    for (size_t i = 0; i < v->count && rc == KIST_OK; i++) {
        rc = fill_part(v, &f, &v->part[i]);
        s->used += v->part[i].used;
        if (rc == KIST_OK)
            rc = survey_progress(v, v->part[i].until);
    }
    return rc;
}

/* ---- the new segment --------------------------------------------------- */

/* One that was never given, and that no file has, not even a stray one. */
static int next_number(const struct heap_survey *v, const struct rebuild *how, uint64_t *n)
{
    char name[SEGMENT_NAME_MAX];
    struct os_stat st;
    int rc;

    for (*n = v->numbered + 1; *n <= SEGMENT_N_MAX; ++*n) {
        segment_name(name, *n);
        rc = os_stat_under(how->dir, name, &st);
        if (rc < 0)
            return rc == -ENOENT ? 0 : rc;
    }
    return KIST_EWINDOW;
}

/* ⚑ By another name: where its predecessor ends must hold for nobody who still
 * appends to that one. */
static int new_segment(struct heap_survey *v, const struct rebuild *how, uint64_t n)
{
    const struct part *last = v->count ? &v->part[v->count - 1] : NULL;
    struct segment_header h = { .n = n, .incarnation = v->incarnation + 1 };
    int fd, rc;

    if (last) {
        h.predecessor = last->n;
        h.cut16 = (uint32_t)(place_offset(place_behind(last->n, last->until)) / RECORD_ALIGN);
    }
    memcpy(h.bank_id, v->bank->set.record.id, sizeof h.bank_id);
    segment_header_seal(&h);
    /* A page: the one after it will be as large as the heap asks for. */
    rc = os_unlink(how->dir, SEGMENT_NEW_FILE);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    fd = segment_create(how->dir, SEGMENT_NEW_FILE, os_page_size(), v->bank->env->file_mode, &h);
    if (fd < 0)
        return fd;
    rc = bank_own(v->bank, fd);
    if (rc == 0)
        rc = os_fsync(fd);
    if (rc < 0) {
        (void)os_close(fd);
        return rc;
    }
    return fd;
}

/* ⚑ The kernel takes these bytes for written, though a sync failed: written
 * once more, as they are, they will be. */
static int write_again(const struct part *p, int fd, uint64_t from)
{
    uint64_t at = place_n(from) == p->n ? place_offset(from) : 0;

    if (p->n < place_n(from) || at >= p->until)
        return 0;
    return os_write_all(fd, p->segment->base + at, (size_t)(p->until - at), at);
}

/* ⚑ The kernel tells of it once. Whoever goes on by the old live, or begins the
 * rebuild again, has to know. */
static int sync_failed_here(const struct rebuild *how, int rc)
{
    if (!how->core || !how->core->live || !how->core->writable)
        return rc;
    return sync_failed(how->core, rc);
}

/* ⚑ What was taken over and is not known to be durable is synced before the
 * first write: else unsynced bytes would pass for durable. */
static int sync_parts(struct heap_survey *v, const struct rebuild *how)
{
    char name[SEGMENT_NAME_MAX];
    int rc = 0;

    for (size_t i = 0; i < v->count && rc == 0; i++) {
        int fd;

        if (v->part[i].n < place_n(v->durable) && v->part[i].n < place_n(how->again_from))
            continue;
        segment_name(name, v->part[i].n);
        fd = os_open_under(how->dir, name, OS_READ | OS_WRITE, 0);
        if (fd < 0)
            return fd;
        rc = write_again(&v->part[i], fd, how->again_from);
        if (rc == 0)
            rc = os_fdatasync(fd);
        if (rc < 0)
            rc = sync_failed_here(how, rc);
        (void)os_close(fd);
    }
    return rc;
}

static int unlink_void(struct heap_survey *v, const struct rebuild *how)
{
    char name[SEGMENT_NAME_MAX];
    int rc = 0;

    for (size_t i = 0; i < v->void_count && rc == 0; i++) {
        segment_name(name, v->voids[i]);
        rc = os_unlink(how->dir, name);
        if (rc == -ENOENT)
            rc = 0;
    }
    return rc;
}

/* ---- the new live ------------------------------------------------------ */

static void live_fill(struct live *l, const struct heap_survey *v, const struct state *s,
                      uint64_t newest)
{
    struct state state = *s;

    live_format(l, v->bank->set.record.id);
    l->incarnation = v->incarnation + 1;
    shm_store(&l->change, 1); /* a core that saw none yet has 0 */
    shm_store(&l->newest, newest);
    shm_store(&l->numbered, newest);
    shm_store(&l->oldest, v->count ? v->part[0].n : newest);
    shm_store(&l->cleared, v->cleared);
    shm_store(&l->recovery, v->count ? KIST_RECOVERY_REBUILD : KIST_RECOVERY_NONE);
    shm_store(&l->recovery_ns, v->count ? (uint64_t)os_clock(OS_CLOCK_REAL_COARSE) : 0);
    shm_store(&l->damaged_bytes, v->damaged_bytes);
    shm_store(&l->dirty, 1);
    shm_store(&l->horizon, state.visible);
    live_step(l, &state);
}

/* The accounts, in the first page or behind it. */
static void ring_fill(struct live *l, const struct heap_survey *v, uint8_t *file, uint64_t newest,
                      uint64_t newest_ino)
{
    unsigned lg = v->ring_lg;
    struct live_segment *ring = (void *)(file + (sizeof(struct live_segment) << lg));
    uint64_t mask = (UINT64_C(1) << lg) - 1;

    shm_store(&l->ring_lg, lg);
    for (size_t i = 0; i < v->count; i++) {
        struct live_segment *e = &ring[v->part[i].n & mask];

        shm_store(&e->n, v->part[i].n);
        shm_store(&e->ino, v->part[i].segment->ino);
        shm_store(&e->used, v->part[i].used);
        shm_store(&e->live, v->part[i].live);
    }
    shm_store(&ring[newest & mask].n, newest);
    shm_store(&ring[newest & mask].ino, newest_ino);
}

static int identify(struct live *l, const struct rebuild *how, int live_fd, int index_fd)
{
    struct os_place place;
    struct os_stat st;
    int rc = os_place(how->dir, &place);

    if (rc < 0)
        return rc;
    memcpy(l->boot_id, place.boot_id, sizeof place.boot_id);
    l->witness = place.witness;
    rc = os_stat_under(how->dir, BANK_FILE, &st);
    l->ino_bank = st.ino;
    if (rc == 0)
        rc = os_stat_under(how->dir, LOCK_FILE, &st);
    l->ino_lock = st.ino;
    if (rc == 0)
        rc = os_stat(index_fd, &st);
    shm_store(&l->ino_index[shm_peek(&l->generation) & 1], st.ino);
    if (rc == 0)
        rc = os_stat(live_fd, &st);
    l->ino_live = st.ino;
    l->dev = st.dev;
    shm_told(l, LIVE_BYTES);
    return rc;
}

/* Seats are numbers never given before: start where nobody can have been. */
static int first_seat(struct live *l)
{
    uint64_t random;
    int rc = os_random(&random, sizeof random);

    shm_store(&l->seats, (random & ((UINT64_C(1) << 44) - 1)) << SEAT_GAP_LG);
    return rc;
}

struct made {
    struct map live_map;
    struct live *live;
    struct index_file *index;
    int live_fd, segment_fd;
    uint64_t newest, newest_ino;
    bool exchanged; /* or begun to: what was made stays */
};

static int make_live_file(struct heap_survey *v, const struct rebuild *how, struct made *m)
{
    size_t len = sizeof(struct live_segment) << (v->ring_lg + 1);
    int rc;

    rc = os_unlink(how->dir, LIVE_NEW_FILE);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    m->live_fd = os_open_under(how->dir, LIVE_NEW_FILE, OS_WRITE | OS_CREATE,
                               v->bank->env->file_mode);
    if (m->live_fd < 0)
        return m->live_fd;
    rc = bank_own(v->bank, m->live_fd);
    if (rc == 0)
        rc = os_allocate(m->live_fd, 0, len);
    if (rc == 0)
        rc = map_file(&m->live_map, m->live_fd, len, 0, OS_PROT_READ | OS_PROT_WRITE);
    m->live = (struct live *)(void *)m->live_map.base;
    return rc;
}

/* ---- exchange ----------------------------------------------------------- */

/* Whoever maps the old live goes to look for the new one. ⚑ Synced: a clean
 * one must not come back, and count, with a power cut. */
static int retire_old(struct core *c)
{
    int fd, rc;

    if (!c || !c->live || !c->writable)
        return 0;
    fd = bank_open_file(c->bank, LIVE_FILE, OS_READ | OS_WRITE);
    if (fd < 0) /* then nothing has happened yet */
        return fd;
    live_retire(c->live);
    rc = os_fdatasync(fd);
    (void)os_close(fd);
    return rc;
}

/* What can't be given up half way, but killed: then it is begun again. */
static int exchange(struct heap_survey *v, const struct rebuild *how, uint64_t newest)
{
    char name[SEGMENT_NAME_MAX];
    int rc = retire_old(how->core);

    segment_name(name, newest);
    if (rc == 0)
        rc = os_rename(how->dir, SEGMENT_NEW_FILE, name);
    if (rc == 0)
        rc = os_fsync(how->dir); /* the new segment, before void ones go */
    if (rc == 0)
        rc = unlink_void(v, how);
    if (rc == 0)
        rc = os_rename(how->dir, LIVE_NEW_FILE, LIVE_FILE);
    return rc < 0 ? rc : os_fsync(how->dir);
}

static void unlink_leftovers(const struct heap_survey *v, const struct rebuild *how, uint64_t keep)
{
    char name[INDEX_NAME_MAX];

    for (size_t i = 0; i < v->leftover_count; i++)
        (void)os_unlink(how->dir, v->leftover[i]);
    for (size_t i = 0; i < v->index_count; i++) {
        if (v->index[i] == keep)
            continue;
        index_name(name, v->index[i]);
        (void)os_unlink(how->dir, name);
    }
}

static int rebuild_files(struct heap_survey *v, const struct rebuild *how, struct made *m,
                         struct state *s)
{
    uint64_t generation = v->generation + 1;
    struct os_stat st;
    int rc;

    rc = next_number(v, how, &m->newest);
    if (rc >= 0)
        rc = m->segment_fd = new_segment(v, how, m->newest);
    if (rc >= 0)
        rc = os_stat(m->segment_fd, &st);
    if (rc >= 0)
        rc = make_live_file(v, how, m);
    if (rc >= 0)
        rc = index_create(&m->index, v->bank->set.index, how->dir, v->bank->env->file_mode,
                          v->bank->set.record.id, generation, v->puts > v->bank->set.expect_entries
                                         ? v->puts
                                         : v->bank->set.expect_entries);
    if (rc >= 0)
        rc = bank_own(v->bank, m->index->fd);
    if (rc >= 0)
        rc = fill_all(v, m->index, s);
    if (rc != KIST_OK)
        return rc; /* positive: what the caller's progress said */
    m->newest_ino = st.ino;
    s->tail = place_make(m->newest, SEGMENT_FIRST_RECORD);
    s->last = 0;
    live_fill(m->live, v, s, m->newest);
    ring_fill(m->live, v, m->live_map.base, m->newest, m->newest_ino);
    shm_store(&m->live->generation, generation);
    shm_store(&m->live->durable, s->tail);
    rc = identify(m->live, how, m->live_fd, m->index->fd);
    if (rc == 0)
        rc = first_seat(m->live);
    if (how->poison != 0) {
        shm_store(&m->live->poison, how->poison);
        shm_store(&m->live->durable, how->again_from);
    } else if (rc == 0) {
        rc = sync_parts(v, how);
    }
    m->exchanged = rc == 0;
    if (rc == 0)
        rc = exchange(v, how, m->newest);
    if (rc == 0)
        unlink_leftovers(v, how, generation);
    return rc;
}

/* Given up: the disk may be full. */
static void unlink_made(const struct rebuild *how, const struct made *m)
{
    char name[INDEX_NAME_MAX];

    if (m->segment_fd >= 0)
        (void)os_unlink(how->dir, SEGMENT_NEW_FILE);
    if (m->live_fd >= 0)
        (void)os_unlink(how->dir, LIVE_NEW_FILE);
    if (!m->index)
        return;
    index_name(name, m->index->generation);
    (void)os_unlink(how->dir, name);
}

static int rebuild_private(struct heap_survey *v, struct core *c, struct state *s)
{
    struct index_file *ix;
    struct map live_map;
    int rc = map_memory(&live_map, LIVE_BYTES, 0);

    if (rc < 0)
        return rc;
    rc = index_create_private(&ix, v->bank->set.index, v->bank->set.record.id, v->puts);
    if (rc == 0) {
        rc = fill_all(v, ix, s);
        if (rc < 0)
            index_close(ix);
    }
    if (rc < 0) {
        map_drop(&live_map);
        return rc;
    }
    c->watch_map = c->live_map; /* its `retired` tells when to look again */
    c->live_map = live_map;
    c->live = (struct live *)(void *)live_map.base;
    c->is_private = true;
    if (c->watch_map.base) {
        c->retired_before = shm_peek(c->retired);
    } else {
        c->retired = &c->live->retired;
        c->change = &c->live->change;
    }
    s->tail = v->count ? v->end : place_make(v->newest, SEGMENT_FIRST_RECORD);
    live_fill(c->live, v, s, v->newest);
    shm_store(&c->live->generation, ix->generation);
    atomic_store_explicit(&c->index, ix, memory_order_release);
    return KIST_OK;
}

/* ⚑ Dropped while we waited for a lock, and perhaps made anew: then the files
 * are another bank's. From here on nobody can: who would has to open it, or
 * needs the lock word. */
static int is_still_there(struct bank *b)
{
    int rc = bank_read_settings(b);

    return rc != KIST_ENOBANK ? rc : bank_err(b, KIST_EGONE, NULL, ERR_NOWHERE,
                                              "bank '%s' was dropped", b->name);
}

/* Behind all that was given. ⚑ What only this process sees is a moment before that of the
 * rebuild that is due: its index is told of no move, so a pin of it has to keep what is
 * moved first thing after that. */
static uint64_t next_sequence(const struct heap_survey *v, const struct rebuild *how)
{
    uint64_t next = ((v->sequence >> SEQUENCE_GAP_LG) + 1) << SEQUENCE_GAP_LG;

    return v->sequence == 0 ? 0 : how->is_private ? next - 1 : next;
}

int rebuild(struct bank *b, const struct rebuild *how)
{
    struct made m = { .live_fd = -1, .segment_fd = -1 };
    struct heap_survey v;
    struct state s = { 0 };
    int rc = is_still_there(b);

    if (rc < 0)
        return rc;
    rc = survey_heap(&v, b, how);
    if (rc == KIST_OK) {
        s.visible = next_sequence(&v, how);
        rc = how->is_private ? rebuild_private(&v, how->core, &s)
                             : rebuild_files(&v, how, &m, &s);
    }
    if (rc == KIST_OK && how->report)
        how->report->entries = s.entries - v.suspects;
    survey_free(&v);
    if (rc != KIST_OK && !m.exchanged)
        unlink_made(how, &m);
    if (m.live_fd >= 0)
        (void)os_close(m.live_fd);
    if (m.segment_fd >= 0)
        (void)os_close(m.segment_fd);
    map_drop(&m.live_map);
    index_close(m.index);
    return rc < 0 ? err_os(rc, b->name, NULL, "rebuild the bank") : rc;
}
