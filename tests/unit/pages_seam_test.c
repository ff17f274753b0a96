/* The page cache when memory is short, when the system writes less than it was
 * asked to, and when it refuses. */
#include "base/os.h"
#include "paged.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { PAGE = 256, LEN = 10 * PAGE + 17 };

static uint64_t allocs, alloc_fails_at;

static void *failing_alloc(size_t len)
{
    return ++allocs == alloc_fails_at ? NULL : os_real_alloc(len);
}

static int failing_map(void **out, void *addr, size_t len, int prot, int flags, int fd,
                       uint64_t off)
{
    return ++allocs == alloc_fails_at ? -ENOMEM : os_real_map(out, addr, len, prot, flags, fd, off);
}

/* Some of everything; returns the first result that is not KIST_OK. */
static int use(struct paged *d, enum paged_kind kind)
{
    kist_pages_options opt = {
        .size = sizeof opt, .page_bytes = PAGE, .cache_pages = 2, .ahead_pages = 1
    };
    kist_device device = paged_device(d, kind);
    kist_slice s[4] = { { 0 } };
    kist_pages *p = NULL;
    kist_writer *w = NULL;
    uint64_t v = 0;
    int rc = kist_pages_open(&p, &device, &opt);

    if (rc == KIST_OK)
        rc = kist_writer_open(&w, p, NULL);
    for (uint64_t i = 0; i < 3 && rc == KIST_OK; i++) /* one more than there are places */
        rc = kist_pages_load(p, i * PAGE, 1, &s[i]);
    if (rc == KIST_OK)
        rc = kist_pages_view(p, 5, 3 * PAGE, &s[3]);
    if (rc == KIST_OK)
        rc = kist_pages_get_u64_le(p, 7 * PAGE - 3, &v);
    if (rc == KIST_OK) {
        must(memcmp(&v, d->bytes + 7 * PAGE - 3, 8) == 0);
        rc = kist_writer_set_u64_le(w, 3 * PAGE - 4, 42);
        if (rc != KIST_OK) { /* neither half of it */
            kist_writer_stats stats = { .size = sizeof stats };

            must_ok(kist_writer_stat(w, &stats));
            must(stats.pending_pages == 0 && stats.pending_bytes == 0);
        }
    }
    if (rc == KIST_OK)
        rc = kist_writer_commit(w);
    for (int i = 0; i < 4; i++)
        kist_slice_release(p, &s[i]);
    kist_writer_close(w);
    kist_pages_close(p);
    return rc;
}

TEST(each_allocation_that_fails_is_no_memory_and_nothing_else)
{
    os_seam.alloc = failing_alloc;
    os_seam.map = failing_map;
    for (int kind = PAGED_COPY; kind <= PAGED_LEND; kind++) {
        int rc;

        alloc_fails_at = 0;
        do {
            struct paged d;

            paged_init(&d, LEN, LEN, PAGE, 1);
            allocs = 0;
            alloc_fails_at++;
            rc = use(&d, (enum paged_kind)kind);
            must(rc == KIST_OK || rc == KIST_ENOMEM);
            paged_free(&d); /* nothing is left that was lent */
        } while (rc != KIST_OK);
        must(alloc_fails_at > 10);
    }
    os_seam.alloc = os_real_alloc;
    os_seam.map = os_real_map;
}

/* ---- short writes ----------------------------------------------------- */

static uint64_t write_most, write_calls, refuse_from;

static int64_t short_pwritev(int fd, const kist_bytes *pieces, size_t n, uint64_t off)
{
    kist_bytes cut[64];
    uint64_t left = write_most;
    size_t used = 0;

    if (++write_calls >= refuse_from)
        return -EDQUOT;
    for (; used < n && used < 64 && left > 0; used++) {
        cut[used] = pieces[used];
        cut[used].len = cut[used].len < left ? cut[used].len : (size_t)left;
        left -= cut[used].len;
    }
    return os_real_pwritev(fd, cut, used, off);
}

