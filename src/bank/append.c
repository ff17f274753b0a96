/*
 * append.c - how records get into the heap: the active segment, the next one,
 * and the accounts. The writer alone, holding the lock word.
 *
 * A roll to the next segment, in the order in which a kill may cut it off:
 *
 *     prepared = N'     the file exists, with its header
 *     padding           the old one is full up to its end
 *     newest = N'       readers may meet N' in slots
 *     (the operation's own record, then its step with a tail in N')
 *
 * A `prepared` that is not above the tail's segment means none. Whoever takes
 * over finds the padding behind the tail and walks on into N'.
 */
#include "bank/core.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

enum {
    MARKS_ROOM = 4 * RECORD_MIN + RECORD_MIN, /* marks of a close, and one over */
    DELETES_SHARE = 16,       /* of a segment, kept for tombstones */
    DELETES_MOST = 128 << 10,
    AHEAD_FROM = 1 << 20,     /* smaller segments are made when needed */
    WRITE_WHOLE = 256 << 10,  /* up to here a record is put together first */
    AHEAD_LEAST = 64 << 10,   /* written ahead when no more is left */
    AHEAD_DURABLE = 64 << 10, /* and how much, where each record is synced */
};

/* ---- the accounts of segments ----------------------------------------- */

static struct live_segment *ring_base(struct core *c, unsigned lg)
{
    if (lg == LIVE_RING_LG)
        return c->live->ring;
    return c->ring;
}

/* Map the ring that lies behind the first page; ring of 2^lg at 2^lg * 32. Its
 * place is allocated when it is made (`anew`), and else must be there. */
static int ring_map(struct core *c, unsigned lg, bool anew)
{
    size_t len = sizeof(struct live_segment) << lg;
    struct os_stat st;
    struct map m;
    int fd, rc;

    if (lg == LIVE_RING_LG || (c->ring && c->ring_map.len == 2 * len))
        return 0;
    fd = bank_open_file(c->bank, LIVE_FILE, OS_READ | OS_WRITE);
    if (fd < 0)
        return fd;
    rc = anew ? os_allocate(fd, 0, 2 * len) : os_stat(fd, &st);
    if (rc == 0 && !anew && st.size < 2 * len)
        rc = KIST_ECORRUPT;
    if (rc == 0)
        rc = map_file(&m, fd, 2 * len, 0, OS_PROT_READ | OS_PROT_WRITE);
    (void)os_close(fd);
    if (rc < 0)
        return rc;
    map_drop(&c->ring_map);
    c->ring_map = m;
    c->ring = (struct live_segment *)(void *)(m.base + len);
    return 0;
}

static void ring_copy(struct live_segment *to, const struct live_segment *from)
{
    shm_store(&to->n, shm_peek(&from->n));
    shm_store(&to->ino, shm_peek(&from->ino));
    shm_store(&to->used, shm_peek(&from->used));
    shm_store(&to->live, shm_peek(&from->live));
}

/* Twice as large: an entry's new place is the old one or that plus the size. */
static int ring_grow(struct core *c, unsigned lg)
{
    struct live_segment *old = ring_base(c, lg), *ring;
    uint64_t size = UINT64_C(1) << lg;
    struct map before = c->ring_map;
    int rc;

    c->ring_map = (struct map){ 0 };
    rc = ring_map(c, lg + 1, true);
    if (rc < 0) {
        c->ring_map = before;
        return rc;
    }
    ring = c->ring;
    for (uint64_t i = 0; i < size; i++)
        if (shm_peek(&old[i].n) != 0) /* else it would take the place of another */
            ring_copy(&ring[shm_peek(&old[i].n) & (2 * size - 1)], &old[i]);
    shm_publish(&c->live->ring_lg, lg + 1);
    map_drop(&before);
    return 0;
}

static struct live_segment *ring_at(struct core *c, uint64_t n)
{
    unsigned lg = (unsigned)shm_peek(&c->live->ring_lg);

    if (lg == LIVE_RING_LG)
        return &c->live->ring[n & ((1 << LIVE_RING_LG) - 1)];
    if (lg < LIVE_RING_LG || lg > LOC_N_BITS || ring_map(c, lg, false) < 0)
        return NULL;
    return &ring_base(c, lg)[n & ((UINT64_C(1) << lg) - 1)];
}

struct live_segment *ring_entry(struct core *c, uint64_t n)
{
    struct live_segment *e = ring_at(c, n);

