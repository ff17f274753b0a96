/*
 * core - an opened bank, as this process maps it, and what the files of
 * bank/ share.
 *
 *     kist_bank (a caller's handle) -> bank (one a name and store)
 *         -> core (the maps; comes and goes) -> live, index, segments
 *
 * Who may call what, downwards only:
 *
 *     open  read  write  batch  replace  iter  clean  copy  care    calls of the API
 *       |     |     |      |       |       |     |     |     |
 *     rebuild repair sync append ...                      parts of them
 *       |
 *     core: enter, map segments, follow the index
 *
 * Only care looks sideways: verifying walks the index as iter does.
 *
 * Locks of a process, taken in this order: a bank's `writing`, a bank's
 * `opening`, a core's `mapping`; a bank's pins' own is the last. Readers take none of them once they are warm.
 */
#ifndef KIST_BANK_CORE_H
#define KIST_BANK_CORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bank/live.h"
#include "bank/snapshot.h"
#include "base/map.h"
#include "base/os.h"
#include "base/seat.h"
#include "base/thread.h"
#include "heap/segment.h"
#include "index/index.h"
#include "kist/kist.h"

#define BANK_FILE "kist.bank"
#define LIVE_FILE "kist.live"
#define LIVE_NEW_FILE "kist.live.new"
#define SEGMENT_NEW_FILE "kist.heap.new"
#define LOCK_FILE "kist.lock"

enum {
    BANK_NAME_MAX = 1023,
    BANK_PATH_MAX = BANK_NAME_MAX + 1 + 64,
    WAIT_MS = 10, /* between looks whether a holder still lives */
    READ_TRIES = 100,
    SEGMENTS_ROUND = 1 << (LOC_N_BITS - 2), /* see core_segment_of() */
};

/* What kist.bank says; written once. */
struct bank_settings {
    struct record_bank record; /* id and seed */
    uint32_t index;            /* enum kist_index_kind */
    uint32_t segment_bytes;
    uint32_t durability, interval_ms, verify;
    uint64_t expect_entries;
};

/* What a bank needs of its store. */
struct bank_env {
    int dir;                  /* the store's directory */
    const uint32_t *forked;   /* 1; 0 in a forked child */
    bool readonly;
    uint32_t file_mode, dir_mode, uid, gid;
    void (*log)(const kist_log_event *event, void *arg);
    void *log_arg;
    /* Called before a core is opened: close another one if there are many. */
    void (*make_room)(void *arg);
    void *arg;
};

/* Segments this process has mapped: N at N mod (mask + 1). Replaced as a
 * whole when it must grow. */
struct segment_table {
    uint64_t mask;
    struct retired retired;
    _Atomic(struct segment *) at[];
};

/* The active segment, as the writer of this process has it. */
struct active {
    uint64_t n; /* 0: none */
    uint64_t len;
    int fd;
    uint64_t ahead; /* up to here zeros were written, see write_ahead() */
    struct map map;
    uint8_t *base;  /* for stores; what reads it maps it read-only */
};

struct core {
    struct live *live;
    const shm_word *change; /* of the live in the file, also when ours is private */
    _Atomic uint64_t shown; /* batches up to this sequence are known to be visible */
    _Atomic uint64_t stamp; /* `change`, when this core was last found up to date, or 0 */
    _Atomic(struct index_file *) index;
    _Atomic(struct segment_table *) segments;
    const shm_word *retired; /* beside `change` */
    uint64_t retired_before; /* what it says as long as this core is right: 0, but for a
                                private one, made when a rebuild had been killed */
    struct bank *bank;
    bool writable;
    bool is_private; /* live and index are this process's own (read-only case 4) */

    os_mutex mapping; /* guards the table, the index's map, lock_fd */
    int lock_fd;      /* read locks on segments; questions about seats; -1 */
    struct map live_map, watch_map;
    struct seat seat;

