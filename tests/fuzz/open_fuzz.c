/*
 * Hostile files: the input overwrites parts of one or more files of a small
 * store, cuts or lengthens them, and mends the checksums that a forger would.
 * Then everything is called that reads, and much that writes. Nothing may
 * crash, hang, or trip a sanitizer; results do not matter, since forged
 * values are not kist's to notice.
 *
 * Input:  byte 0       which file, modulo their number
 *         byte 1       bits: MEND, CUT, GROW, READ_ONLY, OPEN_FIRST
 *         bytes 2, 3   the new length, modulo the old one, for CUT
 *         then         patches: offset (2 bytes), length (1 byte), bytes; an
 *                      offset counts words of 8 bytes, modulo the file's size
 *         a patch of no length ends them; what follows is for another file, in
 *         the same way (there OPEN_FIRST and READ_ONLY say nothing)
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "bank/core.h"
#include "image.h"
#include "support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { MEND = 1, CUT = 2, GROW = 4, READ_ONLY = 8, OPEN_FIRST = 16 };
enum { KEYS = 40, LOOPS = 400, INPUT_HEAD = 4 };

static struct image *image;
static struct record_bank secret; /* what a forger who can read the files knows */

/* ---- a small store with one of everything ----------------------------- */

static int feed_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    uint64_t *next = arg;

    if (*next == 5)
        return KIST_END;
    *key = *value = number(1000 + (*next)++);
    return 0;
}

static void fill(kist_bank *bank)
{
    static char large[70000];
    char buf[VALUE_CAP];
    uint64_t next = 0;

    must_ok(kist_replace(bank, feed_next, &next));
    for (uint64_t key = 0; key < KEYS; key++)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, 1) }));
    for (uint64_t key = 0; key < KEYS; key += 4)
        must_ok(kist_delete(bank, number(key)));
    must_ok(kist_sync(bank));
    must_ok(kist_put(bank, text("large"), (kist_bytes){ large, sizeof large }));
    for (uint64_t key = 0; key < KEYS; key += 3)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, 2) }));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .segment_bytes = 8192 };
    char *dir = tmp_dir(TMP_FAST);
    kist_store *store = open_store(dir);
    kist_bank *bank;

    (void)argc, (void)argv;
    (void)atexit(support_end);
    must_ok(kist_bank_open(&bank, store, "b", &opt));
    fill(bank);
    secret = bank->bank->set.record;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    image = image_take(dir);
    free(dir);
    return 0;
}

/* ---- forging ---------------------------------------------------------- */

static void mend_segment_header(unsigned char *bytes, size_t len)
{
    struct segment_header h;

    for (size_t at = 0; at < 2 * sizeof h && at + sizeof h <= len; at += sizeof h) {
        memcpy(&h, bytes + at, sizeof h);
        h.checksum = hash_bytes(&h, offsetof(struct segment_header, checksum));
        memcpy(bytes + at, &h, sizeof h);
    }
}

static void mend_record(unsigned char *bytes, size_t len, uint64_t off, uint64_t n)
{
    struct record *r = (void *)(bytes + off);
    uint64_t *sums, value;

    if (off + RECORD_MIN > len || !record_fits(r, len - off))
        return;
    sums = calloc((size_t)chunk_count(r->value_len) + 1, sizeof *sums);
    must(sums != NULL);
    value = record_hash_value(record_value(r), r->value_len, sums);
    if (r->kind & RECORD_CHUNKED) {
        memcpy(bytes + off + record_sums_at(r), sums, 8 * (size_t)chunk_count(r->value_len));
        value = hash_bytes(sums, 8 * (size_t)chunk_count(r->value_len));
    }
    r->checksum = record_checksum(record_hash_header(r, &secret, place_make(n, off)),
                                  record_hash_key(&secret, record_key(r), r->key_len), value);
    free(sums);
}

/* At every place where the undamaged file had one: an honest record stays as
 * it is, since its checksum comes out the same. */
static void mend_records(const struct image_file *f, unsigned char *bytes, size_t len, uint64_t n)
{
    for (uint64_t at = SEGMENT_FIRST_RECORD; at + RECORD_MIN <= f->len && at < len;) {
        const struct record *was = (const void *)(f->bytes + at);
        if (was->checksum == 0 || !record_fits(was, f->len - at))
            return;
        if (record_kind(was) != RECORD_PADDING)
            mend_record(bytes, len, at, n);
        at += record_size(was);
    }
}

static void mend_live(unsigned char *bytes, size_t len)
{
    struct live *live = (void *)bytes;

    if (len < sizeof *live)
        return;
    for (int i = 0; i < 2; i++) {
        uint64_t words[LIVE_STATE_WORDS];
        memcpy(words, &live->copy[i], sizeof words);
        shm_store(&live->copy[i].word[LIVE_STATE_WORDS - 1],
                  hash_bytes(words, sizeof words - sizeof *words));
    }
    shm_store(&live->clean, live_checksum(live));
}

/* Small files of settings end with the sum of what is before it. */
static void mend_settings(unsigned char *bytes, size_t len)
{
    uint64_t sum;

    if (len < 2 * sizeof sum)
        return;
    sum = hash_bytes(bytes, len - sizeof sum);
    memcpy(bytes + len - sizeof sum, &sum, sizeof sum);
}

static void mend(const struct image_file *f, unsigned char *bytes, size_t len)
{
    const char *slash = strrchr(f->name, '/'), *name = slash ? slash + 1 : f->name;
    uint64_t n = segment_number(name);

    if (n) {
        mend_segment_header(bytes, len);
        mend_records(f, bytes, len, n);
    } else if (strcmp(name, LIVE_FILE) == 0) {
        mend_live(bytes, len);
    } else if (strcmp(name, BANK_FILE) == 0 || strcmp(name, "kist.store") == 0) {
        mend_settings(bytes, len);
    }
}

