/*
 * world - a tree of files in memory: what a prefix of a log has made of it.
 * world_run() plays events into it; disk.c puts one together from what an
 * unkind disk has kept; replay.c writes one into a real directory.
 */
#ifndef KIST_TESTS_SEAM_WORLD_H
#define KIST_TESTS_SEAM_WORLD_H

#include "seam/log.h"

/* A file's bytes: `size` of them, zeros from `filled` on. */
struct world_file {
    uint8_t *bytes;
    uint64_t filled, cap, size;
    bool is_dir, made;
};

/* A name in a directory. The text belongs to the log. */
struct world_name {
    const char *text;
    uint32_t dir, node;
    bool is_dir;
};

struct world {
    const struct log *log;
    struct world_file *file; /* by node */
    uint32_t files, file_cap;
    struct world_name *name;
    size_t names, name_cap;
};

void world_init(struct world *w, const struct log *log); /* an empty root */
void world_clear(struct world *w);                       /* the same, keeping memory */
void world_free(struct world *w);

/* Play events [from, to). */
void world_run(struct world *w, uint64_t from, uint64_t to);

/* Equal for equal trees; of no use between logs. */
uint64_t world_hash(const struct world *w);

/* For those who put a world together themselves. */
struct world_file *world_file(struct world *w, uint32_t node);
void world_put(struct world_file *f, uint64_t off, const void *data, size_t len);
void world_resize(struct world_file *f, uint64_t size);
void world_name_set(struct world *w, struct world_name name);
void world_names_play(struct world *w, const struct log_event *e);
bool log_is_name(const struct log_event *e);
const struct world_name *world_find(const struct world *w, uint32_t dir, const char *text);

#endif
