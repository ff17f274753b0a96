/*
 * The hash index where keys meet: keys of one bucket, which have to be in the next
 * one, and keys of one tag. They are looked for by the bank's own hash.
 */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "bank/core.h"

/* Of hash banks, whatever all others are to be made of. */
__attribute__((constructor)) static void make_hash_banks(void)
{
    (void)unsetenv("KIST_TEST_INDEX");
}

enum { HOME = 5, MANY = 12, OVER = MANY - HASH_WAYS };

static uint64_t hash_of(const kist_bank *bank, uint64_t key)
{
    return record_hash_key(&bank->bank->set.record, &key, sizeof key);
}

static uint64_t home_of(const kist_bank *bank, uint64_t key)
{
    return hash_home(hash_of(bank, key)) & ((UINT64_C(1) << HASH_BLOCK_LG) - 1);
}

/* Keys whose home is the bucket HOME of the first block. */
static void find_neighbours(const kist_bank *bank, uint64_t *keys, size_t n)
{
    for (uint64_t key = 1; n > 0; key++)
        if (home_of(bank, key) == HOME)
            keys[--n] = key;
}

static void put_version(kist_bank *bank, uint64_t key, uint64_t version)
{
    char buf[VALUE_CAP];

    must_ok(kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) }));
}

/* By each way of reading; 0: there must be none. */
static void must_be_at(kist_bank *bank, uint64_t key, uint64_t want)
{
    kist_bytes name = number(key), value;
    uint64_t version;
    int rc, many;

    must_ok(kist_read_begin());
    rc = kist_get(bank, name, &value);
    must_rc(rc, want ? KIST_OK : KIST_MISS);
    must(!want || (value_check(value, key, &version) && version == want));
    must(kist_get_many(bank, &name, 1, &value, &many) == (want != 0));
    must_rc(many, rc);
    must(!want || (value_check(value, key, &version) && version == want));
    kist_read_end();
}

/* How many entries an iteration meets; their bytes are what the counters say. */
static uint64_t walked(kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };
    kist_iter *iter;
    kist_entry entry;
    uint64_t n = 0, payload = 0;
    int rc;

    must_ok(kist_iter_open(&iter, bank));
    for (; (rc = kist_iter_next(iter, &entry)) == KIST_OK; n++)
        payload += entry.key.len + entry.value.len;
    must_rc(rc, KIST_END);
    kist_iter_close(iter);
    must_ok(kist_stat(bank, &stats));
    must(stats.payload_bytes == payload);
    return n;
}

static void compact(kist_bank *bank)
{
    for (int i = 0; i < 3; i++) /* tombstones go with the oldest segment */
        must_ok(kist_compact(bank, NULL, NULL));
}

/* ---- a full bucket ---------------------------------------------------- */

TEST(a_displaced_key_is_found_though_the_bucket_before_it_changes_and_empties)
{
    struct fixture f = fixture_open();
    uint64_t keys[MANY];

    find_neighbours(f.bank, keys, MANY);
    for (size_t i = 0; i < MANY; i++)
        put_version(f.bank, keys[i], 1);
    for (size_t i = 0; i < HASH_WAYS; i++)
        put_version(f.bank, keys[i], 2);
    for (size_t i = 0; i < MANY; i++)
        must_be_at(f.bank, keys[i], i < HASH_WAYS ? 2 : 1);
    for (size_t i = 0; i < HASH_WAYS; i++)
        must_ok(kist_delete(f.bank, number(keys[i])));
    for (int emptied = 0; emptied < 2; emptied++) {
        for (size_t i = 0; i < MANY; i++)
            must_be_at(f.bank, keys[i], i < HASH_WAYS ? 0 : 1);
        must(walked(f.bank) == OVER && count_of(f.bank) == OVER);
        compact(f.bank); /* after it the slots are empty */
    }
    for (size_t i = MANY; i-- > 0;)
        put_version(f.bank, keys[i], 3);
    for (size_t i = 0; i < MANY; i++)
        must_be_at(f.bank, keys[i], 3);
    must(walked(f.bank) == MANY);
    must_verify(f.bank);
    fixture_close(&f);
}

