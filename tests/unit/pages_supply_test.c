/* Pages that are handed in, by an event loop; and pages read ahead. */
#include "paged.h"
#include "support.h"

enum { PAGE = 64, ROOM = 1 << 20, GAPS = 8 };

static void supply(kist_pages *p, const struct paged *d, const kist_pages_gap *gap, int want)
{
    uint64_t end = gap->addr + gap->len < d->len ? gap->addr + gap->len : d->len;
    uint64_t n = gap->addr < end ? end - gap->addr : 0;

    must_rc(kist_pages_supply(p, gap->addr, d->bytes + gap->addr, n, gap->ticket), want);
}

/* As an event loop does it; returns how many times it asked. */
static int fetch(kist_pages *p, const struct paged *d, uint64_t addr, uint64_t len)
{
    kist_pages_gap gaps[GAPS];
    size_t n;

    for (int asked = 1;; asked++) {
        must_ok(kist_pages_missing(p, addr, len, gaps, GAPS, &n));
        if (n == 0)
            return asked;
        must(asked < 100);
        for (size_t i = 0; i < n; i++)
            supply(p, d, &gaps[i], KIST_OK);
    }
}

TEST(a_page_that_is_not_there_is_told_and_nothing_changes)
{
    struct paged d;
    kist_pages *p;
    kist_slice s = { 0 };
    uint32_t v = 5;
    char buf[20] = "unchanged";
    size_t len;

    paged_init(&d, 4 * PAGE + 9, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_NEITHER, 16, 0);
    must_rc(kist_pages_get_u32_le(p, 10, &v), KIST_ABSENT);
    must_rc(kist_pages_read(p, 10, buf, sizeof buf), KIST_ABSENT);
    must_rc(kist_pages_read_string(p, 10, buf, sizeof buf, &len), KIST_ABSENT);
    must_rc(kist_pages_load(p, 10, 1, &s), KIST_ABSENT);
    must_rc(kist_pages_view(p, 10, 1, &s), KIST_ABSENT);
    must_rc(kist_pages_view(p, 10, PAGE, &s), KIST_EINVAL);
    must(v == 5 && strcmp(buf, "unchanged") == 0 && s.hold == NULL);
    must(fetch(p, &d, 10, 4) == 2);
    must_ok(kist_pages_get_u32_le(p, 10, &v));
    must(memcmp(&v, d.bytes + 10, 4) == 0);
    must_rc(kist_pages_get_u32_le(p, PAGE - 2, &v), KIST_ABSENT);
    (void)fetch(p, &d, PAGE - 2, 4);
    must_ok(kist_pages_get_u32_le(p, PAGE - 2, &v));
    must(memcmp(&v, d.bytes + PAGE - 2, 4) == 0);

    /* Where it ends is learned from a page that is short, or empty. */
    (void)fetch(p, &d, 4 * PAGE, 3 * PAGE);
    must_rc(kist_pages_get_u32_le(p, d.len - 3, &v), KIST_EBOUNDS);
    must_rc(kist_pages_get_u32_le(p, 5 * PAGE, &v), KIST_EBOUNDS);
    must_rc(kist_pages_load(p, 5 * PAGE, 1, &s), KIST_END);
    must_ok(kist_pages_get_u32_le(p, d.len - 4, &v));
    must(d.maps == 0);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(missing_pages_are_told_in_gaps)
{
    struct paged d;
    kist_pages *p;
    kist_pages_gap gaps[GAPS];
    size_t n;

    paged_init(&d, 40 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_NEITHER, 64, 0);
    (void)fetch(p, &d, 3 * PAGE, 1);
    (void)fetch(p, &d, 7 * PAGE, 2 * PAGE);
    must_ok(kist_pages_missing(p, PAGE + 5, 10 * PAGE, gaps, GAPS, &n));
    must(n == 3);
    must(gaps[0].addr == PAGE && gaps[0].len == 2 * PAGE);
    must(gaps[1].addr == 4 * PAGE && gaps[1].len == 3 * PAGE);
    must(gaps[2].addr == 9 * PAGE && gaps[2].len == 3 * PAGE);
    must_ok(kist_pages_missing(p, PAGE + 5, 10 * PAGE, gaps, 2, &n));
    must(n == 2 && gaps[1].len == 3 * PAGE);
    must_ok(kist_pages_missing(p, PAGE + 5, 10 * PAGE, gaps, 0, &n));
    must(n == 0);
    must_ok(kist_pages_missing(p, PAGE + 5, 0, gaps, GAPS, &n));
    must(n == 0);
    must_rc(kist_pages_missing(p, UINT64_MAX, 2, gaps, GAPS, &n), KIST_EBOUNDS);
    kist_pages_close(p);
    paged_free(&d);
}

/* A full cache of other pages; a range of an eighth of it at any place. */
TEST(a_range_of_an_eighth_of_the_cache_is_there_after_asking_twice)
{
    struct rng rng = { test_seed() };
    struct paged d;
    kist_pages *p;

    paged_init(&d, 5000 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_NEITHER, 256, 0);
    for (uint64_t n = test_scaled(2000); n > 0; n--) {
        uint64_t page = rng_below(&rng, 4900);

        must(fetch(p, &d, page * PAGE, 32 * PAGE) <= 3); /* the third finds nothing missing */
    }
    kist_pages_close(p);
    paged_free(&d);
}

TEST(what_was_fetched_before_an_invalidation_is_not_taken_after_it)
{
    struct paged d;
    kist_pages *p;
    kist_pages_gap gaps[GAPS];
    size_t n;
    uint8_t v = 0;

    paged_init(&d, 200 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_NEITHER, 64, 0);
    must_ok(kist_pages_missing(p, 0, PAGE, gaps, GAPS, &n));
    kist_pages_invalidate(p, 0, 1);
    supply(p, &d, &gaps[0], KIST_CHANGED);
    must(!kist_pages_is_cached(p, 0));
    must_ok(kist_pages_missing(p, 0, PAGE, gaps, GAPS, &n));
    kist_pages_invalidate(p, PAGE, PAGE); /* another page, another set */
    supply(p, &d, &gaps[0], KIST_OK);
    must_ok(kist_pages_missing(p, PAGE, PAGE, gaps, GAPS, &n));
    kist_pages_invalidate(p, 0, UINT64_MAX);
    supply(p, &d, &gaps[0], KIST_CHANGED);

    /* A page that is there stays: somebody was faster. */
    (void)fetch(p, &d, 0, 1);
    must_ok(kist_pages_get_u8(p, 3, &v));
    d.bytes[3] ^= 1;
    must_ok(kist_pages_supply(p, 0, d.bytes, PAGE, UINT64_MAX));
    must(v == (d.bytes[3] ^ 1));
    must_ok(kist_pages_get_u8(p, 3, &v));
    must(v == (d.bytes[3] ^ 1));
    kist_pages_close(p);
    paged_free(&d);
}

TEST(a_supply_that_cannot_be_is_refused)
{
    struct paged d;
    kist_pages *p;
    kist_slice s[8] = { { 0 } };

    paged_init(&d, 20 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_LEND, 8, 0);
    must_rc(kist_pages_supply(p, 0, d.bytes, PAGE, UINT64_MAX), KIST_EINVAL);
    kist_pages_close(p);
    p = paged_open(&d, PAGED_NEITHER, 8, 0);
    must_rc(kist_pages_supply(p, 1, d.bytes, PAGE, UINT64_MAX), KIST_EINVAL);
    must_rc(kist_pages_supply(p, UINT64_C(1) << 63, d.bytes, PAGE, UINT64_MAX), KIST_EBOUNDS);
    for (uint64_t i = 0; i < 8; i++) {
        (void)fetch(p, &d, i * PAGE, 1);
        must_ok(kist_pages_load(p, i * PAGE, 1, &s[i]));
    }
    must_rc(kist_pages_supply(p, 9 * PAGE, d.bytes, PAGE, UINT64_MAX), KIST_EBUSY);
    for (uint64_t i = 0; i < 8; i++)
        kist_slice_release(p, &s[i]);
    must_ok(kist_pages_supply(p, 9 * PAGE, d.bytes, PAGE, UINT64_MAX));
    kist_pages_close(p);
    paged_free(&d);
}

static kist_pages *open_ahead(struct paged *d, enum paged_kind kind, uint32_t ahead)
{
    kist_pages_options opt = {
        .size = sizeof opt, .page_bytes = PAGE, .cache_pages = 64, .ahead_pages = ahead
    };
    kist_device device = paged_device(d, kind);
    kist_pages *p;

    must_ok(kist_pages_open(&p, &device, &opt));
    return p;
}

TEST(pages_missed_one_behind_the_other_are_read_ahead_in_one_call)
{
    struct paged d;
    kist_pages *p;
    uint8_t v = 0;

    paged_init(&d, 100 * PAGE + 5, ROOM, PAGE, 1);
    p = open_ahead(&d, PAGED_COPY, 9);
    for (uint64_t addr = 0; addr < d.len; addr++) {
        must_ok(kist_pages_get_u8(p, addr, &v));
        must(v == d.bytes[addr]);
    }
    must(d.maps <= 1 + 100 / 10 + 1); /* the first page alone, then ten at once */
    must(paged_stats(p).calls == d.maps);
    kist_pages_close(p);

    d.maps = 0;
    p = open_ahead(&d, PAGED_COPY, 9);
    for (uint64_t page = 0; page < 100; page += 2) /* no page behind another */
        must_ok(kist_pages_get_u8(p, page * PAGE, &v));
    must(d.maps == 50 && !kist_pages_is_cached(p, 3 * PAGE));
    kist_pages_close(p);
    paged_free(&d);
}

/* What is used now and again survives a scan that reads ahead, too: four pages,
 * at every 60th of the scan, where 88 fit. */
TEST(a_scan_that_reads_ahead_leaves_what_is_used_alone)
{
    struct paged d;
    kist_pages *p;
    uint8_t v = 0;
    uint64_t asked = 0, there = 0;

    paged_init(&d, 8000 * PAGE, ROOM, PAGE, 1);
    p = open_ahead(&d, PAGED_COPY, 4);
    for (uint64_t page = 100; page < 8000; page++) {
        must_ok(kist_pages_get_u8(p, page * PAGE, &v));
        for (uint64_t used = 0; page % 60 == 0 && used < 4; used++) {
            asked++;
            there += kist_pages_is_cached(p, used * PAGE);
            must_ok(kist_pages_get_u8(p, used * PAGE, &v));
            must_ok(kist_pages_get_u8(p, used * PAGE, &v));
        }
    }
    must(there * 10 > asked * 9);
    kist_pages_close(p);
    paged_free(&d);
}

TEST(reading_ahead_that_fails_is_no_error)
{
    struct paged d;
    kist_pages *p;
    uint8_t v = 0;

    for (uint64_t at = 1; at < 20; at++) {
        uint64_t failures = 0;

        paged_init(&d, 50 * PAGE, ROOM, PAGE, 1);
        d.map_fails_at = at;
        p = open_ahead(&d, PAGED_COPY, 4);
        for (uint64_t addr = 0; addr < d.len; addr += 16) {
            int rc = kist_pages_get_u8(p, addr, &v);

            failures += rc != KIST_OK;
            must(rc == KIST_OK ? v == d.bytes[addr] : rc == PAGED_FAILS);
        }
        must(failures == (at == 1)); /* the very first page is fetched alone */
        kist_pages_close(p);
        paged_free(&d);
    }
}

TEST(devices_that_lend_are_told_what_will_be_wanted)
{
    struct paged d;
    kist_pages *p;
    uint8_t v = 0;

    paged_init(&d, 60 * PAGE, ROOM, PAGE, 1);
    p = open_ahead(&d, PAGED_LEND, 8);
    for (uint64_t page = 0; page < 60; page++) {
        must_ok(kist_pages_get_u8(p, page * PAGE, &v));
        must(page == 0 || d.hinted >= (page + 4) * PAGE);
    }
    kist_pages_close(p);
    paged_free(&d);
}
