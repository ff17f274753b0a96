/*
 * cache - the pages that are in memory, and who of them stays.
 *
 * A page's number, modulo the number of sets, is its set; a set has up to
 * eight frames, each of which holds a page or none. The number of sets is
 * prime: pages at any distance from one another then spread over all of them
 * (Yang and Yang, 1992, for processors). In a set it is CLOCK that chooses who
 * goes (Corbató, 1968): the hand passes over pages that were used since it
 * came by. A new page enters at the hand, unused, and three times out of four
 * the hand stays: so a run over more pages than there is room for leaves most
 * of the others alone (Qureshi et al., 2007).
 *
 *     number % sets          frames of the set, and the tags that name them
 *          |      +------+------+------+-- ... --+------+
 *          +----> | page | page |  -   |         | page |   hand: 2
 *                 +------+------+------+-- ... --+------+
 *
 * Before the sets stands the *front*, which the public header's inline
 * functions look at: one entry for as many pages as are cached, found by the
 * lower bits of the number. Who comes by the sets is noted there. Its counts
 * of hits are also what tells CLOCK that a page was used.
 *
 * With KIST_PAGES_THREADS the front stays empty, and a set is locked while it
 * is looked at, its frame filled, or its bytes copied; sets share locks, by
 * stripes. Nobody holds two of them.
 *
 * Invariants
 *   P1  a tag names a page once in its set; its frame then has its bytes
 *   P2  a front entry that has a length names a page that is cached
 *   P3  a frame with pins keeps its bytes, whatever becomes of its tag
 *   P4  what was fetched before an invalidation is not kept after it: a set
 *       notes when that was (`changed`), and who fetches without its lock
 *       brings the time when it began
 */
#ifndef KIST_PAGES_CACHE_H
#define KIST_PAGES_CACHE_H

#include "base/map.h"
#include "base/os.h"
#include "kist/pages.h"

#include <stdatomic.h>

#define PAGES_NONE UINT64_MAX         /* no page has this number */
#define PAGES_END (UINT64_C(1) << 63) /* addresses are below */
enum { PAGES_WAYS = 8, PAGES_STRIPES = 64, PAGES_STAY = 4 };

struct frame {
    const uint8_t *data; /* NULL: empty */
    uint32_t len;
    uint32_t pins; /* slices that hold it */
    uint64_t pos;  /* once it has pins and no tag: its address */
    bool used;     /* since the hand came by */
};

/* What one lock guards: its sets' frames, and counts of what happened there. */
struct stripe {
    _Alignas(64) os_mutex lock;
    uint64_t hits, misses, calls, evictions;
};

struct kist_pages {
    struct kist_pages_head head; /* first: the inline functions take it for all */
    kist_device device;
    kist_pages_options opt; /* with defaults filled in */
    bool threads;

    uint64_t sets;
    uint32_t ways;
    uint64_t *tags; /* of all frames, set by set */
    struct frame *frames;
    uint8_t *hand;          /* of each set */
    uint64_t *changed;      /* the time of each set's last invalidation */
    struct map arena;       /* a page for each frame; none for devices that lend */
    struct stripe *stripes; /* PAGES_STRIPES of them, in stripes_memory */
    void *stripes_memory;
    _Atomic uint64_t changes; /* invalidations so far: the time */
    _Atomic uint64_t told;    /* of them, by the program, which may have changed the device */

    /* Reading ahead (supply.c). */
    _Atomic uint64_t expected; /* the page that goes on where the last miss ended */
    os_mutex ahead_lock;       /* guards the two below */
    uint8_t *ahead_buf;
    uint64_t hinted; /* pages before this one were named to `ahead` */
};

/* A page that is being looked at, its set locked. One that found no frame, as
 * slices hold them all, is `loose`: fetched for the one who asked. */
struct page {
    uint64_t number;
    const uint8_t *data;
    uint32_t len;
    struct frame *frame; /* NULL: loose */
    struct loose *loose;
};