static uint64_t stores, die_at;

static void count_and_die(const void *addr, size_t len)
{
    (void)addr, (void)len;
    if (++stores == die_at)
        (void)raise(SIGKILL);
}

struct displacing {
    const char *dir;
    uint64_t key;
};

static void put_and_die(void *arg)
{
    const struct displacing *d = arg;
    kist_store *store = open_store(d->dir);
    kist_bank *bank = open_bank(store, "bank");

    stores = 0;
    shm_seam = count_and_die;
    put_version(bank, d->key, 1);
    shm_seam = NULL;
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

/* False: the put makes fewer stores than `at`. */
static bool displace_and_die(uint64_t at)
{
    struct fixture f = fixture_open();
    struct displacing d = { f.dir, 0 };
    uint64_t keys[HASH_WAYS + 1];
    int status;

    find_neighbours(f.bank, keys, HASH_WAYS + 1);
    for (size_t i = 0; i < HASH_WAYS; i++)
        put_version(f.bank, keys[i], 1);
    d.key = keys[HASH_WAYS];
    die_at = at;
    status = child_wait(child_start(put_and_die, &d));
    put_version(f.bank, d.key, 2); /* takes over */
    must_be_at(f.bank, d.key, 2);
    must(walked(f.bank) == HASH_WAYS + 1);
    must_ok(kist_delete(f.bank, number(d.key)));
    compact(f.bank);
    must_be_at(f.bank, d.key, 0);
    must(walked(f.bank) == HASH_WAYS);
    must_verify(f.bank);
    fixture_close(&f);
    must(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSIGNALED(status);
}

/* The bit that sends a search on is set before the key that it leads to. */
TEST(a_writer_killed_while_it_displaces_a_key_leaves_it_once_or_not_at_all)
{
    uint64_t at = 1;

    while (displace_and_die(at))
        at++;
    must(at > 10);
}

/* ---- a split ---------------------------------------------------------- */

enum { LAST_STORES = 80 };

/* The same at each call, so that the same put splits in each bank. */
static uint64_t random_state;

static int same_random(void *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)(random_state = mix(random_state, i));
    return 0;
}

static struct fixture fixture_with(uint64_t keys)
{
    struct fixture f;

    random_state = 1;
    os_seam.random = same_random;
    f = fixture_open();
    os_seam.random = os_real_random;
    for (uint64_t key = 0; key < keys; key++)
        put_version(f.bank, key, 1);
    return f;
}

static unsigned depth_of(const kist_bank *bank)
{
    const struct core *c = atomic_load(&bank->bank->core);
    const struct hash_index *ix = index_hash(core_index(c));

    return root_depth(shm_read(&((const struct hash_file *)ix->base)->root));
}

/* The key whose put makes two blocks of one; *total: the stores it makes. */
static uint64_t first_to_split(uint64_t *total)
{
    struct fixture f = fixture_with(0);
    uint64_t key = 0;

    die_at = 0;
    shm_seam = count_and_die;
    for (; depth_of(f.bank) == 0; key++) {
        stores = 0;
        put_version(f.bank, key, 1);
        *total = stores;
    }
    shm_seam = NULL;
    fixture_close(&f);
    return key - 1;
}

/* The directory's entries are exchanged one by one: whoever takes over
 * finishes that, or keys of one half are lost with the next split. */
TEST(a_writer_killed_while_it_splits_a_block_leaves_an_index_that_is_whole)
{
    uint64_t total = 0, key = first_to_split(&total);

    must(total > LAST_STORES);
    for (die_at = total - LAST_STORES; die_at <= total; die_at++) {
        struct fixture f = fixture_with(key);
        struct displacing d = { f.dir, key };
        int status = child_wait(child_start(put_and_die, &d));

        test_case = die_at;
        must(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        put_version(f.bank, key, 2); /* takes over */
        must_verify(f.bank);
        for (uint64_t k = 0; k <= key; k++)
            must_be_at(f.bank, k, k == key ? 2 : 1);
        must(walked(f.bank) == key + 1);
        fixture_close(&f);
    }
    test_case = 0;
}

/* Another process has made the file longer than this one has it mapped. */
TEST(an_index_that_somebody_else_has_grown_is_not_taken_for_damaged)
{
    struct fixture f = fixture_open();
    kist_store *store = open_store(f.dir); /* with maps of its own */
    kist_bank *bank = open_bank(store, "bank");
    kist_stats stats = { .size = sizeof stats };

    for (uint64_t key = 0; key < 5000; key++)
        put_version(f.bank, key, 1);
    must_ok(kist_stat(bank, &stats));
    must(stats.index_depth > 0);
    must_verify(bank);
    must(walked(bank) == 5000);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
    fixture_close(&f);
}

/* ---- pages used again ------------------------------------------------- */

enum { CANDIDATES = 60000, BUCKET_BITS = 16 + HASH_LG, FEW = 400, MORE = 6000 };

/* Two keys of one tag and one bucket, in one block for a while. */
static void find_twins(const kist_bank *bank, uint64_t *a, uint64_t *b)
{
    uint32_t *first = calloc(UINT64_C(1) << BUCKET_BITS, sizeof *first);

    must(first != NULL);
    for (uint32_t key = 1; key < CANDIDATES; key++) {
        uint64_t hash = hash_of(bank, key), at = hash & ((UINT64_C(1) << BUCKET_BITS) - 1);

        *a = key;
        *b = first[at];
        if (*b && hash >> 60 == hash_of(bank, *b) >> 60)
            break;
        first[at] = key;
    }
    free(first);
    must(*a < CANDIDATES - 1);
}

static kist_bank *overtaker;

/* Called where the reader maps a segment, in the middle of its search. */
static int open_overtaken(int dir, const char *path, int flags, uint32_t mode)
{
    if (overtaker && strstr(path, "kist.heap")) {
        kist_bank *bank = overtaker;

        overtaker = NULL;
        for (uint64_t key = 0; key < MORE; key++)
            put_version(bank, CANDIDATES + FEW + key, 1);
    }
    return os_real_open_under(dir, path, flags, mode);
}

/*
 * A reader looks for a key and meets another one of the same tag first, whose
 * record it has to map. Meanwhile a writer splits the block, and fills its page
 * with other keys: the reader must notice, and not say that there is no such key.
 */
TEST(a_search_overtaken_by_the_reuse_of_its_page_starts_again)
{
    struct fixture f = fixture_open();
    kist_bank_options opt = { .size = sizeof opt, .flags = KIST_BANK_READONLY };
    kist_store *store = open_store(f.dir); /* with maps of its own */
    kist_bank *reader;
    uint64_t key, twin, version;
    kist_bytes value;

    find_twins(f.bank, &key, &twin);
    put_version(f.bank, twin, 1);
    put_version(f.bank, key, 1);
    for (uint64_t n = 0; n < FEW; n++)
        put_version(f.bank, CANDIDATES + n, 1);
    must_ok(kist_bank_open(&reader, store, "bank", &opt));
    os_seam.open_under = open_overtaken;
    overtaker = f.bank;
    must_ok(kist_read_begin());
    must_ok(kist_get(reader, (kist_bytes){ &key, sizeof key }, &value));
    must(value_check(value, key, &version) && version == 1);
    kist_read_end();
    must(overtaker == NULL);
    os_seam.open_under = os_real_open_under;
    must_ok(kist_bank_close(reader));
    must_ok(kist_store_close(store));
    fixture_close(&f);
}

/* ---- little room left ------------------------------------------------- */

enum { PAGES_LEFT = 6, LOADED = 20000 };

static int refusal;
static uint64_t room_until, grown_until;

/* Heap files are allocated from their beginning, the index from its end. */
static int allocate_a_little(int fd, uint64_t off, uint64_t len)
{
    if (off == 0)
        return os_real_allocate(fd, off, len);
    if (room_until == 0)
        room_until = off + PAGES_LEFT * HASH_PAGE;
    if (off + len > room_until)
        return refusal;
    grown_until = off + len;
    return os_real_allocate(fd, off, len);
}

static void grow_into_little(int code, int says)
{
    struct fixture f = fixture_open();
    uint64_t key = 0, more;
    int rc = KIST_OK;

    for (; key < LOADED; key++)
        put_version(f.bank, key, 1);
    refusal = code;
    room_until = grown_until = 0;
    os_seam.allocate = allocate_a_little;
    for (more = 0; rc == KIST_OK; more++)
        rc = kist_put(f.bank, number(key + more), text("new"));
    os_seam.allocate = os_real_allocate;
    must_rc(rc, says);
    must(grown_until == room_until);
    for (uint64_t k = 0; k < LOADED; k += 7)
        must_be_at(f.bank, k, 1);
    must(count_of(f.bank) == LOADED + more - 1);
    must_verify(f.bank);
    for (; more < LOADED; more++)
        must_ok(kist_put(f.bank, number(key + more), text("new")));
    must_verify(f.bank);
    fixture_close(&f);
}

TEST(an_index_grows_by_pages_where_there_is_no_room_for_more)
{
    grow_into_little(-ENOSPC, KIST_EFULL);
    grow_into_little(-EDQUOT, KIST_EQUOTA);
    grow_into_little(-EFBIG, KIST_EFILESIZE);
}

/* ---- a put that can not be written, having begun a segment ------------ */

static const struct live *watched_live;

/* The tail stays where it was, though the next segment is in use already. */
static bool begun_in_vain(void)
{
    struct state s;

    must(live_state(watched_live, &s));
    return place_n(s.tail) < shm_peek(&watched_live->newest) && place_offset(s.tail) + 1000 < 8192;
}

static int64_t write_nothing_there(int fd, const void *p, size_t len, uint64_t at)
{
    return begun_in_vain() ? -EIO : os_real_pwrite(fd, p, len, at);
}

static void begin_in_vain(struct fixture *f)
{
    kist_bank_options opt = { .size = sizeof opt, .durability = KIST_DURABILITY_ALWAYS };
    static const char large[3000];
    kist_bank *bank;
    int rc = KIST_OK;

    must_ok(kist_bank_open(&bank, f->store, "bank", &opt));
    watched_live = atomic_load(&f->bank->bank->core)->live;
    os_seam.pwrite = write_nothing_there;
    for (uint64_t key = 100; rc == KIST_OK; key++)
        rc = kist_put(bank, number(key), (kist_bytes){ large, sizeof large });
    os_seam.pwrite = os_real_pwrite;
    must_rc(rc, -EIO);
    must(begun_in_vain());
    must_ok(kist_bank_close(bank));
}

static void put_small_and_die(void *arg)
{
    kist_store *store = open_store(arg);
    kist_bank *bank = open_bank(store, "bank");

    must_rc(kist_delete(bank, text("no such key")), KIST_MISS);
    stores = 0;
    die_at = 3; /* the lock, the record's header, its key */
    shm_seam = count_and_die;
    put_text(bank, "small", "two");
}

static void check_copy(void *arg)
{
    kist_store *store = open_store(arg);
    kist_bank *bank = open_bank(store, "bank");

    for (uint64_t key = 3; key < 30; key++)
        must_be_at(bank, key, 7);
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

TEST(a_segment_begun_in_vain_is_not_gone_on_with_before_the_last_one_is_full)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = 8192 };
    struct fixture f = fixture_open_with(&opt);
    char *copy = tmp_dir(TMP_FAST);
    pid_t pid;

    begin_in_vain(&f);
    put_text(f.bank, "small", "one"); /* where the tail is, over the padding */
    pid = child_start(put_small_and_die, f.dir);
    must(WIFSIGNALED(child_wait(pid)));
    for (uint64_t key = 3; key < 30; key++)
        put_version(f.bank, key, 7);
    tree_copy(f.dir, copy);
    in_child(check_copy, copy);
    fixture_close(&f);
    tmp_remove(copy);
    free(copy);
}

/* ---- two keys of one tag ---------------------------------------------- */

/* The twin's slot comes first, and is taken for the key's until the records are
 * compared, wherever the tail is. */
TEST(a_put_that_met_another_key_of_its_tag_leaves_no_trace_of_that)
{
    struct fixture f = fixture_open();
    uint64_t key, twin, filler = CANDIDATES;
    kist_stats stats = { .size = sizeof stats };
    bool rolled = false;

    find_twins(f.bank, &key, &twin);
    put_version(f.bank, twin, 1);
    for (uint64_t n = 1, segments = 1; n <= FEW || !rolled; n++) {
        put_version(f.bank, key, n); /* a new key first, then one that stands second */
        must_be_at(f.bank, key, n);
        must_be_at(f.bank, twin, 1);
        must(count_of(f.bank) == 2 + (filler - CANDIDATES));
        if (n % 7 == 0)
            put_version(f.bank, filler++, 1);
        must_ok(kist_stat(f.bank, &stats));
        rolled |= stats.segments > segments && n % 7 != 0;
        segments = stats.segments;
        must_verify(f.bank);
    }
    fixture_close(&f);
}

static int allocate_nothing(int fd, uint64_t from, uint64_t len)
{
    (void)fd, (void)from, (void)len;
    return -ENOSPC;
}

/* Bytes behind the tail that are not zero. */
static uint64_t behind_the_tail(const kist_bank *bank)
{
    const struct core *c = atomic_load(&bank->bank->core);
    uint64_t n = 0;

    for (uint64_t at = place_offset(c->state.tail); at < c->active.len; at++)
        n += c->active.base[at] != 0;
    return n;
}

TEST(a_put_that_met_another_key_of_its_tag_and_finds_no_room_changes_nothing)
{
    struct fixture f = fixture_open();
    uint64_t key, twin, filler = CANDIDATES;

    find_twins(f.bank, &key, &twin);
    for (uint64_t n = 1; n <= FEW; n++) /* room for all that follows */
        put_version(f.bank, twin, n);
    os_seam.allocate = allocate_nothing;
    for (int rc = KIST_OK; rc == KIST_OK; filler++) {
        if (home_of(f.bank, filler) == home_of(f.bank, key))
            rc = kist_put(f.bank, number(filler), number(1));
        must(rc == KIST_OK || rc == KIST_EFULL);
    }
    must_rc(kist_put(f.bank, number(key), number(1)), KIST_EFULL);
    must(behind_the_tail(f.bank) == 0);
    os_seam.allocate = os_real_allocate;
    must_be_at(f.bank, key, 0);
    must_be_at(f.bank, twin, FEW);
    put_version(f.bank, key, 1);
    must_be_at(f.bank, key, 1);
    must_verify(f.bank);
    fixture_close(&f);
}

/* False: the put makes fewer stores than `at`. */
static bool put_beside_twin_and_die(uint64_t at)
{
    struct fixture f = fixture_open();
    struct displacing d = { f.dir, 0 };
    uint64_t twin;
    int status;

    find_twins(f.bank, &d.key, &twin);
    put_version(f.bank, twin, 1);
    put_version(f.bank, d.key, 2);
    die_at = at;
    status = child_wait(child_start(put_and_die, &d));
    put_version(f.bank, CANDIDATES, 1); /* takes over */
    must(count_of(f.bank) == 3 && walked(f.bank) == 3);
    must_be_at(f.bank, twin, 1);
    must_verify(f.bank);
    put_version(f.bank, d.key, 3);
    must_be_at(f.bank, d.key, 3);
    must(count_of(f.bank) == 3 && walked(f.bank) == 3);
    fixture_close(&f);
    must(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSIGNALED(status);
}

TEST(a_writer_killed_in_a_put_that_met_another_key_leaves_the_counters_right)
{
    uint64_t at = 1;

    while (put_beside_twin_and_die(at))
        at++;
    must(at > 10);
}
