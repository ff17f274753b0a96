/* What one process does, seen through the open handles of another. Two
 * processes take turns; a turn is a number in shared memory. */
#include "support.h"

#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct stage {
    sem_t to_child, to_parent;
    char *dir;
};

static struct stage *stage_make(void)
{
    struct stage *stage = shared_memory(sizeof *stage);

    must(sem_init(&stage->to_child, 1, 0) == 0);
    must(sem_init(&stage->to_parent, 1, 0) == 0);
    stage->dir = tmp_dir(TMP_DISK);
    return stage;
}

static void stage_end(struct stage *stage)
{
    tmp_remove(stage->dir);
    free(stage->dir);
    must(munmap(stage, sizeof *stage) == 0);
}

static void pass(sem_t *to)
{
    must(sem_post(to) == 0);
}

static void await(sem_t *own)
{
    while (sem_wait(own) != 0)
        ;
}

static kist_bank *reader_of(kist_store *store)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "b", &opt));
    return bank;
}

static void put_some(kist_bank *bank)
{
    for (uint64_t i = 0; i < 1000; i++)
        must_ok(kist_put(bank, number(i), number(i)));
}

static uint64_t walk_length(kist_bank *bank)
{
    kist_iter *iter;
    kist_entry entry;
    uint64_t met = 0;

    must_ok(kist_iter_open(&iter, bank));
    while (kist_iter_next(iter, &entry) == KIST_OK)
        met++;
    kist_iter_close(iter);
    return met;
}

/* ---- a put is seen at once -------------------------------------------- */

