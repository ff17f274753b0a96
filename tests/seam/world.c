/* world.c - see world.h. */
#include "seam/world.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

static void *grow(void *p, size_t count, size_t size)
{
    p = realloc(p, count * size);
    if (!p)
        abort();
    return p;
}

void world_clear(struct world *w)
{
    for (uint32_t i = 0; i < w->files; i++) {
        struct world_file *f = &w->file[i];

        *f = (struct world_file){ .bytes = f->bytes, .cap = f->cap };
    }
    w->names = 0;
    world_file(w, 0)->is_dir = true;
    world_file(w, 0)->made = true;
}

void world_init(struct world *w, const struct log *log)
{
    *w = (struct world){ .log = log };
    world_clear(w);
}

void world_free(struct world *w)
{
    for (uint32_t i = 0; i < w->files; i++)
        free(w->file[i].bytes);
    free(w->file);
    free(w->name);
    *w = (struct world){ 0 };
}

struct world_file *world_file(struct world *w, uint32_t node)
{
    if (node >= w->file_cap) {
        w->file_cap = 2 * node + 32;
        w->file = grow(w->file, w->file_cap, sizeof *w->file);
    }
    while (w->files <= node)
        w->file[w->files++] = (struct world_file){ 0 };
    return &w->file[node];
}

/* ---- content ---------------------------------------------------------- */

void world_put(struct world_file *f, uint64_t off, const void *data, size_t len)
{
    uint64_t end = off + len;

    if (len == 0)
        return;
    if (end > f->cap) {
        f->cap = end < 4096 ? 8192 : 2 * end;
        f->bytes = grow(f->bytes, f->cap, 1);
    }
    if (off > f->filled)
        memset(f->bytes + f->filled, 0, off - f->filled);
    memcpy(f->bytes + off, data, len);
    if (end > f->filled)
        f->filled = end;
    if (end > f->size)
        f->size = end;
}

void world_resize(struct world_file *f, uint64_t size)
{
    f->size = size;
    if (f->filled > size)
        f->filled = size;
}

/* ---- names ------------------------------------------------------------ */

bool log_is_name(const struct log_event *e)
{
    switch (e->kind) {
    case LOG_CREATE:
    case LOG_MKDIR:
    case LOG_LINK:
    case LOG_RENAME:
    case LOG_UNLINK:
    case LOG_RMDIR:
        return true;
    default:
        return false;
    }
}

static struct world_name *find(const struct world *w, uint32_t dir, const char *text)
{
    for (size_t i = 0; i < w->names; i++)
        if (w->name[i].dir == dir && strcmp(w->name[i].text, text) == 0)
            return &w->name[i];
    return NULL;
}

const struct world_name *world_find(const struct world *w, uint32_t dir, const char *text)
{
    return find(w, dir, text);
}

static void name_remove(struct world *w, uint32_t dir, const char *text)
{
    struct world_name *n = find(w, dir, text);

    if (n)
        *n = w->name[--w->names];
}

void world_name_set(struct world *w, struct world_name name)
{
    name_remove(w, name.dir, name.text);
    if (w->names == w->name_cap) {
        w->name_cap = 2 * w->name_cap + 16;
        w->name = grow(w->name, w->name_cap, sizeof *w->name);
    }
    w->name[w->names++] = name;
}

void world_names_play(struct world *w, const struct log_event *e)
{
    const char *text = log_name(w->log, e, 0);
    bool is_dir = e->kind == LOG_MKDIR || world_file(w, e->node)->is_dir;

    world_file(w, e->node)->is_dir = is_dir;
    switch (e->kind) {
    case LOG_CREATE:
    case LOG_MKDIR:
    case LOG_LINK:
        world_file(w, e->node)->made = true;
        world_name_set(w, (struct world_name){ text, e->dir, e->node, is_dir });
        break;
    case LOG_RENAME:
        name_remove(w, e->dir, text);
        world_name_set(w, (struct world_name){ log_name(w->log, e, 1), (uint32_t)e->off, e->node,
                                               is_dir });
        break;
    case LOG_UNLINK:
    case LOG_RMDIR:
        name_remove(w, e->dir, text);
        break;
    default:
        break;
    }
}

void world_run(struct world *w, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        const struct log_event *e = log_event(w->log, i);

        if (e->kind == LOG_STORE || e->kind == LOG_WRITE)
            world_put(world_file(w, e->node), e->off, log_bytes(w->log, e), e->len);
        else if (e->kind == LOG_SIZE)
            world_resize(world_file(w, e->node), e->off);
        else if (log_is_name(e))
            world_names_play(w, e);
    }
}

/* ---- one number for all of it ----------------------------------------- */

static uint64_t file_hash(const struct world_file *f)
{
    uint64_t end = f->filled;

    while (end > 0 && f->bytes[end - 1] == 0)
        end--; /* zeros at the end are the same, written or not */
    return hash_seeded(f->bytes ? f->bytes : (const uint8_t *)"", end, f->size + f->is_dir);
}

uint64_t world_hash(const struct world *w)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < w->names; i++) {
        const struct world_name *n = &w->name[i];
        uint64_t one[3] = { n->dir, hash_bytes(n->text, strlen(n->text)),
                            file_hash(&w->file[n->node]) };

        sum += hash_bytes(one, sizeof one); /* whatever the order of the names */
    }
    return sum;
}
