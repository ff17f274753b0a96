/*
 * driver - the parts of the benchmark's driver: bench.c reads the options and
 * leads through the run, data.c makes keys and values, rows.c measures,
 * report.c compares and prints, files.c looks after the folder.
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

/* ---- rows (rows.c) ---------------------------------------------------- */

struct column {
    const struct bench_engine *engine;
    void *self;       /* NULL: closed */
    unsigned version; /* of the values it holds; 0: not loaded */
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

struct bench {
    struct data data;
    struct values values;
    struct column column[COLUMNS_MAX];
    int columns;
    int rounds;
    bool huge_pages;
    bool cpu_time; /* gets and overwrites by the thread's clock of CPU time */
    bool progress; /* say on stderr what is being done */
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

extern struct row bench_rows[];
extern const int bench_row_count;

int rows_run(struct bench *b);
/* Is the engine of this column one of the row's? */
bool row_has(const struct row *r, const struct column *c);
/* Asked now and then: was the run interrupted? */
extern bool (*rows_stop)(void);

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
