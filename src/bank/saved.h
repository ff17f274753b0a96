/*
 * saved - a snapshot as bytes, from beginning to end: docs/format.md draws it.
 *
 *     +--------+---------+---------+- - -+------------+---------+
 *     | header | block 0 | block 1 |     | last block | trailer |
 *     +--------+---------+---------+- - -+------------+---------+
 *       128      65,536    65,536          8 to 65,536   32
 *
 * The content of the blocks, one behind the other, is the entries: a head, key,
 * value, and the next one's. So the whole length follows from two numbers that are
 * known beforehand, and a value of any length goes by in pieces.
 *
 * Invariants
 *   V1  a block counts if its checksum is that of its content, its number and
 *       its header: a block of another place or another snapshot does not
 *   V2  the trailer's checksum is one over all of the blocks'
 *   V3  keys of an ordered bank ascend
 */
#ifndef KIST_BANK_SAVED_H
#define KIST_BANK_SAVED_H

#include "base/hash.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SAVED_FORMAT = 1,
    SAVED_BLOCK = 65536,
    SAVED_CONTENT = SAVED_BLOCK - 8,
};

struct saved_header {
    char magic[8];
    uint32_t format, index;
    uint8_t bank_id[16];
    uint64_t sequence;
    int64_t taken_ns;
    uint64_t entries;
    uint64_t payload;
    uint64_t length;
    uint64_t zero[6];
    uint64_t checksum;
};
static_assert(sizeof(struct saved_header) == 128, "on-disk: header of a saved snapshot");

struct saved_block {
    uint64_t checksum;
    uint8_t content[SAVED_CONTENT];
};
static_assert(sizeof(struct saved_block) == SAVED_BLOCK, "on-disk: block of a saved snapshot");

struct saved_entry {
    uint32_t value_len;
    uint16_t key_len;
    uint16_t zero;
    int64_t mtime_ns;
};
static_assert(sizeof(struct saved_entry) == 16, "on-disk: entry of a saved snapshot");

struct saved_trailer {
    char magic[8];
    uint64_t entries;
    uint64_t payload;
    uint64_t checksum;
};
static_assert(sizeof(struct saved_trailer) == 32, "on-disk: trailer of a saved snapshot");

static const char saved_magic[8] = { 'K', 'I', 'S', 'T', 'S', 'N', 'A', 'P' };
static const char saved_end_magic[8] = { 'K', 'I', 'S', 'T', 'S', 'E', 'N', 'D' };

/* Of one that is no larger than any could be. */
#define SAVED_ENTRIES_MAX (UINT64_C(1) << 48)
#define SAVED_PAYLOAD_MAX (UINT64_C(1) << 60)

static inline uint64_t saved_content(uint64_t entries, uint64_t payload)
{
    return entries * sizeof(struct saved_entry) + payload;
}

static inline uint64_t saved_length(uint64_t entries, uint64_t payload)
{
    uint64_t content = saved_content(entries, payload);
    uint64_t blocks = (content + SAVED_CONTENT - 1) / SAVED_CONTENT;

    return sizeof(struct saved_header) + content + 8 * blocks + sizeof(struct saved_trailer);
}

static inline uint64_t saved_header_sum(const struct saved_header *h)
{
    return hash_bytes(h, offsetof(struct saved_header, checksum));
}

/* V1 */
static inline uint64_t saved_block_sum(const struct saved_header *h, uint64_t number,
                                       const void *content, size_t len)
{
    return hash_seeded(content, len, h->checksum + number);
}

/* V2: with the sum of the blocks before, or the header's checksum. */
static inline uint64_t saved_chain(uint64_t sum, uint64_t block)
{
    return hash_seeded(&block, sizeof block, sum);
}

static inline uint64_t saved_trailer_sum(uint64_t sum, const struct saved_trailer *t)
{
    return hash_seeded(t, offsetof(struct saved_trailer, checksum), sum);
}

#endif
