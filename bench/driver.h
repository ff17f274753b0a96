/*
 * driver - the parts of the benchmark's driver: bench.c reads the options and
 * leads through the run, run.c goes through rows and rounds, rows.c has what is
 * measured of hash banks and ordered.c of ordered ones, data.c and keys.c make
 * keys and values for them, report.c compares and prints, files.c looks after
 * the folder.
 */
#ifndef KIST_BENCH_DRIVER_H
#define KIST_BENCH_DRIVER_H

#include "bench.h"

#include <stdio.h>

enum { PATH_BYTES = 4096, COLUMNS_MAX = 5, ROUNDS_MAX = 99 };

/* ---- keys and values (data.c) ----------------------------------------- */

/*
 * Keys are pseudo-random and all different. Their orders are laid out ahead,
 * so that the driver reads them one after the other and adds no cache miss to
 * what it measures. `order` is shuffled anew for each round: an engine that
 * appends would else find its records lying in the order of the last round.
 */
struct data {
    uint64_t entries;
    bench_key *all;    /* in the order of loading */
    bench_key *order;  /* all of them, shuffled */
    bench_key *absent; /* as many that are never stored */
    bench_key *sample; /* a random quarter as many, to warm up with */
    uint64_t samples;
    uint64_t random;
};

int data_init(struct data *d, uint64_t entries);
void data_free(struct data *d);
void data_shuffle(struct data *d);

/* The key of a number; all different. */
bench_key data_key(uint64_t number);
/* A random number below `limit`. */
uint64_t data_below(uint64_t *random, uint64_t limit);

/* One of 64 values, so that they stay in the nearest cache. */
struct values {
    _Alignas(64) unsigned char bytes[64][128];
};
void values_fill(struct values *v, unsigned version);

static inline const void *value_of(const struct values *v, const bench_key *key)
{
    return v->bytes[key->word[0] % 64];
}
/* The sum of the first bytes of all values at this version. */
uint64_t values_sum(const struct data *d, unsigned version);

/* ---- keys with an order (keys.c) -------------------------------------- */

enum key_shape {
    KEYS_SPREAD, /* random bytes */
    KEYS_GROUPS, /* the first half is a group's, random; the second counts up in it */
    KEYS_PREFIXES, /* the first key of each group */
};
enum { KEYS_GROUP = 100 }; /* keys of a group */

/* A key's number is its rank in byte order. `order` is all of them shuffled, and
 * `rank` has their numbers. */
struct key_set {
    uint64_t n; /* below 2^32; in groups: a multiple of KEYS_GROUP */
    bench_key *sorted, *order;
    uint32_t *rank;
    uint64_t random;
};

int keys_init(struct key_set *k, uint64_t n, enum key_shape shape);
void keys_free(struct key_set *k);
void keys_shuffle(struct key_set *k);

/* ---- running (run.c) -------------------------------------------------- */

struct column {
    const struct bench_engine *engine;
    void *self;       /* NULL: closed */
    unsigned version; /* of the values it holds; 0: not loaded */
    unsigned holds;      /* ordered.c: what its store has */
    unsigned char *held; /* ordered.c: by a key's rank, the version of its value */
    uint64_t disk_bytes;
    struct bench_use use;
    char dir[PATH_BYTES];
};

/* What was measured; in nanoseconds an operation, or bytes a payload byte. */
struct result {
    int rounds;
    double round[ROUNDS_MAX];
    double median;
};

struct bench_set;
struct bench {
    const struct bench_set *set;
    uint64_t entries;
    struct data data; /* for hash banks */
    struct key_set spread, groups, prefixes; /* for ordered ones */
    struct values values;
    struct column column[COLUMNS_MAX];
    int columns;
    int rounds;
    bool huge_pages;
    bool cpu_time; /* gets and overwrites by the thread's clock of CPU time */
    bool progress; /* say on stderr what is being done */
};

enum row_flag {
    WARM = 1,     /* read everything once before the first round */
    UNOPENED = 2, /* the turn opens the store itself */
    ONCE = 4,     /* one round is enough */
    SLICED = 8,   /* a round is many short turns in alternation: what the disk
                     is busy with otherwise then meets all alike */
    WRITES = 16,  /* memory that the page cache is to take is touched before */
    ROW_OWN = 256, /* multiples of it are for the set */
};

struct row {
    const char *id, *text, *unit;
    double scale;        /* nanoseconds of one `unit`; 1 where there is none */
    const char *engines; /* their names, separated by spaces */
    enum bench_mode mode;
    unsigned flags;
    int (*turn)(struct bench *b, struct column *c, double *result);
    bool wanted;
    struct result result[COLUMNS_MAX];
};

/*
 * What is to be compared. "At most" is row/engine divided by over_row/over;
 * "times faster" is the inverse; without `over` the figure itself is meant,
 * in the row's unit. `goal` is what the present version has to reach, `aim`
 * what the design does; 0: none.
 */
enum sense { AT_MOST, AT_LEAST };
struct comparison {
    const char *text;
    const char *row, *engine;
    const char *over_row, *over;
    enum sense sense;
    double goal, aim;
};

/* What is measured in one run. */
struct bench_set {
    const struct bench_engine *const *engines; /* in the order of the columns */
    int engine_count;
    struct row *rows;
    int row_count;
    const struct comparison *comparisons;
    int comparison_count;

    int (*init)(struct bench *b); /* make the keys */
    void (*free)(struct bench *b);
    void (*shuffle)(struct bench *b, const struct row *r); /* before each round */
    /* Before a row: have in the column's store what the row needs; read it all. */
    int (*prepare)(struct bench *b, const struct row *r, struct column *c);
    int (*warm)(struct bench *b, const struct row *r, struct column *c);
};

extern const struct bench_set bench_set_hash;    /* rows.c */
extern const struct bench_set bench_set_ordered; /* ordered.c */

/* Does an ordered engine give the answers of a plain sorted list? Works in a
 * folder beside the column's. (ordered_check.c) */
int ordered_check(const struct column *like);

int rows_run(struct bench *b);
/* Is the engine of this column one of the row's? */
bool row_has(const struct row *r, const struct column *c);
/* Asked now and then: was the run interrupted? */
extern bool (*rows_stop)(void);

/* For turns. */
double now_ns(void);
double work_ns(const struct bench *b); /* for what waits for no disk */
double median(const double *values, int n);

int column_open(struct bench *b, struct column *c, enum bench_mode mode);
int column_close(struct column *c);
/* Close it if its records outlive that. */
int column_rest(struct column *c);
/* Close it, and remove its files. */
int column_empty(struct column *c);
int column_read_begin(struct column *c);
void column_read_end(struct column *c);

/* ---- report (report.c) ------------------------------------------------ */

struct report_head {
    const char *dir, *file_system, *processor, *kernel;
    double load_before, load_after; /* others at work, and at the end this program */
};
void report_print(FILE *to, const struct bench *b, const struct report_head *head);
void report_json(FILE *to, const struct bench *b, const struct report_head *head);
/* How many goals were missed. */
int report_missed(const struct bench *b);

/* ---- files (files.c) -------------------------------------------------- */

int files_make(char *path, size_t size, const char *above);
int files_remove(const char *path);
/* Blocks of all regular files below `path`. */
int files_bytes(const char *path, uint64_t *bytes);
const char *files_system(const char *path);
/* Make a file of so many bytes beside `path`, and remove it. On a virtual
 * machine memory is slow at the first touch, when the host has to find it: who
 * takes new pages in a turn would be charged for that. */
int files_touch_memory(const char *path, uint64_t bytes);
uint64_t files_free(const char *path);

#endif
