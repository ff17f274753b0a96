/* Counts, stats, sync, compact, verify and repair of one bank. */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void fill(kist_bank *bank, uint64_t keys, uint64_t version)
{
    char buf[VALUE_CAP];

    for (uint64_t key = 0; key < keys; key++)
        must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) }));
}

static uint64_t payload(uint64_t keys, uint64_t version)
{
    char buf[VALUE_CAP];
    uint64_t sum = 0;

    for (uint64_t key = 0; key < keys; key++)
        sum += sizeof key + value_make(buf, key, version);
    return sum;
}

static kist_stats stats_of(kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };

    must_ok(kist_stat(bank, &stats));
    return stats;
}

static double fragmentation(kist_bank *bank)
{
    double share = -1;

    must_ok(kist_fragmentation(bank, &share));
    must(share >= 0 && share <= 1);
    return share;
}

struct sizes {
    uint64_t files, bytes;
};

static struct sizes files_named(const char *dir, const char *prefix)
{
    struct sizes sum = { 0, 0 };
    DIR *d = opendir(dir);
    struct dirent *entry;

    must(d != NULL);
    while ((entry = readdir(d)) != NULL) {
        struct stat st;
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        must(fstatat(dirfd(d), entry->d_name, &st, 0) == 0);
        sum.files++;
        sum.bytes += (uint64_t)st.st_size;
    }
    (void)closedir(d);
    return sum;
}

/* Flips a bit in the middle of the value of (key, version), in a heap file. */
static bool damage_in(int fd, uint64_t key, uint64_t version)
{
    static char image[1 << 22];
    char value[VALUE_CAP];
    size_t len = value_make(value, key, version);
    ssize_t n = pread(fd, image, sizeof image, 0);
    char *at = memmem(image, (size_t)n, value, len);

    must(n >= 0 && n < (ssize_t)sizeof image);
    if (!at)
        return false;
    at += len / 2;
    *at ^= 0x10;
    must(pwrite(fd, at, 1, at - image) == 1);
    return true;
}

static void damage(const char *dir, uint64_t key, uint64_t version)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    bool done = false;

    must(d != NULL);
    while ((entry = readdir(d)) != NULL) {
        if (strncmp(entry->d_name, "kist.heap.", 10) != 0)
            continue;
        int fd = openat(dirfd(d), entry->d_name, O_RDWR | O_CLOEXEC);
        must(fd >= 0);
        done |= damage_in(fd, key, version);
        (void)close(fd);
    }
    (void)closedir(d);
    must(done);
}

TEST(counts_follow_every_change)
{
    struct fixture f = fixture_open();

    must(count_of(f.bank) == 0);
    fill(f.bank, 100, 1);
    fill(f.bank, 50, 2);
    must(count_of(f.bank) == 100);
    for (uint64_t key = 0; key < 30; key++)
        must_ok(kist_delete(f.bank, number(key)));
    must(count_of(f.bank) == 70);
    must_ok(kist_get_or_insert(f.bank, number(3), text("v"), NULL));
    must(count_of(f.bank) == 71);
    must_ok(kist_bank_close(f.bank));
    f.bank = open_bank(f.store, "bank");
    must(count_of(f.bank) == 71);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must(count_of(f.bank) == 71);
    must_ok(kist_clear(f.bank));
    must(count_of(f.bank) == 0);
    fixture_close(&f);
}