    return e && shm_peek(&e->n) == n ? e : NULL;
}

void ring_add(struct core *c, uint64_t n, int64_t used, int64_t live)
{
    struct live_segment *e = ring_entry(c, n);

    if (!e)
        return;
    if (used != 0)
        shm_store(&e->used, shm_peek(&e->used) + (uint64_t)used);
    if (live != 0)
        shm_store(&e->live, shm_peek(&e->live) + (uint64_t)live);
}

void ring_forget_live(struct core *c)
{
    struct live_segment *first = ring_at(c, 0);

    for (uint64_t i = 0; first && i < UINT64_C(1) << shm_peek(&c->live->ring_lg); i++)
        shm_store(&first[i].live, 0);
}

static int ring_new(struct core *c, uint64_t n, uint64_t ino)
{
    unsigned lg = (unsigned)shm_peek(&c->live->ring_lg);
    struct live_segment *e;
    int rc;

    while (n - shm_peek(&c->live->oldest) >= UINT64_C(1) << lg && lg < LOC_N_BITS) {
        rc = ring_map(c, lg, false);
        if (rc == 0)
            rc = ring_grow(c, lg++);
        if (rc < 0)
            return rc;
    }
    e = ring_at(c, n);
    if (!e)
        return 0; /* a hint is missing, no more */
    shm_store(&e->n, n);
    shm_store(&e->ino, ino);
    shm_store(&e->used, 0);
    shm_store(&e->live, 0);
    return 0;
}

/* ---- the counters ----------------------------------------------------- */

struct key_record key_record_of(const struct record *r, uint64_t place)
{
    return (struct key_record){
        .counts = record_kind(r) == RECORD_PUT,
        .tombstone = record_kind(r) == RECORD_DELETE,
        .size = record_size(r),
        .payload = (uint64_t)r->key_len + r->value_len,
        .n = place_n(place),
    };
}

/* Counters that damage made too small stop at 0. */
static void less(uint64_t *counter, uint64_t n)
{
    *counter = *counter > n ? *counter - n : 0;
}

void ring_replace(struct core *c, struct key_record old, struct key_record now)
{
    if (old.counts)
        ring_add(c, old.n, 0, -(int64_t)old.size);
    if (now.counts)
        ring_add(c, now.n, 0, (int64_t)now.size);
}

void state_count(struct state *s, struct key_record old, struct key_record now)
{
    if (old.counts) {
        less(&s->entries, 1);
        less(&s->payload, old.payload);
        less(&s->live, old.size);
    }
    if (old.tombstone)
        less(&s->deleted, 1);
    if (now.counts) {
        s->entries++;
        s->payload += now.payload;
        s->live += now.size;
    }
    s->deleted += now.tombstone;
}

void state_replace(struct core *c, struct state *s, struct key_record old, struct key_record now)
{
    ring_replace(c, old, now);
    state_count(s, old, now);
}

/* ---- the active segment ----------------------------------------------- */

void append_close(struct core *c)
{
    if (c->active.n == 0)
        return;
    map_drop(&c->active.map);
    if (c->active.fd >= 0)
        (void)os_close(c->active.fd);
    c->active = (struct active){ .fd = -1 };
}

/* Take over `fd`, which is segment N opened for writing. */
static int active_take(struct core *c, uint64_t n, int fd)
{
    struct active a = { .n = n, .fd = fd };
    struct segment *keep;
    struct os_stat st;
    int rc = os_stat(fd, &st);

    /* ⚑ Until it is synced a segment stays mapped: the map holds the inode,
     * and with it the error of a write that failed in the background. */
    if (rc == 0 && !core_segment(c, n))
        rc = core_map_segment(c, n, &keep);
    if (rc == 0)
        rc = map_file(&a.map, fd, st.size, 0, OS_PROT_READ | OS_PROT_WRITE);
    if (rc < 0) {
        (void)os_close(fd);
        return rc;
    }
    a.len = st.size & ~UINT64_C(15);
    a.base = a.map.base;
    append_close(c);
    c->active = a;
    return 0;
}

int append_ready(struct core *c, const struct state *s)
{
    uint64_t n = place_n(s->tail);
    char name[SEGMENT_NAME_MAX];
    int fd, rc;

    if (c->active.n == n)
        return 0;
    segment_name(name, n);
    fd = bank_open_file(c->bank, name, OS_READ | OS_WRITE);
    rc = fd < 0 ? fd : active_take(c, n, fd);
    if (rc < 0)
        return err_os(rc, c->bank->name, name, "open the active segment");
    return 0;
}