    /* Under the bank's `writing` and the lock word. */
    struct active active;
    struct live_segment *ring; /* all of it, when it is not in the first page */
    struct map ring_map;
    struct state state;   /* as this process left it at `step`, to save reading it */
    uint64_t step;
    uint8_t *scratch; /* a record being put together for pwrite */
    size_t scratch_len;
    struct retired gone;
};

/* A bank, once for each name in a store. */
struct bank {
    _Atomic(struct core *) core;
    _Atomic uint32_t used; /* since bank_was_used() */
    _Atomic uint32_t closed; /* the store was closed */
    _Atomic uint32_t syncing; /* threads inside sync_to(): its core must stay */
    const struct bank_env *env;
    struct bank_settings set; /* for good, once `known` */
    bool known;
    char name[BANK_NAME_MAX + 1];
    os_mutex writing; /* threads of this process queue here to write */
    os_mutex opening;
    struct pins pins;
    uint32_t handles;  /* guarded by the store */
    _Atomic uint32_t writers; /* of them, those that may write; reopen() asks */
    uint32_t interval_ms; /* 0: nobody wants regular syncs; guarded by the store */
    int64_t sync_due;  /* when the ticker syncs it next; the ticker's own */
    bool gone;         /* dropped: a bank of its name is another one */
    struct bank *next; /* of the store's list */
};

#define SEQUENCE_NOW UINT64_MAX

struct kist_bank {
    struct bank *bank;
    const uint32_t *forked; /* the store's; or of a snapshot, 0: no short way, see core_ready() */
    bool readonly;
    uint64_t at; /* reads see what was written up to here; SEQUENCE_NOW: all of it */
    struct snapshot *snapshot; /* or NULL */
    uint32_t verify;
    uint32_t durability;
    int32_t deadline_ms;
    kist_store *store;
};

/* ---- entering (core.c) ------------------------------------------------ */

/* The slow way: opens, reopens or follows a new index as needed. */
int core_enter_slow(kist_bank *h, struct core **out);

/* The core, if it is as it was left: else NULL. Inside a read section. */
static inline struct core *core_ready(kist_bank *h, uint64_t *change)
{
    struct bank *b = h->bank;
    /* acquire: pairs with the release in core_install() */
    struct core *c = atomic_load_explicit(&b->core, memory_order_acquire);

    if (!*h->forked || !c)
        return NULL;
    *change = shm_read(c->change);
    return *change == atomic_load_explicit(&c->stamp, memory_order_relaxed) ? c : NULL;
}

/* The core to use for one call, inside a read section. */
static inline int core_enter(kist_bank *h, struct core **out)
{
    uint64_t change;
    struct core *c = core_ready(h, &change);

    if (!c)
        return core_enter_slow(h, out);
    *out = c;
    return KIST_OK;
}

/* The same through a handle that may be a snapshot's, for which core_ready() never
 * says yes. (read.c) */
int core_enter_to_read(kist_bank *h, struct core **out);

/* Was it entered since the last call? The next core_ready() finds no core, so
 * that core_enter_slow() can tell. */
bool bank_was_used(struct bank *b);

/* Make `c` (or NULL) the bank's core; the old one is released when no section
 * sees it. Under `opening`. */
void core_install(struct bank *b, struct core *c);

/* The bank was not rebuilt since this core was opened, nor dropped. */
bool core_is_up_to_date(const struct core *c);

/* The same, of what was read: if not, the next core_enter() opens the bank anew. Who retired
 * it may have died before `change` told of it. */
bool core_was_right(struct core *c);

/* Free the maps, touching no file. */
void core_free(struct core *c);

/* Map the index that `generation` names, if it is not the one mapped; `anew`:
 * map it again, since it could not grow in place. */
int core_follow_index(struct core *c, bool anew);

/* After an offset lay outside of what is mapped: see whether the file grew since its mapped
 * length was `seen`, read before that. 1: try again. */
int core_refresh_index(struct core *c, uint64_t seen);

/* The segment N, mapped if it is not yet. -ENOENT: no such file. Call it in a
 * read section; hold the segment to keep it longer. */
