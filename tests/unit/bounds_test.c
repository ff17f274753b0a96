/* What files claim costs no more than what they hold (I5): each of these went
 * on for minutes, or for ever. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bank/core.h"
#include "index/ordered_node.h"

static uint64_t calls;

static int stat_counted(int dir, const char *path, struct os_stat *out)
{
    calls++;
    return os_real_stat_under(dir, path, out);
}

static int open_counted(int dir, const char *path, int flags, uint32_t mode)
{
    calls++;
    return os_real_open_under(dir, path, flags, mode);
}

/* Small segments, several of them, with gaps where one was cleaned. */
static struct fixture several_segments(void)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096 };
    struct fixture f = fixture_open_with(&opt);
    char buf[VALUE_CAP];

    for (uint64_t i = 0; i < 300; i++)
        must_ok(kist_put(f.bank, number(i % 30),
                         (kist_bytes){ buf, value_make(buf, i % 30, i) }));
    must_ok(kist_sync(f.bank));
    return f;
}

static struct live *live_of(const kist_bank *bank)
{
    return atomic_load(&bank->bank->core)->live;
}

static void forge_window(struct live *l)
{
    shm_store(&l->oldest, 0);
    shm_store(&l->newest, UINT64_MAX);
    shm_store(&l->numbered, UINT64_MAX);
    shm_store(&l->durable, 0);
    shm_store(&l->emptying, UINT64_MAX);
}

TEST(numbers_of_segments_that_a_file_claims_are_not_tried_one_by_one)
{
    struct fixture f = several_segments();
    struct live *l = live_of(f.bank);
    kist_stats stats = { .size = sizeof stats };
    kist_report report = { .size = sizeof report };

    os_seam.stat_under = stat_counted;
    os_seam.open_under = open_counted;
    (void)alarm(30);
    forge_window(l);
    must_ok(kist_stat(f.bank, &stats));
    (void)!kist_verify(f.bank, &report, NULL, NULL);
    (void)!kist_put(f.bank, number(1), number(1));
    (void)!kist_sync(f.bank);
    (void)!kist_compact(f.bank, NULL, NULL);
    forge_window(l);
    (void)!kist_clear(f.bank);
    (void)kist_bank_close(f.bank);
    (void)kist_store_close(f.store);
    (void)alarm(0);
    os_seam.stat_under = os_real_stat_under;
    os_seam.open_under = os_real_open_under;
    must(calls < 20000);
    must(stats.segments > 1 && stats.segments < 300);

    f.store = open_store(f.dir); /* made anew from the heap */
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    f.bank = open_bank(f.store, "bank");
    put_text(f.bank, "k", "v");
    must_verify(f.bank);
    fixture_close(&f);
}

/* ---- looking for the next record -------------------------------------- */

enum { LEN = 1 << 20 };

/* Bytes that look, each 16 of them, like a record with a key of 64 KiB. */
static void fill_crafted(uint8_t *bytes, size_t len)
{
    const struct record like = { .value_len = 16, .key_len = UINT16_MAX, .kind = RECORD_PUT };

    for (size_t at = 0; at + RECORD_ALIGN <= len; at += RECORD_ALIGN)
        memcpy(bytes + at, &like.value_len, 8);
}

static void seal(struct record *r, const struct record_bank *b, uint64_t place)
{
    r->checksum = record_checksum(record_hash_header(r, b, place),
                                  record_hash_key(b, record_key(r), r->key_len),
                                  record_hash_value(record_value(r), r->value_len, NULL));
}

TEST(crafted_bytes_behind_damage_are_hashed_within_bounds_and_hide_no_record)
{
    uint8_t *bytes = shared_memory(LEN);
    const struct record_bank bank = { .seed = 7 };
    struct segment segment = { .base = bytes, .len = LEN, .n = 3 };
    struct scan scan = { .segment = &segment, .bank = &bank };
    struct scan_step step;
    struct record *last = (void *)(bytes + LEN - 96);

    fill_crafted(bytes, LEN - 96);
    *last = (struct record){ .sequence = 9, .key_len = 3, .value_len = 5, .kind = RECORD_PUT };
    memcpy(last->body, "keyvalue", 8);
    seal(last, &bank, place_make(3, LEN - 96));
    scan_next(&scan, &step);
    must(step.found == SCAN_DAMAGED && step.offset == SEGMENT_FIRST_RECORD);
    must(scan.hashed > 0 && scan.hashed <= UINT64_C(256) * LEN);
    scan_next(&scan, &step);
    must(step.found == SCAN_RECORD && step.record == last);
    scan_next(&scan, &step);
    must(step.found == SCAN_END);
    (void)munmap(bytes, LEN);
}

/* ---- a full disk ------------------------------------------------------ */

static int allocate_nothing(int fd, uint64_t off, uint64_t len)
{
    (void)fd, (void)off, (void)len;
    return -ENOSPC;
}

/* The first record of a segment that a key still needs. */
static void damage(const struct fixture *f, uint64_t n)
{
    char name[64];
    char *path;
    int fd;

    (void)snprintf(name, sizeof name, "bank/kist.heap.%llu", (unsigned long long)n);
    path = path_join(f->dir, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && pwrite(fd, "damaged", 7, SEGMENT_FIRST_RECORD + RECORD_HEADER + 12) == 7);
    (void)close(fd);
    free(path);
}