/* ---- the next segment ------------------------------------------------- */

static uint64_t round_to_page(uint64_t n)
{
    uint64_t page = os_page_size();

    return (n + page - 1) / page * page;
}

/* As large as all the records there are, so that the heap doubles, within the
 * bank's limit; or what one large record needs. */
static uint64_t next_size(const struct core *c, const struct state *s, uint64_t need)
{
    uint64_t len = os_page_size(), most = c->bank->set.segment_bytes;

    while (len < s->used && len < most)
        len *= 2;
    need += SEGMENT_FIRST_RECORD + MARKS_ROOM;
    need += need / DELETES_SHARE < DELETES_MOST ? need / DELETES_SHARE : DELETES_MOST;
    while (len < need && len < most)
        len *= 2;
    return len >= need ? len : round_to_page(need);
}

/* Make the file of a new segment that follows the active one. */
static int make_segment(struct core *c, uint64_t n, uint64_t size)
{
    struct segment_header h = { .n = n, .predecessor = c->active.n };
    struct os_stat st;
    char name[SEGMENT_NAME_MAX];
    int dir, fd, rc;

    segment_name(name, n);
    memcpy(h.bank_id, c->bank->set.record.id, sizeof h.bank_id);
    h.incarnation = c->live->incarnation;
    segment_header_seal(&h);
    dir = bank_open_dir(c->bank);
    if (dir < 0)
        return err_os(dir, c->bank->name, NULL, "open the bank's directory");
    fd = rc = segment_create(dir, name, size, c->bank->env->file_mode, &h);
    if (fd == -EEXIST) { /* made by one who died before he could tell */
        (void)os_unlink(dir, name);
        fd = rc = segment_create(dir, name, size, c->bank->env->file_mode, &h);
    }
    if (fd >= 0) {
        rc = bank_own(c->bank, fd);
        if (rc == 0)
            rc = os_stat(fd, &st);
        if (rc == 0)
            rc = ring_new(c, n, st.ino);
        /* ⚑ Name, size and header are on the disk before a record is written:
         * else a later segment could survive without this one. */
        if (rc == 0) {
            rc = os_fsync(fd);
            if (rc == 0)
                rc = os_fsync(dir);
            if (rc < 0)
                rc = sync_failed(c, rc);
        }
        (void)os_close(fd);
        if (rc < 0)
            (void)os_unlink(dir, name);
    }
    (void)os_close(dir);
    return rc < 0 && rc != KIST_EPOISON ? err_os(rc, c->bank->name, name, "make a segment") : rc;
}

static uint64_t prepared(const struct core *c, const struct state *s)
{
    uint64_t n = shm_peek(&c->live->prepared);

    return n > place_n(s->tail) ? n : 0;
}

static uint64_t highest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A number counts as given only when its file is there: one who dies before
 * leaves a file that nothing leads to, which make_segment() makes anew. */
static int prepare(struct core *c, const struct state *s, uint64_t size)
{
    struct live *l = c->live;
    uint64_t n = highest(highest(shm_peek(&l->numbered), shm_peek(&l->newest)),
                         place_n(s->tail)) + 1;
    int rc;

    if (n - shm_peek(&l->oldest) >= UINT64_C(1) << (LOC_N_BITS - 1) || n > SEGMENT_N_MAX)
        return bank_err(c->bank, KIST_EWINDOW, NULL, ERR_NOWHERE,
                        "bank '%s' has too many segments; run 'kist compact'", c->bank->name);
    rc = make_segment(c, n, size);
    if (rc == 0) {
        shm_store(&l->numbered, n);
        shm_publish(&l->prepared, n);
    }
    return rc;
}

void append_prepare(struct core *c, const struct state *s)
{
    uint64_t half = c->active.len / 2;

    if (c->active.len >= AHEAD_FROM && place_offset(s->tail) > half && prepared(c, s) == 0)
        (void)prepare(c, s, next_size(c, s, 0)); /* a full disk is told when it is needed */
}

static int put_bytes(struct core *c, const void *p, uint64_t len, uint64_t at, bool durable)
{
    if (durable)
        return os_write_all(c->active.fd, p, len, at);
    shm_copy(c->active.base + at, p, len);
    return 0;
}

