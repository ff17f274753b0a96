/*
 * survey.c - read a heap from end to end: which segments and records count,
 * where it is damaged, and where its tail is cut off. Changes nothing.
 */
#include "bank/rebuild.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- growing lists ----------------------------------------------------- */

static int list_add(void *list, size_t *count, const void *item, size_t size)
{
    void **items = list, *p = *items;

    if ((*count & (*count - 1)) == 0) { /* full: 0, 1, 2, 4, 8, ... */
        p = os_resize(p, (*count ? *count * 2 : 1) * size);
        if (!p)
            return KIST_ENOMEM;
        *items = p;
    }
    memcpy((char *)p + *count * size, item, size);
    ++*count;
    return KIST_OK;
}

/* ---- the directory ------------------------------------------------------ */

static int take_name(struct heap_survey *v, const char *name)
{
    static const char index_prefix[] = "kist.index.";
    uint64_t n = segment_number(name);
    char leftover[64] = "";

    if (n != 0) {
        struct part p = { .n = n };

        return list_add(&v->part, &v->count, &p, sizeof p);
    }
    if (strncmp(name, index_prefix, sizeof index_prefix - 1) == 0) {
        n = strtoull(name + sizeof index_prefix - 1, NULL, 10);
        if (n > v->generation && n < UINT64_MAX / 2)
            v->generation = n;
        return list_add(&v->index, &v->index_count, &n, sizeof n);
    }
    if ((strncmp(name, "kist.bank.", 10) == 0 || strncmp(name, "kist.spool.", 11) == 0) &&
        strlen(name) < sizeof leftover) {
        memcpy(leftover, name, strlen(name) + 1);
        return list_add(&v->leftover, &v->leftover_count, leftover, sizeof leftover);
    }
    return KIST_OK;
}

static int by_number(const void *a, const void *b)
{
    const struct part *p = a, *q = b;

    return p->n < q->n ? -1 : p->n > q->n;
}

static int list_dir(struct heap_survey *v)
{
    _Alignas(8) char buf[8192];
    int dir = bank_open_dir(v->bank), rc = 0; /* its own offset */
    int64_t got = dir;

    while (dir >= 0 && rc == 0 && (got = os_list(dir, buf, sizeof buf)) > 0) {
        for (int64_t at = 0; at < got && rc == 0;) {
            const struct os_dirent *e = (const void *)(buf + at);

            rc = take_name(v, e->name);
            at += e->len;
        }
    }
    if (dir >= 0)
        (void)os_close(dir);
    if (rc == 0 && got < 0)
        rc = (int)got;
    if (v->count > 0)
        qsort(v->part, v->count, sizeof *v->part, by_number);
    return rc;
}

/* ---- which segments count ----------------------------------------------- */

static int make_void(struct heap_survey *v, size_t i)
{
    uint64_t n = v->part[i].n;

    segment_release(v->part[i].segment);
    v->part[i].segment = NULL;
    memmove(&v->part[i], &v->part[i + 1], (v->count - i - 1) * sizeof *v->part);
    v->count--;
    return list_add(&v->voids, &v->void_count, &n, sizeof n);
}

static void forget(struct heap_survey *v, size_t i)
{
    memmove(&v->part[i], &v->part[i + 1], (v->count - i - 1) * sizeof *v->part);
    v->count--;
}

static int map_part(struct heap_survey *v, struct part *p)
{
    char name[SEGMENT_NAME_MAX];
    int fd, rc;

    segment_name(name, p->n);
    fd = bank_open_file(v->bank, name, OS_READ);
    if (fd < 0)
        return fd == -ENOENT ? fd : bank_path_error(v->bank, fd, name);
    rc = segment_map(&p->segment, fd, v->bank->set.record.id, p->n);
    (void)os_close(fd);
    if (rc < 0)
        return rc;
    p->limit = p->segment->len;
    if (segment_header_is_damaged(p->segment))
        bank_log(v->bank, KIST_LOG_DAMAGE, name, 0, "the segment's header is damaged");
    if (p->segment->header.incarnation > v->incarnation)
        v->incarnation = p->segment->header.incarnation;
    v->all += p->limit;
    return KIST_OK;
}

/* Those too short for a header were being made, or were cut short; those of
 * another bank were put there by somebody. */
