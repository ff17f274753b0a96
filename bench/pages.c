/*
 * kist-bench-pages - what a read through the page cache costs, beside a plain
 * load from a mapped file, memcpy and pread; and how often the cache hits,
 * beside a direct-mapped one of the same size. README.md says what the rows
 * mean.
 *
 * usage: kist-bench-pages [--rounds=N] [--strict]
 */
#include <kist/pages.h>

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    CACHE = 1024,           /* pages; the defaults of the library */
    FITS = CACHE * PAGE,    /* bytes that fit into the cache */
    FILE_BYTES = 16 * FITS, /* and of the whole file */
    WORDS = PAGE / 4,
    RANDOM_READS = 1 << 20,
    PREADS = 1 << 16,
    ROUNDS_MAX = 99,
};

static int fd;
static const uint32_t *map;        /* of the whole file */
static kist_pages *lends, *copies; /* caches over it: by memory map, by pread */
static uint32_t *order;            /* random places of words within FITS, RANDOM_READS of them */
static uint32_t checksum;          /* what all sums are added to, so that none is left out */

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(2);
}

static void check(int rc, const char *what)
{
    if (rc == KIST_OK)
        return;
    fprintf(stderr, "kist-bench-pages: %s: %s\n", what, kist_strerror(rc));
    exit(2);
}

static double now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * UINT64_C(0xbf58476d1ce4e5b9) + 1;
    x = (x ^ (x >> 29)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 32);
}

/* ---- what is timed: each returns a sum, and how many words it read ------ */

__attribute__((noinline)) static uint32_t sum(const uint32_t *words, size_t n)
{
    uint32_t s = 0;

    for (size_t i = 0; i < n; i++)
        s += words[i];
    return s;
}

static uint32_t plain_sequence(uint64_t bytes)
{
    uint32_t s = 0;

    for (uint64_t at = 0; at < bytes; at += PAGE)
        s += sum(map + at / 4, WORDS);
    return s;
}

static uint32_t memcpy_sequence(uint64_t bytes)
{
    static uint32_t page[WORDS];
    uint32_t s = 0;

    for (uint64_t at = 0; at < bytes; at += PAGE) {
        memcpy(page, map + at / 4, PAGE);
        s += sum(page, WORDS);
    }
    return s;
}

static uint32_t pread_sequence(uint64_t bytes)
{
    static uint32_t page[WORDS];
    uint32_t s = 0;

    for (uint64_t at = 0; at < bytes; at += PAGE) {
        if (pread(fd, page, PAGE, (off_t)at) != PAGE)
            die("pread");
        s += sum(page, WORDS);
    }
    return s;
}

static uint32_t slices(kist_pages *p, uint64_t bytes)
{
    kist_slice slice = { 0 };
    uint32_t s = 0;
    int rc = kist_pages_load(p, 0, 1, &slice);

    while (rc == KIST_OK && slice.addr < bytes) {
        s += sum(slice.bytes.data, slice.bytes.len / 4);
        rc = kist_pages_next(p, &slice);
    }
    check(rc == KIST_END ? KIST_OK : rc, "slices");
    kist_slice_release(p, &slice);
    return s;
}

static uint32_t slices_lent(uint64_t bytes)
{
    return slices(lends, bytes);
}

static uint32_t slices_copied(uint64_t bytes)
{
    return slices(copies, bytes);
}

static uint32_t getters(kist_pages *p, uint64_t bytes)
{
    uint32_t s = 0, v = 0;

    for (uint64_t at = 0; at < bytes; at += 4) {
        check(kist_pages_get_u32_ne(p, at, &v), "get");
        s += v;
    }
    return s;
}

static uint32_t getters_lent(uint64_t bytes)
{
    return getters(lends, bytes);
}

static uint32_t getters_copied(uint64_t bytes)
{
    return getters(copies, bytes);
}

static uint32_t plain_random(uint64_t n)
{
    uint32_t s = 0;

    for (uint64_t i = 0; i < n; i++)
        s += map[order[i]];
    return s;
}

