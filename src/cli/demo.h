/*
 * kist-demo: what its files share.
 *
 * Everything that more than one process touches is in `struct demo_shared`,
 * an anonymous mapping made before the first fork, or in the corpus, an
 * unlinked file with a copy of all file contents that nobody changes.
 */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include <kist/kist.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- times, by logarithm: 32 steps to each doubling -------------------- */

enum { TIMES_STEPS = 32, TIMES_BUCKETS = 60 * TIMES_STEPS };

struct times {
    _Atomic uint64_t count[TIMES_BUCKETS];
};

void times_add(struct times *times, uint64_t ns);
uint64_t times_count(const struct times *times);
/* The time that `share` of all stay below, in ns; 0 when there are none. */
uint64_t times_quantile(const struct times *times, double share);

/* ---- entries ---------------------------------------------------------- */

/* A file of the corpus, and the key it is loaded under. */
struct entry {
    char *path;
    const char *key; /* within path */
    uint32_t key_len;
    uint32_t size;
    uint64_t at; /* of its content in the corpus */
};

/* How far an entry's versions have come. */
struct versions {
    _Atomic uint64_t attempted; /* a put of it has begun */
    _Atomic uint64_t acked;     /* its put has returned */
    _Atomic uint64_t seen;      /* a reader has been handed it */
};

enum { READERS = 2 };

struct reader_tally {
    _Atomic uint64_t reads, bytes;
    _Atomic uint64_t wrong_bytes; /* differ from what was stored */
    _Atomic uint64_t stale;       /* whole, but older than it may be, or newer */
    _Atomic uint64_t missing;     /* a key that is always there was not found */
    _Atomic uint64_t errors;
    struct times gets;
};

enum writer_place { WRITER_OUTSIDE, WRITER_IN_PUT, WRITER_IN_COMPACT };

struct demo_shared {
    _Atomic bool stop;
    _Atomic int writer_place; /* enum writer_place */
    _Atomic uint64_t fuse;    /* after so many puts the writer ends itself; 0: never */
    _Atomic uint64_t puts, put_bytes, compactions;
    _Atomic bool failed;
    char failure[512]; /* written by who set `failed` */
    struct times put_times;
    struct reader_tally readers[READERS];
    struct reader_tally last; /* of the reading at the end */
    struct versions versions[];
};

struct demo {
    const char *dir; /* whose files are taken */
    uint64_t want_bytes;
    unsigned want_kills;
    unsigned least_seconds, most_seconds; /* of killing */

    char home[4096];  /* temporary directory; "" when there is none */
    char store[4112]; /* in it */

    struct entry *entries;
    size_t count, room;
    uint64_t files_found, files_unreadable;
    uint64_t payload; /* keys and values */
    unsigned char *corpus;
    uint64_t corpus_len;

    struct demo_shared *shared;
    size_t shared_len;

    uint64_t load_ns;
    uint64_t disk_bytes, reserved_bytes; /* after loading */
    uint64_t end_disk_bytes;
    unsigned kills, kills_in_put, kills_in_compact;
    uint64_t churn_ns;
    kist_report verified;
};

/* demo_corpus.c: choose the files; copy and load them. Return false and have
 * told why when it cannot be done. */
bool corpus_choose(struct demo *d);
bool corpus_load(struct demo *d);
void corpus_free(struct demo *d);
/* What the files of the store take on disk. */
uint64_t disk_usage(const struct demo *d);

/* demo_value.c: a value is the file's bytes, mixed with its version. */
enum { VALUE_HEAD = 32, VALUE_TAIL = 16 };

static inline size_t value_len(const struct entry *e)
{
    return VALUE_HEAD + (size_t)e->size + VALUE_TAIL;
}

void value_make(unsigned char *out, const struct demo *d, size_t index, uint64_t version);
/* The number of bytes that are not as they were stored; *version is set when
 * that is 0. */
uint64_t value_check(kist_bytes value, const struct demo *d, size_t index, uint64_t *version);

/* demo_roles.c: what the child processes do, till `stop`; their exit status.
 * read_entry() fetches one entry and checks it, timed or not. */
int reader_run(struct demo *d, unsigned number);
int writer_run(struct demo *d, uint64_t seed);
void read_entry(struct demo *d, kist_bank *bank, size_t index, struct reader_tally *tally);
kist_bank *demo_open(struct demo *d, kist_store **store, bool writing);
/* Remember why the demonstration failed; the first one counts. */
void demo_fail(struct demo *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
void demo_fail_kist(struct demo *d, const char *doing, int rc);
uint64_t random_next(uint64_t *state);

/* demo_kill.c: readers, and one writer after another, killed. */
void churn_run(struct demo *d);

/* demo_report.c */
void report_print(const struct demo *d);
/* Whatever must not be: wrong, stale, missing, errors. */
uint64_t report_faults(const struct demo *d);

extern volatile int demo_interrupted; /* a signal asks to stop */

#endif
