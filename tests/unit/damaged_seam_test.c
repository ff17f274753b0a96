/* Damage that a writer meets who dies: whoever comes next goes on. */
#include "support.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bank/core.h"

static const char *const damaged_key = "the key whose record is damaged";

/* What makes the record as long as it is, or the key itself. */
enum part { LENGTHS, KEY, PARTS };

static void damage(const struct fixture *f, enum part part)
{
    static uint8_t heap[1 << 20];
    char *path = path_join(f->dir, "bank/kist.heap.1");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t n = pread(fd, heap, sizeof heap, 0);
    uint8_t *at = n > 0 ? memmem(heap, (size_t)n, damaged_key, strlen(damaged_key)) : NULL;
    uint64_t bad = UINT64_MAX;

    must(at != NULL);
    if (part == KEY)
        must(pwrite(fd, &bad, 1, at - heap + 20) == 1);
    else
        must(pwrite(fd, &bad, 4, at - heap - RECORD_HEADER +
                                     (off_t)offsetof(struct record, value_len)) == 4);
    (void)close(fd);
    free(path);
}

static const char new_value[] = "the new value";

/* The value is what is written of a record at last; then comes the slot. */
static void die_behind_the_value(const void *addr, size_t len)
{
    if (len == strlen(new_value) && memcmp(addr, new_value, len) == 0)
        (void)kill(getpid(), SIGKILL);
}

static bool in_a_batch;

static void put_and_die(void *arg)
{
    const struct fixture *f = arg;
    kist_store *store = open_store(f->dir);
    kist_bank *bank = open_bank(store, "bank");
    kist_batch *batch;

    must_ok(kist_batch_open(&batch, bank));
    must_ok(kist_batch_put(batch, text(damaged_key), text(new_value)));
    shm_seam = die_behind_the_value; /* neither gets that far */
    if (in_a_batch)
        must_ok(kist_batch_commit(batch));
    else
        must_ok(kist_put(bank, text(damaged_key), text(new_value)));
}

static void die_over_damage(uint32_t kind, enum part part)
{
    kist_bank_options opt = { .size = sizeof opt, .index = kind,
                              .verify = KIST_VERIFY_ALWAYS };
    struct fixture f = fixture_open_with(&opt);
    kist_view *view;

    put_text(f.bank, damaged_key, "old");
    put_text(f.bank, "another key", "old");
    damage(&f, part);
    must(WIFSIGNALED(child_wait(child_start(put_and_die, &f))));
    put_text(f.bank, "a third key", "new"); /* the dead one's is made good before, or undone */
    if (in_a_batch) {
        must_rc(kist_get_view(f.bank, text(damaged_key), &view), KIST_ECORRUPT);
        put_text(f.bank, damaged_key, new_value);
    }
    must_ok(kist_get_view(f.bank, text(damaged_key), &view));
    must(kist_view_bytes(view).len == strlen(new_value) &&
         memcmp(kist_view_bytes(view).data, new_value, strlen(new_value)) == 0);
    kist_view_release(view);
    fixture_close(&f);
}

static void die_over_all_damage(void)
{
    for (enum part part = 0; part < PARTS; part++) {
        die_over_damage(KIST_INDEX_HASH, part);
        die_over_damage(KIST_INDEX_ORDERED, part);
    }
}

TEST(a_put_over_a_damaged_record_whose_writer_died_is_made_good)
{
    in_a_batch = false;
    die_over_all_damage();
}

TEST(a_batch_over_a_damaged_record_whose_writer_died_is_undone)
{
    in_a_batch = true;
    die_over_all_damage();
}
