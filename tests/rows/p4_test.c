/*
 * Row P4: copied, mounted again, restored. A copy is known for one and rebuilt;
 * the same files seen through another mount are the same bank, shared by all;
 * files that were exchanged under a living process are noticed and left alone;
 * and never is a value wrong.
 *
 * Mounts need root; those cases are skipped and said so without.
 */
#include "seam/actor.h"
#include "seam/check.h"
#include "seam/mounts.h"
#include "seam/plan.h"
#include "seam/tally.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CASES = 128, IMAGE_MIB = 16 };

static const struct plan plan = {
    "copied", { "bank", 16384, KIST_DURABILITY_NONE, KIST_VERIFY_ALWAYS }, 40, 300, 9000, 20, NULL,
    0
};

/* A folder per case: root/store is the store, the rest is up to the case. */
static struct {
    char *root;
    struct oracle *o;
    struct work w;
    uint64_t seed;
} p4;

static const char skipped[] = "skip: ";

static bool cannot(const char *why)
{
    return check_failed("%s%s", skipped, why);
}

static bool wants(const char *what, int64_t got, int64_t want)
{
    return got == want || check_failed("%s: %lld (%s)", what, (long long)got,
                                       got == ACTOR_DIED ? "died" : kist_errname((int)got));
}

static char *below(const char *name)
{
    return path_join(p4.root, name);
}

/* ---- what processes do ------------------------------------------------ */

static int64_t act_writes(struct work *w, int64_t n)
{
    plan_random_writes(w, (uint32_t)n);
    return 0;
}

static int64_t act_write_for_ever(struct work *w, int64_t arg)
{
    (void)arg;
    while (w->o->ops < OPS_MAX - 100)
        plan_random_writes(w, 50);
    return 0;
}

static int64_t act_recovery(struct work *w, int64_t arg)
{
    kist_stats stats = { .size = sizeof stats };
    int rc = kist_stat(w->bank, &stats);

    (void)arg;
    return rc < 0 ? rc : (int64_t)stats.last_recovery;
}

/* Values may be missing or damaged here, and of any age: but not wrong. */
static int64_t act_nothing_wrong(struct work *w, int64_t arg)
{
    static char key_buf[KEY_MOST];

    (void)arg;
    for (uint32_t k = 0; k < w->o->keys; k++) {
        kist_view *view = NULL;
        kist_bytes key = { key_buf, oracle_key(w->o, k, key_buf) };
        int rc = kist_get_view(w->bank, key, &view);
        bool wrong =
            rc == KIST_OK && oracle_version(w->o, k, kist_view_bytes(view)) == VERSION_WRONG;

        kist_view_release(view);
        if (wrong || (rc < 0 && rc != KIST_ECORRUPT))
            return wrong ? -1 : rc;
    }
    return 0;
}

static int64_t act_verify(struct work *w, int64_t arg)
{
    kist_report report = { .size = sizeof report };

    (void)arg;
    return kist_verify(w->bank, &report, NULL, NULL);
}

/* Damage stays what it is; but what is whole can be found. */
static int64_t act_all_reached(struct work *w, int64_t arg)
{
    kist_report report = { .size = sizeof report };
    int rc = kist_verify(w->bank, &report, NULL, NULL);

    (void)arg;
    return rc == KIST_ECORRUPT && report.unreachable == 0 ? 0 : rc;
}

/* One that opens root/`folder`, as a writer; 0 or what opening said. */
static int64_t join_at(struct actor *a, const char *folder)
{
    struct work w = p4.w;

    w.root = below(folder);
    *a = actor_start(&w);
    return actor_do(a, act_join, 0);
}

static bool begin(struct actor *a)
{
    *a = actor_start(&p4.w);
    return wants("open", actor_do(a, act_open, 0), 0) &&
           wants("writes", actor_do(a, act_writes, 60), 0) &&
           wants("sync", actor_do(a, act_sync, 0), 0) &&
           wants("writes", actor_do(a, act_writes, (int64_t)(p4.seed % 40)), 0);
}

/* The bank in root/`folder` holds what the oracle says, and was rebuilt. A copy
 * may have the inodes of what it takes the place of, by chance: then it may be
 * used as it is, if it was clean. */
