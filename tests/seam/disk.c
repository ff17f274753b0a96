/* disk.c - see disk.h. */
#include "seam/disk.h"

#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, SECTOR = 512, SECTORS = PAGE / SECTOR };

/* A file as of its last sync, and the events that changed it since. */
struct disk_file {
    struct world_file safe;
    uint64_t *event;
    size_t events, event_cap;
    size_t given_up; /* the first ones, which a failed sync threw away */
    uint32_t *dim;   /* by page: its dimension + 1; 0: no choice */
    size_t pages;
    size_t size_dim; /* + 1 */
};

enum dim_kind { DIM_PAGE, DIM_SIZE, DIM_NAME };

/* One choice: version 0 is the synced one, `versions` - 1 the newest. */
struct dim {
    enum dim_kind kind;
    uint32_t node;
    uint64_t page;
    uint32_t versions;
    uint32_t pick;
    uint32_t seen; /* versions met so far, while a world is put together */
    uint64_t tear; /* not 0: each sector picks by itself, from this seed */
};

struct disk {
    const struct log *log;
    uint64_t at;
    struct disk_file *file;
    size_t files;
    struct world names; /* names as synced; no content */
    uint64_t *name;     /* events on names since their directory's sync */
    size_t name_events, name_cap;
    struct dim *dim;
    size_t dims, dim_cap;
    bool dims_known;
};

static void *room(void *p, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return p;
    *cap = 2 * count + 16;
    p = realloc(p, *cap * size);
    if (!p)
        abort();
    return p;
}

struct disk *disk_new(const struct log *log)
{
    struct disk *d = calloc(1, sizeof *d);

    if (!d)
        abort();
    d->log = log;
    world_init(&d->names, log);
    return d;
}

void disk_reset(struct disk *d)
{
    for (size_t i = 0; i < d->files; i++) {
        struct disk_file *f = &d->file[i];

        f->safe = (struct world_file){ .bytes = f->safe.bytes, .cap = f->safe.cap };
        f->events = f->given_up = 0;
    }
    world_clear(&d->names);
    d->at = d->name_events = 0;
    d->dims_known = false;
}

void disk_free(struct disk *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->files; i++) {
        free(d->file[i].safe.bytes);
        free(d->file[i].event);
        free(d->file[i].dim);
    }
    world_free(&d->names);
    free(d->file);
    free(d->name);
    free(d->dim);
    free(d);
}

static struct disk_file *file_of(struct disk *d, uint32_t node)
{
    if (node >= d->files) {
        size_t want = 2 * (size_t)node + 16;

        d->file = realloc(d->file, want * sizeof *d->file);
        if (!d->file)
            abort();
        memset(d->file + d->files, 0, (want - d->files) * sizeof *d->file);
        d->files = want;
    }
    return &d->file[node];
}

/* ---- playing the log -------------------------------------------------- */

static uint64_t end_of(const struct log_event *e)
{
    return e->off + e->len;
}

static bool has_bytes(const struct log_event *e)
{
    return (e->kind == LOG_STORE || e->kind == LOG_WRITE) && e->len > 0;
}

static void play(const struct log *log, struct world_file *f, const struct log_event *e)
{
    if (has_bytes(e))
        world_put(f, e->off, log_bytes(log, e), e->len);
    else if (e->kind == LOG_SIZE)
        world_resize(f, e->off);
}

/* Does an event in [from, events) write to the page? */
static bool page_written(const struct disk *d, const struct disk_file *f, size_t from,
                         uint64_t page)
{
    for (size_t i = from; i < f->events; i++) {
        const struct log_event *e = log_event(d->log, f->event[i]);

        if (has_bytes(e) && e->off / PAGE <= page && page <= (end_of(e) - 1) / PAGE)
            return true;
    }
    return false;
}

/* The part of `e` that lies in pages written since the failed sync. */
static void play_rewritten(struct disk *d, struct disk_file *f, const struct log_event *e)
{
    const uint8_t *data = log_bytes(d->log, e);

    for (uint64_t at = e->off, next; has_bytes(e) && at < end_of(e); at = next) {
        next = (at / PAGE + 1) * PAGE;
        if (next > end_of(e))
            next = end_of(e);
        if (page_written(d, f, f->given_up, at / PAGE))
            world_put(&f->safe, at, data + (at - e->off), next - at);
    }
}

/* A sync writes the pages that are dirty: not those that a failed sync has
 * marked clean and nobody wrote again. */
static void sync_file(struct disk *d, struct disk_file *f)
{
    size_t kept = 0;

    for (size_t i = 0; i < f->events; i++) {
        const struct log_event *e = log_event(d->log, f->event[i]);

        if (i >= f->given_up) {
            play(d->log, &f->safe, e);
        } else {
            play_rewritten(d, f, e);
            if (e->kind == LOG_SIZE)
                play(d->log, &f->safe, e);
            f->event[kept++] = f->event[i];
        }
    }
    f->events = f->given_up = kept;
}

