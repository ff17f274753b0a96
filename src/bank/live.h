/*
 * live - kist.live: the words by which processes that share a bank work
 * together. Mapped by all of them; made anew by each rebuild. Format 1.
 *
 * A cache line for each group of words that changes together; what a get
 * looks at (`change`, `generation`, `newest`, `poison`) stands on a
 * line that a put does not touch.
 *
 * Invariants
 *   L1  `step` names, by its parity, the copy of `state` that counts; the
 *       other is written first, then step is raised: one publish an operation
 *   L2  a state's tail is where its last record ends
 *   L3  while `clean` holds, nothing but `seats` and `lock` changes; `dirty` is 1 only
 *       after the removal of `clean` was synced
 *   L4  `durable` only grows, but for a rebuild, and never passes the tail
 */
#ifndef KIST_BANK_LIVE_H
#define KIST_BANK_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/shm.h"
#include "heap/record.h"

enum {
    LIVE_FORMAT = 1,
    LIVE_BYTES = 4096,
    LIVE_RING_LG = 6, /* entries of the ring in the first page: 2^6 */
    LIVE_STATE_WORDS = 9,
    LIVE_WAITING = 45,
};

/* What one operation changes, all at once. */
struct state {
    uint64_t visible; /* sequence of the newest write */
    uint64_t tail;    /* place of the next record */
    uint64_t last;    /* place of the record that ends there; 0: none yet */
    uint64_t entries; /* live keys */
    uint64_t deleted; /* tombstones that slots lead to */
    uint64_t payload; /* bytes of live keys and values */
    uint64_t live;    /* bytes of their records */
    uint64_t used;    /* bytes of all puts and deletes in the heap's files */
    uint64_t check;   /* XXH3 of the words before */
};

/* What is known of a segment; for cleaning, a hint only. */
struct live_segment {
    shm_word n;
    shm_word ino;
    shm_word used; /* bytes of puts and deletes */
    shm_word live; /* of the puts that count */
};

/* A segment that was emptied when `emptied` was visible, see waiting.c. */
struct live_waiting {
    shm_word n; /* 0: none */
    shm_word emptied;
    shm_word check;
};

struct live {
    char magic[8]; /* 0 */
    uint32_t format, unused;
    uint8_t bank_id[16];
    uint64_t incarnation;
    uint64_t spare0[3];

    shm_word retired; /* 64: not 0: this is not the bank's live any more; counts
                         the times that it was said */
    shm_word change;  /* grows before index pages are used again (I4), and when
                         `retired` or `generation` changed, or numbers of
                         segments come round: what readers rely on */
    shm_word generation; /* of the index */
    shm_word newest;  /* highest N in use */
    shm_word poison;  /* not 0: errno of the sync that failed */
    uint64_t spare1[3];

    shm_word lock; /* 128: 0, or holder's seat * 2 + (1: somebody waits) */
    uint64_t spare2[7];

    shm_word step; /* 192 */
    uint64_t spare3[7];

    struct {
        shm_word word[LIVE_STATE_WORDS];
        uint64_t spare[16 - LIVE_STATE_WORDS];
    } copy[2]; /* 256 */

    shm_word syncing; /* 512: seat of the process that syncs, or 0 */
    shm_word durable; /* place below which everything is on the disk */
    shm_word synced;  /* counts syncs; waited on */
    shm_word horizon; /* sequence below which history may be gone, see snapshot.h */
    shm_word unlinks; /* grows before segments are unlinked, see copy.c */
    uint64_t spare4[3];

    shm_word oldest;   /* 576: lowest N whose file exists */
    shm_word prepared; /* N made ahead, or one in use: none */
    shm_word numbered; /* highest N ever given */
    shm_word ring_lg;  /* log2 of the entries of the ring of segments */
    shm_word cleared;  /* sequence of the last clear: what is below it is dead */
    shm_word emptying; /* N whose tombstones are given up: keys in it may be
                          without a slot, until its file is gone */
    shm_word range_first, range_end; /* the places of a batch that was committed, as who
                          cleaned last, or replaced, has found it; see live_note_batch() */

