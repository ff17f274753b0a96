/*
 * window_counts - a small stream operator: how many events of each key came in
 * each minute. It may be killed at any moment, and goes on where its last
 * checkpoint was, with every event counted once and every line written once.
 *
 *     cc -o window_counts window_counts.c $(pkg-config --cflags --libs kist)
 *     ./window_counts FOLDER EVENTS COUNTS
 *
 * EVENTS has a line for each event, its time in seconds and its key:
 *
 *     1700000042 sensor-7
 *
 * Events may be late by up to LATENESS seconds; so some minutes are open at the same
 * time. Once an event has come that makes a minute too old for any other, the minute is
 * finished: its counts go to the file COUNTS, in the order of keys, and are
 * forgotten. An event that comes after that is a line "late". FOLDER holds what is
 * needed to go on. The end of EVENTS finishes all minutes.
 *
 * How it is done, from simple to hard:
 *
 *   State        is an ordered bank. A key is the minute, as eight bytes with
 *                the highest first, and behind it the event's key. In byte order
 *                that is: by minute, then by key. So what belongs to a minute lies side
 *                by side, and is one prefix. See count_event() and finish_minute().
 *
 *   Checkpoint   A bank outlives its process, so why is that not enough? Because the
 *                process reads and writes other files, too. Killed after it counted an
 *                event, and started again at an older place of EVENTS, it
 *                would count that event twice. What is needed is the state as it was at a
 *                known place of its input and its output. So the place is put into the
 *                bank as well, and a snapshot of both is saved. See checkpoint().
 *
 *   Resuming     restores the bank from the last checkpoint, cuts off what was
 *                written to COUNTS after it, and reads EVENTS from that place on: what
 *                happened since then happens again, and the same way. See resume().
 *
 * Exit status: 0, or 2 after an error.
 */
#include <kist/kist.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MINUTE = 60, LATENESS = 90, CHECKPOINT_EVENTS = 2000, KEY_MOST = 200 };

/* Where the operator is; a record of the bank, so that a snapshot has it. */
struct place {
    uint64_t events;   /* bytes of EVENTS that were counted */
    uint64_t counts;   /* bytes of COUNTS that were written */
    uint64_t finished; /* minutes that begin before this time are finished */
};

/* Its key sorts behind all minutes. */
static const char place_key[] = "\xff\xff\xff\xff\xff\xff\xff\xff place";

