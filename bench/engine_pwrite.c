/*
 * engine_pwrite - what a durable put cannot beat: pwrite and fdatasync of the
 * same bytes, one record after the other, into a file that has been written
 * before, so that no block is to be allocated and no length to be changed.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, PIECE = 1 << 20, RECORD_MAX = 4096 };

struct pwriter {
    int fd;
    size_t record;
    off_t at;
    char bytes[RECORD_MAX];
};

static int fail(const char *what)
{
    return bench_fail("pwrite", what, strerror(errno));
}

static int pwrite_close(void *self)
{
    struct pwriter *t = self;

    if (t->fd >= 0)
        (void)close(t->fd);
    free(t);
    return 0;
}

static int prewrite(int fd)
{
    char *piece = calloc(1, PIECE);
    int rc = 0;

    if (!piece)
        return -1;
    for (off_t at = 0; at < FILE_BYTES && rc == 0; at += PIECE)
        rc = pwrite(fd, piece, PIECE, at) == PIECE ? 0 : -1;
    free(piece);
    return rc ? rc : fsync(fd);
}

static int pwrite_open(void **self, const struct bench_conf *conf)
{
    struct pwriter *t = calloc(1, sizeof *t);
    char path[4096];

    if (!t)
        return bench_fail("pwrite", "open", "out of memory");
    t->record = conf->record_bytes;
    if (t->record < BENCH_PAYLOAD_BYTES || t->record > RECORD_MAX) {
        free(t);
        return bench_fail("pwrite", "open", "a record of no sensible size");
    }
    (void)snprintf(path, sizeof path, "%s/file", conf->dir);
    t->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (t->fd < 0 || prewrite(t->fd) < 0) {
        int rc = fail(path);
        (void)pwrite_close(t);
        return rc;
    }
    *self = t;
    return 0;
}

static int pwrite_put(void *self, const bench_key *key, const void *value)
{
    struct pwriter *t = self;

    memcpy(t->bytes, key, sizeof *key);
    memcpy(t->bytes + sizeof *key, value, BENCH_VALUE_BYTES);
    if (t->at + (off_t)t->record > FILE_BYTES)
        t->at = 0;
    if (pwrite(t->fd, t->bytes, t->record, t->at) != (ssize_t)t->record)
        return fail("pwrite");
    t->at += (off_t)t->record;
    return fdatasync(t->fd) < 0 ? fail("fdatasync") : 0;
}

const struct bench_engine bench_pwrite = {
    .name = "pwrite",
    .open = pwrite_open,
    .put = pwrite_put,
    .close = pwrite_close,
    .setup = "pwrite and fdatasync, sequentially into a prewritten file",
};
