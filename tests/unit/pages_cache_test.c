/* What is cached, who goes, what is counted; and devices that break their word. */
#include "paged.h"
#include "support.h"

#include <errno.h>

enum { PAGE = 64, ROOM = 1 << 20 };

static uint8_t byte_at(kist_pages *p, uint64_t addr)
{
    uint8_t v = 0;

    must_ok(kist_pages_get_u8(p, addr, &v));
    return v;
}

TEST(options_out_of_their_range_are_refused)
{
    static const kist_pages_options bad[] = {
        { .page_bytes = 3 },
        { .page_bytes = 4095 },
        { .page_bytes = UINT32_C(1) << 31 },
        { .cache_pages = 1000 },
        { .cache_pages = UINT32_C(1) << 25 },
        { .page_bytes = 1 << 30, .cache_pages = 1 << 11 },
        { .flags = 2 },
        { .reserved = 1 },
        { .cache_pages = 16, .ahead_pages = 9 },
        { .page_bytes = 1 << 30, .cache_pages = 4, .ahead_pages = 1 },
    };
    struct paged d;
    kist_device device;
    kist_pages *p = (kist_pages *)&d;

    paged_init(&d, 100, 100, PAGE, 1);
    device = paged_device(&d, PAGED_COPY);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kist_pages_options opt = bad[i];

        must_rc(kist_pages_open(&p, &device, &opt), KIST_EINVAL); /* no size */
        opt.size = sizeof opt;
        must_rc(kist_pages_open(&p, &device, &opt), KIST_EINVAL);
        must(p == NULL && kist_last_error()->what[0] != '\0');
    }
    must_rc(kist_pages_open(&p, NULL, NULL), KIST_EINVAL);
    device.lend = paged_device(&d, PAGED_LEND).lend;
    must_rc(kist_pages_open(&p, &device, NULL), KIST_EINVAL);
    device.lend = NULL;
    device.size = 0;
    must_rc(kist_pages_open(&p, &device, NULL), KIST_EINVAL);
    paged_free(&d);
}

TEST(defaults_are_1024_pages_of_4096_bytes)
{
    struct paged d;
    kist_device device;
    kist_pages *p;

    paged_init(&d, 100, 100, 4096, 1);
    device = paged_device(&d, PAGED_COPY);
    must_ok(kist_pages_open(&p, &device, NULL));
    must(kist_pages_page_bytes(p) == 4096 && kist_pages_device(p)->arg == &d);
    must(byte_at(p, 99) == d.bytes[99]);
    kist_pages_close(p);
    kist_pages_close(NULL);
    paged_free(&d);
}

/* Also where the quick way of the inline functions takes the hit. */
TEST(hits_and_misses_are_counted_one_by_one)
{
    for (uint32_t flags = 0; flags <= KIST_PAGES_THREADS; flags++) {
        struct paged d;
        kist_pages *p, *copy;
        kist_pages_stats s;

        paged_init(&d, 10 * PAGE, ROOM, PAGE, 1);
        p = paged_open(&d, PAGED_COPY, 16, flags);
        for (int round = 0; round < 5; round++)
            for (uint64_t page = 0; page < 10; page++)
                (void)byte_at(p, page * PAGE + page);
        s = paged_stats(p);
        must(s.misses == 10 && s.hits == 40 && s.calls == 10 && d.maps == 10);
        must(s.resident == 10 && s.pinned == 0 && s.evictions == 0);
        must(byte_at(p, 1) == d.bytes[1] && paged_stats(p).hits == 41);
        must(kist_pages_is_cached(p, 9 * PAGE) && !kist_pages_is_cached(p, 10 * PAGE));
        must(paged_stats(p).hits == 41);

        must_ok(kist_pages_copy(&copy, p));
        s = paged_stats(copy);
        must(s.hits == 0 && s.misses == 0 && s.resident == 0);
        must(byte_at(copy, 0) == d.bytes[0] && d.maps == 11);
        kist_pages_close(copy);
        kist_pages_close(p);
        paged_free(&d);
    }
}

TEST(invalidation_forgets_the_pages_of_the_range_and_no_other)
{
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++)
        for (uint64_t from = 0; from < 6 * PAGE; from += 13)
            for (uint64_t len = 0; from + len <= 6 * PAGE; len += 17) {
                struct paged d;
                kist_pages *p;

                paged_init(&d, 6 * PAGE, ROOM, PAGE, 1);
                p = paged_open(&d, (enum paged_kind)kind, 16, 0);
                for (uint64_t page = 0; page < 6; page++)
                    (void)byte_at(p, page * PAGE);
                for (uint64_t i = 0; i < d.len; i++)
                    d.bytes[i] = (unsigned char)~d.bytes[i];
                kist_pages_invalidate(p, from, len);
                for (uint64_t page = 0; page < 6; page++) {
                    bool gone = len > 0 && page >= from / PAGE && page <= (from + len - 1) / PAGE;

                    must(kist_pages_is_cached(p, page * PAGE) == !gone);
                    must(byte_at(p, page * PAGE + 5) ==
                         (unsigned char)(gone ? d.bytes[page * PAGE + 5]
                                              : ~d.bytes[page * PAGE + 5]));
                }
                kist_pages_close(p);
                paged_free(&d);
            }
}

