/* Numbers, bytes and strings at any address, held against a byte array. */
#include "paged.h"
#include "support.h"

#include <inttypes.h>

enum { ROOM = 16384 };

static void swap(unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        unsigned char c = bytes[i];

        bytes[i] = bytes[n - 1 - i];
        bytes[n - 1 - i] = c;
    }
}

/* One type at one address: the array's bytes, turned around where they are in
 * the other order; or nothing, past the end. */
#define X_(name, type, convert)                                                                    \
    static void check_##name(kist_pages *p, const struct paged *d, uint64_t addr)                  \
    {                                                                                              \
        bool big = strstr(#name, "_be") != NULL;                                                   \
        type want = 0, got = (type)0x5a, before = got;                                             \
        int rc = kist_pages_get_##name(p, addr, &got);                                             \
                                                                                                   \
        if (addr > d->len || d->len - addr < sizeof want) {                                        \
            must_rc(rc, KIST_EBOUNDS);                                                             \
            must(got == before && kist_last_error()->offset == addr);                              \
            return;                                                                                \
        }                                                                                          \
        must_ok(rc);                                                                               \
        memcpy(&want, d->bytes + addr, sizeof want);                                               \
        if (big)                                                                                   \
            swap((unsigned char *)&want, sizeof want);                                             \
        must(got == want);                                                                         \
    }
KIST_PAGES_TYPES(X_)
#undef X_

static void (*const checks[])(kist_pages *, const struct paged *, uint64_t) = {
#define X_(name, type, convert) check_##name,
    KIST_PAGES_TYPES(X_)
#undef X_
};
enum { TYPES = sizeof checks / sizeof *checks };

static void every_type_at(kist_pages *p, const struct paged *d, uint64_t addr)
{
    for (size_t t = 0; t < TYPES; t++)
        checks[t](p, d, addr);
}

/* Every offset of the first page and a half, and of the last two. */
static void every_offset(struct paged *d, enum paged_kind kind, uint32_t cache)
{
    kist_pages *p = paged_open(d, kind, cache, 0);
    uint64_t near = d->page + d->page / 2, tail = d->len > 2 * d->page ? d->len - 2 * d->page : 0;

    for (uint64_t addr = 0; addr < near; addr++)
        every_type_at(p, d, addr);
    for (uint64_t addr = tail; addr < d->len + 20; addr++)
        every_type_at(p, d, addr);
    kist_pages_close(p);
}

TEST(every_type_at_every_offset_of_devices_that_end_anywhere)
{
    static const uint64_t pages[] = { 1, 2, 8, 64, 128, 256, 512, 1024, 2048, 4096 };
    uint64_t seen = 0;

    must(TYPES == 26);
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        uint64_t page = pages[i];
        uint64_t ends[] = { 0,       1, page - 1, page, page + 1, 2 * page + page / 2, 3 * page - 1,
                            3 * page };

        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++)
            for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
                struct paged d;

                paged_init(&d, ends[e], ROOM, page, page + ends[e]);
                every_offset(&d, (enum paged_kind)kind, seen++ % 2 ? 1 : 16);
                paged_free(&d);
            }
    }
}

TEST(what_would_pass_the_end_of_all_addresses_is_out_of_bounds)
{
    static const uint64_t addrs[] = { (UINT64_C(1) << 63) - 1, UINT64_C(1) << 63, UINT64_MAX - 16,
                                      UINT64_MAX - 1, UINT64_MAX };
    struct paged d;
    kist_pages *p;
    unsigned char buf[64];
    kist_slice slice = { 0 };

    for (uint64_t page = 1; page <= 4096; page *= 8) {
        paged_init(&d, 1000, ROOM, page, 1);
        p = paged_open(&d, PAGED_COPY, 4, 0);
        for (size_t i = 0; i < sizeof addrs / sizeof *addrs; i++) {
            every_type_at(p, &(struct paged){ 0 }, addrs[i]);
            must_rc(kist_pages_read(p, addrs[i], buf, sizeof buf), KIST_EBOUNDS);
            must_rc(kist_pages_load(p, addrs[i], 1, &slice), KIST_END);
            must_rc(kist_pages_view(p, addrs[i], 64, &slice), KIST_END);
            must(!kist_pages_is_cached(p, addrs[i]));
            kist_pages_invalidate(p, addrs[i], 1);
            kist_pages_invalidate(p, addrs[i], UINT64_MAX);
        }
        must_rc(kist_pages_read(p, 10, buf, SIZE_MAX), KIST_EBOUNDS);
        must_rc(kist_pages_read(p, UINT64_MAX, buf, 0), KIST_OK);
        must(kist_pages_calls(p, UINT64_C(1) << 63, 5) == 0);
        must(kist_pages_calls(p, (UINT64_C(1) << 63) - 1, UINT64_MAX) == 1);
        kist_pages_close(p);
        paged_free(&d);
    }
}

