/*
 * record - one immutable, checksummed run of bytes in the heap. Format 1.
 *
 *       0      1      2      3      4      5      6      7
 *    +------+------+------+------+------+------+------+------+
 *  0 |                       checksum                        |
 *    +-------------------------------------------------------+
 *  8 |                       sequence                        |
 *    +-------------------------------------------------------+
 * 16 |              mtime, ns since 1970 (signed)            |
 *    +-------------------------------------------------------+
 * 24 |         previous: where the key's last record is      |
 *    +---------------------------+-------------+------+------+
 * 32 |       value length        | key length  | kind |codec |
 *    +---------------------------+-------------+------+------+
 * 40 | expiry (8 bytes, if flagged), key, chunk sums (8 bytes
 *    | each, if flagged), value, zeros up to 16 bytes
 *    +-------------------------------------------------------
 *
 * A place names a record: segment number N (38 bits) and offset / 16 (26
 * bits) in one word; 0 names nothing. Its lower 47 bits are the location that
 * fits beside a tag in an index slot: N is cut to 21 bits there, and made
 * whole again from the newest N (see loc_place).
 *
 * The checksum is built from three hashes, so that a record can be moved
 * without reading its value:
 *
 *     XXH3(header from byte 8 on, expiry, bank id, place)
 *     ^ XXH3(key, seeded with the bank's seed)
 *     ^ rotate(XXH3(value, or the chunk sums where there are some), 1)
 *
 * Invariants
 *   R1  bytes never change once something leads to the record (I1, I3)
 *   R2  a record verifies only in its own bank, segment and offset
 *   R3  lengths are covered by the checksum
 *   R4  it starts on 16 bytes and lies in one segment
 */
#ifndef KIST_HEAP_RECORD_H
#define KIST_HEAP_RECORD_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "kist/kist.h"

enum record_kind {
    RECORD_PUT = 1,
    RECORD_TOUCH = 2,   /* a new expiry for the record that it leads to */
    RECORD_DELETE = 3,  /* value: origin, the N it was first written to */
    RECORD_CLEAR = 4,   /* kills every lower sequence; value: origin */
    RECORD_COMMIT = 5,  /* value: struct commit_body */
    RECORD_MARK = 6,    /* value: the place below which all is durable */
    RECORD_PADDING = 7, /* the rest of a segment; its value is not hashed */
};

enum {
    RECORD_KIND_MASK = 0x0f,
    RECORD_IN_BATCH = 0x10, /* counts only if its batch's commit verifies */
    RECORD_EXPIRES = 0x20,
    RECORD_CHUNKED = 0x40,

    RECORD_ALIGN = 16,
    RECORD_HEADER = 40,
    RECORD_MIN = 48,
    CHUNK_BYTES = 64 << 10,
    CHUNKED_ABOVE = 4096, /* values longer than this have chunk sums */
};

struct record {
    uint64_t checksum;
    uint64_t sequence;
    int64_t mtime_ns;
    uint64_t previous;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t kind; /* and flags */
    uint8_t codec;
    uint8_t body[];
};

