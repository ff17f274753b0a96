/*
 * The verb inspect: the heap and index files of banks, record by record and
 * block by block, as docs/format.md describes them.
 *
 * Files are read through page caches, so that the memory it takes does not
 * depend on theirs. Nothing is trusted: what a length or an offset leads to is
 * looked at only within its file. Checksums are printed and not tested, which
 * 'kist verify' does. A bank in use is a moving target: what is being appended
 * may look like bytes that are no record, and files may be gone.
 */
#include "fail.h"
#include "format.h"
#include "inspect.h"
#include "out.h"
#include "session.h"
#include "verbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PREVIEW = 32, PIECE = 4096 };

static void worse(struct inspect *in, int status)
{
    in->status = status > in->status ? status : in->status;
}

static void broken(struct inspect *in, int status)
{
    worse(in, status);
    in->broken = true;
}

void inspect_damaged(struct inspect *in, uint64_t at, const char *what)
{
    complain("bank %s: %s, byte %" PRIu64 ": %s", quoted(in->bank), quoted(in->file.name), at,
             what);
    worse(in, STATUS_DAMAGE);
}

bool inspect_read(struct inspect *in, uint64_t at, void *buf, size_t len)
{
    int rc = kist_pages_read(in->file.pages, at, buf, len);

    if (rc == KIST_EBOUNDS)
        inspect_damaged(in, at, "the file ends too early");
    else if (rc != KIST_OK)
        broken(in, paged_file_fail(&in->file, rc));
    return rc == KIST_OK;
}

void inspect_json(const struct inspect *in, const char *what, uint64_t at)
{
    json_begin();
    json_text("bank", in->bank);
    json_text("file", in->file.name);
    json_text("what", what);
    json_u64("offset", at);
}

