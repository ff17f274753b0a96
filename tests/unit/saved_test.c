/*
 * Saved snapshots: written out and read back, through memory, files and pipes;
 * and everything that is none, cut or damaged, which changes nothing.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "bank/saved.h"

/* ---- bytes in memory -------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t len, room, at;
    size_t piece;       /* the most that one read gives; 0: all */
    int64_t fail_at;    /* this call fails, counted from 1; 0: none */
    int64_t calls;
};

static int to_bytes(const void *data, size_t len, void *arg)
{
    struct bytes *b = arg;

    if (++b->calls == b->fail_at)
        return -77;
    if (b->len + len > b->room) {
        b->room = 2 * (b->len + len);
        b->data = realloc(b->data, b->room);
    }
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

static int64_t from_bytes(void *buf, size_t len, void *arg)
{
    struct bytes *b = arg;
    size_t n = b->len - b->at < len ? b->len - b->at : len;

    if (++b->calls == b->fail_at)
        return -78;
    if (b->piece > 0 && n > b->piece)
        n = b->piece;
    if (n > 0)
        memcpy(buf, b->data + b->at, n);
    b->at += n;
    return (int64_t)n;
}

static struct bytes save(kist_bank *bank)
{
    struct bytes b = { 0 };

    must_ok(kist_snapshot_save(bank, to_bytes, &b));
    return b;
}

static int restore(kist_bank *bank, struct bytes *b)
{
    b->at = 0;
    b->calls = 0;
    return kist_snapshot_restore(bank, from_bytes, b);
}

static kist_snapshot_info info_of(struct bytes *b)
{
    kist_snapshot_info info = { .size = sizeof info };

    b->at = 0;
    b->calls = 0;
    must_ok(kist_snapshot_info_read(from_bytes, b, &info));
    must(b->at <= 4096);
    return info;
}

/* ---- banks ------------------------------------------------------------ */

static kist_store *memory_store(void)
{
    kist_store_options opt = { .size = sizeof opt, .flags = KIST_STORE_MEMORY };
    kist_store *store;

    must_ok(kist_store_open(&store, NULL, &opt));
    return store;
}

static kist_bank *bank_of(kist_store *store, const char *name, uint32_t index)
{
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_CREATE, .index = index };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, name, &opt));
    return bank;
}

enum { KEYS = 300, LONGEST = 200000 };

static size_t value_len(uint64_t key)
{
    return key == 5 ? LONGEST : key % 7 == 0 ? 0 : key % 11 == 0 ? 4096 + key : 24 + key % 90;
}

/* Key 0 is empty, and some are long. */
static kist_bytes key_of(uint64_t key)
{
    static _Thread_local unsigned char bytes[70000];
    size_t len = key == 0 ? 0 : key == 9 ? KIST_KEY_MAX : 8 + key % 40;

    value_fill(bytes, len > VALUE_MIN ? len : VALUE_MIN, key, 1);
    return (kist_bytes){ bytes, len };
}

static kist_bytes content_of(uint64_t key)
{
    static unsigned char bytes[LONGEST];
    size_t len = value_len(key);

    if (len >= VALUE_MIN)
        value_fill(bytes, len, key, 2);
    return (kist_bytes){ bytes, len };
}

static void fill(kist_bank *bank)
{
    for (uint64_t key = 0; key < KEYS; key++)
        must_ok(kist_put(bank, key_of(key), content_of(key)));
}

/* What fill() made, and no more; times as in `as`. */
static void must_be_filled(kist_bank *bank, kist_bank *as)
{
    kist_meta meta, other;
    kist_view *view;

    must(count_of(bank) == KEYS);
    for (uint64_t key = 0; key < KEYS; key++) {
        kist_bytes k = key_of(key), want = content_of(key);

        must_ok(kist_get_view(bank, k, &view));
        must(kist_view_bytes(view).len == want.len);
        must(want.len == 0 || memcmp(kist_view_bytes(view).data, want.data, want.len) == 0);
        kist_view_release(view);
        must_ok(kist_get_meta(bank, k, &meta));
        must_ok(kist_get_meta(as, k, &other));
        must(meta.mtime_ns == other.mtime_ns);
    }
    must_verify(bank);
}

/* ---- there and back --------------------------------------------------- */