static void see_puts(void *arg)
{
    struct stage *stage = arg;
    kist_store *store;
    uint64_t got;
    size_t len;

    must_ok(kist_store_open(&store, stage->dir, NULL));
    kist_bank *bank = reader_of(store);
    for (uint64_t i = 1; i <= 2000; i++) {
        pass(&stage->to_parent);
        await(&stage->to_child);
        must_ok(kist_get_copy(bank, number(i % 7), &got, sizeof got, &len));
        must(got == i);
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(a_put_is_seen_by_another_process_at_once)
{
    struct stage *stage = stage_make();
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");
    pid_t child = child_start(see_puts, stage);

    for (uint64_t i = 1; i <= 2000; i++) {
        await(&stage->to_parent);
        must_ok(kist_put(bank, number(i % 7), number(i)));
        pass(&stage->to_child);
    }
    must_end_well(child);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    stage_end(stage);
}

/* ---- clear, replace, compact, repair, drop ---------------------------- */

static int one_entry(kist_bytes *key, kist_bytes *value, void *arg)
{
    int *calls = arg;

    *key = *value = text("replaced");
    return (*calls)++ ? KIST_END : 0;
}

static void check_content(kist_bank *bank, uint64_t entries, const char *present)
{
    must(count_of(bank) == entries);
    must(walk_length(bank) == entries);
    if (present)
        must_hold(bank, present, present);
}

/* `writable`: whether the watching handles could write. */
static void watch_content(struct stage *stage, bool writable)
{
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = writable ? open_bank(store, "b") : reader_of(store);
    uint64_t entries;

    check_content(bank, 1000, NULL);
    pass(&stage->to_parent), await(&stage->to_child);
    check_content(bank, 0, NULL); /* cleared */
    pass(&stage->to_parent), await(&stage->to_child);
    check_content(bank, 1000, NULL); /* filled and compacted */
    pass(&stage->to_parent), await(&stage->to_child);
    check_content(bank, 1, "replaced");
    pass(&stage->to_parent), await(&stage->to_child);
    check_content(bank, 1001, "replaced"); /* filled and repaired */
    if (writable)
        must_ok(kist_put(bank, text("from the child"), text("from the child")));
    pass(&stage->to_parent), await(&stage->to_child);
    must_rc(kist_count(bank, &entries), KIST_EGONE); /* dropped */
    must_rc(kist_put(bank, text("k"), text("v")), writable ? KIST_EGONE : KIST_EREADONLY);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

static void watch_reading(void *stage)
{
    watch_content(stage, false);
}

static void watch_writing(void *stage)
{
    watch_content(stage, true);
}

static void change_content(void (*watch)(void *), bool writable)
{
    struct stage *stage = stage_make();
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");
    int calls = 0;

    put_some(bank);
    pid_t child = child_start(watch, stage);
    await(&stage->to_parent);
    must_ok(kist_clear(bank));
    pass(&stage->to_child), await(&stage->to_parent);
    put_some(bank);
    must_ok(kist_compact(bank, NULL, NULL));
    pass(&stage->to_child), await(&stage->to_parent);
    must_ok(kist_replace(bank, one_entry, &calls));
    pass(&stage->to_child), await(&stage->to_parent);
    put_some(bank);
    must_ok(kist_repair(store, "b", NULL, NULL, NULL));
    pass(&stage->to_child), await(&stage->to_parent);
    check_content(bank, writable ? 1002 : 1001, writable ? "from the child" : NULL);
    must_ok(kist_bank_drop(store, "b"));
    pass(&stage->to_child);
    must_end_well(child);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    stage_end(stage);
}

TEST(a_reading_process_follows_clear_replace_repair_and_drop)
{
    change_content(watch_reading, false);
}

TEST(a_writing_process_follows_clear_replace_repair_and_drop)
{
    change_content(watch_writing, true);
}

/* ---- views across processes ------------------------------------------- */

static void hold_view(void *arg)
{
    struct stage *stage = arg;
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = reader_of(store);
    kist_view *view;

    must_ok(kist_get_view(bank, number(5), &view));
    pass(&stage->to_parent), await(&stage->to_child);
    must(memcmp(kist_view_bytes(view).data, number(5).data, 8) == 0);
    kist_view_release(view);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(a_view_stays_while_another_process_deletes_and_drops)
{
    struct stage *stage = stage_make();
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");
    pid_t child;

    put_some(bank);
    child = child_start(hold_view, stage);
    await(&stage->to_parent);
    for (int i = 0; i < 5; i++) {
        put_some(bank);
        must_ok(kist_compact(bank, NULL, NULL));
    }
    must_ok(kist_clear(bank));
    must_ok(kist_compact(bank, NULL, NULL));
    must_ok(kist_bank_drop(store, "b"));
    pass(&stage->to_child);
    must_end_well(child);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    stage_end(stage);
}

/* ---- several writers -------------------------------------------------- */

static void add_thousand(void *arg)
{
    struct stage *stage = arg;
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");

    for (uint64_t i = 0; i < 1000; i++)
        must_ok(kist_put(bank, number((uint64_t)getpid() << 32 | i), number(i)));
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(writers_of_several_processes_lose_nothing)
{
    struct stage *stage = stage_make();
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");
    pid_t children[4];

    for (int i = 0; i < 4; i++)
        children[i] = child_start(add_thousand, stage);
    for (int i = 0; i < 4; i++)
        must_end_well(children[i]);
    check_content(bank, 4000, NULL);
    must_verify(bank);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    stage_end(stage);
}

static void be_a_writer(void *arg)
{
    struct stage *stage = arg;
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");

    put_some(bank);
    pass(&stage->to_parent), await(&stage->to_child);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(stats_count_the_writing_processes)
{
    struct stage *stage = stage_make();
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");
    kist_stats stats = { .size = sizeof stats };
    pid_t child = child_start(be_a_writer, stage);

    await(&stage->to_parent);
    put_some(bank);
    must_ok(kist_stat(bank, &stats));
    must(stats.writers == 2);
    pass(&stage->to_child);
    must_end_well(child);
    must_ok(kist_stat(bank, &stats));
    must(stats.writers == 1);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    stage_end(stage);
}

/* The last of several to close leaves the bank clean. */
TEST(the_next_open_after_all_have_closed_recovers_nothing)
{
    struct stage *stage = stage_make();
    kist_store *store = open_store(stage->dir);
    kist_bank *bank = open_bank(store, "b");
    kist_stats stats = { .size = sizeof stats };

    in_child(add_thousand, stage);
    must_ok(kist_bank_close(bank));
    in_child(add_thousand, stage);
    bank = open_bank(store, "b");
    must_ok(kist_stat(bank, &stats));
    must(stats.last_recovery == KIST_RECOVERY_NONE && stats.entries == 2000);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    stage_end(stage);
}

TEST(reading_works_where_the_bank_is_only_read)
{
    struct stage *stage = stage_make();
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_READONLY };
    kist_store *store;

    in_child(add_thousand, stage);
    uint64_t before = tree_hash(stage->dir);
    must_ok(kist_store_open(&store, stage->dir, &opt));
    kist_bank *bank = reader_of(store);
    check_content(bank, 1000, NULL);
    must_verify(bank);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    must(tree_hash(stage->dir) == before);
    stage_end(stage);
}
