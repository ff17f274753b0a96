/*
 * segment - one file of the heap: kist.heap.N. Format 1.
 *
 *       0      1      2      3      4      5      6      7
 *    +------+------+------+------+------+------+------+------+
 *  0 |                    "KISTHEAP"                         |
 *    +---------------------------+---------------------------+
 *  8 |          format           |   cut of predecessor / 16 |
 *    +---------------------------+---------------------------+
 * 16 |                       bank id                         |
 *    |                                                       |
 *    +-------------------------------------------------------+
 * 32 |                          N                            |
 *    +-------------------------------------------------------+
 * 40 |                     incarnation                       |
 *    +-------------------------------------------------------+
 * 48 |             predecessor P (0: the first)              |
 *    +-------------------------------------------------------+
 * 56 |              XXH3 of the 56 bytes before              |
 *    +-------------------------------------------------------+
 * 64 | the same 64 bytes again, should the first be damaged
 *    +-------------------------------------------------------
 * 128| records, then zeros
 *
 * Invariants
 *   S1  a number is used once; records lie in the order they were appended
 *   S2  bytes behind the last record are zero
 *   S3  the file has all its blocks from the start and never shrinks (I7)
 *   S4  a segment numbered between P and N is void; so is what lies behind
 *       the cut in P, where a recovery opened this one (else the cut is 0, and
 *       P is full up to its end)
 */
#ifndef KIST_HEAP_SEGMENT_H
#define KIST_HEAP_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "base/thread.h"
#include "heap/record.h"

enum {
    SEGMENT_FORMAT = 1,
    SEGMENT_FIRST_RECORD = 128,
    SEGMENT_NAME_MAX = 32,
    SEEN_SHIFT = 5, /* one bit for 32 bytes: no two records begin in them */
};

struct segment_header {
    char magic[8];
    uint32_t format;
    uint32_t cut16;
    uint8_t bank_id[16];
    uint64_t n;
    uint64_t incarnation;
    uint64_t predecessor;
    uint64_t checksum;
};
static_assert(sizeof(struct segment_header) == 64, "on-disk: segment header");

/* A mapped segment. Counted: the bank's table holds one reference, each view
 * and each iterator one more. */
struct segment {
    const uint8_t *base;
    uint64_t len;
    _Atomic uint64_t *seen; /* verified by this process: one bit for 32 bytes */
    uint64_t loc_n; /* N as a slot has it */
    uint64_t n;
    struct segment_header header;
    uint64_t ino;
    struct map map;
    _Atomic uint64_t refs;
    struct retired retired;
};

void segment_name(char out[SEGMENT_NAME_MAX], uint64_t n);

/* The N in "kist.heap.N", or 0 if it is no such name. */
uint64_t segment_number(const char *name);

/* Make the file `name` in `dir`, allocated, with its header; nothing is synced.
 * Returns a descriptor opened for writing, or an error: then no file is left. */
int segment_create(int dir, const char *name, uint64_t size, uint32_t mode,
                   const struct segment_header *h);

/* Fill in what does not depend on the caller: magic, format, checksum. */
void segment_header_seal(struct segment_header *h);

/* Map a segment for reading. `fd` stays the caller's. Where neither copy of
 * its header is whole, `header` says nothing but N: records tell for themselves
 * where they belong (R2).
 * KIST_ECORRUPT: too short for a header. KIST_EFORMAT: of another bank.
 * KIST_ENEWER: a newer format. */
int segment_map(struct segment **out, int fd, const uint8_t bank_id[16], uint64_t n);

static inline bool segment_header_is_damaged(const struct segment *s)
{
    return s->header.checksum == 0;
}

static inline void segment_hold(struct segment *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}
void segment_release(struct segment *s);

/* The same, once no read section can see it. */
void segment_retire(struct segment *s);

/* ---- what this process has verified ----------------------------------- */

static inline bool segment_seen(const struct segment *s, uint64_t offset)
{
    uint64_t bit = offset >> SEEN_SHIFT;

    return atomic_load_explicit(&s->seen[bit / 64], memory_order_relaxed) >> bit % 64 & 1;
}

static inline void segment_mark_seen(struct segment *s, uint64_t offset)
{
    uint64_t bit = offset >> SEEN_SHIFT;

    atomic_fetch_or_explicit(&s->seen[bit / 64], UINT64_C(1) << bit % 64, memory_order_relaxed);
}

/* The record at `offset`, or NULL if none can begin or end there. */
static inline const struct record *segment_record(const struct segment *s, uint64_t offset)
{
    const struct record *r = (const void *)(s->base + offset);

    if (offset < SEGMENT_FIRST_RECORD || offset + RECORD_MIN > s->len ||
        !record_fits(r, s->len - offset))
        return NULL;
    return r;
}

/* ---- scanning --------------------------------------------------------- */

enum scan_found {
    SCAN_RECORD,  /* a whole record */
    SCAN_DAMAGED, /* a stretch that does not verify */
    SCAN_END,     /* only zeros up to the end */
};

struct scan {
    const struct segment *segment;
    const struct record_bank *bank;
    uint64_t at;    /* where the next step looks */
    uint64_t until; /* the scan ends here, or at the segment's end */
    bool trusted;   /* it was scanned before, whole: checksums are not read */
    bool ends_at_damage; /* what lies behind a damaged record is not looked for */
    uint64_t hashed; /* bytes, in looking for the next record, see affordable() */
};

struct scan_step {
    enum scan_found found;
    uint64_t offset, len;
    const struct record *record; /* with SCAN_DAMAGED: its header leads to a
                                    whole record or the end, so that key and
                                    lengths are likely right; else NULL */
};

/* Find what comes next, in the order of offsets. Bounded by the segment. */
void scan_next(struct scan *s, struct scan_step *out);

/* A value with chunk sums is read in full too. */
bool scan_value_is_whole(const struct record *r);

#endif
