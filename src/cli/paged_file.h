/* A file or block device, read through a page cache. */
#ifndef CLI_PAGED_FILE_H
#define CLI_PAGED_FILE_H

#include <kist/pages.h>

struct paged_file {
    const char *name; /* for messages */
    int fd;
    kist_device device;
    kist_pages *pages;
    uint64_t len; /* when it was opened */
};

/* Open `path`, resolved from the directory `dir` (AT_FDCWD: as usual). Returns
 * an exit status, and has told why if it is not STATUS_DONE; with `may_be_gone`
 * a file that is not there is STATUS_NO_KEY, and nothing is told. */
int paged_file_open(struct paged_file *f, int dir, const char *path, const char *name,
                    uint32_t kind, const kist_pages_options *opt, bool may_be_gone);
void paged_file_close(struct paged_file *f);

/* Tell that reading it failed; returns the exit status. */
int paged_file_fail(const struct paged_file *f, int rc);

#endif
