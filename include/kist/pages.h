/*
 * kist pages - the pages of a device, cached; and a pipeline that writes them.
 *
 * A device is whatever holds bytes at addresses from 0 on: a file, a disk,
 * memory, something behind a network. A page cache keeps some of its pages in
 * memory and reads numbers, strings and slices from any address. A writer
 * gathers changes to a device; what is pending is seen by its own reads,
 * byte by byte, and written in few large pieces. None of this needs a store.
 *
 *     kist_device device;
 *     kist_pages *pages;
 *     uint32_t magic;
 *
 *     if (kist_device_open(&device, fd, KIST_DEVICE_PREAD) == KIST_OK &&
 *         kist_pages_open(&pages, &device, NULL) == KIST_OK &&
 *         kist_pages_get_u32_le(pages, 0x438, &magic) == KIST_OK)
 *         ...
 *
 * Before you use it
 *   Addresses   count bytes, up to 2^63 - 1. What would reach beyond the end
 *               of the device, or of all addresses, is KIST_EBOUNDS, and
 *               kist_last_error()->offset is the address that was asked for.
 *   Staleness   a cached page stays as it was fetched, also when the device
 *               changes, grows or shrinks: kist_pages_invalidate(). A writer
 *               does that for what it writes.
 *   Signals     reading memory of a mapped file that somebody has cut short
 *               is SIGBUS. That can happen with KIST_DEVICE_MMAP, which hands
 *               out such memory, and with no other device here.
 *   Threads     a handle is for one thread at a time, unless it was opened
 *               with KIST_PAGES_THREADS: then any thread may use it and the
 *               writers on it at any time. Closing is the last call.
 *   Fork        a child has a copy of its own of caches and writers; files
 *               and devices behind them are shared. With KIST_PAGES_THREADS
 *               fork while no thread is in a call, or leave them alone there.
 *
 * Sources: CLOCK is Corbató's (1968); that new pages mostly enter where they
 * are the next to go, Qureshi et al., "Adaptive insertion policies for high
 * performance caching" (2007); a prime number of sets, Yang and Yang, "A novel
 * cache design for vector processing" (1992).
 *
 * Since 0.1.
 */
#ifndef KIST_PAGES_H
#define KIST_PAGES_H

#include <kist/kist.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- devices ---------------------------------------------------------- */

/*
 * How to reach a device. Make one by a kist_device_... call below, or fill in
 * your own: start from `{ .size = sizeof device, .arg = ... }` and set `map`,
 * or `lend`, or neither: then pages are handed in, see kist_pages_missing().
 *
 * `pos` and `len` are multiples of the page size. None of these may call the
 * cache that calls it. With KIST_PAGES_THREADS several threads may be in
 * here at once. Negative results come back from the call that needed the
 * device, unchanged: negated errno values, or numbers of your own.
 */
typedef struct kist_device {
    uint32_t size; /* sizeof(kist_device)                                    */
    uint32_t reserved;
    void *arg;     /* handed to each of these                                */

    /* Copy the `len` bytes from `pos` on into `buf`, which is aligned to the
     * page size or to 4,096 bytes, whichever is less. Returns how many: fewer
     * than `len` only where the device ends, 0 behind it.                   */
    int64_t (*map)(void *arg, uint64_t pos, void *buf, size_t len);

    /* Hand out memory that holds them, in *data, and return how many there
     * are. The memory must be aligned to 16 bytes (to the page size if that
     * is less), and stay as it is until `give_back` (may be NULL) is called
     * with the same pos and data, once for each call that returned more
     * than 0. */
    int64_t (*lend)(void *arg, uint64_t pos, size_t len, const void **data);
    void (*give_back)(void *arg, uint64_t pos, const void *data);

    /* With `lend`, may be NULL: a hint that these bytes are wanted soon.    */
    void (*ahead)(void *arg, uint64_t pos, uint64_t len);

    /* For writers, else NULL: write `n` pieces, one behind the other, from
     * `pos` on. All of them but the last one of all are whole pages. Returns
     * 0, or a negative code: then any part of it may have been written.     */
    int (*writev)(void *arg, uint64_t pos, const kist_bytes *pieces, size_t n);

    /* For writers that ask for it, else NULL: have all that was written
     * survive power loss. Returns 0 or a negative code.                     */
    int (*sync)(void *arg);

    /* May be NULL: how many bytes the device has now. Returns 0, or < 0.    */
    int (*length)(void *arg, uint64_t *bytes);
} kist_device;

