/*
 * C1: one flipped bit anywhere. A store of a thousand records, some
 * overwritten, some deleted; one bit of one of its files is flipped
 *
 *   closed   before it is opened (with its index marked clean)
 *   always   below an open handle that verifies at every read
 *   first    below an open handle, before the records in question were read (nor met by
 *            a search for another key, whose slot happens to look the same)
 *
 * and everything is read back. Each answer counts as
 *
 *   right    the newest value, or nothing where there is none
 *   error    a code below 0, of the get or of the opening
 *   missed   nothing, where there is a value
 *   stale    an older value of the same key
 *   wrong    bytes that were never stored under the key: never
 *
 * After kist_repair() every record whose own bytes were not touched must read
 * right. The cases run in children: a signal is a failure, a hang too.
 *
 * The bits: the first HEAD bytes of every file, each bit; then a stride over
 * the rest, so narrow as the count of cases allows.
 */
#include "image.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "bank/core.h"

enum { KEYS = 1000, HEAD = 128, CASES = 20000 };
enum how { CLOSED, ALWAYS, FIRST, HOWS };
enum answer { RIGHT, ERROR, MISSED, STALE, WRONG, ANSWERS };

static const char *const how_names[] = { "closed", "always", "first" };
static const char *const answer_names[] = { "right", "error", "missed", "stale", "wrong" };

/* Where the bytes of a key's newest record lie. */
struct extent {
    size_t file;
    uint64_t from, to;
};

struct tally {
    uint64_t answers[HOWS][ANSWERS];
    uint64_t after[ANSWERS]; /* repair, records not touched */
    uint64_t after_touched[ANSWERS];
    uint64_t unopened[HOWS], unrepaired;
    uint64_t printed;
};

static struct row row = { .id = "C1" };
static struct image *image;
static struct tally *tally;
static struct extent extents[KEYS];
static uint64_t head_cases, head_stride, rest_cases, rest_stride;

/* ---- the store -------------------------------------------------------- */

/* Keys whose eight bytes are found nowhere else. */
static uint64_t name_of(uint64_t key)
{
    return mix(key, 0xc1);
}

static uint64_t newest(uint64_t key)
{
    if (key % 20 == 7)
        return 0; /* deleted */
    return key % 5 == 2 ? 2 : 1;
}

static void put_version(kist_bank *bank, uint64_t key, uint64_t version)
{
    char buf[VALUE_CAP];
    uint64_t name = name_of(key);

    must_ok(kist_put(bank, number(name), (kist_bytes){ buf, value_make(buf, name, version) }));
}

static void make_store(const char *dir)
{
    kist_store *store = open_store(dir);
    kist_bank_options opt = { .size = sizeof opt,
                              .flags = KIST_BANK_CREATE,
                              .segment_bytes = 65536 };
    kist_bank *bank;

    must_ok(kist_bank_open(&bank, store, "c1", &opt));
    for (uint64_t key = 0; key < KEYS; key++)
        put_version(bank, key, 1);
    for (uint64_t key = 0; key < KEYS; key++) {
        if (newest(key) == 2)
            put_version(bank, key, 2);
        if (newest(key) == 0)
            must_ok(kist_delete(bank, number(name_of(key))));
    }
    must_ok(kist_bank_close(bank));
    must_ok(kist_store_close(store));
}

/* The record of (key, version) begins 40 bytes before its key, and ends with
 * its value; a tombstone's value is eight bytes. */
static bool find_record(uint64_t key, uint64_t version, struct extent *out)
{
    unsigned char value[VALUE_CAP + 8];
    uint64_t name = name_of(key);
    size_t len = 8;

    memcpy(value, &name, 8);
    if (version)
        len += value_make(value + 8, name, version);
    for (size_t i = 0; i < image->count; i++) {
        const struct image_file *f = &image->files[i];
        const unsigned char *at = f->bytes;
        while ((at = memmem(at, f->len - (size_t)(at - f->bytes), value, len)) != NULL) {
            uint64_t off = (uint64_t)(at - f->bytes);
            bool tombstone = memcmp(at + 8, &name, 8) != 0 && (off < 8 || memcmp(at - 8, &name, 8));
            if (version || tombstone) {
                *out = (struct extent){ i, off - 40, off + len + (version ? 0 : 8) };
                return true;
            }
            at++;
        }
    }
    return false;
}

static void find_all_records(void)
{
    for (uint64_t key = 0; key < KEYS; key++)
        must(find_record(key, newest(key), &extents[key]));
}

/* ---- which bit -------------------------------------------------------- */

