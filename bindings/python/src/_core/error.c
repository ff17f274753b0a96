/* error.c - codes become exceptions. The classes are made from ERRORS by
 * kist/_errors.py, which hands in the function that makes one. */
#include "core.h"

#include <errno.h>

static PyObject *raise_with(struct state *st, int rc, const char *what, const kist_error *e)
{
    PyObject *error, *offset = Py_None;

    if (!st->raise) {
        PyErr_Format(PyExc_RuntimeError, "%s: import kist, not kist._core", what);
        return NULL;
    }
    if (e->offset != UINT64_MAX && e->rc)
        offset = PyLong_FromUnsignedLongLong(e->offset);
    else
        Py_INCREF(offset);
    if (!offset)
        return NULL;
    error = PyObject_CallFunction(st->raise, "isNO&O&N", rc, kist_errname(rc),
                                  PyUnicode_DecodeUTF8(what, (Py_ssize_t)strlen(what), "replace"),
                                  PyUnicode_DecodeFSDefault, e->bank, PyUnicode_DecodeFSDefault,
                                  e->file, offset);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

PyObject *raise_code(struct state *st, int rc)
{
    static const kist_error none = { .offset = UINT64_MAX };
    const kist_error *e = kist_last_error();

    if (e->rc != rc)
        e = &none;
    return raise_with(st, rc, e->what[0] ? e->what : kist_strerror(rc), e);
}

PyObject *raise_says(struct state *st, int rc, const char *what)
{
    static const kist_error none = { .offset = UINT64_MAX };

    return raise_with(st, rc, what, &none);
}

static const struct {
    const char *name;
    int code;
    const char *text;
} errors[] = {
#define ROW(name, code, text) { #name, code, text },
    KIST_ERRORS(ROW)
#undef ROW
};

/* ERRORS: ((name, code, text), ...), the header's table. */
int errors_add(PyObject *module)
{
    Py_ssize_t n = (Py_ssize_t)(sizeof errors / sizeof *errors);
    PyObject *table = PyTuple_New(n);

    for (Py_ssize_t i = 0; table && i < n; i++) {
        PyObject *row = Py_BuildValue("sis", errors[i].name, errors[i].code, errors[i].text);

        if (!row)
            Py_CLEAR(table);
        else
            PyTuple_SET_ITEM(table, i, row);
    }
    if (!table)
        return -1;
    if (PyModule_AddObject(module, "ERRORS", table) < 0) {
        Py_DECREF(table);
        return -1;
    }
    return 0;
}