enum kist_device_kind {
    KIST_DEVICE_PREAD = 1,   /* copy by pread(2)                             */
    KIST_DEVICE_GUARDED = 2, /* copy out of a memory map, behind a guard: a
                                file cut short is its end, a medium that
                                fails is -EIO; never a signal                */
    KIST_DEVICE_MMAP = 3,    /* hand out memory of the map, uncopied; fastest.
                                Unguarded: see "Signals" above. What is
                                cached, or held, changes with the file       */
};

/*
 * The device that a descriptor of a regular file or block device leads to.
 * It can be written where `fd` can. A file that grows is followed.
 *
 * `fd` stays the caller's and must stay open. With O_DIRECT, on which only
 * KIST_DEVICE_PREAD makes sense, pages must be multiples of its blocks.
 *
 * KIST_DEVICE_GUARDED has the process handle SIGBUS. What the guard does not
 * know goes to the handler that was there before, as if that one stood alone.
 * A handler that the program sets later must hand on what it does not know;
 * or open a guarded device again, which puts the guard in front of it.
 *
 * Returns    KIST_OK
 *            KIST_EINVAL  no such kind; neither a file nor a block device
 *            KIST_ENOMEM, -EBADF, -EACCES, ... from the system
 * Owner      the caller; kist_device_close(), after all that uses it
 */
KIST_API KIST_NODISCARD int kist_device_open(kist_device *out, int fd, uint32_t kind);

/*
 * The device that consists of `len` bytes of memory. They stay the caller's,
 * and must not change while they are cached, but by a writer. Where they are
 * aligned to 16 bytes and not `writable` they are lent, else copied. The
 * device does not grow: writing behind its end is -ENOSPC.
 *
 * Returns    KIST_OK or KIST_ENOMEM
 * Owner      the caller; kist_device_close()
 */
KIST_API KIST_NODISCARD int kist_device_memory(kist_device *out, void *data, uint64_t len,
                                               bool writable);

/* Release what kist_device_open() or kist_device_memory() made; NULL, and a
 * device that was zeroed, is a no-op. All that uses it must be closed.      */
KIST_API void kist_device_close(kist_device *device);

/* How many bytes the device has now.
 * Returns    KIST_OK; KIST_EINVAL if it can't tell; what `length` returned  */
KIST_API KIST_NODISCARD int kist_device_length(const kist_device *device, uint64_t *bytes);

/* ---- caches ----------------------------------------------------------- */

typedef struct kist_pages kist_pages; /* a page cache                        */

enum kist_pages_flag {
    KIST_PAGES_THREADS = 1, /* any thread may use it at any time             */
};

typedef struct kist_pages_options {
    uint32_t size;        /* sizeof(kist_pages_options)                      */
    uint32_t flags;       /* enum kist_pages_flag; default 0                 */
    uint32_t page_bytes;  /* a power of two, 1 to 2^30; default 4,096        */
    uint32_t cache_pages; /* how many are kept: a power of two, 1 to 2^24;
                             default 1,024. Both together at most 2^40 bytes.
                             From 32 on it is rounded up, so that there is a
                             prime number of sets of 8: 1,048 for 1,024      */
    uint32_t ahead_pages; /* read ahead: so many pages more, in the same call
                             of `map`, when pages are missed one behind the
                             other; at most half of cache_pages and 2^30
                             bytes; default 0: none                          */
    uint32_t reserved;
} kist_pages_options;

/*
 * Make an empty cache over a device. The memory it takes is cache_pages times
 * page_bytes (nothing of that for devices that lend), some 80 bytes a page,
 * and what slices hold that found no place in it.
 *
 *   device  copied; what it leads to must stay until the cache is closed
 *   opt     NULL: all defaults
 *
 * Returns    KIST_OK, KIST_ENOMEM
 *            KIST_EINVAL  an option is out of its range or no power of two;
 *                         the device has both `map` and `lend`
 * Owner      the caller; kist_pages_close()
 */
KIST_API KIST_NODISCARD int kist_pages_open(kist_pages **out, const kist_device *device,
                                            const kist_pages_options *opt);

/* An empty cache with the same device and options. Returns as above.        */
KIST_API KIST_NODISCARD int kist_pages_copy(kist_pages **out, const kist_pages *pages);

/* Close it. Its slices must have been released and its writers closed. NULL
 * is a no-op.                                                               */
KIST_API void kist_pages_close(kist_pages *pages);