void inspect_json_hex(const char *name, const unsigned char *bytes, size_t len)
{
    char text[64 + 1];

    for (size_t i = 0; i < len && i < 32; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    json_text(name, text);
}

/* Magic and format: is it a file that this program knows? */
static bool known(struct inspect *in, const unsigned char *header, const char *magic)
{
    if (memcmp(header, magic, FORMAT_MAGIC_BYTES) != 0) {
        inspect_damaged(in, 0, "no file of kist, or its header is damaged");
        return false;
    }
    if (number(header, FORMAT_NUMBER_AT, 4) != FORMAT_KNOWN) {
        inspect_damaged(in, FORMAT_NUMBER_AT, "a format that this version does not know");
        return false;
    }
    return true;
}

/* ---- records ---------------------------------------------------------- */

struct rec {
    uint64_t at, size, value_at; /* in the file */
    uint64_t checksum, sequence, previous;
    int64_t mtime_ns, expiry_ns;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t kind, flags, codec;
    uint64_t key_at;
};

static const char *kind_name(unsigned kind)
{
    static const char *const names[] = {
        [REC_PUT] = "put",        [REC_TOUCH] = "touch",   [REC_DELETE] = "delete",
        [REC_CLEAR] = "clear",    [REC_COMMIT] = "commit", [REC_MARK] = "mark",
        [REC_PADDING] = "padding"
    };

    return kind >= REC_PUT && kind <= REC_PADDING ? names[kind] : "unknown";
}

/* What the header says; the lengths are not compared with anything yet. */
static void rec_take(struct rec *r, uint64_t at, const unsigned char *header)
{
    uint8_t kind = header[REC_KIND_AT];
    uint64_t sums;

    *r = (struct rec){
        .at = at,
        .checksum = number(header, REC_CHECKSUM_AT, 8),
        .sequence = number(header, REC_SEQUENCE_AT, 8),
        .mtime_ns = (int64_t)number(header, REC_MTIME_AT, 8),
        .previous = number(header, REC_PREVIOUS_AT, 8),
        .value_len = (uint32_t)number(header, REC_VALUE_LEN_AT, 4),
        .key_len = (uint16_t)number(header, REC_KEY_LEN_AT, 2),
        .kind = kind & REC_KIND_MASK,
        .flags = kind & (uint8_t)~REC_KIND_MASK,
        .codec = header[REC_CODEC_AT],
    };
    r->key_at = at + REC_HEADER + (kind & REC_EXPIRES ? 8 : 0);
    if (kind & REC_EXPIRES)
        r->expiry_ns = (int64_t)number(header, REC_HEADER, 8);
    sums = kind & REC_CHUNKED ? ((uint64_t)r->value_len + REC_CHUNK - 1) / REC_CHUNK * 8 : 0;
    r->value_at = r->key_at + r->key_len + sums;
    r->size = (r->value_at - at + r->value_len + REC_ALIGN - 1) / REC_ALIGN * REC_ALIGN;
}

/* Bytes of the file, escaped, in pieces: a key may have 64 KiB. */
static void print_escaped(struct inspect *in, uint64_t at, uint64_t len)
{
    static unsigned char piece[PIECE];

    while (len > 0 && !out_failed()) {
        size_t n = len < PIECE ? (size_t)len : PIECE;

        if (!inspect_read(in, at, piece, n))
            return;
        out_escaped((kist_bytes){ piece, n });
        at += n;
        len -= n;
    }
}

void inspect_preview(struct inspect *in, uint64_t at, uint64_t len)
{
    out_text("'");
    print_escaped(in, at, len < PREVIEW ? len : PREVIEW);
    out_text(len > PREVIEW ? "'..." : "'");
}

/* What the value of a record of kist's own says, else the first of its bytes. */
static void print_value(struct inspect *in, const struct rec *r)
{
    unsigned char word[8];

    if (r->kind == REC_PADDING)
        return;
    if (r->kind == REC_PUT || r->value_len < sizeof word) {
        out_text(", value of %" PRIu32 " ", r->value_len);
        inspect_preview(in, r->value_at, r->value_len);
        return;
    }
    if (!inspect_read(in, r->value_at, word, sizeof word))
        return;
    if (r->kind == REC_MARK || r->kind == REC_COMMIT)
        out_text(", %s segment %" PRIu64 " byte %" PRIu64,
                 r->kind == REC_MARK ? "durable before" : "of a batch from",
                 number(word, 0, 8) >> PLACE_BITS,
                 (number(word, 0, 8) & ((UINT64_C(1) << PLACE_BITS) - 1)) * REC_ALIGN);
    else
        out_text(", first written to segment %" PRIu64, number(word, 0, 8));
}

static void print_record(struct inspect *in, const struct rec *r)
{
    out_text("  %10" PRIu64 "  %-8s", r->at, kind_name(r->kind));
    if (r->kind == REC_PADDING) {
        out_text("%" PRIu64 " bytes\n", r->size);
        return;
    }
    out_text("sequence %" PRIu64, r->sequence);
    if (r->key_len > 0 || r->kind == REC_PUT) {
        out_text(", key '");
        print_escaped(in, r->key_at, r->key_len);
        out_text("'");
    }
    print_value(in, r);
    if (r->flags & REC_IN_BATCH)
        out_text(", in a batch");
    if (r->flags & REC_EXPIRES)
        out_text(", expires %" PRId64, r->expiry_ns);
    if (r->flags & REC_CHUNKED)
        out_text(", sums of chunks");
    if (r->codec != 0)
        out_text(", codec %u", r->codec);
    out_text("\n");
}

static void json_record(struct inspect *in, const struct rec *r)
{
    static unsigned char key[UINT16_MAX];

    if (!inspect_read(in, r->key_at, key, r->key_len))
        return;
    inspect_json(in, "record", r->at);
    json_text("kind", kind_name(r->kind));
    json_u64("bytes", r->size);
    json_u64("sequence", r->sequence);
    json_i64("mtime_ns", r->mtime_ns);
    json_bytes("key", (kist_bytes){ key, r->key_len });
    json_u64("value_bytes", r->value_len);
    json_u64("value_offset", r->value_at);
    json_u64("previous_segment", r->previous >> PLACE_BITS);
    json_u64("previous_offset", (r->previous & ((UINT64_C(1) << PLACE_BITS) - 1)) * REC_ALIGN);
    json_bool("in_batch", (r->flags & REC_IN_BATCH) != 0);
    json_i64("expiry_ns", r->expiry_ns);
    json_u64("codec", r->codec);
    json_u64("checksum", r->checksum);
    json_end();
}

/* The end of what is zero from `at` on. */
static uint64_t zeros_end(struct inspect *in, uint64_t at)
{
    static const unsigned char zeros[PIECE];
    kist_slice slice = { 0 };
    int rc = kist_pages_load(in->file.pages, at, 1, &slice);

    while (rc == KIST_OK) {
        const unsigned char *p = slice.bytes.data;
        size_t i = at > slice.addr ? (size_t)(at - slice.addr) : 0, len = slice.bytes.len;

        while (i < len && p[i] == 0)
            i += len - i >= PIECE && memcmp(p + i, zeros, PIECE) == 0 ? PIECE : 1;
        at = slice.addr + i;
        if (i < len)
            break;
        rc = kist_pages_next(in->file.pages, &slice);
    }
    kist_slice_release(in->file.pages, &slice);
    return at;
}

static void print_rest(struct inspect *in, uint64_t at)
{
    uint64_t end = in->file.len, zero_to = at < end ? zeros_end(in, at) : at;

    if (inspect_is_json(in)) {
        inspect_json(in, "rest", at);
        json_u64("zeros", zero_to - at);
        json_u64("other_bytes", end > zero_to ? end - zero_to : 0);
        json_end();
        return;
    }
    if (zero_to > at)
        out_text("  %10" PRIu64 "  %" PRIu64 " bytes of zeros\n", at, zero_to - at);
    if (end > zero_to)
        out_text("  %10" PRIu64 "  %" PRIu64 " bytes that are no record\n", zero_to, end - zero_to);
}

/* One record after the other, as long as they fit. */
static void inspect_records(struct inspect *in)
{
    unsigned char header[REC_LEAST];
    uint64_t at = SEG_RECORDS_AT, len = in->file.len;

    while (at + REC_LEAST <= len && !in->broken && !out_failed()) {
        struct rec r;

        if (!inspect_read(in, at, header, sizeof header))
            return;
        rec_take(&r, at, header);
        if (r.checksum == 0 || r.kind == 0 || r.size < REC_LEAST || r.size > len - at)
            break;
        if (inspect_is_json(in))
            json_record(in, &r);
        else
            print_record(in, &r);
        at += r.size;
    }
    print_rest(in, at);
}

static void inspect_segment(struct inspect *in)
{
    unsigned char header[SEG_HEADER];
    uint64_t cut, before;

    if (!inspect_read(in, 0, header, sizeof header))
        return;
    if (!known(in, header, FORMAT_HEAP_MAGIC) &&
        (!inspect_read(in, SEG_HEADER, header, sizeof header) ||
         memcmp(header, FORMAT_HEAP_MAGIC, FORMAT_MAGIC_BYTES) != 0))
        return;
    cut = number(header, SEG_CUT_AT, 4) * REC_ALIGN;
    before = number(header, SEG_PREDECESSOR_AT, 8);
    if (inspect_is_json(in)) {
        inspect_json(in, "segment", 0);
        json_u64("file_bytes", in->file.len);
        json_u64("segment", number(header, SEG_N_AT, 8));
        json_u64("incarnation", number(header, SEG_INCARNATION_AT, 8));
        json_u64("predecessor", before);
        json_u64("predecessor_cut", cut);
        inspect_json_hex("bank_id", header + SEG_BANK_AT, 16);
        json_end();
    } else {
        out_text("%s: segment %" PRIu64 ", %" PRIu64 " bytes, incarnation %" PRIu64, in->file.name,
                 number(header, SEG_N_AT, 8), in->file.len, number(header, SEG_INCARNATION_AT, 8));
        if (before != 0)
            out_text(", behind segment %" PRIu64, before);
        if (cut != 0)
            out_text(" that is cut at %" PRIu64, cut);
        out_text("\n");
    }
    inspect_records(in);
}

/* ---- index blocks ----------------------------------------------------- */

struct block {
    uint64_t at, buckets, used, overflowing, first_entry, entries;
    unsigned depth;
};

static void print_block(const struct inspect *in, const struct block *b)
{
    if (inspect_is_json(in)) {
        inspect_json(in, "block", b->at);
        json_u64("first_entry", b->first_entry);
        json_u64("entries", b->entries);
        json_u64("depth", b->depth);
        json_u64("buckets", b->buckets);
        json_u64("slots", b->buckets * IDX_WAYS);
        json_u64("used", b->used);
        json_u64("overflowing", b->overflowing);
        json_end();
        return;
    }
    out_text("  %10" PRIu64 "  entries %" PRIu64 " to %" PRIu64 ", depth %u, %" PRIu64
             " of %" PRIu64 " slots used, %" PRIu64 " of %" PRIu64 " buckets overflow\n",
             b->at, b->first_entry, b->first_entry + b->entries - 1, b->depth, b->used,
             b->buckets * IDX_WAYS, b->overflowing, b->buckets);
}

static bool count_slots(struct inspect *in, struct block *b)
{
    const uint64_t location = (UINT64_C(1) << IDX_LOCATION_BITS) - 1;
    unsigned char bucket[IDX_BUCKET];

    for (uint64_t i = 0; i < b->buckets; i++) {
        if (!inspect_read(in, b->at + i * IDX_BUCKET, bucket, sizeof bucket))
            return false;
        for (size_t way = 0; way < IDX_WAYS; way++)
            b->used += (number(bucket, 8 * way, 8) & location) != 0;
        b->overflowing += number(bucket, 0, 8) >> IDX_LOCATION_BITS & 1;
    }
    return true;
}

/* An entry, and how many of those behind it are the same. */
static bool inspect_entry(struct inspect *in, uint64_t entry, uint64_t number_of, uint64_t same)
{
    unsigned lg = (unsigned)(entry & 63);
    struct block b = {
        .at = entry >> 6 & ~UINT64_C(63),
        .depth = (unsigned)(entry >> 6 & 63),
        .first_entry = number_of,
        .entries = same,
    };

    if (lg > IDX_LG_MAX || b.at > in->file.len ||
        ((uint64_t)IDX_BUCKET << lg) > in->file.len - b.at) {
        inspect_damaged(in, b.at, "an entry of the directory leads out of the file");
        return true;
    }
    b.buckets = UINT64_C(1) << lg;
    in->walked += (uint64_t)IDX_BUCKET << lg;
    if (in->walked > 2 * in->file.len) { /* twice: one in use may move meanwhile */
        inspect_damaged(in, b.at, "the entries of the directory lead to the same blocks again and again");
        return false;
    }
    if (!count_slots(in, &b))
        return false;
    print_block(in, &b);
    return true;
}

static void inspect_directory(struct inspect *in, uint64_t at, uint64_t entries)
{
    uint64_t entry = 0, next = 0;

    in->walked = 0;
    for (uint64_t i = 0, same; i < entries && !out_failed(); i += same) {
        if (kist_pages_get_u64_le(in->file.pages, at + 8 * i, &entry) != KIST_OK)
            return; /* it was compared with the file's length before */
        for (same = 1; i + same < entries; same++)
            if (kist_pages_get_u64_le(in->file.pages, at + 8 * (i + same), &next) != KIST_OK ||
                next != entry)
                break;
        if (!inspect_entry(in, entry, i, same))
            return;
    }
}

static void inspect_hash(struct inspect *in, const unsigned char *header)
{
    uint64_t root = number(header, IDX_ROOT_AT, 8), at = root & ~UINT64_C(63);
    unsigned depth = (unsigned)(root & 63);

    if (inspect_is_json(in)) {
        inspect_json(in, "index", 0);
        json_text("kind", "hash");
        json_u64("file_bytes", in->file.len);
        json_u64("generation", number(header, IDX_GENERATION_AT, 8));
        json_u64("directory", at);
        json_u64("depth", depth);
        json_u64("splits", number(header, IDX_SPLITS_AT, 8));
        inspect_json_hex("bank_id", header + IDX_BANK_AT, 16);
        json_end();
    } else {
        out_text("%s: hash index, generation %" PRIu64 ", %" PRIu64 " bytes, directory of depth %u "
                 "at %" PRIu64 ", %" PRIu64 " blocks and directories made\n",
                 in->file.name, number(header, IDX_GENERATION_AT, 8), in->file.len, depth, at,
                 number(header, IDX_SPLITS_AT, 8));
    }
    if (depth > IDX_DEPTH_MAX || at > in->file.len || (UINT64_C(8) << depth) > in->file.len - at)
        inspect_damaged(in, IDX_ROOT_AT, "the root leads out of the file");
    else
        inspect_directory(in, at, UINT64_C(1) << depth);
}

static void inspect_index(struct inspect *in)
{
    unsigned char header[IDX_HEADER];

    if (!inspect_read(in, 0, header, sizeof header) || !known(in, header, FORMAT_INDEX_MAGIC))
        return;
    switch (number(header, IDX_KIND_AT, 4)) {
    case IDX_KIND_HASH:
        inspect_hash(in, header);
        break;
    case IDX_KIND_ORDERED:
        inspect_ordered(in, header);
        break;
    default:
        inspect_damaged(in, IDX_KIND_AT, "a kind of index that this version does not know");
    }
}

/* ---- the files of a bank ---------------------------------------------- */

struct numbers {
    uint64_t *list;
    size_t count, room;
};

static bool add_number(struct numbers *n, uint64_t value)
{
    if (n->count == n->room) {
        size_t room = n->room == 0 ? 64 : 2 * n->room;
        uint64_t *list = realloc(n->list, room * sizeof *list);

        if (list == NULL)
            return false;
        n->list = list;
        n->room = room;
    }
    n->list[n->count++] = value;
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* All N of files PREFIX N in the directory, in their order. Returns an errno. */
static int list_numbers(int dir, const char *prefix, struct numbers *n)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;

    if (d == NULL) {
        err = errno;
        if (fd >= 0)
            (void)close(fd);
        return err;
    }
    while (errno = 0, (e = readdir(d)) != NULL && err == 0) {
        const char *digits = e->d_name + strlen(prefix);
        char *end;
        uint64_t value;

        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0 || *digits < '1' || *digits > '9')
            continue;
        value = strtoull(digits, &end, 10);
        if (*end == '\0' && !add_number(n, value))
            err = ENOMEM;
    }
    (void)closedir(d);
    if (n->count > 0)
        qsort(n->list, n->count, sizeof *n->list, by_number);
    return err;
}

