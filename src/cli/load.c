/*
 * The verb load: a dump, or the files below a directory.
 *
 * A dump is read twice: the first time to see that all of it can be stored, so
 * that a bad one changes nothing.
 *
 * With --files every regular file below a directory becomes an entry, its
 * relative path the key, its content the value. One that cannot be read or does
 * not fit is told of and passed over, and the exit status says so at the end.
 * Loading the store into itself is not possible: its own directory is left out.
 */
#include "fail.h"
#include "input.h"
#include "out.h"
#include "progress.h"
#include "reader.h"
#include "session.h"
#include "verbs.h"
#include "walk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* The bank, made if it is missing and --create was given: `index` is of the kind
 * that what is to be loaded has, unless --ordered was given. */
static int open_bank(struct session *s, const struct args *args, uint32_t index)
{
    kist_bank_options options = { .size = sizeof options };
    bool create = args_has(args, OPT_CREATE);
    int status = session_open_store(s, args, create ? SESSION_CREATE : SESSION_WRITE, 0);

    if (status != STATUS_DONE)
        return status;
    options.flags = create ? (uint32_t)KIST_BANK_CREATE : 0;
    options.index = args_has(args, OPT_ORDERED) ? (uint32_t)KIST_INDEX_ORDERED : index;
    status = session_open_bank(s, args->operand[1], &options);
    if (status == STATUS_DONE)
        status = session_expect_ordered(s, args);
    return status == STATUS_DONE ? STATUS_DONE : session_close(s, status);
}

/* ---- files ------------------------------------------------------------ */

struct load {
    const struct session *s;
    struct input in;
    struct progress bar;
    uint64_t all_bytes; /* what there is to load, counted for the bar */
    uint64_t files, bytes, skipped;
};

static int skip_file(struct load *load, int err, const char *doing, const char *path)
{
    (void)fail_errno(err, doing, path);
    load->skipped++;
    return 0;
}

/* Returns 0, or an exit status that ends the walk. */
static int load_file(const struct walk_item *item, void *arg)
{
    struct load *load = arg;
    kist_bytes key = { item->key, strlen(item->key) };
    int err = item->err, rc;

    if (err == 0)
        err = input_read_file(&load->in, item->path);
    if (err != 0)
        return skip_file(load, err, "skipped, cannot read", item->path);
    if (key.len > KIST_KEY_MAX)
        return skip_file(load, ENAMETOOLONG, "skipped, a key cannot be so long:", item->path);
    rc = kist_put(load->s->bank, key, load->in.bytes);
    if (rc != KIST_OK)
        return session_fail(load->s, rc);
    load->files++;
    load->bytes += load->in.bytes.len;
    progress_update(&load->bar, load->bytes, load->all_bytes);
    return 0;
}

static int count_file(const struct walk_item *item, void *arg)
{
    struct load *load = arg;

    if (item->err == 0)
        load->all_bytes += (uint64_t)item->st->st_size;
    return 0;
}

static void print_loaded(const struct load *load, const struct args *args)
{
    uint64_t ns = now_ns() - load->bar.start_ns;

    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", load->s->bank_name);
        json_u64("files", load->files);
        json_u64("bytes", load->bytes);
        json_u64("skipped", load->skipped);
        json_end();
    } else if (!load->s->quiet) {
        out_text("bank %s: %" PRIu64 " files, %s loaded in %.1f s", quoted(load->s->bank_name),
                 load->files, human_bytes(load->bytes), (double)ns / 1e9);
        if (load->skipped > 0)
            out_text(", %" PRIu64 " skipped", load->skipped);
        out_text("\n");
    }
}

static int load_dir(struct load *load, const struct args *args)
{
    const char *dir = args->value[OPT_FILES];
    struct stat store;
    bool known = stat(load->s->store_name, &store) == 0;
    int rc = 0;

    progress_start(&load->bar, "loading", load->s->quiet);
    if (load->bar.wanted)
        rc = walk_files(dir, known ? &store : NULL, count_file, load);
    if (rc == 0)
        rc = walk_files(dir, known ? &store : NULL, load_file, load);
    progress_end(&load->bar);
    if (rc < 0)
        return fail_errno(-rc, "cannot read the directory", dir);
    if (rc > 0)
        return rc;
    print_loaded(load, args);
    return load->skipped > 0 ? STATUS_SYSTEM : STATUS_DONE;
}

