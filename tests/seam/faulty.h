/*
 * faulty - a kernel whose writing back fails, as ext4, XFS and Btrfs do it:
 * the pages become clean though they never reached the disk (or go back to
 * what the disk has), the error is told once, to one descriptor, and later
 * syncs say OK. Built on the recorder, whose log knows which bytes those were.
 *
 * What fails is planned in memory that forked children share.
 */
#ifndef KIST_TESTS_SEAM_FAULTY_H
#define KIST_TESTS_SEAM_FAULTY_H

#include "seam/log.h"

struct faulty {
    int32_t fail_at;   /* the sync that fails, counting from 0; -1: none */
    bool heap_only;    /* count syncs of heap files alone */
    bool revert;       /* the pages go back to what the disk has */
    int32_t die_after; /* SIGKILL so many events behind it; -1: live on */
    int32_t syncs;     /* counted so far */
    int32_t events;    /* behind the failure */
    bool failed;       /* it has happened */
};

/* Behind record_start(), before any fork. `plan` is shared memory. */
void faulty_start(struct log *log, struct faulty *plan);
void faulty_stop(void);

/*
 * The kernel tries to write back, now, the dirty files whose names contain
 * `name_part`, and fails. The next sync of each is told, if anyone in this
 * process still holds the file by then. Returns the number of files.
 */
int faulty_background(const char *name_part);

#endif
