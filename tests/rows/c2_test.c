/*
 * C2: whole files gone wrong. Every file of a store is cut at many lengths,
 * zeroed in part or in full, filled with noise, exchanged with another, taken
 * from an older copy of the same store, lengthened, or removed, one file or
 * several at a time. The store is opened, read, walked, written, verified and
 * repaired: never a signal, a hang, or bytes that were not stored under their
 * key; and what a repair says it has mended works.
 */
#include "image.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* WALK_MOST: entries that a walk over KEYS may give, errors included. */
enum { KEYS = 300, AGES = 4, CASES = 5000, WALK_MOST = 4 * KEYS };

/* What is done to a file. */
enum damage {
    CUT,      /* a shorter file */
    CUT_PAGE, /* ... at the edge of a page or just beside it */
    LONGER,   /* zeros at the end */
    ZEROED,   /* a stretch */
    ALL_ZERO,
    NOISE,   /* a stretch */
    SWAPPED, /* with another file of the store */
    STALE,   /* as it was at an earlier age */
    REMOVED,
    EMPTY,
    DAMAGES
};

static const char *const damage_names[] = { "cut",      "cut at a page", "longer",  "zeroed",
                                            "all zero", "noise",         "swapped", "stale",
                                            "removed",  "empty" };

struct tally {
    uint64_t opened, refused, repaired, not_repaired, right, stale, error, missed, wrong;
    uint64_t printed, by_damage[DAMAGES];
};

static struct row row = { .id = "C2" };
static struct image *ages[AGES]; /* of one store; the last is the newest */
static struct tally *tally;

/* ---- a store at four ages --------------------------------------------- */

static uint64_t version_at(uint64_t key, uint64_t age)
{
    if (mix(key, age) % 4 == 0)
        return 0;
    return mix(key, age + 100) % 3 == 0 && age > 0 ? version_at(key, age - 1) : age + 1;
}

static void bring_to(kist_bank *bank, uint64_t age)
{
    char buf[VALUE_CAP];

    for (uint64_t key = 0; key < KEYS; key++) {
        uint64_t version = version_at(key, age);
        int rc = KIST_OK;
        if (version == age + 1)
            rc = kist_put(bank, number(key), (kist_bytes){ buf, value_make(buf, key, version) });
        if (version == 0)
            rc = kist_delete(bank, number(key));
        must(rc == KIST_OK || rc == KIST_MISS);
    }
}

static void make_ages(void)
{
    char *dir = tmp_dir(TMP_FAST);
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .segment_bytes = 8192 };

    for (uint64_t age = 0; age < AGES; age++) {
        kist_store *store = open_store(dir);
        kist_bank *bank;
        must_ok(kist_bank_open(&bank, store, "c2", &opt));
        bring_to(bank, age);
        if (age == 2)
            must_ok(kist_compact(bank, NULL, NULL));
        must_ok(kist_bank_close(bank));
        must_ok(kist_store_close(store));
        ages[age] = image_take(dir);
    }
    free(dir);
}

/* ---- damage ----------------------------------------------------------- */

static const struct image *now(void)
{
    return ages[AGES - 1];
}

static void set_file(size_t file, const unsigned char *bytes, size_t len)
{
    image_write(now(), file, bytes, len);
}

static void stretch(struct rng *rng, unsigned char *bytes, size_t len, bool noise)
{
    size_t from = len ? rng_below(rng, len) : 0, n = 1 + rng_below(rng, 4096);

    if (rng_below(rng, 2) == 0) /* whole sectors, as a disk loses them */
        from = from / 512 * 512, n = (n + 511) / 512 * 512;
    for (size_t at = from; at < len && at < from + n; at++)
        bytes[at] = noise ? (unsigned char)rng_next(rng) : 0;
}

static void swap_files(size_t a, size_t b)
{
    const struct image_file *f = now()->files;

    set_file(a, f[b].bytes, f[b].len);
    set_file(b, f[a].bytes, f[a].len);
}