/* What it was opened with.                                                  */
KIST_API const kist_device *kist_pages_device(const kist_pages *pages);
KIST_API uint32_t kist_pages_page_bytes(const kist_pages *pages);

typedef struct kist_pages_stats {
    uint32_t size; /* sizeof(kist_pages_stats)                               */
    uint32_t reserved;
    uint64_t hits;      /* a page was looked for, and was there              */
    uint64_t misses;    /* and was not                                       */
    uint64_t calls;     /* of `map` or `lend`                                */
    uint64_t evictions; /* pages that had to make room for another           */
    uint64_t resident;  /* pages cached now                                  */
    uint64_t pinned;    /* of these, those that slices hold                  */
} kist_pages_stats;

/* Returns    KIST_OK or KIST_EINVAL (`size`)                                */
KIST_API int kist_pages_stat(kist_pages *pages, kist_pages_stats *stats);

/* Is the page that holds the byte at `addr` cached? Counts as no use of it. */
KIST_API bool kist_pages_is_cached(kist_pages *pages, uint64_t addr);

/* Forget every page that has a byte in [addr, addr + len). Slices keep theirs
 * as it was. `len` may reach beyond the end of all addresses.               */
KIST_API void kist_pages_invalidate(kist_pages *pages, uint64_t addr, uint64_t len);

/* The most calls of `map` that reading this range can need, when nothing is
 * cached: how many pages it touches.                                        */
KIST_API uint64_t kist_pages_calls(const kist_pages *pages, uint64_t addr, uint64_t len);

/* ---- slices ----------------------------------------------------------- */

/* Bytes of the device, held: they stay as they are (but see KIST_DEVICE_MMAP)
 * until the slice is released. Start from {0}; a released slice is zeroed.  */
typedef struct kist_slice {
    uint64_t addr; /* of the first byte                                      */
    kist_bytes bytes;
    void *hold; /* kist's own                                                */
} kist_slice;

/*
 * The page that holds the byte at `addr`, as far as the device has it: the
 * slice begins at the page's address. `len`, at least 1 and at most a page,
 * says how many bytes must be there from `addr` on, in this page.
 *
 * Returns    KIST_OK
 *            KIST_END     fewer are there
 *            KIST_ABSENT  not cached, and the device can't be asked
 *            KIST_EINVAL  `len`
 *            KIST_EDEVICE, KIST_ENOMEM, or what the device returned
 * Owner      the caller; kist_slice_release()
 */
KIST_API KIST_NODISCARD int kist_pages_load(kist_pages *pages, uint64_t addr, size_t len,
                                            kist_slice *out);

/* Go on to the page behind the slice's; the slice is released in any case.
 *
 *     for (rc = kist_pages_load(p, addr, 1, &s); rc == KIST_OK; rc = kist_pages_next(p, &s))
 *         ... s.bytes ...
 *
 * Returns    as kist_pages_load(); KIST_END where the device ends            */
KIST_API KIST_NODISCARD int kist_pages_next(kist_pages *pages, kist_slice *slice);

/*
 * The bytes [addr, addr + len) as one slice, cut to what exists. Within one
 * page they come from the cache; over a border by one call of the device,
 * aligned outwards, past the cache.
 *
 * Returns    KIST_OK; KIST_END if not one byte is there; as kist_pages_load();
 *            KIST_EINVAL  also: over a border of a device that can't be asked
 */
KIST_API KIST_NODISCARD int kist_pages_view(kist_pages *pages, uint64_t addr, size_t len,
                                            kist_slice *out);

/* Release a slice; NULL, and one that was released, is a no-op.             */
KIST_API void kist_slice_release(kist_pages *pages, kist_slice *slice);

/* Call `each` with the bytes from `addr` on, in pieces that do not cross
 * pages, `len` of them or to the end of the device if that comes first. The
 * bytes hold during the call. Stops when `each` returns other than 0.
 * Returns    KIST_OK, what `each` returned, KIST_ABSENT, or an error        */
KIST_API int kist_pages_iter(kist_pages *pages, uint64_t addr, uint64_t len,
                             int (*each)(uint64_t addr, kist_bytes bytes, void *arg), void *arg);

/* ---- numbers and strings ---------------------------------------------- */

/*
 * Copy the bytes [addr, addr + len) into `buf`. What fails half way may have
 * written a part of them there.
 *
 * Returns    KIST_OK
 *            KIST_EBOUNDS  not all of them are there
 *            KIST_ABSENT   a page is not cached, and the device can't be asked
 *            KIST_EDEVICE  the device broke its contract: it returned more
 *                          than it was asked for, or misaligned memory
 *            KIST_ENOMEM, or what the device returned
 */