static void sync_names(struct disk *d, uint32_t dir)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->name_events; i++) {
        const struct log_event *e = log_event(d->log, d->name[i]);

        if (e->dir == dir || (e->kind == LOG_RENAME && e->off == dir))
            world_names_play(&d->names, e);
        else
            d->name[kept++] = d->name[i];
    }
    d->name_events = kept;
}

static void run_one(struct disk *d, uint64_t index)
{
    const struct log_event *e = log_event(d->log, index);
    struct disk_file *f = file_of(d, e->node);

    if (log_is_name(e)) {
        world_file(&d->names, e->node)->is_dir |= e->kind == LOG_MKDIR;
        d->name = room(d->name, d->name_events, &d->name_cap, sizeof *d->name);
        d->name[d->name_events++] = index;
    } else if (e->kind == LOG_SYNC) {
        sync_names(d, e->node);
        sync_file(d, f);
    } else if (e->kind == LOG_SYNC_FAILED) {
        f->given_up = f->events;
    } else {
        f->event = room(f->event, f->events, &f->event_cap, sizeof *f->event);
        f->event[f->events++] = index;
    }
}

void disk_run(struct disk *d, uint64_t end)
{
    d->dims_known = false;
    for (; d->at < end; d->at++)
        run_one(d, d->at);
}

/* ---- the choices ------------------------------------------------------ */

static size_t dim_new(struct disk *d, enum dim_kind kind, uint32_t node)
{
    d->dim = room(d->dim, d->dims, &d->dim_cap, sizeof *d->dim);
    d->dim[d->dims] = (struct dim){ .kind = kind, .node = node, .versions = 1 };
    return d->dims++;
}

static void pages_reset(struct disk *d, struct disk_file *f)
{
    uint64_t last = 0;

    for (size_t i = 0; i < f->events; i++) {
        const struct log_event *e = log_event(d->log, f->event[i]);

        if (has_bytes(e) && end_of(e) > last)
            last = end_of(e);
    }
    last = (last + PAGE - 1) / PAGE;
    if (last > f->pages) {
        free(f->dim);
        f->dim = malloc(last * sizeof *f->dim);
        if (!f->dim)
            abort();
        f->pages = last;
    }
    if (f->pages)
        memset(f->dim, 0, f->pages * sizeof *f->dim);
    f->size_dim = 0;
}

/* The size that the event gives to a file of `size`, the same if none. */
static uint64_t size_after(const struct log_event *e, uint64_t size)
{
    if (e->kind == LOG_SIZE)
        return e->off;
    return e->kind == LOG_WRITE && end_of(e) > size ? end_of(e) : size;
}

static void dims_of_file(struct disk *d, uint32_t node)
{
    struct disk_file *f = &d->file[node];
    uint64_t size = f->safe.size;

    pages_reset(d, f);
    for (size_t i = 0; i < f->events; i++) {
        const struct log_event *e = log_event(d->log, f->event[i]);

        for (uint64_t page = e->off / PAGE; has_bytes(e) && page <= (end_of(e) - 1) / PAGE;
             page++) {
            if (!f->dim[page]) {
                f->dim[page] = (uint32_t)dim_new(d, DIM_PAGE, node) + 1;
                d->dim[f->dim[page] - 1].page = page;
            }
            d->dim[f->dim[page] - 1].versions++;
        }
        if (size_after(e, size) != size) {
            if (!f->size_dim)
                f->size_dim = dim_new(d, DIM_SIZE, node) + 1;
            d->dim[f->size_dim - 1].versions++;
            size = size_after(e, size);
        }
    }
}

size_t disk_dims(struct disk *d)
{
    if (d->dims_known)
        return d->dims;
    d->dims = 0;
    for (size_t i = 0; i < d->name_events; i++) {
        size_t dim = dim_new(d, DIM_NAME, log_event(d->log, d->name[i])->node);

        d->dim[dim].versions = 2; /* the event number i is dimension number i */
    }
    for (uint32_t node = 0; node < d->files; node++)
        if (d->file[node].events > 0)
            dims_of_file(d, node);
    d->dims_known = true;
    return d->dims;
}

uint64_t disk_combinations(struct disk *d)
{
    uint64_t product = 1;

    for (size_t i = 0; i < disk_dims(d); i++)
        if (__builtin_mul_overflow(product, d->dim[i].versions, &product))
            return UINT64_MAX;
    return product;
}

static uint32_t pick_random(struct rng *rng, uint32_t versions)
{
    switch (rng_below(rng, 3)) {
    case 0:
        return 0;
    case 1:
        return versions - 1;
    default:
        return (uint32_t)rng_below(rng, versions);
    }
}