static const uint32_t kinds[] = { KIST_INDEX_HASH, KIST_INDEX_ORDERED };

TEST(what_was_saved_is_restored_into_a_bank_of_any_kind)
{
    for (int from = 0; from < 2; from++) {
        for (int to = 0; to < 2; to++) {
            kist_store *store = memory_store();
            kist_bank *a = bank_of(store, "a", kinds[from]), *b = bank_of(store, "b", kinds[to]);
            kist_stats stats = { .size = sizeof stats };
            kist_snapshot_info info;
            struct bytes saved;
            uint64_t payload;

            put_text(b, "what was there", "before");
            fill(a);
            saved = save(a);
            info = info_of(&saved);
            must_ok(kist_size_bytes(a, &payload));
            must_ok(kist_stat(a, &stats));
            must(info.entries == KEYS && info.payload_bytes == payload);
            must(info.index == kinds[from] && info.sequence == stats.sequence);
            must(info.saved_bytes == saved.len && info.taken_ns > 0);
            must_ok(restore(b, &saved));
            must(saved.at == saved.len);
            must_be_filled(b, a);
            put_text(b, "more", "later");
            must_hold(b, "more", "later");
            must_ok(kist_bank_close(b));
            must_ok(kist_bank_open(&b, store, "b", NULL));
            must(count_of(b) == KEYS + 1);
            must_ok(restore(b, &saved)); /* once more, and into the bank that it is of */
            must_be_filled(b, a);
            must_ok(restore(a, &saved));
            must_be_filled(a, b);
            free(saved.data);
            must_ok(kist_bank_close(b));
            must_close(a, store);
        }
    }
}

TEST(a_snapshot_is_saved_as_of_its_moment)
{
    for (int kind = 0; kind < 2; kind++) {
        kist_store *store = memory_store();
        kist_bank *a = bank_of(store, "a", kinds[kind]), *b = bank_of(store, "b", 0), *snap;
        struct bytes saved, now;

        fill(a);
        must_ok(kist_snapshot_open(&snap, a));
        for (uint64_t key = 0; key < KEYS; key += 2)
            must_ok(kist_delete(a, key_of(key)));
        put_text(a, "other", "value");
        saved = save(snap);
        now = save(a);
        must(info_of(&saved).entries == KEYS && info_of(&now).entries == KEYS / 2 + 1);
        must(info_of(&saved).sequence < info_of(&now).sequence);
        must_ok(restore(b, &saved));
        must_be_filled(b, snap);
        must_ok(restore(b, &now));
        must(count_of(b) == KEYS / 2 + 1);
        must_hold(b, "other", "value");
        must_rc(restore(snap, &saved), KIST_EREADONLY);
        must(saved.calls == 0);
        free(saved.data);
        free(now.data);
        must_ok(kist_bank_close(snap));
        must_ok(kist_bank_close(b));
        must_close(a, store);
    }
}

TEST(an_empty_bank_is_saved_too)
{
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", 0), *b = bank_of(store, "b", 0);
    struct bytes saved = save(a);

    must(saved.len == 160 && info_of(&saved).entries == 0);
    put_text(b, "k", "v");
    must_ok(restore(b, &saved));
    must(count_of(b) == 0);
    free(saved.data);
    must_ok(kist_bank_close(b));
    must_close(a, store);
}

/* Entries of an ordered bank come in the order of their keys. */
TEST(keys_of_an_ordered_bank_are_saved_in_order)
{
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", KIST_INDEX_ORDERED);
    const struct saved_block *block;
    struct saved_entry e;
    struct bytes saved;
    char before = 0;

    for (const char *p = "qwertzuiopasdfghjkl"; *p; p++)
        must_ok(kist_put(a, (kist_bytes){ p, 1 }, text("value")));
    saved = save(a);
    must(saved.len == saved_length(19, 19 * 6));
    block = (const void *)(saved.data + sizeof(struct saved_header));
    for (int i = 0; i < 19; i++) {
        const uint8_t *at = block->content + i * 22;

        memcpy(&e, at, sizeof e);
        must(e.key_len == 1 && e.value_len == 5 && (char)at[16] > before);
        before = (char)at[16];
    }
    free(saved.data);
    must_close(a, store);
}

struct writer_beside {
    kist_bank *bank;
    _Atomic int over;
};