KIST_API KIST_NODISCARD int kist_pages_read(kist_pages *pages, uint64_t addr, void *buf,
                                            size_t len);

/* Copy bytes from `addr` on up to the first NUL, `cap` - 1 of them or the end
 * of the device, and end them with a NUL. *len receives how many there are
 * before it. Returns as above; KIST_EBOUNDS if not one byte is there;
 * KIST_EINVAL if `cap` is 0.                                                */
KIST_API KIST_NODISCARD int kist_pages_read_string(kist_pages *pages, uint64_t addr, char *buf,
                                                   size_t cap, size_t *len);

__extension__ typedef unsigned __int128 kist_u128;
__extension__ typedef __int128 kist_i128;

/* All types of numbers, and their orders of bytes: native, little, big.
 * X(name, type, macro that converts between the order and this machine's)   */
#define KIST_PAGES_TYPES(X)                                                                        \
    X(u8, uint8_t, KIST_PAGES_SAME_)                                                               \
    X(i8, int8_t, KIST_PAGES_SAME_)                                                                \
    X(u16_ne, uint16_t, KIST_PAGES_SAME_)                                                          \
    X(u16_le, uint16_t, KIST_PAGES_SAME_)                                                          \
    X(u16_be, uint16_t, KIST_PAGES_SWAP16_)                                                        \
    X(i16_ne, int16_t, KIST_PAGES_SAME_)                                                           \
    X(i16_le, int16_t, KIST_PAGES_SAME_)                                                           \
    X(i16_be, int16_t, KIST_PAGES_SWAP16_)                                                         \
    X(u32_ne, uint32_t, KIST_PAGES_SAME_)                                                          \
    X(u32_le, uint32_t, KIST_PAGES_SAME_)                                                          \
    X(u32_be, uint32_t, KIST_PAGES_SWAP32_)                                                        \
    X(i32_ne, int32_t, KIST_PAGES_SAME_)                                                           \
    X(i32_le, int32_t, KIST_PAGES_SAME_)                                                           \
    X(i32_be, int32_t, KIST_PAGES_SWAP32_)                                                         \
    X(u64_ne, uint64_t, KIST_PAGES_SAME_)                                                          \
    X(u64_le, uint64_t, KIST_PAGES_SAME_)                                                          \
    X(u64_be, uint64_t, KIST_PAGES_SWAP64_)                                                        \
    X(i64_ne, int64_t, KIST_PAGES_SAME_)                                                           \
    X(i64_le, int64_t, KIST_PAGES_SAME_)                                                           \
    X(i64_be, int64_t, KIST_PAGES_SWAP64_)                                                         \
    X(u128_ne, kist_u128, KIST_PAGES_SAME_)                                                        \
    X(u128_le, kist_u128, KIST_PAGES_SAME_)                                                        \
    X(u128_be, kist_u128, KIST_PAGES_SWAP128_)                                                     \
    X(i128_ne, kist_i128, KIST_PAGES_SAME_)                                                        \
    X(i128_le, kist_i128, KIST_PAGES_SAME_)                                                        \
    X(i128_be, kist_i128, KIST_PAGES_SWAP128_)

#define KIST_PAGES_SAME_(v) (v)
#define KIST_PAGES_SWAP16_(v) __builtin_bswap16((uint16_t)(v))
#define KIST_PAGES_SWAP32_(v) __builtin_bswap32((uint32_t)(v))
#define KIST_PAGES_SWAP64_(v) __builtin_bswap64((uint64_t)(v))
#define KIST_PAGES_SWAP128_(v)                                                                     \
    ((kist_u128)__builtin_bswap64((uint64_t)(v)) << 64 |                                           \
     (kist_u128)__builtin_bswap64((uint64_t)((kist_u128)(v) >> 64)))

/* What the inline functions below look at; part of the binary interface, and
 * for nobody else. An entry names a page that is cached, or has `len` 0.    */
struct kist_pages_front {
    uint64_t from; /* the page's address                                     */
    const unsigned char *data;
    uint32_t len; /* its bytes                                               */
    uint32_t frame;
    uint64_t hits;
};
struct kist_pages_head {
    struct kist_pages_front *front;
    uint64_t mask;  /* entries of `front`, less 1                            */
    uint32_t shift; /* log2 of the page size                                 */
    uint32_t reserved;
};