void disk_pick(struct disk *d, enum disk_mode mode, uint64_t which)
{
    struct rng rng = { mix(which, 0xd15c) };
    size_t n = disk_dims(d);

    for (size_t i = 0; i < n; i++) {
        struct dim *dim = &d->dim[i];
        bool newest = mode == DISK_KEPT || (mode == DISK_DROP_ONE && i != which) ||
                      (mode == DISK_KEEP_ONE && i == which) ||
                      (mode == DISK_NAMES && dim->kind == DIM_NAME) ||
                      (mode == DISK_BYTES && dim->kind != DIM_NAME);

        dim->tear = 0;
        dim->pick = newest ? dim->versions - 1 : 0;
        if (mode == DISK_NTH) {
            dim->pick = (uint32_t)(which % dim->versions);
            which /= dim->versions;
        }
        if (mode == DISK_RANDOM || mode == DISK_TORN)
            dim->pick = pick_random(&rng, dim->versions);
        if (mode == DISK_TORN && dim->kind == DIM_PAGE && rng_below(&rng, 2))
            dim->tear = rng_next(&rng) | 1;
    }
}

/* ---- the picked world ------------------------------------------------- */

static uint32_t sector_pick(const struct dim *dim, uint64_t sector)
{
    struct rng rng = { mix(dim->tear, sector) };

    return dim->tear ? pick_random(&rng, dim->versions) : dim->pick;
}

/* The sectors of `e` that are picked at this version or a later one. */
static void put_page(struct world_file *out, const struct log_event *e, const uint8_t *data,
                     uint64_t page, struct dim *dim)
{
    uint32_t version = ++dim->seen;

    for (uint64_t s = 0; s < SECTORS; s++) {
        uint64_t from = page * PAGE + s * SECTOR, to = from + SECTOR;

        if (from < e->off)
            from = e->off;
        if (to > end_of(e))
            to = end_of(e);
        if (from < to && version <= sector_pick(dim, s))
            world_put(out, from, data + (from - e->off), to - from);
    }
}

static void put_file(struct disk *d, uint32_t node, struct world_file *out)
{
    struct disk_file *f = &d->file[node];
    uint64_t size = f->safe.size, kept = size;

    world_put(out, 0, f->safe.bytes, f->safe.filled);
    for (size_t i = 0; i < f->events; i++) {
        const struct log_event *e = log_event(d->log, f->event[i]);
        const uint8_t *data = log_bytes(d->log, e);

        for (uint64_t page = e->off / PAGE; has_bytes(e) && page <= (end_of(e) - 1) / PAGE; page++)
            put_page(out, e, data, page, &d->dim[f->dim[page] - 1]);
        if (size_after(e, size) != size) {
            struct dim *dim = &d->dim[f->size_dim - 1];

            size = size_after(e, size);
            if (++dim->seen <= dim->pick)
                kept = size;
        }
    }
    world_resize(out, kept);
}

void disk_world(struct disk *d, struct world *w)
{
    size_t dims = disk_dims(d);

    for (size_t i = 0; i < dims; i++)
        d->dim[i].seen = 0;
    world_clear(w);
    for (uint32_t node = 0; node < d->names.files; node++)
        world_file(w, node)->is_dir = d->names.file[node].is_dir;
    for (size_t i = 0; i < d->names.names; i++)
        world_name_set(w, d->names.name[i]);
    for (size_t i = 0; i < d->name_events; i++)
        if (d->dim[i].pick)
            world_names_play(w, log_event(d->log, d->name[i]));
    for (uint32_t node = 0; node < d->files && node < log_nodes(d->log); node++)
        if (!world_file(w, node)->is_dir)
            put_file(d, node, world_file(w, node));
}

const struct world_file *disk_synced(struct disk *d, uint32_t node)
{
    return &file_of(d, node)->safe;
}

static const char *mode_name(enum disk_mode mode)
{
    static const char *const names[DISK_MODES] = {
        "lost", "kept", "drop-one", "keep-one", "names", "bytes", "combination", "random", "torn",
    };

    return names[mode];
}

const char *disk_pick_text(struct disk *d, enum disk_mode mode, uint64_t which)
{
    static const char *const kinds[] = { "page", "size", "name" };
    static char text[200];
    const struct dim *dim = which < d->dims ? &d->dim[which] : NULL;
    bool one = mode == DISK_DROP_ONE || mode == DISK_KEEP_ONE;

    if (one && dim)
        (void)snprintf(text, sizeof text, "%s %s %llu of %s", mode_name(mode), kinds[dim->kind],
                       (unsigned long long)dim->page, log_node_name(d->log, dim->node, d->at));
    else
        (void)snprintf(text, sizeof text, "%s %llu", mode_name(mode), (unsigned long long)which);
    return text;
}
