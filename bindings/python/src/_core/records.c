/* records.c - tuples with names for what kist tells in structs. */
#include "core.h"

#include <stddef.h>

static PyStructSequence_Field meta_fields[] = {
    { "size", "length of the value in bytes" },
    { "sequence", "grows with each write to the bank; for put(if_seq=)" },
    { "mtime_ns", "time of the write, ns since 1970, at a resolution of 1 to 10 ms" },
    { "expiry_ns", "ns since 1970, 0: never" },
    { "mtime", "time of the write, seconds since 1970" },
    { 0 },
};
static PyStructSequence_Desc meta_desc = {
    "kist.Meta", "What is known of a key, from Bank.meta().", meta_fields, 5
};

static PyStructSequence_Field event_fields[] = {
    { "level", "1: information, 2: warning, 3: damage" },
    { "bank", "its name, or ''" },
    { "file", "its name, or ''" },
    { "message", "one sentence" },
    { "offset", "byte within the file, or None" },
    { 0 },
};
static PyStructSequence_Desc event_desc = {
    "kist.LogEvent", "A recovery, or damage that was found.", event_fields, 5
};

/* Structs whose fields are 64-bit or 32-bit numbers. */
struct number {
    const char *name, *doc;
    size_t at;
    bool wide, is_signed;
};
#define WIDE(type, field, doc) { #field, doc, offsetof(type, field), true, false }
#define SIGNED(type, field, doc) { #field, doc, offsetof(type, field), true, true }
#define NARROW(type, field, doc) { #field, doc, offsetof(type, field), false, false }

static const struct number stats_numbers[] = {
    WIDE(kist_stats, entries, "live keys"),
    WIDE(kist_stats, deleted, "tombstones not yet cleaned"),
    WIDE(kist_stats, payload_bytes, "live keys and values"),
    WIDE(kist_stats, live_bytes, "records of live keys, with header and padding"),
    WIDE(kist_stats, wasted_bytes, "records that nothing leads to any more"),
    WIDE(kist_stats, heap_file_bytes, "sizes of the heap's files"),
    WIDE(kist_stats, index_file_bytes, "size of the index file"),
    WIDE(kist_stats, held_bytes, "unlinked heap files that somebody still has mapped"),
    WIDE(kist_stats, segments, "heap files"),
    NARROW(kist_stats, index_depth, "directory of the hash index: 2^depth"),
    WIDE(kist_stats, longest_search, "buckets that the longest search may visit"),
    WIDE(kist_stats, sequence, "of the newest write"),
    WIDE(kist_stats, unsynced_bytes, "written since the last sync"),
    WIDE(kist_stats, generation, "of the index"),
    WIDE(kist_stats, writers, "processes that have the bank open for writing"),
    WIDE(kist_stats, damaged_bytes, "passed over by the last rebuild"),
    NARROW(kist_stats, last_recovery, "0: none, 1: repair after a death, 2: rebuild"),
    NARROW(kist_stats, poisoned, "1: a sync failed; the bank is read-only until repair"),
    SIGNED(kist_stats, last_recovery_ns, "when, ns since 1970; 0: never"),
    WIDE(kist_stats, snapshots, "that this process has open, scans with a pin included"),
    WIDE(kist_stats, oldest_pin, "lowest sequence that a snapshot of any process needs; 0: none"),
    WIDE(kist_stats, pinned_bytes, "heap files that nothing but snapshots needs"),
    { "index_kind", "1: hash, 2: ordered", offsetof(kist_stats, index), false, false },
};
static const struct number report_numbers[] = {
    WIDE(kist_report, records, "records that were read and are whole"),
    WIDE(kist_report, entries, "live keys among them"),
    WIDE(kist_report, damaged, "records that fail their checksum"),
    WIDE(kist_report, damaged_bytes, "in them and in unreadable stretches"),
    WIDE(kist_report, unreachable, "live records that the index does not find"),
    WIDE(kist_report, first_offset, "where in first_file the first damage is"),
};
static const struct number copied_numbers[] = {
    NARROW(kist_copied, banks, "banks in the copy"),
    WIDE(kist_copied, entries, "live keys in all of them"),
    WIDE(kist_copied, bytes, "of heap files that were read"),
};
static const struct number moment_numbers[] = {
    WIDE(kist_snapshot_info, sequence, "of the newest write that it sees"),
    SIGNED(kist_snapshot_info, taken_ns, "when, ns since 1970"),
    WIDE(kist_snapshot_info, entries, "live keys"),
    WIDE(kist_snapshot_info, payload_bytes, "of keys and values"),
};
#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

