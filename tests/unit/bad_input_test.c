/*
 * What a caller or a stranger may get wrong: each has an error of its own,
 * and nothing is changed. Sums over all files are compared before and after.
 * Disks, rights and limits are in bad_input_system_test.c, what only a
 * replaced system call can show in bad_input_seam_test.c.
 */
#include "calls.h"
#include "support.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OVER_KEY = KIST_KEY_MAX + 1 };
static char zeros[OVER_KEY];

static struct fixture filled(void)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "v");
    must_ok(kist_sync(f.bank));
    return f;
}

TEST(a_key_over_65535_bytes_is_refused_by_every_call)
{
    struct fixture f = filled();
    kist_bytes key = { zeros, OVER_KEY }, value;
    uint64_t before = tree_hash(f.dir);
    kist_view *view;
    kist_meta meta;
    size_t len;

    must_rc(kist_put(f.bank, key, text("v")), KIST_EKEYLEN);
    must_rc(kist_get_or_insert(f.bank, key, text("v"), NULL), KIST_EKEYLEN);
    must_rc(kist_put_if_sequence(f.bank, key, text("v"), 0), KIST_EKEYLEN);
    must_rc(kist_delete(f.bank, key), KIST_EKEYLEN);
    must_rc(kist_get_view(f.bank, key, &view), KIST_EKEYLEN);
    must_rc(kist_get_copy(f.bank, key, NULL, 0, &len), KIST_EKEYLEN);
    must_rc(kist_get_meta(f.bank, key, &meta), KIST_EKEYLEN);
    must_ok(kist_read_begin());
    must_rc(kist_get(f.bank, key, &value), KIST_EKEYLEN);
    kist_read_end();
    must(tree_hash(f.dir) == before);
    must_hold(f.bank, "k", "v");
    fixture_close(&f);
}

/* Address space that must not be touched: reading it would be a signal. */
static void *untouchable(size_t len)
{
    void *p = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    must(p != MAP_FAILED);
    return p;
}

struct too_long {
    kist_bytes value;
    bool done;
};

static int too_long_next(kist_bytes *key, kist_bytes *value, void *arg)
{
    struct too_long *t = arg;

    if (t->done)
        return KIST_END;
    t->done = true;
    *key = text("k");
    *value = t->value;
    return 0;
}

TEST(a_value_of_4_gib_is_refused_by_every_call)
{
    static const size_t lengths[] = { (size_t)KIST_VALUE_MAX + 1, (size_t)KIST_VALUE_MAX + 2,
                                      (size_t)1 << 33 };
    struct fixture f = filled();
    void *bytes = untouchable((size_t)1 << 33);
    uint64_t before = tree_hash(f.dir);

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        kist_bytes value = { bytes, lengths[i] };
        struct too_long feed = { .value = value };
        must_rc(kist_put(f.bank, text("k"), value), KIST_EVALUELEN);
        must_rc(kist_get_or_insert(f.bank, text("n"), value, NULL), KIST_EVALUELEN);
        must_rc(kist_put_if_sequence(f.bank, text("n"), value, 0), KIST_EVALUELEN);
        must_rc(kist_replace(f.bank, too_long_next, &feed), KIST_EVALUELEN);
    }
    must(tree_hash(f.dir) == before);
    must_hold(f.bank, "k", "v");
    must(munmap(bytes, (size_t)1 << 33) == 0);
    fixture_close(&f);
}

TEST(a_key_of_4_gib_is_not_cut_to_its_low_bits)
{
    struct fixture f = filled();
    void *bytes = untouchable(((size_t)1 << 32) + 4096);
    kist_bytes key = { bytes, ((size_t)1 << 32) + 1 };
    uint64_t before = tree_hash(f.dir);

    must_rc(kist_put(f.bank, key, text("v")), KIST_EKEYLEN);
    must_rc(kist_delete(f.bank, key), KIST_EKEYLEN);
    must(tree_hash(f.dir) == before);
    must(munmap(bytes, ((size_t)1 << 32) + 4096) == 0);
    fixture_close(&f);
}

/* ---- names ------------------------------------------------------------ */

static void name_refused(kist_store *store, const char *name, int want)
{
    kist_bank_options create = { .size = sizeof create, .flags = KIST_BANK_CREATE };
    kist_bank *bank = (kist_bank *)&bank;

    must_rc(kist_bank_open(&bank, store, name, &create), want);
    must(bank == NULL);
    must_rc(kist_bank_open(&bank, store, name, NULL), want);
    must_rc(kist_bank_drop(store, name), want);
    must_rc(kist_repair(store, name, NULL, NULL, NULL), want);
}