static bool is_known(const char *folder, bool same_place)
{
    struct actor a;
    int64_t rc = join_at(&a, folder);

    if (!wants("open", rc, 0))
        return false;
    rc = actor_do(&a, act_recovery, 0);
    if (rc == KIST_RECOVERY_NONE && same_place)
        rc = KIST_RECOVERY_REBUILD;
    return wants("recovery", rc, KIST_RECOVERY_REBUILD) &&
           wants("reads", actor_do(&a, act_check, 0), 0) &&
           wants("verify", actor_do(&a, act_verify, 0), 0) &&
           wants("goes on", actor_do(&a, act_writes, 10), 0) &&
           wants("reads on", actor_do(&a, act_check, 0), 0) &&
           wants("close", actor_do(&a, act_leave, 0), 0);
}

/* ---- copies ----------------------------------------------------------- */

static bool copy(const char *program, const char *from, const char *to)
{
    char *a = below(from), *b = below(to);

    must(mkdir(b, 0700) == 0);
    if (!strcmp(program, "rsync"))
        a = path_join(a, "");
    return strcmp(program, "rsync") == 0
               ? run_program("rsync", "-a", a, path_join(b, "store"), NULL)
               : run_program("cp", "-a", a, b, NULL);
}

/* Its writer is alive, and does nothing at the moment. */
static bool copied_at_rest(const char *program)
{
    struct actor a;

    if (!begin(&a))
        return false;
    if (!copy(program, "store", "copy"))
        return cannot("the program to copy with is not there");
    return is_known("copy", false) && wants("the first one", actor_do(&a, act_nothing_wrong, 0), 0);
}

static bool cp_at_rest(void)
{
    return copied_at_rest("cp");
}

static bool rsync_at_rest(void)
{
    return copied_at_rest("rsync");
}

/* Copied file after file while it changes: no consistent state, and no lie. */
static bool cp_while_written(void)
{
    struct actor a, b;

    if (!begin(&a))
        return false;
    actor_tell(&a, act_write_for_ever, 0);
    must(copy("cp", "store", "copy"));
    actor_kill(&a);
    return wants("open", join_at(&b, "copy"), 0) &&
           wants("reads", actor_do(&b, act_nothing_wrong, 0), 0) &&
           wants("repair", actor_do(&b, act_repair, 0), 0) &&
           wants("reads after repair", actor_do(&b, act_nothing_wrong, 0), 0) &&
           wants("verify", actor_do(&b, act_all_reached, 0), 0);
}

/* ---- the same files through another mount ----------------------------- */

/* Both must be one bank: what one writes the other sees, no recovery runs. */
static bool shares(struct actor *a, struct actor *b)
{
    for (int i = 0; i < 5; i++) {
        if (!wants("one writes", actor_do(i % 2 ? a : b, act_writes, 10), 0) ||
            !wants("one reads", actor_do(a, act_check, 0), 0) ||
            !wants("the other reads", actor_do(b, act_check, 0), 0))
            return false;
    }
    return wants("recovery", actor_do(b, act_recovery, 0), KIST_RECOVERY_NONE) &&
           wants("sync", actor_do(b, act_sync, 0), 0);
}

static bool through_a_bind_mount(void)
{
    const char *why = mounts_private();
    char *bound = below("bound");
    struct actor a, b;

    if (why)
        return cannot(why);
    if (!begin(&a))
        return false;
    must(mkdir(bound, 0700) == 0);
    if (!mounts_bind(p4.root, bound))
        return cannot("no bind mounts here");
    return wants("open", join_at(&b, "bound"), 0) && shares(&a, &b);
}

static int64_t act_private(struct work *w, int64_t arg)
{
    (void)w, (void)arg;
    return mounts_private() ? -1 : 0;
}

static bool from_another_namespace(void)
{
    struct actor a, b;

    if (!begin(&a))
        return false;
    b = actor_start(&p4.w);
    if (actor_do(&b, act_private, 0) != 0)
        return cannot("no mount namespaces here");
    return wants("open", actor_do(&b, act_join, 0), 0) && shares(&a, &b);
}

/* The writer was killed; what it had written stays in the cache until the
 * unmount writes it. The same inodes, the same boot: and still another mount. */
static bool unmounted_and_mounted(void)
{
    const char *why = mounts_private();
    char *image = below("image"), *at = below("mounted");
    struct actor a;

    if (!why)
        why = mounts_make(image, IMAGE_MIB);
    if (why)
        return cannot(why);
    must(mkdir(at, 0700) == 0);
    if (!mounts_loop(image, at))
        return cannot("no loop device to be had");
    p4.w.root = at;
    if (!begin(&a))
        return false;
    actor_kill(&a);
    if (!mounts_off(at) || !mounts_loop(image, at))
        return check_failed("unmount and mount");
    return is_known("mounted", false);
}

