/*
 * The verb snapshot: a bank saved to a file or pipe, what such a file says of
 * itself, and a bank made what it was.
 *
 * A file is written under another name beside its own and renamed when all of it
 * is on the disk. Of one to be restored the beginning is read before a store is
 * opened, so that what is no snapshot, or has not its length, makes nothing.
 */
#include "fail.h"
#include "out.h"
#include "progress.h"
#include "session.h"
#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_pipe(const char *path)
{
    return strcmp(path, "-") == 0;
}

/* ---- save: where it goes -------------------------------------------------- */

struct target {
    const char *path;
    char *real, *temp; /* its place, and that under which it is written; or NULL */
    int fd;            /* -1: standard output */
    int err;           /* of writing */
    struct progress bar;
    uint64_t written, all;
};

static int write_piece(const void *data, size_t len, void *arg)
{
    struct target *t = arg;
    int rc = KIST_OK;

    if (t->fd < 0) {
        out_bytes((kist_bytes){ data, len });
        rc = out_failed() ? -EIO : KIST_OK; /* out_finish() tells which */
    } else {
        rc = kist_write_fd(data, len, &t->fd);
    }
    t->err = rc < 0 ? -rc : 0;
    t->written += len;
    progress_update(&t->bar, t->written, t->all);
    return rc;
}

static int fail_target(const struct target *t, int err)
{
    return fail_errno(err, "cannot write", t->path);
}

