/*
 * file - the file of an index, as a process maps it: what the kinds of index
 * have in common. Whole pages of 4 KiB; it only grows, in place; it is replaced
 * as a whole, by the next generation.
 *
 *     offset 0, in every kind
 *     +------+------+------+------+------+------+------+------+
 *   0 |                 magic: KISTINDX                       |
 *     +---------------------------+---------------------------+
 *   8 |        format (u32)       |         kind (u32)        |
 *     +---------------------------+---------------------------+
 *  16 |                 bank id (16 bytes)                    |
 *     +-------------------------------------------------------+
 *  32 |                     generation                        |
 *     +-------------------------------------------------------+
 *  40 |              checksum of the 40 bytes before          |
 *     +-------------------------------------------------------+
 */
#ifndef KIST_INDEX_FILE_H
#define KIST_INDEX_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "base/os.h"
#include "base/shm.h"
#include "base/thread.h"
#include "heap/record.h"

enum {
    INDEX_PAGE = 4096,
    INDEX_LARGE = 4 << 20,         /* bytes from which on the file has large pages */
    INDEX_WRITTEN_MOST = 64 << 20, /* written at once: others may be waiting */
    INDEX_NAME_MAX = 32,
    INDEX_GROWS_BY = 8, /* an eighth of what there is */
};

/* The beginning of each index file. */
struct index_head {
    char magic[8];
    uint32_t format;
    uint32_t kind;
    uint8_t bank_id[16];
    uint64_t generation;
    uint64_t checksum;
};
static_assert(sizeof(struct index_head) == 48, "on-disk: the beginning of an index file");

/* An index of one generation, as this process maps it. The fields are those of
 * each kind's own struct too, so that a search has one pointer to follow. */
#define INDEX_FILE_FIELDS                                                                          \
    uint8_t *base;                                                                                 \
    _Atomic uint64_t len;     /* mapped and checked; grows */                                      \
    _Atomic uint64_t root_ok; /* a root word that lies within `len` */                             \
    uint64_t generation;                                                                           \
    uint32_t kind;         /* enum kist_index_kind */                                              \
    _Atomic uint32_t refs; /* see index_hold() */                                                  \
    os_mutex growing; /* threads that lay more of the file over `map` */                           \
    struct map map; /* under `growing`, but for its base; who else asks for its length           \
                         reads `len` */ \
    int fd;         /* -1: private memory */                                                       \
    struct retired retired

struct index_file {
    INDEX_FILE_FIELDS;
};

static inline uint64_t index_len(const struct index_file *f)
{
    return atomic_load_explicit(&f->len, memory_order_acquire); /* with index_map_more() */
}

/* What an index needs to know of its bank. */
struct index_owner {
    const struct record_bank *bank;
    /* The record that a location leads to, or NULL: it can't be read. The header
     * and the key are within what is mapped, whatever they say. */
    const struct record *(*record)(void *arg, uint64_t loc);
    /* Bump the reuse counter (I4). For the writer; readers may have NULL. */
    void (*reuse)(void *arg);
    /* Of kind hash: note the split that is about to be published, see hash_finish(). */
    void (*intent)(void *arg, uint64_t old_entry, uint64_t prefix, uint64_t lo, uint64_t hi);
    void (*intent_done)(void *arg);
    void *arg;
};

void index_name(char out[INDEX_NAME_MAX], uint64_t generation);

/* What the head of a new file says, or that of an opened one has to say. */
struct index_kind {
    uint32_t format;
    uint32_t kind;
};

void index_file_init(struct index_file *f, const struct index_kind *k, uint64_t generation);

/* Make kist.index.G of `len` bytes (see index_round) and map it for writing, with its head
 * written; all else is zero. Left by one who died before publishing it, an
 * old one of that name is replaced. */
int index_file_create(struct index_file *f, int dir, uint32_t mode, const struct index_kind *k,
                      const uint8_t bank_id[16], size_t len);
/* The same in private memory. */
int index_file_create_private(struct index_file *f, const struct index_kind *k,
                              const uint8_t bank_id[16], size_t len);

/* Map an existing one; `fd` becomes its own, in any case. */
int index_file_open(struct index_file *f, int fd, const struct index_kind *k,
                    const uint8_t bank_id[16], bool writable);

void index_file_close(struct index_file *f);
int index_file_sync(struct index_file *f);

/* The length to give a file that shall have `len` bytes at least. */
size_t index_round(size_t len);

/* Look at the file's size again, after `len` was `seen` and not enough. 1: there
 * is more now, 0: there is not, -ENOMEM: it has to be opened anew, it can't
 * grow in place. `seen` is read before what was missed is looked for: a thread
 * of this process may let it grow in between. */
int index_refresh(struct index_file *f, uint64_t seen);

/* Let the file grow by an eighth; where the disk, a quota or a limit does not
 * allow it, by `pages`. Errors leave it as it was, for all who have it mapped. */
int index_grow(struct index_file *f, uint64_t pages);

/* There is no room for the file to grow, says this error. */
bool index_no_space(int rc);

#endif