static uint32_t get_random(kist_pages *p, uint64_t n)
{
    uint32_t s = 0, v = 0;

    for (uint64_t i = 0; i < n; i++) {
        check(kist_pages_get_u32_ne(p, (uint64_t)order[i] * 4, &v), "get");
        s += v;
    }
    return s;
}

static uint32_t get_random_lent(uint64_t n)
{
    return get_random(lends, n);
}

static uint32_t get_random_copied(uint64_t n)
{
    return get_random(copies, n);
}

static uint32_t pread_random(uint64_t n)
{
    uint32_t s = 0, v;

    for (uint64_t i = 0; i < n; i++) {
        if (pread(fd, &v, 4, (off_t)order[i] * 4) != 4)
            die("pread");
        s += v;
    }
    return s;
}

/* Each read waits for the one before: its place depends on what that found. */
static uint32_t plain_chain(uint64_t n)
{
    uint32_t v = 0;

    for (uint64_t i = 0; i < n; i++)
        v = map[order[i] ^ (v & 1)];
    return v;
}

static uint32_t get_chain(kist_pages *p, uint64_t n)
{
    uint32_t v = 0;

    for (uint64_t i = 0; i < n; i++)
        check(kist_pages_get_u32_ne(p, (uint64_t)(order[i] ^ (v & 1)) * 4, &v), "get");
    return v;
}

static uint32_t get_chain_lent(uint64_t n)
{
    return get_chain(lends, n);
}

static uint32_t get_chain_copied(uint64_t n)
{
    return get_chain(copies, n);
}

/* ---- rows ------------------------------------------------------------- */

enum column { PLAIN, GETTER, GETTER_COPY, SLICES, SLICES_COPY, MEMCPY, PREAD, COLUMNS };

static const char *const column_names[COLUMNS] = { "mapped load",  "get, mmap",     "get, pread",
                                                   "slices, mmap", "slices, pread", "memcpy",
                                                   "pread" };

static struct row {
    const char *name;
    uint64_t arg;   /* bytes, or reads */
    uint64_t reads; /* 32-bit words */
    uint32_t (*run[COLUMNS])(uint64_t arg);
    double ns[COLUMNS]; /* the median, a word */
} rows[] = {
    { "in a row, in the cache",
      FITS,
      FITS / 4,
      { plain_sequence, getters_lent, getters_copied, slices_lent, slices_copied, memcpy_sequence,
        pread_sequence },
      { 0 } },
    { "in a row, 16 x the cache",
      FILE_BYTES,
      FILE_BYTES / 4,
      { plain_sequence, getters_lent, getters_copied, slices_lent, slices_copied, memcpy_sequence,
        pread_sequence },
      { 0 } },
    { "random, in the cache",
      RANDOM_READS,
      RANDOM_READS,
      { plain_random, get_random_lent, get_random_copied, NULL, NULL, NULL, NULL },
      { 0 } },
    { "random, each after the last",
      RANDOM_READS,
      RANDOM_READS,
      { plain_chain, get_chain_lent, get_chain_copied, NULL, NULL, NULL, NULL },
      { 0 } },
    { "random, by a system call",
      PREADS,
      PREADS,
      { plain_random, get_random_lent, get_random_copied, NULL, NULL, NULL, pread_random },
      { 0 } },
};
enum { ROWS = sizeof rows / sizeof *rows };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* In each round every column has its turn, after one that is not timed. */
static void measure(struct row *row, int rounds)
{
    double ns[COLUMNS][ROUNDS_MAX];

    for (int round = -1; round < rounds; round++)
        for (int c = 0; c < COLUMNS; c++) {
            double begin = now_ns();

            if (!row->run[c])
                continue;
            checksum += row->run[c](row->arg);
            if (round >= 0)
                ns[c][round] = (now_ns() - begin) / (double)row->reads;
        }
    for (int c = 0; c < COLUMNS; c++) {
        if (!row->run[c])
            continue;
        qsort(ns[c], (size_t)rounds, sizeof(double), by_size);
        row->ns[c] = ns[c][rounds / 2];
    }
}