/*
 * The `n` bytes at `addr`, if they lie in one page that a quick look finds;
 * else NULL, which means nothing: use any other call then. The pointer holds
 * until the thread's next call on the cache. Always NULL with
 * KIST_PAGES_THREADS.
 */
KIST_API inline const void *kist_pages_peek(kist_pages *pages, uint64_t addr, size_t n)
{
    const struct kist_pages_head *head = (const struct kist_pages_head *)(const void *)pages;
    struct kist_pages_front *f = &head->front[addr >> head->shift & head->mask];
    uint64_t at = addr - f->from;

    if (__builtin_expect(at >= f->len || f->len - at < n, 0))
        return NULL;
    f->hits++;
    return f->data + at;
}

/*
 * kist_pages_get_u8() ... kist_pages_get_i128_be(): the number at `addr`, any
 * address, also over borders of pages. *out is untouched unless KIST_OK.
 *
 * Returns    as kist_pages_read()
 *
 * They are inline, and symbols of the library as well.
 */
#define KIST_PAGES_GET_(name, type, convert)                                                       \
    KIST_API KIST_NODISCARD inline int kist_pages_get_##name(kist_pages *pages, uint64_t addr,     \
                                                             type *out)                            \
    {                                                                                              \
        const void *at = kist_pages_peek(pages, addr, sizeof(type));                               \
        type v;                                                                                    \
                                                                                                   \
        if (__builtin_expect(at == NULL, 0)) {                                                     \
            int rc = kist_pages_read(pages, addr, &v, sizeof v);                                   \
            if (rc != KIST_OK)                                                                     \
                return rc;                                                                         \
        } else {                                                                                   \
            __builtin_memcpy(&v, at, sizeof v);                                                    \
        }                                                                                          \
        *out = (type)convert(v);                                                                   \
        return KIST_OK;                                                                            \
    }
KIST_PAGES_TYPES(KIST_PAGES_GET_)

/* ---- pages that are fetched elsewhere --------------------------------- */

/*
 * For event loops and schedulers, which cannot wait inside of `map`: ask which
 * pages are missing, fetch them however you like, hand them in, and ask again
 * until none is missing. With a device that has neither `map` nor `lend`, a
 * call that needs a page which is not there returns KIST_ABSENT and changes
 * nothing. A device with `map` may be helped on so, too.
 */
typedef struct kist_pages_gap {
    uint64_t addr;   /* of pages that are missing, one behind the other      */
    uint64_t len;    /* whole pages                                          */
    uint64_t ticket; /* to be handed in with them                            */
} kist_pages_gap;

/*
 * What of [addr, addr + len) is not cached: up to `cap` gaps, in order. Pages
 * that are there count as used by this call. A page stays in the cache until
 * others take its place: a range of up to an eighth of the cache fits beside
 * whatever else is in it, after asking twice.
 *
 *   n   receives how many gaps there are in `gaps`; 0: nothing is missing
 *
 * Returns    KIST_OK
 *            KIST_EBOUNDS  the range reaches beyond all addresses
 */
KIST_API KIST_NODISCARD int kist_pages_missing(kist_pages *pages, uint64_t addr, uint64_t len,
                                               kist_pages_gap *gaps, size_t cap, size_t *n);

/*
 * Hand in what the device has from `addr` on, a border of pages; it is copied.
 * `len` bytes are whole pages, or the device ends with the last of them: 0
 * says that it ends at `addr` or before. Pages that are there stay.
 *
 *   ticket  of the gap
 *
 * Returns    KIST_OK
 *            KIST_CHANGED  some of these pages were invalidated since the gap
 *                          was told, and not taken: fetch them again
 *            KIST_EINVAL   `addr` is no border; the device lends its memory
 *            KIST_EBOUNDS, KIST_EBUSY (slices hold all places for a page)
 */
KIST_API KIST_NODISCARD int kist_pages_supply(kist_pages *pages, uint64_t addr, const void *data,
                                              size_t len, uint64_t ticket);

/* ---- writing ---------------------------------------------------------- */

typedef struct kist_writer kist_writer; /* a write pipeline over a cache     */

enum kist_writer_flag {
    KIST_WRITER_SYNC = 1,     /* commit and persist end with the device's sync;
                                 what they wrote is pending until it returned */
    KIST_WRITER_IN_ORDER = 2, /* pages go out in the order in which they were
                                 first set, not in that of their addresses   */
    KIST_WRITER_SPILL = 4,    /* who finds no room commits, and goes on      */
};