TEST(names_that_lead_out_of_the_store_or_into_its_files_are_refused)
{
    static const char *const names[] = { "",          "/",          "/bank",
                                         "..",        "../bank",    ".",
                                         "a/..",      "a/../b",     "a/./b",
                                         "a//b",      "a/",         "//",
                                         "kist.bank", "kist.",      "bank/kist.heap.1",
                                         "kist.x/y",  "a/kist.live" };
    struct fixture f = filled();
    uint64_t before = tree_hash(f.dir);

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        name_refused(f.store, names[i], KIST_EBANKNAME);
    must(tree_hash(f.dir) == before);
    fixture_close(&f);
}

TEST(names_that_are_too_long_are_refused)
{
    struct fixture f = filled();
    uint64_t before = tree_hash(f.dir);
    char part[257], name[1025];

    memset(part, 'p', sizeof part);
    part[256] = '\0';
    name_refused(f.store, part, KIST_EBANKNAME);
    memset(name, 'n', sizeof name);
    for (size_t at = 255; at < 1024; at += 256)
        name[at] = '/';
    name[1023] = 'n', name[1024] = '\0';
    name_refused(f.store, name, KIST_EBANKNAME);
    must(tree_hash(f.dir) == before);
    fixture_close(&f);
}

static void path_refused(struct fixture *f, const char *name)
{
    char below[64];
    uint64_t before = tree_hash(f->dir);

    name_refused(f->store, name, KIST_EPATH);
    (void)snprintf(below, sizeof below, "%s/below", name);
    name_refused(f->store, below, KIST_EPATH);
    must(tree_hash(f->dir) == before);
}

TEST(a_symlink_in_the_path_of_a_bank_is_refused)
{
    struct fixture f = filled();
    char *outside = tmp_dir(TMP_FAST);
    char *link = path_join(f.dir, "link"), *inner = path_join(f.dir, "bank/link");
    uint64_t before = tree_hash(outside);

    must(symlink(outside, link) == 0 && symlink("bank", inner) == 0);
    path_refused(&f, "link");
    path_refused(&f, "bank/link");
    must(unlink(link) == 0 && symlink("bank", link) == 0); /* to a bank of the store */
    path_refused(&f, "link");
    must(unlink(link) == 0 && symlink("missing", link) == 0);
    path_refused(&f, "link");
    must(tree_hash(outside) == before);
    free(link), free(inner), free(outside);
    fixture_close(&f);
}

TEST(a_fifo_in_the_path_of_a_bank_is_refused_without_waiting)
{
    struct fixture f = filled();
    char *path = path_join(f.dir, "fifo");

    must(mkfifo(path, 0600) == 0);
    path_refused(&f, "fifo");
    free(path);
    fixture_close(&f);
}

TEST(a_file_in_the_path_of_a_bank_is_refused)
{
    struct fixture f = filled();
    char *path = path_join(f.dir, "file");
    FILE *file = fopen(path, "w");

    must(file != NULL && fputs("stranger", file) >= 0 && fclose(file) == 0);
    path_refused(&f, "file");
    free(path);
    fixture_close(&f);
}

/* The folder of the bank is a real one, but its files are not. */
static void file_refused(const char *name, int (*put_there)(const char *path))
{
    struct fixture f = filled();
    char *path;
    kist_bank *bank;

    must_ok(kist_bank_close(f.bank));
    f.bank = NULL;
    path = path_join(f.dir, name);
    must(unlink(path) == 0 && put_there(path) == 0);
    must(kist_bank_open(&bank, f.store, "bank", NULL) < 0);
    must(bank == NULL);
    free(path);
    fixture_close(&f);
}

static int make_fifo(const char *path)
{
    return mkfifo(path, 0600);
}

static int make_link(const char *path)
{
    return symlink("/etc/passwd", path);
}

TEST(a_fifo_or_symlink_in_place_of_a_file_of_the_bank_is_an_error)
{
    file_refused("bank/kist.bank", make_fifo);
    file_refused("bank/kist.bank", make_link);
    file_refused("bank/kist.heap.1", make_fifo);
    file_refused("bank/kist.heap.1", make_link);
    file_refused("bank/kist.lock", make_fifo);
    file_refused("bank/kist.lock", make_link);
}

static int stop_at_once(const char *name, void *arg)
{
    (void)name, (void)arg;
    return 0;
}

TEST(strange_things_in_the_store_do_not_disturb_the_listing)
{
    struct fixture f = filled();
    char *fifo = path_join(f.dir, "fifo"), *link = path_join(f.dir, "link");
    char *loop = path_join(f.dir, "bank/loop");

    must(mkfifo(fifo, 0600) == 0 && symlink("/", link) == 0 && symlink("..", loop) == 0);
    must_ok(kist_bank_list(f.store, NULL, stop_at_once, NULL));
    free(fifo), free(link), free(loop);
    fixture_close(&f);
}