static int64_t short_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
    if (++write_calls >= refuse_from)
        return -EDQUOT;
    return os_real_pwrite(fd, buf, len < write_most ? len : (size_t)write_most, off);
}

static void commit_to(int fd, int want)
{
    unsigned char bytes[LEN], got[LEN];
    kist_pages_options opt = { .size = sizeof opt, .page_bytes = PAGE, .cache_pages = 4 };
    kist_device device;
    kist_pages *p;
    kist_writer *w;

    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (unsigned char)mix(write_most, i);
    must_ok(kist_device_open(&device, fd, KIST_DEVICE_PREAD));
    must_ok(kist_pages_open(&p, &device, &opt));
    must_ok(kist_writer_open(&w, p, NULL));
    must_ok(kist_writer_write(w, 0, bytes, LEN));
    must_rc(kist_writer_commit(w), want);
    if (want != KIST_OK) {
        must_ok(kist_writer_read(w, 0, got, LEN));
        must(memcmp(got, bytes, LEN) == 0);
        refuse_from = UINT64_MAX;
        must_ok(kist_writer_commit(w));
    }
    must(pread(fd, got, LEN, 0) == LEN && memcmp(got, bytes, LEN) == 0);
    kist_writer_close(w);
    kist_pages_close(p);
    kist_device_close(&device);
}

TEST(a_short_write_is_continued_where_it_ended_and_one_that_is_refused_is_told)
{
    char *dir = tmp_dir(TMP_FAST), *path = path_join(dir, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    must(fd >= 0);
    os_seam.pwritev = short_pwritev;
    os_seam.pwrite = short_pwrite;
    refuse_from = UINT64_MAX;
    for (write_most = 1; write_most <= LEN; write_most += write_most < 10 ? 1 : 37)
        commit_to(fd, KIST_OK);
    write_most = PAGE + 3;
    for (uint64_t n = 1; n <= 5; n++) {
        write_calls = 0;
        refuse_from = n;
        commit_to(fd, KIST_EQUOTA);
    }
    os_seam.pwritev = os_real_pwritev;
    os_seam.pwrite = os_real_pwrite;
    (void)close(fd);
    free(path);
    free(dir);
}

/* ---- a system that refuses -------------------------------------------- */

static int refuse(void)
{
    return -EPERM;
}

static int64_t failing_pread(int fd, void *buf, size_t len, uint64_t off)
{
    (void)fd, (void)buf, (void)len, (void)off;
    return -EIO;
}

/* The guard caught something, and the file is as long as ever: its medium. */
static int fault_copy_fails(void *to, const void *from, size_t len)
{
    (void)to, (void)from, (void)len;
    return -EFAULT;
}

TEST(no_guard_no_guarded_device_and_a_failing_medium_is_an_error)
{
    char *dir = tmp_dir(TMP_FAST), *path = path_join(dir, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    kist_device device;
    kist_pages *p;
    uint8_t v = 0;

    must(fd >= 0 && write(fd, "abc", 3) == 3);
    os_seam.fault_guard = refuse;
    must_rc(kist_device_open(&device, fd, KIST_DEVICE_GUARDED), -EPERM);
    must(device.arg == NULL);
    os_seam.fault_guard = os_real_fault_guard;
    must_ok(kist_device_open(&device, fd, KIST_DEVICE_GUARDED));
    must_ok(kist_pages_open(&p, &device, NULL));
    os_seam.fault_copy = fault_copy_fails;
    os_seam.pread = failing_pread;
    must_rc(kist_pages_get_u8(p, 1, &v), -EIO);
    os_seam.pread = os_real_pread;
    must_ok(kist_pages_get_u8(p, 1, &v));
    must(v == 'b');
    os_seam.fault_copy = os_real_fault_copy;
    kist_pages_close(p);
    kist_device_close(&device);
    (void)close(fd);
    free(path);
    free(dir);
}