typedef struct kist_writer_options {
    uint32_t size;          /* sizeof(kist_writer_options)                   */
    uint32_t flags;         /* enum kist_writer_flag; default 0              */
    uint32_t pending_pages; /* the most that are pending at once, 1 to 65,536;
                               each takes a page, an eighth of one, up to
                               4,096 bytes to align it, and some 50 bytes;
                               default 1,024                                 */
    uint32_t reserved;
    uint64_t device_bytes; /* no byte is set from here on; default 0: no limit.
                              A file then grows by what is set behind its end,
                              with zeros in between                          */
} kist_writer_options;

/*
 * Make a writer over a cache whose device has `writev`. Use one writer at a
 * time for each page: what is pending in one is not seen by another, nor by
 * kist_pages_...() calls.
 *
 * Returns    KIST_OK, KIST_ENOMEM
 *            KIST_EINVAL  an option; no `writev`, or KIST_WRITER_SYNC and no
 *                         `sync`
 * Owner      the caller; kist_writer_close(), before the cache
 */
KIST_API KIST_NODISCARD int kist_writer_open(kist_writer **out, kist_pages *pages,
                                             const kist_writer_options *opt);

/* Close it; what is still pending is forgotten. NULL is a no-op.            */
KIST_API void kist_writer_close(kist_writer *writer);

/*
 * Have the bytes [addr, addr + len) pending: all of them, or after a failure
 * none. Nothing is written before commit or persist.
 *
 * Returns    KIST_OK
 *            KIST_EBOUNDS   beyond `device_bytes`, or of all addresses
 *            KIST_EPENDING  more pages than may be pending; commit first
 *            KIST_ENOMEM
 *            With KIST_WRITER_SPILL, instead of KIST_EPENDING: as
 *            kist_writer_commit(); more than `pending_pages` at once are
 *            KIST_EPENDING nevertheless
 */
KIST_API KIST_NODISCARD int kist_writer_write(kist_writer *writer, uint64_t addr, const void *data,
                                              size_t len);

/* Copy the bytes [addr, addr + len) into `buf`: what is pending, and around
 * it what the cache has. Bytes before the last pending one that the device
 * does not have are zero. Returns as kist_pages_read().                     */
KIST_API KIST_NODISCARD int kist_writer_read(kist_writer *writer, uint64_t addr, void *buf,
                                             size_t len);

/*
 * Write everything that is pending; or, persist, the pages that have a byte in
 * [addr, addr + len), as a whole. Pages that lie one behind the other go to
 * the device in one `writev`, 1,024 at most. Of a page that is set in part the
 * rest is read from the device first. Afterwards the cache forgets them.
 *
 * Returns    KIST_OK
 *            what `map`, `lend`, `writev` or `sync` returned: what was not
 *            written, or not synced, is still pending, and can be read,
 *            changed, and written again
 *            KIST_ABSENT   the rest of a page is not cached, and the device
 *                          can't be asked
 */
KIST_API KIST_NODISCARD int kist_writer_commit(kist_writer *writer);
KIST_API KIST_NODISCARD int kist_writer_persist(kist_writer *writer, uint64_t addr, uint64_t len);

/* Forget what is pending, all of it.                                        */
KIST_API void kist_writer_discard(kist_writer *writer);

typedef struct kist_writer_stats {
    uint32_t size; /* sizeof(kist_writer_stats)                              */
    uint32_t reserved;
    uint64_t pending_pages; /* pages with pending bytes                      */
    uint64_t pending_bytes; /* those bytes                                   */
    uint64_t calls;         /* of `writev`, failed ones too                  */
    uint64_t written_pages; /* pages that `writev` has taken                 */
} kist_writer_stats;

/* Returns    KIST_OK or KIST_EINVAL (`size`)                                */
KIST_API int kist_writer_stat(kist_writer *writer, kist_writer_stats *stats);

/*
 * kist_writer_get_u8() ... kist_writer_set_i128_be(): a number at any address,
 * as kist_writer_read() and kist_writer_write() do it.
 */
#define KIST_WRITER_NUMBER_(name, type, convert)                                                   \
    KIST_API KIST_NODISCARD int kist_writer_get_##name(kist_writer *writer, uint64_t addr,         \
                                                       type *out);                                 \
    KIST_API KIST_NODISCARD int kist_writer_set_##name(kist_writer *writer, uint64_t addr,         \
                                                       type value);
KIST_PAGES_TYPES(KIST_WRITER_NUMBER_)

#ifdef __cplusplus
}
#endif

#endif