static int map_parts(struct heap_survey *v)
{
    char name[SEGMENT_NAME_MAX];

    for (size_t i = 0; i < v->count;) {
        int rc = map_part(v, &v->part[i]);

        if (rc == KIST_ECORRUPT) {
            rc = list_add(&v->shorts, &v->short_count, &v->part[i].n, sizeof v->part[i].n);
            if (rc < 0)
                return rc;
            forget(v, i);
        } else if (rc == KIST_EFORMAT || rc == -ENOENT) {
            segment_name(name, v->part[i].n);
            bank_log(v->bank, KIST_LOG_WARNING, name, 0, "no segment of this bank; left alone");
            forget(v, i);
        } else if (rc < 0) {
            return rc;
        } else {
            i++;
        }
    }
    return KIST_OK;
}

/* S4, from the last one down: what a segment says of those before it. */
static int void_rules(struct heap_survey *v)
{
    for (size_t i = v->count; i-- > 0;) {
        const struct segment_header h = v->part[i].segment->header;

        while (h.predecessor != 0 && i > 0 && v->part[i - 1].n > h.predecessor) {
            int rc = make_void(v, i - 1);

            if (rc < 0)
                return rc;
            i--;
        }
        if (h.predecessor != 0 && h.cut16 != 0 && i > 0 && v->part[i - 1].n == h.predecessor &&
            (uint64_t)h.cut16 * RECORD_ALIGN < v->part[i - 1].limit)
            v->part[i - 1].limit = (uint64_t)h.cut16 * RECORD_ALIGN;
    }
    return KIST_OK;
}

/* ---- reading ------------------------------------------------------------- */

/* The in-batch records met in a row, until it is known whether they count. */
struct met_in_batch {
    uint64_t place, checksum;
};

struct reading {
    struct heap_survey *v;
    struct met_in_batch *run;
    size_t run_count;
    uint64_t gap; /* a segment ended here before its end; 0: none did */
};

static int bad(struct heap_survey *v, uint64_t place, uint64_t len)
{
    struct stretch s = { place, len };

    return list_add(&v->bad, &v->bad_count, &s, sizeof s);
}

static int take_commit(struct reading *rd, const struct record *r, uint64_t place)
{
    struct range range = { .commit = place };
    struct commit_body body;
    uint64_t sum = 0, count;
    size_t i = 0;

    if (r->value_len != sizeof body)
        return KIST_OK;
    memcpy(&body, record_value(r), sizeof body);
    range.first = body.first;
    range.end = body.count == 0 ? body.sum : place;
    while (i < rd->run_count && rd->run[i].place < body.first)
        i++;
    count = rd->run_count - i;
    for (; i < rd->run_count && body.count != 0; i++)
        sum = record_chain(sum, rd->run[i].checksum);
    range.broken = body.count != 0 && (count != body.count || sum != body.sum);
    return list_add(&rd->v->range, &rd->v->range_count, &range, sizeof range);
}

static int take_record(struct reading *rd, const struct record *r, uint64_t place)
{
    struct heap_survey *v = rd->v;
    struct clear clear = { place, r->sequence, r->kind & RECORD_IN_BATCH };
    int rc = KIST_OK;

    v->records++;
    if (r->sequence > v->sequence)
        v->sequence = r->sequence;
    v->puts += record_kind(r) == RECORD_PUT;
    if (record_kind(r) == RECORD_CLEAR)
        rc = list_add(&v->clear, &v->clear_count, &clear, sizeof clear);
    if (rc < 0)
        return rc;
    if (r->kind & RECORD_IN_BATCH) {
        struct met_in_batch m = { place, r->checksum };

        return list_add(&rd->run, &rd->run_count, &m, sizeof m);
    }
    if (record_kind(r) == RECORD_MARK && record_word(r) > v->durable && record_word(r) <= place)
        v->durable = record_word(r);
    else if (record_kind(r) == RECORD_COMMIT)
        rc = take_commit(rd, r, place);
    if (record_kind(r) != RECORD_PADDING) /* ⚑ a batch may span segments */
        rd->run_count = 0;
    return rc;
}