TEST(a_large_invalidation_forgets_everything_behind_its_beginning)
{
    struct paged d;
    kist_pages *p;

    paged_init(&d, 500 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_LEND, 512, 0);
    for (uint64_t page = 0; page < 500; page++)
        (void)byte_at(p, page * PAGE);
    kist_pages_invalidate(p, 100 * PAGE + 1, UINT64_MAX);
    for (uint64_t page = 0; page < 500; page++)
        must(kist_pages_is_cached(p, page * PAGE) == (page < 100));
    must(d.lent == 100);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(a_device_no_larger_than_the_cache_is_fetched_once)
{
    struct paged d;
    kist_pages *p;

    for (uint32_t cache = 1; cache <= 1024; cache *= 4) {
        paged_init(&d, (uint64_t)cache * PAGE, ROOM, PAGE, 1);
        p = paged_open(&d, PAGED_COPY, cache, 0);
        for (int round = 0; round < 3; round++)
            for (uint64_t page = 0; page < cache; page++)
                must(byte_at(p, page * PAGE) == d.bytes[page * PAGE]);
        must(d.maps == cache && paged_stats(p).evictions == 0);
        kist_pages_close(p);
        paged_free(&d);
    }
}

/* Pages at any distance, as many as fit: none throws another out. */
TEST(pages_at_any_distance_stay_beside_one_another)
{
    static const uint64_t strides[] = { 2, 7, 64, 100, 127, 128, 129, 1000, 1023, 1024, 4096 };

    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++) {
        struct paged d;
        kist_pages *p;

        paged_init(&d, 256 * strides[i], 256 * 4096 + 1, 1, 1);
        p = paged_open(&d, PAGED_COPY, 256, 0);
        for (int round = 0; round < 2; round++)
            for (uint64_t n = 0; n < 256; n++)
                (void)byte_at(p, n * strides[i]);
        must(d.maps == 256);
        kist_pages_close(p);
        paged_free(&d);
    }
}

/* A page that is used now and again survives a run over many others. */
TEST(what_is_used_survives_a_scan)
{
    struct paged d;
    kist_pages *p;
    uint64_t before;

    paged_init(&d, 4096 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 64, 0);
    for (uint64_t page = 100; page < 4096; page++) {
        (void)byte_at(p, page * PAGE);
        (void)byte_at(p, page % 4 * PAGE);
    }
    before = d.maps;
    for (uint64_t page = 0; page < 4; page++)
        (void)byte_at(p, page * PAGE);
    must(d.maps - before <= 1);
    must(before <= 3996 + 40); /* and it was there nearly always */
    kist_pages_close(p);
    paged_free(&d);
}

/* A loop over one and a half times what fits: most of it hits nevertheless. */
TEST(a_loop_over_more_than_fits_still_hits)
{
    struct paged d;
    kist_pages *p;
    kist_pages_stats s;

    paged_init(&d, 1536 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 1024, 0);
    for (int round = 0; round < 50; round++)
        for (uint64_t page = 0; page < 1536; page++)
            (void)byte_at(p, page * PAGE);
    s = paged_stats(p);
    must(s.hits * 100 > (s.hits + s.misses) * 40);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(an_error_of_the_device_comes_back_as_it_is)
{
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
        struct paged d;
        kist_pages *p;
        uint8_t v = 7;
        kist_slice slice = { 0 };

        paged_init(&d, 10 * PAGE, ROOM, PAGE, 1);
        p = paged_open(&d, (enum paged_kind)kind, 4, 0);
        for (uint64_t n = 1; n < 20; n++) {
            d.maps = 0;
            d.map_fails_at = 1;
            kist_pages_invalidate(p, 0, UINT64_MAX);
            must_rc(kist_pages_get_u8(p, n * 3, &v), PAGED_FAILS);
            must(v == 7 && kist_last_error()->offset == n * 3 / PAGE * PAGE);
            d.maps = 0;
            must_rc(kist_pages_load(p, n * 3, 1, &slice), PAGED_FAILS);
            d.maps = 0;
            must_rc(kist_pages_view(p, n, 3 * PAGE, &slice), PAGED_FAILS);
            must(slice.hold == NULL && paged_stats(p).resident == 0);
            must(byte_at(p, n * 3) == d.bytes[n * 3]); /* the second call does not fail */
        }
        kist_pages_close(p);
        paged_free(&d);
    }
}