/* ---- put back --------------------------------------------------------- */

/* A copy made when the bank was closed, put back behind later writes. */
static bool put_back(bool kill_it)
{
    struct content then;
    struct actor a;

    if (!begin(&a) || !wants("close", actor_do(&a, act_close, 0), 0))
        return false;
    must(copy("cp", "store", "saved"));
    then = p4.o->now;
    if (!wants("open", actor_do(&a, act_open, 0), 0) ||
        !wants("writes", actor_do(&a, act_writes, 30), 0))
        return false;
    if (!kill_it && !wants("close", actor_do(&a, act_close, 0), 0))
        return false;
    actor_kill(&a);
    tmp_remove(below("store"));
    must(run_program("cp", "-a", below("saved/store"), p4.root, NULL));
    oracle_reset(p4.o, &then);
    return is_known(".", true);
}

static bool snapshot_put_back(void)
{
    return put_back(false);
}

static bool snapshot_put_back_after_a_kill(void)
{
    return put_back(true);
}

/* Bytes only: the inodes stay what they were. */
static bool overwrite_file(const char *from, const char *to)
{
    return run_program("cp", "--no-target-directory", from, to, NULL);
}

static bool is_part(const char *name, const char *part)
{
    return strncmp(name, part, strlen(part)) == 0;
}

/* Every file of the bank whose name begins so gets its saved bytes back. */
static void put_back_in_place(const char *part)
{
    char *from = below("saved/store/bank"), *to = below("store/bank");
    DIR *d = opendir(from);
    struct dirent *e;

    must(d != NULL);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.' && is_part(e->d_name, part))
            must(overwrite_file(path_join(from, e->d_name), path_join(to, e->d_name)));
    (void)closedir(d);
}

/* Older bytes in one kind of file, in place: the files do not fit together. */
static bool one_kind_put_back(const char *part)
{
    struct actor a;

    if (!begin(&a) || !wants("close", actor_do(&a, act_close, 0), 0))
        return false;
    must(copy("cp", "store", "saved"));
    if (!wants("open", actor_do(&a, act_open, 0), 0) ||
        !wants("writes", actor_do(&a, act_writes, 40), 0))
        return false;
    if (p4.seed % 2 && !wants("close", actor_do(&a, act_close, 0), 0))
        return false;
    actor_kill(&a);
    put_back_in_place(part);
    if (!wants("open", join_at(&a, "."), 0) ||
        !wants("reads", actor_do(&a, act_nothing_wrong, 0), 0))
        return false;
    return wants("repair", actor_do(&a, act_repair, 0), 0) &&
           wants("reads after repair", actor_do(&a, act_nothing_wrong, 0), 0) &&
           wants("verify", actor_do(&a, act_all_reached, 0), 0);
}

static bool older_heap_put_back(void)
{
    return one_kind_put_back("kist.heap");
}

static bool older_index_put_back(void)
{
    return one_kind_put_back("kist.index");
}

static bool older_live_put_back(void)
{
    return one_kind_put_back("kist.live");
}

/* ---- exchanged under a living process --------------------------------- */

/* The file whose name begins so; of several the newest, or the oldest. */
static char *find_file(const char *part, bool newest)
{
    char *dir = below("store/bank"), *found = NULL;
    DIR *d = opendir(dir);
    struct dirent *e;
    long best = 0;

    must(d != NULL);
    while ((e = readdir(d))) {
        const char *dot = strrchr(e->d_name, '.');
        long n = dot ? strtol(dot + 1, NULL, 10) : 0;

        if (is_part(e->d_name, part) && (!found || (newest ? n > best : n < best))) {
            found = path_join(dir, e->d_name);
            best = n;
        }
    }
    (void)closedir(d);
    return found;
}

/* Another file of the same bytes takes its place. */
static void exchange(char *file)
{
    char *other = below("other");

    must(file && run_program("cp", "-a", file, other, NULL) && rename(other, file) == 0);
}

static bool exchanged(const char *part)
{
    char *store = below("store");
    struct actor a, b;
    uint64_t before;

    if (!begin(&a))
        return false;
    exchange(find_file(part, true));
    before = tree_hash(store);
    if (!wants("open", join_at(&b, "."), KIST_EFOREIGN))
        return false;
    if (tree_hash(store) != before)
        return check_failed("the refused one changed something");
    return wants("the living one reads", actor_do(&a, act_check, 0), 0);
}

