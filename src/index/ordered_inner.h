/*
 * ordered_inner - how an inner node of the ordered index is replaced by one, or two, with
 * other children: taken apart, changed, built; or copied with one child more. For
 * ordered_grow.c alone. What is built is taken from ordered_space.c, and nothing leads
 * there yet.
 */
#ifndef KIST_INDEX_ORDERED_INNER_H
#define KIST_INDEX_ORDERED_INNER_H

#include "index/ordered_node.h"

/* An inner node, taken apart; the pieces stay where they were, or are in the arena. */
struct parts {
    unsigned n; /* separators; one more child */
    uint64_t child[ORDERED_FANOUT + 1];
    struct {
        const uint8_t *p; /* behind the prefix */
        size_t len;
    } sep[ORDERED_FANOUT];
    const uint8_t *prefix;
    size_t prefix_len;
    uint8_t *arena; /* what pieces lead to, or NULL */
};

/* The caller frees the arena, which is NULL at first. KIST_OK or KIST_ECORRUPT. */
int parts_of(const struct ordered_index *ix, uint64_t word, struct parts *ps);

/* Exchange child `at` for two, with a separator between them. KIST_OK or KIST_ENOMEM. */
int parts_split(struct parts *ps, unsigned at, uint64_t left, uint64_t right, const uint8_t *sep,
                size_t len);

/* Take out the separator `at`, and the child behind it. */
void parts_drop(struct parts *ps, unsigned at);

/* Of empty ranges side by side one will do. ⚑ Not less: the leaf beside it skips
 * what its own fences have in common. */
void parts_tidy(struct parts *ps);

/* Is it few enough for one node? */
bool parts_fit(const struct parts *ps);

/* Build a node of the separators from .. to - 1, and the children around them. */
int parts_build(struct ordered_index *ix, const struct index_owner *o, const struct parts *ps,
                unsigned from, unsigned to, unsigned level, uint64_t *word);

/* What nearly every split of a leaf asks for: node `depth` of the path, with its child there
 * exchanged for two, where prefix, heads and suffixes of the others stay as they are.
 * KIST_MISS: they do not, or it has no room for another. */
int inner_copy(struct ordered_index *ix, const struct index_owner *o,
               const struct ordered_spot *spot, unsigned depth, uint64_t left, uint64_t right,
               const uint8_t *sep, size_t len, uint64_t *word);

#endif
