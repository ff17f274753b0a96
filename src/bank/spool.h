/*
 * spool - puts and deletes that wait to be written: in memory while they are few,
 * then in a nameless file of the bank, mapped. One process's own; one thread at a
 * time.
 *
 * Each is laid out as a record, one behind the other; what only the heap can tell
 * (checksum, sequence, mtime, previous) has other words instead, see spool_entry().
 */
#ifndef KIST_BANK_SPOOL_H
#define KIST_BANK_SPOOL_H

#include "bank/core.h"

struct spool {
    const struct bank *bank;
    struct map map;
    int fd;       /* -1: in memory */
    uint64_t len; /* bytes in use */
    bool has_times; /* puts have their mtime, where a record's sequence is */
};

void spool_open(struct spool *sp, const struct bank *b);

/* Forget what is in it. */
void spool_empty(struct spool *sp);
void spool_close(struct spool *sp);

/* Copy a record of `kind` into it; *at receives where it is. Refuses keys and values
 * that are too long. Errors change nothing. Records may move: pointers into the
 * spool hold until the next one comes. */
int spool_add(struct spool *sp, uint8_t kind, kist_bytes key, kist_bytes value, uint64_t *at);

static inline struct record *spool_at(const struct spool *sp, uint64_t at)
{
    return (struct record *)(void *)(sp->map.base + at);
}

/* Where the next one is. */
static inline uint64_t spool_behind(const struct spool *sp, uint64_t at)
{
    return at + record_size(spool_at(sp, at));
}

/* The hash of its key. */
static inline uint64_t spool_hash(const struct record *r)
{
    return (uint64_t)r->mtime_ns;
}

/*
 * A put whose value comes in pieces: begin, as many pieces as it takes, end, which is told
 * where it began. Until then spool_at() does not know it; after an error the spool
 * is to be emptied.
 */
int spool_put_begin(struct spool *sp, kist_bytes key, uint32_t value_len, int64_t mtime_ns);
int spool_put_more(struct spool *sp, const void *data, size_t len);
int spool_put_end(struct spool *sp, uint64_t at);

/* What of an entry is known before its turn comes. */
struct entry spool_entry(const struct record *r);

/* The time of a write that is about to be made of it. */
static inline int64_t spool_mtime(const struct spool *sp, const struct record *r)
{
    return sp->has_times && record_kind(r) == RECORD_PUT ? (int64_t)r->sequence
                                                         : os_clock(OS_CLOCK_REAL_COARSE);
}

/* May the bank be written at all? Then make its content what the spool has. (replace.c) */
int replace_may(kist_bank *h);
int replace_by(kist_bank *h, const struct spool *sp);

#endif