/* A sealed segment is never written again: its copy is as good, and whoever
 * does not notice has lost nothing. */
static bool sealed_heap_exchanged(void)
{
    struct actor a, b;
    int64_t rc;

    if (!begin(&a))
        return false;
    exchange(find_file("kist.heap", false));
    rc = join_at(&b, ".");
    if (rc == KIST_EFOREIGN)
        return wants("the living one reads", actor_do(&a, act_check, 0), 0);
    return wants("open", rc, 0) && wants("one writes", actor_do(&b, act_writes, 20), 0) &&
           wants("the other writes", actor_do(&a, act_writes, 20), 0) &&
           wants("one reads", actor_do(&a, act_check, 0), 0) &&
           wants("the other reads", actor_do(&b, act_check, 0), 0);
}

static bool heap_exchanged(void)
{
    return exchanged("kist.heap");
}

static bool index_exchanged(void)
{
    return exchanged("kist.index");
}

static bool live_exchanged(void)
{
    return exchanged("kist.live");
}

/* The lock file carries the proof that a process lives: with another one in
 * its place it can't be known. Whatever the second one does, both must end up
 * with one bank. */
static bool lock_exchanged(void)
{
    struct actor a, b;
    int64_t rc;

    if (!begin(&a))
        return false;
    exchange(find_file("kist.lock", true));
    rc = join_at(&b, ".");
    if (rc == KIST_EFOREIGN)
        return wants("the living one reads", actor_do(&a, act_check, 0), 0);
    return wants("open", rc, 0) && wants("the second one writes", actor_do(&b, act_put, 1), 0) &&
           wants("the first one writes", actor_do(&a, act_put, 2), 0) &&
           wants("the first one reads", actor_do(&a, act_check, 0), 0) &&
           wants("the second one reads", actor_do(&b, act_check, 0), 0);
}

/* ---- all of them ------------------------------------------------------ */

static const struct {
    const char *name;
    bool (*run)(void);
} kinds[] = {
    { "cp -a of a live store", cp_at_rest },
    { "rsync of a live store", rsync_at_rest },
    { "cp -a while it is written", cp_while_written },
    { "bind mount", through_a_bind_mount },
    { "another mount namespace", from_another_namespace },
    { "unmounted and mounted", unmounted_and_mounted },
    { "snapshot put back", snapshot_put_back },
    { "snapshot put back after a kill", snapshot_put_back_after_a_kill },
    { "older heap put back in place", older_heap_put_back },
    { "older index put back in place", older_index_put_back },
    { "older live put back in place", older_live_put_back },
    { "newest heap file exchanged", heap_exchanged },
    { "sealed heap file exchanged", sealed_heap_exchanged },
    { "index exchanged", index_exchanged },
    { "live exchanged", live_exchanged },
    { "lock exchanged", lock_exchanged },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct result {
    bool well;
    char why[sizeof check_why];
};
static struct result *result;
static uint64_t kind_now;

static void case_body(void *arg)
{
    (void)arg;
    plan_oracle(&plan, p4.seed, p4.o);
    p4.w = plan_work(&plan, p4.root, NULL, p4.o);
    result->well = kinds[kind_now].run();
    memcpy(result->why, check_why, sizeof check_why);
}

static void run_case(struct tally *t, uint64_t index)
{
    int status;

    kind_now = index % KINDS;
    p4.seed = mix(test_seed(), index);
    p4.root = tmp_dir(TMP_DISK);
    *result = (struct result){ .well = false };
    status = child_wait(child_start(case_body, NULL));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && is_part(result->why, skipped) &&
        !result->well) {
        tally_skip(t, 1, kinds[kind_now].name);
    } else {
        tally_case(t);
        tally_state(t, p4.seed);
        if (status != 0 || !result->well)
            tally_fail(t, "%s, case %llu: %s", kinds[kind_now].name, (unsigned long long)index,
                       status ? "it died" : result->why);
    }
    tmp_remove(p4.root);
    free(p4.root);
}

TEST(copied_mounted_again_and_restored_banks_are_known_for_what_they_are)
{
    struct tally *t = tally_new("P4");

    result = shared_memory(sizeof *result);
    p4.o = oracle_new();
    for (uint64_t i = 0; i < test_scaled(CASES); i++)
        run_case(t, i);
    tally_end(t);
}
