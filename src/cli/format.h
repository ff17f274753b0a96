/*
 * What `kist inspect` knows of the files of a bank: docs/format.md as numbers.
 *
 * The program sees nothing of the library but its public headers, and these
 * are not in them: files are the library's own affair. tests/unit/format_test.c
 * holds each of them against the struct or number that the library uses.
 */
#ifndef CLI_FORMAT_H
#define CLI_FORMAT_H

#define FORMAT_HEAP_NAME "kist.heap."
#define FORMAT_HEAP_MAGIC "KISTHEAP"
#define FORMAT_INDEX_NAME "kist.index."
#define FORMAT_INDEX_MAGIC "KISTINDX"

#include <stdint.h>

enum {
    FORMAT_MAGIC_BYTES = 8,
    FORMAT_NUMBER_AT = 8, /* of the format, in each file */
    FORMAT_KNOWN = 1,     /* the format that this is about, of each file */

    /* A segment. */
    SEG_CUT_AT = 12,
    SEG_BANK_AT = 16,
    SEG_N_AT = 32,
    SEG_INCARNATION_AT = 40,
    SEG_PREDECESSOR_AT = 48,
    SEG_HEADER = 64, /* twice */
    SEG_RECORDS_AT = 128,

    /* A record. */
    REC_CHECKSUM_AT = 0,
    REC_SEQUENCE_AT = 8,
    REC_MTIME_AT = 16,
    REC_PREVIOUS_AT = 24,
    REC_VALUE_LEN_AT = 32,
    REC_KEY_LEN_AT = 36,
    REC_KIND_AT = 38,
    REC_CODEC_AT = 39,
    REC_HEADER = 40,
    REC_LEAST = 48,
    REC_ALIGN = 16,
    REC_CHUNK = 64 << 10,

    REC_KIND_MASK = 0x0f,
    REC_IN_BATCH = 0x10,
    REC_EXPIRES = 0x20,
    REC_CHUNKED = 0x40,

    REC_PUT = 1,
    REC_TOUCH = 2,
    REC_DELETE = 3,
    REC_CLEAR = 4,
    REC_COMMIT = 5,
    REC_MARK = 6,
    REC_PADDING = 7,

    /* A place: segment and offset / 16. */
    PLACE_BITS = 26,

    /* An index, of either kind. */
    IDX_KIND_AT = 12,
    IDX_KIND_HASH = 1,
    IDX_KIND_ORDERED = 2,
    IDX_BANK_AT = 16,
    IDX_GENERATION_AT = 32,

    /* A hash index. */
    IDX_ROOT_AT = 64,
    IDX_SPLITS_AT = 72,
    IDX_HEADER = 80,
    IDX_DEPTH_MAX = 32,
    IDX_LG_MAX = 24,
    IDX_BUCKET = 64,
    IDX_WAYS = 8,
    IDX_LOCATION_BITS = 47, /* the bit above them: overflow */

    /* An ordered index. */
    ORD_ROOT_AT = 64,
    ORD_FRESH_AT = 72,
    ORD_UNIT = 256, /* of offsets and sizes, and a leaf */
    ORD_ORDER_AT = 8,
    ORD_WAYS = 15,
    ORD_FANOUT = 64,
    ORD_LEVEL_MAX = 31,
    ORD_INNER_HEADER = 16,
};

#define ORD_OFFSET_MASK UINT64_C(0xffffffffff00)

#endif