/* A device or a FIFO is written as it is. */
static int open_special(struct target *t)
{
    t->fd = open(t->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return t->fd < 0 ? fail_target(t, errno) : STATUS_DONE;
}

/* A file under another name beside it, with the mode of the one that it is to
 * replace. */
static int open_temp(struct target *t, const struct stat *old)
{
    t->real = old != NULL ? realpath(t->path, NULL) : strdup(t->path);
    if (t->real == NULL)
        return fail_target(t, errno);
    if (asprintf(&t->temp, "%s.saving.XXXXXX", t->real) < 0) {
        t->temp = NULL;
        return fail_target(t, ENOMEM);
    }
    t->fd = mkostemp(t->temp, O_CLOEXEC);
    if (t->fd >= 0 && (old == NULL || fchmod(t->fd, old->st_mode & 0777) == 0))
        return STATUS_DONE;
    return fail_target(t, errno);
}

static int target_open(struct target *t, const char *path)
{
    struct stat st;
    bool there;

    *t = (struct target){ .path = path, .fd = -1 };
    if (is_pipe(path))
        return STATUS_DONE;
    there = stat(path, &st) == 0;
    if (!there && errno != ENOENT)
        return fail_target(t, errno);
    if (there && S_ISDIR(st.st_mode))
        return fail_target(t, EISDIR);
    return there && !S_ISREG(st.st_mode) ? open_special(t) : open_temp(t, there ? &st : NULL);
}

/* The name counts when its directory is on the disk. */
static int sync_parent(const char *path)
{
    char *copy = strdup(path), *slash;
    int fd, rc;

    if (copy == NULL)
        return ENOMEM;
    slash = strrchr(copy, '/');
    if (slash != NULL)
        slash[slash == copy ? 1 : 0] = '\0';
    fd = open(slash != NULL ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = fd < 0 || fsync(fd) < 0 ? errno : 0;
    if (fd >= 0)
        (void)close(fd);
    free(copy);
    return rc;
}

static int put_in_place(struct target *t)
{
    int err;

    if (fsync(t->fd) < 0 || close(t->fd) < 0) {
        err = errno;
        t->fd = -1;
        return fail_target(t, err);
    }
    t->fd = -1;
    if (rename(t->temp, t->real) < 0)
        return fail_target(t, errno);
    free(t->temp);
    t->temp = NULL;
    err = sync_parent(t->real);
    return err == 0 ? STATUS_DONE : fail_target(t, err);
}

/* With a status other than STATUS_DONE nothing is left. Returns the status. */
static int target_close(struct target *t, int status)
{
    if (status == STATUS_DONE && t->temp != NULL)
        status = put_in_place(t);
    if (t->fd >= 0 && close(t->fd) < 0 && status == STATUS_DONE)
        status = fail_target(t, errno);
    if (t->temp != NULL)
        (void)unlink(t->temp);
    free(t->temp);
    free(t->real);
    return status;
}

/* ---- save ------------------------------------------------------------------ */

static void print_done(const struct session *s, const struct args *args, const char *what,
                       const kist_snapshot_info *info, uint64_t start_ns)
{
    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", s->bank_name);
        json_u64("entries", info->entries);
        json_u64("payload_bytes", info->payload_bytes);
        json_u64("saved_bytes", info->saved_bytes);
        json_end();
    } else if (!s->quiet) {
        out_text("bank %s: %" PRIu64 " entries, %s %s in %.1f s\n", quoted(s->bank_name),
                 info->entries, human_bytes(info->payload_bytes), what,
                 (double)(now_ns() - start_ns) / 1e9);
    }
}

static int save_to(struct session *s, kist_bank *snapshot, struct target *t,
                   kist_snapshot_info *info)
{
    int rc = kist_snapshot_stat(snapshot, info);

    if (rc != KIST_OK)
        return session_fail(s, rc);
    t->all = info->payload_bytes;
    progress_start(&t->bar, "saving", s->quiet);
    rc = kist_snapshot_save(snapshot, write_piece, t);
    progress_end(&t->bar);
    info->saved_bytes = t->written;
    if (t->err != 0)
        return t->fd < 0 ? STATUS_SYSTEM : fail_target(t, t->err);
    return rc == KIST_OK ? STATUS_DONE : session_fail(s, rc);
}

static int save_bank(struct session *s, const struct args *args)
{
    kist_snapshot_info info = { .size = sizeof info };
    kist_bank *snapshot = NULL;
    struct target t;
    int status = target_open(&t, args->operand[2]), rc;

    if (status == STATUS_DONE) {
        rc = kist_snapshot_open(&snapshot, s->bank);
        status = rc == KIST_OK ? save_to(s, snapshot, &t, &info) : session_fail(s, rc);
    }
    (void)kist_bank_close(snapshot);
    status = target_close(&t, status);
    if (status == STATUS_DONE && !is_pipe(t.path))
        print_done(s, args, "saved", &info, t.bar.start_ns);
    return status;
}

static int run_save(const struct args *args)
{
    struct session s;
    int status;

    if (is_pipe(args->operand[2]) && args_has(args, OPT_JSON))
        return fail_usage("the snapshot itself goes to standard output, so --json cannot; give a "
                          "FILE, or leave it out");
    if (is_pipe(args->operand[2]) && isatty(STDOUT_FILENO))
        return fail_usage("a snapshot is no text for a terminal; give a FILE, or a pipe behind -");
    status = session_open(&s, args, SESSION_READ);
    return status == STATUS_DONE ? session_close(&s, save_bank(&s, args)) : status;
}

/* ---- where it comes from ---------------------------------------------------- */

struct source {
    const char *path;
    int fd, err;
    unsigned char head[4096]; /* its beginning, which is read first */
    size_t head_len, head_at;
    uint64_t seen; /* bytes that were handed out */
    bool ended;
    kist_snapshot_info info;
    struct progress bar;
};

static int64_t read_head(void *buf, size_t len, void *arg)
{
    struct source *from = arg;
    size_t n = from->head_len - from->head_at;

    n = n < len ? n : len;
    memcpy(buf, from->head + from->head_at, n);
    from->head_at += n;
    return (int64_t)n;
}

static int64_t read_piece(void *buf, size_t len, void *arg)
{
    struct source *from = arg;
    int64_t n = read_head(buf, len, from);

    if (n == 0 && len > 0)
        n = kist_read_fd(buf, len, &from->fd);
    if (n < 0)
        from->err = (int)-n;
    from->ended |= n == 0 && len > 0;
    from->seen += n > 0 ? (uint64_t)n : 0;
    progress_update(&from->bar, from->seen, from->info.saved_bytes);
    return n;
}

static const char *source_name(const struct source *from)
{
    return is_pipe(from->path) ? "standard input" : from->path;
}

/* The same, to begin a message. */
static const char *shown(const struct source *from)
{
    return is_pipe(from->path) ? "standard input" : quoted(from->path);
}

/* What the library made of its beginning. */
static int fail_source(const struct source *from, int rc)
{
    if (rc == KIST_EFORMAT)
        complain("%s is no saved snapshot; 'kist snapshot save' makes them", shown(from));
    else
        complain("%s: %s", shown(from), kist_last_error()->what);
    return fail_status(rc);
}

/* A regular file is as long as it says. */
static int check_length(const struct source *from)
{
    struct stat st;
    uint64_t len;

    if (fstat(from->fd, &st) < 0)
        return fail_errno(errno, "cannot read", source_name(from));
    if (!S_ISREG(st.st_mode))
        return STATUS_DONE;
    len = (uint64_t)(st.st_size - (lseek(from->fd, 0, SEEK_CUR) - (off_t)from->head_len));
    if (len == from->info.saved_bytes)
        return STATUS_DONE;
    complain("%s is damaged: %s, %" PRIu64 " bytes instead of %" PRIu64,
             shown(from),
             len < from->info.saved_bytes ? "cut short" : "there is more behind its end", len,
             from->info.saved_bytes);
    return STATUS_DAMAGE;
}

static int read_info(struct source *from)
{
    int rc;

    while (from->head_len < sizeof from->head) {
        int64_t n = kist_read_fd(from->head + from->head_len, sizeof from->head - from->head_len,
                                 &from->fd);

        if (n < 0)
            return fail_errno((int)-n, "cannot read", source_name(from));
        if (n == 0)
            break;
        from->head_len += (size_t)n;
    }
    from->info.size = sizeof from->info;
    rc = kist_snapshot_info_read(read_head, from, &from->info);
    from->head_at = 0;
    return rc == KIST_OK ? STATUS_DONE : fail_source(from, rc);
}

/* Its beginning is read; that it has its length, check_length() says. */
static int source_open(struct source *from, const char *path)
{
    int status;

    *from = (struct source){ .path = path, .fd = STDIN_FILENO };
    if (is_pipe(path) && isatty(STDIN_FILENO))
        return fail_usage("a snapshot is nothing to type; give a FILE, or a pipe before -");
    if (!is_pipe(path))
        from->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (from->fd < 0)
        return fail_errno(errno, "cannot read", path);
    status = read_info(from);
    if (status != STATUS_DONE && !is_pipe(path))
        (void)close(from->fd);
    return status;
}

static void source_close(struct source *from)
{
    if (!is_pipe(from->path))
        (void)close(from->fd);
}

/* ---- info -------------------------------------------------------------------- */

/* What is known of the bank, if one was named. */
struct relation {
    const char *bank; /* NULL: none was */
    bool same;
    kist_snapshot_info now;
};

static void hex_id(char text[33], const uint8_t id[16])
{
    for (int i = 0; i < 16; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", id[i]);
}

static void json_info(const kist_snapshot_info *info, const struct relation *to)
{
    char id[33];

    hex_id(id, info->bank_id);
    json_begin();
    json_text("index", session_index_name(info->index));
    json_text("bank_id", id);
    json_u64("sequence", info->sequence);
    json_i64("taken_ns", info->taken_ns);
    json_u64("entries", info->entries);
    json_u64("payload_bytes", info->payload_bytes);
    json_u64("saved_bytes", info->saved_bytes);
    if (to->bank != NULL) {
        json_text("bank", to->bank);
        json_bool("of_bank", to->same);
        json_u64("bank_sequence", to->now.sequence);
    }
    json_end();
}

static void print_info(const struct source *from, const struct relation *to)
{
    const kist_snapshot_info *info = &from->info;
    char id[33], when[32];

    hex_id(id, info->bank_id);
    out_text("%-26s%s\n", "snapshot", shown(from));
    out_text("%-26s%s\n", "index", session_index_name(info->index));
    if (human_date(when, info->taken_ns))
        out_text("%-26s%s\n", "taken", when);
    out_count("entries", info->entries, false);
    out_count("keys and values", info->payload_bytes, true);
    out_count("length", info->saved_bytes, true);
    out_count("sequence", info->sequence, false);
    out_text("%-26s%s\n", "id of its bank", id);
    if (to->bank != NULL && !to->same)
        out_text("%-26s%s is another one\n", "bank", quoted(to->bank));
    else if (to->bank != NULL)
        out_text("%-26s%s, whose sequence is %" PRIu64 " now\n", "bank", quoted(to->bank),
                 to->now.sequence);
}

/* Whether it is of the bank, and how far that has come. */
static int relate(struct relation *to, const struct args *args, const kist_snapshot_info *info)
{
    kist_bank *snapshot = NULL;
    struct session s;
    int status = session_open(&s, args, SESSION_READ), rc;

    if (status != STATUS_DONE)
        return status;
    *to = (struct relation){ .bank = args->operand[1], .now.size = sizeof to->now };
    rc = kist_snapshot_open(&snapshot, s.bank);
    if (rc == KIST_OK)
        rc = kist_snapshot_stat(snapshot, &to->now);
    if (rc == KIST_OK)
        to->same = memcmp(to->now.bank_id, info->bank_id, sizeof info->bank_id) == 0;
    else
        status = session_fail(&s, rc);
    (void)kist_bank_close(snapshot);
    return session_close(&s, status);
}

static int run_info(const struct args *args)
{
    struct relation to = { .bank = NULL };
    struct source from;
    int status = source_open(&from, args->operand[args->count - 1]);

    if (status != STATUS_DONE)
        return status;
    if (args->count > 1)
        status = relate(&to, args, &from.info);
    if (status == STATUS_DONE && args_has(args, OPT_JSON))
        json_info(&from.info, &to);
    else if (status == STATUS_DONE)
        print_info(&from, &to);
    if (status == STATUS_DONE)
        status = check_length(&from);
    source_close(&from);
    return status;
}

/* ---- restore ------------------------------------------------------------------ */

static int open_bank(struct session *s, const struct args *args, uint32_t index, bool *made)
{
    bool create = args_has(args, OPT_CREATE);
    int status = session_open_store(s, args, create ? SESSION_CREATE : SESSION_WRITE, 0);

    if (status != STATUS_DONE)
        return status;
    status = create ? session_make_bank(s, args->operand[1], index, made)
                    : session_open_bank(s, args->operand[1], NULL);
    return status == STATUS_DONE ? STATUS_DONE : session_close(s, status);
}

/* The library checks all of it before it changes the bank: with a file that was
 * read to its end, and has its length, it was not the file. */
static int fail_restore(const struct session *s, const struct source *from, int rc, bool made)
{
    bool whole = from->ended && from->seen == from->info.saved_bytes;

    if (from->err != 0)
        return fail_errno(from->err, "cannot read", source_name(from));
    if (whole || (rc != KIST_ECORRUPT && rc != KIST_EFORMAT && rc != KIST_ENEWER))
        return session_fail(s, rc);
    complain("%s: %s; bank %s %s", shown(from), kist_last_error()->what, quoted(s->bank_name),
             made ? "was made, and is empty" : "was not changed");
    return fail_status(rc);
}

static int restore_from(struct source *from, const struct args *args)
{
    bool made = false;
    struct session s;
    int status = check_length(from), rc;

    if (status == STATUS_DONE)
        status = open_bank(&s, args, from->info.index, &made);
    if (status != STATUS_DONE)
        return status;
    progress_start(&from->bar, "restoring", s.quiet);
    rc = kist_snapshot_restore(s.bank, read_piece, from);
    progress_end(&from->bar);
    if (rc == KIST_OK)
        print_done(&s, args, "restored", &from->info, from->bar.start_ns);
    else
        status = fail_restore(&s, from, rc, made);
    return session_close(&s, status);
}

static int run_restore(const struct args *args)
{
    struct source from;
    int status = source_open(&from, args->operand[2]);

    if (status != STATUS_DONE)
        return status;
    status = restore_from(&from, args);
    source_close(&from);
    return status;
}

/* ---- which ---------------------------------------------------------------------- */

static const struct part {
    const char *name, *operands;
    bool file_alone; /* without STORE BANK, too */
    bool create;
    int (*run)(const struct args *args);
} parts[] = {
    { "save", "STORE BANK FILE", false, false, run_save },
    { "info", "[STORE BANK] FILE", true, false, run_info },
    { "restore", "STORE BANK FILE", false, true, run_restore },
};

enum { PARTS = sizeof parts / sizeof parts[0] };

static const char *part_name(size_t i, const void *arg)
{
    (void)arg;
    return parts[i].name;
}

static int fail_part(const char *typed)
{
    const char *meant = nearest(typed, part_name, PARTS, NULL);

    return meant != NULL ? fail_usage("snapshot knows no %s; did you mean %s?", quoted(typed), meant)
                         : fail_usage("snapshot knows no %s; it goes: kist snapshot save, info or "
                                      "restore",
                                      quoted(typed));
}

static const struct part *find_part(const char *name)
{
    for (size_t i = 0; i < PARTS; i++)
        if (strcmp(parts[i].name, name) == 0)
            return &parts[i];
    return NULL;
}

bool snapshot_knows(const char *what)
{
    return find_part(what) != NULL;
}

int verb_snapshot(const struct args *args)
{
    const struct part *part = find_part(args->operand[0]);
    struct args rest = *args;

    if (part == NULL)
        return fail_part(args->operand[0]);
    rest.count--;
    memmove(rest.operand, args->operand + 1, (OPERANDS_MAX - 1) * sizeof rest.operand[0]);
    rest.operand[OPERANDS_MAX - 1] = NULL;
    if (rest.count != 3 && !(rest.count == 1 && part->file_alone))
        return fail_usage("it goes: kist snapshot %s %s", part->name, part->operands);
    if (args_has(args, OPT_CREATE) && !part->create)
        return fail_usage("snapshot %s makes no bank; --create goes with restore", part->name);
    return part->run(&rest);
}
