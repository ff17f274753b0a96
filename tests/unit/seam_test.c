/*
 * The tools under tests/seam, held against a few files whose story is known:
 * a recorder that misses an event, or a disk that is too kind, would make the
 * rows pass for nothing.
 */
#include "base/os.h"
#include "base/shm.h"
#include "seam/disk.h"
#include "seam/oracle.h"
#include "seam/record.h"
#include "seam/replay.h"

#include <fcntl.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 3 };

static char *root;
static struct log *story;
static int dir;

static void begin(void)
{
    root = tmp_dir(TMP_FAST);
    story = log_new();
    record_start(story, root);
    dir = os_open_path(root, OS_READ | OS_DIR);
    must(dir >= 0);
}

static void end(void)
{
    (void)os_close(dir);
    record_stop();
    log_free(story);
    free(root);
}

static int make(const char *name, uint64_t size)
{
    int fd = os_open_under(dir, name, OS_READ | OS_WRITE | OS_CREATE, 0600);

    must(fd >= 0 && os_allocate(fd, 0, size) == 0);
    return fd;
}

static shm_word *map_of(int fd, size_t len)
{
    void *p;

    must(os_map(&p, NULL, len, OS_PROT_READ | OS_PROT_WRITE, 0, fd, 0) == 0);
    return p;
}

static void sync_dir(void)
{
    must(os_fsync(dir) == 0);
}

/* A file of a picked state, by its name: NULL if it has none. */
static const struct world_file *file_in(struct world *w, const char *name)
{
    const struct world_name *n = world_find(w, 0, name);

    return n ? world_file(w, n->node) : NULL;
}

static uint64_t word_in(const struct world_file *f, uint64_t off)
{
    uint64_t word = 0;

    if (off + 8 <= f->filled)
        memcpy(&word, f->bytes + off, 8);
    return word;
}

/* ---- record and replay ------------------------------------------------ */

TEST(the_log_replayed_is_the_tree_that_was_recorded)
{
    char bytes[200];
    struct world w;
    shm_word *m;
    int fd;

    begin();
    memset(bytes, 7, sizeof bytes);
    must(os_mkdir(dir, "sub", 0700) == 0);
    fd = make("one", PAGES * PAGE);
    m = map_of(fd, PAGES * PAGE);
    shm_store(&m[3], 33);
    shm_copy(&m[500], bytes, sizeof bytes);
    must(os_pwrite(fd, "hello", 5, PAGES * PAGE) == 5);
    must(os_link(dir, "one", "sub/two") == 0);
    must(os_rename(dir, "sub/two", "sub/three") == 0);
    must(os_unlink(dir, "one") == 0);
    shm_publish(&m[4], 44);
    (void)os_close(fd);
    (void)os_unmap(m, PAGES * PAGE);

    world_init(&w, story);
    world_run(&w, 0, log_count(story));
    char *copy = tmp_dir(TMP_FAST);
    replay_build(&w, copy);
    must(tree_hash(copy) == tree_hash(root));
    free(copy);
    world_free(&w);
    end();
}

TEST(every_prefix_of_the_log_is_the_state_after_that_event)
{
    struct world w;
    shm_word *m;
    uint64_t first;
    int fd;

    begin();
    fd = make("f", PAGE);
    m = map_of(fd, PAGE);
    first = log_count(story);
    for (uint64_t i = 1; i <= 20; i++)
        shm_publish(&m[0], i);
    world_init(&w, story);
    for (uint64_t i = 0; i <= 20; i++) {
        world_clear(&w);
        world_run(&w, 0, first + i);
        must(word_in(file_in(&w, "f"), 0) == i);
    }
    world_free(&w);
    end();
}

TEST(a_copy_can_be_cut_in_the_middle)
{
    static char bytes[1000];
    uint64_t before;
    shm_word *m;

    begin();
    m = map_of(make("f", PAGE), PAGE);
    before = log_count(story);
    shm_copy(m, bytes, sizeof bytes);
    must(log_count(story) - before > 10);
    end();
}

TEST(stores_through_a_map_laid_over_another_go_to_the_right_file)
{
    struct world w;
    void *at = NULL;
    shm_word *m;
    int a, b;

    begin();
    a = make("a", 2 * PAGE);
    b = make("b", 2 * PAGE);
    m = map_of(a, 2 * PAGE);
    must(os_map(&at, &m[PAGE / 8], PAGE, OS_PROT_READ | OS_PROT_WRITE, OS_MAP_FIXED, b, PAGE) == 0);
    shm_store(&m[0], 1);
    shm_store(&m[PAGE / 8], 2);
    world_init(&w, story);
    world_run(&w, 0, log_count(story));
    must(word_in(file_in(&w, "a"), 0) == 1 && word_in(file_in(&w, "a"), PAGE) == 0);
    must(word_in(file_in(&w, "b"), 0) == 0 && word_in(file_in(&w, "b"), PAGE) == 2);
    world_free(&w);
    end();
}