static void print_rows(void)
{
    printf("ns a 32-bit read          ");
    for (int c = 0; c < COLUMNS; c++)
        printf(" %13s", column_names[c]);
    printf("\n");
    for (int r = 0; r < ROWS; r++) {
        printf("%-30s", rows[r].name);
        for (int c = 0; c < COLUMNS; c++)
            if (rows[r].run[c])
                printf(c == 0 ? "%10.2f" : "%14.2f", rows[r].ns[c]);
            else
                printf("%14s", "-");
        printf("\n");
    }
}

/* ---- how often it hits ------------------------------------------------ */

enum { ACCESSES = 200000, ZIPF_PAGES = 10000 };

static uint64_t trace[ACCESSES];
static double zipf_sums[ZIPF_PAGES];

static void zipf_trace(double skew)
{
    double total = 0;

    for (int i = 0; i < ZIPF_PAGES; i++)
        zipf_sums[i] = total += 1 / pow(i + 1, skew);
    for (int i = 0; i < ACCESSES; i++) {
        double x = (double)(mix((uint64_t)i + 7) >> 11) / (double)(UINT64_C(1) << 53) * total;
        int from = 0, to = ZIPF_PAGES - 1;

        while (from < to) {
            int middle = (from + to) / 2;

            if (zipf_sums[middle] < x)
                from = middle + 1;
            else
                to = middle;
        }
        /* ranks are spread over the pages: 7,919 and 10,000 have no factor in common */
        trace[i] = (uint64_t)from * 7919 % ZIPF_PAGES;
    }
}

static void strided_trace(uint64_t stride, uint64_t pages)
{
    for (uint64_t i = 0; i < ACCESSES; i++)
        trace[i] = i % pages * stride;
}

/* A device of pages of one byte, so that addresses are numbers of pages. */
static int64_t endless(void *arg, uint64_t pos, void *buf, size_t len)
{
    (void)arg;
    memset(buf, (int)pos, len);
    return (int64_t)len;
}

/* Returns the share of hits; *frames: how many pages the cache holds. */
static double kist_ratio(uint64_t *frames)
{
    kist_device device = { .size = sizeof device, .map = endless };
    kist_pages_options opt = { .size = sizeof opt, .page_bytes = 1, .cache_pages = CACHE };
    kist_pages_stats stats = { .size = sizeof stats };
    kist_pages *p;
    uint8_t v = 0;

    check(kist_pages_open(&p, &device, &opt), "open");
    for (int i = 0; i < ACCESSES; i++)
        check(kist_pages_get_u8(p, trace[i], &v), "get");
    check(kist_pages_stat(p, &stats), "stat");
    if (frames)
        *frames = stats.resident;
    kist_pages_close(p);
    checksum += v;
    return (double)stats.hits / (double)(stats.hits + stats.misses);
}

static double direct_ratio(uint64_t slots, bool hashed)
{
    uint64_t *slot = malloc(slots * sizeof *slot);
    uint64_t hits = 0;

    if (!slot)
        die("malloc");
    memset(slot, 0xff, slots * sizeof *slot);
    for (int i = 0; i < ACCESSES; i++) {
        uint64_t *at = &slot[(hashed ? mix(trace[i]) : trace[i]) % slots];

        hits += *at == trace[i];
        *at = trace[i];
    }
    free(slot);
    return (double)hits / ACCESSES;
}

/* Print one trace; true: above both direct-mapped caches, or it holds all pages
 * and each misses only once. */
static bool print_ratio(const char *name, uint64_t frames, bool all_fit)
{
    double kist = kist_ratio(NULL), modulo = direct_ratio(frames, false),
           hashed = direct_ratio(frames, true);
    double best = modulo > hashed ? modulo : hashed;
    bool good = kist > best || (all_fit && kist == best);

    printf("%-34s %8.3f %16.3f %16.3f%s\n", name, kist, modulo, hashed,
           good ? "" : "   below a direct-mapped one");
    return good;
}