TEST(reads_of_any_range_are_the_arrays_bytes_or_refused)
{
    struct rng rng = { test_seed() };
    unsigned char buf[ROOM];
    struct paged d;

    for (uint64_t page = 1; page <= 4096; page *= 4) {
        kist_pages *p;

        paged_init(&d, 5 * page / 2 + 3, ROOM, page, page);
        p = paged_open(&d, page % 8 ? PAGED_LEND : PAGED_COPY, 2, 0);
        for (uint64_t n = test_scaled(3000); n > 0; n--) {
            uint64_t addr = rng_below(&rng, d.len + 10), len = rng_below(&rng, d.len + 10);
            int rc = kist_pages_read(p, addr, buf, len);

            test_case = n;
            if (addr + len > d.len && len > 0) {
                must_rc(rc, KIST_EBOUNDS);
                must(kist_last_error()->offset == addr);
            } else {
                must_ok(rc);
                must(memcmp(buf, d.bytes + addr, len) == 0);
            }
        }
        kist_pages_close(p);
        paged_free(&d);
    }
    test_case = 0;
}

TEST(a_string_ends_with_a_nul_the_buffer_or_the_device)
{
    static const char words[] = "alpha\0\0beta beta beta\0end without";
    struct paged d;
    kist_pages *p;
    char buf[64];
    size_t len;

    for (uint64_t page = 1; page <= 64; page *= 2) {
        paged_init(&d, sizeof words - 1, ROOM, page, 1);
        memcpy(d.bytes, words, sizeof words - 1);
        p = paged_open(&d, PAGED_COPY, 4, 0);
        for (uint64_t addr = 0; addr < d.len; addr++)
            for (size_t cap = 1; cap <= sizeof buf; cap++) {
                size_t there = strnlen((char *)d.bytes + addr, d.len - addr);
                size_t want = there < cap - 1 ? there : cap - 1;

                memset(buf, 'x', sizeof buf);
                must_ok(kist_pages_read_string(p, addr, buf, cap, &len));
                must(len == want && memcmp(buf, d.bytes + addr, len) == 0 && buf[len] == '\0');
                must(cap == sizeof buf || buf[cap] == 'x');
            }
        must_rc(kist_pages_read_string(p, d.len, buf, sizeof buf, &len), KIST_EBOUNDS);
        must_rc(kist_pages_read_string(p, d.len, buf, 1, &len), KIST_EBOUNDS);
        must_rc(kist_pages_read_string(p, UINT64_MAX, buf, sizeof buf, &len), KIST_EBOUNDS);
        must_rc(kist_pages_read_string(p, 0, buf, 0, &len), KIST_EINVAL);
        kist_pages_close(p);
        paged_free(&d);
    }
}

/* Once over each range with an empty cache: never more calls than were told. */
TEST(no_range_needs_more_calls_than_kist_pages_calls_says)
{
    struct paged d;
    unsigned char buf[600];

    for (uint32_t cache = 1; cache <= 64; cache *= 8) {
        kist_pages *p;

        paged_init(&d, 600, ROOM, 64, 1);
        p = paged_open(&d, PAGED_COPY, cache, 0);
        for (uint64_t addr = 0; addr < 600; addr += 7)
            for (uint64_t len = 0; addr + len <= 600; len += 5) {
                kist_pages_invalidate(p, 0, UINT64_MAX);
                d.maps = 0;
                must_ok(kist_pages_read(p, addr, buf, len));
                must(d.maps <= kist_pages_calls(p, addr, len));
                must(kist_pages_calls(p, addr, len) <= len / 64 + 2);
            }
        must(kist_pages_calls(p, 63, 2) == 2 && kist_pages_calls(p, 64, 64) == 1);
        kist_pages_close(p);
        paged_free(&d);
    }
}