/* Fill the active segment up to its end. */
static int pad(struct core *c, struct state *s)
{
    uint64_t at = place_offset(s->tail), rest = c->active.len - at;
    struct record r = { .kind = RECORD_PADDING, .sequence = s->visible };
    const struct record_bank *b = &c->bank->set.record;

    if (!place_is_full(at, c->active.len)) {
        rest -= RECORD_HEADER; /* past the limit of places there is nothing to fill */
        r.value_len = rest < UINT32_MAX ? (uint32_t)rest : UINT32_MAX - RECORD_ALIGN;
        r.checksum = record_checksum(record_hash_header(&r, b, s->tail),
                                     record_hash_key(b, NULL, 0), 0);
        return put_bytes(c, &r, sizeof r, at, false);
    }
    return 0;
}

/* The length of the segment made ahead; 0: there is none. */
static uint64_t prepared_size(struct core *c, const struct state *s)
{
    uint64_t n = prepared(c, s);
    char name[SEGMENT_NAME_MAX];
    struct os_stat st = { 0 };
    int fd, rc;

    if (n == 0)
        return 0;
    segment_name(name, n);
    fd = bank_open_file(c->bank, name, OS_READ | OS_WRITE);
    rc = fd < 0 ? fd : os_stat(fd, &st);
    if (fd >= 0)
        (void)os_close(fd);
    return rc == 0 ? st.size : 0;
}

/* One made ahead that is as large as a record of `need` bytes asks for.
 * ⚑ Another one with a lower number is void then (S4). */
static int prepare_for(struct core *c, const struct state *s, uint64_t need)
{
    uint64_t n = prepared(c, s);
    char name[SEGMENT_NAME_MAX];
    int dir, rc;

    if (prepared_size(c, s) >= need + SEGMENT_FIRST_RECORD + MARKS_ROOM)
        return 0;
    rc = prepare(c, s, next_size(c, s, need));
    if (rc < 0 || n == 0)
        return rc;
    segment_name(name, n);
    dir = bank_open_dir(c->bank);
    if (dir >= 0) {
        (void)os_unlink(dir, name);
        (void)os_close(dir);
    }
    return 0;
}

static int roll(struct core *c, struct state *s, uint64_t need)
{
    char name[SEGMENT_NAME_MAX];
    uint64_t n;
    int fd = -1, rc = prepare_for(c, s, need);

    if (rc < 0)
        return rc;
    n = shm_peek(&c->live->prepared);
    segment_name(name, n);
    fd = bank_open_file(c->bank, name, OS_READ | OS_WRITE);
    if (fd < 0)
        return err_os(fd, c->bank->name, name, "open the next segment");
    rc = pad(c, s);
    if (rc == 0)
        rc = active_take(c, n, fd);
    if (rc < 0)
        return err_os(rc, c->bank->name, name, "map the next segment");
    shm_publish(&c->live->newest, n); /* before a slot leads there: try_slot */
    if (n % SEGMENTS_ROUND == 0) /* readers forget segments that are long gone */
        (void)shm_add(&c->live->change, 1);
    s->tail = place_make(n, SEGMENT_FIRST_RECORD);
    s->last = 0;
    return 0;
}

static uint64_t kept_back(const struct core *c, enum append_for what)
{
    uint64_t deletes = c->active.len / DELETES_SHARE;

    switch (what) {
    case APPEND_PUT:
        return MARKS_ROOM + (deletes < DELETES_MOST ? deletes : DELETES_MOST);
    case APPEND_DELETE: /* half of it is for cleaning */
        return MARKS_ROOM + (deletes < DELETES_MOST ? deletes : DELETES_MOST) / 2;
    case APPEND_LAST:
        break;
    }
    return 0;
}

bool append_fits(const struct core *c, const struct state *s, uint64_t size, enum append_for what)
{
    uint64_t at = place_offset(s->tail);

    return !place_is_full(at, c->active.len) && at + size + kept_back(c, what) <= c->active.len;
}

int append_room(struct core *c, struct state *s, uint64_t size, enum append_for what)
{
    return append_fits(c, s, size, what) ? 0 : roll(c, s, size);
}

int append_ahead(struct core *c, const struct state *s, uint64_t size, enum append_for what)
{
    uint64_t at = place_offset(s->tail), most = c->bank->set.segment_bytes;
    uint64_t room = at < c->active.len ? c->active.len - at : 0;
    uint64_t need = size > room ? size - room : RECORD_MIN;

    if (append_fits(c, s, size, what))
        return 0;
    return prepare_for(c, s, need < most - most / 8 ? need : most - most / 8);
}

