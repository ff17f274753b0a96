/* Reading: sections, borrowed gets, copies, many keys at once, metadata. */
#include "support.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static bool is_text(kist_bytes got, const char *want)
{
    return got.len == strlen(want) && memcmp(got.data, want, got.len) == 0;
}

TEST(a_borrowed_value_holds_until_the_section_ends)
{
    struct fixture f = fixture_open();
    kist_bytes value, later;

    put_text(f.bank, "k", "first");
    must_ok(kist_read_begin());
    must_ok(kist_get(f.bank, text("k"), &value));
    must(is_text(value, "first"));
    put_text(f.bank, "k", "second");
    must_ok(kist_delete(f.bank, text("k")));
    must_ok(kist_clear(f.bank));
    must_ok(kist_compact(f.bank, NULL, NULL));
    must(is_text(value, "first"));
    must_rc(kist_get(f.bank, text("k"), &later), KIST_MISS);
    kist_read_end();
    fixture_close(&f);
}

TEST(a_borrowed_value_outlives_the_closing_of_its_bank_and_store)
{
    struct fixture f = fixture_open();
    kist_bytes value;

    put_text(f.bank, "k", "still here");
    must_ok(kist_read_begin());
    must_ok(kist_get(f.bank, text("k"), &value));
    fixture_close(&f);
    must(is_text(value, "still here"));
    kist_read_end();
}

TEST(a_borrowed_get_needs_a_section)
{
    struct fixture f = fixture_open();
    kist_bytes key = text("k"), value = text("untouched");
    int rc = 12345;

    put_text(f.bank, "k", "v");
    must_rc(kist_get(f.bank, key, &value), KIST_ESECTION);
    must(is_text(value, "untouched"));
    must_rc(kist_get_many(f.bank, &key, 1, &value, &rc), KIST_ESECTION);
    must(is_text(value, "untouched") && rc == 12345);
    fixture_close(&f);
}

TEST(sections_nest)
{
    struct fixture f = fixture_open();
    kist_bytes value;

    put_text(f.bank, "k", "v");
    must_ok(kist_read_begin());
    must_ok(kist_read_begin());
    kist_read_end();
    must_ok(kist_get(f.bank, text("k"), &value));
    must(is_text(value, "v"));
    kist_read_end();
    must_rc(kist_get(f.bank, text("k"), &value), KIST_ESECTION);
    fixture_close(&f);
}

static void *leave_in_section(void *bank)
{
    kist_bytes value;

    must_ok(kist_read_begin());
    must_ok(kist_get(bank, text("k"), &value));
    return NULL;
}

static void *get_without_section(void *bank)
{
    kist_bytes value;

    must_rc(kist_get(bank, text("k"), &value), KIST_ESECTION);
    return NULL;
}

static void in_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, body, arg) == 0);
    must(pthread_join(thread, NULL) == 0);
}

TEST(a_section_belongs_to_its_thread_and_ends_with_it)
{
    struct fixture f = fixture_open();

    put_text(f.bank, "k", "v");
    must_ok(kist_read_begin());
    in_thread(get_without_section, f.bank);
    kist_read_end();
    for (int i = 0; i < 100; i++)
        in_thread(leave_in_section, f.bank);
    must_ok(kist_compact(f.bank, NULL, NULL));
    fixture_close(&f);
}

static pthread_key_t made_later;

/* kist's own has been called before: this thread's section has ended. */
static void read_at_exit(void *bank)
{
    kist_bytes value;

    must_rc(kist_get(bank, text("k"), &value), KIST_ESECTION);
    must_ok(kist_read_begin());
    must_ok(kist_get(bank, text("k"), &value));
    must_ok(kist_clear(bank));
    must_ok(kist_compact(bank, NULL, NULL));
    must(is_text(value, "v"));
    kist_read_end();
    must_ok(kist_read_begin()); /* which the thread leaves open */
}

static void *exit_reading(void *bank)
{
    must(pthread_setspecific(made_later, bank) == 0);
    return leave_in_section(bank);
}

TEST(a_destructor_of_a_thread_may_read)
{
    struct fixture f = fixture_open();

    must(pthread_key_create(&made_later, read_at_exit) == 0);
    for (int i = 0; i < 20; i++) {
        put_text(f.bank, "k", "v");
        in_thread(exit_reading, f.bank);
    }
    must(pthread_key_delete(made_later) == 0);
    fixture_close(&f);
}

