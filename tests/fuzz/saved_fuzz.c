/*
 * Hostile snapshots: the input overwrites parts of a saved one, cuts or lengthens it, and
 * mends the checksums that a forger would; or it is taken for one as it is. Then it
 * is looked at and restored. Nothing may crash, hang or trip a sanitizer; what is
 * refused changes nothing, and what is taken makes a bank that is whole.
 *
 * Input:  byte 0       which one, modulo their number
 *         byte 1       bits: MEND, COUNT, CUT, GROW, RAW
 *         byte 2       how many bytes a read gives at once; 0: as many as are asked for
 *         bytes 3, 4   the new length, modulo the old one, for CUT
 *         then         patches: offset (3 bytes, modulo the length), length (1 byte),
 *                      bytes
 */
#include <stdio.h>

#include "bank/saved.h"
#include "support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { MEND = 1, COUNT = 2, CUT = 4, GROW = 8, RAW = 16 };
enum { KINDS = 3, ROOM = 1 << 18, INPUT_HEAD = 5 };

struct stream {
    uint8_t *bytes;
    size_t len, at, piece;
};

static struct stream good[KINDS];
static kist_store *store;
static kist_bank *bank;

static int take(const void *data, size_t len, void *arg)
{
    struct stream *s = arg;

    must(s->len + len <= ROOM);
    memcpy(s->bytes + s->len, data, len);
    s->len += len;
    return 0;
}

static int64_t give(void *buf, size_t len, void *arg)
{
    struct stream *s = arg;
    size_t n = s->len - s->at < len ? s->len - s->at : len;

    if (s->piece > 0 && n > s->piece)
        n = s->piece;
    if (n > 0)
        memcpy(buf, s->bytes + s->at, n);
    s->at += n;
    return (int64_t)n;
}

static kist_bank *make(const char *name, uint32_t index)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE, .index = index };
    kist_bank *made;

    must_ok(kist_bank_open(&made, store, name, &opt));
    return made;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const uint32_t index[KINDS] = { KIST_INDEX_HASH, KIST_INDEX_ORDERED, KIST_INDEX_ORDERED };
    kist_store_options memory = { .size = sizeof memory, .flags = KIST_STORE_MEMORY };
    static unsigned char buf[100000];
    char name[8] = "kind 0";

    (void)argc, (void)argv;
    (void)atexit(support_end);
    must_ok(kist_store_open(&store, NULL, &memory));
    for (int i = 0; i < KINDS; i++) {
        name[5]++;
        bank = make(name, index[i]);
        for (uint64_t key = 0; key < 20; key++)
            must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, 1) % 200 }));
        if (i == 2) /* some blocks long */
            must_ok(kist_put(bank, text("large"), (kist_bytes){ buf, sizeof buf }));
        good[i].bytes = malloc(ROOM);
        must_ok(kist_snapshot_save(bank, take, &good[i]));
        must_ok(kist_bank_close(bank));
    }
    bank = make("target", KIST_INDEX_ORDERED);
    put_text(bank, "mine", "stays");
    return 0;
}

/* ---- forging ---------------------------------------------------------- */

static void mend(struct stream *s, bool count)
{
    struct saved_header h;
    struct saved_trailer t;
    uint64_t sum, number_of = 0;

    if (s->len < sizeof h + sizeof t)
        return;
    memcpy(&h, s->bytes, sizeof h);
    memcpy(&t, s->bytes + s->len - sizeof t, sizeof t);
    if (count) {
        h.length = saved_length(h.entries, h.payload);
        t.entries = h.entries;
        t.payload = h.payload;
    }
    h.checksum = sum = saved_header_sum(&h);
    memcpy(s->bytes, &h, sizeof h);
    for (size_t at = sizeof h; at + 8 < s->len - sizeof t; at += SAVED_BLOCK) {
        size_t left = s->len - sizeof t - at - 8, n = left < SAVED_CONTENT ? left : SAVED_CONTENT;
        uint64_t block = saved_block_sum(&h, number_of++, s->bytes + at + 8, n);

        memcpy(s->bytes + at, &block, sizeof block);
        sum = saved_chain(sum, block);
    }
    t.checksum = saved_trailer_sum(sum, &t);
    memcpy(s->bytes + s->len - sizeof t, &t, sizeof t);
}

static void patch(struct stream *s, const uint8_t *data, size_t size)
{
    while (size >= 4 && s->len > 0) {
        size_t at = ((size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16) % s->len;
        size_t n = data[3];

        data += 4;
        size -= 4;
        n = n < size ? n : size;
        memcpy(s->bytes + at, data, n < s->len - at ? n : s->len - at);
        data += n;
        size -= n;
    }
}

static void forge(struct stream *s, const uint8_t *data, size_t size)
{
    const struct stream *from = &good[data[0] % KINDS];

    s->piece = data[2];
    if (data[1] & RAW) {
        s->len = size - INPUT_HEAD;
        memcpy(s->bytes, data + INPUT_HEAD, s->len);
        return;
    }
    memcpy(s->bytes, from->bytes, from->len);
    s->len = from->len;
    if (data[1] & CUT)
        s->len = ((size_t)data[3] | (size_t)data[4] << 8) % from->len;
    if (data[1] & GROW) {
        memset(s->bytes + s->len, data[3], data[4]);
        s->len += data[4];
    }
    patch(s, data + INPUT_HEAD, size - INPUT_HEAD);
    if (data[1] & MEND)
        mend(s, data[1] & COUNT);
}

/* ---- what must hold --------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[ROOM];
    struct stream s = { .bytes = bytes };
    kist_snapshot_info info = { .size = sizeof info };
    int looked, rc;

    if (size < INPUT_HEAD || size > ROOM / 2)
        return 0;
    forge(&s, data, size);
    looked = kist_snapshot_info_read(give, &s, &info);
    s.at = 0;
    rc = kist_snapshot_restore(bank, give, &s);
    must(rc == KIST_OK || rc == KIST_ECORRUPT || rc == KIST_EFORMAT || rc == KIST_ENEWER);
    if (rc != KIST_OK) {
        must(count_of(bank) == 1);
        must_hold(bank, "mine", "stays");
        return 0;
    }
    must(looked == KIST_OK && info.saved_bytes == s.len && s.at == s.len);
    must(count_of(bank) <= info.entries); /* fewer where a forger has doubled keys */
    must_verify(bank);
    must_ok(kist_clear(bank));
    put_text(bank, "mine", "stays");
    return 0;
}
