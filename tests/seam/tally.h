/*
 * tally - what a row has counted, in memory that its workers share: cases,
 * distinct states, failures with their first few explained (all of them with
 * KIST_TEST_ALL), and skips.
 */
#ifndef KIST_TESTS_SEAM_TALLY_H
#define KIST_TESTS_SEAM_TALLY_H

#include "support.h"

struct tally;

struct tally *tally_new(const char *row);
void tally_case(struct tally *t);
void tally_state(struct tally *t, uint64_t hash); /* counted once per hash */
void tally_skip(struct tally *t, uint64_t cases, const char *why);
__attribute__((format(printf, 2, 3))) void tally_fail(struct tally *t, const char *format, ...);
uint64_t tally_failures(const struct tally *t);
uint64_t tally_cases(const struct tally *t);

/* Prints the row and ends the test as failed if something failed. */
void tally_end(struct tally *t);

/*
 * Cases 0 .. count - 1 by as many processes as there are processors, each of
 * which takes the next `chunk` of them. A case in which the library dies or
 * hangs is a failure, and the rest goes on.
 *
 *   run      in a child; in each chunk the indexes grow
 *   folders  one empty directory for each worker; see tally_folder()
 */
struct tally_job {
    struct tally *tally;
    uint64_t count, chunk;
    void (*run)(uint64_t index, void *arg);
    const char *(*tell)(uint64_t index, void *arg); /* names a case that died */
    void *arg;
};
void tally_run(const struct tally_job *job);

/* The worker's own directory, number 0 to 2; emptied before each chunk. */
const char *tally_folder(int number);

#endif