static void *keep_writing(void *arg)
{
    struct writer_beside *w = arg;
    kist_batch *batch;

    must_ok(kist_batch_open(&batch, w->bank));
    for (uint64_t i = 1; !w->over; i++) {
        for (uint64_t k = 0; k < 20; k++)
            must_ok(kist_batch_put(batch, number(k), number(i)));
        must_ok(kist_batch_commit(batch));
    }
    kist_batch_close(batch);
    return NULL;
}

TEST(what_is_saved_while_others_write_is_of_one_moment)
{
    for (int kind = 0; kind < 2; kind++) {
        kist_store *store = memory_store();
        kist_bank *a = bank_of(store, "a", kinds[kind]), *b = bank_of(store, "b", 0);
        struct writer_beside w = { .bank = a };
        uint64_t newest = 0, value;
        pthread_t thread;
        size_t len;

        must(pthread_create(&thread, NULL, keep_writing, &w) == 0);
        while (count_of(a) == 0)
            ;
        for (uint64_t i = 0; i < test_scaled(100); i++) {
            struct bytes saved = save(a);
            uint64_t first = 0;

            must_ok(restore(b, &saved));
            for (uint64_t k = 0; k < 20; k++) {
                must_ok(kist_get_copy(b, number(k), &value, sizeof value, &len));
                must(k == 0 || value == first);
                first = value;
            }
            must(first >= newest);
            newest = first;
            free(saved.data);
        }
        w.over = 1;
        must(pthread_join(thread, NULL) == 0);
        must_ok(kist_bank_close(b));
        must_close(a, store);
    }
}

/* ---- files and pipes -------------------------------------------------- */

TEST(it_goes_through_a_file)
{
    char *dir = tmp_dir(TMP_FAST), *path = path_join(dir, "saved");
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", 0), *b = bank_of(store, "b", 0);
    kist_snapshot_info info = { .size = sizeof info };
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), closed = -1;

    fill(a);
    must_ok(kist_snapshot_save(a, kist_write_fd, &fd));
    must(lseek(fd, 0, SEEK_SET) == 0);
    must_ok(kist_snapshot_info_read(kist_read_fd, &fd, &info));
    must((uint64_t)lseek(fd, 0, SEEK_END) == info.saved_bytes);
    must(lseek(fd, 0, SEEK_SET) == 0);
    must_ok(kist_snapshot_restore(b, kist_read_fd, &fd));
    must_be_filled(b, a);
    must_rc(kist_snapshot_save(a, kist_write_fd, &closed), -EBADF);
    must_rc(kist_snapshot_restore(b, kist_read_fd, &closed), -EBADF);
    must_be_filled(b, a);
    (void)close(fd);
    must_ok(kist_bank_close(b));
    must_close(a, store);
    tmp_remove(dir);
    free(path);
    free(dir);
}

struct writing {
    kist_bank *bank;
    int fd, rc;
};

static void *save_into_pipe(void *arg)
{
    struct writing *w = arg;

    w->rc = kist_snapshot_save(w->bank, kist_write_fd, &w->fd);
    (void)close(w->fd);
    return NULL;
}

TEST(it_goes_through_a_pipe)
{
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", 0), *b = bank_of(store, "b", 0);
    struct writing w = { .bank = a };
    pthread_t thread;
    int ends[2];

    fill(a);
    must(pipe2(ends, O_CLOEXEC) == 0);
    w.fd = ends[1];
    must(pthread_create(&thread, NULL, save_into_pipe, &w) == 0);
    must_ok(kist_snapshot_restore(b, kist_read_fd, &ends[0]));
    must(pthread_join(thread, NULL) == 0);
    must_ok(w.rc);
    must_be_filled(b, a);
    (void)close(ends[0]);
    must(pipe2(ends, O_CLOEXEC) == 0); /* and one that nobody reads: no signal */
    (void)close(ends[0]);
    must_rc(kist_snapshot_save(a, kist_write_fd, &ends[1]), -EPIPE);
    (void)close(ends[1]);
    must_ok(kist_bank_close(b));
    must_close(a, store);
}