/* Returns how much of `data` was used. */
static size_t patch(unsigned char *bytes, size_t len, const uint8_t *data, size_t size)
{
    size_t used = 0;

    while (size - used > 3) {
        const uint8_t *p = data + used;
        size_t at = len ? (size_t)(p[0] | p[1] << 8) * 8 % len : 0, n = p[2], room = len - at;
        used += 3;
        if (n == 0)
            break;
        n = n < size - used ? n : size - used;
        memcpy(bytes + at, p + 3, n < room ? n : room);
        used += n;
    }
    return used;
}

static size_t forge_one(const uint8_t *data, size_t size, uint8_t flags)
{
    size_t file = data[0] % image->count;
    const struct image_file *f = &image->files[file];
    size_t len = f->len, want = (size_t)(data[2] | data[3] << 8), used;
    unsigned char *bytes = calloc(1, f->len + 65536);

    must(bytes != NULL);
    memcpy(bytes, f->bytes, f->len);
    if (flags & CUT)
        len = want % (f->len + 1);
    else if (flags & GROW)
        len = f->len + want;
    used = patch(bytes, len, data + INPUT_HEAD, size - INPUT_HEAD);
    if (flags & MEND)
        mend(f, bytes, len);
    image_write(image, file, bytes, len);
    free(bytes);
    return INPUT_HEAD + used;
}

static void forge(const uint8_t *data, size_t size, uint8_t not)
{
    for (size_t at = 0; size - at >= INPUT_HEAD;)
        at += forge_one(data + at, size - at, data[at + 1] & (uint8_t)~not);
}

/* ---- every call ------------------------------------------------------- */

static volatile unsigned char sink;

/* Touches every byte, so that a sanitizer sees lengths that lie. */
static void touch(kist_bytes b)
{
    const unsigned char *p = b.data;
    unsigned char all = 0;

    for (size_t i = 0; i < b.len; i++)
        all ^= p[i];
    sink = all;
}

static void read_key(kist_bank *bank, kist_bytes key)
{
    kist_bytes value;
    kist_view *view;
    kist_meta meta;

    (void)!kist_read_begin();
    if (kist_get(bank, key, &value) == KIST_OK)
        touch(value);
    kist_read_end();
    if (kist_get_view(bank, key, &view) == KIST_OK)
        touch(kist_view_bytes(view));
    kist_view_release(view);
    (void)!kist_get_meta(bank, key, &meta);
}

static void read_many(kist_bank *bank)
{
    kist_bytes keys[8], values[8];
    int rc[8];

    for (uint64_t i = 0; i < 8; i++)
        keys[i] = number(i * 5);
    (void)!kist_read_begin();
    if (kist_get_many(bank, keys, 8, values, rc) > 0)
        for (int i = 0; i < 8; i++)
            touch(values[i]);
    kist_read_end();
}

static void walk(kist_bank *bank)
{
    kist_iter *iter;
    kist_entry entry;

    if (kist_iter_open(&iter, bank) != KIST_OK)
        return;
    for (int i = 0; i < LOOPS; i++) {
        int rc = kist_iter_next(iter, &entry);
        if (rc == KIST_OK) {
            touch(entry.key);
            touch(entry.value);
        } else if (rc != KIST_ECORRUPT) {
            break;
        }
    }
    kist_iter_close(iter);
}

static void read_all(kist_bank *bank)
{
    kist_report report = { .size = sizeof report };
    kist_stats stats = { .size = sizeof stats };

    for (uint64_t key = 0; key < KEYS; key++)
        read_key(bank, number(key));
    read_key(bank, text("large"));
    read_many(bank);
    walk(bank);
    (void)!kist_stat(bank, &stats);
    (void)!kist_verify(bank, &report, NULL, NULL);
}

static void write_some(kist_bank *bank)
{
    for (uint64_t key = KEYS / 2; key < KEYS + 20; key++)
        (void)!kist_put(bank, number(key), number(key));
    (void)!kist_delete(bank, number(3));
    (void)!kist_compact(bank, NULL, NULL);
    (void)!kist_sync(bank);
    (void)!kist_clear(bank);
}

static int open_image(kist_store **store, kist_bank **bank, uint32_t flags)
{
    kist_store_options opt = { .size = sizeof opt, .flags = flags };
    kist_bank_options how = { .size = sizeof how,
                              .verify = KIST_VERIFY_ALWAYS,
                              .deadline_ms = 20 };
    int rc = kist_store_open(store, image->dir, &opt);

    *bank = NULL;
    return rc < 0 ? rc : kist_bank_open(bank, *store, "b", &how);
}

static void close_image(kist_store *store, kist_bank *bank)
{
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kist_store *store;
    kist_bank *bank;
    uint8_t flags;

    if (size < INPUT_HEAD)
        return 0;
    flags = data[1];
    image_restore(image);
    if (flags & OPEN_FIRST) { /* below an open handle: then no shorter file */
        must_ok(open_image(&store, &bank, 0));
        read_key(bank, number(1));
        forge(data, size, CUT);
    } else {
        forge(data, size, 0);
        if (open_image(&store, &bank, flags & READ_ONLY ? KIST_STORE_READONLY : 0) < 0) {
            close_image(store, bank);
            store = NULL;
        }
    }
    if (store) {
        read_all(bank);
        write_some(bank);
        close_image(store, bank);
    }
    if (kist_store_open(&store, image->dir, NULL) == KIST_OK) {
        (void)!kist_repair(store, "b", NULL, NULL, NULL);
        (void)kist_store_close(store);
    }
    return 0;
}
