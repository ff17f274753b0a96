/*
 * disk - what an unkind disk may hold after a power cut, by a log.
 *
 * Everything before a file's last fsync is there. Of what came after it, each
 * 4 KiB page is at any of its versions since then, and torn between versions
 * at any 512 bytes; the file has any of its sizes since then; and of the names
 * changed in a directory since that was synced, each change is kept or lost by
 * itself. A failed sync makes pages that nobody writes again stay behind for
 * ever, whatever later syncs say.
 *
 *     disk_run(d, log_count);       up to the cut
 *     for (n = 0; n < disk_dims(d); n++) ...
 *     disk_pick(d, ...); disk_world(d, &w);
 */
#ifndef KIST_TESTS_SEAM_DISK_H
#define KIST_TESTS_SEAM_DISK_H

#include "seam/world.h"

struct disk;

struct disk *disk_new(const struct log *log);
void disk_free(struct disk *d);
void disk_reset(struct disk *d); /* back to the empty disk, same log */

/* Play the log up to `end`, at or behind where the disk is. */
void disk_run(struct disk *d, uint64_t end);

/* The independent choices at this cut, and the product of their numbers of
 * versions (UINT64_MAX: that or more). Valid until the next disk_run. */
size_t disk_dims(struct disk *d);
uint64_t disk_combinations(struct disk *d);

enum disk_mode {
    DISK_LOST,     /* nothing that was not synced */
    DISK_KEPT,     /* all of it: a kill, not a power cut */
    DISK_DROP_ONE, /* all but the change number `which` */
    DISK_KEEP_ONE, /* nothing but the change number `which` */
    DISK_NAMES,    /* no byte, but every name */
    DISK_BYTES,    /* every byte, but no name */
    DISK_NTH,      /* combination number `which` */
    DISK_RANDOM,   /* each by itself; `which` is the seed */
    DISK_TORN,     /* the same, and pages torn */
    DISK_MODES
};

void disk_pick(struct disk *d, enum disk_mode mode, uint64_t which);

/* The picked state. */
void disk_world(struct disk *d, struct world *w);

/* A file as of its last sync. */
const struct world_file *disk_synced(struct disk *d, uint32_t node);

/* "drop-one page 3 of kist.heap.2", in a static buffer. */
const char *disk_pick_text(struct disk *d, enum disk_mode mode, uint64_t which);

#endif
