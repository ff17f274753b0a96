/*
 * bench - what the driver of the benchmark and its engines share.
 *
 * An engine is a way to keep records of one key size and one value size; the
 * driver reaches each through the same table of functions, so what the driver
 * itself costs is the same for all. Engines return negative on failure, after
 * saying on stderr what failed.
 */
#ifndef KIST_BENCH_H
#define KIST_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    BENCH_KEY_BYTES = 16,
    BENCH_VALUE_BYTES = 100,
    BENCH_PAYLOAD_BYTES = BENCH_KEY_BYTES + BENCH_VALUE_BYTES,
    BENCH_BATCH = 16,
    BENCH_MISS = 256, /* from get: no such key; else the value's first byte */
};

typedef struct bench_key {
    uint64_t word[BENCH_KEY_BYTES / 8];
} bench_key;

/* How a store is opened; an engine ignores what it has no counterpart of. */
enum bench_mode {
    BENCH_LOAD,          /* created, to be filled with puts and one sync */
    BENCH_USE,           /* read and written, nothing synced */
    BENCH_DURABLE,       /* each put is durable when it returns */
    BENCH_READONLY,      /* for reading alone */
    BENCH_VERIFY_ALWAYS, /* a record's checksum is tested at each read */
    BENCH_VERIFY_NEVER,
};

struct bench_conf {
    const char *dir; /* the engine's own folder */
    uint64_t entries;
    enum bench_mode mode;
    bool huge_pages;     /* for engines in memory: ask for them */
    size_t record_bytes; /* for pwrite: what it writes at each put */
};

/* What an engine knows of its files that the file system does not tell. */
struct bench_use {
    uint64_t reserved_bytes; /* allocated ahead, not yet used */
    uint64_t record_bytes;   /* one record as it is stored; 0: unknown */
};

struct bench_order;

struct bench_engine {
    const char *name;
    bool in_memory; /* has no files; lives from the first load to the end */

    int (*open)(void **self, const struct bench_conf *conf);
    int (*put)(void *self, const bench_key *key, const void *value);
    /* The first byte of the value, BENCH_MISS, or negative. */
    int (*get)(void *self, const bench_key *key);
    int (*sync)(void *self);
    int (*close)(void *self);

    /* Optional; NULL where the engine has nothing of the kind. */

    /* BENCH_BATCH keys; adds up the first bytes of the values, returns how
     * many keys were found. */
    int (*get_many)(void *self, const bench_key *keys, uint64_t *sum);
    /* Around gets: an open transaction, a read section. */
    int (*read_begin)(void *self);
    void (*read_end)(void *self);
    /* After a round of writing, not timed: give back what is dead. */
    int (*tidy)(void *self);
    int (*use)(void *self, struct bench_use *use);
    const char *(*version)(void);
    const char *setup; /* for the report: how it was set up */
    const struct bench_order *order; /* of an engine that keeps keys in byte order */
};

/* What an ordered engine does besides; NULL where it has nothing of the kind. */
struct bench_order {
    int (*remove)(void *self, const bench_key *key); /* 0, also if it is not there */
    /* All entries whose key begins with the prefix, upwards, each touched with
     * bench_touch(); returns how many, or negative. Within read_begin, read_end. */
    int64_t (*scan)(void *self, const void *prefix, size_t len, uint64_t *digest);
    /* Give back what is dead, and lay out the rest as scans like it. */
    int (*compact)(void *self);
    /* The content as it is now, in memory or by reference. */
    int (*snapshot)(void *self, void **out);
    void (*snapshot_free)(void *self, void *snapshot);
    int (*revert)(void *self, void *snapshot); /* make that the content again */
    int (*save)(void *self, const char *path); /* the content, to a new file */
    int (*restore)(void *self, const char *path);
};

/* What the reader of a scan does with an entry: look at the second half of its
 * key and at the first byte of its value. The digest tells the order, too. */
static inline uint64_t bench_touch(uint64_t digest, const void *key, const void *value)
{
    uint64_t half;

    memcpy(&half, (const unsigned char *)key + BENCH_KEY_BYTES / 2, sizeof half);
    return (digest << 5 | digest >> 59) ^ (half + *(const unsigned char *)value);
}

extern const struct bench_engine bench_limit;
extern const struct bench_engine bench_kist;
extern const struct bench_engine bench_lmdb;
extern const struct bench_engine bench_tkrzw;
extern const struct bench_engine bench_pwrite;

extern const struct bench_engine bench_kist_ordered;
extern const struct bench_engine bench_btreemap;
extern const struct bench_engine bench_tkrzw_tree;
extern const struct bench_engine bench_lmdb_ordered;

/* Say on stderr what failed; returns -1. */
int bench_fail(const char *engine, const char *what, const char *why);

#ifdef __cplusplus
}
#endif
#endif