static PyTypeObject *numbers_type(const char *name, const char *doc, const struct number *numbers,
                                  int n, const char *more, const char *more_doc)
{
    PyStructSequence_Field fields[32] = { 0 };
    PyStructSequence_Desc desc = { name, doc, fields, n + (more != NULL) };

    for (int i = 0; i < n; i++)
        fields[i] = (PyStructSequence_Field){ numbers[i].name, numbers[i].doc };
    if (more)
        fields[n] = (PyStructSequence_Field){ more, more_doc };
    return PyStructSequence_NewType(&desc);
}

static PyObject *number_make(const struct number *number, const void *from)
{
    const void *at = (const char *)from + number->at;

    if (!number->wide)
        return PyLong_FromUnsignedLong(*(const uint32_t *)at);
    if (number->is_signed)
        return PyLong_FromLongLong(*(const int64_t *)at);
    return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
}

/* `more` is taken over. */
static PyObject *numbers_make(PyTypeObject *type, const struct number *numbers, int n,
                              const void *from, PyObject *more)
{
    PyObject *all = PyStructSequence_New(type);

    for (int i = 0; all && i < n; i++) {
        PyObject *one = number_make(&numbers[i], from);

        if (!one)
            Py_CLEAR(all);
        else
            PyStructSequence_SetItem(all, i, one);
    }
    if (all && more)
        PyStructSequence_SetItem(all, n, more);
    else
        Py_XDECREF(more);
    return all;
}

PyObject *meta_make(struct state *st, const kist_meta *m)
{
    PyObject *meta = PyStructSequence_New(st->meta);

    if (!meta)
        return NULL;
    PyStructSequence_SetItem(meta, 0, PyLong_FromUnsignedLongLong(m->value_bytes));
    PyStructSequence_SetItem(meta, 1, PyLong_FromUnsignedLongLong(m->sequence));
    PyStructSequence_SetItem(meta, 2, PyLong_FromLongLong(m->mtime_ns));
    PyStructSequence_SetItem(meta, 3, PyLong_FromLongLong(m->expiry_ns));
    PyStructSequence_SetItem(meta, 4, PyFloat_FromDouble((double)m->mtime_ns / 1e9));
    for (int i = 0; i < 5; i++)
        if (!PyStructSequence_GetItem(meta, i))
            Py_CLEAR(meta);
    return meta;
}

PyObject *stats_make(struct state *st, const kist_stats *s)
{
    return numbers_make(st->stats, stats_numbers, COUNT(stats_numbers), s, NULL);
}

PyObject *report_make(struct state *st, const kist_report *r)
{
    PyObject *file = PyUnicode_DecodeFSDefault(r->first_file);

    return file ? numbers_make(st->report, report_numbers, COUNT(report_numbers), r, file) : NULL;
}

PyObject *copied_make(struct state *st, const kist_copied *c)
{
    return numbers_make(st->copied, copied_numbers, COUNT(copied_numbers), c, NULL);
}

PyObject *moment_make(struct state *st, const kist_snapshot_info *i)
{
    return numbers_make(st->moment, moment_numbers, COUNT(moment_numbers), i, NULL);
}

static int add(PyObject *module, const char *name, PyTypeObject *type)
{
    if (!type)
        return -1;
    Py_INCREF(type);
    if (PyModule_AddObject(module, name, (PyObject *)type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    return 0;
}

int records_add(PyObject *module, struct state *st)
{
    st->meta = PyStructSequence_NewType(&meta_desc);
    st->event = PyStructSequence_NewType(&event_desc);
    st->stats = numbers_type("kist.Stats", "Counts and sizes, from Bank.stats().", stats_numbers,
                             COUNT(stats_numbers), NULL, NULL);
    st->report =
        numbers_type("kist.Report", "What was found, from Bank.verify() and Store.repair().",
                     report_numbers, COUNT(report_numbers), "first_file",
                     "where the first damage is, or ''");
    st->copied = numbers_type("kist.Copied", "What was copied, from Store.copy().", copied_numbers,
                              COUNT(copied_numbers), NULL, NULL);
    st->moment = numbers_type("kist.Moment", "What a snapshot holds, from Snapshot.moment().",
                              moment_numbers, COUNT(moment_numbers), NULL, NULL);
    if (add(module, "Moment", st->moment) < 0 || add(module, "Meta", st->meta) < 0 || add(module, "LogEvent", st->event) < 0 ||
        add(module, "Stats", st->stats) < 0 || add(module, "Report", st->report) < 0 ||
        add(module, "Copied", st->copied) < 0)
        return -1;
    return 0;
}