    shm_word intent; /* 640: 1: the next four tell of a split to finish */
    shm_word intent_old, intent_prefix, intent_lo, intent_hi;
    shm_word cleared_by; /* generation of the first index that has nothing from before
                            `cleared` */
    uint64_t spare6[2];

    uint64_t boot_id[2]; /* 704: identity: where these files' pages live */
    uint64_t witness;
    uint64_t dev;
    uint64_t ino_bank, ino_lock;
    shm_word ino_index[2]; /* of the index of an even, an odd generation */

    shm_word recovery; /* 768: enum kist_recovery, the last one that worked */
    shm_word recovery_ns;
    shm_word damaged_bytes;
    uint64_t ino_live;
    uint64_t spare7[4];

    shm_word seats; /* 832: the last seat given */
    uint64_t spare8[7];

    shm_word clean; /* 896: checksum, see live_checksum(); 0: in use */
    shm_word dirty; /* 1: that `clean` is 0 is on the disk */
    uint64_t spare9[6];

    struct live_waiting waiting[LIVE_WAITING]; /* 960 */
    shm_word arranged; /* 2040: 1 + the sequence up to which an ordered bank's records were
                          put in the order of keys, and none came since; a hint */
    struct live_segment ring[1 << LIVE_RING_LG]; /* 2048: N at N mod 64 */
};

#define LIVE_AT(field, off)                                                                        \
    static_assert(offsetof(struct live, field) == (off), "on-disk: " #field)
LIVE_AT(retired, 64);
LIVE_AT(lock, 128);
LIVE_AT(step, 192);
LIVE_AT(copy, 256);
LIVE_AT(syncing, 512);
LIVE_AT(oldest, 576);
LIVE_AT(intent, 640);
LIVE_AT(boot_id, 704);
LIVE_AT(recovery, 768);
LIVE_AT(seats, 832);
LIVE_AT(clean, 896);
LIVE_AT(waiting, 960);
LIVE_AT(arranged, 2040);
LIVE_AT(ring, 2048);
#undef LIVE_AT
static_assert(sizeof(struct live) == LIVE_BYTES, "on-disk: live");

/* Start a live in zeroed memory. */
void live_format(struct live *l, const uint8_t bank_id[16]);

/* 0, or KIST_ECORRUPT, KIST_ENEWER, KIST_EFORMAT. */
int live_check(const struct live *l, const uint8_t bank_id[16]);

/* The state that counts; false: its check fails (damage). Any process, no
 * lock: reads again while a writer moves on. */
bool live_state(const struct live *l, struct state *out);

/* End an operation (L1); writer only. */
void live_step(struct live *l, struct state *s);

/* The same without the step: the state that is to count next, for who finds its index
 * there already. */
void live_prepare(struct live *l, struct state *s);

/* That one. False: there is none; or `now` does not count any more, by its sequence. */
bool live_next_state(const struct live *l, const struct state *now, struct state *out);

/* From here on it is not the bank's any more: whoever maps it goes to look for
 * another one. Once more for one that is retired already: who looked in vain
 * looks again. */
void live_retire(struct live *l);

/* Over everything but lock, seats, clean, and dirty; never 0. */
uint64_t live_checksum(const struct live *l);

/* A batch between these places was committed. ⚑ In between there is none: the first place of
 * one and the end of another would vouch for what was given up between them, to readers and,
 * where the writer is killed, to whoever comes next. */
static inline void live_note_batch(struct live *l, uint64_t first, uint64_t end)
{
    shm_store(&l->range_end, 0);
    shm_publish(&l->range_first, first);
    shm_publish(&l->range_end, end); /* both pair with live_has_batch() */
}

/* Does `place` lie in the batch that was noted last? */
static inline bool live_has_batch(const struct live *l, uint64_t place)
{
    uint64_t end = shm_read(&l->range_end), first = shm_read(&l->range_first);

    return place >= first && place < end && shm_peek(&l->range_end) == end;
}

/* Is a record at `place` known to count? Of one in a batch it is known while that batch
 * is the one that was noted last. */
static inline bool live_counts(const struct live *l, const struct record *r, uint64_t place)
{
    return !(r->kind & RECORD_IN_BATCH) || live_has_batch(l, place);
}

/* `clean` is set and right. */
bool live_is_clean(const struct live *l);

#endif
