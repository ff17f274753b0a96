/*
 * The files of the demonstration: chosen below a directory, copied aside and
 * loaded into the bank.
 *
 * The copy, an unlinked file in the temporary directory, is what readers
 * compare with: somebody may change the files themselves meanwhile.
 */
#include "demo.h"
#include "fail.h"
#include "input.h"
#include "progress.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FILE_MOST = 32 << 20, LOAD_SECONDS = 20 };

/* ---- choosing --------------------------------------------------------- */

static bool make_room(struct demo *d)
{
    size_t room = d->room == 0 ? 1024 : 2 * d->room;
    struct entry *entries;

    if (d->count < d->room)
        return true;
    entries = realloc(d->entries, room * sizeof *entries);
    if (entries == NULL)
        return false;
    d->entries = entries;
    d->room = room;
    return true;
}

static int take_file(const struct walk_item *item, void *arg)
{
    struct demo *d = arg;
    struct entry *e;

    if (item->err != 0 || access(item->path, R_OK) != 0) {
        d->files_unreadable++;
        return 0;
    }
    d->files_found++;
    if (item->st->st_size > FILE_MOST || strlen(item->key) > KIST_KEY_MAX)
        return 0;
    if (!make_room(d))
        return -ENOMEM;
    e = &d->entries[d->count];
    *e = (struct entry){ .size = (uint32_t)item->st->st_size };
    e->path = strdup(item->path);
    if (e->path == NULL)
        return -ENOMEM;
    e->key = e->path + (item->key - item->path);
    e->key_len = (uint32_t)strlen(item->key);
    d->count++;
    return demo_interrupted;
}

static uint64_t all_bytes(const struct demo *d)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < d->count; i++)
        bytes += d->entries[i].size + 8u;
    return bytes;
}

/* Keep as many as fit, spread over all of them, in the order they have. */
static void keep_some(struct demo *d, uint64_t want)
{
    uint64_t all = all_bytes(d), kept = 0, seed = 1;
    size_t n = 0;

    if (all <= want)
        return;
    for (size_t i = 0; i < d->count; i++) {
        struct entry e = d->entries[i];
        uint64_t draw = random_next(&seed) % all;

        if (draw < want && kept + e.size + 8u <= want) {
            kept += e.size + 8u;
            d->entries[n++] = e;
        } else {
            free(e.path);
        }
    }
    d->count = n;
}

/* A fifth of what is free: the copy, the store, and it rewritten. */
static uint64_t affordable(const struct demo *d)
{
    struct statvfs fs;

    if (statvfs(d->home, &fs) != 0)
        return d->want_bytes;
    return (uint64_t)fs.f_bavail * fs.f_frsize / 5;
}

bool corpus_choose(struct demo *d)
{
    uint64_t room = affordable(d);
    struct stat home;
    bool known = stat(d->home, &home) == 0;
    int rc = walk_files(d->dir, known ? &home : NULL, take_file, d);

    if (rc < 0) {
        (void)fail_errno(-rc, "cannot read the directory", d->dir);
        return false;
    }
    if (room < d->want_bytes)
        complain("there is little room in %s: taking %s at most", quoted(d->home),
                 human_bytes(room));
    keep_some(d, room < d->want_bytes ? room : d->want_bytes);
    if (d->count == 0 && !demo_interrupted)
        complain("no readable file below %s; name another directory", quoted(d->dir));
    return d->count > 0 && !demo_interrupted;
}

/* ---- copying and loading ---------------------------------------------- */