int core_map_segment(struct core *c, uint64_t n, struct segment **out);

/* The same by a slot's short number. None that are mapped share one: those
 * that are too far from the newest are dropped when numbers come round. */
static inline struct segment *core_segment_of(const struct core *c, uint64_t slot)
{
    uint64_t n = slot >> PLACE_OFF_BITS & LOC_N_MASK;
    struct segment_table *t = atomic_load_explicit(&c->segments, memory_order_acquire);
    struct segment *s = atomic_load_explicit(&t->at[n & t->mask], memory_order_acquire);

    return s && s->loc_n == n ? s : NULL;
}

/* The index, as it is mapped now. In a read section, or for the writer. */
static inline struct index_file *core_index(const struct core *c)
{
    /* acquire: pairs with the release in core_follow_index() and publish_index() */
    return atomic_load_explicit(&c->index, memory_order_acquire);
}

static inline struct segment *core_segment(const struct core *c, uint64_t n)
{
    /* acquire, twice: pairs with the releases in core_map_segment() */
    struct segment_table *t = atomic_load_explicit(&c->segments, memory_order_acquire);
    struct segment *s = atomic_load_explicit(&t->at[n & t->mask], memory_order_acquire);

    return s && s->n == n ? s : NULL;
}

/* Let go of segments that were unlinked. Under `mapping`. */
void core_drop_old(struct core *c);

/* ---- helpers (core.c) ------------------------------------------------- */

int bank_open_dir(const struct bank *b);
/* A regular file of the bank; -ELOOP if it is something else. */
int bank_open_file(const struct bank *b, const char *file, int flags);
/* The same, unasked what it is: for one that is synced again and again. A file
 * whose times were asked for gets new ones with the next write, and the sync
 * behind it then writes the inode too (Linux 6.13 and later). */
int bank_open_unasked(const struct bank *b, const char *file, int flags);
/* One of its files, or the bank's directory for NULL, to take a lock by: a forked child
 * does not have it. */
int bank_open_guarded(const struct bank *b, struct guarded *g, const char *file, int flags);
/* The error of opening one of its files. */
int bank_path_error(const struct bank *b, int rc, const char *file);
void bank_log(const struct bank *b, uint32_t level, const char *file, uint64_t offset,
              const char *format, ...) __attribute__((format(printf, 5, 6)));
int bank_own(const struct bank *b, int fd);

/* The lowest number from *n to `last` whose segment has a file. KIST_END:
 * none. Costs no more than there are files, whatever the numbers are (I5). */
int bank_next_segment(const struct bank *b, uint64_t *n, uint64_t last);
/* For loops over numbers, when *n was found missing: *n becomes the one before
 * the next that exists, or `last`. */
int bank_skip_gap(const struct bank *b, uint64_t *n, uint64_t last);
/* The highest N in use, within what numbers may be. */
uint64_t core_newest(const struct core *c);

/* err_set() with the bank's name. */
#define bank_err(b, rc, file, offset, ...) err_set((rc), (b)->name, (file), (offset), __VA_ARGS__)

/* ---- reading (read.c) ------------------------------------------------- */

struct found {
    const struct record *record;
    struct segment *segment;
    uint64_t offset;
    uint64_t place;
    shm_word *slot;
};

/* For writers, who need the old record's lengths alone: another key's record
 * is verified as with KIST_VERIFY_FIRST, this key's is not. */
enum { VERIFY_OTHERS = KIST_VERIFY_NEVER + 1 };

enum { SEARCH_AGAIN = 200 }; /* beside the outcomes of ordered.h, that a search may also have */

/* The newest record of a key, a tombstone too. KIST_MISS: none; KIST_ECORRUPT:
 * it is damaged, *out tells which slot. In a read section. */
int core_find(struct core *c, kist_bytes key, uint64_t hash, uint32_t verify, struct found *out);