TEST(stats_tell_what_is_in_the_files)
{
    test_needs_files();
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 16384 };
    struct fixture f = fixture_open_with(&opt);
    char *dir = path_join(f.dir, "bank");

    fill(f.bank, 1000, 1);
    kist_stats stats = stats_of(f.bank);
    must(stats.entries == 1000 && stats.deleted == 0 && stats.poisoned == 0);
    must(stats.payload_bytes == payload(1000, 1));
    must(stats.live_bytes >= stats.payload_bytes + 40 * 1000);
    must(stats.live_bytes <= stats.payload_bytes + 56 * 1000);
    must(stats.heap_file_bytes == files_named(dir, "kist.heap.").bytes);
    must(stats.segments == files_named(dir, "kist.heap.").files && stats.segments > 5);
    must(stats.index_file_bytes == files_named(dir, "kist.index.").bytes);
    must(stats.writers == 1 && stats.longest_search >= 1 && stats.generation >= 1);
    must(stats.last_recovery == KIST_RECOVERY_NONE && stats.damaged_bytes == 0);

    fill(f.bank, 400, 2);
    for (uint64_t key = 900; key < 1000; key++)
        must_ok(kist_delete(f.bank, number(key)));
    kist_stats later = stats_of(f.bank);
    must(later.entries == 900 && later.deleted == 100);
    must(later.sequence >= stats.sequence + 500);
    must(later.payload_bytes == payload(400, 2) + payload(900, 1) - payload(400, 1));
    must(later.wasted_bytes >= stats.wasted_bytes + payload(400, 1));
    free(dir);
    fixture_close(&f);
}

TEST(stats_of_another_size_are_refused_or_cut)
{
    struct fixture f = fixture_open();
    struct {
        kist_stats stats;
        uint64_t newer;
    } later = { .stats = { .size = sizeof later }, .newer = 42 };
    kist_stats none = { .size = 0 };

    must_ok(kist_stat(f.bank, &later.stats));
    must_rc(kist_stat(f.bank, &none), KIST_EINVAL);
    fixture_close(&f);
}

TEST(fragmentation_is_the_wasted_share)
{
    struct fixture f = fixture_open();

    must(fragmentation(f.bank) == 0.0);
    fill(f.bank, 500, 1);
    double fresh = fragmentation(f.bank);
    must(fresh < 0.05);
    fill(f.bank, 500, 2);
    kist_stats s = stats_of(f.bank);
    double want = (double)s.wasted_bytes / (double)(s.wasted_bytes + s.live_bytes);
    double got = fragmentation(f.bank);
    must(got > want - 1e-9 && got < want + 1e-9);
    must(got > 0.3 && got < 0.7);
    must_ok(kist_compact(f.bank, NULL, NULL));
    must(fragmentation(f.bank) < 0.05);
    fixture_close(&f);
}

TEST(a_sync_leaves_nothing_unsynced)
{
    struct fixture f = fixture_open();

    must_ok(kist_sync(f.bank));
    uint64_t idle = stats_of(f.bank).unsynced_bytes;
    fill(f.bank, 100, 1);
    must(stats_of(f.bank).unsynced_bytes > payload(100, 1));
    must_ok(kist_sync(f.bank));
    must(stats_of(f.bank).unsynced_bytes <= idle);
    must_ok(kist_sync(f.bank));
    fixture_close(&f);
}

/* Marks must not pile up in a bank that nobody writes. */
TEST(syncing_an_unchanged_bank_writes_nothing)
{
    struct fixture f = fixture_open();

    fill(f.bank, 10, 1);
    must_ok(kist_sync(f.bank));
    must_ok(kist_sync(f.bank));
    kist_stats before = stats_of(f.bank);
    for (int i = 0; i < 2000; i++)
        must_ok(kist_sync(f.bank));
    must(stats_of(f.bank).heap_file_bytes == before.heap_file_bytes);
    fixture_close(&f);
}

struct progress {
    uint64_t calls, last, all;
    uint64_t stop_at;
};

static int note_progress(uint64_t done, uint64_t all, void *arg)
{
    struct progress *p = arg;

    must(done >= p->last && done <= all);
    p->last = done;
    p->all = all;
    return ++p->calls == p->stop_at ? 55 : 0;
}