TEST(a_missing_key_leaves_the_output_alone)
{
    struct fixture f = fixture_open();
    kist_bytes value = text("untouched");
    kist_view *view = (kist_view *)&value;
    kist_meta meta = { .sequence = 42 };
    size_t len = 42;
    char buf[8] = "abc";

    must_ok(kist_read_begin());
    must_rc(kist_get(f.bank, text("k"), &value), KIST_MISS);
    kist_read_end();
    must(is_text(value, "untouched"));
    must_rc(kist_get_meta(f.bank, text("k"), &meta), KIST_MISS);
    must_rc(kist_get_copy(f.bank, text("k"), buf, sizeof buf, &len), KIST_MISS);
    must(meta.sequence == 42 && len == 42 && strcmp(buf, "abc") == 0);
    must_rc(kist_get_view(f.bank, text("k"), &view), KIST_MISS);
    must(view == NULL);
    fixture_close(&f);
}

TEST(a_copy_tells_the_length_when_the_buffer_is_too_small)
{
    struct fixture f = fixture_open();
    char buf[8] = "1234567";
    size_t len = 0;

    put_text(f.bank, "k", "abcdef");
    must_rc(kist_get_copy(f.bank, text("k"), buf, 5, &len), KIST_ESPACE);
    must(len == 6 && strcmp(buf, "1234567") == 0);
    must_rc(kist_get_copy(f.bank, text("k"), NULL, 0, &len), KIST_ESPACE);
    must(len == 6);
    must_ok(kist_get_copy(f.bank, text("k"), buf, 6, &len));
    must(len == 6 && memcmp(buf, "abcdef7", 8) == 0);
    put_text(f.bank, "empty", "");
    must_ok(kist_get_copy(f.bank, text("empty"), NULL, 0, &len));
    must(len == 0);
    fixture_close(&f);
}

TEST(many_gets_answer_like_single_ones)
{
    enum { N = 1000 };
    struct fixture f = fixture_open();
    kist_bytes keys[N], values[N];
    uint64_t names[N];
    int rc[N];

    for (uint64_t i = 0; i < N; i++) {
        names[i] = i;
        keys[i] = (kist_bytes){ &names[i], sizeof names[i] };
        if (i % 3 != 0)
            must_ok(kist_put(f.bank, keys[i], number(i * 7)));
    }
    must_ok(kist_read_begin());
    must(kist_get_many(f.bank, keys, N, values, rc) == N - (N + 2) / 3);
    for (uint64_t i = 0; i < N; i++) {
        kist_bytes single = { NULL, 0 };
        must_rc(kist_get(f.bank, keys[i], &single), rc[i]);
        must(single.data == values[i].data && single.len == values[i].len);
        must(rc[i] == (i % 3 != 0 ? KIST_OK : KIST_MISS));
        must(rc[i] == KIST_MISS || memcmp(values[i].data, number(i * 7).data, 8) == 0);
    }
    kist_read_end();
    fixture_close(&f);
}

TEST(many_gets_accept_the_same_key_twice_and_no_key_at_all)
{
    struct fixture f = fixture_open();
    kist_bytes keys[2] = { text("k"), text("k") }, values[2];
    int rc[2];

    put_text(f.bank, "k", "v");
    must_ok(kist_read_begin());
    must(kist_get_many(f.bank, keys, 0, values, rc) == 0);
    must(kist_get_many(f.bank, keys, 2, values, rc) == 2);
    must(is_text(values[0], "v") && is_text(values[1], "v"));
    kist_read_end();
    fixture_close(&f);
}

TEST(one_bad_key_among_many_spoils_only_its_own_result)
{
    struct fixture f = fixture_open();
    char *long_key = calloc(1, KIST_KEY_MAX + 1);
    kist_bytes keys[3] = { text("a"), { long_key, KIST_KEY_MAX + 1 }, text("b") }, values[3];
    int rc[3];

    put_text(f.bank, "a", "1");
    put_text(f.bank, "b", "2");
    must_ok(kist_read_begin());
    must(kist_get_many(f.bank, keys, 3, values, rc) == 2);
    must(rc[0] == KIST_OK && rc[1] == KIST_EKEYLEN && rc[2] == KIST_OK);
    must(is_text(values[0], "1") && is_text(values[2], "2"));
    must(values[1].data == NULL && values[1].len == 0);
    kist_read_end();
    free(long_key);
    fixture_close(&f);
}

TEST(more_keys_at_once_than_can_be_counted_are_refused)
{
    struct fixture f = fixture_open();
    kist_bytes key = text("k"), value = text("untouched");
    int rc = 5;

    must_ok(kist_read_begin());
    must_rc(kist_get_many(f.bank, &key, (size_t)INT_MAX + 1, &value, &rc), KIST_EINVAL);
    must(rc == 5 && is_text(value, "untouched"));
    kist_read_end();
    fixture_close(&f);
}

