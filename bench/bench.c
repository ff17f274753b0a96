/*
 * kist-bench - how fast kist is, beside what cannot be beaten and beside
 * others. README.md says what the rows mean.
 */
#include "driver.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static void note_absent(const struct bench_set *set)
{
#ifndef HAVE_BTREEMAP
    if (set == &bench_set_ordered)
        fputs("kist-bench: built without rustc: the column of BTreeMap is left out\n", stderr);
#endif
    (void)set;
#ifndef HAVE_TKRZW
    fputs("kist-bench: built without tkrzw (libtkrzw-dev): its column is left out\n", stderr);
#endif
#ifndef HAVE_LMDB
    fputs("kist-bench: built without LMDB (liblmdb-dev): its column is left out\n", stderr);
#endif
}

int bench_fail(const char *engine, const char *what, const char *why)
{
    fprintf(stderr, "kist-bench: %s: %s: %s\n", engine, what, why);
    return -1;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static bool stop(void)
{
    return interrupted;
}

/* ---- options ---------------------------------------------------------- */

struct options {
    const struct bench_set *set;
    uint64_t entries;
    int rounds;
    const char *rows, *without, *dir;
    bool json, huge_pages, cpu_time, strict;
};

static int usage(FILE *to, const struct bench_set *set)
{
    fputs("usage: kist-bench [options]\n"
          "  -n, --entries N     records (1,000,000)\n"
          "  -r, --rounds N      rounds of each row, 1 to 99 (5)\n"
          "      --rows A,B,...  these rows only:\n",
          to);
    for (int i = 0; i < set->row_count; i++)
        fprintf(to, "%s%s%s", i % 8 ? " " : "                        ", set->rows[i].id,
                i % 8 == 7 || i + 1 == set->row_count ? "\n" : "");
    fputs("      --ordered       measure ordered banks; --help behind it names its rows\n"
          "      --without A,... leave out these engines\n"
          "      --dir DIR       work in a new folder below DIR ($TMPDIR, or /var/tmp); it is\n"
          "                      removed at the end\n"
          "      --huge          ask for huge pages for the limit's memory\n"
          "      --cpu-time      time what waits for no disk by the CPU time it takes, for a\n"
          "                      machine where others are at work\n"
          "      --json          print all figures of all rounds, as JSON\n"
          "      --strict        exit status 1 when a goal is missed\n",
          to);
    return to == stdout ? 0 : 2;
}

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && end != text && !*end && *text != '-' && *out >= least && *out <= most;
}

/* Is `word` one of the words in `list`, between commas? */
static bool listed(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, len) == 0 && (at[len] == ',' || !at[len]))
            return true;
    }
    return false;
}

static int words(const char *list)
{
    int n = 1;

    for (; *list; list++)
        n += *list == ',';
    return n;
}

static int choose_rows(const struct bench_set *set, const char *list)
{
    int found = 0;

    for (int i = 0; i < set->row_count; i++)
        found += set->rows[i].wanted = !list || listed(list, set->rows[i].id);
    return !list || found == words(list) ? 0 : bench_fail("bench", list, "no such row");
}

static int options_read(struct options *o, int argc, char **argv)
{
    enum { ROWS = 256, WITHOUT, DIR_, JSON, HUGE_, CPU_TIME, STRICT, ORDERED, HELP };
    static const struct option names[] = {
        { "entries", required_argument, NULL, 'n' },
        { "rounds", required_argument, NULL, 'r' },
        { "rows", required_argument, NULL, ROWS },
        { "without", required_argument, NULL, WITHOUT },
        { "dir", required_argument, NULL, DIR_ },
        { "json", no_argument, NULL, JSON },
        { "huge", no_argument, NULL, HUGE_ },
        { "cpu-time", no_argument, NULL, CPU_TIME },
        { "strict", no_argument, NULL, STRICT },
        { "ordered", no_argument, NULL, ORDERED },
        { "help", no_argument, NULL, HELP },
        { NULL, 0, NULL, 0 },
    };
    uint64_t rounds;

    for (int c; (c = getopt_long(argc, argv, "n:r:", names, NULL)) != -1;) {
        switch (c) {
        case 'n':
            if (!number(optarg, 1000, 1u << 30, &o->entries))
                return bench_fail("bench", optarg, "not a number of entries (1,000 to 2^30)");
            break;
        case 'r':
            if (!number(optarg, 1, ROUNDS_MAX, &rounds))
                return bench_fail("bench", optarg, "not a number of rounds (1 to 99)");
            o->rounds = (int)rounds;
            break;
        case ROWS:
            o->rows = optarg;
            break;
        case WITHOUT:
            o->without = optarg;
            break;
        case DIR_:
            o->dir = optarg;
            break;
        case JSON:
            o->json = true;
            break;
        case HUGE_:
            o->huge_pages = true;
            break;
        case CPU_TIME:
            o->cpu_time = true;
            break;
        case STRICT:
            o->strict = true;
            break;
        case ORDERED:
            o->set = &bench_set_ordered;
            break;
        case HELP:
            exit(usage(stdout, o->set));
        default:
            exit(usage(stderr, o->set));
        }
    }
    if (optind < argc)
        exit(usage(stderr, o->set));
    return choose_rows(o->set, o->rows);
}

