/* Copies the kept rows and columns of a three-dimensional array; see gather.py, which has the same in numpy. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    Py_buffer view;
    int held;
} Borrowed;

static int borrow(PyObject *object, Borrowed *borrowed, int dimensions, int flags, const char *name)
{
    if (PyObject_GetBuffer(object, &borrowed->view, PyBUF_C_CONTIGUOUS | flags) < 0)
        return -1;
    borrowed->held = 1;
    if (borrowed->view.ndim != dimensions) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions, not %d", name, borrowed->view.ndim, dimensions);
        return -1;
    }
    return 0;
}

static void give_back(Borrowed *borrowed)
{
    if (borrowed->held)
        PyBuffer_Release(&borrowed->view);
}

/* Indices are int64 and must lie below `limit`: what is read outside an array would be somebody else's memory. */
static int check_indices(const Borrowed *indices, Py_ssize_t limit)
{
    const int64_t *values = indices->view.buf;
    if (indices->view.itemsize != 8) {
        PyErr_SetString(PyExc_ValueError, "indices are not int64");
        return -1;
    }
    for (Py_ssize_t i = 0; i < indices->view.shape[0]; i++) {
        if (values[i] < 0 || values[i] >= limit) {
            PyErr_Format(PyExc_IndexError, "index %lld is outside an axis of %zd", (long long)values[i], limit);
            return -1;
        }
    }
    return 0;
}

#define PICK(type)                                                          \
    do {                                                                    \
        const type *source = (const type *)from;                            \
        type *target = (type *)to;                                          \
        for (Py_ssize_t j = 0; j < columns; j++)                            \
            target[j] = source[column_at[j]];                               \
    } while (0)

static void pick(char *to, const char *from, const int32_t *column_at, Py_ssize_t columns, Py_ssize_t itemsize)
{
    switch (itemsize) {
    case 1: PICK(uint8_t); break;
    case 2: PICK(uint16_t); break;
    case 4: PICK(uint32_t); break;
    default: PICK(uint64_t);
    }
}

static PyObject *gather(PyObject *module, PyObject *args)
{
    PyObject *out_object, *values_object, *rows_object, *columns_object, *result = NULL;
    Borrowed out = {.held = 0}, values = {.held = 0}, rows = {.held = 0}, columns = {.held = 0};
    int32_t *column_at = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOO", &out_object, &values_object, &rows_object, &columns_object))
        return NULL;
    if (borrow(out_object, &out, 3, PyBUF_WRITABLE, "out") < 0 || borrow(values_object, &values, 3, 0, "values") < 0
        || borrow(rows_object, &rows, 1, 0, "rows") < 0 || borrow(columns_object, &columns, 1, 0, "columns") < 0)
        goto done;
    const Py_ssize_t *shape = values.view.shape, itemsize = values.view.itemsize;
    const Py_ssize_t kept_rows = rows.view.shape[0], kept_columns = columns.view.shape[0];
    if (check_indices(&rows, shape[0]) < 0 || check_indices(&columns, shape[2]) < 0)
        goto done;
    if (out.view.itemsize != itemsize || out.view.shape[0] != kept_rows || out.view.shape[1] != shape[1]
        || out.view.shape[2] != kept_columns || shape[2] > INT32_MAX
        || (itemsize != 1 && itemsize != 2 && itemsize != 4 && itemsize != 8)) {
        PyErr_SetString(PyExc_ValueError, "out does not fit values, rows and columns");
        goto done;
    }
    column_at = PyMem_Malloc((size_t)(kept_columns ? kept_columns : 1) * sizeof *column_at);
    if (column_at == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t j = 0; j < kept_columns; j++)
        column_at[j] = (int32_t)((const int64_t *)columns.view.buf)[j];
    Py_BEGIN_ALLOW_THREADS
    const int64_t *row_at = rows.view.buf;
    const Py_ssize_t width = shape[2] * itemsize, kept_width = kept_columns * itemsize, row = shape[1] * width;
    const int whole = kept_columns == shape[2]; /* ascending and distinct: then they are all of them */
    char *to = out.view.buf;
    for (Py_ssize_t i = 0; i < kept_rows; i++) {
        const char *from = (const char *)values.view.buf + row_at[i] * row;
        if (whole) {
            memcpy(to, from, (size_t)row);
            to += row;
            continue;
        }
        for (Py_ssize_t m = 0; m < shape[1]; m++, from += width, to += kept_width)
            pick(to, from, column_at, kept_columns, itemsize);
    }
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(column_at);
    give_back(&out);
    give_back(&values);
    give_back(&rows);
    give_back(&columns);
    return result;
}

static PyMethodDef methods[] = {
    {"gather", gather, METH_VARARGS, "gather(out, values, rows, columns): out[i, m, j] = values[rows[i], m, columns[j]]"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_gather", "Copies kept rows and columns.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__gather(void)
{
    return PyModule_Create(&definition);
}
