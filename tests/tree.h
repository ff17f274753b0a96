/*
 * tree - an ordered index by itself, for tests: its records are no more than a key, in memory
 * that all processes share.
 */
#ifndef KIST_TESTS_TREE_H
#define KIST_TESTS_TREE_H

#include "support.h"

#include "index/ordered_node.h"

enum { KEY_BYTES = 65535 };

struct tree_heap {
    size_t cap;
    _Atomic uint64_t used, reuse;
    uint8_t bytes[];
};

struct tree {
    struct tree_heap *heap;
    struct ordered_index *ix;
    struct index_owner o;
    char *dir;
    int dir_fd;
};

extern const uint8_t tree_bank_id[16];

/* In private memory, or in a file that others can open. */
struct tree tree_private(size_t bytes);
struct tree tree_in_a_file(size_t bytes);
void tree_end(struct tree *w);

/* Another map of that file: another process's, as it were. */
struct ordered_index *tree_open_again(const struct tree *w, bool writable);

/* Add a record of this key; its location. And what an index's owner reads. */
uint64_t tree_record(struct tree_heap *h, const void *key, size_t len);
const struct record *tree_read(void *arg, uint64_t loc);

kist_bytes tree_key_at(const struct tree *w, uint64_t loc);
int tree_order_of(kist_bytes a, kist_bytes b);

/* As a bank would: with as much of the file as there is. */
int tree_find(struct tree *w, struct ordered_index *ix, kist_bytes key, enum ordered_where where,
              struct ordered_spot *at);
int tree_try_put_in(struct tree *w, struct ordered_index *ix, kist_bytes key);
void tree_put(struct tree *w, kist_bytes key);
int tree_take_out_of(struct tree *w, struct ordered_index *ix, kist_bytes key);
bool tree_holds(struct tree *w, kist_bytes key);

/* It is proved; what it is like. */
struct ordered_facts tree_checked(struct tree *w);

/* Eight bytes in their order. Sixteen of them hold at a time. */
kist_bytes ordered_number(uint64_t n);

/* ---- what it has to agree with ---------------------------------------- */

struct sorted {
    uint64_t *loc; /* of records, in the order of their keys */
    size_t n, cap;
};

size_t sorted_from(const struct tree *w, const struct sorted *o, kist_bytes key);
bool sorted_has(const struct tree *w, const struct sorted *o, size_t i, kist_bytes key);
void sorted_put(const struct tree *w, struct sorted *o, kist_bytes key, uint64_t loc);
void sorted_take_out(const struct tree *w, struct sorted *o, kist_bytes key);

/* Walk both, to the right and to the left; or search both. */
void must_be_as_sorted(struct tree *w, const struct sorted *o);
void must_find_the_same(struct tree *w, const struct sorted *o, kist_bytes key);

#endif
