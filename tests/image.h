/*
 * image - a store kept in memory and put back again and again with damage.
 *
 * The files of a closed store are read once, and each gets a second name in a
 * folder beside it. image_restore() brings the store back byte for byte under
 * the same inodes, whatever was done to it: so that the library finds its own
 * files again, a clean mark included, and not a copy.
 */
#ifndef KIST_TESTS_IMAGE_H
#define KIST_TESTS_IMAGE_H

#include <stddef.h>
#include <stdint.h>

struct image_file {
    char *name; /* below the store: "bank/kist.live" */
    unsigned char *bytes;
    size_t len;
};

struct image {
    char *dir, *vault;
    struct image_file *files; /* by name */
    size_t count;
};

/* `dir` holds a store that nobody has open. */
struct image *image_take(const char *dir);
void image_free(struct image *image);
void image_restore(const struct image *image);

/* Change one file of a restored image; all keep the inode. */
void image_flip(const struct image *image, size_t file, uint64_t bit);
void image_write(const struct image *image, size_t file, const void *bytes, size_t len);

/* Write its files below another folder, which exists. */
void image_copy(const struct image *image, const char *to);

uint64_t image_bytes(const struct image *image); /* of all files */

#endif
