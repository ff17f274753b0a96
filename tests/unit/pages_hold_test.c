/* Slices: pages, sequences of pages, views; what is held stays as it is. */
#include "paged.h"
#include "support.h"

enum { PAGE = 64, ROOM = 1 << 16 };

static bool same(const struct paged *d, const kist_slice *s)
{
    return memcmp(s->bytes.data, d->bytes + s->addr, s->bytes.len) == 0;
}

TEST(load_hands_out_the_page_as_far_as_the_device_has_it)
{
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
        struct paged d;
        kist_pages *p;
        kist_slice s = { 0 };

        paged_init(&d, 3 * PAGE + 10, ROOM, PAGE, 1);
        p = paged_open(&d, (enum paged_kind)kind, 4, 0);
        for (uint64_t addr = 0; addr < 4 * PAGE + 5; addr++)
            for (size_t len = 1; len <= PAGE; len++) {
                uint64_t start = addr / PAGE * PAGE;
                uint64_t end = start + PAGE < d.len ? start + PAGE : d.len;
                int rc = kist_pages_load(p, addr, len, &s);

                must_rc(rc, addr + len <= end ? KIST_OK : KIST_END);
                if (rc == KIST_OK) {
                    must(s.addr == start && s.bytes.len == end - start && same(&d, &s));
                    kist_slice_release(p, &s);
                }
                must(s.hold == NULL && s.bytes.data == NULL);
            }
        must_rc(kist_pages_load(p, 0, 0, &s), KIST_EINVAL);
        must_rc(kist_pages_load(p, 0, PAGE + 1, &s), KIST_EINVAL);
        kist_slice_release(p, &s);
        kist_slice_release(p, NULL);
        kist_pages_close(p);
        paged_free(&d);
    }
}

TEST(a_sequence_ends_where_the_device_does)
{
    for (uint64_t end = 0; end <= 4 * PAGE; end++)
        for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
            struct paged d;
            kist_pages *p;
            kist_slice s = { 0 };
            uint64_t at = 0;
            int rc;

            paged_init(&d, end, ROOM, PAGE, 1);
            p = paged_open(&d, (enum paged_kind)kind, 2, 0);
            for (rc = kist_pages_load(p, 0, 1, &s); rc == KIST_OK; rc = kist_pages_next(p, &s)) {
                must(s.addr == at && same(&d, &s));
                at += s.bytes.len;
            }
            must_rc(rc, KIST_END);
            must(at == end && s.hold == NULL && paged_stats(p).pinned == 0);
            must_rc(kist_pages_next(p, &s), KIST_END);
            must(d.maps <= end / PAGE + 1);
            kist_pages_close(p);
            paged_free(&d);
        }
}

struct walk {
    const struct paged *d;
    uint64_t at, stop_at;
};

static int each(uint64_t addr, kist_bytes bytes, void *arg)
{
    struct walk *w = arg;

    must(addr == w->at && bytes.len > 0 && memcmp(bytes.data, w->d->bytes + addr, bytes.len) == 0);
    must(addr / PAGE == (addr + bytes.len - 1) / PAGE);
    w->at += bytes.len;
    return w->at >= w->stop_at ? 55 : 0;
}

TEST(iteration_yields_each_byte_once_and_stops_when_told)
{
    struct paged d;
    kist_pages *p;

    paged_init(&d, 3 * PAGE + 7, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_LEND, 2, 0);
    for (uint64_t addr = 0; addr < d.len; addr += 3)
        for (uint64_t len = 0; len < d.len + 20; len += 5) {
            struct walk w = { &d, addr, UINT64_MAX };
            uint64_t end = addr + len < d.len ? addr + len : d.len;

            must_ok(kist_pages_iter(p, addr, len, each, &w));
            must(w.at == end);
            w = (struct walk){ &d, addr, addr + (end - addr) / 2 };
            must_rc(kist_pages_iter(p, addr, len, each, &w), len == 0 ? 0 : 55);
            must(paged_stats(p).pinned == 0);
        }
    must_ok(kist_pages_iter(p, d.len, UINT64_MAX, each, NULL));
    kist_pages_close(p);
    paged_free(&d);
}