#define RECORD_AT(field, off)                                                                      \
    static_assert(offsetof(struct record, field) == (off), "on-disk: " #field)
RECORD_AT(checksum, 0);
RECORD_AT(sequence, 8);
RECORD_AT(mtime_ns, 16);
RECORD_AT(previous, 24);
RECORD_AT(value_len, 32);
RECORD_AT(key_len, 36);
RECORD_AT(kind, 38);
RECORD_AT(codec, 39);
RECORD_AT(body, 40);
#undef RECORD_AT

/* What a commit record says of its batch. */
struct commit_body {
    uint64_t first; /* place of the batch's first record */
    uint64_t count; /* its records */
    uint64_t sum;   /* record_chain() over their checksums, in order */
};

static inline uint64_t record_chain(uint64_t sum, uint64_t checksum)
{
    return (sum << 7 | sum >> 57) ^ checksum;
}

/* ---- places ----------------------------------------------------------- */

enum { PLACE_OFF_BITS = 26, LOC_N_BITS = 21, LOC_BITS = 47, SEGMENT_N_BITS = 38 };
#define LOC_N_MASK ((UINT64_C(1) << LOC_N_BITS) - 1)
#define LOC_MASK ((UINT64_C(1) << LOC_BITS) - 1)
#define SEGMENT_N_MAX ((UINT64_C(1) << SEGMENT_N_BITS) - 1)
#define PLACE_END UINT64_MAX

static inline uint64_t place_make(uint64_t n, uint64_t offset)
{
    return n << PLACE_OFF_BITS | offset / RECORD_ALIGN;
}

static inline uint64_t place_n(uint64_t place)
{
    return place >> PLACE_OFF_BITS;
}

static inline uint64_t place_offset(uint64_t place)
{
    return (place & ((UINT64_C(1) << PLACE_OFF_BITS) - 1)) * RECORD_ALIGN;
}

/* No record begins here or behind: a segment is full then, however long its
 * file is (one value may be longer than offsets reach). */
#define PLACE_OFF_LIMIT (((UINT64_C(1) << PLACE_OFF_BITS) - 1) * RECORD_ALIGN)

/* The place right behind a record that ends at `offset`. */
static inline uint64_t place_behind(uint64_t n, uint64_t offset)
{
    return place_make(n, offset < PLACE_OFF_LIMIT ? offset : PLACE_OFF_LIMIT);
}

/* A segment of `len` bytes has no room for a record at `offset`. */
static inline bool place_is_full(uint64_t offset, uint64_t len)
{
    return offset >= PLACE_OFF_LIMIT || offset + RECORD_MIN > len;
}

/* The place that a slot's location stands for, when `newest` is the highest N
 * in use: the one N within 2^21 below it that has these lower bits. */
static inline uint64_t loc_place(uint64_t loc, uint64_t newest)
{
    uint64_t n = loc >> PLACE_OFF_BITS & ((UINT64_C(1) << LOC_N_BITS) - 1);
    uint64_t back = (newest - n) & ((UINT64_C(1) << LOC_N_BITS) - 1);

    return place_make(newest - back, 0) | (loc & ((UINT64_C(1) << PLACE_OFF_BITS) - 1));
}

/* ---- fields ----------------------------------------------------------- */

static inline enum record_kind record_kind(const struct record *r)
{
    return (enum record_kind)(r->kind & RECORD_KIND_MASK);
}

static inline uint64_t round16(uint64_t n)
{
    return (n + 15) & ~UINT64_C(15);
}

static inline uint64_t chunk_count(uint32_t value_len)
{
    return ((uint64_t)value_len + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

static inline uint64_t record_key_at(const struct record *r)
{
    return RECORD_HEADER + (r->kind & RECORD_EXPIRES ? 8u : 0u);
}

static inline uint64_t record_sums_at(const struct record *r)
{
    return record_key_at(r) + r->key_len;
}

static inline uint64_t record_value_at(const struct record *r)
{
    return record_sums_at(r) + (r->kind & RECORD_CHUNKED ? 8 * chunk_count(r->value_len) : 0);
}

/* Bytes of the record in the heap. */
static inline uint64_t record_size(const struct record *r)
{
    return round16(record_value_at(r) + r->value_len);
}

static inline const uint8_t *record_key(const struct record *r)
{
    return (const uint8_t *)r + record_key_at(r);
}

static inline const uint8_t *record_value(const struct record *r)
{
    return (const uint8_t *)r + record_value_at(r);
}

static inline uint64_t load8(const void *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof w);
    return w;
}

/* memcmp() == 0, without a call for the usual short keys. */
static inline bool bytes_equal(const void *a, const void *b, size_t len)
{
    const uint8_t *p = a, *q = b;

    if (len >= 8 && len <= 16) /* two words that may overlap */
        return ((load8(p) ^ load8(q)) | (load8(p + len - 8) ^ load8(q + len - 8))) == 0;
    return len == 0 || memcmp(p, q, len) == 0;
}

static inline bool record_key_is(const struct record *r, kist_bytes key)
{
    return r->key_len == key.len && bytes_equal(record_key(r), key.data, key.len);
}

/* Lengths, kind and codec as one word: what a plain put with a key of this
 * length has, but for the value's length in the lower half. */
static inline uint64_t record_plain(size_t key_len)
{
    return (uint64_t)RECORD_PUT << 48 | (uint64_t)key_len << 32;
}

static inline uint64_t record_shape(const struct record *r)
{
    return load8((const uint8_t *)r + offsetof(struct record, value_len));
}

/* A word of the value of a record of kist's own: origin, mark. */
static inline uint64_t record_word(const struct record *r)
{
    uint64_t w = 0;

    if (r->value_len >= sizeof w)
        memcpy(&w, record_value(r), sizeof w);
    return w;
}

static inline int64_t record_expiry(const struct record *r)
{
    int64_t t = 0;

    if (r->kind & RECORD_EXPIRES)
        memcpy(&t, r->body, sizeof t);
    return t;
}

/* ---- checksums -------------------------------------------------------- */

/* What a record's checksum depends on besides its own bytes. */
struct record_bank {
    uint8_t id[16];
    uint64_t seed;
};

static inline uint64_t record_hash_key(const struct record_bank *b, const void *key, size_t len)
{
    return hash_seeded(key, len, b->seed);
}

/* The part of the checksum that moving changes. */
uint64_t record_hash_header(const struct record *r, const struct record_bank *b, uint64_t place);

/* A value's hash as the checksum uses it; `sums` receives the chunk sums
 * where the value is longer than CHUNKED_ABOVE. */
uint64_t record_hash_value(const void *value, size_t len, uint64_t *sums);

static inline uint64_t record_checksum(uint64_t header, uint64_t key, uint64_t value)
{
    return header ^ key ^ (value << 1 | value >> 63);
}

/* Header, key, and the value up to CHUNKED_ABOVE bytes are whole. `room`:
 * bytes from the record to the end of its segment. Nothing is trusted (I5). */
bool record_is_whole(const struct record *r, uint64_t room, const struct record_bank *b,
                     uint64_t place);

/* The chunk `i` of a chunked record's value is whole. */
bool record_chunk_is_whole(const struct record *r, uint64_t i);

/* The lengths are possible within `room` bytes; says nothing of the content. */
static inline bool record_fits(const struct record *r, uint64_t room)
{
    return room >= RECORD_MIN && record_size(r) <= room;
}

#endif
