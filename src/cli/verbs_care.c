/*
 * The verbs that make banks, look after them and remove them: create, verify,
 * repair, compact, clear, drop.
 */
#include "fail.h"
#include "out.h"
#include "progress.h"
#include "session.h"
#include "verbs.h"

#include <errno.h>
#include <inttypes.h>

/* ---- create ----------------------------------------------------------- */

static int bank_options(const struct args *args, kist_bank_options *options)
{
    static const char *const durability[] = { "none", "interval", "always", NULL };
    static const char *const verify[] = { "first", "always", "never", NULL };
    uint64_t segment = 0;
    int64_t interval = 0, expect = 0;
    int status = args_word(args, OPT_DURABILITY, durability, &options->durability);

    if (status == STATUS_DONE)
        status = args_word(args, OPT_VERIFY, verify, &options->verify);
    if (status == STATUS_DONE)
        status = args_number(args, OPT_INTERVAL, 1, 3600000, &interval);
    if (status == STATUS_DONE)
        status = args_number(args, OPT_EXPECT, 0, INT64_MAX, &expect);
    if (status == STATUS_DONE)
        status = args_size(args, OPT_SEGMENT, &segment);
    if (status != STATUS_DONE)
        return status;
    if (args_has(args, OPT_SEGMENT) &&
        (segment < 4096 || segment > 1u << 30 || (segment & (segment - 1)) != 0))
        return fail_usage("--segment-bytes is %s; give a power of two from 4K to 1G",
                          quoted(args->value[OPT_SEGMENT]));
    if (interval != 0 && options->durability != KIST_DURABILITY_INTERVAL)
        return fail_usage("--interval goes with --durability interval; give both");
    options->index = args_has(args, OPT_ORDERED) ? KIST_INDEX_ORDERED : KIST_INDEX_DEFAULT;
    options->segment_bytes = (uint32_t)segment;
    options->interval_ms = (uint32_t)interval;
    options->expect_entries = (uint64_t)expect;
    return STATUS_DONE;
}

/* Whether there is a store already, which is an error unless --exist-ok. */
static int expect_no_store(const struct args *args)
{
    const char *name = args->operand[0];
    kist_store_options options = { .size = sizeof options, .flags = KIST_STORE_READONLY };
    kist_store *store;
    int rc;

    if (args_has(args, OPT_EXIST_OK))
        return STATUS_DONE;
    options.flags |= args_has(args, OPT_ANY_FS) ? (uint32_t)KIST_STORE_ANY_FS : 0;
    rc = kist_store_open(&store, name, &options);
    if (rc == KIST_ENOSTORE || rc == -ENOENT)
        return STATUS_DONE;
    if (rc != KIST_OK)
        return fail_kist(rc, name, NULL);
    (void)kist_store_close(store);
    complain("%s is a store already; --exist-ok accepts it as it is", quoted(name));
    return STATUS_SYSTEM;
}

static int create_bank(struct session *s, const struct args *args, kist_bank_options *options)
{
    int status;

    options->flags = KIST_BANK_CREATE;
    if (!args_has(args, OPT_EXIST_OK))
        options->flags |= KIST_BANK_EXCLUSIVE;
    status = session_open_bank(s, args->operand[1], options);
    return status == STATUS_DONE ? session_expect_ordered(s, args) : status;
}

int verb_create(const struct args *args)
{
    const uint32_t for_banks = OPT_BIT(OPT_DURABILITY) | OPT_BIT(OPT_INTERVAL) |
                               OPT_BIT(OPT_SEGMENT) | OPT_BIT(OPT_VERIFY) | OPT_BIT(OPT_EXPECT) |
                               OPT_BIT(OPT_ORDERED);
    kist_bank_options options = { .size = sizeof options };
    bool with_bank = args->operand[1] != NULL;
    uint32_t mode = 0;
    struct session s;
    int status = bank_options(args, &options);

    if (status == STATUS_DONE)
        status = args_mode(args, OPT_MODE, &mode);
    if (status == STATUS_DONE && !with_bank && (args->given & for_banks) != 0)
        status = fail_usage("a store has no such setting, a bank has; name the bank: "
                            "kist create STORE BANK");
    if (status == STATUS_DONE && !with_bank)
        status = expect_no_store(args);
    if (status == STATUS_DONE)
        status = session_open_store(&s, args, SESSION_CREATE, mode);
    if (status != STATUS_DONE)
        return status;
    if (with_bank)
        status = create_bank(&s, args, &options);
    return session_close(&s, status);
}

/* ---- verify, repair --------------------------------------------------- */

static void json_report(const struct session *s, const kist_report *report, int status)
{
    json_begin();
    json_text("bank", s->bank_name);
    json_bool("whole", status == STATUS_DONE);
    json_u64("records", report->records);
    json_u64("entries", report->entries);
    json_u64("damaged", report->damaged);
    json_u64("damaged_bytes", report->damaged_bytes);
    json_u64("unreachable", report->unreachable);
    if (report->first_file[0] != '\0') {
        json_text("first_file", report->first_file);
        json_u64("first_offset", report->first_offset);
    }
    json_end();
}