static int64_t real_ns(void)
{
    struct timespec now;

    must(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

TEST(metadata_tells_size_sequence_and_time)
{
    enum { COARSE_NS = 20000000 };
    struct fixture f = fixture_open();
    kist_meta first, second, other;
    int64_t before = real_ns();

    put_text(f.bank, "k", "12345");
    must_ok(kist_get_meta(f.bank, text("k"), &first));
    must(first.value_bytes == 5 && first.expiry_ns == 0 && first.sequence > 0);
    must(first.mtime_ns >= before - COARSE_NS && first.mtime_ns <= real_ns() + COARSE_NS);
    put_text(f.bank, "other", "");
    put_text(f.bank, "k", "123");
    must_ok(kist_get_meta(f.bank, text("k"), &second));
    must_ok(kist_get_meta(f.bank, text("other"), &other));
    must(second.value_bytes == 3 && other.value_bytes == 0);
    must(first.sequence < other.sequence && other.sequence < second.sequence);
    must(first.mtime_ns <= other.mtime_ns && other.mtime_ns <= second.mtime_ns);
    fixture_close(&f);
}

TEST(metadata_survives_closing)
{
    struct fixture f = fixture_open();
    kist_meta before, after;

    put_text(f.bank, "k", "v");
    must_ok(kist_get_meta(f.bank, text("k"), &before));
    must_ok(kist_bank_close(f.bank));
    f.bank = open_bank(f.store, "bank");
    must_ok(kist_get_meta(f.bank, text("k"), &after));
    must(memcmp(&before, &after, sizeof before) == 0);
    fixture_close(&f);
}

TEST(each_level_of_verification_reads_what_was_put)
{
    for (uint32_t verify = KIST_VERIFY_FIRST; verify <= KIST_VERIFY_NEVER; verify++) {
        kist_bank_options opt = { .size = sizeof opt, .verify = verify };
        struct fixture f = fixture_open_with(&opt);

        for (uint64_t i = 0; i < 2000; i++)
            must_ok(kist_put(f.bank, number(i), number(~i)));
        must_ok(kist_read_begin());
        for (uint64_t i = 0; i < 4000; i++) {
            kist_bytes value;
            must_rc(kist_get(f.bank, number(i), &value), i < 2000 ? KIST_OK : KIST_MISS);
            must(i >= 2000 || memcmp(value.data, number(~i).data, 8) == 0);
        }
        kist_read_end();
        fixture_close(&f);
    }
}

/* ---- damage ----------------------------------------------------------- */

enum { DAMAGED_LEN = 300, LARGE_LEN = 200000, SEGMENT = 4096, HEADER = 40, LEN_AT = 32 };

/* A file of the heap, below an open bank or a closed one. */
static int open_heap(const struct fixture *f, uint64_t n)
{
    char name[40];
    char *path;
    int fd;

    (void)snprintf(name, sizeof name, "bank/kist.heap.%d", (int)n);
    path = path_join(f->dir, name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    free(path);
    return fd;
}

/* Where the bytes stand in the heap; the file is *fd. */
static off_t find_in_heap(const struct fixture *f, const void *bytes, size_t len, int *fd)
{
    static char content[1 << 20];
    void *at;

    for (uint64_t n = 1; n < 20; n++) {
        ssize_t got;

        *fd = open_heap(f, n);
        if (*fd < 0)
            continue;
        got = pread(*fd, content, sizeof content, 0);
        at = got > 0 ? memmem(content, (size_t)got, bytes, len) : NULL;
        if (at)
            return (char *)at - content;
        (void)close(*fd);
    }
    test_fail(__FILE__, __LINE__, "the bytes stand in the heap", "is false");
    return -1;
}

static void flip(int fd, off_t at)
{
    char byte;

    must(pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    must(pwrite(fd, &byte, 1, at) == 1);
}

static void close_bank(struct fixture *f)
{
    must_ok(kist_bank_close(f->bank));
    f->bank = NULL;
}

static void open_again(struct fixture *f, uint32_t verify)
{
    kist_bank_options opt = { .size = sizeof opt, .verify = verify };

    must_ok(kist_bank_open(&f->bank, f->store, "bank", &opt));
}

static void every_get_must_say(kist_bank *bank, kist_bytes key, int want)
{
    static char buf[LARGE_LEN];
    kist_bytes value;
    kist_view *view;
    size_t len;
    int rc;

    must_ok(kist_read_begin());
    must_rc(kist_get(bank, key, &value), want);
    must(kist_get_many(bank, &key, 1, &value, &rc) == (want == KIST_OK));
    must_rc(rc, want);
    kist_read_end();
    must_rc(kist_get_view(bank, key, &view), want);
    kist_view_release(view);
    must_rc(kist_get_copy(bank, key, buf, sizeof buf, &len), want);
}

/* Header, key, chunk sums, value: a bit of each, one at a time. */
static void damage_everywhere(size_t value_len, uint32_t verify)
{
    const char *key = "a key that stands nowhere else";
    size_t key_len = strlen(key), sums = value_len > SEGMENT ? 8 * ((value_len + 65535) / 65536) : 0;
    const off_t parts[] = { -HEADER, -HEADER + 8, -HEADER + LEN_AT, -HEADER + 38, -1, 0,
                            (off_t)key_len - 1, (off_t)key_len, (off_t)(key_len + sums),
                            (off_t)(key_len + sums + value_len / 2),
                            (off_t)(key_len + sums + value_len - 1) };
    struct fixture f = fixture_open();
    char *value = malloc(value_len);

    value_fill(value, value_len, 1, 1);
    must_ok(kist_put(f.bank, text(key), (kist_bytes){ value, value_len }));
    close_bank(&f);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        int fd;
        off_t at = find_in_heap(&f, key, key_len, &fd) + parts[i];

        test_case = i + 1;
        open_again(&f, verify);
        flip(fd, at);
        every_get_must_say(f.bank, text(key), KIST_ECORRUPT);
        if (sums == 0 || parts[i] < (off_t)key_len) { /* else the value is not read */
            must_rc(kist_put_if_sequence(f.bank, text(key), text("new"), 0), KIST_ECORRUPT);
            must_rc(kist_get_or_insert(f.bank, text(key), text("new"), NULL), KIST_ECORRUPT);
        }
        flip(fd, at);
        every_get_must_say(f.bank, text(key), KIST_OK);
        (void)close(fd);
        close_bank(&f);
    }
    test_case = 0;
    open_again(&f, verify);
    fixture_close(&f);
    free(value);
}

/* Of the key too: there the record looks like another key's. */
TEST(damage_to_any_part_of_a_record_is_an_error_and_no_miss)
{
    test_needs_files();
    damage_everywhere(DAMAGED_LEN, KIST_VERIFY_FIRST);
    damage_everywhere(DAMAGED_LEN, KIST_VERIFY_ALWAYS);
    damage_everywhere(LARGE_LEN, KIST_VERIFY_FIRST);
    damage_everywhere(LARGE_LEN, KIST_VERIFY_ALWAYS);
}

/* What a leaf notes of these keys is the same: a search reads the record of one to find
 * another. */
TEST(damage_to_a_neighbours_key_is_no_miss_in_an_ordered_bank)
{
    test_needs_files();
    static const char *const keys[] = { "neighbour a", "neighbour b", "neighbour c" };
    kist_bank_options opt = { .size = sizeof opt, .index = KIST_INDEX_ORDERED };

    for (int damaged = 0; damaged < 3; damaged++) {
        struct fixture f = fixture_open_with(&opt);
        kist_view *view;
        off_t at;
        int fd;

        for (int i = 0; i < 3; i++)
            put_text(f.bank, keys[i], "value");
        close_bank(&f);
        at = find_in_heap(&f, keys[damaged], strlen(keys[damaged]), &fd);
        flip(fd, at + (off_t)strlen(keys[damaged]) - 1); /* now it stands behind all others */
        (void)close(fd);
        open_again(&f, KIST_VERIFY_FIRST);
        for (int i = 0; i < 3; i++) {
            int rc = kist_get_view(f.bank, text(keys[i]), &view);

            must(rc == KIST_OK ? i != damaged : rc == KIST_ECORRUPT);
            kist_view_release(view);
        }
        fixture_close(&f);
    }
}

static const char *numbered(char *key, unsigned i)
{
    (void)snprintf(key, 32, "one of many neighbours %02u", i);
    return key;
}

/* How the key is written that can't be told from the damaged one. */
enum writing { PUT, DELETE, BATCH, WRITINGS };

static void write_one(kist_bank *bank, const char *key, enum writing how)
{
    kist_batch *batch;

    switch (how) {
    case PUT:
        put_text(bank, key, "new");
        break;
    case DELETE:
        must_ok(kist_delete(bank, text(key)));
        break;
    default:
        must_ok(kist_batch_open(&batch, bank));
        must_ok(kist_batch_put(batch, text(key), text("new")));
        must_ok(kist_batch_commit(batch));
        kist_batch_close(batch);
    }
}

/* Keys before, behind and between them fill leaves, which are split. */
static void must_be_well_again(unsigned damaged, enum writing how)
{
    enum { KEYS = 24, STEP = 3 };
    kist_bank_options opt = { .size = sizeof opt, .index = KIST_INDEX_ORDERED };
    struct fixture f = fixture_open_with(&opt);
    kist_view *view;
    kist_bank *snap;
    char key[32];
    off_t at;
    int fd;

    for (unsigned i = 0; i < KEYS; i += STEP)
        put_text(f.bank, numbered(key, i), "old");
    close_bank(&f);
    at = find_in_heap(&f, numbered(key, damaged), strlen(key), &fd);
    flip(fd, at + (off_t)strlen(key) - 1);
    (void)close(fd);
    open_again(&f, KIST_VERIFY_FIRST);
    must_ok(kist_snapshot_open(&snap, f.bank));
    must_rc(kist_get_view(f.bank, text(key), &view), KIST_ECORRUPT);
    write_one(f.bank, key, how);
    for (unsigned i = 0; i < KEYS; i++)
        if (i % STEP != 0)
            put_text(f.bank, numbered(key, i), "new");
    for (unsigned i = 0; i < KEYS; i++) {
        const char *expect = i == damaged ? (how == DELETE ? NULL : "new")
                                          : i % STEP == 0 ? "old" : "new";
        int rc = kist_get_view(f.bank, text(numbered(key, i)), &view);

        test_case = i;
        must_rc(rc, expect ? KIST_OK : KIST_MISS);
        must(!expect || memcmp(kist_view_bytes(view).data, expect, 3) == 0);
        if (expect)
            kist_view_release(view);
    }
    test_case = 0;
    /* what was before is not denied */
    must_rc(kist_get_view(snap, text(numbered(key, damaged)), &view), KIST_ECORRUPT);
    must_ok(kist_bank_close(snap));
    fixture_close(&f);
}

TEST(a_key_that_can_not_be_told_from_a_damaged_one_can_be_written)
{
    test_needs_files();
    for (unsigned damaged = 0; damaged < 24; damaged += 3)
        for (enum writing how = 0; how < WRITINGS; how++)
            must_be_well_again(damaged, how);
}

/* An old record of the same key, whole and of the same length, has come to
 * where the newest belongs: a write that went astray. */
TEST(a_record_in_another_ones_place_is_damage)
{
    test_needs_files();
    struct fixture f = fixture_open();
    char value[2][DAMAGED_LEN], record[HEADER + 3 + DAMAGED_LEN];
    off_t from, to;
    int fd;

    for (uint64_t i = 0; i < 2; i++) {
        value_fill(value[i], DAMAGED_LEN, 1, i);
        must_ok(kist_put(f.bank, text("key"), (kist_bytes){ value[i], DAMAGED_LEN }));
    }
    close_bank(&f);
    to = find_in_heap(&f, value[1], DAMAGED_LEN, &fd) - 3 - HEADER;
    (void)close(fd);
    from = find_in_heap(&f, value[0], DAMAGED_LEN, &fd) - 3 - HEADER;
    must(pread(fd, record, sizeof record, from) == sizeof record);
    must(pwrite(fd, record, sizeof record, to) == sizeof record);
    (void)close(fd);
    open_again(&f, KIST_VERIFY_FIRST);
    every_get_must_say(f.bank, text("key"), KIST_ECORRUPT);
    fixture_close(&f);
}

/* Nothing is promised of the bytes then, but that they are in the file. */
TEST(a_length_that_leads_out_of_the_file_is_an_error_where_nothing_is_verified)
{
    test_needs_files();
    struct fixture f = fixture_open();
    uint32_t len = SEGMENT; /* the file is as long as that */
    off_t at;
    int fd;

    put_text(f.bank, "key of one record", "value");
    close_bank(&f);
    at = find_in_heap(&f, "key of one record", 17, &fd) - HEADER + LEN_AT;
    for (int i = 0; i < 3; i++, len = i == 1 ? 1u << 20 : UINT32_MAX) {
        must(pwrite(fd, &len, sizeof len, at) == sizeof len);
        open_again(&f, KIST_VERIFY_NEVER);
        every_get_must_say(f.bank, text("key of one record"), KIST_ECORRUPT);
        close_bank(&f);
    }
    (void)close(fd);
    open_again(&f, KIST_VERIFY_NEVER);
    fixture_close(&f);
}