/* ---- handles at the wrong time ---------------------------------------- */

TEST(a_bank_used_after_its_store_was_closed_says_so)
{
    struct fixture f = filled();

    must_ok(kist_store_close(f.store));
    uint64_t before = tree_hash(f.dir);
    calls_must_say(f.bank, KIST_ECLOSED);
    must_ok(kist_bank_close(f.bank));
    must(tree_hash(f.dir) == before);
    tmp_remove(f.dir);
    free(f.dir);
}

TEST(a_bank_used_after_it_was_dropped_says_so)
{
    struct fixture f = filled();

    must_ok(kist_bank_drop(f.store, "bank"));
    uint64_t before = tree_hash(f.dir);
    calls_must_say(f.bank, KIST_EGONE);
    must(tree_hash(f.dir) == before);
    fixture_close(&f);
}

static void use_inherited(void *arg)
{
    struct fixture *f = arg;
    uint64_t before = tree_hash(f->dir);

    calls_must_say(f->bank, KIST_EFORK);
    store_calls_must_say(f->store, KIST_EFORK);
    (void)kist_bank_close(f->bank);
    (void)kist_store_close(f->store);
    must(tree_hash(f->dir) == before);
}

TEST(a_handle_in_a_forked_child_says_so)
{
    struct fixture f = filled();

    in_child(use_inherited, &f);
    must_hold(f.bank, "k", "v");
    put_text(f.bank, "k", "w");
    must_hold(f.bank, "k", "w");
    fixture_close(&f);
}

/* ---- stray files ------------------------------------------------------ */

static void write_file(const char *dir, const char *name, const void *bytes, size_t len)
{
    char *path = path_join(dir, name);
    FILE *f = fopen(path, "w");

    must(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
    free(path);
}

static bool file_exists(const char *dir, const char *name)
{
    char *path = path_join(dir, name);
    bool there = access(path, F_OK) == 0;

    free(path);
    return there;
}

static void rebuilt_beside(const char *stray, const void *bytes, size_t len)
{
    struct fixture f = filled();
    char *bank = path_join(f.dir, "bank");
    char *live = path_join(bank, "kist.live");

    must_ok(kist_bank_close(f.bank));
    write_file(bank, stray, bytes, len);
    must(unlink(live) == 0);
    f.bank = open_bank(f.store, "bank");
    must_hold(f.bank, "k", "v");
    put_text(f.bank, "k2", "v2");
    must(file_exists(bank, "kist.heap.2") || file_exists(bank, "kist.heap.3"));
    must_ok(kist_repair(f.store, "bank", NULL, NULL, NULL));
    must_hold(f.bank, "k", "v");
    must_hold(f.bank, "k2", "v2");
    fixture_close(&f);
    free(bank);
    free(live);
}

/* The bank would use up its numbers, or find none any more. */
TEST(a_stray_file_named_like_a_segment_far_away_does_not_use_up_the_numbers)
{
    static const char *const name[] = { "kist.heap.4000000", "kist.heap.274877906942",
                                        "kist.heap.274877906943", "kist.heap.9999999999999999999" };
    static char noise[12288];

    value_fill(noise, sizeof noise, 1, 1);

    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        rebuilt_beside(name[i], zeros, 16);
        rebuilt_beside(name[i], zeros, 4096);
        rebuilt_beside(name[i], zeros, 12288);
        rebuilt_beside(name[i], noise, sizeof noise);
    }
}

/* A segment of another bank, by the name that would come next. */
TEST(a_strangers_segment_in_the_way_stays_as_it_is)
{
    struct fixture f = filled(), other = filled();
    char *bank = path_join(f.dir, "bank"), *theirs = path_join(other.dir, "bank/kist.heap.1");
    char *live = path_join(bank, "kist.live");
    static char bytes[1 << 16], now[1 << 16];
    FILE *file = fopen(theirs, "r");
    size_t len = fread(bytes, 1, sizeof bytes, file);

    must(fclose(file) == 0);
    must_ok(kist_bank_close(f.bank));
    write_file(bank, "kist.heap.2", bytes, len);
    must(unlink(live) == 0);
    f.bank = open_bank(f.store, "bank");
    must_hold(f.bank, "k", "v");
    must(file_exists(bank, "kist.heap.3"));
    free(theirs);
    theirs = path_join(bank, "kist.heap.2");
    file = fopen(theirs, "r");
    must(file && fread(now, 1, sizeof now, file) == len && memcmp(now, bytes, len) == 0);
    must(fclose(file) == 0);
    fixture_close(&f);
    fixture_close(&other);
    free(bank);
    free(theirs);
    free(live);
}