/* "bank 'b': entries 10, records read 12, whole" */
static void print_report(const struct session *s, const struct args *args,
                         const kist_report *report, int status)
{
    if (args_has(args, OPT_JSON)) {
        json_report(s, report, status);
        return;
    }
    if (s->quiet)
        return;
    out_text("bank %s: entries %" PRIu64 ", records read %" PRIu64 ", ", quoted(s->bank_name),
             report->entries, report->records);
    if (report->damaged == 0 && report->damaged_bytes == 0 && report->unreachable == 0) {
        out_text("%s\n", status == STATUS_DONE ? "whole" : "damaged");
        return;
    }
    out_text("damaged %" PRIu64 " in %" PRIu64 " bytes, not found by the index %" PRIu64,
             report->damaged, report->damaged_bytes, report->unreachable);
    if (report->first_file[0] != '\0')
        out_text("; the first in %s, byte %" PRIu64, quoted(report->first_file),
                 report->first_offset);
    out_text("\n");
}

static int verify_bank(struct session *s, const struct args *args, void *arg)
{
    kist_report report = { .size = sizeof report };
    struct progress bar;
    int status = STATUS_DONE, rc;

    (void)arg;
    progress_start(&bar, "verifying", s->quiet);
    rc = kist_verify(s->bank, &report, progress_call, &bar);
    progress_end(&bar);
    if (rc != KIST_OK)
        status = fail_status(rc);
    if (rc == KIST_OK || rc == KIST_ECORRUPT)
        print_report(s, args, &report, status);
    return rc == KIST_OK ? STATUS_DONE : session_fail(s, rc);
}

int verb_verify(const struct args *args)
{
    return session_each_bank(args, SESSION_READ, verify_bank, NULL);
}

int verb_repair(const struct args *args)
{
    kist_report report = { .size = sizeof report };
    struct progress bar;
    struct session s;
    int status = session_open_store(&s, args, SESSION_WRITE, 0), rc;

    if (status != STATUS_DONE)
        return status;
    s.bank_name = args->operand[1];
    progress_start(&bar, "repairing", s.quiet);
    rc = kist_repair(s.store, s.bank_name, &report, progress_call, &bar);
    progress_end(&bar);
    if (rc == KIST_OK)
        print_report(&s, args, &report, status);
    else
        status = session_fail(&s, rc);
    return session_close(&s, status);
}

/* ---- compact, clear, drop --------------------------------------------- */

static void print_compacted(const struct session *s, const struct args *args,
                            const kist_stats *before, const kist_stats *after)
{
    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", s->bank_name);
        json_u64("heap_file_bytes_before", before->heap_file_bytes);
        json_u64("heap_file_bytes", after->heap_file_bytes);
        json_u64("wasted_bytes_before", before->wasted_bytes);
        json_u64("wasted_bytes", after->wasted_bytes);
        json_u64("held_bytes", after->held_bytes);
        json_u64("pinned_bytes", after->pinned_bytes);
        json_end();
    } else if (!s->quiet) {
        out_text("bank %s: heap files %s before, %s now", quoted(s->bank_name),
                 human_bytes(before->heap_file_bytes), human_bytes(after->heap_file_bytes));
        if (after->held_bytes > 0)
            out_text("; %s more stay in use until their readers are done",
                     human_bytes(after->held_bytes));
        if (after->pinned_bytes > 0)
            out_text("; %s are kept for snapshots that are open",
                     human_bytes(after->pinned_bytes));
        out_text("\n");
    }
}

static int compact_bank(struct session *s, const struct args *args, void *arg)
{
    kist_stats before = { .size = sizeof before }, after = { .size = sizeof after };
    struct progress bar;
    int rc = kist_stat(s->bank, &before);

    (void)arg;
    progress_start(&bar, "compacting", s->quiet);
    if (rc == KIST_OK)
        rc = kist_compact(s->bank, progress_call, &bar);
    progress_end(&bar);
    if (rc == KIST_OK)
        rc = kist_stat(s->bank, &after);
    if (rc != KIST_OK)
        return session_fail(s, rc);
    print_compacted(s, args, &before, &after);
    return STATUS_DONE;
}

int verb_compact(const struct args *args)
{
    return session_each_bank(args, SESSION_WRITE, compact_bank, NULL);
}

int verb_clear(const struct args *args)
{
    struct session s;
    int status = session_open(&s, args, SESSION_WRITE), rc;

    if (status != STATUS_DONE)
        return status;
    rc = kist_clear(s.bank);
    if (rc != KIST_OK)
        status = session_fail(&s, rc);
    return session_close(&s, status);
}

int verb_drop(const struct args *args)
{
    struct session s;
    int status = session_open_store(&s, args, SESSION_WRITE, 0), rc;

    if (status != STATUS_DONE)
        return status;
    rc = kist_bank_drop(s.store, args->operand[1]);
    if (rc != KIST_OK)
        status = fail_kist(rc, s.store_name, args->operand[1]);
    return session_close(&s, status);
}