TEST(compact_gives_the_space_of_dead_records_back)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 65536 };
    struct fixture f = fixture_open_with(&opt);
    struct progress p = { 0 };

    for (uint64_t version = 1; version <= 40; version++)
        fill(f.bank, 300, version);
    kist_stats before = stats_of(f.bank);
    must_ok(kist_compact(f.bank, note_progress, &p));
    kist_stats after = stats_of(f.bank);
    must(p.calls > 0 && p.all > 0);
    must(before.heap_file_bytes > 20 * payload(300, 40));
    must(after.heap_file_bytes < 2 * payload(300, 40) + 4 * 65536);
    must(after.entries == 300 && after.payload_bytes == payload(300, 40));
    for (uint64_t key = 0; key < 300; key++) {
        kist_view *view;
        uint64_t version;
        must_ok(kist_get_view(f.bank, number(key), &view));
        must(value_check(kist_view_bytes(view), key, &version) && version == 40);
        kist_view_release(view);
    }
    fixture_close(&f);
}

TEST(compact_drops_tombstones_and_their_keys)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 16384 };
    struct fixture f = fixture_open_with(&opt);

    fill(f.bank, 2000, 1);
    for (uint64_t key = 0; key < 2000; key++)
        must_ok(kist_delete(f.bank, number(key)));
    for (int i = 0; i < 3; i++)
        must_ok(kist_compact(f.bank, NULL, NULL));
    kist_stats stats = stats_of(f.bank);
    must(stats.entries == 0 && stats.payload_bytes == 0);
    must(stats.heap_file_bytes <= 4 * 16384);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must(count_of(f.bank) == 0);
    fixture_close(&f);
}

TEST(compact_stops_when_it_is_told_to_and_harms_nothing)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096 };
    struct fixture f = fixture_open_with(&opt);

    fill(f.bank, 300, 1);
    fill(f.bank, 300, 2);
    for (uint64_t stop_at = 1; stop_at < 6; stop_at++) {
        struct progress p = { .stop_at = stop_at };
        int rc = kist_compact(f.bank, note_progress, &p);
        must(rc == 55 || (rc == KIST_OK && p.calls < stop_at));
        must(count_of(f.bank) == 300);
        fill(f.bank, 300, stop_at + 2);
    }
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(compact_of_a_bank_without_waste_does_nothing)
{
    struct fixture f = fixture_open();

    fill(f.bank, 100, 1);
    must_ok(kist_compact(f.bank, NULL, NULL));
    kist_stats before = stats_of(f.bank);
    for (int i = 0; i < 10; i++)
        must_ok(kist_compact(f.bank, NULL, NULL));
    kist_stats after = stats_of(f.bank);
    must(after.heap_file_bytes <= before.heap_file_bytes);
    must(after.segments <= before.segments);
    fixture_close(&f);
}

TEST(verify_reports_a_whole_bank_as_whole_and_changes_nothing)
{
    struct fixture f = fixture_open();
    kist_report report = { .size = sizeof report };
    struct progress p = { 0 };

    fill(f.bank, 500, 1);
    fill(f.bank, 100, 2);
    uint64_t before = tree_hash(f.dir);
    must_ok(kist_verify(f.bank, &report, note_progress, &p));
    must(tree_hash(f.dir) == before);
    must(report.entries == 500 && report.records >= 600);
    must(report.damaged == 0 && report.damaged_bytes == 0 && report.unreachable == 0);
    must(report.first_file[0] == '\0' && p.calls > 0);
    struct progress stop = { .stop_at = 1 };
    must_rc(kist_verify(f.bank, NULL, note_progress, &stop), 55);
    fixture_close(&f);
}

TEST(verify_finds_a_damaged_record_and_names_its_file)
{
    test_needs_files();
    kist_bank_options opt = { .size = sizeof opt, .verify = KIST_VERIFY_ALWAYS };
    struct fixture f = fixture_open_with(&opt);
    kist_report report = { .size = sizeof report };
    char *dir = path_join(f.dir, "bank");
    kist_view *view;

    fill(f.bank, 100, 1);
    must_ok(kist_sync(f.bank));
    must_ok(kist_sync(f.bank));
    damage(dir, 42, 1);
    must_rc(kist_verify(f.bank, &report, NULL, NULL), KIST_ECORRUPT);
    must(report.damaged == 1 && report.damaged_bytes > 0);
    must(strncmp(report.first_file, "kist.heap.", 10) == 0 && report.first_offset > 0);
    must_rc(kist_get_view(f.bank, number(42), &view), KIST_ECORRUPT);
    must(view == NULL);
    must_ok(kist_get_view(f.bank, number(41), &view));
    kist_view_release(view);
    free(dir);
    fixture_close(&f);
}

