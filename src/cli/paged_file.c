/* A file or block device, read through a page cache. */
#include "paged_file.h"

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int paged_file_fail(const struct paged_file *f, int rc)
{
    const kist_error *error = kist_last_error();

    complain("%s: %s", quoted(f->name), error->rc == rc ? error->what : kist_strerror(rc));
    return fail_status(rc);
}

int paged_file_open(struct paged_file *f, int dir, const char *path, const char *name,
                    uint32_t kind, const kist_pages_options *opt, bool may_be_gone)
{
    int rc;

    *f = (struct paged_file){ .name = name };
    f->fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f->fd < 0 && errno == ENOENT && may_be_gone)
        return STATUS_NO_KEY;
    if (f->fd < 0)
        return fail_errno(errno, "cannot open", name);
    rc = kist_device_open(&f->device, f->fd, kind);
    if (rc == KIST_OK)
        rc = kist_device_length(&f->device, &f->len);
    if (rc == KIST_OK)
        rc = kist_pages_open(&f->pages, &f->device, opt);
    if (rc != KIST_OK) {
        int status = paged_file_fail(f, rc);

        paged_file_close(f);
        return status;
    }
    return STATUS_DONE;
}

void paged_file_close(struct paged_file *f)
{
    kist_pages_close(f->pages);
    kist_device_close(&f->device);
    (void)close(f->fd);
    *f = (struct paged_file){ .fd = -1 };
}