TEST(what_was_there_before_the_recording_begins_the_log)
{
    struct world w;
    int fd;

    begin();
    fd = make("old", PAGE);
    must(os_pwrite(fd, "old bytes", 9, 0) == 9);
    record_stop();
    log_reset(story);
    record_start(story, root);
    must(os_pwrite(fd, "new", 3, 0) == 3);
    world_init(&w, story);
    world_run(&w, 0, log_count(story));
    must(file_in(&w, "old")->size == PAGE);
    must(memcmp(file_in(&w, "old")->bytes, "new bytes", 9) == 0);
    world_free(&w);
    end();
}

TEST(replayed_files_show_the_identity_that_was_recorded)
{
    struct os_table was = os_seam;
    struct os_stat before, after;
    struct world w;
    char *copy;
    int fd;

    begin();
    fd = make("f", PAGE);
    must(os_stat(fd, &before) == 0);
    world_init(&w, story);
    world_run(&w, 0, log_count(story));
    copy = tmp_dir(TMP_FAST);
    replay_identities();
    replay_build(&w, copy);
    fd = os_open_path(copy, OS_READ | OS_DIR);
    must(os_stat_under(fd, "f", &after) == 0);
    must(before.ino == after.ino && before.dev == after.dev);
    free(copy);
    world_free(&w);
    end();
    os_seam = was;
}

/* ---- the unkind disk -------------------------------------------------- */

TEST(synced_bytes_are_on_every_disk_and_others_on_some)
{
    int kept = 0, lost = 0;
    struct disk *d;
    struct world w;
    shm_word *m;
    int fd;

    begin();
    fd = make("f", PAGES * PAGE);
    m = map_of(fd, PAGES * PAGE);
    shm_store(&m[0], 1);
    must(os_fdatasync(fd) == 0);
    sync_dir();
    shm_store(&m[1], 2);
    shm_store(&m[PAGE / 8], 3);
    d = disk_new(story);
    disk_run(d, log_count(story));
    must(disk_dims(d) == 2 && disk_combinations(d) == 4);
    world_init(&w, story);
    for (uint64_t i = 0; i < 4; i++) {
        disk_pick(d, DISK_NTH, i);
        disk_world(d, &w);
        must(word_in(file_in(&w, "f"), 0) == 1);
        kept += word_in(file_in(&w, "f"), 8) == 2;
        lost += word_in(file_in(&w, "f"), PAGE) == 0;
    }
    must(kept == 2 && lost == 2);
    world_free(&w);
    disk_free(d);
    end();
}

TEST(each_version_of_a_page_since_its_sync_can_survive)
{
    bool met[5] = { false };
    struct disk *d;
    struct world w;
    shm_word *m;
    int fd;

    begin();
    fd = make("f", PAGE);
    m = map_of(fd, PAGE);
    must(os_fsync(fd) == 0);
    sync_dir();
    for (uint64_t i = 1; i < 5; i++)
        shm_store(&m[0], i);
    d = disk_new(story);
    disk_run(d, log_count(story));
    must(disk_combinations(d) == 5);
    world_init(&w, story);
    for (uint64_t i = 0; i < 5; i++) {
        disk_pick(d, DISK_NTH, i);
        disk_world(d, &w);
        met[word_in(file_in(&w, "f"), 0)] = true;
    }
    for (int i = 0; i < 5; i++)
        must(met[i]);
    world_free(&w);
    disk_free(d);
    end();
}

TEST(a_torn_page_mixes_sectors_of_different_versions)
{
    bool mixed = false;
    struct disk *d;
    struct world w;
    shm_word *m;
    int fd;

    begin();
    fd = make("f", PAGE);
    m = map_of(fd, PAGE);
    must(os_fsync(fd) == 0);
    sync_dir();
    shm_store(&m[0], 1);
    shm_store(&m[511], 1);
    d = disk_new(story);
    disk_run(d, log_count(story));
    world_init(&w, story);
    for (uint64_t i = 0; i < 100; i++) {
        disk_pick(d, DISK_TORN, i);
        disk_world(d, &w);
        mixed |= word_in(file_in(&w, "f"), 0) == 0 && word_in(file_in(&w, "f"), 511 * 8) == 1;
    }
    must(mixed);
    world_free(&w);
    disk_free(d);
    end();
}