static uint64_t head_bits(const struct image_file *f)
{
    return 8 * (f->len < HEAD ? f->len : HEAD);
}

/* The heads take three quarters of the cases at most; the rest is taken by the
 * widest stride that gives no fewer cases than are asked for. */
static void plan(uint64_t cases)
{
    uint64_t heads = 0, all = 8 * image_bytes(image);

    for (size_t i = 0; i < image->count; i++)
        heads += head_bits(&image->files[i]);
    head_stride = 1 + 4 * heads / (3 * cases + 1);
    head_cases = heads / head_stride;
    rest_stride = 1;
    if (cases > head_cases && all - heads > cases - head_cases)
        rest_stride = (all - heads) / (cases - head_cases);
    rest_cases = (all - heads) / rest_stride;
}

/* Case n: a bit of a file. */
static void bit_of(uint64_t n, size_t *file, uint64_t *bit)
{
    bool in_head = n < head_cases;
    uint64_t stride = in_head ? head_stride : rest_stride;
    uint64_t left = (in_head ? n : n - head_cases) * stride + mix(n, test_seed()) % stride;

    for (size_t i = 0; i < image->count; i++) {
        uint64_t head = head_bits(&image->files[i]);
        uint64_t here = in_head ? head : 8 * image->files[i].len - head;
        if (left < here) {
            *file = i;
            *bit = in_head ? left : head + left;
            return;
        }
        left -= here;
    }
    *file = 0, *bit = 0;
}

static bool touches(const struct extent *e, size_t file, uint64_t bit)
{
    return e->file == file && bit / 8 >= e->from && bit / 8 < e->to;
}

/* ---- reading back ----------------------------------------------------- */

static enum answer judge(int rc, kist_bytes value, uint64_t key)
{
    uint64_t version;

    if (rc < 0)
        return ERROR;
    if (rc == KIST_MISS)
        return newest(key) == 0 ? RIGHT : MISSED;
    if (!value_check(value, name_of(key), &version))
        return WRONG;
    if (version == newest(key))
        return RIGHT;
    return version == 1 ? STALE : WRONG;
}

static enum answer ask(kist_bank *bank, uint64_t key)
{
    kist_bytes value = { NULL, 0 };
    enum answer answer;

    must_ok(kist_read_begin());
    answer = judge(kist_get(bank, number(name_of(key)), &value), value, key);
    kist_read_end();
    return answer;
}

static void tell(const char *what, uint64_t key, size_t file, uint64_t bit)
{
    if (tally->printed++ < 20)
        printf("%s: key %" PRIu64 ", %s bit %" PRIu64 "\n", what, key, image->files[file].name,
               bit);
}

static bool seen[KEYS]; /* at `first`: this process has verified the key's record */

static void note_seen(const kist_bank *bank)
{
    struct core *c = atomic_load(&bank->bank->core);

    must_ok(kist_read_begin());
    for (uint64_t key = 0; key < KEYS; key++) {
        const struct extent *e = &extents[key];
        const char *name = strrchr(image->files[e->file].name, '/');
        struct segment *s = core_segment(c, segment_number(name ? name + 1 : ""));

        seen[key] = s && segment_seen(s, e->from);
    }
    kist_read_end();
}

static void read_keys(kist_bank *bank, enum how how, uint64_t first, uint64_t step, size_t file,
                      uint64_t bit)
{
    for (uint64_t key = first; key < KEYS; key += step) {
        enum answer answer;

        if (how == FIRST && seen[key])
            continue;
        answer = ask(bank, key);
        tally->answers[how][answer]++;
        if (answer == WRONG || answer == STALE)
            tell(answer_names[answer], key, file, bit);
    }
}

/* Entries of a walk must be right too, or an error. */
static void walk(kist_bank *bank, enum how how, size_t file, uint64_t bit)
{
    kist_iter *iter;
    kist_entry entry;
    uint64_t version, name;
    int rc;

    if (kist_iter_open(&iter, bank) != KIST_OK)
        return;
    for (int n = 0;; n++) {
        rc = kist_iter_next(iter, &entry);
        if (rc == KIST_END || (rc < 0 && rc != KIST_ECORRUPT))
            break;
        must(n < 4 * KEYS);
        if (rc == KIST_ECORRUPT)
            continue;
        memcpy(&name, entry.key.data, sizeof name);
        if (entry.key.len != sizeof name || !value_check(entry.value, name, &version)) {
            tally->answers[how][WRONG]++;
            tell("wrong in a walk", 0, file, bit);
        }
    }
    kist_iter_close(iter);
}