static void make_stale(size_t file, const struct image *old)
{
    const char *name = now()->files[file].name;

    for (size_t i = 0; i < old->count; i++)
        if (strcmp(old->files[i].name, name) == 0)
            set_file(file, old->files[i].bytes, old->files[i].len);
}

static void remove_file(size_t file)
{
    char *path = path_join(now()->dir, now()->files[file].name);

    must(unlink(path) == 0);
    free(path);
}

static size_t page_length(struct rng *rng, size_t len)
{
    size_t page = rng_below(rng, len / 4096 + 1) * 4096, side = rng_below(rng, 3);

    return side == 0 && page > 0 ? page - 1 : side == 1 ? page + 1 : page;
}

static void damage_bytes(enum damage damage, size_t file, struct rng *rng)
{
    const struct image_file *f = &now()->files[file];
    size_t room = f->len + 65536, len = f->len;
    unsigned char *bytes = calloc(1, room);

    must(bytes != NULL);
    memcpy(bytes, f->bytes, f->len);
    if (damage == CUT)
        len = f->len ? rng_below(rng, f->len) : 0;
    if (damage == CUT_PAGE)
        len = page_length(rng, f->len);
    if (damage == LONGER)
        len += 1 + rng_below(rng, 65535);
    if (damage == ZEROED || damage == NOISE)
        stretch(rng, bytes, len, damage == NOISE);
    if (damage == ALL_ZERO)
        memset(bytes, 0, len);
    if (damage == EMPTY)
        len = 0;
    set_file(file, bytes, len);
    free(bytes);
}

static void damage_once(struct rng *rng)
{
    enum damage damage = (enum damage)rng_below(rng, DAMAGES);
    size_t file = rng_below(rng, now()->count);

    tally->by_damage[damage]++;
    if (damage == SWAPPED)
        swap_files(file, rng_below(rng, now()->count));
    else if (damage == STALE)
        make_stale(file, ages[rng_below(rng, AGES - 1)]);
    else if (damage == REMOVED)
        remove_file(file);
    else
        damage_bytes(damage, file, rng);
}

/* ---- what the library makes of it ------------------------------------- */

static void tell(const char *what, uint64_t key)
{
    if (tally->printed++ < 20)
        printf("case %" PRIu64 ", key %" PRIu64 ": %s\n", test_case, key, what);
}

/* Any version that the key ever had is no lie; which one is told apart. */
static void judge(int rc, kist_bytes value, uint64_t key)
{
    uint64_t version = 0, want = version_at(key, AGES - 1);

    if (rc < 0) {
        tally->error++;
    } else if (rc == KIST_MISS) {
        tally->right += want == 0;
        tally->missed += want != 0;
    } else if (!value_check(value, key, &version) || version > AGES) {
        tally->wrong++;
        tell("wrong bytes", key);
    } else {
        tally->right += version == want;
        tally->stale += version != want;
    }
}

static void read_all(kist_bank *bank)
{
    for (uint64_t key = 0; key < KEYS; key++) {
        kist_bytes value = { NULL, 0 };
        must_ok(kist_read_begin());
        judge(kist_get(bank, number(key), &value), value, key);
        kist_read_end();
    }
}

static void walk_all(kist_bank *bank)
{
    kist_iter *iter;
    kist_entry entry;
    uint64_t key, version;

    if (kist_iter_open(&iter, bank) != KIST_OK)
        return;
    for (int n = 0;; n++) {
        int rc = kist_iter_next(iter, &entry);
        if (rc == KIST_END || (rc < 0 && rc != KIST_ECORRUPT))
            break;
        must(n < WALK_MOST);
        if (rc == KIST_ECORRUPT)
            continue;
        memcpy(&key, entry.key.data, sizeof key);
        if (entry.key.len != sizeof key || !value_check(entry.value, key, &version)) {
            tally->wrong++;
            tell("wrong bytes in a walk", key);
        }
    }
    kist_iter_close(iter);
}