struct counting {
    kist_store *store;
    kist_bank *bank;
    FILE *events, *counts;
    struct place at;
    int folder; /* its descriptor */
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "window_counts: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* For calls of kist: negative is an error, anything else an outcome. */
static int check(int rc)
{
    if (rc >= 0)
        return rc;
    fprintf(stderr, "window_counts: %s: %s\n", kist_strerror(rc), kist_last_error()->what);
    exit(2);
}

/* ---- counting --------------------------------------------------------- */

struct key {
    uint64_t minute; /* its beginning, in seconds; the highest byte first */
    char name[KEY_MOST];
};

static kist_bytes key_make(struct key *k, uint64_t minute, const char *name, size_t len)
{
    k->minute = htobe64(minute);
    memcpy(k->name, name, len);
    return (kist_bytes){ k, sizeof k->minute + len };
}

/* One more. There is one writer, so nothing comes between the get and the put. */
static void count_event(struct counting *op, uint64_t minute, const char *name, size_t len)
{
    struct key k;
    kist_bytes key = key_make(&k, minute, name, len);
    uint64_t count = 0;
    size_t got;

    if (check(kist_get_copy(op->bank, key, &count, sizeof count, &got)) == KIST_MISS)
        count = 0;
    count++;
    check(kist_put(op->bank, key, (kist_bytes){ &count, sizeof count }));
}

/* Write a minute's counts out, and forget them. A cursor shows the bank as it was when
 * the cursor was opened: deleting under its feet is fine. */
static void finish_minute(struct counting *op, uint64_t minute)
{
    uint64_t prefix = htobe64(minute);
    kist_cursor_options opt = { .size = sizeof opt, .prefix = { &prefix, sizeof prefix } };
    kist_cursor *cursor;
    kist_entry entry;

    check(kist_cursor_open(&cursor, op->bank, &opt));
    while (check(kist_cursor_next(cursor, &entry)) == KIST_OK) {
        const char *name = (const char *)entry.key.data + sizeof prefix;
        int len = (int)(entry.key.len - sizeof prefix);
        uint64_t count;

        memcpy(&count, entry.value.data, sizeof count);
        if (fprintf(op->counts, "%" PRIu64 " %.*s %" PRIu64 "\n", minute, len, name, count) < 0)
            die("counts");
        check(kist_delete(op->bank, entry.key));
    }
    kist_cursor_close(cursor);
}

/* The first minute that is there and begins before `end`; false: none. Minutes
 * without events leave no gap that would have to be walked through. */
static bool first_minute(struct counting *op, uint64_t end, uint64_t *minute)
{
    uint64_t from = 0, to = htobe64(end);
    kist_cursor_options opt = {
        .size = sizeof opt,
        .from = { &from, sizeof from },
        .to = { &to, sizeof to },
        .limit = 1,
    };
    kist_cursor *cursor;
    kist_entry entry;
    int rc;

    check(kist_cursor_open(&cursor, op->bank, &opt));
    rc = check(kist_cursor_next(cursor, &entry));
    if (rc == KIST_OK) {
        memcpy(minute, entry.key.data, sizeof *minute);
        *minute = be64toh(*minute);
    }
    kist_cursor_close(cursor);
    return rc == KIST_OK;
}

/* No event from before `end` is waited for any more. */
static void finish_before(struct counting *op, uint64_t end)
{
    uint64_t minute;

    if (end <= op->at.finished)
        return;
    while (first_minute(op, end, &minute))
        finish_minute(op, minute);
    op->at.finished = end;
}

static void take_event(struct counting *op, const char *line, size_t len)
{
    char *name;
    uint64_t time, minute;

    errno = 0;
    time = strtoull(line, &name, 10);
    if (errno || *line < '0' || *line > '9' || *name != ' ' || time > INT64_MAX ||
        len - (size_t)(name + 1 - line) > KEY_MOST || memchr(line, 0, len)) {
        fprintf(stderr,
                "window_counts: at byte %" PRIu64 " is no event; one is TIME KEY, the key "
                "at most %d bytes\n",
                op->at.events, KEY_MOST);
        exit(2);
    }
    name++;
    minute = time / MINUTE * MINUTE;
    if (time > LATENESS)
        finish_before(op, (time - LATENESS) / MINUTE * MINUTE);
    if (minute < op->at.finished) {
        if (fprintf(op->counts, "late %s\n", line) < 0)
            die("counts");
        return;
    }
    count_event(op, minute, name, len - (size_t)(name - line));
}

/* ---- checkpoints ------------------------------------------------------ */

/*
 * Whenever this is killed, there is a whole checkpoint, the last one or this one,
 * and COUNTS is at least as long as it says.
 */
static void checkpoint(struct counting *op)
{
    kist_bank *snapshot;
    int fd;

    /* What was written must be on the disk before something says that it was. */
    if (fflush(op->counts) != 0 || fdatasync(fileno(op->counts)) < 0)
        die("counts");
    op->at.counts = (uint64_t)ftello(op->counts);
    check(kist_put(op->bank, (kist_bytes){ place_key, sizeof place_key - 1 },
                   (kist_bytes){ &op->at, sizeof op->at }));

    /* Taking a snapshot costs the same whatever the bank holds, and from here on it
     * stands still: a program that can't wait for the disk would hand it to a
     * thread that does the rest, and go on counting. */
    check(kist_snapshot_open(&snapshot, op->bank));
    fd = openat(op->folder, "checkpoint.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die("checkpoint.new");
    check(kist_snapshot_save(snapshot, kist_write_fd, &fd));
    check(kist_bank_close(snapshot));

    /* All of it, or none: a file gets its name when its bytes are safe. */
    if (fdatasync(fd) < 0 || close(fd) < 0 ||
        renameat(op->folder, "checkpoint.new", op->folder, "checkpoint") < 0 ||
        fsync(op->folder) < 0)
        die("checkpoint");
}

/* Be as at the last checkpoint; where there is none, at the beginning. */
static void resume(struct counting *op)
{
    int fd = openat(op->folder, "checkpoint", O_RDONLY | O_CLOEXEC);
    size_t len;

    if (fd >= 0) {
        /* All at once: killed in here, and it is done again. A file that is
         * damaged or cut short is refused before anything changes. */
        check(kist_snapshot_restore(op->bank, kist_read_fd, &fd));
        (void)close(fd);
        if (check(kist_get_copy(op->bank, (kist_bytes){ place_key, sizeof place_key - 1 }, &op->at,
                                sizeof op->at, &len)) != KIST_OK) {
            fputs("window_counts: the checkpoint is of another program\n", stderr);
            exit(2);
        }
    } else if (errno == ENOENT) {
        check(kist_clear(op->bank));
    } else {
        die("checkpoint");
    }
    if (ftruncate(fileno(op->counts), (off_t)op->at.counts) < 0 ||
        fseeko(op->counts, (off_t)op->at.counts, SEEK_SET) < 0)
        die("counts");
    if (fseeko(op->events, (off_t)op->at.events, SEEK_SET) < 0)
        die("events");
    fprintf(stderr, "window_counts: from byte %" PRIu64 " on\n", op->at.events);
}

/* ---- the whole -------------------------------------------------------- */

static void open_all(struct counting *op, char **argv)
{
    kist_store_options store = { .size = sizeof store, .flags = KIST_STORE_CREATE };
    kist_bank_options bank = {
        .size = sizeof bank,
        .flags = KIST_BANK_CREATE,
        .index = KIST_INDEX_ORDERED,
    };
    char path[4096];
    int fd;

    if (mkdir(argv[1], 0700) < 0 && errno != EEXIST)
        die(argv[1]);
    op->folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (op->folder < 0)
        die(argv[1]);
    op->events = fopen(argv[2], "re");
    if (!op->events)
        die(argv[2]);
    fd = open(argv[3], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    op->counts = fd < 0 ? NULL : fdopen(fd, "r+");
    if (!op->counts)
        die(argv[3]);
    if ((size_t)snprintf(path, sizeof path, "%s/state", argv[1]) >= sizeof path) {
        errno = ENAMETOOLONG;
        die(argv[1]);
    }
    check(kist_store_open(&op->store, path, &store));
    check(kist_bank_open(&op->bank, op->store, "counts", &bank));
}

int main(int argc, char **argv)
{
    static struct counting op;
    uint64_t since = 0;
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    if (argc != 4)
        return fputs("usage: window_counts FOLDER EVENTS COUNTS\n", stderr), 2;
    open_all(&op, argv);
    resume(&op);
    /* A line without its end has not all arrived yet. */
    while ((len = getline(&line, &room, op.events)) > 0 && line[len - 1] == '\n') {
        line[len - 1] = 0;
        take_event(&op, line, (size_t)len - 1);
        op.at.events += (uint64_t)len;
        if (++since % CHECKPOINT_EVENTS == 0)
            checkpoint(&op);
    }
    if (ferror(op.events))
        die(argv[2]);
    free(line);
    finish_before(&op, UINT64_MAX / MINUTE * MINUTE);
    checkpoint(&op);
    check(kist_bank_close(op.bank));
    check(kist_store_close(op.store));
    return fclose(op.counts) == 0 ? 0 : 2;
}