TEST(a_compaction_on_a_full_disk_ends_though_a_damaged_segment_stays)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 16384,
                              .verify = KIST_VERIFY_ALWAYS };
    struct fixture f = fixture_open_with(&opt);
    char buf[1000] = "x";
    int rc;

    for (uint64_t i = 0; i < 60; i++)
        must_ok(kist_put(f.bank, number(i), (kist_bytes){ buf, sizeof buf }));
    for (uint64_t i = 1; i < 60; i += 5) /* something dead everywhere */
        must_ok(kist_put(f.bank, number(i), (kist_bytes){ buf, sizeof buf }));
    damage(&f, shm_peek(&live_of(f.bank)->oldest));
    os_seam.allocate = allocate_nothing;
    (void)alarm(30);
    rc = kist_compact(f.bank, NULL, NULL);
    (void)alarm(0);
    os_seam.allocate = os_real_allocate;
    must(rc == KIST_EFULL);
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    tmp_remove(f.dir);
    free(f.dir);
}

/* ---- much damage in a row ----------------------------------------------- */

/* The largest heap file that nothing is appended to any more. */
static void take_away_the_largest(const struct fixture *f)
{
    char name[64];
    char *path, *largest = NULL;
    struct stat st;
    off_t size = 0;

    for (uint64_t n = 1; n < shm_peek(&live_of(f->bank)->newest); n++) {
        (void)snprintf(name, sizeof name, "bank/kist.heap.%llu", (unsigned long long)n);
        path = path_join(f->dir, name);
        if (stat(path, &st) == 0 && st.st_size > size) {
            size = st.st_size;
            free(largest);
            largest = path;
        } else {
            free(path);
        }
    }
    must(largest && unlink(largest) == 0);
    free(largest);
}

/* More entries than are looked at while the lock is held. */
TEST(a_compaction_of_an_ordered_bank_ends_though_many_keys_in_a_row_are_lost)
{
    enum { KEYS = 24000, LOST = 4096 };
    kist_bank_options opt = { .size = sizeof opt, .index = KIST_INDEX_ORDERED };
    struct fixture f = fixture_open_with(&opt);
    char key[16], value[4];
    unsigned lost = 0;
    size_t len;
    int rc;

    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "%08u", i);
        put_text(f.bank, key, "val");
    }
    take_away_the_largest(&f);
    must_ok(kist_bank_close(f.bank)); /* and none of the heap is mapped any more */
    must_ok(kist_store_close(f.store));
    f.store = open_store(f.dir);
    f.bank = open_bank(f.store, "bank");
    (void)alarm(60);
    must_ok(kist_compact(f.bank, NULL, NULL));
    (void)alarm(0);
    for (unsigned i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "%08u", i);
        rc = kist_get_copy(f.bank, text(key), value, sizeof value, &len);
        must(rc == KIST_OK || rc == KIST_ECORRUPT);
        lost += rc == KIST_ECORRUPT;
    }
    must(lost > LOST && lost < KEYS);
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    tmp_remove(f.dir);
    free(f.dir);
}

/* ---- a forged tree ------------------------------------------------------ */

/* All children of each new level are one node, down to what was the root. */
static void forge_paths(struct ordered_index *ix)
{
    uint64_t below = shm_peek(&ordered_head(ix)->root), page = index_len(&ix->file) / 4096;

    must_ok(index_grow(&ix->file, 16));
    for (unsigned level = 1; level < 12; level++, page++) {
        shm_word *p = (shm_word *)(ix->base + page * 4096);

        shm_store(&p[0], inner_word(level, 60, 0));
        for (unsigned i = 0; i < 61; i++)
            shm_store(&p[2 + 60 + i], below);
        below = node_make(page * 4096, 4096, level);
    }
    shm_store(&ordered_head(ix)->root, below);
}

TEST(a_forged_tree_with_endless_leaves_does_not_keep_a_compaction)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096,
                              .index = KIST_INDEX_ORDERED, .verify = KIST_VERIFY_ALWAYS };
    struct fixture f = fixture_open_with(&opt);
    char buf[300] = "x";
    kist_bank *snap;

    for (uint64_t i = 0; i < 60; i++)
        must_ok(kist_put(f.bank, number(i % 12), (kist_bytes){ buf, sizeof buf }));
    must_ok(kist_snapshot_open(&snap, f.bank)); /* so that segments are cleaned as they stand */
    must_ok(kist_put(f.bank, number(1), (kist_bytes){ buf, sizeof buf }));
    damage(&f, shm_peek(&live_of(f.bank)->oldest));
    forge_paths(index_ordered(core_index(atomic_load(&f.bank->bank->core))));
    (void)alarm(30);
    must_ok(kist_compact(f.bank, NULL, NULL)); /* the damaged one stays: nothing is certain */
    (void)alarm(0);
    must_ok(kist_bank_close(snap));
    must_ok(kist_bank_close(f.bank));
    must_ok(kist_store_close(f.store));
    tmp_remove(f.dir);
    free(f.dir);
}