static int read_part(struct reading *rd, struct part *p)
{
    struct heap_survey *v = rd->v;
    struct scan scan = { .segment = p->segment, .bank = &v->bank->set.record, .until = p->limit };
    struct scan_step step;
    int rc = KIST_OK;

    p->until = SEGMENT_FIRST_RECORD;
    while (rc == KIST_OK && p->limit > SEGMENT_FIRST_RECORD) {
        uint64_t place;

        scan_next(&scan, &step);
        if (step.found == SCAN_END)
            break;
        place = place_make(p->n, step.offset);
        if (rd->gap != 0) { /* so it was not the end of the heap */
            rc = bad(v, rd->gap, 0);
            rd->gap = 0;
        }
        p->until = step.offset + step.len;
        if (rc == KIST_OK && step.found == SCAN_RECORD && !scan_value_is_whole(step.record))
            step.found = SCAN_DAMAGED;
        if (rc == KIST_OK && step.found == SCAN_DAMAGED) {
            p->damaged = true;
            rc = bad(v, place, step.len);
        } else if (rc == KIST_OK) {
            rc = take_record(rd, step.record, place);
        }
    }
    if (rd->gap == 0 && p->limit == p->segment->len && !place_is_full(p->until, p->limit))
        rd->gap = place_behind(p->n, p->until);
    return rc == KIST_OK ? survey_progress(v, p->limit / 2) : rc;
}

/* ---- the cut -------------------------------------------------------------- */

static void find_end(struct heap_survey *v)
{
    v->end = 0;
    for (size_t i = 0; i < v->count; i++)
        if (v->part[i].until > SEGMENT_FIRST_RECORD || v->end == 0)
            v->end = place_behind(v->part[i].n, v->part[i].until);
    for (size_t i = 0; i < v->bad_count; i++)
        if (v->bad[i].place >= v->durable && v->bad[i].place >= v->how->known_tail &&
            v->bad[i].place < v->end)
            v->end = v->bad[i].place;
}

static void report_damage(struct heap_survey *v, const struct stretch *s)
{
    kist_report *r = v->how->report;
    char name[SEGMENT_NAME_MAX];

    segment_name(name, place_n(s->place));
    bank_log(v->bank, KIST_LOG_DAMAGE, name, place_offset(s->place),
             "%llu bytes are damaged, though they had been synced",
             (unsigned long long)s->len);
    if (r && v->damaged == 0) {
        memcpy(r->first_file, name, sizeof name);
        r->first_offset = place_offset(s->place);
    }
    v->damaged++;
    v->damaged_bytes += s->len;
}

/* A file too short for a header behind the end was being made; one before it
 * has been cut short. */
static int judge_shorts(struct heap_survey *v)
{
    for (size_t i = 0; i < v->short_count; i++) {
        struct stretch s = { place_make(v->shorts[i], 0), SEGMENT_FIRST_RECORD };
        int rc = KIST_OK;

        if (v->shorts[i] > place_n(v->end))
            rc = list_add(&v->voids, &v->void_count, &v->shorts[i], sizeof v->shorts[i]);
        else
            report_damage(v, &s);
        if (rc < 0)
            return rc;
    }
    return KIST_OK;
}

static int by_first(const void *a, const void *b)
{
    const struct range *p = a, *q = b;

    return p->first < q->first ? -1 : p->first > q->first;
}

/* ⚑ The commit was written behind the records: where it is durable they were too, and
 * what is missing of them has been damaged since. Else they were torn. */
static bool counts(const struct heap_survey *v, const struct range *r)
{
    return r->commit < v->end && r->first < r->end &&
           (!r->broken || r->commit < v->durable || r->commit < v->how->known_tail);
}

/* Drop the ranges that do not count, and join those that overlap: what is left is in
 * order, for is_committed(). */
static void join_ranges(struct heap_survey *v)
{
    size_t n = 0;

    if (v->range_count > 0)
        qsort(v->range, v->range_count, sizeof *v->range, by_first);
    for (size_t i = 0; i < v->range_count; i++) {
        const struct range r = v->range[i];

        if (!counts(v, &r))
            continue;
        if (n == 0 || r.first > v->range[n - 1].end)
            v->range[n++] = r;
        else if (r.end > v->range[n - 1].end)
            v->range[n - 1].end = r.end;
    }
    v->range_count = n;
}

static bool is_committed(const struct heap_survey *v, uint64_t place)
{
    size_t from = 0, to = v->range_count; /* the last one that begins at or before it */

    while (from < to) {
        size_t mid = (from + to) / 2;

        if (v->range[mid].first <= place)
            from = mid + 1;
        else
            to = mid;
    }
    return from > 0 && place < v->range[from - 1].end;
}