TEST(a_stream_may_come_in_pieces_of_any_length)
{
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", 0), *b = bank_of(store, "b", 0);
    struct bytes saved;

    fill(a);
    saved = save(a);
    for (saved.piece = 1; saved.piece < 100000; saved.piece = saved.piece * 5 + 2) {
        must_ok(restore(b, &saved));
        must_be_filled(b, a);
    }
    free(saved.data);
    must_ok(kist_bank_close(b));
    must_close(a, store);
}

TEST(what_the_functions_say_is_said_on)
{
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", 0), *b = bank_of(store, "b", 0);
    kist_snapshot_info info = { .size = sizeof info };
    struct bytes saved, failing = { 0 };
    int64_t calls;

    fill(a);
    put_text(b, "k", "v");
    saved = save(a);
    calls = saved.calls;
    for (int64_t i = 1; i <= calls; i++) {
        failing = (struct bytes){ .fail_at = i };
        must_rc(kist_snapshot_save(a, to_bytes, &failing), -77);
        free(failing.data);
    }
    must_ok(restore(b, &saved));
    calls = saved.calls;
    must_ok(kist_clear(b));
    put_text(b, "k", "v");
    must(calls > 5);
    for (int64_t i = 1; i <= calls; i++) {
        saved.fail_at = i;
        must_rc(restore(b, &saved), -78);
        must(count_of(b) == 1);
    }
    must_hold(b, "k", "v");
    saved.fail_at = 1;
    saved.calls = 0;
    must_rc(kist_snapshot_info_read(from_bytes, &saved, &info), -78);
    info.size = 8;
    must_rc(kist_snapshot_info_read(from_bytes, &saved, &info), KIST_EINVAL);
    free(saved.data);
    must_ok(kist_bank_close(b));
    must_close(a, store);
}

static int64_t too_much(void *buf, size_t len, void *arg)
{
    (void)buf, (void)arg;
    return (int64_t)len + 1;
}

TEST(a_read_function_that_returns_too_much_is_refused)
{
    kist_store *store = memory_store();
    kist_bank *bank = bank_of(store, "a", 0);

    must_rc(kist_snapshot_restore(bank, too_much, NULL), KIST_EINVAL);
    must_close(bank, store);
}

/* As write() does. */
static int how_many(const void *data, size_t len, void *arg)
{
    (void)data, (void)arg;
    return (int)len;
}

/* As KIST_END would be. */
static int four_at_last(const void *data, size_t len, void *arg)
{
    int *calls = arg;

    (void)data, (void)len;
    return ++*calls == 3 ? KIST_END : 0;
}

TEST(a_write_function_that_returns_no_outcome_is_refused)
{
    kist_store *store = memory_store();
    kist_bank *bank = bank_of(store, "a", 0);
    int calls = 0;

    put_text(bank, "k", "v");
    must_rc(kist_snapshot_save(bank, how_many, NULL), KIST_EINVAL);
    must(strstr(kist_last_error()->what, "write function") != NULL);
    must_rc(kist_snapshot_save(bank, four_at_last, &calls), KIST_EINVAL);
    must(calls == 3); /* header, block, trailer */
    must_close(bank, store);
}

/* Turn the one "b" of the heap that stands within these bytes. */
static void damage(const char *dir, const char *bytes)
{
    char *path = path_join(dir, "bank/kist.heap.1");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char content[4096], *at;
    ssize_t len = pread(fd, content, sizeof content, 0);

    must(fd >= 0 && len > 0);
    at = memmem(content, (size_t)len, bytes, strlen(bytes));
    must(at != NULL);
    must(pwrite(fd, "d", 1, at - content) == 1);
    (void)close(fd);
    free(path);
}

/* The checksums of what is saved would vouch for it. */
TEST(what_is_damaged_is_not_saved_though_its_handle_verifies_nothing)
{
    test_needs_files();
    for (int kind = 0; kind < 2; kind++) {
        kist_bank_options opt = { .size = sizeof opt, .index = kinds[kind] };
        struct fixture f = fixture_open_with(&opt);
        struct bytes b = { 0 };
        kist_bank *snap;

        put_text(f.bank, "k", "bytes of a value");
        must_ok(kist_bank_close(f.bank));
        damage(f.dir, "bytes of a value");
        opt.verify = KIST_VERIFY_NEVER;
        must_ok(kist_bank_open(&f.bank, f.store, "bank", &opt));
        must_rc(kist_snapshot_save(f.bank, to_bytes, &b), KIST_ECORRUPT);
        must_ok(kist_snapshot_open(&snap, f.bank));
        must_rc(kist_snapshot_save(snap, to_bytes, &b), KIST_ECORRUPT);
        must_ok(kist_bank_close(snap));
        free(b.data);
        fixture_close(&f);
    }
}

