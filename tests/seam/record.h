/*
 * record - fill a log with what the library does: wraps the system calls of
 * the table `os_seam` and the store hook `shm_seam`.
 *
 * A register of file maps turns the address of a store into file and offset.
 * Calls on files outside of the recorded root are let through and not logged.
 * An event is logged after its effect; the oracle's clock is the log's length.
 *
 * The recorder's state belongs to one process; children made by fork() go on
 * recording into the same log. In each, one thread at a time may write.
 */
#ifndef KIST_TESTS_SEAM_RECORD_H
#define KIST_TESTS_SEAM_RECORD_H

#include "seam/log.h"

/*
 * Record everything below directory `root` from here on. What is there already
 * is logged first, as made and synced: a replay of the log begins with it.
 */
void record_start(struct log *log, const char *root);
void record_stop(void); /* the table and the hook are as before */

/* Files whose names begin so are taken over as not synced, their names as
 * synced: like those of a copy that was just made. NULL: none. */
extern const char *record_unsynced;

/* Called after each event that this process logged; NULL: nothing. Here a
 * test stops or kills itself. */
extern void (*record_after)(uint64_t index);

/* Asked before each fsync and fdatasync: 0 lets it go on, a negative code is
 * what the caller gets, and the log says that the sync failed. NULL: 0. */
extern int (*record_sync)(int fd, uint32_t node);

/* Descriptors and maps by which this process holds the node. */
uint64_t record_holds(uint32_t node);

/* The node behind a descriptor or below a directory, LOG_NONE if unknown. */
int64_t record_node(int fd);
int64_t record_node_at(int dir, const char *path);

#endif