/* A copy whose kist.live is not its own is read through an index in memory. */
TEST(verify_reads_all_of_a_bank_that_is_open_read_only_with_an_index_of_its_own)
{
    test_needs_files();
    kist_store_options readonly = { .size = sizeof readonly, .flags = KIST_STORE_READONLY };
    struct fixture f = fixture_open();
    char *copy = tmp_dir(TMP_FAST), *dir = path_join(copy, "bank");
    kist_report report = { .size = sizeof report };
    kist_store *store;
    kist_bank *bank;

    fill(f.bank, 20, 1);
    must_ok(kist_bank_close(f.bank));
    tree_copy(f.dir, copy);
    must_ok(kist_store_open(&store, copy, &readonly));
    must_ok(kist_bank_open(&bank, store, "bank", NULL));
    must_ok(kist_verify(bank, &report, NULL, NULL));
    must(report.entries == 20 && report.records >= 20);
    damage(dir, 19, 1);
    must_rc(kist_verify(bank, &report, NULL, NULL), KIST_ECORRUPT);
    must(report.entries == 19 && report.damaged == 1);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    f.bank = open_bank(f.store, "bank");
    fixture_close(&f);
    free(dir);
    free(copy);
}

/* ---- beside a writer -------------------------------------------------- */

struct growing {
    kist_bank *bank;
    uint64_t keys;
    atomic_bool done;
};

static void delete_if_there(kist_bank *bank, uint64_t key)
{
    int rc = kist_delete(bank, number(key));

    must(rc == KIST_OK || rc == KIST_MISS);
}

/* Blocks split and the directory doubles, again and again. */
static void *grow(void *arg)
{
    struct growing *g = arg;

    for (uint64_t key = 0; key < g->keys; key++) {
        must_ok(kist_put(g->bank, number(key), text("v")));
        if (key % 3 == 0)
            delete_if_there(g->bank, key / 2);
    }
    g->done = true;
    return NULL;
}

TEST(stat_and_verify_beside_a_writer_find_nothing_wrong)
{
    struct fixture f = fixture_open();
    struct growing g = { .bank = f.bank, .keys = test_scaled(200000) };
    pthread_t thread;

    must(pthread_create(&thread, NULL, grow, &g) == 0);
    while (!g.done) {
        (void)stats_of(f.bank);
        must_ok(kist_verify(f.bank, NULL, NULL, NULL));
    }
    must(pthread_join(thread, NULL) == 0);
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(repair_keeps_every_whole_record_of_a_damaged_bank)
{
    test_needs_files();
    struct fixture f = fixture_open();
    kist_report report = { .size = sizeof report };
    char *dir = path_join(f.dir, "bank");
    uint64_t version;

    fill(f.bank, 200, 1);
    must_ok(kist_bank_close(f.bank));
    damage(dir, 77, 1);
    must_ok(kist_repair(f.store, "bank", &report, NULL, NULL));
    must(report.damaged >= 1 && report.entries == 199);
    f.bank = open_bank(f.store, "bank");
    for (uint64_t key = 0; key < 200; key++) {
        kist_view *view;
        if (key == 77) {
            must(kist_get_view(f.bank, number(key), &view) != KIST_OK);
            continue;
        }
        must_ok(kist_get_view(f.bank, number(key), &view));
        must(value_check(kist_view_bytes(view), key, &version) && version == 1);
        kist_view_release(view);
    }
    fill(f.bank, 200, 2);
    must(count_of(f.bank) == 200);
    must_ok(kist_compact(f.bank, NULL, NULL)); /* away with the damaged record */
    must_verify(f.bank);
    free(dir);
    fixture_close(&f);
}

TEST(repair_of_a_bank_that_is_not_there_says_so)
{
    struct fixture f = fixture_open();

    must_rc(kist_repair(f.store, "none", NULL, NULL, NULL), KIST_ENOBANK);
    must_rc(kist_repair(f.store, "../none", NULL, NULL, NULL), KIST_EBANKNAME);
    fixture_close(&f);
}

TEST(verify_tells_of_a_heap_file_that_is_missing)
{
    test_needs_files();
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 4096 };
    struct fixture f = fixture_open_with(&opt);
    kist_report report = { .size = sizeof report };
    char path[PATH_MAX];

    fill(f.bank, 200, 1);
    must_ok(kist_bank_close(f.bank));
    (void)snprintf(path, sizeof path, "%s/bank/kist.heap.3", f.dir);
    must(unlink(path) == 0);
    f.bank = open_bank(f.store, "bank");
    must_rc(kist_verify(f.bank, &report, NULL, NULL), KIST_ECORRUPT);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_verify(f.bank);
    fixture_close(&f);
}