static void gives_back(void *arg, uint64_t pos, const void *data)
{
    (void)pos, (void)data;
    ++*(int *)arg;
}

static int64_t copies(void *arg, uint64_t pos, void *buf, size_t len)
{
    (void)arg, (void)pos;
    memset(buf, 1, len);
    return (int64_t)len;
}

TEST(what_was_copied_is_not_given_back)
{
    int given = 0;
    kist_device device = {
        .size = sizeof device, .arg = &given, .map = copies, .give_back = gives_back
    };
    kist_slice s = { 0 };
    kist_pages *p;

    must_ok(kist_pages_open(&p, &device, NULL));
    must_ok(kist_pages_load(p, 0, 1, &s));
    kist_slice_release(p, &s);
    must_ok(kist_pages_view(p, 100, 10000, &s));
    kist_slice_release(p, &s);
    kist_pages_close(p);
    must(given == 0);
}

TEST(more_than_asked_for_and_misaligned_memory_are_the_devices_fault)
{
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
        struct paged d;
        kist_pages *p;
        kist_slice slice = { 0 };
        uint64_t v = 0;

        paged_init(&d, 4 * PAGE, ROOM, PAGE, 1);
        p = paged_open(&d, (enum paged_kind)kind, 4, 0);
        d.too_much = 1;
        must_rc(kist_pages_get_u64_le(p, PAGE, &v), KIST_EDEVICE);
        must(kist_last_error()->offset == PAGE);
        must_rc(kist_pages_view(p, 0, 2 * PAGE, &slice), KIST_EDEVICE);
        d.too_much = 0;
        d.misaligned = 8;
        if (kind == PAGED_LEND) {
            must_rc(kist_pages_get_u64_le(p, 0, &v), KIST_EDEVICE);
            must_rc(kist_pages_view(p, 0, 2 * PAGE, &slice), KIST_EDEVICE);
        }
        d.misaligned = 0;
        must_ok(kist_pages_get_u64_le(p, PAGE, &v));
        must(memcmp(&v, d.bytes + PAGE, 8) == 0);
        kist_pages_close(p);
        paged_free(&d);
    }
}

/* Cached bytes stay; what is fetched afterwards knows of the new end. */
TEST(a_device_that_shrinks_is_shorter_from_the_next_fetch_on)
{
    struct paged d;
    kist_pages *p;
    uint32_t v = 0;

    paged_init(&d, 3 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_COPY, 4, 0);
    must_ok(kist_pages_get_u32_le(p, PAGE + 20, &v));
    d.len = PAGE + 10;
    must_ok(kist_pages_get_u32_le(p, PAGE + 20, &v));
    must_rc(kist_pages_get_u32_le(p, 2 * PAGE, &v), KIST_EBOUNDS);
    kist_pages_invalidate(p, PAGE, 1);
    must_rc(kist_pages_get_u32_le(p, PAGE + 20, &v), KIST_EBOUNDS);
    must_rc(kist_pages_get_u32_le(p, PAGE + 7, &v), KIST_EBOUNDS);
    must_ok(kist_pages_get_u32_le(p, PAGE + 6, &v));
    kist_pages_close(p);
    paged_free(&d);
}

TEST(a_view_of_everything_takes_memory_for_what_is_there)
{
    struct paged d;
    kist_device device;
    kist_pages *p;
    kist_slice slice = { 0 };
    kist_pages_options opt = { .size = sizeof opt, .page_bytes = PAGE, .cache_pages = 4 };

    paged_init(&d, 3 * PAGE + 5, ROOM, PAGE, 1);
    device = paged_device(&d, PAGED_COPY);
    must_ok(kist_pages_open(&p, &device, &opt));
    must_ok(kist_pages_view(p, 7, SIZE_MAX, &slice));
    must(slice.bytes.len == d.len - 7 && memcmp(slice.bytes.data, d.bytes + 7, d.len - 7) == 0);
    kist_slice_release(p, &slice);
    must_rc(kist_pages_view(p, d.len, 1 << 21, &slice), KIST_END);
    kist_pages_close(p);

    device.length = NULL; /* nobody tells how much there is */
    must_ok(kist_pages_open(&p, &device, &opt));
    must_rc(kist_pages_view(p, 0, (size_t)1 << 40, &slice), KIST_ENOMEM);
    must_rc(kist_pages_view(p, 0, SIZE_MAX, &slice), KIST_ENOMEM);
    kist_pages_close(p);
    paged_free(&d);
}
