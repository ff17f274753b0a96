/* view.c - a value kept mapped. Python sees a memoryview, which keeps the View,
 * which keeps the map; so do slices of it, and whatever else exports it. */
#include "core.h"

typedef struct {
    PyObject_HEAD
    kist_view *view;
} View;

PyObject *view_export(struct state *st, kist_view *view)
{
    View *self = PyObject_New(View, st->view);
    PyObject *memory;

    if (!self) {
        kist_view_release(view);
        return NULL;
    }
    self->view = view;
    memory = PyMemoryView_FromObject((PyObject *)self);
    Py_DECREF(self);
    return memory;
}

bool view_is(struct state *st, PyObject *object)
{
    return Py_TYPE(object) == st->view;
}

static int view_getbuffer(View *self, Py_buffer *buffer, int flags)
{
    kist_bytes bytes = kist_view_bytes(self->view);

    /* An empty value may have no address; a buffer has one. */
    return PyBuffer_FillInfo(buffer, (PyObject *)self,
                             bytes.len ? (void *)(uintptr_t)bytes.data : (void *)(uintptr_t) "",
                             (Py_ssize_t)bytes.len, 1, flags);
}

static void view_dealloc(View *self)
{
    PyTypeObject *type = Py_TYPE(self);
    kist_view *view = self->view;

    if (kist_view_bytes(view).len < LARGE) {
        kist_view_release(view);
    } else {
        /* the last view of a large file unmaps it */
        PyThreadState *thread = PyEval_SaveThread();

        kist_view_release(view);
        PyEval_RestoreThread(thread);
    }
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot view_slots[] = {
    { Py_bf_getbuffer, view_getbuffer },
    { Py_tp_dealloc, view_dealloc },
    { Py_tp_doc, "A value kept mapped; the `obj` of the memoryviews of get_view()." },
    { 0, NULL },
};
PyType_Spec view_spec = {
    .name = "kist._core.View",
    .basicsize = sizeof(View),
#ifdef Py_TPFLAGS_DISALLOW_INSTANTIATION
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
#else
    .flags = Py_TPFLAGS_DEFAULT,
#endif
    .slots = view_slots,
};