int append_seal(struct core *c, struct state *s)
{
    return roll(c, s, RECORD_MIN);
}

/* ---- records ---------------------------------------------------------- */

void append_head(const struct core *c, const struct state *s, const struct entry *e,
                 struct record *head)
{
    *head = (struct record){
        .sequence = e->sequence,
        .mtime_ns = e->mtime_ns,
        .previous = e->previous,
        .value_len = (uint32_t)e->value.len,
        .key_len = (uint16_t)e->key.len,
        .kind = (uint8_t)(e->kind | (e->value.len > CHUNKED_ABOVE ? RECORD_CHUNKED : 0)),
        .codec = e->codec,
    };
    head->checksum = record_checksum(record_hash_header(head, &c->bank->set.record, s->tail),
                                     e->key_hash, e->value_hash);
}

uint64_t entry_size(const struct entry *e)
{
    struct record r = {
        .value_len = (uint32_t)e->value.len,
        .key_len = (uint16_t)e->key.len,
        .kind = e->value.len > CHUNKED_ABOVE ? RECORD_CHUNKED : 0,
    };

    return record_size(&r);
}

static uint8_t *scratch(struct core *c, size_t len)
{
    uint8_t *p;

    if (len <= c->scratch_len)
        return c->scratch;
    p = os_resize(c->scratch, len);
    if (p) {
        c->scratch = p;
        c->scratch_len = len;
    }
    return p;
}

/* Records of a durable bank go through pwrite: then a sync writes the pages
 * that changed, and not a whole large folio. Up to a size in one call. */
static int write_parts(struct core *c, const struct record *head, const struct entry *e,
                       uint64_t at, uint64_t size)
{
    uint64_t sums = 8 * (head->kind & RECORD_CHUNKED ? chunk_count(head->value_len) : 0);
    uint64_t front = RECORD_HEADER + e->key.len + sums;
    bool whole = size <= WRITE_WHOLE;
    uint8_t *p = scratch(c, whole ? size : front);
    int rc;

    if (!p)
        return -ENOMEM;
    memcpy(p, head, RECORD_HEADER);
    if (e->key.len > 0)
        memcpy(p + RECORD_HEADER, e->key.data, e->key.len);
    if (sums > 0)
        memcpy(p + RECORD_HEADER + e->key.len, e->sums, sums);
    if (!whole) { /* the header first, as in store_parts */
        rc = os_write_all(c->active.fd, p, front, at);
        return rc < 0 ? rc
                      : os_write_all(c->active.fd, e->value.data, e->value.len, at + front);
    }
    if (e->value.len > 0)
        memcpy(p + front, e->value.data, e->value.len);
    memset(p + front + e->value.len, 0, size - front - e->value.len);
    return os_write_all(c->active.fd, p, size, at);
}

/* The header comes first, so that repair() knows from its lengths how far a
 * writer may have come that died here. */
static void store_parts(struct core *c, const struct record *head, const struct entry *e,
                        uint64_t at)
{
    uint8_t *to = c->active.base + at;

    shm_copy(to, head, RECORD_HEADER);
    atomic_signal_fence(memory_order_seq_cst); /* in this order, for a kill */
    to += RECORD_HEADER;
    if (e->key.len > 0)
        shm_copy(to, e->key.data, e->key.len);
    to += e->key.len;
    if (head->kind & RECORD_CHUNKED) {
        shm_copy(to, e->sums, 8 * chunk_count(head->value_len));
        to += 8 * chunk_count(head->value_len);
    }
    if (e->value.len > 0)
        shm_copy(to, e->value.data, e->value.len);
}

/*
 * The file ahead of the tail is written in zeros, a large page at a time. That
 * converts a fallocated file's extents for many records at once, which else
 * each durable record's sync would have to; see os_write_zeros() for the rest.
 * It only saves time: errors are let pass. In a durable bank the pieces are
 * small: the kernel looks at a folio's every block at each write and sync.
 */
static void write_ahead(struct core *c, uint64_t tail, bool durable)
{
    struct active *a = &c->active;
    uint64_t from = a->ahead > tail ? a->ahead : round_to_page(tail), len;
    uint64_t piece = durable ? AHEAD_DURABLE : OS_LARGE_PAGE;

    if (tail + AHEAD_LEAST <= a->ahead || a->len < AHEAD_FROM || from >= a->len)
        return;
    len = piece - from % piece;
    len = a->len - from < len ? a->len - from : len;
    (void)os_write_zeros(a->fd, len, from); /* behind the tail: zeros already (S2) */
    a->ahead = from + len;
}