/* ---- where it runs ---------------------------------------------------- */

static void find_processor(char *out, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];

    (void)snprintf(out, size, "unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        const char *name = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && name) {
            (void)snprintf(out, size, "%s, %ld cores", strtok(line + (name + 2 - line), "\n"),
                           sysconf(_SC_NPROCESSORS_ONLN));
            break;
        }
    }
    if (f)
        (void)fclose(f);
}

static int run(const struct options *o, struct bench *b, const char *dir)
{
    char processor[320], kernel[160];
    struct utsname u;
    struct report_head head = {
        .dir = o->dir,
        .file_system = files_system(dir),
        .processor = processor,
        .kernel = kernel,
    };

    (void)getloadavg(&head.load_before, 1);
    find_processor(processor, sizeof processor);
    (void)uname(&u);
    (void)snprintf(kernel, sizeof kernel, "%s %s", u.sysname, u.release);
    if (strcmp(head.file_system, "tmpfs") == 0)
        fputs("kist-bench: this is memory, not a disk; sizes and durable puts mean nothing\n",
              stderr);
    if (rows_run(b) < 0)
        return -1;
    (void)getloadavg(&head.load_after, 1);
    (o->json ? report_json : report_print)(stdout, b, &head);
    return 0;
}

static int columns_init(struct bench *b, const struct options *o, const char *dir)
{
    for (int i = 0; i < o->set->engine_count; i++) {
        const struct bench_engine *e = o->set->engines[i];
        struct column *c = &b->column[b->columns];
        if (o->without && listed(o->without, e->name))
            continue;
        *c = (struct column){ .engine = e };
        if ((size_t)snprintf(c->dir, sizeof c->dir, "%s/%s", dir, e->name) >= sizeof c->dir)
            return bench_fail("bench", dir, strerror(ENAMETOOLONG));
        if (mkdir(c->dir, 0700) < 0)
            return bench_fail("bench", c->dir, strerror(errno));
        b->columns++;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static struct bench b;
    const char *tmp = getenv("TMPDIR");
    struct options o = { .set = &bench_set_hash, .entries = 1000000, .rounds = 5, .dir = tmp ? tmp : "/var/tmp" };
    struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    char dir[PATH_BYTES];
    int rc;

    if (options_read(&o, argc, argv) < 0)
        return 2;
    b.set = o.set;
    b.entries = o.entries;
    b.rounds = o.rounds;
    b.huge_pages = o.huge_pages;
    b.cpu_time = o.cpu_time;
    b.progress = isatty(STDERR_FILENO);
    note_absent(o.set);
    /* All stores, one more while it is replaced, and growth by overwriting. */
    if (files_free(o.dir) < o.entries * 20 * BENCH_PAYLOAD_BYTES)
        return bench_fail("bench", o.dir, "not enough room on its disk; choose another with --dir"),
               2;
    if (files_make(dir, sizeof dir, o.dir) < 0)
        return 2;
    rows_stop = stop;
    (void)sigaction(SIGINT, &act, NULL);
    (void)sigaction(SIGTERM, &act, NULL);
    rc = columns_init(&b, &o, dir);
    if (rc == 0)
        rc = b.set->init(&b);
    if (rc == 0)
        rc = run(&o, &b, dir);
    if (files_remove(dir) < 0)
        rc = -1;
    b.set->free(&b);
    if (rc < 0)
        return 2;
    return o.strict && report_missed(&b) ? 1 : 0;
}