/* Results do not matter here: dying does. */
static void use_all(kist_bank *bank)
{
    kist_report report = { .size = sizeof report };
    kist_stats stats = { .size = sizeof stats };

    (void)!kist_put(bank, number(KEYS), text("new"));
    (void)!kist_delete(bank, number(1));
    (void)!kist_stat(bank, &stats);
    (void)!kist_verify(bank, &report, NULL, NULL);
    (void)!kist_compact(bank, NULL, NULL);
    (void)!kist_sync(bank);
}

static void open_and_use(uint32_t flags, bool write)
{
    kist_store_options opt = { .size = sizeof opt, .flags = flags };
    kist_store *store = NULL;
    kist_bank *bank = NULL;
    int rc = kist_store_open(&store, now()->dir, &opt);

    if (rc == KIST_OK)
        rc = kist_bank_open(&bank, store, "c2", NULL);
    tally->opened += rc == KIST_OK;
    tally->refused += rc != KIST_OK;
    if (rc == KIST_OK) {
        read_all(bank);
        walk_all(bank);
        if (write)
            use_all(bank);
    }
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
}

/* After a repair that says OK everything works. */
static void repair_and_use(void)
{
    kist_store *store = NULL;
    kist_bank *bank = NULL;
    int rc = kist_store_open(&store, now()->dir, NULL);

    if (rc == KIST_OK)
        rc = kist_repair(store, "c2", NULL, NULL, NULL);
    tally->repaired += rc == KIST_OK;
    tally->not_repaired += rc != KIST_OK;
    if (rc == KIST_OK) {
        must_ok(kist_bank_open(&bank, store, "c2", NULL));
        read_all(bank);
        for (uint64_t key = 1000; key < 1050; key++)
            must_ok(kist_put(bank, number(key), number(key)));
        must_ok(kist_bank_close(bank));
        must_ok(kist_bank_open(&bank, store, "c2", NULL));
        for (uint64_t key = 1000; key < 1050; key++) {
            uint64_t got;
            size_t len;
            must_ok(kist_get_copy(bank, number(key), &got, sizeof got, &len));
            must(got == key);
        }
        must_ok(kist_bank_close(bank));
    }
    (void)kist_store_close(store);
}

static void run_case(uint64_t n, void *arg)
{
    struct rng rng = { mix(test_seed(), n) };

    (void)arg;
    test_case = n + 1;
    image_restore(now());
    do
        damage_once(&rng);
    while (rng_below(&rng, 4) == 0);
    if (n % 2 == 0)
        open_and_use(KIST_STORE_READONLY, false);
    if (n % 3 != 0)
        open_and_use(0, true);
    repair_and_use();
}

static void case_died(uint64_t n, int status, void *arg)
{
    (void)arg;
    row.failures++;
    printf("case %" PRIu64 " died with status %#x\n", n + 1, (unsigned)status);
}

static void report(void)
{
    printf("opened %" PRIu64 ", refused %" PRIu64 ", repaired %" PRIu64 ", not repaired %" PRIu64
           "\n",
           tally->opened, tally->refused, tally->repaired, tally->not_repaired);
    printf("right %" PRIu64 " error %" PRIu64 " missed %" PRIu64 " stale %" PRIu64 " wrong %" PRIu64
           "\n",
           tally->right, tally->error, tally->missed, tally->stale, tally->wrong);
    for (int i = 0; i < DAMAGES; i++)
        printf("%s %" PRIu64 "%s", damage_names[i], tally->by_damage[i],
               i == DAMAGES - 1 ? "\n" : ", ");
    row.failures += tally->wrong;
}

TEST(files_cut_swapped_stale_zeroed_or_missing_never_kill_and_never_lie)
{
    struct batch batch = { run_case, case_died, NULL };
    uint64_t cases = test_scaled(CASES);

    tally = shared_memory(sizeof *tally);
    make_ages();
    batch_run(&batch, 0, cases);
    row.cases = row.states = cases;
    report();
    row_print(&row);
    must(row.failures == 0);
    for (int i = 0; i < AGES; i++)
        image_free(ages[i]);
}