/* Only records of keys are accounted for; the others come and go by themselves. */
static void appended(struct core *c, struct state *s, enum record_kind kind, uint64_t at,
                     uint64_t size)
{
    uint64_t n = place_n(s->tail);

    s->last = s->tail;
    s->tail = place_behind(n, at + size);
    if (kind == RECORD_PUT || kind == RECORD_DELETE) {
        s->used += size;
        ring_add(c, n, (int64_t)size, 0);
    }
}

int append_under(struct core *c, struct state *s, const struct record *head,
                 const struct entry *e, bool durable, uint64_t *place)
{
    uint64_t at = place_offset(s->tail), size = record_size(head);

    if (durable) {
        int rc = write_parts(c, head, e, at, size);

        if (rc < 0) {
            shm_zero(c->active.base + at, size); /* (S2) */
            return err_os(rc, c->bank->name, "kist.heap", "write a record");
        }
    } else {
        store_parts(c, head, e, at);
    }
    *place = s->tail;
    appended(c, s, record_kind(head), at, size);
    if (e->kind != RECORD_MARK)
        write_ahead(c, at + size, durable);
    return 0;
}

int append(struct core *c, struct state *s, const struct entry *e, bool durable, uint64_t *place)
{
    struct record head;

    append_head(c, s, e, &head);
    return append_under(c, s, &head, e, durable, place);
}

int append_moved(struct core *c, struct state *s, const struct record *r, uint64_t from,
                 bool durable, uint64_t *place)
{
    const struct record_bank *b = &c->bank->set.record;
    uint64_t at = place_offset(s->tail), size = record_size(r);
    _Alignas(RECORD_ALIGN) uint8_t front[RECORD_MIN]; /* header, and expiry or key */
    struct record *head = (void *)front;
    int rc;

    memcpy(front, r, sizeof front);
    head->kind &= (uint8_t)~RECORD_IN_BATCH; /* its batch was committed */
    head->previous = from;
    /* What header, key and value gave is known: only the header's part changes. */
    head->checksum = r->checksum ^ record_hash_header(r, b, from) ^
                     record_hash_header(head, b, s->tail);
    rc = put_bytes(c, front, sizeof front, at, durable);
    if (rc == 0 && size > sizeof front)
        rc = put_bytes(c, (const uint8_t *)r + sizeof front, size - sizeof front,
                       at + sizeof front, durable);
    if (rc < 0) {
        shm_zero(c->active.base + at, size); /* (S2) */
        return err_os(rc, c->bank->name, "kist.heap", "write a record");
    }
    *place = s->tail;
    appended(c, s, record_kind(r), at, size);
    return 0;
}

int append_mark(struct core *c, struct state *s, uint64_t durable_place)
{
    const struct record_bank *b = &c->bank->set.record;
    struct entry e = {
        .kind = RECORD_MARK,
        .sequence = s->visible,
        .mtime_ns = os_clock(OS_CLOCK_REAL_COARSE),
        .value = { &durable_place, sizeof durable_place },
        .key_hash = record_hash_key(b, NULL, 0),
        .value_hash = record_hash_value(&durable_place, sizeof durable_place, NULL),
    };
    uint64_t place;
    int rc = append_room(c, s, RECORD_MIN, APPEND_LAST);

    return rc < 0 ? rc : append(c, s, &e, true, &place);
}

int append_own(struct writer *w, struct state *s, uint8_t kind, const void *value, size_t len,
               uint64_t *place)
{
    const struct record_bank *b = &w->core->bank->set.record;
    struct entry e = {
        .kind = kind,
        .sequence = s->visible,
        .mtime_ns = os_clock(OS_CLOCK_REAL_COARSE),
        .value = { value, len },
        .key_hash = record_hash_key(b, NULL, 0),
        .value_hash = record_hash_value(value, len, NULL),
    };
    int rc = append_room(w->core, s, entry_size(&e), APPEND_DELETE);

    return rc < 0 ? rc
                  : append(w->core, s, &e, w->handle->durability == KIST_DURABILITY_ALWAYS, place);
}

void append_count(const struct core *c, struct commit_body *body, uint64_t place)
{
    uint64_t checksum;

    memcpy(&checksum, c->active.base + place_offset(place), sizeof checksum);
    body->first = body->count == 0 ? place : body->first;
    body->count++;
    body->sum = record_chain(body->sum, checksum);
}