static bool corpus_map(struct demo *d)
{
    char name[4200];
    void *map = MAP_FAILED;
    int fd, err;

    d->corpus_len = all_bytes(d) + 8;
    (void)snprintf(name, sizeof name, "%s/corpus", d->home);
    fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    err = fd < 0 ? errno : posix_fallocate(fd, 0, (off_t)d->corpus_len);
    if (err == 0) {
        map = mmap(NULL, d->corpus_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        err = map == MAP_FAILED ? errno : 0;
    }
    if (fd >= 0) {
        (void)close(fd);
        (void)unlink(name);
    }
    if (err != 0) {
        (void)fail_errno(err, "cannot make", name);
        return false;
    }
    d->corpus = map;
    return true;
}

/* Copy the file to the corpus; what has grown since is cut. */
static bool copy_file(struct demo *d, struct entry *e, uint64_t at, struct input *in)
{
    if (input_read_file(in, e->path) != 0)
        return false;
    if (in->bytes.len < e->size)
        e->size = (uint32_t)in->bytes.len;
    if (e->size > 0)
        memcpy(d->corpus + at, in->bytes.data, e->size);
    e->at = at;
    return true;
}

static int load_entry(struct demo *d, kist_bank *bank, size_t index, unsigned char *buf)
{
    const struct entry *e = &d->entries[index];
    int rc;

    value_make(buf, d, index, 1);
    rc = kist_put(bank, (kist_bytes){ e->key, e->key_len }, (kist_bytes){ buf, value_len(e) });
    if (rc != KIST_OK)
        return rc;
    d->payload += e->key_len + value_len(e);
    return 0;
}

/* Entries whose file is gone, and those there was no time for, are left out. */
static int load_all(struct demo *d, kist_bank *bank, unsigned char *buf)
{
    uint64_t at = 0, all = all_bytes(d), start = now_ns();
    struct input in = { 0 };
    struct progress bar;
    size_t kept = 0, i;
    int rc = KIST_OK;

    progress_start(&bar, "loading", false);
    for (i = 0; i < d->count && rc == KIST_OK; i++) {
        if (demo_interrupted || now_ns() - start > LOAD_SECONDS * UINT64_C(1000000000))
            break;
        if (!copy_file(d, &d->entries[i], at, &in)) {
            d->files_unreadable++;
            free(d->entries[i].path);
            continue;
        }
        d->entries[kept] = d->entries[i];
        rc = load_entry(d, bank, kept, buf);
        kept++;
        at += (d->entries[kept - 1].size + UINT64_C(7)) & ~UINT64_C(7);
        progress_update(&bar, at, all);
    }
    progress_end(&bar);
    for (; i < d->count; i++)
        free(d->entries[i].path);
    d->count = kept;
    input_free(&in);
    return rc;
}

static int add_blocks(const struct walk_item *item, void *arg)
{
    if (item->err == 0)
        *(uint64_t *)arg += (uint64_t)item->st->st_blocks * 512;
    return 0;
}

uint64_t disk_usage(const struct demo *d)
{
    uint64_t bytes = 0;

    (void)walk_files(d->store, NULL, add_blocks, &bytes);
    return bytes;
}

/* What the files take, and how much of it is kept for what comes. */
static int measure(struct demo *d, kist_bank *bank)
{
    kist_stats stats = { .size = sizeof stats };
    int rc = kist_stat(bank, &stats);
    uint64_t used = stats.live_bytes + stats.wasted_bytes;

    d->disk_bytes = disk_usage(d);
    if (rc == KIST_OK && stats.heap_file_bytes > used)
        d->reserved_bytes = stats.heap_file_bytes - used;
    return rc;
}

bool corpus_load(struct demo *d)
{
    kist_store *store = NULL;
    kist_bank *bank;
    unsigned char *buf;
    uint64_t start;
    int rc;

    if (!corpus_map(d))
        return false;
    buf = malloc(VALUE_HEAD + FILE_MOST + VALUE_TAIL);
    bank = demo_open(d, &store, true);
    start = now_ns();
    if (buf != NULL && bank != NULL) {
        rc = load_all(d, bank, buf);
        d->load_ns = now_ns() - start;
        if (rc == KIST_OK)
            rc = measure(d, bank);
        if (rc != KIST_OK)
            demo_fail_kist(d, "cannot load", rc);
    }
    free(buf);
    (void)kist_bank_close(bank);
    rc = kist_store_close(store);
    if (rc != KIST_OK)
        demo_fail_kist(d, "cannot close the store", rc);
    return bank != NULL && d->count > 0 && !demo_interrupted;
}

void corpus_free(struct demo *d)
{
    for (size_t i = 0; i < d->count; i++)
        free(d->entries[i].path);
    free(d->entries);
    if (d->corpus != NULL)
        (void)munmap(d->corpus, d->corpus_len);
}