TEST(a_file_without_its_directory_synced_may_have_no_name_or_its_old_one)
{
    int neither = 0, old = 0, new = 0, both = 0;
    struct disk *d;
    struct world w;
    int fd;

    begin();
    fd = make("old", PAGE);
    must(os_fsync(fd) == 0);
    sync_dir();
    must(os_link(dir, "old", "new") == 0);
    must(os_unlink(dir, "old") == 0);
    d = disk_new(story);
    disk_run(d, log_count(story));
    world_init(&w, story);
    for (uint64_t i = 0; i < 4; i++) {
        bool has_old, has_new;

        disk_pick(d, DISK_NTH, i);
        disk_world(d, &w);
        has_old = file_in(&w, "old");
        has_new = file_in(&w, "new");
        neither += !has_old && !has_new;
        both += has_old && has_new;
        old += has_old && !has_new;
        new += has_new && !has_old;
    }
    must(neither == 1 && both == 1 && old == 1 && new == 1);
    world_free(&w);
    disk_free(d);
    end();
}

TEST(a_size_since_the_last_sync_can_be_lost_with_the_data_behind_it)
{
    bool small = false, large = false;
    struct disk *d;
    struct world w;
    int fd;

    begin();
    fd = make("f", PAGE);
    must(os_fsync(fd) == 0);
    sync_dir();
    must(os_pwrite(fd, "data", 4, PAGE) == 4);
    d = disk_new(story);
    disk_run(d, log_count(story));
    world_init(&w, story);
    for (uint64_t i = 0; i < disk_combinations(d); i++) {
        disk_pick(d, DISK_NTH, i);
        disk_world(d, &w);
        small |= file_in(&w, "f")->size == PAGE;
        large |= file_in(&w, "f")->size == PAGE + 4;
    }
    must(small && large);
    world_free(&w);
    disk_free(d);
    end();
}

static int fail_sync(int fd, uint32_t node)
{
    (void)fd, (void)node;
    return -5;
}

TEST(pages_that_a_failed_sync_gave_up_are_not_saved_by_a_later_one)
{
    struct disk *d;
    struct world w;
    shm_word *m;
    int fd;

    begin();
    fd = make("f", PAGES * PAGE);
    m = map_of(fd, PAGES * PAGE);
    must(os_fsync(fd) == 0);
    sync_dir();
    shm_store(&m[0], 1);
    shm_store(&m[PAGE / 8], 2);
    record_sync = fail_sync;
    must(os_fdatasync(fd) < 0);
    record_sync = NULL;
    shm_store(&m[PAGE / 8 + 1], 3); /* dirties the second page again, as a whole */
    must(os_fdatasync(fd) == 0);
    d = disk_new(story);
    disk_run(d, log_count(story));
    world_init(&w, story);
    disk_pick(d, DISK_LOST, 0);
    disk_world(d, &w);
    must(word_in(file_in(&w, "f"), 0) == 0);
    must(word_in(file_in(&w, "f"), PAGE) == 2 && word_in(file_in(&w, "f"), PAGE + 8) == 3);
    world_free(&w);
    disk_free(d);
    end();
}

/* ---- the oracle ------------------------------------------------------- */

TEST(the_oracle_knows_each_value_and_no_other)
{
    static uint8_t buf[VALUE_MOST];
    struct oracle *o = oracle_new();

    *o = (struct oracle){
        .seed = 5, .keys = 50, .small_len = 100, .large_len = 5000, .large_each = 9
    };
    for (uint32_t k = 0; k < o->keys; k++) {
        for (uint32_t v = 1; v < 50; v++) {
            size_t len = oracle_value(o, k, v, buf);

            if (len == 0)
                continue;
            must(oracle_version(o, k, (kist_bytes){ buf, len }) == v);
            must(oracle_version(o, (k + 1) % 50, (kist_bytes){ buf, len }) == VERSION_WRONG);
            buf[(k * 31 + v) % len] ^= 1;
            must(oracle_version(o, k, (kist_bytes){ buf, len }) == VERSION_WRONG);
        }
    }
    oracle_free(o);
}

TEST(the_oracle_matches_prefixes_and_nothing_else)
{
    struct oracle *o = oracle_new();
    struct content after_two, mixed;
    struct op *op;

    *o = (struct oracle){ .seed = 5, .keys = 4, .small_len = 100 };
    oracle_reset(o, NULL);
    for (uint32_t i = 0; i < 6; i++) {
        op = oracle_begin(o, i == 0 ? OP_OPEN : i == 4 ? OP_SYNC : OP_PUT, i % 3, i);
        oracle_end(o, op, KIST_OK, i + 1);
        if (i == 1)
            after_two = o->now;
    }
    must(oracle_match(o, 0, 6, &after_two) == 2);
    must(oracle_match(o, 3, 6, &after_two) == -1);
    must(oracle_match(o, 6, 6, &o->now) == 6);
    mixed = o->now;
    mixed.version[1] = 0; /* the first put lost, later ones kept */
    must(oracle_match(o, 0, 6, &mixed) == -1);
    must(oracle_span(o, 6).durable == 5 && oracle_span(o, 6).acked == 6);
    must(oracle_span(o, 4).durable == 1);
    oracle_free(o);
}