/* The same, for a writer: with KIST_MISS, `room` is what core_room() needs. `arrived`:
 * a search in a tree got as far as ahead_arrive(), with this room. */
int core_find_room(struct core *c, kist_bytes key, uint64_t hash, uint32_t verify,
                   bool arrived, struct found *out, struct index_room *room);

/* After KIST_ECORRUPT: may the key be written all the same? Where its damaged entry is known,
 * that is well again then. In a tree a key may not be told from one whose record can't be read:
 * it is written beside it, with a link back to that one, so that whoever asks for what was
 * before is not told that there was nothing. */
static inline bool core_can_write(const struct core *c, const struct found *f,
                                  const struct index_room *room)
{
    return f->slot || (core_index(c)->kind == KIST_INDEX_ORDERED && room->ordered.lost != 0);
}

/* The same in an index that may be another than the bank's present one: of a snapshot. */
int core_find_in(struct core *c, struct index_file *ix, kist_bytes key, uint64_t hash,
                 uint32_t verify, struct found *out);

/*
 * What a reader of sequence `at` (SEQUENCE_NOW: any reader) sees where this record
 * was found: it, or an older one of its key, along the previous links. KIST_OK;
 * KIST_MISS: the key was not there; KIST_ECORRUPT; SEARCH_AGAIN: history went
 * meanwhile, which it does not while `pinned`.
 */
int core_as_of(struct core *c, struct found *f, uint64_t at, bool pinned, uint32_t verify);

/* A record is damaged: the error. */
int core_damaged(const struct core *c, const struct segment *s, uint64_t offset);

/* The index itself is: the error. */
int bank_index_damaged(const struct bank *b);

/* An offset in the index lies behind what is mapped of it; its length was `seen`, and the
 * counter `change`. KIST_OK: look again, by now it may not; or the error. `fixed`: the
 * index, if it is a snapshot's; else NULL. */
int core_look_further(struct core *c, struct index_file *fixed, uint64_t seen, uint64_t change);

/* What a tree asks while it compares keys with this one: an index_owner's. */
struct comparing {
    struct core *core;
    kist_bytes key;
    uint32_t verify;
    const struct record *record; /* the key's own, once it was met */
    struct segment *segment;
    uint64_t place;
};
const struct record *record_to_compare(void *comparing, uint64_t loc);

/* The value of the record found, verified in full. */
int core_value(struct core *c, const struct found *f, uint32_t verify, kist_bytes *value);

/* A view of a value in `s`, which the caller's section keeps. */
int view_make(struct segment *s, kist_bytes value, kist_view **out);
/* A view of a copy of its own. */
int view_copy(kist_bytes value, kist_view **out);

/* Verify the record at a place as `verify` asks. */
bool core_verified(struct core *c, struct segment *s, const struct record *r, uint64_t offset,
                   uint32_t verify);

/* The record a location leads to, its lengths checked; NULL if unreadable. */
const struct record *core_record(struct core *c, uint64_t loc, struct segment **segment,
                                 uint64_t *place);

/* ---- writing (write.c, append.c) -------------------------------------- */

/* What a writer holds from write_begin() to write_end(). */
struct writer {
    kist_bank *handle;
    struct core *core;
    struct state state; /* as of the last step; changed, then stepped */
};

enum write_flag {
    WRITE_POISONED = 1, /* also when the bank is poisoned */
};

/* End an operation: live_step(). */
void core_step(struct core *c, struct state *s);
/* The state that counts, for a writer. */
bool core_state(struct core *c, struct state *out);

int write_begin(struct writer *w, kist_bank *h, int flags);
void write_end(struct writer *w);
/* The same for an operation that failed midway: what it has done is undone, as that
 * of a dead writer would be. */
void write_undo(struct writer *w);

/* Take the lock word for seat `c->seat`; KIST_EBUSY after `ms`, negative: waits
 * for ever. When it was taken from a dead holder the bank has been repaired. */
int lock_take(struct core *c, int32_t ms);
void lock_leave(struct core *c);