static int load_files(const struct args *args)
{
    struct load load = { 0 };
    struct session s;
    int status;

    status = open_bank(&s, args, KIST_INDEX_DEFAULT);
    if (status != STATUS_DONE)
        return status;
    load.s = &s;
    status = load_dir(&load, args);
    input_free(&load.in);
    return session_close(&s, status);
}

/* ---- a dump ----------------------------------------------------------- */

struct load_dump {
    struct session s;
    struct reader reader;
    struct progress bar;
    uint64_t checked; /* entries that the first reading found */
    uint64_t entries, bytes;
};

static int check_entry(kist_bytes key, kist_bytes value, void *arg)
{
    struct load_dump *load = arg;

    if (key.len > KIST_KEY_MAX || value.len > KIST_VALUE_MAX)
        return fail_usage("%s, line %" PRIu64 ": a %s of %zu bytes; %u is the most, and nothing "
                          "was loaded",
                          load->reader.shown, load->reader.line_number,
                          key.len > KIST_KEY_MAX ? "key" : "value",
                          key.len > KIST_KEY_MAX ? key.len : value.len,
                          key.len > KIST_KEY_MAX ? KIST_KEY_MAX : KIST_VALUE_MAX);
    load->checked++;
    progress_update(&load->bar, reader_at(&load->reader), 2 * (uint64_t)load->reader.size);
    return STATUS_DONE;
}

static int put_entry(kist_bytes key, kist_bytes value, void *arg)
{
    struct load_dump *load = arg;
    int rc = kist_put(load->s.bank, key, value);

    if (rc != KIST_OK)
        return session_fail(&load->s, rc);
    load->entries++;
    load->bytes += key.len + value.len;
    progress_update(&load->bar, (uint64_t)load->reader.size + reader_at(&load->reader),
                    2 * (uint64_t)load->reader.size);
    return STATUS_DONE;
}

static void print_dump_loaded(const struct load_dump *load, const struct args *args)
{
    if (load->reader.expiring > 0 && !load->s.quiet)
        complain("%" PRIu64 " entries had an expiry; it was not kept", load->reader.expiring);
    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", load->s.bank_name);
        json_u64("entries", load->entries);
        json_u64("bytes", load->bytes);
        json_end();
    } else if (!load->s.quiet) {
        out_text("bank %s: %" PRIu64 " entries, %s loaded in %.1f s\n", quoted(load->s.bank_name),
                 load->entries, human_bytes(load->bytes),
                 (double)(now_ns() - load->bar.start_ns) / 1e9);
    }
}

/* The second reading. It finds what the first one found, unless somebody wrote
 * into the file meanwhile. */
static int load_entries(struct load_dump *load)
{
    int status = reader_each(&load->reader, put_entry, load);

    if (status == STATUS_DONE && load->entries != load->checked) {
        complain("%s: the dump was changed while it was being loaded", load->reader.shown);
        status = STATUS_SYSTEM;
    }
    if (status != STATUS_DONE)
        complain("%" PRIu64 " entries were loaded before that; loading again does no harm",
                 load->entries);
    return status;
}

static int load_checked(struct load_dump *load, const struct args *args)
{
    int status;

    progress_start(&load->bar, "loading", args_has(args, OPT_QUIET));
    status = reader_each(&load->reader, check_entry, load);
    if (status == STATUS_DONE)
        status = open_bank(&load->s, args, load->reader.index);
    if (status == STATUS_DONE) {
        status = load_entries(load);
        progress_end(&load->bar);
        if (status == STATUS_DONE)
            print_dump_loaded(load, args);
        status = session_close(&load->s, status);
    }
    progress_end(&load->bar);
    return status;
}

static int load_dump(const struct args *args)
{
    struct load_dump load = { .entries = 0 };
    int status = reader_open(&load.reader, args->operand[2], true);

    if (status != STATUS_DONE)
        return status;
    status = load_checked(&load, args);
    reader_close(&load.reader);
    return status;
}

int verb_load(const struct args *args)
{
    if (args_has(args, OPT_FILES) && args->operand[2] != NULL)
        return fail_usage("load takes a dump or --files=DIR, not both; load them one by one");
    if (args_has(args, OPT_ORDERED) && !args_has(args, OPT_CREATE))
        return fail_usage("--ordered tells how a bank is made, and so goes with --create; give "
                          "both");
    if (args_has(args, OPT_FILES))
        return load_files(args);
    if (args->operand[2] == NULL && isatty(STDIN_FILENO))
        return fail_usage("load needs to know what to load; give a FILE, a dump on standard input, "
                          "or --files=DIR");
    return load_dump(args);
}