/* Every file with such a name. One that is gone by now was cleaned away. */
static void inspect_files(struct inspect *in, int dir, const char *prefix,
                          void (*each)(struct inspect *in))
{
    struct numbers n = { NULL, 0, 0 };
    int err = list_numbers(dir, prefix, &n);

    if (err != 0)
        broken(in, fail_errno(err, "cannot list the files of bank", in->bank));
    for (size_t i = 0; i < n.count && !in->broken && !out_failed(); i++) {
        char name[64];
        int status;

        (void)snprintf(name, sizeof name, "%s%" PRIu64, prefix, n.list[i]);
        status = paged_file_open(&in->file, dir, name, name, KIST_DEVICE_PREAD, NULL, true);
        if (status == STATUS_DONE) {
            each(in);
            paged_file_close(&in->file);
        } else if (status != STATUS_NO_KEY) {
            broken(in, status);
        }
    }
    free(n.list);
}

static int inspect_bank(const char *name, void *arg)
{
    struct inspect *in = arg;
    const char *store = in->args->operand[0];
    char *path = NULL;
    int dir;

    if (in->args->operand[1] != NULL && strcmp(in->args->operand[1], name) != 0)
        return 0; /* one that is nested below its name */
    in->found = true;
    in->bank = name;
    if (asprintf(&path, "%s/%s", store, name) < 0)
        return -ENOMEM;
    dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        worse(in, fail_errno(errno, "cannot open", path));
    } else {
        if (!inspect_is_json(in))
            out_text("bank %s\n", quoted(name));
        inspect_files(in, dir, FORMAT_HEAP_NAME, inspect_segment);
        inspect_files(in, dir, FORMAT_INDEX_NAME, inspect_index);
        (void)close(dir);
    }
    free(path);
    return 0;
}

int verb_inspect(const struct args *args)
{
    struct inspect in = { .args = args };
    struct session s;
    int status = session_open_store(&s, args, SESSION_READ, 0), rc;

    if (status != STATUS_DONE)
        return status;
    rc = kist_bank_list(s.store, args->operand[1], inspect_bank, &in);
    if (rc == KIST_OK && args->operand[1] != NULL && !in.found)
        rc = KIST_ENOBANK;
    status = rc == KIST_OK ? in.status : fail_kist(rc, s.store_name, args->operand[1]);
    return session_close(&s, status);
}
