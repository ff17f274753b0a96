/* Segments' numbers: slots hold their lower 21 bits. */
#include "support.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bank/core.h"

enum { LEN = 2500, SEGMENT = 4096 }; /* one record fills a segment */

static void put_alone(kist_bank *bank, uint64_t version)
{
    char buf[LEN];

    value_fill(buf, LEN, 1, version);
    must_ok(kist_put(bank, number(1), (kist_bytes){ buf, LEN }));
}

/* By the short way of a get, and by the other one. */
static uint64_t version_in(kist_bank *bank)
{
    uint64_t version, viewed;
    kist_bytes value;
    kist_view *view;

    must_ok(kist_read_begin());
    must_ok(kist_get(bank, number(1), &value));
    must(value_check(value, 1, &version));
    kist_read_end();
    must_ok(kist_get_view(bank, number(1), &view));
    must(value_check(kist_view_bytes(view), 1, &viewed) && viewed == version);
    kist_view_release(view);
    return version;
}

static struct live *map_live(const char *store)
{
    char *path = path_join(store, "bank/kist.live");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *map = mmap(NULL, LIVE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    must(fd >= 0 && map != MAP_FAILED);
    (void)close(fd);
    free(path);
    return map;
}

/*
 * A process read a key long ago, and keeps the map of its segment. Since then
 * two million segments came and went (the test sets the number that is given
 * next), and the key's record stands where the old one stood, in the segment
 * whose number has the same lower bits. The old one still verifies.
 */
TEST(an_old_map_is_no_answer_when_segment_numbers_come_round)
{
    kist_bank_options opt = { .size = sizeof opt, .segment_bytes = SEGMENT };
    struct fixture f = fixture_open_with(&opt);
    kist_store *store = open_store(f.dir); /* with maps of its own */
    kist_bank *reader;
    struct live *live = map_live(f.dir);
    uint64_t first, round = UINT64_C(1) << LOC_N_BITS, version = 1;

    opt.flags = KIST_BANK_READONLY;
    must_ok(kist_bank_open(&reader, store, "bank", &opt));
    put_alone(f.bank, version);
    first = shm_peek(&live->newest);
    must(version_in(reader) == version);
    for (uint64_t n = round / 4; n < round; n += round / 4) {
        shm_store(&live->numbered, n - 1);
        put_alone(f.bank, ++version);
        must(shm_peek(&live->newest) == n);
        must_ok(kist_compact(f.bank, NULL, NULL));
    }
    shm_store(&live->numbered, first + round - 1);
    put_alone(f.bank, ++version);
    must(shm_peek(&live->newest) == first + round);
    must(version_in(f.bank) == version);
    must(version_in(reader) == version);
    (void)munmap(live, LIVE_BYTES);
    must_ok(kist_bank_close(reader));
    must_ok(kist_store_close(store));
    fixture_close(&f);
}