/* ---- bad ones --------------------------------------------------------- */

struct small {
    kist_store *store;
    kist_bank *from, *to;
    struct bytes saved;
    uint64_t sequence;
};

static uint64_t sequence_of(kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };

    must_ok(kist_stat(bank, &stats));
    return stats.sequence;
}

static struct small small_begin(uint32_t index)
{
    struct small s = { .store = memory_store() };

    s.from = bank_of(s.store, "from", index);
    s.to = bank_of(s.store, "to", index);
    put_text(s.from, "a", "first");
    put_text(s.from, "bb", "");
    put_text(s.from, "ccc", "a value of thirty bytes or so");
    put_text(s.to, "mine", "stays");
    s.saved = save(s.from);
    s.sequence = sequence_of(s.to);
    return s;
}

static void must_refuse(struct small *s, int rc)
{
    must(rc == KIST_ECORRUPT || rc == KIST_EFORMAT || rc == KIST_ENEWER);
    must(kist_last_error()->rc == rc && strstr(kist_last_error()->what, "saved snapshot") != NULL);
    must(sequence_of(s->to) == s->sequence && count_of(s->to) == 1);
    must_hold(s->to, "mine", "stays");
}

static void small_end(struct small *s)
{
    must_ok(restore(s->to, &s->saved)); /* it was good, after all */
    must(count_of(s->to) == 3);
    free(s->saved.data);
    must_ok(kist_bank_close(s->to));
    must_close(s->from, s->store);
}

TEST(one_that_is_cut_anywhere_changes_nothing)
{
    struct small s = small_begin(0);
    kist_snapshot_info info = { .size = sizeof info };
    size_t all = s.saved.len;

    for (s.saved.len = 0; s.saved.len < all; s.saved.len++) {
        int rc = restore(s.to, &s.saved);

        test_case = s.saved.len;
        must_rc(rc, s.saved.len == 0 ? KIST_EFORMAT : KIST_ECORRUPT);
        must_refuse(&s, rc);
        s.saved.at = 0;
        rc = kist_snapshot_info_read(from_bytes, &s.saved, &info);
        must((rc == KIST_OK) == (s.saved.len >= sizeof(struct saved_header)));
    }
    small_end(&s);
}

TEST(one_with_any_bit_flipped_changes_nothing)
{
    struct small s = small_begin(KIST_INDEX_ORDERED);

    for (size_t bit = 0; bit < 8 * s.saved.len; bit++) {
        int rc;

        test_case = bit;
        s.saved.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        rc = restore(s.to, &s.saved);
        s.saved.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        must_rc(rc, bit < 64 ? KIST_EFORMAT : KIST_ECORRUPT);
        must_refuse(&s, rc);
    }
    small_end(&s);
}

TEST(one_with_more_behind_it_changes_nothing)
{
    struct small s = small_begin(0);
    size_t all = s.saved.len;

    must(to_bytes("x", 1, &s.saved) == 0);
    must_refuse(&s, restore(s.to, &s.saved));
    must(to_bytes(s.saved.data, all, &s.saved) == 0); /* two, one behind the other */
    must_refuse(&s, restore(s.to, &s.saved));
    s.saved.len = all;
    small_end(&s);
}

TEST(what_is_none_is_told_from_what_is_damaged)
{
    static const char *const others[] = { "", "x", "KISTSTOR and more", "{\"key\": \"value\"}" };
    struct small s = small_begin(0);

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct bytes b = { .data = (uint8_t *)(uintptr_t)others[i], .len = strlen(others[i]) };

        must_rc(restore(s.to, &b), KIST_EFORMAT);
        must_refuse(&s, KIST_EFORMAT);
    }
    small_end(&s);
}

/* ---- forged ones: their checksums are right --------------------------- */

