/* The numbers by which `kist inspect` reads files are those of the library. */
#include "cli/format.h"
#include "heap/segment.h"
#include "index/hash.h"
#include "index/ordered_node.h"
#include "support.h"

#define SAME(name, is)                                                                             \
    {                                                                                              \
#name, (uint64_t)(name), (uint64_t)(is)                                                    \
    }

static const struct {
    const char *name;
    uint64_t here, there;
} numbers[] = {
    SAME(FORMAT_KNOWN, SEGMENT_FORMAT),
    SAME(FORMAT_KNOWN, HASH_FORMAT),
    SAME(FORMAT_NUMBER_AT, offsetof(struct segment_header, format)),
    SAME(FORMAT_NUMBER_AT, offsetof(struct hash_file, format)),
    SAME(SEG_CUT_AT, offsetof(struct segment_header, cut16)),
    SAME(SEG_BANK_AT, offsetof(struct segment_header, bank_id)),
    SAME(SEG_N_AT, offsetof(struct segment_header, n)),
    SAME(SEG_INCARNATION_AT, offsetof(struct segment_header, incarnation)),
    SAME(SEG_PREDECESSOR_AT, offsetof(struct segment_header, predecessor)),
    SAME(SEG_HEADER, sizeof(struct segment_header)),
    SAME(SEG_RECORDS_AT, SEGMENT_FIRST_RECORD),
    SAME(REC_CHECKSUM_AT, offsetof(struct record, checksum)),
    SAME(REC_SEQUENCE_AT, offsetof(struct record, sequence)),
    SAME(REC_MTIME_AT, offsetof(struct record, mtime_ns)),
    SAME(REC_PREVIOUS_AT, offsetof(struct record, previous)),
    SAME(REC_VALUE_LEN_AT, offsetof(struct record, value_len)),
    SAME(REC_KEY_LEN_AT, offsetof(struct record, key_len)),
    SAME(REC_KIND_AT, offsetof(struct record, kind)),
    SAME(REC_CODEC_AT, offsetof(struct record, codec)),
    SAME(REC_HEADER, RECORD_HEADER),
    SAME(REC_LEAST, RECORD_MIN),
    SAME(REC_ALIGN, RECORD_ALIGN),
    SAME(REC_CHUNK, CHUNK_BYTES),
    SAME(REC_KIND_MASK, RECORD_KIND_MASK),
    SAME(REC_IN_BATCH, RECORD_IN_BATCH),
    SAME(REC_EXPIRES, RECORD_EXPIRES),
    SAME(REC_CHUNKED, RECORD_CHUNKED),
    SAME(REC_PUT, RECORD_PUT),
    SAME(REC_TOUCH, RECORD_TOUCH),
    SAME(REC_DELETE, RECORD_DELETE),
    SAME(REC_CLEAR, RECORD_CLEAR),
    SAME(REC_COMMIT, RECORD_COMMIT),
    SAME(REC_MARK, RECORD_MARK),
    SAME(REC_PADDING, RECORD_PADDING),
    SAME(PLACE_BITS, PLACE_OFF_BITS),
    SAME(IDX_BANK_AT, offsetof(struct hash_file, bank_id)),
    SAME(IDX_GENERATION_AT, offsetof(struct hash_file, generation)),
    SAME(IDX_ROOT_AT, offsetof(struct hash_file, root)),
    SAME(IDX_SPLITS_AT, offsetof(struct hash_file, splits)),
    SAME(IDX_HEADER, sizeof(struct hash_file)),
    SAME(IDX_DEPTH_MAX, HASH_DEPTH_MAX),
    SAME(IDX_LG_MAX, HASH_LG_MAX),
    SAME(IDX_BUCKET, HASH_BUCKET),
    SAME(IDX_WAYS, HASH_WAYS),
    SAME(IDX_LOCATION_BITS, LOC_BITS),
    SAME(FORMAT_KNOWN, ORDERED_FORMAT),
    SAME(IDX_KIND_AT, offsetof(struct hash_file, kind)),
    SAME(IDX_KIND_AT, offsetof(struct ordered_file, kind)),
    SAME(IDX_KIND_HASH, KIST_INDEX_HASH),
    SAME(IDX_KIND_ORDERED, ORDERED_KIND),
    SAME(IDX_BANK_AT, offsetof(struct ordered_file, bank_id)),
    SAME(IDX_GENERATION_AT, offsetof(struct ordered_file, generation)),
    SAME(ORD_ROOT_AT, offsetof(struct ordered_file, root)),
    SAME(ORD_FRESH_AT, offsetof(struct ordered_file, fresh)),
    SAME(ORD_UNIT, ORDERED_UNIT),
    SAME(ORD_ORDER_AT, offsetof(struct ordered_leaf, order)),
    SAME(ORD_WAYS, ORDERED_WAYS),
    SAME(ORD_FANOUT, ORDERED_FANOUT),
    SAME(ORD_LEVEL_MAX, ORDERED_LEVEL_MAX),
    SAME(ORD_INNER_HEADER, INNER_PREFIX_AT),
    SAME(ORD_OFFSET_MASK, NODE_OFFSET_MASK),
};

TEST(numbers_of_the_files_are_those_of_the_library)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        test_case = i + 1;
        test_note = numbers[i].name;
        must(numbers[i].here == numbers[i].there);
    }
    test_case = 0;
}

/* Where record_size() and entry_...() do arithmetic, inspect does the same. */
TEST(names_are_those_of_the_library)
{
    char name[SEGMENT_NAME_MAX];

    segment_name(name, 7);
    must(strcmp(name, FORMAT_HEAP_NAME "7") == 0);
    must(segment_number(FORMAT_HEAP_NAME "7") == 7);
}