/* The same for a rebuild, which needs no repair. *dead: whose it was, when its
 * holder had died, or 0. If the rebuild fails, it is given back: the next one
 * that takes it repairs. */
int lock_take_as_is(struct core *c, int32_t ms, uint64_t *dead);
void lock_give_back(struct core *c, uint64_t dead);

int64_t deadline_after(int32_t ms);
/* ms left until the deadline, at least 0, at most `most`. */
int deadline_left(int64_t deadline, int most);

/* A record to be appended. */
struct entry {
    uint8_t kind; /* and flags */
    uint8_t codec;
    uint64_t sequence;
    int64_t mtime_ns;
    uint64_t previous;
    kist_bytes key, value;
    uint64_t key_hash;   /* record_hash_key() */
    uint64_t value_hash; /* record_hash_value() */
    const uint64_t *sums;/* chunk sums, where flagged */
};

enum append_for { APPEND_PUT, APPEND_DELETE, APPEND_LAST };

uint64_t entry_size(const struct entry *e);

/* Room for a record of `size` bytes, in the active segment or a new one. What
 * is kept back depends on `what`: puts leave room for deletes, these for
 * marks (I7). Errors change nothing that a reader sees. */
int append_room(struct core *c, struct state *s, uint64_t size, enum append_for what);
/* The same for many records of `size` bytes in all: if the active segment is not large
 * enough, the next one is made ahead, so that most of what can fail fails now. */
int append_ahead(struct core *c, const struct state *s, uint64_t size, enum append_for what);
/* Is there room in the active one? */
bool append_fits(const struct core *c, const struct state *s, uint64_t size, enum append_for what);

/* Go on in a new segment, whatever room is left in the active one. */
int append_seal(struct core *c, struct state *s);

/* Write a record at the tail; there is room. Moves the tail in *s; *place
 * receives where it is. KIST errors of pwrite leave *s as it was. */
int append(struct core *c, struct state *s, const struct entry *e, bool durable, uint64_t *place);

/* The same in two steps: the header that a record at the tail will have; ... */
void append_head(const struct core *c, const struct state *s, const struct entry *e,
                 struct record *head);
/* ... and all of it, under that header. */
int append_under(struct core *c, struct state *s, const struct record *head,
                 const struct entry *e, bool durable, uint64_t *place);

/* Copy a record to the tail, as plain, its previous being where it was. */
int append_moved(struct core *c, struct state *s, const struct record *r, uint64_t from,
                 bool durable, uint64_t *place);

/* Map the active segment for writing, if it is not the one mapped. */
int append_ready(struct core *c, const struct state *s);
void append_close(struct core *c);

/* Make the next segment ahead when the active one is half full. */
void append_prepare(struct core *c, const struct state *s);

int append_mark(struct core *c, struct state *s, uint64_t durable_place);

/* A record of the bank's own, without a key: a clear, a commit. Makes room for it. */
int append_own(struct writer *w, struct state *s, uint8_t kind, const void *value, size_t len,
               uint64_t *place);

/* The record at a place, just appended, is one more of a batch. */
void append_count(const struct core *c, struct commit_body *body, uint64_t place);

/* What is known of segment N, or NULL. Writer only. */
struct live_segment *ring_entry(struct core *c, uint64_t n);
void ring_add(struct core *c, uint64_t n, int64_t used, int64_t live);
/* No record of any segment counts any more. */
void ring_forget_live(struct core *c);

/* How a record of `old` (or none) being followed by one of kind and size
 * changes the counters. */
struct key_record {
    bool counts; /* a put that is live */
    bool tombstone;
    uint64_t size, payload;
    uint64_t n; /* its segment; 0: none */
};
struct key_record key_record_of(const struct record *r, uint64_t place);
void state_replace(struct core *c, struct state *s, struct key_record old, struct key_record now);
/* The two parts of it: the segments' accounts, and the counters. */
void ring_replace(struct core *c, struct key_record old, struct key_record now);
void state_count(struct state *s, struct key_record old, struct key_record now);