static int open_image(kist_store **store, kist_bank **bank, enum how how)
{
    kist_bank_options opt = { .size = sizeof opt,
                              .verify = how == ALWAYS ? KIST_VERIFY_ALWAYS : KIST_VERIFY_FIRST };
    int rc = kist_store_open(store, image->dir, NULL);

    *bank = NULL;
    return rc < 0 ? rc : kist_bank_open(bank, *store, "c1", &opt);
}

static void close_image(kist_store *store, kist_bank *bank)
{
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
}

static void read_damaged(enum how how, size_t file, uint64_t bit)
{
    kist_store *store;
    kist_bank *bank;

    if (how == CLOSED)
        image_flip(image, file, bit);
    if (open_image(&store, &bank, how) < 0) {
        tally->unopened[how]++;
        must(how == CLOSED);
        close_image(store, bank);
        return;
    }
    if (how != CLOSED) { /* at `first`, only the odd keys count */
        for (uint64_t key = 0; key < KEYS; key += how == FIRST ? 2 : 1)
            must(ask(bank, key) == RIGHT);
        note_seen(bank);
        image_flip(image, file, bit);
    }
    read_keys(bank, how, how == FIRST ? 1 : 0, how == FIRST ? 2 : 1, file, bit);
    if (how != FIRST)
        walk(bank, how, file, bit);
    close_image(store, bank);
}

static void count_after_repair(kist_bank *bank, size_t file, uint64_t bit)
{
    for (uint64_t key = 0; key < KEYS; key++) {
        enum answer answer = ask(bank, key);
        if (touches(&extents[key], file, bit)) {
            tally->after_touched[answer]++;
            continue;
        }
        tally->after[answer]++;
        if (answer != RIGHT)
            tell("not right after repair", key, file, bit);
    }
}

static void repair_and_read(size_t file, uint64_t bit)
{
    kist_store *store = NULL;
    kist_bank *bank = NULL;
    int rc = kist_store_open(&store, image->dir, NULL);

    if (rc == KIST_OK)
        rc = kist_repair(store, "c1", NULL, NULL, NULL);
    if (rc == KIST_OK)
        rc = kist_bank_open(&bank, store, "c1", NULL);
    if (rc == KIST_OK) {
        count_after_repair(bank, file, bit);
    } else {
        tally->unrepaired++;
        tell(kist_errname(rc), 0, file, bit);
    }
    close_image(store, bank);
}

/* ---- cases ------------------------------------------------------------ */

static void run_case(uint64_t n, void *arg)
{
    size_t file;
    uint64_t bit;

    (void)arg;
    bit_of(n, &file, &bit);
    image_restore(image);
    read_damaged((enum how)(mix(n, 3) % HOWS), file, bit);
    repair_and_read(file, bit);
}

static void case_died(uint64_t n, int status, void *arg)
{
    size_t file;
    uint64_t bit;

    (void)arg;
    bit_of(n, &file, &bit);
    row.failures++;
    printf("case %" PRIu64 " died with status %#x: %s bit %" PRIu64 ", %s\n", n, (unsigned)status,
           image->files[file].name, bit, how_names[mix(n, 3) % HOWS]);
}

static void print_line(const char *name, const uint64_t answers[ANSWERS])
{
    printf("%-22s", name);
    for (int a = 0; a < ANSWERS; a++)
        printf(" %s %" PRIu64, answer_names[a], answers[a]);
    printf("\n");
}

static void report(void)
{
    for (int how = 0; how < HOWS; how++) {
        print_line(how_names[how], tally->answers[how]);
        row.failures += tally->answers[how][WRONG];
    }
    print_line("after repair", tally->after);
    print_line("touched, after repair", tally->after_touched);
    printf("not opened %" PRIu64 ", not repaired %" PRIu64 ", signals and hangs %" PRIu64 "\n",
           tally->unopened[CLOSED], tally->unrepaired, row.failures);
    for (int a = 0; a < ANSWERS; a++)
        row.failures += a == RIGHT ? 0 : tally->after[a];
    row.failures += tally->after_touched[WRONG] + tally->unrepaired;
}

TEST(a_flipped_bit_gives_the_right_value_or_an_error_and_repair_saves_the_rest)
{
    struct batch batch = { run_case, case_died, NULL };
    char *dir = tmp_dir(TMP_FAST);

    tally = shared_memory(sizeof *tally);
    make_store(dir);
    image = image_take(dir);
    find_all_records();
    plan(test_scaled(CASES));
    batch_run(&batch, 0, head_cases + rest_cases);
    row.cases = row.states = head_cases + rest_cases;
    report();
    row_print(&row);
    must(row.failures == 0);
    image_free(image);
    free(dir);
}
