/* bank_snapshot.c - the bank as of a moment: scans, snapshots, and what is
 * saved of them. A snapshot is a Bank whose handle only reads. */
#include "core.h"

/* ---- scans ------------------------------------------------------------ */

/* A bound of a range; None: there is none. */
static int bound(Bank *self, PyObject *object, kist_bytes *out)
{
    *out = (kist_bytes){ NULL, 0 };
    return object == Py_None ? 0 : key_take(self->st, object, out);
}

static PyObject *bank_scan(Bank *self, PyObject *args)
{
    kist_cursor_options range = { .size = sizeof range };
    PyObject *prefix, *start, *end;
    unsigned long long limit;
    int reverse, kind;

    if (!PyArg_ParseTuple(args, "iOOOpK", &kind, &prefix, &start, &end, &reverse, &limit))
        return NULL;
    if (bound(self, prefix, &range.prefix) < 0 || bound(self, start, &range.from) < 0 ||
        bound(self, end, &range.to) < 0)
        return NULL;
    range.flags = reverse ? KIST_CURSOR_REVERSE : 0;
    range.limit = limit;
    return walk_scan(self, (enum walk_kind)kind, &range);
}

/* ---- snapshots -------------------------------------------------------- */

static int call_snapshot(kist_bank *bank, void *arg)
{
    return kist_snapshot_open(arg, bank);
}

/* _snapshot(type): a Bank of that type, which is derived of ours in Python. */
static PyObject *bank_snapshot(Bank *self, PyObject *type)
{
    kist_bank *snapshot;
    PyObject *made;
    int rc;

    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, self->st->bank)) {
        PyErr_SetString(PyExc_TypeError, "use Bank.snapshot()");
        return NULL;
    }
    rc = bank_wait(self, call_snapshot, &snapshot);
    if (rc < 0)
        return rc == NO_CALL ? NULL : raise_code(self->st, rc);
    made = ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, 0);
    if (!made) {
        (void)kist_bank_close(snapshot);
        return NULL;
    }
    if (bank_adopt((Bank *)made, self, snapshot) < 0)
        Py_CLEAR(made);
    return made;
}

static int call_moment(kist_bank *bank, void *arg)
{
    return kist_snapshot_stat(bank, arg);
}

static PyObject *bank_moment(Bank *self, PyObject *Py_UNUSED(none))
{
    kist_snapshot_info info = { .size = sizeof info };
    int rc = bank_wait(self, call_moment, &info);

    if (rc == KIST_OK)
        return moment_make(self->st, &info);
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

static int call_save(kist_bank *bank, void *fd)
{
    return kist_snapshot_save(bank, kist_write_fd, fd);
}

static int call_restore(kist_bank *bank, void *fd)
{
    return kist_snapshot_restore(bank, kist_read_fd, fd);
}

static PyObject *by_descriptor(Bank *self, PyObject *file, bank_call *call)
{
    int fd = PyObject_AsFileDescriptor(file), rc;

    if (fd < 0)
        return NULL;
    rc = bank_wait(self, call, &fd);
    if (rc == KIST_OK)
        Py_RETURN_NONE;
    return rc == NO_CALL ? NULL : raise_code(self->st, rc);
}

static PyObject *bank_save(Bank *self, PyObject *file)
{
    return by_descriptor(self, file, call_save);
}

static PyObject *bank_restore(Bank *self, PyObject *file)
{
    return by_descriptor(self, file, call_restore);
}

static int call_revert(kist_bank *bank, void *snapshot)
{
    return kist_snapshot_revert(bank, snapshot);
}

static PyObject *bank_revert(Bank *self, PyObject *snapshot)
{
    struct handle *h;
    int rc;

    if (!PyObject_TypeCheck(snapshot, self->st->bank)) {
        PyErr_Format(PyExc_TypeError, "revert() takes a kist.Snapshot, not %.100s",
                     Py_TYPE(snapshot)->tp_name);
        return NULL;
    }
    h = ((Bank *)snapshot)->handle;
    if (!h)
        return raise_says(self->st, KIST_ECLOSED, "the snapshot was closed");
    h->holders++; /* it may be closed by another thread meanwhile */
    rc = bank_wait(self, call_revert, h->bank);
    if (rc < 0 && rc != NO_CALL)
        raise_code(self->st, rc);
    handle_drop(self->st, h);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef bank_snapshot_methods[] = {
    { "_scan", (PyCFunction)bank_scan, METH_VARARGS, NULL },
    { "_snapshot", (PyCFunction)bank_snapshot, METH_O, NULL },
    { "_moment", (PyCFunction)bank_moment, METH_NOARGS, NULL },
    { "save", (PyCFunction)bank_save, METH_O,
      "save($self, file, /)\n--\n\n"
      "Write all entries, of one moment, to a binary file, pipe or socket (what has a\n"
      "fileno(), or a descriptor), checksummed; restore() reads it." },
    { "restore", (PyCFunction)bank_restore, METH_O,
      "restore($self, file, /)\n--\n\n"
      "Make the content what save() wrote, all at once; times of writes are kept. All\n"
      "of it is read and checked before anything changes." },
    { "revert", (PyCFunction)bank_revert, METH_O,
      "revert($self, snapshot, /)\n--\n\n"
      "Make the content what an open snapshot sees, all at once; touches only what\n"
      "was written since, if it is of this bank." },
    { 0 },
};