/* Of a small one, which has one block. */
static void sign(struct bytes *b)
{
    struct saved_header *h = (void *)b->data;
    struct saved_block *block = (void *)(b->data + sizeof *h);
    struct saved_trailer *t = (void *)(b->data + b->len - sizeof *t);
    size_t len = b->len - sizeof *h - sizeof *t - 8;

    h->checksum = saved_header_sum(h);
    block->checksum = saved_block_sum(h, 0, block->content, len);
    t->checksum = saved_trailer_sum(saved_chain(h->checksum, block->checksum), t);
}

static struct saved_entry *entry_at(struct bytes *b, size_t at)
{
    return (void *)(b->data + sizeof(struct saved_header) + 8 + at);
}

static void must_refuse_signed(struct small *s, int want, size_t at, uint8_t was)
{
    int rc;

    sign(&s->saved);
    rc = restore(s->to, &s->saved);
    must_rc(rc, want);
    must_refuse(s, rc);
    s->saved.data[at] = was;
    sign(&s->saved);
}

TEST(a_newer_one_is_told_from_a_damaged_one)
{
    struct small s = small_begin(0);

    s.saved.data[8] = SAVED_FORMAT + 1;
    must_refuse_signed(&s, KIST_ENEWER, 8, SAVED_FORMAT);
    small_end(&s);
}

TEST(one_that_contradicts_itself_changes_nothing)
{
    static const size_t fields[] = { offsetof(struct saved_header, entries),
                                     offsetof(struct saved_header, entries) + 7,
                                     offsetof(struct saved_header, payload),
                                     offsetof(struct saved_header, payload) + 7,
                                     offsetof(struct saved_header, length) };
    struct small s = small_begin(KIST_INDEX_ORDERED);
    const size_t first = sizeof(struct saved_header) + 8;
    uint8_t was;

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        was = s.saved.data[fields[i]]++;
        must_refuse_signed(&s, KIST_ECORRUPT, fields[i], was);
    }
    was = (uint8_t)entry_at(&s.saved, 0)->value_len;
    entry_at(&s.saved, 0)->value_len++; /* all behind it is read as something else */
    must_refuse_signed(&s, KIST_ECORRUPT, first, was);
    was = s.saved.data[first + 3];
    s.saved.data[first + 3] = 0xff; /* 4 GiB, of which there are a few bytes */
    must_refuse_signed(&s, KIST_ECORRUPT, first + 3, was);
    was = s.saved.data[first + 16];
    s.saved.data[first + 16] = 'z'; /* "a" to "z": behind the others */
    must_refuse_signed(&s, KIST_ECORRUPT, first + 16, was);
    s.saved.data[first + 16] = 'c';
    must_refuse_signed(&s, KIST_ECORRUPT, first + 16, was);
    small_end(&s);
}

TEST(blocks_in_another_order_change_nothing)
{
    kist_store *store = memory_store();
    kist_bank *a = bank_of(store, "a", 0), *b = bank_of(store, "b", 0);
    struct bytes one, two;
    uint8_t *block = malloc(SAVED_BLOCK);

    fill(a);
    put_text(b, "k", "v");
    one = save(a);
    must_ok(kist_put(a, key_of(3), content_of(3)));
    two = save(a);
    must(one.len == two.len && one.len > 4 * SAVED_BLOCK);
    for (size_t i = 0; i < 2; i++) {
        uint8_t *first = one.data + sizeof(struct saved_header), *second = first + SAVED_BLOCK;

        memcpy(block, first, SAVED_BLOCK); /* exchanged; and back */
        memcpy(first, second, SAVED_BLOCK);
        memcpy(second, block, SAVED_BLOCK);
        if (i == 0)
            must_rc(restore(b, &one), KIST_ECORRUPT);
    }
    /* another one's block, at its place */
    memcpy(block, one.data + sizeof(struct saved_header), SAVED_BLOCK);
    memcpy(one.data + sizeof(struct saved_header), two.data + sizeof(struct saved_header),
           SAVED_BLOCK);
    must_rc(restore(b, &one), KIST_ECORRUPT);
    memcpy(one.data + sizeof(struct saved_header), block, SAVED_BLOCK);
    must(count_of(b) == 1);
    must_ok(restore(b, &one));
    must(count_of(b) == KEYS);
    free(block);
    free(one.data);
    free(two.data);
    must_ok(kist_bank_close(b));
    must_close(a, store);
}
