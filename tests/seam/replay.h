/*
 * replay - a world made real: written below a directory, and shown to the
 * library with the identity that its files had when they were recorded, so
 * that its checks of inodes and boot ids say what they would have said then.
 */
#ifndef KIST_TESTS_SEAM_REPLAY_H
#define KIST_TESTS_SEAM_REPLAY_H

#include "base/os.h"
#include "seam/world.h"

/* Write the world into the empty directory `dir`, and let each of its files
 * show the identity it had in the log. Identities of an earlier replay are
 * forgotten. */
void replay_build(const struct world *w, const char *dir);

/* Remove all that is below `dir`, by the shortest way. */
void replay_clean(const char *dir);

/* From here on os_stat, os_stat_under and os_place give identities of our
 * making; files that no replay made keep their own. */
void replay_identities(void);

/* The machine and mount that os_place tells. Boots 1, 2, 3 ... have different
 * boot ids; mounts of one boot differ in their witness, 0 has none. */
void replay_place(uint64_t boot, uint64_t mount);

#endif
