/* bank_care.c - syncing, counting, giving back, checking. */
#include "core.h"

static int call_sync(kist_bank *bank, void *arg)
{
    (void)arg;
    return kist_sync(bank);
}

static PyObject *bank_sync(Bank *self, PyObject *Py_UNUSED(none))
{
    int rc = bank_wait(self, call_sync, NULL);

    if (rc == KIST_OK)
        Py_RETURN_NONE;
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

static int call_stat(kist_bank *bank, void *arg)
{
    return kist_stat(bank, arg);
}

static PyObject *bank_stats(Bank *self, PyObject *Py_UNUSED(none))
{
    kist_stats s = { .size = sizeof s };
    int rc = bank_wait(self, call_stat, &s);

    if (rc == KIST_OK)
        return stats_make(self->st, &s);
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

static int call_size(kist_bank *bank, void *arg)
{
    return kist_size_bytes(bank, arg);
}

static PyObject *bank_size_bytes(Bank *self, PyObject *Py_UNUSED(none))
{
    uint64_t bytes;
    int rc = bank_wait(self, call_size, &bytes);

    if (rc == KIST_OK)
        return PyLong_FromUnsignedLongLong(bytes);
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

static int call_fragmentation(kist_bank *bank, void *arg)
{
    return kist_fragmentation(bank, arg);
}

static PyObject *bank_fragmentation(Bank *self, PyObject *Py_UNUSED(none))
{
    double share;
    int rc = bank_wait(self, call_fragmentation, &share);

    if (rc == KIST_OK)
        return PyFloat_FromDouble(share);
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

struct care {
    struct progress progress;
    kist_report report;
};

static int call_compact(kist_bank *bank, void *arg)
{
    struct care *c = arg;

    return kist_compact(bank, progress_step, &c->progress);
}

static int call_verify(kist_bank *bank, void *arg)
{
    struct care *c = arg;

    return kist_verify(bank, &c->report, progress_step, &c->progress);
}

static int care(Bank *self, struct care *c, bank_call *call, const char *name,
                PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    Py_ssize_t options = names ? PyTuple_GET_SIZE(names) : 0;

    if (n + options > 1 ||
        (options == 1 &&
         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "progress") != 0)) {
        PyErr_Format(PyExc_TypeError, "%s() takes nothing but progress=", name);
        return NO_CALL;
    }
    *c = (struct care){ .report = { .size = sizeof c->report } };
    if (n + options == 1 && args[0] != Py_None)
        c->progress.callable = args[0];
    return bank_wait(self, call, c);
}

static PyObject *bank_compact(Bank *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    struct care c;
    int rc = care(self, &c, call_compact, "compact", args, n, names);

    if (rc == NO_CALL || c.progress.raised)
        return NULL;
    if (rc < 0)
        return raise_code(self->st, rc);
    Py_RETURN_NONE;
}

static PyObject *bank_verify(Bank *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    struct care c;
    int rc = care(self, &c, call_verify, "verify", args, n, names);

    if (rc == NO_CALL || c.progress.raised)
        return NULL;
    if (rc < 0 && rc != KIST_ECORRUPT)
        return raise_code(self->st, rc);
    return report_make(self->st, &c.report);
}

PyMethodDef bank_care_methods[] = {
    { "sync", (PyCFunction)bank_sync, METH_NOARGS,
      "sync($self, /)\n--\n\n"
      "Make everything durable that was written before." },
    { "stats", (PyCFunction)bank_stats, METH_NOARGS,
      "stats($self, /)\n--\n\n"
      "Counts and sizes, as a Stats." },
    { "size_bytes", (PyCFunction)bank_size_bytes, METH_NOARGS,
      "size_bytes($self, /)\n--\n\n"
      "Bytes of all keys and values." },
    { "fragmentation", (PyCFunction)bank_fragmentation, METH_NOARGS,
      "fragmentation($self, /)\n--\n\n"
      "The share of dead bytes among the heap's records, 0.0 to 1.0." },
    { "compact", (PyCFunction)(void (*)(void))bank_compact, METH_FASTCALL | METH_KEYWORDS,
      "compact($self, /, progress=None)\n--\n\n"
      "Give back the space of dead records, while readers and writers go on.\n\n"
      "progress(done_bytes, all_bytes) is called now and then; what it raises ends\n"
      "the call." },
    { "verify", (PyCFunction)(void (*)(void))bank_verify, METH_FASTCALL | METH_KEYWORDS,
      "verify($self, /, progress=None)\n--\n\n"
      "Read everything and check it; changes nothing. Returns a Report, in which\n"
      "`damaged` and `unreachable` are 0 when all is well." },
    { 0 },
};
