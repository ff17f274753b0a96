/* module.c - kist._core: the types, the table of errors. */
#include "core.h"

extern void bank_methods_join(void);

static PyObject *set_raise(PyObject *module, PyObject *callable)
{
    struct state *st = PyModule_GetState(module);

    Py_INCREF(callable);
    Py_XSETREF(st->raise, callable);
    Py_RETURN_NONE;
}

/* For tests: the exception of a code. */
static PyObject *raise_for(PyObject *module, PyObject *code)
{
    long rc = PyLong_AsLong(code);

    if (rc == -1 && PyErr_Occurred())
        return NULL;
    return raise_says(PyModule_GetState(module), (int)rc, kist_strerror((int)rc));
}

static PyMethodDef module_methods[] = {
    { "_set_raise", set_raise, METH_O, NULL },
    { "_raise", raise_for, METH_O, NULL },
    { 0 },
};

static PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *spec, bool made)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);

    if (!type)
        return NULL;
    if (!made)
        ((PyTypeObject *)type)->tp_new = NULL; /* only C makes them */
    Py_INCREF(type);
    if (PyModule_AddObject(module, name, type) < 0) {
        Py_DECREF(type);
        Py_DECREF(type);
        return NULL;
    }
    return (PyTypeObject *)type;
}

static int module_exec(PyObject *module)
{
    struct state *st = PyModule_GetState(module);
    static bool joined;

    if (!joined)
        bank_methods_join();
    joined = true;
    st->store = add_type(module, "Store", &store_spec, true);
    st->bank = st->store ? add_type(module, "Bank", &bank_spec, true) : NULL;
    st->view = st->bank ? add_type(module, "View", &view_spec, false) : NULL;
    st->walk = st->view ? add_type(module, "Walk", &walk_spec, false) : NULL;
    st->batch = st->walk ? add_type(module, "Batch", &batch_spec, true) : NULL;
    if (!st->batch || records_add(module, st) < 0 || errors_add(module) < 0 || fork_watch() < 0)
        return -1;
    return PyModule_AddStringConstant(module, "VERSION", kist_version());
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *st = PyModule_GetState(module);

    Py_VISIT(st->store);
    Py_VISIT(st->bank);
    Py_VISIT(st->view);
    Py_VISIT(st->walk);
    Py_VISIT(st->meta);
    Py_VISIT(st->stats);
    Py_VISIT(st->report);
    Py_VISIT(st->copied);
    Py_VISIT(st->event);
    Py_VISIT(st->moment);
    Py_VISIT(st->batch);
    Py_VISIT(st->raise);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct state *st = PyModule_GetState(module);

    Py_CLEAR(st->store);
    Py_CLEAR(st->bank);
    Py_CLEAR(st->view);
    Py_CLEAR(st->walk);
    Py_CLEAR(st->meta);
    Py_CLEAR(st->stats);
    Py_CLEAR(st->report);
    Py_CLEAR(st->copied);
    Py_CLEAR(st->event);
    Py_CLEAR(st->moment);
    Py_CLEAR(st->batch);
    Py_CLEAR(st->raise);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    { Py_mod_exec, module_exec },
    { 0, NULL },
};
static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kist._core",
    .m_doc = "The part of kist that is C.",
    .m_size = sizeof(struct state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