/* What the index asks back, see index_owner. */
struct index_owner core_owner(struct core *c);

/* index_make_room(), with more address space if it needs some; `room` as
 * core_find_room() left it. */
int core_room(struct core *c, kist_bytes key, uint64_t hash, struct index_room *room);

/* Publish a location for a key: into its slot, or if that is NULL into the room. */
void core_publish(struct core *c, shm_word *slot, struct index_room *room, kist_bytes key,
                  uint64_t hash, uint64_t place);

/* index_remove(), for a key whose slot was found. */
int core_remove(struct core *c, kist_bytes key, shm_word *slot);

/* A cursor over whatever the bank holds, not of one moment: for a walk. (cursor.c) */
int cursor_open_weak(kist_cursor **out, kist_bank *h);

/* ---- walking (iter.c) ------------------------------------------------- */

/* A record and its value as an entry. */
static inline void entry_fill(kist_entry *out, const struct record *r, kist_bytes value)
{
    *out = (kist_entry){
        .key = { record_key(r), r->key_len },
        .value = value,
        .meta = { .value_bytes = r->value_len,
                  .sequence = r->sequence,
                  .mtime_ns = r->mtime_ns,
                  .expiry_ns = record_expiry(r) },
    };
}

/* How many entries of the index lead to no place in any file, and the segment that
 * the first of them names: its file is missing, or was cut short. */
int iter_lost(kist_bank *h, uint64_t *lost, uint64_t *first);

/* ---- syncing (sync.c) ------------------------------------------------- */

/* Make everything below `place` durable. Not under the lock word. */
int sync_to(kist_bank *h, uint64_t place);

/* An fsync failed with `rc`: the bank is read-only for all from now on.
 * Returns KIST_EPOISON. */
int sync_failed(struct core *c, int rc);

/* The same for a core that nobody else uses, under the recovery lock. */
int sync_alone(struct core *c, struct state *s);
int sync_before_leaving(struct core *c);

/* Make everything durable, and have a mark say so. */
int sync_vouched(kist_bank *h);

/* ---- recovering (repair.c, rebuild.c) --------------------------------- */

/* Finish what a dead writer left; holding the lock word. */
int repair(struct core *c);

struct rebuild {
    int dir;               /* the bank's directory */
    bool is_private;       /* change no file; fill `core` with private maps */
    uint64_t again_from;   /* a sync failed: write again what lies behind */
    uint64_t poison;       /* not 0: the bank stays poisoned, `again_from` kept */
    uint64_t known_tail;   /* up to here nothing is a torn tail: its live says so */
    struct core *core;     /* whose live is to be retired, or made private; or NULL */
    kist_report *report;   /* or NULL */
    kist_progress progress;
    void *progress_arg;
};

/* Make index and live anew from the heap (case 4). Under the recovery lock. */
int rebuild(struct bank *b, const struct rebuild *how);

/* ---- filling a new index (fill.c) ------------------------------------- */

/* An index that is being built from records, and what is counted meanwhile.
 * Nobody else sees it yet. */
struct fill {
    struct index_file *index;
    struct index_owner owner;
    const struct record *(*record)(void *arg, uint64_t loc, uint64_t *place);
    struct state *state;      /* entries, deleted, payload, live */
    void (*live)(void *arg, uint64_t n, int64_t bytes); /* a segment's account */
    void *arg;
};
void fill_init(struct fill *f, struct index_file *ix, struct state *s,
               const struct record_bank *bank,
               const struct record *(*record)(void *arg, uint64_t loc, uint64_t *place),
               void (*live)(void *arg, uint64_t n, int64_t bytes), void *arg);
/* Add a put or delete; of two records of a key the higher sequence counts, of
 * equal ones the one added later (I10). */
int fill_add(struct fill *f, const struct record *r, uint64_t place);

/* ---- opening (open.c) ------------------------------------------------- */