/* ---- a repair that comes to no end ------------------------------------ */

struct ending {
    struct progress progress;
    const char *dir;
    bool kills;
};

static int end_there(uint64_t done, uint64_t all, void *arg)
{
    struct ending *e = arg;
    int rc = note_progress(done, all, &e->progress);

    if (rc != 0 && e->kills)
        (void)raise(SIGKILL);
    return rc;
}

static void begin_repair(void *arg)
{
    struct ending *e = arg;
    kist_store *store = open_store(e->dir);
    int rc = kist_repair(store, "bank", NULL, end_there, e);

    must(rc == 55 || (rc == KIST_OK && e->progress.calls < e->progress.stop_at));
    must_ok(kist_store_close(store));
}

/* What a repair had made until then says where the heap is to end. Life goes on
 * behind that, and a later rebuild must not believe it. */
static void end_repairs(bool kills, bool is_open)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 16384 };
    struct fixture f = fixture_open_with(&opt);

    for (uint64_t stop_at = 1; stop_at < 8; stop_at++) {
        struct ending e = { .progress.stop_at = stop_at, .dir = f.dir, .kills = kills };
        char *copy = tmp_dir(TMP_FAST);
        kist_store *store;
        kist_bank *bank;

        test_case = stop_at;
        fill(f.bank, 10, stop_at);
        must_ok(kist_compact(f.bank, NULL, NULL));
        if (!is_open)
            must_ok(kist_bank_close(f.bank));
        (void)child_wait(child_start(begin_repair, &e));
        if (!is_open)
            f.bank = open_bank(f.store, "bank");
        fill(f.bank, 10 + stop_at, 100 + stop_at);
        tree_copy(f.dir, copy); /* no live is known there: it is rebuilt */
        store = open_store(copy);
        bank = open_bank(store, "bank");
        must(count_of(f.bank) == 10 + stop_at && count_of(bank) == 10 + stop_at);
        must_verify(f.bank);
        must_verify(bank);
        must_close(bank, store);
        free(copy);
    }
    fixture_close(&f);
}

TEST(a_repair_that_is_stopped_cuts_nothing_off)
{
    test_needs_files();
    end_repairs(false, true);
    end_repairs(false, false);
}

TEST(a_repair_that_is_killed_cuts_nothing_off)
{
    test_needs_files();
    end_repairs(true, true);
    end_repairs(true, false);
}

TEST(repair_is_shown_in_the_stats)
{
    struct fixture f = fixture_open();

    fill(f.bank, 20, 1);
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    kist_stats stats = stats_of(f.bank);
    must(stats.last_recovery == KIST_RECOVERY_REBUILD && stats.last_recovery_ns > 0);
    must(stats.entries == 20);
    fixture_close(&f);
}
