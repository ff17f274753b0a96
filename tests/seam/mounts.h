/*
 * mounts - file systems of one's own, for tests that are root: in a private
 * mount namespace, so that nothing is left behind, however the test ends.
 */
#ifndef KIST_TESTS_SEAM_MOUNTS_H
#define KIST_TESTS_SEAM_MOUNTS_H

#include <stdbool.h>

/* Enter a mount namespace of one's own; for a child of the test. NULL: done,
 * else why it can't be done here. */
const char *mounts_private(void);

/* An ext4 file system of `mib` MiB in the file `image`. NULL or why not. */
const char *mounts_make(const char *image, int mib);

/* Mount the image by a loop device. The kernel gives up its cache at the
 * unmount, which waits for nothing but open files. */
bool mounts_loop(const char *image, const char *at);
bool mounts_bind(const char *from, const char *at);
bool mounts_off(const char *at);

/* The power fails: nothing that is not on the disk gets there any more. */
bool mounts_power_cut(const char *at);

/* Run a program; true if it exits with 0. Ends with NULL. */
bool run_program(const char *name, ...);

#endif