int core_open(struct bank *b, bool writable, int64_t deadline, struct core **out);
/* Close cleanly; the core is gone in any case. */
int core_close(struct core *c);
/* The recovery lock on `fd`; closing it lets go. */
int recovery_lock(const struct bank *b, int fd, bool shared, int64_t deadline);
int bank_make_lock_file(const struct bank *b, int dir);

/* A core with its lock file open and its live mapped (*have_live: there is
 * one), not yet decided about. */
int core_start(struct bank *b, bool writable, struct core **out, bool *have_live);
int core_sit_down(struct core *c);
bool core_files_match(const struct live *l, int dir);
/* Its live is the one in the directory, and retired: a rebuild was cut off, or a drop. The
 * heap is whole, and nobody goes on by this live, whoever has the bank open. */
bool core_was_retired_here(const struct core *c, int dir);
/* Wait until nobody who lives holds the lock word of such a live, so that not
 * even a drop is under way. KIST_EGONE: one was. */
int core_wait_for_holder(const struct core *c, int dir, int64_t deadline);
/* Where the heap ends, by a live that can be trusted; 0: it can't. */
uint64_t core_known_tail(const struct core *c, int dir);

/* Behind this place the kernel may take bytes for written that are not: a sync
 * failed, or is left by a dead one (or under way). PLACE_END: none did. */
uint64_t core_again_from(const struct live *l);

/* Remove a bank's files; every handle to it says KIST_EGONE. (admin.c) */
int bank_drop(kist_bank *h);
int bank_repair(struct bank *b, int32_t deadline_ms, const struct rebuild *how);

/* Read kist.bank, and keep what it says if this is the first time. KIST_EGONE:
 * it is another bank's by now. */
int bank_read_settings(struct bank *b);
int bank_create_files(struct bank *b, int dir);

/* ---- copying (copy.c) -------------------------------------------------- */

/* What goes on from bank to bank. */
struct copying {
    uint64_t done, all; /* for progress */
    uint64_t bytes, entries;
    kist_progress progress; /* or NULL */
    void *arg;
};

/* kist.bank into the directory of the copy. KIST_EGONE: dropped meanwhile. */
int bank_copy_settings(const struct bank *from, const struct bank_env *env, int dir);

/* The bank as of some moment during the call, into `to`, which has its
 * settings and nothing else; all is synced. KIST_ECORRUPT: not all is whole. */
int bank_copy(kist_bank *h, struct bank *to, struct copying *cp);

/* ---- replacing (replace.c) -------------------------------------------- */

/* Build the next index from the records between two places, publish it, and
 * set the counters. Holding the lock word. Safe to repeat. */
int adopt_range(struct core *c, struct state *s, uint64_t first, uint64_t end);

/* ---- cleaning (clean.c) ----------------------------------------------- */

/* Sync, then unlink the segments below N, in which nothing counts any more.
 * Not under the lock word. */
int clean_below(kist_bank *h, uint64_t n);

/* The same after a replace, whose batch begins at `first`, and is noted. */
int clean_before_batch(kist_bank *h, uint64_t first, uint64_t commit);

/* ---- segments that snapshots keep (waiting.c); the writer ------------- */

void waiting_add(struct core *c, uint64_t n, uint64_t emptied);
void waiting_forget(struct core *c, uint64_t n);
/* Any process: as far as a look tells. */
bool waiting_has(const struct core *c, uint64_t n);
/* No other can be noted. */
bool waiting_is_full(const struct core *c);
/* The lowest N above one that was emptied at or below `horizon`; 0: none. */
uint64_t waiting_next(const struct core *c, uint64_t above, uint64_t horizon);

/* Walk the heap from place to place, in append order. */
struct walk {
    struct core *core;
    uint64_t at, newest;
    uint64_t end, last; /* behind the last whole record or padding, and where
                           that begins; 0: none was met */
    struct segment *segment;
};
/* KIST_OK with a record, KIST_END, or an error. In a read section. */
int walk_next(struct walk *w, const struct record **r, uint64_t *place);

#endif