static int apply_cut(struct heap_survey *v)
{
    char name[SEGMENT_NAME_MAX];
    int rc;

    find_end(v);
    rc = judge_shorts(v);
    if (rc < 0)
        return rc;
    while (v->count > 0 && v->part[v->count - 1].n > place_n(v->end)) {
        rc = make_void(v, v->count - 1);
        if (rc < 0)
            return rc;
    }
    if (v->count > 0 && place_n(v->end) == v->part[v->count - 1].n &&
        place_offset(v->end) < v->part[v->count - 1].until) {
        segment_name(name, place_n(v->end));
        bank_log(v->bank, KIST_LOG_INFO, name, place_offset(v->end),
                 "a torn tail was cut; what was synced is there");
        v->part[v->count - 1].until = place_offset(v->end);
    }
    for (size_t i = 0; i < v->bad_count; i++)
        if (v->bad[i].place < v->end)
            report_damage(v, &v->bad[i]);
    join_ranges(v);
    for (size_t i = 0; i < v->clear_count; i++)
        if (v->clear[i].place < v->end && v->clear[i].sequence > v->cleared &&
            (!v->clear[i].in_batch || is_committed(v, v->clear[i].place)))
            v->cleared = v->clear[i].sequence;
    return KIST_OK;
}

/* ---- the next number ------------------------------------------------------- */

static void count_number(uint64_t *highest, uint64_t from, uint64_t n)
{
    if (n > *highest && (n < from || n - from < UINT64_C(1) << (LOC_N_BITS - 1)))
        *highest = n;
}

/* Numbers go on above all that the bank has given. Of a file in which nothing
 * tells that it is the bank's, only the name speaks: it counts when the bank
 * may have given it, so that a stray one far away does not use them up. */
static void find_numbered(struct heap_survey *v)
{
    uint64_t own = 0;

    for (size_t i = 0; i < v->count; i++)
        if (!segment_header_is_damaged(v->part[i].segment) ||
            v->part[i].until > SEGMENT_FIRST_RECORD)
            own = v->part[i].n;
    v->numbered = own;
    for (size_t i = 0; i < v->void_count; i++)
        count_number(&v->numbered, own, v->voids[i]);
    for (size_t i = 0; i < v->short_count; i++)
        count_number(&v->numbered, own, v->shorts[i]);
}

/* ---- the whole ------------------------------------------------------------- */

int survey_progress(struct heap_survey *v, uint64_t bytes)
{
    v->done += bytes;
    if (!v->how->progress)
        return KIST_OK;
    return v->how->progress(v->done < v->all ? v->done : v->all, v->all, v->how->progress_arg);
}

int survey_heap(struct heap_survey *v, struct bank *b, const struct rebuild *how)
{
    struct reading rd = { .v = v };
    int rc;

    *v = (struct heap_survey){ .bank = b, .how = how, .ring_lg = LIVE_RING_LG };
    rc = list_dir(v);
    if (rc == KIST_OK)
        rc = map_parts(v);
    if (rc == KIST_OK)
        rc = void_rules(v);
    for (size_t i = 0; i < v->count && rc == KIST_OK; i++)
        rc = read_part(&rd, &v->part[i]);
    os_free(rd.run);
    for (size_t i = v->count; i-- > 0 && rc == KIST_OK;) /* it was being made */
        if (segment_header_is_damaged(v->part[i].segment) &&
            v->part[i].until <= SEGMENT_FIRST_RECORD)
            rc = make_void(v, i);
    if (rc == KIST_OK)
        rc = apply_cut(v);
    if (rc != KIST_OK)
        return rc;
    find_numbered(v);
    v->newest = v->count ? v->part[v->count - 1].n : 1;
    while (v->count && v->numbered + 2 - v->part[0].n >= UINT64_C(1) << v->ring_lg &&
           v->ring_lg < LOC_N_BITS)
        v->ring_lg++;
    if (how->report) {
        how->report->records = v->records;
        how->report->damaged = v->damaged;
        how->report->damaged_bytes = v->damaged_bytes;
    }
    return KIST_OK;
}

void survey_free(struct heap_survey *v)
{
    for (size_t i = 0; i < v->count; i++)
        segment_release(v->part[i].segment);
    os_free(v->part);
    os_free(v->voids);
    os_free(v->shorts);
    os_free(v->range);
    os_free(v->bad);
    os_free(v->clear);
    os_free(v->index);
    os_free(v->leftover);
}

struct part *survey_part(struct heap_survey *v, uint64_t n)
{
    size_t from = 0, to = v->count;

    while (from < to) {
        size_t mid = (from + to) / 2;

        if (v->part[mid].n == n)
            return &v->part[mid];
        if (v->part[mid].n < n)
            from = mid + 1;
        else
            to = mid;
    }
    return NULL;
}

bool survey_counts(const struct heap_survey *v, const struct record *r, uint64_t place)
{
    return !(r->kind & RECORD_IN_BATCH) || is_committed(v, place);
}
