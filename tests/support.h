/*
 * support - what the tests of kist share: cases that register themselves,
 * checks that hold in threads and forked children too, folders that vanish,
 * values that prove whose they are, and processes of one's own.
 *
 * A test file is a program: it includes this header, writes TEST(a_sentence)
 * as often as it likes, and main.c brings main().
 *
 *   KIST_TEST_SCALE  factor for the counts of cases; default 1
 *   KIST_TEST_SHARE  another factor, for a program that is run in several ways
 *   KIST_TEST_SEED   start of all random numbers; default 1
 *   KIST_TEST_CASE   of a row whose cases run in children: this one alone, in the
 *                    program itself
 *   KIST_TEST_INDEX  of banks that are made: hash, which is the default, or ordered;
 *                    it is added to the names of rows
 *   KIST_TEST_DIR    where folders are made; default: $TMPDIR or /var/tmp, and
 *                    /dev/shm where a test makes very many files
 */
#ifndef KIST_TESTS_SUPPORT_H
#define KIST_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

#include <kist/kist.h>

/* kist_bank_open(), which makes banks of the kind that KIST_TEST_INDEX names, where
 * the test names none. */
int test_bank_open(kist_bank **out, kist_store *store, const char *name,
                   const kist_bank_options *opt);
#define kist_bank_open(out, store, name, opt) test_bank_open(out, store, name, opt)

/* ---- cases ------------------------------------------------------------ */

void test_add(const char *name, void (*run)(void **state)); /* in main.c */

/* What main() does first and last; a program with a main() of its own may do
 * without (then a failed check aborts). */
void support_begin(void);
void support_end(void);

#define TEST(name)                                                                                 \
    static void test_##name(void);                                                                 \
    static void run_##name(void **state)                                                           \
    {                                                                                              \
        (void)state;                                                                               \
        test_##name();                                                                             \
    }                                                                                              \
    __attribute__((constructor)) static void add_##name(void)                                      \
    {                                                                                              \
        test_add(#name, run_##name);                                                               \
    }                                                                                              \
    static void test_##name(void)

/* Says why and ends the case as skipped. */
_Noreturn void test_skip(const char *why);

/* First in a case that looks at a store's files, or shares them with children:
 * it is skipped where memory.c has put them into memory. */
void test_needs_files(void);
extern bool test_in_memory;

uint64_t test_scaled(uint64_t count); /* times KIST_TEST_SCALE, at least 1 */
uint64_t test_seed(void);

/* ---- checks ----------------------------------------------------------- */

/* Both end the case; in a child they end the child, in a second thread the
 * whole program. */
#define must(condition)                                                                            \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition, "is false"))
#define must_rc(call, want) test_rc(__FILE__, __LINE__, #call, (call), (want))
#define must_ok(call) must_rc(call, KIST_OK)

/* Where a test stands, among many cases: failed checks print it, with the
 * seed; the note may be NULL. */
extern uint64_t test_case;
extern const char *test_note;

void test_fail(const char *file, int line, const char *what, const char *why);
void test_rc(const char *file, int line, const char *call, int got, int want);

/* ---- the summary line of a row ---------------------------------------- */

struct row {
    const char *id;
    uint64_t cases, states, failures, skipped;
};

/* Prints `ROW <id> cases=...`; more facts belong on a line of their own. */
void row_print(const struct row *row);

/* ---- folders ---------------------------------------------------------- */

enum tmp_kind { TMP_DISK, TMP_FAST };

/* A new empty folder; removed when the program ends. The caller frees it. */
char *tmp_dir(enum tmp_kind kind);
void tmp_remove(const char *dir);
char *path_join(const char *dir, const char *name); /* the caller frees it */

/* A checksum over names, kinds, modes, sizes and bytes of all below `dir`. */
uint64_t tree_hash(const char *dir);
uint64_t tree_blocks(const char *dir); /* bytes by st_blocks, folders too */
void tree_copy(const char *from, const char *to);

/* ---- random numbers and values ---------------------------------------- */

struct rng {
    uint64_t state;
};

uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound); /* 0 .. bound - 1 */
uint64_t mix(uint64_t a, uint64_t b);                /* a hash of both */

/*
 * The value of a key at a version: a length and bytes that follow from both.
 *
 *   value_make   writes it to buf (VALUE_CAP bytes), returns the length
 *   value_check  true: whole, and of this key; *version receives which
 */
enum { VALUE_MIN = 24, VALUE_CAP = 4096 };
size_t value_make(void *buf, uint64_t key, uint64_t version);
bool value_check(kist_bytes value, uint64_t key, uint64_t *version);

/* The same with a length that is given, VALUE_MIN or more. */
void value_fill(void *buf, size_t len, uint64_t key, uint64_t version);

/* ---- processes -------------------------------------------------------- */

enum { CHILD_FAILED = 97, CHILD_SKIPPED = 98 };

/* A child that runs `body` and exits with 0; a failed check makes it exit
 * with CHILD_FAILED. It dies with its parent. */
pid_t child_start(void (*body)(void *arg), void *arg);
int child_wait(pid_t pid); /* returns the wait status */
void child_kill(pid_t pid);
void must_end_well(pid_t pid); /* waits; skips the case at CHILD_SKIPPED */

/* Run it in a child, and wait. */
void in_child(void (*body)(void *arg), void *arg);

/* Zeroed memory that children share with this process. */
void *shared_memory(size_t len);

/*
 * Cases first .. last - 1, run in children that die without harm to the rest:
 * one child goes on from case to case until it dies; the next begins behind.
 * A case that lasts longer than half a minute counts as dead.
 */
struct batch {
    void (*run)(uint64_t index, void *arg);
    void (*died)(uint64_t index, int status, void *arg);
    void *arg;
};
void batch_run(const struct batch *batch, uint64_t first, uint64_t last);

/* ---- kist, shortened -------------------------------------------------- */

kist_bytes text(const char *s);
kist_bytes number(uint64_t n); /* eight bytes, good until the 16th call after */

kist_store *open_store(const char *dir);                   /* made if missing */
kist_bank *open_bank(kist_store *store, const char *name); /* made if missing */
void put_text(kist_bank *bank, const char *key, const char *value);
/* `value` NULL: the key must have none. */
void must_hold(kist_bank *bank, const char *key, const char *value);
uint64_t count_of(kist_bank *bank);
void must_verify(kist_bank *bank); /* whole, says kist_verify() */

/* Whoever is killed in the middle of a sync leaves the bank poisoned, as if
 * that sync had failed. True for KIST_EPOISON, after kist_repair(); then the
 * call that said so has changed nothing. */
bool mended(kist_store *store, const char *name, int rc);
/* Close both; the sync of a close may be the first to find the poison. */
void must_close(kist_bank *bank, kist_store *store);

/* A store of one bank in a folder of its own. */
struct fixture {
    char *dir;
    kist_store *store;
    kist_bank *bank;
};
struct fixture fixture_open(void);
struct fixture fixture_open_with(const kist_bank_options *opt);
void fixture_close(struct fixture *f);

#endif
