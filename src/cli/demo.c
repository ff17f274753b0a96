/*
 * kist-demo: kist at its main job, on real files, with the lights on.
 *
 * It loads files into a bank of a temporary store, lets two processes read
 * and check them while a third rewrites them and is killed again and again,
 * and tells what came of it. demo_corpus.c loads, demo_roles.c reads and
 * writes, demo_kill.c kills, demo_value.c makes wrong bytes noticeable.
 */
#include "demo.h"
#include "fail.h"
#include "input.h"
#include "walk.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

volatile int demo_interrupted;

static void on_signal(int sig)
{
    demo_interrupted = sig;
}

static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    input_guard();
}

/* ---- the temporary directory ------------------------------------------ */

/* One on a file system that kist takes. */
static bool make_home(struct demo *d)
{
    const char *const places[] = { getenv("TMPDIR"), "/var/tmp", "/tmp", "." };
    char tried[64] = "";

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        kist_store_options options = { .size = sizeof options, .flags = KIST_STORE_CREATE };
        kist_store *store;
        int rc;

        if (places[i] == NULL || places[i][0] == '\0' || strlen(places[i]) > 4000)
            continue;
        (void)snprintf(d->home, sizeof d->home, "%s/kist-demo.XXXXXX", places[i]);
        if (mkdtemp(d->home) == NULL)
            continue;
        (void)snprintf(d->store, sizeof d->store, "%s/store", d->home);
        rc = kist_store_open(&store, d->store, &options);
        if (rc == KIST_OK)
            return kist_store_close(store) == KIST_OK;
        (void)snprintf(tried, sizeof tried, " (%s)", kist_errname(rc));
        (void)walk_remove(d->home);
    }
    d->home[0] = '\0';
    complain("no place for a temporary store%s; name one: TMPDIR=/somewhere", tried);
    return false;
}

static void remove_home(struct demo *d)
{
    int err = d->home[0] != '\0' ? walk_remove(d->home) : 0;

    if (err != 0)
        (void)fail_errno(err, "cannot remove", d->home);
}

/* ---- the run ---------------------------------------------------------- */

static bool share(struct demo *d)
{
    void *map;

    d->shared_len = sizeof *d->shared + d->count * sizeof d->shared->versions[0];
    map = mmap(NULL, d->shared_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        (void)fail_errno(errno, "no memory for the counts of", "kist-demo");
        return false;
    }
    d->shared = map;
    for (size_t i = 0; i < d->count; i++) {
        d->shared->versions[i].attempted = 1;
        d->shared->versions[i].acked = 1;
    }
    return true;
}

/* Everything once more, with nobody else about. */
static void check_all(struct demo *d)
{
    kist_store *store = NULL;
    kist_bank *bank = demo_open(d, &store, false);
    uint64_t entries = 0;
    int rc;

    if (bank == NULL)
        return;
    d->verified.size = sizeof d->verified;
    rc = kist_verify(bank, &d->verified, NULL, NULL);
    if (rc != KIST_OK)
        demo_fail_kist(d, "verifying", rc);
    rc = kist_count(bank, &entries);
    if (rc != KIST_OK || entries != d->count)
        demo_fail(d, "%llu entries are counted, where %zu were stored", (unsigned long long)entries,
                  d->count);
    for (size_t i = 0; i < d->count && !demo_interrupted; i++)
        read_entry(d, bank, i, &d->shared->last);
    d->end_disk_bytes = disk_usage(d);
    (void)kist_bank_close(bank);
    (void)kist_store_close(store);
}

static int run(struct demo *d)
{
    bool ran = false;

    printf("kist %s takes files below %s, in %s\n", kist_version(), d->dir, d->home);
    (void)fflush(stdout);
    if (!corpus_choose(d) || !share(d))
        return STATUS_SYSTEM;
    if (corpus_load(d)) {
        printf("%zu files are loaded; two processes read them, a third rewrites them and is "
               "killed...\n",
               d->count);
        churn_run(d);
        ran = true;
    }
    if (demo_interrupted)
        return STATUS_SYSTEM;
    if (ran) {
        check_all(d);
        printf("\n");
        report_print(d);
    }
    if (atomic_load(&d->shared->failed))
        complain("%s", d->shared->failure);
    if (ran && report_faults(d) > 0)
        return STATUS_DAMAGE;
    return !ran || atomic_load(&d->shared->failed) ? STATUS_SYSTEM : STATUS_DONE;
}

static bool read_number(const char *text, uint64_t most, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-' && *out <= most;
}

static int parse(struct demo *d, int argc, char **argv)
{
    const char *env = getenv("DEMO_DIR");
    uint64_t number;

    d->dir = env != NULL && env[0] != '\0' ? env : "/usr/share";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--mib=", 6) == 0 && read_number(argv[i] + 6, 1 << 20, &number))
            d->want_bytes = number << 20;
        else if (strncmp(argv[i], "--kills=", 8) == 0 && read_number(argv[i] + 8, 10000, &number))
            d->want_kills = (unsigned)number;
        else if (strncmp(argv[i], "--seconds=", 10) == 0 &&
                 read_number(argv[i] + 10, 86400, &number))
            d->least_seconds = (unsigned)number;
        else if (argv[i][0] != '-')
            d->dir = argv[i];
        else
            return fail_usage("usage: kist-demo [DIR] [--mib=200] [--kills=30] [--seconds=10]");
    }
    d->most_seconds = d->least_seconds + 25;
    return STATUS_DONE;
}

int main(int argc, char **argv)
{
    struct demo d = { .want_bytes = 200 << 20, .want_kills = 30, .least_seconds = 10 };
    int status;

    fail_program = "kist-demo";
    status = parse(&d, argc, argv);
    if (status != STATUS_DONE)
        return status;
    catch_signals();
    if (!make_home(&d))
        return STATUS_SYSTEM;
    status = run(&d);
    corpus_free(&d);
    remove_home(&d);
    if (fflush(stdout) != 0 && status == STATUS_DONE)
        status = fail_errno(errno, "cannot write to", "standard output");
    return demo_interrupted ? 128 + demo_interrupted : status;
}
