/*
 * rebuild - what a survey of the heap finds (survey.c), and what a rebuild
 * makes of it (rebuild.c).
 */
#ifndef KIST_BANK_REBUILD_H
#define KIST_BANK_REBUILD_H

#include "bank/core.h"

/* A segment that counts, in the order of numbers. */
struct part {
    uint64_t n;
    struct segment *segment;
    uint64_t until;  /* behind its last record that counts */
    uint64_t limit;  /* a later segment says that it ends here; or its length */
    bool damaged;    /* something in it does not verify */
    uint64_t used, live;
};

/* Places first..end hold the records of a committed batch. */
struct range {
    uint64_t first, end;
    uint64_t commit; /* where the commit record is */
    bool broken;     /* not all that it speaks of is there */
};

struct clear {
    uint64_t place, sequence;
    bool in_batch; /* counts if its batch does */
};

struct stretch {
    uint64_t place, len;
};

struct heap_survey {
    struct bank *bank;
    const struct rebuild *how;
    struct part *part;
    size_t count;
    uint64_t *voids; /* numbers of files to unlink */
    size_t void_count;
    uint64_t *shorts; /* numbers of files that are too short for a header */
    size_t short_count;
    struct range *range;
    size_t range_count;
    struct stretch *bad;
    size_t bad_count;
    struct clear *clear;
    size_t clear_count;
    uint64_t *index; /* generations of index files */
    size_t index_count;
    char (*leftover)[64];
    size_t leftover_count;

    uint64_t numbered;    /* highest number that was given */
    uint64_t newest;      /* of those that count */
    uint64_t incarnation, sequence, durable, cleared, generation;
    uint64_t end;         /* behind the last record that counts */
    uint64_t puts, records, damaged, damaged_bytes;
    uint64_t suspects;    /* damaged records that an entry leads to */
    unsigned ring_lg;
    uint64_t done, all;   /* bytes, for progress */
};

/* Read the whole heap. To be freed in any case. */
int survey_heap(struct heap_survey *v, struct bank *b, const struct rebuild *how);
void survey_free(struct heap_survey *v);

struct part *survey_part(struct heap_survey *v, uint64_t n);

/* The record is in no batch, or in one that was committed. */
bool survey_counts(const struct heap_survey *v, const struct record *r, uint64_t place);

int survey_progress(struct heap_survey *v, uint64_t bytes);

#endif
