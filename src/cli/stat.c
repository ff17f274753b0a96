/*
 * The verb stat: everything that is known of a bank without reading it, or a
 * line for each bank of a store.
 */
#include "fail.h"
#include "out.h"
#include "progress.h"
#include "session.h"
#include "verbs.h"

#include <inttypes.h>
#include <stddef.h>

/* The counts, as JSON names them and as people read them, in their order. */
static const struct count {
    const char *name;
    size_t at; /* in kist_stats */
    bool bytes;
    const char *text;
} counts[] = {
    { "entries", offsetof(kist_stats, entries), false, "entries" },
    { "deleted", offsetof(kist_stats, deleted), false, "deleted, not yet cleaned" },
    { "payload_bytes", offsetof(kist_stats, payload_bytes), true, "keys and values" },
    { "live_bytes", offsetof(kist_stats, live_bytes), true, "their records" },
    { "wasted_bytes", offsetof(kist_stats, wasted_bytes), true, "records that are dead" },
    { "heap_file_bytes", offsetof(kist_stats, heap_file_bytes), true, "heap files" },
    { "index_file_bytes", offsetof(kist_stats, index_file_bytes), true, "index file" },
    { "held_bytes", offsetof(kist_stats, held_bytes), true, "removed, still in use" },
    { "pinned_bytes", offsetof(kist_stats, pinned_bytes), true, "kept for snapshots" },
    { "segments", offsetof(kist_stats, segments), false, "segments" },
    { "longest_search", offsetof(kist_stats, longest_search), false, "longest search, steps" },
    { "sequence", offsetof(kist_stats, sequence), false, "sequence" },
    { "unsynced_bytes", offsetof(kist_stats, unsynced_bytes), true, "not synced yet" },
    { "generation", offsetof(kist_stats, generation), false, "generation of the index" },
    { "writers", offsetof(kist_stats, writers), false, "open for writing by" },
    { "damaged_bytes", offsetof(kist_stats, damaged_bytes), true, "damaged, passed over" },
};

enum { COUNTS = sizeof counts / sizeof counts[0] };

static uint64_t count_of(const kist_stats *stats, const struct count *count)
{
    return *(const uint64_t *)(const void *)((const char *)stats + count->at);
}

static const char *recovery_name(uint32_t recovery)
{
    switch (recovery) {
    case KIST_RECOVERY_REPAIR:
        return "repair";
    case KIST_RECOVERY_REBUILD:
        return "rebuild";
    default:
        return "none";
    }
}

/* What is left of the heap's files: room for records to come, and headers. */
static uint64_t reserved(const kist_stats *stats)
{
    uint64_t used = stats->live_bytes + stats->wasted_bytes;

    return stats->heap_file_bytes > used ? stats->heap_file_bytes - used : 0;
}

static void print_json(const struct session *s, const kist_stats *stats, double wasted)
{
    json_begin();
    json_text("bank", s->bank_name);
    json_text("index", session_index_name(stats->index));
    for (size_t i = 0; i < COUNTS; i++)
        json_u64(counts[i].name, count_of(stats, &counts[i]));
    json_u64("reserved_bytes", reserved(stats));
    json_u64("index_depth", stats->index_depth);
    json_real("fragmentation", wasted);
    json_text("last_recovery", recovery_name(stats->last_recovery));
    json_i64("last_recovery_ns", stats->last_recovery_ns);
    json_u64("oldest_pin", stats->oldest_pin);
    json_bool("poisoned", stats->poisoned != 0);
    json_end();
}

/* "rebuild, 2026-01-31 12:00:00" */
static void print_recovery(const kist_stats *stats)
{
    char when[32];

    if (stats->last_recovery_ns != 0 && human_date(when, stats->last_recovery_ns))
        out_text("%-26s%s, %s\n", "last recovery", recovery_name(stats->last_recovery), when);
}

/* Of any process; how many there are, each process knows of its own alone. */
static void print_oldest_pin(const kist_stats *stats)
{
    if (stats->oldest_pin == 0)
        out_text("%-26snone\n", "oldest snapshot");
    else
        out_text("%-26sof sequence %" PRIu64 "\n", "oldest snapshot", stats->oldest_pin);
}

static void print_all(const struct session *s, const kist_stats *stats, double wasted)
{
    out_text("%-26s%s\n", "bank", quoted(s->bank_name));
    out_text("%-26s%s\n", "index", session_index_name(stats->index));
    for (size_t i = 0; i < COUNTS; i++)
        out_count(counts[i].text, count_of(stats, &counts[i]), counts[i].bytes);
    out_count("reserved for more", reserved(stats), true);
    out_text("%-26s%" PRIu32 "\n", "index depth", stats->index_depth);
    out_text("%-26s%.1f %%\n", "fragmentation", 100 * wasted);
    print_oldest_pin(stats);
    print_recovery(stats);
    if (stats->poisoned != 0)
        out_text("%-26s%s\n", "poisoned", "a sync failed: read-only until 'kist repair'");
}

static int stat_bank(struct session *s, const struct args *args, void *arg)
{
    kist_stats stats = { .size = sizeof stats };
    bool *first = arg;
    double wasted = 0;
    int rc = kist_stat(s->bank, &stats);

    if (rc == KIST_OK)
        rc = kist_fragmentation(s->bank, &wasted);
    if (rc != KIST_OK)
        return session_fail(s, rc);
    if (args_has(args, OPT_JSON)) {
        print_json(s, &stats, wasted);
        return STATUS_DONE;
    }
    if (!*first)
        out_text("\n");
    *first = false;
    print_all(s, &stats, wasted);
    return STATUS_DONE;
}

int verb_stat(const struct args *args)
{
    bool first = true;

    return session_each_bank(args, SESSION_READ, stat_bank, &first);
}