/* Bytes outside of the frames: behind this struct, or lent. */
struct loose {
    uint64_t pos;
    const uint8_t *data;
    size_t len;
};

static inline size_t page_bytes(const kist_pages *p)
{
    return (size_t)1 << p->head.shift;
}
static inline uint64_t page_of(const kist_pages *p, uint64_t addr)
{
    return addr >> p->head.shift;
}
static inline uint64_t page_pos(const kist_pages *p, uint64_t number)
{
    return number << p->head.shift;
}
static inline size_t page_offset(const kist_pages *p, uint64_t addr)
{
    return (size_t)(addr & (page_bytes(p) - 1));
}

/* How many frames there are. */
static inline uint64_t frame_count(const kist_pages *p)
{
    return p->sets * p->ways;
}

/*
 * Lock the page's set, have the page there, and tell of it; then page_leave().
 * Counts as a hit or a miss. KIST_END: the device ends at or before the page;
 * KIST_ABSENT: it can't be asked. Then, and after an error, nothing is locked.
 */
int page_enter(kist_pages *p, uint64_t number, struct page *out);
void page_leave(kist_pages *p, struct page *page);

/* The parts of it, for who fills frames from elsewhere. */
struct stripe *set_lock(kist_pages *p, uint64_t set);
void set_unlock(kist_pages *p, struct stripe *stripe);
struct frame *frame_find(kist_pages *p, uint64_t number);
/* A frame for a page that is not there, emptied; NULL when all are pinned. */
struct frame *frame_make_room(kist_pages *p, uint64_t number, bool wanted);
void frame_settle(kist_pages *p, struct frame *f, uint64_t number, const void *data, size_t len);
void frame_unpin(kist_pages *p, struct frame *f);

static inline uint64_t set_of(const kist_pages *p, uint64_t number)
{
    return number % p->sets;
}
static inline uint8_t *frame_memory(const kist_pages *p, const struct frame *f)
{
    return p->arena.base + ((uint64_t)(f - p->frames) << p->head.shift);
}

/* Ask the device for [pos, pos + len). `buf` is for devices that copy. Returns
 * KIST_OK with at least one byte, KIST_END, KIST_ABSENT, or an error. */
int device_fetch(const kist_pages *p, uint64_t pos, size_t len, void *buf, const uint8_t **data,
                 size_t *got);

/* The same, past the frames. */
int loose_fetch(const kist_pages *p, uint64_t pos, size_t len, struct loose **out);
void loose_drop(const kist_pages *p, struct loose *loose);

/* What memory for pages is aligned to: as devices are promised. */
static inline size_t page_align(const kist_pages *p)
{
    return page_bytes(p) < 16 ? 16 : page_bytes(p) < 4096 ? page_bytes(p) : 4096;
}
static inline void *page_align_up(const kist_pages *p, void *at)
{
    return (void *)(((uintptr_t)at + page_align(p) - 1) / page_align(p) * page_align(p));
}

/* One call of the device more, no set being locked. */
void pages_count_call(kist_pages *p);

/* kist_pages_invalidate(), for what the writer itself has changed. */
void pages_forget(kist_pages *p, uint64_t addr, uint64_t len);

/* Forget pages that end before their border: the device has grown. */
void pages_forget_short(kist_pages *p);

/* KIST_EBOUNDS for a call that asked for `len` bytes at `addr`. */
int pages_out_of_bounds(uint64_t addr, uint64_t len);

static inline bool pages_range_ok(uint64_t addr, uint64_t len)
{
    return addr < PAGES_END && len <= PAGES_END - addr;
}

/* ---- reading ahead (supply.c) ------------------------------------------ */

/* `number` was missed: does it go on where the last miss ended? Then fetch it
 * together with those behind. No set may be locked. */
void pages_read_ahead(kist_pages *p, uint64_t number);

#endif