static bool ratios(void)
{
    static const double skews[] = { 0.6, 0.8, 0.99, 1.2 };
    static const uint64_t strides[] = { 1, 2, 7, 64, 100, 128, 1000, 1024, 1025, 4096 };
    static const uint64_t sizes[] = { 900, 1200, 1536, 3000 };
    uint64_t frames;
    bool good = true;
    char name[64];

    strided_trace(1, 2 * CACHE);
    (void)kist_ratio(&frames); /* what a full cache holds is what the others get */
    printf("\nshare of hits, %" PRIu64 " pages        kist    direct, modulo   direct, hashed\n",
           frames);
    for (size_t i = 0; i < sizeof skews / sizeof *skews; i++) {
        zipf_trace(skews[i]);
        (void)snprintf(name, sizeof name, "Zipf %.2f over %d pages", skews[i], ZIPF_PAGES);
        good &= print_ratio(name, frames, false);
    }
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            strided_trace(strides[i], sizes[k]);
            (void)snprintf(name, sizeof name, "%" PRIu64 " pages, %" PRIu64 " apart", sizes[k],
                           strides[i]);
            good &= print_ratio(name, frames, sizes[k] <= frames);
        }
    return good;
}

/* ---- goals ------------------------------------------------------------ */

static bool goal(const char *what, double is, double most)
{
    printf("%-58s %6.2f   goal: at most %.2f%s\n", what, is, most, is <= most ? "" : "   MISSED");
    return is <= most;
}

static bool goals(void)
{
    bool good = true;

    printf("\n");
    good &= goal("random hit, by mmap: ns over a mapped load",
                 rows[2].ns[GETTER] - rows[2].ns[PLAIN], 4);
    good &= goal("random hit, by pread: ns over a mapped load",
                 rows[2].ns[GETTER_COPY] - rows[2].ns[PLAIN], 4);
    good &= goal("hit in a row: ns over a mapped load", rows[0].ns[GETTER] - rows[0].ns[PLAIN], 4);
    good &= goal("hit that waits for the last: ns over a mapped load",
                 rows[3].ns[GETTER] - rows[3].ns[PLAIN], 4);
    good &= goal("slices in a row, in the cache: time / a mapped load's",
                 rows[0].ns[SLICES] / rows[0].ns[PLAIN], 1.2);
    good &= goal("slices in a row, 16 x the cache: time / a mapped load's",
                 rows[1].ns[SLICES] / rows[1].ns[PLAIN], 1.2);
    return good;
}

/* ---- setting up ------------------------------------------------------- */

static void make_file(void)
{
    const char *dir = getenv("TMPDIR");
    static uint32_t page[WORDS];

    fd = open(dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        die("temporary file");
    for (uint64_t at = 0; at < FILE_BYTES; at += PAGE) {
        for (int i = 0; i < WORDS; i++)
            page[i] = (uint32_t)mix(at + (uint64_t)i);
        if (pwrite(fd, page, PAGE, (off_t)at) != PAGE)
            die("temporary file");
    }
    map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    order = malloc(RANDOM_READS * sizeof *order);
    if (map == MAP_FAILED || !order)
        die("memory");
    for (uint64_t i = 0; i < RANDOM_READS; i++)
        order[i] = (uint32_t)(mix(i) % (FITS / 4));
}

static kist_pages *open_cache(uint32_t kind)
{
    static kist_device devices[4];
    kist_pages *p;

    check(kist_device_open(&devices[kind], fd, kind), "device");
    check(kist_pages_open(&p, &devices[kind], NULL), "cache");
    return p;
}

int main(int argc, char **argv)
{
    int rounds = 7;
    bool strict = false, good;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--strict") == 0)
            strict = true;
        else if (strncmp(argv[i], "--rounds=", 9) == 0 && atoi(argv[i] + 9) >= 1 &&
                 atoi(argv[i] + 9) <= ROUNDS_MAX)
            rounds = atoi(argv[i] + 9);
        else
            return fputs("usage: kist-bench-pages [--rounds=N] [--strict]\n", stderr), 2;
    }
    make_file();
    lends = open_cache(KIST_DEVICE_MMAP);
    copies = open_cache(KIST_DEVICE_PREAD);
    printf("kist %s, %d pages of %d bytes, median of %d rounds\n\n", kist_version(), CACHE, PAGE,
           rounds);
    for (int r = 0; r < ROWS; r++)
        measure(&rows[r], rounds);
    print_rows();
    good = goals();
    good &= ratios();
    printf("\n(all sums: %" PRIu32 ")\n", checksum);
    return strict && !good;
}