TEST(a_view_is_cut_to_what_was_asked_and_to_what_exists)
{
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
        struct paged d;
        kist_pages *p;

        paged_init(&d, 3 * PAGE + 7, ROOM, PAGE, 1);
        p = paged_open(&d, (enum paged_kind)kind, 2, 0);
        for (uint64_t addr = 0; addr < d.len + 9; addr++)
            for (size_t len = 1; len < d.len + 20; len += 3) {
                kist_slice s = { 0 };
                uint64_t maps = d.maps;
                int rc = kist_pages_view(p, addr, len, &s);

                must(d.maps - maps <= 1);
                must_rc(rc, addr < d.len ? KIST_OK : KIST_END);
                if (rc == KIST_OK)
                    must(s.addr == addr && same(&d, &s) &&
                         s.bytes.len == (len < d.len - addr ? len : d.len - addr));
                kist_slice_release(p, &s);
            }
        must_rc(kist_pages_view(p, 0, 0, &(kist_slice){ 0 }), KIST_EINVAL);
        kist_pages_close(p);
        paged_free(&d);
    }
}

/* More slices than the cache has places; pages evicted, invalidated, changed. */
TEST(what_a_slice_holds_stays_as_it_is)
{
    for (uint32_t flags = 0; flags <= KIST_PAGES_THREADS; flags++)
        for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
            struct paged d, old;
            kist_pages *p;
            kist_slice s[40] = { { 0 } };
            uint8_t v = 0;

            paged_init(&d, 40 * PAGE, ROOM, PAGE, 1);
            paged_init(&old, 40 * PAGE, ROOM, PAGE, 1);
            p = paged_open(&d, (enum paged_kind)kind, 16, flags);
            for (uint64_t i = 0; i < 40; i++)
                must_ok(kist_pages_load(p, i * PAGE, PAGE, &s[i]));
            must(paged_stats(p).pinned == 16);
            must_ok(kist_pages_get_u8(p, 39 * PAGE, &v)); /* all places are held */
            must(v == d.bytes[39 * PAGE]);
            for (uint64_t i = 0; i < d.len; i++)
                d.bytes[i] ^= 0x55;
            kist_pages_invalidate(p, 0, UINT64_MAX);
            must(paged_stats(p).resident == 0);
            for (uint64_t i = 0; i < 40; i++) {
                must_ok(kist_pages_get_u8(p, i * PAGE + 1, &v));
                must(v == d.bytes[i * PAGE + 1]);
                must(same(&old, &s[i]));
            }
            for (uint64_t i = 0; i < 40; i++) {
                must(same(&old, &s[i]));
                kist_slice_release(p, &s[i]);
            }
            for (uint64_t i = 0; i < 16; i++) /* the places are of use again */
                must_ok(kist_pages_get_u8(p, i * PAGE, &v));
            must(paged_stats(p).resident == 16 && paged_stats(p).pinned == 0);
            kist_pages_close(p);
            paged_free(&d);
            paged_free(&old);
        }
}

TEST(a_page_may_be_held_by_several_slices)
{
    struct paged d;
    kist_pages *p;
    kist_slice a = { 0 }, b = { 0 };

    paged_init(&d, 4 * PAGE, ROOM, PAGE, 1);
    p = paged_open(&d, PAGED_LEND, 1, 0);
    must_ok(kist_pages_load(p, 0, 1, &a));
    must_ok(kist_pages_view(p, 10, 20, &b));
    must(d.lent == 1 && a.bytes.data == (const char *)b.bytes.data - 10);
    kist_slice_release(p, &a);
    kist_pages_invalidate(p, 0, 1);
    must(d.lent == 1 && same(&d, &b));
    kist_slice_release(p, &b);
    must(d.lent == 0);
    kist_pages_close(p);
    paged_free(&d);
}
