/* record.c - the checksums of records, see record.h. */
#include "heap/record.h"

uint64_t record_hash_header(const struct record *r, const struct record_bank *b, uint64_t place)
{
    struct {
        uint8_t header[32];
        int64_t expiry;
        uint8_t id[16];
        uint64_t place;
    } in;

    static_assert(sizeof in == 64, "no padding is hashed");
    memcpy(in.header, (const uint8_t *)r + 8, sizeof in.header);
    in.expiry = record_expiry(r);
    memcpy(in.id, b->id, sizeof in.id);
    in.place = place;
    return hash_bytes(&in, sizeof in);
}

uint64_t record_hash_value(const void *value, size_t len, uint64_t *sums)
{
    size_t n = 0;

    if (len <= CHUNKED_ABOVE)
        return hash_bytes(value, len);
    for (size_t at = 0; at < len; at += CHUNK_BYTES)
        sums[n++] = hash_bytes((const uint8_t *)value + at,
                               len - at < CHUNK_BYTES ? len - at : CHUNK_BYTES);
    return hash_bytes(sums, n * sizeof *sums);
}

static bool kind_is_known(const struct record *r)
{
    return record_kind(r) >= RECORD_PUT && record_kind(r) <= RECORD_PADDING &&
           (r->kind & 0x80) == 0 &&
           (record_kind(r) == RECORD_PADDING ||
            !(r->kind & RECORD_CHUNKED) == (r->value_len <= CHUNKED_ABOVE));
}

bool record_is_whole(const struct record *r, uint64_t room, const struct record_bank *b,
                     uint64_t place)
{
    uint64_t key, value;

    if (room < RECORD_MIN || !kind_is_known(r) || !record_fits(r, room))
        return false;
    key = record_hash_key(b, record_key(r), r->key_len);
    if (record_kind(r) == RECORD_PADDING)
        value = 0;
    else if (r->kind & RECORD_CHUNKED)
        value = hash_bytes((const uint8_t *)r + record_sums_at(r), 8 * chunk_count(r->value_len));
    else
        value = hash_bytes(record_value(r), r->value_len);
    return r->checksum == record_checksum(record_hash_header(r, b, place), key, value);
}

bool record_chunk_is_whole(const struct record *r, uint64_t i)
{
    uint64_t at = i * CHUNK_BYTES, sum;
    uint64_t len = r->value_len - at < CHUNK_BYTES ? r->value_len - at : CHUNK_BYTES;

    memcpy(&sum, (const uint8_t *)r + record_sums_at(r) + 8 * i, sizeof sum);
    return hash_bytes(record_value(r) + at, (size_t)len) == sum;
}
